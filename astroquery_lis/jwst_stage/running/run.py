"""The run of a plan: a process for each task, as many as memory allows, and only what is not done.

Whatever happens to a process, the others go on; whatever happens to the run, the next one of the
same plan takes it up where it was.
"""

from __future__ import annotations

import shutil
import time
import uuid
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from astropy import log

from ...exceptions import (
    CrdsUnavailable,
    InvalidRequestError,
    StageWarning,
    TaskError,
    refuse,
    warn,
)
from ...io.store import GB, check_space
from .. import pipeline
from ..planning.associations import listed
from ..planning.plan_inputs import by_reason, told_of
from ..planning.task_builder import with_references
from ..resume.fingerprints import Fingerprints, key
from ..resume.records import read_records, write_record
from ..resume.states import assess, checked_products, product_memo
from ..tasks import HIDDEN, log_path
from .outcomes import keep_log, make_manifest, outcome, write_manifest
from .schedule import DONE, FAILED, SKIPPED, Schedule, available_gb, cores, kills
from .status import PLAN_FILE, LiveState, Lock, TaskProgress, scratch_root, step_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from astropy.table import Table

    from ...io.processes import Ended
    from ..refs.crds_cache import CrdsEnvironment
    from ..refs.references import Resolution
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


def _check_arguments(executor: object, max_workers: object, on_error: str) -> None:
    if executor is not None and not isinstance(executor, Executor):
        must = (
            "must be a concurrent.futures.Executor, such as that of "
            "dask.distributed's Client.get_executor(), or None."
        )
        refuse("executor", executor, must)
    is_int = isinstance(max_workers, int) and not isinstance(max_workers, bool)
    if max_workers is not None and not (is_int and max_workers > 0):  # type: ignore[operator]
        msg = f"max_workers={max_workers!r} must be a positive int, or None for what memory allows."
        raise InvalidRequestError(msg, parameter="max_workers", value=max_workers)
    if on_error not in ("record", "raise"):
        refuse("on_error", on_error, "must be 'record' or 'raise'.")


def _start(job: dict, folder: str, variables: Mapping[str, str | None]) -> Future[Ended]:
    """Start the process of a task; return the future of how it ends."""
    return pipeline.processes().submit(_WORK, job, folder, environment=variables)


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
        self._fingerprints = Fingerprints(reduction, self._records)
        self._tasks = [with_references(task, plan, resolution) for task in plan.tasks]
        self._memory_gb = max(available_gb() - _RESERVE_GB, 0.0)
        states = {} if overwrite else assess(reduction)
        self._cached = {name for name, state in states.items() if state.state == "done"}
        workers = max_workers or cores()
        self._schedule = Schedule(
            self._tasks,
            done=self._cached,
            workers=workers,
            memory_gb=self._memory_gb if executor is None else float("inf"),
            partial=partial,
        )
        self._context = resolution.context
        self._variables = resolution.environment.variables(readonly=True)
        self._recorded = {k: v for k, v in environment.variables().items() if v}
        self._live = LiveState(
            output_dir,
            environment=self._recorded,
            context=resolution.context,
            workers=workers,
            memory_gb=round(min(self._memory_gb, 1e6), 3),
        )
        self._futures: dict[Future[Ended], str] = {}
        self._jobs: dict[str, dict] = {}
        self._tries: dict[str, int] = {}
        self._again: dict[str, str] = {}
        self._skipped: set[str] = set()

    def go(self, show_progress: bool) -> None:
        """Do all tasks; leave a state that can be taken up, whatever happens."""
        progress = TaskProgress(len(self._tasks), done=len(self._cached), show=show_progress)
        for task in self._tasks:
            self._live.note(task.name, "cached" if task.name in self._cached else "waiting")
        end, begun = "interrupted", time.monotonic()
        with ExitStack() as stack:
            stack.callback(lambda: self._live.end(end))
            stack.callback(progress.close)
            if not self._schedule.finished:
                self._check_disk()
                self._live.write()
                self._prepare()
                stack.callback(shutil.rmtree, scratch_root(self._output_dir), ignore_errors=True)
                stack.callback(self._cancel)
            while not self._schedule.finished:
                self._begin()
                if self._futures:
                    ended = wait(self._futures, _LOOK_S, FIRST_COMPLETED).done
                    for future in ended:
                        progress.update(self._end(future))
                    if ended:
                        self._live.write()
                    running = {name: step_of(job["scratch"]) for name, job in self._jobs.items()}
                    progress.steps(running)
            end = "finished"
        log.info(self._summary(time.monotonic() - begun))

    def manifest(self) -> Table:
        """Return the manifest."""
        return make_manifest(
            self._reduction,
            self._records,
            states=self._schedule.states,
            cached=self._cached,
            notes=(self._schedule.reasons, self._again),
        )

    def warn(self) -> None:
        """Warn of what this run made and what had no effect."""
        problems = (
            (name, f"{line['message']}. {line['action']}")
            for name, state in self._schedule.states.items()
            if state == DONE and name not in self._cached
            for line in self._records[name].checks
            if line["outcome"] == "no effect"
        )
        texts = [
            f"{listed([name for name, _ in alike])}: {told_of(alike)}"
            for alike in by_reason(problems)
        ]
        if texts:
            warn("\n".join(texts), StageWarning)

    def _check_disk(self) -> None:
        """Refuse to begin what the disk has no room for."""
        states = self._schedule.states
        due_gb = sum(t.estimate.disk_gb for t in self._tasks if states[t.name] != DONE)
        check_space(self._output_dir, round(due_gb * GB))

    def _prepare(self) -> None:
        """Let the server do what every task would spend its first seconds on."""
        if self._executor is None:
            states = self._schedule.states
            names = {t.pipeline for t in self._tasks if states[t.name] != DONE and t.pipeline}
            pipeline.processes().prepare(_PREPARE, {"pipelines": sorted(names)})

    def _begin(self) -> None:
        """Begin what may begin."""
        is_changed = False
        while (task := self._schedule.begin()) is not None:
            is_changed = True
            fingerprint = self._fingerprint(task)
            if self._is_done(task, fingerprint):
                self._cached.add(task.name)
                self._schedule.end(task.name, DONE)
                self._live.note(task.name, "cached")
            else:
                self._submit(task, fingerprint)
        skipped = {n for n, s in self._schedule.states.items() if s == SKIPPED} - self._skipped
        for name in skipped:
            self._live.note(name, "skipped", message=self._schedule.reasons[name])
        self._skipped |= skipped
        if is_changed or skipped:
            self._live.write()

    def _submit(self, task: Task, fingerprint: dict) -> None:
        """Start the process of a task, here or by the executor."""
        scratch = scratch_root(self._output_dir) / uuid.uuid4().hex
        scratch.mkdir(parents=True)
        # Stage 3 may keep its exposures in memory, unless there is too little of it.
        is_large = task.stage == 3 and task.estimate.memory_gb > self._memory_gb
        job: dict[str, Any] = {
            "task": task.to_dict(),
            "output_dir": str(self._output_dir),
            "scratch": str(scratch),
            "fingerprint": fingerprint,
            "key": key(fingerprint),
            "context": self._context,
            "environment": self._recorded,
            "in_memory": False if is_large else None,
            "kills": kills(),
        }
        self._live.note(task.name, "running", scratch=scratch.name)
        if self._executor is None:
            future = _start(job, str(scratch), self._variables)
        else:
            future = self._executor.submit(_do, job, str(scratch), self._variables)
        self._futures[future] = task.name
        self._jobs[task.name] = job
        self._tries[task.name] = self._tries.get(task.name, 0) + 1

    def _fingerprint(self, task: Task) -> dict:
        if task.name not in self._schedule.reasons:
            return self._fingerprints.of(task.name)
        # Made of fewer members than the plan has.
        plan = self._reduction.plan
        tasks = tuple(task if t.name == task.name else t for t in plan.tasks)
        reduction = replace(self._reduction, plan=replace(plan, tasks=tasks))
        return Fingerprints(reduction, self._records).of(task.name)

    def _is_done(self, task: Task, fingerprint: dict) -> bool:
        """Return True if a mosaic of fewer members than planned is there already."""
        if self._overwrite or task.name not in self._schedule.reasons:
            return False
        record = self._records.get(task.name)
        if record is None or record.state != "done" or key(record.fingerprint) != key(fingerprint):
            return False
        lost, spoilt = checked_products(
            task, record, self._output_dir, product_memo(self._output_dir)
        )
        return not lost and not spoilt

    def _end(self, future: Future[Ended]) -> int:
        """Note how a task ended; return how many are finished by it."""
        name = self._futures.pop(future)
        job = self._jobs.pop(name)
        ended = outcome(future, job, alone=self._schedule.is_alone(name))
        if ended.is_lost and ended.failure is not None and self._tries[name] == 1:
            self._schedule.again_alone(name)
            self._again[name] = f"Begun again, alone, since {ended.failure.cause}."
            self._live.note(name, "waiting", message=self._again[name])
            shutil.rmtree(job["scratch"], ignore_errors=True)
            return 0
        record = ended.record
        is_done = record.state == "done"
        if not is_done:
            write_record(self._output_dir, record)
            keep_log(name, job, self._output_dir)
        self._records[name] = record
        self._schedule.end(name, DONE if is_done else FAILED)
        self._live.note(name, record.state, seconds=record.seconds, message=record.message)
        shutil.rmtree(job["scratch"], ignore_errors=True)
        if not is_done and self._stop_at_error:
            self._live.write()
            log_file = log_path(name, self._output_dir)
            msg = f"{name}: {record.message} The log is {log_file}."
            raise TaskError(msg)
        return 1

    def _cancel(self) -> None:
        for future in self._futures:
            future.cancel()
        if self._executor is None and self._futures:
            pipeline.processes().kill(self._futures)

    def _summary(self, seconds: float) -> str:
        states = list(self._schedule.states.values())
        parts = [f"{states.count(DONE) - len(self._cached)} complete"]
        parts += [f"{len(self._cached)} there already"] if self._cached else []
        parts += [f"{states.count(s)} {s}" for s in (FAILED, SKIPPED) if states.count(s)]
        return f"{len(states)} tasks: {', '.join(parts)}, in {seconds:.1f} s."
