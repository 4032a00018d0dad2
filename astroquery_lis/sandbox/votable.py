"""Tables and errors as VOTable documents."""

from io import BytesIO
from xml.sax.saxutils import escape

import numpy as np
from astropy.io.votable import from_table
from astropy.io.votable.tree import Info
from astropy.table import MaskedColumn, Table

from .files import Response

__all__ = ["CONTENT_TYPE", "error_document", "make_table", "table_document"]

CONTENT_TYPE = "application/x-votable+xml"
_OVERFLOW = b'<INFO name="QUERY_STATUS" value="OVERFLOW"/>'
_ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">
<RESOURCE type="results">
<INFO name="QUERY_STATUS" value="ERROR">{message}</INFO>
</RESOURCE>
</VOTABLE>
"""


def make_table(columns, rows):
    """Return rows of a database as a table.

    Parameters
    ----------
    columns : list of `~.tap_schema.TapColumn`
        The columns; names may repeat.
    rows : list of tuple
        `None` for what is missing, infinity for NaN.

    Returns
    -------
    `~astropy.table.Table`
    """
    table = Table()
    for number, column in enumerate(columns):
        raw = [row[number] for row in rows]
        missing = np.array([value is None for value in raw], bool)
        if column.kind[0] == "S":
            values = np.array(["" if value is None else str(value) for value in raw], "S")
            values = values.astype(f"S{max(values.dtype.itemsize, 1)}")
        else:
            values = np.array([0 if value is None else value for value in raw], column.kind)
            if column.kind[0] == "f":
                values[missing | ~np.isfinite(values)] = np.nan
                missing[:] = False
        name = column.name
        while name in table.colnames:
            name += "_"
        data = MaskedColumn(values, mask=missing) if missing.any() else values
        table[name] = data
        if column.unit:
            table[name].unit = column.unit
    return table


def table_document(table, *, query, overflow, binary=True):
    """Return a result as a VOTable document.

    Parameters
    ----------
    table : `~astropy.table.Table`
        The result.
    query : str
        What was asked.
    overflow : bool
        Whether there were more rows.
    binary : bool, default: True
        BINARY2 rather than TABLEDATA.

    Returns
    -------
    bytes
    """
    document = from_table(table)
    resource = document.resources[0]
    resource.type = "results"
    resource.infos.append(Info(name="QUERY_STATUS", value="OK"))
    resource.infos.append(Info(name="QUERY", value=query))
    file = BytesIO()
    document.to_xml(file, tabledata_format="binary2" if binary else "tabledata")
    made = file.getvalue()
    if overflow:
        # After the table, where astropy writes nothing and readers look last.
        head, end, tail = made.rpartition(b"</TABLE>")
        made = head + end + _OVERFLOW + tail
    return made


def error_document(message, status=200):
    """Return an error as TAP services report it: a VOTable with ``QUERY_STATUS`` ``ERROR``.

    Parameters
    ----------
    message : str
        What is wrong.
    status : int, default: 200
        HTTP status.

    Returns
    -------
    Response
    """
    text = _ERROR.format(message=escape(message))
    return Response(status, {"Content-Type": CONTENT_TYPE}, text.encode())
