"""From the words of a command to the call of its method, and what is shown of the answer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..client import LegacySurveyClass
from ..client.inputs import Targets, as_targets
from ..client.user_tables import read_table
from ..exceptions import InvalidRequestError
from ..jwst_stage import JwstStageClass
from . import values
from .console import Console, Exit
from .tables import text_lines

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from astropy.table import Table

    from .._typing import Keywords

COLUMNS = ("id_column", "ra", "dec", "name")
# What all words of a parameter mean together, of which each was read by itself.
_TOGETHER: dict[str, Callable[[Any], object]] = {
    "column_filters": values.conditions,
    "steps": values.steps,
    "coordinates": " ".join,
    "bricks_or_coordinates": " ".join,
}


def asked(options: Namespace) -> Keywords:
    """Return the arguments of the method that the words gave, and no others, with tables read."""
    names = [name for name in options.parameters if hasattr(options, name)]
    arguments = {name: getattr(options, name) for name in names}
    for name, together in _TOGETHER.items():
        if arguments.get(name) == []:
            del arguments[name]
        elif name in arguments:
            arguments[name] = together(arguments[name])
    if hasattr(options, "table"):
        _read_table(options, arguments)
    return arguments


def _read_table(options: Namespace, arguments: Keywords) -> None:
    """Put a table in the place of the positions, of which there is one or the other."""
    first = options.parameters[0]
    is_by_words = first in arguments and first != "table"
    is_needed = first != "bricks_or_coordinates"
    if is_by_words == bool(options.table) and (is_by_words or is_needed):
        bricks = "" if is_needed else "bricks or "
        msg = f"Give {bricks}a position, or a table of {bricks}positions with --table; not both."
        raise InvalidRequestError(msg, parameter=first, value=arguments.get(first))
    if options.table:
        arguments[first] = read_table(options.table, options.input_format)


def targets_asked(arguments: Keywords) -> Targets:
    """Take the positions and the columns that hold them out of arguments."""
    columns = {name: arguments.pop(name, None) for name in COLUMNS}
    return as_targets(arguments.pop("coordinates"), **columns)


def code_of_targets(targets: Targets) -> int:
    """Return the exit code: of some rows there may be no position."""
    return Exit.OK if targets.placed.all() else Exit.PARTIAL


def stage_of(options: Namespace) -> JwstStageClass:
    """Return the class of the JWST chain with the settings of the options."""
    stage = JwstStageClass()
    for name in options.settings:
        if hasattr(JwstStageClass, name):
            setattr(stage, name, getattr(options, name))
    return stage


def call(owner: object, method: Callable[..., Any], arguments: Keywords, **here: object) -> Any:
    """Call a method with arguments, and with what it takes of all that is here."""
    parameters = inspect.signature(method).parameters
    taken = {name: value for name, value in here.items() if name in parameters}
    return getattr(owner, method.__name__)(**arguments, **taken)


def answer(
    options: Namespace, survey: LegacySurveyClass, console: Console, arguments: Keywords
) -> Any:
    """Return what the method of the command answers."""
    owner = survey if hasattr(survey, options.method.__name__) else stage_of(options)
    here = {"survey": survey, "show_progress": console.progress}
    return call(owner, options.method, arguments, **here)


def show(
    found: Any,
    options: Namespace,
    console: Console,
    formats: Mapping[str, str | None] | None = None,
) -> int:
    """Show what a method answered, and return the exit code; of formats a long list has columns."""
    if hasattr(options, "get_query_payload"):
        return console.payload(found)
    if options.kind == "manifest":
        return console.manifest(found, options)
    return console.table(found, options, lines=_readable(found, formats) if formats else None)


def _readable(table: Table, formats: Mapping[str, str | None]) -> list[str]:
    """Return the lines that show those columns of a table that are for reading."""
    shown = table[[name for name in formats if name in table.colnames]]
    for name in shown.colnames:
        shown[name].info.format = formats[name]
    return text_lines(shown)


def run(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """Run a command whose method does all that there is to do."""
    return show(answer(options, survey, console, asked(options)), options, console)
