"""Estimates, against what was measured with jwst 3.0 on full frames."""

from types import SimpleNamespace

import pytest

from astroquery_lis.jwst_stage.pipelines import (
    image3_memory_gb,
    stage1_estimate,
    stage2_estimate,
    stage3_estimate,
    with_references,
)
from astroquery_lis.jwst_stage.planning import Plan
from astroquery_lis.jwst_stage.planning.exposures import Exposure
from astroquery_lis.jwst_stage.tasks import Task

MB = 1_000_000


def full_frame(groups, **more):
    return Exposure("/x", "x", "uncal", size_bytes=groups * 8 * MB + 2 * MB, n_groups=groups,
                    shape=(2048, 2048), **more)  # fmt: skip


@pytest.mark.parametrize(
    ("groups", "dark_bytes", "measured_gb"),
    [(4, 0, 1.46), (6, 0, 1.9), (8, 0, 2.26), (10, 0, 2.69), (8, 3_150 * MB, 4.13)],
)
def test_memory_of_stage_1(groups, dark_bytes, measured_gb):
    found = stage1_estimate(full_frame(groups), dark_bytes=dark_bytes)
    assert found.memory_gb == pytest.approx(measured_gb, rel=0.12)


@pytest.mark.parametrize(("groups", "measured_s"), [(4, 36), (8, 41), (10, 61)])
def test_seconds_of_stage_1(groups, measured_s):
    assert stage1_estimate(full_frame(groups)).seconds == pytest.approx(measured_s, rel=0.25)


def test_disk_of_full_frames():
    exposure = full_frame(6)
    assert stage1_estimate(exposure).disk_gb == pytest.approx(0.084, rel=0.02)
    assert stage2_estimate(exposure, resample=False).disk_gb == pytest.approx(0.118, rel=0.02)
    assert stage2_estimate(exposure).disk_gb == pytest.approx(2 * 0.118, rel=0.02)


def test_memory_of_stage_2():
    found = stage2_estimate(full_frame(6), resample=False)
    assert found.memory_gb == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize(
    ("n", "output", "measured_gb"),
    [
        (2, 2200 * 2200, 1.3),
        (6, 3105 * 3108, 1.97),
        (12, 3105 * 3108, 2.71),
    ],
)
def test_memory_of_a_mosaic(n, output, measured_gb):
    # Those of 6 and 12 exposures were measured with cal files of 96 MB.
    pixels = 2048 * 2048 if n == 2 else 96 * MB // 28
    found = image3_memory_gb(n, pixels, output)
    assert found == pytest.approx(measured_gb, rel=0.2)


def test_cubes():
    # A star in both channels of MIRI's short detector, drizzled.
    field = Exposure("/x", "x", "rate", exp_type="MIR_MRS", shape=(1024, 1032))
    calibrated = stage2_estimate(field)
    assert calibrated.memory_gb == pytest.approx(0.884, rel=0.1)
    assert calibrated.disk_gb == pytest.approx(0.109, rel=0.1)
    assert calibrated.seconds == pytest.approx(22.4, rel=0.25)
    for n, memory_gb, disk_gb, seconds in ((1, 0.728, 0.095, 22.0), (2, 2.233, 0.133, 39.6)):
        combined = stage3_estimate([field] * n)
        assert combined.memory_gb == pytest.approx(memory_gb, rel=0.1)
        assert combined.disk_gb == pytest.approx(disk_gb, rel=0.2)
        assert combined.seconds == pytest.approx(seconds, rel=0.25)


@pytest.mark.parametrize(("n_ints", "memory_gb", "seconds"), [(56, 1.312, 7.1), (120, 2.503, 13.6)])
def test_time_series_of_images(n_ints, memory_gb, seconds):
    # Frames of 512 pixels on a side, in one segment.
    series = Exposure("/x", "x", "calints", is_tso=True, n_ints=n_ints, shape=(512, 512))
    combined = stage3_estimate([series])
    assert memory_gb < combined.memory_gb < 1.25 * memory_gb
    assert combined.seconds == pytest.approx(seconds, rel=0.7)
    assert combined.disk_gb == pytest.approx(28 * n_ints * 512**2 / 1e9, rel=0.01)


def test_small_frames_take_what_the_imports_take():
    exposure = Exposure("/x", "x", "uncal", size_bytes=350_000, n_groups=10, shape=(128, 128))
    assert 0.4 < stage1_estimate(exposure).memory_gb < 0.42
    assert stage3_estimate([exposure] * 4).memory_gb < 0.52


def test_the_dark_that_a_task_will_use_counts():
    exposure = full_frame(8)
    task = Task("stage1/x_rate.fits", 1, pipeline="Detector1Pipeline", exposures=("x",),
                configuration="c", estimate=stage1_estimate(exposure))  # fmt: skip

    def resolved(**dark):
        return SimpleNamespace(references={task.name: {"dark": dark}})

    plan = Plan((exposure,), (task,))
    long = with_references(task, plan, resolved(name="d.fits", bytes=3_150 * MB))
    assert long.estimate.memory_gb == pytest.approx(4.21, 0.01)
    assert with_references(task, plan, resolved(name="N/A")) == task
