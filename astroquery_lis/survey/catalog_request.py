"""What the user asked of the catalogue, checked and brought to one form.

Conditions are written in Vizier's way.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache, partial
from itertools import compress
from numbers import Integral
from typing import NoReturn, TypeAlias

import numpy as np
from astropy import units as u

from ..exceptions import InvalidRequestError, MissingDataError, refuse
from .bitmasks import maskbits_value
from .releases import as_region, get_release, get_tree, listed
from .sphere import Box, Circle, Polygon
from .tractor import TYPES, RowIds
from .tractor_columns import (
    REDSHIFTS,
    ROW_KEY,
    WISE_BANDS,
    Comparison,
    Condition,
    Group,
    TractorColumn,
    Value,
    any_column,
    computed_columns,
    core_columns,
    file_columns,
    has_column,
    in_region,
    redshift_columns,
    tractor_columns,
)

MAX_BOX_DEG = 60.0

Sky: TypeAlias = Circle | Box | Polygon | RowIds


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
        flags = {
            "brick_primary": self.primary,
            "type": self.drop_duplicates,
            "maskbits": self.maskbits,
        }
        tested = [name for condition in self.conditions for name in condition.column.sources]
        names = ("ra", "dec", *ROW_KEY, *tested, *compress(flags, flags.values()))
        return tuple(dict.fromkeys(names))

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """What to read of the files: for the selection, and for the columns."""
        names = [name for column in self.columns or () for name in column.sources]
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
        names = [name for name in self.needed if not _is_in_tap(name, self.release)]
        if not (self.primary or is_by_id):
            names.append("primary=False")
        return f"lacks {', '.join(names)}" if names else ""

    def refuse_lacking(self) -> None:
        """Refuse columns that the release or region has not at all."""
        columns = self.columns or ()
        names = [c.name for c in columns if not _is_there(c, self.release, self.region)]
        if names:
            msg = (
                f"No {', '.join(names)} in {self.release}, region {self.region}. "
                "Leave that out, or take on_missing='warn' for columns without values."
            )
            raise MissingDataError(msg)


def _is_in_tap(name: str, release: str) -> bool:
    """Tell whether a service can be asked for a column, or tells itself that it is of others."""
    column = tractor_columns(release).get(name)
    return any_column(name, release) is not None if column is None else column.in_tap


def _is_there(column: TractorColumn, release: str, region: str) -> bool:
    """Tell whether a release has a column anywhere in a region; one's own are taken as there."""
    if any_column(column.name, release) is None:
        return True
    regions = get_release(release).regions_of(region)
    has_sources = file_columns(release).keys() >= set(column.sources)
    return has_sources and any(has_column(column, release, region) for region in regions)


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
    own: Callable[[str, str], Mapping[str, TractorColumn]] = lambda release, region: {},
) -> CatalogRequest:
    """Return the `CatalogRequest` that the arguments mean.

    ``own`` returns the columns that the files of a release and region have beyond the survey's.
    """
    try:
        release, region = _names(release, region)
    except TypeError:  # a list is no key of its cache
        release, region = _names.__wrapped__(release, region)
    own_columns = partial(own, release, region)
    is_by_place = not isinstance(sky, RowIds)
    for name, value in (("primary", primary), ("drop_duplicates", drop_duplicates)):
        if not isinstance(value, (bool, np.bool_)):
            refuse(name, value, "must be True or False.")
    bits = 0 if maskbits is None else _maskbits(maskbits, release)
    limit = None if maxrec is None else as_maxrec(maxrec)
    # From here on a server may be asked for the files' own columns.
    conditions: tuple[Condition, ...] = ()
    if column_filters is not None:
        conditions = as_conditions(column_filters, release, own_columns)
        _refuse_unmet(column_filters, conditions, release, region)
    return CatalogRequest(
        sky=sky,
        columns=resolve_columns(columns, release, region, own=own_columns),
        conditions=conditions,
        # Rows that are named are given whatever they are.
        primary=bool(primary & is_by_place),
        drop_duplicates=bool(drop_duplicates & is_by_place),
        maskbits=bits,
        maxrec=limit,
        release=release,
        region=region,
        is_default=columns is None,
    )


@lru_cache(maxsize=64, typed=True)
def _names(release: str, region: str) -> tuple[str, str]:
    """Return a release and a region of it as the survey spells them."""
    name = get_release(release).name
    return name, as_region(region, name)


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

# What people look at first.
_BRIEF = ("ls_id", "ra", "dec", "type", "mag", "mag_err", "shape_r", "sersic", "maskbits")


@cache
def _meant(name: str, release: str, region: str) -> tuple[TractorColumn, ...]:
    """Return the columns that one word means: one, or a family; none if it means nothing."""
    column = any_column(name, release)
    if column is not None:
        return (column,)
    if name == "brief":
        brief = (column for word in _BRIEF for column in _meant(word, release, region))
        return tuple(column for column in brief if column.band not in WISE_BANDS[1:])
    columns = (column for schema in _schemas(release) for column in schema.values())
    return in_region((c for c in columns if c.family == name), release, region)


def _schemas(release: str) -> tuple[Mapping[str, TractorColumn], ...]:
    """Return the columns of a release by name: what files have before what is computed from it."""
    return tractor_columns(release), computed_columns(release), redshift_columns(release)


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
    names = columns.replace(",", " ").split() if isinstance(columns, str) else columns
    if isinstance(columns, Set):
        names = listed(columns, (*tractor_columns(release), *computed_columns(release)))
    try:
        words = [name.strip().lower() for name in names]
    except (TypeError, AttributeError):
        words = []
    if not words:
        must = "must name columns; leave it out for the core schema, or take 'brief' or 'all'."
        refuse(parameter, columns, must)
    if words in (["all"], ["*"]):
        return None
    columns_named: list[TractorColumn] = []
    for word in words:
        columns_named += _meant(word, release, region) or (_own(word, release, own(), parameter),)
    return tuple(dict.fromkeys(columns_named))


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
    for schema in (*_schemas(release), own):
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


# ---- conditions as users write them --------------------------------------------------------------

AB_FLUX = u.zero_point_flux(1 * u.AB)

_SIGNS = (">=", "<=", "!=", "<>", "!~", "==", ">", "<", "=", "~", "!")
_SAME = {"==": "=", "<>": "!=", "!": "!="}
_HOW = (
    "a value, a list of values, (low, high), or text such as '>10', '10..20', '>10 & <20', "
    "'<1 | >5', 'PSF, REX', '!=PSF'"
)


def rule_of(column: TractorColumn, wish: object) -> Comparison | Group:
    """Return what a user's condition on a column means."""
    if isinstance(wish, str):
        return _group("OR", [_all_of(column, part) for part in wish.split("|")])
    if isinstance(wish, tuple):
        return _between(column, wish)
    items = wish.ravel() if isinstance(wish, np.ndarray) else wish
    if not isinstance(items, (list, set, frozenset, np.ndarray)):
        items = [items]
    values = tuple(_value(column, item) for item in items)
    return Comparison("=", values) if values else _refuse(column, wish)


def _group(word: str, parts: list[Comparison | Group]) -> Comparison | Group:
    return parts[0] if len(parts) == 1 else Group(word, tuple(parts))


def _all_of(column: TractorColumn, text: str) -> Comparison | Group:
    return _group("AND", [_listed(column, part.strip()) for part in text.split("&")])


def _signed(text: str) -> tuple[str, str]:
    """Return the operator that a text begins with, empty for none, and what comes after it."""
    sign = next((sign for sign in _SIGNS if text.startswith(sign)), "")
    return _SAME.get(sign, sign), text.removeprefix(sign).strip()


def _listed(column: TractorColumn, text: str) -> Comparison | Group:
    """Return what a list means, commas between its items: any of them, or after != none."""
    operator, value = _signed(text)
    items = [item.strip() for item in value.split(",")]
    if not any(map(_is_compound, items)) and operator in ("", "=", "!="):
        return Comparison(operator or "=", tuple(_value(column, item) for item in items))
    if operator == "!=" and len(items) > 1:
        return _refuse(column, text)
    return _group("OR", [_single(column, item.strip()) for item in text.split(",")])


def _is_compound(text: str) -> bool:
    return ".." in text or text.startswith(_SIGNS)


def _single(column: TractorColumn, text: str) -> Comparison | Group:
    operator, value = _signed(text)
    if operator:
        return _compared(column, operator, value)
    low, dots, high = map(str.strip, text.partition(".."))
    if dots and not column.is_text:
        return _between(column, (low or None, high or None))
    return Comparison("=", (_value(column, text),))


def _compared(column: TractorColumn, operator: str, value: object) -> Comparison:
    if operator in ("=", "!="):
        return Comparison(operator, (_value(column, value),))
    is_pattern = operator in ("~", "!~")
    if column.is_text is not is_pattern or column.dtype == "?":
        _refuse(column, f"{operator}{value}")
    if is_pattern:
        return Comparison(operator, (_without_nul(column, value),))
    return Comparison(operator, (_value(column, value, is_bound=True),))


def _between(column: TractorColumn, bounds: tuple[object, ...]) -> Comparison | Group:
    """Return a range, its ends included; an end that is `None` is open."""
    if len(bounds) != 2 or bounds == (None, None) or column.is_text:
        _refuse(column, bounds)
    ends = zip((">=", "<="), bounds, strict=True)
    parts = [_compared(column, side, bound) for side, bound in ends if bound is not None]
    low, high = parts[0].values[0], parts[-1].values[0]
    if low > high:  # type: ignore[operator]
        msg = f"column_filters[{column.name!r}]={bounds!r} must be (low, high): no value is both."
        raise InvalidRequestError(msg, parameter="column_filters", value=bounds)
    return _group("AND", [*parts])


def _value(column: TractorColumn, value: object, *, is_bound: bool = False) -> Value:
    """Return a value of the type of a column; refuse others, and those that no row can have."""
    if isinstance(value, np.generic):
        value = value.item()
    if column.is_text:
        return _text(column, value)
    number = _number(column, value)
    # An int may be larger than any float, and NaN is smaller than nothing.
    if not abs(number) <= sys.float_info.max:
        _refuse(column, value)
    kind = column.dtype[0]
    if kind == "f":
        return float(number)
    if kind == "?":
        return bool(number) if number in (0, 1) else _refuse(column, value)
    return _whole(column, number, value, is_bound=is_bound)


def _whole(column: TractorColumn, number: float, value: object, *, is_bound: bool) -> Value:
    """Return a value of a column of whole numbers."""
    if number != int(number):
        # No whole number is the same, but some are above, and some below.
        return float(number) if is_bound else _refuse(column, value)
    limits = np.iinfo(np.int64 if is_bound else column.dtype)
    return int(number) if limits.min <= number <= limits.max else _refuse(column, value)


def _without_nul(column: TractorColumn, value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        _refuse(column, value)
    return value


def _text(column: TractorColumn, value: object) -> str:
    text = _without_nul(column, value).rstrip()
    if "*" in text:
        msg = f"column_filters has {column.name}: {text!r}; a pattern is written '~{text}'."
        raise InvalidRequestError(msg, parameter="column_filters", value=text)
    if column.name == "type" and text not in TYPES:
        msg = f"column_filters has type: {text!r}, which no row has; there are {', '.join(TYPES)}."
        raise InvalidRequestError(msg, parameter="column_filters", value=text)
    return text


def _number(column: TractorColumn, value: object) -> float:
    """Return a number in the column's unit, NaN for what is none."""
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, u.Quantity):
        return _converted(column, value)
    return value if isinstance(value, (bool, int, float)) else math.nan


def _converted(column: TractorColumn, value: u.Quantity) -> float:
    """Return a Quantity as a number in the column's unit."""
    unit = column.unit or u.dimensionless_unscaled
    if column.inputs and unit == u.mag and isinstance(value, u.Magnitude):
        unit = u.ABmag
    try:
        return float(value.to_value(unit, AB_FLUX))
    except (u.UnitConversionError, TypeError, ValueError):
        must = f"is in {value.unit}; {column.name} is in {column.unit or 'no unit'}."
        msg = f"column_filters has {column.name}: {value!r}, which {must}"
        raise InvalidRequestError(msg, parameter="column_filters", value=value) from None


def _parsed(text: str) -> object:
    """Return what a text means: a number, True or False, or a quantity; `None` for others."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float, u.Quantity):
        with suppress(TypeError, ValueError):
            return kind(text)
    return None


def _refuse(column: TractorColumn, value: object) -> NoReturn:
    kinds = {"U": "text", "?": "True or False", "f": "finite numbers"}
    kind = kinds.get(column.dtype[0], "whole numbers")
    msg = (
        f"column_filters has {column.name}: {value!r}; {column.name} holds {kind}, and a condition "
        f"is {_HOW}."
    )
    raise InvalidRequestError(msg, parameter="column_filters", value=value)
