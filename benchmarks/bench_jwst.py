"""The JWST chain on simulated exposures: overhead, memory against the estimate, workers.

``--part overhead``: a run of eight small exposures with one worker against a plain loop of
`Pipeline.call`, by turns, both in a process that has imported the pipeline, both with frozen
imports; the CPU time is that of all processes.
``--part full``: stage 1 of two full frames, with one worker and with two: peak memory against the
estimate, and wall time.  ``--part mosaic``: stage 3 of 12 copies of a full frame in memory and on
disk: peak memory against the estimate.  The last two need some 10 GB of memory and many minutes.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from _report import parser, processor_seconds, report
from astropy import log

from astroquery_lis.jwst_stage import pipelines
from astroquery_lis.jwst_stage.crds_cache import CrdsEnvironment
from astroquery_lis.jwst_stage.pipelines import image3_memory_gb, with_references
from astroquery_lis.jwst_stage.planning.make_plan import make_plan
from astroquery_lis.jwst_stage.references import resolve
from astroquery_lis.jwst_stage.running.run import run
from astroquery_lis.jwst_stage.tasks import Reduction, read_records
from astroquery_lis.sandbox.jwst import simulate

LOOP = """
import gc, json, logging, sys, time
import jwst.pipeline
gc.collect()
gc.freeze()
files, folder = json.loads(sys.argv[1]), sys.argv[2]
for name in ("jwst", "stcal", "stdatamodels", "stpipe", "tweakwcs"):
    logging.getLogger(name).setLevel(logging.INFO)
begun, used = time.perf_counter(), time.process_time()
for path in files:
    jwst.pipeline.Detector1Pipeline.call(
        path, output_dir=folder, save_results=True, configure_log=False,
        steps={"jump": {"maximum_cores": "none"}, "ramp_fit": {"maximum_cores": "none"}},
    )
print(time.perf_counter() - begun, time.process_time() - used)
"""


def prepared(observation, folder, **options):
    plan = make_plan(observation.uncals, output_dir=folder, **options)
    environment = CrdsEnvironment(str(observation.crds_path), observation.crds_context)
    return plan, resolve(plan, environment, offline=True)


def timed(plan, resolution, folder, **options):
    begun = time.perf_counter()
    manifest = run(Reduction(plan, folder, resolution), show_progress=False, **options)
    seconds = time.perf_counter() - begun
    if set(manifest["Status"]) != {"COMPLETE"}:
        manifest.pprint(max_width=-1)
        raise RuntimeError("not all tasks were done")
    return seconds, manifest


class Clock:
    """CPU time of this process and of all that it has started, and wall time."""

    def __enter__(self):
        self._begun = time.perf_counter(), processor_seconds()
        return self

    def __exit__(self, *exc_info):
        self.wall_s = time.perf_counter() - self._begun[0]
        self.cpu_s = processor_seconds() - self._begun[1]


def overhead(runs, size):
    """Return the times of eight exposures with the wrapper and without, imports left out."""
    observation = simulate(size=size, dithers=8)
    rounds = [(_plain(observation), _ours(observation)) for _ in range(runs)]
    rows = []
    for place, kind in enumerate(("wall", "CPU")):
        plain, own = (median(times[place] for times in way) for way in zip(*rounds, strict=True))
        ratio = median(own[place] / plain[place] for plain, own in rounds)
        rows += [
            (f"eight exposures of {size} px, plain loop, {kind}", plain, "s"),
            (f"eight exposures of {size} px, run without imports, {kind}", own, "s"),
            (f"overhead at {size} px, {kind}", 100 * (ratio - 1), "%"),
        ]
    return rows


def _plain(observation):
    """Return wall and CPU time of a loop over `Pipeline.call`."""
    environment = CrdsEnvironment(str(observation.crds_path), observation.crds_context)
    variables = {k: v for k, v in environment.variables(readonly=True).items() if v}
    files = json.dumps([str(path) for path in observation.uncals])
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", LOOP, files, folder],
            env={**os.environ, **variables, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
    return [float(value) for value in done.stdout.split()[-2:]]


def _ours(observation):
    """Return wall and CPU time of a run with one worker, once its server has imported `jwst`."""
    with tempfile.TemporaryDirectory() as folder:
        plan, resolution = prepared(observation, folder, stages=(1,))
        pipelines.stop()
        pipelines.processes()
        with Clock() as clock:
            timed(plan, resolution, folder, max_workers=1)
        pipelines.stop()
    return clock.wall_s, clock.cpu_s


def full():
    """Return peak memory over the estimate, and the gain of a second worker."""
    observation = simulate(size=2048, dithers=2, groups=6)
    rows = []
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            plan, resolution = prepared(observation, folder, stages=(1,))
            seconds, manifest = timed(plan, resolution, folder, max_workers=workers)
            estimate = with_references(plan.tasks[0], plan, resolution).estimate.memory_gb
            peak = max(manifest["memory_gb"])
            rows += [
                (f"two full frames, {workers} worker(s)", seconds, "s"),
                (f"peak memory of a task, {workers} worker(s)", peak, "GB"),
                (f"peak over estimate, {workers} worker(s)", peak / estimate, ""),
            ]
    return rows


def mosaic():
    """Return the peak memory of 12 full frames, in memory and on disk, over the estimate."""
    observation = simulate(size=2048, dithers=12, groups=4)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        plan, resolution = prepared(observation, folder)
        before = [task for task in plan.tasks if task.stage < 3]
        timed(replace(plan, tasks=tuple(before)), resolution, folder)
        (last,) = (task for task in plan.tasks if task.stage == 3)
        # A task that expects more memory than there is keeps its exposures on disk.
        for name, gb in (("in memory", 0.0), ("on disk", 1e6)):
            task = replace(last, estimate=replace(last.estimate, memory_gb=gb))
            tasks = (*before, task)
            run(
                replace(plan, tasks=tasks),
                output_dir=folder,
                resolution=resolution,
                show_progress=False,
            )
            record = read_records(folder)[last.name]
            expected = image3_memory_gb(12, 2048**2, round(1.3 * 2048**2))
            rows += [
                (f"12 full frames, {name}", record.seconds, "s"),
                (f"12 full frames, {name}: peak", record.memory_gb, "GB"),
                (f"12 full frames, {name}: peak over estimate", record.memory_gb / expected, ""),
            ]
            (Path(folder) / last.name).unlink()
    return rows


def main():
    options = parser(__doc__)
    options.add_argument(
        "--part", choices=("overhead", "full", "mosaic"), default="overhead", help="what to measure"
    )
    options.add_argument(
        "--size", type=int, default=512, help="pixels of a side, of the overhead (default: 512)"
    )
    chosen = options.parse_args()
    log.setLevel("WARNING")
    rows = {"overhead": lambda: overhead(chosen.runs, chosen.size), "full": full, "mosaic": mosaic}
    report("The JWST chain on simulated exposures", rows[chosen.part](), chosen)


if __name__ == "__main__":
    main()
