"""What users hand in, read in one way for every method and for the command line.

A position is a SkyCoord in any frame, two numbers in degrees, or text (see `.position_text`).  Many
of them are a SkyCoord of any shape, a list of the former, an array of shape (n, 2), or a table: of
astropy or pandas, a structured array, an HDU, the result of a query, or the name of a file.  A row
that is masked, NaN or a value that no place has (-9999, 99) has no position.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
from astropy import units as u
from astropy.coordinates import BaseCoordinateFrame, SkyCoord
from astropy.io import fits
from astropy.table import Column, Row, Table
from astropy.time import Time

from .. import images, survey
from ..exceptions import CoverageWarning, InvalidRequestError, meant, refuse, warn
from ..survey.bricks import brick_id
from .position_columns import icrs_degrees, on_the_sky, positions_of_table, unmasked
from .position_text import POSITION, coordinate_deg, read_positions

if TYPE_CHECKING:
    from .._typing import Angle, Positions
    from ..images.cutting import CutoutJob
    from ..survey.catalog_request import Sky
    from ..survey.request import CutoutRequest


MUST = (
    "must be a SkyCoord, text such as '190.1 1.2' or 'NGC 1', RA and Dec in degrees as one "
    "argument, (190.1, 1.2), a list of those, a Table, or the name of a file with one."
)
MUST_BRICKS = "must be names of bricks, coordinates, or a Table."


@dataclass(frozen=True, eq=False)
class Targets:
    """Names and positions (ICRS) of many targets; NaN where a row has no position on the sky."""

    ids: np.ndarray
    ra_deg: np.ndarray
    dec_deg: np.ndarray
    shape: tuple[int, ...] | None = None  # of what was handed in; one dimension by default
    table: Table | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def placed(self) -> np.ndarray:
        """Which rows have a position."""
        return np.isfinite(self.ra_deg)

    def places(self) -> list[tuple[float, float] | None]:
        """Return RA and Dec of every row, `None` where it has no position."""
        pairs = zip(self.ra_deg.tolist(), self.dec_deg.tolist(), strict=True)
        return [pair if pair[0] == pair[0] else None for pair in pairs]

    def __getitem__(self, rows: np.ndarray) -> Targets:
        """Return some of them."""
        return Targets(self.ids[rows], self.ra_deg[rows], self.dec_deg[rows])


# ---- positions ----------------------------------------------------------------------------------


def as_targets(
    value: Positions,
    id_column: str | None = None,
    *,
    ra: str | None = None,
    dec: str | None = None,
    name: str | None = None,
    parameter: str = "table",
) -> Targets:
    """Return all positions that users hand in; rows without one stay, as NaN."""
    from .user_tables import as_table

    table = as_table(value, parameter)
    if table is not None:
        degrees = positions_of_table(table, parameter, ra=ra, dec=dec, name=name)
        shape = () if isinstance(value, Row) else (len(table),)
        return Targets(_ids(table, id_column), *degrees, shape, table)
    for option, column in (("id_column", id_column), ("ra", ra), ("dec", dec), ("name", name)):
        if column is not None:
            refuse(option, column, "needs a table; positions have no columns.")
    ra_deg, dec_deg = _degrees(value, parameter)
    return Targets(np.arange(ra_deg.size), ra_deg.ravel(), dec_deg.ravel(), ra_deg.shape)


def as_position(
    value: Positions, parameter: str = "coordinates", **columns: Any
) -> tuple[float, float]:
    """Return RA and Dec, ICRS degrees, of exactly one position."""
    frame = value.frame.name if isinstance(value, SkyCoord) and not columns else ""
    if frame == "icrs" and isinstance(value, SkyCoord) and value.isscalar:
        # The shortest way, which most calls take.
        ra, dec = value.ra, value.dec
        ra_deg, dec_deg = ra.deg, dec.deg
        if np.isfinite(ra_deg) and np.isfinite(dec_deg) and not np.ma.is_masked(ra):
            return float(ra_deg), float(dec_deg)
    targets = as_targets(value, parameter=parameter, **columns)
    if len(targets) != 1:
        msg = (
            f"{parameter} has shape {targets.shape}; expected one position. For many see "
            "get_cutouts, download_cutouts, download_psfs, covers and crossmatch."
        )
        raise InvalidRequestError(msg, parameter=parameter, value=value)
    (place,) = targets.places()
    if place is None:
        refuse(parameter, value, "is not finite, or is no place on the sky.")
    return place


def as_sky(
    coordinates: Positions | None,
    radius: Angle | None = None,
    width: Angle | None = None,
    height: Angle | None = None,
    polygon: Positions | None = None,
    **columns: Any,
) -> Sky:
    """Return the part of the sky that a user means; ``columns`` are those of the coordinates."""
    kinds = [radius is not None, width is not None or height is not None, polygon is not None]
    if sum(kinds) != 1:
        msg = "Give one of radius=, width= (and height=) or polygon= to say how much of the sky."
        raise InvalidRequestError(msg, parameter="radius", value=radius)
    if polygon is not None:
        for parameter, value in {"coordinates": coordinates, **columns}.items():
            if value is not None:
                refuse(parameter, value, "is not for a polygon, whose corners say where it is.")
        corners = as_targets(polygon, parameter="polygon")
        if len(corners) < 3 or not corners.placed.all():
            refuse("polygon", polygon, "needs three corners or more, all of them finite.")
        shape = survey.sphere.Polygon(
            tuple(corners.ra_deg.tolist()), tuple(corners.dec_deg.tolist())
        )
        shape.bricks()
        return shape
    if coordinates is None:
        refuse("coordinates", None, "is needed with radius= or width=.")
    position = as_position(coordinates, **columns)
    if radius is not None:
        return survey.sphere.Circle(*position, survey.sphere.as_angle_deg("radius", radius, 180.0))
    if width is None:
        refuse("width", width, "is needed with height=.")
    width_deg = survey.sphere.as_angle_deg("width", width, survey.catalog_request.MAX_BOX_DEG)
    height_deg = (
        width_deg
        if height is None
        else survey.sphere.as_angle_deg("height", height, survey.catalog_request.MAX_BOX_DEG)
    )
    return survey.sphere.Box(*position, width_deg, height_deg)


def warn_of_unplaced(targets: Targets, consequence: str) -> None:
    """Warn of rows that have no position, if there are any."""
    rows = np.flatnonzero(~targets.placed)
    if len(rows):
        shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        msg = (
            f"{len(rows)} of {len(targets)} rows have no position on the sky and {consequence}: "
            f"{shown}."
        )
        warn(msg, CoverageWarning)


def _degrees(value: Any, parameter: str) -> tuple[np.ndarray, np.ndarray]:
    """Return RA and Dec in degrees of what is no table, in its own shape."""
    if isinstance(value, (SkyCoord, BaseCoordinateFrame)):
        return icrs_degrees(value, parameter)
    if isinstance(value, str):
        ra_deg, dec_deg = _of_texts([value], parameter)
        return ra_deg.reshape(()), dec_deg.reshape(())
    if isinstance(value, u.Quantity):
        value = value.to_value(u.deg) if value.unit.is_equivalent(u.deg) else None
    if isinstance(value, Column):
        value = value.tolist()
    is_array = isinstance(value, np.ndarray) and value.dtype.kind in "fiu"
    if is_array and value.ndim == 2 and value.shape[1] == 2:
        return on_the_sky(*unmasked(value).T)
    is_list = isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray))
    if is_list or (isinstance(value, np.ndarray) and value.ndim):
        return _of_items(list(value), parameter)
    _refuse(parameter, value)


def _refuse(parameter: str, value: object) -> NoReturn:
    refuse(parameter, value, MUST_BRICKS if parameter == "bricks_or_coordinates" else MUST)


def _of_texts(texts: Sequence[object], parameter: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of texts, all of which have to have one."""
    ra_deg, dec_deg, unknown = read_positions(texts, parameter)
    if unknown:
        shown = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        verb = "is" if len(unknown) == 1 else "are each"
        msg = (
            f"position {shown} {verb} neither a position nor a name that the Sesame service knows."
        )
        raise InvalidRequestError(msg, parameter=parameter, value=unknown)
    if np.isnan(ra_deg).any():
        msg = f"position {texts[int(np.argmax(np.isnan(ra_deg)))]!r} is not {POSITION}."
        raise InvalidRequestError(msg, parameter=parameter, value=texts)
    return ra_deg, dec_deg


def _of_items(items: list, parameter: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of a list: of one pair, of pairs, of two columns, or of anything."""
    if not items:
        return np.zeros(0), np.zeros(0)
    pair = _pair(items, parameter)
    if pair is not None:
        return pair
    texts = [item for item in items if isinstance(item, str)]
    places = iter(zip(*_of_texts(texts, parameter), strict=True)) if texts else iter(())
    degrees = np.empty((len(items), 2))
    for row, item in enumerate(items):
        if isinstance(item, str):
            degrees[row] = next(places)
            continue
        ra_deg, dec_deg = _one(item, parameter)
        degrees[row] = ra_deg, dec_deg
    return degrees[:, 0], degrees[:, 1]


def _one(item: object, parameter: str) -> tuple[float, float]:
    """Return the position of one item of a list, NaN if it has none."""
    if isinstance(item, (Row, Mapping)):
        targets = as_targets(item, parameter=parameter)
        ra_deg, dec_deg = targets.ra_deg, targets.dec_deg
    else:
        ra_deg, dec_deg = _degrees(item, parameter)
    if ra_deg.size != 1:
        msg = f"{parameter} has an item of shape {ra_deg.shape}; expected one position."
        raise InvalidRequestError(msg, parameter=parameter, value=item)
    return float(ra_deg.ravel()[0]), float(dec_deg.ravel()[0])


def _pair(items: list, parameter: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return what two coordinates, two columns of them, or pairs of numbers mean; else `None`."""
    if len(items) == 2:
        axes = [_axis(item, axis) for item, axis in zip(items, ("ra", "dec"), strict=True)]
        ra, dec = axes
        if ra is not None and dec is not None and ra.shape == dec.shape:
            if ra.shape == (2,) and all(isinstance(item, (list, tuple)) for item in items):
                return on_the_sky(*np.array(items, float).T)
            if ra.shape == (2,):
                msg = (
                    f"{parameter} has two arrays of two numbers, which may be two pairs of RA and "
                    "Dec, or RA and Dec of two; write SkyCoord(ra, dec, unit='deg')."
                )
                raise InvalidRequestError(msg, parameter=parameter, value=items)
            return on_the_sky(ra, dec)
    if all(isinstance(item, (tuple, list, np.ndarray)) for item in items):
        try:
            degrees = np.array([_numbers(item) for item in items], float)
        except (TypeError, ValueError):
            return None
        if degrees.ndim == 2 and degrees.shape[1] == 2:
            return on_the_sky(*degrees.T)
        _refuse(parameter, items)
    return None


def _numbers(item: Any) -> np.ndarray | list | float:
    if isinstance(item, u.Quantity):
        return item.to_value(u.deg)
    return [one.to_value(u.deg) if isinstance(one, u.Quantity) else one for one in item]


def _axis(item: object, axis: str) -> np.ndarray | None:
    """Return an item as one coordinate or a column of them, in degrees; `None` if it is none."""
    if isinstance(item, str):
        if len(item.split()) == 2:
            return None
        try:
            return np.asarray(coordinate_deg(item, axis))
        except InvalidRequestError:
            return None
    if isinstance(item, u.Quantity):
        return unmasked(item.to_value(u.deg)) if item.unit.is_equivalent(u.deg) else None
    if isinstance(item, (bool, np.bool_)) or item is None:
        return None
    try:
        values = unmasked(item)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return values if values.ndim < 2 else None


# ---- tables -------------------------------------------------------------------------------------


def as_years(epoch: Time | None, n_rows: int) -> np.ndarray | None:
    """Return the Julian year of every position, or `None`."""
    if epoch is None:
        return None
    if not isinstance(epoch, Time) or epoch.shape not in ((), (n_rows,)):
        refuse("epoch", epoch, "must be an astropy Time, one or one per row.")
    return np.broadcast_to(np.asarray(epoch.tdb.jyear, dtype=float), (n_rows,))


def column_of(table: Table, names: Sequence[str]) -> str | None:
    """Return the first of these names, in any case, that a table has."""
    by_lower = {name.lower(): name for name in reversed(table.colnames)}
    return next((by_lower[name] for name in names if name in by_lower), None)


def _ids(table: Table, id_column: str | None) -> np.ndarray:
    name = column_of(table, ("id",)) if id_column is None else id_column
    if name is None:
        return np.arange(len(table))
    if name not in table.colnames:
        refuse("id_column", name, f"is not a column; there are: {', '.join(table.colnames)}.")
    ids = table[name]
    if np.any(getattr(ids, "mask", False)) or ids.ndim != 1 or ids.dtype.kind not in "iuUSO":
        refuse("id_column", name, "must hold one integer or string for every row.")
    ids = np.array(ids)
    return ids if ids.dtype.kind in "iu" else ids.astype(str)


# ---- sources and bricks -------------------------------------------------------------------------


def as_sources(source: str | Sequence[str], allowed: Sequence[str]) -> tuple[str, ...]:
    """Return names of sources as a tuple, ``('auto',)`` where they are to be chosen."""
    try:
        names = tuple(source.replace(",", " ").split() if isinstance(source, str) else source)
    except TypeError:
        names = ()
    for name in names or (source,):
        if name not in allowed or (name == "auto" and len(names) > 1):
            must = f"must be one of {', '.join(allowed)}, or a sequence of those."
            refuse("source", source, must)
    return names


def bricks_at(targets: Targets, radius: Angle | None = None) -> np.ndarray:
    """Return the ids of the bricks at positions, or of all that circles touch, each once."""
    placed = targets[targets.placed]
    if radius is None:
        return np.unique(brick_id(placed.ra_deg, placed.dec_deg))
    radius_deg = survey.sphere.as_angle_deg("radius", radius, 180.0, zero=True)
    places = zip(placed.ra_deg, placed.dec_deg, strict=True)
    touched = [survey.sphere.bricks_in_circle(*at, radius_deg) for at in places]
    return np.unique(np.concatenate([np.array([], np.int64), *touched]))


# ---- options by row -----------------------------------------------------------------------------

BY_ROW = ("size", "release", "region", "pixel_scale", "wcs", "rotation")
"""Options that may differ from row to row."""


Options = dict[str, Any]
"""Options of one call, by their names."""


class ByRow(NamedTuple):
    """The values of an option that differs by row: the distinct ones, and which each row has."""

    values: list[Any]
    of_row: np.ndarray


_LENGTHS = ("size", "pixel_scale", "rotation")
"""Options that no bare word can be a value of."""


def as_by_row(parameter: str, value: Any, targets: Targets) -> ByRow | None:
    """Return an option that is given by row; `None` for one value that holds for all.

    By row are the name of a column, a column, an array of as many values as there are rows, and a
    function of the row.  A pair stays what it is for one target, (ny, nx).
    """
    table = targets.table
    if isinstance(value, str):
        value = _column(parameter, value, table)
    if callable(value):
        rows = SkyCoord(targets.ra_deg, targets.dec_deg, unit="deg") if table is None else table
        answers = (value(row) if at else None for row, at in zip(rows, targets.placed, strict=True))
        return _of_values(parameter, answers, targets.placed)
    # A header is one grid, though numpy takes it for a list of cards.
    if isinstance(value, (tuple, str, fits.Header)) or not hasattr(value, "__len__"):
        return None
    if not isinstance(value, (list, np.ndarray)):
        value = np.asarray(value)  # a Series of pandas and the like, in the order of its rows
    if isinstance(value, np.ndarray) and not value.ndim:
        return None
    may_be_pair = parameter == "size" and not isinstance(value, Column) and _is_flat(value)
    if len(value) != len(targets):
        if may_be_pair and len(value) <= 2:
            return None
        refuse(parameter, value, f"has {len(value)} values; there are {len(targets)} targets.")
    if may_be_pair and len(value) == 2 and value[0] != value[1]:
        must = (
            "may be (ny, nx) or a size for each of the two targets; write a tuple for the former, "
            "and name a column of the table for the latter."
        )
        refuse(parameter, value, must)
    return _of_array(parameter, value, targets.placed)


def _column(parameter: str, word: str, table: Table | None) -> str | Column:
    """Return the column of that name, or the word itself if it may be a value."""
    names = [] if table is None else table.colnames
    if word in names and table is not None:
        return table[word]
    if names and parameter in _LENGTHS and word.isidentifier():
        must = f"is no column of the table, which has: {', '.join(names)}."
        refuse(parameter, word, must + meant(word, names))
    return word


def _is_flat(values: list[Any] | np.ndarray) -> bool:
    """Return True if no value is a pair."""
    if isinstance(values, np.ndarray):
        return values.ndim == 1
    return not any(isinstance(v, (tuple, list)) or getattr(v, "ndim", 0) for v in values)


def _of_array(parameter: str, array: Any, placed: np.ndarray) -> ByRow:
    """Return the distinct values of a column, of an array or of a list."""
    if isinstance(array, list):
        return _of_values(parameter, array, placed)
    mask = np.broadcast_to(getattr(array, "mask", False), np.shape(array))
    lacking = np.flatnonzero(mask.any(axis=tuple(range(1, mask.ndim))) & placed)
    if len(lacking):
        _refuse_row(parameter, int(lacking[0]))
    unit = getattr(array, "unit", None)
    plain = np.asarray(getattr(array, "value", array))
    if plain.dtype.hasobject:
        return _of_values(parameter, plain.tolist(), placed)
    if plain.dtype.kind == "S":
        plain = np.char.decode(plain, "utf-8", "replace")  # text of a FITS table
    if plain.dtype.kind == "U":
        plain = np.char.strip(plain)
    values, of_row = np.unique(plain, axis=0, return_inverse=True)
    kept = values if unit is None else u.Quantity(values, unit)
    items = [tuple(item) if np.ndim(item) else item for item in kept]
    items = [item.item() if isinstance(item, np.generic) else item for item in items]
    if parameter == "size" and plain.dtype.kind == "f" and unit is None:
        # Numbers in a file are often floats; their unit is pixels here as well.
        items = [tuple(map(_whole, v)) if isinstance(v, tuple) else _whole(v) for v in items]
    return ByRow(items, of_row.reshape(len(placed)))


def _whole(number: float) -> float:
    return int(number) if number.is_integer() else number


def _refuse_row(parameter: str, row: int) -> NoReturn:
    msg = f"{parameter}: row {row} has no value; fill it, or leave the row out."
    raise InvalidRequestError(msg, parameter=parameter, value=row)


def _of_values(parameter: str, values: Iterable[Any], placed: np.ndarray) -> ByRow:
    """Return the distinct ones of values of any kind, of the rows that have a position."""
    numbers: dict[Hashable, int] = {}
    distinct: list[Any] = []
    of_row = np.zeros(len(placed), np.intp)
    for row, value in enumerate(values):
        if not placed[row]:
            continue
        if value is np.ma.masked:
            _refuse_row(parameter, row)
        if isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim):
            value = tuple(value)
        of_row[row] = numbers.setdefault(_key(value), len(distinct))
        if of_row[row] == len(distinct):
            distinct.append(value)
    return ByRow(distinct, of_row)


def _key(value: Any) -> Hashable:
    """Return what tells a value from others; what is not hashable is like itself only."""
    if isinstance(value, fits.Header):
        value = value.tostring()
    try:
        hash(value)
    except TypeError:
        return id(value)
    return type(value), value  # True is no 1


def requests_by_row(
    make: Callable[..., CutoutRequest], targets: Targets, options: Options
) -> CutoutJob:
    """Return what is asked for every row that has a position; each kind is checked once."""
    by_row = {name: as_by_row(name, options[name], targets) for name in BY_ROW if name in options}
    differing = {name: values for name, values in by_row.items() if values is not None}
    same = {name: value for name, value in options.items() if name not in differing}
    make = partial(make, (0.0, 0.0), **same)
    placed, rows = targets.placed, np.arange(len(targets))
    kinds, templates = np.zeros(len(targets), np.intp), []
    if differing and placed.any():
        numbers = np.array([option.of_row[placed] for option in differing.values()])
        distinct, first, inverse = np.unique(
            numbers, axis=1, return_index=True, return_inverse=True
        )
        kinds[placed] = inverse.ravel()
        for column, row in zip(distinct.T, rows[placed][first], strict=True):
            pairs = zip(differing.items(), column, strict=True)
            values = {name: option.values[number] for (name, option), number in pairs}
            try:
                templates.append(make(**values))
            except InvalidRequestError as error:
                msg = f"Row {row}: {error}"
                raise InvalidRequestError(
                    msg, parameter=error.parameter, value=error.value
                ) from error
    places = targets.ids, targets.ra_deg, targets.dec_deg
    return images.cutting.CutoutJob(rows, *places, tuple(templates) or (make(),), kinds)
