"""Pixel grids on the sky, and boxes of pixels, as plain numbers.

`TangentGrid` is the same mapping as `astropy.wcs.WCS` with ``RA---TAN``/``DEC--TAN`` and the pole
at the North (Calabretta & Greisen 2002, A&A 395, 1077, section 5.1.3), for north-up grids, ten
times faster on small arrays and free of object construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from astropy.io.fits import Header

if TYPE_CHECKING:
    from astropy.wcs import WCS


DEFAULT_SIZE = 256
"""Width and height of a cutout, pixels, where none is given."""


class Box(NamedTuple):
    """The pixels ``[y0, y1) x [x0, x1)``, counted from 0."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The box as a pair of slices."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    @property
    def shape(self) -> tuple[int, int]:
        """``(ny, nx)``."""
        return self.y1 - self.y0, self.x1 - self.x0

    def clipped(self, ny: int, nx: int) -> Box:
        """Return what of the box lies in an image of ``ny`` x ``nx`` pixels; may be empty."""
        y0, x0 = min(max(self.y0, 0), ny), min(max(self.x0, 0), nx)
        return Box(y0, max(min(self.y1, ny), y0), x0, max(min(self.x1, nx), x0))

    def is_within(self, ny: int, nx: int) -> bool:
        """Return True if an image of ``ny`` x ``nx`` pixels holds the whole box."""
        return self.clipped(ny, nx) == self

    def moved(self, dy: int, dx: int) -> Box:
        """Return the box shifted by ``dy`` rows and ``dx`` columns."""
        return Box(self.y0 + dy, self.y1 + dy, self.x0 + dx, self.x1 + dx)


def depth_in(box: Box, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return how far within a box pixels lie, up to its border; negative outside."""
    across = np.minimum(x - (box.x0 - 0.5), box.x1 - 0.5 - x)
    return np.minimum(across, np.minimum(y - (box.y0 - 0.5), box.y1 - 0.5 - y))


@dataclass(frozen=True)
class TangentGrid:
    """A north-up, east-left TAN grid with square pixels."""

    ra_deg: float
    dec_deg: float
    x_ref: float
    y_ref: float
    scale_deg: float

    def to_pixel(
        self, ra_deg: float | np.ndarray, dec_deg: float | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return pixel coordinates of sky positions."""
        ra, dec = np.radians(ra_deg), np.radians(dec_deg)
        ra0, dec0 = np.radians(self.ra_deg), np.radians(self.dec_deg)
        sin_dec, cos_dec, cos_ra = np.sin(dec), np.cos(dec), np.cos(ra - ra0)
        depth = np.sin(dec0) * sin_dec + np.cos(dec0) * cos_dec * cos_ra
        depth = np.where(depth > 0, depth, np.nan)
        scale = np.radians(self.scale_deg)
        east = cos_dec * np.sin(ra - ra0) / depth
        north = (np.cos(dec0) * sin_dec - np.sin(dec0) * cos_dec * cos_ra) / depth
        return self.x_ref - east / scale, self.y_ref + north / scale

    def to_sky(self, x: float | np.ndarray, y: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return sky positions of pixel coordinates."""
        scale = np.radians(self.scale_deg)
        east = (self.x_ref - np.asarray(x, dtype=float)) * scale
        north = (np.asarray(y, dtype=float) - self.y_ref) * scale
        dec0 = np.radians(self.dec_deg)
        across = np.cos(dec0) - north * np.sin(dec0)
        ra = np.degrees(np.arctan2(east, across)) + self.ra_deg
        dec = np.arctan2(np.sin(dec0) + north * np.cos(dec0), np.hypot(east, across))
        return ra % 360.0, np.degrees(dec)

    def cards(self, *, x0: int = 0, y0: int = 0) -> list[tuple[str, str | float, str]]:
        """Return the FITS cards that describe a box of this grid."""
        return [
            ("CTYPE1", "RA---TAN", ""),
            ("CTYPE2", "DEC--TAN", ""),
            ("CUNIT1", "deg", ""),
            ("CUNIT2", "deg", ""),
            ("CRVAL1", self.ra_deg, "RA of the tangent point"),
            ("CRVAL2", self.dec_deg, "Dec of the tangent point"),
            ("CRPIX1", self.x_ref + 1 - x0, ""),
            ("CRPIX2", self.y_ref + 1 - y0, ""),
            ("CD1_1", -self.scale_deg, ""),
            ("CD1_2", 0.0, ""),
            ("CD2_1", 0.0, ""),
            ("CD2_2", self.scale_deg, ""),
            # The default turns a grid that is centred on the north pole itself upside down.
            ("LONPOLE", 180.0, ""),
            ("RADESYS", "ICRS", ""),
        ]

    @property
    def side_deg(self) -> float:
        """Side of a pixel, degrees."""
        return self.scale_deg

    def wcs(self, *, x0: int = 0, y0: int = 0, shape: tuple[int, int] | None = None) -> WCS:
        """Return the astropy WCS of a box of this grid."""
        # Seldom needed, and slow to import.
        from astropy.wcs import WCS

        wcs = WCS(Header(self.cards(x0=x0, y0=y0)), naxis=2)
        if shape is not None:
            wcs.array_shape = shape
        return wcs
