"""Options of cutouts that differ from row to row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Column

from ..exceptions import InvalidRequestError, refuse
from .inputs import Targets

__all__ = ["ByRow", "as_by_row", "differing_options", "each_row"]

BY_ROW = ("size", "release", "region", "pixel_scale", "wcs", "rotation")
"""Options that may differ from row to row."""


Options = dict[str, Any]
"""Options of one call, by their names."""


class ByRow(NamedTuple):
    """The values of an option that differs by row: the distinct ones, and which each row has."""

    values: list[Any]
    of_row: np.ndarray


def as_by_row(parameter: str, value: Any, targets: Targets) -> ByRow | None:
    """Return an option that is given by row; `None` for one value that holds for all.

    By row are the name of a column, a column, an array of as many values as there are rows, and a
    function of the row.  A pair stays what it is for one target, (ny, nx).
    """
    table = targets.table
    if isinstance(value, str):
        if table is None or value not in table.colnames:
            return None
        value = table[value]
    if callable(value):
        rows = SkyCoord(targets.ra_deg, targets.dec_deg, unit="deg") if table is None else table
        return _of_values(parameter, [value(row) for row in rows])
    # A header is one grid, though numpy takes it for a list of cards.
    is_one = isinstance(value, (tuple, fits.Header)) or not hasattr(value, "__len__")
    if is_one or np.ndim(value) == 0:
        return None
    if not isinstance(value, (list, np.ndarray)):
        value = np.asarray(value)  # a Series of pandas and the like, in the order of its rows
    may_be_pair = parameter == "size" and np.ndim(value) == 1 and not isinstance(value, Column)
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


def _of_array(parameter: str, array: Any, placed: np.ndarray) -> ByRow:
    """Return the distinct values of a column, of an array or of a list."""
    if isinstance(array, list):
        return _of_values(parameter, array)
    mask = np.broadcast_to(getattr(array, "mask", False), np.shape(array))
    lacking = np.flatnonzero(mask.reshape(len(placed), -1).any(axis=1) & placed)
    if len(lacking):
        _refuse_row(parameter, int(lacking[0]))
    unit = getattr(array, "unit", None)
    plain = np.asarray(getattr(array, "value", array))
    if plain.dtype.hasobject:
        return _of_values(parameter, plain.tolist())
    values, of_row = np.unique(plain, axis=0, return_inverse=True)
    kept = values if unit is None else u.Quantity(values, unit)
    items = [tuple(item) if np.ndim(item) else item for item in kept]
    items = [item.item() if isinstance(item, np.generic) else item for item in items]
    if parameter == "size" and plain.dtype.kind == "f" and unit is None:
        # A column of numbers of a file is often of floats; its unit is pixels here as well.
        items = [int(v) if isinstance(v, float) and v.is_integer() else v for v in items]
    return ByRow(items, of_row.reshape(len(placed)))


def _refuse_row(parameter: str, row: int) -> NoReturn:
    msg = f"{parameter}: row {row} has no value; fill it, or leave the row out."
    raise InvalidRequestError(msg, parameter=parameter, value=row)


def _of_values(parameter: str, values: list[Any]) -> ByRow:
    """Return the distinct ones of values of any kind."""
    numbers: dict[Any, int] = {}
    of_row = np.zeros(len(values), np.intp)
    for row, value in enumerate(values):
        if value is np.ma.masked:
            _refuse_row(parameter, row)
        value = tuple(value) if isinstance(value, list) else value
        of_row[row] = numbers.setdefault(value, len(numbers))
    return ByRow(list(numbers), of_row)


def differing_options(options: Mapping[str, object], targets: Targets) -> dict[str, ByRow]:
    """Return those of some options that are given by row."""
    by_row = {name: as_by_row(name, options[name], targets) for name in BY_ROW if name in options}
    return {name: values for name, values in by_row.items() if values is not None}


def each_row(
    options: Mapping[str, object], targets: Targets
) -> Iterator[tuple[tuple[float, float], Options] | None]:
    """Yield RA, Dec and options of every row, `None` where it has no position."""
    differing = differing_options(options, targets)
    for row, place in enumerate(targets.places()):
        own = {name: by_row.values[by_row.of_row[row]] for name, by_row in differing.items()}
        yield place and (place, {**options, **own})
