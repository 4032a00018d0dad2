import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from astroquery_lis import bricks
from astroquery_lis.sandbox import sky


@pytest.fixture(scope="module")
def truth():
    return sky.truth()


@pytest.fixture(scope="module")
def places(truth):
    return SkyCoord(truth["ra"], truth["dec"])


def sources_within(places, position, radius_arcsec):
    return np.flatnonzero(places.separation(position) < radius_arcsec * u.arcsec)


def test_truth_is_the_same_every_time_and_a_copy(truth):
    sky._truth.cache_clear()
    again = sky.truth()
    assert all((again[name] == truth[name]).all() for name in truth.colnames)
    again["ra"] += 1
    assert (sky.truth()["ra"] == truth["ra"]).all()


def test_truth_has_units_types_and_every_kind_of_source(truth):
    assert truth["ra"].unit == u.deg
    assert truth["shape_r"].unit == u.arcsec
    assert all(truth[f"flux_{b}"].unit == u.nmgy for b in ("g", "r", "i", "z", "w1", "w4"))
    assert set(truth["type"]) == {"PSF", "REX", "EXP", "DEV", "SER"}
    assert 300 < len(truth) < 1000
    stars = truth["type"] == "PSF"
    assert (truth["shape_r"][stars] == 0).all()
    assert (truth["shape_r"][~stars] > 0).all()
    assert (np.hypot(truth["shape_e1"], truth["shape_e2"]) < 1).all()
    assert (truth["id"] == np.arange(len(truth))).all()


@pytest.mark.parametrize("name", ["star", "corner", "ra0", "split"])
def test_isolated_stars_are_alone_and_exactly_in_place(truth, places, name):
    position = sky.positions()[name]
    (row,) = sources_within(places, position, 15)
    assert (truth["ra"][row], truth["dec"][row]) == sky.POSITIONS_DEG[name]
    assert truth["type"][row] == "PSF"
    for band in "griz":
        assert 45 < truth[f"flux_{band}"][row] < 115


def test_corner_is_where_four_bricks_meet():
    ra, dec = sky.POSITIONS_DEG["corner"]
    names = {bricks.brick_name(ra + x, dec + y) for x in (-1e-9, 1e-9) for y in (-1e-9, 1e-9)}
    assert names == {"0451p000", "0453p000", "0451p002", "0453p002"}


def test_split_and_ra0_are_on_the_edges():
    assert sky.POSITIONS_DEG["split"][1] == bricks.SPLIT_DEC_DEG
    assert sky.POSITIONS_DEG["ra0"][0] == 0.0


def test_clump_is_dense_but_resolved_and_alone(truth, places):
    position = sky.positions()["clump"]
    rows = sources_within(places, position, 6)
    assert len(rows) == 12
    assert len(sources_within(places, position, 1.75)) >= 5
    assert len(sources_within(places, position, 20)) == 12
    magnitude = 22.5 - 2.5 * np.log10(truth["flux_r"][rows].value)
    assert magnitude.min() >= 18.99
    assert magnitude.max() <= 22.01
    apart = places[rows][:, None].separation(places[rows]).arcsec
    assert apart[~np.eye(12, dtype=bool)].min() >= 0.6


def test_places_that_others_rely_on(truth, places):
    galaxy = np.flatnonzero((truth["ra"] == 45.154897) & (truth["dec"] == -0.004743))
    point = np.flatnonzero((truth["ra"] == 45.112743) & (truth["dec"] == -0.063151))
    assert list(truth["type"][galaxy]) == ["EXP"]
    assert list(truth["type"][point]) == ["PSF"]
    assert truth["flux_r"][point[0]] == pytest.approx(30, rel=0.05)
    assert not len(sources_within(places, SkyCoord(45.2, 0.1, unit="deg"), 10))
    assert not len(sources_within(places, sky.positions()["blank"], 25))
    assert not len(sources_within(places, sky.positions()["hole"], 50))
    assert len(sources_within(places, sky.positions()["field"], 45)) > 40


def test_off_is_in_no_brick_of_the_scene():
    names = {name for names in sky.BRICKS.values() for name in names}
    assert bricks.brick_name(*sky.POSITIONS_DEG["off"]) not in names


def test_every_source_is_in_an_observed_part_of_a_brick(truth):
    for row in truth:
        brick = bricks.brick_name(row["ra"], row["dec"])
        grid = bricks.brick_grid(bricks.parse_brick_name(brick))
        x, y = grid.to_pixel(row["ra"], row["dec"])
        windows = sky.windows_of(brick)
        assert any(w.x0 <= x < w.x1 and w.y0 <= y < w.y1 for w in windows), row


@pytest.mark.parametrize("brick", sorted({b for names in sky.BRICKS.values() for b in names}))
def test_windows_do_not_overlap(brick):
    count = np.zeros((3600, 3600), np.uint8)
    for window in sky.windows_of(brick):
        count[window.slices] += 1
    assert count.max() == 1


def test_exposures_are_one_or_two_but_for_the_hole():
    ra, dec = np.meshgrid(np.linspace(45, 45.25, 300), np.linspace(-0.125, 0.125, 300))
    for band in "griz":
        nexp = sky.exposures(ra, dec, band)
        gap_ra, gap_dec = sky.POSITIONS_DEG["gap"]
        in_gap = (np.abs(ra - gap_ra) < 12 / 3600) & (np.abs(dec - gap_dec) < 12 / 3600)
        unexposed = sky.in_hole(ra, dec) | (in_gap & (band == "z"))
        assert set(np.unique(nexp[~unexposed])) == {1, 2}
        assert set(np.unique(nexp[sky.in_hole(ra, dec)])) == {0}
