"""Tables in and out of Parquet by pyarrow alone; astropy's reader needs pandas besides."""

import io
from contextlib import suppress

import numpy as np
from astropy.table import Column, MaskedColumn, Table
from astropy.table.meta import get_header_from_yaml

from ..exceptions import OptionalDependencyError

__all__ = ["parquet_bytes", "pyarrow_modules", "read_parquet"]

UNIT = b"unit"
ASTROPY_HEADER = b"table_meta_yaml"


def pyarrow_modules():
    """Return pyarrow, and its module for Parquet.

    Returns
    -------
    tuple of module

    Raises
    ------
    OptionalDependencyError
        If it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        msg = "Parquet tables need pyarrow: install astroquery_lis[parquet]."
        raise OptionalDependencyError(msg, cause=error) from error
    return pyarrow, pyarrow.parquet


def parquet_bytes(table):
    """Return a table as the bytes of a Parquet file.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Of plain columns; what is masked becomes null, and units go to the metadata of the fields.

    Returns
    -------
    bytes
    """
    pyarrow, parquet = pyarrow_modules()
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


def read_parquet(data):
    """Return the table in the bytes of a Parquet file.

    Parameters
    ----------
    data : bytes
        The file.

    Returns
    -------
    `~astropy.table.Table`
        With the units that this module, or astropy, wrote.
    """
    pyarrow, parquet = pyarrow_modules()
    found = parquet.read_table(io.BytesIO(data))
    units = _astropy_units(found.schema.metadata or {})
    table = Table()
    for field in found.schema:
        array = found.column(field.name).combine_chunks()
        if pyarrow.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        table[field.name] = _column(pyarrow, array)
        unit = (field.metadata or {}).get(UNIT, b"").decode() or units.get(field.name)
        if unit:
            table[field.name].unit = unit
    return table


def _column(pyarrow, array):
    """Return an Arrow array as a column; what is null is masked."""
    if pyarrow.types.is_string(array.type) or pyarrow.types.is_large_string(array.type):
        values = array.to_pylist()
        text = np.array(["" if value is None else value for value in values], str)
        return _masked(text, np.array([value is None for value in values], bool))
    mask = array.is_null().to_numpy(zero_copy_only=False)
    number = pyarrow.types.is_integer(array.type) or pyarrow.types.is_boolean(array.type)
    if number and mask.any():
        array = array.fill_null(False if pyarrow.types.is_boolean(array.type) else 0)
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype == object and not mask.any():
        with suppress(ValueError):
            values = np.stack(values)
    return _masked(values, mask)


def _masked(values, mask):
    return MaskedColumn(values, mask=mask) if mask.any() else Column(values)


def _astropy_units(metadata):
    """Return the units that astropy wrote beside the data."""
    header = metadata.get(ASTROPY_HEADER)
    if header is None:
        return {}
    columns = get_header_from_yaml(header.decode().splitlines())["datatype"]
    return {column["name"]: column["unit"] for column in columns if "unit" in column}
