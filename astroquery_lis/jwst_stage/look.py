"""Pictures of the chain: its products as arrays, ramps with their jumps, stages side by side."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from .._packages import import_optional
from ..exceptions import InvalidRequestError, refuse
from ..pictures.rgb import grey_levels
from .tasks import table_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from astropy.table import Table
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .._typing import FilePath

_FLAG_NAMES = (
    *("DO_NOT_USE", "SATURATED", "JUMP_DET", "DROPOUT", "OUTLIER", "PERSISTENCE", "AD_FLOOR"),
    *("CHARGELOSS", "RESERVED", "NON_SCIENCE", "DEAD", "HOT", "WARM", "LOW_QE", "RC"),
    *("TELEGRAPH", "NONLINEAR", "BAD_REF_PIXEL", "NO_FLAT_FIELD", "NO_GAIN_VALUE", "NO_LIN_CORR"),
    *("NO_SAT_CHECK", "UNRELIABLE_BIAS", "UNRELIABLE_DARK", "UNRELIABLE_SLOPE"),
    *("UNRELIABLE_FLAT", "OPEN", "ADJ_OPEN", "FLUX_ESTIMATED", "MSA_FAILED_OPEN"),
    *("OTHER_BAD_PIXEL", "REFERENCE_PIXEL"),
)
FLAGS = {name: bit for bit, name in enumerate(_FLAG_NAMES)}
"""Bits of the DQ planes of JWST."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One image of a product, with its flags where it has them, and the headers in one."""

    name: str
    suffix: str  # 'uncal', 'rate', 'cal', 'i2d', ..., or that of a correction
    data: np.ndarray
    dq: np.ndarray | None
    unit: str
    header: fits.Header


def read_plane(path: FilePath, *, integration: int = 0) -> Plane:
    """Return the image of a product.

    Parameters
    ----------
    path : path-like
        A product of any stage.  Of groups the last less the first is taken, of a cube one image.
    integration : int, optional
        Which one, from 0, where there are several.

    Returns
    -------
    Plane

    Raises
    ------
    InvalidRequestError
        If it has no image.
    """
    try:
        with fits.open(path) as hdul:
            header = hdul["SCI"].header.copy()
            header.extend(hdul[0].header, unique=True)
            image = _read_image(path, hdul["SCI"], integration)
            unit = str(header.get("BUNIT", "")).strip()
            if len(hdul["SCI"].shape) == 4:
                unit = unit or "DN"
            dq = _read_flags(hdul, integration)
    except (OSError, KeyError) as error:
        msg = f"path={str(path)!r} has no image to show: {error}."
        raise InvalidRequestError(msg, parameter="path", value=path) from None
    if dq is not None and dq.shape != image.shape:
        dq = None
    return Plane(Path(path).name, Path(path).stem.rpartition("_")[2], image, dq, unit, header)


def _read_flags(hdul: fits.HDUList, integration: int) -> np.ndarray | None:
    name = next((name for name in ("DQ", "PIXELDQ") if name in hdul), None)
    if name is None:
        return None
    dq = np.array(hdul[name].data)
    return (dq[integration] if dq.ndim == 3 else dq).astype(np.uint32)


def _read_image(path: FilePath, hdu: fits.ImageHDU, integration: int) -> np.ndarray:
    shape = hdu.shape
    if len(shape) not in (2, 3, 4):
        msg = f"path={str(path)!r} has SCI of shape {shape}; 2 to 4 dimensions are shown."
        raise InvalidRequestError(msg, parameter="path", value=path)
    if len(shape) > 2 and not 0 <= integration < shape[0]:
        refuse("integration", integration, f": {Path(path).name} has {shape[0]}.")
    # A section, since a file may have many groups of a whole detector.
    data = hdu.section
    if len(shape) < 4:
        return np.array(data[integration] if len(shape) == 3 else data[:, :], float)
    image = np.array(data[integration, shape[1] - 1], float)
    return image - (data[integration, 0] if shape[1] > 1 else 0)


def grey(data: np.ndarray, *, dq: np.ndarray | None = None) -> np.ndarray:
    """Return an image as levels from 0 to 1, by arcsinh of the noise.

    Parameters
    ----------
    data : `~numpy.ndarray`
        Shape (ny, nx).
    dq : `~numpy.ndarray` of uint32, optional
        Flags; pixels that may not be used do not decide on the levels.

    Returns
    -------
    `~numpy.ndarray`
        Shape (ny, nx); 0.5 where there is no value.
    """
    return grey_levels(data, None if dq is None else (dq & 1) == 0)


def read_flagged(path: FilePath, integration: int) -> tuple[Plane, np.ndarray]:
    """Return the image of a product and its flags."""
    plane = read_plane(path, integration=integration)
    if plane.dq is None:
        msg = f"path={str(path)!r} has no DQ plane; rate, cal and crf products have one."
        raise InvalidRequestError(msg, parameter="path", value=path)
    return plane, plane.dq


def dq_counts(path: FilePath, *, integration: int = 0) -> Table:
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
    _, dq = read_flagged(path, integration)
    counts = {name: int(np.count_nonzero(dq & np.uint32(1 << bit))) for name, bit in FLAGS.items()}
    rows = [(name, FLAGS[name], n, n / dq.size) for name, n in counts.items() if n]
    rows.sort(key=lambda row: -row[2])
    table = table_of(rows, {"flag": str, "bit": int, "pixels": int, "share": float})
    table["share"].info.format = ".4f"
    return table


@dataclass(frozen=True, slots=True)
class Ramp:
    """The groups of one pixel: time since the reset, DN, and flags where the product has them."""

    seconds: np.ndarray
    counts: np.ndarray
    flags: np.ndarray | None


def read_ramp(path: FilePath, x: int, y: int, *, integration: int = 0) -> Ramp:
    """Return the groups of a pixel.

    Parameters
    ----------
    path : path-like
        A product with groups: uncal, without flags, or with them a ramp or jump product, which
        ``steps={"jump": {"save_results": True}}`` keeps.
    x, y : int
        Pixel, from 0.
    integration : int, optional
        Which one, from 0.

    Returns
    -------
    Ramp

    Raises
    ------
    InvalidRequestError
        If the file has no groups, or the pixel is not in it.
    """
    try:
        with fits.open(path) as hdul:
            shape = hdul["SCI"].shape
            if len(shape) != 4:
                msg = f"path={str(path)!r} has no groups; uncal, ramp and jump products have."
                raise InvalidRequestError(msg, parameter="path", value=path)
            _check_index("x", x, shape[3])
            _check_index("y", y, shape[2])
            _check_index("integration", integration, shape[0])
            counts = np.array(hdul["SCI"].section[integration, :, y, x], float)
            flags = None
            if "GROUPDQ" in hdul:
                flags = np.array(hdul["GROUPDQ"].section[integration, :, y, x], int)
            time = hdul[0].header.get("TGROUP") or 1.0
            first = hdul[0].header.get("TFRAME") or time
    except (OSError, KeyError) as error:
        msg = f"path={str(path)!r} cannot be read: {error}."
        raise InvalidRequestError(msg, parameter="path", value=path) from None
    return Ramp(first + time * np.arange(len(counts)), counts, flags)


def _check_index(name: str, value: Any, size: int) -> None:
    if not isinstance(value, Integral) or not 0 <= int(value) < size:
        refuse(name, value, f"must be a whole number from 0 to {size - 1}.")


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
    _mark_flagged(ax, ramp, flags)
    if slope is not None and np.isfinite(slope):
        _draw_slope(ax, ramp, flags, slope)
    ax.set(xlabel="time since the reset (s)", ylabel="counts (DN)")
    suffix = Path(path).stem.rpartition("_")[2]
    note = "" if ramp.flags is not None else f" ({suffix}: no flags)"
    ax.set_title(f"{Path(path).name}  x={x} y={y}{note}", fontsize="small")
    ax.legend(fontsize="x-small")
    return ax


def _mark_flagged(ax: Axes, ramp: Ramp, flags: np.ndarray) -> None:
    """Mark the groups that have a flag, and the times of the jumps."""
    for label, (bit, colour, marker) in _MARKS.items():
        hit = (flags & bit) != 0
        if hit.any():
            ax.plot(
                ramp.seconds[hit], ramp.counts[hit], marker, color=colour, ms=8, mew=2, mfc="none",
                label=label,
            )  # fmt: skip
    for moment in ramp.seconds[(flags & _JUMP) != 0]:
        ax.axvline(moment, color=_MARKS["jump"][1], lw=0.8, ls=":")


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
        Names out of `~.look.FLAGS`, the last on top; those that occur are in the legend, with
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
    flags = _checked_flags(flags)
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


def _checked_flags(flags: str | Sequence[str]) -> list[str]:
    names = [flags] if isinstance(flags, str) else list(flags)
    unknown = [name for name in names if name not in FLAGS]
    if unknown:
        msg = f"flags: {unknown[0]!r} is not one of {', '.join(FLAGS)}."
        raise InvalidRequestError(msg, parameter="flags", value=flags)
    return names
