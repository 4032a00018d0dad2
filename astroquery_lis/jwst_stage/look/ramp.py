"""One pixel through the groups: what it counted, and which groups were given up."""

import numbers
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from ...exceptions import InvalidRequestError
from ._axes import new_axes
from .planes import suffix_of

__all__ = ["Ramp", "plot_ramp", "read_ramp"]

_DO_NOT_USE, _SATURATED, _JUMP = 1, 2, 4
_MARKS = {
    "jump": (_JUMP, "#0b7fd1", "D"),
    "saturated": (_SATURATED, "#c98a00", "s"),
    "not used": (_DO_NOT_USE, "#c0392b", "x"),
}


@dataclass(frozen=True, slots=True)
class Ramp:
    """The groups of one pixel.

    Attributes
    ----------
    seconds : `~numpy.ndarray`
        Time of each group since the reset.
    counts : `~numpy.ndarray`
        In DN.
    flags : `~numpy.ndarray` of int or None
        Of each group; `None` where the product has none.
    """

    seconds: np.ndarray
    counts: np.ndarray
    flags: np.ndarray | None


def read_ramp(path, x, y, *, integration=0):
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
            for name, value, size in (
                ("x", x, shape[3]),
                ("y", y, shape[2]),
                ("integration", integration, shape[0]),
            ):
                if not isinstance(value, numbers.Integral) or not 0 <= value < size:
                    msg = f"{name}={value!r} must be a whole number from 0 to {size - 1}."
                    raise InvalidRequestError(msg, parameter=name, value=value)
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


def plot_ramp(path, x, y, *, integration=0, rate=None, ax=None):
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
    ax = new_axes() if ax is None else ax
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
        flagged = np.flatnonzero(flags & (_JUMP | _SATURATED | _DO_NOT_USE))
        used = slice(0, flagged[0] if flagged.size and flagged[0] > 0 else None)
        level = np.mean(ramp.counts[used] - slope * ramp.seconds[used])
        line = level + slope * ramp.seconds
        ax.plot(ramp.seconds, line, color="#2a7d46", lw=1.2, label=f"rate {slope:.4g} DN/s")
    ax.set(xlabel="time since the reset (s)", ylabel="counts (DN)")
    told = "" if ramp.flags is not None else f" ({suffix_of(path)}: no flags)"
    ax.set_title(f"{Path(path).name}  x={x} y={y}{told}", fontsize="small")
    ax.legend(fontsize="x-small")
    return ax


def _slope(rate, x, y, integration):
    try:
        data = fits.getdata(rate, "SCI")
        return float(data[integration, y, x] if data.ndim == 3 else data[y, x])
    except (OSError, KeyError, IndexError) as error:
        msg = f"rate={str(rate)!r} has no pixel x={x}, y={y}: {error}."
        raise InvalidRequestError(msg, parameter="rate", value=rate) from None
