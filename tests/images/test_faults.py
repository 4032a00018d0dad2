"""Whatever goes wrong on the way: the right pixels or the right error, and a clean cache."""

import numpy as np
import pytest

from astroquery_lis import conf
from astroquery_lis.exceptions import (
    CacheWarning,
    ContentChangedError,
    FailoverWarning,
    LegacySurveyError,
    NoCoverageError,
    RateLimitedError,
    ServiceDownError,
    ServiceTimeoutError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
)
from astroquery_lis.io.mirrors import FAILURES_TO_REST, HEALTH, resolve_mirrors

FIRST, TILES = 0, 1
SIZE = 300


def _cut(survey, sky, **kwargs):
    return survey.get_cutout(sky.positions["field"], SIZE, bands="g", **kwargs)["IMAGE_G"].data


@pytest.fixture(scope="module")
def truth(served_sky):
    """The right answer, from the files themselves."""
    from astroquery_lis import LegacySurveyClass

    return _cut(LegacySurveyClass(), served_sky, mirror=served_sky.root)


def _assert_clean(survey, sky, truth):
    """What is cached now gives the right pixels, in this process and in a new one."""
    sky.faults.clear()
    assert np.array_equal(_cut(survey, sky), truth)
    fresh = type(survey)()
    fresh.mirror = survey.mirror
    assert np.array_equal(_cut(fresh, sky), truth)
    leftovers = [p.name for p in survey.cache_location.rglob("*") if p.name.endswith(".tmp")]
    assert leftovers == []


TRANSIENT = {
    "503": ("status", {"code": 503}),
    "500": ("status", {"code": 500}),
    "429": ("status", {"code": 429, "retry_after": 0}),
    "cut": ("cut", {}),
    "cut at once": ("cut", {"fraction": 0.0}),
    "refuse": ("refuse", {}),
}


@pytest.mark.parametrize("after", [FIRST, TILES])
@pytest.mark.parametrize("name", TRANSIENT)
def test_a_passing_fault_is_retried(sky, survey, truth, name, after):
    kind, options = TRANSIENT[name]
    fault = sky.faults.add(kind, match="*image-g*", times=1, after=after, **options)
    assert np.array_equal(_cut(survey, sky), truth)
    assert fault.hits == 1
    _assert_clean(survey, sky, truth)


LASTING = {
    "503": ("status", {"code": 503}, ServiceDownError, "HTTP 503"),
    "500": ("status", {"code": 500}, ServiceDownError, "HTTP 500"),
    "429": ("status", {"code": 429, "retry_after": 0}, RateLimitedError, "HTTP 429"),
    "429 for an hour": ("status", {"code": 429, "retry_after": 3600}, RateLimitedError, "3600 s"),
    "403": ("status", {"code": 403}, TransferError, "HTTP 403"),
    "cut": ("cut", {}, TruncatedError, "cut off"),
    "reset": ("reset", {"fraction": 0.5}, TruncatedError, "cut off: .*reset"),
    "refuse": ("refuse", {}, ServiceDownError, "Could not read"),
    "html": ("html", {}, UnexpectedContentError, "not a FITS file; it begins with b'<"),
    "wrong range": ("wrong_range", {}, UnexpectedContentError, "sent bytes"),
    "short": ("short", {}, TruncatedError, "bytes for the range"),
}


@pytest.mark.parametrize("after", [FIRST, TILES])
@pytest.mark.parametrize("name", LASTING)
def test_a_lasting_fault_is_a_typed_error(sky, survey, truth, name, after):
    kind, options, error, match = LASTING[name]
    sky.faults.add(kind, match="*image-g*", times=None, after=after, **options)
    with pytest.raises(error, match=match) as caught:
        _cut(survey, sky)
    assert isinstance(caught.value, LegacySurveyError)
    assert caught.value.url.endswith("image-g.fits.fz")
    _assert_clean(survey, sky, truth)


def test_an_hour_is_not_waited_for(sky, survey):
    sky.faults.add("status", match="*image-g*", times=None, code=429, retry_after=3600)
    with pytest.raises(RateLimitedError) as caught:
        _cut(survey, sky)
    assert caught.value.retry_after_s == pytest.approx(3600)
    ranges = [record.range for record in sky.requests]
    assert len(set(ranges)) == len(ranges) > 0


@pytest.mark.parametrize("after", [FIRST, TILES])
def test_a_server_without_ranges_is_asked_for_the_whole_file_once(sky, survey, truth, after):
    sky.faults.add("ignore_range", match="*image-g*", times=None, after=after)
    assert np.array_equal(_cut(survey, sky), truth)
    path = next(sky.root.rglob("*0451p000-image-g.fits.fz"))
    copies = list(survey.cache_location.rglob("*image-g.fits.fz"))
    assert [p.read_bytes() for p in copies if p.is_file()] == [path.read_bytes()]
    sky.requests.clear()
    assert np.array_equal(_cut(survey, sky), truth)
    assert len(sky.requests) == 0
    assert not list(survey.cache_location.rglob("*.part*.json"))


def test_a_file_that_is_replaced_is_begun_again(sky, survey, truth):
    _cut(survey, sky)
    # The survey replaces files in place: another ETag, other bytes, the same name.
    sky.faults.add("etag", match="*image-g*", times=1)
    moved = sky.positions["star"]
    again = survey.get_cutout(moved, 64, bands="g")["IMAGE_G"].data
    assert np.array_equal(
        again, survey.get_cutout(moved, 64, bands="g", mirror=sky.root)["IMAGE_G"].data
    )
    firsts = [r for r in sky.requests if r.range and r.range.startswith("bytes=0-")]
    assert len(firsts) == 2
    assert np.array_equal(_cut(survey, sky), truth)


def test_a_file_that_never_rests_is_an_error(sky, survey, truth):
    sky.faults.add("etag", match="*image-g*", times=None)
    with pytest.raises(ContentChangedError, match="changed while it was being read"):
        _cut(survey, sky)
    _assert_clean(survey, sky, truth)


def test_too_slow_is_a_timeout(sky, survey, truth):
    survey.timeout = 0.2
    sky.faults.add("slow", match="*image-g*", times=None, seconds=30)
    with pytest.raises(ServiceTimeoutError, match="No answer from .* in time"):
        _cut(survey, sky)
    survey.timeout = None
    _assert_clean(survey, sky, truth)


def test_a_404_everywhere_is_no_coverage(sky, survey, truth):
    sky.faults.add("status", match="*0451p000*", times=None, code=404)
    with pytest.raises(NoCoverageError, match="0451p000 of dr10/south does not exist"):
        _cut(survey, sky)
    _assert_clean(survey, sky, truth)


@pytest.mark.parametrize("name", [*LASTING, "slow"])
def test_the_next_mirror_answers(sky, other, survey, truth, name):
    kind, options = LASTING[name][:2] if name in LASTING else ("slow", {"seconds": 30})
    sky.faults.add(kind, match="*", times=None, **options)
    survey.timeout = 2 if name == "slow" else None
    with pytest.warns(FailoverWarning, match="Mirror http.* failed .* answered instead"):
        hdul = survey.get_cutout(
            sky.positions["field"], SIZE, bands="g", mirror=[sky.mirror_url, other.mirror_url]
        )
    assert np.array_equal(hdul["IMAGE_G"].data, truth)
    assert hdul[0].header["MIRROR"] == other.mirror_url
    assert hdul["IMAGE_G"].header["URL1"].startswith(other.mirror_url)


def test_a_mirror_that_fails_between_table_and_tiles_is_not_mixed_with_another(
    sky, other, survey, truth
):
    sky.faults.add("status", match="*image-g*", times=None, after=TILES, code=503)
    other.faults.add("etag", match="*image-g*", times=1)
    with pytest.warns(FailoverWarning):
        pixels = _cut(survey, sky, mirror=[sky.mirror_url, other.mirror_url])
    assert np.array_equal(pixels, truth)
    assert any(r.range.startswith("bytes=0-") for r in other.requests)


@pytest.mark.parametrize(("workers", "n_before"), [(1, 1), (12, 5)])
def test_bytes_of_two_states_of_a_file_are_not_put_together(sky, survey, truth, workers, n_before):
    # The file is replaced when its first bytes, in one piece or in five, have been answered.
    sky.faults.add("etag", match="*image-g*", times=1, after=n_before)
    with conf.set_temp("max_workers", workers):
        assert np.array_equal(_cut(survey, sky), truth)
    starts = [record.range for record in sky.requests if record.range.startswith("bytes=0-")]
    assert len(starts) == 2


def test_a_404_is_asked_of_the_next_mirror_once(sky, other, survey, truth):
    sky.faults.add("status", match="*image-g*", times=None, code=404)
    pixels = _cut(survey, sky, mirror=[sky.mirror_url, other.mirror_url])
    assert np.array_equal(pixels, truth)
    # The first bytes are asked for in pieces; none of them twice.
    ranges = [record.range for record in sky.requests]
    assert len(set(ranges)) == len(ranges) > 0


def test_all_mirrors_down_names_them_all(sky, other, survey):
    for server in (sky, other):
        server.faults.add("status", times=None, code=503)
    with pytest.raises(ServiceDownError, match=f"{sky.url}.*{other.url}"):
        _cut(survey, sky, mirror=[sky.mirror_url, other.mirror_url])


def test_a_missing_file_is_not_declared_missing_by_the_second_mirror_alone(sky, other, survey):
    sky.faults.add("status", times=None, code=503)
    other.faults.add("status", times=None, code=404)
    with pytest.raises(ServiceDownError, match="HTTP 503"):
        _cut(survey, sky, mirror=[sky.mirror_url, other.mirror_url])


def test_a_damaged_cache_is_noticed_and_mended(sky, survey, truth):
    _cut(survey, sky)
    runs = [p for p in survey.cache_location.rglob("*") if p.is_file() and p.suffix != ".json"]
    assert len(runs) > 2
    for number, path in enumerate(runs):
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 0xFF
        path.write_bytes(raw if number % 2 else raw[: len(raw) // 2])
    fresh = type(survey)()
    fresh.mirror = survey.mirror
    assert np.array_equal(_cut(fresh, sky), truth)
    _assert_clean(survey, sky, truth)


def test_a_truncated_whole_file_in_the_cache_is_fetched_anew(sky, survey, truth):
    with sky.faults.add("ignore_range", match="*image-g*", times=None):
        _cut(survey, sky)
    path = next(p for p in survey.cache_location.rglob("*image-g.fits.fz") if p.is_file())
    path.write_bytes(path.read_bytes()[:100_000])
    assert np.array_equal(_cut(survey, sky), truth)


def test_without_a_cache_nothing_is_kept(sky, survey, truth):
    assert np.array_equal(_cut(survey, sky, cache=False), truth)
    assert not list(survey.cache_location.rglob("*"))
    first = len(sky.requests)
    assert np.array_equal(_cut(survey, sky, cache=False), truth)
    assert len(sky.requests) == 2 * first


def test_a_cache_that_cannot_be_written_is_said_and_done_without(sky, survey, truth, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")

    said = pytest.warns(CacheWarning, match="not cached: Cannot write .*Not a directory")
    with conf.set_temp("cache_dir", str(blocked / "cache")), said:
        pixels = _cut(survey, sky)
    assert np.array_equal(pixels, truth)
    assert blocked.read_text() == "not a directory"


def test_what_is_here_says_nothing_of_the_mirror(sky, survey, truth):
    assert np.array_equal(_cut(survey, sky), truth)
    (mirror,) = resolve_mirrors(survey.mirror)
    for _ in range(FAILURES_TO_REST):
        HEALTH.failed(mirror, ServiceDownError("down"))
    sky.requests.clear()
    assert np.array_equal(_cut(survey, sky), truth)
    assert len(sky.requests) == 0
    assert HEALTH.is_resting(mirror)
