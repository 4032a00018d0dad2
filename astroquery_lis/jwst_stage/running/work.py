"""What the process of a task does: run, verify, stamp, move, record, in this order.

Everything is made in a scratch directory and moved when it is whole, the record last: whenever the
process is killed, a product at its final name is complete, and one without a record of it is made
again.  Inputs are only read.
"""

import contextlib
import hashlib
import json
import os
import time
import traceback
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from astropy.io import fits

from ...exceptions import InvalidExposureError, TaskError
from ...io.processes import peak_memory_gb
from ..corrections import apply, hooks, register_inputs
from ..planning.association_files import association_document, association_path, write_association
from ..resume.records import Record, write_record
from ..tasks import Task, input_path, log_path
from .failures import describe
from .log_watch import LogWatch
from .verify import FAILED, is_whole, verify

__all__ = ["HISTORY_KEY", "class_of", "steps_of", "versions", "work"]

HISTORY_KEY = "key "
"""What stands before the fingerprint's key in the HISTORY of a product."""

_PACKAGES = ("jwst", "stcal", "stdatamodels", "crds", "astroquery_lis")
_EXPOSURE_PIPELINES = ("Image2Pipeline", "Spec2Pipeline")


def work(job):
    """Do a task, whatever happens: return its record.

    Parameters
    ----------
    job : dict
        ``task`` (`Task.to_dict`), ``output_dir``, ``scratch``, ``fingerprint``, ``key``,
        ``context``, ``environment``, ``in_memory``.

    Returns
    -------
    dict
        A `~.records.Record`; one that failed is not written yet.
    """
    task = Task.from_dict(job["task"])
    output_dir, scratch = Path(job["output_dir"]), Path(job["scratch"])
    made = scratch / "made"
    made.mkdir(parents=True, exist_ok=True)
    # Libraries of models on disk are put into the working directory, and a killed process leaves
    # them there.
    os.chdir(scratch)
    begun, started = time.monotonic(), _now()
    known = {
        "task": task.name,
        "fingerprint": job["fingerprint"],
        "context": job["context"],
        "environment": job["environment"],
        "started": started,
        "versions": versions(),
    }
    log = scratch / "task.log"
    with LogWatch(log, scratch / "step.json") as watch:
        watch.say(f"{task.name}: {task.pipeline or task.kind}, key {job['key']}")
        checks = []
        try:
            _make(task, job, scratch, made)
            checks = verify(task, made, watch, watch.parameters.get("steps", {}))
            _raise_if_unfit(checks)
            _stamp(made, task, job["key"])
            references, statuses = _told_by_header(made / Path(task.name).name)
        except BaseException as error:
            watch.say(traceback.format_exc())
            failure = describe(
                type(error).__name__,
                type(error).__module__,
                _text(error),
                traceback.format_exc(),
                watch.errors,
            )
            known.update(state="failed", kind_of_failure=failure.kind, message=failure.message)
            references, statuses = {}, {}
    known.update(
        checks=checks,
        parameters=watch.parameters,
        references=references,
        steps=_steps(task, watch.steps, statuses),
        seconds=round(time.monotonic() - begun, 3),
        memory_gb=peak_memory_gb(),
        ended=_now(),
    )
    if "state" in known:
        return asdict(Record(**known))
    products = _publish(task, made, output_dir, log)
    record = Record(**known, state="done", products=products)
    write_record(output_dir, record)
    return asdict(record)


def versions():
    """Return the versions of the packages that a product depends on.

    Returns
    -------
    dict of str to str
    """
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def steps_of(task, pipeline_class):
    """Return what to give to the pipeline as ``steps``: what was asked, on a single core.

    Parameters
    ----------
    task : Task
        What was asked.
    pipeline_class : type
        The pipeline.

    Returns
    -------
    dict
        ``{step: {parameter: value}}``.  Steps that can start processes of their own may not: the
        run has one process per task already.
    """
    steps = {name: dict(values) for name, values in task.steps.items()}
    for name, step in getattr(pipeline_class, "step_defs", {}).items():
        if "maximum_cores" in (step.spec or ""):
            steps.setdefault(name, {})["maximum_cores"] = "none"
    return steps


def _make(task, job, scratch, made):
    output_dir = Path(job["output_dir"])
    inputs = [input_path(name, output_dir) for name in task.inputs]
    for path in inputs:
        _check_input(task, path)
    if task.kind == "correction":
        apply(task.corrections[0], str(inputs[0]), str(made / Path(task.name).name))
        return
    # Files that were corrected keep the names that jwst would give to those that were not.
    register_inputs(task)
    pipeline = class_of(task.pipeline)
    steps = steps_of(task, pipeline)
    for name, values in hooks(task).items():
        mine = steps.setdefault(name, {})
        for kind, added in values.items():
            mine[kind] = [*mine.get(kind, []), *added]
    extra = {}
    if job["in_memory"] is not None and "in_memory" in (pipeline.spec or ""):
        extra["in_memory"] = job["in_memory"]
    given = str(inputs[0])
    if task.members:
        given = _write_associations(task, output_dir, scratch, made)
    # CRDS's parameters are merged by `call`, never by `run`; and only for a path that is a string.
    if steps:
        extra["steps"] = steps
    pipeline.call(given, output_dir=str(made), save_results=True, configure_log=False, **extra)
    _drop_copies(task, made)


def _check_input(task, path):
    """Refuse what jwst would take without a word."""
    if not path.exists():
        msg = f"{path} is not there; make the plan again."
        raise InvalidExposureError(msg, parameter="files", value=str(path))
    if path.suffix != ".fits":
        return
    wrong = is_whole(path)
    if wrong:
        raise InvalidExposureError(wrong, parameter="files", value=str(path))
    done = fits.getheader(path).get("S_PHOTOM") == "COMPLETE"
    if done and task.pipeline in _EXPOSURE_PIPELINES:
        msg = (
            f"{path} is calibrated already (S_PHOTOM = COMPLETE); {task.pipeline} would calibrate "
            "it twice.  Give the _rate file."
        )
        raise InvalidExposureError(msg, parameter="files", value=str(path))


def _write_associations(task, output_dir, scratch, made):
    """Write the association to run with, and the one to keep; return the first."""
    run_with = scratch / "asn"
    run_with.mkdir()
    final = (output_dir / task.name).parent
    document = association_document(task, output_dir, final)
    association_path(task, made).write_text(json.dumps(document, indent=1) + "\n")
    return str(write_association(task, output_dir, run_with))


def class_of(name):
    """Return a pipeline, or a step that stands for one, by the name of its class."""
    import jwst.pipeline
    import jwst.step

    return getattr(jwst.pipeline, name, None) or getattr(jwst.step, name)


def _drop_copies(task, made):
    # Detector1 writes the integrations also where there is a single one, the same image again.
    names = {Path(name).name for name in task.outputs}
    for path in made.glob("*_rateints.fits"):
        if path.name not in names:
            path.unlink()


def _raise_if_unfit(checks):
    unfit = [line for line in checks if line["outcome"] == FAILED]
    if unfit:
        told = "; ".join(line["message"] for line in unfit)
        msg = f"{told}. {unfit[0]['action']}"
        raise TaskError(msg)


def _stamp(made, task, key):
    """Write into each FITS product what it was made from; jwst keeps HISTORY when it reads."""
    own = versions().get("astroquery_lis", "")
    for path in made.glob("*.fits"):
        with fits.open(path, mode="update", memmap=True) as hdul:
            header = hdul[0].header
            # One card each: jwst makes an entry of every card.
            header.add_history(f"{Path(task.name).parent}, astroquery_lis {own}"[:72])
            header.add_history(f"{HISTORY_KEY}{key}")


def _told_by_header(path):
    """Return the references that a product names and the status of its steps."""
    if path.suffix != ".fits":
        return {}, {}
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


def _steps(task, timed, statuses):
    """Put the times of the log and the statuses of the header together, in the order of work."""
    aliases = {}
    if task.pipeline:
        steps = getattr(class_of(task.pipeline), "step_defs", {})
        aliases = {name: step.class_alias for name, step in steps.items()}
    return [
        {**step, "status": statuses.get(aliases[step["step"]], "")}
        for step in timed
        if step["step"] in aliases
    ]


def _publish(task, made, output_dir, log):
    folder = (output_dir / task.name).parent
    folder.mkdir(parents=True, exist_ok=True)
    os.replace(log, log_path(task.name, output_dir))
    main = Path(task.name).name
    # The main product last: it is what tells that the task was done.
    files = sorted(made.iterdir(), key=lambda path: (path.name == main, path.name))
    products = []
    for path in files:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        final = folder / path.name
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


def _text(error):
    # The message of a KeyError is a repr of what was looked for.
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _now():
    return datetime.now(UTC).isoformat(timespec="seconds")
