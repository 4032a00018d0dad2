"""Which bricks a user means: names, numbers, positions, circles, tables."""

import numpy as np
from astropy import units as u
from astropy.coordinates import Angle, SkyCoord
from astropy.table import Table
from astroquery.utils import parse_coordinates

from ..exceptions import InvalidRequestError
from ..survey.bricks import brick_id, brick_row_column, parse_brick_name
from ..survey.files import is_sweep_name
from ..survey.overlap import bricks_in_circle

__all__ = ["as_bricks"]

MUST = "must be names of bricks, coordinates, or a Table."


def as_bricks(value, radius=None):
    """Return the bricks and sweep files that are meant.

    Parameters
    ----------
    value : object
        As for `~.files.FileMethods.get_brick_files`.
    radius : `~astropy.units.Quantity` ['angle'] or str, optional
        Of the circle round each position.

    Returns
    -------
    ids : `~numpy.ndarray` of int
        Ascending, each once.
    sweeps : tuple of str
        Names of sweep files.

    Raises
    ------
    InvalidRequestError
        If it is none of these.
    """
    names, sweeps, positions = [], [], None
    if value is None:
        pass
    elif isinstance(value, Table):
        names, positions = _of_table(value)
    elif isinstance(value, SkyCoord):
        positions = value
    else:
        items = [value] if isinstance(value, (str, int, np.integer)) else _as_list(value)
        if items and all(_is_name(item) for item in items):
            sweeps = [str(item).strip().removesuffix(".fits") for item in items if _is_sweep(item)]
            names = [item for item in items if not _is_sweep(item)]
        else:
            positions = _as_positions(items, value)
    if positions is None:
        if radius is not None:
            msg = f"radius={radius!r} needs coordinates, not names of bricks."
            raise InvalidRequestError(msg, parameter="radius", value=radius)
        ids = [parse_brick_name(n) if isinstance(n, str) else int(n) for n in names]
        ids = np.unique(np.array(ids, dtype=np.int64))
        brick_row_column(ids)  # refuses numbers that no brick has
        return ids, tuple(dict.fromkeys(sweeps))
    icrs = positions.transform_to("icrs")
    ra_deg, dec_deg = np.ravel(icrs.ra.deg), np.ravel(icrs.dec.deg)
    if radius is None:
        return np.unique(brick_id(ra_deg, dec_deg)), ()
    radius_deg = _as_radius(radius)
    found = [bricks_in_circle(*place, radius_deg) for place in zip(ra_deg, dec_deg, strict=True)]
    return np.unique(np.concatenate(found)) if found else np.array([], np.int64), ()


def _of_table(table):
    """Return (names or numbers, positions or `None`) of a table's rows."""
    columns = {name.lower(): name for name in reversed(table.colnames)}
    if "brickname" in columns:
        return [str(name) for name in table[columns["brickname"]]], None
    if "brickid" in columns:
        return list(table[columns["brickid"]]), None
    if {"ra", "dec"} <= set(columns):
        angles = (u.Quantity(table[columns[name]], u.deg) for name in ("ra", "dec"))
        return [], SkyCoord(*angles)
    msg = (
        "bricks_or_coordinates is a table without a column brickname, brickid, or ra and dec; it "
        f"has: {', '.join(table.colnames)}."
    )
    raise InvalidRequestError(msg, parameter="bricks_or_coordinates", value=table)


def _as_list(value):
    try:
        return list(value)
    except TypeError as error:
        msg = f"bricks_or_coordinates={value!r} {MUST}"
        raise InvalidRequestError(msg, parameter="bricks_or_coordinates", value=value) from error


def _is_sweep(item):
    return isinstance(item, str) and is_sweep_name(item)


def _is_name(item):
    if isinstance(item, (int, np.integer)) and not isinstance(item, bool):
        return True
    text = str(item).strip() if isinstance(item, str) else ""
    # A name that no brick has is still meant as one, and is refused as such.
    digits = text[:4] + text[5:]
    return _is_sweep(text) or (len(text) == 8 and text[4] in "pm" and digits.isdigit())


def _as_positions(items, value):
    try:
        found = [parse_coordinates(item).transform_to("icrs") for item in items]
        return SkyCoord(found)
    except (TypeError, ValueError) as error:
        msg = f"bricks_or_coordinates={value!r} {MUST}"
        raise InvalidRequestError(msg, parameter="bricks_or_coordinates", value=value) from error


def _as_radius(radius):
    must = "must be an angle, a Quantity or a string such as '5 arcmin'; a bare number is none."
    try:
        angle = Angle(radius)
        radius_deg = float(angle.to_value(u.deg))
    except (TypeError, ValueError, u.UnitsError) as error:
        msg = f"radius={radius!r} {must}"
        raise InvalidRequestError(msg, parameter="radius", value=radius) from error
    if not (np.isfinite(radius_deg) and 0 <= radius_deg <= 180):
        msg = f"radius={radius!r} must be from 0 to 180 degrees."
        raise InvalidRequestError(msg, parameter="radius", value=radius)
    return radius_deg
