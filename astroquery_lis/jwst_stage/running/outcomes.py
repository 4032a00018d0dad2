"""How tasks ended and why they failed, in one word of six with what to do next; the manifest."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...io.processes import ServerLost
from ...io.whole_files import write_whole
from ..states import key
from ..tasks import Record, log_path
from .progress import done_by, kills, now, table_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future
    from typing import Any

    from astropy.table import Table

    from ...io.processes import Ended
    from ..tasks import Reduction

MANIFEST = "manifest.ecsv"
"""The manifest, in the output directory."""

KINDS = ("data", "reference", "memory", "parameter", "code", "killed")
"""What a failure is put down to."""

_ACTIONS = {
    "data": "Check the input file, or fetch it again.",
    "reference": (
        "Run JwstStage.prefetch_references(plan); without network, copy what it lists into "
        "crds_path."
    ),
    "memory": "Free memory or take fewer workers (max_workers=1); it was tried alone already.",
    "parameter": "Change the value in steps= and make the plan again.",
    "code": "See the log; with steps={step: {'skip': True}} the run goes on without the step.",
    "killed": "Run the same plan again; what is finished is kept.",
}

_CATALOGUE = (
    "Give steps={'tweakreg': {'abs_refcat': FILE}} a catalogue file "
    "(JwstStage.astrometric_reference writes one), or '' to align the images to one another only; "
    "the value may come from the CRDS parameter reference."
)

_FATAL_OF_CRDS = "(FATAL)"
"""What CRDS logs before it ends the process."""

_CATALOGUE_SERVICE = "stcal.alignment"
_CRASHES = frozenset({4, 6, 7, 8, 11})
"""Signals that a fault of the code raises; the others come from outside."""

_NETWORK_ERRORS = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "Timeout", "HTTPError")
_KIND_OF_ERROR = {
    "MemoryError": "memory",
    "ServerLost": "killed",
    "InvalidExposureError": "data",
    "FileNotFoundError": "data",
    "PermissionError": "data",
}
_DATA_MARKS = ("Extension 'ASDF' not found", "truncated", "No SIMPLE card", "Empty or corrupt")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task failed: one of `KINDS`, what happened, and what to do next."""

    kind: str
    cause: str
    action: str

    @property
    def message(self) -> str:
        """Cause and action."""
        return f"{self.cause}. {self.action}"


def describe(
    name: str, module: str, text: str, trace: str = "", log: Sequence[str] = ()
) -> Failure:
    """Return the failure behind an error: its class, module, text and trace, the end of the log."""
    name, module, text = _innermost(name, module, text)
    if name == "SystemExit":
        return _of_system_exit(text, trace, log)
    if {name, module.split(".")[0]} & {"crds", "CrdsUnavailable"}:
        return _failure("reference", "CrdsUnavailable", f"{name}: {text}")
    if name in _NETWORK_ERRORS and ("tweakreg" in trace or _CATALOGUE_SERVICE in trace):
        text = f"the catalogue that tweakreg.abs_refcat names cannot be fetched ({text})"
        return _failure("reference", name, text, _CATALOGUE)
    if name == "OSError" and "No space left" in text:
        action = "Free space on the disk of the output directory and run again."
        return _failure("killed", name, text, action)
    kind = _kind(name, module, text)
    return _failure(kind, name, text or ("no memory was left" if kind == "memory" else ""))


def _of_system_exit(text: str, trace: str, log: Sequence[str]) -> Failure:
    fatal = next((line for line in reversed(log) if _FATAL_OF_CRDS in line), "")
    if fatal or "crds" in trace:
        return _failure("reference", "CrdsUnavailable", fatal or "CRDS ended the process.")
    return _failure("code", "SystemExit", f"a step ended the process: {text}")


def _innermost(name: str, module: str, text: str) -> tuple[str, str, str]:
    """Return class, module and text of an error that another one holds as a printed trace."""
    _, trace, rest = text.rpartition("Traceback (most recent call last):\n")
    lines = rest.splitlines()
    begin = next((i for i, line in enumerate(lines) if not line.startswith(" ")), None)
    if not trace or begin is None:
        return name, module, text
    kind, _, message = "\n".join(lines[begin:]).partition(": ")
    module, _, kind = kind.rpartition(".")
    return kind, module or "builtins", message


def _kind(name: str, module: str, text: str) -> str:
    if name in _KIND_OF_ERROR:
        return _KIND_OF_ERROR[name]
    if module.startswith("stpipe") and name == "ValidationError":
        return "parameter"
    return "data" if any(mark in text for mark in _DATA_MARKS) else "code"


def of_exit(code: int, console: str) -> Failure:
    """Return the failure of a process that ended by itself and said nothing."""
    last = (console.strip().splitlines() or [""])[-1]
    if code == 255 and "CRDS" in console:
        return _failure("reference", "CrdsUnavailable", last)
    return _failure("code", f"exit code {code}", last or "the process said nothing")


def killed(signal_number: int, *, out_of_memory: bool, alone: bool) -> Failure:
    """Return the failure of a process that a signal ended."""
    cause = f"the process was ended by signal {signal_number}"
    if signal_number in _CRASHES:
        return _failure("code", "Crashed", cause)
    if alone:
        cause += ", also when it ran alone"
    if out_of_memory:
        return _failure("memory", "Killed", f"{cause}: the system was out of memory")
    return _failure("killed", "Killed", cause)


def _failure(kind: str, name: str, text: str, action: str = "") -> Failure:
    return Failure(kind, f"{name}: {_short(text).rstrip('.')}", action or _ACTIONS[kind])


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 400 else text[:397] + "..."


def outcome(future: Future[Ended], job: Mapping[str, Any], *, alone: bool) -> tuple[Record, str]:
    """Return the record of a task, and why it may end otherwise when it is begun again, if it may.

    ``job`` is that of `work`, with `kills` when it began; of a task that failed the record is not
    written yet.
    """
    try:
        ended = future.result()
    except Exception as error:  # of the server, or of the executor
        lost = f"the executor lost the task: {error!r}"
        failure = describe("ServerLost", "", str(error) if isinstance(error, ServerLost) else lost)
        return _failed(job, failure), failure.cause
    if ended.result is not None:
        record = Record(**ended.result)
        return record, record.message if record.kind_of_failure == "memory" else ""
    if ended.error is not None:
        name, module = ended.error["type"], ended.error["module"]
        text, trace = ended.error["message"], ended.error["traceback"]
        failure = describe(name, module, text, trace, ended.console.splitlines())
        is_lost = failure.kind == "memory"
    elif ended.exit_code < 0:
        out_of_memory = kills() > job["kills"]
        failure = killed(-ended.exit_code, out_of_memory=out_of_memory, alone=alone)
        is_lost = failure.kind != "code"
    else:
        failure, is_lost = of_exit(ended.exit_code, ended.console), False
    return _failed(job, failure), failure.cause if is_lost else ""


def keep_log(name: str, job: Mapping[str, Any], output_dir: Path) -> None:
    """Put the log of a task that failed where its product would be."""
    source, console = Path(job["scratch"], "task.log"), Path(job["scratch"], "console.txt")
    target = log_path(name, output_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.exists():
        if console.exists() and console.stat().st_size:
            with open(source, "a") as file:
                file.write(f"--- printed ---\n{console.read_text(errors='replace')}")
        os.replace(source, target)
    elif console.exists():
        os.replace(console, target)


def _failed(job: Mapping[str, Any], failure: Failure) -> Record:
    values = {"kind_of_failure": failure.kind, "message": failure.message, "ended": now()}
    return Record(**job["record"] | values)


_STATUS = {"done": "COMPLETE", "cached": "CACHED", "failed": "ERROR"}

_COLUMNS = {
    "Local Path": str,
    "Status": str,
    "Message": str,
    "URL": str,
    "task": str,
    "stage": int,
    "pipeline": str,
    "failure": str,
    "checks": str,
    "seconds": float,
    "memory_gb": float,
    "bytes": np.int64,
    "sha256": str,
    "key": str,
}


def make_manifest(
    reduction: Reduction,
    records: Mapping[str, Record],
    *,
    states: Mapping[str, str],
    messages: Mapping[str, Sequence[str]],
) -> Table:
    """Return how each task ended: by its state in the schedule, its record, and notes on it.

    A row for each task in the order of the plan: ``Local Path`` of the main product, ``Status``
    (COMPLETE, CACHED, SKIPPED, ERROR), ``Message``, ``URL`` (empty), ``task``, ``stage``,
    ``pipeline`` (or the correction), ``failure`` (one of `KINDS`), ``checks``, ``seconds``,
    ``memory_gb``, ``bytes``, ``sha256`` and the ``key`` of the fingerprint.
    """
    rows = []
    for task in reduction.plan.tasks:
        state = states[task.name]
        # What is skipped may have a record of a run before.
        record = records[task.name] if state in _STATUS else Record(task.name, state)
        texts = [*messages.get(task.name, ()), record.message]
        texts += [
            f"{line['message']}. {line['action']}".strip()
            for line in record.checks
            if state != "failed" and line["outcome"] not in ("ok", "note")
        ]
        product = record.products[0] if record.products else {}
        row = (
            os.fspath(reduction.output_dir / product["file"]) if product else "",
            _STATUS.get(state, "SKIPPED"),
            " ".join(filter(None, texts)),
            "",
            task.name,
            task.stage,
            done_by(task),
            record.kind_of_failure,
            "; ".join(f"{line['check']} {line['outcome']}" for line in record.checks),
            record.seconds,
            record.memory_gb,
            product.get("bytes", 0),
            product.get("sha256", ""),
            key(record.fingerprint) if record.fingerprint else "",
        )
        rows.append(row)
    return table_of(rows, _COLUMNS)


def write_manifest(reduction: Reduction, table: Table) -> None:
    """Write the manifest into the output directory."""
    with write_whole(reduction.output_dir / MANIFEST) as temporary:
        table.write(temporary, format="ascii.ecsv", overwrite=True)
