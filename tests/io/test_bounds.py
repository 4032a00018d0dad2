"""What bounds a call: its whole time, and the size of an answer."""

import contextlib
import time

import pytest

from astroquery_lis import conf
from astroquery_lis.client.base import in_time
from astroquery_lis.exceptions import (
    ServiceTimeoutError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
)
from astroquery_lis.io.bounds import Threads, allow_more_time, seconds_left, within
from astroquery_lis.io.download import download
from astroquery_lis.io.http import HttpClient, PoliteSession

from .raw_server import OK, RawServer


@pytest.mark.parametrize("at_once", [0, 20, 200])
@pytest.mark.parametrize("way", ["client", "session", "download"])
def test_an_answer_that_drips_ends_with_the_deadline(tmp_path, at_once, way):
    body = b"SIMPLE  =" + bytes(5000)
    answer = OK + b"Content-Length: %d\r\n\r\n" % len(body) + body
    calls = {
        "client": lambda url: HttpClient(timeout_s=30).read(url, 1e6),
        "session": lambda url: PoliteSession(timeout_s=30).get(url),
        "download": lambda url: download(HttpClient(timeout_s=30), url, tmp_path / "x.fits"),
    }
    with (
        RawServer(answer, at_once=at_once) as server,
        conf.set_temp("deadline", 0.5),
        pytest.raises(ServiceTimeoutError, match=r"within conf.deadline=0.5 s"),
    ):
        calls[way](server.url)


def test_a_file_of_unknown_length_that_never_ends_is_given_up(sky, tmp_path):
    sky.faults.add("endless", times=None)
    with (
        conf.set_temp("deadline", 0.5),
        pytest.raises(ServiceTimeoutError, match=r"within conf.deadline=0.5 s"),
    ):
        download(HttpClient(timeout_s=30), f"{sky.mirror_url}/x.bin", tmp_path / "x.bin")


def test_a_bound_reaches_the_threads_and_outlives_what_is_inside():
    with conf.set_temp("deadline", 0.2), within(), Threads(2) as pool:
        time.sleep(0.25)
        with pytest.raises(ServiceTimeoutError), within():
            seconds_left()
        with pytest.raises(ServiceTimeoutError):
            pool.submit(seconds_left).result()
        with pytest.raises(ServiceTimeoutError):
            next(pool.map(lambda _: seconds_left(), [1]))
    assert seconds_left() == float("inf")
    assert in_time(seconds_left)() <= conf.deadline


def test_a_part_that_came_gives_more_time_unless_a_bound_is_fixed():
    with within(grows=True), conf.set_temp("deadline", 7200), within(grows=True):
        assert seconds_left() <= 1800
        with within():
            allow_more_time()
        assert seconds_left() <= 1800
        allow_more_time()
        assert seconds_left() > 1800


def test_every_row_of_a_batch_is_bounded(sky, survey, tmp_path):
    survey.mirror = [sky.mirror_url, f"{sky.mirror_url}/"]
    stars = [sky.positions["star"]] * 2
    # On a busy machine reading the table of bricks alone may take longer than the bound.
    survey.query_bricks(stars[0])
    sky.faults.add("drip", match="*.fits.fz", times=None)
    with conf.set_temp("deadline", 0.3):
        table = survey.download_cutouts(
            stars, 16, bands="r", download_dir=tmp_path, source="bricks", show_progress=False
        )
    assert list(table["Status"]) == ["ERROR"] * 2
    assert all("conf.deadline=0.3 s" in message for message in table["Message"])


def test_names_that_are_looked_up_are_bounded_together(sky, survey):
    sky.faults.add("drip", match="*sesame*", times=None)
    with (
        conf.set_temp("deadline", 0.3),
        conf.set_temp("sesame_url", sky.sesame_url),
        pytest.raises(TransferError, match=r"conf.deadline=0.3 s"),
    ):
        survey.query_maps([f"name {number}" for number in range(20)], "nexp", bands="r")
    assert len(sky.requests) <= 4


@pytest.mark.parametrize("header", [b"Content-Length: 3000000\r\n", b"", b"chunked"])
def test_an_answer_that_is_too_large_is_refused(header):
    body = bytes(3_000_000)
    if header == b"chunked":
        header, body = b"Transfer-Encoding: chunked\r\n", b"2dc6c0\r\n" + body + b"\r\n0\r\n\r\n"
    answer = OK + header + b"Connection: close\r\n\r\n" + body
    with RawServer(answer, at_once=len(answer)) as server:
        with pytest.raises(UnexpectedContentError, match=r"MB that are due|are due at most"):
            HttpClient(timeout_s=5, retries=0).read(server.url, 1e6)
        assert len(HttpClient(timeout_s=5, retries=0).read(server.url, 4e6)) == 3_000_000


def test_an_answer_without_a_length_can_be_refused():
    answer = OK + b"Connection: close\r\n\r\n" + bytes(100)
    with RawServer(answer, at_once=len(answer)) as server:
        client = HttpClient(timeout_s=5, retries=0)
        assert client.read(server.url, 1e6) == bytes(100)
        with pytest.raises(TruncatedError, match="may have been cut off"):
            client.read(server.url, 1e6, needs_length=True)


def test_every_way_of_asking_is_bounded(sky, survey):
    star = sky.positions["star"]
    sky.faults.add("slow", match="*", times=None, seconds=5)
    survey.mirror = sky.mirror_url
    calls = {
        "cutout": lambda: survey.get_cutout(star, 16, bands="r", source="bricks"),
        "viewer": lambda: survey.get_cutout(star, 16, bands="r", source="viewer"),
        "psf": lambda: survey.get_psf(star, bands="r"),
        "picture": lambda: survey.get_picture(star, 16),
        "tap": lambda: survey.query_tractor(star, radius="5 arcsec", source="tap"),
        "files": lambda: survey.query_tractor(star, radius="5 arcsec", source="files"),
        "bricks": lambda: survey.query_bricks(star),
        "maps": lambda: survey.query_maps(star, "nexp", bands="r"),
    }
    settings = {"deadline": 0.3, "retries": 0, "viewer_url": sky.viewer_url, "tap_url": sky.tap_url}
    with contextlib.ExitStack() as stack:
        for name, value in settings.items():
            stack.enter_context(conf.set_temp(name, value))
        for call in calls.values():
            with pytest.raises(TransferError, match=r"conf.deadline"):
                call()
