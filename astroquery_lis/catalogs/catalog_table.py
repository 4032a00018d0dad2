"""The catalogue from the first source that can answer, as one honest table.

It has one schema whichever answers: the same columns, types, units, masks and order.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import chain
from operator import attrgetter
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
from ..survey.tractor import RowIds, parse_unit, row_ids
from ..survey.tractor_columns import (
    REDSHIFTS,
    ROW_KEY,
    TractorColumn,
    any_column,
    compute,
    file_columns,
    has_column,
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
    if on_missing == "raise":
        request.refuse_lacking()
    failures: list[TransferError] = []
    source, rows, answer = _first_answer(request, sources, failures)
    reason = _tell_failures(failures, sources) if failures else dict(sources)[source]
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


def _first_answer(
    request: CatalogRequest,
    sources: Sequence[tuple[CatalogSource, str]],
    failures: list[TransferError],
) -> tuple[CatalogSource, Rows, Assembled]:
    """Return the first source that answers, and what; note the failures before it."""
    for source, _ in sources:
        try:
            rows = source.rows(request)
            columns = request.without(rows.lacking) if rows.lacking else request
            answer = assemble(columns, rows.chunks)
            if rows.is_cut:
                rows, answer = _enough(request, source, rows, answer)
            return source, rows, answer
        except TransferError as error:
            failures.append(error)
        except InvalidRequestError as refusal:
            if not failures:
                raise
            # Too many files: that the first one failed is what the user has to know.
            raise failures[0] from refusal
    raise failures[-1]


def _enough(
    request: CatalogRequest, source: CatalogSource, rows: Rows, answer: Assembled
) -> tuple[Rows, Assembled]:
    """Return as many rows as were asked for, if there are."""
    if request.maxrec is not None and len(answer.table) < request.maxrec:
        # Some of what the service counted does not meet what was asked.
        rows = source.rows(request, use_maxrec=False)
        answer = assemble(request, rows.chunks)
    return rows, answer


def _tell_failures(
    failures: Sequence[TransferError], sources: Sequence[tuple[CatalogSource, str]]
) -> str:
    """Warn of the sources that failed, and return the reason for the one that answered."""
    words = [_WORDS[source.name] for source, _ in sources]
    for error, name, following in zip(failures, words, words[1:], strict=False):
        verb = "answer" if following.endswith("s") else "answers"
        msg = f"{name} failed ({reason_of(error)}); {following} {verb} instead."
        warn(msg, FailoverWarning)
    return f"{words[0]} failed: {type(failures[0]).__name__}"


def _tell(
    request: CatalogRequest, answer: Assembled, rows: Rows, source: str, on_missing: str
) -> None:
    """Warn of columns without values, of rows that did not come, and of none at all."""
    n_rows = len(answer.table)
    if answer.lacking:
        _tell_lacking(answer.lacking, n_rows, on_missing)
    if answer.is_cut or rows.is_cut:
        which = "the nearest" if source != "tap" and request.sky.center else "not all"
        msg = f"There are more rows than came: {n_rows} of them, {which}, are here."
        warn(msg, MaxResultsWarning)
    if isinstance(request.sky, RowIds):
        _tell_lost(request, len(request.sky.keys), n_rows)
    if not n_rows and rows.is_covered:
        msg = "No row of the catalogue is there and meets the conditions."
        warn(msg, NoResultsWarning)


def _tell_lost(request: CatalogRequest, n_ids: int, n_rows: int) -> None:
    """Warn of ids that are of no row."""
    if 0 < n_rows < n_ids and not request.conditions and request.maxrec is None:
        warn(f"{n_ids - n_rows} of {n_ids} ids have no row there.", NoResultsWarning)


def _tell_lacking(lacking: Sequence[str], n_rows: int, on_missing: str) -> None:
    """Tell of columns without values, as the user wants it."""
    where = "some rows" if n_rows else "this region"
    msg = f"{few(lacking)} without values in {where}: the release or region lacks them."
    if on_missing == "raise":
        msg += " Leave them out, or take on_missing='warn' for columns without values."
        raise MissingDataError(msg)
    warn(msg, CoverageWarning)


def few(names: Sequence[str], most: int = 6) -> str:
    """Return some names as text, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


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
    merged = merge_columns(request, chunks, columns)
    rows = np.flatnonzero(_selected(request, merged))
    placed = {name: merged[name][0][rows] for name in ("ra", "dec", *ROW_KEY)}
    order = request.sky.order(placed)
    is_cut = len(order) > (request.maxrec or len(order))
    rows = rows[order[: request.maxrec]]
    values = {column.name: merged[column.name][0].take(rows, 0) for column in columns}
    masks = {name: mask[rows] for name in values if (mask := merged[name][1]) is not None}
    lacking = [name for name, mask in masks.items() if _is_gap(name, mask, chunks, request)]
    units = [column.unit for column in columns]
    return Assembled(_as_table(values, units, masks), lacking, is_cut)


def _is_gap(name: str, mask: np.ndarray, chunks: Sequence[Chunk], request: CatalogRequest) -> bool:
    """Tell whether a column has missing values that are of a release or region, not of rows."""
    if mask.size and not mask.any():
        return False
    is_of_survey = any_column(name, request.release) is not None and name not in REDSHIFTS
    return is_of_survey or any(c.n_rows and name not in c.columns for c in chunks)


def _as_table(
    values: Mapping[str, np.ndarray],
    units: Sequence[u.UnitBase | None],
    masks: Mapping[str, np.ndarray],
) -> Table:
    """Return a table of arrays, some of them masked."""
    # As Table.__getitem__ does: Table(columns) would copy every one, which takes twice as long.
    table = Table()
    parent = weakref.ref(table)
    columns = {}
    for (name, array), unit in zip(values.items(), units, strict=True):
        if name in masks and masks[name].any():
            column = MaskedColumn(np.ma.MaskedArray(array, masks[name]), name, unit=unit)
            column.parent_table = table
        else:
            # All but the values is in the dict, as `copy.copy` takes it; to set every attribute
            # by itself takes ten times as long.
            column = np.ndarray.__new__(Column, array.shape, array.dtype, array)
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
    conditions = map(attrgetter("column"), request.conditions)
    own = {column.name: column for column in (*columns, *conditions)}
    names = chain.from_iterable(column.sources for column in columns)
    chunks = [chunk for chunk in chunks if chunk.n_rows]
    merged = {}
    for name in dict.fromkeys((*request.needed, *names)):
        column = any_column(name, request.release) or own.get(name)
        parts = [_part(column, name, chunk, request) for chunk in chunks]
        merged[name] = parts[0] if len(parts) == 1 else _joined(column, parts, request)
    for column in filter(attrgetter("inputs"), own.values()):
        merged[column.name] = _computed(column, merged, request.release)
    return merged


def _computed(column: TractorColumn, merged: Mapping[str, Masked], release: str) -> Masked:
    """Return a column that is made of others; it is missing where one of them is."""
    parts = [merged[name] for name in column.inputs]
    arrays = [values for values, _ in parts]
    if column.name == "ls_id":
        number, brickid, objid = arrays
        return row_ids(number, brickid, objid, release), None
    values = compute(column, arrays)
    masks = [mask for _, mask in parts if mask is not None]
    if not masks:
        return values, None
    mask = np.logical_or.reduce(masks)
    values[mask] = column.missing
    return values, mask


def _all_columns(request: CatalogRequest, chunks: Sequence[Chunk]) -> tuple[TractorColumn, ...]:
    """Return every column that came: known ones in the survey's order, then the others."""
    present = dict.fromkeys(("ls_id", *chain.from_iterable(chunk.columns for chunk in chunks)))
    names = filter(present.__contains__, tractor_columns(request.release))
    columns = []
    for name in dict.fromkeys((*names, *present)):
        column = any_column(name, request.release)
        # What a service computed is as good as what would be computed here.
        if column is None or not present.keys() >= set(column.inputs):
            column = _as_it_came(name, chunks)
        columns.append(column)
    return tuple(columns)


def _as_it_came(name: str, chunks: Sequence[Chunk]) -> TractorColumn:
    """Return a column of which nothing is known but what came."""
    values = next(chunk.columns[name] for chunk in chunks if name in chunk.columns)
    kind = values.dtype.str.lstrip("<>|=")
    return TractorColumn(name, kind, 1, _unit_of(name, chunks), name, None, True)


class _Expected(NamedTuple):
    """What is known of a column before there are values."""

    dtype: np.dtype | None
    lacks: np.ndarray  # whether the south's files lack it, and the north's


_NO_GAP = np.zeros((), bool)


@cache
def _expected(name: str, release: str) -> _Expected:
    """Return what the releases tell of a column, by name."""
    column = any_column(name, release)
    lacks = np.array([name in _absent(release, region) for region in ("south", "north")])
    return _Expected(None if column is None else np.dtype(column.dtype), lacks)


@cache
def _absent(release: str, region: str) -> frozenset[str]:
    """Return the columns of a release that the files of a region lack."""
    if region not in get_release(release).trees:
        return frozenset()
    columns = file_columns(release)
    return frozenset(n for n, c in columns.items() if not has_column(c, release, region))


def _joined(
    column: TractorColumn | None, parts: Sequence[Masked], request: CatalogRequest
) -> Masked:
    """Return values and mask of a column over all chunks, or of none."""
    if not parts:
        return empty_column(column, request)
    if len({values.shape[1:] for values, _ in parts}) > 1:
        parts = _padded(parts)
    values, masks = zip(*parts, strict=True)
    if all(mask is None for mask in masks):
        return np.concatenate(values), None
    return np.concatenate(values), np.concatenate([*map(_full_mask, parts)])


def _full_mask(part: Masked) -> np.ndarray:
    """Return which values of a column are missing, where it may have no mask."""
    values, mask = part
    return np.zeros(values.shape, bool) if mask is None else mask


def empty_column(column: TractorColumn | None, request: CatalogRequest) -> Masked:
    """Return no values of a column, with a mask if there could be none in the region."""
    values, release = _blank(column, 0), get_release(request.release)
    lacks = [_absent(release.name, region) for region in release.regions_of(request.region)]
    present = file_columns(release.name).keys() - frozenset.intersection(*lacks)
    if column is None or column.name not in present:
        return values, np.zeros(values.shape, bool)
    return values, None


def _blank(column: TractorColumn | None, n_rows: int) -> np.ndarray:
    """Return an array for a column, with what masked values hold underneath."""
    if column is None:
        return np.full(n_rows, np.nan)
    shape = (n_rows,) if column.length == 1 else (n_rows, column.length)
    return np.full(shape, column.missing, column.dtype)


def _part(column: TractorColumn | None, name: str, chunk: Chunk, request: CatalogRequest) -> Masked:
    """Return values and mask of a column, the survey's or its file's own, in one chunk."""
    dtype, lacks = _expected(name, request.release)
    gap = lacks[np.asarray(chunk.north, int)] if lacks.any() else _NO_GAP
    values, mask = chunk.columns.get(name), chunk.masks.get(name)
    if values is None:
        if not gap.all():
            _refuse_unselected(name, chunk, request)
        values = _blank(column, chunk.n_rows)
        return values, np.ones(values.shape, bool)
    if values.dtype is not dtype:
        values = _as_kind(values, dtype)
    if mask is None and not gap.any():
        return values, None
    return _blanked((values, mask), gap, column)


def _as_kind(values: np.ndarray, dtype: np.dtype | None) -> np.ndarray:
    """Return values as the survey has them, if it has such."""
    if dtype is None:
        return values
    # Texts may be longer than those of the survey.
    kind = np.promote_types(dtype, values.dtype) if values.dtype.kind == "U" else dtype
    return values.astype(kind, copy=False)


def _refuse_unselected(name: str, chunk: Chunk, request: CatalogRequest) -> None:
    """Refuse to select rows by a column that is not where it should be."""
    if name in request.selecting and name != "brick_primary":
        msg = f"{chunk.origin} has no column {name}, which the selection of rows needs."
        raise MissingDataError(msg)


def _blanked(part: Masked, gap: np.ndarray, column: TractorColumn | None) -> Masked:
    """Return values with nothing where they are masked, or where a region lacks the column."""
    values, mask = part[0].copy(), _full_mask(part).copy()
    mask[gap] = True
    values[mask] = column.missing if column is not None else values.dtype.type(0)
    return values, mask


def _padded(parts: Sequence[Masked]) -> list[Masked]:
    """Return arrays of one length per row; what the shorter ones lack is masked."""
    length = max(values.shape[1] for values, _ in parts)
    padded: list[Masked] = []
    for part in parts:
        room = ((0, 0), (0, length - part[0].shape[1]))
        mask = np.pad(_full_mask(part), room, constant_values=True)
        padded.append((np.pad(part[0], room), mask))
    return padded


def _unit_of(name: str, chunks: Sequence[Chunk]) -> u.UnitBase | None:
    """Return the unit of a column that the package does not know."""
    text = next(filter(None, (chunk.units.get(name) for chunk in chunks)), None)
    if text is not None:
        return parse_unit(text)
    units = _EXTRA_UNITS.items()
    return next((unit for prefix, unit in units if f"{name}_".startswith(f"{prefix}_")), None)


def _selected(request: CatalogRequest, merged: Mapping[str, Masked]) -> np.ndarray:
    """Tell which rows meet everything that was asked."""
    selected = request.sky.contains(*(merged[name][0] for name in request.sky.needs))
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
