"""What the catalogue's columns, numbers and units mean, whichever source they come from."""

import difflib
from functools import cache

import numpy as np
from astropy import units as u

from ..exceptions import InvalidRequestError
from .bricks import is_north
from .releases import RELEASES, get_release, get_tree
from .tractor_columns import tractor_columns

__all__ = [
    "TYPES",
    "any_column",
    "core_columns",
    "has_column",
    "parse_unit",
    "region_of_rows",
    "resolve_columns",
    "row_ids",
    "split_row_ids",
    "tap_table",
]

TYPES = {
    "PSF": "point source",
    "REX": "round exponential galaxy",
    "EXP": "exponential galaxy",
    "DEV": "de Vaucouleurs galaxy",
    "SER": "Sersic galaxy (DR9 on)",
    "COMP": "exponential and de Vaucouleurs galaxy (to DR8)",
    "SIMP": "exponential galaxy of 0.45 arcsec (to DR4)",
    "DUP": "Gaia source that was fitted as part of an extended one; it has no optical flux",
}
"""Values of ``type``."""

# Numbers of the column RELEASE whose files are those of the north; every other one is the south.
_NORTH_NUMBERS = (8001, 9011)
_SOUTH_NUMBERS = (8000, 9010, 9012, 10000, 10001, 10002)

_UNIT_SPELLINGS = {
    "nanomaggy": "nmgy",
    "nanomaggies": "nmgy",
    "nanomaggie": "nmgy",
    "magnitudes": "mag",
    "magnitude": "mag",
    "degrees": "deg",
    "pixels": "pix",
    "pixel": "pix",
    "days": "day",
    "sec": "s",
    "years": "yr",
}


def parse_unit(text):
    """Return the astropy unit that a unit as the survey writes it means.

    Parameters
    ----------
    text : str or None
        For example ``'nanomaggies^(-2)'`` or ``'1/(mas/yr)^2'``; DR5 to DR11 spell them in many
        ways.

    Returns
    -------
    `~astropy.units.Unit` or None
        `None` for no unit, or for one that means nothing to astropy.

    Examples
    --------
    >>> from astroquery_lis.survey.tractor import parse_unit
    >>> parse_unit('nanomaggies^(-2)')
    Unit("1 / nmgy2")
    """
    text = (text or "").strip()
    if not text:
        return None
    outer = 1
    if text.startswith("1/"):
        outer, text = -1, text[2:]
    base, _, power = text.rpartition("^") if "^" in text else (text, "", "1")
    if "**" in text:
        base, _, power = text.rpartition("**")
    base = base.strip().removeprefix("(").removesuffix(")")
    try:
        exponent = int(power.strip().strip("()"))
        unit = u.dimensionless_unscaled
        for place, name in enumerate(base.split("/")):
            name = name.strip()
            if not name:
                return None
            known = u.Unit(_UNIT_SPELLINGS.get(name.lower(), name))
            unit = unit * known if place == 0 else unit / known
    except (ValueError, TypeError):
        return None
    return unit ** (outer * exponent)


def has_column(column, release, region):
    """Tell whether the files of a region have a column.

    Parameters
    ----------
    column : `~astroquery_lis.survey.tractor_columns.TractorColumn`
        One of the release's.
    release, region : str
        For example ``'dr10'`` and ``'north'``, whose files are those of DR9.

    Returns
    -------
    bool

    Examples
    --------
    >>> from astroquery_lis.survey.tractor import any_column, has_column
    >>> has_column(any_column('flux_i', 'dr10'), 'dr10', 'north')
    False
    """
    tree = get_tree(release, region)
    optical = column.band is not None and not column.band.startswith("w")
    if optical and column.band not in tree.bands:
        return False
    return column.name in tractor_columns(tree.release)


@cache
def core_columns(release, region="auto"):
    """Return the columns that every source has: what ``columns=None`` stands for.

    Parameters
    ----------
    release, region : str
        For ``'auto'``, those that either region has.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> from astroquery_lis.survey.tractor import core_columns
    >>> 'flux_r' in core_columns('dr10'), 'flux_i' in core_columns('dr9')
    (True, False)
    """
    return tuple(
        name
        for name, column in tractor_columns(release).items()
        if column.in_tap and (region == "auto" or has_column(column, release, region))
    )


@cache
def _everything():
    """Return every column of any release, by name."""
    known = {}
    for release in RELEASES:
        known.update(tractor_columns(release))
    return known


def resolve_columns(columns, release, region="auto"):
    """Return the names of columns that a user's choice means.

    Parameters
    ----------
    columns : str, sequence of str, or None
        Names, and families such as ``'flux'`` for all its bands; `None` for the core.
    release, region : str
        What the families are those of.

    Returns
    -------
    tuple of str
        Without repeats, in the order given.  A column that only another release has stays in.

    Raises
    ------
    InvalidRequestError
        If no release has such a column; the message names similar ones.

    Examples
    --------
    >>> from astroquery_lis.survey.tractor import resolve_columns
    >>> resolve_columns(['ra', 'psfsize'], 'dr9')
    ('ra', 'psfsize_g', 'psfsize_r', 'psfsize_z')
    """
    if columns is None:
        return core_columns(release, region)
    schema = tractor_columns(release)
    everything = _everything()
    if isinstance(columns, str):
        columns = columns.replace(",", " ").split()
    try:
        columns = list(columns)
    except TypeError:
        columns = []
    if not columns:
        msg = "columns names no column; leave it out for the core schema, or take 'all'."
        raise InvalidRequestError(msg, parameter="columns", value=columns)
    names = []
    for given in columns:
        name = given.lower() if isinstance(given, str) else given
        if name in everything:
            names.append(name)
            continue
        family = [
            c.name
            for c in schema.values()
            if c.family == name and (region == "auto" or has_column(c, release, region))
        ]
        if not family:
            families = {c.family for c in everything.values()}
            near = difflib.get_close_matches(str(name), [*everything, *families], 4)
            hint = f"; did you mean {', '.join(near)}?" if near else ";"
            msg = f"columns={given!r} is no column or family of columns{hint} See list_columns()."
            raise InvalidRequestError(msg, parameter="columns", value=given)
        names += family
    return tuple(dict.fromkeys(names))


def any_column(name, release):
    """Return a column by name, from another release if this one has it not.

    Parameters
    ----------
    name : str
        The column.
    release : str
        Asked first.

    Returns
    -------
    `~astroquery_lis.survey.tractor_columns.TractorColumn` or None

    Examples
    --------
    >>> from astroquery_lis.survey.tractor import any_column
    >>> any_column('flux_i', 'dr9').name
    'flux_i'
    """
    return tractor_columns(release).get(name) or _everything().get(name)


def _packing(release):
    """Return by how many bits RELEASE and BRICKID are shifted in the row id of a release."""
    return (42, 22) if get_release(release).number >= 11 else (40, 16)


def row_ids(number, brickid, objid, release):
    """Return the unique id of catalogue rows, ``ls_id``.

    Parameters
    ----------
    number, brickid, objid : array_like of int
        The columns ``release``, ``brickid`` and ``objid``.
    release : str
        Its packing is taken: ``release << 40 | brickid << 16 | objid`` up to DR10 (Astro Data
        Lab), ``release << 42 | brickid << 22 | objid`` from DR11 on (legacypipe).

    Returns
    -------
    `~numpy.ndarray` of int64

    Examples
    --------
    >>> from astroquery_lis.survey.tractor import row_ids
    >>> row_ids([10000], [338328], [12], 'dr10').tolist()
    [10995138450423820]
    """
    high, low = _packing(release)
    number, brickid, objid = (np.asarray(v, dtype=np.int64) for v in (number, brickid, objid))
    return (number << high) | (brickid << low) | objid


def split_row_ids(ls_id, release):
    """Return what `row_ids` put together.

    Parameters
    ----------
    ls_id : array_like of int
        Row ids.
    release : str
        The release that they belong to.

    Returns
    -------
    number, brickid, objid : `~numpy.ndarray` of int64

    Examples
    --------
    >>> from astroquery_lis.survey.tractor import row_ids, split_row_ids
    >>> [int(part[0]) for part in split_row_ids(row_ids([10000], [338328], [12], 'dr10'), 'dr10')]
    [10000, 338328, 12]
    """
    high, low = _packing(release)
    ls_id = np.asarray(ls_id, dtype=np.int64)
    return ls_id >> high, (ls_id >> low) & ((1 << (high - low)) - 1), ls_id & ((1 << low) - 1)


def region_of_rows(number, ra_deg, dec_deg, release, region="auto"):
    """Return which rows are of the north.

    Parameters
    ----------
    number : array_like of int
        Their column ``release``, which tells up to DR10.
    ra_deg, dec_deg : array_like of float
        Their positions, which tell for other numbers.
    release, region : str
        What was asked.

    Returns
    -------
    `~numpy.ndarray` of bool

    Examples
    --------
    >>> from astroquery_lis.survey.tractor import region_of_rows
    >>> region_of_rows([9011, 10000], [180.0, 45.0], [40.0, 0.0], 'dr10').tolist()
    [True, False]
    """
    number = np.asarray(number)
    if region != "auto":
        return np.full(number.shape, region == "north")
    regions = get_release(release).regions
    if len(regions) == 1:
        return np.full(number.shape, regions[0] == "north")
    north = np.isin(number, _NORTH_NUMBERS)
    unknown = ~north & ~np.isin(number, _SOUTH_NUMBERS)
    if unknown.any():
        north[unknown] = is_north(np.asarray(ra_deg)[unknown], np.asarray(dec_deg)[unknown])
    return north


def tap_table(release, region="auto"):
    """Return the name of Astro Data Lab's table of a release.

    Parameters
    ----------
    release, region : str
        What was asked; for ``'auto'`` the table in which north and south are resolved.

    Returns
    -------
    str or None
        `None` for releases that it does not serve so.

    Examples
    --------
    >>> from astroquery_lis.survey.tractor import tap_table
    >>> tap_table('dr10')
    'ls_dr10.tractor'
    """
    if get_release(release).number < 8:
        return None
    if region == "auto":
        return f"ls_{release}.tractor"
    return f"ls_{get_tree(release, region).release}.tractor_{region[0]}"
