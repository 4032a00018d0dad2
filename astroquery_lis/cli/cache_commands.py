"""The commands that look after the cache."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .._conf import conf
from ..client import LegacySurveyClass
from ..io.store import prune
from . import values
from .arguments import Command, add_command, add_group
from .calls import answer, asked
from .console import Console, Exit

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Collection
    from typing import Any

GOOD = frozenset({"GOOD", "UNLISTED", "REPAIRED", "REMOVED"})


def add_commands(commands: Any) -> None:
    """Add them to what ``add_subparsers`` returned."""
    actions = add_group(commands, "cache", "look after the files that were kept")
    for command in COMMANDS:
        add_command(actions, command)


def _info(options: Namespace, survey: LegacySurveyClass, console: Console) -> None:
    """Tell where the cache is and what it holds."""
    info = survey.cache_info()
    console.put(**info)
    console.line(f"location  {info['location']}")
    limit = f"{info['limit_bytes'] / 1e9:g} GB" if info["limit_bytes"] else "no limit"
    console.line(f"size      {info['bytes'] / 1e9:.3f} GB of {limit}")
    for name, count in info["stores"].items():
        console.line(
            f"{name}: {count['files']} files, {count['file_bytes'] / 1e6:.1f} MB; "
            f"{count['parts']} parts of files, {count['part_bytes'] / 1e6:.1f} MB"
        )


def _verify(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """Exits with 5 if a file is bad."""
    table = answer(options, survey, console, asked(options))
    return console.manifest(table, options, summary=True, code=_code_of_audit)


def _code_of_audit(statuses: Collection[str]) -> int:
    return Exit.PARTIAL if set(statuses) - GOOD else Exit.OK


def _prune(options: Namespace, survey: LegacySurveyClass, console: Console) -> None:
    """Remove what was used longest ago until the cache is small enough."""
    before = survey.cache_info()
    limit_bytes = before["limit_bytes"] if options.limit is None else options.limit * 1e9
    kept_bytes = before["bytes"]
    if options.limit is not None or conf.cache_size:
        kept_bytes = prune(survey.cache_location, limit_bytes, keep_since_s=time.time())
    _say_removed(before["bytes"], kept_bytes, console)


def _clear(options: Namespace, survey: LegacySurveyClass, console: Console) -> None:
    before = survey.cache_info()["bytes"]
    survey.clear_cache(**asked(options))
    _say_removed(before, survey.cache_info()["bytes"], console)


def _say_removed(before: float, after: float, console: Console) -> None:
    console.put(removed_bytes=int(before - after), bytes=int(after))
    console.line(f"removed {(before - after) / 1e6:.1f} MB, {after / 1e6:.1f} MB are left")


def _more_for_prune(command: ArgumentParser) -> None:
    command.add_argument(
        "--limit",
        type=values.gigabytes,
        metavar="GB",
        help="size to keep within (default: that of the configuration, 50)",
    )


COMMANDS = (
    Command("info", _info, settings=()),
    Command("verify", _verify, LegacySurveyClass.verify, "table"),
    Command("prune", _prune, settings=(), more=_more_for_prune),
    Command("clear", _clear, LegacySurveyClass.clear_cache, settings=()),
)
