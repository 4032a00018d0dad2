"""The commands that tell what there is, and the demo."""

from .. import demo
from .arguments import add_command, add_table_output
from .exits import EXIT_NOTHING, EXIT_OK

__all__ = ["add_commands"]


def add_commands(commands):
    """Add the commands of this module.

    Parameters
    ----------
    commands : object
        What ``add_subparsers`` returned.
    """
    layers = add_command(
        commands, "layers", _layers, "list the viewer's layers and what each can serve"
    )
    layers.add_argument("text", nargs="?", metavar="TEXT", help="only those that have this in them")
    add_table_output(layers)
    releases = add_command(commands, "releases", _releases, "list the data releases")
    add_table_output(releases)
    mirrors = add_command(
        commands, "mirrors", _mirrors, "list the mirrors that are known, and those in use"
    )
    mirrors.add_argument(
        "--probe", action="store_true", help="ask each of them for a few bytes now"
    )
    add_table_output(mirrors)
    show = add_command(
        commands,
        "demo",
        _demo,
        "cut pictures out of the embedded sky and write a page of them",
        "Serves a simulated sky on this computer, cuts pictures out of its bricks and writes a "
        "page of them. Needs no network.",
    )
    show.add_argument(
        "-o",
        "--output-dir",
        default="astroquery-lis-demo",
        metavar="DIR",
        help="folder for the page (default: %(default)s)",
    )


def _layers(options, survey, console):
    table = survey.list_layers()
    if options.text is not None:
        wanted = options.text.lower()
        table = table[[any(wanted in str(cell).lower() for cell in row) for row in table]]
    console.table(table, options)
    return EXIT_OK if len(table) else EXIT_NOTHING


def _releases(options, survey, console):
    console.table(survey.list_releases(), options)


def _mirrors(options, survey, console):
    console.table(survey.list_mirrors(probe=options.probe), options)


def _demo(options, survey, console):
    page = demo.run(options.output_dir, say=lambda text: _say(text, console))
    console.put(path=str(page))


def _say(text, console):
    console.line(text)
    if not console.json:
        return
    console.note(text)
