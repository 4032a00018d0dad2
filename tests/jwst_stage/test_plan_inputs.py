"""The files that a plan begins from, and at which level."""

import itertools
from dataclasses import dataclass

import pytest
from astropy.table import Table

from astroquery_lis.exceptions import (
    InvalidExposureError,
    InvalidRequestError,
    LegacySurveyWarning,
)

from .headers import write_exposure

ROOT = "jw01234001001_02101_{:05d}_nrcalong"


@pytest.mark.parametrize("text", ["not json", "{}", '{"products": [{"members": [{}]}]}'])
def test_a_json_file_that_is_no_association(dithers, plan_of, text):
    (dithers / "x_asn.json").write_text(text)
    with pytest.raises(InvalidExposureError, match="x_asn.json: is not an association"):
        plan_of()


def test_everything_that_is_wrong_is_told_at_once(dithers, plan_of):
    write_exposure(dithers, 5, drop=("FILTER",))
    write_exposure(dithers, 6, suffix="cal", named="rate")
    cut = write_exposure(dithers, 7)
    cut.write_bytes(cut.read_bytes()[:-5000])
    with pytest.raises(InvalidExposureError) as caught:
        plan_of()
    text = str(caught.value)
    assert text.startswith("3 files cannot be used:")
    assert "lacks FILTER" in text
    assert "its name says 'rate'" in text
    assert "cut off" in text


def test_one_exposure_in_two_places(dithers, plan_of):
    write_exposure(dithers / "copy", 1)
    with pytest.raises(InvalidExposureError, match=r"00001_nrcalong_uncal.fits: is given 2 times"):
        plan_of()
    path = dithers / f"{ROOT.format(1)}_uncal.fits"
    assert len(plan_of([path, str(path)]).exposures) == 1


def test_files_patterns_and_directories(dithers, plan_of, tmp_path):
    whole = plan_of(dithers)
    assert plan_of(str(dithers / "*_uncal.fits")) == whole
    assert plan_of(sorted(dithers.iterdir())) == whole
    assert plan_of([dithers / f"{ROOT.format(1)}_uncal.fits", dithers / "*0000[234]_*"]) == whole
    # Other products in a directory are no matter.
    write_exposure(dithers, 1, suffix="cal", named="i2d")
    assert plan_of(dithers) == whole


def test_products_below_the_output_directory_are_no_input(dithers, plan_of):
    write_exposure(dithers / "out" / "stage1", 1, suffix="rate")
    plan = plan_of(output_dir=dithers / "out", start="rate")
    assert {e.suffix for e in plan.exposures} == {"uncal"}


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("nothing", "holds no exposure"),
        ("*_x.fits", "no file matches"),
        ("x_uncal.fits", "no such file or directory"),
    ],
)
def test_no_files(tmp_path, plan_of, name, match):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InvalidExposureError, match=match):
        plan_of(tmp_path / name)
    with pytest.raises(InvalidExposureError, match="holds no exposure"):
        plan_of([])


def test_a_manifest(dithers, plan_of):
    paths = sorted(str(path) for path in dithers.iterdir())
    table = Table({"Local Path": paths, "Status": ["COMPLETE", "CACHED", "COMPLETE", "SKIPPED"]})
    assert plan_of(table) == plan_of(dithers)


def test_many_bad_files_are_told_by_what_is_wrong_with_them(dithers, plan_of):
    for number in range(5, 40):
        write_exposure(dithers, number, drop=("FILTER",))
    for number in range(40, 60):
        path = write_exposure(dithers, number)
        path.write_bytes(path.read_bytes()[: -5000 - number])
    with pytest.raises(InvalidExposureError) as caught:
        plan_of()
    lines = str(caught.value).splitlines()
    assert lines[0] == "55 files cannot be used:"
    assert len(lines) == 13
    assert lines[6] == "  and 30 more files for the same reason"
    assert lines[12] == "  and 15 more files for the same reason"
    assert all("lacks FILTER" in line for line in lines[1:6])


def test_a_thousand_bad_files_make_a_message_that_can_be_read(tmp_path, dithers, plan_of):
    (good, *_) = sorted(dithers.iterdir())
    whole = good.read_bytes()
    paths = [str(good)]
    for number in range(1000):
        name = f"jw01234001001_{10000 + number}_00001_nrcalong_uncal.fits"
        contents = (whole[: -5000 - number % 50], b"<html>%d" % number, None, whole)
        path = dithers / name
        if (content := contents[number % 4]) is whole:
            # The same exposure in two folders, each of which has a name of its own.
            for folder in ("a", "b"):
                path = tmp_path / folder / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
                paths.append(str(path))
            continue
        paths.append(str(path))
        if content is not None:
            path.write_bytes(content)
    with pytest.raises(InvalidExposureError) as caught:
        plan_of(paths)
    lines = str(caught.value).splitlines()
    assert lines[0] == "1000 files cannot be used:"
    assert len(lines) == 25
    assert lines.count("  and 245 more files for the same reason") == 4


def test_more_reasons_than_one_reads_are_counted(dithers, plan_of):
    keywords = ("NFRAMES", "GROUPGAP", "TFRAME", "TGROUP")
    drops = [c for n in (1, 2, 3) for c in itertools.combinations(keywords, n)]
    for number, drop in enumerate(drops, 100):
        write_exposure(dithers, number, drop=drop)
    with pytest.raises(InvalidExposureError) as caught:
        plan_of()
    lines = str(caught.value).splitlines()
    assert lines[0] == "14 files cannot be used:"
    assert len(lines) == 12
    assert lines[-1] == "  and 4 more files for other reasons"


def test_a_thousand_failed_rows_are_left_out_by_reason(dithers, plan_of):
    (good, *_) = sorted(map(str, dithers.iterdir()))
    names = [f"/data/jw01234001001_{10000 + i}_00001_nrcalong_uncal.fits" for i in range(1000)]
    reasons = ["HTTP 503: unavailable", "HTTP 403: {} is proprietary", "cut off after {} bytes"]
    messages = [
        reasons[i % 3].format((name, i)[i % 3 - 1]) for i, name in enumerate(names)
    ]  # fmt: skip
    table = Table(
        {
            "Local Path": [good, *names],
            "Status": ["COMPLETE"] + ["ERROR"] * 1000,
            "Message": ["", *messages],
        }
    )
    with pytest.warns(LegacySurveyWarning) as caught:
        plan = plan_of(table)
    assert [exposure.path for exposure in plan.exposures] == [good]
    text = str(caught[0].message)
    assert text == plan.notes[0]
    assert text.count(" more (ERROR: ") == 2
    assert "and 329 more (ERROR: HTTP 503: unavailable)" in text
    assert f"and 328 more (of {names[2]}: ERROR: cut off after 2 bytes)" in text
    assert len(text) < 1500


def test_rows_of_a_manifest_that_failed_are_left_out_and_said(dithers, plan_of):
    paths = sorted(str(path) for path in dithers.iterdir())[:2]
    table = Table(
        {
            "Local Path": [*paths, ""],
            "Status": ["COMPLETE", "ERROR", "ERROR"],
            "Message": ["", "TruncatedError: 5 of 9 bytes", "NotFoundError: 404"],
            "URL": ["", "", "mast:JWST/product/jw9_uncal.fits"],
        }
    )
    with pytest.warns(LegacySurveyWarning) as caught:
        plan = plan_of(table)
    assert plan.tasks == plan_of(paths[:1]).tasks
    for text in (str(caught[0].message), plan.notes[0]):
        assert f"{paths[1]} (ERROR: TruncatedError: 5 of 9 bytes)" in text
        assert "mast:JWST/product/jw9_uncal.fits (ERROR: NotFoundError: 404)" in text
    with pytest.raises(InvalidExposureError, match="the table holds no exposure.*NotFoundError"):
        plan_of(table[1:])
    with pytest.raises(InvalidRequestError, match="no column 'Local Path', but Status"):
        plan_of(table[["Status"]])


def test_start_levels(dithers, plan_of):
    write_exposure(dithers, 1, suffix="rate")
    write_exposure(dithers, 2, suffix="cal")
    by_start = {
        start: [e.suffix for e in plan_of(start=start).exposures]
        for start in ("uncal", "rate", "cal")
    }
    assert by_start == {
        "uncal": ["uncal", "uncal", "uncal", "uncal"],
        "rate": ["rate", "uncal", "uncal", "uncal"],
        "cal": ["rate", "cal", "uncal", "uncal"],
    }
    plan = plan_of(start="cal")
    assert plan.tasks[-1].inputs[1] == str(dithers / f"{ROOT.format(2)}_cal.fits")
    assert f"stage1/{ROOT.format(1)}_rate.fits" not in [task.name for task in plan.tasks]


def test_a_rate_file_alone_begins_at_stage_2(tmp_path, plan_of):
    write_exposure(tmp_path / "in", suffix="rate")
    assert [task.stage for task in plan_of().tasks] == [2, 3]


def test_the_wrong_one_of_rate_and_rateints(tmp_path, plan_of):
    cards = {"exp_type": "NRC_TSIMAGE", "TSOVISIT": True}
    write_exposure(tmp_path / "in", suffix="rate", ints=3, **cards)
    with pytest.raises(InvalidExposureError, match="goes on from the rateints file"):
        plan_of()
    write_exposure(tmp_path / "in", suffix="rateints", ints=3, **cards)
    assert [e.suffix for e in plan_of().exposures] == ["rateints"]


def test_start_auto_takes_rates_of_the_installed_version(dithers, plan_of):
    from importlib.metadata import version

    pytest.importorskip("jwst")
    write_exposure(dithers, 1, suffix="rate", CAL_VER=version("jwst"))
    write_exposure(dithers, 2, suffix="rate", CAL_VER="1.7.0")
    plan = plan_of(start="auto")
    assert [e.suffix for e in plan.exposures] == ["rate", "uncal", "uncal", "uncal"]
    assert "its reference files were not compared" in plan.notes[0]
    assert "made by jwst 1.7.0, not" in plan.notes[1]
    assert "there is no rate file" in plan.notes[2]


def test_start_auto_compares_reference_files(dithers, plan_of):
    from importlib.metadata import version

    pytest.importorskip("jwst")
    for number, dark in ((1, "crds://dark_0001.fits"), (2, "crds://dark_0002.fits")):
        cards = {"CAL_VER": version("jwst"), "R_DARK": dark, "R_FLAT": "crds://old.fits"}
        write_exposure(dithers, number, suffix="rate", **cards)

    @dataclass
    class Resolution:
        references: dict

    key = plan_of().tasks[0].configuration
    now = {"dark": {"name": "dark_0002.fits"}, "flat": {"name": "new.fits"}}
    plan = plan_of(start="auto", resolution=Resolution({key: now}))
    assert [e.suffix for e in plan.exposures][:2] == ["uncal", "rate"]
    assert "reference dark dark_0001.fits -> dark_0002.fits" in plan.notes[0]
    assert "with the reference files of now" in plan.notes[1]
