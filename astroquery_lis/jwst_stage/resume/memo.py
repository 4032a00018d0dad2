"""What was found out about files, kept on disk until a file changes."""

import json
import os
import threading
from pathlib import Path

from astropy.config.paths import get_cache_dir

from ..._conf import setting
from ...io.store import write_bytes

__all__ = ["FileMemo", "cache_folder"]


def cache_folder():
    """Return the folder of the package's cache in which the JWST chain keeps notes.

    Returns
    -------
    `~pathlib.Path`
    """
    chosen = setting("cache_dir")
    root = Path(chosen).expanduser() if chosen else Path(get_cache_dir()) / "astroquery"
    return root / "jwst_stage"


class FileMemo:
    """A value per file, computed again when its size or its date changes.  Safe among threads.

    Parameters
    ----------
    path : path-like
        JSON file that keeps the values; it need not exist, nor be writable.
    compute : callable
        Takes the path of a file and returns a value of JSON types.
    """

    def __init__(self, path, compute):
        self._path = Path(path)
        self._compute = compute
        self._lock = threading.Lock()
        self._known = _read(self._path)
        self._changed = False

    def get(self, path):
        """Return the value of a file.

        Parameters
        ----------
        path : path-like
            The file.

        Returns
        -------
        object
        """
        name = os.fspath(path)
        status = os.stat(name)
        stamp = [status.st_size, status.st_mtime_ns]
        with self._lock:
            entry = self._known.get(name)
        if entry is not None and entry[:2] == stamp:
            return entry[2]
        value = self._compute(path)
        with self._lock:
            self._known[name] = [*stamp, value]
            self._changed = True
        return value

    def save(self):
        """Write down what is new, if there is anything and it can be written."""
        with self._lock:
            if not self._changed:
                return
            # Another process may have found out something meanwhile.
            known = {**_read(self._path), **self._known}
            self._changed = False
        try:
            write_bytes(self._path, json.dumps(known).encode())
        except OSError:
            # The values are known all the same.
            return


def _read(path):
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    good = isinstance(known, dict) and all(
        isinstance(entry, list) and len(entry) == 3 for entry in known.values()
    )
    return known if good else {}
