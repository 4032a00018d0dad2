"""Parts of remote files: ranges that are checked, many at once, all of one state of the file."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from urllib3.exceptions import IncompleteRead

from ..exceptions import ContentChangedError, TruncatedError, UnexpectedContentError
from .bounds import Threads, allow_more_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from urllib3.response import BaseHTTPResponse

    from .http import HttpClient


FIRST_RANGE_BYTES = 65_536
"""First bytes asked of a file: enough for header and tile table of every coadd of DR8 to DR11."""

MERGE_GAP_BYTES = 16_384
"""Ranges closer than this are asked as one: about round trip x bandwidth / connections."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True)
class Version:
    """What tells one state of a remote file from another."""

    size: int
    etag: str | None = None
    last_modified: str | None = None

    @property
    def validator(self) -> str | None:
        """What may stand in an If-Range header: a strong ETag, else the date, else `None`."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified

    @property
    def key(self) -> str:
        """A name for this state that can be part of a file name."""
        text = f"{self.size}|{self.etag or self.last_modified}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def same_as(self, other: Version) -> bool:
        """Return True if ``other`` can be the same state; a header that one lacks says nothing."""
        pairs = ((self.etag, other.etag), (self.last_modified, other.last_modified))
        return self.size == other.size and all(a == b for a, b in pairs if a and b)

    @classmethod
    def of(cls, response: BaseHTTPResponse, size: int) -> Version:
        """Build the version that the headers of an answer tell."""
        return cls(size, response.headers.get("ETag"), response.headers.get("Last-Modified"))

    @classmethod
    def of_whole(cls, response: BaseHTTPResponse) -> Version:
        """Build the version that an answer with the whole file tells, of size -1 if it has none."""
        length = response.headers.get("Content-Length", "")
        return cls.of(response, int(length) if length.isdigit() else -1)


UNKNOWN = Version(-1)
"""The state of a file of which nobody said anything."""


class WholeFileAnswer(Exception):  # noqa: N818 - it reports no error
    """A server that was asked for a range sent the whole file, and ``receive`` took it."""

    def __init__(self, result: object) -> None:
        super().__init__("the server ignored the range")
        self.result = result


def fetch_range(
    client: HttpClient,
    url: str,
    start: int,
    stop: int,
    *,
    receive: Callable[[BaseHTTPResponse], object],
    expected: Version | None = None,
) -> tuple[bytes, Version]:
    """Fetch bytes ``start`` to ``stop`` of a file, checked against what was asked.

    A server that ignores ranges sends the whole file: ``receive`` takes it, and `WholeFileAnswer`
    is raised with the result.
    """
    headers = {"Range": f"bytes={start}-{stop - 1}"}
    if expected is not None and expected.validator:
        headers["If-Range"] = expected.validator

    def consume(response: BaseHTTPResponse) -> tuple[bytes, Version]:
        if response.status in (206, 416):
            return _read_range(url, response, (start, stop), expected)
        check_same(url, Version.of_whole(response), expected)
        raise WholeFileAnswer(receive(response))

    return client.fetch(url, consume, headers=lambda: headers)


def _read_range(
    url: str, response: BaseHTTPResponse, asked: tuple[int, int], expected: Version | None
) -> tuple[bytes, Version]:
    """Read an answer to a request for a range."""
    start, stop = asked
    if response.status == 416 and expected is None:
        msg = f"{url} is empty, or shorter than byte {start}."
        raise UnexpectedContentError(msg, url=url, status=416)
    if response.status == 416:
        raise _changed(url)
    first, last, size = content_range(url, response)
    version = Version.of(response, size)
    check_same(url, version, expected)
    if (first, last) != (start, min(stop, size) - 1):
        msg = f"{url} sent bytes {first}-{last} when {start}-{stop - 1} were asked."
        raise UnexpectedContentError(msg, url=url, status=206)
    return _read_exactly(url, response, first, last), version


def _read_exactly(url: str, response: BaseHTTPResponse, first: int, last: int) -> bytes:
    # One byte more than is due shows an answer that is longer than it says.
    data = response.read(last - first + 2)
    if response.length_remaining:
        raise IncompleteRead(len(data), response.length_remaining)
    if len(data) != last - first + 1:
        msg = f"{url} sent {len(data)} bytes for the range {first}-{last}."
        raise TruncatedError(msg, url=url, status=206)
    return data


def content_range(url: str, response: BaseHTTPResponse) -> tuple[int, int, int]:
    """Return (first, last, size) of a Content-Range header."""
    text = response.headers.get("Content-Range", "")
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None:
        msg = f"{url} sent a part without saying which (Content-Range: {text!r})."
        raise UnexpectedContentError(msg, url=url, status=response.status)
    first, last, size = (int(group) for group in match.groups())
    return first, last, size


def check_same(url: str, version: Version, expected: Version | None) -> None:
    """Refuse an answer that is of another state of a file than expected, if it has a size."""
    if expected is not None and version.size >= 0 and not expected.same_as(version):
        raise _changed(url)


def _changed(url: str) -> ContentChangedError:
    msg = f"{url} changed while it was being read."
    return ContentChangedError(msg, url=url)


def merge_ranges(
    ranges: Iterable[tuple[int, int]], *, gap_bytes: int = MERGE_GAP_BYTES
) -> list[tuple[int, int]]:
    """Join ranges ``(start, stop)`` that touch or nearly do; sorted, without empty ones."""
    merged: list[list[int]] = []
    for start, stop in sorted(r for r in ranges if r[1] > r[0]):
        if merged and start - merged[-1][1] <= gap_bytes:
            merged[-1][1] = max(merged[-1][1], stop)
        else:
            merged.append([start, stop])
    return [(start, stop) for start, stop in merged]


FIRST_WINDOW_BYTES = 14_200
"""What a new connection can send at once: ten segments (RFC 6928), less the header of an answer."""


class RemoteParts:
    """A file of a mirror.

    ``receive`` takes the answer of a server that sends the whole file instead, which ends the
    reading with `.ranges.WholeFileAnswer`.  What is read is of the state ``version``, or all of
    that in which the file is met first.
    """

    def __init__(
        self,
        client: HttpClient,
        url: str,
        receive: Callable[[BaseHTTPResponse], object],
        *,
        threads: Threads | None = None,
    ) -> None:
        self.url = url
        self.version: Version | None = None
        self._client = client
        self._receive = receive
        self._threads = threads

    def head(self, n_bytes: int, *, n_pieces: int = 1) -> bytes:
        """Return the first bytes, over several connections where they are free; all if fewer."""
        step = max(-(-n_bytes // n_pieces), FIRST_WINDOW_BYTES)
        pieces = [(start, min(start + step, n_bytes)) for start in range(0, n_bytes, step)]
        with self._pool(len(pieces) - 1) as pool:
            # Of a server that sends the whole file whatever it is asked for, one answer is taken.
            futures = [
                pool.submit(self._part, *piece, receive=lambda _: None) for piece in pieces[1:]
            ]
            try:
                head, self.version = self._part(*pieces[0], receive=self._receive)
                for piece, future in zip(pieces[1:], futures, strict=True):
                    if piece[0] < self.version.size:
                        head += self._next_piece(piece, future, self.version)
            finally:
                for future in futures:
                    future.cancel()
        return head

    def _next_piece(
        self, piece: tuple[int, int], future: Future[tuple[bytes, Version]], expected: Version
    ) -> bytes:
        """Return a piece of the head that was asked for when its state was not known."""
        try:
            data, version = future.result()
        except WholeFileAnswer:
            # Nobody took it; the first piece came as it should.
            data, version = self._part(*piece, receive=self._receive)
        check_same(self.url, version, expected)
        return data

    def fetch(
        self,
        ranges: Iterable[tuple[int, int]],
        keep: Callable[[int, bytes], object] | None = None,
    ) -> dict[int, bytes]:
        """Fetch ranges at once; return their bytes by offset, or hand each to ``keep``."""

        def fetch(start: int, stop: int) -> bytes:
            data, _ = self._part(start, stop, receive=self._receive)
            if keep is None:
                return data
            allow_more_time()
            keep(start, data)
            return b""

        runs = list(ranges)
        with self._pool(len(runs)) as pool:
            futures = {start: pool.submit(fetch, start, stop) for start, stop in runs}
            try:
                return {start: future.result() for start, future in futures.items()}
            finally:
                for future in futures.values():
                    future.cancel()

    def read(self, ranges: Sequence[tuple[int, int]], *, gap_bytes: int = 0) -> list[bytes]:
        """Return the bytes of each range; ranges closer than a gap are asked for as one."""
        runs = merge_ranges(ranges, gap_bytes=gap_bytes)
        parts = self.fetch(runs)
        starts = [start for start, _ in runs]
        places = [starts[bisect_right(starts, start) - 1] if runs else 0 for start, _ in ranges]
        return [
            parts.get(place, b"")[start - place : stop - place]
            for place, (start, stop) in zip(places, ranges, strict=True)
        ]

    def _pool(self, n_tasks: int) -> AbstractContextManager[Threads]:
        """Return the threads to work in, those of the caller or some of our own."""
        if self._threads is not None:
            return nullcontext(self._threads)
        return Threads(max(min(self._client.max_connections, n_tasks), 1), "astroquery_lis-part")

    def _part(
        self, start: int, stop: int, *, receive: Callable[[BaseHTTPResponse], object]
    ) -> tuple[bytes, Version]:
        """Return bytes of the file, and the state that they are of."""
        return fetch_range(
            self._client, self.url, start, stop, receive=receive, expected=self.version
        )
