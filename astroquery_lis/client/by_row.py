"""Options of cutouts that differ from row to row."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Column, Table

from .. import images
from ..exceptions import InvalidRequestError, meant, refuse
from .inputs import Targets

if TYPE_CHECKING:
    from ..images.cutting import CutoutJob
    from ..survey.request import CutoutRequest

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
