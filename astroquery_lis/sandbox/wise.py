"""The WISE coadds of the simulated survey: 342 pixels of 2.75 arcsec a brick, in Vega nanomaggies.

Every brick is observed as a whole in these bands.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import numpy as np
from astropy.io import fits
from scipy.optimize import brentq

from ..survey import bricks, paths
from ..survey.pixel_grids import Box, TangentGrid
from . import render, sky
from .coadds import PRODTYPE, Content, add_brick_cards, add_wcs_cards
from .compression import write_images
from .light import infrared
from .render import Components

_SIZE_PIX = 342
_SCALE_ARCSEC = 2.75
_PSF_FWHM_ARCSEC = {"W1": 6.1, "W2": 6.4, "W3": 6.5, "W4": 12.0}
_PSF_WEIGHTS = (0.9, 0.1)
_PSF_WING_RATIO = 1.8
_EXPOSURES = {"W1": 128, "W2": 128, "W3": 12, "W4": 12}
_EXPOSURES_VARY = 0.06


@cache
def wise_psf_components(band: str) -> Components:
    """Return the Gaussians of the PSF of a WISE band, which includes the pixel."""
    widths = (1.0, _PSF_WING_RATIO)

    def above_half(radius: float) -> float:
        return sum(
            weight / width**2 * (np.exp(-0.5 * (radius / width) ** 2) - 0.5)
            for weight, width in zip(_PSF_WEIGHTS, widths, strict=True)
        )

    core = _PSF_FWHM_ARCSEC[band] / (2 * brentq(above_half, 0.5, 3))
    return tuple((weight, core * w) for weight, w in zip(_PSF_WEIGHTS, widths, strict=True))


def wise_psf_fwhm_arcsec(band: str) -> float:
    """Return the full width at half maximum of the PSF of a WISE band, arcsec."""
    return _PSF_FWHM_ARCSEC[band]


def wise_grid(brick: str) -> TangentGrid:
    """Return the pixel grid of a brick's WISE images."""
    place = bricks.get_brick(brick)
    middle = (_SIZE_PIX - 1) / 2
    return TangentGrid(place.ra_deg, place.dec_deg, middle, middle, _SCALE_ARCSEC / 3600)


def _model(grid: TangentGrid, band: str) -> np.ndarray:
    """Return the noise-free picture, Vega nanomaggies per pixel."""
    # Sampled at the centres of pixels: sigma is 0.9 of them at least, which loses 1e-6 of a flux.
    sources = sky.truth()
    flux = np.asarray(sources[f"flux_{band.lower()}"]) * 10 ** (sky.VEGA_TO_AB[band] / 2.5)
    box = Box(0, _SIZE_PIX, 0, _SIZE_PIX)
    return render.draw(sources, flux, wise_psf_components(band), grid, box)


def _inverse_variance(grid: TangentGrid, band: str) -> np.ndarray:
    """Return the inverse variance of a pixel; a point source has the depth of the catalogue."""
    y, x = np.mgrid[:_SIZE_PIX, :_SIZE_PIX]
    ra, dec = grid.to_sky(x, y)
    usual = _EXPOSURES[band]
    # The waves fit into the circle, so that RA 0 has no seam.
    waves = np.sin(2 * np.pi * ra / 0.1) * np.sin(2 * np.pi * dec / 0.13)
    exposures = np.round(usual * (1 + _EXPOSURES_VARY * waves))
    components = wise_psf_components(band)
    norm = render.sum_of_squares(components) * _SCALE_ARCSEC**2
    depth = infrared(band.lower())["psfdepth"][0] / 10 ** (2 * sky.VEGA_TO_AB[band] / 2.5)
    return depth / norm * exposures / usual


def wise_planes(region: str, brick: str, band: str) -> dict[str, np.ndarray]:
    """Return the WISE images of a brick in one band, by product."""
    grid = wise_grid(brick)
    model = _model(grid, band)
    invvar = _inverse_variance(grid, band)
    # Numbers that the optical bands have not used: theirs are 0 to 3.
    number = 11 + list(sky.VEGA_TO_AB).index(band)
    rng = np.random.default_rng([region == "north", bricks.get_brick(brick).id, number])
    image = model + rng.standard_normal(model.shape) / np.sqrt(invvar)
    planes = {"image": image, "invvar": invvar, "model": model}
    return {name: values.astype(np.float32) for name, values in planes.items()}


def _header(release: str, region: str, product: str, brick: str, band: str) -> fits.Header:
    header = fits.Header()
    header["OBJECT"] = ("SIMULATED", "these pixels are not data")
    header["IMTYPE"] = (product, "legacypipe image type")
    header["PRODTYPE"] = (PRODTYPE.get(product, product), "NOAO image type")
    header["TELESCOP"] = "WISE"
    header["FILTER"] = (band, "WISE band")
    header["MAGZERO"] = (sky.ZERO_POINT, "magnitude zero point")
    header["MAGSYS"] = ("Vega", "this image is in Vega fluxes")
    add_brick_cards(header, release, region, bricks.get_brick(brick))
    add_wcs_cards(header, wise_grid(brick), _SIZE_PIX, _SIZE_PIX)
    header["SCENE"] = (sky.SCENE_VERSION, "version of the simulated scene")
    header["PSFFWHM"] = (wise_psf_fwhm_arcsec(band), "PSF FWHM (arcsec)")
    for number, (weight, width) in enumerate(wise_psf_components(band), start=1):
        header[f"PSFW{number}"] = (weight, "weight of a PSF Gaussian")
        header[f"PSFS{number}"] = (width, "sigma of a PSF Gaussian (arcsec)")
    return header


def wise_files(release: str, region: str, brick: str, band: str) -> Iterator[Content]:
    """Yield the WISE coadds of one band of a brick."""
    for product, plane in wise_planes(region, brick, band).items():
        path = paths.file_path(product, release, region, brick=brick, band=band)
        header, name = _header(release, region, product, brick, band), path.rpartition("/")[2]
        yield (
            path,
            partial(write_images, planes={"": plane}, header=header, product=product, name=name),
        )
