"""CPU time of a repeated cone and of a cross-match, beside the plain way to do them.

The brick catalogues are the simulated ones, repeated until they have as many rows as the survey's.
"""

import shutil
import tempfile
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
from _report import median_cpu_seconds, options, report
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from astroquery_lis import LegacySurveyClass, sandbox
from astroquery_lis.survey.bricks import brick_edges, parse_brick_name

BRICKS = ("0451p000", "0453p000", "0451p002", "0453p002")
N_ROWS = 10_000
N_POSITIONS = 100_000


def grow(path, brick, rng):
    """Repeat the rows of a brick's catalogue all over the brick."""
    with fits.open(path) as hdus:
        rows, header = hdus[1].data, hdus[1].header
        rows = np.resize(np.asarray(rows), N_ROWS)
        ra1, ra2, dec1, dec2 = brick_edges(parse_brick_name(brick))
        rows["ra"] = rng.uniform(ra1, ra2, N_ROWS)
        rows["dec"] = rng.uniform(dec1, dec2, N_ROWS)
        rows["objid"] = np.arange(N_ROWS)
        rows["brick_primary"] = ord("T")
        rows["type"] = "PSF"
        table = fits.BinTableHDU(rows, header=header)
        fits.HDUList([fits.PrimaryHDU(), table]).writeto(path, overwrite=True)


def naive_cone(path, center, radius):
    table = Table.read(path)
    places = SkyCoord(table["ra"], table["dec"], unit="deg")
    return table[places.separation(center) <= radius]


def naive_match(paths, positions, radius):
    """Match to each brick in turn, as a notebook does."""
    best = np.full(len(positions), np.inf)
    for path in paths:
        table = Table.read(path)
        places = SkyCoord(table["ra"], table["dec"], unit="deg")
        _, apart, _ = positions.match_to_catalog_sky(places)
        best = np.minimum(best, apart.arcsec)
    return (best <= radius.to_value(u.arcsec)).sum()


def main():
    chosen = options(__doc__)
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder, sandbox.serve(configure=False) as sky:
        paths = []
        for brick in BRICKS:
            relative = f"dr10/south/tractor/{brick[:3]}/tractor-{brick}.fits"
            path = Path(folder, relative)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sky.root / relative, path)
            grow(path, brick, rng)
            paths.append(path)
        survey = LegacySurveyClass()
        survey.mirror = folder
        survey.cache_location = Path(folder, "cache")
        center, radius = SkyCoord(45.125, 0.0, unit="deg"), 30 * u.arcsec
        few = {"columns": ["ra", "dec", "flux"]}
        calls = [
            lambda: naive_cone(paths[0], center, radius),
            lambda: survey.query_tractor(center, radius=radius),
            lambda: survey.query_tractor(center, radius=radius, **few),
        ]
        # One after the other: a cone is repeated while everything is in the processor's cache.
        plain, core, some = (
            median_cpu_seconds([call], times * chosen.runs)[0]
            for call, times in zip(calls, (6, 60, 60), strict=True)
        )
        rows = [
            ("rows of the brick's file", N_ROWS, ""),
            ("size of the brick's file", paths[0].stat().st_size / 1e6, "MB"),
            ("a cone by Table.read and a mask", 1e3 * plain, "ms"),
            ("query_tractor, repeated, 10 columns", 1e3 * some, "ms"),
            ("the plain way over that", plain / some, "x"),
            ("query_tractor, repeated, the 158 columns of the core", 1e3 * core, "ms"),
            ("the plain way over that of 158 columns", plain / core, "x"),
        ]
        positions = SkyCoord(
            rng.uniform(45.001, 45.499, N_POSITIONS),
            rng.uniform(-0.124, 0.374, N_POSITIONS),
            unit="deg",
        )
        limit = 1 * u.arcsec
        calls = [
            lambda: naive_match(paths, positions, limit),
            lambda: survey.crossmatch(positions, radius=limit, columns=["ls_id", "flux_r"]),
        ]
        loop, ours = median_cpu_seconds(calls, chosen.runs)
        rows += [
            ("10^5 positions in four bricks, loop over bricks with astropy", loop, "s"),
            ("crossmatch", ours, "s"),
            ("the loop over crossmatch", loop / ours, "x"),
        ]
        report("CPU time of a repeated cone on a cached brick, and of a cross-match", rows, chosen)


if __name__ == "__main__":
    main()
