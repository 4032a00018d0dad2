"""MIRI's integral field unit: a star at two dithers, and a background to subtract from it."""

from __future__ import annotations

from os import PathLike

import numpy as np
from astropy.table import Table
from scipy.special import ndtr

from ..detector import Pointing, offset_position
from .exposures import ModeObservation, Shot
from .miri_mrs_references import mrs_references
from .miri_mrs_slices import CHANNELS, COLUMNS, PIXEL_ARCSEC, ROWS, SENSITIVITY, SETUP
from .program import Program

_TARGET, _EMPTY = (190.0, 1.2), (190.1, 1.25)
_ROLL_DEG = 24.0
_DITHERS = ((0.25, 0.1), (-0.3, -0.2), (0.0, 0.0))
_SIGMA_ARCSEC = 0.3
_CONTINUUM_JY, _LINE_SIGMA_UM, _LINE_SHARE = 0.02, 0.06, 0.8
_SKY_MJYSR = 350.0


def simulate_mrs(directory: str | PathLike[str], *, seed: int = 7) -> ModeObservation:
    """Simulate two dithers of a star in channels 1 and 2, and an exposure of a background target.

    Parameters
    ----------
    directory : path-like
        Where files are written.
    seed : int, optional
        Of the noise.

    Returns
    -------
    ModeObservation
        ``truth.meta`` has ``continuum_jy``, ``lines`` (``center_um``, ``sigma_um`` and ``peak_jy``
        of one line in each channel) and ``sky_mjysr``, a fourth of the star's peak.

    Raises
    ------
    OptionalDependencyError
        If stdatamodels or crds is not installed.
    """
    program = Program(directory, seed)
    for number, step in enumerate(_DITHERS, start=1):
        is_background = number == len(_DITHERS)
        middle = (CHANNELS[0].v2_arcsec, CHANNELS[0].v3_arcsec)
        place = offset_position(*(_EMPTY if is_background else _TARGET), *step)
        pointing = Pointing(*middle, float(place[0]), float(place[1]), _ROLL_DEG)
        shot = Shot(
            number,
            pointing,
            observation="002" if is_background else "001",
            target="EMPTY" if is_background else "STAR",
            is_background=is_background,
            keywords={
                "target.ra": _TARGET[0],
                "target.dec": _TARGET[1],
                "target.source_type_apt": "EXTENDED" if is_background else "POINT",
            },
        )
        light = _light_mjysr(pointing, 0.0 if is_background else 1.0) / SENSITIVITY
        program.expose(SETUP, shot, light)
    truth = Table({"ra": [_TARGET[0]], "dec": [_TARGET[1]], "flux": [_CONTINUUM_JY]})
    truth.meta |= {
        "continuum_jy": _CONTINUUM_JY,
        "lines": [
            {"center_um": channel.line_um, "sigma_um": _LINE_SIGMA_UM,
             "peak_jy": _CONTINUUM_JY * _LINE_SHARE}
            for channel in CHANNELS
        ],
        "sky_mjysr": _SKY_MJYSR,
    }  # fmt: skip
    return program.observation({"name": "MIRI", "detector": "MIRIFUSHORT"}, mrs_references(), truth)


def _light_mjysr(pointing: Pointing, star: float) -> np.ndarray:
    """Return the brightness of what the pixels of all slices see."""
    light = np.zeros((ROWS, COLUMNS))
    v2v3 = np.array(pointing.from_sky(np.array([_TARGET[0]]), np.array([_TARGET[1]])))[:, 0]
    for channel in CHANNELS:
        middle = (channel.v2_arcsec, channel.v3_arcsec)
        alpha, beta = np.linalg.inv(channel.matrix()) @ (v2v3 - middle)
        wavelength = channel.wavelength_um()
        line = np.exp(-0.5 * ((wavelength - channel.line_um) / _LINE_SIGMA_UM) ** 2)
        flux_jy = star * _CONTINUUM_JY * (1 + _LINE_SHARE * line)
        area_sr = PIXEL_ARCSEC * channel.slice_arcsec * np.radians(1 / 3600) ** 2
        sky = _SKY_MJYSR * (1 + 0.1 * np.sin(2 * np.pi * (wavelength - wavelength[0])))
        for index in range(channel.n_slices):
            across = _share(channel.beta_arcsec(index) - beta, channel.slice_arcsec)
            along = _share(channel.alpha_arcsec(index) - alpha, PIXEL_ARCSEC)
            part = across * along[None, :] * flux_jy[:, None] * 1e-6 / area_sr
            light[:, channel.columns(index)] = sky[:, None] + part
    return light


def _share(apart_arcsec: np.ndarray | float, width_arcsec: float) -> np.ndarray:
    """Return the share of a star's light within a width around a place."""
    edges = [
        (np.asarray(apart_arcsec) + part * width_arcsec) / _SIGMA_ARCSEC for part in (-0.5, 0.5)
    ]
    return ndtr(edges[1]) - ndtr(edges[0])
