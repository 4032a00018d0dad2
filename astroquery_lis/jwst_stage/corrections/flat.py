"""A flat of one's own: in place of that of the pipeline, or beside it."""

import numpy as np

from .checks import choice, path_of, paths_of, refuse
from .models import DO_NOT_USE, NO_FLAT_FIELD, note, reference_image

__all__ = ["check", "correct", "divided", "files", "steps"]

_MODES = ("divide", "replace")


def divided(flat, flat_dq=None):
    """Return what a flat divides by, and where it is of no use.

    Parameters
    ----------
    flat : `~numpy.ndarray`
        Shape (ny, nx).
    flat_dq : `~numpy.ndarray` of int, optional
        Its flags, as of the pipeline's reference files.

    Returns
    -------
    divisor : `~numpy.ndarray`
        1 where the flat is bad.
    bad : `~numpy.ndarray` of bool
        Where the flat has no value, one that is not positive, or a flag that forbids it.
    """
    flat = np.asarray(flat, float)
    bad = ~np.isfinite(flat) | (flat <= 0)
    if flat_dq is not None:
        bad |= (flat_dq.astype(np.int64) & (DO_NOT_USE | NO_FLAT_FIELD)) != 0
    return np.where(bad, 1.0, flat), bad


def correct(model, *, flat, mode="divide"):
    """Divide by a flat; the errors and variances with it.

    Parameters
    ----------
    model : datamodel
        Of stage 1 or 2.
    flat : str or dict of str to str
        FITS file with the flat in ``SCI``, and if there are any its error in ``ERR`` and its flags
        in ``DQ``: of the detector or the subarray; or files by detector.
    mode : {'divide', 'replace'}, optional
        With 'replace' the pipeline's own step is skipped, and the correction has to be after stage
        1; with 'divide' both are applied.

    Returns
    -------
    datamodel

    Raises
    ------
    TaskError
        If the flat does not fit the image.
    """
    path = path_of(flat, model.meta.instrument)
    if path is None:
        return model
    values, error, flags = reference_image(path, model, ("SCI", "ERR", "DQ"))
    divisor, bad = divided(values, flags)
    small = divisor.astype(np.float32)
    model.data /= small
    model.err /= small
    for name in ("var_poisson", "var_rnoise", "var_flat"):
        if model.hasattr(name) and getattr(model, name) is not None:
            variance = getattr(model, name)
            if variance.shape == model.data.shape:
                variance /= small**2
    if error is not None:
        added = model.data * np.where(bad | ~np.isfinite(error), 0, error / divisor)
        model.err = np.sqrt(model.err**2 + added**2).astype(model.err.dtype)
    model.dq |= np.where(bad, np.uint32(DO_NOT_USE | NO_FLAT_FIELD), np.uint32(0))
    middle = float(np.median(divisor[~bad])) if not bad.all() else float("nan")
    note(model, f"flat: divided, median {middle:.5g}, {bad.sum()} pixels flagged")
    return model


def check(parameters):
    """Return the parameters of `correct`, checked."""
    if "flat" not in parameters:
        refuse("flat", "flat", None, "given: a FITS file, or files by detector")
    parameters["flat"] = paths_of("flat", "flat", parameters["flat"])
    choice("flat", "mode", parameters.get("mode", "divide"), _MODES)
    if parameters.get("mode") == "replace" and any("/" in words for words in files(parameters)):
        allowed = "files by single words such as 'NRCA3', since the pipeline's flat is skipped"
        refuse("flat", "flat", parameters["flat"], allowed)
    return parameters


def files(parameters):
    """Return the flats by the exposures that they are for."""
    flats = parameters["flat"]
    return flats if isinstance(flats, dict) else {"": flats}


def steps(parameters):
    """Return what `correct` asks of the pipeline's own flat."""
    if parameters.get("mode") != "replace":
        return {}
    return {words: {"flat_field": {"skip": True}} for words in files(parameters)}
