"""The binary table of a FITS file: where its columns lie, what their values mean, and its rows.

Just the rows and columns that are wanted are read; `read_file` makes a table of astropy of a whole
file of the survey: of a Tractor file, a sweep and what lies beside it, of CCDs.
"""

from __future__ import annotations

import difflib
import gzip
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from gzip import GzipFile
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO, TypeAlias, TypeVar

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import Column, MaskedColumn, Table

from ..exceptions import (
    CoverageWarning,
    InvalidRequestError,
    TruncatedError,
    UnexpectedContentError,
    warn,
)
from ..io.ranges import FIRST_RANGE_BYTES, RemoteParts
from ..io.whole_files import check_head, reading, unreadable, write_whole
from ..survey.tractor import parse_unit
from ..survey.tractor_columns import MEASURED_REDSHIFTS, NO_REDSHIFT, any_column

RowNumbers: TypeAlias = np.ndarray | slice
T = TypeVar("T")

BLOCK_BYTES = 2880
FEW_COLUMNS = 16
GZIP_HEAD = b"\x1f\x8b"
HEADER_BYTES = 1_000_000

_FORMATS = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "L": "S1"}
_FORMATS |= {"C": ">c8", "M": ">c16"}

# Of one value in a row; of an array beside the table, that which points to it.
_BYTES = {letter: np.dtype(kind).itemsize for letter, kind in _FORMATS.items()}
_BYTES |= {"A": 1, "P": 8, "Q": 16}


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

    def check_size(self, n_bytes: int, url: str) -> None:
        """Refuse a file that has fewer bytes."""
        if n_bytes < self.end:
            msg = f"{url} has {n_bytes} bytes; its table needs {self.end}."
            raise TruncatedError(msg, url=url)

    def to_text(self) -> str:
        """Return it as text from which `of_text` makes it again."""
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> TableLayout:
        """Return what `to_text` wrote."""
        note = json.loads(text)
        columns = note.pop("fields").items()
        fields = {n: FileColumn(**{**c, "shape": tuple(c["shape"])}) for n, c in columns}
        return cls(fields=fields, omitted=tuple(note.pop("omitted")), **note)

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
        return _texts(column, raw)
    unsigned = _UNSIGNED.get((column.kind, int(column.zero))) if column.scale == 1 else None
    if unsigned is not None:
        # The offset turns the sign bit over, no more.
        size = raw.dtype.itemsize
        bits = raw.astype(raw.dtype.newbyteorder("=")).view(f"u{size}")
        return (bits ^ np.array(1 << (8 * size - 1), f"u{size}")).view(unsigned)
    return raw * column.scale + column.zero


def _texts(column: FileColumn, raw: np.ndarray) -> np.ndarray:
    texts = np.char.rstrip(raw)
    try:
        return texts.astype(f"U{column.kind[1:]}")
    except UnicodeDecodeError:
        return np.char.decode(texts, "latin-1")


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
        names = [name for name in names if name in self.layout.fields]
        lines = self._mapped() if self.data is None else self.data
        if isinstance(rows, np.ndarray) and len(names) > FEW_COLUMNS:
            # Of many columns, whole rows cost no more.
            lines, rows = lines[rows], slice(None)
        columns = lines.view(self.layout.row_type)[:, 0]
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
            return {name: raw[name] == self.fields[name].null for name in names}

    def _mapped(self) -> np.ndarray:
        """Return all rows of the file, as bytes that are read when they are looked at."""
        layout = self.layout
        if not layout.n_rows:
            return np.empty((0, layout.row_bytes), np.uint8)
        with open(self.path, "rb", buffering=0) as stream:
            # A fifth of the time that np.memmap takes.
            pages = mmap(stream.fileno(), 0, access=ACCESS_READ)
        n_bytes = layout.n_rows * layout.row_bytes
        lines = np.frombuffer(pages, np.uint8, n_bytes, layout.data_offset)
        return lines.reshape(layout.n_rows, layout.row_bytes)


def open_rows(path: Path, url: str = "", *, what: str = "a FITS table") -> TableFile:
    """Open the first table of a file, which may be packed with gzip; errors name its URL."""
    url = url or str(path)
    with path.open("rb") as stream:
        if stream.read(len(GZIP_HEAD)) == GZIP_HEAD:
            return _open_packed(path, url, what)
        stream.seek(0)
        with _reading_to_the_end(url, what):
            layout = read_layout(stream, url, what=what)
        layout.check_size(os.fstat(stream.fileno()).st_size, url)
    return TableFile(path, layout, url=url, what=what)


def _open_packed(path: Path, url: str, what: str) -> TableFile:
    with _reading_to_the_end(url, what), gzip.open(path) as stream:
        layout = read_layout(stream, url, what=what)
        data = stream.read(layout.end - layout.data_offset)
    layout.check_size(layout.data_offset + len(data), url)
    lines = np.frombuffer(data, np.uint8).reshape(layout.n_rows, layout.row_bytes)
    return TableFile(path, layout, lines, url=url, what=what)


@contextmanager
def _reading_to_the_end(url: str, what: str) -> Iterator[None]:
    """Turn what a decoder raises into errors of ours, of which one tells of an end too early."""
    try:
        with reading(url, f"read as {what}"):
            yield
    except UnexpectedContentError as error:
        if isinstance(error.__cause__, EOFError):
            msg = f"{url} ends too early."
            raise TruncatedError(msg, url=url) from error
        raise


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


def remote_layout(parts: RemoteParts) -> TableLayout:
    """Return the layout of the first binary table of a file on a server."""
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
    layout.check_size(version.size, parts.url)
    return layout


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
        offset += -(-repeat // 8) if letter == "X" else repeat * _BYTES[letter]
    return fields, tuple(omitted)


def _column(
    header: fits.Header, number: int, repeat: int, letter: str, offset: int
) -> FileColumn | None:
    if letter not in _FORMATS and letter != "A":
        return None
    kind, shape = _kind_and_shape(str(header.get(f"TDIM{number}", "")), repeat, letter)
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


def _kind_and_shape(dimensions: str, repeat: int, letter: str) -> tuple[str, tuple[int, ...]]:
    """Return the numpy type of a column's values, and the shape of those of one row."""
    sizes = [int(size) for size in dimensions.strip(" ()").split(",") if size]
    shape = tuple(reversed(sizes))
    if letter == "A":
        # The first of the dimensions counts the letters of one text.
        *outer, length = shape or (repeat,)
        return f"S{length}", tuple(outer)
    if int(np.prod(shape, dtype=int)) != repeat:
        shape = (repeat,)
    return _FORMATS[letter], () if shape == (1,) else shape


# ---- what is known of a file, in the cache beside it ---------------------------------------------

SIDECAR_VERSION = 4


def remembered(
    path: Path,
    folder: Path | None,
    *,
    load: Callable[[np.ndarray, str], T],
    read: Callable[[], T],
    note: Callable[[T], tuple[np.ndarray, str] | None],
) -> T:
    """Return what an earlier call read of a file in this state, or read and keep it.

    It is kept as an array and a text, if ``note`` has such and they can be written; without them
    the next call is slower, no more.  ``load`` may raise a ValueError, KeyError, TypeError or
    AttributeError for what is not what it should be.
    """
    if folder is None:
        return read()
    status = path.stat()
    sidecar = folder / f"{status.st_mtime_ns}-{status.st_size}.v{SIDECAR_VERSION}.npy"
    flaws = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError)
    with suppress(*flaws), sidecar.open("rb") as stream:
        return load(np.load(stream, allow_pickle=False), stream.read().decode())
    content = read()
    kept = note(content)
    if kept is None:
        return content
    rows, text = kept
    with suppress(OSError):
        with write_whole(sidecar) as temporary, temporary.open("wb") as stream:
            np.save(stream, rows, allow_pickle=False)
            stream.write(text.encode())
        for old in {*folder.iterdir()} - {sidecar}:
            old.unlink(missing_ok=True)
    return content


# ---- a whole file as a table of astropy ----------------------------------------------------------

CCD_UNITS = {
    "camera": None,
    "expnum": None,
    "ccdname": None,
    "filter": None,
    "object": None,
    "propid": None,
    "ra": u.deg,
    "dec": u.deg,
    "mjd_obs": u.day,
    "exptime": u.s,
    "airmass": None,
    "ccdzpt": u.mag,
    "zpt": u.mag,
    "ccdskysb": u.mag / u.arcsec**2,
    "ccd_cuts": None,
    "image_filename": None,
    "image_hdu": None,
}
"""Columns of a table of CCDs that are taken over as they are, with their units."""

# What tells that a table is of the survey: a source, a position, a CCD or a brick.
_KEYS = ({"brickid", "objid"}, {"ra", "dec"}, {"expnum", "ccdname"}, {"brickname"})
_PLACES = dict.fromkeys(("ra", "dec", "ra1", "ra2", "dec1", "dec2"), u.deg)


def read_file(path: Path, columns: Sequence[str] | None) -> Table:
    """Return the rows of a file, with the columns of these names."""
    table = open_rows(path)
    layout, fields = table.layout, table.fields
    if not any(key <= fields.keys() for key in _KEYS):
        few = ", ".join([*fields][:5]) or "none that can be read"
        msg = f"{path} is no catalogue of the survey: the columns of its first table are {few}."
        raise UnexpectedContentError(msg, url=str(path))
    names = _every(layout, path) if columns is None else _resolved(columns, layout, path)
    raw = table.raw(slice(None), names)
    known = _known_units(fields.keys())
    parts = [_table_column(name, fields[name], raw[name], known) for name in names]
    return Table(parts, copy=False, meta={"file": str(path)})


def _every(layout: TableLayout, path: Path) -> list[str]:
    """Return the names of all columns, and warn of those that are left out."""
    if layout.omitted:
        msg = (
            f"{path}: {', '.join(layout.omitted)} did not come; columns of bits, of lengths that "
            "differ by row, of no values, or named like another are left out."
        )
        warn(msg, CoverageWarning)
    return list(layout.fields)


def _resolved(columns: Sequence[str], layout: TableLayout, path: Path) -> list[str]:
    """Return the names of columns as the layout has them; refuse others."""
    names = []
    for column in columns:
        name = column.strip().lower()
        if name not in layout.fields:
            near = difflib.get_close_matches(name, layout.fields, 3)
            hint = f"did you mean {', '.join(near)}?" if near else "leave columns out for all."
            msg = f"columns: {path} has no {column!r}; {hint}"
            raise InvalidRequestError(msg, parameter="columns", value=column)
        names.append(name)
    return list(dict.fromkeys(names))


def _known_units(names: Iterable[str]) -> Mapping[str, u.UnitBase | None]:
    """Return the units of columns for which the survey writes none into its files."""
    names = {*names}
    if {"brickid", "objid"} <= names:
        columns = filter(None, (any_column(name, "dr10") for name in names))
        return {column.name: column.unit for column in columns}
    return CCD_UNITS if {"expnum", "ccdname"} <= names else _PLACES


def _table_column(
    name: str, field: FileColumn, raw: np.ndarray, known: Mapping[str, u.UnitBase | None]
) -> Column:
    """Return a column with its unit, masked where the file has no value."""
    values, mask = decoded(field, raw), missing(field, raw)
    if name in MEASURED_REDSHIFTS and values.dtype.kind == "f":
        mask = values == NO_REDSHIFT
    unit = parse_unit(field.unit) or known.get(name)
    # A unit that nobody can read stays where a person can.
    description = field.unit or None if unit is None else None
    if mask is None or not mask.any():
        return Column(values, name, unit=unit, description=description)
    return MaskedColumn(values, name, mask=mask, unit=unit, description=description)
