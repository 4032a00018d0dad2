"""A remote file of which just some parts are read, many at once, all of one state of it."""

from __future__ import annotations

from bisect import bisect_right
from contextlib import nullcontext
from typing import TYPE_CHECKING

from ..exceptions import ContentChangedError
from .bounds import Threads, allow_more_time
from .ranges import Version, WholeFileAnswer, fetch_range, merge_ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from urllib3.response import BaseHTTPResponse

    from .http import HttpClient

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
        if not expected.same_as(version):
            msg = f"{self.url} changed while it was being read."
            raise ContentChangedError(msg, url=self.url)
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
