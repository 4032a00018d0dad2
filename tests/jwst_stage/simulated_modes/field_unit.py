"""MIRI's integral field unit: a star at two dithers, and a background to subtract from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtr

from astroquery_lis.sandbox.jwst.crds import Reference, of_model, of_step
from astroquery_lis.sandbox.jwst.modes import EMPTY_DEG, ModeObservation, Shot
from astroquery_lis.sandbox.jwst.setups import (
    ROLL_DEG,
    TARGET_DEG,
    Pointing,
    affine_model,
    offset_position,
    v2v3_matrix,
)

from . import ModeProgram, one_star, setup_of

if TYPE_CHECKING:
    from astropy.modeling import Model

_SETUP = setup_of("miri_mrs")
_ROWS, _COLUMNS = _SETUP.shape
_PIXEL_ARCSEC = 0.196
_ANGLE_DEG = 8.0


@dataclass(frozen=True, slots=True)
class _Channel:
    """One of the two channels: its slices on the detector and in the sky, and its wavelengths."""

    number: int
    n_slices: int
    first_column: int
    width_pix: int
    pitch_pix: int
    slice_arcsec: float
    v2_arcsec: float
    v3_arcsec: float
    first_um: float
    step_um: float
    line_um: float

    @property
    def band(self) -> str:
        """Name of channel and band."""
        return f"{self.number}SHORT"

    @property
    def first_beta_arcsec(self) -> float:
        """Place of the first slice across."""
        return -self.slice_arcsec * (self.n_slices - 1) / 2

    def beta_arcsec(self, index: int) -> float:
        """Return the place of a slice across."""
        return self.first_beta_arcsec + self.slice_arcsec * index

    def slice_number(self, index: int) -> int:
        """Return the number of a slice."""
        return 100 * self.number + index + 1

    def columns(self, index: int) -> np.ndarray:
        """Return the columns of a slice."""
        return self.first_column + self.pitch_pix * index + np.arange(self.width_pix)

    def alpha_arcsec(self, index: int) -> np.ndarray:
        """Return the places of the columns of a slice along it."""
        columns = self.columns(index)
        return (columns - columns.mean()) * _PIXEL_ARCSEC

    def wavelength_um(self) -> np.ndarray:
        """Return the wavelengths of the rows."""
        return self.first_um + self.step_um * np.arange(_ROWS)


_CHANNELS = (
    _Channel(1, 21, 4, 22, 24, 0.177, -503.65, -318.74, 4.90, 0.0140, 5.3),
    _Channel(2, 17, 516, 28, 30, 0.280, -503.60, -318.70, 7.50, 0.0210, 8.1),
)
_DITHERS = ((0.25, 0.1), (-0.3, -0.2), (0.0, 0.0))
_SIGMA_ARCSEC = 0.3
_CONTINUUM_JY, _LINE_SIGMA_UM, _LINE_SHARE = 0.02, 0.06, 0.8
_SKY_MJYSR = 350.0


def simulate_mrs(directory: str | PathLike[str], *, seed: int = 7) -> ModeObservation:
    """Simulate two dithers of a star in channels 1 and 2, and an exposure of a background target.

    ``truth.meta`` has ``continuum_jy``, ``lines`` (``center_um``, ``sigma_um`` and ``peak_jy``
    of one line in each channel) and ``sky_mjysr``, a fourth of the star's peak.
    """
    program = ModeProgram(directory, seed)
    for number, step in enumerate(_DITHERS, start=1):
        is_background = number == len(_DITHERS)
        middle = (_CHANNELS[0].v2_arcsec, _CHANNELS[0].v3_arcsec)
        place = offset_position(*(EMPTY_DEG if is_background else TARGET_DEG), *step)
        pointing = Pointing(*middle, float(place[0]), float(place[1]), ROLL_DEG)
        shot = Shot(
            number,
            pointing,
            observation="002" if is_background else "001",
            target="EMPTY" if is_background else "STAR",
            is_background=is_background,
            keywords={
                "target.ra": TARGET_DEG[0],
                "target.dec": TARGET_DEG[1],
                "target.source_type_apt": "EXTENDED" if is_background else "POINT",
            },
        )
        light = _light_mjysr(pointing, 0.0 if is_background else 1.0) / _SETUP.photmjsr
        program.expose(_SETUP, shot, light)
    truth = one_star(_CONTINUUM_JY)
    truth.meta |= {
        "continuum_jy": _CONTINUUM_JY,
        "lines": [
            {"center_um": channel.line_um, "sigma_um": _LINE_SIGMA_UM,
             "peak_jy": _CONTINUUM_JY * _LINE_SHARE}
            for channel in _CHANNELS
        ],
        "sky_mjysr": _SKY_MJYSR,
    }  # fmt: skip
    return program.observation(_SETUP, _references(), truth)


def _light_mjysr(pointing: Pointing, star: float) -> np.ndarray:
    """Return the brightness of what the pixels of all slices see."""
    light = np.zeros((_ROWS, _COLUMNS))
    v2v3 = np.array(pointing.from_sky(np.array([TARGET_DEG[0]]), np.array([TARGET_DEG[1]])))[:, 0]
    for channel in _CHANNELS:
        middle = (channel.v2_arcsec, channel.v3_arcsec)
        alpha, beta = np.linalg.inv(v2v3_matrix(_ANGLE_DEG)) @ (v2v3 - middle)
        wavelength = channel.wavelength_um()
        line = np.exp(-0.5 * ((wavelength - channel.line_um) / _LINE_SIGMA_UM) ** 2)
        flux_jy = star * _CONTINUUM_JY * (1 + _LINE_SHARE * line)
        area_sr = _PIXEL_ARCSEC * channel.slice_arcsec * np.radians(1 / 3600) ** 2
        sky = _SKY_MJYSR * (1 + 0.1 * np.sin(2 * np.pi * (wavelength - wavelength[0])))
        for index in range(channel.n_slices):
            across = _share(channel.beta_arcsec(index) - beta, channel.slice_arcsec)
            along = _share(channel.alpha_arcsec(index) - alpha, _PIXEL_ARCSEC)
            part = across * along[None, :] * flux_jy[:, None] * 1e-6 / area_sr
            light[:, channel.columns(index)] = sky[:, None] + part
    return light


def _share(apart_arcsec: np.ndarray | float, width_arcsec: float) -> np.ndarray:
    """Return the share of a star's light within a width around a place."""
    edges = [
        (np.asarray(apart_arcsec) + part * width_arcsec) / _SIGMA_ARCSEC for part in (-0.5, 0.5)
    ]
    return ndtr(edges[1]) - ndtr(edges[0])


# ---- references ---------------------------------------------------------------------------------

_MAPS = 9
_SPAXEL_ARCSEC = 0.15
_APERTURE_ARCSEC, _RING_ARCSEC = 1.0, (1.15, 1.6)
_BANDS = [channel.band for channel in _CHANNELS]


def _references() -> dict[str, Reference]:
    """Return what two stages need; all else does not apply."""
    return {
        "distortion": of_model("DistortionMRSModel", _fill_distortion, ending=".asdf"),
        "specwcs": of_model("SpecwcsModel", _fill_specwcs, ending=".asdf"),
        "regions": of_model("RegionsModel", _fill_regions, ending=".asdf"),
        "wavelengthrange": of_model("WavelengthrangeModel", _fill_wavelengthrange, ending=".asdf"),
        "photom": of_model("MirMrsPhotomModel", _fill_photom),
        "cubepar": of_model("MiriIFUCubeParsModel", _fill_cubepar),
        "extract1d": Reference(_write_extract1d, ".asdf"),
        # As in the archive: one spectrum of both channels, and no background in stage 2.
        "pars-spec2pipeline": of_step(
            "jwst.pipeline.calwebb_spec2.Spec2Pipeline",
            {},
            steps=[
                {
                    "class": "jwst.cube_build.cube_build_step.CubeBuildStep",
                    "name": "cube_build",
                    "parameters": {"output_type": "multi"},
                },
                {
                    "class": "jwst.background.background_step.BackgroundStep",
                    "name": "bkg_subtract",
                    "parameters": {"skip": True},
                },
            ],
        ),
    }


def _slices() -> list[tuple[_Channel, int]]:
    """Return the channel and the index of every slice."""
    return [(channel, index) for channel in _CHANNELS for index in range(channel.n_slices)]


def _fill_instrument(model: Any) -> None:
    model.meta.instrument.channel, model.meta.instrument.band = "12", "SHORT"
    model.meta.exposure.type = _SETUP.exp_type


def _fill_distortion(model: Any) -> None:
    from astropy.modeling.models import Polynomial1D, Polynomial2D

    _fill_instrument(model)
    alpha, x, y = [], [], []
    beta: list[Model] = []
    for channel, index in _slices():
        middle = float(channel.columns(index).mean())
        # Of (row, column), and of (wavelength, place along the slice).
        alpha.append(Polynomial2D(1, c0_0=-middle * _PIXEL_ARCSEC, c0_1=_PIXEL_ARCSEC))
        beta.append(Polynomial1D(1, c0=channel.beta_arcsec(index)))
        x.append(Polynomial2D(1, c0_0=middle, c0_1=1 / _PIXEL_ARCSEC))
        y.append(
            Polynomial2D(1, c0_0=-channel.first_um / channel.step_um, c1_0=1 / channel.step_um)
        )
    model.slices = [channel.slice_number(index) for channel, index in _slices()]
    model.alpha_model, model.beta_model, model.x_model, model.y_model = alpha, beta, x, y
    model.bzero = {
        "channel_band": _BANDS,
        "beta_zero": [channel.first_beta_arcsec for channel in _CHANNELS],
    }
    model.bdel = {
        "channel_band": _BANDS,
        "delta_beta": [channel.slice_arcsec for channel in _CHANNELS],
    }
    model.abv2v3_model = {
        "channel_band": _BANDS,
        "model": [
            affine_model(v2v3_matrix(_ANGLE_DEG), [channel.v2_arcsec, channel.v3_arcsec])
            for channel in _CHANNELS
        ],
    }


def _fill_specwcs(model: Any) -> None:
    import astropy.units as u
    from astropy.modeling.models import Polynomial2D

    _fill_instrument(model)
    model.meta.input_units, model.meta.output_units = u.pix, u.micron
    model.model = [
        Polynomial2D(1, c0_0=channel.first_um, c1_0=channel.step_um) for channel, _ in _slices()
    ]


def _fill_regions(model: Any) -> None:
    _fill_instrument(model)
    numbers = np.zeros((_ROWS, _COLUMNS), np.int32)
    for channel, index in _slices():
        numbers[:, channel.columns(index)] = channel.slice_number(index)
    # One map for each of nine throughputs.
    model.regions = np.stack([numbers] * _MAPS)


def _fill_wavelengthrange(model: Any) -> None:
    import astropy.units as u

    _fill_instrument(model)
    model.waverange_selector = _BANDS
    model.wavelengthrange = [
        [float(edge) for edge in (wavelength[0] - 0.1, wavelength[-1] + 0.1)]
        for wavelength in (channel.wavelength_um() for channel in _CHANNELS)
    ]
    model.meta.wavelength_units = u.micron


def _fill_photom(model: Any) -> None:
    _fill_instrument(model)
    model.data = np.full((_ROWS, _COLUMNS), _SETUP.photmjsr, np.float32)
    model.err = np.zeros((_ROWS, _COLUMNS), np.float32)
    model.dq = np.zeros((_ROWS, _COLUMNS), np.uint32)
    model.pixsiz = np.ones((_ROWS, _COLUMNS), np.float32)
    model.meta.photometry.conversion_megajanskys = _SETUP.photmjsr
    model.meta.photometry.pixelarea_arcsecsq = _PIXEL_ARCSEC**2
    model.meta.photometry.pixelarea_steradians = (_PIXEL_ARCSEC * np.radians(1 / 3600)) ** 2


def _fill_cubepar(model: Any) -> None:
    model.meta.exposure.type = _SETUP.exp_type
    numbers = ("spaxelsize", "spectralstep", "wavemin", "wavemax")
    kinds = [("channel", "S3"), ("band", "S12"), *((name, "<f4") for name in numbers)]
    rows = []
    for channel in _CHANNELS:
        wavelength, half = channel.wavelength_um(), channel.step_um / 2
        edges = (wavelength[0] - half, wavelength[-1] + half)
        rows.append((str(channel.number), "SHORT", _SPAXEL_ARCSEC, channel.step_um, *edges))
    model.ifucubepars_table = np.array(rows, dtype=kinds)
    wavelength = np.concatenate([channel.wavelength_um() for channel in _CHANNELS])
    model.ifucubepars_multichannel_driz_wavetable = np.array(
        [(value,) for value in wavelength], dtype=[("wavelength", "<f4")]
    )


def _write_extract1d(path: Path, _meta: Mapping[str, Any]) -> None:
    import asdf

    wavelength = np.array([4.0, 12.0], np.float32)

    def constant(value: float) -> np.ndarray:
        return np.full_like(wavelength, value)

    tree = {
        "meta": {
            "reftype": "EXTRACT1D", "telescope": "JWST", "pedigree": "DUMMY",
            "author": "astroquery_lis.sandbox", "description": "Simulated apertures",
            "useafter": "2014-01-01T00:00:00", "instrument": {"name": "MIRI"},
            "exposure": {"type": _SETUP.exp_type}, "region_type": "target",
            "subtract_background": True, "method": "exact", "subpixels": 10,
        },
        "data": {
            "wavelength": wavelength, "wavelength_units": "micron",
            "radius": constant(_APERTURE_ARCSEC), "radius_units": "arcsec",
            "inner_bkg": constant(_RING_ARCSEC[0]), "inner_bkg_units": "arcsec",
            "outer_bkg": constant(_RING_ARCSEC[1]), "outer_bkg_units": "arcsec",
            "axis_ratio": constant(1.0), "axis_pa": constant(0.0), "axis_pa_units": "degrees",
        },
    }  # fmt: skip
    asdf.AsdfFile(tree).write_to(str(path), all_array_storage="inline")
