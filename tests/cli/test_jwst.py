"""The JWST commands that need no pipeline: words, the archive, and the Legacy Surveys beside it."""

import argparse
import json

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table
from astroquery import mast

from astroquery_lis.cli.calls import correction, step_parameter
from astroquery_lis.sandbox.mast import serve_mast

from ..jwst_stage.archive.archive_files import EAST, write_association, write_uncal
from ..jwst_stage.headers import write_exposure
from ..jwst_stage.legacy_mosaic import grid, sources, write_mosaic

DETECTORS = ("nrca1", "nrca2", "nrcalong")
FIELD = 45.09, 0.062


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held")
    paths = []
    for seed, detector in enumerate(DETECTORS):
        name = f"jw01234001001_02101_00001_{detector}_uncal.fits"
        band = "F356W" if detector == "nrcalong" else "F200W"
        paths.append(write_uncal(folder, name, seed=seed, FILTER=band))
    name = "jw02345003001_02101_00001_nrcb1_uncal.fits"
    paths.append(write_uncal(folder, name, center=EAST, DATE_OBS="2023-05-01"))
    name = "jw01234-o001_20220901t000000_image3_00001_asn.json"
    members = [path.name.replace("_uncal", "_cal") for path in paths[:3]]
    paths.append(write_association(folder, name, "jw01234-o001_t001_nircam_clear-f200w", members))
    return paths


@pytest.fixture
def archive(scene, held, monkeypatch):
    """The simulated MAST, of which the first file is not public."""
    keyring = pytest.importorskip("keyring")
    from keyring.backends import null

    monkeypatch.delenv("MAST_API_TOKEN", raising=False)
    before = keyring.get_keyring()
    keyring.set_keyring(null.Keyring())
    service = serve_mast(scene, held, exclusive=[held[0].name])
    with mast.conf.set_temp("server", service.url):
        yield service
    keyring.set_keyring(before)


@pytest.fixture
def mosaic(tmp_path):
    """A mosaic of the embedded sky, 20 mas too far east and 10 mas too far south."""
    wcs = grid(*FIELD, (300, 360), 0.1)
    return write_mosaic(tmp_path, "field", wcs, sources(), offset_mas=(20.0, -10.0))


@pytest.fixture
def uncals(tmp_path):
    for number in (1, 2):
        write_exposure(tmp_path / "uncal", number)
    return tmp_path / "uncal"


# ---- words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("jump.rejection_threshold=5", ("", "jump", "rejection_threshold", 5)),
        ("NRCA1:tweakreg.kernel_fwhm=2.5", ("NRCA1", "tweakreg", "kernel_fwhm", 2.5)),
        ("jump.skip=True", ("", "jump", "skip", True)),
        ("tweakreg.abs_refcat=/a/b=c:d.ecsv", ("", "tweakreg", "abs_refcat", "/a/b=c:d.ecsv")),
        ("resample.output_shape=none", ("", "resample", "output_shape", None)),
    ],
)
def test_a_parameter_of_a_step(text, expected):
    found = step_parameter(text)
    assert found == expected
    assert type(found[3]) is type(expected[3])


@pytest.mark.parametrize("text", ["jump", "jump=5", ".a=5", "jump.=5", ":jump.a=5", ""])
def test_what_is_no_parameter_of_a_step(text):
    with pytest.raises(argparse.ArgumentTypeError, match="jump.rejection_threshold=5"):
        step_parameter(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flicker", "flicker"),
        ("module.sub:function", "module.sub:function"),
        ("sky:order=2,estimator=mode", ("sky", {"order": 2, "estimator": "mode"})),
        ("m:f:size=40,point=after_cal", ("m:f", {"size": 40, "point": "after_cal"})),
        ("sky:only=NRCA3,NRCA4,sigma=3", ("sky", {"only": ["NRCA3", "NRCA4"], "sigma": 3})),
        (
            "wisp:templates.NRCA3=a.fits,templates.NRCA3/F200W=b.fits",
            ("wisp", {"templates": {"NRCA3": "a.fits", "NRCA3/F200W": "b.fits"}}),
        ),
        ("m:f:address=http://a/b?c=d", ("m:f", {"address": "http://a/b?c=d"})),
    ],
)
def test_a_correction_and_its_parameters(text, expected):
    assert correction(text) == expected


@pytest.mark.parametrize(
    "text",
    ["sky:=2", "order=2", "sky:2,order=2", ":a=1", "sky:a=1,a=2", "sky:a=1,a.b=2", "sky:a.b=1,a=2"],
)
def test_what_is_no_correction(text):
    with pytest.raises(argparse.ArgumentTypeError):
        correction(text)


def test_an_unknown_file_and_a_wrong_level(run, uncals):
    answer = run("jwst", "plan", "nothing_uncal.fits")
    assert (answer.code, answer.out) == (2, "")
    assert "nothing_uncal.fits" in answer.err
    assert run("jwst", "plan", uncals, "--stages", "4").code == 2
    assert run("jwst", "plan", uncals, "--stages", "one").code == 2
    assert run("jwst", "plan", uncals, "--preset", "best").code == 2
    assert run("jwst").code == 2


def test_a_plan_of_headers_is_printed_and_summed_up(run, uncals):
    answer = run("jwst", "plan", uncals, "-d", "out", "--save", "plan.toml")
    assert answer.code == 0
    assert len(answer.out.splitlines()) == 2 + 5
    assert "5 tasks: 5 missing; about " in answer.err
    saved = run("jwst", "plan", "plan.toml")
    assert (saved.code, saved.out) == (0, answer.out)


def test_options_that_a_saved_plan_would_leave_unheeded_are_refused(run, uncals):
    assert run("jwst", "plan", uncals, "--save", "plan.toml").code == 0
    options = ("--steps", "jump.rejection_threshold=7", "--stages", "1")
    answer = run("jwst", "run", "plan.toml", *options)
    assert answer.code == 2
    assert "--stages, --steps: the saved plan plan.toml has its own" in answer.err
    answer = run("jwst", "run", "plan.toml", uncals)
    assert answer.code == 2
    assert "plan.toml: a saved plan stands alone" in answer.err


def test_corrections_of_the_command_are_in_the_plan(run, uncals, tmp_path):
    fits.writeto(tmp_path / "wisp.fits", np.ones((16, 16)))
    words = ("--corrections", "wisp:templates=wisp.fits,minimum_snr=4", "--corrections", "flicker")
    code, document = run_plan(run, uncals, *words)
    assert code == 0
    names = [row["task"] for row in document["rows"]]
    assert [name.endswith("_wisp.fits") for name in names].count(True) == 2
    assert [name.endswith("_flicker.fits") for name in names].count(True) == 2
    answer = run("jwst", "plan", uncals, "--corrections", "wisp:templates=nowhere.fits")
    assert answer.code == 2
    assert "nowhere.fits" in answer.err
    answer = run("jwst", "plan", uncals, "--corrections", "wisp:template=wisp.fits")
    assert answer.code == 2
    assert "Did you mean 'templates'?" in answer.err


def run_plan(run, *words):
    answer = run("jwst", "plan", *words, "--json")
    return answer.code, json.loads(answer.out)


def test_explain_takes_a_part_of_a_name_that_is_unique(run, uncals):
    answer = run("jwst", "explain", "00001_nrcalong_rate", uncals, "-d", "out")
    assert answer.code == 0
    assert answer.out.startswith("stage1/jw01234001001_02101_00001_nrcalong_rate.fits: missing")
    answer = run("jwst", "explain", "nrcalong_rate", uncals, "-d", "out")
    assert answer.code == 2
    assert "is a part of 2 names" in answer.err
    answer = run("jwst", "explain", "00003", uncals, "-d", "out")
    assert answer.code == 2
    assert "made by no task" in answer.err


def test_references_that_cannot_be_had_are_another_thing_than_wrong_words(run, uncals, tmp_path):
    pytest.importorskip("jwst")
    words = (uncals, "-d", "out", "--offline", "--crds-path", tmp_path / "empty")
    answer = run("jwst", "refs", *words, "--json")
    document = json.loads(answer.out)
    assert (answer.code, document["exit_code"]) == (4, 4)
    assert document["error"]["type"] == "CrdsUnavailable"
    assert "missing" in document


@pytest.mark.parametrize("action", ["status", "report"])
def test_a_folder_in_which_nothing_was_run(run, tmp_path, action):
    answer = run("jwst", action, tmp_path)
    assert (answer.code, answer.out) == (2, "")
    assert "no plan was run there" in answer.err


# ---- the archive --------------------------------------------------------------------------------


def test_query_then_download_then_manifest(run, archive, held, tmp_path):
    answer = run("jwst", "query", "--program", "1234", "--public-only", "-o", "files.ecsv")
    assert (answer.code, answer.out) == (0, "")
    assert "2 rows in files.ecsv" in answer.err
    words = ("jwst", "download", "files.ecsv", "-d", "uncal", "--manifest", "manifest.ecsv")
    answer = run(*words)
    assert answer.code == 0, answer.err
    assert answer.err.count("2 complete") == 1
    manifest = Table.read(tmp_path / "manifest.ecsv")
    assert set(manifest["Status"]) == {"COMPLETE"}
    for row, source in zip(manifest, held[1:3], strict=True):
        with open(row["Local Path"], "rb") as file:
            assert file.read() == source.read_bytes()
    answer = run(*words, "--overwrite-manifest")
    assert answer.code == 0
    assert set(Table.read(tmp_path / "manifest.ecsv")["Status"]) == {"CACHED"}


def test_what_is_printed_of_a_query_is_narrow_and_json_is_whole(run, archive):
    words = ("query", "--program", "1234", "--detector", "NRCA2,NRCALONG")
    lines = run("jwst", *words).out.splitlines()
    assert lines[0].split()[:3] == ["file", "detector", "filter"]
    assert lines[0].split()[-3:] == ["date_obs", "size", "public"]
    assert [line.split()[0] for line in lines[-2:]] == [
        f"jw01234001001_02101_00001_{detector}_uncal.fits" for detector in DETECTORS[1:]
    ]
    answer = run("jwst", *words, "--json")
    document = json.loads(answer.out)
    assert (document["command"], document["n_rows"]) == ("jwst query", 2)
    assert document["rows"][0]["s_region"].startswith("POLYGON")


def test_a_query_by_position_and_by_date(run, archive):
    by_place = run("jwst", "query", *EAST, "--radius", "10arcsec", "--format", "csv")
    assert by_place.code == 0
    since = ("--program", "2345", "--start-date", "2023-04-01")
    by_date = run("jwst", "query", *since, "--format", "csv")
    assert by_place.out == by_date.out
    (row,) = Table.read(by_place.out.splitlines(), format="ascii.csv")
    assert row["file"] == "jw02345003001_02101_00001_nrcb1_uncal.fits"
    answer = run("jwst", "query", *EAST)
    assert answer.code == 2
    assert "--radius" in answer.err


def test_a_query_of_nothing_and_one_for_nothing(run, archive, scene):
    answer = run("jwst", "query", "--program", "1234", "--filters", "F356W", "--detector", "NRCB1")
    assert answer.code == 3
    asked = len(scene.requests)
    assert run("jwst", "query").code == 2
    assert run("jwst", "query", "--program", "MINE").code == 2
    assert len(scene.requests) == asked


def test_a_table_goes_through_a_pipe(run, archive):
    table = run("jwst", "query", "--program", "2345", "-o", "-").out
    answer = run("jwst", "download", "-", "-d", "uncal", stdin=table)
    assert answer.code == 0
    assert answer.out.startswith("COMPLETE  ")
    csv = run("jwst", "query", "--program", "2345", "--format", "csv").out
    answer = run("jwst", "download", "-", "-d", "uncal", "--input-format", "csv", stdin=csv)
    assert (answer.code, answer.out[:6]) == (0, "CACHED")


def test_a_file_that_is_not_public_makes_the_job_partial(run, archive, held, monkeypatch):
    assert run("jwst", "query", "--program", "1234", "-o", "files.ecsv").code == 0
    answer = run("jwst", "download", "files.ecsv", "-d", "uncal", "--json")
    assert (answer.code, json.loads(answer.out)["counts"]["COMPLETE"]) == (5, 2)
    monkeypatch.setenv("MAST_API_TOKEN", "a-token-of-the-sandbox")
    answer = run("jwst", "download", "files.ecsv", "-d", "uncal")
    assert answer.code == 0
    assert "a-token-of-the-sandbox" not in answer.out + answer.err


def test_a_dry_run_asks_for_no_file(run, archive):
    assert run("jwst", "query", "--program", "2345", "-o", "files.ecsv").code == 0
    answer = run("jwst", "download", "files.ecsv", "-d", "uncal", "--dry-run")
    assert answer.code == 0
    assert answer.out.count("jw02345003001_02101_00001_nrcb1_uncal.fits") == 1
    assert archive.asked == []


def test_a_table_that_is_not_of_the_query_is_refused(run, archive):
    answer = run("jwst", "download", "-", "-d", "uncal", stdin="ra,dec\n1,2\n")
    assert (answer.code, answer.out) == (2, "")
    assert run("jwst", "download", "nowhere.ecsv", "-d", "uncal").code == 2


# ---- beside the Legacy Surveys ------------------------------------------------------------------


def test_match_prints_pairs_and_tells_the_offset(run, mosaic):
    _, catalogue = mosaic
    lines = run("jwst", "match", catalogue).out.splitlines()
    assert max(map(len, lines)) < 120
    assert lines[0].split()[:5] == ["label", "jwst_ra", "jwst_dec", "d_ra", "d_dec"]
    answer = run("jwst", "match", catalogue, "-o", "pairs.ecsv")
    assert answer.code == 0, answer.err
    pairs = Table.read("pairs.ecsv")
    assert len(pairs) > 10
    assert f"{len(pairs)} pairs" in answer.err
    assert "JWST minus Legacy: dRA cos(Dec) +" in answer.err
    document = json.loads(run("jwst", "match", catalogue, "--json").out)
    assert document["offset"]["d_ra_mas"] == pytest.approx(20, abs=3)
    assert document["offset"]["d_dec_mas"] == pytest.approx(-10, abs=3)
    assert document["n_rows"] == len(pairs)


def test_match_of_nothing_and_of_no_file(run, mosaic, tmp_path):
    _, catalogue = mosaic
    table = QTable.read(catalogue)[:1]
    place = table["sky_centroid"].directional_offset_by(0 * u.deg, 10 * u.arcsec)
    table["sky_centroid"] = place
    table.write(tmp_path / "one_cat.ecsv")
    answer = run("jwst", "match", "one_cat.ecsv")
    assert answer.code == 3, answer
    assert "0 pairs, 1 sources of JWST" in answer.err
    assert run("jwst", "match", "nowhere_cat.ecsv").code == 2
    answer = run("jwst", "match", catalogue, "--radius", "0.3")
    assert answer.code == 2
    assert "with a unit" in answer.err


def test_reference_catalogue_of_a_mosaic(run, mosaic):
    image, _ = mosaic
    answer = run("jwst", "refcat", image, "-o", "reference.ecsv")
    assert answer.code == 0, answer.err
    table = Table.read("reference.ecsv")
    assert {"RA", "DEC"} <= set(table.colnames)
    assert len(table) > 5
    again = run("jwst", "refcat", image, "-o", "reference.ecsv")
    assert again.code == 2
    assert "--overwrite" in again.err


def test_page_of_a_field(run, mosaic, tmp_path):
    image, _ = mosaic
    answer = run("jwst", "page", image, "--title", "A field", "--bands", "grz")
    assert (answer.code, answer.out) == (0, "field_i2d.html\n")
    text = (tmp_path / "field_i2d.html").read_text(encoding="utf-8")
    assert "A field" in text
    again = run("jwst", "page", image)
    assert again.code == 2
    assert "field_i2d.html exists; --overwrite replaces it" in again.err
    assert run("jwst", "page", image, "-o", "nowhere/page.html").code == 2
    answer = run("jwst", "page", "nowhere_i2d.fits", "--json", "-o", "x.html")
    assert answer.code == 2
    assert json.loads(answer.out)["error"]["type"] == "InvalidRequestError"
