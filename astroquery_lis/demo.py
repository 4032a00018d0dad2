"""The main job on the embedded sky, ending in a page of pictures."""

import base64
import html
import io
import time
from pathlib import Path

import numpy as np
from astropy.visualization import make_lupton_rgb

from . import sandbox
from .core import LegacySurvey
from .exceptions import OptionalDependencyError

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


def rgb_array(hdul, *, stretch=0.5, q=8):
    """Return a colour picture of a cutout that has the bands g, r and z.

    Parameters
    ----------
    hdul : `~astropy.io.fits.HDUList`
        As `~astroquery_lis.LegacySurveyClass.get_cutout` returns it.
    stretch, q : float, optional
        Of `~astropy.visualization.make_lupton_rgb`.

    Returns
    -------
    `~numpy.ndarray` of uint8, shape (ny, nx, 3)
        North up.
    """
    # Flux per pixel falls to the blue for most sources, so the bands are brought to one level.
    red, green, blue = (
        np.nan_to_num(hdul[f"IMAGE_{band}"].data) * gain
        for band, gain in (("Z", 4.0), ("R", 6.0), ("G", 9.0))
    )
    return make_lupton_rgb(red, green, blue, stretch=stretch, Q=q)[::-1]


def _grey_array(data):
    """Return a grey picture, black at 0 and white at the largest value."""
    top = np.nanmax(data) or 1
    return (255 * np.clip(np.nan_to_num(data) / top, 0, 1)).astype(np.uint8)[::-1]


def _figure(array, caption):
    stream = io.BytesIO()
    _pillow().fromarray(np.ascontiguousarray(array)).save(stream, "PNG", optimize=True)
    code = base64.b64encode(stream.getvalue()).decode()
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


def _page(sections):
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>astroquery_lis demo</title><style>{STYLE}</style></head><body>"
        "<h1>Cutouts of a simulated sky</h1><p>Every picture was cut out of survey bricks by "
        "<code>LegacySurvey.get_cutout</code>, over HTTP, a few compressed tiles at a time. The "
        "sky is simulated: do not use it for science.</p>" + "".join(sections) + "</body></html>\n"
    )
