"""The references that images of any instrument need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from astropy.table import Table

from ..references import PARAMETERS
from .cache import Fill, Reference
from .exposures import Setup

Rows = Sequence[Mapping[str, str]]


def imaging_references(
    setup: Setup, instrument: str, rows: Rows, *, photmjsr: float, sigma_pix: float
) -> dict[str, Reference]:
    """Return what calibrates images and makes their mosaic and catalogue.

    ``instrument`` is as in the names of models ('Mir'), ``rows`` are the set-ups as the tables of
    the instrument tell them apart, by columns such as ``filter`` and ``pupil``.
    """
    return {
        "flat": flat(setup, np.ones(setup.shape)),
        "photom": photom(setup, f"{instrument}ImgPhotomModel", rows, photmjsr),
        "distortion": distortion(setup),
        "filteroffset": Reference("FilteroffsetModel", _filteroffset(setup, rows)),
        "apcorr": Reference(f"{instrument}ImgApcorrModel", _apcorr(setup, rows, sigma_pix)),
        "abvegaoffset": Reference("ABVegaOffsetModel", _abvegaoffset(rows)),
        **parameters(),
    }


def parameters() -> dict[str, Reference]:
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


def photom(setup: Setup, model: str, rows: Rows, photmjsr: float) -> Reference:
    """Return the factor from DN/s to MJy/sr, the same for all set-ups."""

    def fill(model: Any) -> None:
        numbers = {"photmjsr": photmjsr, "uncertainty": 0.01 * photmjsr}
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
        model.meta.exposure.type, model.meta.exposure.p_exptype = (
            setup.exp_type,
            f"{setup.exp_type}|",
        )
        if "pupil" in setup.instrument:
            model.meta.instrument.p_pupil = f"{setup.instrument['pupil']}|"
        model.meta.title = "Simulated distortion"

    return Reference("DistortionModel", fill)


def _filteroffset(setup: Setup, rows: Rows) -> Fill:
    def fill(model: Any) -> None:
        model.filters = [{**row, "column_offset": 0.0, "row_offset": 0.0} for row in _optics(rows)]
        model.meta.exposure.type = setup.exp_type

    return fill


def _apcorr(setup: Setup, rows: Rows, sigma_pix: float) -> Fill:
    # The mosaic adds the widths of the pixel, of the drop, and of its own pixel.
    sigma = np.sqrt(sigma_pix**2 + 4 / 12)
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


def _abvegaoffset(rows: Rows) -> Fill:
    def fill(model: Any) -> None:
        model.abvega_offset = Table([{**row, "abvega_offset": -4.4} for row in _optics(rows)])

    return fill


def _optics(rows: Rows) -> list[dict[str, str]]:
    """Return the distinct optical elements of some set-ups."""
    elements = [
        {name: value for name, value in row.items() if name in ("filter", "pupil")} for row in rows
    ]
    return [row for index, row in enumerate(elements) if row not in elements[:index]]


def _table(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return rows as an array whose words are short and whose numbers are single floats."""
    widths = {"filter": "S12", "pupil": "S15", "subarray": "S15"}
    kinds = [(name, widths.get(name, "<f4")) for name in rows[0]]
    return np.array([tuple(row.values()) for row in rows], dtype=kinds)
