"""A run in trouble: what fails fails alone, is named, and is what the next run makes again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from dataclasses import replace
from pathlib import Path

import pytest
from astropy.io import fits

from astroquery_lis import conf
from astroquery_lis.exceptions import (
    CacheError,
    CrdsUnavailable,
    InvalidRequestError,
    StageWarning,
    TaskError,
)
from astroquery_lis.jwst_stage import states
from astroquery_lis.jwst_stage.corrections import normalise
from astroquery_lis.jwst_stage.crds_cache import CrdsEnvironment
from astroquery_lis.jwst_stage.running.progress import (
    Lock,
    read_live,
    scratch_root,
    status,
    write_live,
)
from astroquery_lis.jwst_stage.tasks import Reduction, Task, log_path, read_record, write_record

from .conftest import await_

pytest.importorskip("jwst")


def do(plan, resolution, output_dir, **options):
    from astroquery_lis.jwst_stage.running.run import run

    options = {"show_progress": False, **options}
    return run(Reduction(plan, output_dir, resolution), **options)


def copies(observation, folder):
    folder.mkdir()
    paths = []
    for path in observation.uncals:
        paths.append(folder / path.name)
        paths[-1].write_bytes(path.read_bytes())
    return paths


def running_pid(output_dir, task):
    """Return the process of a task once it is in the middle of a step."""
    told = read_live(output_dir).get("tasks", {}).get(task, {})
    try:
        step = json.loads((scratch_root(output_dir) / told["scratch"] / "step.json").read_text())
    except (OSError, KeyError, ValueError):
        return None
    return step["pid"] if step["step"] == "jump" else None


class Troubled:
    """A run in which one input is cut off, one has a filter without calibration, one is killed."""

    def __init__(self, observation, planned, folder):
        self.files = copies(observation, folder / "uncal")
        fits.setval(self.files[1], "FILTER", value="F480M")
        self.output_dir = folder / "reduced"
        self.plan, self.resolution = planned(
            self.files,
            output_dir=self.output_dir,
            # No flat is there for that filter either.
            steps={"F480M": {"flat_field": {"skip": True}}},
        )
        self.names = [task.name for task in self.plan.tasks]
        with open(self.files[0], "r+b") as file:
            file.truncate(self.files[0].stat().st_size * 3 // 5)
        self.seen = []
        killer = threading.Thread(target=self._kill_once, daemon=True)
        killer.start()
        with pytest.warns(StageWarning) as self.warnings:
            self.manifest = do(
                self.plan, self.resolution, self.output_dir, partial=True, max_workers=2
            )
        killer.join(60)
        self.rows = {row["task"]: row for row in self.manifest}

    def _kill_once(self):
        pid = await_(lambda: running_pid(self.output_dir, self.names[2]))
        self.seen.append(status(self.output_dir))
        os.kill(pid, signal.SIGKILL)
        self.seen.append(pid)

    def row(self, ending):
        (found,) = (row for name, row in self.rows.items() if name.endswith(ending))
        return found


@pytest.fixture(scope="module")
def troubled(observation, planned, tmp_path_factory):
    return Troubled(observation, planned, tmp_path_factory.mktemp("troubled"))


def test_the_others_go_on(troubled):
    statuses = list(troubled.manifest["Status"])
    assert statuses[:4] == ["ERROR", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert statuses[4:8] == ["SKIPPED", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert set(statuses[8:]) == {"COMPLETE"}


def test_truncated_input_is_named(troubled):
    row = troubled.row("00001_nrcalong_rate.fits")
    assert row["failure"] == "data"
    assert "InvalidExposureError" in row["Message"]
    assert troubled.files[0].name in row["Message"]
    assert "fetch it again" in row["Message"]
    assert row["Local Path"] == ""
    assert not (troubled.output_dir / row["task"]).exists()
    record = read_record(troubled.output_dir, row["task"])
    assert (record.state, record.kind_of_failure) == ("failed", "data")
    assert troubled.files[0].name in log_path(row["task"], troubled.output_dir).read_text()


def test_what_needs_it_is_skipped(troubled):
    row = troubled.row("00001_nrcalong_cal.fits")
    assert row["Message"] == f"not made: {troubled.names[0]} failed"
    assert row["failure"] == ""


def test_killed_worker_is_begun_again(troubled):
    before, pid = troubled.seen
    row = troubled.row("00003_nrcalong_rate.fits")
    assert row["Status"] == "COMPLETE"
    assert "Begun again, alone, since Killed: the process was ended by signal 9." in row["Message"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert before.meta["state"] == "running"


def test_status_while_it_runs(troubled):
    table = troubled.seen[0]
    (row,) = table[table["task"] == troubled.names[2]]
    assert row["state"] == "running"
    assert row["step"] == "jump"
    assert "waiting" in table["state"]
    assert table.meta["pid"] == os.getpid()
    assert table.meta["workers"] == 2


def test_stage_3_without_the_one_that_failed(troubled):
    row = troubled.row("clear-f356w-sub160_i2d.fits")
    assert row["Status"] == "COMPLETE"
    assert row["Message"] == f"made without {troubled.names[4]}"
    with fits.open(row["Local Path"]) as hdul:
        assert len(hdul["HDRTAB"].data) == 2


# S_PHOTOM is COMPLETE though no row of PHOTOM has the filter.
def test_photom_without_effect(troubled):
    row = troubled.row("00002_nrcalong_cal.fits")
    header = fits.getheader(row["Local Path"])
    assert header["S_PHOTOM"] == "COMPLETE"
    assert row["Status"] == "COMPLETE"
    assert row["checks"] == "whole ok; photom no effect"
    assert "S_PHOTOM = COMPLETE, but the pixels were not calibrated" in row["Message"]
    assert "no row for FILTER = F480M" in row["Message"]
    assert "override_photom" in row["Message"]
    told = str(troubled.warnings.list[0].message)
    assert row["task"] in told
    assert "not calibrated" in told


def test_alignment_of_a_single_exposure_is_said_to_have_failed(troubled):
    row = troubled.row("clear-f480m-sub160_i2d.fits")
    assert fits.getheader(row["Local Path"])["S_TWKREG"] == "FAILED"
    assert "S_TWKREG = FAILED" in row["Message"]


def test_status_afterwards(troubled):
    table = status(troubled.output_dir)
    states = dict(zip(table["task"], table["state"], strict=True))
    assert states[troubled.names[0]] == "failed"
    assert states[troubled.names[4]] == "skipped"
    assert table.meta["state"] == "finished"
    assert table.meta["ended"] >= table.meta["started"]
    assert troubled.files[0].name in table["message"][0]


# CRDS ends the process with SystemExit, for which a multiprocessing.Pool waits for ever.
def test_system_exit_of_crds(chain, tmp_path):
    environment = CrdsEnvironment(str(tmp_path / "empty"), "jwst_0001.pmap")
    resolution = replace(chain.resolution, environment=environment)
    manifest = do(chain.plan, resolution, tmp_path / "reduced")
    assert list(manifest["Status"]) == ["ERROR"] * 4 + ["SKIPPED"] * 5
    assert set(manifest["failure"][:4]) == {"reference"}
    for message in manifest["Message"][:4]:
        assert message.startswith("CrdsUnavailable: ")
        assert "prefetch_references" in message
    assert set(status(tmp_path / "reduced")["state"]) == {"failed", "skipped"}


def test_a_full_disk_is_told_before_anything_runs(chain, tmp_path):
    with conf.set_temp("disk_margin", 1e9), pytest.raises(CacheError, match="are due beside"):
        do(chain.plan, chain.resolution, tmp_path / "out")
    assert not list((tmp_path / "out").glob("stage*"))


def test_missing_references_are_told_before_anything_runs(chain, tmp_path):
    resolution = replace(chain.resolution, missing=("jwst_nircam_dark_0001.fits",))
    with pytest.raises(CrdsUnavailable, match="dark_0001.*prefetch_references") as caught:
        do(chain.plan, resolution, tmp_path)
    assert caught.value.missing == ("jwst_nircam_dark_0001.fits",)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"executor": "threads"}, "executor='threads' must be a concurrent.futures.Executor"),
        ({"max_workers": 0}, "max_workers=0 must be a number of processes, 1 at least"),
        ({"max_workers": True}, "max_workers=True must be"),
        ({"on_error": "stop"}, "on_error='stop' is not one of: record, raise"),
    ],
)
def test_wrong_arguments(chain, tmp_path, options, match):
    with pytest.raises(InvalidRequestError, match=match):
        do(chain.plan, chain.resolution, tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_one_run_at_a_time(chain, tmp_path):
    with (
        Lock(tmp_path),
        pytest.raises(InvalidRequestError, match="another run is at work there"),
    ):
        do(chain.plan, chain.resolution, tmp_path)


def stage1(plan, count):
    """The plan with some of its exposures, as far as stage 1."""
    tasks = tuple(task for task in plan.tasks if task.stage == 1)[:count]
    return replace(plan, tasks=tasks)


class Losing(Executor):
    """An executor that loses whatever it is given."""

    def __init__(self):
        self.count = 0

    def submit(self, *args, **kwargs):
        self.count += 1
        future = Future()
        future.set_exception(BrokenExecutor("a worker died"))
        return future


def test_executor_that_loses_tasks(chain, tmp_path):
    executor = Losing()
    manifest = do(stage1(chain.plan, 2), chain.resolution, tmp_path, executor=executor)
    assert list(manifest["Status"]) == ["ERROR"] * 2
    assert set(manifest["failure"]) == {"killed"}
    assert "the executor lost the task: BrokenExecutor('a worker died')" in manifest["Message"][0]
    # Each once more.
    assert executor.count == 4


def test_a_first_run_reads_each_file_once_for_its_digest(chain, tmp_path, monkeypatch):
    read, digest = [], states.content_digest

    def counted(path):
        read.append(str(path))
        return digest(path)

    monkeypatch.setattr(states, "content_digest", counted)
    plan = stage1(chain.plan, 2)
    do(plan, chain.resolution, tmp_path, executor=Losing())
    assert sorted(read) == sorted(task.inputs[0] for task in plan.tasks)


class Meddling(Losing):
    """An executor that calls a function before the first task."""

    def __init__(self, meddle):
        super().__init__()
        self._meddle = meddle
        self.jobs = []

    def submit(self, function, job, *args):
        self.jobs.append(job)
        if len(self.jobs) == 1:
            self._meddle()
        return super().submit(function, job, *args)


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_input_that_is_replaced_before_its_task_begins(
    observation, planned, tmp_path, overwrite
):
    files, output_dir = copies(observation, tmp_path / "uncal"), tmp_path / "reduced"
    plan, resolution = planned(files, output_dir=output_dir)
    plan = stage1(plan, 2)
    old = states.content_digest(files[1])
    executor = Meddling(lambda: fits.setval(files[1], "TARGPROP", value="another"))
    options = {"executor": executor, "max_workers": 1, "overwrite": overwrite}
    do(plan, resolution, output_dir, **options)
    new = states.content_digest(files[1])
    inputs = [job["record"]["fingerprint"]["inputs"] for job in executor.jobs]
    assert new != old
    assert inputs[-1] == {files[1].name: new}
    # The digests of both files are kept for the next run.
    digests = json.loads((output_dir / ".jwst_stage" / "digests.json").read_text())
    assert digests[str(files[1])][2] == new
    assert str(files[0]) in digests


def test_a_mosaic_of_fewer_members_that_is_there_is_not_made_again(chain, chain_copy):
    rate, cal = (next(t.name for t in chain.plan.tasks if t.stage == stage) for stage in (1, 2))
    mosaic = chain.plan.tasks[-1].name
    for name in (rate, cal, mosaic):
        (chain_copy / name).unlink()
    executor = Meddling(lambda: None)
    options = {"executor": executor, "partial": True}
    manifest = do(chain.plan, chain.resolution, chain_copy, **options)
    assert list(manifest["Status"][[0, -1]]) == ["ERROR", "ERROR"]
    job = executor.jobs[-1]
    assert job["task"]["name"] == mosaic
    assert cal not in job["record"]["fingerprint"]["inputs"]
    # As if that task had been done.
    shutil.copy2(chain.output_dir / mosaic, chain_copy / mosaic)
    fingerprint = job["record"]["fingerprint"]
    record = replace(read_record(chain.output_dir, mosaic), fingerprint=fingerprint)
    write_record(chain_copy, record)
    manifest = do(chain.plan, chain.resolution, chain_copy, **options)
    statuses = dict(zip(manifest["task"], manifest["Status"], strict=True))
    assert (statuses.pop(rate), statuses.pop(cal)) == ("ERROR", "SKIPPED")
    assert set(statuses.values()) == {"CACHED"}


def test_what_a_killed_run_told_is_not_told_of_the_next_one(chain, tmp_path, monkeypatch):
    plan = stage1(chain.plan, 1)
    running = {plan.tasks[0].name: {"state": "running", "scratch": "abc"}}
    write_live(tmp_path, {"state": "running", "started": "2026-01-01", "ended": ""}, running)
    seen, digest = [], states.content_digest

    def looked_at(path):
        seen.append(status(tmp_path))
        return digest(path)

    monkeypatch.setattr(states, "content_digest", looked_at)
    do(plan, chain.resolution, tmp_path, executor=Losing())
    assert seen[0].meta["state"] == "running"
    assert seen[0].meta["started"] > "2026-01-01"
    assert list(seen[0]["state"]) == ["waiting"]


@pytest.mark.slow
def test_first_error_ends_the_run_on_request(chain, tmp_path):
    environment = CrdsEnvironment(str(tmp_path / "empty"), "jwst_0001.pmap")
    resolution = replace(chain.resolution, environment=environment)
    with pytest.raises(TaskError, match=r"_rate.fits: CrdsUnavailable: .* The log is "):
        do(chain.plan, resolution, tmp_path / "reduced", on_error="raise")
    assert status(tmp_path / "reduced").meta["state"] == "interrupted"


@pytest.mark.slow
def test_partial_mosaic_is_kept_until_the_input_is_mended(troubled, observation):
    manifest = do(troubled.plan, troubled.resolution, troubled.output_dir, partial=True)
    statuses = dict(zip(manifest["task"], manifest["Status"], strict=True))
    assert statuses.pop(troubled.names[0]) == "ERROR"
    assert statuses.pop(troubled.names[4]) == "SKIPPED"
    assert set(statuses.values()) == {"CACHED"}
    (mosaic,) = (name for name in troubled.names if "f356w-sub160_i2d" in name)
    # Changed, and as long as before.
    fits.setval(troubled.output_dir / mosaic, "TARGPROP", value="x")
    manifest = do(troubled.plan, troubled.resolution, troubled.output_dir, partial=True)
    assert list(manifest["task"][manifest["Status"] == "COMPLETE"]) == [mosaic]
    troubled.files[0].write_bytes(observation.uncals[0].read_bytes())
    manifest = do(troubled.plan, troubled.resolution, troubled.output_dir)
    made = list(manifest["task"][manifest["Status"] == "COMPLETE"])
    assert made == [troubled.names[0], troubled.names[4], mosaic]
    with fits.open(troubled.output_dir / mosaic) as hdul:
        assert len(hdul["HDRTAB"].data) == 3


@pytest.mark.slow
def test_overwrite(chain, chain_copy):
    plan = stage1(chain.plan, 1)
    name = plan.tasks[0].name
    before = (chain_copy / name).stat().st_mtime_ns
    manifest = do(plan, chain.resolution, chain_copy, overwrite=True)
    assert list(manifest["Status"]) == ["COMPLETE"]
    assert (chain_copy / name).stat().st_mtime_ns > before
    assert manifest["key"][0] == chain.manifest["key"][0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_any_executor(chain, tmp_path, kind):
    count = 2 if kind is ThreadPoolExecutor else 1
    plan = stage1(chain.plan, count)
    with kind(2) as executor:
        manifest = do(plan, chain.resolution, tmp_path, executor=executor)
    assert list(manifest["Status"]) == ["COMPLETE"] * count
    assert list(manifest["key"]) == list(chain.manifest["key"][:count])
    assert min(manifest["memory_gb"]) > 0.1
    # A worker's process that is gone is not waited for.
    assert not scratch_root(tmp_path).exists()


SCRIPT = """
print("once")
from astroquery_lis.jwst_stage.crds_cache import CrdsEnvironment
from astroquery_lis.jwst_stage.planning import Plan
from astroquery_lis.jwst_stage.references import resolve
from astroquery_lis.jwst_stage.running.run import run
from astroquery_lis.jwst_stage.tasks import Reduction
plan = Plan.load({plan!r})
environment = CrdsEnvironment({crds!r}, {context!r})
resolution = resolve(plan, environment, offline=True)
manifest = run(Reduction(plan, {output_dir!r}, resolution))
print(",".join(manifest["Status"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["file", "stdin"])
def test_unguarded_script(chain, tmp_path, way):
    plan = tmp_path / "plan.toml"
    stage1(chain.plan, 1).save(plan)
    text = SCRIPT.format(
        plan=str(plan),
        crds=str(chain.observation.crds_path),
        context=chain.observation.crds_context,
        output_dir=str(tmp_path / "reduced"),
    )
    script = Path(tmp_path, "script.py")
    script.write_text(text)
    done = subprocess.run(
        [sys.executable, script if way == "file" else "-"],
        input=None if way == "file" else text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[0] == "once"
    assert done.stdout.count("once") == 1
    assert done.stdout.splitlines()[-1] == "COMPLETE", done.stderr


DASK_SCRIPT = """
import distributed
from dataclasses import replace
from astroquery_lis.jwst_stage.crds_cache import CrdsEnvironment
from astroquery_lis.jwst_stage.planning import Plan
from astroquery_lis.jwst_stage.references import resolve
from astroquery_lis.jwst_stage.running.run import run
from astroquery_lis.jwst_stage.tasks import Reduction
if __name__ == "__main__":
    plan = Plan.load({plan!r})
    environment = CrdsEnvironment({crds!r}, {context!r})
    resolution = resolve(plan, environment, offline=True)
    options = dict(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1")
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        manifest = run(Reduction(plan, {output_dir!r}, resolution), executor=client.get_executor()
        )
    print(",".join(manifest["Status"]))
"""


# In a process of its own: pytest-remotedata refuses the sockets of a cluster.
@pytest.mark.slow
def test_dask_executor(chain, tmp_path):
    pytest.importorskip("distributed")
    plan = tmp_path / "plan.toml"
    stage1(chain.plan, 2).save(plan)
    script = tmp_path / "script.py"
    script.write_text(
        DASK_SCRIPT.format(
            plan=str(plan),
            crds=str(chain.observation.crds_path),
            context=chain.observation.crds_context,
            output_dir=str(tmp_path / "reduced"),
        )
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["COMPLETE,COMPLETE"], done.stderr
    keys = [read_record(tmp_path / "reduced", task.name) for task in chain.plan.tasks[:2]]
    assert all(record.state == "done" for record in keys)


class Corrected:
    """A run of corrections, each of which ends in a way of its own."""

    def __init__(self, chain, folder):
        self.tries = folder / "tries"
        self.tries.mkdir()
        rate = chain.output_dir / chain.plan.tasks[0].name
        tasks = []
        for name in WAYS:
            given = (f"tests.jwst_stage.jobs:correct_{name}", {"tries": str(self.tries / name)})
            (correction,) = normalise([given])
            task = Task(
                name=f"stage1/jw_{name.replace('_', '')}.fits",
                stage=1,
                kind="correction",
                inputs=(str(rate),),
                outputs=(f"stage1/jw_{name.replace('_', '')}.fits",),
                corrections=(correction.to_dict(),),
                exposures=chain.plan.tasks[0].exposures,
            )
            tasks.append(task)
        plan = replace(chain.plan, tasks=tuple(tasks))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STPIPE_DISABLE_CRDS_STEPPARS", "true")
            patch.setenv("CRDS_SERVER_URL", "https://127.0.0.1:9")
            manifest = do(plan, chain.resolution, folder / "reduced", max_workers=3)
        self.rows = dict(zip(WAYS, manifest, strict=True))

    def count(self, name):
        return len((self.tries / name).read_text())


WAYS = {
    "well": ("COMPLETE", "", 1),
    "killed_once": ("COMPLETE", "", 2),
    "killed": ("ERROR", "killed", 2),
    "out_of_memory": ("ERROR", "memory", 2),
    "system_exit": ("ERROR", "code", 1),
    "hard_exit": ("ERROR", "reference", 1),
    "crash": ("ERROR", "code", 1),
    "wrong": ("ERROR", "code", 1),
}
"""What becomes of the task, what it is put down to, and how often it is begun."""


@pytest.fixture(scope="module")
def corrected(chain, tmp_path_factory):
    return Corrected(chain, tmp_path_factory.mktemp("corrected"))


@pytest.mark.parametrize("name", WAYS)
def test_each_end_is_known(corrected, name):
    row = corrected.rows[name]
    assert (row["Status"], row["failure"], corrected.count(name)) == WAYS[name], row["Message"]


def test_what_is_said_of_each_end(corrected):
    said = {name: row["Message"] for name, row in corrected.rows.items()}
    assert said["well"] == ""
    assert said["killed_once"].startswith("Begun again, alone, since Killed: ")
    assert "signal 9, also when it ran alone" in said["killed"]
    assert said["killed"].endswith("what is finished is kept.")
    assert "MemoryError: no memory was left" in said["out_of_memory"]
    assert "max_workers=1" in said["out_of_memory"]
    assert "a step ended the process: 3" in said["system_exit"]
    assert "CrdsUnavailable: CRDS - ERROR - (FATAL) cannot continue" in said["hard_exit"]
    assert "signal 11" in said["crash"]
    assert "RuntimeError: not like this" in said["wrong"]


# Two processes that fetch one reference file race for it; these may neither fetch nor write.
def test_environment_of_the_processes(corrected, chain):
    found = json.loads((corrected.tries / "well.json").read_text())
    assert found["CRDS_PATH"] == str(chain.observation.crds_path)
    assert found["CRDS_CONTEXT"] == chain.observation.crds_context
    assert found["CRDS_READONLY_CACHE"] == "1"
    assert found["OMP_NUM_THREADS"] == "1"
    assert "CRDS_SERVER_URL" not in found
    # With it, the parameters of CRDS would be left out without a trace.
    assert "STPIPE_DISABLE_CRDS_STEPPARS" not in found


def test_traceback_is_in_the_log(corrected):
    name = corrected.rows["wrong"]["task"]
    text = (Path(corrected.tries.parent, "reduced") / name).with_suffix(".log").read_text()
    assert "in correct_wrong" in text
