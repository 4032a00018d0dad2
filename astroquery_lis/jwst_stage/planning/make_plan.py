"""From what was asked for to a plan and the grid of its mosaics, without doing anything of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from astropy.table import Table

from ...exceptions import (
    InvalidRequestError,
    LegacySurveyWarning,
    meant,
    refuse,
    warn,
)
from ..corrections import normalise, switches
from ..parameters import PRESETS, check, for_task, read_recipe
from ..tasks import REFCATS
from .associations import put_together
from .exposures import Exposure, configurations_of
from .grids import grid_of_exposures, grid_of_wcs
from .pipelines import stage_classes
from .plan import Plan
from .plan_inputs import choose, read_files
from .task_builder import TaskBuilder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..._typing import FilePath
    from ..corrections import Correction
    from ..refs.references import Resolution
    from .associations import GroupBy
    from .task_builder import StepsFor


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
    grid = _grid(exposures, steps_for, wcs, common_grid)
    together = put_together(
        exposures,
        group_by=group_by,
        product_name=product_name,
        files=associations,
        stages=numbers,
    )
    builder = TaskBuilder(
        exposures,
        together,
        stages=numbers,
        steps_for=steps_for,
        corrections=changes,
        output_dir=place,
        grid=grid,
        abs_refcat=refcat,
    )
    tasks = builder.build(check_associations=check_associations)
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
        "grid": grid,
    }
    return Plan(
        exposures=tuple(exposures),
        tasks=tasks,
        configurations=configurations_of(exposures),
        options={k: v for k, v in options.items() if v not in (None, {}, [])},
        output_dir=place,
        notes=tuple(left_out + notes + builder.notes),
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
        refuse("stages", stages, "must be some of 1, 2 and 3.")
    numbers = tuple(sorted(set(numbers)))
    if numbers == (1, 3):
        refuse("stages", stages, ": stage 3 begins from products of stage 2; add it.")
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
        hint = meant(preset, PRESETS)
        refuse("preset", preset, f"is none of {', '.join(map(repr, PRESETS))}.{hint}")
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


def _grid(
    exposures: Sequence[Exposure], steps_for: StepsFor, wcs: Any, common: bool | dict[str, float]
) -> dict[str, object]:
    """Return the grid of all mosaics, in the words of resample; nothing if each has its own."""
    if wcs is None and not common:
        return {}
    if wcs is not None and common:
        msg = "wcs and common_grid both set the grid of the mosaics; give one of them."
        raise InvalidRequestError(msg, parameter="common_grid", value=common)
    images = [e for e in exposures if stage_classes(e)[2] == "Image3Pipeline"]
    asked: dict[str, Any] = {}
    for image in images:
        options = steps_for("Image3Pipeline", [image]).get("resample", {})
        asked |= {name: value for name, value in options.items() if value not in (None, "")}
    free = {"pixel_scale", "rotation"} if common else set()
    conflict = sorted(set(asked) & (_GRID - free))
    if conflict:
        name = "common_grid" if common else "wcs"
        msg = f"{name} sets the grid, and steps too: resample.{', resample.'.join(conflict)}."
        raise InvalidRequestError(msg, parameter=name, value=conflict)
    if wcs is not None:
        return grid_of_wcs(wcs)
    values = {name: asked[name] for name in free if name in asked}
    values |= dict(common) if isinstance(common, dict) else {}
    if not set(values) <= free:
        refuse("common_grid", common, "may have 'pixel_scale' and 'rotation'.")
    return grid_of_exposures(images, **values)
