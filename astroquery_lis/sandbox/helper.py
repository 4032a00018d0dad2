"""Share the bricks of a build between this process and one more.

Not `multiprocessing`: where processes are spawned it runs the caller's script again, unless the
script has a ``__main__`` guard, and a short example has none.
"""

import json
import os
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

__all__ = ["run_jobs", "work_from_stdin"]

_COMMAND = "from astroquery_lis.sandbox.helper import work_from_stdin; work_from_stdin()"


def run_jobs(jobs, root, work, *, done=None):
    """Return ``work(root, *job)`` of every job, made by two processes.

    Parameters
    ----------
    jobs : iterable of tuple of str
        Arguments; the longest first.
    root : `~pathlib.Path`
        Where the results are written.
    work : callable
        `~.tree.write_brick`, which is also what the other process calls.
    done : callable, optional
        Called with the number of jobs done after each, from either thread.

    Returns
    -------
    dict of tuple to dict
    """
    waiting, results, lock = deque(jobs), {}, threading.Lock()

    def finish(job, result):
        with lock:
            results[job] = result
            if done is not None:
                done(len(results))

    shared = len(waiting) > 1 and (os.cpu_count() or 1) > 1
    helper = _Helper(waiting, root, finish) if shared else None
    try:
        if helper:
            helper.start()
        _work_here(waiting, root, work, finish)
        if helper:
            helper.join()
        # What a failed helper gave back.
        _work_here(waiting, root, work, finish)
    finally:
        if helper:
            helper.stop()
    return results


def _work_here(waiting, root, work, finish):
    while True:
        try:
            job = waiting.popleft()
        except IndexError:
            return
        finish(job, work(root, *job))


class _Helper(threading.Thread):
    """Hands jobs, one at a time, to another Python process; gives them back if that fails."""

    def __init__(self, waiting, root, finish):
        super().__init__(daemon=True)
        self._waiting, self._root, self._finish = waiting, root, finish
        self._process = None

    def start(self):
        # The other process has to find the same packages, however this one found them.
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
                text=True,
            )
        except OSError:
            return
        super().start()

    def run(self):
        while True:
            try:
                job = self._waiting.popleft()
            except IndexError:
                return
            try:
                self._process.stdin.write(json.dumps([str(self._root), *job]) + "\n")
                self._process.stdin.flush()
                answer = self._process.stdout.readline()
            except (OSError, ValueError):
                answer = ""
            if not answer:
                self._waiting.append(job)
                return
            self._finish(job, json.loads(answer))

    def join(self, timeout=None):
        if self.ident is not None:
            super().join(timeout)

    def stop(self):
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self.join()
        self._process.stdout.close()
        # What was still to be written has nobody to read it.
        with suppress(OSError):
            self._process.stdin.close()


def work_from_stdin():
    """Make bricks that are named, one JSON list a line, on standard input, until it ends.

    It ends too when the process at the other end is killed.
    """
    from .tree import write_brick

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # Only answers go to the pipe.
    sys.stdout = sys.stderr
    for line in sys.stdin:
        root, *job = json.loads(line)
        result = write_brick(Path(root), *job)
        answers.write(json.dumps(result) + "\n")
        answers.flush()
