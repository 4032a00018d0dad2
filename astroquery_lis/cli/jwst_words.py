"""Words of the JWST commands become a plan: files, steps, corrections, where the references are."""

import argparse
import os
import re
import tempfile
from pathlib import Path

from ..exceptions import InvalidRequestError
from ..jwst_stage import JwstStageClass
from .arguments import names
from .tables import read_table, text_lines

__all__ = [
    "DEFAULT_DIR",
    "add_crds",
    "add_files",
    "correction",
    "parameter",
    "planned",
    "readable",
    "stage_of",
    "task_of",
    "write_page",
]

STARTS = ("uncal", "rate", "cal", "auto")
PRESETS = ("default", "nircam-imaging", "nircam-deep", "miri-imaging")
DEFAULT_DIR = "reduced"

# A saved plan has these already.
_OF_FILES = {
    "stages": "--stages",
    "steps": "--set",
    "preset": "--preset",
    "recipe": "--recipe",
    "corrections": "--correct",
    "group_by": "--group-by",
    "product_name": "--product-name",
    "start": "--start",
    "abs_refcat": "--abs-refcat",
    "wcs": "--wcs",
    "common_grid": "--common-grid",
}
_KEY = re.compile(r"\s*([A-Za-z_]\w*(?:\.[\w/]+)?)\s*=")


def add_files(parser):
    """Add the files, and the options of a plan of them.

    Parameters
    ----------
    parser : `~.arguments.Parser`
        Of the command.
    """
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE|PLAN",
        help="one or more FITS files, directories and associations (.json); or the manifest of "
        "'jwst download', - for standard input; or a plan that --save wrote (.toml), which takes "
        "none of the options of a plan",
    )
    parser.add_argument(
        "-d",
        "--output-dir",
        metavar="DIR",
        help=f"where the products are to be: by default where the plan says, else {DEFAULT_DIR}",
    )
    group = parser.add_argument_group("options of a plan")
    group.add_argument(
        "--stages", type=_numbers, metavar="LIST", help="some of 1,2,3; by default all"
    )
    group.add_argument(
        "--start",
        choices=STARTS,
        help="the level to begin from where there are several (default: uncal)",
    )
    group.add_argument(
        "--set",
        dest="steps",
        type=parameter,
        action="append",
        metavar="STEP.PARAMETER=VALUE",
        help="a parameter of a step, such as jump.rejection_threshold=5; "
        "NRCA1:jump.rejection_threshold=5 is for that detector alone; may be repeated",
    )
    group.add_argument("--preset", choices=PRESETS, help="a set of parameters (default: default)")
    group.add_argument("--recipe", metavar="FILE", help="parameters in a TOML or .asdf file")
    group.add_argument(
        "--correct",
        dest="corrections",
        type=correction,
        action="append",
        metavar="NAME[:KEY=VALUE,...]",
        help="a correction between stages, such as snowballs or wisp:templates=FILE,minimum_snr=5, "
        "or a function as module:name; may be repeated, in order",
    )
    group.add_argument(
        "--group-by",
        type=names,
        metavar="LIST",
        help="what the exposures of a mosaic have in common, such as target,filter",
    )
    group.add_argument("--product-name", metavar="TEMPLATE", help="such as '{target}_{filter}'")
    group.add_argument(
        "--abs-refcat", metavar="legacy|gaia|FILE", help="what the mosaics are aligned to"
    )
    group.add_argument("--wcs", metavar="FILE", help="put the mosaics on the grid of this file")
    group.add_argument(
        "--common-grid",
        action="store_true",
        default=None,
        help="put the mosaics of all filters on one grid",
    )


def add_crds(parser):
    """Add the options that say where the reference files are.

    Parameters
    ----------
    parser : `~.arguments.Parser`
        Of the command.
    """
    group = parser.add_argument_group("reference files")
    group.add_argument(
        "--crds-path", metavar="DIR", help="their cache; by default $CRDS_PATH, else ~/crds_cache"
    )
    group.add_argument(
        "--crds-context",
        metavar="NAME",
        help="such as jwst_1322.pmap; by default $CRDS_CONTEXT, else the newest",
    )
    group.add_argument(
        "--crds-server", metavar="URL", help="by default $CRDS_SERVER_URL, else none is asked"
    )
    group.add_argument("--offline", action="store_true", help="ask no server")


# ---- values -------------------------------------------------------------------------------------


def _numbers(text):
    try:
        return tuple(int(part) for part in names(text))
    except ValueError:
        msg = f"{text!r} is not of the kind 1,2,3"
        raise argparse.ArgumentTypeError(msg) from None


def parameter(text):
    """Return (selector, step, parameter, value) of ``[SELECTOR:]STEP.PARAMETER=VALUE``."""
    left, equals, value = text.partition("=")
    selector, colon, name = left.rpartition(":")
    step, dot, key = name.partition(".")
    if not (equals and dot and step.strip() and key.strip()) or (colon and not selector.strip()):
        msg = f"{text!r} is not of the kind jump.rejection_threshold=5"
        raise argparse.ArgumentTypeError(msg)
    return selector.strip(), step.strip(), key.strip(), _value(value.strip())


def correction(text):
    """Return a correction as the plan takes it: a name, or that and its parameters.

    Parameters
    ----------
    text : str
        ``'flicker'``, ``'wisp:templates=w.fits,minimum_snr=5'``, ``'module:function:size=40'``; a
        value that has a comma is a list, and ``templates.NRCA3=w3.fits,templates.NRCA4=w4.fits``
        is a dictionary.

    Returns
    -------
    str or (str, dict)
    """
    name, colon, rest = text.rpartition(":") if "=" not in text else _parted(text)
    if "=" not in text:
        return text.strip()
    parameters, key, found = {}, None, []
    for part in rest.split(","):
        match = _KEY.match(part)
        if match is not None:
            key, part = match[1], part[match.end() :]
            if key in (known for known, _ in found):
                msg = f"{text!r} has {key} twice"
                raise argparse.ArgumentTypeError(msg)
            found.append((key, []))
        elif key is None:
            break
        found[-1][1].append(_file_or_value(part.strip()))
    if not (colon and name.strip() and found):
        msg = f"{text!r} is not of the kind wisp:templates=FILE,minimum_snr=5"
        raise argparse.ArgumentTypeError(msg)
    for key, values in found:
        value = values[0] if len(values) == 1 else values
        key, dot, entry = key.partition(".")
        if not dot:
            parameters[key] = value
        elif isinstance(parameters.setdefault(key, {}), dict):
            parameters[key][entry] = value
    return name.strip(), parameters


def _parted(text):
    """Return what is before the parameters, the colon, and the parameters."""
    head, equals, tail = text.partition("=")
    name, colon, key = head.rpartition(":")
    return name, colon, key + equals + tail


def _file_or_value(text):
    # A function of the user gets an absolute path, and the content of the file counts.
    return Path(text) if os.path.isfile(text) else _value(text)


def _value(text):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _steps(found):
    steps = {}
    for selector, step, key, value in found:
        place = steps.setdefault(selector, {}) if selector else steps
        place.setdefault(step, {})[key] = value
    return steps


# ---- the plan -----------------------------------------------------------------------------------


def stage_of(options):
    """Return the class with the settings of the options.

    Parameters
    ----------
    options : `~argparse.Namespace`
        Those of `add_crds`, or none of them; ``timeout`` counts too.

    Returns
    -------
    `~astroquery_lis.jwst_stage.JwstStageClass`
    """
    stage = JwstStageClass()
    stage.crds_path = getattr(options, "crds_path", None)
    stage.crds_context = getattr(options, "crds_context", None)
    stage.crds_server_url = getattr(options, "crds_server", None)
    stage.timeout = getattr(options, "timeout", None)
    return stage


def planned(options, stage):
    """Return the plan that is named, or that of the files.

    Parameters
    ----------
    options : `~argparse.Namespace`
        Those of `add_files`.
    stage : `~astroquery_lis.jwst_stage.JwstStageClass`
        Makes it.

    Returns
    -------
    `~astroquery_lis.jwst_stage.plan.Plan`

    Raises
    ------
    InvalidRequestError
        If what is given does not go together; and as ``plan`` raises it.
    """
    files = options.files
    own = {name: getattr(options, name) for name in _OF_FILES}
    own = {name: value for name, value in own.items() if value is not None}
    alone = [name for name in files if name == "-" or name.endswith((".toml", ".ecsv", ".csv"))]
    if alone and len(files) > 1:
        kind = "a saved plan" if alone[0].endswith(".toml") else "a manifest"
        _refuse(f"{alone[0]}: {kind} stands alone, without other files.", files)
    if alone and alone[0].endswith(".toml"):
        if own:
            told = ", ".join(_OF_FILES[name] for name in own)
            _refuse(f"{told}: the saved plan {alone[0]} has its own; plan the files anew.", files)
        if not Path(alone[0]).is_file():
            _refuse(f"There is no plan {alone[0]!r}.", files)
        return stage._placed(alone[0], options.output_dir, needed=False)
    if alone:
        files = read_table(alone[0], None)
    if "steps" in own:
        own["steps"] = _steps(own["steps"])
    return stage.plan(files, output_dir=options.output_dir or DEFAULT_DIR, **own)


def task_of(plan, product):
    """Return the task that makes a product.

    Parameters
    ----------
    plan : `~astroquery_lis.jwst_stage.plan.Plan`
        The plan.
    product : str
        Its name, its path, or a part of the name that no other has.

    Returns
    -------
    `~astroquery_lis.jwst_stage.tasks.Task`

    Raises
    ------
    InvalidRequestError
        If there is none, or more than one.
    """
    found = [task for task in plan.tasks if product in task.name]
    if len(found) > 1:
        exact = [task for task in found if Path(task.name).name == Path(product).name]
        if len(exact) != 1:
            told = ", ".join(task.name for task in found)
            _refuse(f"{product!r} is a part of {len(found)} names: {told}.", product, "product")
        found = exact
    return found[0] if found else plan.task(product)


def readable(table, formats):
    """Return the lines that show the columns of a table that are for reading.

    Parameters
    ----------
    table : `~astropy.table.Table`
        With these columns and others.
    formats : dict of str to (str or None)
        How each is shown; one that the table does not have is left out.

    Returns
    -------
    list of str
    """
    shown = table[[name for name in formats if name in table.colnames]]
    for name in shown.colnames:
        shown[name].info.format = formats[name]
    return text_lines(shown)


def write_page(write, path, console):
    """Have a page written, and tell where; ``-`` is standard output.

    Parameters
    ----------
    write : callable
        ``write(path)`` writes the page there.
    path : str
        Where it is to be.
    console : `~.console.Console`
        Tells it.
    """
    if path != "-":
        write(path)
        console.put(path=path)
        console.line(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        write(page)
        console.write_stdout(page.read_bytes())


def _refuse(msg, value, name="files"):
    raise InvalidRequestError(msg, parameter=name, value=value)
