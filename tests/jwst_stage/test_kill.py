"""Kill the whole run at any moment: what is there is whole, and the next run takes it up."""

import random
import select
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from astroquery_lis.jwst_stage.running.progress import status
from astroquery_lis.jwst_stage.running.run import run
from astroquery_lis.jwst_stage.tasks import Reduction

from .conftest import await_
from .killed_runs import Runner

pytest.importorskip("jwst")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc"),
]

MOMENTS = 20
LONGEST_S = 3.0


@pytest.fixture
def runner(chain, tmp_path):
    kept = {task.exposures[0] for task in chain.plan.tasks[:2]}
    tasks = tuple(t for t in chain.plan.tasks if t.stage < 3 and set(t.exposures) <= kept)
    mosaic = chain.plan.tasks[-1]
    members = tuple(m for m in mosaic.members if m.input in {t.name for t in tasks})
    inputs = tuple(member.input for member in members)
    tasks += (replace(mosaic, members=members, inputs=inputs),)
    plan = replace(chain.plan, tasks=tasks)
    runner = Runner(plan, chain.resolution, tmp_path)
    runner.plan, runner.resolution = plan, chain.resolution
    return runner


@pytest.mark.timeout(900)
def test_kill_at_random_moments(runner):
    rng = random.Random(7)
    done = {}
    for _ in range(MOMENTS):
        process = runner.start()
        await_(lambda process=process: runner.is_at_work(process))
        select.select([], [], [], rng.uniform(0, LONGEST_S))
        process.kill()
        process.wait()
        runner.await_nobody()
        runner.check()
        now = runner.moments()
        # What was finished before is not done again.
        assert {name: now[name] for name in done} == done
        done = now
        assert status(runner.output_dir).meta["state"] in ("interrupted", "finished")
    manifest = run(
        Reduction(runner.plan, runner.output_dir, runner.resolution),
        show_progress=False,
    )
    assert set(manifest["Status"]) <= {"COMPLETE", "CACHED"}
    now = runner.moments()
    assert {name: now[name] for name in done} == done
    runner.check()
    assert not list(runner.output_dir.rglob("*.tmp"))
    assert not (runner.output_dir / ".jwst_stage" / "scratch").exists()


def test_interrupt(runner):
    process = runner.start()
    await_(lambda: runner.is_at_work(process))
    process.send_signal(signal.SIGINT)
    process.wait()
    assert process.returncode != 0
    runner.await_nobody()
    runner.check()
    table = status(runner.output_dir)
    assert table.meta["state"] == "interrupted"
    assert "interrupted" in table["state"]
    manifest = run(
        Reduction(runner.plan, runner.output_dir, runner.resolution),
        show_progress=False,
    )
    assert set(manifest["Status"]) <= {"COMPLETE", "CACHED"}
    assert status(runner.output_dir).meta["state"] == "finished"
