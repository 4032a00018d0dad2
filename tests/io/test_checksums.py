"""Lists of digests: read as sha256sum writes them, fetched once, kept, asked for again."""

import hashlib
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from astroquery_lis.exceptions import ServiceDownError, UnexpectedContentError
from astroquery_lis.io.checksums import ChecksumLists, parse_checksums
from astroquery_lis.io.http import HttpClient
from astroquery_lis.io.mirrors import resolve_mirrors
from astroquery_lis.survey.paths import file_path

PATH = file_path("coadd-checksums", "dr10", "south", brick="0451p000")


@pytest.fixture
def lists(sky):
    return ChecksumLists(HttpClient(timeout_s=10, retries=1), resolve_mirrors(sky.mirror_url))


@pytest.mark.parametrize("option", ["--text", "--binary"])
def test_what_sha256sum_writes_is_read(tmp_path, option):
    for name, text in (("a b.fits", b"x"), ("c.fits", b"y")):
        (tmp_path / name).write_bytes(text)
    told = subprocess.run(
        ["sha256sum", option, "a b.fits", "c.fits"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert parse_checksums(told.stdout, "x") == {
        "a b.fits": hashlib.sha256(b"x").hexdigest(),
        "c.fits": hashlib.sha256(b"y").hexdigest(),
    }


def test_the_pipelines_own_form_is_read():
    assert parse_checksums(f"{'AB' * 32} *coadd/001/x.fits\n\n", "x") == {"x.fits": "ab" * 32}


@pytest.mark.parametrize("text", ["<html>", "abc  x.fits", "0" * 64, "z" * 64 + "  x.fits"])
def test_anything_else_is_refused(text):
    with pytest.raises(UnexpectedContentError, match="http://x is not a list of sha256"):
        parse_checksums(text, "http://x")


def test_a_list_is_fetched_once_and_kept(sky, lists, tmp_path):
    copy = tmp_path / "deep" / "list.sha256sum"
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: lists.get(PATH, copy), range(16)))
    assert len(sky.requests) == 1
    assert all(digests is found[0] for digests in found)
    for path in (sky.root / PATH).parent.glob("*.fz"):
        assert found[0][path.name] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert copy.read_bytes() == (sky.root / PATH).read_bytes()
    fresh = ChecksumLists(HttpClient(), resolve_mirrors("nersc"))
    assert fresh.get(PATH, copy) == found[0]


def test_a_kept_list_is_asked_for_again_once(sky, lists, tmp_path):
    copy = tmp_path / "list.sha256sum"
    copy.write_text("0" * 64 + "  old.fits\n")
    assert lists.get(PATH, copy) == {"old.fits": "0" * 64}
    assert len(sky.requests) == 0
    for _ in range(3):
        assert "old.fits" not in lists.get(PATH, copy, again=True)
    assert len(sky.requests) == 1
    assert copy.read_bytes() == (sky.root / PATH).read_bytes()


def test_a_damaged_copy_is_fetched_anew(sky, lists, tmp_path):
    copy = tmp_path / "list.sha256sum"
    copy.write_text("<html>")
    assert len(lists.get(PATH, copy)) > 10
    assert len(sky.requests) == 1


def test_a_list_that_nobody_has_is_none(sky, lists):
    assert lists.get("dr10/nothing.sha256sum") is None
    assert lists.get("dr10/nothing.sha256sum") is None
    assert len(sky.requests) == 1


def test_a_mirror_that_is_down_is_no_answer(sky, lists):
    sky.faults.add("status", times=None, code=503)
    with pytest.raises(ServiceDownError):
        lists.get(PATH)
    sky.faults.clear()
    assert lists.get(PATH)


def test_a_copy_that_cannot_be_written_does_not_matter(lists, tmp_path):
    (tmp_path / "file").write_text("")
    assert lists.get(PATH, tmp_path / "file" / "list.sha256sum")
