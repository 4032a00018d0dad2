"""Geometry on the sphere: positions, circles, boxes and polygons, and which bricks these touch.

Plain degrees, ICRS.
A brick is touched if it owns at least one point of the shape; edges follow the half-open rule of
`~.bricks`.  Candidates come from the rows and columns that the shape can reach, so the cost does
not depend on the size of the sky.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from astropy import units as u
from numpy.typing import ArrayLike

from ..exceptions import InvalidRequestError, refuse
from .bricks import _checked_position, _rows, brick_center, brick_edges, brick_id

ROW_DEG = 0.25


def unit_vectors(ra_deg: ArrayLike, dec_deg: ArrayLike) -> np.ndarray:
    """Return positions as unit vectors along the last axis."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def positions_of(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return RA (0 to 360) and Dec, degrees, of vectors of any length along the last axis."""
    x, y, z = np.moveaxis(np.asarray(vectors), -1, 0)
    return np.degrees(np.arctan2(y, x)) % 360.0, np.degrees(np.arctan2(z, np.hypot(x, y)))


def middle_of(ra_deg: ArrayLike, dec_deg: ArrayLike) -> tuple[float, float]:
    """Return the mean direction of positions, degrees."""
    ra, dec = positions_of(unit_vectors(ra_deg, dec_deg).sum(axis=0))
    return float(ra), float(dec)


def separation_deg(
    ra1_deg: ArrayLike, dec1_deg: ArrayLike, ra2_deg: ArrayLike, dec2_deg: ArrayLike
) -> np.ndarray:
    """Return great-circle distances, degrees, of positions that broadcast (Vincenty)."""
    ra1, dec1, ra2, dec2 = map(np.radians, (ra1_deg, dec1_deg, ra2_deg, dec2_deg))
    delta = ra2 - ra1
    across = np.hypot(
        np.cos(dec2) * np.sin(delta),
        np.cos(dec1) * np.sin(dec2) - np.sin(dec1) * np.cos(dec2) * np.cos(delta),
    )
    along = np.sin(dec1) * np.sin(dec2) + np.cos(dec1) * np.cos(dec2) * np.cos(delta)
    return np.degrees(np.arctan2(across, along))


def half_width_deg(dec_deg: float, radius_deg: float) -> float:
    """Return how far in RA a circle reaches; 180 if it holds a pole."""
    if abs(dec_deg) + radius_deg >= 90:
        return 180.0
    ratio = np.sin(np.radians(radius_deg)) / np.cos(np.radians(dec_deg))
    return float(np.degrees(np.arcsin(min(ratio, 1.0))))


def _ids(dec_low_deg: float, dec_high_deg: float, middle: float, half: float) -> np.ndarray:
    """Return ids of the bricks of a declination range within ``half`` degrees of RA ``middle``."""
    columns, before = _rows()
    last = len(columns) - 1
    first_row = int(np.clip(np.floor((dec_low_deg + 90.125) / ROW_DEG), 0, last))
    last_row = int(np.clip(np.floor((dec_high_deg + 90.125) / ROW_DEG), 0, last))
    pieces = []
    for row in range(first_row, last_row + 1):
        n = columns[row]
        width = 360.0 / n
        if half >= 180.0 - width:
            column = np.arange(n)
        else:
            low = int(np.floor((middle - half) / width))
            high = int(np.floor((middle + half) / width))
            column = np.unique(np.arange(low, high + 1) % n)
        pieces.append(before[row] + column + 1)
    return np.concatenate(pieces)


def _distance_to_bricks(ra_deg: float, dec_deg: float, ids: np.ndarray) -> np.ndarray:
    """Return the distance, degrees, of a position to the nearest point of each brick."""
    ra1, ra2, dec1, dec2 = brick_edges(ids)
    middle, half = 0.5 * (ra1 + ra2), 0.5 * (ra2 - ra1)
    offset = (ra_deg - middle + 180.0) % 360.0 - 180.0
    # Within the brick's RA range the nearest point has the position's RA; else it is on the nearer
    # side.
    delta_deg = np.maximum(np.abs(offset) - half, 0.0)
    dec = np.radians(dec_deg)
    # On a meridian the cosine of the distance is a cosine of declination about this foot point.
    foot = np.degrees(np.arctan2(np.sin(dec), np.cos(dec) * np.cos(np.radians(delta_deg))))
    candidates = [dec1, dec2, np.where((foot >= dec1) & (foot <= dec2), foot, dec1)]
    return np.min([separation_deg(0.0, dec_deg, delta_deg, d) for d in candidates], axis=0)


def bricks_in_circle(ra_deg: float, dec_deg: float, radius_deg: float) -> np.ndarray:
    """Return the ascending ids of the bricks that a circle touches; at 0 the owner."""
    ra, dec = (float(value) for value in _checked_position(ra_deg, dec_deg))
    if not 0 <= radius_deg <= 180:
        refuse("radius_deg", radius_deg, "must be from 0 to 180.")
    owner = int(brick_id(ra, dec))
    half_ra = half_width_deg(dec, radius_deg)
    ids = _ids(dec - radius_deg, dec + radius_deg, ra, half_ra)
    near = ids[_distance_to_bricks(ra, dec, ids) < radius_deg]
    return np.union1d(near, [owner])


def bricks_in_box(
    ra_min_deg: float, ra_max_deg: float, dec_min_deg: float, dec_max_deg: float
) -> np.ndarray:
    """Return the ascending ids of the bricks of a box, eastward from its first RA to its second."""
    _checked_position([ra_min_deg, ra_max_deg], [dec_min_deg, dec_max_deg])
    if dec_min_deg > dec_max_deg:
        refuse("dec_min_deg", dec_min_deg, f"is larger than dec_max_deg={dec_max_deg!r}.")
    whole = ra_max_deg - ra_min_deg >= 360
    span = 360.0 if whole else (ra_max_deg - ra_min_deg) % 360.0
    start = ra_min_deg % 360.0
    ids = _ids(dec_min_deg, dec_max_deg, start + span / 2, span / 2)
    if whole:
        return np.sort(ids)
    ra1, ra2, _, _ = brick_edges(ids)
    starts_inside = (ra1 - start) % 360.0 <= span
    holds_start = (ra1 <= start) & (start < ra2)
    return np.sort(ids[starts_inside | holds_start])


def inside_polygon(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return which unit vectors lie in a spherical polygon smaller than a hemisphere.

    The winding number of the corners' bearings round each point; the antipode of a point inside
    winds too, and is told apart by the distance to the polygon's middle.
    """
    middle = corners.sum(axis=0)
    reach = (corners @ middle).min()
    turn = np.zeros(len(points))
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        # Bearing from a to b as seen from each point, by the projections across its line of sight.
        across = np.cross(a, b) @ points.T
        along = a @ b - (points @ a) * (points @ b)
        turn += np.arctan2(across, along)
    return (np.abs(turn) > np.pi) & (points @ middle >= reach)


def _bricks_on_arc(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return ids of the bricks that the great-circle arc from ``a`` to ``b`` passes through."""
    normal = np.cross(a, b)
    length = np.linalg.norm(normal)
    if length < 1e-15:
        return np.empty(0, int)
    ahead, angle = np.cross(normal / length, a), np.arctan2(length, a @ b)
    # How far along it crosses borders of rows: its height is steepness * cos(angle - top).
    steepness, top = np.hypot(a[2], ahead[2]), np.arctan2(ahead[2], a[2])
    borders = np.sin(np.radians(np.arange(-90 + ROW_DEG / 2, 90, ROW_DEG)))
    beside = np.arccos(borders[np.abs(borders) <= steepness] / steepness)
    crossings = np.concatenate([top - beside, top + beside]) % (2 * np.pi)
    ends = np.concatenate([[0.0], np.sort(crossings[crossings < angle]), [angle]])
    middles = (ends[1:] + ends[:-1]) / 2
    ra, _ = positions_of(np.outer(np.cos(ends), a) + np.outer(np.sin(ends), ahead))
    _, dec = positions_of(np.outer(np.cos(middles), a) + np.outer(np.sin(middles), ahead))
    half = ((np.diff(ra) + 180.0) % 360.0 - 180.0) / 2
    parts = zip(dec, dec, ra[:-1] + half, np.abs(half), strict=True)
    return np.concatenate([_ids(*part) for part in parts])


def bricks_in_polygon(ra_deg: ArrayLike, dec_deg: ArrayLike) -> np.ndarray:
    """Return the ascending ids of the bricks that a polygon with great-circle sides touches."""
    ra, dec = _checked_position(ra_deg, dec_deg)
    if ra.ndim != 1 or ra.shape != dec.shape or len(ra) < 3:
        msg = f"A polygon needs three corners or more; ra_deg has shape {ra.shape}."
        raise InvalidRequestError(msg, parameter="ra_deg", value=ra_deg)
    corners = unit_vectors(ra, dec)
    middle = corners.sum(axis=0)
    length = np.linalg.norm(middle)
    reach = (corners @ middle).min() / length if length > 0 else -1.0
    if reach < 0.05:
        msg = "The corners of the polygon are too far apart: it must be smaller than a hemisphere."
        raise InvalidRequestError(msg, parameter="ra_deg", value=ra_deg)
    center_ra, center_dec = map(float, positions_of(middle))
    near = bricks_in_circle(center_ra, center_dec, np.degrees(np.arccos(reach)) + 1e-9)
    sides = zip(corners, np.roll(corners, -1, axis=0), strict=True)
    on_sides = [brick_id(ra, dec), *(_bricks_on_arc(a, b) for a, b in sides)]
    touched = np.isin(near, np.concatenate(on_sides))
    # What no side passes through is inside altogether or not at all.
    touched |= inside_polygon(unit_vectors(*brick_center(near)), corners)
    return near[touched]


def tangent_axes(ra_deg: ArrayLike, dec_deg: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the unit vectors to the east and to the north at positions."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    east = np.stack([-np.sin(ra), np.cos(ra), np.zeros_like(ra)], axis=-1)
    north = np.stack([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)], axis=-1)
    return east, north


def shift_positions(
    ra_deg: ArrayLike, dec_deg: ArrayLike, east_deg: ArrayLike, north_deg: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions moved by small steps along great circles, near a pole too."""
    east, north = tangent_axes(ra_deg, dec_deg)
    east_rad, north_rad = np.radians(east_deg)[..., None], np.radians(north_deg)[..., None]
    return positions_of(unit_vectors(ra_deg, dec_deg) + east_rad * east + north_rad * north)


def distance_to_sides_deg(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return the distance of unit vectors to the nearest side of a polygon (unit vectors)."""
    nearest = np.full(len(points), np.inf)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        to_corner = np.linalg.norm(points - a, axis=1)
        nearest = np.minimum(nearest, 2 * np.arcsin(np.clip(to_corner / 2, 0, 1)))
        normal = np.cross(a, b)
        length = np.linalg.norm(normal)
        if length < 1e-15:
            continue
        normal = normal / length
        # Beside the side, the foot of the perpendicular is on it.
        beside = (np.cross(normal, a) @ points.T >= 0) & (np.cross(b, normal) @ points.T >= 0)
        height = np.abs(np.arcsin(np.clip(points @ normal, -1, 1)))
        nearest = np.where(beside, np.minimum(nearest, height), nearest)
    return np.degrees(nearest)


def sides_cross(corners: np.ndarray, other_corners: np.ndarray) -> bool:
    """Return True if any side of a polygon crosses one of another (unit vectors)."""
    a, b = corners[:, None], np.roll(corners, -1, axis=0)[:, None]
    c, d = other_corners[None], np.roll(other_corners, -1, axis=0)[None]

    def side(start: np.ndarray, end: np.ndarray, point: np.ndarray) -> np.ndarray:
        return (np.cross(start, end) * point).sum(axis=-1)

    apart = (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)
    # Great circles cross at two places; the other one is at the antipode.
    return bool((apart & ((a * c).sum(axis=-1) > 0)).any())


# ---- angles as users write them ------------------------------------------------------------------

_SYMBOLS = {'"': "arcsec", "″": "arcsec", "''": "arcsec", "'": "arcmin", "′": "arcmin", "°": "deg"}
_UNITS = {
    "arcsec": r"arc[ -]?sec(?:ond)?s?|asec",
    "arcmin": r"arc[ -]?min(?:ute)?s?|amin",
    "deg": r"deg(?:ree)?s?",
    "pix": r"pix(?:el)?s?|px",
}
_SEXAGESIMAL = re.compile(
    r"(?:(\d+\.?\d*)\s*[d°])?\s*(?:(\d+\.?\d*)\s*[m'′])?\s*(?:(\d+\.?\d*)\s*(?:s|''|[\"″]))?"
)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE)


def angle_of_text(value: object) -> object:
    """Return the Quantity of text such as ``'30 arcsec'`` or ``'0d0m30s'``, and all else as it is.

    Text with pixels is a Quantity too, so that what wants an angle can refuse it by its unit.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    match = _SEXAGESIMAL.fullmatch(text.lower())
    if match and sum(map(bool, match.groups())) > 1:
        degrees, minutes, seconds = map(float, match.groups("0"))
        return (degrees * 3600 + minutes * 60 + seconds) * u.arcsec
    number = _NUMBER.match(text)
    if number is None:
        return value
    word = text[number.end() :].strip()
    word = _SYMBOLS.get(word, word)
    names = (name for name, spelling in _UNITS.items() if re.fullmatch(spelling, word, re.I))
    unit = next(names, word)
    try:
        return u.Quantity(float(number[0]), unit) if unit else value
    except (TypeError, ValueError):
        return value


def angle_in(value: object, *units: u.UnitBase) -> float | None:
    """Return one angle, or text of it, in the unit that it can have; `None` if it is none."""
    value = angle_of_text(value)
    if isinstance(value, u.Quantity) and value.isscalar:
        for unit in units:
            if value.unit.is_equivalent(unit):
                return float(value.to_value(unit))
    return None


def as_angle_deg(parameter: str, value: object, maximum_deg: float, *, zero: bool = False) -> float:
    """Return an angle as degrees."""
    must = "must be an angle with a unit, for example 10 * u.arcsec; a bare number is not one."
    value = angle_of_text(value)
    if not isinstance(value, u.Quantity) or not value.isscalar:
        refuse(parameter, value, must)
    if not value.unit.is_equivalent(u.deg):
        refuse(parameter, value, must)
    angle = float(value.to_value(u.deg))
    if zero and not 0 <= angle <= maximum_deg:
        refuse(parameter, value, f"must be from 0 to {maximum_deg:g} degrees.")
    if not (zero or 0 < angle <= maximum_deg):
        refuse(parameter, value, f"must be above 0 and at most {maximum_deg:g} deg.")
    return angle


# ---- parts of the sky that a catalogue query asks for --------------------------------------------


class Part:
    """What all parts of the sky have in common."""

    needs: tuple[str, ...] = ("ra", "dec")
    """The columns that tell which rows of the catalogue are in it."""

    @property
    def center(self) -> tuple[float, float] | None:
        """The centre, (RA, Dec), if it is round one."""
        return None

    def order(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the order in which rows of the catalogue are given: by their ids."""
        return np.lexsort((rows["objid"], rows["brickid"], rows["release"]))


class _Centered(Part):
    ra_deg: float
    dec_deg: float

    @property
    def center(self) -> tuple[float, float]:
        """The centre, (RA, Dec)."""
        return self.ra_deg, self.dec_deg

    def order(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the order in which rows are given: by their distance from the centre."""
        distance = separation_deg(self.ra_deg, self.dec_deg, rows["ra"], rows["dec"])
        return np.lexsort((rows["objid"], rows["brickid"], rows["release"], distance))


@dataclass(frozen=True)
class Circle(_Centered):
    """All positions within ``radius_deg`` of the centre, its rim included."""

    ra_deg: float
    dec_deg: float
    radius_deg: float

    @property
    def enclosing(self) -> Circle:
        """The circle itself."""
        return self

    def contains(self, ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
        """Tell which positions are inside.

        Parameters
        ----------
        ra_deg, dec_deg : `~numpy.ndarray` of float, shape (n,)
            Positions.

        Returns
        -------
        `~numpy.ndarray` of bool
        """
        # Most rows of a brick are told off by their declination alone.
        inside = np.abs(dec_deg - self.dec_deg) <= self.radius_deg + 1e-9
        near = np.flatnonzero(inside)
        distance = separation_deg(self.ra_deg, self.dec_deg, ra_deg[near], dec_deg[near])
        inside[near] = distance <= self.radius_deg
        return inside

    def bricks(self, margin_deg: float = 0.0) -> np.ndarray:
        """Return the ids of the bricks that it touches, if widened by a margin.

        Parameters
        ----------
        margin_deg : float, optional
            Added on every side.

        Returns
        -------
        `~numpy.ndarray` of int
        """
        return bricks_in_circle(*self.center, min(self.radius_deg + margin_deg, 180.0))

    def boxes(self, margin_deg: float = 0.0) -> list[tuple[float, float, float, float]]:
        """Return boxes in RA and Dec that hold the circle.

        Parameters
        ----------
        margin_deg : float, optional
            Added to the radius.

        Returns
        -------
        list of tuple
            ``(ra_min, ra_max, dec_min, dec_max)``, two of them across RA 0; all of RA if a pole is
            inside.
        """
        radius = self.radius_deg + margin_deg
        low, high = self.dec_deg - radius, self.dec_deg + radius
        if low <= -90 or high >= 90:
            return [(0.0, 360.0, max(low, -90.0), min(high, 90.0))]
        half = half_width_deg(self.dec_deg, radius) + margin_deg
        west, east = self.ra_deg - half, self.ra_deg + half
        if half >= 180:
            return [(0.0, 360.0, low, high)]
        if west < 0:
            return [(west + 360, 360.0, low, high), (0.0, east, low, high)]
        if east > 360:
            return [(west, 360.0, low, high), (0.0, east - 360, low, high)]
        return [(west, east, low, high)]


@dataclass(frozen=True)
class Box(_Centered):
    """A rectangle round the centre, its sides along great circles and parallels of its frame."""

    ra_deg: float
    dec_deg: float
    width_deg: float
    height_deg: float

    @property
    def enclosing(self) -> Circle:
        """The circle through the corners."""
        ra, dec = self._corners(0.0)
        radius = separation_deg(*self.center, ra, dec).max()
        # Away from the corners the sides can be a trifle farther out than the corners' circle.
        return Circle(*self.center, float(max(radius, self.width_deg / 2, self.height_deg / 2)))

    def _axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return unit_vectors(*self.center), *tangent_axes(*self.center)

    def _corners(self, margin_deg: float) -> tuple[np.ndarray, np.ndarray]:
        forward, east, north = self._axes()
        x = np.radians(self.width_deg / 2 + margin_deg) * np.array([[-1], [1], [1], [-1]])
        y = np.radians(self.height_deg / 2 + margin_deg) * np.array([[-1], [-1], [1], [1]])
        ahead = np.cos(x) * forward + np.sin(x) * east
        return positions_of(np.cos(y) * ahead + np.sin(y) * north)

    def contains(self, ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
        """Return which positions are inside, as `Circle.contains` does."""
        points = unit_vectors(np.asarray(ra_deg), np.asarray(dec_deg))
        along, east, north = (points @ axis for axis in self._axes())
        x = np.degrees(np.arctan2(east, along))
        y = np.degrees(np.arcsin(np.clip(north, -1, 1)))
        return (np.abs(x) <= self.width_deg / 2) & (np.abs(y) <= self.height_deg / 2)

    def bricks(self, margin_deg: float = 0.0) -> np.ndarray:
        """Return the ids of the bricks that it touches, as `Circle.bricks` does."""
        # Its northern and southern sides bend away from the great circles between its corners, and
        # lie inside them.
        return bricks_in_polygon(*self._corners(margin_deg))


@dataclass(frozen=True)
class Polygon(Part):
    """A simple polygon with great-circle sides, smaller than a hemisphere."""

    ra_deg: tuple[float, ...]
    dec_deg: tuple[float, ...]

    @property
    def enclosing(self) -> Circle:
        """A circle that holds all corners."""
        ra, dec = middle_of(self.ra_deg, self.dec_deg)
        radius = separation_deg(ra, dec, self.ra_deg, self.dec_deg).max()
        return Circle(ra, dec, float(radius))

    def contains(self, ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
        """Return which positions are inside, as `Circle.contains` does."""
        ra_deg, dec_deg = np.asarray(ra_deg), np.asarray(dec_deg)
        inside = self.enclosing.contains(ra_deg, dec_deg)
        near = np.flatnonzero(inside)
        corners = unit_vectors(self.ra_deg, self.dec_deg)
        inside[near] = inside_polygon(unit_vectors(ra_deg[near], dec_deg[near]), corners)
        return inside

    def bricks(self, margin_deg: float = 0.0) -> np.ndarray:
        """Return the ids of the bricks that it touches, as `Circle.bricks` does."""
        if margin_deg:
            return self.enclosing.bricks(margin_deg)
        return bricks_in_polygon(self.ra_deg, self.dec_deg)
