"""The references that ramps and images need, and the CRDS cache of the simulated NIRCam."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...exceptions import InvalidRequestError
from .crds import Fill, Reference, lay_out, of_model, of_step, write_context, write_kind
from .setups import (
    FILTERS,
    FRAME_TIME_S,
    READPATT,
    SATURATION_DN,
    Setup,
    frame_keywords,
    sky_setup,
)

_PREFIXES = {"MIRI": "Mir", "NIRCAM": "Nrc", "NIRISS": "Nis"}
_WIDTHS = {"filter": "S12", "pupil": "S15", "subarray": "S15"}
# Bits of the files; in memory the bits are those of the pipeline.
_DQ = (
    (0, "DO_NOT_USE", "Bad pixel"),
    (1, "DEAD", "No response"),
    (2, "REFERENCE_PIXEL", "Sees no light"),
)
# Parameters that the pipeline finds in CRDS, by reference type: class of the step, values.  The PSF
# is sampled so badly that the defaults take peaks of stars for outliers.
PARAMETERS: dict[str, tuple[str, dict]] = json.loads(
    (Path(__file__).parents[1] / "data" / "jwst_parameters.json").read_text(encoding="utf-8")
)


def _parameters(kind: str, factor: float) -> Reference:
    """Return parameters of a step; the factor is 1 in their first version."""
    step, values = PARAMETERS[kind]
    parameters = {k: v * factor if isinstance(v, float) else v for k, v in values.items()}
    return of_step(step, parameters)


# ---- pixels -------------------------------------------------------------------------------------


def _of_pixels(setup: Setup, model: str, fill: Fill) -> Reference:
    """Return a reference that says which part of the detector it is of."""

    def fill_all(model: Any) -> None:
        fill(model)
        model.meta.subarray = frame_keywords(setup)
        if "dq_def" in model.schema["properties"]:
            rows = [(bit, 1 << bit, name, text) for bit, name, text in _DQ]
            kinds = [("BIT", "<i4"), ("VALUE", "<u4"), ("NAME", "U40"), ("DESCRIPTION", "U80")]
            model.dq_def = np.array(rows, dtype=kinds)

    return of_model(model, fill_all)


def flat(setup: Setup, image: np.ndarray, model: str = "FlatModel") -> Reference:
    """Return a flat field, or another image that has no error to speak of."""

    def fill(model: Any) -> None:
        model.data = image.astype(np.float32)
        model.err = np.full(image.shape, 1e-3, np.float32)
        model.dq = np.zeros(image.shape, np.uint32)

    return _of_pixels(setup, model, fill)


def constant(setup: Setup, model: str, value: float) -> Reference:
    """Return a reference with the same value everywhere."""

    def fill(model: Any) -> None:
        model.data = np.full(setup.shape, value, np.float32)
        if "dq" in model.schema["properties"]:
            model.dq = np.zeros(setup.shape, np.uint32)
        model.meta.exposure.readpatt = setup.keywords["exposure.readpatt"]

    return _of_pixels(setup, model, fill)


def ramp_references(setup: Setup, factor: float = 1.0) -> dict[str, Reference]:
    """Return what the first stage needs."""
    parts, square = setup.electronics, setup.maps().linearity * np.float32(factor)

    def fill_mask(model: Any) -> None:
        from stdatamodels.jwst.datamodels import dqflags

        maps, bits = setup.maps(), dqflags.pixel
        bad = np.uint32(bits["DO_NOT_USE"] | bits["DEAD"])
        model.dq = maps.bad * bad + maps.reference * np.uint32(bits["REFERENCE_PIXEL"])
        if factor != 1:
            model.dq[setup.shape[0] // 4, setup.shape[1] // 4] = bad

    def fill_linearity(model: Any) -> None:
        planes = np.zeros_like(square), np.ones_like(square), square
        model.coeffs = np.stack(planes).astype(np.float32)
        model.dq = np.zeros(setup.shape, np.uint32)

    # The noise of a difference of two reads.
    noise = np.sqrt(2) * parts.read_noise_e / parts.gain
    return {
        "mask": _of_pixels(setup, "MaskModel", fill_mask),
        "linearity": _of_pixels(setup, "LinearityModel", fill_linearity),
        "gain": constant(setup, "GainModel", parts.gain * factor),
        "readnoise": constant(setup, "ReadnoiseModel", noise * factor),
        "saturation": constant(setup, "SaturationModel", SATURATION_DN * factor),
    }


def uneven_references(
    setup: Setup, group_s: float, n_groups: int, factor: float
) -> dict[str, Reference]:
    """Return what the first stage needs besides, of a detector that has bias and dark current."""

    def fill_superbias(model: Any) -> None:
        model.data = setup.maps().bias_dn * np.float32(factor)
        model.err = np.ones(setup.shape, np.float32)
        model.dq = np.zeros(setup.shape, np.uint32)
        model.meta.exposure.readpatt = setup.keywords["exposure.readpatt"]

    def fill_dark(model: Any) -> None:
        times = group_s * np.arange(1, n_groups + 1, dtype=np.float32)
        model.data = times[:, None, None] * (setup.maps().dark_dn_s * np.float32(factor))
        model.dq = np.zeros(setup.shape, np.uint32)
        exposure = model.meta.exposure
        exposure.readpatt = setup.keywords["exposure.readpatt"]
        exposure.noutputs = setup.keywords["exposure.noutputs"]
        exposure.nframes, exposure.groupgap, exposure.ngroups = 1, 0, n_groups

    def fill_ipc(model: Any) -> None:
        model.data = np.zeros((3, 3), np.float32)
        model.data[1, 1] = 1.0

    return {
        "superbias": _of_pixels(setup, "SuperBiasModel", fill_superbias),
        "dark": _of_pixels(setup, "DarkModel", fill_dark),
        "ipc": _of_pixels(setup, "IPCModel", fill_ipc),
        "pars-jumpstep": _parameters("pars-jumpstep", factor),
    }


# ---- optics -------------------------------------------------------------------------------------


def imaging_references(*setups: Setup, factor: float = 1.0) -> dict[str, Reference]:
    """Return what calibrates images and makes their mosaic and catalogue.

    The set-ups are of one detector, and have different filters.
    """
    setup = setups[0]
    instrument = _PREFIXES[setup.instrument["name"]]
    maps = setup.maps()
    response = np.where(maps.reference, 1, maps.flat * np.float32(factor))
    return {
        "flat": flat(setup, response),
        "photom": _photom(setups, f"{instrument}ImgPhotomModel", factor),
        "distortion": distortion(setup, factor - 1),
        "filteroffset": of_model("FilteroffsetModel", _filteroffset(setups), ending=".asdf"),
        "apcorr": of_model(f"{instrument}ImgApcorrModel", _apcorr(setups, factor)),
        "abvegaoffset": of_model(
            "ABVegaOffsetModel", _abvegaoffset(setups, factor), ending=".asdf"
        ),
        **{kind: _parameters(kind, factor) for kind in PARAMETERS if kind != "pars-jumpstep"},
    }


def _optics(setup: Setup) -> dict[str, str]:
    return {k: v for k, v in setup.instrument.items() if k in ("filter", "pupil")}


def _table(
    setups: Sequence[Setup], rows_of: Callable[[Setup], Sequence[Mapping[str, float]]]
) -> np.ndarray:
    """Return the rows of set-ups as an array of short words and single floats."""
    rows = []
    for setup in setups:
        optics = [_optics(setup)]
        if setup.instrument["name"] == "MIRI":
            # A mosaic has no subarray.
            optics = [{**optics[0], "subarray": name} for name in (setup.subarray, "GENERIC")]
        rows += [{**words, **numbers} for words in optics for numbers in rows_of(setup)]
    return table_of(rows)


def table_of(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return rows as an array of short words, and of single floats or arrays of these."""
    kinds = [
        (name, _WIDTHS[name]) if name in _WIDTHS else (name, "<f4", np.shape(value))
        for name, value in rows[0].items()
    ]
    return np.array([tuple(row.values()) for row in rows], dtype=kinds)


def fill_photometry(model: Any, setup: Setup) -> None:
    """Say how large a pixel is, and which exposures the calibration is for."""
    model.meta.photometry.pixelarea_steradians = setup.pixel_sr
    model.meta.photometry.pixelarea_arcsecsq = setup.detector.scale_arcsec**2
    model.meta.exposure.type = setup.exp_type


def _photom(setups: Sequence[Setup], model: str, factor: float) -> Reference:
    """Return the factor from DN/s to MJy/sr."""

    def numbers(setup: Setup) -> list[dict[str, float]]:
        return [{"photmjsr": setup.photmjsr * factor, "uncertainty": 0.01 * setup.photmjsr}]

    def fill(model: Any) -> None:
        model.phot_table = _table(setups, numbers)
        fill_photometry(model, setups[0])

    return of_model(model, fill)


def distortion(setup: Setup, shift_arcsec: float = 0.0) -> Reference:
    """Return the geometry of the detector."""

    def fill(model: Any) -> None:
        import astropy.units as u

        model.model = setup.detector.transform(shift_arcsec)
        model.meta.input_units, model.meta.output_units = u.pix, u.arcsec
        exposure = model.meta.exposure
        exposure.type, exposure.p_exptype = setup.exp_type, f"{setup.exp_type}|"
        if "pupil" in setup.instrument:
            model.meta.instrument.p_pupil = f"{setup.instrument['pupil']}|"
        model.meta.title = "Simulated distortion"

    return of_model("DistortionModel", fill, ending=".asdf")


def _filteroffset(setups: Sequence[Setup]) -> Fill:
    def fill(model: Any) -> None:
        model.filters = [{**_optics(s), "column_offset": 0.0, "row_offset": 0.0} for s in setups]
        model.meta.exposure.type = setups[0].exp_type

    return fill


def _apcorr(setups: Sequence[Setup], factor: float) -> Fill:
    def numbers(setup: Setup) -> list[dict[str, float]]:
        # The mosaic adds the widths of the pixel, of the drop, and of its own pixel.
        sigma = np.sqrt(setup.sigma_pix**2 + 4 / 12)
        inner, outer = setup.sky_ring_pix
        return [
            {"eefraction": fraction, "radius": sigma * np.sqrt(-2 * np.log(1 - fraction)),
             "apcorr": factor / fraction, "skyin": inner, "skyout": outer}
            for fraction in np.arange(1, 10) / 10
        ]  # fmt: skip

    def fill(model: Any) -> None:
        model.apcorr_table = _table(setups, numbers)
        model.meta.exposure.type = setups[0].exp_type

    return fill


def _abvegaoffset(setups: Sequence[Setup], factor: float) -> Fill:
    def fill(model: Any) -> None:
        from astropy.table import Table

        rows = [{**_optics(setup), "abvega_offset": setup.abvega * factor} for setup in setups]
        model.abvega_offset = Table(rows)

    return fill


# Groups of the dark of small frames; others have as many as the exposure.
DARK_GROUPS = 12

_INFO = "sandbox.json"
_DETECTOR, _FRAME = "META.INSTRUMENT.DETECTOR", "META.SUBARRAY.NAME"
_READPATT = "META.EXPOSURE.READPATT"
_OPTICS = ("META.INSTRUMENT.FILTER", "META.INSTRUMENT.PUPIL")
# What the rules of each type match on.
_PARKEYS: dict[str, tuple[str, ...]] = {
    "mask": (_DETECTOR, _FRAME),
    "saturation": (_DETECTOR, _FRAME),
    "superbias": (_DETECTOR, _READPATT, _FRAME),
    "linearity": (_DETECTOR, _FRAME),
    "dark": (_DETECTOR, _READPATT, _FRAME),
    "gain": (_DETECTOR, _FRAME),
    "readnoise": (_DETECTOR, _READPATT, _FRAME),
    "ipc": (_DETECTOR, _FRAME),
    "flat": (_DETECTOR, *_OPTICS, _FRAME),
    "photom": (_DETECTOR,),
    "apcorr": (_DETECTOR,),
    "distortion": (_DETECTOR,),
    "filteroffset": (_DETECTOR, "META.INSTRUMENT.CHANNEL", "META.INSTRUMENT.MODULE"),
    "abvegaoffset": (_DETECTOR,),
    **dict.fromkeys(PARAMETERS, ("META.EXPOSURE.TYPE",)),
}
# The reference types that have files.
KINDS = tuple(_PARKEYS)


def _references(size: int, groups: int, version: int) -> dict[str, list[Reference]]:
    """Return the references of a version, by type, one for each detector."""
    factor = 1 + 1e-3 * (version - 1)
    references: dict[str, list[Reference]] = {kind: [] for kind in KINDS}
    for detector in ("NRCALONG", "NRCA1"):
        names = [name for name, row in FILTERS.items() if row.detector == detector]
        setups = [sky_setup(name, size, groups) for name in names]
        files = {
            **ramp_references(setups[0], factor),
            **uneven_references(setups[0], FRAME_TIME_S, groups, factor),
            **imaging_references(*setups, factor=factor),
        }
        of_all = setups[0].of_detector
        for kind, reference in files.items():
            keys = tuple(dict.fromkeys(_key(kind, setup) for setup in setups))
            if kind not in PARAMETERS:
                references[kind].append(replace(reference, keys=keys, instrument=of_all))
            else:
                # The same for all detectors.
                references[kind] = [replace(reference, keys=keys, instrument={"name": "NIRCAM"})]
    return references


def _key(kind: str, setup: Setup) -> tuple[str, ...]:
    """Return what an exposure must have to be served, in the order of the rules."""
    instrument = {f"META.INSTRUMENT.{k.upper()}": v for k, v in setup.instrument.items()}
    values = {
        **instrument,
        _FRAME: setup.subarray,
        _READPATT: READPATT,
        "META.EXPOSURE.TYPE": setup.exp_type,
    }
    return tuple(values[name] for name in _PARKEYS[kind])


def _write(root: Path, kinds: Sequence[str], size: int, groups: int, version: int) -> str:
    """Write references of some types in a version, and the context that has them."""
    references = _references(size, groups, version)
    rules = {kind: f"jwst_nircam_{kind}_0001.rmap" for kind in KINDS}
    for kind in kinds:
        entries = references[kind]
        rules[kind] = write_kind(root, "NIRCAM", kind, entries, _PARKEYS[kind], version=version)
    return write_context(root, "NIRCAM", rules, number=version)


def write_cache(root: Path, size: int, groups: int) -> None:
    """Write a cache that serves frames of one size, with the context ``jwst_0001.pmap``."""
    lay_out(root, "NIRCAM")
    _write(root, KINDS, size, groups, 1)
    info = {"size": size, "groups": groups, "changed": [[]]}
    (root / _INFO).write_text(json.dumps(info))


def check_cache(root: Path, size: int, groups: int) -> None:
    """Refuse a folder that does not serve frames of a size, or ramps of a length."""
    info = root / _INFO
    if not info.exists():
        if not any(root.iterdir()):
            # To be filled: what is written takes its place.
            root.rmdir()
            return
        msg = f"crds_path='{root}' holds other files: give a new folder."
        raise InvalidRequestError(msg, parameter="crds_path", value=str(root))
    there = json.loads(info.read_text())
    if there["size"] != size or there["groups"] < groups:
        msg = (
            f"crds_path='{root}' serves {there['size']} pixels and {there['groups']} groups, not "
            f"{size} and {groups}: give a new folder."
        )
        raise InvalidRequestError(msg, parameter="crds_path", value=str(root))


def add_context(root: Path, changed: Sequence[str]) -> str:
    """Write a further context, in which some reference types have other files."""
    wrong = sorted(set(changed) - set(KINDS))
    if wrong or not changed:
        msg = f"changed={tuple(changed)!r}: give some of {', '.join(KINDS)}."
        raise InvalidRequestError(msg, parameter="changed", value=changed)
    info = json.loads((root / _INFO).read_text())
    kinds = sorted(set(changed))
    if kinds in info["changed"]:
        return f"jwst_{info['changed'].index(kinds) + 1:04d}.pmap"
    name = _write(root, kinds, info["size"], info["groups"], len(info["changed"]) + 1)
    info["changed"].append(kinds)
    partial = root / f".{_INFO}.{os.getpid()}"
    partial.write_text(json.dumps(info))
    os.replace(partial, root / _INFO)
    return name
