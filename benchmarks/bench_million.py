"""A job of very many small cutouts on a Dask cluster of two workers on this machine.

Its targets lie in four bricks on disk, 32 pixels in one band, to HDF5.  What it leaves is measured
too: the journal, the manifest, and the highest memory of each process.  The scheduler is in the
process that makes the call.
"""

import re
import tempfile
import time
from pathlib import Path

import numpy as np
from _report import parser, processor_seconds, report
from _served import served
from astropy import log
from astropy.table import Table
from bench_batch import MEMORY, targets_of_four
from distributed import Client, LocalCluster

from astroquery_lis import LegacySurvey

N_TARGETS, N_PLACES, SIZE_PIX, N_WORKERS = 10**6, 20_000, 32, 2
SCATTER_DEG = 2 / 3600


def targets(n, mirror):
    """Positions round some that were observed."""
    rng = np.random.default_rng(4)
    places = targets_of_four(min(n, N_PLACES), mirror)
    rows = np.resize(np.arange(len(places)), n)
    scatter = rng.normal(0, SCATTER_DEG, (2, n))
    return Table({"ra": places["ra"][rows] + scatter[0], "dec": places["dec"][rows] + scatter[1]})


def peak_mb():
    """Return the highest memory of this process so far."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024 / 1e6


def megabytes(folder, pattern):
    return sum(path.stat().st_size for path in Path(folder).rglob(pattern)) / 1e6


def job(table, mirror, folder):
    """Yield the rows of the report."""
    n = len(table)
    with (
        LocalCluster(n_workers=N_WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        before_mb = peak_mb()
        begun, cpu_s = time.perf_counter(), processor_seconds()
        manifest = LegacySurvey.download_cutouts(
            table,
            SIZE_PIX,
            bands="r",
            mirror=mirror,
            download_dir=folder,
            output="hdf5",
            executor=client.get_executor(),
            show_progress=False,
        )
        seconds, cpu_s = time.perf_counter() - begun, processor_seconds() - cpu_s
        workers_mb = client.run(peak_mb).values()
    yield "targets", n, ""
    yield "rows of the manifest", len(manifest), ""
    yield "rows complete", int(np.count_nonzero(manifest["Status"] == "COMPLETE")), ""
    yield "time", seconds, "s"
    yield "cutouts", n / seconds, "/s"
    yield "processor time for each, all processes", 1000 * cpu_s / n, "ms"
    yield "journal", megabytes(folder, "*.jsonl"), "MB"
    yield "journal for each", 1e6 * megabytes(folder, "*.jsonl") / n, "B"
    yield "cutouts on disk", megabytes(folder, "*.h5"), "MB"
    yield "most memory of the process that makes the call", peak_mb(), "MB"
    yield "of which before the call", before_mb, "MB"
    yield "most memory of a worker", max(workers_mb), "MB"


def main():
    arguments = parser(__doc__)
    arguments.add_argument(
        "--targets", type=int, default=N_TARGETS, help=f"how many (default: {N_TARGETS})"
    )
    arguments.add_argument(
        "--folder", default=MEMORY, help="where the cutouts are, for as long as it runs"
    )
    chosen = arguments.parse_args()
    log.setLevel("WARNING")
    with served() as sky, tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        rows = list(job(targets(chosen.targets, sky.root), sky.root, folder))
    report("Very many cutouts, on a Dask cluster of this machine", rows, chosen)


if __name__ == "__main__":
    main()
