"""Rows of a sweep on a server, by brick, without the rest of its file, which is of a GB.

The pipeline puts the bricks of a sweep one after the other, in the order of their names or ids.
Where a brick begins and ends is found by looking at a few rows, then at a few between those, until
what is left is small enough to be read.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from .._forks import new_lock
from ..exceptions import TruncatedError, UnexpectedContentError
from ..io.parts import RemoteParts
from ..io.ranges import FIRST_RANGE_BYTES, MERGE_GAP_BYTES, Version, merge_ranges
from ..survey.bricks import N_BRICKS, name_of
from .table_file import TableFile, decoded, read_layout

N_FIRST_PROBES = 32
N_PROBES = 8
NEAR_BYTES = 262_144
"""Rows within so many bytes of where a brick may begin or end are read with it."""

WHOLE_BYTES = 100_000_000
"""A file whose bricks are in no order is read whole if it has not more."""

HELD_BYTES = 100_000_000
"""So much of what was read, of all sweeps together, is held in memory for the next query."""

MOST_RUNS = 8
"""The rows of so many bricks at most are asked for at once, as one range where they adjoin."""

HEADER_BYTES = 1_000_000


def _by_id(bricks: np.ndarray) -> np.ndarray:
    return np.asarray(bricks)


def _by_name(bricks: np.ndarray) -> np.ndarray:
    return np.atleast_1d(name_of(bricks))


Order: TypeAlias = Callable[[np.ndarray], np.ndarray]
Spans: TypeAlias = dict[int, list[tuple[int, int]]]
"""From which row to which each brick can lie."""

ORDERS: tuple[Order, ...] = (_by_name, _by_id)


class _Unordered(Exception):  # noqa: N818 - it reports no error
    """The bricks come in no order that is known."""


@dataclass
class RemoteSweep(TableFile):
    """A sweep on a server, and what is known of it: the bricks of some rows, the rows of some."""

    version: Version = field(kw_only=True)
    bricks: dict[int, int] = field(default_factory=dict, repr=False)  # by the number of the row
    blocks: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)
    lock: threading.Lock = field(default_factory=new_lock, repr=False)

    def rows_of(self, parts: RemoteParts, bricks: Sequence[int]) -> tuple[np.ndarray, TableFile]:
        """Return the rows of bricks and their numbers in the file, fetched if need be."""
        with self.lock:
            lacking = [brick for brick in bricks if brick not in self.blocks]
            if lacking:
                self._fetch(parts, np.array(lacking))
            blocks = [self.blocks[brick] for brick in bricks]
        numbers, lines = (np.concatenate(column) for column in zip(*blocks, strict=True))
        return numbers, TableFile(self.path, replace(self.layout, n_rows=len(numbers)), lines)

    def _fetch(self, parts: RemoteParts, bricks: np.ndarray) -> None:
        """Fetch the rows of bricks."""
        if "brickid" not in self.fields:
            msg = f"{self.path} is not a Tractor catalogue: it has no brickid."
            raise UnexpectedContentError(msg, url=str(self.path))
        try:
            self._read(parts, *self._spans(parts, bricks))
        except _Unordered:
            size = self.layout.end - self.layout.data_offset
            if size > WHOLE_BYTES:
                msg = (
                    f"The bricks of {self.path} are in no order that is known, so that all of its "
                    f"{size / 1e9:.1f} GB would have to be read. Fetch it (get_brick_files("
                    "products='sweep', download_dir=...)), and name that folder as the mirror."
                )
                raise UnexpectedContentError(msg, url=str(self.path)) from None
            every = [(0, self.layout.n_rows)]
            self._read(parts, dict.fromkeys(bricks.tolist(), every), ())

    def _spans(self, parts: RemoteParts, bricks: np.ndarray) -> tuple[Spans, Sequence[Order]]:
        """Return where each brick lies, if it is there, in any order that the rows can have."""
        n_rows, row_bytes = self.layout.n_rows, self.layout.row_bytes
        if n_rows * row_bytes > NEAR_BYTES and not self.bricks:
            self._probe(parts, np.linspace(0, n_rows - 1, N_FIRST_PROBES, dtype=int))
        while True:
            rows = np.array(sorted(self.bricks), int)
            ids = np.array([self.bricks[row] for row in rows.tolist()], int)
            orders = _fitting(ids, ORDERS)
            # Two rows beyond the ends stand for bricks before and after all others.
            rows = np.array([-1, *rows, n_rows])
            spans: Spans = {brick: [] for brick in bricks.tolist()}
            gaps = []
            for order in orders:
                keys = order(ids)
                for brick, key in zip(spans, order(bricks), strict=True):
                    first, last = np.searchsorted(keys, key), np.searchsorted(keys, key, "right")
                    start, stop = int(rows[first]) + 1, int(rows[last + 1])
                    spans[brick].append((start, stop))
                    gaps.append((start, int(rows[first + 1])))
                    if last > first:
                        gaps.append((int(rows[last]) + 1, stop))
            wide = [gap for gap in gaps if (gap[1] - gap[0]) * row_bytes > NEAR_BYTES]
            if not wide:
                joined = {brick: merge_ranges(some, gap_bytes=0) for brick, some in spans.items()}
                return joined, orders
            probes = [np.linspace(a, b - 1, N_PROBES + 2, dtype=int)[1:-1] for a, b in wide]
            self._probe(parts, np.unique(np.concatenate(probes)))

    def _probe(self, parts: RemoteParts, rows: np.ndarray) -> None:
        """Look which bricks some rows are of."""
        layout, column = self.layout, self.layout.fields["brickid"]
        starts = (layout.data_offset + rows * layout.row_bytes + column.offset).tolist()
        size = np.dtype(column.kind).itemsize
        found = b"".join(parts.read([(start, start + size) for start in starts]))
        ids = self._checked(decoded(column, np.frombuffer(found, column.kind)))
        self.bricks |= dict(zip(rows.tolist(), ids.tolist(), strict=True))

    def _checked(self, ids: np.ndarray) -> np.ndarray:
        """Return ids of bricks, if all are."""
        wrong = ids[~((ids >= 1) & (ids <= N_BRICKS))]
        if len(wrong):
            msg = f"{self.path} has rows of a brick {wrong[0]}, which there is not."
            raise UnexpectedContentError(msg, url=str(self.path))
        return ids.astype(int)

    def _read(self, parts: RemoteParts, spans: Spans, orders: Sequence[Order]) -> None:
        """Read the rows between which bricks lie, in one of some orders if they are in any."""
        layout = self.layout
        empty = np.empty(0, int), np.empty((0, layout.row_bytes), np.uint8)
        blocks = {brick: [empty] for brick in spans}
        runs = sorted({run for some in spans.values() for run in some})
        for number in range(0, len(runs), MOST_RUNS):
            some = runs[number : number + MOST_RUNS]
            for run, lines in zip(some, _rows_between(parts, self, some), strict=True):
                table = TableFile(self.path, replace(layout, n_rows=len(lines)), lines)
                ids = self._checked(table.read(slice(None), ("brickid",))["brickid"])
                orders = _fitting(ids, orders) if orders else ()
                for brick in [brick for brick in spans if run in spans[brick]]:
                    places = np.flatnonzero(ids == brick)
                    blocks[brick].append((run[0] + places, lines[places]))
        for brick, pieces in blocks.items():
            numbers, lines = (np.concatenate(column) for column in zip(*pieces, strict=True))
            self.blocks[brick] = numbers, lines

    def forget(self, n_bytes: int) -> int:
        """Let the blocks go that were read first, and return how many bytes they had."""
        n_freed = 0
        # One that is being read is bounded when it has been.
        if self.lock.acquire(blocking=False):
            try:
                while self.blocks and n_freed < n_bytes:
                    n_freed += self.blocks.pop(next(iter(self.blocks)))[1].nbytes
            finally:
                self.lock.release()
        return n_freed

    @property
    def held_bytes(self) -> int:
        """How much of what was read is in memory."""
        return sum(lines.nbytes for _, lines in list(self.blocks.values()))


def forget_oldest(tables: Iterable[TableFile]) -> None:
    """Keep within `HELD_BYTES` what is held of sweeps, those used longest ago first."""
    sweeps = [table for table in tables if isinstance(table, RemoteSweep)]
    excess = sum(sweep.held_bytes for sweep in sweeps) - HELD_BYTES
    for sweep in sweeps:
        if excess > 0:
            excess -= sweep.forget(excess)


def _fitting(bricks: np.ndarray, orders: Sequence[Order]) -> list[Order]:
    """Return which orders bricks can be in."""
    candidates = [(order, order(bricks)) for order in orders]
    fitting = [order for order, keys in candidates if (keys[1:] >= keys[:-1]).all()]
    if not fitting:
        raise _Unordered
    return fitting


def _rows_between(
    parts: RemoteParts, table: TableFile, runs: Sequence[tuple[int, int]]
) -> list[np.ndarray]:
    """Return the rows of runs (start, stop) as bytes."""
    layout = table.layout
    begin, size = layout.data_offset, layout.row_bytes
    ranges = [(begin + start * size, begin + stop * size) for start, stop in runs]
    return [
        np.frombuffer(data, np.uint8).reshape(-1, size)
        for data in parts.read(ranges, gap_bytes=MERGE_GAP_BYTES)
    ]


def open_remote(parts: RemoteParts) -> RemoteSweep:
    """Read the header of a table on a server."""
    n_bytes = FIRST_RANGE_BYTES
    while True:
        head = parts.head(n_bytes)
        version = parts.version
        assert version is not None
        try:
            layout = read_layout(io.BytesIO(head), parts.url)
            break
        except UnexpectedContentError:
            if n_bytes >= min(version.size, HEADER_BYTES):
                raise
        n_bytes *= 2
    if version.size < layout.end:
        msg = f"{parts.url} has {version.size} bytes; its table needs {layout.end}."
        raise TruncatedError(msg, url=parts.url)
    return RemoteSweep(parts.url, layout, version=version)


def rows_by_number(parts: RemoteParts, numbers: np.ndarray) -> TableFile:
    """Read rows of a table on a server by their numbers."""
    table = open_remote(parts)
    if len(numbers) and int(numbers.max()) >= table.layout.n_rows:
        msg = f"{parts.url} has {table.layout.n_rows} rows, fewer than what it lies beside."
        raise UnexpectedContentError(msg, url=parts.url)
    order, places = np.unique(numbers, return_inverse=True)
    rows = _rows_between(parts, table, [(row, row + 1) for row in order.tolist()])
    empty = np.empty((0, table.layout.row_bytes), np.uint8)
    lines = np.concatenate([empty, *rows])[places]
    layout = replace(table.layout, n_rows=len(lines))
    return TableFile(parts.url, layout, lines, what="a FITS table")
