"""Conditions, regions and the text of queries."""

import sqlite3

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord, SkyOffsetFrame
from hypothesis import given
from hypothesis import strategies as st

from astroquery_lis.catalogs.catalog_services import box_where, catalog_query
from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.survey.bricks import brick_id
from astroquery_lis.survey.catalog_request import as_conditions, catalog_request
from astroquery_lis.survey.sphere import Box, Circle, Polygon, separation_deg
from astroquery_lis.survey.tractor_columns import literal

CENTERS = [(45.2, 0.1), (0.01, -0.2), (359.99, 32.4), (123.4, 89.95), (10.0, -89.999), (77.0, 60.0)]


def _scatter(center, reach_deg, n=4000):
    rng = np.random.default_rng(8)
    places = SkyCoord(*center, unit="deg").directional_offset_by(
        rng.uniform(0, 360, n) * u.deg, reach_deg * np.sqrt(rng.uniform(0, 1, n)) * u.deg
    )
    return places.ra.deg, places.dec.deg, places


@pytest.mark.parametrize("center", CENTERS)
def test_circles_hold_what_astropy_says(center):
    for radius in (1 / 3600, 0.02, 0.5, 3.0):
        ra, dec, places = _scatter(center, 2 * radius)
        circle = Circle(*center, radius)
        expected = places.separation(SkyCoord(*center, unit="deg")).deg <= radius
        assert np.array_equal(circle.contains(ra, dec), expected)
        inside = np.zeros(len(ra), bool)
        for low, high, south, north in circle.boxes():
            inside |= (ra >= low) & (ra <= high) & (dec >= south) & (dec <= north)
        assert inside[expected].all()
        assert set(brick_id(ra[expected], dec[expected])) <= set(circle.bricks())
    assert np.allclose(
        separation_deg(*center, ra, dec), places.separation(SkyCoord(*center, unit="deg")).deg
    )


@pytest.mark.parametrize("center", CENTERS)
def test_boxes_are_the_same_at_a_pole(center):
    box = Box(*center, 0.6, 0.2)
    ra, dec, places = _scatter(center, 0.6)
    frame = SkyOffsetFrame(origin=SkyCoord(*center, unit="deg"))
    offset = places.transform_to(frame)
    x, y = offset.lon.wrap_at(180 * u.deg).deg, offset.lat.deg
    expected = (np.abs(x) <= 0.3) & (np.abs(y) <= 0.1)
    assert np.array_equal(box.contains(ra, dec), expected)
    assert box.enclosing.contains(ra[expected], dec[expected]).all()
    assert set(brick_id(ra[expected], dec[expected])) <= set(box.bricks())


@pytest.mark.parametrize("center", CENTERS)
def test_polygons_hold_their_triangles(center):
    corners = SkyCoord(*center, unit="deg").directional_offset_by(
        [0, 110, 230] * u.deg, [0.4, 0.3, 0.5] * u.deg
    )
    shape = Polygon(tuple(corners.ra.deg), tuple(corners.dec.deg))
    ra, dec, places = _scatter(center, 0.6)
    sides = []
    xyz = places.cartesian.xyz.value
    vertex = corners.cartesian.xyz.value.T
    for k in range(3):
        sides.append(np.cross(vertex[k], vertex[(k + 1) % 3]) @ xyz)
    signs = np.sign(sides)
    expected = np.abs(signs.sum(axis=0)) == 3
    assert np.array_equal(shape.contains(ra, dec), expected)
    assert set(brick_id(ra[expected], dec[expected])) <= set(shape.bricks())
    assert shape.enclosing.contains(ra[expected], dec[expected]).all()


@pytest.mark.parametrize(
    ("filters", "text"),
    [
        ({"flux_r": ">10"}, 'c."flux_r" > 10.0'),
        ({"flux_r": ">= 1e-3"}, 'c."flux_r" >= 0.001'),
        ({"nobs_r": "2..5"}, 'c."nobs_r" >= 2 AND c."nobs_r" <= 5'),
        ({"nobs_r": [1, 3]}, 'c."nobs_r" IN (1, 3)'),
        ({"type": ["PSF", "REX"]}, "c.\"type\" IN ('PSF', 'REX')"),
        ({"type": "!=PSF"}, '(NOT (c."type" = \'PSF\') OR c."type" IS NULL)'),
        ({"flux_g": ">1 & <2"}, 'c."flux_g" > 1.0 AND c."flux_g" < 2.0'),
        ({"gaia_duplicated_source": True}, 'c."gaia_duplicated_source" = 1'),
        ({"objid": 7}, 'c."objid" = 7'),
    ],
)
def test_conditions_mean_the_same_in_sql_and_here(filters, text):
    conditions = as_conditions(filters, "dr10")
    adql_text = " AND ".join(c.adql(f'c."{c.column.name}"') for c in conditions)
    assert adql_text == text
    name = conditions[0].column.name
    kinds = {"type": ["PSF", "REX", "EXP", ""], "gaia_duplicated_source": [True, False]}
    values = np.array(kinds.get(name, [0, 1, 1.5, 2, 3, 5, 7, 10, 10.5, 0.001]))
    if name in ("nobs_r", "objid"):
        values = values.astype(np.int32)
    database = sqlite3.connect(":memory:")
    database.execute(f'CREATE TABLE c ("{name}")')
    database.executemany("INSERT INTO c VALUES (?)", [(value.item(),) for value in values])
    rows = database.execute(f"SELECT rowid FROM c WHERE {adql_text}").fetchall()
    database.close()
    met = np.logical_and.reduce([c.test(values) for c in conditions])
    assert [row[0] - 1 for row in rows] == np.flatnonzero(met).tolist()


@pytest.mark.parametrize(
    ("filters", "met"),
    [
        ({"flux_r": (1, 3)}, [1, 2, 3]),
        ({"flux_r": "1, 5..7"}, [1, 5, 6, 7]),
        ({"flux_r": "<2 | >7"}, [0, 1, 8, 9]),
        ({"flux_r": "!=1, 2"}, [0, 3, 4, 5, 6, 7, 8, 9]),
        ({"flux_r": (None, 2)}, [0, 1, 2]),
        ({"flux_r": "8.."}, [8, 9]),
        ({"flux_r": [1, 3] * u.nmgy}, [1, 3]),
        ({"flux_r": (3.6e-6 * u.Jy, None)}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"flux_r": "< 3.7 uJy"}, [0, 1]),
        ({"flux_r": (22.6 * u.ABmag, 22.4 * u.ABmag)}, [1]),
        ({"psfsize_r": "> 0.04 arcmin"}, [3, 4, 5, 6, 7, 8, 9]),
        ({"bx": 3 * u.pix}, [3]),
        ({"nobs_r": 3.0}, [3]),
        ({"nobs_r": "> 2.5 & < 4.5"}, [3, 4]),
        ({"mag_r": (3 * u.ABmag, 4 * u.mag)}, [3, 4]),
    ],
)
def test_vizier_ranges_lists_and_units(filters, met):
    (condition,) = as_conditions(filters, "dr10")
    kind = condition.column.dtype
    assert np.flatnonzero(condition.test(np.arange(10).astype(kind))).tolist() == met


def test_texts_may_be_patterns_and_empty():
    values = np.array(["", "G3", "G2", "L3", "*"])
    for wish, met in (
        ("", [0]),
        ("~G?", [1, 2]),
        ("!~*3", [0, 2, 4]),
        ("G2 | L3", [2, 3]),
        (["G3 ", ""], [0, 1]),
        ("!=G2", [0, 1, 3, 4]),
    ):
        (condition,) = as_conditions({"ref_cat": wish}, "dr10")
        assert np.flatnonzero(condition.test(values)).tolist() == met
        # A service holds NULL for an empty text.
        assert ("IS NULL" in condition.adql("c")) == (0 in met)


def test_missing_values_meet_no_condition():
    (condition,) = as_conditions({"flux_r": "!=3"}, "dr10")
    values = np.array([1, 3, np.nan, 1], np.float32)
    assert list(condition.test(values)) == [True, False, False, True]
    mask = np.array([True, False, False, False])
    assert list(condition.test(values, mask)) == [False, False, False, True]
    # As SQL compares a float32 column with a number: 0.1 in float32 is larger than 0.1.
    (condition,) = as_conditions({"flux_r": ">0.1"}, "dr10")
    assert condition.test(np.array([0.1], np.float32)).all()


@pytest.mark.parametrize(
    "filters",
    [
        {"flux_r": ">ten"},
        {"flux_r": "nan"},
        {"flux_r": 10**400},
        {"maskbits": f"<{10**400}"},
        {"flux_r": None},
        {"flux_r": []},
        {"flux": ">1"},
        {"apflux_r": ">1"},
        {"type": "P*"},
        {"type": 3},
        {"nothing": ">1"},
        {"flux_r": 1 * u.deg},
        {"flux_r": "> 1 deg"},
        {"flux_r": (1, 2, 3)},
        {"flux_r": ()},
        {"flux_r": (None, None)},
        {"flux_r": ".."},
        {"flux_r": ">"},
        {"flux_r": "~1*"},
        {"nobs_r": 1.5},
        {"maskbits": "=99999999999"},
        {"type": "psf"},
        {"type": ("PSF", "REX")},
        {"type": ">PSF"},
        {"brick_primary": ">0"},
        {"pmra": 3 * u.arcsec},
        {"brick_primary": "maybe"},
        "flux_r > 10",
        7,
        {"flux_r": (5, 1)},
        {"flux_r": "5..1"},
    ],
)
def test_bad_conditions_are_refused(filters):
    with pytest.raises(InvalidRequestError) as caught:
        as_conditions(filters, "dr10")
    assert caught.value.parameter in ("column_filters", "columns")


@given(st.text(max_size=30))
def test_any_text_is_one_literal(text):
    if "\0" in text or any(0xD800 <= ord(letter) < 0xE000 for letter in text):
        return
    database = sqlite3.connect(":memory:")
    assert database.execute(f"SELECT {literal(text)}").fetchall() == [(text,)]
    database.close()


def test_literals_are_numbers_or_texts():
    assert literal(True) == "1"
    assert literal(np.float32(0.5)) == "0.5"
    assert literal(np.int16(5)) == "5"
    for bad in (np.nan, np.inf, None, b"x", "a\0b"):
        with pytest.raises(InvalidRequestError):
            literal(bad)


def test_the_query_is_in_the_form_that_data_lab_accepts():
    request = catalog_request(
        Circle(190.1086, 1.2005, 0.01), columns=["ra", "by", "dchisq"], primary=True
    )
    assert catalog_query(request) == (
        'SELECT t."ra", t."by", t."dchisq_1", t."dchisq_2", t."dchisq_3", t."dchisq_4", '
        't."dchisq_5", t."dec", t."release", t."brickid", t."objid", t."brick_primary", '
        't."type" FROM ls_dr10.tractor AS t '
        "WHERE 't' = Q3C_RADIAL_QUERY(t.ra, t.dec, 190.1086, 1.2005, 0.010001) "
        """AND (NOT (t."type" = 'DUP') OR t."type" IS NULL)"""
    )


def test_boxes_of_a_query_cross_ra_zero_and_poles():
    across = box_where(Circle(0.1, 0.0, 0.5))
    assert across.count("t.ra BETWEEN") == 2
    assert across.count("t.dec BETWEEN") == 1
    assert "t.ra BETWEEN 0.0 AND 360.0" in box_where(Circle(10.0, 89.9, 0.5))


def test_a_request_is_frozen_and_hashable():
    first = catalog_request(Circle(1.0, 2.0, 0.1), columns="flux")
    again = catalog_request(Circle(1.0, 2.0, 0.1), columns=["flux"])
    assert first == again
    assert hash(first) == hash(again)
    assert first != catalog_request(Circle(1.0, 2.0, 0.2), columns="flux")
    assert first != catalog_request(Box(1.0, 2.0, 0.1, 0.1), columns="flux")
    assert "maskbits" in catalog_request(Circle(1.0, 2.0, 0.1), maskbits="BRIGHT").needed
    for wrong, parameter in (
        ({"maxrec": 0}, "maxrec"),
        ({"maxrec": 1.5}, "maxrec"),
        ({"primary": "yes"}, "primary"),
        ({"maskbits": "BRIHT"}, "maskbits"),
        ({"region": "east"}, "region"),
        ({"column_filters": {"flux_i": ">1"}, "release": "dr9"}, "column_filters"),
        ({"column_filters": {"flux_i": ">1"}, "region": "north"}, "column_filters"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            catalog_request(Circle(1.0, 2.0, 0.1), **wrong)
        assert caught.value.parameter == parameter
