"""The CRDS cache of the simulated NIRCam detectors, and its contexts."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...exceptions import InvalidRequestError
from .crds_files import Reference, lay_out, write_context, write_kind
from .reference_files import (
    PARAMETERS,
    imaging_references,
    ramp_references,
    uneven_references,
)
from .scene import FILTERS
from .setups import FRAME_TIME_S, READPATT, Setup, sky_setup

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
