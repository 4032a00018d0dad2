"""What `LegacySurvey` does, on the embedded sky: a section of the page for each job."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from .. import pictures
from .._packages import import_optional
from ..client import LegacySurvey
from ..exceptions import OptionalDependencyError
from ..pictures.page import Markup, drawing, escape, figure, figures, section
from ..pictures.summary import grey_picture

if TYPE_CHECKING:
    from collections.abc import Callable

    from astropy.io import fits

    from ..sandbox.server import Sandbox

    Say = Callable[[str], object]

__all__ = ["SCENES", "call", "picture_figure", "survey_sections"]

SCENES = (
    ("field", "A field of galaxies", 500, "griz"),
    ("corner", "Where four bricks meet", 256, "grz"),
    ("split", "Across Dec +32.375, south below and north above", 256, "grz"),
)
PRODUCTS = ("image", "invvar")
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


def picture_figure(hdul: fits.HDUList, caption: str) -> Markup:
    """Return the bands g, r and z of a cutout in the survey's colours."""
    return figure(pictures.rgb(hdul, bands="grz"), caption, lossless=True)


def call(*lines: str) -> Markup:
    """Return the lines that made what is shown, to be copied."""
    return Markup(f"<pre>{escape(chr(10).join(lines))}</pre>")


def _grey_figure(hdu: fits.ImageHDU, caption: str) -> Markup:
    return figure(grey_picture(hdu), caption, lossless=True)


def _scene(sky: Sandbox, say: Say, name: str, title: str, size: int, bands: str) -> Markup:
    sky.requests.clear()
    start = time.perf_counter()
    hdul = LegacySurvey.get_cutout(sky.positions[name], size, bands=bands, products=PRODUCTS)
    seconds = time.perf_counter() - start
    sent = sum(record.bytes_sent for record in sky.requests)
    whole = sum(sky.file(path).stat().st_size for path in _file_paths(hdul))
    cost = (
        f"{len(sky.requests)} requests, {sent / 1e6:.1f} MB of the files' "
        f"{whole / 1e6:.0f} MB, {seconds:.2f} s"
    )
    header = hdul[0].header
    say(f"{title}: {size} px, {bands}, {header['NBRICKS']} brick(s); {cost}")
    names = [*SHOWN_CARDS, "GRID", *header["BRICK*"], *header["TREE*"], "REQKEY"]
    cards = "\n".join(str(header.cards[name]).rstrip() for name in names)
    shown = figures(
        picture_figure(hdul, "image: z, r, g as red, green, blue"),
        _grey_figure(hdul["INVVAR_R"], "invvar r: white is deepest, black is no data"),
    )
    line = f'hdul = LegacySurvey.get_cutout(sky.positions["{name}"], {size}, bands="{bands}",'
    made = call(line, f"                               products={PRODUCTS})")
    return section(title, made, shown, Markup(f"<pre>{escape(cards)}</pre>"), note=cost)


def _file_paths(hdul: fits.HDUList) -> list[str]:
    """Return the paths, below the mirror's root, of the files that a cutout was made of."""
    root = hdul[0].header["MIRROR"] + "/"
    urls = (card.value for hdu in hdul[1:] for card in hdu.header["URL*"].cards)
    return [url.removeprefix(root) for url in urls]


def _two_sources(sky: Sandbox, say: Say) -> Markup:
    position, bands = sky.positions["field"], "grz"
    parts, cutouts = [], []
    for source in ("bricks", "viewer"):
        sky.requests.clear()
        cutouts.append(LegacySurvey.get_cutout(position, 256, bands=bands, source=source))
        sent = sum(record.bytes_sent for record in sky.requests) / 1e6
        caption = f"source={source!r}: {len(sky.requests)} requests, {sent:.1f} MB"
        parts.append(picture_figure(cutouts[-1], caption))
    largest = max(
        float(np.nanmax(np.abs(brick.data - viewer.data)))
        for brick, viewer in zip(cutouts[0][1:], cutouts[1][1:], strict=True)
    )
    psfs = LegacySurvey.get_psf(position, bands=bands, to_sky=True)
    parts += [
        _grey_figure(hdu, f"{hdu.name}, {hdu.header['CAMERA']}, square root") for hdu in psfs[1:]
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
    return section(title, made, figures(*parts), note=text)


def _turned_mosaic(sky: Sandbox, say: Say) -> Markup:
    title = "The corner again, turned by 30 degrees, in the optical and by WISE"
    hdul = LegacySurvey.get_cutout(
        sky.positions["corner"], 256, bands="grzW1", rotation=30 * u.deg, wise_grid="optical"
    )
    shown = figures(
        picture_figure(hdul, "image: z, r, g; north is 30 degrees from up"),
        _grey_figure(hdul["IMAGE_W1"], "W1"),
    )
    text = f"{hdul[0].header['NBRICKS']} bricks, resampled onto one grid with flux conserved."
    say(f"{title}: {text}")
    made = call(
        'hdul = LegacySurvey.get_cutout(sky.positions["corner"], 256, bands="grzW1",',
        '                               rotation=30 * u.deg, wise_grid="optical")',
    )
    return section(title, made, shown, note=text)


def _masks_and_catalog(sky: Sandbox, say: Say) -> Markup:
    title = "Masks and catalogue"
    try:
        import_optional("matplotlib", "plot", "A plot").use("Agg")
    except OptionalDependencyError as error:
        text = f"Left out: {error}"
        say(f"{title}: {text}")
        return section(title, note=text)
    parts, count = [], 0
    for name in ("bright", "field"):
        position = sky.positions[name]
        hdul = LegacySurvey.get_cutout(position, 400, bands="grz", products=("image", "maskbits"))
        sources = LegacySurvey.query_tractor(position, radius=45 * u.arcsec)
        axes = pictures.plot(hdul, catalog=sources)
        count += len(sources)
        parts.append(figure(drawing(axes.figure), f"{name}: {len(sources)} sources by type"))
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
    bright = sky.truth[np.argsort(sky.truth["flux_r"])[::-1]]
    inside = bright[(np.abs(bright["ra"] - 45.125) < 0.12) & (np.abs(bright["dec"]) < 0.12)][:24]
    sky.requests.clear()
    cutouts = LegacySurvey.get_cutouts(SkyCoord(inside["ra"], inside["dec"]), 64, bands="grz")
    text = f"{len(cutouts)} targets, {len(sky.requests)} requests."
    say(f"{title}: {text}")
    sheet = pictures.contact_sheet(cutouts, columns=8, size=96, labels=False)
    shown = figure(sheet, "The brightest sources of one brick", lossless=True)
    made = call(
        'cutouts = LegacySurvey.get_cutouts(targets, 64, bands="grz")',
        "pictures.contact_sheet(cutouts, columns=8, size=96, labels=False)",
    )
    return section(title, made, figures(shown), note=text)
