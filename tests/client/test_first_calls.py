"""Calls that people write first give what they meant, or one sentence with the right call."""

import inspect
import os
import traceback
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.wcs import WCS
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from astroquery_lis.client.inputs import as_position, as_targets
from astroquery_lis.exceptions import ArgumentError, InvalidRequestError, LegacySurveyError

STAR = "45.1312 0.0047"
PLACE = SkyCoord(45.1312, 0.0047, unit="deg")
PAYLOAD = {"get_query_payload": True}


pytestmark = pytest.mark.usefixtures("names_of_the_sky")


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
    ("get_cutout", (), {"ra": 45, "dec": 0}, "did you mean coordinates=(ra, dec)"),
    ("get_cutout", (45.1312, 0.0047, 64), {}, "RA and Dec are one argument, such as (190.1, 1.2)"),
    ("covers", (45.1312, 0.0047), {}, "RA and Dec are one argument, such as (190.1, 1.2)"),
    ("viewer_url", (45.1312, 0.0047), {}, "RA and Dec are one argument, such as (190.1, 1.2)"),
    ("list_layers", ("sdss",), {}, "takes no argument without a name."),
    ("get_cutout", (STAR, 64), {"filename": "a.fits"}, "did you mean the method writeto()"),
    ("get_cutout", (STAR, 64), {"download_dir": "a"}, "did you mean the method writeto()"),
    ("query_tractor", (STAR,), {"filename": "a.fits"}, "did you mean the method write() of"),
    ("covers", (STAR,), {"filename": "a.fits"}, "has no argument filename=; it has: coordinates"),
    ("get_cutout", (STAR, 64), {"products": "ivar"}, "Did you mean 'invvar'?"),
    ("get_brick_files", ("0451p000",), {"products": "images"}, "Did you mean 'image'?"),
    ("query_tractor", (STAR,), {"radius": "5 arcsec", "column_filters": "flux_r > 10"},
     "such as {'flux_r': '>10'}"),
    ("download_cutouts", (Table({"ra": [1], "dec": [2]}), "D25"), {"download_dir": "x"},
     "size='D25' is no column of the table, which has: ra, dec"),
    ("download_cutouts", (Table({"ra": [1], "dec": [2], "D25": [3]}), "d25"),
     {"download_dir": "x"}, "Did you mean 'D25'?"),
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
    lines = "".join(traceback.format_exception(caught.value)).splitlines()
    assert len([line for line in lines if "pytest" not in line]) < 20
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
# What is right, at least for some calls; an option takes one of these or what nobody thought of.
GOOD = {
    "size": [1, 8, "30 arcsec", (4, 6), 12 * u.arcsec, [3, 5] * u.arcsec, 4000, "64"],
    "bands": ["r", "grz", ["g", "z"], ("W1",), "i", "r,W2", "rr", "Y"],
    "products": ["image", "image,invvar", ["nexp", "maskbits"], "psf", "wisem1", "resid", "depth"],
    "release": ["dr10", "dr9", 8, "DR11", "dr5", "latest"],
    "region": ["auto", "south", "north"],
    "layer": ["ls-dr10", "ls-dr9-north", "unwise-neo7", "sdss", "ls-dr10-model",
              ["ls-dr10", "sdss"]],
    "pixel_scale": [1 * u.arcsec, "0.5 arcsec", 0.262 * u.arcsec, "1e-3 arcsec", "1 deg"],
    "rotation": [30 * u.deg, "0.5 rad", 400 * u.deg, "-90 deg"],
    "wise_grid": ["native", "optical"],
    "source": ["auto", "bricks", "viewer", "files", "tap", "sweeps", ("viewer", "bricks"), ["tap"]],
    "wcs": [WCS(naxis=2), {"NAXIS": 2}, lambda row: None],
    "on_missing": ["raise", "warn"], "convert_flux": [True, False, None],
    "allow_unknown_layer": [True, False], "cache": [True, False], "to_sky": [True, False],
    "radius": ["30 arcsec", 1 * u.arcmin, 0 * u.deg, "1 deg", 40 * u.deg, "-1 arcsec"],
    "width": ["1 arcmin", 2 * u.arcmin], "height": ["1 arcmin", 20 * u.arcsec],
    "polygon": [SkyCoord([45, 45.1, 45.1], [0, 0, 0.1], unit="deg"), [(45, 0), (45.1, 0), (45, 1)],
                [(45, 0), (45, 0), (45, 0)]],
    "ids": [[(10000, 330368, 5)], 5, [1, 2], (10**30, 1, 1),
            Table({"release": [10000], "brickid": [3], "objid": [1]})],
    "columns": ["ra,dec", ["flux_r", "mag_r"], "no_such", [], "RA", "ra, flux_g*2"],
    "column_filters": [{"flux_r": (1, None)}, {"type": "PSF"}, {"flux_r": "> 5"},
                       {"mag_r": "<= 20"}, {"type": ["PSF", "EXP"]}, {"maskbits": "&"},
                       {"flux_r": 3 * u.arcsec}],
    "primary": [True, False], "drop_duplicates": [True, False], "async_job": [False],
    "maskbits": ["BRIGHT", ["BRIGHT", "MEDIUM"], "0x1", "NOTHING", 3],
    "maxrec": [1, 0, 10**7, "5"], "bit_names": [True, False], "observed": [True, False],
    "max_depth": [5, 8], "zoom": [14, 3, 1.5], "find": ["best", "all"], "epoch": ["J2000", 2015.5],
    "verify": ["warn", "strict", False], "refresh": [False], "probe": [False], "id_column": ["x"],
    "ra": ["ra", "RA"], "dec": ["dec", "x"], "name": ["name", "id"],
}  # fmt: skip
PLACES = st.one_of(st.just(PLACE), st.sampled_from([STAR, [PLACE], STARS[-3]]), ODD)
# These are not asked for more than what they would ask.
ASKED = (
    "get_cutout", "get_cutouts", "get_picture", "get_psf", "get_brick_files", "query_bricks",
    "query_exposures", "query_object", "query_region", "query_tractor",
)  # fmt: skip
ANSWERED = ("covers", "query_maps", "viewer_url", "list_bands", "list_columns", "get_moc",
            "list_products", "get_image_list", "crossmatch")  # fmt: skip
N_EXAMPLES = int(os.environ.get("ASTROQUERY_LIS_FUZZ", "40"))
FUZZ = settings(
    max_examples=N_EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)


@st.composite
def _arguments(draw, names):
    """Draw options of a method, most of them right."""
    known = st.sampled_from([name for name in names if name in GOOD])
    options = {}
    for name in draw(st.lists(known, max_size=4, unique=True)):
        is_odd = draw(st.integers(0, 3)) == 0
        options[name] = draw(ODD if is_odd else st.sampled_from(GOOD[name]))
    return options


@pytest.mark.parametrize("method", ASKED + ANSWERED)
@FUZZ
@given(data=st.data())
def test_any_arguments_are_right_or_refused_by_this_package(sky, survey, method, data):
    call = getattr(survey, method)
    names = list(inspect.signature(call).parameters)
    options = data.draw(_arguments(names))
    places = [] if names[0] in GOOD else [data.draw(PLACES)]
    if method in ASKED:
        options["get_query_payload"] = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            answer = call(*places, **options)
        except InvalidRequestError as error:
            answer = error  # refused before anything was asked
        except LegacySurveyError:
            return
    assert answer is not None
    assert not [r for r in sky.requests if method in ASKED and "sesame" not in r.path]


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


@pytest.mark.parametrize(
    ("method", "args", "option"),
    [
        ("download_cutouts", ([(45.09, 0.062)], 8), "download_dir"),
        ("get_brick_files", ("0451p000",), "download_dir"),
        ("get_exposure_files", ("45.09 0.062",), "download_dir"),
        ("query_maps", ("45.09 0.062", "nexp"), "download_dir"),
        ("verify", (), "tree"),
    ],
)
def test_what_is_no_path_is_refused_before_any_request(sky, survey, method, args, option):
    sky.requests.clear()
    with pytest.raises(InvalidRequestError, match=f"{option}=3 must be the path") as caught:
        getattr(survey, method)(*args, **{option: 3})
    assert caught.value.parameter == option
    assert len(sky.requests) == 0


@pytest.mark.parametrize("zoom", [-1, 21, 15.5, "15", None, True, float("nan"), [14]])
def test_a_zoom_that_no_map_has_is_refused(sky, survey, zoom):
    with pytest.raises(InvalidRequestError, match="zoom=.* must be a whole number from 0 to 20"):
        survey.viewer_url("star", zoom=zoom)
    assert len(sky.requests) == 0
    assert survey.viewer_url(PLACE, zoom=np.int64(14)).endswith("&zoom=14")


# The rest of a call, wrong in one option, beside a name that would be looked up.
WRONG_BESIDE_A_NAME = [
    ("viewer_url", {"layer": "none"}),
    ("query_tractor", {"radius": 5}),
    ("query_tractor", {"width": "1 arcmin", "height": -1 * u.deg}),
    ("query_tractor", {"height": "1 arcmin"}),
    ("query_bricks", {"radius": "far"}),
    ("get_brick_files", {"radius": 5}),
    ("get_brick_files", {"download_dir": 3}),
    ("covers", {"layer": "none"}),
    ("covers", {"layer": "ls-dr9", "bands": "i"}),
    ("covers", {"layer": "ls-dr9", "release": "dr9"}),
    ("covers", {"release": "dr99"}),
    ("covers", {"region": "east"}),
    ("covers", {"bands": "u"}),
    ("query_maps", {"products": "chi3"}),
    ("query_maps", {"bands": "u"}),
    ("query_maps", {"release": "dr99"}),
    ("query_maps", {"download_dir": 3}),
    ("get_cutout", {"bands": "u"}),
    ("get_cutout", {"size": 0}),
    ("get_cutout", {"release": "dr99"}),
    ("get_cutout", {"layer": "none"}),
    ("get_cutout", {"rotation": 30}),
    ("get_psf", {"bands": "u"}),
    ("get_psf", {"region": "east"}),
    ("get_picture", {"bands": "?"}),
    ("get_picture", {"size": 0}),
]


@pytest.mark.parametrize(("method", "options"), WRONG_BESIDE_A_NAME, ids=str)
def test_no_name_is_looked_up_for_a_call_that_is_wrong(sky, survey, method, options):
    with pytest.raises(InvalidRequestError):
        getattr(survey, method)("star", **options)
    assert len(sky.requests) == 0


@pytest.mark.parametrize("executor", ["thread", 4, [1]])
@pytest.mark.parametrize("method", ["download_cutouts", "download_psfs", "get_brick_files"])
def test_a_wrong_executor_is_refused_first(sky, survey, tmp_path, method, executor):
    folder = tmp_path / "new"
    with pytest.raises(InvalidRequestError, match="executor=.*must be a concurrent.futures"):
        getattr(survey, method)([PLACE], download_dir=folder, executor=executor)
    assert len(sky.requests) == 0
    assert not folder.exists()


def test_no_names_are_looked_up_for_a_table_without_good_ids(sky, survey):
    table = Table({"main_id": ["star", "NGC 1"], "key": [0.5, 1.5]})
    with pytest.raises(InvalidRequestError, match="id_column='key' must hold one integer"):
        survey.query_maps(table, "nexp", id_column="key")
    assert len(sky.requests) == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("region", None),
        ("region", ["south"]),
        ("region", Path("south")),
        ("release", np.float64(10)),
        ("release", Path("dr10")),
        ("release", ["dr10"]),
    ],
)
def test_release_and_region_are_the_same_to_every_method(sky, survey, option, value):
    survey.query_tractor(PLACE, radius="5 arcsec", **PAYLOAD)
    for method, size in (("query_tractor", {"radius": "5 arcsec"}), ("get_cutout", {"size": 8})):
        with pytest.raises(InvalidRequestError) as caught:
            getattr(survey, method)(PLACE, **size, **{option: value}, **PAYLOAD)
        assert (caught.value.parameter, caught.value.value) == (option, value)
    assert len(sky.requests) == 0


@pytest.mark.parametrize("depth", [True, -1, 30, 5.0])
def test_a_depth_that_no_moc_has_is_refused(sky, survey, depth):
    with pytest.raises(InvalidRequestError, match="max_depth=.* must be a whole number from 0"):
        survey.get_moc(max_depth=depth)


def test_settings_are_refused_by_name(sky, survey, tmp_path, monkeypatch):
    for value in (True, "5", float("nan"), 0, 5 * u.s):
        with pytest.raises(InvalidRequestError, match="timeout=.* must be a positive number"):
            survey.timeout = value
    survey.timeout = np.float32(5)
    assert survey.timeout == 5.0
    for value in (5, "", b"here", ["here"]):
        with pytest.raises(InvalidRequestError, match="cache_location=.* must be the path of a"):
            survey.cache_location = value
    monkeypatch.chdir(tmp_path)
    survey.cache_location = "here"
    monkeypatch.chdir("/")
    assert survey.cache_location == tmp_path / "here"
    survey.cache_location = None
    assert survey.cache_location != tmp_path / "here"


@pytest.mark.parametrize("age", [np.nan * u.s, np.inf * u.s, 5 * u.deg, [1, 2] * u.s])
def test_an_age_that_no_file_has_removes_nothing(sky, survey, age):
    survey.get_cutout(PLACE, 8, bands="r")
    size = survey.cache_info()["bytes"]
    with pytest.raises(InvalidRequestError, match="older_than=.*must be a Quantity of time"):
        survey.clear_cache(older_than=age)
    assert survey.cache_info()["bytes"] == size > 0


@pytest.mark.parametrize("size", [np.array(8), np.ma.masked, np.array([[8, 8]])])
def test_a_size_in_an_array_of_other_dimensions_is_refused(sky, survey, size):
    for call in (survey.get_cutout, survey.get_picture):
        with pytest.raises(InvalidRequestError, match="size=.* must be an int number of pixels"):
            call(PLACE, size)
    assert len(sky.requests) == 0


@pytest.mark.parametrize("place", [(1j, 0), (45 + 0j, 0.0), [np.array([45j]), np.array([0.0])]])
def test_complex_numbers_are_no_positions(sky, survey, place):
    with pytest.raises(InvalidRequestError, match="must be a SkyCoord"):
        survey.covers(place)


def test_rows_without_a_position_name_no_files(sky, survey):
    for value in (Table({"ra": [np.nan], "dec": [0.0]}), [], SkyCoord([], [], unit="deg")):
        with pytest.raises(InvalidRequestError, match="none of them is a position on the sky"):
            survey.get_brick_files(value, products="maskbits")
    assert len(sky.requests) == 0


def test_a_file_that_is_not_there_is_named_by_its_parameter(sky, survey, tmp_path):
    with pytest.raises(InvalidRequestError, match="coordinates=.*cannot be read") as caught:
        survey.covers(tmp_path / "none.csv")
    assert caught.value.parameter == "coordinates"
    with pytest.raises(InvalidRequestError, match="download_dir='' must be the path"):
        survey.query_maps(PLACE, download_dir="")
