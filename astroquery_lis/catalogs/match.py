"""A user's positions against the catalogue, brick by brick.

Each position is given to the bricks that its circle touches; in each brick the sidecar's positions
are searched with a tree, and only the rows that matched are read.  A source has one row that its
brick owns, in the region that is official there, so none can match twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeAlias

import numpy as np
from astropy import units as u
from astropy.table import Column, MaskedColumn, Table

from ..survey.bricks import brick_edges, brick_id
from ..survey.catalog_request import CatalogRequest
from ..survey.sphere import bricks_in_circle, separation_deg, unit_vectors
from .catalog_files import (
    Opened,
    RowFile,
    TractorFile,
    TractorFiles,
    brick_files,
    eligible,
    read_rows,
)
from .catalog_table import Chunk, merge_columns

MAX_RADIUS_DEG = 60 / 3600
MAX_MOTION_DEG = 60 / 3600
"""Stars that moved farther between the epochs are looked for no farther away than this."""

MANY_ROWS = 50_000
"""No brick has so many rows: of a file that has more, most rows are of other bricks."""

POLE_DEG = 88.0
TINY_DEG = 1e-9

Pairs: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Which position, which row of a file, and how far apart in degrees."""


@dataclass(frozen=True, eq=False)
class Positions:
    """Positions to match, NaN where a row has none, and how near a match has to be."""

    ra_deg: np.ndarray
    dec_deg: np.ndarray
    radius_deg: float
    epoch_yr: np.ndarray | None = None  # when each holds

    @property
    def reach_deg(self) -> float:
        """How far away a source may be listed that is near enough when it has moved."""
        return self.radius_deg + (0.0 if self.epoch_yr is None else MAX_MOTION_DEG)

    def vectors(self, index: np.ndarray) -> np.ndarray:
        """Return some of them as unit vectors."""
        return unit_vectors(self.ra_deg[index], self.dec_deg[index])

    def separation_deg(self, index: np.ndarray, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Return how far some of them are from as many others."""
        return separation_deg(self.ra_deg[index], self.dec_deg[index], ra, dec)


@dataclass(frozen=True)
class Matches:
    """Pairs of a position and a row of the catalogue."""

    index: np.ndarray  # which position, ascending; within one, by separation
    separation_deg: np.ndarray  # at the positions' epoch
    chunks: list[Chunk]
    row: np.ndarray  # which row of the chunks, counted through


def bricks_of_positions(
    ra_deg: np.ndarray, dec_deg: np.ndarray, radius_deg: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return which bricks the circle round each position touches."""
    owner = brick_id(ra_deg, dec_deg)
    pairs = [np.stack([owner, np.arange(len(owner))])]
    polar = np.abs(dec_deg) > POLE_DEG
    ratio = np.sin(np.radians(radius_deg)) / np.cos(np.radians(np.where(polar, 0, dec_deg)))
    half_ra = np.degrees(np.arcsin(ratio)) + TINY_DEG
    half_dec = radius_deg + TINY_DEG
    ra1, ra2, dec1, dec2 = brick_edges(owner)
    ra = ra_deg % 360.0
    is_inside = (ra - half_ra > ra1) & (ra + half_ra < ra2)
    is_inside &= (dec_deg - half_dec > dec1) & (dec_deg + half_dec < dec2)
    index = np.flatnonzero(~is_inside & ~polar)
    # The box round a circle is smaller than a brick: its corners and sides meet every one.
    for x in (-1, 0, 1):
        for y in (-1, 0, 1):
            dec = np.clip(dec_deg[index] + y * radius_deg, -90, 90)
            pairs.append(np.stack([brick_id(ra_deg[index] + x * half_ra[index], dec), index]))
    for place in np.flatnonzero(polar):
        touched = bricks_in_circle(float(ra_deg[place]), float(dec_deg[place]), radius_deg)
        pairs.append(np.stack([touched, np.full(len(touched), place)]))
    brick, index = np.concatenate(pairs, axis=1)
    key = np.sort(brick.astype(np.int64) * len(owner) + index)
    key = key[np.diff(key, prepend=-1) > 0]
    return key // len(owner), key % len(owner)


def _match(
    request: CatalogRequest, positions: Positions, files: TractorFiles, find: str
) -> Matches:
    """Match positions to the catalogue."""
    placed = np.flatnonzero(np.isfinite(positions.ra_deg) & np.isfinite(positions.dec_deg))
    ra_deg, dec_deg = positions.ra_deg[placed], positions.dec_deg[placed]
    brick, index = bricks_of_positions(ra_deg, dec_deg, positions.reach_deg)
    index = placed[index]
    bricks = brick_files(np.unique(brick), request.release, request.region)
    tables = files.opened(files.grouped(tuple(bricks), request.release))
    none = np.empty(0, int)
    pairs = [(none, none, none, np.empty(0))]
    for number, (file, table, _) in enumerate(tables):
        ends = [np.searchsorted(brick, [number, number + 1]) for number in file.bricks]
        near = np.unique(np.concatenate([index[first:last] for first, last in ends]))
        rows = rows_of(table, file, request)
        pairs_of_file = _pairs(table, rows, near, positions)
        pairs += [(np.full(len(pair[0]), number), *pair) for pair in pairs_of_file]
    which, place, row, apart = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return _collect(tables, which, (place, row, apart), find, request)


def rows_of(table: TractorFile, file: RowFile, request: CatalogRequest) -> np.ndarray:
    """Return the rows of a file that can match: of a sweep, those in the bricks that are meant."""
    is_meant = eligible(table.positions, file, request)
    if len(is_meant) <= MANY_ROWS:
        return np.flatnonzero(is_meant)
    ra, dec = table.positions["ra"], table.positions["dec"]
    _, _, south, north = brick_edges(np.array(file.bricks))
    is_meant &= (dec >= south.min()) & (dec <= north.max()) & np.isfinite(ra)
    rows = np.flatnonzero(is_meant)
    return rows[np.isin(brick_id(ra[rows], dec[rows]), file.bricks)]


def _pairs(
    table: TractorFile, rows: np.ndarray, near: np.ndarray, positions: Positions
) -> Iterator[Pairs]:
    """Yield the pairs in one file: of still sources, of movers."""
    names = ("pmra", "pmdec", "ref_epoch", "ref_cat")
    epoch_yr = positions.epoch_yr
    motion = {} if epoch_yr is None else table.read(rows, names)
    if epoch_yr is None or len(motion) < len(names):
        yield _near(table, rows, near, positions, positions.radius_deg)
        return
    pm = np.hypot(motion["pmra"], motion["pmdec"])
    moves = (pm > 0) & np.char.startswith(motion["ref_cat"], "G")
    yield _near(table, rows[~moves], near, positions, positions.radius_deg)
    if moves.any():
        rates = [motion[name][moves].astype(float) for name in names[:3]]
        yield _moved(table, rows[moves], near, positions, epoch_yr, *rates)


def _moved(
    table: TractorFile,
    rows: np.ndarray,
    near: np.ndarray,
    positions: Positions,
    epoch_yr: np.ndarray,
    *rates: np.ndarray,
) -> Pairs:
    """Return the pairs of sources that move, each moved to the epoch of the position."""
    pmra, pmdec, ref_epoch = rates
    years = max(
        abs(epoch_yr[near].max() - ref_epoch.min()),
        abs(epoch_yr[near].min() - ref_epoch.max()),
    )
    reach = min(float(np.hypot(pmra, pmdec).max()) * years / 3.6e6, MAX_MOTION_DEG)
    place, row, _ = _near(table, rows, near, positions, positions.radius_deg + reach)
    at = np.searchsorted(rows, row)
    time_yr = epoch_yr[place] - ref_epoch[at]
    ra, dec = table.positions["ra"][row], table.positions["dec"][row]
    moved_dec = dec + pmdec[at] * time_yr / 3.6e6
    moved_ra = ra + pmra[at] * time_yr / 3.6e6 / np.cos(np.radians(dec))
    apart = positions.separation_deg(place, moved_ra, moved_dec)
    inside = apart <= positions.radius_deg
    return place[inside], row[inside], apart[inside]


def _near(
    table: TractorFile,
    rows: np.ndarray,
    near: np.ndarray,
    positions: Positions,
    radius_deg: float,
) -> Pairs:
    """Return every pair within a radius."""
    if not len(rows) or not len(near):
        return np.empty(0, int), np.empty(0, int), np.empty(0)
    # A third of the time that importing the package would take.
    from scipy.spatial import cKDTree

    ra, dec = table.positions["ra"][rows], table.positions["dec"][rows]
    chord = 2 * np.sin(np.radians(radius_deg) / 2) * (1 + 1e-9) + 1e-15
    # Trees that are searched once need not be good ones.
    ours, theirs = (
        cKDTree(vectors, balanced_tree=False, compact_nodes=False)
        for vectors in (positions.vectors(near), unit_vectors(ra, dec))
    )
    pairs = ours.sparse_distance_matrix(theirs, chord, output_type="ndarray")
    place, at = near[pairs["i"]], pairs["j"]
    apart = positions.separation_deg(place, ra[at], dec[at])
    inside = apart <= radius_deg
    return place[inside], rows[at[inside]], apart[inside]


def _collect(
    tables: Sequence[Opened],
    which: np.ndarray,
    pairs: Pairs,
    find: str,
    request: CatalogRequest,
) -> Matches:
    """Keep the pairs that are asked for, and read their rows; ``which`` table each is of."""
    place, row, apart = pairs
    order = np.lexsort((row, which, apart, place))
    if find == "best":
        order = order[np.unique(place[order], return_index=True)[1]]
    chunks, position, start = [], np.empty(len(order), int), 0
    # Which columns there are does not depend on what matched.
    for number, (file, table, _) in enumerate(tables):
        pair = np.flatnonzero(which[order] == number)
        rows, inverse = np.unique(row[order][pair], return_inverse=True)
        chunks.append(read_rows(table, file, rows, request.needed))
        position[pair] = start + inverse
        start += len(rows)
    return Matches(place[order], apart[order], chunks, position)


def match_table(
    request: CatalogRequest,
    table: Table,
    positions: Positions,
    files: TractorFiles,
    find: str,
) -> Table:
    """Match a table to the catalogue."""
    matches = _match(request, positions, files, find)
    request = request.without(files.lacking(request, matches.chunks))
    columns = request.columns or ()
    merged = merge_columns(request, matches.chunks, columns)
    if find == "all":
        result, place = table[matches.index], np.arange(len(matches.index))
    else:
        result, place = table.copy(), matches.index
    n_rows = len(result)
    missing = np.ones(n_rows, bool)
    missing[place] = False
    apart = np.zeros(n_rows)
    apart[place] = matches.separation_deg * 3600
    # The catalogue's positions never take the place of the user's, when the result is read again.
    names = {"ra", "dec", *(name.lower() for name in table.colnames)}
    added = [_column(_free("separation", names), apart, missing, None, u.arcsec)]
    for column in columns:
        values, mask = merged[column.name]
        full = np.full((n_rows, *values.shape[1:]), column.missing, values.dtype)
        full[place] = values[matches.row]
        gap = None
        if mask is not None:
            gap = np.zeros(full.shape, bool)
            gap[place] = mask[matches.row]
        added.append(_column(_free(column.name, names), full, missing, gap, column.unit))
    result.add_columns(added)
    result.meta["crossmatch"] = {
        "survey": "DESI Legacy Imaging Surveys",
        "release": request.release,
        "region": request.region,
        "radius_arcsec": positions.radius_deg * 3600,
        "find": find,
    }
    return result


def _free(name: str, names: set[str]) -> str:
    """Return a name that the table has in no case: with ``_tractor``, ``_tractor2`` and so on."""
    candidates = (f"{name}_tractor{number if number > 1 else ''}" for number in count(1))
    free = name if name not in names else next(c for c in candidates if c not in names)
    names.add(free)
    return free


def _column(
    name: str,
    values: np.ndarray,
    missing: np.ndarray,
    mask: np.ndarray | None,
    unit: u.UnitBase | None,
) -> Column:
    """Return a column, masked where there is no match or no value."""
    if missing.any() or (mask is not None and mask.any()):
        shaped = missing.reshape(-1, *[1] * (values.ndim - 1))
        gap = np.broadcast_to(shaped, values.shape).copy()
        if mask is not None:
            gap |= mask
        return MaskedColumn(values, name=name, mask=gap, unit=unit)
    return Column(values, name=name, unit=unit)
