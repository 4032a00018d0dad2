"""MIRI's images: of a bright sky with a background target, and behind the coronagraph's mask."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np

from ..crds_files import Reference
from ..detector import offset_position
from ..headers import Shot, frame_keywords
from ..reference_files import flat, imaging_references, ramp_references
from ..scene import add_star
from ..setups import TARGET_DEG, setup_of
from .exposures import EMPTY_DEG, ModeObservation, Program, one_star, star_grid

_BACKGROUND, _MASKED = setup_of("miri_background"), setup_of("miri_coronagraph")
_SIZE = _MASKED.shape[0]
_SKY_MJYSR = 24.0
_DITHERS = ((0.0, 0.0), (0.9, 0.4), (-0.5, 0.8), (0.3, -0.9))


def simulate_background(
    directory: str | PathLike[str], *, uncal: bool = False, seed: int = 7
) -> ModeObservation:
    """Simulate four dithers of a field of stars, and two exposures of a background target.

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
        ``truth.meta`` has ``sky_mjysr``, which varies by 40 per cent across the detector: what
        cannot be taken for a level, and goes only with the background.

    Raises
    ------
    OptionalDependencyError
        If stdatamodels or crds is not installed.
    """
    program = Program(directory, seed, uncal=uncal)
    # The sky under a star of a beam is some tens of per cent of its light.
    stars = star_grid(program.rng, np.arange(-2.4, 2.5, 1.6), (3e-5, 1e-4))
    for number in range(1, 7):
        is_background = number > len(_DITHERS)
        step = _DITHERS[(number - 1) % len(_DITHERS)]
        pointing = _BACKGROUND.dithered(step, EMPTY_DEG if is_background else TARGET_DEG)
        shot = Shot(
            number,
            pointing,
            observation="002" if is_background else "001",
            target="EMPTY" if is_background else "FIELD",
            is_background=is_background,
        )
        light = _BACKGROUND.image(pointing, stars[:0] if is_background else stars, _sky())
        program.expose(_BACKGROUND, shot, light)
    stars.meta["sky_mjysr"] = _sky()
    references = imaging_references(_BACKGROUND) | ramp_references(_BACKGROUND)
    return program.observation(_BACKGROUND, references, stars)


def _sky() -> np.ndarray:
    """Return the light of telescope and zodiac, MJy/sr."""
    y, x = _from_middle()
    return _SKY_MJYSR * (1 + 0.3 * x - 0.2 * y + 0.1 * np.sin(9 * x) * np.cos(7 * y))


def _from_middle() -> np.ndarray:
    """Return y and x of the pixels, from -0.5 to 0.5."""
    return np.mgrid[:_SIZE, :_SIZE] / _SIZE - 0.5


# ---- the coronagraph ----------------------------------------------------------------------------

_INTEGRATIONS = 2
_REFERENCE_STAR = (191.3, 1.9)
_COMPANION_ARCSEC, _COMPANION_JY = (1.1, 0.7), 2e-4
_LEAK_DN_S = 9000.0
_ROLLS_DEG = (20.0, 30.0)
# Where the light that the mask lets through lies, by which the telescope misses its place.
_LOBE_PIX, _HALO_SIGMA_PIX, _HALO_SHARE = 3.0, 6.0, 0.5
_MISSED_PIX = ((0.0, 0.0), (0.06, -0.04), (0.2, 0.1), (-0.15, 0.12), (0.05, -0.2))


def simulate_coronagraph(directory: str | PathLike[str], *, seed: int = 7) -> ModeObservation:
    """Simulate a star at two rolls and a reference star at three places behind the mask.

    Parameters
    ----------
    directory : path-like
        Where files are written.
    seed : int, optional
        Of the noise.

    Returns
    -------
    ModeObservation
        ``rates`` are integrations, those of the reference star last; ``truth`` has the companion,
        and ``truth.meta`` the place of the star, ``star``, in degrees.

    Raises
    ------
    OptionalDependencyError
        If stdatamodels or crds is not installed.
    """
    program = Program(directory, seed)
    companion = one_star(_COMPANION_JY, offset_position(*TARGET_DEG, *_COMPANION_ARCSEC))
    places = [(TARGET_DEG, roll_deg) for roll_deg in _ROLLS_DEG]
    reference = (_REFERENCE_STAR, _ROLLS_DEG[0])
    for number, missed in enumerate(_MISSED_PIX, start=1):
        is_star = number <= len(_ROLLS_DEG)
        shot = Shot(
            number,
            _MASKED.pointing(*(places[number - 1] if is_star else reference)),
            observation=f"{number if is_star else 3:03d}",
            target="STAR" if is_star else "REFERENCE",
            keywords={"exposure.psf_reference": not is_star},
        )
        light = _leak(*missed) * (1.0 if is_star else 1.3)
        if is_star:
            _MASKED.add_stars(light, shot.pointing, companion)
        cube = np.stack([light * _masked_flat()] * _INTEGRATIONS)
        program.expose(_MASKED, shot, cube)
    references = imaging_references(_MASKED) | {
        "flat": flat(_MASKED, _masked_flat()),
        "psfmask": Reference("PsfMaskModel", _fill_mask),
    }
    companion.meta["star"] = TARGET_DEG
    return program.observation(_MASKED, references, companion)


def _leak(x_pix: float, y_pix: float) -> np.ndarray:
    """Return the light of the star that the mask lets through: four lobes and a halo."""
    light = np.zeros((_SIZE, _SIZE))
    x, y = ((_SIZE - 1) / 2 + missed for missed in (x_pix, y_pix))
    lobes = [(a * _LOBE_PIX, b * _LOBE_PIX) for a in (-1, 1) for b in (-1, 1)]
    for index, (right, up) in enumerate(lobes):
        rate = _LEAK_DN_S * (1 - _HALO_SHARE) / 4 * (1 + 0.1 * index)
        add_star(light, x + right, y + up, rate, _MASKED.sigma_pix)
    add_star(light, x, y, _LEAK_DN_S * _HALO_SHARE, _HALO_SIGMA_PIX)
    return light


def _masked_flat() -> np.ndarray:
    y, x = _from_middle()
    return 1 + 0.03 * x - 0.02 * y


def _fill_mask(model: Any) -> None:
    y, x = np.abs(np.mgrid[:_SIZE, :_SIZE] - (_SIZE - 1) / 2)
    # Nothing is to be learnt on the edges between the quadrants.
    model.data = ((x > 1) & (y > 1)).astype(np.float32)
    model.meta.subarray = frame_keywords(_MASKED)
    model.meta.exposure.type = _MASKED.exp_type
