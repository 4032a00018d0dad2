"""The binary table of a FITS file: where its columns lie, what their values mean, and its rows.

Just the rows and columns that are wanted are read.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from gzip import GzipFile
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from astropy.io import fits

from ..exceptions import TruncatedError, UnexpectedContentError
from ..io.checks import check_head, reading, unreadable

RowNumbers: TypeAlias = np.ndarray | slice

BLOCK_BYTES = 2880
FEW_COLUMNS = 16
FEW_ROWS = 128
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

    @property
    def fields(self) -> Mapping[str, FileColumn]:
        """The columns, by name in lower case."""
        return self.layout.fields

    def raw(self, rows: RowNumbers, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return columns of some rows as they are written."""
        layout = self.layout
        names = [name for name in names if name in layout.fields]
        lines = self.data
        if lines is None and not isinstance(rows, slice) and len(names) > FEW_COLUMNS:
            # Of many columns, whole rows cost no more.
            lines, rows = self._whole_rows(rows), slice(None)
        elif lines is None:
            lines = self._mapped()
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
            raise unreadable(self.path, "read as a Tractor catalogue", error) from error

    def masks(self, rows: np.ndarray, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return which values of some rows are none, for the columns of which some can be."""
        names = self.layout.nullable.intersection(names)
        if not names or not len(rows):
            return {}
        with reading(self.path, "read as a Tractor catalogue"):
            raw = self.raw(rows, names)
            masks = {name: missing(self.fields[name], raw[name]) for name in names}
            return {name: mask for name, mask in masks.items() if mask is not None}

    def _mapped(self) -> np.ndarray:
        """Return all rows of the file, as bytes that are read when they are looked at."""
        shape = (self.layout.n_rows, self.layout.row_bytes)
        if not self.layout.n_rows:
            return np.empty(shape, np.uint8)
        return np.asarray(np.memmap(self.path, np.uint8, "r", self.layout.data_offset, shape))

    def _whole_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return a copy of some rows of the file."""
        if len(rows) > FEW_ROWS:
            return self._mapped()[rows]
        # To map the file takes longer than to read few rows of it.
        layout, read = self.layout, []
        with open(self.path, "rb", buffering=0) as stream:
            for start in (layout.data_offset + layout.row_bytes * rows).tolist():
                stream.seek(start)
                read.append(stream.read(layout.row_bytes))
        return np.frombuffer(b"".join(read), np.uint8).reshape(len(rows), layout.row_bytes)


def open_rows(path: Path) -> TableFile:
    """Open the first table of a file, which may be packed with gzip."""
    with path.open("rb") as head:
        is_packed = head.read(len(GZIP_HEAD)) == GZIP_HEAD
    data = None
    try:
        with (
            reading(path, "read as a FITS table"),
            gzip.open(path) if is_packed else path.open("rb") as stream,
        ):
            layout = read_layout(stream, path)
            size = os.stat(path).st_size
            if is_packed:
                lines = stream.read(layout.end - layout.data_offset)
                size = layout.data_offset + len(lines)
                data = np.frombuffer(lines, np.uint8)
    except UnexpectedContentError as error:
        if isinstance(error.__cause__, EOFError):
            msg = f"{path} ends too early."
            raise TruncatedError(msg, url=str(path)) from error
        raise
    if size < layout.end:
        msg = f"{path} has {size} bytes; its table needs {layout.end}."
        raise TruncatedError(msg, url=str(path))
    if data is not None:
        data = data.reshape(layout.n_rows, layout.row_bytes)
    return TableFile(path, layout, data)


def read_layout(stream: BinaryIO | GzipFile, path: Path | str) -> TableLayout:
    """Return the layout of the first binary table of a file."""
    with reading(path, "read as a FITS table"):
        header, data_offset = _table_header(stream, path)
        fields, omitted = _fields(header)
        sizes = int(header["NAXIS2"]), int(header["NAXIS1"])
        if min(sizes) < 0:
            msg = f"it has {sizes[0]} rows of {sizes[1]} bytes"
            raise ValueError(msg)
    return TableLayout(*sizes, data_offset, fields, omitted)


def _table_header(stream: BinaryIO | GzipFile, path: Path | str) -> tuple[fits.Header, int]:
    """Return the header of the first binary table of a file, and where its data begin."""
    check_head(Path(path).name.removesuffix(".gz"), stream.read(9), path)
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
