"""Words and tables become positions."""

import re

import numpy as np

from ..client.inputs import as_coordinates, as_targets
from ..exceptions import InvalidRequestError
from .exits import EXIT_OK, EXIT_PARTIAL
from .tables import read_table

__all__ = ["as_target", "place", "targets_of", "tell_unplaced"]

_SEXAGESIMAL = re.compile(r"[+-]?\d[\dhmsdeg.:+\-°′″'\" ]*")


def as_target(words):
    """Return the position that words mean together."""
    return as_coordinates(" ".join(words))


def targets_of(options):
    """Return the table that was given, and its positions; or the one position.

    Parameters
    ----------
    options : `~argparse.Namespace`
        With ``target``, ``table`` and ``input_format``.

    Returns
    -------
    table : `~astropy.table.Table` or None
        What was read.
    ra_deg, dec_deg : `~numpy.ndarray` of float
        ICRS; NaN where a row has no position.
    """
    if bool(options.target) == bool(options.table):
        msg = "Give a position, or a table of positions with --table; not both."
        raise InvalidRequestError(msg, parameter="target", value=options.target)
    if options.table is None:
        position = as_target(options.target)
        return None, np.array([position.ra.deg]), np.array([position.dec.deg])
    table = read_table(options.table, options.input_format)
    targets = as_targets(table)
    return table, targets.ra_deg, targets.dec_deg


def tell_unplaced(unplaced, console):
    """Warn of rows without a position, and return the exit code.

    Parameters
    ----------
    unplaced : `~numpy.ndarray` of bool
        Which rows have none.
    console : `~.console.Console`
        Is told.

    Returns
    -------
    int
    """
    if not unplaced.any():
        return EXIT_OK
    console.warn(f"{unplaced.sum()} of {len(unplaced)} rows have no position on the sky.")
    return EXIT_PARTIAL


def place(position):
    """Return a position as a part of a file's name.

    Parameters
    ----------
    position : `~astropy.coordinates.SkyCoord`
        ICRS.

    Returns
    -------
    str
        ``'190.10860+1.20050'``.
    """
    return f"{position.ra.deg:.5f}{position.dec.deg:+.5f}"
