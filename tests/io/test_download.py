"""Whole files: resumed, checked, shared among threads and processes."""

import hashlib
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy.io import fits

from astroquery_lis.exceptions import (
    CacheError,
    ContentChangedError,
    NotFoundError,
    ServiceDownError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
)
from astroquery_lis.io.download import download
from astroquery_lis.io.http import HttpClient
from astroquery_lis.io.ranges import Version
from astroquery_lis.sandbox.server import Sandbox
from astroquery_lis.survey.paths import file_path

from .raw_server import OK, RawServer

RELATIVE = file_path("psfsize", "dr10", "south", brick="0451p000", band="r")
MATCH = "*psfsize-r*"


@pytest.fixture
def client():
    return HttpClient(timeout_s=5, retries=1)


@pytest.fixture
def url(sky):
    return f"{sky.mirror_url}/{RELATIVE}"


@pytest.fixture
def raw(sky):
    return (sky.root / RELATIVE).read_bytes()


def _leftovers(folder):
    return sorted(p.name for p in folder.iterdir() if ".part" in p.name)


def test_a_file_arrives_whole(client, url, raw, tmp_path):
    done = download(client, url, tmp_path / "a" / "x.fits.fz")
    assert done.path.read_bytes() == raw
    assert done.size == done.fetched_bytes == len(raw)
    assert done.sha256 == hashlib.sha256(raw).hexdigest()
    assert _leftovers(tmp_path / "a") == []


def test_a_file_that_is_there_is_left_alone(sky, client, url, tmp_path):
    path = tmp_path / "x.fits.fz"
    fits.PrimaryHDU(np.arange(12)).writeto(path)
    mine = path.read_bytes()
    assert download(client, url, path).fetched_bytes == 0
    assert path.read_bytes() == mine
    assert len(sky.requests) == 0


@pytest.mark.parametrize("content", [b"", b"mine", bytes(9000)])
def test_a_file_is_not_trusted_by_its_name(client, url, raw, tmp_path, content):
    path = tmp_path / "x.fits.fz"
    path.write_bytes(content or raw[:-2880])
    assert download(client, url, path).fetched_bytes == len(raw)
    assert path.read_bytes() == raw


@pytest.mark.parametrize(
    "card",
    [
        b"PCOUNT  =      -1099511627776",
        b"NAXIS1  =                  -8",
        b"NAXIS   =            99999999",
        b"NAXIS2  =  999999999999999999",
        b"BITPIX  =                 abc",
    ],
)
def test_a_damaged_header_does_not_stop_the_next_call(copied_tree, client, tmp_path, card):
    source = next(copied_tree.rglob("*nexp-r*"))
    good = source.read_bytes()
    at = good.index(card[:9], 2880)
    source.write_bytes(good[:at] + card.ljust(80) + good[at + 80 :])
    path = tmp_path / "own" / "x.fits.fz"
    with Sandbox(copied_tree, configure=False) as server:
        url = f"{server.mirror_url}/{source.relative_to(copied_tree)}"
        with pytest.raises((UnexpectedContentError, TruncatedError)):
            download(client, url, path)
        assert not list(path.parent.iterdir())
        source.write_bytes(good)
        assert download(client, url, path).size == len(good)


def test_a_part_that_its_server_refuses_to_continue_is_dropped(sky, client, url, raw, tmp_path):
    path = tmp_path / "x.fits.fz"
    sky.faults.add("cut", match=MATCH, times=2)
    with pytest.raises(TruncatedError):
        download(client, url, path)
    assert _leftovers(tmp_path)
    sky.faults.add("status", match=MATCH, times=1, code=403)
    with pytest.raises(TransferError):
        download(client, url, path)
    assert not _leftovers(tmp_path)
    assert download(client, url, path).size == len(raw)


def test_a_cut_download_goes_on_where_it_was(sky, client, url, raw, tmp_path):
    path = tmp_path / "x.fits.fz"
    sky.faults.add("cut", match=MATCH, times=1, fraction=0.6)
    done = download(client, url, path)
    assert path.read_bytes() == raw
    assert done.fetched_bytes == len(raw)
    assert sky.requests[1].range == f"bytes={int(len(raw) * 0.6)}-"
    assert sky.requests[1].status == 206


def test_a_download_that_failed_is_resumed_by_the_next_call(sky, client, url, raw, tmp_path):
    path = tmp_path / "x.fits.fz"
    cut = sky.faults.add("cut", match=MATCH, times=None, fraction=0.3)
    with cut, pytest.raises(TruncatedError):
        download(client, url, path)
    assert not path.exists()
    assert len(_leftovers(tmp_path)) == 2
    sky.requests.clear()
    done = download(client, url, path)
    assert path.read_bytes() == raw
    assert done.fetched_bytes < 0.75 * len(raw)
    assert [r.status for r in sky.requests] == [206]
    assert _leftovers(tmp_path) == []


def test_a_part_of_another_version_is_not_continued(sky, client, url, raw, tmp_path):
    path = tmp_path / "x.fits.fz"
    cut = sky.faults.add("cut", match=MATCH, times=None, fraction=0.3)
    with cut, pytest.raises(TruncatedError):
        download(client, url, path)
    part = next(p for p in tmp_path.iterdir() if p.name.endswith(".part"))
    part.write_bytes(b"\0" * part.stat().st_size)
    sky.faults.add("etag", match=MATCH, times=1)
    download(client, url, path)
    assert path.read_bytes() == raw


def test_a_part_without_its_note_is_begun_again(client, url, raw, tmp_path):
    path = tmp_path / "x.fits.fz"
    digest = hashlib.sha1(url.encode()).hexdigest()[:8]
    (tmp_path / f"x.fits.fz.{digest}.part").write_bytes(b"stale" * 100)
    download(client, url, path)
    assert path.read_bytes() == raw


def test_a_complete_part_needs_no_more_bytes(sky, client, url, raw, tmp_path):
    path = tmp_path / "x.fits.fz"
    sky.faults.add("cut", match=MATCH, times=None, fraction=0.3)
    with pytest.raises(TruncatedError):
        download(client, url, path)
    sky.faults.clear()
    next(p for p in tmp_path.iterdir() if p.name.endswith(".part")).write_bytes(raw)
    assert download(client, url, path).fetched_bytes == 0
    assert path.read_bytes() == raw


@pytest.mark.parametrize(
    ("kind", "options", "error"),
    [
        ("status", {"code": 404}, NotFoundError),
        ("status", {"code": 503}, ServiceDownError),
        ("html", {}, UnexpectedContentError),
        ("refuse", {}, ServiceDownError),
    ],
)
def test_errors_leave_nothing(sky, client, url, tmp_path, kind, options, error):
    sky.faults.add(kind, match=MATCH, times=None, **options)
    with pytest.raises(error):
        download(client, url, tmp_path / "x.fits.fz")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_digest_is_refused(client, url, tmp_path):
    with pytest.raises(TransferError, match="has sha256 .* its list says 00"):
        download(client, url, tmp_path / "x.fits.fz", sha256="00" * 32)
    assert list(tmp_path.iterdir()) == []


def test_another_version_than_expected_is_refused(client, url, tmp_path):
    with pytest.raises(ContentChangedError):
        download(client, url, tmp_path / "x.fits.fz", expected=Version(5, '"x"'))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_cache_error(client, url, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="Cannot write"):
        download(client, url, tmp_path / "file" / "x.fits.fz")


def test_threads_that_want_the_same_file_fetch_it_once(sky, client, url, raw, tmp_path):
    path = tmp_path / "x.fits.fz"
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda _: download(client, url, path), range(16)))
    assert {d.path.read_bytes() == raw for d in done} == {True}
    assert sum(d.fetched_bytes for d in done) == len(raw)
    assert len(sky.requests) == 1


def _download_in_process(url, path):
    return download(HttpClient(timeout_s=50), url, path).fetched_bytes


def test_processes_that_want_the_same_file_fetch_it_once(sky, url, raw, tmp_path):
    path = tmp_path / "x.fits.fz"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        fetched = pool.starmap(_download_in_process, [(url, path)] * 6)
    assert sum(fetched) == len(raw)
    assert path.read_bytes() == raw


def test_a_killed_download_leaves_a_part_that_is_continued(sky, client, url, raw, tmp_path):
    path = tmp_path / "x.fits.fz"
    # The server sends two thirds and then waits, so the process is surely killed in the middle.
    sky.faults.add("cut", match=MATCH, times=1, fraction=0.66)
    slow = sky.faults.add("slow", match=MATCH, times=1, seconds=60)
    process = multiprocessing.get_context("spawn").Process(
        target=_download_in_process, args=(url, path)
    )
    process.start()
    while slow.hits < 1:
        assert process.is_alive()
        process.join(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not path.exists()
    done = download(client, url, path)
    assert path.read_bytes() == raw
    assert done.fetched_bytes < len(raw)


def test_what_has_neither_tag_nor_date_is_begun_again_after_a_cut(tmp_path, raw):
    head = OK + b"Content-Length: %d\r\n\r\n" % len(raw)
    path, half = tmp_path / "x.fits", len(raw) // 2
    with (
        RawServer(head + raw[:half], at_once=10**9) as server,
        pytest.raises(TruncatedError, match=f"{half} bytes came"),
    ):
        download(HttpClient(retries=1, timeout_s=20), server.url, path)
    assert [part.stat().st_size for part in tmp_path.glob("*.part")] == [half]
    with RawServer(head + raw, at_once=10**9) as server:
        download(HttpClient(retries=1, timeout_s=20), server.url, path)
    assert path.read_bytes() == raw
