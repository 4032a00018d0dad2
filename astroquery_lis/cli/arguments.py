"""Words of the command line become values: sizes, angles, lists; options that commands share."""

import argparse
import re

from astropy import units as u

from ..survey.releases import REGIONS, RELEASES
from .exits import EXIT_USAGE, HELP

__all__ = [
    "TARGET",
    "Parser",
    "add_command",
    "add_data_options",
    "add_output",
    "add_table_input",
    "add_table_output",
    "add_target",
    "angle",
    "condition",
    "duration",
    "names",
    "protected",
    "size",
    "sources",
]

_MINUS_NUMBER = re.compile(r"-\s*\.?\d")
_SYMBOLS = {'"': "arcsec", "″": "arcsec", "'": "arcmin", "′": "arcmin", "°": "deg"}
TARGET = "RA and Dec in degrees or sexagesimal (ICRS), or the name of an object"


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Shows a position that is several words as one thing."""

    def _format_args(self, action, default_metavar):
        if "|" in (action.metavar or ""):
            return f"[{action.metavar}]" if action.nargs == "*" else action.metavar
        return super()._format_args(action, default_metavar)


class Parser(argparse.ArgumentParser):
    """A parser whose errors begin like every other message of the command."""

    def __init__(self, **kwargs):
        super().__init__(formatter_class=_Formatter, allow_abbrev=False, **kwargs)

    def error(self, message):
        """Tell what is wrong with the words, and exit."""
        self.exit(EXIT_USAGE, f"{self.format_usage()}astroquery-lis: {message}\n")


def protected(words):
    """Return words of which those that begin like a negative number are taken for options by none.

    Parameters
    ----------
    words : iterable of str
        As the shell gave them.

    Returns
    -------
    list of str
        With a space before ``-1.2`` and ``-01:12:00``: no option begins with a digit.
    """
    return [f" {word}" if _MINUS_NUMBER.match(word) else word for word in words]


# ---- values -------------------------------------------------------------------------------------


def _quantity(text, like, example):
    text = text.strip()
    text = text[:-1] + _SYMBOLS[text[-1]] if text[-1:] in _SYMBOLS else text
    try:
        found = u.Quantity(text)
    except (TypeError, ValueError):
        found = None
    if found is None or not found.unit.is_equivalent(like):
        msg = f"{text!r} is not of the kind {example}"
        raise argparse.ArgumentTypeError(msg)
    return found


def angle(text):
    """Return an angle such as ``10arcsec``, ``'5 arcmin'``, ``30"`` or ``0.1deg``."""
    return _quantity(text, u.deg, "10arcsec, 2arcmin or 0.1deg; a unit is due")


def duration(text):
    """Return a time such as ``30d`` or ``12h``."""
    return _quantity(text, u.s, "30d, 12h or 2week; a unit is due")


def size(text):
    """Return a size: pixels, an angle, or two of one kind as ``NY,NX``."""
    parts = text.split(",")
    if len(parts) > 2:
        msg = f"{text!r} is neither one size nor NY,NX"
        raise argparse.ArgumentTypeError(msg)
    whole = [part.strip().lstrip("+-").isdigit() for part in parts]
    if all(whole):
        sizes = [int(part) for part in parts]
    else:
        example = "256 (pixels), 2arcmin, or NY,NX; an angle has a unit"
        sizes = [_quantity(part, u.deg, example) for part in parts]
    return sizes[0] if len(sizes) == 1 else tuple(sizes)


def names(text):
    """Return the names of a list such as ``image,invvar``."""
    return tuple(text.replace(",", " ").split())


def sources(text):
    """Return one source, or several in order."""
    found = names(text)
    return found[0] if len(found) == 1 else found


def condition(text):
    """Return (column, condition) of a text such as ``flux_r>10`` or ``type=PSF,REX``."""
    match = re.fullmatch(r"\s*(\w+)\s*([<>=!].*)", text, re.DOTALL)
    if match is None or not match[2].strip("<>=! "):
        msg = f"{text!r} is not of the kind 'flux_r>10', 'flux_r=10..20' or 'type=PSF,REX'"
        raise argparse.ArgumentTypeError(msg)
    column, wanted = match[1], match[2].strip()
    if wanted[0] != "=" or wanted.startswith("=="):
        return column, wanted
    wanted = wanted[1:].strip()
    return column, (list(names(wanted)) if "," in wanted else wanted)


# ---- options that commands share ----------------------------------------------------------------


def add_command(commands, name, run, summary, description=None):
    """Add a command with the options that all have, and return its parser.

    Parameters
    ----------
    commands : object
        What ``add_subparsers`` returned.
    name : str
        The command.
    run : callable
        Takes the options, the survey and the console, and returns the exit code or `None`.
    summary : str
        One line, without a full stop.
    description : str, optional
        More than that.
    """
    text = f"{summary[0].upper()}{summary[1:]}.{' ' + description if description else ''}"
    parser = commands.add_parser(name, help=summary, description=_wrapped(text), epilog=HELP)
    common = parser.add_argument_group("common options")
    common.add_argument(
        "--json", action="store_true", help="print one JSON document, for errors too"
    )
    common.add_argument(
        "-q", "--quiet", action="store_true", help="no warnings, notes or progress on stderr"
    )
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=run, command=name)
    return parser


def _wrapped(text, width=88):
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


def add_target(parser, *, table=False):
    """Add the position, and the table of positions that may stand in for it."""
    if not table:
        parser.add_argument("target", nargs="+", metavar="RA DEC|NAME", help=TARGET)
        return
    parser.add_argument("target", nargs="*", metavar="RA DEC|NAME", help=TARGET)
    parser.add_argument(
        "--table",
        metavar="FILE",
        help="a table of positions in place of one; - for standard input",
    )
    add_table_input(parser)


def add_table_input(parser):
    """Add the option that names the format of the table that is read."""
    parser.add_argument(
        "--input-format",
        metavar="FORMAT",
        help="ecsv, csv, fits, parquet, votable or text; by default told from name and content",
    )


def add_data_options(parser, *words, cache=True, mirror=True):
    """Add options of the data: ``release`` and ``region`` always, and those that are named."""
    if "bands" in words:
        parser.add_argument("--bands", metavar="BANDS", help="for example grz; by default all")
    if "products" in words:
        parser.add_argument(
            "--products",
            type=names,
            default=("image",),
            metavar="LIST",
            help="for example image,invvar,maskbits (default: image)",
        )
    parser.add_argument(
        "--release",
        metavar="NAME",
        help=f"one of {', '.join(RELEASES)}; by default that of the configuration",
    )
    if "region" in words:
        parser.add_argument(
            "--region",
            default="auto",
            choices=("auto", *REGIONS),
            help="auto is the official one at each position (default: %(default)s)",
        )
    if mirror:
        parser.add_argument(
            "--mirror",
            action="append",
            metavar="WHERE",
            help="a registered name, a URL or a directory; may be given several times, in order",
        )
    if "on-missing" in words:
        parser.add_argument(
            "--on-missing",
            default="raise",
            choices=("raise", "warn"),
            help="whether named data that the survey lacks there is an error "
            "(default: %(default)s)",
        )
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="wait so long for an answer"
    )
    if cache:
        parser.add_argument(
            "--no-cache", action="store_true", help="neither use nor keep files on disk"
        )


def add_output(parser, what):
    """Add the options of a command that writes one file."""
    parser.add_argument("-o", "--output", metavar="FILE", help=f"{what}; - for standard output")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if there is one")


def add_table_output(parser):
    """Add the options of a command that returns a table."""
    add_output(parser, "write the table to this file, in the format of its name")
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        help="ecsv, csv, fits, parquet, votable or text, in place of what the name says; "
        "without -o on standard output",
    )
