"""What is asked of `jwst`, `stpipe` and `crds`, by functions that a pipeline's process runs."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any


def _plain(values: Mapping) -> dict:
    """Return parameters as JSON types."""
    return dict(json.loads(json.dumps(values, default=_plain_value)))


def _plain_value(value: Any) -> object:
    return value.item() if hasattr(value, "item") else str(value)


def _pipelines() -> dict:
    import jwst.pipeline
    from jwst.step import WfsCombineStep
    from stpipe import Pipeline

    classes = (getattr(jwst.pipeline, name) for name in jwst.pipeline.__all__)
    pipelines = {cls.__name__: cls for cls in classes if issubclass(cls, Pipeline)}
    # A step that is a stage of its own.
    return {**pipelines, WfsCombineStep.__name__: WfsCombineStep}


def _steps(cls: Any) -> dict:
    """Return the classes of the steps of a pipeline, or the step itself, by name."""
    return getattr(cls, "step_defs", None) or {cls.class_alias: cls}


def _steps_of(config: Mapping, cls: Any) -> dict:
    """Return the part of a configuration that is about steps."""
    return config.get("steps", {}) if hasattr(cls, "step_defs") else {cls.class_alias: config}


def specs(job: Mapping[str, Any]) -> dict:
    """Return the specification of every parameter of every step of every pipeline.

    ``pipelines``: by class name, ``alias``, ``own`` (parameters of the pipeline itself) and
    ``steps``, where a parameter has the text that stpipe's validator reads; ``words``: what the
    data model allows for instruments, channels, detectors, filters and pupils.
    """
    pipelines = {}
    for name, cls in _pipelines().items():
        spec = cls.load_spec_file()
        pipelines[name] = {
            "alias": cls.class_alias,
            "own": {par: str(check) for par, check in spec.items() if par != "steps"},
            "steps": {
                step: {par: str(check) for par, check in section.items()}
                for step, section in _steps_of(spec, cls).items()
            },
        }
    return {"pipelines": pipelines, "words": _words()}


def _words() -> dict[str, list[str]]:
    from stdatamodels.jwst.datamodels import JwstDataModel

    meta = JwstDataModel().schema["properties"]["meta"]["properties"]
    instrument = meta["instrument"]["properties"]
    return {
        name: [str(word) for word in _enumerated(instrument[name])]
        for name in ("name", "channel", "detector", "filter", "pupil")
    }


def _enumerated(schema: Mapping[str, Any]) -> list:
    words = list(schema.get("enum", ()))
    for kind in ("anyOf", "oneOf", "allOf"):
        for inner in schema.get(kind, ()):
            words += _enumerated(inner)
    return [word for word in words if word is not None]


def read_config(job: Mapping[str, Any]) -> dict:
    """Return ``class``, ``step`` and ``parameters`` of ``job['path']``, a file of stpipe."""
    from stpipe import config_parser, utilities

    config = config_parser.load_config_file(job["path"]).dict()
    name = config.pop("class", "")
    step = utilities.import_class(name).class_alias if name else config.get("name", "")
    return {"class": name, "step": step, "parameters": _plain(config)}


def resolve(job: Mapping[str, Any]) -> dict:
    """Return the answer to each of ``job['groups']``, see `_resolve`."""
    return {key: _resolve(**group) for key, group in job["groups"].items()}


def _resolve(parameters: Mapping[str, Any], pipeline: str, steps: Mapping[str, Any]) -> dict:
    """Find parameters and references of one pipeline for one set-up of an instrument.

    The answer has ``pars`` and ``references`` (by type: ``name``, ``path``), ``missing`` (parameter
    files that are not there, as if they said nothing), ``errors`` (``[type, message]``), ``crds``,
    ``effective`` and ``base`` (parameters that CRDS gives, that hold, and that would hold if
    nothing had been asked).
    """
    from stpipe import config_parser

    cls = _pipelines()[pipeline]
    classes = [*_steps(cls).values(), cls]
    types = dict.fromkeys(step.get_config_reftype() for step in classes)
    pars, errors = _look_up(parameters, list(types), required=False)
    missing = [entry["name"] for entry in pars.values() if _is_absent(entry)]
    config: Any
    if missing:
        config = _present_config(config_parser, cls, pars)
    else:
        config = cls.get_config_from_reference(dict(parameters), crds_observatory="jwst")
    # The instance below changes the configuration that it is made of.
    crds = _plain(config.dict())
    base = cls.from_config_section(_config(config_parser, crds))
    own = {"steps": steps} if hasattr(cls, "step_defs") else steps.get(cls.class_alias, {})
    instance = cls.from_config_section(_config(config_parser, crds, own))
    overrides, needed = _reference_types(instance, _steps(cls))
    references, unknown = _look_up(parameters, sorted(needed - set(overrides)), required=True)
    answer = {"pars": pars, "missing": missing, "errors": errors + unknown}
    answer["references"] = {**references, **overrides}
    answer["crds"] = {
        name: {par: value for par, value in section.items() if par not in ("class", "name")}
        for name, section in _steps_of(crds, cls).items()
        if section
    }
    answer["effective"] = _plain(_steps_of(instance.get_pars(), cls))
    answer["base"] = _plain(_steps_of(base.get_pars(), cls))
    return answer


def _reference_types(instance: Any, names: Iterable[str]) -> tuple[dict[str, dict], set[str]]:
    """Return the references that the parameters name, and the types to ask CRDS for."""
    overrides: dict[str, dict] = {}
    needed: set[str] = set()
    for name in names:
        step = getattr(instance, name, instance)
        for reftype in () if step.skip else step.reference_file_types:
            path = instance.get_ref_override(reftype)
            if path is not None and path.strip() in ("", "N/A"):
                overrides[reftype] = {"name": "N/A", "path": ""}
            elif path is not None:
                overrides[reftype] = {"name": os.path.basename(path), "path": path}
            elif step.prefetch_references:
                needed.add(reftype)
    return overrides, needed


def _present_config(config_parser: Any, cls: Any, pars: Mapping[str, dict]) -> dict:
    """Return the parameters in those files that are there, put together as stpipe does."""

    def load(step: Any) -> dict:
        entry = pars[step.get_config_reftype()]
        there = entry["name"] != "N/A" and not _is_absent(entry)
        return config_parser.load_config_file(entry["path"]) if there else {}

    steps = {name: load(step) for name, step in getattr(cls, "step_defs", {}).items()}
    return _config(config_parser, {"steps": steps} if steps else {}, load(cls))


def _config(config_parser: Any, *parts: Mapping) -> dict:
    config = config_parser.ConfigObj()
    for part in parts:
        # Only sections are merged key by key; a plain dictionary would replace another.
        sections = config_parser.ConfigObj()
        config_parser.merge_config(sections, part)
        config_parser.merge_config(config, sections)
    return config


def _is_absent(entry: Mapping[str, str]) -> bool:
    return entry["name"] != "N/A" and not os.path.exists(entry["path"])


def _look_up(
    parameters: Mapping[str, Any], types: Sequence[str], *, required: bool
) -> tuple[dict, list]:
    """Return the best references by type, and what could not be decided on."""
    import crds

    if not types:
        return {}, []
    names = crds.getrecommendations(
        dict(parameters), reftypes=list(types), observatory="jwst", context=None
    )
    found, errors = {}, []
    for reftype in types:
        name = names.get(reftype, "NOT FOUND n/a")
        if name.lower().startswith("not found n/a") or name.upper() == "N/A":
            found[reftype] = {"name": "N/A", "path": ""}
        elif name.startswith("NOT FOUND"):
            # As the pipeline: a step without parameters of its own in CRDS has its defaults.
            if required:
                errors.append([reftype, name.removeprefix("NOT FOUND").strip(" :")])
        else:
            path = crds.locate_file(name, "jwst", parameters=dict(parameters))
            found[reftype] = {"name": name, "path": os.path.abspath(path)}
    return found, errors


def call_server(job: Mapping[str, Any]) -> dict:
    """Return the ``result`` of a remote procedure of a CRDS server, or the ``problem`` with it."""
    from crds.client.proxy import CheckingProxy
    from crds.core.exceptions import ServiceError

    from ...io.http import causes, why_unreached

    procedure = getattr(CheckingProxy(f"{job['url']}/json/"), job["method"])
    try:
        return {"result": procedure(*job["parameters"])}
    except ServiceError as error:
        # What the server itself refused has no cause.
        reasons = [reason for lower in causes(error) if (reason := why_unreached(lower))]
        if reasons:
            return {"problem": "unreached", "message": reasons[0]}
        problem = "refused" if error.__cause__ is None else "silent"
        return {"problem": problem, "message": str(error)}
    except (ValueError, KeyError, TypeError) as error:
        return {"problem": "foreign", "message": str(error)}
