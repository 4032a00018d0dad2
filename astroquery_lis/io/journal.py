"""The journal of a long job, a line per finished row, safe under kill at any moment; its manifest.

Rows that are finished together are written together: what a kill cuts off is done again, or found
where it was written.
The first line tells the call: a different call on the same journal is refused.  A last line that
was torn by a kill is cut off when the journal is opened again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..exceptions import CacheError, InvalidRequestError
from .jobs import AT_ONCE, FINAL, Result
from .whole_files import close_unlocked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from astropy.table import Table

    from .._typing import FilePath

RECORDED = tuple(f.name for f in fields(Result) if f.name != "error")
"""The attributes that are kept."""

_COLUMNS = {
    "local_path": "Local Path",
    "status": "Status",
    "message": "Message",
    "url": "URL",
    **{name: name for name in ("id", "release", "region", "bands", "seconds", "bytes", "sha256")},
}
_TYPES = {"row": np.int64, "seconds": float, "bytes": np.int64}


def manifest(results: Iterable[Result], *, more: Sequence[str] = ()) -> Table:
    """Return the table of what became of each row, with ``more`` attributes after the bands."""
    # Only here: workers do without it, and it takes a fifth of their start.
    from astropy.table import Table

    headings = [*_COLUMNS.items()]
    after_bands = list(_COLUMNS).index("bands") + 1
    headings[after_bands:after_bands] = [(name, name) for name in more]
    blocks: dict[str, list[np.ndarray]] = {name: [] for name in ("row", *dict(headings))}
    results = iter(results)
    # Short arrays of bytes: objects, or the four bytes of a letter of numpy, would be gigabytes.
    while (block := list(islice(results, AT_ONCE))) or not blocks["row"]:
        for name, arrays in blocks.items():
            arrays.append(_packed([getattr(result, name) for result in block], _TYPES.get(name)))
    rows = np.concatenate(blocks.pop("row"))
    # Of several results of a row the last counts.
    _, from_end = np.unique(rows[::-1], return_index=True)
    places = np.full(len(rows), -1)
    places[len(rows) - 1 - from_end] = np.arange(len(from_end))
    columns = {heading: _column(blocks[name], places) for name, heading in headings}
    return Table(columns, copy=False)


_PASS = "surrogatepass"
"""Names of files need not be text: their other bytes come as half a pair of UTF-16."""


def _packed(values: list[Any], dtype: type | None) -> np.ndarray:
    """Return values as an array, text as UTF-8."""
    if dtype is None and not (values and all(isinstance(value, int) for value in values)):
        return np.array([str(value).encode("utf-8", _PASS) for value in values], bytes)
    if dtype is None and max(values) > np.iinfo(np.int64).max:
        dtype = np.uint64  # numpy would take floats for them and smaller ones together
    return np.array(values, dtype)


def _column(arrays: list[np.ndarray], places: np.ndarray) -> np.ndarray:
    """Return a column of values that have places in it, or -1; each array is let go when used."""
    is_text = any(array.dtype.kind == "S" for array in arrays)
    dtype = (
        np.dtype(f"U{max(max(a.dtype.itemsize for a in arrays), 1)}")
        if is_text
        else max((array.dtype for array in arrays), key=lambda dtype: dtype.kind)
    )
    column = np.empty(places.max(initial=-1) + 1, dtype)
    start = 0
    while arrays:
        array = arrays.pop(0)
        where = places[start : start + len(array)]
        start += len(array)
        array = array[where >= 0]
        is_bytes = array.dtype.kind == "S"
        column[where[where >= 0]] = np.char.decode(array, "utf-8", _PASS) if is_bytes else array
    return column


try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FORMAT = 1


class Journal:
    """A file of results, appended to and flushed block by block. A context manager."""

    def __init__(self, path: FilePath, call: dict, *, parameter: str = "download_dir") -> None:
        self.path = Path(path)
        self.call = json.loads(json.dumps(call))
        self.finished: set[int] = set()
        """Rows with a final status, whose file, if they have one, is there."""
        self._parameter = parameter
        self._last_path = ("", False)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except OSError as error:
            msg = f"Cannot write the journal {self.path}: {error.strerror or error}."
            raise CacheError(msg, cause=error) from error
        try:
            self._lock()
            self._begin()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go; another process may take the job on."""
        # A line that could not be written was told already, and is tried again here.
        with suppress(OSError):
            close_unlocked(self._file)

    def append(self, *results: Result) -> None:
        """Write results; they survive the death of this process from here on."""
        self._write({name: getattr(result, name) for name in RECORDED} for result in results)
        self.finished.update(result.row for result in results if result.status in FINAL)

    def results(self) -> Iterator[Result]:
        """Yield every result in the order it was written; of several for a row, the last counts."""
        with open(self.path, "rb") as file:
            next(file, None)
            for line in file:
                result = _parse(line)
                if result is not None:
                    yield result

    def _write(self, records: Iterable[dict]) -> None:
        lines = "".join(f"{_ENCODER.encode(record)}\n" for record in records)
        try:
            self._file.write(lines.encode())
            self._file.flush()
        except OSError as error:
            msg = f"Cannot write the journal {self.path}: {error.strerror or error}."
            raise CacheError(msg, cause=error) from error

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"Another process is at work in {self.path.parent}; wait for it or stop it."
            raise InvalidRequestError(
                msg, parameter=self._parameter, value=str(self.path.parent)
            ) from error
        except OSError:  # a file system without locks
            return

    def _begin(self) -> None:
        """Compare the first line with the call and learn what is done."""
        self._file.seek(0)
        sound = 0
        header = None
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            if header is None:
                header = _parse_json(line)
                self._check(header)
            else:
                self._note(_parse(line))
            sound += len(line)
        # A line that has no end was being written when the process died.
        self._file.truncate(sound)
        self._file.seek(0, os.SEEK_END)
        if header is None:
            self._write([{"journal": FORMAT, "call": self.call}])

    def _note(self, result: Result | None) -> None:
        """Count a row as finished if its last result is final and its file is still there."""
        if result is None:
            return
        path = result.local_path
        if path and path != self._last_path[0]:
            self._last_path = path, os.path.exists(path)
        if result.status in FINAL and (not path or self._last_path[1]):
            self.finished.add(result.row)
        else:
            self.finished.discard(result.row)

    def _check(self, header: Any) -> None:
        """Refuse a journal that is not of this call."""
        if not isinstance(header, dict) or header.get("journal") != FORMAT:
            msg = f"{self.path} is not a journal of this version; take another folder."
            raise InvalidRequestError(msg, parameter=self._parameter, value=str(self.path.parent))
        before = header.get("call", {})
        names = [
            name
            for name in dict.fromkeys([*before, *self.call])
            if before.get(name) != self.call.get(name)
        ]
        if names:
            differences = "; ".join(
                f"{name} was {_short(before.get(name))} and is now {_short(self.call.get(name))}"
                for name in names
            )
            msg = (
                f"{self._parameter}={str(self.path.parent)!r} holds another job: {differences}. "
                "Take another folder, or repeat that call to continue it."
            )
            raise InvalidRequestError(msg, parameter=names[0], value=self.call.get(names[0]))


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(value: Any) -> object:
    """Return a numpy scalar as Python's own."""
    return value.item()


_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_plain)


def _parse_json(line: bytes) -> object:
    with suppress(ValueError):
        return json.loads(line)
    return None


def _parse(line: bytes) -> Result | None:
    """Return the result of a line; `None` for one that is no result."""
    record: Any = _parse_json(line)
    with suppress(TypeError):
        return Result(**record)
    return None
