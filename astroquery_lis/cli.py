"""The command ``astroquery-lis``."""

import argparse
import sys

from . import demo
from .exceptions import LegacySurveyError

__all__ = ["main"]

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def _parser():
    parser = argparse.ArgumentParser(
        prog="astroquery-lis", description="Client of the DESI Legacy Imaging Surveys."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    show = commands.add_parser(
        "demo",
        help="cut pictures out of the embedded sky and write a page of them",
        description="Serves a simulated sky on this computer, cuts pictures out of its bricks "
        "and writes a page of them. Needs no network.",
    )
    show.add_argument(
        "-o",
        "--output-dir",
        default="astroquery-lis-demo",
        metavar="DIR",
        help="folder for the page (default: %(default)s)",
    )
    show.set_defaults(run=lambda options: demo.run(options.output_dir, say=_say))
    return parser


def _say(text):
    print(text, flush=True)


def main(arguments=None):
    """Run the command and return its exit code.

    Parameters
    ----------
    arguments : list of str, optional
        The words after the command's name; by default those of this process.

    Returns
    -------
    int
        0 if all went well, 1 if the work failed; wrong words exit with 2.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (LegacySurveyError, OSError) as error:
        print(f"astroquery-lis: {error}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
