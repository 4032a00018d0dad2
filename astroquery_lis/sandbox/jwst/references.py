"""The reference files of the simulated detectors, as `stdatamodels` writes them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...exceptions import InvalidRequestError
from .crds_files import USEAFTER, lay_out, write_context, write_rules
from .detector import DETECTORS, ELECTRONICS, SATURATION_DN, detector_maps, first_pixel
from .scene import FILTERS, Filter

if TYPE_CHECKING:
    from stdatamodels.jwst.datamodels import JwstDataModel

# Groups of the dark of small frames; others have as many as the exposure.
DARK_GROUPS = 12

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


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a reference file is for; the factor is 1 in its first version."""

    detector: str
    size: int
    groups: int
    timing: dict
    factor: float


def pixel_sr(detector: str) -> float:
    """Return the solid angle of a pixel of a detector, sr."""
    return np.radians(DETECTORS[detector].scale_arcsec / 3600) ** 2


def write_reference(
    path: Path, kind: str, detector: str, size: int, groups: int, timing: dict, version: int = 1
) -> None:
    """Write one reference file."""
    if kind in PARAMETERS:
        _write_parameters(path, kind, version)
        return
    from stdatamodels.jwst import datamodels

    name, fill = _MODELS[kind]
    model = getattr(datamodels, name)()
    frame = _Frame(detector, size, groups, timing, 1 + 1e-3 * (version - 1))
    _fill_header(model, kind, frame, version)
    fill(model, frame)
    model.save(str(path))
    model.close()


def _fill_header(model: JwstDataModel, kind: str, frame: _Frame, version: int) -> None:
    meta, row = model.meta, DETECTORS[frame.detector]
    meta.telescope, meta.reftype = "JWST", kind.upper()
    meta.author, meta.pedigree = "astroquery_lis.sandbox", "DUMMY"
    meta.useafter = USEAFTER
    meta.description = f"Simulated {kind}, version {version}; not for real data"
    meta.instrument.name, meta.instrument.detector = "NIRCAM", frame.detector
    meta.instrument.channel, meta.instrument.module = row.channel, row.module
    if kind in _IMAGES:
        first = first_pixel(frame.size) + 1
        meta.subarray = {
            "name": frame.timing["subarray"],
            "xstart": first,
            "ystart": first,
            "xsize": frame.size,
            "ysize": frame.size,
            "fastaxis": -1,
            "slowaxis": 2,
        }


def _dq_def() -> np.ndarray:
    rows = [(bit, 1 << bit, name, text) for bit, name, text in _DQ]
    kinds = [("BIT", "<i4"), ("VALUE", "<u4"), ("NAME", "U40"), ("DESCRIPTION", "U80")]
    return np.array(rows, dtype=kinds)


def _fill_mask(model: JwstDataModel, frame: _Frame) -> None:
    from stdatamodels.jwst.datamodels import dqflags

    maps, bits = detector_maps(frame.detector, frame.size), dqflags.pixel
    bad = np.uint32(bits["DO_NOT_USE"] | bits["DEAD"])
    model.dq = maps.bad * bad + maps.reference * np.uint32(bits["REFERENCE_PIXEL"])
    if frame.factor != 1:
        model.dq[frame.size // 4, frame.size // 4] = bad
    model.dq_def = _dq_def()


def _fill_saturation(model: JwstDataModel, frame: _Frame) -> None:
    model.data = np.full((frame.size, frame.size), SATURATION_DN * frame.factor, np.float32)
    model.dq = np.zeros((frame.size, frame.size), np.uint32)
    model.dq_def = _dq_def()


def _fill_superbias(model: JwstDataModel, frame: _Frame) -> None:
    model.data = detector_maps(frame.detector, frame.size).bias_dn * np.float32(frame.factor)
    model.err = np.ones((frame.size, frame.size), np.float32)
    model.dq = np.zeros((frame.size, frame.size), np.uint32)
    model.dq_def = _dq_def()
    model.meta.exposure.readpatt = frame.timing["readpatt"]


def _fill_linearity(model: JwstDataModel, frame: _Frame) -> None:
    square = detector_maps(frame.detector, frame.size).linearity * np.float32(frame.factor)
    model.coeffs = np.stack([np.zeros_like(square), np.ones_like(square), square])
    model.dq = np.zeros((frame.size, frame.size), np.uint32)
    model.dq_def = _dq_def()


def _fill_dark(model: JwstDataModel, frame: _Frame) -> None:
    times = frame.timing["group_time"] * np.arange(1, frame.groups + 1, dtype=np.float32)
    dark = detector_maps(frame.detector, frame.size).dark_dn_s * np.float32(frame.factor)
    model.data = times[:, None, None] * dark
    model.dq = np.zeros((frame.size, frame.size), np.uint32)
    model.dq_def = _dq_def()
    exposure = model.meta.exposure
    exposure.readpatt = frame.timing["readpatt"]
    exposure.nframes, exposure.groupgap, exposure.ngroups = 1, 0, frame.groups
    exposure.noutputs = frame.timing["noutputs"]


def _fill_gain(model: JwstDataModel, frame: _Frame) -> None:
    model.data = np.full(
        (frame.size, frame.size), ELECTRONICS[frame.detector].gain * frame.factor, np.float32
    )


def _fill_readnoise(model: JwstDataModel, frame: _Frame) -> None:
    parts = ELECTRONICS[frame.detector]
    # The noise of a difference of two reads.
    noise = np.sqrt(2) * parts.read_noise_e / parts.gain * frame.factor
    model.data = np.full((frame.size, frame.size), noise, np.float32)
    model.meta.exposure.readpatt = frame.timing["readpatt"]


def _fill_ipc(model: JwstDataModel, frame: _Frame) -> None:
    model.data = np.zeros((3, 3), np.float32)
    model.data[1, 1] = 1.0


def _fill_flat(model: JwstDataModel, frame: _Frame) -> None:
    maps = detector_maps(frame.detector, frame.size)
    model.data = np.where(maps.reference, 1, maps.flat * np.float32(frame.factor)).astype(
        np.float32
    )
    model.err = np.full((frame.size, frame.size), 1e-3, np.float32)
    model.dq = np.zeros((frame.size, frame.size), np.uint32)
    model.dq_def = _dq_def()
    model.meta.instrument.pupil = "CLEAR"


def _filters(detector: str) -> dict[str, Filter]:
    return {name: row for name, row in FILTERS.items() if row.detector == detector}


def _fill_photom(model: JwstDataModel, frame: _Frame) -> None:
    rows = [
        (name, "CLEAR", row.photmjsr * frame.factor, 0.01 * row.photmjsr)
        for name, row in _filters(frame.detector).items()
    ]
    kinds = [("filter", "S12"), ("pupil", "S12"), ("photmjsr", "<f4"), ("uncertainty", "<f4")]
    model.phot_table = np.array(rows, dtype=kinds)
    model.meta.photometry.pixelarea_steradians = pixel_sr(frame.detector)
    model.meta.photometry.pixelarea_arcsecsq = DETECTORS[frame.detector].scale_arcsec ** 2
    model.meta.exposure.type = "NRC_IMAGE"


def _fill_apcorr(model: JwstDataModel, frame: _Frame) -> None:
    scale = DETECTORS[frame.detector].scale_arcsec
    rows = []
    for name, row in _filters(frame.detector).items():
        # The mosaic adds the widths of the pixel, of the drop, and of its own pixel.
        sigma = np.sqrt((row.sigma_arcsec / scale) ** 2 + 4 / 12)
        for fraction in np.arange(1, 10) / 10:
            radius = sigma * np.sqrt(-2 * np.log(1 - fraction))
            rows.append((name, "CLEAR", fraction, radius, frame.factor / fraction, 12.0, 16.0))
    numbers = ("eefraction", "radius", "apcorr", "skyin", "skyout")
    kinds = [("filter", "S12"), ("pupil", "S15"), *((column, "<f4") for column in numbers)]
    model.apcorr_table = np.array(rows, dtype=kinds)
    model.meta.exposure.type = "NRC_IMAGE"


def _fill_distortion(model: JwstDataModel, frame: _Frame) -> None:
    import astropy.units as u

    # A later version lies 1 mas elsewhere.
    model.model = DETECTORS[frame.detector].transform(shift_arcsec=frame.factor - 1)
    model.meta.input_units, model.meta.output_units = u.pix, u.arcsec
    model.meta.exposure.type = "NRC_IMAGE"
    model.meta.exposure.p_exptype = "NRC_IMAGE|"
    model.meta.instrument.p_pupil = "CLEAR|"
    model.meta.title = "Simulated distortion"


def _fill_filteroffset(model: JwstDataModel, frame: _Frame) -> None:
    model.filters = [
        {"filter": name, "pupil": "CLEAR", "column_offset": 0.0, "row_offset": 0.0}
        for name in _filters(frame.detector)
    ]
    model.meta.exposure.type = "NRC_IMAGE"


def _fill_abvegaoffset(model: JwstDataModel, frame: _Frame) -> None:
    from astropy.table import Table

    own = _filters(frame.detector)
    model.abvega_offset = Table(
        {
            "filter": list(own),
            "pupil": ["CLEAR"] * len(own),
            "abvega_offset": [row.abvega * frame.factor for row in own.values()],
        }
    )


# By reference type with pixels: the class of the model, and what fills it.
_IMAGES = {
    "mask": ("MaskModel", _fill_mask),
    "saturation": ("SaturationModel", _fill_saturation),
    "superbias": ("SuperBiasModel", _fill_superbias),
    "linearity": ("LinearityModel", _fill_linearity),
    "dark": ("DarkModel", _fill_dark),
    "gain": ("GainModel", _fill_gain),
    "readnoise": ("ReadnoiseModel", _fill_readnoise),
    "ipc": ("IPCModel", _fill_ipc),
    "flat": ("FlatModel", _fill_flat),
}
_MODELS = _IMAGES | {
    "photom": ("NrcImgPhotomModel", _fill_photom),
    "apcorr": ("NrcImgApcorrModel", _fill_apcorr),
    "distortion": ("DistortionModel", _fill_distortion),
    "filteroffset": ("FilteroffsetModel", _fill_filteroffset),
    "abvegaoffset": ("ABVegaOffsetModel", _fill_abvegaoffset),
}
# The reference types that have files.
KINDS = (*_MODELS, *PARAMETERS)


def _write_parameters(path: Path, kind: str, version: int) -> None:
    import asdf

    name, values = PARAMETERS[kind]
    short = name.rpartition(".")[2]
    values = dict(values)
    if version > 1:
        name_of = next((key for key, value in values.items() if isinstance(value, float)), None)
        if name_of is None:
            values["snr"] = f"{5 + 1e-3 * (version - 1):g} 4.0"
        else:
            values[name_of] *= 1 + 1e-3 * (version - 1)
    meta = {
        "author": "astroquery_lis.sandbox",
        "date": USEAFTER,
        "description": f"Simulated parameters, version {version}",
        "instrument": {"name": "NIRCAM"},
        "origin": "astroquery_lis.sandbox",
        "pedigree": "DUMMY",
        "reftype": kind,
        "telescope": "JWST",
        "useafter": USEAFTER,
    }
    tree = {"class": name, "name": short, "meta": meta, "parameters": values}
    asdf.AsdfFile(tree).write_to(str(path))


_INSTRUMENT = "NIRCAM"
_INFO = "sandbox.json"
# What the rules of each type match on, after the detector.
_PARKEYS = {
    "mask": ("META.SUBARRAY.NAME",),
    "saturation": ("META.SUBARRAY.NAME",),
    "superbias": ("META.EXPOSURE.READPATT", "META.SUBARRAY.NAME"),
    "linearity": ("META.SUBARRAY.NAME",),
    "dark": ("META.EXPOSURE.READPATT", "META.SUBARRAY.NAME"),
    "gain": ("META.SUBARRAY.NAME",),
    "readnoise": ("META.EXPOSURE.READPATT", "META.SUBARRAY.NAME"),
    "ipc": ("META.SUBARRAY.NAME",),
    "flat": ("META.INSTRUMENT.FILTER", "META.INSTRUMENT.PUPIL", "META.SUBARRAY.NAME"),
    "filteroffset": ("META.INSTRUMENT.CHANNEL", "META.INSTRUMENT.MODULE"),
}


def write_cache(root: Path, size: int, groups: int, timing: dict) -> None:
    """Write a cache that serves frames of one size, with the context ``jwst_0001.pmap``."""
    lay_out(root, _INSTRUMENT)
    names = {kind: _write_kind(root, kind, size, groups, timing, number=1) for kind in KINDS}
    write_context(root, _INSTRUMENT, names)
    info = {"size": size, "groups": groups, "timing": timing, "changed": [[]]}
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
    number = len(info["changed"]) + 1
    arguments = (info["size"], info["groups"], info["timing"])
    names = {kind: f"jwst_nircam_{kind}_0001.rmap" for kind in KINDS}
    names |= {kind: _write_kind(root, kind, *arguments, number=number) for kind in kinds}
    name = write_context(root, _INSTRUMENT, names, number=number)
    info["changed"].append(kinds)
    partial = root / f".{_INFO}.{os.getpid()}"
    partial.write_text(json.dumps(info))
    os.replace(partial, root / _INFO)
    return name


def _file_detectors(kind: str) -> list[str]:
    return ["NRCALONG"] if kind in PARAMETERS else list(DETECTORS)


def _write_kind(root: Path, kind: str, size: int, groups: int, timing: dict, number: int) -> str:
    """Write the files of one type and its rules; return the name of these."""
    suffix = ".fits"
    if kind in PARAMETERS or kind in ("distortion", "filteroffset", "abvegaoffset"):
        suffix = ".asdf"
    rules = {}
    folder = root / "references" / "jwst" / "nircam"
    for index, detector in enumerate(_file_detectors(kind)):
        serial = (number - 1) * len(DETECTORS) + index + 1
        name = f"jwst_nircam_{kind}_{serial:04d}{suffix}"
        write_reference(folder / name, kind, detector, size, groups, timing, number)
        for key in _keys(kind, detector, timing):
            rules[key] = name
    return write_rules(root, _INSTRUMENT, kind, _parkeys(kind), rules, number=number)


def _parkeys(kind: str) -> tuple[str, ...]:
    if kind in PARAMETERS:
        return ("META.EXPOSURE.TYPE",)
    return ("META.INSTRUMENT.DETECTOR", *_PARKEYS.get(kind, ()))


def _keys(kind: str, detector: str, timing: dict) -> list[tuple[str, ...]]:
    if kind in PARAMETERS:
        return [("NRC_IMAGE",)]
    row = DETECTORS[detector]
    values = {
        "META.SUBARRAY.NAME": timing["subarray"],
        "META.EXPOSURE.READPATT": timing["readpatt"],
        "META.INSTRUMENT.PUPIL": "CLEAR",
        "META.INSTRUMENT.CHANNEL": row.channel,
        "META.INSTRUMENT.MODULE": row.module,
    }
    filters = [name for name, one in FILTERS.items() if one.detector == detector]
    parkeys = _PARKEYS.get(kind, ())
    if "META.INSTRUMENT.FILTER" not in parkeys:
        return [(detector, *(values[key] for key in parkeys))]
    return [
        (detector, *({**values, "META.INSTRUMENT.FILTER": name}[key] for key in parkeys))
        for name in filters
    ]
