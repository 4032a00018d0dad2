"""The parameters that will hold, and who said so."""

import json

from astropy.table import Table

from ..refs.references import resolve
from ..resume.fingerprints import UNHEEDED
from .parameters import check, for_task
from .presets import PRESETS
from .recipes import read_recipe

__all__ = ["ORIGINS", "effective"]

ORIGINS = ("default", "crds", "preset", "recipe", "steps", "plan")
"""Where a value can come from; a later one has its way over an earlier one."""


def effective(plan, environment, *, offline=False, resolution=None):
    """Return the parameters of every step of every task of a plan, as they will be.

    Parameters
    ----------
    plan : Plan
        The plan.
    environment : CrdsEnvironment
        Cache, context and server.
    offline : bool, optional
        Whether no server may be asked; `False` by default.
    resolution : Resolution, optional
        What `~.references.resolve` returned for this plan, so as not to ask again.

    Returns
    -------
    `~astropy.table.Table`
        ``task``, ``step``, ``parameter``, ``value`` (text) and ``origin``: ``'default'`` of the
        step, ``'crds'``, ``'preset'``, ``'recipe'``, ``'steps'``, or ``'plan'`` for what the plan
        sets itself, such as the grid of a mosaic.  Of a skipped step only ``skip``.

    Raises
    ------
    CrdsUnavailable
        If mappings or parameter files are missing.
    """
    if resolution is None:
        resolution = resolve(plan, environment, offline=offline)
    exposures = {exposure.root: exposure for exposure in plan.exposures}
    layers = _layers(plan.options)
    rows, known = [], {}
    for task in plan.tasks:
        if task.kind != "pipeline":
            continue
        mine = [exposures[root] for root in task.exposures if root in exposures]
        asked = {name: for_task(layer, task.pipeline, mine) for name, layer in layers.items()}
        # Tasks that were resolved together have the same dictionary of parameters.
        key = id(resolution.parameters[task.name]), json.dumps(asked, sort_keys=True)
        if key not in known:
            known[key] = list(_rows(task, resolution, asked))
        rows += [(task.name, *row) for row in known[key]]
    names = ("task", "step", "parameter", "value", "origin")
    columns = list(zip(*rows, strict=True)) if rows else [[] for _ in names]
    table = Table([list(map(str, column)) for column in columns], names=names)
    table.meta["context"] = resolution.context
    return table


def _layers(options):
    layers = {
        "preset": PRESETS[options.get("preset", "default")]["steps"],
        "recipe": read_recipe(options["recipe"]) if options.get("recipe") else {},
        "steps": options.get("steps", {}),
    }
    return {name: check(layer) for name, layer in layers.items() if layer}


def _rows(task, resolution, asked):
    crds = resolution.crds[task.name]
    for step, values in resolution.parameters[task.name].items():
        shown = {"skip": True} if values.get("skip") else values
        for name, value in shown.items():
            if name in UNHEEDED:
                continue
            origin = "crds" if name in crds.get(step, {}) else "default"
            if name in task.steps.get(step, {}):
                origin = "plan"
                for layer in ("steps", "recipe", "preset"):
                    if name in asked.get(layer, {}).get(step, {}):
                        origin = layer
                        break
            yield step, name, value, origin
