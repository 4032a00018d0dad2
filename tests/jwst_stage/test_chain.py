"""The real chain on simulated exposures: what is in the mosaic is what was put into the sky."""

import json
import warnings
from concurrent.futures import Executor

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS, FITSFixedWarning

from astroquery_lis import conf
from astroquery_lis.jwst_stage.running.progress import status
from astroquery_lis.jwst_stage.states import assess, key
from astroquery_lis.jwst_stage.tasks import Reduction, log_path, read_record, read_records

from .conftest import digests

pytest.importorskip("jwst")

SATURATED, JUMP_DET, OUTLIER, DO_NOT_USE = 2, 4, 16, 1
APERTURE_PX = 4
EDGE_PX = 8
ISOLATED_PX = 9
FAINTEST_JY = 7e-6


@pytest.fixture(scope="module")
def mosaic(chain):
    (path,) = chain.product("sub160_i2d.fits")
    with fits.open(path) as hdul, warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        # The FITS WCS, which astropy reads: not the gwcs that the pipeline worked with.
        return hdul["SCI"].data.copy(), WCS(hdul["SCI"].header), hdul["SCI"].header.copy()


@pytest.fixture(scope="module")
def measured(chain, mosaic):
    """Isolated stars: offsets from the truth in pixels, and flux over the true flux."""
    image, wcs, header = mosaic
    truth = chain.observation.truth
    x, y = wcs.world_to_pixel(SkyCoord(truth["ra"], truth["dec"], unit="deg"))
    ny, nx = image.shape
    rows, columns = np.mgrid[:ny, :nx]
    # The Gaussian of the simulated PSF, spread by the detector's pixel, the drop and the mosaic's.
    sigma = np.hypot(0.126 / np.sqrt(8 * np.log(2)) / np.sqrt(header["PIXAR_A2"]), np.sqrt(4 / 12))
    enclosed = 1 - np.exp(-(APERTURE_PX**2) / (2 * sigma**2))
    found = []
    for i in np.flatnonzero((truth["kind"] == "star") & (truth["flux_F356W"] > FAINTEST_JY)):
        others = np.delete(np.hypot(x - x[i], y - y[i]), i)
        inside = EDGE_PX < x[i] < nx - EDGE_PX - 1 and EDGE_PX < y[i] < ny - EDGE_PX - 1
        if truth["saturated"][i] or not inside or others.min() < ISOLATED_PX:
            continue
        distance = np.hypot(columns - x[i], rows - y[i])
        clean = image - np.nanmedian(image[(distance > 6) & (distance < 10)])
        cx, cy = x[i], y[i]
        for _ in range(10):
            dx, dy = columns - cx, rows - cy
            weight = np.exp(-(dx**2 + dy**2) / (2 * sigma**2)) * (np.hypot(dx, dy) < 5)
            weight = weight * np.nan_to_num(clean)
            cx += 2 * np.sum(weight * dx) / np.sum(weight)
            cy += 2 * np.sum(weight * dy) / np.sum(weight)
        flux = np.nansum(clean[distance < APERTURE_PX]) * header["PIXAR_SR"] * 1e6
        found.append((cx - x[i], cy - y[i], flux / enclosed / truth["flux_F356W"][i]))
    assert len(found) >= 15
    return np.array(found).T


def test_everything_is_complete(chain):
    assert set(chain.manifest["Status"]) == {"COMPLETE"}
    assert list(chain.manifest["stage"]) == [1] * 4 + [2] * 4 + [3]
    assert not any(chain.manifest["Message"])


def test_star_positions(measured):
    offsets = np.hypot(measured[0], measured[1])
    assert offsets.max() < 0.1
    assert np.median(offsets) < 0.03


def test_fluxes(measured):
    np.testing.assert_allclose(measured[2], 1, atol=0.03)
    assert abs(np.median(measured[2]) - 1) < 0.01


def test_tweakreg_had_something_to_mend(chain):
    errors = chain.observation.pointing_errors
    assert np.hypot(errors["east"], errors["north"]).max() > 0.1


def test_cosmic_rays_are_flagged(chain):
    hits = chain.observation.cosmic_rays
    for path in chain.product("_rate.fits"):
        mine = hits[hits["file"] == path.name.replace("_rate", "_uncal")]
        dq = fits.getdata(path, "DQ")
        assert len(mine) == 25
        assert np.count_nonzero(dq[mine["y"], mine["x"]] & JUMP_DET) >= 24


def test_hot_pixels_are_flagged_in_every_crf(chain):
    hot = chain.observation.hot_pixels
    paths = chain.product("_crf.fits")
    assert len(paths) == 4
    for path in paths:
        dq = fits.getdata(path, "DQ")
        assert np.all(dq[hot["y"], hot["x"]] & OUTLIER)
        assert np.all(dq[hot["y"], hot["x"]] & DO_NOT_USE)


def test_saturated_star_is_flagged(chain):
    truth = chain.observation.truth
    (star,) = truth[truth["saturated"]]
    for path in chain.product("_rate.fits"):
        x, y = chain.observation.pixel_positions(path, star["ra"], star["dec"])
        dq = fits.getdata(path, "DQ")
        assert dq[round(float(y)), round(float(x))] & SATURATED


def test_inputs_are_untouched(chain):
    assert digests(chain.observation.uncals) == chain.inputs_before


def test_products_of_each_task_are_named(chain):
    for row in chain.manifest:
        record = read_record(chain.output_dir, row["task"])
        assert record.products[0]["file"] == row["task"]
        assert row["Local Path"] == str(chain.output_dir / row["task"])
        assert row["bytes"] == (chain.output_dir / row["task"]).stat().st_size
        for product in record.products:
            assert (chain.output_dir / product["file"]).stat().st_size == product["bytes"]
    (mosaic,) = (read_record(chain.output_dir, name) for name in chain.manifest["task"][-1:])
    endings = {product["file"].rpartition("_")[2] for product in mosaic.products}
    assert endings == {"i2d.fits", "crf.fits", "cat.ecsv", "segm.fits", "asn.json"}


def test_nothing_is_left_over(chain):
    hidden = chain.output_dir / ".jwst_stage"
    assert not (hidden / "scratch").exists()
    assert not list(chain.output_dir.rglob("*.tmp"))
    known = {p["file"] for r in read_records(chain.output_dir).values() for p in r.products}
    logs = {log_path(n, "").as_posix() for n in chain.manifest["task"]}
    found = {p.relative_to(chain.output_dir).as_posix() for p in chain.output_dir.glob("stage?/*")}
    assert found == known | logs


def test_manifest_is_kept(chain):
    kept = Table.read(chain.output_dir / "manifest.ecsv")
    assert kept.colnames == chain.manifest.colnames
    assert list(kept["sha256"]) == list(chain.manifest["sha256"])
    assert list(kept["key"]) == list(chain.manifest["key"])


def test_checks(chain):
    checks = dict(zip(chain.manifest["task"], chain.manifest["checks"], strict=True))
    for name, told in checks.items():
        if name.startswith("stage1"):
            assert told == "whole ok; jump ok"
        elif name.startswith("stage2"):
            assert told == "whole ok; photom ok"
        else:
            assert told == "whole ok; photom ok; tweakreg ok; source_catalog ok"
    record = read_record(chain.output_dir, chain.manifest["task"][-1])
    (aligned,) = (line for line in record.checks if line["check"] == "tweakreg")
    assert aligned["message"].startswith("3 of 3 groups aligned to the reference, with")


def test_logs(chain):
    for name in chain.manifest["task"]:
        text = log_path(name, chain.output_dir).read_text()
        assert f"{name}: " in text
        assert "Pipeline done" in text
        assert "jwst.stpipe.core" in text


def test_cal_logs_are_kept_in_the_products(chain):
    from stdatamodels.jwst import datamodels

    for ending, step in (("_rate.fits", "jump"), ("_cal.fits", "photom")):
        with datamodels.open(chain.product(ending)[0]) as model:
            logs = model.cal_logs.instance
            lines = [line for lines in logs.values() for line in lines]
            assert len(lines) > 20
            assert any(f"Step {step} done" in line for line in lines)


def test_history_has_the_key_and_survives_jwst(chain, tmp_path):
    from stdatamodels.jwst import datamodels

    keys = dict(zip(chain.manifest["task"], chain.manifest["key"], strict=True))
    for name, record in read_records(chain.output_dir).items():
        for product in record.products:
            if product["file"].endswith(".fits"):
                history = list(fits.getheader(chain.output_dir / product["file"])["HISTORY"])
                assert history[-1] == f"key {keys[name]}"
    path = chain.product("_cal.fits")[0]
    # The keys of the stages before are still there.
    before = f"key {keys['stage1/' + path.name.replace('_cal', '_rate')]}"
    with datamodels.open(path) as model:
        model.save(tmp_path / "again_cal.fits")
    history = list(fits.getheader(tmp_path / "again_cal.fits")["HISTORY"])
    assert f"key {keys[f'stage2/{path.name}']}" in history
    assert before in history


def test_records(chain):
    task = chain.plan.tasks[0]
    record = read_record(chain.output_dir, task.name)
    assert record.state == "done"
    assert record.context == chain.observation.crds_context
    assert record.environment == {
        "CRDS_PATH": str(chain.observation.crds_path),
        "CRDS_CONTEXT": chain.observation.crds_context,
    }
    assert set(record.versions) >= {"jwst", "stcal", "stdatamodels", "crds"}
    assert key(record.fingerprint) in chain.manifest["key"]
    assert record.references["dark"].startswith("jwst_nircam_dark_")
    assert 0.1 < record.memory_gb < 1
    steps = {step["step"]: step for step in record.steps}
    assert steps["jump"]["status"] == "COMPLETE"
    assert steps["jump"]["seconds"] > 0
    assert steps["persistence"]["status"] == "SKIPPED"
    assert list(steps)[:2] == ["group_scale", "dq_init"]


def test_parameters_of_crds_are_in_force(chain):
    # `run` instead of `call` would give the package's own default.
    for task in chain.plan.tasks:
        told = read_record(chain.output_dir, task.name).parameters["steps"]
        for step, values in chain.resolution.crds[task.name].items():
            for name, value in values.items():
                if name in told.get(step, {}) and not isinstance(value, (list, dict)):
                    assert str(told[step][name]) == str(value)
    assert any(chain.resolution.crds.values())


def test_steps_may_not_start_processes(chain):
    told = read_record(chain.output_dir, chain.plan.tasks[0].name).parameters["steps"]
    assert told["jump"]["maximum_cores"] == told["ramp_fit"]["maximum_cores"] == "none"


def test_association_is_kept_with_relative_names(chain):
    (path,) = chain.product("_asn.json")
    association = json.loads(path.read_text())
    (product,) = association["products"]
    assert f"{product['name']}_asn.json" == path.name
    for member in product["members"]:
        assert member["expname"].startswith("../stage2/")
        assert (path.parent / member["expname"]).is_file()
    header = fits.getheader(chain.product("sub160_i2d.fits")[0])
    assert header["ASNTABLE"] == path.name


def test_status_of_a_finished_run(chain):
    table = status(chain.output_dir)
    assert list(table["task"]) == [task.name for task in chain.plan.tasks]
    assert set(table["state"]) == {"done"}
    assert not any(table["step"])
    assert table.meta["state"] == "finished"
    assert table.meta["context"] == chain.observation.crds_context
    assert table.meta["environment"]["CRDS_PATH"] == str(chain.observation.crds_path)


def test_second_run_does_nothing(chain):
    from astroquery_lis.jwst_stage.running.run import run

    def moments():
        return {path: path.stat().st_mtime_ns for path in chain.output_dir.glob("stage?/*")}

    before = moments()
    manifest = run(
        Reduction(chain.plan, chain.output_dir, chain.resolution),
        # Not even a process is started.
        executor=Refusing(),
        show_progress=False,
    )
    assert set(manifest["Status"]) == {"CACHED"}
    assert moments() == before
    assert list(manifest["key"]) == list(chain.manifest["key"])
    assert set(status(chain.output_dir)["state"]) == {"cached"}


class Refusing(Executor):
    """An executor that must not be asked."""

    def submit(self, *args, **kwargs):
        msg = "a process was to be started"
        raise AssertionError(msg)


@pytest.fixture
def states_of(chain, stage_cache):
    """A function that tells how the finished run stands to another plan."""
    from astroquery_lis.jwst_stage.planning.make_plan import make_plan

    def states(files=chain.observation.uncals, **changes):
        with conf.set_temp("cache_dir", stage_cache):
            plan = make_plan(files, output_dir=chain.output_dir, **changes)
        return assess(Reduction(plan, chain.output_dir))

    return states


def by_stage(states):
    found = {1: [], 2: [], 3: []}
    for name, state in states.items():
        found[int(name[5])].append(state.state)
    return found


def test_nothing_is_stale(chain):
    states = assess(Reduction(chain.plan, chain.output_dir, chain.resolution))
    assert {state.state for state in states.values()} == {"done"}


def test_parameter_of_stage_2_leaves_stage_1(states_of):
    states = states_of(steps={"resample": {"pixel_scale": 0.05}})
    found = by_stage(states)
    assert found[1] == ["done"] * 4
    assert found[3] == ["stale"]
    reasons = {state.reason for state in states.values() if state.state == "stale"}
    assert any("resample.pixel_scale" in reason for reason in reasons)


@pytest.fixture
def copied(chain, tmp_path):
    """Copies of the uncal files, of which the second may be changed."""
    paths = []
    for path in chain.observation.uncals:
        paths.append(tmp_path / path.name)
        paths[-1].write_bytes(path.read_bytes())
    return paths


def test_one_changed_input(states_of, copied):
    with fits.open(copied[1], mode="update") as hdul:
        hdul["SCI"].data[0, 3, 50, 50] += 1
    states = states_of(files=copied)
    stale = [name for name, state in states.items() if state.state == "stale"]
    assert len(stale) == 3
    assert all("00002_" in name for name in stale[:2])
    assert stale[2].startswith("stage3/")
    assert states[stale[0]].reason == f"input {copied[1].name} changed"


def test_time_stamp_alone_changes_nothing(states_of, copied):
    for path in copied:
        with fits.open(path, mode="update") as hdul:
            hdul[0].header["DATE"] = "2030-01-01T00:00:00.000"
    states = states_of(files=copied)
    assert {state.state for state in states.values()} == {"done"}


@pytest.fixture(scope="module")
def newer(chain):
    """The plan with a context that has another flat and nothing else."""
    from astroquery_lis.jwst_stage.crds_cache import CrdsEnvironment
    from astroquery_lis.jwst_stage.references import resolve

    context = chain.observation.new_context(("flat",))
    environment = CrdsEnvironment(str(chain.observation.crds_path), context)
    return resolve(chain.plan, environment, offline=True)


def test_new_flat_leaves_stage_1(chain, newer):
    states = assess(Reduction(chain.plan, chain.output_dir, newer))
    assert newer.context != chain.resolution.context
    assert by_stage(states) == {1: ["done"] * 4, 2: ["stale"] * 4, 3: ["stale"]}
    reason = states[chain.plan.tasks[4].name].reason
    assert reason.startswith("reference flat jwst_nircam_flat_")
    assert " -> jwst_nircam_flat_" in reason


@pytest.mark.slow
def test_new_flat_run(chain, newer, chain_copy):
    from astroquery_lis.jwst_stage.running.run import run

    manifest = run(Reduction(chain.plan, chain_copy, newer), show_progress=False)
    assert list(manifest["Status"]) == ["CACHED"] * 4 + ["COMPLETE"] * 5
    flats = [read_record(chain_copy, name).references["flat"] for name in manifest["task"][4:8]]
    assert len(set(flats)) == 1
    assert flats[0] != read_record(chain.output_dir, manifest["task"][4]).references["flat"]


@pytest.mark.slow
def test_two_channels_make_two_mosaics(planned, tmp_path):
    from astroquery_lis.jwst_stage.crds_cache import CrdsEnvironment
    from astroquery_lis.jwst_stage.running.run import run
    from astroquery_lis.sandbox.jwst import simulate

    both = simulate(filters=("F200W", "F356W"), dithers=3)
    environment = CrdsEnvironment(str(both.crds_path), both.crds_context)
    plan, resolution = planned(both.uncals, environment, output_dir=tmp_path)
    manifest = run(Reduction(plan, tmp_path, resolution), show_progress=False)
    assert set(manifest["Status"]) == {"COMPLETE"}
    mosaics = [row for row in manifest if row["stage"] == 3]
    filters = {fits.getheader(row["Local Path"])["FILTER"] for row in mosaics}
    assert filters == {"F200W", "F356W"}
    assert all("tweakreg ok" in row["checks"] for row in mosaics)


@pytest.mark.slow
def test_the_preset_for_little_memory_makes_the_same_image_of_less(chain):
    import tracemalloc

    from jwst.step import ResampleStep

    from astroquery_lis.jwst_stage.parameters import PRESETS

    (source, *_) = chain.product("_cal.fits")
    ways = ({}, PRESETS["low-memory"]["steps"]["image3"]["resample"])
    # What the first run imports is not counted.
    for values in ways:
        ResampleStep(**values).process(str(source)).close()
    images, peaks = [], []
    for values in ways:
        tracemalloc.start()
        with ResampleStep(**values).process(str(source)) as model:
            images.append(model.data.copy())
            error = model.err.copy()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 0.9 * peaks[0]
    shift = np.abs(images[1] - images[0]) / error
    assert np.array_equal(*map(np.isfinite, images))
    assert np.nanmax(shift) < 1e-3
