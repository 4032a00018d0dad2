"""Parameters of the steps: what exists and is allowed, where it comes from, and for which task.

The specifications are those of the installed `jwst`, read once per version in another process;
values go through the validator that stpipe itself uses.

A set of parameters is a dictionary ``{step: {parameter: value}}``.  A step's parameter may be
written ``'resample.pixel_scale'``.  Steps may stand below a selector: a pipeline (``'image2'``), or
in upper case an instrument, a channel, a detector, or a filter or pupil; of several that are right
for an exposure the last one in this order has its way.

They come from presets, which stand above the parameters of CRDS, from recipes, which stand above
presets, and from ``steps=``, above all.  A recipe is a file that stpipe itself writes, or TOML with
a table per step, and below selectors the same again::

    [jump]
    rejection_threshold = 4.5

    [image3.resample]
    pixel_scale = 0.03

    [F200W.tweakreg]
    snr_threshold = 20.0

The word ``'None'`` stands for no value, which TOML cannot say.
"""

from __future__ import annotations

import json
import os
import tomllib
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._packages import import_optional
from ..exceptions import InvalidRequestError, StageWarning, meant, refuse, warn
from ..io.whole_files import write_bytes
from .pipelines import ask, read_table, require_jwst
from .tasks import cache_folder, table_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from astropy.table import Table
    from configobj.validate import Validator

    from .planning import Plan
    from .planning.exposures import Exposure
    from .references import Resolution
    from .tasks import Task


_PLACES = "the plan decides on names and places of products"
OWNED = {
    "output_dir": _PLACES,
    "output_file": _PLACES,
    "output_ext": _PLACES,
    "output_use_model": _PLACES,
    "output_use_index": _PLACES,
    "search_output_file": _PLACES,
    "input_dir": _PLACES,
    "suffix": _PLACES,
    "name": _PLACES,
    "class": "the pipeline decides on the classes of its steps",
    "config_file": "give the file as recipe=, so that its values are checked and recorded",
    "maximum_cores": "one process works on each exposure; set max_workers= of run instead",
    "pre_hooks": "use corrections=, which are recorded and enter the fingerprint",
    "post_hooks": "use corrections=, which are recorded and enter the fingerprint",
}
"""Parameters that are not the user's here, and why."""

UNHEEDED = frozenset(OWNED) | {"in_memory", "save_results"}
"""Parameters that change how a step works and not what comes out."""

# The least specific first.
_SELECTORS = ("name", "channel", "detector", "filter", "pupil")
_FILE_PARAMETERS = ("abs_refcat", "catfile")


def specs() -> dict:
    """Return the specifications of all parameters of the installed `jwst`.

    ``pipelines`` has by class name ``alias``, ``own`` and ``steps``, of which a parameter has the
    text of its specification; ``words`` the allowed instruments, detectors, filters, ...
    """
    require_jwst()
    return _specs(version("jwst"), version("stpipe"))


@lru_cache(maxsize=4)
def _specs(jwst_version: str, stpipe_version: str) -> dict:
    path = cache_folder() / f"specs-{jwst_version}-{stpipe_version}.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        pass
    answer = ask("pipelines:specs_in_process", {})
    with suppress(OSError):  # They are known all the same.
        write_bytes(path, json.dumps(answer).encode())
    return answer


def check(steps: Any, pipelines: Sequence[str] = (), *, parameter: str = "steps") -> dict:
    """Return parameters by selector and step, checked against the specifications.

    Everything that is wrong is told at once, with what may have been meant; a warning tells of
    steps that are of none of ``pipelines``.  Numbers and booleans come as stpipe takes them, paths
    absolute; the selector is empty where there is none.
    """
    if not steps:
        return {}
    checker = _Checker(pipelines)
    entries = [
        (selector, step, name, checker.value(selector, step, name, value))
        for selector, step, name, value in checker.flat(steps, parameter)
    ]
    if checker.faults:
        listed = "".join(f"\n- {fault}" for fault in checker.faults)
        plural = "1 fault" if len(checker.faults) == 1 else f"{len(checker.faults)} faults"
        msg = f"{parameter} has {plural}:{listed}"
        raise InvalidRequestError(msg, parameter=parameter, value=steps)
    checked: dict[str, dict] = {}
    for selector, step, name, value in entries:
        checked.setdefault(selector, {}).setdefault(step, {})[name] = value
    _warn_of_idle(checked, pipelines, parameter)
    return checked


def for_task(
    layers: Iterable[dict], pipeline: str, exposures: Sequence[Exposure]
) -> dict[str, dict]:
    """Return the parameters that one pipeline gets for some exposures.

    Of several sets, as `check` returns them, a later one has its way whatever the selectors of an
    earlier one; a selector counts if it is right for all the exposures.
    """
    pipelines = specs()["pipelines"]
    if pipeline not in pipelines:
        return {}
    alias, present = pipelines[pipeline]["alias"], pipelines[pipeline]["steps"]
    merged: dict[str, dict] = {}
    for checked in layers:
        for selector in _right_selectors(checked, exposures, alias):
            for step, values in checked[selector].items():
                own = {n: v for n, v in values.items() if n in present.get(step, ())}
                merged.setdefault(step, {}).update(own)
    return {step: values for step, values in merged.items() if values}


def _right_selectors(
    selectors: Iterable[str], exposures: Sequence[Exposure], alias: str
) -> list[str]:
    """Return the selectors that are right for all exposures, the least specific first."""
    ranks = {selector: _rank(selector, exposures, alias) for selector in selectors}
    right = {selector: rank for selector, rank in ranks.items() if rank is not None}
    return sorted(right, key=right.__getitem__)


def pipeline_names() -> dict[str, str]:
    """Return the selectors of the pipelines by class name."""
    pipelines = specs()["pipelines"]
    names = {name: spec["alias"].removeprefix("calwebb_") for name, spec in pipelines.items()}
    # A step that is a stage of its own is called by its name as a step.
    return {n: alias for n, alias in names.items() if alias not in pipelines[n]["steps"]}


class _ParameterError(ValueError):
    """What is wrong with a parameter: what its message says behind the parameter's name."""


class _Checker:
    """Checks entries one by one, and collects what is wrong with them."""

    def __init__(self, planned: Sequence[str]) -> None:
        self.pipelines: dict[str, dict] = specs()["pipelines"]
        self.words: dict[str, list[str]] = specs()["words"]
        self.aliases = pipeline_names()
        self.planned = planned
        self.faults: list[str] = []

    def flat(self, steps: Any, parameter: str) -> Iterator[tuple[str, str, str, object]]:
        """Yield selector, step, parameter and value of everything that was asked."""
        if not isinstance(steps, dict):
            form = "{step: {name: value}}"
            refuse(parameter, steps, f"must be a dictionary of the form {form}.")
        for key, section in steps.items():
            if isinstance(key, str):
                yield from self._of_key(key, section)
            else:
                self.faults.append(f"{key!r} is not the name of a step.")

    def _of_key(self, key: str, section: Any) -> Iterator[tuple[str, str, str, object]]:
        pipeline, _, rest = key.partition(".")
        if pipeline in self.aliases.values():
            yield from self._below({rest: section} if rest else section, pipeline)
        elif key == "" or (key == key.upper() and isinstance(section, dict)):
            self._check_selector(key)
            yield from self._below(section, key)
        else:
            yield from self._below({key: section}, "")

    def _below(self, steps: Any, selector: str) -> Iterator[tuple[str, str, str, object]]:
        if not isinstance(steps, dict):
            self.faults.append(f"{selector}={steps!r} must be a dictionary of steps.")
            return
        for key, section in steps.items():
            step, dot, name = key.partition(".")
            if dot:
                yield selector, step, name, section
            elif isinstance(section, dict):
                for inner, value in section.items():
                    yield selector, step, str(inner), value
            else:
                where = f"{selector}.{key}" if selector else key
                self.faults.append(f"{where}={section!r} must be a dictionary of parameters.")

    def _check_selector(self, word: str) -> None:
        if word and not any(word in self.words[kind] for kind in _SELECTORS):
            every = [name for kind in self.words.values() for name in kind]
            fault = f"{word!r} is not an instrument, channel, detector, filter or pupil of JWST."
            self.faults.append(fault + _meant(word, every))

    def value(self, selector: str, step: str, name: str, value: Any) -> object:
        """Return a value as the validator takes it; one that is wrong as it is."""
        try:
            return _valid(name, value, self._specification(selector, step, name))
        except _ParameterError as fault:
            where = ".".join(part for part in (selector, step, name) if part)
            self.faults.append(f"{where}{fault}")
            return value

    def _specification(self, selector: str, step: str, name: str) -> str:
        """Return the text of the specification of a parameter."""
        sections = self._sections(selector, step)
        if name in OWNED:
            msg = f" cannot be set: {OWNED[name]}."
            raise _ParameterError(msg)
        text = next((section[name] for section in sections if section.get(name)), "")
        if not text:
            allowed = sorted({n for section in sections for n in section} - set(OWNED))
            msg = f": the step {step!r} has no parameter {name!r}.{_meant(name, allowed)}"
            raise _ParameterError(msg)
        return text

    def _sections(self, selector: str, step: str) -> list[dict[str, str]]:
        """Return a step in the pipelines that have it: the one named, else those planned."""
        having = [p for p in self.pipelines if step in self.pipelines[p]["steps"]]
        if not having:
            every = sorted(set().union(*(p["steps"] for p in self.pipelines.values())))
            msg = f": there is no step {step!r}.{_meant(step, every)}"
            raise _ParameterError(msg)
        named = [p for p, alias in self.aliases.items() if alias == selector][:1]
        pipelines = named or [p for p in having if p in self.planned] or having
        if not set(having).issuperset(pipelines):
            allowed = sorted(self.pipelines[named[0]]["steps"])
            msg = f": {selector!r} has no step {step!r}.{_meant(step, allowed)}"
            raise _ParameterError(msg)
        return [self.pipelines[p]["steps"][step] for p in pipelines]


def _valid(name: str, value: Any, text: str) -> object:
    """Return a value as the validator takes it, by the text of its specification."""
    from configobj.validate import ValidateError

    value = _plain(value)
    if value == "None" and not text.startswith(("string", "is_string")):
        # TOML has no word for it.
        value = None
    if isinstance(value, dict):
        msg = f"={value!r} must be a value, not a dictionary."
        raise _ParameterError(msg)
    try:
        value = _validator().check(text, value)
    except ValidateError as error:
        why = str(error).rstrip(".")
        msg = f"={value!r} does not agree with {text.rstrip(',')}: {why}."
        raise _ParameterError(msg) from error
    return _path(name, value) if value and isinstance(value, str) else value


def _path(name: str, value: str) -> str:
    """Return the value of a parameter that names a file as an absolute path."""
    path = Path(value).expanduser()
    is_override = name.startswith("override_") and value.strip() != "N/A"
    if (is_override or name in _FILE_PARAMETERS) and path.is_file():
        return str(path.absolute())
    if is_override:
        msg = f"={value!r} must be a reference file that exists, or 'N/A'."
        raise _ParameterError(msg)
    return value


def _plain(value: Any) -> object:
    """Return a value as types that the validator knows."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return value.item()
    return list(value) if isinstance(value, tuple) else value


@lru_cache(maxsize=1)
def _validator() -> Validator:
    """Return a validator with the same functions as that of `stpipe.config_parser`."""
    from configobj.validate import Validator, VdtTypeError

    def text(value: Any) -> str:
        # Models in memory cannot go to another process.
        if not isinstance(value, str):
            raise VdtTypeError(value)
        return value

    names = ("is_datamodel", "is_string_or_datamodel", "input_file", "output_file")
    return Validator(dict.fromkeys(names, text))


def _warn_of_idle(checked: dict, planned: Sequence[str], parameter: str) -> None:
    pipelines = specs()["pipelines"]
    present = {step for name in planned if name in pipelines for step in pipelines[name]["steps"]}
    idle = sorted({step for section in checked.values() for step in section} - present)
    if planned and idle:
        msg = (
            f"{parameter} has parameters of {', '.join(idle)}; no pipeline of this plan "
            f"({', '.join(planned)}) has such a step, and nothing comes of them."
        )
        warn(msg, StageWarning)


def _meant(word: str, allowed: Sequence[str]) -> str:
    """Return the end of a message: what may have been meant, else what is allowed."""
    return meant(word, allowed) or f" Allowed: {', '.join(dict.fromkeys(allowed))}."


def _rank(selector: str, exposures: Iterable[Exposure], pipeline: str) -> int | None:
    """Return how specific a selector is, `None` where it is not right for all the exposures."""
    if not selector:
        return -2
    if selector in pipeline_names().values():
        return -1 if selector == pipeline.removeprefix("calwebb_") else None
    ranks = [_place_of(selector, exposure) for exposure in exposures]
    return None if None in ranks else min(filter(None, ranks), default=None)


def _place_of(selector: str, exposure: Exposure) -> int | None:
    """Return which kind of word of an exposure a selector is, the most specific if several."""
    kinds = (
        (exposure.instrument,),
        (exposure.channel,),
        (exposure.detector,),
        (exposure.filter, exposure.pupil),
    )
    places = [i for i, words in enumerate(kinds, 1) if selector in map(str.upper, words)]
    return max(places, default=None)


# ---- presets and recipes ------------------------------------------------------------------------

# By name: a description, and steps as for `check`.
PRESETS: dict[str, dict[str, Any]] = dict(read_table("presets"))
REASONS = PRESETS.pop("reasons")
"""Why the presets have the values that they have, by parameter."""

_STPIPE = (".asdf", ".cfg")


def read_recipe(path: str | os.PathLike[str]) -> dict:
    """Return the parameters of a recipe, checked: ``.toml``, or ``.asdf`` or ``.cfg`` of stpipe.

    A file of stpipe has its way over CRDS with every value that it has, as in ``strun``; those of
    `OWNED` are passed over.
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
    answer = ask("pipelines:config_in_process", {"path": str(path.absolute())})
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
    layers = _layers(plan.options)
    rows: list[tuple] = []
    for task in plan.tasks:
        members = [exposures[root] for root in task.exposures if root in exposures]
        requested = {
            name: for_task([layer], task.pipeline, members) for name, layer in layers.items()
        }
        rows += [(task.name, *map(str, row)) for row in _rows(task, resolution, requested)]
    table = table_of(rows, dict.fromkeys(("task", "step", "parameter", "value", "origin"), str))
    table.meta["context"] = resolution.context
    return table


def _layers(options: Mapping[str, Any]) -> dict[str, dict]:
    """Return the parameters of each origin in a plan, the one that has its way first."""
    recipe = options.get("recipe")
    layers = {
        "steps": options.get("steps", {}),
        "recipe": read_recipe(recipe) if recipe else {},
        "preset": PRESETS[options.get("preset", "default")]["steps"],
    }
    return {name: check(layer) for name, layer in layers.items() if layer}


def _rows(
    task: Task, resolution: Resolution, requested: dict[str, dict]
) -> Iterator[tuple[str, str, object, str]]:
    if task.kind != "pipeline":
        return
    crds = resolution.crds[task.name]
    for step, values in resolution.parameters[task.name].items():
        shown = {"skip": True} if values.get("skip") else values
        for name in (name for name in shown if name not in UNHEEDED):
            origin = "crds" if name in crds.get(step, {}) else "default"
            if name in task.steps.get(step, {}):
                origin = _requested_by(requested, step, name)
            yield step, name, shown[name], origin


def _requested_by(requested: dict[str, dict], step: str, name: str) -> str:
    """Return the layer that has its way with a parameter of a task."""
    layers = (layer for layer, steps in requested.items() if name in steps.get(step, {}))
    return next(layers, "plan")
