"""Without a network the message is one sentence that says which service, why, and what to do."""

import socket
import traceback
from contextlib import ExitStack

import numpy as np
import pytest
from astroquery import mast

from astroquery_lis import LegacySurvey, LegacySurveyClass, _conf, conf, sandbox
from astroquery_lis.exceptions import (
    FailoverWarning,
    NoCoverageError,
    ServiceDownError,
    ServiceTimeoutError,
    TruncatedError,
    UnexpectedContentError,
    UnreachableError,
)
from astroquery_lis.io.http import HttpClient, PoliteSession, map_errors
from astroquery_lis.jwst_stage import JwstStageClass
from astroquery_lis.survey.paths import file_path

from .raw_server import OK, RawServer


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    """Ask without the proxies of whoever runs the tests, which would answer in a host's place."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def _free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def _reason(url):
    with pytest.raises(ServiceDownError) as caught:
        HttpClient(retries=0, timeout_s=2).fetch(url, lambda answer: answer.read())
    text = str(caught.value)
    assert "could not be reached" in text
    assert "Check the network" in text
    assert caught.value.url == url
    return text


def test_dns_refusal_and_tls_are_told_apart(sky):
    port = _free_port()
    assert f"127.0.0.1:{port} could not be reached: nothing listens" in _reason(
        f"http://127.0.0.1:{port}/a"
    )
    assert "not known to the DNS" in _reason("http://nowhere.invalid/a")
    assert "TLS" in _reason(f"https{sky.mirror_url.removeprefix('http')}/a")


def test_a_proxy_that_does_not_answer_is_named(monkeypatch):
    proxy = f"http://127.0.0.1:{_free_port()}"
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    text = _reason("http://survey.example/a")
    assert text.startswith("survey.example could not be reached: the proxy that http_proxy or ")
    assert "connection refused" in text


def test_a_host_that_does_not_accept_in_time_is_told_apart():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        url = f"http://127.0.0.1:{address[1]}/a"
        with ExitStack() as waiting:
            # A queue of none still takes a connection or two, of which only the answer is missing.
            for _ in range(4):
                client = waiting.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(address)
            with pytest.raises(ServiceTimeoutError, match=f"No answer from {url} in time"):
                HttpClient(retries=0, timeout_s=0.3).fetch(url, lambda answer: answer.read())


SURVEY_CALLS = {
    "cutout": lambda survey: survey.get_cutout("150 2", 8, bands="r"),
    "viewer": lambda survey: survey.get_cutout("150 2", 8, bands="r", source="viewer"),
    "PSF": lambda survey: survey.get_psf("150 2", bands="r"),
    "picture": lambda survey: survey.get_picture("150 2", 8),
    "catalogue": lambda survey: survey.query_tractor("150 2", radius="1 arcsec"),
    "coverage": lambda survey: survey.covers("150 2"),
    "bricks": lambda survey: survey.query_bricks("150 2"),
    "exposures": lambda survey: survey.query_exposures("150 2"),
    "TAP": lambda survey: survey.query_tap("SELECT 1"),
    "name": lambda survey: survey.get_cutout("NGC 4030", 8),
    "JWST": lambda survey: JwstStageClass().query_uncal(program=1),
}


@pytest.mark.parametrize("call", SURVEY_CALLS)
def test_every_method_says_in_a_few_lines_that_nothing_answered(call):
    hosts = [f"{name}.invalid" for name in ("viewer", "tap", "names", "mast")]
    urls = dict(zip(("viewer_url", "tap_url", "sesame_url", "mast"), hosts, strict=True))
    urls = {name: f"http://{host}" for name, host in urls.items()}
    survey = LegacySurveyClass()
    survey.mirror = ["http://first.invalid/data", "http://second.invalid/data"]
    server = mast.conf.set_temp("server", urls.pop("mast"))
    with (
        server,
        _conf.override(**urls),
        conf.set_temp("retries", 0),
        pytest.raises(UnreachableError, match="not known to the DNS") as caught,
    ):
        SURVEY_CALLS[call](survey)
    text = str(caught.value)
    assert text.count("could not be reached") == 1
    assert len(text) < 300
    if call != "name":
        assert text.count("Check the network") == 1
    lines = "".join(traceback.format_exception(caught.value)).splitlines()
    ours = [line for line in lines if "pytest" not in line]
    assert len(ours) < 15
    assert sum("direct cause" in line for line in lines) == 1


def test_what_failed_in_other_ways_keeps_its_reason_and_the_advice_comes_once(sky):
    survey = LegacySurveyClass()
    survey.mirror = ["http://first.invalid/data", sky.mirror_url]
    sky.faults.add("status", "*image-r*", times=None, code=503)
    with conf.set_temp("retries", 0), pytest.raises(ServiceDownError) as caught:
        survey.get_cutout(sky.positions["star"], 8, bands="r", source="bricks")
    text = str(caught.value)
    assert text.startswith("No mirror could give dr10/south/coadd/")
    assert "first.invalid could not be reached" in text
    assert "HTTP 503" in text
    assert text.count("Check the network") == 1


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "nowhere.invalid"])
def test_tap_says_so_in_the_same_words(host):
    host = host.format(port=_free_port())
    with (
        conf.set_temp("tap_url", f"http://{host}/tap"),
        conf.set_temp("retries", 0),
        pytest.raises(ServiceDownError, match=f"^{host} could not be reached: .*network") as caught,
    ):
        LegacySurveyClass().query_tap("SELECT 1")
    assert "_Pool" not in str(caught.value)
    assert caught.value.url == f"http://{host}/tap"


ASKED_AGAIN = {
    "file": lambda url: HttpClient(retries=0).read(url, 10),
    "TAP": lambda url: LegacySurveyClass().query_tap("SELECT 1"),
    "MAST": lambda url: JwstStageClass().query_uncal(program=1),
}


@pytest.mark.parametrize("call", ASKED_AGAIN)
def test_what_was_handled_before_is_not_why_a_service_cannot_be_reached(call):
    url = f"http://127.0.0.1:{_free_port()}"
    with (
        mast.conf.set_temp("server", url),
        conf.set_temp("tap_url", f"{url}/tap"),
        conf.set_temp("retries", 0),
    ):
        try:
            raise NoCoverageError("an earlier error")
        except NoCoverageError:
            with pytest.raises(UnreachableError, match="connection refused"):
                ASKED_AGAIN[call](f"{url}/a")


def test_a_time_out_of_the_standard_library_is_one():
    text = "No answer from http://a/b in time"
    with pytest.raises(ServiceTimeoutError, match=text) as caught, map_errors("http://a/b"):
        raise TimeoutError("timed out")
    assert caught.value.url == "http://a/b"


CUT_OFF = {
    "file": lambda sky, url: HttpClient(retries=0).read(url, 1e8),
    "session": lambda sky, url: PoliteSession(retries=0).get(url),
    "TAP": lambda sky, url: LegacySurveyClass().query_tap("SELECT brickname FROM ls_dr10.bricks_s"),
    "cutout": lambda sky, url: _cutout(sky.mirror_url, sky),
}


def _cutout(mirror, sky):
    survey = LegacySurveyClass()
    survey.mirror = mirror
    return survey.get_cutout(sky.positions["star"], 8, bands="g", source="bricks")


@pytest.mark.parametrize("kind", ["reset", "cut"])
@pytest.mark.parametrize("call", CUT_OFF)
def test_an_answer_that_ends_in_the_middle_is_truncated_however_it_ends(sky, call, kind):
    path = file_path("image", "dr10", "south", brick="0451p000", band="g")
    sky.faults.add(kind, match="*image-g*", times=None, fraction=0.5)
    sky.faults.add(kind, match="*tap*", times=None, fraction=0.5)
    url = f"{sky.mirror_url}/{path}"
    with (
        conf.set_temp("tap_url", sky.tap_url),
        conf.set_temp("retries", 0),
        pytest.raises(TruncatedError, match="was cut off: ") as caught,
        map_errors(url),
    ):
        CUT_OFF[call](sky, url)
    assert ("reset" in str(caught.value)) == (kind == "reset")


@pytest.mark.parametrize("kind", ["reset", "cut"])
def test_after_an_answer_that_ended_in_the_middle_the_next_mirror_gives_it(sky, kind):
    right = _cutout(sky.mirror_url, sky)
    LegacySurvey.clear_cache()
    sky.faults.add(kind, match="*image-g*", times=1, fraction=0.5)
    with (
        conf.set_temp("retries", 0),
        pytest.warns(FailoverWarning, match=r"failed \(.* was cut off: "),
    ):
        cutout = _cutout([sky.mirror_url, f"{sky.mirror_url}/"], sky)
    assert np.array_equal(cutout[1].data, right[1].data)


def test_an_answer_of_tap_that_is_no_table_is_so_after_an_earlier_error_too():
    page = b"<html></html>"
    head = OK + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(page)
    with (
        RawServer(head + page, at_once=len(head + page)) as server,
        conf.set_temp("tap_url", server.url),
        conf.set_temp("retries", 0),
    ):
        try:
            raise NoCoverageError("an earlier error")
        except NoCoverageError:
            with pytest.raises(UnexpectedContentError, match="did not answer with a VOTable"):
                LegacySurveyClass().query_tap("SELECT 1")


def test_names_are_those_of_the_sandbox_in_commands_too():
    import os
    import subprocess
    import sys

    with sandbox.serve() as sky:
        payload = LegacySurvey.get_cutout("NGC 1", 16, bands="r", get_query_payload=True)
        assert payload["urls"]
        words = [sys.executable, "-m", "astroquery_lis", "url", "NGC 1"]
        done = subprocess.run(
            words, capture_output=True, text=True, check=True, timeout=60, env=os.environ
        )
        field = sky.positions["field"]
        assert f"ra={field.ra.deg:.4f}" in done.stdout
        assert len([r for r in sky.requests if "/sesame/" in r.path]) == 2
