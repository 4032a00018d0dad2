"""The Tractor catalogue of the simulated sky: the rows of every brick.

A source has the same fluxes in every brick of a region; the copies that a brick does not own, or
that are not of the official region, are shifted by a few mas.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from astropy.io import fits
from astropy.table import MaskedColumn, Table, vstack

from ..survey import bitmasks, bricks, paths, releases
from . import sky
from .cameras import ccd_rows
from .coadds import Content
from .light import APERTURES_ARCSEC, WISE_APERTURES_ARCSEC, noise_of, sources
from .measurements import measurements, release_number, tractor_columns
from .planes import windows_of

_SOUTH = sky.BRICKS["dr10", "south"]
_NORTH = sky.BRICKS["dr9", "north"]

# The bricks of each (release, region) that has Tractor files; more than have images.
CATALOG_TREES = {
    ("dr10", "south"): _SOUTH,
    ("dr9", "north"): _NORTH,
    ("dr9", "south"): _SOUTH,
    ("dr8", "south"): _SOUTH,
    ("dr8", "north"): _NORTH,
    ("dr11", "south"): _SOUTH,
    ("dr11", "north"): _NORTH,
}

_COPY_SHIFT_MAS = 3.0


def _is_observed(brick: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
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
def _brick_rows(release: str, region: str, brick: str) -> tuple[np.ndarray, np.ndarray]:
    rows = measurements(release, region).copy()
    place = bricks.get_brick(brick)
    grid = bricks.brick_grid(place.id)
    owner = bricks.brick_id(rows["ra"], rows["dec"])
    foreign = (owner != place.id) | (
        bricks.region_of_brick(owner, releases.get_tree(release, region).release) != region
    )
    shift = noise_of(3, place.id)[:, :2] * _COPY_SHIFT_MAS / 3.6e6
    moved_ra = (rows["ra"] + shift[:, 0] / np.cos(np.radians(rows["dec"]))) % 360.0
    moved_dec = rows["dec"] + shift[:, 1]
    # A copy may not be carried over an edge, where it would be owned twice or by nobody.
    movable = foreign & (bricks.brick_id(moved_ra, moved_dec) == owner)
    rows["ra"] = np.where(movable, moved_ra, rows["ra"])
    rows["dec"] = np.where(movable, moved_dec, rows["dec"])
    rows["bx"], rows["by"] = grid.to_pixel(rows["ra"], rows["dec"])
    x, y = grid.to_pixel(rows["ra"], rows["dec"])
    inside = np.flatnonzero(_is_observed(brick, x, y))
    inside = inside[np.lexsort((x[inside], np.floor(y[inside] / 100)))]
    rows, owner = rows[inside], owner[inside]
    rows["objid"] = np.arange(len(rows))
    rows["brickid"] = place.id
    rows["brickname"] = brick
    rows["brick_primary"] = owner == place.id
    bit = bitmasks.maskbits(releases.get_tree(release, region).release)["NPRIMARY"]
    rows["maskbits"] |= np.where(rows["brick_primary"], 0, 1 << bit).astype(rows["maskbits"].dtype)
    if "ls_id_dr11" in (rows.dtype.names or ()):
        rows["ls_id_dr11"] = (
            (rows["release"].astype(np.int64) << 42)
            | (rows["brickid"].astype(np.int64) << 22)
            | rows["objid"]
        )
    return rows, sources()["id"][inside]


def brick_rows(release: str, region: str, brick: str) -> np.ndarray:
    """Return the Tractor rows of one brick."""
    return _brick_rows(release, region, brick)[0].copy()


def primary_rows(release: str, region: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the primary rows of every brick of a region, and the ids of their true sources."""
    tree = releases.get_tree(release, region)
    names = CATALOG_TREES[tree.release, tree.region]
    parts = [_brick_rows(release, region, name) for name in names]
    rows, truth_id = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return rows[rows["brick_primary"]], truth_id[rows["brick_primary"]]


def region_rows(release: str, region: str) -> np.ndarray:
    """Return the rows of every brick of a region that are primary in their brick."""
    return primary_rows(release, region)[0]


def catalog(release: str = "dr10") -> Table:
    """Return every row of every brick of a release, north and south, as one table."""
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


def _lengthen(tables: list[Table], name: str) -> None:
    """Add epochs of 0 where a column has fewer, so that the tables can be put together."""
    longest = max(table[name].shape[1] for table in tables)
    for table in tables:
        missing = longest - table[name].shape[1]
        if missing:
            table[name] = MaskedColumn(np.pad(table[name].data.data, ((0, 0), (0, missing))))


def tractor_file(release: str, region: str, brick: str) -> Iterator[Content]:
    """Yield the Tractor file of a brick."""
    path = paths.file_path("tractor", release, region, brick=brick)
    yield path, tractor_hdus(release, region, brick).writeto


def ccds_file(release: str, region: str, brick: str) -> Iterator[Content]:
    """Yield the table of the CCDs that went into the coadds of a brick."""
    path = paths.file_path("ccds-table", release, region, brick=brick)
    table = fits.BinTableHDU(ccd_rows(release, region, brick))
    yield path, fits.HDUList([fits.PrimaryHDU(), table]).writeto


def table_hdu(rows: np.ndarray, units: dict[str, str]) -> fits.BinTableHDU:
    """Return rows as a table of a FITS file."""
    hdu = fits.BinTableHDU(rows)
    for number, name in enumerate(rows.dtype.names or (), start=1):
        # Into the header, where it stays as it is spelt: some are no unit to anybody.
        if units.get(name):
            hdu.header.set(f"TUNIT{number}", units[name], after=f"TFORM{number}")
    return hdu


def tractor_hdus(release: str, region: str, brick: str) -> fits.HDUList:
    """Return one Tractor file."""
    primary = fits.PrimaryHDU()
    header = primary.header
    header["OBJECT"] = ("SIMULATED", "these rows are not data")
    header["BRICKNAM"] = (brick, "brick name RRRr[pm]DDd")
    header["DRVERSIO"] = (release_number(release, region), "data release number")
    header["BANDS"] = ",".join(releases.get_tree(release, region).bands)
    for number, radius in enumerate(APERTURES_ARCSEC):
        header[f"APRAD{number}"] = (radius, "radius of an optical aperture (arcsec)")
    for number, radius in enumerate(WISE_APERTURES_ARCSEC):
        header[f"WAPRAD{number}"] = (radius, "radius of a WISE aperture (arcsec)")
    for number, shift in enumerate(sky.VEGA_TO_AB.values(), start=1):
        header[f"WISEAB{number}"] = (shift, "Vega to AB (mag)")
    units = {column.name: column.unit for column in tractor_columns(release, region)}
    rows = brick_rows(release, region, brick)
    return fits.HDUList([primary, table_hdu(rows, units)])
