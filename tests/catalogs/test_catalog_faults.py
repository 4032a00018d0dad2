"""The catalogue's sources when something goes wrong: the right rows or the right error."""

import gzip
import threading
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astroquery import cache_conf
from astroquery.exceptions import InvalidQueryError, MaxResultsWarning

from astroquery_lis import conf
from astroquery_lis.exceptions import (
    CacheWarning,
    FailoverWarning,
    InvalidRequestError,
    RateLimitedError,
    RefusedQueryError,
    ServiceDownError,
    ServiceTimeoutError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
)

from .test_catalogs import assert_same

TRACTOR = "*tractor-0451p000.fits"


@pytest.fixture
def tap(sky, survey):
    """The survey with the sandbox's TAP service, which is put right afterwards."""
    with conf.set_temp("tap_url", sky.tap_url), conf.set_temp("retries", 0):
        yield survey
    sky.tap.has_q3c = True
    sky.tap.default_rows = type(sky.tap)("/tap").default_rows


def _ask(survey, sky, **kwargs):
    return survey.query_tractor(
        sky.positions["field"], radius=30 * u.arcsec, columns=["ls_id", "flux_r"], **kwargs
    )


TAP_FAULTS = [
    ("status", {"code": 503}, ServiceDownError, 503),
    ("status", {"code": 500}, ServiceDownError, 500),
    ("status", {"code": 429}, RateLimitedError, 429),
    ("status", {"code": 404}, TransferError, 404),
    ("status", {"code": 403}, TransferError, 403),
    ("html", {}, UnexpectedContentError, None),
    ("votable", {"message": "relation does not exist"}, RefusedQueryError, None),
    ("refuse", {}, ServiceDownError, None),
    ("cut", {}, TruncatedError, None),
    ("slow", {"seconds": 30}, ServiceTimeoutError, None),
]


@pytest.mark.parametrize(("kind", "options", "error", "status"), TAP_FAULTS)
def test_tap_faults_are_typed_errors(sky, tap, kind, options, error, status):
    tap.timeout = 2 if kind == "slow" else 20
    sky.faults.add(kind, "/tap/*", times=None, **options)
    with pytest.raises(error) as caught:
        _ask(tap, sky, source="tap")
    assert caught.value.status == status
    assert sky.tap_url in str(caught.value)
    with pytest.raises(error):
        tap.query_tap("SELECT TOP 1 ra FROM ls_dr10.tractor")


@pytest.mark.parametrize(("kind", "options", "error", "status"), TAP_FAULTS)
def test_auto_goes_on_to_the_files_with_a_warning(sky, tap, kind, options, error, status):
    good = _ask(tap, sky, source="files", cache=False)
    tap.timeout = 2 if kind == "slow" else 20
    sky.faults.add(kind, "/tap/*", times=None, **options)
    with pytest.warns(FailoverWarning, match="the Tractor files answer"):
        rows = _ask(tap, sky)
    assert rows.meta["source"] == "files"
    assert "TAP failed" in rows.meta["reason"]
    assert list(rows["ls_id"]) == list(good["ls_id"])


def test_the_error_of_tap_is_told_where_the_files_would_be_too_many(sky, tap):
    sky.faults.add("refuse", "/tap/*", times=None)
    with (
        conf.set_temp("max_query_bricks", 2),
        # Without a warning: nothing answered instead.
        pytest.raises(ServiceDownError, match="/tap"),
    ):
        tap.query_tractor(sky.positions["field"], radius=0.5 * u.deg, columns=["ra"])


def test_a_message_of_the_service_is_shown(sky, tap):
    with pytest.raises(RefusedQueryError, match="no_such_column") as caught:
        tap.query_tap("SELECT no_such_column FROM ls_dr10.tractor")
    assert isinstance(caught.value, InvalidQueryError)
    with pytest.raises(RefusedQueryError, match="no_such_column"):
        tap.query_tap("SELECT no_such_column FROM ls_dr10.tractor", async_job=True)
    with pytest.raises(InvalidRequestError, match="query"):
        tap.query_tap("  ")


def test_a_mirror_of_ones_own_is_not_mixed_with_the_real_sky(sky, survey):
    rows = _ask(survey, sky)
    assert (rows.meta["source"], rows.meta["reason"]) == (
        "files",
        "the mirror is not one of the survey's",
    )
    target = sky.positions["field"]
    query = survey.query_tractor(
        target, radius=1 * u.arcsec, mirror="nersc", release="dr9", get_query_payload=True
    )
    assert "FROM ls_dr9.tractor AS t" in query["query"]


def test_a_service_without_q3c_is_asked_by_boxes(sky, tap):
    expected = _ask(tap, sky, source="tap")
    sky.tap.has_q3c = False
    sky.requests.clear()
    rows = _ask(tap, sky, source="tap")
    assert list(rows["ls_id"]) == list(expected["ls_id"])
    assert "BETWEEN" in rows.meta["adql"]
    assert len(sky.requests) == 2
    sky.requests.clear()
    across = tap.query_tractor(sky.positions["ra0"], radius=1 * u.arcmin, source="tap")
    assert len(sky.requests) == 1
    sides = across["ra"] < 180
    assert sides.any()
    assert not sides.all()


def test_a_job_gives_the_same_rows_and_is_removed(sky, tap):
    now = _ask(tap, sky, source="tap")
    later = _ask(tap, sky, source="tap", async_job=True)
    assert list(later["ls_id"]) == list(now["ls_id"])
    assert np.array_equal(later["flux_r"], now["flux_r"])
    assert any(record.method == "DELETE" for record in sky.requests)


def test_a_busy_service_is_asked_again(sky, tap):
    with conf.set_temp("retries", 2):
        sky.faults.add("status", "/tap/*", times=1, code=503, retry_after=0)
        assert len(_ask(tap, sky, source="tap")) > 3
    sky.faults.add("status", "/tap/*", times=None, code=503, retry_after=1000)
    with conf.set_temp("retries", 2), pytest.raises(RateLimitedError, match="1000 s"):
        _ask(tap, sky, source="tap")


def test_overflow_is_told(sky, tap):
    with pytest.warns(MaxResultsWarning, match="more rows than the 3"):
        rows = tap.query_tap("SELECT ra FROM ls_dr10.tractor", maxrec=3)
    assert len(rows) == 3
    sky.tap.default_rows = 7
    with pytest.warns(MaxResultsWarning, match="more rows than the 7"):
        tap.query_tap("SELECT ra FROM ls_dr10.tractor")
    # A catalogue query names its own limit, which the service's default does not cut.
    assert len(_ask(tap, sky, source="tap")) > 7


def test_a_user_cannot_slip_anything_into_the_query(sky, tap):
    evil = "PSF' OR 1=1 --"
    query = tap.query_tractor(
        sky.positions["field"],
        radius=1 * u.arcsec,
        column_filters={"ref_cat": evil},
        columns=["ra"],
        source="tap",
        get_query_payload=True,
    )
    assert "'PSF'' OR 1=1 --'" in query["query"]
    for bad in ("ra; DROP TABLE x", 'ra" FROM y --', "t.*", ""):
        with pytest.raises(InvalidRequestError, match="columns"):
            tap.query_tractor(
                sky.positions["field"], radius=1 * u.arcsec, columns=[bad], source="tap"
            )
    assert len(sky.requests) == 0


@pytest.mark.parametrize(
    ("kind", "options", "error"),
    [
        ("status", {"code": 503}, ServiceDownError),
        ("html", {}, UnexpectedContentError),
        ("cut", {}, TruncatedError),
        ("refuse", {}, ServiceDownError),
    ],
)
def test_file_faults_leave_a_clean_cache(sky, survey, kind, options, error):
    with conf.set_temp("retries", 0):
        sky.faults.add(kind, TRACTOR, times=None, **options)
        with pytest.raises(error):
            _ask(survey, sky, source="files")
    sky.faults.clear()
    survey.mirror = [sky.mirror_url]
    good = _ask(survey, sky, source="files", mirror=sky.root)
    assert list(_ask(survey, sky, source="files")["ls_id"]) == list(good["ls_id"])


def test_a_second_mirror_answers(sky, survey):
    with conf.set_temp("retries", 0), pytest.warns(FailoverWarning, match="127.0.0.1:9"):
        rows = _ask(survey, sky, source="files", mirror=["http://127.0.0.1:9/x", sky.mirror_url])
    assert len(rows) > 3


def test_damaged_files_in_the_cache_are_fetched_again(sky, survey):
    good = _ask(survey, sky, source="files")
    cached = list(survey.cache_location.glob("custom-*/dr10/south/tractor/045/*.fits"))
    assert len(cached) == 1
    whole = cached[0].read_bytes()
    cached[0].write_bytes(whole[: len(whole) // 2])
    assert list(_ask(survey, sky, source="files")["ls_id"]) == list(good["ls_id"])
    assert cached[0].read_bytes() == whole
    for note in survey.cache_location.glob("custom-*/.tables/**/*.np*"):
        note.write_bytes(b"\x93NUMPY rubbish")
    survey._tables.clear()
    assert list(_ask(survey, sky, source="files")["ls_id"]) == list(good["ls_id"])


def test_a_packed_file_under_the_name_of_a_plain_one_is_read_the_same_again(sky, survey, tmp_path):
    path = tmp_path / "dr10/south/tractor/045/tractor-0451p000.fits"
    path.parent.mkdir(parents=True)
    whole = (sky.root / path.relative_to(tmp_path)).read_bytes()
    path.write_bytes(gzip.compress(whole, 1))
    good = _ask(survey, sky, source="files", mirror=sky.root)
    for _ in range(2):
        assert_same(_ask(survey, sky, source="files", mirror=tmp_path), good)
        survey._tables.clear()


def test_a_damaged_local_file_is_told(sky, survey, tmp_path):
    path = tmp_path / "dr10/south/tractor/045/tractor-0451p000.fits"
    path.parent.mkdir(parents=True)
    whole = (sky.root / path.relative_to(tmp_path)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TruncatedError, match="its table needs"):
        _ask(survey, sky, mirror=tmp_path)
    path.write_bytes(b"<html>" * 1000)
    with pytest.raises(UnexpectedContentError, match="FITS"):
        _ask(survey, sky, mirror=tmp_path)
    Table({"x": [1]}).write(path, overwrite=True)
    with pytest.raises(UnexpectedContentError, match="no ra, dec"):
        _ask(survey, sky, mirror=tmp_path)


def test_files_without_units_or_with_those_of_dr11(sky, survey, tmp_path):
    source = sky.root / "dr10/south/tractor/045/tractor-0451p000.fits"
    path = tmp_path / "dr10/south/tractor/045/tractor-0451p000.fits"
    path.parent.mkdir(parents=True)
    expected = _ask(survey, sky, mirror=sky.root)
    for spelling in (None, "nanomaggies"):
        with fits.open(source) as hdus:
            table = hdus[1]
            for key in list(table.header["TUNIT*"]):
                if spelling is None:
                    del table.header[key]
                elif table.header[key] == "nanomaggy":
                    table.header[key] = spelling
            fits.HDUList([hdus[0], table]).writeto(path, overwrite=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rows = _ask(survey, sky, mirror=tmp_path)
        assert rows["flux_r"].unit == u.nmgy
        assert np.array_equal(rows["flux_r"], expected["flux_r"])


def test_a_cache_that_cannot_be_written_does_not_hinder(sky, survey, tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    survey.cache_location = blocked
    expected = _ask(survey, sky, mirror=sky.root)
    with pytest.warns(CacheWarning, match="not cached"):
        rows = _ask(survey, sky, source="files")
    assert list(rows["ls_id"]) == list(expected["ls_id"])
    with pytest.warns(CacheWarning, match="not cached"):
        assert survey.covers(sky.positions["star"])


def test_a_sweep_that_comes_whole_needs_no_cache_either(sky, survey, tmp_path):
    expected = _ask(survey, sky, mirror=sky.root, source="sweeps")
    blocked = tmp_path / "a file"
    blocked.write_text("")
    survey.cache_location = blocked
    sky.faults.add("ignore_range", "*/sweep-*", times=None)
    with pytest.warns(CacheWarning, match="not cached"):
        rows = _ask(survey, sky, source="sweeps")
    assert len(rows)
    assert list(rows["ls_id"]) == list(expected["ls_id"])


def test_without_cache_nothing_is_kept(sky, survey):
    with cache_conf.set_temp("cache_active", False):
        first = _ask(survey, sky, source="files")
    assert not list(survey.cache_location.glob("*/dr10"))
    assert list(_ask(survey, sky, source="files", cache=False)["ls_id"]) == list(first["ls_id"])
    assert not list(survey.cache_location.glob("*/dr10"))


def test_a_repeated_cone_asks_nobody_and_reads_no_header(sky, survey, monkeypatch):
    first = _ask(survey, sky, source="files")
    sky.requests.clear()
    survey._tables.clear()

    def refuse(*args, **kwargs):
        raise AssertionError("the FITS header was read")

    monkeypatch.setattr(fits, "open", refuse)
    again = _ask(survey, sky)
    assert again.meta["source"] == "files"
    assert np.array_equal(again["flux_r"], first["flux_r"])
    assert len(sky.requests) == 0


def test_threads_share_one_download(sky, survey):
    found, errors = [], []

    def ask():
        try:
            found.append(len(_ask(survey, sky, source="files")))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(set(found)) == 1
    assert len(sky.requests) == 1
