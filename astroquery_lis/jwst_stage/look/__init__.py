"""Pictures of the chain: ramps with their jumps, stages side by side, flags."""

from .plots import plot_dq, plot_ramp, plot_stages
from .products import FLAGS, dq_counts, grey, read_plane, read_ramp

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
