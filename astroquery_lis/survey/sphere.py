"""Geometry on the sphere, and which bricks a circle, a box or a polygon on the sky touches.

A brick is touched if it owns at least one point of the shape; edges follow the half-open rule of
`~.bricks`.  Candidates come from the rows and columns that the shape can reach, so the cost does
not depend on the size of the sky.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..exceptions import InvalidRequestError, refuse
from .bricks import _checked_position, _rows, brick_edges, brick_id

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


def _arcs_cross_bricks(a: np.ndarray, b: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return which bricks the great-circle arc from ``a`` to ``b`` passes through."""
    ra1, ra2, dec1, dec2 = brick_edges(ids)
    normal = np.cross(a, b)
    length = np.linalg.norm(normal)
    if length < 1e-15:
        return np.zeros(len(ids), bool)
    normal = normal / length
    crossed = np.zeros(len(ids), bool)
    for edge in (ra1, ra2):
        meridian = np.stack(
            [-np.sin(np.radians(edge)), np.cos(np.radians(edge)), np.zeros(len(ids))], axis=-1
        )
        point = np.cross(normal, meridian)
        size = np.linalg.norm(point, axis=1, keepdims=True)
        point = np.divide(point, size, out=np.zeros_like(point), where=size > 1e-15)
        for sign in (1, -1):
            dec = np.degrees(np.arcsin(np.clip(sign * point[:, 2], -1, 1)))
            ra = np.degrees(np.arctan2(sign * point[:, 1], sign * point[:, 0]))
            on_side = np.abs((ra - edge + 180.0) % 360.0 - 180.0) < 90.0
            hit = on_side & (dec >= dec1) & (dec <= dec2) & (size[:, 0] > 1e-15)
            crossed |= hit & _on_arc(sign * point, a, b, normal)
    tilt = np.hypot(normal[0], normal[1])
    if tilt < 1e-15:
        return crossed
    # Points of the great circle at a given height: a middle one, and two to its sides.
    horizontal = np.array([normal[1], -normal[0], 0.0]) / tilt
    for edge in (dec1, dec2):
        height = np.sin(np.radians(edge))
        base = np.outer(-height * normal[2] / tilt**2, [normal[0], normal[1], 0.0])
        base[:, 2] = height
        remainder = 1.0 - (base**2).sum(axis=1)
        for sign in (1, -1):
            point = base + sign * np.sqrt(np.maximum(remainder, 0))[:, None] * horizontal
            ra = np.degrees(np.arctan2(point[:, 1], point[:, 0])) % 360.0
            hit = (remainder >= 0) & (ra >= ra1) & (ra <= ra2)
            crossed |= hit & _on_arc(point, a, b, normal)
    return crossed


def _on_arc(points: np.ndarray, a: np.ndarray, b: np.ndarray, normal: np.ndarray) -> np.ndarray:
    return (np.cross(a, points) @ normal >= 0) & (np.cross(points, b) @ normal >= 0)


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
    touched = np.isin(near, brick_id(ra, dec))
    ra1, ra2, dec1, dec2 = brick_edges(near)
    for brick_ra, brick_dec in ((ra1, dec1), (ra2, dec1), (ra1, dec2), (ra2, dec2)):
        touched |= inside_polygon(unit_vectors(brick_ra, brick_dec), corners)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        touched |= _arcs_cross_bricks(a, b, near)
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
