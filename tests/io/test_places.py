"""Who is asked first, who rests, and what is learnt by asking."""

import pickle
import time

import pytest
from astropy.table import Table

from astroquery_lis import conf, sandbox
from astroquery_lis.exceptions import (
    ChecksumError,
    ContentChangedError,
    FailoverWarning,
    NotFoundError,
    RateLimitedError,
    ServiceDownError,
)
from astroquery_lis.io.http import HttpClient
from astroquery_lis.io.mirrors import (
    FAILURES_TO_REST,
    HEALTH,
    MAX_REST_S,
    REST_S,
    AutoOrder,
    Health,
    Mirror,
    resolve_mirrors,
)
from astroquery_lis.io.places import Failovers, ask_in_turn

A, B = Mirror("a", "http://a/{path}"), Mirror("b", "http://b/{path}")
A_TOO = Mirror("a-too", "http://a/other/{path}")
DISK = Mirror("disk", "/somewhere")
DOWN = ServiceDownError("down")


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    return Health(clock)


def _ordered(health, mirrors, **options):
    """Return the mirrors in the order to ask: those that rest come last."""
    awake, resting = health.split(mirrors, **options)
    return awake + resting


def _fail(health, mirror, times=FAILURES_TO_REST, error=DOWN):
    for _ in range(times):
        health.failed(mirror, error)


def test_the_users_order_stands_while_all_is_well(health):
    assert _ordered(health, [B, A]) == [B, A]
    _fail(health, B, FAILURES_TO_REST - 1)
    assert _ordered(health, [B, A]) == [B, A]
    health.answered(B)
    _fail(health, B, FAILURES_TO_REST - 1)
    assert _ordered(health, [B, A]) == [B, A]


def test_a_host_that_keeps_failing_comes_last_and_is_never_left_out(health):
    _fail(health, A)
    assert _ordered(health, [A, B]) == [B, A]
    assert health.split([A, B]) == ([B], [A])
    assert _ordered(health, [A]) == [A]
    # What is on the same host rests with it; a disk never does.
    assert _ordered(health, [A_TOO, B]) == [B, A_TOO]
    _fail(health, DISK)
    assert _ordered(health, [DISK, B]) == [DISK, B]
    _fail(health, B)
    assert _ordered(health, [A, B]) == [A, B]


@pytest.mark.parametrize("error", [NotFoundError("x"), ContentChangedError("x")])
def test_a_missing_file_is_no_failure(health, error):
    _fail(health, A, 10, error)
    assert _ordered(health, [A, B]) == [A, B]


def test_a_liar_rests_like_one_that_is_down(health):
    _fail(health, A, error=ChecksumError("x", found="00"))
    assert _ordered(health, [A, B]) == [B, A]


def test_after_its_rest_one_caller_finds_out(health, clock):
    _fail(health, A)
    clock.now += REST_S + 1
    assert _ordered(health, [A, B]) == [A, B]
    # The others wait for what that one finds.
    assert _ordered(health, [A, B]) == [B, A]
    health.answered(A)
    assert _ordered(health, [A, B]) == [A, B]


def test_the_rest_grows_up_to_a_limit(health, clock):
    _fail(health, A, FAILURES_TO_REST + 1)
    clock.now += 1.5 * REST_S
    assert health.is_resting(A)
    _fail(health, A, 50)
    clock.now += MAX_REST_S + 1
    assert not health.is_resting(A)


def test_a_retry_after_is_obeyed(health, clock):
    _fail(health, A, error=RateLimitedError("x", retry_after_s=3600.0))
    clock.now += MAX_REST_S + 1
    assert health.is_resting(A)


def test_auto_is_an_order_that_may_change():
    assert isinstance(resolve_mirrors("auto"), AutoOrder)
    assert not isinstance(resolve_mirrors(["nersc", "nadc"]), AutoOrder)
    copy = pickle.loads(pickle.dumps(resolve_mirrors("auto")))
    assert isinstance(copy, AutoOrder)
    assert copy == resolve_mirrors("auto")


@pytest.fixture
def pair(sky):
    with sandbox.serve(configure=False) as other:
        yield (
            tuple(
                AutoOrder(
                    Mirror(name, server.mirror_url + "/{path}")
                    for name, server in (("one", sky), ("two", other))
                )
            ),
            other,
        )


PATH = "dr10/survey-bricks.fits.gz"


def test_probing_finds_who_serves_ranges_once(sky, pair, health):
    mirrors, other = AutoOrder(pair[0]), pair[1]
    sky.faults.add("ignore_range", times=None)
    client = HttpClient(timeout_s=10)
    for _ in range(3):
        assert [m.name for m in _ordered(health, mirrors, client=client, path=PATH)] == [
            "two",
            "one",
        ]
    assert len(sky.requests) == len(other.requests) == 1
    assert [r.range for r in other.requests] == ["bytes=0-1023"]
    assert health.of(mirrors[0]).ranges is False
    assert health.of(mirrors[1]).ranges is True
    assert health.of(mirrors[1]).latency_s > 0


def test_probing_finds_who_is_down(sky, pair, health):
    mirrors = AutoOrder(pair[0])
    sky.faults.add("status", times=None, code=503)
    ordered = _ordered(health, mirrors, client=HttpClient(timeout_s=10), path=PATH)
    assert [m.name for m in ordered] == ["two", "one"]
    assert "HTTP 503" in health.of(mirrors[0]).error


def test_who_lacks_the_file_of_the_probe_is_not_down(sky, pair, health):
    mirrors = AutoOrder(pair[0])
    _ordered(health, mirrors, client=HttpClient(timeout_s=10), path="dr10/nothing.fits")
    assert health.of(mirrors[0]).failures == 0
    assert health.of(mirrors[0]).ranges is None


def test_one_mirror_is_not_compared_with_itself(sky, pair, health):
    _ordered(health, AutoOrder(pair[0][:1]), client=HttpClient(timeout_s=10), path=PATH)
    _ordered(health, tuple(pair[0]), client=HttpClient(timeout_s=10), path=PATH)
    assert len(sky.requests) == 0


def _ask_in_turn(answers, mirrors, **options):
    """Ask mirrors that give, in turn, what is listed for each."""
    answers = {mirror: iter(values) for mirror, values in answers.items()}

    def ask(mirror):
        value = next(answers[mirror])
        if isinstance(value, Exception):
            raise value
        return value

    return ask_in_turn(mirrors, ask, "dr10/x", **options)


MISSING = NotFoundError("no such file")
WRONG = ChecksumError("wrong digest", found="0")


def test_the_first_that_has_it_answers():
    answer = _ask_in_turn({A: [1]}, [A, B])
    assert (answer.value, answer.mirror, answer.failures) == (1, A, ())
    answer = _ask_in_turn({A: [DOWN], B: [2]}, [A, B])
    assert (answer.value, answer.mirror, answer.failures) == (2, B, ((A, DOWN),))
    answer = _ask_in_turn({A: [MISSING], B: [2]}, [A, B])
    assert (answer.value, answer.mirror, answer.missing) == (2, B, (A,))


def test_a_file_is_missing_if_the_first_remote_mirror_or_every_one_says_so():
    for answers in ({A: [MISSING], B: [MISSING]}, {A: [MISSING], B: [DOWN]}):
        assert _ask_in_turn(answers, [A, B]).mirror is None
    assert _ask_in_turn({DISK: [MISSING]}, [DISK]).mirror is None
    with pytest.raises(ServiceDownError, match="down"):
        _ask_in_turn({A: [DOWN], B: [MISSING]}, [A, B])
    with pytest.raises(ServiceDownError, match="down"):
        # A folder need not hold everything.
        _ask_in_turn({DISK: [MISSING], A: [DOWN]}, [DISK, A])
    with pytest.raises(ServiceDownError, match="No mirror could give dr10/x. a: down b: down"):
        _ask_in_turn({A: [DOWN], B: [DOWN]}, [A, B])


def test_a_wrong_digest_gets_a_second_look():
    answer = _ask_in_turn({A: [WRONG, 1], B: [DOWN]}, [A, B])
    assert (answer.value, answer.mirror) == (1, A)
    with pytest.raises(ChecksumError, match="a: wrong digest b: down a: wrong digest"):
        _ask_in_turn({A: [WRONG, WRONG], B: [DOWN]}, [A, B])


def test_who_failed_in_this_call_is_passed_over():
    _fail(HEALTH, A)
    answer = _ask_in_turn({}, [A], begun_s=0)
    assert (answer.mirror, answer.passed_over) == (None, (A,))
    assert _ask_in_turn({A: [1]}, [A], begun_s=0, holds=lambda mirror: True).value == 1
    assert _ask_in_turn({A: [1]}, [A], begun_s=time.time() + 1).value == 1
    assert HEALTH.of(A).failures == 0


def test_a_failover_is_told_once():
    failovers = Failovers()
    for _ in range(2):
        failovers.add(_ask_in_turn({A: [DOWN], B: [2]}, [A, B]))
    with pytest.warns(FailoverWarning, match=r"Mirror a failed \(down\); b answered") as caught:
        failovers.warn()
    assert len(caught) == 1
    assert not failovers.messages


@pytest.mark.parametrize(
    "ask",
    [
        lambda survey, star, mirror: survey.covers(star, mirror=mirror),
        lambda survey, star, mirror: survey.query_bricks(star, radius="1 arcmin", mirror=mirror),
        lambda survey, star, mirror: survey.query_exposures(star, mirror=mirror),
        lambda survey, star, mirror: survey.get_cutout(star, 16, bands="r", mirror=mirror),
        lambda survey, star, mirror: survey.query_tractor(
            star, radius="3 arcsec", source="files", mirror=mirror
        ),
        lambda survey, star, mirror: survey.get_brick_files(
            star, mirror=mirror, bands="r", show_progress=False
        ),
        lambda survey, star, mirror: survey.download_cutouts(
            Table({"ra": [star.ra.deg], "dec": [star.dec.deg]}),
            16,
            bands="r",
            mirror=mirror,
            download_dir=survey.cache_location / "cutouts",
            show_progress=False,
        ),
    ],
)
def test_every_method_warns_of_a_failover(survey, served_sky, ask):
    star = served_sky.positions["star"]
    with conf.set_temp("retries", 0), pytest.warns(FailoverWarning, match="failed"):
        ask(survey, star, ["http://127.0.0.1:9/{path}", served_sky.mirror_url])
