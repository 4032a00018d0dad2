"""MIRI's low-resolution spectrum of a star in the slit, at two places along it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from astroquery_lis.sandbox.jwst.crds import Reference, of_model
from astroquery_lis.sandbox.jwst.modes import ModeObservation, Shot
from astroquery_lis.sandbox.jwst.reference_files import distortion, flat, ramp_references
from astroquery_lis.sandbox.jwst.setups import ROLL_DEG, TARGET_DEG, Pointing, add_star, v2v3_matrix

from . import ModeProgram, one_star, setup_of, spectral_photometry

# The pipeline counts the place of the slit from the corner of the detector.
_SLIT_PIX = (40, 80)
_HALF_SLIT_PIX, _HALF_TRACE_PIX = 30, 70
_NODS_PIX = (-17.0, 17.0)
_SETUP = setup_of("miri_lrs")
_IMAGER = _SETUP.detector
_CONTINUUM_JY, _PIVOT_UM, _SLOPE = 8e-4, 8.0, -1.0
_LINE_UM, _LINE_SIGMA_UM, _LINE_PEAK_JY = 9.7, 0.2, 6e-4
_SKY_SHARE = 0.25


def simulate_lrs(
    directory: str | PathLike[str], *, uncal: bool = False, seed: int = 7
) -> ModeObservation:
    """Simulate two exposures of a star in MIRI's slit, one at each of two nods.

    ``truth.meta`` has ``wavelength`` (microns) and ``flux`` (Jy) of the spectrum, a falling
    continuum with one line at ``line_um``, of ``line_jy_um`` (Jy times micron); ``trace``, the
    columns of each exposure's spectrum by row; and ``sky_mjysr``, a fourth of the star's peak.
    """
    program = ModeProgram(directory, seed, uncal=uncal)
    flux_jy = _spectrum(_wavelength_um(np.arange(_SETUP.shape[0])))
    light_of_1_jy = 1e-6 / (_SETUP.pixel_sr * _SETUP.photmjsr)
    peak = 1 / (np.sqrt(2 * np.pi) * _SETUP.sigma_pix)
    sky = _SKY_SHARE * peak * _CONTINUUM_JY * light_of_1_jy * _sky_shape()
    traces = []
    for number, nod in enumerate(_NODS_PIX, start=1):
        trace = _SLIT_PIX[0] + nod + _bend_pix(np.arange(_SETUP.shape[0]))
        light = sky.copy()
        for row, column in enumerate(trace):
            add_star(light[row : row + 1], column, 0, 1.0, _SETUP.sigma_pix)
        traces.append(trace)
        star = light - sky
        star *= (flux_jy * light_of_1_jy / star.sum(axis=1))[:, None]
        program.expose(_SETUP, _shot(number, nod), (sky + star) * _flat())
    truth = one_star(_CONTINUUM_JY)
    truth.meta |= {
        "wavelength": _wavelength_um(np.arange(_SETUP.shape[0])),
        "flux": flux_jy,
        "line_um": _LINE_UM,
        "line_jy_um": _LINE_PEAK_JY * _LINE_SIGMA_UM * np.sqrt(2 * np.pi),
        "trace": np.array(traces),
        "sky_mjysr": sky * _SETUP.photmjsr,
    }
    return program.observation(_SETUP, _references(), truth)


def continuum_jy(wavelength_um: np.ndarray) -> np.ndarray:
    """Return the spectrum without its line."""
    return _CONTINUUM_JY * (wavelength_um / _PIVOT_UM) ** _SLOPE


def _spectrum(wavelength_um: np.ndarray) -> np.ndarray:
    line = np.exp(-0.5 * ((wavelength_um - _LINE_UM) / _LINE_SIGMA_UM) ** 2)
    return continuum_jy(wavelength_um) + _LINE_PEAK_JY * line


def _wavelength_um(row: np.ndarray) -> np.ndarray:
    """Return the wavelength of a row; the longest are at the bottom."""
    up = (_SLIT_PIX[1] - np.asarray(row, float)) / _HALF_TRACE_PIX
    return 9.0 + 4.0 * up + 0.3 * up**2


def _bend_pix(row: np.ndarray) -> np.ndarray:
    """Return by how much the trace of a point of the slit lies to the right at a row."""
    up = (np.asarray(row, float) - _SLIT_PIX[1]) / _HALF_TRACE_PIX
    return 1.5 * up - 0.4 * up**2


def _sky_shape() -> np.ndarray:
    y, x = np.mgrid[: _SETUP.shape[0], : _SETUP.shape[1]]
    return 1 + 0.2 * np.sin(y / 15) + 0.1 * (x / _SETUP.shape[1] - 0.5)


def _flat() -> np.ndarray:
    y, x = np.mgrid[: _SETUP.shape[0], : _SETUP.shape[1]]
    return 1 + 0.04 * np.sin(x / 7) * np.cos(y / 11)


def _shot(number: int, nod_pix: float) -> Shot:
    """Return an exposure in which the star is some pixels from the middle of the slit."""
    middle = [float(value) for value in _IMAGER.to_v2v3(*_SLIT_PIX)]
    place = [float(value) for value in _IMAGER.to_v2v3(_SLIT_PIX[0] + nod_pix, _SLIT_PIX[1])]
    ra, dec = Pointing(place[0], place[1], *TARGET_DEG, ROLL_DEG).to_sky(*middle)
    # From V2V3 to the ideal frame, whose x runs against V2.
    step = v2v3_matrix(_IMAGER.angle_deg) @ (np.array(place) - middle)
    return Shot(
        number,
        Pointing(middle[0], middle[1], float(ra), float(dec), ROLL_DEG),
        target="STAR",
        keywords={
            "dither.x_offset": float(step[0]),
            "dither.y_offset": float(step[1]),
        },
    )


def _references() -> dict[str, Reference]:
    return {
        "flat": flat(_SETUP, _flat()),
        "distortion": distortion(_SETUP),
        "specwcs": of_model("MiriLRSSpecwcsModel", _fill_specwcs),
        "photom": _photom(),
        **ramp_references(_SETUP),
        "extract1d": Reference(_write_extract1d, ".json"),
    }


def _fill_specwcs(model: Any) -> None:
    up = np.arange(_HALF_TRACE_PIX, -_HALF_TRACE_PIX - 1, -1.0)
    row = _SLIT_PIX[1] + up
    left, right = -_HALF_SLIT_PIX + _bend_pix(row), _HALF_SLIT_PIX + _bend_pix(row)
    columns = {
        "x_center": _bend_pix(row), "y_center": up, "wavelength": _wavelength_um(row),
        "x0": left, "y0": up + 0.5, "x1": right, "y1": up + 0.5,
        "x2": right, "y2": up - 0.5, "x3": left, "y3": up - 0.5,
    }  # fmt: skip
    kinds = [(name, "<f8") for name in columns]
    model.wavetable = np.array(list(zip(*columns.values(), strict=True)), dtype=kinds)
    meta = model.meta
    meta.x_ref, meta.y_ref = (pix + 1 for pix in _SLIT_PIX)
    meta.x_ref_slitless, meta.y_ref_slitless = meta.x_ref, meta.y_ref
    for number, (x, y) in enumerate(((-1, -1), (-1, 1), (1, 1), (1, -1)), start=1):
        v2, v3 = _IMAGER.to_v2v3(_SLIT_PIX[0] + x * _HALF_SLIT_PIX, _SLIT_PIX[1] + 2 * y)
        model[f"meta.v2_vert{number}"], model[f"meta.v3_vert{number}"] = float(v2), float(v3)
    meta.exposure.type = _SETUP.exp_type


def _photom() -> Reference:
    wavelength = np.linspace(3, 16, 20, dtype=np.float32)
    words = {"filter": "P750L", "subarray": "FULL"}
    response = np.ones_like(wavelength)
    fill = spectral_photometry(_SETUP, words, _SETUP.photmjsr, wavelength, response, 0.01)
    return of_model("MirLrsPhotomModel", fill)


def _write_extract1d(path: Path, _meta: Mapping[str, Any]) -> None:
    aperture = {
        "id": "MIR_LRS-FIXEDSLIT", "region_type": "target", "dispaxis": 2, "spectral_order": 1,
        "extract_width": 14, "use_source_posn": True,
    }  # fmt: skip
    document = {
        "reftype": "EXTRACT1D", "telescope": "JWST", "instrument": "MIRI", "pedigree": "DUMMY",
        "exp_type": _SETUP.exp_type, "apertures": [aperture],
    }  # fmt: skip
    path.write_text(json.dumps(document))
