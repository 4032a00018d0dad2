"""The commands of the catalogue: ``tractor``, ``crossmatch``, ``covers``."""

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time

from ..exceptions import InvalidRequestError
from .arguments import (
    TARGET,
    add_command,
    add_data_options,
    add_table_input,
    add_table_output,
    add_target,
    angle,
    condition,
    names,
)
from .exits import EXIT_NOTHING, EXIT_OK
from .images import show_payload
from .positions import as_target, targets_of, tell_unplaced
from .tables import read_table

__all__ = ["add_commands"]


def add_commands(commands):
    """Add the commands of this module.

    Parameters
    ----------
    commands : object
        What ``add_subparsers`` returned.
    """
    tractor = add_command(
        commands,
        "tractor",
        _tractor,
        "print the sources of the Tractor catalogue in a part of the sky",
        "One of --radius, --width and --polygon says how much of it. Exits with 3 if there is "
        "none.",
    )
    tractor.add_argument("target", nargs="*", metavar="RA DEC|NAME", help=TARGET)
    tractor.add_argument("--radius", type=angle, metavar="ANGLE", help="of a cone")
    tractor.add_argument("--width", type=angle, metavar="ANGLE", help="of a box, east-west")
    tractor.add_argument(
        "--height", type=angle, metavar="ANGLE", help="of a box, north-south (default: --width)"
    )
    tractor.add_argument(
        "--polygon",
        type=names,
        metavar="RA,DEC,...",
        help="corners of a polygon in degrees, in place of a position",
    )
    tractor.add_argument(
        "--columns", type=names, metavar="LIST", help="names and families such as flux, or all"
    )
    tractor.add_argument(
        "--where",
        type=condition,
        action="append",
        default=[],
        metavar="CONDITION",
        help="'flux_r>10', 'flux_r=10..20', 'type=PSF,REX'; may be given several times",
    )
    tractor.add_argument(
        "--maskbits", type=names, metavar="LIST", help="leave out sources with any of these bits"
    )
    tractor.add_argument(
        "--all-rows",
        action="store_true",
        help="also rows of bricks that do not own the position (--source files)",
    )
    tractor.add_argument("--keep-duplicates", action="store_true", help="also rows of the type DUP")
    tractor.add_argument(
        "--source",
        default="auto",
        choices=("auto", "tap", "files", "viewer"),
        help="who answers (default: %(default)s)",
    )
    tractor.add_argument("--maxrec", type=int, metavar="N", help="at most so many rows")
    tractor.add_argument(
        "--async", dest="async_job", action="store_true", help="run a TAP query as a job"
    )
    tractor.add_argument(
        "--strict",
        action="store_true",
        help="a column or catalogue that the release lacks is an error",
    )
    tractor.add_argument(
        "--dry-run", action="store_true", help="print what would be asked, and ask nothing"
    )
    add_data_options(tractor, "region")
    add_table_output(tractor)

    match = add_command(
        commands,
        "crossmatch",
        _crossmatch,
        "match a table to the Tractor catalogue",
        "Exits with 3 if no row has a match.",
    )
    match.add_argument(
        "table",
        metavar="TABLE",
        help="a file with columns ra and dec, or lines of RA and Dec; - for standard input",
    )
    add_table_input(match)
    match.add_argument(
        "--radius", type=angle, required=True, metavar="ANGLE", help="largest separation"
    )
    match.add_argument(
        "--find",
        default="best",
        choices=("best", "all"),
        help="the nearest source of each row, or every pair (default: %(default)s)",
    )
    match.add_argument(
        "--columns", type=names, metavar="LIST", help="of the catalogue: names and families"
    )
    match.add_argument("--ra", default="ra", metavar="NAME", help="column of the table")
    match.add_argument("--dec", default="dec", metavar="NAME", help="column of the table")
    match.add_argument(
        "--epoch",
        type=float,
        metavar="YEAR",
        help="when the positions hold: stars with a proper motion are moved to it",
    )
    match.add_argument(
        "--strict", action="store_true", help="a brick without a catalogue is an error"
    )
    add_data_options(match, "region")
    add_table_output(match)

    covers = add_command(
        commands,
        "covers",
        _covers,
        "tell which positions a release covers",
        "Exits with 3 if it covers none of them.",
    )
    add_target(covers, table=True)
    covers.add_argument("--bands", metavar="BANDS", help="bands that have to be there too")
    add_data_options(covers, "region")
    add_table_output(covers)


def _tractor(options, survey, console):
    if options.radius is options.width is options.height is options.polygon is None:
        msg = "One of --radius, --width and --polygon must say how much of the sky."
        raise InvalidRequestError(msg, parameter="radius", value=None)
    where = {}
    for column, wanted in options.where:
        if column in where:
            both = f"{where[column]} & {wanted}"
            wanted = both if isinstance(where[column], str) and isinstance(wanted, str) else None
        if wanted is None:
            msg = f"--where has {column} twice, and one of them is a list."
            raise InvalidRequestError(msg, parameter="where", value=column)
        where[column] = wanted
    columns = options.columns
    answer = survey.query_tractor(
        as_target(options.target) if options.target else None,
        radius=options.radius,
        width=options.width,
        height=options.height,
        polygon=None if options.polygon is None else _corners(options.polygon),
        columns="all" if columns == ("all",) else columns,
        column_filters=where or None,
        primary=not options.all_rows,
        drop_duplicates=not options.keep_duplicates,
        maskbits=options.maskbits,
        release=options.release,
        region=options.region,
        source=options.source,
        mirror=options.mirror,
        async_job=options.async_job,
        maxrec=options.maxrec,
        on_missing="raise" if options.strict else "warn",
        cache=False if options.no_cache else None,
        get_query_payload=options.dry_run,
    )
    if options.dry_run:
        return show_payload(answer, console)
    console.table(answer, options)
    return EXIT_OK if len(answer) else EXIT_NOTHING


def _corners(words):
    try:
        values = np.array([float(word) for word in words])
        if len(values) % 2:
            msg = f"there are {len(values)} numbers"
            raise ValueError(msg)
        return SkyCoord(values[::2], values[1::2], unit="deg")
    except ValueError as error:
        msg = f"--polygon {','.join(words)} must be RA,DEC,RA,DEC,... in degrees: {error}."
        raise InvalidRequestError(msg, parameter="polygon", value=words) from error


def _crossmatch(options, survey, console):
    table = read_table(options.table, options.input_format)
    answer = survey.crossmatch(
        table,
        radius=options.radius,
        find=options.find,
        columns=options.columns,
        ra=options.ra,
        dec=options.dec,
        epoch=None if options.epoch is None else Time(options.epoch, format="jyear"),
        release=options.release,
        region=options.region,
        mirror=options.mirror,
        on_missing="raise" if options.strict else "warn",
        cache=False if options.no_cache else None,
    )
    console.table(answer, options)
    matched = np.isfinite(np.ma.filled(np.ma.asarray(answer["separation"], float), np.nan))
    console.note(f"{matched.sum()} of {len(answer)} rows have a source")
    return EXIT_OK if matched.any() else EXIT_NOTHING


def _covers(options, survey, console):
    table, ra_deg, dec_deg = targets_of(options)
    placed = np.isfinite(ra_deg)
    covered = np.zeros(len(ra_deg), bool)
    if placed.any():
        covered[placed] = survey.covers(
            SkyCoord(ra_deg[placed], dec_deg[placed], unit="deg"),
            bands=options.bands,
            release=options.release,
            region=options.region,
            mirror=options.mirror,
            cache=False if options.no_cache else None,
        )
    answer = Table([ra_deg, dec_deg], names=("ra", "dec"), units=("deg", "deg"))
    if table is not None:
        answer = table.copy(copy_data=False)
    answer["covered"] = covered
    console.table(answer, options)
    code = tell_unplaced(~placed, console)
    return code if covered.any() else EXIT_NOTHING
