"""A whole file of the survey as a table: Tractor files, sweeps and what lies beside them, CCDs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import Column, MaskedColumn, Table

from ..exceptions import CoverageWarning, InvalidRequestError, UnexpectedContentError, warn
from ..survey.tractor import parse_unit
from ..survey.tractor_columns import NO_REDSHIFT, REDSHIFTS, any_column
from .exposure_tables import CCD_UNITS
from .table_file import FileColumn, TableLayout, decoded, missing, open_rows

# What tells that a table is of the survey: a source, a position, a CCD or a brick.
_KEYS = ({"brickid", "objid"}, {"ra", "dec"}, {"expnum", "ccdname"}, {"brickname"})
_PLACES = dict.fromkeys(("ra", "dec", "ra1", "ra2", "dec1", "dec2"), u.deg)


def read_file(path: Path, columns: Sequence[str] | None) -> Table:
    """Return the rows of a file, with the columns of these names."""
    table = open_rows(path)
    layout, fields = table.layout, table.fields
    if not any(key <= fields.keys() for key in _KEYS):
        few = ", ".join([*fields][:5]) or "none that can be read"
        msg = f"{path} is no catalogue of the survey: the columns of its first table are {few}."
        raise UnexpectedContentError(msg, url=str(path))
    names = list(fields) if columns is None else _resolved(columns, layout, path)
    if columns is None and layout.omitted:
        msg = (
            f"{path}: {', '.join(layout.omitted)} did not come; columns of bits, of lengths that "
            "differ by row, of no values, or named like another are left out."
        )
        warn(msg, CoverageWarning)
    raw = table.raw(slice(None), names)
    known = _known_units(fields.keys())
    parts = [_column(name, fields[name], raw[name], known) for name in names]
    return Table(parts, copy=False, meta={"file": str(path)})


def _resolved(columns: Sequence[str], layout: TableLayout, path: Path) -> list[str]:
    """Return the names of columns as the layout has them; refuse others."""
    names = []
    for column in columns:
        name = column.strip().lower()
        if name not in layout.fields:
            near = difflib.get_close_matches(name, layout.fields, 3)
            hint = f"did you mean {', '.join(near)}?" if near else "leave columns out for all."
            msg = f"columns: {path} has no {column!r}; {hint}"
            raise InvalidRequestError(msg, parameter="columns", value=column)
        names.append(name)
    return list(dict.fromkeys(names))


def _known_units(names: Iterable[str]) -> dict[str, u.UnitBase]:
    """Return the units of columns for which the survey writes none into its files."""
    names = {*names}
    if {"brickid", "objid"} <= names:
        known = {name: any_column(name, "dr10") for name in names}
        return {n: c.unit for n, c in known.items() if c is not None and c.unit is not None}
    if {"expnum", "ccdname"} <= names:
        return {name: unit for name, unit in CCD_UNITS.items() if unit is not None}
    return _PLACES


def _column(name: str, field: FileColumn, raw: np.ndarray, known: dict[str, u.UnitBase]) -> Column:
    """Return a column with its unit, masked where the file has no value."""
    values, mask = decoded(field, raw), missing(field, raw)
    if name in REDSHIFTS and values.dtype.kind == "f":
        mask = values == NO_REDSHIFT
    unit = parse_unit(field.unit)
    unit = known.get(name) if unit is None else unit
    # A unit that nobody can read stays where a person can.
    description = field.unit if field.unit and unit is None else None
    if mask is None or not mask.any():
        return Column(values, name, unit=unit, description=description)
    return MaskedColumn(values, name, mask=mask, unit=unit, description=description)
