"""What a cutout is, at a glance: in a notebook with pictures, elsewhere as text."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits

from ..images.planes import FLUX_PRODUCTS, pixel_side_arcsec, sky_matrix
from ..images.saved_cutouts import as_cutout
from .page import image, table, thumbnail
from .rgb import NO_DATA_COLOUR, grey_levels, north_up, rgb

if TYPE_CHECKING:
    from astropy.table import Table

    from .._typing import FilePath

SHOWN_CARDS = (
    *("RELEASE", "REGION", "LAYER", "SOURCE", "MIRROR", "RA", "DEC", "SIZEX", "SIZEY"),
    *("PRODUCTS", "BANDS", "GRID", "NBRICKS", "REQKEY", "CREATOR"),
)
THUMBNAIL_PIX = 120


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
            unit = str(hdu.header.get("BUNIT", "")).strip()
            share = float(np.mean(np.isfinite(hdu.data) & (hdu.data != 0)))
            side = hdu.header.get("PIXSCALE") or pixel_side_arcsec(hdu.header)
            self.planes.append((hdu.name, band, hdu.shape, float(side), unit, share))
            tag = image(thumbnail(grey_picture(_thinned(hdu)), THUMBNAIL_PIX), hdu.name)
            self._images.setdefault(band, {})[_product(hdu)] = tag
        if any(name.lower().startswith(FLUX_PRODUCTS) for name, *_ in self.planes):
            thin = fits.HDUList([hdul[0], *(_thinned(hdu) for hdu in hdul[1:])])
            self._colour = image(thumbnail(rgb(thin), 2 * THUMBNAIL_PIX), "colour")

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
        rows = (
            [band or "all", *(row.get(product, "") for product in products)]
            for band, row in self._images.items()
        )
        return (
            "<div style='display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start'>"
            f"{self._colour}{table(('card', 'value'), self.cards.items())}</div>"
            f"{table(('band', *products), rows)}"
        )


def summary(hdul: fits.HDUList | FilePath) -> CutoutSummary:
    """Return what shows a cutout at a glance.

    Parameters
    ----------
    hdul : `~astropy.io.fits.HDUList`, str or path-like
        As for `~astroquery_lis.pictures.rgb`.

    Returns
    -------
    CutoutSummary
        At the end of a notebook's cell, a row of pictures for each band, the colour picture and the
        cards that say what it is; printed, the same as text.

    Raises
    ------
    InvalidRequestError
        If it is no list of HDUs and no file of one.

    Examples
    --------
    >>> from astroquery_lis import LegacySurvey, sandbox
    >>> from astroquery_lis import pictures
    >>> with sandbox.serve() as sky:
    ...     hdul = LegacySurvey.get_cutout(sky.positions['field'], 32, bands='grz')
    >>> print(str(pictures.summary(hdul)).splitlines()[0])
    RELEASE  dr10
    """
    return CutoutSummary(as_cutout(hdul))


def grey_picture(hdu: fits.ImageHDU) -> np.ndarray:
    """Return a plane in grey, north up: fluxes by their noise, masks by bits, others from 0."""
    data, product = hdu.data, _product(hdu)
    has = np.isfinite(data)
    if product == "MASKBITS":
        levels = np.where(data != 0, 0.4, 0) + 0.6 * (data > 1)
    elif product.lower() in (*FLUX_PRODUCTS, "snr"):
        levels = grey_levels(data)
    else:
        values = np.clip(np.where(has, data, 0), 0, None)
        levels = (values / (values.max() or 1)) ** (0.5 if product == "PSF" else 1)
    grey = (255 * levels).astype(np.uint8)
    grey[~has] = NO_DATA_COLOUR[0]
    return north_up(grey, sky_matrix(hdu.header))


def _thinned(hdu: fits.ImageHDU) -> fits.ImageHDU:
    """Return a plane with fewer pixels if it has many more than a small picture shows."""
    if not getattr(hdu, "is_image", False) or hdu.data is None or hdu.data.ndim != 2:
        return hdu
    step = max(1, min(hdu.shape) // (4 * THUMBNAIL_PIX))
    return hdu if step == 1 else fits.ImageHDU(hdu.data[::step, ::step], hdu.header, hdu.name)


def _product(hdu: fits.ImageHDU) -> str:
    return hdu.name.rpartition("_")[0] if str(hdu.header.get("BAND", "")).strip() else hdu.name


# ---- notebooks ----------------------------------------------------------------------------------


def show_in_notebooks() -> None:
    """Let the notebook, if this process belongs to one, show what is ours as more than text."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return
    html = shell.display_formatter.formatters["text/html"]
    html.for_type_by_name("astropy.io.fits.hdu.hdulist", "HDUList", _cutout)
    html.for_type_by_name("astropy.table.table", "Table", _manifest)


def _cutout(hdul: fits.HDUList) -> str | None:
    # What others made is shown as ever; what is closed has no pixels to show.
    if not hdul or "REQKEY" not in hdul[0].header:
        return None
    return CutoutSummary(hdul)._repr_html_()


def _manifest(table: Table) -> str:
    shown = str(table._repr_html_())
    if not {"Local Path", "Status"} <= set(table.colnames):
        return shown
    counts = Counter(str(status) for status in table["Status"])
    return f"<p>{', '.join(f'{n} {status}' for status, n in sorted(counts.items()))}</p>{shown}"
