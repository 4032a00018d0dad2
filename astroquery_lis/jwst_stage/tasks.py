"""What there is to do and what became of it: tasks, one per product, their files and records.

A task runs one pipeline or one correction in a process of its own.  It is named after its main
product, relative to the output directory (``stage1/jw..._rate.fits``), so that a name tells a task
and its file alike.  An input is the name of another task, or the absolute path of a file.

Every file that the pipeline writes holds the time at which it was written: in the card ``DATE`` of
its headers and in the tree that its ASDF extension keeps.  Digests pass over both, over the
checksums of headers, which cover it, and over the history of the tree: the software that wrote it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from astropy.config.paths import get_cache_dir
from astropy.table import Table

from .._conf import setting
from .._locks import new_lock
from ..exceptions import TruncatedError, UnexpectedContentError
from ..io.whole_files import CARD_BYTES, HEAD_BYTES, fits_headers, write_bytes, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from hashlib import _Hash
    from typing import Any, BinaryIO, Self

    from .._typing import FilePath
    from .planning import Plan
    from .references import Resolution


HIDDEN = ".jwst_stage"
"""Directory, in the output directory, of records, scratch and the state of a run."""

REFCATS = ("legacy", "gaia")
"""What a reference catalogue can be made from; any other name of one is a file."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a task is expected to need.

    Attributes
    ----------
    seconds : float
        On one core.
    memory_gb : float
        Highest resident memory of its process.
    disk_gb : float
        Size of its products.
    """

    seconds: float = 0.0
    memory_gb: float = 0.0
    disk_gb: float = 0.0


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an association.

    Attributes
    ----------
    input : str
        Name of a task, or absolute path of a file.
    exptype : str
        The role that associations give it: 'science', 'background', 'psf', ...
    group_id : str
        Exposure id for the association, where the one in the header does not tell exposures
        apart; otherwise empty.
    file : str
        The member, relative to the output directory, where it is not the main product of the task
        that makes it, such as the spectrum beside a calibrated exposure; otherwise empty.
    """

    input: str
    exptype: str = "science"
    group_id: str = ""
    file: str = ""

    @property
    def name(self) -> str:
        """Which file it is: relative to the output directory, or an absolute path."""
        return self.file or self.input


@dataclass(frozen=True, slots=True)
class Task:
    """One pipeline or one correction, and the product that it makes.

    Attributes
    ----------
    name : str
        Main product, relative to the output directory, with '/'.
    stage : int
        1, 2 or 3; of a correction the stage that its input comes from.
    kind : str
        'pipeline' or 'correction'.
    pipeline : str
        Class name in `jwst.pipeline`, such as 'Detector1Pipeline'; empty for a correction.
    inputs : tuple of str
        Names of tasks or absolute paths of files.  For an association, those of `members`.
    outputs : tuple of str
        Every product that the task has to make, relative to the output directory, `name` first.
    steps : dict
        What was asked for this very task: ``{step: {parameter: value}}``, JSON types only.
    corrections : tuple of dict
        Corrections inside a pipeline (after_jump), or the one of a correction task, as made by
        ``Correction.to_dict``.
    association : dict
        The association without its members' paths (``asn_id``, ``asn_rule``, ``program``,
        ``target``, ...), empty where the pipeline takes a single file.
    members : tuple of Member
        Members of the association.
    exposures : tuple of str
        Roots (``jw01234001001_02101_00001_nrcalong``) of the exposures that are in the product.
    configuration : str
        Key of the distinct instrument set-up that decides on reference files, in
        ``Plan.configurations``.
    estimate : Estimate
        What it will need.
    """

    name: str
    stage: int
    kind: str = "pipeline"
    pipeline: str = ""
    inputs: tuple = ()
    outputs: tuple = ()
    steps: dict = field(default_factory=dict)
    corrections: tuple = ()
    association: dict = field(default_factory=dict)
    members: tuple = ()
    exposures: tuple = ()
    configuration: str = ""
    estimate: Estimate = Estimate()

    @property
    def work(self) -> str:
        """What it does: its pipeline, or the names of its corrections."""
        return self.pipeline or "+".join(self.correction_names)

    @property
    def correction_names(self) -> list[str]:
        """Names of its corrections, in their order."""
        return [str(correction.get("name", "")) for correction in self.corrections]

    def makes(self, name: str) -> bool:
        """Return True for its name, one of its products, a path to one, or an ending of one."""
        return name == self.name or any(
            name == output or name.endswith(f"/{output}") or output.endswith(name)
            for output in self.outputs
        )

    def to_dict(self) -> dict:
        """Return the task as JSON and TOML types; empty attributes are left out."""
        return asdict(self, dict_factory=_without_empty)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the task that `to_dict` wrote."""
        names = {f.name for f in fields(cls)}
        arguments = {name: value for name, value in values.items() if name in names}
        arguments["estimate"] = Estimate(**arguments.get("estimate", {}))
        arguments["members"] = tuple(Member(**member) for member in arguments.get("members", ()))
        for name in ("inputs", "outputs", "corrections", "exposures"):
            arguments[name] = tuple(arguments.get(name, ()))
        return cls(**arguments)


def _without_empty(items: list[tuple[str, Any]]) -> dict[str, object]:
    return {name: value for name, value in items if name == "input" or value not in ("", (), {})}


@dataclass(frozen=True)
class Reduction:
    """What a run works with: a plan, where its products go, and the references that hold.

    Without a ``resolution`` nothing is known of the references of now.
    """

    plan: Plan
    output_dir: Path
    resolution: Resolution | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "output_dir", Path(absolute(self.output_dir)))


def absolute(path: FilePath) -> str:
    """Return a path from the root, with ``~`` for the user's home read."""
    return os.path.abspath(os.path.expanduser(path))


def table_of(rows: Sequence[tuple], columns: Mapping[str, type]) -> Table:
    """Return a table of rows, of which there may be none."""
    return Table(rows=rows or None, names=list(columns), dtype=list(columns.values()))


def input_path(name: str, output_dir: FilePath) -> Path:
    """Return the file behind an input of a task: another task's name or an absolute path."""
    return Path(name) if os.path.isabs(name) else Path(output_dir) / name


def member_path(member: Member, output_dir: FilePath) -> Path:
    """Return the file of a member of an association."""
    return input_path(member.name, output_dir)


def log_path(name: str, output_dir: FilePath) -> Path:
    """Return the log of the task ``name``: beside its product."""
    return (Path(output_dir) / name).with_suffix(".log")


def records_dir(output_dir: FilePath) -> Path:
    """Return the directory of the records of an output directory."""
    return Path(output_dir) / HIDDEN / "records"


T = TypeVar("T")


@dataclass(slots=True)
class Record:
    """What became of a task the last time that it ran.

    Attributes
    ----------
    task : str
        Its name.
    state : str
        'done' or 'failed'.
    fingerprint : dict
        What decided on the product, see `~.states`; empty for a failed one that never began.
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


# ---- digests of files, whenever they were written -----------------------------------------------

ASDF_CARD = b"EXTNAME = 'ASDF"
"""Begins a card of the header of the extension that holds the tree of a data model."""

_CHUNK_BYTES = 1 << 20
_PASSED_OVER = (b"DATE    ", b"CHECKSUM", b"DATASUM ")
_TREE_PASSED_OVER = (b"history", b"asdf_library", b"_fits_hash")
_NEW_KEY = re.compile(rb"[^\s#]")
_META_DATE = re.compile(rb"  date:")


def content_digest(path: FilePath) -> str:
    """Return the sha256 of what a file says, whenever it was written."""
    digest, end = hashlib.sha256(), 0
    with open(path, "rb") as stream:
        if stream.read(HEAD_BYTES).startswith(b"SIMPLE  ="):
            # What is no whole HDU counts by its bytes, as do other files.
            with suppress(TruncatedError, UnexpectedContentError):
                for header, end in fits_headers(stream, os.fspath(path)):
                    _add_hdu(header, stream, end, digest)
        stream.seek(end)
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _add_hdu(header: bytes, stream: BinaryIO, end: int, digest: _Hash) -> None:
    """Add one HDU to the digest: its header, and its data, at which the stream stands."""
    cards = [header[at : at + CARD_BYTES] for at in range(0, len(header), CARD_BYTES)]
    if ASDF_CARD in header:
        # How far the last block is filled up depends on what is passed over.
        _add_tree(stream.read(end - stream.tell()).rstrip(b"\0"), digest)
        return
    for card in cards:
        if card.strip() and not card.startswith(_PASSED_OVER):
            digest.update(card)
    while chunk := stream.read(min(_CHUNK_BYTES, end - stream.tell())):
        digest.update(chunk)


def _add_tree(data: bytes, digest: _Hash) -> None:
    """Add an ASDF file: its tree without history and date of writing, its blocks as they are."""
    text, marker, blocks = data.partition(b"\n...\n")
    section = b""
    for line in text.split(b"\n"):
        if line.startswith(b"#"):
            continue
        if _NEW_KEY.match(line):
            section = line.partition(b":")[0]
        if section in _TREE_PASSED_OVER:
            continue
        if section == b"meta" and _META_DATE.match(line):
            continue
        digest.update(line.rstrip() + b"\n")
    digest.update(marker)
    digest.update(blocks)
