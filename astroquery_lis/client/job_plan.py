"""Many targets put into jobs: grouped by brick, tested against the footprint, without a request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..catalogs.brick_rows import holds
from ..images.save import Access, BulkSpec, CutoutJob, target_facts
from ..io.jobs import Result
from ..survey.bricks import brick_id, name_of, region_of_brick
from ..survey.releases import PIXEL_SCALE_ARCSEC, get_release

if TYPE_CHECKING:
    from .inputs import Targets

__all__ = [
    "BulkPlan",
    "bytes_of_cutout",
    "identity_of_job",
    "job_bounds",
    "plan_cutouts",
    "results_without_work",
]

MAX_TARGETS_PER_JOB = 512
"""A brick with more is shared among jobs, each a band of declination."""

SAMPLE_STEP_DEG = 0.2
"""Boxes are sampled more densely than bricks are wide, so that no brick is passed over."""

POLE_DEG = 85.0
"""Beyond this declination the footprint is not asked; the files decide."""


@dataclass(frozen=True, eq=False)
class BulkPlan:
    """What is to be done for many targets.

    ``no_data`` are the rows of which the release has no brick, ``order`` the others, by brick and
    then by declination; ``bounds`` says where in ``order`` each job begins, and the end.
    """

    targets: Targets
    no_data: np.ndarray
    order: np.ndarray
    bounds: list[int]

    def jobs(self) -> Iterator[CutoutJob]:
        """Yield a `CutoutJob` for each piece of the work."""
        ids, ra_deg, dec_deg = self.targets.ids, self.targets.ra_deg, self.targets.dec_deg
        for start, stop in zip(self.bounds, self.bounds[1:], strict=False):
            rows = self.order[start:stop]
            yield CutoutJob(rows, ids[rows], ra_deg[rows], dec_deg[rows])


def plan_cutouts(
    targets: Targets,
    rows: np.ndarray,
    spec: BulkSpec,
    footprint: Mapping[str, np.ndarray],
    *,
    targets_per_job: int = 1,
    max_targets: int = MAX_TARGETS_PER_JOB,
) -> BulkPlan:
    """Put those rows of targets that have a position into jobs.

    ``footprint`` has the sorted ids of the bricks of each region; a region that is not in it may
    have any.  Bricks with fewer targets than ``targets_per_job`` share a job, next to one another;
    those with more than ``max_targets`` are split.
    """
    rows = rows[targets.placed[rows]]
    ra, dec = targets.ra_deg[rows], targets.dec_deg[rows]
    brick = brick_id(ra, dec)
    covered = _covered(brick, spec, footprint)
    if spec.on_missing == "warn" and not covered.all():
        # A target counts as long as some brick of its box is there, and not only its own.
        lost = np.flatnonzero(~covered)
        covered[lost] = _touches(ra[lost], dec[lost], spec, footprint)
    no_data = np.sort(rows[~covered])
    rows, dec, brick = rows[covered], dec[covered], brick[covered]
    by_brick = np.lexsort((dec, brick))
    sizes = np.diff(np.flatnonzero(np.diff(brick[by_brick], prepend=-1, append=-1)))
    bounds = job_bounds(sizes, targets_per_job, max_targets)
    return BulkPlan(targets, no_data, rows[by_brick], bounds)


def _covered(brick: np.ndarray, spec: BulkSpec, footprint: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return which bricks the region that is official for each, or was named, has."""
    unique, inverse = np.unique(brick, return_inverse=True)
    if spec.region == "auto":
        regions = region_of_brick(unique, get_release(spec.release).name)
    else:
        regions = np.full(unique.shape, spec.region)
    is_there = np.ones(unique.shape, bool)
    for name, ids in footprint.items():
        in_region = regions == name
        is_there[in_region] = holds(ids, unique[in_region])
    return is_there[inverse.reshape(brick.shape)]


def _touches(
    ra: np.ndarray, dec: np.ndarray, spec: BulkSpec, footprint: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return which boxes touch a brick that is there."""
    half_y, half_x = (0.5 * n * PIXEL_SCALE_ARCSEC / 3600 for n in (spec.ny, spec.nx))
    shrink = np.cos(np.radians(np.minimum(np.abs(dec) + half_y, POLE_DEG)))
    touched = np.abs(dec) + half_y >= POLE_DEG
    for y in _samples(half_y):
        for x in _samples(half_x):
            brick = brick_id(ra + x / shrink, np.clip(dec + y, -90, 90))
            touched |= _covered(brick, spec, footprint)
    return touched


def _samples(half_deg: float) -> np.ndarray:
    return np.linspace(-half_deg, half_deg, 2 + int(2 * half_deg / SAMPLE_STEP_DEG))


def job_bounds(sizes: Sequence[int] | np.ndarray, least: int, most: int) -> list[int]:
    """Return where jobs begin in a row of groups, and the end.

    Groups of ``sizes`` targets are joined until a job has ``least``; a group that has more than
    ``most`` is cut into equal parts.

    >>> from astroquery_lis.client.job_plan import job_bounds
    >>> job_bounds([1, 2, 30, 1, 900], 3, 512)
    [0, 3, 33, 34, 484, 934]
    """
    bounds, end = [0], 0
    for size in np.asarray(sizes).tolist():
        if size > most:
            if end > bounds[-1]:
                bounds.append(end)
            parts = -(-size // most)
            bounds += [end + size * (i + 1) // parts for i in range(parts)]
        elif end + size - bounds[-1] >= least:
            bounds.append(end + size)
        end += size
    if end > bounds[-1]:
        bounds.append(end)
    return bounds


# ---- what is known of the targets without any work ----------------------------------------------


def results_without_work(plan: BulkPlan, spec: BulkSpec, rows: np.ndarray) -> Iterator[Result]:
    """Yield the results of those rows that no file is needed for."""
    targets = plan.targets
    for row in rows[~targets.placed[rows]].tolist():
        name = _item(targets.ids[row])
        message = "The row has no position on the sky."
        yield Result(row, "SKIPPED", message=message, id=name, release=spec.release)
    for row in plan.no_data.tolist():
        ra_deg, dec_deg = float(targets.ra_deg[row]), float(targets.dec_deg[row])
        known = target_facts(spec, _item(targets.ids[row]), ra_deg, dec_deg)
        message = (
            f"{spec.release} has no data at RA {ra_deg:.6f}, Dec {dec_deg:+.6f}: its table of "
            f"bricks lacks {name_of(brick_id(ra_deg, dec_deg))}."
        )
        yield Result(row, "NODATA", message=message, **known)


def identity_of_job(
    spec: BulkSpec, targets: Targets, output: str, access: Access
) -> dict[str, object]:
    """Return what makes one long job differ from another.

    Which of the official mirrors serves the files does not; a mirror of one's own does, or cutouts
    of a simulated sky could be taken for those of the real one.
    """
    digest = hashlib.sha256()
    for values in (targets.ra_deg, targets.dec_deg):
        digest.update(np.asarray(values, "<f8").tobytes())
    digest.update(json.dumps(targets.ids.tolist()).encode())
    return {
        "targets": digest.hexdigest()[:32],
        "number of targets": len(targets),
        "size": [spec.ny, spec.nx],
        "products": spec.products,
        "bands": spec.bands,
        "release": spec.release,
        "region": spec.region,
        "on_missing": spec.on_missing,
        "output": output,
        "files of": sorted({mirror.root_name for mirror in access.mirrors}),
    }


def bytes_of_cutout(spec: BulkSpec) -> int:
    """Return about how much memory a cutout takes."""
    bands = spec.bands or get_release(spec.release).bands
    return 4 * spec.ny * spec.nx * len(spec.products) * len(bands)


def _item(value: Any) -> str | int:
    return value.item() if isinstance(value, np.generic) else value
