"""Conditions on the columns of a catalogue, in Vizier's way of writing them.

The same condition becomes ADQL for a service and a test on arrays here; a value that is missing
(masked or NaN) meets none.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..exceptions import InvalidRequestError
from .tractor import any_column, resolve_columns

__all__ = ["Condition", "as_conditions", "literal"]

_OPERATORS = (">=", "<=", "!=", "<>", "==", ">", "<", "=")
_SAME = {"==": "=", "<>": "!="}
_HOW = (
    "a value, a list of values, or text such as '>10', '<=3', '!=PSF', '10..20', '>10 & <20'"
)


@dataclass(frozen=True)
class Condition:
    """One condition on one column."""

    name: str
    operator: str  # ``>``, ``>=``, ``<``, ``<=``, ``=``, ``!=`` or ``in``
    values: tuple  # one value, or several for ``in``

    def test(self, data, mask=None):
        """Tell which values meet the condition."""
        if data.dtype.kind == "f" or any(isinstance(value, float) for value in self.values):
            # As SQL compares: in double precision, whatever the column is stored in.
            data = data.astype(float)
        value = self.values[0]
        with np.errstate(invalid="ignore"):
            met = {
                ">": lambda: data > value,
                ">=": lambda: data >= value,
                "<": lambda: data < value,
                "<=": lambda: data <= value,
                "=": lambda: data == value,
                "!=": lambda: data != value,
                "in": lambda: np.isin(data, self.values),
            }[self.operator]()
        if data.dtype.kind == "f":
            met &= ~np.isnan(data)
        return met if mask is None else met & ~mask

    def adql(self, column):
        """Return the condition as ADQL."""
        if self.operator == "in":
            return f"{column} IN ({', '.join(map(literal, self.values))})"
        operator = {"!=": "<>"}.get(self.operator, self.operator)
        return f"{column} {operator} {literal(self.values[0])}"


def literal(value):
    """Return a number or a text as an ADQL literal."""
    if isinstance(value, (bool, np.bool_)):
        return str(int(value))
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)) and math.isfinite(value):
        return repr(float(value))
    if isinstance(value, str) and "\0" not in value:
        return "'" + value.replace("'", "''") + "'"
    msg = f"value={value!r} cannot be written into a query."
    raise InvalidRequestError(msg, parameter="value", value=value)


def as_conditions(column_filters, release):
    """Return the conditions that a user's filters mean; all of them have to be met."""
    if not column_filters:
        return ()
    try:
        items = list(dict(column_filters).items())
    except (TypeError, ValueError):
        msg = f"column_filters={column_filters!r} must be a dict of column name to condition."
        raise InvalidRequestError(
            msg, parameter="column_filters", value=column_filters
        ) from None
    conditions = []
    for given, wanted in items:
        names = resolve_columns([given], release)
        column = any_column(names[0], release)
        if len(names) > 1 or column.length > 1 or column.name.startswith("ls_id"):
            hint = (
                "put conditions on release, brickid and objid instead"
                if column.name.startswith("ls_id")
                else "a condition takes a column with one value"
            )
            msg = f"column_filters has {given!r}: {hint}."
            raise InvalidRequestError(msg, parameter="column_filters", value=given)
        conditions += _conditions_on(column, wanted)
    return tuple(conditions)


def _conditions_on(column, wanted):
    if isinstance(wanted, str):
        return [c for part in wanted.split("&") for c in _parse(column, part.strip())]
    if isinstance(wanted, (list, tuple, set, frozenset, np.ndarray)):
        values = tuple(_value(column, item) for item in np.asarray(wanted, object).ravel())
        if not values:
            _refuse(column, wanted)
        return [Condition(column.name, "in", values)]
    return [Condition(column.name, "=", (_value(column, wanted),))]


def _parse(column, text):
    for operator in _OPERATORS:
        if text.startswith(operator):
            value = _value(column, text[len(operator) :].strip())
            return [Condition(column.name, _SAME.get(operator, operator), (value,))]
    low, dots, high = text.partition("..")
    if dots and column.dtype[0] != "U":
        return [
            Condition(column.name, ">=", (_value(column, low.strip()),)),
            Condition(column.name, "<=", (_value(column, high.strip()),)),
        ]
    return [Condition(column.name, "=", (_value(column, text),))]


def _value(column, value):
    """Return a value of the type of a column; refuse others."""
    kind = column.dtype[0]
    if isinstance(value, np.generic):
        value = value.item()
    if kind == "U":
        good = isinstance(value, str) and "*" not in value and "\0" not in value
        return value if good else _refuse(column, value)
    if isinstance(value, str):
        value = _number(value)
    if kind == "?" and value in (0, 1):
        return bool(value)
    if isinstance(value, (bool, int)) and kind in "iu":
        return int(value)
    if isinstance(value, (bool, int, float)) and kind != "?" and math.isfinite(value):
        return float(value)
    return _refuse(column, value)


def _number(text):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def _refuse(column, value):
    kind = {"U": "text without wildcards", "?": "True or False"}.get(
        column.dtype[0], "finite numbers"
    )
    msg = (
        f"column_filters has {column.name}: {value!r}; {column.name} holds {kind}, and a condition "
        f"is {_HOW}."
    )
    raise InvalidRequestError(msg, parameter="column_filters", value=value)
