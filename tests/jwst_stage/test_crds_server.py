"""A CRDS server over real HTTP: what it says, and files that come whole or not at all."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from astroquery_lis import conf
from astroquery_lis.exceptions import (
    CacheError,
    ChecksumError,
    CrdsUnavailable,
    ServiceDownError,
    ServiceTimeoutError,
    TransferError,
    UnexpectedContentError,
)
from astroquery_lis.jwst_stage.crds_cache import (
    CrdsServer,
    fetch_files,
    read_server_config,
    server_config_path,
    write_server_config,
)
from astroquery_lis.sandbox.jwst.crds import serve_crds

FLAT = "jwst_nircam_flat_0001.fits"
DARK = "jwst_nircam_dark_0001.fits"
DISTORTION = "jwst_nircam_distortion_0001.asdf"
PMAP = "jwst_0001.pmap"


@pytest.fixture
def service(sky, observation):
    with serve_crds(sky, observation.crds_path) as service:
        yield service


@pytest.fixture
def server(service):
    return CrdsServer(service.url)


@pytest.fixture
def originals(observation):
    return {path.name: path for path in Path(observation.crds_path).rglob("*.*")}


def paths_in(folder, *names):
    return {name: folder / "references" / "jwst" / "nircam" / name for name in names}


def asked_for(sky, name):
    return sum(record.path.endswith(name) for record in sky.requests)


def leftovers(folder):
    return [path.name for path in folder.rglob("*") if ".part" in path.name]


def test_the_real_client_gets_on_with_the_sandbox(service, originals, tmp_path):
    """CRDS's own client, which the sandbox's server was made for, is the judge of it."""
    code = (
        "import crds, json, sys; from crds.client import api\n"
        "header = {'META.INSTRUMENT.NAME': 'NIRCAM', 'META.INSTRUMENT.DETECTOR': 'NRCALONG',\n"
        " 'META.INSTRUMENT.FILTER': 'F356W', 'META.INSTRUMENT.PUPIL': 'CLEAR',\n"
        " 'META.SUBARRAY.NAME': 'SUB160', 'META.OBSERVATION.DATE': '2023-08-20',\n"
        " 'META.OBSERVATION.TIME': '04:00:00'}\n"
        "found = crds.getreferences(header, reftypes=['flat'], observatory='jwst')\n"
        "info = api.get_file_info_map('jwst', ['jwst_0001.pmap'], ['size', 'sha1sum'])\n"
        "print(json.dumps([found, info]))\n"
    )
    environment = {**os.environ, "CRDS_PATH": str(tmp_path), "CRDS_SERVER_URL": service.url}
    for name in ("CRDS_CONTEXT", "CRDS_READONLY_CACHE"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    found, info = json.loads(done.stdout)
    assert Path(found["flat"]).read_bytes() == originals[Path(found["flat"]).name].read_bytes()
    assert info[PMAP]["size"] == str(originals[PMAP].stat().st_size)
    assert {"get_server_info", "get_build_context", "get_file_info_map"} <= set(service.calls)


def test_files_are_described(server, originals):
    described = server.file_info([FLAT, PMAP, "jwst_nircam_flat_9999.fits"])
    assert set(described) == {FLAT, PMAP}
    data = originals[FLAT].read_bytes()
    assert described[FLAT] == (len(data), hashlib.sha1(data).hexdigest())
    assert server.file_url(FLAT).endswith(f"/references/{FLAT}")
    assert server.file_url(PMAP).endswith(f"/mappings/{PMAP}")


@pytest.mark.parametrize("name", ["", "build", "jwst-build"])
def test_the_context_of_the_release_is_the_default(service, server, name):
    service.builds["3.0.0"] = "jwst_0003.pmap"
    assert server.context(name, "3.0.0") == "jwst_0003.pmap"
    assert server.context(name, "3.0.0.post1") == "jwst_0003.pmap"
    # As CRDS: the latest one for a release that the server does not know.
    assert server.context(name, "2.9.9") == PMAP


def test_symbolic_contexts(service, server):
    service.dates["jwst-2024-05-01"] = "jwst_0007.pmap"
    assert server.context("latest", "3.0.0") == PMAP
    assert server.context("jwst-operational", "3.0.0") == PMAP
    assert server.context("jwst-edit", "3.0.0") == PMAP
    assert server.context("", "3.1.0.dev5") == PMAP
    assert server.context("jwst-2024-05-01", "3.0.0") == "jwst_0007.pmap"
    with pytest.raises(TransferError, match="refused get_context_by_date: No context is known"):
        server.context("jwst-1999-01-01", "3.0.0")


def test_each_file_comes_once_and_whole(sky, server, originals, tmp_path):
    paths = paths_in(tmp_path, FLAT, DARK, DISTORTION)
    results = fetch_files(server, paths, max_workers=3)
    assert [result.name for result in results] == list(paths)
    assert all(result.error is None for result in results)
    for name, path in paths.items():
        assert path.read_bytes() == originals[name].read_bytes()
        assert asked_for(sky, name) == 1
    assert leftovers(tmp_path) == []
    # Whoever comes later finds them.
    assert [r.fetched_bytes for r in fetch_files(server, paths)] == [0, 0, 0]
    assert asked_for(sky, FLAT) == 1


def test_nothing_is_asked_for_nothing(sky, server):
    assert fetch_files(server, {}) == []
    assert len(sky.requests) == 0


def test_a_broken_connection_is_continued(sky, server, originals, tmp_path):
    paths = paths_in(tmp_path, DARK)
    sky.faults.add("cut", f"*{DARK}", fraction=0.5)
    (result,) = fetch_files(server, paths)
    assert result.error is None
    assert paths[DARK].read_bytes() == originals[DARK].read_bytes()
    assert [r.range for r in sky.requests if r.path.endswith(DARK)][1].startswith("bytes=")


def test_bytes_that_were_spoilt_on_the_way_are_fetched_again(sky, server, originals, tmp_path):
    paths = paths_in(tmp_path, DISTORTION)
    sky.faults.add("html", f"*{DISTORTION}")
    (result,) = fetch_files(server, paths)
    assert result.error is None
    assert paths[DISTORTION].read_bytes() == originals[DISTORTION].read_bytes()
    assert asked_for(sky, DISTORTION) == 2


def test_a_file_with_another_digest_never_gets_its_name(sky, service, server, tmp_path):
    service.sha1[DISTORTION] = "0" * 40
    paths = paths_in(tmp_path, DISTORTION, FLAT)
    wrong, right = fetch_files(server, paths)
    assert isinstance(wrong.error, ChecksumError)
    assert "the CRDS server says 0000" in str(wrong.error)
    assert not paths[DISTORTION].exists()
    assert right.error is None
    assert paths[FLAT].exists()
    assert leftovers(tmp_path) == []


def test_a_file_of_another_length_never_gets_its_name(service, server, tmp_path, monkeypatch):
    service.sha1[DISTORTION] = ""
    told = server.file_info([DISTORTION])
    monkeypatch.setattr(
        server, "file_info", lambda names: {DISTORTION: (told[DISTORTION][0] + 1, "")}
    )
    (result,) = fetch_files(server, paths_in(tmp_path, DISTORTION))
    assert "the CRDS server announces" in str(result.error)
    assert not list(tmp_path.rglob("*.asdf"))


def test_a_file_whose_digest_the_server_does_not_know_is_taken(service, server, tmp_path):
    service.sha1[FLAT] = ""
    (result,) = fetch_files(server, paths_in(tmp_path, FLAT))
    assert result.error is None


def test_a_file_that_the_server_does_not_know(service, server, tmp_path):
    service.hidden.add(FLAT)
    (result,) = fetch_files(server, paths_in(tmp_path, FLAT))
    assert "does not know jwst_nircam_flat_0001.fits" in str(result.error)


def test_a_damaged_file_is_replaced(server, originals, tmp_path):
    paths = paths_in(tmp_path, FLAT)
    paths[FLAT].parent.mkdir(parents=True)
    paths[FLAT].write_bytes(originals[FLAT].read_bytes()[:3000])
    (result,) = fetch_files(server, paths, replace={FLAT})
    assert result.error is None
    assert paths[FLAT].read_bytes() == originals[FLAT].read_bytes()


@pytest.mark.slow
def test_two_processes_fetch_each_file_once(sky, service, originals, tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from astroquery_lis.jwst_stage.crds_cache import CrdsServer, fetch_files\n"
        "folder = Path(sys.argv[2])\n"
        "sys.stdin.readline()\n"
        "found = fetch_files(CrdsServer(sys.argv[1]), {n: folder / n for n in sys.argv[3:]})\n"
        "print(sum(r.fetched_bytes for r in found), [r.error for r in found])\n"
    )
    names = [FLAT, DARK, DISTORTION]
    command = [sys.executable, "-c", code, service.url, str(tmp_path), *names]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    # They begin together.
    answers = [process.communicate("go\n", timeout=90)[0] for process in processes]
    assert all("[None, None, None]" in answer for answer in answers)
    total = sum(originals[name].stat().st_size for name in names)
    assert sum(int(answer.split()[0]) for answer in answers) == total
    for name in names:
        assert (tmp_path / name).read_bytes() == originals[name].read_bytes()
        assert asked_for(sky, name) == 1
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("fault", ["refuse", "status", "html"])
def test_a_server_that_does_not_answer(sky, server, tmp_path, fault):
    sky.faults.add(fault, "/crds/json/*", times=None)
    with pytest.raises(CrdsUnavailable, match="the CRDS server cannot be asked") as caught:
        fetch_files(server, paths_in(tmp_path, FLAT, DARK))
    assert caught.value.missing == (DARK, FLAT)
    assert "Set crds_server_url" in str(caught.value)


def test_an_answer_that_is_no_answer(sky, server):
    sky.faults.add("html", "/crds/json/*")
    with pytest.raises(UnexpectedContentError, match="is no CRDS server"):
        server.call("get_server_info")
    with pytest.raises(TransferError, match="refused get_nonsense: method not found"):
        server.call("get_nonsense")
    sky.faults.add("status", "/crds/json/*", times=None, code=500)
    with pytest.raises(ServiceDownError, match="does not answer get_server_info"):
        server.call("get_server_info")


@pytest.mark.parametrize("fault", ["drip", "hang"])
def test_an_answer_that_never_ends_is_bounded(sky, server, fault):
    sky.faults.add(fault, "/crds/json/*", times=None)
    with (
        conf.set_temp("deadline", 1.0),
        pytest.raises(ServiceTimeoutError, match=r"within conf.deadline=1 s"),
    ):
        server.call("get_server_info")


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "references").write_text("a file where a folder should be")
    (result,) = fetch_files(server, paths_in(tmp_path, FLAT))
    assert isinstance(result.error, CacheError)
    with pytest.raises(CrdsUnavailable, match="cannot be written .* set crds_path"):
        write_server_config(tmp_path / "references", {})


def test_the_configuration_is_written_as_crds_reads_it(server, tmp_path):
    path = server_config_path(tmp_path)
    write_server_config(tmp_path, server.info)
    assert read_server_config(tmp_path)["latest_context"] == PMAP
    # The list of all files of the mission stays with the server.
    assert "download_metadata" not in path.read_text()
    path.write_text("{'latest_context': ")
    assert read_server_config(tmp_path) is None
