"""What the catalogue's columns, numbers and units mean, whichever source they come from.

Rows can be asked for by their ids: ``ls_id``, DESI's TARGETID, or release, brickid and objid.  The
number of the release tells the two packings apart: what is a release in one is none in the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, reduce
from operator import truediv
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.table import Row, Table

from ..exceptions import check_one_a_row, refuse
from .bricks import N_BRICKS, is_north
from .photometry import Values, plain_numbers
from .releases import RELEASES, get_release
from .sphere import Circle, Part
from .tractor_columns import ROW_KEY

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


__all__ = [
    "TYPES",
    "axis_ratio_and_angle",
    "ellipticity",
    "parse_unit",
    "row_ids",
    "split_row_ids",
    "split_target_ids",
    "target_ids",
]

_TARGET_BITS = ((42, 16), (22, 20), (0, 22))
"""Where release, brickid and objid begin in a TARGETID, and how many bits each has."""


TYPES = {
    "PSF": "point source",
    "REX": "round exponential galaxy",
    "EXP": "exponential galaxy",
    "DEV": "de Vaucouleurs galaxy",
    "SER": "Sersic galaxy (DR9 on)",
    "COMP": "exponential and de Vaucouleurs galaxy (to DR8)",
    "SIMP": "exponential galaxy of 0.45 arcsec (to DR4)",
    "DUP": "Gaia source that was fitted as part of an extended one; it has no optical flux",
}
"""Values of ``type``."""

_UNIT_SPELLINGS = {
    "nanomaggy": "nmgy",
    "nanomaggies": "nmgy",
    "nanomaggie": "nmgy",
    "magnitudes": "mag",
    "magnitude": "mag",
    "degrees": "deg",
    "pixels": "pix",
    "pixel": "pix",
    "days": "day",
    "sec": "s",
    "years": "yr",
}


def parse_unit(text: str | None) -> u.UnitBase | None:
    """Return the astropy unit that a unit as the survey writes it means.

    Parameters
    ----------
    text : str or None
        For example ``'nanomaggies^(-2)'`` or ``'1/(mas/yr)^2'``; DR5 to DR11 spell them in many
        ways.

    Returns
    -------
    `~astropy.units.Unit` or None
        `None` for no unit, or for one that means nothing to astropy.

    Examples
    --------
    >>> from astroquery_lis.survey.tractor import parse_unit
    >>> parse_unit('nanomaggies^(-2)')
    Unit("1 / nmgy2")
    """
    text = (text or "").strip()
    outer = -1 if text.startswith("1/") else 1
    parts = text.removeprefix("1/").replace("**", "^").rsplit("^", 1)
    base, power = [*parts, "1"][:2]
    names = [name.strip() for name in base.strip().removeprefix("(").removesuffix(")").split("/")]
    if not all(names):
        return None
    try:
        units = [u.Unit(_UNIT_SPELLINGS.get(name.lower(), name)) for name in names]
        return reduce(truediv, units) ** (outer * int(power.strip().strip("()")))
    except (ValueError, TypeError):
        return None


@cache
def _packing(release: str) -> tuple[int, int]:
    """Return by how many bits RELEASE and BRICKID are shifted in the row id of a release."""
    return (42, 22) if get_release(release).number >= 11 else (40, 16)


def row_ids(number: ArrayLike, brickid: ArrayLike, objid: ArrayLike, release: str) -> np.ndarray:
    """Return the unique id of catalogue rows, ``ls_id``.

    Parameters
    ----------
    number, brickid, objid : array_like of int
        The columns ``release``, ``brickid`` and ``objid``.
    release : str
        Its packing is taken: ``release << 40 | brickid << 16 | objid`` up to DR10 (Astro Data
        Lab), ``release << 42 | brickid << 22 | objid`` from DR11 on (legacypipe).

    Returns
    -------
    `~numpy.ndarray` of int64

    Examples
    --------
    >>> from astroquery_lis.survey.tractor import row_ids
    >>> row_ids([10000], [338328], [12], 'dr10').tolist()
    [10995138450423820]
    """
    high, low = _packing(release)
    number, brickid, objid = (np.asarray(v, dtype=np.int64) for v in (number, brickid, objid))
    return (number << high) | (brickid << low) | objid


def split_row_ids(ls_id: ArrayLike, release: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `row_ids` put together.

    Parameters
    ----------
    ls_id : array_like of int
        Row ids.
    release : str
        The release that they belong to.

    Returns
    -------
    number, brickid, objid : `~numpy.ndarray` of int64

    Examples
    --------
    >>> from astroquery_lis.survey.tractor import row_ids, split_row_ids
    >>> [int(part[0]) for part in split_row_ids(row_ids([10000], [338328], [12], 'dr10'), 'dr10')]
    [10000, 338328, 12]
    """
    high, low = _packing(release)
    ls_id = np.asarray(ls_id, dtype=np.int64)
    return ls_id >> high, (ls_id >> low) & ((1 << (high - low)) - 1), ls_id & ((1 << low) - 1)


def target_ids(number: ArrayLike, brickid: ArrayLike, objid: ArrayLike) -> np.ndarray:
    """Return DESI's TARGETID of catalogue rows.

    Parameters
    ----------
    number, brickid, objid : array_like of int
        The columns ``release``, ``brickid`` and ``objid``.

    Returns
    -------
    `~numpy.ndarray` of int64
        ``release << 42 | brickid << 22 | objid``, as desitarget packs the targets of the survey.

    Raises
    ------
    InvalidRequestError
        If a number does not fit into its bits: 16, 20 and 22.

    Examples
    --------
    >>> from astroquery_lis import tractor
    >>> tractor.target_ids(9010, 338328, 12).tolist()
    39627818115530764
    """
    parts = {"number": number, "brickid": brickid, "objid": objid}
    packed = np.zeros((), np.int64)
    for (name, value), (shift, bits) in zip(parts.items(), _TARGET_BITS, strict=True):
        array = np.asarray(value)
        if array.dtype.kind not in "iu" or ((array < 0) | (array >= 1 << bits)).any():
            refuse(name, value, f"must be whole numbers from 0 to {(1 << bits) - 1}.")
        packed = packed | (array.astype(np.int64) << shift)
    return packed


def split_target_ids(
    targetid: ArrayLike, *, check: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `target_ids` put together.

    Parameters
    ----------
    targetid : array_like of int
        DESI's TARGETID.
    check : bool, default: True
        Refuse ids that are of no source of the survey: of mocks, of blank sky, or of Gaia alone.

    Returns
    -------
    number, brickid, objid : `~numpy.ndarray` of int64
        What the columns ``release``, ``brickid`` and ``objid`` of the source hold.

    Raises
    ------
    InvalidRequestError
        If an id is of no source of the survey.

    Examples
    --------
    >>> from astroquery_lis import tractor
    >>> [int(part) for part in tractor.split_target_ids(39627818115530764)]
    [9010, 338328, 12]
    """
    array = np.asarray(targetid)
    if check and (array.dtype.kind not in "iu" or ((array < 0) | (array >> 58 != 0)).any()):
        must = (
            "must be of sources of the survey; bits 58 and up mark mocks, "
            "blank sky and sources of Gaia alone."
        )
        refuse("targetid", targetid, must)
    array = array.astype(np.int64)
    number, brickid, objid = ((array >> s) & ((1 << bits) - 1) for s, bits in _TARGET_BITS)
    return number, brickid, objid


def axis_ratio_and_angle(e1: Values, e2: Values) -> tuple[np.ndarray, u.Quantity]:
    """Return axis ratio and position angle from ellipticity components.

    Parameters
    ----------
    e1, e2 : array_like of float
        ``shape_e1`` and ``shape_e2``.

    Returns
    -------
    ratio : `~numpy.ndarray` of float
        Minor to major axis.
    angle : `~astropy.units.Quantity` ['angle']
        Of the major axis, 0 to 180 deg from north to east.

    Notes
    -----
    ``|e| = (a - b) / (a + b)`` and ``e1 + i e2 = |e| exp(2 i angle)`` (DR8 to DR10 catalogue
    pages).

    Examples
    --------
    >>> from astroquery_lis import tractor
    >>> ratio, angle = tractor.axis_ratio_and_angle(0.2, 0.0)
    >>> round(float(ratio), 3)
    0.667
    """
    e1, e2 = plain_numbers(e1), plain_numbers(e2)
    size = np.hypot(e1, e2)
    angle = np.degrees(0.5 * np.arctan2(e2, e1)) % 180.0
    return (1 - size) / (1 + size), angle * u.deg


def ellipticity(ratio: Values, angle: u.Quantity) -> tuple[np.ndarray, np.ndarray]:
    """Return ellipticity components: the inverse of `axis_ratio_and_angle`.

    Parameters
    ----------
    ratio : array_like of float
        Minor to major axis, above 0 and up to 1.
    angle : `~astropy.units.Quantity` ['angle']
        Position angle.

    Returns
    -------
    e1, e2 : `~numpy.ndarray` of float

    Examples
    --------
    >>> import astropy.units as u
    >>> from astroquery_lis import tractor
    >>> e1, e2 = tractor.ellipticity(0.5, 90 * u.deg)
    >>> round(float(e1), 3)
    -0.333
    """
    ratio = plain_numbers(ratio)
    size = (1 - ratio) / (1 + ratio)
    twice = 2 * u.Quantity(angle).to_value(u.rad)
    return size * np.cos(twice), size * np.sin(twice)


# ---- rows that are asked for by their ids --------------------------------------------------------

NORTH_NUMBERS = (8001, 9011)
"""Numbers of the column RELEASE whose files are those of the north."""

SOUTH_NUMBERS = (8000, 9010, 9012, 10000, 10001, 10002)
_REGIONS = dict.fromkeys(NORTH_NUMBERS, ("north",)) | dict.fromkeys(SOUTH_NUMBERS, ("south",))

WHOLE_SKY = Circle(0.0, 0.0, 180.0)

_MUST = (
    "must be ls_id or TARGETID, one or many, rows (release, brickid, objid), or a Table with such "
    "columns"
)


@dataclass(frozen=True)
class RowIds(Part):
    """Rows by number of the release, brick and object: a part of the sky like a circle, or so."""

    keys: tuple[tuple[int, int, int], ...]  # each once, in the order asked for

    needs = ROW_KEY

    @property
    def enclosing(self) -> Circle:
        """All of the sky: where the rows are is not known."""
        return WHOLE_SKY

    def contains(self, number: np.ndarray, brickid: np.ndarray, objid: np.ndarray) -> np.ndarray:
        """Return which rows are among them."""
        return self.places(number, brickid, objid) >= 0

    def order(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the order in which they were asked for."""
        return np.argsort(self.places(*(rows[name] for name in ROW_KEY)))

    def bricks(self, margin_deg: float = 0.0) -> np.ndarray:
        """Return the ids of the bricks."""
        return np.unique([key[1] for key in self.keys])

    def bricks_of(self, region: str) -> np.ndarray:
        """Return the ids of the bricks whose rows may be in the files of a region."""
        others = SOUTH_NUMBERS if region == "north" else NORTH_NUMBERS
        return np.unique([key[1] for key in self.keys if key[0] not in others]).astype(int)

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """The ids packed and sorted, and which place each has in the order asked for."""
        number, brickid, objid = np.transpose(self.keys)
        packed = target_ids(number, brickid, objid)
        order = np.argsort(packed)
        return packed[order], order

    def places(self, number: np.ndarray, brickid: np.ndarray, objid: np.ndarray) -> np.ndarray:
        """Return which of the ids each row is, -1 for none of them."""
        packed, order = self._sorted
        rows = target_ids(number, brickid, objid)
        near = np.minimum(np.searchsorted(packed, rows), len(packed) - 1)
        return np.where(packed[near] == rows, order[near], -1)


def as_row_ids(ids: object, release: str | None) -> tuple[RowIds, str]:
    """Return the rows that ids mean, and the name of their release."""
    parts = np.stack([np.atleast_1d(part).astype(np.int64) for part in _parts(ids)])
    number, brickid, objid = parts
    if not len(number):
        refuse("ids", ids, f"{_MUST}; there is none.")
    bad = (brickid < 1) | (brickid > N_BRICKS) | (objid < 0) | ~_is_release(number)
    if bad.any():
        refuse("ids", ids, f"has {tuple(parts[:, bad][:, 0].tolist())}, which is no row.")
    name = get_release(int(number.max()) // 1000 if release is None else release).name
    foreign = {f"dr{n // 1000}" for n in np.unique(number).tolist() if not _is_of(n, name)}
    if foreign:
        others = ", ".join(sorted(foreign))
        refuse("ids", ids, f"has rows of {others}, not of {name}; ask for each release by itself.")
    return RowIds(tuple(dict.fromkeys(map(tuple, parts.T.tolist())))), name


def _is_of(number: int, release: str) -> bool:
    """Tell whether a number of the column RELEASE stands in the files of a release."""
    trees = get_release(release).trees
    regions = _REGIONS.get(number, tuple(trees))
    owner = f"dr{number // 1000}"
    return any(region in trees and trees[region].release == owner for region in regions)


def _is_release(number: np.ndarray) -> np.ndarray:
    return np.isin(number // 1000, [release.number for release in RELEASES.values()])


def _parts(ids: object) -> Sequence[np.ndarray]:
    """Return the numbers of releases, bricks and objects."""
    if isinstance(ids, (Table, Row)):
        return _of_table(ids)
    if isinstance(ids, str):
        ids = ids.replace(",", " ").split()
    array = _whole_numbers(ids, ids)
    if array.ndim == 2 and array.shape[1] == len(ROW_KEY):
        return tuple(array.T)
    if array.ndim > 1:
        refuse("ids", ids, f"{_MUST}.")
    return _unpacked(np.atleast_1d(array))


def _whole_numbers(values: object, shown: object) -> np.ndarray:
    """Return whole numbers, also of text; refuse others, with what a message shows of them."""
    try:
        array = np.asarray(values)
        array = array.astype(np.int64) if array.dtype.kind == "U" else array
    except (TypeError, ValueError, OverflowError):
        array = np.empty(1)
    if np.ma.is_masked(values) or array.dtype.kind not in "iu":
        refuse("ids", shown, f"{_MUST}; whole numbers, none of them masked.")
    return array


def _of_table(table: Table | Row) -> Sequence[np.ndarray]:
    if isinstance(table, Row):
        table = table.table[table.index : table.index + 1]
    columns = {name.lower(): table[name] for name in table.colnames}
    keys = (ROW_KEY, ("ls_id",), ("targetid",))
    names = next((key for key in keys if columns.keys() >= set(key)), ())
    if not names:
        refuse("ids", table.colnames, f"{_MUST}; the table has none of them.")
    arrays = [_whole_numbers(columns[name], name) for name in names]
    for name, array in zip(names, arrays, strict=True):
        check_one_a_row("ids", name, array.shape)
    return arrays if len(arrays) > 1 else _unpacked(arrays[0])


def _unpacked(packed: np.ndarray) -> Sequence[np.ndarray]:
    """Return the parts of ids, each unpacked as what it can be."""
    packed = packed.astype(np.int64)
    as_target = np.array(split_target_ids(packed, check=False))
    as_row = np.array(split_row_ids(packed, "dr10"))
    return tuple(np.where(_is_release(as_target[0]), as_target, as_row))


def northern_rows(
    columns: Mapping[str, np.ndarray], release: str, region: str = "auto"
) -> np.ndarray:
    """Return which rows are of the north: their number of the release tells up to DR10."""
    number = np.asarray(columns["release"])
    if region != "auto":
        return np.full(number.shape, region == "north")
    regions = get_release(release).regions
    if len(regions) == 1:
        return np.full(number.shape, regions[0] == "north")
    north = np.isin(number, NORTH_NUMBERS)
    unknown = ~north & ~np.isin(number, SOUTH_NUMBERS)
    if unknown.any():
        ra_deg, dec_deg = (np.asarray(columns[name])[unknown] for name in ("ra", "dec"))
        north[unknown] = is_north(ra_deg, dec_deg)
    return north
