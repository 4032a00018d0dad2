"""What the user asked of the catalogue, checked and brought to one form."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cache, cached_property
from numbers import Integral
from typing import NoReturn, TypeAlias

import numpy as np

from ..exceptions import InvalidRequestError, MissingDataError, refuse
from .bitmasks import maskbits_value
from .conditions import Condition, rule_of
from .releases import as_region, get_release, get_tree, listed
from .sphere import Box, Circle, Polygon
from .tractor import RowIds
from .tractor_columns import (
    REDSHIFTS,
    ROW_KEY,
    WISE_BANDS,
    TractorColumn,
    any_column,
    computed_columns,
    core_columns,
    has_column,
    redshift_columns,
    tractor_columns,
)

MAX_BOX_DEG = 60.0

Sky: TypeAlias = Circle | Box | Polygon | RowIds

WHOLE_SKY = Circle(0.0, 0.0, 180.0)


@dataclass(frozen=True)
class CatalogRequest:
    """Rows and columns of the catalogue."""

    sky: Sky
    columns: tuple[TractorColumn, ...] | None  # in the order wanted; None for all that there are
    conditions: tuple[Condition, ...]  # all have to be met
    primary: bool  # only rows of the brick that owns the position
    drop_duplicates: bool  # no rows of type DUP
    maskbits: int  # rows with any of these bits are left out
    maxrec: int | None  # at most so many rows
    release: str
    region: str  # may be ``'auto'``
    is_default: bool = False  # whether the columns were not named

    @cached_property
    def selecting(self) -> tuple[str, ...]:
        """What of the files the selection and the order stand on."""
        names = ["ra", "dec", *ROW_KEY]
        for condition in self.conditions:
            names += condition.column.inputs or (condition.column.name,)
        if self.primary:
            names.append("brick_primary")
        if self.drop_duplicates:
            names.append("type")
        if self.maskbits:
            names.append("maskbits")
        return tuple(dict.fromkeys(names))

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """What to read of the files: for the selection, and for the columns."""
        names = [n for c in self.columns or () for n in c.inputs or (c.name,)]
        return tuple(dict.fromkeys([*names, *self.selecting]))

    def without(self, names: Collection[str]) -> CatalogRequest:
        """Return the request without columns of these names."""
        if self.columns is None or not names:
            return self
        return replace(self, columns=tuple(c for c in self.columns if c.name not in names))

    @property
    def redshifts(self) -> tuple[str, ...]:
        """What of the request lies beside the catalogue."""
        return tuple(filter(REDSHIFTS.__contains__, self.needed))

    def refuse_redshifts(self, source: str) -> None:
        """Refuse to look for redshifts in a source that has the catalogue alone."""
        names = ", ".join(self.redshifts)
        msg = (
            f"{source} has no {names}: redshifts lie beside the catalogue at Astro Data Lab and "
            "beside the sweeps, for dr9 to dr11; take source='tap' or source='sweeps'."
        )
        raise InvalidRequestError(msg, parameter="columns", value=names)

    @property
    def tap_table(self) -> str | None:
        """Astro Data Lab's table of the release; `None` for those that it does not serve so."""
        if get_release(self.release).number < 8:
            return None
        if self.region == "auto":
            return f"ls_{self.release}.tractor"
        return f"ls_{get_tree(self.release, self.region).release}.tractor_{self.region[0]}"

    @property
    def tap_lack(self) -> str:
        """What keeps TAP from answering the request; empty if nothing does."""
        if self.tap_table is None:
            return f"has no table of {self.release}, only of dr8 to dr11"
        is_by_id = isinstance(self.sky, RowIds)
        if is_by_id and self.release == "dr11":
            return "has other ids of dr11"
        schema = tractor_columns(self.release)
        names = [name for name in self.needed if any_column(name, self.release) is None]
        names += [n for n in self.needed if n in schema and not schema[n].in_tap]
        if not (self.primary or is_by_id):
            names.append("primary=False")
        return f"lacks {', '.join(names)}" if names else ""

    @property
    def lacking(self) -> list[str]:
        """Columns asked for that the release or region has not at all."""
        columns = self.columns or ()
        return [c.name for c in columns if not _is_there(c, self.release, self.region)]

    def refuse_lacking(self) -> None:
        """Refuse columns that the release or region has not at all."""
        if self.lacking:
            names = ", ".join(self.lacking)
            msg = (
                f"No {names} in {self.release}, region {self.region}. "
                "Leave that out, or take on_missing='warn' for columns without values."
            )
            raise MissingDataError(msg)


def _is_there(column: TractorColumn, release: str, region: str) -> bool:
    """Tell whether a release has a column anywhere in a region; one's own are taken as there."""
    if any_column(column.name, release) is None:
        return True
    regions = get_release(release).regions_of(region)
    schema = redshift_columns(release) | dict(tractor_columns(release))
    names = column.inputs or (column.name,)
    return all(n in schema for n in names) and any(has_column(column, release, r) for r in regions)


def catalog_request(
    sky: Sky,
    *,
    columns: str | Sequence[str] | None = None,
    column_filters: Mapping[str, object] | None = None,
    primary: bool = True,
    drop_duplicates: bool = True,
    maskbits: str | Sequence[str] | None = None,
    maxrec: int | None = None,
    release: str = "dr10",
    region: str = "auto",
    own: Callable[[], Mapping[str, TractorColumn]] = dict,
) -> CatalogRequest:
    """Return the `CatalogRequest` that the arguments mean.

    ``own`` returns the columns that the files have beyond the survey's.
    """
    release = get_release(release).name
    region = as_region(region, release)
    for name, value in (("primary", primary), ("drop_duplicates", drop_duplicates)):
        if not isinstance(value, (bool, np.bool_)):
            refuse(name, value, "must be True or False.")
    conditions: tuple[Condition, ...] = ()
    if column_filters is not None:
        conditions = as_conditions(column_filters, release, own)
        _refuse_unmet(column_filters, conditions, release, region)
    return CatalogRequest(
        sky=sky,
        columns=resolve_columns(columns, release, region, own=own),
        conditions=conditions,
        # Rows that are named are given whatever they are.
        primary=bool(primary) and not isinstance(sky, RowIds),
        drop_duplicates=bool(drop_duplicates) and not isinstance(sky, RowIds),
        maskbits=0 if maskbits is None else _maskbits(maskbits, release),
        maxrec=None if maxrec is None else as_maxrec(maxrec),
        release=release,
        region=region,
        is_default=columns is None,
    )


def _refuse_unmet(
    column_filters: object, conditions: Sequence[Condition], release: str, region: str
) -> None:
    """Refuse conditions on columns that a release or region has not at all."""
    for condition in conditions:
        if not _is_there(condition.column, release, region):
            lack = f"has {condition.column.name}, which {release}, region {region}, lacks:"
            refuse("column_filters", column_filters, f"{lack} no row could meet it.")


def _maskbits(names: str | Sequence[str], release: str) -> int:
    if "maskbits" not in tractor_columns(release):
        refuse("maskbits", names, f"is not for {release}, whose catalogue has no maskbits.")
    return maskbits_value(names, release)


def as_maxrec(maxrec: int) -> int:
    """Return a largest number of rows."""
    if not isinstance(maxrec, Integral) or isinstance(maxrec, bool) or maxrec < 1:
        refuse("maxrec", maxrec, "must be a whole number of rows, 1 or more.")
    return int(maxrec)


# ---- columns by the names that users know --------------------------------------------------------

_BRIEF = ("ls_id", "ra", "dec", "type", "mag", "mag_err", "shape_r", "sersic", "maskbits")


def brief_columns(release: str, region: str = "auto") -> tuple[TractorColumn, ...]:
    """Return the columns that people look at first: what ``columns='brief'`` stands for."""
    columns: list[TractorColumn] = []
    for word in _BRIEF:
        columns += _meant(word, release, region) or ()
    return tuple(c for c in columns if c.band not in WISE_BANDS[1:])


@cache
def _meant(name: str, release: str, region: str) -> tuple[TractorColumn, ...]:
    """Return the columns that one word means: one, or a family; none if it means nothing."""
    column = any_column(name, release)
    if column is not None:
        return (column,)
    schemas = (tractor_columns(release), computed_columns(release), redshift_columns(release))
    return tuple(
        column
        for schema in schemas
        for column in schema.values()
        if column.family == name and (region == "auto" or has_column(column, release, region))
    )


def resolve_columns(
    columns: str | Sequence[str] | None,
    release: str,
    region: str = "auto",
    *,
    own: Callable[[], Mapping[str, TractorColumn]] = dict,
    parameter: str = "columns",
) -> tuple[TractorColumn, ...] | None:
    """Return the columns that a user's choice means, without repeats; `None` for all there are.

    They are in the order given; a set has the order of the catalogue, and families after it.  One
    that only another release has stays in.  ``own`` returns the columns that the files have beyond
    the survey's; it is called where a name means nothing else.
    """
    if columns is None:
        return core_columns(release, region)
    if isinstance(columns, Set):
        columns = listed(columns, (*tractor_columns(release), *computed_columns(release)))
    words = columns.replace(",", " ").split() if isinstance(columns, str) else columns
    try:
        words = [word.strip().lower() for word in words]
        first = words[0]
    except (TypeError, AttributeError, IndexError):
        must = "must name columns; leave it out for the core schema, or take 'brief' or 'all'."
        refuse(parameter, columns, must)
    if len(words) == 1 and first in ("all", "*"):
        return None
    if words == ["brief"]:
        return brief_columns(release, region)
    chosen: list[TractorColumn] = []
    for word in words:
        chosen += _meant(word, release, region) or (_own(word, release, own(), parameter),)
    return tuple(dict.fromkeys(chosen))


def _own(
    name: str, release: str, own: Mapping[str, TractorColumn], parameter: str
) -> TractorColumn:
    """Return a column of the files' own, or refuse a name that means nothing."""
    if name not in own:
        _refuse_column(name, release, own, parameter)
    return own[name]


def _refuse_column(
    name: str, release: str, own: Mapping[str, TractorColumn], parameter: str
) -> NoReturn:
    """Refuse a name that means nothing, with names of the release that are like it."""
    number = get_release(release).number
    near: list[str] = []
    # What the files have comes before what is computed from it.
    schemas = (tractor_columns(release), computed_columns(release), redshift_columns(release))
    for schema in (*schemas, own):
        names = {name for c in schema.values() for name in (c.name, c.family)} - {*near}
        near += difflib.get_close_matches(name, names, 3 - len(near)) if len(near) < 3 else []
    hint = f"; did you mean {', '.join(near)}?" if near else "."
    msg = (
        f"{parameter}: {name!r} is no column or family of columns of DR{number}{hint} "
        "LegacySurvey.list_columns() lists them."
    )
    raise InvalidRequestError(msg, parameter=parameter, value=name)


def as_conditions(
    column_filters: Mapping[str, object],
    release: str,
    own: Callable[[], Mapping[str, TractorColumn]] = dict,
) -> tuple[Condition, ...]:
    """Return the conditions that a user's filters mean; all of them have to be met."""
    try:
        items = list(dict(column_filters).items())
    except (TypeError, ValueError):
        msg = (
            f"column_filters={column_filters!r} must be a dict of column name to condition, "
            "such as {'flux_r': '>10'}."
        )
        raise InvalidRequestError(msg, parameter="column_filters", value=column_filters) from None
    conditions = []
    for name, wish in items:
        columns = resolve_columns([name], release, own=own, parameter="column_filters")
        if columns is None:
            _refuse_column(name, release, own(), "column_filters")
        column = columns[0]
        if len(columns) > 1 or column.length > 1:
            msg = f"column_filters has {name!r}: a condition takes a column with one value"
            msg += f", such as {column.name}." if len(columns) > 1 else "."
            raise InvalidRequestError(msg, parameter="column_filters", value=name)
        conditions.append(Condition(column, rule_of(column, wish)))
    return tuple(conditions)
