"""What `LegacySurvey` does, on the embedded sky: a section of the page for each job."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import astropy.units as u
import numpy as np

from .. import pictures
from .._packages import import_optional
from ..client import LegacySurvey
from ..exceptions import OptionalDependencyError
from ..images.planes import side_arcsec, sky_matrix
from ..pictures.marks import sky_marks
from ..pictures.page import PLOT_COLOURS, Markup, drawing, escape, figure, figures, section
from ..pictures.summary import grey_picture

if TYPE_CHECKING:
    from collections.abc import Callable

    from astropy.io import fits

    from ..sandbox.server import Sandbox

    Say = Callable[[str], object]

__all__ = ["SCENES", "Cost", "call", "picture_figure", "sky_figure", "survey_sections"]

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


def survey_sections(sky: Sandbox, say: Say) -> list[Markup]:
    """Return the sections, and say what happens."""
    return [
        *(_scene(sky, say, *scene) for scene in SCENES),
        _two_sources(sky, say),
        _turned_mosaic(sky, say),
        _masks_and_catalog(sky, say),
        _many_targets(sky, say),
    ]


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


def _scene(sky: Sandbox, say: Say, name: str, title: str, size: int, bands: str) -> Markup:
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


def _two_sources(sky: Sandbox, say: Say) -> Markup:
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
    title = "The same place from the bricks and from the viewer, and its PSF"
    return section(title, made, figures(*parts[:2]), figures(*parts[2:]), note=text)


def _turned_mosaic(sky: Sandbox, say: Say) -> Markup:
    title = "The corner again, turned by 30 degrees, in the optical and by WISE"
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


def _masks_and_catalog(sky: Sandbox, say: Say) -> Markup:
    title = "Masks and catalogue"
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


def _many_targets(sky: Sandbox, say: Say) -> Markup:
    title = "A contact sheet"
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
