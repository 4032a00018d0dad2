"""The cache: whole files in a tree laid out like the survey, and parts of files beside it.

::

    <cache>/official/dr10/south/coadd/...fits.fz          whole files: the folder is a mirror itself
    <cache>/official/.parts/dr10/.../x.fits.fz/<version>/    what is known of a file not yet whole
        version.json                                         size, ETag and date of that state
        <start>-<stop>-<crc32>                               one run of bytes
    <cache>/custom-<digest>/...                              the same for a mirror given by its URL

A run is written under another name and moved when whole, and is never changed after; its checksum
is in its name.  So any number of threads and processes can share a cache without locks, and one
that is killed leaves nothing false behind.
"""

import json
import os
import shutil
import zlib
from pathlib import Path
from uuid import uuid4

from .download import writing
from .ranges import Version

__all__ = ["Runs", "Store", "cache_usage", "clear_stores"]

PARTS = ".parts"
VERSION_FILE = "version.json"


class Runs:
    """The known byte runs of one state of one remote file.

    Parameters
    ----------
    folder : `~pathlib.Path`
        Where they are.
    version : Version
        The state of the file.
    """

    def __init__(self, folder, version):
        self.folder = folder
        self.version = version
        self._known = {}
        for name in os.listdir(folder):
            self._note(name)

    def _note(self, name):
        pieces = name.split("-")
        if len(pieces) == 3 and pieces[0].isdigit() and pieces[1].isdigit():
            self._known[int(pieces[0]), int(pieces[1])] = name

    def holding(self, start, stop):
        """Return the bytes of a known run that covers ``start`` to ``stop``.

        Parameters
        ----------
        start, stop : int
            First byte and one past the last.

        Returns
        -------
        offset : int
            Of the run's first byte.
        data : bytes
            The run; or `None` in place of the pair if there is no sound one.
        """
        for (first, last), name in list(self._known.items()):
            if first <= start and stop <= last:
                data = self._read(first, last, name)
                if data is not None:
                    return first, data
        return None

    def _read(self, first, last, name):
        path = self.folder / name
        try:
            data = path.read_bytes()
        except OSError:
            data = b""
        if len(data) == last - first and f"{zlib.crc32(data):08x}" == name.rpartition("-")[2]:
            return data
        self._known.pop((first, last), None)
        path.unlink(missing_ok=True)
        return None

    def add(self, start, data):
        """Keep a run of bytes.

        Parameters
        ----------
        start : int
            Offset of the first byte.
        data : bytes
            The bytes.

        Raises
        ------
        CacheError
            If they cannot be written.
        """
        name = f"{start}-{start + len(data)}-{zlib.crc32(data):08x}"
        _write(self.folder / name, data)
        self._note(name)


def _write(path, data):
    """Write a file under another name and move it to its place."""
    temporary = path.with_name(f".{uuid4().hex}.tmp")
    with writing(path):
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


class Store:
    """Cache of the files of one root: the official mirrors', or one custom mirror's.

    Parameters
    ----------
    root : str or `~pathlib.Path`
        Its folder; made when something is first kept.
    """

    def __init__(self, root):
        self.root = Path(root)

    def path(self, relative):
        """Return the place of a whole file, whether it is there or not.

        Parameters
        ----------
        relative : str
            Relative to the survey's root.

        Returns
        -------
        `~pathlib.Path`
        """
        return self.root / relative

    def runs(self, relative):
        """Return what is known of a file in its newest state, or `None`.

        Parameters
        ----------
        relative : str
            Relative to the survey's root.

        Returns
        -------
        Runs or None
        """
        newest = None
        for note in self._parts(relative).glob(f"*/{VERSION_FILE}"):
            try:
                found = (note.stat().st_mtime_ns, Version(**json.loads(note.read_text())), note)
            except (OSError, ValueError, TypeError):
                continue
            if newest is None or found[0] > newest[0]:
                newest = found
        try:
            return Runs(newest[2].parent, newest[1]) if newest else None
        except OSError:
            return None

    def begin_runs(self, relative, version):
        """Return the `Runs` of a state of a file, and forget the file's other states.

        Parameters
        ----------
        relative : str
            Relative to the survey's root.
        version : Version
            The state.

        Returns
        -------
        Runs

        Raises
        ------
        CacheError
            If the folder cannot be made.
        """
        parts = self._parts(relative)
        folder = parts / version.key
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if not (folder / VERSION_FILE).exists():
            _write(folder / VERSION_FILE, json.dumps(version.__dict__).encode())
        for other in parts.iterdir():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        return Runs(folder, version)

    def forget(self, relative):
        """Drop everything that is known of a file.

        Parameters
        ----------
        relative : str
            Relative to the survey's root.
        """
        shutil.rmtree(self._parts(relative), ignore_errors=True)
        self.path(relative).unlink(missing_ok=True)

    def forget_runs(self, relative):
        """Drop the parts of a file, because it is there whole or its parts are of no use.

        Parameters
        ----------
        relative : str
            Relative to the survey's root.
        """
        shutil.rmtree(self._parts(relative), ignore_errors=True)

    def _parts(self, relative):
        return self.root / PARTS / relative


def cache_usage(location):
    """Count what a cache location holds.

    Parameters
    ----------
    location : str or `~pathlib.Path`
        Folder that holds the stores' roots.

    Returns
    -------
    dict of str to dict
        For each root: ``files`` and ``file_bytes`` of the whole files, ``parts`` and ``part_bytes``
        of the runs of bytes.
    """
    usage = {}
    for root in sorted(path for path in Path(location).glob("*") if _is_store(path)):
        count = {"files": 0, "file_bytes": 0, "parts": 0, "part_bytes": 0}
        for folder, _, names in os.walk(root):
            kind = "part" if PARTS in Path(folder).relative_to(root).parts[:1] else "file"
            for name in names:
                try:
                    size = os.stat(os.path.join(folder, name)).st_size
                except OSError:
                    continue
                count[f"{kind}s"] += 1
                count[f"{kind}_bytes"] += size
        usage[root.name] = count
    return usage


def _is_store(path):
    return path.is_dir() and (path.name == "official" or path.name.startswith("custom-"))


def clear_stores(location):
    """Remove every store below a cache location.

    Parameters
    ----------
    location : str or `~pathlib.Path`
        Folder that holds the stores' roots.
    """
    for root in Path(location).glob("*"):
        if _is_store(root):
            shutil.rmtree(root)
