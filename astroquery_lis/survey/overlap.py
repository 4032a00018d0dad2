"""Which bricks a circle, a box or a polygon on the sky touches.

A brick is touched if it owns at least one point of the shape; edges follow the half-open rule of
`~.bricks`.  Candidates come from the rows and columns that the shape can reach, so the cost does
not depend on the size of the sky.
"""

import numpy as np

from ..exceptions import InvalidRequestError
from .bricks import _checked_position, _rows, brick_edges, brick_id

__all__ = ["bricks_in_box", "bricks_in_circle", "bricks_in_polygon"]

ROW_DEG = 0.25


def _ids(dec_low_deg, dec_high_deg, middle, half):
    """Return ids of the bricks of a declination range within ``half`` degrees of RA ``middle``."""
    columns, before = _rows()
    last = len(columns) - 1
    first_row = int(np.clip(np.floor((dec_low_deg + 90.125) / ROW_DEG), 0, last))
    last_row = int(np.clip(np.floor((dec_high_deg + 90.125) / ROW_DEG), 0, last))
    found = []
    for row in range(first_row, last_row + 1):
        n = columns[row]
        width = 360.0 / n
        if half >= 180.0 - width:
            column = np.arange(n)
        else:
            low = int(np.floor((middle - half) / width))
            high = int(np.floor((middle + half) / width))
            column = np.unique(np.arange(low, high + 1) % n)
        found.append(before[row] + column + 1)
    return np.concatenate(found)


def _separation(ra1, dec1, ra2, dec2):
    """Return great-circle distances, radians, of positions in radians (Vincenty)."""
    delta = ra2 - ra1
    across = np.hypot(
        np.cos(dec2) * np.sin(delta),
        np.cos(dec1) * np.sin(dec2) - np.sin(dec1) * np.cos(dec2) * np.cos(delta),
    )
    along = np.sin(dec1) * np.sin(dec2) + np.cos(dec1) * np.cos(dec2) * np.cos(delta)
    return np.arctan2(across, along)


def _distance_to_bricks(ra_deg, dec_deg, ids):
    """Return the distance, degrees, of a position to the nearest point of each brick."""
    ra1, ra2, dec1, dec2 = brick_edges(ids)
    middle, half = 0.5 * (ra1 + ra2), 0.5 * (ra2 - ra1)
    offset = (ra_deg - middle + 180.0) % 360.0 - 180.0
    # Within the brick's RA range the nearest point has the position's RA; else it is on the nearer
    # side.
    delta = np.radians(np.maximum(np.abs(offset) - half, 0.0))
    low, high, dec = np.radians(dec1), np.radians(dec2), np.radians(dec_deg)
    # On a meridian the cosine of the distance is a cosine of declination about this foot point.
    foot = np.arctan2(np.sin(dec), np.cos(dec) * np.cos(delta))
    candidates = [low, high, np.where((foot >= low) & (foot <= high), foot, low)]
    return np.degrees(np.min([_separation(0.0, dec, delta, d) for d in candidates], axis=0))


def bricks_in_circle(ra_deg, dec_deg, radius_deg):
    """Return the ids of the bricks that a circle touches.

    Parameters
    ----------
    ra_deg, dec_deg : float
        Centre, ICRS degrees.
    radius_deg : float
        Radius, 0 to 180 degrees; 0 gives the brick that owns the centre.

    Returns
    -------
    `~numpy.ndarray` of int
        Ascending.

    Raises
    ------
    InvalidRequestError
        If a value is not finite or out of range.

    Examples
    --------
    >>> from astroquery_lis.survey.bricks import name_of
    >>> from astroquery_lis.survey.overlap import bricks_in_circle
    >>> name_of(bricks_in_circle(0.0, 0.0, 0.01)).tolist()
    ['0001p000', '3598p000']
    """
    ra, dec = (float(value) for value in _checked_position(ra_deg, dec_deg))
    if not 0 <= radius_deg <= 180:
        msg = f"radius_deg={radius_deg!r} must be from 0 to 180."
        raise InvalidRequestError(msg, parameter="radius_deg", value=radius_deg)
    owner = int(brick_id(ra, dec))
    if dec + radius_deg >= 90 or dec - radius_deg <= -90:
        half_ra = 180.0
    else:
        ratio = np.sin(np.radians(radius_deg)) / np.cos(np.radians(dec))
        half_ra = float(np.degrees(np.arcsin(min(ratio, 1.0))))
    ids = _ids(dec - radius_deg, dec + radius_deg, ra, half_ra)
    near = ids[_distance_to_bricks(ra, dec, ids) < radius_deg]
    return np.union1d(near, [owner])


def bricks_in_box(ra_min_deg, ra_max_deg, dec_min_deg, dec_max_deg):
    """Return the ids of the bricks that a box in RA and Dec touches.

    Parameters
    ----------
    ra_min_deg, ra_max_deg : float
        Eastward from the first to the second, through RA 0 if the first is larger; a span of 360
        degrees or more is the whole circle.
    dec_min_deg, dec_max_deg : float
        Declination range.

    Returns
    -------
    `~numpy.ndarray` of int
        Ascending.

    Raises
    ------
    InvalidRequestError
        If a value is not finite or out of range.

    Examples
    --------
    >>> from astroquery_lis.survey.overlap import bricks_in_box
    >>> len(bricks_in_box(359.9, 0.1, -0.05, 0.05))
    2
    """
    _checked_position([ra_min_deg, ra_max_deg], [dec_min_deg, dec_max_deg])
    if dec_min_deg > dec_max_deg:
        msg = f"dec_min_deg={dec_min_deg!r} is larger than dec_max_deg={dec_max_deg!r}."
        raise InvalidRequestError(msg, parameter="dec_min_deg", value=dec_min_deg)
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


def _unit_vectors(ra_deg, dec_deg):
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _inside_polygon(points, corners):
    """Tell which unit vectors lie in a spherical polygon smaller than a hemisphere.

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


def _arcs_cross_bricks(a, b, ids):
    """Tell which bricks the great-circle arc from ``a`` to ``b`` passes through."""
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
        rest = 1.0 - (base**2).sum(axis=1)
        for sign in (1, -1):
            point = base + sign * np.sqrt(np.maximum(rest, 0))[:, None] * horizontal
            ra = np.degrees(np.arctan2(point[:, 1], point[:, 0])) % 360.0
            hit = (rest >= 0) & (ra >= ra1) & (ra <= ra2)
            crossed |= hit & _on_arc(point, a, b, normal)
    return crossed


def _on_arc(points, a, b, normal):
    return (np.cross(a, points) @ normal >= 0) & (np.cross(points, b) @ normal >= 0)


def bricks_in_polygon(ra_deg, dec_deg):
    """Return the ids of the bricks that a polygon with great-circle sides touches.

    Parameters
    ----------
    ra_deg, dec_deg : array_like of float, shape (n,)
        Corners in order, either way round; at least three.  The polygon must be simple and smaller
        than a hemisphere.

    Returns
    -------
    `~numpy.ndarray` of int
        Ascending.

    Raises
    ------
    InvalidRequestError
        If there are fewer than three corners or they are too far apart.

    Examples
    --------
    >>> from astroquery_lis.survey.overlap import bricks_in_polygon
    >>> len(bricks_in_polygon([10.0, 10.3, 10.3], [0.0, 0.0, 0.3]))
    5
    """
    ra, dec = _checked_position(ra_deg, dec_deg)
    if ra.ndim != 1 or ra.shape != dec.shape or len(ra) < 3:
        msg = f"A polygon needs three corners or more; ra_deg has shape {ra.shape}."
        raise InvalidRequestError(msg, parameter="ra_deg", value=ra_deg)
    corners = _unit_vectors(ra, dec)
    middle = corners.sum(axis=0)
    length = np.linalg.norm(middle)
    reach = (corners @ middle).min() / length if length > 0 else -1.0
    if reach < 0.05:
        msg = "The corners of the polygon are too far apart: it must be smaller than a hemisphere."
        raise InvalidRequestError(msg, parameter="ra_deg", value=ra_deg)
    middle = middle / length
    center_ra, center_dec = np.degrees([np.arctan2(middle[1], middle[0]), np.arcsin(middle[2])])
    near = bricks_in_circle(center_ra, center_dec, np.degrees(np.arccos(reach)) + 1e-9)
    touched = np.isin(near, brick_id(ra, dec))
    ra1, ra2, dec1, dec2 = brick_edges(near)
    for brick_ra, brick_dec in ((ra1, dec1), (ra2, dec1), (ra1, dec2), (ra2, dec2)):
        touched |= _inside_polygon(_unit_vectors(brick_ra, brick_dec), corners)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        touched |= _arcs_cross_bricks(a, b, near)
    return near[touched]
