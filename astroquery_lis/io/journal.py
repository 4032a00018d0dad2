"""The journal of a long job, a line per finished row, safe under kill at any moment; its manifest.

Rows that are finished together are written together: what a kill cuts off is done again, or found
where it was written.
The first line tells the call: a different call on the same journal is refused.  A last line that
was torn by a kill is cut off when the journal is opened again.
"""

from __future__ import annotations

import json
import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from io import BytesIO
from itertools import islice
from mmap import ACCESS_COPY, mmap
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ..exceptions import CacheError, InvalidRequestError
from .jobs import AT_ONCE, FINAL, Result
from .whole_files import check_space, close_unlocked, take_lock

if TYPE_CHECKING:
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
_WHOLE = (np.dtype(np.int64), np.dtype(np.uint64))
_NUMBERS = {"seconds": np.dtype(float), "bytes": np.dtype(np.int64)}

IN_MEMORY_BYTES = 1 << 24
"""Largest manifest of a job that is kept in memory."""

READ_ONCE_BYTES = 1 << 22
"""Largest journal whose results are all in memory while the manifest is made."""


def manifest(results: Sequence[Result]) -> Table:
    """Return the table of what became of each row."""
    return _table(enumerate(results), results.__getitem__, [*_COLUMNS], None)


def _table(
    numbered: Iterable[tuple[int, Result]],
    result_at: Callable[[int], Result],
    names: Sequence[str],
    folder: Path | None,
) -> Table:
    """Return the manifest of results that can be had again by their numbers.

    Text takes numpy four bytes for each letter of the longest, over a kilobyte a row: with a
    folder, a large table is in a file without a name there, and what is looked at is read from it.
    """
    # Only here: workers do without it, and it takes a fifth of their start.
    from astropy.table import Table

    order, dtypes = _order_and_types(numbered, result_at, names)
    size = len(order) * sum(dtype.itemsize for dtype in dtypes.values())
    columns: mmap | memoryview | None = None
    if folder is not None and size > IN_MEMORY_BYTES:
        # Where there is no room it has to do with memory.
        with suppress(OSError):
            with _nameless(folder, size) as file:
                starts = _write_columns(file, order, dtypes, result_at)
                file.flush()
                mapped = mmap(file.fileno(), 0, access=ACCESS_COPY)
            # Some disks tell only at the end that they had no room.
            columns = mapped
    if columns is None:
        memory = BytesIO()
        starts = _write_columns(memory, order, dtypes, result_at)
        columns = memory.getbuffer()
    shape = (len(order),)
    arrays = {
        _COLUMNS.get(name, name): np.ndarray(shape, dtype, columns, starts[name])
        for name, dtype in dtypes.items()
    }
    return Table(arrays, copy=False)


def _nameless(folder: Path, size: int) -> IO[bytes]:
    """Open a file without a name there, or where the system has its own if there can be none."""
    if hasattr(os, "O_TMPFILE"):
        with suppress(OSError):
            check_space(folder, size)
            return open(os.open(folder, os.O_RDWR | os.O_TMPFILE, 0o600), "w+b")
    check_space(Path(gettempdir()), size)
    return TemporaryFile()


def _order_and_types(
    numbered: Iterable[tuple[int, Result]],
    result_at: Callable[[int], Result],
    names: Sequence[str],
) -> tuple[np.ndarray, dict[str, np.dtype]]:
    """Return the numbers of the last result of each row, by row, and what holds each column."""
    rows, numbers = array("q"), array("q")
    widths = {name: 1 for name in names if name not in _NUMBERS}
    least_id, largest_id = math.inf, -math.inf
    numbered = iter(numbered)
    while block := list(islice(numbered, AT_ONCE)):
        results = [result for _, result in block]
        rows.extend(result.row for result in results)
        numbers.extend(number for number, _ in block)
        for name, width in widths.items():
            texts = map(str, map(attrgetter(name), results))
            widths[name] = max(width, max(map(len, texts)))
        ids = [r.id if isinstance(r.id, int) else math.inf for r in results]
        least_id, largest_id = min(least_id, *ids), max(largest_id, *ids)
    _, from_end = np.unique(np.array(rows, int)[::-1], return_index=True)
    order = np.array(numbers, int)[::-1][from_end]
    if len(order) < len(rows):
        # What was done again must not make the columns wide.
        lasting = ((number, result_at(number)) for number in order.tolist())
        return _order_and_types(lasting, result_at, names)
    dtypes = {name: _NUMBERS.get(name) or np.dtype(f"U{widths[name]}") for name in names}
    if rows:
        fitting = (
            d for d in _WHOLE if np.iinfo(d).min <= least_id and largest_id <= np.iinfo(d).max
        )
        dtypes["id"] = next(fitting, dtypes["id"])
    return order, dtypes


def _write_columns(
    file: IO[bytes],
    order: np.ndarray,
    dtypes: dict[str, np.dtype],
    result_at: Callable[[int], Result],
) -> dict[str, int]:
    """Write one column after the other, some rows at a time; return where each begins."""
    starts, end = {}, 0
    for name, dtype in dtypes.items():
        starts[name] = end
        end += -(-len(order) * dtype.itemsize // 8) * 8
    for first in range(0, len(order), AT_ONCE):
        block = [result_at(number) for number in order[first : first + AT_ONCE].tolist()]
        for name, dtype in dtypes.items():
            values = [getattr(result, name) for result in block]
            if dtype.kind == "U":
                values = [str(value) for value in values]
            file.seek(starts[name] + first * dtype.itemsize)
            file.write(np.array(values, dtype).tobytes())
    return starts


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
        return (result for _, result in self._placed())

    def manifest(self, *more: str) -> Table:
        """Return the table of what became of each row, with ``more`` attributes after the bands."""
        names = [*_COLUMNS]
        names[names.index("seconds") : names.index("seconds")] = more
        if self.path.stat().st_size < READ_ONCE_BYTES:
            results = list(self.results())
            return _table(enumerate(results), results.__getitem__, names, self.path.parent)
        with self.path.open("rb") as file:

            def result_at(place: int) -> Result:
                file.seek(place)
                return Result(**json.loads(file.readline()))

            return _table(self._placed(), result_at, names, self.path.parent)

    def _placed(self) -> Iterator[tuple[int, Result]]:
        """Yield where in the file each result is, and the result."""
        with self.path.open("rb") as file:
            place = len(next(file, b""))
            for line in file:
                result = _parse(line)
                if result is not None:
                    yield place, result
                place += len(line)

    def _write(self, records: Iterable[dict]) -> None:
        lines = "".join(f"{_ENCODER.encode(record)}\n" for record in records)
        try:
            self._file.write(lines.encode())
            self._file.flush()
        except OSError as error:
            msg = f"Cannot write the journal {self.path}: {error.strerror or error}."
            raise CacheError(msg, cause=error) from error

    def _lock(self) -> None:
        if not take_lock(self._file):
            msg = f"Another process is at work in {self.path.parent}; wait for it or stop it."
            raise InvalidRequestError(msg, parameter=self._parameter, value=str(self.path.parent))

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
