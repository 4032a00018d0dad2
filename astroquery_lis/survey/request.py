"""What the user asked, checked and brought to one form.

A request is frozen and hashable, and knows no mirror: the same question has the same key wherever
the answer comes from.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from numbers import Integral

import numpy as np
from astropy import units as u

from ..exceptions import InvalidRequestError
from .layout import COADD_PRODUCTS, get_tree
from .releases import PIXEL_SCALE_ARCSEC, get_release

__all__ = [
    "MAX_SIZE_PIX",
    "CutoutRequest",
    "as_bands",
    "as_choice",
    "as_layer_bands",
    "as_names",
    "as_pixel_scale",
    "as_products",
    "as_region",
    "as_rotation",
    "as_size",
    "refuse_beside_layer",
]

MAX_SIZE_PIX = 10_000
"""Largest width or height of a cutout, pixels: 0.73 degrees at the survey's scale."""


@dataclass(frozen=True)
class CutoutRequest:
    """One cutout of the bricks.

    Attributes
    ----------
    ra_deg, dec_deg : float
        Target, ICRS.
    ny, nx : int
        Size in pixels.
    products : tuple of str
        Names of `~.layout.COADD_PRODUCTS`.
    bands : tuple of str or None
        `None` for those that the target's brick has.
    release : str
        Release name.
    region : str
        ``'auto'``, ``'north'`` or ``'south'``.
    wcs : str
        Grid of the result as FITS cards (`~.sky_grid.as_wcs_text`); empty for the bricks' own.
    """

    ra_deg: float
    dec_deg: float
    ny: int
    nx: int
    products: tuple
    bands: tuple | None
    release: str
    region: str
    wcs: str = ""

    @property
    def key(self):
        """Sha256 of the request in canonical form, hexadecimal."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _refuse(parameter, value, must):
    msg = f"{parameter}={value!r} {must}"
    raise InvalidRequestError(msg, parameter=parameter, value=value)


def as_choice(parameter, value, allowed):
    """Return ``value`` if it is one of ``allowed``.

    Parameters
    ----------
    parameter : str
        Name of the argument.
    value : str
        What was given.
    allowed : iterable of str
        What may be given.

    Returns
    -------
    str

    Raises
    ------
    InvalidRequestError
    """
    allowed = tuple(allowed)
    if not isinstance(value, str) or value not in allowed:
        _refuse(parameter, value, f"is not one of: {', '.join(allowed)}.")
    return value


def as_size(size, *, parameter="size", pixel_scale_arcsec=PIXEL_SCALE_ARCSEC):
    """Return a size as whole pixels.

    Parameters
    ----------
    size : int or `~astropy.units.Quantity` ['angle' or pixel], scalar or (2,) in (ny, nx)
        A bare number is pixels and must be an int.
    parameter : str, optional
        Name of the argument, for messages.
    pixel_scale_arcsec : float, optional
        What an angle is divided by; the result is rounded to whole pixels.

    Returns
    -------
    ny, nx : int

    Raises
    ------
    InvalidRequestError
        If it is not such a size, or not from 1 to `MAX_SIZE_PIX` pixels.

    Examples
    --------
    >>> from astropy import units as u
    >>> from astroquery_lis.survey.request import as_size
    >>> as_size((1, 2) * u.arcmin)
    (229, 458)
    """
    kinds = "must be an int number of pixels or an angle Quantity, one or (ny, nx)"
    if isinstance(size, u.Quantity):
        if size.unit.is_equivalent(u.pix):
            values = size.to_value(u.pix)
            if not np.array_equal(values, np.rint(values)):
                _refuse(parameter, size, "must be whole pixels.")
        elif size.unit.is_equivalent(u.arcsec):
            values = size.to_value(u.arcsec) / pixel_scale_arcsec
        else:
            _refuse(parameter, size, f"has unit {size.unit}; it {kinds}.")
        values = np.atleast_1d(values).ravel().tolist()
    elif isinstance(size, Integral) and not isinstance(size, bool):
        values = [int(size)]
    elif isinstance(size, (tuple, list, np.ndarray)) and len(size) in (1, 2):
        return tuple(
            as_size(item, parameter=parameter, pixel_scale_arcsec=pixel_scale_arcsec)[0]
            for item in (size if len(size) == 2 else [size[0]] * 2)
        )
    else:
        _refuse(parameter, size, f"{kinds}; a bare number is never an angle.")
    if len(values) not in (1, 2) or not np.isfinite(values).all():
        _refuse(parameter, size, f"{kinds}, and finite.")
    if not all(0 < value <= MAX_SIZE_PIX + 0.5 for value in values):
        limit = MAX_SIZE_PIX * pixel_scale_arcsec / 60
        must = f"must be from 1 to {MAX_SIZE_PIX} pixels ({limit:.1f} arcmin) each way"
        must += "; take a coarser pixel_scale, or several cutouts, for more."
        _refuse(parameter, size, must)
    ny, nx = (max(round(value), 1) for value in (values * 2)[:2])
    return ny, nx


def as_pixel_scale(pixel_scale, *, native_arcsec=PIXEL_SCALE_ARCSEC):
    """Return a pixel scale in arcsec.

    Parameters
    ----------
    pixel_scale : `~astropy.units.Quantity` ['angle', or angle per pixel] or None
        `None` for the native one.
    native_arcsec : float, optional
        The native pixel scale.

    Returns
    -------
    float

    Raises
    ------
    InvalidRequestError
        If it is not a positive angle of a degree at most.
    """
    if pixel_scale is None:
        return native_arcsec
    value = np.nan
    if isinstance(pixel_scale, u.Quantity) and pixel_scale.isscalar:
        for unit in (u.arcsec, u.arcsec / u.pix):
            if pixel_scale.unit.is_equivalent(unit):
                value = float(pixel_scale.to_value(unit))
    if not 0 < value <= 3600:
        _refuse("pixel_scale", pixel_scale, "must be a positive angle, such as 1 * u.arcsec.")
    return native_arcsec if abs(value / native_arcsec - 1) < 1e-9 else value


def refuse_beside_layer(release, region):
    """Refuse what a layer of the viewer has of its own.

    Parameters
    ----------
    release : str or None
        Must be `None`.
    region : str
        Must be ``'auto'``.

    Raises
    ------
    InvalidRequestError
    """
    for name, value, default in (("release", release, None), ("region", region, "auto")):
        if value != default:
            _refuse(name, value, "cannot be given beside layer, which has its own.")


def as_rotation(rotation):
    """Return a rotation in degrees.

    Parameters
    ----------
    rotation : `~astropy.units.Quantity` ['angle'] or None
        `None` for none.

    Returns
    -------
    float
        0 to 360.

    Raises
    ------
    InvalidRequestError
        If it is not a finite angle.
    """
    if rotation is None:
        return 0.0
    value = np.nan
    is_one = isinstance(rotation, u.Quantity) and rotation.isscalar
    if is_one and rotation.unit.is_equivalent(u.deg):
        value = float(rotation.to_value(u.deg))
    if not np.isfinite(value):
        _refuse("rotation", rotation, "must be an angle, such as 30 * u.deg.")
    return value % 360.0


def as_names(products):
    """Return names of products as a tuple without repeats, unknown ones too.

    Parameters
    ----------
    products : str or iterable of str
        The names.

    Returns
    -------
    tuple of str

    Raises
    ------
    InvalidRequestError
        If there is none.
    """
    try:
        names = (products,) if isinstance(products, str) else tuple(dict.fromkeys(products))
    except TypeError:
        names = ()
    if not names:
        allowed = ", ".join(COADD_PRODUCTS)
        _refuse("products", products, f"names no product; allowed: {allowed}.")
    return names


def as_products(products, release, *, planes=False):
    """Return product names as a tuple without repeats.

    Parameters
    ----------
    products : str or iterable of str
        Names of `~.layout.COADD_PRODUCTS`.
    release : str
        Release that must have them.
    planes : bool, optional
        Whether mask planes (`~.layout.MASK_PLANES`) are taken too.

    Returns
    -------
    tuple of str

    Raises
    ------
    InvalidRequestError
    """
    found = get_release(release)
    allowed = (*found.products, *found.mask_planes) if planes else found.products
    try:
        names = (products,) if isinstance(products, str) else tuple(dict.fromkeys(products))
    except TypeError:
        names = ()
    if not names:
        _refuse("products", products, f"names no product; allowed: {', '.join(allowed)}.")
    for name in names:
        if name in allowed:
            continue
        reason = f"is not in {release}" if name in COADD_PRODUCTS else "is not a product"
        _refuse("products", name, f"{reason}; allowed: {', '.join(allowed)}.")
    return names


def as_region(region, release):
    """Return a region that the release has, or ``'auto'``.

    Parameters
    ----------
    region : str
        ``'auto'``, ``'north'`` or ``'south'``.
    release : str
        Release name.

    Returns
    -------
    str

    Raises
    ------
    InvalidRequestError
    """
    if region != "auto":
        get_tree(release, region)
    return region


def as_bands(bands, release, region="auto"):
    """Return bands as a tuple without repeats, or `None`.

    Parameters
    ----------
    bands : str, iterable of str, or None
        ``'grz'``, ``'g,r,z'`` or ``['g', 'r', 'z']``, in the order wanted; `None` stays.
    release, region : str
        What must have them; for ``'auto'``, either region.

    Returns
    -------
    tuple of str or None

    Raises
    ------
    InvalidRequestError
    """
    if bands is None:
        return None
    allowed = get_release(release).bands if region == "auto" else get_tree(release, region).bands
    return _checked_bands(bands, allowed, release + ("" if region == "auto" else f" {region}"))


def as_layer_bands(bands, allowed, layer):
    """Return bands of a layer of the viewer as a tuple without repeats, or `None`.

    Parameters
    ----------
    bands : str, iterable of str, or None
        As for `as_bands`.
    allowed : tuple of str
        What the layer has; empty if that is not known.
    layer : str
        Its name.

    Returns
    -------
    tuple of str or None

    Raises
    ------
    InvalidRequestError
    """
    return None if bands is None else _checked_bands(bands, allowed, f"layer {layer}")


def _checked_bands(bands, allowed, whose):
    hint = f"bands of {whose} are: {', '.join(allowed) or 'not known'}."
    if isinstance(bands, str):
        names = bands.replace(",", " ").split()
        whole = len(names) != 1 or names[0] in allowed
        names = names if whole else list(names[0])
    else:
        try:
            names = list(bands)
        except TypeError:
            names = []
    if not names:
        _refuse("bands", bands, f"names no band; {hint}")
    for name in names:
        if not isinstance(name, str) or (allowed and name not in allowed):
            _refuse("bands", bands, f"has {name!r}; {hint}")
    return tuple(dict.fromkeys(names))
