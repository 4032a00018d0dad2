"""The run of a plan: a process for each task, as many as memory allows, and only what is not done.

Whatever happens to a process, the others go on; whatever happens to the run, the next one of the
same plan takes it up where it was.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
import uuid
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from astropy import log

from ...exceptions import (
    CrdsUnavailable,
    StageWarning,
    TaskError,
    refuse,
    warn,
)
from ...io.jobs import Progress
from ...io.whole_files import GB, check_space
from ...io.workers import cores
from ...survey.request import as_choice, as_count
from .. import pipelines
from ..pipelines import with_references
from ..planning.groups import listed
from ..planning.make_plan import by_reason, told_of
from ..states import Fingerprints, assess
from ..tasks import HIDDEN, Record, log_path, read_records, write_record
from .progress import (
    CACHED,
    DONE,
    FAILED,
    PLAN_FILE,
    RUNNING,
    SKIPPED,
    WAITING,
    Lock,
    available_gb,
    keep_log,
    kills,
    make_manifest,
    now,
    outcome,
    scratch_root,
    step_of,
    write_live,
    write_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import Any

    from astropy.table import Table

    from ...io.processes import Ended
    from ..crds_cache import CrdsEnvironment
    from ..references import Resolution
    from ..tasks import Reduction, Task

_LOOK_S = 0.5
_RESERVE_GB = 0.5
_WORK = "astroquery_lis.jwst_stage.running.work:work"
_PREPARE = "astroquery_lis.jwst_stage.running.work:prepare"


def run(
    reduction: Reduction,
    *,
    environment: CrdsEnvironment | None = None,
    executor: Executor | None = None,
    max_workers: int | None = None,
    overwrite: bool = False,
    partial: bool = False,
    on_error: str = "record",
    show_progress: bool = True,
) -> Table:
    """Do what a plan says and is not done, see `JwstStageClass.run`.

    The ``environment`` is what was asked for, to be recorded; by default that of the resolution.
    """
    resolution = _checked_resolution(reduction)
    _check_arguments(executor, max_workers, on_error)
    output_dir = reduction.output_dir
    with Lock(output_dir):
        # What the last run told is over, also while the inputs of this one are being looked at.
        write_live(output_dir, {"state": "running", "started": now(), "ended": ""}, {})
        shutil.rmtree(scratch_root(output_dir), ignore_errors=True)
        reduction.plan.save(output_dir / HIDDEN / PLAN_FILE)
        current = _Run(
            reduction,
            resolution,
            environment or resolution.environment,
            executor,
            max_workers=max_workers,
            overwrite=overwrite,
            partial=partial,
            stop_at_error=on_error == "raise",
        )
        current.go(show_progress)
        table = current.manifest()
        write_manifest(reduction, table)
    current.warn()
    return table


def _checked_resolution(reduction: Reduction) -> Resolution:
    resolution = reduction.resolution
    if resolution is None:
        msg = "A run needs the references of now: a Reduction with a resolution."
        raise ValueError(msg)
    if resolution.missing:
        msg = (
            f"{len(resolution.missing)} reference files are missing: "
            f"{', '.join(resolution.missing)}. Run JwstStage.prefetch_references(plan) first."
        )
        raise CrdsUnavailable(msg, missing=resolution.missing)
    return resolution


def _check_arguments(executor: object, max_workers: int | None, on_error: str) -> None:
    if executor is not None and not isinstance(executor, Executor):
        must = (
            "must be a concurrent.futures.Executor, such as that of "
            "dask.distributed's Client.get_executor(), or None."
        )
        refuse("executor", executor, must)
    if max_workers is not None:
        as_count("max_workers", max_workers, 1, "processes")
    as_choice("on_error", on_error, ("record", "raise"))


def _start(job: dict, folder: str, variables: Mapping[str, str | None]) -> Future[Ended]:
    """Start the process of a task; return the future of how it ends."""
    return pipelines.processes().submit(_WORK, job, folder, environment=variables)


def _do(job: dict, folder: str, variables: Mapping[str, str | None]) -> Ended:
    """Do a task from a worker of an executor: in a process that it starts there."""
    return _start(job, folder, variables).result()


class _Run:
    """A run: its schedule, its processes, and what it tells of itself."""

    def __init__(
        self,
        reduction: Reduction,
        resolution: Resolution,
        environment: CrdsEnvironment,
        executor: Executor | None,
        *,
        max_workers: int | None,
        overwrite: bool,
        partial: bool,
        stop_at_error: bool,
    ) -> None:
        plan, output_dir = reduction.plan, reduction.output_dir
        self._reduction, self._output_dir, self._executor = reduction, output_dir, executor
        self._overwrite, self._stop_at_error = overwrite, stop_at_error
        self._records = read_records(output_dir)
        self._tasks = {t.name: with_references(t, plan, resolution) for t in plan.tasks}
        self._memory_gb = max(available_gb() - _RESERVE_GB, 0.0)
        self._fingerprints = Fingerprints(reduction, self._records)
        states = {} if overwrite else assess(reduction, self._fingerprints)
        workers = max_workers or cores()
        self._schedule = Schedule(
            list(self._tasks.values()),
            done={name for name, state in states.items() if state.state == "done"},
            workers=workers,
            memory_gb=self._memory_gb if executor is None else float("inf"),
            partial=partial,
        )
        self._variables = resolution.environment.variables(readonly=True)
        self._about: dict[str, Any] = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": now(),
            "environment": {k: v for k, v in environment.variables().items() if v},
            "context": resolution.context,
            "workers": workers,
            "memory_gb": round(min(self._memory_gb, 1e6), 3),
        }
        self._told: dict[str, str] = {}
        self._jobs: dict[Future[Ended], dict] = {}

    def go(self, show_progress: bool) -> None:
        """Do all tasks; leave a state that can be taken up, whatever happens."""
        over = self._n_over()
        progress = Progress(
            len(self._tasks), done=over, show=show_progress, label="tasks", unit="task"
        )
        end, begun = "interrupted", time.monotonic()
        with ExitStack() as stack:
            stack.callback(self._fingerprints.save)
            stack.callback(lambda: self._tell(end))
            stack.callback(progress.close)
            if not self._schedule.finished:
                self._check_disk()
                self._tell()
                self._prepare()
                stack.callback(shutil.rmtree, scratch_root(self._output_dir), ignore_errors=True)
                stack.callback(self._cancel)
            while not self._schedule.finished:
                self._begin()
                self._tell_changes()
                if self._jobs:
                    for future in wait(self._jobs, _LOOK_S, FIRST_COMPLETED).done:
                        self._end(future)
                    self._tell_changes()
                before, over = over, self._n_over()
                progress.update(over - before)
                progress.note(", ".join(map(_step_of_job, self._jobs.values())))
            end = "finished"
        log.info(self._summary(time.monotonic() - begun))

    def _n_over(self) -> int:
        states = Counter(self._schedule.states.values())
        return len(self._tasks) - states[WAITING] - states[RUNNING]

    def _tell(self, state: str = "running") -> None:
        """Write down how far the run is."""
        self._told = dict(self._schedule.states)
        scratch = {j["task"]["name"]: Path(j["scratch"]).name for j in self._jobs.values()}
        tasks = {
            name: {
                "state": now_is,
                "message": " ".join(self._schedule.messages[name]),
                "scratch": scratch.get(name, ""),
            }
            for name, now_is in self._told.items()
        }
        about = {"state": state, "ended": "" if state == "running" else now(), **self._about}
        write_live(self._output_dir, about, tasks)

    def _tell_changes(self) -> None:
        if self._schedule.states != self._told:
            self._tell()

    def manifest(self) -> Table:
        """Return the manifest."""
        schedule = self._schedule
        return make_manifest(
            self._reduction, self._records, states=schedule.states, messages=schedule.messages
        )

    def warn(self) -> None:
        """Warn of what this run made and what had no effect."""
        problems = (
            (name, f"{line['message']}. {line['action']}")
            for name, state in self._schedule.states.items()
            if state == DONE
            for line in self._records[name].checks
            if line["outcome"] == "no effect"
        )
        texts = [
            f"{listed([name for name, _ in alike])}: {told_of(alike)}"
            for alike in by_reason(problems)
        ]
        if texts:
            warn("\n".join(texts), StageWarning)

    def _due(self) -> list[Task]:
        """Return the tasks that are not begun."""
        states = self._schedule.states
        return [task for name, task in self._tasks.items() if states[name] == WAITING]

    def _check_disk(self) -> None:
        """Refuse to begin what the disk has no room for."""
        due_gb = sum(task.estimate.disk_gb for task in self._due())
        check_space(self._output_dir, round(due_gb * GB))

    def _prepare(self) -> None:
        """Let the server do what every task would spend its first seconds on."""
        if self._executor is None:
            names = {task.pipeline for task in self._due() if task.pipeline}
            pipelines.processes().prepare(_PREPARE, {"pipelines": sorted(names)})

    def _begin(self) -> None:
        """Begin what may begin."""
        while (task := self._schedule.begin()) is not None:
            # Hours may have gone since the run began, and an input may have been replaced.
            fingerprint = self._fingerprints.renew(task)
            if self._is_there(task):
                self._schedule.end(task.name, CACHED)
            else:
                self._submit(task, fingerprint)

    def _is_there(self, task: Task) -> bool:
        """Return True for what is made of fewer members than in the plan, and is there already."""
        if task is self._tasks[task.name] or self._overwrite:
            return False
        plan = self._reduction.plan
        tasks = tuple(task if t.name == task.name else t for t in plan.tasks)
        reduction = replace(self._reduction, plan=replace(plan, tasks=tasks))
        states = assess(reduction, self._fingerprints, names=[task.name])
        return states[task.name].state == "done"

    def _submit(self, task: Task, fingerprint: dict) -> None:
        """Start the process of a task, here or by the executor."""
        scratch = scratch_root(self._output_dir) / uuid.uuid4().hex
        scratch.mkdir(parents=True)
        # Stage 3 may keep its exposures in memory, unless there is too little of it.
        is_large = task.stage == 3 and task.estimate.memory_gb > self._memory_gb
        record = Record(
            task.name,
            "failed",
            fingerprint,
            context=self._about["context"],
            environment=self._about["environment"],
        )
        job: dict[str, Any] = {
            "task": task.to_dict(),
            "output_dir": str(self._output_dir),
            "scratch": str(scratch),
            "record": asdict(record),
            "in_memory": False if is_large else None,
            "kills": kills(),
        }
        if self._executor is None:
            future = _start(job, str(scratch), self._variables)
        else:
            future = self._executor.submit(_do, job, str(scratch), self._variables)
        self._jobs[future] = job

    def _end(self, future: Future[Ended]) -> None:
        """Note how a task ended."""
        job = self._jobs.pop(future)
        name, schedule = job["task"]["name"], self._schedule
        is_second = schedule.is_alone(name)
        record, again = outcome(future, job, alone=is_second)
        if again and not is_second:
            schedule.again_alone(name, again)
        else:
            self._note(record, job)
        shutil.rmtree(job["scratch"], ignore_errors=True)
        if schedule.states[name] == FAILED and self._stop_at_error:
            msg = f"{name}: {record.message} The log is {log_path(name, self._output_dir)}."
            raise TaskError(msg)

    def _note(self, record: Record, job: dict) -> None:
        """Keep what became of a task; the record of one that is done is written already."""
        is_done = record.state == "done"
        if not is_done:
            write_record(self._output_dir, record)
            keep_log(record.task, job, self._output_dir)
        self._records[record.task] = record
        self._schedule.end(record.task, DONE if is_done else FAILED)

    def _cancel(self) -> None:
        for future in self._jobs:
            future.cancel()
        if self._executor is None and self._jobs:
            pipelines.processes().kill(self._jobs)

    def _summary(self, seconds: float) -> str:
        states = list(self._schedule.states.values())
        parts = [f"{states.count(DONE)} complete"]
        parts += [f"{states.count(CACHED)} there already"] if CACHED in states else []
        parts += [f"{states.count(s)} {s}" for s in (FAILED, SKIPPED) if s in states]
        return f"{len(states)} tasks: {', '.join(parts)}, in {seconds:.1f} s."


def _step_of_job(job: dict) -> str:
    stem = job["task"]["name"].rpartition("/")[2].removesuffix(".fits")
    return f"{stem} {step_of(job['scratch'])}".strip()


# ---- which task may begin now: the order, the memory there is, and what failed before -----------


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
        self._running: dict[str, Task] = {}
        self._alone: list[Task] = []
        self._lone: Task | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not any(state in (WAITING, RUNNING) for state in self.states.values())

    def begin(self) -> Task | None:
        """Return the next task to begin, as begun; `None` if none may begin now."""
        self._skip()
        if self._alone:
            return None if self._running else self._start_alone()
        if self._lone is not None or len(self._running) >= self._workers:
            return None
        task = next(filter(self._fits, self._ready()), None)
        return None if task is None else self._start(self._as_it_can_be(task))

    def end(self, name: str, state: str) -> None:
        """Note how a task ended."""
        self._remove(name)
        self.states[name] = state

    def again_alone(self, name: str, why: str) -> None:
        """Put a task, which was begun, back: it is begun again when nothing else runs."""
        self._alone.append(self._remove(name))
        self.messages[name].append(f"Begun again, alone, since {why}.")
        self.states[name] = WAITING

    def is_alone(self, name: str) -> bool:
        """Return True if a task that runs has the machine for itself."""
        return self._running[name] is self._lone

    def _start(self, task: Task) -> Task:
        self.states[task.name] = RUNNING
        self._running[task.name] = task
        return task

    def _start_alone(self) -> Task:
        self._lone = self._alone.pop(0)
        return self._start(self._lone)

    def _remove(self, name: str) -> Task:
        self._lone = None
        return self._running.pop(name)

    def _skip(self) -> None:
        """Give up what cannot be made any more."""
        for task in self._ready():
            if self._reduced(task) is None:
                self.states[task.name] = SKIPPED
                lost = ", ".join(self._missing(task))
                self.messages[task.name].append(f"not made: {lost} failed")

    def _as_it_can_be(self, task: Task) -> Task:
        """Return a task that `_skip` did not give up, as far as its inputs are there."""
        if lost := self._missing(task):
            self.messages[task.name].append(f"made without {', '.join(sorted(set(lost)))}")
        return self._reduced(task) or task

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
        in_use = sum(running.estimate.memory_gb for running in self._running.values())
        return not self._running or in_use + task.estimate.memory_gb <= self._memory_gb
