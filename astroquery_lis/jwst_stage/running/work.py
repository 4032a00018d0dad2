"""What the process of a task does: run, verify, stamp, move, record, in this order.

Everything is made in a scratch directory and moved when it is whole, the record last: whenever the
process is killed, a product at its final name is complete, and one without a record of it is made
again.  Inputs are only read.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tempfile
import time
import traceback
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from ..._packages import package_version
from ...exceptions import InvalidExposureError, TaskError
from ...io.processes import peak_memory_gb
from ...io.whole_files import sha256_of, write_whole
from .. import states
from ..corrections import apply, hooks, register_inputs
from ..pipelines import pipeline_classes
from ..planning.associations import (
    association_document,
    association_path,
    write_association,
)
from ..planning.exposures import SHUTTERS
from ..tasks import Record, Task, input_path, log_path, member_path, write_record
from .progress import describe, now
from .verify import FAILED, is_whole, main_product, verify

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Self

    from .progress import Failure


HISTORY_KEY = "key "
"""What stands before the fingerprint's key in the HISTORY of a product."""

_EXPOSURE_PIPELINES = ("Image2Pipeline", "Spec2Pipeline")

_SHAPES = {"RampModel": (1, 3, 8, 8), "CubeModel": (1, 8, 8), "ImageModel": (8, 8)}


def prepare(job: Mapping[str, Any]) -> None:
    """Fill the caches of schemas, and of the specifications of ``job['pipelines']``.

    The server does it before it forks: every task would spend its first second or two on it.
    Whatever goes wrong goes wrong again, and is told, in the task that needs it.
    """
    from stdatamodels.jwst import datamodels

    for name in job["pipelines"]:
        with contextlib.suppress(Exception):
            pipeline_classes()[name]()
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in _SHAPES.items():
            path = Path(folder, f"{name}.fits")
            with getattr(datamodels, name)(data=np.zeros(shape, np.float32)) as model:
                model.save(path)
            with datamodels.open(path) as model:
                model.validate()


def work(job: Mapping[str, Any]) -> dict:
    """Do a task, whatever happens: return its record, which is not written if it failed.

    A job has ``task`` (`Task.to_dict`), ``record`` (what is known of it before), ``output_dir``,
    ``scratch``, ``in_memory``.
    """
    task = Task.from_dict(job["task"])
    output_dir, scratch = Path(job["output_dir"]), Path(job["scratch"])
    products_dir = scratch / "made"
    products_dir.mkdir(parents=True, exist_ok=True)
    # Where libraries of models on disk are put, and left by a killed process; and where members lie
    # side by side, so that every pipeline finds them, whichever folder it takes their names from.
    (scratch / "run").mkdir(exist_ok=True)
    os.chdir(scratch / "run")
    begun, key = time.monotonic(), states.key(job["record"]["fingerprint"])
    record = Record(**job["record"] | {"started": now(), "versions": versions()})
    log = scratch / "task.log"
    with LogWatch(log, scratch / "step.json") as watch:
        watch.say(f"{task.name}: {task.pipeline or task.kind}, key {key}")
        statuses: dict[str, str] = {}
        try:
            _make(task, job, scratch, products_dir)
            record.checks = verify(task, products_dir, watch)
            _raise_if_unfit(record.checks)
            _stamp(products_dir, task, key)
            main = main_product(task, products_dir)
            if main is not None:
                record.references, statuses = _metadata_of(main)
            record.state = "done"
        except BaseException as error:
            watch.say(traceback.format_exc())
            failure = _failure(error, watch)
            record.kind_of_failure, record.message = failure.kind, failure.message
    record.parameters, record.steps = watch.parameters, _steps(task, watch.steps, statuses)
    record.seconds, record.memory_gb = round(time.monotonic() - begun, 3), peak_memory_gb()
    record.ended = now()
    if record.state == "done":
        record.products = _publish(task, products_dir, output_dir, log)
        write_record(output_dir, record)
    return asdict(record)


def versions() -> dict[str, str]:
    """Return the versions of the packages that a product depends on."""
    own = {"crds": version("crds"), "astroquery_lis": package_version()}
    return {**states.versions(), **own}


def _failure(error: BaseException, watch: LogWatch) -> Failure:
    # The message of a KeyError is a repr of what was looked for.
    is_key = isinstance(error, KeyError) and error.args
    text = str(error.args[0]) if is_key else str(error)
    kind = type(error)
    trace = traceback.format_exc()
    return describe(kind.__name__, kind.__module__, text, trace, watch.errors)


def steps_of(task: Task, pipeline_class: Any) -> dict[str, dict]:
    """Return what to give to the pipeline as ``steps``: what was asked, on a single core.

    Steps that can start processes of their own may not: the run has one process per task already.
    """
    steps = {name: dict(values) for name, values in task.steps.items()}
    for name, step in getattr(pipeline_class, "step_defs", {}).items():
        if "maximum_cores" in (step.spec or ""):
            steps.setdefault(name, {})["maximum_cores"] = "none"
    return steps


def _make(task: Task, job: Mapping[str, Any], scratch: Path, products_dir: Path) -> None:
    output_dir = Path(job["output_dir"])
    inputs = [input_path(name, output_dir) for name in task.inputs]
    _check_inputs(task, inputs, output_dir)
    if task.kind == "correction":
        apply(task.corrections[0], str(inputs[0]), str(products_dir / Path(task.name).name))
        return
    # Files that were corrected keep the names that jwst would give to those that were not.
    register_inputs(task)
    pipeline = pipeline_classes()[task.pipeline]
    options = _options(task, pipeline, in_memory=job["in_memory"])
    run_dir = scratch / "run"
    source = _laid_out(task, inputs, output_dir, run_dir)
    if task.members:
        final = (output_dir / task.name).parent
        document = association_document(task, output_dir, final)
        association_path(task, products_dir).write_text(json.dumps(document, indent=1) + "\n")
    # CRDS's parameters are merged by `call`, never by `run`; and only for a path that is a string.
    pipeline.call(
        source, save_results=True, configure_log=False, output_dir=str(products_dir), **options
    )
    _gather(run_dir, products_dir)
    _drop_copies(task, products_dir)


def _options(task: Task, pipeline: Any, *, in_memory: bool | None) -> dict:
    """Return the arguments of a pipeline that are about how it works."""
    steps = steps_of(task, pipeline)
    for name, values in hooks(task).items():
        step = steps.setdefault(name, {})
        for kind, added in values.items():
            step[kind] = [*step.get(kind, []), *added]
    options: dict[str, Any] = {"steps": steps} if steps else {}
    if in_memory is not None and "in_memory" in (pipeline.spec or ""):
        options["in_memory"] = in_memory
    return options


def _laid_out(task: Task, inputs: list[Path], output_dir: Path, run_dir: Path) -> str:
    """Put links to all that a task reads into its directory; return what the pipeline is given."""
    if not task.members and len(inputs) == 1:
        return str(inputs[0])
    files = dict.fromkeys([*inputs, *(member_path(m, output_dir) for m in task.members)])
    for path in files:
        (run_dir / path.name).symlink_to(path)
    if task.members:
        return str(write_association(task, output_dir, run_dir))
    return str(run_dir / inputs[0].name)


def _gather(run_dir: Path, products_dir: Path) -> None:
    """Move what was saved into the working directory, whatever ``output_dir`` was."""
    for path in run_dir.glob("*.fits"):
        if not path.is_symlink():
            os.replace(path, products_dir / path.name)


_WHY_MISSING = dict.fromkeys(
    ("sourcecat", "segmap"), "no source was found in the mosaic of direct images"
)


def _check_inputs(task: Task, inputs: list[Path], output_dir: Path) -> None:
    """Refuse what jwst would take without a word, and name what is missing."""
    roles = {member_path(m, output_dir): m.exptype for m in task.members}
    for path in dict.fromkeys([*inputs, *roles]):
        role = roles.get(path, "science")
        if not path.exists():
            what = "" if role == "science" else f", the {role} of {Path(task.name).name},"
            msg = f"{path}{what} is not there; {_WHY_MISSING.get(role, 'make the plan again')}."
            raise InvalidExposureError(msg, parameter="files", value=str(path))
        if path.suffix == ".fits":
            _check_input(task, path, role)


def _check_input(task: Task, path: Path, role: str) -> None:
    if problem := is_whole(path, needs_tree=not path.name.endswith(SHUTTERS)):
        raise InvalidExposureError(problem, parameter="files", value=str(path))
    if role != "science" or task.pipeline not in _EXPOSURE_PIPELINES:
        return
    if fits.getheader(path).get("S_PHOTOM") == "COMPLETE":
        msg = (
            f"{path} is calibrated already (S_PHOTOM = COMPLETE); {task.pipeline} would calibrate "
            "it twice.  Give the _rate file."
        )
        raise InvalidExposureError(msg, parameter="files", value=str(path))


def _drop_copies(task: Task, products_dir: Path) -> None:
    # Detector1 writes the integrations also where there is a single one, the same image again.
    names = {Path(name).name for name in task.outputs}
    for path in products_dir.glob("*_rateints.fits"):
        if path.name not in names:
            path.unlink()


def _raise_if_unfit(checks: list[dict]) -> None:
    unfit = [line for line in checks if line["outcome"] == FAILED]
    if unfit:
        messages = "; ".join(line["message"] for line in unfit)
        msg = f"{messages}. {unfit[0]['action']}"
        raise TaskError(msg)


def _stamp(products_dir: Path, task: Task, key: str) -> None:
    """Write into each FITS product what it was made from; jwst keeps HISTORY when it reads."""
    for path in products_dir.glob("*.fits"):
        with fits.open(path, mode="update", memmap=True) as hdul:
            header = hdul[0].header
            # One card each: jwst makes an entry of every card.
            header.add_history(f"{Path(task.name).parent}, astroquery_lis {package_version()}"[:72])
            header.add_history(f"{HISTORY_KEY}{key}")


def _metadata_of(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the references that a product names and the status of its steps."""
    from stdatamodels.jwst.datamodels import read_metadata

    flat = read_metadata(str(path), flatten=True)
    references, statuses = {}, {}
    for name, value in flat.items():
        group, _, rest = name.removeprefix("meta.").partition(".")
        if group == "cal_step":
            statuses[rest] = str(value)
        elif group == "ref_file" and rest.endswith(".name") and value not in (None, "N/A"):
            references[rest.removesuffix(".name")] = str(value).removeprefix("crds://")
    return references, statuses


def _steps(task: Task, timed: list[dict], statuses: Mapping[str, str]) -> list[dict]:
    """Put the times of the log and the statuses of the header together, in the order of work."""
    classes = getattr(pipeline_classes().get(task.pipeline), "step_defs", {})
    aliases = {name: step.class_alias for name, step in classes.items()}
    return [
        {**step, "status": statuses.get(aliases[step["step"]], "")}
        for step in timed
        if step["step"] in aliases
    ]


def _publish(task: Task, products_dir: Path, output_dir: Path, log: Path) -> list[dict]:
    folder = (output_dir / task.name).parent
    folder.mkdir(parents=True, exist_ok=True)
    os.replace(log, log_path(task.name, output_dir))
    main = Path(task.name).name
    # The main product last: it is what tells that the task was done.
    files = sorted(products_dir.iterdir(), key=lambda path: (path.name == main, path.name))
    products = []
    for path in files:
        digest, final = sha256_of(path), folder / path.name
        os.replace(path, final)
        status = final.stat()
        products.append(
            {
                "file": final.relative_to(output_dir).as_posix(),
                "bytes": status.st_size,
                "mtime_ns": status.st_mtime_ns,
                "sha256": digest,
            }
        )
    return products[::-1]


# ---- the log: jwst does not return which parameters were in force, how long a step took, or -----
# ---- how many sources tweakreg matched ----------------------------------------------------------

_LOGGERS = ("jwst", "stcal", "stdatamodels", "stpipe", "tweakwcs", "CRDS", "py.warnings")
_BEGUN = re.compile(r"^Step (\S+) running with args")
_DONE = re.compile(r"^Step (\S+) done")
_PARAMETERS = re.compile(r"^Step (\S+) parameters are:", re.MULTILINE)
_MATCHES = re.compile(r"^Found (\d+) matches for")
_ABSOLUTE = re.compile(r"^Aligning to absolute reference catalog")


class LogWatch(logging.Handler):
    """Writes the log of a task and keeps what the record of the task needs.  A context manager.

    ``state`` is a file that always names the step that runs now, for whoever wants to know.

    Attributes
    ----------
    steps : list of dict
        ``step`` and ``seconds``, in the order in which they began.
    parameters : dict
        As the pipeline reported them.
    errors : list of str
        The last lines that were errors.
    relative_matches, absolute_matches : list of int
        Sources that tweakreg matched, for each group.
    """

    def __init__(self, path: Path, state: Path) -> None:
        super().__init__(logging.INFO)
        self.steps: list[dict] = []
        self.errors: list[str] = []
        self.parameters: dict = {}
        self.relative_matches: list[int] = []
        self.absolute_matches: list[int] = []
        self._absolute = False
        self._running: list[tuple[dict, float]] = []
        self._state = state
        self._file = logging.FileHandler(path, "w", "utf-8")
        self._file.setFormatter(
            logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s")
        )

    def __enter__(self) -> Self:
        logging.captureWarnings(True)
        with contextlib.suppress(ImportError, AttributeError):
            from crds.core import log as crds_log

            crds_log.remove_console_handler()
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.setLevel(logging.INFO)
            logger.addHandler(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(self)
        self._file.close()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, and read it."""
        self._file.emit(record)
        text = record.getMessage()
        if record.levelno >= logging.ERROR:
            self.errors = [*self.errors[-9:], text]
        if record.name.startswith("stpipe"):
            self._note_step(text, record.created)
        elif match := _MATCHES.match(text):
            matches = self.absolute_matches if self._absolute else self.relative_matches
            matches.append(int(match.group(1)))
        elif _ABSOLUTE.match(text):
            self._absolute = True

    def say(self, text: str) -> None:
        """Write a line of our own."""
        self._file.emit(logging.LogRecord("astroquery_lis", logging.INFO, "", 0, text, None, None))

    def _note_step(self, text: str, moment: float) -> None:
        if match := _BEGUN.match(text):
            step = {"step": match.group(1), "seconds": 0.0}
            self.steps.append(step)
            self._running.append((step, moment))
            self._tell()
        elif match := _DONE.match(text):
            self._end_step(match.group(1), moment)
            self._tell()
        elif match := _PARAMETERS.match(text):
            self.parameters = _parsed(text[match.end() :])

    def _end_step(self, name: str, moment: float) -> None:
        """Note how long a step took; those that began in it are over with it."""
        for place, (step, begun) in reversed(list(enumerate(self._running))):
            if step["step"] == name:
                step["seconds"] = round(moment - begun, 3)
                del self._running[place:]
                return

    def _tell(self) -> None:
        step = self._running[-1][0]["step"] if self._running else ""
        with contextlib.suppress(OSError):
            state = {"step": step, "pid": os.getpid()}
            with write_whole(self._state) as temporary:
                temporary.write_text(json.dumps(state))


def _parsed(text: str) -> dict:
    """Return the parameters that stpipe logs as YAML, with Python's words for constants."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        values = yaml.load(re.sub(r" None$", " null", text, flags=re.MULTILINE), Loader=loader)
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}
