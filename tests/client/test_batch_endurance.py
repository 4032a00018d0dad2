"""Long lists of cutouts that are killed, spread over a cluster, or large."""

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits

from astroquery_lis import LegacySurveyClass, conf
from astroquery_lis.exceptions import CoverageWarning
from astroquery_lis.io.journal import Journal

from .batch_checks import OPTIONS, check_manifest, contents, file_states, make_targets

# ---- kill -9 -----------------------------------------------------------------------------------

CHILD = """
import os, signal, sys, threading
from astropy.table import Table

from astroquery_lis import LegacySurvey

limit, folder, mirror, output = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
table = Table.read(sys.argv[5])
count, lock = 0, threading.Lock()
WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "socket.connect"}


def hook(event, arguments):
    # Just before the limit-th of these: often between two steps that belong together.
    global count
    if event in WATCHED:
        with lock:
            count += 1
            if count == limit:
                os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(hook)
LegacySurvey.download_cutouts(table, 32, download_dir=folder, mirror=mirror, id_column="name",
                              bands="gr", products=("image", "invvar"), output=output)
print(count)
"""


def _run_child(limit, folder, sky, output, table_path):
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(limit), folder, sky.mirror_url, output, table_path],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ASTROQUERY_LIS_CACHE_DIR": str(conf.cache_dir)},
    )


def _kill_and_complete(sky, tmp_path, moments, output):
    table = make_targets(sky, 24)
    table_path = tmp_path / "targets.ecsv"
    table.write(table_path)
    options = {"id_column": "name", "output": output, **OPTIONS}
    survey = LegacySurveyClass()
    survey.mirror = sky.mirror_url
    with conf.set_temp("cache_dir", str(tmp_path / "cache")):
        whole = _run_child(-1, tmp_path / "whole", sky, output, table_path)
        assert whole.returncode == 0, whole.stderr
        events = int(whole.stdout.split()[-1])
        reference = survey.download_cutouts(table, 32, download_dir=tmp_path / "whole", **options)
    for number, share in enumerate(moments):
        folder = tmp_path / f"killed{number}"
        with conf.set_temp("cache_dir", str(tmp_path / f"cache{number}")):
            child = _run_child(1 + int(share * events), folder, sky, output, table_path)
            assert child.returncode in (-signal.SIGKILL, 0), child.stderr
            before = file_states(folder)
            journal = folder / "cutouts.journal.jsonl"
            lines = journal.read_bytes() if journal.exists() else b""
            manifest = survey.download_cutouts(table, 32, download_dir=folder, **options)
            # What was written stays, byte for byte; whole lines of the journal too.
            assert before.items() <= file_states(folder).items()
            assert journal.read_bytes().startswith(lines[: lines.rfind(b"\n") + 1])
            assert not list(folder.glob(".*tmp"))
            rows = [result.row for result in _results(folder)]
            assert sorted(rows) == list(range(24)), "a row was done twice"
            assert list(manifest["Status"]) == list(reference["Status"])
            if output == "fits":
                check_manifest(manifest, 24)
                assert contents(manifest) == contents(reference)
            else:
                assert _arrays(manifest) == _arrays(reference)


def _results(folder):
    import json

    path = Path(folder, "cutouts.journal.jsonl")
    call = json.loads(path.read_text().splitlines()[0])["call"]
    with Journal(path, call) as journal:
        return list(journal.results())


def _arrays(manifest):
    import h5py

    found = {}
    for path in {path for path in manifest["Local Path"] if path}:
        with h5py.File(path) as file:
            for place, entry in enumerate(file["index"][:]):
                pixels = file["image"][place].tobytes() + file["invvar"][place].tobytes()
                assert int(entry["row"]) not in found
                found[int(entry["row"])] = pixels
    return found


def test_a_batch_that_is_killed_is_completed(sky, tmp_path):
    moments = np.random.default_rng(20).uniform(0.02, 0.98, 2)
    _kill_and_complete(sky, tmp_path, moments, "fits")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("output", ["fits", "hdf5"])
def test_a_batch_that_is_killed_at_fifty_moments_is_completed(sky, tmp_path, output):
    moments = np.random.default_rng(21).uniform(0, 1, 50)
    _kill_and_complete(sky, tmp_path, moments, output)


# ---- clusters and size -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_worker_gives_what_serial_work_gives(sky, survey, tmp_path):
    distributed = pytest.importorskip("distributed")
    table = make_targets(sky, 200, width_deg=0.1)
    serial = survey.download_cutouts(table, 48, download_dir=tmp_path / "serial", **OPTIONS)

    def arm():
        import os
        import signal
        import sys

        count = 0

        def hook(event, arguments):
            nonlocal count
            if event == "os.rename" and str(arguments[1]).endswith(".fits"):
                count += 1
                if count == 5:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        return os.getpid()

    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        workers = list(client.scheduler_info()["workers"])
        victim = client.run(arm, workers=workers[:1])[workers[0]]
        manifest = survey.download_cutouts(
            table,
            48,
            download_dir=tmp_path / "cluster",
            executor=client.get_executor(),
            **OPTIONS,
        )
        assert victim not in client.run(os.getpid).values()
    check_manifest(manifest, 200)
    assert contents(manifest) == contents(serial)


LARGE = """
import pathlib, re, sys
import numpy as np
from astropy.table import Table

from astroquery_lis import LegacySurvey

rng = np.random.default_rng(4)
centres = np.array([(45.125, 0), (45.375, 0), (45.125, .25), (45.375, .25), (.125, 0),
                    (359.875, 0), (180.15, 32.25), (180.15, 32.5)])
places = np.repeat(centres, 250, axis=0) + rng.uniform(-0.125, 0.125, (2000, 2))
table = Table({"ra": places[:, 0] % 360, "dec": places[:, 1]})
manifest = LegacySurvey.download_cutouts(table, 256, download_dir=sys.argv[1], mirror=sys.argv[2],
                                         bands="grz", products=("image", "invvar"),
                                         on_missing="warn")
# Most of these bricks are blank but for a few places; what was not observed is no success.
blank = [row for row in manifest if row["Status"] == "NODATA"]
assert all("nothing was observed" in row["Message"] for row in blank)
assert set(manifest["Status"]) == {"COMPLETE", "NODATA"}
assert 200 < len(manifest) - len(blank)
# Not ru_maxrss: a child starts with its parent's, here that of the whole test run.
status = pathlib.Path("/proc/self/status").read_text()
print(int(re.search(r"VmHWM:\\s+(\\d+)", status).group(1)) / 1024)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_thousand_targets_stay_within_memory_and_bytes(sky, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LARGE, tmp_path / "out", sky.mirror_url],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ASTROQUERY_LIS_CACHE_DIR": str(conf.cache_dir)},
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 600
    # Over all files: the first range, which tells that a file is wanted whole, is paid besides.
    paths = {record.path.removeprefix("/legacysurvey/") for record in sky.requests}
    whole = sum(file.stat().st_size for path in paths if (file := sky.root / path).exists())
    assert sum(record.bytes_sent for record in sky.requests) <= 1.05 * whole
    with warnings.catch_warnings(action="ignore", category=CoverageWarning):
        survey = LegacySurveyClass()
        survey.mirror = sky.mirror_url
        for path in sorted((tmp_path / "out").glob("*.fits"))[::50]:
            with fits.open(path) as hdul:
                header = hdul[0].header
                position = SkyCoord(header["RA"], header["DEC"], unit="deg")
                options = {"bands": "grz", "products": ("image", "invvar"), "on_missing": "warn"}
                single = survey.get_cutout(position, 256, source="bricks", **options)
                for hdu, other in zip(hdul[1:], single[1:], strict=True):
                    assert np.array_equal(hdu.data, other.data, equal_nan=True)
