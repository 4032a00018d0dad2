"""The commands for bricks and whole files: ``bricks``, ``files``, ``cache``."""

import argparse
import time

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

from .._conf import conf
from ..exceptions import InvalidRequestError
from ..io.upkeep import prune
from ..survey.bricks import brick_center, brick_edges, brick_id, name_of
from ..survey.overlap import bricks_in_circle
from .arguments import (
    add_command,
    add_data_options,
    add_table_input,
    add_table_output,
    add_target,
    angle,
    duration,
    names,
)
from .exits import EXIT_OK, EXIT_PARTIAL
from .images import show_payload
from .manifests import add_manifest, show_manifest
from .positions import as_target, targets_of, tell_unplaced
from .tables import read_table

__all__ = ["add_commands"]

GOOD = frozenset({"GOOD", "UNLISTED", "REPAIRED", "REMOVED"})


def add_commands(commands):
    """Add the commands of this module.

    Parameters
    ----------
    commands : object
        What ``add_subparsers`` returned.
    """
    bricks = add_command(
        commands,
        "bricks",
        _bricks,
        "tell the bricks at or around positions",
        "With a table and no radius, one row for each of its rows; else each brick once. Uses no "
        "network, but for names.",
    )
    add_target(bricks, table=True)
    bricks.add_argument(
        "--radius", type=angle, metavar="ANGLE", help="all bricks that a circle touches"
    )
    add_table_output(bricks)

    files = add_command(
        commands,
        "files",
        _files,
        "fetch files of the survey, whole",
        "A file appears when it is whole and was checked; the same command again fetches what is "
        "missing. Prints a line for each file.",
    )
    files.add_argument(
        "what",
        nargs="*",
        metavar="BRICK|RA DEC|NAME",
        help="names of bricks or of sweep files, or a position, or the name of an object",
    )
    files.add_argument(
        "--table",
        metavar="FILE",
        help="a table with brickname, or with ra and dec; - for standard input",
    )
    add_table_input(files)
    files.add_argument(
        "--radius", type=angle, metavar="ANGLE", help="all bricks that a circle touches"
    )
    files.add_argument("--bands", metavar="BANDS", help="for example grz or g,W1")
    files.add_argument(
        "--products",
        type=names,
        default=("image",),
        metavar="LIST",
        help="for example image,maskbits,tractor (default: image); --list-products tells all",
    )
    files.add_argument(
        "--list-products", action="store_true", help="print the products that can be fetched"
    )
    add_data_options(files, "region", cache=False)
    files.add_argument(
        "-d",
        "--output-dir",
        metavar="DIR",
        help="folder for the files, laid out like the survey; by default the cache",
    )
    files.add_argument(
        "--verify",
        default="warn",
        choices=("warn", "strict", "no"),
        help="what a sha256 means that is not the one in the survey's list (default: %(default)s)",
    )
    files.add_argument(
        "--refresh", action="store_true", help="ask if files that are here were replaced"
    )
    files.add_argument(
        "--dry-run", action="store_true", help="print the addresses, and fetch nothing"
    )
    add_manifest(files)
    _add_cache(commands)


def _add_cache(commands):
    cache = commands.add_parser(
        "cache",
        help="look after the files that were kept",
        description="Look after the files that were kept.",
    )
    actions = cache.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_command(actions, "info", _info, "tell where the cache is and what it holds")
    check = add_command(
        actions,
        "verify",
        _verify,
        "audit the files of the cache, or of a folder laid out like the survey",
        "Exits with 5 if a file is bad.",
    )
    check.add_argument("tree", nargs="?", metavar="DIR", help="a folder in place of the cache")
    check.add_argument("--repair", action="store_true", help="fetch bad files again")
    check.add_argument(
        "--mirror", action="append", metavar="WHERE", help="where to fetch from; may be repeated"
    )
    add_table_output(check)
    less = add_command(
        actions, "prune", _prune, "remove what was used longest ago until the cache is small enough"
    )
    less.add_argument(
        "--limit",
        type=_gigabytes,
        metavar="GB",
        help="size to keep within (default: that of the configuration, 50)",
    )
    clear = add_command(actions, "clear", _clear, "remove everything from the cache, or a part")
    clear.add_argument(
        "--older-than",
        type=duration,
        metavar="TIME",
        help="only what was not used for so long, such as 30d",
    )
    clear.add_argument("--release", metavar="NAME", help="only files of this release")
    for name, action in actions.choices.items():
        action.set_defaults(command=f"cache {name}")


def _gigabytes(text):
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 <= value < np.inf:
        msg = f"{text!r} is not a number of GB"
        raise argparse.ArgumentTypeError(msg)
    return value


# ---- bricks and files ---------------------------------------------------------------------------


def _bricks(options, survey, console):
    _, ra_deg, dec_deg = targets_of(options)
    placed = np.isfinite(ra_deg)
    if options.radius is None:
        ids = np.zeros(len(ra_deg), int)
        ids[placed] = brick_id(ra_deg[placed], dec_deg[placed])
    else:
        radius_deg = options.radius.to_value(u.deg)
        if not 0 <= radius_deg <= 180:
            msg = f"--radius {options.radius} must be from 0 to 180 degrees."
            raise InvalidRequestError(msg, parameter="radius", value=options.radius)
        circles = zip(ra_deg[placed], dec_deg[placed], strict=True)
        found = [bricks_in_circle(*place, radius_deg) for place in circles]
        ids = np.unique(np.concatenate(found)) if found else np.array([], int)
    console.table(_bricks_table(ids), options)
    return tell_unplaced(~placed, console)


def _bricks_table(ids):
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


def _files(options, survey, console):
    if options.list_products:
        return console.table(survey.list_file_products(release=options.release), options)
    if options.what and options.table:
        msg = "Give bricks or a position, or a table with --table; not both."
        raise InvalidRequestError(msg, parameter="what", value=options.what)
    what = None
    if options.table:
        what = read_table(options.table, options.input_format)
    elif options.what:
        what = _bricks_or_position(options.what)
    answer = survey.get_brick_files(
        what,
        radius=options.radius,
        products=options.products,
        bands=options.bands,
        release=options.release,
        region=options.region,
        download_dir=options.output_dir,
        mirror=options.mirror,
        verify=False if options.verify == "no" else options.verify,
        refresh=options.refresh,
        show_progress=console.progress,
        get_query_payload=options.dry_run,
    )
    if options.dry_run:
        return show_payload(answer, console)
    return show_manifest(answer, options, console)


def _bricks_or_position(words):
    words = [part for word in words for part in word.replace(",", " ").split()]
    if all(_is_file_name(word) for word in words):
        return words
    return SkyCoord([as_target(words)])


def _is_file_name(word):
    brick = len(word) == 8 and word[4] in "pm" and (word[:4] + word[5:]).isdigit()
    return brick or word.startswith("sweep-")


# ---- the cache ----------------------------------------------------------------------------------


def _info(options, survey, console):
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


def _verify(options, survey, console):
    table = survey.verify(
        options.tree,
        repair=options.repair,
        mirror=options.mirror,
        show_progress=console.progress,
    )
    return show_manifest(
        table,
        options,
        console,
        summary=True,
        statuses=lambda found: EXIT_PARTIAL if set(found) - GOOD else EXIT_OK,
    )


def _prune(options, survey, console):
    before = survey.cache_info()
    limit_bytes = before["limit_bytes"] if options.limit is None else options.limit * 1e9
    if options.limit is None and not conf.cache_size:
        left = before["bytes"]
    else:
        left = prune(survey.cache_location, limit_bytes, keep_since_s=time.time())
    _tell_removed(before["bytes"], left, console)


def _clear(options, survey, console):
    before = survey.cache_info()["bytes"]
    survey.clear_cache(older_than=options.older_than, release=options.release)
    _tell_removed(before, survey.cache_info()["bytes"], console)


def _tell_removed(before, left, console):
    console.put(removed_bytes=int(before - left), bytes=int(left))
    console.line(f"removed {(before - left) / 1e6:.1f} MB, {left / 1e6:.1f} MB are left")
