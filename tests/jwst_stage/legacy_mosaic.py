"""Mosaics and catalogues in the form that the JWST pipeline gives them, of the embedded sky."""

from functools import cache

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import QTable
from astropy.time import Time
from astropy.wcs import WCS

from astroquery_lis.sandbox.catalog import catalog

EPOCH = Time("2024-09-12T03:04:05", scale="utc")
SCALE_ARCSEC = 0.063


def grid(ra_deg, dec_deg, shape=(500, 500), scale_arcsec=SCALE_ARCSEC, angle_deg=25.0):
    """Return a TAN grid as resample writes it: PC matrix and CDELT."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = ra_deg, dec_deg
    wcs.wcs.crpix = (shape[1] + 1) / 2, (shape[0] + 1) / 2
    wcs.wcs.cdelt = scale_arcsec / 3600, scale_arcsec / 3600
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    wcs.wcs.pc = [[-cos, sin], [sin, cos]]
    wcs.wcs.radesys = "ICRS"
    wcs.array_shape = shape
    return wcs


def sources(epoch=EPOCH):
    """Return the rows of the catalogue that count, with their places at an epoch by astropy."""
    return _sources(epoch.tdb.jyear).copy()


@cache
def _sources(year):
    epoch = Time(year, format="jyear", scale="tdb")
    rows = catalog("dr10")
    rows = rows[rows["resolved"] & (rows["type"] != "DUP")]
    ra, dec = np.array(rows["ra"], float), np.array(rows["dec"], float)
    star = np.char.startswith(np.array(rows["ref_cat"], str), "G")
    then = SkyCoord(
        ra[star] * u.deg,
        dec[star] * u.deg,
        pm_ra_cosdec=np.array(rows["pmra"], float)[star] * u.mas / u.yr,
        pm_dec=np.array(rows["pmdec"], float)[star] * u.mas / u.yr,
        distance=1 * u.kpc,
        obstime=Time(np.array(rows["ref_epoch"], float)[star], format="jyear", scale="tdb"),
    )
    now = then.apply_space_motion(new_obstime=epoch)
    ra[star], dec[star] = now.ra.deg, now.dec.deg
    rows["ra"], rows["dec"] = ra, dec
    rows["is_star"] = star
    return rows


def s_region(wcs):
    """Return the S_REGION of a grid's outer edge."""
    ny, nx = wcs.array_shape
    x, y = np.array([-0.5, nx - 0.5, nx - 0.5, -0.5]), np.array([-0.5, -0.5, ny - 0.5, ny - 0.5])
    corners = np.stack(wcs.pixel_to_world_values(x, y), axis=1)
    return "POLYGON ICRS  " + " ".join(f"{value:.9f}" for value in corners.ravel())


def write_mosaic(folder, name, wcs, rows, *, filter_name="F356W", offset_mas=(0.0, 0.0), seed=1):
    """Write ``<name>_i2d.fits`` and ``<name>_cat.ecsv`` and return both paths.

    The positions of the catalogue are off by ``offset_mas`` (east, north) and scatter by 3 mas; the
    magnitudes are z - 0.5 of the rows, with an error of 0.02 mag.  The first 40 columns of pixels
    hold no data.
    """
    rng = np.random.default_rng(seed)
    ny, nx = wcs.array_shape
    x, y = wcs.world_to_pixel_values(rows["ra"], rows["dec"])
    inside = (x > 45) & (x < nx - 5) & (y > 5) & (y < ny - 5)
    rows, x, y = rows[inside], x[inside], y[inside]
    flux = 10**0.2 * np.array(rows["flux_z"], float)
    mag = 22.5 - 2.5 * np.log10(np.array(rows["flux_z"], float)) - 0.5
    image = rng.normal(0, 0.02, (ny, nx)).astype(np.float32)
    grid_y, grid_x = np.mgrid[:ny, :nx]
    for one, px, py in zip(flux, x, y, strict=True):
        near = tuple(slice(max(0, int(at) - 15), int(at) + 16) for at in (py, px))
        apart2 = (grid_x[near] - px) ** 2 + (grid_y[near] - py) ** 2
        image[near] += one * np.exp(-apart2 / (2 * 2.0**2)) / (2 * np.pi * 2.0**2)
    image[:, :40] = np.nan
    primary = fits.PrimaryHDU()
    primary.header.update(
        TELESCOP="JWST",
        INSTRUME="NIRCAM",
        FILTER=filter_name,
        PUPIL="CLEAR",
        **{"DATE-OBS": EPOCH.utc.isot[:10], "TIME-OBS": EPOCH.utc.isot[11:], "EXPMID": EPOCH.mjd},
    )
    sci = fits.ImageHDU(image, wcs.to_header(), name="SCI")
    sci.header["BUNIT"] = "MJy/sr"
    sci.header["S_REGION"] = s_region(wcs)
    path = folder / f"{name}_i2d.fits"
    fits.HDUList([primary, sci]).writeto(path, overwrite=True)
    east, north = (rng.normal(value, 3.0, len(rows)) / 3.6e6 for value in offset_mas)
    dec = np.array(rows["dec"], float) + north
    ra = np.array(rows["ra"], float) + east / np.cos(np.radians(dec))
    table = QTable()
    table["label"] = np.arange(1, len(rows) + 1)
    table["xcentroid"], table["ycentroid"] = x * u.pix, y * u.pix
    table["sky_centroid"] = SkyCoord(ra % 360, dec, unit="deg")
    table["aper_total_abmag"] = mag + rng.normal(0, 0.02, len(rows))
    table["aper_total_abmag_err"] = np.full(len(rows), 0.02)
    table["is_extended"] = np.array(rows["type"]) != "PSF"
    table["isophotal_abmag"] = mag + rng.normal(0, 0.02, len(rows))
    table["isophotal_abmag_err"] = np.full(len(rows), 0.02)
    table.meta["abvega_offset"] = 2.77
    catalogue = folder / f"{name}_cat.ecsv"
    table.write(catalogue, format="ascii.ecsv", overwrite=True)
    return path, catalogue
