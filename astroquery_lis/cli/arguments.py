"""The arguments of a command, made from the signature and docstring of the method behind it.

What a method calls ``column_filters`` is ``--column-filters`` here, with the same default: none is
repeated, since what is not given on the command line is not handed to the method.
"""

from __future__ import annotations

import argparse
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, NoReturn, get_args, get_origin

from .. import _typing
from .._typing import Keywords
from ..client import LegacySurveyClass
from ..client.position_text import POSITION
from ..jwst_stage import JwstStageClass
from . import calls
from .console import HELP, Exit

_MINUS_NUMBER = re.compile(r"-\s*\.?\d")
_FORMATS = "ecsv, csv, fits, parquet, votable or text"
_RESULTS = {
    "file": "name of the file; - for standard output",
    "table": "write the table to this file; - for standard output",
    "report": "write a report, as Markdown (.md) or JSON (.json)",
}

_SETTINGS: dict[str, dict[str, Any]] = {
    "timeout": {"type": float, "metavar": "SECONDS"},
    "mirror": {"action": "append", "metavar": "WHERE"},
}
SHORT = {"download_dir": "-d", "output_dir": "-d"}
# Objects of Python, of which a command line has none, and what the console decides.
OBJECTS = {"Executor", "LegacySurveyClass", "CatalogMatch"}
NOT_SHARED = {"self", "show_progress", "say", "token", "gaia", "tractor", "allow_unknown_layer"}
HELP_OF = {
    "get_query_payload": "print what would be asked, and ask nothing",
    "column_filters": "'flux_r>10', 'flux_r=10..20', 'type=PSF,REX'; may be given several times",
    "mirror": "a registered name, a URL or a directory; may be given several times, in order",
}
# By words that are all in the annotation, or in what the docstring says of the type; the first
# entry counts.
_ANGLE: dict[str, Any] = {"type": calls.angle, "metavar": "ANGLE"}
_LIST: dict[str, Any] = {"type": calls.names, "metavar": "LIST"}
_NUMBERS: dict[str, Any] = {"type": calls.whole_numbers, "metavar": "LIST"}
CONVERTERS: dict[str, dict[str, Any]] = {
    "Size": {"type": calls.size, "metavar": "SIZE"},
    "Angle": _ANGLE,
    "AnyAngle": _ANGLE,
    "Mirror": {"action": "append", "metavar": "WHERE"},
    "SkyCoord": {"type": calls.corners, "metavar": "RA,DEC,..."},
    "Quantity": {"type": calls.duration, "metavar": "TIME"},
    "Time": {"type": calls.moment, "metavar": "DATE"},
    "WCS": {"type": calls.grid_of_file, "metavar": "FILE"},
    "Mapping": {"type": calls.condition, "action": "append", "metavar": "CONDITION"},
    "FilePath": {"metavar": "PATH"},
    "Bands": _LIST,
    "Products": _LIST,
    "float": {"type": float, "metavar": "X"},
    "Sequence int": _NUMBERS,
    "sequence int": _NUMBERS,
    "Sequence": _LIST,
    "sequence": _LIST,
    "int": {"type": int, "metavar": "N"},
    "": {"metavar": "TEXT"},
}


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Shows a position that is several words as one thing, and breaks no word at a hyphen."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        metavar = action.metavar if isinstance(action.metavar, str) else ""
        if "|" in metavar:
            return f"[{metavar}]" if action.nargs == "*" else metavar
        return super()._format_args(action, default_metavar)


class Parser(argparse.ArgumentParser):
    """A parser whose errors begin like every other message of the command."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=_Formatter, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the words, and exit."""
        self.exit(Exit.USAGE, f"{self.format_usage()}astroquery-lis: {message}\n")


def protected(words: Iterable[str]) -> list[str]:
    """Return words with a space before ``-1.2``: no option begins with a digit."""
    return [f" {word}" if _MINUS_NUMBER.match(word) else word for word in words]


# ---- commands -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """A command: its name, what runs it, and the method that its arguments come from.

    The help is the first line of the docstring of the method, and ``note`` or the docstring of
    ``run``.  ``result`` is what it writes, if it does.  ``settings`` are attributes of the class
    that are set for this one call, ``overrides`` arguments of argparse for parameters that
    annotations do not say enough of.
    """

    name: str
    run: Callable[..., int | None]
    method: Callable[..., Any] | None = None
    result: Literal["file", "table", "manifest", "report", ""] = ""
    settings: tuple[str, ...] = ("timeout",)
    skip: tuple[str, ...] = ()
    overrides: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    more: Callable[[argparse.ArgumentParser], list[str] | None] | None = None
    note: str = ""


def add_command(commands: Any, command: Command) -> None:
    """Add a command to what ``add_subparsers`` returned."""
    summary, note = _texts(command)
    parser = commands.add_parser(
        command.name,
        help=_escaped(summary[0].lower() + summary[1:]),
        description=_wrapped(f"{summary}. {note}"),
        epilog=HELP,
    )
    parameters = []
    if command.method is not None:
        skip, overrides = command.skip, command.overrides
        parameters += add_method(parser, command.method, skip=skip, overrides=overrides)
    if command.more is not None:
        parameters += command.more(parser) or []
    _add_result(parser, command.result)
    _add_common(parser, command.settings)
    prefix = getattr(commands, "prefix", "")
    parser.set_defaults(
        run=command.run,
        command=f"{prefix} {command.name}".strip(),
        method=command.method,
        kind=command.result,
        parameters=parameters,
        settings=command.settings,
    )


def _texts(command: Command) -> tuple[str, str]:
    """Return what a command does in a line, without the full stop, and what else is to be said."""
    note = command.note or " ".join((inspect.getdoc(command.run) or "").split())
    if command.method is None:
        summary, _, note = note.partition(". ")
    else:
        summary = _plain((inspect.getdoc(command.method) or "").partition("\n")[0])
    return summary.rstrip("."), note


def _add_common(parser: argparse.ArgumentParser, settings: tuple[str, ...]) -> None:
    """Add the settings of a command, and what all commands have."""
    common = parser.add_argument_group("common options")
    for name in settings:
        owner = LegacySurveyClass if hasattr(LegacySurveyClass, name) else JwstStageClass
        text = _plain(inspect.getdoc(getattr(owner, name)) or "")
        common.add_argument(_option(name), help=_escaped(text), **_SETTINGS.get(name, {}))
    common.add_argument(
        "--json", action="store_true", help="print one JSON document, for errors too"
    )
    common.add_argument(
        "-q", "--quiet", action="store_true", help="no warnings, notes or progress on stderr"
    )
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_group(
    commands: Any, name: str, summary: str, description: str = ""
) -> argparse._SubParsersAction:
    """Add a command that has actions of its own, and return what takes those."""
    group = commands.add_parser(
        name,
        help=summary,
        description=_wrapped(description or f"{summary[0].upper()}{summary[1:]}."),
        epilog=f"'astroquery-lis {name} ACTION --help' tells more of each.",
    )
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.prefix = name
    return actions


def _add_result(parser: argparse.ArgumentParser, result: str) -> None:
    """Add the options that say where the result goes."""
    if result == "manifest":
        parser.add_argument(
            "--manifest",
            dest="result",
            metavar="FILE",
            help="write what became of each row to this file, in the format of its name; - for "
            "standard output",
        )
    elif result:
        parser.add_argument("-o", "--output", dest="result", metavar="FILE", help=_RESULTS[result])
    if result in ("manifest", "table"):
        parser.add_argument(
            "--format", metavar="FORMAT", help=f"{_FORMATS}, instead of what the name says"
        )
    if result:
        option = "--overwrite-manifest" if result == "manifest" else "--overwrite"
        parser.add_argument(
            option, dest="replace", action="store_true", help="replace the file if there is one"
        )
        parser.set_defaults(replace_option=option)


# ---- parameters ---------------------------------------------------------------------------------


def add_method(
    parser: Any,
    method: Callable[..., Any],
    *,
    only: tuple[str, ...] | None = None,
    skip: tuple[str, ...] = (),
    overrides: Mapping[str, dict[str, Any]] = MappingProxyType({}),
) -> list[str]:
    """Add the parameters of a method, and return their names; the first one has no dashes."""
    parameters = [p for p in inspect.signature(method).parameters.values() if p.name != "self"]
    names = ({p.name for p in parameters} if only is None else set(only)) - {*skip, *NOT_SHARED}
    added = []
    for parameter in (p for p in parameters if p.name in names):
        options = _options_of(method, parameter, parameters)
        if options is not None:
            options |= overrides.get(parameter.name, {})
            is_first = only is None and parameter is parameters[0]
            (_add_first if is_first else _add_option)(parser, parameter, options)
            added.append(parameter.name)
    return added


def _add_option(parser: Any, parameter: inspect.Parameter, options: dict[str, Any]) -> None:
    options["required"] = parameter.default is parameter.empty
    parser.add_argument(*_flags(parameter.name), dest=parameter.name, **options)


def _options_of(
    method: Callable[..., Any], parameter: inspect.Parameter, parameters: list[inspect.Parameter]
) -> Keywords | None:
    """Return the arguments of argparse for a parameter, if it is one for a shell, with its help."""
    if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
        return None
    name, default = parameter.name, parameter.default
    kind, text = _documented(method).get(name, ("", ""))
    options = _converter(str(parameter.annotation), kind, default)
    if options is None:
        return None
    if default not in (None, True, False, parameter.empty) and "default" not in text:
        text = f"{text.rstrip('.')} (default: {_shown(default)})"
    text = HELP_OF.get(name) or _of_command_line(text, name, parameters) or name
    return {**options, "help": _escaped(text), "default": argparse.SUPPRESS}


def _add_first(parser: Any, parameter: inspect.Parameter, options: dict[str, Any]) -> None:
    if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
        _add_option(parser, parameter, options)
        return
    words = set(re.findall(r"\w+", str(parameter.annotation)))
    is_optional = parameter.default is not parameter.empty
    if parameter.name == "table":
        text = "a table of positions, or of 'jwst query'; - for standard input"
        parser.add_argument("table", metavar="TABLE", help=text)
        _add_input_format(parser)
    elif words & {"Positions", "Coordinates"}:
        _add_places(parser, parameter.name, "Positions" in words, is_optional, options)
    else:
        options = {key: value for key, value in options.items() if key in ("help", "nargs")}
        nargs = "?" if is_optional else "+" if "Sequence" in words else None
        options = {"nargs": nargs, "default": argparse.SUPPRESS, **options}
        metavar = parameter.name.removesuffix("s").upper()
        parser.add_argument(parameter.name, **options, metavar=metavar)


def _add_places(
    parser: Any, name: str, is_many: bool, is_optional: bool, options: dict[str, Any]
) -> None:
    """Add a position, or several and the table that may hold them instead."""
    bricks = "BRICK|" if "bricks" in name else ""
    options.pop("type", None)
    options = {"nargs": "*" if is_optional or is_many else "+", **options}
    options["help"] = f"names of bricks or of sweep files; {POSITION}" if bricks else POSITION
    parser.add_argument(name, **{**options, "metavar": f"{bricks}RA DEC|NAME"})
    if is_many:
        parser.add_argument("--table", metavar="FILE", help="a table instead; - for standard input")
        _add_input_format(parser)


def _add_input_format(parser: Any) -> None:
    text = f"{_FORMATS}; by default told from name and content"
    parser.add_argument("--input-format", metavar="FORMAT", help=text)


def _converter(annotation: str, kind: str, default: object) -> Keywords | None:
    """Return the arguments of argparse for a parameter; `None` if it is nothing for a shell."""
    words = _words(annotation, kind)
    choices = _choices(annotation, kind, words)
    if choices:
        return _one_of(choices, words)
    if words & OBJECTS:
        return None
    if "bool" in words:
        return {"action": "store_true" if default is False else argparse.BooleanOptionalAction}
    options = next(dict(o) for names, o in CONVERTERS.items() if words.issuperset(names.split()))
    if "ByRow" in words and "type" in options:
        options["metavar"] += "|COLUMN"
        options["type"] = calls.or_column(options["type"])
    return options


def _one_of(choices: tuple[str, ...], words: set[str]) -> Keywords:
    """Return the arguments of argparse for one of a list, or the name of a column that has them."""
    if "ByRow" in words:
        return {"metavar": "|".join((*choices, "COLUMN"))}
    return {"choices": (*choices, "no") if "False" in words else choices}


def _words(annotation: str, kind: str) -> set[str]:
    """Return the words that say what a parameter is, also of the docstring if it may be any."""
    words = set(re.findall(r"\w+", annotation)) | ({"Angle"} if "['angle']" in kind else set())
    if "Any" in words and not words & {"Mapping", "Sequence"}:
        words |= set(re.findall(r"\w+", kind))
    return words


def _choices(annotation: str, kind: str, words: set[str]) -> tuple[str, ...]:
    """Return the values that a parameter may have, where annotation or docstring list them."""
    choices = tuple(re.findall(r"['\"]([\w-]+)['\"]", annotation))
    for word in words:
        alias = getattr(_typing, word, None)
        if get_origin(alias) is Literal:
            choices += get_args(alias)
    listed = re.match(r"[^{]*\{([^}]*)\}", kind)
    if not choices and listed and "sequence" not in kind:
        choices = tuple(re.findall(r"'([\w-]+)'", listed[1]))
    return choices


def _flags(name: str) -> tuple[str, ...]:
    if name == "get_query_payload":
        return ("--dry-run",)
    return (*([SHORT[name]] if name in SHORT else []), _option(name))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


# ---- docstrings ---------------------------------------------------------------------------------


@cache
def _documented(method: Callable[..., Any]) -> dict[str, tuple[str, str]]:
    """Return type and text of each parameter in a numpydoc docstring."""
    doc = inspect.getdoc(method) or ""
    section = re.search(r"(?ms)^Parameters\n-+\n(.*?)(?=^[A-Z]\w*\n---|\Z)", doc)
    parameters = {}
    for block in re.split(r"\n(?=\S)", section[1].strip()) if section else ():
        head, _, body = block.partition("\n")
        names, _, kind = head.partition(" : ")
        for name in re.findall(r"\w+", names):
            parameters[name] = _resolved(name, kind, " ".join(body.split()))
    return parameters


def _resolved(name: str, kind: str, text: str) -> tuple[str, str]:
    """Follow ``As for `get_cutout``` to where the parameter is described."""
    match = re.match(r"As for `~?([\w.]+)`", text)
    if match is None:
        return kind, text
    method = match[1].rpartition(".")[2]
    for owner in (LegacySurveyClass, JwstStageClass):
        if hasattr(owner, method):
            return _documented(getattr(owner, method)).get(name, (kind, text))
    return kind, text


def _of_command_line(text: str, own_name: str, parameters: list[inspect.Parameter]) -> str:
    """Return a text with the names of parameters as they are on the command line."""
    for name in (parameter.name for parameter in parameters[1:]):
        if name != own_name:
            text = re.sub(rf"``{name}(=[^`]*)?``", rf"``{_flags(name)[-1]}\1``", text)
    text = re.sub(r"(?i)(by default) `\w+`", r"\1 that of the configuration", text)
    return _plain(text.replace("`False`", "``no``"))


def _plain(text: str) -> str:
    """Return a text without the marks of reStructuredText."""
    text = re.sub(r"`~[\w.]*?(\w+)`", r"\1", text)
    return " ".join(re.sub(r"`+([^`]*)`+", r"\1", text).split())


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _shown(default: object) -> str:
    return ",".join(map(str, default)) if isinstance(default, (tuple, list)) else str(default)


def _wrapped(text: str, width: int = 88) -> str:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)
