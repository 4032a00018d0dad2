"""Uncalibrated exposures of a mode, and the references that make count rates of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..detector import SATURATION_DN, Electronics, Maps, make_ramp
from .cache import Fill, Reference
from .exposures import Setup, Shot, fill_header
from .imaging_references import fill_frame

_ELECTRONICS = Electronics(gain=5.5, read_noise_e=14.0, dark_e_s=0.0, linearity=4e-7)


def write_ramp(
    folder: Path, setup: Setup, shot: Shot, light_dn_s: np.ndarray, rng: np.random.Generator
) -> Path:
    """Write the ramp that light makes in one integration, with its noise."""
    from stdatamodels.jwst import datamodels

    shape = setup.shape
    nothing, nowhere = np.zeros(shape), np.zeros(shape, bool)
    linearity = np.full(shape, _ELECTRONICS.linearity)
    maps = Maps(nothing, nothing, np.ones(shape), linearity, bad=nowhere, reference=nowhere)
    model = datamodels.Level1bModel()
    fill_header(model, setup, shot)
    exposure = model.meta.exposure
    times = exposure.group_time * np.arange(1, exposure.ngroups + 1)
    model.data = make_ramp(light_dn_s, maps, _ELECTRONICS, times, rng)[None]
    model.meta.filename = f"{shot.root(setup)}_uncal.fits"
    path = folder / model.meta.filename
    model.save(str(path))
    model.close()
    return path


def ramp_references(setup: Setup) -> dict[str, Reference]:
    """Return what the first stage needs."""
    constants = {
        "gain": ("GainModel", _ELECTRONICS.gain),
        # The noise of a difference of two reads.
        "readnoise": (
            "ReadnoiseModel", np.sqrt(2) * _ELECTRONICS.read_noise_e / _ELECTRONICS.gain
        ),
        "saturation": ("SaturationModel", SATURATION_DN),
    }  # fmt: skip
    references = {
        kind: Reference(model, _constant(setup, value))
        for kind, (model, value) in constants.items()
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


def _constant(setup: Setup, value: float) -> Fill:
    def fill(model: Any) -> None:
        model.data = np.full(setup.shape, value, np.float32)
        fill_frame(model, setup)
        if "dq_def" in model.schema["properties"]:
            _plane(setup)(model)

    return fill


def _linearity(setup: Setup) -> Fill:
    def fill(model: Any) -> None:
        coefficients = np.array([0, 1, _ELECTRONICS.linearity], np.float32)
        model.coeffs = np.broadcast_to(coefficients[:, None, None], (3, *setup.shape)).copy()
        _plane(setup)(model)

    return fill
