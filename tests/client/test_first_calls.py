"""Calls that people write first give what they meant, or one sentence with the right call."""

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord, name_resolve
from astropy.table import Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astroquery_lis.client.inputs import as_position, as_targets
from astroquery_lis.exceptions import ArgumentError, LegacySurveyError

STAR = "45.1312 0.0047"
PLACE = SkyCoord(45.1312, 0.0047, unit="deg")
PAYLOAD = {"get_query_payload": True}


@pytest.fixture(autouse=True)
def names_of_the_sky(sky):
    with name_resolve.sesame_url.set([sky.sesame_url]):
        yield


# What means the star, in one position.
STARS = [
    STAR, "45.1312, 0.0047", "45.1312,0.0047", "(45.1312, 0.0047)", "45.1312 +0.0047",
    "45.1312d 0.0047d", "45.1312° 0.0047°", "RA=45.1312 Dec=0.0047", "star",
    "3:00:31.488 +0:00:16.92", "3h0m31.488s 0d0m16.92s", "03 00 31.488 +00 00 16.92",
    "3h00m31.488s+0d00m16.92s", "J030031.488+000016.92", "45.1312\t0.0047",
    (45.1312, 0.0047), [45.1312, 0.0047], np.array([45.1312, 0.0047]), ("45.1312", "0.0047"),
    (45.1312 * u.deg, 0.0047 * u.deg), [45.1312, 0.0047] * u.deg, PLACE, PLACE.galactic,
    PLACE.reshape(1), [PLACE], Table({"ra": [45.1312], "dec": [0.0047]})[0],
    {"ra": 45.1312, "dec": 0.0047}, ("3:00:31.488", "+0:00:16.92"),
]  # fmt: skip


@pytest.mark.parametrize("place", STARS, ids=lambda place: repr(place)[:40])
def test_a_position_in_any_manner(survey, place):
    answer = survey.get_cutout(place, 8, bands="r", **PAYLOAD)
    assert answer == survey.get_cutout(PLACE, 8, bands="r", **PAYLOAD)
    assert as_position(place) == pytest.approx((45.1312, 0.0047), abs=1e-6)


# Options that mean the same as others.
SAME = [
    ("get_cutout", {"size": "30 arcsec"}, {"size": 30 * u.arcsec}),
    ("get_cutout", {"size": "64"}, {"size": 64}),
    ("get_cutout", {"size": "0.5'"}, {"size": 30 * u.arcsec}),
    ("get_cutout", {"bands": "w1"}, {"bands": "W1"}),
    ("get_cutout", {"bands": "G,R"}, {"bands": ["g", "r"]}),
    ("get_cutout", {"products": "image,invvar"}, {"products": ("image", "invvar")}),
    ("get_cutout", {"region": "South"}, {"region": "south"}),
    ("get_cutout", {"release": "DR9"}, {"release": "dr9"}),
    ("get_cutout", {"release": 9}, {"release": "dr9"}),
    ("query_tractor", {"radius": "30 arcsec"}, {"radius": 30 * u.arcsec}),
    ("query_tractor", {"radius": "0d0m30s"}, {"radius": 30 * u.arcsec}),
    ("query_tractor", {"radius": '30"'}, {"radius": 30 * u.arcsec}),
    ("query_tractor", {"radius": "0.5 arcminutes"}, {"radius": 30 * u.arcsec}),
    ("query_region", {"radius": 30 * u.arcsec, "columns": "ra,dec"}, {"columns": ["ra", "dec"],
     "radius": 30 * u.arcsec}),
    ("query_bricks", {"radius": "30 arcsec"}, {"radius": 30 * u.arcsec}),
    ("get_brick_files", {"products": "TRACTOR"}, {"products": "tractor"}),
    ("get_picture", {"layer": "LS-DR10"}, {"layer": "ls-dr10"}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "options", "plain"), SAME, ids=str)
def test_options_in_any_manner(survey, method, options, plain):
    call = getattr(survey, method)
    assert call(STAR, **options, **PAYLOAD) == call(STAR, **plain, **PAYLOAD)


# What is refused, and what the sentence has to tell.
REFUSED = [
    ("query_tractor", (STAR,), {"radius": "5 arcsec", "source": ()}, "must be one of auto"),
    ("query_tractor", (STAR,), {"radius": "5 arcsec", "source": ("auto", "tap")}, "one of auto"),
    ("get_cutout", (STAR,), {"radius": 30 * u.arcsec}, "did you mean size=?"),
    ("get_cutout", (STAR,), {"band": "r"}, "did you mean bands=?"),
    ("get_cutout", (STAR,), {"filters": "r"}, "did you mean bands=?"),
    ("get_cutout", (STAR,), {"survey": "dr9"}, "did you mean release=?"),
    ("get_cutout", (STAR,), {"pixscale": 1}, "did you mean pixel_scale=?"),
    ("get_cutout", (), {"ra": 45, "dec": 0}, "did you mean coordinates=?"),
    ("get_cutout", (), {}, "missing 1 required positional argument: 'coordinates'"),
    ("get_cutout", (45.1312, 0.0047), {}, "coordinates=45.1312 must be a SkyCoord, text"),
    ("get_cutout", (STAR, 30.0), {}, "a bare number is never an angle"),
    ("get_cutout", (STAR, "30"), {"bands": "q"}, "bands of dr10 are: g, r, i, z"),
    ("get_cutout", (STAR, 64), {"products": "img"}, "allowed: image, invvar"),
    ("get_cutout", (STAR, 64), {"region": "East"}, "allowed: auto, north, south"),
    ("get_cutout", (STAR, 64), {"release": "dr12"}, "allowed: dr5, dr6"),
    ("get_cutout", ([PLACE, PLACE],), {}, "For many see get_cutouts"),
    ("get_cutout", ("Nobody 17",), {}, "nor a name that the Sesame service knows"),
    ("get_cutout", ("10.5 +02:00:00",), {}, "10.5 hours (157.5 degrees) or 10.5 degrees"),
    ("get_cutout", ("150:00:00 +02:00:00",), {}, "mark degrees"),
    ("get_cutout", ("45 91",), {}, "out of range"),
    ("get_cutout", ("none.csv",), {}, "cannot be read: No such file"),
    ("query_tractor", (STAR,), {"radius": 30}, "must be an angle with a unit"),
    ("query_tractor", (STAR,), {"radius": "64 pix"}, "must be an angle with a unit"),
    ("query_tractor", (STAR,), {"size": "30 arcsec"}, "did you mean radius=?"),
    ("query_tractor", (STAR,), {}, "Give one of radius=, width="),
    ("query_region", (STAR, 30 * u.arcsec), {}, "name the others: radius="),
    ("query_region", (STAR,), {"row_limit": 5, "radius": "1 arcsec"}, "did you mean maxrec=?"),
    ("download_cutouts", ([PLACE], 64), {"outdir": "x"}, "did you mean download_dir=?"),
    ("download_cutouts", ([PLACE], 64), {}, "'download_dir'"),
    ("crossmatch", (Table({"x": [1]}),), {"radius": "1 arcsec"}, "Say with ra= and dec="),
    ("covers", ((1, 2, 3),), {}, "must be a SkyCoord, text"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "args", "options", "sentence"), REFUSED, ids=str)
def test_what_cannot_be_meant_is_refused_in_one_sentence(survey, method, args, options, sentence):
    with pytest.raises(LegacySurveyError) as caught:
        getattr(survey, method)(*args, **options)
    text = str(caught.value)
    assert sentence in text
    assert "\n" not in text
    assert "Methods" not in text  # The public class is named, not the room that it is built of.
    if isinstance(caught.value, ArgumentError):
        assert text.startswith(f"LegacySurvey.{method}() ")


def test_an_error_from_within_is_not_explained_away(survey, tmp_path):
    with pytest.raises(TypeError, match="0 positional") as caught:
        survey.download_cutouts([PLACE], wcs=lambda: None, download_dir=tmp_path)
    assert not isinstance(caught.value, ArgumentError)


# ---- arguments that nobody thought of -----------------------------------------------------------

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), st.text(max_size=12),
    st.binary(max_size=4), st.just(object()), st.just(np.nan), st.just(STAR), st.just(PLACE),
    st.sampled_from(["30 arcsec", "1 m", "grz", "W9", "dr10", "dr9", "south", "image,psf", "0d0m"]),
    st.sampled_from([3 * u.arcsec, [1, 2] * u.arcmin, 5 * u.kg, np.inf * u.deg, 2 * u.pix]),
    st.lists(st.one_of(st.floats(), st.integers(-400, 400), st.text(max_size=4)), max_size=4),
    st.tuples(st.floats(-400, 400), st.floats(-100, 100)),
    st.builds(lambda n: np.zeros((n, 2)), st.integers(0, 3)),
    st.dictionaries(st.sampled_from(["ra", "dec", "x"]), st.floats(), max_size=3),
)  # fmt: skip
OPTIONS = ("size", "bands", "products", "release", "region", "layer", "pixel_scale", "rotation")
QUERIES = ("radius", "width", "height", "columns", "column_filters", "maskbits", "maxrec",
           "release", "region", "source")  # fmt: skip


def _fuzz(survey, method, place, options):
    """Call a method, which has to answer or to raise an error of this package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            getattr(survey, method)(place, **options, get_query_payload=True)
        except LegacySurveyError:
            return


FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FUZZ
@given(ODD, st.dictionaries(st.sampled_from(OPTIONS), ODD, max_size=3))
def test_any_arguments_of_cutouts_are_right_or_refused_by_this_package(survey, place, options):
    _fuzz(survey, "get_cutout", place, options)


@FUZZ
@given(ODD, st.dictionaries(st.sampled_from(QUERIES), ODD, max_size=3))
def test_any_arguments_of_queries_are_right_or_refused_by_this_package(survey, place, options):
    _fuzz(survey, "query_tractor", place, options)


@FUZZ
@given(
    st.lists(
        st.tuples(st.floats(0, 359.9999), st.floats(-90, 90), st.booleans()), min_size=1, max_size=5
    ),
    st.sampled_from(["pairs", "columns", "texts", "SkyCoord", "sexagesimal"]),
)
def test_positions_survive_every_way_of_writing_them(rows, way):
    ra, dec, gone = map(np.array, zip(*rows, strict=True))
    if way in ("texts", "sexagesimal") or not gone.any():
        gone = np.zeros(len(rows), bool)
    ra_given, dec_given = np.where(gone, np.nan, ra), np.where(gone, -9999, dec)
    places = SkyCoord(ra, dec, unit="deg")
    value = {
        "pairs": lambda: np.column_stack([ra_given, dec_given]),
        "columns": lambda: Table({"RAJ2000": ra_given, "DEJ2000": dec_given}),
        "texts": lambda: [f"{a:.9f} {d:+.9f}" for a, d in zip(ra, dec, strict=True)],
        "SkyCoord": lambda: SkyCoord(ra_given, np.where(gone, np.nan, dec), unit="deg"),
        "sexagesimal": lambda: places.to_string("hmsdms", precision=7),
    }[way]()
    targets = as_targets(value)
    assert targets.placed.tolist() == (~gone).tolist()
    there = SkyCoord(targets.ra_deg[~gone], targets.dec_deg[~gone], unit="deg")
    assert np.all(there.separation(places[~gone]).arcsec < 1e-4)
