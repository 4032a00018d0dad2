"""The Tractor sources of a JWST field, and where its stars are at another time."""

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord, get_body_barycentric
from astropy.table import Table
from astropy.time import Time

from ...exceptions import InvalidRequestError
from ...survey.overlap import _unit_vectors
from ...survey.releases import get_release
from ...survey.tractor_columns import tractor_columns

__all__ = [
    "MAS_PER_RADIAN",
    "as_epoch",
    "as_tractor",
    "carried",
    "field_sources",
    "has_motion",
    "plain",
    "positions_at",
    "source_columns",
    "texts",
]

MAS_PER_RADIAN = 180 / np.pi * 3.6e6

_WANTED = frozenset(
    {
        "ls_id",
        "release",
        "brickid",
        "brickname",
        "objid",
        "type",
        "ra",
        "dec",
        "ra_ivar",
        "dec_ivar",
        "ebv",
        "maskbits",
        "fitbits",
        "ref_cat",
        "ref_id",
        "ref_epoch",
        "pmra",
        "pmdec",
        "parallax",
        "pmra_ivar",
        "pmdec_ivar",
        "parallax_ivar",
        "gaia_phot_g_mean_mag",
        "gaia_astrometric_excess_noise",
        "gaia_astrometric_sigma5d_max",
        "flux",
        "flux_ivar",
        "mw_transmission",
        "fracflux",
        "fracmasked",
        "fracin",
        "nobs",
        "psfsize",
        "shape_r",
        "shape_r_ivar",
        "shapeexp_r",
        "shapedev_r",
        "fracdev",
        "sersic",
    }
)
"""Columns, or families of columns, that there is a use for."""

_LONGEST_PARALLAX_ERROR = 0.2
"""Relative error up to which a parallax is believed."""


def source_columns(release):
    """Return the columns that matching and reference catalogues stand on.

    Parameters
    ----------
    release : str
        Its columns are taken.

    Returns
    -------
    list of str
    """
    known = tractor_columns(get_release(release).name)
    return [
        name
        for name, column in known.items()
        if column.in_tap and (name in _WANTED or column.family in _WANTED)
    ]


def field_sources(field, survey, *, margin_deg=0.0, release=None, **options):
    """Return the Tractor sources of a field.

    Parameters
    ----------
    field : `~.legacy_footprint.Field`
        Where.
    survey : `~astroquery_lis.LegacySurveyClass`
        Asked for them.
    margin_deg : float, optional
        Added on every side.
    release : str, optional
        By default that of ``survey``.
    **options
        Further arguments of ``query_tractor``.

    Returns
    -------
    `~astropy.table.Table`
        One row per source.
    """
    release = get_release(survey.release if release is None else release).name
    circle = field.enclosing(margin_deg)
    options = {"columns": source_columns(release), **options}
    found = survey.query_tractor(
        SkyCoord(circle.ra_deg, circle.dec_deg, unit="deg"),
        radius=circle.radius_deg * u.deg,
        release=release,
        **options,
    )
    return found[field.contains(plain(found["ra"]), plain(found["dec"]), margin_deg)]


def as_tractor(table):
    """Return a table of the Tractor catalogue, checked.

    Parameters
    ----------
    table : `~astropy.table.Table`
        As from ``query_tractor``, or read from a tractor or sweep file.

    Returns
    -------
    `~astropy.table.Table`
        With column names in lower case, without the copies that neighbouring bricks have of a
        source, and without rows of type DUP.

    Raises
    ------
    InvalidRequestError
        If it is no table, or lacks ``ra``, ``dec`` or ``type``.
    """
    if not isinstance(table, Table):
        msg = f"tractor must be a Table, not {type(table).__name__}."
        raise InvalidRequestError(msg, parameter="tractor", value=table)
    if any(name != name.lower() for name in table.colnames):
        table = table.copy(copy_data=False)
        for name in table.colnames:
            if name != name.lower():
                table.rename_column(name, name.lower())
    lacking = [name for name in ("ra", "dec", "type") if name not in table.colnames]
    if lacking:
        msg = f"tractor has no column {', '.join(lacking)}; it has {', '.join(table.colnames)}."
        raise InvalidRequestError(msg, parameter="tractor", value=table.colnames)
    own = texts(table["type"]) != "DUP"
    if "brick_primary" in table.colnames:
        own &= np.ma.filled(np.ma.asarray(table["brick_primary"]).astype(bool), True)
    return table if own.all() else table[own]


def as_epoch(epoch):
    """Return a time as one `~astropy.time.Time`, or `None`.

    Parameters
    ----------
    epoch : `~astropy.time.Time` or None
        What was given.

    Returns
    -------
    `~astropy.time.Time` or None

    Raises
    ------
    InvalidRequestError
        If it is something else.
    """
    if epoch is not None and not (isinstance(epoch, Time) and epoch.isscalar):
        msg = f"epoch={epoch!r} must be one astropy Time, for example Time('2023-03-01')."
        raise InvalidRequestError(msg, parameter="epoch", value=epoch)
    return epoch


def plain(column):
    """Return a column as floats without unit or mask; what is masked is NaN.

    Parameters
    ----------
    column : `~astropy.table.Column`, `~astropy.units.Quantity` or array
        The column.

    Returns
    -------
    `~numpy.ndarray` of float
    """
    mask = np.asarray(getattr(column, "mask", False))
    values = getattr(column, "unmasked", column)
    values = np.array(np.ma.getdata(getattr(values, "value", values)), dtype=float)
    if mask.any():
        values[np.broadcast_to(mask, values.shape)] = np.nan
    return values


def texts(column):
    """Return a column of texts without mask or padding; what is masked is empty.

    Parameters
    ----------
    column : `~astropy.table.Column`
        Texts or bytes.

    Returns
    -------
    `~numpy.ndarray` of str
    """
    values = np.ma.filled(np.ma.asarray(column).astype(str), "")
    return np.char.strip(values)


def _column(table, name):
    return plain(table[name]) if name in table.colnames else np.full(len(table), np.nan)


def has_motion(table):
    """Tell which sources are stars with a proper motion from Gaia.

    Parameters
    ----------
    table : `~astropy.table.Table`
        As from `as_tractor`.

    Returns
    -------
    `~numpy.ndarray` of bool
        Type PSF, matched to Gaia, with both components of the motion and its epoch.  A solution of
        position only has no inverse variance of the motion, where the table has that column.
    """
    if "ref_cat" not in table.colnames:
        return np.zeros(len(table), bool)
    gaia = np.char.startswith(texts(table["ref_cat"]), "G") & (texts(table["type"]) == "PSF")
    motion = np.isfinite(_column(table, "pmra")) & np.isfinite(_column(table, "pmdec"))
    motion &= _column(table, "ref_epoch") > 0
    if {"pmra_ivar", "pmdec_ivar"} <= set(table.colnames):
        motion &= (_column(table, "pmra_ivar") > 0) & (_column(table, "pmdec_ivar") > 0)
    else:
        motion &= np.hypot(_column(table, "pmra"), _column(table, "pmdec")) > 0
    return gaia & motion


def positions_at(table, epoch):
    """Return positions with the stars that have a motion carried to a time.

    Parameters
    ----------
    table : `~astropy.table.Table`
        As from `as_tractor`.
    epoch : `~astropy.time.Time` or None
        When; `None` leaves every source where the table has it.

    Returns
    -------
    ra_deg, dec_deg : `~numpy.ndarray` of float
        ICRS, as seen from the Earth's orbit: the parallax of stars is in it where it is known to
        a fifth of itself.
    moved : `~numpy.ndarray` of bool
        Which were carried.
    """
    ra, dec = _column(table, "ra"), _column(table, "dec")
    moved = has_motion(table) if epoch is not None else np.zeros(len(table), bool)
    if not moved.any():
        return ra % 360.0, dec, moved
    years = epoch.tdb.jyear - _column(table, "ref_epoch")[moved]
    east_mas = _column(table, "pmra")[moved] * years
    north_mas = _column(table, "pmdec")[moved] * years
    parallax = _believed_parallax(table)[moved]
    if parallax.any():
        # Barycentric; that a star is seen in the direction of its distance less this vector.
        earth = get_body_barycentric("earth", epoch, ephemeris="builtin").xyz.to_value(u.au)
        east, north = _axes(ra[moved], dec[moved])
        east_mas -= parallax * (east @ earth)
        north_mas -= parallax * (north @ earth)
    ra[moved], dec[moved] = carried(ra[moved], dec[moved], east_mas, north_mas)
    return ra % 360.0, dec, moved


def _believed_parallax(table):
    parallax = np.nan_to_num(_column(table, "parallax"))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = 1 / np.sqrt(_column(table, "parallax_ivar"))
    return np.where(parallax * _LONGEST_PARALLAX_ERROR > error, parallax, 0.0)


def _axes(ra_deg, dec_deg):
    """Return the unit vectors to the east and to the north at positions."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    east = np.stack([-np.sin(ra), np.cos(ra), np.zeros_like(ra)], axis=-1)
    north = np.stack([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)], axis=-1)
    return east, north


def carried(ra_deg, dec_deg, east_mas, north_mas):
    """Return positions moved by small steps on the sky, near a pole too.

    Parameters
    ----------
    ra_deg, dec_deg : `~numpy.ndarray` of float, shape (n,)
        From where.
    east_mas, north_mas : array_like of float
        The steps, along great circles.

    Returns
    -------
    ra_deg, dec_deg : `~numpy.ndarray` of float, shape (n,)
    """
    east, north = _axes(ra_deg, dec_deg)
    step = np.asarray(east_mas)[..., None] * east + np.asarray(north_mas)[..., None] * north
    vector = _unit_vectors(ra_deg, dec_deg) + step / MAS_PER_RADIAN
    vector /= np.linalg.norm(vector, axis=-1, keepdims=True)
    new_ra = np.degrees(np.arctan2(vector[..., 1], vector[..., 0])) % 360.0
    return new_ra, np.degrees(np.arcsin(np.clip(vector[..., 2], -1, 1)))
