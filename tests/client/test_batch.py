"""`download_cutouts` and `iter_cutouts`: every row once, with what became of it."""

import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from astroquery_lis import LegacySurveyClass, conf
from astroquery_lis.exceptions import (
    CacheError,
    InvalidRequestError,
    NoCoverageError,
    OptionalDependencyError,
    ServiceDownError,
)

from .batch_checks import OPTIONS, check_manifest, contents, file_states, make_targets

# ---- the whole ---------------------------------------------------------------------------------


def test_every_row_is_told_and_the_pixels_are_those_of_get_cutout(sky, survey, tmp_path):
    table = make_targets(sky)
    manifest = survey.download_cutouts(
        table, (40, 60), download_dir=tmp_path, id_column="name", **OPTIONS
    )
    check_manifest(manifest, 24)
    assert list(manifest["id"]) == list(table["name"])
    for row, target in zip(manifest, table, strict=True):
        if row["Status"] == "NODATA":
            assert "its table of bricks lacks 0949p100" in row["Message"]
            assert not row["Local Path"]
        if row["Status"] != "COMPLETE":
            continue
        assert row["Local Path"] == str(tmp_path / f"{target['name']}.fits")
        assert (row["release"], row["region"], row["bands"]) == ("dr10", "south", "g,r")
        assert row["URL"].startswith(sky.mirror_url)
        position = SkyCoord(target["ra"], target["dec"], unit="deg")
        single = survey.get_cutout(position, (40, 60), source="bricks", **OPTIONS)
        with fits.open(row["Local Path"]) as hdul:
            for hdu, other in zip(hdul[1:], single[1:], strict=True):
                native = hdu.data.astype(hdu.data.dtype.newbyteorder("="))
                assert native.tobytes() == other.data.tobytes()


def test_the_same_call_does_nothing_and_another_is_refused(sky, survey, tmp_path):
    table = make_targets(sky)
    first = survey.download_cutouts(table, 32, download_dir=tmp_path, **OPTIONS)
    files = file_states(tmp_path)
    sky.requests.clear()
    again = survey.download_cutouts(table, 32, download_dir=tmp_path, **OPTIONS)
    assert len(sky.requests) == 0
    assert file_states(tmp_path) == files
    assert all(first["Status"] == again["Status"])
    with pytest.raises(InvalidRequestError, match=r"size was \[32, 32\] and is now \[33, 33\]"):
        survey.download_cutouts(table, 33, download_dir=tmp_path, **OPTIONS)
    with pytest.raises(InvalidRequestError, match="targets was") as caught:
        survey.download_cutouts(table[::-1], 32, download_dir=tmp_path, **OPTIONS)
    assert caught.value.parameter == "targets"
    assert file_states(tmp_path) == files


def test_a_file_that_was_removed_is_made_again(sky, survey, tmp_path):
    table = make_targets(sky)
    first = survey.download_cutouts(table, 32, download_dir=tmp_path, **OPTIONS)
    before = contents(first)
    lost = Path(first[first["Status"] == "COMPLETE"]["Local Path"][0])
    lost.unlink()
    again = survey.download_cutouts(table, 32, download_dir=tmp_path, **OPTIONS)
    assert lost.exists()
    assert contents(again) == before


def test_a_file_of_somebody_else_is_left_alone(sky, survey, tmp_path):
    table = make_targets(sky)
    other = tmp_path / f"{table['name'][table['ra'] < 95][0]}.fits"
    other.write_text("mine")
    manifest = survey.download_cutouts(
        table, 32, download_dir=tmp_path, id_column="name", **OPTIONS
    )
    failed = manifest[manifest["Status"] == "ERROR"]
    assert len(failed) == 1
    assert "is not of this job" in failed["Message"][0]
    assert other.read_text() == "mine"


def test_a_file_that_is_not_whole_is_no_result(sky, survey, tmp_path):
    table = make_targets(sky)
    first = survey.download_cutouts(table, 32, download_dir=tmp_path, id_column="name", **OPTIONS)
    cut = next(Path(path) for path in first["Local Path"] if path)
    cut.write_bytes(cut.read_bytes()[: 2880 * 3])
    (tmp_path / "cutouts.journal.jsonl").unlink()
    again = survey.download_cutouts(table, 32, download_dir=tmp_path, id_column="name", **OPTIONS)
    failed = again[again["Status"] == "ERROR"]
    assert len(failed) == 1
    assert str(cut) in failed["Message"][0]
    assert "not whole" in failed["Message"][0]


def test_failures_are_recorded_and_tried_again(sky, survey, tmp_path):
    table = make_targets(sky)
    sky.faults.add("status", match="*0451p000*-image-r*", code=503, times=None)
    manifest = survey.download_cutouts(table, 32, download_dir=tmp_path, **OPTIONS)
    failed = manifest["Status"] == "ERROR"
    assert failed.sum() >= 16
    assert all("ServiceDownError: " in message for message in manifest["Message"][failed])
    with pytest.raises(ServiceDownError):
        survey.download_cutouts(
            table, 32, download_dir=tmp_path / "other", on_error="raise", **OPTIONS
        )
    sky.faults.clear()
    done = file_states(tmp_path)
    check_manifest(survey.download_cutouts(table, 32, download_dir=tmp_path, **OPTIONS), 24)
    assert done.items() <= file_states(tmp_path).items()


def test_what_get_cutout_warns_of_is_in_the_message(sky, survey, tmp_path):
    split = sky.positions["split"].directional_offset_by(0 * u.deg, 0.004 * u.deg)
    with warnings.catch_warnings(action="error"):
        manifest = survey.download_cutouts(
            SkyCoord([split]), 16, download_dir=tmp_path, products="image"
        )
    assert manifest["Message"][0].startswith("No i here: the north of dr10 is dr9/north")
    assert manifest["region"][0] == "north"
    named = survey.download_cutouts(
        SkyCoord([split]), 16, download_dir=tmp_path / "i", bands="i", products="image"
    )
    assert named["Status"][0] == "NODATA"
    assert "No image i in brick 1801p325" in named["Message"][0]


def test_partly_covered_targets_follow_on_missing(sky, survey, tmp_path):
    outside = SkyCoord([44.9995], [0.0], unit="deg")
    options = {"bands": "g", "products": "image"}
    wide = (20, 300)
    one = survey.download_cutouts(outside, wide, download_dir=tmp_path / "raise", **options)
    other = survey.download_cutouts(
        outside, wide, download_dir=tmp_path / "warn", on_missing="warn", **options
    )
    assert one["Status"][0] == "NODATA"
    assert other["Status"][0] == "COMPLETE"
    assert "0448p000" in other["Message"][0]


def test_settings_of_the_instance_reach_processes(sky, tmp_path):
    survey = LegacySurveyClass()
    survey.mirror, survey.release = sky.mirror_url, "dr9"
    survey.cache_location = tmp_path / "cache"
    with conf.set_temp("mirror", "nersc"), conf.set_temp("cache_dir", ""):
        manifest = survey.download_cutouts(
            SkyCoord([180.15], [32.38], unit="deg"),
            32,
            download_dir=tmp_path / "out",
            executor="processes",
            bands="g",
            region="north",
        )
    assert manifest["Status"][0] == "COMPLETE"
    assert manifest["URL"][0].startswith(f"{sky.mirror_url}/dr9/north/")
    assert list((tmp_path / "cache").rglob("version.json"))


def test_processes_give_the_same_files(sky, survey, tmp_path):
    table = make_targets(sky)
    threads = survey.download_cutouts(table, 32, download_dir=tmp_path / "a", **OPTIONS)
    processes = survey.download_cutouts(
        table, 32, download_dir=tmp_path / "b", executor="processes", **OPTIONS
    )
    assert contents(threads) == contents(processes)


def test_another_tree_of_files_is_another_job(sky, survey, tmp_path):
    targets = SkyCoord([sky.positions["star"]])
    asked = {"size": 16, "bands": "r", "download_dir": tmp_path, "show_progress": False}
    survey.download_cutouts(targets, **asked)
    # Simulated cutouts must not be taken for what an official mirror would have sent.
    with pytest.raises(InvalidRequestError, match="mirror was"):
        survey.download_cutouts(targets, mirror="nersc", **asked)
    for one in (["nersc"], ["nersc", "nadc"]):
        with pytest.raises(InvalidRequestError, match="mirror was"):
            survey.download_cutouts(targets, mirror=one, **asked)


def test_the_journal_tells_folders_apart_without_saying_where_they_are(sky, survey, tmp_path):
    targets = SkyCoord([sky.positions["star"]])
    asked = {"size": 16, "bands": "r", "download_dir": tmp_path / "out", "show_progress": False}
    survey.download_cutouts(targets, mirror=sky.root, **asked)
    assert str(sky.root.parent) not in (tmp_path / "out/cutouts.journal.jsonl").read_text()
    another = tmp_path / sky.root.name
    (another / "dr10").mkdir(parents=True)
    with pytest.raises(InvalidRequestError, match="mirror was"):
        survey.download_cutouts(targets, mirror=another, **asked)


def test_a_job_goes_on_with_a_new_password_in_the_address(sky, survey, tmp_path):
    targets = SkyCoord([sky.positions["star"]])
    asked = {"size": 16, "bands": "r", "download_dir": tmp_path, "show_progress": False}
    first, second = (f"{sky.mirror_url}/{{path}}?key={word}" for word in ("sesame", "barley"))
    survey.download_cutouts(targets, mirror=first, **asked)
    sky.requests.clear()
    manifest = survey.download_cutouts(targets, mirror=second, **asked)
    assert manifest["Status"][0] == "COMPLETE"
    assert len(sky.requests) == 0
    assert "sesame" not in (tmp_path / "cutouts.journal.jsonl").read_text()


def test_arguments_are_refused_before_anything_is_sent(sky, survey, tmp_path):
    table = make_targets(sky)
    for wrong, parameter in (
        ({"output": "asdf"}, "output"),
        ({"on_error": "ignore"}, "on_error"),
        ({"executor": 3}, "executor"),
        ({"bands": "x"}, "bands"),
        ({"id_column": "nothing"}, "id_column"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            survey.download_cutouts(table, 32, download_dir=tmp_path / parameter, **wrong)
        assert caught.value.parameter == parameter
        assert not list(tmp_path.glob(f"{parameter}/*.fits"))
    assert not [record for record in sky.requests if "coadd" in record.path]


# ---- HDF5 --------------------------------------------------------------------------------------


def test_hdf5_files_hold_the_same_pixels_and_an_index(sky, survey, tmp_path):
    h5py = pytest.importorskip("h5py")
    table = make_targets(sky)
    options = {"bands": "gr", "products": ("image", "invvar", "maskbits")}
    files = survey.download_cutouts(
        table, 32, download_dir=tmp_path / "fits", id_column="name", **options
    )
    arrays = survey.download_cutouts(
        table, 32, download_dir=tmp_path / "hdf5", output="hdf5", id_column="name", **options
    )
    assert list(files["Status"]) == list(arrays["Status"])
    seen = []
    for path in {path for path in arrays["Local Path"] if path}:
        with h5py.File(path) as file:
            index = file["index"][:]
            assert file["image"].shape == (len(index), 2, 32, 32)
            assert list(file.attrs["bands"]) == ["g", "r"]
            assert file["has"][:].all()
            for place, entry in enumerate(index):
                row = int(entry["row"])
                seen.append(row)
                assert entry["id"].decode() == table["name"][row]
                assert entry["ra"] == table["ra"][row]
                with fits.open(files["Local Path"][row]) as hdul:
                    assert entry["request"].decode() == hdul[0].header["REQKEY"]
                    for number, band in enumerate("gr"):
                        for name in ("image", "invvar"):
                            found = file[name][place, number]
                            assert np.array_equal(found, hdul[f"{name}_{band}"].data)
                    assert np.array_equal(file["maskbits"][place], hdul["MASKBITS"].data)
    assert sorted(seen) == np.flatnonzero(arrays["Status"] == "COMPLETE").tolist()
    assert not list((tmp_path / "hdf5").glob(".*tmp"))


def test_hdf5_says_which_planes_a_target_lacks(sky, survey, tmp_path):
    h5py = pytest.importorskip("h5py")
    split = sky.positions["split"]
    both = SkyCoord([split.ra.deg] * 2, [split.dec.deg - 0.004, split.dec.deg + 0.004], unit="deg")
    manifest = survey.download_cutouts(
        both, 8, download_dir=tmp_path, output="hdf5", products="image"
    )
    assert list(manifest["bands"]) == ["g,r,i,z", "g,r,z"]
    for row in manifest:
        with h5py.File(row["Local Path"]) as file:
            place = file["index"]["id"].tolist().index(row["id"])
            has = dict(zip(file.attrs["planes"], file["has"][place], strict=True))
            north = row["region"] == "north"
            assert has == {"IMAGE_G": True, "IMAGE_R": True, "IMAGE_I": not north, "IMAGE_Z": True}
            assert np.isnan(file["image"][place, 2]).all() == north


def test_hdf5_without_h5py_names_the_extra(survey, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(OptionalDependencyError, match=r"\[batch\]'"):
        survey.download_cutouts(
            SkyCoord([45.1], [0.0], unit="deg"), 8, download_dir=tmp_path / "x", output="hdf5"
        )
    assert not (tmp_path / "x").exists()


# ---- iteration ---------------------------------------------------------------------------------


def test_cutouts_are_yielded_with_their_rows(sky, survey):
    table = make_targets(sky)
    found = dict(survey.iter_cutouts(table, 24, on_error="record", **OPTIONS))
    assert sorted(found) == list(range(24))
    kinds = Counter(type(value).__name__ for value in found.values())
    assert kinds == {"HDUList": 22, "NoCoverageError": 1, "InvalidRequestError": 1}
    for row, hdul in found.items():
        if not isinstance(hdul, Exception):
            assert hdul[0].header["RA"] == table["ra"][row]
            assert hdul["IMAGE_G"].data.shape == (24, 24)


def test_an_iteration_that_raises(sky, survey):
    nowhere = SkyCoord([95.0], [10.0], unit="deg")
    assert [type(value) for _, value in survey.iter_cutouts(nowhere)] == [NoCoverageError]
    sky.faults.add("status", match="*coadd*", code=503, times=None)
    with pytest.raises(ServiceDownError):
        list(survey.iter_cutouts(sky.positions["field"].reshape(1), 16, bands="g"))


def test_arguments_of_an_iteration_are_checked_at_once(survey):
    with pytest.raises(InvalidRequestError, match="bands"):
        survey.iter_cutouts(SkyCoord([45.0], [0.0], unit="deg"), bands="x")


def test_ids_that_differ_by_case_get_different_files_on_any_disk(sky, survey, tmp_path):
    star, field = sky.positions["star"], sky.positions["field"]
    table = Table({"id": ["NGC1", "ngc1"], "ra": [star.ra.deg, field.ra.deg]})
    table["dec"] = [star.dec.deg, field.dec.deg]
    manifest = survey.download_cutouts(table, 8, bands="r", download_dir=tmp_path)
    assert len({path.lower() for path in manifest["Local Path"]}) == 2
    for path, place in zip(manifest["Local Path"], (star, field), strict=True):
        assert fits.getval(path, "RA") == pytest.approx(place.ra.deg)


@pytest.mark.parametrize("output", ["fits", "hdf5", "zarr"])
def test_the_margin_of_the_disk_is_kept_whatever_is_written(survey, sky, tmp_path, output):
    pytest.importorskip({"fits": "astropy", "hdf5": "h5py", "zarr": "zarr"}[output])
    places = [(45.09, 0.062), (45.091, 0.062)]
    options = {"bands": "r", "mirror": sky.root, "download_dir": tmp_path, "output": output}
    with conf.set_temp("disk_margin", 1e6), pytest.raises(CacheError, match="keeps free"):
        survey.download_cutouts(places, 200, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["cutouts.journal.jsonl"]
    assert survey.download_cutouts(places, 200, **options)["Status"].tolist() == ["COMPLETE"] * 2


LIMITED = """
import resource, signal, sys
from astroquery_lis import LegacySurveyClass
from astroquery_lis.exceptions import CacheError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
survey = LegacySurveyClass()
survey.mirror = sys.argv[1]
output, *limits = sys.argv[2:]
places = [(45.09 + 0.001 * number, 0.062) for number in range(5)]
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
for limit in map(int, limits):
    folder = str(limit)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    try:
        survey.download_cutouts(places, 200, bands="r", download_dir=folder, output=output)
    except CacheError as error:
        print(limit, error)
"""


def _run_limited(sky, folder, *words):
    """Run jobs with a bound on the size of files, each in a folder of that name; return lines."""
    script = [sys.executable, "-c", LIMITED, str(sky.root), *map(str, words)]
    run = subprocess.run(script, capture_output=True, text=True, check=True, cwd=folder)
    return run.stdout.strip().splitlines()


def test_a_journal_that_cannot_be_begun_is_a_cache_error(sky, tmp_path):
    assert _run_limited(sky, tmp_path, "fits", 50)[0].startswith("50 Cannot write the journal")


# HDF5 and zarr hold back what they write: bytes of every kind are the first that fail.
@pytest.mark.parametrize(
    ("output", "limits"),
    [
        ("fits", (20_000,)),
        ("hdf5", (20_000, 300_000, 700_000, 801_000)),
        ("zarr", (20_000, 300_000, 700_000, 801_000)),
    ],
)
def test_a_full_disk_ends_a_batch_with_one_error_and_the_same_call_goes_on(
    sky, survey, tmp_path, output, limits
):
    pytest.importorskip({"fits": "astropy", "hdf5": "h5py", "zarr": "zarr"}[output])
    lines = _run_limited(sky, tmp_path, output, *limits)
    places = [(45.09 + 0.001 * number, 0.062) for number in range(5)]
    for limit in limits:
        folder = tmp_path / str(limit)
        (line,) = (line for line in lines if line.startswith(f"{limit} "))
        assert "File too large" in line
        assert "make room, and the same call again goes on" in line
        assert not [path for path in folder.iterdir() if path.suffix not in (".jsonl", ".csv")]
        options = {"bands": "r", "mirror": sky.root, "download_dir": folder, "output": output}
        manifest = survey.download_cutouts(places, 200, **options)
        assert manifest["Status"].tolist() == ["COMPLETE"] * 5
