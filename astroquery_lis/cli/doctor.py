"""What is assumed of the live services, and the command that asks whether it still holds."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import tomllib
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .. import demo, sandbox
from .._packages import package_version
from ..exceptions import (
    InvalidRequestError,
    LegacySurveyError,
    OptionalDependencyError,
    ServiceDownError,
    StageError,
    UnexpectedContentError,
)
from ..images.viewer_service import BLANK, MAX_REQUEST_PIX
from ..io.http import reason_of
from ..io.whole_files import write_whole
from ..survey.layers import INVVAR_LIMIT_ARCSEC
from ..survey.paths import file_path
from . import questions
from .arguments import Command
from .console import Exit
from .questions import Answer, Asked, every_tree

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator, Sequence

    from ..client import LegacySurveyClass
    from ..sandbox import Sandbox
    from .console import Console


SERVICES = ("mirrors", "viewer", "tap", "mast", "crds", "sesame")


@dataclass(frozen=True)
class Assumption:
    """One thing that the package takes for granted of a service."""

    name: str
    service: str
    assumed: str
    evidence: str
    ask: Callable[..., questions.Answer]
    """Asks once; of mirrors each is asked."""
    affects: str
    """What in the package depends on it."""
    only_first: bool = False
    """Whether the first mirror is asked for all, not to ask too much."""


def _assumption(row: dict[str, Any]) -> Assumption:
    assumed = row.pop("assumed").format(
        BLANK=BLANK,
        INVVAR_LIMIT_ARCSEC=INVVAR_LIMIT_ARCSEC,
        MAX_REQUEST_PIX=MAX_REQUEST_PIX,
        TAP_TABLE=questions.TAP_TABLE,
    )
    return Assumption(assumed=assumed, ask=getattr(questions, row.pop("ask")), **row)


_TABLE = Path(__file__).with_name("data") / "assumptions.toml"


@cache
def assumptions() -> tuple[Assumption, ...]:
    """Return all of them, in the order in which they are asked about."""
    return tuple(map(_assumption, tomllib.loads(_TABLE.read_text(encoding="utf-8"))["assumption"]))


HOLDS, DIFFERS, NOT_ASKED = "holds", "differs", "could not ask"
SILENT = "not asked, since nothing answered before"
PACKAGES = ("astroquery", "astropy", "numpy", "requests", "pyvo", "jwst")
ENDINGS = (".md", ".json")
TITLES = ("service", "name", "assumed", "evidence", "seen", "verdict")


@dataclass(frozen=True)
class Finding:
    """What came of asking about one assumption."""

    assumption: Assumption
    verdict: str
    seen: str
    subject: str = ""
    """The mirror that was asked."""
    is_silent: bool = False
    """Whether nothing came at all."""

    @property
    def name(self) -> str:
        """Name of the assumption, with that of the mirror."""
        return self.assumption.name + (f" ({self.subject})" if self.subject else "")

    def row(self) -> dict[str, str]:
        """Return it as a row of the report."""
        values = {**vars(self.assumption), **vars(self), "name": self.name}
        return {title: values[title] for title in (*TITLES, "affects")}


# ---- asking --------------------------------------------------------------------------------------


def examine(asked: Asked, only: Sequence[str] = ()) -> Iterator[Finding]:
    """Ask about every assumption, or those of some services, one after the other.

    A service that did not answer the first question is not asked the others.
    """
    silent: dict[str, bool] = {}
    for about, subject, ask in _questions(asked):
        if only and about.service not in only:
            continue
        key = subject or about.service
        if silent.get(key):
            yield Finding(about, NOT_ASKED, SILENT, subject)
            continue
        finding = _asked_once(about, subject, ask)
        silent.setdefault(key, finding.is_silent)
        yield finding


def _questions(asked: Asked) -> Iterator[tuple[Assumption, str, Callable[[], Answer]]]:
    """Yield every assumption with the mirror, or an empty text, and what asks; by mirrors."""
    of_mirrors = [about for about in assumptions() if about.service == "mirrors"]
    for mirror in asked.mirrors:
        for about in of_mirrors:
            yield about, mirror.name, partial(about.ask, asked, mirror)
        of_mirrors = [about for about in of_mirrors if not about.only_first]
    for about in assumptions():
        if about.service != "mirrors":
            yield about, "", partial(about.ask, asked)


def _asked_once(about: Assumption, subject: str, ask: Callable[[], Answer]) -> Finding:
    try:
        answer = ask()
    except (OptionalDependencyError, StageError) as error:
        # Nothing was asked: the pipeline, which talks to CRDS, is not there or does not start.
        return Finding(about, NOT_ASKED, _line(error), subject)
    except LegacySurveyError as error:
        # That no name service can be asked may mean that one answered something else.
        cause = getattr(error, "cause", None)
        if not isinstance(error, ServiceDownError) or isinstance(cause, UnexpectedContentError):
            return Finding(about, DIFFERS, _line(error), subject)
        return Finding(about, NOT_ASKED, _line(error), subject, error.status is None)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, OSError) as error:
        # The answer has another form than the package knows.
        text = f"an answer that cannot be read ({type(error).__name__}: {_line(error)})"
        return Finding(about, DIFFERS, text, subject)
    return Finding(about, HOLDS if answer.holds else DIFFERS, answer.seen, subject)


def _line(error: Exception) -> str:
    return " ".join(reason_of(error).split())


@contextmanager
def sandboxed(sky: Sandbox, survey: LegacySurveyClass) -> Iterator[Asked]:
    """Yield whom to ask on a sandbox, which has a part of the survey and names of its own.

    CRDS holds no reference meanwhile.
    """
    from astroquery import mast

    from ..sandbox.jwst.crds import serve_crds
    from ..sandbox.mast import PROGRAM, example_files, serve_mast

    trees = [t for t in every_tree() if sky.file(file_path("region-bricks", *t)).exists()]
    place = sky.positions["field"]
    place_deg = place.ra.deg, place.dec.deg
    before = sky.routes[:]
    try:
        with (
            TemporaryDirectory() as folder,
            serve_crds(sky, folder) as crds,
            TemporaryDirectory() as held,
            mast.conf.set_temp("server", serve_mast(sky, example_files(held)).url),
        ):
            yield Asked(survey, tuple(trees), "NGC 1", place_deg, PROGRAM, crds.url)
    finally:
        sky.routes[:] = before


@contextmanager
def _services(survey: LegacySurveyClass, *, simulated: bool) -> Iterator[Asked]:
    """Yield whom to ask: the live services, or the simulated ones."""
    if not simulated:
        yield Asked(survey, every_tree())
        return
    with sandbox.serve() as sky, sandboxed(sky, survey) as asked:
        yield asked


# ---- the command ---------------------------------------------------------------------------------


def _doctor(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """Ask the live services whether they are as the package assumes.

    Prints a line for each assumption, and what depends on those that differ; a service that does
    not answer has one line, and the report (-o) has them all.  Makes less than 60 requests of less
    than 20 MB.  Exits with 0 if all hold, with 4 if nothing could be asked, else with 5.
    """
    if options.versions:
        return _versions(console)
    _check_report(options.result)
    findings = _findings(options, survey, console)
    counts = Counter(finding.verdict for finding in findings)
    console.put(counts=dict(counts), versions=_installed(), rows=[f.row() for f in findings])
    summary = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
    console.note(summary or "nothing was asked: a folder is no service")
    if options.result is not None:
        _write(findings, options.result)
        console.note(f"the report is {options.result}")
    return _code_of(set(counts))


def _check_report(path: str | None) -> None:
    if path is not None and not path.endswith(ENDINGS):
        msg = f"-o: {path} must end in one of: {', '.join(ENDINGS)}."
        raise InvalidRequestError(msg, parameter="output", value=path)


def _code_of(verdicts: set[str]) -> int:
    """Return the exit code of what came of all questions."""
    if verdicts <= {NOT_ASKED}:
        return Exit.TRANSFER
    return Exit.OK if verdicts <= {HOLDS} else Exit.PARTIAL


def _findings(options: Namespace, survey: LegacySurveyClass, console: Console) -> list[Finding]:
    """Return what came of all questions, and tell it meanwhile."""
    findings = []
    with (
        _services(survey, simulated=options.sandbox) as asked,
        demo.Heartbeat(console.step, console.note, is_shown=console.shows_waiting) as tell,
    ):
        tell.begin("asking")
        for finding in examine(asked, options.only):
            findings.append(finding)
            for line in _lines_of(finding):
                tell(line)
    return findings


def _lines_of(finding: Finding) -> Iterator[str]:
    about = finding.assumption
    if finding.seen == SILENT:
        # The line before says why, and the report has them all.
        return
    yield f"{finding.verdict:<13s} {about.service:<7s} {finding.name}: {finding.seen}"
    if finding.verdict == DIFFERS:
        yield f"{'':13s} assumed ({about.evidence}): {about.assumed}"
        yield f"{'':13s} depends on it: {about.affects}"


def _installed() -> dict[str, str]:
    """Return the versions of what matters, by name."""
    versions = {"python": platform.python_version(), "astroquery_lis": package_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions | {"platform": platform.platform()}


def _versions(console: Console) -> int:
    versions = _installed()
    console.lines(f"{name} {version}" for name, version in versions.items())
    console.put(versions=versions)
    return Exit.OK


# ---- the report ----------------------------------------------------------------------------------


def _write(findings: Sequence[Finding], path: str) -> None:
    """Write the report, as Markdown or JSON by its name."""
    rows = [finding.row() for finding in findings]
    if path.endswith(".json"):
        text = json.dumps({"versions": _installed(), "assumptions": rows}, indent=1) + "\n"
    else:
        text = _markdown(rows)
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _markdown(rows: Sequence[dict[str, str]]) -> str:
    lines = ["# What the live services were seen to do", ""]
    lines += [f"- {name} {version}" for name, version in _installed().items()]
    lines += ["", f"| {' | '.join(TITLES)} |", "|" + " --- |" * len(TITLES)]
    lines += ["| " + " | ".join(row[t].replace("|", "\\|") for t in TITLES) + " |" for row in rows]
    for row in rows:
        if row["verdict"] == DIFFERS:
            lines += ["", f"{row['service']}, {row['name']}: {row['affects']} depends on it."]
    return "\n".join(lines) + "\n"


def _more(command: ArgumentParser) -> None:
    command.add_argument(
        "--only",
        action="append",
        default=[],
        choices=SERVICES,
        help="ask this service; may be given several times",
    )
    command.add_argument(
        "--sandbox", action="store_true", help="ask the simulated sky, of which all holds"
    )
    command.add_argument(
        "--versions",
        action="store_true",
        help="print the versions of what is installed, for a report, and ask nothing",
    )


COMMANDS = (Command("doctor", _doctor, None, "report", ("mirror", "timeout"), more=_more),)
