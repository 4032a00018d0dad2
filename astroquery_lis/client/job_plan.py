"""Many targets put into jobs: what each is asked, by brick, tested against the footprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import catalogs, images
from ..exceptions import InvalidRequestError
from ..io.jobs import Result
from ..survey.bricks import brick_id, name_of, region_of_brick
from ..survey.request import CutoutRequest

if TYPE_CHECKING:
    from ..images.access import Access
    from ..images.cutting import BulkSpec, CutoutJob
    from .by_row import ByRow
    from .inputs import Targets

PICTURE_OUTPUTS = ("png", "jpeg")

SAMPLE_STEP_DEG = 0.2
"""Boxes are sampled more densely than bricks are wide, so that no brick is passed over."""

POLE_DEG = 85.0
"""Beyond this declination the footprint is not asked; the files decide."""

Footprint = Mapping[tuple[str, str], np.ndarray]
"""The sorted ids of the bricks of a release and region."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What is asked for every row: requests that differ in more than the position, and whose."""

    templates: tuple[CutoutRequest, ...]
    kinds: np.ndarray

    def by_tree(self) -> Iterator[tuple[CutoutRequest, np.ndarray]]:
        """Yield one request of each release and region, and which rows are of those."""
        trees: dict[tuple[Any, ...], list[int]] = {}
        for kind, request in enumerate(self.templates):
            name = request.release.name if request.release else None
            trees.setdefault((name, request.region, is_of_bricks(request)), []).append(kind)
        for kinds in trees.values():
            yield self.templates[kinds[0]], np.isin(self.kinds, kinds)


def as_asked(
    make: Callable[..., CutoutRequest], by_row: Mapping[str, ByRow], placed: np.ndarray
) -> Asked:
    """Return what is asked for every row that has a position; each kind is checked once."""
    kinds = np.zeros(len(placed), np.intp)
    if not by_row or not placed.any():
        return Asked((make(),), kinds)
    numbers = np.array([option.of_row[placed] for option in by_row.values()])
    distinct, first, inverse = np.unique(numbers, axis=1, return_index=True, return_inverse=True)
    kinds[placed] = inverse.ravel()
    templates = []
    for column, row in zip(distinct.T, np.flatnonzero(placed)[first], strict=True):
        values = {
            name: option.values[number]
            for (name, option), number in zip(by_row.items(), column, strict=True)
        }
        try:
            templates.append(make(**values))
        except InvalidRequestError as error:
            msg = f"Row {row}: {error}"
            raise InvalidRequestError(msg, parameter=error.parameter, value=error.value) from error
    return Asked(tuple(templates), kinds)


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

    targets: Targets
    asked: Asked
    no_data: np.ndarray
    order: np.ndarray
    bounds: list[int]

    def jobs(self) -> Iterator[CutoutJob]:
        """Yield a `CutoutJob` for each piece of the work."""
        for start, stop in zip(self.bounds, self.bounds[1:], strict=False):
            yield self.job(self.order[start:stop])

    def job(self, rows: np.ndarray) -> CutoutJob:
        """Return a job of some rows."""
        numbers, kinds = np.unique(self.asked.kinds[rows], return_inverse=True)
        templates = tuple(self.asked.templates[number] for number in numbers)
        ids, ra_deg, dec_deg = self.targets.ids, self.targets.ra_deg, self.targets.dec_deg
        return images.cutting.CutoutJob(
            rows, ids[rows], ra_deg[rows], dec_deg[rows], templates, kinds
        )


def plan_cutouts(
    targets: Targets,
    rows: np.ndarray,
    asked: Asked,
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
    rows = rows[targets.placed[rows]]
    ra, dec = targets.ra_deg[rows], targets.dec_deg[rows]
    brick = brick_id(ra, dec)
    covered = np.ones(len(rows), bool)
    for request, where in Asked(asked.templates, asked.kinds[rows]).by_tree():
        if is_of_bricks(request):
            covered[where] = _covered(brick[where], request, footprint)
    if on_missing == "warn" and not covered.all():
        # A target counts as long as some brick of its box is there, and not only its own.
        lost = np.flatnonzero(~covered)
        part = Asked(asked.templates, asked.kinds[rows[lost]])
        covered[lost] = _touches(ra[lost], dec[lost], part, footprint)
    no_data = np.sort(rows[~covered])
    rows, dec, brick = rows[covered], dec[covered], brick[covered]
    by_brick = np.lexsort((dec, brick))
    sizes = np.diff(np.flatnonzero(np.diff(brick[by_brick], prepend=-1, append=-1)))
    bounds = job_bounds(sizes, targets_per_job, max_targets)
    return BulkPlan(targets, asked, no_data, rows[by_brick], bounds)


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
            is_there[in_region] = catalogs.brick_rows.holds(ids, unique[in_region])
    return is_there[inverse.reshape(brick.shape)]


def _touches(ra: np.ndarray, dec: np.ndarray, asked: Asked, footprint: Footprint) -> np.ndarray:
    """Return which boxes touch a brick that is there."""
    extents = np.array([_half_extent_deg(request) for request in asked.templates])
    half_y, half_x = extents[asked.kinds].T
    shrink = np.cos(np.radians(np.minimum(np.abs(dec) + half_y, POLE_DEG)))
    touched = np.abs(dec) + half_y >= POLE_DEG
    for request, where in asked.by_tree():
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
    targets, asked = plan.targets, plan.asked
    for row in rows[~targets.placed[rows]].tolist():
        message = "The row has no position on the sky."
        release = asked.templates[0].release
        name = release.name if release is not None and len(asked.templates) == 1 else ""
        yield Result(row, "SKIPPED", message=message, id=_item(targets.ids[row]), release=name)
    job = plan.job(plan.no_data)
    for index, row in enumerate(plan.no_data.tolist()):
        facts, brick = job.facts(index), name_of(job.bricks[index])
        message = (
            f"{facts['release']} has no data at RA {job.ra_deg[index]:.6f}, "
            f"Dec {job.dec_deg[index]:+.6f}: its table of bricks lacks {brick}."
        )
        yield Result(row, "NODATA", message=message, **facts)


_SAME_FOR_ALL = ("products", "bands", "wise_grid", "convert_flux", "rotation_deg", "to_sky")


def identity_of_job(
    spec: BulkSpec, asked: Asked, targets: Targets, output: str, access: Access
) -> dict[str, object]:
    """Return what makes one long job differ from another.

    Which of the official mirrors serves the files does not; a mirror of one's own does, or cutouts
    of a simulated sky could be taken for those of the real one.
    """
    digest = hashlib.sha256()
    for values in (targets.ra_deg, targets.dec_deg):
        digest.update(np.asarray(values, "<f8").tobytes())
    digest.update(json.dumps(targets.ids.tolist()).encode())

    def of_rows(values: list[Any]) -> object:
        """Return the value of all, or a digest of those of each row."""
        texts = [json.dumps(value) for value in values]
        if len(set(texts)) == 1:
            return values[0]
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        of_kind = np.array([numbers[text] for text in texts], "<i8")
        text = json.dumps(list(numbers)).encode() + of_kind[asked.kinds].tobytes()
        return f"by row, {hashlib.sha256(text).hexdigest()[:12]}"

    requests = asked.templates
    return {
        "targets": digest.hexdigest()[:32],
        "number of targets": len(targets),
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


def bytes_of_cutout(asked: Asked) -> int:
    """Return about how much memory the largest cutout takes."""

    def n_bands(request: CutoutRequest) -> int:
        whole = request.layer or request.release
        return len(request.bands or (whole.bands if whole is not None else ()) or "grz")

    return max(4 * r.ny * r.nx * len(r.products) * n_bands(r) for r in asked.templates)


def _item(value: Any) -> str | int:
    return value.item() if isinstance(value, np.generic) else value
