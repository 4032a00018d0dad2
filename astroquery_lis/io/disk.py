"""How files get to the disk: whole or not at all, with room left, and refusals in clear words."""

import glob
import os
import shutil
import threading
import time
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from uuid import uuid4

from .._conf import conf
from ..exceptions import CacheError, LegacySurveyError, NotFoundError
from .content import check_structure

try:
    import fcntl
except ImportError:  # Windows: files are not shared among writers there
    fcntl = None

__all__ = [
    "CHUNK_BYTES",
    "GB",
    "check_space",
    "copy_whole",
    "is_same_file",
    "lock",
    "note_written",
    "remove",
    "remove_leftovers",
    "replacing",
    "set_times",
    "writing",
    "written_bytes",
]

CHUNK_BYTES = 1 << 20
GB = 1_000_000_000

_written_lock = threading.Lock()
_written_total = 0


def note_written(n):
    """Count bytes that were written to disk."""
    global _written_total
    with _written_lock:
        _written_total += n


def written_bytes():
    """Return how many bytes this process has written to files of the survey."""
    return _written_total


@contextmanager
def writing(what):
    """Turn the operating system's refusal to write into `CacheError`.

    Parameters
    ----------
    what : str or `~pathlib.Path`
        The file or folder to name.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, CacheError):
            raise
        msg = f"Cannot write {what}: {error.strerror or error}."
        raise CacheError(msg, cause=error) from error


def check_space(folder, needed_bytes, margin_bytes=None):
    """Refuse to fill the disk.

    Parameters
    ----------
    folder : `~pathlib.Path`
        A folder on it.
    needed_bytes : int
        What is to be written.
    margin_bytes : int, optional
        What must stay free; by default ``conf.disk_margin``.

    Raises
    ------
    CacheError
    """
    margin = conf.disk_margin * GB if margin_bytes is None else margin_bytes
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return
    if free < needed_bytes + margin:
        msg = (
            f"Cannot write to {folder}: {free / GB:.2f} GB are free on its disk, and "
            f"{needed_bytes / GB:.2f} GB are due beside the {margin / GB:.2f} GB that "
            "conf.disk_margin keeps free."
        )
        raise CacheError(msg)


def copy_whole(source, target):
    """Copy a sound local file to its place.

    Parameters
    ----------
    source, target : `~pathlib.Path`
        From where and to where.

    Raises
    ------
    CacheError
        If it cannot be written.
    NotFoundError, TruncatedError, UnexpectedContentError
        If the source cannot be read, or is not what its name says.
    """
    try:
        with source.open("rb") as stream:
            check_structure(target, stream, source)
            size = stream.seek(0, os.SEEK_END)
    except OSError as error:
        if isinstance(error, LegacySurveyError):
            raise
        msg = f"{source} cannot be read: {error.strerror or error}."
        raise NotFoundError(msg, url=str(source), cause=error) from error
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        check_space(target.parent, size)
        with replacing(target) as copy:
            with source.open("rb") as stream:
                shutil.copyfileobj(stream, copy, CHUNK_BYTES)
            os.utime(copy.fileno(), (time.time(), source.stat().st_mtime))
        note_written(size)


@contextmanager
def replacing(path):
    """Write a file under another name, which moves to its place if nothing is raised.

    Parameters
    ----------
    path : `~pathlib.Path`
        Its place; the folder must be there.

    Yields
    ------
    file-like
        To write to; locked, so that `remove_leftovers` knows it from what a killed process left.
    """
    temporary, stream = _new_temporary(path)
    try:
        with stream:
            yield stream
            stream.flush()
            if fcntl is not None:
                os.replace(temporary, path)
        if fcntl is None:
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _new_temporary(path):
    """Return a new name beside a path, and the file of that name, open and locked."""
    while True:
        temporary = path.with_name(f".{uuid4().hex}.tmp")
        stream = temporary.open("xb")
        lock(stream)
        # Until it was locked, it could be taken for what a killed process left.
        if is_same_file(stream, temporary):
            return temporary, stream
        stream.close()


def is_same_file(stream, path):
    """Tell whether a name still is that of an open file.

    Parameters
    ----------
    stream : file-like
        The open file.
    path : `~pathlib.Path`
        The name.

    Returns
    -------
    bool
    """
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def set_times(path, modified):
    """Give a file the date of a Last-Modified header; it counts as used now.

    Parameters
    ----------
    path : `~pathlib.Path`
        The file.
    modified : str or None
        The header.
    """
    with suppress(TypeError, ValueError, OSError):
        os.utime(path, (time.time(), parsedate_to_datetime(modified).timestamp()))


def remove_leftovers(path):
    """Remove what killed processes and other mirrors left of a file that is there whole now.

    Parameters
    ----------
    path : `~pathlib.Path`
        The whole file.
    """
    if fcntl is None:
        return
    parts = path.parent.glob(f"{glob.escape(path.name)}.*.part")
    for left in (*parts, *path.parent.glob(".*.tmp")):
        with suppress(OSError), left.open("r+b") as stream:
            # Whoever writes it has locked it.
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_same_file(stream, left):
                remove(left.with_name(left.name + ".json"), left)


def lock(stream):
    """Lock an open file for this process, waiting for others; no more than that.

    Parameters
    ----------
    stream : file-like
        The open file.
    """
    # Some network file systems have no locks; then two writers do the work twice at worst, and
    # the check of the length refuses a part that both wrote.
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)


def remove(*paths):
    """Remove files, if they are there.

    Parameters
    ----------
    *paths : `~pathlib.Path`
        The files.
    """
    for path in paths:
        path.unlink(missing_ok=True)
