"""What tasks are expected to need: seconds, memory and disk, as measured of the pipelines."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from ..tasks import Estimate, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..refs.references import Resolution
    from .exposures import Exposure
    from .plan import Plan

_FULL = 2048 * 2048
_RATE_BYTES = 20
"""Per pixel of a rate file: SCI, ERR, DQ and two variances."""
_CAL_BYTES = 28
"""Per pixel of a cal, crf or i2d file."""
_SEGMENT_BYTES = 4
_INTERPRETER_GB = 0.4
_IFU = ("MIR_MRS", "NRS_IFU")
_CUBE_BYTES = 75
"""Per pixel of the detector of the cubes that are made of it."""


def _rounded(seconds: float, memory_gb: float, disk_gb: float) -> Estimate:
    return Estimate(round(seconds, 1), round(memory_gb, 3), round(disk_gb, 4))


def stage1_estimate(exposure: Exposure, *, dark_bytes: int = 0) -> Estimate:
    """Return what stage 1 of an exposure needs."""
    frames = math.prod(exposure.shape) / _FULL
    images = 1 + (exposure.n_ints if exposure.n_ints > 1 else 0)
    # The highest memory is the jump step's, or that of a long dark.
    uncal_bytes = exposure.size_bytes
    memory_bytes = max(30 * uncal_bytes, dark_bytes + 10 * uncal_bytes)
    return _rounded(
        5 + (15 + 3.3 * exposure.n_groups * exposure.n_ints) * frames,
        _INTERPRETER_GB + memory_bytes / 1e9,
        images * _RATE_BYTES * math.prod(exposure.shape) / 1e9,
    )


def stage2_estimate(
    exposure: Exposure, *, resample: bool = True, integrations: bool = False
) -> Estimate:
    """Return what stage 2 of an exposure needs."""
    images = exposure.n_ints if integrations else 1
    pixels = math.prod(exposure.shape)
    cal_gb = images * _CAL_BYTES * pixels / 1e9
    if exposure.exp_type in _IFU:
        return _rounded(
            5 + 70 * pixels / _FULL,
            _INTERPRETER_GB + 460 * pixels / 1e9,
            cal_gb + _CUBE_BYTES * pixels / 1e9,
        )
    resample = resample and not integrations
    return _rounded(
        2 + (3 + 12 * resample) * images * pixels / _FULL,
        _INTERPRETER_GB + (5 if resample else 1.5) * cal_gb,
        (1 + resample) * cal_gb,
    )


def image3_memory_gb(n_exposures: int, pixels: int, output_pixels: int) -> float:
    """Return the highest memory of a mosaic of exposures that are held in memory."""
    return 0.5 + (1.3 * n_exposures * _CAL_BYTES * pixels + 75 * output_pixels) / 1e9


def stage3_estimate(exposures: Sequence[Exposure], *, output_pixels: int | None = None) -> Estimate:
    """Return what stage 3 of a group of exposures needs, held in memory."""
    pixels = max(math.prod(e.shape) for e in exposures)
    n = sum(e.n_ints if e.is_tso else 1 for e in exposures)
    frames = pixels / _FULL
    if exposures[0].exp_type in _IFU:
        # The medians of outlier_detection, which needs two exposures, hold a window of each pixel.
        per_pixel = 200 * n + (1300 if n > 1 else 0)
        return _rounded(
            5 + 70 * n * frames,
            0.5 + per_pixel * pixels / 1e9,
            (n * _CAL_BYTES + _CUBE_BYTES) * pixels / 1e9,
        )
    if exposures[0].is_tso:
        # No grid, but the medians of outlier_detection beside all integrations.
        memory_gb = 0.5 + 75 * n * pixels / 1e9
        return _rounded(5 + 2 * n * frames, memory_gb, n * _CAL_BYTES * pixels / 1e9)
    output_pixels = output_pixels or round(1.3 * pixels)
    return _rounded(
        5 + (30 * n + 0.3 * n**2) * frames,
        image3_memory_gb(n, pixels, output_pixels),
        (n * _CAL_BYTES * pixels + (_CAL_BYTES + _SEGMENT_BYTES) * output_pixels) / 1e9,
    )


def with_references(task: Task, plan: Plan, resolution: Resolution) -> Task:
    """Return the task with the memory that it needs with the dark that it will use."""
    dark = resolution.references.get(task.name, {}).get("dark", {})
    size = int(dark.get("bytes") or 0)
    if task.stage != 1 or task.kind != "pipeline" or not size:
        return task
    exposure = next(e for e in plan.exposures if e.root == task.exposures[0])
    return replace(task, estimate=stage1_estimate(exposure, dark_bytes=size))
