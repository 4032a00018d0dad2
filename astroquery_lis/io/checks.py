"""Whether a file is what it should be: by its own bytes, and by the survey's lists of digests."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
from contextlib import contextmanager
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any

from ..exceptions import CacheError, TransferError, TruncatedError, UnexpectedContentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
_HEXADECIMAL = frozenset(b"0123456789abcdefABCDEF")


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
    name, kind, good = str(path), "FITS", True
    if name.endswith((".fits", ".fz")):
        good = head.startswith(b"SIMPLE  =")
    elif name.endswith(".gz"):
        good = head.startswith(b"\x1f\x8b")
    elif name.endswith(".jpg"):
        kind, good = "JPEG", head.startswith(b"\xff\xd8")
    elif name.endswith(".sha256sum"):
        kind, good = "checksum", _HEXADECIMAL.issuperset(head[:HEAD_BYTES])
    if not good:
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
        for at in range(0, BLOCK_BYTES, CARD_BYTES):
            card = block[at : at + CARD_BYTES]
            if card == _END:
                return header, start + len(header) + _data_bytes(values, url)
            keyword = card[:8].rstrip()
            if keyword.startswith(b"NAXIS") or keyword in _SIZES:
                values[keyword.decode("ascii", "replace")] = card[10:].partition(b"/")[0]
    msg = f"{url} ends within a header, or has one without an end."
    raise TruncatedError(msg, url=str(url))


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
