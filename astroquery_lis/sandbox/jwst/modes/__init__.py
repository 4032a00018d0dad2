"""Count rates of modes other than NIRCam's imaging, and references that serve them."""

from .exposures import ModeObservation
from .miri_coronagraph import simulate_coronagraph
from .miri_imaging import simulate_background
from .miri_lrs import simulate_lrs
from .miri_mrs import simulate_mrs
from .nircam_series import simulate_time_series
from .nircam_slitless import simulate_slitless
from .nircam_wavefront import simulate_wavefront
from .niriss_imaging import simulate_niriss
from .niriss_masking import simulate_masking

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
