"""Files whole or not at all, and the cache: a tree laid out like the survey, with parts beside it.

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

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import time
import zlib
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from .._conf import conf
from .._forks import new_lock
from ..exceptions import CacheError, LegacySurveyError, NotFoundError
from .checks import check_structure, flaw_of
from .ranges import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Buffer

    from .._typing import FilePath

try:
    import fcntl
except ImportError:  # Windows: files are not shared among writers there
    fcntl = None

CHUNK_BYTES = 1 << 20
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
GB = 1_000_000_000
PARTS = ".parts"
KNOWN = ".known"
VERSION_FILE = "version.json"
TEMPORARY_PREFIX = ".astroquery_lis-"
TOUCH_AFTER_S = 30.0
"""A file used again within this time is not marked again."""

_trusted: dict[str, tuple[int, int]] = {}
"""Date and size of the whole files that were found sound."""

_written_lock = new_lock()
_written_total = 0


def note_written(n_bytes: int) -> None:
    """Count bytes that were written to disk."""
    global _written_total
    with _written_lock:
        _written_total += n_bytes


def written_bytes() -> int:
    """Return how many bytes this process has written to files of the survey."""
    return _written_total


@contextmanager
def writing(what: FilePath) -> Iterator[None]:
    """Turn the operating system's refusal to write a file or folder into `CacheError`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, CacheError):
            raise
        msg = f"Cannot write {what}: {error.strerror or error}."
        raise CacheError(msg, cause=error) from error


def check_space(folder: Path, needed_bytes: int, margin_bytes: float | None = None) -> None:
    """Refuse to fill the disk of a folder; ``conf.disk_margin`` or the given margin stays free."""
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
        raise CacheError(msg, cause=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


def is_full(error: BaseException | None) -> bool:
    """Return True if an error says that there is no room: every file after it would fail too."""
    cause = error.cause if isinstance(error, CacheError) else None
    return isinstance(cause, OSError) and cause.errno in NO_ROOM


@contextmanager
def write_whole(path: FilePath, *, locked: bool = True, synced: bool = False) -> Iterator[Path]:
    """Yield a new file beside ``path``, which takes its place, whole, if nothing is raised.

    Folders are made.  The file is locked meanwhile, so that `remove_temporaries` knows it from what
    a killed process left.  With ``locked=False`` it is only a name, for writers that make and lock
    the file themselves (HDF5), and nothing is replaced if they leave nothing.  With ``synced`` it
    is on the disk before it is in its place.
    """
    path = Path(path)
    with _placed(path, locked=locked) as (temporary, stream):
        if stream is None:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif fcntl is None:  # Windows does not open a file for two.
            stream.close()
        yield temporary
        if synced:
            with temporary.open("rb") as data:
                os.fsync(data.fileno())


def write_bytes(path: Path, data: Buffer, *, margin_bytes: float | None = None) -> None:
    """Write a file, whole or not at all, if the disk has room for it."""
    with _placed(path) as (_, stream):
        assert stream is not None
        check_space(path.parent, memoryview(data).nbytes, margin_bytes)
        stream.write(data)


def keep_bytes(path: Path, data: bytes, *, margin_bytes: float | None = None) -> None:
    """Write a file of the cache and count it."""
    write_bytes(path, data, margin_bytes=margin_bytes)
    note_written(len(data))


@contextmanager
def _placed(path: Path, *, locked: bool = True) -> Iterator[tuple[Path, IO[bytes] | None]]:
    """Yield name, and stream if locked, of a new file that takes the place of ``path``."""
    with writing(path):
        temporary, stream = _new_temporary(path) if locked else (_temporary(path), None)
        try:
            yield temporary, stream
            if stream is not None:
                # It stays locked until it is in its place, but for Windows, which moves no file
                # that is open.
                stream.close() if fcntl is None else stream.flush()
            if locked or temporary.exists():
                os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        finally:
            if stream is not None:
                close_unlocked(stream)


def copy_whole(source: Path, target: Path) -> str:
    """Copy a local file that is what its name says, with its date; return its sha256."""
    try:
        with source.open("rb") as stream:
            check_structure(target, stream, source)
            size = stream.seek(0, os.SEEK_END)
    except OSError as error:
        if isinstance(error, LegacySurveyError):
            raise
        msg = f"{source} cannot be read: {error.strerror or error}."
        raise NotFoundError(msg, url=str(source), cause=error) from error
    with write_whole(target) as temporary:
        check_space(target.parent, size)
        digest = hashlib.sha256()
        with source.open("rb") as stream, temporary.open("wb") as copy:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
                copy.write(chunk)
        os.utime(temporary, (time.time(), source.stat().st_mtime))
    note_written(size)
    return digest.hexdigest()


def _temporary(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY_PREFIX}{uuid4().hex}.tmp")


def _new_temporary(path: Path) -> tuple[Path, IO[bytes]]:
    """Return a new file beside a path, and the stream that keeps it locked."""
    while True:
        temporary = _temporary(path)
        try:
            stream = temporary.open("xb")
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            continue
        lock(stream)
        # Until it was locked, it could be taken for what a killed process left.
        if is_same_file(stream, temporary):
            return temporary, stream
        stream.close()


def is_same_file(stream: IO[bytes], path: Path) -> bool:
    """Return True if a name still is that of an open file."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def set_times(path: Path, modified: str | None) -> None:
    """Give a file the date of a Last-Modified header; it counts as used now."""
    if modified is None:
        return
    with suppress(TypeError, ValueError, OSError):
        os.utime(path, (time.time(), parsedate_to_datetime(modified).timestamp()))


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes and other mirrors left of a file that is there whole now."""
    _remove_unlocked(path.parent.glob(f"{glob.escape(path.name)}.*.part"))
    remove_temporaries(path.parent)


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes left half written in a folder."""
    _remove_unlocked(folder.glob(f"{TEMPORARY_PREFIX}*.tmp"))


def _remove_unlocked(paths: Iterable[Path]) -> None:
    if fcntl is None:
        return
    for path in paths:
        with suppress(OSError), path.open("r+b") as stream:
            # Whoever writes it has locked it.
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_same_file(stream, path):
                remove(path.with_name(path.name + ".json"), path)


def lock(stream: IO[bytes]) -> None:
    """Lock an open file for this process, waiting for others; no more than that."""
    # Some network file systems have no locks; then two writers do the work twice at worst, and
    # the check of the length refuses a part that both wrote.
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)


def close_unlocked(stream: IO[Any]) -> None:
    """Close a file that was locked; a process that was forked meanwhile does not keep the lock."""
    if fcntl is not None and not stream.closed:
        # Nothing is written when the next may have the lock; what cannot be, closing tells.
        with suppress(OSError):
            stream.flush()
        with suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_UN)
    stream.close()


def remove(*paths: Path) -> None:
    """Remove files, if they are there."""
    for path in paths:
        path.unlink(missing_ok=True)


def mark_used(path: str | Path) -> None:
    """Note, for `~.upkeep.prune`, that a file of the cache was used, if it is there."""
    with suppress(OSError):
        status, now = os.stat(path), time.time()
        if now - status.st_atime > TOUCH_AFTER_S:
            os.utime(path, ns=(int(now * 1e9), status.st_mtime_ns))


class Origin(NamedTuple):
    """Where a whole file of the cache came from."""

    url: str
    """Who sent it."""
    version: Version
    """What the server said of it."""
    sha256: str
    """Its digest when it was kept."""
    modified_ns: int = -1
    """The date of the file then; another one asks for a look at its bytes."""


class Runs:
    """The known byte runs of one state of one remote file."""

    def __init__(self, folder: Path, version: Version, margin_bytes: float | None = None) -> None:
        self.folder = folder
        self.version = version
        self._margin_bytes = margin_bytes
        self._names: dict[tuple[int, int], str] = {}
        for name in os.listdir(folder):
            self._note(name)

    def _note(self, name: str) -> None:
        pieces = name.split("-")
        if len(pieces) == 3 and pieces[0].isdigit() and pieces[1].isdigit():
            self._names[int(pieces[0]), int(pieces[1])] = name

    def holding(self, start: int, stop: int) -> tuple[int, bytes] | None:
        """Return offset and bytes of a sound run that covers ``start`` to ``stop``, or None."""
        for (first, last), name in list(self._names.items()):
            if first <= start and stop <= last:
                data = self._read(first, last, name)
                if data is not None:
                    return first, data
        return None

    def _read(self, first: int, last: int, name: str) -> bytes | None:
        path = f"{self.folder}/{name}"
        try:
            with open(path, "rb", buffering=0) as file:
                data = file.readall()
        except OSError:
            data = b""
        if len(data) == last - first and f"{zlib.crc32(data):08x}" == name.rpartition("-")[2]:
            return data
        self._names.pop((first, last), None)
        remove(Path(path))
        return None

    def add(self, start: int, data: bytes) -> None:
        """Keep a run of bytes that begins at offset ``start``."""
        name = f"{start}-{start + len(data)}-{zlib.crc32(data):08x}"
        keep_bytes(self.folder / name, data, margin_bytes=self._margin_bytes)
        self._note(name)

    def mark_used(self) -> None:
        """Note that the runs were used."""
        mark_used(self.folder / VERSION_FILE)


class Store:
    """Cache of the files of one root: the official mirrors', or one custom mirror's.

    Its folder is made when something is first kept.  All names are relative to the survey's root.
    """

    def __init__(self, root: str | Path, *, margin_bytes: float | None = None) -> None:
        self.root = Path(root)
        self.margin_bytes = margin_bytes

    def holds(self, relative: str) -> bool:
        """Return True if something of a file is here, whole or in parts."""
        return self._parts(relative).is_dir() or (self.root / relative).exists()

    def flaw(self, relative: str) -> str | None:
        """Return why a whole file cannot be trusted; empty if it can, `None` if it is not here.

        It can by the size, date and digest that were recorded, else by its structure.
        """
        path = self.root / relative
        with suppress(OSError):
            status = path.stat()
            if _trusted.get(str(path)) == (status.st_mtime_ns, status.st_size):
                return ""
            origin = self.origin(relative)
            size, digest = (origin.version.size, origin.sha256) if origin else (-1, "")
            if origin and (origin.modified_ns, size) == (status.st_mtime_ns, status.st_size):
                flaw: str | None = ""
            else:
                flaw = flaw_of(path, size=size, sha256=digest)
            if flaw == "":
                _trusted[str(path)] = status.st_mtime_ns, status.st_size
            return flaw
        return None

    def whole(self, relative: str) -> Path | None:
        """Return the whole file if it is here and can be trusted, as used; drop one that cannot."""
        path = self.root / relative
        flaw = self.flaw(relative)
        if flaw:
            self.forget_whole(relative)
        if flaw != "":
            return None
        mark_used(path)
        return path

    def runs(self, relative: str) -> Runs | None:
        """Return what is known of a file in its newest state, or None."""
        newest: tuple[int, Version, Path] | None = None
        for note in self._parts(relative).glob(f"*/{VERSION_FILE}"):
            try:
                state = (note.stat().st_mtime_ns, Version(**json.loads(note.read_text())), note)
            except (OSError, ValueError, TypeError):
                continue
            if newest is None or state[0] > newest[0]:
                newest = state
        try:
            return Runs(newest[2].parent, newest[1], self.margin_bytes) if newest else None
        except OSError:
            return None

    def begin_runs(self, relative: str, version: Version) -> Runs:
        """Return the `Runs` of a state of a file, and forget the file's other states."""
        parts = self._parts(relative)
        folder = parts / version.key
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if not (folder / VERSION_FILE).exists():
            data = json.dumps(version.__dict__).encode()
            keep_bytes(folder / VERSION_FILE, data, margin_bytes=self.margin_bytes)
        for other in parts.iterdir():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        return Runs(folder, version, self.margin_bytes)

    def forget(self, relative: str) -> None:
        """Drop everything that is known of a file."""
        self.forget_runs(relative)
        self.forget_whole(relative)

    def forget_whole(self, relative: str) -> None:
        """Drop the whole file, and where it came from."""
        remove(self.root / relative, self._origin_path(relative))

    def remember(self, relative: str, origin: Origin) -> None:
        """Keep where a whole file came from."""
        path = self._origin_path(relative)
        note = {**origin._asdict(), "version": origin.version.__dict__}
        with suppress(OSError):
            note["modified_ns"] = (self.root / relative).stat().st_mtime_ns
        keep_bytes(path, json.dumps(note).encode(), margin_bytes=self.margin_bytes)
        remove_leftovers(path)

    def origin(self, relative: str) -> Origin | None:
        """Return where a whole file came from, or None if it is not known."""
        try:
            note = json.loads(self._origin_path(relative).read_text())
            return Origin(**{**note, "version": Version(**note["version"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _origin_path(self, relative: str) -> Path:
        return self.root / KNOWN / f"{relative}.json"

    def forget_runs(self, relative: str) -> None:
        """Drop the parts of a file, because it is there whole or its parts are of no use."""
        shutil.rmtree(self._parts(relative), ignore_errors=True)

    def _parts(self, relative: str) -> Path:
        return self.root / PARTS / relative
