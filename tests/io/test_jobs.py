"""Journal, executors, manifest: what must hold when processes die."""

import io
import json
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from mmap import mmap
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from astroquery_lis import conf
from astroquery_lis.exceptions import InvalidRequestError, NoCoverageError, ServiceDownError
from astroquery_lis.io import workers
from astroquery_lis.io.jobs import STATUSES, Progress, Result, bar, failure, portable, run
from astroquery_lis.io.journal import Journal, manifest
from astroquery_lis.io.workers import map_jobs, settings_in_force

CALL = {"size": [256, 256], "bands": None}


def square(value):
    return value * value


def settings_of_worker(_):
    return os.getpid(), conf.timeout, conf.release


def variable_of_worker(name):
    return os.environ.get(name)


def die_once(folder, job):
    """Kill this process the first time that job 3 is done."""
    marker = Path(folder, "died")
    if job == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def die_always(job):
    if job == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def two_rows(job):
    if job == 1:
        raise ValueError("job 1 cannot be done")
    return [Result(2 * job, "COMPLETE"), Result(2 * job + 1, "NODATA", message="nothing")]


def rows_failed(job, error):
    return [failure(2 * job, error), failure(2 * job + 1, error)]


# ---- manifest ----------------------------------------------------------------------------------


def test_the_manifest_has_masts_columns_and_one_row_per_row():
    results = [
        Result(2, "NODATA", message="none", id="c"),
        Result(0, "ERROR", message="down", id="a"),
        Result(1, "COMPLETE", "x.fits", url="http://x", id="b", seconds=0.5, bytes=3, sha256="ff"),
        Result(0, "COMPLETE", "y.fits", id="a"),
    ]
    table = manifest(results)
    assert table.colnames == [
        *("Local Path", "Status", "Message", "URL"),
        *("id", "release", "region", "bands", "seconds", "bytes", "sha256"),
    ]
    assert list(table["id"]) == ["a", "b", "c"]
    assert list(table["Status"]) == ["COMPLETE", "COMPLETE", "NODATA"]
    assert list(table["Message"]) == ["", "", "none"]
    assert table["bytes"].dtype == np.int64
    assert set(table["Status"]) <= set(STATUSES)
    assert manifest([]).colnames == table.colnames
    assert manifest([Result(0, "COMPLETE", id=17)])["id"].dtype.kind == "i"


def test_a_manifest_holds_names_of_files_that_are_no_text():
    path = os.fsdecode(b"caf\xe9.fits")
    results = [Result(0, "COMPLETE", path), Result(1, "COMPLETE", "\u00e9\ud800.fits")]
    assert list(manifest(results)["Local Path"]) == [result.local_path for result in results]


LONG = "a reason of many words, " * 500


def _long_journal(path, n=500):
    """A journal whose manifest is larger than what is kept in memory, with some rows done twice."""
    rows = np.random.default_rng(5).permutation(n).tolist()
    results = [Result(row, "COMPLETE", f"{row}.fits", id=2**63 + row, bytes=row) for row in rows]
    first = [failure(row, ServiceDownError(2 * LONG), id=2**63 + row) for row in rows[:100]]
    with Journal(path, CALL) as journal:
        journal.append(*first, *results[:-1])
        journal.append(Result(rows[-1], "NODATA", message=LONG, id=2**63 + rows[-1]))
        return journal.manifest("observed"), rows[-1]


def _check_long(table, last, n=500):
    assert table["id"].tolist() == [2**63 + row for row in range(n)]
    assert table["Local Path"].tolist() == ["" if r == last else f"{r}.fits" for r in range(n)]
    assert table["bytes"].tolist() == [0 if row == last else row for row in range(n)]
    assert (table["Status"] == "NODATA").tolist() == [row == last for row in range(n)]
    assert table["Message"][last] == LONG
    assert table["Message"].dtype == np.array(LONG).dtype
    assert [table[name].dtype.kind for name in ("Message", "id", "observed")] == ["U", "u", "U"]


def _memory_of(table):
    memory = table["Message"]
    while isinstance(memory, np.ndarray):
        memory = memory.base
    return memory


def test_a_manifest_that_is_not_in_memory_is_a_table_like_others(tmp_path):
    table, last = _long_journal(tmp_path / "journal.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["journal.jsonl"]
    assert isinstance(_memory_of(table), mmap)
    _check_long(table, last)
    _check_long(pickle.loads(pickle.dumps(table)), last)
    table["Message"][0] = "mine"
    table.remove_row(1)
    assert table["Message"][0] == "mine"
    assert len(table) == 499


def test_a_manifest_leaves_the_room_on_the_disk_that_the_user_keeps_free(tmp_path):
    with conf.set_temp("disk_margin", 1e9):
        table, last = _long_journal(tmp_path / "journal.jsonl")
    assert not isinstance(_memory_of(table), mmap)
    _check_long(table, last)


def test_a_manifest_that_the_disk_does_not_take_is_in_memory(tmp_path):
    resource = pytest.importorskip("resource")
    _long_journal(tmp_path / "journal.jsonl")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(tmp_path / "journal.jsonl", CALL) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, hard))
        try:
            table = journal.manifest("observed")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (last,) = np.flatnonzero(table["Status"] == "NODATA")
    _check_long(table, last)


MANIFEST = """
import sys
from astropy.table import Table
from astroquery_lis.io.jobs import Result
from astroquery_lis.io.journal import Journal
from astroquery_lis.io.processes import peak_memory_gb

with Journal(sys.argv[1], {}) as journal:
    for start in range(0, 60_000, 1000):
        rows = ((row * 7919) % 60_000 for row in range(start, start + 1000))
        journal.append(*[Result(row, "COMPLETE", "x" * 100, "y" * 100, "z" * 100) for row in rows])
    before = peak_memory_gb()
    table = journal.manifest()
    size = sum(table[name].nbytes for name in table.colnames)
    print(peak_memory_gb() - before, size / 2**30)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told there")
def test_the_manifest_of_a_long_job_takes_little_memory(tmp_path):
    run = [sys.executable, "-c", MANIFEST, tmp_path / "journal.jsonl"]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    grown, size = map(float, done.stdout.split())
    assert grown < size / 4


def test_errors_travel_between_processes():
    class Local(Exception):  # noqa: N818 - its name does not matter
        """Cannot be pickled: it is not importable."""

    error = ServiceDownError("no answer", url="http://x", status=503, cause=Local("why"))
    sent = portable(error)
    assert type(sent) is ServiceDownError
    assert (str(sent), sent.url, sent.status, sent.cause) == ("no answer", "http://x", 503, None)
    assert str(portable(Local("mine"))) == "mine"
    assert failure(4, error).message == "ServiceDownError: no answer"


# ---- journal -----------------------------------------------------------------------------------


def test_a_journal_continues_where_it_was(tmp_path):
    path = tmp_path / "new" / "journal.jsonl"
    with Journal(path, CALL) as journal:
        journal.append(Result(0, "COMPLETE", id=0, bytes=7))
        journal.append(Result(1, "ERROR", message="down", id=np.int64(1)))
        journal.append(Result(2, "NODATA", id="ä"))
    with Journal(path, CALL) as journal:
        assert journal.finished == {0, 2}
        journal.append(Result(1, "COMPLETE", id=1))
        assert journal.finished == {0, 1, 2}
        found = list(journal.results())
    assert found[0] == Result(0, "COMPLETE", id=0, bytes=7)
    assert [result.row for result in found] == [0, 1, 2, 1]
    assert list(manifest(found)["Status"]) == ["COMPLETE", "COMPLETE", "NODATA"]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_is_done_again(tmp_path, cut):
    path = tmp_path / "journal.jsonl"
    with Journal(path, CALL) as journal:
        journal.append(Result(0, "COMPLETE"))
        journal.append(Result(1, "COMPLETE"))
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path, CALL) as journal:
        assert journal.finished == {0}
        journal.append(Result(1, "COMPLETE"))
    lines = path.read_bytes().splitlines()
    assert [json.loads(line).get("row") for line in lines] == [None, 0, 1]


def test_a_torn_first_line_is_no_job_yet(tmp_path):
    path = tmp_path / "journal.jsonl"
    Journal(path, CALL).close()
    path.write_bytes(path.read_bytes()[:-3])
    with Journal(path, {"size": 1}) as journal:
        assert not journal.finished
    assert json.loads(path.read_text())["call"] == {"size": 1}


def test_a_row_whose_file_is_gone_is_not_finished(tmp_path):
    file = tmp_path / "0.fits"
    file.touch()
    with Journal(tmp_path / "journal.jsonl", CALL) as journal:
        journal.append(Result(0, "COMPLETE", str(file)))
        journal.append(Result(1, "COMPLETE", str(tmp_path / "1.fits")))
    with Journal(tmp_path / "journal.jsonl", CALL) as journal:
        assert journal.finished == {0}


def test_another_call_is_refused_and_the_difference_named(tmp_path):
    path = tmp_path / "journal.jsonl"
    Journal(path, CALL).close()
    with pytest.raises(InvalidRequestError, match=r'bands was null and is now "grz"') as caught:
        Journal(path, {**CALL, "bands": "grz"})
    assert caught.value.parameter == "bands"
    path.write_text("something else\n")
    with pytest.raises(InvalidRequestError, match="is not a journal of this version"):
        Journal(path, CALL)
    assert path.read_text() == "something else\n"


def test_two_runs_in_one_folder_are_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    with (
        Journal(path, CALL),
        pytest.raises(InvalidRequestError, match="Another process is at work in"),
    ):
        Journal(path, CALL)
    Journal(path, CALL).close()


# ---- executors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", [None, "threads", "processes"])
def test_every_job_comes_back_once(executor):
    found = sorted(map_jobs(square, range(30), executor=executor))
    assert found == [(n, n * n, None) for n in range(30)]


def test_an_executor_that_is_given_stays_open():
    with ThreadPoolExecutor(2) as executor:
        assert len(list(map_jobs(square, range(5), executor=executor))) == 5
        assert executor.submit(square, 3).result() == 9


def test_jobs_are_taken_as_workers_become_free():
    taken = 0

    def jobs():
        nonlocal taken
        while taken < 1000:
            taken += 1
            yield taken

    for number, _ in enumerate(map_jobs(square, jobs(), in_flight=3), start=1):
        assert taken <= number + 3
    assert number == 1000


def test_what_is_no_executor_is_refused_before_work():
    for wrong in ("thread", 4):
        with pytest.raises(InvalidRequestError, match="concurrent.futures.Executor.*threads"):
            map_jobs(square, range(3), executor=wrong)


def test_an_error_of_a_job_leaves_the_others_alone():
    found = {job: (value, error) for job, value, error in map_jobs(two_rows, range(3))}
    assert str(found[1][1]) == "job 1 cannot be done"
    assert found[2][0][0].row == 4


def test_workers_have_the_settings_of_the_caller():
    with conf.set_temp("timeout", 12.5), conf.set_temp("release", "dr9"):
        for _, value, _ in map_jobs(settings_of_worker, [0], executor="processes"):
            pid, timeout, release = value
            assert pid != os.getpid()
            assert (timeout, release) == (12.5, "dr9")
        assert settings_in_force()["timeout"] == 12.5


def test_workers_have_the_variables_of_the_caller(monkeypatch):
    name = "ASTROQUERY_LIS_TEST_PROXY"
    for value in ("first", "second", None):
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
        ((_, of_worker, error),) = map_jobs(variable_of_worker, [name], executor="processes")
        assert (of_worker, error) == (value, None)


def test_a_killed_worker_is_replaced(tmp_path):
    found = list(map_jobs(partial(die_once, str(tmp_path)), range(12), executor="processes"))
    assert (tmp_path / "died").exists()
    assert sorted(found) == [(n, n, None) for n in range(12)]


def test_a_job_that_always_kills_its_worker_takes_no_other_with_it():
    found = {job: error for job, _, error in map_jobs(die_always, range(8), executor="processes")}
    assert set(found) == set(range(8))
    assert [job for job, error in found.items() if error is not None] == [3]


def test_a_pool_of_the_users_that_breaks_is_told():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        mapped = map_jobs(die_always, [3], executor=executor)
        found = [(job, type(error).__name__) for job, _, error in mapped]
    assert found == [(3, "BrokenProcessPool")]


SCRIPT = """
import operator
from astroquery_lis.io.workers import map_jobs

print(sorted(value for _, value, _ in map_jobs(operator.neg, range(4), executor="processes")))
"""


def test_processes_work_from_a_script_without_a_guard(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "[-3, -2, -1, 0]\n", done.stderr


# ---- runs --------------------------------------------------------------------------------------


class _Records(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.fixture
def told():
    from astropy import log

    handler = _Records()
    log.addHandler(handler)
    yield handler.lines
    log.removeHandler(handler)


def test_a_run_tells_what_became_of_every_row(tmp_path, told, capfd):
    with Journal(tmp_path / "journal.jsonl", CALL) as journal:
        options = {"failed": rows_failed, "total": 7, "journal": journal}
        results = list(run(two_rows, range(3), ready=[Result(6, "SKIPPED")], **options))
        kept = journal.manifest()
        assert list(manifest(results)["Status"]) == list(kept["Status"])
    assert sorted((r.row, r.status) for r in results) == [
        (0, "COMPLETE"),
        (1, "NODATA"),
        (2, "ERROR"),
        (3, "ERROR"),
        (4, "COMPLETE"),
        (5, "NODATA"),
        (6, "SKIPPED"),
    ]
    assert len(told) == 1
    assert "7 rows: 2 complete, 1 skipped, 2 without data, 2 failed, in" in told[0]
    # There is no bar where stderr is no terminal.
    assert "%" not in capfd.readouterr().err


def a_terminal(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


@pytest.mark.parametrize("has_tqdm", [True, False])
def test_a_terminal_gets_a_bar_if_tqdm_is_there(monkeypatch, has_tqdm):
    if has_tqdm:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    terminal = a_terminal(monkeypatch)
    options = {"failed": rows_failed, "total": 4, "label": "things"}
    assert len(list(run(two_rows, [0, 2], **options))) == 4
    assert ("things: 100%" in terminal.getvalue()) == has_tqdm
    terminal.truncate(0)
    list(run(two_rows, [0, 2], show_progress=False, **options))
    assert "%" not in terminal.getvalue()


def test_a_bar_tells_what_is_being_done(monkeypatch):
    pytest.importorskip("tqdm")
    terminal = a_terminal(monkeypatch)
    progress = Progress(4, done=1, label="tasks")
    progress.note("jump")
    progress.update()
    progress.close()
    assert "tasks:  50%" in terminal.getvalue()
    assert "jump]" in terminal.getvalue()


def test_a_notebook_gets_a_bar(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert bar(total=4) is None
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    bar(total=4).close()
    assert "0/4" in sys.stderr.getvalue()


def test_the_first_error_ends_a_run_that_shall_raise(tmp_path, told):
    with Journal(tmp_path / "journal.jsonl", CALL) as journal:
        results = run(
            two_rows,
            [0, 1, 2],
            failed=rows_failed,
            total=6,
            journal=journal,
            on_error="raise",
            in_flight=1,
        )
        with pytest.raises(ValueError, match="job 1 cannot be done"):
            list(results)
        assert journal.finished == {0, 1}
    assert "not begun" in told[0]


def test_a_row_without_data_is_no_failure():
    def nothing(job):
        return [Result(job, "NODATA", message=str(NoCoverageError("none")))]

    results = run(nothing, [0], failed=rows_failed, total=1, on_error="raise")
    assert [r.status for r in results] == ["NODATA"]


class _Holding(ThreadPoolExecutor):
    """Keeps jobs back until somebody stops waiting for them."""

    def submit(self, function, *args):
        future = Future()
        self.held = [*getattr(self, "held", []), future]
        if len(self.held) == 1:
            future.set_result(function(*args))
        return future


def test_what_is_left_when_the_caller_goes_is_cancelled():
    executor = _Holding(1)
    mapped = map_jobs(square, range(100), executor=executor, in_flight=4)
    assert next(mapped) == (0, 0, None)
    mapped.close()
    assert [future.cancelled() for future in executor.held[1:]] == [True] * 3
    executor.shutdown()


def test_a_journal_survives_many_threads(tmp_path):
    threads_seen = set()

    def work(job):
        threads_seen.add(threading.get_ident())
        return [Result(job, "COMPLETE", id=job)]

    with Journal(tmp_path / "journal.jsonl", CALL) as journal:
        for _ in run(work, range(500), failed=rows_failed, total=500, journal=journal):
            pass
    with Journal(tmp_path / "journal.jsonl", CALL) as journal:
        assert journal.finished == set(range(500))
        assert len(journal.manifest()) == 500


@pytest.mark.parametrize(
    ("quota", "expected"), [("150000 100000", 1), ("20000 100000", 1), ("max 100000", None)]
)
def test_cores_are_those_that_the_container_may_use(monkeypatch, tmp_path, quota, expected):
    monkeypatch.setattr(workers, "CPU_QUOTA", tmp_path / "none")
    all_of_them = workers.cores()
    assert all_of_them >= 1
    monkeypatch.setattr(workers, "CPU_QUOTA", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert workers.cores() == (expected or all_of_them)
