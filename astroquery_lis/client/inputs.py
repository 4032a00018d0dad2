"""What users hand in, read in one way for every method and for the command line.

A position is a SkyCoord in any frame, two numbers in degrees, or text (see `.position_text`).  Many
of them are a SkyCoord of any shape, a list of the former, an array of shape (n, 2), or a table: of
astropy or pandas, a structured array, an HDU, the result of a query, or the name of a file.  A row
that is masked, NaN or a value that no place has (-9999, 99) has no position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
from astropy import units as u
from astropy.coordinates import BaseCoordinateFrame, SkyCoord
from astropy.table import Column, Row, Table
from astropy.time import Time

from .. import survey
from ..exceptions import CoverageWarning, InvalidRequestError, refuse, warn
from ..survey.bricks import N_BRICKS, brick_id, parse_brick_name
from ..survey.sweep_names import is_sweep_name
from .position_columns import icrs_degrees, on_the_sky, positions_of_table, unmasked
from .position_text import POSITION, coordinate_deg, read_positions

if TYPE_CHECKING:
    from .._typing import Angle, Positions
    from ..survey.catalog_request import Sky

MUST = (
    "must be a SkyCoord, text such as '190.1 1.2' or 'NGC 1', RA and Dec in degrees as one "
    "argument, (190.1, 1.2), a list of those, a Table, or the name of a file with one."
)
MUST_BRICKS = "must be names of bricks, coordinates, or a Table."


@dataclass(frozen=True, eq=False)
class Targets:
    """Names and positions (ICRS) of many targets; NaN where a row has no position on the sky."""

    ids: np.ndarray
    ra_deg: np.ndarray
    dec_deg: np.ndarray
    shape: tuple[int, ...] | None = None  # of what was handed in; one dimension by default
    table: Table | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def placed(self) -> np.ndarray:
        """Which rows have a position."""
        return np.isfinite(self.ra_deg)

    def places(self) -> list[tuple[float, float] | None]:
        """Return RA and Dec of every row, `None` where it has no position."""
        pairs = zip(self.ra_deg.tolist(), self.dec_deg.tolist(), strict=True)
        return [pair if pair[0] == pair[0] else None for pair in pairs]

    def __getitem__(self, rows: np.ndarray) -> Targets:
        """Return some of them."""
        return Targets(self.ids[rows], self.ra_deg[rows], self.dec_deg[rows])


# ---- positions ----------------------------------------------------------------------------------


def as_targets(
    value: Positions,
    id_column: str | None = None,
    *,
    ra: str | None = None,
    dec: str | None = None,
    name: str | None = None,
    parameter: str = "table",
) -> Targets:
    """Return all positions that users hand in; rows without one stay, as NaN."""
    from .user_tables import as_table

    table = as_table(value, parameter)
    if table is not None:
        degrees = positions_of_table(table, parameter, ra=ra, dec=dec, name=name)
        shape = () if isinstance(value, Row) else (len(table),)
        return Targets(_ids(table, id_column), *degrees, shape, table)
    for option, column in (("id_column", id_column), ("ra", ra), ("dec", dec), ("name", name)):
        if column is not None:
            refuse(option, column, "needs a table; positions have no columns.")
    ra_deg, dec_deg = _degrees(value, parameter)
    return Targets(np.arange(ra_deg.size), ra_deg.ravel(), dec_deg.ravel(), ra_deg.shape)


def as_position(
    value: Positions, parameter: str = "coordinates", **columns: Any
) -> tuple[float, float]:
    """Return RA and Dec, ICRS degrees, of exactly one position."""
    frame = value.frame.name if isinstance(value, SkyCoord) and not columns else ""
    if frame == "icrs" and isinstance(value, SkyCoord) and value.isscalar:
        # The shortest way, which most calls take.
        ra, dec = value.ra, value.dec
        ra_deg, dec_deg = ra.deg, dec.deg
        if np.isfinite(ra_deg) and np.isfinite(dec_deg) and not np.ma.is_masked(ra):
            return float(ra_deg), float(dec_deg)
    targets = as_targets(value, parameter=parameter, **columns)
    if len(targets) != 1:
        msg = (
            f"{parameter} has shape {targets.shape}; expected one position. For many see "
            "get_cutouts, download_cutouts, download_psfs, covers and crossmatch."
        )
        raise InvalidRequestError(msg, parameter=parameter, value=value)
    (place,) = targets.places()
    if place is None:
        refuse(parameter, value, "is not finite, or is no place on the sky.")
    return place


def as_sky(
    coordinates: Positions | None,
    radius: Angle | None = None,
    width: Angle | None = None,
    height: Angle | None = None,
    polygon: Positions | None = None,
    **columns: Any,
) -> Sky:
    """Return the part of the sky that a user means; ``columns`` are those of the coordinates."""
    kinds = [radius is not None, width is not None or height is not None, polygon is not None]
    if sum(kinds) != 1:
        msg = "Give one of radius=, width= (and height=) or polygon= to say how much of the sky."
        raise InvalidRequestError(msg, parameter="radius", value=radius)
    if polygon is not None:
        for parameter, value in {"coordinates": coordinates, **columns}.items():
            if value is not None:
                refuse(parameter, value, "is not for a polygon, whose corners say where it is.")
        corners = as_targets(polygon, parameter="polygon")
        if len(corners) < 3 or not corners.placed.all():
            refuse("polygon", polygon, "needs three corners or more, all of them finite.")
        shape = survey.sphere.Polygon(
            tuple(corners.ra_deg.tolist()), tuple(corners.dec_deg.tolist())
        )
        shape.bricks()
        return shape
    if coordinates is None:
        refuse("coordinates", None, "is needed with radius= or width=.")
    position = as_position(coordinates, **columns)
    if radius is not None:
        return survey.sphere.Circle(
            *position, survey.catalog_request.as_angle_deg("radius", radius, 180.0)
        )
    if width is None:
        refuse("width", width, "is needed with height=.")
    width_deg = survey.catalog_request.as_angle_deg(
        "width", width, survey.catalog_request.MAX_BOX_DEG
    )
    height_deg = (
        width_deg
        if height is None
        else survey.catalog_request.as_angle_deg(
            "height", height, survey.catalog_request.MAX_BOX_DEG
        )
    )
    return survey.sphere.Box(*position, width_deg, height_deg)


def warn_of_unplaced(targets: Targets, consequence: str) -> None:
    """Warn of rows that have no position, if there are any."""
    rows = np.flatnonzero(~targets.placed)
    if len(rows):
        shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        msg = (
            f"{len(rows)} of {len(targets)} rows have no position on the sky and {consequence}: "
            f"{shown}."
        )
        warn(msg, CoverageWarning)


def _degrees(value: Any, parameter: str) -> tuple[np.ndarray, np.ndarray]:
    """Return RA and Dec in degrees of what is no table, in its own shape."""
    if isinstance(value, (SkyCoord, BaseCoordinateFrame)):
        return icrs_degrees(value, parameter)
    if isinstance(value, str):
        ra_deg, dec_deg = _of_texts([value], parameter)
        return ra_deg.reshape(()), dec_deg.reshape(())
    if isinstance(value, u.Quantity):
        value = value.to_value(u.deg) if value.unit.is_equivalent(u.deg) else None
    if isinstance(value, Column):
        value = value.tolist()
    is_array = isinstance(value, np.ndarray) and value.dtype.kind in "fiu"
    if is_array and value.ndim == 2 and value.shape[1] == 2:
        return on_the_sky(*unmasked(value).T)
    is_list = isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray))
    if is_list or (isinstance(value, np.ndarray) and value.ndim):
        return _of_items(list(value), parameter)
    _refuse(parameter, value)


def _refuse(parameter: str, value: object) -> NoReturn:
    refuse(parameter, value, MUST_BRICKS if parameter == "bricks_or_coordinates" else MUST)


def _of_texts(texts: Sequence[object], parameter: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of texts, all of which have to have one."""
    ra_deg, dec_deg, unknown = read_positions(texts, parameter)
    if unknown:
        shown = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        verb = "is" if len(unknown) == 1 else "are each"
        msg = (
            f"position {shown} {verb} neither a position nor a name that the Sesame service knows."
        )
        raise InvalidRequestError(msg, parameter=parameter, value=unknown)
    if np.isnan(ra_deg).any():
        msg = f"position {texts[int(np.argmax(np.isnan(ra_deg)))]!r} is not {POSITION}."
        raise InvalidRequestError(msg, parameter=parameter, value=texts)
    return ra_deg, dec_deg


def _of_items(items: list, parameter: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of a list: of one pair, of pairs, of two columns, or of anything."""
    if not items:
        return np.zeros(0), np.zeros(0)
    pair = _pair(items, parameter)
    if pair is not None:
        return pair
    texts = [item for item in items if isinstance(item, str)]
    places = iter(zip(*_of_texts(texts, parameter), strict=True)) if texts else iter(())
    degrees = np.empty((len(items), 2))
    for row, item in enumerate(items):
        if isinstance(item, str):
            degrees[row] = next(places)
            continue
        ra_deg, dec_deg = _one(item, parameter)
        degrees[row] = ra_deg, dec_deg
    return degrees[:, 0], degrees[:, 1]


def _one(item: object, parameter: str) -> tuple[float, float]:
    """Return the position of one item of a list, NaN if it has none."""
    if isinstance(item, (Row, Mapping)):
        targets = as_targets(item, parameter=parameter)
        ra_deg, dec_deg = targets.ra_deg, targets.dec_deg
    else:
        ra_deg, dec_deg = _degrees(item, parameter)
    if ra_deg.size != 1:
        msg = f"{parameter} has an item of shape {ra_deg.shape}; expected one position."
        raise InvalidRequestError(msg, parameter=parameter, value=item)
    return float(ra_deg.ravel()[0]), float(dec_deg.ravel()[0])


def _pair(items: list, parameter: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return what two coordinates, two columns of them, or pairs of numbers mean; else `None`."""
    if len(items) == 2:
        axes = [_axis(item, axis) for item, axis in zip(items, ("ra", "dec"), strict=True)]
        ra, dec = axes
        if ra is not None and dec is not None and ra.shape == dec.shape:
            if ra.shape == (2,) and all(isinstance(item, (list, tuple)) for item in items):
                return on_the_sky(*np.array(items, float).T)
            if ra.shape == (2,):
                msg = (
                    f"{parameter} has two arrays of two numbers, which may be two pairs of RA and "
                    "Dec, or RA and Dec of two; write SkyCoord(ra, dec, unit='deg')."
                )
                raise InvalidRequestError(msg, parameter=parameter, value=items)
            return on_the_sky(ra, dec)
    if all(isinstance(item, (tuple, list, np.ndarray)) for item in items):
        try:
            degrees = np.array([_numbers(item) for item in items], float)
        except (TypeError, ValueError):
            return None
        if degrees.ndim == 2 and degrees.shape[1] == 2:
            return on_the_sky(*degrees.T)
        _refuse(parameter, items)
    return None


def _numbers(item: Any) -> np.ndarray | list | float:
    if isinstance(item, u.Quantity):
        return item.to_value(u.deg)
    return [one.to_value(u.deg) if isinstance(one, u.Quantity) else one for one in item]


def _axis(item: object, axis: str) -> np.ndarray | None:
    """Return an item as one coordinate or a column of them, in degrees; `None` if it is none."""
    if isinstance(item, str):
        if len(item.split()) == 2:
            return None
        try:
            return np.asarray(coordinate_deg(item, axis))
        except InvalidRequestError:
            return None
    if isinstance(item, u.Quantity):
        return unmasked(item.to_value(u.deg)) if item.unit.is_equivalent(u.deg) else None
    if isinstance(item, (bool, np.bool_)) or item is None:
        return None
    try:
        values = unmasked(item)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return values if values.ndim < 2 else None


# ---- tables -------------------------------------------------------------------------------------


def as_years(epoch: Time | None, n_rows: int) -> np.ndarray | None:
    """Return the Julian year of every position, or `None`."""
    if epoch is None:
        return None
    if not isinstance(epoch, Time) or epoch.shape not in ((), (n_rows,)):
        refuse("epoch", epoch, "must be an astropy Time, one or one per row.")
    return np.broadcast_to(np.asarray(epoch.tdb.jyear, dtype=float), (n_rows,))


def _find(table: Table, names: Sequence[str]) -> str | None:
    by_lower = {name.lower(): name for name in reversed(table.colnames)}
    return next((by_lower[name] for name in names if name in by_lower), None)


def _ids(table: Table, id_column: str | None) -> np.ndarray:
    name = _find(table, ("id",)) if id_column is None else id_column
    if name is None:
        return np.arange(len(table))
    if name not in table.colnames:
        refuse("id_column", name, f"is not a column; there are: {', '.join(table.colnames)}.")
    ids = table[name]
    if np.any(getattr(ids, "mask", False)) or ids.ndim != 1 or ids.dtype.kind not in "iuUSO":
        refuse("id_column", name, "must hold one integer or string for every row.")
    ids = np.array(ids)
    return ids if ids.dtype.kind in "iu" else ids.astype(str)


# ---- bricks -------------------------------------------------------------------------------------


class BricksAsked(NamedTuple):
    """What of the sky whole files are asked of."""

    ids: np.ndarray  # of bricks, ascending and each once
    sweeps: tuple[str, ...]  # names of sweep files
    positions: tuple[tuple[float, float], ...] | None = None  # if bricks are meant by theirs


def as_bricks(
    value: Positions | int | None,
    radius: Angle | None = None,
    *,
    ra: str | None = None,
    dec: str | None = None,
    name: str | None = None,
) -> BricksAsked:
    """Return the bricks that are named, numbered, or those at positions.

    With a radius they are all that the circles touch.  A column that is named counts more than one
    with the names of bricks.
    """
    is_by_columns = any(column is not None for column in (ra, dec, name))
    names, sweeps = (None, []) if is_by_columns else _names(value)
    if names is None:
        targets = as_targets(
            value,
            ra=ra,
            dec=dec,
            name=name,
            parameter="bricks_or_coordinates",
        )
        warn_of_unplaced(targets, "are left out")
        positions = None
        if radius is None:
            placed = targets.placed
            pairs = zip(targets.ra_deg[placed], targets.dec_deg[placed], strict=True)
            positions = tuple((float(ra), float(dec)) for ra, dec in pairs)
        return BricksAsked(bricks_at(targets, radius), (), positions)
    if radius is not None:
        refuse("radius", radius, "needs coordinates, not names of bricks.")
    ids = [parse_brick_name(name) if isinstance(name, str) else int(name) for name in names]
    for number in ids:
        if not 1 <= number <= N_BRICKS:
            refuse("bricks_or_coordinates", number, f"is no brick: they go from 1 to {N_BRICKS}.")
    numbers = np.unique(np.array(ids, dtype=np.int64))
    return BricksAsked(numbers, tuple(dict.fromkeys(sweeps)))


def as_sources(source: str | Sequence[str], allowed: Sequence[str]) -> tuple[str, ...]:
    """Return names of sources as a tuple, ``('auto',)`` where they are to be chosen."""
    try:
        names = tuple(source.replace(",", " ").split() if isinstance(source, str) else source)
    except TypeError:
        names = ()
    for name in names or (source,):
        if name not in allowed or (name == "auto" and len(names) > 1):
            must = f"must be one of {', '.join(allowed)}, or a sequence of those."
            refuse("source", source, must)
    return names


def bricks_at(targets: Targets, radius: Angle | None = None) -> np.ndarray:
    """Return the ids of the bricks at positions, or of all that circles touch, each once."""
    placed = targets[targets.placed]
    if radius is None:
        return np.unique(brick_id(placed.ra_deg, placed.dec_deg))
    radius_deg = survey.catalog_request.as_angle_deg("radius", radius, 180.0, zero=True)
    places = zip(placed.ra_deg, placed.dec_deg, strict=True)
    touched = [survey.sphere.bricks_in_circle(*at, radius_deg) for at in places]
    return np.unique(np.concatenate([np.array([], np.int64), *touched]))


def is_file_name(word: object) -> bool:
    """Return True if a word is meant as the name of a brick, even of none, or of a sweep file."""
    text = word.strip().lower() if isinstance(word, str) else ""
    digits = text[:4] + text[5:]
    is_brick = len(text) == 8 and text[4] in "pm" and digits.isdigit()
    return is_brick or is_sweep_name(text)


def _names(value: object) -> tuple[list | None, list[str]]:
    """Return names or numbers of bricks, or `None` for positions, and names of sweep files."""
    from .user_tables import as_table

    if value is None:
        return [], []
    words = value.replace(",", " ").split() if isinstance(value, str) else []
    if len(words) > 1 and all(is_file_name(word) for word in words):
        value = words
    table = None if is_file_name(value) else as_table(value, "bricks_or_coordinates")
    if table is not None:
        name = _find(table, ("brickname", "brickid"))
        return (None if name is None else np.ma.compressed(table[name]).tolist()), []
    items: Any = [value] if isinstance(value, (str, int, np.integer)) else value
    is_array = isinstance(items, np.ndarray) and items.ndim > 0
    if not (is_array or isinstance(items, (Sequence, set, frozenset))) or not len(items):
        return None, []
    texts = [item.strip().lower() if isinstance(item, str) else item for item in items]
    if not all(_is_number(text) or is_file_name(text) for text in texts):
        return None, []
    sweeps = [text.removesuffix(".fits") for text in texts if is_sweep_name(text)]
    return [text for text in texts if not is_sweep_name(text)], sweeps


def _is_number(item: object) -> bool:
    return isinstance(item, (int, np.integer)) and not isinstance(item, bool)
