"""The references of MIRI's integral field unit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import asdf
import numpy as np

from .cache import Reference
from .miri_mrs_slices import CHANNELS, COLUMNS, PIXEL_ARCSEC, ROWS, SENSITIVITY, SETUP

if TYPE_CHECKING:
    from astropy.modeling import Model

_MAPS = 9
_SPAXEL_ARCSEC = 0.15
_APERTURE_ARCSEC, _RING_ARCSEC = 1.0, (1.15, 1.6)
_BANDS = [channel.band for channel in CHANNELS]


def mrs_references() -> dict[str, Reference]:
    """Return what two stages need; all else does not apply."""
    return {
        "distortion": Reference("DistortionMRSModel", _fill_distortion),
        "specwcs": Reference("SpecwcsModel", _fill_specwcs),
        "regions": Reference("RegionsModel", _fill_regions),
        "wavelengthrange": Reference("WavelengthrangeModel", _fill_wavelengthrange),
        "photom": Reference("MirMrsPhotomModel", _fill_photom),
        "cubepar": Reference("MiriIFUCubeParsModel", _fill_cubepar),
        "extract1d": Reference(ending=".asdf", write=_write_extract1d),
        # As in the archive: one spectrum of both channels, and no background in stage 2.
        "pars-spec2pipeline": Reference(
            step="jwst.pipeline.calwebb_spec2.Spec2Pipeline",
            parameters={},
            substeps={
                "cube_build": (
                    "jwst.cube_build.cube_build_step.CubeBuildStep", {"output_type": "multi"}
                ),
                "bkg_subtract": (
                    "jwst.background.background_step.BackgroundStep", {"skip": True}
                ),
            },
        ),
    }  # fmt: skip


def _slices() -> list[tuple[int, int, int]]:
    """Return index of the channel, index of the slice and its number."""
    return [
        (which, index, 100 * channel.number + index + 1)
        for which, channel in enumerate(CHANNELS)
        for index in range(channel.n_slices)
    ]


def _fill_instrument(model: Any) -> None:
    model.meta.instrument.channel, model.meta.instrument.band = "12", "SHORT"
    model.meta.exposure.type = SETUP.exp_type


def _fill_distortion(model: Any) -> None:
    from astropy.modeling.models import Polynomial1D, Polynomial2D

    _fill_instrument(model)
    alpha, x, y = [], [], []
    beta: list[Model] = []
    for which, index, _ in _slices():
        channel = CHANNELS[which]
        middle = float(channel.columns(index).mean())
        # Of (row, column), and of (wavelength, place along the slice).
        alpha.append(Polynomial2D(1, c0_0=-middle * PIXEL_ARCSEC, c0_1=PIXEL_ARCSEC))
        beta.append(Polynomial1D(1, c0=channel.beta_arcsec(index)))
        x.append(Polynomial2D(1, c0_0=middle, c0_1=1 / PIXEL_ARCSEC))
        y.append(
            Polynomial2D(1, c0_0=-channel.first_um / channel.step_um, c1_0=1 / channel.step_um)
        )
    model.slices = [number for _, _, number in _slices()]
    model.alpha_model, model.beta_model, model.x_model, model.y_model = alpha, beta, x, y
    model.bzero = {
        "channel_band": _BANDS,
        "beta_zero": [channel.first_beta_arcsec for channel in CHANNELS],
    }
    model.bdel = {
        "channel_band": _BANDS,
        "delta_beta": [channel.slice_arcsec for channel in CHANNELS],
    }
    model.abv2v3_model = {
        "channel_band": _BANDS,
        "model": [_to_v2v3(which) for which in range(len(CHANNELS))],
    }


def _to_v2v3(which: int) -> Model:
    from astropy.modeling.models import AffineTransformation2D

    channel = CHANNELS[which]
    matrix, centre = channel.matrix(), np.array([channel.v2_arcsec, channel.v3_arcsec])
    back = np.linalg.inv(matrix)
    model = AffineTransformation2D(matrix=matrix, translation=centre)
    model.inverse = AffineTransformation2D(matrix=back, translation=-back @ centre)
    return model


def _fill_specwcs(model: Any) -> None:
    import astropy.units as u
    from astropy.modeling.models import Polynomial2D

    _fill_instrument(model)
    model.meta.input_units, model.meta.output_units = u.pix, u.micron
    model.model = [
        Polynomial2D(1, c0_0=CHANNELS[which].first_um, c1_0=CHANNELS[which].step_um)
        for which, _, _ in _slices()
    ]


def _fill_regions(model: Any) -> None:
    _fill_instrument(model)
    numbers = np.zeros((ROWS, COLUMNS), np.int32)
    for which, index, number in _slices():
        numbers[:, CHANNELS[which].columns(index)] = number
    # One map for each of nine throughputs.
    model.regions = np.stack([numbers] * _MAPS)


def _fill_wavelengthrange(model: Any) -> None:
    import astropy.units as u

    _fill_instrument(model)
    model.waverange_selector = _BANDS
    model.wavelengthrange = [
        [float(edge) for edge in (wavelength[0] - 0.1, wavelength[-1] + 0.1)]
        for wavelength in (channel.wavelength_um() for channel in CHANNELS)
    ]
    model.meta.wavelength_units = u.micron


def _fill_photom(model: Any) -> None:
    _fill_instrument(model)
    model.data = np.full((ROWS, COLUMNS), SENSITIVITY, np.float32)
    model.err = np.zeros((ROWS, COLUMNS), np.float32)
    model.dq = np.zeros((ROWS, COLUMNS), np.uint32)
    model.pixsiz = np.ones((ROWS, COLUMNS), np.float32)
    model.meta.photometry.conversion_megajanskys = SENSITIVITY
    model.meta.photometry.pixelarea_arcsecsq = PIXEL_ARCSEC**2
    model.meta.photometry.pixelarea_steradians = (PIXEL_ARCSEC * np.radians(1 / 3600)) ** 2


def _fill_cubepar(model: Any) -> None:
    model.meta.exposure.type = SETUP.exp_type
    numbers = ("spaxelsize", "spectralstep", "wavemin", "wavemax")
    kinds = [("channel", "S3"), ("band", "S12"), *((name, "<f4") for name in numbers)]
    rows = []
    for channel in CHANNELS:
        wavelength, half = channel.wavelength_um(), channel.step_um / 2
        edges = (wavelength[0] - half, wavelength[-1] + half)
        rows.append((str(channel.number), "SHORT", _SPAXEL_ARCSEC, channel.step_um, *edges))
    model.ifucubepars_table = np.array(rows, dtype=kinds)
    wavelength = np.concatenate([channel.wavelength_um() for channel in CHANNELS])
    model.ifucubepars_multichannel_driz_wavetable = np.array(
        [(value,) for value in wavelength], dtype=[("wavelength", "<f4")]
    )


def _write_extract1d(path: Path) -> None:
    wavelength = np.array([4.0, 12.0], np.float32)

    def constant(value: float) -> np.ndarray:
        return np.full_like(wavelength, value)

    tree = {
        "meta": {
            "reftype": "EXTRACT1D", "telescope": "JWST", "pedigree": "DUMMY",
            "author": "astroquery_lis.sandbox", "description": "Simulated apertures",
            "useafter": "2014-01-01T00:00:00", "instrument": {"name": "MIRI"},
            "exposure": {"type": SETUP.exp_type}, "region_type": "target",
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
