"""What each EXP_TYPE decides: the pipeline of every stage, and what that is expected to need.

The table is ``data/exp_types.toml``; the tests hold it against the lists in the `jwst` package and
in CRDS.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...exceptions import InvalidExposureError
from ..tasks import Estimate, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..refs.references import Resolution
    from .exposures import Exposure
    from .plan import Plan

_IMAGING = ("Detector1Pipeline", "Image2Pipeline", "Image3Pipeline")


@dataclass(frozen=True, slots=True)
class Kind:
    """What one EXP_TYPE decides.

    Attributes
    ----------
    stages : tuple of str, (3,)
        Class of stage 1, of 2, of 3; empty where the chain stops.
    tso : {'', 'visit', 'always'}
        Whether it is a time series: where TSOVISIT says so, or whatever it says.
    is_slitless : bool
        Whether it holds spectra of a field, whose sources a mosaic of direct images tells.
    optics : tuple of str or None
        Keywords of the optics that have to be there, where they are not those of the instrument.
    has_mask : bool
        Whether a coronagraph's mask is in the beam.
    is_retired : bool
        Whether CRDS still lists it, and the data models do not.
    spectra : tuple of str
        Endings of the spectra of stage 3, where a product has one set of them, the main first.
    is_acquisition : bool
        Whether it finds the target, or confirms it.
    """

    stages: tuple[str, str, str]
    tso: str = ""
    is_slitless: bool = False
    optics: tuple[str, ...] | None = None
    has_mask: bool = False
    is_retired: bool = False
    spectra: tuple[str, ...] = ()
    is_acquisition: bool = False


def table_text(name: str) -> str:
    """Return a table of the folder ``data``, as it is written there."""
    path = Path(__file__).parents[1] / "data" / f"{name}.toml"
    return path.read_text(encoding="utf-8")


def _kinds() -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for row in tomllib.loads(table_text("exp_types"))["kind"]:
        types = row.pop("types")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
        kinds |= dict.fromkeys(types, Kind(**values))
    return kinds


EXP_TYPES = _kinds()
"""What every EXP_TYPE decides."""

IMAGING = frozenset(name for name, kind in EXP_TYPES.items() if kind.stages == _IMAGING)
"""Types of plain images."""

STAGE3_SUFFIXES = {
    "Image3Pipeline": ("i2d.fits",),
    "Coron3Pipeline": ("i2d.fits",),
    "Ami3Pipeline": ("aminorm-oi.fits",),
}
"""Endings of the products of those pipelines of stage 3 that give them one name, the main first."""

STAGE3_PIPELINES = {
    "image3": "Image3Pipeline",
    "spec3": "Spec3Pipeline",
    "coron3": "Coron3Pipeline",
    "ami3": "Ami3Pipeline",
    "tso3": "Tso3Pipeline",
    "wfs-image3": "WfsCombineStep",
}
"""The pipeline of each type of associations of stage 3."""


def is_guider(exp_type: str) -> bool:
    """Return True for one of the guider's types."""
    return exp_type in EXP_TYPES and EXP_TYPES[exp_type].stages[0] == "GuiderPipeline"


def pipelines_for(
    exp_type: str, *, is_tso: bool = False, wavefront: bool = False, path: str = ""
) -> tuple[str, str, str]:
    """Return the classes of the three stages of a type, empty where the chain stops."""
    try:
        kind = EXP_TYPES[exp_type]
    except KeyError:
        where = f"{path}: " if path else ""
        msg = f"{where}EXP_TYPE={exp_type!r} is none of {', '.join(sorted(EXP_TYPES))}."
        raise InvalidExposureError(msg, parameter="EXP_TYPE", value=exp_type) from None
    if is_tso and kind.tso == "visit":
        return (*kind.stages[:2], "Tso3Pipeline")
    if wavefront and kind.stages == _IMAGING:
        return (*kind.stages[:2], "WfsCombineStep")
    return kind.stages


# ---- estimates, as measured of the pipelines -----------------------------------------------------

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
