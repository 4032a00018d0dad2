"""1/f noise: an offset of each row of pixels that are read one after the other.

The noise of a reading drifts while the pixels of a row are read, so that rows have offsets of their
own.  Their median, without sources and bad pixels, is subtracted.
"""

from itertools import pairwise

import numpy as np

from .checks import choice, flag, number, whole
from .masks import clipped, smooth_background, source_mask
from .models import amplifier_bounds, is_fast_along_x, note, planes, unit_of

__all__ = ["check", "correct", "line_offsets", "stripes"]

_DIRECTIONS = ("fast", "rows", "columns", "both")
_ROUNDS = 3


def line_offsets(data, ignore, *, bounds=None, min_pixels=10):
    """Return the offset of each row, and of each part of it.

    Parameters
    ----------
    data : `~numpy.ndarray`
        Image, shape (ny, nx).
    ignore : `~numpy.ndarray` of bool
        Pixels that do not count.
    bounds : sequence of int, optional
        First column of each part, and nx at the end; by default a row is one part.
    min_pixels : int, optional
        A part with fewer pixels that count takes the offset of its row, a row with fewer that of
        the image, which is none.

    Returns
    -------
    offsets : `~numpy.ndarray`
        Shape (ny, nx); of median 0 over the lines of each part, so that the sky stays.
    bare : int
        How many parts had too few pixels.
    """
    values = np.where(ignore | ~np.isfinite(data), np.nan, data)
    bounds = [0, data.shape[1]] if bounds is None else list(bounds)
    whole_rows, _ = _medians(values, min_pixels)
    offsets, bare = np.zeros(data.shape), 0
    for first, last in pairwise(bounds):
        part = values[:, first:last]
        medians, counts = _medians(part, min_pixels)
        lacking = counts < min_pixels
        bare += int(lacking.sum())
        medians = np.where(lacking, whole_rows, medians)
        offsets[:, first:last] = np.where(np.isfinite(medians), medians, 0.0)[:, np.newaxis]
    return offsets, bare


def _medians(values, min_pixels):
    """Return the medians of rows, less that of all; NaN where there are too few pixels."""
    counts = np.isfinite(values).sum(axis=1)
    medians = np.full(len(values), np.nan)
    known = counts >= max(min_pixels, 1)
    if known.any():
        medians[known] = np.nanmedian(values[known], axis=1)
        medians -= np.median(medians[known])
    return medians, counts


def stripes(
    data,
    ignore,
    *,
    along_x=True,
    bounds=None,
    both=False,
    sigma=2.5,
    grow_pix=3,
    background_pix=0,
    min_pixels=10,
):
    """Return the stripes of an image.

    Parameters
    ----------
    data : `~numpy.ndarray`
        Image, shape (ny, nx).
    ignore : `~numpy.ndarray` of bool
        Pixels that do not count, beside the sources that are found.
    along_x : bool, optional
        Whether rows are read one after the other; otherwise columns.
    bounds : sequence of int, optional
        First pixel of each amplifier along a line, and its length at the end.
    both : bool, optional
        Whether the offsets of lines in the other direction are taken too, after the first.
    sigma, grow_pix
        As for `~.masks.source_mask`.
    background_pix : int, optional
        Side of the boxes over which the sky may change; 0 for a constant sky.
    min_pixels : int, optional
        As for `line_offsets`.

    Returns
    -------
    pattern : `~numpy.ndarray`
        To subtract, shape (ny, nx); finite everywhere.
    masked : `~numpy.ndarray` of bool
        What did not count.
    bare : int
        Parts of lines with too few pixels.
    """
    data = np.asarray(data, float)
    # Stripes hide sources and look like some: the medians of whole rows are a good beginning, and
    # with every round fainter sources are found and the stripes are better.
    pattern, _ = _offsets(data, ignore, along_x, None, min_pixels)
    if both:
        pattern = pattern + _offsets(data - pattern, ignore, not along_x, None, min_pixels)[0]
    for _ in range(_ROUNDS):
        clean = data - pattern
        masked = ignore | source_mask(clean, ignore, sigma=sigma, grow_pix=grow_pix)
        flat = data
        if background_pix:
            # Not of the image without the stripes, which have taken the slopes across them.
            flat = data - smooth_background(data, masked, background_pix)
        pattern, bare = _offsets(flat, masked, along_x, bounds, min_pixels)
        if both:
            other, more = _offsets(flat - pattern, masked, not along_x, None, min_pixels)
            pattern, bare = pattern + other, bare + more
    return pattern, masked, bare


def _offsets(data, ignore, along_x, bounds, min_pixels):
    if along_x:
        return line_offsets(data, ignore, bounds=bounds, min_pixels=min_pixels)
    offsets, bare = line_offsets(data.T, ignore.T, bounds=bounds, min_pixels=min_pixels)
    return offsets.T, bare


def correct(
    model,
    *,
    direction="fast",
    per_amplifier=False,
    sigma=2.5,
    grow_pix=3,
    background_pix=0,
    min_pixels=10,
):
    """Subtract the offsets of rows or columns; errors, variances and flags stay.

    Parameters
    ----------
    model : datamodel
        Of stage 1 or 2.
    direction : {'fast', 'rows', 'columns', 'both'}, optional
        Lines that have offsets: those along the fast axis by default; 'both' takes these and then
        those across.
    per_amplifier : bool, optional
        Whether each amplifier has its own offsets, where the detector was read by four.
    sigma : float, optional
        Threshold of the mask of sources, in units of the noise of the smoothed image.
    grow_pix : int, optional
        By how many pixels the mask is made larger.
    background_pix : int, optional
        Side of the boxes over which the sky may change; 0 for a constant sky.
    min_pixels : int, optional
        Fewest unmasked pixels of a line for an offset of its own.

    Returns
    -------
    datamodel
    """
    along_x = direction == "rows"
    if direction in ("fast", "both"):
        along_x = is_fast_along_x(model)
    bounds = amplifier_bounds(model, along_x) if per_amplifier else None
    rms, share, bare = [], [], 0
    for image, ignore in planes(model):
        pattern, masked, few = stripes(
            image,
            ignore,
            along_x=along_x,
            bounds=bounds,
            both=direction == "both",
            sigma=sigma,
            grow_pix=grow_pix,
            background_pix=background_pix,
            min_pixels=min_pixels,
        )
        image -= np.where(np.isfinite(image), pattern, 0).astype(image.dtype)
        rms.append(clipped(pattern, sigma=10)[1])
        share.append(masked.mean())
        bare += few
    lines = "rows" if along_x else "columns"
    note(model, f"flicker: offsets of {lines}, scatter {np.mean(rms):.4g} {unit_of(model)}")
    note(model, f"flicker: {np.mean(share):.1%} masked, {bare} lines with too few pixels")
    return model


def check(parameters):
    """Return the parameters of `correct`, checked."""
    name = "flicker"
    if "direction" in parameters:
        choice(name, "direction", parameters["direction"], _DIRECTIONS)
    if "per_amplifier" in parameters:
        flag(name, "per_amplifier", parameters["per_amplifier"])
    if "sigma" in parameters:
        parameters["sigma"] = number(name, "sigma", parameters["sigma"], low=0.5, high=100)
    for key, low, high in (
        ("grow_pix", 0, 50),
        ("background_pix", 0, 2048),
        ("min_pixels", 1, 2048),
    ):
        if key in parameters:
            whole(name, key, parameters[key], low=low, high=high)
    return parameters
