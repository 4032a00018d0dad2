"""NIRISS imaging of a field of stars."""

from __future__ import annotations

from os import PathLike

import numpy as np

from ..detector import Detector, first_pixel
from .exposures import ModeObservation, Setup, Shot
from .program import Program
from .ramps import ramp_references
from .star_fields import Camera, star_grid

NIS = Detector("NIS", "", "", 0.0656, -289.97, -697.72, 0.57, 496)
_SIZE = 128
_CAMERA = Camera(
    Setup(
        "NIS_IMAGE",
        {"name": "NIRISS", "detector": "NIS", "filter": "CLEAR", "pupil": "F115W"},
        NIS,
        (_SIZE, _SIZE),
        (first_pixel(_SIZE), first_pixel(_SIZE)),
        "SUB128",
        keywords={"observation.template": "NIRISS Imaging", "exposure.readpatt": "NISRAPID"},
    ),
    sigma_pix=1.0,
    photmjsr=0.6,
)
_DITHERS = ((0.0, 0.0), (0.42, 0.23), (-0.31, 0.37), (0.17, -0.45))
# By how much the keywords of each dither are wrong, arcsec (east, north).
_ERRORS = ((0.0, 0.0), (0.11, -0.06), (-0.08, -0.1), (0.03, 0.13))
_SKY_MJYSR = 0.4


def simulate_niriss(
    directory: str | PathLike[str], *, uncal: bool = False, seed: int = 11
) -> ModeObservation:
    """Simulate four dithers of 16 stars in F115W, which is in the pupil wheel.

    All but the first point up to 0.14 arcsec from where their keywords say.

    Parameters
    ----------
    directory : path-like
        Where files are written.
    uncal : bool, optional
        Whether to write uncalibrated exposures instead of count rates.
    seed : int, optional
        Of the noise.

    Returns
    -------
    ModeObservation

    Raises
    ------
    OptionalDependencyError
        If stdatamodels or crds is not installed.
    """
    program = Program(directory, seed, uncal=uncal)
    stars = star_grid(program.rng, np.arange(-2.4, 2.5, 1.6), (2e-6, 1e-5))
    for number, (dither, error) in enumerate(zip(_DITHERS, _ERRORS, strict=True), start=1):
        light = _CAMERA.image(_CAMERA.pointing(dither), stars, _SKY_MJYSR)
        announced = (dither[0] + error[0], dither[1] + error[1])
        shot = Shot(number, _CAMERA.pointing(announced))
        program.expose(_CAMERA.setup, shot, light)
    references = _CAMERA.references() | ramp_references(_CAMERA.setup)
    return program.observation({"name": "NIRISS", "detector": "NIS"}, references, stars)
