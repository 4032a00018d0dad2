"""Conditions on the columns of a catalogue, in Vizier's way of writing them.

The same condition becomes ADQL for a service and a test on arrays here; a value that is missing
(masked or NaN) meets none.  An empty text is a value: services hold NULL for it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

import numpy as np
from astropy import units as u

from ..exceptions import InvalidRequestError, refuse
from .tractor import TYPES
from .tractor_columns import TractorColumn

Value: TypeAlias = bool | int | float | str

AB_FLUX = u.zero_point_flux(1 * u.AB)
TOLERANCE = 1e-3
"""How far what a service computed may be from what is computed here, absolute and relative."""

_OPERATORS = (">=", "<=", "!=", "<>", "!~", "==", ">", "<", "=", "~", "!")
_SAME = {"==": "=", "<>": "!=", "!": "!="}
_HOW = (
    "a value, a list of values, (low, high), or text such as '>10', '10..20', '>10 & <20', "
    "'<1 | >5', 'PSF, REX', '!=PSF'"
)


@dataclass(frozen=True)
class Comparison:
    """One comparison of a value."""

    operator: str  # ``>``, ``>=``, ``<``, ``<=``, ``=``, ``!=``, ``~`` or ``!~``
    values: tuple[Value, ...]  # one value, or several for ``=`` and ``!=``: any of, none of

    def test(self, data: np.ndarray) -> np.ndarray:
        """Tell which values meet it."""
        value = self.values[0]
        if self.operator in ("~", "!~"):
            pattern = re.compile(_regular(str(value)), re.DOTALL)
            met = np.array([bool(pattern.fullmatch(text)) for text in data.tolist()], bool)
            return met if self.operator == "~" else ~met
        if self.operator in ("=", "!="):
            met = np.isin(data, np.array(self.values))
            return met if self.operator == "=" else ~met
        tests = {">": np.greater, ">=": np.greater_equal, "<": np.less, "<=": np.less_equal}
        return tests[self.operator](data, value)

    def adql(self, column: str, tolerance: float) -> str | None:
        """Return it as ADQL, wider by a tolerance; `None` if no service could test it."""
        if self.operator in ("~", "!~"):
            pattern = str(self.values[0])
            if set(pattern) & {"%", "_", "\\"}:
                return None
            like = f"{column} LIKE {literal(pattern.replace('*', '%').replace('?', '_'))}"
            return like if self.operator == "~" else f"NOT ({like})"
        if tolerance:
            return self._wider(column, tolerance)
        if self.operator in ("=", "!="):
            listed = ", ".join(map(literal, self.values))
            same = f"{column} IN ({listed})" if len(self.values) > 1 else f"{column} = {listed}"
            # Not every service reads <>.
            return same if self.operator == "=" else f"NOT ({same})"
        return f"{column} {self.operator} {literal(self.values[0])}"

    def _wider(self, column: str, tolerance: float) -> str | None:
        if self.operator == "!=":
            return None
        numbers = [float(value) for value in self.values]
        low, high = min(numbers), max(numbers)
        parts = []
        if self.operator in (">", ">=", "="):
            parts.append(f"{column} >= {literal(low - tolerance * (1 + abs(low)))}")
        if self.operator in ("<", "<=", "="):
            parts.append(f"{column} <= {literal(high + tolerance * (1 + abs(high)))}")
        return " AND ".join(parts)


@dataclass(frozen=True)
class Group:
    """Comparisons of which all, or any, have to be met."""

    word: str  # ``AND`` or ``OR``
    parts: tuple[Comparison | Group, ...]

    def test(self, data: np.ndarray) -> np.ndarray:
        """Tell which values meet it."""
        join = np.logical_and if self.word == "AND" else np.logical_or
        return join.reduce([part.test(data) for part in self.parts])

    def adql(self, column: str, tolerance: float) -> str | None:
        """Return it as ADQL: what of it a service can test; `None` if nothing can be."""
        texts = [part.adql(column, tolerance) for part in self.parts]
        if self.word == "OR" and None in texts:
            return None
        written = [text for text in texts if text is not None]
        if len(written) < 2 or self.word == "AND":
            return " AND ".join(written) or None
        return f"({' OR '.join(written)})"


@dataclass(frozen=True)
class Condition:
    """What the values of one column have to meet."""

    column: TractorColumn
    rule: Comparison | Group

    def test(self, data: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Tell which values meet the condition."""
        if data.dtype.kind == "f":
            # As SQL compares: in double precision, whatever the column is stored in.
            data = data.astype(float)
        with np.errstate(invalid="ignore"):
            met = self.rule.test(data)
        if data.dtype.kind == "f":
            met &= ~np.isnan(data)
        return met if mask is None else met & ~mask

    def adql(self, column: str) -> str | None:
        """Return ADQL that every row meets which meets the condition; `None` if there is none."""
        if self.column.name.startswith("ls_id"):
            # Services pack that of DR11 in another way.
            return None
        text = self.rule.adql(column, TOLERANCE if self.column.inputs else 0.0)
        if text and self.column.is_text and self.rule.test(np.array([""]))[0]:
            return f"({text} OR {column} IS NULL)"
        return text

    @property
    def is_exact(self) -> bool:
        """Whether a service selects just the same rows by its ADQL."""
        # A service's NaN is above every number.
        is_number = self.column.dtype[0] == "f"
        return not is_number and self.adql("t") is not None and _is_written(self.rule)


def _is_written(rule: Comparison | Group) -> bool:
    """Return True if all of a rule can be written as ADQL, and not only a part."""
    if isinstance(rule, Group):
        return all(map(_is_written, rule.parts))
    return rule.adql("t", 0.0) is not None


def _regular(pattern: str) -> str:
    """Return a pattern with ``*`` and ``?`` as a regular expression."""
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")


def literal(value: object) -> str:
    """Return a number or a text as an ADQL literal."""
    if isinstance(value, (bool, np.bool_)):
        return str(int(value))
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)) and math.isfinite(value):
        return repr(float(value))
    if isinstance(value, str) and "\0" not in value:
        return "'" + value.replace("'", "''") + "'"
    refuse("value", value, "cannot be written into a query.")


def rule_of(column: TractorColumn, wish: object) -> Comparison | Group:
    """Return what a user's condition on a column means."""
    if isinstance(wish, str):
        return _group("OR", [_all_of(column, part) for part in wish.split("|")])
    if isinstance(wish, u.Quantity) and wish.shape:
        wish = list(wish)
    if isinstance(wish, tuple):
        return _between(column, wish)
    if isinstance(wish, (list, set, frozenset, np.ndarray)):
        items = wish.ravel() if isinstance(wish, np.ndarray) else wish
        values = tuple(_value(column, item) for item in items)
        return Comparison("=", values) if values else _refuse(column, wish)
    return Comparison("=", (_value(column, wish),))


def _group(word: str, parts: list[Comparison | Group]) -> Comparison | Group:
    return parts[0] if len(parts) == 1 else Group(word, tuple(parts))


def _all_of(column: TractorColumn, text: str) -> Comparison | Group:
    return _group("AND", [_listed(column, part.strip()) for part in text.split("&")])


def _listed(column: TractorColumn, text: str) -> Comparison | Group:
    """Return what a list means, commas between its items: any of them, or after != none."""
    operator = next((sign for sign in _OPERATORS if text.startswith(sign)), "")
    items = [item.strip() for item in text[len(operator) :].split(",")]
    operator = _SAME.get(operator, operator or "=")
    if len(items) > 1 and operator in ("=", "!="):
        if not any(map(_is_compound, items)):
            return Comparison(operator, tuple(_value(column, item) for item in items))
        if operator == "!=":
            return _refuse(column, text)
    return _group("OR", [_single(column, item.strip()) for item in text.split(",")])


def _is_compound(text: str) -> bool:
    return ".." in text or text.startswith(_OPERATORS)


def _single(column: TractorColumn, text: str) -> Comparison | Group:
    for operator in _OPERATORS:
        if text.startswith(operator):
            value = text[len(operator) :].strip()
            if operator in ("~", "!~"):
                if not column.is_text or "\0" in value:
                    _refuse(column, text)
                return Comparison(operator, (value,))
            return _compared(column, _SAME.get(operator, operator), value)
    low, dots, high = text.partition("..")
    if dots and not column.is_text:
        return _between(column, (low.strip() or None, high.strip() or None))
    return Comparison("=", (_value(column, text),))


def _compared(column: TractorColumn, operator: str, value: object) -> Comparison:
    if operator in ("=", "!="):
        return Comparison(operator, (_value(column, value),))
    if column.is_text or column.dtype == "?":
        _refuse(column, f"{operator}{value}")
    return Comparison(operator, (_value(column, value, is_bound=True),))


def _between(column: TractorColumn, bounds: tuple[object, ...]) -> Comparison | Group:
    """Return a range, its ends included; an end that is `None` is open."""
    if len(bounds) != 2 or bounds == (None, None) or column.is_text:
        _refuse(column, bounds)
    parts = [
        _compared(column, operator, bound)
        for operator, bound in zip((">=", "<="), bounds, strict=True)
        if bound is not None
    ]
    if len(parts) == 2 and parts[0].values[0] > parts[1].values[0]:  # type: ignore[operator]
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
    if number is None or not math.isfinite(number):
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


def _text(column: TractorColumn, value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        _refuse(column, value)
    value = value.rstrip()
    if "*" in value:
        msg = f"column_filters has {column.name}: {value!r}; a pattern is written '~{value}'."
        raise InvalidRequestError(msg, parameter="column_filters", value=value)
    if column.name == "type" and value not in TYPES:
        msg = f"column_filters has type: {value!r}, which no row has; there are {', '.join(TYPES)}."
        raise InvalidRequestError(msg, parameter="column_filters", value=value)
    return value


def _number(column: TractorColumn, value: object) -> bool | int | float | None:
    """Return a number in the column's unit, or `None` if it is none."""
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, u.Quantity):
        unit = column.unit or u.dimensionless_unscaled
        if column.inputs and unit == u.mag and isinstance(value, u.Magnitude):
            unit = u.ABmag
        try:
            return float(value.to_value(unit, AB_FLUX))
        except (u.UnitConversionError, TypeError, ValueError):
            must = f"is in {value.unit}; {column.name} is in {column.unit or 'no unit'}."
            msg = f"column_filters has {column.name}: {value!r}, which {must}"
            raise InvalidRequestError(msg, parameter="column_filters", value=value) from None
    return value if isinstance(value, (bool, int, float)) else None


def _parsed(text: str) -> object:
    """Return what a text means: a number, True or False, or a quantity; `None` for others."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float, u.Quantity):
        try:
            return kind(text)
        except (TypeError, ValueError):
            continue
    return None


def _refuse(column: TractorColumn, value: object) -> NoReturn:
    kinds = {"U": "text", "?": "True or False", "f": "finite numbers"}
    kind = kinds.get(column.dtype[0], "whole numbers")
    msg = (
        f"column_filters has {column.name}: {value!r}; {column.name} holds {kind}, and a condition "
        f"is {_HOW}."
    )
    raise InvalidRequestError(msg, parameter="column_filters", value=value)
