"""Cutouts as users have them: HDUs in memory, a file on disk, an answer of the viewer they saved.

The viewer's answers have no names: a cube of all bands beside others for invvar and the mask, or,
with ``&subimage``, an image for each band of a brick.  What they hold gets the names, units and
cards of `~astroquery_lis.LegacySurveyClass.get_cutout`, so that all that reads cutouts reads them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS

from ..exceptions import refuse
from ..survey.bitmasks import NPRIMARY
from ..survey.layers import LAYERS, Layer
from ..survey.owners import images_over
from ..survey.releases import RELEASES
from .plain import plane_name
from .planes import bricks_under, pixel_side_arcsec, shared_out

if TYPE_CHECKING:
    from .._typing import FilePath

_OF_LEGACY = re.compile("Legacy|DECaLS|MzLS|BASS")
_KINDS = ("image", "invvar", "maskbits")


def as_cutout(cutout: fits.HDUList | FilePath) -> fits.HDUList:
    """Return the HDUs of a cutout, planes named as those of `get_cutout`."""
    hdul = cutout
    if isinstance(cutout, (str, PathLike)):
        try:
            hdul = read_hdus(cutout)
        except (OSError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            refuse("hdul", fspath(cutout), f"cannot be read as FITS: {reason}")
    if not isinstance(hdul, fits.HDUList):
        refuse("hdul", type(cutout).__name__, "must be an HDUList or the name of a FITS file.")
    if not any("IMAGETYP" in hdu.header and "PRODUCT" not in hdu.header for hdu in hdul[:2]):
        return hdul
    return _named(hdul)


def read_hdus(path: FilePath) -> fits.HDUList:
    """Return a file's HDUs, read to the end."""
    with warnings.catch_warnings():
        # Of files cut short astropy warns as well as raising.
        warnings.simplefilter("ignore", AstropyWarning)
        with fits.open(Path(path).expanduser(), memmap=False) as hdul:
            for hdu in hdul:
                # What was read stays when the file is closed.
                hdu.data  # noqa: B018
    return hdul


def _named(hdul: fits.HDUList) -> fits.HDUList:
    """Return what an answer of the viewer holds, plane by plane."""
    bricks = {hdu.header["BRICK"] for hdu in hdul if "BRICK" in hdu.header}
    if len(bricks) > 1:
        must = ": the file has several bricks of one place; write those of one to a file."
        refuse("hdul", ", ".join(sorted(bricks)), must)
    about = hdul[0].header
    planes = [plane for hdu in hdul for plane in _planes(hdu, _layer(about))]
    if not planes:
        refuse("hdul", str(hdul.filename()), "has no image: the viewer sent an empty answer.")
    bands = dict.fromkeys(plane.header["BAND"] for plane in planes if "BAND" in plane.header)
    primary = fits.PrimaryHDU(header=_about(about, ",".join(bands)))
    return fits.HDUList([primary, *planes])


def _layer(header: fits.Header) -> Layer | None:
    """Return a layer of the survey that the viewer names, for its unit and scale."""
    survey, version = (str(header.get(name, "")).strip() for name in ("SURVEY", "VERSION"))
    if version in LAYERS:
        return LAYERS[version]
    survey = "Legacy Surveys" if _OF_LEGACY.search(survey) else survey
    return next((layer for layer in LAYERS.values() if layer.survey == survey), None)


def _planes(hdu: fits.ImageHDU, layer: Layer | None) -> Iterator[fits.ImageHDU]:
    """Yield the planes of an HDU of the viewer."""
    kind = str(hdu.header.get("IMAGETYP", "image")).strip().lower()
    if hdu.data is None or kind not in _KINDS:
        return
    pixels = hdu.data.reshape(-1, *hdu.data.shape[-2:])
    bands = [None] if kind == "maskbits" else _bands(hdu.header, len(pixels))
    if len(bands) != len(pixels):
        refuse("hdul", kind, f": {len(pixels)} images for the bands {bands}.")
    for band, values in zip(bands, pixels, strict=True):
        header = WCS(hdu.header, naxis=2).to_header()
        header["PRODUCT"] = kind
        if "BRICK" in hdu.header:
            header["BRICK"] = hdu.header["BRICK"]
        if band is not None:
            header["BAND"] = (band, "filter band")
            unit = layer.unit if layer is not None else ""
            header["BUNIT"] = f"1/{unit}^2" if unit and kind == "invvar" else unit
        if band is not None and layer is not None:
            scale = layer.pixel_scale_arcsec
            header["FLUXPIX"] = (scale, "[arcsec] side of the pixel that flux is per")
        yield fits.ImageHDU(
            _mended(kind, values, hdu.header, layer), header, plane_name(kind, band)
        )


def _bands(header: fits.Header, n: int) -> list[str | None]:
    """Return the bands of a cube, or of one image."""
    if "BRICK" in header:
        return [str(header["BAND"]).strip()]
    names = [str(header[f"BAND{i}"]).strip() for i in range(n) if f"BAND{i}" in header]
    return [*(names or str(header.get("BANDS", "")).strip())]


def _mended(kind: str, pixels: np.ndarray, header: fits.Header, layer: Layer | None) -> np.ndarray:
    """Return the pixels of a plane without what the viewer is known to do to them."""
    if kind == "maskbits":
        # The viewer takes the last brick's mask, so the bit flips at random at borders; across the
        # split of north and south it sends floats.
        return pixels.astype(np.int32) & ~np.int32(NPRIMARY)
    pixels = pixels.astype(np.float32)
    if kind == "image" or "BRICK" in header or layer is None or not layer.trees:
        return pixels
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    ra, dec = WCS(header, naxis=2).pixel_to_world_values(x, y)
    place = float(header["CRVAL1"]), float(header["CRVAL2"])
    near, _ = bricks_under(*place, pixel_side_arcsec(header) / 3600, pixels.shape)
    return shared_out(pixels, images_over(near, ra, dec))


def _about(header: fits.Header, bands: str) -> fits.Header:
    """Return the cards of the whole."""
    version = str(header.get("VERSION", "")).strip()
    release = version.lower().partition("-")[0]
    cards = [
        ("SURVEY", header.get("SURVEY", ""), ""),
        ("RELEASE", release if release in RELEASES else "", "data release"),
        ("LAYER", version if version in LAYERS else "", "layer of the viewer"),
        ("SOURCE", "viewer", "what the pixels were cut from"),
        ("BANDS", bands, "bands, as in the extensions"),
    ]
    # A rendering is centred on the target; a part of a brick does not tell it.
    places = (("RA", "CRVAL1"), ("DEC", "CRVAL2"))
    cards += [(n, header[c], "[deg] target, ICRS") for n, c in places if c in header]
    return fits.Header(cards)
