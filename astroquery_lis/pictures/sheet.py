"""Many cutouts with their rows: on one sheet, and on one page that needs nothing else."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning

from .._conf import setting
from .._packages import import_optional
from ..exceptions import InvalidRequestError, LegacySurveyError, NoCoverageError, refuse
from ..io.store import write_whole
from ..survey.layers import layer_of
from ..survey.releases import RELEASES
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
    thumbnail,
)
from .plot import column_degrees
from .rgb import NO_DATA_COLOUR, as_count, rgb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import TypeAlias

    from .._typing import Bands, FilePath, SkyCoord

    Cutouts: TypeAlias = Table | Iterable[fits.HDUList | Exception | tuple[int, Any]]
    # What is known of a target, and what opens its cutout and says what the file knows of it.
    Facts: TypeAlias = dict[str, Any]
    Opener: TypeAlias = Callable[[], AbstractContextManager[tuple[fits.HDUList, Facts]]]

HDF5_SUFFIXES = (".h5", ".hdf5")
GAP_PIX = 4
LABEL_PIX = 16
_LABEL_INK = (225, 229, 234)
_SHEET_COLOUR = (16, 18, 22)
_MISSING_COLOUR = tuple(level // 2 for level in NO_DATA_COLOUR)

ZOOM = 15
"""Of the viewer: 0.131 arcsec per screen pixel."""


# ---- rows ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PictureRow:
    """One target: status and message are those of the manifest, the picture has north up."""

    name: str
    status: str
    message: str = ""
    picture: np.ndarray | None = None
    ra_deg: float = np.nan
    dec_deg: float = np.nan
    release: str = ""
    layer: str = ""
    bands: str = ""
    values: tuple[Any, ...] = ()

    @property
    def viewer_address(self) -> str:
        """Where the viewer shows it; empty if its position is not known."""
        if not (np.isfinite(self.ra_deg) and np.isfinite(self.dec_deg)):
            return ""
        layer = self.layer
        if not layer and self.release in RELEASES:
            layer = layer_of(self.release).name
        root = setting("viewer_url").rstrip("/")
        address = f"{root}?ra={self.ra_deg:.6f}&dec={self.dec_deg:.6f}&zoom={ZOOM}"
        return f"{address}&layer={layer}" if layer else address


def picture_rows(
    cutouts: Cutouts,
    size: int,
    *,
    coordinates: SkyCoord | None = None,
    columns: Sequence[str] = (),
    **look: Any,
) -> Iterator[PictureRow]:
    """Yield a row for each target; one that cannot be read says why.  `look` is as for `rgb`."""
    size = as_count("size", size, 8, "pixels")
    if isinstance(cutouts, Table):
        rows = _manifest_rows(cutouts, columns)
    elif columns:
        refuse("columns", columns, ": cutouts in memory have no columns.")
    else:
        rows = _memory_rows([cutouts] if isinstance(cutouts, fits.HDUList) else cutouts)
    if coordinates is not None:
        coordinates = coordinates.icrs
        if isinstance(cutouts, Table) and coordinates.shape != (len(cutouts),):
            msg = f"coordinates: {coordinates.size} positions for {len(cutouts)} rows."
            raise InvalidRequestError(msg, parameter="coordinates", value=coordinates)
    for index, (facts, opener) in enumerate(rows):
        if coordinates is not None:
            facts["ra_deg"] = float(coordinates.ra.deg[index])
            facts["dec_deg"] = float(coordinates.dec.deg[index])
        yield _picture_row(facts, opener, size, look)


def _picture_row(
    facts: Facts, opener: Opener | None, size: int, look: dict[str, Any]
) -> PictureRow:
    messages = [facts.pop("message", "")]
    if opener is not None:
        try:
            with opener() as (hdul, file_facts):
                facts = {**_header_facts(hdul[0].header), **file_facts, **_not_empty(facts)}
                facts["picture"] = thumbnail(rgb(hdul, **look), size)
        except InvalidRequestError as error:
            if error.parameter in ("stretch", "brightness"):
                raise
            messages.append(f"No picture: {error}")
        except (OSError, KeyError, IndexError, ValueError, TypeError, LegacySurveyError) as error:
            messages.append(f"No picture: {type(error).__name__}: {error}")
    return PictureRow(message=" ".join(filter(None, messages)), **facts)


def _not_empty(facts: Facts) -> Facts:
    return {
        name: value
        for name, value in facts.items()
        if value != "" and not (isinstance(value, float) and np.isnan(value))
    }


def _header_facts(header: fits.Header) -> Facts:
    return {
        "release": header.get("RELEASE", ""),
        "layer": header.get("LAYER", ""),
        "bands": str(header.get("BANDS", "")).replace(",", ""),
        "ra_deg": float(header.get("RA", np.nan)),
        "dec_deg": float(header.get("DEC", np.nan)),
    }


def _memory_rows(cutouts: Iterable[Any]) -> Iterator[tuple[Facts, Opener | None]]:
    for index, item in enumerate(cutouts):
        row, hdul = item if isinstance(item, tuple) and len(item) == 2 else (index, item)
        if isinstance(hdul, fits.HDUList):
            yield {"name": str(row), "status": "COMPLETE"}, partial(_opened, hdul)
        elif isinstance(hdul, Exception):
            status = "NODATA" if isinstance(hdul, NoCoverageError) else "ERROR"
            yield {"name": str(row), "status": status, "message": str(hdul)}, None
        else:
            msg = f"Cutouts must be HDULists; number {index} is of type {type(hdul).__name__}."
            raise InvalidRequestError(msg, parameter="manifest", value=hdul)


@contextmanager
def _opened(hdul: fits.HDUList) -> Iterator[tuple[fits.HDUList, Facts]]:
    yield hdul, {}


def _manifest_rows(table: Table, columns: Sequence[str]) -> Iterator[tuple[Facts, Opener | None]]:
    by_name = {name.lower(): name for name in table.colnames}
    missing = [name for name in ("Local Path", "Status") if name.lower() not in by_name]
    missing += [name for name in columns if name not in table.colnames]
    if missing:
        msg = f"The manifest has no column {', '.join(missing)}; it has {table.colnames}."
        raise InvalidRequestError(msg, parameter="manifest", value=table.colnames)
    positions = {
        f"{name}_deg": column_degrees(table[by_name[name]])
        for name in ("ra", "dec")
        if name in by_name
    }
    for index, row in enumerate(table):
        text = {name: _text(row[column]) for name, column in by_name.items()}
        path = text["local path"]
        facts = {
            "name": text.get("id") or str(index),
            "status": text["status"],
            "message": text.get("message", ""),
            **{name: float(degrees[index]) for name, degrees in positions.items()},
            "release": text.get("release", ""),
            "bands": text.get("bands", "").replace(",", ""),
            "values": tuple(row[name] for name in columns),
        }
        yield facts, partial(_open_file, path, index) if path else None


def _text(value: object) -> str:
    return "" if value is np.ma.masked else str(value).strip()


@contextmanager
def _open_file(path: str, row: int) -> Iterator[tuple[fits.HDUList, Facts]]:
    """Yield a cutout from its file, and what the file knows of it besides its header."""
    if Path(path).suffix in HDF5_SUFFIXES:
        yield _read_hdf5(path, row)
        return
    with warnings.catch_warnings():
        # Of files cut short astropy warns as well as raising.
        warnings.simplefilter("ignore", AstropyWarning)
        with fits.open(path, memmap=False) as hdul:
            yield hdul, {}


def _read_hdf5(path: str, row: int) -> tuple[fits.HDUList, Facts]:
    with import_optional("h5py", "batch", "output='hdf5'").File(path) as file:
        index = file["index"][:]
        (place,) = np.flatnonzero(index["row"] == row)
        bands = [str(band) for band in file.attrs["bands"]]
        hdus = [fits.PrimaryHDU()]
        planes = [str(name) for name in file.attrs["planes"]]
        has = dict(zip(planes, file["has"][place], strict=True))
        for number, band in enumerate(bands if "image" in file else ()):
            name = f"IMAGE_{band}".upper()
            if has[name]:
                hdus.append(fits.ImageHDU(file["image"][place, number], name=name))
                hdus[-1].header["BAND"] = band
        ra, dec = (float(index[name][place]) for name in ("ra", "dec"))
    return fits.HDUList(hdus), {"ra_deg": ra, "dec_deg": dec}


# ---- one sheet ----------------------------------------------------------------------------------


def contact_sheet(
    manifest: Cutouts,
    *,
    columns: int = 8,
    size: int = 128,
    labels: bool | Sequence[str] = True,
    bands: Bands | None = None,
    stretch: str = "survey",
    brightness: float = 1.0,
) -> np.ndarray:
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
    columns = as_count("columns", columns, 1, "pictures")
    has_labels = labels is not False
    if has_labels:
        import_optional("PIL.Image", "plot", "A label")
    look: dict[str, Any] = {"bands": bands, "stretch": stretch, "brightness": brightness}
    rows = list(picture_rows(manifest, size, **look))
    if not rows:
        msg = "manifest: there are no rows to show."
        raise InvalidRequestError(msg, parameter="manifest", value=manifest)
    texts = [row.name for row in rows] if isinstance(labels, (bool, np.bool_)) else list(labels)
    if len(texts) != len(rows):
        msg = f"labels: {len(texts)} texts for {len(rows)} rows."
        raise InvalidRequestError(msg, parameter="labels", value=labels)
    columns = min(columns, len(rows))
    high, wide = size + (LABEL_PIX if has_labels else 0) + GAP_PIX, size + GAP_PIX
    lines = -(-len(rows) // columns)
    sheet = np.empty((lines * high + GAP_PIX, columns * wide + GAP_PIX, 3), np.uint8)
    sheet[:] = _SHEET_COLOUR
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        y = GAP_PIX + number // columns * high
        x = GAP_PIX + number % columns * wide
        _fill_box(sheet[y : y + high - GAP_PIX, x : x + size], row, text)
    return sheet


def _fill_box(box: np.ndarray, row: PictureRow, text: str) -> None:
    """Put the picture of a row into the middle of its box, and its label where there is room."""
    size = box.shape[1]
    if row.picture is None:
        picture, text = _crossed_box(size), f"{text} {row.status}"
    else:
        picture = thumbnail(row.picture, size, enlarge=True)
    ny, nx = picture.shape[:2]
    y0, x0 = (size - ny) // 2, (size - nx) // 2
    box[y0 : y0 + ny, x0 : x0 + nx] = picture
    if len(box) > size:
        box[size:] = _label(text, size)


def _crossed_box(size: int) -> np.ndarray:
    picture = np.empty((size, size, 3), np.uint8)
    picture[:] = _MISSING_COLOUR
    diagonal = np.arange(size)
    picture[diagonal, diagonal] = picture[diagonal, diagonal[::-1]] = NO_DATA_COLOUR
    return picture


def _label(text: str, width: int) -> np.ndarray:
    """Return one line of text, cut off where it does not fit."""
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("RGB", (width, LABEL_PIX), _SHEET_COLOUR)
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
    columns: str | Sequence[str] = (),
    coordinates: SkyCoord | None = None,
    bands: Bands | None = None,
    stretch: str = "survey",
    brightness: float = 1.0,
) -> Path:
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
    look: dict[str, Any] = {"bands": bands, "stretch": stretch, "brightness": brightness}
    rows = picture_rows(manifest, size, coordinates=coordinates, columns=columns, **look)
    heads = ["#", "Picture", "Name", "RA", "Dec", "Status", "Bands", *columns, "Message", "Viewer"]
    kinds = ["number index", "picture", "name", "number", "number", "status", ""]
    kinds += [_column_kind(manifest, name) for name in columns]
    kinds += ["message", "link"]
    path.parent.mkdir(parents=True, exist_ok=True)
    # The head counts the rows, which are written while they are read: they wait in a file.
    with tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent) as body:
        counts: Counter[str] = Counter()
        for number, row in enumerate(rows):
            counts[row.status] += 1
            cells = [str(number), *_cells(row)]
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
    if not isinstance(manifest, Table) or name not in manifest.colnames:
        return ""
    dtype = getattr(manifest[name], "dtype", np.dtype(object))
    return "number" if dtype.kind in "iuf" else ""


def _cells(row: PictureRow) -> list[str]:
    """Return the cells of a row after its number."""
    name = escape(row.name)
    if row.picture is None:
        picture = f'<button type="button" class="blank" aria-label="{name}">no picture</button>'
    else:
        tag = image(row.picture, row.name, lazy=True)
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
        *("" if text == "nan" else text for text in map(_text, row.values)),
        row.message,
        Markup(link),
    ]
