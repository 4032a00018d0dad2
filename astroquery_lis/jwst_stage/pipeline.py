"""The `jwst` package, imported once, by a server of its own that runs and questions share.

CRDS reads its environment once, keeps what it found for ever and ends the process where it has no
cache; every question and every task therefore has a process of its own, forked from the server.
"""

from __future__ import annotations

import json
import os
import tempfile
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .._conf import conf
from .._locks import new_lock
from .._packages import how_to_install
from ..exceptions import CrdsUnavailable, OptionalDependencyError, StageError
from ..io.processes import Processes, ServerLost

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..io.processes import Ended

PRELOAD = ("jwst.pipeline", "astroquery_lis.jwst_stage.running.work")

# CRDS binds the address of its server when it is imported. What CRDS says of parameters counts, in
# questions and in tasks alike; the second variable would change what is done without a trace.
_ENVIRONMENT = {"CRDS_SERVER_URL": None, "STPIPE_DISABLE_CRDS_STEPPARS": None}

_SHOWN_LINES = 5


def require_jwst() -> None:
    """Raise `OptionalDependencyError` where the pipeline is not installed."""
    if find_spec("jwst") is None:
        msg = f"The JWST chain needs jwst: {how_to_install('jwst')}."
        raise OptionalDependencyError(msg)


class _Shared:
    """The server of this process, if there is one."""

    def __init__(self) -> None:
        self.lock = new_lock()
        self.server: Processes | None = None


_shared = _Shared()
if hasattr(os, "register_at_fork"):
    # A forked process has neither the server nor the thread that would release the lock.
    os.register_at_fork(after_in_child=_shared.__init__)  # type: ignore[misc]


def processes() -> Processes:
    """Return the server, started if there is none or it has died."""
    require_jwst()
    with _shared.lock:
        if _shared.server is None or _shared.server.is_closed:
            _shared.server = Processes(
                preload=PRELOAD, environment=_ENVIRONMENT, idle_s=conf.jwst_idle
            )
        return _shared.server


def stop() -> None:
    """Stop the server; the next question or task starts another one."""
    with _shared.lock:
        if _shared.server is not None:
            _shared.server.close()
            _shared.server = None


def ask(
    function: str,
    job: Mapping[str, Any],
    environment: Mapping[str, str | None] | None = None,
    *,
    limit_s: float | None = None,
) -> dict:
    """Return what a function gives in a process that has imported the pipeline.

    ``function`` is ``'module:name'`` with the module named from this package.  Raises
    `CrdsUnavailable` if CRDS refused or ended the process, `StageError` if anything else failed,
    `TimeoutError` if it took longer than the limit.
    """
    with tempfile.TemporaryDirectory(prefix="astroquery_lis-") as folder:
        task = (f"{__package__}.{function}", job, folder)
        try:
            ended = _answered(processes(), task, environment, limit_s)
        except ServerLost:
            # It may have died since the last question.
            ended = _answered(processes(), task, environment, limit_s)
    if ended.exit_code == 0:
        return dict(ended.result)
    if ended.error is None:
        msg = f"The process of the pipeline ended with exit code {ended.exit_code}: "
        raise StageError(msg + _last_words(ended))
    message = f"{ended.error['type']}: {ended.error['message']}".strip().rstrip(".")
    if {"SystemExit", "CrdsError"} & set(ended.error["kinds"]):
        if ended.error["type"] == "SystemExit":
            message = _last_words(ended).rstrip(".")
        msg = f"CRDS could not go on: {message}."
        raise CrdsUnavailable(msg)
    msg = f"The process of the pipeline failed: {message}."
    raise StageError(msg)


def _answered(
    server: Processes,
    task: tuple[str, Mapping[str, Any], str],
    environment: Mapping[str, str | None] | None,
    limit_s: float | None,
) -> Ended:
    """Return how a task ended; one that takes too long is killed."""
    future = server.submit(*task, environment=environment)
    try:
        return future.result(limit_s)
    except TimeoutError:
        server.kill([future])
        raise


def _last_words(ended: Ended) -> str:
    lines = ended.console.strip().splitlines()[-_SHOWN_LINES:]
    return " / ".join(line.strip() for line in lines) or "no message"


# ---- in the process of the pipeline -------------------------------------------------------------


def pipeline_classes() -> dict:
    """Return the classes of the pipelines by name; only in a process of the pipeline."""
    import jwst.pipeline
    from jwst.step import WfsCombineStep
    from stpipe import Pipeline

    classes = (getattr(jwst.pipeline, name) for name in jwst.pipeline.__all__)
    pipelines = {cls.__name__: cls for cls in classes if issubclass(cls, Pipeline)}
    # A step that is a stage of its own.
    return {**pipelines, WfsCombineStep.__name__: WfsCombineStep}


def step_sections(config: Mapping, cls: Any) -> dict:
    """Return the part of a configuration that is about steps."""
    return config.get("steps", {}) if hasattr(cls, "step_defs") else {cls.class_alias: config}


def plain_parameters(values: Mapping) -> dict:
    """Return parameters as JSON types."""
    return dict(json.loads(json.dumps(values, default=_plain_value)))


def _plain_value(value: Any) -> object:
    return value.item() if hasattr(value, "item") else str(value)


def specs_in_process(job: Mapping[str, Any]) -> dict:
    """Return the specification of every parameter of every step of every pipeline.

    ``pipelines``: by class name, ``alias``, ``own`` (parameters of the pipeline itself) and
    ``steps``, where a parameter has the text that stpipe's validator reads; ``words``: what the
    data model allows for instruments, channels, detectors, filters and pupils.
    """
    pipelines = {}
    for name, cls in pipeline_classes().items():
        spec = cls.load_spec_file()
        pipelines[name] = {
            "alias": cls.class_alias,
            "own": {par: str(check) for par, check in spec.items() if par != "steps"},
            "steps": {
                step: {par: str(check) for par, check in section.items()}
                for step, section in step_sections(spec, cls).items()
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


def config_in_process(job: Mapping[str, Any]) -> dict:
    """Return class, step and parameters of a file of stpipe."""
    from stpipe import config_parser, utilities

    config = config_parser.load_config_file(job["path"]).dict()
    name = config.pop("class", "")
    step = utilities.import_class(name).class_alias if name else config.get("name", "")
    return {"class": name, "step": step, "parameters": plain_parameters(config)}
