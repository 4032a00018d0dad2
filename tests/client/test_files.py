"""`get_brick_files`: what is asked, what comes, and whether it is right."""

import hashlib
import os
import shutil
import time
from pathlib import Path

import astropy.units as u
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

from astroquery_lis.exceptions import (
    ChecksumError,
    ChecksumWarning,
    CoverageWarning,
    InvalidRequestError,
    LegacySurveyWarning,
)
from astroquery_lis.sandbox.server import Sandbox
from astroquery_lis.survey.paths import file_path

from .file_checks import BRICK, COLUMNS, FOLDER, HERE, SMALL, assert_right, change

# ---- what is asked ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parameter", "match"),
    [
        ({"bricks_or_coordinates": "9999p000"}, "brick", "9999p000"),
        ({"bricks_or_coordinates": 45.0}, "bricks_or_coordinates", "names of bricks"),
        ({"bricks_or_coordinates": [1.5]}, "bricks_or_coordinates", "names of bricks"),
        ({"bricks_or_coordinates": 0}, "bricks_or_coordinates", "1 to 662174"),
        ({"bricks_or_coordinates": b"45 0"}, "bricks_or_coordinates", "must be names of bricks"),
        ({"bricks_or_coordinates": Table({"x": [1]})}, "bricks_or_coordinates", "it has: x"),
        ({"bricks_or_coordinates": None}, "products", "needs bricks or coordinates"),
        ({"radius": 1 * u.arcmin}, "radius", "needs coordinates"),
        ({"bricks_or_coordinates": HERE, "radius": 3}, "radius", "bare"),
        ({"bricks_or_coordinates": HERE, "radius": -1 * u.deg}, "radius", "from 0 to 180"),
        ({"products": "flux"}, "products", "image, invvar"),
        ({"products": "psfsize", "release": "dr7"}, "products", "is not in dr7"),
        ({"products": "blobmodel-jpg", "release": "dr8"}, "products", "is not in dr8"),
        ({"products": ()}, "products", "names no product"),
        ({"bands": "x"}, "bands", "g, r, i, z"),
        ({"bands": "W1", "products": "nexp"}, "bands", "g, r, i, z"),
        ({"release": "dr99"}, "release", "dr11"),
        ({"region": "east"}, "region", "north"),
        ({"verify": "hard"}, "verify", "warn, strict, False"),
        ({"verify": True}, "verify", "True is not one of: warn, strict, False"),
        ({"verify": 0}, "verify", "0 is not one of"),
        ({"verify": None}, "verify", "None is not one of"),
        ({"mirror": "nowhere"}, "mirror", "registered"),
    ],
)
def test_bad_input_is_refused_by_name_before_any_request(sky, survey, arguments, parameter, match):
    arguments = {"bricks_or_coordinates": BRICK, **arguments}
    with pytest.raises(InvalidRequestError, match=match) as caught:
        survey.get_brick_files(arguments.pop("bricks_or_coordinates"), **arguments)
    assert caught.value.parameter == parameter
    assert len(sky.requests) == 0


def test_every_way_to_name_a_brick_means_the_same(sky, survey):
    expected = [
        f"{sky.mirror_url}/{FOLDER}-{name}.fits.fz" for name in ("nexp-g", "nexp-r", "maskbits")
    ]
    here = sky.positions["field"]
    bricks = Table.read(sky.root / "dr10" / "survey-bricks.fits.gz")
    number = int(bricks["BRICKID"][bricks["BRICKNAME"] == BRICK][0])
    for value in (
        BRICK,
        [BRICK, BRICK],
        number,
        [number],
        here,
        SkyCoord([here, here]),
        f"{here.ra.deg} {here.dec.deg}",
        Table({"BRICKNAME": [BRICK]}),
        Table({"brickid": [number]}),
        Table({"ra": [here.ra.deg], "dec": [here.dec.deg]}),
        Table({"RA": [here.ra.deg] * u.deg, "DEC": [here.dec.deg] * u.deg}),
    ):
        payload = survey.get_brick_files(value, **SMALL, get_query_payload=True)
        assert payload == {"service": sky.mirror_url, "urls": expected}
    assert len(sky.requests) == 0


def test_a_radius_takes_every_brick_that_the_circle_touches(sky, survey):
    corner = sky.positions["corner"]
    for radius, n in ((None, 1), ("30 arcsec", 4), (1 * u.arcmin, 4)):
        urls = survey.get_brick_files(
            corner, radius=radius, products="maskbits", get_query_payload=True
        )["urls"]
        assert len(urls) == n


def test_region_auto_takes_the_official_one_for_each_brick(survey):
    urls = survey.get_brick_files(
        ["1801p325", BRICK], products=("nexp", "region-bricks"), bands="i", get_query_payload=True
    )["urls"]
    # The north has no i band, so nothing is asked for there.
    assert [url.partition("legacysurvey/")[2] for url in urls] == [
        f"{FOLDER}-nexp-i.fits.fz",
        "dr9/north/survey-bricks-dr9-north.fits.gz",
        "dr10/south/survey-bricks-dr10-south.fits.gz",
    ]


def test_the_list_of_products_is_what_can_be_asked(survey):
    for release in ("dr5", "dr8", "dr10"):
        names = list(survey.list_file_products(release=release)["product"])
        urls = survey.get_brick_files(
            "0014m852", products=names, release=release, get_query_payload=True
        )["urls"]
        assert len(urls) >= len(names)


# ---- what comes ---------------------------------------------------------------------------------


def test_files_come_whole_and_a_second_call_asks_nothing(sky, survey):
    table = survey.get_brick_files([BRICK, "0453p000"], **SMALL)
    assert sorted(table.colnames) == sorted(COLUMNS)
    assert list(table["Status"]) == ["COMPLETE"] * 6
    assert list(table["id"]) == [BRICK, BRICK, "0453p000", "0453p000", BRICK, "0453p000"]
    assert list(table["bands"]) == ["g", "r", "g", "r", "", ""]
    assert set(table["product"]) == {"nexp", "maskbits"}
    assert_right(sky, table)
    assert all(table["sha256"] != "")
    # Six files, and the list of each folder once.
    assert len(sky.requests) == 8
    sky.requests.clear()
    again = survey.get_brick_files([BRICK, "0453p000"], **SMALL)
    assert list(again["Status"]) == ["CACHED"] * 6
    assert list(again["sha256"]) == list(table["sha256"])
    assert list(again["URL"]) == list(table["URL"])
    assert len(sky.requests) == 0


def test_the_cutouts_use_the_files(sky, survey):
    survey.get_brick_files(BRICK, products="nexp", bands="r")
    sky.requests.clear()
    hdul = survey.get_cutout(sky.positions["field"], 64, products="nexp", bands="r")
    assert hdul["NEXP_R"].shape == (64, 64)
    assert len(sky.requests) == 0


def test_a_404_on_one_band_is_no_data_and_no_error(sky, survey):
    sky.faults.add("status", "*nexp-g*", times=None, code=404)
    table = survey.get_brick_files(BRICK, **SMALL)
    assert list(table["Status"]) == ["NODATA", "COMPLETE", "COMPLETE"]
    assert "does not exist at" in table["Message"][0]
    north = survey.get_brick_files("1801p325", products="nexp", bands="ir")
    assert list(north["Status"]) == ["NODATA", "COMPLETE"]
    assert north["Message"][0] == "dr9/north has no i band."


def test_nothing_at_all_is_said(survey):
    with pytest.warns(CoverageWarning, match="none of the 2 file"):
        table = survey.get_brick_files("2000p300", products="nexp", bands="gr")
    assert list(table["Status"]) == ["NODATA"] * 2


def test_sweeps_tables_and_other_kinds_of_files(sky, survey):
    table = survey.get_brick_files(products=("region-bricks", "survey-bricks"))
    assert list(table["Status"]) == ["COMPLETE"] * 3
    assert len(Table.read(table["Local Path"][-1])) == 8
    kinds = ("coadd-checksums", "ccds-table", "image-jpg", "sweep")
    table = survey.get_brick_files(BRICK, products=kinds)
    # The list may be there already, for the sake of the others.
    assert table["Status"][0] in ("COMPLETE", "CACHED")
    assert set(table["Status"]) <= {"COMPLETE", "CACHED", "NODATA"}
    with pytest.warns(CoverageWarning):
        table = survey.get_brick_files("sweep-200p000-205p005.fits", products="sweep")
    assert table["id"][0] == "sweep-200p000-205p005"


def test_a_folder_of_the_users_is_a_mirror_afterwards(sky, survey, tmp_path):
    table = survey.get_brick_files(BRICK, **SMALL, download_dir=tmp_path / "mine")
    assert list(table["Status"]) == ["COMPLETE"] * 3
    assert table["Local Path"][0] == str(tmp_path / "mine" / f"{FOLDER}-nexp-g.fits.fz")
    assert survey.cache_info()["stores"] == {}
    assert_right(sky, table)
    assert list(survey.verify(tmp_path / "mine")["Status"]) == ["GOOD"] * 3
    sky.requests.clear()
    local = survey.get_brick_files(BRICK, **SMALL, mirror=tmp_path / "mine")
    assert list(local["Status"]) == ["CACHED"] * 3
    again = survey.get_brick_files(BRICK, **SMALL, download_dir=tmp_path / "mine")
    assert list(again["Status"]) == ["CACHED"] * 3
    assert len(sky.requests) == 0


def test_a_local_mirror_is_read_in_place_and_copied_only_where_told(sky, survey, tmp_path):
    table = survey.get_brick_files(BRICK, **SMALL, mirror=sky.root)
    assert list(table["Status"]) == ["CACHED"] * 3
    assert table["Local Path"][0] == str(sky.root / f"{FOLDER}-nexp-g.fits.fz")
    assert not survey.cache_location.exists() or not list(survey.cache_location.iterdir())
    copies = survey.get_brick_files(BRICK, **SMALL, mirror=sky.root, download_dir=tmp_path / "d")
    assert list(copies["Status"]) == ["COMPLETE"] * 3
    assert_right(sky, copies)
    assert len(sky.requests) == 0


def test_what_the_cache_has_is_copied_to_the_users_folder(sky, survey, tmp_path):
    survey.get_brick_files(BRICK, **SMALL)
    sky.requests.clear()
    table = survey.get_brick_files(BRICK, **SMALL, download_dir=tmp_path / "d")
    assert list(table["Status"]) == ["COMPLETE"] * 3
    assert_right(sky, table)
    assert [r for r in sky.requests if not r.path.endswith(".sha256sum")] == []


def test_processes_share_one_cache(sky, survey):
    survey.timeout = 30
    table = survey.get_brick_files([BRICK, "0453p000"], **SMALL, executor="processes")
    assert list(table["Status"]) == ["COMPLETE"] * 6
    assert_right(sky, table)
    again = survey.get_brick_files([BRICK, "0453p000"], **SMALL)
    assert list(again["Status"]) == ["CACHED"] * 6


# ---- checksums ----------------------------------------------------------------------------------


def test_a_stale_list_is_a_warning_after_a_second_look(copied_tree, survey):
    changed = change(copied_tree, "*nexp-g*")
    with Sandbox(copied_tree, configure=False) as server:
        survey.mirror = server.mirror_url
        with pytest.warns(ChecksumWarning, match=r"1 file\(s\) differ from the survey's list"):
            table = survey.get_brick_files(BRICK, **SMALL)
        asked = [r for r in server.requests if "nexp-g" in r.path]
        lists = [r for r in server.requests if r.path.endswith(".sha256sum")]
        assert (len(asked), len(lists)) == (2, 1)
    assert list(table["Status"]) == ["COMPLETE"] * 3
    assert "the list may be stale" in table["Message"][0]
    assert Path(table["Local Path"][0]).read_bytes() == changed.read_bytes()
    assert table["Message"][1] == ""


def test_strict_refuses_what_the_list_does_not_know(copied_tree, survey):
    change(copied_tree, "*nexp-g*")
    with Sandbox(copied_tree, configure=False) as server:
        survey.mirror = server.mirror_url
        with pytest.raises(ChecksumError, match=r"1 of 3 file\(s\) .* its list says"):
            survey.get_brick_files(BRICK, **SMALL, verify="strict")
        assert not list(survey.cache_location.rglob("*nexp-g.fits.fz"))
        # The other files are there, and what was taken without a look does not pass either.
        table = survey.get_brick_files(BRICK, **SMALL, verify=False)
        assert list(table["Status"]) == ["COMPLETE", "CACHED", "CACHED"]
        with pytest.raises(ChecksumError):
            survey.get_brick_files(BRICK, **SMALL, verify="strict")


@pytest.mark.parametrize("content", [None, "", "0" * 64 + "  another.fits\n"])
def test_strict_needs_a_digest_of_every_file(copied_tree, survey, tmp_path, content):
    listed = copied_tree / file_path("coadd-checksums", "dr10", "south", brick=BRICK)
    listed.unlink()
    if content is not None:
        listed.write_text(content)
    for mirror in (copied_tree, None):
        with Sandbox(copied_tree, configure=False) as server:
            survey.mirror = mirror or server.mirror_url
            with pytest.raises(ChecksumError, match=r"has no sha256 of it. Take verify='warn'"):
                survey.get_brick_files(BRICK, **SMALL, verify="strict", download_dir=tmp_path / "a")
            assert not list((tmp_path / "a").rglob("*.fits.fz"))
            # What does not exist needs no digest; a folder without the table of bricks can't tell.
            expected = (LegacySurveyWarning, "ERROR") if mirror else (CoverageWarning, "NODATA")
            with pytest.warns(expected[0]):
                table = survey.get_brick_files("1126p220", **SMALL, verify="strict")
            assert set(table["Status"]) == {expected[1]}
            table = survey.get_brick_files(BRICK, **SMALL, download_dir=tmp_path / "b")
            assert set(table["Status"]) == {"COMPLETE"}
            assert all("no list of the survey has its sha256" in text for text in table["Message"])
            shutil.rmtree(tmp_path / "b")


@pytest.mark.parametrize("folder", [None, ".", "link"])
def test_a_wrong_file_of_a_local_mirror_is_refused_and_stays(copied_tree, survey, tmp_path, folder):
    changed = change(copied_tree, "*nexp-g*")
    content, state = changed.read_bytes(), changed.stat()
    (tmp_path / "link").symlink_to(copied_tree, target_is_directory=True)
    download_dir = {None: None, ".": copied_tree, "link": tmp_path / "link"}[folder]
    options = {"mirror": copied_tree, "download_dir": download_dir, "verify": "strict"}
    with pytest.raises(ChecksumError, match=r"1 of 3 file\(s\)"):
        survey.get_brick_files(BRICK, **SMALL, **options)
    assert changed.read_bytes() == content
    assert (changed.stat().st_ino, changed.stat().st_mtime_ns) == (state.st_ino, state.st_mtime_ns)


def test_without_verification_no_list_is_fetched(sky, survey):
    survey.get_brick_files(BRICK, **SMALL, verify=False)
    assert [r for r in sky.requests if r.path.endswith(".sha256sum")] == []


def test_a_list_that_was_replaced_with_its_file_is_fetched_again(copied_tree, survey):
    with Sandbox(copied_tree, configure=False) as server:
        survey.mirror = server.mirror_url
        survey.get_brick_files(BRICK, **SMALL)
        path = change(copied_tree, "*nexp-g*")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        listed = copied_tree / file_path("coadd-checksums", "dr10", "south", brick=BRICK)
        lines = listed.read_text().splitlines()
        lines = [f"{digest}  {path.name}" if path.name in line else line for line in lines]
        listed.write_text("\n".join(lines) + "\n")
        # The old list is in the cache; the file is new.
        next(survey.cache_location.rglob("*nexp-g.fits.fz")).unlink()
        table = survey.get_brick_files(BRICK, **SMALL, verify="strict")
    assert table["Status"][0] == "COMPLETE"
    assert table["sha256"][0] == digest


def test_a_list_that_cannot_be_had_is_said(sky, survey):
    sky.faults.add("status", "*.sha256sum", times=None, code=503)
    table = survey.get_brick_files(BRICK, **SMALL)
    assert list(table["Status"]) == ["COMPLETE"] * 3
    assert "not compared with the survey's list" in table["Message"][0]
    sky.faults.clear()
    sky.faults.add("html", "*.sha256sum", times=None)
    survey.clear_cache()
    table = survey.get_brick_files(BRICK, **SMALL)
    assert "is not a list of sha256 digests" in table["Message"][0]
    assert not list(survey.cache_location.rglob("*.sha256sum"))


def test_refresh_fetches_what_was_replaced_and_nothing_else(copied_tree, survey):
    with Sandbox(copied_tree, configure=False) as server:
        survey.mirror = server.mirror_url
        before = survey.get_brick_files(BRICK, **SMALL, verify=False)
        assert set(before["Status"]) == {"COMPLETE"}
        changed = change(copied_tree, "*nexp-g*")
        server.requests.clear()
        table = survey.get_brick_files(BRICK, **SMALL, verify=False, refresh=True)
        assert list(table["Status"]) == ["COMPLETE", "CACHED", "CACHED"]
        assert sorted(r.status for r in server.requests) == [200, 304, 304]
        assert Path(table["Local Path"][0]).read_bytes() == changed.read_bytes()
        assert table["sha256"][0] == hashlib.sha256(changed.read_bytes()).hexdigest()


def test_refresh_goes_by_the_date_of_a_file_in_the_users_folder(copied_tree, survey, tmp_path):
    with Sandbox(copied_tree, configure=False) as server:
        call = {**SMALL, "mirror": server.mirror_url, "download_dir": tmp_path / "d"}
        table = survey.get_brick_files(BRICK, **call)
        first = copied_tree / f"{FOLDER}-nexp-g.fits.fz"
        assert int(os.stat(table["Local Path"][0]).st_mtime) == int(first.stat().st_mtime)
        table = survey.get_brick_files(BRICK, **call, refresh=True)
        assert set(table["Status"]) == {"CACHED"}
        os.utime(first, (time.time(), first.stat().st_mtime + 100))
        table = survey.get_brick_files(BRICK, **call, refresh=True)
    assert list(table["Status"]) == ["COMPLETE", "CACHED", "CACHED"]


@pytest.mark.parametrize(
    "bricks", ["0451P000,0453p000", "0453p000 0451p000", [" 0451P000", "0453P000"]]
)
def test_names_of_bricks_in_any_case_and_with_commas(survey, bricks):
    asked = survey.get_brick_files(bricks, products="maskbits", get_query_payload=True)["urls"]
    assert [url.split("/")[-2] for url in asked] == ["0451p000", "0453p000"]


def test_any_file_of_the_tree_by_its_path(sky, survey, tmp_path):
    paths = [
        "dr10/south/sweep/10.1-photo-z/sweep-045p000-050p005-pz.fits",
        f"dr10/south/tractor/045/tractor-{BRICK}.fits",
        "dr10/survey-bricks.fits.gz",
    ]
    table = survey.get_brick_files(path=paths, download_dir=tmp_path)
    assert table["Status"].tolist() == ["COMPLETE"] * 3
    assert table["release"].tolist() == ["dr10"] * 3
    assert table["region"].tolist() == ["south", "south", ""]
    for path, local in zip(paths, table["Local Path"], strict=True):
        assert Path(local) == tmp_path / path
        assert Path(local).read_bytes() == (sky.root / path).read_bytes()
    # What its folder has a list for is held against it.
    sky.faults.add("flip", "*tractor-*.fits", times=None, start=50_000)
    with pytest.raises(ChecksumError):
        survey.get_brick_files(path=paths[1], verify="strict")


def test_a_path_that_the_survey_has_not_is_no_data(sky, survey, tmp_path):
    with pytest.warns(CoverageWarning, match="has none"):
        table = survey.get_brick_files(path="dr9/external/none.fits")
    assert table["Status"].tolist() == ["NODATA"]
    (tmp_path / "dr9").mkdir()
    with pytest.warns(LegacySurveyWarning, match="lacks dr9/external"):
        table = survey.get_brick_files(path="dr9/external/none.fits", mirror=tmp_path)
    assert table["Status"].tolist() == ["ERROR"]


@pytest.mark.parametrize(
    "arguments",
    [
        *({"path": path} for path in ("", "dr9", "../a/b", "dr9/../../x", "http://a/b", "dr9//x")),
        *({"path": path} for path in ("dr9/x/", "dr9/a b", "dr9/{brick}", "dr9/x?y", [], [3], 3)),
        {"path": "dr9/a.fits", "bands": "g"},
        {"path": "dr9/a.fits", "products": "tractor"},
        {"path": "dr9/a.fits", "bricks_or_coordinates": "45.1 0.0"},
    ],
)
def test_other_paths_are_refused_before_any_request(sky, survey, arguments):
    with pytest.raises(InvalidRequestError, match="path"):
        survey.get_brick_files(**arguments)
    assert len(sky.requests) == 0


def test_the_sweep_of_a_position_is_one_file(survey):
    for place in ("45.12 0.01", [(45.12, 0.01), (45.13, 0.02)], "45.12 -0.01"):
        payload = survey.get_brick_files(place, products="sweep", get_query_payload=True)
        assert len(payload["urls"]) == 1
        half = "045m005" if str(place).endswith("-0.01") else "045p000"
        assert f"sweep-{half}" in payload["urls"][0]
    near = survey.get_brick_files(
        "45.12 0.01", radius="10 arcmin", products="sweep", get_query_payload=True
    )
    assert len(near["urls"]) > 1
