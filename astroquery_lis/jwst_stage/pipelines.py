"""The pipelines of `jwst`: which one each EXP_TYPE takes, what it needs, and its process.

The table is ``data/exp_types.toml``; the tests hold it against the lists in the `jwst` package and
in CRDS.

The package is imported once, by a server of its own that runs and questions share.  CRDS reads its
environment once, keeps what it found for ever and ends the process where it has no cache; every
question and every task therefore has a process of its own, forked from the server.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._conf import conf
from .._locks import new_lock
from .._packages import how_to_install
from ..exceptions import CrdsUnavailable, InvalidExposureError, OptionalDependencyError, StageError
from ..io.processes import Processes, ServerLost
from .tasks import Estimate, Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..io.processes import Ended
    from .planning import Plan
    from .planning.exposures import Exposure
    from .references import Resolution

_IMAGING = ("Detector1Pipeline", "Image2Pipeline", "Image3Pipeline")


@dataclass(frozen=True, slots=True)
class Kind:
    """What one EXP_TYPE decides.

    Attributes
    ----------
    stages : tuple of str, (3,)
        Class of stage 1, of 2, of 3; empty where the chain stops.
    tso : {'', 'visit', 'always'}
        Whether it is a time series: where TSOVISIT says so, or whatever it says.
    is_slitless : bool
        Whether it holds spectra of a field, whose sources a mosaic of direct images tells.
    optics : tuple of str or None
        Keywords of the optics that have to be there, where they are not those of the instrument.
    has_mask : bool
        Whether a coronagraph's mask is in the beam.
    is_retired : bool
        Whether CRDS still lists it, and the data models do not.
    spectra : tuple of str
        Endings of the spectra of stage 3, where a product has one set of them, the main first.
    is_acquisition : bool
        Whether it finds the target, or confirms it.
    """

    stages: tuple[str, str, str]
    tso: str = ""
    is_slitless: bool = False
    optics: tuple[str, ...] | None = None
    has_mask: bool = False
    is_retired: bool = False
    spectra: tuple[str, ...] = ()
    is_acquisition: bool = False


@cache
def read_table(name: str) -> dict:
    """Return a table of the folder ``data``, which nobody changes."""
    path = Path(__file__).with_name("data") / f"{name}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _kinds() -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for row in read_table("exp_types")["kind"]:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
        types = values.pop("types")
        kinds |= dict.fromkeys(types, Kind(**values))
    return kinds


EXP_TYPES = _kinds()
"""What every EXP_TYPE decides."""

IMAGING = frozenset(name for name, kind in EXP_TYPES.items() if kind.stages == _IMAGING)
"""Types of plain images."""

STAGE3_PIPELINES = {
    "image3": "Image3Pipeline",
    "spec3": "Spec3Pipeline",
    "coron3": "Coron3Pipeline",
    "ami3": "Ami3Pipeline",
    "tso3": "Tso3Pipeline",
    "wfs-image3": "WfsCombineStep",
}
"""The pipeline of each type of associations of stage 3."""


def is_guider(exp_type: str) -> bool:
    """Return True for one of the guider's types."""
    return exp_type in EXP_TYPES and EXP_TYPES[exp_type].stages[0] == "GuiderPipeline"


def pipelines_for(
    exp_type: str, *, is_tso: bool = False, wavefront: bool = False, path: str = ""
) -> tuple[str, str, str]:
    """Return the classes of the three stages of a type, empty where the chain stops."""
    try:
        kind = EXP_TYPES[exp_type]
    except KeyError:
        where = f"{path}: " if path else ""
        msg = f"{where}EXP_TYPE={exp_type!r} is none of {', '.join(sorted(EXP_TYPES))}."
        raise InvalidExposureError(msg, parameter="EXP_TYPE", value=exp_type) from None
    if is_tso and kind.tso == "visit":
        return (*kind.stages[:2], "Tso3Pipeline")
    if wavefront and kind.stages == _IMAGING:
        return (*kind.stages[:2], "WfsCombineStep")
    return kind.stages


# ---- estimates, as measured of the pipelines -----------------------------------------------------

_FULL = 2048 * 2048
_RATE_BYTES = 20
"""Per pixel of a rate file: SCI, ERR, DQ and two variances."""
_CAL_BYTES = 28
"""Per pixel of a cal, crf or i2d file."""
_SEGMENT_BYTES = 4
_INTERPRETER_GB = 0.4
_IFU = ("MIR_MRS", "NRS_IFU")
_CUBE_BYTES = 75
"""Per pixel of the detector of the cubes that are made of it."""


def _rounded(seconds: float, memory_gb: float, disk_gb: float) -> Estimate:
    return Estimate(round(seconds, 1), round(memory_gb, 3), round(disk_gb, 4))


def stage1_estimate(exposure: Exposure, *, dark_bytes: int = 0) -> Estimate:
    """Return what stage 1 of an exposure needs."""
    frames = math.prod(exposure.shape) / _FULL
    images = 1 + (exposure.n_ints if exposure.n_ints > 1 else 0)
    # The highest memory is the jump step's, or that of a long dark.
    uncal_bytes = exposure.size_bytes
    memory_bytes = max(30 * uncal_bytes, dark_bytes + 10 * uncal_bytes)
    return _rounded(
        5 + (15 + 3.3 * exposure.n_groups * exposure.n_ints) * frames,
        _INTERPRETER_GB + memory_bytes / 1e9,
        images * _RATE_BYTES * math.prod(exposure.shape) / 1e9,
    )


def stage2_estimate(
    exposure: Exposure, *, resample: bool = True, integrations: bool = False
) -> Estimate:
    """Return what stage 2 of an exposure needs."""
    images = exposure.n_ints if integrations else 1
    pixels = math.prod(exposure.shape)
    cal_gb = images * _CAL_BYTES * pixels / 1e9
    if exposure.exp_type in _IFU:
        return _rounded(
            5 + 70 * pixels / _FULL,
            _INTERPRETER_GB + 460 * pixels / 1e9,
            cal_gb + _CUBE_BYTES * pixels / 1e9,
        )
    resample = resample and not integrations
    return _rounded(
        2 + (3 + 12 * resample) * images * pixels / _FULL,
        _INTERPRETER_GB + (5 if resample else 1.5) * cal_gb,
        (1 + resample) * cal_gb,
    )


def image3_memory_gb(n_exposures: int, pixels: int, output_pixels: int) -> float:
    """Return the highest memory of a mosaic of exposures that are held in memory."""
    return 0.5 + (1.3 * n_exposures * _CAL_BYTES * pixels + 75 * output_pixels) / 1e9


def stage3_estimate(exposures: Sequence[Exposure], *, output_pixels: int | None = None) -> Estimate:
    """Return what stage 3 of a group of exposures needs, held in memory."""
    pixels = max(math.prod(e.shape) for e in exposures)
    n = sum(e.n_ints if e.is_tso else 1 for e in exposures)
    frames = pixels / _FULL
    if exposures[0].exp_type in _IFU:
        # The medians of outlier_detection, which needs two exposures, hold a window of each pixel.
        per_pixel = 200 * n + (1300 if n > 1 else 0)
        return _rounded(
            5 + 70 * n * frames,
            0.5 + per_pixel * pixels / 1e9,
            (n * _CAL_BYTES + _CUBE_BYTES) * pixels / 1e9,
        )
    if exposures[0].is_tso:
        # No grid, but the medians of outlier_detection beside all integrations.
        memory_gb = 0.5 + 75 * n * pixels / 1e9
        return _rounded(5 + 2 * n * frames, memory_gb, n * _CAL_BYTES * pixels / 1e9)
    output_pixels = output_pixels or round(1.3 * pixels)
    return _rounded(
        5 + (30 * n + 0.3 * n**2) * frames,
        image3_memory_gb(n, pixels, output_pixels),
        (n * _CAL_BYTES * pixels + (_CAL_BYTES + _SEGMENT_BYTES) * output_pixels) / 1e9,
    )


def with_references(task: Task, plan: Plan, resolution: Resolution) -> Task:
    """Return the task with the memory that it needs with the dark that it will use."""
    dark = resolution.references.get(task.name, {}).get("dark", {})
    size = int(dark.get("bytes") or 0)
    if task.stage != 1 or task.kind != "pipeline" or not size:
        return task
    exposure = next(e for e in plan.exposures if e.root == task.exposures[0])
    return replace(task, estimate=stage1_estimate(exposure, dark_bytes=size))


# ---- the process of the pipelines ----------------------------------------------------------------

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
