"""Checks of the parameters of corrections: a message says what was given and what is allowed."""

import math
import os

from ...exceptions import InvalidRequestError

__all__ = ["choice", "flag", "number", "path_of", "paths_of", "refuse", "whole"]


def refuse(name, key, value, allowed):
    """Raise the error of a wrong parameter.

    Parameters
    ----------
    name, key : str
        Correction and parameter.
    value : object
        What was given.
    allowed : str
        What it must be.

    Raises
    ------
    InvalidRequestError
    """
    msg = f"{name}: {key}={value!r} must be {allowed}."
    raise InvalidRequestError(msg, parameter=key, value=value)


def number(name, key, value, *, low=-math.inf, high=math.inf):
    """Return a finite number within bounds, as float.

    Parameters
    ----------
    name, key : str
        Correction and parameter.
    value : object
        What was given.
    low, high : float, optional
        Bounds, themselves allowed.

    Returns
    -------
    float
    """
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or not low <= value <= high:
        refuse(name, key, value, f"a number from {low:g} to {high:g}")
    return float(value)


def whole(name, key, value, *, low=0, high=10000):
    """Return a whole number within bounds.

    Parameters
    ----------
    name, key : str
        Correction and parameter.
    value : object
        What was given.
    low, high : int, optional
        Bounds, themselves allowed.

    Returns
    -------
    int
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        refuse(name, key, value, f"a whole number from {low} to {high}")
    return value


def choice(name, key, value, allowed):
    """Return a word out of some.

    Parameters
    ----------
    name, key : str
        Correction and parameter.
    value : object
        What was given.
    allowed : sequence of str
        The words.

    Returns
    -------
    str
    """
    if value not in allowed:
        refuse(name, key, value, f"one of {', '.join(map(repr, allowed))}")
    return value


def flag(name, key, value):
    """Return a boolean.

    Parameters
    ----------
    name, key : str
        Correction and parameter.
    value : object
        What was given.

    Returns
    -------
    bool
    """
    if not isinstance(value, bool):
        refuse(name, key, value, "True or False")
    return value


def paths_of(name, key, value):
    """Return files by the exposures that they are for, with absolute paths.

    Parameters
    ----------
    name, key : str
        Correction and parameter.
    value : str or dict of str to str
        One file for all, or files by words such as 'NRCA3' or 'NRCA3/F200W'.

    Returns
    -------
    str or dict of str to str
    """
    if isinstance(value, dict):
        if not value or not all(isinstance(path, str) for path in value.values()):
            refuse(name, key, value, "a file, or files by detector: {'NRCA3': 'a3.fits'}")
        return {words.upper(): _existing(name, key, path) for words, path in value.items()}
    if not isinstance(value, str):
        refuse(name, key, value, "a file, or files by detector: {'NRCA3': 'a3.fits'}")
    return _existing(name, key, value)


def path_of(paths, instrument):
    """Return the file for an exposure: the one named by most words.

    Parameters
    ----------
    paths : str or dict of str to str
        As `paths_of` returns them.
    instrument : object
        Of a data model: ``name``, ``channel``, ``detector``, ``filter`` and ``pupil``.

    Returns
    -------
    str or None
        `None` if there is none for it.
    """
    if isinstance(paths, str):
        return paths
    names = ("name", "channel", "detector", "filter", "pupil")
    words = {str(getattr(instrument, name, None) or "") for name in names}
    right = [entry for entry in paths if set(entry.split("/")) <= words]
    return paths[max(right, key=lambda entry: entry.count("/"))] if right else None


def _existing(name, key, path):
    path = os.path.abspath(os.path.expanduser(path))
    if not os.path.isfile(path):
        refuse(name, key, path, "a file that exists")
    return path
