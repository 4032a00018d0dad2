"""Single CCDs as files: gzip and FITS in fact, each once, and a reason for what is not there."""

import gzip
import hashlib
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from astroquery_lis import conf
from astroquery_lis.exceptions import CoverageWarning, InvalidRequestError, LegacySurveyWarning


@pytest.fixture
def local(sky, survey):
    survey.mirror = sky.root
    with conf.set_temp("viewer_url", sky.viewer_url):
        yield survey


@pytest.fixture
def reds(local, sky):
    """The exposures of the star in r."""
    return local.query_exposures(sky.positions["star"], bands="r")


def asked_of(sky):
    return [request.path for request in sky.requests if "-data/" in request.path]


def test_files_of_a_table_hold_the_place_and_are_fetched_once(local, sky, reds, tmp_path):
    table = local.get_exposure_files(reds, download_dir=tmp_path)
    assert len(table) == 3 * len(reds) == len(asked_of(sky))
    assert set(table["Status"]) == {"COMPLETE"}
    assert list(table["product"][:3]) == ["image", "invvar", "dq"]
    assert set(table["release"]) == {"dr10"}
    assert set(table["region"]) == {"south"}
    for row in table:
        path = Path(row["Local Path"])
        assert path == tmp_path / f"{row['id']}-{row['product']}.fits.gz"
        assert row["bytes"] == path.stat().st_size
        assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    for exposure in reds:
        name = f"{exposure['camera']}-{exposure['expnum']}-{exposure['ccdname']}-image.fits.gz"
        with fits.open(tmp_path / name) as hdul:
            x, y = WCS(hdul[0].header).world_to_pixel(sky.positions["star"])
            assert hdul[0].header["EXPNUM"] == exposure["expnum"]
        np.testing.assert_allclose((x, y), (exposure["x"], exposure["y"]), atol=1e-3)
    again = local.get_exposure_files(reds, download_dir=tmp_path)
    assert set(again["Status"]) == {"CACHED"}
    assert len(asked_of(sky)) == len(table)


def test_a_row_and_a_position(local, sky, reds):
    one = local.get_exposure_files(reds[1], products="dq")
    assert len(one) == 1
    assert one["id"][0] == f"decam-{reds['expnum'][1]}-{reds['ccdname'][1]}"
    place = local.get_exposure_files(sky.positions["star"], bands="r", products="dq")
    assert len(place) == len(reds)
    assert sorted(place["Status"]) == ["CACHED"] + ["COMPLETE"] * (len(reds) - 1)
    assert all(Path(path).is_relative_to(local.cache_location) for path in place["Local Path"])
    both = local.query_exposures(sky.positions["star"], bands="gr")
    payload = local.get_exposure_files(both, bands="g", products="invvar", get_query_payload=True)
    urls = payload["urls"]
    assert len(urls) == (both["filter"] == "g").sum() > 0
    assert urls[0].startswith(f"{sky.viewer_url}/iv-data/ls-dr10-south/decam-")


def test_the_cache_keeps_within_its_limit(local, reds):
    with conf.set_temp("cache_size", 1e-4):
        first = local.get_exposure_files(reds[:1], products="dq")
        second = local.get_exposure_files(reds[1:2], products="dq")
    assert first["bytes"][0] + second["bytes"][0] > 1e5
    assert not Path(first["Local Path"][0]).exists()
    assert Path(second["Local Path"][0]).exists()


def test_a_cut_off_file_is_fetched_whole(local, sky, reds, tmp_path):
    sky.faults.add("cut", match="/viewer/dq-data/*", times=1)
    table = local.get_exposure_files(reds[:1], products="dq", download_dir=tmp_path)
    assert table["Status"][0] == "COMPLETE"
    assert [path.name for path in tmp_path.iterdir()] == [Path(table["Local Path"][0]).name]
    assert len(asked_of(sky)) == 2
    with fits.open(table["Local Path"][0]) as hdul:
        assert hdul[0].data.shape == (4094, 2046)


def test_the_north_is_asked_in_its_own_layer(local, sky):
    place = sky.positions["split"]
    payload = local.get_exposure_files(place, region="north", products="dq", get_query_payload=True)
    urls = payload["urls"]
    assert all("/dq-data/ls-dr9-north/" in url for url in urls)
    assert {url.rpartition("/")[2].split("-")[0] for url in urls} == {"90prime", "mosaic"}
    table = local.get_exposure_files(place, region="north", bands="z", products="dq")
    assert set(table["Status"]) == {"COMPLETE"}
    # Without what query_exposures noted, the camera tells.
    bare = local.query_exposures(place, region="north", bands="z")
    bare.meta.clear()
    assert set(local.get_exposure_files(bare, products="dq")["Status"]) == {"CACHED"}


def test_a_ccd_that_the_viewer_does_not_list_is_no_error(local, sky, reds):
    reds["expnum"][0] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = local.get_exposure_files(reds, products="dq")
    assert table["Status"][0] == "NODATA"
    assert "does not have decam-1-" in table["Message"][0]
    assert set(table["Status"][1:]) == {"COMPLETE"}


def test_the_viewer_is_asked_once_for_all_products_of_a_ccd_that_it_lacks(local, sky, reds):
    reds["expnum"][0] = 1
    table = local.get_exposure_files(reds[:1])
    assert list(table["Status"]) == ["NODATA"] * 3
    assert len([record for record in sky.requests if "/ccds/" in record.path]) == 1


def test_a_failure_of_the_server_is_one_and_passes(local, sky, reds):
    sky.faults.add("status", match="/viewer/dq-data/*", times=1, code=500)
    with pytest.warns(LegacySurveyWarning, match="1 of .* could not be had"):
        table = local.get_exposure_files(reds, products="dq")
    assert sorted(table["Status"]) == ["COMPLETE"] * (len(reds) - 1) + ["ERROR"]
    again = local.get_exposure_files(reds, products="dq")
    assert sorted(again["Status"]) == ["CACHED"] * (len(reds) - 1) + ["COMPLETE"]


class _Page(BaseHTTPRequestHandler):
    """Answers everything with one body, under the name of a FITS file."""

    body = b""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "image/fits")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args):
        pass


@pytest.fixture
def page():
    """A server whose answer is to be set, and its address."""
    handler = type("Page", (_Page,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield handler, f"http://127.0.0.1:{server.server_port}/viewer"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>busy</html>", "not a FITS file"),
        (b"SIMPLE  =                    T", "not a FITS file"),
        (gzip.compress(b"<html>busy</html>", mtime=0), "not a FITS file"),
        (gzip.compress(b"SIMPLE  =" + bytes(range(256)) * 99)[:-20], "ends before"),
    ],
)
def test_what_is_no_gzipped_fits_file_is_not_kept(local, reds, tmp_path, page, body, reason):
    page[0].body = body
    with conf.set_temp("viewer_url", page[1]), pytest.warns(LegacySurveyWarning, match=reason):
        table = local.get_exposure_files(reds[:1], products="dq", download_dir=tmp_path)
    assert table["Status"][0] == "ERROR"
    assert not list(tmp_path.iterdir())


def test_what_is_refused(local, sky, reds, tmp_path):
    with pytest.raises(InvalidRequestError, match="products='model'"):
        local.get_exposure_files(reds, products="model")
    with pytest.raises(InvalidRequestError, match="products=\\(\\)"):
        local.get_exposure_files(reds, products=())
    with pytest.raises(InvalidRequestError, match="lacks the column.*ccdname"):
        local.get_exposure_files(reds["camera", "expnum", "filter"])
    with pytest.raises(InvalidRequestError, match="download_dir"):
        local.get_exposure_files(reds, cache=False)
    assert not sky.requests
    with pytest.warns(CoverageWarning):
        empty = local.get_exposure_files(sky.positions["off"], download_dir=tmp_path)
    assert len(empty) == 0
    assert "product" in empty.colnames
