"""The methods that cut many targets out of the survey."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy import log

from .._packages import import_optional
from ..catalogs.brick_tables import region_table
from ..exceptions import IncompleteMirrorError, InvalidRequestError, NoCoverageError, refuse
from ..images.access import Access
from ..images.array_files import ARRAY_OUTPUTS
from ..images.cutting import BulkSpec, CutoutJob, cutouts_of_job
from ..images.save import safe_name, save_job
from ..images.sources import SOURCES
from ..images.viewer_service import MAX_CONNECTIONS
from ..io.finder import FileFinder
from ..io.jobs import Result, failure, manifest, map_jobs, run
from ..io.journal import Journal
from ..io.store import remove_temporaries
from ..survey.request import DEFAULT_SIZE, CutoutRequest, as_choice, cutout_request, psf_request
from .base import SurveyBase, options_of
from .by_row import differing_options
from .inputs import as_sources, as_targets
from .job_plan import (
    MAX_TARGETS_PER_JOB,
    Asked,
    BulkPlan,
    as_asked,
    bytes_of_cutout,
    identity_of_job,
    is_of_bricks,
    plan_cutouts,
    results_without_work,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Literal

    from .._typing import (
        WCS,
        Angle,
        Bands,
        ByRow,
        Executor,
        FilePath,
        HDUList,
        Header,
        Keywords,
        Mirror,
        OnMissing,
        Positions,
        Products,
        Region,
        Size,
        Table,
    )
    from ..images.sources import Sources
    from ..io.jobs import Mapped
    from .inputs import Targets


__all__ = ["JobMethods"]

JOURNAL = "cutouts.journal.jsonl"
PICTURE_OUTPUTS = ("png", "jpeg")
OUTPUTS = ("fits", *ARRAY_OUTPUTS, *PICTURE_OUTPUTS)
NEEDED = {
    "hdf5": ("batch", "h5py"),
    "zarr": ("batch", "zarr", "pyarrow"),
    "png": ("plot", "PIL"),
    "jpeg": ("plot", "PIL"),
}
ON_MISSING = ("raise", "warn")
SHARD_TARGETS = 256
"""Fewest targets of an HDF5 file, if there are as many."""

STRIP_TARGETS = 64
"""A brick with more is shared among workers; a strip of fewer would decode too much twice."""

PROCESSES_PIX = 100_000_000
"""Pixels from which processes, which take a second or two to start, are worth it."""

SPARSE_TARGETS = 16
"""Bricks with few targets share a job of this many."""

YIELDED_BYTES = 64 << 20
"""Most that the cutouts of a job take that are handed back in memory."""


class JobMethods(SurveyBase):
    """Cutouts of many targets."""

    def download_cutouts(
        self,
        table: Positions,
        size: ByRow[Size] = DEFAULT_SIZE,
        *,
        download_dir: FilePath,
        bands: Bands | None = None,
        products: Products = ("image",),
        release: ByRow[str] | None = None,
        region: ByRow[Region] = "auto",
        layer: str | Sequence[str] | None = None,
        pixel_scale: ByRow[Angle] | None = None,
        wcs: WCS | Header | Callable[..., WCS | Header] | None = None,
        rotation: ByRow[Angle] | None = None,
        wise_grid: str = "native",
        source: str | Sequence[str] = "auto",
        mirror: Mirror | None = None,
        on_missing: OnMissing = "raise",
        convert_flux: bool | None = None,
        allow_unknown_layer: bool = False,
        cache: bool | None = None,
        ra: str | None = None,
        dec: str | None = None,
        name: str | None = None,
        id_column: str | None = None,
        output: Literal["fits", "hdf5", "zarr", "png", "jpeg"] = "fits",
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
        size : int, `~astropy.units.Quantity` ['angle'], str, or by row, optional
            As for `get_cutout`, or by row: the name of a column, a column, an array of n, or a
            function of the row.  A tuple of two is (ny, nx).
        download_dir : str or path-like
            The folder.  It keeps a journal: the same call again does what is left, and a different
            one is refused.
        release, region, pixel_scale, rotation : optional
            As for `get_cutout`, or by row as ``size``.
        wcs : `~astropy.wcs.WCS`, `~astropy.io.fits.Header` or function of the row, optional
            As for `get_cutout`.
        bands, products, layer, wise_grid, source, mirror, on_missing, convert_flux, \
allow_unknown_layer, cache : optional
            As for `get_cutout`.
        ra, dec : str, optional
            Columns of ``table`` with ICRS positions, or ``ra`` alone for a column of
            `~astropy.coordinates.SkyCoord`; by default they are found by name.
        name : str, optional
            Column of ``table`` with names of objects, or positions as text.
        id_column : str, optional
            Column whose values name the files; by default ``id``, if there is one.
        output : {'fits', 'hdf5', 'zarr', 'png', 'jpeg'}, optional
            A file for each target, or arrays of many targets in HDF5 or zarr files; zarr has its
            index in parquet files beside them.  PNG and JPEG are in the survey's colours
            (`~astroquery_lis.pictures.rgb`), made from the planes.
        executor : `~concurrent.futures.Executor` or {'threads', 'processes'}, optional
            What does the work; by default threads, or processes for long work on local files.
            That of a Dask cluster is ``client.get_executor()``.
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
            ``region``, ``bands``, ``layer`` (the one that answered), ``seconds``, ``bytes``,
            ``sha256``.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong, or the folder holds another job; nothing was sent.
        OptionalDependencyError
            If ``output`` needs h5py, or zarr and pyarrow, or pillow, and they are missing.
        TransferError
            If the tables of bricks could not be had; with ``on_error='raise'`` also the error of
            the first target that failed.

        Notes
        -----
        Targets are grouped by brick.  Each tile of a file is fetched once and decoded once in a
        job, and a file is fetched whole when more than 60 % of its tiles are needed.  Pixels are
        those of `get_cutout`.  A target whose brick the release does not have is NODATA at once.
        What the viewer has to be asked for, it is asked by four connections at most, and the log
        says beforehand how many requests and bytes that will be.  Unlike `get_cutout`,
        ``source='auto'`` never turns to the viewer because the mirrors fail: those targets are
        ERROR, and the same call tries them again.

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
        as_choice("output", output, OUTPUTS)
        extra, *modules = NEEDED.get(output, ("",))
        for module in modules:
            import_optional(module, extra, f"output={output!r}")
        job = self._job(cutout_request, locals(), output)
        if output in ARRAY_OUTPUTS and len({(r.ny, r.nx) for r in job.asked.templates}) > 1:
            refuse("output", output, "holds cutouts of one size; take output='fits' for several.")
        return self._saved(job, download_dir, executor, on_error, show_progress)

    def download_psfs(
        self,
        table: Positions,
        *,
        download_dir: FilePath,
        bands: Bands | None = None,
        release: ByRow[str] | None = None,
        region: ByRow[Region] = "auto",
        to_sky: bool = False,
        source: str | Sequence[str] = "auto",
        mirror: Mirror | None = None,
        on_missing: OnMissing = "raise",
        cache: bool | None = None,
        ra: str | None = None,
        dec: str | None = None,
        name: str | None = None,
        id_column: str | None = None,
        executor: Executor | Literal["threads", "processes"] | None = None,
        on_error: Literal["record", "raise"] = "record",
        show_progress: bool = True,
    ) -> Table:
        """Fetch the point spread functions at many targets and keep them in a folder.

        Parameters
        ----------
        table, download_dir, release, region, ra, dec, name, id_column, executor, on_error, \
show_progress
            As for `download_cutouts`.
        bands, to_sky, source, mirror, on_missing, cache : optional
            As for `get_psf`.

        Returns
        -------
        `~astropy.table.Table`
            One row per target, as `download_cutouts` returns it; each file is what `get_psf`
            returns.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong, or the folder holds another job; nothing was sent.
        TransferError
            As for `download_cutouts`.

        Notes
        -----
        The viewer is asked by four connections at most, one or two requests for each target; with
        ``source='bricks'`` the PSFs are models from the bricks' ``psfsize`` maps.

        Examples
        --------
        >>> from astroquery_lis import LegacySurvey, sandbox
        >>> import tempfile
        >>> from astropy.table import Table
        >>> targets = Table({'ra': [45.09, 45.1], 'dec': [0.062, 0.05]})
        >>> with tempfile.TemporaryDirectory() as folder, sandbox.serve() as sky:
        ...     manifest = LegacySurvey.download_psfs(
        ...         targets, bands='r', source='bricks', download_dir=folder, show_progress=False)
        INFO: 2 PSFs: 2 complete, in ... s. [astroquery_lis.io.jobs]
        """
        job = self._job(psf_request, locals(), label="PSFs")
        return self._saved(job, download_dir, executor, on_error, show_progress)

    def iter_cutouts(
        self,
        table: Positions,
        size: ByRow[Size] = DEFAULT_SIZE,
        *,
        bands: Bands | None = None,
        products: Products = ("image",),
        release: ByRow[str] | None = None,
        region: ByRow[Region] = "auto",
        layer: str | Sequence[str] | None = None,
        pixel_scale: ByRow[Angle] | None = None,
        wcs: WCS | Header | Callable[..., WCS | Header] | None = None,
        rotation: ByRow[Angle] | None = None,
        wise_grid: str = "native",
        source: str | Sequence[str] = "auto",
        mirror: Mirror | None = None,
        on_missing: OnMissing = "raise",
        convert_flux: bool | None = None,
        allow_unknown_layer: bool = False,
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
        table, size, bands, products, release, region, layer, pixel_scale, wcs, rotation, \
wise_grid, source, mirror, on_missing, convert_flux, allow_unknown_layer, cache, ra, dec, name, \
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
        job = self._job(cutout_request, locals())
        targets, asked, spec, access = job.targets, job.asked, job.spec, job.access
        rows = np.arange(len(targets))
        plan = plan_cutouts(
            targets,
            rows,
            asked,
            self._footprint(asked, access) if targets.placed.any() else {},
            on_missing=spec.on_missing,
            targets_per_job=_shared_by(len(targets)),
            max_targets=max(YIELDED_BYTES // bytes_of_cutout(asked), 1),
        )
        mapped = map_jobs(
            partial(cutouts_of_job, spec, access),
            plan.jobs(),
            executor=executor,
            in_flight=_in_flight(plan, access.sources(spec.sources)),
        )
        return _yielded(mapped, results_without_work(plan, rows), on_error)

    # ---- inner ----------------------------------------------------------------------------------

    def _job(
        self,
        make: Callable[..., CutoutRequest],
        arguments: Keywords,
        output: str = "fits",
        label: str = "cutouts",
    ) -> _Job:
        """Return what the arguments of a call ask for, everything checked."""
        as_choice("on_error", arguments["on_error"], ("record", "raise"))
        columns = options_of(arguments, ("id_column", "ra", "dec", "name"))
        targets = as_targets(arguments["table"], **columns)
        on_missing = as_choice("on_missing", arguments["on_missing"], ON_MISSING)
        spec = BulkSpec(as_sources(arguments["source"], SOURCES), on_missing)
        access = self._access(**options_of(arguments, ("mirror", "cache", "executor")))
        options = options_of(arguments, signature(make).parameters)
        asked = self._asked(make, targets, access.sources(spec.sources), **options)
        return _Job(targets, asked, spec, access, output, label)

    def _saved(
        self,
        job: _Job,
        download_dir: FilePath,
        executor: Executor | Literal["threads", "processes"] | None,
        on_error: str,
        show_progress: bool,
    ) -> Table:
        """Do a job in a folder, or what is left of it, and return the manifest."""
        targets, asked, access = job.targets, job.asked, job.access
        folder = Path(download_dir).expanduser().absolute()
        names = np.array([safe_name(name) for name in targets.ids.tolist()])
        is_unique = len(np.unique(names)) == len(names)
        spec = replace(job.spec, folder=str(folder), ids_are_names=is_unique)
        del names
        encoding = None
        if job.output in PICTURE_OUTPUTS:
            encoding = import_module("..pictures.encoding", __package__).PictureEncoding(job.output)
        identity = identity_of_job(spec, asked, targets, job.output, access)
        with Journal(folder / JOURNAL, identity) as journal:
            remove_temporaries(folder)
            done = np.fromiter(journal.finished, int)
            rows = np.setdiff1d(np.arange(len(targets)), done, assume_unique=True)
            is_array = job.output in ARRAY_OUTPUTS
            plan = plan_cutouts(
                targets,
                rows,
                asked,
                self._footprint(asked, access) if targets.placed[rows].any() else {},
                on_missing=spec.on_missing,
                targets_per_job=SHARD_TARGETS if is_array else _shared_by(len(rows)),
                max_targets=MAX_TARGETS_PER_JOB if is_array else _shared_among(len(rows)),
            )
            in_flight = _in_flight(plan, access.sources(spec.sources))
            if in_flight is None:
                executor = _usual(executor, job, len(plan.order))
            results = run(
                partial(save_job, spec, access, output=job.output, encoding=encoding),
                plan.jobs(),
                failed=_failed,
                total=len(targets),
                ready=results_without_work(plan, rows),
                journal=journal,
                executor=executor,
                on_error=on_error,
                show_progress=show_progress,
                label=job.label,
                in_flight=in_flight,
            )
            for _ in results:
                pass
            return manifest(journal.results(), more=("observed", "layer"))

    def _asked(
        self,
        make: Callable[..., CutoutRequest],
        targets: Targets,
        sources: Sources,
        **options: object,
    ) -> Asked:
        """Return what is asked for every row, everything checked as for one cutout."""
        differing = differing_options(options, targets)
        options = {name: value for name, value in options.items() if name not in differing}
        make = partial(make, (0.0, 0.0), default_release=self.release, **options)
        asked = as_asked(make, differing, targets.placed)
        for request in asked.templates:
            sources.first(request)  # refused here, if no source can serve it
        return asked

    def _footprint(self, asked: Asked, access: Access) -> dict[tuple[str, str], np.ndarray]:
        """Return the ids of the bricks of each region that there is a table of."""
        footprint = {}
        trees = {
            (request.release.name, region): None
            for request in asked.templates
            if is_of_bricks(request) and request.release is not None
            for region in request.release.regions
            if request.region in ("auto", region)
        }
        with FileFinder(self._client, access.mirrors, access.location) as finder:
            for release, region in trees:
                # Without a table the files decide.
                with suppress(IncompleteMirrorError):
                    rows = region_table(release, region, finder)
                    footprint[release, region] = np.array(rows["brickid"])
        return footprint


@dataclass(frozen=True, eq=False)
class _Job:
    """What a call asks for, and of whom."""

    targets: Targets
    asked: Asked
    spec: BulkSpec
    access: Access
    output: str
    label: str


def _usual(
    executor: Executor | Literal["threads", "processes"] | None, job: _Job, n: int
) -> Executor | Literal["threads", "processes"] | None:
    """Return the executor that was named; processes for long work on local files."""
    n_pixels = n * max(r.ny * r.nx * len(r.products) for r in job.asked.templates)
    is_local = all(mirror.is_local for mirror in job.access.mirrors)
    if executor is None and is_local and n_pixels > PROCESSES_PIX:
        return "processes"
    return executor


def _shared_among(n: int) -> int:
    """Return the most targets of a job: of one dense brick a quarter, that all cores have work."""
    return int(np.clip(-(-n // 4), STRIP_TARGETS, MAX_TARGETS_PER_JOB))


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
    kinds, counts = np.unique(plan.asked.kinds[plan.order], return_counts=True)
    n_cutouts, n_requests, n_bytes = 0, 0, 0
    for kind, count in zip(kinds, counts.tolist(), strict=True):
        # As most are: in the middle of a brick.
        of_one = sources.viewer_cost(plan.asked.templates[kind].at(0.125, 0.0))
        n_cutouts += count if of_one.n_requests else 0
        n_requests += count * of_one.n_requests
        n_bytes += count * of_one.n_bytes
    if not n_requests:
        return None
    log.info(
        f"{n_cutouts} cutouts are asked of the viewer: about {n_requests} requests and "
        f"{n_bytes / 1e6:.1f} MB, {MAX_CONNECTIONS} at a time."
    )
    return MAX_CONNECTIONS


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
