"""Columns of the Tractor files: names, order, types and the units that each release writes.

As documented in the releases' catalogue pages; the units are those that the files carry, which is
not what the pages list: some columns have none, and some spellings are no unit to astropy.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from ..survey import releases

__all__ = ["TractorColumn", "band_of", "tractor_columns", "tractor_dtype"]

OPTICAL = ("g", "r", "i", "z")
WISE = ("w1", "w2", "w3", "w4")

_FLUX, _FLUX_IVAR = "nanomaggy", "1/nanomaggy^2"

_HEAD = """
release i2, brickid i4, brickname S8, objid i4, brick_primary ?, maskbits i4, fitbits i2, type S3,
ra f8 deg, dec f8 deg, ra_ivar f4 1/deg^2, dec_ivar f4 1/deg^2, bx f4, by f4, dchisq 5f4,
ebv f4 mag, mjd_min f8, mjd_max f8, ref_cat S2, ref_id i8, pmra f4 mas/yr, pmdec f4 mas/yr,
parallax f4 mas, pmra_ivar f4 1/(mas/yr)^2, pmdec_ivar f4 1/(mas/yr)^2, parallax_ivar f4 1/mas^2,
ref_epoch f4, gaia_phot_g_mean_mag f4 mag, gaia_phot_g_mean_flux_over_error f4,
gaia_phot_g_n_obs i2, gaia_phot_bp_mean_mag f4 mag, gaia_phot_bp_mean_flux_over_error f4,
gaia_phot_bp_n_obs i2, gaia_phot_rp_mean_mag f4 mag, gaia_phot_rp_mean_flux_over_error f4,
gaia_phot_rp_n_obs i2, gaia_phot_variable_flag ?, gaia_astrometric_excess_noise f4,
gaia_astrometric_excess_noise_sig f4, gaia_astrometric_n_obs_al i2,
gaia_astrometric_n_good_obs_al i2, gaia_astrometric_weight_al f4, gaia_duplicated_source ?,
gaia_a_g_val f4, gaia_e_bp_min_rp_val f4, gaia_phot_bp_rp_excess_factor f4,
gaia_astrometric_sigma5d_max f4, gaia_astrometric_params_solved u1
"""

# Family, bands, type, unit.
_FAMILIES = (
    ("flux", OPTICAL + WISE, "f4", _FLUX),
    ("flux_ivar", OPTICAL + WISE, "f4", _FLUX_IVAR),
    ("fiberflux", OPTICAL, "f4", _FLUX),
    ("fibertotflux", OPTICAL, "f4", _FLUX),
    ("apflux", OPTICAL, "8f4", _FLUX),
    ("apflux_resid", OPTICAL, "8f4", _FLUX),
    ("apflux_blobresid", OPTICAL, "8f4", _FLUX),
    ("apflux_ivar", OPTICAL, "8f4", _FLUX_IVAR),
    ("apflux_masked", OPTICAL, "8f4", ""),
    ("apflux", WISE, "5f4", _FLUX),
    ("apflux_resid", WISE, "5f4", _FLUX),
    ("apflux_ivar", WISE, "5f4", _FLUX_IVAR),
    ("mw_transmission", OPTICAL + WISE, "f4", ""),
    ("nobs", OPTICAL + WISE, "i2", ""),
    ("rchisq", OPTICAL + WISE, "f4", ""),
    ("fracflux", OPTICAL + WISE, "f4", ""),
    ("fracmasked", OPTICAL, "f4", ""),
    ("fracin", OPTICAL, "f4", ""),
    ("ngood", OPTICAL, "i2", ""),
    ("anymask", OPTICAL, "i2", ""),
    ("allmask", OPTICAL, "i2", ""),
    ("wisemask", WISE[:2], "u1", ""),
    ("psfsize", OPTICAL, "f4", "arcsec"),
    ("psfdepth", OPTICAL, "f4", _FLUX_IVAR),
    ("galdepth", OPTICAL, "f4", _FLUX_IVAR),
    ("nea", OPTICAL, "f4", ""),
    ("blob_nea", OPTICAL, "f4", ""),
    ("psfdepth", WISE, "f4", _FLUX_IVAR),
)

_WISE_PLACE = "wise_coadd_id S8, wise_x f4, wise_y f4"

_LIGHT_CURVES = (
    ("lc_flux", "f4", _FLUX),
    ("lc_flux_ivar", "f4", _FLUX_IVAR),
    ("lc_nobs", "i2", ""),
    ("lc_fracflux", "f4", ""),
    ("lc_rchisq", "f4", ""),
    ("lc_mjd", "f8", ""),
    ("lc_epoch_index", "i2", ""),
)

_SHAPE = """
sersic f4, sersic_ivar f4, shape_r f4 arcsec, shape_r_ivar f4 1/arcsec^2, shape_e1 f4,
shape_e1_ivar f4, shape_e2 f4, shape_e2_ivar f4
"""

# Before DR9: two profiles in place of one.
_DR8_SHAPE = "fracdev f4, fracdev_ivar f4, " + ", ".join(
    f"shape{profile}_r f4 arcsec, shape{profile}_r_ivar f4 1/arcsec^2, shape{profile}_e1 f4, "
    f"shape{profile}_e1_ivar f4, shape{profile}_e2 f4, shape{profile}_e2_ivar f4"
    for profile in ("exp", "dev")
)
_SINCE_DR9 = ("fitbits", "apflux_blobresid", "apflux_masked", "nea", "blob_nea", "wise_x", "wise_y")

# Spellings from DR11 on.
_DR11_UNITS = {
    "nanomaggy": "nanomaggies",
    "1/nanomaggy^2": "nanomaggies^(-2)",
    "1/deg^2": "deg^(-2)",
    "1/(mas/yr)^2": "(mas/yr)^(-2)",
    "1/mas^2": "mas^(-2)",
    "1/arcsec^2": "arcsec^(-2)",
}


class TractorColumn(NamedTuple):
    """One column.

    Attributes
    ----------
    name : str
        Lower case, as in the files.
    kind : str
        Type of one value in numpy's notation, e.g. ``'f4'``.
    length : int
        Values per row.
    unit : str
        The file's TUNIT; empty where there is none.
    """

    name: str
    kind: str
    length: int
    unit: str


def band_of(name):
    """Return the optical band of a column, `None` where it has none.

    Parameters
    ----------
    name : str
        Column name.
    """
    last = name.rpartition("_")[2]
    return last if last in OPTICAL and name != last else None


def _parse(text):
    for entry in text.split(","):
        name, kind, *unit = entry.split()
        yield name, kind, unit[0] if unit else ""


def _head(number):
    for name, kind, unit in _parse(_HEAD):
        if number < 9 and name == "maskbits":
            yield "brightblob", "i2", ""
        if number < 10 and name == "maskbits":
            yield name, "i2", unit
        elif number < 9 and name == "type":
            yield name, "S4", unit
        elif number >= 11 and "_n_" in name and name.startswith("gaia_"):
            yield name, "i4", unit
        elif number >= 9 or name not in _SINCE_DR9:
            yield name, kind, unit
        if number < 9 and name == "ref_epoch":
            yield "gaia_pointsource", "?", ""


def _all_columns(number):
    if number >= 11:
        yield "ls_id_dr11", "i8", ""
    yield from _head(number)
    for family, bands, kind, unit in _FAMILIES:
        wise_apertures = family.startswith("apflux") and bands == WISE
        if number < 9 and (family in _SINCE_DR9 or wise_apertures):
            continue
        if number < 10 and family == "ngood":
            continue
        for band in bands:
            yield f"{family}_{band}", kind, unit
    for column in _parse(_WISE_PLACE):
        if number >= 9 or column[0] not in _SINCE_DR9:
            yield column
    epochs = {8: 11, 9: 15}.get(number, 17)
    for family, kind, unit in _LIGHT_CURVES:
        if number < 9 and family == "lc_epoch_index":
            continue
        for band in WISE[:2]:
            yield f"{family}_{band}", f"{epochs}{kind}", unit
    yield from _parse(_SHAPE if number >= 9 else _DR8_SHAPE)
    if number >= 11:
        yield "nearest_neighbor", "f4", "arcsec"


@cache
def tractor_columns(release, region):
    """Return the columns of the Tractor files of a region, in their order.

    Parameters
    ----------
    release : str
        ``'dr8'`` to ``'dr11'``; the north of DR10 is that of DR9.
    region : str
        ``'north'`` or ``'south'``.

    Returns
    -------
    tuple of TractorColumn
    """
    tree = releases.get_tree(release, region)
    number = int(tree.release[2:])
    found = []
    for name, kind, unit in _all_columns(number):
        band = band_of(name)
        if band and band not in tree.bands:
            continue
        length = int(kind[:-2] or 1) if kind[-2:] in ("f4", "f8", "i2") else 1
        base = kind[-2:] if length > 1 else kind
        found.append(
            TractorColumn(name, base, length, _DR11_UNITS.get(unit, unit) if number > 10 else unit)
        )
    return tuple(found)


def tractor_dtype(release, region):
    """Return the same as a numpy type.

    Parameters
    ----------
    release, region : str
        As for `tractor_columns`.

    Returns
    -------
    `~numpy.dtype`
    """
    return np.dtype(
        [
            (column.name, column.kind, (column.length,))
            if column.length > 1
            else (column.name, column.kind)
            for column in tractor_columns(release, region)
        ]
    )
