"""What a call for many cutouts does: its targets as jobs by brick, who does them, and where."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from multiprocessing import current_process
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import log

from .. import catalogs, images, io
from ..exceptions import (
    CacheError,
    IncompleteMirrorError,
    InvalidRequestError,
    NoCoverageError,
    refuse,
)
from ..io.jobs import Result, failure, run
from ..io.journal import Journal
from ..io.whole_files import is_full, remove_temporaries
from ..io.workers import cores, map_jobs
from ..survey.bricks import brick_id, name_of, region_of_brick
from .inputs import as_path

if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from .._typing import Executor, FilePath, HDUList, Table
    from ..images.cutting import BulkSpec, CutoutJob
    from ..images.sources import Access, Sources
    from ..io.workers import Mapped
    from ..survey.request import CutoutRequest

    Workers: TypeAlias = Executor | Literal["threads", "processes"] | None


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

    >>> from astroquery_lis.client.bulk import job_bounds
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


_OF_REQUESTS: dict[str, Callable[[CutoutRequest], object]] = {
    "size": lambda r: [r.ny, r.nx],
    **{
        name: attrgetter(name)
        for name in ("products", "bands", "wise_grid", "convert_flux", "rotation_deg", "to_sky")
    },
    "release": lambda r: r.release and r.release.name,
    "region": attrgetter("region"),
    "layer": lambda r: [layer.name for layer in r.layers],
    "pixel_scale": attrgetter("pixel_scale_arcsec"),
    "wcs": lambda r: "" if r.rotation_deg else r.wcs,
}
"""What of the requests makes one long job differ from another."""


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
    return {
        "targets": digest.hexdigest()[:32],
        "number of targets": len(whole),
        **{name: _of_rows(whole, value_of) for name, value_of in _OF_REQUESTS.items()},
        "source": spec.sources,
        "on_missing": spec.on_missing,
        "output": output,
        "mirror": sorted({mirror.place for mirror in access.mirrors}),
    }


def _of_rows(whole: CutoutJob, value_of: Callable[[CutoutRequest], object]) -> object:
    """Return the value that all requests have, or a digest of those of each row."""
    values = list(map(value_of, whole.templates))
    texts = list(map(json.dumps, values))
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    if len(numbers) == 1:
        return values[0]
    of_kind = np.array([numbers[text] for text in texts], "<i8")
    text = json.dumps(list(numbers)).encode() + of_kind[whole.kinds].tobytes()
    return f"by row, {hashlib.sha256(text).hexdigest()[:12]}"


def bytes_of_cutout(whole: CutoutJob) -> int:
    """Return about how much memory the largest cutout takes."""

    def n_bands(request: CutoutRequest) -> int:
        whole = request.layer or request.release
        return len(request.bands or (whole.bands if whole is not None else ()) or "grz")

    return max(4 * r.ny * r.nx * len(r.products) * n_bands(r) for r in whole.templates)


JOURNAL = "cutouts.journal.jsonl"
ARRAY_TARGETS = (256, 512)
"""Fewest targets of a file of arrays, if there are as many, and most."""

STRIP_TARGETS = (64, 1024)
"""A brick with more than the first is shared among workers: smaller strips would decode too much
twice; one with more than the second is cut into strips of so many."""

STRIPS = 4
"""Parts of the only brick of a job.  Tiles along their edges are decoded twice: a fifth of all."""

PROCESSES_BYTES = 500_000_000 if sys.platform == "linux" else 2 << 30
"""Bytes of cutouts from which processes are worth their start: one thread does 200 to 1000 MB in a
second; elsewhere than on Linux each process imports the package."""

SPARSE_TARGETS = 16
"""Bricks with few targets share a job of this many."""

YIELDED_BYTES = 64 << 20
"""Most that the cutouts of a job take that are handed back in memory."""


@dataclass(frozen=True, eq=False)
class BulkJob:
    """What a call asks for, and of whom."""

    whole: CutoutJob
    spec: BulkSpec
    access: Access
    output: str
    label: str

    @property
    def sources(self) -> Sources:
        """Who is asked."""
        return self.access.sources(self.spec.sources)

    def plan(self, rows: np.ndarray, targets_per_job: int, max_targets: int) -> BulkPlan:
        """Return the work for some rows; the tables of bricks may have to be fetched."""
        has_any = np.isfinite(self.whole.ra_deg[rows]).any()
        return plan_cutouts(
            self.whole,
            rows,
            _footprint(self.whole, self.access) if has_any else {},
            on_missing=self.spec.on_missing,
            targets_per_job=targets_per_job,
            max_targets=max_targets,
        )

    def save(
        self,
        download_dir: FilePath,
        executor: Workers,
        on_error: str,
        *,
        show_progress: bool,
    ) -> Table:
        """Do the job in a folder, or what is left of it, and return the manifest."""
        folder = as_path("download_dir", download_dir)
        if folder is None:
            refuse("download_dir", None, "must be the path of a folder.")
        names = np.array([images.cutting.safe_name(name) for name in self.whole.ids.tolist()], str)
        # Some disks take NGC1 and ngc1 for one name.
        is_unique = len(np.unique(np.char.lower(names))) == len(names)
        spec = replace(self.spec, folder=str(folder), ids_are_names=is_unique)
        del names
        encoding = None
        if self.output in PICTURE_OUTPUTS:
            module = import_module("..pictures.rgb", __package__)
            encoding = module.PictureEncoding(self.output)
        identity = identity_of_job(spec, self.whole, self.output, self.access)
        with Journal(folder / JOURNAL, identity) as journal:
            remove_temporaries(folder)
            done = np.fromiter(journal.finished, int)
            rows = np.setdiff1d(self.whole.rows, done, assume_unique=True)
            is_array = self.output in images.array_files.ARRAY_OUTPUTS
            sizes = ARRAY_TARGETS if is_array else (_shared_by(len(rows)), _shared_among(len(rows)))
            plan = self.plan(rows, *sizes)
            workers, in_flight = self._workers(executor, plan, may_start=True)
            results = run(
                partial(
                    images.cutting.save_job,
                    spec,
                    self.access,
                    output=self.output,
                    encoding=encoding,
                ),
                plan.jobs(),
                failed=_failed,
                total=len(self.whole),
                ready=results_without_work(plan, rows),
                journal=journal,
                executor=workers,
                on_error=on_error,
                show_progress=show_progress,
                label=self.label,
                in_flight=in_flight,
            )
            with closing(results):
                for result in results:
                    if is_full(result.error):
                        msg = (
                            f"{result.message} What is whole is kept, and {JOURNAL} tells what: "
                            "make room, and the same call again goes on."
                        )
                        raise CacheError(msg) from result.error
            return journal.manifest("observed", "layer")

    def cutouts(
        self, executor: Workers, on_error: str
    ) -> Iterator[tuple[int, HDUList | Exception]]:
        """Return what yields the cutouts in memory, as they come."""
        rows = self.whole.rows
        most = max(YIELDED_BYTES // bytes_of_cutout(self.whole), 1)
        plan = self.plan(rows, _shared_by(len(rows)), most)
        workers, in_flight = self._workers(executor, plan, may_start=False)
        mapped = map_jobs(
            partial(images.cutting.cutouts_of_job, self.spec, self.access),
            plan.jobs(),
            executor=workers,
            in_flight=in_flight,
        )
        return _yielded(mapped, results_without_work(plan, rows), on_error)

    def _workers(
        self, executor: Workers, plan: BulkPlan, *, may_start: bool
    ) -> tuple[Executor | str | None, int | None]:
        """Return who does the work, and how many jobs at once if that is not theirs to say."""
        in_flight = _in_flight(plan, self.sources)
        is_local = all(mirror.is_local for mirror in self.access.mirrors)
        if in_flight is not None or not is_local:
            return executor, in_flight
        is_long = len(plan.order) * bytes_of_cutout(self.whole) > PROCESSES_BYTES
        # A worker of a pool of somebody else's may have no children.
        may_start = may_start and not current_process().daemon and cores() > 1
        if executor is None and is_long and may_start:
            return "processes", None
        # Threads that decode what is at hand fight for Python's lock: four take twice the time.
        return executor, 1 if executor in (None, "threads") else None


def _footprint(whole: CutoutJob, access: Access) -> dict[tuple[str, str], np.ndarray]:
    """Return the ids of the bricks of each region that there is a table of."""
    footprint = {}
    trees = {
        (request.release.name, region): None
        for request in whole.templates
        if is_of_bricks(request) and request.release is not None
        for region in request.release.regions
        if request.region in ("auto", region)
    }
    with access.finder() as finder:
        for release, region in trees:
            # Without a table the files decide.
            with suppress(IncompleteMirrorError):
                rows = catalogs.brick_tables.region_table(release, region, finder)
                footprint[release, region] = np.array(rows["brickid"])
    return footprint


def _shared_among(n: int) -> int:
    """Return the most targets of a job: so many that one dense brick has work for all cores."""
    return int(np.clip(-(-n // STRIPS), *STRIP_TARGETS))


def _shared_by(n: int) -> int:
    """Return how many targets of sparse bricks share a job: fewer if there are few in all."""
    return int(np.clip(n // 64, 1, SPARSE_TARGETS))


def _failed(job: CutoutJob, error: Exception) -> list[Result]:
    """Return the results of the targets of a job that did not come back."""
    rows = enumerate(job.rows.tolist())
    return [failure(row, error, **job.facts(index)) for index, row in rows]


def _in_flight(plan: BulkPlan, sources: Sources) -> int | None:
    """Return how many jobs may be under way if the viewer is asked; say what that will cost."""
    if not len(plan.order):
        return None
    kinds, counts = np.unique(plan.whole.kinds[plan.order], return_counts=True)
    n_cutouts, n_requests, n_bytes = 0, 0, 0
    for kind, count in zip(kinds, counts.tolist(), strict=True):
        # As most are: in the middle of a brick.
        of_one = sources.viewer_cost(plan.whole.templates[kind].at(0.125, 0.0))
        n_cutouts += count if of_one.n_requests else 0
        n_requests += count * of_one.n_requests
        n_bytes += count * of_one.n_bytes
    if not n_requests:
        return None
    log.info(
        f"{n_cutouts} cutouts are asked of the viewer: about {n_requests} requests and "
        f"{n_bytes / 1e6:.1f} MB, {images.viewer_service.MAX_CONNECTIONS} at a time."
    )
    return images.viewer_service.MAX_CONNECTIONS


def _yielded(
    mapped: Mapped, ready: Iterator[Result], on_error: str
) -> Iterator[tuple[int, HDUList | Exception]]:
    for result in ready:
        kind = NoCoverageError if result.status == "NODATA" else InvalidRequestError
        yield result.row, kind(result.message)
    try:
        for job, cutouts, error in mapped:
            if error is not None:
                cutouts = [(int(row), error) for row in job.rows]
            for row, cutout in cutouts:
                yield _allowed(row, cutout, on_error)
    finally:
        mapped.close()


def _allowed(
    row: int, cutout: HDUList | Exception, on_error: str
) -> tuple[int, HDUList | Exception]:
    """Return one answer, or raise it."""
    failed = isinstance(cutout, Exception) and not isinstance(cutout, NoCoverageError)
    if failed and on_error == "raise":
        raise cutout
    return row, cutout
