"""`verify` and the cache: what is found wrong, mended, forgotten, or cannot be kept."""

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
from astropy.io import fits

from astroquery_lis import LegacySurveyClass, conf
from astroquery_lis.exceptions import FailoverWarning, InvalidRequestError, LegacySurveyWarning
from astroquery_lis.sandbox.server import Sandbox

from .file_checks import BRICK, SMALL, assert_right, change

# ---- what is here already ------------------------------------------------------------------------


@pytest.mark.parametrize("verify", ["warn", False])
@pytest.mark.parametrize("folder", [None, "folder"])
@pytest.mark.parametrize("damage", ["text", "cut", "zeros", "empty"])
def test_what_is_here_is_not_trusted_by_its_name(sky, survey, tmp_path, folder, damage, verify):
    options = {**SMALL, "download_dir": folder and tmp_path / folder, "verify": verify}
    first = survey.get_brick_files(BRICK, **options)
    path = Path(first["Local Path"][1])
    whole = path.read_bytes()
    contents = {"text": b"hello", "cut": whole[:5000], "zeros": bytes(len(whole)), "empty": b""}
    path.write_bytes(contents[damage])
    again = survey.get_brick_files(BRICK, **options)
    assert path.read_bytes() == whole
    assert list(again["Status"]) == ["CACHED", "COMPLETE", "CACHED"]
    assert "what was here was replaced" in again["Message"][1]
    assert set(survey.get_brick_files(BRICK, **options)["Status"]) == {"CACHED"}


@pytest.mark.parametrize("name", ["my cache", "caché 数据", "100% {path} [a]*?", "link"])
def test_a_cache_may_be_called_anything(sky, survey, tmp_path, name):
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    with conf.set_temp("cache_dir", str(tmp_path / name)):
        for status in ("COMPLETE", "CACHED"):
            assert set(survey.get_brick_files(BRICK, **SMALL)["Status"]) == {status}
            survey.get_cutout(sky.positions["star"], 16, bands="r", source="bricks")
            requests = len(sky.requests)
        survey.get_cutout(sky.positions["star"], 16, bands="r", source="bricks")
        assert len(sky.requests) == requests
        assert set(survey.verify_cache()["Status"]) == {"GOOD"}
        survey.clear_cache()
        assert survey.cache_info()["bytes"] == 0


def test_what_the_cache_recorded_is_compared_by_its_digest(sky, survey):
    path = Path(survey.get_brick_files(BRICK, **SMALL)["Local Path"][0])
    whole = path.read_bytes()
    change(survey.cache_location, path.name)
    assert path.read_bytes() != whole
    table = survey.get_brick_files(BRICK, **SMALL)
    assert table["Status"][0] == "COMPLETE"
    assert "another sha256 than it had" in table["Message"][0]
    assert path.read_bytes() == whole
    # A cutout of the same file looks at it too.
    image = Path(survey.get_brick_files(BRICK, products="image", bands="r")["Local Path"][0])
    change(survey.cache_location, image.name)
    sky.requests.clear()
    right = survey.get_cutout(sky.positions["star"], 16, bands="r", source="bricks", cache=False)
    cutout = survey.get_cutout(sky.positions["star"], 16, bands="r", source="bricks")
    np.testing.assert_array_equal(cutout[1].data, right[1].data)
    assert not image.exists()


def test_a_file_of_a_local_mirror_is_looked_at(sky, copied_tree, survey):
    cut = next(copied_tree.rglob("*nexp-r*"))
    cut.write_bytes(cut.read_bytes()[:-2880])
    survey.mirror = copied_tree
    with pytest.warns(LegacySurveyWarning, match=r"1 of 3 file\(s\) could not be had"):
        table = survey.get_brick_files(BRICK, **SMALL)
    assert list(table["Status"]) == ["CACHED", "ERROR", "CACHED"]
    survey.mirror = [copied_tree, sky.mirror_url]
    with pytest.warns(FailoverWarning):
        table = survey.get_brick_files(BRICK, **SMALL)
    assert list(table["Status"]) == ["CACHED", "COMPLETE", "CACHED"]


# ---- audit --------------------------------------------------------------------------------------


def test_an_audit_finds_what_is_wrong_and_repairs_it(sky, copied_tree, survey):
    mismatch = change(copied_tree, "*nexp-g*")
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
    change(copied_tree, "*nexp-g*")
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
    change(store / "dr10", "*nexp-g*")
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
    change(survey.cache_location, "*nexp-g.fits.fz")
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
    assert_right(sky, table)
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
    assert_right(sky, table)


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
    assert_right(sky, table)
    table = survey.get_brick_files(BRICK, **SMALL)
    assert list(table["Status"]) == ["CACHED"] * 3
    assert all(table["sha256"] != "")


def test_a_file_of_the_cache_that_nobody_looked_at_is_looked_at(sky, survey):
    survey.get_brick_files(BRICK, **SMALL)
    store = next(survey.cache_location.glob("custom-*"))
    shutil.rmtree(store / ".known")
    change(store, "*nexp-g*")
    table = survey.get_brick_files(BRICK, **SMALL)
    assert list(table["Status"]) == ["COMPLETE", "CACHED", "CACHED"]
    assert_right(sky, table)
