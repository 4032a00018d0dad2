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
from .paths import COADD_PRODUCTS
from .releases import PIXEL_SCALE_ARCSEC, get_release, get_tree

__all__ = [
    "MAX_SIZE_PIX",
    "CutoutRequest",
    "angle_of_text",
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
    """One cutout of the bricks."""

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
    """Return ``value`` if it is one of ``allowed``."""
    allowed = tuple(allowed)
    if not isinstance(value, str) or value not in allowed:
        _refuse(parameter, value, f"is not one of: {', '.join(allowed)}.")
    return value


_SYMBOLS = {'"': "arcsec", "″": "arcsec", "'": "arcmin", "′": "arcmin", "°": "deg"}


def angle_of_text(value: object) -> object:
    """Return the Quantity of text such as ``'30 arcsec'`` or ``'2.5"'``, and all else as it is."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    text = text[:-1] + _SYMBOLS[text[-1]] if text[-1:] in _SYMBOLS else text
    try:
        return u.Quantity(text)
    except (TypeError, ValueError):
        return value


def as_size(size, *, parameter="size", pixel_scale_arcsec=PIXEL_SCALE_ARCSEC):
    """Return a size as whole pixels."""
    kinds = "must be an int number of pixels or an angle with a unit, one or (ny, nx)"
    size = angle_of_text(size)
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
    """Return a pixel scale in arcsec."""
    if pixel_scale is None:
        return native_arcsec
    value, pixel_scale = np.nan, angle_of_text(pixel_scale)
    if isinstance(pixel_scale, u.Quantity) and pixel_scale.isscalar:
        for unit in (u.arcsec, u.arcsec / u.pix):
            if pixel_scale.unit.is_equivalent(unit):
                value = float(pixel_scale.to_value(unit))
    if not 0 < value <= 3600:
        _refuse("pixel_scale", pixel_scale, "must be a positive angle, such as 1 * u.arcsec.")
    return native_arcsec if abs(value / native_arcsec - 1) < 1e-9 else value


def refuse_beside_layer(release, region):
    """Refuse what a layer of the viewer has of its own."""
    for name, value, default in (("release", release, None), ("region", region, "auto")):
        if value != default:
            _refuse(name, value, "cannot be given beside layer, which has its own.")


def as_rotation(rotation):
    """Return a rotation in degrees."""
    if rotation is None:
        return 0.0
    value, rotation = np.nan, angle_of_text(rotation)
    is_one = isinstance(rotation, u.Quantity) and rotation.isscalar
    if is_one and rotation.unit.is_equivalent(u.deg):
        value = float(rotation.to_value(u.deg))
    if not np.isfinite(value):
        _refuse("rotation", rotation, "must be an angle, such as 30 * u.deg.")
    return value % 360.0


def as_names(products):
    """Return names of products as a tuple without repeats, unknown ones too."""
    try:
        names = (products,) if isinstance(products, str) else tuple(dict.fromkeys(products))
    except TypeError:
        names = ()
    if not names:
        allowed = ", ".join(COADD_PRODUCTS)
        _refuse("products", products, f"names no product; allowed: {allowed}.")
    return names


def as_products(products, release, *, planes=False):
    """Return product names as a tuple without repeats."""
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
    """Return a region that the release has, or ``'auto'``."""
    if region != "auto":
        get_tree(release, region)
    return region


def as_bands(bands, release, region="auto"):
    """Return bands as a tuple without repeats, or `None`."""
    if bands is None:
        return None
    allowed = get_release(release).bands if region == "auto" else get_tree(release, region).bands
    return _checked_bands(bands, allowed, release + ("" if region == "auto" else f" {region}"))


def as_layer_bands(bands, allowed, layer):
    """Return bands of a layer of the viewer as a tuple without repeats, or `None`."""
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
