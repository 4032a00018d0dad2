"""The commands of the JWST chain, from MAST to mosaics and beside the Legacy Surveys."""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..client import LegacySurveyClass
from ..client.user_tables import read_table
from ..exceptions import CrdsUnavailable, InvalidRequestError
from ..jwst_stage import JwstStageClass
from ..jwst_stage.archive_jobs import size_text
from ..jwst_stage.planning import load_plan, placed_plan
from . import calls
from .arguments import Command, add_command, add_group, add_method
from .calls import answer, asked, call, run, show, stage_of
from .console import Console, Exit, check_output, counted

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from astropy.table import Table

    from .._typing import Keywords
    from ..jwst_stage.planning import Plan
    from ..jwst_stage.tasks import Task

DEFAULT_DIR = "reduced"
UNFINISHED = {"failed", "skipped", "interrupted"}
PLAN_PARAMETERS = frozenset(inspect.signature(JwstStageClass.plan).parameters)
# Plans and manifests, beside which there are no files.
_ALONE = re.compile(r"-|.*\.(toml|ecsv|csv)", re.DOTALL)
OFFSET_NAMES = ("d_ra", "d_dec", "scatter_ra", "scatter_dec")

# What is read of a long list; the other columns are in every other format.
_FILES_SHOWN = dict.fromkeys(
    ("file", "detector", "filter", "exp_type", "date_obs", "size", "public")
)
_PAIRS_SHOWN = {
    "label": None,
    "jwst_ra": ".6f",
    "jwst_dec": ".6f",
    "d_ra": ".1f",
    "d_dec": ".1f",
    "separation": ".1f",
    "jwst_mag": ".2f",
    **{f"mag_{band}": ".2f" for band in ("g", "r", "i", "z", "w1", "w2")},
    "type": None,
}
_SOURCES_SHOWN = {
    "RA": ".7f",
    "DEC": ".7f",
    "error_mas": ".1f",
    "weight": ".2f",
    "kind": None,
    "type": None,
    "ref_id": None,
}


def add_commands(commands: Any) -> None:
    """Add the group of commands of this module."""
    actions = add_group(
        commands,
        "jwst",
        "from uncal files to mosaics, and beside the Legacy Surveys",
        "JWST data from MAST through the calwebb stages, and beside the Legacy Surveys. The "
        "stages need the extra 'jwst'.",
    )
    for command in COMMANDS:
        add_command(actions, command)


# ---- the chain ----------------------------------------------------------------------------------


def _plan(options: Namespace, survey: LegacySurveyClass, console: Console) -> None:
    """Tell what there is to do, and do nothing.

    Reads headers only.  Each product is done, stale, missing or failed, with the reason, and an
    estimate of the seconds, the memory and the disk that it takes.
    """
    plan = _planned(options, stage_of(options))
    if options.save:
        plan.save(options.save)
        console.put(plan=options.save)
        console.note(f"the plan is in {options.save}")
    for note in plan.notes:
        console.note(note)
    table = plan.table()
    console.table(table, options)
    ahead = table[table["state"] != "done"]
    text = f"{len(table)} tasks: {counted(table['state'])}"
    if len(ahead):
        text += (
            f"; about {_time(sum(ahead['seconds']))} of work one after the other, "
            f"{max(ahead['memory_gb']):.1f} GB of memory for the largest, "
            f"{size_text(1e9 * sum(ahead['disk_gb']))} of disk"
        )
    console.note(text)


def _explain(options: Namespace, survey: LegacySurveyClass, console: Console) -> None:
    """Tell why a product has to be made, or that it has not.

    Also looks up the reference files that there are now.
    """
    stage = stage_of(options)
    plan = _planned(options, stage)
    task = _task(plan, options.product)
    states = plan.assess()
    if states:
        try:
            states = stage.assess(plan, offline=getattr(options, "offline", False))
        except CrdsUnavailable as error:
            console.warn(f"reference files are taken to be those of the record: {error}")
    text = plan.explain(task.name, states)
    state = states[task.name].state if states else "missing"
    console.put(product=task.name, state=state, explanation=text)
    console.line(text)


def _params(options: Namespace, survey: LegacySurveyClass, console: Console) -> None:
    """Tell the parameters of every step and where they come from."""
    plan = _planned(options, stage_of(options))
    with _listing_what_is_missing(console):
        console.table(_of_the_plan(plan, options, survey, console), options)


def _refs(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """Get the reference files that a plan needs.

    With --offline it gets none, and lists those that are missing.
    """
    plan = _planned(options, stage_of(options))
    with _listing_what_is_missing(console):
        table = _of_the_plan(plan, options, survey, console)
    return console.manifest(table, options, summary=True)


def _run(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """Do what is not done of the stages.

    As many exposures at once as memory allows.  The same command again takes up where it was, also
    after Ctrl-C.  Prints a line for each product; exits with 5 if one failed.
    """
    plan = _planned(options, stage_of(options))
    try:
        with _listing_what_is_missing(console):
            table = _of_the_plan(plan, options, survey, console)
    except KeyboardInterrupt:
        console.note("interrupted; the same command goes on with what is left")
        raise
    console.put(output_dir=str(plan.output_dir or DEFAULT_DIR))
    # A run that did something has said so.
    is_idle = set(table["Status"]) <= {"CACHED"}
    return console.manifest(table, options, summary=is_idle, noun="products", code=_code_of_tasks)


def _status(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """Exits with 5 if a task failed, was skipped or was interrupted."""
    table: Table = answer(options, survey, console, asked(options))
    console.table(table, options)
    text = f"{len(table)} tasks: {counted(table['state'])}"
    state, since = table.meta.get("state"), table.meta.get("started")
    console.note(text if state is None else f"the run of {since} is {state}; {text}")
    return Exit.PARTIAL if set(table["state"]) & UNFINISHED else Exit.OK


def _report(options: Namespace, survey: LegacySurveyClass, console: Console) -> None:
    """By default the page is report.html in the folder, which is replaced."""
    folder = options.output_dir
    path = options.result or str(Path(folder, "report.html"))
    _write_page(lambda name: stage_of(options).report(folder, path=name), path, console)


# ---- the archive --------------------------------------------------------------------------------


def _query(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """By a position, a program or a span of time.  Exits with 3 if there is none.

    Lists take several: F150W,F444W.
    """
    arguments = asked(options)
    if "coordinates" in arguments and "radius" not in arguments:
        msg = "Give --radius, such as 2arcmin: files whose footprint touches the circle."
        raise InvalidRequestError(msg, parameter="radius", value=None)
    return show(answer(options, survey, console, arguments), options, console, _FILES_SHOWN)


# ---- beside the Legacy Surveys ------------------------------------------------------------------


def _match(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """Prints the pairs with JWST and dereddened Legacy magnitudes (AB).

    Says what the offset between the two is, JWST minus Legacy.  Exits with 3 if nothing matched.
    """
    match = stage_of(options).match_catalogs(**asked(options), survey=survey)
    console.put(
        n_jwst_only=len(match.jwst_only),
        n_legacy_only=len(match.legacy_only),
        offset=_offset(match.offset),
        star_offset=_offset(match.star_offset),
    )
    show(match.matches, options, console, _PAIRS_SHOWN)
    console.note(
        f"{len(match.matches)} pairs, {len(match.jwst_only)} sources of JWST and "
        f"{len(match.legacy_only)} of Tractor without a partner"
    )
    if not len(match.matches):
        return Exit.NOTHING
    console.note(f"JWST minus Legacy: {match.offset}")
    return Exit.OK


def _offset(offset: Any) -> dict[str, float] | None:
    if offset is None:
        return None
    values_mas = {f"{name}_mas": getattr(offset, name).to_value("mas") for name in OFFSET_NAMES}
    return {**values_mas, "number": offset.number}


def _refcat(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """Stars are carried to the time of the exposures by their proper motions.

    With -o the file is what --abs-refcat takes.
    """
    arguments = asked(options)
    paths = arguments["footprints"]
    name = paths[0] if len(paths) == 1 else ""
    if name.endswith(".toml"):
        arguments["footprints"] = load_plan(name)
    elif name == "-" or name.endswith((".ecsv", ".csv")):
        arguments["footprints"] = read_table(name, None)
    return show(answer(options, survey, console, arguments), options, console, _SOURCES_SHOWN)


def _page(options: Namespace, survey: LegacySurveyClass, console: Console) -> None:
    """Prints the name of the page; by default that of the first mosaic with .html."""
    arguments = asked(options)
    if options.result is None:
        options.result = f"{Path(arguments['mosaics'][0]).stem}.html"
        check_output(options)

    def write(path: str | Path) -> None:
        answer(options, survey, console, {**arguments, "path": path})

    _write_page(write, options.result, console)


# ---- what they have in common -------------------------------------------------------------------


def _planned(options: Namespace, stage: JwstStageClass) -> Plan:
    """Return the plan that is named, or that of the files."""
    own = {name: value for name, value in asked(options).items() if name in PLAN_PARAMETERS}
    files, folder = own.pop("files"), own.pop("output_dir", None)
    alone = _alone(files)
    if alone.endswith(".toml"):
        return _saved_plan(alone, folder, own)
    paths = read_table(alone, None) if alone else files
    return stage.plan(paths, output_dir=folder or DEFAULT_DIR, **own)


def _alone(files: list[str]) -> str:
    """Return the plan or manifest that stands for files, or an empty text."""
    alone = next(filter(_ALONE.fullmatch, files), "")
    if alone and len(files) > 1:
        kind = "a saved plan" if alone.endswith(".toml") else "a manifest"
        _refuse(f"{alone}: {kind} stands alone, without other files.", files)
    return alone


def _saved_plan(name: str, folder: str | None, own: Keywords) -> Plan:
    """Return a plan that was saved, which takes none of the options of a plan."""
    if own:
        names = ", ".join(f"--{option.replace('_', '-')}" for option in own)
        _refuse(f"{names}: the saved plan {name} has its own; plan the files anew.", [name])
    if not Path(name).is_file():
        _refuse(f"There is no plan {name!r}.", [name])
    return placed_plan(name, folder, needed=False)


def _of_the_plan(
    plan: Plan, options: Namespace, survey: LegacySurveyClass, console: Console
) -> Table:
    """Return what the method that a command has beside `JwstStageClass.plan` answers."""
    beside = {k: value for k, value in asked(options).items() if k not in PLAN_PARAMETERS}
    folder = plan.output_dir or DEFAULT_DIR
    here = {"survey": survey, "show_progress": console.progress, "output_dir": folder}
    return call(stage_of(options), options.of_plan, {"plan": plan, **beside}, **here)


def _task(plan: Plan, product: str) -> Task:
    """Return the task that makes a product: its name, or a part that no other name has."""
    tasks = [task for task in plan.tasks if product in task.name]
    if len(tasks) > 1:
        return _exact(tasks, product)
    return tasks[0] if tasks else plan.task(product)


def _exact(tasks: list[Task], product: str) -> Task:
    """Return the task whose product has just this name, without its folder."""
    exact = [task for task in tasks if Path(task.name).name == Path(product).name]
    if len(exact) != 1:
        names = ", ".join(task.name for task in tasks)
        _refuse(f"{product!r} is a part of {len(tasks)} names: {names}.", product, "product")
    return exact[0]


def _write_page(write: Callable[[str | Path], object], path: str, console: Console) -> None:
    """Have a page written, and say where; ``-`` is standard output."""
    if path != "-":
        write(path)
        console.wrote(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        write(page)
        console.write_stdout(page.read_bytes())


def _code_of_tasks(statuses: Collection[str]) -> int:
    return Exit.PARTIAL if set(statuses) - {"COMPLETE", "CACHED"} else Exit.OK


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextmanager
def _listing_what_is_missing(console: Console) -> Iterator[None]:
    """List the reference files that are missing where that is why there is no result."""
    try:
        yield
    except CrdsUnavailable as error:
        console.put(missing=list(error.missing))
        console.lines(error.missing)
        console.note(
            "on the command line: --crds-path, --crds-server-url, 'astroquery-lis jwst refs'"
        )
        raise


def _refuse(msg: str, value: object, name: str = "files") -> NoReturn:
    raise InvalidRequestError(msg, parameter=name, value=value)


# ---- the list of them ---------------------------------------------------------------------------

_CRDS = ("crds_path", "crds_context", "crds_server_url")
_GET = ("max_workers", "offline")
_MAKE = ("overwrite", "partial", "on_error")
_OF_PLAN: dict[str, dict[str, Any]] = {
    "files": {
        "help": "FITS files, directories and associations (.json); or the manifest of 'jwst "
        "download', - for standard input; or a plan that --save wrote (.toml), which takes none "
        "of the options of a plan",
    },
    "output_dir": {
        "metavar": "DIR",
        "help": f"where the products are to be: by default where the plan says, else {DEFAULT_DIR}",
    },
    "steps": {
        "type": calls.step_parameter,
        "metavar": "STEP.PARAMETER=VALUE",
        "help": "a parameter of a step, such as jump.rejection_threshold=5; "
        "NRCA1:jump.rejection_threshold=5 is for that detector alone; may be repeated",
    },
    "corrections": {
        "type": calls.correction,
        "action": "append",
        "metavar": "NAME[:KEY=VALUE,...]",
        "help": "a correction between stages, such as snowballs or wisp:templates=FILE, "
        "minimum_snr=5, or a function as module:name; may be repeated, in order",
    },
    "wcs": {"type": str, "metavar": "FILE"},
    "group_by": {"type": calls.names, "metavar": "LIST"},
}


def _of_plan(
    method: Callable[..., Any] | None = None, *only: str
) -> Callable[[ArgumentParser], list[str]]:
    """Return what adds the files, the options of a plan of them, and those of another method."""

    def add(parser: ArgumentParser) -> list[str]:
        if method is JwstStageClass.assess:
            parser.add_argument(
                "product", metavar="PRODUCT", help="its name, or a part that is unique"
            )
        group = parser.add_argument_group("options of a plan")
        names = add_method(group, JwstStageClass.plan, overrides=_OF_PLAN)
        parser.set_defaults(of_plan=method)
        return names + (add_method(parser, method, only=only) if method else [])

    return add


def _more_for_plan(parser: ArgumentParser) -> list[str]:
    parser.add_argument("--save", metavar="FILE", help="write the plan to this TOML file")
    return _of_plan()(parser)


def _of_tractor(parser: ArgumentParser) -> list[str]:
    return add_method(parser, LegacySurveyClass.query_tractor, only=("region", "cache"))


_Stage = JwstStageClass
_SETTINGS = ("mirror", "timeout")
_DATES = {"start_date": {"type": str}, "end_date": {"type": str}}
_SEVERAL = {"footprints": {"nargs": "+"}}
_PATH = ("path",)
_PREFETCH = JwstStageClass.prefetch_references
COMMANDS = (
    Command("query", _query, _Stage.query_uncal, "table", overrides=_DATES),
    Command(
        *("download", run, _Stage.download_uncal, "manifest"),
        note="Prints a line for each file. A file appears when it is whole and was checked. The "
        "same command again goes on. What is not public yet needs the token in $MAST_API_TOKEN.",
    ),
    Command("plan", _plan, None, "table", (), more=_more_for_plan),
    Command("explain", _explain, None, "", _CRDS, more=_of_plan(_Stage.assess, "offline")),
    Command("params", _params, None, "table", _CRDS, more=_of_plan(_Stage.parameters, "offline")),
    Command("refs", _refs, None, "manifest", _CRDS, more=_of_plan(_PREFETCH, *_GET)),
    Command("run", _run, None, "manifest", _CRDS, more=_of_plan(_Stage.run, *_GET, *_MAKE)),
    Command("status", _status, _Stage.status, "table", ()),
    Command("report", _report, _Stage.report, "file", (), _PATH),
    Command("match", _match, _Stage.match_catalogs, "table", _SETTINGS, more=_of_tractor),
    Command(
        *("refcat", _refcat, _Stage.astrometric_reference, "table", _SETTINGS, _PATH, _SEVERAL),
        more=_of_tractor,
    ),
    Command("page", _page, _Stage.field_page, "file", _SETTINGS, _PATH),
)
