"""Words and tables become positions."""

import re

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.coordinates.name_resolve import NameResolveError

from ..client.targets import as_targets
from ..exceptions import InvalidRequestError, ServiceDownError
from .arguments import TARGET
from .exits import EXIT_OK, EXIT_PARTIAL
from .tables import read_table

__all__ = ["as_target", "place", "targets_of", "tell_unplaced"]

_SEXAGESIMAL = re.compile(r"[+-]?\d[\dhmsdeg.:+\-°′″'\" ]*")


def as_target(words):
    """Return the position that words mean.

    Parameters
    ----------
    words : sequence of str
        RA and Dec, or the name of an object, in one word or several.

    Returns
    -------
    `~astropy.coordinates.SkyCoord`
        ICRS.

    Raises
    ------
    InvalidRequestError
        If it is no position, or no service knows the name.
    ServiceDownError
        If no name service answers.
    """
    text = " ".join(" ".join(words).replace(",", " ").split())
    try:
        degrees = [float(part) for part in text.split()]
    except ValueError:
        degrees = []
    if len(degrees) == 2:
        return _checked(text, *degrees, unit="deg")
    if len(degrees) == 1 or not text:
        _refuse(text, f"is not {TARGET}")
    if _SEXAGESIMAL.fullmatch(text):
        return _checked(text, text, unit=(u.hourangle, u.deg))
    try:
        return SkyCoord.from_name(text).icrs
    except NameResolveError as error:
        if str(error).startswith("Unable to find coordinates"):
            _refuse(text, "is neither a position nor a name that the Sesame service knows")
        raise _silent(text, error) from error
    except OSError as error:
        raise _silent(text, error) from error


def _silent(text, error):
    msg = f"No name service could be asked for {text!r}: {error}"
    return ServiceDownError(msg, cause=error)


def _checked(text, *coordinates, unit):
    try:
        position = SkyCoord(*coordinates, unit=unit, frame="icrs")
    except (ValueError, TypeError, u.UnitsError) as error:
        _refuse(text, f"is not a position: {error}")
    if not position.isscalar:
        _refuse(text, "is more than one position")
    return position


def _refuse(text, must):
    msg = f"position {text!r} {must}."
    raise InvalidRequestError(msg, parameter="position", value=text)


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
    ra_deg, dec_deg = targets.ra_deg.copy(), targets.dec_deg.copy()
    bad = ~(np.isfinite(ra_deg) & np.isfinite(dec_deg) & (np.abs(dec_deg) <= 90))
    ra_deg[bad] = dec_deg[bad] = np.nan
    return table, ra_deg, dec_deg


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
