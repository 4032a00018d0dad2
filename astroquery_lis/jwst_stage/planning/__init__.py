"""The plan of a reduction: what there is to do, before it is done.  The other files make it."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._packages import import_optional
from ...exceptions import InvalidRequestError
from ...io.whole_files import write_bytes
from ..tasks import REFCATS, Member, Reduction, Task, absolute, table_of
from .exposures import Exposure

if TYPE_CHECKING:
    from typing import Self

    from astropy.table import Table

    from ..._typing import FilePath
    from ..states import State


_COLUMNS: dict[str, type] = {
    "task": str,
    "stage": int,
    "pipeline": str,
    "state": str,
    "reason": str,
    "seconds": float,
    "memory_gb": float,
    "disk_gb": float,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """The tasks of a reduction, in an order in which they can be done.

    Made by ``JwstStage.plan``.  A plan does not change, and holds nothing but what its file holds:
    ``Plan.load`` of a saved one gives an equal plan.

    Attributes
    ----------
    exposures : tuple of `~.exposures.Exposure`
        The file that each exposure begins from.
    tasks : tuple of `~.tasks.Task`
        A task stands after those whose products it needs.
    configurations : dict of str to dict
        The distinct set-ups that decide on reference files: CRDS's parameters.
    options : dict
        What was asked for.
    output_dir : str or None
        Absolute path of the directory of the products.
    notes : tuple of str
        What was left out, mended or assumed.
    """

    exposures: tuple = ()
    tasks: tuple = ()
    configurations: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    output_dir: str | None = None
    notes: tuple = ()

    def __len__(self) -> int:
        return len(self.tasks)

    def task(self, name: FilePath) -> Task:
        """Return a task.

        Parameters
        ----------
        name : str
            Its name or one of its products, a path that ends in one, or an ending of one that no
            other task's products have.

        Returns
        -------
        `~.tasks.Task`

        Raises
        ------
        InvalidRequestError
            If no task, or more than one, makes such a product.
        """
        name = os.fspath(name)
        tasks = [task for task in self.tasks if task.makes(name)]
        if len(tasks) == 1:
            return tasks[0]
        names = ", ".join(task.name for task in tasks or self.tasks[-4:])
        if tasks:
            msg = f"product={name!r} is made by several tasks: {names}; name the directory too."
        else:
            msg = f"product={name!r} is made by no task of the plan, which ends in {names}."
        raise InvalidRequestError(msg, parameter="product", value=name)

    def table(self, states: dict[str, State] | None = None) -> Table:
        """Return the plan as a table.

        Parameters
        ----------
        states : dict of str to `~.states.State`, optional
            By task, as ``JwstStage.assess`` finds them; by default those of `assess`.

        Returns
        -------
        `~astropy.table.Table`
            ``task``, ``stage``, ``pipeline``, ``state`` (done, stale, missing, failed),
            ``reason``, ``seconds``, ``memory_gb``, ``disk_gb``.
        """
        states = self.assess() if states is None else states
        rows = []
        for task in self.tasks:
            estimate, state = task.estimate, states.get(task.name)
            words = ("missing", "") if state is None else (state.state, state.reason)
            needs = estimate.seconds, estimate.memory_gb, estimate.disk_gb
            rows.append((task.name, task.stage, task.work, *words, *needs))
        table = table_of(rows, _COLUMNS)
        table["seconds"].info.format = ".0f"
        table["memory_gb"].info.format = ".2f"
        table["disk_gb"].info.format = ".3f"
        table.meta["notes"] = list(self.notes)
        return table

    def members(self, product: FilePath | None = None) -> Table:
        """Return what each product is made of.

        Parameters
        ----------
        product : str, optional
            Name of a task or of one of its products; all tasks by default.

        Returns
        -------
        `~astropy.table.Table`
            ``task``, ``role`` (science, background, imprint, psf, direct_image, sourcecat, segmap,
            target_acquisition), ``member``: a file of another task, or a path.

        Raises
        ------
        InvalidRequestError
            If no task, or more than one, makes such a product.
        """
        tasks = self.tasks if product is None else (self.task(product),)
        rows = [
            (task.name, member.exptype, member.name)
            for task in tasks
            for member in task.members or map(Member, task.inputs)
        ]
        return table_of(rows, dict.fromkeys(("task", "role", "member"), str))

    def assess(self) -> dict[str, State]:
        """Return what there is to do of each task, and why, by what is in `output_dir`.

        Reference files are not looked up, but taken as recorded; ``JwstStage.assess`` looks them
        up.

        Returns
        -------
        dict of str to `~.states.State`
            By task; empty if nothing was made yet.
        """
        if self.output_dir is None or not Path(self.output_dir).is_dir():
            return {}
        from ..states import assess

        return assess(Reduction(self, Path(self.output_dir)))

    def explain(self, product: FilePath, states: dict[str, State] | None = None) -> str:
        """Return in words why a product has to be made, with all reasons, or that it has not.

        Parameters
        ----------
        product : str
            Name of a task or of one of its products.
        states : dict of str to `~.states.State`, optional
            As for `table`.

        Returns
        -------
        str
            Such as ``stage2/..._cal.fits: stale: jump.rejection_threshold 4 -> 5``.
        """
        task = self.task(product)
        states = self.assess() if states is None else states
        state = states.get(task.name)
        if state is None:
            where = self.output_dir or "an output directory that is not named yet"
            return f"{task.name}: missing: nothing was made in {where}."
        words = [task.name, state.state, "; ".join(state.reasons)]
        return ": ".join(filter(None, words))

    def save(self, path: FilePath) -> None:
        """Write the plan as a TOML file, whole or not at all.

        Parameters
        ----------
        path : path-like
            The file; directories are made.
        """
        tomli_w = import_optional("tomli_w", "jwst", "Saving a plan")
        content = {
            "format": FORMAT,
            "output_dir": self.output_dir or "",
            "notes": self.notes,
            "options": self.options,
            "configurations": self.configurations,
            "exposures": [exposure.to_dict() for exposure in self.exposures],
            "tasks": [task.to_dict() for task in self.tasks],
        }
        write_bytes(Path(path), f"{_HEAD}{tomli_w.dumps(_without_none(content))}".encode())

    @classmethod
    def load(cls, path: FilePath) -> Self:
        """Return the plan in a file.

        Parameters
        ----------
        path : path-like
            What `save` wrote.

        Returns
        -------
        Plan
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            msg = f"{path}: cannot be read: {error}."
            raise InvalidRequestError(msg, parameter="path", value=str(path)) from None
        try:
            content: dict[str, Any] = _with_none(tomllib.loads(text))
            if content["format"] == FORMAT:
                return cls(
                    exposures=tuple(map(Exposure.from_dict, content.get("exposures", ()))),
                    tasks=tuple(map(Task.from_dict, content.get("tasks", ()))),
                    configurations=content.get("configurations", {}),
                    options=content.get("options", {}),
                    output_dir=content["output_dir"] or None,
                    notes=tuple(content.get("notes", ())),
                )
            why = f"a plan of format {content['format']}; this version reads {FORMAT}"
        except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
            why = f"is not a plan: {type(error).__name__}: {error}"
        msg = f"{path}: {why}."
        raise InvalidRequestError(msg, parameter="path", value=str(path))

    def _heading(self) -> str:
        n_seconds = sum(task.estimate.seconds for task in self.tasks)
        disk = sum(task.estimate.disk_gb for task in self.tasks)
        memory = max((task.estimate.memory_gb for task in self.tasks), default=0)
        return (
            f"Plan: {len(self.exposures)} exposures, {len(self.tasks)} tasks, about "
            f"{n_seconds / 60:.0f} min on one core, up to {memory:.1f} GB of memory each, "
            f"{disk:.2f} GB of disk"
        )

    def __repr__(self) -> str:
        lines = self.table().pformat(max_lines=60, max_width=140)
        notes = [f"Note: {note}" for note in self.notes]
        return "\n".join([self._heading(), *lines, *notes])

    def _repr_html_(self) -> str:
        from html import escape

        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        table = self.table()._repr_html_()
        return f"<p>{escape(self._heading())}</p>{table}" + (f"<ul>{notes}</ul>" if notes else "")


def load_plan(plan: Plan | FilePath) -> Plan:
    """Return a plan as it is, or that of a file."""
    if isinstance(plan, Plan):
        return plan
    if isinstance(plan, (str, os.PathLike)) and os.path.isfile(plan):
        return Plan.load(plan)
    text = repr(plan) if isinstance(plan, (str, os.PathLike)) else type(plan).__name__
    msg = f"plan={text} must be a Plan, as plan() makes it, or the file of a saved one."
    raise InvalidRequestError(msg, parameter="plan", value=plan)


def placed_plan(plan: Plan | FilePath, output_dir: FilePath | None, *, needed: bool = True) -> Plan:
    """Return a plan for an output directory, its own by default, with catalogues below that."""
    plan = load_plan(plan)
    folder = output_dir if output_dir is not None else plan.output_dir
    if folder is not None:
        return _with_catalogs(plan, absolute(folder))
    if needed or plan.options.get("abs_refcat") in REFCATS:
        msg = "output_dir=None: the plan names no output directory; give one."
        raise InvalidRequestError(msg, parameter="output_dir", value=None)
    return plan


def _with_catalogs(plan: Plan, output_dir: str) -> Plan:
    """Return the plan with the catalogues below the output directory named by their full paths."""
    tasks = tuple(_with_catalog(task, output_dir) for task in plan.tasks)
    return replace(plan, output_dir=output_dir, tasks=tasks)


def _with_catalog(task: Task, output_dir: str) -> Task:
    tweakreg = task.steps.get("tweakreg", {})
    name = str(tweakreg.get("abs_refcat", ""))
    if not name.startswith("refcat/"):
        return task
    tweakreg = {**tweakreg, "abs_refcat": os.path.join(output_dir, name)}
    return replace(task, steps={**task.steps, "tweakreg": tweakreg})


FORMAT = 1
"""Number of the layout of the file."""

_HEAD = """\
# What a run of the JWST chain has to do. Written by astroquery_lis; read by Plan.load.
# An input is a file, or the name of the task that makes it, relative to output_dir.
"""


_NONE = {"none": True}


def _without_none(value: object) -> object:
    """Return the value as TOML has it, which lacks None; its word in stpipe is also a string."""
    if isinstance(value, dict):
        return {name: _without_none(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_none(inner) for inner in value]
    return dict(_NONE) if value is None else value


def _with_none(values: dict[str, object]) -> dict[str, object]:
    hooked = json.loads(json.dumps(values), object_hook=lambda v: None if v == _NONE else v)
    return dict(hooked)
