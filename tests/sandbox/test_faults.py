"""Every fault does what it says, as often as it says."""

import http.client
import re
import threading
import time

import pytest
import urllib3

from astroquery_lis import sandbox
from astroquery_lis.survey import paths

IMAGE = paths.file_path("image", "dr10", "south", brick="0451p000", band="g")
OTHER = paths.file_path("nexp", "dr10", "south", brick="0451p000", band="g")
RANGE = {"Range": "bytes=5000-5999"}


@pytest.fixture
def ask(sky):
    """Ask for a file, without any retry."""
    with urllib3.PoolManager(retries=False, timeout=60) as pool:
        yield lambda headers=None, path=IMAGE: pool.request(
            "GET", f"{sky.mirror_url}/{path}", headers=headers
        )


@pytest.fixture
def content(sky):
    return (sky.root / IMAGE).read_bytes()


@pytest.mark.parametrize("code", [404, 429, 500, 503])
def test_status(sky, ask, code):
    fault = sky.faults.add("status", "*image-g*", code=code, retry_after=7)
    assert ask(RANGE, OTHER).status == 206
    answer = ask(RANGE)
    assert answer.status == code
    assert answer.headers["Retry-After"] == "7"
    assert answer.headers["Content-Type"].startswith("text/html")
    assert ask(RANGE).status == 206
    assert fault.hits == 1


def test_status_without_retry_after(sky, ask):
    sky.faults.add("status")
    answer = ask(RANGE)
    assert answer.status == 503
    assert "Retry-After" not in answer.headers


def test_html_with_status_200(sky, ask):
    sky.faults.add("html")
    answer = ask()
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.data.startswith(b"<html>")


def test_cut(sky, content):
    sky.faults.add("cut", fraction=0.25)
    connection = http.client.HTTPConnection(sky.url.removeprefix("http://"), timeout=60)
    connection.request("GET", f"/legacysurvey/{IMAGE}")
    answer = connection.getresponse()
    assert answer.headers["Content-Length"] == str(len(content))
    with pytest.raises(http.client.IncompleteRead) as caught:
        answer.read()
    assert caught.value.partial == content[: len(content) // 4]
    connection.close()
    assert sky.requests[-1].bytes_sent == len(content) // 4


@pytest.mark.parametrize(("start", "stop"), [(5000, 6000), (0, 50)])
def test_wrong_range(sky, ask, content, start, stop):
    sky.faults.add("wrong_range")
    answer = ask({"Range": f"bytes={start}-{stop - 1}"})
    assert answer.status == 206
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers["Content-Range"])
    first, last, size = map(int, match.groups())
    assert first != start
    assert (last - first + 1, size) == (stop - start, len(content))
    assert answer.data == content[first : last + 1]
    # What was asked for is written down, not what was answered.
    assert sky.requests[-1].range == f"bytes={start}-{stop - 1}"


def test_ignore_range(sky, ask, content):
    fault = sky.faults.add("ignore_range")
    assert ask().status == 200
    assert fault.hits == 0
    answer = ask(RANGE)
    assert answer.status == 200
    assert "Content-Range" not in answer.headers
    assert answer.data == content
    assert fault.hits == 1
    assert sky.requests[-1].range == RANGE["Range"]


def test_short(sky, ask, content):
    sky.faults.add("short", fraction=0.5)
    answer = ask(RANGE)
    assert answer.status == 206
    assert answer.headers["Content-Range"] == f"bytes 5000-5999/{len(content)}"
    assert answer.headers["Content-Length"] == "500"
    assert answer.data == content[5000:5500]
    # The connection is in order.
    assert ask(RANGE).data == content[5000:6000]


def test_slow(sky, ask, content):
    sky.faults.add("slow", seconds=0.3)
    before = time.monotonic()
    answer = ask(RANGE)
    assert time.monotonic() - before > 0.29
    assert answer.data == content[5000:6000]


def test_slow_does_not_hold_up_the_end(sky_tree):
    with sandbox.serve(root=sky_tree, configure=False) as other:
        fault = other.faults.add("slow", seconds=600)
        errors = []

        def ask():
            try:
                urllib3.request("GET", f"{other.mirror_url}/{IMAGE}", retries=False)
            except urllib3.exceptions.HTTPError as error:
                errors.append(error)

        client = threading.Thread(target=ask)
        client.start()
        while not fault.hits:
            time.sleep(0.01)
        end = threading.Thread(target=other.close, daemon=True)
        end.start()
        end.join(60)
        assert not end.is_alive()
    client.join(60)
    assert len(errors) == 1


@pytest.mark.parametrize("changed", [False, True])
def test_etag(sky, ask, content, changed):
    old = ask(RANGE).headers
    fault = sky.faults.add("etag", "*image-g*", content=changed)
    answer = ask({**RANGE, "If-Range": old["ETag"]})
    assert answer.status == 200
    new = ask(RANGE).headers
    assert new["ETag"] != old["ETag"]
    assert new["Last-Modified"] != old["Last-Modified"]
    assert ask({**RANGE, "If-Range": new["ETag"]}).status == 206
    fault.remove()
    answer = ask(RANGE)
    assert answer.headers["ETag"] == new["ETag"]
    expected = bytes(byte ^ 0x5A for byte in content[5000:6000])
    assert answer.data == (expected if changed else content[5000:6000])
    assert len(answer.data) == 1000
    sky.faults.clear()
    assert ask(RANGE).headers["ETag"] == old["ETag"]


def test_refuse(sky, ask):
    sky.faults.add("refuse")
    with pytest.raises(urllib3.exceptions.ProtocolError):
        ask()
    assert (sky.requests[-1].status, sky.requests[-1].bytes_sent) == (None, 0)
    assert ask(RANGE).status == 206


def test_times_after_and_all(sky, ask):
    fault = sky.faults.add("status", times=2, after=1, code=500)
    assert [ask(RANGE).status for _ in range(5)] == [206, 500, 500, 206, 206]
    assert fault.hits == 2
    always = sky.faults.add("status", times=None, code=500)
    assert [ask(RANGE).status for _ in range(4)] == [500] * 4
    always.remove()
    always.remove()
    assert ask(RANGE).status == 206


def test_as_a_context_manager(sky, ask):
    with sky.faults.add("status", times=None) as fault:
        assert ask(RANGE).status == 503
    assert ask(RANGE).status == 206
    assert fault.hits == 1
    assert "status" in repr(fault)


def test_the_first_fault_wins_and_clear_ends_all(sky, ask):
    sky.faults.add("status", times=1, code=500)
    sky.faults.add("status", times=None, code=503)
    assert [ask(RANGE).status for _ in range(2)] == [500, 503]
    assert len(sky.faults) == 2
    sky.faults.clear()
    assert len(sky.faults) == 0
    assert ask(RANGE).status == 206


def test_faults_that_do_not_exist(sky):
    with pytest.raises(ValueError, match="kind='fire' is not a fault; allowed: status, html"):
        sky.faults.add("fire")
    with pytest.raises(ValueError, match=r"options \['seconds'\] are not of the fault 'cut'"):
        sky.faults.add("cut", seconds=3)
