"""One file of catalogue rows on disk: positions first, then just the rows and columns wanted.

Where the columns lie in a row, and a digest of every row's position, are kept in a sidecar in the
cache; with it a repeated query reads neither the FITS header nor a single row that it does not
return.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..exceptions import TruncatedError, UnexpectedContentError
from ..io.checks import reading, unreadable
from ..io.store import write_whole
from ..survey.bricks import is_north
from ..survey.named_columns import any_column
from ..survey.tractor import parse_unit
from ..survey.tractor_columns import TractorColumn
from .table_file import FileColumn, read_layout, row_type_of

if TYPE_CHECKING:
    from .._typing import FilePath

__all__ = ["POSITIONS", "OpenTables", "TractorFile", "decoded", "missing", "open_table"]

SIDECAR_VERSION = 3
FEW_COLUMNS = 16
FEW_ROWS = 128
POSITIONS = np.dtype(
    [("ra", "<f8"), ("dec", "<f8"), ("primary", "?"), ("duplicate", "?"), ("north", "?")]
)
"""Fields of the sidecar: position, BRICK_PRIMARY, whether the type is DUP, and whether the north
is official there."""

_UNSIGNED = {("u1", -128): "i1", (">i2", 1 << 15): "u2", (">i4", 1 << 31): "u4"}
_UNSIGNED |= {(">i8", 1 << 63): "u8"}


def decoded(column: FileColumn, raw: np.ndarray) -> np.ndarray:
    """Return values of the machine's own kind."""
    if column.is_bool:
        return raw == b"T"
    if column.kind[0] == "S":
        texts = np.char.rstrip(raw)
        try:
            return texts.astype(f"U{column.kind[1:]}")
        except UnicodeDecodeError:
            return np.char.decode(texts, "latin-1")
    unsigned = _UNSIGNED.get((column.kind, int(column.zero))) if column.scale == 1 else None
    if unsigned is not None:
        # The offset turns the sign bit over, no more.
        size = raw.dtype.itemsize
        bits = raw.astype(raw.dtype.newbyteorder("=")).view(f"u{size}")
        return (bits ^ np.array(1 << (8 * size - 1), f"u{size}")).view(unsigned)
    if (column.scale, column.zero) != (1, 0):
        return raw * column.scale + column.zero
    return raw.astype(raw.dtype.newbyteorder("="))


def missing(column: FileColumn, raw: np.ndarray) -> np.ndarray | None:
    """Return which values, as written in the file, are none; `None` if there can be no such."""
    if column.is_bool:
        return raw == b""
    return None if column.null is None else raw == column.null


@dataclass
class TractorFile:
    """Where everything is in one file, and the positions of its rows."""

    path: Path
    n_rows: int
    row_bytes: int
    data_offset: int
    fields: Mapping[str, FileColumn]
    positions: np.ndarray = field(repr=False)  # of type `POSITIONS`

    def read(self, rows: np.ndarray, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Read columns of some rows."""
        try:
            names = [name for name in names if name in self.fields]
            if not len(rows) or not names:
                lines = np.empty((0, self.row_bytes), np.uint8)
                rows = np.empty(0, int)
            elif len(names) <= FEW_COLUMNS:
                # Few columns are picked from the file itself; for many, whole rows cost no more.
                shape = (self.n_rows, self.row_bytes)
                lines = np.asarray(np.memmap(self.path, np.uint8, "r", self.data_offset, shape))
            else:
                lines, rows = self._lines(rows), np.arange(len(rows))
            columns = lines.view(self._row_type)[:, 0]
            return {name: decoded(self.fields[name], columns[name][rows]) for name in names}
        except Exception as error:
            raise unreadable(self.path, "read as a Tractor catalogue", error) from error

    @cached_property
    def nullable(self) -> frozenset[str]:
        """The columns with a number that stands for none."""
        return frozenset(n for n, column in self.fields.items() if column.null is not None)

    def masks(self, rows: np.ndarray, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return which values of some rows are none, for the columns of which some can be."""
        names = self.nullable.intersection(names)
        if not names or not len(rows):
            return {}
        with reading(self.path, "read as a Tractor catalogue"):
            columns = self._lines(rows).view(self._row_type)[:, 0]
            return {name: columns[name] == self.fields[name].null for name in names}

    def own_columns(self, release: str) -> dict[str, TractorColumn]:
        """Return the columns that no release of the survey has."""
        columns = {}
        for name, column in self.fields.items():
            if any_column(name, release) is None:
                values = decoded(column, np.empty((0, *column.shape), column.kind))
                kind = values.dtype.str.lstrip("<>|=")
                dtype = "?" if kind == "b1" else kind
                length = int(np.prod(column.shape, dtype=int))
                unit = parse_unit(column.unit)
                columns[name] = TractorColumn(name, dtype, length, unit, name, None, False)
        return columns

    @cached_property
    def _row_type(self) -> np.dtype:
        return row_type_of(self.fields, self.row_bytes)

    def _lines(self, rows: np.ndarray) -> np.ndarray:
        """Return a copy of whole rows: bytes, by row."""
        if len(rows) > FEW_ROWS:
            shape = (self.n_rows, self.row_bytes)
            return np.asarray(np.memmap(self.path, np.uint8, "r", self.data_offset, shape))[rows]
        # To map the file takes longer than to read few rows of it.
        with self.path.open("rb", buffering=0) as stream:
            lines = []
            for row in rows.tolist():
                stream.seek(self.data_offset + row * self.row_bytes)
                lines.append(stream.read(self.row_bytes))
        return np.frombuffer(b"".join(lines), np.uint8).reshape(len(rows), self.row_bytes)


class OpenTables:
    """The tables used last, so that a repeated query does not read even the sidecar."""

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._tables: OrderedDict[tuple[str, str], TractorFile] = OrderedDict()

    def __getstate__(self) -> dict[str, int]:
        return {"_limit": self._limit}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(state["_limit"])  # type: ignore[misc]

    def get(self, key: tuple[str, str]) -> TractorFile | None:
        """Return the table held under ``key``, or `None`."""
        with self._lock:
            if key in self._tables:
                self._tables.move_to_end(key)
            return self._tables.get(key)

    def put(self, key: tuple[str, str], table: TractorFile) -> None:
        """Hold a table; the one used longest ago is let go."""
        with self._lock:
            self._tables[key] = table
            self._tables.move_to_end(key)
            while len(self._tables) > self._limit:
                self._tables.popitem(last=False)

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
    table = tables.get(key) if tables is not None else None
    if table is not None:
        return table
    table = _from_sidecar(path, sidecars, stamp)
    if table is None:
        table = _parse(path, status.st_size)
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
        table = TractorFile(path=path, positions=positions, fields=fields, **note)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError):
        return None
    return table if positions.dtype == POSITIONS and len(positions) == table.n_rows else None


def _keep(table: TractorFile, sidecars: Path, stamp: str) -> None:
    """Write the sidecar, if it can be written; without it the next query is slower, no more."""
    note = {
        "version": SIDECAR_VERSION,
        "n_rows": table.n_rows,
        "row_bytes": table.row_bytes,
        "data_offset": table.data_offset,
        "fields": {name: asdict(column) for name, column in table.fields.items()},
    }
    with suppress(OSError):
        with write_whole(sidecars / f"{stamp}.npy") as temporary, temporary.open("wb") as stream:
            np.save(stream, table.positions, allow_pickle=False)
        with write_whole(sidecars / f"{stamp}.json") as temporary:
            temporary.write_text(json.dumps(note))
        for old in sidecars.iterdir():
            if old.suffix in (".npy", ".json") and old.stem != stamp:
                old.unlink(missing_ok=True)


def _parse(path: Path, size: int) -> TractorFile:
    """Read the header and the positions of a file."""
    with path.open("rb") as stream:
        layout = read_layout(stream, path)
    if size < layout.end:
        msg = f"{path} has {size} bytes; its table needs {layout.end}."
        raise TruncatedError(msg, url=str(path))
    fields, n_rows = layout.fields, layout.n_rows
    lacking = [name for name in ("ra", "dec", "brickid", "objid") if name not in fields]
    if lacking:
        msg = f"{path} is not a Tractor catalogue: it has no {', '.join(lacking)}."
        raise UnexpectedContentError(msg, url=str(path))
    positions = np.zeros(n_rows, POSITIONS)
    table = TractorFile(
        path, n_rows, layout.row_bytes, layout.data_offset, fields, positions
    )
    columns = table.read(np.arange(n_rows), ("ra", "dec", "brick_primary", "type"))
    positions["ra"], positions["dec"] = columns["ra"], columns["dec"]
    positions["primary"] = columns.get("brick_primary", True)
    if "type" in columns:
        positions["duplicate"] = columns["type"] == "DUP"
    placed = np.isfinite(columns["ra"]) & (np.abs(columns["dec"]) <= 90)
    positions["north"][placed] = is_north(columns["ra"][placed], columns["dec"][placed])
    return table
