"""A correction: a named change of the pixels at a fixed point of the chain, and its application.

A correction is a dictionary when it travels: into a plan, to the process that works, into the
fingerprint of a product.  Its digest covers the code, the parameters and the content of the files
that the parameters name.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import re
import warnings
from base64 import b64decode
from dataclasses import asdict, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

from ...exceptions import InvalidRequestError, StageError, TaskError
from ...io.whole_files import sha256_of
from ..pipelines import IMAGING

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from stdatamodels.jwst.datamodels import JwstDataModel

    from ..planning.exposures import Exposure
    from ..tasks import Task

POINTS = ("after_jump", "after_rate", "after_cal", "before_stage3")
"""Where it may be: inside stage 1, on its product, on that of stage 2, and last of all."""

IN_STEP = "in_step"
"""The point of a correction that is a step of the pipeline itself, switched on or off."""

MARK = "corrected: "
"""What the HISTORY of a corrected product begins with."""

OPTICAL_WORDS = ("instrument", "channel", "detector", "filter", "pupil")
"""Attributes of an exposure whose values choose what a correction, or one of its files, is for."""


@dataclass(frozen=True, slots=True)
class Correction:
    """One correction with its parameters.

    Attributes
    ----------
    name : str
        Of a correction of this package, or of the function or class.
    point : str
        One of `POINTS`, or `IN_STEP`.
    suffix : str
        What its product is called by; also what it is known by in HISTORY.
    source : str
        Where the code is: ``"import:module:name"``, ``"pickle:..."`` with the function itself, or
        empty for a step of the pipeline.
    parameters : dict
        Keyword arguments of the function; JSON types only.
    steps : dict
        What it asks of the pipeline's own steps: ``{selector: {step: {parameter: value}}}``, the
        selector empty for all exposures.
    only : tuple of str
        Exposures that it is for: words in upper case, such as 'NRCA3', 'F200W' or 'NRCA3/F200W', of
        which one has to be right.  Empty for all.
    imaging : bool
        Whether it is for images only.
    files : dict of str to str
        sha256 of the content of each file among the parameters, by path.
    code : str
        sha256 of the code alone.
    digest : str
        sha256 of code, parameters and files.
    """

    name: str
    point: str
    suffix: str
    source: str = ""
    parameters: dict = field(default_factory=dict)
    steps: dict = field(default_factory=dict)
    only: tuple = ()
    imaging: bool = False
    files: dict = field(default_factory=dict)
    code: str = ""
    digest: str = ""

    def applies(self, exposure: Exposure) -> bool:
        """Return True if an exposure is among those that the correction is for."""
        if self.imaging and exposure.exp_type not in IMAGING:
            return False
        words = {getattr(exposure, name) for name in OPTICAL_WORDS}
        return not self.only or any(set(entry.split("/")) <= words for entry in self.only)

    def to_dict(self) -> dict:
        """Return the correction as JSON and TOML types."""
        values = asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict) -> Correction:
        """Return the correction that `to_dict` wrote."""
        names = {f.name for f in fields(cls)}
        values = {name: value for name, value in values.items() if name in names}
        return cls(**{**values, "only": tuple(values.get("only", ()))})


def shape_of(model: JwstDataModel, name: str = "data") -> tuple[int, ...] | None:
    """Return the shape of an array of a model; `None` if it has none."""
    return getattr(getattr(model, name, None), "shape", None)


def mark(correction: Correction) -> str:
    """Return the line of HISTORY by which it is known that a correction was applied: one card."""
    return f"{MARK}{correction.suffix} ({correction.name})"[:72]


def note(model: JwstDataModel, text: str) -> None:
    """Add a line to the HISTORY of a model; what is longer than a card is cut off."""
    model.add_history_entry(text[:72])


def history_of(model: JwstDataModel) -> list[str]:
    """Return the lines of the HISTORY of a model."""
    # There is a way to add entries that is to stay, and none yet to read them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return [str(entry["description"]) for entry in model.history]


# ---- digests ------------------------------------------------------------------------------------

_PLAIN = (bool, int, float, complex, str, bytes, tuple, type(None))


def json_digest(parts: object) -> str:
    """Return the sha256 of a value of JSON types."""
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def module_digest(module: str, name: str) -> str:
    """Return the sha256 of the file of a module, which has to define the name; without import."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError, AttributeError):
        spec = None
    path = getattr(spec, "origin", None) or ""
    if path.endswith(".py"):
        with open(path, encoding="utf-8") as file:
            names = compile(file.read(), path, "exec", dont_inherit=True).co_names
        if name.partition(".")[0] in names:
            return sha256_of(path)
    msg = f"corrections: there is no {name!r} in the source of a module {module!r}."
    raise InvalidRequestError(msg, parameter="corrections", value=f"{module}:{name}")


def function_digest(function: FunctionType) -> str:
    """Return the sha256 of the source of a function of no module, and of values that it uses."""
    parts: list[list] = []
    queue, visited = [function], set()
    while queue:
        current = queue.pop()
        if current in visited:
            continue
        visited.add(current)
        variables = inspect.getclosurevars(current)
        values = {**variables.globals, **variables.nonlocals}
        plain = sorted((n, repr(v)) for n, v in values.items() if isinstance(v, _PLAIN))
        defaults = repr((current.__defaults__, current.__kwdefaults__))
        parts.append([_source(current), defaults, plain])
        functions = (value for value in values.values() if isinstance(value, FunctionType))
        queue.extend(f for f in functions if f.__module__ == function.__module__)
    return json_digest(parts)


def _source(function: FunctionType) -> str:
    # The source of a lambda is that of its line, where another one may be.
    if function.__name__ != "<lambda>":
        try:
            return inspect.getsource(function)
        except (OSError, TypeError):
            pass
    return _bytecode(function.__code__)


def _bytecode(code: CodeType) -> str:
    constants = [_bytecode(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


# ---- at work, in the process of the pipeline ----------------------------------------------------


def apply(
    correction: dict, input_path: str | os.PathLike[str], output_path: str | os.PathLike[str]
) -> None:
    """Write the corrected product of a file; the correction as ``Correction.to_dict`` gives it."""
    from stdatamodels.jwst import datamodels

    what = Correction.from_dict(correction)
    register(what.suffix)
    with datamodels.open(str(input_path)) as model:
        corrected = run(what, model, Path(input_path).name)
        corrected.save(str(output_path))
        if corrected is not model:
            corrected.close()


def run(correction: Correction, model: JwstDataModel, name: str = "") -> JwstDataModel:
    """Return the corrected model, with what was done in its history."""
    _refuse_again(correction, model, name or str(model.meta.filename))
    for path, digest in correction.files.items():
        _check_file(correction, path, digest)
    function = _function(correction)
    before = _kind_of(model)
    # First, so that a function that looks at the history finds its own line there.
    note(model, mark(correction))
    if isinstance(function, type):
        corrected = _run_step(function, correction, model)
    else:
        corrected = function(model, **correction.parameters)
    after = _kind_of(corrected)
    if after != before:
        msg = f"{correction.name} was given a {before} and returned a {after}."
        raise TaskError(msg)
    if correction.suffix not in corrected_by(corrected):
        note(corrected, mark(correction))
    note(corrected, f"{correction.suffix}: code and parameters {correction.digest[:16]}")
    return corrected


def _refuse_again(correction: Correction, model: JwstDataModel, name: str) -> None:
    if correction.suffix in corrected_by(model):
        msg = (
            f"{name} has been corrected by {correction.suffix} ({correction.name}) already; give "
            "the file from before, or, if it is to be done twice, another suffix."
        )
        raise TaskError(msg)


def _kind_of(model: JwstDataModel) -> str:
    """Return what a correction must not change: the class of a model and the shape of its data."""
    return f"{type(model).__name__} of shape {shape_of(model)}"


def _check_file(correction: Correction, path: str, digest: str) -> None:
    try:
        now = sha256_of(path)
    except OSError as error:
        msg = f"{correction.name}: {path} cannot be read: {error}."
        raise TaskError(msg) from None
    if now != digest:
        msg = f"{correction.name}: {path} changed since the plan was made; make the plan again."
        raise TaskError(msg)


def corrected_by(model: JwstDataModel) -> set[str]:
    """Return the suffixes of the corrections that a model has had."""
    matches = (re.match(rf"{MARK}([a-z0-9]+) ", text) for text in history_of(model))
    return {match.group(1) for match in matches if match}


def _function(correction: Correction) -> Callable:
    """Return the function or class, if it is what it was when the plan was made."""
    kind, _, source = correction.source.partition(":")
    if kind == "pickle":
        import cloudpickle

        return cloudpickle.loads(b64decode(source))
    module, _, name = source.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        msg = (
            f"{correction.name}: {source} cannot be imported where the pipeline runs ({error}); "
            "put its directory on PYTHONPATH, or install it."
        )
        raise StageError(msg) from None
    if module_digest(module, name) != correction.code:
        msg = (
            f"{correction.name}: the code of {source} changed since the plan was made; make the "
            "plan again."
        )
        raise TaskError(msg)
    return function


def _run_step(cls: Any, correction: Correction, model: JwstDataModel) -> JwstDataModel:
    """Run a step with the parameters of CRDS and those given, as part of a run and not a run."""
    from jwst.stpipe import Pipeline

    config, config_file = cls.build_config(model, **correction.parameters)
    step = cls.from_config_section(config, name=correction.name, config_file=config_file)
    # The log of a step that has no parent replaces that of the pipeline.
    step.parent = Pipeline()
    return step.run(model)


def hooks(task: Task) -> dict:
    """Return what the corrections inside a pipeline ask of its steps."""
    if not task.corrections:
        return {}
    from jwst.stpipe import Step

    lines: list[str] = []
    names = []
    for values in task.corrections:
        correction = Correction.from_dict(values)

        def process(
            self: Any, model: JwstDataModel, correction: Correction = correction
        ) -> JwstDataModel:
            before = len(history_of(model))
            corrected = run(correction, model)
            lines.extend(history_of(corrected)[before:])
            return corrected

        names.append(_publish(Step, f"{correction.suffix}_correction", process))

    # The fit of the ramps makes a new model, and leaves the history behind.
    def restore(self: Any, model: JwstDataModel) -> JwstDataModel:
        for line in lines:
            note(model, line)
        return model

    last = _publish(Step, "history_of_corrections", restore)
    return {"jump": {"post_hooks": names}, "gain_scale": {"post_hooks": [last]}}


def _publish(step: type, name: str, process: Callable) -> str:
    """Make a step that can be named: a class would make the log of the parameters unreadable."""
    globals()[name] = type(name, (step,), {"process": process, "class_alias": name})
    return f"{__name__}.{name}"


def register(*suffixes: str) -> None:
    """Make suffixes known to jwst, so that products of corrected files keep clean names."""
    from jwst.lib import suffix

    added = [name for name in suffixes if name and name not in suffix.KNOW_SUFFIXES]
    if added:
        suffix.KNOW_SUFFIXES.extend(added)
        names = "|".join(map(re.escape, sorted(suffix.KNOW_SUFFIXES, key=len, reverse=True)))
        suffix.REMOVE_SUFFIX_REGEX = re.compile(f"^(?P<root>.+?)((?P<separator>_|-)({names}))?$")


def register_inputs(task: Task) -> None:
    """Make the suffixes of the inputs of a task known to jwst."""
    stems = [Path(name).stem for name in task.inputs]
    register(
        *(
            stem.removeprefix(f"{root}_")
            for stem in stems
            for root in task.exposures
            if stem.startswith(f"{root}_")
        )
    )
