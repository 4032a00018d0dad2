"""The pixels of one simulated brick: every coadd product, as arrays.

Outside the windows that were observed every array is 0, as it is in the survey at the rim of its
footprint.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation

from ..survey import bitmasks, bricks
from . import render, sky

__all__ = ["BrickScene", "Window", "windows_of"]

SIZE_PIX = bricks.IMAGE_SIZE_PIX
WHOLE_BRICK = "0451p000"
_STRIP_PIX = 450
"""Height of the strips in which a whole brick is made, which bounds the memory."""
_BLEED_PIX = 2
_BLOB_THRESHOLD_SIGMA = 0.5


@dataclass(frozen=True)
class Window:
    """A box of a brick's pixels.

    Attributes
    ----------
    x0, y0, x1, y1 : int
        First pixel and the one after the last.
    """

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def slices(self):
        """The box as an index of the brick's arrays."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def shape(self):
        """``(ny, nx)``."""
        return self.y1 - self.y0, self.x1 - self.x0


def windows_of(brick):
    """Return the boxes of a brick that were observed; they do not overlap.

    Parameters
    ----------
    brick : str
        Brick name.

    Returns
    -------
    list of Window
    """
    if brick == WHOLE_BRICK:
        edges = range(0, SIZE_PIX, _STRIP_PIX)
        return [Window(0, y0, SIZE_PIX, y0 + _STRIP_PIX) for y0 in edges]
    grid = bricks.brick_grid(bricks.parse_brick_name(brick))
    found = []
    for ra, dec, half in sky.WINDOWS:
        x, y = grid.to_pixel(ra, dec)
        if np.isfinite(x):
            low = [max(round(float(value)) - half, 0) for value in (x, y)]
            high = [min(round(float(value)) + half, SIZE_PIX) for value in (x, y)]
            if low[0] < high[0] and low[1] < high[1]:
                found.append(Window(*low, *high))
    return found


class BrickScene:
    """Makes the coadds of one brick in one region.

    Parameters
    ----------
    release, region : str
        The tree that the brick is in; it decides the noise and the mask bits.
    brick : str
        Brick name.
    """

    def __init__(self, release, region, brick):
        self.release = release
        self.region = region
        self.brick = bricks.get_brick(brick)
        self.grid = bricks.brick_grid(self.brick.id)
        self.windows = windows_of(brick)
        self.sources = sky.truth()
        self._bits = bitmasks.maskbits(release)
        self._no_exposure = {}
        self._saturated = {}

    def _sky_of(self, window):
        y, x = np.mgrid[window.y0 : window.y1, window.x0 : window.x1]
        return self.grid.to_sky(x, y)

    def band(self, band):
        """Return every product of one band.

        Parameters
        ----------
        band : str
            ``'g'``, ``'r'``, ``'i'`` or ``'z'``.

        Returns
        -------
        dict of str to `~numpy.ndarray`
            Arrays of shape (3600, 3600), float32 but for ``nexp``, which is int16.
        """
        shape = (SIZE_PIX, SIZE_PIX)
        planes = {
            name: np.zeros(shape, np.float32)
            for name in ("image", "invvar", "model", "blobmodel", "chi2", "depth", "galdepth")
        }
        planes |= {"nexp": np.zeros(shape, np.int16), "psfsize": np.zeros(shape, np.float32)}
        saturated = np.zeros(shape, bool)
        seed = (self.region == "north", self.brick.id, "griz".index(band))
        rng = np.random.default_rng([int(part) for part in seed])
        for window in self.windows:
            ra, dec = self._sky_of(window)
            model = render.render(
                self.sources, band, self.grid, x0=window.x0, y0=window.y0, shape=window.shape
            )
            made = self._make_window(band, model, ra, dec, rng)
            saturated[window.slices] = model > sky.SATURATION
            for name, values in made.items():
                planes[name][window.slices] = values
        self._no_exposure[band] = planes["nexp"] == 0
        self._saturated[band] = saturated
        return planes

    def _make_window(self, band, model, ra, dec, rng):
        saturated = model > sky.SATURATION
        nexp = sky.exposures(ra, dec, band)
        nexp[saturated] = 0
        background = nexp / sky.NOISE_SIGMA[band] ** 2
        # Only where a source counts: elsewhere the inverse variance is constant, as in the survey.
        poisson = np.where(model > 1e-3, sky.POISSON_NMGY * model, 0.0)
        invvar = background / (1 + poisson / sky.NOISE_SIGMA[band] ** 2)
        invvar *= sky.inverse_variance_texture(ra, dec)
        observed = nexp > 0
        noise = rng.standard_normal(model.shape, dtype=np.float32)
        noise[observed] /= np.sqrt(invvar[observed])
        image = np.where(observed, model + noise, 0.0)
        # A saturated core keeps an interpolated value: only the inverse variance tells.
        image[saturated] = sky.SATURATION
        blob = model > _BLOB_THRESHOLD_SIGMA * sky.NOISE_SIGMA[band]
        scale_arcsec = self.grid.scale_deg * 3600
        return {
            "image": image,
            "invvar": invvar,
            "model": model,
            "blobmodel": np.where(blob, model, 0.0),
            "chi2": (image - model) ** 2 * invvar,
            "depth": background * render.psf_norm(band, scale_arcsec),
            "galdepth": background * render.galaxy_norm(band, scale_arcsec),
            "nexp": nexp,
            "psfsize": np.where(observed, render.psf_fwhm_arcsec(band), 0.0),
        }

    def masks(self, bands):
        """Return the three mask planes; every band has to be made before.

        Parameters
        ----------
        bands : tuple of str
            The bands that the brick has.

        Returns
        -------
        dict of str to `~numpy.ndarray`
            ``MASKBITS`` (int32, int16 before DR10), ``WISEM1`` and ``WISEM2`` (uint8).
        """
        mask = np.zeros((SIZE_PIX, SIZE_PIX), np.int32)
        wise = np.zeros((SIZE_PIX, SIZE_PIX), np.uint8)
        self._set(mask, "NPRIMARY", ~self.primary())
        y, x = np.ogrid[:SIZE_PIX, :SIZE_PIX]
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
        for band in bands:
            self._set(mask, f"ALLMASK_{band.upper()}", self._no_exposure[band])
            core = self._saturated[band]
            if core.any():
                core = binary_dilation(core, iterations=_BLEED_PIX)
            self._set(mask, f"SATUR_{band.upper()}", core)
        kind = np.int32 if int(self.release[2:]) >= 10 else np.int16
        return {"MASKBITS": mask.astype(kind), "WISEM1": wise, "WISEM2": wise.copy()}

    def _set(self, mask, bit, where):
        mask[where] |= 1 << self._bits[bit]

    def primary(self):
        """Tell which pixels are in the box that the brick owns.

        Returns
        -------
        `~numpy.ndarray` of bool
            Shape (3600, 3600).
        """
        inside = np.ones((SIZE_PIX, SIZE_PIX), bool)
        # The margins are 82 to 102 pixels wide; further in, every pixel is the brick's own.
        rim = 130
        end = SIZE_PIX - rim
        frame = (
            Window(0, 0, SIZE_PIX, rim),
            Window(0, end, SIZE_PIX, SIZE_PIX),
            Window(0, rim, rim, end),
            Window(end, rim, SIZE_PIX, end),
        )
        for window in frame:
            inside[window.slices] = bricks.brick_id(*self._sky_of(window)) == self.brick.id
        return inside
