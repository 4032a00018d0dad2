"""Corrections at work, in the process that has the pipeline: open, check, correct, write."""

from __future__ import annotations

import importlib
import re
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...exceptions import StageError, TaskError
from ...io.whole_files import sha256_of
from .builtin import BUILTIN, builtin_digest
from .correction import MARK, Correction, mark, module_digest
from .pixels import history_of, note

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from stdatamodels.jwst.datamodels import JwstDataModel

    from ..tasks import Task


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
    name = name or str(model.meta.filename)
    if correction.suffix in corrected_by(model):
        msg = (
            f"{name} has been corrected by {correction.suffix} ({correction.name}) already; give "
            "the file from before, or, if it is to be done twice, another suffix."
        )
        raise TaskError(msg)
    for path, digest in correction.files.items():
        _check_file(correction, path, digest)
    function = _function(correction)
    before = type(model), _shape(model)
    # First, so that a function that looks at the history finds its own line there.
    note(model, mark(correction))
    if isinstance(function, type):
        corrected = _run_step(function, correction, model)
    else:
        corrected = function(model, **correction.parameters)
    after = type(corrected), _shape(corrected)
    if after != before:
        kinds = [f"{kind.__name__} of shape {shape}" for kind, shape in (before, after)]
        msg = f"{correction.name} was given a {kinds[0]} and returned a {kinds[1]}."
        raise TaskError(msg)
    if correction.suffix not in corrected_by(corrected):
        note(corrected, mark(correction))
    note(corrected, f"{correction.suffix}: code and parameters {correction.digest[:16]}")
    return corrected


def _shape(model: JwstDataModel) -> tuple[int, ...] | None:
    return getattr(getattr(model, "data", None), "shape", None)


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
    kind, _, rest = correction.source.partition(":")
    if kind == "pickle":
        import cloudpickle

        return cloudpickle.loads(b64decode(rest))
    function: Any
    if kind == "builtin":
        function, code = BUILTIN[rest].function, builtin_digest()
    else:
        module, _, name = rest.partition(":")
        try:
            function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            msg = (
                f"{correction.name}: {rest} cannot be imported where the pipeline runs ({error}); "
                "put its directory on PYTHONPATH, or install it."
            )
            raise StageError(msg) from None
        code = module_digest(module, name)
    if code != correction.code:
        msg = (
            f"{correction.name}: the code of {rest} changed since the plan was made; make the plan "
            "again."
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
