"""The sweeps as a source of the catalogue: fewer columns, and redshifts row by row beside them.

A sweep that is here is read like a Tractor file.  Of one on a server the rows of the bricks that a
request touches are read, no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from .._typing import Payload
from ..exceptions import ContentChangedError, InvalidRequestError, UnexpectedContentError
from ..io.finder import LocatedFile
from ..io.parts import RemoteParts
from ..survey.catalog_request import CatalogRequest
from ..survey.paths import file_path
from ..survey.releases import get_tree
from ..survey.row_ids import RowIds
from ..survey.sweep_names import sweep_box, sweep_names
from ..survey.tractor_columns import (
    REDSHIFTS,
    ROW_KEY,
    has_column,
    redshift_columns,
    tractor_columns,
)
from .catalog_files import Opened, RowFile, TractorFiles
from .catalog_table import Chunk, Rows
from .remote_sweep import RemoteSweep, forget_oldest, open_remote, rows_by_number
from .table_file import (
    RowNumbers,
    TableFile,
    TractorFile,
    hold,
    open_rows,
    with_positions,
)

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
        wanted = [name for name in names if name in REDSHIFTS]
        if wanted and len(self.positions[rows]):
            numbers = np.arange(len(self.positions)) if self.numbers is None else self.numbers
            redshifts = self.beside(numbers[rows], [*ROW_KEY, *wanted])
            key = super().read(rows, ROW_KEY)
            is_same = all(n in redshifts and (redshifts[n] == key[n]).all() for n in ROW_KEY)
            if redshifts and not is_same:
                msg = f"The redshifts beside {self.path} are of other rows."
                raise UnexpectedContentError(msg, url=str(self.path))
            columns |= {name: redshifts[name] for name in wanted if name in redshifts}
        return columns


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

    def tables(self, bricks: Sequence[RowFile], what: str) -> list[Opened | None]:
        """Return the tables of bricks; of those on a server, the rows of the bricks."""
        files = [self.finder.local(brick.path) for brick in bricks]
        if None in files:
            self.announce(bricks, files, what)
        return [self._opened(brick, file) for brick, file in zip(bricks, files, strict=True)]

    def _opened(self, brick: RowFile, file: LocatedFile | None) -> Opened | None:
        numbers: np.ndarray | None = None
        if file is None and not self.finder.only_local:
            answer = self.finder.read_parts(brick.path, partial(self._remote_rows, brick))
            if isinstance(answer, LocatedFile):
                file = answer
            elif answer is not None:
                numbers, rows = answer
                table, url = with_positions(rows), str(rows.path)
        if file is not None:
            table, url = self.open(file), file.url
        elif numbers is None:
            return None
        return (
            SweepRows(
                table.path,
                table.layout,
                table.data,
                positions=table.positions,
                numbers=numbers,
                beside=partial(self._beside, brick.beside),
            ),
            url,
        )

    def _remote_rows(self, brick: RowFile, parts: RemoteParts) -> tuple[np.ndarray, TableFile]:
        """Read the rows of bricks from a server, or from what is known of its sweep."""
        key = (parts.url, "in parts")
        sweep = self._tables.get(key) if self.finder.keeps else None
        if not isinstance(sweep, RemoteSweep):
            sweep = open_remote(parts)
        if self.finder.keeps:
            hold(self._tables, key, sweep)
        parts.version = sweep.version
        try:
            rows = sweep.rows_of(parts, brick.bricks)
        except ContentChangedError:
            self._tables.pop(key, None)
            parts.version = None
            raise
        forget_oldest(list(self._tables.values()))
        return rows

    def _beside(
        self, path: str, numbers: np.ndarray, names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Return columns of the redshifts of rows; none where there are no redshifts."""
        if not path:
            return {}
        file = self.finder.local(path)
        if file is None and not self.finder.only_local:
            answer = self.finder.read_parts(path, partial(rows_by_number, numbers=numbers))
            if isinstance(answer, TableFile):
                return answer.read(slice(None), names)
            file = answer
        if file is None:
            return {}
        return self.finder.read(file, lambda f: open_rows(f.path, f.url)).read(numbers, names)
