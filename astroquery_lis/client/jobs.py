"""The methods that cut many targets out of the survey."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .._packages import import_optional
from ..catalogs.brick_tables import region_table
from ..exceptions import IncompleteMirrorError, InvalidRequestError, NoCoverageError
from ..images.save import (
    Access,
    BulkSpec,
    CutoutJob,
    cutouts_of_job,
    safe_name,
    save_job,
    target_facts,
)
from ..io.finder import FileFinder
from ..io.jobs import Result, failure, manifest, map_jobs, run
from ..io.journal import Journal
from ..io.store import remove_temporaries
from ..survey.releases import get_release
from ..survey.request import as_bands, as_choice, as_products, as_region, as_size
from .base import SurveyBase
from .inputs import as_targets
from .job_plan import (
    BulkPlan,
    bytes_of_cutout,
    identity_of_job,
    plan_cutouts,
    results_without_work,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal

    from .._typing import (
        Bands,
        Executor,
        FilePath,
        HDUList,
        Mirror,
        OnMissing,
        Positions,
        Products,
        Region,
        Size,
        Table,
    )


__all__ = ["JobMethods"]

JOURNAL = "cutouts.journal.jsonl"
SHARD_TARGETS = 256
"""Fewest targets of an HDF5 file, if there are as many."""

SPARSE_TARGETS = 16
"""Bricks with few targets share a job of this many."""

YIELDED_BYTES = 64 << 20
"""Most that the cutouts of a job take that are handed back in memory."""


class JobMethods(SurveyBase):
    """Cutouts of many targets."""

    def download_cutouts(
        self,
        table: Positions,
        size: Size = 256,
        *,
        download_dir: FilePath,
        bands: Bands | None = None,
        products: Products = ("image",),
        release: str | None = None,
        region: Region = "auto",
        mirror: Mirror | None = None,
        on_missing: OnMissing = "raise",
        cache: bool | None = None,
        ra: str | None = None,
        dec: str | None = None,
        name: str | None = None,
        id_column: str | None = None,
        output: Literal["fits", "hdf5"] = "fits",
        executor: Executor | Literal["threads", "processes"] | None = None,
        on_error: Literal["record", "raise"] = "record",
        show_progress: bool = True,
    ) -> Table:
        """Cut a box round each of many targets and keep the cutouts in a folder.

        Parameters
        ----------
        table : `~astropy.table.Table` or `~astropy.coordinates.SkyCoord`, shape (n,)
            The targets, or a table of them: of astropy or pandas, a structured array, an HDU or
            the name of a file (ECSV, CSV, FITS, VOTable, Parquet, text).  Its positions are in a
            column of SkyCoord, in two with usual names (``ra`` and ``dec``, ``RAJ2000`` and
            ``DEJ2000``, ``TARGET_RA`` ...) or with the UCDs of positions, in degrees unless they
            have another unit; else in a column of names, each looked up once.  Text with colons or
            three parts is hours and degrees.  A row that is masked, NaN or off the sky (-9999, 99)
            has no position.
        size : int, `~astropy.units.Quantity` ['angle'] or str, scalar or (2,) in (ny, nx), optional
            As for `get_cutout`.
        download_dir : str or path-like
            The folder.  It keeps a journal: the same call again does what is left, and a different
            one is refused.
        bands, products, release, region, mirror, on_missing, cache : optional
            As for `get_cutout`.
        ra, dec : str, optional
            Columns of ``table`` with ICRS positions, or ``ra`` alone for a column of
            `~astropy.coordinates.SkyCoord`; by default they are found by name.
        name : str, optional
            Column of ``table`` with names of objects, or positions as text.
        id_column : str, optional
            Column whose values name the files; by default ``id``, if there is one.
        output : {'fits', 'hdf5'}, optional
            A file for each target, or arrays of many targets in HDF5 files.
        executor : `~concurrent.futures.Executor` or {'threads', 'processes'}, optional
            What does the work; by default threads.  That of a Dask cluster is
            ``client.get_executor()``.
        on_error : {'record', 'raise'}, optional
            Whether a target that fails is recorded and the others go on, or ends the call.  A
            target without data is no failure.
        show_progress : bool, optional
            Whether to show a bar with rate and time left, where stderr is a terminal.

        Returns
        -------
        `~astropy.table.Table`
            One row per target, in order: ``Local Path``, ``Status`` (COMPLETE, NODATA, SKIPPED for
            a row without a position, ERROR), ``Message``, ``URL``, ``id``, ``release``,
            ``region``, ``bands``, ``seconds``, ``bytes``, ``sha256``.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong, or the folder holds another job; nothing was sent.
        OptionalDependencyError
            If ``output='hdf5'`` and h5py is missing.
        TransferError
            If the tables of bricks could not be had; with ``on_error='raise'`` also the error of
            the first target that failed.

        Notes
        -----
        Targets are grouped by brick.  Each tile of a file is fetched once and decoded once in a
        job, and a file is fetched whole when more than 60 % of its tiles are needed.  Pixels are
        those of `get_cutout`.  A target whose brick the release does not have is NODATA at once.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> import tempfile
        >>> from astropy.table import Table
        >>> targets = Table({'ra': [45.09, 95.0], 'dec': [0.062, 10.0]})
        >>> with tempfile.TemporaryDirectory() as folder, sandbox.serve() as sky:
        ...     manifest = LegacySurvey.download_cutouts(
        ...         targets, 32, bands='r', download_dir=folder, show_progress=False)
        INFO: 2 cutouts: 1 complete, 1 without data, in ... s. [astroquery_lis.io.jobs]
        >>> manifest['Status'].tolist()
        ['COMPLETE', 'NODATA']
        """
        as_choice("output", output, ("fits", "hdf5"))
        as_choice("on_error", on_error, ("record", "raise"))
        if output == "hdf5":
            import_optional("h5py", "batch", "output='hdf5'")
        folder = Path(download_dir).expanduser().absolute()
        targets = as_targets(table, id_column, ra=ra, dec=dec, name=name)
        spec = self._bulk_spec(size, bands, products, release, region, on_missing)
        names = np.array([safe_name(name) for name in targets.ids.tolist()])
        spec = replace(spec, folder=str(folder), ids_are_names=len(np.unique(names)) == len(names))
        del names
        access = self._access(mirror, cache)
        identity = identity_of_job(spec, targets, output, access)
        with Journal(folder / JOURNAL, identity) as journal:
            remove_temporaries(folder)
            done = np.fromiter(journal.finished, int)
            rows = np.setdiff1d(np.arange(len(targets)), done, assume_unique=True)
            hdf5 = output == "hdf5"
            least = SHARD_TARGETS if hdf5 else _shared_by(len(rows))
            footprint = self._footprint(spec, access) if targets.placed[rows].any() else {}
            plan = plan_cutouts(targets, rows, spec, footprint, targets_per_job=least)
            results = run(
                partial(save_job, spec, access, output=output),
                plan.jobs(),
                failed=partial(_failed, spec),
                total=len(targets),
                ready=results_without_work(plan, spec, rows),
                journal=journal,
                executor=executor,
                on_error=on_error,
                show_progress=show_progress,
                label="cutouts",
            )
            for _ in results:
                pass
            return manifest(journal.results())

    def iter_cutouts(
        self,
        table: Positions,
        size: Size = 256,
        *,
        bands: Bands | None = None,
        products: Products = ("image",),
        release: str | None = None,
        region: Region = "auto",
        mirror: Mirror | None = None,
        on_missing: OnMissing = "raise",
        cache: bool | None = None,
        ra: str | None = None,
        dec: str | None = None,
        name: str | None = None,
        executor: Executor | Literal["threads", "processes"] | None = None,
        on_error: Literal["record", "raise"] = "raise",
    ) -> Iterator[tuple[int, HDUList | Exception]]:
        """Cut a box round each of many targets and yield the cutouts as they come.

        Memory holds a few jobs' cutouts, however many targets there are.

        Parameters
        ----------
        table, size, bands, products, release, region, mirror, on_missing, cache, ra, dec, name, \
executor
            As for `download_cutouts`.
        on_error : {'raise', 'record'}, optional
            Whether a target that fails ends the iteration, or its error is yielded.

        Yields
        ------
        row : int
            Number of the target in ``table``; not in order.
        hdul : `~astropy.io.fits.HDUList` or Exception
            As `get_cutout` returns it, or the `~astroquery_lis.exceptions.NoCoverageError` that
            says why there is no data, or the `~astroquery_lis.exceptions.InvalidRequestError` of a
            row without a position; with ``on_error='record'`` also any other error.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong; nothing was sent.
        TransferError
            If the tables of bricks could not be had.
        LegacySurveyError
            The error of the first target that failed, unless ``on_error='record'``.

        Warns
        -----
        AstropyWarning
            Nothing of what `get_cutout` warns of: the headers and the values tell.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> from astropy.table import Table
        >>> targets = Table({'ra': [45.09, 45.13], 'dec': [0.062, 0.005]})
        >>> with sandbox.serve() as sky:
        ...     shapes = [hdul['IMAGE_R'].shape
        ...               for row, hdul in LegacySurvey.iter_cutouts(targets, 32, bands='r')]
        >>> shapes
        [(32, 32), (32, 32)]
        """
        as_choice("on_error", on_error, ("record", "raise"))
        targets = as_targets(table, ra=ra, dec=dec, name=name)
        spec = self._bulk_spec(size, bands, products, release, region, on_missing)
        access = self._access(mirror, cache)
        rows = np.arange(len(targets))
        plan = plan_cutouts(
            targets,
            rows,
            spec,
            self._footprint(spec, access) if targets.placed.any() else {},
            targets_per_job=_shared_by(len(targets)),
            max_targets=max(YIELDED_BYTES // bytes_of_cutout(spec), 1),
        )
        ready = results_without_work(plan, spec, rows)
        return _yielded(partial(cutouts_of_job, spec, access), plan, ready, executor, on_error)

    # ---- inner ----------------------------------------------------------------------------------

    def _bulk_spec(
        self,
        size: Size,
        bands: Bands | None,
        products: Products,
        release: str | None,
        region: str,
        on_missing: str,
    ) -> BulkSpec:
        release = self._release_name(release)
        region = as_region(region, release)
        as_choice("on_missing", on_missing, ("raise", "warn"))
        ny, nx = as_size(size)
        return BulkSpec(
            ny,
            nx,
            as_products(products, release, planes=True),
            as_bands(bands, release, region),
            release,
            region,
            on_missing,
        )

    def _access(self, mirror: Mirror | None, cache: bool | None) -> Access:
        """Return how workers get at the files, with this instance's settings."""
        location = self._location(cache)
        return Access(
            self._mirrors(mirror),
            None if location is None else str(location),
            tuple(self._client_options().items()),
        )

    def _footprint(self, spec: BulkSpec, access: Access) -> dict[str, np.ndarray]:
        """Return the ids of the bricks of each region that there is a table of."""
        footprint = {}
        with FileFinder(self._client, access.mirrors, access.location) as finder:
            for region in get_release(spec.release).regions:
                if spec.region in ("auto", region):
                    # Without a table the files decide.
                    with suppress(IncompleteMirrorError):
                        rows = region_table(spec.release, region, finder)
                        footprint[region] = np.array(rows["brickid"])
        return footprint


def _shared_by(n: int) -> int:
    """Return how many targets of sparse bricks share a job: fewer if there are few in all."""
    return int(np.clip(n // 64, 1, SPARSE_TARGETS))


def _failed(spec: BulkSpec, job: CutoutJob, error: Exception) -> list[Result]:
    """Return the results of the targets of a job that did not come back."""
    results = []
    for index in range(len(job)):
        row, name, ra_deg, dec_deg = job.target(index)
        results.append(failure(row, error, **target_facts(spec, name, ra_deg, dec_deg)))
    return results


def _yielded(
    work: Callable[[CutoutJob], list],
    plan: BulkPlan,
    ready: Iterator[Result],
    executor: Executor | str | None,
    on_error: str,
) -> Iterator[tuple[int, HDUList | Exception]]:
    for result in ready:
        kind = NoCoverageError if result.status == "NODATA" else InvalidRequestError
        yield result.row, kind(result.message)
    mapped = map_jobs(work, plan.jobs(), executor=executor)
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
