"""The run of a plan: a process for each task, as many as memory allows, and only what is not done.

Whatever happens to a process, the others go on; whatever happens to the run, the next one of the
same plan takes it up where it was.
"""

import os
import shutil
import time
import uuid
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from astropy import log

from ...exceptions import CrdsUnavailable, InvalidRequestError, StageWarning, TaskError, warn
from .. import pipeline
from ..planning.plan_build import with_references
from ..resume.fingerprints import Fingerprints, key
from ..resume.records import read_records, write_record
from ..resume.states import assess
from ..tasks import HIDDEN, Reduction, log_path
from . import memory
from .live import LiveState, Lock, scratch_root
from .manifest import write_manifest
from .outcomes import keep_log, outcome
from .progress import TaskProgress
from .schedule import DONE, FAILED, SKIPPED, Schedule

__all__ = ["PLAN_FILE", "run"]

PLAN_FILE = "plan.toml"
"""The plan of the last run, in the hidden directory."""

_LOOK_S = 0.5
_RESERVE_GB = 0.5
_WORK = "astroquery_lis.jwst_stage.running.work:work"
_WARM = "astroquery_lis.jwst_stage.running.warm:warm"


def run(
    plan,
    *,
    output_dir,
    resolution,
    environment=None,
    executor=None,
    max_workers=None,
    overwrite=False,
    partial=False,
    on_error="record",
    show_progress=True,
):
    """Do what a plan says and is not done.

    Parameters
    ----------
    plan : Plan
        What there is to do.
    output_dir : path-like
        Where the products go.
    resolution : `~.references.Resolution`
        The references that are used, all of them in the cache.
    environment : CrdsEnvironment, optional
        What was asked for, to be recorded; by default that of ``resolution``.
    executor : `~concurrent.futures.Executor`, optional
        Where the processes of the tasks are started, for instance on a cluster; it sees the same
        files.  By default they are started here.
    max_workers : int, optional
        Tasks at once; by default what the cores and the memory allow.
    overwrite : bool, optional
        Whether to make again what is done.
    partial : bool, optional
        Whether stage 3 goes on without the exposures that failed.
    on_error : {'record', 'raise'}, optional
        Whether the first task that fails ends the run.
    show_progress : bool, optional
        Whether to show a line with what runs, where there is a terminal.

    Returns
    -------
    `~astropy.table.Table`
        The manifest, see `~.manifest.make_manifest`.

    Raises
    ------
    CrdsUnavailable
        If references are missing.
    InvalidRequestError
        If an argument is wrong, or another run is at work in ``output_dir``.
    TaskError
        With ``on_error='raise'``.

    Warns
    -----
    StageWarning
        If a step says that it is complete and had no effect.
    """
    _check_arguments(executor, max_workers, on_error, resolution)
    output_dir = Path(os.path.abspath(os.path.expanduser(output_dir)))
    with Lock(output_dir):
        shutil.rmtree(scratch_root(output_dir), ignore_errors=True)
        plan.save(output_dir / HIDDEN / PLAN_FILE)
        going = _Run(
            plan,
            output_dir,
            resolution,
            environment or resolution.environment,
            executor=executor,
            max_workers=max_workers,
            overwrite=overwrite,
            partial=partial,
            stop_at_error=on_error == "raise",
        )
        going.go(show_progress)
        table = going.manifest()
    going.warn()
    return table


def _check_arguments(executor, max_workers, on_error, resolution):
    if executor is not None and not isinstance(executor, Executor):
        msg = (
            f"executor={executor!r} must be a concurrent.futures.Executor, such as that of "
            "dask.distributed's Client.get_executor(), or None."
        )
        raise InvalidRequestError(msg, parameter="executor", value=executor)
    whole = isinstance(max_workers, int) and not isinstance(max_workers, bool)
    if max_workers is not None and not (whole and max_workers > 0):
        msg = f"max_workers={max_workers!r} must be a positive int, or None for what memory allows."
        raise InvalidRequestError(msg, parameter="max_workers", value=max_workers)
    if on_error not in ("record", "raise"):
        msg = f"on_error={on_error!r} must be 'record' or 'raise'."
        raise InvalidRequestError(msg, parameter="on_error", value=on_error)
    if resolution.missing:
        msg = (
            f"{len(resolution.missing)} reference files are missing: "
            f"{', '.join(resolution.missing)}. Run JwstStage.prefetch_references(plan) first."
        )
        raise CrdsUnavailable(msg, missing=resolution.missing)


def _start(job, folder, variables):
    """Start the process of a task; return the future of how it ends."""
    return pipeline.processes().submit(_WORK, job, folder, environment=variables)


def _do(job, folder, variables):
    """Do a task from a worker of an executor: in a process that it starts there."""
    return _start(job, folder, variables).result()


class _Run:
    """A run: its schedule, its processes, and what it tells of itself."""

    def __init__(
        self,
        plan,
        output_dir,
        resolution,
        environment,
        *,
        executor,
        max_workers,
        overwrite,
        partial,
        stop_at_error,
    ):
        self._plan, self._output_dir, self._resolution = plan, output_dir, resolution
        self._records = read_records(output_dir)
        reduction = Reduction(plan, output_dir, resolution)
        self._fingerprints = Fingerprints(reduction, self._records)
        self._tasks = [with_references(task, plan, resolution) for task in plan.tasks]
        self._memory_gb = max(memory.available_gb() - _RESERVE_GB, 0.0)
        workers = max_workers or memory.cores()
        self._overwrite, self._stop_at_error = overwrite, stop_at_error
        states = {} if overwrite else assess(reduction)
        self._cached = {name for name, state in states.items() if state.state == "done"}
        self._schedule = Schedule(
            self._tasks,
            done=self._cached,
            workers=workers,
            memory_gb=self._memory_gb if executor is None else float("inf"),
            partial=partial,
        )
        self._variables = resolution.environment.variables(readonly=True)
        self._recorded = {k: v for k, v in environment.variables().items() if v}
        self._live = LiveState(
            output_dir,
            environment=self._recorded,
            context=resolution.context,
            workers=workers,
            memory_gb=round(min(self._memory_gb, 1e6), 3),
        )
        self._executor = executor
        self._futures, self._jobs, self._tries, self._again = {}, {}, {}, {}
        self._skipped = set()

    def go(self, show_progress):
        """Do all tasks; leave a state that can be taken up, whatever happens."""
        n_todo = sum(state != DONE for state in self._schedule.states.values())
        progress = TaskProgress(len(self._tasks), done=len(self._cached), show=show_progress)
        for task in self._tasks:
            self._live.note(task.name, "cached" if task.name in self._cached else "waiting")
        end, begun = "interrupted", time.monotonic()
        with ExitStack() as stack:
            stack.callback(lambda: self._live.end(end))
            stack.callback(progress.close)
            if not n_todo:
                end = "finished"
                log.info(self._summary(time.monotonic() - begun))
                return
            self._live.write()
            if self._executor is None:
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
                    progress.steps(self._steps())
            end = "finished"
        log.info(self._summary(time.monotonic() - begun))

    def manifest(self):
        """Return the manifest, and write it to the output directory."""
        return write_manifest(
            self._output_dir,
            self._plan,
            self._records,
            states=self._schedule.states,
            cached=self._cached,
            reasons=self._schedule.reasons,
            again=self._again,
        )

    def warn(self):
        """Warn of what this run made and what had no effect."""
        told = []
        for name, state in self._schedule.states.items():
            if state == DONE and name not in self._cached:
                told += [
                    f"{name}: {line['message']}. {line['action']}"
                    for line in self._records[name].checks
                    if line["outcome"] == "no effect"
                ]
        if told:
            warn("\n".join(told), StageWarning)

    def _prepare(self):
        """Let the server do what every task would spend its first seconds on."""
        todo = [t for t in self._tasks if self._schedule.states[t.name] != DONE and t.pipeline]
        names = list(dict.fromkeys(task.pipeline for task in todo))
        pipeline.processes().prepare(_WARM, {"pipelines": names})

    def _submit(self, job, folder):
        """Return the future of how a task ends, which was started here or by the executor."""
        if self._executor is None:
            return _start(job, str(folder), self._variables)
        return self._executor.submit(_do, job, str(folder), self._variables)

    def _begin(self):
        """Begin what may begin."""
        begun = False
        while (task := self._schedule.begin()) is not None:
            begun = True
            found = self._fingerprint(task)
            if self._is_done(task, found):
                self._cached.add(task.name)
                self._schedule.end(task.name, DONE)
                self._live.note(task.name, "cached")
                continue
            scratch = scratch_root(self._output_dir) / uuid.uuid4().hex
            scratch.mkdir(parents=True)
            job = {
                "task": task.to_dict(),
                "output_dir": str(self._output_dir),
                "scratch": str(scratch),
                "fingerprint": found,
                "key": key(found),
                "context": self._resolution.context,
                "environment": self._recorded,
                "in_memory": self._in_memory(task),
                "kills": memory.kills(),
            }
            self._live.note(task.name, "running", scratch=scratch.name)
            future = self._submit(job, scratch)
            self._futures[future] = task.name
            self._jobs[task.name] = job
            self._tries[task.name] = self._tries.get(task.name, 0) + 1
        skipped = {n for n, s in self._schedule.states.items() if s == SKIPPED} - self._skipped
        for name in skipped:
            self._live.note(name, "skipped", message=self._schedule.reasons[name])
        self._skipped |= skipped
        if begun or skipped:
            self._live.write()

    def _fingerprint(self, task):
        if task.name not in self._schedule.reasons:
            return self._fingerprints.of(task.name)
        # Made of fewer members than the plan has.
        tasks = tuple(task if t.name == task.name else t for t in self._plan.tasks)
        plan = replace(self._plan, tasks=tasks)
        reduction = Reduction(plan, self._output_dir, self._resolution)
        return Fingerprints(reduction, self._records).of(task.name)

    def _is_done(self, task, found):
        """Tell whether a mosaic of fewer members than planned is there already."""
        if self._overwrite or task.name not in self._schedule.reasons:
            return False
        record = self._records.get(task.name)
        if record is None or record.state != "done" or key(record.fingerprint) != key(found):
            return False
        return all(
            (path := self._output_dir / product["file"]).exists()
            and path.stat().st_size == product["bytes"]
            for product in record.products
        )

    def _in_memory(self, task):
        """Return whether stage 3 keeps its exposures in memory; `None` to leave it as it is."""
        if task.stage == 3 and task.estimate.memory_gb > self._memory_gb:
            return False
        return None

    def _end(self, future):
        """Note what became of a task; return how many are finished by it."""
        name = self._futures.pop(future)
        job = self._jobs.pop(name)
        alone = self._schedule.is_alone(name)
        ended = outcome(future, job, alone=alone)
        if ended.is_lost and self._tries[name] == 1:
            self._schedule.again_alone(name)
            self._again[name] = f"Begun again, alone, since {ended.failure.cause}."
            self._live.note(name, "waiting", message=self._again[name])
            shutil.rmtree(job["scratch"], ignore_errors=True)
            return 0
        record = ended.record
        if record.state != "done":
            write_record(self._output_dir, record)
            keep_log(name, job, self._output_dir)
        self._records[name] = record
        self._schedule.end(name, DONE if record.state == "done" else FAILED)
        self._live.note(name, record.state, seconds=record.seconds, message=record.message)
        shutil.rmtree(job["scratch"], ignore_errors=True)
        if record.state != "done" and self._stop_at_error:
            self._live.write()
            where = log_path(name, self._output_dir)
            msg = f"{name}: {record.message} The log is {where}."
            raise TaskError(msg)
        return 1

    def _steps(self):
        from .status import step_of

        return {name: step_of(job["scratch"]) for name, job in self._jobs.items()}

    def _cancel(self):
        for future in self._futures:
            future.cancel()
        if self._executor is None and self._futures:
            pipeline.processes().kill(self._futures)

    def _summary(self, seconds):
        states = list(self._schedule.states.values())
        told = [f"{len(self._cached)} there already"] if self._cached else []
        made = states.count(DONE) - len(self._cached)
        told = [f"{made} complete", *told]
        told += [f"{states.count(s)} {s}" for s in (FAILED, SKIPPED) if states.count(s)]
        return f"{len(states)} tasks: {', '.join(told)}, in {seconds:.1f} s."
