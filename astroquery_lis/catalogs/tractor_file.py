"""One file of catalogue rows on disk: positions first, then just the rows and columns wanted.

Where the columns lie in a row, and a digest of every row's position, are kept in a sidecar in the
cache; with it a repeated query reads neither the FITS header nor a single row that it does not
return.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .._forks import new_lock
from ..exceptions import UnexpectedContentError
from ..io.store import write_whole
from ..survey.bricks import is_north
from ..survey.named_columns import any_column
from ..survey.tractor import parse_unit
from ..survey.tractor_columns import TractorColumn
from .table_file import FileColumn, TableFile, TableLayout, decoded, open_rows

if TYPE_CHECKING:
    from .._typing import FilePath

SIDECAR_VERSION = 3
POSITIONS = np.dtype(
    [("ra", "<f8"), ("dec", "<f8"), ("primary", "?"), ("duplicate", "?"), ("north", "?")]
)
"""Fields of the sidecar: position, BRICK_PRIMARY, whether the type is DUP, and whether the north
is official there."""


@dataclass
class TractorFile(TableFile):
    """The rows of one catalogue, and their positions."""

    positions: np.ndarray = field(kw_only=True, repr=False)  # of type `POSITIONS`


class OpenTables:
    """The tables used last, so that a repeated query does not read even the sidecar."""

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._lock = new_lock()
        self._tables: OrderedDict[tuple[str, str], TableFile] = OrderedDict()

    def __getstate__(self) -> dict[str, int]:
        return {"_limit": self._limit}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(state["_limit"])  # type: ignore[misc]

    def get(self, key: tuple[str, str]) -> TableFile | None:
        """Return the table held under ``key``, or `None`."""
        with self._lock:
            if key in self._tables:
                self._tables.move_to_end(key)
            return self._tables.get(key)

    def all(self) -> list[TableFile]:
        """Return the tables, those used longest ago first."""
        with self._lock:
            return list(self._tables.values())

    def put(self, key: tuple[str, str], table: TableFile) -> None:
        """Hold a table; the one used longest ago is let go."""
        with self._lock:
            self._tables[key] = table
            self._tables.move_to_end(key)
            while len(self._tables) > self._limit:
                self._tables.popitem(last=False)

    def drop(self, key: tuple[str, str]) -> None:
        """Let a table go."""
        with self._lock:
            self._tables.pop(key, None)

    def clear(self) -> None:
        """Let every table go."""
        with self._lock:
            self._tables.clear()


def open_table(
    path: FilePath, sidecars: Path | None = None, tables: OpenTables | None = None
) -> TractorFile:
    """Open a Tractor file."""
    path = Path(path)
    status = os.stat(path)
    stamp = f"{status.st_mtime_ns}-{status.st_size}"
    key = (str(path), stamp)
    held = tables.get(key) if tables is not None else None
    if isinstance(held, TractorFile):
        return held
    table = _from_sidecar(path, sidecars, stamp)
    if table is None:
        table = with_positions(open_rows(path))
        if sidecars is not None:
            _keep(table, sidecars, stamp)
    if tables is not None:
        tables.put(key, table)
    return table


def _from_sidecar(path: Path, sidecars: Path | None, stamp: str) -> TractorFile | None:
    """Return the table as an earlier call described it, or `None`."""
    if sidecars is None:
        return None
    try:
        note = json.loads(Path(sidecars, f"{stamp}.json").read_text())
        if note.pop("version") != SIDECAR_VERSION:
            return None
        fields = {
            name: FileColumn(**{**column, "shape": tuple(column["shape"])})
            for name, column in note.pop("fields").items()
        }
        positions = np.load(Path(sidecars, f"{stamp}.npy"), allow_pickle=False)
        layout = TableLayout(fields=fields, omitted=(), **note)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError):
        return None
    if positions.dtype != POSITIONS or len(positions) != layout.n_rows:
        return None
    return TractorFile(path, layout, positions=positions)


def _keep(table: TractorFile, sidecars: Path, stamp: str) -> None:
    """Write the sidecar, if it can be written; without it the next query is slower, no more."""
    layout = table.layout
    note = {
        "version": SIDECAR_VERSION,
        "n_rows": layout.n_rows,
        "row_bytes": layout.row_bytes,
        "data_offset": layout.data_offset,
        "fields": {name: asdict(column) for name, column in layout.fields.items()},
    }
    with suppress(OSError):
        with write_whole(sidecars / f"{stamp}.npy") as temporary, temporary.open("wb") as stream:
            np.save(stream, table.positions, allow_pickle=False)
        with write_whole(sidecars / f"{stamp}.json") as temporary:
            temporary.write_text(json.dumps(note))
        for old in sidecars.iterdir():
            if old.suffix in (".npy", ".json") and old.stem != stamp:
                old.unlink(missing_ok=True)


def with_positions(table: TableFile) -> TractorFile:
    """Return a table with the positions of its rows, if it is a catalogue."""
    lacking = [n for n in ("ra", "dec", "brickid", "objid") if n not in table.fields]
    if lacking:
        msg = f"{table.path} is not a Tractor catalogue: it has no {', '.join(lacking)}."
        raise UnexpectedContentError(msg, url=str(table.path))
    n_rows = table.layout.n_rows
    columns = table.read(np.arange(n_rows), ("ra", "dec", "brick_primary", "type"))
    positions = np.zeros(n_rows, POSITIONS)
    positions["ra"], positions["dec"] = columns["ra"], columns["dec"]
    positions["primary"] = columns.get("brick_primary", True)
    if "type" in columns:
        positions["duplicate"] = columns["type"] == "DUP"
    placed = np.isfinite(columns["ra"]) & (np.abs(columns["dec"]) <= 90)
    positions["north"][placed] = is_north(columns["ra"][placed], columns["dec"][placed])
    return TractorFile(table.path, table.layout, table.data, positions=positions)


def own_columns(table: TableFile, release: str) -> dict[str, TractorColumn]:
    """Return the columns of a table that no release of the survey has."""
    columns = {}
    for name, column in table.fields.items():
        if any_column(name, release) is None:
            values = decoded(column, np.empty((0, *column.shape), column.kind))
            kind = values.dtype.str.lstrip("<>|=")
            dtype = "?" if kind == "b1" else kind
            length = int(np.prod(column.shape, dtype=int))
            unit = parse_unit(column.unit)
            columns[name] = TractorColumn(name, dtype, length, unit, name, None, False)
    return columns
