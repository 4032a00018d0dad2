"""The commands of the JWST chain: ``jwst plan``, ``explain``, ``refs``, ``run``, ``status``, ..."""

import argparse
from pathlib import Path

from ..exceptions import InvalidRequestError
from ..jwst_stage import JwstStageClass
from . import jwst_archive, jwst_legacy
from .arguments import add_command, add_table_output, names
from .exits import EXIT_FAILED, EXIT_OK
from .manifests import add_manifest, show_manifest

__all__ = ["add_commands"]


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
        description="JWST data from MAST through the calwebb stages, and beside the Legacy "
        "Surveys. The stages need the extra 'jwst'.",
    )
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_plan(actions)
    _add_run(actions)
    _add_looks(actions)
    jwst_archive.add_commands(actions)
    jwst_legacy.add_commands(actions)
    for name, action in actions.choices.items():
        action.set_defaults(command=f"jwst {name}")


def _add_files(parser):
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE|PLAN",
        help="FITS files, directories, associations (.json), a manifest, or a saved plan (.toml)",
    )
    parser.add_argument(
        "-d",
        "--output-dir",
        metavar="DIR",
        help="where the products are to be: by default that of the plan, else reduced",
    )
    parser.add_argument(
        "--stages", type=_numbers, default=(1, 2, 3), metavar="LIST", help="default: 1,2,3"
    )
    parser.add_argument(
        "--set",
        dest="steps",
        type=_parameter,
        action="append",
        default=[],
        metavar="STEP.PARAMETER=VALUE",
        help="may be repeated; NRCA1:jump.rejection_threshold=5 is for that detector alone",
    )
    parser.add_argument(
        "--preset",
        default="default",
        choices=("default", "nircam-imaging", "nircam-deep", "miri-imaging"),
        help="a set of parameters (default: %(default)s)",
    )
    parser.add_argument("--recipe", metavar="FILE", help="parameters in a TOML or .asdf file")
    parser.add_argument(
        "--correct",
        dest="corrections",
        action="append",
        default=[],
        metavar="NAME",
        help="a correction between stages, such as snowballs or flicker; may be repeated",
    )
    parser.add_argument(
        "--group-by", type=names, metavar="LIST", help="what a mosaic's exposures have in common"
    )
    parser.add_argument("--product-name", metavar="TEMPLATE", help="such as '{target}_{filter}'")
    parser.add_argument(
        "--start",
        default="uncal",
        choices=("uncal", "rate", "cal", "auto"),
        help="the level to begin from where there are several (default: %(default)s)",
    )
    parser.add_argument(
        "--abs-refcat", metavar="legacy|gaia|FILE", help="what the mosaics are aligned to"
    )
    parser.add_argument(
        "--common-grid", action="store_true", help="put the mosaics of all filters on one grid"
    )


def _add_crds(parser):
    group = parser.add_argument_group("reference files")
    group.add_argument("--crds-path", metavar="DIR", help="the cache; by default $CRDS_PATH")
    group.add_argument("--crds-context", metavar="NAME", help="such as jwst_1322.pmap")
    group.add_argument("--crds-server", metavar="URL", help="by default $CRDS_SERVER_URL")
    group.add_argument("--offline", action="store_true", help="ask no server")


def _add_plan(actions):
    plan = add_command(
        actions,
        "plan",
        _plan,
        "tell what there is to do, and do nothing",
        "Reads headers only. Each product is done, stale, missing or failed, with the reason.",
    )
    _add_files(plan)
    plan.add_argument("--save", metavar="FILE", help="write the plan to this TOML file")
    add_table_output(plan)
    explain = add_command(
        actions, "explain", _explain, "tell why a product has to be made, or that it has not"
    )
    explain.add_argument("product", metavar="PRODUCT", help="its name, or a part that is unique")
    _add_files(explain)
    _add_crds(explain)
    params = add_command(
        actions, "params", _params, "tell the parameters of every step and where they come from"
    )
    _add_files(params)
    _add_crds(params)
    add_table_output(params)


def _add_run(actions):
    refs = add_command(
        actions,
        "refs",
        _refs,
        "get the reference files that a plan needs",
        "With --offline it tells exactly what is missing.",
    )
    _add_files(refs)
    _add_crds(refs)
    add_manifest(refs)
    run = add_command(
        actions,
        "run",
        _run,
        "do what is not done: the stages, as many exposures at once as memory allows",
        "The same command again takes up where it was. Exits with 5 if some failed.",
    )
    _add_files(run)
    _add_crds(run)
    run.add_argument("--max-workers", type=int, metavar="N", help="exposures at once")
    run.add_argument("--remake", action="store_true", help="also what is done")
    run.add_argument(
        "--partial", action="store_true", help="make mosaics without exposures that failed"
    )
    add_manifest(run)


def _add_looks(actions):
    status = add_command(
        actions, "status", _status, "tell how far a run is, also while it is at work"
    )
    status.add_argument("output_dir", metavar="DIR", help="where the products are to be")
    add_table_output(status)
    report = add_command(actions, "report", _report, "write one page about a run")
    report.add_argument("output_dir", metavar="DIR", help="where the products are")
    report.add_argument("--page", metavar="FILE", help="by default DIR/report.html")


# ---- words become values ------------------------------------------------------------------------


def _numbers(text):
    try:
        return tuple(int(part) for part in names(text))
    except ValueError:
        msg = f"{text!r} is not of the kind 1,2,3"
        raise argparse.ArgumentTypeError(msg) from None


def _parameter(text):
    """Return (selector, step, parameter, value) of ``[SELECTOR:]STEP.PARAMETER=VALUE``."""
    left, equals, value = text.partition("=")
    selector, colon, name = left.rpartition(":")
    step, dot, parameter = name.partition(".")
    if not (equals and dot and step and parameter) or (colon and not selector):
        msg = f"{text!r} is not of the kind jump.rejection_threshold=5"
        raise argparse.ArgumentTypeError(msg)
    return selector.strip(), step.strip(), parameter.strip(), _value(value.strip())


def _value(text):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _steps(found):
    steps = {}
    for selector, step, parameter, value in found:
        place = steps.setdefault(selector, {}) if selector else steps
        place.setdefault(step, {})[parameter] = value
    return steps


def _stage(options):
    stage = JwstStageClass()
    stage.crds_path = getattr(options, "crds_path", None)
    stage.crds_context = getattr(options, "crds_context", None)
    stage.crds_server_url = getattr(options, "crds_server", None)
    return stage


def _planned(options, stage):
    """Return the plan that is named, or the plan of the files."""
    files = options.files
    saved = [name for name in files if name.endswith(".toml")]
    if saved:
        if len(files) > 1:
            msg = f"files={files!r}: a saved plan stands alone."
            raise InvalidRequestError(msg, parameter="files", value=files)
        if not Path(saved[0]).is_file():
            msg = f"There is no plan {saved[0]!r}."
            raise InvalidRequestError(msg, parameter="files", value=files)
        return stage._placed(saved[0], options.output_dir, needed=False)
    tables = [name for name in files if name.endswith((".ecsv", ".csv"))]
    if tables:
        if len(files) > 1:
            msg = f"files={files!r}: a manifest stands alone."
            raise InvalidRequestError(msg, parameter="files", value=files)
        from .tables import read_table

        files = read_table(files[0], None)
    return stage.plan(
        files,
        output_dir=options.output_dir or "reduced",
        stages=options.stages,
        steps=_steps(options.steps) or None,
        preset=options.preset,
        recipe=options.recipe,
        corrections=tuple(options.corrections),
        group_by=options.group_by,
        product_name=options.product_name,
        start=options.start,
        abs_refcat=options.abs_refcat,
        common_grid=options.common_grid,
    )


# ---- the commands -------------------------------------------------------------------------------


def _plan(options, survey, console):
    plan = _planned(options, _stage(options))
    if options.save:
        plan.save(options.save)
    for note in plan.notes:
        console.note(note)
    console.table(plan.table(), options)


def _explain(options, survey, console):
    stage = _stage(options)
    plan = _planned(options, stage)
    text = plan.explain(options.product)
    if plan.output_dir and Path(plan.output_dir).is_dir():
        table = stage.states(plan, offline=options.offline)
        (row,) = table[table["task"] == plan.task(options.product).name]
        text = f"{row['task']}: {row['state']}" + (f": {row['reason']}" if row["reason"] else "")
    console.put(product=options.product, explanation=text)
    console.line(text)


def _params(options, survey, console):
    stage = _stage(options)
    console.table(stage.parameters(_planned(options, stage), offline=options.offline), options)


def _refs(options, survey, console):
    stage = _stage(options)
    plan = _planned(options, stage)
    table = stage.prefetch_references(
        plan, output_dir=plan.output_dir or "reduced", offline=options.offline, survey=survey
    )
    return show_manifest(table, options, console, summary=True)


def _run(options, survey, console):
    stage = _stage(options)
    plan = _planned(options, stage)
    table = stage.run(
        plan,
        output_dir=plan.output_dir or "reduced",
        max_workers=options.max_workers,
        overwrite=options.remake,
        partial=options.partial,
        offline=options.offline,
        survey=survey,
        show_progress=console.progress,
    )
    return show_manifest(table, options, console, summary=True, noun="products")


def _status(options, survey, console):
    table = _stage(options).status(options.output_dir)
    console.table(table, options)
    return EXIT_FAILED if "failed" in set(table["state"]) else EXIT_OK


def _report(options, survey, console):
    path = _stage(options).report(options.output_dir, path=options.page)
    console.put(page=path)
    console.line(path)
