"""The tables of the simulated survey: Tractor catalogue, sweeps with photo-z, CCDs and bricks.

A source has the same fluxes in every brick of a region; the copies that a brick does not own, or
that are not of the official region, are shifted by a few mas.  A third of the galaxies brighter
than 20 mag have a spectrum, and so a ``z_spec``.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Iterator
from functools import cache, partial
from typing import BinaryIO

import numpy as np
from astropy.io import fits
from astropy.table import MaskedColumn, Table, vstack
from numpy.lib import recfunctions as rfn

from ..survey import bitmasks, bricks, paths, releases
from . import sky
from .cameras import ccd_rows
from .coadd_files import BrickScene, Content
from .measurements import (
    APERTURES_ARCSEC,
    WISE_APERTURES_ARCSEC,
    measurements,
    names_of,
    noise_of,
    release_number,
    sources,
    tractor_columns,
)

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
    for window in sky.windows_of(brick):
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
    x, y = grid.to_pixel(rows["ra"], rows["dec"])
    rows["bx"], rows["by"] = x, y
    inside = np.flatnonzero(_is_observed(brick, x, y))
    inside = inside[np.lexsort((x[inside], np.floor(y[inside] / 100)))]
    rows, owner = rows[inside], owner[inside]
    rows["objid"] = np.arange(len(rows))
    rows["brickid"] = place.id
    rows["brickname"] = brick
    rows["brick_primary"] = owner == place.id
    bit = bitmasks.maskbits(releases.get_tree(release, region).release)["NPRIMARY"]
    rows["maskbits"] |= np.where(rows["brick_primary"], 0, 1 << bit).astype(rows["maskbits"].dtype)
    if "ls_id_dr11" in names_of(rows):
        rows["ls_id_dr11"] = ls_ids(rows)
    return rows, sources()["id"][inside]


def ls_ids(rows: np.ndarray) -> np.ndarray:
    """Return the ids as each release packs them."""
    release, brick, number = (rows[n].astype(np.int64) for n in ("release", "brickid", "objid"))
    is_new = release >= 11000
    return release << np.where(is_new, 42, 40) | brick << np.where(is_new, 22, 16) | number


def primary_rows(release: str, region: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the primary rows of every brick of a region, and the ids of their true sources."""
    tree = releases.get_tree(release, region)
    names = CATALOG_TREES[tree.release, tree.region]
    parts = [_brick_rows(release, region, name) for name in names]
    rows, truth_id = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return rows[rows["brick_primary"]], truth_id[rows["brick_primary"]]


def catalog(release: str = "dr10") -> Table:
    """Return every row of every brick of a release, north and south, as one table."""
    trees = [(releases.get_tree(release, region).release, region) for region in ("south", "north")]
    parts = [_catalog_of(*tree, brick) for tree in trees for brick in CATALOG_TREES[tree]]
    for name in parts[0].colnames:
        if name.startswith("lc_"):
            _lengthen(parts, name)
    return vstack(parts, join_type="outer", metadata_conflicts="silent")


def _catalog_of(release: str, region: str, brick: str) -> Table:
    """Return every row of a brick, and what is true of it."""
    rows, truth_id = _brick_rows(release, region, brick)
    table = Table()
    for column in tractor_columns(release, region):
        values = rows[column.name]
        if column.kind[0] == "S":
            values = np.char.rstrip(np.char.decode(values, "ascii"))
        table[column.name] = MaskedColumn(values)
    table["region"] = region
    official = bricks.is_north(rows["ra"], rows["dec"]) == (region == "north")
    table["resolved"] = rows["brick_primary"] & official
    table["truth_id"] = truth_id
    return table


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
    rows, _ = _brick_rows(release, region, brick)
    yield path, fits.HDUList([primary, _table_hdu(rows.copy(), units)]).writeto


def ccds_file(release: str, region: str, brick: str) -> Iterator[Content]:
    """Yield the table of the CCDs that went into the coadds of a brick."""
    path = paths.file_path("ccds-table", release, region, brick=brick)
    table = fits.BinTableHDU(ccd_rows(release, region, brick))
    yield path, fits.HDUList([fits.PrimaryHDU(), table]).writeto


def _table_hdu(rows: np.ndarray, units: dict[str, str]) -> fits.BinTableHDU:
    """Return rows as a table of a FITS file."""
    hdu = fits.BinTableHDU(rows)
    for number, name in enumerate(names_of(rows), start=1):
        # Into the header, where it stays as it is spelt: some are no unit to anybody.
        if units.get(name):
            hdu.header.set(f"TUNIT{number}", units[name], after=f"TFORM{number}")
    return hdu


# What is not in the light catalogue but in files of its own, or in none.
_LEFT_OUT = (
    "lc_",
    "apflux_",
    "brick_primary",
    "bx",
    "by",
    "nea_",
    "blob_nea_",
    "nearest_neighbor",
    "ngood_",
    "mjd_",
    "wise_coadd_id",
    "wise_x",
    "wise_y",
    "gaia_phot_variable_flag",
    "gaia_astrometric_excess_noise_sig",
    "gaia_astrometric_n_",
    "gaia_astrometric_weight_al",
    "gaia_a_g_val",
    "gaia_e_bp_min_rp_val",
)

# What the tables hold where there is no value.
NO_REDSHIFT = -99.0

_SPECTROSCOPIC_MAG = 20.0
_SURVEYS = ("SDSS", "DESI", "GAMA")
_WIDTHS = {"l68": -1.0, "u68": 1.0, "l95": -2.0, "u95": 2.0}
_STATISTICS = ("mean", "median", "std", *_WIDTHS)


def sweep_names(release: str, region: str) -> tuple[str, ...]:
    """Return the names of a region's sweeps."""
    names = {
        name
        for brick in CATALOG_TREES[release, region]
        for name in paths.sweep_names(release, region, brick)
    }
    return tuple(sorted(names))


def sweep_files(release: str, region: str, sweep: str) -> Iterator[Content]:
    """Yield a sweep and its photo-z."""
    rows, truth_id = primary_rows(release, region)
    inside = _is_in(sweep, rows["ra"], rows["dec"])
    rows, truth_id = rows[inside], truth_id[inside]
    columns = [c for c in tractor_columns(release, region) if not c.name.startswith(_LEFT_OUT)]
    light = rfn.repack_fields(rows[[column.name for column in columns]])
    units = {column.name.upper(): column.unit for column in columns}
    for kind, table in (("sweep", light), ("sweep-photo-z", photo_z(release, rows, truth_id))):
        table.dtype.names = tuple(map(str.upper, names_of(table)))
        in_units = units if kind == "sweep" else {}
        hdus = fits.HDUList([fits.PrimaryHDU(), _table_hdu(table, in_units)])
        hdus[0].header["OBJECT"] = ("SIMULATED", "these rows are not data")
        yield paths.file_path(kind, release, region, brick=sweep), hdus.writeto


def _is_in(sweep: str, ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    """Return which places are in the box that the name of a sweep says."""
    low, high = (
        (int(corner[:3]), int(corner[4:]) * (-1 if corner[3] == "m" else 1))
        for corner in sweep.split("-")[1:]
    )
    inside = (ra_deg >= low[0]) & (ra_deg < high[0])
    return inside & (dec_deg >= low[1]) & (dec_deg < high[1])


def _photo_z_bands(release: str) -> dict[str, str]:
    """Return the bands of each set of columns, by what the names of its columns end with."""
    return {"": "grz", "_i": "griz"} if int(release[2:]) >= 10 else {"": "grz"}


def photo_z_dtype(release: str) -> np.dtype:
    """Return the columns of the photo-z tables, which from DR10 on have a second set with i."""
    names = [f"z_phot_{name}{end}" for end in _photo_z_bands(release) for name in _STATISTICS]
    return np.dtype(
        [("release", "i2"), ("brickid", "i4"), ("objid", "i4")]
        + [(name, "f4") for name in names]
        + [("z_spec", "f4"), ("survey", "S10"), ("training", "?"), ("kfold", "i2")]
    )


def photo_z(release: str, rows: np.ndarray, truth_id: np.ndarray) -> np.ndarray:
    """Return the photo-z of rows of a Tractor catalogue, whose true sources have these ids."""
    table = np.zeros(len(rows), photo_z_dtype(release))
    for name in ("release", "brickid", "objid"):
        table[name] = rows[name]
    # Sources that are only in Gaia have the id -1, and no light that could be fitted.
    is_true = truth_id >= 0
    number = np.where(is_true, truth_id, 0)
    redshift = np.asarray(sky.truth()["redshift"])[number]
    magnitude = sky.magnitudes(np.asarray(sources()["flux_r"])[number])
    error = np.clip(0.02 * 10 ** (0.2 * (magnitude - 20)), 0.015, 0.2) * (1 + redshift)
    noise = noise_of(5, int(release[2:]))[number]
    for end, bands in _photo_z_bands(release).items():
        counts = [rows[f"nobs_{band}"] for band in bands if f"nobs_{band}" in names_of(rows)]
        was_seen = is_true & (np.min(counts, axis=0) > 0)
        middle = np.abs(redshift + noise[:, len(bands)] * error)
        values = {"mean": middle + 0.1 * error, "median": middle, "std": 1.1 * error}
        values |= {name: np.maximum(middle + k * error, 0) for name, k in _WIDTHS.items()}
        for name, column in values.items():
            table[f"z_phot_{name}{end}"] = np.where(was_seen, column, NO_REDSHIFT)
    is_galaxy = np.asarray(sky.truth()["type"])[number] != "PSF"
    has_spectrum = is_true & is_galaxy & (magnitude < _SPECTROSCOPIC_MAG) & (number % 3 == 0)
    table["z_spec"] = np.where(has_spectrum, redshift, NO_REDSHIFT)
    table["survey"] = np.where(has_spectrum, np.array(_SURVEYS)[number // 3 % len(_SURVEYS)], "")
    table["training"] = has_spectrum & (number % 2 == 0)
    table["kfold"] = np.where(table["training"], number % 10, -1)
    return table


_EBV = 0.05
_NOTE = "SIMULATED survey: only the bricks of the scene are listed."
# The medians of a brick are those of every so many pixels, each way.
_STEP_PIX = 4


def bricks_file(release: str) -> Iterator[Content]:
    """Yield the table of all bricks."""
    yield paths.file_path("survey-bricks", release), partial(_write, table=_all_bricks())


def region_file(release: str, region: str) -> Iterator[Content]:
    """Yield the table of the bricks of a region."""
    path = paths.file_path("region-bricks", release, region)
    yield path, partial(_write, table=_region_bricks(release, region))


def _write(file: BinaryIO, table: Table) -> None:
    """Write a table as a gzip file without the time at which it was made."""
    hdu = fits.BinTableHDU(table)
    hdu.header["OBJECT"] = ("SIMULATED", "these rows are not data")
    hdu.header["COMMENT"] = _NOTE
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(stream)
    file.write(gzip.compress(stream.getvalue(), mtime=0))


def _summarise(release: str, region: str, brick: str) -> dict[str, float]:
    """Return what the table of bricks says about the depth of a brick."""
    scene = BrickScene(release, region, brick)
    places = [scene.sky_of(window) for window in scene.windows]
    ra, dec = (
        np.concatenate([place[axis][::_STEP_PIX, ::_STEP_PIX].ravel() for place in places])
        for axis in (0, 1)
    )
    primary = bricks.brick_id(ra, dec) == scene.brick.id
    scale_arcsec = scene.grid.scale_deg * 3600
    summary: dict[str, float] = {}
    for band in releases.get_tree(release, region).bands:
        nexp = sky.exposures(ra, dec, band)
        nexp = nexp[primary & (nexp > 0)]
        median = float(np.median(nexp)) if len(nexp) else 0.0
        summary[f"nexp_{band}"] = int(median)
        summary[f"psfsize_{band}"] = sky.psf_fwhm_arcsec(band) if median else 0.0
        pixel_ivar = median / sky.NOISE_SIGMA[band] ** 2
        for name, norm in (("psfdepth", sky.psf_norm), ("galdepth", sky.galaxy_norm)):
            # 5-sigma AB magnitude, 0 where there is no depth.
            ivar = pixel_ivar * norm(band, scale_arcsec)
            summary[f"{name}_{band}"] = float(sky.magnitudes(5 / np.sqrt(ivar))) if ivar else 0.0
    return summary


def _ids(names: Iterable[str]) -> np.ndarray:
    return np.array(sorted(bricks.parse_brick_name(name) for name in names))


def _all_bricks() -> Table:
    ids = _ids({name for names in sky.BRICKS.values() for name in names})
    row, column = bricks.brick_row_column(ids)
    ra, dec = bricks.brick_center(ids)
    ra1, ra2, dec1, dec2 = bricks.brick_edges(ids)
    table = Table()
    table["BRICKNAME"] = bricks.name_of(ids)
    table["BRICKID"] = ids.astype(np.int32)
    table["BRICKQ"] = bricks.brick_quadrant(ids).astype(np.int16)
    table["BRICKROW"], table["BRICKCOL"] = row.astype(np.int32), column.astype(np.int32)
    table["RA"], table["DEC"] = ra, dec
    table["RA1"], table["RA2"], table["DEC1"], table["DEC2"] = ra1, ra2, dec1, dec2
    return table


def _region_bricks(release: str, region: str) -> Table:
    ids = _ids(sky.BRICKS[release, region])
    names = bricks.name_of(ids)
    summary = Table(rows=[_summarise(release, region, name) for name in names])
    bands = releases.get_tree(release, region).bands
    ra, dec = bricks.brick_center(ids)
    ra1, ra2, dec1, dec2 = bricks.brick_edges(ids)
    table = Table()
    table["brickname"], table["ra"], table["dec"] = names, ra, dec
    for band in bands:
        table[f"nexp_{band}"] = summary[f"nexp_{band}"].astype(np.int16)
    for column, values in _count_sources(ids).items():
        table[column] = values.astype(np.int32)
    for quantity in ("psfsize", "psfdepth", "galdepth"):
        for band in bands:
            key = f"{quantity}_{band}"
            table[key] = summary[key].astype(np.float32)
    table["ebv"] = np.full(len(ids), _EBV, np.float32)
    for band in bands:
        transmission = 10 ** (-0.4 * sky.EXTINCTION[band] * _EBV)
        table[f"trans_{band}"] = np.full(len(ids), transmission, np.float32)
    table["brickid"] = ids.astype(np.int32)
    table["ra1"], table["ra2"], table["dec1"], table["dec2"] = ra1, ra2, dec1, dec2
    height = np.degrees(np.sin(np.radians(dec2)) - np.sin(np.radians(dec1)))
    table["area"] = ((ra2 - ra1) * height).astype(np.float32)
    official = releases.get_tree("dr10", region).folder == f"{release}/{region}"
    table["survey_primary"] = official & (bricks.region_of_brick(ids, "dr10") == region)
    table["in_desi"] = table["survey_primary"].copy()
    return table


def _count_sources(ids: np.ndarray) -> dict[str, np.ndarray]:
    """Return how many sources of each type each brick owns."""
    sources = sky.truth()
    owner = bricks.brick_id(sources["ra"], sources["dec"])
    kinds = {"npsf": "PSF", "nrex": "REX", "nexp": "EXP", "ndev": "DEV", "nser": "SER"}
    counts = {"nobjs": np.array([(owner == brick).sum() for brick in ids])}
    for column, kind in kinds.items():
        counts[column] = np.array([((owner == b) & (sources["type"] == kind)).sum() for b in ids])
    return counts
