"""A star and its companion behind the mask of MIRI's coronagraph, and a reference star."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np

from astroquery_lis.sandbox.jwst.crds import of_model
from astroquery_lis.sandbox.jwst.modes import ModeObservation, Shot
from astroquery_lis.sandbox.jwst.reference_files import flat, imaging_references
from astroquery_lis.sandbox.jwst.setups import TARGET_DEG, add_star, frame_keywords, offset_position

from . import ModeProgram, one_star, setup_of

_MASKED = setup_of("miri_coronagraph")
_SIZE = _MASKED.shape[0]
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

    ``rates`` are integrations, those of the reference star last; ``truth`` has the companion,
    and ``truth.meta`` the place of the star, ``star``, in degrees.
    """
    program = ModeProgram(directory, seed)
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
        "psfmask": of_model("PsfMaskModel", _fill_mask),
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
    y, x = np.mgrid[:_SIZE, :_SIZE] / _SIZE - 0.5
    return 1 + 0.03 * x - 0.02 * y


def _fill_mask(model: Any) -> None:
    y, x = np.abs(np.mgrid[:_SIZE, :_SIZE] - (_SIZE - 1) / 2)
    # Nothing is to be learnt on the edges between the quadrants.
    model.data = ((x > 1) & (y > 1)).astype(np.float32)
    model.meta.subarray = frame_keywords(_MASKED)
    model.meta.exposure.type = _MASKED.exp_type
