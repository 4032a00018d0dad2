"""What decides on a product, so that it is made again when that changes and only then.

A fingerprint is a dictionary of JSON types.  `KEYED` are its parts that decide; the others are
noted so that a change can be told in words, or foreseen without asking CRDS.
"""

import hashlib
import json
import os
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..steps.parameters import OWNED
from ..tasks import HIDDEN, input_path
from .digests import content_digest
from .memo import FileMemo

__all__ = ["KEYED", "UNHEEDED", "Fingerprints", "fingerprint", "key"]

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


def key(fingerprint):
    """Return the digest of the parts of a fingerprint that decide on the product.

    Parameters
    ----------
    fingerprint : dict
        As `fingerprint` returns it.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    parts = {name: fingerprint.get(name) for name in KEYED}
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(task, plan, resolution, output_dir, records=None):
    """Return what decides on the product of a task.

    Parameters
    ----------
    task : Task
        The task.
    plan : Plan
        The plan that it belongs to.
    resolution : Resolution or None
        References and parameters that hold now; with `None` those of the records are taken, with
        what was asked since put in.
    output_dir : path-like
        The output directory.
    records : dict of str to Record, optional
        What was done, by task.

    Returns
    -------
    dict
        The parts `KEYED`, and ``context``, ``steps``, ``base`` and ``parameter_references``.
    """
    return Fingerprints(plan, resolution, output_dir, records).of(task.name)


class Fingerprints:
    """The fingerprints of the tasks of a plan, each made once.

    Parameters
    ----------
    plan, resolution, output_dir, records
        As for `fingerprint`.
    """

    def __init__(self, plan, resolution, output_dir, records=None):
        self._tasks = {task.name: task for task in plan.tasks}
        self._resolution, self._output_dir = resolution, Path(output_dir)
        self._records = records or {}
        self._memo = FileMemo(self._output_dir / HIDDEN / "digests.json", content_digest)
        self._made, self._keys = {}, {}
        self._versions = versions()

    def of(self, name):
        """Return the fingerprint of a task.

        Parameters
        ----------
        name : str
            Name of the task.

        Returns
        -------
        dict
        """
        # A loop: chains are as deep as there are corrections.
        waiting = [name]
        while waiting:
            current = waiting[-1]
            inputs = self._tasks[current].inputs
            todo = [i for i in inputs if i in self._tasks and i not in self._made]
            if todo:
                waiting += todo
                continue
            waiting.pop()
            if current not in self._made:
                made = self._make(self._tasks[current])
                self._made[current], self._keys[current] = made, key(made)
        return self._made[name]

    def save(self):
        """Keep the digests of input files for the next time, if the output directory is there."""
        if self._output_dir.is_dir():
            self._memo.save()

    def _make(self, task):
        asked, files = self._with_files(task.steps)
        found = {
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
            empty = {"parameters": {}, "references": {}, "base": {}, "parameter_references": {}}
            return {**found, **empty, "context": ""}
        if self._resolution is not None:
            return {**found, **self._resolved(task, asked)}
        return {**found, **self._foreseen(task, asked)}

    def _called(self, name):
        """Return what to call an input: files may be moved, products stay where they are."""
        return self._inside(name) or os.path.basename(name)

    def _inside(self, name):
        """Return the name of the task that makes an input, or made it in an earlier run."""
        if name in self._tasks:
            return name
        root = os.path.join(os.path.abspath(self._output_dir), "")
        inside = name[len(root) :].replace(os.sep, "/") if name.startswith(root) else ""
        record = self._records.get(inside)
        return inside if record is not None and record.state == "done" else ""

    def _digest(self, name):
        if name in self._tasks:
            return self._keys[name]
        path = input_path(name, self._output_dir)
        try:
            inside = self._inside(name)
            if inside and _is_untouched(path, inside, self._records[inside]):
                return key(self._records[inside].fingerprint)
            return self._memo.get(path)
        except OSError:
            return ""

    def _association(self, task):
        if not task.members:
            return {}
        found = {name: task.association[name] for name in _ASSOCIATION if name in task.association}
        members = [[self._called(m.input), m.exptype, m.group_id] for m in task.members]
        return {**found, "members": members}

    def _with_files(self, steps):
        """Return parameters with the names of files for their paths, and the files' digests."""
        named, files = {}, {}
        for step, values in steps.items():
            for name, value in values.items():
                path = Path(value) if isinstance(value, str) and value.startswith("/") else None
                if path is not None and path.is_file():
                    files[f"{step}.{name}"] = self._memo.get(path)
                    value = path.name
                named.setdefault(step, {})[name] = value
        return named, files

    def _resolved(self, task, asked):
        resolution = self._resolution
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

    def _foreseen(self, task, asked):
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


@lru_cache(maxsize=1)
def versions():
    """Return the versions of the packages that decide on a product; empty if not installed.

    Returns
    -------
    dict of str to str
    """
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def _is_untouched(path, name, record):
    """Tell whether a product is still as its record says."""
    status = path.stat()
    return any(
        product["file"] == name
        and (product["bytes"], product["mtime_ns"]) == (status.st_size, status.st_mtime_ns)
        for product in record.products
    )


def _correction(correction):
    """Return what decides: the digest covers code, parameters and the files among these."""
    kept = {name: correction.get(name) for name in ("name", "point", "suffix", "digest")}
    return {**kept, "parameters": dict(correction.get("parameters") or {})}


def _heeded(parameters):
    """Return the parameters that decide: of a skipped step only that it is."""
    heeded = {}
    for step, values in parameters.items():
        if values.get("skip"):
            heeded[step] = {"skip": True}
        else:
            kept = {name: value for name, value in values.items() if name not in UNHEEDED}
            heeded[step] = kept
    return heeded
