"""How far a run is: what may begin now, what it tells of itself, and how anybody reads that.

The state of a run stands in one file that is replaced whole, beside the lock of its directory.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from astropy.table import Table

from ...exceptions import StageError, refuse
from ...io.whole_files import close_unlocked, take_lock, write_whole
from ..tasks import HIDDEN, Record, read_records

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import Any, Self

    from ..._typing import FilePath
    from ..tasks import Task


PLAN_FILE = "plan.toml"
"""The plan of the last run, in the hidden directory."""

# Whoever asks for the state of a directory holds its lock for a moment.
_LOOKS, _LOOK_S = 5, 0.05

_COLUMNS = {
    "task": str,
    "stage": int,
    "pipeline": str,
    "state": str,
    "step": str,
    "seconds": float,
    "memory_gb": float,
    "message": str,
}


def now() -> str:
    """Return the time in UTC, ISO 8601: fine enough to tell a run from the end of the last one."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def scratch_root(output_dir: FilePath) -> Path:
    """Return the directory of what is being made."""
    return Path(output_dir) / HIDDEN / "scratch"


def done_by(task: Task) -> str:
    """Return the pipeline of a task, or the names of its corrections."""
    return task.pipeline or "+".join(str(c.get("name", "")) for c in task.corrections)


class Lock:
    """One run at a time in an output directory, which is made; a context manager.

    `InvalidRequestError` if another run is at work there, `StageError` if it cannot be written.
    """

    def __init__(self, output_dir: FilePath) -> None:
        path = _lock_path(output_dir)
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
        file = _lock_path(output_dir).open()
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
    with write_whole(_live_path(output_dir)) as temporary:
        temporary.write_text(json.dumps({**about, "tasks": tasks}, indent=1))


def read_live(output_dir: FilePath) -> dict:
    """Return what the last run told of itself; empty if there was none."""
    try:
        live = json.loads(_live_path(output_dir).read_text())
    except (OSError, ValueError):
        return {}
    return live if isinstance(live, dict) else {}


def status(output_dir: FilePath) -> Table:
    """Return how far each task of an output directory is, see `JwstStageClass.status`.

    A ``state`` is one of waiting, running, done, cached, failed, skipped, or interrupted if the run
    ended in the middle of it.
    """
    from ..planning.plan import Plan

    path = Path(output_dir, HIDDEN, PLAN_FILE)
    if not path.exists():
        refuse("output_dir", str(output_dir), ": no plan was run there.")
    plan, live = Plan.load(path), _live_now(output_dir)
    notes, records = live.pop("tasks", {}), read_records(output_dir)
    rows = []
    for task in plan.tasks:
        note, record = notes.get(task.name, {}), records.get(task.name)
        state, step = _state_of(note, record, live), ""
        if state == "running":
            step = step_of(scratch_root(output_dir) / note.get("scratch", ""))
        if record is None or state not in ("done", "cached", "failed"):
            record = Record(task.name, state)
        message = " ".join(filter(None, (note.get("message", ""), record.message)))
        about = task.name, task.stage, done_by(task), state, step
        rows.append((*about, record.seconds, record.memory_gb, message))
    table = table_of(rows, _COLUMNS)
    table.meta.update(live)
    return table


def _live_now(output_dir: FilePath) -> dict:
    """Return what the last run told of itself, its state interrupted if it is not at work."""
    live = read_live(output_dir)
    while live.get("state") == "running" and not is_locked(output_dir):
        # It may have come to its end just now, or another one have begun.
        before, live = live, read_live(output_dir)
        if live.get("state") == "running" and live.get("started") == before.get("started"):
            return {**live, "state": "interrupted"}
    return live


def _state_of(note: Mapping[str, str], record: Record | None, live: Mapping[str, str]) -> str:
    state = str(note.get("state", "waiting"))
    if state != "running" or live["state"] == "running":
        return state
    # It may have been finished after the last word of the run.
    if record is not None and record.ended >= live["started"]:
        return record.state
    return "interrupted"


def table_of(rows: list[tuple], columns: Mapping[str, type]) -> Table:
    """Return a table of tasks, two columns of which are ``seconds`` and ``memory_gb``."""
    table = Table(rows=rows or None, names=list(columns), dtype=list(columns.values()))
    table["seconds"].info.format = ".1f"
    table["memory_gb"].info.format = ".2f"
    return table


def step_of(scratch: FilePath) -> str:
    """Return the step that runs in a scratch directory; empty if it is not known."""
    try:
        return str(json.loads(Path(scratch, "step.json").read_text())["step"])
    except (OSError, ValueError, KeyError):
        return ""


def _lock_path(output_dir: FilePath) -> Path:
    return Path(output_dir) / HIDDEN / "lock"


def _live_path(output_dir: FilePath) -> Path:
    return Path(output_dir) / HIDDEN / "run.json"


# ---- which task may begin now: the order, the memory there is, and what failed before -----------

WAITING, RUNNING, DONE, CACHED = "waiting", "running", "done", "cached"
FAILED, SKIPPED = "failed", "skipped"

_GB = 1 << 30
_CGROUP = Path("/sys/fs/cgroup")


class Schedule:
    """The tasks of a run and how far they are. Knows nothing of processes."""

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        done: Collection[str] = (),
        workers: int = 1,
        memory_gb: float = float("inf"),
        partial: bool = False,
    ) -> None:
        self._tasks = {task.name: task for task in tasks}
        self.states = {name: CACHED if name in done else WAITING for name in self._tasks}
        self.messages: dict[str, list[str]] = {name: [] for name in self._tasks}
        self._workers, self._memory_gb, self._partial = workers, memory_gb, partial
        self._running: dict[str, tuple[Task, bool]] = {}
        self._alone: list[Task] = []

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not any(state in (WAITING, RUNNING) for state in self.states.values())

    def begin(self) -> Task | None:
        """Return the next task to begin, as begun; `None` if none may begin now."""
        self._skip()
        if self._alone:
            return None if self._running else self._start(self._alone.pop(0), alone=True)
        one_is_alone = any(alone for _, alone in self._running.values())
        if one_is_alone or len(self._running) >= self._workers:
            return None
        task = next(filter(self._fits, self._ready()), None)
        if task is None:
            return None
        if lost := self._missing(task):
            self.messages[task.name].append(f"made without {', '.join(sorted(set(lost)))}")
        # `_skip` gave up what cannot be reduced.
        return self._start(self._reduced(task) or task)

    def end(self, name: str, state: str) -> None:
        """Note how a task ended."""
        self._running.pop(name)
        self.states[name] = state

    def again_alone(self, name: str, why: str) -> None:
        """Put a task, which was begun, back: it is begun again when nothing else runs."""
        task, _ = self._running.pop(name)
        self.messages[name].append(f"Begun again, alone, since {why}.")
        self.states[name] = WAITING
        self._alone.append(task)

    def is_alone(self, name: str) -> bool:
        """Return True if a task that runs has the machine for itself."""
        return self._running[name][1]

    def _start(self, task: Task, *, alone: bool = False) -> Task:
        self.states[task.name] = RUNNING
        self._running[task.name] = (task, alone)
        return task

    def _skip(self) -> None:
        """Give up what cannot be made any more."""
        for task in self._ready():
            lost = self._missing(task)
            if lost and self._reduced(task) is None:
                self.states[task.name] = SKIPPED
                self.messages[task.name].append(f"not made: {', '.join(lost)} failed")

    def _ready(self) -> Iterator[Task]:
        """Yield the tasks that wait for nothing but memory, in the order of the plan."""
        for name, task in self._tasks.items():
            if self.states[name] == WAITING and not any(
                self.states.get(source) in (WAITING, RUNNING) for source in task.inputs
            ):
                yield task

    def _missing(self, task: Task) -> list[str]:
        return [name for name in task.inputs if self.states.get(name) in (FAILED, SKIPPED)]

    def _reduced(self, task: Task) -> Task | None:
        """Return a task without the inputs that are lost, `None` if it cannot do without them."""
        lost = set(self._missing(task))
        if not lost:
            return task
        members = tuple(member for member in task.members if member.input not in lost)
        is_enough = any(member.exptype == "science" for member in members)
        if not (self._partial and task.stage == 3 and is_enough):
            return None
        inputs = tuple(name for name in task.inputs if name not in lost)
        return replace(task, members=members, inputs=inputs)

    def _fits(self, task: Task) -> bool:
        in_use = sum(running.estimate.memory_gb for running, _ in self._running.values())
        return not self._running or in_use + task.estimate.memory_gb <= self._memory_gb


def available_gb() -> float:
    """Return the memory that processes can still take: of the machine, or of its container."""
    return min(_of_machine(), _of_cgroup())


def kills() -> int:
    """Return how many processes the system has ended for want of memory since it started."""
    for path in (_CGROUP / "memory.events", Path("/proc/vmstat")):
        with suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return 0


def _of_machine() -> float:
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024 / _GB
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
            limit_bytes = int((_CGROUP / limit).read_text())
            in_use = int((_CGROUP / usage).read_text())
            for line in (_CGROUP / stat).read_text().splitlines():
                name, _, value = line.partition(" ")
                # Pages of files that were read are given back when they are needed.
                in_use -= int(value) if name == cached else 0
            return max(limit_bytes - in_use, 0) / _GB
    return float("inf")
