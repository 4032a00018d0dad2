"""Reductions of simulated modes: by this package, by plain calls, and killed on the way."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astroquery import mast

from astroquery_lis import conf
from astroquery_lis.jwst_stage import JwstStageClass
from astroquery_lis.jwst_stage.crds_cache import CrdsEnvironment
from astroquery_lis.jwst_stage.report import write_report
from astroquery_lis.jwst_stage.running.run import run
from astroquery_lis.jwst_stage.tasks import Reduction
from astroquery_lis.sandbox.mast import serve_mast

from .conftest import await_
from .killed_runs import Runner

# What a user without this package does: associations by hand, one call after another.
PLAIN = """
import json, sys
import jwst.pipeline, jwst.step
associations, folder = json.load(sys.stdin), sys.argv[1]
for name, kind, steps in associations:
    pipeline = getattr(jwst.pipeline, kind, None) or getattr(jwst.step, kind)
    extra = {"steps": steps} if steps else {}
    pipeline.call(name, save_results=True, output_dir=folder, configure_log=False, **extra)
"""

CLASSES = {
    "image2": "Image2Pipeline",
    "spec2": "Spec2Pipeline",
    "image3": "Image3Pipeline",
    "spec3": "Spec3Pipeline",
    "coron3": "Coron3Pipeline",
    "ami3": "Ami3Pipeline",
    "tso3": "Tso3Pipeline",
    "wfs-image2": "Image2Pipeline",
    "wfs-image3": "WfsCombineStep",
}


def plan_of_mode(simulated, planned, output_dir, rates=None, **options):
    environment = CrdsEnvironment(str(simulated.crds_path), simulated.crds_context)
    options.setdefault("start", "rate")
    return planned(rates or simulated.rates, environment, output_dir=output_dir, **options)


def reduce(simulated, planned, output_dir, rates=None, **options):
    """Plan and run, to the end; return the plan."""
    plan, resolution = plan_of_mode(simulated, planned, output_dir, rates, **options)
    manifest = run(Reduction(plan, output_dir, resolution), show_progress=False)
    assert set(manifest["Status"]) == {"COMPLETE"}, list(manifest["Message"])
    return plan


def association(kind, product, members):
    listed = [{"expname": name, "exptype": role} for name, role in members]
    return {
        "asn_type": kind, "asn_rule": "by hand", "asn_id": "o001", "asn_pool": "none",
        "program": "01234", "target": "x", "products": [{"name": product, "members": listed}],
    }  # fmt: skip


def plain_calls(associations, simulated, folder, steps=None):
    """Run the pipeline without this package on associations, ``{name: document}``.

    ``steps`` are parameters by the class of a pipeline.
    """
    folder.mkdir()
    for path in simulated.rates:
        (folder / path.name).symlink_to(path)
    for name, document in associations.items():
        (folder / name).write_text(json.dumps(document))
    kinds = {name: CLASSES[document["asn_type"]] for name, document in associations.items()}
    listed = [(name, kind, (steps or {}).get(kind, {})) for name, kind in kinds.items()]
    environment = {name: value for name, value in os.environ.items() if name != "CRDS_SERVER_URL"}
    environment |= {
        "CRDS_PATH": str(simulated.crds_path), "CRDS_CONTEXT": simulated.crds_context
    }  # fmt: skip
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAIN, str(folder)],
        input=json.dumps(listed),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )


def reduce_from_archive(sky, simulated, folder, cache_dir, **options):
    """Search, fetch, plan and run what a simulated archive holds; return the output directory."""
    serve_mast(sky, simulated.rates)
    stage = JwstStageClass()
    stage.crds_path, stage.crds_context = simulated.crds_path, simulated.crds_context
    with conf.set_temp("cache_dir", cache_dir):
        with mast.conf.set_temp("server", sky.mast_url):
            table = stage.query_uncal(program=1234)
            assert len(table) == len(simulated.rates)
            fetched = stage.download_uncal(table, download_dir=folder / "uncal")
        assert set(fetched["Status"]) == {"COMPLETE"}
        plan = stage.plan(folder / "uncal", output_dir=folder / "out", **options)
        manifest = stage.run(plan, show_progress=False)
    assert set(manifest["Status"]) == {"COMPLETE"}, list(manifest["Message"])
    return folder / "out"


def assert_script_makes_the_same(output_dir, folder):
    """Run the report's script of plain calls, and compare what it makes; return how much."""
    write_report(output_dir, path=folder / "page.html")
    work = folder / "work"
    work.mkdir()
    environment = {name: value for name, value in os.environ.items() if "CRDS" not in name}
    subprocess.run(
        [sys.executable, "-W", "ignore", str(folder / "page_plain.py")],
        cwd=work, env=environment, capture_output=True, timeout=600, check=True,
    )  # fmt: skip
    products = sorted(output_dir.glob("stage[123]/*.fits"))
    for path in products:
        assert_same(path, work / path.relative_to(output_dir))
    return len(products)


def contents(path):
    """Return everything in a file that was measured: images, and columns of tables."""
    if Path(path).suffix == ".ecsv":
        return [("", Table.read(path, format="ascii.ecsv").as_array())]
    with fits.open(path) as hdul:
        measured = [hdu for hdu in hdul if hdu.data is not None and hdu.name not in UNMEASURED]
        return [(hdu.name, np.array(hdu.data)) for hdu in measured]


# Trees of metadata and what a mosaic says of its members: dates of making.
UNMEASURED = ("ASDF", "HDRTAB")


def assert_all_same(output_dir, plain, n_products):
    """Check that all products of stages 2 and 3 are those of plain calls."""
    products = [p for p in sorted(output_dir.glob("stage[23]/*")) if p.suffix in (".fits", ".ecsv")]
    assert len(products) == n_products
    for path in products:
        assert_same(path, plain / path.name)


def assert_same(ours, plain):
    """Check that two products are the same, bit by bit."""
    mine, theirs = contents(ours), contents(plain)
    assert [name for name, _ in mine] == [name for name, _ in theirs]
    for (name, data), (_, other) in zip(mine, theirs, strict=True):
        assert data.dtype == other.dtype
        for column in data.dtype.names or [...]:
            message = f"{Path(ours).name} {name} {column}"
            np.testing.assert_array_equal(data[column], other[column], err_msg=message)


def take_up_killed(plan, resolution, folder, kill_at=1):
    """Kill a run once it has finished some tasks; the next one ends it.  Return where."""
    runner = Runner(plan, resolution, folder)
    process = runner.start()
    await_(lambda: process.poll() is not None or len(runner.moments()) >= kill_at)
    assert process.poll() is None
    process.kill()
    process.wait()
    runner.await_nobody()
    runner.check()
    finished = runner.moments()
    manifest = run(Reduction(plan, runner.output_dir, resolution), show_progress=False)
    assert set(manifest["Status"]) == {"COMPLETE", "CACHED"}, list(manifest["Message"])
    now = runner.moments()
    assert {name: now[name] for name in finished} == finished
    return runner.output_dir


def assert_resumes(plan, resolution, folder, expected, kill_at=1):
    """Check that a run that was killed and taken up has the same products as another."""
    output_dir = take_up_killed(plan, resolution, folder, kill_at)
    for name in [name for task in plan.tasks for name in task.outputs if name.endswith(".fits")]:
        assert_same(output_dir / name, Path(expected) / name)


def reduce_killed(simulated, planned, folder, kill_at=1, **options):
    """Plan, and run to the end after a run that was killed; return plan and output directory."""
    plan, resolution = plan_of_mode(simulated, planned, folder / "reduced", **options)
    return plan, take_up_killed(plan, resolution, folder, kill_at)
