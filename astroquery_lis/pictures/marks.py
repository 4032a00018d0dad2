"""Which way is north, and how long is an angle: marks over a picture of a page."""

from __future__ import annotations

import numpy as np

from ..images.planes import side_arcsec
from .page import Markup
from .plot import bar_arcsec, bar_text
from .rgb import flips

__all__ = ["sky_marks"]

_LETTERS_ACROSS = 30


def sky_marks(shape: tuple[int, int], matrix: np.ndarray) -> Markup:
    """Return SVG over a picture of `north_up`: arrows to north and east, a bar of a round angle."""
    ny, nx = shape
    letter = max(ny, nx) / _LETTERS_ACROSS
    rows, columns = flips(matrix)
    # Its columns are the ways to the east and to the north, in steps to the right and down.
    ways = np.diag([columns, rows]) @ np.linalg.inv(matrix)
    x, y = 3.6 * letter, ny - 3.6 * letter
    parts = []
    for name, way in (("E", ways[:, 0]), ("N", ways[:, 1])):
        right, down = 2.2 * letter * way / np.hypot(*way)
        parts.append(_line(f"M{x:.1f} {y:.1f}l{right:.1f} {down:.1f}"))
        parts.append(_text(name, x + 1.4 * right, y + 1.4 * down, letter))
    length_arcsec = bar_arcsec(nx * side_arcsec(matrix))
    length = length_arcsec / side_arcsec(matrix)
    x, y = nx - 1.2 * letter - length, ny - 1.2 * letter
    parts.append(_line(f"M{x:.1f} {y:.1f}h{length:.1f}"))
    parts.append(_text(bar_text(length_arcsec), x + length / 2, y - letter, letter))
    return Markup(f'<g class="sky">{"".join(parts)}</g>')


def _line(way: str) -> str:
    return f'<path class="edge" d="{way}"/><path d="{way}"/>'


def _text(text: str, x: float, y: float, size: float) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" style="font-size:{size:.1f}px" text-anchor="middle" '
        f'dominant-baseline="central">{text}</text>'
    )
