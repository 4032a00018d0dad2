"""Reference catalogues for tweakreg: which sources, where, and in what form."""

from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, Table
from astropy.time import Time

from astroquery_lis.exceptions import (
    InvalidRequestError,
    NoCoverageError,
    ServiceDownError,
    StageWarning,
)
from astroquery_lis.jwst_stage.legacy.refcat import Cuts, make_reference, tractor_reference
from astroquery_lis.jwst_stage.legacy_methods import LegacyMethods
from astroquery_lis.jwst_stage.planning.exposures import Exposure
from astroquery_lis.sandbox.catalog import catalog
from astroquery_lis.survey.bitmasks import maskbits

from .legacy_mosaic import EPOCH, sources
from .test_legacy_footprints import ring

STAGE = LegacyMethods()
REGION = ring(45.09, 0.062, 0.02)
WIDE = ring(45.125, 0.0, 0.12)


def reference(survey, region=WIDE, epoch=EPOCH, **more):
    return STAGE.astrometric_reference(region, survey=survey, epoch=epoch, **more)


def rows_of(table):
    """Return the rows of the embedded catalogue that a reference was made of."""
    rows = catalog("dr10")
    rows = rows[rows["resolved"]]
    names = ("release", "brickid", "objid")
    place = {key: at for at, key in enumerate(zip(*(rows[n] for n in names), strict=True))}
    return rows[[place[key] for key in zip(*(table[n] for n in names), strict=True)]]


def test_stars_are_where_astropy_carries_them(survey):
    table = reference(survey)
    table = table[table["kind"] == "star"]
    assert len(table) > 25
    true = sources(EPOCH)
    true = true[true["is_star"]]
    then = SkyCoord(true["ra"], true["dec"], unit="deg")
    now = SkyCoord(table["RA"], table["DEC"])
    _, apart, _ = now.match_to_catalog_sky(then)
    # What is left is the parallax, which the oracle has not: 0.9 mas at most here.
    assert apart.to_value(u.mas).max() < 1.0
    still = SkyCoord(rows_of(table)["ra"], rows_of(table)["dec"], unit="deg")
    assert now.separation(still).to_value(u.mas).max() > 5


def test_galaxies_are_where_tractor_has_them(survey):
    table = reference(survey)
    table = table[table["kind"] == "galaxy"]
    rows = rows_of(table)
    assert len(table) > 25
    assert np.array_equal(table["RA"], rows["ra"])
    assert np.array_equal(table["DEC"], rows["dec"])
    assert set(np.char.strip(np.array(rows["type"], str))) <= {"REX", "EXP", "DEV", "SER"}
    assert rows["shape_r"].max() <= 0.6
    assert not np.array(table["pmra"]).any()


def test_stars_without_a_motion_are_left_out(survey):
    table = reference(survey)
    rows = rows_of(table)
    point = np.char.strip(np.array(rows["type"], str)) == "PSF"
    assert point.sum() == (table["kind"] == "star").sum()
    assert np.char.startswith(np.array(rows["ref_cat"], str)[point], "G").all()
    # There are such stars in the region.
    every = survey.query_tractor(SkyCoord(45.125, 0, unit="deg"), radius=0.08 * u.deg)
    assert ((every["type"] == "PSF") & (every["ref_cat"] == "")).sum() > 5


@pytest.mark.parametrize(
    ("cut", "loose", "test"),
    [
        ({"max_error": 5 * u.mas}, {}, lambda rows, table: table["error_mas"].max() <= 5),
        ({"max_radius": 0.3 * u.arcsec}, {}, lambda rows, table: rows["shape_r"].max() <= 0.3),
        ({"max_fracflux": 0.001}, {}, None),
        ({"min_snr": 60}, {"min_snr": 1}, None),
        ({"galaxies": False}, {}, lambda rows, table: set(table["kind"]) == {"star"}),
        (
            {"maskbits": ("BRIGHT", "MEDIUM", "GALAXY")},
            {"maskbits": "GALAXY"},
            lambda rows, table: not (rows["maskbits"] & (1 << 1 | 1 << 11 | 1 << 12)).any(),
        ),
    ],
)
def test_cuts(survey, cut, loose, test):
    strict, wide = reference(survey, **cut), reference(survey, **loose)
    assert 0 < len(strict) < len(wide)
    assert test is None or test(rows_of(strict), strict)


def test_weights_follow_the_errors(survey):
    table = reference(survey)
    assert table["weight"].max() == 1
    assert table["weight"].min() > 0
    for kind in ("star", "galaxy"):
        mine = table[table["kind"] == kind]
        order = np.argsort(mine["error_mas"])
        assert np.all(np.diff(mine["weight"][order]) <= 0)
    galaxy = table[table["kind"] == "galaxy"]
    # An error of 20 mas of a galaxy's centroid is added.
    assert galaxy["weight"].max() < 0.07
    rows = rows_of(galaxy)
    east = np.cos(np.radians(rows["dec"])) / np.sqrt(rows["ra_ivar"])
    north = 1 / np.sqrt(rows["dec_ivar"])
    expected = np.maximum(east, north) * 3.6e6
    assert np.allclose(galaxy["error_mas"], expected, rtol=1e-5)


def test_the_margin_widens_the_field(survey):
    with pytest.warns(StageWarning, match="abs_minobj"):
        narrow = reference(survey, ring(45.09, 0.062, 0.008), margin=0 * u.arcsec)
    wide = reference(survey, ring(45.09, 0.062, 0.008), margin=30 * u.arcsec)
    assert len(narrow) < len(wide)
    apart = SkyCoord(wide["RA"], wide["DEC"]).separation(SkyCoord(45.09, 0.062, unit="deg"))
    assert apart.max() < 0.008 * u.deg + 30 * u.arcsec


@pytest.mark.parametrize("release", ["dr8", "dr9", "dr11"])
def test_every_release(survey, release):
    table = reference(survey, release=release)
    assert table.meta["release"] == release
    assert {"star", "galaxy"} == set(table["kind"])
    ten = reference(survey)
    assert len(table) == pytest.approx(len(ten), rel=0.2)


def test_the_file_is_what_the_pipeline_reads(survey, tmp_path):
    path = tmp_path / "refcat" / "legacy.ecsv"
    table = reference(survey, path=path)
    assert [one.name for one in path.parent.iterdir()] == ["legacy.ecsv"]
    found = Table.read(path)
    upper = [name.upper() for name in found.colnames]
    assert upper.count("RA") == upper.count("DEC") == 1
    assert found["RA"].unit == u.deg
    assert not found.has_masked_values
    for name in ("RA", "DEC", "weight"):
        assert np.array_equal(found[name], table[name])
        assert np.isfinite(found[name]).all()
    assert found.meta == table.meta
    assert found.meta["epoch"] == [EPOCH.utc.isot]
    assert found.meta["release"] == "dr10"
    first = path.read_bytes()
    reference(survey, path=path)
    # The same again: nothing that was made with it is out of date.
    assert path.read_bytes() == first
    read = pytest.importorskip("stcal.tweakreg.tweakreg")
    parsed = read._parse_refcat(path, [], None, {}, "2024")
    assert {"RA", "DEC", "weight"} <= set(parsed.colnames)


def test_a_file_at_home(survey, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    reference(survey, path="~/legacy.ecsv")
    assert len(Table.read(tmp_path / "legacy.ecsv"))
    with pytest.raises(InvalidRequestError, match="path=5 must be the path of"):
        reference(survey, path=5)


def test_a_plan_tells_epoch_and_fields(survey):
    def exposure(name, region, date):
        path = f"/{name}_uncal.fits"
        return Exposure(path, name, "uncal", s_region=region, date=date, time="00:00:00")

    near, far = ring(45.08, -0.06, 0.04), ring(45.18, 0.06, 0.04)
    plan = SimpleNamespace(
        exposures=[
            exposure("a", near, "2022-07-01"),
            exposure("b", near, "2022-07-03"),
            exposure("c", far, "2024-07-01"),
        ]
    )
    table = make_reference(plan, catalog="legacy", survey=survey)
    assert table.meta["epoch"] == ["2022-07-02T00:00:00.000", "2024-07-01T00:00:00.000"]
    assert table.meta["fields"] == ["a and 1 more", "c"]
    stars = table[table["kind"] == "star"]
    east = np.array(stars["DEC"]) > 0
    assert east.any()
    assert (~east).any()
    for chosen, date in ((east, "2024-07-01"), (~east, "2022-07-02")):
        true = sources(Time(date, scale="utc"))
        where = SkyCoord(stars["RA"][chosen], stars["DEC"][chosen])
        _, apart, _ = where.match_to_catalog_sky(SkyCoord(true["ra"], true["dec"], unit="deg"))
        assert apart.to_value(u.mas).max() < 1.0


def test_a_source_in_the_margins_of_two_fields_comes_once(survey):
    west = "POLYGON ICRS 45.08 -0.05 45.1249 -0.05 45.1249 0.05 45.08 0.05"
    east = "POLYGON ICRS 45.1251 -0.05 45.17 -0.05 45.17 0.05 45.1251 0.05"
    options = {"margin": 60 * u.arcsec, "max_error": 100 * u.mas}
    one, other = (reference(survey, region, **options) for region in (west, east))
    both = reference(survey, [west, east], **options)
    assert len(both.meta["fields"]) == 2

    def keys(table):
        return list(zip(table["brickid"], table["objid"], strict=True))

    assert set(keys(both)) == set(keys(one)) | set(keys(other))
    assert len(set(keys(one)) & set(keys(other))) > 3
    assert len(set(keys(both))) == len(both)


def test_exposures_years_apart_are_told(survey):
    region = ring(45.09, 0.062, 0.02)
    table = Table({"s_region": [region, region], "mjd": [59800.0, 60600.0]})
    with pytest.warns(StageWarning, match=r"2\.2 years apart"):
        STAGE.astrometric_reference(table, survey=survey)


def test_few_or_no_sources(survey):
    with pytest.warns(StageWarning, match=r"set steps=\{'tweakreg'"):
        reference(survey, ring(45.09, 0.062, 0.009), margin=0 * u.arcsec)
    with pytest.raises(NoCoverageError, match="loosen max_error"):
        reference(survey, max_error=1e-6 * u.mas)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"catalog": "2mass"}, "legacy, gaia"),
        ({"epoch": None}, "does not tell when"),
        ({"epoch": 2023.0}, "epoch=2023.0"),
        ({"path": "reference.txt"}, "must end in .ecsv"),
        ({"max_error": 30}, "max_error"),
        ({"max_radius": 1 * u.s}, "max_radius"),
        ({"min_snr": -1}, "min_snr"),
        ({"max_fracflux": "low"}, "max_fracflux"),
        ({"margin": 10}, "margin"),
        ({"release": "dr99"}, "dr99"),
    ],
)
def test_wrong_arguments(survey, sky, more, match):
    with pytest.raises(InvalidRequestError, match=match):
        reference(survey, **more)
    assert not sky.requests


class Archive:
    """Stands where a `GaiaClass` would: an ADQL query in, rows out."""

    def __init__(self, rows):
        self.rows, self.query = rows, None

    def launch_job_async(self, query):
        self.query = query
        if isinstance(self.rows, Exception):
            raise self.rows
        return self

    def get_results(self):
        return self.rows.copy()


def gaia_rows():
    """Return five rows as ESA's archive has them; only the first two are fit."""
    number = 5
    table = Table({"SOURCE_ID": 10**18 + np.arange(number)})
    table["ra"], table["dec"] = 45.09 + 0.001 * np.arange(number), np.full(number, 0.062)
    table["ra_error"] = table["dec_error"] = np.full(number, 0.1)
    table["pmra"], table["pmdec"] = np.full(number, 100.0), np.full(number, -50.0)
    table["pmra_error"] = table["pmdec_error"] = np.array([0.1, 0.1, 0.1, 0.1, 9.0])
    table["parallax"], table["parallax_error"] = np.full(number, 0.5), np.full(number, 0.4)
    table["ref_epoch"] = np.full(number, 2016.0)
    table["ruwe"] = np.array([1.0, 1.3, 2.0, 1.0, 1.0])
    table["phot_g_mean_mag"] = MaskedColumn(np.full(number, 18.0), mask=[0, 1, 0, 0, 0])
    table["duplicated_source"] = np.array([False, False, False, True, False])
    return table


def test_gaia_is_cut_and_carried_in_the_same_way():
    archive = Archive(gaia_rows())
    with pytest.warns(StageWarning, match="2 sources"):
        table = STAGE.astrometric_reference(REGION, catalog="gaia", epoch=EPOCH, gaia=archive)
    assert "FROM gaiadr3.gaia_source" in archive.query
    assert "CIRCLE('ICRS', 45.090000000, 0.062000000, 0.0227" in archive.query
    assert table["source_id"].tolist() == [10**18, 10**18 + 1]
    years = EPOCH.tdb.jyear - 2016
    then = SkyCoord(gaia_rows()["ra"][:2], gaia_rows()["dec"][:2], unit="deg")
    expected = then.spherical_offsets_by(100 * years * u.mas, -50 * years * u.mas)
    assert SkyCoord(table["RA"], table["DEC"]).separation(expected).to_value(u.mas).max() < 0.01
    assert np.allclose(table["error_mas"], np.hypot(0.1, 0.1 * years))
    assert table.meta["catalog"] == "gaiadr3.gaia_source"
    assert "min_snr" not in table.meta


def test_an_archive_that_does_not_answer():
    with pytest.raises(ServiceDownError, match="did not answer"):
        make_reference(REGION, catalog="gaia", epoch=EPOCH, gaia=Archive(ConnectionError("no")))


@pytest.mark.remote_data
def test_gaia_itself_answers():
    region = ring(150.1, 2.2, 0.05)
    table = STAGE.astrometric_reference(region, catalog="gaia", epoch=EPOCH)
    assert len(table) > 10
    assert set(table["kind"]) == {"star"}
    where = SkyCoord(table["RA"], table["DEC"])
    assert where.separation(SkyCoord(150.1, 2.2, unit="deg")).max() < 0.06 * u.deg


@pytest.fixture
def two(survey):
    """A star and a compact galaxy, moved to Dec 60, that pass every cut."""
    rows = survey.query_tractor(SkyCoord(45.125, 0, unit="deg"), radius=0.08 * u.deg)
    table = tractor_reference(rows, EPOCH, "dr10", CUTS)
    keys = [
        tuple(table[table["kind"] == kind]["brickid", "objid"][0]) for kind in ("star", "galaxy")
    ]
    at = [list(zip(rows["brickid"], rows["objid"], strict=True)).index(key) for key in keys]
    rows = rows[at]
    rows["dec"] = [60.0, 60.001]
    return rows


CUTS = Cuts()


def test_errors_are_angles_on_the_sky_at_the_epoch(two):
    years = EPOCH.tdb.jyear - 2016
    two["gaia_astrometric_sigma5d_max"][0], two["gaia_astrometric_excess_noise"][0] = 0.3, 0.4
    two["pmra_ivar"][0], two["pmdec_ivar"][0] = 0.5**-2, 0.2**-2
    # An error of 20 mas in RA as a number is 10 on the sky at Dec 60.
    two["ra_ivar"][1], two["dec_ivar"][1] = (20 / 3.6e6) ** -2, (8 / 3.6e6) ** -2
    table = tractor_reference(two, EPOCH, "dr10", CUTS)
    expected = [np.sqrt(0.3**2 + 0.4**2 + (0.5 * years) ** 2), 10.0]
    assert np.allclose(table["error_mas"], expected, rtol=1e-4)
    assert np.allclose(table["weight"], [1 / (expected[0] ** 2 + 25), 1 / (100 + 400)], rtol=1e-4)


@pytest.mark.parametrize(
    ("bit", "kinds"),
    [
        ("NPRIMARY", ["star", "galaxy"]),
        ("WISEM1", ["star", "galaxy"]),
        ("MEDIUM", ["star", "galaxy"]),
        ("BRIGHT", ["star"]),
        ("BAILOUT", ["star"]),
        ("CLUSTER", ["star"]),
        ("ALLMASK_I", ["star"]),
        ("SUB_BLOB", ["star"]),
        ("GALAXY", []),
    ],
)
def test_masks_by_default(two, bit, kinds):
    two["maskbits"] = 1 << maskbits("dr10")[bit]
    assert tractor_reference(two, EPOCH, "dr10", CUTS)["kind"].tolist() == kinds


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [
        (0, "pmra_ivar", 0.0),
        (0, "ref_cat", ""),
        (0, "ref_epoch", 0.0),
        (0, "gaia_astrometric_excess_noise", 31.0),
        (0, "type", "DUP"),
        (1, "type", "PSF"),
        (1, "shape_r", 0.61),
        (1, "dec_ivar", 0.0),
    ],
)
def test_what_makes_a_source_unfit(two, kind, column, value):
    two[column][kind] = value
    assert tractor_reference(two, EPOCH, "dr10", CUTS)["kind"].tolist() == [
        ("star", "galaxy")[1 - kind]
    ]


def test_the_best_band_tells_signal_and_neighbours(two):
    for band in "griz":
        two[f"flux_ivar_{band}"][1], two[f"flux_{band}"][1] = 1.0, 5.0
        two[f"fracflux_{band}"][1] = 0.9
    assert tractor_reference(two, EPOCH, "dr10", CUTS)["kind"].tolist() == ["star"]
    two["flux_i"][1], two["fracflux_i"][1] = 10.5, 0.1
    assert tractor_reference(two, EPOCH, "dr10", CUTS)["kind"].tolist() == ["star", "galaxy"]
    two["fracflux_i"][1] = 0.21
    assert tractor_reference(two, EPOCH, "dr10", CUTS)["kind"].tolist() == ["star"]
