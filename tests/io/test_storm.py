"""Many downloads at once over connections that break: each file is right in the end."""

import multiprocessing
import os
import random
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from astroquery_lis import LegacySurveyClass, conf
from astroquery_lis.exceptions import TransferError, TruncatedError
from astroquery_lis.io.download import download
from astroquery_lis.io.http import HttpClient

N_DOWNLOADS = 400


@pytest.fixture(scope="module")
def small_files(served_sky):
    """Relative path and content of the small files of the tree."""
    found = [
        path
        for product in ("nexp", "psfsize", "maskbits")
        for path in sorted(served_sky.root.rglob(f"*-{product}*.fits.fz"))
    ]
    assert len(found) > 60
    return {path.relative_to(served_sky.root).as_posix(): path.read_bytes() for path in found}


def _cut_at_random(sky, rng, n_cuts, n_requests):
    for _ in range(n_cuts):
        sky.faults.add("cut", after=rng.randrange(n_requests), fraction=rng.random())


def _until_done(client, url, path):
    """Download as a user does who calls again after an error."""
    fetched = 0
    for _ in range(20):
        try:
            return fetched + download(client, url, path, margin_bytes=0).fetched_bytes
        except TransferError:
            continue
    raise AssertionError(url)


def _assert_only_whole_files(folder, small_files):
    here = [path for path in folder.rglob("*") if path.is_file()]
    assert [path.name for path in here if not path.name.endswith(".fits.fz")] == []
    for path in here:
        _, _, relative = path.relative_to(folder).as_posix().partition("/")
        assert path.read_bytes() == small_files[relative], path


def test_400_downloads_half_of_them_resumed_over_breaking_connections(sky, small_files, tmp_path):
    rng = random.Random(4)
    names = list(small_files)
    jobs = [(names[i % len(names)], tmp_path / str(i)) for i in range(N_DOWNLOADS)]
    begun = jobs[::2]
    hasty, patient = HttpClient(timeout_s=20, retries=0), HttpClient(timeout_s=20, retries=2)

    def begin(job):
        with pytest.raises(TruncatedError):
            download(hasty, f"{sky.mirror_url}/{job[0]}", job[1] / job[0], margin_bytes=0)

    with ThreadPoolExecutor(8) as pool:
        with sky.faults.add("cut", times=None, fraction=0.4):
            list(pool.map(begin, begun))
        assert len(list(tmp_path.rglob("*.part"))) == len(begun)
        sky.requests.clear()
        _cut_at_random(sky, rng, 200, 500)
        rng.shuffle(jobs)
        list(
            pool.map(
                lambda job: _until_done(patient, f"{sky.mirror_url}/{job[0]}", job[1] / job[0]),
                jobs,
            )
        )
    _assert_only_whole_files(tmp_path, small_files)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == N_DOWNLOADS
    statuses = Counter(record.status for record in sky.requests)
    # Every download that was begun went on where it was, and many were cut on the way.
    assert statuses[206] >= len(begun)
    assert len(sky.requests) > N_DOWNLOADS + 100


def _download_some(mirror_url, names, folder, seed):
    client = HttpClient(timeout_s=20, retries=2)
    names = random.Random(seed).sample(names, len(names))
    with ThreadPoolExecutor(2) as pool:
        return sum(
            pool.map(lambda n: _until_done(client, f"{mirror_url}/{n}", folder / "0" / n), names)
        )


def test_four_processes_on_one_folder_do_not_fetch_for_each_other(sky, small_files, tmp_path):
    _cut_at_random(sky, random.Random(5), 40, 100)
    names = list(small_files)
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        jobs = [(sky.mirror_url, names, tmp_path, seed) for seed in range(4)]
        fetched = pool.starmap(_download_some, jobs)
    _assert_only_whole_files(tmp_path, small_files)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == len(names)
    sent = sum(record.bytes_sent for record in sky.requests if record.status in (200, 206))
    whole = sum(len(raw) for raw in small_files.values())
    # A connection that breaks may take along what was on its way, but four copies are far more.
    assert whole <= sent < 1.25 * whole
    assert sum(fetched) <= sent


BRICKS = ("0451p000", "0453p000", "0451p002", "0453p002")


def _get_brick_files(mirror_url, folder, where):
    survey = LegacySurveyClass()
    survey.mirror = mirror_url
    download_dir = folder / "tree" if where == "folder" else None
    with conf.set_temp("max_workers", 3), conf.set_temp("cache_dir", str(folder / "cache")):
        return survey.get_brick_files(
            BRICKS, products=("nexp", "psfsize"), download_dir=download_dir
        )


def _files_in(folder):
    """Yield the whole files that are there, by their path in the survey."""
    for path in folder.rglob("*.fits.fz"):
        yield f"dr10/{path.as_posix().partition('/dr10/')[2]}", path


def _kill_at_random(sky, folder, where, rounds, rng):
    """Kill a process that fetches files after some number of requests, again and again."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["astroquery_lis", "tests.io.test_storm"])
    finished, killed = set(), 0
    for number in range(rounds):
        sky.requests.clear()
        process = context.Process(target=_get_brick_files, args=(sky.mirror_url, folder, where))
        process.start()
        moment = rng.randrange(1, 12)
        if number % 2:
            while len(sky.requests) < moment and process.is_alive():
                process.join(0.005)
        else:
            # Nothing more is answered from that moment on, so that the process is surely alive.
            hung = sky.faults.add("slow", after=moment, times=None, seconds=600)
            while hung.hits < 1 and process.is_alive():
                process.join(0.005)
            hung.remove()
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        asked = {record.path.removeprefix("/legacysurvey/") for record in sky.requests}
        assert not asked & finished, "a finished file was fetched again"
        for relative, path in _files_in(folder):
            assert path.read_bytes() == (sky.root / relative).read_bytes()
            finished.add(relative)
    assert killed
    return finished


def _assert_completes(sky, folder, where):
    table = _get_brick_files(sky.mirror_url, folder, where)
    assert len(table) == 32
    assert set(table["Status"]) <= {"COMPLETE", "CACHED"}
    found = dict(_files_in(folder))
    assert sorted(str(path) for path in found.values()) == sorted(table["Local Path"])
    for relative, path in found.items():
        assert path.read_bytes() == (sky.root / relative).read_bytes()
    left = [p.name for p in folder.rglob("*") if p.name.endswith((".part", ".part.json", ".tmp"))]
    assert left == []
    again = _get_brick_files(sky.mirror_url, folder, where)
    assert set(again["Status"]) == {"CACHED"}


@pytest.mark.parametrize("where", ["folder", "cache"])
def test_killed_at_random_moments_it_completes_when_run_again(sky, tmp_path, where):
    finished = _kill_at_random(sky, tmp_path, where, 5, random.Random(6))
    assert finished
    _assert_completes(sky, tmp_path, where)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_50_random_moments_it_completes_when_run_again(sky, tmp_path):
    rng = random.Random(7)
    for number in range(10):
        where = ("folder", "cache")[number % 2]
        folder = tmp_path / str(number)
        folder.mkdir()
        _kill_at_random(sky, folder, where, 5, rng)
        _assert_completes(sky, folder, where)
