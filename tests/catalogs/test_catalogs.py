"""`query_tractor` on the embedded sky: three sources, one table; nothing lost, nothing twice."""

import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import QTable, Table, vstack
from astroquery.exceptions import LargeQueryWarning, MaxResultsWarning, NoResultsWarning

from astroquery_lis import conf
from astroquery_lis.exceptions import (
    CoverageWarning,
    InvalidRequestError,
    MissingDataError,
    NoCoverageError,
)
from astroquery_lis.survey.tractor import TYPES
from astroquery_lis.survey.tractor_columns import core_columns

FIELDS = {
    "inside": (SkyCoord(45.125, 0.0, unit="deg"), 3 * u.arcmin),
    "corner": (SkyCoord(45.25, 0.125, unit="deg"), 1.5 * u.arcmin),
    "ra0": (SkyCoord(0.0, 0.02, unit="deg"), 1.5 * u.arcmin),
    "split": (SkyCoord(180.15, 32.375, unit="deg"), 1.5 * u.arcmin),
}


@pytest.fixture
def query(sky, survey):
    """`query_tractor` with the sandbox's services, without the warnings about the north."""

    def run(*args, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CoverageWarning)
            warnings.simplefilter("ignore", LargeQueryWarning)
            return survey.query_tractor(*args, **kwargs)

    with conf.set_temp("tap_url", sky.tap_url), conf.set_temp("viewer_url", sky.viewer_url):
        yield run


@pytest.fixture(scope="module")
def every_row(served_sky):
    """Every row of DR10 as astropy reads it, resolved by hand: the oracle."""
    tables = []
    for path in sorted(Path(served_sky.root).glob("dr*/*/tractor/*/tractor-*.fits")):
        region = path.relative_to(served_sky.root).parts[:2]
        with fits.open(path) as hdus:
            rows = Table(hdus[1].data)
        if region not in (("dr10", "south"), ("dr9", "north")):
            continue
        places = SkyCoord(rows["ra"], rows["dec"], unit="deg")
        north = (rows["dec"] >= 32.375) & (places.galactic.b > 0)
        rows = rows[north == (region[1] == "north")]
        tables.append(
            rows[
                "release",
                "brickid",
                "objid",
                "ra",
                "dec",
                "brick_primary",
                "type",
                "flux_r",
                "maskbits",
            ]
        )
    return vstack(tables, metadata_conflicts="silent")


def _identities(table):
    return [tuple(map(int, row)) for row in table["release", "brickid", "objid"]]


def assert_same(first, second):
    assert first.colnames == second.colnames
    assert len(first) == len(second)
    for name in first.colnames:
        a, b = first[name], second[name]
        assert (a.dtype, a.unit, a.shape) == (b.dtype, b.unit, b.shape), name
        mask = np.ma.getmaskarray(a)
        assert np.array_equal(mask, np.ma.getmaskarray(b)), name
        a, b = np.ma.getdata(a)[~mask], np.ma.getdata(b)[~mask]
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=0, equal_nan=True, err_msg=name)
        else:
            assert np.array_equal(a, b), name


@pytest.mark.parametrize("field", FIELDS)
def test_three_sources_give_one_table(query, field):
    center, radius = FIELDS[field]
    files = query(center, radius=radius, source="files")
    assert len(files) > 20
    for source in ("tap", "viewer"):
        assert_same(files, query(center, radius=radius, source=source))
    distance = SkyCoord(files["ra"], files["dec"], unit="deg").separation(center)
    assert (np.diff(distance.arcsec) >= 0).all()
    assert (distance <= radius).all()


@pytest.mark.parametrize("release", ["dr8", "dr9", "dr11"])
@pytest.mark.parametrize("field", ["corner", "split"])
def test_three_sources_give_one_table_of_other_releases(query, release, field):
    center, radius = FIELDS[field]
    files = query(center, radius=radius, release=release, source="files")
    assert len(files) > 10
    assert files.colnames == [column.name for column in core_columns(release)]
    assert set(files["type"]) <= set(TYPES)
    assert len(set(files["ls_id"])) == len(files)
    for source in ("tap", "viewer"):
        assert_same(files, query(center, radius=radius, release=release, source=source))


@pytest.mark.parametrize("source", ["tap", "viewer"])
def test_box_polygon_and_filters_are_the_same_everywhere(query, source):
    center = FIELDS["corner"][0]
    ask = {
        "columns": ["type", "flux", "maskbits"],
        "column_filters": {"flux_r": ">1 & <50", "type": ["PSF", "EXP"], "nobs_g": "1..5"},
        "maskbits": ["BRIGHT", "MEDIUM"],
    }
    for shape in (
        {"width": 2 * u.arcmin, "height": 1 * u.arcmin},
        {"polygon": center.directional_offset_by([0, 120, 240] * u.deg, 1.4 * u.arcmin)},
    ):
        place = None if "polygon" in shape else center
        files = query(place, source="files", **shape, **ask)
        assert len(files) > 2
        assert_same(files, query(place, source=source, **shape, **ask))
        assert ((files["flux_r"] > 1) & (files["flux_r"] < 50)).all()
        assert set(files["type"]) <= {"PSF", "EXP"}


@pytest.mark.parametrize("radius_arcsec", [1, 3, 10, 60, 300, 1800])
@pytest.mark.parametrize("source", ["files", "tap"])
def test_cones_hold_what_brute_force_finds(query, every_row, source, radius_arcsec):
    good = every_row["brick_primary"] & (every_row["type"] != "DUP")
    for center in (*(pair[0] for pair in FIELDS.values()), SkyCoord(45.2500, 0.0, unit="deg")):
        places = SkyCoord(every_row["ra"], every_row["dec"], unit="deg")
        near = good & (places.separation(center) <= radius_arcsec * u.arcsec)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NoResultsWarning)
            found = query(
                center,
                radius=radius_arcsec * u.arcsec,
                source=source,
                columns=["release", "brickid", "objid"],
            )
        assert sorted(_identities(found)) == sorted(_identities(every_row[near]))


def test_rows_that_other_bricks_own_come_only_when_asked_for(query, every_row):
    center, radius = SkyCoord(45.25, 0.0, unit="deg"), 40 * u.arcsec
    places = SkyCoord(every_row["ra"], every_row["dec"], unit="deg")
    near = places.separation(center) <= radius
    both = query(center, radius=radius, primary=False, drop_duplicates=False)
    assert both.meta["source"] == "files"
    assert sorted(_identities(both)) == sorted(_identities(every_row[near]))
    assert not both["brick_primary"].all()
    once = query(center, radius=radius)
    assert once["brick_primary"].all()
    assert len(once) < len(both)
    with pytest.raises(InvalidRequestError, match="primary=False.*source='files'"):
        query(center, radius=radius, primary=False, source="tap")


def test_the_north_has_no_i_band_and_says_so(sky, survey, query):
    center, radius = FIELDS["split"]
    with conf.set_temp("tap_url", sky.tap_url), conf.set_temp("viewer_url", sky.viewer_url):
        for source in ("files", "tap", "viewer"):
            with pytest.warns(CoverageWarning, match="flux_i"):
                rows = survey.query_tractor(
                    center, radius=radius, columns=["flux", "nobs", "release"], source=source
                )
            north = rows["release"] == 9011
            assert north.any()
            assert not north.all()
            assert np.array_equal(rows["flux_i"].mask, north)
            assert np.array_equal(rows["nobs_i"].mask, north)
            assert not np.ma.is_masked(rows["flux_r"])
            with pytest.raises(MissingDataError, match="flux_i"):
                survey.query_tractor(
                    center, radius=radius, columns="flux_i", source=source, on_missing="raise"
                )
    rows = query(center, radius=radius, region="north", source="files")
    assert "flux_i" not in rows.colnames
    assert set(rows["release"]) == {9011}
    assert rows.colnames == [column.name for column in core_columns("dr10", "north")]


def test_a_column_of_another_release_is_masked_or_refused(query, survey):
    center = FIELDS["inside"][0]
    with pytest.warns(CoverageWarning, match="fracdev"):
        rows = survey.query_tractor(center, radius=20 * u.arcsec, columns=["ra", "fracdev"])
    assert rows["fracdev"].mask.all()
    with pytest.raises(MissingDataError, match="fracdev"):
        query(center, radius=20 * u.arcsec, columns=["fracdev"], on_missing="raise")
    with pytest.raises(InvalidRequestError, match="flux_r"):
        query(center, radius=20 * u.arcsec, columns=["flux_rr"])


def test_columns_that_only_the_files_have(query):
    center, radius = FIELDS["inside"][0], 30 * u.arcsec
    rows = query(center, radius=radius, columns=["apflux_r", "lc_flux_w1", "ngood"])
    assert rows["apflux_r"].shape == (len(rows), 8)
    assert rows["lc_flux_w1"].shape == (len(rows), 17)
    assert rows["apflux_r"].unit == u.nmgy
    for source in ("tap",):
        with pytest.raises(InvalidRequestError, match="apflux_r.*source='files'"):
            query(center, radius=radius, columns=["apflux_r"], source=source)
    across = query(FIELDS["split"][0], radius=1 * u.arcmin, columns=["release", "lc_flux_w1"])
    north = across["release"] == 9011
    assert across["lc_flux_w1"].mask[north, 15:].all()
    assert not across["lc_flux_w1"].mask[:, :15].any()
    assert not across["lc_flux_w1"].mask[~north].any()


def test_all_is_everything_that_the_source_has(query):
    center, radius = FIELDS["inside"][0], 30 * u.arcsec
    files = query(center, radius=radius, columns="all", source="files")
    assert {"apflux_g", "ngood_z", "flux_g", "ls_id"} <= set(files.colnames)
    tap = query(center, radius=radius, columns="all", source="tap")
    assert {"dered_mag_g", "snr_r", "dchisq"} <= set(tap.colnames)
    assert tap["dered_mag_g"].unit == u.mag
    shared = [c.name for c in core_columns("dr10") if c.name in files.colnames]
    assert_same(files[shared], tap[shared])


def test_quantities_convert(query):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = QTable(query(FIELDS["corner"][0], radius=1 * u.arcmin))
    flux = table["flux_r"].to(u.uJy, u.zero_point_flux(3631.1 * u.Jy))
    magnitude = table["flux_r"].to(u.ABmag, u.zero_point_flux(3631 * u.Jy))
    good = table["flux_r"] > 0
    np.testing.assert_allclose(
        magnitude[good].value, 22.5 - 2.5 * np.log10(table["flux_r"][good].value), atol=2e-3
    )
    assert flux.unit == u.uJy
    assert table["flux_ivar_r"].unit == u.nmgy**-2
    assert table["pmra_ivar"].unit == (u.mas / u.yr) ** -2


def test_maxrec_is_told(query):
    center, radius = FIELDS["inside"]
    everything = query(center, radius=radius, columns=["ls_id"], source="files")
    for source in ("files", "tap", "viewer"):
        with pytest.warns(MaxResultsWarning, match="more rows"):
            rows = query(center, radius=radius, columns=["ls_id"], source=source, maxrec=5)
        assert len(rows) == 5
        assert set(rows["ls_id"]) <= set(everything["ls_id"])
        if source != "tap":
            assert list(rows["ls_id"]) == list(everything["ls_id"][:5])


def test_no_catalogue_is_told_apart_from_no_source(query, survey):
    blank = SkyCoord(45.055, -0.085, unit="deg")
    for source in ("files", "tap", "viewer"):
        with pytest.warns(NoResultsWarning):
            rows = query(blank, radius=1 * u.arcsec, source=source)
        assert rows.colnames == [column.name for column in core_columns("dr10")]
        assert len(rows) == 0
        assert rows["flux_r"].dtype == np.float32
    off = SkyCoord(95.0, -30.0, unit="deg")
    with pytest.warns(CoverageWarning, match="no catalogue there"):
        rows = survey.query_tractor(off, radius=1 * u.arcsec, source="files", columns=["flux_r"])
    assert rows["flux_r"].dtype == np.float32
    with pytest.raises(NoCoverageError, match="no brick 0948m300"):
        query(off, radius=1 * u.arcsec, source="files", on_missing="raise")


def test_large_queries_are_announced_or_refused(sky, survey):
    center = SkyCoord(45.125, 0.0, unit="deg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoverageWarning)
        with pytest.warns(LargeQueryWarning, match="21 brick files, about 378 MB"):
            survey.query_tractor(center, radius=0.5 * u.deg, source="files", columns=["ra"])
    sky.requests.clear()
    survey.clear_cache()
    with (
        conf.set_temp("max_query_bricks", 5),
        pytest.raises(InvalidRequestError, match="conf.max_query_bricks=5.*source='tap'"),
    ):
        survey.query_tractor(center, radius=0.5 * u.deg, source="files")
    assert len(sky.requests) == 0
