"""What a call for many cutouts does: the jobs, who does them, the folder they are kept in."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy import log

from .. import catalogs, images
from ..exceptions import (
    CacheError,
    IncompleteMirrorError,
    InvalidRequestError,
    NoCoverageError,
)
from ..io.jobs import Result, cores, failure, manifest, map_jobs, run
from ..io.journal import Journal
from ..io.store import is_full, remove_temporaries
from .job_plan import (
    PICTURE_OUTPUTS,
    BulkPlan,
    bytes_of_cutout,
    identity_of_job,
    is_of_bricks,
    plan_cutouts,
    results_without_work,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal, TypeAlias

    from .._typing import Executor, FilePath, HDUList, Table
    from ..images.cutting import BulkSpec, CutoutJob
    from ..images.sources import Access, Sources
    from ..io.jobs import Mapped

    Workers: TypeAlias = Executor | Literal["threads", "processes"] | None

JOURNAL = "cutouts.journal.jsonl"
ARRAY_TARGETS = (256, 512)
"""Fewest targets of a file of arrays, if there are as many, and most."""

STRIP_TARGETS = (64, 1024)
"""A brick with more than the first is shared among workers: smaller strips would decode too much
twice; one with more than the second is cut into strips of so many."""

MOST_STRIPS = 4
"""Tiles along the edges of strips are decoded twice: with four a fifth of all."""

PROCESSES_BYTES = 2 << 30
"""Bytes of cutouts from which processes are worth it: they take a second to start, and threads do a
gigabyte in about two."""

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
        folder = Path(download_dir).expanduser().absolute()
        names = np.array([images.save.safe_name(name) for name in self.whole.ids.tolist()], str)
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
            in_flight = _in_flight(plan, self.sources)
            if in_flight is None:
                executor = self._usual(executor, len(plan.order))
            results = run(
                partial(
                    images.save.save_job, spec, self.access, output=self.output, encoding=encoding
                ),
                plan.jobs(),
                failed=_failed,
                total=len(self.whole),
                ready=results_without_work(plan, rows),
                journal=journal,
                executor=executor,
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
            return manifest(journal.results(), more=("observed", "layer"))

    def cutouts(
        self, executor: Workers, on_error: str
    ) -> Iterator[tuple[int, HDUList | Exception]]:
        """Return what yields the cutouts in memory, as they come."""
        rows = self.whole.rows
        most = max(YIELDED_BYTES // bytes_of_cutout(self.whole), 1)
        plan = self.plan(rows, _shared_by(len(rows)), most)
        mapped = map_jobs(
            partial(images.cutting.cutouts_of_job, self.spec, self.access),
            plan.jobs(),
            executor=executor,
            in_flight=_in_flight(plan, self.sources),
        )
        return _yielded(mapped, results_without_work(plan, rows), on_error)

    def _usual(self, executor: Workers, n: int) -> Workers:
        """Return the executor that was named; processes for long work on local files."""
        is_local = all(mirror.is_local for mirror in self.access.mirrors)
        is_long = n * bytes_of_cutout(self.whole) > PROCESSES_BYTES
        return "processes" if executor is None and is_local and is_long else executor


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
    parts = min(max(cores(), 2), MOST_STRIPS)
    return int(np.clip(-(-n // parts), *STRIP_TARGETS))


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
