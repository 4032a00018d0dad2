"""The tables of bricks of the simulated survey: all bricks of the scene, and those of a region."""

import numpy as np
from astropy.io import fits
from astropy.table import Table

from ..survey import bricks, paths, releases
from . import sky

__all__ = ["summarise_band", "write_brick_tables"]

_EBV = 0.05
_EXTINCTION = {"g": 3.214, "r": 2.165, "i": 1.592, "z": 1.211}
_NOTE = "SIMULATED survey: only the bricks of the scene are listed."


def summarise_band(planes, primary, band):
    """Return what the table of bricks says about one band of a brick.

    Parameters
    ----------
    planes : dict of str to `~numpy.ndarray`
        Products of the band.
    primary : `~numpy.ndarray` of bool
        Pixels that the brick owns.
    band : str
        The band.

    Returns
    -------
    dict
        Medians over the observed pixels that the brick owns.  (The survey takes nexp over all of
        them, which would say 0 for bricks of which a small part was observed.)
    """
    seen = primary & (planes["nexp"] > 0)

    def median(product):
        return float(np.median(planes[product][seen])) if seen.any() else 0.0

    summary = {f"nexp_{band}": int(median("nexp")), f"psfsize_{band}": median("psfsize")}
    for name, product in (("psfdepth", "depth"), ("galdepth", "galdepth")):
        # 5-sigma AB magnitude, 0 where there is no depth.
        ivar = median(product)
        summary[f"{name}_{band}"] = 22.5 - 2.5 * np.log10(5 / np.sqrt(ivar)) if ivar > 0 else 0.0
    return summary


def write_brick_tables(root, summaries):
    """Write ``survey-bricks`` and the table of each region.

    Parameters
    ----------
    root : `~pathlib.Path`
        Folder of the tree.
    summaries : dict of (str, str, str) to dict
        By release, region and brick name: what `summarise_band` gave.
    """
    names = sorted({name for _, _, name in summaries})
    for release in ("dr9", "dr10"):
        _write(root / paths.file_path("survey-bricks", release), _all_bricks(names))
    for release, region in sky.BRICKS:
        rows = {key[2]: value for key, value in summaries.items() if key[:2] == (release, region)}
        _write(
            root / paths.file_path("region-bricks", release, region),
            _region_bricks(release, region, rows),
        )


def _write(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    hdu = fits.BinTableHDU(table)
    hdu.header["OBJECT"] = ("SIMULATED", "these rows are not data")
    hdu.header["COMMENT"] = _NOTE
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)


def _ids(names):
    return np.array(sorted(bricks.parse_brick_name(name) for name in names))


def _all_bricks(names):
    ids = _ids(names)
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


def _region_bricks(release, region, rows):
    ids = _ids(rows)
    names = bricks.name_of(ids)
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
        transmission = 10 ** (-0.4 * _EXTINCTION[band] * _EBV)
        table[f"trans_{band}"] = np.full(len(ids), transmission, np.float32)
    table["brickid"] = ids.astype(np.int32)
    table["ra1"], table["ra2"], table["dec1"], table["dec2"] = ra1, ra2, dec1, dec2
    height = np.degrees(np.sin(np.radians(dec2)) - np.sin(np.radians(dec1)))
    table["area"] = ((ra2 - ra1) * height).astype(np.float32)
    official = releases.get_tree("dr10", region).folder == f"{release}/{region}"
    table["survey_primary"] = official & (bricks.region_of_brick(ids, "dr10") == region)
    table["in_desi"] = table["survey_primary"].copy()
    return table


def _count_sources(ids):
    """Return how many sources of each type each brick owns."""
    sources = sky.truth()
    owner = bricks.brick_id(sources["ra"], sources["dec"])
    kinds = {"npsf": "PSF", "nrex": "REX", "nexp": "EXP", "ndev": "DEV", "nser": "SER"}
    counts = {"nobjs": np.array([(owner == brick).sum() for brick in ids])}
    for column, kind in kinds.items():
        counts[column] = np.array([((owner == b) & (sources["type"] == kind)).sum() for b in ids])
    return counts
