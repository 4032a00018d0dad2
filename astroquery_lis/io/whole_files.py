"""Whole files: checked to their end by their own bytes, and written whole or not at all."""

from __future__ import annotations

import errno
import glob
import gzip
import hashlib
import json
import math
import os
import re
import shutil
import time
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

from .._conf import conf
from .._locks import new_lock
from ..exceptions import (
    CacheError,
    LegacySurveyError,
    NotFoundError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
)

try:
    import fcntl
except ImportError:  # Windows: files are not shared among writers there
    fcntl = None

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Buffer

    from .._typing import FilePath

HEAD_BYTES = 9
BLOCK_BYTES = 2880
CARD_BYTES = 80
HEADER_LIMIT_BLOCKS = 1500
# Section 7.2.1 of the FITS standard (4.0); astropy counts to whatever a header says.
FIELDS_LIMIT = 999
CHUNK_BYTES = 1 << 20
_END = b"END" + b" " * 77
_SIZES = (b"BITPIX", b"PCOUNT", b"GCOUNT", b"TFIELDS")
_JPEG_END = b"\xff\xd9"
_BEGINS = (
    (".fits", "FITS", re.compile(b"SIMPLE  =")),
    (".fz", "FITS", re.compile(b"SIMPLE  =")),
    (".gz", "FITS", re.compile(b"\x1f\x8b")),
    (".jpg", "JPEG", re.compile(b"\xff\xd8")),
    (".sha256sum", "checksum", re.compile(rb"[0-9a-fA-F]*\Z")),
)
"""How files begin, by the endings of their names."""


@contextmanager
def reading(url: str | Path, how: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an error that says what cannot be done.

    Damaged bytes raise nearly everything: zlib.error, CfitsioException, struct.error, MemoryError.
    """
    try:
        yield
    except Exception as error:
        raise unreadable(url, how, error) from error


def unreadable(url: str | Path, how: str, error: Exception) -> TransferError | CacheError:
    """Return the error for what `reading` meets."""
    if isinstance(error, (TransferError, CacheError)):
        return error
    msg = f"{url} cannot be {how}: {error or type(error).__name__}."
    return UnexpectedContentError(msg, url=str(url), cause=error)


def check_head(path: str | Path, head: bytes, url: str | Path) -> None:
    """Refuse content that cannot be the FITS, gzip, JPEG or checksum file that it should be."""
    for ending, kind, begin in _BEGINS:
        if str(path).endswith(ending) and not begin.match(head[:HEAD_BYTES]):
            msg = f"{url} is not a {kind} file; it begins with {bytes(head[:HEAD_BYTES])!r}."
            raise UnexpectedContentError(msg, url=str(url))


def check_structure(path: str | Path, stream: IO[bytes], url: str | Path) -> None:
    """Refuse a whole file that ends too early, or goes on after its end."""
    name = str(path)
    stream.seek(0)
    check_head(name, stream.read(HEAD_BYTES), url)
    if name.endswith((".fits", ".fz")):
        for _ in fits_headers(stream, url):
            pass
    elif name.endswith(".gz"):
        _check_gzip(stream, url, is_fits=name.endswith(".fits.gz"))
    elif name.endswith(".jpg"):
        stream.seek(max(stream.seek(0, os.SEEK_END) - len(_JPEG_END), 0))
        if stream.read() != _JPEG_END:
            msg = f"{url} ends before its picture does."
            raise TruncatedError(msg, url=str(url))
    elif name.endswith(".json"):
        stream.seek(0)
        with reading(url, "read as whole JSON"):
            json.load(stream)


def fits_headers(stream: IO[bytes], url: str | Path) -> Iterator[tuple[bytes, int]]:
    """Give each HDU's header and its end; refuse a file that is cut, or goes on after its end."""
    size = stream.seek(0, os.SEEK_END)
    position = 0
    while position < size:
        header, stop = _header_and_end(stream, position, url)
        if stop > size:
            msg = f"{url} has {size} bytes; its HDUs need {stop}."
            raise TruncatedError(msg, url=str(url))
        yield header, stop
        position = stop


def _header_and_end(stream: IO[bytes], start: int, url: str | Path) -> tuple[bytes, int]:
    """Return the header of the HDU that begins at ``start``, and the offset of what follows it."""
    stream.seek(start)
    header = b""
    values: dict[str, bytes] = {}
    for number in range(HEADER_LIMIT_BLOCKS):
        block = stream.read(BLOCK_BYTES)
        if number == 0 and not block.startswith((b"SIMPLE  =", b"XTENSION=")):
            msg = f"{url} has something other than a FITS header at byte {start}."
            raise UnexpectedContentError(msg, url=str(url))
        if len(block) < BLOCK_BYTES:
            break
        header += block
        if _note_sizes(block, values):
            return header, start + len(header) + _data_bytes(values, url)
    msg = f"{url} ends within a header, or has one without an end."
    raise TruncatedError(msg, url=str(url))


def _note_sizes(block: bytes, values: dict[str, bytes]) -> bool:
    """Note the sizes that the cards of a block tell; return True if the header ends in it."""
    for at in range(0, BLOCK_BYTES, CARD_BYTES):
        card = block[at : at + CARD_BYTES]
        if card == _END:
            return True
        keyword = card[:8].rstrip()
        if keyword.startswith(b"NAXIS") or keyword in _SIZES:
            values[keyword.decode("ascii", "replace")] = card[10:].partition(b"/")[0]
    return False


def _data_bytes(values: dict[str, bytes], url: str | Path) -> int:
    """Return the length of the data that a header announces, in whole blocks."""
    try:
        number = {keyword: int(value) for keyword, value in values.items()}
        axes = [number[f"NAXIS{i}"] for i in range(1, number["NAXIS"] + 1)]
        bits = abs(number.pop("BITPIX"))
    except (KeyError, ValueError) as error:
        msg = f"{url} has a header that does not tell its length."
        raise UnexpectedContentError(msg, url=str(url), cause=error) from error
    if min(number.values()) < 0:
        msg = f"{url} has a header that gives its data a negative size."
        raise UnexpectedContentError(msg, url=str(url))
    if number.get("TFIELDS", 0) > FIELDS_LIMIT:
        msg = f"{url} has a header of a table with {number['TFIELDS']} columns."
        raise UnexpectedContentError(msg, url=str(url))
    if not axes:
        return 0
    pixels = number.get("PCOUNT", 0) + math.prod(axes)
    length = bits // 8 * number.get("GCOUNT", 1) * pixels
    return -(-length // BLOCK_BYTES) * BLOCK_BYTES


def _check_gzip(
    stream: IO[bytes], url: str | Path, *, is_fits: bool, hashing: _Hashing | None = None
) -> None:
    stream.seek(0)
    source: Any = hashing or stream
    try:
        with reading(url, "unpacked"), gzip.GzipFile(fileobj=source, mode="rb") as unpacked:
            if is_fits:
                check_head(".fits", unpacked.read(HEAD_BYTES), url)
            while unpacked.read(CHUNK_BYTES):
                pass
    except UnexpectedContentError as error:
        if not isinstance(error.cause, EOFError):
            raise
        msg = f"{url} ends before its compressed data do."
        raise TruncatedError(msg, url=str(url), cause=error.cause) from error


def flaw_of(path: str | Path, *, size: int = -1, sha256: str = "") -> str | None:
    """Return what is wrong with a file that is here: empty if nothing is, `None` if it is not.

    It is read once for each state that it is in.
    """
    try:
        status = os.stat(path)
        if 0 <= size != status.st_size:
            return f"{path} has {status.st_size} bytes; {size} are due."
        return _flaw(str(path), (status.st_mtime_ns, status.st_size), sha256)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=65536)
def _flaw(path: str, state: tuple[int, int], sha256: str) -> str:
    try:
        with open(path, "rb") as stream:
            if sha256 and check_whole(path, stream, path) != sha256:
                return f"{path} has another sha256 than it had."
            check_structure(path, stream, path)
    except (TruncatedError, UnexpectedContentError) as error:
        return str(error)
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}."
    return ""


# ---- digests -------------------------------------------------------------------------------------


def sha256_of(path: str | Path) -> str:
    """Return the sha256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _Hashing:
    """A stream that is read once, from its begin, and the digest of what was read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.digest.update(data)
        return data


def check_whole(path: str | Path, stream: Any, url: str | Path) -> str:
    """Refuse a file as `check_structure` does; return its sha256, after a single pass."""
    name = str(path)
    if not name.endswith(".gz"):
        check_structure(path, stream, url)
        stream.seek(0)
        return hashlib.file_digest(stream, "sha256").hexdigest()
    stream.seek(0)
    check_head(name, stream.read(HEAD_BYTES), url)
    hashing = _Hashing(stream)
    _check_gzip(stream, url, is_fits=name.endswith(".fits.gz"), hashing=hashing)
    return hashing.digest.hexdigest()


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
GB = 1_000_000_000
TEMPORARY_PREFIX = ".astroquery_lis-"

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


def write_bytes(
    path: Path, data: Buffer, *, margin_bytes: float | None = None, has_room: bool = False
) -> None:
    """Write a file, whole or not at all, if the disk has room for it, or is known to have."""
    with _placed(path) as (_, stream):
        assert stream is not None
        if not has_room:
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


def take_lock(stream: IO[Any], *, shared: bool = False) -> bool:
    """Lock an open file unless another process has it locked; `False` if one has."""
    if fcntl is not None:
        try:
            fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
    return True


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
