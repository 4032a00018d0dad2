"""The planes of a cutout, from its headers: which there are, and how large their pixels."""

import re

import numpy as np
from astropy.wcs import WCS

from ..exceptions import InvalidRequestError
from ..survey.releases import PIXEL_SCALE_ARCSEC, RELEASES
from ..survey.request import as_choice

__all__ = [
    "FLUX_PRODUCTS",
    "flux_planes",
    "mask_release",
    "pixel_side_arcsec",
    "side_arcsec",
    "sky_matrix",
]

FLUX_PRODUCTS = ("image", "model", "blobmodel", "resid")
_OPTICAL = ("u", "g", "r", "i", "z", "Y")
_BLUE_TO_RED = ("n", "f", "u", "g", "r", "i", "z", "Y", "W1", "1", "W2", "2", "W3", "W4")


def flux_planes(hdul, bands=None, product=None):
    """Return the HDUs of a cutout's bands."""
    by_product = {}
    for hdu in hdul:
        name, _, band = hdu.name.rpartition("_")
        if name.lower() in FLUX_PRODUCTS and hdu.is_image and len(hdu.shape) == 2:
            band = str(hdu.header.get("BAND", band)).strip()
            by_product.setdefault(name.lower(), {})[band] = hdu
    if product is not None:
        as_choice("product", product, FLUX_PRODUCTS)
    present = [name for name in FLUX_PRODUCTS if name in by_product]
    chosen = present[0] if product is None and present else product
    if chosen not in by_product:
        told = f"product={product!r}: the" if product is not None else "The"
        msg = f"{told} cutout has {', '.join(hdu.name for hdu in hdul)}."
        raise InvalidRequestError(msg, parameter="product", value=product)
    found = by_product[chosen]
    if bands is None:
        names = [band for band in found if band in _OPTICAL] or list(found)
        # A band that has no value at all would only grey the others.
        names = [band for band in names if np.isfinite(found[band].data).any()] or names
    else:
        names = _names(bands, found)
    unknown = [band for band in names if band not in found]
    if unknown or not names:
        msg = f"bands={bands!r}: the cutout has {chosen} in {', '.join(found)}."
        raise InvalidRequestError(msg, parameter="bands", value=bands)
    names = sorted(dict.fromkeys(names), key=_colour_order)
    if len({found[band].data.shape for band in names}) > 1:
        msg = f"bands={bands!r} are not on one pixel grid."
        raise InvalidRequestError(msg, parameter="bands", value=bands)
    return {band: found[band] for band in names}


def _names(bands, found):
    """Return bands as a list; a string is one band, or letters, or W1 to W4."""
    if not isinstance(bands, str):
        return list(bands)
    return [bands] if bands in found else re.findall(r"W[1-4]|\w", bands)


def _colour_order(band):
    return _BLUE_TO_RED.index(band) if band in _BLUE_TO_RED else len(_BLUE_TO_RED)


def sky_matrix(header):
    """Return how the pixels of an image lie on the sky."""
    wcs = WCS(header, naxis=2)
    if not wcs.has_celestial:
        return np.diag([-PIXEL_SCALE_ARCSEC, PIXEL_SCALE_ARCSEC]) / 3600
    return np.asarray(wcs.pixel_scale_matrix)


def pixel_side_arcsec(header):
    """Return the side of an image's pixel in arcsec, from its WCS."""
    return side_arcsec(sky_matrix(header))


def side_arcsec(matrix):
    """Return the side of a pixel in arcsec, from the matrix of `sky_matrix`."""
    return float(np.sqrt(abs(np.linalg.det(matrix)))) * 3600


def mask_release(hdul):
    """Return the release whose bit numbers hold for the mask of a cutout."""
    release = str(hdul[0].header.get("RELEASE", ""))
    # The viewer sends masks for layers of no release too; numbers were added, never changed.
    has_bits = release in RELEASES and "maskbits" in RELEASES[release].products
    return release if has_bits else "dr10"
