"""What the exit code of the command says, and which error means which."""

from ..exceptions import CrdsUnavailable, InvalidRequestError, NoCoverageError, TransferError

__all__ = [
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_NOTHING",
    "EXIT_OK",
    "EXIT_PARTIAL",
    "EXIT_PIPE",
    "EXIT_TRANSFER",
    "EXIT_USAGE",
    "HELP",
    "of_error",
    "of_statuses",
]

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOTHING = 3
EXIT_TRANSFER = 4
EXIT_PARTIAL = 5
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141

HELP = """\
exit codes:
  0  all went well
  1  another failure: a disk is full, a package is missing
  2  the words or the input are wrong; nothing was sent
  3  the survey has no data there
  4  a service is down, a transfer failed, or reference files cannot be had
  5  some rows failed
"""

DONE = frozenset({"COMPLETE", "CACHED", "NODATA"})


def of_error(error):
    """Return the exit code of an error.

    Parameters
    ----------
    error : Exception
        Any.

    Returns
    -------
    int
    """
    kinds = (
        (TransferError, EXIT_TRANSFER),
        (CrdsUnavailable, EXIT_TRANSFER),
        (InvalidRequestError, EXIT_USAGE),
        (NoCoverageError, EXIT_NOTHING),
    )
    return next((code for kind, code in kinds if isinstance(error, kind)), EXIT_FAILED)


def of_statuses(statuses):
    """Return the exit code of a long job.

    Parameters
    ----------
    statuses : iterable of str
        Of the rows, as in a manifest.

    Returns
    -------
    int
        A row without data is no failure, unless there is none with data.
    """
    found = set(statuses)
    if not found - DONE:
        return EXIT_NOTHING if found == {"NODATA"} else EXIT_OK
    return EXIT_PARTIAL if found & DONE else EXIT_TRANSFER
