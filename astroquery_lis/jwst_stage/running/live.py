"""The state of a run, in one file that is replaced whole, and the lock of its output directory."""

import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

from ...exceptions import InvalidRequestError, StageError
from ...io.store import write_whole
from ..tasks import HIDDEN

try:
    import fcntl
except ImportError:  # Windows, on which jwst does not run
    fcntl = None

__all__ = ["LiveState", "Lock", "is_locked", "read_live", "scratch_root"]

# Whoever asks for the state of a directory holds its lock for a moment.
_LOOKS, _LOOK_S = 5, 0.05


def scratch_root(output_dir):
    """Return the directory of what is being made.

    Parameters
    ----------
    output_dir : path-like
        The output directory.

    Returns
    -------
    `~pathlib.Path`
    """
    return Path(output_dir) / HIDDEN / "scratch"


class Lock:
    """One run at a time in an output directory.  A context manager.

    Parameters
    ----------
    output_dir : path-like
        The output directory; made if it is not there.

    Raises
    ------
    InvalidRequestError
        If another run is at work there.
    StageError
        If the directory cannot be written.
    """

    def __init__(self, output_dir):
        path = _lock_path(output_dir)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a")
        except OSError as error:
            msg = f"Cannot write to output_dir={str(output_dir)!r}: {error.strerror or error}."
            raise StageError(msg, cause=error) from error
        if not any(_take(self._file) or time.sleep(_LOOK_S) for _ in range(_LOOKS)):
            self._file.close()
            msg = (
                f"output_dir={str(output_dir)!r}: another run is at work there; wait for it, stop "
                "it, or take another directory."
            )
            raise InvalidRequestError(msg, parameter="output_dir", value=str(output_dir))

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._file.close()


def is_locked(output_dir):
    """Tell whether a run is at work in an output directory, on this host or another.

    Parameters
    ----------
    output_dir : path-like
        The output directory.

    Returns
    -------
    bool
    """
    try:
        with _lock_path(output_dir).open() as file:
            return not _take(file, shared=True)
    except OSError:
        return False


class LiveState:
    """What a run tells of itself while it runs.

    Parameters
    ----------
    output_dir : path-like
        The output directory.
    **about
        Of the whole run: what JSON can hold.
    """

    def __init__(self, output_dir, **about):
        self._path = _live_path(output_dir)
        self._about = {
            "state": "running",
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": _now(),
            "ended": "",
            **about,
        }
        self._tasks = {}

    def note(self, task, state, **told):
        """Tell how far a task is."""
        self._tasks[task] = {"state": state, "at": _now(), **told}

    def write(self):
        """Put the file in place of the earlier one."""
        text = json.dumps({**self._about, "tasks": self._tasks}, indent=1)
        with write_whole(self._path) as temporary:
            temporary.write_text(text)

    def end(self, state):
        """Tell how the run ended, and write."""
        self._about.update(state=state, ended=_now())
        self.write()


def read_live(output_dir):
    """Return what the last run told of itself.

    Parameters
    ----------
    output_dir : path-like
        The output directory.

    Returns
    -------
    dict
        Empty if there was none.
    """
    try:
        told = json.loads(_live_path(output_dir).read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _take(file, *, shared=False):
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _lock_path(output_dir):
    return Path(output_dir) / HIDDEN / "lock"


def _live_path(output_dir):
    return Path(output_dir) / HIDDEN / "run.json"


def _now():
    return datetime.now(UTC).isoformat(timespec="seconds")
