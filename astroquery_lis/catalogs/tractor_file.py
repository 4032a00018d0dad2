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
from astropy.io import fits

from ..exceptions import TruncatedError, UnexpectedContentError
from ..io.checks import check_head, reading, unreadable
from ..io.store import write_whole
from ..survey.bricks import is_north
from ..survey.named_columns import any_column
from ..survey.tractor import parse_unit
from ..survey.tractor_columns import TractorColumn

if TYPE_CHECKING:
    from .._typing import FilePath

__all__ = ["POSITIONS", "FileColumn", "OpenTables", "TractorFile", "open_table"]

SIDECAR_VERSION = 2
BLOCK_BYTES = 2880
FEW_COLUMNS = 16
FEW_ROWS = 128
POSITIONS = np.dtype(
    [("ra", "<f8"), ("dec", "<f8"), ("primary", "?"), ("duplicate", "?"), ("north", "?")]
)
"""Fields of the sidecar: position, BRICK_PRIMARY, whether the type is DUP, and whether the north
is official there."""

_FORMATS = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "L": "S1"}
_FORMATS |= {"C": ">c8", "M": ">c16"}
_UNSIGNED = {("u1", -128): "i1", (">i2", 1 << 15): "u2", (">i4", 1 << 31): "u4"}
_UNSIGNED |= {(">i8", 1 << 63): "u8"}


@dataclass(frozen=True)
class FileColumn:
    """Where a column lies in a row of a file, and how it is written there."""

    offset: int
    kind: str  # numpy type in the file
    shape: tuple[int, ...]  # of one row's value
    unit: str
    is_bool: bool = False
    scale: float = 1
    zero: float = 0

    def decoded(self, raw: np.ndarray) -> np.ndarray:
        """Return values of the machine's own kind."""
        if self.is_bool:
            return raw == b"T"
        if self.kind[0] == "S":
            texts = np.char.rstrip(raw)
            try:
                return texts.astype(f"U{self.kind[1:]}")
            except UnicodeDecodeError:
                return np.char.decode(texts, "latin-1")
        unsigned = _UNSIGNED.get((self.kind, int(self.zero))) if self.scale == 1 else None
        if unsigned is not None:
            # The offset turns the sign bit over, no more.
            size = raw.dtype.itemsize
            bits = raw.astype(raw.dtype.newbyteorder("=")).view(f"u{size}")
            return (bits ^ np.array(1 << (8 * size - 1), f"u{size}")).view(unsigned)
        if (self.scale, self.zero) != (1, 0):
            return raw * self.scale + self.zero
        return raw.astype(raw.dtype.newbyteorder("="))


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
            return {name: self.fields[name].decoded(columns[name][rows]) for name in names}
        except Exception as error:
            raise unreadable(self.path, "read as a Tractor catalogue", error) from error

    def own_columns(self, release: str) -> dict[str, TractorColumn]:
        """Return the columns that no release of the survey has."""
        columns = {}
        for name, column in self.fields.items():
            if any_column(name, release) is None:
                values = column.decoded(np.empty((0, *column.shape), column.kind))
                kind = values.dtype.str.lstrip("<>|=")
                dtype = "?" if kind == "b1" else kind
                length = int(np.prod(column.shape, dtype=int))
                unit = parse_unit(column.unit)
                columns[name] = TractorColumn(name, dtype, length, unit, name, None, False)
        return columns

    @cached_property
    def _row_type(self) -> np.dtype:
        """The numpy type of a whole row."""
        columns = self.fields.values()
        return np.dtype(
            {
                "names": list(self.fields),
                "formats": [(column.kind, column.shape) for column in columns],
                "offsets": [column.offset for column in columns],
                "itemsize": self.row_bytes,
            }
        )

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
    with reading(path, "read as a FITS table"):
        header, data_offset = _table_header(path)
        n_rows, row_bytes = int(header["NAXIS2"]), int(header["NAXIS1"])
        fields = _fields(header)
    due = data_offset + n_rows * row_bytes
    if size < due:
        msg = f"{path} has {size} bytes; its table needs {due}."
        raise TruncatedError(msg, url=str(path))
    lacking = [name for name in ("ra", "dec", "brickid", "objid") if name not in fields]
    if lacking:
        msg = f"{path} is not a Tractor catalogue: it has no {', '.join(lacking)}."
        raise UnexpectedContentError(msg, url=str(path))
    positions = np.zeros(n_rows, POSITIONS)
    table = TractorFile(path, n_rows, row_bytes, data_offset, fields, positions)
    columns = table.read(np.arange(n_rows), ("ra", "dec", "brick_primary", "type"))
    positions["ra"], positions["dec"] = columns["ra"], columns["dec"]
    positions["primary"] = columns.get("brick_primary", True)
    if "type" in columns:
        positions["duplicate"] = columns["type"] == "DUP"
    placed = np.isfinite(columns["ra"]) & (np.abs(columns["dec"]) <= 90)
    positions["north"][placed] = is_north(columns["ra"][placed], columns["dec"][placed])
    return table


def _table_header(path: Path) -> tuple[fits.Header, int]:
    """Return the header of the first binary table of a file, and where its data begin."""
    with path.open("rb") as stream:
        check_head(path, stream.read(9), path)
        stream.seek(0)
        while True:
            header = fits.Header.fromfile(stream)
            if header.get("XTENSION", "").strip() == "BINTABLE":
                return header, stream.tell()
            size = abs(header.get("BITPIX", 8)) // 8 if header.get("NAXIS", 0) else 0
            for axis in range(1, header.get("NAXIS", 0) + 1):
                size *= header[f"NAXIS{axis}"]
            stream.seek(-(-size // BLOCK_BYTES) * BLOCK_BYTES, os.SEEK_CUR)


def _fields(header: fits.Header) -> dict[str, FileColumn]:
    """Return the columns of a table, names in lower case; those of bits or pointers are left."""
    fields, offset = {}, 0
    for number in range(1, header["TFIELDS"] + 1):
        form = header[f"TFORM{number}"].strip()
        digits = len(form) - len(form.lstrip("0123456789"))
        repeat, letter = int(form[:digits] or 1), form[digits]
        column = _column(header, number, repeat, letter, offset)
        if column is not None and repeat:
            fields[header[f"TTYPE{number}"].strip().lower()] = column
        if letter == "X":
            offset += -(-repeat // 8)
        elif letter in "PQ":
            offset += repeat * (8 if letter == "P" else 16)
        elif letter == "A":
            offset += repeat
        else:
            offset += np.dtype(_FORMATS[letter]).itemsize * repeat
    return fields


def _column(
    header: fits.Header, number: int, repeat: int, letter: str, offset: int
) -> FileColumn | None:
    if letter not in _FORMATS and letter != "A":
        return None
    text = str(header.get(f"TDIM{number}", "")).strip(" ()")
    shape = tuple(int(size) for size in reversed(text.split(","))) if text else ()
    if letter == "A":
        # The first of the dimensions counts the letters of one text.
        width = shape[-1] if shape else repeat
        kind, shape = f"S{width}", shape[:-1]
    else:
        kind = _FORMATS[letter]
        if int(np.prod(shape, dtype=int)) != repeat or shape == (1,):
            shape = () if repeat == 1 else (repeat,)
    return FileColumn(
        offset,
        kind,
        shape,
        str(header.get(f"TUNIT{number}", "")),
        letter == "L",
        header.get(f"TSCAL{number}", 1),
        header.get(f"TZERO{number}", 0),
    )
