"""One Tractor file on disk: positions first, then just the rows and columns that are wanted.

Where the columns lie in a row, and a digest of every row's position, are kept in a sidecar in the
cache; with it a repeated query reads neither the FITS header nor a single row that it does not
return.
"""

import json
import os
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from astropy.io import fits

from ..exceptions import TruncatedError, UnexpectedContentError
from ..io.checks import check_head
from ..io.store import write_whole

__all__ = ["POSITIONS", "OpenTables", "TractorFile", "open_table"]

SIDECAR_VERSION = 1
BLOCK_BYTES = 2880
FEW_COLUMNS = 16
FEW_ROWS = 128
POSITIONS = np.dtype([("ra", "<f8"), ("dec", "<f8"), ("primary", "?"), ("duplicate", "?")])
"""Fields of the sidecar: position, BRICK_PRIMARY, and whether the type is DUP."""

_FORMATS = {"B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "L": "S1"}

# What astropy raises for a header that is not one.
_HEADER_ERRORS = (OSError, EOFError, ValueError, TypeError, KeyError, IndexError)


@dataclass
class TractorFile:
    """Where everything is in one file, and the positions of its rows."""

    path: Path
    n_rows: int
    row_bytes: int
    data_offset: int
    fields: dict
    positions: np.ndarray | None = field(default=None, repr=False)  # of type `POSITIONS`

    def read(self, rows, names):
        """Read columns of some rows."""
        names = [name for name in names if name in self.fields]
        if not len(rows) or not names:
            return {name: self._empty(name) for name in names}
        if len(names) <= FEW_COLUMNS:
            # Few columns are picked from the file itself; for many, whole rows cost no more.
            lines = self._mapped()
        else:
            lines, rows = self._lines(rows), slice(None)
        columns = lines.view(self._row_type)[:, 0]
        return {name: _native(columns[name][rows], self.fields[name][1]) for name in names}

    @cached_property
    def _row_type(self):
        """The numpy type of a whole row."""
        offsets, kinds, lengths, _ = zip(*self.fields.values(), strict=True)
        return np.dtype(
            {
                "names": list(self.fields),
                "formats": [
                    kind if length == 1 else (kind, (length,))
                    for kind, length in zip(kinds, lengths, strict=True)
                ],
                "offsets": offsets,
                "itemsize": self.row_bytes,
            }
        )

    def _mapped(self):
        """Return the table as it is in the file: bytes, by row."""
        shape = (self.n_rows, self.row_bytes)
        return np.asarray(np.memmap(self.path, np.uint8, "r", self.data_offset, shape))

    def _lines(self, rows):
        """Return a copy of whole rows: bytes, by row."""
        if len(rows) > FEW_ROWS:
            return self._mapped()[rows]
        # To map the file takes longer than to read few rows of it.
        with self.path.open("rb", buffering=0) as stream:
            lines = []
            for row in rows.tolist():
                stream.seek(self.data_offset + row * self.row_bytes)
                lines.append(stream.read(self.row_bytes))
        return np.frombuffer(b"".join(lines), np.uint8).reshape(len(rows), self.row_bytes)

    def _empty(self, name):
        _, kind, length, _ = self.fields[name]
        shape = (0,) if length == 1 else (0, length)
        return _native(np.empty(shape, kind), kind)


def _native(values, kind):
    if kind == "S1":
        return values == b"T"
    if kind[0] == "S":
        return np.char.rstrip(values).astype(f"U{kind[1:]}")
    return values.astype(values.dtype.newbyteorder("="))


class OpenTables:
    """The tables used last, so that a repeated query does not read even the sidecar."""

    def __init__(self, limit=64):
        self._limit = limit
        self._lock = threading.Lock()
        self._tables = OrderedDict()

    def __getstate__(self):
        return {"_limit": self._limit}

    def __setstate__(self, state):
        self.__init__(state["_limit"])

    def get(self, key):
        """Return the table held under ``key``, or `None`."""
        with self._lock:
            if key in self._tables:
                self._tables.move_to_end(key)
            return self._tables.get(key)

    def put(self, key, table):
        """Hold a table; the one used longest ago is let go."""
        with self._lock:
            self._tables[key] = table
            self._tables.move_to_end(key)
            while len(self._tables) > self._limit:
                self._tables.popitem(last=False)

    def clear(self):
        """Let every table go."""
        with self._lock:
            self._tables.clear()


def open_table(path, sidecars=None, held=None):
    """Open a Tractor file."""
    path = Path(path)
    status = os.stat(path)
    stamp = f"{status.st_mtime_ns}-{status.st_size}"
    key = (str(path), stamp)
    table = held.get(key) if held is not None else None
    if table is not None:
        return table
    table = _from_sidecar(path, sidecars, stamp)
    if table is None:
        table = _parse(path, status.st_size)
        if sidecars is not None:
            _keep(table, Path(sidecars), stamp)
    if held is not None:
        held.put(key, table)
    return table


def _from_sidecar(path, sidecars, stamp):
    """Return the table as an earlier call described it, or `None`."""
    if sidecars is None:
        return None
    try:
        note = json.loads(Path(sidecars, f"{stamp}.json").read_text())
        if note.pop("version") != SIDECAR_VERSION:
            return None
        positions = np.load(Path(sidecars, f"{stamp}.npy"), allow_pickle=False)
        table = TractorFile(path=path, positions=positions, **note)
    except (OSError, ValueError, TypeError, KeyError, EOFError):
        return None
    return table if positions.dtype == POSITIONS and len(positions) == table.n_rows else None


def _keep(table, sidecars, stamp):
    """Write the sidecar, if it can be written; without it the next query is slower, no more."""
    note = {
        "version": SIDECAR_VERSION,
        "n_rows": table.n_rows,
        "row_bytes": table.row_bytes,
        "data_offset": table.data_offset,
        "fields": table.fields,
    }
    with suppress(OSError):
        with write_whole(sidecars / f"{stamp}.npy") as temporary, temporary.open("wb") as stream:
            np.save(stream, table.positions, allow_pickle=False)
        with write_whole(sidecars / f"{stamp}.json") as temporary:
            temporary.write_text(json.dumps(note))
        for old in sidecars.iterdir():
            if old.suffix in (".npy", ".json") and old.stem != stamp:
                old.unlink(missing_ok=True)


def _parse(path, size):
    """Read the header and the positions of a file."""
    try:
        header, data_offset = _table_header(path)
        table = TractorFile(
            path, header["NAXIS2"], header["NAXIS1"], data_offset, _fields(header, path)
        )
    except _HEADER_ERRORS as error:
        msg = f"{path} cannot be read as a FITS table: {error}."
        raise UnexpectedContentError(msg, url=str(path), cause=error) from error
    due = table.data_offset + table.n_rows * table.row_bytes
    if size < due:
        msg = f"{path} has {size} bytes; its table needs {due}."
        raise TruncatedError(msg, url=str(path))
    lacking = [n for n in ("ra", "dec", "brickid", "objid") if n not in table.fields]
    if lacking:
        msg = f"{path} is not a Tractor catalogue: it has no {', '.join(lacking)}."
        raise UnexpectedContentError(msg, url=str(path))
    table.positions = _positions(table)
    return table


def _table_header(path):
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


def _fields(header, path):
    fields, offset = {}, 0
    for number in range(1, header["TFIELDS"] + 1):
        form = header[f"TFORM{number}"].strip()
        digits = len(form) - len(form.lstrip("0123456789"))
        repeat, letter = int(form[:digits] or 1), form[digits]
        scaled = header.get(f"TSCAL{number}", 1) != 1 or header.get(f"TZERO{number}", 0) != 0
        if scaled or (letter != "A" and letter not in _FORMATS):
            name = header[f"TTYPE{number}"]
            msg = f"{path} has a column {name} of a kind that Tractor files do not have ({form})."
            raise UnexpectedContentError(msg, url=str(path))
        kind = f"S{repeat}" if letter == "A" else _FORMATS[letter]
        length = 1 if letter == "A" else repeat
        if repeat:
            name = header[f"TTYPE{number}"].strip().lower()
            fields[name] = (offset, kind, length, header.get(f"TUNIT{number}", ""))
        offset += np.dtype(kind).itemsize * length if repeat else 0
    return fields


def _positions(table):
    positions = np.zeros(table.n_rows, POSITIONS)
    columns = table.read(np.arange(table.n_rows), ("ra", "dec", "brick_primary", "type"))
    positions["ra"], positions["dec"] = columns["ra"], columns["dec"]
    positions["primary"] = columns.get("brick_primary", True)
    if "type" in columns:
        positions["duplicate"] = columns["type"] == "DUP"
    return positions
