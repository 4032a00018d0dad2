"""The survey's tables of the bricks of a region, and of the CCDs behind the coadds of a brick.

The former tell which bricks a release has and how deep they are.  Such a table is fetched once and
kept, with a small array beside it that is read in milliseconds.  Only it tells that the survey has
nothing somewhere.  A folder that lacks a file may be a copy of a part of the survey, where a server
of the survey's own tree that answers 404 is not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time

from .._packages import import_optional
from ..exceptions import CoverageWarning, IncompleteMirrorError, NoCoverageError, warn
from ..io.places import FileFinder, LocatedFile
from ..io.whole_files import reading
from ..survey.bricks import (
    N_BRICKS,
    brick_center,
    brick_edges,
    brick_id,
    brick_row_column,
    name_of,
    parse_brick_name,
    region_of_brick,
)
from ..survey.paths import file_path, tree_of_brick
from ..survey.pixel_grids import TangentGrid
from ..survey.releases import get_release, get_tree
from .table_file import CCD_UNITS, TableFile, open_rows, remembered

if TYPE_CHECKING:
    from mocpy import MOC


Bands: TypeAlias = Sequence[str] | None

_UNITS = {"psfsize": u.arcsec, "psfdepth": u.mag, "galdepth": u.mag}
BANDS = ("g", "r", "i", "z")
QUANTITIES = (("nexp", "<i2"), ("psfsize", "<f4"), ("psfdepth", "<f4"), ("galdepth", "<f4"))
_FIELDS = [
    ("ebv", "<f4"),
    *((f"{name}_{band}", kind) for name, kind in QUANTITIES for band in BANDS),
]
ROW = np.dtype([("brickid", "<i4"), *_FIELDS])
"""What is kept of a brick."""


def read_brick_rows(path: Path, url: str = "") -> np.ndarray:
    """Return the rows of a table of bricks (`ROW`), each brick once, by id."""
    what = "a table of bricks"
    with reading(url or path, f"read as {what}"):
        table = open_rows(path, url, what=what)
        if not any(name.startswith("nexp_") for name in table.fields):
            msg = "its columns do not tell where a release has exposures (nexp_g, nexp_r...)"
            raise ValueError(msg)
        columns = table.read(slice(None), (name for name, _ in _FIELDS))
        ids = _ids_of(table)
        rows = np.zeros(len(ids), ROW)
        rows["brickid"] = ids
        for name, kind in _FIELDS:
            rows[name] = columns.get(name, np.nan if kind == "<f4" else 0)
    _, first = np.unique(rows["brickid"], return_index=True)
    return rows[first]


def _ids_of(table: TableFile) -> np.ndarray:
    """Return the ids of the bricks of a table, which may have their names alone."""
    if "brickid" in table.fields:
        ids = table.read(slice(None), ("brickid",))["brickid"]
    else:
        names = table.read(slice(None), ("brickname",))["brickname"]
        ids = np.array([parse_brick_name(name) for name in names.tolist()], int)
    if len(ids) and not (ids.min() >= 1 and ids.max() <= N_BRICKS):
        msg = f"brick ids go from {ids.min()} to {ids.max()}"
        raise ValueError(msg)
    return ids


def places_of(ids: np.ndarray, bricks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where bricks are in sorted ids, and which are there at all."""
    bricks = np.asarray(bricks)
    if not len(ids):
        return np.zeros(bricks.shape, int), np.zeros(bricks.shape, bool)
    places = np.minimum(np.searchsorted(ids, bricks), len(ids) - 1)
    return places, ids[places] == bricks


def holds(ids: np.ndarray, bricks: np.ndarray) -> np.ndarray:
    """Return which bricks are in sorted ids."""
    return places_of(ids, bricks)[1]


def has_exposures(rows: np.ndarray, band: str) -> np.ndarray:
    """Return which bricks have exposures in a band.

    Their number is a median, 0 where less than half of the brick was observed: there is a seeing
    and a depth there all the same.
    """
    return np.any([rows[f"{quantity}_{band}"] > 0 for quantity, _ in QUANTITIES], axis=0)


# ---- folders that hold a part of the survey ------------------------------------------------------


def require_table(folders: Sequence[Path], release: str, region: str) -> list[np.ndarray]:
    """Return the rows of the tables of bricks that folders have; refuse if none has one."""
    path = file_path("region-bricks", release, region)
    tables = [table for table in (_rows_in(folder / path) for folder in folders) if len(table)]
    if not tables:
        where = ", ".join(map(str, folders))
        msg = (
            f"{where} lacks {path}, the table of the bricks of {release} {region}; without it "
            "nothing tells which bricks the survey has. Copy it there, or name a mirror of the "
            "survey after the folder."
        )
        raise IncompleteMirrorError(msg, url=where)
    return tables


def require_unlisted(
    folders: Sequence[Path],
    release: str,
    region: str,
    bricks: Sequence[int],
    lacks: str,
    *,
    band: str | None = None,
) -> None:
    """Refuse to take what no file was found of for something that the survey does not have.

    ``folders`` are all the places that were asked, none if one of them was a server; ``lacks`` says
    what they lack: something of the bricks, perhaps of one band.
    """
    if not folders:
        return
    ids = np.asarray(bricks)
    tables = require_table(folders, release, region)
    listed = np.any([_is_listed(rows, ids, band) for rows in tables], axis=0)
    if listed.any():
        where = ", ".join(map(str, folders))
        of_band = f" with exposures in {band}" if band else ""
        msg = (
            f"{where} lacks {lacks}, and {release} {region} has {', '.join(name_of(ids[listed]))}"
            f"{of_band}: the folder holds a part of the survey. Copy the files there "
            "(get_brick_files), or name a mirror of the survey after the folder."
        )
        raise IncompleteMirrorError(msg, url=where)


def _is_listed(rows: np.ndarray, ids: np.ndarray, band: str | None) -> np.ndarray:
    """Return which bricks are in a table, and have exposures in a band that it counts."""
    places, is_there = places_of(rows["brickid"], ids)
    if band in BANDS:
        is_there &= has_exposures(rows[places], band)
    return is_there


def _rows_in(path: Path) -> np.ndarray:
    try:
        status = os.stat(path)
    except OSError:
        return np.zeros(0, ROW)
    return _read_once(path, (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=4)
def _read_once(path: Path, state: tuple[int, int]) -> np.ndarray:
    """Return the rows of one state of a table on disk."""
    return read_brick_rows(path)


# ---- what a release has --------------------------------------------------------------------------


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
    return remembered(
        located.path,
        located.sidecars,
        load=_checked,
        read=lambda: read_brick_rows(located.path, located.url),
        note=lambda rows: (rows, ""),
    )


def _checked(rows: np.ndarray, _: str) -> np.ndarray:
    if rows.dtype != ROW:
        raise ValueError
    return rows


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


# ---- the exposures at a position ----------------------------------------------------------------

_RANKS = {band: rank for rank, band in enumerate("ugrizY")}

N_SIGMA = 5

_WCS = ("crval1", "crval2", "crpix1", "crpix2", "cd1_1", "cd1_2", "cd2_1", "cd2_2")


_COLUMNS = (*CCD_UNITS, "fwhm", "sig1", "psfnorm", "galnorm", "width", "height", *_WCS)
_WHAT = "a table of CCDs"


def exposure_path(ra_deg: float, dec_deg: float, release: str, region: str) -> tuple[str, str]:
    """Return the path of the table of CCDs for a position, and the region it is of."""
    brick = int(brick_id(ra_deg, dec_deg))
    region = tree_of_brick(get_release(release), region, brick).region
    return file_path("ccds-table", release, region, brick=name_of(brick)), region


def exposures_at(
    ra_deg: float,
    dec_deg: float,
    bands: Sequence[str] | None,
    release: str,
    region: str,
    finder: FileFinder,
    *,
    on_missing: str,
) -> Table:
    """Return the CCDs that cover a position."""
    path, region = exposure_path(ra_deg, dec_deg, release, region)
    located = finder.find(path)
    if located is None:
        brick = int(brick_id(ra_deg, dec_deg))
        require_unlisted(finder.folders, release, region, [brick], path)
        msg = f"{release} has no exposures there: no {path}."
        if on_missing == "raise":
            raise NoCoverageError(msg)
        warn(msg, CoverageWarning)
        return _table(_no_rows(), np.empty(0), np.empty(0))
    table = finder.read(located, lambda file: _covering(file, ra_deg, dec_deg, bands))
    table.meta.update(
        {
            "survey": "DESI Legacy Imaging Surveys",
            "release": get_tree(release, region).release,
            "region": region,
            "ra": ra_deg,
            "dec": dec_deg,
            "file": located.url,
        }
    )
    return table


def _covering(
    located: LocatedFile, ra_deg: float, dec_deg: float, bands: Sequence[str] | None
) -> Table:
    """Return the CCDs of a table that cover a position."""
    with reading(located.url, f"read as {_WHAT}"):
        rows = _read(located)
        x, y = _pixel(rows, ra_deg, dec_deg)
        inside = (x > -0.5) & (x < rows["width"] - 0.5) & (y > -0.5) & (y < rows["height"] - 0.5)
        if bands is not None:
            inside &= np.isin(rows["filter"], bands)
        picked = np.flatnonzero(inside)
        ranks = [_RANKS.get(band, len(_RANKS)) for band in rows["filter"][picked].tolist()]
        keys = rows["expnum"][picked], rows["mjd_obs"][picked], np.array(ranks)
        picked = picked[np.lexsort(keys)]
        return _table({name: rows[name][picked] for name in rows}, x[picked], y[picked])


def _read(located: LocatedFile) -> dict[str, np.ndarray]:
    """Return the rows of a table of CCDs, names in lower case."""
    rows = open_rows(located.path, located.url, what=_WHAT).read(slice(None), _COLUMNS)
    lacking = {"expnum", "filter", "mjd_obs", *_WCS, "width", "height"} - rows.keys()
    if lacking:
        msg = f"it has no {', '.join(sorted(lacking))}"
        raise ValueError(msg)
    return rows


def _pixel(
    rows: dict[str, np.ndarray], ra_deg: float, dec_deg: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixel of a position in each CCD, from 0, NaN on the other side of the sky."""
    wcs = {name: rows[name].astype(float) for name in _WCS}
    # A degree per pixel: the grid's pixels are offsets in the tangent plane, x to the west.
    grid = TangentGrid(wcs["crval1"], wcs["crval2"], 0.0, 0.0, 1.0)  # type: ignore[arg-type]
    west, north = grid.to_pixel(ra_deg, dec_deg)
    east = -west
    determinant = wcs["cd1_1"] * wcs["cd2_2"] - wcs["cd1_2"] * wcs["cd2_1"]
    with np.errstate(divide="ignore", invalid="ignore"):
        x = (wcs["cd2_2"] * east - wcs["cd1_2"] * north) / determinant
        y = (wcs["cd1_1"] * north - wcs["cd2_1"] * east) / determinant
    return x + wcs["crpix1"] - 1, y + wcs["crpix2"] - 1


def _no_rows() -> dict[str, np.ndarray]:
    """Return columns of CCDs without rows."""
    texts = ("camera", "ccdname", "filter", "object", "propid", "image_filename")
    return {name: np.empty(0, "U1" if name in texts else float) for name in _COLUMNS}


def _table(rows: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> Table:
    """Return rows of CCDs with the names, units and derived columns that users get."""
    table = Table()
    for name, unit in CCD_UNITS.items():
        if name in rows:
            table[name] = rows[name]
            table[name].unit = unit
    dates = Time(np.asarray(rows["mjd_obs"], float), format="mjd").isot
    table["date_obs"] = np.asarray(dates, dtype="U23")
    determinant = rows["cd1_1"] * rows["cd2_2"] - rows["cd1_2"] * rows["cd2_1"]
    if "fwhm" in rows:
        table["seeing"] = rows["fwhm"] * np.sqrt(np.abs(determinant).astype(float)) * 3600
        table["seeing"].unit = u.arcsec
    for name, norm in (("psfdepth", "psfnorm"), ("galdepth", "galnorm")):
        if norm in rows and "sig1" in rows:
            with np.errstate(divide="ignore", invalid="ignore"):
                limit = N_SIGMA * rows["sig1"].astype(float) / rows[norm]
                table[name] = 22.5 - 2.5 * np.log10(limit)
            table[name].unit = u.mag
    table["x"], table["y"] = x, y
    table["x"].unit = table["y"].unit = u.pix
    return table
