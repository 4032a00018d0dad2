"""Products that are made of others: residuals, signal to noise, sigma."""

import numpy as np
from astropy.io import fits

from ..survey.releases import get_release

__all__ = ["DERIVED", "derive", "expand"]

DERIVED = {
    "resid": ("image", "model"),
    "snr": ("image", "invvar"),
    "sigma": ("invvar",),
}
"""What each is made of: image - model, image sqrt(invvar), 1 / sqrt(invvar)."""

_UNITS = {"resid": "nanomaggy", "snr": "", "sigma": "nanomaggy"}
_TEXTS = {"resid": "image - model", "snr": "image * sqrt(invvar)", "sigma": "1 / sqrt(invvar)"}


def expand(products, release):
    """Tell which files the products need."""
    names = (products,) if isinstance(products, str) else products
    wanted = []
    for name in names:
        if name == "all":
            found = get_release(release)
            every = [*found.products, *found.mask_planes]
            every.insert(every.index("model") + 1, "resid")
            wanted += every
        else:
            wanted.append(name)
    wanted = tuple(dict.fromkeys(wanted))
    base = []
    for name in wanted:
        base += DERIVED.get(name, (name,)) if isinstance(name, str) else (name,)
    return wanted, tuple(dict.fromkeys(base))


def _compute(name, hdul, band):
    image = hdul[f"IMAGE_{band}"].data if "image" in DERIVED[name] else None
    if name == "resid":
        return image - hdul[f"MODEL_{band}"].data
    invvar = hdul[f"INVVAR_{band}"].data
    if name == "snr":
        return image * np.sqrt(invvar)
    with np.errstate(divide="ignore"):
        # Infinite where there is no weight: no flux is significant there.
        return 1 / np.sqrt(invvar)


def derive(hdul, wanted):
    """Add the derived products to a cutout and leave out what was read only for them."""
    if not set(wanted) & set(DERIVED):
        return hdul
    of_product = {}
    for hdu in hdul[1:]:
        of_product.setdefault(hdu.header["PRODUCT"], []).append(hdu)
    result = [hdul[0]]
    for name in wanted:
        if name not in DERIVED:
            result += of_product.get(name, [])
            continue
        for hdu in of_product[DERIVED[name][0]]:
            band = hdu.header["BAND"]
            header = hdu.header.copy()
            header["PRODUCT"] = (name, _TEXTS[name])
            header["BUNIT"] = (_UNITS[name], "unit of the pixels")
            data = _compute(name, hdul, band.upper()).astype(np.float32)
            result.append(fits.ImageHDU(data, header, name=f"{name}_{band}".upper()))
    result[0].header["PRODUCTS"] = ",".join(wanted)
    return fits.HDUList(result)
