"""A table against the catalogue: astropy's own matching is the oracle."""

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table
from astropy.time import Time

from astroquery_lis.catalogs.match import bricks_of_positions
from astroquery_lis.exceptions import CoverageWarning, InvalidRequestError, NoCoverageError
from astroquery_lis.survey.sphere import bricks_in_circle

CENTERS = [(45.125, 0.0), (45.25, 0.125), (0.0, 0.02), (180.15, 32.375), (45.25, 0.0)]


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoverageWarning)
        yield


def _catalogue(local, **kwargs):
    """Return the rows of every field, as `query_tractor` has them (tested on its own)."""
    tables = [
        local.query_tractor(
            SkyCoord(*center, unit="deg"), radius=0.3 * u.deg, columns=["ls_id", "ra", "dec"]
        )
        for center in CENTERS
    ]
    ids, first = np.unique(np.concatenate([t["ls_id"] for t in tables]), return_index=True)
    ra, dec = (np.concatenate([t[name] for t in tables])[first] for name in ("ra", "dec"))
    return ids, SkyCoord(ra, dec, unit="deg")


def _scattered(places, rng, n_rows=600):
    """Return positions near sources, near edges, and near nothing."""
    chosen = places[rng.integers(len(places), size=n_rows)]
    return chosen.directional_offset_by(
        rng.uniform(0, 360, n_rows) * u.deg, rng.uniform(0, 6, n_rows) * u.arcsec
    )


def test_best_is_the_nearest_that_astropy_finds(local):
    ids, places = _catalogue(local)
    positions = _scattered(places, np.random.default_rng(5))
    result = local.crossmatch(positions, radius=3 * u.arcsec, columns=["ls_id", "flux_r"])
    nearest, apart, _ = positions.match_to_catalog_sky(places)
    expected = apart <= 3 * u.arcsec
    assert isinstance(result, QTable)
    assert len(result) == len(positions)
    matched = ~np.asarray(result["ls_id"].mask)
    assert np.array_equal(matched, expected)
    assert np.array_equal(np.asarray(result["ls_id"])[matched], ids[nearest[expected]])
    assert result["separation"].unit == u.arcsec
    separation = result["separation"].unmasked[matched]
    assert u.allclose(separation, apart[expected], atol=1e-6 * u.arcsec, rtol=0)


def test_all_is_every_pair_once(local):
    ids, places = _catalogue(local)
    positions = _scattered(places, np.random.default_rng(6))
    table = Table({"name": np.arange(len(positions)), "ra": positions.ra, "dec": positions.dec})
    result = local.crossmatch(table, radius="8 arcsec", find="all", columns=["ls_id"])
    mine, theirs, _, _ = places.search_around_sky(positions, 8 * u.arcsec)
    expected = sorted(zip(mine.tolist(), ids[theirs].tolist(), strict=True))
    pairs = list(zip(result["name"].tolist(), result["ls_id"].tolist(), strict=True))
    assert sorted(pairs) == expected
    assert len(set(pairs)) == len(pairs)
    order = np.lexsort((result["separation"], result["name"]))
    assert np.array_equal(order, np.arange(len(result)))


def test_names_and_class_of_the_users_table_stay(local):
    ids, places = _catalogue(local)
    table = Table({"ra": places.ra[:5].deg, "dec": places.dec[:5].deg, "type": list("abcde")})
    result = local.crossmatch(table, radius=0.1 * u.arcsec, columns=["ls_id", "ra", "type"])
    assert type(result) is Table
    assert result.colnames == [
        "ra",
        "dec",
        "type",
        "separation",
        "ls_id",
        "ra_tractor",
        "type_tractor",
    ]
    assert list(result["type"]) == list("abcde")
    assert list(result["ls_id"]) == list(ids[:5])
    assert table.colnames == ["ra", "dec", "type"]


def test_stars_are_moved_to_the_epoch(local):
    rows = local.query_tractor(
        SkyCoord(45.125, 0.0, unit="deg"),
        radius=0.2 * u.deg,
        columns=["ls_id", "ra", "dec", "pmra", "pmdec", "ref_epoch", "ref_cat"],
        column_filters={"ref_cat": ["G2", "GE", "G3"]},
    )
    speed = np.hypot(rows["pmra"], rows["pmdec"])
    fast = rows[np.argsort(speed)[-5:]]
    star = SkyCoord(
        fast["ra"],
        fast["dec"],
        unit="deg",
        pm_ra_cosdec=fast["pmra"].quantity.astype(float),
        pm_dec=fast["pmdec"].quantity.astype(float),
        obstime=Time(fast["ref_epoch"].astype(float), format="jyear", scale="tdb"),
    )
    then = Time(1955.0, format="jyear", scale="tdb")
    with warnings.catch_warnings():
        # Stars without a distance.
        warnings.simplefilter("ignore")
        moved = star.apply_space_motion(new_obstime=then)
    positions = SkyCoord(moved.ra, moved.dec)
    assert (positions.separation(SkyCoord(star.ra, star.dec)) > 0.08 * u.arcsec).all()
    with_epoch = local.crossmatch(positions, radius=0.05 * u.arcsec, columns="ls_id", epoch=then)
    assert list(with_epoch["ls_id"]) == list(fast["ls_id"])
    assert (with_epoch["separation"] < 0.01 * u.arcsec).all()
    without = local.crossmatch(positions, radius=0.05 * u.arcsec, columns="ls_id")
    assert not set(np.asarray(without["ls_id"][~without["ls_id"].mask])) & set(fast["ls_id"])


def test_bricks_of_positions_is_what_each_circle_touches():
    rng = np.random.default_rng(7)
    dec = np.concatenate(
        [
            np.degrees(np.arcsin(rng.uniform(-1, 1, 300))),
            rng.choice([-90, 90, 89.99, -89.9, 88.5], 60),
            0.125 + rng.normal(0, 0.01, 200),
        ]
    )
    ra = np.concatenate(
        [rng.uniform(0, 360, 360), 45.25 + rng.normal(0, 0.01, 100), rng.normal(0, 0.01, 100) % 360]
    )
    for radius_deg in (1 / 3600, 60 / 3600, 120 / 3600):
        brick, index = bricks_of_positions(ra, dec, radius_deg)
        pairs = set(zip(index.tolist(), brick.tolist(), strict=True))
        assert len(pairs) == len(index)
        exact = {
            (i, b)
            for i in range(len(ra))
            for b in bricks_in_circle(ra[i], dec[i], radius_deg).tolist()
        }
        assert exact <= pairs


@pytest.mark.parametrize(
    ("arguments", "parameter"),
    [
        ({"radius": 5.0}, "radius"),
        ({"radius": 2 * u.arcmin}, "radius"),
        ({"find": "some"}, "find"),
        ({"ra": "nothing"}, "ra"),
        ({"table": [1, 2, 3]}, "table"),
        ({"columns": "fluxx"}, "columns"),
        ({"columns": "all"}, "columns"),
        ({"epoch": 2015.5}, "epoch"),
        ({"on_missing": "ignore"}, "on_missing"),
    ],
)
def test_bad_input_is_refused_by_name(local, arguments, parameter):
    given = {"table": Table({"ra": [45.1], "dec": [0.0]}), "radius": 1 * u.arcsec, **arguments}
    with pytest.raises(InvalidRequestError, match=parameter) as caught:
        local.crossmatch(given.pop("table"), **given)
    assert caught.value.parameter == parameter


def test_positions_outside_of_the_survey(local):
    off = Table({"ra": [95.0, 45.1312], "dec": [-30.0, 0.0047]})
    with pytest.warns(CoverageWarning, match="1 brick"):
        result = local.crossmatch(off, radius=1 * u.arcsec, columns=["flux_r"])
    assert list(result["flux_r"].mask) == [True, False]
    with pytest.raises(NoCoverageError):
        local.crossmatch(off, radius=1 * u.arcsec, columns=["flux_r"], on_missing="raise")


@pytest.mark.parametrize("names", [("RA", "Dec"), ("RAJ2000", "DEJ2000"), ("ra", "dec")])
def test_a_result_can_be_matched_again_and_to_another_release(local, names):
    ids, places = _catalogue(local)
    ra, dec = places.ra[:4].deg, places.dec[:4].deg
    # One row without a position, and one where there is no source.
    table = Table({names[0]: [*ra, np.nan, 45.2], names[1]: [*dec, 0.0, 0.2], "who": range(6)})
    ask = {"radius": 0.1 * u.arcsec, "columns": ["ls_id", "ra", "dec"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoverageWarning)
        first = local.crossmatch(table, **ask, release="dr9")
        second = local.crossmatch(first, **ask, release="dr10")
        third = local.crossmatch(second, **ask, release="dr10")
    for result in (first, second, third):
        assert list(result["who"]) == list(range(6))
        assert np.array_equal(result[names[0]][:4], ra)
    assert list(second["ls_id_tractor"][:4]) == list(ids[:4])
    assert list(third["ls_id_tractor2"][:4]) == list(ids[:4])
    assert third["ls_id_tractor2"].mask.tolist() == 4 * [False] + 2 * [True]
    assert len(set(third.colnames)) == len(third.colnames)
    assert {"ra_tractor", "ra_tractor2", "ra_tractor3"} <= set(third.colnames)


def test_computed_columns_are_matched_too(local):
    _, places = _catalogue(local)
    result = local.crossmatch(
        places[:5], radius=0.1 * u.arcsec, columns=["flux_r", "mag_r", "mag_err_r", "g_r"]
    )
    expected = 22.5 - 2.5 * np.log10(np.asarray(result["flux_r"], float))
    assert np.allclose(result["mag_r"].value, expected, rtol=1e-6)
    assert result["mag_r"].unit == u.mag
