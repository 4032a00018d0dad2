"""Kill the whole run at any moment: what is there is whole, and the next run takes it up."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from astroquery_lis.jwst_stage.resume.records import read_records
from astroquery_lis.jwst_stage.running.run import run
from astroquery_lis.jwst_stage.running.status import read_live, status
from astroquery_lis.jwst_stage.running.verify import is_whole
from astroquery_lis.jwst_stage.tasks import Reduction

from .conftest import await_

pytest.importorskip("jwst")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc"),
]

MOMENTS = 20
LONGEST_S = 3.0
MARK = "ASTROQUERY_LIS_TEST_MARK"

# The resolution is the chain's, so that a run begins without asking CRDS again.
SCRIPT = """
import pickle, sys
from astroquery_lis.jwst_stage.running.run import run
from astroquery_lis.jwst_stage.tasks import Reduction
plan, resolution = pickle.load(open(sys.argv[1], "rb"))
run(Reduction(plan, sys.argv[2], resolution))
"""


def marked(mark):
    """Return the processes that were started under a mark, and their children."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environ = (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if f"{MARK}={mark}".encode() in environ and state != "Z":
            found.append(int(entry.name))
    return found


class Runner:
    """Starts the same run in processes of its own, again and again."""

    def __init__(self, plan, resolution, folder):
        import pickle

        self.output_dir = folder / "reduced"
        self.pickle = folder / "run.pickle"
        self.pickle.write_bytes(pickle.dumps((plan, resolution)))
        self.script = folder / "script.py"
        self.script.write_text(SCRIPT)
        self.mark = uuid.uuid4().hex

    def start(self):
        return subprocess.Popen(
            [sys.executable, self.script, self.pickle, self.output_dir],
            env={**os.environ, MARK: self.mark, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def is_at_work(self, process):
        """Tell whether a task of this very process runs, or all is over."""
        live = read_live(self.output_dir)
        states = {told["state"] for told in live.get("tasks", {}).values()}
        begun = live.get("pid") == process.pid and "running" in states
        return process.poll() is not None or (begun and len(marked(self.mark)) > 2)

    def await_nobody(self):
        await_(lambda: not marked(self.mark))

    def moments(self):
        done = [r for r in read_records(self.output_dir).values() if r.state == "done"]
        return {
            p["file"]: (self.output_dir / p["file"]).stat().st_mtime_ns
            for r in done
            for p in r.products
        }

    def check(self):
        """Whatever has a final name is whole."""
        for path in self.output_dir.glob("stage?/*"):
            if path.suffix == ".fits":
                assert is_whole(path) == ""
            elif path.suffix == ".json":
                json.loads(path.read_text())


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
