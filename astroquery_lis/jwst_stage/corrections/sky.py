"""The sky, or the pedestal of a detector: a constant, or a surface of low order."""

import numpy as np

from .checks import choice, number, whole
from .masks import clipped, source_mask
from .models import note, planes, unit_of

__all__ = ["check", "correct", "mode_of", "surface"]

_ESTIMATORS = ("clipped", "mode")
_ROUNDS = 3
_FEWEST = 50


def mode_of(values):
    """Return the most frequent value: the middle of the narrowest interval with half of them.

    Parameters
    ----------
    values : `~numpy.ndarray`
        What is not finite does not count.

    Returns
    -------
    float
        Found by halving the interval until few values are left; NaN without values.
    """
    values = np.sort(np.asarray(values, float)[np.isfinite(values)])
    while values.size > 16:
        half = (values.size + 1) // 2
        widths = values[half:] - values[: values.size - half]
        first = int(np.argmin(widths))
        values = values[first : first + half + 1]
        if values.size > 16 and values[0] == values[-1]:
            break
    return float(values.mean()) if values.size else np.nan


def surface(data, ignore, *, order=0, estimator="clipped", sigma=2.5, grow_pix=3):
    """Return the sky of an image.

    Parameters
    ----------
    data : `~numpy.ndarray`
        Image, shape (ny, nx).
    ignore : `~numpy.ndarray` of bool
        Pixels that do not count, beside the sources that are found.
    order : int, optional
        Highest total power of x and y; 0 for a constant.
    estimator : {'clipped', 'mode'}, optional
        Of the constant; of a surface of a higher order, of what is left without it.
    sigma, grow_pix
        As for `~.masks.source_mask`.

    Returns
    -------
    sky : `~numpy.ndarray`
        Shape (ny, nx), finite everywhere; 0 where there are too few pixels to tell.
    pixels : int
        How many counted.
    """
    data = np.asarray(data, float)
    ignore = ignore | ~np.isfinite(data)
    ny, nx = data.shape
    y, x = np.meshgrid(np.linspace(-1, 1, ny), np.linspace(-1, 1, nx), indexing="ij")
    terms = [x**i * y**j for i in range(order + 1) for j in range(order + 1 - i)]
    sky, used = np.zeros(data.shape), ~ignore
    for _ in range(_ROUNDS):
        masked = source_mask(data - sky, ignore, sigma=sigma, grow_pix=grow_pix)
        used = ~ignore & ~masked
        if used.sum() < max(_FEWEST, 5 * len(terms)):
            return np.zeros(data.shape), int(used.sum())
        if order:
            middle, scatter = clipped((data - sky)[used])
            used &= np.abs(data - sky - middle) <= 3 * scatter
            matrix = np.stack([term[used] for term in terms], axis=1)
            solved, *_ = np.linalg.lstsq(matrix, data[used], rcond=None)
            sky = np.tensordot(solved, terms, axes=1)
        left = (data - sky)[used]
        sky = sky + (mode_of(left) if estimator == "mode" else clipped(left)[0])
    return sky, int(used.sum())


def correct(model, *, order=0, estimator="clipped", sigma=2.5, grow_pix=3):
    """Subtract the sky; errors, variances and flags stay.

    Parameters
    ----------
    model : datamodel
        Of stage 1 or 2.
    order : int, optional
        Highest total power of x and y, 0 to 3; 0 for a constant.
    estimator : {'clipped', 'mode'}, optional
        Median of the sky without what is far off, or its most frequent value, which sources that
        were not found move less.
    sigma, grow_pix
        As for `~.flicker.correct`.

    Returns
    -------
    datamodel
    """
    for image, ignore in planes(model):
        sky, pixels = surface(
            image, ignore, order=order, estimator=estimator, sigma=sigma, grow_pix=grow_pix
        )
        image -= sky.astype(image.dtype)
        told = f"{np.mean(sky):.6g} {unit_of(model)}, from {sky.min():.5g} to {sky.max():.5g}"
        note(model, f"sky: mean {told}")
        note(model, f"sky: order {order}, {pixels} pixels")
    return model


def check(parameters):
    """Return the parameters of `correct`, checked."""
    if "order" in parameters:
        whole("sky", "order", parameters["order"], high=3)
    if "estimator" in parameters:
        choice("sky", "estimator", parameters["estimator"], _ESTIMATORS)
    if "sigma" in parameters:
        parameters["sigma"] = number("sky", "sigma", parameters["sigma"], low=0.5, high=100)
    if "grow_pix" in parameters:
        whole("sky", "grow_pix", parameters["grow_pix"], high=50)
    return parameters
