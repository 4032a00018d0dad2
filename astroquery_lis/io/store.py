"""The cache: a tree laid out like the survey, with parts beside it, and how it is kept small.

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
used; they are set, since file systems are mounted without keeping them.  A file is only removed as
a whole; whoever has it open reads on, and whoever looks for it fetches it anew.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import zlib
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from .._locks import new_lock
from ..exceptions import CacheError
from .ranges import Version
from .whole_files import (
    close_unlocked,
    flaw_of,
    keep_bytes,
    remove,
    remove_leftovers,
    take_lock,
    writing,
    written_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._typing import FilePath


PARTS = ".parts"
KNOWN = ".known"
VERSION_FILE = "version.json"
TOUCH_AFTER_S = 30.0
"""A file used again within this time is not marked again."""

_trusted: dict[str, tuple[int, int]] = {}
"""Date and size of the whole files that were found sound."""


def mark_used(path: str | Path) -> None:
    """Note, for `~.store.prune`, that a file of the cache was used, if it is there."""
    with suppress(OSError):
        status, now = os.stat(path), time.time()
        if abs(now - status.st_atime) > TOUCH_AFTER_S:
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


def _run_name(start: int, data: bytes) -> str:
    """Return the name of a run, which tells its place and its checksum."""
    return f"{start}-{start + len(data)}-{zlib.crc32(data):08x}"


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
        if name == _run_name(first, data):
            return data
        self._names.pop((first, last), None)
        remove(Path(path))
        return None

    def add(self, start: int, data: bytes) -> None:
        """Keep a run of bytes that begins at offset ``start``."""
        name = _run_name(start, data)
        keep_bytes(self.folder / name, data, margin_bytes=self._margin_bytes)
        self._note(name)


@dataclass(eq=False)
class Store:
    """Cache of the files of one root: the official mirrors', or one custom mirror's.

    Its folder is made when something is first kept.  All names are relative to the survey's root.
    """

    root: Path
    margin_bytes: float | None = field(default=None, kw_only=True)

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
        notes = self._parts(relative).glob(f"*/{VERSION_FILE}")
        states = [state for state in map(_state_of, notes) if state is not None]
        try:
            _, version, folder = max(states, key=itemgetter(0))
            return Runs(folder, version, self.margin_bytes)
        except (OSError, ValueError):  # nothing is known, or it was removed right now
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


def _state_of(note: Path) -> tuple[int, Version, Path] | None:
    """Return when a state of a file was noted, the state, and where its runs are."""
    try:
        return note.stat().st_mtime_ns, Version(**json.loads(note.read_text())), note.parent
    except (OSError, ValueError, TypeError):
        return None


USAGE_FILE = ".usage"
PRUNED_FRACTION = 0.9
"""Pruning goes on until this part of the limit is used, so that it need not be done each time."""

GROWTH_FRACTION = 0.02
NOTE_BYTES = 16_000_000
"""What a process may write, and what part of the limit, before it notes the growth."""

RECOUNT_S = 86_400.0
CLOCKS_S = 86_400.0
"""How far the clocks of machines that share a cache may be apart."""

CLEAR_TRIES = 5
KEEP_S = 60.0


@dataclass(frozen=True)
class CacheEntry:
    """One file of the survey, whole or in parts, as the cache holds it."""

    root: Path
    relative: str
    is_whole: bool
    size: int
    files: int
    used_s: float
    """When it was last used, seconds since 1970."""

    def remove(self) -> None:
        """Remove it."""
        store = Store(self.root)
        if self.is_whole:
            with suppress(OSError):
                store.forget_whole(self.relative)
        else:
            store.forget_runs(self.relative)


def cache_entries(location: FilePath) -> Iterator[CacheEntry]:
    """Yield what the stores below a cache location hold."""
    for root in all_stores(location):
        yield from _whole_entries(root)
        yield from _entries_of_parts(root)


def _past(time_s: float) -> float:
    """Return a time, 0 for one that is far ahead, as of a wrong clock: it would stay for ever."""
    return time_s if time_s < time.time() + CLOCKS_S else 0.0


def _whole_entries(root: Path) -> Iterator[CacheEntry]:
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name not in (KNOWN, PARTS)]
        inside = Path(folder).relative_to(root)
        for name in files:
            with suppress(OSError):
                status = os.stat(os.path.join(folder, name))
                written_s = status.st_ctime if ".part" in name else 0.0
                used_s = max(_past(status.st_atime), _past(written_s))
                relative = (inside / name).as_posix()
                yield CacheEntry(root, relative, True, status.st_size, 1, used_s)


def _entries_of_parts(root: Path) -> Iterator[CacheEntry]:
    for folder, names, _ in os.walk(root / PARTS):
        if any(os.path.exists(os.path.join(folder, name, VERSION_FILE)) for name in names):
            yield _entry_of_parts(root, folder, Path(folder).relative_to(root / PARTS))
            names.clear()


def _entry_of_parts(root: Path, folder: str, inside: Path) -> CacheEntry:
    size, files, used_s = 0, 0, 0.0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                status = os.stat(os.path.join(path, name))
                size, files = size + status.st_size, files + 1
                used_s = max(used_s, _past(status.st_atime), _past(status.st_mtime))
    return CacheEntry(root, inside.as_posix(), False, size, files, used_s)


def cache_usage(location: FilePath) -> dict[str, dict[str, int]]:
    """Count files and bytes of the whole files and the parts in each store."""
    names = ("files", "file_bytes", "parts", "part_bytes")
    usage = {root.name: dict.fromkeys(names, 0) for root in all_stores(location)}
    for entry in cache_entries(location):
        kind = "file" if entry.is_whole else "part"
        count = usage.setdefault(entry.root.name, dict.fromkeys(names, 0))
        count[f"{kind}s"] += entry.files
        count[f"{kind}_bytes"] += entry.size
    return usage


def all_stores(location: FilePath) -> list[Path]:
    """Return the folders that hold files of the survey, then those with answers of the viewer."""
    folders = [path for path in sorted(Path(location).glob("*")) if path.is_dir()]
    stores = [path for path in folders if path.name == "official" or _is_custom(path)]
    return stores + [path for path in folders if path.name.startswith("viewer-")]


def _is_custom(path: Path) -> bool:
    digest = path.name.removeprefix("custom-")
    return path.name != digest and len(digest) == 12 and digest.isalnum()


def clear_stores(
    location: FilePath, *, used_before_s: float = math.inf, release: str | None = None
) -> int:
    """Remove all of a cache, or what is of one release or not used since; return the bytes."""
    folder = "" if release is None else f"{release}/"
    entries = [
        entry
        for entry in cache_entries(location)
        if entry.used_s < used_before_s and entry.relative.startswith(folder)
    ]
    if used_before_s == math.inf and not folder:
        for root in all_stores(location):
            _remove_tree(root)
    else:
        for entry in entries:
            entry.remove()
    return sum(entry.size for entry in entries)


def _remove_tree(root: Path) -> None:
    """Remove a folder to which others may be writing meanwhile."""
    failure: OSError | None = None
    for _ in range(CLEAR_TRIES):
        try:
            shutil.rmtree(root)
        except OSError as error:
            failure = error
        else:
            return
    if os.path.lexists(root):
        msg = f"Cannot clear {root}: {failure}."
        raise CacheError(msg, cause=failure) from failure


def prune(location: FilePath, limit_bytes: float, *, keep_since_s: float) -> int:
    """Remove what was used longest ago until the cache is within its limit; return its size."""
    entries = sorted(cache_entries(location), key=lambda entry: entry.used_s)
    size = sum(entry.size for entry in entries)
    if size <= limit_bytes:
        return size
    for entry in entries:
        if size <= limit_bytes * PRUNED_FRACTION or entry.used_s >= keep_since_s:
            break
        entry.remove()
        size -= entry.size
    return size


_noted: dict[str, int] = {}
_noting = new_lock()


def _growth(location: str, least_bytes: float) -> int | None:
    """Return what this process wrote since it was last noted, `None` if too little to be noted."""
    with _noting:
        now = written_bytes()
        added = now - _noted.get(location, 0)
        # The first time a process looks whatever it wrote: it may end before it writes more.
        if location in _noted and added < least_bytes:
            return None
        _noted[location] = now
    return added


def keep_within(
    location: FilePath, limit_bytes: float, *, keep_since_s: float | None = None
) -> bool:
    """Prune the cache if it has outgrown its limit; return False if what must stay is larger.

    Its size is not counted each time: a file tells what it was, and each process adds what it
    wrote.  What was used since ``keep_since_s`` stays; by default the last minute.
    """
    if not limit_bytes:
        return True
    added = _growth(str(location), min(NOTE_BYTES, limit_bytes * GROWTH_FRACTION))
    if added is None:
        return True
    since_s = time.time() - KEEP_S if keep_since_s is None else keep_since_s
    with _usage_file(location) as file:
        if file is None:
            # What was added is told another time.
            with _noting:
                _noted[str(location)] -= added
            return True
        size, counted_s = _read_usage(file)
        size += added
        if abs(time.time() - counted_s) > RECOUNT_S or size > limit_bytes:
            counted_s = time.time()
            size = prune(location, limit_bytes, keep_since_s=since_s)
        # A torn line is no number, and then the cache is counted anew.
        file.seek(0)
        file.write(f"{size} {counted_s:.0f}\n")
        file.truncate()
        return size <= limit_bytes


def _read_usage(file: IO[str]) -> tuple[int, float]:
    """Return (bytes, time of the last count) as the file says."""
    try:
        size, counted_s = file.read().split()
        return int(size), float(counted_s)
    except ValueError:
        return 0, 0.0


@contextmanager
def _usage_file(location: FilePath) -> Iterator[IO[str] | None]:
    """Yield the file that tells the size, ours alone; `None` if another process has it."""
    try:
        number = os.open(Path(location, USAGE_FILE), os.O_RDWR | os.O_CREAT, 0o666)
        file = os.fdopen(number, "r+")
    except OSError:
        # Where nothing can be written, nothing grows either.
        yield None
        return
    with suppress(OSError), ExitStack() as held:
        held.callback(close_unlocked, file)
        yield file if take_lock(file) else None


def damaged_runs(entry: CacheEntry) -> list[Path]:
    """Return the runs of a file in parts that are not what their names say."""
    bad = []
    for path in sorted((entry.root / PARTS / entry.relative).glob("*/*-*-*")):
        with suppress(OSError, ValueError):  # it was removed right now, or is no run
            start = int(path.name.partition("-")[0])
            if path.name != _run_name(start, path.read_bytes()):
                bad.append(path)
    return bad
