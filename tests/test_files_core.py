"""`get_brick_files`, `verify`, mirrors and cache, as a user meets them."""

import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
import time
from datetime import timedelta
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from astroquery_lis import LegacySurveyClass, conf, sandbox
from astroquery_lis.exceptions import (
    ChecksumError,
    ChecksumWarning,
    CoverageWarning,
    FailoverWarning,
    InvalidRequestError,
    LegacySurveyWarning,
)
from astroquery_lis.sandbox.server import Sandbox
from astroquery_lis.survey.layout import coadd_checksum_path, coadd_path
from astroquery_lis.transfer import mirrors
from astroquery_lis.transfer.health import HEALTH

BRICK = "0451p000"
HERE = SkyCoord(45.1312, 0.0047, unit="deg")
SMALL = {"products": ("nexp", "maskbits"), "bands": "gr"}
FOLDER = f"dr10/south/coadd/045/{BRICK}/legacysurvey-{BRICK}"
COLUMNS = [
    "Local Path",
    "Status",
    "Message",
    "URL",
    "id",
    "product",
    "release",
    "region",
    "bands",
    "seconds",
    "bytes",
    "sha256",
]


@pytest.fixture
def other():
    with sandbox.serve(configure=False) as sky:
        yield sky


@pytest.fixture
def copied_tree(sky, tmp_path):
    """A small tree of our own, which a test may change: one brick's folder."""
    folder = (sky.root / coadd_path("dr10", "south", "nexp", BRICK, "g")).parent
    target = tmp_path / "tree" / folder.relative_to(sky.root)
    target.mkdir(parents=True)
    for path in folder.iterdir():
        if "nexp" in path.name or "maskbits" in path.name or path.suffix == ".sha256sum":
            shutil.copy2(path, target)
    return tmp_path / "tree"


def _assert_right(sky, table):
    """Every file that the table names is the one of the tree."""
    for row in table:
        path = Path(row["Local Path"])
        whole = next(sky.root.rglob(path.name)) if row["region"] == "" else None
        for tree in ("dr10/south", "dr9/north"):
            if tree in str(path):
                whole = next((sky.root / tree).rglob(path.name))
        assert path.read_bytes() == whole.read_bytes()
        assert row["bytes"] == whole.stat().st_size
        if row["sha256"]:
            assert row["sha256"] == hashlib.sha256(whole.read_bytes()).hexdigest()


# ---- what is asked ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parameter", "match"),
    [
        ({"bricks_or_coordinates": "9999p000"}, "brick", "9999p000"),
        ({"bricks_or_coordinates": 45.0}, "bricks_or_coordinates", "names of bricks"),
        ({"bricks_or_coordinates": [1.5]}, "bricks_or_coordinates", "names of bricks"),
        ({"bricks_or_coordinates": 0}, "brick_id", "1 to 662174"),
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
        ({"verify": "hard"}, "verify", "warn, strict"),
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
        if isinstance(value, str) and value != BRICK:
            with pytest.warns(match="ICRS"):
                urls = survey.get_brick_files(value, **SMALL, get_query_payload=True)
        else:
            urls = survey.get_brick_files(value, **SMALL, get_query_payload=True)
        assert urls == expected
    assert len(sky.requests) == 0


def test_a_radius_takes_every_brick_that_the_circle_touches(sky, survey):
    corner = sky.positions["corner"]
    for radius, n in ((None, 1), ("30 arcsec", 4), (1 * u.arcmin, 4)):
        urls = survey.get_brick_files(
            corner, radius=radius, products="maskbits", get_query_payload=True
        )
        assert len(urls) == n


def test_region_auto_takes_the_official_one_for_each_brick(survey):
    urls = survey.get_brick_files(
        ["1801p325", BRICK], products=("nexp", "region-bricks"), bands="i", get_query_payload=True
    )
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
        )
        assert len(urls) >= len(names)


# ---- what comes ---------------------------------------------------------------------------------


def test_files_come_whole_and_a_second_call_asks_nothing(sky, survey):
    table = survey.get_brick_files([BRICK, "0453p000"], **SMALL)
    assert sorted(table.colnames) == sorted(COLUMNS)
    assert list(table["Status"]) == ["COMPLETE"] * 6
    assert list(table["id"]) == [BRICK, BRICK, "0453p000", "0453p000", BRICK, "0453p000"]
    assert list(table["bands"]) == ["g", "r", "g", "r", "", ""]
    assert set(table["product"]) == {"nexp", "maskbits"}
    _assert_right(sky, table)
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
        table = survey.get_brick_files("sweep-045p000-050p005.fits", products="sweep")
    assert table["id"][0] == "sweep-045p000-050p005"


def test_a_folder_of_the_users_is_a_mirror_afterwards(sky, survey, tmp_path):
    table = survey.get_brick_files(BRICK, **SMALL, download_dir=tmp_path / "mine")
    assert list(table["Status"]) == ["COMPLETE"] * 3
    assert table["Local Path"][0] == str(tmp_path / "mine" / f"{FOLDER}-nexp-g.fits.fz")
    assert survey.cache_info()["stores"] == {}
    _assert_right(sky, table)
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
    _assert_right(sky, copies)
    assert len(sky.requests) == 0


def test_what_the_cache_has_is_copied_to_the_users_folder(sky, survey, tmp_path):
    survey.get_brick_files(BRICK, **SMALL)
    sky.requests.clear()
    table = survey.get_brick_files(BRICK, **SMALL, download_dir=tmp_path / "d")
    assert list(table["Status"]) == ["COMPLETE"] * 3
    _assert_right(sky, table)
    assert [r for r in sky.requests if not r.path.endswith(".sha256sum")] == []


def test_processes_share_one_cache(sky, survey):
    survey.timeout = 30
    table = survey.get_brick_files([BRICK, "0453p000"], **SMALL, executor="processes")
    assert list(table["Status"]) == ["COMPLETE"] * 6
    _assert_right(sky, table)
    again = survey.get_brick_files([BRICK, "0453p000"], **SMALL)
    assert list(again["Status"]) == ["CACHED"] * 6


# ---- checksums ----------------------------------------------------------------------------------


def _change(tree, pattern):
    """Damage a file without a trace in its structure; return its path."""
    path = next(tree.rglob(pattern))
    raw = bytearray(path.read_bytes())
    raw[-100] ^= 0xFF
    path.write_bytes(raw)
    return path


def test_a_stale_list_is_a_warning_after_a_second_look(copied_tree, survey):
    changed = _change(copied_tree, "*nexp-g*")
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
    _change(copied_tree, "*nexp-g*")
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


def test_without_verification_no_list_is_fetched(sky, survey):
    survey.get_brick_files(BRICK, **SMALL, verify=False)
    assert [r for r in sky.requests if r.path.endswith(".sha256sum")] == []


def test_a_list_that_was_replaced_with_its_file_is_fetched_again(copied_tree, survey):
    with Sandbox(copied_tree, configure=False) as server:
        survey.mirror = server.mirror_url
        survey.get_brick_files(BRICK, **SMALL)
        path = _change(copied_tree, "*nexp-g*")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        listed = copied_tree / coadd_checksum_path("dr10", "south", BRICK)
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
        changed = _change(copied_tree, "*nexp-g*")
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


# ---- mirrors ------------------------------------------------------------------------------------

LIES = {
    "down": ("status", {"code": 503}),
    "refusing": ("refuse", {}),
    "slow": ("slow", {"seconds": 30}),
    "html": ("html", {}),
    "cut": ("cut", {}),
}


@pytest.mark.parametrize("name", LIES)
def test_whatever_the_first_mirror_does_the_files_are_right(sky, other, survey, monkeypatch, name):
    kind, options = LIES[name]
    survey.timeout = 0.3 if name == "slow" else None
    sky.faults.add(kind, times=None, **options)
    survey.mirror = [sky.mirror_url, other.mirror_url]
    with pytest.warns(FailoverWarning, match="came after a failure"):
        table = survey.get_brick_files([BRICK, "0453p000"], **SMALL)
    assert list(table["Status"]) == ["COMPLETE"] * 6
    _assert_right(sky, table)
    assert all(url.startswith(other.mirror_url) for url in table["URL"])
    # It recovers, and after its rest it is asked again.
    sky.faults.clear()
    survey.timeout = None
    monkeypatch.setattr(HEALTH, "clock", lambda: time.monotonic() + 1e5)
    with conf.set_temp("max_workers", 1):
        table = survey.get_brick_files(["0453p002"], **SMALL)
    _assert_right(sky, table)
    assert all(url.startswith(sky.mirror_url) for url in table["URL"])


def test_a_mirror_with_other_bytes_is_found_out(sky, copied_tree, survey):
    for pattern in ("*nexp-g*", "*nexp-r*", "*maskbits*"):
        _change(copied_tree, pattern)
    with Sandbox(copied_tree, configure=False) as liar:
        survey.mirror = [liar.mirror_url, sky.mirror_url]
        with pytest.warns(FailoverWarning, match="its list says"):
            table = survey.get_brick_files(BRICK, **SMALL)
    _assert_right(sky, table)
    assert all(url.startswith(sky.mirror_url) for url in table["URL"])


def test_a_mirror_with_short_files_is_found_out_even_without_a_list(sky, copied_tree, survey):
    for path in copied_tree.rglob("*.fits.fz"):
        path.write_bytes(path.read_bytes()[:-2880])
    with Sandbox(copied_tree, configure=False) as liar:
        survey.mirror = [liar.mirror_url, sky.mirror_url]
        with pytest.warns(FailoverWarning, match="its HDUs need"):
            table = survey.get_brick_files(BRICK, **SMALL, verify=False)
    _assert_right(sky, table)


def test_a_mirror_that_keeps_failing_is_left_alone_for_a_while(sky, other, survey):
    sky.faults.add("status", times=None, code=503)
    survey.mirror = [sky.mirror_url, other.mirror_url]
    bricks = [BRICK, "0453p000", "0451p002", "0453p002"]
    with pytest.warns(FailoverWarning), conf.set_temp("max_workers", 1):
        table = survey.get_brick_files(bricks, products="nexp", verify=False)
    assert len(table) == 16
    assert set(table["Status"]) == {"COMPLETE"}
    # Three failures, each tried twice, and no more for the other thirteen files.
    assert len(sky.requests) == 6
    state = survey.list_mirrors()
    row = state[list(state["name"]).index(sky.mirror_url)]
    assert (row["status"], row["in_use"]) == ("resting", True)
    assert "HTTP 503" in row["last_error"]


def test_when_every_mirror_is_down_each_file_says_why(sky, other, survey):
    for server in (sky, other):
        server.faults.add("status", times=None, code=503)
    survey.mirror = [sky.mirror_url, other.mirror_url]
    with pytest.warns(LegacySurveyWarning, match=r"8 of 8 file\(s\) could not be had"):
        table = survey.get_brick_files([BRICK, "0453p000"], products="nexp", verify=False)
    assert set(table["Status"]) <= {"ERROR", "SKIPPED"}
    assert sky.url in table["Message"][0]
    assert other.url in table["Message"][0]
    # The next call tries again, whatever was known.
    sky.faults.clear()
    table = survey.get_brick_files([BRICK, "0453p000"], products="nexp", verify=False)
    assert set(table["Status"]) == {"COMPLETE"}
    _assert_right(sky, table)


def test_a_missing_file_is_not_declared_missing_while_the_first_mirror_is_down(sky, other, survey):
    sky.faults.add("status", times=None, code=503)
    other.faults.add("status", times=None, code=404)
    survey.mirror = [sky.mirror_url, other.mirror_url]
    with pytest.warns(LegacySurveyWarning):
        table = survey.get_brick_files(BRICK, products="maskbits")
    assert table["Status"][0] == "ERROR"


@pytest.fixture
def official(monkeypatch, sky, other):
    """The two servers under the names of official mirrors."""
    for name, server in (("nersc", sky), ("nadc", other)):
        mirror = mirrors.Mirror(name, server.mirror_url + "/{path}", official=True)
        monkeypatch.setitem(mirrors.REGISTERED, name, mirror)
    monkeypatch.setattr(mirrors, "AUTO_ORDER", ("nersc", "nadc"))


def test_official_mirrors_share_one_place_in_the_cache(sky, other, survey, official):
    table = survey.get_brick_files(BRICK, **SMALL, mirror="nadc")
    assert all(url.startswith(other.mirror_url) for url in table["URL"])
    again = survey.get_brick_files(BRICK, **SMALL, mirror="nersc")
    assert list(again["Local Path"]) == list(table["Local Path"])
    assert list(again["Status"]) == ["CACHED"] * 3
    # Who gave it stays known.
    assert all(url.startswith(other.mirror_url) for url in again["URL"])
    assert len(sky.requests) == 0


def test_a_part_of_one_mirror_is_not_continued_from_another(sky, other, survey, official):
    cut = sky.faults.add("cut", "*nexp-g*", times=None, fraction=0.5)
    with cut, pytest.warns(LegacySurveyWarning):
        survey.get_brick_files(BRICK, products="nexp", bands="g", mirror="nersc")
    assert len(list(survey.cache_location.rglob("*.part"))) == 1
    table = survey.get_brick_files(BRICK, products="nexp", bands="g", mirror="nadc")
    _assert_right(sky, table)
    assert [r.range for r in other.requests if "nexp-g" in r.path] == [None]
    assert list(survey.cache_location.rglob("*.part*")) == []


def test_auto_asks_once_who_answers_and_prefers_who_serves_ranges(sky, other, survey, official):
    sky.faults.add("ignore_range", times=None)
    survey.mirror = "auto"
    with conf.set_temp("max_workers", 2):
        table = survey.get_brick_files([BRICK, "0453p000"], **SMALL)
    assert all(url.startswith(other.mirror_url) for url in table["URL"])
    for server in (sky, other):
        assert len([r for r in server.requests if r.range == "bytes=0-1023"]) == 1
    assert len(sky.requests) == 1
    state = survey.list_mirrors()
    state.add_index("name")
    assert (state.loc["nersc"]["ranges"], state.loc["nadc"]["ranges"]) == ("no", "yes")
    assert np.isfinite(state.loc["nersc"]["latency"])
    # What is here needs nobody.
    HEALTH.reset()
    for server in (sky, other):
        server.requests.clear()
    survey.get_brick_files(BRICK, **SMALL)
    assert len(sky.requests) == len(other.requests) == 0


def test_auto_serves_cutouts_too(sky, other, survey, official):
    sky.faults.add("status", times=None, code=503)
    hdul = survey.get_cutout(sky.positions["field"], 32, bands="r", mirror="auto")
    assert hdul[0].header["MIRROR"] == "nadc"
    assert all(r.range == "bytes=0-1023" for r in sky.requests)


def test_probing_on_demand(sky, other, survey, official, monkeypatch):
    # A test cannot ask the real ones.
    monkeypatch.delitem(mirrors.REGISTERED, "nadc-flat")
    survey.mirror = sky.mirror_url
    assert set(survey.list_mirrors()["status"]) == {"unknown"}
    assert len(sky.requests) == len(other.requests) == 0
    other.faults.add("refuse", times=None)
    state = survey.list_mirrors(probe=True)
    state.add_index("name")
    assert (state.loc["nersc"]["status"], state.loc["nersc"]["ranges"]) == ("up", "yes")
    assert state.loc["nadc"]["status"] == "failing"
    assert "Could not read" in state.loc["nadc"]["last_error"]
    assert np.isnan(state.loc["nadc"]["latency"])


def test_cutouts_leave_a_failing_mirror_alone_too(sky, other, survey):
    sky.faults.add("status", times=None, code=503)
    survey.mirror = [sky.mirror_url, other.mirror_url]
    for band in "gri":
        with pytest.warns(FailoverWarning):
            survey.get_cutout(sky.positions["field"], 32, bands=band)
    asked = len(sky.requests)
    hdul = survey.get_cutout(sky.positions["field"], 32, bands="z")
    assert hdul[0].header["MIRROR"] == other.mirror_url
    assert len(sky.requests) == asked


# ---- audit --------------------------------------------------------------------------------------


def test_an_audit_finds_what_is_wrong_and_repairs_it(sky, copied_tree, survey):
    mismatch = _change(copied_tree, "*nexp-g*")
    cut = next(copied_tree.rglob("*nexp-r*"))
    cut.write_bytes(cut.read_bytes()[:-2880])
    html = next(copied_tree.rglob("*nexp-i*"))
    html.write_text("<html></html>")
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(mismatch.with_name("extra.fits"))
    (copied_tree / "README.txt").write_text("not ours")
    table = survey.verify(copied_tree)
    found = {Path(row["Local Path"]).name: row["Status"] for row in table}
    assert found == {
        "extra.fits": "UNLISTED",
        f"legacysurvey-{BRICK}-maskbits.fits.fz": "GOOD",
        mismatch.name: "MISMATCH",
        cut.name: "DAMAGED",
        html.name: "DAMAGED",
        f"legacysurvey-{BRICK}-nexp-z.fits.fz": "GOOD",
    }
    assert len(sky.requests) == 0
    table = survey.verify(copied_tree, repair=True)
    assert list(table["Status"]).count("REPAIRED") == 3
    for path in copied_tree.rglob("*.fits.fz"):
        assert path.read_bytes() == (sky.root / path.relative_to(copied_tree)).read_bytes()
    assert set(survey.verify(copied_tree)["Status"]) == {"GOOD", "UNLISTED"}


def test_an_audit_says_when_the_mirror_has_the_same(copied_tree, survey):
    _change(copied_tree, "*nexp-g*")
    with Sandbox(copied_tree, configure=False) as server:
        table = survey.verify(copied_tree, repair=True, mirror=server.mirror_url)
    row = table[table["Status"] == "MISMATCH"][0]
    assert "the list may be stale" in row["Message"]


def test_an_audit_asks_for_lists_that_the_tree_lacks(sky, copied_tree, survey):
    next(copied_tree.rglob("*.sha256sum")).unlink()
    assert set(survey.verify(copied_tree)["Status"]) == {"UNLISTED"}
    assert set(survey.verify(copied_tree, mirror=sky.root)["Status"]) == {"GOOD"}
    assert set(survey.verify(copied_tree, mirror=sky.mirror_url)["Status"]) == {"GOOD"}


def test_an_audit_needs_a_folder(survey, tmp_path):
    with pytest.raises(InvalidRequestError, match="tree="):
        survey.verify(tmp_path / "nothing")


def test_the_cache_is_audited_and_repaired(sky, survey):
    survey.get_brick_files(BRICK, **SMALL)
    survey.get_cutout(sky.positions["field"], 64, bands="r")
    assert set(survey.verify_cache()["Status"]) == {"GOOD"}
    store = next(survey.cache_location.glob("custom-*"))
    _change(store / "dr10", "*nexp-g*")
    run = next(path for path in (store / ".parts").rglob("0-*-*"))
    run.write_bytes(run.read_bytes()[:-1])
    table = survey.verify_cache()
    assert sorted(set(table["Status"])) == ["DAMAGED", "GOOD", "MISMATCH"]
    table = survey.verify_cache(repair=True)
    assert list(table["Status"]).count("REPAIRED") == 1
    assert list(table["Status"]).count("REMOVED") == 1
    assert set(survey.verify_cache()["Status"]) == {"GOOD"}


def test_a_file_of_a_mirror_not_in_use_is_removed_not_replaced(sky, other, survey):
    survey.get_brick_files(BRICK, **SMALL)
    _change(survey.cache_location, "*nexp-g.fits.fz")
    survey.mirror = other.mirror_url
    table = survey.verify_cache(repair=True)
    assert list(table["Status"]).count("REMOVED") == 1
    assert not list(survey.cache_location.rglob("*nexp-g.fits.fz"))
    assert len(other.requests) == 0


# ---- cache --------------------------------------------------------------------------------------


def test_clearing_a_part_of_the_cache(sky, survey):
    survey.get_brick_files(BRICK, **SMALL)
    survey.get_brick_files("1801p325", **SMALL)
    survey.get_cutout(sky.positions["field"], 64, bands="r")
    survey.clear_cache(older_than=1 * u.hour)
    assert len(list(survey.cache_location.rglob("*.fits.fz"))) == 7
    survey.clear_cache(release="dr9")
    assert not list(survey.cache_location.rglob("*1801p325*.fits.fz"))
    assert list(survey.cache_location.rglob(f"*{BRICK}*.fits.fz"))
    survey.clear_cache(older_than=timedelta(seconds=-10))
    assert [p for p in survey.cache_location.rglob("*.f*") if p.is_file()] == []
    with pytest.raises(InvalidRequestError, match="older_than=3"):
        survey.clear_cache(older_than=3)
    with pytest.raises(InvalidRequestError, match="dr99"):
        survey.clear_cache(release="dr99")


def test_the_cache_forgets_what_was_used_longest_ago(sky, survey):
    first = survey.get_brick_files(BRICK, products="nexp", verify=False)
    for i, row in enumerate(first):
        # Used some hours ago, the first one most recently.
        status = os.stat(row["Local Path"])
        os.utime(row["Local Path"], (time.time() - 7200 - 600 * i, status.st_mtime))
    size = survey.cache_info()["bytes"]
    with conf.set_temp("cache_size", (size + 20_000) / 1e9):
        survey.get_brick_files("0453p000", products="nexp", bands="g", verify=False)
        info = survey.cache_info()
        assert info["bytes"] <= info["limit_bytes"]
    left = [Path(row["Local Path"]).exists() for row in first]
    assert left[0]
    assert not left[-1]
    assert len(list(survey.cache_location.rglob("*0453p000*.fits.fz"))) == 1


def test_a_call_larger_than_the_cache_keeps_its_files_and_says_so(sky, survey):
    with conf.set_temp("cache_size", 1e-5):
        table = survey.get_brick_files(BRICK, products="nexp", verify=False)
    assert list(table["Status"]) == ["COMPLETE"] * 4
    _assert_right(sky, table)
    assert any("larger than conf.cache_size" in message for message in table["Message"])


def test_a_disk_that_is_nearly_full_is_not_filled(sky, survey, tmp_path):
    with conf.set_temp("disk_margin", 1e9):
        with pytest.warns(LegacySurveyWarning, match="could not be had"):
            table = survey.get_brick_files(BRICK, products="nexp", verify=False)
        assert set(table["Status"]) == {"ERROR"}
        assert "CacheError" in table["Message"][0]
        assert "conf.disk_margin" in table["Message"][0]
        # What is on disk already is found, and cutouts come without being kept.
        local = survey.get_brick_files(BRICK, products="nexp", mirror=sky.root)
        assert set(local["Status"]) == {"CACHED"}
        with pytest.warns(match="not cached"):
            hdul = survey.get_cutout(sky.positions["field"], 32, bands="r")
    assert hdul["IMAGE_R"].shape == (32, 32)


LIMITED = """
import resource, signal, sys
from astroquery_lis import LegacySurveyClass, conf
import warnings
warnings.simplefilter("ignore")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
survey = LegacySurveyClass()
survey.mirror = sys.argv[1]
conf.cache_dir = sys.argv[2]
resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000))
table = survey.get_brick_files("0451p000", products=("nexp", "maskbits"), bands="g", verify=False)
for row in table:
    print(row["Status"], row["Message"])
"""


def test_a_write_that_fails_in_the_middle_is_a_clear_error(sky, tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED), sky.mirror_url, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = run.stdout.strip().splitlines()
    assert [line.split()[0] for line in lines if line.split()[0] in ("ERROR", "COMPLETE")] == [
        "ERROR",
        "ERROR",
    ]
    assert all("CacheError: Cannot write" in line for line in lines[-2:])
    assert "File too large" in run.stdout
    # With room, it goes on where it was.
    survey = LegacySurveyClass()
    survey.mirror = sky.mirror_url
    with conf.set_temp("cache_dir", str(tmp_path)):
        table = survey.get_brick_files(
            BRICK, products=("nexp", "maskbits"), bands="g", verify=False
        )
    _assert_right(sky, table)


def test_a_cache_that_cannot_be_written_is_a_clear_error(sky, survey, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    with conf.set_temp("cache_dir", str(blocked / "cache")):
        with pytest.warns(LegacySurveyWarning, match="could not be had"):
            table = survey.get_brick_files(BRICK, products="maskbits")
        assert table["Status"][0] == "ERROR"
        assert "Not a directory" in table["Message"][0]
        local = survey.get_brick_files(BRICK, products="maskbits", mirror=sky.root)
    assert local["Status"][0] == "CACHED"


def test_a_cache_that_takes_nothing_new_gives_what_it_has(sky, survey):
    survey.get_brick_files(BRICK, **SMALL)
    store = next(survey.cache_location.glob("custom-*"))
    for name in (".known", ".parts"):
        shutil.rmtree(store / name, ignore_errors=True)
        (store / name).write_text("not a directory")
    for path in store.rglob("*.sha256sum"):
        path.unlink()
        path.mkdir()
    table = survey.get_brick_files(BRICK, **SMALL, verify="strict")
    assert list(table["Status"]) == ["CACHED"] * 3
    _assert_right(sky, table)
    table = survey.get_brick_files(BRICK, **SMALL)
    assert list(table["Status"]) == ["CACHED"] * 3
    assert all(table["sha256"] != "")


def test_a_file_of_the_cache_that_nobody_looked_at_is_looked_at(sky, survey):
    survey.get_brick_files(BRICK, **SMALL)
    store = next(survey.cache_location.glob("custom-*"))
    shutil.rmtree(store / ".known")
    _change(store, "*nexp-g*")
    table = survey.get_brick_files(BRICK, **SMALL)
    assert list(table["Status"]) == ["COMPLETE", "CACHED", "CACHED"]
    _assert_right(sky, table)
