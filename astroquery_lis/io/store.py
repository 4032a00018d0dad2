"""The cache: whole files in a tree laid out like the survey, and parts of files beside it.

::

    <cache>/official/dr10/south/coadd/...fits.fz          whole files: the folder is a mirror itself
    <cache>/official/.parts/dr10/.../x.fits.fz/<version>/    what is known of a file not yet whole
        version.json                                         size, ETag and date of that state
        <start>-<stop>-<crc32>                               one run of bytes
    <cache>/official/.known/dr10/.../x.fits.fz.json          where a whole file came from: its URL,
                                                             ETag, date and sha256
    <cache>/custom-<digest>/...                              the same for a mirror given by its URL

A run is written under another name and moved when whole, and is never changed after; its checksum
is in its name.  So any number of threads and processes can share a cache without locks, and one
that is killed leaves nothing false behind.  The access times of the files say when they were last
used; they are set, since file systems are mounted without keeping them.
"""

import json
import os
import shutil
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .disk import check_space, note_written, remove_leftovers, replacing, writing
from .ranges import Version

__all__ = ["KNOWN", "PARTS", "VERSION_FILE", "Origin", "Runs", "Store", "mark_used", "write_whole"]

PARTS = ".parts"
KNOWN = ".known"
VERSION_FILE = "version.json"
TOUCH_AFTER_S = 30.0
"""A file used again within this time is not marked again."""


class Origin(NamedTuple):
    """Where a whole file of the cache came from.

    Attributes
    ----------
    url : str
        Who sent it.
    version : Version
        What the server said of it.
    sha256 : str
        Its digest when it was kept.
    """

    url: str
    version: Version
    sha256: str


def mark_used(path):
    """Note that a file of the cache was used, for `~.upkeep.prune`.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        The file; nothing happens if it is not there or cannot be marked.
    """
    with suppress(OSError):
        status, now = os.stat(path), time.time()
        if now - status.st_atime > TOUCH_AFTER_S:
            os.utime(path, ns=(int(now * 1e9), status.st_mtime_ns))


class Runs:
    """The known byte runs of one state of one remote file.

    Parameters
    ----------
    folder : `~pathlib.Path`
        Where they are.
    version : Version
        The state of the file.
    margin_bytes : int, optional
        What must stay free on the disk; by default ``conf.disk_margin``.
    """

    def __init__(self, folder, version, margin_bytes=None):
        self.folder = folder
        self.version = version
        self._margin_bytes = margin_bytes
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
        write_whole(self.folder / name, data, margin_bytes=self._margin_bytes)
        self._note(name)

    def mark_used(self):
        """Note that the runs were used."""
        mark_used(self.folder / VERSION_FILE)


def write_whole(path, data, *, margin_bytes=None):
    """Write a file under another name and move it to its place.

    Parameters
    ----------
    path : `~pathlib.Path`
        Its place; the folder must be there.
    data : bytes
        All of it.
    margin_bytes : int, optional
        What must stay free on the disk; by default ``conf.disk_margin``.

    Raises
    ------
    CacheError
        If it cannot be written.
    """
    check_space(path.parent, len(data), margin_bytes)
    with writing(path), replacing(path) as stream:
        stream.write(data)
    note_written(len(data))


class Store:
    """Cache of the files of one root: the official mirrors', or one custom mirror's.

    Parameters
    ----------
    root : str or `~pathlib.Path`
        Its folder; made when something is first kept.
    margin_bytes : int, optional
        What must stay free on the disk; by default ``conf.disk_margin``.
    """

    def __init__(self, root, *, margin_bytes=None):
        self.root = Path(root)
        self.margin_bytes = margin_bytes

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

    def holds(self, relative):
        """Tell whether something of a file is here, whole or in parts.

        Parameters
        ----------
        relative : str
            Relative to the survey's root.

        Returns
        -------
        bool
        """
        return self._parts(relative).is_dir() or self.path(relative).exists()

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
            return Runs(newest[2].parent, newest[1], self.margin_bytes) if newest else None
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
            data = json.dumps(version.__dict__).encode()
            write_whole(folder / VERSION_FILE, data, margin_bytes=self.margin_bytes)
        for other in parts.iterdir():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        return Runs(folder, version, self.margin_bytes)

    def forget(self, relative):
        """Drop everything that is known of a file.

        Parameters
        ----------
        relative : str
            Relative to the survey's root.
        """
        self.forget_runs(relative)
        self.forget_whole(relative)

    def forget_whole(self, relative):
        """Drop the whole file, and where it came from.

        Parameters
        ----------
        relative : str
            Relative to the survey's root.
        """
        for path in (self.path(relative), self._origin_path(relative)):
            path.unlink(missing_ok=True)

    def remember(self, relative, origin):
        """Keep where a whole file came from.

        Parameters
        ----------
        relative : str
            Relative to the survey's root.
        origin : Origin
            What is known of it.

        Raises
        ------
        CacheError
            If it cannot be written.
        """
        path = self._origin_path(relative)
        note = {"url": origin.url, "sha256": origin.sha256, "version": origin.version.__dict__}
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(note).encode(), margin_bytes=self.margin_bytes)
        remove_leftovers(path)

    def origin(self, relative):
        """Return where a whole file came from.

        Parameters
        ----------
        relative : str
            Relative to the survey's root.

        Returns
        -------
        Origin or None
            `None` if it is not known.
        """
        try:
            note = json.loads(self._origin_path(relative).read_text())
            return Origin(note["url"], Version(**note["version"]), note["sha256"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _origin_path(self, relative):
        return self.root / KNOWN / f"{relative}.json"

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
