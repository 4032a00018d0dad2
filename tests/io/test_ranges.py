"""Remote files that are read in parts, several at once."""

import pytest

from astroquery_lis.exceptions import TransferError
from astroquery_lis.io.http import HttpClient
from astroquery_lis.io.ranges import RemoteParts, WholeFileAnswer
from astroquery_lis.survey.paths import file_path

PATH = file_path("image", "dr10", "south", brick="0451p000", band="r")


@pytest.fixture
def raw(sky):
    return (sky.root / PATH).read_bytes()


@pytest.fixture
def parts(sky):
    return RemoteParts(
        HttpClient(retries=0, timeout_s=20), f"{sky.mirror_url}/{PATH}", lambda r: r.read()
    )


@pytest.mark.parametrize("n_pieces", [1, 4, 100])
@pytest.mark.parametrize("n_bytes", [1, 65_536, 10**7])
def test_the_head_comes_whole_over_any_number_of_connections(parts, raw, n_bytes, n_pieces):
    assert parts.head(n_bytes, n_pieces=n_pieces) == raw[:n_bytes]
    assert parts.version.size == len(raw)


@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("kind", ["ignore_range", "html", "etag"])
def test_a_piece_that_is_answered_by_something_else_is_never_lost(sky, parts, raw, kind, after):
    sky.faults.add(kind, "*image-r*", after=after)
    head, whole = None, None
    try:
        head = parts.head(60_000, n_pieces=4)
    except WholeFileAnswer as answer:
        whole = answer.result
    except TransferError:
        assert kind != "ignore_range"
        return
    assert head == raw[:60_000] or whole == raw or (kind == "html" and whole[:1] == b"<")


@pytest.mark.parametrize("gap_bytes", [0, 200, 10**9])
def test_ranges_come_as_they_were_asked_for(sky, parts, raw, gap_bytes):
    ranges = [(5000, 5100), (0, 10), (5050, 5300), (70, 70), (9000, 9001), (100, 200)]
    assert parts.read(ranges, gap_bytes=gap_bytes) == [raw[i:j] for i, j in ranges]
    assert len(sky.requests) == {0: 4, 200: 3, 10**9: 1}[gap_bytes]
    assert parts.read([]) == []
    assert parts.read([(7, 7)]) == [b""]
