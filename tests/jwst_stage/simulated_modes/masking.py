"""A close pair of stars behind the aperture mask of NIRISS, and a reference star."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from astroquery_lis.sandbox.jwst.crds import Reference, of_model, of_step
from astroquery_lis.sandbox.jwst.modes import ModeObservation, Shot
from astroquery_lis.sandbox.jwst.reference_files import imaging_references
from astroquery_lis.sandbox.jwst.setups import ROLL_DEG, TARGET_DEG

from . import ModeProgram, one_star, setup_of

_MASKED = setup_of("niriss_masking")
_SIZE = _MASKED.shape[0]
_PIXEL_RAD = float(np.radians(_MASKED.detector.scale_arcsec / 3600))
# Holes of the mask, where they are in the pupil (V2, V3) and how wide, metres.
_HOLES_M = (
    (0.0, -2.64), (-2.28631, 0.0), (2.28631, -1.32), (-2.28631, 1.32), (-1.14315, 1.98),
    (2.28631, 1.32), (1.14315, 1.98),
)  # fmt: skip
_FLAT_M = 0.82
_WAVELENGTH_M, _WIDTH_M = 4.82e-6, 0.2e-6
_N_WAVELENGTHS = 19
_RATE_DN_S = 4e6
_INTEGRATIONS = 2
_MIDDLE_PIX = (41.2, 39.3)
# The companion: of the light of the star, and pixels (row, column) from it.  The model of the fit
# has one envelope for both, so that they have to be much closer than it is wide.
_CONTRAST, _APART_PIX = 0.25, (0.9, -0.6)
_OVERSAMPLE = 3
# The telescope trembles, which costs long baselines contrast: what the reference star is for.
_JITTER_PIX = 0.25
_STAR_DEG = (190.4, 1.6)


def simulate_masking(directory: str | PathLike[str], *, seed: int = 23) -> ModeObservation:
    """Simulate a pair of stars and a reference star behind the mask with seven holes.

    ``truth.meta`` has ``visibilities``, complex, of each pair of holes (from 0) in their order.
    """
    program = ModeProgram(directory, seed)
    single = _star(_MIDDLE_PIX)
    companion = _star((_MIDDLE_PIX[0] + _APART_PIX[0], _MIDDLE_PIX[1] + _APART_PIX[1]))
    pair = (single + _CONTRAST * companion) / (1 + _CONTRAST)
    for observation, place, light in (("001", TARGET_DEG, pair), ("002", _STAR_DEG, single)):
        is_star = observation == "002"
        shot = Shot(
            1,
            _MASKED.pointing(place, ROLL_DEG),
            observation=observation,
            target="STAR" if is_star else "PAIR",
            keywords={
                "exposure.psf_reference": is_star,
                "target.ra": place[0],
                "target.dec": place[1],
            },
        )
        cube = np.stack([_RATE_DN_S * light * _MASKED.flat()] * _INTEGRATIONS)
        program.expose(_MASKED, shot, cube)
    truth = one_star(1.0)
    truth.meta["visibilities"] = _visibilities()
    return program.observation(_MASKED, _masked_references(), truth)


def _on_detector() -> np.ndarray:
    """Return the holes as they lie along rows and columns, metres."""
    holes = np.array(_HOLES_M)
    return -holes[:, ::-1]


def _visibilities() -> np.ndarray:
    """Return the complex visibility of the pair of stars for each pair of holes.

    The sign of its phase is that of the step: a source farther along the baseline has more.
    """
    holes = _on_detector()
    first, second = np.triu_indices(len(holes), 1)
    turns = (holes[first] - holes[second]) @ np.array(_APART_PIX) * _PIXEL_RAD / _WAVELENGTH_M
    return (1 + _CONTRAST * np.exp(2j * np.pi * turns)) / (1 + _CONTRAST)


def _star(middle_pix: tuple[float, float]) -> np.ndarray:
    """Return the light of a star of 1 DN/s at (row, column) behind the mask."""
    fine = (np.arange(_SIZE * _OVERSAMPLE) + 0.5) / _OVERSAMPLE - 0.5
    rows, columns = ((fine - middle) * _PIXEL_RAD for middle in middle_pix)
    cells = (np.arange(201) - 100) * 0.0048
    hole = _hexagon(cells)
    along = list(zip((rows, columns), _on_detector().T, strict=True))
    light = np.zeros((len(fine), len(fine)))
    half = _WIDTH_M / 2
    for wavelength in np.linspace(_WAVELENGTH_M - half, _WAVELENGTH_M + half, _N_WAVELENGTHS):
        one = _wave(rows, cells, wavelength) @ hole @ _wave(columns, cells, wavelength).T
        holes = [_wave(angles, place, wavelength) for angles, place in along]
        light += np.abs(one * (holes[0] @ holes[1].T)) ** 2
    light = gaussian_filter(light, _JITTER_PIX * _OVERSAMPLE)
    shape = (_SIZE, _OVERSAMPLE, _SIZE, _OVERSAMPLE)
    image = light.reshape(shape).sum(axis=(1, 3))
    return image / image.sum()


def _wave(angles_rad: np.ndarray, places_m: np.ndarray, wavelength_m: float) -> np.ndarray:
    """Return what light from places of the pupil adds at angles, shape (angles, places)."""
    return np.exp(-2j * np.pi * np.outer(angles_rad, places_m) / wavelength_m)


def _hexagon(cells: np.ndarray) -> np.ndarray:
    """Return which cells of (row, column) are in a hole, whose flat sides follow the rows."""
    row, column = cells[:, None], cells[None, :]
    half, tilted = _FLAT_M / 2, column * np.sqrt(3) / 2
    inside = np.abs(row) <= half
    inside = inside & (np.abs(row / 2 + tilted) <= half) & (np.abs(row / 2 - tilted) <= half)
    return inside.astype(float)


# ---- references ---------------------------------------------------------------------------------


def _masked_references() -> dict[str, Reference]:
    """Return what the images need, without photometry, and what the fringes are fitted with."""
    files = imaging_references(_MASKED)
    kept = {kind: files[kind] for kind in ("flat", "distortion", "filteroffset")}
    # The mask does not turn here, and no pixel is bad.
    parameters = {"run_bpfix": False, "affine2d": "None", "rotation_search": "-1 1 1"}
    return kept | {
        "nrm": of_model("NRMModel", _fill_mask),
        "throughput": of_model("ThroughputModel", _fill_throughput),
        "pars-amianalyzestep": of_step("jwst.ami.ami_analyze_step.AmiAnalyzeStep", parameters),
    }


def _fill_mask(model: Any) -> None:
    for number, (x, y) in enumerate(_HOLES_M, start=1):
        setattr(model, f"x_a{number}", x)
        setattr(model, f"y_a{number}", y)
    model.flat_to_flat, model.diameter, model.pupil_circumscribed = _FLAT_M, 6.5, 6.6


def _fill_throughput(model: Any) -> None:
    half = 0.5 * _WIDTH_M * 1e10
    middle = _WAVELENGTH_M * 1e10
    wavelength = np.linspace(middle - half, middle + half, 101)
    kinds = [("wavelength", "<f4"), ("throughput", "<f4")]
    model.filter_table = np.array([(value, 0.9) for value in wavelength], dtype=kinds)
    model.meta.instrument.filter = _MASKED.instrument["filter"]
