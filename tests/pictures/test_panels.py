"""Panels of several bands or surveys for each target, and every kind of file on a sheet."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from astroquery_lis import conf, pictures
from astroquery_lis.exceptions import InvalidRequestError, NoCoverageError
from astroquery_lis.pictures.sheet import GAP_PIX, LABEL_PIX

SIZE = 32
NAMES = ("star", "field")


@pytest.fixture
def cutouts(survey, sky):
    return [survey.get_cutout(sky.positions[name], SIZE, bands="grz") for name in NAMES]


def _square(sheet, row, column, *, top=0, high=SIZE):
    y = top + GAP_PIX + row * (high + GAP_PIX)
    x = GAP_PIX + column * (SIZE + GAP_PIX)
    return sheet[y : y + SIZE, x : x + SIZE]


def test_panels_of_bands_stand_side_by_side(cutouts):
    panels = ["g", "z", ["g", "r", "z"]]
    sheet = pictures.contact_sheet(cutouts, size=SIZE, columns=1, panels=panels, labels=False)
    assert sheet.shape == (2 * (SIZE + GAP_PIX) + GAP_PIX, 3 * (SIZE + GAP_PIX) + GAP_PIX, 3)
    for row, hdul in enumerate(cutouts):
        for column, bands in enumerate(panels):
            expected = pictures.rgb(hdul, bands=bands)
            assert np.array_equal(_square(sheet, row, column), expected), (row, bands)
    two = pictures.contact_sheet(cutouts, size=SIZE, panels=panels, labels=False)
    assert two.shape[1] == 2 * 3 * (SIZE + GAP_PIX) + GAP_PIX


def test_surveys_stand_side_by_side(cutouts, survey, sky, tmp_path):
    with conf.set_temp("viewer_url", sky.viewer_url):
        south = [
            survey.get_cutout(sky.positions[name], SIZE, layer="ls-dr10-south", bands="g")
            for name in NAMES
        ]
    surveys = {"DR10": cutouts, "south": [NoCoverageError("nothing there"), south[1]]}
    sheet = pictures.contact_sheet(surveys, size=SIZE, columns=1, labels=False)
    assert np.array_equal(_square(sheet, 0, 0), pictures.rgb(cutouts[0]))
    assert np.array_equal(_square(sheet, 1, 1), pictures.rgb(south[1]))
    crossed = _square(sheet, 0, 1)
    assert len(np.unique(crossed.reshape(-1, 3), axis=0)) == 2
    text = pictures.gallery(surveys, tmp_path / "page.html", size=SIZE).read_text()
    assert "DR10 | south" in text
    assert "south: nothing there" in text
    assert text.count('src="data:image') == 2


def test_bands_of_surveys_are_named_above(cutouts):
    pytest.importorskip("PIL")
    surveys = {"one": cutouts, "other": cutouts}
    sheet = pictures.contact_sheet(surveys, size=SIZE, panels=["g", "grz"], columns=1)
    high = SIZE + LABEL_PIX
    assert sheet.shape == (
        LABEL_PIX + 2 * (high + GAP_PIX) + GAP_PIX,
        4 * (SIZE + GAP_PIX) + GAP_PIX,
        3,
    )
    for column, bands in enumerate(["g", "grz", "g", "grz"]):
        shown = _square(sheet, 1, column, top=LABEL_PIX, high=high)
        assert np.array_equal(shown, pictures.rgb(cutouts[1], bands=bands))
        assert _square(sheet, 0, column)[:LABEL_PIX].max() > 150


def test_a_band_that_one_cutout_lacks_is_crossed_out(cutouts, survey, sky, tmp_path):
    lacking = survey.get_cutout(sky.positions["star"], SIZE, bands="g")
    options = {"size": SIZE, "panels": ["g", "r"]}
    sheet = pictures.contact_sheet([lacking], labels=False, **options)
    assert np.array_equal(_square(sheet, 0, 0), pictures.rgb(lacking))
    assert len(np.unique(_square(sheet, 0, 1).reshape(-1, 3), axis=0)) == 2
    text = pictures.gallery([lacking], tmp_path / "page.html", **options).read_text()
    assert "the cutout has image in g" in text


def test_wrong_panels_are_refused(cutouts):
    for panels, words in (("grz", "must be a list of bands"), (["g"], "leave bands= out")):
        with pytest.raises(InvalidRequestError, match=words):
            pictures.contact_sheet(cutouts, panels=panels, bands="g", labels=False)
    with pytest.raises(InvalidRequestError, match="one row has several targets: 0, 1"):
        pictures.contact_sheet({"a": [(0, cutouts[0])], "b": [(1, cutouts[1])]}, labels=False)
    with pytest.raises(InvalidRequestError, match="1, none"):
        pictures.contact_sheet({"a": cutouts, "b": cutouts[:1]}, labels=False)
    with pytest.raises(InvalidRequestError, match="has no survey"):
        pictures.contact_sheet({}, labels=False)


@pytest.mark.parametrize("output", ["hdf5", "zarr", "png", "fits"])
def test_a_part_of_a_manifest_shows_its_own_targets(survey, sky, tmp_path, cutouts, output):
    for module in {"hdf5": ["h5py"], "zarr": ["zarr", "pyarrow"], "png": ["PIL"]}.get(output, []):
        pytest.importorskip(module)
    targets = SkyCoord([sky.positions[name] for name in NAMES])
    folder = tmp_path / "cutouts"
    manifest = survey.download_cutouts(
        targets, SIZE, bands="grz", download_dir=folder, output=output, show_progress=False
    )
    sheet = pictures.contact_sheet(manifest[::-1], size=SIZE, columns=2, labels=False)
    for column, hdul in enumerate(cutouts[::-1]):
        assert np.array_equal(_square(sheet, 0, column), pictures.rgb(hdul))
    paths = [str(path) for path in manifest["Local Path"]]
    if output == "fits":
        assert np.array_equal(
            pictures.contact_sheet(paths[::-1], size=SIZE, columns=2, labels=False), sheet
        )
