"""The methods that cut many targets out of the survey."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astroquery import cache_conf

from .._packages import import_optional
from ..catalogs.footprint import bricks_of_region
from ..exceptions import InvalidRequestError, NoCoverageError, NotFoundError
from ..images.save import (
    Access,
    BulkSpec,
    cutouts_of_job,
    safe_name,
    save_job,
    target_facts,
)
from ..io import Journal, Result, failure, manifest, map_jobs, run
from ..io.places import resolve_mirrors
from ..io.store import remove_temporaries
from ..survey.bricks import brick_id, name_of
from ..survey.releases import get_release
from ..survey.request import as_bands, as_choice, as_products, as_region, as_size
from .base import SurveyBase
from .inputs import as_targets
from .job_plan import plan_cutouts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Literal

    from .._typing import (
        Bands,
        Executor,
        FilePath,
        Mirror,
        OnMissing,
        Positions,
        Products,
        Region,
        Row,
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
        id_column: str | None = None,
        output: Literal["fits", "hdf5"] = "fits",
        executor: Executor | None = None,
        on_error: Literal["record", "raise"] = "record",
        show_progress: bool = True,
    ) -> Table:
        """Cut a box round each of many targets and keep the cutouts in a folder.

        Parameters
        ----------
        table : `~astropy.table.Table` or `~astropy.coordinates.SkyCoord`, shape (n,)
            The targets: a table with a column of SkyCoord, or columns ``ra`` and ``dec`` or of
            another usual name.
        size : int, `~astropy.units.Quantity` ['angle'] or str, scalar or (2,) in (ny, nx), optional
            As for `get_cutout`.
        download_dir : str or path-like
            The folder.  It keeps a journal: the same call again does what is left, and a different
            one is refused.
        bands, products, release, region, mirror, on_missing, cache : optional
            As for `get_cutout`.
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
        INFO: 2 cutouts: 1 complete, 1 without data, in ... s. [astroquery_lis.io.runs]
        >>> manifest['Status'].tolist()
        ['COMPLETE', 'NODATA']
        """
        as_choice("output", output, ("fits", "hdf5"))
        as_choice("on_error", on_error, ("record", "raise"))
        if output == "hdf5":
            import_optional("h5py", "batch", "output='hdf5'")
        folder = Path(download_dir).expanduser().absolute()
        targets = as_targets(table, id_column)
        spec = self._bulk_spec(size, bands, products, release, region, on_missing)
        names = np.array([safe_name(name) for name in targets.ids.tolist()])
        spec = replace(spec, folder=str(folder), ids_are_names=len(np.unique(names)) == len(names))
        del names
        access = self._access(mirror, cache)
        with Journal(folder / JOURNAL, _call(spec, targets, output, access)) as journal:
            remove_temporaries(folder)
            left = np.setdiff1d(
                np.arange(len(targets)), np.fromiter(journal.finished, int), assume_unique=True
            )
            hdf5 = output == "hdf5"
            plan, ready = self._plan_bulk(
                targets,
                left,
                spec,
                access,
                targets_per_job=SHARD_TARGETS if hdf5 else _few(len(left)),
            )
            results = run(
                partial(save_job, spec, access, output=output),
                plan.jobs(),
                failed=partial(_failed, spec),
                total=len(targets),
                ready=ready,
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
        executor: Executor | None = None,
        on_error: Literal["record", "raise"] = "raise",
    ) -> Iterator[tuple[Row, Any]]:
        """Cut a box round each of many targets and yield the cutouts as they come.

        Memory holds a few jobs' cutouts, however many targets there are.

        Parameters
        ----------
        table, size, bands, products, release, region, mirror, on_missing, cache, executor
            As for `download_cutouts`.
        on_error : {'raise', 'record'}, optional
            Whether a target that fails ends the iteration, or its error is yielded.

        Yields
        ------
        row : int
            Number of the target in ``table``; not in order.
        hdul : `~astropy.io.fits.HDUList` or `~astroquery_lis.exceptions.NoCoverageError`
            As `get_cutout` returns it, or the error that says why there is no data; with
            ``on_error='record'`` also any other.

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
        targets = as_targets(table)
        spec = self._bulk_spec(size, bands, products, release, region, on_missing)
        access = self._access(mirror, cache)
        plan, ready = self._plan_bulk(
            targets,
            np.arange(len(targets)),
            spec,
            access,
            targets_per_job=_few(len(targets)),
            max_targets=max(YIELDED_BYTES // _bytes_of_cutout(spec), 1),
        )
        return _yielded(partial(cutouts_of_job, spec, access), plan, ready, executor, on_error)

    # ---- inner ----------------------------------------------------------------------------------

    def _bulk_spec(self, size, bands, products, release, region, on_missing):
        release = get_release(self.release if release is None else release).name
        region = as_region(region, release)
        bands = as_bands(bands, release, region)
        products = as_products(products, release, planes=True)
        as_choice("on_missing", on_missing, ("raise", "warn"))
        return BulkSpec(*as_size(size), products, bands, release, region, on_missing)

    def _access(self, mirror, cache):
        """Return how workers get at the files, with this instance's settings."""
        use_cache = cache_conf.cache_active if cache is None else cache
        return Access(
            resolve_mirrors(self.mirror if mirror is None else mirror),
            str(self.cache_location) if use_cache else None,
            tuple(self._client_options().items()),
        )

    def _plan_bulk(self, targets, rows, spec, access, **limits):
        """Return the plan of what is left, and the results that need no work."""
        placed = targets.placed[rows]
        footprint = {}
        for region in get_release(spec.release).regions if placed.any() else ():
            if spec.region in ("auto", region):
                with suppress(NotFoundError):
                    footprint[region] = bricks_of_region(
                        spec.release,
                        region,
                        client=self._client(),
                        mirrors=access.mirrors,
                        location=access.location,
                    )
        plan = plan_cutouts(
            targets.ids,
            targets.ra_deg,
            targets.dec_deg,
            rows[placed],
            shape=(spec.ny, spec.nx),
            release=spec.release,
            region=spec.region,
            footprint=footprint,
            partial=spec.on_missing == "warn",
            **limits,
        )
        return plan, _without_work(targets, spec, rows[~placed], plan)


def _few(n):
    """Return how many targets of sparse bricks share a job: fewer if there are few in all."""
    return int(np.clip(n // 64, 1, SPARSE_TARGETS))


def _bytes_of_cutout(spec):
    bands = spec.bands or get_release(spec.release).bands
    return 4 * spec.ny * spec.nx * len(spec.products) * len(bands)


def _call(spec, targets, output, access):
    """Return what tells one job from another.

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


def _without_work(targets, spec, unplaced, plan):
    """Yield the results of the targets that no file is needed for."""
    for row in unplaced.tolist():
        known = {"id": _item(targets.ids[row]), "release": spec.release}
        yield Result(row, "SKIPPED", message="The row has no position on the sky.", **known)
    for row in plan.no_data.tolist():
        ra_deg, dec_deg = float(plan.ra_deg[row]), float(plan.dec_deg[row])
        known = target_facts(spec, _item(targets.ids[row]), ra_deg, dec_deg)
        msg = (
            f"{spec.release} has no data at RA {ra_deg:.6f}, Dec {dec_deg:+.6f}: its table of "
            f"bricks lacks {name_of(brick_id(ra_deg, dec_deg))}."
        )
        yield Result(row, "NODATA", message=msg, **known)


def _item(value):
    return value.item() if hasattr(value, "item") else value


def _failed(spec, job, error):
    """Return the results of the targets of a job that did not come back."""
    results = []
    for index in range(len(job)):
        row, *target = job.target(index)
        results.append(failure(row, error, **target_facts(spec, *target)))
    return results


def _yielded(work, plan, ready, executor, on_error):
    for result in ready:
        kind = NoCoverageError if result.status == "NODATA" else InvalidRequestError
        yield from _allowed(result.row, kind(result.message), on_error)
    mapped = map_jobs(work, plan.jobs(), executor=executor)
    try:
        for job, cutouts, error in mapped:
            if error is not None:
                cutouts = [(int(row), error) for row in job.rows]
            for row, cutout in cutouts:
                yield from _allowed(row, cutout, on_error)
    finally:
        mapped.close()


def _allowed(row, cutout, on_error):
    """Yield one answer, or raise it."""
    failed = isinstance(cutout, Exception) and not isinstance(cutout, NoCoverageError)
    if failed and on_error == "raise":
        raise cutout
    yield row, cutout
