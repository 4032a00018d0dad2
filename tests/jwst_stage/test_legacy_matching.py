"""Catalogues of mosaics against Tractor: offsets, pairs, colours, motions."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord, get_body_barycentric
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.time import Time

from astroquery_lis.exceptions import InvalidExposureError, InvalidRequestError, StageWarning
from astroquery_lis.jwst_stage.legacy.field_sources import read_jwst_catalog
from astroquery_lis.jwst_stage.legacy.matching import common_offset, measure_offset, mutual_pairs
from astroquery_lis.jwst_stage.legacy_methods import LegacyMethods
from astroquery_lis.sandbox.sky import truth

from .legacy_mosaic import EPOCH, grid, sources, write_mosaic

STAGE = LegacyMethods()
WIDE = grid(45.09, 0.062, (1000, 1000))


@pytest.fixture(scope="module")
def rows():
    return sources()


@pytest.fixture(scope="module")
def wide(tmp_path_factory, rows):
    return write_mosaic(
        tmp_path_factory.mktemp("i2d"), "wide", WIDE, rows, offset_mas=(250.0, -170.0)
    )


@pytest.fixture
def match(survey, wide):
    return STAGE.match_catalogs(wide[1], survey=survey)


def test_an_offset_as_long_as_the_radius_is_found_and_everything_matched(match, rows, wide):
    assert match.offset.d_ra.to_value(u.mas) == pytest.approx(250, abs=2)
    assert match.offset.d_dec.to_value(u.mas) == pytest.approx(-170, abs=2)
    assert match.offset.scatter_ra.to_value(u.mas) == pytest.approx(3, abs=1.2)
    assert match.offset.size.to_value(u.mas) == pytest.approx(np.hypot(250, 170), abs=2)
    assert match.offset.number == len(match.matches) == len(QTable.read(wide[1]))
    assert len(match.jwst_only) == 0
    assert match.matches["separation"].max() < 15
    # Each with the source that it was made of.
    truth_id = _truth_id(match.matches["ra"], match.matches["dec"], rows)
    x, y = WIDE.world_to_pixel_values(rows["ra"], rows["dec"])
    inside = (x > 45) & (x < 995) & (y > 5) & (y < 995)
    labels = np.asarray(match.matches["label"])
    assert np.array_equal(truth_id, np.array(rows["truth_id"])[inside][labels - 1])
    assert "offset" not in match.meta
    assert match.meta["filter"] == "F356W"
    assert match.meta["epoch"] == EPOCH.utc.isot
    assert repr(match).startswith(f"<CatalogMatch: {len(match.matches)} pairs, 0 of JWST alone")


def _truth_id(ra, dec, rows):
    where = SkyCoord(np.array(ra), np.array(dec), unit="deg")
    index, apart, _ = where.match_to_catalog_sky(SkyCoord(rows["ra"], rows["dec"], unit="deg"))
    assert apart.max() < 0.1 * u.arcsec
    return np.array(rows["truth_id"])[index]


def test_the_colours_are_those_of_the_scene(match, rows):
    matches = match.matches
    scene = truth()[_truth_id(matches["ra"], matches["dec"], rows)]
    for band in ("g", "r", "i", "z", "w1", "w2"):
        # Dereddening makes brighter what the scene has as it is seen.
        through = np.array(matches[f"mw_transmission_{band}"], float)
        expected = 22.5 - 2.5 * np.log10(scene[f"flux_{band}"]) + 2.5 * np.log10(through)
        pull = (matches[f"mag_{band}"] - expected) / matches[f"mag_err_{band}"]
        assert np.nanmedian(np.abs(pull)) < 1.0
        assert np.abs(pull[np.isfinite(pull)]).max() < 6
    seen = 22.5 - 2.5 * np.log10(np.array(matches["flux_z"], float)) - 0.5
    assert np.std(matches["jwst_mag"] - seen) == pytest.approx(0.02, rel=0.5)
    assert np.allclose(matches["jwst_mag_err"], 0.02)


def test_magnitudes_as_observed(survey, wide, match):
    plain = STAGE.match_catalogs(wide[0], survey=survey, dereddened=False)
    difference = plain.matches["mag_r"] - match.matches["mag_r"]
    expected = -2.5 * np.log10(np.array(plain.matches["mw_transmission_r"], float))
    assert np.allclose(difference, expected, atol=1e-5)


def test_stars_are_carried_to_the_epoch(survey, tmp_path, rows):
    """A star of 400 mas/yr: its place eight years on by astropy."""
    moving = rows.copy()
    chosen = np.flatnonzero(np.array(moving["is_star"]))
    x, y = WIDE.world_to_pixel_values(moving["ra"][chosen], moving["dec"][chosen])
    chosen = chosen[(x > 100) & (x < 900) & (y > 100) & (y < 900)]
    tractor = survey.query_tractor(SkyCoord(45.09, 0.062, unit="deg"), radius=50 * u.arcsec)
    at = SkyCoord(tractor["ra"], tractor["dec"])
    stars = SkyCoord(moving["ra"][chosen], moving["dec"][chosen], unit="deg")
    index, *_ = stars.match_to_catalog_sky(at)
    fast = index[0]
    tractor["pmra"][fast], tractor["pmdec"][fast] = 300.0, -260.0
    tractor["parallax"][fast], tractor["parallax_ivar"][fast] = 120.0, 100.0
    then = SkyCoord(
        ra=at[fast].ra,
        dec=at[fast].dec,
        pm_ra_cosdec=300 * u.mas / u.yr,
        pm_dec=-260 * u.mas / u.yr,
        distance=(1000 / 120) * u.pc,
        radial_velocity=0 * u.km / u.s,
        obstime=Time(2016.0, format="jyear", scale="tdb"),
    )
    now = then.apply_space_motion(new_obstime=EPOCH.tdb)
    # As seen from the Earth: the vector to the star less the one to the Earth.
    vector = now.cartesian.without_differentials() - get_body_barycentric("earth", EPOCH)
    seen = SkyCoord(vector, frame="icrs").spherical
    moving["ra"][chosen[0]], moving["dec"][chosen[0]] = seen.lon.deg, seen.lat.deg
    _, path = write_mosaic(tmp_path, "moving", WIDE, moving)
    match = STAGE.match_catalogs(path, tractor=tractor)
    star = np.flatnonzero(np.asarray(match.matches["objid"]) == tractor["objid"][fast])
    assert len(star) == 1
    assert match.matches["carried"][star[0]]
    assert match.matches["separation"][star[0]] < 15
    # Left where Tractor has it, it is 3.4 arcsec away.
    still = STAGE.match_catalogs(path, tractor=tractor, epoch=Time(2016.0, format="jyear"))
    assert tractor["objid"][fast] not in still.matches["objid"]
    assert tractor["objid"][fast] in still.legacy_only["objid"]


def test_who_is_alone_is_in_the_mosaic(survey, tmp_path, rows):
    x, y = WIDE.world_to_pixel_values(rows["ra"], rows["dec"])
    inside = np.flatnonzero((x > 100) & (x < 900) & (y > 100) & (y < 900))
    left = np.delete(np.arange(len(rows)), inside[:3])
    image, path = write_mosaic(tmp_path, "less", WIDE, rows[left])
    table = QTable.read(path)
    empty = SkyCoord(*WIDE.pixel_to_world_values([200.0, 300.0], [700.0, 120.0]), unit="deg")
    for at in empty:
        table.add_row(table[0])
        table["sky_centroid"][-1] = at
        table["label"][-1] = 1000 + len(table)
    table.write(path, format="ascii.ecsv", overwrite=True)
    match = STAGE.match_catalogs(path, survey=survey)
    assert sorted(_truth_id(match.legacy_only["ra"], match.legacy_only["dec"], rows)) == sorted(
        rows["truth_id"][inside[:3]]
    )
    assert len(match.jwst_only) == 2
    # Where the mosaic has no data, Tractor's sources are not missed.
    with fits.open(image, mode="update") as hdul:
        hdul["SCI"].data[:, :] = np.nan
    match = STAGE.match_catalogs(path, survey=survey)
    assert len(match.legacy_only) == 0


def test_without_looking_for_an_offset_the_radius_decides(survey, wide):
    match = STAGE.match_catalogs(
        wide[1], survey=survey, max_offset=0 * u.arcsec, radius=0.25 * u.arcsec
    )
    assert len(match.matches) == 0
    assert np.isnan(match.offset.d_ra)
    match = STAGE.match_catalogs(
        wide[1], survey=survey, max_offset=0 * u.arcsec, radius=0.5 * u.arcsec
    )
    assert match.offset.d_ra.to_value(u.mas) == pytest.approx(250, abs=3)
    assert match.matches["separation"].min() > 280


@pytest.mark.parametrize("offset", [(0.0, 0.0), (2900.0, 100.0), (-700.0, 1800.0)])
def test_the_pile_of_pairs_is_found_among_chance_ones(offset):
    rng = np.random.default_rng(11)
    ra, dec = 359.999 + 0.02 * rng.uniform(size=300), 70 + 0.007 * rng.uniform(size=300)
    other = SkyCoord(ra, dec, unit="deg").spherical_offsets_by(
        (offset[0] + rng.normal(0, 10, 300)) * u.mas, (offset[1] + rng.normal(0, 10, 300)) * u.mas
    )
    # A third has no partner, and half as many are only in the other catalogue.
    found = common_offset(
        np.append(other.ra.deg[100:], ra[:150] + 0.001),
        np.append(other.dec.deg[100:], dec[:150]),
        ra % 360,
        dec,
        reach_mas=3000.0,
        radius_mas=150.0,
    )
    assert found == pytest.approx(offset, abs=5)


def test_an_offset_beyond_reach_is_not_taken():
    ra, dec = np.linspace(10, 10.1, 40), np.linspace(0, 0.1, 40)
    moved = dec + 1050 / 3.6e6
    assert common_offset(ra, moved, ra, dec, reach_mas=1000.0, radius_mas=200.0) == (0.0, 0.0)
    found = common_offset(ra, moved, ra, dec, reach_mas=1100.0, radius_mas=200.0)
    assert found == pytest.approx((0.0, 1050.0), abs=0.01)


def test_a_solution_of_position_only_is_no_motion(survey, wide, match):
    tractor = survey.query_tractor(SkyCoord(45.09, 0.062, unit="deg"), radius=60 * u.arcsec)
    tractor["pmra_ivar"] = 0.0
    found = STAGE.match_catalogs(wide[1], tractor=tractor)
    assert len(found.matches) == len(match.matches)
    assert match.matches["carried"].any()
    assert not found.matches["carried"].any()
    assert found.star_offset.number == 0


def test_no_pile_is_no_offset():
    rng = np.random.default_rng(2)
    two = rng.uniform(10, 10.001, (4, 5))
    assert common_offset(*two, reach_mas=100.0, radius_mas=10.0) == (0.0, 0.0)
    empty = np.zeros(0)
    assert common_offset(empty, empty, empty, empty, reach_mas=1.0, radius_mas=1.0) == (0.0, 0.0)


def test_partners_are_each_others_nearest():
    ra1 = np.array([10.0, 10.0 + 40 / 3.6e6, 20.0])
    ra2 = np.array([10.0 + 30 / 3.6e6, 15.0, 20.0 + 200 / 3.6e6])
    first, second, apart = mutual_pairs(ra1, np.zeros(3), ra2, np.zeros(3), 100.0)
    assert first.tolist() == [1]
    assert second.tolist() == [0]
    assert apart == pytest.approx([10.0], abs=1e-3)


def test_an_offset_of_known_differences():
    x = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    offset = measure_offset(x, -x)
    assert offset.d_ra == 3 * u.mas
    assert offset.d_dec == -3 * u.mas
    assert offset.scatter_ra.value == pytest.approx(1.4826)
    assert offset.error.value == pytest.approx(1.4826 * np.sqrt(np.pi / 10))
    assert str(offset).startswith("dRA cos(Dec) +3.0 mas, dDec -3.0 mas")
    nothing = measure_offset(x[:0], x[:0])
    assert nothing.number == 0
    assert np.isnan(nothing.error)


def test_a_table_without_its_mosaic(survey, wide):
    table = QTable.read(wide[1])
    with pytest.warns(StageWarning, match="epoch"):
        match = STAGE.match_catalogs(table, survey=survey)
    assert match.meta["epoch"] is None
    assert not match.matches["carried"].any()
    assert len(match.matches) == len(table)
    match = STAGE.match_catalogs(table, survey=survey, epoch=EPOCH)
    assert match.matches["carried"].any()


def test_columns_of_positions_and_magnitudes(wide):
    table = QTable.read(wide[1])
    extended = np.asarray(table["is_extended"])
    found = read_jwst_catalog(wide[0]).table
    isophotal, total = table["isophotal_abmag"], table["aper_total_abmag"]
    assert np.array_equal(found["jwst_mag"], np.where(extended, isophotal, total))
    chosen = read_jwst_catalog(wide[1], magnitude="isophotal_abmag").table
    assert np.array_equal(chosen["jwst_mag"], table["isophotal_abmag"])
    bare = Table({"RA": table["sky_centroid"].ra.rad * u.rad, "Dec": table["sky_centroid"].dec})
    found = read_jwst_catalog(bare)
    assert np.allclose(found.table["jwst_ra"], table["sky_centroid"].ra.deg)
    assert np.isnan(found.table["jwst_mag"]).all()
    assert found.table["label"][0] == 1
    bare["RA"][3] = np.nan
    assert len(read_jwst_catalog(bare).table) == len(table) - 1


def test_neighbours_that_share_the_light():
    table = Table({"ra": [10.0, 10.0 + 0.6 / 3600, 10.0 + 1.4 / 3600, 10.1], "dec": np.zeros(4)})
    assert read_jwst_catalog(table).table["jwst_near"].tolist() == [1, 2, 1, 0]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_few_sources_have_a_field_all_the_same(number):
    table = Table({"ra": 10 + 0.001 * np.arange(number), "dec": np.zeros(number)})
    catalog = read_jwst_catalog(table)
    assert catalog.covers(plain_ra := np.asarray(table["ra"]), np.zeros(number)).all(), plain_ra


def test_a_catalogue_at_home(wide, monkeypatch):
    monkeypatch.setenv("HOME", str(wide[1].parent))
    catalog = read_jwst_catalog(f"~/{wide[1].name}")
    assert catalog.image == read_jwst_catalog(wide[1]).image
    assert catalog.image is not None


def test_files_that_are_no_catalogue(tmp_path, wide):
    with pytest.raises(InvalidRequestError, match="writes none where it finds nothing"):
        STAGE.match_catalogs(tmp_path / "absent_i2d.fits")
    junk = tmp_path / "junk_cat.ecsv"
    junk.write_text("<html>")
    with pytest.raises(InvalidExposureError, match="not an ECSV"):
        STAGE.match_catalogs(junk)
    with pytest.raises(InvalidRequestError, match="no column of SkyCoord"):
        STAGE.match_catalogs(Table({"x": [1.0]}))
    with pytest.raises(InvalidRequestError, match="must be a"):
        STAGE.match_catalogs(3)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"radius": 0.3}, "radius"),
        ({"radius": 10 * u.arcsec}, "radius"),
        ({"max_offset": 2 * u.deg}, "max_offset"),
        ({"max_offset": 2}, "max_offset"),
        ({"epoch": "2023"}, "epoch"),
        ({"magnitude": "kron_abmag"}, "aper_total_abmag"),
        ({"dereddened": 1}, "dereddened"),
        ({"tractor": [1]}, "tractor"),
        ({"tractor": Table({"ra": [1.0], "dec": [2.0]})}, "no column type"),
    ],
)
def test_wrong_arguments(survey, sky, wide, more, match):
    with pytest.raises(InvalidRequestError, match=match):
        STAGE.match_catalogs(wide[1], survey=survey, **more)
    assert not sky.requests


def test_a_sweep_has_its_names_in_capitals(survey, wide, match):
    tractor = survey.query_tractor(SkyCoord(45.09, 0.062, unit="deg"), radius=60 * u.arcsec)
    tractor = tractor["ra", "dec", "type", "flux_r", "mw_transmission_r", "flux_ivar_r"]
    tractor["label"], tractor["mag_r"] = "mine", 99.0
    for name in tractor.colnames:
        tractor.rename_column(name, name.upper())
    found = STAGE.match_catalogs(wide[1], tractor=tractor)
    assert len(found.matches) == len(match.matches)
    assert not found.matches["carried"].any()
    assert set(found.matches["label_tractor"]) == {"mine"}
    assert set(found.matches["mag_r_tractor"]) == {99.0}
    assert found.matches["mag_r"].max() < 30
    assert "RA" in tractor.colnames


def test_tractors_shape_decides_which_magnitude_a_pair_has(survey, tmp_path, rows):
    _, path = write_mosaic(tmp_path, "shapes", WIDE, rows)
    table = QTable.read(path)
    table["isophotal_abmag"] += 5.0
    # As the pipeline does without thresholds: nothing is extended.
    table["is_extended"] = False
    table.write(path, format="ascii.ecsv", overwrite=True)
    match = STAGE.match_catalogs(path, survey=survey)
    by_label = {label: at for at, label in enumerate(table["label"])}
    at = [by_label[label] for label in match.matches["label"]]
    point = np.array(match.matches["type"]) == "PSF"
    assert 0 < point.sum() < len(point)
    expected = np.where(point, table["aper_total_abmag"][at], table["isophotal_abmag"][at])
    assert np.array_equal(match.matches["jwst_mag"], expected)
    named = STAGE.match_catalogs(path, survey=survey, magnitude="aper_total_abmag")
    assert np.array_equal(named.matches["jwst_mag"], table["aper_total_abmag"][at])


def test_rows_straight_from_the_files_of_bricks(survey, tmp_path, rows):
    """Bricks that overlap have the same source twice, once as their own."""
    place = SkyCoord(45.25, 0.125, unit="deg")
    wcs = grid(45.25, 0.125, (700, 700), 0.15)
    _, path = write_mosaic(tmp_path, "corner", wcs, rows)
    every = survey.query_tractor(place, radius=75 * u.arcsec, primary=False, drop_duplicates=False)
    own = survey.query_tractor(place, radius=75 * u.arcsec)
    assert len(every) > len(own)
    found, expected = (STAGE.match_catalogs(path, tractor=table) for table in (every, own))
    assert len(found.matches) == len(expected.matches) > 5
    assert len(found.legacy_only) == len(expected.legacy_only)
    assert found.matches["objid"].tolist() == expected.matches["objid"].tolist()
