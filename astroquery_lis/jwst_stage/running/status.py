"""How far a run is: what it tells of itself while it runs, and how anybody reads that at any time.

The state of a run stands in one file that is replaced whole, beside the lock of its directory.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from astropy.table import Table

from ...exceptions import StageError, refuse
from ...io.store import close_unlocked, write_whole
from ..resume.records import read_records
from ..tasks import HIDDEN

try:
    import fcntl
except ImportError:  # Windows, on which jwst does not run
    fcntl = None

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO, Any, Self

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
            if _take(self._file):
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
        return not _take(file, shared=True)
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
    plan = Plan.load(path)
    live, records = read_live(output_dir), read_records(output_dir)
    notes = live.pop("tasks", {})
    is_running = live.get("state") == "running" and is_locked(output_dir)
    rows = []
    for task in plan.tasks:
        note, record = notes.get(task.name, {}), records.get(task.name)
        state, step = str(note.get("state", "waiting")), ""
        if state == "running" and not is_running:
            # It may have been finished after the last word of the run.
            is_later = record is not None and record.ended >= live["started"]
            state = record.state if record is not None and is_later else "interrupted"
        if state == "running":
            step = step_of(scratch_root(output_dir) / note.get("scratch", ""))
        seconds, memory_gb, message = 0.0, 0.0, ""
        if record is not None and state in ("done", "cached", "failed"):
            seconds, memory_gb, message = record.seconds, record.memory_gb, record.message
        message = " ".join(filter(None, (note.get("message", ""), message)))
        row = (task.name, task.stage, done_by(task), state, step, seconds, memory_gb, message)
        rows.append(row)
    table = table_of(rows, _COLUMNS)
    if live.get("state") == "running" and not is_running:
        live["state"] = "interrupted"
    table.meta.update(live)
    return table


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


def _take(file: IO[str], *, shared: bool = False) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _lock_path(output_dir: FilePath) -> Path:
    return Path(output_dir) / HIDDEN / "lock"


def _live_path(output_dir: FilePath) -> Path:
    return Path(output_dir) / HIDDEN / "run.json"
