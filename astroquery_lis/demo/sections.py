"""What `LegacySurvey` does, on the embedded sky: a section of the page for each job."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import astropy.units as u
import numpy as np

from .. import _conf, pictures, sandbox
from .._packages import import_optional
from ..client import LegacySurvey
from ..exceptions import OptionalDependencyError
from ..images.cutout_hdus import side_arcsec, sky_matrix
from ..jwst_stage import JwstStageClass
from ..jwst_stage.legacy.field_page import jwst_picture, offset_figure
from ..pictures.page import (
    PLOT_COLOURS,
    Markup,
    drawing,
    escape,
    figure,
    figures,
    grey_picture,
    section,
)
from ..pictures.plot import sky_marks

if TYPE_CHECKING:
    from collections.abc import Callable

    from astropy.io import fits

    from ..sandbox.server import Sandbox

    Say = Callable[[str], object]
    Job = tuple[str, Callable[[Sandbox, Say, str], Markup]]

SCENES = (
    ("field", "A field of galaxies", 500, "griz"),
    ("corner", "Where four bricks meet", 256, "grz"),
    ("split", "Across Dec +32.375, south below and north above", 256, "grz"),
)
LOOK = {
    "field": (
        "Red ellipticals in the middle, blue discs around them.",
        "East of the step are two exposures, west of it one; sources add their own noise.",
    ),
    "corner": (
        "No seam runs through the middle, where the four bricks meet.",
        "The step is the edge of an exposure; none is at the edges of the bricks.",
    ),
    "split": (
        "The lower half was observed by DECam, the upper by BASS and MzLS; no seam is seen.",
        "One exposure on either side, of the same depth.",
    ),
}
"""What to look at in the picture of each scene, and in its inverse variance."""

NANOMAGGY = "nanomaggy per pixel"
SHOWN_CARDS = ("RELEASE", "REGION", "SOURCE", "MIRROR", "RA", "DEC", "SIZEX", "SIZEY", "BANDS")


class Cost:
    """Requests, bytes and time of what is done in a ``with`` block, as text."""

    def __init__(self, sky: Sandbox) -> None:
        self._requests = sky.requests

    def __enter__(self) -> Cost:
        self._requests.clear()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.seconds = time.perf_counter() - self._start
        self.number = len(self._requests)
        self.sent_mb = sum(record.bytes_sent for record in self._requests) / 1e6

    def __str__(self) -> str:
        if not self.number:
            return f"{self.seconds:.2f} s without a request, from what is still in memory"
        plural = "" if self.number == 1 else "s"
        return f"{self.number} request{plural}, {self.sent_mb:.1f} MB, {self.seconds:.2f} s"


def sky_figure(
    picture: np.ndarray, matrix: np.ndarray, name: str, *, unit: str, look: str
) -> Markup:
    """Return a picture with compass and scale bar, and what it shows; `matrix` is its grid's."""
    ny, nx = picture.shape[:2]
    side = side_arcsec(matrix)
    size = f"{nx} × {ny} px, {nx * side:.0f}″ × {ny * side:.0f}″"
    caption = f"{name}. {look} {size}, {unit}."
    return figure(picture, name, caption, lossless=True, marks=sky_marks((ny, nx), matrix))


def picture_figure(hdul: fits.HDUList, name: str, look: str) -> Markup:
    """Return the bands g, r and z of a cutout in the survey's colours."""
    picture, matrix = pictures.rgb(hdul, bands="grz"), sky_matrix(hdul[1].header)
    return sky_figure(picture, matrix, name, unit=NANOMAGGY, look=look)


def call(*lines: str) -> Markup:
    """Return the lines that made what is shown, to be copied."""
    return Markup(f"<pre>{escape(chr(10).join(lines))}</pre>")


def _grey_figure(hdu: fits.ImageHDU, name: str, unit: str, look: str) -> Markup:
    return sky_figure(grey_picture(hdu), sky_matrix(hdu.header), name, unit=unit, look=look)


def _scene(sky: Sandbox, say: Say, title: str, *, name: str, size: int, bands: str) -> Markup:
    with Cost(sky) as spent:
        hdul = LegacySurvey.get_cutout(
            sky.positions[name], size, bands=bands, products=("image", "invvar")
        )
    whole = sum(sky.file(path).stat().st_size for path in _file_paths(hdul))
    cost = (
        f"{spent.number} requests, {spent.sent_mb:.1f} MB of the files' "
        f"{whole / 1e6:.0f} MB, {spent.seconds:.2f} s"
    )
    header = hdul[0].header
    say(f"{title}: {size} px, {bands}, {header['NBRICKS']} brick(s); {cost}")
    names = [*SHOWN_CARDS, "GRID", *header["BRICK*"], *header["TREE*"], "REQKEY"]
    cards = "\n".join(str(header.cards[name]).rstrip() for name in names)
    shown = figures(
        picture_figure(hdul, "Image: z, r, g as red, green, blue", LOOK[name][0]),
        _grey_figure(
            hdul["INVVAR_R"],
            "Inverse variance in r, white is deepest",
            "nanomaggy⁻²",
            LOOK[name][1],
        ),
    )
    line = f'hdul = LegacySurvey.get_cutout(sky.positions["{name}"], {size}, bands="{bands}",'
    made = call(line, '                               products=("image", "invvar"))')
    head = f"<details><summary>The header says it all</summary><pre>{escape(cards)}</pre></details>"
    return section(title, made, shown, Markup(head), note=cost)


def _file_paths(hdul: fits.HDUList) -> list[str]:
    """Return the paths, below the mirror's root, of the files that a cutout was made of."""
    root = hdul[0].header["MIRROR"] + "/"
    urls = (card.value for hdu in hdul[1:] for card in hdu.header["URL*"].cards)
    return [url.removeprefix(root) for url in urls]


def _two_sources(sky: Sandbox, say: Say, title: str) -> Markup:
    position, bands = sky.positions["field"], "grz"
    parts, cutouts = [], []
    for source in ("bricks", "viewer"):
        with Cost(sky) as spent:
            cutouts.append(LegacySurvey.get_cutout(position, 256, bands=bands, source=source))
        look = f"The same pixels whichever way. {spent}."
        parts.append(picture_figure(cutouts[-1], f"source={source!r}", look))
    largest = max(
        float(np.nanmax(np.abs(brick.data - viewer.data)))
        for brick, viewer in zip(cutouts[0][1:], cutouts[1][1:], strict=True)
    )
    with Cost(sky) as spent:
        psfs = LegacySurvey.get_psf(position, bands=bands, to_sky=True)
    look = (
        f"The image of a point (PSF), its square root shown, so that the wings are seen. {spent}."
    )
    parts += [
        _grey_figure(
            hdu, f"{hdu.name}, {hdu.header['CAMERA']}", "share of the flux per pixel", look
        )
        for hdu in psfs[1:]
    ]
    text = f"Largest difference between the pixels of the two: {largest:g} nanomaggy."
    say(f"Bricks and viewer side by side, and {len(psfs) - 1} PSFs. {text}")
    made = call(
        'position = sky.positions["field"]',
        'bricks = LegacySurvey.get_cutout(position, 256, bands="grz", source="bricks")',
        'viewer = LegacySurvey.get_cutout(position, 256, bands="grz", source="viewer")',
        'psfs = LegacySurvey.get_psf(position, bands="grz", to_sky=True)',
    )
    return section(title, made, figures(*parts[:2]), figures(*parts[2:]), note=text)


def _turned_mosaic(sky: Sandbox, say: Say, title: str) -> Markup:
    with Cost(sky) as spent:
        hdul = LegacySurvey.get_cutout(
            sky.positions["corner"], 256, bands="grzW1", rotation=30 * u.deg, wise_grid="optical"
        )
    shown = figures(
        picture_figure(hdul, "Image: z, r, g", "North is 30 degrees from up; still no seam."),
        _grey_figure(
            hdul["IMAGE_W1"],
            "WISE W1 (3.4 µm)",
            NANOMAGGY,
            "The same stars and galaxies, with a PSF of 6″ instead of 1″.",
        ),
    )
    text = (
        f"{hdul[0].header['NBRICKS']} bricks, resampled onto one grid with flux conserved; {spent}."
    )
    say(f"{title}: {text}")
    made = call(
        'hdul = LegacySurvey.get_cutout(sky.positions["corner"], 256, bands="grzW1",',
        '                               rotation=30 * u.deg, wise_grid="optical")',
    )
    return section(title, made, shown, note=text)


def _masks_and_catalog(sky: Sandbox, say: Say, title: str) -> Markup:
    try:
        matplotlib = import_optional("matplotlib", "plot", "A plot")
    except OptionalDependencyError as error:
        text = f"Left out: {error}"
        say(f"{title}: {text}")
        return section(title, note=text)
    matplotlib.use("Agg")
    parts, count = [], 0
    looks = {
        "bright": "Yellow is where a bright star spoils the photometry (MASKBITS).",
        "field": "Each type of source has a marker: PSF are stars, the others galaxies.",
    }
    for name, look in looks.items():
        position = sky.positions[name]
        with Cost(sky) as spent:
            hdul = LegacySurvey.get_cutout(
                position, 400, bands="grz", products=("image", "maskbits")
            )
            sources = LegacySurvey.query_tractor(position, radius=45 * u.arcsec)
        with matplotlib.rc_context(PLOT_COLOURS):
            axes = pictures.plot(hdul, catalog=sources)
        count += len(sources)
        side = f"{400 * side_arcsec(sky_matrix(hdul[1].header)):.0f}″"
        text = (
            f"{name}: {len(sources)} sources of the Tractor, which made the catalogue. {look} "
            f"400 × 400 px, {side} × {side}, north up, east left, {NANOMAGGY}. {spent}."
        )
        parts.append(figure(drawing(axes.figure), f"{name}: sources by type", text))
    text = f"{count} Tractor sources, drawn by their type over image and mask."
    say(f"{title}: {text}")
    made = call(
        'position = sky.positions["bright"]',
        'hdul = LegacySurvey.get_cutout(position, 400, bands="grz",',
        '                               products=("image", "maskbits"))',
        "sources = LegacySurvey.query_tractor(position, radius=45 * u.arcsec)",
        "pictures.plot(hdul, catalog=sources)",
    )
    return section(title, made, figures(*parts), note=text)


def _many_targets(sky: Sandbox, say: Say, title: str) -> Markup:
    bright = sky.truth[sky.truth["flux_r"].argsort()[::-1]]
    inside = (abs(bright["ra"] - 45.125) < 0.12) & (abs(bright["dec"]) < 0.12)
    with Cost(sky) as spent:
        cutouts = LegacySurvey.get_cutouts(bright[inside][:24], 64, bands="grz")
    text = f"{len(cutouts)} targets: {spent}."
    say(f"{title}: {text}")
    sheet = pictures.contact_sheet(cutouts, columns=8, size=64, labels=False)
    name = "The brightest sources of one brick"
    caption = (
        f"{name}. Stars are round, most galaxies are not. Each 64 × 64 px, "
        f"17″ × 17″, north up, east left, {NANOMAGGY}."
    )
    shown = figure(sheet, name, caption, lossless=True)
    made = call(
        'bright = sky.truth[sky.truth["flux_r"].argsort()[::-1]]',
        'inside = (abs(bright["ra"] - 45.125) < 0.12) & (abs(bright["dec"]) < 0.12)',
        'cutouts = LegacySurvey.get_cutouts(bright[inside][:24], 64, bands="grz")',
        "pictures.contact_sheet(cutouts, columns=8, size=64, labels=False)",
    )
    return section(title, made, figures(shown), note=text)


SURVEY_JOBS: tuple[Job, ...] = (
    *(
        (title, partial(_scene, name=name, size=size, bands=bands))
        for name, title, size, bands in SCENES
    ),
    ("The same place from the bricks and from the viewer, and its PSF", _two_sources),
    ("The corner again, turned by 30 degrees, in the optical and by WISE", _turned_mosaic),
    ("Masks and catalogue", _masks_and_catalog),
    ("A contact sheet", _many_targets),
)
"""What is done on the survey: the title of the section, and what makes it."""

JWST_TITLE = "A JWST field, from the archive to a mosaic, beside the Legacy Surveys"
FILTER = "F356W"
DITHERS = 3
OFFSET_ARCSEC = (0.2, -0.22)
"""An error of the pointing that all exposures have: what the alignment has to take out."""

RADIUS = 1 * u.arcmin
STEPS = {"tweakreg": {"abs_minobj": 3, "abs_fitgeometry": "shift", "abs_searchrad": 1.0}}
"""A field of half an arcminute has too few stars for the rotation that is fitted by default."""


def jwst_section(sky: Sandbox, say: Say, title: str, *, folder: Path) -> Markup:
    """Find, fetch and reduce simulated exposures, and match them to the Tractor catalogue.

    Without the extra ``jwst`` the section says what is missing.
    """
    from astroquery import mast

    try:
        from ..sandbox.jwst import simulate

        observation = simulate(
            size=256, filters=(FILTER,), dithers=DITHERS, groups=5, offset_arcsec=OFFSET_ARCSEC
        )
    except OptionalDependencyError as error:
        text = f"Left out: {error}"
        say(f"{title}: {text}")
        return section(title, note=text)
    stage = JwstStageClass()
    stage.crds_path, stage.crds_context = observation.crds_path, observation.crds_context
    service = sandbox.serve_mast(sky, observation)
    start = time.perf_counter()
    with mast.conf.set_temp("server", service.url):
        rows = stage.query_uncal(sky.positions["clump"], radius=RADIUS)
        say(f"MAST has {len(rows)} uncal files of {rows['size'].sum() / 1e6:.0f} MB there")
        files = stage.download_uncal(rows, download_dir=folder / "uncal", show_progress=False)
    # The sandbox's cache ends with it; here a second run finds what the first has asked jwst.
    with _conf.override(cache_dir=str(folder / "cache")):
        plan = stage.plan(files, output_dir=folder / "reduced", abs_refcat="legacy", steps=STEPS)
    say(f"{len(plan)} products of the real pipeline, offline: half a minute, unless they are there")
    manifest = stage.run(plan, survey=LegacySurvey, show_progress=False)
    failed = manifest[manifest["Status"] == "ERROR"]
    if len(failed):
        text = f"The chain failed: {failed['Message'][0]}"
        say(text)
        return section(title, note=text)
    stage.report(folder / "reduced")
    cost = f"{rows['size'].sum() / 1e6:.1f} MB of uncal files, {time.perf_counter() - start:.0f} s"
    mosaics = [f"{plan.output_dir}/{task.name}" for task in plan.tasks if task.stage == 3]
    with Cost(sky) as spent:
        match = stage.match_catalogs(
            mosaics[0].replace("_i2d.fits", "_cat.ecsv"), survey=LegacySurvey
        )
        stage.field_page(mosaics, folder / "field.html", match=match, survey=LegacySurvey)
        cutout = stage.cutouts_for(mosaics, bands="grz", survey=LegacySurvey, like="own")[0]
    text = (
        f"{len(match.matches)} sources are in both; JWST is {match.offset}, after an error of "
        f"{1e3 * np.hypot(*OFFSET_ARCSEC):.0f} mas that was put into the pointing."
    )
    say(f"{title}: {text}")
    mosaic = jwst_picture(mosaics[0])
    shown = figures(
        sky_figure(
            mosaic.image,
            mosaic.matrix,
            f"JWST {FILTER}: the mosaic (i2d)",
            unit="MJy/sr",
            look=f"{DITHERS} exposures, aligned: no star is seen twice. {cost}.",
        ),
        picture_figure(
            cutout,
            "Legacy Surveys z, r, g",
            f"On the pixels of the mosaic; what JWST parts is one blob from the ground. {spent}.",
        ),
        offset_figure(match),
    )
    links = Markup(
        "<p>The plot shows each match: how far a source of the mosaic is from its partner in the "
        'Tractor catalogue. <a href="field.html">The field in detail</a>, '
        '<a href="reduced/report.html">the report of the run</a>.</p>'
    )
    made = _calls(Path("reduced", *Path(mosaics[0]).parts[-2:]).as_posix())
    return section(title, made, shown, links, note=text)


def _calls(mosaic: str) -> Markup:
    catalog = mosaic.replace("_i2d.fits", "_cat.ecsv")
    return call(
        "from astroquery import mast",
        "from astroquery_lis.jwst_stage import JwstStageClass",
        "from astroquery_lis.sandbox.jwst import simulate",
        "",
        "# A simulated archive and its references; the real ones need neither of these lines.",
        f'observation = simulate(size=256, filters=("{FILTER}",), dithers={DITHERS}, groups=5,',
        f"                       offset_arcsec={OFFSET_ARCSEC})",
        "mast.conf.server = sandbox.serve_mast(sky, observation).url",
        "stage = JwstStageClass()",
        "stage.crds_path, stage.crds_context = observation.crds_path, observation.crds_context",
        "",
        'rows = stage.query_uncal(sky.positions["clump"], radius=1 * u.arcmin)',
        'files = stage.download_uncal(rows, download_dir="uncal")  # raw ramps: uncal',
        f"steps = {STEPS}",
        'plan = stage.plan(files, output_dir="reduced", abs_refcat="legacy", steps=steps)',
        "manifest = stage.run(plan, survey=LegacySurvey)  # rate, cal, and the mosaic: i2d",
        f'catalog = "{catalog}"',
        "match = stage.match_catalogs(catalog, survey=LegacySurvey)",
    )
