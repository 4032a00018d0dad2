"""What is done, what has to be made again, and why."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..tasks import HIDDEN
from .fingerprints import Fingerprints, key
from .memo import FileMemo
from .records import read_records

__all__ = ["STATES", "State", "assess", "differences"]

STATES = ("done", "stale", "missing", "failed")

_SHOWN = 3
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class State:
    """Whether a product is as it would be made now.

    Attributes
    ----------
    state : str
        'done', 'stale' (to be made again), 'missing' (to be made) or 'failed' (the last time).
    reason : str
        Why, in words; empty if it is done.
    details : tuple of str
        All the reasons.
    """

    state: str
    reason: str = ""
    details: tuple = ()


def assess(plan, output_dir, resolution=None):
    """Compare what a plan would make with what is there.

    Parameters
    ----------
    plan : Plan
        The plan.
    output_dir : path-like
        The output directory.
    resolution : Resolution, optional
        References and parameters that hold now.  Without it those of the records are taken to
        hold still, and everything else is compared.

    Returns
    -------
    dict of str to State
        By task, in the order of the plan.
    """
    output_dir = Path(output_dir)
    records = read_records(output_dir)
    fingerprints = Fingerprints(plan, resolution, output_dir, records)
    products = FileMemo(output_dir / HIDDEN / "products.json", _sha256)
    tasks = {task.name: task for task in plan.tasks}
    states = {}
    for name in tasks:
        now = fingerprints.of(name)
        states[name] = _state(tasks[name], records.get(name), now, output_dir, products, tasks)
    if output_dir.is_dir():
        fingerprints.save()
        products.save()
    return states


def differences(before, now, tasks=()):
    """Return in words what two fingerprints differ in.

    Parameters
    ----------
    before, now : dict
        Fingerprints.
    tasks : collection of str, optional
        Names of the tasks of the plan: inputs that are made in it.

    Returns
    -------
    list of str
    """
    if not before:
        return ["there is no record of how it was made"]
    found = []
    for part, compare in _PARTS:
        old, new = before.get(part), now.get(part)
        if old != new:
            found += compare(old or {}, new or {}, tasks)
    return found


def _state(task, record, now, output_dir, products, tasks):
    there = [name for name in task.outputs or (task.name,) if (output_dir / name).exists()]
    if record is None:
        if there:
            return _because("stale", [f"nothing tells how {there[0]} was made"])
        return _because("missing", ["not made yet"])
    if record.state != "done":
        return _because("failed", [record.message or "it failed"])
    lost, spoilt = _checked_products(task, record, output_dir, products)
    if lost:
        return _because("missing", lost + spoilt)
    reasons = []
    if key(record.fingerprint) != key(now):
        reasons = differences(record.fingerprint, now, tasks)
    reasons += spoilt
    return _because("stale", reasons) if reasons else State("done")


def _because(state, reasons):
    shown = "; ".join(reasons[:_SHOWN])
    if len(reasons) > _SHOWN:
        shown += f"; and {len(reasons) - _SHOWN} more"
    return State(state, shown, tuple(reasons))


def _checked_products(task, record, output_dir, products):
    """Return what is to be said of products that are gone, and of those that were changed."""
    lost, spoilt = [], []
    known = {product["file"]: product for product in record.products}
    for name in task.outputs or (task.name,):
        # A pipeline may have had no reason to make it, such as a catalogue of nothing.
        if name not in known and name != task.name:
            continue
        if name not in known:
            lost.append(f"no record of {name}")
    for name, product in known.items():
        path = output_dir / name
        try:
            status = path.stat()
        except OSError:
            lost.append(f"{name} is gone")
            continue
        if status.st_size != product["bytes"]:
            spoilt.append(
                f"{name} changed after it was made: {product['bytes']} -> {status.st_size} bytes"
            )
        elif status.st_mtime_ns != product["mtime_ns"] and (
            products.get(path) != product["sha256"]
        ):
            spoilt.append(f"{name} changed after it was made")
    return lost, spoilt


def _sha256(path):
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _pairs(old, new):
    """Yield what differs between two dictionaries."""
    for name in sorted({*old, *new}):
        before, now = old.get(name, _ABSENT), new.get(name, _ABSENT)
        if before != now:
            yield name, before, now


def _value(value):
    return "(none)" if value is _ABSENT else str(value)


def _inputs(old, new, tasks):
    for name, before, now in _pairs(old, new):
        if before is _ABSENT:
            yield f"input {name} is new"
        elif now is _ABSENT:
            yield f"input {name} is no longer one"
        elif name in tasks:
            yield f"an input is to be made again: {name}"
        elif not now:
            yield f"input {name} is gone"
        else:
            yield f"input {name} changed"


def _parameters(old, new, tasks):
    for step, before, now in _pairs(old, new):
        before = {} if before is _ABSENT else before
        now = {} if now is _ABSENT else now
        skipped = bool(before.get("skip")), bool(now.get("skip"))
        if skipped[0] != skipped[1]:
            yield f"{step}.skip {skipped[0]} -> {skipped[1]}"
            continue
        for name, old_value, new_value in _pairs(before, now):
            yield f"{step}.{name} {_value(old_value)} -> {_value(new_value)}"


def _references(old, new, tasks):
    for reftype, before, now in _pairs(old, new):
        before = ["(none)", ""] if before is _ABSENT else before
        now = ["(none)", ""] if now is _ABSENT else now
        if before[0] != now[0]:
            yield f"reference {reftype} {before[0]} -> {now[0]}"
        else:
            yield f"reference {reftype} {now[0]} has other content"


def _files(old, new, tasks):
    for name, _, _ in _pairs(old, new):
        yield f"the file of {name} changed"


def _versions(old, new, tasks):
    for package, before, now in _pairs(old, new):
        yield f"{package} {_value(before)} -> {_value(now)}"


def _association(old, new, tasks):
    for name, before, now in _pairs(old, new):
        if name == "members":
            yield "the members of the association or their roles changed"
        else:
            yield f"association {name} {_value(before)} -> {_value(now)}"


def _corrections(old, new, tasks):
    old, new = old or [], new or []
    before, now = ([one["name"] for one in many] for many in (old, new))
    if before != now:
        yield f"corrections {', '.join(before) or '(none)'} -> {', '.join(now) or '(none)'}"
        return
    for was, one in zip(old, new, strict=True):
        found = [
            f"correction {one['name']}.{name} {_value(a)} -> {_value(b)}"
            for name, a, b in _pairs(was["parameters"], one["parameters"])
        ]
        found += [
            f"correction {one['name']} {part} {was[part]} -> {one[part]}"
            for part in ("point", "suffix")
            if was[part] != one[part]
        ]
        if not found and was["digest"] != one["digest"]:
            found = [f"the code or a file of the correction {one['name']} changed"]
        yield from found


def _whole(label):
    def compare(old, new, tasks):
        yield f"{label} {old or '(none)'} -> {new or '(none)'}"

    return compare


_PARTS = (
    ("kind", _whole("kind")),
    ("pipeline", _whole("pipeline")),
    ("versions", _versions),
    ("parameters", _parameters),
    ("files", _files),
    ("references", _references),
    ("corrections", _corrections),
    ("association", _association),
    ("inputs", _inputs),
)
