"""The page of a field: pictures, marks, plots, and that it needs nothing else."""

import re
from xml.etree import ElementTree as ET

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.jwst_stage.legacy.picture import _block_mean, jwst_picture
from astroquery_lis.jwst_stage.legacy.svg import Points, nice_ticks, scatter
from astroquery_lis.jwst_stage.legacy_methods import LegacyMethods

from .legacy_mosaic import grid, sources, write_mosaic

STAGE = LegacyMethods()
FIELD = 45.09, 0.062


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def mosaics(folder):
    wcs, rows = grid(*FIELD, (300, 360), 0.1), sources()
    return [
        write_mosaic(folder, name.lower(), wcs, rows, filter_name=name, seed=seed)[0]
        for seed, name in enumerate(("F356W", "F200W", "F444W"))
    ]


def svgs(text):
    return [ET.fromstring(found) for found in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


def of_class(svg, name):
    return [one for one in svg.iter() if one.get("class") == name]


def test_a_page_shows_both_sides_and_needs_nothing_else(survey, mosaics, tmp_path):
    path = STAGE.field_page(mosaics[0], tmp_path / "sub" / "page.html", survey=survey)
    text = path.read_text(encoding="utf-8")
    match = STAGE.match_catalogs(mosaics[0], survey=survey)
    assert [one.name for one in path.parent.iterdir()] == ["page.html"]
    jwst, legacy, offsets, colours = svgs(text)
    number = len(match.matches)
    assert number > 10
    assert len(of_class(jwst, "match")) == len(of_class(legacy, "match")) == number
    assert len(of_class(jwst, "jwst-only")) == len(match.jwst_only)
    assert len(of_class(legacy, "legacy-only")) == len(match.legacy_only)
    for one, other in zip(of_class(jwst, "match"), of_class(legacy, "match"), strict=True):
        assert one.get("data-pair") == other.get("data-pair")
        for axis in ("cx", "cy"):
            assert float(one.get(axis)) == pytest.approx(float(other.get(axis)), abs=0.6)
    stars = int(np.sum(match.matches["carried"]))
    assert len(of_class(offsets, "star")) <= stars
    assert len(of_class(offsets, "star")) + len(of_class(offsets, "galaxy")) >= 0.9 * number
    assert len(of_class(colours, "star")) + len(of_class(colours, "galaxy")) >= 0.9 * number
    assert text.count('src="data:image/') == 2
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert "http" not in text.replace("http-equiv", "")
    assert str(match.offset) in text
    assert "<h2>JWST F356W</h2>" in text
    assert "<h2>Legacy Survey dr10</h2>" in text
    assert text.count("<tr>") == number + 1


@pytest.mark.parametrize("angle", [0.0, 25.0, 80.0, 135.0, 200.0, 300.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_mark_is_on_its_source_however_the_mosaic_is_turned(tmp_path, angle, mirrored):
    wcs = grid(*FIELD, (90, 130), 0.1, angle)
    if mirrored:
        wcs.wcs.pc = np.array(wcs.wcs.pc) @ np.diag([-1, 1])
    path, _ = write_mosaic(tmp_path, "turned", wcs, sources()[:0])
    with fits.open(path, mode="update") as hdul:
        hdul["SCI"].data[:] = np.random.default_rng(1).normal(0, 1, (90, 130))
        hdul["SCI"].data[70, 20] = 1e4
    picture = jwst_picture(path)
    row, column = np.unravel_index(picture.image[..., 0].argmax(), picture.image.shape[:2])
    ra, dec = wcs.pixel_to_world_values([20], [70])
    x, y = picture.place(ra, dec)
    assert (x[0], y[0]) == pytest.approx((column + 0.5, row + 0.5), abs=1e-3)
    outside = wcs.pixel_to_world_values([200.0], [70.0])
    assert np.isnan(picture.place(*outside)).all()


def test_large_mosaics_are_averaged_and_gaps_do_not_count(tmp_path):
    wcs = grid(*FIELD, (101, 203), 0.1)
    path, _ = write_mosaic(tmp_path, "large", wcs, sources()[:0])
    picture = jwst_picture(path, size=60)
    assert picture.wcs.array_shape == picture.image.shape[:2] == (25, 50)
    # A block's middle is where the same pixels of the mosaic are.
    middle = wcs.pixel_to_world_values(41.5, 29.5)
    assert np.allclose(picture.wcs.pixel_to_world_values(10, 7), middle)
    with fits.open(path) as hdul:
        data = hdul["SCI"].data[:100, :200].astype(float)
    with np.errstate(invalid="ignore"):
        total = np.nansum(data.reshape(25, 4, 50, 4), axis=(1, 3))
        count = np.isfinite(data).reshape(25, 4, 50, 4).sum(axis=(1, 3))
        expected = total / np.where(count, count, np.nan)
    assert np.allclose(_block_mean(path, 4), expected, equal_nan=True, atol=1e-6)


def test_three_mosaics_make_colours_blue_to_red(survey, mosaics, tmp_path):
    picture = jwst_picture(mosaics)
    assert picture.filters == ["F200W", "F356W", "F444W"]
    assert picture.image.shape == (300, 360, 3)
    page = STAGE.field_page(mosaics, tmp_path / "three.html", survey=survey, title="A <field> & it")
    text = page.read_text()
    assert "<h2>JWST F200W, F356W, F444W</h2>" in text
    assert "<h1>A &lt;field&gt; &amp; it</h1>" in text
    # The catalogue is that of the first one named.
    assert "z − F356W" in text


def test_mosaics_on_different_grids_are_refused(mosaics, tmp_path):
    other, _ = write_mosaic(tmp_path, "other", grid(45.0901, 0.062, (300, 360), 0.1), sources())
    with pytest.raises(InvalidRequestError, match="common_grid=True"):
        jwst_picture([mosaics[0], other])


def test_a_match_made_before_is_taken_as_it_is(survey, sky, mosaics, tmp_path):
    match = STAGE.match_catalogs(mosaics[0], survey=survey, radius=0.1 * u.arcsec)
    sky.requests.clear()
    path = STAGE.field_page(mosaics[0], tmp_path / "p.html", match=match, survey=survey, bands="r")
    assert "0.1 arcsec about the common offset" in path.read_text()
    assert not [record for record in sky.requests if "tractor" in record.path]


def test_a_field_off_the_survey_has_the_other_side_only(survey, mosaics, tmp_path):
    match = STAGE.match_catalogs(mosaics[0], survey=survey)
    rows = sources()
    rows["ra"] += 50.0
    off, _ = write_mosaic(tmp_path, "off", grid(95.09, 0.062, (100, 100)), rows)
    text = STAGE.field_page(off, tmp_path / "p.html", match=match, survey=survey).read_text()
    assert text.count('src="data:image/') == 1
    assert "Legacy Survey dr10</h2>" not in text


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"match": 3}, "match_catalogs"),
        ({"size": 3}, "size=3"),
        ({"radius": 3}, "radius"),
    ],
)
def test_wrong_arguments(survey, mosaics, tmp_path, more, match):
    with pytest.raises(InvalidRequestError, match=match):
        STAGE.field_page(mosaics[0], tmp_path / "p.html", survey=survey, **more)
    with pytest.raises(InvalidRequestError, match="there is none"):
        STAGE.field_page([], tmp_path / "p.html", survey=survey)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("low", "high"), [(0.3, 9.8), (-0.001, 0.0013), (-3e4, 5e5), (1.97, 2.2), (-1, 1)]
)
def test_ticks_are_round_and_inside(low, high):
    ticks = nice_ticks(low, high)
    assert 3 <= len(ticks) <= 10
    assert low <= ticks[0]
    assert ticks[-1] <= high
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])
    assert "-0.0" not in map(str, ticks)


def test_points_of_a_plot_are_at_their_values():
    x, y = np.array([0.0, 10.0, np.nan, 5.0]), np.array([0.0, 20.0, 3.0, 10.0])
    titles = ["a<b", "c", "d", "e"]
    (svg,) = svgs(scatter([Points("star", x, y, titles)], label="l", x_label="x & y", y_label="y"))
    circles = of_class(svg, "star")
    assert [one[0].text for one in circles] == ["a<b", "c", "e"]
    places = np.array([[float(one.get("cx")), float(one.get("cy"))] for one in circles])
    # Halfway is halfway, up is up.
    assert np.allclose(places[2], places[:2].mean(axis=0), atol=0.11)
    assert places[1, 1] < places[0, 1]
    assert places[1, 0] > places[0, 0]


def test_a_plot_without_points_has_its_axes():
    empty = np.zeros(0)
    (svg,) = svgs(
        scatter([Points("star", empty, empty)], label="l", x_label="x", y_label="y", square=True)
    )
    assert of_class(svg, "frame")
    assert not of_class(svg, "star")
