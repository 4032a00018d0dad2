"""Tables in text as surveys, services and people write them.

CSV in its dialects, columns parted by spaces, lists of names, and the formats of VizieR, NED,
SIMBAD, IRSA, CDS and SExtractor.
"""

from __future__ import annotations

import re

import numpy as np
from astropy import units as u
from astropy.io import ascii as readers
from astropy.table import MaskedColumn, Table

from .position_columns import has_positions

DELIMITERS = ("\t", ";", "|", ",")

_COORDINATE = re.compile(r"[+-]?\.?\d[\d:.hmsde+-]*", re.IGNORECASE)
_RULE = re.compile(r"[-=:+][-=\s;|,:+]*")
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_WORD = re.compile(r'"[^"]*"|\S+')
_SEXTRACTOR = re.compile(r"#\s*1\s+[A-Z]\w*(\s|$)")
_ANGLE_WORDS = {"deg", "degree", "degrees", "rad", "radian", "radians", "hour", "hours", "hms"}
_ANGLE_WORDS |= {"dms", "h:m:s", "d:m:s", "hh:mm:ss", "dd:mm:ss", "hourangle"}


def table_of_text(data: bytes, kind: str) -> Table:
    """Return the table in the bytes of a text."""
    lines = [line for line in _text(data).splitlines() if line.strip()]
    form = "ecsv" if kind == "ecsv" else _format(lines)
    if form is not None:
        return readers.read(lines, format=form, guess=False)
    return _of_lines(lines, kind)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Spreadsheets save in the encoding of the country; no text has a null in that.
        if b"\0" in data:
            raise
        return data.decode("latin-1")


def _format(lines: list[str]) -> str | None:
    """Return the format that lines say or show, of those that astropy knows."""
    if lines[0].startswith("# %ECSV"):
        return "ecsv"
    if _SEXTRACTOR.match(lines[0]):
        return "sextractor"
    if any(line.startswith("Byte-by-byte Description") for line in lines):
        return "mrt"
    body = [line.startswith("|") for line in lines if not line.startswith("\\")]
    # In the tables of IPAC bars part the names alone.
    return "ipac" if body and body[0] and not body[-1] else None


def _of_lines(lines: list[str], kind: str) -> Table:
    """Return the table in lines of text, which need not name its columns."""
    is_comment = [line.startswith("#") and not line.startswith("#|") for line in lines]
    comments = [line for line, is_note in zip(lines, is_comment, strict=True) if is_note]
    lines = [line for line, is_note in zip(lines, is_comment, strict=True) if not is_note]
    lines = _between_bars(lines)
    if not lines:
        return Table()
    delimiter = _delimiter(lines, kind)
    first = _fields(lines[0], delimiter)
    if len(first) >= 2 and all(_COORDINATE.fullmatch(word) for word in first[:2]):
        lines = [_header_of(comments, first, lines, delimiter), *lines]
    lines, units = _without_units(lines, delimiter)
    if delimiter == "\n":
        return Table({lines[0].strip(): [line.strip() for line in lines[1:]]})
    if delimiter == " ":
        table = readers.read(lines, format="basic", guess=False)
    else:
        _check_commas(lines, delimiter)
        table = readers.read(lines, format="csv", delimiter=delimiter)
    if delimiter in ";\t":
        table = _with_decimal_points(table)
    for name, unit in zip(table.colnames, units, strict=False):
        if unit:
            table[name].unit = u.Unit(unit, parse_strict="silent")
    return table


def _between_bars(lines: list[str]) -> list[str]:
    """Return the lines of a table with bars, without those before and after, as NED has them."""
    is_barred = [line.count("|") > 1 for line in lines]
    if sum(is_barred) < 2:
        return lines
    first, last = is_barred.index(True), len(lines) - is_barred[::-1].index(True)
    run = [line.strip() for line in lines[first:last]]
    barred = [line for line in run if "|" in line or not _RULE.fullmatch(line)]
    if len({line.count("|") for line in barred}) > 1 or not _is_parted_by_bars(run[0]):
        return lines
    is_closed = all(line[0] == line[-1] == "|" for line in barred)
    return [line[1:-1] for line in barred] if is_closed else barred


def _is_parted_by_bars(line: str) -> bool:
    """Return False if bars stand in a value, between fields that something else parts."""
    ends = line.partition("|")[0], line.rpartition("|")[2]
    if any(mark in end for end in ends for mark in "\t;,"):
        return False
    return all(sum(map(bool, map(_COORDINATE.fullmatch, end.split()))) < 2 for end in ends)


def _delimiter(lines: list[str], kind: str) -> str:
    """Return what parts the fields: a mark, spaces, or the line's end for a single column."""
    for mark in DELIMITERS:
        if mark in lines[0]:
            return mark
    if kind == "csv":
        return ","
    is_single = len(lines[0].split()) == 1 and not _COORDINATE.fullmatch(lines[0].strip())
    return "\n" if is_single and any(len(line.split()) > 1 for line in lines[1:]) else " "


def _fields(line: str, delimiter: str) -> list[str]:
    words = _WORD.findall(line) if delimiter == " " else line.split(delimiter)
    return [word.strip().strip("\"'") for word in words]


def _without_units(lines: list[str], delimiter: str) -> tuple[list[str], list[str]]:
    """Return lines without those of units and dashes below the names, and the units."""
    rule = next((n for n in (1, 2) if len(lines) > n and _RULE.fullmatch(lines[n].strip())), 0)
    words = _fields(lines[1], delimiter) if len(lines) > 1 else []
    has_units = rule == 2 or (
        not rule
        and any(word.lower().strip("[]()") in _ANGLE_WORDS for word in words)
        and not any(_COORDINATE.fullmatch(word) for word in words)
    )
    n_below = rule or int(has_units)
    return [lines[0], *lines[1 + n_below :]], words if has_units else []


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


def _why_unclear(first: list[str], delimiter: str) -> str:
    """Return why fields without names may mean several things; empty if they do not."""
    numbers = [word for word in first[:6] if _COORDINATE.fullmatch(word)]
    whole = [word.lstrip("+-").isdigit() for word in first]
    if len(numbers) == 6 and whole[0] and whole[1] and whole[3] and whole[4]:
        return (
            "may be RA and Dec of three parts each, or six columns; write 10:00:00 +02:00:00, or "
            "put a line with the names of the columns first"
        )
    if len(numbers) > 2 and whole[0] and not whole[1] and not whole[2]:
        return (
            "may begin with RA and Dec, or with a number of the row; put a line with the names of "
            "the columns first, such as 'id ra dec'"
        )
    if delimiter == "," and len(first) == 4 and all(whole):
        return (
            "may be two numbers with decimal commas, or four; put a line with the names of the "
            "columns first, and semicolons between them"
        )
    return ""


def _with_decimal_points(table: Table) -> Table:
    """Return a table in which numbers with a decimal comma are numbers."""
    for name in table.colnames:
        if table[name].dtype.kind != "U":
            continue
        values = [str(value) for value in np.ma.filled(table[name], "")]
        if any(values) and all(not value or _DECIMAL_COMMA.fullmatch(value) for value in values):
            numbers = [float(value.replace(",", ".") or "nan") for value in values]
            table[name] = MaskedColumn(numbers, mask=np.isnan(numbers))
    return table
