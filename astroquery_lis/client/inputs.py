"""What users hand in, read in one way for every method and for the command line.

A position is a SkyCoord in any frame, or text: RA and Dec in degrees, RA in hours and Dec in
degrees where they are sexagesimal, or the name of an object.  Many of them are a SkyCoord of any
shape, a list of the former or of (RA, Dec) in degrees, or a table with a column of SkyCoord or with
two columns of one of the usual names.  Sizes and angles are read in `..survey.request`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from astropy import units as u
from astropy.coordinates import BaseCoordinateFrame, SkyCoord
from astropy.coordinates.name_resolve import NameResolveError
from astropy.table import QTable, Row, Table
from astropy.time import Time

from ..exceptions import InvalidRequestError, ServiceDownError
from ..survey.bricks import brick_id, brick_row_column, parse_brick_name
from ..survey.catalog_request import as_angle_deg
from ..survey.paths import is_sweep_name
from ..survey.sphere import bricks_in_circle

if TYPE_CHECKING:
    from .._typing import Angle, Positions

__all__ = [
    "POSITION",
    "Targets",
    "as_bricks",
    "as_coordinates",
    "as_match_table",
    "as_position",
    "as_positions",
    "as_targets",
    "as_years",
    "is_file_name",
]

POSITION = "RA and Dec in degrees or sexagesimal (ICRS), or the name of an object"
RA_NAMES = ("ra", "raj2000", "_raj2000", "ra_icrs", "ra_deg", "target_ra")
DEC_NAMES = (
    *("dec", "dej2000", "decj2000", "_dej2000", "de_icrs", "dec_icrs", "dec_deg", "target_dec"),
)
MUST = "must be a SkyCoord, text such as '190.1 1.2' or 'NGC 1', a list of those, or a Table."
MUST_BRICKS = "must be names of bricks, coordinates, or a Table."

_SEXAGESIMAL = re.compile(r"[+-]?\d[\dhmsdeg.:+\-°′″'\" ]*")


@dataclass(frozen=True, eq=False)
class Targets:
    """Names and positions (ICRS) of many targets; NaN where a row has no position on the sky."""

    ids: np.ndarray
    ra_deg: np.ndarray
    dec_deg: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def placed(self) -> np.ndarray:
        """Which rows have a position."""
        return np.isfinite(self.ra_deg)


# ---- positions ----------------------------------------------------------------------------------


def as_coordinates(
    value: Positions, parameter: str = "coordinates", *, must: str = MUST
) -> SkyCoord:
    """Return one position or many, in their own shape, in ICRS."""
    if isinstance(value, BaseCoordinateFrame):
        value = SkyCoord(value)
    if isinstance(value, SkyCoord):
        return value if value.frame.name == "icrs" else value.transform_to("icrs")
    if isinstance(value, str):
        return _of_text(value, parameter)
    if isinstance(value, Row):
        return as_coordinates(value.table[value.index : value.index + 1], parameter)[0]
    if isinstance(value, Table):
        ra_deg, dec_deg = _of_table(value, parameter)
        lacking = np.flatnonzero(np.isnan(ra_deg))
        if len(lacking):
            msg = f"{parameter}: row {lacking[0]} of the table has no position on the sky."
            raise InvalidRequestError(msg, parameter=parameter, value=int(lacking[0]))
        return SkyCoord(ra_deg, dec_deg, unit="deg")
    if isinstance(value, (Sequence, np.ndarray)):
        return _of_items(list(value), parameter, must)
    _refuse(parameter, value, must)


def as_position(value: Positions, parameter: str = "coordinates") -> tuple[float, float]:
    """Return RA and Dec, ICRS degrees, of exactly one position."""
    position = as_coordinates(value, parameter)
    if not position.isscalar:
        msg = (
            f"{parameter} has shape {position.shape}; expected one position. For many see "
            "get_cutouts, download_cutouts, covers and crossmatch."
        )
        raise InvalidRequestError(msg, parameter=parameter, value=value)
    ra_deg, dec_deg = float(position.ra.deg), float(position.dec.deg)
    if not (np.isfinite(ra_deg) and np.isfinite(dec_deg)):
        _refuse(parameter, value, "is not finite.")
    return ra_deg, dec_deg


def as_positions(value: Positions, parameter: str = "coordinates") -> tuple[np.ndarray, np.ndarray]:
    """Return RA and Dec, ICRS degrees, of one position or many, in one dimension."""
    positions = as_coordinates(value, parameter)
    return np.atleast_1d(positions.ra.deg).ravel(), np.atleast_1d(positions.dec.deg).ravel()


def _of_text(text: str, parameter: str) -> SkyCoord:
    text = " ".join(text.replace(",", " ").split())
    try:
        degrees = [float(word) for word in text.split()]
    except ValueError:
        degrees = []
    if len(degrees) == 1 or not text:
        _refuse_text(text, parameter, f"is not {POSITION}")
    if len(degrees) == 2 or _SEXAGESIMAL.fullmatch(text):
        try:
            if len(degrees) == 2:
                return SkyCoord(*degrees, unit="deg")
            position = SkyCoord(text, unit=(u.hourangle, u.deg), frame="icrs")
        except (ValueError, TypeError, u.UnitsError) as error:
            _refuse_text(text, parameter, f"is not a position: {error}")
        if not position.isscalar:
            _refuse_text(text, parameter, "is more than one position")
        return position
    return _named(text, parameter)


def _named(name: str, parameter: str) -> SkyCoord:
    try:
        return SkyCoord.from_name(name).icrs
    except (NameResolveError, OSError) as error:
        if str(error).startswith("Unable to find coordinates"):
            _refuse_text(
                name, parameter, "is neither a position nor a name that the Sesame service knows"
            )
        msg = f"No name service could be asked for {name!r}: {error}"
        raise ServiceDownError(msg, cause=error) from error


def _of_items(items: list, parameter: str, must: str) -> SkyCoord:
    if not items:
        return SkyCoord([], [], unit="deg")
    try:
        if all(isinstance(item, (tuple, list, np.ndarray)) for item in items):
            return SkyCoord(np.array(items, float).reshape(len(items), 2), unit="deg")
        return SkyCoord([as_coordinates(item, parameter, must=must) for item in items])
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidRequestError):
            raise
        msg = f"{parameter}={items!r} {must}"
        raise InvalidRequestError(msg, parameter=parameter, value=items) from error


# ---- tables -------------------------------------------------------------------------------------


def as_targets(table: Positions, id_column: str | None = None) -> Targets:
    """Return the targets of a long job; rows without a position stay, as NaN."""
    if not isinstance(table, Table):
        if id_column is not None:
            _refuse("id_column", id_column, "needs a table; a SkyCoord has no columns.")
        coordinates = np.atleast_1d(as_coordinates(table, "table"))
        if coordinates.ndim != 1:
            msg = f"table has shape {coordinates.shape}; expected one dimension."
            raise InvalidRequestError(msg, parameter="table", value=table)
        return Targets(np.arange(coordinates.size), *_finite(coordinates))
    return Targets(_ids(table, id_column), *_of_table(table, "table"))


def as_match_table(
    table: Positions, ra: str | None, dec: str | None
) -> tuple[Table, np.ndarray, np.ndarray]:
    """Return a table to match and its positions, from the columns that are named or found."""
    if not isinstance(table, Table):
        ra_deg, dec_deg = as_positions(table, "table")
        return QTable({"ra": ra_deg * u.deg, "dec": dec_deg * u.deg}), ra_deg, dec_deg
    for parameter, name in (("ra", ra), ("dec", dec)):
        if name is not None and name not in table.colnames:
            msg = (
                f"{parameter}={name!r} is not a column of the table: {', '.join(table.colnames)}. "
                "Say with ra= and dec= which ones hold the positions."
            )
            raise InvalidRequestError(msg, parameter=parameter, value=name)
    for name in _position_columns(table, "table", ra, dec):
        if np.ma.is_masked(table[name]):
            parameter = "ra" if name == ra else "dec" if name == dec else "table"
            _refuse(parameter, name, "has masked values; remove those rows first.")
    return table, *_of_table(table, "table", ra, dec)


def as_years(epoch: Time | None, n_rows: int) -> np.ndarray | None:
    """Return the Julian year of every position, or `None`."""
    if epoch is None:
        return None
    if not isinstance(epoch, Time) or epoch.shape not in ((), (n_rows,)):
        _refuse("epoch", epoch, "must be an astropy Time, one or one per row.")
    return np.broadcast_to(np.asarray(epoch.tdb.jyear, dtype=float), (n_rows,))


def _position_columns(
    table: Table, parameter: str, ra: str | None = None, dec: str | None = None
) -> tuple[str, ...]:
    """Return the name of a column of SkyCoord, or those of RA and Dec."""
    if ra is not None and isinstance(table[ra], SkyCoord):
        return (ra,)
    mixed = [name for name in table.colnames if isinstance(table[name], SkyCoord)]
    if ra is dec is None and mixed:
        if len(mixed) > 1:
            msg = f"{parameter}: {', '.join(mixed)} are all columns of SkyCoord; leave one of them."
            raise InvalidRequestError(msg, parameter=parameter, value=mixed)
        return tuple(mixed)
    columns = []
    for name, usual in ((ra, RA_NAMES), (dec, DEC_NAMES)):
        name = name or _find(table, usual)
        if name is None:
            msg = (
                f"{parameter} has no {' or '.join(usual)}, and no column of SkyCoord; it has: "
                f"{', '.join(table.colnames)}."
            )
            raise InvalidRequestError(msg, parameter=parameter, value=table.colnames)
        columns.append(name)
    return tuple(columns)


def _of_table(
    table: Table, parameter: str, ra: str | None = None, dec: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return RA and Dec of every row, NaN where it has no position on the sky."""
    columns = _position_columns(table, parameter, ra, dec)
    if len(columns) == 1:
        return _finite(np.atleast_1d(as_coordinates(table[columns[0]])))
    ra_deg, dec_deg = (_degrees(table, name, parameter) for name in columns)
    placed = np.isfinite(ra_deg) & np.isfinite(dec_deg) & (np.abs(dec_deg) <= 90)
    return np.where(placed, ra_deg, np.nan), np.where(placed, dec_deg, np.nan)


def _degrees(table: Table, name: str, parameter: str) -> np.ndarray:
    column = table[name]
    if column.dtype.kind not in "fiu":
        msg = f"{parameter}={name} is of {column.dtype}; expected numbers in degrees."
        raise InvalidRequestError(msg, parameter=parameter, value=name)
    unit = column.unit or u.deg
    try:
        return (_unmasked(getattr(column, "value", column)) * unit).to_value(u.deg)
    except u.UnitConversionError:
        msg = f"{parameter}={name} is in {unit}, which is no angle."
        raise InvalidRequestError(msg, parameter=parameter, value=name) from None


def _finite(coordinates: SkyCoord) -> tuple[np.ndarray, np.ndarray]:
    ra_deg, dec_deg = _unmasked(coordinates.ra.deg), _unmasked(coordinates.dec.deg)
    placed = np.isfinite(ra_deg) & np.isfinite(dec_deg)
    return np.where(placed, ra_deg, np.nan), np.where(placed, dec_deg, np.nan)


def _unmasked(values: np.ndarray) -> np.ndarray:
    """Return numbers as floats, NaN where they are masked in either of astropy's ways."""
    mask = np.ma.getmaskarray(values) | getattr(values, "mask", False)
    plain = np.ma.getdata(getattr(values, "unmasked", values))
    return np.where(mask, np.nan, np.asarray(plain, float))


def _find(table: Table, names: Sequence[str]) -> str | None:
    by_lower = {name.lower(): name for name in reversed(table.colnames)}
    return next((by_lower[name] for name in names if name in by_lower), None)


def _ids(table: Table, id_column: str | None) -> np.ndarray:
    name = _find(table, ("id",)) if id_column is None else id_column
    if name is None:
        return np.arange(len(table))
    if name not in table.colnames:
        _refuse("id_column", name, f"is not a column; there are: {', '.join(table.colnames)}.")
    ids = table[name]
    if np.any(getattr(ids, "mask", False)) or ids.ndim != 1 or ids.dtype.kind not in "iuUSO":
        _refuse("id_column", name, "must hold one integer or string for every row.")
    ids = np.asarray(ids)
    return ids if ids.dtype.kind in "iu" else ids.astype(str)


# ---- bricks -------------------------------------------------------------------------------------


def as_bricks(
    value: Positions | int | None, radius: Angle | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return ids of bricks, ascending and each once, and names of sweep files.

    They are named, numbered, or those at positions; with a radius all that the circles touch.
    """
    names, sweeps = _names(value)
    if names is None:
        places = as_coordinates(value, "bricks_or_coordinates", must=MUST_BRICKS)
        ra_deg, dec_deg = as_positions(places)
        if radius is None:
            return np.unique(brick_id(ra_deg, dec_deg)), ()
        radius_deg = as_angle_deg("radius", radius, 180.0, zero=True)
        touched = [bricks_in_circle(*at, radius_deg) for at in zip(ra_deg, dec_deg, strict=True)]
        return np.unique(np.concatenate([np.array([], np.int64), *touched])), ()
    if radius is not None:
        _refuse("radius", radius, "needs coordinates, not names of bricks.")
    ids = [parse_brick_name(name) if isinstance(name, str) else int(name) for name in names]
    numbers = np.unique(np.array(ids, dtype=np.int64))
    brick_row_column(numbers)  # refuses numbers that no brick has
    return numbers, tuple(dict.fromkeys(sweeps))


def is_file_name(word: object) -> bool:
    """Return True if a word is meant as the name of a brick, even of none, or of a sweep file."""
    text = word.strip() if isinstance(word, str) else ""
    digits = text[:4] + text[5:]
    is_brick = len(text) == 8 and text[4] in "pm" and digits.isdigit()
    return is_brick or is_sweep_name(text)


def _names(value: object) -> tuple[list | None, list[str]]:
    """Return names or numbers of bricks, or `None` for positions, and names of sweep files."""
    if value is None:
        return [], []
    if isinstance(value, Table):
        for usual in ("brickname", "brickid"):
            name = _find(value, (usual,))
            if name is not None:
                return np.asarray(value[name]).tolist(), []
        return None, []
    items = [value] if isinstance(value, (str, int, np.integer)) else value
    if not isinstance(items, (Sequence, np.ndarray, set, frozenset)) or not len(items):
        return None, []
    if not all(is_file_name(item) or _is_number(item) for item in items):
        return None, []
    sweeps = [str(item).strip() for item in items if isinstance(item, str) and is_sweep_name(item)]
    names = [item for item in items if not (isinstance(item, str) and is_sweep_name(item))]
    return names, [name.removesuffix(".fits") for name in sweeps]


def _is_number(item: object) -> bool:
    return isinstance(item, (int, np.integer)) and not isinstance(item, bool)


def _refuse(parameter: str, value: object, must: str) -> NoReturn:
    msg = f"{parameter}={value!r} {must}"
    raise InvalidRequestError(msg, parameter=parameter, value=value)


def _refuse_text(text: str, parameter: str, must: str) -> NoReturn:
    msg = f"position {text!r} {must}."
    raise InvalidRequestError(msg, parameter=parameter, value=text)
