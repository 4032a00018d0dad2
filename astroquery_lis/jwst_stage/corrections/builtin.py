"""The corrections of this package: switches of the pipeline's steps, 1/f, wisps, flat, sky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...exceptions import TaskError
from ...io.whole_files import sha256_of
from . import pixels
from .correction import (
    IN_STEP,
    POINTS,
    Rule,
    choice,
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
    from collections.abc import Callable, Mapping

    from stdatamodels.jwst.datamodels import JwstDataModel

_ROUNDS = 3


def _by_words(paths: str | dict[str, str]) -> dict[str, str]:
    """Return files by the exposures that they are for, under '' for all."""
    return paths if isinstance(paths, dict) else {"": paths}


# ---- switches: the pipeline has them itself, as steps with what they need -----------------------


def snowballs_steps(parameters: dict) -> dict:
    """Return what `snowballs` asks of the jump step: to flag large cosmic-ray events."""
    return {"": {"jump": {"expand_large_events": True, **parameters}}}


def clean_flicker_noise_steps(parameters: dict) -> dict:
    """Return what `clean_flicker_noise` asks of its step: to take 1/f noise out of the groups."""
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


def flat_steps(parameters: dict) -> dict:
    """Return what `flat` asks of the pipeline's own flat: with 'replace', to be skipped."""
    if parameters.get("mode") != "replace":
        return {}
    skipped = _by_words(parameters["flat"])
    if any("/" in words for words in skipped):
        allowed = "files by single words such as 'NRCA3', since the pipeline's flat is skipped"
        refuse("flat", "flat", parameters["flat"], allowed)
    return {words: {"flat_field": {"skip": True}} for words in skipped}


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


# ---- the table ----------------------------------------------------------------------------------

_ON_IMAGES = POINTS[1:]
_IN_STEP = (IN_STEP,)
_MASK: dict[str, Rule] = {"sigma": number(0.5, 100), "grow_pix": whole(0, 50)}
_FIT: dict[str, Rule] = {
    "fit_method": choice("median", "fft"),
    "fit_by_channel": choice(True, False),
}


@dataclass(frozen=True, slots=True)
class Builtin:
    """A correction of this package.

    ``function(model, **parameters)`` returns the corrected model; ``parameters`` are its keyword
    arguments, each with what refuses wrong values; ``points`` are where it may be, the default
    first; ``steps`` gives what it asks of the pipeline's own steps; ``file_parameter`` names its
    files, and has to be given.
    """

    function: Callable | None
    parameters: Mapping[str, Rule]
    points: tuple[str, ...] = _ON_IMAGES
    steps: Callable[[dict], dict] | None = None
    file_parameter: str = ""
    imaging: bool = True

    def check(self, name: str, values: Mapping[str, object]) -> dict:
        """Return parameters as they are written down; what is `None` is left out."""
        checked = {k: self.parameters[k](name, k, v) for k, v in values.items() if v is not None}
        if self.file_parameter and self.file_parameter not in checked:
            refuse(name, self.file_parameter, None, "given: a FITS file, or files by detector")
        return checked

    def files(self, parameters: dict) -> dict[str, str]:
        """Return the files among the parameters by the exposures that they are for."""
        return _by_words(parameters[self.file_parameter]) if self.file_parameter else {}


BUILTIN = {
    "snowballs": Builtin(
        None,
        {
            "min_jump_area": number(1, 1e6),
            "expand_factor": number(1, 1e6),
            "edge_size": whole(0, 10_000),
        },
        _IN_STEP,
        snowballs_steps,
    ),
    "clean_flicker_noise": Builtin(
        None,
        {**_FIT, "mask_science_regions": choice(True, False)},
        _IN_STEP,
        clean_flicker_noise_steps,
    ),
    "flicker": Builtin(
        flicker,
        {
            "n_sigma": number(0.5, 100),
            **_FIT,
            "background_method": choice("median", "model"),
            "background_box_pix": whole(2, 2048),
        },
    ),
    "wisp": Builtin(
        wisp,
        {
            "templates": paths_of,
            "scale": number(0, 1e30),
            "minimum_snr": number(0, 1e6),
            **_MASK,
            "fill_pix": whole(0, 50),
        },
        file_parameter="templates",
    ),
    # Also of spectra, of which it may replace the pipeline's.
    "flat": Builtin(
        flat,
        {"flat": paths_of, "mode": choice("divide", "replace")},
        _ON_IMAGES,
        flat_steps,
        "flat",
        imaging=False,
    ),
    "sky": Builtin(
        sky,
        {"order": whole(0, 3), "estimator": choice("clipped", "mode"), **_MASK},
        ("after_cal", "after_rate", "before_stage3"),
    ),
}
"""What ``corrections=`` takes by name."""


def builtin_digest() -> str:
    """Return the digest of the code of the corrections of this package."""
    return json_digest([sha256_of(__file__), sha256_of(pixels.__file__)])
