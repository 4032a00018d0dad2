"""From the words of a command to values, to the call of its method, and what is shown of it."""

from __future__ import annotations

import argparse
import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.time import Time

from ..client import LegacySurveyClass
from ..client.inputs import as_targets, image_wcs
from ..client.position_columns import Columns, Targets
from ..client.user_tables import read_table
from ..exceptions import InvalidRequestError
from ..jwst_stage import JwstStageClass
from ..survey.sphere import angle_of_text
from .console import Console, Exit, text_lines

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from astropy.table import Table
    from astropy.wcs import WCS

    from .._typing import Keywords


_KEY = re.compile(r"\s*[A-Za-z_]\w*(?:\.[\w/]+)?\s*=")


def _not_of_the_kind(text: str, kind: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{text.strip()!r} is not of the kind {kind}")


def _quantity(text: str, like: u.UnitBase, kind: str) -> u.Quantity:
    value = angle_of_text(text)
    if not isinstance(value, u.Quantity) or not value.unit.is_equivalent(like):
        raise _not_of_the_kind(text, kind)
    return value


def angle(text: str) -> u.Quantity:
    """Return an angle such as ``10arcsec``, ``'5 arcmin'``, ``30"`` or ``0.1deg``."""
    return _quantity(text, u.deg, "10arcsec, 2arcmin or 0.1deg, with a unit")


def duration(text: str) -> u.Quantity:
    """Return a time such as ``30d`` or ``12h``."""
    return _quantity(text, u.s, "30d, 12h or 2week, with a unit")


def moment(text: str) -> Time | str:
    """Return a time: a Julian year such as ``2015.5``, or a date."""
    try:
        year = float(text)
        return Time(year, format="jyear") if "." in text else Time(text)
    except ValueError:
        pass
    try:
        return Time(text)
    except ValueError as error:
        raise _not_of_the_kind(text, "2015.5 or 2022-07-01") from error


def size(text: str) -> int | u.Quantity | tuple:
    """Return a size: pixels, an angle, or two of one kind as ``NY,NX``."""
    parts = text.split(",")
    if len(parts) > 2:
        msg = f"{text!r} is neither one size nor NY,NX"
        raise argparse.ArgumentTypeError(msg)
    if all(part.strip().lstrip("+-").isdigit() for part in parts):
        sizes = [int(part) for part in parts]
    else:
        kind = "256 (pixels), 2arcmin, or NY,NX; an angle has a unit"
        sizes = [_quantity(part, u.deg, kind) for part in parts]
    return sizes[0] if len(sizes) == 1 else tuple(sizes)


T = TypeVar("T")


def or_column(convert: Callable[[str], T]) -> Callable[[str], T | str]:
    """Return what converts a word, and leaves it as it is if it may be the name of a column."""

    def converted(text: str) -> T | str:
        try:
            return convert(text)
        except (argparse.ArgumentTypeError, InvalidRequestError):
            if text.strip().isidentifier():
                return text.strip()
            raise

    return converted


def names(text: str) -> str | tuple[str, ...]:
    """Return a name, or those of a list such as ``image,invvar``."""
    words = text.replace(",", " ").split()
    return words[0] if len(words) == 1 else tuple(words)


def whole_numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of a list such as ``1,2,3``."""
    words = text.replace(",", " ").split()
    if not words or not all(word.isdigit() for word in words):
        raise _not_of_the_kind(text, "2736 or 1,2,3")
    return tuple(int(word) for word in words)


def gigabytes(text: str) -> float:
    """Return a number of GB."""
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 <= value < np.inf:
        msg = f"{text!r} is not a number of GB"
        raise argparse.ArgumentTypeError(msg)
    return value


def condition(text: str) -> tuple[str, str | list[str]]:
    """Return (column, condition) of a text such as ``flux_r>10`` or ``type=PSF,REX``."""
    match = re.fullmatch(r"\s*(\w+)\s*([<>=!].*)", text, re.DOTALL)
    if match is None or not match[2].strip("<>=! "):
        raise _not_of_the_kind(text, "'flux_r>10', 'flux_r=10..20' or 'type=PSF,REX'")
    column, rule = match[1], match[2].strip()
    if rule[0] != "=" or rule.startswith("=="):
        return column, rule
    rule = rule[1:].strip()
    return column, (rule.replace(",", " ").split() if "," in rule else rule)


def conditions(pairs: list[tuple[str, Any]]) -> dict[str, str | list[str]]:
    """Return the conditions as ``query_tractor`` takes them; two of one column are joined."""
    rules: dict[str, Any] = {}
    for column, rule in pairs:
        if column in rules:
            if not (isinstance(rules[column], str) and isinstance(rule, str)):
                msg = f"--column-filters has {column} twice, and one of them is a list."
                raise InvalidRequestError(msg, parameter="column_filters", value=column)
            rule = f"{rules[column]} & {rule}"
        rules[column] = rule
    return rules


# ---- positions and grids ------------------------------------------------------------------------


def corners(text: str) -> SkyCoord:
    """Return the corners of ``RA,DEC,RA,DEC,...`` in degrees."""
    try:
        numbers = np.array([float(word) for word in text.replace(",", " ").split()])
        return SkyCoord(numbers.reshape(-1, 2), unit="deg")
    except ValueError as error:
        msg = f"{text} must be RA,DEC,RA,DEC,... in degrees: {error}"
        raise argparse.ArgumentTypeError(msg) from error


def grid_of_file(path: str) -> WCS:
    """Return the grid of the image in a FITS file."""
    try:
        return image_wcs(path, "wcs")
    except InvalidRequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def name_of_place(position: tuple[float, float]) -> str:
    """Return a position as a part of a file's name: ``'190.10860+1.20050'``."""
    return f"{position[0]:.5f}{position[1]:+.5f}"


# ---- steps and corrections of the JWST chain ----------------------------------------------------


def step_parameter(text: str) -> tuple[str, str, str, str | float | None]:
    """Return (selector, step, parameter, value) of ``[SELECTOR:]STEP.PARAMETER=VALUE``."""
    left, equals, value = text.partition("=")
    selector, colon, name = left.rpartition(":")
    step, dot, key = name.partition(".")
    if not (equals and dot and step.strip() and key.strip()) or (colon and not selector.strip()):
        raise _not_of_the_kind(text, "jump.rejection_threshold=5")
    return selector.strip(), step.strip(), key.strip(), _value(value.strip())


def steps(parts: list[tuple[str, str, str, Any]]) -> dict[str, dict]:
    """Return the parameters of steps as the plan takes them."""
    nested: dict[str, Any] = {}
    for selector, step, key, value in parts:
        place = nested.setdefault(selector, {}) if selector else nested
        place.setdefault(step, {})[key] = value
    return nested


def correction(text: str) -> str | tuple[str, dict]:
    """Return a correction as the plan takes it: a name, or that and its parameters.

    In ``'wisp:templates=w.fits,minimum_snr=5'`` a value that has a comma is a list, and
    ``templates.NRCA3=w3.fits,templates.NRCA4=w4.fits`` is a dictionary.
    """
    if "=" not in text:
        return text.strip()
    name, colon, _ = text.partition("=")[0].rpartition(":")
    # A comma with no key behind it is one of a list.
    parts = re.split(rf",(?={_KEY.pattern})", text[len(name + colon) :])
    match = _KEY.match(parts[0])
    if match is None or not name.strip():
        raise _not_of_the_kind(text, "wisp:templates=FILE,minimum_snr=5")
    parameters: dict[str, Any] = {}
    for part in parts:
        if not _add_parameter(parameters, part):
            msg = f"{text!r} has {part.partition('=')[0].strip()} twice"
            raise argparse.ArgumentTypeError(msg)
    return name.strip(), parameters


def _add_parameter(parameters: dict[str, Any], part: str) -> bool:
    """Add a parameter, or an entry of one; return whether there was nothing in its place."""
    key, _, words = part.partition("=")
    values = [_file_or_value(word.strip()) for word in words.split(",")]
    name, dot, entry = key.strip().partition(".")
    place, own = (parameters.setdefault(name, {}), entry) if dot else (parameters, name)
    if not isinstance(place, dict) or own in place:
        return False
    place[own] = values[0] if len(values) == 1 else values
    return True


def _file_or_value(text: str) -> Path | str | float | None:
    # A function of the user gets an absolute path, and the content of the file counts.
    return Path(text) if os.path.isfile(text) else _value(text)


def _value(text: str) -> str | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


# ---- the call -----------------------------------------------------------------------------------

# What all words of a parameter mean together, of which each was read by itself.
_TOGETHER: dict[str, Callable[[Any], object]] = {
    "column_filters": conditions,
    "steps": steps,
    "coordinates": " ".join,
    "bricks_or_coordinates": " ".join,
}


def asked(options: Namespace) -> Keywords:
    """Return the arguments of the method that the words gave, and no others, with tables read."""
    words = vars(options)
    arguments = {name: words[name] for name in options.parameters if name in words}
    for name in filter(arguments.__contains__, _TOGETHER):
        parts = arguments.pop(name)
        if parts != []:
            arguments[name] = _TOGETHER[name](parts)
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
    columns = Columns(*(arguments.pop(name, None) for name in ("ra", "dec", "name", "id_column")))
    return as_targets(arguments.pop("coordinates"), columns)


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


def call(owner: object, method: Callable[..., T], arguments: Keywords, **here: object) -> T:
    """Call a method with arguments, and with what it takes of all that is here."""
    parameters = inspect.signature(method).parameters
    taken = {name: value for name, value in here.items() if name in parameters}
    return getattr(owner, method.__name__)(**arguments, **taken)


def answer(
    options: Namespace, survey: LegacySurveyClass, console: Console, arguments: Keywords
) -> object:
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
