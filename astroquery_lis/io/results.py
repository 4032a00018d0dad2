"""What became of each row of a long job, and the table that tells it."""

import pickle
from dataclasses import dataclass, field, fields

import numpy as np
from astropy.table import Table

from ..exceptions import LegacySurveyError

__all__ = ["FINAL", "STATUSES", "Result", "failure", "manifest", "portable"]

STATUSES = ("COMPLETE", "CACHED", "SKIPPED", "NODATA", "ERROR")
"""What can become of a row: the words of MAST's manifest, and NODATA."""

FINAL = frozenset(STATUSES) - {"ERROR"}
"""Those that a later run of the same job leaves alone."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one row.

    Attributes
    ----------
    row : int
        Number of the row in what the user gave, from 0.
    status : str
        One of `STATUSES`.
    local_path : str
        The file, empty if there is none.
    message : str
        Why, if it is not COMPLETE, and what else the user should know.
    url : str
        Where it came from.
    id : int or str
        The user's name for the row; its number if there is none.
    release, region, bands : str
        What was taken.
    seconds : float
        How long it took.
    bytes : int
        Size of the file.
    sha256 : str
        Digest of the file.
    error : Exception or None
        The error behind the status ERROR; not kept in the journal.
    """

    row: int
    status: str
    local_path: str = ""
    message: str = ""
    url: str = ""
    id: object = ""
    release: str = ""
    region: str = ""
    bands: str = ""
    seconds: float = 0.0
    bytes: int = 0
    sha256: str = ""
    error: Exception | None = field(default=None, compare=False)


RECORDED = tuple(f.name for f in fields(Result) if f.name != "error")
"""The attributes that are kept."""

_COLUMNS = {
    "local_path": "Local Path",
    "status": "Status",
    "message": "Message",
    "url": "URL",
    **{name: name for name in ("id", "release", "region", "bands", "seconds", "bytes", "sha256")},
}
_TYPES = {"seconds": float, "bytes": np.int64}


def failure(row, error, **known):
    """Return the `Result` of a row that failed.

    Parameters
    ----------
    row : int
        Its number.
    error : Exception
        Why.
    **known
        Other attributes of the result.

    Returns
    -------
    Result
        With a message that names the kind of error, and an error that can be pickled.
    """
    kind = type(error).__name__
    return Result(row, "ERROR", message=f"{kind}: {error}", error=portable(error), **known)


def portable(error):
    """Return the error, or one that says the same and survives the way between processes.

    Parameters
    ----------
    error : Exception
        Any.

    Returns
    -------
    Exception
    """
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        copy = LegacySurveyError(str(error))
        if isinstance(error, LegacySurveyError):
            # Only the error behind it, from another package, may refuse to be pickled.
            copy = type(error)(*error.args)
            copy.__dict__.update({**error.__dict__, "cause": None})
        return copy
    return error


def manifest(results):
    """Return the table of what became of each row.

    Parameters
    ----------
    results : iterable of Result
        In any order.  Of several for a row, the last counts.

    Returns
    -------
    `~astropy.table.Table`
        One row per row of the job, in order: ``Local Path``, ``Status``, ``Message``, ``URL``,
        ``id``, ``release``, ``region``, ``bands``, ``seconds``, ``bytes``, ``sha256``.
    """
    last = {result.row: result for result in results}
    ordered = [last[row] for row in sorted(last)]
    table = Table()
    for name, heading in _COLUMNS.items():
        values = [getattr(result, name) for result in ordered]
        dtype = _TYPES.get(name, None if name == "id" and values else str)
        table[heading] = np.array(values, dtype)
    return table
