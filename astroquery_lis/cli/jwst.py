"""The commands of the JWST chain: ``jwst plan``, ``explain``, ``refs``, ``run``, ``status``, ..."""

from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from ..exceptions import CrdsUnavailable
from . import jwst_archive, jwst_legacy
from .arguments import add_command, add_output, add_table_output
from .exits import EXIT_OK, EXIT_PARTIAL
from .jwst_words import DEFAULT_DIR, add_crds, add_files, planned, stage_of, task_of, write_page
from .manifests import add_manifest, show_manifest

__all__ = ["add_commands"]

_LEFT = ("failed", "skipped", "interrupted")


def add_commands(commands):
    """Add the group of commands of this module.

    Parameters
    ----------
    commands : object
        What ``add_subparsers`` returned.
    """
    group = commands.add_parser(
        "jwst",
        help="from uncal files to mosaics, and beside the Legacy Surveys",
        description="JWST data from MAST through the calwebb stages, and beside the Legacy\n"
        "Surveys. The stages need the extra 'jwst'.",
        epilog="'astroquery-lis jwst ACTION --help' tells more of each.",
    )
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_plan(actions)
    _add_run(actions)
    _add_looks(actions)
    jwst_archive.add_commands(actions)
    jwst_legacy.add_commands(actions)
    for name, action in actions.choices.items():
        action.set_defaults(command=f"jwst {name}")


def _add_plan(actions):
    plan = add_command(
        actions,
        "plan",
        _plan,
        "tell what there is to do, and do nothing",
        "Reads headers only. Each product is done, stale, missing or failed, with the reason, and "
        "an estimate of the seconds, the memory and the disk that it takes.",
    )
    add_files(plan)
    plan.add_argument("--save", metavar="FILE", help="write the plan to this TOML file")
    add_table_output(plan)
    explain = add_command(
        actions,
        "explain",
        _explain,
        "tell why a product has to be made, or that it has not",
        "Also looks up the reference files that there are now.",
    )
    explain.add_argument("product", metavar="PRODUCT", help="its name, or a part that is unique")
    add_files(explain)
    add_crds(explain)
    params = add_command(
        actions, "params", _params, "tell the parameters of every step and where they come from"
    )
    add_files(params)
    add_crds(params)
    add_table_output(params)


def _add_run(actions):
    refs = add_command(
        actions,
        "refs",
        _refs,
        "get the reference files that a plan needs",
        "With --offline it gets none, and lists those that are missing.",
    )
    add_files(refs)
    add_crds(refs)
    add_manifest(refs)
    run = add_command(
        actions,
        "run",
        _run,
        "do what is not done of the stages",
        "As many exposures at once as memory allows. The same command again takes up where it "
        "was, also after Ctrl-C. Prints a line for each product; exits with 5 if one failed.",
    )
    add_files(run)
    add_crds(run)
    run.add_argument(
        "--max-workers",
        type=int,
        metavar="N",
        help="tasks at once; by default what cores and memory allow",
    )
    run.add_argument("--remake", action="store_true", help="make again what is done")
    run.add_argument(
        "--partial", action="store_true", help="make mosaics without the exposures that failed"
    )
    add_manifest(run)


def _add_looks(actions):
    status = add_command(
        actions,
        "status",
        _status,
        "tell how far a run is, also while it is at work",
        "Exits with 5 if a task failed, was skipped or was interrupted.",
    )
    status.add_argument("output_dir", metavar="DIR", help="where the products are to be")
    add_table_output(status)
    report = add_command(
        actions,
        "report",
        _report,
        "write one page about a run",
        "With the manifest, the parameters, what was checked, pictures and the times of the steps.",
    )
    report.add_argument("output_dir", metavar="DIR", help="where the products are")
    add_output(report, "name of the page; by default report.html in DIR, which is replaced")


# ---- the commands -------------------------------------------------------------------------------


def _plan(options, survey, console):
    plan = planned(options, stage_of(options))
    if options.save:
        plan.save(options.save)
        console.put(plan=options.save)
        console.note(f"the plan is in {options.save}")
    for note in plan.notes:
        console.note(note)
    table = plan.table()
    console.table(table, options)
    left = table[table["state"] != "done"]
    text = f"{len(table)} tasks: {_counted(table['state'])}"
    if len(left):
        text += (
            f"; about {_time(sum(left['seconds']))} of work one after the other, "
            f"{max(left['memory_gb']):.1f} GB of memory for the largest, "
            f"{_bytes(sum(left['disk_gb']))} of disk"
        )
    console.note(text)


def _explain(options, survey, console):
    stage = stage_of(options)
    plan = planned(options, stage)
    task = task_of(plan, options.product)
    text, state = plan.explain(task.name), "missing"
    if plan.output_dir and Path(plan.output_dir).is_dir():
        try:
            table = stage.states(plan, offline=options.offline)
        except CrdsUnavailable as error:
            console.warn(f"reference files are taken to be those of the record: {error}")
            table = plan.table()
        (row,) = table[table["task"] == task.name]
        state = str(row["state"])
        text = f"{task.name}: {state}" + (f": {row['reason']}" if row["reason"] else "")
    console.put(product=task.name, state=state, explanation=text)
    console.line(text)


def _params(options, survey, console):
    stage = stage_of(options)
    plan = planned(options, stage)
    with _mending(console):
        console.table(stage.parameters(plan, offline=options.offline), options)


def _refs(options, survey, console):
    stage = stage_of(options)
    plan = planned(options, stage)
    with _mending(console):
        table = stage.prefetch_references(
            plan,
            output_dir=plan.output_dir or DEFAULT_DIR,
            offline=options.offline,
            survey=survey,
        )
    return show_manifest(table, options, console, summary=True)


def _run(options, survey, console):
    stage = stage_of(options)
    plan = planned(options, stage)
    output_dir = plan.output_dir or DEFAULT_DIR
    try:
        with _mending(console):
            table = stage.run(
                plan,
                output_dir=output_dir,
                max_workers=options.max_workers,
                overwrite=options.remake,
                partial=options.partial,
                offline=options.offline,
                survey=survey,
                show_progress=console.progress,
            )
    except KeyboardInterrupt:
        console.note("interrupted; the same command goes on with what is left")
        raise
    console.put(output_dir=str(output_dir))
    # A run that did something has told so.
    nothing = set(table["Status"]) <= {"CACHED"}
    return show_manifest(
        table, options, console, summary=nothing, noun="products", statuses=_of_tasks
    )


def _status(options, survey, console):
    table = stage_of(options).status(options.output_dir)
    console.table(table, options)
    text = f"{len(table)} tasks: {_counted(table['state'])}"
    state, since = table.meta.get("state"), table.meta.get("started")
    console.note(text if state is None else f"the run of {since} is {state}; {text}")
    return EXIT_PARTIAL if set(table["state"]) & set(_LEFT) else EXIT_OK


def _report(options, survey, console):
    folder = options.output_dir
    stage = stage_of(options)
    write_page(
        lambda path: stage.report(folder, path=path),
        options.output or str(Path(folder, "report.html")),
        console,
    )


# ---- what they have in common -------------------------------------------------------------------


def _of_tasks(statuses):
    return EXIT_PARTIAL if set(statuses) - {"COMPLETE", "CACHED"} else EXIT_OK


def _counted(states):
    counts = Counter(str(state) for state in states)
    return ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))


def _time(seconds):
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _bytes(size_gb):
    return f"{size_gb:.1f} GB" if size_gb >= 1 else f"{1000 * size_gb:.0f} MB"


@contextmanager
def _mending(console):
    """List the reference files that are missing where that is why there is no result."""
    try:
        yield
    except CrdsUnavailable as error:
        console.put(missing=list(error.missing))
        for name in error.missing:
            console.line(name)
        console.note("on the command line: --crds-path, --crds-server, 'astroquery-lis jwst refs'")
        raise
