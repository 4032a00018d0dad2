"""Whole files: atomic, resumable, checked, safe among threads and processes.

A file grows under a ``.part`` name beside its final place and moves there when it is whole.  The
part is locked while somebody writes it; whoever waited finds the finished file, and a part that a
killed process left is continued.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from email.utils import formatdate
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..exceptions import (
    CacheError,
    ChecksumError,
    ContentChangedError,
    NotFoundError,
    RateLimitedError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
)
from .bounds import allow_more_time, within
from .ranges import UNKNOWN, Version, check_same, content_range
from .whole_files import (
    CHUNK_BYTES,
    check_head,
    check_space,
    check_whole,
    close_unlocked,
    flaw_of,
    is_same_file,
    lock,
    note_written,
    remove,
    set_times,
    writing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from urllib3.response import BaseHTTPResponse

    from .http import HttpClient

UNANNOUNCED_BYTES = 10e9
"""Largest file that is taken from a server that does not say how long it is."""


@dataclass(frozen=True)
class Downloaded:
    """What a download did."""

    path: Path
    size: int
    fetched_bytes: int
    """How many came over the network in this call; 0 if the file was there."""
    sha256: str | None
    """Digest of the file, `None` if the file was there already."""
    version: Version = UNKNOWN
    """What its server said of it, nothing if the file was there already."""


def _takes_anything(_: Any) -> None:
    """Refuse nothing."""


def download(
    client: HttpClient,
    url: str,
    path: str | Path,
    *,
    expected: Version | None = None,
    sha256: str | Collection[str] | None = None,
    answer: BaseHTTPResponse | None = None,
    replace: bool = False,
    margin_bytes: float | None = None,
    check: Callable[[Any], object] = _takes_anything,
) -> Downloaded:
    """Fetch a file to ``path``, or find it there, sound, and leave it, unless it is to be replaced.

    It has to be in the ``expected`` state and to have (one of) the digest(s); ``check`` gets it,
    open for reading, before it moves to its place, and refuses it with a `TransferError`.  An
    ``answer`` with the whole file that has begun to come saves the first request.  The file gets
    the date that its server gives it, so that it can be asked later whether it was replaced there.
    """
    path = Path(path)
    digests = (sha256,) if isinstance(sha256, str) else sha256
    digest = hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()[:8]
    part = path.with_name(f"{path.name}.{digest}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with _locked(part, path, replace) as stream:
            if stream is not None:
                writer = _PartWriter(client, url, path, part, stream, expected, margin_bytes)
                return writer.run(digests, answer, check)
            # Somebody may remove the file right now; then it is fetched after all.
            with suppress(FileNotFoundError):
                return Downloaded(path, path.stat().st_size, 0, None)


def revalidate(
    client: HttpClient,
    url: str,
    path: str | Path,
    version: Version,
) -> Downloaded:
    """Ask whether a file that is here was replaced at its server, and fetch it if so.

    ``version`` is what the server itself said of it; where that has no ETag, or another one gave
    the file, the file's date is asked for.
    """
    path = Path(path)
    if version.etag:
        headers = {"If-None-Match": version.etag}
    else:
        modified = formatdate(int(path.stat().st_mtime), usegmt=True)
        headers = {"If-Modified-Since": modified}

    def consume(response: BaseHTTPResponse) -> Downloaded:
        if response.status == 304:
            return Downloaded(path, path.stat().st_size, 0, None, version)
        return download(client, url, path, answer=response, replace=True)

    return client.fetch(url, consume, headers=lambda: headers)


@contextmanager
def _locked(part: Path, path: Path, replace: bool) -> Iterator[IO[bytes] | None]:
    """Yield the part file, open and owned by us alone, or `None` if ``path`` is there."""
    while True:
        with writing(part):
            stream = part.open("a+b")
        try:
            lock(stream)
            # Whoever held the lock before may have moved or removed the file that it locks.
            is_ours = is_same_file(stream, part)
            if not replace and flaw_of(path) == "":
                if is_ours:
                    remove(part)
                yield None
                return
            if is_ours:
                yield stream
                return
        finally:
            close_unlocked(stream)


def _is_for_good(error: BaseException) -> bool:
    """Return True if going on with a part would only fail again in the same way."""
    if isinstance(error, (NotFoundError, RateLimitedError)) or not isinstance(error, TransferError):
        return False
    return isinstance(error, UnexpectedContentError) or 400 <= (error.status or 0) < 500


class _PartWriter:
    """One download: the part file, what it is a part of, and the attempts to complete it."""

    def __init__(
        self,
        client: HttpClient,
        url: str,
        path: Path,
        part: Path,
        stream: IO[bytes],
        expected: Version | None,
        margin_bytes: float | None,
    ) -> None:
        self.client, self.url, self.path = client, url, path
        self.part, self.stream, self.expected = part, stream, expected
        self.margin_bytes = margin_bytes
        self.note = part.with_name(part.name + ".json")
        self.fetched_bytes = 0
        self.version = self._read_note()
        if not self.version.validator:
            self._restart()

    def _read_note(self) -> Version:
        try:
            return Version(**json.loads(self.note.read_text()))
        except (OSError, ValueError, TypeError):
            return UNKNOWN

    def _restart(self) -> None:
        with writing(self.part):
            self.stream.truncate(0)
            self.version = UNKNOWN

    @property
    def _have(self) -> int:
        return os.fstat(self.stream.fileno()).st_size

    def run(
        self,
        digests: Collection[str] | None,
        answer: BaseHTTPResponse | None,
        check: Callable[[Any], object],
    ) -> Downloaded:
        """Complete the part and move it to its place."""
        try:
            if answer is not None:
                self._restart()
                self._take(answer)
            else:
                self.client.fetch(self.url, self._take, headers=self._headers)
            try:
                version, digest = self._check(digests, check)
            except TransferError:
                self._discard()
                raise
        except BaseException as error:
            if _is_for_good(error):
                self._discard()
            if not self._have:
                # The note first: without the part, another process begins a part of its own.
                remove(self.note, self.part)
            raise
        with writing(self.path):
            set_times(self.part, version.last_modified)
            # In this order a process that is killed in between leaves no note behind for good.
            remove(self.note)
            os.replace(self.part, self.path)
        note_written(version.size)
        return Downloaded(self.path, version.size, self.fetched_bytes, digest, version)

    def _headers(self) -> dict:
        # What nothing tells from another state of the file has to be begun again.
        if not self.version.validator or not self._have:
            return {}
        return {"Range": f"bytes={self._have}-", "If-Range": self.version.validator}

    def _take(self, response: BaseHTTPResponse) -> None:
        """Append what an answer brings, if it continues what is there; else begin again with it."""
        if response.status == 416:
            self._check_complete()
            return
        if response.status == 206:
            self._check_continues(response)
        else:
            self._begin(response)
        check_space(self.path.parent, response.length_remaining or 0, self.margin_bytes)
        with writing(self.part):
            self.stream.seek(0, os.SEEK_END)
        # Of an answer that does not say how long it is, nobody knows whether it ends.
        is_announced = self.version.size >= 0
        limit_bytes = None if is_announced else UNANNOUNCED_BYTES
        with within(limit_bytes=limit_bytes, grows=is_announced):
            for chunk in response.stream(CHUNK_BYTES):
                self._append(chunk)

    def _append(self, chunk: bytes) -> None:
        if not self.stream.tell():
            check_head(self.path, chunk, self.url)
        self.fetched_bytes += len(chunk)
        if len(chunk) == CHUNK_BYTES:
            allow_more_time()
        with writing(self.part):
            self.stream.write(chunk)
            self.stream.flush()

    def _check_complete(self) -> None:
        """Refuse a part after whose end there is nothing, if that is not where it should end."""
        if self._have != self.version.size:
            self._discard()
            msg = f"{self.url} is shorter than the part of it that is here."
            raise ContentChangedError(msg, url=self.url, status=416)

    def _check_continues(self, response: BaseHTTPResponse) -> None:
        """Refuse an answer that is not the rest of the file whose begin is here."""
        have = self._have
        first, last, size = content_range(self.url, response)
        is_same = self.version.same_as(Version.of(response, size))
        if (first, last) != (have, size - 1) or not is_same:
            self._discard()
            msg = f"{self.url} sent bytes {first}-{last} of {size} when {have}- were asked."
            raise UnexpectedContentError(msg, url=self.url, status=206)

    def _begin(self, response: BaseHTTPResponse) -> None:
        version = Version.of_whole(response)
        check_same(self.url, version, self.expected)
        self._restart()
        self.version = version
        with writing(self.note):
            self.note.write_text(json.dumps(version.__dict__))

    def _discard(self) -> None:
        self._restart()
        remove(self.note)

    def _check(
        self, digests: Collection[str] | None, check: Callable[[Any], object]
    ) -> tuple[Version, str]:
        """Return state and digest of the part; refuse one of wrong length, structure or digest."""
        size = self._have
        version = self.version
        if version.size < 0:
            version = replace(version, size=size)
        if size != version.size:
            msg = f"{self.url} brought {size} bytes; {version.size} were announced."
            raise TruncatedError(msg, url=self.url)
        try:
            digest = check_whole(self.path, self.stream, self.url)
            self.stream.seek(0)
            check(self.stream)
        except OSError as error:
            msg = f"{self.part} cannot be read: {error.strerror or error}."
            raise CacheError(msg, cause=error) from error
        if digests is not None and digest not in digests:
            msg = f"{self.url} has sha256 {digest}; its list says {' or '.join(sorted(digests))}."
            raise ChecksumError(msg, url=self.url, found=digest)
        return version, digest
