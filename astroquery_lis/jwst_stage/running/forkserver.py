"""Every task in a process of its own, started from one that has imported the pipeline already.

Not `multiprocessing`: its children run the main script again, which an unguarded script or a
notebook does not survive, and a pool waits for ever for a task that ended with ``SystemExit``, as
CRDS does.  Here the way in is a file descriptor, the way out an exit code and a file.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ...exceptions import OptionalDependencyError, StageError

__all__ = ["PRELOAD", "Ended", "ForkServer", "FreshProcesses", "ServerLost", "processes", "single"]

PRELOAD = ("jwst.pipeline", "astroquery_lis.jwst_stage.running.work")
"""What a server imports before the first task."""

_SINGLE_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

_WORKER = Path(__file__).with_name("_worker.py")

_CLOSE_S = 10
"""How long a server may take to stop its children; then it is killed, and they with it."""


class ServerLost(StageError):  # noqa: N818
    """The process that the tasks come from is gone, and its tasks with it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How the process of a task ended.

    Attributes
    ----------
    exit_code : int
        As of `subprocess`: minus the number of the signal that killed it.
    result : dict or None
        What the function returned; `None` if it did not.
    error : dict or None
        ``type``, ``module``, ``message`` and ``traceback`` of what it raised.
    memory_gb : float
        Highest resident memory.
    console : str
        The end of what it printed.
    """

    exit_code: int
    result: dict | None = None
    error: dict | None = None
    memory_gb: float = 0.0
    console: str = ""


def processes(*, environment=None, preload=PRELOAD, warm=None):
    """Return the best way of this system to start tasks: `ForkServer`, or `FreshProcesses`.

    Parameters
    ----------
    environment : dict of str to (str or None), optional
        Variables to set, or with `None` to remove.
    preload : sequence of str, optional
        Modules to import first.
    warm : tuple of (str, dict), optional
        A function, and what it takes, that a server calls before it forks.

    Returns
    -------
    ForkServer or FreshProcesses
    """
    if sys.platform.startswith("linux"):
        return ForkServer(environment=environment, preload=preload, warm=warm)
    return FreshProcesses(environment=environment, preload=preload)


class ForkServer:
    """A process that has imported the pipeline and forks for each task.  A context manager.

    Parameters
    ----------
    environment : dict of str to (str or None), optional
        Variables to set, or with `None` to remove, in the server and its children.
    preload : sequence of str, optional
        Modules to import first.
    warm : tuple of (str, dict), optional
        A function, ``'module:name'``, and what it takes, to be called before the first fork.

    Raises
    ------
    OptionalDependencyError
        If a module to import is not installed.
    ServerLost
        If the server does not start.
    """

    def __init__(self, *, environment=None, preload=PRELOAD, warm=None):
        self._lock = threading.Lock()
        self._pending, self._known = {}, {}
        self._number = 0
        self._closed = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = _start("serve", preload, environment, warm=warm, stderr=self._errors)
        self.pid = self._process.pid
        try:
            self._await_ready()
        except BaseException:
            self._process.kill()
            self.close()
            self._process.stdout.close()
            raise
        threading.Thread(target=self._listen, name="jwst_stage-answers", daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def submit(self, function, job, folder):
        """Start a task.

        Parameters
        ----------
        function : str
            ``'module:name'``; takes ``job`` and returns what JSON can hold.
        job : dict
            What JSON can hold.
        folder : path-like
            Where the process writes its answer and what it prints.

        Returns
        -------
        `~concurrent.futures.Future` of Ended
            With `ServerLost` as its exception if the server dies.
        """
        future = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._closed:
                future.set_exception(ServerLost("The server of tasks is closed."))
                return future
            self._number += 1
            number = self._number
            self._pending[number] = (future, Path(folder))
            request = _request(number, function, job, folder)
            try:
                self._process.stdin.write(request)
                self._process.stdin.flush()
            except (OSError, ValueError):
                # The reader of answers sees the end too, and tells all that wait.
                pass
        return future

    @property
    def is_closed(self):
        """Whether it was closed, or has died."""
        return self._closed

    def pids(self):
        """Return the process ids of the tasks that run now.

        Returns
        -------
        dict of `~pathlib.Path` to int
            By folder.
        """
        with self._lock:
            return {
                self._pending[number][1]: pid
                for number, pid in self._known.items()
                if number in self._pending
            }

    def close(self):
        """Stop the server and whatever it runs."""
        with self._lock:
            self._closed = True
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        except BaseException:
            self._process.kill()
            raise
        finally:
            self._errors.close()

    def _await_ready(self):
        line = self._process.stdout.readline()
        answer = json.loads(line) if line.endswith(b"\n") else {}
        if "ready" in answer:
            return
        failed = answer.get("failed")
        if failed and failed["type"] == "ModuleNotFoundError":
            msg = f"{failed['message']}; install the extra 'jwst': pip install astroquery_lis[jwst]"
            raise OptionalDependencyError(msg)
        told = failed["traceback"] if failed else self._printed()
        msg = f"The process that starts the tasks did not start: {told.strip()[-2000:]}"
        raise ServerLost(msg)

    def _printed(self):
        with contextlib.suppress(OSError, ValueError):
            self._errors.seek(0)
            return self._errors.read().decode(errors="replace")
        return ""

    def _listen(self):
        for line in self._process.stdout:
            if not line.endswith(b"\n"):
                break
            answer = json.loads(line)
            if "exit" not in answer:
                self._known[answer["id"]] = answer["pid"]
                continue
            with self._lock:
                future, folder = self._pending.pop(answer["id"])
                self._known.pop(answer["id"], None)
            future.set_result(_ended(answer["exit"], folder, answer["memory_gb"]))
        self._process.stdout.close()
        told = "" if self._closed else self._printed().strip()[-500:]
        with self._lock:
            self._closed = True
            lost, self._pending = self._pending, {}
        for future, _ in lost.values():
            msg = f"The process that starts the tasks ended before they did. {told}".rstrip()
            future.set_exception(ServerLost(msg))


class FreshProcesses:
    """A new interpreter for each task: where a fork is not safe, and in workers of an executor.

    Parameters
    ----------
    environment : dict of str to (str or None), optional
        Variables to set, or with `None` to remove.
    preload : sequence of str, optional
        Modules that every process imports first.
    """

    def __init__(self, *, environment=None, preload=PRELOAD):
        self._environment, self._preload = environment, preload
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, "jwst_stage-process")
        self._running = {}
        self._closed = False

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def submit(self, function, job, folder):
        """Start a task, as `ForkServer.submit` does."""
        return self._threads.submit(self._run, function, job, folder)

    @property
    def is_closed(self):
        """Whether it was closed."""
        return self._closed

    def pids(self):
        """Return the process ids of the tasks that run now, as `ForkServer.pids` does."""
        return {folder: process.pid for folder, process in list(self._running.items())}

    def close(self):
        """Stop whatever runs."""
        self._closed = True
        for process in list(self._running.values()):
            process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _run(self, function, job, folder):
        if self._closed:
            msg = "The server of tasks is closed."
            raise ServerLost(msg)
        folder = Path(folder)
        try:
            return single(
                function,
                job,
                folder,
                environment=self._environment,
                preload=self._preload,
                started=lambda process: self._running.__setitem__(folder, process),
            )
        finally:
            self._running.pop(folder, None)


def single(function, job, folder, *, environment=None, preload=PRELOAD, started=None):
    """Do one task in a new interpreter and wait for it.

    Parameters
    ----------
    function, job, folder
        As for `ForkServer.submit`.
    environment : dict of str to (str or None), optional
        Variables to set, or with `None` to remove.
    preload : sequence of str, optional
        Modules to import first.
    started : callable, optional
        Called with the `subprocess.Popen`.

    Returns
    -------
    Ended
    """
    process = _start("single", preload, environment, stderr=subprocess.DEVNULL)
    try:
        if started is not None:
            started(process)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(_request(1, function, job, folder))
            process.stdin.flush()
        # Standard input stays open: its end is what tells the process that nobody waits for it.
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.stdout.close()
    return _ended(code, Path(folder))


def _start(mode, preload, environment, *, stderr, warm=None):
    asked = {
        "mode": mode,
        "parent": os.getpid(),
        "preload": list(preload),
        "warm": warm,
        "path": [os.path.abspath(entry) for entry in sys.path],
    }
    # By its path, without the package around it, the process starts at once; it finds the same
    # modules as this one, whatever lies in the working directory.  A session of its own leaves a
    # Ctrl-C to the parent, who decides.
    return subprocess.Popen(
        [sys.executable, "-P", _WORKER, json.dumps(asked)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=_variables(environment),
        start_new_session=True,
    )


def _variables(changes):
    variables = {**os.environ, **dict.fromkeys(_SINGLE_THREADS, "1"), **(changes or {})}
    return {name: value for name, value in variables.items() if value is not None}


def _request(number, function, job, folder):
    request = {"id": number, "function": function, "job": job, "folder": str(folder)}
    return json.dumps(request).encode() + b"\n"


def _ended(code, folder, memory_gb=0.0):
    answer = {}
    with contextlib.suppress(OSError, ValueError):
        answer = json.loads((folder / "answer.json").read_text())
    console = ""
    with contextlib.suppress(OSError):
        console = (folder / "console.txt").read_text(errors="replace")[-2000:]
    return Ended(
        exit_code=code,
        result=answer.get("result"),
        error=answer.get("error"),
        memory_gb=memory_gb or answer.get("memory_gb", 0.0),
        console=console,
    )
