"""The binary table of a FITS file: where its columns lie, what their values mean, and its rows.

Just the rows and columns that are wanted are read.  Of a catalogue, where the columns lie in a row,
and a digest of every row's position, are kept in a sidecar in the cache; with it a repeated query
reads neither the FITS header nor a single row that it does not return.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from gzip import GzipFile
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np
from astropy.io import fits

from ..exceptions import TruncatedError, UnexpectedContentError
from ..io.checks import check_head, reading, unreadable
from ..io.store import write_whole
from ..survey.bricks import is_north
from ..survey.tractor import parse_unit
from ..survey.tractor_columns import TractorColumn, any_column

if TYPE_CHECKING:
    from .._typing import FilePath

RowNumbers: TypeAlias = np.ndarray | slice

BLOCK_BYTES = 2880
FEW_COLUMNS = 16
GZIP_HEAD = b"\x1f\x8b"

_FORMATS = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "L": "S1"}
_FORMATS |= {"C": ">c8", "M": ">c16"}


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
    null: int | None = None  # what stands in the file for no value

    @cached_property
    def native(self) -> np.dtype | None:
        """The machine's type of the values as they are written, if they mean no others."""
        is_plain = not self.is_bool and self.kind[0] != "S" and (self.scale, self.zero) == (1, 0)
        return np.dtype(self.kind).newbyteorder("=") if is_plain else None


@dataclass(frozen=True)
class TableLayout:
    """Where a table lies in its file, and where its columns lie in a row."""

    n_rows: int
    row_bytes: int
    data_offset: int
    fields: Mapping[str, FileColumn]  # by name, in lower case
    omitted: tuple[str, ...]  # columns of other kinds, or named like another

    @property
    def end(self) -> int:
        """How many bytes the file has to have."""
        return self.data_offset + self.n_rows * self.row_bytes

    @cached_property
    def row_type(self) -> np.dtype:
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

    @cached_property
    def nullable(self) -> frozenset[str]:
        """The columns with a number that stands for none."""
        return frozenset(n for n, column in self.fields.items() if column.null is not None)


_UNSIGNED = {("u1", -128): "i1", (">i2", 1 << 15): "u2", (">i4", 1 << 31): "u4"}
_UNSIGNED |= {(">i8", 1 << 63): "u8"}


def decoded(column: FileColumn, raw: np.ndarray) -> np.ndarray:
    """Return values of the machine's own kind."""
    if column.native is not None:
        return raw.astype(column.native)
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
    return raw * column.scale + column.zero


def missing(column: FileColumn, raw: np.ndarray) -> np.ndarray | None:
    """Return which values, as written in the file, are none; `None` if there can be no such."""
    if column.is_bool:
        return raw == b""
    return None if column.null is None else raw == column.null


@dataclass
class TableFile:
    """The rows of one table."""

    path: Path | str
    layout: TableLayout
    data: np.ndarray | None = field(default=None, repr=False)  # rows as bytes; None for the file's
    url: str = field(default="", kw_only=True)  # where it is from; empty for the path
    what: str = field(default="a Tractor catalogue", kw_only=True)  # as errors call it

    @property
    def fields(self) -> Mapping[str, FileColumn]:
        """The columns, by name in lower case."""
        return self.layout.fields

    def raw(self, rows: RowNumbers, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return columns of some rows as they are written."""
        layout = self.layout
        names = [name for name in names if name in layout.fields]
        lines = self.data
        if lines is None:
            lines = self._mapped()
            if not isinstance(rows, slice) and len(names) > FEW_COLUMNS:
                # Of many columns, whole rows cost no more.
                lines, rows = lines[rows], slice(None)
        columns = lines.view(layout.row_type)[:, 0]
        if isinstance(rows, slice) and rows == slice(None):
            return {name: columns[name] for name in names}
        return {name: columns[name][rows] for name in names}

    def read(self, rows: RowNumbers, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return columns of some rows, those that there are."""
        fields = self.layout.fields
        try:
            return {name: decoded(fields[name], raw) for name, raw in self.raw(rows, names).items()}
        except Exception as error:
            raise unreadable(self.url or self.path, f"read as {self.what}", error) from error

    def masks(self, rows: np.ndarray, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return which values of some rows are none, for the columns of which some can be."""
        names = self.layout.nullable.intersection(names)
        if not names or not len(rows):
            return {}
        with reading(self.url or self.path, f"read as {self.what}"):
            raw = self.raw(rows, names)
            masks = {name: missing(self.fields[name], raw[name]) for name in names}
            return {name: mask for name, mask in masks.items() if mask is not None}

    def _mapped(self) -> np.ndarray:
        """Return all rows of the file, as bytes that are read when they are looked at."""
        layout = self.layout
        if not layout.n_rows:
            return np.empty((0, layout.row_bytes), np.uint8)
        with open(self.path, "rb", buffering=0) as stream:
            # A fifth of the time that np.memmap takes.
            pages = mmap(stream.fileno(), layout.end, access=ACCESS_READ)
        lines = np.frombuffer(pages, np.uint8, layout.end - layout.data_offset, layout.data_offset)
        return lines.reshape(layout.n_rows, layout.row_bytes)


def open_rows(path: Path, url: str = "", *, what: str = "a FITS table") -> TableFile:
    """Open the first table of a file, which may be packed with gzip; errors name its URL."""
    url = url or str(path)
    with path.open("rb") as head:
        is_packed = head.read(len(GZIP_HEAD)) == GZIP_HEAD
    data = None
    try:
        with (
            reading(url, f"read as {what}"),
            gzip.open(path) if is_packed else path.open("rb") as stream,
        ):
            layout = read_layout(stream, url, what=what)
            size = os.stat(path).st_size
            if is_packed:
                lines = stream.read(layout.end - layout.data_offset)
                size = layout.data_offset + len(lines)
                data = np.frombuffer(lines, np.uint8)
    except UnexpectedContentError as error:
        if isinstance(error.__cause__, EOFError):
            msg = f"{url} ends too early."
            raise TruncatedError(msg, url=url) from error
        raise
    if size < layout.end:
        msg = f"{url} has {size} bytes; its table needs {layout.end}."
        raise TruncatedError(msg, url=url)
    if data is not None:
        data = data.reshape(layout.n_rows, layout.row_bytes)
    return TableFile(path, layout, data, url=url, what=what)


def read_layout(
    stream: BinaryIO | GzipFile, url: str, *, what: str = "a FITS table"
) -> TableLayout:
    """Return the layout of the first binary table of a file."""
    with reading(url, f"read as {what}"):
        header, data_offset = _table_header(stream, url)
        fields, omitted = _fields(header)
        sizes = int(header["NAXIS2"]), int(header["NAXIS1"])
        if min(sizes) < 0:
            msg = f"it has {sizes[0]} rows of {sizes[1]} bytes"
            raise ValueError(msg)
    return TableLayout(*sizes, data_offset, fields, omitted)


def _table_header(stream: BinaryIO | GzipFile, url: str) -> tuple[fits.Header, int]:
    """Return the header of the first binary table of a file, and where its data begin."""
    check_head(url.removesuffix(".gz"), stream.read(9), url)
    stream.seek(0)
    while True:
        header = fits.Header.fromfile(stream)
        if header.get("XTENSION", "").strip() == "BINTABLE":
            return header, stream.tell()
        size = abs(header.get("BITPIX", 8)) // 8 if header.get("NAXIS", 0) else 0
        for axis in range(1, header.get("NAXIS", 0) + 1):
            size *= header[f"NAXIS{axis}"]
        stream.seek(-(-size // BLOCK_BYTES) * BLOCK_BYTES, os.SEEK_CUR)


def _fields(header: fits.Header) -> tuple[dict[str, FileColumn], tuple[str, ...]]:
    """Return the columns of a table, names in lower case, and those of bits or pointers."""
    fields: dict[str, FileColumn] = {}
    omitted, offset = [], 0
    for number in range(1, header["TFIELDS"] + 1):
        form = header[f"TFORM{number}"].strip()
        digits = len(form) - len(form.lstrip("0123456789"))
        repeat, letter = int(form[:digits] or 1), form[digits]
        column = _column(header, number, repeat, letter, offset)
        name = header[f"TTYPE{number}"].strip()
        if column is not None and repeat and name.lower() not in fields:
            fields[name.lower()] = column
        else:
            omitted.append(name)
        if letter == "X":
            offset += -(-repeat // 8)
        elif letter in "PQ":
            offset += repeat * (8 if letter == "P" else 16)
        elif letter == "A":
            offset += repeat
        else:
            offset += np.dtype(_FORMATS[letter]).itemsize * repeat
    return fields, tuple(omitted)


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
        header.get(f"TNULL{number}") if letter in "BIJK" else None,
    )


# ---- catalogues: positions first, then just the rows and columns wanted -------------------------

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


OpenTables: TypeAlias = "OrderedDict[tuple[str, str], TableFile]"
"""The tables used last, so that a repeated query does not read even the sidecar."""

MAX_TABLES = 64


def hold(tables: OpenTables, key: tuple[str, str], table: TableFile) -> None:
    """Put a table last; the one used longest ago is let go."""
    # Never out of it for a moment: another thread may look for it.
    tables[key] = table
    with suppress(KeyError):  # another thread let it go meanwhile
        tables.move_to_end(key)
        while len(tables) > MAX_TABLES:
            tables.popitem(last=False)


def open_table(
    path: FilePath, sidecars: Path | None = None, tables: OpenTables | None = None
) -> TractorFile:
    """Open a Tractor file."""
    path = Path(path)
    status = os.stat(path)
    stamp = f"{status.st_mtime_ns}-{status.st_size}"
    key = (str(path), stamp)
    held = tables.get(key) if tables is not None else None
    if tables is not None and isinstance(held, TractorFile):
        with suppress(KeyError):  # another thread let it go meanwhile
            tables.move_to_end(key)
        return held
    table = _from_sidecar(path, sidecars, stamp)
    if table is None:
        table = with_positions(open_rows(path, what="a Tractor catalogue"))
        if sidecars is not None:
            _keep(table, sidecars, stamp)
    if tables is not None:
        hold(tables, key, table)
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
