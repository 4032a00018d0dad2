"""The sweeps as a source of the catalogue: fewer columns, and redshifts row by row beside them.

A sweep that is here is read like a Tractor file.  Of one on a server, of a GB, the rows of the
bricks that a request touches are read, no more.  The pipeline puts the bricks of a sweep one after
the other, in the order of their names or ids.  Where a brick begins and ends is found by looking at
a few rows, then at a few between those, until what is left is small enough to be read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import PurePosixPath
from typing import TypeAlias

import numpy as np

from .._locks import new_lock
from .._typing import Payload
from ..exceptions import ContentChangedError, InvalidRequestError, UnexpectedContentError
from ..io.places import LocatedFile
from ..io.ranges import MERGE_GAP_BYTES, RemoteParts, Version, merge_ranges
from ..survey.bricks import N_BRICKS, name_of
from ..survey.catalog_request import CatalogRequest
from ..survey.paths import file_path, sweep_box, sweep_names
from ..survey.releases import get_tree
from ..survey.tractor import RowIds
from ..survey.tractor_columns import (
    REDSHIFTS,
    ROW_KEY,
    has_column,
    redshift_columns,
    tractor_columns,
)
from .catalog_files import Opened, RowFile, TractorFile, TractorFiles, hold, with_positions
from .catalog_table import Chunk, Rows
from .table_file import RowNumbers, TableFile, decoded, open_rows, remote_layout

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


def _by_id(bricks: np.ndarray) -> np.ndarray:
    return np.asarray(bricks)


def _by_name(bricks: np.ndarray) -> np.ndarray:
    return np.atleast_1d(name_of(bricks))


Order: TypeAlias = Callable[[np.ndarray], np.ndarray]
Run: TypeAlias = tuple[int, int]
"""From which row to which."""
Spans: TypeAlias = dict[int, list[Run]]
"""Where each brick can lie."""

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
            rows, ids = np.array(sorted(self.bricks.items()), int).reshape(-1, 2).T
            orders = _fitting(ids, ORDERS)
            # Two rows beyond the ends stand for bricks before and after all others.
            rows = np.array([-1, *rows, n_rows])
            spans: Spans = {brick: [] for brick in bricks.tolist()}
            gaps: list[Run] = []
            for order in orders:
                runs, unsure = _ends(order(ids), order(bricks), rows)
                gaps += unsure
                for brick, run in zip(spans, runs, strict=True):
                    spans[brick].append(run)
            begins, ends = np.array(gaps, int).reshape(-1, 2).T
            is_wide = (ends - begins) * row_bytes > NEAR_BYTES
            if not is_wide.any():
                joined = {brick: merge_ranges(some, gap_bytes=0) for brick, some in spans.items()}
                return joined, orders
            probes = np.linspace(begins[is_wide], ends[is_wide] - 1, N_PROBES + 2, dtype=int)
            self._probe(parts, np.unique(probes[1:-1]))

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
        empty = np.empty(0, int), np.empty((0, self.layout.row_bytes), np.uint8)
        blocks = {brick: [empty] for brick in spans}
        for run, lines in self._runs(parts, spans):
            table = TableFile(self.path, replace(self.layout, n_rows=len(lines)), lines)
            ids = self._checked(table.read(slice(None), ("brickid",))["brickid"])
            orders = _fitting(ids, orders)
            for brick in [brick for brick in spans if run in spans[brick]]:
                places = np.flatnonzero(ids == brick)
                blocks[brick].append((run[0] + places, lines[places]))
        for brick, pieces in blocks.items():
            numbers, lines = (np.concatenate(column) for column in zip(*pieces, strict=True))
            self.blocks[brick] = numbers, lines

    def _runs(self, parts: RemoteParts, spans: Spans) -> Iterator[tuple[Run, np.ndarray]]:
        """Yield the runs of rows where bricks can lie, and the rows as bytes."""
        runs = sorted({*chain.from_iterable(spans.values())})
        for number in range(0, len(runs), MOST_RUNS):
            some = runs[number : number + MOST_RUNS]
            yield from zip(some, _rows_between(parts, self, some), strict=True)

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


def _ends(keys: np.ndarray, sought: np.ndarray, rows: np.ndarray) -> tuple[list[Run], list[Run]]:
    """Return from which row to which each brick can lie, and the rows where it begins and ends.

    ``keys`` are those of rows that were looked at, ``rows`` their numbers between two beyond.
    """
    first, last = (np.searchsorted(keys, sought, side) for side in ("left", "right"))
    starts, stops = (rows[first] + 1).tolist(), rows[last + 1].tolist()
    gaps = list(zip(starts, rows[first + 1].tolist(), strict=True))
    was_seen = last > first
    ends = rows[last[was_seen]] + 1, rows[last[was_seen] + 1]
    gaps += zip(*(end.tolist() for end in ends), strict=True)
    return list(zip(starts, stops, strict=True)), gaps


def _fitting(bricks: np.ndarray, orders: Sequence[Order]) -> list[Order]:
    """Return which orders bricks can be in."""
    candidates = [(order, order(bricks)) for order in orders]
    fitting = [order for order, keys in candidates if (keys[1:] >= keys[:-1]).all()]
    if orders and not fitting:
        raise _Unordered
    return fitting


def _rows_between(parts: RemoteParts, table: TableFile, runs: Sequence[Run]) -> list[np.ndarray]:
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
    layout = remote_layout(parts)
    assert parts.version is not None
    return RemoteSweep(parts.url, layout, version=parts.version)


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


MARGIN_DEG = 1e-6
"""Added to a region, so that rounding loses no row on its rim."""

Beside = Callable[[np.ndarray, Sequence[str]], dict[str, np.ndarray]]


@dataclass
class SweepRows(TractorFile):
    """Rows of a sweep, and the redshifts of the same rows."""

    numbers: np.ndarray | None = field(kw_only=True, repr=False)  # in the file; None for all
    beside: Beside = field(kw_only=True, repr=False)

    def read(self, rows: RowNumbers, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return columns of some rows, those that there are."""
        names = list(names)
        columns = super().read(rows, names)
        if "brick_primary" in names:
            # Sweeps have primary rows only, and no column that says so.
            columns["brick_primary"] = self.positions["primary"][rows]
        beside = [name for name in names if name in REDSHIFTS]
        if beside and len(self.positions[rows]):
            columns |= self._redshifts(rows, beside)
        return columns

    def _redshifts(self, rows: RowNumbers, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return columns of the redshifts of some rows, if they are of the same rows."""
        numbers = np.arange(len(self.positions)) if self.numbers is None else self.numbers
        redshifts = self.beside(numbers[rows], [*ROW_KEY, *names])
        key = super().read(rows, ROW_KEY)
        if redshifts and not all(np.array_equal(redshifts.get(n, ()), key[n]) for n in ROW_KEY):
            msg = f"The redshifts beside {self.path} are of other rows."
            raise UnexpectedContentError(msg, url=str(self.path))
        return {name: redshifts[name] for name in names if name in redshifts}


Answer: TypeAlias = LocatedFile | tuple[np.ndarray, TableFile] | None
"""A file that is here, or the numbers of rows that were read, and the rows."""


def _meet(path: str, box: tuple[float, float, float, float]) -> bool:
    """Tell whether a sweep can have rows of a box in RA and Dec."""
    ra1, ra2, dec1, dec2 = sweep_box(PurePosixPath(path).name)
    return ra1 <= box[1] and box[0] <= ra2 and dec1 <= box[3] and box[2] <= dec2


def _refuse_others(request: CatalogRequest) -> None:
    """Refuse rows that are in no sweep."""
    if not request.primary and not isinstance(request.sky, RowIds):
        msg = "source='sweeps' lacks primary=False: take source='files'."
        raise InvalidRequestError(msg, parameter="source", value="sweeps")


class SweepFiles(TractorFiles):
    """The sweeps as a source of the catalogue."""

    name = "sweeps"
    has_redshifts = True
    unit = "bricks of sweeps"
    typical_bytes = 6e6
    """Size of the rows of a brick in a sweep, on average."""

    def bricks(self, request: CatalogRequest) -> tuple[RowFile, ...]:
        """Return the sweeps whose rows can be in the region."""
        files = self.grouped(super().bricks(request), request.release)
        boxes = request.sky.enclosing.boxes(MARGIN_DEG)
        return tuple(file for file in files if any(_meet(file.path, box) for box in boxes))

    def grouped(self, bricks: tuple[RowFile, ...], release: str) -> tuple[RowFile, ...]:
        """Return the sweeps that have the rows of the bricks of Tractor files."""
        sweeps: dict[tuple[str, str, bool], list[int]] = {}
        for brick in bricks:
            for sweep in sweep_names(release, brick.region, brick.bricks[0]):
                key = (sweep, brick.region, brick.by_position)
                sweeps.setdefault(key, []).append(brick.bricks[0])
        files = []
        for (sweep, region, by_position), ids in sweeps.items():
            path = partial(file_path, release=release, region=region, brick=sweep)
            has_redshifts = bool(redshift_columns(get_tree(release, region).release))
            beside = path("sweep-photo-z") if has_redshifts else ""
            files.append(RowFile(tuple(ids), region, path("sweep"), by_position, beside))
        return tuple(files)

    def payload(self, request: CatalogRequest) -> Payload:
        """Return what would be asked for."""
        _refuse_others(request)
        payload = super().payload(request)
        if request.redshifts:
            paths = [brick.beside for brick in self.bricks(request) if brick.beside]
            payload["urls"] += [self.finder.address(path) for path in paths]
        return payload

    def rows(self, request: CatalogRequest, *, use_maxrec: bool = True) -> Rows:
        """Return the rows of a request."""
        _refuse_others(request)
        rows = super().rows(request, use_maxrec=use_maxrec)
        return replace(rows, lacking=self.lacking(request, rows.chunks))

    def lacking(self, request: CatalogRequest, chunks: Sequence[Chunk]) -> frozenset[str]:
        """Return columns of the default ones that the source has not; refuse others by name."""
        schema, lacking = tractor_columns(request.release), set[str]()
        for chunk in chunks:
            region = "north" if chunk.north else "south"
            absent = set(request.needed) - chunk.columns.keys() - {"ls_id", "brick_primary"}
            lacking |= {
                name
                for name in schema.keys() & absent
                if has_column(schema[name], request.release, region)
            }
        named = lacking.intersection(request.selecting if request.is_default else request.needed)
        if named:
            names = ", ".join(sorted(named))
            others = "'files' or 'tap'" if all(schema[n].in_tap for n in named) else "'files'"
            msg = f"source='sweeps' lacks {names}, which source={others} has."
            raise InvalidRequestError(msg, parameter="source", value="sweeps")
        return frozenset(lacking)

    def tables(self, bricks: Sequence[RowFile], what: str) -> list[Opened]:
        """Return the tables of bricks; of those on a server, the rows of the bricks."""
        files = [self.finder.local(brick.path) for brick in bricks]
        if None in files:
            self.announce(bricks, files, what)
        opened = map(self._opened, bricks, files)
        return list(filter(None, opened))

    def _opened(self, brick: RowFile, file: LocatedFile | None) -> Opened | None:
        answer: Answer = file
        if answer is None:
            answer = self.finder.read_parts(brick.path, partial(self._remote_rows, brick))
        if answer is None:
            return None
        numbers: np.ndarray | None = None
        if isinstance(answer, LocatedFile):
            table, url = self.open(answer), answer.url
        else:
            numbers, rows = answer
            table, url = with_positions(rows), str(rows.path)
        sweep = SweepRows(
            table.path,
            table.layout,
            table.data,
            positions=table.positions,
            numbers=numbers,
            beside=partial(self._beside, brick.beside),
        )
        return Opened(brick, sweep, url)

    def _remote_rows(self, brick: RowFile, parts: RemoteParts) -> tuple[np.ndarray, TableFile]:
        """Read the rows of bricks from a server, or from what is known of its sweep."""
        key = (parts.url, "in parts")
        sweep = self.open_tables.get(key) if self.finder.keeps else None
        if not isinstance(sweep, RemoteSweep):
            sweep = open_remote(parts)
        if self.finder.keeps:
            hold(self.open_tables, key, sweep)
        parts.version = sweep.version
        try:
            rows = sweep.rows_of(parts, brick.bricks)
        except ContentChangedError:
            self.open_tables.pop(key, None)
            parts.version = None
            raise
        forget_oldest(list(self.open_tables.values()))
        return rows

    def _beside(
        self, path: str, numbers: np.ndarray, names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Return columns of the redshifts of rows; none where there are no redshifts."""
        if not path:
            return {}
        answer: LocatedFile | TableFile | None = self.finder.local(path)
        if answer is None:
            answer = self.finder.read_parts(path, partial(rows_by_number, numbers=numbers))
        if answer is None:
            return {}
        if isinstance(answer, TableFile):
            return answer.read(slice(None), names)
        return self.finder.read(answer, lambda f: open_rows(f.path, f.url)).read(numbers, names)
