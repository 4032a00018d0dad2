"""The corrections of this package: switches of the pipeline's steps, 1/f, wisps, flat, sky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...exceptions import TaskError
from . import pixels
from .correction import (
    IN_STEP,
    POINTS,
    choice,
    file_digest,
    flag,
    json_digest,
    number,
    path_of,
    paths_of,
    refuse,
    whole,
)
from .pixels import (
    DO_NOT_USE,
    NO_FLAT_FIELD,
    clipped,
    note,
    planes,
    reference_image,
    source_mask,
    unit_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from stdatamodels.jwst.datamodels import JwstDataModel

_ROUNDS = 3


def _check_mask(name: str, parameters: dict) -> None:
    """Check the parameters of the mask of sources."""
    if "sigma" in parameters:
        parameters["sigma"] = number(name, "sigma", parameters["sigma"], low=0.5, high=100)
    if "grow_pix" in parameters:
        whole(name, "grow_pix", parameters["grow_pix"], high=50)


def _by_words(paths: str | dict[str, str]) -> dict[str, str]:
    """Return files by the exposures that they are for, under '' for all."""
    return paths if isinstance(paths, dict) else {"": paths}


# ---- switches: the pipeline has them itself, as steps with what they need -----------------------


def snowballs(
    model: JwstDataModel,
    *,
    min_jump_area: float | None = None,
    expand_factor: float | None = None,
    edge_size: int | None = None,
) -> None:
    """Flag large cosmic-ray events: ``jump.expand_large_events``; the step itself does it."""


def check_snowballs(parameters: dict) -> dict:
    """Return the parameters of `snowballs`, checked."""
    for key in ("min_jump_area", "expand_factor"):
        if key in parameters:
            number("snowballs", key, parameters[key], low=1, high=1e6)
    if "edge_size" in parameters:
        value = parameters["edge_size"]
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            refuse("snowballs", "edge_size", value, "a number of pixels, 0 or more")
    return parameters


def snowballs_steps(parameters: dict) -> dict:
    """Return what `snowballs` asks of the jump step."""
    return {"": {"jump": {"expand_large_events": True, **parameters}}}


def clean_flicker_noise(
    model: JwstDataModel,
    *,
    fit_method: str | None = None,
    fit_by_channel: bool | None = None,
    mask_science_regions: bool | None = None,
) -> None:
    """Take 1/f noise out of the groups: the step ``clean_flicker_noise`` of stage 1 does it."""


def check_clean_flicker_noise(parameters: dict) -> dict:
    """Return the parameters of `clean_flicker_noise`, checked."""
    name = "clean_flicker_noise"
    if "fit_method" in parameters:
        choice(name, "fit_method", parameters["fit_method"], ("median", "fft"))
    for key in ("fit_by_channel", "mask_science_regions"):
        if key in parameters:
            flag(name, key, parameters[key])
    return parameters


def clean_flicker_noise_steps(parameters: dict) -> dict:
    """Return what `clean_flicker_noise` asks of its step."""
    return {"": {"clean_flicker_noise": {"skip": False, **parameters}}}


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


def check_flicker(parameters: dict) -> dict:
    """Return the parameters of `flicker`, checked."""
    name = "flicker"
    if "n_sigma" in parameters:
        parameters["n_sigma"] = number(name, "n_sigma", parameters["n_sigma"], low=0.5, high=100)
    if "fit_by_channel" in parameters:
        flag(name, "fit_by_channel", parameters["fit_by_channel"])
    for key, allowed in (("fit_method", ("median", "fft")), ("background_method", _BACKGROUNDS)):
        if key in parameters:
            choice(name, key, parameters[key], allowed)
    if "background_box_pix" in parameters:
        whole(name, "background_box_pix", parameters["background_box_pix"], low=2, high=2048)
    return parameters


_BACKGROUNDS = ("median", "model")


# ---- wisps --------------------------------------------------------------------------------------

_WISP_ROUNDS = 4
_CLIPS = 8
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
    for _ in range(_CLIPS):
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
        if scale is None:
            fit = fit_scale(image, template, ignore, sigma=sigma, grow_pix=grow_pix)
            is_there = np.isfinite(fit.scale) and fit.scale > minimum_snr * fit.error
            brightness = fit.scale if is_there else 0.0
            text = f"scale {fit.scale:.5g} +- {fit.error:.2g} of {fit.pixels} pixels"
            note(model, f"wisp: {text}{'' if is_there else ', none taken'}")
        else:
            brightness = scale
            note(model, f"wisp: scale {scale:.5g}, as given")
        # A pixel of the image without a value stays without one.
        image -= (brightness * shape).astype(image.dtype)
    if unknown.any():
        model.dq |= np.where(unknown, np.uint32(DO_NOT_USE), np.uint32(0))
        note(model, f"wisp: {unknown.sum()} pixels flagged, where the template has no value")
    return model


def check_wisp(parameters: dict) -> dict:
    """Return the parameters of `wisp`, checked."""
    name = "wisp"
    if "templates" not in parameters:
        refuse(name, "templates", None, "given: a FITS file, or files by detector")
    parameters["templates"] = paths_of(name, "templates", parameters["templates"])
    if parameters.get("scale") is None:
        parameters.pop("scale", None)
    for key, high in (("scale", 1e30), ("minimum_snr", 1e6)):
        if key in parameters:
            parameters[key] = number(name, key, parameters[key], low=0, high=high)
    _check_mask(name, parameters)
    if "fill_pix" in parameters:
        whole(name, "fill_pix", parameters["fill_pix"], high=50)
    return parameters


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
        variance = getattr(model, name) if model.hasattr(name) else None
        if variance is not None and variance.shape == model.data.shape:
            variance /= small**2
    if error is not None:
        added = model.data * np.where(bad | ~np.isfinite(error), 0, error / divisor)
        model.err = np.sqrt(model.err**2 + added**2).astype(model.err.dtype)
    model.dq |= np.where(bad, np.uint32(DO_NOT_USE | NO_FLAT_FIELD), np.uint32(0))
    middle = float(np.median(divisor[~bad])) if not bad.all() else float("nan")
    note(model, f"flat: divided, median {middle:.5g}, {bad.sum()} pixels flagged")
    return model


def check_flat(parameters: dict) -> dict:
    """Return the parameters of `flat`, checked."""
    if "flat" not in parameters:
        refuse("flat", "flat", None, "given: a FITS file, or files by detector")
    parameters["flat"] = paths_of("flat", "flat", parameters["flat"])
    mode = choice("flat", "mode", parameters.get("mode", "divide"), ("divide", "replace"))
    if mode == "replace" and any("/" in words for words in _by_words(parameters["flat"])):
        allowed = "files by single words such as 'NRCA3', since the pipeline's flat is skipped"
        refuse("flat", "flat", parameters["flat"], allowed)
    return parameters


def flat_steps(parameters: dict) -> dict:
    """Return what `flat` asks of the pipeline's own flat: with 'replace', to be skipped."""
    if parameters.get("mode") != "replace":
        return {}
    return {words: {"flat_field": {"skip": True}} for words in _by_words(parameters["flat"])}


# ---- the sky, or the pedestal of a detector -----------------------------------------------------

_FEWEST_OF_SKY = 50


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
    for _ in range(_ROUNDS):
        masked = source_mask(data - sky, ignore, sigma=sigma, grow_pix=grow_pix)
        sample = ~ignore & ~masked
        if sample.sum() < max(_FEWEST_OF_SKY, 5 * len(terms)):
            return np.zeros(data.shape), int(sample.sum())
        if order:
            middle, scatter = clipped((data - sky)[sample])
            sample &= np.abs(data - sky - middle) <= 3 * scatter
            matrix = np.stack([term[sample] for term in terms], axis=1)
            coefficients, *_ = np.linalg.lstsq(matrix, data[sample], rcond=None)
            sky = np.tensordot(coefficients, terms, axes=1)
        residual = (data - sky)[sample]
        sky = sky + (mode_of(residual) if estimator == "mode" else clipped(residual)[0])
    return sky, int(sample.sum())


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


def check_sky(parameters: dict) -> dict:
    """Return the parameters of `sky`, checked."""
    if "order" in parameters:
        whole("sky", "order", parameters["order"], high=3)
    if "estimator" in parameters:
        choice("sky", "estimator", parameters["estimator"], ("clipped", "mode"))
    _check_mask("sky", parameters)
    return parameters


# ---- the table ----------------------------------------------------------------------------------

_ON_IMAGES = POINTS[1:]


@dataclass(frozen=True, slots=True)
class Builtin:
    """A correction of this package.

    ``function(model, **parameters)`` returns the corrected model, and its keyword arguments are the
    parameters; ``check`` refuses wrong values; ``points`` are where it may be, the default first;
    ``steps`` gives what it asks of the pipeline's own steps; ``file_parameter`` names its files.
    """

    function: Callable
    check: Callable[[dict], dict]
    points: tuple[str, ...] = _ON_IMAGES
    steps: Callable[[dict], dict] | None = None
    file_parameter: str = ""
    imaging: bool = True

    def files(self, parameters: dict) -> dict[str, str]:
        """Return the files among the parameters by the exposures that they are for."""
        return _by_words(parameters[self.file_parameter]) if self.file_parameter else {}


BUILTIN = {
    "snowballs": Builtin(snowballs, check_snowballs, (IN_STEP,), snowballs_steps),
    "clean_flicker_noise": Builtin(
        clean_flicker_noise, check_clean_flicker_noise, (IN_STEP,), clean_flicker_noise_steps
    ),
    "flicker": Builtin(flicker, check_flicker),
    "wisp": Builtin(wisp, check_wisp, file_parameter="templates"),
    # Also of spectra, of which it may replace the pipeline's.
    "flat": Builtin(flat, check_flat, _ON_IMAGES, flat_steps, "flat", imaging=False),
    "sky": Builtin(sky, check_sky, ("after_cal", "after_rate", "before_stage3")),
}
"""What ``corrections=`` takes by name."""


def builtin_digest() -> str:
    """Return the digest of the code of the corrections of this package."""
    return json_digest([file_digest(__file__), file_digest(pixels.__file__)])
