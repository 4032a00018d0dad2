"""What the sweep files are called: each after the box in RA and Dec of which it has the rows."""

from __future__ import annotations

from .bricks import brick_edges, parse_brick_name
from .releases import get_release, get_tree


def sweep_names(release: str, region: str, brick: str | int) -> tuple[str, ...]:
    """Return the names of the sweep files whose boxes a brick touches, without the ending.

    The boxes are 5 degrees high, and 10 degrees wide up to DR9, 5 degrees from DR10 on.
    """
    number = parse_brick_name(brick) if isinstance(brick, str) else brick
    ra1, ra2, dec1, dec2 = (float(edge) for edge in brick_edges(number))
    width, tiny = _sweep_width(release, region), 1e-9
    return tuple(
        _sweep_name(row, column, width)
        for row in range(int((dec1 + 90 + tiny) // 5), int((dec2 + 90 - tiny) // 5) + 1)
        for column in range(int((ra1 + tiny) // width), int((ra2 - tiny) // width) + 1)
    )


def sweep_at(release: str, region: str, ra_deg: float, dec_deg: float) -> str:
    """Return the name of the sweep file that has the rows at a position."""
    width = _sweep_width(release, region)
    row = min(int((dec_deg + 90) // 5), 35)
    return _sweep_name(row, int(ra_deg % 360 // width), width)


def _sweep_width(release: str, region: str) -> int:
    return 10 if get_release(get_tree(release, region).release).number < 10 else 5


def _sweep_name(row: int, column: int, width: int) -> str:
    dec, ra = row * 5 - 90, column * width
    return f"sweep-{_sweep_corner(ra, dec)}-{_sweep_corner(ra + width, dec + 5)}"


def _sweep_corner(ra_deg: int, dec_deg: int) -> str:
    return f"{ra_deg:03d}{'m' if dec_deg < 0 else 'p'}{abs(dec_deg):03d}"


def sweep_box(name: str) -> tuple[float, float, float, float]:
    """Return (RA, RA, Dec, Dec), degrees, between which a sweep has the rows."""
    low, high = name.removesuffix(".fits").split("-")[1:3]
    ra1, ra2 = int(low[:3]), int(high[:3])
    dec1, dec2 = (int(corner[4:]) * (-1 if corner[3] == "m" else 1) for corner in (low, high))
    return ra1, ra2, dec1, dec2


def is_sweep_name(text: object) -> bool:
    """Return True if a string is the name of a sweep file, such as ``'sweep-190p000-195p005'``."""
    name = str(text).strip().removesuffix(".fits")
    parts = name.split("-")
    return (
        len(parts) == 3
        and parts[0] == "sweep"
        and all(
            len(part) == 7 and part[3] in "pm" and (part[:3] + part[4:]).isdigit()
            for part in parts[1:]
        )
    )
