"""Fingerprints: the same for what would be made the same, different for anything else."""

import json
from dataclasses import replace

import pytest

from astroquery_lis.jwst_stage import states
from astroquery_lis.jwst_stage.states import Fingerprints, key
from astroquery_lis.jwst_stage.tasks import Record, Reduction, Task, read_records

from .small_plan import I2D, finish, resolution_of, small_plan, write_uncal

RATE = "stage1/jw1_rate.fits"
CAL = "stage2/jw1_cal.fits"


@pytest.fixture
def plan(tmp_path):
    return small_plan(tmp_path / "uncal")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "reduced"


def keys(plan, out, **kwargs):
    made = Fingerprints(Reduction(plan, out, resolution_of(plan, **kwargs)))
    return {task.name: key(made.of(task.name)) for task in plan.tasks}


def changed(before, after):
    return {name for name in before if before[name] != after[name]}


def test_it_is_of_json_types_and_the_same_each_time(plan, out):
    first = Fingerprints(Reduction(plan, out, resolution_of(plan))).of(I2D)
    again = Fingerprints(Reduction(plan, out, resolution_of(plan))).of(I2D)
    assert json.loads(json.dumps(first)) == again
    assert key(first) == key(again) == key(json.loads(json.dumps(first)))
    assert set(first["versions"]) == {"jwst", "stcal", "stdatamodels"}


def test_a_changed_input_changes_only_what_is_made_of_it(plan, out, tmp_path):
    before = keys(plan, out)
    write_uncal(tmp_path / "uncal" / "jw1_uncal.fits", 1, date="2031-01-01T00:00:00")
    assert changed(before, keys(plan, out)) == set()
    write_uncal(tmp_path / "uncal" / "jw1_uncal.fits", 17)
    assert changed(before, keys(plan, out)) == {RATE, CAL, I2D}


def test_input_files_may_be_moved(plan, out, tmp_path):
    before = keys(plan, out)
    moved = tmp_path / "elsewhere"
    (tmp_path / "uncal").rename(moved)
    for number in (1, 2):
        name = f"stage1/jw{number}_rate.fits"
        plan = plan.with_task(name, inputs=(str(moved / f"jw{number}_uncal.fits"),))
    assert keys(plan, out) == before


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"references": {"flat": "jwst_flat_0002.fits"}}, {CAL, "stage2/jw2_cal.fits", I2D}),
        ({"references": {"refpix": "jwst_refpix_0001.fits"}}, "all"),
        ({"parameters": {"tweakreg": {"minobj": 5}}}, {I2D}),
        ({"parameters": {"tweakreg": {"in_memory": False}}}, set()),
        ({"parameters": {"jump": {"maximum_cores": "none"}}}, set()),
        ({"parameters": {"ipc": {"some": "parameter of a skipped step"}}}, set()),
        ({"parameters": {"ipc": {"skip": False}}}, "all"),
        ({"context": "jwst_0002.pmap"}, set()),
    ],
)
def test_what_decides(plan, out, kwargs, expected):
    found = changed(keys(plan, out), keys(plan, out, **kwargs))
    assert found == ({task.name for task in plan.tasks} if expected == "all" else expected)


def test_a_reference_of_the_same_name_and_other_content_decides(plan, out):
    resolution = resolution_of(plan)
    before = key(Fingerprints(Reduction(plan, out, resolution)).of(CAL))
    resolution.references[CAL]["flat"]["sha1"] = "0" * 40
    assert key(Fingerprints(Reduction(plan, out, resolution)).of(CAL)) != before


def test_asking_for_what_holds_anyway_changes_nothing(plan, out):
    before = keys(plan, out)
    asked = plan.with_task(RATE, steps={"jump": {"rejection_threshold": 5.0}})
    assert keys(asked, out) == before
    asked = plan.with_task(RATE, steps={"jump": {"rejection_threshold": 6.0}})
    assert changed(before, keys(asked, out)) == {RATE, CAL, I2D}


def test_versions_decide(plan, out, monkeypatch):
    before = keys(plan, out)
    monkeypatch.setattr(states, "versions", lambda: {"jwst": "99.0"})
    assert changed(before, keys(plan, out)) == set(before)


def test_the_content_of_a_file_that_is_a_parameter_decides(plan, out, tmp_path):
    catalog = tmp_path / "refcat.ecsv"
    catalog.write_text("ra dec\n")
    asked = plan.with_task(I2D, steps={"tweakreg": {"abs_refcat": str(catalog)}})
    before = keys(asked, out)
    moved = catalog.rename(tmp_path / "uncal" / "refcat.ecsv")
    asked = plan.with_task(I2D, steps={"tweakreg": {"abs_refcat": str(moved)}})
    assert keys(asked, out) == before
    moved.write_text("ra dec more\n")
    assert changed(before, keys(asked, out)) == {I2D}


def test_roles_of_members_decide(plan, out):
    before = keys(plan, out)
    first, second = plan.of(I2D).members
    roles = (first, replace(second, exptype="background"))
    assert changed(before, keys(plan.with_task(I2D, members=roles), out)) == {I2D}


def test_the_code_of_a_correction_decides(plan, out):
    correction = {"name": "flicker", "point": "after_rate", "suffix": "flk", "parameters": {"a": 1}}
    name = "stage1/jw1_flk.fits"

    def corrected(digest):
        task = Task(
            name,
            1,
            kind="correction",
            inputs=(RATE,),
            outputs=(name,),
            corrections=({**correction, "digest": digest, "source": f"pickle:{digest}"},),
        )
        tasks = (*plan.tasks[:1], task, *plan.tasks[1:])
        return replace(plan, tasks=tasks).with_task(CAL, inputs=(name,))

    before = keys(corrected("one"), out)
    assert changed(before, keys(corrected("one"), out)) == set()
    assert changed(before, keys(corrected("two"), out)) == {name, CAL, I2D}


def test_without_a_resolution_that_of_the_record_holds_still(plan, out):
    asked = plan.with_task(RATE, steps={"jump": {"rejection_threshold": 6.0}})
    finish(asked, resolution_of(asked), out)
    records = read_records(out)
    done = {name: key(record.fingerprint) for name, record in records.items()}

    def foreseen(plan):
        made = Fingerprints(Reduction(plan, out, None), records)
        return {task.name: key(made.of(task.name)) for task in plan.tasks}

    assert foreseen(asked) == done
    # Taking it back gives what would hold without it, and so does what CRDS said then.
    assert foreseen(plan) == keys(plan, out)
    for steps in ({"jump": {"rejection_threshold": 7.0}}, {"jump": {"skip": True}}):
        other = plan.with_task(RATE, steps=steps)
        assert foreseen(other) == keys(other, out)


def test_a_product_of_an_earlier_run_counts_as_the_task_that_it_was(plan, out):
    resolution = resolution_of(plan)
    finish(plan, resolution, out)
    before = keys(plan, out)
    later = replace(plan, tasks=tuple(t for t in plan.tasks if t.stage > 1))
    for number in (1, 2):
        path = out / f"stage1/jw{number}_rate.fits"
        later = later.with_task(f"stage2/jw{number}_cal.fits", inputs=(str(path),))
    made = Fingerprints(Reduction(later, out, resolution), read_records(out))
    assert {task.name: key(made.of(task.name)) for task in later.tasks} == {
        task.name: before[task.name] for task in later.tasks
    }
    (out / "stage1/jw1_rate.fits").write_text("corrected by hand")
    made = Fingerprints(Reduction(later, out, resolution), read_records(out))
    assert key(made.of(CAL)) != before[CAL]
    assert key(made.of("stage2/jw2_cal.fits")) == before["stage2/jw2_cal.fits"]


def test_an_input_that_is_gone_has_no_digest(plan, out, tmp_path):
    (tmp_path / "uncal" / "jw1_uncal.fits").unlink()
    made = Fingerprints(Reduction(plan, out, resolution_of(plan)), {RATE: Record(RATE, "failed")})
    assert made.of(RATE)["inputs"] == {"jw1_uncal.fits": ""}


def test_a_task_that_begins_is_told_by_the_files_of_now(plan, out, tmp_path):
    resolution = resolution_of(plan)
    made = Fingerprints(Reduction(plan, out, resolution))
    before = {name: made.key_of(name) for name in (RATE, CAL)}
    write_uncal(tmp_path / "uncal" / "jw1_uncal.fits", 17)
    # The rate is there, of the old file, and what is made of it is of the old file too.
    assert key(made.renew(plan.of(CAL))) == before[CAL]
    # Made again it is of the new file, and so is what is made of it afterwards.
    now = Fingerprints(Reduction(plan, out, resolution))
    assert key(made.renew(plan.of(RATE))) == now.key_of(RATE) != before[RATE]
    assert key(made.renew(plan.of(CAL))) == now.key_of(CAL) != before[CAL]


def test_digests_are_kept_beside_the_products(plan, out, tmp_path, monkeypatch):
    out.mkdir()
    made = Fingerprints(Reduction(plan, out, resolution_of(plan)))
    expected = made.of(RATE)
    made.save()
    read = []
    monkeypatch.setattr(states, "content_digest", read.append)
    again = Fingerprints(Reduction(plan, out, resolution_of(plan)))
    assert again.of(RATE) == expected
    assert read == []
    (out / ".jwst_stage" / "digests.json").write_text("not json")
    monkeypatch.undo()
    assert Fingerprints(Reduction(plan, out, resolution_of(plan))).of(RATE) == expected
