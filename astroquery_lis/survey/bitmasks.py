"""Names and numbers of the mask bits, per release.

Numbers from the releases' bitmask pages and legacypipe ``bits.py``; the i band bits came with DR10
and are not next to those of g, r and z.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from ..exceptions import refuse
from .releases import get_release, listed

__all__ = ["ALLMASK_BITS", "FITBITS", "WISEMASK_BITS", "decode_mask", "maskbits", "maskbits_value"]


def _counted(names: str) -> Mapping[str, int]:
    """Return the bits of names that are counted from 0."""
    return MappingProxyType({name: bit for bit, name in enumerate(names.split())})


# Each release has those of the one before, and some more.
_MASKBITS = _counted(
    """
    NPRIMARY BRIGHT SATUR_G SATUR_R SATUR_Z ALLMASK_G ALLMASK_R ALLMASK_Z WISEM1 WISEM2 BAILOUT
    MEDIUM GALAXY CLUSTER
    SATUR_I ALLMASK_I SUB_BLOB
    RESOLVED MCLOUDS WISE_GAIA
    """
)
_LAST_MASKBIT = {7: "BAILOUT", 8: "CLUSTER", 9: "CLUSTER", 10: "SUB_BLOB", 11: "WISE_GAIA"}
NPRIMARY = 1 << _MASKBITS["NPRIMARY"]

FITBITS = _counted(
    """
    FORCED_POINTSOURCE FIT_BACKGROUND HIT_RADIUS_LIMIT HIT_SERSIC_LIMIT FROZEN BRIGHT MEDIUM GAIA
    TYCHO2 LARGEGALAXY WALKER RUNNER GAIA_POINTSOURCE ITERATIVE
    """
)
"""Bits of the catalogue column ``fitbits`` (DR9 on)."""

ALLMASK_BITS = MappingProxyType(
    {
        "BADPIX": 0,
        "SATUR": 1,
        "INTERP": 2,
        "CR": 4,
        "BLEED": 6,
        "TRANS": 7,
        "EDGE": 8,
        "EDGE2": 9,
        "OUTLIER": 11,
    }
)
"""Bits of the catalogue columns ``allmask_*`` and ``anymask_*``."""

WISEMASK_BITS = _counted("BRIGHT SPIKE GHOST LATENT LATENT2 HALO SATUR SPIKE2")
"""Bits of the WISE mask planes and of ``wisemask_w1`` and ``wisemask_w2``."""


def maskbits(release: str) -> Mapping[str, int]:
    """Return the MASKBITS of a release as a mapping of name to bit number.

    Parameters
    ----------
    release : str
        A release from ``'dr7'``, the first with a mask, on.

    Returns
    -------
    mapping of str to int

    Raises
    ------
    InvalidRequestError
        If there is no such release or it has no maskbits.

    Examples
    --------
    >>> from astroquery_lis.survey.bitmasks import maskbits
    >>> maskbits('dr10')['SATUR_I']
    14
    """
    number = get_release(release).number
    if number not in _LAST_MASKBIT:
        refuse("release", release, "has no maskbits; they came with dr7.")
    last = _MASKBITS[_LAST_MASKBIT[number]]
    return MappingProxyType({name: bit for name, bit in _MASKBITS.items() if bit <= last})


def maskbits_value(names: str | Iterable[str], release: str) -> int:
    """Return the integer that has the named MASKBITS set.

    Parameters
    ----------
    names : iterable of str
        Bit names in any case.
    release : str
        The release that the mask belongs to.

    Returns
    -------
    int

    Raises
    ------
    InvalidRequestError
        If a name is not a bit of that release.

    Examples
    --------
    >>> from astroquery_lis.survey.bitmasks import maskbits_value
    >>> maskbits_value(['BRIGHT', 'SATUR_R'], 'dr10')
    10
    """
    bits = maskbits(release)
    value = 0
    for name in listed(names) or [str(names)]:
        if str(name).upper() not in bits:
            refuse("maskbits", name, f"is not a bit of {release}; allowed: {', '.join(bits)}.")
        value |= 1 << bits[str(name).upper()]
    return value


def decode_mask(mask: ArrayLike, bits: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Tell, for each named bit, where it is set.

    Parameters
    ----------
    mask : array_like of int
        Mask values, any shape.
    bits : mapping of str to int
        For example ``maskbits('dr10')`` or `FITBITS`.

    Returns
    -------
    dict of str to `~numpy.ndarray` of bool
        Arrays of the shape of ``mask``.

    Examples
    --------
    >>> from astroquery_lis.survey.bitmasks import decode_mask, maskbits
    >>> decode_mask([0, 2], maskbits('dr10'))['BRIGHT'].tolist()
    [False, True]
    """
    values = np.asarray(mask)
    return {name: (values >> bit) & 1 == 1 for name, bit in bits.items()}
