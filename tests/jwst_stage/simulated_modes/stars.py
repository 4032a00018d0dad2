"""One star with NIRCam: a time series of it, and the pair of images of wavefront sensing."""

from __future__ import annotations

from os import PathLike

import numpy as np

from astroquery_lis.sandbox.jwst.modes import ModeObservation, Shot
from astroquery_lis.sandbox.jwst.reference_files import constant, imaging_references
from astroquery_lis.sandbox.jwst.setups import ROLL_DEG, TARGET_DEG

from . import ModeProgram, Segment, one_star, setup_of

_SERIES = setup_of("nircam_series")
_SERIES_JY, _SERIES_SKY_MJYSR = 8e-5, 0.3
_SEGMENTS, _INTEGRATIONS = 2, 8
_MONTHS_DAYS = 61.0


def _visits() -> dict[str, np.ndarray]:
    """Return the star's light in each integration of two visits: a transit, and a slow rise."""
    time = np.linspace(-1, 1, _SEGMENTS * _INTEGRATIONS)
    return {"001": 1 - 0.02 * (np.abs(time) < 0.4), "002": 1 + 0.0075 * (time + 1)}


def simulate_time_series(directory: str | PathLike[str], *, seed: int = 3) -> ModeObservation:
    """Simulate two visits to a star, months apart, each in two segments.

    ``truth.meta`` has ``curves``: by observation, the star's light in each integration, in
    units of ``flux``; and ``sigma_pix``, its width.
    """
    program = ModeProgram(directory, seed)
    pointing = _SERIES.dithered((0.0, 0.0))
    dark = _SERIES.image(pointing, one_star(0.0), _SERIES_SKY_MJYSR)
    star = one_star(_SERIES_JY)
    light = _SERIES.image(pointing, star, 0.0)
    for observation, curve in _visits().items():
        later_s = 86400 * _MONTHS_DAYS * (observation == "002")
        for segment in range(_SEGMENTS):
            first = segment * _INTEGRATIONS
            shot = Segment(
                1,
                pointing,
                observation=observation,
                segment=segment + 1,
                first_integration=first + 1,
                start_s=segment * _SERIES.exposure_s + later_s,
            )
            share = curve[first : first + _INTEGRATIONS, None, None]
            cube = dark + share * light
            program.expose(_SERIES, shot, cube)
    references = imaging_references(_SERIES) | {"gain": constant(_SERIES, "GainModel", 2.05)}
    star.meta.update(curves=_visits(), sigma_pix=_SERIES.sigma_pix)
    return program.observation(_SERIES, references, star)


# ---- wavefront sensing --------------------------------------------------------------------------

_FLUX_JY, _SKY_MJYSR = 3e-3, 0.5
_STEP_PIX = (-6.0, 4.0)
# Of the detector, and near the star.
_BAD_PIX = (49, 47)


def simulate_wavefront(directory: str | PathLike[str], *, seed: int = 5) -> ModeObservation:
    """Simulate two exposures of a star, with a bad pixel in its light.

    ``truth.meta`` has ``x`` and ``y``, the star's pixel (from 0) in the first exposure,
    ``bad``, the pixel that is bad there, and ``image``, the light without noise (MJy/sr).
    """
    program = ModeProgram(directory, seed)
    setup = setup_of("nircam_wavefront")
    middle = (setup.shape[0] - 1) / 2
    first = setup.pointing(TARGET_DEG, ROLL_DEG)
    place = setup.to_sky(first, middle + _STEP_PIX[0], middle + _STEP_PIX[1])
    star = one_star(_FLUX_JY)
    bad = np.zeros(setup.shape, bool)
    bad[_BAD_PIX[1], _BAD_PIX[0]] = True
    for number, pointing in enumerate((first, setup.pointing(place, ROLL_DEG)), start=1):
        light = setup.image(pointing, star, _SKY_MJYSR)
        shot = Shot(number, pointing)
        program.expose(setup, shot, light, bad=bad)
    x, y = setup.to_pixel(first, *TARGET_DEG)
    image = setup.image(first, star, _SKY_MJYSR) / setup.flat() * setup.photmjsr
    star.meta.update(x=float(x), y=float(y), bad=_BAD_PIX, image=image)
    return program.observation(setup, imaging_references(setup), star)
