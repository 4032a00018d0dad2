"""What a command says: results on stdout, all else on stderr, or JSON; tables as bytes of files."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from astropy import log
from astropy import units as u
from astropy.io import ascii as text_tables
from astropy.table import Column, Table
from astropy.utils.exceptions import AstropyWarning

from .._packages import import_optional
from ..client.position_columns import without_unit_warnings
from ..client.user_tables import UNIT, as_kind, kind_of
from ..exceptions import CrdsUnavailable, InvalidRequestError, NoCoverageError, TransferError
from ..io.whole_files import write_whole

if TYPE_CHECKING:
    from argparse import Namespace

    from astropy.io.fits import HDUList
    from astropy.table import Row


PREFIX = "astroquery-lis: "


class Exit(IntEnum):
    """How a command ends."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOTHING = 3
    TRANSFER = 4
    PARTIAL = 5
    INTERRUPTED = 130
    PIPE = 141


HELP = """\
exit codes:
  0  all went well
  1  another failure: a disk is full, a package is missing
  2  the words or the input are wrong; nothing was sent
  3  the survey has no data there
  4  a service is down, a transfer failed, or reference files cannot be had
  5  some rows failed
"""

DONE = frozenset({"COMPLETE", "CACHED", "NODATA"})
CODES: tuple[tuple[type[Exception], int], ...] = (
    (TransferError, Exit.TRANSFER),
    (CrdsUnavailable, Exit.TRANSFER),
    (InvalidRequestError, Exit.USAGE),
    (NoCoverageError, Exit.NOTHING),
)


def code_of_error(error: Exception) -> int:
    """Return the exit code of an error."""
    return next((code for kind, code in CODES if isinstance(error, kind)), Exit.FAILED)


def code_of_statuses(statuses: Collection[str]) -> int:
    """Return the exit code of a long job; a row without data is no failure unless all are."""
    kinds = set(statuses)
    if not kinds - DONE:
        return Exit.NOTHING if kinds == {"NODATA"} else Exit.OK
    return Exit.PARTIAL if kinds & DONE else Exit.TRANSFER


def counted(statuses: Iterable[object]) -> str:
    """Return how many there are of each."""
    counts = Counter(sorted(map(str, statuses)))
    return ", ".join(f"{number} {status}" for status, number in counts.items())


class Console:
    """Where a command puts what it has to say; ``document`` is what the JSON document will hold."""

    def __init__(self, options: Namespace) -> None:
        self.json, self.quiet = options.json, options.quiet
        self.document: dict[str, Any] = {"command": options.command, "exit_code": 0}
        self.failed = False
        self._warnings: list[str] = []

    @property
    def shows_waiting(self) -> bool:
        """Whether it may be told how long something takes, in lines or bars."""
        return not (self.quiet or self.json)

    @property
    def progress(self) -> bool:
        """Whether bars are wanted; they need a terminal besides."""
        return self.shows_waiting and sys.stderr.isatty()

    # ---- stderr ---------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Say something that is no result."""
        if not self.quiet:
            self._say(text)

    def fail(self, text: str) -> None:
        """Say why there is no result, once."""
        if not self.failed:
            self.failed = True
            self._say(text)

    def warn(self, text: object) -> None:
        """Say a warning, once, on one line."""
        line = " ".join(str(text).split())
        if line not in self._warnings:
            self._warnings.append(line)
            self.note(f"warning: {line}")

    def _say(self, text: str) -> None:
        print(f"{PREFIX}{' '.join(text.split())}", file=sys.stderr, flush=True)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Turn warnings and log messages into lines of this console, for a while."""
        handler = _Lines(self)
        root = logging.getLogger()
        before = log.handlers[:], log.propagate
        log.handlers[:], log.propagate = [handler], False
        root.addHandler(handler)
        try:
            with warnings.catch_warnings():
                warnings.resetwarnings()
                warnings.simplefilter("ignore")
                for kind in (UserWarning, RuntimeWarning, AstropyWarning):
                    warnings.simplefilter("always", kind)
                warnings.showwarning = lambda message, *_, **__: self.warn(message)
                yield
        finally:
            root.removeHandler(handler)
            log.handlers[:], log.propagate = before

    # ---- stdout ---------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        """Print a line of the result."""
        if not self.json:
            print(text)

    def lines(self, texts: Iterable[str]) -> None:
        """Print several."""
        for text in texts:
            self.line(text)

    def step(self, text: str) -> None:
        """Print what is being done, at once, through a pipe as well."""
        self.line(text)
        sys.stdout.flush()

    def put(self, **values: Any) -> None:
        """Add something to the JSON document."""
        self.document.update(values)

    def payload(self, payload: Any) -> int:
        """Print what would be asked, and return the exit code."""
        self.put(payload=payload)
        self.lines(_payload_lines(payload))
        return Exit.OK

    def table(self, table: Table, options: Namespace, *, lines: list[str] | None = None) -> int:
        """Print or write a table, as the options say; ``lines`` are shown without a format."""
        if options.result not in (None, "-"):
            data = table_bytes(table, options.format)
            with write_whole(options.result) as temporary:
                temporary.write_bytes(data)
            self.put(path=options.result, n_rows=len(table))
            self.note(f"{len(table)} rows in {options.result}")
        elif self.json:
            self.put(n_rows=len(table), **json_table(table))
        elif options.format:
            self.write_stdout(table_bytes(table, options.format))
        else:
            self.lines(text_lines(table) if lines is None else lines)
        return Exit.OK if len(table) else Exit.NOTHING

    def manifest(
        self,
        table: Table,
        options: Namespace,
        *,
        summary: bool = False,
        noun: str = "files",
        code: Callable[[Collection[str]], int] = code_of_statuses,
    ) -> int:
        """Show or write what became of each row of a long job, and return the exit code."""
        counts = Counter(sorted(map(str, table["Status"])))
        self.put(counts=dict(counts))
        self.table(table, options, lines=[_line_of_manifest(row) for row in table])
        if summary:
            self.note(f"{len(table)} {noun}: {counted(table['Status']) or 'there are none'}")
        return code(counts)

    def hdul(self, hdul: HDUList, path: str) -> None:
        """Write a FITS file, and say where; ``-`` is standard output."""
        if path == "-":
            stream = io.BytesIO()
            hdul.writeto(stream)
            self.write_stdout(stream.getvalue())
        else:
            with write_whole(path) as temporary:
                hdul.writeto(temporary, overwrite=True)
            self.wrote(path)

    def binary(self, data: bytes, path: str) -> None:
        """Write a file of bytes, and say where; ``-`` is standard output."""
        if path == "-":
            self.write_stdout(data)
        else:
            with write_whole(path) as temporary:
                temporary.write_bytes(data)
            self.wrote(path)

    def wrote(self, path: str) -> None:
        """Say where a file is."""
        self.line(path)
        self.put(path=path)

    def write_stdout(self, data: bytes) -> None:
        """Write bytes to standard output."""
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def finish(self, exit_code: int, error: Exception | None = None) -> None:
        """Print the JSON document, if it is wanted."""
        if self.json:
            self.document["exit_code"] = exit_code
            self.document["warnings"] = self._warnings
            if error is not None:
                self.document["error"] = {
                    "type": type(error).__name__,
                    "message": str(error),
                    "url": getattr(error, "url", None),
                    "status": getattr(error, "status", None),
                }
            print(json.dumps(_plain(self.document), allow_nan=False))


class _Lines(logging.Handler):
    """Log messages as lines: those of this package as notes, warnings of others as warnings."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.name.startswith("urllib3"):
            # It tells of every repetition; the error or the result says what comes of them.
            return
        if record.levelno >= logging.WARNING:
            self._console.warn(text)
        elif record.name == "astropy":
            self._console.note(text)


def check_output(options: Namespace) -> None:
    """Refuse an output that cannot be, before anything is asked of the survey."""
    is_binary = _check_table(options) if hasattr(options, "format") else _check_file(options)
    if options.result not in (None, "-"):
        _check_path(options.result, options)
    elif is_binary and sys.stdout.isatty():
        _refuse("-o", "bytes are not for a terminal; name a file, or use a pipe.")


def _check_path(path: str, options: Namespace) -> None:
    """Refuse a file that cannot be written."""
    if os.path.isdir(path):
        _refuse("-o", f"{path} is a directory.")
    if os.path.lexists(path) and not options.replace:
        _refuse("-o", f"{path} exists; {options.replace_option} replaces it.")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        _refuse("-o", f"there is no directory {folder}.")


def _check_table(options: Namespace) -> bool:
    """Settle the format, refuse one that cannot be, and return whether bytes come of it."""
    path, is_shown = options.result, options.result in (None, "-")
    options.format = as_kind(options.format)
    if options.json and is_shown and (options.format or path):
        _refuse("--json", "is a format of its own; leave out --format and -o -.")
    if path is not None and not options.format:
        options.format = "ecsv" if is_shown else kind_of(path)
        if options.format is None:
            _refuse("-o", f"{path}: the name says no format; give --format.")
    return options.format in ("fits", "parquet")


def _check_file(options: Namespace) -> bool:
    """Refuse two results on standard output, and return whether it gets bytes."""
    is_shown = options.result == "-"
    if options.json and is_shown:
        _refuse("--json", "cannot go to standard output together with -o -.")
    return is_shown


def _refuse(option: str, must: str) -> NoReturn:
    msg = f"{option}: {must}"
    raise InvalidRequestError(msg, parameter=option)


def _payload_lines(payload: Any) -> list[str]:
    """Return the addresses, the query or else the parameters that would be sent."""
    if isinstance(payload, Mapping):
        payload = payload.get("urls") or payload.get("query") or payload.get("params", payload)
    if isinstance(payload, Mapping):
        return [f"{name}={value}" for name, value in payload.items()]
    return [payload] if isinstance(payload, str) else payload


def _line_of_manifest(row: Row) -> str:
    """Return the line that tells of one row: the file, or why there is none."""
    message = " ".join(str(row["Message"]).split())
    path = str(row["Local Path"])
    # What was not made has no path; a task has a name all the same.
    name = path or (f"{row['task']}:" if "task" in row.colnames else "")
    return " ".join([f"{row['Status']:<9s}", name, *([message] if not path else [])]).rstrip()


def _plain(value: Any) -> object:
    """Return a value as JSON has it."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _plain_scalar(value)


def _plain_scalar(value: object) -> str | float | None:
    """Return what JSON has for a number, which is nothing if it is none, or a text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


# ---- tables ------------------------------------------------------------------------------------


def table_bytes(table: Table, kind: str) -> bytes:
    """Return a table as the bytes of a file."""
    try:
        return _WRITERS[kind](table)
    except (ValueError, TypeError) as error:
        msg = f"format {kind!r} cannot hold this table: {error}"
        raise InvalidRequestError(msg, parameter="format", value=kind) from error


def _lines_bytes(table: Table) -> bytes:
    return "".join(f"{line}\n" for line in text_lines(table)).encode()


def _text_bytes(table: Table, kind: str) -> bytes:
    text = io.StringIO()
    text_tables.write(table, text, format=kind)
    return text.getvalue().encode()


def _unified_bytes(table: Table, kind: str, meta: dict[str, object]) -> bytes:
    """Return the bytes that the writers of `~astropy.table.Table` make, with other meta data."""
    table = table.copy(copy_data=False)
    table.meta = meta
    for column in table.itercols():
        _name_unit(column)
    stream = io.BytesIO()
    with without_unit_warnings():
        table.write(stream, format=kind)
    return stream.getvalue()


def _flat(meta: Mapping[str, object]) -> dict[str, object]:
    """Return what of the meta data a FITS header can hold."""
    flat: dict[str, object] = {}
    for name, value in meta.items():
        if isinstance(value, (list, tuple)):
            value = " ".join(map(str, value))
        if isinstance(value, (str, int, float, bool)):
            flat[name.upper()[:8]] = " ".join(value.split()) if isinstance(value, str) else value
    return flat


def _spread(table: Table) -> Table:
    """Return a table with a column for each value of columns that hold several to a row."""
    spread = Table()
    for name in table.colnames:
        column = table[name]
        if getattr(column, "ndim", 1) == 2:
            for number in range(column.shape[1]):
                spread[f"{name}_{number + 1}"] = column[:, number]
        else:
            spread[name] = column
    return spread


def _name_unit(column: Column) -> None:
    """Call a unit that the format does not know as the survey's own files do."""
    text = str(getattr(column, "unit", None) or "")
    if "nmgy" in text:
        text = re.sub(r"nmgy(\d)", r"nanomaggy^\1", text).replace("nmgy", "nanomaggy")
        column.unit = u.UnrecognizedUnit(text.replace(" ", ""))


def text_lines(table: Table) -> list[str]:
    """Return the lines of a table as they are shown."""
    kinds = [getattr(table[name], "dtype", np.dtype("U")).kind for name in table.colnames]
    align = [">" if kind in "iuf" else "<" for kind in kinds]
    lines = table.pformat(max_lines=-1, max_width=-1, align=align)
    return [line.rstrip() for line in lines]


def json_table(table: Table) -> dict[str, object]:
    """Return units, meta data and rows of a table as values that JSON has."""
    columns = {name: getattr(table[name], "unit", None) for name in table.colnames}
    units = {name: str(unit) for name, unit in columns.items() if unit}
    values = [_values(table[name]) for name in table.colnames]
    rows = [dict(zip(table.colnames, row, strict=True)) for row in zip(*values, strict=True)]
    return {"units": units, "meta": table.meta, "rows": rows}


def _values(column: Column) -> list:
    if hasattr(column, "ra"):
        return column.to_string("decimal", precision=8)
    data = getattr(column, "value", column)
    return np.ma.asarray(data).tolist()


# ---- Parquet, by pyarrow alone: astropy's reader needs pandas besides ----------------------------


def parquet_bytes(table: Table) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    pyarrow = import_optional("pyarrow", "parquet", "A Parquet table")
    parquet = import_module("pyarrow.parquet")
    arrays, fields = [], []
    for name in table.colnames:
        column = table[name]
        if not isinstance(column, Column):
            msg = f"column {name} is a {type(column).__name__}"
            raise TypeError(msg)
        values, mask = _arrow_values(column)
        array = pyarrow.array(values, mask=mask)
        metadata = {UNIT: str(column.unit).encode()} if column.unit is not None else None
        arrays.append(array)
        fields.append(pyarrow.field(name, array.type, metadata=metadata))
    stream = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays, schema=pyarrow.schema(fields)), stream)
    return stream.getvalue()


def _arrow_values(column: Column) -> tuple[list | np.ndarray, np.ndarray | None]:
    """Return the values of a column as Arrow takes them, and which are missing."""
    data = np.ma.getdata(column)
    if data.dtype.kind in "SU":
        data = data.astype(str)
    if data.ndim > 1:
        return data.tolist(), None
    mask = np.ma.getmaskarray(np.ma.asarray(column))
    # Arrow has the byte order of the machine only, and texts of any length.
    is_text = data.dtype.kind == "U"
    return data.tolist() if is_text else data.astype(data.dtype.newbyteorder("=")), mask


# What makes the bytes of a table, by format.
_WRITERS: dict[str, Callable[[Table], bytes]] = {
    "text": _lines_bytes,
    "ecsv": partial(_text_bytes, kind="ecsv"),
    "csv": lambda table: _text_bytes(_spread(table), "csv"),
    "fits": lambda table: _unified_bytes(table, "fits", _flat(table.meta)),
    "votable": partial(_unified_bytes, kind="votable", meta={}),
    "parquet": parquet_bytes,
}
