"""The tables of the bricks of the simulated survey."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Iterator
from functools import partial
from typing import BinaryIO

import numpy as np
from astropy.io import fits
from astropy.table import Table

from ..survey import bricks, paths, releases
from . import render, sky
from .coadds import Content
from .planes import BrickScene

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
        summary[f"psfsize_{band}"] = render.psf_fwhm_arcsec(band) if median else 0.0
        pixel_ivar = median / sky.NOISE_SIGMA[band] ** 2
        for name, norm in (("psfdepth", render.psf_norm), ("galdepth", render.galaxy_norm)):
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
    rows = {name: _summarise(release, region, name) for name in names}
    bands = releases.get_tree(release, region).bands
    ra, dec = bricks.brick_center(ids)
    ra1, ra2, dec1, dec2 = bricks.brick_edges(ids)
    table = Table()
    table["brickname"], table["ra"], table["dec"] = names, ra, dec
    for band in bands:
        key = f"nexp_{band}"
        table[key] = np.array([rows[name][key] for name in names], np.int16)
    for column, values in _count_sources(ids).items():
        table[column] = values.astype(np.int32)
    for quantity in ("psfsize", "psfdepth", "galdepth"):
        for band in bands:
            key = f"{quantity}_{band}"
            table[key] = np.array([rows[name][key] for name in names], np.float32)
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
