"""A remote file of which just some parts are read, many at once, all of one state of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .bounds import Threads
from .ranges import Version, fetch_range, merge_ranges

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

    from .http import HttpClient


class RemoteParts:
    """A file of a mirror.

    ``receive`` takes the answer of a server that sends the whole file instead, which ends the
    reading with `.ranges.WholeFileAnswer`.
    """

    def __init__(
        self, client: HttpClient, url: str, receive: Callable[[BaseHTTPResponse], object]
    ) -> None:
        self.url = url
        self.version: Version | None = None
        self._client = client
        self._receive = receive

    def head(self, n_bytes: int) -> bytes:
        """Return the first bytes; all if there are fewer."""
        data, self.version = fetch_range(
            self._client, self.url, 0, n_bytes, receive=self._receive, expected=self.version
        )
        return data

    def read(self, ranges: Sequence[tuple[int, int]], *, gap_bytes: int = 0) -> list[bytes]:
        """Return the bytes of each range; ranges closer than a gap are asked for as one."""

        def fetch(run: tuple[int, int]) -> bytes:
            return fetch_range(
                self._client, self.url, *run, receive=self._receive, expected=self.version
            )[0]

        runs = merge_ranges(ranges, gap_bytes=gap_bytes)
        if not runs:
            return [b"" for _ in ranges]
        with Threads(min(self._client.max_connections, len(runs)), "astroquery_lis-part") as pool:
            parts = list(pool.map(fetch, runs))
        starts = [start for start, _ in runs]
        places = [bisect_right(starts, start) - 1 for start, _ in ranges]
        return [
            parts[place][start - starts[place] : stop - starts[place]]
            for place, (start, stop) in zip(places, ranges, strict=True)
        ]
