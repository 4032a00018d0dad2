"""Rows of a sweep on a server, by brick, without the rest of its file, which is of a GB.

The pipeline puts the bricks of a sweep one after the other, in the order of their names or ids.
Where a brick begins and ends is found by looking at a few rows, then at a few between those, until
what is left is small enough to be read.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from ..exceptions import TruncatedError, UnexpectedContentError
from ..io.parts import RemoteParts
from ..io.ranges import FIRST_RANGE_BYTES, MERGE_GAP_BYTES, Version
from ..survey.bricks import name_of
from .table_file import TableFile, read_layout

__all__ = ["RemoteSweep", "open_remote", "rows_by_number"]

N_FIRST_PROBES = 32
N_PROBES = 8
NEAR_BYTES = 262_144
"""Rows within so many bytes of where a brick may begin or end are read with it."""

WHOLE_BYTES = 100_000_000
"""A file whose bricks are in no order is read whole if it has not more."""

HELD_BYTES = 100_000_000
"""So much of what was read is held in memory for the next query."""

HEADER_BYTES = 1_000_000


def _by_id(bricks: np.ndarray) -> np.ndarray:
    return np.asarray(bricks)


def _by_name(bricks: np.ndarray) -> np.ndarray:
    return np.atleast_1d(name_of(bricks))


Order: TypeAlias = Callable[[np.ndarray], np.ndarray]
ORDERS: tuple[Order, ...] = (_by_name, _by_id)


class _Unordered(Exception):  # noqa: N818 - it reports no error
    """The bricks come in no order that is known."""


@dataclass
class RemoteSweep(TableFile):
    """A sweep on a server, and what is known of it: the bricks of some rows, the rows of some."""

    version: Version = field(kw_only=True)
    bricks: dict[int, int] = field(default_factory=dict, repr=False)  # by the number of the row
    blocks: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def rows_of(self, parts: RemoteParts, bricks: Sequence[int]) -> tuple[np.ndarray, TableFile]:
        """Return the rows of bricks and their numbers in the file, fetched if need be."""
        with self.lock:
            lacking = [brick for brick in bricks if brick not in self.blocks]
            if lacking:
                self._fetch(parts, np.array(lacking))
            blocks = [self.blocks[brick] for brick in bricks]
            self._forget({*bricks})
        numbers, lines = (np.concatenate(column) for column in zip(*blocks, strict=True))
        return numbers, TableFile(self.path, replace(self.layout, n_rows=len(numbers)), lines)

    def _fetch(self, parts: RemoteParts, bricks: np.ndarray) -> None:
        """Fetch the rows of bricks."""
        try:
            self._read(parts, self._spans(parts, bricks))
        except _Unordered:
            size = self.layout.end - self.layout.data_offset
            if size > WHOLE_BYTES:
                msg = (
                    f"The bricks of {self.path} are in no order that is known, so that all of its "
                    f"{size / 1e9:.1f} GB would have to be read. Fetch it (get_brick_files("
                    "products='sweep', download_dir=...)), and name that folder as the mirror."
                )
                raise UnexpectedContentError(msg, url=str(self.path)) from None
            every = (0, self.layout.n_rows)
            self._read(parts, dict.fromkeys(bricks.tolist(), every), is_ordered=False)

    def _spans(self, parts: RemoteParts, bricks: np.ndarray) -> dict[int, tuple[int, int]]:
        """Return from which row to which each brick lies, if it is there."""
        n_rows, row_bytes = self.layout.n_rows, self.layout.row_bytes
        if n_rows * row_bytes > NEAR_BYTES and not self.bricks:
            self._probe(parts, np.linspace(0, n_rows - 1, N_FIRST_PROBES, dtype=int))
        while True:
            rows = np.array(sorted(self.bricks), int)
            ids = np.array([self.bricks[row] for row in rows.tolist()], int)
            order = _order_of(ids)
            keys, spans, gaps = order(ids), {}, []
            # Two rows beyond the ends stand for bricks before and after all others.
            rows = np.array([-1, *rows, n_rows])
            for brick, key in zip(bricks.tolist(), order(bricks), strict=True):
                first, last = np.searchsorted(keys, key), np.searchsorted(keys, key, "right")
                start, stop = int(rows[first]) + 1, int(rows[last + 1])
                spans[brick] = start, stop
                gaps.append((start, int(rows[first + 1])))
                if last > first:
                    gaps.append((int(rows[last]) + 1, stop))
            wide = [gap for gap in gaps if (gap[1] - gap[0]) * row_bytes > NEAR_BYTES]
            if not wide:
                return spans
            probes = [np.linspace(a, b - 1, N_PROBES + 2, dtype=int)[1:-1] for a, b in wide]
            self._probe(parts, np.unique(np.concatenate(probes)))

    def _probe(self, parts: RemoteParts, rows: np.ndarray) -> None:
        """Look which bricks some rows are of."""
        layout, column = self.layout, self.layout.fields["brickid"]
        starts = (layout.data_offset + rows * layout.row_bytes + column.offset).tolist()
        size = np.dtype(column.kind).itemsize
        found = b"".join(parts.read([(start, start + size) for start in starts]))
        ids = np.frombuffer(found, column.kind).astype(int)
        self.bricks |= dict(zip(rows.tolist(), ids.tolist(), strict=True))

    def _read(
        self, parts: RemoteParts, spans: dict[int, tuple[int, int]], *, is_ordered: bool = True
    ) -> None:
        """Read the rows between which bricks lie, and keep those of the bricks."""
        runs = sorted(set(spans.values()))
        tables = dict(zip(runs, _rows_between(parts, self, runs), strict=True))
        for brick, run in spans.items():
            lines = tables[run]
            table = TableFile(self.path, replace(self.layout, n_rows=len(lines)), lines)
            ids = table.read(slice(None), ("brickid",))["brickid"]
            if is_ordered:
                _order_of(ids)
            places = np.flatnonzero(ids == brick)
            self.blocks[brick] = run[0] + places, lines[places]

    def _forget(self, bricks: set[int]) -> None:
        """Let the blocks go that were read first, if there are too many, but not these."""
        size = sum(lines.nbytes for _, lines in self.blocks.values())
        for brick in [brick for brick in self.blocks if brick not in bricks]:
            if size <= HELD_BYTES:
                break
            size -= self.blocks.pop(brick)[1].nbytes


def _order_of(bricks: np.ndarray) -> Order:
    """Return the order that bricks are in."""
    for order in ORDERS:
        keys = order(bricks)
        if (keys[1:] >= keys[:-1]).all():
            return order
    raise _Unordered


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
    return TableFile(parts.url, replace(table.layout, n_rows=len(lines)), lines)
