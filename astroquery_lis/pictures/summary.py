"""What a cutout is, at a glance: in a notebook with pictures, elsewhere as text."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.io import fits
from astropy.stats import mad_std

from ..exceptions import InvalidRequestError
from ..images.planes import FLUX_PRODUCTS, pixel_side_arcsec, sky_matrix
from .page import escape, image, thumbnail
from .rgb import NO_DATA_COLOUR, north_up, rgb

__all__ = ["CutoutSummary", "summary"]

SHOWN_CARDS = (
    *("RELEASE", "REGION", "LAYER", "SOURCE", "MIRROR", "RA", "DEC", "SIZEX", "SIZEY"),
    *("PRODUCTS", "BANDS", "GRID", "NBRICKS", "REQKEY", "CREATOR"),
)
THUMBNAIL_PIX = 120
_SOFTENING = 3.0
_REACH = 60.0


class CutoutSummary:
    """Shows a cutout: a picture of every plane in a notebook, lines of text elsewhere.

    It keeps no pixels of the cutout: pictures are made at once.

    Attributes
    ----------
    cards : dict
        The cards of the primary header that say what it is.
    planes : list of tuple
        Name, band, shape, pixel scale in arcsec, unit, and share of pixels with a finite value that
        is not 0, of each plane.
    """

    def __init__(self, hdul: fits.HDUList) -> None:
        header = hdul[0].header
        self.cards: dict[str, Any] = {
            name: header[name] for name in SHOWN_CARDS if header.get(name, "") != ""
        }
        self.planes: list[tuple[str, str, tuple[int, int], float, str, float]] = []
        self._images: dict[str, dict[str, str]] = {}
        self._colour = ""
        for hdu in hdul:
            if not getattr(hdu, "is_image", False) or hdu.data is None or hdu.data.ndim != 2:
                continue
            band = str(hdu.header.get("BAND", "")).strip()
            product = hdu.name.rpartition("_")[0] if band else hdu.name
            unit = str(hdu.header.get("BUNIT", "")).strip()
            share = float(np.mean(np.isfinite(hdu.data) & (hdu.data != 0)))
            side = hdu.header.get("PIXSCALE") or pixel_side_arcsec(hdu.header)
            self.planes.append((hdu.name, band, hdu.shape, float(side), unit, share))
            grey = north_up(_grey(hdu.data, product), sky_matrix(hdu.header))
            tag = image(thumbnail(grey, THUMBNAIL_PIX), hdu.name)
            self._images.setdefault(band, {})[product] = tag
        if any(name.lower().startswith(FLUX_PRODUCTS) for name, *_ in self.planes):
            self._colour = image(thumbnail(rgb(hdul), 2 * THUMBNAIL_PIX), "colour")

    def __str__(self) -> str:
        lines = [f"{name:8} {value}" for name, value in self.cards.items()]
        lines += ["", f"{'plane':12} {'pixels':>11} {'arcsec':>7} {'unit':14} not 0 or NaN"]
        for name, _, (ny, nx), side, unit, share in self.planes:
            size = f"{ny} x {nx}"
            lines.append(f"{name:12} {size:>11} {side:7.3f} {unit:14} {100 * share:.1f} %")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        products = list(dict.fromkeys(p for row in self._images.values() for p in row))
        head = "".join(f"<th>{escape(name)}</th>" for name in ("band", *products))
        lines = ""
        for band, row in self._images.items():
            cells = "".join(f"<td title='{name}'>{row.get(name, '')}</td>" for name in products)
            lines += f"<tr><th>{escape(band) or 'all'}</th>{cells}</tr>"
        left = "style='text-align:left'"
        cards = "".join(
            f"<tr><th {left}>{name}</th><td {left}>{escape(value)}</td></tr>"
            for name, value in self.cards.items()
        )
        return (
            "<div style='display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start'>"
            f"{self._colour}<table>{cards}</table></div>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
        )


def summary(hdul: fits.HDUList) -> CutoutSummary:
    """Return what shows a cutout at a glance.

    Parameters
    ----------
    hdul : `~astropy.io.fits.HDUList`
        As `~astroquery_lis.LegacySurveyClass.get_cutout` returns it.

    Returns
    -------
    CutoutSummary
        At the end of a notebook's cell, a row of pictures for each band, the colour picture and the
        cards that say what it is; printed, the same as text.

    Raises
    ------
    InvalidRequestError
        If it is not a list of HDUs.

    Examples
    --------
    >>> from astroquery_lis import LegacySurvey, sandbox
    >>> from astroquery_lis import pictures
    >>> with sandbox.serve() as sky:
    ...     hdul = LegacySurvey.get_cutout(sky.positions['field'], 32, bands='grz')
    >>> print(str(pictures.summary(hdul)).splitlines()[0])
    RELEASE  dr10
    """
    if not isinstance(hdul, fits.HDUList):
        msg = f"hdul must be an HDUList; it is of type {type(hdul).__name__}."
        raise InvalidRequestError(msg, parameter="hdul", value=hdul)
    return CutoutSummary(hdul)


def _grey(data: np.ndarray, product: str) -> np.ndarray:
    """Return a plane in grey: fluxes by arcsinh of the noise, masks by bits, others from 0."""
    has = np.isfinite(data)
    values = data[has].astype(float)
    grey = np.zeros(data.shape)
    if not values.size:
        pass
    elif product == "MASKBITS":
        grey[has] = np.where(values != 0, 0.4, 0) + 0.6 * (values > 1)
    elif product.lower() in (*FLUX_PRODUCTS, "snr"):
        noise = mad_std(values) or np.ptp(values) / 1000 or 1.0
        scaled = (values - np.median(values)) / noise
        low, high = (np.arcsinh(level / _SOFTENING) for level in (-_SOFTENING, _REACH))
        grey[has] = (np.arcsinh(scaled / _SOFTENING) - low) / (high - low)
    else:
        root = 0.5 if product == "PSF" else 1
        grey[has] = np.clip(values / (values.max() or 1), 0, 1) ** root
    grey = (255 * np.clip(grey, 0, 1)).astype(np.uint8)
    grey[~has] = NO_DATA_COLOUR[0]
    return grey
