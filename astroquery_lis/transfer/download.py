"""Whole files: atomic, resumable, checked, safe among threads and processes.

A file grows under a ``.part`` name beside its final place and moves there when it is whole.  The
part is locked while somebody writes it; whoever waited finds the finished file, and a part that a
killed process left is continued.
"""

import hashlib
import json
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..exceptions import (
    CacheError,
    ContentChangedError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
)
from .ranges import Version, content_range

try:
    import fcntl
except ImportError:  # Windows: parts are not shared among writers there
    fcntl = None

__all__ = ["Downloaded", "check_fits_head", "download", "writing"]

CHUNK_BYTES = 1 << 20
HEAD_BYTES = 9


@dataclass(frozen=True)
class Downloaded:
    """What a download did.

    Attributes
    ----------
    path : `~pathlib.Path`
        The file, whole.
    size : int
        Its length, bytes.
    fetched_bytes : int
        How many of them came over the network in this call; 0 if the file was there.
    sha256 : str or None
        Digest of the file, `None` if the file was there already.
    """

    path: Path
    size: int
    fetched_bytes: int
    sha256: str | None


def check_fits_head(path, head, url):
    """Refuse content that cannot be the FITS (or gzipped FITS) file that it should be.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        Name of the file; others than FITS are not checked.
    head : bytes
        Its first bytes.
    url : str
        Where it comes from.

    Raises
    ------
    UnexpectedContentError
    """
    name = str(path)
    if name.endswith((".fits", ".fz")):
        good = head.startswith(b"SIMPLE  =")
    elif name.endswith(".gz"):
        good = head.startswith(b"\x1f\x8b")
    else:
        good = True
    if not good:
        msg = f"{url} is not a FITS file; it begins with {bytes(head[:HEAD_BYTES])!r}."
        raise UnexpectedContentError(msg, url=url)


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


def download(client, url, path, *, expected=None, sha256=None, answer=None):
    """Fetch a file to ``path``, or find it there.

    Parameters
    ----------
    client : HttpClient
        Makes the requests.
    url : str
        The file.
    path : `~pathlib.Path`
        Its final place.  A file that is there is left alone.
    expected : Version, optional
        The state that it must be in.
    sha256 : str, optional
        Digest that the whole file must have.
    answer : `urllib3.response.BaseHTTPResponse`, optional
        An answer with the whole file that has begun to come; used in place of a first request.

    Returns
    -------
    Downloaded

    Raises
    ------
    CacheError
        If the file cannot be written.
    TransferError
        One of its subclasses, if the file cannot be had, or is not what it should be.
    """
    path = Path(path)
    digest = hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()[:8]
    part = path.with_name(f"{path.name}.{digest}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(part, path) as stream:
        if stream is None:
            return Downloaded(path, path.stat().st_size, 0, None)
        return _PartWriter(client, url, path, part, stream, expected).run(sha256, answer)


@contextmanager
def _locked(part, path):
    """Yield the part file, open and owned by us alone, or `None` if ``path`` is there."""
    while True:
        with writing(part):
            stream = part.open("a+b")
        try:
            if fcntl is not None:
                _lock(stream)
            # Whoever held the lock before may have moved or removed the file that it locks.
            mine = _is_same_file(stream, part)
            if path.exists():
                if mine:
                    _remove(part)
                yield None
                return
            if mine:
                yield stream
                return
        finally:
            stream.close()


def _lock(stream):
    # Some network file systems have no locks; then two writers do the work twice at worst, and
    # the check of the length refuses a part that both wrote.
    with suppress(OSError):
        fcntl.flock(stream, fcntl.LOCK_EX)


def _is_same_file(stream, part):
    try:
        return os.path.samestat(os.fstat(stream.fileno()), part.stat())
    except FileNotFoundError:
        return False


def _remove(*paths):
    for path in paths:
        path.unlink(missing_ok=True)


class _PartWriter:
    """One download: the part file, what it is a part of, and the attempts to complete it."""

    def __init__(self, client, url, path, part, stream, expected):
        self.client, self.url, self.path = client, url, path
        self.part, self.stream, self.expected = part, stream, expected
        self.note = part.with_name(part.name + ".json")
        self.fetched_bytes = 0
        self.version = self._read_note()
        if self.version is None or not self.version.validator:
            self._restart()

    def _read_note(self):
        try:
            return Version(**json.loads(self.note.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _restart(self):
        with writing(self.part):
            self.stream.truncate(0)
            self.version = None

    @property
    def _have(self):
        return os.fstat(self.stream.fileno()).st_size

    def run(self, sha256, answer):
        """Complete the part and move it to its place."""
        try:
            if answer is not None:
                self._restart()
                self._take(answer)
            else:
                self.client.fetch(self.url, self._take, headers=self._headers)
            found = self._check(sha256)
        except BaseException:
            if not self._have:
                _remove(self.part, self.note)
            raise
        with writing(self.path):
            os.replace(self.part, self.path)
        _remove(self.note)
        return Downloaded(self.path, self.version.size, self.fetched_bytes, found)

    def _headers(self):
        if self.version is None or not self._have:
            return {}
        return {"Range": f"bytes={self._have}-", "If-Range": self.version.validator}

    def _take(self, response):
        """Append what an answer brings, if it continues what is there; else begin again with it."""
        have = self._have
        if response.status == 416:
            if self.version is None or have != self.version.size:
                self._discard()
                msg = f"{self.url} is shorter than the part of it that is here."
                raise ContentChangedError(msg, url=self.url, status=416)
            return
        if response.status == 206:
            first, last, size = content_range(self.url, response)
            same = self.version is not None and self.version.same_as(Version.of(response, size))
            if first != have or last != size - 1 or not same:
                self._discard()
                msg = f"{self.url} sent bytes {first}-{last} of {size} when {have}- were asked."
                raise UnexpectedContentError(msg, url=self.url, status=206)
        else:
            self._begin(response)
        with writing(self.part):
            self.stream.seek(0, os.SEEK_END)
        for chunk in response.stream(CHUNK_BYTES):
            if not self.stream.tell():
                check_fits_head(self.path, chunk, self.url)
            self.fetched_bytes += len(chunk)
            with writing(self.part):
                self.stream.write(chunk)
                self.stream.flush()

    def _begin(self, response):
        length = response.headers.get("Content-Length", "")
        version = Version.of(response, int(length) if length.isdigit() else -1)
        known = self.expected is not None and version.size >= 0
        if known and not self.expected.same_as(version):
            msg = f"{self.url} changed while it was being read."
            raise ContentChangedError(msg, url=self.url, status=response.status)
        self._restart()
        self.version = version
        with writing(self.note):
            self.note.write_text(json.dumps(version.__dict__))

    def _discard(self):
        self._restart()
        _remove(self.note)

    def _check(self, sha256):
        """Return the digest of the part; refuse it if its length or digest is wrong."""
        size = self._have
        if self.version is None or self.version.size < 0:
            self.version = Version(size)
        due = self.version.size
        if size != due:
            self._discard()
            msg = f"{self.url} brought {size} bytes; {due} were announced."
            raise TruncatedError(msg, url=self.url)
        self.stream.seek(0)
        found = hashlib.file_digest(self.stream, "sha256").hexdigest()
        if sha256 is not None and found != sha256:
            self._discard()
            msg = f"{self.url} has sha256 {found}; its list says {sha256}."
            raise TransferError(msg, url=self.url)
        return found
