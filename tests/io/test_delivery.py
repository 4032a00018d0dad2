"""One file at a time: jobs travel to workers, bad mirrors are not asked again; lists of digests."""

import hashlib
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from astroquery_lis import LegacySurveyClass
from astroquery_lis.exceptions import ServiceDownError, UnexpectedContentError
from astroquery_lis.io.delivery import ChecksumLists, FileJob, FileSettings, parse_checksums
from astroquery_lis.io.http import HttpClient, shared_client
from astroquery_lis.io.jobs import deliver
from astroquery_lis.io.mirrors import FAILURES_TO_REST, HEALTH, resolve_mirrors
from astroquery_lis.sandbox.server import Sandbox
from astroquery_lis.survey.paths import file_path, file_paths

BRICK = "0451p000"
LIST = file_path("coadd-checksums", "dr10", "south", brick=BRICK)


@pytest.fixture
def settings(sky, tmp_path):
    return FileSettings(
        mirrors=resolve_mirrors(sky.mirror_url),
        location=str(tmp_path / "cache"),
        folder=None,
        verify="warn",
        refresh=False,
        client_options=(("timeout_s", 10.0), ("retries", 1)),
        begun_s=time.time(),
    )


def _file(product="nexp", band="g", **kwargs):
    path = file_path(product, "dr10", "south", brick=BRICK, band=band)
    facts = (("id", BRICK), ("release", "dr10"), ("region", "south"), ("bands", band))
    return {"paths": (path,), "checksum_path": LIST, "facts": facts, **kwargs}


def _job(row, file, settings):
    return FileJob(row, settings=settings, **file)


def _fetch(settings, file):
    (result,) = deliver(_job(3, file, settings))
    return result


def test_a_job_survives_the_way_to_a_worker_and_back(sky, settings):
    job = pickle.loads(pickle.dumps(_job(3, _file(), settings)))
    assert job == _job(3, _file(), settings)
    assert len(pickle.dumps(job)) < 2000
    (result,) = pickle.loads(pickle.dumps(deliver(job)))
    assert (result.row, result.status, result.id, result.bands) == (3, "COMPLETE", BRICK, "g")
    assert result.seconds > 0
    sky.faults.add("status", times=None, code=503)
    (result,) = pickle.loads(pickle.dumps(deliver(_job(4, _file(band="r"), settings))))
    assert result.status == "ERROR"
    assert isinstance(result.error, ServiceDownError)
    assert result.message.startswith("ServiceDownError: ")


def test_the_second_name_of_a_file_counts(sky, settings):
    real = file_path("nexp", "dr10", "south", brick=BRICK, band="g")
    # DR5 has several endings; the survey's documentation and its files differ.
    paths = (file_paths("nexp", "dr5", "south", brick=BRICK, band="g")[1], real)
    result = _fetch(settings, _file(paths=paths))
    assert result.status == "COMPLETE"
    assert result.local_path.endswith(real)
    assert [r.status for r in sky.requests] == [200, 404, 200] or [
        r.status for r in sky.requests
    ] == [404, 200, 200]


def test_a_mirror_that_fails_all_along_is_not_asked_for_every_file(sky, settings):
    sky.faults.add("status", times=None, code=503)
    results = [_fetch(settings, _file(band=band, checksum_path=None)) for band in "griz"]
    statuses = [result.status for result in results]
    assert statuses == ["ERROR"] * FAILURES_TO_REST + ["SKIPPED"]
    assert "HTTP 503" in results[-1].message
    assert len(sky.requests) == 2 * FAILURES_TO_REST
    # Files that are here need no mirror; and the next call begins anew.
    sky.faults.clear()
    later = FileSettings(**{**settings.__dict__, "begun_s": time.time()})
    assert _fetch(later, _file(band="g")).status == "COMPLETE"
    for _ in range(FAILURES_TO_REST):
        HEALTH.failed(settings.mirrors[0], ServiceDownError("down"))
    assert _fetch(later, _file(band="g")).status == "CACHED"
    assert _fetch(later, _file(band="z")).status == "SKIPPED"


def test_two_that_give_different_bytes_are_not_a_majority(sky, settings, tmp_path):
    """Neither is what the list says, and nothing tells which of them is right."""
    mirrors = [sky.mirror_url]
    servers = []
    name = _file()["paths"][0]
    raw = (sky.root / name).read_bytes()
    try:
        for number in (1, 2):
            tree = tmp_path / str(number)
            (tree / name).parent.mkdir(parents=True)
            changed = bytearray(raw)
            changed[-100] ^= number
            (tree / name).write_bytes(changed)
            (tree / LIST).write_bytes((sky.root / LIST).read_bytes())
            servers.append(Sandbox(tree, configure=False))
        mirrors = resolve_mirrors([server.mirror_url for server in servers])
        result = _fetch(FileSettings(**{**settings.__dict__, "mirrors": mirrors}), _file())
    finally:
        for server in servers:
            server.close()
    assert result.status == "ERROR"
    assert result.message.startswith("ChecksumError: No mirror could give")
    assert not list((tmp_path / "cache").rglob("*.fits.fz"))


def test_files_under_way_keep_no_cutout_waiting(sky, settings):
    options = (("timeout_s", 300.0), ("retries", 0), ("max_connections", 1))
    fault = sky.faults.add("slow", "*nexp-g*", times=None, seconds=600)
    settings = FileSettings(**{**settings.__dict__, "client_options": options})
    content = (sky.root / LIST).read_bytes()
    with ThreadPoolExecutor(2) as pool:
        delivered = pool.submit(_fetch, settings, _file(checksum_path=None))
        try:
            while not fault.hits:
                assert not delivered.done()
                time.sleep(0.01)
            client = shared_client(options)
            reading = pool.submit(client.read, f"{sky.mirror_url}/{LIST}", 1e6)
            assert reading.result(60) == content
        finally:
            sky.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_fetches_files(sky, survey, tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with (
        distributed.LocalCluster(processes=True, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        table = LegacySurveyClass.get_brick_files(
            survey, BRICK, products=("nexp", "psfsize"), executor=client.get_executor()
        )
    assert list(table["Status"]) == ["COMPLETE"] * 8
    for row in table:
        relative = row["Local Path"].partition("/dr10/")[2]
        with open(row["Local Path"], "rb") as stream:
            assert stream.read() == (sky.root / "dr10" / relative).read_bytes()


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


PLAIN = """
import sys
from astroquery_lis import LegacySurvey, conf
conf.cache_dir, conf.mirror, brick = sys.argv[1:]
table = LegacySurvey.get_brick_files(brick, products="tractor", show_progress=False)
assert list(table["Status"]) == ["COMPLETE"], table
print(*(name for name in sys.modules if name.startswith("multiprocessing.") and "fork" in name))
print("multiprocessing.connection" in sys.modules, "multiprocessing.spawn" in sys.modules)
"""


def test_a_plain_download_loads_nothing_that_starts_processes(sky, tmp_path):
    words = [sys.executable, "-c", PLAIN, str(tmp_path), sky.mirror_url, BRICK]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split("\n")[-3:-1] == ["", "False False"]
