"""A million targets put into jobs, with the tables of bricks at hand: time, memory, no request.

The footprint is made up: a cap and a belt of some 300,000 bricks, about what DR10 has.
"""

import resource
import socket

import numpy as np
from _report import median_seconds, options, report

from astroquery_lis.client.bulk import plan_cutouts
from astroquery_lis.client.inputs import as_targets
from astroquery_lis.images.cutting import CutoutJob
from astroquery_lis.survey.bricks import N_BRICKS, brick_center, is_north
from astroquery_lis.survey.request import cutout_request

N_TARGETS = 10**6
LIMIT_SECONDS, LIMIT_MB = 20, 1000


def footprint():
    ids = np.arange(1, N_BRICKS + 1)
    ra, dec = brick_center(ids)
    seen = (dec > -20) & ((ra < 60) | (ra > 300) | ((ra > 120) & (ra < 250)))
    return {
        ("dr10", "south"): ids[seen & (dec < 34)].astype(np.int32),
        ("dr10", "north"): ids[seen & is_north(ra, dec)].astype(np.int32),
    }


def targets():
    from astropy.table import Table

    rng = np.random.default_rng(1)
    ra = rng.uniform(0, 360, N_TARGETS)
    dec = np.degrees(np.arcsin(rng.uniform(-0.4, 1, N_TARGETS)))
    return Table({"id": np.arange(N_TARGETS), "ra": ra, "dec": dec})


def main():
    chosen = options(__doc__)
    table, bricks = targets(), footprint()
    request = cutout_request(
        (0.0, 0.0), 256, bands="grz", products=("image", "invvar"), release="dr10"
    )
    kinds = np.zeros(N_TARGETS, int)

    def refuse(*args, **kwargs):
        raise AssertionError("a request was made")

    socket.socket.connect = refuse

    def plan(on_missing="raise"):
        rows, numbers = as_targets(table), np.arange(N_TARGETS)
        planned = plan_cutouts(
            CutoutJob(numbers, rows.ids, rows.ra_deg, rows.dec_deg, (request,), kinds),
            numbers,
            bricks,
            on_missing=on_missing,
            targets_per_job=16,
        )
        jobs = sum(1 for _ in planned.jobs())
        return planned, jobs

    planned, jobs = plan()
    seconds = median_seconds(plan, chosen.runs)
    partly = median_seconds(lambda: plan("warn"), chosen.runs)
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows = [
        ("targets", N_TARGETS, ""),
        ("bricks in the footprint", sum(len(ids) for ids in bricks.values()), ""),
        ("targets without data", len(planned.no_data), ""),
        ("jobs", jobs, ""),
        ("time", seconds, "s"),
        ("time, partly covered boxes looked for too", partly, "s"),
        ("most memory of the process", memory_mb, "MB"),
    ]
    report("Planning, without any request", rows, chosen)
    if max(seconds, partly) > LIMIT_SECONDS or memory_mb > LIMIT_MB:
        raise SystemExit(f"more than {LIMIT_SECONDS} s or {LIMIT_MB} MB")


if __name__ == "__main__":
    main()
