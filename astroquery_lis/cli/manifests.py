"""What became of each row of a long job: a summary to read, and the whole table for machines."""

from collections import Counter

from .exits import of_statuses

__all__ = ["add_manifest", "show_manifest"]


def add_manifest(parser):
    """Add the options of a command that returns a manifest.

    Parameters
    ----------
    parser : `~.arguments.Parser`
        Of the command.
    """
    parser.add_argument(
        "--manifest",
        dest="output",
        metavar="FILE",
        help="write what became of each row to this file, in the format of its name; - for "
        "standard output",
    )
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        help="ecsv, csv, fits, parquet, votable or text: of the manifest",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the manifest if there is one"
    )


def show_manifest(
    table, options, console, *, summary=False, noun="files", statuses=of_statuses
):
    """Show or write a manifest, and return the exit code.

    Parameters
    ----------
    table : `~astropy.table.Table`
        With ``Status``, ``Message`` and ``Local Path``.
    options : `~argparse.Namespace`
        With those of `add_manifest`.
    console : `~.console.Console`
        Shows it.
    summary : bool, optional
        Whether the numbers are told on stderr; a job that logs has done so.
    noun : str, optional
        What the rows are.
    statuses : callable, optional
        Makes the exit code of the statuses.

    Returns
    -------
    int
    """
    counts = Counter(str(status) for status in table["Status"])
    console.put(counts=dict(sorted(counts.items())))
    told = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    lines = [_line(row) for row in table]
    console.table(table, options, lines=lines)
    if summary:
        console.note(f"{len(table)} {noun}: {told or 'there are none'}")
    return statuses(counts)


def _line(row):
    """Return the line that tells of one row: the file, or why there is none."""
    message = " ".join(str(row["Message"]).split())
    path = str(row["Local Path"])
    # What was not made has no path; a task has a name all the same.
    name = path or (f"{row['task']}:" if "task" in row.colnames else "")
    return " ".join([f"{row['Status']:<9s}", name, *([message] if not path else [])]).rstrip()
