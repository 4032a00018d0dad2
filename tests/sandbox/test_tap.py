"""The simulated TAP service, asked by pyvo and compared with the Tractor files."""

import csv
import gc
import io
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
import pyvo
import requests
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.io.votable import parse
from astropy.table import Table, vstack
from pyvo.dal.exceptions import DALOverflowWarning

from astroquery_lis import sandbox
from astroquery_lis.sandbox import catalog, tap
from astroquery_lis.survey import paths

DATA = Path(__file__).with_name("data")
SPLIT_DEC = 32.375


def leaky(test):
    """Let pyvo lose a connection: it does not read the answer to the request that makes a job."""
    test = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")(test)
    return pytest.mark.filterwarnings("ignore::ResourceWarning")(test)


def overflowing(test):
    """Let pyvo warn of an overflow that was asked for, as it did before 1.7."""
    return pytest.mark.filterwarnings("ignore:Partial result set")(test)


@pytest.fixture
def session():
    with requests.Session() as session:
        yield session


@pytest.fixture
def service(sky, session):
    before = sky.tap.default_rows, sky.tap.has_q3c
    yield pyvo.dal.TAPService(sky.tap_url, session=session)
    sky.tap.default_rows, sky.tap.has_q3c = before


@pytest.fixture
def jobs(service):
    """The service, for tests that are `leaky`: what was lost is found before the next one."""
    yield service
    gc.collect()


@cache
def primary_rows(root, release, region):
    """Return the primary rows of a region's files."""
    parts = []
    for brick in catalog.CATALOG_TREES[release, region]:
        path = root / paths.file_path("tractor", release, region, brick=brick)
        with fits.open(path) as hdul:
            names = [name for name in hdul[1].columns.names if name[:3] not in ("lc_", "apf")]
            rows = Table({name: np.array(hdul[1].data[name]) for name in names})
        parts.append(rows[rows["brick_primary"]])
    return vstack(parts, metadata_conflicts="silent")


def in_order(table):
    return table[np.lexsort((table["objid"], table["brickid"], table["release"]))]


@pytest.mark.parametrize(
    "condition",
    [
        "'t' = Q3C_RADIAL_QUERY(t.ra, t.dec, {}, {}, {})",
        "'true' = q3c_radial_query(ra, dec, {}, {}, {})",
        "q3c_radial_query(t.ra, t.dec, {}, {}, {}) = 't'",
    ],
)
@pytest.mark.parametrize("place", ["field", "corner", "ra0", "split"])
def test_a_cone_has_the_rows_of_the_files(service, sky, condition, place):
    target, radius = sky.positions[place], 50 * u.arcsec
    where = condition.format(target.ra.deg, target.dec.deg, radius.to_value("deg"))
    query = f"SELECT ra, dec, release, brickid, objid FROM ls_dr10.tractor AS t WHERE {where}"
    found = in_order(service.run_sync(query).to_table())
    south = primary_rows(sky.root, "dr10", "south")
    north = primary_rows(sky.root, "dr9", "north")
    rows = vstack(
        [
            south[south["dec"] < SPLIT_DEC]["ra", "dec", "release", "brickid", "objid"],
            north[north["dec"] >= SPLIT_DEC]["ra", "dec", "release", "brickid", "objid"],
        ]
    )
    apart = SkyCoord(rows["ra"], rows["dec"], unit="deg").separation(target)
    expected = in_order(rows[apart <= radius])
    assert len(expected) > 5
    for name in expected.colnames:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize(
    ("table", "release", "region"),
    [
        ("ls_dr8.tractor_s", "dr8", "south"),
        ("ls_dr9.tractor_n", "dr9", "north"),
        ("ls_dr9.tractor_s", "dr9", "south"),
        ("ls_dr10.tractor_s", "dr10", "south"),
        ("ls_dr11.tractor_n", "dr11", "north"),
    ],
)
def test_a_table_of_one_region_is_its_files(service, sky, table, release, region):
    found = in_order(service.run_sync(f"SELECT * FROM {table}").to_table())
    rows = in_order(primary_rows(sky.root, release, region))
    assert len(found) == len(rows)
    compared = 0
    for name in set(rows.colnames) & set(found.colnames):
        expected = np.asarray(rows[name])
        if expected.dtype.kind == "S":
            expected = np.char.decode(expected)
        got = found[name]
        got = got.filled("" if expected.dtype.kind == "U" else 0) if got.mask is not None else got
        np.testing.assert_array_equal(np.asarray(got).astype(expected.dtype), expected, name)
        compared += 1
    assert compared > 130
    for number in range(5):
        np.testing.assert_array_equal(found[f"dchisq_{number + 1}"], rows["dchisq"][:, number])
    assert found["brick_primary"].dtype == np.int16
    assert found["gaia_phot_variable_flag"].dtype == np.int16
    assert found["wisemask_w1"].dtype == np.int16


def test_columns_types_and_units_are_those_of_a_real_answer(service):
    with open(DATA / "datalab_columns.csv", newline="") as file:
        rows = {row["name"]: (row["dtype"], row["unit"]) for row in csv.DictReader(file)}
    found = service.run_sync("SELECT TOP 60 * FROM ls_dr9.tractor WHERE type = 'PSF'").to_table()
    assert set(found.colnames) == set(rows)
    for name, (kind, unit) in rows.items():
        column = found[name]
        if kind[0] != "<":
            assert column.dtype == kind, name
        else:
            assert column.dtype.kind in "UO", name
        assert str(column.unit or "") == unit, name


def test_columns_that_the_north_lacks_hold_a_number_that_is_none(service):
    query = (
        "SELECT release, flux_i, flux_ivar_i, mag_i, nobs_i, anymask_i, flux_z, dec "
        "FROM ls_dr10.tractor WHERE dec > 30"
    )
    found = service.run_sync(query).to_table()
    north = found["release"] == 9011
    np.testing.assert_array_equal(north, found["dec"] >= SPLIT_DEC)
    assert 0 < north.sum() < len(found)
    for name in ("flux_i", "flux_ivar_i", "mag_i", "nobs_i", "anymask_i"):
        assert (found[name][north] == -9999).all()
        assert not (found[name][~north] == -9999).any()
    assert (found["flux_z"] > -100).all()


def test_computed_columns_are_what_they_say(service):
    query = (
        "SELECT flux_g, flux_r, flux_w4, flux_ivar_w4, mw_transmission_w4, mag_g, mag_r, mag_w4, "
        "dered_mag_w4, dered_flux_w4, snr_w4, g_r, ra, dec, glon, glat, elon, elat, random_id, "
        "release, brickid, objid, ls_id FROM ls_dr10.tractor"
    )
    table = service.run_sync(query).to_table()
    table = {name: np.asarray(table[name].astype(float)) for name in table.colnames}
    there = table["flux_w4"] > 0
    assert there.any()
    assert np.isnan(table["mag_w4"][~there]).all()
    assert np.isnan(table["dered_mag_w4"][~there]).all()
    magnitude = (table["flux_w4"][there] * 3.631 * u.uJy).to_value(u.ABmag)
    np.testing.assert_allclose(table["mag_w4"][there], magnitude, atol=1e-4)
    bare = table["flux_w4"] / table["mw_transmission_w4"]
    np.testing.assert_allclose(table["dered_flux_w4"], bare, rtol=1e-6)
    np.testing.assert_allclose(
        table["dered_mag_w4"][there], 22.5 - 2.5 * np.log10(bare[there]), atol=1e-5
    )
    snr = table["flux_w4"] * np.sqrt(table["flux_ivar_w4"])
    np.testing.assert_allclose(table["snr_w4"], snr, rtol=1e-6)
    seen = np.isfinite(table["g_r"])
    colour = (table["mag_g"] - table["mag_r"])[seen]
    np.testing.assert_allclose(table["g_r"][seen], colour, atol=1e-5)
    place = SkyCoord(table["ra"], table["dec"], unit="deg")
    galactic = SkyCoord(table["glon"], table["glat"], unit="deg", frame="galactic")
    assert place.separation(galactic.icrs).max() < 1e-6 * u.deg
    ecliptic = SkyCoord(table["elon"], table["elat"], unit="deg", frame="barycentricmeanecliptic")
    assert place.separation(ecliptic.icrs).max() < 1e-6 * u.deg
    assert 0 <= table["random_id"].min() < table["random_id"].max() < 100


@pytest.mark.parametrize(
    ("release", "shifts"),
    [("dr8", (40, 16)), ("dr9", (40, 16)), ("dr10", (40, 16)), ("dr11", (42, 22))],
)
def test_ids_are_packed_as_by_each_release(service, release, shifts):
    query = f"SELECT ls_id, release, brickid, objid FROM ls_{release}.tractor"
    for row in service.run_sync(query).to_table():
        number = int(row["release"]) << shifts[0] | int(row["brickid"]) << shifts[1]
        assert row["ls_id"] == number | int(row["objid"])


def test_missing_numbers_are_not_null_and_greater_than_all(service):
    def count(where):
        query = f"SELECT count(*) AS n FROM ls_dr10.tractor WHERE {where}"
        return int(service.run_sync(query).to_table()["n"][0])

    everything = count("1 = 1")
    assert count("mag_w4 IS NOT NULL") == everything
    assert count("flux_w4 <= 0") == count("mag_w4 > 99") > 0
    assert count("mag_w4 < 99") + count("flux_w4 <= 0") == everything
    assert count("ref_cat IS NULL") == everything - count("ref_cat IN ('GE', 'G2', 'L3')") > 0


def test_dr11_has_two_columns_in_each_others_place(service):
    query = "SELECT DISTINCT type, ref_cat FROM {}"
    swapped = service.run_sync(query.format("ls_dr11.tractor")).to_table()
    right = service.run_sync(query.format("ls_dr11.tractor_n")).to_table()
    assert {"PSF", "EXP"} <= set(swapped["ref_cat"])
    assert {"PSF", "EXP"} <= set(right["type"])
    assert "G3" in set(swapped["type"])


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT t.by FROM ls_dr10.tractor t", 'at or near "by"'),
        ("SELECT by FROM ls_dr10.tractor", 'at or near "by"'),
        ("SELECT nope FROM ls_dr10.tractor", "no such column: nope"),
        ('SELECT "nope" FROM ls_dr10.tractor', "no such column: nope"),
        ('SELECT ra FROM ls_dr10.tractor WHERE "nope" = 1', "no such column: nope"),
        ("SELECT ra FROM ls_dr10.nope", 'relation "ls_dr10.nope" does not exist'),
        ("SELECT ra FROM sqlite_master", 'relation "sqlite_master" does not exist'),
        ("SELECT ra FROM ls_dr10.tractor, sqlite_master", "error"),
        ("SELECT load_extension('x') FROM ls_dr10.tractor", "error"),
        ("SELECT ra FROM ls_dr10.tractor LIMIT 5", 'at or near "LIMIT"'),
        ("SELECT TOP ra FROM ls_dr10.tractor", 'at or near "TOP"'),
        ("DROP TABLE ls_dr10.tractor", "Only SELECT"),
        ("SELECT 1; DROP TABLE ls_dr10.tractor", 'at or near "; DROP'),
        ("SELECT ra FROM ls_dr10.tractor WHERE type = 'PSF", "at or near \"'PSF"),
        ("SELECT ra FROM ls_dr10.tractor WHERE (ra > 1", "error"),
        ("", "Only SELECT"),
        ("SELECT ra FROM ls_dr10.tractor WHERE q3c_radial_query(ra, dec, 1, 1, 1)", "condition"),
        ("SELECT ra FROM ls_dr10.tractor WHERE q3c_radial_query(ra, dec, 1, 1, 1) = 1", "cond"),
        (
            "SELECT ra FROM ls_dr10.tractor "
            "WHERE 1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', 45, 0, 0.1))",
            "not translated",
        ),
        (
            "SELECT ra FROM ls_dr10.tractor WHERE DISTANCE(POINT(ra, dec), POINT(1, 1)) < 1",
            "not translated",
        ),
    ],
)
def test_what_is_refused(service, query, message):
    with pytest.raises(pyvo.dal.DALQueryError) as caught:
        service.run_sync(query)
    assert message in str(caught.value)
    assert len(service.run_sync("SELECT TOP 1 ra FROM ls_dr10.tractor")) == 1


def test_what_is_understood(service):
    query = """
        SELECT TOP 3 t."by" AS y, UPPER(type) kind, POWER(flux_r, 2), LOG(flux_r), dered_mag_g
        FROM ls_dr10.tractor AS t -- a comment
        WHERE ra BETWEEN 45.0 AND 45.2 AND flux_r > 1 AND type LIKE 'P%'
        ORDER BY "by" DESC
    """
    table = service.run_sync(query).to_table()
    assert table.colnames[:2] == ["y", "kind"]
    assert set(table["kind"]) == {"PSF"}
    assert len(table) == 3
    assert list(table["y"]) == sorted(table["y"], reverse=True)
    power, log = (np.asarray(table[name]) for name in table.colnames[2:4])
    np.testing.assert_allclose(log, 0.5 * np.log(power), rtol=1e-9)
    joined = service.run_sync(
        "SELECT n.ra, s.flux_i FROM ls_dr9.tractor_n AS n JOIN ls_dr10.tractor_s AS s "
        "ON 't' = q3c_join(n.ra, n.dec, s.ra, s.dec, 0.0001)"
    )
    assert len(joined) > 20
    assert len(service.run_sync("SELECT ra FROM ls_dr10.tractor WHERE type LIKE 'psf'")) == 0
    inner = "SELECT TOP 4 ra FROM ls_dr10.tractor ORDER BY ra"
    assert len(service.run_sync(f"SELECT ra FROM ({inner}) AS q WHERE ra >= 0")) == 4


def test_every_expression_is_a_column_of_its_own(service):
    asked = "ra, ra + 1, POWER(ra, 2), POWER(dec, 2), ra, dec - 45"
    table = service.run_sync(f"SELECT TOP 2 {asked} FROM ls_dr10.tractor ORDER BY ra").to_table()
    assert table.colnames == ["ra", "column_2", "POWER", "POWER_", "ra_", "column_6"]
    ra, more, square, _, again, _ = (np.asarray(table[name]) for name in table.colnames)
    np.testing.assert_array_equal(more, ra + 1)
    np.testing.assert_allclose(square, ra**2)
    np.testing.assert_array_equal(again, ra)


@overflowing
def test_overflow_is_told_after_the_rows(service, sky, session):
    query = "SELECT ra FROM ls_dr10.tractor"
    whole = service.run_sync(query)
    assert whole.query_status == "OK"
    cut = service.run_sync(query, maxrec=7)
    assert (len(cut), cut.query_status) == (7, "OVERFLOW")
    exact = service.run_sync(query, maxrec=len(whole))
    assert (len(exact), exact.query_status) == (len(whole), "OK")
    sky.tap.default_rows = 11
    with pytest.warns(DALOverflowWarning):
        limited = service.run_sync(query)
    assert (len(limited), limited.query_status) == (11, "OVERFLOW")
    parameters = {"REQUEST": "doQuery", "LANG": "ADQL", "QUERY": query, "MAXREC": "0"}
    answer = session.get(f"{sky.tap_url}/sync", params=parameters)
    document = parse(io.BytesIO(answer.content))
    assert len(document.get_first_table().array) == 0
    assert [info.value for info in document.resources[0].infos if "STATUS" in info.name] == [
        "OK",
        "OVERFLOW",
    ]


def test_a_query_that_takes_too_long_is_given_up(service, monkeypatch):
    query = (
        "SELECT count(*) FROM ls_dr10.tractor a, ls_dr10.tractor b, ls_dr10.tractor c, "
        "ls_dr10.tractor d WHERE a.ra + b.ra + c.ra + d.ra < 0"
    )
    monkeypatch.setattr(tap, "_LONGEST_QUERY_S", 0.2)
    with pytest.raises(pyvo.dal.DALQueryError, match="interrupted"):
        service.run_sync(query)
    assert len(service.run_sync("SELECT TOP 1 ra FROM ls_dr10.tractor")) == 1


def test_services_without_q3c_refuse_its_functions(service, sky):
    sky.tap.has_q3c = False
    query = "SELECT ra FROM ls_dr10.tractor WHERE 't' = Q3C_RADIAL_QUERY(ra, dec, 45, 0, 0.1)"
    with pytest.raises(pyvo.dal.DALQueryError, match="No such function known"):
        service.run_sync(query)
    sky.tap.has_q3c = True
    assert len(service.run_sync(query)) > 50


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"REQUEST": "other"}, "REQUEST=other"),
        ({"LANG": "SQL"}, "LANG=SQL"),
        ({"FORMAT": "fits"}, "FORMAT=fits"),
        ({"RESPONSEFORMAT": "csv"}, "FORMAT=csv"),
        ({"MAXREC": "many"}, "MAXREC=many"),
        ({"UPLOAD": "t,http://x"}, "UPLOAD"),
    ],
)
def test_wrong_parameters_are_refused(sky, session, wrong, message):
    data = {"REQUEST": "doQuery", "LANG": "ADQL", "QUERY": "SELECT ra FROM ls_dr10.tractor"}
    answer = session.post(f"{sky.tap_url}/sync", data=data | wrong)
    document = parse(io.BytesIO(answer.content))
    (info,) = document.resources[0].infos
    assert (info.name, info.value) == ("QUERY_STATUS", "ERROR")
    assert message in info.content


def test_a_table_that_is_uploaded_is_refused(service):
    uploads = {"mine": Table({"ra": [45.0]})}
    with pytest.raises(pyvo.dal.DALQueryError, match="UPLOAD is not supported"):
        service.run_sync("SELECT ra FROM TAP_UPLOAD.mine", uploads=uploads)


@overflowing
@leaky
def test_a_job_runs_to_its_end(jobs, sky, session):
    query = "SELECT TOP 5 ra, dec FROM ls_dr10.tractor"
    job = jobs.submit_job(query, maxrec=3)
    assert job.phase == "PENDING"
    assert job.query == query
    job.run().wait(timeout=30)
    assert job.phase == "COMPLETED"
    result = job.fetch_result()
    assert (len(result), result.query_status) == (3, "OVERFLOW")
    assert job.result_uri == f"{sky.tap_url}/async/{job.job_id}/results/result"
    url = job.url
    job.delete()
    assert session.get(url).status_code == 404
    assert len(jobs.run_async(query)) == 5


@leaky
def test_a_job_that_cannot_be_done_ends_in_error(jobs, session):
    job = jobs.submit_job("SELECT nope FROM ls_dr10.tractor")
    job.run().wait(timeout=30)
    assert job.phase == "ERROR"
    with pytest.raises(pyvo.dal.DALQueryError, match="no such column: nope"):
        job.raise_if_error()
    assert "no such column" in session.get(f"{job.url}/error").text
    assert session.get(f"{job.url}/results/result").status_code == 404
    assert session.get(f"{job.url}x").status_code == 404


@leaky
def test_a_job_can_be_aborted_before_it_runs(jobs, session):
    job = jobs.submit_job("SELECT TOP 5 ra FROM ls_dr10.tractor")
    job.abort()
    assert job.phase == "ABORTED"
    job.run()
    assert session.get(f"{job.url}/phase").text == "ABORTED"
    assert session.get(f"{job.url}/results/result").status_code == 404
    assert session.post(f"{job.url}/owner", data={}).status_code == 400


def test_the_service_describes_itself(service, sky, session):
    names = {table.name for table in service.tables.values()}
    assert {"ls_dr9.tractor_n", "ls_dr10.tractor", "ls_dr11.tractor", "tap_schema.columns"} <= names
    assert "ls_dr10.tractor_n" not in names
    columns = {c.name: c for c in service.tables["ls_dr10.tractor"].columns}
    assert columns["shape_r"].unit == "arcsec"
    assert columns["ra"].unit is None
    query = "SELECT column_name, datatype, unit FROM TAP_SCHEMA.columns WHERE table_name = '{}'"
    listed = service.run_sync(query.format("ls_dr10.tractor")).to_table()
    assert set(listed["column_name"]) == set(columns)
    with pytest.raises(pyvo.dal.DALQueryError, match="schema_name"):
        service.run_sync("SELECT schema_name FROM TAP_SCHEMA.columns")
    assert service.maxrec == sky.tap.default_rows
    language = service.get_tap_capability().get_adql()
    functions = language.get_feature_list("ivo://ivoa.net/std/TAPRegExt#features-udf")
    assert any(function.form.startswith("q3c_radial_query") for function in functions)
    assert "true" in session.get(f"{sky.tap_url}/availability").text
    assert session.get(f"{sky.tap_url}/tables/nope").status_code == 404
    assert session.get(f"{sky.tap_url}/examples").status_code == 404


def test_faults_hit_the_service_as_they_do_the_files(service, sky):
    query = "SELECT TOP 1 ra FROM ls_dr10.tractor"
    sky.faults.add("votable", "/tap/sync", message="the table is locked")
    with pytest.raises(pyvo.dal.DALQueryError, match="the table is locked"):
        service.run_sync(query)
    for kind, options in (
        ("status", {"code": 500}),
        ("status", {"code": 429, "retry_after": 7}),
        ("html", {}),
        ("refuse", {}),
    ):
        with sky.faults.add(kind, "/tap/*", **options) as fault:
            with pytest.raises((pyvo.dal.DALServiceError, pyvo.dal.DALFormatError)):
                service.run_sync(query)
            assert fault.hits == 1
    assert len(service.run_sync(query)) == 1
    assert sky.requests[-1].path == "/tap/sync"


def test_many_at_once(sky):
    def ask(number):
        with requests.Session() as session:
            service = pyvo.dal.TAPService(sky.tap_url, session=session)
            query = f"SELECT ra, objid FROM ls_dr10.tractor WHERE objid = {number}"
            return service.run_sync(query).to_table()

    with ThreadPoolExecutor(6) as pool:
        for number, table in enumerate(pool.map(ask, range(12))):
            assert len(table) > 0
            assert set(table["objid"]) == {number}


def test_the_package_asks_it_while_it_runs(sky):
    from astroquery_lis import _conf, conf

    before = _conf.setting("tap_url")
    assert before == conf.tap_url == "https://datalab.noirlab.edu/tap"
    with sandbox.serve(root=sky.root) as other:
        assert _conf.setting("tap_url") == other.tap_url
    assert _conf.setting("tap_url") == before
