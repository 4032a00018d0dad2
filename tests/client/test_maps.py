"""Values of the maps at positions, against the files read with astropy."""

import tracemalloc

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from astroquery_lis import LegacySurveyClass, conf
from astroquery_lis.exceptions import (
    CoverageWarning,
    FailoverWarning,
    IncompleteMirrorError,
    InvalidRequestError,
    LegacySurveyWarning,
    NoCoverageError,
    ServiceDownError,
)
from astroquery_lis.images.map_values import jobs_of
from astroquery_lis.survey.bricks import brick_id, brick_wcs, name_of
from astroquery_lis.survey.paths import file_path

PRODUCTS = ("maskbits", "nexp", "depth", "psfsize", "image", "wisem1")


def _positions(n):
    """Positions over four bricks round a corner."""
    rng = np.random.default_rng(5)
    return 45.25 + rng.uniform(-0.2, 0.2, n), 0.125 + rng.uniform(-0.2, 0.2, n)


def _directly(sky, ra, dec, product, band):
    """Read the value of each position from its owner's file."""
    values = np.zeros(len(ra))
    bricks = name_of(brick_id(ra, dec))
    file = "maskbits" if product == "wisem1" else product
    for brick in np.unique(bricks):
        rows = np.flatnonzero(bricks == brick)
        path = sky.root / file_path(file, "dr10", "south", brick=str(brick), band=band)
        with fits.open(path) as hdus:
            x, y = WCS(hdus[1].header).world_to_pixel_values(ra[rows], dec[rows])
            data = hdus[2 if product == "wisem1" else 1].data
            values[rows] = data[np.rint(y).astype(int), np.rint(x).astype(int)]
    return values


@pytest.mark.parametrize(
    ("n", "executor"), [(7, None), pytest.param(3000, "threads", marks=pytest.mark.slow)]
)
def test_values_are_those_of_the_owners_files(sky, survey, n, executor):
    ra, dec = _positions(n)
    table = survey.query_maps(
        Table({"ra": ra, "dec": dec}), PRODUCTS, bands="gr", executor=executor
    )
    assert table.colnames[:4] == ["id", "ra", "dec", "maskbits"]
    assert table["psfsize_r"].unit == "arcsec"
    types = {"maskbits": "int32", "wisem1": "uint8", "nexp_r": "int16", "depth_g": "float32"}
    assert {name: table[name].dtype.name for name in types} == types
    for product in PRODUCTS:
        for band in (None,) if product in ("maskbits", "wisem1") else ("g", "r"):
            column = table[f"{product}_{band}" if band else product]
            assert not np.ma.getmaskarray(column).any()
            assert np.array_equal(column, _directly(sky, ra, dec, product, band))


def test_bits_have_names_and_rows_without_a_value_are_masked(sky, survey):
    names = ["star", "off", "split"]
    places = SkyCoord([sky.positions[name] for name in names])
    rows = Table({"name": names, "ra": places.ra.deg, "dec": places.dec.deg})
    rows.add_row(("nowhere", np.nan, np.nan))
    with (
        pytest.warns(CoverageWarning, match="no brick at 1 of 4"),
        pytest.warns(LegacySurveyWarning, match="have no values"),
    ):
        table = survey.query_maps(
            rows, ("maskbits", "nexp"), bit_names=True, id_column="name", bands="ri"
        )
    assert list(table["id"]) == [*names, "nowhere"]
    assert np.ma.getmaskarray(table["nexp_r"]).tolist() == [False, True, False, True]
    # The north has no i.
    assert np.ma.getmaskarray(table["nexp_i"]).tolist()[0] is False
    ra, dec = _positions(2000)
    table = survey.query_maps(SkyCoord(ra, dec, unit="deg"), "maskbits", bit_names=True)
    for bit, name in ((0, "NPRIMARY"), (1, "BRIGHT")):
        is_set = (np.asarray(table["maskbits"]) >> bit) & 1 == 1
        named = [name in text.split(",") for text in table["maskbits_names"]]
        assert np.array_equal(is_set, named)


def test_by_a_pole_what_a_brick_owns_beyond_its_image_has_no_value():
    rng = np.random.default_rng(3)
    ra = np.append(rng.uniform(0, 360, 20000), np.nan)
    dec = np.append(rng.uniform(89, 90, 20000) * rng.choice([-1, 1], 20000), np.nan)
    rows = np.concatenate([job.rows for job in jobs_of(ra, dec)])
    assert len(np.unique(rows)) == len(rows)
    expected = np.zeros(len(ra), bool)
    owner = brick_id(ra[:-1], dec[:-1])
    for brick in np.unique(owner):
        at = np.flatnonzero(owner == brick)
        x, y = brick_wcs(name_of(int(brick))).world_to_pixel_values(ra[at], dec[at])
        expected[at] = (x > -0.5) & (x < 3599.5) & (y > -0.5) & (y < 3599.5)
    assert 0 < np.count_nonzero(~expected[:-1]) < 2000
    assert np.array_equal(np.isin(np.arange(len(ra)), rows), expected)


def test_a_call_goes_on_where_it_stopped(sky, survey, tmp_path):
    ra, dec = _positions(400)
    rows = Table({"ra": ra, "dec": dec})
    options = {"bands": "r", "download_dir": tmp_path, "cache": False}
    sky.faults.add("status", match="*0453p002*nexp*", code=503, times=None)
    with pytest.raises(ServiceDownError):
        survey.query_maps(rows, "nexp", **options)
    sky.faults.clear()
    sky.requests.clear()
    table = survey.query_maps(rows, "nexp", **options)
    assert {record.path.split("/")[-2] for record in sky.requests} == {"0453p002"}
    assert np.array_equal(table["nexp_r"], _directly(sky, ra, dec, "nexp", "r"))
    sky.requests.clear()
    assert np.array_equal(survey.query_maps(rows, "nexp", **options)["nexp_r"], table["nexp_r"])
    assert len(sky.requests) == 0
    # What is damaged is read again.
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    assert np.array_equal(survey.query_maps(rows, "nexp", **options)["nexp_r"], table["nexp_r"])
    # Other positions or maps are not those that are kept.
    assert len(survey.query_maps(rows[:9], "depth", **options)) == 9
    assert len(sky.requests) > 0


def test_what_is_kept_of_one_mirror_is_not_given_for_another(sky, survey, tmp_path):
    ra, dec = _positions(40)
    rows = Table({"ra": ra, "dec": dec})
    options = {"bands": "r", "download_dir": tmp_path / "kept"}
    survey.query_maps(rows, "nexp", **options)
    (tmp_path / "empty/dr10").mkdir(parents=True)
    with pytest.raises(IncompleteMirrorError):
        survey.query_maps(rows, "nexp", **options, mirror=tmp_path / "empty")


def test_a_mirror_that_fails_is_told_once(sky, survey, tmp_path):
    ra, dec = _positions(60)
    mirrors = [sky.mirror_url, str(sky.root)]
    sky.faults.add("status", match="*nexp*", code=503, times=None)
    with conf.set_temp("retries", 0), pytest.warns(FailoverWarning) as caught:
        table = survey.query_maps(
            Table({"ra": ra, "dec": dec}), "nexp", bands="gr", mirror=mirrors, cache=False
        )
    assert len(caught) == 1
    assert np.array_equal(table["nexp_g"], _directly(sky, ra, dec, "nexp", "g"))


@pytest.mark.parametrize("n", [40, 60_000])
def test_no_more_than_strips_of_a_brick_are_in_memory(sky, n):
    ra, dec = _positions(n)
    survey = LegacySurveyClass()
    options = {"products": ("maskbits", "nexp"), "bands": "r", "mirror": str(sky.root)}
    survey.query_maps(SkyCoord(ra[:2], dec[:2], unit="deg"), **options)
    table = Table({"ra": ra, "dec": dec})
    tracemalloc.start()
    try:
        survey.query_maps(table, **options)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A whole plane of maskbits is 52 MB, and four bricks are read at once.
    assert peak_bytes < 40e6 + 150 * n


def test_what_is_wrong_is_refused_before_any_request(sky, survey, tmp_path):
    star = sky.positions["star"]
    for options in ({"products": "nexp", "bands": "y"}, {"products": "chi3"}):
        with pytest.raises(InvalidRequestError):
            survey.query_maps(star, **options)
    assert len(sky.requests) == 0
    (tmp_path / "dr10").mkdir()
    with pytest.raises(IncompleteMirrorError):
        LegacySurveyClass().query_maps(star, "nexp", bands="r", mirror=tmp_path)


def test_covers_asks_the_pixels_if_told_to(sky, survey):
    names = ["star", "hole", "off", "split"]
    places = SkyCoord([sky.positions[name] for name in names])
    assert survey.covers(places, bands="r").tolist() == [True, True, False, True]
    assert survey.covers(places, bands="r", observed=True).tolist() == [True, False, False, True]
    assert survey.covers(sky.positions["star"], observed=True) is True
    assert survey.covers(sky.positions["split"], bands="ri", observed=True) in (True, False)
    # The judgement is that of the planes of a cutout.
    ra, dec = _positions(30)
    answer = survey.covers(Table({"ra": ra, "dec": dec}), bands="r", observed=True)
    assert 0 < answer.sum() < len(answer)
    for is_there, place in zip(answer, SkyCoord(ra, dec, unit="deg"), strict=True):
        try:
            survey.get_cutout(place, 1, bands="r")
        except NoCoverageError:
            assert not is_there
        else:
            assert is_there
