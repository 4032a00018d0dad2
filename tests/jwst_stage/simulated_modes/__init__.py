"""Exposures of modes that the sandbox does not have, made of its parts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from astroquery_lis.sandbox.jwst.crds import Fill
from astroquery_lis.sandbox.jwst.modes import Program, Shot, save
from astroquery_lis.sandbox.jwst.reference_files import fill_photometry, table_of
from astroquery_lis.sandbox.jwst.setups import DETECTORS, TARGET_DEG, Setup

_NONSENSE_DN_S = 1e4
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


def one_star(flux_jy: float, place_deg: Sequence[float | np.ndarray] = TARGET_DEG) -> Table:
    """Return a table of one source: ``ra``, ``dec`` (deg), ``flux`` (Jy)."""
    ra, dec = map(float, place_deg)
    return Table({"ra": [ra], "dec": [dec], "flux": [flux_jy]})


@dataclass(frozen=True)
class Segment(Shot):
    """Some integrations of a long exposure, from ``first_integration`` on, in a file of their own.

    ``segment`` 0: all are in one file.
    """

    segment: int = 0
    first_integration: int = 1

    def root(self, setup: Setup) -> str:
        """Return the name of the exposure."""
        visit, _, detector = super().root(setup).rpartition("_")
        part = f"-seg{self.segment:03d}" if self.segment else ""
        return f"{visit}{part}_{detector}"


class ModeProgram(Program):
    """Takes exposures of several integrations and of the field unit, and with bad pixels, too."""

    def expose(
        self, setup: Setup, shot: Shot, light_dn_s: np.ndarray, *, bad: np.ndarray | None = None
    ) -> None:
        """Take one exposure of light; pixels that are ``bad`` hold nonsense, and are marked."""
        if self.is_uncal:
            super().expose(setup, shot, light_dn_s)
            return
        if light_dn_s.ndim == 3:
            rate = self.rate(setup, shot, light_dn_s, "CubeModel")
            first = getattr(shot, "first_integration", 1)
            _add_integrations(rate, setup, shot, first + np.arange(len(light_dn_s)))
            rate.meta.exposure.segment_number = getattr(shot, "segment", 0) or None
            suffix = "rateints"
        else:
            kind = "IFUImageModel" if setup.exp_type.endswith("_MRS") else "ImageModel"
            rate, suffix = self.rate(setup, shot, light_dn_s, kind), "rate"
        if bad is not None:
            from stdatamodels.jwst.datamodels import dqflags

            rate.data[bad], rate.dq[bad] = _NONSENSE_DN_S, dqflags.pixel["DO_NOT_USE"]
        self.files.append(save(self.folder, rate, f"{shot.root(setup)}_{suffix}.fits"))


def _add_integrations(rate: Any, setup: Setup, shot: Shot, numbers: np.ndarray) -> None:
    """Add the table of begin, middle and end of each integration, days."""
    n_ints = len(numbers)
    edges = shot.start.mjd + np.arange(2 * n_ints + 1) * setup.exposure_s / 172800 / n_ints
    times = [edges[part : part + 2 * n_ints : 2] for part in range(3)]
    # Light reaches the middle of the solar system later or sooner; here at the same time.
    names = [
        f"int_{k}_{frame}" for frame in ("MJD_UTC", "BJD_TDB") for k in ("start", "mid", "end")
    ]
    kinds = [("integration_number", "<i4"), *((name, "<f8") for name in names)]
    rate.int_times = np.array(list(zip(numbers, *times, *times, strict=True)), dtype=kinds)
    rate.meta.exposure.integration_start = int(numbers[0])
    rate.meta.exposure.integration_end = int(numbers[-1])
