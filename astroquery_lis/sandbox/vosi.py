"""What the simulated TAP service says about itself: capabilities, tables, availability."""

from xml.sax.saxutils import escape

from .files import Response, error_page
from .tap_schema import schema_tables, tap_tables

__all__ = ["answer"]

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
_DATA_SERVICE = 'xmlns:vs="http://www.ivoa.net/xml/VODataService/v1.1"'
_FUNCTIONS = (
    "q3c_radial_query(ra DOUBLE, dec DOUBLE, ra0 DOUBLE, dec0 DOUBLE, radius DOUBLE) -> VARCHAR",
    "q3c_join(ra1 DOUBLE, dec1 DOUBLE, ra2 DOUBLE, dec2 DOUBLE, radius DOUBLE) -> VARCHAR",
    "q3c_dist(ra1 DOUBLE, dec1 DOUBLE, ra2 DOUBLE, dec2 DOUBLE) -> DOUBLE",
)
_INTERFACE = (
    '<interface xsi:type="vs:ParamHTTP" role="std"><accessURL use="{use}">{url}</accessURL>'
    "</interface>"
)


def answer(what, parameters, *, url, default_rows):
    """Return the `Response` to a request for metadata.

    Parameters
    ----------
    what : str
        ``'capabilities'``, ``'availability'``, ``'tables'`` or ``'tables/<name>'``.
    parameters : dict of str to str
        Names in upper case.
    url : str
        Address of the service.
    default_rows : int
        How many rows are given where no number is asked for.

    Returns
    -------
    Response
    """
    if what == "capabilities":
        return _xml(_capabilities(url, default_rows))
    if what == "availability":
        return _xml(
            '<vosi:availability xmlns:vosi="http://www.ivoa.net/xml/VOSIAvailability/v1.0">'
            "<vosi:available>true</vosi:available></vosi:availability>"
        )
    everything = {**tap_tables(), **schema_tables()}
    if what == "tables":
        detail = parameters.get("DETAIL", "max") != "min"
        return _xml(_tableset(everything, detail))
    name = what.removeprefix("tables/").lower()
    if name not in everything:
        return error_page(404, "There is no such table.")
    attributes = (
        'xmlns:vosi="http://www.ivoa.net/xml/VOSITables/v1.0" xsi:type="vs:Table" '
        f"{_DATA_SERVICE} {_XSI}"
    )
    inner = _table(everything[name], columns=True)
    return _xml(f"<vosi:table {attributes}>{inner}</vosi:table>")


def _xml(text):
    body = f"{_HEAD}{text}\n".encode()
    return Response(200, {"Content-Type": "text/xml; charset=utf-8"}, body)


def _capabilities(url, default_rows):
    parts = [
        f'<capability standardID="ivo://ivoa.net/std/VOSI#{name}">'
        f"{_INTERFACE.format(use='full', url=f'{url}/{name}')}</capability>"
        for name in ("capabilities", "availability", "tables")
    ]
    features = "".join(f"<feature><form>{escape(form)}</form></feature>" for form in _FUNCTIONS)
    # The geometry functions are listed though they are refused, as services do.
    geometry = "".join(
        f"<feature><form>{name}</form></feature>" for name in ("CIRCLE", "CONTAINS", "POINT")
    )
    parts.append(
        '<capability standardID="ivo://ivoa.net/std/TAP" xsi:type="tr:TableAccess">'
        f"{_INTERFACE.format(use='base', url=url)}"
        "<language><name>ADQL</name>"
        '<version ivo-id="ivo://ivoa.net/std/ADQL#v2.0">2.0</version>'
        f'<languageFeatures type="ivo://ivoa.net/std/TAPRegExt#features-udf">{features}'
        "</languageFeatures>"
        f'<languageFeatures type="ivo://ivoa.net/std/TAPRegExt#features-adqlgeo">{geometry}'
        "</languageFeatures></language>"
        "<outputFormat><mime>application/x-votable+xml</mime><alias>votable</alias></outputFormat>"
        "<outputFormat><mime>text/csv</mime><alias>csv</alias></outputFormat>"
        f'<outputLimit><default unit="row">{default_rows}</default></outputLimit></capability>'
    )
    return (
        '<vosi:capabilities xmlns:vosi="http://www.ivoa.net/xml/VOSICapabilities/v1.0" '
        f'{_DATA_SERVICE} {_XSI} xmlns:tr="http://www.ivoa.net/xml/TAPRegExt/v1.0">'
        f"{''.join(parts)}</vosi:capabilities>"
    )


def _tableset(everything, detail):
    schemas = {}
    for name, table in everything.items():
        schemas.setdefault(name.split(".")[0], []).append(table)
    body = "".join(
        f"<schema><name>{schema}</name>"
        + "".join(f"<table>{_table(table, columns=detail)}</table>" for table in tables)
        + "</schema>"
        for schema, tables in schemas.items()
    )
    return (
        '<vosi:tableset xmlns:vosi="http://www.ivoa.net/xml/VOSITables/v1.0" '
        f"{_DATA_SERVICE} {_XSI}>{body}</vosi:tableset>"
    )


def _table(table, *, columns):
    text = f"<name>{table.name}</name><description>{escape(table.description)}</description>"
    if not columns:
        return text
    for column in table.columns:
        size = ' arraysize="*"' if column.datatype == "char" else ""
        unit = f"<unit>{column.unit}</unit>" if column.unit else ""
        text += (
            f"<column><name>{column.name}</name>{unit}"
            f'<dataType xsi:type="vs:VOTableType"{size}>{column.datatype}</dataType></column>'
        )
    return text
