"""The pixels of one simulated brick: every coadd product, as arrays.

Outside the windows that were observed every array is 0, as it is in the survey at the rim of its
footprint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
from scipy.ndimage import binary_dilation

from ..survey import bitmasks, bricks
from ..survey.pixel_grids import Box, TangentGrid
from ..survey.releases import PIXEL_SCALE_ARCSEC
from . import sky

SIZE_PIX = bricks.IMAGE_SIZE_PIX
# Height of the strips in which a whole brick is made, which bounds the memory.
_STRIP_PIX = 150
_BLEED_PIX = 2
_BLOB_THRESHOLD_SIGMA = 0.5


def windows_of(brick: str) -> list[Box]:
    """Return the boxes of a brick that were observed; they do not overlap."""
    if brick == sky.WHOLE_BRICK:
        return strips((SIZE_PIX, SIZE_PIX))
    grid = bricks.brick_grid(bricks.parse_brick_name(brick))
    windows = []
    for ra, dec, half in sky.WINDOWS:
        x, y = grid.to_pixel(ra, dec)
        if np.isfinite(x):
            windows.append(box_about(float(x), float(y), half))
    windows = [window for window in windows if 0 not in window.shape]
    # What the whole brick shows, its neighbours show too: bricks share their exposures.
    shared = _reach_of_whole_brick(grid)
    for window in windows:
        shared = [part for box in shared for part in _beside(box, window)]
    return windows + shared


def box_about(x: float, y: float, half: int) -> Box:
    """Return the pixels of a brick's image that are so near a place; they may be none."""
    x, y = round(x), round(y)
    return Box(y - half, y + half, x - half, x + half).clipped(SIZE_PIX, SIZE_PIX)


def _reach_of_whole_brick(grid: TangentGrid) -> list[Box]:
    """Return the pixels of another brick's image that the image of the whole brick reaches."""
    sides = np.array([-0.5, SIZE_PIX - 0.5])
    whole = bricks.brick_grid(bricks.parse_brick_name(sky.WHOLE_BRICK))
    x, y = grid.to_pixel(*whole.to_sky(sides, sides[:, None]))
    if not np.isfinite(x).all():
        return []
    y0, x0 = (int(np.floor(values.min() + 0.5)) for values in (y, x))
    y1, x1 = (int(np.ceil(values.max() + 0.5)) for values in (y, x))
    box = Box(y0, y1, x0, x1).clipped(SIZE_PIX, SIZE_PIX)
    return [] if 0 in box.shape else [box]


def _beside(box: Box, window: Box) -> Iterator[Box]:
    """Yield the parts of a box that are not in a window."""
    y0, y1 = (min(max(y, box.y0), box.y1) for y in (window.y0, window.y1))
    x0, x1 = (min(max(x, box.x0), box.x1) for x in (window.x0, window.x1))
    parts = (
        box._replace(y1=y0),
        box._replace(y0=y1),
        Box(y0, y1, box.x0, x0),
        Box(y0, y1, x1, box.x1),
    )
    yield from (part for part in parts if 0 not in part.shape)


def strips(shape: tuple[int, int]) -> list[Box]:
    """Return the boxes of an image that was observed as a whole."""
    height, width = shape
    edges = range(0, height, _STRIP_PIX)
    return [Box(y0, min(y0 + _STRIP_PIX, height), 0, width) for y0 in edges]


class BrickScene:
    """Makes the coadds of one brick in one region.

    Another ``grid``, ``shape`` and ``windows`` make another reduction of it.
    """

    def __init__(self, release: str, region: str, brick: str) -> None:
        self.release = release
        self.region = region
        self.brick = bricks.get_brick(brick)
        self.grid = bricks.brick_grid(self.brick.id)
        self.shape = (SIZE_PIX, SIZE_PIX)
        self.windows = windows_of(brick)
        self.sources = sky.truth()
        self._bits = bitmasks.maskbits(release)

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
        mask[where] |= 1 << self._bits[bit]

    def primary(self) -> np.ndarray:
        """Return which pixels are in the box that the brick owns."""
        inside = np.ones(self.shape, bool)
        frame = [Box(0, self.shape[0], 0, self.shape[1])]
        if self.shape == (SIZE_PIX, SIZE_PIX):
            # The margins are 82 to 102 pixels wide; further in, every pixel is the brick's own.
            frame = list(_beside(frame[0], Box(130, SIZE_PIX - 130, 130, SIZE_PIX - 130)))
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
