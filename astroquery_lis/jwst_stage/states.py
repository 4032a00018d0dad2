"""What decides on a product; what is done still, what has to be made again, and why.

A fingerprint is a dictionary of JSON types.  `KEYED` are its parts that decide; the others are
noted so that a change can be told in words, or foreseen without asking CRDS.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from ..io.whole_files import sha256_of
from .parameters import UNHEEDED
from .tasks import HIDDEN, FileMemo, Record, content_digest, input_path, read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from typing import Any

    from .references import Resolution
    from .tasks import Reduction, Task


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
        self.records = records or {}
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

    def renew(self, task: Task) -> dict:
        """Return the fingerprint of a task that is about to begin, by the files of now.

        What it is made of keeps the fingerprint that it was made or found with.
        """
        self._tasks[task.name] = task
        self._parts.pop(task.name, None)
        return self.of(task.name)

    def key_of(self, name: str) -> str:
        """Return the key of the fingerprint of a task."""
        self.of(name)
        return self._keys[name]

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
        record = self.records.get(inside)
        return inside if record is not None and record.state == "done" else ""

    def _digest(self, name: str) -> str:
        if name in self._tasks:
            return self.key_of(name)
        path = input_path(name, self._output_dir)
        try:
            inside = self._inside(name)
            if inside and _is_untouched(path, inside, self.records[inside]):
                return key(self.records[inside].fingerprint)
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
                if _is_file(value):
                    files[f"{step}.{name}"] = self._memo.get(Path(value))
                    value = Path(value).name
                named.setdefault(step, {})[name] = value
        return named, files

    def _foreseen(self, task: Task, asked: Mapping[str, dict]) -> dict:
        """Return what the record has, with what was asked since in place of what was asked then."""
        record = self.records.get(task.name)
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


def _is_file(value: object) -> bool:
    return isinstance(value, str) and value.startswith("/") and Path(value).is_file()


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


# ---- what has to be made again, and why ---------------------------------------------------------

_SHOWN = 3
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class State:
    """Whether a product is as it would be made now.

    Attributes
    ----------
    state : str
        'done', 'stale' (to be made again), 'missing' (to be made) or 'failed' (the last time).
    reasons : tuple of str
        Why, in words; none if it is done.
    """

    state: str
    reasons: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """The first of the reasons, and how many more there are."""
        more = len(self.reasons) - _SHOWN
        return "; ".join([*self.reasons[:_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def assess(
    reduction: Reduction,
    fingerprints: Fingerprints | None = None,
    *,
    names: Collection[str] | None = None,
) -> dict[str, State]:
    """Compare what a reduction would make with what is there, by task in the order of the plan.

    Of all tasks, or of those with the ``names``.
    Without a resolution the references and parameters of the records are taken to hold still, and
    everything else is compared.
    """
    output_dir = reduction.output_dir
    if fingerprints is None:
        fingerprints = Fingerprints(reduction, read_records(output_dir))
    products = FileMemo(output_dir / HIDDEN / "products.json", sha256_of)
    tasks = {task.name: task for task in reduction.plan.tasks}
    of_interest = [name for name in tasks if names is None or name in names]
    for name in of_interest:
        fingerprints.of(name)
    states = {
        name: _state(tasks[name], fingerprints, tasks, output_dir, products) for name in of_interest
    }
    if output_dir.is_dir():
        fingerprints.save()
        products.save()
    return states


def differences(before: Mapping, now: Mapping, tasks: Collection[str] = ()) -> list[str]:
    """Return in words what two fingerprints differ in."""
    if not before:
        return ["there is no record of how it was made"]
    kinds = "kind", "pipeline"
    words = _changes(_some(before, kinds), _some(now, kinds))
    for part, compare in _PARTS.items():
        old, new = before.get(part) or {}, now.get(part) or {}
        if old != new:
            words += compare(old, new)
    for name, old, new in _pairs(before.get("inputs") or {}, now.get("inputs") or {}):
        words.append(_of_input(name, old, new, tasks))
    return words


def _state(
    task: Task,
    fingerprints: Fingerprints,
    tasks: Collection[str],
    output_dir: Path,
    products: FileMemo[str],
) -> State:
    record = fingerprints.records.get(task.name)
    if record is None:
        return _unrecorded(task, output_dir)
    if record.state != "done":
        return State("failed", (record.message or "it failed",))
    lost, spoilt = _checked_products(task, record, output_dir, products)
    if lost:
        return State("missing", (*lost, *spoilt))
    reasons: list[str] = []
    if key(record.fingerprint) != fingerprints.key_of(task.name):
        reasons = differences(record.fingerprint, fingerprints.of(task.name), tasks)
    reasons += spoilt
    return State("stale" if reasons else "done", tuple(reasons))


def _unrecorded(task: Task, output_dir: Path) -> State:
    """Return the state of a task of which nothing tells how it ended."""
    present = (name for name in task.outputs or (task.name,) if (output_dir / name).exists())
    name = next(present, None)
    if name is None:
        return State("missing", ("not made yet",))
    return State("stale", (f"nothing tells how {name} was made",))


def _checked_products(
    task: Task, record: Record, output_dir: Path, products: FileMemo[str]
) -> tuple[list[str], list[str]]:
    """Return what is to be said of products that are gone, and of those that were changed."""
    lost, spoilt = [], []
    recorded = {product["file"]: product for product in record.products}
    # A pipeline may have had no reason to make the others, such as a catalogue of nothing.
    if task.name not in recorded:
        lost.append(f"no record of {task.name}")
    for name, product in recorded.items():
        path = output_dir / name
        try:
            status = path.stat()
        except OSError:
            lost.append(f"{name} is gone")
            continue
        change = _change_of(path, status, product, products)
        if change is not None:
            spoilt.append(f"{name} changed after it was made{change}")
    return lost, spoilt


def _change_of(
    path: Path, status: os.stat_result, product: Mapping[str, Any], products: FileMemo[str]
) -> str | None:
    """Return how a product differs from what was recorded of it, `None` if it does not."""
    if status.st_size != product["bytes"]:
        return f": {product['bytes']} -> {status.st_size} bytes"
    if status.st_mtime_ns == product["mtime_ns"] or products.get(path) == product["sha256"]:
        return None
    return ""


def _pairs(old: Mapping, new: Mapping) -> Iterator[tuple]:
    """Yield what differs between two dictionaries."""
    for name in sorted({*old, *new}):
        before, now = old.get(name, _ABSENT), new.get(name, _ABSENT)
        if before != now:
            yield name, before, now


def _value(value: object) -> str:
    return "(none)" if value is _ABSENT else str(value)


def _some(values: Mapping, names: Collection[str]) -> dict:
    return {name: values[name] for name in names if name in values}


def _changes(old: Mapping, new: Mapping, label: str = "") -> list[str]:
    return [
        f"{label}{name} {_value(before)} -> {_value(now)}" for name, before, now in _pairs(old, new)
    ]


def _of_input(name: str, before: object, now: object, tasks: Collection[str]) -> str:
    if before is _ABSENT:
        return f"input {name} is new"
    if now is _ABSENT:
        return f"input {name} is no longer one"
    if name in tasks:
        return f"an input is to be made again: {name}"
    return f"input {name} changed" if now else f"input {name} is gone"


def _parameters(old: Mapping, new: Mapping) -> list[str]:
    words = []
    for step in sorted({*old, *new}):
        before, now = old.get(step, {}), new.get(step, {})
        skipped = bool(before.get("skip")), bool(now.get("skip"))
        if skipped[0] != skipped[1]:
            words.append(f"{step}.skip {skipped[0]} -> {skipped[1]}")
        else:
            words += _changes(before, now, f"{step}.")
    return words


def _references(old: Mapping, new: Mapping) -> list[str]:
    none = ["(none)", ""]
    words = []
    for reftype, *_ in _pairs(old, new):
        before, now = old.get(reftype, none)[0], new.get(reftype, none)[0]
        change = f"{before} -> {now}" if before != now else f"{now} has other content"
        words.append(f"reference {reftype} {change}")
    return words


def _files(old: Mapping, new: Mapping) -> list[str]:
    return [f"the file of {name} changed" for name, *_ in _pairs(old, new)]


def _association(old: Mapping, new: Mapping) -> list[str]:
    names = {*old, *new} - {"members"}
    words = _changes(_some(old, names), _some(new, names), "association ")
    if old.get("members") != new.get("members"):
        words.append("the members of the association or their roles changed")
    return words


def _corrections(old: Sequence[dict], new: Sequence[dict]) -> list[str]:
    before, now = (", ".join(c["name"] for c in chain) or "(none)" for chain in (old, new))
    if before != now:
        return [f"corrections {before} -> {now}"]
    return [word for pair in zip(old, new, strict=True) for word in _of_correction(*pair)]


def _of_correction(old: Mapping, new: Mapping) -> list[str]:
    label = f"correction {new['name']}"
    words = _changes(old["parameters"], new["parameters"], f"{label}.")
    places = "point", "suffix"
    words += _changes(_some(old, places), _some(new, places), f"{label} ")
    if not words and old["digest"] != new["digest"]:
        words = [f"the code or a file of the {label} changed"]
    return words


_PARTS: dict[str, Callable[..., list[str]]] = {
    "versions": _changes,
    "parameters": _parameters,
    "files": _files,
    "references": _references,
    "corrections": _corrections,
    "association": _association,
}
