"""Slitless spectra with NIRCam: direct images of a field, and the same field through a grism."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table

from astroquery_lis.sandbox.jwst.crds import Reference, of_model
from astroquery_lis.sandbox.jwst.modes import ModeObservation, Shot
from astroquery_lis.sandbox.jwst.reference_files import flat, imaging_references, ramp_references
from astroquery_lis.sandbox.jwst.setups import add_star

from . import ModeProgram, setup_of, spectral_photometry

if TYPE_CHECKING:
    from astroquery_lis.sandbox.jwst.setups import Pointing

_FILTER = "F356W"
_IMAGING = setup_of("nircam_slitless")
_SIZE = _IMAGING.shape[0]
_GRISM = replace(
    _IMAGING,
    exp_type="NRC_WFSS",
    instrument={**_IMAGING.instrument, "pupil": "GRISMR"},
)
_DITHERS = ((0.0, 0.0), (0.31, 0.17), (-0.22, 0.35))
_GRISM_DITHERS = ((0.0, 0.0), (0.26, -0.19))
_IMAGE_SKY_MJYSR, _GRISM_SKY_DN_S = 0.2, 2.0
# A spectrum reaches from 0 to 1 of its trace: microns, and pixels from the source, by row and
# column.  The grism of the telescope spreads it over ten times as many.
_WAVELENGTH_UM = (3.1, 0.9)
_TRACE_X, _TRACE_Y = (-55.0, 110.0), (1.0, 1.5)
# MJy um s / (DN sr), at the middle of the filter.
_RESPONSE = 0.02
_STEPS_PER_PIX = 4
_LINE_SIGMA_UM = 0.02


def simulate_slitless(
    directory: str | PathLike[str], *, uncal: bool = False, seed: int = 17
) -> ModeObservation:
    """Simulate three direct images of six sources, and two exposures through the grism.

    ``truth`` has ``flux``, the continuum at 3.55 um (Jy), ``slope``, the share of it by which
    it rises per um, ``line_um`` and ``line`` (Jy um); ``truth.meta`` the ``sigma_um`` of lines.
    """
    program = ModeProgram(directory, seed, uncal=uncal)
    sources = _sources(program.rng)
    for number, dither in enumerate(_DITHERS, start=1):
        pointing = _IMAGING.dithered(dither)
        light = _IMAGING.image(pointing, sources, _IMAGE_SKY_MJYSR)
        program.expose(_IMAGING, Shot(number, pointing), light)
    for number, dither in enumerate(_GRISM_DITHERS, start=1):
        pointing = _IMAGING.dithered(dither)
        light = (_GRISM_SKY_DN_S * _sky() + _spectra(sources, pointing)) * _IMAGING.flat()
        program.expose(_GRISM, Shot(number, pointing, group="04"), light)
    sources.meta["sigma_um"] = _LINE_SIGMA_UM
    return program.observation(_IMAGING, _references(), sources)


def _sources(rng: np.random.Generator) -> Table:
    """Return sources whose spectra lie apart, one in each band of rows."""
    columns = np.array([-30.0, 25.0, -5.0, 38.0, -42.0, 12.0]) + rng.uniform(-1, 1, 6)
    rows = np.arange(-87.5, 88, 35) + rng.uniform(-1, 1, 6)
    setup, pointing = _IMAGING, _IMAGING.dithered((0.0, 0.0))
    middle = (_SIZE - 1) / 2
    places = [
        setup.to_sky(pointing, middle + x, middle + y) for x, y in zip(columns, rows, strict=True)
    ]
    ra, dec = np.array(places).T
    flux = rng.uniform(0.8e-5, 2e-5, 6)
    return Table(
        {
            "ra": ra,
            "dec": dec,
            "flux": flux,
            "slope": rng.uniform(-0.4, 0.4, 6),
            "line_um": rng.uniform(3.35, 3.75, 6),
            "line": 0.1 * flux,
        }
    )


def _sky() -> np.ndarray:
    """Return what the sky looks like through the grism; its mean is about 1."""
    y, x = np.mgrid[:_SIZE, :_SIZE] / _SIZE - 0.5
    return 1 + 0.2 * x - 0.1 * y**2 + 0.05 * np.sin(6 * x)


def _relative_response(wavelength_um: np.ndarray) -> np.ndarray:
    return 1 + 0.4 * (wavelength_um - 3.55) ** 2


def _spectra(sources: Table, pointing: Pointing) -> np.ndarray:
    """Return the DN/s of spectra: for each step along the trace, an image of the source."""
    light = np.zeros(_GRISM.shape)
    x, y = _GRISM.to_pixel(pointing, np.array(sources["ra"]), np.array(sources["dec"]))
    n_steps = round(_TRACE_X[1]) * _STEPS_PER_PIX
    place = (np.arange(n_steps) + 0.5) / n_steps
    wavelength = _WAVELENGTH_UM[0] + _WAVELENGTH_UM[1] * place
    factor = _RESPONSE * _relative_response(wavelength) * _GRISM.pixel_sr * 1e6
    for source, column, row in zip(sources, x, y, strict=True):
        apart = (wavelength - source["line_um"]) / _LINE_SIGMA_UM
        jansky = source["flux"] * (1 + source["slope"] * (wavelength - 3.55))
        jansky += source["line"] * np.exp(-0.5 * apart**2) / np.sqrt(2 * np.pi) / _LINE_SIGMA_UM
        rates = jansky / factor * _WAVELENGTH_UM[1] / n_steps
        along = column + _TRACE_X[0] + _TRACE_X[1] * place
        across = row + _TRACE_Y[0] + _TRACE_Y[1] * place
        for step in range(n_steps):
            add_star(light, along[step], across[step], rates[step], _IMAGING.sigma_pix)
    return light


# ---- references ---------------------------------------------------------------------------------


def _references() -> dict[str, Reference | list[Reference]]:
    files = imaging_references(_IMAGING)
    of_images = {
        kind: replace(files[kind], keys=(("NRC_IMAGE",),)) for kind in ("photom", "apcorr")
    }
    return {
        **files,
        **ramp_references(_IMAGING),
        "photom": [of_images["photom"], _photom()],
        "apcorr": [of_images["apcorr"], Reference(keys=(("NRC_WFSS",),))],
        "specwcs": of_model("NIRCAMGrismModel", _fill_grism, ending=".asdf"),
        "wavelengthrange": of_model("WavelengthrangeModel", _fill_range, ending=".asdf"),
        "bkg": flat(_GRISM, _sky() * _IMAGING.flat(), "WfssBkgModel"),
    }


def _photom() -> Reference:
    wavelength = np.linspace(3.0, 4.1, 111, dtype=np.float32)
    words = {"filter": _FILTER, "pupil": "GRISMR", "order": 1}
    response = _relative_response(wavelength)
    fill = spectral_photometry(_GRISM, words, _RESPONSE, wavelength, response)

    def fill_all(model: Any) -> None:
        fill(model)
        model.phot_unit, model.wave_unit = "MJy micron s / (DN sr)", "micron"

    return replace(of_model("NrcWfssPhotomModel", fill_all), keys=(("NRC_WFSS",),))


def _fill_grism(model: Any) -> None:
    import astropy.units as u
    from astropy.modeling.models import Polynomial1D

    def line(begin: float, slope: float) -> Polynomial1D:
        return Polynomial1D(1, c0=begin, c1=slope)

    def inverse(begin: float, slope: float) -> Polynomial1D:
        return line(-begin / slope, 1 / slope)

    model.displ, model.invdispl = [line(*_WAVELENGTH_UM)], [inverse(*_WAVELENGTH_UM)]
    model.dispx, model.invdispx = [line(*_TRACE_X)], [inverse(*_TRACE_X)]
    model.dispy, model.invdispy = [line(*_TRACE_Y)], [inverse(*_TRACE_Y)]
    model.orders, model.meta.reftype = [1], "specwcs"
    model.meta.input_units, model.meta.output_units = u.micron, u.micron
    model.meta.exposure.type = "NRC_WFSS"


def _fill_range(model: Any) -> None:
    import astropy.units as u

    begin, width = _WAVELENGTH_UM
    model.waverange_selector, model.order = [_FILTER], [1]
    model.wavelengthrange = [[1, _FILTER, begin, begin + width]]
    model.extract_orders = [[_FILTER, [1]]]
    model.meta.wavelength_units = u.micron
    model.meta.exposure.type = "NRC_WFSS"
