"""What users hand to the methods of the catalogue, as the package needs it."""

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table
from astropy.time import Time

from ..exceptions import InvalidRequestError

__all__ = ["as_positions", "as_table", "as_years"]


def as_positions(coordinates, parameter):
    """Return RA and Dec of several positions.

    Parameters
    ----------
    coordinates : `~astropy.coordinates.SkyCoord`, shape (n,), or sequence of them
        In any frame.
    parameter : str
        Name of the argument.

    Returns
    -------
    ra_deg, dec_deg : `~numpy.ndarray` of float, shape (n,)
        ICRS.

    Raises
    ------
    InvalidRequestError
        If they are not positions.
    """
    if isinstance(coordinates, (list, tuple)) and coordinates:
        try:
            coordinates = SkyCoord(coordinates)
        except (TypeError, ValueError, AttributeError):
            coordinates = None
    if not isinstance(coordinates, SkyCoord):
        msg = f"{parameter} must be a SkyCoord of several positions."
        raise InvalidRequestError(msg, parameter=parameter, value=coordinates)
    icrs = coordinates.transform_to("icrs")
    return np.atleast_1d(icrs.ra.deg).ravel(), np.atleast_1d(icrs.dec.deg).ravel()


def as_table(table, ra, dec):
    """Return a user's table and its positions.

    Parameters
    ----------
    table : `~astropy.table.Table` or `~astropy.coordinates.SkyCoord`
        What was given.
    ra, dec : str
        Columns.

    Returns
    -------
    table : `~astropy.table.Table`
        A `~astropy.table.QTable` of ``ra`` and ``dec`` for a SkyCoord.
    ra_deg, dec_deg : `~numpy.ndarray` of float, shape (n,)
        ICRS.

    Raises
    ------
    InvalidRequestError
        If there are no positions in it.
    """
    if isinstance(table, SkyCoord):
        ra_deg, dec_deg = as_positions(table, "table")
        return QTable({"ra": ra_deg * u.deg, "dec": dec_deg * u.deg}), ra_deg, dec_deg
    if not isinstance(table, Table):
        msg = (
            f"table must be a Table, such as Table.read makes of a file, or a SkyCoord, not "
            f"{type(table).__name__}."
        )
        raise InvalidRequestError(msg, parameter="table", value=table)
    if ra in table.colnames and isinstance(table[ra], SkyCoord):
        return table, *as_positions(table[ra], "table")
    values = []
    for parameter, name in (("ra", ra), ("dec", dec)):
        if name not in table.colnames:
            msg = (
                f"{parameter}={name!r} is not a column of the table: {', '.join(table.colnames)}. "
                "Say with ra= and dec= which ones hold the positions."
            )
            raise InvalidRequestError(msg, parameter=parameter, value=name)
        column = table[name]
        if np.ma.is_masked(column):
            msg = f"{parameter}={name!r} has masked values; remove those rows first."
            raise InvalidRequestError(msg, parameter=parameter, value=name)
        unit = getattr(column, "unit", None) or u.deg
        values.append(u.Quantity(np.asarray(column), unit).to_value(u.deg).astype(float))
    return table, *values


def as_years(epoch, n_rows):
    """Return the Julian year of every position, or `None`."""
    if epoch is None:
        return None
    if not isinstance(epoch, Time) or epoch.shape not in ((), (n_rows,)):
        msg = f"epoch={epoch!r} must be an astropy Time, one or one per row."
        raise InvalidRequestError(msg, parameter="epoch", value=epoch)
    return np.broadcast_to(np.asarray(epoch.tdb.jyear, dtype=float), (n_rows,))
