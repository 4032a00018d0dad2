"""MIRI imaging of a bright sky, with exposures of an empty field to subtract."""

from __future__ import annotations

from os import PathLike

import numpy as np

from ..detector import Detector, first_pixel
from .exposures import ModeObservation, Setup, Shot
from .program import Program
from .star_fields import TARGET_DEG, Camera, star_grid

IMAGER = Detector("MIRIMAGE", "", "", 0.1108, -453.56, -373.81, 4.84, 493)
_SIZE = 96
_SETUP = Setup(
    "MIR_IMAGE",
    {"name": "MIRI", "detector": "MIRIMAGE", "filter": "F770W"},
    IMAGER,
    (_SIZE, _SIZE),
    (first_pixel(_SIZE), first_pixel(_SIZE)),
    "SUB128",
    keywords={
        "observation.template": "MIRI Imaging",
        "exposure.readpatt": "FASTR1",
        "dither.primary_type": "4-POINT-SETS",
    },
)
_CAMERA = Camera(_SETUP, sigma_pix=1.1, photmjsr=0.5)
_SKY_MJYSR = 24.0
_EMPTY_DEG = (190.1, 1.25)
_DITHERS = ((0.0, 0.0), (0.9, 0.4), (-0.5, 0.8), (0.3, -0.9))


def simulate_background(directory: str | PathLike[str], *, seed: int = 7) -> ModeObservation:
    """Simulate four dithers of a field of stars, and two exposures of a background target.

    Parameters
    ----------
    directory : path-like
        Where files are written.
    seed : int, optional
        Of the noise.

    Returns
    -------
    ModeObservation
        ``truth.meta`` has ``sky_mjysr``, which varies by 40 per cent across the detector: what
        cannot be taken for a level, and goes only with the background.

    Raises
    ------
    OptionalDependencyError
        If stdatamodels or crds is not installed.
    """
    program = Program(directory, seed)
    # The sky under a star of a beam is some tens of per cent of its light.
    stars = star_grid(program.rng, np.arange(-2.4, 2.5, 1.6), (3e-5, 1e-4))
    for number in range(1, 7):
        is_background = number > len(_DITHERS)
        step = _DITHERS[(number - 1) % len(_DITHERS)]
        pointing = _CAMERA.pointing(step, target_deg=_EMPTY_DEG if is_background else TARGET_DEG)
        shot = Shot(
            number,
            pointing,
            observation="002" if is_background else "001",
            target="EMPTY" if is_background else "FIELD",
            is_background=is_background,
        )
        light = _CAMERA.image(pointing, stars[:0] if is_background else stars, _sky())
        program.expose(_SETUP, shot, light)
    stars.meta["sky_mjysr"] = _sky()
    return program.observation(
        {"name": "MIRI", "detector": "MIRIMAGE"}, _CAMERA.references(), stars
    )


def _sky() -> np.ndarray:
    """Return the light of telescope and zodiac, MJy/sr."""
    y, x = np.mgrid[:_SIZE, :_SIZE] / _SIZE - 0.5
    return _SKY_MJYSR * (1 + 0.3 * x - 0.2 * y + 0.1 * np.sin(9 * x) * np.cos(7 * y))
