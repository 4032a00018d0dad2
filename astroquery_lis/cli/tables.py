"""Tables as the bytes of files: ECSV, CSV, FITS, Parquet, VOTable and text; and as JSON."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from importlib import import_module
from typing import NoReturn

import numpy as np
from astropy import units as u
from astropy.io import ascii as text_tables
from astropy.table import Column, Table

from .._packages import import_optional
from ..client.user_tables import UNIT, without_unit_warnings
from ..exceptions import InvalidRequestError


def _refuse(parameter: str, value: object, must: str) -> NoReturn:
    msg = f"{parameter} {value!r} {must}"
    raise InvalidRequestError(msg, parameter=parameter, value=value)


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
        with without_unit_warnings():
            table.write(stream, format=kind)
        return stream.getvalue()
    except (ValueError, TypeError) as error:
        _refuse("format", kind, f"cannot hold this table: {error}")


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
