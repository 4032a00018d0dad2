"""A user's positions against the catalogue, brick by brick.

Each position is given to the bricks that its circle touches; in each brick the sidecar's positions
are searched with a tree, and only the rows that matched are read.  A source has one row that its
brick owns, in the region that is official there, so none can match twice.
"""

from dataclasses import dataclass

import numpy as np

from ..survey.bricks import brick_id
from ..survey.sphere import bricks_in_circle, separation_deg, unit_vectors
from .catalog_files import brick_files, eligible, read_rows

__all__ = ["MAX_RADIUS_DEG", "Matches", "bricks_of_positions", "match_positions"]

MAX_RADIUS_DEG = 60 / 3600
MAX_MOTION_DEG = 60 / 3600
"""Stars that moved farther between the epochs are looked for no farther away than this."""

POLE_DEG = 88.0


@dataclass(frozen=True)
class Matches:
    """Pairs of a position and a row of the catalogue."""

    index: np.ndarray  # which position, ascending; within one, by separation
    separation_deg: np.ndarray  # at the positions' epoch
    chunks: list
    row: np.ndarray  # which row of the chunks, counted through


def bricks_of_positions(ra_deg, dec_deg, radius_deg):
    """Return which bricks the circle round each position touches."""
    owner = brick_id(ra_deg, dec_deg)
    index = np.arange(len(owner))
    pairs = [np.stack([owner, index])]
    polar = np.abs(dec_deg) > POLE_DEG
    ratio = np.sin(np.radians(radius_deg)) / np.cos(np.radians(np.where(polar, 0, dec_deg)))
    half_ra = np.degrees(np.arcsin(ratio))
    # The box round a circle is smaller than a brick: its corners and sides meet every one.
    for x in (-1, 0, 1):
        for y in (-1, 0, 1):
            near = brick_id(
                ra_deg + x * half_ra, np.clip(dec_deg + y * radius_deg, -90, 90)
            )
            other = (near != owner) & ~polar
            pairs.append(np.stack([near[other], index[other]]))
    for place in np.flatnonzero(polar):
        touched = bricks_in_circle(float(ra_deg[place]), float(dec_deg[place]), radius_deg)
        pairs.append(np.stack([touched, np.full(len(touched), place)]))
    brick, index = np.concatenate(pairs, axis=1)
    key = np.unique(brick.astype(np.int64) * len(owner) + index)
    return key // len(owner), key % len(owner)


def match_positions(request, ra_deg, dec_deg, radius_deg, *, find, epoch_yr, open_files):
    """Match positions to the catalogue."""
    reach = radius_deg + (0.0 if epoch_yr is None else MAX_MOTION_DEG)
    # Rows without a position have no match.
    placed = np.flatnonzero(np.isfinite(ra_deg))
    brick, index = bricks_of_positions(ra_deg[placed], dec_deg[placed], reach)
    index = placed[index]
    files = brick_files(np.unique(brick), request.release, request.region)
    found = []
    points = unit_vectors(ra_deg, dec_deg)
    for number, (file, table) in enumerate(open_files(files)):
        first, last = np.searchsorted(brick, [file.brick_id, file.brick_id + 1])
        mine = index[first:last]
        rows = np.flatnonzero(eligible(table, file, request))
        if not len(rows):
            continue
        for pair in _pairs(table, rows, mine, points, ra_deg, dec_deg, radius_deg, epoch_yr):
            place, row, apart = pair
            found.append((np.full(len(place), number), place, row, apart, file, table))
    return _collect(found, find, request)


def _pairs(table, rows, mine, points, ra_deg, dec_deg, radius_deg, epoch_yr):
    """Yield (position, row, separation) of the pairs in one file: of still sources, of movers."""
    ra, dec = table.positions["ra"][rows], table.positions["dec"][rows]
    if epoch_yr is None:
        yield _near(ra, dec, rows, mine, points, ra_deg, dec_deg, radius_deg)
        return
    motion = table.read(rows, ("pmra", "pmdec", "ref_epoch", "ref_cat"))
    pm = np.hypot(motion["pmra"], motion["pmdec"]) if "pmra" in motion else np.zeros(len(rows))
    moves = (pm > 0) & np.char.startswith(motion.get("ref_cat", np.full(len(rows), "")), "G")
    still = ~moves
    yield _near(ra[still], dec[still], rows[still], mine, points, ra_deg, dec_deg, radius_deg)
    if not moves.any():
        return
    ra, dec, rows = ra[moves], dec[moves], rows[moves]
    rates = {n: motion[n][moves].astype(float) for n in ("pmra", "pmdec", "ref_epoch")}
    years = max(abs(epoch_yr[mine].max() - rates["ref_epoch"].min()),
                abs(epoch_yr[mine].min() - rates["ref_epoch"].max()))
    reach = min(float(pm[moves].max()) * years / 3.6e6, MAX_MOTION_DEG)
    place, at, _ = _near(
        ra, dec, np.arange(len(rows)), mine, points, ra_deg, dec_deg, radius_deg + reach
    )
    time_yr = epoch_yr[place] - rates["ref_epoch"][at]
    moved_dec = dec[at] + rates["pmdec"][at] * time_yr / 3.6e6
    moved_ra = ra[at] + rates["pmra"][at] * time_yr / 3.6e6 / np.cos(np.radians(dec[at]))
    apart = separation_deg(ra_deg[place], dec_deg[place], moved_ra, moved_dec)
    inside = apart <= radius_deg
    yield place[inside], rows[at[inside]], apart[inside]


def _near(ra, dec, rows, mine, points, ra_deg, dec_deg, radius_deg):
    """Return every pair within a radius."""
    if not len(rows) or not len(mine):
        return np.empty(0, int), np.empty(0, int), np.empty(0)
    # A third of the time that importing the package would take.
    from scipy.spatial import cKDTree

    tree = cKDTree(unit_vectors(ra, dec))
    chord = 2 * np.sin(np.radians(radius_deg) / 2)
    lists = tree.query_ball_point(points[mine], chord * (1 + 1e-9) + 1e-15)
    counts = np.fromiter(map(len, lists), int, len(lists))
    if not counts.sum():
        return np.empty(0, int), np.empty(0, int), np.empty(0)
    at = np.concatenate([hits for hits in lists if hits]).astype(int)
    place = np.repeat(mine, counts)
    apart = separation_deg(ra_deg[place], dec_deg[place], ra[at], dec[at])
    inside = apart <= radius_deg
    return place[inside], rows[at[inside]], apart[inside]


def _collect(found, find, request):
    """Keep the pairs that are wanted, and read their rows."""
    found = [pair for pair in found if len(pair[1])]
    if not found:
        return Matches(np.empty(0, int), np.empty(0), [], np.empty(0, int))
    which = np.concatenate([np.full(len(pair[1]), n) for n, pair in enumerate(found)])
    place, row, apart = (np.concatenate([pair[k] for pair in found]) for k in (1, 2, 3))
    order = np.lexsort((row, which, apart, place))
    if find == "best":
        order = order[np.unique(place[order], return_index=True)[1]]
    chunks, position, start = [], np.empty(len(order), int), 0
    for n, (*_, file, table) in enumerate(found):
        mine = np.flatnonzero(which[order] == n)
        if not len(mine):
            continue
        rows, inverse = np.unique(row[order][mine], return_inverse=True)
        chunks.append(read_rows(table, file, rows, request.needed))
        position[mine] = start + inverse
        start += len(rows)
    return Matches(place[order], apart[order], chunks, position)
