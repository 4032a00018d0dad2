"""The part of the sky that a catalogue query asks for: a circle, a box or a polygon.

Each knows the bricks that it touches, the circle that encloses it, and which positions lie in it.
Plain degrees, ICRS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .sphere import (
    bricks_in_circle,
    bricks_in_polygon,
    half_width_deg,
    inside_polygon,
    middle_of,
    positions_of,
    separation_deg,
    unit_vectors,
)


@dataclass(frozen=True)
class Circle:
    """All positions within ``radius_deg`` of the centre, its rim included."""

    ra_deg: float
    dec_deg: float
    radius_deg: float

    @property
    def center(self) -> tuple[float, float]:
        """The centre, (RA, Dec)."""
        return self.ra_deg, self.dec_deg

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
        distance = separation_deg(*self.center, ra_deg[near], dec_deg[near])
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
class Box:
    """A rectangle round the centre, its sides along great circles and parallels of its frame."""

    ra_deg: float
    dec_deg: float
    width_deg: float
    height_deg: float

    @property
    def center(self) -> tuple[float, float]:
        """The centre, (RA, Dec)."""
        return self.ra_deg, self.dec_deg

    @property
    def enclosing(self) -> Circle:
        """The circle through the corners."""
        ra, dec = self._corners(0.0)
        radius = separation_deg(*self.center, ra, dec).max()
        # Away from the corners the sides can be a trifle farther out than the corners' circle.
        return Circle(*self.center, float(max(radius, self.width_deg / 2, self.height_deg / 2)))

    def _axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ra, dec = np.radians(self.center)
        forward = unit_vectors(*self.center)
        east = np.array([-np.sin(ra), np.cos(ra), 0.0])
        north = np.array([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)])
        return forward, east, north

    def _corners(self, margin_deg: float) -> tuple[np.ndarray, np.ndarray]:
        forward, east, north = self._axes()
        half_x = np.radians(self.width_deg / 2 + margin_deg)
        half_y = np.radians(self.height_deg / 2 + margin_deg)
        points = np.array(
            [
                np.cos(y) * (np.cos(x) * forward + np.sin(x) * east) + np.sin(y) * north
                for x, y in (
                    (-half_x, -half_y),
                    (half_x, -half_y),
                    (half_x, half_y),
                    (-half_x, half_y),
                )
            ]
        )
        return positions_of(points)

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
class Polygon:
    """A simple polygon with great-circle sides, smaller than a hemisphere."""

    ra_deg: tuple[float, ...]
    dec_deg: tuple[float, ...]

    center = None

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
