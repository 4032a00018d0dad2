"""How far a run is, or was when it ended: read from its files, at any time, by any process."""

import json
from pathlib import Path

from astropy.table import Table

from ...exceptions import InvalidRequestError
from ..resume.records import read_records
from ..tasks import HIDDEN
from .live import is_locked, read_live, scratch_root

__all__ = ["status", "step_of"]

_TYPES = {
    "task": str,
    "stage": int,
    "pipeline": str,
    "state": str,
    "step": str,
    "seconds": float,
    "memory_gb": float,
    "message": str,
}


def status(output_dir):
    """Return how far each task of an output directory is.

    Parameters
    ----------
    output_dir : path-like
        Where a run is at work, or was.

    Returns
    -------
    `~astropy.table.Table`
        ``task``, ``stage``, ``pipeline``, ``state`` (waiting, running, done, cached, failed,
        skipped, or interrupted if the run ended in the middle of it), the ``step`` that runs,
        ``seconds``, ``memory_gb``, ``message``.  ``meta`` has the ``state`` of the run (running,
        finished, interrupted), ``started``, ``ended``, ``pid``, ``host``, ``workers`` and the
        CRDS ``environment`` and ``context``.

    Raises
    ------
    InvalidRequestError
        If no run was ever begun there.
    """
    from ..planning.plan import Plan

    path = Path(output_dir, HIDDEN, "plan.toml")
    if not path.exists():
        msg = f"output_dir={str(output_dir)!r}: no plan was run there."
        raise InvalidRequestError(msg, parameter="output_dir", value=str(output_dir))
    plan = Plan.load(path)
    live, records = read_live(output_dir), read_records(output_dir)
    tasks = live.pop("tasks", {})
    is_running = live.get("state") == "running" and is_locked(output_dir)
    rows = []
    for task in plan.tasks:
        told, record = tasks.get(task.name, {}), records.get(task.name)
        state, step = told.get("state", "waiting"), ""
        if state == "running" and is_running:
            step = step_of(scratch_root(output_dir) / told.get("scratch", ""))
        elif state == "running":
            # It may have been finished after the last word of the run.
            later = record is not None and record.ended >= told["at"]
            state = record.state if later else "interrupted"
        known = record is not None and state in ("done", "cached", "failed")
        rows.append(
            (
                task.name,
                task.stage,
                task.pipeline or "+".join(str(c.get("name", "")) for c in task.corrections),
                state,
                step,
                record.seconds if known else 0.0,
                record.memory_gb if known else 0.0,
                told.get("message", "") or (record.message if known else ""),
            )
        )
    table = Table(rows=rows or None, names=list(_TYPES), dtype=list(_TYPES.values()))
    table["seconds"].info.format = ".1f"
    table["memory_gb"].info.format = ".2f"
    if live.get("state") == "running" and not is_running:
        live["state"] = "interrupted"
    table.meta.update(live)
    return table


def step_of(scratch):
    """Return the step that runs in a scratch directory.

    Parameters
    ----------
    scratch : path-like
        The directory of a task.

    Returns
    -------
    str
        Empty if it is not known.
    """
    try:
        return str(json.loads(Path(scratch, "step.json").read_text())["step"])
    except (OSError, ValueError, KeyError):
        return ""
