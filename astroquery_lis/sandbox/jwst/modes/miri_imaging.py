"""MIRI imaging of a bright sky, with exposures of an empty field to subtract."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
from astropy.table import Table

from ..detector import Detector, first_pixel, offset_position
from ..observation import need_stdatamodels
from .cache import CONTEXT, write_cache
from .exposures import ModeObservation, Setup, Shot, add_stars, write_exposure
from .imaging_references import flat, imaging_references

__all__ = ["IMAGER", "simulate_background"]

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
_SIGMA_PIX = 1.1
_PHOTMJSR = 0.5
_SKY_MJYSR = 24.0
_TARGET, _EMPTY = (190.0, 1.2), (190.1, 1.25)
_ROLL_DEG = 24.0
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
    need_stdatamodels()
    folder = Path(directory).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    stars = _stars(rng)
    rates = []
    for number in range(1, 7):
        is_background = number > len(_DITHERS)
        step = _DITHERS[(number - 1) % len(_DITHERS)]
        place = offset_position(*(_EMPTY if is_background else _TARGET), *step)
        shot = Shot(
            number,
            _SETUP.pointing(place, _ROLL_DEG),
            observation="002" if is_background else "001",
            target="EMPTY" if is_background else "FIELD",
            is_background=is_background,
        )
        light = _sky() / _PHOTMJSR
        if not is_background:
            light_of = {"sigma_pix": _SIGMA_PIX, "photmjsr": _PHOTMJSR}
            add_stars(light, _SETUP, shot.pointing, stars, **light_of)
        rates.append(write_exposure(folder, _SETUP, shot, light * _flat(), rng))
    rows = [{"filter": "F770W", "subarray": name} for name in ("SUB128", "GENERIC")]
    references = imaging_references(
        _SETUP, "Mir", rows, photmjsr=_PHOTMJSR, sigma_pix=_SIGMA_PIX
    ) | {"flat": flat(_SETUP, _flat())}
    crds = folder / "crds"
    write_cache(crds, {"name": "MIRI", "detector": "MIRIMAGE"}, references)
    stars.meta["sky_mjysr"] = _sky()
    return ModeObservation(rates, crds, CONTEXT, stars)


def _stars(rng: np.random.Generator) -> Table:
    """Return bright stars on a grid, far enough from one another to be measured."""
    steps = np.arange(-2.4, 2.5, 1.6)
    east, north = (axis.ravel() for axis in np.meshgrid(steps, steps))
    east, north = east + rng.uniform(-0.2, 0.2, 16), north + rng.uniform(-0.2, 0.2, 16)
    places = [offset_position(*_TARGET, e, n) for e, n in zip(east, north, strict=True)]
    ra, dec = np.array(places, float).T
    # The sky under a star of a beam is some tens of per cent of its light.
    flux = 10 ** rng.uniform(-4.5, -4.0, 16)
    return Table({"ra": ra, "dec": dec, "flux": flux})


def _sky() -> np.ndarray:
    """Return the light of telescope and zodiac, MJy/sr."""
    y, x = np.mgrid[:_SIZE, :_SIZE] / _SIZE - 0.5
    return _SKY_MJYSR * (1 + 0.3 * x - 0.2 * y + 0.1 * np.sin(9 * x) * np.cos(7 * y))


def _flat() -> np.ndarray:
    y, x = np.mgrid[:_SIZE, :_SIZE] / _SIZE - 0.5
    return 1 + 0.05 * x + 0.04 * y**2
