"""The pixels of a data model: images with what to ignore, where the sources are, lines of history.

Pixels without a value are NaN; ``ignore`` is true where a pixel does not count.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

import numpy as np

from ...exceptions import TaskError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stdatamodels.jwst.datamodels import JwstDataModel

DO_NOT_USE = 1
NO_FLAT_FIELD = 1 << 18
REFERENCE_PIXEL = 1 << 31

_FULL_PIX = 2048

_TO_SIGMA = 1.4826
_SEEN_PIX = 1.2
_ENOUGH = 200_000
_CERTAIN = 5.0
_CLIPS = 10
_MOST = 0.5
_FACTORS = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)


def note(model: JwstDataModel, text: str) -> None:
    """Add a line to the HISTORY of a model; what is longer than a card is cut off."""
    model.add_history_entry(text[:72])


def history_of(model: JwstDataModel) -> list[str]:
    """Return the lines of the HISTORY of a model."""
    # There is a way to add entries that is to stay, and none yet to read them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return [str(entry["description"]) for entry in model.history]


def planes(model: JwstDataModel) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield a view of the image of each integration, and the mask of what to ignore in it."""
    data, dq = model.data, model.dq
    if data is None or data.ndim not in (2, 3) or dq is None or dq.shape != data.shape:
        shape = None if data is None else data.shape
        msg = f"{type(model).__name__} with data of shape {shape} is not of images."
        raise TaskError(msg)
    if data.ndim == 2:
        data, dq = data[np.newaxis], dq[np.newaxis]
    bad = DO_NOT_USE | REFERENCE_PIXEL
    for image, flags in zip(data, dq, strict=True):
        yield image, ((flags & np.uint32(bad)) != 0) | ~np.isfinite(image)


def unit_of(model: JwstDataModel) -> str:
    """Return the unit of the pixels, for a line of history."""
    return model.meta.bunit_data or "DN/s"


def reference_image(
    path: str | os.PathLike[str], model: JwstDataModel, extensions: Sequence[str] = ("SCI",)
) -> list[np.ndarray | None]:
    """Return images of a FITS file, cut to the subarray of a model.

    The first one falls back on the first image of the file; others that are missing are None.
    """
    from astropy.io import fits

    shape = model.data.shape[-2:]
    images: list[np.ndarray | None] = []
    with fits.open(path) as hdul:
        for name in extensions:
            hdu = next((h for h in hdul if h.name == name), None)
            if hdu is None and not images:
                hdu = next((h for h in hdul if h.is_image and h.header.get("NAXIS") == 2), None)
                if hdu is None:
                    msg = f"{path} has no image of two dimensions."
                    raise TaskError(msg)
            images.append(None if hdu is None else _cut(path, np.array(hdu.data), model, shape))
    return images


def _cut(
    path: str | os.PathLike[str], image: np.ndarray, model: JwstDataModel, shape: tuple[int, int]
) -> np.ndarray:
    if image.shape == shape:
        return image
    x, y = (model.meta.subarray.xstart or 0), (model.meta.subarray.ystart or 0)
    if image.shape == (_FULL_PIX, _FULL_PIX) and x > 0 and y > 0:
        part = image[y - 1 : y - 1 + shape[0], x - 1 : x - 1 + shape[1]]
        if part.shape == shape:
            return part
    msg = (
        f"{path} is an image of {image.shape} pixels; the exposure has {shape}, and the full "
        f"detector {(_FULL_PIX, _FULL_PIX)}."
    )
    raise TaskError(msg)


def clipped(values: np.ndarray, *, sigma: float = 3.0) -> tuple[float, float]:
    """Return median and scatter (1.4826 MAD) without what is far off; NaN without values."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not values.size:
        return np.nan, np.nan
    for _ in range(_CLIPS):
        median = np.median(values)
        scatter = _TO_SIGMA * np.median(np.abs(values - median))
        near = values[np.abs(values - median) <= sigma * scatter]
        if scatter == 0 or near.size == values.size:
            break
        values = near
    return float(median), float(scatter)


def source_mask(
    data: np.ndarray, ignore: np.ndarray, *, sigma: float = 2.5, grow_pix: int = 3
) -> np.ndarray:
    """Return where there is more light than the sky and its noise explain.

    The threshold, in units of the noise of the smoothed image, is raised where the mask would be
    more than half of the image, since that much is no noise of the sky.
    """
    from scipy import ndimage

    good = ~ignore & np.isfinite(data)
    level, noise = clipped(_some(data[good]))
    if not np.isfinite(level):
        return np.zeros(data.shape, bool)
    # Smoothed by itself, a single bad pixel that is in no list would look like a source.
    limit = level + 50 * noise if noise > 0 else np.inf
    filled = np.where(good, np.minimum(data, limit) - level, 0.0)
    weight = ndimage.gaussian_filter(good.astype(float), _SEEN_PIX)
    smooth = ndimage.gaussian_filter(filled, _SEEN_PIX) / np.maximum(weight, 1e-3)
    middle, scatter = clipped(_some(smooth[good]))
    y, x = np.mgrid[-grow_pix : grow_pix + 1, -grow_pix : grow_pix + 1]
    disc = x**2 + y**2 <= grow_pix**2 + 0.5
    for factor in _FACTORS:
        mask = good & (smooth > middle + factor * sigma * scatter) & (scatter > 0)
        mask |= good & (data > level + max(factor * sigma, _CERTAIN) * noise) & (noise > 0)
        if grow_pix and mask.any():
            mask = ndimage.binary_dilation(mask, disc)
        if mask[good].mean() <= _MOST:
            break
    return mask


def _some(values: np.ndarray) -> np.ndarray:
    """Return enough values to know their scatter; an odd step, so as not to follow columns."""
    return values[:: (values.size // _ENOUGH) | 1]
