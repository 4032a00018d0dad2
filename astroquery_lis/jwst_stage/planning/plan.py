"""What there is to do, before it is done: `make_plan`, and the `Plan` that it returns."""

import difflib
import os
from dataclasses import dataclass, field
from pathlib import Path

from astropy.table import Table

from ...exceptions import InvalidRequestError
from ...io.store import write_bytes
from ..steps.parameters import check, for_task
from ..steps.recipes import PRESETS, read_recipe
from ..tasks import REFCATS, Reduction
from . import plan_file
from .grids import common_grid as grid_of_exposures
from .grids import grid_of_wcs, n_pixels
from .pipelines import stage_classes
from .plan_build import build, configuration_key, configurations_of
from .plan_inputs import choose, read_files

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """The tasks of a reduction, in an order in which they can be done.

    Made by ``JwstStage.plan``.  A plan does not change, and holds nothing but what its file holds:
    ``Plan.load`` of a saved one gives an equal plan.

    Attributes
    ----------
    exposures : tuple of `~.exposures.Exposure`
        The file that each exposure begins from.
    tasks : tuple of `~.tasks.Task`
        A task stands after those whose products it needs.
    configurations : dict of str to dict
        The distinct set-ups that decide on reference files: CRDS's parameters.
    options : dict
        What was asked for.
    output_dir : str or None
        Absolute path of the directory of the products.
    notes : tuple of str
        What was left out, mended or assumed.
    """

    exposures: tuple = ()
    tasks: tuple = ()
    configurations: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    output_dir: str | None = None
    notes: tuple = ()

    def __len__(self):
        return len(self.tasks)

    def task(self, name):
        """Return a task.

        Parameters
        ----------
        name : str
            Its name or one of its products, a path that ends in one, or an ending of one that no
            other task's products have.

        Returns
        -------
        `~.tasks.Task`

        Raises
        ------
        InvalidRequestError
            If no task, or more than one, makes such a product.
        """
        name = os.fspath(name)
        found = [
            task
            for task in self.tasks
            if name == task.name
            or any(name == o or name.endswith(f"/{o}") or o.endswith(name) for o in task.outputs)
        ]  # fmt: skip
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(task.name for task in found)
            msg = f"product={name!r} is made by several tasks: {several}; name the directory too."
        else:
            last = ", ".join(task.name for task in self.tasks[-4:])
            msg = f"product={name!r} is made by no task of the plan, which ends in {last}."
        raise InvalidRequestError(msg, parameter="product", value=name)

    def table(self, states=None):
        """Return the plan as a table.

        Parameters
        ----------
        states : dict of str to `~.states.State`, optional
            By task.  By default they are found from what is in `output_dir`; reference files are
            not looked up then, but taken as recorded.

        Returns
        -------
        `~astropy.table.Table`
            ``task``, ``stage``, ``pipeline``, ``state`` (done, stale, missing, failed),
            ``reason``, ``seconds``, ``memory_gb``, ``disk_gb``.
        """
        states = self._states() if states is None else states
        rows = [
            (
                task.name,
                task.stage,
                task.pipeline or "+".join(str(c.get("name", "")) for c in task.corrections),
                states[task.name].state if task.name in states else "missing",
                states[task.name].reason if task.name in states else "",
                task.estimate.seconds,
                task.estimate.memory_gb,
                task.estimate.disk_gb,
            )
            for task in self.tasks
        ]
        names = ("task", "stage", "pipeline", "state", "reason", "seconds", "memory_gb", "disk_gb")
        types = (str, int, str, str, str, float, float, float)
        table = Table(rows=rows, names=names, dtype=types) if rows else Table(
            names=names, dtype=types
        )  # fmt: skip
        table["seconds"].info.format = ".0f"
        table["memory_gb"].info.format = ".2f"
        table["disk_gb"].info.format = ".3f"
        table.meta["notes"] = list(self.notes)
        return table

    def _states(self):
        if self.output_dir is None or not Path(self.output_dir).is_dir():
            return {}
        from ..resume.states import assess

        return assess(Reduction(self, Path(self.output_dir)))

    def explain(self, product, states=None):
        """Return in words why a product has to be made, or that it has not.

        Parameters
        ----------
        product : str
            Name of a task or of one of its products.
        states : dict of str to `~.states.State`, optional
            As for `table`.

        Returns
        -------
        str
            Such as ``stage2/..._cal.fits: stale: jump.rejection_threshold 4 -> 5``.
        """
        task = self.task(product)
        states = self._states() if states is None else states
        state = states.get(task.name)
        if state is None:
            where = self.output_dir or "an output directory that is not named yet"
            return f"{task.name}: missing: nothing was made in {where}."
        reason = f": {state.reason}" if state.reason else ""
        if state.reason.startswith(f"{state.state}:"):
            reason = f": {state.reason.partition(':')[2].strip()}"
        return f"{task.name}: {state.state}{reason}"

    def save(self, path):
        """Write the plan as a TOML file, whole or not at all.

        Parameters
        ----------
        path : path-like
            The file; directories are made.
        """
        path = Path(path)
        write_bytes(path, plan_file.plan_to_text(self).encode())

    @classmethod
    def load(cls, path):
        """Return the plan in a file.

        Parameters
        ----------
        path : path-like
            What `save` wrote.

        Returns
        -------
        Plan
        """
        return cls(**plan_file.read(path))

    def _heading(self):
        n_seconds = sum(task.estimate.seconds for task in self.tasks)
        disk = sum(task.estimate.disk_gb for task in self.tasks)
        memory = max((task.estimate.memory_gb for task in self.tasks), default=0)
        return (
            f"Plan: {len(self.exposures)} exposures, {len(self.tasks)} tasks, about "
            f"{n_seconds / 60:.0f} min on one core, up to {memory:.1f} GB of memory each, "
            f"{disk:.2f} GB of disk"
        )

    def __repr__(self):
        lines = self.table().pformat(max_lines=60, max_width=140)
        notes = [f"Note: {note}" for note in self.notes]
        return "\n".join([self._heading(), *lines, *notes])

    def _repr_html_(self):
        from html import escape

        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        table = self.table()._repr_html_()
        return f"<p>{escape(self._heading())}</p>{table}" + (f"<ul>{notes}</ul>" if notes else "")


def make_plan(
    files,
    *,
    output_dir=None,
    stages=(1, 2, 3),
    steps=None,
    preset="default",
    recipe=None,
    corrections=(),
    group_by=None,
    product_name=None,
    start="uncal",
    abs_refcat=None,
    wcs=None,
    common_grid=False,
    resolution=None,
    check_associations=True,
):
    """Return what there is to do, without doing it, without a network, and without `jwst`.

    Parameters
    ----------
    files : path-like, sequence of path-like, or `~astropy.table.Table`
        FITS files of the levels uncal, rate, rateints, cal or calints, MAST's association files
        (JSON), directories, which are searched with all their subdirectories, patterns, or a
        manifest with the column ``Local Path``, of which rows that failed are refused by name.
    output_dir : path-like, optional
        Where the products are to be; needed to tell what is done already.
    stages : sequence of int, optional
        Which of 1, 2 and 3; all by default.  What a stage begins from is a file that was given or
        a product in `output_dir`.
    steps : dict, optional
        Parameters ``{step: {parameter: value}}``, see `~.parameters`.
    preset : str, optional
        Name of a set of parameters in `~.presets`.
    recipe : path-like, optional
        A TOML recipe or an stpipe ``.asdf`` file with parameters; above the preset, below `steps`.
    corrections : sequence, optional
        Corrections between stages, see `~.corrections`.
    group_by : str, sequence of str, or callable, optional
        What the exposures of a product of stage 3 have in common: attributes of
        `~.exposures.Exposure`, or a function of one that returns a string.  By default program,
        target, instrument, filter, pupil and mode.
    product_name : str, optional
        Template of the names of stage 3, such as ``"{target}_{filter}"``; by default MAST's,
        ``jw<program>-o<observation>_t<target>_<instrument>_<optical elements>``.
    start : str, optional
        'uncal', 'rate', 'cal': the level to begin from where files of several are given; 'auto'
        begins from rate files that the installed version of `jwst` made, with the reference files
        of now if `resolution` is given, and otherwise from uncal files.
    abs_refcat : str or path-like, optional
        Catalogue that mosaics are aligned to: 'legacy', 'gaia' or a file that tweakreg reads.
    wcs : `~astropy.wcs.WCS`, `~astropy.io.fits.Header` or path-like, optional
        Grid of all mosaics: a tangential WCS with its shape, a FITS file with one, or the path of
        an ``.asdf`` file with a gwcs.
    common_grid : bool or dict, optional
        Whether the mosaics of all filters are put on one grid, made from the footprints; a
        dictionary may have ``pixel_scale`` in arcsec and ``rotation`` in degrees.
    resolution : `~.references.Resolution`, optional
        The reference files of now, for ``start='auto'``.
    check_associations : bool, optional
        Whether the associations are completed and validated by `jwst.associations` in a process of
        its own, if `jwst` is installed; `True` by default.

    Returns
    -------
    Plan

    Raises
    ------
    InvalidExposureError
        If files are cut off, of another level than their names say, or lack keywords; all that is
        wrong is told at once.
    InvalidRequestError
        If an option is wrong.
    """
    stages = _checked_stages(stages)
    output_dir = None if output_dir is None else os.path.abspath(os.path.expanduser(output_dir))
    files, associations = read_files(files, output_dir=output_dir)
    exposures, notes = choose(files, start, resolution=resolution, configurations=configuration_key)
    corrections = _corrections(corrections)
    steps_for, kept_steps = _step_layers(preset, recipe, steps, corrections, exposures)
    abs_refcat = _checked_refcat(abs_refcat)
    stage3_steps = _Stage3Steps(exposures, steps_for, wcs, common_grid, abs_refcat)
    tasks, more = build(
        exposures,
        stages=stages,
        steps_for=steps_for,
        corrections=corrections,
        group_by=group_by,
        product_name=product_name,
        associations=associations,
        output_dir=output_dir,
        stage3_steps=stage3_steps,
        check_associations=check_associations,
    )
    options = {
        "stages": list(stages),
        "start": start,
        "preset": preset,
        "recipe": None if recipe is None else os.path.abspath(recipe),
        "steps": kept_steps,
        "corrections": [c.to_dict() for c in corrections],
        "group_by": _plain(group_by),
        "product_name": product_name,
        "abs_refcat": abs_refcat,
        "grid": stage3_steps.grid,
    }
    return Plan(
        exposures=tuple(exposures),
        tasks=tasks,
        configurations=configurations_of(exposures),
        options={k: v for k, v in options.items() if v not in (None, {}, [])},
        output_dir=output_dir,
        notes=tuple(notes + more),
    )


def _plain(group_by):
    if group_by is None or isinstance(group_by, str):
        return group_by
    if callable(group_by):
        return f"function {getattr(group_by, '__qualname__', repr(group_by))}"
    return list(group_by)


def _checked_stages(stages):
    given = (stages,) if isinstance(stages, int) else tuple(stages)
    if not given or not set(given) <= {1, 2, 3}:
        msg = f"stages={stages!r} must be some of 1, 2 and 3."
        raise InvalidRequestError(msg, parameter="stages", value=stages)
    given = tuple(sorted(set(given)))
    if given == (1, 3):
        msg = f"stages={stages!r}: stage 3 begins from products of stage 2; add it."
        raise InvalidRequestError(msg, parameter="stages", value=stages)
    return given


def _checked_refcat(abs_refcat):
    if abs_refcat is None or abs_refcat in REFCATS:
        return abs_refcat
    path = os.path.abspath(os.path.expanduser(abs_refcat))
    if not os.path.isfile(path):
        msg = (
            f"abs_refcat={os.fspath(abs_refcat)!r} is none of {', '.join(map(repr, REFCATS))}, and "
            "not a file that is there."
        )
        raise InvalidRequestError(msg, parameter="abs_refcat", value=abs_refcat)
    return path


def _step_layers(preset, recipe, steps, corrections, exposures):
    """Return a function that gives a pipeline's parameters, and the steps as they were checked."""
    if preset not in PRESETS:
        close = difflib.get_close_matches(str(preset), PRESETS, 1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        msg = f"preset={preset!r} is none of {', '.join(map(repr, PRESETS))}.{meant}"
        raise InvalidRequestError(msg, parameter="preset", value=preset)
    pipelines = sorted({name for e in exposures for name in stage_classes(e) if name})
    layers = [check(PRESETS[preset]["steps"], parameter="preset")]
    if recipe is not None:
        layers.append(read_recipe(recipe))
    if corrections:
        from ..corrections import switches

        layers.append(check(switches(corrections), parameter="corrections"))
    checked = check(steps, pipelines) if steps else {}
    layers = [layer for layer in (*layers, checked) if layer]

    def steps_for(pipeline, members):
        return for_task(layers, pipeline, members) if layers else {}

    return steps_for, checked


def _corrections(corrections):
    if not corrections:
        return ()
    from ..corrections import normalise

    return tuple(normalise(corrections))


_GRID = {"crval", "crpix", "output_shape", "output_wcs", "pixel_scale", "rotation"}


class _Stage3Steps:
    """The parameters that a plan itself adds to a mosaic: its grid and its reference catalogue."""

    def __init__(self, exposures, steps_for, wcs, common, abs_refcat):
        self.abs_refcat = abs_refcat
        self.grid = {}
        if wcs is None and not common:
            return
        if wcs is not None and common:
            msg = "wcs and common_grid both set the grid of the mosaics; give one of them."
            raise InvalidRequestError(msg, parameter="common_grid", value=common)
        images = [e for e in exposures if stage_classes(e)[2] == "Image3Pipeline"]
        asked = {
            name: value
            for e in images
            for name, value in steps_for("Image3Pipeline", [e]).get("resample", {}).items()
            if value not in (None, "")
        }
        free = {"pixel_scale", "rotation"} if common else set()
        conflict = sorted(set(asked) & (_GRID - free))
        if conflict:
            name = "common_grid" if common else "wcs"
            msg = f"{name} sets the grid, and steps too: resample.{', resample.'.join(conflict)}."
            raise InvalidRequestError(msg, parameter=name, value=conflict)
        if wcs is not None:
            self.grid = grid_of_wcs(wcs)
            return
        wanted = {name: asked[name] for name in free if name in asked}
        wanted |= {} if common is True else dict(common)
        if not set(wanted) <= free:
            msg = f"common_grid={common!r} may have 'pixel_scale' and 'rotation'."
            raise InvalidRequestError(msg, parameter="common_grid", value=common)
        self.grid = grid_of_exposures(images, **wanted)

    def __call__(self, group):
        if group.pipeline != "Image3Pipeline":
            return {}, None
        steps = {}
        if self.grid:
            steps["resample"] = dict(self.grid)
        if self.abs_refcat in REFCATS:
            # Made by prefetch_references, below the output directory.
            name = f"refcat/{group.file_stem}_{self.abs_refcat}.ecsv"
            steps["tweakreg"] = {"abs_refcat": name}
        elif self.abs_refcat is not None:
            steps["tweakreg"] = {"abs_refcat": self.abs_refcat}
        return steps, n_pixels(group.exposures, self.grid)
