"""Many cutouts: what is known of each, its picture or its panels, and all of them on one sheet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, zip_longest
from operator import attrgetter
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import Table

from .._conf import setting
from .._packages import import_optional
from ..exceptions import (
    InvalidRequestError,
    LegacySurveyError,
    NoCoverageError,
    check_one_a_row,
    refuse,
)
from ..images.array_files import read_entry
from ..images.cutout_hdus import as_cutout, read_hdus
from ..survey.layers import layer_of
from ..survey.releases import RELEASES
from ..survey.request import as_count
from .rgb import NO_DATA_COLOUR, rgb, thumbnail

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from .._typing import Bands, FilePath, SkyCoord

    Item: TypeAlias = fits.HDUList | FilePath | Exception
    Targets: TypeAlias = Table | Item | Iterable[Item | tuple[int, Item]]
    Cutouts: TypeAlias = Targets | Mapping[str, Targets]
    # What is known of a target, and what opens its cutout, or a picture of it, and says what the
    # file knows of it.
    Facts: TypeAlias = dict[str, Any]
    Opener: TypeAlias = Callable[[], tuple[fits.HDUList | np.ndarray, Facts]]


ARRAY_SUFFIXES = (".h5", ".hdf5", ".zarr.zip")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
GAP_PIX = 4
SHEET_COLOUR = (16, 18, 22)
_MISSING_COLOUR = tuple(level // 2 for level in NO_DATA_COLOUR)

ZOOM = 15
"""Of the viewer: 0.131 arcsec per screen pixel."""


@dataclass(frozen=True)
class PictureRow:
    """One target: status and message are those of the manifest, the pictures have north up."""

    name: str
    status: str
    message: str = ""
    panels: tuple[np.ndarray | None, ...] = ()
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

    @property
    def has_picture(self) -> bool:
        """Whether any of its panels is there."""
        return any(panel is not None for panel in self.panels)

    def picture(self, size: int) -> np.ndarray | None:
        """Return its picture, or its panels in squares side by side; `None` if it has none."""
        if not self.has_picture:
            return None
        if len(self.panels) == 1:
            return self.panels[0]
        strip = _ground(size, len(self.panels) * (size + GAP_PIX) - GAP_PIX)
        self.fill(strip, size)
        return strip

    def fill(self, strip: np.ndarray, size: int) -> None:
        """Put the panels into the middles of their squares; one that is missing is crossed out."""
        for number, panel in enumerate(self.panels):
            if panel is None:
                picture = np.full((size, size, 3), _MISSING_COLOUR, np.uint8)
                diagonal = np.arange(size)
                picture[diagonal, diagonal] = picture[diagonal, ~diagonal] = NO_DATA_COLOUR
            else:
                picture = thumbnail(panel, size, enlarge=True)
            ny, nx = picture.shape[:2]
            y0, x0 = (size - ny) // 2, number * (size + GAP_PIX) + (size - nx) // 2
            strip[y0 : y0 + ny, x0 : x0 + nx] = picture


def picture_rows(
    cutouts: Cutouts,
    size: int,
    *,
    panels: Sequence[Bands] = (),
    coordinates: SkyCoord | None = None,
    columns: Sequence[str] = (),
    **look: Any,
) -> Iterator[PictureRow]:
    """Yield a row for each target; one that cannot be read says why.  `look` is as for `rgb`."""
    size = as_count("size", size, 8, "pixels")
    looks = _looks(panels, look)
    surveys = cutouts if isinstance(cutouts, Mapping) else {"": cutouts}
    if not surveys:
        refuse("manifest", cutouts, "has no survey.")
    rows = [
        # The first tells the rest of the row.
        _survey_rows(of_survey, size, looks, coordinates, () if number else columns)
        for number, of_survey in enumerate(surveys.values())
    ]
    return rows[0] if len(rows) == 1 else _side_by_side(list(surveys), rows)


def _looks(panels: Sequence[Bands], look: dict) -> list[dict]:
    """Return how each panel of a row looks."""
    if not isinstance(panels, (list, tuple)):
        refuse("panels", panels, "must be a list of bands, such as ['g', 'r', 'grz'].")
    if panels and look.get("bands") is not None:
        refuse("panels", panels, "says the bands of each panel; leave bands= out.")
    return [{**look, "bands": bands} for bands in panels] or [look]


def panel_names(cutouts: Cutouts, panels: Sequence[Bands]) -> list[str]:
    """Return what stands above the panels of a row, from left to right; empty for one picture."""
    surveys = list(cutouts) if isinstance(cutouts, Mapping) else [""]
    bands = [of_one if isinstance(of_one, str) else "".join(of_one) for of_one in panels] or [""]
    return [f"{survey} {of_one}".strip() for survey in surveys for of_one in bands]


def _survey_rows(
    cutouts: Targets,
    size: int,
    looks: list[dict[str, Any]],
    coordinates: SkyCoord | None,
    columns: Sequence[str],
) -> Iterator[PictureRow]:
    """Return the rows of one survey."""
    if isinstance(cutouts, Table):
        rows = _manifest_rows(cutouts, columns)
    elif columns:
        refuse("columns", columns, ": cutouts in memory have no columns.")
    else:
        is_one = isinstance(cutouts, (fits.HDUList, str, PathLike, Exception))
        rows = _memory_rows([cutouts] if is_one else cutouts)
    if coordinates is not None:
        coordinates = coordinates.icrs
        if isinstance(cutouts, Table) and coordinates.shape != (len(cutouts),):
            msg = f"coordinates: {coordinates.size} positions for {len(cutouts)} rows."
            raise InvalidRequestError(msg, parameter="coordinates", value=coordinates)
    return _painted(rows, coordinates, size, looks)


def _painted(
    rows: Iterable[tuple[Facts, Opener | None]],
    coordinates: SkyCoord | None,
    size: int,
    looks: list[dict[str, Any]],
) -> Iterator[PictureRow]:
    for index, (facts, opener) in enumerate(rows):
        if coordinates is not None:
            facts["ra_deg"] = float(coordinates.ra.deg[index])
            facts["dec_deg"] = float(coordinates.dec.deg[index])
        yield _picture_row(facts, opener, size, looks)


def _side_by_side(names: list[str], surveys: list[Iterator[PictureRow]]) -> Iterator[PictureRow]:
    """Yield the rows of several surveys as one, with the panels of all."""
    for rows in zip_longest(*surveys, fillvalue=PictureRow("none", "")):
        yield _joined(names, rows)


def _joined(names: list[str], rows: Sequence[PictureRow]) -> PictureRow:
    """Return the rows that surveys have of one target as one."""
    targets = [row.name for row in rows]
    if len(set(targets)) > 1:
        msg = (
            f"manifest: one row has several targets: {', '.join(targets)}. Give each survey "
            "the same targets in the same order."
        )
        raise InvalidRequestError(msg, parameter="manifest", value=targets)
    notes = [
        f"{name}: {row.message or row.status}"
        for name, row in zip(names, rows, strict=True)
        if row.message or not row.has_picture
    ]
    first = next(filter(attrgetter("has_picture"), rows), rows[0])
    panels = tuple(chain.from_iterable(row.panels for row in rows))
    return replace(first, panels=panels, message=" ".join(notes), values=rows[0].values)


def _picture_row(
    facts: Facts, opener: Opener | None, size: int, looks: list[dict[str, Any]]
) -> PictureRow:
    messages = [facts.pop("message", "")]
    panels: list[np.ndarray | None] = [None] * len(looks)
    cutout = None
    if opener is not None:
        try:
            cutout, file_facts = opener()
            facts = {**facts, **file_facts, **_not_empty(facts)}
        except _UNREADABLE as error:
            messages.append(_why(error))
    if cutout is not None:
        panels = [_panel(cutout, size, look, messages) for look in looks]
    return PictureRow(message=" ".join(filter(None, messages)), panels=tuple(panels), **facts)


_UNREADABLE = (OSError, KeyError, IndexError, ValueError, TypeError, LegacySurveyError)


def _panel(
    cutout: fits.HDUList | np.ndarray, size: int, look: dict[str, Any], messages: list[str]
) -> np.ndarray | None:
    """Return a picture of a cutout; of what it lacks, `None` and a message."""
    try:
        return thumbnail(cutout if isinstance(cutout, np.ndarray) else rgb(cutout, **look), size)
    except InvalidRequestError as error:
        if error.parameter in ("stretch", "brightness"):
            raise
        messages.append(_why(error))
    except _UNREADABLE as error:
        messages.append(_why(error))
    return None


def _why(error: Exception) -> str:
    kind = "" if isinstance(error, InvalidRequestError) else f"{type(error).__name__}: "
    return f"No picture: {kind}{error}"


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


def _memory_rows(cutouts: Any) -> Iterator[tuple[Facts, Opener | None]]:
    for index, item in enumerate(cutouts):
        is_numbered = isinstance(item, tuple) and len(item) == 2
        yield _memory_row(index, *(item if is_numbered else (index, item)))


def _memory_row(index: int, row: object, cutout: Any) -> tuple[Facts, Opener | None]:
    """Return what is known of a cutout in memory or in a file, and what opens it."""
    if isinstance(cutout, fits.HDUList):
        return {"name": str(row), "status": "COMPLETE"}, partial(_open, cutout)
    if isinstance(cutout, Exception):
        status = "NODATA" if isinstance(cutout, NoCoverageError) else "ERROR"
        return {"name": str(row), "status": status, "message": str(cutout)}, None
    if not isinstance(cutout, (str, PathLike)):
        msg = (
            "Cutouts must be HDULists or names of files; "
            f"number {index} is of type {type(cutout).__name__}."
        )
        raise InvalidRequestError(msg, parameter="manifest", value=cutout)
    if _is_array_file(Path(cutout)):
        must = "is a file of many cutouts: give the manifest that came with it."
        refuse("manifest", str(cutout), must)
    return {"name": Path(cutout).stem, "status": "COMPLETE"}, partial(_open, cutout)


def _columns_by_name(table: Table, columns: Sequence[str]) -> dict[str, str]:
    """Return the columns of a manifest by their names in lower case; refuse one that lacks some."""
    by_name = {name.lower(): name for name in table.colnames}
    missing = [name for name in ("Local Path", "Status") if name.lower() not in by_name]
    missing += [name for name in columns if name not in table.colnames]
    if missing:
        msg = f"The manifest has no column {', '.join(missing)}; it has {table.colnames}."
        raise InvalidRequestError(msg, parameter="manifest", value=table.colnames)
    return by_name


def _manifest_rows(table: Table, columns: Sequence[str]) -> Iterator[tuple[Facts, Opener | None]]:
    by_name = _columns_by_name(table, columns)
    positions = {
        f"{axis}_deg": column_degrees(table, by_name[axis], "manifest")
        for axis in ("ra", "dec")
        if axis in by_name
    }
    for index, row in enumerate(table):
        text = {name: text_of(row[column]) for name, column in by_name.items()}
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
        yield facts, partial(_open, path, text.get("id", ""), index) if path else None


def text_of(value: object) -> str:
    """Return what a cell of a table says."""
    return "" if value is np.ma.masked else str(value).strip()


def _is_array_file(path: Path) -> bool:
    return path.name.lower().endswith(ARRAY_SUFFIXES)


def _open(
    cutout: fits.HDUList | FilePath, name: str = "", row: int = 0
) -> tuple[fits.HDUList | np.ndarray, Facts]:
    """Return a cutout, or a picture of it, and what it knows of itself."""
    if isinstance(cutout, (str, PathLike)):
        path = Path(cutout).expanduser()
        if path.suffix.lower() in PICTURE_SUFFIXES:
            module = import_optional("PIL.Image", "plot", "A picture of a picture")
            with module.open(path) as picture:
                return np.asarray(picture.convert("RGB")), {}
        if _is_array_file(path):
            hdul, entry = read_entry(path, name, row)
            return hdul, {f"{place}_deg": float(entry[place]) for place in ("ra", "dec")}
        cutout = read_hdus(path)
    hdul = as_cutout(cutout)
    return hdul, _header_facts(hdul[0].header)


def column_degrees(table: Table, name: str, parameter: str) -> np.ndarray:
    """Return a column of angles, in degrees where it has no unit; what is masked is NaN."""
    column = table[name]
    check_one_a_row(parameter, name, column.shape)
    unit = getattr(column, "unit", None)
    masked: np.ma.MaskedArray = np.ma.asarray(getattr(column, "value", column), float)
    degrees = masked * (1 if unit is None else u.Unit(unit).to(u.deg))
    return np.asarray(np.ma.filled(degrees, np.nan))


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
    texts = _texts(labels, rows)
    names = panel_names(manifest, panels)
    columns = min(columns or max(DEFAULT_COLUMNS // len(names), 1), len(rows))
    label_pix = LABEL_PIX if has_labels else 0
    high, wide = size + label_pix + GAP_PIX, len(names) * (size + GAP_PIX)
    top = GAP_PIX + (label_pix if len(names) > 1 else 0)
    n_lines = -(-len(rows) // columns)
    sheet = _ground(top + n_lines * high, GAP_PIX + columns * wide)
    for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
        y, x = top + number // columns * high, GAP_PIX + number % columns * wide
        _paint(sheet[y : y + high, x : x + wide], row, text, size, label_pix)
    for number, name in enumerate(names * columns if top > GAP_PIX else ()):
        x = GAP_PIX + number * (size + GAP_PIX)
        sheet[GAP_PIX:top, x : x + size] = _label(name, size)
    return sheet


def _texts(labels: bool | Sequence[str], rows: Sequence[PictureRow]) -> list[str]:
    """Return what stands below the pictures, by default the names of the targets."""
    texts = [row.name for row in rows] if isinstance(labels, (bool, np.bool_)) else list(labels)
    if len(texts) != len(rows):
        msg = f"labels: {len(texts)} texts for {len(rows)} rows."
        raise InvalidRequestError(msg, parameter="labels", value=labels)
    return texts


def _ground(ny: int, nx: int) -> np.ndarray:
    return np.full((ny, nx, 3), SHEET_COLOUR, np.uint8)


def _paint(tile: np.ndarray, row: PictureRow, text: str, size: int, label_pix: int) -> None:
    """Put the panels of a row above its label, with a gap below and to the right."""
    row.fill(tile[:size, :-GAP_PIX], size)
    if label_pix:
        text = text if row.has_picture else f"{text} {row.status}"
        tile[size:-GAP_PIX, :-GAP_PIX] = _label(text, tile.shape[1] - GAP_PIX)


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
