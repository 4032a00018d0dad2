"""A time series of NIRCam images: a star seen in two visits."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
from astropy.table import Table

from ..detector import DETECTORS, first_pixel
from .cache import Reference
from .exposures import ModeObservation, Setup, Shot
from .imaging_references import fill_frame
from .program import Program
from .star_fields import TARGET_DEG, Camera

_SIZE = 64
_CAMERA = Camera(
    Setup(
        "NRC_TSIMAGE",
        {
            "name": "NIRCAM", "detector": "NRCA1", "channel": "SHORT", "module": "A",
            "filter": "F210M", "pupil": "CLEAR",
        },
        DETECTORS["NRCA1"],
        (_SIZE, _SIZE),
        (first_pixel(_SIZE), first_pixel(_SIZE)),
        "SUB64P",
        keywords={
            "observation.template": "NIRCam Time Series",
            "exposure.readpatt": "RAPID",
            "visit.tsovisit": True,
            "visit.type": "PRIME_TARGETED_FIXED",
            "dither.primary_type": "NONE",
            "wcsinfo.siaf_xref_sci": (_SIZE + 1) / 2,
            "wcsinfo.siaf_yref_sci": (_SIZE + 1) / 2,
        },
    ),
    sigma_pix=1.0,
    photmjsr=2.0,
)  # fmt: skip
_FLUX_JY = 8e-5
_SKY_MJYSR = 0.3
_SEGMENTS, _INTEGRATIONS = 2, 8
_MONTHS_DAYS = 61.0


def _visits() -> dict[str, np.ndarray]:
    """Return the star's light in each integration of two visits: a transit, and a slow rise."""
    time = np.linspace(-1, 1, _SEGMENTS * _INTEGRATIONS)
    return {"001": 1 - 0.02 * (np.abs(time) < 0.4), "002": 1 + 0.0075 * (time + 1)}


def simulate_time_series(directory: str | PathLike[str], *, seed: int = 3) -> ModeObservation:
    """Simulate two visits to a star, months apart, each in two segments.

    Parameters
    ----------
    directory : path-like
        Where files are written.
    seed : int, optional
        Of the noise.

    Returns
    -------
    ModeObservation
        ``truth.meta`` has ``curves``: by observation, the star's light in each integration, in
        units of ``flux``; and ``sigma_pix``, its width.

    Raises
    ------
    OptionalDependencyError
        If stdatamodels or crds is not installed.
    """
    program = Program(directory, seed)
    ra, dec = TARGET_DEG
    pointing = _CAMERA.pointing((0.0, 0.0))
    dark = _CAMERA.image(pointing, Table({"ra": [ra], "dec": [dec], "flux": [0.0]}), _SKY_MJYSR)
    star = Table({"ra": [ra], "dec": [dec], "flux": [_FLUX_JY]})
    light = _CAMERA.image(pointing, star, 0.0)
    for observation, curve in _visits().items():
        for segment in range(_SEGMENTS):
            first = segment * _INTEGRATIONS
            shot = Shot(
                1,
                pointing,
                observation=observation,
                segment=segment + 1,
                first_integration=first + 1,
                days_later=_MONTHS_DAYS * (observation == "002"),
            )
            share = curve[first : first + _INTEGRATIONS, None, None]
            cube = dark + share * light
            program.expose(_CAMERA.setup, shot, cube)
    references = _CAMERA.references() | {"gain": Reference("GainModel", _fill_gain)}
    star.meta.update(curves=_visits(), sigma_pix=_CAMERA.sigma_pix)
    return program.observation(_CAMERA.setup.instrument, references, star)


def _fill_gain(model: Any) -> None:
    model.data = np.full((_SIZE, _SIZE), 2.05, np.float32)
    fill_frame(model, _CAMERA.setup)
