"""Corrections that the pipeline has itself: its own steps, switched on with what they need."""

from .checks import choice, flag, number, refuse

__all__ = [
    "check_clean_flicker_noise",
    "check_snowballs",
    "clean_flicker_noise",
    "clean_flicker_noise_steps",
    "snowballs",
    "snowballs_steps",
]


def snowballs(model, *, min_jump_area=None, expand_factor=None, edge_size=None):
    """Flag large cosmic-ray events: ``jump.expand_large_events``.

    Parameters
    ----------
    model : object
        Not used: the step of the pipeline does it.
    min_jump_area : float, optional
        Area in pixels from which a group of jumps is large; otherwise the pipeline's own.
    expand_factor : float, optional
        By how much the flagged area is made larger; otherwise the pipeline's own.
    edge_size : int, optional
        Distance in pixels from the edge within which no saturated core is asked for; otherwise the
        pipeline's own.
    """


def check_snowballs(parameters):
    """Return the parameters of `snowballs`, checked."""
    for key in ("min_jump_area", "expand_factor"):
        if key in parameters:
            number("snowballs", key, parameters[key], low=1, high=1e6)
    if "edge_size" in parameters:
        value = parameters["edge_size"]
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            refuse("snowballs", "edge_size", value, "a number of pixels, 0 or more")
    return parameters


def snowballs_steps(parameters):
    """Return what `snowballs` asks of the jump step."""
    return {"": {"jump": {"expand_large_events": True, **parameters}}}


def clean_flicker_noise(model, *, fit_method=None, fit_by_channel=None, mask_science_regions=None):
    """Take 1/f noise out of the groups: the step ``clean_flicker_noise`` of stage 1.

    Parameters
    ----------
    model : object
        Not used: the step of the pipeline does it.
    fit_method : {'median', 'fft'}, optional
        How the noise is fitted; otherwise the pipeline's own.
    fit_by_channel : bool, optional
        Whether each amplifier is fitted by itself; otherwise the pipeline's own.
    mask_science_regions : bool, optional
        Whether regions that hold signal by design are left out; otherwise the pipeline's own.
    """


def check_clean_flicker_noise(parameters):
    """Return the parameters of `clean_flicker_noise`, checked."""
    if "fit_method" in parameters:
        value = parameters["fit_method"]
        choice("clean_flicker_noise", "fit_method", value, ("median", "fft"))
    for key in ("fit_by_channel", "mask_science_regions"):
        if key in parameters:
            flag("clean_flicker_noise", key, parameters[key])
    return parameters


def clean_flicker_noise_steps(parameters):
    """Return what `clean_flicker_noise` asks of its step."""
    return {"": {"clean_flicker_noise": {"skip": False, **parameters}}}
