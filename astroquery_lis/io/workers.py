"""Work through any executor, in threads, or in processes that no main script or Ctrl-C reaches.

Few jobs are in flight, results come as they are known, and workers that die are replaced.  A worker
in another process takes over the configuration of the process that sent it work, so that it never
falls back to defaults.  A process that is spawned runs the main script again, which an unguarded
script or a notebook does not survive, so the main module is hidden from it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from astropy.config import ConfigItem

from .._conf import Conf, conf, setting
from .._locks import new_lock
from ..exceptions import refuse
from .bounds import Threads

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from multiprocessing.popen_forkserver import Popen as ForkServerPopen
    from multiprocessing.popen_spawn_posix import Popen
    from multiprocessing.process import BaseProcess
    from types import FrameType

Mapped: TypeAlias = Generator[tuple[Any, Any, Exception | None], None, None]
"""Of each job: the job, what its work returned, and what it raised instead."""

Turn: TypeAlias = tuple[object, int]
"""A job that may begin, and how often it was begun before."""


# ---- through an executor ------------------------------------------------------------------------

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


def settings_in_force() -> dict[str, object]:
    """Return the whole configuration as plain values, to be carried to workers."""
    names = [name for name, item in vars(Conf).items() if isinstance(item, ConfigItem)]
    return {name: setting(name) for name in names}


def _this_process() -> tuple[str, int]:
    """Return what tells this process from all others, on any host, forked or not."""
    return _MODULE, os.getpid()


_adopting = new_lock()


@dataclass(frozen=True)
class _Carried:
    """A function with the configuration of the process that it comes from."""

    function: Callable[[Any], Any]
    settings: dict
    home: tuple

    def __call__(self, job: Any, attempt: int) -> object:
        """Do ``job``; ``attempt`` only makes a repeated call differ from the first."""
        if self.home != _this_process():
            with _adopting:
                for name, value in self.settings.items():
                    if getattr(conf, name) != value:
                        setattr(conf, name, value)
        return self.function(job)


def map_jobs(
    function: Callable[[Any], Any],
    jobs: Iterable,
    *,
    executor: Executor | str | None = None,
    in_flight: int | None = None,
) -> Mapped:
    """Call a function with each of many jobs and yield what comes back, as it comes."""
    workers = _Workers(executor, _module_of(function))
    carried = _Carried(function, settings_in_force(), _this_process())
    return _mapped(carried, jobs, workers, in_flight)


def _mapped(function: _Carried, jobs: Iterable, workers: _Workers, in_flight: int | None) -> Mapped:
    jobs = iter(jobs)
    limit = workers.in_flight if in_flight is None else in_flight
    pending: dict[Future, tuple] = {}
    suspects: deque[Turn] = deque()
    is_over = False
    try:
        while True:
            for job, attempt in _startable(jobs, suspects, len(pending), limit):
                future = workers.submit(function, job, attempt)  # may replace the executor
                pending[future] = (job, attempt, workers.current)
            if not pending:
                is_over = True
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                job, attempt, executor = pending.pop(future)
                value, error = _outcome(future)
                again = _is_lost_worker(error) and workers.go_on(error, executor)
                if again and attempt + 1 < JOB_TRIES:
                    suspects.append((job, attempt + 1))
                else:
                    yield job, value, error
    finally:
        for future in pending:
            future.cancel()
        workers.close(at_once=not is_over)


def _startable(jobs: Iterator, suspects: deque[Turn], n_pending: int, limit: int) -> Iterator[Turn]:
    """Yield the jobs that may begin now."""
    if not suspects:
        for job in islice(jobs, limit - n_pending):
            yield job, 0
    elif not n_pending:
        # Whatever was in flight when a worker died goes alone, so that the job that kills workers
        # is found and takes no other with it.
        yield suspects.popleft()


def _outcome(future: Future) -> tuple[object, Exception | None]:
    try:
        return future.result(), None
    except CancelledError as error:
        return None, error
    except Exception as error:
        return None, error


def _is_lost_worker(error: Exception | None) -> bool:
    return isinstance(error, BrokenExecutor) or type(error).__name__ in _LOST_WORKER


def check_executor(executor: object) -> None:
    """Refuse what can do no work."""
    if executor is None or isinstance(executor, Executor):
        return
    if not isinstance(executor, str) or executor not in OWN_KINDS:
        must = (
            "must be a concurrent.futures.Executor, such as that of "
            f"dask.distributed's Client.get_executor(), or one of: {', '.join(OWN_KINDS)}."
        )
        refuse("executor", executor, must)


class _Workers:
    """An executor, the user's or our own."""

    def __init__(self, executor: Executor | str | None, module: str = "") -> None:
        self._module = module
        self.kind = "threads" if executor is None else executor
        check_executor(executor)
        self.is_own = isinstance(self.kind, str)
        self.current: Any = None if self.is_own else executor

    @property
    def in_flight(self) -> int:
        if self.kind == "threads":
            return OWN_THREADS
        if self.kind == "processes":
            return 2 * cores()
        n_workers = getattr(self.current, "_max_workers", None)
        return 2 * n_workers if isinstance(n_workers, int) else UNKNOWN_IN_FLIGHT

    def submit(self, function: _Carried, job: Any, attempt: int) -> Future:
        if self.kind != "processes":
            return self._submit(function, job, attempt)
        with interrupts_held():
            return self._submit(function, job, attempt)

    def _submit(self, function: _Carried, *args: Any) -> Future:
        if self.current is None:
            self.current = self._new()
        try:
            return self.current.submit(function, *args)
        except BrokenExecutor as error:
            if not self.go_on(error, self.current):
                raise
            self.current = self._new()
            return self.current.submit(function, *args)

    def go_on(self, error: Exception | None, executor: Executor) -> bool:
        """Return True if work can go on after an executor lost a worker; it is replaced if ours."""
        if isinstance(error, BrokenExecutor):
            if not self.is_own:
                return False
            if executor is self.current:
                executor.shutdown(wait=False)
                self.current = None
        return True

    def _new(self) -> Executor:
        if self.kind == "threads":
            return Threads(OWN_THREADS, "astroquery_lis-job")
        # Only here: threads do without it.
        from concurrent.futures import ProcessPoolExecutor

        context = workers_context(self._module)
        environment = dict(os.environ)
        return ProcessPoolExecutor(
            cores(), mp_context=context, initializer=begin_worker, initargs=(environment,)
        )

    def close(self, *, at_once: bool) -> None:
        """End an executor of our own, with what it is at if that is given up."""
        if self.is_own and self.current is not None:
            if at_once:
                # Our processes take no Ctrl-C, and what they do can be taken up again.
                for process in list((getattr(self.current, "_processes", None) or {}).values()):
                    process.terminate()
            self.current.shutdown(wait=True, cancel_futures=True)


def _module_of(function: Callable) -> str:
    """Return the module that workers need."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__module__", "")


CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Return how many processors this process may use: of those of its container, if it has one."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        allowed = os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = CPU_QUOTA.read_text().split()
        allowed = min(allowed, int(quota) // int(period))
    return max(allowed, 1)


STARTING = threading.RLock()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Start a process that knows nothing of the main module, and leaves Ctrl-C to this one."""
    with STARTING, _without_interrupts():
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let no interrupt reach a process that is started meanwhile, ever."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    from multiprocessing import resource_tracker

    # Whoever starts this process lets interrupts pass again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold a Ctrl-C back until the end: a pool that is half started can hang."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    # A mask would not do: any other thread would take the signal for this one.
    signal.signal(signal.SIGINT, lambda *arguments: held.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            before(*held[0])


SLOW_MODULES = {"h5py": ("h5py",), "zarr": ("zarr", "pandas")}
"""What workers take long to import, if the process has a module when its first pool starts; beside
zarr's arrays lies a file of pyarrow, which asks pandas."""


class _ProcessWithoutMain(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Popen:
        with _alone():
            return SpawnProcess._Popen(process_obj)


class _ContextWithoutMain(SpawnContext):
    Process = _ProcessWithoutMain


WITHOUT_MAIN = _ContextWithoutMain()
"""A context of `multiprocessing` whose processes do not run the main script again."""


if sys.platform == "linux":
    from multiprocessing.context import ForkServerContext, ForkServerProcess

    class _ForkedProcessWithoutMain(ForkServerProcess):
        @staticmethod
        def _Popen(process_obj: BaseProcess) -> ForkServerPopen:
            with _alone():
                return ForkServerProcess._Popen(process_obj)

    class _ForkingContextWithoutMain(ForkServerContext):
        Process = _ForkedProcessWithoutMain


def workers_context(module: str) -> BaseContext:
    """Return a context for a pool of workers that need a module of this package.

    On Linux they are forked by a server that has imported it, and that stays for the next pool: to
    import it takes each worker most of a second.
    """
    if sys.platform == "linux":
        from multiprocessing import forkserver

        context = _ForkingContextWithoutMain()
        if module.startswith(f"{__name__.partition('.')[0]}."):
            # The process has one list for all its pools, and no way to ask for it: what others
            # put there stays.
            server = getattr(forkserver, "_forkserver", None)
            modules = list(getattr(server, "_preload_modules", ()))
            if module not in modules:
                last = f"{__package__}.fork_server"
                others = [name for name in modules if name != last]
                slow = (names for name, names in SLOW_MODULES.items() if name in sys.modules)
                context.set_forkserver_preload([*others, module, *chain(*slow), last])
        return context
    return WITHOUT_MAIN


def begin_worker(environment: dict[str, str]) -> None:
    """Begin a worker of a pool, with the variables of the process that asked for it."""
    # The server that it was forked from has those that were set when the first pool was made.
    os.environ.clear()
    os.environ.update(environment)
    # The parent decides what a Ctrl-C ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch_parent()


def watch_parent() -> None:
    """Let this process end when the one that asked for it is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    from multiprocessing import connection

    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
