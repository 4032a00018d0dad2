"""Wavefront sensing with NIRCam: a pair of images of a star, some whole pixels apart."""

from __future__ import annotations

from os import PathLike

import numpy as np
from astropy.table import Table

from ..detector import DETECTORS, first_pixel
from .exposures import ModeObservation, Setup, Shot
from .program import Program
from .star_fields import ROLL_DEG, TARGET_DEG, Camera

_SIZE = 96
_CAMERA = Camera(
    Setup(
        "NRC_IMAGE",
        {
            "name": "NIRCAM", "detector": "NRCA1", "channel": "SHORT", "module": "A",
            "filter": "F210M", "pupil": "CLEAR",
        },
        DETECTORS["NRCA1"],
        (_SIZE, _SIZE),
        (first_pixel(_SIZE), first_pixel(_SIZE)),
        "SUB160",
        keywords={
            "observation.template": "NIRCam Wavefront Sensing and Control",
            "observation.obs_id": "V01234001001P0000000002101",
            "exposure.readpatt": "BRIGHT2",
            "visit.type": "PRIME_WFSC_SENSING_CONTROL",
            "dither.primary_type": "WFSC",
        },
    ),
    sigma_pix=2.0,
    photmjsr=2.0,
)  # fmt: skip
_FLUX_JY, _SKY_MJYSR = 3e-3, 0.5
_STEP_PIX = (-6.0, 4.0)
# Of the detector, and near the star.
_BAD_PIX = (49, 47)


def simulate_wavefront(directory: str | PathLike[str], *, seed: int = 5) -> ModeObservation:
    """Simulate two exposures of a star, with a bad pixel in its light.

    Parameters
    ----------
    directory : path-like
        Where files are written.
    seed : int, optional
        Of the noise.

    Returns
    -------
    ModeObservation
        ``truth.meta`` has ``x`` and ``y``, the star's pixel (from 0) in the first exposure,
        ``bad``, the pixel that is bad there, and ``image``, the light without noise (MJy/sr).

    Raises
    ------
    OptionalDependencyError
        If stdatamodels or crds is not installed.
    """
    program = Program(directory, seed)
    setup, middle = _CAMERA.setup, (_SIZE - 1) / 2
    first = setup.pointing(TARGET_DEG, ROLL_DEG)
    place = setup.to_sky(first, middle + _STEP_PIX[0], middle + _STEP_PIX[1])
    star = Table({"ra": [TARGET_DEG[0]], "dec": [TARGET_DEG[1]], "flux": [_FLUX_JY]})
    bad = np.zeros(setup.shape, bool)
    bad[_BAD_PIX[1], _BAD_PIX[0]] = True
    for number, pointing in enumerate((first, setup.pointing(place, ROLL_DEG)), start=1):
        light = _CAMERA.image(pointing, star, _SKY_MJYSR)
        shot = Shot(number, pointing)
        program.expose(setup, shot, light, bad=bad)
    x, y = setup.to_pixel(first, *TARGET_DEG)
    image = _CAMERA.image(first, star, _SKY_MJYSR) / _CAMERA.flat() * _CAMERA.photmjsr
    star.meta.update(x=float(x), y=float(y), bad=_BAD_PIX, image=image)
    return program.observation(setup.instrument, _CAMERA.references(), star)
