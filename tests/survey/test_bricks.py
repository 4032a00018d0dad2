"""The brick grid against desiutil, the survey's own code for it."""

import numpy as np
import pytest
from desiutil.brick import Bricks
from hypothesis import given
from hypothesis import strategies as st

from astroquery_lis import bricks
from astroquery_lis.exceptions import InvalidRequestError

ALL_IDS = np.arange(1, bricks.N_BRICKS + 1)


@pytest.fixture(scope="module")
def desi():
    return Bricks(0.25)


@pytest.fixture(scope="module")
def table(desi):
    return desi.to_table()


def test_every_name_id_and_quadrant_equals_desiutil(table):
    assert np.array_equal(bricks.name_of(ALL_IDS), np.asarray(table["BRICKNAME"]))
    assert np.array_equal(table["BRICKID"], ALL_IDS)
    assert np.array_equal(bricks.brick_quadrant(ALL_IDS), table["BRICKQ"])
    row, column = bricks.brick_row_column(ALL_IDS)
    assert np.array_equal(row, table["BRICKROW"])
    assert np.array_equal(column, table["BRICKCOL"])


def test_every_edge_and_centre_equals_desiutil(table):
    names = ("RA1", "RA2", "DEC1", "DEC2")
    for name, value in zip(names, bricks.brick_edges(ALL_IDS), strict=True):
        assert np.array_equal(table[name], value), name
    for name, value in zip(("RA", "DEC"), bricks.brick_center(ALL_IDS), strict=True):
        assert np.array_equal(table[name], value), name


def test_random_positions_equal_desiutil(desi):
    rng = np.random.default_rng(1)
    ra = rng.uniform(-400, 760, 200_000)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, ra.size)))
    assert np.array_equal(bricks.brick_id(ra, dec), desi.brickid(ra, dec))


def test_positions_on_edges_equal_desiutil(desi):
    ra1, _, dec1, dec2 = bricks.brick_edges(ALL_IDS)
    middle = 0.5 * (dec1 + dec2)
    assert np.array_equal(bricks.brick_id(ra1, middle), desi.brickid(ra1, middle))
    assert np.array_equal(bricks.brick_id(ra1, dec1), desi.brickid(ra1, dec1))


@pytest.mark.parametrize(
    ("ra", "dec", "name", "number"),
    [
        (0, 0, "0001p000", 330368),
        (359.9999999, 0, "3598p000", 331807),
        (360, 0, "0001p000", 330368),
        (-0.0001, 0, "3598p000", 331807),
        (0.125, 0.125, "0001p002", 331808),
        (12.3, 90, "1800p900", 662174),
        (12.3, -90, "1800m900", 1),
        (0, 89.8749999, "0180p897", 662164),
        (0, -89.875, "0180m897", 2),
        (190.1086, 1.2005, "1901p012", 338328),
        (194.3549, -17.6163, "1942m175", 231808),
        (180, 32.375, "1801p325", 508643),
        (180, 32.3749999, "1801p322", 507424),
        (10.8, -58.75, "0108m587", 48016),
    ],
)
def test_known_bricks(ra, dec, name, number):
    assert bricks.brick_name(ra, dec) == name
    assert bricks.brick_id(ra, dec) == number
    assert bricks.parse_brick_name(name) == number


def test_every_name_is_parsed_back():
    sample = np.random.default_rng(2).choice(ALL_IDS, 4000, replace=False)
    sample = np.concatenate([sample, ALL_IDS[:300], ALL_IDS[-300:]])
    parsed = [bricks.parse_brick_name(name) for name in bricks.name_of(sample)]
    assert np.array_equal(parsed, sample)


@pytest.mark.parametrize("name", ["", "1901p01", "1901x012", "9999p012", "1901p999", "٠٠٠١p000", 5])
def test_a_name_that_no_brick_has_is_refused(name):
    with pytest.raises(InvalidRequestError, match="brick="):
        bricks.parse_brick_name(name)


@pytest.mark.parametrize(
    ("ra", "dec", "parameter"),
    [
        (np.nan, 0, "ra_deg"),
        (np.inf, 0, "ra_deg"),
        (0, np.nan, "dec_deg"),
        (0, 90.0001, "dec_deg"),
        ([1, 2], [0, -91], "dec_deg"),
        ("ten", 0, "ra_deg"),
        (None, 0, "ra_deg"),
    ],
)
def test_what_is_not_on_the_sky_is_refused_by_name(ra, dec, parameter):
    with pytest.raises(InvalidRequestError, match=parameter) as caught:
        bricks.brick_id(ra, dec)
    assert caught.value.parameter == parameter


@pytest.mark.parametrize("number", [0, -1, bricks.N_BRICKS + 1, 1.5])
def test_an_id_that_no_brick_has_is_refused(number):
    with pytest.raises(InvalidRequestError, match="brick id"):
        bricks.brick_edges(number)


def test_any_shape_is_kept():
    ra, dec = np.meshgrid(np.linspace(0, 350, 7), np.linspace(-80, 80, 5))
    assert bricks.brick_id(ra, dec).shape == (5, 7)
    assert bricks.brick_name(ra, dec).shape == (5, 7)
    assert bricks.brick_name(ra, 10.0)[3, 2] == bricks.brick_name(ra[3, 2], 10.0)


@given(st.floats(-720, 720), st.floats(-90, 90))
def test_a_brick_owns_what_lies_between_its_edges(ra, dec):
    ra1, ra2, dec1, dec2 = (float(v) for v in bricks.brick_edges(bricks.brick_id(ra, dec)))
    tolerance = 1e-11
    assert ra1 - tolerance <= ra % 360 % 360 <= ra2 + tolerance
    assert dec1 - tolerance <= dec <= dec2 + tolerance


def test_wcs_is_that_of_a_released_header():
    wcs = bricks.brick_wcs("0959p805")
    assert wcs.array_shape == (3600, 3600)
    assert wcs.wcs.crpix.tolist() == [1800.5, 1800.5]
    assert wcs.wcs.crval == pytest.approx([95.95041322314049, 80.5], abs=1e-12)
    assert wcs.wcs.cd[1, 1] == pytest.approx(0.262 / 3600, rel=1e-12)


@pytest.mark.parametrize(
    ("ra", "dec", "release", "region"),
    [
        (180.0, 32.375, "dr10", "north"),
        (180.0, 32.3749, "dr10", "south"),
        (10.0, 40.0, "dr9", "south"),  # galactic latitude -23
        (10.0, 40.0, "dr6", "north"),
        (180.0, 60.0, "dr7", "south"),
    ],
)
def test_region(ra, dec, release, region):
    assert bricks.region_of_brick(bricks.brick_id(ra, dec), release) == region


def test_north_agrees_with_astropy_galactic_latitude():
    from astropy.coordinates import SkyCoord

    rng = np.random.default_rng(3)
    position = SkyCoord(rng.uniform(0, 360, 20_000), rng.uniform(-90, 90, 20_000), unit="deg")
    expected = (position.galactic.b.deg > 0) & (position.dec.deg >= 32.375)
    assert np.array_equal(bricks.is_north(position.ra.deg, position.dec.deg), expected)


def test_get_brick_by_name_and_id_agree():
    assert bricks.get_brick("0451p000") == bricks.get_brick(bricks.parse_brick_name("0451p000"))
    assert bricks.get_brick("0451p000").ra2_deg == 45.25
