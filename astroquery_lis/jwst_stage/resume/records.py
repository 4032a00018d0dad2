"""What is written down: a record of every task, beside its products, and notes on files."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from astropy.config.paths import get_cache_dir

from ..._conf import setting
from ..._forks import new_lock
from ...io.store import write_bytes, write_whole
from ..tasks import records_dir

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..._typing import FilePath

T = TypeVar("T")


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


def _path(output_dir: FilePath, task: str) -> Path:
    # Names may be long and hold '/'; the digest keeps two of them apart.
    digest = hashlib.sha256(task.encode()).hexdigest()[:12]
    return records_dir(output_dir) / f"{Path(task).stem[:120]}.{digest}.json"


def write_record(output_dir: FilePath, record: Record) -> None:
    """Put a record in place of the earlier one of its task, whole or not at all."""
    path = _path(output_dir, record.task)
    with write_whole(path, synced=True) as temporary:
        temporary.write_text(json.dumps(asdict(record), indent=1, sort_keys=True))


def read_record(output_dir: FilePath, task: str) -> Record | None:
    """Return the record of a task."""
    return _record_in(_path(output_dir, task))


def read_records(output_dir: FilePath) -> dict[str, Record]:
    """Return all records of an output directory."""
    records = (_record_in(path) for path in sorted(records_dir(output_dir).glob("*.json")))
    return {record.task: record for record in records if record is not None}


def _record_in(path: Path) -> Record | None:
    try:
        values = json.loads(path.read_text())
        return Record(**{name: value for name, value in values.items() if name in _KNOWN})
    except (OSError, ValueError, TypeError):
        return None


def cache_folder() -> Path:
    """Return the folder of the package's cache in which the JWST chain keeps notes."""
    own = setting("cache_dir")
    root = Path(own).expanduser() if own else Path(get_cache_dir()) / "astroquery"
    return root / "jwst_stage"


class FileMemo(Generic[T]):
    """A value per file, computed again when its size or its date changes. Safe among threads."""

    def __init__(self, path: FilePath, compute: Callable[[Path], T]) -> None:
        self._path = Path(path)
        self._compute = compute
        self._lock = new_lock()
        self._known = _read(self._path)
        self._changed = False

    def get(self, path: FilePath) -> T:
        """Return the value of a file."""
        name = os.fspath(path)
        status = os.stat(name)
        stamp = [status.st_size, status.st_mtime_ns]
        with self._lock:
            entry = self._known.get(name)
        if entry is not None and entry[:2] == stamp:
            return entry[2]
        value = self._compute(Path(path))
        with self._lock:
            self._known[name] = [*stamp, value]
            self._changed = True
        return value

    def save(self) -> None:
        """Write down what is new, if there is anything and it can be written."""
        with self._lock:
            if not self._changed:
                return
            # Another process may have found out something meanwhile.
            values = {**_read(self._path), **self._known}
            self._changed = False
        try:
            write_bytes(self._path, json.dumps(values).encode())
        except OSError:
            # The values are there all the same.
            return


def _read(path: Path) -> dict[str, list]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    good = isinstance(values, dict) and all(
        isinstance(entry, list) and len(entry) == 3 for entry in values.values()
    )
    return values if good else {}
