"""A plan as a TOML file that people can read, and back."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from ..._packages import import_optional
from ...exceptions import InvalidRequestError
from ..tasks import Task
from .exposures import Exposure

if TYPE_CHECKING:
    from .plan import Plan

__all__ = ["FORMAT", "plan_from_text", "plan_to_text"]

FORMAT = 1
"""Number of the layout of the file."""

_HEAD = """\
# What a run of the JWST chain has to do. Written by astroquery_lis; read by Plan.load.
# An input is a file, or the name of the task that makes it, relative to output_dir.
"""


def plan_to_text(plan: Plan) -> str:
    """Return a plan as TOML."""
    tomli_w = import_optional("tomli_w", "jwst", "Saving a plan")
    content = {
        "format": FORMAT,
        "output_dir": plan.output_dir or "",
        "notes": list(plan.notes),
        "options": _without_none(plan.options),
        "configurations": plan.configurations,
        "exposures": [exposure.to_dict() for exposure in plan.exposures],
        "tasks": [_task_values(task) for task in plan.tasks],
    }
    return _HEAD + tomli_w.dumps(content)


def _task_values(task: Task) -> object:
    values = task.to_dict()
    if "members" in values:
        values["members"] = [
            {name: value for name, value in member.items() if value or name in ("input", "exptype")}
            for member in values["members"]
        ]
    return _without_none(values)


def _read_task(values: dict[str, Any]) -> Task:
    for name in _MAY_HOLD_NONE:
        if name in values:
            values[name] = _with_none(values[name])
    return Task.from_dict(values)


_MAY_HOLD_NONE = ("steps", "corrections")
_NONE = {"none": True}


def _without_none(value: Any) -> object:
    """Return the value as TOML has it, which lacks None; its word in stpipe is also a string."""
    if isinstance(value, dict):
        return {name: _without_none(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_none(inner) for inner in value]
    return dict(_NONE) if value is None else value


def _with_none(value: Any) -> object:
    if value == _NONE:
        return None
    if isinstance(value, dict):
        return {name: _with_none(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_none(inner) for inner in value]
    return value


def plan_from_text(text: str, where: str = "") -> dict:
    """Return the parts of a plan that TOML holds."""
    try:
        content = tomllib.loads(text)
        if content["format"] != FORMAT:
            msg = f"{where}: a plan of format {content['format']}; this version reads {FORMAT}."
            raise InvalidRequestError(msg, parameter="path", value=where)
        return {
            "exposures": tuple(Exposure.from_dict(e) for e in content.get("exposures", ())),
            "tasks": tuple(_read_task(t) for t in content.get("tasks", ())),
            "configurations": content.get("configurations", {}),
            "options": {
                k: _with_none(v) if k in _MAY_HOLD_NONE else v
                for k, v in content.get("options", {}).items()
            },
            "output_dir": content["output_dir"] or None,
            "notes": tuple(content.get("notes", ())),
        }
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError) as error:
        msg = f"{where}: is not a plan: {type(error).__name__}: {error}."
        raise InvalidRequestError(msg, parameter="path", value=where) from None
