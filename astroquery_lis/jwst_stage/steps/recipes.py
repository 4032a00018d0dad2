"""Where parameters come from: presets, recipes in files, and which of them will hold.

A preset stands above the parameters of CRDS and below a recipe and ``steps=``.  A recipe is a
file that stpipe itself writes, or TOML with a table per step, and below selectors the same again::

    [jump]
    rejection_threshold = 4.5

    [image3.resample]
    pixel_scale = 0.03

    [F200W.tweakreg]
    snr_threshold = 20.0

The word ``'None'`` stands for no value, which TOML cannot say.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astropy.table import Table

from ..._packages import import_optional
from ...exceptions import InvalidRequestError, refuse
from ...io.store import write_bytes
from ..pipeline import ask
from ..planning.pipelines import table_text
from ..resume.fingerprints import UNHEEDED
from .parameters import OWNED, check, for_task, pipeline_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..planning.plan import Plan
    from ..refs.references import Resolution
    from ..tasks import Task

# By name: a description, and steps as for `~.parameters.check`.
PRESETS: dict[str, dict[str, Any]] = tomllib.loads(table_text("presets"))
REASONS = PRESETS.pop("reasons")
"""Why the presets have the values that they have, by parameter."""

_STPIPE = (".asdf", ".cfg")


def read_recipe(path: str | os.PathLike[str]) -> dict:
    """Return the parameters of a recipe, checked: ``.toml``, or ``.asdf`` or ``.cfg`` of stpipe.

    A file of stpipe has its way over CRDS with every value that it has, as in ``strun``; those of
    `~.parameters.OWNED` are passed over.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        refuse("recipe", str(path), "is not a file.")
    if path.suffix == ".toml":
        return check(_read_toml(path), parameter=f"the recipe {path.name}")
    if path.suffix in _STPIPE:
        return check(_read_stpipe(path), parameter=f"the recipe {path.name}")
    refuse("recipe", str(path), "must be a .toml, .asdf or .cfg file.")


def write_recipe(path: str | os.PathLike[str], steps: Any) -> None:
    """Write parameters, checked first, as a recipe: a ``.toml`` file, which is replaced."""
    path = Path(path).expanduser()
    if path.suffix != ".toml":
        refuse("path", str(path), "must end in .toml.")
    document: dict[str, Any] = {}
    for selector, section in check(steps).items():
        target = document.setdefault(selector, {}) if selector else document
        for step, values in section.items():
            target[step] = {n: "None" if v is None else v for n, v in values.items()}
    text = import_optional("tomli_w", "jwst", "Writing recipes").dumps(document)
    write_bytes(path, text.encode())


def _read_toml(path: Path) -> dict:
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"recipe={str(path)!r} is not TOML: {error}."
        raise InvalidRequestError(msg, parameter="recipe", value=str(path)) from error


def _read_stpipe(path: Path) -> dict:
    """Return the parameters of a file of stpipe, as checked ones have to be written."""
    answer = ask("refs.answers:read_config", {"path": str(path.absolute())})
    values = answer["parameters"]
    if "steps" not in values:
        return {answer["step"]: _without_owned(values)}
    steps = {step: _without_owned(section) for step, section in values["steps"].items()}
    alias = pipeline_names().get(answer["class"].rpartition(".")[2])
    return {alias: steps} if alias else steps


def _without_owned(values: dict) -> dict:
    return {name: value for name, value in values.items() if name not in OWNED}


def effective(plan: Plan, resolution: Resolution) -> Table:
    """Return the parameters of every step of every task of a plan, as they will be, with origins.

    Of a skipped step only ``skip``; ``'plan'`` is the origin of what the plan sets itself, such as
    the grid of a mosaic.
    """
    exposures = {exposure.root: exposure for exposure in plan.exposures}
    layers = {
        "steps": plan.options.get("steps", {}),
        "recipe": read_recipe(plan.options["recipe"]) if plan.options.get("recipe") else {},
        "preset": PRESETS[plan.options.get("preset", "default")]["steps"],
    }
    layers = {name: check(layer) for name, layer in layers.items() if layer}
    rows: list[tuple] = []
    for task in plan.tasks:
        if task.kind != "pipeline":
            continue
        members = [exposures[root] for root in task.exposures if root in exposures]
        asked = {name: for_task([layer], task.pipeline, members) for name, layer in layers.items()}
        rows += [(task.name, *row) for row in _rows(task, resolution, asked)]
    names = ("task", "step", "parameter", "value", "origin")
    columns = list(zip(*rows, strict=True)) if rows else [() for _ in names]
    table = Table([list(map(str, column)) for column in columns], names=names)
    table.meta["context"] = resolution.context
    return table


def _rows(
    task: Task, resolution: Resolution, asked: dict[str, dict]
) -> Iterator[tuple[str, str, object, str]]:
    crds = resolution.crds[task.name]
    for step, values in resolution.parameters[task.name].items():
        for name, value in ({"skip": True} if values.get("skip") else values).items():
            if name in UNHEEDED:
                continue
            origin = "crds" if name in crds.get(step, {}) else "default"
            if name in task.steps.get(step, {}):
                layers = (layer for layer in asked if name in asked[layer].get(step, {}))
                origin = next(layers, "plan")
            yield step, name, value, origin
