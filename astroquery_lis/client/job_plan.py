"""Many targets put into jobs: what each is asked, by brick, tested against the footprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import catalogs, io
from ..survey.bricks import brick_id, name_of, region_of_brick

if TYPE_CHECKING:
    from ..images.cutting import BulkSpec, CutoutJob
    from ..images.sources import Access
    from ..io.jobs import Result
    from ..survey.request import CutoutRequest

PICTURE_OUTPUTS = ("png", "jpeg")

SAMPLE_STEP_DEG = 0.2
"""Boxes are sampled more densely than bricks are wide, so that no brick is passed over."""

POLE_DEG = 85.0
"""Beyond this declination the footprint is not asked; the files decide."""

Footprint = Mapping[tuple[str, str], np.ndarray]
"""The sorted ids of the bricks of a release and region."""


def is_of_bricks(request: CutoutRequest) -> bool:
    """Return True if a target outside the release's bricks certainly has no data."""
    is_grid_apart = bool(request.wcs) and not request.rotation_deg
    return request.release is not None and request.layer is None and not is_grid_apart


@dataclass(frozen=True, eq=False)
class BulkPlan:
    """What is to be done for many targets.

    ``no_data`` are the rows of which the release has no brick, ``order`` the others, by brick and
    then by declination; ``bounds`` says where in ``order`` each job begins, and the end.
    """

    whole: CutoutJob
    no_data: np.ndarray
    order: np.ndarray
    bounds: list[int]

    def jobs(self) -> Iterator[CutoutJob]:
        """Yield a `CutoutJob` for each piece of the work."""
        for start, stop in zip(self.bounds, self.bounds[1:], strict=False):
            yield self.whole.part(self.order[start:stop])


def plan_cutouts(
    whole: CutoutJob,
    rows: np.ndarray,
    footprint: Footprint,
    *,
    on_missing: str = "raise",
    targets_per_job: int = 1,
    max_targets: int = 1024,
) -> BulkPlan:
    """Put those rows of targets that have a position into jobs.

    A release and region that is not in the footprint may have any brick.  Bricks with fewer targets
    than ``targets_per_job`` share a job, next to one another; those with more than ``max_targets``
    are split.
    """
    rows = rows[np.isfinite(whole.ra_deg[rows])]
    job = whole.part(rows)
    covered = np.ones(len(rows), bool)
    for request, where in _by_tree(job):
        if is_of_bricks(request):
            covered[where] = _covered(job.bricks[where], request, footprint)
    if on_missing == "warn" and not covered.all():
        # A target counts as long as some brick of its box is there, and not only its own.
        lost = np.flatnonzero(~covered)
        covered[lost] = _touches(job.part(lost), footprint)
    dec_deg, bricks = job.dec_deg[covered], job.bricks[covered]
    by_brick = np.lexsort((dec_deg, bricks))
    sizes = np.diff(np.flatnonzero(np.diff(bricks[by_brick], prepend=-1, append=-1)))
    bounds = job_bounds(sizes, targets_per_job, max_targets)
    return BulkPlan(whole, np.sort(rows[~covered]), rows[covered][by_brick], bounds)


def _by_tree(job: CutoutJob) -> Iterator[tuple[CutoutRequest, np.ndarray]]:
    """Yield one request of each release and region, and which targets are of those."""
    trees: dict[tuple[Any, ...], list[int]] = {}
    for kind, request in enumerate(job.templates):
        name = request.release.name if request.release else None
        trees.setdefault((name, request.region, is_of_bricks(request)), []).append(kind)
    for kinds in trees.values():
        yield job.templates[kinds[0]], np.isin(job.kinds, kinds)


def _covered(brick: np.ndarray, request: CutoutRequest, footprint: Footprint) -> np.ndarray:
    """Return which bricks the region that is official for each, or was named, has."""
    assert request.release is not None
    release = request.release.name
    unique, inverse = np.unique(brick, return_inverse=True)
    if request.region == "auto":
        regions = region_of_brick(unique, release)
    else:
        regions = np.full(unique.shape, request.region)
    is_there = np.ones(unique.shape, bool)
    for (name, region), ids in footprint.items():
        if name == release:
            in_region = regions == region
            is_there[in_region] = catalogs.brick_tables.holds(ids, unique[in_region])
    return is_there[inverse.reshape(brick.shape)]


def _touches(job: CutoutJob, footprint: Footprint) -> np.ndarray:
    """Return which boxes touch a brick that is there."""
    ra, dec = job.ra_deg, job.dec_deg
    extents = np.array([_half_extent_deg(request) for request in job.templates])
    half_y, half_x = extents[job.kinds].T
    shrink = np.cos(np.radians(np.minimum(np.abs(dec) + half_y, POLE_DEG)))
    touched = np.abs(dec) + half_y >= POLE_DEG
    for request, where in _by_tree(job):
        for y in _samples(half_y[where]):
            for x in _samples(half_x[where]):
                at = ra[where] + x / shrink[where], np.clip(dec[where] + y, -90, 90)
                touched[where] |= _covered(brick_id(*at), request, footprint)
    return touched


def _half_extent_deg(request: CutoutRequest) -> tuple[float, float]:
    """Return how far a cutout reaches north and east of its middle; of a turned one, its corner."""
    half_y, half_x = (0.5 * n * request.pixel_scale_arcsec / 3600 for n in (request.ny, request.nx))
    if request.rotation_deg:
        half_y = half_x = float(np.hypot(half_y, half_x))
    return half_y, half_x


def _samples(half_deg: np.ndarray) -> Iterator[np.ndarray]:
    """Yield offsets from one edge of boxes to the other."""
    n = 2 + int(2 * half_deg.max(initial=0) / SAMPLE_STEP_DEG)
    for share in np.linspace(-1, 1, n):
        yield share * half_deg


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


def results_without_work(plan: BulkPlan, rows: np.ndarray) -> Iterator[Result]:
    """Yield the results of those rows that no file is needed for."""
    whole = plan.whole
    release = whole.templates[0].release
    name = release.name if release is not None and len(whole.templates) == 1 else ""
    for row in rows[~np.isfinite(whole.ra_deg[rows])].tolist():
        message = "The row has no position on the sky."
        yield io.jobs.Result(row, "SKIPPED", message=message, id=whole.target(row)[1], release=name)
    job = whole.part(plan.no_data)
    for index, row in enumerate(plan.no_data.tolist()):
        facts, brick = job.facts(index), name_of(job.bricks[index])
        message = (
            f"{facts['release']} has no data at RA {job.ra_deg[index]:.6f}, "
            f"Dec {job.dec_deg[index]:+.6f}: its table of bricks lacks {brick}."
        )
        yield io.jobs.Result(row, "NODATA", message=message, **facts)


_SAME_FOR_ALL = ("products", "bands", "wise_grid", "convert_flux", "rotation_deg", "to_sky")


def identity_of_job(
    spec: BulkSpec, whole: CutoutJob, output: str, access: Access
) -> dict[str, object]:
    """Return what makes one long job differ from another.

    Which of the official mirrors serves the files does not; a mirror of one's own does, or cutouts
    of a simulated sky could be taken for those of the real one.
    """
    digest = hashlib.sha256()
    for values in (whole.ra_deg, whole.dec_deg):
        digest.update(np.asarray(values, "<f8").tobytes())
    digest.update(json.dumps(whole.ids.tolist()).encode())

    def of_rows(values: list[Any]) -> object:
        """Return the value of all, or a digest of those of each row."""
        texts = [json.dumps(value) for value in values]
        if len(set(texts)) == 1:
            return values[0]
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        of_kind = np.array([numbers[text] for text in texts], "<i8")
        text = json.dumps(list(numbers)).encode() + of_kind[whole.kinds].tobytes()
        return f"by row, {hashlib.sha256(text).hexdigest()[:12]}"

    requests = whole.templates
    return {
        "targets": digest.hexdigest()[:32],
        "number of targets": len(whole),
        "size": of_rows([[r.ny, r.nx] for r in requests]),
        **{name: of_rows([getattr(r, name) for r in requests]) for name in _SAME_FOR_ALL},
        "release": of_rows([r.release and r.release.name for r in requests]),
        "region": of_rows([r.region for r in requests]),
        "layer": of_rows([[one.name for one in r.layers] for r in requests]),
        "pixel_scale": of_rows([r.pixel_scale_arcsec for r in requests]),
        "wcs": of_rows(["" if r.rotation_deg else r.wcs for r in requests]),
        "source": spec.sources,
        "on_missing": spec.on_missing,
        "output": output,
        "mirror": sorted({mirror.place for mirror in access.mirrors}),
    }


def bytes_of_cutout(whole: CutoutJob) -> int:
    """Return about how much memory the largest cutout takes."""

    def n_bands(request: CutoutRequest) -> int:
        whole = request.layer or request.release
        return len(request.bands or (whole.bands if whole is not None else ()) or "grz")

    return max(4 * r.ny * r.nx * len(r.products) * n_bands(r) for r in whole.templates)
