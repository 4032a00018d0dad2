"""Files of the archive on their way to disk: whole or not there, a row each; what is refused."""

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table

from astroquery_lis import conf
from astroquery_lis.exceptions import (
    CacheError,
    InvalidRequestError,
)
from astroquery_lis.sandbox.mast import TOKEN

from .archive_files import fetched_bytes, is_right

DOWNLOAD = "*Download/file*"
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*file\\(s\\) could not be had:astroquery_lis.exceptions.LegacySurveyWarning"
)


def test_columns_that_say_nothing_of_files_may_hold_anything(stage, sky, public, tmp_path):
    public["corners"] = np.zeros((len(public), 4, 2))
    payload = stage.download_uncal(public, download_dir=tmp_path, get_query_payload=True)
    assert [url.rpartition("/")[2] for url in payload["urls"]] == list(public["file"])


def test_files_arrive_whole_in_folders_of_program_and_observation(
    stage, sky, public, held, tmp_path
):
    manifest = stage.download_uncal(public, download_dir=tmp_path, show_progress=False)
    is_right(tmp_path, held[1:])
    assert list(manifest["Status"]) == ["COMPLETE"] * 4
    assert list(manifest["id"]) == list(public["file"])
    assert list(manifest["bytes"]) == list(public["size"])
    for row in manifest:
        with open(row["Local Path"], "rb") as stream:
            assert hashlib.file_digest(stream, "sha256").hexdigest() == row["sha256"]
    assert fetched_bytes(sky) == {path.name: path.stat().st_size for path in held[1:]}
    assert manifest["bands"][-1] == "F200W"


def test_what_is_there_is_not_fetched_again(stage, sky, public, held, tmp_path):
    stage.download_uncal(public, download_dir=tmp_path)
    sky.requests.clear()
    manifest = stage.download_uncal(public, download_dir=tmp_path)
    assert list(manifest["Status"]) == ["CACHED"] * 4
    assert len(sky.requests) == 0
    manifest = stage.download_uncal(public, download_dir=tmp_path, overwrite=True)
    assert list(manifest["Status"]) == ["COMPLETE"] * 4
    is_right(tmp_path, held[1:])


def test_a_file_that_is_not_whole_is_never_taken_for_one(stage, public, held, tmp_path):
    folder = tmp_path / "01234" / "001"
    folder.mkdir(parents=True)
    (folder / held[1].name).write_bytes(held[1].read_bytes()[:-2880])
    # As long as it should be, and not what it should be.
    (folder / held[2].name).write_bytes(held[3].read_bytes()[: held[2].stat().st_size])
    # Whole, but another one.
    (folder / held[3].name).write_bytes(held[1].read_bytes())
    (folder / held[4].name).write_text("<html>" + " " * (held[4].stat().st_size - 6))
    manifest = stage.download_uncal(public, download_dir=tmp_path)
    assert set(manifest["Status"]) == {"COMPLETE"}
    is_right(tmp_path, held[1:])
    told = dict(zip(manifest["id"], manifest["Message"], strict=True))
    for path in held[1:]:
        assert "was there and was replaced" in told[path.name]


def test_names_and_uris_are_enough(stage, held, tmp_path):
    names = [held[1].name, f"mast:JWST/product/{held[2].name}"]
    manifest = stage.download_uncal(names, download_dir=tmp_path)
    assert list(manifest["Status"]) == ["COMPLETE"] * 2
    assert stage.download_uncal(names[0], download_dir=tmp_path)["Status"][0] == "CACHED"


def test_a_row_and_a_table_that_was_written_will_do(stage, public, held, tmp_path):
    public.write(tmp_path / "list.ecsv")
    again = Table.read(tmp_path / "list.ecsv")
    manifest = stage.download_uncal(again, download_dir=tmp_path / "all")
    assert set(manifest["Status"]) == {"COMPLETE"}
    is_right(tmp_path / "all", held[1:])
    manifest = stage.download_uncal(again[1], download_dir=tmp_path / "all")
    assert list(manifest["Status"]) == ["CACHED"]


def test_a_file_that_is_named_twice_is_fetched_once(stage, sky, public, tmp_path):
    twice = public[[1, 1, 1]]
    manifest = stage.download_uncal(twice, download_dir=tmp_path)
    assert sorted(manifest["Status"]) == ["CACHED", "CACHED", "COMPLETE"]
    assert fetched_bytes(sky) == {public["file"][1]: public["size"][1]}


def test_the_payload_is_the_list_of_addresses(stage, sky, table, service):
    payload = stage.download_uncal(table[:1], download_dir="unused", get_query_payload=True)
    name = table["file"][0]
    url = f"{service.url}/api/v0.1/Download/file?uri=mast:JWST/product/{name}"
    assert payload == {"service": service.url, "urls": [url]}
    assert len(sky.requests) == 0


def test_any_executor_does_the_work(stage, public, held, tmp_path):
    with ThreadPoolExecutor(2) as executor:
        stage.download_uncal(public, download_dir=tmp_path / "own", executor=executor)
    is_right(tmp_path / "own", held[1:])


@pytest.mark.parametrize("own", [True, False])
def test_no_more_files_come_at_once_than_asked_for(stage, sky, service, held, tmp_path, own):
    together, lock, active = threading.Barrier(2), threading.Lock(), []
    peaks = []

    def counted(request):
        with lock:
            active.append(request)
            peaks.append(len(active))
        # Only where two come at once does the first one go on.
        together.wait(60)
        with lock:
            active.remove(request)
        return service(request)

    sky.routes.insert(0, ("/mast/api/v0.1/Download", counted))
    names = [path.name for path in held[1:]]
    try:
        with ThreadPoolExecutor(4) as executor:
            manifest = stage.download_uncal(
                names,
                download_dir=tmp_path,
                max_workers=2,
                executor=None if own else executor,
            )
    finally:
        sky.routes.pop(0)
    assert set(manifest["Status"]) == {"COMPLETE"}
    assert max(peaks) == 2


@pytest.mark.slow
def test_processes_do_the_work(stage, table, held, tmp_path):
    manifest = stage.download_uncal(table, download_dir=tmp_path, executor="processes", token=TOKEN)
    assert set(manifest["Status"]) == {"COMPLETE"}
    is_right(tmp_path, held)


def test_what_is_to_come_is_told(stage, public, tmp_path, caplog):
    with caplog.at_level("INFO"):
        stage.download_uncal(public, download_dir=tmp_path)
    total = sum(public["size"]) / 1e6
    assert f"4 of 4 file(s) to fetch, {total:.1f} MB" in caplog.text
    assert "4 files: 4 complete" in caplog.text


def test_the_disk_is_not_filled(stage, sky, public, tmp_path):
    words = r"GB are free on its disk, and 0\.00 GB are due"
    with conf.set_temp("disk_margin", 1e6), pytest.raises(CacheError, match=words):
        stage.download_uncal(public, download_dir=tmp_path)
    assert len(sky.requests) == 0
    public["size"] = np.full(len(public), 10**18)
    with pytest.raises(CacheError, match="4000000000.00 GB are due"):
        stage.download_uncal(public, download_dir=tmp_path)


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        (Table({"name": ["x"]}), {}, "no column 'file' or 'uri'; it has: name"),
        (["mast:JWST/product/.."], {}, "is no file of MAST"),
        (Table({"file": MaskedColumn(["jw1.fits"], mask=[True])}), {}, "is no file of MAST"),
        (["mast:JWST/product/"], {}, "is no file of MAST"),
        (["x.fits"], {"max_workers": 0}, "max_workers=0 must be a number from 1 to 16"),
        (["x.fits"], {"max_workers": 64}, "max_workers=64"),
        (["x.fits"], {"executor": "clouds"}, "executor='clouds' must be"),
    ],
)
def test_bad_arguments_are_refused(stage, sky, tmp_path, given, options, words):
    with pytest.raises(InvalidRequestError, match=words):
        stage.download_uncal(given, download_dir=tmp_path, **options)
    assert len(sky.requests) == 0


@pytest.mark.parametrize("folder", ["", " ", None, 3])
def test_a_folder_without_a_name_is_refused(stage, sky, public, folder):
    with pytest.raises(InvalidRequestError, match="download_dir=.* must be the path of a folder"):
        stage.download_uncal(public, download_dir=folder)
    assert len(sky.requests) == 0


def test_what_is_none_in_a_table_is_not_known(stage, public, held, tmp_path):
    rows = [{"file": name, "uri": None, "size": None, "sha256": None} for name in public["file"]]
    manifest = stage.download_uncal(Table(rows=rows), download_dir=tmp_path)
    assert set(manifest["Status"]) == {"COMPLETE"}


def test_a_folder_that_cannot_be_made_is_told(stage, public, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="Cannot write"):
        stage.download_uncal(public, download_dir=tmp_path / "file")


def test_no_files_are_an_empty_manifest(stage, public, tmp_path):
    manifest = stage.download_uncal(public[:0], download_dir=tmp_path)
    assert len(manifest) == 0
    assert "Status" in manifest.colnames


def test_what_arrived_opens(stage, public, tmp_path):
    manifest = stage.download_uncal(public[public["product"] == "uncal"], download_dir=tmp_path)
    for path in manifest["Local Path"]:
        with fits.open(path) as hdul:
            assert hdul["SCI"].data.ndim == 3
        assert os.stat(path).st_size % 2880 == 0
