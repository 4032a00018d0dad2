"""What users hand in, read in one way for every method and for the command line.

A position is a SkyCoord in any frame, two numbers in degrees, or text (see `.position_text`).  Many
of them are a SkyCoord of any shape, a list of the former, an array of shape (n, 2), or a table: of
astropy or pandas, a structured array, an HDU, the result of a query, or the name of a file.  A row
that is masked, NaN or a value that no place has (-9999, 99) has no position.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

import numpy as np
from astropy import units as u
from astropy.coordinates import BaseCoordinateFrame, SkyCoord
from astropy.io import fits
from astropy.table import Column, Row, Table
from astropy.time import Time

from .. import images, survey
from ..exceptions import InvalidExposureError, InvalidRequestError, meant, refuse
from .position_columns import (
    NOT_NAMED,
    Columns,
    Targets,
    icrs_degrees,
    on_the_sky,
    targets_of_table,
    unmasked,
)
from .position_text import coordinate_deg, positions_of_texts

if TYPE_CHECKING:
    from astropy.wcs import WCS

    from .._typing import Angle, FilePath, Keywords, Positions
    from ..images.cutting import CutoutJob
    from ..survey.catalog_request import Sky
    from ..survey.request import CutoutRequest


MUST = (
    "must be a SkyCoord, text such as '190.1 1.2' or 'NGC 1', RA and Dec in degrees as one "
    "argument, (190.1, 1.2), a list of those, a Table, or the name of a file with one."
)
MUST_BRICKS = "must be names of bricks, coordinates, or a Table."


# ---- positions ----------------------------------------------------------------------------------


def as_targets(value: Positions, columns: Columns = NOT_NAMED, parameter: str = "table") -> Targets:
    """Return all positions that users hand in; rows without one stay, as NaN."""
    from .user_tables import as_table

    table = as_table(value, parameter)
    if table is not None:
        shape = () if isinstance(value, Row) else (len(table),)
        return replace(targets_of_table(table, parameter, columns), shape=shape)
    columns.refuse_any("needs a table; positions have no columns.")
    ra_deg, dec_deg = _degrees(value, parameter)
    return Targets(np.arange(ra_deg.size), ra_deg.ravel(), dec_deg.ravel(), ra_deg.shape)


def as_position(
    value: Positions, columns: Columns = NOT_NAMED, parameter: str = "coordinates"
) -> tuple[float, float]:
    """Return RA and Dec, ICRS degrees, of exactly one position."""
    if isinstance(value, SkyCoord) and value.frame.name == "icrs" and value.isscalar:
        # The shortest way, which most calls take.
        ra_deg, dec_deg = value.ra.deg, value.dec.deg
        if columns is NOT_NAMED and np.isfinite(ra_deg + dec_deg) and not np.ma.is_masked(ra_deg):
            return float(ra_deg), float(dec_deg)
    targets = as_targets(value, columns, parameter)
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


def request_at(
    coordinates: Any, make: Callable[[tuple[float, float]], CutoutRequest]
) -> CutoutRequest:
    """Return the request for a position; a name is looked up once all else is known to be right."""
    if isinstance(coordinates, str):
        return make(survey.request.ANYWHERE).at(*as_position(coordinates))
    return make(as_position(coordinates))


def as_sky(
    coordinates: Positions | None,
    radius: Angle | None = None,
    width: Angle | None = None,
    height: Angle | None = None,
    polygon: Positions | None = None,
    columns: Columns = NOT_NAMED,
) -> Sky:
    """Return the part of the sky that a user means."""
    box = width if height is None else height
    if sum(extent is not None for extent in (radius, box, polygon)) != 1:
        msg = "Give one of radius=, width= (and height=) or polygon= to say how much of the sky."
        raise InvalidRequestError(msg, parameter="radius", value=radius)
    if polygon is not None:
        return _polygon(polygon, {"coordinates": coordinates, **columns.named})
    if coordinates is None:
        refuse("coordinates", None, "is needed with radius= or width=.")
    # A name is looked up at the end.
    as_angle_deg = survey.sphere.as_angle_deg
    if radius is not None:
        radius_deg = as_angle_deg("radius", radius, 180.0)
        return survey.sphere.Circle(*as_position(coordinates, columns), radius_deg)
    if width is None:
        refuse("width", width, "is needed with height=.")
    limit = survey.catalog_request.MAX_BOX_DEG
    sides = as_angle_deg("width", width, limit), as_angle_deg("height", box, limit)
    return survey.sphere.Box(*as_position(coordinates, columns), *sides)


def _polygon(polygon: Positions, beside: dict[str, Any]) -> Sky:
    """Return the polygon of some corners, beside which nothing says where it is."""
    for parameter, value in beside.items():
        if value is not None:
            refuse(parameter, value, "is not for a polygon, whose corners say where it is.")
    corners = as_targets(polygon, parameter="polygon")
    if len(corners) < 3 or not corners.placed.all():
        refuse("polygon", polygon, "needs three corners or more, all of them finite.")
    shape = survey.sphere.Polygon(tuple(corners.ra_deg.tolist()), tuple(corners.dec_deg.tolist()))
    shape.bricks()
    return shape


Degrees: TypeAlias = tuple[np.ndarray, np.ndarray]


def _degrees(value: Any, parameter: str) -> Degrees:
    """Return RA and Dec in degrees of what is no table, in its own shape."""
    read = next((read for kinds, read in _READERS if isinstance(value, kinds)), _refuse)
    return read(value, parameter)


def _refuse(value: object, parameter: str) -> NoReturn:
    refuse(parameter, value, MUST_BRICKS if parameter == "bricks_or_coordinates" else MUST)


def _of_text(text: str, parameter: str) -> Degrees:
    ra_deg, dec_deg = positions_of_texts([text], parameter)
    return ra_deg.reshape(()), dec_deg.reshape(())


def _of_quantity(angles: u.Quantity, parameter: str) -> Degrees:
    try:
        return _of_array(angles.to_value(u.deg), parameter)
    except u.UnitsError:
        _refuse(angles, parameter)


def _of_array(array: np.ndarray, parameter: str) -> Degrees:
    """Return the positions of an array: of pairs of numbers, or of what a list may hold."""
    if array.dtype.kind in "fiu" and array.shape[1:] == (2,):
        return on_the_sky(*unmasked(array).T)
    return _of_items(list(array), parameter) if array.ndim else _refuse(array, parameter)


def _of_items(items: Sequence[Any], parameter: str) -> Degrees:
    """Return the positions of a list: of one pair, of two columns, of pairs, or of anything."""
    for read in (_of_axes, _of_pairs):
        degrees = read(items, parameter)
        if degrees is not None:
            return on_the_sky(*degrees)
    texts = [item for item in items if isinstance(item, str)]
    places = zip(*positions_of_texts(texts, parameter), strict=True)
    pairs = [next(places) if isinstance(item, str) else _one(item, parameter) for item in items]
    ra_deg, dec_deg = np.array(pairs, float).reshape(-1, 2).T
    return ra_deg, dec_deg


_READERS: tuple[tuple[Any, Callable[[Any, str], Degrees]], ...] = (
    ((SkyCoord, BaseCoordinateFrame), icrs_degrees),
    (str, _of_text),
    (Column, lambda column, parameter: _of_items(column.tolist(), parameter)),
    (u.Quantity, _of_quantity),
    (np.ndarray, _of_array),
    ((bytes, bytearray), _refuse),
    (Sequence, _of_items),
)
"""What reads positions of each kind."""


def _of_axes(items: Sequence[Any], parameter: str) -> np.ndarray | None:
    """Return RA and Dec of two coordinates, or of two columns of them; else `None`."""
    if len(items) != 2:
        return None
    try:
        degrees = np.stack([_axis(items[0], "ra"), _axis(items[1], "dec")])
    except (TypeError, ValueError):
        return None
    if degrees.shape != (2, 2):
        return degrees
    if all(isinstance(item, (list, tuple)) for item in items):
        return None
    msg = (
        f"{parameter} has two arrays of two numbers, which may be two pairs of RA and Dec, or "
        "RA and Dec of two; write SkyCoord(ra, dec, unit='deg')."
    )
    raise InvalidRequestError(msg, parameter=parameter, value=items)


def _axis(item: Any, axis: str) -> np.ndarray:
    """Return one coordinate or a column of them in degrees; a ValueError says that it is none."""
    if isinstance(item, str) and len(item.split()) != 2:  # two words are a position of their own
        return np.asarray(coordinate_deg(item, axis))
    values = unmasked(item.to_value(u.deg) if isinstance(item, u.Quantity) else item)
    if values.ndim > 1 or isinstance(item, _NO_NUMBERS):
        msg = f"{item!r} is no coordinate."
        raise ValueError(msg)
    return values


_NO_NUMBERS = (type(None), str, bool, np.bool_)  # which numpy takes for some all the same


def _of_pairs(items: Sequence[Any], parameter: str) -> np.ndarray | None:
    """Return RA and Dec of pairs of numbers, the short way for many; else `None`."""
    # numpy leaves the unit of a Quantity away.
    if not items or not {list, tuple, np.ndarray}.issuperset(map(type, items)):
        return None
    try:
        degrees = unmasked(np.array(items))
    except (TypeError, ValueError):
        return None
    if degrees.shape[1:] != (2,):
        _refuse(items, parameter)
    return degrees.T


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


# ---- options of one value ------------------------------------------------------------------------


def as_years(epoch: Time | None, n_rows: int) -> np.ndarray | None:
    """Return the Julian year of every position, or `None`."""
    if epoch is None:
        return None
    if not isinstance(epoch, Time) or epoch.shape not in ((), (n_rows,)):
        refuse("epoch", epoch, "must be an astropy Time, one or one per row.")
    return np.broadcast_to(np.asarray(epoch.tdb.jyear, dtype=float), (n_rows,))


def as_path(parameter: str, value: FilePath | None) -> Path | None:
    """Return the path that a user names, from the root on, or `None` for none."""
    if value is None:
        return None
    with suppress(TypeError, RuntimeError):
        if os.fspath(value).strip():  # an empty one would be the folder that one is in
            return Path(value).expanduser().absolute()
    refuse(parameter, value, "must be the path of a folder or a file.")


def as_sources(source: str | Sequence[str], allowed: Sequence[str]) -> tuple[str, ...]:
    """Return names of sources as a tuple, ``('auto',)`` where they are to be chosen."""
    if isinstance(source, str) and source in allowed:
        return (source,)  # as most calls do
    names = tuple(survey.releases.listed(source, allowed))
    if names != ("auto",) and not (names and set(names) <= set(allowed) - {"auto"}):
        must = f"must be one of {', '.join(allowed)}, or a sequence of those without 'auto'."
        refuse("source", source, must)
    return names


# ---- options by row -----------------------------------------------------------------------------

BY_ROW = ("size", "release", "region", "pixel_scale", "wcs", "rotation")
"""Options that may differ from row to row."""


class ByRow(NamedTuple):
    """The values of an option that differs by row: the distinct ones, and which each row has."""

    values: list[Any]
    of_row: np.ndarray

    def value_at(self, row: int) -> object:
        """Return the value that a row has."""
        return self.values[self.of_row[row]]


_LENGTHS = ("size", "pixel_scale", "rotation")
"""Options that no bare word can be a value of."""


def as_by_row(parameter: str, value: Any, targets: Targets) -> ByRow | None:
    """Return an option that is given by row; `None` for one value that holds for all.

    By row are the name of a column, a column, an array of as many values as there are rows, and a
    function of the row.  A pair stays what it is for one target, (ny, nx).
    """
    if isinstance(value, str):
        value = _column(parameter, value, targets.table)
    if callable(value):
        return _by_row(parameter, _computed(value, targets), targets)
    values = _values(value)
    if values is None or _is_pair(parameter, values, len(targets)):
        return None
    if isinstance(values, list):
        rows = np.flatnonzero(targets.placed).tolist()
        return _by_row(parameter, (values[row] for row in rows), targets)
    return _of_column(parameter, values, targets)


def _computed(function: Callable[[Any], Any], targets: Targets) -> Iterator[object]:
    """Yield what a function says of each row of a table, or each position, where there is one."""
    rows = targets.table
    if rows is None:
        rows = SkyCoord(targets.ra_deg, targets.dec_deg, unit="deg")
    for row in np.flatnonzero(targets.placed).tolist():
        yield function(rows[row])


def _values(value: Any) -> list | np.ndarray | None:
    """Return values that may be one a row; `None` for a single one."""
    # A header is one grid, though numpy takes it for a list of cards.
    if isinstance(value, (tuple, str, fits.Header)) or not np.iterable(value):
        return None
    # A Series of pandas and the like is taken in the order of its rows.
    values = value if isinstance(value, list) else np.asanyarray(value)
    # A set or a dict, which the option refuses by itself, has no dimension.
    return values if getattr(values, "ndim", 1) else None


def _of_column(parameter: str, array: Any, targets: Targets) -> ByRow:
    """Return the distinct values of a column or an array, as they would be written in a call."""
    plain = getattr(array, "unmasked", array)
    plain = np.ma.array(getattr(plain, "value", plain), mask=getattr(array, "mask", False))
    values, of_row = _by_row(parameter, _python_values(plain[targets.placed]), targets)
    unit = getattr(array, "unit", None)
    return ByRow([_as_value(item, unit) for item in values], of_row)


def _column(parameter: str, word: str, table: Table | None) -> str | Column:
    """Return the column of that name, or the word itself if it may be a value."""
    names = [] if table is None else table.colnames
    if word in names and table is not None:
        return table[word]
    if names and parameter in _LENGTHS and word.isidentifier():
        must = f"is no column of the table, which has: {', '.join(names)}."
        refuse(parameter, word, must + meant(word, names))
    return word


def _is_pair(parameter: str, values: list[Any] | np.ndarray, n_targets: int) -> bool:
    """Return True for the (ny, nx) of all; refuse what may be that or not, and what is neither."""
    may_be_pair = parameter == "size" and _is_short(values)
    if len(values) == n_targets:
        if may_be_pair and n_targets == 2 and values[0] != values[1]:
            must = (
                "may be (ny, nx) or a size for each of the two targets; write a tuple for the "
                "former, and name a column of the table for the latter."
            )
            refuse(parameter, values, must)
    elif not may_be_pair:
        refuse(parameter, values, f"has {len(values)} values; there are {n_targets} targets.")
    return len(values) != n_targets


def _is_short(values: list[Any] | np.ndarray) -> bool:
    """Return True for at most two scalars, which are no column."""
    dimensions = [np.ndim(side) for side in values[:3]]
    return dimensions in ([], [0], [0, 0]) and not isinstance(values, Column)


def _python_values(array: np.ma.MaskedArray) -> list[object]:
    """Return the values of an array as those of a list are, ``masked`` where they are."""
    values = array.data.tolist()
    for row in np.unique(np.nonzero(np.ma.getmaskarray(array))[0]).tolist():
        values[row] = np.ma.masked
    return values


def _as_value(item: Any, unit: Any) -> object:
    """Return a value of a column as it would be written in a call."""
    if isinstance(item, tuple):
        return tuple(_as_value(side, unit) for side in item)
    if unit is not None:
        return u.Quantity(item, unit)
    if isinstance(item, bytes):
        item = item.decode("utf-8", "replace")  # text of a FITS table
    if isinstance(item, str):
        return item.strip()
    # Numbers of pixels in a file are often floats.
    return int(item) if isinstance(item, float) and item.is_integer() else item


def _by_row(parameter: str, values: Iterable[Any], targets: Targets) -> ByRow:
    """Return the distinct ones of the values of the rows that have a position."""
    numbers: dict[Hashable, int] = {}
    distinct: list[Any] = []
    of_row = np.zeros(len(targets), np.intp)
    for row, value in zip(np.flatnonzero(targets.placed).tolist(), values, strict=True):
        if value is np.ma.masked:
            msg = f"{parameter}: row {row} has no value; fill it, or leave the row out."
            raise InvalidRequestError(msg, parameter=parameter, value=row)
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
    make: Callable[..., CutoutRequest], targets: Targets, options: Keywords
) -> CutoutJob:
    """Return what is asked for every row that has a position; each kind is checked once."""
    by_row = {name: as_by_row(name, options[name], targets) for name in BY_ROW if name in options}
    differing = {name: values for name, values in by_row.items() if values is not None}
    same = {name: value for name, value in options.items() if name not in differing}
    make = partial(make, (0.0, 0.0), **same)
    kinds, rows = _kinds(differing, targets)
    templates = [
        _of_row(row, make, {name: option.value_at(row) for name, option in differing.items()})
        for row in rows
    ]
    places = targets.ids, targets.ra_deg, targets.dec_deg
    templates = templates or [make()]
    return images.cutting.CutoutJob(np.arange(len(targets)), *places, tuple(templates), kinds)


def _kinds(differing: dict[str, ByRow], targets: Targets) -> tuple[np.ndarray, list[int]]:
    """Return the number of the kind of every row, and the first row of each kind."""
    rows = np.flatnonzero(targets.placed)
    kinds = np.zeros(len(targets), np.intp)
    if not differing or not len(rows):
        return kinds, []
    numbers = np.array([option.of_row[rows] for option in differing.values()])
    _, first, inverse = np.unique(numbers, axis=1, return_index=True, return_inverse=True)
    kinds[rows] = inverse.ravel()
    return kinds, rows[first].tolist()


def _of_row(row: int, make: Callable[..., CutoutRequest], options: Keywords) -> CutoutRequest:
    try:
        return make(**options)
    except InvalidRequestError as error:
        msg = f"Row {row}: {error}"
        raise InvalidRequestError(msg, parameter=error.parameter, value=error.value) from error


# ---- grids --------------------------------------------------------------------------------------


def existing_file(parameter: str, file: str | os.PathLike[str]) -> str:
    """Return the absolute path of a file that is there."""
    path = os.path.abspath(os.path.expanduser(file))
    if not os.path.isfile(path):
        refuse(parameter, file, "is not a file that is there.")
    return path


def image_wcs(source: Any, parameter: str = "like") -> WCS:
    """Return the celestial WCS of an image file, a header, an HDUList or a WCS, with its size."""
    if not isinstance(source, (str, os.PathLike)):
        own = ", or 'own' for the grid of each file" if parameter == "like" else ""
        return survey.pixel_grids.plane_wcs(
            source, parameter, other=f", or the path of a file{own}"
        )
    path = existing_file(parameter, source)
    try:
        with fits.open(path, memmap=True) as hdul:
            header = survey.pixel_grids.image_header(hdul, parameter, source)
    except OSError as error:
        msg = f"{parameter}={os.fspath(source)!r} cannot be read as FITS: {error}."
        raise InvalidExposureError(msg, parameter=parameter, value=source) from error
    return survey.pixel_grids.plane_wcs(header, parameter)
