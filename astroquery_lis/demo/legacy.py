"""The main job on the embedded sky, ending in a page of pictures."""

import base64
import html
import io
import time
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord

from . import sandbox
from .core import LegacySurvey
from .exceptions import OptionalDependencyError
from .products import pictures
from .products.rgb import rgb

__all__ = ["rgb_array", "run"]

PAGE = "index.html"

SCENES = (
    ("field", "A field of galaxies", 500, "griz"),
    ("corner", "Where four bricks meet", 256, "grz"),
    ("split", "Across Dec +32.375, south below and north above", 256, "grz"),
)
PRODUCTS = ("image", "invvar")
SHOWN_CARDS = ("RELEASE", "REGION", "SOURCE", "MIRROR", "RA", "DEC", "SIZEX", "SIZEY", "BANDS")

STYLE = """
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; line-height: 1.5;
       font-family: system-ui, sans-serif; background: #11151c; color: #dde3ea; }
h1, h2 { font-weight: 600; } a { color: #8ab4f8; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; flex: 1 1 16rem; max-width: 27rem; }
img { width: 100%; image-rendering: pixelated; border-radius: 4px; display: block; }
figcaption { font-size: .85rem; color: #9aa7b4; margin-top: .3rem; }
pre { overflow-x: auto; background: #1a212b; padding: .8rem; border-radius: 4px;
      font-size: .8rem; }
"""


def run(output_dir="astroquery-lis-demo", *, say=print):
    """Serve the embedded sky, cut pictures out of it, and write a page of them.

    Parameters
    ----------
    output_dir : str or `~pathlib.Path`, optional
        Folder for the page.
    say : callable, optional
        Told what happens, a line at a time.

    Returns
    -------
    `~pathlib.Path`
        The page.

    Raises
    ------
    OptionalDependencyError
        If pillow is not installed.
    """
    _pillow()
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    say("Starting the embedded sky (its files are made the first time, in about half a minute)")
    with sandbox.serve(show_progress=True) as sky:
        say(f"Serving {len(sky.truth)} simulated sources at {sky.mirror_url}")
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
    page = folder / PAGE
    page.write_text(_page(sections), encoding="utf-8")
    say(f"The page is {page.resolve()}")
    return page


def _pillow():
    try:
        import PIL.Image
    except ImportError as error:
        msg = "The demo's pictures need pillow: install astroquery_lis[plot]."
        raise OptionalDependencyError(msg, cause=error) from error
    return PIL.Image


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


def _grey_array(data):
    """Return a grey picture, black at 0 and white at the largest value."""
    top = np.nanmax(data) or 1
    return (255 * np.clip(np.nan_to_num(data) / top, 0, 1)).astype(np.uint8)[::-1]


def _figure(array, caption):
    stream = io.BytesIO()
    _pillow().fromarray(np.ascontiguousarray(array)).save(stream, "PNG", optimize=True)
    return _png_figure(stream.getvalue(), caption)


def _png_figure(data, caption):
    code = base64.b64encode(data).decode()
    text = html.escape(caption)
    image = f'<img alt="{text}" src="data:image/png;base64,{code}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def _section(title, hdul, cost):
    header = hdul[0].header
    names = [*SHOWN_CARDS, "GRID", *header["BRICK*"], *header["TREE*"], "REQKEY"]
    cards = "\n".join(str(header.cards[name]).rstrip() for name in names)
    figures = _figure(rgb_array(hdul), "image: z, r, g as red, green, blue")
    depth = _grey_array(hdul["INVVAR_R"].data)
    figures += _figure(depth, "invvar r: white is deepest, black is no data")
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
        figures += _figure(rgb_array(pictures[source]), caption)
    for one, other in zip(pictures["bricks"][1:], pictures["viewer"][1:], strict=True):
        largest = max(largest, float(np.nanmax(np.abs(one.data - other.data))))
    psfs = LegacySurvey.get_psf(position, bands=bands, to_sky=True)
    for hdu in psfs[1:]:
        root = np.sqrt(np.clip(hdu.data, 0, None))
        figures += _figure(_grey_array(root), f"{hdu.name}, {hdu.header['CAMERA']}, square root")
    text = f"Largest difference between the pixels of the two: {largest:g} nanomaggy."
    say(f"Bricks and viewer side by side, and {len(psfs) - 1} PSFs. {text}")
    title = "The same place from the bricks and from the viewer"
    return _plain_section(title, text, figures)


def _plain_section(title, text, figures):
    return (
        f"<section><h2>{html.escape(title)}</h2><p>{html.escape(text)}</p>"
        f'<div class="pictures">{figures}</div></section>'
    )


def _turned_mosaic(sky, say):
    """Return the section with the four-brick corner on a grid of its own."""
    title = "The corner again, turned by 30 degrees, in the optical and by WISE"
    hdul = LegacySurvey.get_cutout(
        sky.positions["corner"], 256, bands="grzW1", rotation=30 * u.deg, wise_grid="optical"
    )
    figures = _figure(rgb_array(hdul), "image: z, r, g; north is 30 degrees from up")
    figures += _figure(_grey_array(np.clip(hdul["IMAGE_W1"].data, 0, None) ** 0.3), "W1")
    text = f"{hdul[0].header['NBRICKS']} bricks, resampled onto one grid with flux conserved."
    say(f"{title}: {text}")
    return _plain_section(title, text, figures)


def _masks_and_catalogue(sky, say):
    """Return the section with the mask and the Tractor sources drawn over an image."""
    title = "Masks and catalogue"
    try:
        import matplotlib as mpl
    except ImportError:
        text = "Left out: it needs matplotlib, in the extra plot."
        say(f"{title}: {text}")
        return _plain_section(title, text, "")
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
        figures += _png_figure(stream.getvalue(), f"{name}: {len(sources)} sources by type")
    text = f"{sum(counts)} Tractor sources, drawn by their type over image and mask."
    say(f"{title}: {text}")
    return _plain_section(title, text, figures)


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
    return _plain_section(title, text, _figure(sheet, "The brightest sources of one brick"))


def _page(sections):
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>astroquery_lis demo</title><style>{STYLE}</style></head><body>"
        "<h1>Cutouts of a simulated sky</h1><p>Every picture was cut out of survey bricks by "
        "<code>LegacySurvey.get_cutout</code>, over HTTP, a few compressed tiles at a time. The "
        "sky is simulated: do not use it for science.</p>" + "".join(sections) + "</body></html>\n"
    )
