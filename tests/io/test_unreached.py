"""Without a network the message is one sentence that says which service, why, and what to do."""

import socket
import traceback

import pytest

from astroquery_lis import LegacySurvey, LegacySurveyClass, conf, sandbox
from astroquery_lis.exceptions import ServiceDownError
from astroquery_lis.io.http import HttpClient


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


def test_a_method_says_so_too(tmp_path):
    survey = LegacySurveyClass()
    survey.mirror = f"http://127.0.0.1:{_free_port()}/data"
    with conf.set_temp("retries", 0), pytest.raises(ServiceDownError) as caught:
        survey.get_cutout("150 2", 8, bands="r", source="bricks")
    assert "nothing listens there" in str(caught.value)
    lines = "".join(traceback.format_exception(caught.value)).splitlines()
    ours = [line for line in lines if "pytest" not in line]
    assert len(ours) < 15
    assert sum("direct cause" in line for line in lines) == 1


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
