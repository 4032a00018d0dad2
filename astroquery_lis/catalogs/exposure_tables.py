"""Which exposures lie behind the coadds at a position, from the table of CCDs of its brick."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from astropy import units as u
from astropy.table import Table
from astropy.time import Time

from ..exceptions import CoverageWarning, NoCoverageError, warn
from ..io.checks import reading
from ..io.finder import FileFinder, LocatedFile
from ..survey.bricks import brick_id, name_of
from ..survey.paths import file_path, tree_of_brick
from ..survey.pixel_grids import TangentGrid
from ..survey.releases import get_release, get_tree
from .brick_tables import require_unlisted
from .table_file import open_rows

_RANKS = {band: rank for rank, band in enumerate("ugrizY")}

N_SIGMA = 5

_WCS = ("crval1", "crval2", "crpix1", "crpix2", "cd1_1", "cd1_2", "cd2_1", "cd2_2")

# Taken over as they are, with their units.
CCD_UNITS = {
    "camera": None,
    "expnum": None,
    "ccdname": None,
    "filter": None,
    "object": None,
    "propid": None,
    "ra": u.deg,
    "dec": u.deg,
    "mjd_obs": u.day,
    "exptime": u.s,
    "airmass": None,
    "ccdzpt": u.mag,
    "zpt": u.mag,
    "ccdskysb": u.mag / u.arcsec**2,
    "ccd_cuts": None,
    "image_filename": None,
    "image_hdu": None,
}

_COLUMNS = (*CCD_UNITS, "fwhm", "sig1", "psfnorm", "galnorm", "width", "height", *_WCS)
_WHAT = "a table of CCDs"


def exposure_path(ra_deg: float, dec_deg: float, release: str, region: str) -> tuple[str, str]:
    """Return the path of the table of CCDs for a position, and the region it is of."""
    brick = int(brick_id(ra_deg, dec_deg))
    region = tree_of_brick(get_release(release), region, brick).region
    return file_path("ccds-table", release, region, brick=name_of(brick)), region


def exposures_at(
    ra_deg: float,
    dec_deg: float,
    bands: Sequence[str] | None,
    release: str,
    region: str,
    finder: FileFinder,
    *,
    on_missing: str,
) -> Table:
    """Return the CCDs that cover a position."""
    path, region = exposure_path(ra_deg, dec_deg, release, region)
    located = finder.find(path)
    if located is None:
        brick = int(brick_id(ra_deg, dec_deg))
        require_unlisted(finder.folders, release, region, [brick], path)
        msg = f"{release} has no exposures there: no {path}."
        if on_missing == "raise":
            raise NoCoverageError(msg)
        warn(msg, CoverageWarning)
        return _table(_no_rows(), np.empty(0), np.empty(0))
    table = finder.read(located, lambda file: _covering(file, ra_deg, dec_deg, bands))
    table.meta.update(
        {
            "survey": "DESI Legacy Imaging Surveys",
            "release": get_tree(release, region).release,
            "region": region,
            "ra": ra_deg,
            "dec": dec_deg,
            "file": located.url,
        }
    )
    return table


def _covering(
    located: LocatedFile, ra_deg: float, dec_deg: float, bands: Sequence[str] | None
) -> Table:
    """Return the CCDs of a table that cover a position."""
    with reading(located.url, f"read as {_WHAT}"):
        rows = _read(located)
        x, y = _pixel(rows, ra_deg, dec_deg)
        inside = (x > -0.5) & (x < rows["width"] - 0.5) & (y > -0.5) & (y < rows["height"] - 0.5)
        if bands is not None:
            inside &= np.isin(rows["filter"], bands)
        picked = np.flatnonzero(inside)
        ranks = [_RANKS.get(band, len(_RANKS)) for band in rows["filter"][picked].tolist()]
        keys = rows["expnum"][picked], rows["mjd_obs"][picked], np.array(ranks)
        picked = picked[np.lexsort(keys)]
        return _table({name: rows[name][picked] for name in rows}, x[picked], y[picked])


def _read(located: LocatedFile) -> dict[str, np.ndarray]:
    """Return the rows of a table of CCDs, names in lower case."""
    rows = open_rows(located.path, located.url, what=_WHAT).read(slice(None), _COLUMNS)
    lacking = {"expnum", "filter", "mjd_obs", *_WCS, "width", "height"} - rows.keys()
    if lacking:
        msg = f"it has no {', '.join(sorted(lacking))}"
        raise ValueError(msg)
    return rows


def _pixel(
    rows: dict[str, np.ndarray], ra_deg: float, dec_deg: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixel of a position in each CCD, from 0, NaN on the other side of the sky."""
    wcs = {name: rows[name].astype(float) for name in _WCS}
    # A degree per pixel: the grid's pixels are offsets in the tangent plane, x to the west.
    grid = TangentGrid(wcs["crval1"], wcs["crval2"], 0.0, 0.0, 1.0)  # type: ignore[arg-type]
    west, north = grid.to_pixel(ra_deg, dec_deg)
    east = -west
    determinant = wcs["cd1_1"] * wcs["cd2_2"] - wcs["cd1_2"] * wcs["cd2_1"]
    with np.errstate(divide="ignore", invalid="ignore"):
        x = (wcs["cd2_2"] * east - wcs["cd1_2"] * north) / determinant
        y = (wcs["cd1_1"] * north - wcs["cd2_1"] * east) / determinant
    return x + wcs["crpix1"] - 1, y + wcs["crpix2"] - 1


def _no_rows() -> dict[str, np.ndarray]:
    """Return columns of CCDs without rows."""
    texts = ("camera", "ccdname", "filter", "object", "propid", "image_filename")
    return {name: np.empty(0, "U1" if name in texts else float) for name in _COLUMNS}


def _table(rows: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> Table:
    """Return rows of CCDs with the names, units and derived columns that users get."""
    table = Table()
    for name, unit in CCD_UNITS.items():
        if name in rows:
            table[name] = rows[name]
            table[name].unit = unit
    dates = Time(np.asarray(rows["mjd_obs"], float), format="mjd").isot
    table["date_obs"] = np.asarray(dates, dtype="U23")
    determinant = rows["cd1_1"] * rows["cd2_2"] - rows["cd1_2"] * rows["cd2_1"]
    if "fwhm" in rows:
        table["seeing"] = rows["fwhm"] * np.sqrt(np.abs(determinant).astype(float)) * 3600
        table["seeing"].unit = u.arcsec
    for name, norm in (("psfdepth", "psfnorm"), ("galdepth", "galnorm")):
        if norm in rows and "sig1" in rows:
            with np.errstate(divide="ignore", invalid="ignore"):
                limit = N_SIGMA * rows["sig1"].astype(float) / rows[norm]
                table[name] = 22.5 - 2.5 * np.log10(limit)
            table[name].unit = u.mag
    table["x"], table["y"] = x, y
    table["x"].unit = table["y"].unit = u.pix
    return table
