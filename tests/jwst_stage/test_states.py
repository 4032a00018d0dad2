"""What has to be made again, and the reason in words."""

import os
from dataclasses import replace

import pytest

from astroquery_lis.jwst_stage import states as jwst_states
from astroquery_lis.jwst_stage.states import assess, differences
from astroquery_lis.jwst_stage.tasks import Record, Reduction, read_record, write_record

from .small_plan import I2D, finish, resolution_of, small_plan, write_uncal

RATE, RATE2 = "stage1/jw1_rate.fits", "stage1/jw2_rate.fits"
CAL, CAL2 = "stage2/jw1_cal.fits", "stage2/jw2_cal.fits"


@pytest.fixture
def plan(tmp_path):
    return small_plan(tmp_path / "uncal")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "reduced"


@pytest.fixture
def finished(plan, out):
    finish(plan, resolution_of(plan), out)
    return plan


def words(states):
    return {name: f"{s.state}: {s.reason}" for name, s in states.items() if s.state != "done"}


def test_before_a_run_everything_is_missing(plan, out):
    states = assess(Reduction(plan, out))
    assert list(states) == [task.name for task in plan.tasks]
    assert {(s.state, s.reason) for s in states.values()} == {("missing", "not made yet")}
    # And nothing is written.
    assert not out.exists()


@pytest.mark.parametrize("resolved", [True, False])
def test_after_a_run_everything_is_done(finished, out, resolved):
    states = assess(Reduction(finished, out, resolution_of(finished) if resolved else None))
    assert words(states) == {}


@pytest.mark.parametrize("resolved", [True, False])
def test_a_changed_parameter_of_stage_2_leaves_stage_1_alone(finished, out, resolved):
    plan = finished.with_task(CAL, steps={"photom": {"skip": True}})
    states = assess(Reduction(plan, out, resolution_of(plan) if resolved else None))
    assert words(states) == {
        CAL: "stale: photom.skip False -> True",
        I2D: f"stale: an input is to be made again: {CAL}",
    }


def test_the_reason_has_both_values(finished, out):
    plan = finished.with_task(RATE, steps={"jump": {"rejection_threshold": 4.0}})
    assert assess(Reduction(plan, out))[RATE].reason == "jump.rejection_threshold 5.0 -> 4.0"


def test_a_changed_uncal_concerns_its_own_products_and_the_mosaic(finished, out, tmp_path):
    write_uncal(tmp_path / "uncal" / "jw2_uncal.fits", 99)
    assert words(assess(Reduction(finished, out, resolution_of(finished)))) == {
        RATE2: "stale: input jw2_uncal.fits changed",
        CAL2: f"stale: an input is to be made again: {RATE2}",
        I2D: f"stale: an input is to be made again: {CAL2}",
    }


def test_a_new_time_stamp_alone_changes_nothing(finished, out, tmp_path):
    path = tmp_path / "uncal" / "jw2_uncal.fits"
    write_uncal(path, 2, date="2031-01-01T00:00:00")
    os.utime(path, (1, 1))
    assert words(assess(Reduction(finished, out, resolution_of(finished)))) == {}


def test_a_new_context_that_changes_only_the_flat_keeps_stage_1(finished, out):
    newer = resolution_of(
        finished, references={"flat": "jwst_flat_0002.fits"}, context="jwst_0002.pmap"
    )
    reason = "stale: reference flat jwst_flat_0001.fits -> jwst_flat_0002.fits"
    found = words(assess(Reduction(finished, out, newer)))
    assert found[CAL] == found[CAL2] == reason
    assert set(found) == {CAL, CAL2, I2D}
    # Without asking CRDS nothing can be known of it.
    assert words(assess(Reduction(finished, out))) == {}


def test_a_new_context_that_changes_nothing_keeps_everything(finished, out):
    assert (
        words(assess(Reduction(finished, out, resolution_of(finished, context="jwst_0002.pmap"))))
        == {}
    )


def test_new_parameters_of_crds_are_noticed(finished, out):
    newer = resolution_of(finished, parameters={"tweakreg": {"minobj": 5}})
    assert words(assess(Reduction(finished, out, newer))) == {I2D: "stale: tweakreg.minobj 4 -> 5"}


def test_another_version_of_the_pipeline_is_noticed(finished, out, monkeypatch):
    now = jwst_states.versions()
    monkeypatch.setattr(jwst_states, "versions", lambda: {**now, "jwst": "99.0"})
    states = assess(Reduction(finished, out))
    assert states[RATE].state == "stale"
    assert states[RATE].reason == f"jwst {now['jwst']} -> 99.0"


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda data: data[:20], f"stale: {CAL} changed after it was made: 240 -> 20 bytes"),
        (lambda data: b"x" * len(data), f"stale: {CAL} changed after it was made"),
    ],
)
def test_a_product_that_was_changed_is_stale(finished, out, spoil, expected):
    path = out / CAL
    path.write_bytes(spoil(path.read_bytes()))
    assert words(assess(Reduction(finished, out, resolution_of(finished)))) == {CAL: expected}


def test_a_product_that_was_only_touched_is_done(finished, out):
    os.utime(out / CAL, (1, 1))
    assert words(assess(Reduction(finished, out))) == {}


def test_a_product_that_is_gone_is_missing_and_what_was_made_of_it_is_not(finished, out):
    (out / RATE).unlink()
    assert words(assess(Reduction(finished, out))) == {RATE: f"missing: {RATE} is gone"}
    (out / "stage3/mosaic_cat.ecsv").unlink()
    assert assess(Reduction(finished, out))[I2D].reason == "stage3/mosaic_cat.ecsv is gone"


def test_a_catalogue_that_there_was_no_reason_for_is_not_missed(finished, out):
    (out / "stage3/mosaic_cat.ecsv").unlink()
    record = read_record(out, I2D)
    write_record(out, replace(record, products=record.products[:1]))
    assert words(assess(Reduction(finished, out))) == {}


def test_a_file_without_a_record_is_not_trusted(plan, out):
    (out / "stage1").mkdir(parents=True)
    (out / RATE).write_text("from somewhere")
    assert assess(Reduction(plan, out))[RATE].state == "stale"
    assert assess(Reduction(plan, out))[RATE].reason == f"nothing tells how {RATE} was made"


def test_a_record_that_was_cut_off_counts_as_none(finished, out):
    for path in (out / ".jwst_stage" / "records").glob("jw1_cal*.json"):
        path.write_text(path.read_text()[:100])
    found = words(assess(Reduction(finished, out, resolution_of(finished))))
    assert found == {CAL: f"stale: nothing tells how {CAL} was made"}


def test_what_failed_says_why(finished, out):
    write_record(out, Record(RATE, "failed", message="No space is left."))
    state = assess(Reduction(finished, out))[RATE]
    assert (state.state, state.reason) == ("failed", "No space is left.")


def test_many_reasons_are_counted(finished, out, tmp_path):
    write_uncal(tmp_path / "uncal" / "jw1_uncal.fits", 99)
    steps = {"jump": {"rejection_threshold": 4.0, "a": 1, "b": 2}}
    plan = finished.with_task(RATE, steps=steps)
    state = assess(Reduction(plan, out))[RATE]
    assert state.reason.endswith("; and 1 more")
    assert len(state.reasons) == 4


def test_members_that_came_and_went(finished, out):
    task = finished.of(I2D)
    plan = finished.with_task(I2D, members=task.members[:1], inputs=task.inputs[:1])
    reason = assess(Reduction(plan, out))[I2D].reason
    assert f"input {CAL2} is no longer one" in reason
    assert "members of the association" in reason


def test_corrections_are_told_by_name():
    old = {"name": "wisp", "point": "after_rate", "suffix": "wsp", "digest": "1"}
    old["parameters"] = {"scale": 1}

    def said(**changes):
        return differences({"corrections": [old]}, {"corrections": [{**old, **changes}]})

    assert said(digest="2") == ["the code or a file of the correction wisp changed"]
    assert said(digest="2", parameters={"scale": 2}) == ["correction wisp.scale 1 -> 2"]
    assert said(name="sky") == ["corrections wisp -> sky"]
    assert said(suffix="w", digest="2") == ["correction wisp suffix wsp -> w"]
    none = {"corrections": []}
    assert differences(none, {"corrections": [old]}) == ["corrections (none) -> wisp"]
    assert differences({}, {"corrections": [old]}) == ["there is no record of how it was made"]


def test_a_reference_with_other_content_is_told():
    old, new = {"references": {"flat": ["a.fits", "1"]}}, {"references": {"flat": ["a.fits", "2"]}}
    assert differences(old, new) == ["reference flat a.fits has other content"]
    none = {"references": {}}
    assert differences(none, new) == ["reference flat (none) -> a.fits"]


def test_the_work_grows_with_the_number_of_tasks_and_not_faster(tmp_path, monkeypatch):
    plan = small_plan(tmp_path / "uncal", exposures=100)
    out = tmp_path / "reduced"
    finish(plan, resolution_of(plan), out)
    assess(Reduction(plan, out))
    counts = dict.fromkeys(("key", "content_digest"), 0)

    def counted(name, function):
        def call(*args):
            counts[name] += 1
            return function(*args)

        return call

    for name in counts:
        monkeypatch.setattr(jwst_states, name, counted(name, getattr(jwst_states, name)))
    states = assess(Reduction(plan, out, resolution_of(plan)))
    assert len(states) == 201
    assert {state.state for state in states.values()} == {"done"}
    # One key of what would be made, and one of the record.
    assert counts == {"key": 402, "content_digest": 0}
    counts["key"] = 0
    states = assess(Reduction(plan, out, resolution_of(plan)), names=[RATE2, CAL])
    assert [(name, state.state) for name, state in states.items()] == [
        (CAL, "done"),
        (RATE2, "done"),
    ]
    # Two of these, one of what one of them is made of, and two of records.
    assert counts == {"key": 5, "content_digest": 0}
