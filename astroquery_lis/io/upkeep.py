"""What the cache holds, and how it is kept small: counting, clearing, pruning, checking.

Any number of processes may use a cache meanwhile.  A file is only ever removed as a whole; whoever
has it open reads on, and whoever looks for it fetches it anew.
"""

from __future__ import annotations

import os
import shutil
import time
import zlib
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .._forks import new_lock
from ..exceptions import CacheError
from .store import KNOWN, PARTS, VERSION_FILE, Store, close_unlocked, written_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._typing import FilePath

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

USAGE_FILE = ".usage"
PRUNED_FRACTION = 0.9
"""Pruning goes on until this part of the limit is used, so that it need not be done each time."""

GROWTH_FRACTION = 0.02
NOTE_BYTES = 16_000_000
"""What a process may write, and what part of the limit, before it notes the growth."""

RECOUNT_S = 86_400.0
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
        for folder, names, files in os.walk(root):
            inside = Path(folder).relative_to(root)
            if inside.parts[:1] == (KNOWN,):
                names.clear()
            elif inside.parts[:1] == (PARTS,):
                if any(os.path.exists(os.path.join(folder, n, VERSION_FILE)) for n in names):
                    yield _entry_of_parts(root, folder, inside.relative_to(PARTS))
                    names.clear()
            else:
                for name in files:
                    entry = _entry_of_file(root, folder, inside, name)
                    if entry is not None:
                        yield entry


def _entry_of_file(root: Path, folder: str, inside: Path, name: str) -> CacheEntry | None:
    with suppress(OSError):
        status = os.stat(os.path.join(folder, name))
        used_s = max(status.st_atime, status.st_ctime if ".part" in name else 0.0)
        return CacheEntry(root, (inside / name).as_posix(), True, status.st_size, 1, used_s)
    return None


def _entry_of_parts(root: Path, folder: str, inside: Path) -> CacheEntry:
    size, files, used_s = 0, 0, 0.0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                status = os.stat(os.path.join(path, name))
                size, files = size + status.st_size, files + 1
                used_s = max(used_s, status.st_atime, status.st_mtime)
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
    location: FilePath, *, used_before_s: float | None = None, release: str | None = None
) -> int:
    """Remove all of a cache, or what is of one release or not used since; return the bytes."""
    if used_before_s is None and release is None:
        removed = sum(entry.size for entry in cache_entries(location))
        for root in all_stores(location):
            _remove_tree(root)
        return removed
    removed = 0
    for entry in list(cache_entries(location)):
        if used_before_s is not None and entry.used_s >= used_before_s:
            continue
        if release is not None and entry.relative.partition("/")[0] != release:
            continue
        entry.remove()
        removed += entry.size
    return removed


def _remove_tree(root: Path) -> None:
    """Remove a folder to which others may be writing meanwhile."""
    for attempt in range(CLEAR_TRIES):
        try:
            shutil.rmtree(root)
        except FileNotFoundError:
            if not root.exists():
                return
        except OSError as error:
            if attempt + 1 == CLEAR_TRIES:
                msg = f"Cannot clear {root}: {error.strerror or error}."
                raise CacheError(msg, cause=error) from error
        else:
            return


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


def keep_within(
    location: FilePath, limit_bytes: float, *, keep_since_s: float | None = None
) -> bool:
    """Prune the cache if it has outgrown its limit; return False if what must stay is larger.

    Its size is not counted each time: a file tells what it was, and each process adds what it
    wrote.  What was used since ``keep_since_s`` stays; by default the last minute.
    """
    if not limit_bytes:
        return True
    key = str(location)
    with _noting:
        before = _noted.get(key)
        now = written_bytes()
        added = 0 if before is None else now - before
        if before is not None and added < min(NOTE_BYTES, limit_bytes * GROWTH_FRACTION):
            return True
        _noted[key] = now
    since_s = time.time() - KEEP_S if keep_since_s is None else keep_since_s
    with _usage_file(location) as file:
        if file is None:
            # What was added is told another time.
            with _noting:
                _noted[key] -= added
            return True
        size, counted_s = _read_usage(file)
        size += added
        if counted_s < time.time() - RECOUNT_S or size > limit_bytes:
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
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        except OSError:  # a file system without locks
            pass
        yield file


def damaged_runs(entry: CacheEntry) -> list[Path]:
    """Return the runs of a file in parts that are not what their names say."""
    bad = []
    for path in sorted((entry.root / PARTS / entry.relative).glob("*/*-*-*")):
        start, stop, crc32 = path.name.split("-")
        try:
            data = path.read_bytes()
        except OSError:
            continue
        if len(data) != int(stop) - int(start) or f"{zlib.crc32(data):08x}" != crc32:
            bad.append(path)
    return bad
