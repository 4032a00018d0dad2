"""The commands of the JWST archive: ``jwst query`` and ``jwst download``."""

import argparse

from ..exceptions import InvalidRequestError
from .arguments import TARGET, add_command, add_table_input, add_table_output, angle, names
from .exits import EXIT_NOTHING, EXIT_OK
from .images import show_payload
from .jwst_words import readable, stage_of
from .manifests import add_manifest, show_manifest
from .positions import as_target
from .tables import read_table

__all__ = ["add_commands"]

# What is read of a list of some hundred rows; the other columns are in every other format.
_SHOWN = dict.fromkeys(("file", "detector", "filter", "exp_type", "date_obs", "size", "public"))


def add_commands(actions):
    """Add the commands of this module.

    Parameters
    ----------
    actions : object
        What ``add_subparsers`` of the group returned.
    """
    query = add_command(
        actions,
        "query",
        _query,
        "find uncal files at MAST",
        "By a position, a program or a span of time. Tells their number and size, and exits with "
        "3 if there is none. Lists take several: F150W,F444W.",
    )
    query.add_argument("target", nargs="*", metavar="RA DEC|NAME", help=TARGET)
    query.add_argument(
        "--radius",
        type=angle,
        metavar="ANGLE",
        help="files whose footprint touches the circle; needed with a position",
    )
    query.add_argument("--program", type=_numbers, metavar="LIST", help="such as 2736")
    query.add_argument("--observation", type=_numbers, metavar="LIST", help="of the program")
    query.add_argument("--instrument", type=names, metavar="LIST", help="such as NIRCAM")
    query.add_argument("--filters", type=names, metavar="LIST", help="such as F150W,F444W")
    query.add_argument("--detector", type=names, metavar="LIST", help="such as NRCALONG")
    query.add_argument("--exp-type", type=names, metavar="LIST", help="such as NRC_IMAGE")
    query.add_argument(
        "--from", dest="start_date", metavar="DATE", help="begun since, such as 2022-07-01 (UTC)"
    )
    query.add_argument("--to", dest="end_date", metavar="DATE", help="begun until, such as 2023")
    query.add_argument("--public", action="store_true", help="only what is public now")
    query.add_argument("--associations", action="store_true", help="also the association files")
    _add_timeout(query)
    query.add_argument("--dry-run", action="store_true", help="print what would be asked")
    add_table_output(query)

    download = add_command(
        actions,
        "download",
        _download,
        "fetch the files of a table that 'jwst query' wrote",
        "Prints a line for each file. A file appears when it is whole and was checked; the same "
        "command again goes on. What is not public yet needs the token in $MAST_API_TOKEN.",
    )
    download.add_argument("table", metavar="TABLE", help="- for standard input")
    add_table_input(download)
    download.add_argument("-d", "--output-dir", metavar="DIR", required=True, help="for the files")
    download.add_argument(
        "--max-workers",
        type=int,
        default=4,
        metavar="N",
        help="files at once (default: %(default)s)",
    )
    download.add_argument("--refresh", action="store_true", help="also what is there already")
    _add_timeout(download)
    download.add_argument("--dry-run", action="store_true", help="print the addresses only")
    add_manifest(download)


def _add_timeout(parser):
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="wait so long for an answer"
    )


def _numbers(text):
    found = names(text)
    if not found or not all(part.isdigit() for part in found):
        msg = f"{text!r} is not of the kind 2736 or 2736,1345"
        raise argparse.ArgumentTypeError(msg)
    return tuple(int(part) for part in found)


def _query(options, survey, console):
    position = as_target(options.target) if options.target else None
    if position is not None and options.radius is None:
        msg = "Give --radius, such as 2arcmin: files whose footprint touches the circle."
        raise InvalidRequestError(msg, parameter="radius", value=None)
    answer = stage_of(options).query_uncal(
        position,
        radius=options.radius,
        program=options.program,
        observation=options.observation,
        instrument=options.instrument,
        filters=options.filters,
        detector=options.detector,
        exp_type=options.exp_type,
        start_date=options.start_date,
        end_date=options.end_date,
        public_only=options.public,
        associations=options.associations,
        get_query_payload=options.dry_run,
    )
    if options.dry_run:
        return show_payload(answer, console)
    console.table(answer, options, lines=readable(answer, _SHOWN))
    return EXIT_OK if len(answer) else EXIT_NOTHING


def _download(options, survey, console):
    answer = stage_of(options).download_uncal(
        read_table(options.table, options.input_format),
        download_dir=options.output_dir,
        max_workers=options.max_workers,
        overwrite=options.refresh,
        show_progress=console.progress,
        get_query_payload=options.dry_run,
    )
    if options.dry_run:
        return show_payload(answer, console)
    return show_manifest(answer, options, console)
