"""What there is to do: the tasks of a plan, one per product, and where their files go.

A task runs one pipeline or one correction in a process of its own.  It is named after its main
product, relative to the output directory (``stage1/jw..._rate.fits``), so that a name tells a task
and its file alike.  An input is the name of another task, or the absolute path of a file.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Self

    from .._typing import FilePath
    from .planning.plan import Plan
    from .refs.references import Resolution

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
        path = Path(os.path.abspath(os.path.expanduser(self.output_dir)))
        object.__setattr__(self, "output_dir", path)


def input_path(name: str, output_dir: FilePath) -> Path:
    """Return the file behind an input of a task: another task's name or an absolute path."""
    return Path(name) if os.path.isabs(name) else Path(output_dir) / name


def member_path(member: Member, output_dir: FilePath) -> Path:
    """Return the file of a member of an association."""
    return input_path(member.file or member.input, output_dir)


def log_path(name: str, output_dir: FilePath) -> Path:
    """Return the log of the task ``name``: beside its product."""
    return (Path(output_dir) / name).with_suffix(".log")


def records_dir(output_dir: FilePath) -> Path:
    """Return the directory of the records of an output directory."""
    return Path(output_dir) / HIDDEN / "records"
