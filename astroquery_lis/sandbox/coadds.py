"""The files of the coadds of a simulated brick: names, headers and pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import BinaryIO

import numpy as np
from astropy.io import fits

from ..survey import bricks, paths, releases
from ..survey.bricks import Brick
from ..survey.pixel_grids import Box, TangentGrid
from . import render, sky
from .compression import write_images
from .planes import BrickScene

# A path below the root, and what fills the file.
Content = tuple[str, Callable[[BinaryIO], object]]

PRODTYPE = {"invvar": "wtmap", "nexp": "expmap", "depth": "psfdepth"}
_FILTER = {
    "g": "g DECam SDSS c0001 4720.0 1520.0",
    "r": "r DECam SDSS c0002 6415.0 1480.0",
    "i": "i DECam SDSS c0003 7835.0 1470.0",
    "z": "z DECam SDSS c0004 9260.0 1520.0",
}
_HEADER_CARDS = 142
_PRODUCTS = tuple(name for name, product in paths.COADD_PRODUCTS.items() if product.per_band)
_OVERLAP_PRODUCTS = ("image", "invvar", "nexp")


def band_products(release: str, region: str, brick: str) -> tuple[str, ...]:
    """Return which products of each band a brick has: few where its region is not the official."""
    number = bricks.parse_brick_name(brick)
    is_official = bool(np.all(bricks.region_of_brick(number, release) == region))
    return _PRODUCTS if is_official else _OVERLAP_PRODUCTS


def band_files(
    release: str, region: str, brick: str, band: str, products: Iterable[str]
) -> Iterator[Content]:
    """Yield the coadds of one band of a brick."""
    yield from _band_files(BrickScene(release, region, brick), band, products)


def _band_files(scene: BrickScene, band: str, products: Iterable[str]) -> Iterator[Content]:
    release, region, brick = scene.release, scene.region, scene.brick.name
    for product, plane in scene.band(band, tuple(products)).items():
        path = paths.file_path(product, release, region, brick=brick, band=band)
        header = _header(scene, product, band)
        if product == "blobmodel" and release == "dr9":
            # Not compressed for all its name, as in the survey (DR9 known issues).
            hdu = fits.PrimaryHDU(plane, header)
            yield path, partial(_write_plain, hdu=hdu, windows=scene.windows)
        else:
            name = path.rpartition("/")[2]
            yield (
                path,
                partial(
                    write_images, planes={"": plane}, header=header, product=product, name=name
                ),
            )


def mask_file(release: str, region: str, brick: str) -> Iterator[Content]:
    """Yield the mask bits of a brick."""
    scene = BrickScene(release, region, brick)
    yield _mask_file(scene, releases.get_tree(release, region).bands)


def scene_files(scene: BrickScene, bands: tuple[str, ...]) -> Iterator[Content]:
    """Yield images, inverse variances, exposures and masks of a scene in some bands."""
    for band in bands:
        yield from _band_files(scene, band, _OVERLAP_PRODUCTS)
    yield _mask_file(scene, bands)


def _mask_file(scene: BrickScene, bands: tuple[str, ...]) -> Content:
    planes = scene.masks(bands)
    path = paths.file_path("maskbits", scene.release, scene.region, brick=scene.brick.name)
    header, name = _header(scene, "maskbits", None), path.rpartition("/")[2]
    return path, partial(write_images, planes=planes, header=header, product="maskbits", name=name)


def _write_plain(file: BinaryIO, hdu: fits.PrimaryHDU, windows: list[Box]) -> None:
    """Write an uncompressed image of which only the windows take room on the disk."""
    header = hdu.header.tostring().encode("ascii")
    pixels = hdu.data.astype(">f4")
    padding = -pixels.nbytes % 2880
    file.write(header)
    file.truncate(len(header) + pixels.nbytes + padding)
    row_bytes = pixels.shape[1] * pixels.itemsize
    for window in windows:
        for y in range(window.y0, window.y1):
            file.seek(len(header) + y * row_bytes + window.x0 * pixels.itemsize)
            file.write(pixels[y, window.x0 : window.x1].tobytes())


def _header(scene: BrickScene, product: str, band: str | None) -> fits.Header:
    """Return the header of a coadd, as long as the survey's."""
    brick = scene.brick
    header = fits.Header()
    header["OBJECT"] = ("SIMULATED", "these pixels are not data")
    header["IMTYPE"] = (product, "legacypipe image type")
    header["PRODTYPE"] = (PRODTYPE.get(product, product), "NOAO image type")
    unit = paths.COADD_PRODUCTS[product].unit
    if unit:
        header["BUNIT"] = unit
    if band:
        header["FILTER"] = (_FILTER[band], "filter in the camera")
        header["MAGZERO"] = (sky.ZERO_POINT, "magnitude zero point")
    add_brick_cards(header, scene.release, scene.region, brick)
    header["CENTRA"] = (brick.ra_deg, "image centre RA (deg)")
    header["CENTDEC"] = (brick.dec_deg, "image centre Dec (deg)")
    height, width = scene.shape
    corners = ((0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1))
    for number, corner in enumerate(corners, start=1):
        ra, dec = scene.grid.to_sky(*corner)
        header[f"CORN{number}RA"] = (float(ra), "RA of a corner pixel (deg)")
        header[f"CORN{number}DEC"] = (float(dec), "Dec of a corner pixel (deg)")
    add_wcs_cards(header, scene.grid, width, height)
    _add_scene(header, scene)
    while len(header.cards) < _HEADER_CARDS:
        header.add_comment(f"SIMULATED, scene {sky.SCENE_VERSION}")
    return header


def add_brick_cards(header: fits.Header, release: str, region: str, brick: Brick) -> None:
    """Add the cards that say which brick of which release it is."""
    header["SURVEY"] = "DECaLS" if region == "south" else "BASS MzLS"
    header["DRVERSIO"] = (int(release[2:]) * 1000, "survey data release number")
    header["BRICKNAM"] = (brick.name, "brick name RRRr[pm]DDd")
    header["BRICKID"] = (brick.id, "brick id")
    header["RAMIN"] = (brick.ra1_deg, "brick RA min (deg)")
    header["RAMAX"] = (brick.ra2_deg, "brick RA max (deg)")
    header["DECMIN"] = (brick.dec1_deg, "brick Dec min (deg)")
    header["DECMAX"] = (brick.dec2_deg, "brick Dec max (deg)")


def add_wcs_cards(header: fits.Header, grid: TangentGrid, width: int, height: int) -> None:
    """Add the WCS as legacypipe writes it: no RADESYS, no CUNIT."""
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = grid.ra_deg, grid.dec_deg
    header["CRPIX1"], header["CRPIX2"] = grid.x_ref + 1, grid.y_ref + 1
    header["CD1_1"], header["CD1_2"] = -grid.scale_deg, 0.0
    header["CD2_1"], header["CD2_2"] = 0.0, grid.scale_deg
    header["IMAGEW"], header["IMAGEH"] = float(width), float(height)
    header["EQUINOX"] = 2000.0


def _add_scene(header: fits.Header, scene: BrickScene) -> None:
    """Say how the pixels were made, instead of the survey's list of software."""
    header["SCENE"] = (sky.SCENE_VERSION, "version of the simulated scene")
    header["NSOURCE"] = (len(scene.sources), "sources in the whole scene")
    header["SATLEVEL"] = (sky.SATURATION, "saturation (nanomaggy/pixel)")
    header["POISSON"] = (sky.POISSON_NMGY, "variance per source flux (nanomaggy)")
    for letter, sigma in sky.NOISE_SIGMA.items():
        name = letter.upper()
        header[f"NOISE_{name}"] = (sigma, "noise of one exposure (nanomaggy/pixel)")
        header[f"FWHM_{name}"] = (render.psf_fwhm_arcsec(letter), "PSF FWHM (arcsec)")
        for number, (weight, width) in enumerate(render.psf_components(letter), start=1):
            header[f"PSFW{number}_{name}"] = (weight, "weight of a PSF Gaussian")
            header[f"PSFS{number}_{name}"] = (width, "sigma of a PSF Gaussian (arcsec)")
    for number, (place, (ra, dec)) in enumerate(sky.POSITIONS_DEG.items(), start=1):
        header[f"PLACE{number:02d}"] = (place, "a named place of the scene")
        header[f"PLRA{number:02d}"] = (ra, "its RA (deg)")
        header[f"PLDEC{number:02d}"] = (dec, "its Dec (deg)")
