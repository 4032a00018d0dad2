"""The code of the corrections of this package: 1/f, wisps, flat, sky, and what they measure.

Pixels without a value are NaN; ``ignore`` is true where a pixel does not count.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...exceptions import TaskError
from .correction import OPTICAL_WORDS, note, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from astropy.io import fits
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


def planes(model: JwstDataModel) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield a view of the image of each integration, and the mask of what to ignore in it."""
    shape = shape_of(model)
    if len(shape or ()) not in (2, 3) or shape_of(model, "dq") != shape:
        msg = f"{type(model).__name__} with data of shape {shape} is not of images."
        raise TaskError(msg)
    data, dq = model.data, model.dq
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

    with fits.open(path) as hdul:
        hdus = _image_hdus(hdul, extensions)
        return [None if hdu is None else _cut(path, np.array(hdu.data), model) for hdu in hdus]


def _image_hdus(hdul: fits.HDUList, extensions: Sequence[str]) -> list[fits.ImageHDU | None]:
    by_name = {hdu.name: hdu for hdu in [*hdul][::-1]}
    usual = (hdu for hdu in hdul if hdu.is_image and hdu.header.get("NAXIS") == 2)
    first = by_name.get(extensions[0], next(usual, None))
    if first is None:
        msg = f"{hdul.filename()} has no image of two dimensions."
        raise TaskError(msg)
    return [first, *map(by_name.get, extensions[1:])]


def _cut(path: str | os.PathLike[str], image: np.ndarray, model: JwstDataModel) -> np.ndarray:
    shape = model.data.shape[-2:]
    if image.shape == shape:
        return image
    x, y = (model.meta.subarray.xstart or 0), (model.meta.subarray.ystart or 0)
    if image.shape == (_FULL_PIX, _FULL_PIX) and min(x, y) > 0:
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


def path_of(paths: str | dict[str, str], instrument: Any) -> str | None:
    """Return the file for the ``meta.instrument`` of a model: the one named by most words."""
    if isinstance(paths, str):
        return paths
    words = {str(getattr(instrument, name, None) or "") for name in ("name", *OPTICAL_WORDS[1:])}
    right = (entry for entry in paths if set(entry.split("/")) <= words)
    return paths.get(max(right, key=lambda entry: entry.count("/"), default=""))


# ---- 1/f noise ----------------------------------------------------------------------------------


def flicker(
    model: JwstDataModel,
    *,
    n_sigma: float = 3.0,
    fit_method: str = "median",
    fit_by_channel: bool = False,
    background_method: str = "median",
    background_box_pix: int | None = None,
) -> JwstDataModel:
    """Subtract the offsets of rows that are read one after the other: the pipeline's own step.

    Errors, variances and flags stay.  ``n_sigma`` is the threshold above which pixels are sources,
    which the step itself has at 2: faint stripes are left then, as stripes look like sources.
    """
    from jwst.clean_flicker_noise import CleanFlickerNoiseStep
    from jwst.stpipe import Pipeline

    box = None if background_box_pix is None else [background_box_pix] * 2
    step = CleanFlickerNoiseStep(
        skip=False,
        n_sigma=n_sigma,
        fit_method=fit_method,
        fit_by_channel=fit_by_channel,
        background_method=background_method,
        background_box_size=box,
    )
    # The log of a step that has no parent replaces that of the pipeline.
    step.parent = Pipeline()
    before = model.data.copy()
    model = step.process(model)
    status = model.meta.cal_step.clean_flicker_noise
    if status != "COMPLETE":
        msg = f"flicker: the step clean_flicker_noise of jwst ended as {status}; see its log."
        raise TaskError(msg)
    scatter = clipped(before - model.data, sigma=10)[1]
    note(model, f"flicker: offsets of lines, scatter {scatter:.4g} {unit_of(model)}")
    return model


# ---- wisps --------------------------------------------------------------------------------------

_WISP_ROUNDS = 4
_LINE_CLIPS = 8
_FEWEST_OF_LINE = 100


class Fit(NamedTuple):
    """How bright a template is, its standard error, the level of the sky, and how many counted."""

    scale: float
    error: float
    level: float
    pixels: int


def fit_scale(
    data: np.ndarray,
    template: np.ndarray,
    ignore: np.ndarray,
    *,
    sigma: float = 2.5,
    grow_pix: int = 3,
) -> Fit:
    """Return how bright a template is in an image; NaN with too few pixels or a flat template."""
    data, template = np.asarray(data, float), np.asarray(template, float)
    ignore = ignore | ~np.isfinite(data)
    usable = ~ignore & np.isfinite(template)
    shape = np.where(np.isfinite(template), template, 0.0)
    fit = Fit(np.nan, np.nan, np.nan, int(usable.sum()))
    scale = 0.0
    # The wisp itself would be masked as a source, so that it is taken off before sources are found.
    for _ in range(_WISP_ROUNDS):
        masked = source_mask(data - scale * shape, ignore, sigma=sigma, grow_pix=grow_pix)
        sample = usable if scale == 0.0 else usable & ~masked
        fit = _straight_line(template[sample], data[sample])
        if not np.isfinite(fit.scale):
            return fit
        scale = fit.scale
    return fit


def _straight_line(x: np.ndarray, y: np.ndarray) -> Fit:
    """Fit ``y = scale x + level`` without the points that are far off."""
    for _ in range(_LINE_CLIPS):
        if x.size < _FEWEST_OF_LINE:
            break
        mean_x, mean_y = x.mean(), y.mean()
        spread = np.sum((x - mean_x) ** 2)
        # Of a template that is flat nothing can be told from the sky.
        if not spread > 1e-12 * x.size * max(mean_x**2, np.finfo(float).tiny):
            break
        scale = np.sum((x - mean_x) * (y - mean_y)) / spread
        level = mean_y - scale * mean_x
        residual = y - level - scale * x
        middle, scatter = clipped(residual)
        near = np.abs(residual - middle) <= 3 * scatter
        fit = Fit(scale, scatter / np.sqrt(spread), level, x.size)
        if near.all() or scatter == 0:
            return fit
        x, y = x[near], y[near]
    else:
        return fit
    return Fit(np.nan, np.nan, np.nan, int(x.size))


def filled(template: np.ndarray, reach_pix: int) -> np.ndarray:
    """Return a template with its holes filled from known values at most ``reach_pix`` away."""
    from scipy import ndimage

    template = np.asarray(template, float)
    known = np.isfinite(template)
    if known.all() or not known.any() or reach_pix == 0:
        return template
    width = reach_pix / 2
    values = ndimage.gaussian_filter(np.where(known, template, 0.0), width, mode="constant")
    weights = ndimage.gaussian_filter(known.astype(float), width, mode="constant")
    distance = ndimage.distance_transform_edt(~known)
    usable = ~known & (distance <= reach_pix) & (weights > 1e-6)
    return np.where(usable, values / np.where(weights > 0, weights, 1), template)


def wisp(
    model: JwstDataModel,
    *,
    templates: str | dict[str, str],
    scale: float | None = None,
    minimum_snr: float = 3.0,
    sigma: float = 2.5,
    grow_pix: int = 3,
    fill_pix: int = 5,
) -> JwstDataModel:
    """Subtract a template of stray light, scaled to the sky between the sources of the image.

    Errors and variances stay.  Small holes of the template are filled; where it has no value at
    all the pixel is flagged, since to take 0 there would leave the stray light in.
    """
    path = path_of(templates, model.meta.instrument)
    if path is None:
        return model
    template = filled(np.asarray(reference_image(path, model)[0]), fill_pix)
    if not np.isfinite(template).any():
        msg = f"wisp: {path} has no pixel with a value."
        raise TaskError(msg)
    unknown = ~np.isfinite(template)
    shape = np.where(unknown, 0.0, template)
    for image, ignore in planes(model):
        brightness = scale
        if brightness is None:
            fit = fit_scale(image, template, ignore, sigma=sigma, grow_pix=grow_pix)
            brightness, text = _brightness(fit, minimum_snr)
        else:
            text = f"scale {scale:.5g}, as given"
        note(model, f"wisp: {text}")
        # A pixel of the image without a value stays without one.
        image -= (brightness * shape).astype(image.dtype)
    if unknown.any():
        model.dq |= np.where(unknown, np.uint32(DO_NOT_USE), np.uint32(0))
        note(model, f"wisp: {unknown.sum()} pixels flagged, where the template has no value")
    return model


def _brightness(fit: Fit, minimum_snr: float) -> tuple[float, str]:
    """Return how bright a template is, 0 if that may be noise, and a line of history."""
    text = f"scale {fit.scale:.5g} +- {fit.error:.2g} of {fit.pixels} pixels"
    # Without a fit, the scale is NaN.
    if fit.scale > minimum_snr * fit.error:
        return fit.scale, text
    return 0.0, f"{text}, none taken"


# ---- the flat -----------------------------------------------------------------------------------


def divisor_of(
    flat: np.ndarray, flat_dq: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a flat divides by, 1 where it is bad, and where it is bad."""
    flat = np.asarray(flat, float)
    bad = ~np.isfinite(flat) | (flat <= 0)
    if flat_dq is not None:
        bad |= (flat_dq.astype(np.int64) & (DO_NOT_USE | NO_FLAT_FIELD)) != 0
    return np.where(bad, 1.0, flat), bad


def flat(
    model: JwstDataModel, *, flat: str | dict[str, str], mode: str = "divide"
) -> JwstDataModel:
    """Divide by a flat of one's own; the errors and variances with it."""
    path = path_of(flat, model.meta.instrument)
    if path is None:
        return model
    values, error, flags = reference_image(path, model, ("SCI", "ERR", "DQ"))
    divisor, bad = divisor_of(np.asarray(values), flags)
    small = divisor.astype(np.float32)
    model.data /= small
    model.err /= small
    for name in ("var_poisson", "var_rnoise", "var_flat"):
        # To ask for one that is not there would make it.
        if model.hasattr(name) and shape_of(model, name) == model.data.shape:
            variance = getattr(model, name)
            variance /= small**2
    if error is not None:
        added = model.data * np.where(bad | ~np.isfinite(error), 0, error / divisor)
        model.err = np.sqrt(model.err**2 + added**2).astype(model.err.dtype)
    model.dq |= np.where(bad, np.uint32(DO_NOT_USE | NO_FLAT_FIELD), np.uint32(0))
    middle = float(np.median(divisor[~bad])) if not bad.all() else float("nan")
    note(model, f"flat: divided, median {middle:.5g}, {bad.sum()} pixels flagged")
    return model


# ---- the sky, or the pedestal of a detector -----------------------------------------------------

_FEWEST_OF_SKY = 50
_SKY_ROUNDS = 3


def mode_of(values: np.ndarray) -> float:
    """Return the most frequent value: the middle of ever narrower intervals with half of them."""
    values = np.sort(np.asarray(values, float)[np.isfinite(values)])
    while values.size > 16:
        half = (values.size + 1) // 2
        widths = values[half:] - values[: values.size - half]
        first = int(np.argmin(widths))
        values = values[first : first + half + 1]
        if values.size > 16 and values[0] == values[-1]:
            break
    return float(values.mean()) if values.size else np.nan


_LEVELS: dict[str, Callable[[np.ndarray], float]] = {
    "clipped": lambda values: clipped(values)[0],
    "mode": mode_of,
}


def surface(
    data: np.ndarray,
    ignore: np.ndarray,
    *,
    order: int = 0,
    estimator: str = "clipped",
    sigma: float = 2.5,
    grow_pix: int = 3,
) -> tuple[np.ndarray, int]:
    """Return the sky of an image and how many pixels it is from; 0 where they are too few."""
    data = np.asarray(data, float)
    ignore = ignore | ~np.isfinite(data)
    ny, nx = data.shape
    y, x = np.meshgrid(np.linspace(-1, 1, ny), np.linspace(-1, 1, nx), indexing="ij")
    terms = [x**i * y**j for i in range(order + 1) for j in range(order + 1 - i)]
    sky, sample = np.zeros(data.shape), ~ignore
    for _ in range(_SKY_ROUNDS):
        masked = source_mask(data - sky, ignore, sigma=sigma, grow_pix=grow_pix)
        sample = ~ignore & ~masked
        if sample.sum() < max(_FEWEST_OF_SKY, 5 * len(terms)):
            return np.zeros(data.shape), int(sample.sum())
        if order:
            middle, scatter = clipped((data - sky)[sample])
            sample &= np.abs(data - sky - middle) <= 3 * scatter
            sky = _polynomial(terms, data, sample)
        sky = sky + _LEVELS[estimator]((data - sky)[sample])
    return sky, int(sample.sum())


def _polynomial(terms: list[np.ndarray], data: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Return the sum of terms that fits a sample of the pixels best."""
    matrix = np.stack([term[sample] for term in terms], axis=1)
    coefficients, *_ = np.linalg.lstsq(matrix, data[sample], rcond=None)
    return np.tensordot(coefficients, terms, axes=1)


def sky(
    model: JwstDataModel,
    *,
    order: int = 0,
    estimator: str = "clipped",
    sigma: float = 2.5,
    grow_pix: int = 3,
) -> JwstDataModel:
    """Subtract the sky, a polynomial of x and y; errors, variances and flags stay."""
    for image, ignore in planes(model):
        level, pixels = surface(
            image, ignore, order=order, estimator=estimator, sigma=sigma, grow_pix=grow_pix
        )
        image -= level.astype(image.dtype)
        bounds = f"from {level.min():.5g} to {level.max():.5g}"
        note(model, f"sky: mean {np.mean(level):.6g} {unit_of(model)}, {bounds}")
        note(model, f"sky: order {order}, {pixels} pixels")
    return model
