"""How a task ended: from the answer of its process, or from the way in which it gave none."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ...io.processes import ServerLost
from ..resume.records import Record
from ..tasks import log_path
from . import memory
from .failures import Failure, describe, killed, of_exit

__all__ = ["Outcome", "keep_log", "outcome"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended.

    Attributes
    ----------
    record : Record
        Of a task that failed, not written yet.
    failure : Failure or None
        Why, if it failed.
    is_lost : bool
        Whether it may end otherwise when it is begun again.
    """

    record: Record
    failure: Failure | None = None
    is_lost: bool = False


def outcome(future, job, *, alone):
    """Return how a task ended.

    Parameters
    ----------
    future : `~concurrent.futures.Future` of `~.processes.Ended`
        That has come.
    job : dict
        As for `~.work.work`, and ``kills``: `memory.kills` when it began.
    alone : bool
        Whether it had the machine for itself.

    Returns
    -------
    Outcome
    """
    try:
        ended = future.result()
    except ServerLost as error:
        failure = describe("ServerLost", "", str(error))
        return Outcome(_failed(job, failure), failure, is_lost=True)
    except Exception as error:  # of the executor
        failure = describe("ServerLost", "", f"the executor lost the task: {error!r}")
        return Outcome(_failed(job, failure), failure, is_lost=True)
    if ended.result is not None:
        record = Record(**ended.result)
        if record.state == "done":
            return Outcome(record)
        kind, message = record.kind_of_failure, record.message
        return Outcome(record, Failure(kind, "", message, message), is_lost=kind == "memory")
    if ended.error is not None:
        failure = describe(
            ended.error["type"],
            ended.error["module"],
            ended.error["message"],
            ended.error["traceback"],
            ended.console.splitlines(),
        )
        return Outcome(_failed(job, failure), failure, is_lost=failure.kind == "memory")
    if ended.exit_code < 0:
        out_of_memory = memory.kills() > job["kills"]
        failure = killed(-ended.exit_code, out_of_memory=out_of_memory, alone=alone)
        return Outcome(_failed(job, failure), failure, is_lost=failure.kind != "code")
    failure = of_exit(ended.exit_code, ended.console)
    return Outcome(_failed(job, failure), failure)


def keep_log(name, job, output_dir):
    """Put the log of a task that failed where its product would be.

    Parameters
    ----------
    name : str
        The task.
    job : dict
        As for `outcome`.
    output_dir : path-like
        The output directory.
    """
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


def _failed(job, failure):
    return Record(
        task=job["task"]["name"],
        state="failed",
        fingerprint=job["fingerprint"],
        kind_of_failure=failure.kind,
        message=failure.message,
        context=job["context"],
        environment=job["environment"],
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
    )
