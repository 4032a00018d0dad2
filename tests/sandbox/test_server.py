"""The server speaks HTTP as the survey's mirrors do."""

import http.client
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import urllib3
from astropy.coordinates import SkyCoord

from astroquery_lis import _conf, sandbox
from astroquery_lis.survey import paths

IMAGE = paths.file_path("image", "dr10", "south", brick="0451p000", band="g")


@pytest.fixture
def pool():
    with urllib3.PoolManager(retries=False, timeout=60) as manager:
        yield manager


@pytest.fixture
def content(sky):
    return (sky.root / IMAGE).read_bytes()


def get(pool, sky, headers=None, path=IMAGE, method="GET"):
    return pool.request(method, f"{sky.mirror_url}/{path}", headers=headers)


def test_whole_file(sky, pool, content):
    answer = get(pool, sky)
    assert answer.status == 200
    assert answer.data == content
    assert answer.headers["Content-Length"] == str(len(content))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Type"] == "application/fits"
    assert answer.headers["ETag"].startswith('"')
    assert answer.headers["Last-Modified"].endswith("GMT")


def test_head_has_the_fields_and_no_body(sky, pool, content):
    answer = get(pool, sky, method="HEAD")
    assert (answer.status, answer.data) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(content))
    assert sky.requests[-1].bytes_sent == 0


@pytest.mark.parametrize(
    ("text", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-49999", 1000, 50000),
        ("bytes=-2880", -2880, None),
        ("bytes=12000000-", 12000000, None),
        ("bytes=12000000-999999999999", 12000000, None),
        ("bytes=-999999999999", 0, None),
    ],
)
def test_ranges(sky, pool, content, text, start, stop):
    answer = get(pool, sky, {"Range": text})
    size = len(content)
    first = start % size
    last = (size if stop is None else stop) - 1
    assert answer.status == 206
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
    assert answer.data == content[first : last + 1]
    assert answer.headers["Content-Length"] == str(len(answer.data))


@pytest.mark.parametrize("text", ["bytes=999999999999-", "bytes=-0"])
def test_ranges_that_cannot_be_had(sky, pool, content, text):
    answer = get(pool, sky, {"Range": text})
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(content)}"


@pytest.mark.parametrize(
    "text", ["bytes=5-2", "bytes=-", "lines=1-2", "bytes=0-1,5-6", "bytes=a-b"]
)
def test_ranges_that_are_ignored(sky, pool, content, text):
    answer = get(pool, sky, {"Range": text})
    assert answer.status == 200
    assert len(answer.data) == len(content)


def test_if_range(sky, pool):
    head = get(pool, sky, method="HEAD").headers
    for validator in (head["ETag"], head["Last-Modified"]):
        answer = get(pool, sky, {"Range": "bytes=0-9", "If-Range": validator})
        assert answer.status == 206
    for validator in ('"other"', "Thu, 01 Jan 1970 00:00:00 GMT", "W/" + head["ETag"]):
        answer = get(pool, sky, {"Range": "bytes=0-9", "If-Range": validator})
        assert answer.status == 200


def test_not_modified(sky, pool):
    head = get(pool, sky, method="HEAD").headers
    answer = get(pool, sky, {"If-None-Match": f'"x", {head["ETag"]}'})
    assert (answer.status, answer.data, answer.headers["ETag"]) == (304, b"", head["ETag"])
    assert get(pool, sky, {"If-Modified-Since": head["Last-Modified"]}).status == 304
    assert get(pool, sky, {"If-None-Match": '"x"', "Range": "bytes=0-9"}).status == 206


@pytest.mark.parametrize(
    "path",
    [
        "dr10/south/coadd/045/0451p000/nothing.fits.fz",
        "dr10",
        "dr10/",
        "",
        "dr10/north/survey-bricks-dr10-north.fits.gz",
        "%00",
        "/etc/hostname",
    ],
)
def test_what_is_not_there_is_a_page_with_404(sky, pool, path):
    answer = get(pool, sky, path=path)
    assert answer.status == 404
    assert answer.headers["Content-Type"].startswith("text/html")
    assert b"<html>" in answer.data


@pytest.mark.parametrize("up", ["..", "%2e%2e", "..%2f..", "dr10/../..", "..%5c"])
def test_nothing_above_the_folder_is_served(sky, up):
    # http.client sends the path as it is; urllib3 would normalise it.
    connection = http.client.HTTPConnection(sky.url.removeprefix("http://"), timeout=60)
    connection.request("GET", f"/legacysurvey/{up}/{sky.root.name}/README.txt")
    answer = connection.getresponse()
    assert answer.status == 404
    assert b"simulated" not in answer.read()
    connection.close()


def test_other_paths_and_methods(sky, pool):
    assert pool.request("GET", sky.url + "/other").status == 404
    answer = pool.request("POST", f"{sky.mirror_url}/{IMAGE}", body=b"abc")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_routes_can_be_added(sky, pool):
    seen = []

    def echo(request):
        seen.append((request.method, request.query, request.body))
        return sandbox.web.Response(200, {"Content-Type": "text/plain"}, request.body)

    sky.routes.append(("/echo", echo))
    try:
        answer = pool.request("POST", sky.url + "/echo?a=1", body=b"abc")
    finally:
        sky.routes.pop()
    assert answer.data == b"abc"
    assert seen == [("POST", "a=1", b"abc")]
    assert sky.requests[-1].path == "/echo?a=1"


def test_connections_are_kept(sky):
    connection = http.client.HTTPConnection(sky.url.removeprefix("http://"), timeout=60)
    connection.connect()
    own = connection.sock.getsockname()
    for number in range(20):
        connection.request("GET", f"/legacysurvey/{IMAGE}", headers={"Range": f"bytes={number}-99"})
        assert len(connection.getresponse().read()) == 100 - number
    assert connection.sock.getsockname() == own
    connection.close()


def test_requests_are_written_down(sky, pool):
    get(pool, sky, {"Range": "bytes=10-19"})
    get(pool, sky, path="nothing")
    first, second = sky.requests
    assert (first.method, first.path) == ("GET", f"/legacysurvey/{IMAGE}")
    assert (first.range, first.status, first.bytes_sent) == ("bytes=10-19", 206, 10)
    assert (second.range, second.status) == (None, 404)
    assert len(sky.requests[:1]) == 1
    sky.requests.clear()
    assert len(sky.requests) == 0


def test_many_clients_at_once(sky, content):
    with (
        urllib3.PoolManager(maxsize=16, block=True, timeout=120, retries=False) as pool,
        ThreadPoolExecutor(16) as executor,
    ):

        def fetch(number):
            start = number * 31_000
            answer = get(pool, sky, {"Range": f"bytes={start}-{start + 9999}"})
            return answer.data == content[start : start + 10_000]

        assert all(executor.map(fetch, range(400)))
    asked = [f"bytes={start}-{start + 9999}" for start in range(0, 400 * 31_000, 31_000)]
    assert sorted(record.range for record in sky.requests) == sorted(asked)
    assert sum(record.bytes_sent for record in sky.requests) == 4_000_000


def test_configure_points_the_package_here_and_back(sky_tree):
    before = _conf.setting("mirror"), _conf.setting("cache_dir"), dict(os.environ)
    with sandbox.serve(root=sky_tree) as sky:
        cache = Path(_conf.setting("cache_dir"))
        assert _conf.setting("mirror") == sky.mirror_url
        assert _conf.setting("mirror", "https://elsewhere") == sky.mirror_url
        assert cache == sky.cache_dir
        assert cache.is_dir()
        (cache / "something").write_text("kept for the tests only")
        code = "from astroquery_lis import _conf; print(_conf.setting('mirror'))"
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
        child = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert child.stdout.strip() == sky.mirror_url
    assert not cache.exists()
    assert (_conf.setting("mirror"), _conf.setting("cache_dir"), dict(os.environ)) == before


def test_without_configure_nothing_changes(sky, sky_tree):
    before = _conf.setting("mirror")
    with sandbox.serve(root=sky_tree, configure=False) as other:
        assert _conf.setting("mirror") == before
        assert other.cache_dir is None
        assert other.mirror_url != sky.mirror_url


def test_close_ends_idle_connections_and_threads(sky_tree):
    threads = set(threading.enumerate())
    other = sandbox.serve(root=sky_tree, configure=False)
    host, port = other.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request("GET", f"/legacysurvey/{IMAGE}", headers={"Range": "bytes=0-9"})
    connection.getresponse().read()
    other.close()
    other.close()
    assert connection.sock.recv(10) == b""
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=60)
    left = {thread for thread in threading.enumerate() if thread not in threads}
    for thread in left:
        thread.join(60)
    assert not any(thread.is_alive() for thread in left)


def test_handle_has_positions_and_truth(sky):
    names = {"field", "star", "corner", "ra0", "split", "hole", "blank", "off", "clump"}
    assert names <= set(sky.positions)
    assert all(isinstance(position, SkyCoord) for position in sky.positions.values())
    assert {"id", "ra", "dec", "type", "flux_r"} <= set(sky.truth.colnames)
    assert sky.mirror_url.startswith("http://127.0.0.1:")
    assert sky.mirror_url.endswith("/legacysurvey")
    assert sky.mirror_url in repr(sky)
