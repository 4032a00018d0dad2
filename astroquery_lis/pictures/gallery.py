"""Many cutouts on one sheet, and on one page that needs nothing else."""

import html
import os
from collections import Counter
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

import numpy as np
from astropy.table import Table

from .._conf import setting
from .._packages import package_version
from ..exceptions import InvalidRequestError
from ..survey.layers import layer_of
from ..survey.releases import RELEASES
from .encode import data_uri, pillow, thumbnail
from .picture_rows import picture_rows
from .rgb import NO_DATA_COLOUR

__all__ = ["contact_sheet", "gallery"]

GAP_PIX = 4
LABEL_PIX = 16
_LABEL_INK = (225, 229, 234)
_SHEET_COLOUR = (16, 18, 22)
_MISSING_COLOUR = tuple(level // 2 for level in NO_DATA_COLOUR)

ZOOM = 15
"""Of the viewer: 0.131 arcsec per screen pixel."""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def contact_sheet(
    manifest, *, columns=8, size=128, labels=True, bands=None, stretch="survey", brightness=1.0
):
    """Return one picture of many cutouts, row by row.

    Parameters
    ----------
    manifest : `~astropy.table.Table` or iterable of `~astropy.io.fits.HDUList`
        What ``download_cutouts`` returned, or cutouts: a list, or what ``iter_cutouts`` yields.
    columns : int, optional
        Cutouts side by side.
    size : int, optional
        Width and height of each in pixels.
    labels : bool or sequence of str, optional
        Texts below the pictures; `True` takes the ids, or the numbers of the rows.  Needs pillow.
    bands, stretch, brightness
        As for `~astroquery_lis.pictures.rgb`.

    Returns
    -------
    `~numpy.ndarray` of uint8, shape (ny, nx, 3)
        A row without a picture has a crossed-out box, and with labels its status.

    Raises
    ------
    InvalidRequestError
        If an argument is wrong or there are no rows.
    OptionalDependencyError
        If there are labels and pillow is not installed.

    Examples
    --------
    >>> from astroquery_lis import LegacySurvey, sandbox
    >>> from astroquery_lis import pictures
    >>> with sandbox.serve() as sky:
    ...     hdul = LegacySurvey.get_cutout(sky.positions['field'], 32, bands='grz')
    >>> pictures.contact_sheet([hdul, hdul], columns=2, size=32, labels=False).shape
    (40, 76, 3)
    """
    if isinstance(columns, bool) or not isinstance(columns, (int, np.integer)) or columns < 1:
        msg = f"columns={columns!r} must be a number of pictures, 1 at least."
        raise InvalidRequestError(msg, parameter="columns", value=columns)
    module = None if labels is False else pillow("Labels need")
    how = {"bands": bands, "stretch": stretch, "brightness": brightness}
    rows = list(picture_rows(manifest, size, **how))
    if not rows:
        msg = "manifest: there are no rows to show."
        raise InvalidRequestError(msg, parameter="manifest", value=manifest)
    texts = [row.name for row in rows] if isinstance(labels, (bool, np.bool_)) else list(labels)
    if len(texts) != len(rows):
        msg = f"labels: {len(texts)} texts for {len(rows)} rows."
        raise InvalidRequestError(msg, parameter="labels", value=labels)
    columns = min(columns, len(rows))
    high, wide = size + (LABEL_PIX if module else 0) + GAP_PIX, size + GAP_PIX
    lines = -(-len(rows) // columns)
    sheet = np.empty((lines * high + GAP_PIX, columns * wide + GAP_PIX, 3), np.uint8)
    sheet[:] = _SHEET_COLOUR
    for number, row in enumerate(rows):
        y = GAP_PIX + number // columns * high
        x = GAP_PIX + number % columns * wide
        if row.picture is None:
            picture = _crossed(size)
        else:
            picture = thumbnail(row.picture, size, enlarge=True)
        ny, nx = picture.shape[:2]
        y0, x0 = y + (size - ny) // 2, x + (size - nx) // 2
        sheet[y0 : y0 + ny, x0 : x0 + nx] = picture
        if module:
            text = texts[number] if row.picture is not None else f"{texts[number]} {row.status}"
            sheet[y + size : y + size + LABEL_PIX, x : x + size] = _label(module, text, size)
    return sheet


def _crossed(size):
    picture = np.empty((size, size, 3), np.uint8)
    picture[:] = _MISSING_COLOUR
    diagonal = np.arange(size)
    picture[diagonal, diagonal] = picture[diagonal, diagonal[::-1]] = NO_DATA_COLOUR
    return picture


def _label(module, text, width):
    """Return one line of text, cut off where it does not fit."""
    image = module.Image.new("RGB", (width, LABEL_PIX), _SHEET_COLOUR)
    draw = module.ImageDraw.Draw(image)
    # The font without FreeType is of one size and of Latin-1 only.
    font = module.ImageFont.load_default()
    text = str(text).encode("latin-1", "replace").decode("latin-1")
    while len(text) > 1 and draw.textlength(text, font=font) > width:
        text = text[:-2] + "~"
    draw.text((1, 2), text, fill=_LABEL_INK, font=font)
    return np.asarray(image)


def gallery(
    manifest,
    path,
    *,
    title="Cutouts",
    size=256,
    columns=(),
    coordinates=None,
    bands=None,
    stretch="survey",
    brightness=1.0,
):
    """Write a page of many cutouts: one HTML file that needs no other and no network.

    Parameters
    ----------
    manifest : `~astropy.table.Table` or iterable of `~astropy.io.fits.HDUList`
        What ``download_cutouts`` returned, with any columns added to it, or cutouts: a list, or
        what ``iter_cutouts`` yields.
    path : str or `~pathlib.Path`
        The page, replaced if it is there.
    title : str, optional
        Heading of the page.
    size : int, optional
        Pixels that each picture is made to fit into.
    columns : sequence of str, optional
        Further columns of the manifest to show and to sort by.
    coordinates : `~astropy.coordinates.SkyCoord`, optional
        Position of every row; by default the columns ``ra`` and ``dec``, in degrees where they
        have no unit, then the headers of the cutouts.
    bands, stretch, brightness
        As for `~astroquery_lis.pictures.rgb`.

    Returns
    -------
    `~pathlib.Path`
        The page.

    Raises
    ------
    InvalidRequestError
        If an argument is wrong.  A file that cannot be read is no error: its row says why.

    Notes
    -----
    With pillow installed a picture of 256 pixels takes about 60 kB, without it 200 kB.  Rows are
    written as they are read, so that memory holds one cutout at a time.

    Examples
    --------
    >>> from astroquery_lis import LegacySurvey, sandbox
    >>> import tempfile
    >>> from astroquery_lis import pictures
    >>> with sandbox.serve() as sky:
    ...     hdul = LegacySurvey.get_cutout(sky.positions['field'], 32, bands='grz')
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = pictures.gallery([hdul], folder + '/page.html', title='One')
    ...     text = page.read_text()
    >>> '<title>One' in text
    True
    """
    path = Path(path)
    columns = [columns] if isinstance(columns, str) else list(columns)
    how = {"bands": bands, "stretch": stretch, "brightness": brightness}
    rows = picture_rows(manifest, size, coordinates=coordinates, columns=columns, **how)
    numeric = [
        isinstance(manifest, Table)
        and name in manifest.colnames
        and getattr(manifest[name], "dtype", np.dtype(object)).kind in "iuf"
        for name in columns
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as page:
            counts = Counter()
            body = temporary.with_suffix(".rows")
            with open(body, "w", encoding="utf-8") as stream:
                for number, row in enumerate(rows):
                    counts[row.status] += 1
                    stream.write(_row(number, row, columns, numeric))
            page.write(_head(title, counts, columns, numeric))
            with open(body, encoding="utf-8") as stream:
                while chunk := stream.read(1 << 20):
                    page.write(chunk)
            page.write(_foot())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        temporary.with_suffix(".rows").unlink(missing_ok=True)
    return path


def _asset(name):
    return files(__package__).joinpath("data", name).read_text(encoding="utf-8")


def _head(title, counts, columns, numeric):
    title = html.escape(title)
    told = ", ".join(f"{n} {html.escape(status)}" for status, n in counts.items()) or "no rows"
    boxes = "".join(
        f'<label><input type="checkbox" checked value="{html.escape(status)}">'
        f"{html.escape(status)} ({n})</label>"
        for status, n in counts.items()
    )
    heads = [("#", True), ("Picture", None), ("Name", False), ("RA", True), ("Dec", True)]
    heads += [("Status", False), ("Bands", False), *zip(columns, numeric, strict=True)]
    heads += [("Message", False), ("Viewer", None)]
    cells, choices = [], []
    for index, (name, is_number) in enumerate(heads):
        name = html.escape(name)
        if is_number is None:
            cells.append(f'<th scope="col">{name}</th>')
            continue
        kind = ' class="number"' if is_number else ""
        cells.append(
            f'<th scope="col"{kind} aria-sort="{"ascending" if index == 0 else "none"}">'
            f'<button type="button">{name}</button></th>'
        )
        choices.append(f'<option value="{index}">{"Order given" if index == 0 else name}</option>')
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="generator" content="astroquery_lis {package_version()}">'
        f"<title>{title}</title><style>{_asset('gallery.css')}</style></head><body>"
        f'<h1>{title}</h1><p class="about">{told}. North is up, east is left.</p>'
        '<div id="tools" role="group" aria-label="What is shown" hidden>'
        '<input type="search" id="search" placeholder="Search" aria-label="Search">'
        f"{boxes}"
        '<label class="only-narrow">Sort <select id="sorter">'
        f"{''.join(choices)}</select></label>"
        '<button type="button" class="only-narrow" id="turn" aria-pressed="false">Descending'
        '</button><button type="button" id="view" aria-pressed="false">Grid</button>'
        '<span id="shown" role="status"></span></div>'
        f'<div class="scroll"><table><thead><tr>{"".join(cells)}</tr></thead><tbody>\n'
    )


def _foot():
    return (
        '</tbody></table></div><p class="keys">Keys: <kbd>/</kbd> search, arrows go from picture '
        "to picture, <kbd>Enter</kbd> opens one, then <kbd>&larr;</kbd> <kbd>&rarr;</kbd> turn to "
        "the next and <kbd>Esc</kbd> closes.</p>"
        '<dialog aria-labelledby="large-name"><h2 id="large-name"></h2><img alt="">'
        '<p class="facts"></p><p class="told message"></p><div class="buttons">'
        '<button type="button" class="before">&larr; Previous</button>'
        '<button type="button" class="after" autofocus>Next &rarr;</button>'
        '<button type="button" class="shut">Close</button><span class="place"></span>'
        '<a target="_blank" rel="noopener noreferrer">Viewer</a></div></dialog>'
        f"<script>{_asset('gallery.js')}</script></body></html>\n"
    )


def _row(number, row, columns, numeric):
    name, status = html.escape(row.name), html.escape(row.status)
    is_placed = np.isfinite(row.ra_deg) and np.isfinite(row.dec_deg)
    if row.picture is None:
        picture = f'<button type="button" class="blank" aria-label="{name}">no picture</button>'
    else:
        ny, nx = row.picture.shape[:2]
        picture = (
            f'<button type="button" class="open" aria-label="{name}: enlarge">'
            f'<img loading="lazy" decoding="async" width="{nx}" height="{ny}" '
            f'alt="{name}" src="{data_uri(row.picture)}"></button>'
        )
    cells = [
        f'<td class="number index" data-value="{number}">{number}</td>',
        f'<td class="picture">{picture}</td>',
        f'<td class="name">{name}</td>',
        _number(row.ra_deg, f"{row.ra_deg:.6f}", "RA"),
        _number(row.dec_deg, f"{row.dec_deg:+.6f}", "Dec"),
        f'<td class="status {status}">{status}</td>',
        f'<td data-label="Bands">{html.escape(row.bands)}</td>',
    ]
    for label, is_number, value in zip(columns, numeric, row.values, strict=True):
        text = "" if value is np.ma.masked else str(value)
        if is_number:
            bare = np.nan if value is np.ma.masked else getattr(value, "value", value)
            cells.append(_number(bare, text, label))
        else:
            label = html.escape(label)
            cells.append(f'<td data-label="{label}">{html.escape(text)}</td>')
    cells.append(f'<td class="message">{html.escape(row.message)}</td>')
    link = ""
    if is_placed:
        link = (
            f'<a href="{html.escape(_viewer_address(row))}" target="_blank" '
            f'rel="noopener noreferrer" aria-label="{name} in the viewer">Viewer</a>'
        )
    cells.append(f'<td class="link">{link}</td>')
    return f'<tr data-status="{status}">{"".join(cells)}</tr>\n'


def _number(value, text, label):
    is_known = np.isfinite(value)
    value = repr(float(value)) if is_known else ""
    label = f' data-label="{html.escape(label)}"' if label else ""
    return f'<td class="number" data-value="{value}"{label}>{text if is_known else ""}</td>'


def _viewer_address(row):
    layer = row.layer
    if not layer and row.release in RELEASES:
        layer = layer_of(row.release).name
    root = setting("viewer_url").rstrip("/")
    address = f"{root}?ra={row.ra_deg:.6f}&dec={row.dec_deg:.6f}&zoom={ZOOM}"
    return f"{address}&layer={layer}" if layer else address
