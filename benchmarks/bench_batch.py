"""Many cutouts: a job against a loop, against whole files, and against other packages.

The targets lie in one brick of the simulated sky, the sparse ones in four.  The server has a
process of its own.  Whole files with `Cutout2D` are read once each and kept in memory, which is
the best that this way can do.  Of local files of the four, cutouts of 128 pixels in one band are
made, by us and by cutana and cutout-fits, if they are installed.  All files are written to memory.
"""

import hashlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from _batch_rivals import RIVALS
from _report import options, processor_seconds, report
from _served import served
from astropy import log
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.table import Table, vstack
from astropy.wcs import WCS

from astroquery_lis import LegacySurvey, bricks

ASKED = {"bands": "grz", "products": ("image", "invvar")}
N_DENSE, N_SPARSE, N_LOOP, N_LOCAL, N_SLOW, N_PLANES = 400, 200, 60, 2000, 100, 4000
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def targets(n, center_ra=45.125, center_dec=0.0, half_width=0.11):
    rng = np.random.default_rng(2)
    offsets_ra, offsets_dec = rng.uniform(-half_width, half_width, (2, n))
    return Table({"ra": center_ra + offsets_ra, "dec": center_dec + offsets_dec})


def targets_of_four(n, mirror):
    """Positions all over four bricks, where something was observed."""
    table = targets(4 * n, 45.25, 0.125, 0.24)
    return table[LegacySurvey.covers(table, observed=True, mirror=mirror)][:n]


def download(table, **kwargs):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        LegacySurvey.download_cutouts(table, 256, download_dir=folder, **ASKED, **kwargs)


def loop(table, **kwargs):
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        for number, position in enumerate(SkyCoord(table["ra"], table["dec"], unit="deg")):
            hdul = LegacySurvey.get_cutout(position, 256, **ASKED, **kwargs)
            hdul.writeto(Path(folder, f"{number}.fits"))


def addresses(table, **kwargs):
    first = SkyCoord(table["ra"][0], table["dec"][0], unit="deg")
    asked = {**ASKED, **kwargs, "get_query_payload": True}
    return LegacySurvey.get_cutout(first, 256, **asked)["urls"]


def whole_files(table, **kwargs):
    positions = SkyCoord(table["ra"], table["dec"], unit="deg")
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        images = []
        for url in addresses(table, **kwargs):
            with urllib.request.urlopen(url if "://" in url else f"file://{url}") as answer:
                hdul = fits.open(io.BytesIO(answer.read()))
            images.append((hdul[1].data, WCS(hdul[1].header)))
        for number, position in enumerate(positions):
            made = [Cutout2D(data, position, 256, wcs=wcs) for data, wcs in images]
            hdus = [fits.ImageHDU(cut.data, cut.wcs.to_header()) for cut in made]
            fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(Path(folder, f"{number}.fits"))


def floor(table, **kwargs):
    """Decode each row of tiles once, copy the pixels, take the digest, write the bytes."""
    images = []
    for path in addresses(table, **kwargs):
        with fits.open(path, memmap=False) as hdul:
            ny = hdul[1].shape[0]
            rows = [hdul[1].section[y : min(y + 100, ny)] for y in range(0, ny, 100)]
        images.append(np.concatenate(rows))
    rng = np.random.default_rng(3)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        for number in range(len(table)):
            y, x = rng.integers(0, 3600 - 256, 2)
            data = b"".join(i[y : y + 256, x : x + 256].astype(">f4").data for i in images)
            hashlib.sha256(data).hexdigest()
            Path(folder, f"{number}.fits").write_bytes(data)


EXECUTORS = (
    ("threads", "threads"),
    ("processes and their start", "processes"),
    ("processes of before", "processes"),
)


def jobs(name, table, size_pix, **asked):
    """Return rows of a job of local files in each executor; in a process of its own."""
    log.setLevel("WARNING")
    rows = []
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        # Modules are imported and tables of bricks read on nobody's clock.
        LegacySurvey.download_cutouts(
            table[:8], size_pix, download_dir=folder, executor="threads", **asked
        )
    for words, executor in EXECUTORS:
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            begun, cpu_s = time.perf_counter(), processor_seconds()
            LegacySurvey.download_cutouts(
                table, size_pix, download_dir=folder, executor=executor, **asked
            )
            rows += rates(f"{name}, {words}", len(table), begun, cpu_s)
    return rows


def rates(name, n, begun, cpu_s):
    """Return rows of what began when the clock and the processor time were so."""
    seconds, cpu_s = time.perf_counter() - begun, processor_seconds() - cpu_s
    return [
        (f"{name}: cutouts", n / seconds, "/s"),
        (f"{name}: processor time for each", 1000 * cpu_s / n, "ms"),
    ]


def in_new_process(function, *args, **options):
    """Call a function where no workers of before wait."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args, **options).result()


def local_planes(root):
    """Yield rows of six planes of local files of one brick."""
    name, asked = "local files, six planes of 256 pixels", {"mirror": root}
    yield from in_new_process(
        jobs, name, targets(N_PLANES), 256, **ASKED, **asked, show_progress=False
    )
    ways = [("whole files and Cutout2D", N_DENSE, whole_files), ("floor", N_PLANES, floor)]
    for words, n, way in ways:
        begun, cpu_s = time.perf_counter(), processor_seconds()
        way(targets(n), **asked)
        yield from rates(f"{name}, {words}", n, begun, cpu_s)


def local(root):
    """Yield rows of one band of four local bricks, by us and by others, which know no borders."""
    centers = [(ra, dec) for ra in (45.125, 45.375) for dec in (0.0, 0.25)]
    positions = vstack([targets(N_LOCAL, ra, dec) for ra, dec in centers])
    observed = LegacySurvey.covers(positions, observed=True, mirror=root)
    positions = positions[observed]
    positions = positions[np.linspace(0, len(positions) - 1, N_LOCAL).astype(int)]
    asked = {"bands": "r", "mirror": root, "show_progress": False}
    names = bricks.brick_name(positions["ra"], positions["dec"])
    files = {}
    for name in np.unique(names):
        payload = LegacySurvey.get_cutout(name, 8, bands="r", mirror=root, get_query_payload=True)
        files[name] = payload["urls"][0]
    for output in ("fits", "hdf5", "zarr"):
        name = f"local files of four bricks, one band of 128 pixels, {output}"
        yield from in_new_process(jobs, name, positions, 128, output=output, **asked)
    for rival in RIVALS:
        n = N_SLOW if rival == "cutout-fits" else N_LOCAL
        places = [[float(row["ra"]), float(row["dec"])] for row in positions[:n]]
        asked = {
            "files": [files[name] for name in names[:n]],
            "size": 128,
            "places": places,
            "memory": MEMORY,
        }
        command = [sys.executable, "_batch_rivals.py", rival]
        answer = subprocess.run(
            command,
            cwd=Path(__file__).parent,
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode:
            print(f"{rival}: {answer.stderr.strip().splitlines()[-1]}")
            continue
        told = json.loads(answer.stdout.splitlines()[-1])
        name = f"the same by {rival} ({told['version']})"
        yield f"{name}: cutouts", n / told["seconds"], "/s"
        yield f"{name}: processor time for each", 1000 * told["cpu_s"] / n, "ms"


def main():
    chosen = options(__doc__)
    log.setLevel("WARNING")
    rows = []
    with served() as sky:
        mirror = sky.urls["mirror"]
        sparse = targets_of_four(N_SPARSE, mirror)
        ways = [
            ("dense, job in threads", targets(N_DENSE), download, {}),
            ("dense, job in processes", targets(N_DENSE), download, {"executor": "processes"}),
            ("dense, job in threads, HDF5", targets(N_DENSE), download, {"output": "hdf5"}),
            ("dense, one by one", targets(N_LOOP), loop, {}),
            ("dense, whole files and Cutout2D", targets(N_DENSE), whole_files, {}),
            ("sparse, job in threads", sparse, download, {}),
            ("sparse, one by one", sparse, loop, {}),
        ]
        # Files are made when they are first asked for: not on anybody's clock.
        download(sparse, mirror=mirror)
        for name, table, way, extra in ways:
            n = len(table)
            LegacySurvey.clear_cache()
            sky.counts()
            begun, cpu_s = time.perf_counter(), processor_seconds(sky.pid)
            way(table, mirror=mirror, **extra)
            seconds, cpu_s = time.perf_counter() - begun, processor_seconds(sky.pid) - cpu_s
            requests, sent = sky.counts()
            rows += [
                (f"{name}: cutouts", n / seconds, "/s"),
                (f"{name}: processor time for each", 1000 * cpu_s / n, "ms"),
                (f"{name}: requests for each", requests / n, ""),
                (f"{name}: bytes for each", sent / 1e6 / n, "MB"),
            ]
        rows += [*local_planes(sky.root), *local(sky.root)]
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append(("most memory of the process", memory_mb, "MB"))
    report("Many cutouts, on the loopback and of local files", rows, chosen)


if __name__ == "__main__":
    main()
