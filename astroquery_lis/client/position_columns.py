"""Which columns of a table hold positions, and what they are in degrees.

Columns are found by their names, as catalogues spell them, or by their UCD: a column of SkyCoord, a
column of right ascension with its twin of declination, or a column of names.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import NoReturn

import numpy as np
from astropy import units as u
from astropy.coordinates import BaseCoordinateFrame, SkyCoord
from astropy.coordinates.errors import ConvertError
from astropy.table import Column, Table

from ..exceptions import CoverageWarning, InvalidRequestError, check_one_a_row, meant, refuse, warn
from .position_text import coordinate_deg, first_few, is_empty, read_positions

# The first that a table has is taken; other names are taken if only one pair has such.
USUAL = (
    *("ra", "raj2000", "_raj2000", "ra_icrs", "_ra_icrs", "ra_deg", "radeg", "_ra", "target_ra"),
    *("ra2000", "ra_j2000", "alpha_j2000", "alphawin_j2000", "right_ascension", "s_ra"),
    *("ramean", "ra_mean", "rastack", "mean_fiber_ra", "fiber_ra"),
)
NAME_COLUMNS = (
    *("name", "object", "object_name", "objname", "target", "target_name", "targetname"),
    *("main_id", "source_name", "source", "designation", "galaxy"),
    *("coordinates", "coords", "coord", "position", "positions", "pos", "radec", "ra_dec"),
)
TWINS = (
    *(("right_ascension", "declination"), ("rightascension", "declination"), ("alpha", "delta")),
    *(("ra", "dec"), ("ra", "de"), ("ra", "decl")),
)
UCDS = (
    *(("pos.eq.ra;meta.main", "pos.eq.dec;meta.main"), ("pos.eq.ra", "pos.eq.dec")),
    ("pos_eq_ra_main", "pos_eq_dec_main"),
)
# Errors, motions and offsets have twins too.
_NO_POSITION = re.compile(
    r"(^|[_ .])(e|err|error|errs|sig|sigma|std|rms|ivar|unc|var|cov|corr|pm|d|off|offset|diff)"
    r"([_ .]|$)|delta_ra|^(e_|pm|sig|err|d(?=ra|dec))|(err|error|ivar|std|rms|pm|off|sigma)$"
)
# Words for degrees and hours that astropy does not know, or knows for time.
_DEGREES = {"degrees", "degree", "deg.", "degs", "degr", "d", "°", "dd", "deg_angle", "[deg]"}
_HOURS = {"h", "hr", "hrs", "hour", "hours", "hourangle", "ra hours", "hours of ra"}
_UNIT_IN_NAME = re.compile(r"[_ (\[](rad|radians?|hours?|hrs?)[)\]]?$")
_FRAME = re.compile(r"\d* \(icrs\b.*\)$")  # behind "coord1" in the lists of SIMBAD
_SEXAGESIMAL_UNIT = re.compile(r'"?(?:(hh?)|dd?|deg):?m(?:m|in)?:?s(?:s|ec)?"?')


@dataclass(frozen=True)
class Columns:
    """The columns of a table that users name, by the options that name them."""

    ra: str | None = None
    dec: str | None = None
    name: str | None = None
    id_column: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """Those that were named."""
        return {option: column for option, column in vars(self).items() if column is not None}

    def refuse_any(self, must: str) -> None:
        """Refuse them where there is no table, if any were named."""
        for option, column in self.named.items():
            refuse(option, column, must)

    def check(self, table: Table) -> None:
        """Refuse those that a table does not have, and names beside coordinates."""
        for option, column in self.named.items():
            if not isinstance(column, str) or column not in table.colnames:
                must = f"is not a column of the table, which has: {', '.join(table.colnames)}."
                # Of a column in the place of its name, that name is meant.
                word = getattr(column, "name", column)
                refuse(option, column, must + meant(word, table.colnames))
        if self.name is not None and (self.ra, self.dec) != (None, None):
            refuse("name", self.name, "goes without ra and dec.")


NOT_NAMED = Columns()


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

    def warn_of_unplaced(self, consequence: str) -> None:
        """Warn of rows that have no position, if there are any."""
        rows = np.flatnonzero(~self.placed)
        if len(rows):
            msg = (
                f"{len(rows)} of {len(self)} rows have no position on the sky and {consequence}: "
                f"{first_few(rows)}."
            )
            warn(msg, CoverageWarning)

    def __getitem__(self, rows: np.ndarray) -> Targets:
        """Return some of them."""
        return Targets(self.ids[rows], self.ra_deg[rows], self.dec_deg[rows])


def has_positions(table: Table) -> bool:
    """Return True if columns of positions are found in a table."""
    try:
        return bool(_of_its_own(table, "table"))
    except InvalidRequestError:
        return False


def targets_of_table(table: Table, parameter: str, columns: Columns) -> Targets:
    """Return the positions of every row, NaN where it has none on the sky, and its name."""
    columns.check(table)
    # Names of places may be looked up, at the end.
    ids = _ids(table, columns.id_column)
    return Targets(ids, *_positions(table, parameter, columns), (len(table),), table)


def _positions(table: Table, parameter: str, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    names = _named(table, columns) or _of_its_own(table, parameter)
    for name in names:
        check_one_a_row(parameter, name, table[name].shape)
    if len(names) > 2:
        return on_the_sky(*_of_parts(table, names, parameter))
    if len(names) == 2:
        axes = zip(names, ("ra", "dec"), strict=True)
        return on_the_sky(*(_degrees(table, name, axis, parameter) for name, axis in axes))
    column = table[names[0]]
    if isinstance(column, SkyCoord):
        return icrs_degrees(np.atleast_1d(column), parameter)
    return _positions_of_names(column, parameter)


def _positions_of_names(column: Column, parameter: str) -> tuple[np.ndarray, np.ndarray]:
    """Return where the names of a column are; warn of those that nobody knows."""
    ra_deg, dec_deg, unknown = read_positions(texts_of(column), parameter)
    if unknown:
        shown = first_few(list(map(repr, unknown)))
        msg = f"{parameter}: the Sesame service knows no {shown}; those rows have no position."
        if np.isnan(ra_deg).all():
            raise InvalidRequestError(msg, parameter=parameter, value=unknown)
        warn(msg, CoverageWarning)
    return ra_deg, dec_deg


def icrs_degrees(
    coordinates: SkyCoord | BaseCoordinateFrame, parameter: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return RA and Dec of coordinates of any frame, in their shape; NaN where there is none."""
    is_sky = isinstance(coordinates, SkyCoord)
    try:
        there = (coordinates if is_sky else SkyCoord(coordinates)).icrs
    except (ConvertError, AttributeError, TypeError, ValueError, u.UnitsError) as error:
        name = coordinates.frame.name if is_sky else coordinates.name
        msg = f"{parameter} in the frame {name!r} cannot be brought to ICRS: {error}."
        raise InvalidRequestError(msg, parameter=parameter, value=coordinates) from error
    return on_the_sky(unmasked(there.ra.deg), unmasked(there.dec.deg))


def unmasked(values: np.ndarray) -> np.ndarray:
    """Return numbers as floats, NaN where they are masked in either of astropy's ways."""
    if hasattr(values, "to_numpy"):
        values = np.asarray(values, float)  # a Series, whose mask is a method
    mask = np.ma.getmaskarray(values) | getattr(values, "mask", False)
    plain = np.asarray(np.ma.getdata(getattr(values, "unmasked", values)))
    if plain.dtype.kind == "c":
        msg = "complex numbers are no angles"
        raise TypeError(msg)
    return np.where(mask, np.nan, np.asarray(plain, float))


def on_the_sky(ra_deg: np.ndarray, dec_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return positions with NaN for what is none, such as -9999 and 99 in both."""
    placed = np.isfinite(ra_deg) & (np.abs(dec_deg) <= 90) & (ra_deg >= -180) & (ra_deg <= 360)
    with np.errstate(invalid="ignore"):
        return np.where(placed, ra_deg % 360.0, np.nan), np.where(placed, dec_deg, np.nan)


# ---- finding them -------------------------------------------------------------------------------


def _named(table: Table, columns: Columns) -> tuple[str, ...]:
    """Return the columns of positions that were named, with the twin of one alone, if any were."""
    ra, dec = columns.ra, columns.dec
    if columns.name is not None:
        return (columns.name,)
    if ra is not None:
        is_whole = isinstance(table[ra], SkyCoord)
        return (ra,) if is_whole else (ra, dec or _twin(table, ra, "ra"))
    return () if dec is None else (_twin(table, dec, "dec"), dec)


def _of_its_own(table: Table, parameter: str) -> tuple[str, ...]:
    """Return the columns that the table's own names and UCDs tell."""
    mixed = tuple(name for name in table.colnames if isinstance(table[name], SkyCoord))
    if len(mixed) > 1:
        msg = f"{', '.join(mixed)} are all columns of SkyCoord; say with ra= which one."
        _refuse(parameter, msg, mixed)
    return mixed or _pair(table, parameter) or _names(table) or _refuse_none(table, parameter)


def _refuse_none(table: Table, parameter: str) -> NoReturn:
    """Say what a table has that has no positions."""
    shapes = {name: table[name].shape for name in table.colnames}
    there = [f"{n} of shape {s}" if len(s) > 1 else n for n, s in shapes.items()]
    msg = (
        f"has no columns of RA and Dec such as {', '.join(USUAL[:4])}, no column of SkyCoord "
        f"and none of names; it has: {', '.join(there)}. Say with ra= and dec= which "
        "ones hold the positions, or with name= the names."
    )
    _refuse(parameter, msg, table.colnames)


def columns_by_name(table: Table) -> dict[str, str]:
    """Return the columns of a table by their names in lower case, of several the first."""
    return {name.lower(): name for name in reversed(table.colnames)}


def _names(table: Table) -> tuple[str, ...]:
    """Return the column of names, if there is one."""
    by_lower = {_FRAME.sub("", name): column for name, column in columns_by_name(table).items()}
    columns = (by_lower[usual] for usual in NAME_COLUMNS if usual in by_lower)
    return tuple(column for column in columns if not _is_number(table[column]))[:1]


def _pair(table: Table, parameter: str) -> tuple[str, ...]:
    """Return the columns of RA and Dec that names and UCDs tell, or of their parts, if any."""
    parts = _parts(table)
    pairs = _pairs(table, parts)
    by_ra = {pair[0].lower(): pair for pair in reversed(pairs)}
    usual = [by_ra[name] for name in USUAL if name in by_ra]
    if usual:
        return usual[0]
    by_ucd = _by_ucd(table)
    if by_ucd and len(pairs) != 1:
        return by_ucd
    if len(pairs) > 1:
        texts = " or ".join(f"ra={one!r}, dec={two!r}" for one, two in pairs[:4])
        _refuse(parameter, f"has several pairs of positions; say {texts}.", table.colnames)
    return pairs[0] if pairs else parts


def _parts(table: Table) -> tuple[str, ...]:
    """Return the columns of hours, minutes, seconds and degrees, as CDS parts positions."""
    by_lower = columns_by_name(table)
    for dec in ("de", "dec"):
        names = ("rah", "ram", "ras", f"{dec}d", f"{dec}m", f"{dec}s")
        if by_lower.keys() >= set(names):
            return tuple(by_lower[name] for name in (*names, f"{dec}-") if name in by_lower)
    return ()


def _pairs(table: Table, parts: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the pairs of columns of angles, but parts, whose names differ as RA and Dec do."""
    pairs = list(_pairs_by_name(table))
    angles = {name for name in table.colnames if _may_be_angle(table[name])} - set(parts)
    numbers = {name for name in angles if _is_number(table[name])}
    # Degrees beside sexagesimal text say the same more exactly.
    of_numbers = [pair for pair in pairs if numbers.issuperset(pair)]
    return of_numbers or [pair for pair in pairs if angles.issuperset(pair)]


def _pairs_by_name(table: Table) -> Iterator[tuple[str, str]]:
    """Yield each column beside the first of its twins, if it has one."""
    by_lower = columns_by_name(table)
    for name in table.colnames:
        twins = [twin for twin in _twin_names(name.lower(), "ra") if twin in by_lower]
        if twins and not _NO_POSITION.search(name.lower()):
            yield name, by_lower[twins[0]]


def _twin_names(name: str, axis: str) -> Iterator[str]:
    """Yield the names of the other axis that a column in lower case may have beside it."""
    for words in TWINS:
        word, other = words if axis == "ra" else words[::-1]
        for match in re.finditer(re.escape(word), name):
            yield name[: match.start()] + other + name[match.end() :]


def _twin(table: Table, column: str, axis: str) -> str:
    """Return the column beside the one of an axis, which was named."""
    by_lower = columns_by_name(table)
    for twin in _twin_names(column.lower(), axis):
        if twin in by_lower:
            return by_lower[twin]
    option = {"ra": "dec", "dec": "ra"}[axis]
    refuse(option, None, f"is needed beside {column!r}: {', '.join(table.colnames)}.")


def _by_ucd(table: Table) -> tuple[str, ...]:
    """Return the columns whose UCDs are those of RA and Dec, if there are such."""
    ucds: dict[str, str] = {}
    angles = [name for name in table.colnames if _may_be_angle(table[name])]
    # Degrees are preferred to sexagesimal text.
    for name in sorted(angles, key=lambda name: not _is_number(table[name])):
        meta = getattr(table[name].info, "meta", None) or {}
        ucds.setdefault(str(meta.get("ucd")).lower().replace(" ", ""), name)
    pairs = ([ucds[ucd] for ucd in pair if ucd in ucds] for pair in UCDS)
    return next((tuple(pair) for pair in pairs if len(pair) == 2), ())


def _kind(column: object) -> str:
    return getattr(getattr(column, "dtype", None), "kind", "-")


def _is_number(column: object) -> bool:
    return _kind(column) in "fiu"


def _may_be_angle(column: object) -> bool:
    return _kind(column) in "fiuUSO" and getattr(column, "ndim", 1) == 1


@contextmanager
def without_unit_warnings() -> Iterator[None]:
    """Let FITS and VOTable have units that their standards lack, as the survey's files do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", u.UnitsWarning)
        warnings.simplefilter("ignore", import_module("astropy.io.votable.exceptions").VOWarning)
        yield


# ---- reading them -------------------------------------------------------------------------------


def _degrees(table: Table, name: str, axis: str, parameter: str) -> np.ndarray:
    column = table[name]
    unit_text = _unit_text(column)
    if not _is_number(column):
        return _degrees_of_texts(column, axis, unit_text, f"{parameter}={name}")
    factor = _degrees_per_unit(unit_text, axis, f"{parameter}={name}")
    return unmasked(getattr(column, "value", column)) * factor


def _of_parts(
    table: Table, columns: tuple[str, ...], parameter: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return RA and Dec of columns of their parts, the last of them perhaps of the sign."""
    hours, ra_minutes, ra_seconds, degrees, minutes, seconds = (
        _degrees_of_texts(table[name], "dec", "", f"{parameter}={name}") for name in columns[:6]
    )
    parts = np.stack([ra_minutes, ra_seconds, minutes, seconds])
    if ((parts < 0) | (parts > 60)).any():
        _refuse(parameter, f"has minutes or seconds beyond 60 in {', '.join(columns)}.", columns)
    is_south = np.signbit(degrees)
    if len(columns) > 6:
        signs = [str(text).strip() for text in texts_of(table[columns[6]])]
        is_south |= np.array(signs, str) == "-"
    elif table[columns[3]].dtype.kind in "iu" and (degrees == 0).any():
        must = "has degrees of 0, whose sign is lost; read that column as text."
        _refuse(f"{parameter}={columns[3]}", must, columns[3])
    dec_deg = np.abs(degrees) + minutes / 60 + seconds / 3600
    ra_deg = 15 * (hours + ra_minutes / 60 + ra_seconds / 3600)
    return ra_deg, np.where(is_south, -dec_deg, dec_deg)


def _unit_text(column: Column) -> str:
    unit = getattr(column, "unit", None)
    if unit is None:
        ending = _UNIT_IN_NAME.search(str(getattr(column, "name", "")).lower())
        return ending[1] if ending else ""
    return str(unit).strip()


def _degrees_per_unit(text: str, axis: str, where: str) -> float:
    """Return how many degrees a unit is, in whatever spelling."""
    lower = text.lower()
    if not text or lower in _DEGREES:
        return 1.0
    if lower in _HOURS and axis == "ra":
        return 15.0
    for spelling in (text, lower):
        try:
            return float(u.Unit(spelling).to(u.deg))
        except u.UnitConversionError:
            _refuse(where, f"is in {text}, which is no angle.", text)
        except (ValueError, TypeError):
            continue
    _refuse(where, f"has the unit {text!r}, which is not known to be an angle.", text)


def _degrees_of_texts(column: Column, axis: str, unit_text: str, where: str) -> np.ndarray:
    """Return degrees of a column of numbers or sexagesimal angles as text."""
    match = _SEXAGESIMAL_UNIT.fullmatch(unit_text.lower())
    in_hours = unit_text.lower() in _HOURS or bool(match and match[1])
    in_degrees = bool(unit_text) and not in_hours
    texts = ["" if is_empty(text) else str(text) for text in texts_of(column)]
    numbers = np.array(list(map(_number, texts)), float)
    is_plain = np.isfinite(numbers)
    for row in np.flatnonzero(~is_plain).tolist():
        numbers[row] = coordinate_deg(texts[row], axis, sexagesimal_is_degrees=in_degrees)
    if is_plain.any() and not match:
        numbers[is_plain] *= _degrees_per_unit(unit_text, axis, where)
    return numbers


def _number(text: str) -> float:
    """Return the number that a text is, NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return np.nan


def texts_of(column: Column) -> list[object]:
    """Return the values of a column of text, `None` where they are masked."""
    mask = np.ma.getmaskarray(column) | getattr(column, "mask", False)
    values = np.ma.getdata(getattr(column, "unmasked", column)).tolist()
    return [
        None if masked or value is None else _decoded(value)
        for value, masked in zip(values, np.broadcast_to(mask, len(values)), strict=True)
    ]


def _decoded(value: object) -> str:
    return value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else str(value)


def _refuse(parameter: str, must: str, value: object) -> NoReturn:
    msg = f"{parameter} {must}" if must[0].isalpha() else f"{parameter}={must}"
    raise InvalidRequestError(msg, parameter=parameter.partition("=")[0], value=value)


def column_of(table: Table, names: Sequence[str]) -> str | None:
    """Return the first of these names, in any case, that a table has."""
    by_name = columns_by_name(table)
    return next((by_name[name] for name in names if name in by_name), None)


def _ids(table: Table, id_column: str | None) -> np.ndarray:
    """Return what names the rows: a column, or their numbers."""
    name = id_column or column_of(table, ("id",))
    if name is None:
        return np.arange(len(table))
    ids = table[name]
    check_one_a_row("id_column", name, ids.shape)
    kind = _kind(ids)
    if kind in ("i", "u", "U") and not np.ma.is_masked(ids):
        return np.array(ids)
    words = texts_of(ids) if kind in ("S", "O") else [None]
    several = (list, tuple, set, dict, np.ndarray)  # as a column of objects may hold
    if None in words or any(isinstance(item, several) for item in ids):
        refuse("id_column", name, "must hold one integer or string for every row.")
    return np.array(words, str)
