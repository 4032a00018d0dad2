"""The page of a field: pictures, marks, plots, and that it needs nothing else."""

import re
import sys
from xml.etree import ElementTree as ET

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.jwst_stage.legacy.field_page import (
    _block_mean,
    jwst_picture,
    offset_figure,
    scatter_plot,
)
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
    jwst, legacy = svgs(text)
    number = len(match.matches)
    assert number > 10
    assert len(of_class(jwst, "match")) == len(of_class(legacy, "match")) == number
    assert len(of_class(jwst, "jwst-only")) == len(match.jwst_only)
    assert len(of_class(legacy, "legacy-only")) == len(match.legacy_only)
    for one, other in zip(of_class(jwst, "match"), of_class(legacy, "match"), strict=True):
        assert one.get("data-pair") == other.get("data-pair")
        for axis in ("cx", "cy"):
            assert float(one.get(axis)) == pytest.approx(float(other.get(axis)), abs=0.6)
    # Two pictures and two plots.
    assert text.count('src="data:image/') == 4
    assert text.count('src="data:image/png') >= 2
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
    assert text.count('src="data:image/') == 3
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


def test_without_matplotlib_the_page_says_so(survey, mosaics, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = STAGE.field_page(mosaics[0], tmp_path / "p.html", survey=survey).read_text()
    assert text.count("This plot needs matplotlib: python -m pip install") == 2
    assert text.count('src="data:image/') == 2


def test_points_of_a_plot_are_at_their_values():
    x, y = np.array([0.0, 10.0, np.nan, 5.0]), np.array([0.0, 20.0, 3.0, 10.0])
    is_star = np.array([True, False, True, True])
    plot = scatter_plot((x, y), is_star, names=("x & y", "y"))
    (axes,) = plot.axes
    galaxies, stars = axes.lines
    assert galaxies.get_xydata().tolist() == [[10, 20]]
    assert stars.get_xydata().tolist() == [[0, 0], [5, 10]]
    assert axes.get_xlim()[0] < 0
    assert axes.get_xlim()[1] > 10
    assert axes.get_xlabel() == "x & y"


def test_offsets_are_on_axes_of_one_scale_about_the_common_one():
    x, y = np.array([1.0, 3.0, 5.0]), np.array([-1.0, 0.0, 1.0])
    plot = scatter_plot((x, y), np.zeros(3, bool), names=("x", "y"), offset=(3.0, 0.0))
    (axes,) = plot.axes
    plot.draw_without_rendering()
    assert axes.get_aspect() == 1
    assert np.mean(axes.get_xlim()) == pytest.approx(3)
    assert np.mean(axes.get_ylim()) == pytest.approx(0)
    assert [line.get_linestyle() for line in axes.lines[2:]] == ["--", "--"]


def test_a_plot_without_points_has_its_axes(survey, mosaics):
    match = STAGE.match_catalogs(mosaics[0], survey=survey, radius=1e-9 * u.arcsec)
    assert not len(match.matches)
    assert "<figure>" in offset_figure(match)
