"""``bricks``, ``files`` and ``cache``."""

import numpy as np
import pytest
from astropy.table import Table

from astroquery_lis import LegacySurvey
from astroquery_lis.survey.bricks import brick_name
from astroquery_lis.survey.sphere import bricks_in_circle

IMAGE = "dr10/south/coadd/045/0451p000/legacysurvey-0451p000-image-r.fits.fz"


def test_bricks_at_and_around_a_place(run, run_json, scene):
    code, document = run_json("bricks", "190.1086", "1.2005")
    assert code == 0
    assert [row["brickname"] for row in document["rows"]] == ["1901p012"]
    assert document["units"]["ra1"] == "deg"
    document = run_json("bricks", "45.25", "-0.125", "--radius", "0.1deg")[1]
    expected = bricks_in_circle(45.25, -0.125, 0.1).tolist()
    assert [row["brickid"] for row in document["rows"]] == expected
    assert len(expected) == 4
    answer = run("bricks", "190.1086", "-1.2005", "--format", "csv")
    assert answer.out.splitlines()[0] == "brickname,brickid,ra,dec,ra1,ra2,dec1,dec2"
    assert answer.out.splitlines()[1].startswith("1901m012,")
    assert "1901m012" in run("bricks", "190.1086", "-1.2005").out
    assert len(scene.requests) == 0


def test_bricks_of_a_table_are_a_row_each(run_json):
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 360, 50), rng.uniform(-90, 90, 50)
    lines = "".join(f"{a!r} {d!r}\n" for a, d in zip(ra.tolist(), dec.tolist(), strict=True))
    code, document = run_json("bricks", "--table", "-", stdin=lines)
    assert code == 0
    assert [row["brickname"] for row in document["rows"]] == brick_name(ra, dec).tolist()
    code, document = run_json("bricks", "--table", "-", stdin="ra,dec\n1,2\n,\n3,95\n")
    assert code == 5
    assert [row["brickid"] is None for row in document["rows"]] == [False, True, True]
    assert document["warnings"] == ["2 of 3 rows have no position on the sky and no brick: 1, 2."]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ((), "Give a position, or a table"),
        (("1", "2", "--radius", "5"), "argument --radius"),
        (("1", "2", "--radius", "-5deg"), "must be from 0 to 180 degrees"),
        (("--table", "none.csv"), "No such file"),
        (("--table", "-", "--input-format", "xls"), "format='xls' is not one of"),
    ],
)
def test_bad_words_of_bricks(run, words, match):
    answer = run("bricks", *words, stdin="1 2\n")
    assert answer.code == 2
    assert match in answer.err


def test_files_come_and_are_there(run, run_json, scene, tmp_path):
    words = ("files", "0451p000", "--bands", "r", "-d", "tree")
    answer = run(*words)
    path = tmp_path / "tree" / IMAGE
    assert (answer.code, answer.out) == (0, f"COMPLETE  {path}\n")
    assert path.read_bytes() == (scene.root / IMAGE).read_bytes()
    code, document = run_json("files", "45.1", "0.01", *words[2:], "--manifest", "m.csv")
    assert (code, document["counts"]) == (0, {"CACHED": 1})
    assert Table.read("m.csv")["id"].tolist() == ["0451p000"]
    lists = sum("sha256sum" in request.path for request in scene.requests)
    assert lists > 0
    assert run("files", "0451p000", "--bands", "g", "-d", "other", "--verify", "no").code == 0
    assert sum("sha256sum" in request.path for request in scene.requests) == lists
    code, document = run_json("files", "--table", "-", *words[2:], stdin="brickname\n0451p000\n")
    assert document["rows"][0]["Local Path"] == str(path)


def test_files_that_are_not_there(run_json, run, scene):
    code, document = run_json("files", "0948m300", "--bands", "r", "-d", "tree")
    assert (code, document["counts"]) == (3, {"NODATA": 1})
    both = ("files", "0948m300,0451p000", "--bands", "r", "-d", "tree")
    code, document = run_json(*both)
    assert (code, document["counts"]) == (0, {"COMPLETE": 1, "NODATA": 1})
    scene.faults.add("status", match="*image-g*", code=503, times=None)
    code, document = run_json("files", "0451p000", "--bands", "gz", "-d", "tree")
    assert code == 5
    assert sorted(row["Status"] for row in document["rows"]) == ["COMPLETE", "ERROR"]
    scene.faults.add("status", code=503, times=None)
    answer = run("files", "0451p000", "--bands", "g", "-d", "tree")
    assert answer.code == 4
    assert answer.out.startswith(("ERROR", "SKIPPED"))


def test_files_dry_run_and_products(run, run_json, scene):
    answer = run("files", "45.25", "0.125", "--radius", "10arcsec", "--bands", "r", "--dry-run")
    assert answer.out.count("\n") == 4
    assert all(line.startswith(scene.mirror_url) for line in answer.out.splitlines())
    document = run_json("files", "--list-products")[1]
    assert document["rows"][0]["product"] == "image"
    assert "tractor" in run("files", "--list-products", "--format", "csv").out
    assert len(scene.requests) == 0


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ((), "needs bricks or coordinates"),
        (("9999p999",), "9999p999"),
        (("0451p000", "--table", "x.csv"), "Give bricks or a position, or a table of bricks"),
        (("0451p000", "--products", "nothing"), "nothing"),
        (("0451p000", "--radius", "1deg"), "needs coordinates"),
        (("0451p000", "--verify", "maybe"), "invalid choice: 'maybe'"),
        (("0451p000", "--manifest", "a.xyz"), "the name says no format"),
        (("--table", "none.csv"), "No such file"),
    ],
)
def test_bad_words_of_files(run, words, match, scene):
    answer = run("files", *words)
    assert answer.code == 2
    assert match in answer.err
    assert len(scene.requests) == 0


def test_the_cache_from_full_to_empty(run, run_json, tmp_path):
    assert run("cutout", "45.1312", "0.0047", "--size", "8", "--bands", "r").code == 0
    assert run("files", "0451p000", "--bands", "r").code == 0
    code, info = run_json("cache", "info")
    assert code == 0
    assert info["location"] == str(tmp_path / "cache")
    assert info["bytes"] == LegacySurvey.cache_info()["bytes"] > 0
    assert run("cache", "info").out.splitlines()[0] == f"location  {tmp_path / 'cache'}"
    code, document = run_json("cache", "verify")
    assert code == 0
    assert set(document["counts"]) <= {"GOOD", "UNLISTED"}
    (bad,) = (tmp_path / "cache").rglob("*-image-r.fits.fz")
    bad = bad if bad.is_file() else next(path for path in bad.rglob("*") if path.is_file())
    bad.write_bytes(b"no" + bad.read_bytes()[2:])
    answer = run("cache", "verify")
    assert answer.code == 5
    assert "DAMAGED" in answer.out or "MISMATCH" in answer.out
    answer = run("cache", "prune", "--limit", "100")
    assert answer.out.startswith("removed 0.0 MB")
    code, document = run_json("cache", "clear", "--older-than", "1d")
    assert document["removed_bytes"] == 0
    code, document = run_json("cache", "clear", "--release", "dr9")
    assert document["bytes"] == info["bytes"]
    code, document = run_json("cache", "prune", "--limit", "0")
    assert (code, document["bytes"]) == (0, 0)
    assert run("psf", "45.1312", "0.0047", "--bands", "g").code == 0
    code, document = run_json("cache", "clear")
    assert (code, document["bytes"]) == (0, 0)
    assert document["removed_bytes"] > 0
    assert run("cache", "verify").code == 0


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ((), "the following arguments are required: ACTION"),
        (("wash",), "invalid choice: 'wash'"),
        (("verify", "nowhere"), "is not a directory that exists"),
        (("prune", "--limit", "much"), "argument --limit: 'much' is not a number of GB"),
        (("clear", "--older-than", "30"), "argument --older-than: '30' is not of the kind 30d"),
        (("clear", "--release", "dr99"), "dr99"),
        (("info", "now"), "unrecognized arguments: now"),
    ],
)
def test_bad_words_of_cache(run, words, match):
    answer = run("cache", *words)
    assert answer.code == 2
    assert match in answer.err
