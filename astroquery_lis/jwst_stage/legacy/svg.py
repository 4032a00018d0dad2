"""Drawings that a page holds as SVG: a scatter of points on axes, and marks over a picture."""

import html
from dataclasses import dataclass

import numpy as np

__all__ = ["Points", "marks", "nice_ticks", "scatter"]

_WIDE, _HIGH = 440, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 14, 14, 50
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, eq=False)
class Points:
    """Points of one kind.

    Attributes
    ----------
    name : str
        For the legend; also the class of the style sheet.
    x, y : `~numpy.ndarray` of float
        What is not finite is not drawn.
    titles : sequence of str
        Told when pointed at.
    shape : {'circle', 'square', 'diamond'}
        Of the mark.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    titles: tuple = ()
    shape: str = "circle"

    @property
    def shown(self):
        """Which points can be drawn."""
        return np.isfinite(self.x) & np.isfinite(self.y)


def nice_ticks(low, high, number=6):
    """Return round values between two limits.

    Parameters
    ----------
    low, high : float
        Limits.
    number : int, optional
        About so many.

    Returns
    -------
    `~numpy.ndarray` of float

    Examples
    --------
    >>> from astroquery_lis.jwst_stage.legacy.svg import nice_ticks
    >>> nice_ticks(0.3, 9.8).tolist()
    [2.0, 4.0, 6.0, 8.0]
    """
    rough = (high - low) / number
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * min(_STEPS, key=lambda value: abs(value - rough / power))
    first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
    # Added to, a negative zero is none.
    return np.arange(first, last + 1) * step + 0.0


def _limits(values, about=None):
    """Return limits that hold nearly all values, with some air."""
    if not len(values):
        return -1.0, 1.0
    low, high = np.percentile(values, [0.5, 99.5])
    if about is not None:
        reach = max(high - about, about - low, 1e-9) * 1.25
        return about - reach, about + reach
    air = 0.08 * (high - low) or 0.5
    return low - air, high + air


def scatter(groups, *, label, x_label, y_label, square=False, cross=None):
    """Return points on axes.

    Parameters
    ----------
    groups : sequence of Points
        What to draw.
    label : str
        What the drawing shows, for those who cannot see it.
    x_label, y_label : str
        Names of the axes.
    square : bool, optional
        Whether both axes have one scale.
    cross : tuple of float, optional
        A place to mark with a line across each axis.

    Returns
    -------
    str
        SVG.
    """
    x = np.concatenate([group.x[group.shown] for group in groups] or [np.zeros(0)])
    y = np.concatenate([group.y[group.shown] for group in groups] or [np.zeros(0)])
    x0, x1 = _limits(x, None if cross is None else cross[0])
    y0, y1 = _limits(y, None if cross is None else cross[1])
    wide, high = _WIDE - _LEFT - _RIGHT, _HIGH - _TOP - _BOTTOM
    if square:
        scale = max((x1 - x0) / wide, (y1 - y0) / high)
        x0, x1 = (x0 + x1) / 2 - scale * wide / 2, (x0 + x1) / 2 + scale * wide / 2
        y0, y1 = (y0 + y1) / 2 - scale * high / 2, (y0 + y1) / 2 + scale * high / 2

    def place(x, y):
        return _LEFT + (x - x0) / (x1 - x0) * wide, _TOP + (y1 - y) / (y1 - y0) * high

    parts = [
        f'<svg class="plot" viewBox="0 0 {_WIDE} {_HIGH}" role="img" '
        f'aria-label="{html.escape(label)}">',
        f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{wide}" height="{high}"/>',
    ]
    for value in nice_ticks(x0, x1):
        at = place(value, y0)[0]
        parts.append(
            f'<path class="grid" d="M{at:.1f} {_TOP}v{high}"/><text class="tick" x="{at:.1f}" '
            f'y="{_TOP + high + 16}" text-anchor="middle">{_text(value)}</text>'
        )
    for value in nice_ticks(y0, y1):
        at = place(x0, value)[1]
        parts.append(
            f'<path class="grid" d="M{_LEFT} {at:.1f}h{wide}"/><text class="tick" x="{_LEFT - 6}" '
            f'y="{at + 4:.1f}" text-anchor="end">{_text(value)}</text>'
        )
    parts.append(
        f'<text class="axis" x="{_LEFT + wide / 2}" y="{_HIGH - 10}" text-anchor="middle">'
        f"{html.escape(x_label)}</text>"
        f'<text class="axis" text-anchor="middle" transform="translate(14 {_TOP + high / 2}) '
        f'rotate(-90)">{html.escape(y_label)}</text>'
    )
    for group in groups:
        keep = group.shown & (group.x >= x0) & (group.x <= x1) & (group.y >= y0) & (group.y <= y1)
        for index in np.flatnonzero(keep):
            at = place(group.x[index], group.y[index])
            parts.append(_mark(group, index, *at, 3.2))
    if cross is not None:
        at = place(*cross)
        lines = f"M{at[0]:.1f} {_TOP}v{high}M{_LEFT} {at[1]:.1f}h{wide}"
        parts.append(f'<path class="cross" d="{lines}"/>')
    parts.append("</svg>")
    return "".join(parts)


def _text(value):
    return f"{value:.6g}".replace("-", "−")


def _mark(group, index, x, y, size, extra=""):
    title = f"<title>{html.escape(group.titles[index])}</title>" if len(group.titles) else ""
    kind = f'class="{group.name}"{extra}'
    if group.shape == "circle":
        return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}">{title}</circle>'
    if group.shape == "square":
        side = 1.8 * size
        corner = f'x="{x - side / 2:.1f}" y="{y - side / 2:.1f}"'
        return f'<rect {kind} {corner} width="{side:.1f}" height="{side:.1f}">{title}</rect>'
    reach = 1.3 * size
    path = f"M{x:.1f} {y - reach:.1f}l{reach:.1f} {reach:.1f}l{-reach:.1f} {reach:.1f}"
    return f'<path {kind} d="{path}l{-reach:.1f} {-reach:.1f}z">{title}</path>'


def marks(groups, shape, *, label, size, keys=None):
    """Return marks to lay over a picture.

    Parameters
    ----------
    groups : sequence of Points
        In pixels of the picture, from its upper left corner.
    shape : tuple of int
        Of the picture, (ny, nx).
    label : str
        What they show.
    size : float
        Radius of a mark, pixels.
    keys : dict of str to sequence of int, optional
        By name of the group: numbers by which marks of two pictures belong together.

    Returns
    -------
    str
        SVG.
    """
    ny, nx = shape
    parts = [
        f'<svg viewBox="0 0 {nx} {ny}" role="img" aria-label="{html.escape(label)}" '
        'preserveAspectRatio="none">'
    ]
    for group in groups:
        own = (keys or {}).get(group.name)
        for index in np.flatnonzero(group.shown):
            extra = "" if own is None else f' data-pair="{own[index]}"'
            parts.append(_mark(group, index, group.x[index], group.y[index], size, extra))
    parts.append("</svg>")
    return "".join(parts)
