"""The process that the tasks of a run come from; `~.forkserver` starts this file, by its path.

It needs nothing of the package.  As a server it imports the pipeline once, then forks a child for
each job that it reads from its standard input; as a single it does one job in itself.  Whatever its
parent's end was like, it ends too: standard input is closed then, and the parent's process id is
looked at.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
import threading
import traceback
from pathlib import Path

__all__ = ["main", "serve", "single"]

LOOK_S = 1.0
"""How often a server looks whether its parent is still there."""

_PR_SET_PDEATHSIG = 1


def main(argv):
    """Serve, or do one job, as the argument says that `~.forkserver` gave.

    Parameters
    ----------
    argv : sequence of str
        One JSON object: ``mode`` ('serve' or 'single'), ``parent`` (process id), ``preload``
        (modules), ``warm`` (a function, ``'module:name'``, and what it takes, to be called before
        the first job; or nothing), ``path`` (where modules are sought).
    """
    asked = json.loads(argv[0])
    sys.path[:] = asked["path"]
    # What the imports and the jobs print must not get between the answers.
    answers = os.dup(1)
    os.dup2(2, 1)
    if asked["mode"] == "serve":
        serve(asked, answers)
    else:
        single(asked, answers)


def serve(asked, answers):
    """Fork a child for each job, and tell how each ended, until the parent goes.

    Parameters
    ----------
    asked : dict
        As for `main`.
    answers : int
        File descriptor for the answers, a line of JSON each.
    """
    try:
        _preload(asked)
    except BaseException as error:
        _say(answers, failed=_described(error))
        return
    wake, waker = os.pipe()
    for end in (wake, waker):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    _say(answers, ready=os.getpid(), threads=threading.active_count())
    children, rest = {}, b""
    try:
        while os.getppid() == asked["parent"]:
            readable, _, _ = select.select([0, wake], [], [], LOOK_S)
            if wake in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
            if 0 in readable:
                received = os.read(0, 1 << 16)
                if not received:
                    return
                *lines, rest = (rest + received).split(b"\n")
                for line in lines:
                    request = json.loads(line)
                    pid = _fork(request)
                    children[pid] = request["id"]
                    _say(answers, id=request["id"], pid=pid)
            _reap(children, answers)
    finally:
        _kill(children)


def single(asked, answers):
    """Do one job in this process; `forkserver` reads from the exit code how it ended.

    Parameters
    ----------
    asked : dict
        As for `main`.
    answers : int
        File descriptor for the answer that the job has begun.
    """
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        request = json.loads(stdin.readline())
    threading.Thread(target=_end_with, args=(asked["parent"],), daemon=True).start()
    _say(answers, id=request["id"], pid=os.getpid())
    _redirect(request)
    code = 1
    try:
        _preload(asked)
        code = _do(request)
    except BaseException as error:
        _answer(request, {"error": _described(error)})
    finally:
        _leave(code)


def _end_with(parent):
    """Wait for the end of the parent, then end without further ado."""
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], LOOK_S)
        if readable and not os.read(0, 1 << 16):
            break
    os.kill(os.getpid(), signal.SIGKILL)


def _preload(asked):
    for name in asked["preload"]:
        importlib.import_module(name)
    if asked.get("warm"):
        _call(*asked["warm"])
    # Every step begins with a collection, which would walk through all that was imported; and
    # what is frozen stays shared between the children.
    gc.collect()
    gc.freeze()


def _fork(request):
    server = os.getpid()
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            os._exit(1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _redirect(request)
        code = _do(request)
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(code)


def _do(request):
    try:
        result = _call(request["function"], request["job"])
    except BaseException as error:
        _answer(request, {"error": _described(error)})
        return 1
    _answer(request, {"result": result})
    return 0


def _call(function, job):
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)(job)


def _answer(request, answer):
    answer["memory_gb"] = _gb(resource.getrusage(resource.RUSAGE_SELF))
    path = Path(request["folder"], "answer.json")
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(answer))
    os.replace(temporary, path)


def _redirect(request):
    folder = Path(request["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    console = os.open(folder / "console.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(console, stream)
    os.close(console)


def _leave(code):
    # Nothing of the server's may be run by a child: no exit functions, no buffers written twice.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _reap(children, answers):
    while children:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        number = children.pop(pid, None)
        if number is not None:
            code = os.waitstatus_to_exitcode(status)
            _say(answers, id=number, exit=code, memory_gb=_gb(usage))


def _kill(children):
    for pid in children:
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    for pid in children:
        with contextlib.suppress(OSError):
            os.waitpid(pid, 0)


def _gb(usage):
    return usage.ru_maxrss / (1 << 30 if sys.platform == "darwin" else 1 << 20)


def _say(answers, **answer):
    os.write(answers, json.dumps(answer).encode() + b"\n")


def _described(error):
    return {
        "type": type(error).__name__,
        "module": type(error).__module__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
