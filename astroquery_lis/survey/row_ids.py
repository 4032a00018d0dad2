"""Rows of the catalogue that are asked for by their ids: which rows, and in which files.

An id is ``ls_id``, DESI's TARGETID, or release, brickid and objid.  The number of the release tells
the two packings apart: what is a release in one is none in the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from astropy.table import Row, Table

from ..exceptions import refuse
from .bricks import N_BRICKS, is_north
from .releases import RELEASES, get_release, get_tree
from .sphere import Circle
from .tractor import split_row_ids, split_target_ids, target_ids
from .tractor_columns import ROW_KEY

NORTH_NUMBERS = (8001, 9011)
"""Numbers of the column RELEASE whose files are those of the north."""

SOUTH_NUMBERS = (8000, 9010, 9012, 10000, 10001, 10002)

_MUST = (
    "must be ls_id or TARGETID, one or many, rows (release, brickid, objid), or a Table with such "
    "columns"
)


@dataclass(frozen=True)
class RowIds:
    """Rows by number of the release, brick and object: a part of the sky like a circle, or so."""

    keys: tuple[tuple[int, int, int], ...]  # each once, in the order asked for

    center = None

    @property
    def enclosing(self) -> Circle:
        """All of the sky: where the rows are is not known."""
        return Circle(0.0, 0.0, 180.0)

    def contains(self, ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
        """Return True for every position."""
        return np.ones(np.shape(ra_deg), bool)

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
    parts = [np.atleast_1d(part).astype(np.int64) for part in _parts(ids)]
    number, brickid, objid = parts
    if not len(number):
        refuse("ids", ids, f"{_MUST}; there is none.")
    bad = (brickid < 1) | (brickid > N_BRICKS) | (objid < 0) | ~_is_release(number)
    if bad.any():
        place = int(np.flatnonzero(bad)[0])
        refuse("ids", ids, f"has {tuple(int(part[place]) for part in parts)}, which is no row.")
    name = f"dr{number.max() // 1000}" if release is None else get_release(release).name
    others = sorted({f"dr{n // 1000}" for n in np.unique(number) if not _is_of(int(n), name)})
    if others:
        must = f"has rows of {', '.join(others)}, not of {name}; ask for each release by itself."
        refuse("ids", ids, must)
    keys = zip(number.tolist(), brickid.tolist(), objid.tolist(), strict=True)
    return RowIds(tuple(dict.fromkeys(keys))), name


def _is_of(number: int, release: str) -> bool:
    """Tell whether a number of the column RELEASE stands in the files of a release."""
    regions = get_release(release).regions
    if number in NORTH_NUMBERS or number in SOUTH_NUMBERS:
        regions = ("north",) if number in NORTH_NUMBERS else ("south",)
    trees = get_release(release).trees
    return any(
        get_tree(release, region).release == f"dr{number // 1000}"
        for region in regions
        if region in trees
    )


def _is_release(number: np.ndarray) -> np.ndarray:
    names = [int(name.removeprefix("dr")) for name in RELEASES]
    return np.isin(number // 1000, names)


def _parts(ids: object) -> Sequence[np.ndarray]:
    """Return the numbers of releases, bricks and objects."""
    if isinstance(ids, (Table, Row)):
        return _of_table(ids)
    if isinstance(ids, str):
        ids = ids.replace(",", " ").split()
    try:
        array = np.asarray(ids)
        array = array.astype(np.int64) if array.dtype.kind == "U" else array
    except (TypeError, ValueError, OverflowError):
        array = np.empty(1)
    if np.ma.is_masked(ids) or array.dtype.kind not in "iu":
        refuse("ids", ids, f"{_MUST}; whole numbers, none of them masked.")
    if array.ndim == 2 and array.shape[1] == len(ROW_KEY):
        return tuple(array.T)
    if array.ndim > 1:
        refuse("ids", ids, f"{_MUST}.")
    return _unpacked(np.atleast_1d(array))


def _of_table(table: Table | Row) -> Sequence[np.ndarray]:
    columns = {name.lower(): table[name] for name in table.colnames}
    names = [name for name in ("ls_id", "targetid") if name in columns]
    names = list(ROW_KEY) if set(ROW_KEY) <= set(columns) else names[:1]
    if not names:
        refuse("ids", table.colnames, f"{_MUST}; the table has none of them.")
    arrays = [np.atleast_1d(np.asarray(columns[name])) for name in names]
    for name, array in zip(names, arrays, strict=True):
        if np.ma.is_masked(columns[name]) or array.dtype.kind not in "iu":
            refuse("ids", name, f"{_MUST}; whole numbers, none of them masked.")
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
