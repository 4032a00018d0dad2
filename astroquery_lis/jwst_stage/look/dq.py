"""Which pixels are flagged, why, and where."""

import numpy as np
from astropy.table import Table

from ...exceptions import InvalidRequestError
from ._axes import new_axes
from .planes import FLAGS, grey, read_plane

__all__ = ["dq_counts", "plot_dq"]

_COLOURS = {
    "DO_NOT_USE": "#ff5d5d",
    "SATURATED": "#ffd24d",
    "JUMP_DET": "#5ec8ff",
    "OUTLIER": "#ff8df0",
    "HOT": "#ff9d3d",
    "DEAD": "#a98bff",
    "NO_FLAT_FIELD": "#6fe39a",
    "REFERENCE_PIXEL": "#c8c8c8",
}
_OTHER = ("#e0f06a", "#4fd6c1", "#f0b0a0", "#9fb4ff")


def dq_counts(path, *, integration=0):
    """Return how many pixels have each flag.

    Parameters
    ----------
    path : path-like
        A product with a DQ plane: of stage 1 or 2, or crf.
    integration : int, optional
        Which one, from 0, where there are several.

    Returns
    -------
    `~astropy.table.Table`
        ``flag``, ``bit``, ``pixels`` and ``share``, of those that occur; the most frequent first.

    Raises
    ------
    InvalidRequestError
        If the product has no flags.
    """
    plane = _flagged(path, integration)
    rows = []
    for name, bit in FLAGS.items():
        pixels = int(np.count_nonzero(plane.dq & np.uint32(1 << bit)))
        if pixels:
            rows.append((name, bit, pixels, pixels / plane.dq.size))
    rows.sort(key=lambda row: -row[2])
    names, types = ("flag", "bit", "pixels", "share"), (str, int, int, float)
    table = Table(rows=rows or None, names=names, dtype=types)
    table["share"].info.format = ".4f"
    return table


def plot_dq(
    path, flags=("DO_NOT_USE", "SATURATED", "JUMP_DET", "OUTLIER"), *, integration=0, ax=None
):
    """Show an image with its flagged pixels in colours.

    Parameters
    ----------
    path : path-like
        A product with a DQ plane.
    flags : sequence of str, optional
        Names out of `~.planes.FLAGS`, the last on top; those that occur are in the legend, with
        how many pixels they have.
    integration : int, optional
        Which one, from 0, where there are several.
    ax : `~matplotlib.axes.Axes`, optional
        By default those of a new figure.

    Returns
    -------
    `~matplotlib.axes.Axes`

    Raises
    ------
    InvalidRequestError
        If the product has no flags, or a name is not one.
    OptionalDependencyError
        If matplotlib is not installed.
    """
    flags = [flags] if isinstance(flags, str) else list(flags)
    unknown = [name for name in flags if name not in FLAGS]
    if unknown:
        msg = f"flags: {unknown[0]!r} is not one of {', '.join(FLAGS)}."
        raise InvalidRequestError(msg, parameter="flags", value=flags)
    plane = _flagged(path, integration)
    ax = new_axes() if ax is None else ax
    picture = np.repeat(grey(plane.data, dq=plane.dq)[..., np.newaxis], 3, axis=2)
    others = iter(_OTHER * len(flags))
    handles = []
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    for name in flags:
        hit = (plane.dq & np.uint32(1 << FLAGS[name])) != 0
        colour = _COLOURS.get(name) or next(others)
        picture[hit] = to_rgb(colour)
        if hit.any():
            handles.append(Patch(color=colour, label=f"{name} {hit.sum():,}"))
    ax.imshow(picture, origin="lower", interpolation="nearest")
    ax.set(xlabel="x (pixels)", ylabel="y (pixels)")
    ax.set_title(plane.name, fontsize="small")
    if handles:
        ax.legend(handles=handles, loc="upper right", fontsize="x-small", framealpha=0.85)
    return ax


def _flagged(path, integration):
    plane = read_plane(path, integration=integration)
    if plane.dq is None:
        msg = f"path={str(path)!r} has no DQ plane; rate, cal and crf products have one."
        raise InvalidRequestError(msg, parameter="path", value=path)
    return plane
