"""The corrections of this package, by name."""

from collections.abc import Callable
from dataclasses import dataclass

from . import flat, flicker, sky, switches, wisp
from .base import IN_STEP, POINTS

__all__ = ["BUILTIN", "Builtin"]

_ON_IMAGES = POINTS[1:]


@dataclass(frozen=True, slots=True)
class Builtin:
    """A correction of this package.

    Attributes
    ----------
    function : callable
        ``function(model, **parameters)`` returns the corrected model; its keyword arguments are the
        parameters.  Of a switch a function that has them and returns ``steps``.
    check : callable
        ``check(parameters)`` refuses wrong values, and returns them as JSON types.
    points : tuple of str
        Where it may be, the default first.
    steps : callable or None
        ``steps(parameters)``: what it asks of the pipeline's own steps.
    files : callable or None
        ``files(parameters)``: the files by what exposures they are for, ``{"": path}`` for all.
    imaging : bool
        Whether it is for images only.
    """

    function: Callable
    check: Callable
    points: tuple = _ON_IMAGES
    steps: Callable | None = None
    files: Callable | None = None
    imaging: bool = True


BUILTIN = {
    "snowballs": Builtin(
        switches.snowballs, switches.check_snowballs, (IN_STEP,), switches.snowballs_steps
    ),
    "clean_flicker_noise": Builtin(
        switches.clean_flicker_noise,
        switches.check_clean_flicker_noise,
        (IN_STEP,),
        switches.clean_flicker_noise_steps,
    ),
    "flicker": Builtin(flicker.correct, flicker.check),
    "wisp": Builtin(wisp.correct, wisp.check, files=wisp.files),
    # Also of spectra, of which it may be in place of the pipeline's.
    "flat": Builtin(flat.correct, flat.check, _ON_IMAGES, flat.steps, flat.files, imaging=False),
    "sky": Builtin(sky.correct, sky.check, ("after_cal", "after_rate", "before_stage3")),
}
"""What ``corrections=`` takes by name."""
