"""Several mirrors: who is asked, who answers, and what is kept of whom."""

import time

import numpy as np
import pytest

from astroquery_lis import conf
from astroquery_lis.exceptions import FailoverWarning, LegacySurveyWarning
from astroquery_lis.io import mirrors
from astroquery_lis.io.mirrors import HEALTH
from astroquery_lis.sandbox.server import Sandbox

from .file_checks import BRICK, SMALL, assert_right, change

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
    survey.timeout = 2 if name == "slow" else None
    sky.faults.add(kind, times=None, **options)
    survey.mirror = [sky.mirror_url, other.mirror_url]
    with pytest.warns(FailoverWarning, match="came after a failure"):
        table = survey.get_brick_files([BRICK, "0453p000"], **SMALL)
    assert list(table["Status"]) == ["COMPLETE"] * 6
    assert_right(sky, table)
    assert all(url.startswith(other.mirror_url) for url in table["URL"])
    # It recovers, and after its rest it is asked again.
    sky.faults.clear()
    survey.timeout = None
    monkeypatch.setattr(HEALTH, "clock", lambda: time.monotonic() + 1e5)
    with conf.set_temp("max_workers", 1):
        table = survey.get_brick_files(["0453p002"], **SMALL)
    assert_right(sky, table)
    assert all(url.startswith(sky.mirror_url) for url in table["URL"])


def test_a_mirror_with_other_bytes_is_found_out(sky, copied_tree, survey):
    for pattern in ("*nexp-g*", "*nexp-r*", "*maskbits*"):
        change(copied_tree, pattern)
    with Sandbox(copied_tree, configure=False) as liar:
        survey.mirror = [liar.mirror_url, sky.mirror_url]
        with pytest.warns(FailoverWarning, match="its list says"):
            table = survey.get_brick_files(BRICK, **SMALL)
    assert_right(sky, table)
    assert all(url.startswith(sky.mirror_url) for url in table["URL"])


def test_a_mirror_with_short_files_is_found_out_even_without_a_list(sky, copied_tree, survey):
    for path in copied_tree.rglob("*.fits.fz"):
        path.write_bytes(path.read_bytes()[:-2880])
    with Sandbox(copied_tree, configure=False) as liar:
        survey.mirror = [liar.mirror_url, sky.mirror_url]
        with pytest.warns(FailoverWarning, match="its HDUs need"):
            table = survey.get_brick_files(BRICK, **SMALL, verify=False)
    assert_right(sky, table)


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
    assert_right(sky, table)


def test_a_missing_file_is_not_declared_missing_while_the_first_mirror_is_down(sky, other, survey):
    sky.faults.add("status", times=None, code=503)
    other.faults.add("status", times=None, code=404)
    survey.mirror = [sky.mirror_url, other.mirror_url]
    with pytest.warns(LegacySurveyWarning):
        table = survey.get_brick_files(BRICK, products="maskbits")
    assert table["Status"][0] == "ERROR"


@pytest.fixture
def _same_order():
    """Put the mirrors back in their order, which users see; monkeypatch puts them at the end."""
    before = dict(mirrors.REGISTERED)
    yield
    mirrors.REGISTERED.clear()
    mirrors.REGISTERED.update(before)


@pytest.fixture
def official(_same_order, monkeypatch, sky, other):
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
    assert_right(sky, table)
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
