"""The catalogue in the query class: refusals before any request, payloads, lists, names."""

import pickle

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.coordinates.name_resolve import sesame_url

from astroquery_lis import LegacySurvey, conf, sandbox
from astroquery_lis.exceptions import InvalidRequestError

HERE = SkyCoord(45.1312, 0.0047, unit="deg")


@pytest.mark.parametrize(
    ("arguments", "parameter", "match"),
    [
        ({"radius": 5}, "radius", "a bare number is not one"),
        ({"radius": 0 * u.deg}, "radius", "above 0"),
        ({"width": 1 * u.deg}, "radius", "Give one of"),
        ({"radius": None}, "radius", "Give one of"),
        ({"columns": ["flux_rr"], "mirror": "nersc"}, "columns", "did you mean flux_r"),
        ({"column_filters": {"flux_r": ">x"}}, "column_filters", "finite numbers"),
        ({"column_filters": "flux_r>1"}, "column_filters", "dict"),
        ({"maskbits": "SHINY"}, "maskbits", "NPRIMARY, BRIGHT"),
        ({"maskbits": "SUB_BLOB", "release": "dr9"}, "maskbits", "not a bit of dr9"),
        ({"maxrec": -1}, "maxrec", "1 or more"),
        ({"source": "disk"}, "source", "auto, tap, files, sweeps, viewer"),
        ({"on_missing": "ignore"}, "on_missing", "warn, raise"),
        ({"release": "dr99"}, "release", "dr5"),
        ({"region": "north", "release": "dr7"}, "region", "auto, south"),
        ({"primary": 1}, "primary", "True or False"),
        ({"mirror": "nowhere"}, "mirror", "registered"),
        ({"coordinates": 45.0}, "coordinates", "SkyCoord"),
        ({"source": "tap", "release": "dr7"}, "source", "dr8 to dr11"),
        ({"source": "tap", "columns": "apflux"}, "source", "apflux_g"),
        ({"source": "viewer", "radius": 3 * u.deg}, "source", "up to 1 deg"),
    ],
)
def test_bad_input_is_refused_by_name_before_any_request(sky, survey, arguments, parameter, match):
    arguments = {"coordinates": HERE, "radius": 5 * u.arcsec, **arguments}
    with (
        conf.set_temp("tap_url", sky.tap_url),
        conf.set_temp("viewer_url", sky.viewer_url),
        pytest.raises(InvalidRequestError, match=match) as caught,
    ):
        survey.query_tractor(arguments.pop("coordinates"), **arguments)
    assert caught.value.parameter == parameter
    assert len(sky.requests) == 0


def test_payloads_send_nothing(sky, survey):
    ask = {"radius": 5 * u.arcsec, "get_query_payload": True}
    with conf.set_temp("viewer_url", sky.viewer_url):
        urls = survey.query_tractor(HERE, source="files", **ask)["urls"]
        assert urls == [f"{sky.mirror_url}/dr10/south/tractor/045/tractor-0451p000.fits"]
        query = survey.query_tractor(HERE, source="tap", columns="flux_r", **ask)["query"]
        assert query.startswith('SELECT t."flux_r", t."ra"')
        assert "FROM ls_dr10.tractor AS t" in query
        (url,) = survey.query_tractor(HERE, source="viewer", **ask)["urls"]
        assert url.startswith(f"{sky.viewer_url}/ls-dr10/cat.fits?ralo=45.1")
    assert survey.query_tap("SELECT 1", get_query_payload=True)["query"] == "SELECT 1"
    assert len(sky.requests) == 0


def test_the_standard_names(sky, survey):
    rows = survey.query_tractor(HERE, radius=5 * u.arcsec)
    again = survey.query_region(HERE, radius=5 * u.arcsec)
    assert list(rows["ls_id"]) == list(again["ls_id"])
    for frame in ("galactic", "fk5"):
        again = survey.query_region(HERE.transform_to(frame), radius=5 * u.arcsec)
        assert list(rows["ls_id"]) == list(again["ls_id"])
    with pytest.raises(InvalidRequestError, match="object_name"):
        survey.query_object(HERE, radius=5 * u.arcsec)
    with pytest.raises(TypeError, match="name the others: radius="):
        survey.query_tractor(HERE, 5 * u.arcsec)


def test_an_object_by_its_name(sky, survey):
    name = next(iter(sandbox.server.NAMES))
    with sesame_url.set([sky.sesame_url]):
        place = SkyCoord.from_name(name)
        rows = survey.query_object(name, radius=20 * u.arcsec, columns=["ls_id"])
    expected = survey.query_region(place, radius=20 * u.arcsec, columns=["ls_id"])
    assert list(rows["ls_id"]) == list(expected["ls_id"])


def test_list_columns():
    columns = LegacySurvey.list_columns()
    names = ["name", "family", "band", "dtype", "length", "unit", "core", "computed"]
    assert columns.colnames == names
    row = columns[list(columns["name"]).index("flux_ivar_r")]
    assert (row["family"], row["band"], row["unit"]) == ("flux_ivar", "r", "1 / nmgy2")
    assert "flux_i" not in LegacySurvey.list_columns(region="north")["name"]
    assert "flux_i" not in LegacySurvey.list_columns(release="dr9")["name"]
    assert not columns["core"][list(columns["name"]).index("apflux_g")]


def test_configured_sandbox_answers_by_every_source():
    with sandbox.serve() as sky:
        place = sky.positions["corner"]
        by_tap = LegacySurvey.query_tractor(place, radius=20 * u.arcsec, columns=["flux_r"])
        assert by_tap.meta["source"] == "tap"
        assert by_tap.meta["url"] == sky.tap_url
        by_files = LegacySurvey.query_tractor(
            place, radius=20 * u.arcsec, columns=["flux_r"], source="files"
        )
        assert np.array_equal(by_tap["flux_r"], by_files["flux_r"])
        afterwards = LegacySurvey.query_tractor(place, radius=20 * u.arcsec, columns=["flux_r"])
        assert afterwards.meta["reason"] == "its Tractor files are on this computer"


def test_a_copy_asks_the_same(sky, survey):
    rows = survey.query_tractor(HERE, radius=5 * u.arcsec)
    copy = pickle.loads(pickle.dumps(survey))
    assert list(copy.query_tractor(HERE, radius=5 * u.arcsec)["ls_id"]) == list(rows["ls_id"])
