"""What a long job writes beside FITS files: pictures, zarr arrays, point spread functions."""

import io
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

from astroquery_lis import pictures
from astroquery_lis.client import bulk
from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.io import workers

from .batch_checks import make_targets

pytestmark = pytest.mark.usefixtures("viewer")


def _position(row):
    return SkyCoord(row["ra"], row["dec"], unit="deg")


# ---- pictures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("output", "suffix"), [("png", ".png"), ("jpeg", ".jpg")])
def test_pictures_are_in_the_colours_of_rgb(sky, survey, tmp_path, output, suffix):
    image = pytest.importorskip("PIL.Image")
    table = make_targets(sky, 12)
    options = {"bands": "grz", "output": output, "id_column": "name", "show_progress": False}
    manifest = survey.download_cutouts(table, 40, download_dir=tmp_path, **options)
    assert sorted(manifest["Status"].tolist()) == ["COMPLETE"] * 10 + ["NODATA", "SKIPPED"]
    for row, target in zip(manifest, table, strict=True):
        if row["Status"] != "COMPLETE":
            continue
        assert row["Local Path"] == str(tmp_path / f"{target['name']}{suffix}")
        picture = pictures.rgb(survey.get_cutout(_position(target), 40, bands="grz"))
        with image.open(row["Local Path"]) as file:
            found = np.asarray(file.convert("RGB")).astype(int)
        assert found.shape == (40, 40, 3)
        if output == "png":
            assert np.array_equal(found, picture)
        else:
            assert np.abs(found - picture).mean() < 4
    assert not [record for record in sky.requests if record.path.startswith("/viewer")]


@pytest.mark.parametrize("output", ["png", "jpeg", "zarr"])
def test_what_a_killed_job_wrote_is_found_again(sky, survey, tmp_path, output):
    pytest.importorskip("zarr" if output == "zarr" else "PIL")
    table = make_targets(sky, 12)
    options = {"bands": "gr", "output": output, "show_progress": False}
    first = survey.download_cutouts(table, 24, download_dir=tmp_path, **options)
    states = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*[!l]")}
    (tmp_path / "cutouts.journal.jsonl").unlink()
    again = survey.download_cutouts(table, 24, download_dir=tmp_path, **options)
    assert states == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*[!l]")}
    for name in ("Status", "Local Path", "bands", "observed", "sha256"):
        assert list(first[name]) == list(again[name])
    (tmp_path / "cutouts.journal.jsonl").unlink()
    if output != "zarr":
        other = survey.download_cutouts(table, 25, download_dir=tmp_path, **options)
        failed = other["Message"][other["Status"] == "ERROR"]
        assert all("is not of this job" in text for text in failed)
        assert (other["Status"] == "ERROR").sum() == 10


# ---- arrays ------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["hdf5", "zarr"])
def test_numbers_of_targets_stay_whole_in_the_index(sky, survey, tmp_path, output):
    h5py, parquet = pytest.importorskip("h5py"), pytest.importorskip("pyarrow.parquet")
    table = make_targets(sky, 6)
    table["id"] = np.arange(6, dtype=np.uint64) + np.uint64(2**63 - 3)
    options = {"bands": "r", "output": output, "show_progress": False}
    manifest = survey.download_cutouts(table, 8, download_dir=tmp_path, **options)
    assert manifest["id"].tolist() == table["id"].tolist()
    for path in {path for path in manifest["Local Path"] if path}:
        if output == "hdf5":
            with h5py.File(path) as file:
                index = file["index"][:]
        else:
            index = parquet.read_table(path.replace(".zarr.zip", ".parquet")).to_pylist()
        for entry in index:
            assert int(entry["id"]) == int(table["id"][entry["row"]])


# ---- zarr --------------------------------------------------------------------------------------


def test_zarr_arrays_hold_the_same_pixels_and_an_index_in_parquet(sky, survey, tmp_path):
    zarr = pytest.importorskip("zarr")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = make_targets(sky)
    options = {"bands": "gr", "products": ("image", "maskbits"), "show_progress": False}
    manifest = survey.download_cutouts(
        table, 32, download_dir=tmp_path, output="zarr", id_column="name", **options
    )
    done = np.flatnonzero(manifest["Status"] == "COMPLETE")
    assert len(done) == 22
    seen = []
    for path in sorted({path for path in manifest["Local Path"] if path}):
        group = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")
        index = parquet.read_table(path.removesuffix(".zarr.zip") + ".parquet").to_pylist()
        assert group["image"].shape == (len(index), 2, 32, 32)
        assert group["image"].attrs["bands"] == ["g", "r"]
        assert group.attrs["planes"] == ["IMAGE_G", "IMAGE_R", "MASKBITS"]
        for place, entry in enumerate(index):
            seen.append(entry["row"])
            assert entry["id"] == table["name"][entry["row"]]
            assert entry["has_IMAGE_G"]
            single = survey.get_cutout(_position(table[entry["row"]]), 32, **_of_one(options))
            assert np.array_equal(group["image"][place, 1], single["IMAGE_R"].data)
            assert np.array_equal(group["maskbits"][place], single["MASKBITS"].data)
    assert sorted(seen) == done.tolist()
    assert not list(tmp_path.glob(".*tmp"))


def _of_one(options):
    return {name: value for name, value in options.items() if name != "show_progress"}


# ---- point spread functions --------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"source": "bricks"}, {"source": "viewer"}, {"to_sky": True}, {}]
)
def test_psfs_are_those_of_get_psf(sky, survey, tmp_path, options):
    places = SkyCoord([sky.positions["star"], sky.positions["field"]])
    table = Table({"id": ["a", "b"], "ra": places.ra.deg, "dec": places.dec.deg})
    manifest = survey.download_psfs(
        table, bands="gr", download_dir=tmp_path, show_progress=False, **options
    )
    assert list(manifest["Status"]) == ["COMPLETE"] * 2, list(manifest["Message"])
    assert list(manifest["bands"]) == ["g,r"] * 2
    for path, place in zip(manifest["Local Path"], places, strict=True):
        with warnings.catch_warnings(action="ignore"):
            single = survey.get_psf(place, bands="gr", **options)
        stream = io.BytesIO()
        single.writeto(stream)
        assert Path(path).read_bytes() == stream.getvalue()
    (tmp_path / "cutouts.journal.jsonl").unlink()
    again = survey.download_psfs(
        table, bands="gr", download_dir=tmp_path, show_progress=False, **options
    )
    assert list(again["sha256"]) == list(manifest["sha256"])


def test_psfs_are_refused_before_any_request(sky, survey, tmp_path):
    place = sky.positions["star"].reshape(1)
    sky.requests.clear()
    for wrong in ({"bands": "x"}, {"source": "tractor"}, {"release": "dr1"}, {"region": "east"}):
        with pytest.raises(InvalidRequestError):
            survey.download_psfs(place, download_dir=tmp_path, **wrong)
    assert len(sky.requests) == 0


# ---- who does the work -------------------------------------------------------------------------


IN_DAEMON = """
import multiprocessing, sys
from astroquery_lis import LegacySurvey
from astroquery_lis.client import bulk

def statuses(folder):
    bulk.PROCESSES_BYTES = 1
    table = {"ra": [45.09, 45.1], "dec": [0.062, 0.05]}
    manifest = LegacySurvey.download_cutouts(
        table, 16, bands="r", mirror=sys.argv[1], download_dir=folder, show_progress=False
    )
    return manifest["Status"].tolist()

if __name__ == "__main__":
    with multiprocessing.Pool(1) as pool:
        print(pool.apply(statuses, [sys.argv[2]]))
"""


def test_long_work_can_be_done_in_a_worker_of_a_pool(sky, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(IN_DAEMON)
    command = [sys.executable, script, sky.root, tmp_path / "cutouts"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['COMPLETE', 'COMPLETE']"


def test_long_work_on_local_files_goes_to_processes_with_the_same_bytes(
    sky, survey, tmp_path, monkeypatch
):
    table = make_targets(sky, 16)
    monkeypatch.setattr(bulk, "cores", lambda: 2)
    pools, begun = [], workers.workers_context
    monkeypatch.setattr(workers, "workers_context", lambda name: pools.append(name) or begun(name))
    options = {"bands": "r", "mirror": str(sky.root), "show_progress": False}
    few = survey.download_cutouts(table, 32, download_dir=tmp_path / "a", **options)
    monkeypatch.setattr(bulk, "PROCESSES_BYTES", 1000)
    many = survey.download_cutouts(table, 32, download_dir=tmp_path / "b", **options)
    assert pools
    assert list(few["sha256"]) == list(many["sha256"])
    assert (few["Status"] == "COMPLETE").sum() == 14
