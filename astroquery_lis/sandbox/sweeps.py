"""The sweep files of the simulated survey, and the photo-z files beside them, row by row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from astropy.io import fits

from ..survey import paths
from . import catalog
from .coadds import Content
from .measurements import tractor_columns
from .redshifts import photo_z

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
