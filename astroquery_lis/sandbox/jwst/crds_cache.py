"""A CRDS cache: mappings, reference files and what a server would have said of itself."""

import hashlib
import json
import os
import pprint

from ...exceptions import InvalidRequestError
from .geometry import DETECTORS
from .references import KINDS, PARAMETERS, write_reference
from .scene import FILTERS

__all__ = ["CONTEXT", "add_context", "check_cache", "write_cache"]

CONTEXT = "jwst_0001.pmap"
"""The context that a cache begins with."""

_INFO = "sandbox.json"
_WHEN = "2014-01-01 00:00:00"
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


def write_cache(root, size, groups, timing):
    """Write a cache that serves frames of one size, with the context ``jwst_0001.pmap``.

    Parameters
    ----------
    root : `~pathlib.Path`
        An empty folder.
    size : int
        Side of the frames, pixels.
    groups : int
        Groups of the darks.
    timing : dict
        As for `~.references.write_reference`.
    """
    folders = [root / part / "jwst" for part in ("config", "mappings", "references")]
    for folder in folders:
        folder.mkdir(parents=True)
    (folders[2] / "nircam").mkdir()
    names = {kind: _write_kind(root, kind, size, groups, timing, number=1) for kind in KINDS}
    _write_context(root, names, 1)
    (folders[0] / "server_config").write_text(pprint.pformat(_server_config()) + "\n")
    (folders[0] / "ref_cache_subdir_mode").write_text("instrument")
    info = {"size": size, "groups": groups, "timing": timing, "changed": [[]]}
    (root / _INFO).write_text(json.dumps(info))


def check_cache(root, size, groups):
    """Refuse a folder that does not serve frames of a size, or ramps of a length.

    Parameters
    ----------
    root : `~pathlib.Path`
        A folder.
    size, groups : int
        Side of the frames, and their groups.
    """
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


def add_context(root, changed):
    """Write a further context, in which some reference types have other files.

    Parameters
    ----------
    root : `~pathlib.Path`
        A folder of `write_cache` that nobody else is adding to.
    changed : sequence of str
        Reference types.

    Returns
    -------
    str
        Name of the context; one that has just these changes is not made again.
    """
    wrong = sorted(set(changed) - set(KINDS))
    if wrong or not changed:
        msg = f"changed={tuple(changed)!r}: give some of {', '.join(KINDS)}."
        raise InvalidRequestError(msg, parameter="changed", value=changed)
    info = json.loads((root / _INFO).read_text())
    wanted = sorted(set(changed))
    if wanted in info["changed"]:
        return f"jwst_{info['changed'].index(wanted) + 1:04d}.pmap"
    number = len(info["changed"]) + 1
    arguments = (info["size"], info["groups"], info["timing"])
    names = {kind: f"jwst_nircam_{kind}_0001.rmap" for kind in KINDS}
    names |= {kind: _write_kind(root, kind, *arguments, number=number) for kind in wanted}
    name = _write_context(root, names, number)
    info["changed"].append(wanted)
    partial = root / f".{_INFO}.{os.getpid()}"
    partial.write_text(json.dumps(info))
    os.replace(partial, root / _INFO)
    return name


def _file_detectors(kind):
    return ["NRCALONG"] if kind in PARAMETERS else list(DETECTORS)


def _write_kind(root, kind, size, groups, timing, number):
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
    parkeys = _parkeys(kind)
    lines = [
        f"    {key!r} : UseAfter({{\n        {_WHEN!r} : {name!r},\n    }}),\n"
        for key, name in sorted(rules.items())
    ]
    header = {
        "classes": ("Match", "UseAfter"),
        "derived_from": "generated by hand",
        "filekind": kind.upper(),
        "instrument": "NIRCAM",
        "mapping": "REFERENCE",
        "name": f"jwst_nircam_{kind}_{number:04d}.rmap",
        "observatory": "JWST",
        "parkey": (parkeys, ("META.OBSERVATION.DATE", "META.OBSERVATION.TIME")),
    }
    selector = "selector = Match({\n" + "".join(lines) + "})\n"
    _write_mapping(root, header, selector)
    return header["name"]


def _parkeys(kind):
    if kind in PARAMETERS:
        return ("META.EXPOSURE.TYPE",)
    return ("META.INSTRUMENT.DETECTOR", *_PARKEYS.get(kind, ()))


def _keys(kind, detector, timing):
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


def _write_context(root, names, number):
    """Write the two upper mappings; a type without rules does not apply."""
    from crds.jwst import FILEKINDS

    selector = {kind.upper(): "N/A" for kind in FILEKINDS}
    selector |= {kind.upper(): name for kind, name in names.items()}
    common = {"derived_from": "generated by hand", "observatory": "JWST"}
    imap = {
        **common,
        "instrument": "NIRCAM",
        "mapping": "INSTRUMENT",
        "name": f"jwst_nircam_{number:04d}.imap",
        "parkey": ("REFTYPE",),
    }
    _write_mapping(root, imap, f"selector = {pprint.pformat(selector)}\n")
    pmap = {
        **common,
        "mapping": "PIPELINE",
        "name": f"jwst_{number:04d}.pmap",
        "parkey": ("META.INSTRUMENT.NAME",),
    }
    _write_mapping(root, pmap, f"selector = {pprint.pformat({'NIRCAM': imap['name']})}\n")
    return pmap["name"]


def _write_mapping(root, header, selector):
    """Write a mapping with the checksum of all its other lines."""
    lines = [f"    {key!r} : {value!r},\n" for key, value in sorted(header.items())]
    head, tail = "header = {\n" + "".join(lines), "}\n\n" + selector
    digest = hashlib.sha1((head + tail).encode()).hexdigest()
    path = root / "mappings" / "jwst" / header["name"]
    path.write_text(f"{head}    'sha1sum' : {digest!r},\n{tail}")


def _server_config():
    context = CONTEXT
    return {
        "bad_files_list": [],
        "build_context": context,
        "connected": False,
        "crds_version": {"str": "14.0.3"},
        "edit_context": context,
        "force_remote_mode": False,
        "last_synced": "2024-01-01 00:00:00",
        "latest_context": context,
        "mapping_url": {"unchecked": ""},
        "mappings": [],
        "observatory": "jwst",
        "operational_context": context,
        "reference_url": {"unchecked": ""},
        "status": "cache",
    }
