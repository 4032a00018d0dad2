"""Count rates of modes other than NIRCam's imaging, and references that serve them."""

from .exposures import ModeObservation
from .miri_images import simulate_background, simulate_coronagraph
from .miri_lrs import simulate_lrs
from .miri_mrs import simulate_mrs
from .nircam_slitless import simulate_slitless
from .nircam_stars import simulate_time_series, simulate_wavefront
from .niriss import simulate_masking, simulate_niriss

__all__ = [
    "ModeObservation",
    "simulate_background",
    "simulate_coronagraph",
    "simulate_lrs",
    "simulate_masking",
    "simulate_mrs",
    "simulate_niriss",
    "simulate_slitless",
    "simulate_time_series",
    "simulate_wavefront",
]
