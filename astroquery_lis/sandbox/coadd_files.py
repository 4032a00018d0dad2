"""The coadds of a simulated brick: pixels, headers, and the files that hold them compressed.

Outside the windows that were observed pixels are 0, as in the survey at the rim of its footprint.
In the WISE bands, in Vega nanomaggies, every brick is observed as a whole.

astropy compresses, and so the columns of the tables come in another order than the survey's.  A
tile that comes again is compressed once, and none carries the time at which it was made: the same
pixels are the same bytes.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from typing import BinaryIO

import numpy as np
from astropy.io import fits
from astropy.table import Table
from scipy.ndimage import binary_dilation

from .._locks import decoding
from ..survey import bitmasks, bricks, paths
from ..survey.pixel_grids import Box, TangentGrid
from ..survey.releases import PIXEL_SCALE_ARCSEC
from . import sky
from .measurements import infrared

_BLEED_PIX = 2
_BLOB_THRESHOLD_SIGMA = 0.5


class BrickScene:
    """Makes the coadds of one brick in one region.

    Another ``grid``, ``shape`` and ``windows`` make another reduction of it.
    """

    def __init__(self, release: str, region: str, brick: str) -> None:
        self.release, self.region = release, region
        self.brick = bricks.get_brick(brick)
        self.grid = bricks.brick_grid(self.brick.id)
        self.shape = (sky.SIZE_PIX, sky.SIZE_PIX)

    @cached_property
    def windows(self) -> list[Box]:
        """The boxes that were observed."""
        return sky.windows_of(self.brick.name)

    @cached_property
    def sources(self) -> Table:
        """Every source of the whole scene."""
        return sky.truth()

    def path(self, product: str, band: str | None = None) -> str:
        """Return the path of a file below the root."""
        brick = self.brick.name
        return paths.file_path(product, self.release, self.region, brick=brick, band=band)

    def sky_of(self, window: Box) -> tuple[np.ndarray, np.ndarray]:
        """Return RA and Dec (deg) of the pixels of a box."""
        y, x = np.ogrid[window.y0 : window.y1, window.x0 : window.x1]
        return self.grid.to_sky(x, y)

    def _light(self, band: str, window: Box) -> np.ndarray:
        """Return the noise-free picture of a box."""
        return sky.render(
            self.sources, band, self.grid, x0=window.x0, y0=window.y0, shape=window.shape
        )

    def band(self, band: str, products: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Return products of one band."""
        kinds = {name: np.int16 if name == "nexp" else np.float32 for name in products}
        planes = {name: np.zeros(self.shape, kind) for name, kind in kinds.items()}
        seed = (self.region == "north", self.brick.id, "griz".index(band))
        rng = np.random.default_rng([int(part) for part in seed])
        for window in self.windows:
            pixels = _Pixels(self, band, window, rng)
            for name, plane in planes.items():
                plane[window.slices] = getattr(pixels, name)
        return planes

    def masks(self, bands: Iterable[str]) -> dict[str, np.ndarray]:
        """Return the three mask planes."""
        mask, wise = np.zeros(self.shape, np.int32), np.zeros(self.shape, np.uint8)
        self._set(mask, "NPRIMARY", ~self.primary())
        y, x = np.ogrid[: self.shape[0], : self.shape[1]]
        for bit, ra, dec, radius_arcsec in sky.mask_circles(self.sources):
            x0, y0 = self.grid.to_pixel(ra, dec)
            radius = radius_arcsec / (self.grid.scale_deg * 3600)
            # The far side of the sky has no pixel; comparisons with NaN are false.
            inside = (x - x0) ** 2 + (y - y0) ** 2 < radius**2
            self._set(mask, bit, inside)
            if bit == "BRIGHT":
                wise[inside] |= 1 << bitmasks.WISEMASK_BITS["BRIGHT"]
        for bit in ("WISEM1", "WISEM2"):
            self._set(mask, bit, wise > 0)
        for band, (core, unexposed) in self._bad(tuple(bands)).items():
            self._set(mask, f"ALLMASK_{band.upper()}", unexposed)
            if core.any():
                core = binary_dilation(core, iterations=_BLEED_PIX)
            self._set(mask, f"SATUR_{band.upper()}", core)
        kind = np.int32 if int(self.release[2:]) >= 10 else np.int16
        return {"MASKBITS": mask.astype(kind), "WISEM1": wise, "WISEM2": wise.copy()}

    def _bad(self, bands: tuple[str, ...]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return by band which pixels are saturated and which have no good exposure."""
        planes = {band: (np.zeros(self.shape, bool), np.ones(self.shape, bool)) for band in bands}
        for window in self.windows:
            ra, dec = self.sky_of(window)
            for band, (core, unexposed) in planes.items():
                saturated = self._light(band, window) > sky.SATURATION
                core[window.slices] = saturated
                unexposed[window.slices] = saturated | (sky.exposures(ra, dec, band) == 0)
        return planes

    def _set(self, mask: np.ndarray, bit: str, where: np.ndarray) -> None:
        mask[where] |= 1 << bitmasks.maskbits(self.release)[bit]

    def primary(self) -> np.ndarray:
        """Return which pixels are in the box that the brick owns."""
        inside = np.ones(self.shape, bool)
        frame = [Box(0, self.shape[0], 0, self.shape[1])]
        if self.shape == (sky.SIZE_PIX, sky.SIZE_PIX):
            # The margins are 82 to 102 pixels wide; further in, every pixel is the brick's own.
            frame = list(sky.beside(frame[0], Box(130, 3470, 130, 3470)))
        for window in frame:
            inside[window.slices] = bricks.brick_id(*self.sky_of(window)) == self.brick.id
        return inside


class _Pixels:
    """The products of one band in a box, each made when it is asked for."""

    def __init__(self, scene: BrickScene, band: str, window: Box, rng: np.random.Generator) -> None:
        self._band = band
        self._sky = scene.sky_of(window)
        self._scale_arcsec = scene.grid.scale_deg * 3600
        # A larger pixel has more of the sky's noise.
        self._sigma = sky.NOISE_SIGMA[band] * round(self._scale_arcsec / PIXEL_SCALE_ARCSEC, 9)
        self.model = scene._light(band, window)
        self._saturated = self.model > sky.SATURATION
        # Drawn for every product, so that each is the same whichever are made.
        self._noise = rng.standard_normal(self.model.shape, dtype=np.float32)

    @cached_property
    def nexp(self) -> np.ndarray:
        nexp = sky.exposures(*self._sky, self._band)
        nexp[self._saturated] = 0
        return nexp

    @cached_property
    def _background(self) -> np.ndarray:
        return self.nexp / self._sigma**2

    @cached_property
    def invvar(self) -> np.ndarray:
        # Only where a source counts: elsewhere the inverse variance is constant, as in the survey.
        poisson = np.where(self.model > 1e-3, sky.POISSON_NMGY * self.model, 0.0)
        invvar = self._background / (1 + poisson / self._sigma**2)
        invvar *= sky.inverse_variance_texture(*self._sky)
        return invvar

    @cached_property
    def image(self) -> np.ndarray:
        observed = self.nexp > 0
        noise = self._noise
        noise[observed] /= np.sqrt(self.invvar[observed])
        image = np.where(observed, self.model + noise, 0.0)
        # A saturated core keeps an interpolated value: only the inverse variance tells.
        image[self._saturated] = sky.SATURATION
        return image

    @property
    def blobmodel(self) -> np.ndarray:
        blob = self.model > _BLOB_THRESHOLD_SIGMA * self._sigma
        return np.where(blob, self.model, 0.0)

    @property
    def chi2(self) -> np.ndarray:
        return (self.image - self.model) ** 2 * self.invvar

    @property
    def depth(self) -> np.ndarray:
        return self._background * sky.psf_norm(self._band, self._scale_arcsec)

    @property
    def galdepth(self) -> np.ndarray:
        return self._background * sky.galaxy_norm(self._band, self._scale_arcsec)

    @property
    def psfsize(self) -> np.ndarray:
        return np.where(self.nexp > 0, sky.psf_fwhm_arcsec(self._band), 0.0)


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
# What a brick has where its region is not the official one, and another reduction.
OVERLAP_PRODUCTS = ("image", "invvar", "nexp")


def band_files(scene: BrickScene, band: str, products: tuple[str, ...]) -> Iterator[Content]:
    """Yield the coadds of one band of a scene."""
    for product, plane in scene.band(band, products).items():
        path, header = scene.path(product, band), _header(scene, product, band)
        if product == "blobmodel" and scene.release == "dr9":
            # Not compressed for all its name, as in the survey (DR9 known issues).
            yield path, partial(_write_plain, hdu=fits.PrimaryHDU(plane, header))
        else:
            yield _compressed(path, {"": plane}, header, product)


def mask_file(scene: BrickScene, bands: tuple[str, ...]) -> Iterator[Content]:
    """Yield the mask bits of a scene."""
    header = _header(scene, "maskbits")
    yield _compressed(scene.path("maskbits"), scene.masks(bands), header, "maskbits")


def _compressed(
    path: str, planes: dict[str, np.ndarray], header: fits.Header, product: str
) -> Content:
    name = path.rpartition("/")[2]
    return path, partial(write_images, planes=planes, header=header, product=product, name=name)


def _write_plain(file: BinaryIO, hdu: fits.PrimaryHDU) -> None:
    """Write an uncompressed image of which only blocks with light take room on the disk."""
    stream = io.BytesIO()
    hdu.writeto(stream)
    blocks = np.frombuffer(stream.getbuffer(), np.uint8).reshape(-1, _BLOCK_BYTES)
    file.truncate(blocks.nbytes)
    for number in np.flatnonzero(blocks.any(axis=1)):
        file.seek(int(number) * _BLOCK_BYTES)
        file.write(blocks[number])


def _header(scene: BrickScene, product: str, band: str = "") -> fits.Header:
    """Return the header of a coadd, as long as the survey's."""
    brick = scene.brick
    header = _first_cards(product)
    unit = paths.COADD_PRODUCTS[product].unit
    if unit:
        header["BUNIT"] = unit
    if band:
        header["FILTER"] = (_FILTER[band], "filter in the camera")
        header["MAGZERO"] = (sky.ZERO_POINT, "magnitude zero point")
    _add_brick_cards(header, scene)
    header["CENTRA"] = (brick.ra_deg, "image centre RA (deg)")
    header["CENTDEC"] = (brick.dec_deg, "image centre Dec (deg)")
    height, width = scene.shape
    corners = ((0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1))
    for number, corner in enumerate(corners, start=1):
        ra, dec = scene.grid.to_sky(*corner)
        header[f"CORN{number}RA"] = (float(ra), "RA of a corner pixel (deg)")
        header[f"CORN{number}DEC"] = (float(dec), "Dec of a corner pixel (deg)")
    _add_wcs_cards(header, scene.grid, scene.shape)
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


def _add_brick_cards(header: fits.Header, scene: BrickScene) -> None:
    """Add the cards that say which brick of which release it is."""
    brick = scene.brick
    header["SURVEY"] = {"south": "DECaLS", "north": "BASS MzLS"}[scene.region]
    header["DRVERSIO"] = (int(scene.release[2:]) * 1000, "survey data release number")
    header["BRICKNAM"] = (brick.name, "brick name RRRr[pm]DDd")
    header["BRICKID"] = (brick.id, "brick id")
    header["RAMIN"] = (brick.ra1_deg, "brick RA min (deg)")
    header["RAMAX"] = (brick.ra2_deg, "brick RA max (deg)")
    header["DECMIN"] = (brick.dec1_deg, "brick Dec min (deg)")
    header["DECMAX"] = (brick.dec2_deg, "brick Dec max (deg)")


def _add_wcs_cards(header: fits.Header, grid: TangentGrid, shape: tuple[int, int]) -> None:
    """Add the WCS as legacypipe writes it: no RADESYS, no CUNIT."""
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = grid.ra_deg, grid.dec_deg
    header["CRPIX1"], header["CRPIX2"] = grid.x_ref + 1, grid.y_ref + 1
    header["CD1_1"], header["CD1_2"] = -grid.scale_deg, 0.0
    header["CD2_1"], header["CD2_2"] = 0.0, grid.scale_deg
    header["IMAGEW"], header["IMAGEH"] = float(shape[1]), float(shape[0])
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
_WISE_EXPOSURES = {"W1": 128, "W2": 128, "W3": 12, "W4": 12}
_EXPOSURES_VARY = 0.06


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
    components = sky.wise_psf_components(band)
    norm = sky.sum_of_squares(components) * _WISE_SCALE_ARCSEC**2
    depth = infrared(band.lower())["psfdepth"][0] / 10 ** (2 * sky.VEGA_TO_AB[band] / 2.5)
    return depth / norm * exposures / usual


def _wise_planes(scene: BrickScene, band: str) -> dict[str, np.ndarray]:
    """Return the WISE images of a brick in one band, Vega nanomaggies, by product."""
    grid, sources = wise_grid(scene.brick.name), scene.sources
    # Sampled at the centres of pixels: sigma is 0.9 of them at least, which loses 1e-6 of a flux.
    flux = np.asarray(sources[f"flux_{band.lower()}"]) * 10 ** (sky.VEGA_TO_AB[band] / 2.5)
    box = Box(0, _WISE_PIX, 0, _WISE_PIX)
    model = sky.draw(sources, flux, sky.wise_psf_components(band), grid, box)
    invvar = _inverse_variance(grid, band)
    # Numbers that the optical bands have not used: theirs are 0 to 3.
    number = 11 + list(sky.VEGA_TO_AB).index(band)
    rng = np.random.default_rng([scene.region == "north", scene.brick.id, number])
    image = model + rng.standard_normal(model.shape) / np.sqrt(invvar)
    planes = {"image": image, "invvar": invvar, "model": model}
    return {name: values.astype(np.float32) for name, values in planes.items()}


def _wise_header(scene: BrickScene, product: str, band: str) -> fits.Header:
    header = _first_cards(product)
    header["TELESCOP"] = "WISE"
    header["FILTER"] = (band, "WISE band")
    header["MAGZERO"] = (sky.ZERO_POINT, "magnitude zero point")
    header["MAGSYS"] = ("Vega", "this image is in Vega fluxes")
    _add_brick_cards(header, scene)
    _add_wcs_cards(header, wise_grid(scene.brick.name), (_WISE_PIX, _WISE_PIX))
    header["SCENE"] = (sky.SCENE_VERSION, "version of the simulated scene")
    header["PSFFWHM"] = (sky.WISE_FWHM_ARCSEC[band], "PSF FWHM (arcsec)")
    for number, (weight, width) in enumerate(sky.wise_psf_components(band), start=1):
        header[f"PSFW{number}"] = (weight, "weight of a PSF Gaussian")
        header[f"PSFS{number}"] = (width, "sigma of a PSF Gaussian (arcsec)")
    return header


def wise_files(scene: BrickScene, band: str) -> Iterator[Content]:
    """Yield the WISE coadds of one band of a brick."""
    for product, plane in _wise_planes(scene, band).items():
        path = scene.path(product, band)
        yield _compressed(path, {"": plane}, _wise_header(scene, product, band), product)


_RICE = {"compression_type": "RICE_1"}
_IMAGE = {**_RICE, "quantize_method": 2, "quantize_level": -1e-4}
_LOSSLESS = {"compression_type": "GZIP_1", "quantize_level": 0}
_INTEGER = {"compression_type": "HCOMPRESS_1", "hcomp_scale": 0}
# How each product is compressed: legacypipe's ``survey.get_compression_kwargs``.
CODECS = {
    **dict.fromkeys(("image", "model", "blobmodel"), _IMAGE),
    "invvar": {**_RICE, "quantize_method": -1, "quantize_level": 16},
    "chi2": {**_RICE, "quantize_method": -1, "quantize_level": -0.1},
    **dict.fromkeys(("depth", "galdepth", "psfsize"), _LOSSLESS),
    **dict.fromkeys(("nexp", "maskbits"), _INTEGER),
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
