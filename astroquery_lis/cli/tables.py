"""Tables in and out: ECSV, CSV, FITS, Parquet, VOTable text; files, or ``-`` for a pipe."""

import io
import math
import re
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.io import ascii as text_tables
from astropy.io.votable.exceptions import VOWarning
from astropy.table import Table

from ..exceptions import InvalidRequestError, OptionalDependencyError
from .parquet import parquet_bytes, read_parquet

__all__ = [
    "FORMATS",
    "as_kind",
    "json_rows",
    "kind_of",
    "read_table",
    "table_bytes",
    "text_lines",
]

ENDINGS = {
    "ecsv": "ecsv",
    "csv": "csv",
    "fits": "fits",
    "fit": "fits",
    "parquet": "parquet",
    "pq": "parquet",
    "vot": "votable",
    "votable": "votable",
    "xml": "votable",
    "txt": "text",
    "dat": "text",
    "tab": "text",
}
FORMATS = tuple(dict.fromkeys(ENDINGS.values()))


def _refuse(parameter, value, must):
    msg = f"{parameter} {value!r} {must}"
    raise InvalidRequestError(msg, parameter=parameter, value=value)


def as_kind(name):
    """Return the format of this name; refuse others.

    Parameters
    ----------
    name : str or None
        `None` stays.

    Returns
    -------
    str or None
    """
    if name is not None and name not in FORMATS:
        _refuse("format", name, f"is not one of: {', '.join(FORMATS)}.")
    return name


def kind_of(path):
    """Return the format that the name of a file says, or `None`.

    Parameters
    ----------
    path : str
        ``'positions.csv.gz'`` is CSV.

    Returns
    -------
    str or None
    """
    words = Path(path).name.lower().removesuffix(".gz").split(".")
    return ENDINGS.get(words[-1]) if len(words) > 1 else None


# ---- in -----------------------------------------------------------------------------------------


def read_table(path, kind=None):
    """Return the table in a file, or on standard input.

    Parameters
    ----------
    path : str
        ``'-'`` is standard input.
    kind : str, optional
        One of `FORMATS`; by default told from the name, or from the content.

    Returns
    -------
    `~astropy.table.Table`
        Text without a line of names is read as positions: ``ra``, ``dec``, and the third column as
        ``id``.

    Raises
    ------
    InvalidRequestError
        If there is no such file, or it holds no such table.
    OptionalDependencyError
        If it is Parquet and pyarrow is missing.
    """
    kind = as_kind(kind) or (None if path == "-" else kind_of(path))
    name = "standard input" if path == "-" else path
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        _refuse("table", name, f"cannot be read: {error.strerror or error}.")
    data = _unpacked(data)
    if not data.strip():
        _refuse("table", name, "is empty.")
    kind = kind or _told(data)
    try:
        with _without_unit_warnings():
            table = _parsed(data, kind)
    except OptionalDependencyError:
        raise
    except Exception as error:  # Each reader has errors of its own for what is not its format.
        reason = str(error).strip().splitlines()
        _refuse("table", name, f"cannot be read as {kind}: {reason[0] if reason else error!r}")
    if not len(table):
        _refuse("table", name, "has no rows.")
    return table


def _unpacked(data):
    if data[:2] != b"\x1f\x8b":
        return data
    import gzip

    try:
        return gzip.decompress(data)
    except (OSError, EOFError):
        return data


def _told(data):
    """Return the format that the first bytes tell."""
    start = data[:200].lstrip()
    if data.startswith(b"SIMPLE  ="):
        return "fits"
    if data.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"<"):
        return "votable"
    if start.startswith(b"# %ECSV"):
        return "ecsv"
    lines = (line for line in data.splitlines() if line.strip() and not line.startswith(b"#"))
    return "csv" if b"," in next(lines, b"") else "text"


def _parsed(data, kind):
    if kind == "parquet":
        return read_parquet(data)
    if kind in ("fits", "votable"):
        return Table.read(io.BytesIO(data), format=kind)
    lines = [line for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    if kind == "ecsv":
        return text_tables.read(lines, format="ecsv")
    if lines[0].startswith("# %ECSV"):
        return text_tables.read(lines, format="ecsv")
    lines = [line for line in lines if not line.startswith("#")]
    comma = kind == "csv"
    first = lines[0].replace(",", " ").split() if lines else []
    if len(first) >= 2 and all(map(_is_number, first[:2])):
        names = ["ra", "dec", "id", *(f"col{n}" for n in range(4, len(first) + 1))]
        header = (",", "\t")[not comma].join(names[: len(first)])
        lines = [header if comma else header.replace("\t", " "), *lines]
    if comma:
        return text_tables.read(lines, format="csv")
    # A line of dashes stands below the names and units that this command prints.
    for last in (1, 2):
        if len(lines) > last and not lines[last].replace("-", "").strip():
            del lines[1 : last + 1]
    return text_tables.read(lines, format="basic", guess=False)


def _is_number(word):
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


# ---- out ----------------------------------------------------------------------------------------


def table_bytes(table, kind):
    """Return a table as the bytes of a file.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Any.
    kind : str
        One of `FORMATS`.

    Returns
    -------
    bytes

    Raises
    ------
    InvalidRequestError
        If the format cannot hold the table.
    OptionalDependencyError
        If it is Parquet and pyarrow is missing.
    """
    if kind == "text":
        return "".join(f"{line}\n" for line in text_lines(table)).encode()
    if kind in ("fits", "votable"):
        table = table.copy(copy_data=False)
        table.meta = _flat(table.meta) if kind == "fits" else {}
        for column in table.itercols():
            _name_unit(column)
    try:
        if kind in ("ecsv", "csv"):
            stream = io.StringIO()
            text_tables.write(_spread(table) if kind == "csv" else table, stream, format=kind)
            return stream.getvalue().encode()
        if kind == "parquet":
            return parquet_bytes(table)
        stream = io.BytesIO()
        with _without_unit_warnings():
            table.write(stream, format=kind)
        return stream.getvalue()
    except (ValueError, TypeError) as error:
        _refuse("format", kind, f"cannot hold this table: {error}")


@contextmanager
def _without_unit_warnings():
    """Let FITS and VOTable have units that their standards lack, as the survey's files do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", u.UnitsWarning)
        warnings.simplefilter("ignore", VOWarning)
        yield


def _flat(meta):
    """Return what of the meta data a FITS header can hold."""
    flat = {}
    for name, value in meta.items():
        if isinstance(value, (list, tuple)):
            value = " ".join(map(str, value))
        if isinstance(value, (str, int, float, bool)):
            flat[name.upper()[:8]] = " ".join(value.split()) if isinstance(value, str) else value
    return flat


def _spread(table):
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


def _name_unit(column):
    """Call a unit that the format does not know as the survey's own files do."""
    text = str(getattr(column, "unit", None) or "")
    if "nmgy" in text:
        text = re.sub(r"nmgy(\d)", r"nanomaggy^\1", text).replace("nmgy", "nanomaggy")
        column.unit = u.UnrecognizedUnit(text.replace(" ", ""))


def text_lines(table):
    """Return the lines of a table as they are shown.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Any.

    Returns
    -------
    list of str
        All rows and columns, with units where there are some.
    """
    numbers = [
        getattr(table[name], "dtype", np.dtype("U")).kind in "iuf" for name in table.colnames
    ]
    align = [">" if number else "<" for number in numbers]
    lines = table.pformat(max_lines=-1, max_width=-1, align=align)
    return [line.rstrip() for line in lines]


def json_rows(table):
    """Return a table as values that JSON has.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Any.

    Returns
    -------
    list of dict
        One for each row; what is masked is `None`.
    """
    columns = [_values(table[name]) for name in table.colnames]
    return [dict(zip(table.colnames, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column):
    if hasattr(column, "ra"):
        return column.to_string("decimal", precision=8)
    data = getattr(column, "value", column)
    return np.ma.asarray(data).tolist()
