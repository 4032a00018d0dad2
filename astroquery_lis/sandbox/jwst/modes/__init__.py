"""Count rates of modes other than NIRCam's imaging, and references that serve them."""

from .exposures import ModeObservation
from .miri_imaging import simulate_background

__all__ = ["ModeObservation", "simulate_background"]
