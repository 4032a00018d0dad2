"""The Tractor catalogue of the simulated sky: the rows of every brick.

A source has the same fluxes in every brick of a region; the copies that a brick does not own, or
that are not of the official region, are shifted by a few mas.
"""

from functools import cache

import numpy as np
from astropy.table import MaskedColumn, Table, vstack

from ..survey import bitmasks, bricks, releases
from . import sky
from .light import noise_of, sources
from .measurements import measurements
from .planes import windows_of
from .tractor_columns import tractor_columns

__all__ = ["CATALOG_TREES", "brick_rows", "catalog", "region_rows"]

_SOUTH = sky.BRICKS["dr10", "south"]
_NORTH = sky.BRICKS["dr9", "north"]

CATALOG_TREES = {
    ("dr10", "south"): _SOUTH,
    ("dr9", "north"): _NORTH,
    ("dr9", "south"): _SOUTH,
    ("dr8", "south"): _SOUTH,
    ("dr8", "north"): _NORTH,
    ("dr11", "south"): _SOUTH,
    ("dr11", "north"): _NORTH,
}
"""The bricks of each (release, region) that has Tractor files; more than have images."""

_COPY_SHIFT_MAS = 3.0


def _is_observed(brick, x, y):
    inside = np.zeros(len(x), bool)
    for window in windows_of(brick):
        inside |= (
            (x >= window.x0 - 0.5)
            & (x < window.x1 - 0.5)
            & (y >= window.y0 - 0.5)
            & (y < window.y1 - 0.5)
        )
    return inside


@cache
def _brick_rows(release, region, brick):
    rows = measurements(release, region).copy()
    found = bricks.get_brick(brick)
    grid = bricks.brick_grid(found.id)
    owner = bricks.brick_id(rows["ra"], rows["dec"])
    foreign = (owner != found.id) | (
        bricks.region_of_brick(owner, releases.get_tree(release, region).release) != region
    )
    shift = noise_of(3, found.id)[:, :2] * _COPY_SHIFT_MAS / 3.6e6
    moved_ra = (rows["ra"] + shift[:, 0] / np.cos(np.radians(rows["dec"]))) % 360.0
    moved_dec = rows["dec"] + shift[:, 1]
    # A copy may not be carried over an edge, where it would be owned twice or by nobody.
    movable = foreign & (bricks.brick_id(moved_ra, moved_dec) == owner)
    rows["ra"] = np.where(movable, moved_ra, rows["ra"])
    rows["dec"] = np.where(movable, moved_dec, rows["dec"])
    rows["bx"], rows["by"] = grid.to_pixel(rows["ra"], rows["dec"])
    x, y = grid.to_pixel(rows["ra"], rows["dec"])
    chosen = np.flatnonzero(_is_observed(brick, x, y))
    chosen = chosen[np.lexsort((x[chosen], np.floor(y[chosen] / 100)))]
    rows, owner = rows[chosen], owner[chosen]
    rows["objid"] = np.arange(len(rows))
    rows["brickid"] = found.id
    rows["brickname"] = brick
    rows["brick_primary"] = owner == found.id
    bit = bitmasks.maskbits(releases.get_tree(release, region).release)["NPRIMARY"]
    rows["maskbits"] |= np.where(rows["brick_primary"], 0, 1 << bit).astype(rows["maskbits"].dtype)
    if "ls_id_dr11" in rows.dtype.names:
        rows["ls_id_dr11"] = (
            (rows["release"].astype(np.int64) << 42)
            | (rows["brickid"].astype(np.int64) << 22)
            | rows["objid"]
        )
    return rows, sources()["id"][chosen]


def brick_rows(release, region, brick):
    """Return the Tractor rows of one brick.

    Parameters
    ----------
    release, region : str
        ``'dr8'`` to ``'dr11'`` and the region; the north of DR10 is that of DR9.
    brick : str
        Brick name.

    Returns
    -------
    `~numpy.ndarray`
        Structured, by ``objid`` (0, 1, ...), with the columns of the file.
    """
    return _brick_rows(release, region, brick)[0].copy()


def region_rows(release, region):
    """Return the rows of every brick of a region that are primary in their brick.

    Parameters
    ----------
    release, region : str
        As for `brick_rows`.

    Returns
    -------
    `~numpy.ndarray`
        As `brick_rows`.
    """
    tree = releases.get_tree(release, region)
    names = CATALOG_TREES[tree.release, tree.region]
    rows = np.concatenate([brick_rows(release, region, name) for name in names])
    return rows[rows["brick_primary"]]


def catalog(release="dr10"):
    """Return every row of every brick of a release, north and south, as one table.

    Parameters
    ----------
    release : str, default: 'dr10'
        ``'dr8'`` to ``'dr11'``.

    Returns
    -------
    `~astropy.table.Table`
        The columns of the files, masked where a region does not have them, then ``region``,
        ``resolved`` (whether a row is the one of its source that counts: primary in its brick, and
        of the region that is official there) and ``truth_id`` (``id`` in `~.sky.truth`; -1 for
        sources that are only in Gaia).
    """
    parts = []
    for region in ("south", "north"):
        tree = releases.get_tree(release, region)
        for name in CATALOG_TREES[tree.release, region]:
            rows, truth_id = _brick_rows(tree.release, region, name)
            table = Table()
            for column in tractor_columns(tree.release, region):
                values = rows[column.name]
                if column.kind[0] == "S":
                    values = np.char.rstrip(np.char.decode(values, "ascii"))
                table[column.name] = MaskedColumn(values)
            table["region"] = region
            official = bricks.is_north(rows["ra"], rows["dec"]) == (region == "north")
            table["resolved"] = rows["brick_primary"] & official
            table["truth_id"] = truth_id
            parts.append(table)
    for name in parts[0].colnames:
        if name.startswith("lc_"):
            _lengthen(parts, name)
    return vstack(parts, join_type="outer", metadata_conflicts="silent")


def _lengthen(tables, name):
    """Add epochs of 0 where a column has fewer, so that the tables can be put together."""
    longest = max(table[name].shape[1] for table in tables)
    for table in tables:
        missing = longest - table[name].shape[1]
        if missing:
            table[name] = MaskedColumn(np.pad(table[name].data.data, ((0, 0), (0, missing))))
