"""How far the tasks of a run are, how they ended, and why they failed: what it tells of itself.

The state of a run stands in one file that is replaced whole, beside the lock of its directory; the
manifest says what became of it.  A failure is put down to one word of six.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...exceptions import StageError, refuse
from ...io.processes import ServerLost
from ...io.whole_files import close_unlocked, take_lock, write_whole
from ..states import key
from ..tasks import HIDDEN, Record, log_path, read_records, table_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from concurrent.futures import Future
    from typing import Any, Self

    from astropy.table import Table

    from ..._typing import FilePath
    from ...io.processes import Ended
    from ..tasks import Reduction


PLAN_FILE = "plan.toml"
"""The plan of the last run, in the hidden directory."""

# Whoever asks for the state of a directory holds its lock for a moment.
_LOOKS, _LOOK_S = 5, 0.05

WAITING, RUNNING, DONE, CACHED = "waiting", "running", "done", "cached"
FAILED, SKIPPED, INTERRUPTED = "failed", "skipped", "interrupted"
"""How far a task is; a run is running, finished or interrupted."""


def now() -> str:
    """Return the time in UTC, ISO 8601: fine enough to tell a run from the end of the last one."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def scratch_root(output_dir: FilePath) -> Path:
    """Return the directory of what is being made."""
    return _hidden(output_dir, "scratch")


class Lock:
    """One run at a time in an output directory, which is made; a context manager.

    `InvalidRequestError` if another run is at work there, `StageError` if it cannot be written.
    """

    def __init__(self, output_dir: FilePath) -> None:
        path = _hidden(output_dir, "lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a")
        except OSError as error:
            msg = f"Cannot write to output_dir={str(output_dir)!r}: {error.strerror or error}."
            raise StageError(msg, cause=error) from error
        for _ in range(_LOOKS):
            if take_lock(self._file):
                return
            time.sleep(_LOOK_S)
        self._file.close()
        must = ": another run is at work there; wait for it, stop it, or take another directory."
        refuse("output_dir", str(output_dir), must)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        close_unlocked(self._file)


def is_locked(output_dir: FilePath) -> bool:
    """Return True if a run is at work in an output directory, on this host or another."""
    try:
        file = _hidden(output_dir, "lock").open()
    except OSError:
        return False
    try:
        return not take_lock(file, shared=True)
    finally:
        close_unlocked(file)


def write_live(output_dir: FilePath, about: Mapping[str, Any], tasks: Mapping[str, dict]) -> None:
    """Replace what a run tells of itself while it runs.

    ``about`` has ``state``, ``started`` and ``ended`` of the run, each of its tasks ``state``,
    ``message``, and ``scratch`` while it runs.
    """
    with write_whole(_hidden(output_dir, "run.json")) as temporary:
        temporary.write_text(json.dumps({**about, "tasks": tasks}, indent=1))


def read_live(output_dir: FilePath) -> dict:
    """Return what the last run told of itself; empty if there was none."""
    try:
        live = json.loads(_hidden(output_dir, "run.json").read_text())
    except (OSError, ValueError):
        return {}
    return live if isinstance(live, dict) else {}


_STATUS_COLUMNS = "task", "stage", "pipeline", "state", "step", "seconds", "memory_gb", "message"


def status(output_dir: FilePath) -> Table:
    """Return how far each task of an output directory is, see `JwstStageClass.status`.

    A ``state`` is one of waiting, running, done, cached, failed, skipped, or interrupted if the run
    ended in the middle of it.
    """
    from ..planning import Plan

    path = _hidden(output_dir, PLAN_FILE)
    if not path.exists():
        refuse("output_dir", str(output_dir), ": no plan was run there.")
    plan, live = Plan.load(path), _live_now(output_dir)
    notes, records = live.pop("tasks", {}), read_records(output_dir)
    rows = []
    for task in plan.tasks:
        note, record = notes.get(task.name, {}), records.get(task.name)
        state = _state_of(note, record, live)
        scratch = scratch_root(output_dir) / note.get("scratch", "")
        step = step_of(scratch) if state == RUNNING else ""
        record = _last_record(records, task.name, state)
        message = " ".join(filter(None, (note.get("message", ""), record.message)))
        about = task.name, task.stage, task.work, state, step
        rows.append((*about, record.seconds, record.memory_gb, message))
    table = _table_of_tasks(rows, _STATUS_COLUMNS)
    table.meta.update(live)
    return table


def _live_now(output_dir: FilePath) -> dict:
    """Return what the last run told of itself, its state interrupted if it is not at work."""
    live = read_live(output_dir)
    while live.get("state") == RUNNING and not is_locked(output_dir):
        # It may have come to its end just now, or another one have begun.
        before, live = live, read_live(output_dir)
        if live.get("state") == RUNNING and live.get("started") == before.get("started"):
            return {**live, "state": INTERRUPTED}
    return live


def _state_of(note: Mapping[str, str], record: Record | None, live: Mapping[str, str]) -> str:
    state = str(note.get("state", WAITING))
    if state != RUNNING or live["state"] == RUNNING:
        return state
    # It may have been finished after the last word of the run.
    if record is not None and record.ended >= live["started"]:
        return record.state
    return INTERRUPTED


def _last_record(records: Mapping[str, Record], name: str, state: str) -> Record:
    """Return the record of a task that ended; what did not may have one of a run before."""
    if name in records and state in _MANIFEST_STATUS:
        return records[name]
    return Record(name, state)


_TYPES = {"stage": int, "seconds": float, "memory_gb": float, "bytes": np.int64}
"""Of the columns of numbers; the others are texts."""


def _table_of_tasks(rows: list[tuple], columns: Sequence[str]) -> Table:
    """Return a table of tasks, two columns of which are ``seconds`` and ``memory_gb``."""
    table = table_of(rows, {name: _TYPES.get(name, str) for name in columns})
    table["seconds"].info.format = ".1f"
    table["memory_gb"].info.format = ".2f"
    return table


def step_of(scratch: FilePath) -> str:
    """Return the step that runs in a scratch directory; empty if it is not known."""
    try:
        return str(json.loads(Path(scratch, "step.json").read_text())["step"])
    except (OSError, ValueError, KeyError):
        return ""


def _hidden(output_dir: FilePath, name: str) -> Path:
    return Path(output_dir, HIDDEN, name)


# ---- memory --------------------------------------------------------------------------------------

_GB = 1 << 30
_CGROUP = Path("/sys/fs/cgroup")
_NUMBER = re.compile(r"^(\w+):? +(\d+)", re.MULTILINE)


def available_gb() -> float:
    """Return the memory that processes can still take: of the machine, or of its container."""
    return min(_of_machine(), _of_cgroup())


def kills() -> int:
    """Return how many processes the system has ended for want of memory since it started."""
    counts = _numbers(Path("/proc/vmstat")) | _numbers(_CGROUP / "memory.events")
    return counts.get("oom_kill", 0)


def _numbers(path: Path) -> dict[str, int]:
    """Return the numbers that the system tells in a file, by name; none if it is not there."""
    try:
        pairs = _NUMBER.findall(path.read_text())
    except (OSError, ValueError):
        return {}
    return {name: int(value) for name, value in pairs}


def _of_machine() -> float:
    available_kb = _numbers(Path("/proc/meminfo")).get("MemAvailable")
    if available_kb is not None:
        return available_kb * 1024 / _GB
    with suppress(OSError, ValueError, AttributeError):
        # macOS does not tell what is free; half of what there is has proved to be.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GB / 2
    return float("inf")


def _of_cgroup() -> float:
    for limit, usage, stat, cached in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        with suppress(OSError, ValueError):
            limit_bytes, in_use = (int((_CGROUP / name).read_text()) for name in (limit, usage))
            # Pages of files that were read are given back when they are needed.
            in_use -= _numbers(_CGROUP / stat).get(cached, 0)
            return max(limit_bytes - in_use, 0) / _GB
    return float("inf")


# ---- why a task failed --------------------------------------------------------------------------

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
    "_ArrayMemoryError": "memory",
    "ServerLost": "killed",
    "InvalidExposureError": "data",
    "FileNotFoundError": "data",
    "PermissionError": "data",
}
_TEXTS = {"MemoryError": "no memory was left"}
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
    return _failure(kind, name, text or _TEXTS.get(name, ""))


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
    failure = _failure_of(ended, job, alone)
    is_lost = failure.kind in (("memory",) if ended.error else ("memory", "killed"))
    return _failed(job, failure), failure.cause if is_lost else ""


def _failure_of(ended: Ended, job: Mapping[str, Any], alone: bool) -> Failure:
    """Return why a process that did not bring a record ended."""
    if ended.error is not None:
        name, module, text, trace = (
            ended.error[part] for part in ("type", "module", "message", "traceback")
        )
        return describe(name, module, text, trace, ended.console.splitlines())
    if ended.exit_code < 0:
        return killed(-ended.exit_code, out_of_memory=kills() > job["kills"], alone=alone)
    return of_exit(ended.exit_code, ended.console)


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


# ---- the manifest -------------------------------------------------------------------------------

MANIFEST = "manifest.ecsv"
"""The manifest, in the output directory."""

_MANIFEST_STATUS = {DONE: "COMPLETE", CACHED: "CACHED", FAILED: "ERROR"}
"""Of tasks that ended; the others are SKIPPED."""

_MANIFEST_COLUMNS = (
    *("Local Path", "Status", "Message", "URL", "task", "stage", "pipeline", "failure", "checks"),
    *("seconds", "memory_gb", "bytes", "sha256", "key"),
)


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
        record = _last_record(records, task.name, state)
        product = record.products[0] if record.products else {}
        row = (
            os.fspath(reduction.output_dir / product["file"]) if product else "",
            _MANIFEST_STATUS.get(state, "SKIPPED"),
            " ".join(_messages(state, record, messages.get(task.name, ()))),
            "",
            task.name,
            task.stage,
            task.work,
            record.kind_of_failure,
            "; ".join(f"{line['check']} {line['outcome']}" for line in record.checks),
            record.seconds,
            record.memory_gb,
            product.get("bytes", 0),
            product.get("sha256", ""),
            key(record.fingerprint) if record.fingerprint else "",
        )
        rows.append(row)
    return _table_of_tasks(rows, _MANIFEST_COLUMNS)


def _messages(state: str, record: Record, notes: Iterable[str]) -> Iterable[str]:
    """Return what there is to say of a task: notes on it, its failure, steps without effect."""
    lines = () if state == FAILED else record.checks
    problems = [
        f"{line['message']}. {line['action']}".strip()
        for line in lines
        if line["outcome"] not in ("ok", "note")
    ]
    return filter(None, (*notes, record.message, *problems))


def write_manifest(reduction: Reduction, table: Table) -> None:
    """Write the manifest into the output directory."""
    with write_whole(reduction.output_dir / MANIFEST) as temporary:
        table.write(temporary, format="ascii.ecsv", overwrite=True)
