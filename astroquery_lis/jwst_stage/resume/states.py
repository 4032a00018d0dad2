"""What is done still, what has to be made again, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...io.checks import sha256_of
from ..tasks import HIDDEN
from .fingerprints import Fingerprints, key
from .records import FileMemo, Record, read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from ..tasks import Reduction, Task

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


def assess(reduction: Reduction) -> dict[str, State]:
    """Compare what a reduction would make with what is there, by task in the order of the plan.

    Without a resolution the references and parameters of the records are taken to hold still, and
    everything else is compared.
    """
    output_dir = reduction.output_dir
    records = read_records(output_dir)
    fingerprints = Fingerprints(reduction, records)
    products = FileMemo(output_dir / HIDDEN / "products.json", sha256_of)
    tasks = {task.name: task for task in reduction.plan.tasks}
    states = {}
    for name, task in tasks.items():
        now, record = fingerprints.of(name), records.get(name)
        states[name] = _state(task, record, now, tasks, output_dir, products)
    if output_dir.is_dir():
        fingerprints.save()
        products.save()
    return states


def differences(before: Mapping, now: Mapping, tasks: Collection[str] = ()) -> list[str]:
    """Return in words what two fingerprints differ in."""
    if not before:
        return ["there is no record of how it was made"]
    old, new = ({name: of.get(name) for name in ("kind", "pipeline")} for of in (before, now))
    words = list(_values(old, new, tasks))
    for part, compare in _PARTS.items():
        old, new = before.get(part) or {}, now.get(part) or {}
        if old != new:
            words += compare(old, new, tasks)
    return words


def _state(
    task: Task,
    record: Record | None,
    now: Mapping[str, Any],
    tasks: Collection[str],
    output_dir: Path,
    products: FileMemo[str],
) -> State:
    if record is None:
        present = [name for name in task.outputs or (task.name,) if (output_dir / name).exists()]
        if present:
            return State("stale", (f"nothing tells how {present[0]} was made",))
        return State("missing", ("not made yet",))
    if record.state != "done":
        return State("failed", (record.message or "it failed",))
    lost, spoilt = _checked_products(task, record, output_dir, products)
    if lost:
        return State("missing", (*lost, *spoilt))
    reasons: list[str] = []
    if key(record.fingerprint) != key(now):
        reasons = differences(record.fingerprint, now, tasks)
    reasons += spoilt
    return State("stale" if reasons else "done", tuple(reasons))


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
        if status.st_size != product["bytes"]:
            spoilt.append(
                f"{name} changed after it was made: {product['bytes']} -> {status.st_size} bytes"
            )
        elif status.st_mtime_ns != product["mtime_ns"] and (
            products.get(path) != product["sha256"]
        ):
            spoilt.append(f"{name} changed after it was made")
    return lost, spoilt


def _pairs(old: Mapping, new: Mapping) -> Iterator[tuple]:
    """Yield what differs between two dictionaries."""
    for name in sorted({*old, *new}):
        before, now = old.get(name, _ABSENT), new.get(name, _ABSENT)
        if before != now:
            yield name, before, now


def _value(value: object) -> str:
    return "(none)" if value is _ABSENT else str(value)


def _inputs(old: Mapping, new: Mapping, tasks: Collection[str]) -> Iterator[str]:
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


def _parameters(old: Mapping, new: Mapping, tasks: Collection[str]) -> Iterator[str]:
    for step, before, now in _pairs(old, new):
        before = {} if before is _ABSENT else before
        now = {} if now is _ABSENT else now
        skipped = bool(before.get("skip")), bool(now.get("skip"))
        if skipped[0] != skipped[1]:
            yield f"{step}.skip {skipped[0]} -> {skipped[1]}"
            continue
        for name, old_value, new_value in _pairs(before, now):
            yield f"{step}.{name} {_value(old_value)} -> {_value(new_value)}"


def _references(old: Mapping, new: Mapping, tasks: Collection[str]) -> Iterator[str]:
    for reftype, before, now in _pairs(old, new):
        before = ["(none)", ""] if before is _ABSENT else before
        now = ["(none)", ""] if now is _ABSENT else now
        if before[0] != now[0]:
            yield f"reference {reftype} {before[0]} -> {now[0]}"
        else:
            yield f"reference {reftype} {now[0]} has other content"


def _files(old: Mapping, new: Mapping, tasks: Collection[str]) -> Iterator[str]:
    for name, _, _ in _pairs(old, new):
        yield f"the file of {name} changed"


def _values(old: Mapping, new: Mapping, tasks: Collection[str]) -> Iterator[str]:
    for name, before, now in _pairs(old, new):
        yield f"{name} {_value(before)} -> {_value(now)}"


def _association(old: Mapping, new: Mapping, tasks: Collection[str]) -> Iterator[str]:
    for name, before, now in _pairs(old, new):
        if name == "members":
            yield "the members of the association or their roles changed"
        else:
            yield f"association {name} {_value(before)} -> {_value(now)}"


def _corrections(old: Any, new: Any, tasks: Collection[str]) -> Iterator[str]:
    old, new = old or [], new or []
    before, now = ([correction["name"] for correction in chain] for chain in (old, new))
    if before != now:
        yield f"corrections {', '.join(before) or '(none)'} -> {', '.join(now) or '(none)'}"
        return
    for earlier, later in zip(old, new, strict=True):
        label = f"correction {later['name']}"
        words = [
            f"{label}.{name} {_value(a)} -> {_value(b)}"
            for name, a, b in _pairs(earlier["parameters"], later["parameters"])
        ]
        words += [
            f"{label} {part} {earlier[part]} -> {later[part]}"
            for part in ("point", "suffix")
            if earlier[part] != later[part]
        ]
        if not words and earlier["digest"] != later["digest"]:
            words = [f"the code or a file of the {label} changed"]
        yield from words


_PARTS: dict[str, Callable[..., Iterator[str]]] = {
    "versions": _values,
    "parameters": _parameters,
    "files": _files,
    "references": _references,
    "corrections": _corrections,
    "association": _association,
    "inputs": _inputs,
}
