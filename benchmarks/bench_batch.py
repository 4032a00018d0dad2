"""Many cutouts: a job against a loop, against whole files, and against other packages.

The targets lie in one brick of the simulated sky.  Whole files with `Cutout2D` are read once each
and kept in memory, which is the best that this way can do.  Of local files cutouts of 128 pixels in
one band are made, by us and by cutana and cutout-fits, if they are installed.  All files are
written to memory.
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
from pathlib import Path

import numpy as np
from _batch_rivals import RIVALS
from _report import options, processor_seconds, report
from astropy import log
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.table import Table
from astropy.wcs import WCS

from astroquery_lis import LegacySurvey, sandbox

ASKED = {"bands": "grz", "products": ("image", "invvar")}
N_DENSE, N_SPARSE, N_LOOP, N_LOCAL, N_SLOW, N_PLANES = 400, 20, 60, 2000, 100, 4000
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


def local_planes(root):
    """Yield rows of six planes of local files of one brick."""
    ways = [
        ("job in threads", N_PLANES, download, {"executor": "threads"}),
        ("job in processes", N_PLANES, download, {"executor": "processes"}),
        ("job in the processes of before", N_PLANES, download, {"executor": "processes"}),
        ("whole files and Cutout2D", N_DENSE, whole_files, {}),
        ("floor", N_PLANES, floor, {}),
    ]
    for name, n, way, extra in ways:
        if way is download:
            extra = {**extra, "show_progress": False}
        begun, cpu_s = time.perf_counter(), processor_seconds()
        way(targets(n), mirror=root, **extra)
        seconds, cpu_s = time.perf_counter() - begun, processor_seconds() - cpu_s
        yield f"local files, six planes of 256 pixels, {name}: cutouts", n / seconds, "/s"
        yield f"local files, six planes, {name}: processor time for each", 1000 * cpu_s / n, "ms"


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
        name = f"the same by {name} ({told['version']})"
        yield f"{name}: cutouts", n / told["seconds"], "/s"
        yield f"{name}: processor time for each", 1000 * told["cpu_s"] / n, "ms"


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
        rows += [*local_planes(str(sky.root)), *local(str(sky.root))]
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append(("most memory of the process, server included", memory_mb, "MB"))
    report("Many cutouts, on the loopback and of local files", rows, chosen)


if __name__ == "__main__":
    main()
