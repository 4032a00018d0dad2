"""What the package does, on the embedded sky, as a page of pictures with a section for each job."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
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
from ..io.jobs import bar
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
    html_page,
    section,
    write_page,
)
from ..pictures.plot import sky_marks

if TYPE_CHECKING:
    from collections.abc import Callable

    from astropy.io import fits

    from .._typing import FilePath
    from ..sandbox.server import Sandbox

    Say = Callable[[str], object]
    # What a job was like, and what is shown of it.
    Shown = tuple[str, *tuple[Markup, ...]]
    Job = tuple[str, Callable[[Sandbox, Say], Shown]]

__all__ = ["SCENES", "run"]

# By place: what it is, size, bands, and what to look at in the image and its inverse variance.
SCENES = {
    "field": (
        *("A field of galaxies", 500, "griz"),
        "Red ellipticals in the middle, blue discs around them.",
        "East of the step are two exposures, west of it one; sources add their own noise.",
    ),
    "corner": (
        *("Where four bricks meet", 256, "grz"),
        "No seam runs through the middle, where the four bricks meet.",
        "The step is the edge of an exposure; none is at the edges of the bricks.",
    ),
    "split": (
        *("Across Dec +32.375, south below and north above", 256, "grz"),
        "The lower half was observed by DECam, the upper by BASS and MzLS; no seam is seen.",
        "One exposure on either side, of the same depth.",
    ),
}
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


def _scene(sky: Sandbox, say: Say, *, name: str) -> Shown:
    _, size, bands, look, depth = SCENES[name]
    with Cost(sky) as spent:
        hdul = LegacySurvey.get_cutout(
            sky.positions[name], size, bands=bands, products=("image", "invvar")
        )
    whole = sum(sky.file(path).stat().st_size for path in _file_paths(hdul))
    header = hdul[0].header
    text = f"{header['NBRICKS']} brick(s), {spent}, of files of {whole / 1e6:.0f} MB."
    names = [*SHOWN_CARDS, "GRID", *header["BRICK*"], *header["TREE*"], "REQKEY"]
    cards = "\n".join(str(header.cards[name]).rstrip() for name in names)
    shown = figures(
        picture_figure(hdul, "Image: z, r, g as red, green, blue", look),
        _grey_figure(
            hdul["INVVAR_R"], "Inverse variance in r, white is deepest", "nanomaggy⁻²", depth
        ),
    )
    line = f'hdul = LegacySurvey.get_cutout(sky.positions["{name}"], {size}, bands="{bands}",'
    made = call(line, '                               products=("image", "invvar"))')
    head = f"<details><summary>The header says it all</summary><pre>{escape(cards)}</pre></details>"
    return text, made, shown, Markup(head)


def _file_paths(hdul: fits.HDUList) -> list[str]:
    """Return the paths, below the mirror's root, of the files that a cutout was made of."""
    urls = (card.value for hdu in hdul[1:] for card in hdu.header["URL*"].cards)
    return [url.removeprefix(hdul[0].header["MIRROR"] + "/") for url in urls]


def _two_sources(sky: Sandbox, say: Say) -> Shown:
    position, bands = sky.positions["field"], "grz"
    parts, cutouts = [], []
    for source in ("bricks", "viewer"):
        with Cost(sky) as spent:
            cutouts.append(LegacySurvey.get_cutout(position, 256, bands=bands, source=source))
        look = f"The same pixels whichever way. {spent}."
        parts.append(picture_figure(cutouts[-1], f"source={source!r}", look))
    pairs = zip(*(hdul[1:] for hdul in cutouts), strict=True)
    largest = max(np.nanmax(np.abs(brick.data - viewer.data)) for brick, viewer in pairs)
    with Cost(sky) as spent:
        psfs = LegacySurvey.get_psf(position, bands=bands, to_sky=True)
    look = f"The image of a point (PSF), as a square root, so that its wings are seen. {spent}."
    parts += [
        _grey_figure(hdu, f"{hdu.name}, {hdu.header['CAMERA']}", "share of flux per pixel", look)
        for hdu in psfs[1:]
    ]
    text = f"Largest difference between the pixels of the two: {largest:g} nanomaggy."
    made = call(
        'position = sky.positions["field"]',
        'bricks = LegacySurvey.get_cutout(position, 256, bands="grz", source="bricks")',
        'viewer = LegacySurvey.get_cutout(position, 256, bands="grz", source="viewer")',
        'psfs = LegacySurvey.get_psf(position, bands="grz", to_sky=True)',
    )
    return text, made, figures(*parts[:2]), figures(*parts[2:])


def _turned_mosaic(sky: Sandbox, say: Say) -> Shown:
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
    text = f"{hdul[0].header['NBRICKS']} bricks, resampled with flux conserved; {spent}."
    made = call(
        'hdul = LegacySurvey.get_cutout(sky.positions["corner"], 256, bands="grzW1",',
        '                               rotation=30 * u.deg, wise_grid="optical")',
    )
    return text, made, shown


def _masks_and_catalog(sky: Sandbox, say: Say) -> Shown:
    matplotlib = import_optional("matplotlib", "plot", "A plot")
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
    made = call(
        'position = sky.positions["bright"]',
        'hdul = LegacySurvey.get_cutout(position, 400, bands="grz",',
        '                               products=("image", "maskbits"))',
        "sources = LegacySurvey.query_tractor(position, radius=45 * u.arcsec)",
        "pictures.plot(hdul, catalog=sources)",
    )
    return text, made, figures(*parts)


def _many_targets(sky: Sandbox, say: Say) -> Shown:
    bright = sky.truth[sky.truth["flux_r"].argsort()[::-1]]
    inside = (abs(bright["ra"] - 45.125) < 0.12) & (abs(bright["dec"]) < 0.12)
    with Cost(sky) as spent:
        cutouts = LegacySurvey.get_cutouts(bright[inside][:24], 64, bands="grz")
    sheet = pictures.contact_sheet(cutouts, columns=8, size=64, labels=False)
    caption = (
        "The brightest sources of one brick. Stars are round, most galaxies are not. "
        f"Each 64 × 64 px, 17″ × 17″, north up, east left, {NANOMAGGY}."
    )
    shown = figure(sheet, "The brightest sources of one brick", caption, lossless=True)
    made = call(
        'bright = sky.truth[sky.truth["flux_r"].argsort()[::-1]]',
        'inside = (abs(bright["ra"] - 45.125) < 0.12) & (abs(bright["dec"]) < 0.12)',
        'cutouts = LegacySurvey.get_cutouts(bright[inside][:24], 64, bands="grz")',
        "pictures.contact_sheet(cutouts, columns=8, size=64, labels=False)",
    )
    return f"{len(cutouts)} targets: {spent}.", made, figures(shown)


SURVEY_JOBS: tuple[Job, ...] = (
    *((title, partial(_scene, name=name)) for name, (title, *_) in SCENES.items()),
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

STEPS = {"tweakreg": {"abs_minobj": 3, "abs_fitgeometry": "shift", "abs_searchrad": 1.0}}
"""A field of half an arcminute has too few stars for the rotation that is fitted by default."""


def _jwst(sky: Sandbox, say: Say, *, folder: Path) -> Shown:
    """Find, fetch and reduce simulated exposures, and match them to the Tractor catalogue."""
    from astroquery import mast

    from ..sandbox.jwst import simulate

    observation = simulate(
        size=256, filters=(FILTER,), dithers=DITHERS, groups=5, offset_arcsec=OFFSET_ARCSEC
    )
    stage = JwstStageClass()
    stage.crds_path, stage.crds_context = observation.crds_path, observation.crds_context
    service = sandbox.serve_mast(sky, observation)
    start = time.perf_counter()
    with mast.conf.set_temp("server", service.url):
        rows = stage.query_uncal(sky.positions["clump"], radius=1 * u.arcmin)
        say(f"MAST has {len(rows)} uncal files of {rows['size'].sum() / 1e6:.0f} MB there")
        files = stage.download_uncal(rows, download_dir=folder / "uncal", show_progress=False)
    # The sandbox's cache ends with it; here a second run finds what the first has asked jwst.
    with _conf.override(cache_dir=str(folder / "cache")):
        plan = stage.plan(files, output_dir=folder / "reduced", abs_refcat="legacy", steps=STEPS)
    say(f"{len(plan)} products of the real pipeline, offline: half a minute, unless they are there")
    manifest = stage.run(plan, survey=LegacySurvey, show_progress=False)
    failed = manifest[manifest["Status"] == "ERROR"]
    if len(failed):
        return (f"The chain failed: {failed['Message'][0]}",)
    stage.report(folder / "reduced")
    cost = f"{rows['size'].sum() / 1e6:.1f} MB of uncal files, {time.perf_counter() - start:.0f} s"
    mosaics = [f"{plan.output_dir}/{task.name}" for task in plan.tasks if task.stage == 3]
    with Cost(sky) as spent:
        catalog = mosaics[0].replace("_i2d.fits", "_cat.ecsv")
        match = stage.match_catalogs(catalog, survey=LegacySurvey)
        stage.field_page(mosaics, folder / "field.html", match=match, survey=LegacySurvey)
        cutout = stage.cutouts_for(mosaics, bands="grz", survey=LegacySurvey, like="own")[0]
    text = (
        f"{len(match.matches)} sources are in both; JWST is {match.offset}, after an error of "
        f"{1e3 * np.hypot(*OFFSET_ARCSEC):.0f} mas that was put into the pointing."
    )
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
    made = call(
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
        f'catalog = "{Path("reduced", *Path(catalog).parts[-2:]).as_posix()}"',
        "match = stage.match_catalogs(catalog, survey=LegacySurvey)",
    )
    return text, made, shown, links


ABOUT = (
    "Every picture of the survey was cut out of its bricks by LegacySurvey.get_cutout, over HTTP, "
    "a few compressed tiles at a time. The sky is simulated: do not use it for science."
)
BEGIN = Markup(
    "<p>The lines above the pictures made them. They go on from these, in a session of Python "
    "or a notebook:</p>"
)
NEXT = Markup(
    "<p>Leave the sandbox out, give a place of the real sky, and the same lines ask the survey's "
    "own services.</p>"
)


def section_of(title: str, make: Callable[[Sandbox, Say], Shown], sky: Sandbox, say: Say) -> Markup:
    """Do a job, and return its section; without an extra the section says what is missing."""
    try:
        text, *parts = make(sky, say)
    except OptionalDependencyError as error:
        text, parts = f"Left out: {error}", []
    say(f"{title}: {text}")
    return section(title, *parts, note=text)


def run(
    output_dir: FilePath = "astroquery-lis-demo",
    *,
    say: Callable[[str], object] = print,
    show_progress: bool = True,
) -> Path:
    """Serve the embedded sky, do everything that the package does, and write a page of it.

    Cutouts, PSFs, mosaics, catalogue; then a JWST field from the archive to a mosaic, its sources
    beside those of the Legacy Surveys.

    Parameters
    ----------
    output_dir : str or `~pathlib.Path`, optional
        Folder for the page.
    say : callable, optional
        Called with a line of text for each step.
    show_progress : bool, optional
        Whether to show how long a step takes meanwhile.

    Returns
    -------
    `~pathlib.Path`
        The page.

    Examples
    --------
    >>> from astroquery_lis import demo
    >>> page = demo.run("demo")  # doctest: +SKIP
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    import_optional("PIL.Image", "plot", "The demo")
    jobs: tuple[Job, ...] = (*SURVEY_JOBS, (JWST_TITLE, partial(_jwst, folder=folder)))
    lines = call(
        "import astropy.units as u",
        "from astroquery_lis import LegacySurvey, pictures, sandbox",
        "",
        "sky = sandbox.serve()  # the simulated sky; sky.close() ends it",
    )
    sections = [section("Lines to copy", BEGIN, lines)]
    say("Starting the embedded sky (a file is made when it is first asked for)")
    with Heartbeat(say, is_shown=show_progress) as tell, sandbox.serve() as sky:
        tell(f"Serving {len(sky.truth)} simulated sources at {sky.mirror_url}")
        for title, make in jobs:
            tell.begin(title)
            sections.append(section_of(title, make, sky, tell))
    sections.append(section("Next", NEXT))
    page = html_page("A simulated sky", "".join(sections), about=ABOUT)
    path = write_page(folder / "index.html", page)
    say(f"The page is {path.resolve()}")
    return path


_TICK_S = 0.5
_LINE_S = 2.0
_ENDLESS = {"leave": False, "bar_format": "{desc} {bar:10}", "total": 20, "dynamic_ncols": True}


class Heartbeat:
    """Says lines, and in a ``with`` block how long the next is waited for.

    That is a bar that moves, in terminals and notebooks where tqdm is installed, and a line of text
    every two seconds elsewhere, which ``note`` says; nothing but the lines if not ``is_shown``.
    """

    def __init__(
        self,
        say: Callable[[str], object],
        note: Callable[[str], object] | None = None,
        *,
        is_shown: bool = True,
    ) -> None:
        self._say, self._note = say, note or say
        self._step = ""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._since = self._said = time.monotonic()
        self._bar = bar(**_ENDLESS) if is_shown else None
        if not is_shown:
            self._ended.set()

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._bar is not None:
            self._bar.close()

    def __call__(self, text: str) -> None:
        """Say a line."""
        with self._lock:
            if self._bar is not None:
                self._bar.clear()
            self._say(text)
            self._since = self._said = time.monotonic()

    def begin(self, step: str) -> None:
        """Name what is being done."""
        with self._lock:
            self._step = f"{step}: "
            self._since = time.monotonic()

    def _beat(self) -> None:
        # Whoever says the next line meets the same error, as of a closed pipe, and tells of it.
        with suppress(OSError):
            while not self._ended.wait(_TICK_S):
                with self._lock:
                    self._tell(time.monotonic())

    def _tell(self, now: float) -> None:
        """Say how long the step has taken, if it is time to."""
        if self._bar is not None:
            self._bar.set_description_str(f"{self._step}{now - self._since:.0f} s")
            # It fills, and begins again.
            self._bar.n = (self._bar.n + 1) % self._bar.total
            self._bar.refresh()
        elif now - self._said >= _LINE_S - _TICK_S:
            self._note(f"  {self._step}{now - self._since:.0f} s")
            self._said = now
