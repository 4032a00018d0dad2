"""The catalogue from the first source that can answer, as one honest table.

It has one schema whichever answers: the same columns, types, units, masks and order.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from astropy import units as u
from astropy.table import Column, MaskedColumn, Table
from astroquery.exceptions import MaxResultsWarning, NoResultsWarning

from .._typing import Payload
from ..exceptions import (
    CoverageWarning,
    FailoverWarning,
    InvalidRequestError,
    MissingDataError,
    TransferError,
    warn,
)
from ..io.http import reason_of
from ..survey.catalog_request import CatalogRequest
from ..survey.releases import get_release
from ..survey.sphere import separation_deg
from ..survey.tractor import RowIds, parse_unit, row_ids
from ..survey.tractor_columns import (
    REDSHIFTS,
    ROW_KEY,
    TractorColumn,
    any_column,
    compute,
    has_column,
    redshift_columns,
    tractor_columns,
)

Masked: TypeAlias = tuple[np.ndarray, np.ndarray | None]
"""The values of a column, and which are missing; `None` if none is."""

SOURCES = ("auto", "tap", "files", "sweeps", "viewer")

_WORDS = {
    "tap": "TAP",
    "files": "the Tractor files",
    "sweeps": "the sweeps",
    "viewer": "the viewer",
}

_EXTRA_UNITS = dict.fromkeys(("elat", "elon", "glat", "glon"), u.deg)
_EXTRA_UNITS |= {"mag": u.mag, "dered_mag": u.mag, "dered_flux": u.nmgy}


@dataclass
class Chunk:
    """Rows that one file or one answer brought."""

    n_rows: int
    columns: Mapping[str, np.ndarray]
    north: bool | np.ndarray  # whether they are of the north
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""


@dataclass(frozen=True)
class Rows:
    """What a source answered, perhaps with some rows more than were asked for."""

    chunks: Sequence[Chunk]
    meta: Mapping[str, object] = field(default_factory=dict)  # where they come from
    is_cut: bool = False  # whether there are more
    is_covered: bool = True  # whether the survey has a catalogue there
    lacking: frozenset[str] = frozenset()  # of the default columns, those that the source has not


class CatalogSource(Protocol):
    """What can answer a request."""

    @property
    def name(self) -> str:
        """What users call it."""

    def payload(self, request: CatalogRequest) -> Payload:
        """Return what would be asked: the service and its query or addresses."""

    def rows(self, request: CatalogRequest, *, use_maxrec: bool = True) -> Rows:
        """Return the rows of a request; without maxrec, as many as there are."""


def query_catalog(
    request: CatalogRequest, sources: Sequence[tuple[CatalogSource, str]], on_missing: str
) -> Table:
    """Return the rows of a request from the first source that answers; each comes with a reason."""
    if on_missing == "raise" and request.lacking:
        names = ", ".join(request.lacking)
        msg = (
            f"No {names} in {request.release}, region {request.region}. "
            "Leave that out, or take on_missing='warn' for columns without values."
        )
        raise MissingDataError(msg)
    failure: TransferError | None = None
    failovers = []
    for number, (source, why) in enumerate(sources):
        first = _WORDS[sources[0][0].name]
        reason = why if failure is None else f"{first} failed: {type(failure).__name__}"
        try:
            answer, rows = _answer(request, source)
            break
        except TransferError as error:
            failure = failure or error
            if number + 1 == len(sources):
                raise
            following = _WORDS[sources[number + 1][0].name]
            verb = "answer" if following.endswith("s") else "answers"
            name, text = _WORDS[source.name], reason_of(error)
            failovers.append(f"{name} failed ({text}); {following} {verb} instead.")
        except InvalidRequestError as refusal:
            if failure is None:
                raise
            # Too many files: that the first one failed is what the user has to know.
            raise failure from refusal
    for message in failovers:
        warn(message, FailoverWarning)
    answer.table.meta.update(
        {
            "survey": "DESI Legacy Imaging Surveys",
            "release": request.release,
            "region": request.region,
            "source": source.name,
            "reason": reason,
            **rows.meta,
        }
    )
    _tell(request, answer, rows, source.name, on_missing)
    return answer.table


def _answer(request: CatalogRequest, source: CatalogSource) -> tuple[Assembled, Rows]:
    rows = source.rows(request)
    if rows.lacking:
        request = request.without(rows.lacking)
    answer = assemble(request, rows.chunks)
    if rows.is_cut and request.maxrec is not None and len(answer.table) < request.maxrec:
        # Some of what the service counted does not meet what was asked.
        rows = source.rows(request, use_maxrec=False)
        answer = assemble(request, rows.chunks)
    return answer, rows


def _tell(
    request: CatalogRequest, answer: Assembled, rows: Rows, source: str, on_missing: str
) -> None:
    """Warn of columns without values, of rows that did not come, and of none at all."""
    n_rows, lacking = len(answer.table), answer.lacking
    if lacking:
        few = ", ".join(lacking[:6])
        few += f" and {len(lacking) - 6} more" if len(lacking) > 6 else ""
        where = "some rows" if n_rows else "this region"
        msg = f"{few} without values in {where}: the release or region lacks them."
        if on_missing == "raise":
            msg += " Leave them out, or take on_missing='warn' for columns without values."
            raise MissingDataError(msg)
        warn(msg, CoverageWarning)
    if answer.is_cut or rows.is_cut:
        is_nearest = source != "tap" and request.sky.center is not None
        which = "the nearest" if is_nearest else "not all"
        warn(
            f"There are more rows than came: {n_rows} of them, {which}, are here.",
            MaxResultsWarning,
        )
    if isinstance(request.sky, RowIds) and n_rows and not request.conditions:
        n_lost = len(request.sky.keys) - n_rows
        if n_lost and request.maxrec is None:
            warn(f"{n_lost} of {len(request.sky.keys)} ids have no row there.", NoResultsWarning)
    if not n_rows and rows.is_covered:
        msg = "No row of the catalogue is there and meets the conditions."
        warn(msg, NoResultsWarning)


# ---- one schema ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Assembled:
    """A table and what is to be said about it."""

    table: Table
    lacking: list[str]  # columns without values in some rows
    is_cut: bool


def assemble(request: CatalogRequest, chunks: Sequence[Chunk]) -> Assembled:
    """Return the rows of a request as a table."""
    columns = request.columns if request.columns is not None else _all_columns(request, chunks)
    names = [column.name for column in columns]
    merged = merge_columns(request, chunks, columns)
    rows = np.flatnonzero(_selected(request, merged))
    key = [merged[name][0][rows] for name in reversed(ROW_KEY)]
    if request.sky.center is not None:
        ra, dec = merged["ra"][0][rows], merged["dec"][0][rows]
        order = np.lexsort((*key, separation_deg(*request.sky.center, ra, dec)))
    elif isinstance(request.sky, RowIds):
        order = np.argsort(request.sky.places(*reversed(key)))
    else:
        order = np.lexsort(key)
    is_cut = request.maxrec is not None and len(rows) > request.maxrec
    rows = rows[order[: request.maxrec]]
    n_merged = len(merged["ra"][0])
    is_moved = len(rows) != n_merged or not np.array_equal(rows, np.arange(n_merged))
    arrays, lacking = [], []
    for name in names:
        values, mask = merged[name]
        values = values.take(rows, 0) if is_moved else values.copy()
        if mask is not None:
            mask = mask[rows]
            if (mask.any() or not len(rows)) and _is_gap(name, chunks, request):
                lacking.append(name)
            if mask.any():
                values = np.ma.MaskedArray(values, mask)
        arrays.append(values)
    table = _as_table(names, arrays, [column.unit for column in columns], len(rows))
    return Assembled(table, lacking, is_cut)


def _is_gap(name: str, chunks: Sequence[Chunk], request: CatalogRequest) -> bool:
    """Tell whether a column's missing values are of a release or region, not of single rows."""
    is_of_survey = any_column(name, request.release) is not None and name not in REDSHIFTS
    return is_of_survey or any(c.n_rows and name not in c.columns for c in chunks)


def _as_table(
    names: Sequence[str],
    arrays: Sequence[np.ndarray],
    units: Sequence[u.UnitBase | None],
    n_rows: int,
) -> Table:
    """Return a table of arrays, masked ones among them."""
    # As Table.__getitem__ does: Table(columns) would copy every one, which takes twice as long.
    table = Table()
    parent = weakref.ref(table)
    columns = {}
    for name, unit, values in zip(names, units, arrays, strict=True):
        if isinstance(values, np.ma.MaskedArray):
            column = MaskedColumn(values, name, unit=unit)
            column.parent_table = table
        else:
            # All but the values is in the dict, as `copy.copy` takes it; to set every attribute
            # by itself takes ten times as long.
            column = np.ndarray.__new__(Column, values.shape, values.dtype, values)
            column.__dict__.update(_attributes(name, unit), indices=[], _parent_table=parent)
        columns[name] = column
    table.columns = table.TableColumns(columns)
    return table


@lru_cache(maxsize=2048)
def _attributes(name: str, unit: u.UnitBase | None) -> dict[str, object]:
    """Return what a column has beside its values."""
    # A view of a column has no dict of meta data yet, which the others would share.
    return dict(Column(np.zeros(1), name, unit=unit)[:].__dict__)


def merge_columns(
    request: CatalogRequest, chunks: Sequence[Chunk], columns: Sequence[TractorColumn]
) -> dict[str, Masked]:
    """Return columns over all chunks, with what the selection needs."""
    names = dict.fromkeys(request.selecting)
    names.update((name, None) for c in columns for name in c.inputs or (c.name,))
    own = {column.name: column for column in columns}
    own |= {condition.column.name: condition.column for condition in request.conditions}
    chunks = [chunk for chunk in chunks if chunk.n_rows]
    if len(chunks) == 1:
        merged = {name: _part(own.get(name), name, chunks[0], request) for name in names}
    else:
        merged = {name: _merged(own.get(name), name, chunks, request) for name in names}
    for column in own.values():
        if column.name == "ls_id":
            number, brickid, objid = (merged[name][0] for name in ROW_KEY)
            merged["ls_id"] = (row_ids(number, brickid, objid, request.release), None)
        elif column.inputs:
            merged[column.name] = _computed(column, merged)
    return merged


def _computed(column: TractorColumn, merged: Mapping[str, Masked]) -> Masked:
    """Return a column that is made of others; it is missing where one of them is."""
    parts = [merged[name] for name in column.inputs]
    values = compute(column, [values for values, _ in parts])
    masks = [mask for _, mask in parts if mask is not None]
    if not masks:
        return values, None
    mask = np.logical_or.reduce(masks)
    values[mask] = column.missing
    return values, mask


def _all_columns(request: CatalogRequest, chunks: Sequence[Chunk]) -> tuple[TractorColumn, ...]:
    """Return every column that came: known ones in the survey's order, then the others."""
    schema = tractor_columns(request.release)
    present = {"ls_id": 1} | {name: 1 for chunk in chunks for name in chunk.columns}
    names = [name for name in schema if name in present]
    names += [name for name in present if name not in schema]
    columns = []
    for name in names:
        column = any_column(name, request.release)
        # What a service computed is as good as what would be computed here.
        if column is None or (column.inputs and not set(column.inputs) <= set(present)):
            values = next(c.columns[name] for c in chunks if name in c.columns)
            unit = _unit_of(name, chunks)
            column = TractorColumn(name, values.dtype.str.lstrip("<>|="), 1, unit, name, None, True)
        columns.append(column)
    return tuple(columns)


class _Expected(NamedTuple):
    """What is known of a column before there are values."""

    column: TractorColumn | None
    dtype: np.dtype | None
    lacks: np.ndarray | None  # whether the south's files and the north's lack it, if any do


@cache
def _expected(name: str, release: str) -> _Expected:
    """Return what the releases tell of a column, by name."""
    column = any_column(name, release)
    lacks = np.array([name in _absent(release, region) for region in ("south", "north")])
    dtype = None if column is None else np.dtype(column.dtype)
    return _Expected(column, dtype, lacks if lacks.any() else None)


@cache
def _absent(release: str, region: str) -> frozenset[str]:
    """Return the columns of a release that the files of a region lack."""
    if region not in get_release(release).trees:
        return frozenset()
    schema = redshift_columns(release) | dict(tractor_columns(release))
    return frozenset(n for n, c in schema.items() if not has_column(c, release, region))


def _merged(
    own: TractorColumn | None, name: str, chunks: Sequence[Chunk], request: CatalogRequest
) -> Masked:
    """Return values and mask of a column over all chunks."""
    if not chunks:
        return empty_column(any_column(name, request.release) or own, request)
    parts = [_part(own, name, chunk, request) for chunk in chunks]
    values = [part[0] for part in parts]
    if len({array.shape[1:] for array in values}) > 1:
        return _padded(parts)
    mask = None
    if any(part[1] is not None for part in parts):
        mask = np.concatenate([np.zeros(v.shape, bool) if m is None else m for v, m in parts])
    return np.concatenate(values), mask


def empty_column(column: TractorColumn | None, request: CatalogRequest) -> Masked:
    """Return no values of a column, with a mask if there could be none in the region."""
    values, release = _blank(column, 0), get_release(request.release)
    schema = redshift_columns(release.name) | dict(tractor_columns(release.name))
    lacks = [_absent(release.name, region) for region in release.regions_of(request.region)]
    if column is None or column.name not in schema or all(column.name in some for some in lacks):
        return values, np.zeros(values.shape, bool)
    return values, None


def _blank(column: TractorColumn | None, n_rows: int) -> np.ndarray:
    """Return an array for a column, with what masked values hold underneath."""
    if column is None:
        return np.full(n_rows, np.nan)
    shape = (n_rows,) if column.length == 1 else (n_rows, column.length)
    return np.full(shape, column.missing, column.dtype)


def _part(own: TractorColumn | None, name: str, chunk: Chunk, request: CatalogRequest) -> Masked:
    """Return values and mask of a column, the survey's or its file's own, in one chunk."""
    known, dtype, lacks = _expected(name, request.release)
    column = known or own
    values, mask = chunk.columns.get(name), chunk.masks.get(name)
    gap = None if lacks is None else lacks[np.asarray(chunk.north, int)]
    if values is None:
        is_everywhere = gap is None or not gap.all()
        if name in request.selecting and name != "brick_primary" and is_everywhere:
            msg = f"{chunk.origin} has no column {name}, which the selection of rows needs."
            raise MissingDataError(msg)
        values = _blank(column, chunk.n_rows)
        return values, np.ones(values.shape, bool)
    if column is not None and values.dtype.kind == "U":
        size = max(int(column.dtype[1:]), values.dtype.itemsize // 4)
        values = values.astype(f"U{size}", copy=False)
    elif dtype is not None and values.dtype is not dtype:
        values = values.astype(dtype, copy=False)
    if gap is not None and gap.any():
        mask = np.zeros(values.shape, bool) if mask is None else mask.copy()
        mask[gap] = True
    if mask is not None:
        values = values.copy()
        values[mask] = column.missing if column is not None else values.dtype.type(0)
    return values, mask


def _padded(parts: Sequence[Masked]) -> Masked:
    """Join arrays of different lengths per row; what the shorter ones lack is masked."""
    length = max(values.shape[1] for values, _ in parts)
    joined, masks = [], []
    for values, mask in parts:
        room = ((0, 0), (0, length - values.shape[1]))
        mask = np.zeros(values.shape, bool) if mask is None else mask
        joined.append(np.pad(values, room))
        masks.append(np.pad(mask, room, constant_values=True))
    return np.concatenate(joined), np.concatenate(masks)


def _unit_of(name: str, chunks: Sequence[Chunk]) -> u.UnitBase | None:
    """Return the unit of a column that the package does not know."""
    for chunk in chunks:
        if chunk.units.get(name):
            return parse_unit(chunk.units[name])
    for prefix, unit in _EXTRA_UNITS.items():
        if name == prefix or name.startswith(f"{prefix}_"):
            return unit
    return None


def _selected(request: CatalogRequest, merged: Mapping[str, Masked]) -> np.ndarray:
    """Tell which rows meet everything that was asked."""
    selected = request.sky.contains(merged["ra"][0], merged["dec"][0])
    if isinstance(request.sky, RowIds):
        selected &= request.sky.places(*(merged[name][0] for name in ROW_KEY)) >= 0
    for condition in request.conditions:
        selected &= condition.test(*merged[condition.column.name])
    if request.primary:
        # Where nothing else is said, as in sweeps, every row is a primary one.
        values, mask = merged["brick_primary"]
        selected &= values if mask is None else values | mask
    if request.drop_duplicates:
        selected &= merged["type"][0] != "DUP"
    if request.maskbits:
        selected &= (merged["maskbits"][0] & request.maskbits) == 0
    return selected
