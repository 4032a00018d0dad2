"""Reference catalogues for tweakreg, from Tractor or from Gaia, at the epoch of the exposures.

The file is what ``tweakreg.abs_refcat`` reads: columns ``RA`` and ``DEC`` in degrees, and
``weight``.  No other column is called so in any case, since the pipeline takes them in any case.
"""

import contextlib
import io
from numbers import Real
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import Table, vstack

from ..._packages import package_version
from ...client import LegacySurvey
from ...exceptions import InvalidRequestError, NoCoverageError, ServiceDownError, StageWarning, warn
from ...io.store import write_whole
from ...survey.bitmasks import maskbits as release_bits
from ...survey.bitmasks import maskbits_value
from ...survey.catalog_request import as_angle_deg
from ...survey.releases import get_release
from ...survey.request import as_choice
from ..tasks import REFCATS
from .cutouts import as_margin_deg
from .footprint import fields_of
from .sources import as_epoch, field_sources, has_motion, plain, positions_at, texts
from .where import footprints_of

__all__ = ["gaia_reference", "make_reference", "tractor_reference"]

GAIA_TABLE = "gaiadr3.gaia_source"

PIPELINE_MINIMUM = 15
"""``tweakreg.abs_minobj``: with fewer sources the pipeline does not align."""

STAR_FLOOR_MAS = 5.0
GALAXY_FLOOR_MAS = 20.0
"""What a JWST centroid adds to the error of a reference: a galaxy's differs from that of its image
from the ground."""

GAIA_MAX_RUWE = 1.4

_GALAXY_BITS = ("BRIGHT", "GALAXY", "CLUSTER", "BAILOUT", "SUB_BLOB")
_STAR_BITS = ("GALAXY",)

_GAIA_COLUMNS = (
    "source_id, ra, dec, ra_error, dec_error, pmra, pmdec, pmra_error, pmdec_error, parallax, "
    "parallax_error, ref_epoch, ruwe, phot_g_mean_mag, duplicated_source"
)


def make_reference(
    given,
    *,
    catalog="legacy",
    survey=LegacySurvey,
    epoch=None,
    path=None,
    margin="10 arcsec",
    galaxies=True,
    min_snr=10.0,
    max_error=30 * u.mas,
    max_radius=0.6 * u.arcsec,
    max_fracflux=0.2,
    maskbits=None,
    release=None,
    gaia=None,
    **options,
):
    """Make an astrometric reference catalogue for JWST exposures.

    Parameters
    ----------
    given : object
        Plan, table, files or footprint, as for `~.legacy_where.footprints_of`.
    catalog : {'legacy', 'gaia'}, optional
        Tractor, or Gaia DR3.
    survey : `~astroquery_lis.LegacySurveyClass`, optional
        Asked for Tractor.
    epoch : `~astropy.time.Time`, optional
        When the positions shall hold; by default when the exposures were made.
    path : path-like, optional
        ECSV file to write, replaced if it is there.
    margin : `~astropy.units.Quantity` ['angle'] or str, optional
        Around the footprints: pointing errors and the search radius of tweakreg.
    galaxies : bool, optional
        Whether compact galaxies are taken too, where the catalogue has them.
    min_snr : float, optional
        Smallest flux over error of a galaxy, in its best band.
    max_error : `~astropy.units.Quantity` ['angle'], optional
        Largest error of a position at the epoch, in one coordinate.
    max_radius : `~astropy.units.Quantity` ['angle'], optional
        Largest half-light radius of a galaxy.
    max_fracflux : float, optional
        Largest part of other sources' light, relative to a galaxy's own, in its best band.
    maskbits : str or sequence of str, optional
        Sources with any of these bits are left out.  By default galaxies in the masks of bright
        stars, large galaxies and clusters, and where no band is good, and stars in large galaxies.
    release : str, optional
        By default that of ``survey``.
    gaia : `~astroquery.gaia.GaiaClass`, optional
        Asked for Gaia; by default ESA's archive.
    **options
        Further arguments of ``query_tractor``.

    Returns
    -------
    `~astropy.table.Table`
        ``RA`` and ``DEC`` at the epoch, ``weight``, 1 for the best; ``error_mas``, ``kind`` (star
        or galaxy), what the source is, and its motion.  ``meta`` says how it was made.

    Raises
    ------
    InvalidRequestError
        If an argument is wrong, or the epoch is not known.
    NoCoverageError
        If no source is fit for it.

    Warns
    -----
    StageWarning
        If there are fewer sources than the pipeline takes by default, or the exposures are more
        than a year apart.
    """
    as_choice("catalog", catalog, REFCATS)
    margin_deg = as_margin_deg(margin)
    cuts = {
        "max_error_mas": as_angle_deg("max_error", max_error, 1 / 3600) * 3.6e6,
        "galaxies": bool(galaxies),
        "min_snr": _as_number("min_snr", min_snr),
        "max_radius_arcsec": as_angle_deg("max_radius", max_radius, 60 / 3600) * 3600,
        "max_fracflux": _as_number("max_fracflux", max_fracflux),
        "maskbits": [maskbits] if isinstance(maskbits, str) else maskbits,
    }
    path = _as_path(path)
    as_epoch(epoch)
    fields = fields_of(footprints_of(given))
    parts, epochs = [], []
    for field in fields:
        when = _epoch_of(field, epoch)
        epochs.append(when.utc.isot)
        if catalog == "gaia":
            parts.append(gaia_reference(_gaia_rows(field, margin_deg, gaia), when, cuts))
            continue
        name = get_release(survey.release if release is None else release).name
        rows = field_sources(field, survey, margin_deg=margin_deg, release=name, **options)
        parts.append(tractor_reference(rows, when, name, cuts))
    table = _one_table(parts)
    if not len(table):
        msg = (
            f"No source of {'Gaia' if catalog == 'gaia' else 'Tractor'} in the field is fit for a "
            "reference; loosen max_error, min_snr, max_radius, max_fracflux or maskbits."
        )
        raise NoCoverageError(msg)
    _tell_few(len(table))
    table.meta = {
        "description": "Astrometric reference for tweakreg.abs_refcat",
        "catalog": GAIA_TABLE if catalog == "gaia" else "DESI Legacy Imaging Surveys, Tractor",
        "frame": "ICRS",
        "epoch": epochs,
        "fields": [field.name for field in fields],
        "margin_arcsec": round(margin_deg * 3600, 6),
        "creator": f"astroquery_lis {package_version()}",
        "n_stars": int((table["kind"] == "star").sum()),
        "n_galaxies": int((table["kind"] == "galaxy").sum()),
        **{key: value for key, value in cuts.items() if catalog == "legacy" and value is not None},
    }
    if catalog == "legacy":
        table.meta["release"] = name
    if path is not None:
        _write(table, path)
    return table


def _as_number(parameter, value):
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < np.inf:
        msg = f"{parameter}={value!r} must be a number, 0 or more."
        raise InvalidRequestError(msg, parameter=parameter, value=value)
    return float(value)


def _as_path(path):
    if path is None:
        return None
    path = Path(path)
    if path.suffix != ".ecsv":
        msg = f"path={str(path)!r} must end in .ecsv, by which the pipeline knows the format."
        raise InvalidRequestError(msg, parameter="path", value=str(path))
    return path


def _epoch_of(field, epoch):
    if epoch is None:
        epoch = field.epoch
        if epoch is None:
            msg = f"epoch: {field.name} does not tell when it was observed; give epoch=Time(...)."
            raise InvalidRequestError(msg, parameter="epoch", value=None)
        if field.span_yr > 1:
            msg = (
                f"The exposures of {field.name} are {field.span_yr:.1f} years apart; the reference "
                "has their mean epoch. Align them visit by visit if stars move too far."
            )
            warn(msg, StageWarning)
    return epoch


def _tell_few(count):
    if count < PIPELINE_MINIMUM:
        msg = (
            f"The reference has {count} sources, and tweakreg does not align with fewer than "
            f"abs_minobj, {PIPELINE_MINIMUM} by default: set steps={{'tweakreg': {{'abs_minobj': "
            f"{max(count // 2, 3)}}}}}."
        )
        warn(msg, StageWarning)


def tractor_reference(rows, epoch, release, cuts):
    """Return the reference sources among Tractor's.

    Parameters
    ----------
    rows : `~astropy.table.Table`
        With `~.legacy_sources.source_columns`.
    epoch : `~astropy.time.Time`
        When the positions shall hold.
    release : str
        What mask bits mean.
    cuts : dict
        As `make_reference` makes them of its arguments.

    Returns
    -------
    `~astropy.table.Table`
        Stars with a motion, then galaxies.
    """
    ra, dec, _ = positions_at(rows, epoch)
    is_star, kind = has_motion(rows), texts(rows["type"])
    is_galaxy = (kind != "PSF") & (kind != "DUP") & (kind != "")
    error = np.where(is_star, _star_error_mas(rows, epoch), _galaxy_error_mas(rows))
    snr, fracflux = _best_band(rows)
    bits = np.nan_to_num(plain(rows["maskbits"])).astype(np.int64)
    is_good = error <= cuts["max_error_mas"]
    star = is_good & is_star & ((bits & _bits(cuts, _STAR_BITS, release)) == 0)
    galaxy = is_good & is_galaxy & (snr >= cuts["min_snr"]) & (fracflux <= cuts["max_fracflux"])
    galaxy &= _radius_arcsec(rows) <= cuts["max_radius_arcsec"]
    galaxy &= (bits & _bits(cuts, (*_GALAXY_BITS, *_allmask(release)), release)) == 0
    galaxy &= cuts["galaxies"]
    parts = []
    for name, chosen, floor in (
        ("star", star, STAR_FLOOR_MAS),
        ("galaxy", galaxy, GALAXY_FLOOR_MAS),
    ):
        part = _base(ra[chosen], dec[chosen], error[chosen], floor, name)
        part["type"] = kind[chosen]
        for column in ("release", "brickid", "objid", "ref_id"):
            part[column] = np.ma.getdata(rows[column])[chosen]
        # ECSV reads an empty text as a missing one.
        catalog = texts(rows["ref_cat"])[chosen]
        part["ref_cat"] = np.where(catalog == "", "-", catalog)
        for column in ("ref_epoch", "pmra", "pmdec", "parallax"):
            part[column] = np.where(is_star, plain(rows[column]), 0.0)[chosen]
        parts.append(part)
    return vstack(parts, metadata_conflicts="silent")


def _base(ra, dec, error, floor, kind):
    table = Table()
    table["RA"], table["DEC"] = ra * u.deg, dec * u.deg
    table["weight"] = 1 / (error**2 + floor**2)
    table["error_mas"] = error
    table["kind"] = np.full(len(ra), kind, dtype="U6")
    return table


def _bits(cuts, names, release):
    if cuts["maskbits"] is not None:
        return maskbits_value(cuts["maskbits"], release)
    known = release_bits(release)
    return maskbits_value([name for name in names if name in known], release)


def _allmask(release):
    return [name for name in release_bits(release) if name.startswith("ALLMASK_")]


def _star_error_mas(rows, epoch):
    """Return the error of a star's position at a time, in its worse coordinate."""
    years = epoch.tdb.jyear - plain(rows["ref_epoch"])
    with np.errstate(divide="ignore", invalid="ignore"):
        motion = np.maximum(*(1 / np.sqrt(plain(rows[f"pm{axis}_ivar"])) for axis in ("ra", "dec")))
    own = np.nan_to_num(plain(rows["gaia_astrometric_sigma5d_max"]))
    noise = np.nan_to_num(plain(rows["gaia_astrometric_excess_noise"]))
    return np.sqrt(own**2 + noise**2 + (motion * years) ** 2)


def _galaxy_error_mas(rows):
    """Return the error of a galaxy's position in its worse coordinate; infinite where unknown."""
    with np.errstate(divide="ignore", invalid="ignore"):
        # The error in RA is that of the number, not of the angle on the sky.
        east = np.cos(np.radians(plain(rows["dec"]))) / np.sqrt(plain(rows["ra_ivar"]))
        north = 1 / np.sqrt(plain(rows["dec_ivar"]))
    error = np.maximum(east, north) * 3.6e6
    return np.where(np.isfinite(error), error, np.inf)


def _best_band(rows):
    """Return the S/N in the band where it is highest, and what neighbours add in that band."""
    bands = [name.removeprefix("fracflux_") for name in rows.colnames if "fracflux_" in name]
    snr, fraction = [], []
    for band in bands:
        if band.startswith("w"):
            continue
        ivar = np.clip(np.nan_to_num(plain(rows[f"flux_ivar_{band}"])), 0, None)
        snr.append(np.nan_to_num(plain(rows[f"flux_{band}"])) * np.sqrt(ivar))
        fraction.append(np.nan_to_num(plain(rows[f"fracflux_{band}"])))
    best = np.argmax(snr, axis=0), np.arange(len(rows))
    return np.array(snr)[best], np.array(fraction)[best]


def _radius_arcsec(rows):
    """Return half-light radii; to DR8 that of the profile that was fitted."""
    if "shape_r" in rows.colnames:
        return plain(rows["shape_r"])
    kind = texts(rows["type"])
    exp, dev = plain(rows["shapeexp_r"]), plain(rows["shapedev_r"])
    return np.where(kind == "DEV", dev, np.where(kind == "COMP", np.fmax(exp, dev), exp))


def _gaia_rows(field, margin_deg, gaia):
    """Ask Gaia for the sources of a field."""
    circle = field.enclosing(margin_deg)
    query = (
        f"SELECT {_GAIA_COLUMNS} FROM {GAIA_TABLE} WHERE 1 = CONTAINS(POINT('ICRS', ra, dec), "
        f"CIRCLE('ICRS', {circle.ra_deg:.9f}, {circle.dec_deg:.9f}, {circle.radius_deg:.9f})) "
        "AND pmra IS NOT NULL"
    )
    # The import asks the archive for its messages, and prints them.
    with contextlib.redirect_stdout(io.StringIO()):
        if gaia is None:
            from astroquery.gaia import Gaia as gaia
        try:
            rows = gaia.launch_job_async(query).get_results()
        except OSError as error:
            msg = f"Gaia's archive did not answer: {error}"
            raise ServiceDownError(msg, cause=error) from error
    for name in rows.colnames:
        rows.rename_column(name, name.lower())
    inside = field.contains(plain(rows["ra"]), plain(rows["dec"]), margin_deg)
    return rows[inside]


def gaia_reference(rows, epoch, cuts):
    """Return the reference stars among Gaia's sources.

    Parameters
    ----------
    rows : `~astropy.table.Table`
        Columns of ``gaia_source``.
    epoch, cuts
        As for `tractor_reference`.

    Returns
    -------
    `~astropy.table.Table`
        Sources with a motion, a good fit of one star (RUWE up to 1.4), and a small error.
    """
    like = Table({name: plain(rows[name]) for name in ("ra", "dec", "pmra", "pmdec", "parallax")})
    like["ref_epoch"] = plain(rows["ref_epoch"])
    like["type"], like["ref_cat"] = "PSF", "G3"
    for name in ("pmra", "pmdec", "parallax"):
        like[f"{name}_ivar"] = plain(rows[f"{name}_error"]) ** -2.0
    ra, dec, moved = positions_at(like, epoch)
    years = epoch.tdb.jyear - like["ref_epoch"].data
    errors = [
        np.hypot(plain(rows[f"{axis}_error"]), plain(rows[f"pm{axis}_error"]) * years)
        for axis in ("ra", "dec")
    ]
    error = np.maximum(*errors)
    chosen = moved & (error <= cuts["max_error_mas"]) & (plain(rows["ruwe"]) <= GAIA_MAX_RUWE)
    chosen &= ~np.ma.filled(np.ma.asarray(rows["duplicated_source"]).astype(bool), True)
    part = _base(ra[chosen], dec[chosen], error[chosen], STAR_FLOOR_MAS, "star")
    part["source_id"] = np.ma.getdata(rows["source_id"])[chosen]
    part["phot_g_mean_mag"] = plain(rows["phot_g_mean_mag"])[chosen]
    for name in ("ref_epoch", "pmra", "pmdec", "parallax"):
        part[name] = like[name][chosen]
    return part


def _one_table(parts):
    """Return the sources of all fields, each once, the weights relative to the best."""
    table = vstack(parts, metadata_conflicts="silent")
    key = [name for name in ("release", "brickid", "objid", "source_id") if name in table.colnames]
    _, first = np.unique(np.array(table[key].as_array()), return_index=True)
    table = table[np.sort(first)]
    if len(table):
        table["weight"] /= table["weight"].max()
    for name, text in (
        ("RA", "ICRS, at the epoch"),
        ("DEC", "ICRS, at the epoch"),
        ("weight", "1 for the best"),
        ("error_mas", "Of a coordinate at the epoch, mas"),
    ):
        table[name].info.description = text
    return table


def _write(table, path):
    """Write a table whole or not at all."""
    with write_whole(path) as temporary:
        table.write(temporary, format="ascii.ecsv", overwrite=True)
