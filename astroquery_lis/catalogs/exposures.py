"""Which exposures lie behind the coadds at a position, from the table of CCDs of its brick."""

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time

from ..exceptions import (
    CoverageWarning,
    NoCoverageError,
    UnexpectedContentError,
    warn,
)
from ..survey.bricks import brick_id, name_of, region_of_brick
from ..survey.paths import file_path
from ..survey.pixel_grids import TangentGrid
from ..survey.releases import get_release, get_tree

__all__ = ["exposure_paths", "exposures_at"]

N_SIGMA = 5

_WCS = ("crval1", "crval2", "crpix1", "crpix2", "cd1_1", "cd1_2", "cd2_1", "cd2_2")

# Taken over as they are, with their units.
_COLUMNS = {
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


def exposure_paths(ra_deg, dec_deg, release, region):
    """Return the path of the table of CCDs for a position."""
    brick = int(brick_id(ra_deg, dec_deg))
    regions = get_release(release).regions
    if region == "auto":
        region = str(region_of_brick(brick, release)) if len(regions) > 1 else regions[0]
    return file_path("ccds-table", release, region, brick=name_of(brick)), region


def exposures_at(ra_deg, dec_deg, bands, release, region, finder, *, on_missing):
    """Return the CCDs that cover a position."""
    path, region = exposure_paths(ra_deg, dec_deg, release, region)
    located = finder.find(path)
    if located is None:
        msg = f"{release} has no exposures there: no {path}."
        if on_missing == "raise":
            raise NoCoverageError(msg)
        warn(msg, CoverageWarning)
        return _table(None, np.empty(0), np.empty(0), np.empty(0, int))
    rows = _read(located)
    x, y = _pixel(rows, ra_deg, dec_deg)
    inside = (x > -0.5) & (x < rows["width"] - 0.5) & (y > -0.5) & (y < rows["height"] - 0.5)
    if bands is not None:
        inside &= np.isin(np.char.strip(rows["filter"].astype(str)), bands)
    chosen = np.flatnonzero(inside)
    order = {band: number for number, band in enumerate("ugrizY")}
    names = [order.get(str(band).strip(), 99) for band in rows["filter"][chosen]]
    chosen = chosen[np.lexsort((rows["expnum"][chosen], rows["mjd_obs"][chosen], names))]
    table = _table(rows, x, y, chosen)
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


def _read(located):
    """Return the rows of a table of CCDs, names in lower case."""
    try:
        with fits.open(located.path, memmap=False) as hdus:
            rows = hdus[1].data
            found = {name.lower(): np.asarray(rows[name]) for name in rows.names}
        for name in ("expnum", "filter", "mjd_obs", *_WCS, "width", "height"):
            found[name]
    except (OSError, EOFError, ValueError, TypeError, IndexError, KeyError) as error:
        msg = f"{located.url} is not a table of CCDs: {error!r}."
        raise UnexpectedContentError(msg, url=located.url, cause=error) from error
    return found


def _pixel(rows, ra_deg, dec_deg):
    """Return the pixel of a position in each CCD, from 0, NaN on the other side of the sky."""
    wcs = {name: rows[name].astype(float) for name in _WCS}
    # A degree per pixel: the grid's pixels are offsets in the tangent plane, x to the west.
    grid = TangentGrid(wcs["crval1"], wcs["crval2"], 0.0, 0.0, 1.0)
    west, north = grid.to_pixel(ra_deg, dec_deg)
    east = -west
    determinant = wcs["cd1_1"] * wcs["cd2_2"] - wcs["cd1_2"] * wcs["cd2_1"]
    with np.errstate(divide="ignore", invalid="ignore"):
        x = (wcs["cd2_2"] * east - wcs["cd1_2"] * north) / determinant
        y = (wcs["cd1_1"] * north - wcs["cd2_1"] * east) / determinant
    return x + wcs["crpix1"] - 1, y + wcs["crpix2"] - 1


def _table(rows, x, y, chosen):
    table = Table()
    if rows is None:
        rows = {name: np.empty(0) for name in (*_COLUMNS, "fwhm", "sig1", "psfnorm", "galnorm")}
        rows |= {name: np.empty(0) for name in _WCS}
        texts = ("camera", "ccdname", "filter", "object", "propid", "image_filename")
        rows |= {name: np.empty(0, "U1") for name in texts}
    for name, unit in _COLUMNS.items():
        if name in rows:
            values = rows[name][chosen]
            if values.dtype.kind in "SU":
                values = np.char.strip(values.astype(str))
            table[name] = values.astype(values.dtype.newbyteorder("="))
            table[name].unit = unit
    if "mjd_obs" in table.colnames:
        dates = Time(np.asarray(table["mjd_obs"], float), format="mjd").isot
        table["date_obs"] = np.asarray(dates, dtype="U23")
    scale = np.sqrt(
        np.abs(rows["cd1_1"] * rows["cd2_2"] - rows["cd1_2"] * rows["cd2_1"])[chosen].astype(float)
    )
    if "fwhm" in rows:
        table["seeing"] = rows["fwhm"][chosen].astype(float) * scale * 3600
        table["seeing"].unit = u.arcsec
    for name, norm in (("psfdepth", "psfnorm"), ("galdepth", "galnorm")):
        if norm in rows and "sig1" in rows:
            with np.errstate(divide="ignore", invalid="ignore"):
                limit = N_SIGMA * rows["sig1"][chosen].astype(float) / rows[norm][chosen]
                table[name] = 22.5 - 2.5 * np.log10(limit)
            table[name].unit = u.mag
    table["x"], table["y"] = x[chosen], y[chosen]
    table["x"].unit = table["y"].unit = u.pix
    return table
