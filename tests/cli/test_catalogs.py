"""``tractor``, ``crossmatch`` and ``covers``."""

import os
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import Table

from astroquery_lis import LegacySurvey

FIELD = ("45.09", "0.062")
CONE = (*FIELD, "--radius", "1arcsec")
NO_ROWS = "There are no rows"


def test_tractor_prints_what_the_class_returns(run, run_json, scene):
    words = ("tractor", *FIELD, "--radius", "20arcsec", "--columns", "ra,dec,type,flux_r")
    expected = LegacySurvey.query_tractor(
        scene.positions["field"], radius=20 * u.arcsec, columns=["ra", "dec", "type", "flux_r"]
    )
    assert len(expected) > 2
    code, document = run_json(*words)
    assert code == 0
    assert document["n_rows"] == len(expected)
    assert document["units"] == {"ra": "deg", "dec": "deg", "flux_r": "nmgy"}
    assert document["meta"]["source"] == "tap"
    for name in expected.colnames:
        assert [row[name] for row in document["rows"]] == pytest.approx(
            expected[name].tolist(), abs=0
        )
    answer = run(*words, "-o", "a.ecsv")
    assert answer.code == 0
    assert answer.out == ""
    assert answer.err == f"astroquery-lis: {len(expected)} rows in a.ecsv\n"
    np.testing.assert_array_equal(Table.read("a.ecsv")["flux_r"], expected["flux_r"])
    assert run(*words, "-o", "a.fits").code == 0
    with fits.open("a.fits") as hdul:
        assert hdul[1].columns["flux_r"].unit == "nanomaggy"
        np.testing.assert_array_equal(hdul[1].data["flux_r"], expected["flux_r"])
    answer = run(*words)
    assert answer.out.split()[:4] == ["ra", "dec", "type", "flux_r"]
    assert answer.out.count("\n") == len(expected) + 3


@pytest.mark.parametrize("source", ["tap", "files", "viewer"])
def test_every_source(run_json, source):
    code, document = run_json(
        *("tractor", *FIELD, "--radius", "10arcsec", "--columns", "flux_r", "--source", source)
    )
    assert code == 0
    assert document["meta"]["source"] == source


@pytest.mark.parametrize(
    ("where", "met"),
    [
        (["flux_r>10"], lambda r: r["flux_r"] > 10),
        (["flux_r >= 2", "flux_r<10"], lambda r: 2 <= r["flux_r"] < 10),
        (["flux_r=2..10"], lambda r: 2 <= r["flux_r"] <= 10),
        (["type=PSF"], lambda r: r["type"] == "PSF"),
        (["type=PSF,REX"], lambda r: r["type"] in ("PSF", "REX")),
        (["type!=PSF", "flux_g>1"], lambda r: r["type"] != "PSF" and r["flux_g"] > 1),
    ],
)
def test_conditions(run_json, where, met):
    words = ("tractor", *FIELD, "--radius", "90arcsec", "--columns", "type,flux_g,flux_r")
    everything = run_json(*words)[1]["rows"]
    options = [word for text in where for word in ("--column-filters", text)]
    found = run_json(*words, *options)[1]["rows"]
    expected = [row for row in everything if met(row)]
    assert found == expected
    assert 0 < len(expected) < len(everything)


def test_boxes_polygons_and_limits(run_json):
    base = ("--columns", "ra,dec,brick_primary")
    box = run_json("tractor", *FIELD, "--width", "40arcsec", "--height", '30"', *base)[1]
    corners = "45.08,0.05,45.1,0.05,45.1,0.07,45.08,0.07"
    code, polygon = run_json("tractor", "--polygon", corners, *base)
    assert code == 0
    assert all(45.08 <= row["ra"] <= 45.1 for row in polygon["rows"])
    assert 0 < len(box["rows"]) < len(polygon["rows"])
    code, document = run_json("tractor", *FIELD, "--radius", "60arcsec", "--maxrec", "2", *base)
    assert (code, document["n_rows"]) == (0, 2)
    assert any("more rows" in text for text in document["warnings"])
    corner = ("tractor", "45.25", "0.125", "--radius", "20arcsec", "--source", "files", *base)
    primary, rows = run_json(*corner)[1]["rows"], run_json(*corner, "--no-primary")[1]["rows"]
    assert len(rows) > len(primary)
    assert [row for row in rows if row["brick_primary"]] == primary


def test_where_nothing_is(run):
    answer = run("tractor", *FIELD, "--radius", "1arcsec", "--column-filters", "flux_r>1e9")
    assert answer.code == 3
    assert answer.err.startswith("astroquery-lis: warning: ")
    words = ("tractor", "95", "-30", "--radius", "1arcsec")
    assert run(*words).code == 3
    assert run(*words, "--source", "files", "--on-missing", "raise").code == 3


def test_tractor_dry_run(run, scene):
    answer = run("tractor", *FIELD, "--radius", "5arcsec", "--columns", "ra", "--dry-run")
    assert answer.out.startswith('SELECT t."ra"')
    assert answer.out.count("\n") == 1
    assert len(scene.requests) == 0


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ((), "One of --radius, --width, --polygon and --ids"),
        (FIELD, "One of --radius, --width, --polygon and --ids"),
        (("--radius", "1arcsec"), "coordinates"),
        ((*FIELD, "--radius", "1"), "argument --radius: '1' is not of the kind 10arcsec"),
        ((*FIELD, "--radius", "-1arcsec"), "must be above 0"),
        ((*FIELD, "--radius", "1arcsec", "--width", "1arcsec"), "Give one of radius="),
        ((*CONE, "--columns", "flux_q", "--mirror", "nersc"), "flux_q"),
        ((*CONE, "--column-filters", "flux_r"), "argument --column-filters"),
        ((*CONE, "--column-filters", "flux_q>1", "--mirror", "nersc"), "flux_q"),
        ((*FIELD, "--radius", "1arcsec", "--column-filters", "flux_r>big"), "finite numbers"),
        (
            (*CONE, "--column-filters", "type=PSF,REX", "--column-filters", "type=PSF"),
            "--column-filters has type twice",
        ),
        ((*FIELD, "--radius", "1arcsec", "--maskbits", "NOTHING"), "NOTHING"),
        ((*FIELD, "--radius", "1arcsec", "--maxrec", "0"), "maxrec=0"),
        ((*FIELD, "--radius", "1arcsec", "--source", "web"), "invalid choice: 'web'"),
        (("--polygon", "1,2,3"), "--polygon: 1,2,3 must be RA,DEC"),
        (("--polygon", "1,2,x,4"), "must be RA,DEC"),
        ((*FIELD, "--radius", "1arcsec", "-o", "a.xyz"), "the name says no format"),
        ((*FIELD, "--radius", "1arcsec", "--format", "xls"), "format='xls' is not one of"),
        ((*FIELD, "--radius", "1arcsec", "--json", "-o", "-"), "--json: is a format of its own"),
    ],
)
def test_bad_words_of_tractor(run, words, match, scene):
    answer = run("tractor", *words)
    assert answer.code == 2
    assert match in answer.err
    assert len(scene.requests) == 0


def test_services_that_are_down(run, scene):
    scene.faults.add("status", code=503, times=None)
    answer = run("tractor", *FIELD, "--radius", "5arcsec")
    assert answer.code == 4
    assert run("covers", *FIELD).code == 4


def test_crossmatch(run, run_json, scene, tmp_path):
    sources = LegacySurvey.query_tractor(scene.positions["field"], radius=60 * u.arcsec)
    rows = [f"t{n},{row['ra'] + 5e-5},{row['dec']}" for n, row in enumerate(sources[:9])]
    rows.append("far,45.09,0.3")
    (tmp_path / "mine.csv").write_text("\n".join(["id,ra,dec", *rows]))
    words = ("crossmatch", "mine.csv", "--radius", "0.5arcsec", "--columns", "flux_r,objid")
    code, document = run_json(*words)
    assert code == 0
    found = document["rows"]
    assert [row["id"] for row in found] == [*(f"t{n}" for n in range(9)), "far"]
    assert [row["objid"] for row in found] == [*sources["objid"][:9].tolist(), None]
    assert found[-1]["separation"] is None
    answer = run(*words, "-o", "-", "--format", "csv")
    assert answer.out.splitlines()[0] == "id,ra,dec,separation,flux_r,objid"
    assert answer.err == "astroquery-lis: 9 of 10 rows have a source\n"
    all_pairs = run_json(*words, "--find", "all")[1]["rows"]
    assert all(row["objid"] is not None for row in all_pairs)
    assert run("crossmatch", "-", "--radius", "0.1arcsec", stdin="45.09 0.3\n").code == 3


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("none.csv", "--radius", "1arcsec"), "cannot be read: No such file"),
        (("mine.csv",), "the following arguments are required: --radius"),
        (("--radius", "1arcsec"), "the following arguments are required: TABLE"),
        (("mine.csv", "--radius", "1deg"), "at most"),
        (("mine.csv", "--radius", "1arcsec", "--ra", "alpha"), "alpha"),
        (("mine.csv", "--radius", "1arcsec", "--columns", "flux_q"), "flux_q"),
        (("mine.csv", "--radius", "1arcsec", "--input-format", "fits"), "cannot be read as fits"),
        (("mine.csv", "--radius", "1arcsec", "--find", "most"), "invalid choice: 'most'"),
    ],
)
def test_bad_words_of_crossmatch(run, tmp_path, words, match):
    (tmp_path / "mine.csv").write_text("ra,dec\n45,0\n")
    answer = run("crossmatch", *words)
    assert answer.code == 2
    assert match in answer.err


def test_maps(run_json):
    text = "45.09 0.062 in\n45.1 0.01 near\n"
    code, document = run_json(
        *("maps", "--table", "-", "--products", "nexp,maskbits", "--bands", "r"), stdin=text
    )
    assert code == 0
    assert [(row["id"], row["nexp_r"] > 0) for row in document["rows"]] == [
        ("in", True),
        ("near", True),
    ]


def test_maps_name_the_rows_by_the_column_that_is_told(run_json, run, tmp_path):
    (tmp_path / "t.csv").write_text("ra,dec,id,name\n45.09,0.062,1,in\n45.1,0.01,2,near\n")
    words = ("maps", "--table", str(tmp_path / "t.csv"), "--products", "maskbits")
    _, document = run_json(*words, "--id-column", "name")
    assert [row["id"] for row in document["rows"]] == ["in", "near"]
    answer = run(*words, "--id-column", "nothing")
    assert answer.code == 2
    assert "id_column='nothing' is not a column" in answer.err


def test_covers(run, run_json):
    assert run("covers", *FIELD).code == 0
    assert run("covers", "95", "-30").code == 3
    assert run_json("covers", "180.15", "32.6")[1]["rows"][0]["covered"] is True
    assert run("covers", "180.15", "32.6", "--bands", "i").code == 3
    code, document = run_json("covers", "--table", "-", stdin="45.09 0.062 in\n95 -30 out\n")
    assert code == 0
    assert [(row["id"], row["covered"]) for row in document["rows"]] == [
        ("in", True),
        ("out", False),
    ]
    code, document = run_json("covers", "--table", "-", stdin="id,ra,dec\na,45.09,0.062\nb,,\n")
    assert code == 5
    assert [row["covered"] for row in document["rows"]] == [True, False]
    assert document["warnings"] == [
        "1 of 2 rows have no position on the sky and are not covered: 1."
    ]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ((), "Give a position, or a table"),
        ((*FIELD, "--bands", "q"), "bands of dr10"),
        ((*FIELD, "--release", "dr99"), "dr99"),
        (("--table", "none.csv"), "No such file"),
    ],
)
def test_bad_words_of_covers(run, words, match):
    answer = run("covers", *words)
    assert answer.code == 2
    assert match in answer.err


def test_catalogue_prints_a_file_with_units(run, run_json, scene):
    path = scene.root / "dr10/south/sweep/10.1/sweep-045p000-050p005.fits"
    expected = LegacySurvey.read_catalogue(path, columns=["objid", "flux_r"])
    code, document = run_json("catalogue", str(path), "--columns", "objid,flux_r")
    assert code == 0
    assert document["units"] == {"flux_r": "nmgy"}
    assert [row["objid"] for row in document["rows"]] == expected["objid"].tolist()
    assert run("catalogue", str(path), "-o", "all.ecsv").code == 0
    assert len(Table.read("all.ecsv").colnames) > 100
    answer = run("catalogue", "none.fits")
    assert answer.code != 0
    assert "is no file on this computer" in answer.err


def test_a_catalogue_that_cannot_be_read_is_no_service_that_is_down(run, run_json, scene, tmp_path):
    whole = scene.root / "dr10/south/tractor/045/tractor-0451p000.fits"
    short, page, barred = (tmp_path / name for name in ("a.fits", "b.fits", "c.fits"))
    short.write_bytes(whole.read_bytes()[:-5000])
    page.write_text("<html>")
    barred.write_bytes(whole.read_bytes())
    barred.chmod(0)
    paths = [short, page]
    if not os.access(barred, os.R_OK):
        paths.append(barred)
    elif Path("/proc/self/mem").exists():
        paths.append(Path("/proc/self/mem"))  # root may read all but this
    for path in paths:
        answer = run("catalogue", str(path))
        assert answer.code == 2, answer.err
        assert str(path) in answer.err
        _, document = run_json("catalogue", str(path))
        assert document["error"]["type"] == "InvalidRequestError"
    none = tmp_path / "none.fits"
    with fits.open(whole) as hdul:
        fits.HDUList([hdul[0], fits.BinTableHDU(hdul[1].data[:0], name="T")]).writeto(none)
    assert run("catalogue", str(none), "--columns", "ra,dec").code == 3


def test_files_takes_a_path_of_the_tree(run_json):
    path = "dr10/south/tractor/045/tractor-0451p000.fits"
    code, document = run_json("files", "--path", path, "--download-dir", "tree")
    assert code == 0
    assert document["rows"][0]["Status"] == "COMPLETE"
    assert document["rows"][0]["Local Path"].endswith(f"tree/{path}")
