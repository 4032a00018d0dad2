"""The references that images and ramps of any instrument need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from astropy.table import Table

from ..crds_files import Fill, Reference
from ..detector import SATURATION_DN
from ..references import PARAMETERS
from .exposures import ELECTRONICS, Setup

Rows = Sequence[Mapping[str, str]]

_PREFIXES = {"MIRI": "Mir", "NIRCAM": "Nrc", "NIRISS": "Nis"}


def imaging_references(setup: Setup) -> dict[str, Reference]:
    """Return what calibrates images and makes their mosaic and catalogue."""
    instrument = _PREFIXES[setup.instrument["name"]]
    optics = {k: v for k, v in setup.instrument.items() if k in ("filter", "pupil")}
    rows = [optics]
    if instrument == "Mir":
        # A mosaic has no subarray.
        rows = [{**optics, "subarray": name} for name in (setup.subarray, "GENERIC")]
    return {
        "flat": flat(setup, setup.flat()),
        "photom": _photom(setup, f"{instrument}ImgPhotomModel", rows),
        "distortion": distortion(setup),
        "filteroffset": Reference("FilteroffsetModel", _filteroffset(setup, optics)),
        "apcorr": Reference(f"{instrument}ImgApcorrModel", _apcorr(setup, rows)),
        "abvegaoffset": Reference("ABVegaOffsetModel", _abvegaoffset(optics)),
        **_parameters(),
    }


def _parameters() -> dict[str, Reference]:
    """Return the parameters of the steps that small fields need."""
    return {
        kind: Reference(step=step, parameters=values)
        for kind, (step, values) in PARAMETERS.items()
        if kind != "pars-jumpstep"
    }


def fill_frame(model: Any, setup: Setup) -> None:
    """Say which part of the detector a reference with pixels is of."""
    model.meta.subarray = {
        "name": setup.subarray, "xstart": setup.first_pix[0] + 1, "ystart": setup.first_pix[1] + 1,
        "xsize": setup.shape[1], "ysize": setup.shape[0], "fastaxis": 1, "slowaxis": 2,
    }  # fmt: skip


def flat(setup: Setup, image: np.ndarray) -> Reference:
    """Return a flat field."""

    def fill(model: Any) -> None:
        model.data = image.astype(np.float32)
        model.err = np.full(image.shape, 1e-3, np.float32)
        model.dq = np.zeros(image.shape, np.uint32)
        fill_frame(model, setup)

    return Reference("FlatModel", fill)


def _photom(setup: Setup, model: str, rows: Rows) -> Reference:
    """Return the factor from DN/s to MJy/sr, the same for all set-ups."""

    def fill(model: Any) -> None:
        numbers = {"photmjsr": setup.photmjsr, "uncertainty": 0.01 * setup.photmjsr}
        model.phot_table = _table([{**row, **numbers} for row in rows])
        model.meta.photometry.pixelarea_steradians = setup.pixel_sr
        model.meta.photometry.pixelarea_arcsecsq = setup.detector.scale_arcsec**2
        model.meta.exposure.type = setup.exp_type

    return Reference(model, fill)


def distortion(setup: Setup) -> Reference:
    """Return the geometry of the detector."""

    def fill(model: Any) -> None:
        import astropy.units as u

        model.model = setup.detector.transform()
        model.meta.input_units, model.meta.output_units = u.pix, u.arcsec
        exposure = model.meta.exposure
        exposure.type, exposure.p_exptype = setup.exp_type, f"{setup.exp_type}|"
        if "pupil" in setup.instrument:
            model.meta.instrument.p_pupil = f"{setup.instrument['pupil']}|"
        model.meta.title = "Simulated distortion"

    return Reference("DistortionModel", fill)


def _filteroffset(setup: Setup, optics: Mapping[str, str]) -> Fill:
    def fill(model: Any) -> None:
        model.filters = [{**optics, "column_offset": 0.0, "row_offset": 0.0}]
        model.meta.exposure.type = setup.exp_type

    return fill


def _apcorr(setup: Setup, rows: Rows) -> Fill:
    # The mosaic adds the widths of the pixel, of the drop, and of its own pixel.
    sigma = np.sqrt(setup.sigma_pix**2 + 4 / 12)
    fractions = np.arange(1, 10) / 10
    radii = sigma * np.sqrt(-2 * np.log(1 - fractions))

    def fill(model: Any) -> None:
        model.apcorr_table = _table(
            [
                {**row, "eefraction": fraction, "radius": radius, "apcorr": 1 / fraction,
                 "skyin": 5.0, "skyout": 7.0}
                for row in rows
                for fraction, radius in zip(fractions, radii, strict=True)
            ]
        )  # fmt: skip
        model.meta.exposure.type = setup.exp_type

    return fill


def _abvegaoffset(optics: Mapping[str, str]) -> Fill:
    def fill(model: Any) -> None:
        model.abvega_offset = Table([{**optics, "abvega_offset": -4.4}])

    return fill


def _table(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return rows as an array whose words are short and whose numbers are single floats."""
    widths = {"filter": "S12", "pupil": "S15", "subarray": "S15"}
    kinds = [(name, widths.get(name, "<f4")) for name in rows[0]]
    return np.array([tuple(row.values()) for row in rows], dtype=kinds)


def ramp_references(setup: Setup) -> dict[str, Reference]:
    """Return what the first stage needs."""
    constants = {
        "gain": ("GainModel", ELECTRONICS.gain),
        # The noise of a difference of two reads.
        "readnoise": (
            "ReadnoiseModel", np.sqrt(2) * ELECTRONICS.read_noise_e / ELECTRONICS.gain
        ),
        "saturation": ("SaturationModel", SATURATION_DN),
    }  # fmt: skip
    references = {
        kind: Reference(model, constant(setup, value)) for kind, (model, value) in constants.items()
    }
    return references | {
        "mask": Reference("MaskModel", _plane(setup)),
        "linearity": Reference("LinearityModel", _linearity(setup)),
    }


def _plane(setup: Setup) -> Fill:
    def fill(model: Any) -> None:
        model.dq = np.zeros(setup.shape, np.uint32)
        kinds = [("BIT", "<i4"), ("VALUE", "<u4"), ("NAME", "U40"), ("DESCRIPTION", "U80")]
        model.dq_def = np.array([(0, 1, "DO_NOT_USE", "Bad pixel")], dtype=kinds)
        fill_frame(model, setup)

    return fill


def constant(setup: Setup, value: float) -> Fill:
    """Return what fills a reference with the same value everywhere."""

    def fill(model: Any) -> None:
        model.data = np.full(setup.shape, value, np.float32)
        fill_frame(model, setup)
        if "dq_def" in model.schema["properties"]:
            _plane(setup)(model)

    return fill


def _linearity(setup: Setup) -> Fill:
    def fill(model: Any) -> None:
        coefficients = np.array([0, 1, ELECTRONICS.linearity], np.float32)
        model.coeffs = np.broadcast_to(coefficients[:, None, None], (3, *setup.shape)).copy()
        _plane(setup)(model)

    return fill
