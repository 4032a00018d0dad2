"""What a command says: results on stdout, all else on stderr, or one JSON document; exit codes."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from astropy import log
from astropy.utils.exceptions import AstropyWarning

from ..client.user_tables import as_kind, kind_of
from ..exceptions import CrdsUnavailable, InvalidRequestError, NoCoverageError, TransferError
from ..io.whole_files import write_whole
from .tables import json_rows, table_bytes, text_lines

if TYPE_CHECKING:
    from argparse import Namespace

    from astropy.io.fits import HDUList
    from astropy.table import Row, Table

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
        if isinstance(payload, Mapping):
            payload = payload.get("urls") or payload.get("query") or payload.get("params", payload)
        if isinstance(payload, Mapping):
            payload = [f"{name}={value}" for name, value in payload.items()]
        for text in [payload] if isinstance(payload, str) else payload:
            self.line(text)
        return Exit.OK

    def table(self, table: Table, options: Namespace, *, lines: list[str] | None = None) -> int:
        """Print or write a table, as the options say; ``lines`` are shown without a format."""
        if options.result not in (None, "-"):
            data = table_bytes(table, options.format or kind_of(options.result))
            with write_whole(options.result) as temporary:
                temporary.write_bytes(data)
            self.put(path=options.result, n_rows=len(table))
            self.note(f"{len(table)} rows in {options.result}")
        elif self.json:
            columns = {name: getattr(table[name], "unit", None) for name in table.colnames}
            units = {name: str(unit) for name, unit in columns.items() if unit}
            self.put(n_rows=len(table), units=units, meta=table.meta, rows=json_rows(table))
        elif options.format or options.result == "-":
            self.write_stdout(table_bytes(table, options.format or "ecsv"))
        else:
            for text in text_lines(table) if lines is None else lines:
                self.line(text)
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
    path = options.result
    is_binary = _check_format(options)
    if path in (None, "-"):
        if is_binary and sys.stdout.isatty():
            _refuse("-o", "bytes are not for a terminal; name a file, or use a pipe.")
        return
    if os.path.isdir(path):
        _refuse("-o", f"{path} is a directory.")
    if os.path.lexists(path) and not options.replace:
        _refuse("-o", f"{path} exists; {options.replace_option} replaces it.")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        _refuse("-o", f"there is no directory {folder}.")


def _check_format(options: Namespace) -> bool:
    """Refuse a format that cannot be, and return whether bytes come of it."""
    path = options.result
    if hasattr(options, "format"):
        as_kind(options.format)
        if options.json and (options.format or path == "-") and path in (None, "-"):
            _refuse("--json", "is a format of its own; leave out --format and -o -.")
        if path not in (None, "-") and not (options.format or kind_of(path)):
            _refuse("-o", f"{path}: the name says no format; give --format.")
        return (options.format or "ecsv") in ("fits", "parquet")
    if options.json and path == "-":
        _refuse("--json", "cannot go to standard output together with -o -.")
    return path == "-"


def _refuse(option: str, must: str) -> NoReturn:
    msg = f"{option}: {must}"
    raise InvalidRequestError(msg, parameter=option)


def _line_of_manifest(row: Row) -> str:
    """Return the line that tells of one row: the file, or why there is none."""
    message = " ".join(str(row["Message"]).split())
    path = str(row["Local Path"])
    # What was not made has no path; a task has a name all the same.
    name = path or (f"{row['task']}:" if "task" in row.colnames else "")
    return " ".join([f"{row['Status']:<9s}", name, *([message] if not path else [])]).rstrip()


def _plain(value: Any) -> object:
    """Return a value as JSON has it: what is not a number is `None`."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (str, int)) else str(value)
