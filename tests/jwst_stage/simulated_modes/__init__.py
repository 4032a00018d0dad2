"""Exposures of modes that the sandbox does not have, made of its parts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from astroquery_lis.sandbox.jwst.crds import Fill
from astroquery_lis.sandbox.jwst.detector import DETECTORS
from astroquery_lis.sandbox.jwst.reference_files import fill_photometry, table_of
from astroquery_lis.sandbox.jwst.setups import Setup

_SETUPS = Path(__file__).with_name("setups.json")


def setup_of(mode: str) -> Setup:
    """Return the set-up of a mode."""
    entry = json.loads(_SETUPS.read_text(encoding="utf-8"))[mode]
    entry["detector"] = DETECTORS[entry.pop("geometry")]
    pairs = {name: tuple(entry[name]) for name in ("shape", "corner_pix") if name in entry}
    return Setup(**{**entry, **pairs})


def spectral_photometry(
    setup: Setup,
    words: Mapping[str, Any],
    factor: float,
    wavelength_um: np.ndarray,
    response: np.ndarray,
    uncertainty: float = 0.0,
) -> Fill:
    """Return what fills a reference with one factor, and the response by wavelength."""

    def fill(model: Any) -> None:
        numbers = {
            "photmjsr": factor, "uncertainty": 0.01 * factor, "nelem": len(wavelength_um),
            "wavelength": wavelength_um, "relresponse": response,
            "reluncertainty": uncertainty * response,
        }  # fmt: skip
        model.phot_table = table_of([{**words, **numbers}])
        fill_photometry(model, setup)

    return fill
