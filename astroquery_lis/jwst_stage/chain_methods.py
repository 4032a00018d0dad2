"""Plan, references, run and status, as methods: arguments in, the work of other modules out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..client import LegacySurvey
from ..client.base import QueryBase
from ..exceptions import CrdsUnavailable, OptionalDependencyError, refuse
from .crds_cache import crds_environment
from .planning import load_plan, placed_plan
from .tasks import Reduction

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Literal

    from astropy.table import Table

    from .._typing import Executor, FilePath
    from ..client import LegacySurveyClass
    from .crds_cache import CrdsEnvironment
    from .planning import Plan
    from .references import Resolution
    from .states import State


class ChainMethods(QueryBase):
    """The chain from uncal files to mosaics, and its settings: where the references are."""

    def __init__(self) -> None:
        super().__init__()
        self._crds_path: str | None = None
        self._crds_context: str | None = None
        self._crds_server_url: str | None = None

    @property
    def crds_path(self) -> str:
        """Directory of the reference files; ``conf.crds_path``, ``$CRDS_PATH`` unless set."""
        return self._environment().path

    @crds_path.setter
    def crds_path(self, value: FilePath | None) -> None:
        self._crds_path = None if value is None else str(value)

    @property
    def crds_context(self) -> str:
        """CRDS context; ``conf.crds_context``, ``$CRDS_CONTEXT``, the newest unless set."""
        return self._environment().context

    @crds_context.setter
    def crds_context(self, value: str | None) -> None:
        if value and not str(value).endswith(".pmap"):
            refuse("crds_context", value, "must be the name of a .pmap, or None for the newest.")
        self._crds_context = value or None

    @property
    def crds_server_url(self) -> str:
        """CRDS server; ``conf.crds_server_url``, ``$CRDS_SERVER_URL``, none unless set."""
        return self._environment().server_url

    @crds_server_url.setter
    def crds_server_url(self, value: str | None) -> None:
        self._crds_server_url = value or None

    def _environment(self, *, offline: bool = False) -> CrdsEnvironment:
        return crds_environment(
            path=self._crds_path,
            context=self._crds_context,
            server_url=self._crds_server_url,
            offline=offline,
        )

    def plan(
        self,
        files: FilePath | Sequence[FilePath] | Table,
        *,
        output_dir: FilePath | None = None,
        stages: Sequence[int] = (1, 2, 3),
        steps: Mapping[str, Any] | None = None,
        preset: str = "default",
        recipe: FilePath | None = None,
        corrections: Sequence[Any] = (),
        group_by: Any = None,
        product_name: str | None = None,
        start: Literal["uncal", "rate", "cal", "auto"] = "uncal",
        abs_refcat: FilePath | None = None,
        wcs: Any = None,
        common_grid: bool | Mapping[str, Any] = False,
    ) -> Plan:
        """Return what there is to do, without doing it and without a network.

        Reads headers, chooses the pipelines by EXP_TYPE, puts exposures together into associations,
        checks every parameter, and compares with what an earlier run left in ``output_dir``.

        Parameters
        ----------
        files : path-like, sequence of path-like, or `~astropy.table.Table`
            FITS files of the levels uncal, rate, rateints, cal or calints; MAST's association files
            (JSON); directories, which are searched with all their subdirectories; patterns; or a
            manifest of `download_uncal`.
        output_dir : path-like, optional
            Where the products are to be; needed to tell what is done already.
        stages : sequence of int, optional
            Which of 1, 2 and 3; all by default.
        steps : dict, optional
            Parameters ``{step: {parameter: value}}`` of any step of any stage; a key in capitals
            (instrument, channel, detector or filter) holds those of its exposures alone.
        preset : str, optional
            A set of parameters: 'default', 'nircam-imaging', 'nircam-deep', 'niriss-imaging',
            'miri-imaging' or 'low-memory'.
        recipe : path-like, optional
            A TOML recipe, or an stpipe ``.asdf`` file; above the preset, below ``steps``.
        corrections : sequence, optional
            Corrections between stages: names, ``(name, parameters)``, functions, stpipe steps.
        group_by : str, sequence of str, or callable, optional
            What the exposures of a product of stage 3 have in common; by default program, target,
            instrument, filter, pupil and mode.
        product_name : str, optional
            Template of the names of stage 3, such as ``"{target}_{filter}"``; MAST's by default.
        start : {'uncal', 'rate', 'cal', 'auto'}, optional
            The level to begin from where files of several are given; 'auto' begins from rate files
            that the installed version made with the reference files of now, as far as the CRDS
            cache tells.
        abs_refcat : str or path-like, optional
            What mosaics are aligned to: 'legacy', 'gaia' or a catalogue file.
        wcs : `~astropy.wcs.WCS`, `~astropy.io.fits.Header` or path-like, optional
            One grid for all mosaics.
        common_grid : bool or dict, optional
            Whether the mosaics of all filters are put on one grid made from the footprints; a
            dictionary may have ``pixel_scale`` (arcsec) and ``rotation`` (degrees).

        Returns
        -------
        `~astroquery_lis.jwst_stage.planning.Plan`
            Prints as a table; ``plan.explain(product)``, ``plan.save(path)``.

        Raises
        ------
        InvalidExposureError
            If a file is truncated, of another level than its name says, or lacks keywords.
        InvalidRequestError
            If an option is wrong; all that is wrong with ``steps`` is told at once.

        Examples
        --------
        >>> from astroquery_lis.jwst_stage import JwstStage
        >>> plan = JwstStage.plan("uncal", output_dir="reduced")  # doctest: +SKIP
        """
        from .planning.make_plan import make_plan

        options = {
            "output_dir": output_dir,
            "stages": stages,
            "steps": steps,
            "preset": preset,
            "recipe": recipe,
            "corrections": corrections,
            "group_by": group_by,
            "product_name": product_name,
            "abs_refcat": abs_refcat,
            "wcs": wcs,
            "common_grid": common_grid,
        }
        resolution = self._references_of_now(files, options) if start == "auto" else None
        return make_plan(files, start=start, resolution=resolution, **options)

    def _references_of_now(self, files: Any, options: dict[str, Any]) -> Resolution | None:
        """Return what CRDS's cache says of the exposures, `None` where it cannot be asked."""
        from .planning.make_plan import make_plan
        from .references import resolve

        whole = make_plan(files, start="uncal", check_associations=False, **options)
        try:
            return resolve(whole, self._environment(offline=True), offline=True)
        except (CrdsUnavailable, OptionalDependencyError):
            return None

    def prefetch_references(
        self,
        plan: Plan | FilePath,
        *,
        output_dir: FilePath | None = None,
        offline: bool = False,
        survey: LegacySurveyClass = LegacySurvey,
        max_workers: int = 4,
    ) -> Table:
        """Get every reference file of a plan into the CRDS cache, once each, before it runs.

        The references are found once per distinct set-up, not per exposure.  The catalogue of
        ``abs_refcat='legacy'`` or ``'gaia'`` is made here too.

        Parameters
        ----------
        plan : Plan or path-like
            The plan, or its file.
        output_dir : path-like, optional
            Where the products are to be, if the plan does not say.
        offline : bool, optional
            Whether nothing may be asked: then this tells exactly what is missing.
        survey : `~astroquery_lis.LegacySurveyClass`, optional
            Where the catalogue of ``abs_refcat='legacy'`` comes from.
        max_workers : int, optional
            Files that are fetched at once.

        Returns
        -------
        `~astropy.table.Table`
            One row per file: ``Local Path``, ``Status``, ``Message``, ``URL``, ``name``, ``kind``,
            ``types``, ``bytes``, ``sha1``, ``tasks``; the context is in ``meta['context']``.

        Raises
        ------
        CrdsUnavailable
            If files are missing and cannot be had: ``missing`` has their names.

        Examples
        --------
        >>> from astroquery_lis.jwst_stage import JwstStage
        >>> JwstStage.prefetch_references(plan, offline=True)  # doctest: +SKIP
        """
        from .legacy.refcat import make_catalogs
        from .references import prefetch

        planned = placed_plan(plan, output_dir, needed=False)
        table = prefetch(planned, self._environment(offline=offline), offline, max_workers)
        for path, made in make_catalogs(planned, survey=survey, offline=offline):
            table.add_row(
                {
                    "Local Path": str(path),
                    "Status": "COMPLETE" if made else "CACHED",
                    "name": path.name,
                    "kind": "catalog",
                    "types": "abs_refcat",
                    "bytes": path.stat().st_size,
                }
            )
        return table

    def run(
        self,
        plan: Plan | FilePath,
        *,
        output_dir: FilePath | None = None,
        executor: Executor | None = None,
        max_workers: int | None = None,
        overwrite: bool = False,
        partial: bool = False,
        on_error: Literal["record", "raise"] = "record",
        offline: bool = False,
        survey: LegacySurveyClass = LegacySurvey,
        show_progress: bool = True,
    ) -> Table:
        """Do what a plan says and is not done: one process per task, each product whole or absent.

        A product is left alone when its inputs, effective parameters, reference files, corrections
        and the versions of the pipeline are those that it was made with.

        Parameters
        ----------
        plan : Plan or path-like
            The plan, or its file.
        output_dir : path-like, optional
            Where the products go, if the plan does not say.
        executor : `~concurrent.futures.Executor`, optional
            Where the processes are started, such as Dask's ``client.get_executor()``.
        max_workers : int, optional
            Tasks at once; by default what cores and memory allow.
        overwrite : bool, optional
            Whether to make again what is done.
        partial : bool, optional
            Whether stage 3 goes on without the exposures that failed.
        on_error : {'record', 'raise'}, optional
            Whether the first task that fails ends the run.
        offline : bool, optional
            Whether no server may be asked for references.
        survey : `~astroquery_lis.LegacySurveyClass`, optional
            Where the catalogue of ``abs_refcat='legacy'`` comes from.
        show_progress : bool, optional
            Whether to show what runs, where there is a terminal.

        Returns
        -------
        `~astropy.table.Table`
            The manifest: one row per task, with ``Local Path``, ``Status`` (COMPLETE, CACHED,
            SKIPPED, ERROR), ``Message`` and what was checked.

        Raises
        ------
        CrdsUnavailable
            If references are missing and cannot be had.
        InvalidRequestError
            If an argument is wrong, or another run is at work in ``output_dir``.
        TaskError
            With ``on_error='raise'``.

        Warns
        -----
        StageWarning
            If a step says that it is complete and had no effect.

        Examples
        --------
        >>> from astroquery_lis.jwst_stage import JwstStage
        >>> manifest = JwstStage.run(plan, output_dir="reduced")  # doctest: +SKIP
        """
        from .legacy.refcat import make_catalogs
        from .references import prefetch, resolve
        from .running.run import run

        planned = placed_plan(plan, output_dir)
        environment = self._environment(offline=offline)
        make_catalogs(planned, survey=survey, offline=offline)
        resolution = resolve(planned, environment, offline=offline)
        if resolution.missing:
            prefetch(planned, environment, offline)
            resolution = resolve(planned, environment, offline=offline)
        return run(
            Reduction(planned, Path(str(planned.output_dir)), resolution),
            environment=environment,
            executor=executor,
            max_workers=max_workers,
            overwrite=overwrite,
            partial=partial,
            on_error=on_error,
            show_progress=show_progress,
        )

    def states(
        self,
        plan: Plan | FilePath,
        *,
        output_dir: FilePath | None = None,
        offline: bool = False,
    ) -> Table:
        """Return the plan's table with the reference files of now looked up.

        ``plan`` itself takes the references as they were recorded; this finds a product stale whose
        references a new CRDS context replaces.

        Parameters
        ----------
        plan : Plan or path-like
            The plan, or its file.
        output_dir : path-like, optional
            Where the products are, if the plan does not say.
        offline : bool, optional
            Whether no server may be asked.

        Returns
        -------
        `~astropy.table.Table`
            ``task``, ``stage``, ``pipeline``, ``state``, ``reason``, ``seconds``, ``memory_gb``,
            ``disk_gb``.

        Raises
        ------
        CrdsUnavailable
            If mappings are missing and cannot be had.

        Examples
        --------
        >>> from astroquery_lis.jwst_stage import JwstStage
        >>> JwstStage.states("plan.toml", output_dir="reduced")  # doctest: +SKIP
        """
        planned = placed_plan(plan, output_dir)
        return planned.table(self.assess(planned, offline=offline))

    def assess(
        self,
        plan: Plan | FilePath,
        *,
        output_dir: FilePath | None = None,
        offline: bool = False,
    ) -> dict[str, State]:
        """Return what there is to do of each task, with all reasons and the references of now.

        Parameters
        ----------
        plan : Plan or path-like
            The plan, or its file.
        output_dir : path-like, optional
            Where the products are, if the plan does not say.
        offline : bool, optional
            Whether no server may be asked.

        Returns
        -------
        dict of str to `~.states.State`
            By task, for ``plan.table`` and ``plan.explain``.

        Raises
        ------
        CrdsUnavailable
            If mappings are missing and cannot be had.

        Examples
        --------
        >>> from astroquery_lis.jwst_stage import JwstStage
        >>> print(plan.explain("_i2d.fits", JwstStage.assess(plan)))  # doctest: +SKIP
        """
        from .references import resolve
        from .states import assess

        planned = placed_plan(plan, output_dir)
        resolution = resolve(planned, self._environment(offline=offline), offline=offline)
        return assess(Reduction(planned, Path(str(planned.output_dir)), resolution))

    def parameters(self, plan: Plan | FilePath, *, offline: bool = False) -> Table:
        """Return the parameters that each task would run with, and where each comes from.

        Parameters
        ----------
        plan : Plan or path-like
            The plan, or its file.
        offline : bool, optional
            Whether no server may be asked.

        Returns
        -------
        `~astropy.table.Table`
            ``task``, ``step``, ``parameter``, ``value``, ``origin`` (crds, preset, recipe, steps,
            default).

        Raises
        ------
        CrdsUnavailable
            If mappings or parameter files are missing and cannot be had.

        Examples
        --------
        >>> from astroquery_lis.jwst_stage import JwstStage
        >>> JwstStage.parameters(plan)  # doctest: +SKIP
        """
        from .parameters import effective
        from .references import resolve

        loaded = load_plan(plan)
        resolution = resolve(loaded, self._environment(offline=offline), offline=offline)
        return effective(loaded, resolution)

    def status(self, output_dir: FilePath) -> Table:
        """Return how far each task is, also while a run is at work.

        Parameters
        ----------
        output_dir : path-like
            Where a run is at work, or was.

        Returns
        -------
        `~astropy.table.Table`
            ``task``, ``stage``, ``pipeline``, ``state``, ``step``, ``seconds``, ``memory_gb``,
            ``message``; the state of the run is in ``meta``.

        Raises
        ------
        InvalidRequestError
            If no run was ever begun there.

        Examples
        --------
        >>> from astroquery_lis.jwst_stage import JwstStage
        >>> JwstStage.status("reduced")  # doctest: +SKIP
        """
        from .running.progress import status

        return status(output_dir)

    def report(self, output_dir: FilePath, *, path: FilePath | None = None) -> str:
        """Write one page about a run: manifest, parameters, checks, thumbnails, step times.

        Parameters
        ----------
        output_dir : path-like
            Where a run was.
        path : path-like, optional
            The HTML file; ``report.html`` in ``output_dir`` by default.  A script beside it,
            ``report_plain.py``, makes the products again with calls of `jwst` alone.

        Returns
        -------
        str
            The file.

        Raises
        ------
        InvalidRequestError
            If no run was ever begun there.

        Examples
        --------
        >>> from astroquery_lis.jwst_stage import JwstStage
        >>> JwstStage.report("reduced")  # doctest: +SKIP
        """
        from .report import write_report

        return str(write_report(output_dir, path=path))
