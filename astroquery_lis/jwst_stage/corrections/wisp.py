"""Wisps: stray light of a fixed shape and a changing brightness, on a few detectors.

The shape is a template, the brightness is fitted to the sky between the sources.  Where a template
has no value it is filled from its surroundings; where these have none, the pixel is flagged, since
to take 0 there would leave the stray light in.
"""

from typing import NamedTuple

import numpy as np

from ...exceptions import TaskError
from .checks import number, path_of, paths_of, refuse, whole
from .masks import clipped, source_mask
from .models import DO_NOT_USE, note, planes, reference_image

__all__ = ["Fit", "check", "correct", "files", "filled", "fit_scale"]

_ROUNDS = 4
_CLIPS = 8
_FEWEST = 100


class Fit(NamedTuple):
    """Result of `fit_scale`.

    Attributes
    ----------
    scale, error : float
        How bright the template is, and the standard error of that.
    level : float
        Of the sky.
    pixels : int
        How many counted.
    """

    scale: float
    error: float
    level: float
    pixels: int


def fit_scale(data, template, ignore, *, sigma=2.5, grow_pix=3):
    """Return how bright a template is in an image.

    Parameters
    ----------
    data : `~numpy.ndarray`
        Image, shape (ny, nx): the template times a scale, a constant sky, sources, noise.
    template : `~numpy.ndarray`
        Shape (ny, nx); NaN where it is not known.
    ignore : `~numpy.ndarray` of bool
        Pixels that do not count, beside the sources that are found.
    sigma, grow_pix
        As for `~.masks.source_mask`.

    Returns
    -------
    Fit
        ``scale`` and its standard ``error``, the ``level`` of the sky, and the number of
        ``pixels`` that counted.  All but the last are NaN where there are too few pixels, or
        the template is flat.
    """
    data, template = np.asarray(data, float), np.asarray(template, float)
    ignore = ignore | ~np.isfinite(data)
    known = ~ignore & np.isfinite(template)
    shape = np.where(np.isfinite(template), template, 0.0)
    fit = Fit(np.nan, np.nan, np.nan, int(known.sum()))
    scale = 0.0
    # The wisp itself would be masked as a source, so that it is taken off before sources are found.
    for _ in range(_ROUNDS):
        masked = source_mask(data - scale * shape, ignore, sigma=sigma, grow_pix=grow_pix)
        used = known & ~masked
        if scale == 0.0:
            used = known
        fit = _straight_line(template[used], data[used])
        if not np.isfinite(fit.scale):
            return fit
        scale = fit.scale
    return fit


def _straight_line(x, y):
    """Fit ``y = scale x + level`` without the points that are far off."""
    for _ in range(_CLIPS):
        if x.size < _FEWEST:
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
        kept = np.abs(residual - middle) <= 3 * scatter
        if kept.all() or scatter == 0:
            return Fit(scale, scatter / np.sqrt(spread), level, x.size)
        error, count = scatter / np.sqrt(spread), x.size
        x, y = x[kept], y[kept]
    else:
        return Fit(scale, error, level, count)
    return Fit(np.nan, np.nan, np.nan, int(x.size))


def filled(template, reach_pix):
    """Return a template with its small holes filled from around them.

    Parameters
    ----------
    template : `~numpy.ndarray`
        Shape (ny, nx); NaN where it is not known.
    reach_pix : int
        How far a value may come from, in pixels.

    Returns
    -------
    `~numpy.ndarray`
        Shape (ny, nx); means of the known values around, weighted by distance.  Still NaN in
        the middle of large holes.
    """
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


def correct(model, *, templates, scale=None, minimum_snr=3.0, sigma=2.5, grow_pix=3, fill_pix=5):
    """Subtract a template of stray light, scaled to the image; errors and variances stay.

    Parameters
    ----------
    model : datamodel
        Of stage 1 or 2.
    templates : str or dict of str to str
        FITS file with the shape of the wisp, in any unit: of the detector or the subarray; or files
        by detector, or by detector and filter (``'NRCB4/F200W'``).  Exposures that none is for are
        left as they are.
    scale : float, optional
        Brightness of the template in the unit of the image; fitted by default.
    minimum_snr : float, optional
        A fitted brightness with a lower ratio to its error is taken for none.
    sigma, grow_pix
        As for `~.flicker.correct`.
    fill_pix : int, optional
        How far holes of the template are filled.

    Returns
    -------
    datamodel

    Raises
    ------
    TaskError
        If the template does not fit the image, or has no value.
    """
    path = path_of(templates, model.meta.instrument)
    if path is None:
        return model
    template = filled(reference_image(path, model)[0], fill_pix)
    if not np.isfinite(template).any():
        msg = f"wisp: {path} has no pixel with a value."
        raise TaskError(msg)
    unknown = ~np.isfinite(template)
    shape = np.where(unknown, 0.0, template)
    for image, ignore in planes(model):
        if scale is None:
            fit = fit_scale(image, template, ignore, sigma=sigma, grow_pix=grow_pix)
            is_there = np.isfinite(fit.scale) and fit.scale > minimum_snr * fit.error
            taken = fit.scale if is_there else 0.0
            told = f"scale {fit.scale:.5g} +- {fit.error:.2g} of {fit.pixels} pixels"
            note(model, f"wisp: {told}{'' if is_there else ', none taken'}")
        else:
            taken = scale
            note(model, f"wisp: scale {scale:.5g}, as given")
        # A pixel of the image without a value stays without one.
        image -= (taken * shape).astype(image.dtype)
    if unknown.any():
        model.dq |= np.where(unknown, np.uint32(DO_NOT_USE), np.uint32(0))
        note(model, f"wisp: {unknown.sum()} pixels flagged, where the template has no value")
    return model


def check(parameters):
    """Return the parameters of `correct`, checked."""
    name = "wisp"
    if "templates" not in parameters:
        refuse(name, "templates", None, "given: a FITS file, or files by detector")
    parameters["templates"] = paths_of(name, "templates", parameters["templates"])
    if parameters.get("scale") is None:
        parameters.pop("scale", None)
    for key, low, high in (("scale", 0, 1e30), ("minimum_snr", 0, 1e6), ("sigma", 0.5, 100)):
        if key in parameters:
            parameters[key] = number(name, key, parameters[key], low=low, high=high)
    for key in ("grow_pix", "fill_pix"):
        if key in parameters:
            whole(name, key, parameters[key], high=50)
    return parameters


def files(parameters):
    """Return the templates by the exposures that they are for."""
    templates = parameters["templates"]
    return templates if isinstance(templates, dict) else {"": templates}
