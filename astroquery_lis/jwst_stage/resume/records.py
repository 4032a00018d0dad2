"""What was done: one JSON file per task, replaced whole, beside the products that it speaks of."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from ...io.store import write_whole
from ..tasks import records_dir

__all__ = ["Record", "read_record", "read_records", "write_record"]


@dataclass(frozen=True, slots=True)
class Record:
    """What became of a task the last time that it ran.

    Attributes
    ----------
    task : str
        Its name.
    state : str
        'done' or 'failed'.
    fingerprint : dict
        What decided on the product, see `~.fingerprints`; empty for a failed one that never began.
    products : list of dict
        ``file`` (relative to the output directory), ``bytes``, ``mtime_ns``, ``sha256``.
    checks : list of dict
        ``check``, ``outcome`` ('ok', 'note', 'no effect', 'failed'), ``message``, ``action``.
    message : str
        Why it failed; empty otherwise.
    kind_of_failure : str
        'data', 'reference', 'memory', 'parameter', 'code' or 'killed'; empty if it did not.
    steps : list of dict
        ``step``, ``status`` (COMPLETE, SKIPPED, FAILED), ``seconds``.
    parameters : dict
        The effective parameters, as the pipeline reported them.
    references : dict
        ``{type: name}`` as the product's header has them.
    context : str
        CRDS context of the run.
    seconds : float
        How long the task took.
    memory_gb : float
        Highest resident memory of its process.
    started, ended : str
        UTC, ISO 8601.
    versions : dict
        Of jwst, stcal, stdatamodels, crds, astroquery_lis.
    environment : dict
        The CRDS variables that were set.
    """

    task: str
    state: str
    fingerprint: dict = field(default_factory=dict)
    products: list = field(default_factory=list)
    checks: list = field(default_factory=list)
    message: str = ""
    kind_of_failure: str = ""
    steps: list = field(default_factory=list)
    parameters: dict = field(default_factory=dict)
    references: dict = field(default_factory=dict)
    context: str = ""
    seconds: float = 0.0
    memory_gb: float = 0.0
    started: str = ""
    ended: str = ""
    versions: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)


_KNOWN = {f.name for f in fields(Record)}


def _path(output_dir, task):
    # Names may be long and hold '/'; the digest keeps two of them apart.
    digest = hashlib.sha256(task.encode()).hexdigest()[:12]
    return records_dir(output_dir) / f"{Path(task).stem[:120]}.{digest}.json"


def write_record(output_dir, record):
    """Put a record in place of the earlier one of its task, whole or not at all.

    Parameters
    ----------
    output_dir : path-like
        The output directory.
    record : Record
        What became of the task.
    """
    path = _path(output_dir, record.task)
    with write_whole(path, synced=True) as temporary:
        temporary.write_text(json.dumps(asdict(record), indent=1, sort_keys=True))


def read_record(output_dir, task):
    """Return the record of a task.

    Parameters
    ----------
    output_dir : path-like
        The output directory.
    task : str
        Name of the task.

    Returns
    -------
    Record or None
        `None` where there is none, or none that can be read.
    """
    return _read(_path(output_dir, task))


def read_records(output_dir):
    """Return all records of an output directory.

    Parameters
    ----------
    output_dir : path-like
        The output directory.

    Returns
    -------
    dict of str to Record
        By the name of the task.
    """
    found = (_read(path) for path in sorted(records_dir(output_dir).glob("*.json")))
    return {record.task: record for record in found if record is not None}


def _read(path):
    try:
        values = json.loads(path.read_text())
        return Record(**{name: value for name, value in values.items() if name in _KNOWN})
    except (OSError, ValueError, TypeError):
        return None
