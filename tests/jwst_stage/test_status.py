"""The state of a run, read from its files by whoever asks."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from astroquery_lis.exceptions import InvalidRequestError, StageError
from astroquery_lis.jwst_stage.planning import Plan
from astroquery_lis.jwst_stage.running import progress
from astroquery_lis.jwst_stage.running.progress import (
    Lock,
    is_locked,
    make_manifest,
    now,
    read_live,
    scratch_root,
    status,
    step_of,
    write_live,
)
from astroquery_lis.jwst_stage.tasks import HIDDEN, Record, Reduction, Task, write_record

NAMES = ("stage1/a_rate.fits", "stage1/b_rate.fits", "stage2/a_cal.fits")


@pytest.fixture
def plan(tmp_path):
    tasks = tuple(
        Task(name=name, stage=int(name[5]), pipeline="Detector1Pipeline", outputs=(name,))
        for name in NAMES
    )
    plan = Plan(tasks=tasks)
    plan.save(tmp_path / HIDDEN / "plan.toml")
    return plan


def test_before_the_first_run(tmp_path):
    with pytest.raises(InvalidRequestError, match="no plan was run there"):
        status(tmp_path)


def test_plan_that_was_not_begun(plan, tmp_path):
    table = status(tmp_path)
    assert list(table["task"]) == list(NAMES)
    assert set(table["state"]) == {"waiting"}
    assert "state" not in table.meta


def begin(tmp_path):
    about = {
        "state": "running",
        "started": now(),
        "ended": "",
        "workers": 2,
        "context": "jwst_0001.pmap",
    }
    tasks = {
        NAMES[0]: {"state": "running", "scratch": "abc"},
        NAMES[1]: {"state": "failed", "message": "no luck"},
        NAMES[2]: {"state": "waiting"},
    }
    write_live(tmp_path, about, tasks)
    (scratch_root(tmp_path) / "abc").mkdir(parents=True)
    (scratch_root(tmp_path) / "abc" / "step.json").write_text(json.dumps({"step": "jump"}))


def test_while_it_runs(plan, tmp_path):
    write_record(tmp_path, Record(task=NAMES[1], state="failed", message="It broke."))
    with Lock(tmp_path):
        begin(tmp_path)
        table = status(tmp_path)
    assert list(table["state"]) == ["running", "failed", "waiting"]
    assert list(table["step"]) == ["jump", "", ""]
    assert table["message"][1] == "no luck It broke."
    assert table.meta["state"] == "running"
    assert table.meta["ended"] == ""
    assert table.meta["workers"] == 2
    assert table.meta["context"] == "jwst_0001.pmap"


def test_run_that_was_killed(plan, tmp_path):
    with Lock(tmp_path):
        begin(tmp_path)
    table = status(tmp_path)
    assert list(table["state"]) == ["interrupted", "failed", "waiting"]
    assert not any(table["step"])
    assert table.meta["state"] == "interrupted"


def test_a_run_that_ends_while_it_is_looked_at_was_not_interrupted(plan, tmp_path, monkeypatch):
    begin(tmp_path)

    def end(output_dir):
        tasks = {name: {"state": "done"} for name in NAMES}
        write_live(output_dir, {"state": "finished", "started": now(), "ended": now()}, tasks)
        return False

    monkeypatch.setattr(progress, "is_locked", end)
    table = status(tmp_path)
    assert table.meta["state"] == "finished"
    assert set(table["state"]) == {"done"}


def test_a_run_that_begins_while_it_is_looked_at_was_not_interrupted(plan, tmp_path, monkeypatch):
    begin(tmp_path)
    locks = []

    def begin_another(output_dir):
        if locks:
            return is_locked(output_dir)
        locks.append(Lock(output_dir))
        tasks = {NAMES[0]: {"state": "done"}, NAMES[1]: {"state": "running"}}
        write_live(output_dir, {"state": "running", "started": "2999", "ended": ""}, tasks)
        return False

    monkeypatch.setattr(progress, "is_locked", begin_another)
    table = status(tmp_path)
    with locks[0]:
        assert table.meta["state"] == "running"
        assert list(table["state"]) == ["done", "running", "waiting"]


def test_task_that_was_finished_after_the_last_word(plan, tmp_path):
    begin(tmp_path)
    later = (datetime.now(UTC) + timedelta(seconds=5)).isoformat(timespec="seconds")
    write_record(tmp_path, Record(task=NAMES[0], state="done", ended=later, seconds=7.0))
    table = status(tmp_path)
    assert table["state"][0] == "done"
    assert table["seconds"][0] == 7.0


def test_a_record_of_the_run_before_does_not_tell_of_a_task_that_was_begun_again(plan, tmp_path):
    write_record(tmp_path, Record(task=NAMES[0], state="done", ended=now()))
    before = now()
    while now() == before:
        pass
    begin(tmp_path)
    assert status(tmp_path)["state"][0] == "interrupted"


def test_files_that_cannot_be_read(plan, tmp_path):
    assert read_live(tmp_path) == {}
    (tmp_path / HIDDEN / "run.json").write_text("{")
    assert read_live(tmp_path) == {}
    assert set(status(tmp_path)["state"]) == {"waiting"}
    assert step_of(tmp_path) == ""


def test_lock(tmp_path):
    assert not is_locked(tmp_path)
    with Lock(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(InvalidRequestError, match="another run is at work there"):
            Lock(tmp_path)
    assert not is_locked(tmp_path)
    with Lock(tmp_path):
        pass


def test_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StageError, match="Cannot write to output_dir"):
        Lock(tmp_path / "file")


def test_manifest(plan, tmp_path):
    line = {"check": "photom", "outcome": "no effect", "message": "nothing", "action": "Mend it."}
    note = {"check": "jump", "outcome": "note", "message": "few", "action": ""}
    product = {"file": NAMES[0], "bytes": 12, "mtime_ns": 1, "sha256": "ab"}
    records = {
        NAMES[0]: Record(task=NAMES[0], state="done", products=[product], checks=[line, note]),
        NAMES[1]: Record(
            task=NAMES[1], state="failed", message="It broke.", kind_of_failure="code"
        ),
    }
    states = dict(zip(NAMES, ["done", "failed", "skipped"], strict=True))
    reduction = Reduction(plan, tmp_path)
    messages = {NAMES[2]: ["not made: x failed"]}
    table = make_manifest(reduction, records, states=states, messages=messages)
    assert list(table["Status"]) == ["COMPLETE", "ERROR", "SKIPPED"]
    assert list(table["Message"]) == ["nothing. Mend it.", "It broke.", "not made: x failed"]
    assert list(table["failure"]) == ["", "code", ""]
    assert list(table["checks"]) == ["photom no effect; jump note", "", ""]
    assert table["Local Path"][0] == str(tmp_path / NAMES[0])
    assert list(table["bytes"]) == [12, 0, 0]
    states[NAMES[0]] = "cached"
    cached = make_manifest(reduction, records, states=states, messages={})
    assert cached["Status"][0] == "CACHED"


def test_manifest_of_an_empty_plan(tmp_path):
    assert len(make_manifest(Reduction(Plan(), tmp_path), {}, states={}, messages={})) == 0
