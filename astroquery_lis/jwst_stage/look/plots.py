"""Plots of the chain: ramps with their jumps, stages side by side, flagged pixels."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from ..._packages import import_optional
from ...exceptions import InvalidRequestError
from .products import FLAGS, grey, read_flagged, read_plane, read_ramp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..._typing import FilePath
    from .products import Ramp

__all__ = ["plot_dq", "plot_ramp", "plot_stages"]

_DO_NOT_USE, _SATURATED, _JUMP = 1, 2, 4
_MARKS = {
    "jump": (_JUMP, "#0b7fd1", "D"),
    "saturated": (_SATURATED, "#c98a00", "s"),
    "not used": (_DO_NOT_USE, "#c0392b", "x"),
}

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

_MOST = 12
_COLUMNS = 4


def _new_figure(size: tuple[float, float] | None = None) -> Figure:
    import_optional("matplotlib", "plot", "A picture")
    from matplotlib import pyplot

    return pyplot.figure(figsize=size, layout="constrained")


def plot_stages(files: FilePath | Sequence[FilePath], *, integration: int = 0) -> Figure:
    """Show products side by side, such as uncal, rate, cal and i2d.

    Parameters
    ----------
    files : sequence of path-like
        Up to 12 products, in the order of the panels.
    integration : int, optional
        Which one, from 0, of products that have several.

    Returns
    -------
    `~matplotlib.figure.Figure`
        A panel each, with levels of its own: grey by arcsinh of the noise, middle grey where there
        is no value.  Of groups the last less the first is shown.

    Raises
    ------
    InvalidRequestError
        If there are no files or too many, or one has no image.
    OptionalDependencyError
        If matplotlib is not installed.
    """
    if isinstance(files, (str, os.PathLike)):
        files = [files]
    if not 1 <= len(files) <= _MOST:
        msg = f"files: {len(files)} were given; 1 to {_MOST} can be shown."
        raise InvalidRequestError(msg, parameter="files", value=files)
    planes = [read_plane(path, integration=integration) for path in files]
    columns = min(_COLUMNS, len(planes))
    rows = math.ceil(len(planes) / columns)
    figure = _new_figure((3.2 * columns, 3.5 * rows))
    for number, plane in enumerate(planes, 1):
        ax = figure.add_subplot(rows, columns, number)
        levels = grey(plane.data, dq=plane.dq)
        ax.imshow(levels, origin="lower", cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ny, nx = plane.data.shape
        unit = f", {plane.unit}" if plane.unit else ""
        ax.set_title(f"{plane.suffix}{unit}\n{nx} x {ny} pixels", fontsize="small")
        ax.tick_params(labelsize="x-small")
    figure.suptitle(planes[0].name, fontsize="small")
    return figure


def plot_ramp(
    path: FilePath,
    x: int,
    y: int,
    *,
    integration: int = 0,
    rate: FilePath | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Show the groups of a pixel, with those that were flagged, and the slope that came out.

    Parameters
    ----------
    path, x, y, integration
        As for `read_ramp`.
    rate : path-like, optional
        The rate product, whose slope is drawn through the groups before the first flag.
    ax : `~matplotlib.axes.Axes`, optional
        By default those of a new figure.

    Returns
    -------
    `~matplotlib.axes.Axes`

    Raises
    ------
    InvalidRequestError
        As for `read_ramp`; also if ``rate`` has no such pixel.
    OptionalDependencyError
        If matplotlib is not installed.
    """
    ramp = read_ramp(path, x, y, integration=integration)
    slope = None if rate is None else _slope(rate, x, y, integration)
    ax = _new_figure().add_subplot() if ax is None else ax
    ax.plot(ramp.seconds, ramp.counts, "o-", color="#6b7580", ms=4, lw=1, label="groups")
    flags = np.zeros(len(ramp.counts), int) if ramp.flags is None else ramp.flags
    for label, (bit, colour, marker) in _MARKS.items():
        hit = (flags & bit) != 0
        if hit.any():
            ax.plot(
                ramp.seconds[hit], ramp.counts[hit], marker, color=colour, ms=8, mew=2, mfc="none",
                label=label,
            )  # fmt: skip
    for moment in ramp.seconds[(flags & _JUMP) != 0]:
        ax.axvline(moment, color=_MARKS["jump"][1], lw=0.8, ls=":")
    if slope is not None and np.isfinite(slope):
        _draw_slope(ax, ramp, flags, slope)
    ax.set(xlabel="time since the reset (s)", ylabel="counts (DN)")
    suffix = Path(path).stem.rpartition("_")[2]
    note = "" if ramp.flags is not None else f" ({suffix}: no flags)"
    ax.set_title(f"{Path(path).name}  x={x} y={y}{note}", fontsize="small")
    ax.legend(fontsize="x-small")
    return ax


def _draw_slope(ax: Axes, ramp: Ramp, flags: np.ndarray, slope: float) -> None:
    """Draw a line through the groups before the first flag."""
    flagged = np.flatnonzero(flags & (_JUMP | _SATURATED | _DO_NOT_USE))
    start = slice(0, flagged[0] if flagged.size and flagged[0] > 0 else None)
    level = np.mean(ramp.counts[start] - slope * ramp.seconds[start])
    line = level + slope * ramp.seconds
    ax.plot(ramp.seconds, line, color="#2a7d46", lw=1.2, label=f"rate {slope:.4g} DN/s")


def _slope(rate: FilePath, x: int, y: int, integration: int) -> float:
    try:
        data = fits.getdata(rate, "SCI")
        return float(data[integration, y, x] if data.ndim == 3 else data[y, x])
    except (OSError, KeyError, IndexError) as error:
        msg = f"rate={str(rate)!r} has no pixel x={x}, y={y}: {error}."
        raise InvalidRequestError(msg, parameter="rate", value=rate) from None


def plot_dq(
    path: FilePath,
    flags: str | Sequence[str] = ("DO_NOT_USE", "SATURATED", "JUMP_DET", "OUTLIER"),
    *,
    integration: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Show an image with its flagged pixels in colours.

    Parameters
    ----------
    path : path-like
        A product with a DQ plane.
    flags : sequence of str, optional
        Names out of `~.products.FLAGS`, the last on top; those that occur are in the legend, with
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
    plane, dq = read_flagged(path, integration)
    ax = _new_figure().add_subplot() if ax is None else ax
    picture = np.repeat(grey(plane.data, dq=dq)[..., np.newaxis], 3, axis=2)
    others = iter(_OTHER * len(flags))
    handles = []
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    for name in flags:
        hit = (dq & np.uint32(1 << FLAGS[name])) != 0
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
