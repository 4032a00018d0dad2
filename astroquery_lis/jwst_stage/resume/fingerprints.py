"""What decides on a product, so that it is made again when that changes and only then.

A fingerprint is a dictionary of JSON types.  `KEYED` are its parts that decide; the others are
noted so that a change can be told in words, or foreseen without asking CRDS.

Every file that the pipeline writes holds the time at which it was written: in the card ``DATE`` of
its headers and in the tree that its ASDF extension keeps.  Digests pass over both, over the
checksums of headers, which cover it, and over the history of the tree: the software that wrote it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from ...exceptions import TruncatedError, UnexpectedContentError
from ...io.checks import CARD_BYTES, HEAD_BYTES, fits_headers
from ..steps.parameters import OWNED
from ..tasks import HIDDEN, input_path
from .records import FileMemo, Record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from hashlib import _Hash
    from typing import Any, BinaryIO

    from ..._typing import FilePath
    from ..refs.references import Resolution
    from ..tasks import Reduction, Task

KEYED = (
    "kind",
    "pipeline",
    "inputs",
    "association",
    "parameters",
    "files",
    "references",
    "corrections",
    "versions",
)
"""Parts of a fingerprint that decide on the product."""

UNHEEDED = frozenset(OWNED) | {"in_memory", "save_results"}
"""Parameters that change how a step works and not what comes out."""

_PACKAGES = ("jwst", "stcal", "stdatamodels")
# Of an association: what ends up in the product, or decides on the roles of its members.
_ASSOCIATION = ("asn_type", "asn_rule", "program", "target", "asn_id", "product", "product_name")


def key(fingerprint: Mapping[str, Any]) -> str:
    """Return the digest of the parts of a fingerprint that decide on the product."""
    parts = {name: fingerprint.get(name) for name in KEYED}
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Fingerprints:
    """The fingerprints of the tasks of a reduction, each made once.

    Without a resolution the references and parameters of the records are taken to hold still, with
    what was asked since put in.
    """

    def __init__(self, reduction: Reduction, records: Mapping[str, Record] | None = None) -> None:
        self._tasks = {task.name: task for task in reduction.plan.tasks}
        self._resolution, self._output_dir = reduction.resolution, reduction.output_dir
        self._records = records or {}
        self._memo = FileMemo(self._output_dir / HIDDEN / "digests.json", content_digest)
        self._parts: dict[str, dict] = {}
        self._keys: dict[str, str] = {}
        self._versions = versions()

    def of(self, name: str) -> dict:
        """Return the fingerprint of a task."""
        if name not in self._parts:
            self._parts[name] = self._make(self._tasks[name])
            self._keys[name] = key(self._parts[name])
        return self._parts[name]

    def save(self) -> None:
        """Keep the digests of input files for the next time, if the output directory is there."""
        if self._output_dir.is_dir():
            self._memo.save()

    def _make(self, task: Task) -> dict:
        asked, files = self._with_files(task.steps)
        parts = {
            "kind": task.kind,
            "pipeline": task.pipeline,
            "inputs": {self._called(name): self._digest(name) for name in task.inputs},
            "association": self._association(task),
            "files": files,
            "corrections": [_correction(correction) for correction in task.corrections],
            "versions": self._versions,
            "steps": asked,
        }
        if task.kind != "pipeline":
            names = ("parameters", "references", "base", "parameter_references")
            return {**parts, **{name: {} for name in names}, "context": ""}
        if self._resolution is not None:
            return {**parts, **_resolved(self._resolution, task, asked)}
        return {**parts, **self._foreseen(task, asked)}

    def _called(self, name: str) -> str:
        """Return what to call an input: files may be moved, products stay where they are."""
        return self._inside(name) or os.path.basename(name)

    def _inside(self, name: str) -> str:
        """Return the name of the task that makes an input, or made it in an earlier run."""
        if name in self._tasks:
            return name
        root = os.path.join(os.path.abspath(self._output_dir), "")
        inside = name[len(root) :].replace(os.sep, "/") if name.startswith(root) else ""
        record = self._records.get(inside)
        return inside if record is not None and record.state == "done" else ""

    def _digest(self, name: str) -> str:
        if name in self._tasks:
            self.of(name)
            return self._keys[name]
        path = input_path(name, self._output_dir)
        try:
            inside = self._inside(name)
            if inside and _is_untouched(path, inside, self._records[inside]):
                return key(self._records[inside].fingerprint)
            return self._memo.get(path)
        except OSError:
            return ""

    def _association(self, task: Task) -> dict:
        if not task.members:
            return {}
        values = {name: task.association[name] for name in _ASSOCIATION if name in task.association}
        members = [
            [self._called(m.input), m.exptype, m.group_id, *([m.file] if m.file else [])]
            for m in task.members
        ]
        return {**values, "members": members}

    def _with_files(self, steps: Mapping[str, Mapping[str, Any]]) -> tuple[dict, dict]:
        """Return parameters with the names of files for their paths, and the files' digests."""
        named: dict[str, dict] = {}
        files: dict[str, str] = {}
        for step, values in steps.items():
            for name, value in values.items():
                path = Path(value) if isinstance(value, str) and value.startswith("/") else None
                if path is not None and path.is_file():
                    files[f"{step}.{name}"] = self._memo.get(path)
                    value = path.name
                named.setdefault(step, {})[name] = value
        return named, files

    def _foreseen(self, task: Task, asked: Mapping[str, dict]) -> dict:
        """Return what the record has, with what was asked since in place of what was asked then."""
        record = self._records.get(task.name)
        before = record.fingerprint if record is not None else {}
        parameters = {step: dict(values) for step, values in before.get("parameters", {}).items()}
        base = before.get("base", {})
        for step, values in before.get("steps", {}).items():
            for name in values:
                parameters.setdefault(step, {})[name] = base.get(step, {}).get(name)
        for step, values in asked.items():
            parameters.setdefault(step, {}).update(values)
        return {
            "parameters": _heeded(parameters),
            "references": before.get("references", {}),
            "base": base,
            "parameter_references": before.get("parameter_references", {}),
            "context": before.get("context", ""),
        }


def _resolved(resolution: Resolution, task: Task, asked: Mapping[str, dict]) -> dict:
    effective = resolution.parameters.get(task.name, {})
    base = resolution.base.get(task.name, {})
    pars = resolution.parameter_references.get(task.name, {})
    merged = {step: {**values, **asked.get(step, {})} for step, values in effective.items()}
    return {
        "parameters": _heeded(merged),
        "references": {
            reftype: [entry["name"], entry["sha1"]]
            for reftype, entry in resolution.references.get(task.name, {}).items()
        },
        "base": {
            step: {name: base.get(step, {}).get(name) for name in values}
            for step, values in asked.items()
        },
        "parameter_references": {
            reftype: entry["name"] for reftype, entry in pars.items() if entry["name"] != "N/A"
        },
        "context": resolution.context,
    }


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Return the versions of the packages that decide on a product; empty if not installed."""
    installed = dict.fromkeys(_PACKAGES, "")
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            installed[package] = version(package)
    return installed


def _is_untouched(path: Path, name: str, record: Record) -> bool:
    """Tell whether a product is still as its record says."""
    status = path.stat()
    return any(
        product["file"] == name
        and (product["bytes"], product["mtime_ns"]) == (status.st_size, status.st_mtime_ns)
        for product in record.products
    )


def _correction(correction: Mapping[str, Any]) -> dict:
    """Return what decides: the digest covers code, parameters and the files among these."""
    parts = {name: correction.get(name) for name in ("name", "point", "suffix", "digest")}
    return {**parts, "parameters": dict(correction.get("parameters") or {})}


def _heeded(parameters: Mapping[str, Mapping[str, Any]]) -> dict:
    """Return the parameters that decide: of a skipped step only that it is."""
    heeded = {}
    for step, values in parameters.items():
        if values.get("skip"):
            heeded[step] = {"skip": True}
        else:
            heeded[step] = {name: value for name, value in values.items() if name not in UNHEEDED}
    return heeded


# Digests of files, whenever they were written.

ASDF_CARD = b"EXTNAME = 'ASDF"
"""Begins a card of the header of the extension that holds the tree of a data model."""

_CHUNK_BYTES = 1 << 20
_PASSED_OVER = (b"DATE    ", b"CHECKSUM", b"DATASUM ")
_TREE_PASSED_OVER = (b"history", b"asdf_library", b"_fits_hash")
_NEW_KEY = re.compile(rb"[^\s#]")
_META_DATE = re.compile(rb"  date:")


def content_digest(path: FilePath) -> str:
    """Return the sha256 of what a file says, whenever it was written."""
    digest, end = hashlib.sha256(), 0
    with open(path, "rb") as stream:
        if stream.read(HEAD_BYTES).startswith(b"SIMPLE  ="):
            # What is no whole HDU counts by its bytes, as do other files.
            with suppress(TruncatedError, UnexpectedContentError):
                for header, end in fits_headers(stream, os.fspath(path)):
                    _add_hdu(header, stream, end, digest)
        stream.seek(end)
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _add_hdu(header: bytes, stream: BinaryIO, end: int, digest: _Hash) -> None:
    """Add one HDU to the digest: its header, and its data, at which the stream stands."""
    cards = [header[at : at + CARD_BYTES] for at in range(0, len(header), CARD_BYTES)]
    if ASDF_CARD in header:
        # How far the last block is filled up depends on what is passed over.
        _add_tree(stream.read(end - stream.tell()).rstrip(b"\0"), digest)
        return
    for card in cards:
        if card.strip() and not card.startswith(_PASSED_OVER):
            digest.update(card)
    while chunk := stream.read(min(_CHUNK_BYTES, end - stream.tell())):
        digest.update(chunk)


def _add_tree(data: bytes, digest: _Hash) -> None:
    """Add an ASDF file: its tree without history and date of writing, its blocks as they are."""
    text, marker, blocks = data.partition(b"\n...\n")
    section = b""
    for line in text.split(b"\n"):
        if line.startswith(b"#"):
            continue
        if _NEW_KEY.match(line):
            section = line.partition(b":")[0]
        if section in _TREE_PASSED_OVER:
            continue
        if section == b"meta" and _META_DATE.match(line):
            continue
        digest.update(line.rstrip() + b"\n")
    digest.update(marker)
    digest.update(blocks)
