"""Runs in processes of their own, to be killed."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

from astroquery_lis.jwst_stage.running.progress import read_live
from astroquery_lis.jwst_stage.running.verify import is_whole
from astroquery_lis.jwst_stage.tasks import read_records

from .conftest import await_

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
