"""A companion beside a star behind MIRI's four-quadrant mask: two rolls, and a reference star."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
from astropy.table import Table

from ..detector import first_pixel, offset_position
from ..scene import add_star
from .cache import Reference
from .exposures import ModeObservation, Setup, Shot, add_stars
from .imaging_references import fill_frame, flat, imaging_references
from .miri_imaging import IMAGER
from .program import Program

_SIZE, _INTEGRATIONS = 96, 2
_SETUP = Setup(
    "MIR_4QPM",
    {"name": "MIRI", "detector": "MIRIMAGE", "filter": "F1140C", "coronagraph": "4QPM_1140"},
    IMAGER,
    (_SIZE, _SIZE),
    (first_pixel(_SIZE), first_pixel(_SIZE)),
    "MASK1140",
    keywords={
        "observation.template": "MIRI Coronagraphic Imaging",
        "exposure.readpatt": "FASTR1",
        "dither.primary_type": "NONE",
    },
)
_SIGMA_PIX = 1.4
_PHOTMJSR = 0.8
_STAR, _REFERENCE_STAR = (190.0, 1.2), (191.3, 1.9)
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
    place = offset_position(*_STAR, *_COMPANION_ARCSEC)
    companion = Table({"ra": [float(place[0])], "dec": [float(place[1])], "flux": [_COMPANION_JY]})
    for number, missed in enumerate(_MISSED_PIX, start=1):
        is_star = number <= len(_ROLLS_DEG)
        shot = Shot(
            number,
            _SETUP.pointing(_STAR, _ROLLS_DEG[number - 1])
            if is_star
            else _SETUP.pointing(_REFERENCE_STAR, _ROLLS_DEG[0]),
            observation=f"{number if is_star else 3:03d}",
            target="STAR" if is_star else "REFERENCE",
            keywords={"exposure.psf_reference": not is_star},
        )
        light = _leak(*missed) * (1.0 if is_star else 1.3)
        if is_star:
            light_of = {"sigma_pix": _SIGMA_PIX, "photmjsr": _PHOTMJSR}
            add_stars(light, _SETUP, shot.pointing, companion, **light_of)
        cube = np.stack([light * _flat()] * _INTEGRATIONS)
        program.expose(_SETUP, shot, cube)
    rows = [{"filter": "F1140C", "subarray": name} for name in ("MASK1140", "GENERIC")]
    references = imaging_references(
        _SETUP, "Mir", rows, photmjsr=_PHOTMJSR, sigma_pix=_SIGMA_PIX
    ) | {"flat": flat(_SETUP, _flat()), "psfmask": Reference("PsfMaskModel", _fill_mask)}
    companion.meta["star"] = _STAR
    return program.observation({"name": "MIRI", "detector": "MIRIMAGE"}, references, companion)


def _leak(x_pix: float, y_pix: float) -> np.ndarray:
    """Return the light of the star that the mask lets through: four lobes and a halo."""
    light = np.zeros((_SIZE, _SIZE))
    x, y = ((_SIZE - 1) / 2 + missed for missed in (x_pix, y_pix))
    lobes = [(a * _LOBE_PIX, b * _LOBE_PIX) for a in (-1, 1) for b in (-1, 1)]
    for index, (right, up) in enumerate(lobes):
        rate = _LEAK_DN_S * (1 - _HALO_SHARE) / 4 * (1 + 0.1 * index)
        add_star(light, x + right, y + up, rate, _SIGMA_PIX)
    add_star(light, x, y, _LEAK_DN_S * _HALO_SHARE, _HALO_SIGMA_PIX)
    return light


def _flat() -> np.ndarray:
    y, x = np.mgrid[:_SIZE, :_SIZE] / _SIZE - 0.5
    return 1 + 0.03 * x - 0.02 * y


def _fill_mask(model: Any) -> None:
    y, x = np.abs(np.mgrid[:_SIZE, :_SIZE] - (_SIZE - 1) / 2)
    # Nothing is to be learnt on the edges between the quadrants.
    model.data = ((x > 1) & (y > 1)).astype(np.float32)
    fill_frame(model, _SETUP)
    model.meta.exposure.type = _SETUP.exp_type
