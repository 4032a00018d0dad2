"""The commands of the JWST archive: ``jwst query`` and ``jwst download``."""

from ..exceptions import InvalidRequestError
from ..jwst_stage import JwstStageClass
from .arguments import TARGET, add_command, add_table_output, angle, names
from .exits import EXIT_NOTHING, EXIT_OK
from .images import show_payload
from .manifests import add_manifest, show_manifest
from .positions import as_target
from .tables import read_table

__all__ = ["add_commands"]


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
        "By a position, a program or both. Exits with 3 if there is none.",
    )
    query.add_argument("target", nargs="*", metavar="RA DEC|NAME", help=TARGET)
    query.add_argument("--radius", type=angle, metavar="ANGLE", help="around the position")
    query.add_argument("--program", type=int, metavar="N", help="such as 2736")
    query.add_argument("--observation", type=int, metavar="N", help="of the program")
    query.add_argument("--instrument", metavar="NAME", help="such as NIRCAM")
    query.add_argument("--filters", type=names, metavar="LIST", help="such as F150W,F444W")
    query.add_argument("--detector", metavar="NAME", help="such as NRCALONG")
    query.add_argument("--exp-type", metavar="NAME", help="such as NRC_IMAGE")
    query.add_argument("--from", dest="start_date", metavar="DATE", help="observed since")
    query.add_argument("--to", dest="end_date", metavar="DATE", help="observed until")
    query.add_argument("--public", action="store_true", help="only what is public now")
    query.add_argument("--associations", action="store_true", help="also the association files")
    add_table_output(query)

    download = add_command(
        actions,
        "download",
        _download,
        "fetch the files of a table that 'jwst query' wrote",
        "A file appears when it is whole and was checked; the same command again goes on. Data "
        "that are not public need the token in $MAST_API_TOKEN.",
    )
    download.add_argument("table", metavar="TABLE", help="- for standard input")
    download.add_argument("-d", "--output-dir", metavar="DIR", required=True, help="for the files")
    download.add_argument(
        "--max-workers", type=int, default=4, metavar="N", help="files at once (default: 4)"
    )
    download.add_argument("--refresh", action="store_true", help="also what is there already")
    download.add_argument("--dry-run", action="store_true", help="print the addresses only")
    add_manifest(download)


def _query(options, survey, console):
    if not options.target and options.program is None:
        msg = "Give a position, the name of an object, or --program."
        raise InvalidRequestError(msg, parameter="target", value=None)
    table = JwstStageClass().query_uncal(
        as_target(options.target) if options.target else None,
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
    )
    console.table(table, options)
    return EXIT_OK if len(table) else EXIT_NOTHING


def _download(options, survey, console):
    answer = JwstStageClass().download_uncal(
        read_table(options.table, None),
        download_dir=options.output_dir,
        max_workers=options.max_workers,
        overwrite=options.refresh,
        show_progress=console.progress,
        get_query_payload=options.dry_run,
    )
    if options.dry_run:
        return show_payload(answer, console)
    return show_manifest(answer, options, console, summary=True)
