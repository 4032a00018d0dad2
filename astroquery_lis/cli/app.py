"""The command from its words to its exit code, and the commands of the survey and the cache."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u
from astropy.io.fits import HDUList
from astropy.table import Table

from .. import demo
from .._conf import conf
from .._packages import package_version
from ..client import LegacySurveyClass
from ..client.footprint import as_brick_radius_deg, bricks_at
from ..client.inputs import as_position
from ..client.position_text import POSITION
from ..exceptions import InvalidRequestError, LegacySurveyError, TransferError
from ..io.store import prune
from ..pictures.rgb import picture_bytes
from ..survey.bricks import brick_center, brick_edges, brick_id, name_of
from . import calls, doctor, jwst
from .arguments import Command, Parser, add_command, add_group, protected
from .calls import answer, asked, code_of_targets, run, show, targets_asked
from .console import HELP, Console, Exit, check_output, code_of_error

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Collection, Iterator, Sequence
    from types import FrameType


DESCRIPTION = "Client of the DESI Legacy Imaging Surveys."
EPILOG = "'astroquery-lis COMMAND --help' tells more of each.\n\n"
SHOWN_CARDS = ("RELEASE", "REGION", "LAYER", "SOURCE", "MIRROR", "RA", "DEC", "BANDS")
PICTURE_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}


# ---- the whole ----------------------------------------------------------------------------------


def parser() -> Parser:
    """Return the parser of the whole command."""
    top = Parser(prog="astroquery-lis", description=DESCRIPTION, epilog=EPILOG + HELP)
    top.add_argument("--version", action="version", version=f"astroquery_lis {package_version()}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (*COMMANDS, *doctor.COMMANDS):
        add_command(commands, command)
    actions = add_group(commands, "cache", "look after the files that were kept")
    for command in CACHE_COMMANDS:
        add_command(actions, command)
    jwst.add_commands(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; wrong words exit with 2."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(protected(words))
    console = Console(options)
    try:
        with _second_interrupt_kills():
            code = _answered(options, console)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        return Exit.PIPE
    except OSError as error:
        # Standard output is on a disk that is full, or the like.
        _drop_stdout()
        console.fail(f"standard output: {error}")
        return Exit.FAILED
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return code


@contextmanager
def _second_interrupt_kills() -> Iterator[None]:
    """Let a second Ctrl-C end the process at once, and quietly, while the first is at work."""
    before = signal.getsignal(signal.SIGINT)
    main_thread = threading.current_thread() is threading.main_thread()
    if before is not signal.default_int_handler or not main_thread:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        # Threads may still come to their end after an interrupt.
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, before)


def _answered(options: Namespace, console: Console) -> int:
    """Return the exit code, with everything said."""
    try:
        with console.listening():
            code = _run(options, console)
    except BrokenPipeError:
        raise
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        code = code_of_error(error)
        console.fail(_message(error))
        console.finish(code, error)
    else:
        console.finish(code)
    return code


def _run(options: Namespace, console: Console) -> int:
    if hasattr(options, "result"):
        check_output(options)
    survey = LegacySurveyClass()
    for name in ("release", "mirror", "timeout"):
        if name in options.settings:
            setattr(survey, name, getattr(options, name))
    code = options.run(options, survey, console)
    return Exit.OK if code is None else code


def _message(error: Exception) -> str:
    """Return what a user should read of an error."""
    text = str(error).strip()
    if isinstance(error, (InvalidRequestError, LegacySurveyError, OSError)) and text:
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"


def _drop_stdout() -> None:
    """Let nothing more be written to a pipe that nobody reads."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


# ---- one place ----------------------------------------------------------------------------------


def _image_file(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """Prints the name of the file; by default cutout-RA-DEC.fits or psf-RA-DEC.fits."""
    arguments = asked(options)
    name, arguments["coordinates"] = options.command, arguments.get("coordinates")
    if arguments["coordinates"] is not None or "wcs" not in arguments:
        position = as_position(arguments["coordinates"] or "")
        name, arguments["coordinates"] = f"{name}-{calls.name_of_place(position)}", position
    _name_result(options, f"{name}.fits")
    images = answer(options, survey, console, arguments)
    if not isinstance(images, HDUList):
        return console.payload(images)
    _write_images(images, options.result, console)
    return Exit.OK


def _name_result(options: Namespace, default: str) -> None:
    if options.result is None and not hasattr(options, "get_query_payload"):
        options.result = default
        check_output(options)


def _write_images(hdul: HDUList, path: str, console: Console) -> None:
    header = hdul[0].header
    console.put(
        header={name: header[name] for name in SHOWN_CARDS if name in header},
        images=[
            {
                "name": hdu.name,
                "shape": list(hdu.shape),
                "unit": hdu.header.get("BUNIT"),
                "band": hdu.header.get("BAND"),
            }
            for hdu in hdul[1:]
        ],
    )
    console.hdul(hdul, path)


def _refuse_two_layers(options: Namespace) -> None:
    if options.release and hasattr(options, "layer"):
        msg = "Give --layer or --release: a layer has a release of its own."
        raise InvalidRequestError(msg, parameter="layer", value=options.layer)


def _picture(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """A name in .png or .jpg; by default picture-RA-DEC.png.  Prints it.  Needs the plot extra."""
    _refuse_two_layers(options)
    arguments = asked(options)
    position = arguments["coordinates"] = as_position(arguments["coordinates"])
    _name_result(options, f"picture-{calls.name_of_place(position)}.png")
    path = options.result
    ending = ".png" if path in (None, "-") else os.path.splitext(path)[1].lower()
    if ending not in PICTURE_FORMATS:
        msg = f"-o: {path} must end in one of: {', '.join(PICTURE_FORMATS)}."
        raise InvalidRequestError(msg, parameter="output", value=path)
    picture = answer(options, survey, console, arguments)
    if not isinstance(picture, np.ndarray):
        return console.payload(picture)
    console.put(shape=list(picture.shape))
    console.binary(picture_bytes(picture, PICTURE_FORMATS[ending], "A picture"), path)
    return Exit.OK


def _url(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """Uses no network, but for names."""
    _refuse_two_layers(options)
    arguments = asked(options)
    targets = targets_asked(arguments)
    urls = [
        "" if place is None else survey.viewer_url(place, **arguments) for place in targets.places()
    ]
    targets.warn_of_unplaced("no address")
    console.lines(urls)
    console.put(urls=urls)
    return code_of_targets(targets)


# ---- the catalogue ------------------------------------------------------------------------------


def _tractor(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """One of --radius, --width, --polygon, --ids says which sources.  Exits with 3 if none is."""
    arguments = asked(options)
    if not arguments.keys() & {"radius", "width", "height", "polygon", "ids"}:
        msg = "One of --radius, --width, --polygon and --ids must say which sources."
        raise InvalidRequestError(msg, parameter="radius", value=None)
    return show(answer(options, survey, console, arguments), options, console)


def _crossmatch(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """Exits with 3 if no row has a match."""
    rows: Table = answer(options, survey, console, asked(options))
    console.table(rows, options)
    matched = np.isfinite(np.ma.filled(np.ma.asarray(rows["separation"], float), np.nan))
    console.note(f"{matched.sum()} of {len(rows)} rows have a source")
    return Exit.OK if matched.any() else Exit.NOTHING


def _catalogue(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """Prints the table, or writes it in any format of the output's name."""
    try:
        return run(options, survey, console)
    except TransferError as error:
        # The file is the user's own: no service is down.
        raise InvalidRequestError(str(error), parameter="path", value=options.path) from error


def _covers(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """Exits with 3 if it covers none of them."""
    arguments = asked(options)
    targets = targets_asked(arguments)
    places = np.column_stack([targets.ra_deg, targets.dec_deg])
    rows = Table(places, names=("ra", "dec"), units=("deg", "deg"))
    if targets.table is not None:
        rows = targets.table.copy(copy_data=False)
    rows["covered"] = covered = np.asarray(survey.covers(places, **arguments))
    console.table(rows, options)
    return code_of_targets(targets) if covered.any() else Exit.NOTHING


def _maps(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    rows: Table = answer(options, survey, console, asked(options))
    console.table(rows, options)
    return Exit.OK if np.isfinite(rows["ra"]).all() else Exit.PARTIAL


def _bricks(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """Tell the bricks at or around positions.

    With a table and no radius, one row for each of its rows; else each brick once.  Uses no
    network, but for names.
    """
    radius_deg = as_brick_radius_deg(options.radius)
    targets = targets_asked(asked(options))
    placed = targets.placed
    if radius_deg is None:
        ids = np.zeros(len(targets), int)
        ids[placed] = brick_id(targets.ra_deg[placed], targets.dec_deg[placed])
    else:
        ids = bricks_at(targets, radius_deg)
    targets.warn_of_unplaced("no brick")
    console.table(_table_of_bricks(ids), options)
    return code_of_targets(targets)


def _table_of_bricks(ids: np.ndarray) -> Table:
    """Return the table of bricks; the id 0 is no brick, and has masked values."""
    known = np.where(ids > 0, ids, 1)
    columns = [name_of(known), ids, *brick_center(known), *brick_edges(known)]
    titles = ("brickname", "brickid", "ra", "dec", "ra1", "ra2", "dec1", "dec2")
    table = Table(columns, names=titles, masked=bool((ids == 0).any()))
    for name in titles[2:]:
        table[name].unit = u.deg
        table[name].info.format = ".6f"
    if table.masked:
        for name in titles:
            table[name].mask = ids == 0
    return table


# ---- files ------------------------------------------------------------------------


def _files(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    """A file appears when it is whole and was checked.

    The same command again fetches what is missing.  Prints a line for each file.
    """
    arguments = asked(options)
    if options.list_products:
        products = survey.list_file_products(release=arguments.get("release"))
        return console.table(products, options)
    if arguments.get("verify") == "no":
        arguments["verify"] = False
    return show(answer(options, survey, console, arguments), options, console)


# ---- what there is ------------------------------------------------------------------------------


def _layers(options: Namespace, survey: LegacySurveyClass, console: Console) -> int:
    table = survey.list_layers()
    if options.text is not None:
        part = options.text.lower()
        table = table[[any(part in str(cell).lower() for cell in row) for row in table]]
    return console.table(table, options)


def _demo(options: Namespace, survey: LegacySurveyClass, console: Console) -> None:
    say = console.note if console.json else console.step
    console.put(path=str(demo.run(**asked(options), say=say, show_progress=console.shows_waiting)))


# ---- the cache -----------------------------------------------------------------------------------

GOOD = frozenset({"GOOD", "UNLISTED", "REPAIRED", "REMOVED"})


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
        type=calls.gigabytes,
        metavar="GB",
        help="size to keep within (default: that of the configuration, 50)",
    )


# ---- the list of them ---------------------------------------------------------------------------


def _more_for_bricks(command: ArgumentParser) -> list[str]:
    command.add_argument("coordinates", nargs="*", metavar="RA DEC|NAME", help=POSITION)
    names = _more_for_many(command)
    command.add_argument(
        "--radius", type=calls.angle, metavar="ANGLE", help="all bricks that a circle touches"
    )
    return ["coordinates", *names]


def _more_for_many(command: ArgumentParser) -> list[str]:
    command.add_argument(
        "--table", metavar="FILE", help="a table of positions instead; - for standard input"
    )
    command.add_argument("--input-format", metavar="FORMAT", help="by default told from the file")
    for axis, what in (("ra", "RA"), ("dec", "Dec"), ("name", "names of objects")):
        command.add_argument(f"--{axis}", metavar="COLUMN", help=f"column of the table with {what}")
    return ["ra", "dec", "name"]


def _more_for_files(command: ArgumentParser) -> None:
    command.add_argument(
        "--list-products", action="store_true", help="print the products that can be fetched"
    )


def _more_for_layers(command: ArgumentParser) -> None:
    command.add_argument(
        "text", nargs="?", metavar="TEXT", help="only those that have this in them"
    )


_Survey = LegacySurveyClass
_WITHOUT_POSITION = {"coordinates": {"nargs": "*"}}
_EXECUTORS = {"executor": {"choices": ("threads", "processes")}}
COMMANDS = (
    Command("cutout", _image_file, _Survey.get_cutout, "file", overrides=_WITHOUT_POSITION),
    Command("psf", _image_file, _Survey.get_psf, "file"),
    Command("picture", _picture, _Survey.get_picture, "file", ("release", "timeout")),
    Command(
        *("url", _url, _Survey.viewer_url, "", ("release",)),
        overrides=_WITHOUT_POSITION,
        more=_more_for_many,
    ),
    Command(
        *("cutouts", run, _Survey.download_cutouts, "manifest"),
        overrides=_EXECUTORS,
        note="The folder keeps a journal: the same command again does what is left. "
        "Prints a line for each target.",
    ),
    Command("bricks", _bricks, None, "table", (), more=_more_for_bricks),
    Command("files", _files, _Survey.get_brick_files, "manifest", more=_more_for_files),
    Command("tractor", _tractor, _Survey.query_tractor, "table"),
    Command("catalogue", _catalogue, _Survey.read_catalogue, "table", ()),
    Command("crossmatch", _crossmatch, _Survey.crossmatch, "table"),
    Command("covers", _covers, _Survey.covers, "table"),
    Command("maps", _maps, _Survey.query_maps, "table", overrides=_EXECUTORS),
    Command("layers", _layers, _Survey.list_layers, "table", (), more=_more_for_layers),
    Command("releases", run, _Survey.list_releases, "table", ()),
    Command("mirrors", run, _Survey.list_mirrors, "table"),
    Command("demo", _demo, demo.run, "", ()),
)
CACHE_COMMANDS = (
    Command("info", _info, settings=()),
    Command("verify", _verify, LegacySurveyClass.verify, "table"),
    Command("prune", _prune, settings=(), more=_more_for_prune),
    Command("clear", _clear, LegacySurveyClass.clear_cache, settings=()),
)
