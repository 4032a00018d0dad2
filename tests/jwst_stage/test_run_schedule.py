"""Which task may begin: order, cores, memory, and what is left when something fails."""

import pytest

from astroquery_lis.jwst_stage.running.run import Schedule
from astroquery_lis.jwst_stage.tasks import Estimate, Member, Task


def rate(name, memory_gb=1.0):
    return Task(
        name=f"stage1/{name}",
        stage=1,
        pipeline="Detector1Pipeline",
        inputs=(f"/{name}",),
        estimate=Estimate(memory_gb=memory_gb),
    )


def cal(name, memory_gb=1.0):
    return Task(
        name=f"stage2/{name}",
        stage=2,
        inputs=(f"stage1/{name}",),
        estimate=Estimate(memory_gb=memory_gb),
    )


def mosaic(names, memory_gb=1.0, backgrounds=()):
    members = tuple(Member(f"stage2/{name}") for name in names)
    members += tuple(Member(f"stage2/{name}", "background") for name in backgrounds)
    return Task(
        name="stage3/m",
        stage=3,
        inputs=tuple(member.input for member in members),
        members=members,
        estimate=Estimate(memory_gb=memory_gb),
    )


def begun(schedule):
    found = []
    while (task := schedule.begin()) is not None:
        found.append(task.name)
    return found


def test_order_and_workers():
    tasks = [rate("a"), rate("b"), rate("c"), cal("a"), cal("b")]
    schedule = Schedule(tasks, workers=2)
    assert begun(schedule) == ["stage1/a", "stage1/b"]
    schedule.end("stage1/b", "done")
    assert begun(schedule) == ["stage1/c"]
    schedule.end("stage1/a", "done")
    schedule.end("stage1/c", "done")
    assert begun(schedule) == ["stage2/a", "stage2/b"]
    assert not schedule.finished
    schedule.end("stage2/a", "done")
    schedule.end("stage2/b", "done")
    assert schedule.finished
    assert schedule.begin() is None


def test_done_is_not_begun():
    schedule = Schedule([rate("a"), cal("a")], done=["stage1/a"], workers=2)
    assert begun(schedule) == ["stage2/a"]
    assert schedule.states["stage1/a"] == "cached"


def test_memory():
    tasks = [rate("a", 3), rate("b", 3), rate("c", 1)]
    schedule = Schedule(tasks, workers=3, memory_gb=5)
    # The small one goes beside the first; the second waits for room.
    assert begun(schedule) == ["stage1/a", "stage1/c"]
    schedule.end("stage1/a", "done")
    assert begun(schedule) == ["stage1/b"]


def test_more_than_there_is_goes_alone():
    schedule = Schedule([rate("a", 90), rate("b", 1)], workers=2, memory_gb=5)
    assert begun(schedule) == ["stage1/a"]
    schedule.end("stage1/a", "done")
    assert begun(schedule) == ["stage1/b"]


def test_lost_task_goes_alone():
    schedule = Schedule([rate("a"), rate("b"), rate("c"), rate("d")], workers=2)
    assert begun(schedule) == ["stage1/a", "stage1/b"]
    schedule.again_alone("stage1/a", "it was lost")
    # Nothing begins until all others have ended.
    assert begun(schedule) == []
    schedule.end("stage1/b", "done")
    assert begun(schedule) == ["stage1/a"]
    assert schedule.is_alone("stage1/a")
    assert schedule.messages["stage1/a"] == ["Begun again, alone, since it was lost."]
    schedule.end("stage1/a", "failed")
    assert begun(schedule) == ["stage1/c", "stage1/d"]
    assert not schedule.is_alone("stage1/c")


def test_failure_takes_what_needs_it():
    tasks = [rate("a"), rate("b"), cal("a"), cal("b"), mosaic("ab")]
    schedule = Schedule(tasks, workers=4)
    begun(schedule)
    schedule.end("stage1/a", "failed")
    schedule.end("stage1/b", "done")
    assert begun(schedule) == ["stage2/b"]
    assert schedule.states["stage2/a"] == "skipped"
    assert schedule.messages["stage2/a"] == ["not made: stage1/a failed"]
    schedule.end("stage2/b", "done")
    assert schedule.begin() is None
    assert schedule.states["stage3/m"] == "skipped"
    assert schedule.messages["stage3/m"] == ["not made: stage2/a failed"]
    assert schedule.finished


def test_partial_goes_on_with_the_rest():
    tasks = [rate("a"), rate("b"), rate("c"), cal("a"), cal("b"), cal("c"), mosaic("abc")]
    schedule = Schedule(tasks, workers=9, partial=True)
    begun(schedule)
    schedule.end("stage1/b", "failed")
    for name in ("stage1/a", "stage1/c"):
        schedule.end(name, "done")
    assert begun(schedule) == ["stage2/a", "stage2/c"]
    assert schedule.states["stage2/b"] == "skipped"
    for name in ("stage2/a", "stage2/c"):
        schedule.end(name, "done")
    task = schedule.begin()
    assert [member.input for member in task.members] == ["stage2/a", "stage2/c"]
    assert task.inputs == ("stage2/a", "stage2/c")
    assert schedule.messages["stage3/m"] == ["made without stage2/b"]


@pytest.mark.parametrize("backgrounds", [(), ("b",)])
def test_partial_needs_an_exposure(backgrounds):
    tasks = [cal("a"), cal("b"), mosaic("a", backgrounds=backgrounds)]
    schedule = Schedule(tasks, done=[], workers=9, partial=True)
    begun(schedule)
    schedule.end("stage2/a", "failed")
    schedule.end("stage2/b", "done")
    assert schedule.begin() is None
    assert schedule.states["stage3/m"] == "skipped"


def test_nothing_to_do():
    assert Schedule([]).finished
    assert Schedule([rate("a")], done=["stage1/a"]).finished
