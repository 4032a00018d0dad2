"""What `LegacySurvey` does, on the embedded sky: a section of the page for each job."""

import html
import io
import time

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from .. import pictures
from ..client import LegacySurvey
from ..pictures.rgb import rgb
from .html_page import figure, grey_array, plain_section, png_figure

__all__ = ["SCENES", "legacy_sections", "rgb_array"]

SCENES = (
    ("field", "A field of galaxies", 500, "griz"),
    ("corner", "Where four bricks meet", 256, "grz"),
    ("split", "Across Dec +32.375, south below and north above", 256, "grz"),
)
PRODUCTS = ("image", "invvar")
SHOWN_CARDS = ("RELEASE", "REGION", "SOURCE", "MIRROR", "RA", "DEC", "SIZEX", "SIZEY", "BANDS")


def legacy_sections(sky, say):
    """Cut pictures out of the embedded sky.

    Parameters
    ----------
    sky : `~astroquery_lis.sandbox.server.Sandbox`
        The running sky.
    say : callable
        Told what happens, a line at a time.

    Returns
    -------
    list of str
        Sections of the page.
    """
    sections = []
    for name, title, size, bands in SCENES:
        position = sky.positions[name]
        sky.requests.clear()
        start = time.perf_counter()
        hdul = LegacySurvey.get_cutout(position, size, bands=bands, products=PRODUCTS)
        seconds = time.perf_counter() - start
        sent = sum(record.bytes_sent for record in sky.requests)
        whole = sum(sky.root.joinpath(path).stat().st_size for path in _files(hdul))
        cost = (
            f"{len(sky.requests)} requests, {sent / 1e6:.1f} MB of the files' "
            f"{whole / 1e6:.0f} MB, {seconds:.2f} s"
        )
        say(f"{title}: {size} px, {bands}, {hdul[0].header['NBRICKS']} brick(s); {cost}")
        sections.append(_section(title, hdul, cost))
    sections.append(_two_sources(sky, say))
    sections.append(_turned_mosaic(sky, say))
    sections.append(_masks_and_catalogue(sky, say))
    sections.append(_many(sky, say))
    return sections


def _files(hdul):
    """Return the paths, below the mirror's root, of the files that a cutout was made of."""
    root = hdul[0].header["MIRROR"] + "/"
    urls = (card.value for hdu in hdul[1:] for card in hdu.header["URL*"].cards)
    return [url.removeprefix(root) for url in urls]


def rgb_array(hdul):
    """Return a picture of a cutout's bands g, r and z in the survey's colours.

    Parameters
    ----------
    hdul : `~astropy.io.fits.HDUList`
        As `~astroquery_lis.LegacySurveyClass.get_cutout` returns it.

    Returns
    -------
    `~numpy.ndarray` of uint8, shape (ny, nx, 3)
        North up.
    """
    return rgb(hdul, bands="grz")


def _section(title, hdul, cost):
    header = hdul[0].header
    names = [*SHOWN_CARDS, "GRID", *header["BRICK*"], *header["TREE*"], "REQKEY"]
    cards = "\n".join(str(header.cards[name]).rstrip() for name in names)
    figures = figure(rgb_array(hdul), "image: z, r, g as red, green, blue")
    depth = grey_array(hdul["INVVAR_R"].data)
    figures += figure(depth, "invvar r: white is deepest, black is no data")
    return (
        f"<section><h2>{html.escape(title)}</h2><p>{html.escape(cost)}</p>"
        f'<div class="pictures">{figures}</div><pre>{html.escape(cards)}</pre></section>'
    )


def _two_sources(sky, say):
    """Return the section that shows bricks and viewer side by side, and the PSFs."""
    position, bands = sky.positions["field"], "grz"
    figures, largest = "", 0.0
    pictures = {}
    for source in ("bricks", "viewer"):
        sky.requests.clear()
        pictures[source] = LegacySurvey.get_cutout(position, 256, bands=bands, source=source)
        sent = sum(record.bytes_sent for record in sky.requests) / 1e6
        caption = f"source={source!r}: {len(sky.requests)} requests, {sent:.1f} MB"
        figures += figure(rgb_array(pictures[source]), caption)
    for one, other in zip(pictures["bricks"][1:], pictures["viewer"][1:], strict=True):
        largest = max(largest, float(np.nanmax(np.abs(one.data - other.data))))
    psfs = LegacySurvey.get_psf(position, bands=bands, to_sky=True)
    for hdu in psfs[1:]:
        root = np.sqrt(np.clip(hdu.data, 0, None))
        figures += figure(grey_array(root), f"{hdu.name}, {hdu.header['CAMERA']}, square root")
    text = f"Largest difference between the pixels of the two: {largest:g} nanomaggy."
    say(f"Bricks and viewer side by side, and {len(psfs) - 1} PSFs. {text}")
    title = "The same place from the bricks and from the viewer"
    return plain_section(title, text, figures)


def _turned_mosaic(sky, say):
    """Return the section with the four-brick corner on a grid of its own."""
    title = "The corner again, turned by 30 degrees, in the optical and by WISE"
    hdul = LegacySurvey.get_cutout(
        sky.positions["corner"], 256, bands="grzW1", rotation=30 * u.deg, wise_grid="optical"
    )
    figures = figure(rgb_array(hdul), "image: z, r, g; north is 30 degrees from up")
    figures += figure(grey_array(np.clip(hdul["IMAGE_W1"].data, 0, None) ** 0.3), "W1")
    text = f"{hdul[0].header['NBRICKS']} bricks, resampled onto one grid with flux conserved."
    say(f"{title}: {text}")
    return plain_section(title, text, figures)


def _masks_and_catalogue(sky, say):
    """Return the section with the mask and the Tractor sources drawn over an image."""
    title = "Masks and catalogue"
    try:
        import matplotlib as mpl
    except ImportError:
        text = "Left out: it needs matplotlib, in the extra plot."
        say(f"{title}: {text}")
        return plain_section(title, text, "")
    mpl.use("Agg")
    figures, counts = "", []
    for name in ("bright", "field"):
        position = sky.positions[name]
        hdul = LegacySurvey.get_cutout(position, 400, bands="grz", products=("image", "maskbits"))
        sources = LegacySurvey.query_tractor(position, radius=45 * u.arcsec)
        axes = pictures.plot(hdul, catalog=sources)
        stream = io.BytesIO()
        axes.figure.savefig(stream, dpi=90)
        counts.append(len(sources))
        figures += png_figure(stream.getvalue(), f"{name}: {len(sources)} sources by type")
    text = f"{sum(counts)} Tractor sources, drawn by their type over image and mask."
    say(f"{title}: {text}")
    return plain_section(title, text, figures)


def _many(sky, say):
    """Return the section with a contact sheet."""
    title = "A contact sheet"
    bright = sky.truth[np.argsort(sky.truth["flux_r"])[::-1]]
    inside = bright[(np.abs(bright["ra"] - 45.125) < 0.12) & (np.abs(bright["dec"]) < 0.12)][:24]
    targets = SkyCoord(inside["ra"], inside["dec"])
    sky.requests.clear()
    found = LegacySurvey.get_cutouts(targets, 64, bands="grz")
    text = f"{len(found)} targets, {len(sky.requests)} requests."
    say(f"{title}: {text}")
    sheet = pictures.contact_sheet(found, columns=8, size=96, labels=False)
    return plain_section(title, text, figure(sheet, "The brightest sources of one brick"))
