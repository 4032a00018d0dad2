"""Tables in and out: ECSV, CSV, FITS, Parquet, VOTable text; files, or ``-`` for a pipe."""

from __future__ import annotations

import gzip
import io
import math
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
from astropy import units as u
from astropy.io import ascii as text_tables
from astropy.io.votable.exceptions import VOWarning
from astropy.table import Column, MaskedColumn, Table
from astropy.table.meta import get_header_from_yaml

from .._packages import import_optional
from ..exceptions import InvalidRequestError, OptionalDependencyError

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

UNIT = b"unit"
ASTROPY_HEADER = b"table_meta_yaml"


def _refuse(parameter: str, value: object, must: str) -> NoReturn:
    msg = f"{parameter} {value!r} {must}"
    raise InvalidRequestError(msg, parameter=parameter, value=value)


def as_kind(name: str | None) -> str | None:
    """Return the format of this name; refuse others."""
    if name is not None and name not in FORMATS:
        _refuse("format", name, f"is not one of: {', '.join(FORMATS)}.")
    return name


def kind_of(path: str) -> str | None:
    """Return the format that the name of a file says, or `None`."""
    words = Path(path).name.lower().removesuffix(".gz").split(".")
    return ENDINGS.get(words[-1]) if len(words) > 1 else None


# ---- in -----------------------------------------------------------------------------------------


def read_table(path: str, kind: str | None = None) -> Table:
    """Return the table in a file, or on standard input."""
    kind = as_kind(kind) or (None if path == "-" else kind_of(path))
    name = "standard input" if path == "-" else path
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        _refuse("table", name, f"cannot be read: {error.strerror or error}.")
    data = _unpacked(data)
    if not data.strip():
        _refuse("table", name, "is empty.")
    kind = kind or _kind_of_content(data)
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


def _unpacked(data: bytes) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError):
        return data


def _kind_of_content(data: bytes) -> str:
    """Return the format that the first bytes show."""
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


def _parsed(data: bytes, kind: str) -> Table:
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


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


# ---- out ----------------------------------------------------------------------------------------


def table_bytes(table: Table, kind: str | None) -> bytes:
    """Return a table as the bytes of a file."""
    if kind == "text":
        return "".join(f"{line}\n" for line in text_lines(table)).encode()
    if kind in ("fits", "votable"):
        table = table.copy(copy_data=False)
        table.meta = _flat(table.meta) if kind == "fits" else {}
        for column in table.itercols():
            _name_unit(column)
    try:
        if kind in ("ecsv", "csv"):
            text = io.StringIO()
            text_tables.write(_spread(table) if kind == "csv" else table, text, format=kind)
            return text.getvalue().encode()
        if kind == "parquet":
            return parquet_bytes(table)
        stream = io.BytesIO()
        with _without_unit_warnings():
            table.write(stream, format=kind)
        return stream.getvalue()
    except (ValueError, TypeError) as error:
        _refuse("format", kind, f"cannot hold this table: {error}")


@contextmanager
def _without_unit_warnings() -> Iterator[None]:
    """Let FITS and VOTable have units that their standards lack, as the survey's files do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", u.UnitsWarning)
        warnings.simplefilter("ignore", VOWarning)
        yield


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
    numbers = [
        getattr(table[name], "dtype", np.dtype("U")).kind in "iuf" for name in table.colnames
    ]
    align = [">" if number else "<" for number in numbers]
    lines = table.pformat(max_lines=-1, max_width=-1, align=align)
    return [line.rstrip() for line in lines]


def json_rows(table: Table) -> list[dict[str, object]]:
    """Return a table as values that JSON has."""
    columns = [_values(table[name]) for name in table.colnames]
    return [dict(zip(table.colnames, row, strict=True)) for row in zip(*columns, strict=True)]


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
        data = np.ma.getdata(column)
        mask = np.ma.getmaskarray(np.ma.asarray(column)) if data.ndim == 1 else None
        if data.ndim > 1 or data.dtype.kind in "SU":
            text = data.astype(str) if data.dtype.kind in "SU" else data
            array = pyarrow.array(text.tolist(), mask=mask)
        else:
            # Arrow has the byte order of the machine only.
            array = pyarrow.array(data.astype(data.dtype.newbyteorder("=")), mask=mask)
        metadata = {UNIT: str(column.unit).encode()} if column.unit is not None else None
        arrays.append(array)
        fields.append(pyarrow.field(name, array.type, metadata=metadata))
    stream = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays, schema=pyarrow.schema(fields)), stream)
    return stream.getvalue()


def read_parquet(data: bytes) -> Table:
    """Return the table in the bytes of a Parquet file."""
    pyarrow = import_optional("pyarrow", "parquet", "A Parquet table")
    parquet = import_module("pyarrow.parquet")
    arrow = parquet.read_table(io.BytesIO(data))
    units = _astropy_units(arrow.schema.metadata or {})
    table = Table()
    for field in arrow.schema:
        array = arrow.column(field.name).combine_chunks()
        if pyarrow.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        table[field.name] = _column(pyarrow, array)
        unit = (field.metadata or {}).get(UNIT, b"").decode() or units.get(field.name)
        if unit:
            table[field.name].unit = unit
    return table


def _column(pyarrow: ModuleType, array: Any) -> Column:
    """Return an Arrow array as a column; what is null is masked."""
    if pyarrow.types.is_string(array.type) or pyarrow.types.is_large_string(array.type):
        values = array.to_pylist()
        text = np.array(["" if value is None else value for value in values], str)
        return _masked(text, np.array([value is None for value in values], bool))
    mask = array.is_null().to_numpy(zero_copy_only=False)
    is_whole = pyarrow.types.is_integer(array.type) or pyarrow.types.is_boolean(array.type)
    if is_whole and mask.any():
        array = array.fill_null(False if pyarrow.types.is_boolean(array.type) else 0)
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype == object and not mask.any():
        with suppress(ValueError):
            values = np.stack(values)
    return _masked(values, mask)


def _masked(values: np.ndarray, mask: np.ndarray) -> Column:
    return MaskedColumn(values, mask=mask) if mask.any() else Column(values)


def _astropy_units(metadata: Mapping[bytes, bytes]) -> dict[str, str]:
    """Return the units that astropy wrote beside the data."""
    header = metadata.get(ASTROPY_HEADER)
    if header is None:
        return {}
    columns = get_header_from_yaml(header.decode().splitlines())["datatype"]
    return {column["name"]: column["unit"] for column in columns if "unit" in column}
