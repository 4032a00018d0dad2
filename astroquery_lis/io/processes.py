"""Tasks in processes of their own: how each ends is known, and nothing outlives whoever asked.

`Processes` spawns a server, which imports what the tasks need once and forks a child for each; a
pool would wait for ever for a task that ends its process.  The way in is a pipe, the way out an
exit code and a file.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import Future
from concurrent.futures import wait as wait_for_futures
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING

from .._locks import new_lock
from ..exceptions import LegacySurveyError
from .workers import STARTING, WITHOUT_MAIN, watch_parent

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from multiprocessing.connection import Connection
    from typing import Any, Literal, Self

_SINGLE_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

_LOOK_S = 1.0
"""How often a server looks whether its parent is still there."""

_CLOSE_S = 10
"""How long a server may take to stop its children; then it is killed, and they with it."""

_CONSOLE_CHARACTERS = 2000


class ServerLost(LegacySurveyError):  # noqa: N818
    """The process that the tasks come from is gone, and its tasks with it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How the process of a task ended.

    Attributes
    ----------
    exit_code : int
        As of `subprocess`: minus the number of the signal that killed it.
    result : object
        What the function returned; `None` if it did not.
    error : dict or None
        ``type``, ``module``, ``kinds`` (names of all its classes), ``message`` and ``traceback``
        of what it raised.
    memory_gb : float
        Highest resident memory; 0 if it was killed.
    console : str
        The end of what it printed.
    """

    exit_code: int
    result: Any = None
    error: dict[str, Any] | None = None
    memory_gb: float = 0.0
    console: str = ""


class Processes:
    """A server that imports modules once and starts a process for each task; a context manager.

    Parameters
    ----------
    preload : sequence of str, optional
        Modules to import before the first task.
    environment : dict of str to (str or None), optional
        Variables to set, or with `None` to remove, in the server before it imports them.
    method : {'fork', 'spawn'}, optional
        How the server starts its children; by default forked on Linux, where that is safe.
    idle_s : float, optional
        Seconds without a task after which the server ends; by default it stays.

    Raises
    ------
    ServerLost
        If the server does not start.
    """

    def __init__(
        self,
        *,
        preload: Sequence[str] = (),
        environment: Mapping[str, str | None] | None = None,
        method: Literal["fork", "spawn"] | None = None,
        idle_s: float | None = None,
    ) -> None:
        method = method or ("fork" if sys.platform.startswith("linux") else "spawn")
        self._lock = new_lock()
        self._pending: dict[int, tuple[Future[Ended], Path]] = {}
        self._number = 0
        self._closed = False
        self._folder = tempfile.TemporaryDirectory(prefix="astroquery_lis-")
        self._connection, server_end = multiprocessing.Pipe()
        options = (
            server_end, list(preload), dict(environment or {}), method, self._folder.name, idle_s
        )  # fmt: skip
        self._process = WITHOUT_MAIN.Process(target=_serve, args=options, daemon=True)
        with contextlib.ExitStack() as undo:
            undo.callback(self._folder.cleanup)
            undo.callback(self._connection.close)
            undo.callback(server_end.close)
            _start_single_threaded(self._process)
            undo.callback(self._kill)
            server_end.close()
            self._await_ready()
            listener = threading.Thread(target=self._listen, name="answers-of-processes")
            listener.daemon = True
            listener.start()
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the server."""
        return self._process.pid

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, or has died."""
        return self._closed

    def submit(
        self,
        function: str,
        job: Mapping[str, Any],
        folder: str | os.PathLike[str],
        *,
        environment: Mapping[str, str | None] | None = None,
    ) -> Future[Ended]:
        """Start a task; its future has `ServerLost` as exception if the server dies.

        Parameters
        ----------
        function : str
            ``'module:name'``; takes ``job`` and returns what JSON can hold.
        job : dict
            What can be pickled.
        folder : path-like
            Where the process writes its answer and what it prints.
        environment : dict of str to (str or None), optional
            Variables to set, or with `None` to remove, in this process.
        """
        future: Future[Ended] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._closed:
                future.set_exception(ServerLost("The server of tasks is closed."))
                return future
            self._number += 1
            self._pending[self._number] = (future, Path(folder))
            where = os.fspath(folder)
            # What can be imported here, can be there, also if the path has changed since the start.
            task = (function, dict(job), where, dict(environment or {}), list(sys.path))
            self._send(("do", self._number, task))
        return future

    def prepare(self, function: str, job: Mapping[str, Any]) -> None:
        """Call a function in the server itself, before any later task; its errors are ignored."""
        with self._lock:
            self._send(("prepare", 0, (function, dict(job))))

    def kill(self, futures: Collection[Future[Ended]]) -> None:
        """Kill the processes of some tasks and wait for their end."""
        with self._lock:
            for number, (future, _) in self._pending.items():
                if future in futures:
                    self._send(("kill", number, None))
        wait_for_futures(futures, _CLOSE_S)

    def close(self) -> None:
        """Stop the server and whatever it runs."""
        with self._lock:
            self._closed = True
            self._send(("close", 0, None))
        try:
            self._process.join(_CLOSE_S)
        finally:
            self._kill()
            self._folder.cleanup()

    def _kill(self) -> None:
        self._process.kill()
        self._process.join()

    def _send(self, request: tuple[str, int, Any]) -> None:
        # Whoever listens sees the end of the server too, and tells all that wait.
        with contextlib.suppress(OSError):
            self._connection.send(request)

    def _await_ready(self) -> None:
        try:
            failure = self._connection.recv()
        except (EOFError, OSError):
            failure = self._printed()
        if failure is not None:
            msg = f"The process that starts the tasks did not start: {failure.strip()[-2000:]}"
            raise ServerLost(msg)

    def _printed(self) -> str:
        return _console(Path(self._folder.name))

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                number, code = self._connection.recv()
                with self._lock:
                    future, folder = self._pending.pop(number)
                future.set_result(_ended(code, folder))
        printed = "" if self._closed else self._printed().strip()[-500:]
        with self._lock:
            self._closed = True
            lost, self._pending = self._pending, {}
            self._connection.close()
        for future, _ in lost.values():
            msg = f"The process that starts the tasks ended before they did. {printed}".rstrip()
            future.set_exception(ServerLost(msg))
        # Whoever finds that it ended by itself need not close it.
        self._folder.cleanup()


def peak_memory_gb() -> float:
    """Return the highest resident memory of this process."""
    # The resource usage of a process that was started afresh begins with that of its parent.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / (1 << 20), 4)
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 30 if sys.platform == "darwin" else 1 << 20), 4)


def _start_single_threaded(process: SpawnProcess) -> None:
    """Start a server: libraries read the number of threads before anything could be set there."""
    worker = multiprocessing.current_process()
    with STARTING:
        before = {name: os.environ.get(name) for name in _SINGLE_THREADS}
        # A worker of dask is a daemon, which may have no children.
        is_daemon, worker.daemon = worker.daemon, False
        _set_variables(dict.fromkeys(_SINGLE_THREADS, "1"))
        try:
            process.start()
        finally:
            worker.daemon = is_daemon
            _set_variables(before)


def _set_variables(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _ended(code: int, folder: Path) -> Ended:
    answer: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        answer = json.loads((folder / "answer.json").read_text())
    return Ended(exit_code=code, **answer, console=_console(folder))


def _console(folder: Path) -> str:
    with contextlib.suppress(OSError):
        return (folder / "console.txt").read_text(errors="replace")[-_CONSOLE_CHARACTERS:]
    return ""


# The rest runs in the server and its children.  The server has one thread, so that it may fork.


def _serve(
    requests: Connection,
    preload: list[str],
    environment: dict[str, str | None],
    method: str,
    folder: str,
    idle_s: float | None,
) -> None:
    """Start a child for each task, and tell how each ended, until the parent goes or is silent."""
    parent = os.getppid()
    multiprocessing.current_process().daemon = False
    # A session of its own leaves a Ctrl-C to the parent, who decides.
    if hasattr(os, "setsid"):
        os.setsid()
    is_asked_to_end = False

    def end_in_order(*_: object) -> None:
        # Whatever the server is at may swallow the exit; the parent waits for it without a limit.
        nonlocal is_asked_to_end
        is_asked_to_end = True
        sys.exit(0)

    # A parent that exits sends this.  A server that it killed would leave its semaphores behind.
    signal.signal(signal.SIGTERM, end_in_order)
    _redirect(folder)
    _set_variables(environment)
    try:
        if method == "fork":
            _import(preload)
    except BaseException as error:
        requests.send(_description(error)["traceback"])
        return
    requests.send(None)
    children = _Children(requests, method, preload)
    try:
        while os.getppid() == parent and not is_asked_to_end:
            if not children.attend(math.inf if idle_s is None else idle_s):
                return
    except (EOFError, OSError):
        return
    finally:
        children.kill()


class _Children:
    """The processes of the tasks, and what the parent asks of them."""

    def __init__(self, requests: Connection, method: str, preload: list[str]) -> None:
        self._requests = requests
        self._context = multiprocessing.get_context(method)
        self._inherited = preload if method == "spawn" else []
        self._running: dict[Any, tuple[int, Any]] = {}
        self._heard_s = time.monotonic()

    def attend(self, patience_s: float) -> bool:
        """Wait a moment for the parent and for the children; return False if that is the end."""
        ready = wait([self._requests, *self._running], min(_LOOK_S, patience_s))
        now_s = time.monotonic()
        if ready or self._running:
            self._heard_s = now_s
        for sentinel in self._running.keys() & ready:
            number, child = self._running.pop(sentinel)
            child.join()
            self._requests.send((number, child.exitcode))
        if self._requests in ready:
            return self._obey(*self._requests.recv())
        return now_s - self._heard_s <= patience_s

    def _obey(self, verb: str, number: int, task: Any) -> bool:
        """Do what the parent asks; return False if that is to end."""
        if verb == "do":
            child = self._context.Process(target=_do, args=(*task, self._inherited))  # type: ignore[attr-defined]
            child.start()
            self._running[child.sentinel] = (number, child)
        elif verb == "kill":
            self.kill(number)
        elif verb == "prepare":
            with contextlib.suppress(Exception, SystemExit):
                _call(*task)
            _freeze()
        return verb != "close"

    def kill(self, number: int | None = None) -> None:
        """Kill the child of a task, or all."""
        children = [child for other, child in self._running.values() if number in (None, other)]
        for child in children:
            child.kill()
        for child in children:
            child.join()


def _do(
    function: str,
    job: dict[str, Any],
    folder: str,
    environment: dict[str, str | None],
    path: list[str],
    preload: list[str],
) -> None:
    """Do a task, write what it returned or raised, and leave with 0 or 1."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    watch_parent()
    answer: dict[str, Any]
    code = 1
    try:
        _redirect(folder)
        _set_variables(environment)
        sys.path[:] = path
        _import(preload)
        answer = {"result": _call(function, job)}
        code = 0
    except BaseException as error:
        answer = {"error": _description(error)}
    try:
        _write_answer(Path(folder), {**answer, "memory_gb": peak_memory_gb()})
    except BaseException:
        code = 1
        traceback.print_exc()
    finally:
        _leave(code)


def _import(modules: list[str]) -> None:
    for name in modules:
        importlib.import_module(name)
    if modules:
        _freeze()


def _freeze() -> None:
    # Every step of a pipeline begins with a collection, which would walk through all that was
    # imported; and what is frozen stays shared between the children.
    gc.collect()
    gc.freeze()


def _call(function: str, job: dict[str, Any]) -> object:
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)(job)


def _write_answer(folder: Path, answer: dict[str, Any]) -> None:
    temporary = folder / "answer.tmp"
    temporary.write_text(json.dumps(answer))
    temporary.replace(folder / "answer.json")


def _redirect(folder: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    console = os.open(Path(folder, "console.txt"), flags, 0o644)
    for stream in (1, 2):
        os.dup2(console, stream)
    os.close(console)


def _leave(code: int) -> None:
    # Nothing of the server's may be run by a child: no exit functions, no buffers written twice.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _description(error: BaseException) -> dict[str, object]:
    return {
        "type": type(error).__name__,
        "module": type(error).__module__,
        "kinds": [kind.__name__ for kind in type(error).__mro__],
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
    }
