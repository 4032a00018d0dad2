"""The WISE coadds of the simulated survey: 342 pixels of 2.75 arcsec a brick, in Vega nanomaggies.

They are a step of their own after `.tree.build`, under a key of their own, so that a change of them
does not make the optical images anew.  Every brick is observed as a whole in these bands.
"""

import hashlib
import zlib
from functools import cache
from types import MappingProxyType

import numpy as np
from astropy.io import fits
from scipy.optimize import brentq

from ..survey import bricks, paths
from ..survey.pixel_grids import TangentGrid
from . import render, sky
from .light import infrared
from .tractor_files import _write_whole, add_once
from .tree import CODECS

__all__ = [
    "VEGA_TO_AB",
    "add_wise",
    "wise_grid",
    "wise_planes",
    "wise_psf_components",
    "wise_psf_fwhm_arcsec",
]

VEGA_TO_AB = MappingProxyType({"W1": 2.699, "W2": 3.339, "W3": 5.174, "W4": 6.620})
"""What is added to a Vega magnitude to make it AB."""

_SIZE_PIX = 342
_SCALE_ARCSEC = 2.75
_PSF_FWHM_ARCSEC = {"W1": 6.1, "W2": 6.4, "W3": 6.5, "W4": 12.0}
_PSF_WEIGHTS = (0.9, 0.1)
_PSF_WING_RATIO = 1.8
_EXPOSURES = {"W1": 128, "W2": 128, "W3": 12, "W4": 12}
_EXPOSURES_VARY = 0.06
_PRODTYPE = {"invvar": "wtmap"}
_SOURCES = ("sky.py", "render.py", "light.py", "tree.py", "wise.py")
_MARKER = ".wise-{}"


@cache
def wise_psf_components(band):
    """Return the Gaussians of the PSF of a WISE band, which includes the pixel.

    Parameters
    ----------
    band : str
        ``'W1'`` to ``'W4'``.

    Returns
    -------
    tuple of (float, float)
        Weight (they add up to 1) and sigma in arcsec.
    """
    widths = (1.0, _PSF_WING_RATIO)

    def above_half(radius):
        return sum(
            weight / width**2 * (np.exp(-0.5 * (radius / width) ** 2) - 0.5)
            for weight, width in zip(_PSF_WEIGHTS, widths, strict=True)
        )

    core = _PSF_FWHM_ARCSEC[band] / (2 * brentq(above_half, 0.5, 3))
    return tuple((weight, core * w) for weight, w in zip(_PSF_WEIGHTS, widths, strict=True))


def wise_psf_fwhm_arcsec(band):
    """Return the full width at half maximum of the PSF of a WISE band, arcsec.

    Parameters
    ----------
    band : str
        As for `wise_psf_components`.

    Returns
    -------
    float
    """
    return _PSF_FWHM_ARCSEC[band]


def wise_grid(brick):
    """Return the pixel grid of a brick's WISE images.

    Parameters
    ----------
    brick : str
        Brick name.

    Returns
    -------
    `~astroquery_lis.survey.pixel_grids.TangentGrid`
    """
    found = bricks.get_brick(brick)
    middle = (_SIZE_PIX - 1) / 2
    return TangentGrid(found.ra_deg, found.dec_deg, middle, middle, _SCALE_ARCSEC / 3600)


def _profiles(grid):
    """Return the sources that can reach a grid, before the PSF.

    Returns
    -------
    list of (int, float, float, list of (float, `~numpy.ndarray`))
        Row of the truth table, x and y, then weight and covariance (square pixels) of Gaussians.
    """
    sources = sky.truth()
    ra, dec = np.asarray(sources["ra"]), np.asarray(sources["dec"])
    x, y = grid.to_pixel(ra, dec)
    # The largest galaxy reaches 60 pixels from its centre, a star of W4 less than 19.
    margin = 65
    near = (np.abs(x - grid.x_ref) < grid.x_ref + margin) & (
        np.abs(y - grid.y_ref) < grid.y_ref + margin
    )
    jacobians = render._pixels_per_arcsec(grid, ra, dec)
    found = []
    for row in np.flatnonzero(near):
        parts = [(1.0, np.zeros((2, 2)))]
        if sources["type"][row] != "PSF":
            spread = render.ellipse_matrix(sources["shape_e1"][row], sources["shape_e2"][row])
            spread = jacobians[row] @ spread * float(sources["shape_r"][row])
            index = float(sources["sersic"][row])
            parts = [(w, s**2 * spread @ spread.T) for w, s in render.sersic_components(index)]
        found.append((row, x[row], y[row], parts))
    return found


def _model(profiles, band):
    """Return the noise-free picture, Vega nanomaggies per pixel."""
    # Sampled at the centres of pixels: sigma is 0.9 of them at least, which loses 1e-6 of a flux.
    image = np.zeros((_SIZE_PIX, _SIZE_PIX))
    to_vega = 10 ** (VEGA_TO_AB[band] / 2.5)
    flux = np.asarray(sky.truth()[f"flux_{band.lower()}"], dtype=float) * to_vega
    blur = [(w, (s / _SCALE_ARCSEC) ** 2 * np.eye(2)) for w, s in wise_psf_components(band)]
    for row, x, y, parts in profiles:
        for weight, covariance in parts:
            for psf_weight, psf_covariance in blur:
                light = flux[row] * weight * psf_weight
                render._add_gaussian(image, x, y, light, covariance + psf_covariance, 0, 0)
    return image


def _inverse_variance(grid, band):
    """Return the inverse variance of a pixel; a point source has the depth of the catalogue."""
    y, x = np.mgrid[:_SIZE_PIX, :_SIZE_PIX]
    ra, dec = grid.to_sky(x, y)
    usual = _EXPOSURES[band]
    # The waves fit into the circle, so that RA 0 has no seam.
    waves = np.sin(2 * np.pi * ra / 0.1) * np.sin(2 * np.pi * dec / 0.13)
    exposures = np.round(usual * (1 + _EXPOSURES_VARY * waves))
    components = wise_psf_components(band)
    norm = render._sum_of_squares(components) * _SCALE_ARCSEC**2
    depth = infrared(band.lower())["psfdepth"][0] / 10 ** (2 * VEGA_TO_AB[band] / 2.5)
    return depth / norm * exposures / usual


def wise_planes(region, brick):
    """Return every WISE image of a brick.

    Parameters
    ----------
    region : str
        The noise differs between ``'north'`` and ``'south'``.
    brick : str
        Brick name.

    Returns
    -------
    dict of (str, str) to `~numpy.ndarray`
        By product and band; float32, shape (342, 342), Vega nanomaggies (``invvar``: to the -2).
    """
    grid = wise_grid(brick)
    profiles = _profiles(grid)
    planes = {}
    for number, band in enumerate(VEGA_TO_AB, start=1):
        model = _model(profiles, band)
        invvar = _inverse_variance(grid, band)
        # Numbers that the optical bands have not used: theirs are 0 to 3.
        rng = np.random.default_rng([region == "north", bricks.get_brick(brick).id, 10 + number])
        image = model + rng.standard_normal(model.shape) / np.sqrt(invvar)
        made = {"image": image, "invvar": invvar, "model": model}
        planes |= {(name, band): values.astype(np.float32) for name, values in made.items()}
    return planes


def _header(release, region, product, brick, band):
    found = bricks.get_brick(brick)
    header = fits.Header()
    header["OBJECT"] = ("SIMULATED", "these pixels are not data")
    header["IMTYPE"] = (product, "legacypipe image type")
    header["PRODTYPE"] = (_PRODTYPE.get(product, product), "NOAO image type")
    header["TELESCOP"] = "WISE"
    header["FILTER"] = (band, "WISE band")
    header["MAGZERO"] = (22.5, "magnitude zero point")
    header["MAGSYS"] = ("Vega", "this image is in Vega fluxes")
    header["SURVEY"] = "DECaLS" if region == "south" else "BASS MzLS"
    header["DRVERSIO"] = (int(release[2:]) * 1000, "survey data release number")
    header["BRICKNAM"] = (found.name, "brick name RRRr[pm]DDd")
    header["BRICKID"] = (found.id, "brick id")
    header["RAMIN"] = (found.ra1_deg, "brick RA min (deg)")
    header["RAMAX"] = (found.ra2_deg, "brick RA max (deg)")
    header["DECMIN"] = (found.dec1_deg, "brick Dec min (deg)")
    header["DECMAX"] = (found.dec2_deg, "brick Dec max (deg)")
    grid = wise_grid(brick)
    # As legacypipe writes it: no RADESYS, no CUNIT.
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = grid.ra_deg, grid.dec_deg
    header["CRPIX1"], header["CRPIX2"] = grid.x_ref + 1, grid.y_ref + 1
    header["CD1_1"], header["CD1_2"] = -grid.scale_deg, 0.0
    header["CD2_1"], header["CD2_2"] = 0.0, grid.scale_deg
    header["IMAGEW"], header["IMAGEH"] = (float(_SIZE_PIX),) * 2
    header["EQUINOX"] = 2000.0
    header["SCENE"] = (sky.SCENE_VERSION, "version of the simulated scene")
    header["PSFFWHM"] = (wise_psf_fwhm_arcsec(band), "PSF FWHM (arcsec)")
    for number, (weight, width) in enumerate(wise_psf_components(band), start=1):
        header[f"PSFW{number}"] = (weight, "weight of a PSF Gaussian")
        header[f"PSFS{number}"] = (width, "sigma of a PSF Gaussian (arcsec)")
    return header


def add_wise(root):
    """Write the WISE coadds of every brick into a tree, unless they are there.

    Every file appears whole or not at all; several processes may do it at once.

    Parameters
    ----------
    root : `~pathlib.Path`
        Folder of the tree.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    add_once(root, _MARKER, _SOURCES, _write_all)


def _write_all(root):
    for (release, region), names in sky.BRICKS.items():
        for name in names:
            _write_brick(root, release, region, name)


def _write_brick(root, release, region, brick):
    """Write a brick's files beside its other coadds, and their lines into the checksums."""
    listed = root / paths.file_path("coadd-checksums", release, region, brick=brick)
    listed.parent.mkdir(parents=True, exist_ok=True)
    lines = {}
    if listed.exists():
        lines = {line.split()[1]: line for line in listed.read_text().splitlines()}
    for (product, band), plane in wise_planes(region, brick).items():
        path = root / paths.file_path(product, release, region, brick=brick, band=band)
        # Any seed from 1 to 10000 that a file keeps from build to build and does not share.
        seed = zlib.crc32(path.name.encode()) % 10000 + 1
        hdu = fits.CompImageHDU(
            plane,
            _header(release, region, product, brick, band),
            tile_shape=(100, 100),
            dither_seed=seed,
            **CODECS[product],
        )
        _write_whole(path, fits.HDUList([fits.PrimaryHDU(), hdu]).writeto)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        lines[path.name] = f"{digest}  {path.name}"
    text = "".join(f"{lines[name]}\n" for name in sorted(lines))
    _write_whole(listed, lambda file: file.write(text.encode()))
