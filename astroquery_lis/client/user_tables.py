"""Tables as users have them: objects of several libraries, and files.

Files are ECSV, FITS, Parquet, VOTable, and text as surveys, services and people write it: CSV in
its dialects, columns parted by spaces, lists of names, and the formats of VizieR, NED, SIMBAD,
IRSA, CDS and SExtractor.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import sys
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
from astropy import units as u
from astropy.coordinates import BaseCoordinateFrame, SkyCoord
from astropy.io import ascii as readers
from astropy.io import fits
from astropy.table import Column, MaskedColumn, Row, Table
from astropy.table.meta import get_header_from_yaml

from .._packages import import_optional
from ..exceptions import InvalidRequestError, OptionalDependencyError, refuse
from ..survey.paths import is_sweep_name
from ..survey.request import as_choice
from .position_columns import has_positions, without_unit_warnings

ENDINGS_OF = {
    "ecsv": "ecsv",
    "csv": "csv tsv",
    "fits": "fits fit",
    "parquet": "parquet pq",
    "votable": "vot votable xml",
    "text": "txt dat tab tbl mrt cat",
}
ENDINGS = {f".{ending}": kind for kind, endings in ENDINGS_OF.items() for ending in endings.split()}
FORMATS = tuple(ENDINGS_OF)

_MARKS = {b"SIMPLE  =": "fits", b"PAR1": "parquet", b"<": "votable", b"# %ECSV": "ecsv"}
"""First bytes of formats."""

GZIP = b"\x1f\x8b"
UNIT = b"unit"
ASTROPY_HEADER = b"table_meta_yaml"


# ---- objects ----------------------------------------------------------------------------------


def as_table(value: object, parameter: str = "table") -> Table | None:
    """Return the table that a value is or names, or `None` for positions of other kinds."""
    if isinstance(value, os.PathLike):
        return read_table(os.fsdecode(value), parameter=parameter)
    if isinstance(value, str) and _is_table_file(value):
        return read_table(value, parameter=parameter)
    read = next((read for kinds, read in _READERS if isinstance(value, kinds)), _of_library)
    try:
        return read(value)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        msg = f"{parameter} of {type(value).__name__} cannot be read as a table: {error}."
        raise InvalidRequestError(msg, parameter=parameter, value=value) from error


def _is_table_file(text: str) -> bool:
    """Return True for a text that names a file with a table, as no object is called."""
    path = os.path.expanduser(text.strip())
    is_file = kind_of(path) is not None or (os.sep in path and os.path.isfile(path))
    return is_file and not is_sweep_name(text)


def _of_mapping(value: Mapping) -> Table:
    """Return the table of a dict of columns, or of one row."""
    is_row = {np.ndim(item) for item in value.values()} == {0}
    return Table(rows=[dict(value)]) if is_row else Table(dict(value))


def _of_rows(value: list[Any] | tuple[Any, ...]) -> Table | None:
    """Return the table of a list of dicts or named tuples, as pandas' itertuples() has."""
    rows = (item._asdict() if hasattr(item, "_asdict") else item for item in value)
    dicts = [dict(row) for row in takewhile(lambda row: isinstance(row, Mapping), rows)]
    return Table(rows=dicts) if dicts and len(dicts) == len(value) else None


def _of_library(value: object) -> Table | None:
    """Return a table of another library, none of which is imported."""
    # From 3.0 on, the classes of pandas are of the module "pandas".
    marks = {f"{k.__module__.split('.')[0]}.{k.__name__}" for k in type(value).__mro__}
    marks.update(dir(type(value)))
    return next((read(value) for needed, read in _LIBRARIES if marks.issuperset(needed)), None)


def _of_arrow_stream(value: object) -> Table:
    """Return a table of what has the interchange of Arrow: pyarrow, polars, DuckDB and others."""
    library = type(value).__module__.split(".")[0]
    pyarrow = import_optional("pyarrow", "parquet", f"A table of {library}")
    return _of_arrow(pyarrow.table(value))


def _refuse_lazy(method: str, _: object) -> NoReturn:
    msg = f"its rows are not there yet; give what .{method}() returns"
    raise ValueError(msg)


def _of_pandas(frame: Any) -> Table:
    """Return a frame as a table, with the parts of its index that have names."""
    if any(isinstance(name, tuple) for name in frame.columns):
        frame = frame.set_axis(list(map(_flat_name, frame.columns)), axis=1)
    parts = [name for name in frame.index.names if name is not None and name not in frame.columns]
    return Table.from_pandas(frame.reset_index(level=parts) if parts else frame)


def _flat_name(name: Hashable) -> Hashable:
    """Return one name for a column of several levels, of which the lower ones may be empty."""
    return "_".join(str(part) for part in name if part != "") if isinstance(name, tuple) else name


def _of_records(records: fits.FITS_rec) -> Table:
    """Return the data of a FITS file as a table, with their units."""
    table = Table(np.atleast_1d(records))
    for column in records.columns:
        if column.unit and column.name in table.colnames:
            table[column.name].unit = column.unit
    return table


# ---- files ------------------------------------------------------------------------------------


def as_kind(name: str | None) -> str | None:
    """Return the format of this name; refuse others."""
    return None if name is None else as_choice("format", name, FORMATS)


def kind_of(path: str) -> str | None:
    """Return the format that the name of a file says, or `None`."""
    _, dot, ending = path.lower().removesuffix(".gz").rpartition(".")
    return ENDINGS.get(dot + ending)


def read_table(path: str, kind: str | None = None, *, parameter: str = "table") -> Table:
    """Return the table in a file, or on standard input."""
    path = os.path.expanduser(path.strip())
    name = "standard input" if path == "-" else path
    kind = as_kind(kind) or kind_of(path)
    data = _content(path, name, parameter)
    kind = kind or _kind_of_content(data)
    try:
        with without_unit_warnings():
            table = _BINARY.get(kind, partial(table_of_text, kind=kind))(data)
    except OptionalDependencyError:
        raise
    except Exception as error:  # Each reader has errors of its own for what is not its format.
        reason = [*str(error).strip().splitlines(), repr(error)][0]
        refuse(parameter, name, f"cannot be read as {kind}: {reason}")
    if not len(table):
        refuse(parameter, name, "has no rows.")
    return table


def _content(path: str, name: str, parameter: str) -> bytes:
    """Return the bytes of a file, unpacked."""
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        if data.startswith(GZIP):
            data = gzip.decompress(data)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        refuse(parameter, name, f"cannot be read: {getattr(error, 'strerror', None) or error}.")
    if not data.strip():
        refuse(parameter, name, "is empty.")
    return data


def _kind_of_content(data: bytes) -> str:
    """Return the format that the first bytes show."""
    start = data[:200].lstrip()
    for mark, kind in _MARKS.items():
        if start.startswith(mark):
            return kind
    lines = (line for line in data.splitlines() if line.strip() and not line.startswith(b"#"))
    return "csv" if b"," in next(lines, b"") else "text"


def _read_fits(data: bytes) -> Table:
    with fits.open(io.BytesIO(data)) as hdul:
        return _table_of_hdus(hdul)


def _read_votable(data: bytes) -> Table:
    # It is not imported where nobody has one.
    votable = import_module("astropy.io.votable")
    tables = votable.parse(io.BytesIO(data), verify="ignore").iter_tables()
    return _first_with_positions([one.to_table(use_names_over_ids=True) for one in tables])


def _table_of_hdus(hdul: Iterable[object]) -> Table:
    """Return the first table of a FITS file that has positions, or its first."""
    hdus = [hdu for hdu in hdul if isinstance(hdu, (fits.BinTableHDU, fits.TableHDU))]
    hdus = [hdu for hdu in hdus if not isinstance(hdu, fits.CompImageHDU)]
    with without_unit_warnings():
        return _first_with_positions([_table_of_hdu(hdu) for hdu in hdus])


def _table_of_hdu(hdu: fits.BinTableHDU | fits.TableHDU) -> Table:
    """Return the table of an HDU, with the UCDs that TOPCAT writes."""
    table = Table.read(hdu)
    for number, name in enumerate(hdu.columns.names, start=1):
        ucd = hdu.header.get(f"TUCD{number}")
        if ucd and name in table.colnames:
            table[name].info.meta = {**(table[name].info.meta or {}), "ucd": ucd}
    return table


def _first_with_positions(tables: list[Table]) -> Table:
    if not tables:
        msg = "there is no table in it"
        raise ValueError(msg)
    return next(filter(has_positions, tables), tables[0])


# ---- Parquet, by pyarrow alone: astropy's reader needs pandas besides ----------------------------


def read_parquet(data: bytes) -> Table:
    """Return the table in the bytes of a Parquet file."""
    import_optional("pyarrow", "parquet", "A Parquet table")
    return _of_arrow(import_module("pyarrow.parquet").read_table(io.BytesIO(data)))


def _of_arrow(arrow: Any) -> Table:
    """Return a table of Arrow as one of astropy."""
    pyarrow = import_module("pyarrow")
    units = _astropy_units(arrow.schema.metadata or {})
    table = Table()
    for field in arrow.schema:
        array = arrow.column(field.name).combine_chunks()
        if pyarrow.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        table[field.name] = _column(pyarrow, array)
        unit = (field.metadata or {}).get(UNIT, b"").decode()
        table[field.name].unit = unit or units.get(field.name)
    return table


def _column(pyarrow: ModuleType, array: Any) -> Column:
    """Return an Arrow array as a column; what is null is masked."""
    mask = array.is_null().to_numpy(zero_copy_only=False)
    types = pyarrow.types
    fills = {types.is_string: "", types.is_large_string: "", types.is_boolean: False}
    fills |= {types.is_integer: 0}
    fill = next((fill for is_kind, fill in fills.items() if is_kind(array.type)), None)
    if fill is not None:
        array = array.fill_null(fill)
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype == object:
        # Texts, or lists of one length in every row.
        with suppress(ValueError):
            values = np.array(values.tolist(), str if fill == "" else None)
    return MaskedColumn(values, mask=mask) if mask.any() else Column(values)


def _astropy_units(metadata: Mapping[bytes, bytes]) -> dict[str, str]:
    """Return the units that astropy wrote beside the data."""
    header = metadata.get(ASTROPY_HEADER)
    if header is None:
        return {}
    columns = get_header_from_yaml(header.decode().splitlines())["datatype"]
    return {column["name"]: column["unit"] for column in columns if "unit" in column}


_BINARY = {"parquet": read_parquet, "fits": _read_fits, "votable": _read_votable}

_READERS: tuple[tuple[Any, Callable[[Any], Table | None]], ...] = (
    (Table, lambda table: table),
    (Row, lambda row: row.table[row.index : row.index + 1]),
    ((str, SkyCoord, BaseCoordinateFrame), lambda position: None),
    (fits.HDUList, _table_of_hdus),
    ((fits.BinTableHDU, fits.TableHDU), lambda hdu: _table_of_hdus([hdu])),
    (fits.FITS_rec, _of_records),
    (np.ndarray, lambda array: Table(np.atleast_1d(array)) if array.dtype.names else None),
    (Mapping, _of_mapping),
    ((list, tuple), _of_rows),
)
"""What reads objects of each kind."""

_LIBRARIES: tuple[tuple[set[str], Callable[[Any], Table]], ...] = (
    ({"pandas.DataFrame"}, _of_pandas),
    ({"pandas.Series"}, lambda row: _of_pandas(row.to_frame().T.infer_objects())),
    ({"__arrow_c_stream__"}, _of_arrow_stream),
    ({"__arrow_c_array__"}, _of_arrow_stream),
    ({"collect", "columns"}, partial(_refuse_lazy, "collect")),  # of polars
    ({"compute", "columns"}, partial(_refuse_lazy, "compute")),  # of Dask
    ({"to_table"}, lambda result: result.to_table()),  # of pyvo and of a VOTable
)
"""What reads objects of other libraries, by their classes and by what those have."""


# ---- text ---------------------------------------------------------------------------------------

DELIMITERS = ("\t", ";", "|", ",")

_COORDINATE = re.compile(r"[+-]?\.?\d[\d:.hmsde+-]*", re.IGNORECASE)
_RULE = re.compile(r"[-=:+][-=\s;|,:+]*")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_CLOSED = re.compile(r"\|.*\|")
_COMMENT = re.compile(r"#(?!\|)")
_WORD = re.compile(r'"[^"]*"|\S+')
_SEXTRACTOR = re.compile(r"#\s*1\s+[A-Z]\w*(\s|$)")
_ANGLE_WORDS = {"deg", "degree", "degrees", "rad", "radian", "radians", "hour", "hours", "hms"}
_ANGLE_WORDS |= {"dms", "h:m:s", "d:m:s", "hh:mm:ss", "dd:mm:ss", "hourangle"}


def table_of_text(data: bytes, kind: str) -> Table:
    """Return the table in the bytes of a text."""
    lines = [line for line in _text(data).splitlines() if line.strip()]
    shown = (form for form, is_shown in _FORMS if is_shown(lines))
    form = kind if kind == "ecsv" else next(shown, "")
    return readers.read(lines, format=form, guess=False) if form else _of_lines(lines, kind)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Spreadsheets save in the encoding of the country; no text has a null in that.
        if b"\0" in data:
            raise
        return data.decode("latin-1")


def _is_ipac(lines: list[str]) -> bool:
    """Return True if bars part the names alone, as in the tables of IPAC."""
    body = [line for line in lines if not line.startswith("\\")]
    return [line[0] == "|" for line in (*body[:1], *body[-1:])] == [True, False]


_FORMS: tuple[tuple[str, Callable[[list[str]], object]], ...] = (
    ("ecsv", lambda lines: lines[0].startswith("# %ECSV")),
    ("sextractor", lambda lines: _SEXTRACTOR.match(lines[0])),
    ("mrt", lambda lines: any(line.startswith("Byte-by-byte Description") for line in lines)),
    ("ipac", _is_ipac),
)
"""Formats that astropy knows, and what lines show each."""


def _of_lines(lines: list[str], kind: str) -> Table:
    """Return the table in lines of text, which need not name its columns."""
    comments = [line for line in lines if _COMMENT.match(line)]
    lines = _between_bars([line for line in lines if not _COMMENT.match(line)])
    if not lines:
        return Table()
    delimiter = _delimiter(lines, kind)
    first = _fields(lines[0], delimiter)
    if len(first) >= 2 and all(map(_COORDINATE.fullmatch, first[:2])):
        lines = [_header_of(comments, first, lines, delimiter), *lines]
    lines, units = _without_units(lines, delimiter)
    table = _parted(lines, delimiter)
    for name, unit in zip(table.colnames, units, strict=False):
        if unit:
            table[name].unit = u.Unit(unit, parse_strict="silent")
    return table


def _parted(lines: list[str], delimiter: str) -> Table:
    """Return the table of lines, the first of which names the columns."""
    if delimiter == "\n":
        return Table({lines[0].strip(): [line.strip() for line in lines[1:]]})
    if delimiter == " ":
        return readers.read(lines, format="basic", guess=False)
    _check_commas(lines, delimiter)
    table = readers.read(lines, format="csv", delimiter=delimiter)
    return _with_decimal_points(table) if delimiter in ";\t" else table


def _between_bars(lines: list[str]) -> list[str]:
    """Return the lines of a table with bars, without those before and after, as NED has them."""
    rows = [row for row, line in enumerate(lines) if line.count("|") > 1]
    if len(rows) < 2 or not _is_parted_by_bars(lines[rows[0]].strip()):
        return lines
    run = [line.strip() for line in lines[rows[0] : rows[-1] + 1]]
    barred = [line for line in run if "|" in line or not _RULE.fullmatch(line)]
    if len({line.count("|") for line in barred}) > 1:
        return lines
    is_closed = all(map(_CLOSED.fullmatch, barred))
    return [line[1:-1] for line in barred] if is_closed else barred


def _is_parted_by_bars(line: str) -> bool:
    """Return False if bars stand in a value, between fields that something else parts."""
    ends = line.partition("|")[0], line.rpartition("|")[2]
    if any(mark in end for end in ends for mark in "\t;,"):
        return False
    return all(sum(map(bool, map(_COORDINATE.fullmatch, end.split()))) < 2 for end in ends)


def _delimiter(lines: list[str], kind: str) -> str:
    """Return what parts the fields: a mark, spaces, or the line's end for a single column."""
    marks = [mark for mark in DELIMITERS if mark in lines[0]]
    if marks or kind == "csv":
        return [*marks, ","][0]
    is_single = len(lines[0].split()) == 1 and not _COORDINATE.fullmatch(lines[0].strip())
    return "\n" if is_single and any(len(line.split()) > 1 for line in lines[1:]) else " "


def _fields(line: str, delimiter: str) -> list[str]:
    words = _WORD.findall(line) if delimiter == " " else line.split(delimiter)
    return [word.strip().strip("\"'") for word in words]


def _without_units(lines: list[str], delimiter: str) -> tuple[list[str], list[str]]:
    """Return lines without those of units and dashes below the names, and the units."""
    below = [bool(_RULE.fullmatch(line.strip())) for line in lines[1:3]]
    rule = 1 + below.index(True) if True in below else 0
    words = _fields(lines[1], delimiter) if len(lines) > 1 else []
    n_below = rule or int(_are_units(words))
    has_units = n_below > 0 and rule != 1
    return [lines[0], *lines[1 + n_below :]], words if has_units else []


def _are_units(words: list[str]) -> bool:
    """Return True if one of the words is a unit of angles, and none a value of them."""
    has_unit = any(word.lower().strip("[]()") in _ANGLE_WORDS for word in words)
    return has_unit and not any(map(_COORDINATE.fullmatch, words))


def _check_commas(lines: list[str], delimiter: str) -> None:
    """Refuse numbers with decimal commas between which there are commas too."""
    counts = [len(_fields(line, delimiter)) for line in lines[:2]]
    if delimiter == "," and len(counts) == 2 and counts[1] == 2 * counts[0] and '"' not in lines[1]:
        msg = (
            f"the line {lines[1]!r} has {counts[1]} fields for {counts[0]} columns; write numbers "
            "with points, or put semicolons between the columns"
        )
        raise ValueError(msg)


def _header_of(comments: list[str], first: list[str], lines: list[str], delimiter: str) -> str:
    """Return names for columns that have none in a line of their own."""
    for comment in reversed(comments):
        names = _fields(comment.lstrip("# "), delimiter)
        is_header = len(names) == len(first) == len(set(names))
        if is_header and has_positions(Table(names=names, dtype=[float] * len(names))):
            return delimiter.join(names)
    reason = _why_unclear(first, delimiter)
    if reason:
        msg = f"the line {lines[0]!r} {reason}"
        raise ValueError(msg)
    names = ["ra", "dec", "id", *(f"col{n}" for n in range(4, len(first) + 1))]
    return delimiter.join(names[: len(first)])


_UNCLEAR = (
    (
        r"ii[if]ii[if]",
        "may be RA and Dec of three parts each, or six columns; write 10:00:00 +02:00:00, or put a "
        "line with the names of the columns first",
    ),
    (
        r"i[fw](f|w.{0,2}[if])",
        "may begin with RA and Dec, or with a number of the row; put a line with the names of the "
        "columns first, such as 'id ra dec'",
    ),
    (
        r"iiii,$",
        "may be two numbers with decimal commas, or four; put a line with the names of the columns "
        "first, and semicolons between them",
    ),
)
"""Fields that may mean several things, as whole numbers, others with a fraction, and words."""


def _why_unclear(first: list[str], delimiter: str) -> str:
    """Return why fields without names may mean several things; empty if they do not."""
    kinds = [
        "i" if word.lstrip("+-").isdigit() else "f" if _COORDINATE.fullmatch(word) else "w"
        for word in first
    ]
    fields = "".join(kinds) + delimiter
    return next((reason for pattern, reason in _UNCLEAR if re.match(pattern, fields)), "")


def _with_decimal_points(table: Table) -> Table:
    """Return a table in which numbers with a decimal comma are numbers."""
    for name in [name for name in table.colnames if table[name].dtype.kind == "U"]:
        texts = {str(value) for value in np.ma.filled(table[name], "")} - {""}
        if texts and all(map(_DECIMAL_COMMA.fullmatch, texts)):
            points = np.char.replace(np.ma.filled(table[name], ""), ",", ".")
            numbers = np.where(points == "", "nan", points).astype(float)
            table[name] = MaskedColumn(numbers, mask=np.isnan(numbers))
    return table
