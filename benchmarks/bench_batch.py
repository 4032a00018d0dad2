"""Many cutouts, 256 pixels, g r z, image and invvar: a job against a loop against whole files.

The targets lie in one brick of the simulated sky.  Whole files with `Cutout2D` are read once each
and kept in memory, which is the best that this way can do.
"""

import io
import resource
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
from _report import options, report
from astropy import log
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.table import Table
from astropy.wcs import WCS

from astroquery_lis import LegacySurvey, sandbox

ASKED = {"bands": "grz", "products": ("image", "invvar")}
N_DENSE, N_SPARSE, N_LOOP = 400, 20, 60


def targets(n):
    rng = np.random.default_rng(2)
    return Table({"ra": 45.125 + rng.uniform(-0.11, 0.11, n), "dec": rng.uniform(-0.11, 0.11, n)})


def download(table, **kwargs):
    with tempfile.TemporaryDirectory() as folder:
        LegacySurvey.download_cutouts(table, 256, download_dir=folder, **ASKED, **kwargs)


def loop(table, **kwargs):
    with tempfile.TemporaryDirectory() as folder:
        for number, position in enumerate(SkyCoord(table["ra"], table["dec"], unit="deg")):
            hdul = LegacySurvey.get_cutout(position, 256, **ASKED)
            hdul.writeto(Path(folder, f"{number}.fits"))


def whole_files(table):
    positions = SkyCoord(table["ra"], table["dec"], unit="deg")
    urls = LegacySurvey.get_cutout(positions[0], 256, **ASKED, get_query_payload=True)["urls"]
    with tempfile.TemporaryDirectory() as folder:
        images = []
        for url in urls:
            with urllib.request.urlopen(url) as answer:
                hdul = fits.open(io.BytesIO(answer.read()))
            images.append((hdul[1].data, WCS(hdul[1].header)))
        for number, position in enumerate(positions):
            made = [Cutout2D(data, position, 256, wcs=wcs) for data, wcs in images]
            hdus = [fits.ImageHDU(cut.data, cut.wcs.to_header()) for cut in made]
            fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(Path(folder, f"{number}.fits"))


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
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows.append(("most memory of the process, server included", memory_mb, "MB"))
    report("Many cutouts on the loopback", rows, chosen)


if __name__ == "__main__":
    main()
