"""The command ``cutouts``: boxes round many targets."""

from .arguments import add_command, add_data_options, add_table_input, size
from .manifests import add_manifest, show_manifest
from .tables import read_table

__all__ = ["add_commands"]


def add_commands(commands):
    """Add the commands of this module.

    Parameters
    ----------
    commands : object
        What ``add_subparsers`` returned.
    """
    many = add_command(
        commands,
        "cutouts",
        _cutouts,
        "cut a box round each target of a table",
        "The folder keeps a journal: the same command again does what is left. Prints a line for "
        "each target.",
    )
    many.add_argument(
        "table",
        metavar="TABLE",
        help="a file with columns ra and dec, or lines of RA and Dec; - for standard input",
    )
    add_table_input(many)
    many.add_argument(
        "--size",
        type=size,
        default=256,
        metavar="SIZE",
        help="pixels or an angle such as 2arcmin, or NY,NX (default: %(default)s)",
    )
    add_data_options(many, "bands", "products", "region", "on-missing")
    many.add_argument(
        "-d",
        "--output-dir",
        required=True,
        metavar="DIR",
        help="folder for the cutouts",
    )
    many.add_argument(
        "--id-column", metavar="NAME", help="column whose values name the files (default: id)"
    )
    many.add_argument(
        "--kind",
        default="fits",
        choices=("fits", "hdf5"),
        help="a file for each target, or arrays of many (default: %(default)s)",
    )
    many.add_argument(
        "--executor",
        default="threads",
        choices=("threads", "processes"),
        help="what does the work (default: %(default)s)",
    )
    many.add_argument(
        "--stop-on-error", action="store_true", help="end at the first target that fails"
    )
    add_manifest(many)


def _cutouts(options, survey, console):
    table = read_table(options.table, options.input_format)
    manifest = survey.download_cutouts(
        table,
        options.size,
        download_dir=options.output_dir,
        bands=options.bands,
        products=options.products,
        release=options.release,
        region=options.region,
        mirror=options.mirror,
        on_missing=options.on_missing,
        cache=False if options.no_cache else None,
        id_column=options.id_column,
        output=options.kind,
        executor=options.executor,
        on_error="raise" if options.stop_on_error else "record",
        show_progress=console.progress,
    )
    return show_manifest(manifest, options, console)
