"""Jobs through any executor: few in flight, results as they come, dead workers replaced.

A worker in another process takes over the configuration of the process that sent it work, so that
it never falls back to defaults.
"""

import os
import threading
import uuid
from collections import deque
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass

from astropy.config import ConfigItem

from .._conf import Conf, conf, setting
from ..exceptions import InvalidRequestError
from .processes import WITHOUT_MAIN

__all__ = ["map_jobs", "settings_in_force"]

OWN_KINDS = ("threads", "processes")
OWN_THREADS = 4
"""Jobs at once in threads of our own; each reads its files over many connections already."""

UNKNOWN_IN_FLIGHT = 32
"""Jobs in flight for an executor that does not tell how many workers it has."""

JOB_TRIES = 3
"""How often a job is begun that ends with the death of its worker."""

# distributed raises it when a task's worker died several times; it is optional, hence the name.
_LOST_WORKER = frozenset({"KilledWorker"})

_MODULE = uuid.uuid4().hex


def settings_in_force():
    """Return the whole configuration as plain values, to be carried to workers.

    What was set on an instance of the query class is not in it and has to be part of the job.

    Returns
    -------
    dict
        A value for every item of `~astroquery_lis.Conf`.
    """
    names = [name for name, item in vars(Conf).items() if isinstance(item, ConfigItem)]
    return {name: setting(name) for name in names}


def _this_process():
    """Return what tells this process from all others, on any host, forked or not."""
    return _MODULE, os.getpid()


_adopting = threading.Lock()


@dataclass(frozen=True)
class _Carried:
    """A function with the configuration of the process that it comes from."""

    function: object
    settings: dict
    home: tuple

    def __call__(self, job, attempt):
        """Do ``job``; ``attempt`` only makes a repeated call differ from the first."""
        if self.home != _this_process():
            with _adopting:
                for name, value in self.settings.items():
                    if getattr(conf, name) != value:
                        setattr(conf, name, value)
        return self.function(job)


def map_jobs(function, jobs, *, executor=None, settings=None, in_flight=None):
    """Call a function with each of many jobs and yield what comes back, as it comes.

    Parameters
    ----------
    function : callable
        Takes a job.  For processes and clusters it must be importable, and what it returns must be
        picklable.
    jobs : iterable
        Consumed as workers become free, so that it may be of any length.
    executor : `~concurrent.futures.Executor`, {'threads', 'processes'} or None, optional
        `None` for threads of our own.  An executor that is given is not shut down; workers of our
        own that die are replaced.
    settings : dict, optional
        What `settings_in_force` gave; by default that of now.
    in_flight : int, optional
        Jobs at once; by default twice the workers.

    Yields
    ------
    job : object
        In the order of completion.
    value : object
        What ``function`` returned, `None` if it failed.
    error : Exception or None
        What it raised, or why its worker was lost.

    Raises
    ------
    InvalidRequestError
        If ``executor`` is none.
    """
    settings = settings_in_force() if settings is None else settings
    workers = _Workers(executor)
    return _mapped(_Carried(function, settings, _this_process()), jobs, workers, in_flight)


def _mapped(function, jobs, workers, in_flight):
    jobs = iter(jobs)
    limit = workers.in_flight if in_flight is None else in_flight
    pending, suspects = {}, deque()
    try:
        while True:
            # Whatever was in flight when a worker died goes alone, so that the job that kills
            # workers is found and takes no other with it.
            room = 1 if suspects else limit
            while len(pending) < room:
                job, attempt = suspects.popleft() if suspects else (next(jobs, _END), 0)
                if job is _END:
                    break
                pending[workers.submit(function, job, attempt)] = (job, attempt, workers.current)
                if attempt:
                    break
            if not pending:
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                job, attempt, used = pending.pop(future)
                value, error = _outcome(future)
                again = _is_lost_worker(error) and workers.go_on(error, used)
                if again and attempt + 1 < JOB_TRIES:
                    suspects.append((job, attempt + 1))
                    continue
                yield job, value, error
    finally:
        for future in pending:
            future.cancel()
        workers.close()


_END = object()


def _outcome(future):
    try:
        return future.result(), None
    except CancelledError as error:
        return None, error
    except Exception as error:
        return None, error


def _is_lost_worker(error):
    return isinstance(error, BrokenExecutor) or type(error).__name__ in _LOST_WORKER


class _Workers:
    """An executor, the user's or our own."""

    def __init__(self, executor):
        self.kind = "threads" if executor is None else executor
        self.is_own = isinstance(self.kind, str)
        if self.kind not in OWN_KINDS if self.is_own else not isinstance(executor, Executor):
            msg = (
                f"executor={executor!r} must be a concurrent.futures.Executor, such as that of "
                f"dask.distributed's Client.get_executor(), or one of: {', '.join(OWN_KINDS)}."
            )
            raise InvalidRequestError(msg, parameter="executor", value=executor)
        self.current = None if self.is_own else executor

    @property
    def in_flight(self):
        if self.kind == "threads":
            return OWN_THREADS
        if self.kind == "processes":
            return 2 * _cores()
        known = getattr(self.current, "_max_workers", None)
        return 2 * known if isinstance(known, int) else UNKNOWN_IN_FLIGHT

    def submit(self, function, *args):
        if self.current is None:
            self.current = self._new()
        try:
            return self.current.submit(function, *args)
        except BrokenExecutor as error:
            if not self.go_on(error, self.current):
                raise
            self.current = self._new()
            return self.current.submit(function, *args)

    def go_on(self, error, used):
        """Tell whether work can go on after ``used`` lost a worker; it is replaced if ours."""
        if isinstance(error, BrokenExecutor):
            if not self.is_own:
                return False
            if used is self.current:
                used.shutdown(wait=False)
                self.current = None
        return True

    def _new(self):
        if self.kind == "threads":
            return ThreadPoolExecutor(OWN_THREADS, "astroquery_lis-job")
        return ProcessPoolExecutor(_cores(), mp_context=WITHOUT_MAIN)

    def close(self):
        if self.is_own and self.current is not None:
            self.current.shutdown(wait=True, cancel_futures=True)


def _cores():
    try:
        return max(len(os.sched_getaffinity(0)), 1)
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1
