"""The part of the sky that a catalogue query asks for: a circle, a box or a polygon.

Each knows the bricks that it touches, the circle that encloses it, and which positions lie in it.
Plain degrees, ICRS.
"""

from dataclasses import dataclass

import numpy as np

from .overlap import (
    _inside_polygon,
    _separation,
    _unit_vectors,
    bricks_in_circle,
    bricks_in_polygon,
)

__all__ = ["Box", "Circle", "Polygon", "separation_deg"]


def separation_deg(ra1_deg, dec1_deg, ra2_deg, dec2_deg):
    """Return great-circle distances.

    Parameters
    ----------
    ra1_deg, dec1_deg, ra2_deg, dec2_deg : array_like of float
        Positions, shapes that broadcast.

    Returns
    -------
    `~numpy.ndarray` of float
        Degrees.
    """
    return np.degrees(_separation(*map(np.radians, (ra1_deg, dec1_deg, ra2_deg, dec2_deg))))


@dataclass(frozen=True)
class Circle:
    """All positions within ``radius_deg`` of the centre, its rim included.

    Attributes
    ----------
    ra_deg, dec_deg : float
        Centre.
    radius_deg : float
        Radius.
    """

    ra_deg: float
    dec_deg: float
    radius_deg: float

    @property
    def center(self):
        """The centre, (RA, Dec)."""
        return self.ra_deg, self.dec_deg

    @property
    def enclosing(self):
        """The circle itself."""
        return self

    def contains(self, ra_deg, dec_deg):
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
        distance = separation_deg(*self.center, ra_deg[near], dec_deg[near])
        inside[near] = distance <= self.radius_deg
        return inside

    def bricks(self, margin_deg=0.0):
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

    def boxes(self, margin_deg=0.0):
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
        ratio = np.sin(np.radians(radius)) / np.cos(np.radians(self.dec_deg))
        half = float(np.degrees(np.arcsin(min(ratio, 1.0)))) + margin_deg
        west, east = self.ra_deg - half, self.ra_deg + half
        if half >= 180:
            return [(0.0, 360.0, low, high)]
        if west < 0:
            return [(west + 360, 360.0, low, high), (0.0, east, low, high)]
        if east > 360:
            return [(west, 360.0, low, high), (0.0, east - 360, low, high)]
        return [(west, east, low, high)]


@dataclass(frozen=True)
class Box:
    """A box round a centre, measured along great circles: the same at a pole as on the equator.

    Attributes
    ----------
    ra_deg, dec_deg : float
        Centre.
    width_deg, height_deg : float
        Full extent east-west and north-south.
    """

    ra_deg: float
    dec_deg: float
    width_deg: float
    height_deg: float

    @property
    def center(self):
        """The centre, (RA, Dec)."""
        return self.ra_deg, self.dec_deg

    @property
    def enclosing(self):
        """The circle through the corners."""
        ra, dec = self._corners(0.0)
        radius = separation_deg(*self.center, ra, dec).max()
        # Away from the corners the sides can be a trifle farther out than the corners' circle.
        return Circle(*self.center, float(max(radius, self.width_deg / 2, self.height_deg / 2)))

    def _axes(self):
        ra, dec = np.radians(self.center)
        forward = _unit_vectors(*self.center)
        east = np.array([-np.sin(ra), np.cos(ra), 0.0])
        north = np.array([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)])
        return forward, east, north

    def _corners(self, margin_deg):
        forward, east, north = self._axes()
        half_x = np.radians(self.width_deg / 2 + margin_deg)
        half_y = np.radians(self.height_deg / 2 + margin_deg)
        points = np.array(
            [
                np.cos(y) * (np.cos(x) * forward + np.sin(x) * east) + np.sin(y) * north
                for x, y in (
                    (-half_x, -half_y), (half_x, -half_y), (half_x, half_y), (-half_x, half_y)
                )
            ]
        )
        ra = np.degrees(np.arctan2(points[:, 1], points[:, 0])) % 360.0
        return ra, np.degrees(np.arcsin(np.clip(points[:, 2], -1, 1)))

    def contains(self, ra_deg, dec_deg):
        """Tell which positions are inside, as `Circle.contains` does."""
        points = _unit_vectors(np.asarray(ra_deg), np.asarray(dec_deg))
        along, east, north = (points @ axis for axis in self._axes())
        x = np.degrees(np.arctan2(east, along))
        y = np.degrees(np.arcsin(np.clip(north, -1, 1)))
        return (np.abs(x) <= self.width_deg / 2) & (np.abs(y) <= self.height_deg / 2)

    def bricks(self, margin_deg=0.0):
        """Return the ids of the bricks that it touches, as `Circle.bricks` does."""
        # Its northern and southern sides bend away from the great circles between its corners, and
        # lie inside them.
        return bricks_in_polygon(*self._corners(margin_deg))


@dataclass(frozen=True)
class Polygon:
    """A simple polygon with great-circle sides, smaller than a hemisphere.

    Attributes
    ----------
    ra_deg, dec_deg : tuple of float
        Its corners, in order.
    """

    ra_deg: tuple
    dec_deg: tuple

    center = None

    @property
    def enclosing(self):
        """A circle that holds all corners."""
        corners = _unit_vectors(np.array(self.ra_deg), np.array(self.dec_deg))
        middle = corners.sum(axis=0)
        middle = middle / np.linalg.norm(middle)
        ra = float(np.degrees(np.arctan2(middle[1], middle[0])) % 360.0)
        dec = float(np.degrees(np.arcsin(np.clip(middle[2], -1, 1))))
        radius = separation_deg(ra, dec, np.array(self.ra_deg), np.array(self.dec_deg)).max()
        return Circle(ra, dec, float(radius))

    def contains(self, ra_deg, dec_deg):
        """Tell which positions are inside, as `Circle.contains` does."""
        ra_deg, dec_deg = np.asarray(ra_deg), np.asarray(dec_deg)
        inside = self.enclosing.contains(ra_deg, dec_deg)
        near = np.flatnonzero(inside)
        corners = _unit_vectors(np.array(self.ra_deg), np.array(self.dec_deg))
        inside[near] = _inside_polygon(_unit_vectors(ra_deg[near], dec_deg[near]), corners)
        return inside

    def bricks(self, margin_deg=0.0):
        """Return the ids of the bricks that it touches, as `Circle.bricks` does."""
        if margin_deg:
            return self.enclosing.bricks(margin_deg)
        return bricks_in_polygon(self.ra_deg, self.dec_deg)
