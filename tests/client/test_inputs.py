"""What users hand in is read in one way, whichever method it is handed to."""

import re

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import Galactic, SkyCoord
from astropy.table import QTable, Table
from astropy.time import Time
from astropy.utils.masked import Masked

from astroquery_lis.cli import main
from astroquery_lis.client.files import as_bricks
from astroquery_lis.client.inputs import (
    as_position,
    as_sky,
    as_targets,
    as_years,
)
from astroquery_lis.client.position_columns import Columns
from astroquery_lis.exceptions import InvalidRequestError, ServiceDownError
from astroquery_lis.survey.sphere import Box, Circle

PLACES = SkyCoord([45.1, 45.2], [0.01, -0.02], unit="deg")
RA, DEC = PLACES.ra.deg, PLACES.dec.deg
NAMES = (
    *(("ra", "dec"), ("RA", "Dec"), ("RAJ2000", "DEJ2000"), ("_RAJ2000", "_DEJ2000")),
    *(("RA_ICRS", "DE_ICRS"), ("ra_deg", "dec_deg"), ("TARGET_RA", "TARGET_DEC")),
)
TABLES = [
    *(Table({ra: RA, dec: DEC}) for ra, dec in NAMES),
    QTable({"ra": PLACES.ra.to(u.hourangle), "dec": PLACES.dec.to(u.rad)}),
    Table({"somewhere": PLACES.galactic, "flux": [1.0, 2.0]}),
    Table({"ra": RA.astype(">f8"), "dec": DEC.astype(">f4")}),
]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: "-".join(table.colnames))
def test_every_reader_finds_the_same_positions_in_a_table(table):
    targets = as_targets(table)
    assert targets.table is table
    np.testing.assert_allclose(targets.ra_deg, RA, rtol=0, atol=1e-9)
    np.testing.assert_allclose(targets.dec_deg, DEC, rtol=0, atol=1e-9)
    assert np.array_equal(as_bricks(table)[0], as_bricks(PLACES)[0])
    assert as_position(table[1]) == pytest.approx((RA[1], DEC[1]))


@pytest.mark.parametrize(
    "many",
    [
        PLACES,
        PLACES.galactic,
        list(PLACES),
        list(zip(RA, DEC, strict=True)),
        [Galactic(place.l, place.b) for place in PLACES.galactic],
        ["45.1 0.01", "45.2,-0.02"],
        ["3:00:24 +0:00:36", "3h0m48s -0d1m12s"],
        ("45d6m 0d0m36s", PLACES[1]),
        np.array(["45.1 0.01", "45.2 -0.02"]),
    ],
    ids=lambda many: type(many).__name__,
)
def test_many_positions_come_in_many_ways(many):
    there = as_targets(many)
    assert there.shape == (2,)
    assert SkyCoord(there.ra_deg, there.dec_deg, unit="deg").separation(PLACES).arcsec.max() < 1e-6


def test_the_same_table_may_go_to_every_method(sky, survey, tmp_path):
    star = sky.positions["star"]
    for table in (
        Table({"RAJ2000": [star.ra.deg], "DEJ2000": [star.dec.deg]}),
        Table({"pos": SkyCoord([star])}),
    ):
        folder = tmp_path / table.colnames[0]
        manifest = survey.download_cutouts(table, 8, bands="r", download_dir=folder)
        assert manifest["Status"].tolist() == ["COMPLETE"]
        assert len(survey.crossmatch(table, radius="1 arcsec", columns="type")) == 1
        assert "0451p000" in survey.get_brick_files(table, get_query_payload=True)["urls"][0]
        assert survey.covers(table).tolist() == [True]
        ((hdul,), ((_, same),)) = (
            survey.get_cutouts(table, 8, bands="r"),
            survey.iter_cutouts(table, 8, bands="r"),
        )
        assert np.array_equal(hdul["IMAGE_R"].data, same["IMAGE_R"].data)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("10:00:00 +02:00:00", (150, 2)),
        ("10 00 00 +02 00 00", (150, 2)),
        ("10h +2d", (150, 2)),
        ("150 2", (150, 2)),
        ("150,2", (150, 2)),
        ("150d 2d", (150, 2)),
        ("0451p000", (45.125, 0)),
        ("0451P000", (45.125, 0)),
        ("0959p805", (95.95041322314049, 80.5)),
    ],
)
def test_text_is_the_same_in_python_and_on_the_command_line(capsys, survey, text, place):
    assert as_position(text) == pytest.approx(place)
    url = survey.viewer_url(text, layer="ls-dr10")
    assert main(["url", text, "--layer", "ls-dr10"]) == 0
    assert capsys.readouterr().out.strip().partition("?")[2] == url.partition("?")[2]


def test_names_are_looked_up(sky, survey, names_of_the_sky):
    there = SkyCoord(*as_position("NGC 1"), unit="deg")
    assert there.separation(sky.positions["field"]).arcsec < 0.1
    with pytest.raises(InvalidRequestError, match="'Nobody 17' is neither a position nor a name"):
        as_position("Nobody 17")
    sky.faults.add("refuse", match="/sesame/*", times=None)
    with pytest.raises(ServiceDownError, match="No name service could be asked for 'Abell 2'"):
        survey.query_object("Abell 2", radius="1 arcsec")


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (45.0, "must be a SkyCoord, text"),
        (None, "must be a SkyCoord, text"),
        ("45.1", "'45.1' is not RA and Dec"),
        ("", "'' is not RA and Dec"),
        ("45 91", "is not a position"),
        ("9999p999", "'9999p999' is not the name of a brick"),
        ("45:61:00 0:0:0", "is not RA and Dec"),
        (SkyCoord(np.nan, 0, unit="deg"), "not finite"),
        (PLACES, r"has shape \(2,\); expected one position"),
        (["45 1", "46 2"], r"has shape \(2,\); expected one position"),
        (Table({"x": [1]}), "has no columns of RA and Dec .* it has: x"),
    ],
)
def test_what_is_not_one_position_is_refused_by_name(survey, value, match):
    with pytest.raises(InvalidRequestError, match=match) as caught:
        as_position(value)
    assert caught.value.parameter == "coordinates"


@pytest.mark.parametrize("method", ["get_cutout", "get_psf", "get_picture", "query_exposures"])
def test_methods_for_one_position_say_the_same_of_several(survey, method):
    with pytest.raises(InvalidRequestError) as caught:
        getattr(survey, method)(PLACES)
    assert "coordinates has shape (2,); expected one position." in str(caught.value)
    for query in (survey.query_tractor, survey.query_region):
        with pytest.raises(InvalidRequestError, match=re.escape(str(caught.value))):
            query(PLACES, radius="1 arcsec")


@pytest.mark.parametrize(
    ("table", "match"),
    [
        (Table({"ra": [1.0]}), "has no columns of RA and Dec .* it has: ra"),
        (Table({"ra": ["1h"], "dec": ["2h"]}), "is in hours; a declination is in degrees"),
        (Table({"ra": [[1.0, 2.0]], "dec": [1.0]}), "no columns of RA and Dec"),
        (Table({"ra": [1.0] * u.m, "dec": [1.0]}), "is in m, which is no angle"),
        (Table({"a": PLACES, "b": PLACES}), "a, b are all columns of SkyCoord"),
        (3, "table=3 must be a SkyCoord"),
    ],
)
def test_tables_of_no_use_are_refused(table, match):
    with pytest.raises(InvalidRequestError, match=match):
        as_targets(table)


def test_rows_without_a_position_are_no_targets():
    columns = {"ra": np.ma.array([1.0, 2.0, 3.0], mask=[0, 1, 0]), "dec": [3.0, 4.0, 91.0]}
    for table in (
        Table(columns, masked=True),
        QTable({"ra": Masked([1, 2, 3] * u.deg, mask=[0, 1, 0]), "dec": [3, 4, 91] * u.deg}),
    ):
        assert as_targets(table).placed.tolist() == [True, False, False]


def test_targets_have_names():
    assert as_targets(PLACES).ids.tolist() == [0, 1]
    assert as_targets(Table({"ID": ["a", "b"], "ra": RA, "dec": DEC})).ids.tolist() == ["a", "b"]
    numbers = as_targets(Table({"n": [7, 8], "ra": RA, "dec": DEC}), Columns(id_column="n"))
    assert numbers.ids.tolist() == [7, 8]
    with pytest.raises(InvalidRequestError, match="needs a table"):
        as_targets(PLACES, Columns(id_column="n"))


def test_columns_of_a_match_may_be_named(survey):
    table = Table({"a": PLACES.ra.rad * u.rad, "b": PLACES.dec.rad * u.rad, "place": PLACES[::-1]})
    for ra, dec, expected in (("a", "b", RA), ("place", None, RA[::-1]), (None, None, RA[::-1])):
        np.testing.assert_allclose(as_targets(table, Columns(ra, dec)).ra_deg, expected)
    with pytest.raises(InvalidRequestError, match="'c' is not a column of the table") as caught:
        survey.crossmatch(table, radius="1 arcsec", ra="a", dec="c")
    assert caught.value.parameter == "dec"
    star = SkyCoord([45.1312], [0.0047], unit="deg")
    assert isinstance(survey.crossmatch(star, radius="1 arcsec", columns="type"), QTable)


def test_angles_may_be_text_everywhere(survey):
    star = SkyCoord(45.1312, 0.0047, unit="deg")
    asked = {"bands": "r", "get_query_payload": True}
    for size in (30 * u.arcsec, "30 arcsec", "0.5'", ("30arcsec", 30 * u.arcsec)):
        assert survey.get_picture(star, size, **asked)["params"]["width"] == 115
    scaled = survey.get_picture(star, 8, pixel_scale="1 arcsec", **asked)
    assert scaled == survey.get_picture(star, 8, pixel_scale=1 * u.arcsec, **asked)
    for options in ({"radius": '5"'}, {"width": "5 arcsec", "height": "0.1 arcmin"}):
        assert survey.query_tractor(star, **options, get_query_payload=True)
    payload = survey.get_brick_files(star, radius="20 arcmin", get_query_payload=True)
    assert len(payload["urls"]) > 4
    for wrong in (1.0, "1", "1 m", "one arcsec"):
        with pytest.raises(InvalidRequestError, match="radius="):
            survey.query_bricks(star, radius=wrong)
        with pytest.raises(InvalidRequestError, match="radius="):
            survey.get_brick_files(star, radius=wrong)


def test_corners_may_be_pairs(survey):
    corners = [(45.0, 0.0), (45.1, 0.0), (45.1, 0.1)]
    there = survey.query_bricks(polygon=corners)
    assert (
        there["brickname"].tolist()
        == survey.query_bricks(polygon=SkyCoord(corners, unit="deg"))["brickname"].tolist()
    )


def test_years():
    assert as_years(None, 2) is None
    assert as_years(Time(2015.5, format="jyear"), 2).tolist() == pytest.approx([2015.5, 2015.5])
    with pytest.raises(InvalidRequestError, match="one or one per row"):
        as_years(Time([2000.0, 2001.0, 2002.0], format="jyear"), 2)


def test_a_box_is_round_the_position_in_the_columns_that_are_named(survey):
    table = Table({"x": [45.1], "y": [0.05], "ra": [10.0], "dec": [10.0]})
    box = {"width": 1 * u.arcmin, "height": 2 * u.arcmin}
    bricks = survey.query_bricks(table, ra="x", dec="y", **box)
    expected = survey.query_bricks(SkyCoord(45.1, 0.05, unit="deg"), **box)
    assert bricks["brickname"].tolist() == expected["brickname"].tolist()


CORNERS = [(45.0, 0.0), (45.1, 0.0), (45.05, 0.1)]


@pytest.mark.parametrize(
    "beside", [{"coordinates": SkyCoord(45, 0, unit="deg")}, {"ra": "ra"}, {"name": "name"}]
)
def test_nothing_stands_beside_a_polygon(survey, beside):
    (parameter,) = beside
    with pytest.raises(InvalidRequestError, match=f"(?s)^{parameter}=.* is not for a polygon"):
        survey.query_bricks(polygon=CORNERS, **beside)


def test_a_catalogue_is_not_asked_for_a_polygon_and_a_position(survey):
    with pytest.raises(InvalidRequestError, match="(?s)^coordinates=.* is not for a polygon"):
        survey.query_tractor(SkyCoord(45, 0, unit="deg"), polygon=CORNERS)


def test_what_the_region_arguments_may_be():
    position = (45.0, 0.0)
    assert as_sky(position, radius="10 arcsec") == Circle(45.0, 0.0, 10 / 3600)
    assert as_sky(position, width=1 * u.deg) == Box(45.0, 0.0, 1.0, 1.0)
    for wrong, parameter in (
        ({"radius": 5.0}, "radius"),
        ({"radius": "5"}, "radius"),
        ({"radius": 5 * u.kg}, "radius"),
        ({"radius": -1 * u.deg}, "radius"),
        ({"radius": np.nan * u.deg}, "radius"),
        ({"radius": [1, 2] * u.deg}, "radius"),
        ({"width": 100 * u.deg}, "width"),
        ({"height": 1 * u.deg}, "width"),
        ({}, "radius"),
        ({"radius": 1 * u.deg, "width": 1 * u.deg}, "radius"),
        ({"polygon": ([1.0, 2.0], [0.0, 1.0])}, "polygon"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            as_sky(None if "polygon" in wrong else position, **wrong)
        assert caught.value.parameter == parameter
    with pytest.raises(InvalidRequestError, match="coordinates"):
        as_sky(None, radius=1 * u.deg)


@pytest.mark.parametrize("bricks", [{"brickname": ["1901p012"] * 2}, {"BRICKID": [1, 2]}])
def test_positions_in_columns_that_are_named_count_more_than_names_of_bricks(bricks):
    table = Table({"x": RA, "y": DEC, "place": PLACES.to_string("hmsdms"), **bricks})
    here = as_bricks(PLACES)
    for columns in ({"ra": "x", "dec": "y"}, {"name": "place"}):
        bricks_of_rows = as_bricks(table, columns=Columns(**columns))
        assert np.array_equal(bricks_of_rows.ids, here.ids)
        assert len(as_bricks(table, "1 deg", Columns(**columns)).ids) > 2
    assert not np.array_equal(as_bricks(table).ids, here.ids)


@pytest.mark.parametrize("bricks", ["1901p012", ["1901p012", "1901p015"], 5, None])
@pytest.mark.parametrize("column", ["ra", "dec", "name"])
def test_columns_without_a_table_are_refused_by_bricks(survey, bricks, column):
    path = "dr10/survey-bricks.fits.gz" if bricks is None else None
    with pytest.raises(InvalidRequestError, match="needs a table") as caught:
        survey.get_brick_files(bricks, path=path, **{column: "x"})
    assert caught.value.parameter == column


def test_names_of_files_are_taken_in_any_case():
    name = "sweep-190p000-195p005"
    assert as_bricks([name.upper(), "1901P012"]).sweeps == (name,)
    assert np.array_equal(as_bricks("1901P012").ids, as_bricks("1901p012").ids)
