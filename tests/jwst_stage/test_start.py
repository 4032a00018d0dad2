"""``start='auto'``: rate files of the archive are taken where making them again changes nothing."""

import shutil

import pytest


@pytest.fixture
def both_levels(chain, tmp_path):
    for path in (chain.observation.uncals[0], chain.product("00001_nrcalong_rate.fits")[0]):
        shutil.copy2(path, tmp_path)
    return tmp_path


def test_a_rate_file_that_would_come_out_the_same_is_taken(stage, both_levels, chain):
    plan = stage.plan(both_levels, stages=(1, 2), start="auto")
    assert [task.stage for task in plan.tasks] == [2]
    assert "reference files of now" in " ".join(plan.notes)
    stage.crds_context = chain.observation.new_context(("dark",))
    plan = stage.plan(both_levels, stages=(1, 2), start="auto")
    assert [task.stage for task in plan.tasks] == [1, 2]
    assert "reference dark" in " ".join(plan.notes)


def test_without_a_cache_of_references_it_is_said_that_they_were_not_compared(stage, both_levels):
    stage.crds_path = both_levels / "nowhere"
    plan = stage.plan(both_levels, stages=(1, 2), start="auto")
    assert [task.stage for task in plan.tasks] == [2]
    assert "were not compared" in " ".join(plan.notes)
