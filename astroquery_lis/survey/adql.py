"""The text of the queries that are sent to a TAP service.

Column names come from the catalogue's own list and values are written as literals, so that what a
user passes cannot change the query.  Columns are quoted: ``by`` is a reserved word.
"""

from ..exceptions import InvalidRequestError
from .conditions import literal
from .tractor_columns import tractor_columns

__all__ = ["DCHISQ", "box_where", "circle_where", "column_names", "select"]

DCHISQ = tuple(f"dchisq_{number}" for number in range(1, 6))
"""What Astro Data Lab calls the elements of ``dchisq``."""

MARGIN_DEG = 1e-6
"""Added to the radius, so that rounding on the server loses no row on the rim; cut again here."""


def column_names(name):
    """Return what a TAP table calls a catalogue column."""
    return DCHISQ if name == "dchisq" else (name,)


def circle_where(circle):
    """Return the condition for a circle in the form of Q3C that Astro Data Lab accepts."""
    numbers = (circle.ra_deg, circle.dec_deg, circle.radius_deg + MARGIN_DEG)
    return f"'t' = Q3C_RADIAL_QUERY(t.ra, t.dec, {', '.join(map(literal, numbers))})"


def box_where(circle):
    """Return the condition for the box, or the two, in RA and Dec that hold a circle."""
    boxes = circle.boxes(MARGIN_DEG)
    dec = f"t.dec BETWEEN {literal(boxes[0][2])} AND {literal(boxes[0][3])}"
    ra = [f"t.ra BETWEEN {literal(low)} AND {literal(high)}" for low, high, _, _ in boxes]
    return f"{dec} AND {ra[0]}" if len(ra) == 1 else f"{dec} AND ({' OR '.join(ra)})"


def select(table, names, where, conditions, release):
    """Return a query."""
    known = tractor_columns(release)
    for name in [*(names or ()), *(condition.name for condition in conditions)]:
        if name not in known:
            msg = f"columns={name!r} is not a column of {release}."
            raise InvalidRequestError(msg, parameter="columns", value=name)
    chosen = "t.*"
    if names is not None:
        chosen = ", ".join(f't."{column}"' for name in names for column in column_names(name))
    wheres = [where, *(condition.adql(f't."{condition.name}"') for condition in conditions)]
    return f"SELECT {chosen} FROM {table} AS t WHERE {' AND '.join(wheres)}"
