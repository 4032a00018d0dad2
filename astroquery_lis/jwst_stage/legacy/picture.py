"""A picture of a mosaic, or of several in colours, small enough for a page."""

import os
from pathlib import Path

import numpy as np
from astropy.io import fits

from ...exceptions import InvalidRequestError
from ...images.planes import sky_matrix
from ...pictures.rgb import north_up, rgb
from .cutouts import as_grid
from .where import read_headers

__all__ = ["JwstPicture", "jwst_picture"]


class JwstPicture:
    """A picture of one or more mosaics on one grid, small enough for a page.

    Parameters
    ----------
    image : `~numpy.ndarray` of uint8, shape (ny, nx, 3)
        North up, as far as flips bring that about.
    wcs : `~astropy.wcs.WCS`
        Grid of the picture before the flips.
    filters : list of str
        Blue to red.
    """

    def __init__(self, image, wcs, filters):
        self.image, self.wcs, self.filters = image, wcs, filters

    def place(self, ra_deg, dec_deg):
        """Return positions as pixels from the upper left corner of the picture.

        Parameters
        ----------
        ra_deg, dec_deg : `~numpy.ndarray` of float, shape (n,)
            Positions.

        Returns
        -------
        x, y : `~numpy.ndarray` of float
            NaN outside of the picture.
        """
        ny, nx = self.wcs.array_shape
        x, y = self.wcs.world_to_pixel_values(np.asarray(ra_deg), np.asarray(dec_deg))
        x, y = np.asarray(x) + 0.5, np.asarray(y) + 0.5
        # What the flips of the picture do to an array of indices they do to positions.
        matrix = sky_matrix(self.wcs.to_header())
        rows = north_up(np.repeat(np.arange(2)[:, None], 2, axis=1), matrix)
        columns = north_up(np.repeat(np.arange(2)[None], 2, axis=0), matrix)
        x = nx - x if columns[0, 0] else x
        y = ny - y if rows[0, 0] else y
        outside = (x < 0) | (x > nx) | (y < 0) | (y > ny)
        return np.where(outside, np.nan, x), np.where(outside, np.nan, y)


def jwst_picture(mosaics, *, size=900, brightness=1.0):
    """Return a picture of mosaics.

    Parameters
    ----------
    mosaics : path-like or sequence of path-like
        ``_i2d.fits`` files on one grid: one for a grey picture, several for colours.
    size : int, optional
        Largest width or height; larger mosaics are averaged over blocks of pixels.
    brightness : float, optional
        More than 1 shows fainter things.

    Returns
    -------
    JwstPicture

    Raises
    ------
    InvalidRequestError
        If the mosaics are not on one grid.
    """
    single = isinstance(mosaics, (str, os.PathLike))
    paths = [Path(mosaics)] if single else [Path(one) for one in mosaics]
    if not paths:
        msg = "mosaics: there is none."
        raise InvalidRequestError(msg, parameter="mosaics", value=mosaics)
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 16:
        msg = f"size={size!r} must be a number of pixels, 16 or more."
        raise InvalidRequestError(msg, parameter="size", value=size)
    wcs = as_grid(paths[0])
    ny, nx = wcs.array_shape
    factor = max(1, -(-max(ny, nx) // int(size)))
    coarse = wcs[: ny // factor * factor : factor, : nx // factor * factor : factor]
    coarse.array_shape = ny // factor, nx // factor
    found = []
    for path in paths:
        other = as_grid(path)
        if other.array_shape != wcs.array_shape or not _same_grid(wcs, other):
            msg = f"{path} is not on the grid of {paths[0]}: plan with common_grid=True."
            raise InvalidRequestError(msg, parameter="mosaics", value=str(path))
        header = read_headers(path)
        name = str(header.get("FILTER", path.name)).strip() or path.name
        found.append((_order(name), name, _block_mean(path, factor)))
    found.sort(key=lambda one: one[0])
    hdul = fits.HDUList([fits.PrimaryHDU()])
    for _, name, data in found:
        hdu = fits.ImageHDU(data, coarse.to_header(), name=f"IMAGE_{name}")
        hdu.header["BAND"], hdu.header["BUNIT"] = name, "MJy/sr"
        hdul.append(hdu)
    names = [name for _, name, _ in found]
    return JwstPicture(rgb(hdul, bands=names, brightness=brightness), coarse, names)


def _same_grid(one, other):
    corners = np.array([[0.0, 0.0], [one.array_shape[1] - 1.0, one.array_shape[0] - 1.0]])
    apart = other.world_to_pixel_values(*one.pixel_to_world_values(*corners.T))
    return bool(np.allclose(np.stack(apart), corners.T, atol=0.1))


def _order(name):
    """Return the wavelength that a filter's name tells, for blue to red."""
    digits = "".join(c for c in name[1:5] if c.isdigit())
    return int(digits) if digits else 0


def _block_mean(path, factor):
    """Return the SCI image averaged over blocks; pixels without data do not count."""
    with fits.open(path, memmap=True) as hdul:
        data = hdul["SCI"].data
        ny, nx = data.shape[0] // factor, data.shape[1] // factor
        result = np.empty((ny, nx), np.float32)
        # Row by row of the result, so that no second copy of a large mosaic is in memory.
        for row in range(ny):
            block = data[row * factor : (row + 1) * factor, : nx * factor]
            block = block.reshape(factor, nx, factor).astype(np.float32)
            has = np.isfinite(block)
            count = has.sum(axis=(0, 2))
            total = np.where(has, block, 0).sum(axis=(0, 2))
            result[row] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return result
