"""Where JWST looked: S_REGION texts brought to shapes on the sky, and fields made of them.

A footprint is that of one exposure or mosaic; a field is what overlapping footprints cover
together.  Everything is done with great circles, so that RA 0 and the poles are places like any
other.
"""

import re
from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.time import Time

from ...exceptions import InvalidRequestError
from ...survey.overlap import _unit_vectors
from ...survey.sky_region import Circle, Polygon, separation_deg

__all__ = ["Field", "Footprint", "fields_of", "parse_s_region"]

_FRAMES = {
    "": "icrs",
    "ICRS": "icrs",
    "J2000": "fk5",
    "FK5": "fk5",
    "FK4": "fk4",
    "B1950": "fk4",
    "GALACTIC": "galactic",
    "ECLIPTIC": "barycentricmeanecliptic",
}
# What some archives put between the frame and the numbers.
_REFERENCES = {"UNKNOWNREFPOS", "BARYCENTER", "GEOCENTER", "TOPOCENTER", "SPHERICAL2"}

_RIM_POINTS = 64


@dataclass(frozen=True)
class Footprint:
    """What one exposure or mosaic covers.

    Attributes
    ----------
    name : str
        Of its file or row.
    shapes : tuple of `~astroquery_lis.survey.sky_region.Polygon` or Circle
        Together they are the footprint.
    mjd : float
        Middle of the exposure, days (UTC); NaN if it is not known.
    filter : str
        The filter; empty if it is not known.
    path : str
        The file; empty if there is none.
    """

    name: str
    shapes: tuple
    mjd: float = np.nan
    filter: str = ""
    path: str = ""


@dataclass(frozen=True)
class Field:
    """What one or more footprints cover together.

    Attributes
    ----------
    footprints : tuple of Footprint
        At least one.
    """

    footprints: tuple

    @property
    def name(self):
        """Name of the first footprint, and how many more there are."""
        more = len(self.footprints) - 1
        return self.footprints[0].name + (f" and {more} more" if more else "")

    @property
    def shapes(self):
        """The shapes of all footprints, each once."""
        return tuple(dict.fromkeys(shape for one in self.footprints for shape in one.shapes))

    @property
    def epoch(self):
        """Mean time of the footprints, `~astropy.time.Time`, or `None` if none is known."""
        known = [one.mjd for one in self.footprints if np.isfinite(one.mjd)]
        return Time(np.mean(known), format="mjd", scale="utc") if known else None

    @property
    def span_yr(self):
        """Time between the first and the last of the footprints, Julian years."""
        known = [one.mjd for one in self.footprints if np.isfinite(one.mjd)]
        return float(np.ptp(known)) / 365.25 if known else 0.0

    def corners(self):
        """Return the corners of all shapes; of a circle, those of a polygon around it.

        Returns
        -------
        ra_deg, dec_deg : `~numpy.ndarray` of float
            Every point of the field lies between them.
        """
        parts = [_corners(shape) for shape in self.shapes]
        return tuple(np.concatenate(axis) for axis in zip(*parts, strict=True))

    def enclosing(self, margin_deg=0.0):
        """Return a circle round the field.

        Parameters
        ----------
        margin_deg : float, optional
            Added to its radius.

        Returns
        -------
        `~astroquery_lis.survey.sky_region.Circle`
        """
        ra, dec = self.corners()
        middle = _unit_vectors(ra, dec).sum(axis=0)
        ra0, dec0 = _angles(middle / np.linalg.norm(middle))
        radius = float(separation_deg(ra0, dec0, ra, dec).max())
        return Circle(ra0, dec0, radius + margin_deg)

    def contains(self, ra_deg, dec_deg, margin_deg=0.0):
        """Tell which positions are in the field.

        Parameters
        ----------
        ra_deg, dec_deg : array_like of float, shape (n,)
            Positions, ICRS.
        margin_deg : float, optional
            How far outside of a shape a position may be.

        Returns
        -------
        `~numpy.ndarray` of bool
        """
        ra_deg, dec_deg = np.asarray(ra_deg, float), np.asarray(dec_deg, float)
        inside = np.zeros(len(ra_deg), bool)
        for shape in self.shapes:
            inside |= shape.contains(ra_deg, dec_deg)
            if margin_deg:
                inside |= _distance_deg(shape, ra_deg, dec_deg) <= margin_deg
        return inside

    def bricks(self, margin_deg=0.0):
        """Return the ids of the bricks that the field touches.

        Parameters
        ----------
        margin_deg : float, optional
            Added on every side.

        Returns
        -------
        `~numpy.ndarray` of int
        """
        return np.unique(np.concatenate([shape.bricks(margin_deg) for shape in self.shapes]))


def _angles(vector):
    return (
        float(np.degrees(np.arctan2(vector[1], vector[0])) % 360.0),
        float(np.degrees(np.arcsin(np.clip(vector[2], -1, 1)))),
    )


def _corners(shape):
    if isinstance(shape, Polygon):
        return np.array(shape.ra_deg), np.array(shape.dec_deg)
    # The polygon is drawn round the circle, not into it.
    radius = np.arctan(np.tan(np.radians(shape.radius_deg)) / np.cos(np.pi / _RIM_POINTS))
    turn = 2 * np.pi * np.arange(_RIM_POINTS) / _RIM_POINTS
    rim = SkyCoord(shape.ra_deg, shape.dec_deg, unit="deg").directional_offset_by(
        turn * u.rad, radius * u.rad
    )
    return rim.ra.deg, rim.dec.deg


def _distance_deg(shape, ra_deg, dec_deg):
    """Return the distance of positions outside a shape to its rim."""
    if isinstance(shape, Circle):
        return separation_deg(*shape.center, ra_deg, dec_deg) - shape.radius_deg
    points = _unit_vectors(ra_deg, dec_deg)
    corners = _unit_vectors(np.array(shape.ra_deg), np.array(shape.dec_deg))
    nearest = np.full(len(points), np.inf)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        normal = np.cross(a, b)
        length = np.linalg.norm(normal)
        to_corner = np.linalg.norm(points - a, axis=1)
        nearest = np.minimum(nearest, 2 * np.arcsin(np.clip(to_corner / 2, 0, 1)))
        if length < 1e-15:
            continue
        normal = normal / length
        beside = (np.cross(normal, a) @ points.T >= 0) & (np.cross(b, normal) @ points.T >= 0)
        height = np.abs(np.arcsin(np.clip(points @ normal, -1, 1)))
        nearest = np.where(beside, np.minimum(nearest, height), nearest)
    return np.degrees(nearest)


def parse_s_region(text):
    """Return the shapes that an S_REGION means.

    Parameters
    ----------
    text : str
        For example ``'POLYGON ICRS 53.1 -27.8 53.2 -27.8 53.2 -27.7'`` or
        ``'CIRCLE ICRS 53.1 -27.8 0.01'``; several shapes after one another, or in a ``UNION``, are
        one footprint.  Numbers are degrees.

    Returns
    -------
    tuple of `~astroquery_lis.survey.sky_region.Polygon` or Circle
        ICRS.

    Raises
    ------
    InvalidRequestError
        If it is no such text.

    Examples
    --------
    >>> from astroquery_lis.jwst_stage.legacy.footprint import parse_s_region
    >>> parse_s_region("CIRCLE ICRS 53.1 -27.8 0.01")
    (Circle(ra_deg=53.1, dec_deg=-27.8, radius_deg=0.01),)
    """

    def refuse(why):
        msg = f"s_region={text!r} {why}"
        raise InvalidRequestError(msg, parameter="s_region", value=text)

    if not isinstance(text, str) or not text.strip():
        refuse("must be a text such as 'POLYGON ICRS 53.1 -27.8 53.2 -27.8 53.2 -27.7'.")
    words = re.sub(r"[(),]", " ", text).upper().split()
    shapes, frame, outer = [], "", ""
    place = 0
    while place < len(words):
        kind = words[place]
        place += 1
        if kind not in ("POLYGON", "CIRCLE", "UNION"):
            refuse(f"has {kind!r} where POLYGON, CIRCLE or UNION was due.")
        frame = outer
        while place < len(words) and (words[place] in _FRAMES or words[place] in _REFERENCES):
            frame = words[place] if words[place] in _FRAMES else frame
            place += 1
        if kind == "UNION":
            outer = frame
            continue
        numbers = []
        while place < len(words) and words[place] not in ("POLYGON", "CIRCLE", "UNION"):
            try:
                numbers.append(float(words[place]))
            except ValueError:
                refuse(f"has {words[place]!r} where a number was due.")
            place += 1
        if not np.isfinite(numbers).all():
            refuse("has numbers that are not finite.")
        try:
            shapes.append(_shape(kind, _FRAMES[frame], numbers))
        except ValueError as error:
            refuse(str(error))
    if not shapes:
        refuse("has no shape in it.")
    return tuple(shapes)


def _shape(kind, frame, numbers):
    """Return one shape; a `ValueError` says what is wrong with its numbers."""
    if kind == "CIRCLE":
        if len(numbers) != 3 or not 0 < numbers[2] < 90:
            msg = "has a CIRCLE without three numbers: RA, Dec, and a radius above 0."
            raise ValueError(msg)
        ra, dec = _icrs(numbers[:1], numbers[1:2], frame)
        return Circle(float(ra[0]), float(dec[0]), numbers[2])
    if len(numbers) < 6 or len(numbers) % 2:
        msg = "has a POLYGON without three corners or more, two numbers each."
        raise ValueError(msg)
    ra, dec = _icrs(numbers[::2], numbers[1::2], frame)
    apart = separation_deg(ra, dec, np.roll(ra, -1), np.roll(dec, -1))
    # Corners that come twice, as the last one often does, are no sides.
    kept = apart > 1e-9
    if kept.sum() < 3:
        msg = "has a POLYGON with fewer than three different corners."
        raise ValueError(msg)
    return Polygon(tuple(ra[kept].tolist()), tuple(dec[kept].tolist()))


def _icrs(first, second, frame):
    if max(map(abs, second)) > 90:
        msg = "has a latitude beyond 90 degrees."
        raise ValueError(msg)
    if frame == "icrs":
        return np.array(first) % 360.0, np.array(second)
    position = SkyCoord(first, second, unit="deg", frame=frame).icrs
    return position.ra.deg, position.dec.deg


def fields_of(footprints, *, union=True):
    """Return the fields that footprints make.

    Parameters
    ----------
    footprints : sequence of Footprint
        As from `~.legacy_where.footprints_of`.
    union : bool, optional
        Whether footprints that overlap make one field, as do those that are linked by others.

    Returns
    -------
    list of Field
        In the order of their first footprints.
    """
    if not union:
        return [Field((one,)) for one in footprints]
    parent = list(range(len(footprints)))

    def root(index):
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    circles = [Field((one,)).enclosing() for one in footprints]
    ra, dec = (np.array([circle.center[axis] for circle in circles]) for axis in (0, 1))
    radius = np.array([circle.radius_deg for circle in circles])
    for i, one in enumerate(footprints):
        near = separation_deg(ra[i], dec[i], ra[:i], dec[:i]) <= radius[i] + radius[:i]
        for j in np.flatnonzero(near).tolist():
            if root(i) != root(j) and _touch(one, footprints[j]):
                parent[max(root(i), root(j))] = min(root(i), root(j))
    groups = {}
    for index, one in enumerate(footprints):
        groups.setdefault(root(index), []).append(one)
    return [Field(tuple(group)) for group in groups.values()]


def _touch(one, other):
    """Tell whether two footprints have a point in common."""
    return any(_shapes_touch(a, b) for a in one.shapes for b in other.shapes)


def _shapes_touch(a, b):
    if a == b:
        return True
    if isinstance(a, Circle) and isinstance(b, Circle):
        return bool(separation_deg(*a.center, *b.center) <= a.radius_deg + b.radius_deg)
    if isinstance(a, Circle):
        a, b = b, a
    corners = _corners(a)
    if isinstance(b, Circle):
        center = np.array([b.ra_deg]), np.array([b.dec_deg])
        near = _distance_deg(a, *center) <= b.radius_deg
        return bool(near.any() or a.contains(*center).any())
    if a.contains(*_corners(b)).any() or b.contains(*corners).any():
        return True
    return _sides_cross(_unit_vectors(*corners), _unit_vectors(*_corners(b)))


def _sides_cross(one, other):
    """Tell whether any side of a polygon crosses one of another (unit vectors of the corners)."""
    a, b = one[:, None], np.roll(one, -1, axis=0)[:, None]
    c, d = other[None], np.roll(other, -1, axis=0)[None]

    def side(first, second, point):
        return (np.cross(first, second) * point).sum(axis=-1)

    apart = (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)
    # Great circles cross at two places; the other one is at the antipode.
    return bool((apart & ((a * c).sum(axis=-1) > 0)).any())
