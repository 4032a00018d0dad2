"""Pictures of the chain: ramps with their jumps, stages side by side, flags."""

from .dq import dq_counts, plot_dq
from .planes import FLAGS, grey, read_plane
from .ramp import plot_ramp, read_ramp
from .stages import plot_stages

__all__ = [
    "FLAGS",
    "dq_counts",
    "grey",
    "plot_dq",
    "plot_ramp",
    "plot_stages",
    "read_plane",
    "read_ramp",
]
