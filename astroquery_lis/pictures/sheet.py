"""Many cutouts with their rows: on one sheet, and on one page that needs nothing else."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table

from .._packages import import_optional
from ..exceptions import InvalidRequestError
from ..io.store import write_whole
from .page import (
    TABLE_FOOT,
    Markup,
    asset,
    escape,
    frame,
    image,
    span,
    table_head,
    table_row,
)
from .rgb import as_count
from .rows import GAP_PIX, SHEET_COLOUR, PictureRow, panel_names, picture_rows, text_of

if TYPE_CHECKING:
    from .._typing import Bands, FilePath, SkyCoord
    from .rows import Cutouts

LABEL_PIX = 16
DEFAULT_COLUMNS = 8
_LABEL_INK = (225, 229, 234)


# ---- one sheet ----------------------------------------------------------------------------------


def contact_sheet(
    manifest: Cutouts,
    *,
    columns: int | None = None,
    size: int = 128,
    labels: bool | Sequence[str] = True,
    panels: Sequence[Bands] = (),
    bands: Bands | None = None,
    stretch: str = "survey",
    brightness: float = 1.0,
) -> np.ndarray:
    """Return one picture of many cutouts, row by row.

    Parameters
    ----------
    manifest : `~astropy.table.Table`, iterable of `~astropy.io.fits.HDUList`, or dict
        What ``download_cutouts`` returned, or cutouts or names of their files: a list, or what
        ``iter_cutouts`` yields.  A dict has one of these for each of several surveys, by the name
        that stands above: the same targets in the same order, whose pictures are put side by side.
    columns : int, optional
        Targets side by side; by default 8, or as many as have 8 panels.
    size : int, optional
        Width and height of each picture in pixels.
    labels : bool or sequence of str, optional
        Texts below the pictures; `True` takes the ids, or the numbers of the rows, and writes above
        what the panels are.  Needs pillow.
    panels : sequence of str or of sequence of str, optional
        The bands of each of several pictures of every target, such as ``['g', 'r', 'z', 'grz']``.
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
    if columns is not None:
        columns = as_count("columns", columns, 1, "targets")
    has_labels = labels is not False
    if has_labels:
        import_optional("PIL.Image", "plot", "A label")
    look: dict[str, Any] = {"bands": bands, "stretch": stretch, "brightness": brightness}
    rows = list(picture_rows(manifest, size, panels=panels, **look))
    if not rows:
        msg = "manifest: there are no rows to show."
        raise InvalidRequestError(msg, parameter="manifest", value=manifest)
    texts = [row.name for row in rows] if isinstance(labels, (bool, np.bool_)) else list(labels)
    if len(texts) != len(rows):
        msg = f"labels: {len(texts)} texts for {len(rows)} rows."
        raise InvalidRequestError(msg, parameter="labels", value=labels)
    names = panel_names(manifest, panels)
    columns = min(columns or max(DEFAULT_COLUMNS // len(names), 1), len(rows))
    label_pix = LABEL_PIX if has_labels else 0
    top = LABEL_PIX if has_labels and len(names) > 1 else 0
    high, wide = size + label_pix + GAP_PIX, len(names) * (size + GAP_PIX)
    lines = -(-len(rows) // columns)
    sheet = np.empty((top + lines * high + GAP_PIX, columns * wide + GAP_PIX, 3), np.uint8)
    sheet[:] = SHEET_COLOUR
    for number, name in enumerate(names * columns if top else ()):
        x = GAP_PIX + number * (size + GAP_PIX)
        sheet[GAP_PIX : GAP_PIX + top, x : x + size] = _label(name, size)
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        y = top + GAP_PIX + number // columns * high
        x = GAP_PIX + number % columns * wide
        row.fill(sheet[y : y + size, x : x + wide - GAP_PIX], size)
        if has_labels:
            text = text if row.has_picture else f"{text} {row.status}"
            sheet[y + size : y + size + LABEL_PIX, x : x + wide - GAP_PIX] = _label(
                text, wide - GAP_PIX
            )
    return sheet


def _label(text: str, width: int) -> np.ndarray:
    """Return one line of text, cut off where it does not fit."""
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("RGB", (width, LABEL_PIX), SHEET_COLOUR)
    draw = ImageDraw.Draw(strip)
    # The font without FreeType is of one size and of Latin-1 only.
    font = ImageFont.load_default()
    text = str(text).encode("latin-1", "replace").decode("latin-1")
    while len(text) > 1 and draw.textlength(text, font=font) > width:
        text = text[:-2] + "~"
    draw.text((1, 2), text, fill=_LABEL_INK, font=font)
    return np.asarray(strip)


# ---- one page -----------------------------------------------------------------------------------


def gallery(
    manifest: Cutouts,
    path: FilePath,
    *,
    title: str = "Cutouts",
    size: int = 256,
    panels: Sequence[Bands] = (),
    columns: str | Sequence[str] = (),
    coordinates: SkyCoord | None = None,
    bands: Bands | None = None,
    stretch: str = "survey",
    brightness: float = 1.0,
) -> Path:
    """Write a page of many cutouts: one HTML file that needs no other and no network.

    Parameters
    ----------
    manifest : `~astropy.table.Table`, iterable of `~astropy.io.fits.HDUList`, or dict
        As for `contact_sheet`; a manifest with any columns added to it.  Of several surveys the
        first that has the target tells the rest of the row.
    path : str or `~pathlib.Path`
        The page, replaced if it is there.
    title : str, optional
        Heading of the page.
    size : int, optional
        Pixels that each picture is made to fit into.
    panels : sequence of str or of sequence of str, optional
        As for `contact_sheet`.
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
    look: dict[str, Any] = {"bands": bands, "stretch": stretch, "brightness": brightness}
    rows = picture_rows(
        manifest, size, panels=panels, coordinates=coordinates, columns=columns, **look
    )
    pictures = " | ".join(filter(None, panel_names(manifest, panels))) or "Picture"
    heads = ["#", pictures, "Name", "RA", "Dec", "Status", "Bands", *columns, "Message", "Viewer"]
    kinds = ["number index", "picture", "name", "number", "number", "status", ""]
    kinds += [_column_kind(manifest, name) for name in columns]
    kinds += ["message", "link"]
    path.parent.mkdir(parents=True, exist_ok=True)
    # The head counts the rows, which are written while they are read: they wait in a file.
    with tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent) as body:
        counts: Counter[str] = Counter()
        for number, row in enumerate(rows):
            counts[row.status] += 1
            cells = [str(number), *_cells(row, size)]
            body.write(table_row(heads, kinds, cells, status=row.status))
        body.seek(0)
        about = ", ".join(f"{n} {status}" for status, n in counts.items()) or "no rows"
        head, foot = frame(title, about=f"{about}. North is up, east is left.", script="gallery.js")
        with write_whole(path) as temporary, open(temporary, "w", encoding="utf-8") as page:
            page.write(head + asset("gallery.html") + table_head(heads, kinds, "gallery"))
            shutil.copyfileobj(body, page, 1 << 20)
            page.write(TABLE_FOOT + foot)
    return path


def _column_kind(manifest: Cutouts, name: str) -> str:
    """Return the class of a further column: that of numbers, or none."""
    first = next(iter(manifest.values())) if isinstance(manifest, Mapping) else manifest
    if not isinstance(first, Table) or name not in first.colnames:
        return ""
    dtype = getattr(first[name], "dtype", np.dtype(object))
    return "number" if dtype.kind in "iuf" else ""


def _cells(row: PictureRow, size: int) -> list[str]:
    """Return the cells of a row after its number."""
    name, shown = escape(row.name), row.picture(size)
    if shown is None:
        picture = f'<button type="button" class="blank" aria-label="{name}">no picture</button>'
    else:
        tag = image(shown, row.name, lazy=True)
        picture = f'<button type="button" class="open" aria-label="{name}: enlarge">{tag}</button>'
    link = ""
    if row.viewer_address:
        link = (
            f'<a href="{escape(row.viewer_address)}" target="_blank" '
            f'rel="noopener noreferrer" aria-label="{name} in the viewer">Viewer</a>'
        )
    return [
        Markup(picture),
        name,
        f"{row.ra_deg:.6f}" if np.isfinite(row.ra_deg) else "",
        f"{row.dec_deg:+.6f}" if np.isfinite(row.dec_deg) else "",
        span(row.status, f"state {row.status}"),
        row.bands,
        *("" if text == "nan" else text for text in map(text_of, row.values)),
        row.message,
        Markup(link),
    ]
