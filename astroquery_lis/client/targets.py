"""The targets of a long job: a table or a SkyCoord brought to arrays."""

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

from ..exceptions import InvalidRequestError

__all__ = ["Targets", "as_targets"]

RA_NAMES = ("ra", "raj2000", "ra_icrs", "target_ra")
DEC_NAMES = ("dec", "decj2000", "dej2000", "de_icrs", "dec_icrs", "target_dec")


@dataclass(frozen=True, eq=False)
class Targets:
    """Positions and names of many targets.

    Attributes
    ----------
    ids : `~numpy.ndarray`, shape (n,)
        Integers or strings; the numbers of the rows if the user has no names.
    ra_deg, dec_deg : `~numpy.ndarray` of float, shape (n,)
        ICRS; NaN where the table has no position.
    """

    ids: np.ndarray
    ra_deg: np.ndarray
    dec_deg: np.ndarray

    def __len__(self):
        return len(self.ids)


def as_targets(table, id_column=None):
    """Return the targets of a table or a SkyCoord.

    Parameters
    ----------
    table : `~astropy.table.Table` or `~astropy.coordinates.SkyCoord`, shape (n,)
        A table has one column of SkyCoord, or two columns called ``ra`` and ``dec``, in any case,
        with a unit of angle or in degrees.
    id_column : str, optional
        Column of integers or strings; by default the one called ``id``, in any case, if there is
        one.

    Returns
    -------
    Targets

    Raises
    ------
    InvalidRequestError
        If it is neither, or a column is missing or of no use.
    """
    if isinstance(table, SkyCoord):
        if id_column is not None:
            _refuse("id_column", id_column, "needs a table; a SkyCoord has no columns.")
        return Targets(np.arange(np.atleast_1d(table).size), *_from_coordinates(table, "table"))
    if not isinstance(table, Table):
        why = "is neither an astropy Table, such as Table.read makes of a file, nor a SkyCoord."
        _refuse("table", type(table).__name__, why)
    ids = _ids(table, id_column)
    mixed = [name for name in table.colnames if isinstance(table[name], SkyCoord)]
    if len(mixed) > 1:
        _refuse("table", ", ".join(mixed), "are all columns of SkyCoord; leave one of them.")
    if mixed:
        return Targets(ids, *_from_coordinates(table[mixed[0]], mixed[0]))
    return Targets(ids, _degrees(table, RA_NAMES), _degrees(table, DEC_NAMES))


def _refuse(parameter, value, must):
    shown = value if parameter == "table" else repr(value)
    msg = f"{parameter}={shown} {must}"
    raise InvalidRequestError(msg, parameter=parameter, value=value)


def _from_coordinates(coordinates, name):
    coordinates = np.atleast_1d(coordinates)
    if coordinates.ndim != 1:
        _refuse("table", name, f"has shape {coordinates.shape}; one dimension is due.")
    icrs = coordinates.transform_to("icrs")
    return _plain(icrs.ra.deg), _plain(icrs.dec.deg)


def _plain(values):
    """Return a column as floats, NaN where it is masked."""
    filled = np.ma.filled(np.ma.asarray(getattr(values, "unmasked", values)), np.nan)
    mask = getattr(values, "mask", False)
    return np.where(mask, np.nan, np.asarray(filled, float))


def _find(table, names):
    by_lower = {name.lower(): name for name in reversed(table.colnames)}
    return next((by_lower[name] for name in names if name in by_lower), None)


def _degrees(table, names):
    found = _find(table, names)
    if found is None:
        wanted = " or ".join(names)
        _refuse("table", ", ".join(table.colnames), f"has no {wanted}, and no column of SkyCoord.")
    column = table[found]
    if column.dtype.kind not in "fiu":
        _refuse("table", found, f"is of {column.dtype}; numbers in degrees are due.")
    values = _plain(np.ma.MaskedArray(column.data, dtype=float))
    unit = column.unit or u.deg
    try:
        return (values * unit).to_value(u.deg)
    except u.UnitConversionError:
        _refuse("table", found, f"is in {unit}, which is no angle.")


def _ids(table, id_column):
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
