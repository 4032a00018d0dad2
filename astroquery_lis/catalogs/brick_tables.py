"""Which bricks a release has and how deep they are, for positions and parts of the sky.

The survey's own table is fetched once and kept, with a small array beside it that is read in
milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

from .._packages import import_optional
from ..exceptions import CoverageWarning, IncompleteMirrorError, warn
from ..io.finder import FileFinder, LocatedFile
from ..io.store import write_whole
from ..survey.bricks import (
    brick_center,
    brick_edges,
    brick_id,
    brick_row_column,
    name_of,
    region_of_brick,
)
from ..survey.paths import file_path
from ..survey.releases import get_release, get_tree
from .brick_rows import QUANTITIES, ROW, has_exposures, places_of, read_brick_rows

if TYPE_CHECKING:
    from mocpy import MOC

Bands: TypeAlias = Sequence[str] | None

_UNITS = {"psfsize": u.arcsec, "psfdepth": u.mag, "galdepth": u.mag}


def region_table(release: str, region: str, finder: FileFinder) -> np.ndarray:
    """Return the rows (`ROW`) of the bricks of a region, sorted by id."""
    path = file_path("region-bricks", release, region)
    located = finder.find(path)
    if located is None:
        msg = (
            f"{finder.service} lacks {path}, the table of the bricks of {release} {region}; "
            "without it nothing tells which bricks the survey has. Name a mirror that has it."
        )
        raise IncompleteMirrorError(msg, url=finder.address(path))
    return finder.read(located, _rows)


def _rows(located: LocatedFile) -> np.ndarray:
    """Read a table of bricks, or the array that was kept beside it."""
    note = None
    if located.sidecars is not None:
        status = located.path.stat()
        note = located.sidecars / f"{status.st_mtime_ns}-{status.st_size}.npy"
        with suppress(OSError, ValueError, EOFError):
            rows = np.load(note, allow_pickle=False)
            if rows.dtype == ROW:
                return rows
    rows = read_brick_rows(located.path, located.url)
    if note is not None:
        _keep(note, rows)
    return rows


def _keep(note: Path, rows: np.ndarray) -> None:
    """Write the array, if it can be written; without it the table is read again."""
    with suppress(OSError), write_whole(note) as temporary, temporary.open("wb") as stream:
        np.save(stream, rows, allow_pickle=False)


def _has_bands(rows: np.ndarray, bands: Bands) -> np.ndarray:
    """Return which bricks have exposures in every band."""
    return np.all(
        [np.ones(len(rows), bool), *(has_exposures(rows, b) for b in bands or ())], axis=0
    )


def _by_region(ids: np.ndarray, release: str, region: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (region, which) for the region that counts for each brick."""
    regions = region_of_brick(ids, release) if region == "auto" else np.full(len(ids), region)
    for name in get_release(release).regions:
        which = regions == name
        if which.any():
            yield name, which


def covered(
    ra_deg: np.ndarray,
    dec_deg: np.ndarray,
    bands: Bands,
    release: str,
    region: str,
    finder: FileFinder,
) -> np.ndarray:
    """Return which positions the release has."""
    ids = brick_id(ra_deg, dec_deg)
    answer = np.zeros(len(ids), bool)
    for name, which in _by_region(ids, release, region):
        if set(bands or ()) <= set(get_tree(release, name).bands):
            rows = region_table(release, name, finder)
            rows = rows[_has_bands(rows, bands)]
            answer[which] = places_of(rows["brickid"], ids[which])[1]
    return answer


def bricks_of_release(ids: np.ndarray, release: str, region: str, finder: FileFinder) -> Table:
    """Return those of the bricks with these ids that a release has."""
    tables, owners = [np.zeros(0, ROW)], []
    for name, which in _by_region(ids, release, region):
        rows = region_table(release, name, finder)
        places, is_there = places_of(rows["brickid"], ids[which])
        tables.append(rows[places[is_there]])
        owners += [(get_tree(release, name).release, name)] * int(is_there.sum())
    rows = np.concatenate(tables)
    order = np.argsort(rows["brickid"])
    if not len(rows):
        msg = f"{release} has no brick there."
        warn(msg, CoverageWarning)
    return _as_table(rows[order], [owners[i] for i in order], get_release(release).bands)


def _as_table(rows: np.ndarray, owners: Sequence[tuple[str, str]], bands: Sequence[str]) -> Table:
    ids = rows["brickid"].astype(np.int32)
    table = Table()
    table["brickname"] = np.asarray(name_of(ids), dtype="U8")
    table["brickid"] = ids
    table["release"] = np.array([owner[0] for owner in owners], dtype="U5")
    table["region"] = np.array([owner[1] for owner in owners], dtype="U5")
    table["ra"], table["dec"] = brick_center(ids)
    for name, values in zip(("ra1", "ra2", "dec1", "dec2"), brick_edges(ids), strict=True):
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


def footprint_moc(
    bands: Bands, release: str, region: str, finder: FileFinder, max_depth: int
) -> MOC:
    """Return the footprint of a release as a MOC."""
    mocpy = import_optional("mocpy", "footprint", "MOCs")
    ids = []
    for name in get_release(release).regions_of(region):
        rows = region_table(release, name, finder)
        bricks = rows["brickid"][_has_bands(rows, bands)].astype(np.int64)
        if region == "auto":
            bricks = bricks[region_of_brick(bricks, release) == name]
        ids.append(bricks)
    zones = _zones(np.sort(np.concatenate(ids)))
    if not len(zones):
        return mocpy.MOC.new_empty(max_depth)
    # RA 360 would become 0, and the zone its complement.
    zones[:, 1] = np.minimum(zones[:, 1], np.nextafter(360, 0))
    corners = SkyCoord(zones[:, :2], zones[:, 2:], unit="deg")
    first, *others = (mocpy.MOC.from_zone(pair, max_depth) for pair in corners)
    return first.union(*others) if others else first


def _zones(ids: np.ndarray) -> np.ndarray:
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
