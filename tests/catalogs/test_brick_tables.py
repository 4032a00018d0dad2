"""Bricks and coverage: the tables of the embedded sky, and a made one of the survey's size."""

import sys

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from astroquery_lis import LegacySurveyClass, bricks
from astroquery_lis.catalogs.brick_tables import holds, read_brick_rows
from astroquery_lis.exceptions import (
    CoverageWarning,
    FailoverWarning,
    IncompleteMirrorError,
    InvalidRequestError,
    OptionalDependencyError,
    UnexpectedContentError,
)
from astroquery_lis.io.mirrors import HEALTH
from astroquery_lis.survey.paths import file_path


@pytest.fixture(scope="module")
def made_root(tmp_path_factory):
    """A mirror with tables of bricks: all below Dec 34, and from 32, each with a band in part."""
    root = tmp_path_factory.mktemp("made")
    ids = np.arange(1, bricks.N_BRICKS + 1)
    _, dec = bricks.brick_center(ids)
    row, column = bricks.brick_row_column(ids)
    for region, chosen in (("south", dec < 34), ("north", dec >= 32)):
        release = {"south": "dr10", "north": "dr9"}[region]
        table = Table({"BRICKID": ids[chosen].astype(np.int32)[::-1]})
        for band in "griz" if region == "south" else "grz":
            nexp = np.full(chosen.sum(), 3, np.int16)
            if band == "i":
                nexp[row[chosen] % 2 == 1] = 0
            if band == "z" and region == "north":
                nexp[column[chosen] % 2 == 1] = 0
            table[f"NEXP_{band.upper()}"] = nexp[::-1]
        path = root / file_path("region-bricks", release, region).removesuffix(".gz")
        path.parent.mkdir(parents=True)
        # astropy opens by content: a plain file under the survey's name saves half a minute.
        table.write(path, format="fits")
        path.rename(f"{path}.gz")
    return root


@pytest.fixture
def made(survey, made_root):
    survey.mirror = made_root
    return survey


def test_bricks_near_a_position(local, sky):
    table = local.query_bricks(sky.positions["corner"], radius=10 * u.arcsec)
    assert list(table["brickname"]) == ["0451p000", "0453p000", "0451p002", "0453p002"]
    assert set(table["region"]) == {"south"}
    assert (table["nexp_i"] > 0).all()
    assert table["psfsize_r"].unit == u.arcsec
    one = local.query_bricks(sky.positions["star"], radius=1 * u.arcsec)
    assert list(one["brickname"]) == ["0451p000"]
    both = local.query_bricks(sky.positions["split"], width=1 * u.arcmin)
    assert list(both["brickname"]) == ["1801p322", "1801p325"]
    assert list(both["release"]) == ["dr10", "dr9"]
    assert list(both["nexp_i"] > 0) == [True, False]
    with pytest.warns(CoverageWarning, match="no brick there"):
        none = local.query_bricks(sky.positions["off"], radius=1 * u.arcmin)
    assert none.colnames == both.colnames
    assert len(none) == 0


def test_table_is_fetched_once_and_kept(sky, survey):
    survey.query_bricks(sky.positions["star"], radius=1 * u.arcsec)
    assert len(sky.requests) == 1
    survey.query_bricks(sky.positions["ra0"], radius=1 * u.arcsec)
    assert survey.covers(sky.positions["star"])
    assert len(sky.requests) == 1
    urls = survey.query_bricks(sky.positions["star"], radius=1 * u.arcsec, get_query_payload=True)
    assert urls["urls"] == [
        f"{sky.mirror_url}/dr9/north/survey-bricks-dr9-north.fits.gz",
        f"{sky.mirror_url}/dr10/south/survey-bricks-dr10-south.fits.gz",
    ]


def test_positions_that_are_covered(local, sky):
    names = ["star", "corner", "ra0", "split", "hole", "off"]
    places = SkyCoord([sky.positions[name] for name in names])
    assert list(local.covers(places)) == [True] * 5 + [False]
    assert list(local.covers(places, bands="i")) == [True, True, True, False, True, False]
    assert list(local.covers(places[3:4], release="dr9")) == [True]
    assert local.covers(sky.positions["star"], bands="griz") is True
    assert local.covers(places.reshape(3, 2)).shape == (3, 2)
    assert local.covers(sky.positions["split"], region="south") is True
    with pytest.raises(InvalidRequestError, match="bands of dr10 north"):
        local.covers(places, bands="i", region="north")
    with pytest.raises(IncompleteMirrorError, match="survey-bricks-dr8"):
        local.covers(places, release="dr8")


def test_a_million_positions_are_told_as_one_by_one(made):
    rng = np.random.default_rng(3)
    n = 1_000_000
    places = SkyCoord(
        rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n))), unit="deg"
    )
    answer = made.covers(places, bands="grz")
    some = rng.integers(n, size=3000)
    ra, dec = places.ra.deg[some], places.dec.deg[some]
    galactic = places[some].galactic.b.deg
    north = (dec >= 32.375) & (galactic > 0)
    ids = bricks.brick_id(ra, dec)
    _, center = bricks.brick_center(ids)
    _, column = bricks.brick_row_column(ids)
    expected = np.where(north, column % 2 == 0, center < 34)
    # The region counts by brick: positions of bricks that the galactic plane crosses may differ.
    clear = np.abs(galactic) > 0.5
    assert np.array_equal(answer[some][clear], expected[clear])
    row, _ = bricks.brick_row_column(ids)
    has_i = made.covers(places[some], bands="i")
    assert np.array_equal(has_i[clear], (~north & (center < 34) & (row % 2 == 0))[clear])


@pytest.mark.parametrize("edge", [(0.0, 0.0), (359.9999999, 0.125), (45.25, 0.125), (10.0, -89.9)])
def test_small_circles_on_edges_are_as_dense_sampling_finds(made, edge):
    center = SkyCoord(*edge, unit="deg")
    for radius in (0.5, 5.0, 60.0) * u.arcsec:
        angle = np.linspace(0, 360, 97)[:, None] * u.deg
        apart = np.linspace(0, 0.9999, 25) * radius
        points = center.directional_offset_by(angle, apart)
        sampled = set(bricks.brick_id(points.ra.deg, points.dec.deg).ravel().tolist())
        found = made.query_bricks(center, radius=radius)
        assert sampled <= set(found["brickid"].tolist())
        extra = set(found["brickid"].tolist()) - sampled
        assert len(extra) <= 1


def test_moc_agrees_with_covers(made):
    pytest.importorskip("mocpy")
    moc = made.get_moc(bands="g", max_depth=8)
    rng = np.random.default_rng(4)
    # Well inside of bricks, where the cells of the MOC cannot reach over the edge.
    ids = rng.integers(1, bricks.N_BRICKS, 2000)
    ra, dec = bricks.brick_center(ids)
    places = SkyCoord(ra, dec, unit="deg")
    clear = (np.abs(dec) < 75) & (np.abs(places.galactic.b.deg) > 1)
    south = clear & (dec < 30)
    inside = moc.contains_lonlat(places.ra, places.dec)
    covered = made.covers(places, bands="g")
    assert covered[south].all()
    assert inside[south].all()
    assert (inside[clear] >= covered[clear]).all()
    assert 0.85 < moc.sky_fraction < 0.98
    south = made.get_moc(bands="g", max_depth=8, region="south")
    assert south.sky_fraction == pytest.approx((1 + np.sin(np.radians(33.875))) / 2, abs=2e-3)


def test_moc_without_mocpy_names_the_extra(local, monkeypatch):
    monkeypatch.setitem(sys.modules, "mocpy", None)
    with pytest.raises(OptionalDependencyError, match=r"mocpy.*\[footprint\]"):
        local.get_moc()


# ---- one table, one reader -----------------------------------------------------------------------


def _download(survey, place, mirror, folder):
    rows = Table({"ra": [place.ra.deg], "dec": [place.dec.deg]})
    return survey.download_cutouts(
        rows, 16, bands="r", mirror=mirror, download_dir=folder, show_progress=False
    )


def test_every_method_reads_one_copy_of_a_table(sky, survey, tmp_path):
    star = sky.positions["star"]
    _download(survey, star, sky.mirror_url, tmp_path / "out")
    tables = [r.path for r in sky.requests if "survey-bricks" in r.path]
    assert len(tables) == len(set(tables)) == 2
    assert survey.covers(star)
    survey.query_bricks(star, radius=1 * u.arcsec)
    assert sum("survey-bricks" in r.path for r in sky.requests) == 2
    arrays = sorted(path.parent.name for path in survey.cache_location.rglob("*.npy"))
    assert arrays == ["survey-bricks-dr10-south.fits.gz", "survey-bricks-dr9-north.fits.gz"]


def test_every_method_tells_of_a_failover(sky, tmp_path):
    star = sky.positions["star"]
    dead = "http://127.0.0.1:9/{path}"
    mirrors = [dead, sky.mirror_url]
    calls = {
        "covers": lambda s: s.covers(star, mirror=mirrors),
        "query_bricks": lambda s: s.query_bricks(star, radius="1 arcmin", mirror=mirrors),
        "download_cutouts": lambda s: _download(s, star, mirrors, tmp_path / "out"),
        "get_cutout": lambda s: s.get_cutout(star, 16, bands="r", mirror=mirrors),
        "query_tractor": lambda s: s.query_tractor(
            star, radius="3 arcsec", source="files", mirror=mirrors
        ),
        "query_exposures": lambda s: s.query_exposures(star, mirror=mirrors),
    }
    for name, call in calls.items():
        HEALTH.reset()
        survey = LegacySurveyClass()
        survey.cache_location = tmp_path / name
        with pytest.warns(FailoverWarning, match="failed .* answered instead"):
            call(survey)


def test_a_table_is_the_same_from_everywhere_and_each_brick_is_in_it_once(sky, survey):
    path = file_path("region-bricks", "dr10", "south")
    expected = sorted(set(Table.read(sky.root / path)["brickname"]))
    calls = [
        {"mirror": str(sky.root)},
        {"mirror": sky.mirror_url, "cache": False},
        {"mirror": sky.mirror_url},
        {"mirror": sky.mirror_url},
    ]
    for call in calls:
        corner = survey.query_bricks(sky.positions["corner"], radius="2 deg", **call)
        assert set(corner["brickname"]) <= set(expected)
        assert len(corner) == len(set(corner["brickname"])) >= 4
    assert holds(np.array([3, 7]), np.array([3, 1, 8, 7])).tolist() == [True, False, False, True]
    assert not holds(np.array([], int), np.array([5, 6])).any()


def test_a_table_that_is_none_says_so_and_one_damaged_in_the_cache_is_fetched_anew(
    sky, survey, tmp_path
):
    path = tmp_path / "tree" / file_path("region-bricks", "dr10", "south")
    path.parent.mkdir(parents=True)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((2, 2)))]).writeto(path)
    star = sky.positions["star"]
    with pytest.raises(UnexpectedContentError, match="cannot be read as a table of bricks"):
        survey.covers(star, mirror=str(tmp_path / "tree"))
    assert survey.covers(star)
    for array in survey.cache_location.rglob("*.npy"):
        array.unlink()
    (table,) = (path for path in survey.cache_location.rglob("*south.fits.gz") if path.is_file())
    table.write_bytes(table.read_bytes()[:2000])
    assert survey.covers(star)


def test_values_that_cannot_be_read_are_told_with_what_they_are_of(sky, tmp_path):
    table = Table({"BRICKID": np.array([1], "i4"), "NEXP_R": np.array([1], "i2")})
    hdu = fits.BinTableHDU(table)
    hdu.header["TSCAL2"] = "much"
    path = tmp_path / "bricks.fits"
    hdu.writeto(path)
    url = f"{sky.mirror_url}/dr10/bricks.fits"
    with pytest.raises(
        UnexpectedContentError, match="cannot be read as a table of bricks"
    ) as caught:
        read_brick_rows(path, url)
    assert caught.value.url == url


def test_another_table_under_its_name_leads_to_the_next_mirror(sky, other, survey):
    right = survey.query_bricks(sky.positions["star"], radius="30 arcmin", cache=False)
    # The table of all bricks of the sky would cover everything.
    path = "/legacysurvey/dr10/survey-bricks.fits.gz"
    sky.faults.add("swap", "*dr10-south*", times=None, path=path)
    with pytest.raises(UnexpectedContentError, match="do not tell where a release has exposures"):
        survey.query_bricks(sky.positions["star"], radius="30 arcmin")
    survey.mirror = [sky.mirror_url, other.mirror_url]
    with pytest.warns(FailoverWarning, match="answered instead"):
        table = survey.query_bricks(sky.positions["star"], radius="30 arcmin")
    assert set(table["brickname"]) == set(right["brickname"])
