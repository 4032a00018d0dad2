"""The tables of the bricks that each region has, as arrays: which bricks, how deep, where.

The survey's own table is fetched once and kept, with a small array beside it that is read in
milliseconds.
"""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import Table

from ..exceptions import (
    CoverageWarning,
    NoCoverageError,
    OptionalDependencyError,
    UnexpectedContentError,
    warn,
)
from ..io.store import write_whole
from ..survey.bricks import (
    brick_center,
    brick_edges,
    brick_id,
    brick_row_column,
    name_of,
    parse_brick_name,
    region_of_brick,
)
from ..survey.paths import file_path
from ..survey.releases import get_release, get_tree

__all__ = ["bricks_in_region", "covered", "footprint_moc", "region_table"]

BANDS = ("g", "r", "i", "z")
QUANTITIES = (("nexp", "<i2"), ("psfsize", "<f4"), ("psfdepth", "<f4"), ("galdepth", "<f4"))
ROW = np.dtype(
    [("brickid", "<i4"), ("ebv", "<f4")]
    + [(f"{name}_{band}", kind) for name, kind in QUANTITIES for band in BANDS]
)
_UNITS = {"psfsize": u.arcsec, "psfdepth": u.mag, "galdepth": u.mag}


def region_table(release, region, finder):
    """Return the bricks of a region, sorted by id."""
    path = file_path("region-bricks", release, region)
    located = finder.find(path)
    if located is None:
        msg = f"No mirror has {path}, the table of the bricks of {release} {region}."
        raise NoCoverageError(msg)
    status = os.stat(located.path)
    note = None
    if located.sidecars is not None:
        note = Path(located.sidecars, f"{status.st_mtime_ns}-{status.st_size}.npy")
        try:
            rows = np.load(note, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            rows = None
        if rows is not None and rows.dtype == ROW:
            return rows
    rows = _read(located.path)
    if note is not None:
        _keep(note, rows)
    return rows


def _read(path):
    try:
        with fits.open(path, memmap=False) as hdus:
            table = hdus[1].data
            names = {name.lower(): name for name in table.names}
            if "brickid" in names:
                ids = np.asarray(table[names["brickid"]], dtype=np.int64)
            else:
                ids = np.array([parse_brick_name(n) for n in table[names["brickname"]]])
            rows = np.zeros(len(ids), ROW)
            for name in ROW.names[1:]:
                if name in names:
                    rows[name] = table[names[name]]
                elif ROW[name].kind == "f":
                    rows[name] = np.nan
    except (OSError, EOFError, ValueError, TypeError, IndexError, KeyError) as error:
        msg = f"{path} cannot be read as a table of bricks: {error}."
        raise UnexpectedContentError(msg, url=str(path), cause=error) from error
    rows["brickid"] = ids
    return rows[np.argsort(ids)]


def _keep(note, rows):
    """Write the array, if it can be written; without it the table is read again."""
    with suppress(OSError), write_whole(note) as temporary, temporary.open("wb") as stream:
        np.save(stream, rows, allow_pickle=False)


def _lookup(rows, ids):
    """Return where brick ids are in a table, and whether they are."""
    place = np.minimum(np.searchsorted(rows["brickid"], ids), max(len(rows) - 1, 0))
    there = rows["brickid"][place] == ids if len(rows) else np.zeros(len(ids), bool)
    return place, there


def _by_region(ids, release, region):
    """Yield (region, which) for the region that counts for each brick."""
    regions = region_of_brick(ids, release) if region == "auto" else np.full(len(ids), region)
    for one in get_release(release).regions:
        which = regions == one
        if which.any():
            yield one, which


def covered(ra_deg, dec_deg, bands, release, region, finder):
    """Tell which positions the release has."""
    ids = brick_id(ra_deg, dec_deg)
    answer = np.zeros(len(ids), bool)
    for one, which in _by_region(ids, release, region):
        tree = get_tree(release, one)
        if any(band not in tree.bands for band in bands or ()):
            continue
        rows = region_table(release, one, finder)
        good = np.ones(len(rows), bool)
        for band in bands or ():
            good &= rows[f"nexp_{band}"] > 0
        place, there = _lookup(rows, ids[which])
        answer[which] = there & (good[place] if len(rows) else False)
    return answer


def bricks_in_region(sky, release, region, finder):
    """Return the bricks of a release that a part of the sky touches."""
    ids = sky.bricks()
    tables, owners = [], []
    for one, which in _by_region(ids, release, region):
        rows = region_table(release, one, finder)
        place, there = _lookup(rows, ids[which])
        tables.append(rows[place[there]])
        owners += [(get_tree(release, one).release, one)] * int(there.sum())
    rows = np.concatenate(tables)
    order = np.argsort(rows["brickid"])
    rows, owners = rows[order], [owners[i] for i in order]
    if not len(rows):
        msg = f"{release} has no brick there."
        warn(msg, CoverageWarning)
    return _as_table(rows, owners, get_release(release).bands)


def _as_table(rows, owners, bands):
    ids = rows["brickid"].astype(np.int32)
    safe = ids if len(ids) else np.ones(0, np.int32)
    table = Table()
    table["brickname"] = np.asarray(name_of(safe), dtype="U8")
    table["brickid"] = ids
    table["release"] = np.array([owner[0] for owner in owners], dtype="U5")
    table["region"] = np.array([owner[1] for owner in owners], dtype="U5")
    table["ra"], table["dec"] = brick_center(safe)
    for name, values in zip(("ra1", "ra2", "dec1", "dec2"), brick_edges(safe), strict=True):
        table[name] = values
    for name in ("ra", "dec", "ra1", "ra2", "dec1", "dec2"):
        table[name].unit = u.deg
    for quantity, _ in QUANTITIES:
        for band in bands:
            table[f"{quantity}_{band}"] = rows[f"{quantity}_{band}"]
            table[f"{quantity}_{band}"].unit = _UNITS.get(quantity)
    table["ebv"] = rows["ebv"]
    table["ebv"].unit = u.mag
    return table


def footprint_moc(bands, release, region, finder, max_depth):
    """Return the footprint of a release as a MOC."""
    try:
        from mocpy import MOC
    except ImportError as error:
        msg = "MOCs need mocpy: install astroquery_lis[footprint]."
        raise OptionalDependencyError(msg, cause=error) from error
    from astropy.coordinates import SkyCoord

    found = []
    for one in get_release(release).regions if region == "auto" else (region,):
        rows = region_table(release, one, finder)
        ids = rows["brickid"].astype(np.int64)
        good = np.ones(len(ids), bool)
        for band in bands or ():
            good &= rows[f"nexp_{band}"] > 0
        if region == "auto" and len(ids):
            good &= region_of_brick(ids, release) == one
        found.append(ids[good])
    zones = _zones(np.sort(np.concatenate(found)))
    if not len(zones):
        return MOC.new_empty(max_depth)
    # RA 360 would become 0, and the zone its complement.
    zones[:, 1] = np.minimum(zones[:, 1], np.nextafter(360, 0))
    corners = SkyCoord(zones[:, :2], zones[:, 2:], unit="deg")
    first, *rest = (MOC.from_zone(pair, max_depth) for pair in corners)
    return first.union(*rest) if rest else first


def _zones(ids):
    """Join bricks that are neighbours in a row: (ra1, ra2, dec1, dec2) of each run."""
    if not len(ids):
        return np.empty((0, 4))
    row, _ = brick_row_column(ids)
    begins = np.concatenate([[True], (np.diff(ids) != 1) | (np.diff(row) != 0)])
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(ids)) - 1
    ra1, _, dec1, dec2 = brick_edges(ids[first])
    _, ra2, _, _ = brick_edges(ids[last])
    return np.stack([ra1, ra2, dec1, dec2], axis=1)
