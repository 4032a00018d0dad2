"""What there is to do, before it is done: `make_plan`, and the `Plan` that it returns."""

from __future__ import annotations

import difflib
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astropy.table import Table

from ..._packages import import_optional
from ...exceptions import InvalidRequestError, LegacySurveyWarning, warn
from ...io.store import write_bytes
from ..corrections import normalise, switches
from ..steps.parameters import check, for_task
from ..steps.recipes import PRESETS, read_recipe
from ..tasks import REFCATS, Member, Reduction, Task
from .exposures import Exposure
from .grids import common_grid as grid_of_exposures
from .grids import grid_of_wcs, n_pixels
from .pipelines import stage_classes
from .plan_build import build
from .plan_inputs import choose, read_files
from .task_builder import configurations_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from ..._typing import FilePath
    from ..corrections import Correction
    from ..refs.references import Resolution
    from ..resume.states import State
    from .associations import Group, GroupBy
    from .task_builder import StepsFor

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

    def __len__(self) -> int:
        return len(self.tasks)

    def task(self, name: FilePath) -> Task:
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
        tasks = [
            task
            for task in self.tasks
            if name == task.name
            or any(name == o or name.endswith(f"/{o}") or o.endswith(name) for o in task.outputs)
        ]  # fmt: skip
        if len(tasks) == 1:
            return tasks[0]
        if tasks:
            several = ", ".join(task.name for task in tasks)
            msg = f"product={name!r} is made by several tasks: {several}; name the directory too."
        else:
            last = ", ".join(task.name for task in self.tasks[-4:])
            msg = f"product={name!r} is made by no task of the plan, which ends in {last}."
        raise InvalidRequestError(msg, parameter="product", value=name)

    def table(self, states: dict[str, State] | None = None) -> Table:
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

    def members(self, product: FilePath | None = None) -> Table:
        """Return what each product is made of.

        Parameters
        ----------
        product : str, optional
            Name of a task or of one of its products; all tasks by default.

        Returns
        -------
        `~astropy.table.Table`
            ``task``, ``role`` (science, background, imprint, psf, direct_image, sourcecat, segmap,
            target_acquisition), ``member``: a file of another task, or a path.

        Raises
        ------
        InvalidRequestError
            If no task, or more than one, makes such a product.
        """
        tasks = self.tasks if product is None else (self.task(product),)
        rows = [
            (task.name, member.exptype, member.file or member.input)
            for task in tasks
            for member in task.members or (Member(name) for name in task.inputs)
        ]
        names = ("task", "role", "member")
        return Table(rows=rows or None, names=names, dtype=(str, str, str))

    def _states(self) -> dict[str, State]:
        if self.output_dir is None or not Path(self.output_dir).is_dir():
            return {}
        from ..resume.states import assess

        return assess(Reduction(self, Path(self.output_dir)))

    def explain(self, product: FilePath, states: dict[str, State] | None = None) -> str:
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

    def save(self, path: FilePath) -> None:
        """Write the plan as a TOML file, whole or not at all.

        Parameters
        ----------
        path : path-like
            The file; directories are made.
        """
        path = Path(path)
        write_bytes(path, plan_to_text(self).encode())

    @classmethod
    def load(cls, path: FilePath) -> Self:
        """Return the plan in a file.

        Parameters
        ----------
        path : path-like
            What `save` wrote.

        Returns
        -------
        Plan
        """
        return cls(**_read(path))

    def _heading(self) -> str:
        n_seconds = sum(task.estimate.seconds for task in self.tasks)
        disk = sum(task.estimate.disk_gb for task in self.tasks)
        memory = max((task.estimate.memory_gb for task in self.tasks), default=0)
        return (
            f"Plan: {len(self.exposures)} exposures, {len(self.tasks)} tasks, about "
            f"{n_seconds / 60:.0f} min on one core, up to {memory:.1f} GB of memory each, "
            f"{disk:.2f} GB of disk"
        )

    def __repr__(self) -> str:
        lines = self.table().pformat(max_lines=60, max_width=140)
        notes = [f"Note: {note}" for note in self.notes]
        return "\n".join([self._heading(), *lines, *notes])

    def _repr_html_(self) -> str:
        from html import escape

        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        table = self.table()._repr_html_()
        return f"<p>{escape(self._heading())}</p>{table}" + (f"<ul>{notes}</ul>" if notes else "")


# ---- a plan as a TOML file that people can read, and back ---------------------------------------

FORMAT = 1
"""Number of the layout of the file."""

_HEAD = """\
# What a run of the JWST chain has to do. Written by astroquery_lis; read by Plan.load.
# An input is a file, or the name of the task that makes it, relative to output_dir.
"""


def plan_to_text(plan: Plan) -> str:
    """Return a plan as TOML."""
    tomli_w = import_optional("tomli_w", "jwst", "Saving a plan")
    content = {
        "format": FORMAT,
        "output_dir": plan.output_dir or "",
        "notes": list(plan.notes),
        "options": _without_none(plan.options),
        "configurations": plan.configurations,
        "exposures": [exposure.to_dict() for exposure in plan.exposures],
        "tasks": [_task_values(task) for task in plan.tasks],
    }
    return _HEAD + tomli_w.dumps(content)


def _task_values(task: Task) -> object:
    values = task.to_dict()
    if "members" in values:
        values["members"] = [
            {name: value for name, value in member.items() if value or name in ("input", "exptype")}
            for member in values["members"]
        ]
    return _without_none(values)


def _read_task(values: dict[str, Any]) -> Task:
    for name in _MAY_HOLD_NONE:
        if name in values:
            values[name] = _with_none(values[name])
    return Task.from_dict(values)


_MAY_HOLD_NONE = ("steps", "corrections")
_NONE = {"none": True}


def _without_none(value: Any) -> object:
    """Return the value as TOML has it, which lacks None; its word in stpipe is also a string."""
    if isinstance(value, dict):
        return {name: _without_none(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_none(inner) for inner in value]
    return dict(_NONE) if value is None else value


def _with_none(value: Any) -> object:
    if value == _NONE:
        return None
    if isinstance(value, dict):
        return {name: _with_none(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_none(inner) for inner in value]
    return value


def plan_from_text(text: str, where: str = "") -> dict:
    """Return the parts of a plan that TOML holds."""
    try:
        content = tomllib.loads(text)
        if content["format"] != FORMAT:
            msg = f"{where}: a plan of format {content['format']}; this version reads {FORMAT}."
            raise InvalidRequestError(msg, parameter="path", value=where)
        return {
            "exposures": tuple(Exposure.from_dict(e) for e in content.get("exposures", ())),
            "tasks": tuple(_read_task(t) for t in content.get("tasks", ())),
            "configurations": content.get("configurations", {}),
            "options": {
                k: _with_none(v) if k in _MAY_HOLD_NONE else v
                for k, v in content.get("options", {}).items()
            },
            "output_dir": content["output_dir"] or None,
            "notes": tuple(content.get("notes", ())),
        }
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        msg = f"{where}: is not a plan: {type(error).__name__}: {error}."
        raise InvalidRequestError(msg, parameter="path", value=where) from None


def _read(path: FilePath) -> dict:
    """Return the parts of the plan in a file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read: {error}."
        raise InvalidRequestError(msg, parameter="path", value=str(path)) from None
    return plan_from_text(text, where=str(path))


# ---- from what was asked for to a plan ----------------------------------------------------------


def make_plan(
    files: FilePath | Sequence[FilePath] | Table,
    *,
    output_dir: FilePath | None = None,
    stages: int | Sequence[int] = (1, 2, 3),
    steps: Any = None,
    preset: str = "default",
    recipe: FilePath | None = None,
    corrections: Any = (),
    group_by: GroupBy | None = None,
    product_name: str | None = None,
    start: str = "uncal",
    abs_refcat: FilePath | None = None,
    wcs: Any = None,
    common_grid: bool | dict[str, float] = False,
    resolution: Resolution | None = None,
    check_associations: bool = True,
) -> Plan:
    """Return what there is to do, without doing it, without a network, and without `jwst`."""
    numbers = _checked_stages(stages)
    place = None if output_dir is None else os.path.abspath(os.path.expanduser(output_dir))
    inputs, associations, left_out = read_files(files, output_dir=place)
    for note in left_out:
        warn(note, LegacySurveyWarning)
    exposures, notes = choose(inputs, start, resolution=resolution)
    changes = normalise(corrections)
    steps_for, checked_steps = _step_layers(preset, recipe, steps, changes, exposures)
    refcat = _checked_refcat(abs_refcat)
    stage3_steps = _Stage3Steps(exposures, steps_for, wcs, common_grid, refcat)
    tasks, more = build(
        exposures,
        stages=numbers,
        steps_for=steps_for,
        corrections=changes,
        group_by=group_by,
        product_name=product_name,
        associations=associations,
        output_dir=place,
        stage3_steps=stage3_steps,
        check_associations=check_associations,
    )
    used = {root for task in tasks for root in task.exposures}
    used |= {path for task in tasks for path in task.inputs}
    exposures = [e for e in exposures if e.root in used or e.path in used]
    options = {
        "stages": list(numbers),
        "start": start,
        "preset": preset,
        "recipe": None if recipe is None else os.path.abspath(recipe),
        "steps": checked_steps,
        "corrections": [c.to_dict() for c in changes],
        "group_by": _plain(group_by),
        "product_name": product_name,
        "abs_refcat": refcat,
        "grid": stage3_steps.grid,
    }
    return Plan(
        exposures=tuple(exposures),
        tasks=tasks,
        configurations=configurations_of(exposures),
        options={k: v for k, v in options.items() if v not in (None, {}, [])},
        output_dir=place,
        notes=tuple(left_out + notes + more),
    )


def _plain(group_by: GroupBy | None) -> str | list[str] | None:
    if group_by is None or isinstance(group_by, str):
        return group_by
    if callable(group_by):
        return f"function {getattr(group_by, '__qualname__', repr(group_by))}"
    return list(group_by)


def _checked_stages(stages: int | Sequence[int]) -> tuple[int, ...]:
    numbers = (stages,) if isinstance(stages, int) else tuple(stages)
    if not numbers or not set(numbers) <= {1, 2, 3}:
        msg = f"stages={stages!r} must be some of 1, 2 and 3."
        raise InvalidRequestError(msg, parameter="stages", value=stages)
    numbers = tuple(sorted(set(numbers)))
    if numbers == (1, 3):
        msg = f"stages={stages!r}: stage 3 begins from products of stage 2; add it."
        raise InvalidRequestError(msg, parameter="stages", value=stages)
    return numbers


def _checked_refcat(abs_refcat: FilePath | None) -> str | None:
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


def _step_layers(
    preset: str,
    recipe: FilePath | None,
    steps: Any,
    corrections: tuple[Correction, ...],
    exposures: Sequence[Exposure],
) -> tuple[StepsFor, dict]:
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
        layers.append(check(switches(corrections), parameter="corrections"))
    checked = check(steps, pipelines) if steps else {}
    layers = [layer for layer in (*layers, checked) if layer]

    def steps_for(pipeline: str, members: Sequence[Exposure]) -> dict[str, dict]:
        return for_task(layers, pipeline, members) if layers else {}

    return steps_for, checked


_GRID = {"crval", "crpix", "output_shape", "output_wcs", "pixel_scale", "rotation"}


class _Stage3Steps:
    """The parameters that a plan itself adds to a mosaic: its grid and its reference catalogue."""

    def __init__(
        self,
        exposures: Sequence[Exposure],
        steps_for: StepsFor,
        wcs: Any,
        common: bool | dict[str, float],
        abs_refcat: str | None,
    ) -> None:
        self.abs_refcat = abs_refcat
        self.grid: dict[str, Any] = {}
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
        values = {name: asked[name] for name in free if name in asked}
        values |= dict(common) if isinstance(common, dict) else {}
        if not set(values) <= free:
            msg = f"common_grid={common!r} may have 'pixel_scale' and 'rotation'."
            raise InvalidRequestError(msg, parameter="common_grid", value=common)
        self.grid = grid_of_exposures(images, **values)

    def __call__(self, group: Group) -> tuple[dict[str, dict], int | None]:
        if group.pipeline != "Image3Pipeline":
            return {}, None
        steps: dict[str, dict] = {}
        if self.grid:
            steps["resample"] = dict(self.grid)
        if self.abs_refcat in REFCATS:
            # Made by prefetch_references, below the output directory.
            name = f"refcat/{group.file_stem}_{self.abs_refcat}.ecsv"
            steps["tweakreg"] = {"abs_refcat": name}
        elif self.abs_refcat is not None:
            steps["tweakreg"] = {"abs_refcat": self.abs_refcat}
        return steps, n_pixels(group.exposures, self.grid)
