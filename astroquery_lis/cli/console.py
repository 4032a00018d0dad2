"""What a command says: results on stdout, all else on stderr, or one JSON document."""

import io
import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Mapping
from contextlib import contextmanager

import numpy as np
from astropy import log
from astropy.utils.exceptions import AstropyWarning

from ..exceptions import InvalidRequestError
from ..io.store import write_whole
from .tables import as_kind, json_rows, kind_of, table_bytes, text_lines

__all__ = ["Console", "check_output"]

PREFIX = "astroquery-lis: "


class Console:
    """Where a command puts what it has to say.

    Parameters
    ----------
    options : `~argparse.Namespace`
        Of the command.

    Attributes
    ----------
    document : dict
        What the JSON document will hold.
    """

    def __init__(self, options):
        self.json, self.quiet = options.json, options.quiet
        self.document = {"command": options.command, "exit_code": 0}
        self.failed = False
        self._warnings = []

    @property
    def progress(self):
        """Whether bars are wanted; they need a terminal besides."""
        return not (self.quiet or self.json) and sys.stderr.isatty()

    # ---- stderr ---------------------------------------------------------------------------------

    def note(self, text):
        """Say something that is no result."""
        if not self.quiet:
            self._tell(text)

    def fail(self, text):
        """Say why there is no result, once."""
        if not self.failed:
            self.failed = True
            self._tell(text)

    def warn(self, text):
        """Say a warning, once, on one line."""
        text = " ".join(str(text).split())
        if text not in self._warnings:
            self._warnings.append(text)
            self.note(f"warning: {text}")

    def _tell(self, text):
        print(f"{PREFIX}{' '.join(text.split())}", file=sys.stderr, flush=True)

    @contextmanager
    def listening(self):
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
                warnings.showwarning = self._showwarning
                yield
        finally:
            root.removeHandler(handler)
            log.handlers[:], log.propagate = before

    def _showwarning(self, message, category, filename, lineno, file=None, line=None):
        self.warn(message)

    # ---- stdout ---------------------------------------------------------------------------------

    def line(self, text):
        """Print a line of the result."""
        if not self.json:
            print(text)

    def put(self, **values):
        """Add something to the JSON document."""
        self.document.update(values)

    def table(self, table, options, *, lines=None):
        """Print or write a table, as the options say.

        Parameters
        ----------
        table : `~astropy.table.Table`
            The result.
        options : `~argparse.Namespace`
            With ``output``, ``format`` and ``overwrite``.
        lines : list of str, optional
            What is shown in place of the table where no format was asked for.
        """
        if options.output not in (None, "-"):
            kind = options.format or kind_of(options.output)
            data = table_bytes(table, kind)
            with write_whole(options.output) as temporary:
                temporary.write_bytes(data)
            self.put(path=options.output, n_rows=len(table))
            self.note(f"{len(table)} rows in {options.output}")
        elif self.json:
            units = {name: str(unit) for name in table.colnames if (unit := _unit(table[name]))}
            self.put(n_rows=len(table), units=units, meta=table.meta, rows=json_rows(table))
        elif options.format or options.output == "-":
            self.write_stdout(table_bytes(table, options.format or "ecsv"))
        else:
            for text in text_lines(table) if lines is None else lines:
                self.line(text)

    def hdul(self, hdul, path):
        """Write a FITS file, and tell where; ``-`` is standard output."""
        if path == "-":
            stream = io.BytesIO()
            hdul.writeto(stream)
            self.write_stdout(stream.getvalue())
        else:
            with write_whole(path) as temporary:
                hdul.writeto(temporary, overwrite=True)
            self._wrote(path)

    def binary(self, data, path):
        """Write a file of bytes, and tell where; ``-`` is standard output."""
        if path == "-":
            self.write_stdout(data)
        else:
            with write_whole(path) as temporary:
                temporary.write_bytes(data)
            self._wrote(path)

    def _wrote(self, path):
        self.line(path)
        self.put(path=path)

    def write_stdout(self, data):
        """Write bytes to standard output."""
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def finish(self, exit_code, error=None):
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

    def __init__(self, console):
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record):
        text = record.getMessage()
        if record.name.startswith("urllib3"):
            # It tells of every repetition; what comes of them is told by the error or the result.
            return
        if record.levelno >= logging.WARNING:
            self._console.warn(text)
        elif record.name == "astropy":
            self._console.note(text)


def check_output(options):
    """Refuse an output that cannot be, before anything is asked of the survey.

    Parameters
    ----------
    options : `~argparse.Namespace`
        With ``output`` and ``overwrite``; for tables also ``format``.

    Raises
    ------
    InvalidRequestError
        If it cannot be.
    """
    path = options.output
    if hasattr(options, "format"):
        as_kind(options.format)
        if options.json and (options.format or path == "-") and path in (None, "-"):
            _refuse("--json", "is a format of its own; leave out --format and -o -.")
        if path not in (None, "-") and not (options.format or kind_of(path)):
            _refuse("-o", f"{path}: the name says no format; give --format.")
        kind = options.format or ("ecsv" if path == "-" else None)
        if path in (None, "-") and kind in ("fits", "parquet") and sys.stdout.isatty():
            _refuse("-o", "bytes are not for a terminal; name a file, or use a pipe.")
    elif path == "-":
        if options.json:
            _refuse("--json", "cannot go to standard output together with -o -.")
        if sys.stdout.isatty():
            _refuse("-o", "bytes are not for a terminal; name a file, or use a pipe.")
    if path in (None, "-"):
        return
    if os.path.isdir(path):
        _refuse("-o", f"{path} is a directory.")
    if os.path.lexists(path) and not options.overwrite:
        _refuse("-o", f"{path} exists; --overwrite replaces it.")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        _refuse("-o", f"there is no directory {folder}.")


def _refuse(option, must):
    msg = f"{option}: {must}"
    raise InvalidRequestError(msg, parameter=option)


def _unit(column):
    return getattr(column, "unit", None)


def _plain(value):
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
