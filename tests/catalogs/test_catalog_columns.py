"""Columns by name, columns of one's own, and files with columns of odd kinds."""

import shutil
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

from astroquery_lis import conf, photometry, sandbox
from astroquery_lis.exceptions import (
    CoverageWarning,
    InvalidRequestError,
    MissingDataError,
    RefusedQueryError,
    ServiceDownError,
    ServiceTimeoutError,
)
from astroquery_lis.survey.bricks import brick_id, name_of
from astroquery_lis.survey.paths import file_path

HERE = SkyCoord(190.1086, 1.2005, unit="deg")


@pytest.fixture
def base():
    brick = int(brick_id(HERE.ra.deg, HERE.dec.deg))
    return Table(
        {
            "release": np.full(3, 9010, "i2"),
            "brickid": np.full(3, brick, "i4"),
            "objid": np.arange(3, dtype="i4"),
            "brick_primary": np.ones(3, bool),
            "maskbits": np.array([0, 2, 2], "i2"),
            "type": ["PSF", "REX", "PSF"],
            "ra": HERE.ra.deg + np.array([0, 1e-4, 2e-4]),
            "dec": np.full(3, HERE.dec.deg),
            "flux_r": np.array([1, 20, 300], "f4"),
        }
    )


@pytest.fixture
def ask(survey, tmp_path):
    """Query a folder that holds one file with the rows of a table."""

    def run(table, **options):
        brick = name_of(int(table["brickid"][0]))
        path = tmp_path / file_path("tractor", "dr9", "south", brick=brick)
        path.parent.mkdir(parents=True, exist_ok=True)
        table.write(path, overwrite=True)
        options = {"radius": "5 arcsec", "release": "dr9", "mirror": tmp_path, **options}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CoverageWarning)
            return survey.query_tractor(HERE, **options)

    return run


@pytest.fixture
def tap(sky, survey):
    with conf.set_temp("tap_url", sky.tap_url), conf.set_temp("retries", 0):
        yield survey
    sky.tap.has_q3c = True


def test_columns_of_odd_kinds_are_read_as_astropy_reads_them(base, ask, tmp_path):
    limits = {kind: np.iinfo(kind) for kind in ("i1", "u2", "u4", "u8")}
    for kind, limit in limits.items():
        base[f"own_{kind}"] = np.array([limit.min, 1, limit.max], kind)
    base["photsys"] = ["S", "N", "S"]
    base["grid"] = np.arange(18, dtype="f4").reshape(3, 2, 3)
    base["words"] = [["ab", "c"], ["d", ""], ["e", "fgh"]]
    base["wave"] = np.array([1 + 2j, 0, -1j])
    rows = ask(base, columns="all")
    (path,) = tmp_path.rglob("tractor-*.fits")
    expected = Table.read(path)
    for name in expected.colnames:
        values = np.asarray(expected[name])
        if values.dtype.kind == "S":
            values = np.char.decode(values)
        assert rows[name].shape == values.shape, name
        assert np.array_equal(rows[name], values), name
        assert rows[name].dtype.kind == values.dtype.kind, name


def test_columns_of_a_server_of_ones_own_are_named(base, ask, tmp_path):
    tree = tmp_path / "tree"
    with sandbox.serve(root=tree, configure=False) as own:
        base["chi"] = [0.5, 0.6, 0.7] * u.arcsec
        local = ask(base, columns=["chi"])
        for path in tmp_path.glob("dr9/*/tractor/*/*"):
            copy = tree / path.relative_to(tmp_path)
            copy.parent.mkdir(parents=True)
            shutil.copy(path, copy)
        wanted = {"columns": "type, chi", "column_filters": {"chi": "> 550 mas"}}
        rows = ask(base, **wanted, mirror=own.mirror_url)
        assert rows["chi"].tolist() == local["chi"].tolist()[1:]
        assert rows["chi"].unit == u.arcsec
        with pytest.raises(InvalidRequestError, match="did you mean .*chi[?]"):
            ask(base, columns=["chii"], mirror=own.mirror_url)


@pytest.mark.parametrize("options", [{"maxrec": 0}, {"maskbits": "BRIGHTEST"}])
@pytest.mark.parametrize("own", [{"columns": "chi"}, {"column_filters": {"chi": ">0"}}])
def test_no_server_is_asked_for_own_columns_of_a_call_that_is_wrong(sky, survey, options, own):
    with pytest.raises(InvalidRequestError) as caught:
        survey.query_tractor(sky.positions["star"], radius="5 arcsec", **own, **options)
    assert caught.value.parameter in options
    assert len(sky.requests) == 0


def test_columns_of_ones_own_are_named_and_filtered(base, ask):
    base["chi"] = [0.5, 0.6, 0.7] * u.arcsec
    rows = ask(base, columns=["type", "chi"], column_filters={"chi": "> 550 mas"})
    assert rows["chi"].tolist() == [0.6, 0.7]
    assert rows["chi"].unit == u.arcsec
    with pytest.raises(InvalidRequestError, match="did you mean .*chi[?]"):
        ask(base, columns=["chii"])
    with pytest.raises(InvalidRequestError, match="source='tap' lacks chi"):
        ask(base, columns=["chi"], source="tap")
    for spelled in ({"release": "DR9"}, {"release": 9, "region": "South"}):
        assert ask(base, columns="chi", **spelled)["chi"].tolist() == [0.5, 0.6, 0.7]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("maskbits", {"maskbits": "BRIGHT"}),
        ("type", {}),
        ("flux_r", {"column_filters": {"flux_r": ">1"}}),
        ("flux_r", {"column_filters": {"mag_r": "<30"}}),
    ],
)
def test_a_column_that_the_selection_needs_and_the_file_lacks_is_an_error(base, ask, name, options):
    base.remove_column(name)
    with pytest.raises(MissingDataError, match=f"has no column {name}"):
        ask(base, columns="ra", **options)


def test_brief_is_what_people_look_at(base, ask):
    rows = ask(base, columns="brief")
    assert rows.colnames[:4] == ["ls_id", "ra", "dec", "type"]
    assert {"mag_r", "mag_err_r", "shape_r", "maskbits"} <= set(rows.colnames)
    assert len(rows.colnames) <= 16
    assert rows["mag_r"][0] == 22.5
    assert rows["mag_r"].unit == u.mag


def test_a_set_of_columns_comes_in_the_order_of_the_catalogue(base, ask, survey):
    base["chi"] = [0.5, 0.6, 0.7]
    columns = {"chi", "TYPE", "ra", "dec", "flux_r", "brickid", "maskbits"}
    order = [*survey.list_columns(release="dr9")["name"], "chi"]
    names = sorted({name.lower() for name in columns}, key=order.index)
    assert ask(base, columns=columns).colnames == names
    assert ask(base, columns={"all"}).colnames == ask(base, columns="all").colnames
    assert ask(base, columns={"brief"}).colnames == ask(base, columns="brief").colnames


@pytest.mark.parametrize("source", ["files", "tap", "viewer"])
def test_computed_columns_are_those_of_photometry_and_of_the_service(sky, tap, source):
    names = [f"{family}_r" for family in ("mag", "dered_mag", "dered_flux", "snr")] + ["g_r"]
    place = sky.positions["field"]
    ask = {"radius": "1 arcmin", "columns": [*names, "ls_id", "flux", "mw_transmission"]}
    with conf.set_temp("viewer_url", sky.viewer_url):
        rows = tap.query_tractor(place, **ask, source=source)
    assert np.allclose(
        rows["mag_r"], photometry.ab_magnitude(rows["flux_r"]).value, 1e-6, equal_nan=True
    )
    listed = ", ".join(f't."{name}"' for name in (*names, "ls_id"))
    own = tap.query_tap(f"SELECT {listed} FROM ls_dr10.tractor AS t")
    order = {number: row for row, number in enumerate(own["ls_id"])}
    own = own[[order[number] for number in rows["ls_id"]]]
    for name in names:
        service = np.ma.filled(np.ma.masked_invalid(own[name]), np.nan)
        assert np.isfinite(rows[name]).sum() > 20
        np.testing.assert_allclose(rows[name], service, 1e-5, 1e-4, err_msg=name)
    half = float(np.nanmedian(rows["dered_mag_r"]))
    cut = rows[np.asarray(rows["dered_mag_r"]).astype(float) < half]
    with conf.set_temp("viewer_url", sky.viewer_url):
        bright = tap.query_tractor(
            place, **ask, source=source, column_filters={"dered_mag_r": f"<{half!r}"}
        )
    assert bright["ls_id"].tolist() == cut["ls_id"].tolist()


def test_list_columns_lists_the_computed_ones(survey):
    columns = survey.list_columns(release="dr10")
    computed = set(columns["name"][columns["computed"]])
    assert {"mag_r", "mag_err_z", "dered_mag_w1", "snr_g", "g_r", "z_w1", "ra_err"} <= computed
    assert not {"ls_id", "flux_r"} & computed
    north = survey.list_columns(release="dr10", region="north")
    assert "mag_i" not in north["name"]


@pytest.mark.parametrize("async_job", [False, True])
def test_a_refused_connection_is_not_called_a_timeout(survey, async_job):
    with conf.set_temp("tap_url", "http://127.0.0.1:1/tap"), conf.set_temp("retries", 0):
        with pytest.raises(ServiceDownError, match="refused") as caught:
            survey.query_tap("SELECT 1", async_job=async_job)
        assert not isinstance(caught.value, ServiceTimeoutError)
        with pytest.raises(InvalidRequestError, match="maxrec"):
            survey.query_tap("SELECT 1", maxrec=0)


@pytest.mark.parametrize(
    ("message", "n_asked"),
    [
        ("relation does not exist", 1),
        ("column t.flux_q does not exist", 1),
        ("No such field known: flux_q", 1),
        ("Quota exceeded", 1),
        ("No such function Q3C_RADIAL_QUERY", 2),
        ("Could not parse your query: Expected end of text, found '('", 2),
    ],
)
def test_only_a_query_refused_for_its_cone_is_sent_again_as_a_box(sky, tap, message, n_asked):
    sky.faults.add("votable", "/tap/*", times=None, message=message)
    with pytest.raises(RefusedQueryError):
        tap.query_tractor(sky.positions["field"], radius="1 arcsec", columns="ra", source="tap")
    assert len(sky.requests) == n_asked


def test_maxrec_counts_rows_that_meet_what_was_asked(sky, tap):
    ask = {"radius": "1 arcmin", "columns": ["ls_id"], "source": "tap"}
    ask["column_filters"] = {"objid": ">0", "type": "!=PSF"}
    everything = tap.query_tractor(sky.positions["field"], **ask)
    assert len(everything) > 6
    rows = tap.query_tractor(sky.positions["field"], **ask, maxrec=len(everything))
    assert set(rows["ls_id"]) == set(everything["ls_id"])


def test_sources_are_asked_in_the_order_given(sky, tap):
    sky.faults.add("status", "/tap/*", times=None, code=503)
    with pytest.warns(Warning, match="TAP failed.*the Tractor files answer"):
        rows = tap.query_tractor(
            sky.positions["field"], radius="10 arcsec", columns="ra", source=("tap", "files")
        )
    assert rows.meta["source"] == "files"
    with pytest.raises(InvalidRequestError, match="source"):
        tap.query_tractor(sky.positions["field"], radius="1 arcsec", source=("tap", "file"))
