"""Where a place of the sky falls on a detector, in plain numpy.

The chain of the pipeline's ``assign_wcs`` step is written out here a second time, from the
definitions of the V2V3 frame and of its keywords, so that agreement between the two means
something.  Pixels are counted from 0 at the centre of the first pixel of the full detector.
"""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

__all__ = ["DETECTORS", "DETECTOR_PIX", "Detector", "Pointing", "offset_position"]

DETECTOR_PIX = 2048
_CENTRE_PIX = (DETECTOR_PIX - 1) / 2
# Pixels by which the row is bent at one pixel squared from the centre: 1 pixel at the edge.
_BEND = 1e-6


@dataclass(frozen=True, slots=True)
class Detector:
    """One detector: its names and how its pixels lie in the V2V3 frame.

    Attributes
    ----------
    name, channel, module : str
        As in the keywords.
    scale_arcsec : float
        Side of a pixel.
    v2_arcsec, v3_arcsec : float
        Where the centre of the detector lies.
    angle_deg : float
        Angle from V3 to the columns, towards V2.
    sca_number : int
        Number of the detector in the instrument.
    """

    name: str
    channel: str
    module: str
    scale_arcsec: float
    v2_arcsec: float
    v3_arcsec: float
    angle_deg: float
    sca_number: int

    def matrix(self):
        """Return the matrix from straightened pixels to arcsec of (V2, V3), shape (2, 2)."""
        cos, sin = np.cos(np.radians(self.angle_deg)), np.sin(np.radians(self.angle_deg))
        # V2 runs against x.
        return self.scale_arcsec * np.array([[-cos, sin], [sin, cos]])

    def to_v2v3(self, x_pix, y_pix):
        """Return V2 and V3 (arcsec) of pixels of the full detector."""
        x, y = np.asarray(x_pix) - _CENTRE_PIX, np.asarray(y_pix) - _CENTRE_PIX
        y = y + _BEND * x**2
        (a, b), (c, d) = self.matrix()
        return self.v2_arcsec + a * x + b * y, self.v3_arcsec + c * x + d * y

    def from_v2v3(self, v2_arcsec, v3_arcsec):
        """Return x and y in pixels of the full detector."""
        east, up = np.asarray(v2_arcsec) - self.v2_arcsec, np.asarray(v3_arcsec) - self.v3_arcsec
        (a, b), (c, d) = np.linalg.inv(self.matrix())
        x, y = a * east + b * up, c * east + d * up
        return x + _CENTRE_PIX, y - _BEND * x**2 + _CENTRE_PIX

    def transform(self, shift_arcsec=0.0):
        """Return the same as an `~astropy.modeling.Model`, with its inverse, for a reference file.

        Parameters
        ----------
        shift_arcsec : float, optional
            Added to V2.

        Returns
        -------
        `~astropy.modeling.Model`
        """
        from astropy.modeling.models import (
            AffineTransformation2D,
            Identity,
            Mapping,
            Polynomial2D,
            Shift,
        )

        def bend(sign):
            row = Polynomial2D(2, c0_1=1.0, c2_0=sign * _BEND)
            model = Mapping((0, 0, 1)) | Identity(1) & row
            model.inverse = None
            return model

        centre = [self.v2_arcsec + shift_arcsec, self.v3_arcsec]
        matrix = self.matrix()
        back = np.linalg.inv(matrix)
        to_origin = Shift(-_CENTRE_PIX) & Shift(-_CENTRE_PIX)
        affine = AffineTransformation2D(matrix=matrix, translation=centre)
        affine_back = AffineTransformation2D(matrix=back, translation=-back @ centre)
        model = to_origin | bend(1) | affine
        model.inverse = affine_back | bend(-1) | Shift(_CENTRE_PIX) & Shift(_CENTRE_PIX)
        return model


DETECTORS = MappingProxyType(
    {
        "NRCALONG": Detector("NRCALONG", "LONG", "A", 0.0629, 86.10, -493.23, -0.08, 485),
        "NRCA1": Detector("NRCA1", "SHORT", "A", 0.0311, 120.67, -527.39, -0.56, 481),
    }
)
"""The detectors that are simulated, by name."""


def _rotation(axis, angle_deg):
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = cos
    matrix[first, second], matrix[second, first] = -sin, sin
    return matrix


def _to_vector(longitude_deg, latitude_deg):
    longitude, latitude = np.radians(longitude_deg), np.radians(latitude_deg)
    cos = np.cos(latitude)
    return np.stack([cos * np.cos(longitude), cos * np.sin(longitude), np.sin(latitude)])


def _to_angles(vector):
    longitude = np.degrees(np.arctan2(vector[1], vector[0])) % 360.0
    return longitude, np.degrees(np.arctan2(vector[2], np.hypot(vector[0], vector[1])))


@dataclass(frozen=True, slots=True)
class Pointing:
    """Where a point of the V2V3 frame is in the sky, and which way V3 runs there.

    Attributes
    ----------
    v2_arcsec, v3_arcsec : float
        The reference point.
    ra_deg, dec_deg : float
        Its place in the sky.
    roll_deg : float
        Position angle of V3 there, north to east.
    """

    v2_arcsec: float
    v3_arcsec: float
    ra_deg: float
    dec_deg: float
    roll_deg: float

    def matrix(self):
        """Return the matrix from unit vectors of (V2, V3) to those of (RA, Dec)."""
        return (
            _rotation("z", self.ra_deg)
            @ _rotation("y", -self.dec_deg)
            @ _rotation("x", -self.roll_deg)
            @ _rotation("y", self.v3_arcsec / 3600)
            @ _rotation("z", -self.v2_arcsec / 3600)
        )

    def to_sky(self, v2_arcsec, v3_arcsec):
        """Return RA and Dec in degrees."""
        vector = _to_vector(np.asarray(v2_arcsec) / 3600, np.asarray(v3_arcsec) / 3600)
        return _to_angles(np.tensordot(self.matrix(), vector, 1))

    def from_sky(self, ra_deg, dec_deg):
        """Return V2 and V3 in arcsec."""
        vector = _to_vector(np.asarray(ra_deg, float), np.asarray(dec_deg, float))
        v2, v3 = _to_angles(np.tensordot(self.matrix().T, vector, 1))
        return ((v2 + 180) % 360 - 180) * 3600, v3 * 3600


def offset_position(ra_deg, dec_deg, east_arcsec, north_arcsec):
    """Return the RA and Dec of a place some arcsec away, along great circles."""
    vector = _to_vector(east_arcsec / 3600, north_arcsec / 3600)
    return _to_angles(_rotation("z", ra_deg) @ _rotation("y", -dec_deg) @ vector)
