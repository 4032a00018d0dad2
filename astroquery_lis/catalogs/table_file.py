"""The binary table of a FITS file: where its columns lie, and what their values mean."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from gzip import GzipFile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from astropy.io import fits

from ..io.checks import check_head, reading

__all__ = ["FileColumn", "TableLayout", "read_layout", "row_type_of"]

BLOCK_BYTES = 2880

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


def row_type_of(fields: Mapping[str, FileColumn], row_bytes: int) -> np.dtype:
    """Return the numpy type of a whole row."""
    columns = fields.values()
    return np.dtype(
        {
            "names": list(fields),
            "formats": [(column.kind, column.shape) for column in columns],
            "offsets": [column.offset for column in columns],
            "itemsize": row_bytes,
        }
    )


def read_layout(stream: BinaryIO | GzipFile, path: Path) -> TableLayout:
    """Return the layout of the first binary table of a file."""
    with reading(path, "read as a FITS table"):
        header, data_offset = _table_header(stream, path)
        fields, omitted = _fields(header)
        sizes = int(header["NAXIS2"]), int(header["NAXIS1"])
    return TableLayout(*sizes, data_offset, fields, omitted)


def _table_header(stream: BinaryIO | GzipFile, path: Path) -> tuple[fits.Header, int]:
    """Return the header of the first binary table of a file, and where its data begin."""
    check_head(path.name.removesuffix(".gz"), stream.read(9), path)
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
