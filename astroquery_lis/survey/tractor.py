"""What the catalogue's columns, numbers and units mean, whichever source they come from."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from astropy import units as u

from .releases import get_release

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["TYPES", "parse_unit", "row_ids", "split_row_ids"]

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


def parse_unit(text: str | None) -> u.UnitBase | None:
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


@cache
def _packing(release: str) -> tuple[int, int]:
    """Return by how many bits RELEASE and BRICKID are shifted in the row id of a release."""
    return (42, 22) if get_release(release).number >= 11 else (40, 16)


def row_ids(
    number: ArrayLike, brickid: ArrayLike, objid: ArrayLike, release: str
) -> np.ndarray:
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


def split_row_ids(
    ls_id: ArrayLike, release: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
