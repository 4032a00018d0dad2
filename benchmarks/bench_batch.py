"""Many cutouts: a job against a loop, against whole files, and against other packages.

The targets lie in one brick of the simulated sky.  Whole files with `Cutout2D` are read once each
and kept in memory, which is the best that this way can do.  Of local files cutouts of 128 pixels in
one band are made, by us and by cutana and cutout-fits, if they are installed.  All files are
written to memory.
"""

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from _batch_rivals import RIVALS
from _report import options, report
from astropy import log
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.table import Table
from astropy.wcs import WCS

from astroquery_lis import LegacySurvey, sandbox

ASKED = {"bands": "grz", "products": ("image", "invvar")}
N_DENSE, N_SPARSE, N_LOOP, N_LOCAL, N_SLOW = 400, 20, 60, 2000, 100
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def targets(n):
    rng = np.random.default_rng(2)
    return Table({"ra": 45.125 + rng.uniform(-0.11, 0.11, n), "dec": rng.uniform(-0.11, 0.11, n)})


def download(table, **kwargs):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        LegacySurvey.download_cutouts(table, 256, download_dir=folder, **ASKED, **kwargs)


def loop(table, **kwargs):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        for number, position in enumerate(SkyCoord(table["ra"], table["dec"], unit="deg")):
            hdul = LegacySurvey.get_cutout(position, 256, **ASKED)
            hdul.writeto(Path(folder, f"{number}.fits"))


def whole_files(table):
    positions = SkyCoord(table["ra"], table["dec"], unit="deg")
    urls = LegacySurvey.get_cutout(positions[0], 256, **ASKED, get_query_payload=True)["urls"]
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        images = []
        for url in urls:
            with urllib.request.urlopen(url) as answer:
                hdul = fits.open(io.BytesIO(answer.read()))
            images.append((hdul[1].data, WCS(hdul[1].header)))
        for number, position in enumerate(positions):
            made = [Cutout2D(data, position, 256, wcs=wcs) for data, wcs in images]
            hdus = [fits.ImageHDU(cut.data, cut.wcs.to_header()) for cut in made]
            fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(Path(folder, f"{number}.fits"))


def local(root):
    """Yield rows of one band of local files, by us and by other packages."""
    positions = targets(N_LOCAL)
    options = {"bands": "r", "mirror": root, "show_progress": False}
    first = SkyCoord(positions["ra"][0], positions["dec"][0], unit="deg")
    payload = LegacySurvey.get_cutout(first, 128, bands="r", mirror=root, get_query_payload=True)
    for output in ("fits", "hdf5", "zarr"):
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            begun, cpu_s = time.perf_counter(), processor_seconds()
            LegacySurvey.download_cutouts(
                positions, 128, download_dir=folder, output=output, **options
            )
            seconds, cpu_s = time.perf_counter() - begun, processor_seconds() - cpu_s
        name = f"local files, one band of 128 pixels, {output}"
        yield f"{name}: cutouts", N_LOCAL / seconds, "/s"
        yield f"{name}: processor time for each", 1000 * cpu_s / N_LOCAL, "ms"
    for name in RIVALS:
        n = N_SLOW if name == "cutout-fits" else N_LOCAL
        places = [[float(row["ra"]), float(row["dec"])] for row in positions[:n]]
        asked = {"file": payload["urls"][0], "size": 128, "places": places, "memory": MEMORY}
        command = [sys.executable, "_batch_rivals.py", name, json.dumps(asked)]
        answer = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
        if answer.returncode:
            print(f"{name}: {answer.stderr.strip().splitlines()[-1]}")
            continue
        told = json.loads(answer.stdout.splitlines()[-1])
        yield f"the same by {name} ({told['version']}): cutouts", n / told["seconds"], "/s"


def processor_seconds():
    """Return what this process and those that it started took."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main():
    chosen = options(__doc__)
    log.setLevel("WARNING")
    rows = []
    with sandbox.serve() as sky:
        # Files are made when they are first asked for: not on anybody's clock.
        LegacySurvey.get_cutout(sky.positions["field"], 256, **ASKED)
        ways = [
            ("dense, job in threads", N_DENSE, download, {}),
            ("dense, job in processes", N_DENSE, download, {"executor": "processes"}),
            ("dense, job in threads, HDF5", N_DENSE, download, {"output": "hdf5"}),
            ("dense, one by one", N_LOOP, loop, {}),
            ("dense, whole files and Cutout2D", N_DENSE, whole_files, {}),
            ("sparse, job in threads", N_SPARSE, download, {}),
            ("sparse, one by one", N_SPARSE, loop, {}),
        ]
        for name, n, way, extra in ways:
            LegacySurvey.clear_cache()
            sky.requests.clear()
            table = targets(n)
            begun = time.perf_counter()
            way(table, **extra)
            seconds = time.perf_counter() - begun
            sent = sum(record.bytes_sent for record in sky.requests) / 1e6
            rows += [
                (f"{name}: cutouts", n / seconds, "/s"),
                (f"{name}: requests for each", len(sky.requests) / n, ""),
                (f"{name}: bytes for each", sent / n, "MB"),
            ]
        rows += local(str(sky.root))
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append(("most memory of the process, server included", memory_mb, "MB"))
    report("Many cutouts, on the loopback and of local files", rows, chosen)


if __name__ == "__main__":
    main()
