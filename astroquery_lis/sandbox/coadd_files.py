"""The files of the coadds of a simulated brick: names, headers and compressed pixels.

The WISE coadds have 342 pixels of 2.75 arcsec a side, in Vega nanomaggies; every brick is observed
as a whole in these bands.

astropy compresses, and so the columns of the tables come in another order than the survey's.  A
tile that comes again is compressed once, and none carries the time at which it was made: the same
pixels are the same bytes.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import BinaryIO

import numpy as np
from astropy.io import fits
from scipy.optimize import brentq

from .._locks import decoding
from ..survey import bricks, paths, releases
from ..survey.bricks import Brick
from ..survey.pixel_grids import Box, TangentGrid
from . import sky
from .brick_pixels import BrickScene
from .measurements import infrared
from .sky import Components

# A path below the root, and what fills the file.
Content = tuple[str, Callable[[BinaryIO], object]]

_PRODTYPE = {"invvar": "wtmap", "nexp": "expmap", "depth": "psfdepth"}
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
            yield _compressed(path, {"": plane}, header, product)


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
    path = paths.file_path("maskbits", scene.release, scene.region, brick=scene.brick.name)
    return _compressed(path, scene.masks(bands), _header(scene, "maskbits", None), "maskbits")


def _compressed(
    path: str, planes: dict[str, np.ndarray], header: fits.Header, product: str
) -> Content:
    name = path.rpartition("/")[2]
    return path, partial(write_images, planes=planes, header=header, product=product, name=name)


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
    header = _first_cards(product)
    unit = paths.COADD_PRODUCTS[product].unit
    if unit:
        header["BUNIT"] = unit
    if band:
        header["FILTER"] = (_FILTER[band], "filter in the camera")
        header["MAGZERO"] = (sky.ZERO_POINT, "magnitude zero point")
    _add_brick_cards(header, scene.release, scene.region, brick)
    header["CENTRA"] = (brick.ra_deg, "image centre RA (deg)")
    header["CENTDEC"] = (brick.dec_deg, "image centre Dec (deg)")
    height, width = scene.shape
    corners = ((0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1))
    for number, corner in enumerate(corners, start=1):
        ra, dec = scene.grid.to_sky(*corner)
        header[f"CORN{number}RA"] = (float(ra), "RA of a corner pixel (deg)")
        header[f"CORN{number}DEC"] = (float(dec), "Dec of a corner pixel (deg)")
    _add_wcs_cards(header, scene.grid, width, height)
    _add_scene(header, scene)
    while len(header.cards) < _HEADER_CARDS:
        header.add_comment(f"SIMULATED, scene {sky.SCENE_VERSION}")
    return header


def _first_cards(product: str) -> fits.Header:
    header = fits.Header()
    header["OBJECT"] = ("SIMULATED", "these pixels are not data")
    header["IMTYPE"] = (product, "legacypipe image type")
    header["PRODTYPE"] = (_PRODTYPE.get(product, product), "NOAO image type")
    return header


def _add_brick_cards(header: fits.Header, release: str, region: str, brick: Brick) -> None:
    """Add the cards that say which brick of which release it is."""
    header["SURVEY"] = "DECaLS" if region == "south" else "BASS MzLS"
    header["DRVERSIO"] = (int(release[2:]) * 1000, "survey data release number")
    header["BRICKNAM"] = (brick.name, "brick name RRRr[pm]DDd")
    header["BRICKID"] = (brick.id, "brick id")
    header["RAMIN"] = (brick.ra1_deg, "brick RA min (deg)")
    header["RAMAX"] = (brick.ra2_deg, "brick RA max (deg)")
    header["DECMIN"] = (brick.dec1_deg, "brick Dec min (deg)")
    header["DECMAX"] = (brick.dec2_deg, "brick Dec max (deg)")


def _add_wcs_cards(header: fits.Header, grid: TangentGrid, width: int, height: int) -> None:
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
        header[f"FWHM_{name}"] = (sky.psf_fwhm_arcsec(letter), "PSF FWHM (arcsec)")
        for number, (weight, width) in enumerate(sky.psf_components(letter), start=1):
            header[f"PSFW{number}_{name}"] = (weight, "weight of a PSF Gaussian")
            header[f"PSFS{number}_{name}"] = (width, "sigma of a PSF Gaussian (arcsec)")
    for number, (place, (ra, dec)) in enumerate(sky.POSITIONS_DEG.items(), start=1):
        header[f"PLACE{number:02d}"] = (place, "a named place of the scene")
        header[f"PLRA{number:02d}"] = (ra, "its RA (deg)")
        header[f"PLDEC{number:02d}"] = (dec, "its Dec (deg)")


_WISE_PIX = 342
_WISE_SCALE_ARCSEC = 2.75
WISE_FWHM_ARCSEC = {"W1": 6.1, "W2": 6.4, "W3": 6.5, "W4": 12.0}
_WISE_PSF_WEIGHTS = (0.9, 0.1)
_WISE_WING_RATIO = 1.8
_WISE_EXPOSURES = {"W1": 128, "W2": 128, "W3": 12, "W4": 12}
_EXPOSURES_VARY = 0.06


@cache
def wise_psf_components(band: str) -> Components:
    """Return the Gaussians of the PSF of a WISE band, which includes the pixel."""
    widths = (1.0, _WISE_WING_RATIO)

    def above_half(radius: float) -> float:
        return sum(
            weight / width**2 * (np.exp(-0.5 * (radius / width) ** 2) - 0.5)
            for weight, width in zip(_WISE_PSF_WEIGHTS, widths, strict=True)
        )

    core = WISE_FWHM_ARCSEC[band] / (2 * brentq(above_half, 0.5, 3))
    return tuple((weight, core * w) for weight, w in zip(_WISE_PSF_WEIGHTS, widths, strict=True))


def wise_grid(brick: str) -> TangentGrid:
    """Return the pixel grid of a brick's WISE images."""
    place = bricks.get_brick(brick)
    middle = (_WISE_PIX - 1) / 2
    return TangentGrid(place.ra_deg, place.dec_deg, middle, middle, _WISE_SCALE_ARCSEC / 3600)


def _inverse_variance(grid: TangentGrid, band: str) -> np.ndarray:
    """Return the inverse variance of a pixel; a point source has the depth of the catalogue."""
    y, x = np.mgrid[:_WISE_PIX, :_WISE_PIX]
    ra, dec = grid.to_sky(x, y)
    usual = _WISE_EXPOSURES[band]
    # The waves fit into the circle, so that RA 0 has no seam.
    waves = np.sin(2 * np.pi * ra / 0.1) * np.sin(2 * np.pi * dec / 0.13)
    exposures = np.round(usual * (1 + _EXPOSURES_VARY * waves))
    components = wise_psf_components(band)
    norm = sky.sum_of_squares(components) * _WISE_SCALE_ARCSEC**2
    depth = infrared(band.lower())["psfdepth"][0] / 10 ** (2 * sky.VEGA_TO_AB[band] / 2.5)
    return depth / norm * exposures / usual


def _wise_planes(region: str, brick: str, band: str) -> dict[str, np.ndarray]:
    """Return the WISE images of a brick in one band, Vega nanomaggies, by product."""
    grid, sources = wise_grid(brick), sky.truth()
    # Sampled at the centres of pixels: sigma is 0.9 of them at least, which loses 1e-6 of a flux.
    flux = np.asarray(sources[f"flux_{band.lower()}"]) * 10 ** (sky.VEGA_TO_AB[band] / 2.5)
    box = Box(0, _WISE_PIX, 0, _WISE_PIX)
    model = sky.draw(sources, flux, wise_psf_components(band), grid, box)
    invvar = _inverse_variance(grid, band)
    # Numbers that the optical bands have not used: theirs are 0 to 3.
    number = 11 + list(sky.VEGA_TO_AB).index(band)
    rng = np.random.default_rng([region == "north", bricks.get_brick(brick).id, number])
    image = model + rng.standard_normal(model.shape) / np.sqrt(invvar)
    planes = {"image": image, "invvar": invvar, "model": model}
    return {name: values.astype(np.float32) for name, values in planes.items()}


def _wise_header(release: str, region: str, product: str, brick: str, band: str) -> fits.Header:
    header = _first_cards(product)
    header["TELESCOP"] = "WISE"
    header["FILTER"] = (band, "WISE band")
    header["MAGZERO"] = (sky.ZERO_POINT, "magnitude zero point")
    header["MAGSYS"] = ("Vega", "this image is in Vega fluxes")
    _add_brick_cards(header, release, region, bricks.get_brick(brick))
    _add_wcs_cards(header, wise_grid(brick), _WISE_PIX, _WISE_PIX)
    header["SCENE"] = (sky.SCENE_VERSION, "version of the simulated scene")
    header["PSFFWHM"] = (WISE_FWHM_ARCSEC[band], "PSF FWHM (arcsec)")
    for number, (weight, width) in enumerate(wise_psf_components(band), start=1):
        header[f"PSFW{number}"] = (weight, "weight of a PSF Gaussian")
        header[f"PSFS{number}"] = (width, "sigma of a PSF Gaussian (arcsec)")
    return header


def wise_files(release: str, region: str, brick: str, band: str) -> Iterator[Content]:
    """Yield the WISE coadds of one band of a brick."""
    for product, plane in _wise_planes(region, brick, band).items():
        path = paths.file_path(product, release, region, brick=brick, band=band)
        header = _wise_header(release, region, product, brick, band)
        yield _compressed(path, {"": plane}, header, product)


_RICE = {"compression_type": "RICE_1"}
_IMAGE = {**_RICE, "quantize_method": 2, "quantize_level": -1e-4}
_LOSSLESS = {"compression_type": "GZIP_1", "quantize_level": 0}
_INTEGER = {"compression_type": "HCOMPRESS_1", "hcomp_scale": 0}
# How each product is compressed: legacypipe's ``survey.get_compression_kwargs``.
CODECS = {
    "image": _IMAGE,
    "model": _IMAGE,
    "blobmodel": _IMAGE,
    "invvar": {**_RICE, "quantize_method": -1, "quantize_level": 16},
    "chi2": {**_RICE, "quantize_method": -1, "quantize_level": -0.1},
    "depth": _LOSSLESS,
    "galdepth": _LOSSLESS,
    "psfsize": _LOSSLESS,
    "nexp": _INTEGER,
    "maskbits": _INTEGER,
}

TILE_PIX = 100
_SEEDS = 10000
_GZIP_MAGIC = b"\x1f\x8b\x08"
_BLOCK_BYTES = 2880


def write_images(
    file: BinaryIO, planes: dict[str, np.ndarray], header: fits.Header, product: str, name: str
) -> None:
    """Write images, by the names of their extensions, into the file called ``name``."""
    fits.HDUList([fits.PrimaryHDU()]).writeto(file)
    for extension, plane in planes.items():
        file.write(_extension(plane, header, product, name, extension))


def _extension(
    data: np.ndarray, header: fits.Header, product: str, name: str, extension: str
) -> bytes:
    # Any seed from 1 to 10000 that a file keeps from build to build and does not share.
    seed = zlib.crc32(name.encode()) % _SEEDS + 1
    if any(size % TILE_PIX for size in data.shape):
        stack, index, shift = data, np.arange(np.prod(-(-np.array(data.shape) // TILE_PIX))), 0
    else:
        stack, index, shift = _different_tiles(data, product)
    hdu = fits.CompImageHDU(
        stack,
        header,
        name=extension or None,
        tile_shape=(TILE_PIX, TILE_PIX),
        dither_seed=(seed - 1 + shift) % _SEEDS + 1,
        **CODECS[product],
    )
    stream = io.BytesIO()
    with decoding(hdu):
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(stream)
    return _with_all_tiles(stream, index, data.shape, seed)


def _different_tiles(data: np.ndarray, product: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the tiles to compress, which of them each tile is, and the number of the first."""
    rows, columns = (size // TILE_PIX for size in data.shape)
    parts = data.reshape(rows, TILE_PIX, columns, TILE_PIX).swapaxes(1, 2)
    tiles = parts.reshape(rows * columns, TILE_PIX, TILE_PIX)
    if CODECS[product] is _IMAGE:
        # What is added before rounding depends on a tile's number, but in blank tiles.
        filled = np.flatnonzero(tiles.any(axis=(1, 2)))
        first, last = (filled[0], filled[-1] + 1) if len(filled) else (0, 1)
        blank = int(first > 0 or last < len(tiles))
        stack = np.concatenate([tiles[first:last], np.zeros_like(tiles[:blank])])
        numbers = np.arange(len(tiles))
        index = np.where((numbers < first) | (numbers >= last), last - first, numbers - first)
        return stack.reshape(-1, TILE_PIX), index, int(first)
    places: dict[bytes, int] = {}
    index = np.array([places.setdefault(tile.tobytes(), len(places)) for tile in tiles])
    _, first_of = np.unique(index, return_index=True)
    return tiles[first_of].reshape(-1, TILE_PIX), index, 0


def _with_all_tiles(
    stream: io.BytesIO, index: np.ndarray, shape: tuple[int, ...], seed: int
) -> bytes:
    """Return a compressed image with tiles of the one in a stream: those that ``index`` counts."""
    content = stream.getvalue()
    with fits.open(io.BytesIO(content), disable_image_compression=True) as hdul:
        header, kind = hdul[1].header, hdul[1].columns.dtype.newbyteorder(">")
        start = hdul[1].fileinfo()["datLoc"]
    table = np.frombuffer(content, kind, header["NAXIS2"], start)
    heap = content[start + table.nbytes :]
    columns = [name for name in kind.names if name.endswith("COMPRESSED_DATA")]
    # A tile is in one of the columns; in the others its length is 0.
    places = np.sum([table[name] for name in columns], axis=0)
    tiles = [_without_clock(heap[place : place + length]) for length, place in places]
    rows = table[index]
    lengths = places[index, 0]
    for name in columns:
        rows[name][:, 1] = np.where(rows[name][:, 0] > 0, np.cumsum(lengths) - lengths, 0)
    header["ZNAXIS2"], header["ZNAXIS1"] = shape
    header["NAXIS2"], header["PCOUNT"] = len(rows), int(lengths.sum())
    if "ZDITHER0" in header:
        header["ZDITHER0"] = seed
    body = rows.tobytes() + b"".join(tiles[number] for number in index)
    return header.tostring().encode("ascii") + body + bytes(-len(body) % _BLOCK_BYTES)


def _without_clock(tile: bytes) -> bytes:
    return tile[:4] + bytes(4) + tile[8:] if tile.startswith(_GZIP_MAGIC) else tile
