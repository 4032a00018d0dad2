"""The cache's size: counted, noted among processes, kept within its limit; room on the disk."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from astroquery_lis import conf
from astroquery_lis.exceptions import CacheError
from astroquery_lis.io.ranges import Version
from astroquery_lis.io.store import (
    USAGE_FILE,
    VERSION_FILE,
    Origin,
    Store,
    cache_entries,
    cache_usage,
    clear_stores,
    damaged_runs,
    keep_within,
    mark_used,
    prune,
)
from astroquery_lis.io.whole_files import (
    GB,
    check_space,
    copy_whole,
    keep_bytes,
    remove_leftovers,
    write_bytes,
    write_whole,
)

NOW = time.time()
HOUR = 3600.0


def _put(store, relative, size=1000, age_s=0.0):
    path = store.root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    keep_bytes(path, b"x" * size)
    os.utime(path, (NOW - age_s, NOW - 1e6))
    return path


def _put_parts(store, relative, sizes, age_s=0.0):
    runs = store.begin_runs(relative, Version(10**6, '"e"'))
    for number, size in enumerate(sizes):
        runs.add(number * 1000, b"y" * size)
    for path in runs.folder.iterdir():
        os.utime(path, (NOW - age_s, NOW - age_s))
    return runs


@pytest.fixture
def location(tmp_path):
    return tmp_path


@pytest.fixture
def store(location):
    return Store(location / "official")


def _held(location):
    return sorted(entry.relative for entry in cache_entries(location))


def test_what_is_held_is_counted(location, store):
    _put(store, "dr10/a.fits")
    _put(store, "dr10/b.fits", 500)
    store.remember("dr10/a.fits", Origin("http://x", Version(1000), "00"))
    _put_parts(store, "dr10/c.fits", [100, 200])
    _put(Store(location / "custom-0123456789ab"), "dr10/a.fits", 7)
    _put(Store(location / "viewer-0123456789ab"), "answer.fits", 8)
    (location / "mine.txt").write_text("not ours")
    usage = cache_usage(location)
    assert set(usage) == {"official", "custom-0123456789ab", "viewer-0123456789ab"}
    assert usage["official"]["files"] == 2
    assert usage["official"]["file_bytes"] == 1500
    assert usage["official"]["parts"] == 3
    assert usage["official"]["part_bytes"] > 300
    assert usage["custom-0123456789ab"]["file_bytes"] == 7


def test_what_was_used_longest_ago_goes_first(location, store):
    for age in range(1, 6):
        _put(store, f"dr10/{age}.fits", 1000, age * HOUR)
    _put_parts(store, "dr10/6.fits", [900], 6 * HOUR)
    left = prune(location, 4500, keep_since_s=NOW)
    assert left <= 0.9 * 4500
    assert _held(location) == ["dr10/1.fits", "dr10/2.fits", "dr10/3.fits", "dr10/4.fits"]


def test_using_a_file_keeps_it(location, store):
    old = _put(store, "dr10/old.fits", age_s=9 * HOUR)
    new = _put(store, "dr10/new.fits", age_s=HOUR)
    modified = old.stat().st_mtime_ns
    mark_used(old)
    # The date of the file is that of its server and stays.
    assert old.stat().st_mtime_ns == modified
    prune(location, 1500, keep_since_s=NOW + HOUR)
    assert old.exists()
    assert not new.exists()


def test_a_file_of_a_clock_that_is_far_ahead_can_be_removed(location, store):
    for name, ahead_s in (("far", 1000 * HOUR), ("near", HOUR / 4)):
        _put(store, f"dr10/{name}.fits", age_s=-ahead_s)
        _put_parts(store, f"dr10/{name}-parts.fits", [1000], -ahead_s)
    far = _put(store, "dr10/again.fits", age_s=-1000 * HOUR)
    mark_used(far)
    assert prune(location, 100, keep_since_s=NOW - 60) < 4000
    assert _held(location) == ["dr10/again.fits", "dr10/near-parts.fits", "dr10/near.fits"]


def test_using_a_file_in_parts_keeps_it(location, store):
    runs = _put_parts(store, "dr10/parts.fits", [1000], 9 * HOUR)
    _put(store, "dr10/new.fits", age_s=HOUR)
    mark_used(runs.folder / VERSION_FILE)
    prune(location, 1500, keep_since_s=NOW + HOUR)
    assert _held(location) == ["dr10/parts.fits"]
    assert store.runs("dr10/parts.fits").holding(0, 1000)[1] == b"y" * 1000


def test_what_is_in_use_stays_whatever_the_size(location, store):
    _put(store, "dr10/now.fits", 5000, 0.0)
    _put(store, "dr10/then.fits", 5000, HOUR)
    assert prune(location, 100, keep_since_s=NOW - 60) == 5000
    assert _held(location) == ["dr10/now.fits"]


def test_a_limit_of_zero_is_none(location, store):
    _put(store, "dr10/a.fits", 5000, HOUR)
    assert keep_within(location, 0)
    assert _held(location) == ["dr10/a.fits"]


def test_the_cache_is_counted_once_and_then_noted(location, store):
    _put(store, "dr10/a.fits", 1000, HOUR)
    assert keep_within(location, 10_000)
    assert (location / USAGE_FILE).read_text().split()[0] == "1000"
    # Another's file is not seen while the note is fresh; what this process writes is added.
    (store.root / "dr10" / "unseen.fits").write_bytes(b"z" * 50)
    _put(store, "dr10/b.fits", 2000, HOUR)
    assert keep_within(location, 10_000)
    assert (location / USAGE_FILE).read_text().split()[0] == "3000"
    _put(store, "dr10/c.fits", 9000, 2 * HOUR)
    assert keep_within(location, 10_000)
    assert _held(location) == ["dr10/a.fits", "dr10/b.fits", "dr10/unseen.fits"]


WRITTEN = """
import sys
from pathlib import Path
from astroquery_lis.io.store import keep_within
from astroquery_lis.io.whole_files import keep_bytes
keep_bytes(Path(sys.argv[1], "official", "dr10", sys.argv[2]), bytes(3000))
assert keep_within(sys.argv[1], 10_000_000)
"""


def test_what_a_process_writes_before_it_looks_first_counts(location, store):
    for name in "abc":
        words = [sys.executable, "-c", WRITTEN, str(location), name]
        subprocess.run(words, check=True, timeout=120)
    assert (location / USAGE_FILE).read_text().split()[0] == "9000"


@pytest.mark.parametrize("note", ["", "12", "many bytes\n", "5 0\n", "5 9999999999\n"])
def test_a_torn_or_old_note_is_counted_anew(location, store, note):
    _put(store, "dr10/a.fits", 1000, HOUR)
    (location / USAGE_FILE).write_text(note)
    assert keep_within(location, 10_000)
    assert (location / USAGE_FILE).read_text().split()[0] == "1000"


def test_where_nothing_can_be_written_nothing_is_pruned(tmp_path):
    (tmp_path / "file").write_text("")
    assert keep_within(tmp_path / "file" / "cache", 1.0)


def _fill(location, number):
    store = Store(location / "official")
    for i in range(40):
        _put(store, f"dr10/{number}-{i}.fits", 1000, HOUR)
        keep_within(location, 20_000)


def test_processes_that_fill_one_cache_keep_within_its_limit(location):
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        pool.starmap(_fill, [(location, number) for number in range(3)])
    # Each may be ahead of its last note by a part of the limit.
    assert sum(entry.size for entry in cache_entries(location)) <= 1.2 * 20_000


def test_clearing_by_age_and_release(location, store):
    for release in ("dr9", "dr10"):
        _put(store, f"{release}/old.fits", age_s=9 * HOUR)
        _put(store, f"{release}/new.fits")
    store.remember("dr9/old.fits", Origin("http://x", Version(1000), "00"))
    assert clear_stores(location, used_before_s=NOW - HOUR, release="dr9") == 1000
    assert _held(location) == ["dr10/new.fits", "dr10/old.fits", "dr9/new.fits"]
    assert store.origin("dr9/old.fits") is None
    assert clear_stores(location, used_before_s=NOW - HOUR) == 1000
    assert clear_stores(location, release="dr9") == 1000
    assert clear_stores(location) == 1000
    assert _held(location) == []


def test_clearing_while_another_thread_fills(location, store):
    stop = threading.Event()

    def fill():
        number = 0
        while not stop.is_set():
            number += 1
            # The folder may go at any moment; that is the writer's business.
            with suppress(OSError):
                _put(store, f"dr10/{number % 7}/{number}.fits", 10)

    with ThreadPoolExecutor(2) as pool:
        filling = [pool.submit(fill) for _ in range(2)]
        for _ in range(8):
            with suppress(CacheError):
                clear_stores(location)
        stop.set()
        for future in filling:
            future.result()
    clear_stores(location)
    assert _held(location) == []


def test_damaged_runs_are_found(location, store):
    runs = _put_parts(store, "dr10/a.fits", [100, 200, 300])
    entry = next(iter(cache_entries(location)))
    assert damaged_runs(entry) == []
    bad = sorted(runs.folder.glob("*-*-*"))[1]
    bad.write_bytes(b"n" * bad.stat().st_size)
    assert damaged_runs(entry) == [bad]


def test_an_origin_survives_and_a_torn_one_is_unknown(store):
    origin = Origin("http://x/a.fits", Version(5, '"e"', "Mon, 01 Jan 2024 00:00:00 GMT"), "ab")
    assert store.origin("dr10/a.fits") is None
    store.remember("dr10/a.fits", origin)
    assert store.origin("dr10/a.fits") == origin
    for torn in ("", "{", "[]", '{"url": 1}'):
        next(store.root.rglob("a.fits.json")).write_text(torn)
        assert store.origin("dr10/a.fits") is None


def test_the_disk_is_not_filled(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_space(tmp_path, 1, margin_bytes=0)
    with pytest.raises(CacheError, match="GB are free on its disk"):
        check_space(tmp_path, 2 * free, margin_bytes=0)
    with conf.set_temp("disk_margin", 2 * free / GB):
        with pytest.raises(CacheError, match=r"conf\.disk_margin keeps free"):
            write_bytes(tmp_path / "x", b"x")
        write_bytes(tmp_path / "y", b"y", margin_bytes=0)
    assert [path.name for path in tmp_path.iterdir()] == ["y"]


def test_a_write_that_fails_leaves_nothing(tmp_path):
    path = tmp_path / "x"
    path.write_text("before")

    def write_half():
        with write_whole(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "before"
    with pytest.raises(CacheError, match="Is a directory"), write_whole(tmp_path) as temporary:
        temporary.write_text("two")
    with write_whole(path, locked=False) as temporary:
        assert not temporary.exists()
    assert path.read_text() == "before"
    for how in ({}, {"locked": False}, {"synced": True}):
        with write_whole(path, **how) as temporary:
            temporary.write_text(str(how))
        assert path.read_text() == str(how)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    path = tmp_path / "x.fits"
    path.write_text("whole")
    for name in (
        ".astroquery_lis-dead.tmp",
        "x.fits.0123abcd.part",
        "x.fits.0123abcd.part.json",
        "y.fits.1.part",
    ):
        (tmp_path / name).write_text("")
    with write_whole(tmp_path / "z") as living:
        living.write_bytes(b"z")
        remove_leftovers(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.fits", "y.fits.1.part", "z"]


def test_a_copy_is_checked_first(served_sky, tmp_path):
    source = next(served_sky.root.rglob("*nexp-g*"))
    copy_whole(source, tmp_path / "a" / source.name)
    copy = tmp_path / "a" / source.name
    assert copy.read_bytes() == source.read_bytes()
    assert int(copy.stat().st_mtime) == int(source.stat().st_mtime)
    copy.write_bytes(copy.read_bytes()[:-2880])
    with pytest.raises(Exception, match="its HDUs need"):
        copy_whole(copy, tmp_path / "b" / source.name)
    with pytest.raises(Exception, match="cannot be read"):
        copy_whole(tmp_path / "nothing.fits", tmp_path / "b" / "nothing.fits")
    assert not (tmp_path / "b").exists()
