"""Magnitudes, extinction and depths out of the catalogue's numbers.

Pure functions on arrays.  Fluxes are nanomaggies (AB, zero point 22.5) and may be plain arrays,
Quantities or masked columns; what has no value comes out as NaN.  `add_magnitudes` does the usual
on a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, cast, overload

import numpy as np
from astropy import units as u

from ..exceptions import InvalidRequestError, refuse

if TYPE_CHECKING:
    from astropy.table import Column, Table
    from numpy.typing import ArrayLike

Values: TypeAlias = "ArrayLike | u.Quantity | Column"
"""Numbers, with or without a unit or a mask."""

__all__ = [
    "EXTINCTION",
    "PS1_COLOUR_TERMS",
    "WISE_VEGA_TO_AB",
    "ab_magnitude",
    "add_magnitudes",
    "asinh_magnitude",
    "deredden",
    "limiting_magnitude",
    "ps1_to_survey",
    "transmission",
    "vega_to_ab",
    "wise_image_to_ab",
]

ZERO_POINT = 22.5
POGSON = 2.5 / np.log(10)

EXTINCTION = MappingProxyType(
    {
        "u": 3.995,
        "g": 3.214,
        "r": 2.165,
        "i": 1.592,
        "z": 1.211,
        "Y": 1.064,
        "w1": 0.184,
        "w2": 0.113,
        "w3": 0.0241,
        "w4": 0.00910,
    }
)
"""A / E(B-V) on the SFD98 scale (DR9 and DR10 catalogue pages), for BASS and MzLS too."""

WISE_VEGA_TO_AB = MappingProxyType({"w1": 2.699, "w2": 3.339, "w3": 5.174, "w4": 6.620})
"""AB minus Vega magnitude (DR9 and DR10 description pages).

Catalogue fluxes are AB already; coadded WISE images are Vega.
"""

PS1_COLOUR_TERMS = MappingProxyType(
    {
        ("decam", "g"): (0.00062, 0.03604, 0.01028, -0.00613),
        ("decam", "r"): (0.00495, -0.08435, 0.03222, -0.01140),
        ("decam", "i"): (0.00904, -0.04171, 0.00566, -0.00829),
        ("decam", "z"): (0.02583, -0.07690, 0.02824, -0.00898),
        ("decam", "Y"): (0.02332, -0.05992, 0.02840, -0.00572),
        ("90prime", "g"): (0.00464, 0.08672, -0.00668, -0.00255),
        ("90prime", "r"): (0.00110, -0.06875, 0.02480, -0.00855),
        ("mosaic", "z"): (0.03664, -0.11084, 0.04477, -0.01223),
    }
)
"""Survey minus Pan-STARRS1 magnitude as a cubic in g-i of PS1 (DR10 description page)."""

PS1_COLOUR_RANGE = (0.4, 2.7)
"""The g-i within which `PS1_COLOUR_TERMS` hold: main-sequence stars."""


def plain_numbers(values: Values, unit: u.UnitBase | None = None) -> np.ndarray:
    """Return floats without unit or mask; what is masked is NaN."""
    mask = getattr(values, "mask", None)
    own = getattr(values, "unit", None)
    numbers: Any = np.ma.getdata(getattr(values, "unmasked", values))
    if own is not None and unit is not None and own != u.dimensionless_unscaled:
        numbers = u.Quantity(numbers, own).to_value(unit)
    plain = np.array(np.ma.getdata(numbers), dtype=float)
    if mask is not None and np.any(mask):
        plain[np.asarray(mask)] = np.nan
    return plain


def _checked(parameter: str, value: str, allowed: Iterable[str]) -> str:
    if value not in allowed:
        refuse(parameter, value, f"is not one of: {', '.join(map(str, allowed))}.")
    return value


def _sigma(flux_ivar: Values) -> np.ndarray:
    ivar = plain_numbers(flux_ivar, u.nmgy**-2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(ivar > 0, 1 / np.sqrt(ivar), np.nan)


@overload
def ab_magnitude(flux: Values, flux_ivar: None = None) -> u.Quantity: ...
@overload
def ab_magnitude(flux: Values, flux_ivar: Values) -> tuple[u.Quantity, u.Quantity]: ...
def ab_magnitude(
    flux: Values, flux_ivar: Values | None = None
) -> u.Quantity | tuple[u.Quantity, u.Quantity]:
    """Return AB magnitudes, and their errors.

    Parameters
    ----------
    flux : array_like of float
        Nanomaggies.
    flux_ivar : array_like of float, optional
        Inverse variances.

    Returns
    -------
    magnitude : `~astropy.units.Quantity` ['mag']
        ``22.5 - 2.5 log10(flux)``, NaN where the flux is not positive (see `limiting_magnitude`).
    error : `~astropy.units.Quantity` ['mag']
        Only if ``flux_ivar`` was given: 2.5 / ln 10 times the relative error of the flux; NaN where
        there is no magnitude or the inverse variance is 0.

    Examples
    --------
    >>> from astroquery_lis import photometry
    >>> photometry.ab_magnitude(100.0)
    <Quantity 17.5 mag>
    """
    flux = plain_numbers(flux, u.nmgy)
    positive = np.where(flux > 0, flux, np.nan)
    magnitude = (ZERO_POINT - 2.5 * np.log10(positive)) * u.mag
    if flux_ivar is None:
        return magnitude
    return magnitude, POGSON * _sigma(flux_ivar) / positive * u.mag


def asinh_magnitude(
    flux: Values, flux_ivar: Values | None = None, *, softening: float | u.Quantity
) -> u.Quantity | tuple[u.Quantity, u.Quantity]:
    """Return asinh magnitudes, which exist for every flux, and their errors.

    Parameters
    ----------
    flux : array_like of float
        Nanomaggies.
    flux_ivar : array_like of float, optional
        Inverse variances.
    softening : float or `~astropy.units.Quantity`
        Flux, nanomaggies, about which the scale turns from logarithmic to linear; near the typical
        error of the fluxes.  It is Lupton's b times 10^9.

    Returns
    -------
    magnitude : `~astropy.units.Quantity` ['mag']
        Equal to AB for fluxes far above the softening.
    error : `~astropy.units.Quantity` ['mag']
        Only if ``flux_ivar`` was given.

    Raises
    ------
    InvalidRequestError
        If ``softening`` is not above 0.

    Notes
    -----
    Lupton, Gunn & Szalay 1999, AJ 118, 1406.

    Examples
    --------
    SDSS r has b = 1.2e-10, where a flux of 0 is 24.80 mag:

    >>> from astroquery_lis import photometry
    >>> round(float(photometry.asinh_magnitude(0.0, softening=0.12).value), 2)
    24.8
    """
    soft = float(plain_numbers(softening, u.nmgy))
    if not soft > 0:
        refuse("softening", softening, "must be a flux above 0, in nanomaggies.")
    flux = plain_numbers(flux, u.nmgy)
    magnitude = ZERO_POINT - POGSON * (np.arcsinh(flux / (2 * soft)) + np.log(soft))
    if flux_ivar is None:
        return magnitude * u.mag
    error = POGSON * _sigma(flux_ivar) / np.sqrt(flux**2 + 4 * soft**2)
    return magnitude * u.mag, error * u.mag


def limiting_magnitude(
    flux_ivar: Values, n_sigma: float = 5.0, *, flux: Values | None = None
) -> u.Quantity:
    """Return the magnitude of a flux of so many sigma: a depth, or an upper limit.

    Parameters
    ----------
    flux_ivar : array_like of float
        Inverse variances: ``psfdepth_*`` or ``galdepth_*`` for depths, ``flux_ivar_*`` for limits
        of single sources.
    n_sigma : float, optional
        How many sigma.
    flux : array_like of float, optional
        What was measured; positive fluxes are added to the limit.

    Returns
    -------
    `~astropy.units.Quantity` ['mag']
        AB; NaN where the inverse variance is 0.

    Examples
    --------
    >>> from astroquery_lis import photometry
    >>> photometry.limiting_magnitude(2500.0)
    <Quantity 25. mag>
    """
    limit = n_sigma * _sigma(flux_ivar)
    if flux is not None:
        limit = limit + np.maximum(plain_numbers(flux, u.nmgy), 0)
    return ab_magnitude(limit)


def transmission(ebv: Values, band: str) -> np.ndarray:
    """Return the part of the light that the Galaxy lets through.

    Parameters
    ----------
    ebv : array_like of float
        E(B-V), SFD98 scale.
    band : str
        A key of `EXTINCTION`.

    Returns
    -------
    `~numpy.ndarray` of float
        What the catalogue has as ``mw_transmission_*``.

    Examples
    --------
    >>> from astroquery_lis import photometry
    >>> print(round(float(photometry.transmission(0.05, 'r')), 3))
    0.905
    """
    coefficient = EXTINCTION[_checked("band", band, EXTINCTION)]
    return 10 ** (-0.4 * coefficient * plain_numbers(ebv, u.mag))


def deredden(
    flux: Values,
    mw_transmission: Values | None = None,
    *,
    ebv: Values | None = None,
    band: str | None = None,
) -> u.Quantity:
    """Return fluxes as they were outside the Galaxy.

    Parameters
    ----------
    flux : array_like of float
        Nanomaggies.
    mw_transmission : array_like of float, optional
        The catalogue's column; or give the two others.
    ebv : array_like of float, optional
        E(B-V).
    band : str, optional
        The band of ``flux``.

    Returns
    -------
    `~astropy.units.Quantity` [nmgy]
        To get inverse variances right, multiply them by the transmission squared.

    Raises
    ------
    InvalidRequestError
        If neither the transmission nor E(B-V) is given, or both are.

    Examples
    --------
    >>> from astroquery_lis import photometry
    >>> print(photometry.deredden([90.0], [0.9]))
    [100.] nmgy
    """
    if (mw_transmission is None) == (ebv is None):
        msg = "Give either mw_transmission= or both ebv= and band=."
        raise InvalidRequestError(msg, parameter="mw_transmission", value=mw_transmission)
    if mw_transmission is None:
        mw_transmission = transmission(cast("Values", ebv), band or "")
    through = plain_numbers(mw_transmission)
    return plain_numbers(flux, u.nmgy) / np.where(through > 0, through, np.nan) * u.nmgy


def vega_to_ab(magnitude: Values, band: str) -> u.Quantity:
    """Return AB magnitudes from WISE's Vega magnitudes.

    Parameters
    ----------
    magnitude : array_like of float
        Vega.
    band : str
        ``'w1'`` to ``'w4'``.

    Returns
    -------
    `~astropy.units.Quantity` ['mag']

    Examples
    --------
    >>> from astroquery_lis import photometry
    >>> print(photometry.vega_to_ab([15.0], 'w1'))
    [17.699] mag
    """
    offset = WISE_VEGA_TO_AB[_checked("band", band, WISE_VEGA_TO_AB)]
    return (plain_numbers(magnitude, u.mag) + offset) * u.mag


def wise_image_to_ab(values: Values, band: str) -> np.ndarray:
    """Return AB nanomaggies from the Vega nanomaggies of the coadded WISE images.

    Parameters
    ----------
    values : array_like of float
        Pixels.  Catalogue fluxes are AB already.
    band : str
        ``'w1'`` to ``'w4'``.

    Returns
    -------
    `~numpy.ndarray` of float

    Examples
    --------
    >>> import numpy as np
    >>> from astroquery_lis import photometry
    >>> photometry.wise_image_to_ab(np.array([1.0]), 'w1').round(4)
    array([0.0833])
    """
    offset = WISE_VEGA_TO_AB[_checked("band", band, WISE_VEGA_TO_AB)]
    return plain_numbers(values, u.nmgy) * 10 ** (-offset / 2.5)


def ps1_to_survey(
    magnitude: Values, g_minus_i: Values, band: str, camera: str = "decam"
) -> u.Quantity:
    """Return the magnitudes that stars of Pan-STARRS1 have in the survey's own filters.

    Parameters
    ----------
    magnitude : array_like of float
        PS1 magnitudes in ``band``.
    g_minus_i : array_like of float
        PS1 colours.
    band : str
        ``'g'``, ``'r'``, ``'i'``, ``'z'`` or ``'Y'``, as far as the camera has it.
    camera : {'decam', '90prime', 'mosaic'}
        Whose filters: DECaLS, BASS or MzLS.

    Returns
    -------
    `~astropy.units.Quantity` ['mag']
        NaN where g-i is not between 0.4 and 2.7, the range of the fit.

    Examples
    --------
    >>> from astroquery_lis import photometry
    >>> print(photometry.ps1_to_survey([18.0], [1.0], 'r'))
    [17.94142] mag
    """
    allowed = [f"{c} {b}" for c, b in PS1_COLOUR_TERMS]
    _checked("camera and band", f"{camera} {band}", allowed)
    colour = plain_numbers(g_minus_i, u.mag)
    low, high = PS1_COLOUR_RANGE
    colour = np.where((colour > low) & (colour < high), colour, np.nan)
    shift = np.polynomial.polynomial.polyval(colour, PS1_COLOUR_TERMS[camera, band])
    return (plain_numbers(magnitude, u.mag) + shift) * u.mag


def add_magnitudes(
    table: Table,
    bands: Sequence[str] | None = None,
    *,
    dereddened: bool = False,
    softening: float | None = None,
) -> Table:
    """Return a copy of a catalogue table with magnitudes.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Has ``flux_<band>``, perhaps ``flux_ivar_<band>``, and ``mw_transmission_<band>`` for
        dereddened magnitudes.
    bands : sequence of str, optional
        By default every one with a flux.
    dereddened : bool, optional
        Whether to correct for the Galaxy's extinction; the columns are ``dered_mag_*`` then.
    softening : float, optional
        Take asinh magnitudes with this softening, nanomaggies.

    Returns
    -------
    `~astropy.table.Table`
        With ``mag_<band>`` and, where there is an inverse variance, ``mag_err_<band>``.

    Raises
    ------
    InvalidRequestError
        If a column that it takes is not in the table.

    Examples
    --------
    >>> from astropy.table import Table
    >>> from astroquery_lis import photometry
    >>> rows = Table({'flux_r': [100.0], 'flux_ivar_r': [4.0]})
    >>> photometry.add_magnitudes(rows).colnames
    ['flux_r', 'flux_ivar_r', 'mag_r', 'mag_err_r']
    """
    result = table.copy()
    if bands is None:
        candidates = [n.removeprefix("flux_") for n in table.colnames if n.startswith("flux_")]
        bands = [band for band in candidates if not band.startswith("ivar_")]
    prefix = "dered_mag" if dereddened else "mag"
    measure: Callable = ab_magnitude
    if softening is not None:
        measure = partial(asinh_magnitude, softening=softening)
    for band in bands:
        flux, ivar = _fluxes(table, band, dereddened)
        if ivar is None:
            result[f"{prefix}_{band}"] = measure(flux)
        else:
            result[f"{prefix}_{band}"], result[f"mag_err_{band}"] = measure(flux, ivar)
    return result


def _fluxes(table: Table, band: str, dereddened: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the fluxes of a band in nanomaggies, and their inverse variances if there are any."""
    flux = _numbers(table, band, "flux", u.nmgy)
    ivar = None
    if f"flux_ivar_{band}" in table.colnames:
        ivar = _numbers(table, band, "flux_ivar", u.nmgy**-2)
    if dereddened:
        through = _numbers(table, band, "mw_transmission", None)
        flux = deredden(flux, through).value
        ivar = None if ivar is None else ivar * through**2
    return flux, ivar


def _numbers(table: Table, band: str, family: str, unit: u.UnitBase | None) -> np.ndarray:
    """Return the numbers of a family's column of a band."""
    name = f"{family}_{band}"
    if name not in table.colnames:
        msg = f"bands has {band!r}, but the table has no column {name}."
        raise InvalidRequestError(msg, parameter="bands", value=band)
    return plain_numbers(table[name], unit)
