"""S_REGION texts, and fields made of footprints: against astropy's own spherical geometry."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.time import Time

from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.jwst_stage.legacy.fields import Field, Footprint, fields_of
from astroquery_lis.jwst_stage.planning.footprints import parse_s_region
from astroquery_lis.survey.sphere import Circle, Polygon


def ring(ra, dec, radius, number=4, turn=0.0):
    """Return an S_REGION whose corners are on a circle, by astropy."""
    angles = turn + 360 * np.arange(number) / number
    corners = SkyCoord(ra, dec, unit="deg").directional_offset_by(angles * u.deg, radius * u.deg)
    return "POLYGON ICRS  " + " ".join(f"{one.ra.deg:.12f} {one.dec.deg:.12f}" for one in corners)


def footprint(text, **more):
    return Footprint("one", parse_s_region(text), **more)


def test_a_polygon_is_read_as_the_pipeline_writes_it():
    (shape,) = parse_s_region("POLYGON ICRS  45.1 0.1 45.0 0.1 45.0 0.0 45.1 0.0")
    assert shape == Polygon((45.1, 45.0, 45.0, 45.1), (0.1, 0.1, 0.0, 0.0))


@pytest.mark.parametrize(
    "text",
    [
        "polygon 45.1 0.1 45.0 0.1 45.0 0.0 45.1 0.0",
        "POLYGON ICRS 45.1 0.1 45.0 0.1 45.0 0.0 45.1 0.0 45.1 0.1",
        "Polygon ICRS UNKNOWNREFPOS 405.1 0.1 45.0 0.1 45.0 0.1 -315.0 0.0 45.1 0.0",
        "POLYGON J2000 (45.1, 0.1, 45.0, 0.1, 45.0, 0.0, 45.1, 0.0)",
    ],
)
def test_other_writings_mean_the_same(text):
    (shape,) = parse_s_region(text)
    assert len(shape.ra_deg) == 4
    assert np.allclose(shape.ra_deg, (45.1, 45.0, 45.0, 45.1), atol=1e-5)
    assert np.allclose(shape.dec_deg, (0.1, 0.1, 0.0, 0.0), atol=1e-5)


def test_shapes_after_one_another_are_one_footprint():
    text = "UNION ICRS (CIRCLE 10 20 0.1 POLYGON 10 20 11 20 11 21 POLYGON FK5 1 2 3 2 3 4)"
    shapes = parse_s_region(text)
    assert [type(shape) for shape in shapes] == [Circle, Polygon, Polygon]
    assert shapes[0] == Circle(10.0, 20.0, 0.1)


def test_other_frames_are_brought_to_icrs():
    (shape,) = parse_s_region("CIRCLE GALACTIC 120 30 0.2")
    expected = SkyCoord(120, 30, unit="deg", frame="galactic").icrs
    found = SkyCoord(shape.ra_deg, shape.dec_deg, unit="deg")
    assert found.separation(expected) < 1e-6 * u.arcsec


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "must be a text"),
        (None, "must be a text"),
        ("ELLIPSE ICRS 1 2 3 4 5", "'ELLIPSE'"),
        ("POLYGON ICRS 1 2 3 4", "three corners"),
        ("POLYGON ICRS 1 2 3 4 5 6 7", "three corners"),
        ("POLYGON ICRS 1 2 1 2 1 2 3 4", "three different"),
        ("POLYGON ICRS 1 2 3 4 5 north", "'NORTH'"),
        ("POLYGON ICRS 1 2 3 4 5 nan", "not finite"),
        ("POLYGON ICRS 1 2 3 94 5 6", "beyond 90"),
        ("CIRCLE ICRS 1 2", "three numbers"),
        ("CIRCLE ICRS 1 2 0", "above 0"),
        ("UNION ICRS", "no shape"),
    ],
)
def test_what_is_no_region_is_refused(text, match):
    with pytest.raises(InvalidRequestError, match=match) as caught:
        parse_s_region(text)
    assert caught.value.parameter == "s_region"


@pytest.mark.parametrize(
    "center", [(0.001, -0.002), (123.4, 89.995), (180.0, -89.99), (33.0, 60.0)]
)
@pytest.mark.parametrize("number", [3, 4, 7])
def test_inside_outside_and_enclosing_anywhere_on_the_sky(center, number):
    field = Field((footprint(ring(*center, 0.02, number)),))
    middle = SkyCoord(*center, unit="deg")
    rng = np.random.default_rng(3)
    angles, radii = rng.uniform(0, 360, 400), 0.03 * np.sqrt(rng.uniform(size=400))
    points = middle.directional_offset_by(angles * u.deg, radii * u.deg)
    inside = field.contains(points.ra.deg, points.dec.deg)
    # A regular polygon holds the circle of cos(pi / n) of its radius; none of it is beyond 1.
    assert inside[radii < 0.0199 * np.cos(np.pi / number)].all()
    assert not inside[radii > 0.02].any()
    wide = field.contains(points.ra.deg, points.dec.deg, 0.005)
    assert wide[radii < 0.0249 * np.cos(np.pi / number)].all()
    assert not wide[radii > 0.025].any()
    assert (wide & ~inside).any()
    circle = field.enclosing()
    assert SkyCoord(circle.ra_deg, circle.dec_deg, unit="deg").separation(middle) < 0.1 * u.arcsec
    assert circle.radius_deg == pytest.approx(0.02, rel=1e-4)


def test_the_polygon_round_a_circle_holds_it():
    field = Field((footprint("CIRCLE ICRS 10 80 0.05"),))
    ra, dec = field.corners()
    apart = SkyCoord(ra, dec, unit="deg").separation(SkyCoord(10, 80, unit="deg")).deg
    middle = apart * np.cos(np.pi / len(ra))
    assert np.all(middle >= 0.05 * (1 - 1e-6))
    assert apart.max() < 0.0501


def test_dithers_make_one_field_and_what_is_apart_another():
    texts = [ring(45.1 + 0.01 * n, 0.05, 0.009, turn=20 * n) for n in range(4)]
    far = ring(45.4, 0.05, 0.009)
    found = fields_of([footprint(text) for text in (texts[0], far, *texts[1:])])
    assert [len(field.footprints) for field in found] == [4, 1]
    assert found[0].name == "one and 3 more"
    assert len(fields_of([footprint(text) for text in texts], union=False)) == 4


def test_bars_that_cross_touch_though_no_corner_is_inside():
    upright = "POLYGON ICRS 359.999 -0.1 0.001 -0.1 0.001 0.1 359.999 0.1"
    lying = "POLYGON ICRS 359.9 -0.001 0.1 -0.001 0.1 0.001 359.9 0.001"
    beside = "POLYGON ICRS 359.9 0.15 0.1 0.15 0.1 0.152 359.9 0.152"
    found = fields_of([footprint(upright), footprint(beside), footprint(lying)])
    assert [len(field.footprints) for field in found] == [2, 1]


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("CIRCLE ICRS 0 10 0.1", "CIRCLE ICRS 0.15 10 0.1", True),
        ("CIRCLE ICRS 0 10 0.1", "CIRCLE ICRS 0.25 10 0.1", False),
        ("CIRCLE ICRS 0 0 0.1", "POLYGON ICRS 0.09 -1 1 -1 1 1 0.09 1", True),
        ("CIRCLE ICRS 0 0 0.1", "POLYGON ICRS 0.11 -1 1 -1 1 1 0.11 1", False),
        ("CIRCLE ICRS 0.5 0 0.1", "POLYGON ICRS 0 -1 1 -1 1 1 0 1", True),
    ],
)
def test_circles_touch_circles_and_polygons(one, other, together):
    found = fields_of([footprint(one), footprint(other)])
    assert (len(found) == 1) is together


def test_epoch_and_span_of_a_field():
    text = ring(45, 0, 0.01)
    field = Field((footprint(text, mjd=60000.0), footprint(text, mjd=60200.0), footprint(text)))
    assert field.epoch == Time(60100.0, format="mjd", scale="utc")
    assert field.span_yr == pytest.approx(200 / 365.25)
    assert len(field.shapes) == 1
    assert Field((footprint(text),)).epoch is None
