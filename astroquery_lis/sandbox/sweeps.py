"""The sweep files of the simulated survey, and the photo-z files beside them, row by row.

A third of the galaxies brighter than 20 mag have a spectrum, and so a ``z_spec``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from astropy.io import fits

from ..survey import paths
from . import catalog, sky
from .coadds import Content
from .light import noise_of, sources
from .measurements import tractor_columns

# What is not in the light catalogue but in files of its own, or in none.
_LEFT_OUT = (
    "lc_",
    "apflux_",
    "brick_primary",
    "bx",
    "by",
    "nea_",
    "blob_nea_",
    "nearest_neighbor",
    "ngood_",
    "mjd_",
    "wise_coadd_id",
    "wise_x",
    "wise_y",
    "gaia_phot_variable_flag",
    "gaia_astrometric_excess_noise_sig",
    "gaia_astrometric_n_",
    "gaia_astrometric_weight_al",
    "gaia_a_g_val",
    "gaia_e_bp_min_rp_val",
)

# What the tables hold where there is no value.
NO_REDSHIFT = -99.0

_SPECTROSCOPIC_MAG = 20.0
_SURVEYS = ("SDSS", "DESI", "GAMA")
_WIDTHS = {"l68": -1.0, "u68": 1.0, "l95": -2.0, "u95": 2.0}
_STATISTICS = ("mean", "median", "std", *_WIDTHS)


def sweep_names(release: str, region: str) -> tuple[str, ...]:
    """Return the names of a region's sweeps."""
    names = {
        name
        for brick in catalog.CATALOG_TREES[release, region]
        for name in paths.sweep_names(release, region, brick)
    }
    return tuple(sorted(names))


def sweep_files(release: str, region: str, sweep: str) -> Iterator[Content]:
    """Yield a sweep and its photo-z."""
    rows, truth_id = catalog.primary_rows(release, region)
    inside = _is_in(sweep, rows["ra"], rows["dec"])
    rows, truth_id = rows[inside], truth_id[inside]
    columns = [c for c in tractor_columns(release, region) if not c.name.startswith(_LEFT_OUT)]
    light = np.empty(len(rows), [(c.name.upper(), rows.dtype[c.name]) for c in columns])
    for column in columns:
        light[column.name.upper()] = rows[column.name]
    units = {column.name.upper(): column.unit for column in columns}
    redshifts = photo_z(release, rows, truth_id)
    redshifts.dtype.names = tuple(name.upper() for name in redshifts.dtype.names or ())
    tables = {"sweep": (light, units), "sweep-photo-z": (redshifts, {})}
    for kind, (table, units) in tables.items():
        hdus = fits.HDUList([fits.PrimaryHDU(), catalog.table_hdu(table, units)])
        hdus[0].header["OBJECT"] = ("SIMULATED", "these rows are not data")
        yield paths.file_path(kind, release, region, brick=sweep), hdus.writeto


def _is_in(sweep: str, ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    """Return which places are in the box that the name of a sweep says."""
    low, high = (
        (int(corner[:3]), int(corner[4:]) * (-1 if corner[3] == "m" else 1))
        for corner in sweep.split("-")[1:]
    )
    inside = (ra_deg >= low[0]) & (ra_deg < high[0])
    return inside & (dec_deg >= low[1]) & (dec_deg < high[1])


def photo_z_dtype(release: str) -> np.dtype:
    """Return the columns of the photo-z tables, which from DR10 on have a second set with i."""
    sets = ("", "_i") if int(release[2:]) >= 10 else ("",)
    names = [f"z_phot_{name}{end}" for end in sets for name in _STATISTICS]
    return np.dtype(
        [("release", "i2"), ("brickid", "i4"), ("objid", "i4")]
        + [(name, "f4") for name in names]
        + [("z_spec", "f4"), ("survey", "S10"), ("training", "?"), ("kfold", "i2")]
    )


def photo_z(release: str, rows: np.ndarray, truth_id: np.ndarray) -> np.ndarray:
    """Return the photo-z of rows of a Tractor catalogue, whose true sources have these ids."""
    table = np.zeros(len(rows), photo_z_dtype(release))
    for name in ("release", "brickid", "objid"):
        table[name] = rows[name]
    # Sources that are only in Gaia have the id -1, and no light that could be fitted.
    is_true = truth_id >= 0
    number = np.where(is_true, truth_id, 0)
    redshift = np.asarray(sky.truth()["redshift"])[number]
    magnitude = sky.magnitudes(np.asarray(sources()["flux_r"])[number])
    error = np.clip(0.02 * 10 ** (0.2 * (magnitude - 20)), 0.015, 0.2) * (1 + redshift)
    noise = noise_of(5, int(release[2:]))[number]
    for end, bands in (("", "grz"), ("_i", "griz")):
        if f"z_phot_mean{end}" not in (table.dtype.names or ()):
            continue
        was_seen = is_true.copy()
        for band in bands:
            if f"nobs_{band}" in (rows.dtype.names or ()):
                was_seen &= rows[f"nobs_{band}"] > 0
        middle = np.abs(redshift + noise[:, len(bands)] * error)
        values = {"mean": middle + 0.1 * error, "median": middle, "std": 1.1 * error}
        values |= {name: np.maximum(middle + k * error, 0) for name, k in _WIDTHS.items()}
        for name, column in values.items():
            table[f"z_phot_{name}{end}"] = np.where(was_seen, column, NO_REDSHIFT)
    is_galaxy = np.asarray(sky.truth()["type"])[number] != "PSF"
    has_spectrum = is_true & is_galaxy & (magnitude < _SPECTROSCOPIC_MAG) & (number % 3 == 0)
    table["z_spec"] = np.where(has_spectrum, redshift, NO_REDSHIFT)
    table["survey"] = np.where(has_spectrum, np.array(_SURVEYS)[number // 3 % len(_SURVEYS)], "")
    table["training"] = has_spectrum & (number % 2 == 0)
    table["kfold"] = np.where(table["training"], number % 10, -1)
    return table
