"""The PSFs of the simulated exposures, in the pixels of the CCDs as the viewer gives them."""

from dataclasses import dataclass

import numpy as np

from . import render

__all__ = ["CAMERAS", "ELONGATED_DEG", "Camera", "PsfShape", "ccd_psf", "psf_shape"]

ELONGATED_DEG = (45.120, 0.065)
"""Where the exposures were guided badly: RA, Dec in degrees."""

_ELONGATED_RADIUS_ARCSEC = 40.0
_AXIS_RATIO = 0.7
_POSITION_ANGLE_DEG = 30.0


@dataclass(frozen=True)
class Camera:
    """How a camera sees the sky.

    Attributes
    ----------
    name : str
        What the survey calls it.
    pixel_scale_arcsec : float
        Pixel size.
    size_pix : int
        Width and height of the PSF model.
    axes : tuple
        Matrix from steps along (x, y) to steps to (east, north), in pixels.
    """

    name: str
    pixel_scale_arcsec: float
    size_pix: int
    axes: tuple


# A DECam CCD has its rows along the meridian: x runs south, y runs east.
# The Mosaic cameras at Kitt Peak say the same of themselves (DECPANGL 270, RAPANGL 0).
_MERIDIAN = ((0, 1), (-1, 0))
_DECAM = Camera("decam", 0.262, 63, _MERIDIAN)
_UPRIGHT = ((-1, 0), (0, 1))
CAMERAS = {
    ("south", "g"): _DECAM,
    ("south", "r"): _DECAM,
    ("south", "i"): _DECAM,
    ("south", "z"): _DECAM,
    ("north", "g"): Camera("90prime", 0.454, 31, _UPRIGHT),
    ("north", "r"): Camera("90prime", 0.454, 31, _UPRIGHT),
    ("north", "z"): Camera("mosaic", 0.26, 63, _MERIDIAN),
}
"""The camera of each region and band."""


@dataclass(frozen=True)
class PsfShape:
    """The shape of the PSF on the sky.

    Attributes
    ----------
    fwhm_arcsec : float
        Full width at half maximum, arcsec; geometric mean of both axes.
    axis_ratio : float
        Minor over major axis.
    position_angle_deg : float
        Of the major axis, from north to east.
    """

    fwhm_arcsec: float
    axis_ratio: float
    position_angle_deg: float

    @property
    def major_fwhm_arcsec(self):
        """Full width at half maximum along the major axis."""
        return self.fwhm_arcsec / np.sqrt(self.axis_ratio)

    @property
    def minor_fwhm_arcsec(self):
        """Full width at half maximum along the minor axis."""
        return self.fwhm_arcsec * np.sqrt(self.axis_ratio)


def psf_shape(ra_deg, dec_deg, band):
    """Return the shape of the PSF that the PSF service gives at a place.

    It is round, as the sources of the scene are, but within 40 arcsec of `ELONGATED_DEG`.

    Parameters
    ----------
    ra_deg, dec_deg : float
        Position, degrees.
    band : str
        ``'g'``, ``'r'``, ``'i'`` or ``'z'``.

    Returns
    -------
    PsfShape
    """
    east = (ra_deg - ELONGATED_DEG[0] + 180) % 360 - 180
    distance = np.hypot(east * np.cos(np.radians(dec_deg)), dec_deg - ELONGATED_DEG[1]) * 3600
    fwhm = render.psf_fwhm_arcsec(band)
    if distance < _ELONGATED_RADIUS_ARCSEC:
        return PsfShape(fwhm, _AXIS_RATIO, _POSITION_ANGLE_DEG)
    return PsfShape(fwhm, 1.0, 0.0)


def ccd_psf(ra_deg, dec_deg, region, band):
    """Return the PSF at a place in the pixels of the CCD.

    Parameters
    ----------
    ra_deg, dec_deg : float
        Position, degrees.
    region, band : str
        A key of `CAMERAS`.

    Returns
    -------
    `~numpy.ndarray` of float32
        Square, centred, adds up to 1.
    """
    camera = CAMERAS[region, band]
    shape = psf_shape(ra_deg, dec_deg, band)
    angle = np.radians(shape.position_angle_deg)
    # In (east, north), for a PSF with a sigma of 1 arcsec.
    major = np.array([np.sin(angle), np.cos(angle)]) / shape.axis_ratio**0.5
    minor = np.array([np.cos(angle), -np.sin(angle)]) * shape.axis_ratio**0.5
    to_ccd = np.linalg.inv(np.array(camera.axes) * camera.pixel_scale_arcsec)
    spread = to_ccd @ np.column_stack([major, minor])
    unit = np.linalg.inv(spread @ spread.T)
    y, x = np.mgrid[: camera.size_pix, : camera.size_pix] - (camera.size_pix - 1) / 2
    distance2 = unit[0, 0] * x**2 + 2 * unit[0, 1] * x * y + unit[1, 1] * y**2
    psf = sum(
        weight / sigma**2 * np.exp(-0.5 * distance2 / sigma**2)
        for weight, sigma in render.psf_components(band)
    )
    return (psf / psf.sum()).astype(np.float32)
