"""What the faults make of an answer, seen from a plain socket."""

import gzip
import socket
import threading
import time
from contextlib import suppress

import pytest

from astroquery_lis import sandbox
from astroquery_lis.survey import paths

FILE = paths.file_path("nexp", "dr10", "south", brick="0451p000", band="g")
OTHER = paths.file_path("maskbits", "dr10", "south", brick="0451p000")
PREFIX = "/legacysurvey/"


@pytest.fixture
def content(sky):
    return sky.file(FILE).read_bytes()


def connect(sky, method="GET", stretch=""):
    """Ask for the file on a connection that the server is to close."""
    host, port = sky.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    lines = [f"{method} {PREFIX}{FILE} HTTP/1.1", "Host: here", "Connection: close"]
    lines += [f"Range: {stretch}"] if stretch else []
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


def read_all(sky, **kwargs):
    """Return what comes until the connection ends."""
    parts = []
    with connect(sky, **kwargs) as connection:
        while part := connection.recv(1 << 20):
            parts.append(part)
    return b"".join(parts)


def ask(sky, **kwargs):
    """Return the status, the headers and all that came after them."""
    head, _, body = read_all(sky, **kwargs).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


def test_body_in_its_place(sky):
    options = {"content": b'{"error": "no"}', "code": 201, "content_type": "application/json"}
    sky.faults.add("body", **options)
    status, headers, body = ask(sky)
    assert (status, headers["Content-Type"], body) == (201, "application/json", options["content"])


def test_empty_keeps_the_header(sky, content):
    sky.faults.add("empty")
    status, headers, body = ask(sky, stretch="bytes=10-19")
    assert (status, headers["Content-Length"], body) == (206, "0", b"")
    assert headers["Content-Range"] == f"bytes 10-19/{len(content)}"


def test_redirect(sky):
    sky.faults.add("redirect", code=307, to="http://127.0.0.1:9{path}")
    status, headers, _ = ask(sky)
    assert (status, headers["Location"]) == (307, f"http://127.0.0.1:9{PREFIX}{FILE}")


def test_swap(sky):
    sky.faults.add("swap", path=PREFIX + OTHER)
    assert ask(sky)[2] == sky.file(OTHER).read_bytes()


def test_flip(sky, content):
    sky.faults.add("flip", times=None, bits=3, start=100, stop=200)
    bodies = {ask(sky)[2] for _ in range(2)}
    (body,) = bodies
    changed = [a ^ b for a, b in zip(content, body, strict=True)]
    assert sum(value.bit_count() for value in changed) == 3
    assert not any(changed[:100] + changed[200:])


def test_twice(sky, content):
    sky.faults.add("twice")
    assert ask(sky)[2] == content * 2


@pytest.mark.parametrize("announced", [True, False])
def test_gzip(sky, content, announced):
    sky.faults.add("gzip", announced=announced)
    _, headers, body = ask(sky)
    assert gzip.decompress(body) == content
    assert headers.get("Content-Encoding") == ("gzip" if announced else None)
    assert int(headers["Content-Length"]) == len(body)


def test_content_range(sky, content):
    sky.faults.add("content_range", value="bytes 7-8/9")
    _, headers, body = ask(sky, stretch="bytes=10-19")
    assert (headers["Content-Range"], body) == ("bytes 7-8/9", content[10:20])


@pytest.mark.parametrize(
    ("options", "announced"), [({}, 100), ({"by": -9}, -9), ({"value": "many"}, "many")]
)
def test_wrong_length(sky, content, options, announced):
    sky.faults.add("wrong_length", **options)
    _, headers, body = ask(sky)
    expected = announced if announced == "many" else str(len(content) + announced)
    assert headers["Content-Length"] == expected
    assert body == content


def test_no_length(sky, content):
    sky.faults.add("no_length", fraction=0.25)
    _, headers, body = ask(sky)
    assert "Content-Length" not in headers
    assert body == content[: len(content) // 4]


@pytest.mark.parametrize("ending", ["good", "size", "cut", "none"])
def test_chunked(sky, content, ending):
    sky.faults.add("chunked", ending=ending)
    _, headers, body = ask(sky)
    assert headers["Transfer-Encoding"] == "chunked"
    read = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        if size in (b"0", b"zz") or len(rest) < int(size, 16):
            break
        read, body = read + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    assert read == (content if ending == "good" else content[: len(content) // 2])
    left = {"good": b"0\r\n\r\n", "size": b"zz\r\n", "cut": b"1388\r\nhalf", "none": b""}
    assert body == left[ending]


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_reset(sky, content, fraction):
    sky.faults.add("reset", fraction=fraction)
    with pytest.raises(ConnectionResetError):
        read_all(sky)
    assert ask(sky)[2] == content


@pytest.mark.parametrize("fraction", [None, 0.5])
def test_hang(sky, content, fraction):
    sky.faults.add("hang", seconds=0.2, fraction=fraction)
    before = time.monotonic()
    read = read_all(sky)
    assert time.monotonic() - before > 0.15
    _, _, body = read.partition(b"\r\n\r\n")
    assert body == (b"" if fraction is None else content[: len(content) // 2])


def test_drip(sky, content):
    sky.faults.add("drip", seconds=0.02)
    before = time.monotonic()
    read = read_all(sky, stretch="bytes=0-9")
    assert time.monotonic() - before > 0.15
    assert read.endswith(content[:10])


def test_endless(sky):
    sky.faults.add("endless", start=b"begin", chunk=b"more", content_type="text/plain", most=400)
    _, headers, body = ask(sky)
    assert (headers["Content-Type"], headers.get("Content-Length")) == ("text/plain", None)
    assert body == b"begin" + b"more" * 100


def test_long_header(sky):
    sky.faults.add("long_header", lines=50)
    read = read_all(sky)
    assert read.startswith(b"HTTP/1.1 200 OK\r\n")
    assert read.count(b"\r\n") == 51


def test_garbage(sky):
    sky.faults.add("garbage")
    with connect(sky) as connection:
        assert connection.recv(100).startswith(b"\x00\x01\x02")


def test_a_head_has_no_body(sky, content):
    for kind in ("flip", "twice", "drip", "no_length"):
        with sky.faults.add(kind):
            assert ask(sky, method="HEAD")[2] == b""
    assert ask(sky)[2] == content


@pytest.mark.parametrize("kind", ["hang", "drip", "endless"])
def test_the_end_waits_for_nobody(sky_tree, kind):
    with sandbox.serve(root=sky_tree, configure=False) as other:
        fault = other.faults.add(kind)

        def read():
            with suppress(ConnectionError):
                read_all(other)

        client = threading.Thread(target=read)
        client.start()
        while not fault.hits:
            time.sleep(0.01)
    # No thread of the server is left, whatever it was about to send.
    assert not other._server._open
    client.join(60)
    assert not client.is_alive()
