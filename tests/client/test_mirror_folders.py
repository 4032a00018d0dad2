"""Folders that hold a part of the survey: what they lack is never told as what the sky lacks."""

import shutil

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table

from astroquery_lis import LegacySurveyClass
from astroquery_lis.exceptions import (
    CoverageWarning,
    IncompleteMirrorError,
    MissingDataError,
    NoCoverageError,
)
from astroquery_lis.survey.paths import file_path

NEIGHBOUR = "0453p002"
TABLES = [
    file_path("region-bricks", "dr10", "south"),
    file_path("region-bricks", "dr10", "north"),
]


@pytest.fixture
def part(sky, tmp_path):
    """A folder with the coadds in r and the catalogue of one brick, without a table of bricks."""
    coadd = file_path("image", "dr10", "south", brick=NEIGHBOUR, band="r")
    for path in (coadd, file_path("tractor", "dr10", "south", brick=NEIGHBOUR)):
        target = tmp_path / "part" / path
        target.parent.mkdir(parents=True)
        shutil.copy(sky.root / path, target)
    return tmp_path / "part"


@pytest.fixture
def part_with_table(sky, part):
    """The same folder with the survey's tables of bricks."""
    for path in TABLES:
        (part / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sky.root / path, part / path)
    return part


def _targets(place):
    return Table({"ra": [place.ra.deg], "dec": [place.dec.deg]})


CALLS = {
    "get_cutout": lambda s, p: s.get_cutout(p, 16, bands="r"),
    "get_cutout_warn": lambda s, p: s.get_cutout(p, 16, bands="r", on_missing="warn"),
    "get_psf": lambda s, p: s.get_psf(p, bands="r", source="bricks"),
    "query_tractor": lambda s, p: s.query_tractor(p, radius=5 * u.arcsec),
    "crossmatch": lambda s, p: s.crossmatch(_targets(p), radius=1 * u.arcsec, columns=["flux_r"]),
    "query_exposures": lambda s, p: s.query_exposures(p),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("folder", ["part", "part_with_table"])
def test_a_folder_that_lacks_a_brick_says_so(sky, request, folder, call):
    survey = LegacySurveyClass()
    survey.mirror = request.getfixturevalue(folder)
    reason = "holds a part of the survey" if folder == "part_with_table" else "table of the bricks"
    with pytest.raises(IncompleteMirrorError, match=f"{survey.mirror} lacks .*{reason}"):
        call(survey, sky.positions["star"])


@pytest.mark.parametrize("folder", ["part", "part_with_table"])
def test_batches_and_files_call_it_an_error(sky, request, folder, tmp_path):
    survey = LegacySurveyClass()
    survey.mirror = request.getfixturevalue(folder)
    star = sky.positions["star"]
    batch = survey.download_cutouts(
        _targets(star), 16, bands="r", download_dir=tmp_path / "out", show_progress=False
    )
    assert list(batch["Status"]) == ["ERROR"]
    assert batch["Message"][0].startswith("IncompleteMirrorError")
    for products in ("image", "tractor"):
        with pytest.warns(Warning, match="could not be had"):
            files = survey.get_brick_files(star, products=products, bands="r", show_progress=False)
        assert list(files["Status"]) == ["ERROR"]
        assert "lacks dr10/south/" in files["Message"][0]


@pytest.mark.parametrize(
    "call",
    [
        lambda s, p: s.covers(p),
        lambda s, p: s.query_bricks(p, radius="1 arcmin"),
        lambda s, p: s.get_moc(),
    ],
)
def test_without_the_table_nothing_is_said_of_the_footprint(sky, part, call):
    pytest.importorskip("mocpy")
    survey = LegacySurveyClass()
    survey.mirror = part
    with pytest.raises(IncompleteMirrorError, match="lacks dr.*survey-bricks"):
        call(survey, sky.positions["star"])


def test_a_folder_gives_what_it_has_and_tells_what_the_survey_lacks(sky, part_with_table, tmp_path):
    survey = LegacySurveyClass()
    survey.mirror = part_with_table
    corner, off = sky.positions["corner"], sky.positions["off"]
    inside = corner.directional_offset_by(45 * u.deg, 1 * u.arcmin)
    assert survey.get_cutout(inside, 16, bands="r")[1].shape == (16, 16)
    # Its table tells that the brick has g too, and the survey's invvar.
    for options in ({"bands": "g"}, {"bands": "r", "products": ("image", "invvar")}):
        with pytest.raises(IncompleteMirrorError, match="lacks .* of brick 0453p002"):
            survey.get_cutout(inside, 16, **options)
    with pytest.raises(NoCoverageError, match="has no data"):
        survey.get_cutout(off, 16, bands="r")
    batch = survey.download_cutouts(
        _targets(off), 16, bands="r", download_dir=tmp_path / "out", show_progress=False
    )
    assert list(batch["Status"]) == ["NODATA"]
    with pytest.warns(CoverageWarning):
        assert len(survey.query_tractor(off, radius=5 * u.arcsec)) == 0
    with pytest.warns(CoverageWarning, match="survey has none"):
        files = survey.get_brick_files(off, products="image", bands="r", show_progress=False)
    assert list(files["Status"]) == ["NODATA"]


@pytest.mark.parametrize("has_g", [True, False])
def test_a_brick_of_which_less_than_half_was_observed_has_the_band(sky, part_with_table, has_g):
    # In the survey's tables nexp_g is a median: 0 there, beside a seeing and a depth.
    path = part_with_table / TABLES[0]
    table = Table.read(path)
    row = np.flatnonzero(np.char.strip(np.asarray(table["brickname"]).astype(str)) == NEIGHBOUR)
    for name in ("nexp_g", *(() if has_g else ("psfsize_g", "psfdepth_g", "galdepth_g"))):
        assert table[name][row] > 0
        table[name][row] = 0
    table.write(path, overwrite=True)
    survey = LegacySurveyClass()
    survey.mirror = part_with_table
    inside = sky.positions["corner"].directional_offset_by(45 * u.deg, 1 * u.arcmin)
    assert survey.covers(inside, bands="r")
    assert survey.covers(inside, bands="g") is has_g
    error = IncompleteMirrorError if has_g else MissingDataError
    with pytest.raises(error, match="g of brick 0453p002" if has_g else "its bands are r"):
        survey.get_cutout(inside, 16, bands="g")


def test_a_border_beyond_the_folder_is_an_error_too(sky, part_with_table):
    survey = LegacySurveyClass()
    survey.mirror = part_with_table
    with pytest.raises(IncompleteMirrorError, match="holds a part"):
        survey.get_cutout(sky.positions["corner"], 700, bands="r", on_missing="warn")
    with pytest.raises(IncompleteMirrorError, match="holds a part"):
        survey.query_tractor(sky.positions["corner"], radius=30 * u.arcsec)


def test_a_mirror_after_the_folder_answers(sky, part):
    survey = LegacySurveyClass()
    survey.mirror = [str(part), sky.mirror_url]
    assert survey.get_cutout(sky.positions["star"], 16, bands="r")[1].shape == (16, 16)
    with pytest.raises(NoCoverageError) as caught:
        survey.get_cutout(sky.positions["off"], 16, bands="r")
    assert not isinstance(caught.value, MissingDataError)
