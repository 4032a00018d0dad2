"""Values of the maps at many positions: CPU beside reading the files whole, and memory.

Memory is the highest of a process of its own for each number of positions, over four bricks.
"""

import json
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from _report import median_cpu_seconds, options, report
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from astroquery_lis import LegacySurveyClass, sandbox
from astroquery_lis.survey.paths import file_path

BRICK = "0451p000"
N_POSITIONS = (1_000, 100_000)
N_MEMORY = (1_000, 100_000, 1_000_000)


def positions(n, width):
    """Return positions all over one brick, or more of them."""
    rng = np.random.default_rng(1)
    ra = 45.0 + rng.uniform(0.001, width, n)
    return Table({"ra": ra, "dec": rng.uniform(-0.124, width - 0.126, n)})


def directly(root, table):
    """Read two maps whole with astropy, and their values at the positions."""
    columns = []
    for product, band in (("maskbits", None), ("nexp", "r")):
        path = Path(root, file_path(product, "dr10", "south", brick=BRICK, band=band))
        with fits.open(path) as hdus:
            x, y = WCS(hdus[1].header).world_to_pixel_values(table["ra"], table["dec"])
            columns.append(hdus[1].data[np.rint(y).astype(int), np.rint(x).astype(int)])
    return columns


def ours(root, table):
    """Ask for the same."""
    survey = LegacySurveyClass()
    survey.mirror = root
    maps = survey.query_maps(table, ("maskbits", "nexp"), bands="r", show_progress=False)
    return [np.asarray(maps["maskbits"]), np.asarray(maps["nexp_r"])]


def resident_mb(root, n):
    """Return the highest memory (MB) of a process that asks for so many positions."""
    command = [sys.executable, __file__, "--memory", str(root), str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main():
    chosen = options(__doc__)
    warnings.simplefilter("ignore")
    rows = []
    with sandbox.serve(configure=False) as sky:
        root = str(sky.root)
        for n in N_POSITIONS:
            table = positions(n, 0.249)
            for one, other in zip(ours(root, table), directly(root, table), strict=True):
                assert np.array_equal(one, other)
            calls = [partial(directly, root, table), partial(ours, root, table)]
            plain, own = median_cpu_seconds(calls, chosen.runs)
            rows += [
                (f"{n} positions: two files read whole, CPU", 1e3 * plain, "ms"),
                (f"{n} positions: query_maps, CPU", 1e3 * own, "ms"),
                (f"{n} positions: query_maps over reading whole", own / plain, "x"),
            ]
        for n in N_MEMORY:
            before, highest, held = resident_mb(root, n)
            rows += [
                (f"{n} positions in four bricks: memory before", before, "MB"),
                (f"{n} positions in four bricks: highest memory", highest, "MB"),
                (f"{n} positions in four bricks: of that, tables in and out", held, "MB"),
            ]
    report("Values of maps at positions", rows, chosen)


def remember(root, n):
    """Print the memory before and the highest, and what the tables take, in MB."""
    from astroquery_lis.io.processes import peak_memory_gb

    ours(root, positions(10, 0.249))
    table = positions(n, 0.49)
    before = 1e3 * peak_memory_gb()
    survey = LegacySurveyClass()
    survey.mirror = root
    maps = survey.query_maps(table, ("maskbits", "nexp"), bands="r", show_progress=False)
    held = 1e-6 * sum(
        c.nbytes + np.ma.getmaskarray(c).nbytes for t in (table, maps) for c in t.itercols()
    )
    print(json.dumps([before, 1e3 * peak_memory_gb(), held]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        remember(sys.argv[2], int(sys.argv[3]))
    else:
        main()
