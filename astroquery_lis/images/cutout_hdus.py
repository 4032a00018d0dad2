"""Cutouts as users have them: HDUs in memory, a file on disk, an answer of the viewer they saved.

The viewer's answers have no names: a cube of all bands beside others for invvar and the mask, or,
with ``&subimage``, an image for each band of a brick.  What they hold gets the names, units and
cards of `~astroquery_lis.LegacySurveyClass.get_cutout`, so that all that reads cutouts reads them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
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
from ..survey.releases import DERIVED, PIXEL_SCALE_ARCSEC, RELEASES
from ..survey.request import as_choice
from ..survey.sphere import bricks_in_circle
from .plain import plane_name

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
            header.update(_band_cards(kind, band, layer))
        pixels = _mended(kind, values, hdu.header, layer)
        yield fits.ImageHDU(pixels, header, plane_name(kind, band))


def _band_cards(kind: str, band: str, layer: Layer | None) -> fits.Header:
    """Return the cards of a plane of a band."""
    header = fits.Header([("BAND", band, "filter band"), ("BUNIT", "")])
    if layer is not None:
        is_inverse = layer.unit and kind == "invvar"
        header["BUNIT"] = f"1/{layer.unit}^2" if is_inverse else layer.unit
        scale = layer.pixel_scale_arcsec
        header["FLUXPIX"] = (scale, "[arcsec] side of the pixel that flux is per")
    return header


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


BRICK_REACH_DEG = 0.02
"""A brick's image reaches this far beyond what the brick owns, and a little more."""

CORNER_SHARE = 0.75
"""How far the corners of a square box are from its middle, in its sides, and a little more."""

FLUX_PRODUCTS = ("image", "model", "blobmodel", "resid")
_OPTICAL = ("u", "g", "r", "i", "z", "Y")
_BLUE_TO_RED = ("n", "f", "u", "g", "r", "i", "z", "Y", "W1", "1", "W2", "2", "W3", "W4")
_DERIVED_CARDS = {
    "resid": ("nanomaggy", "image - model"),
    "snr": ("", "image * sqrt(invvar)"),
    "sigma": ("nanomaggy", "1 / sqrt(invvar)"),
}


def flux_planes(
    hdul: fits.HDUList, bands: str | Sequence[str] | None = None, product: str | None = None
) -> dict[str, fits.ImageHDU]:
    """Return the HDUs of a cutout's bands."""
    by_product = _by_product(hdul)
    if product is not None:
        as_choice("product", product, FLUX_PRODUCTS)
    name = product or next((name for name in FLUX_PRODUCTS if name in by_product), None)
    if name not in by_product:
        refuse("product", product, f": the cutout has {', '.join(hdu.name for hdu in hdul)}.")
    hdus = by_product[name]
    names = _usual_bands(hdus) if bands is None else _names(bands, hdus)
    if not names or not set(names) <= set(hdus):
        refuse("bands", bands, f": the cutout has {name} in {', '.join(hdus)}.")
    names = sorted(dict.fromkeys(names), key=_colour_order)
    if len({hdus[band].data.shape for band in names}) > 1:
        refuse("bands", bands, "are not on one pixel grid.")
    return {band: hdus[band] for band in names}


def _usual_bands(hdus: dict[str, fits.ImageHDU]) -> list[str]:
    """Return the bands that are meant where none is named: the optical ones, if there are any."""
    names = [band for band in hdus if band in _OPTICAL] or list(hdus)
    # A band that has no value at all would only grey the others.
    return [band for band in names if np.isfinite(hdus[band].data).any()] or names


def _by_product(hdul: fits.HDUList) -> dict[str, dict[str, fits.ImageHDU]]:
    """Return the images of fluxes by product and band."""
    by_product: dict[str, dict[str, fits.ImageHDU]] = {}
    for hdu in hdul:
        name, _, band = hdu.name.rpartition("_")
        if name.lower() in FLUX_PRODUCTS and hdu.is_image and len(hdu.shape) == 2:
            band = str(hdu.header.get("BAND", band)).strip()
            by_product.setdefault(name.lower(), {})[band] = hdu
    return by_product


def _names(bands: str | Sequence[str], hdus: dict[str, fits.ImageHDU]) -> list[str]:
    """Return bands as a list; a string is one band, or letters, or W1 to W4."""
    if not isinstance(bands, str):
        return list(bands)
    return [bands] if bands in hdus else re.findall(r"W[1-4]|\w", bands)


def _colour_order(band: str) -> int:
    return _BLUE_TO_RED.index(band) if band in _BLUE_TO_RED else len(_BLUE_TO_RED)


def sky_matrix(header: fits.Header) -> np.ndarray:
    """Return how the pixels of an image lie on the sky."""
    wcs = WCS(header, naxis=2)
    if not wcs.has_celestial:
        return np.diag([-PIXEL_SCALE_ARCSEC, PIXEL_SCALE_ARCSEC]) / 3600
    return np.asarray(wcs.pixel_scale_matrix)


def pixel_side_arcsec(header: fits.Header) -> float:
    """Return the side of an image's pixel in arcsec, from its WCS."""
    return side_arcsec(sky_matrix(header))


def side_arcsec(matrix: np.ndarray) -> float:
    """Return the side of a pixel in arcsec, from the matrix of `sky_matrix`."""
    return float(np.sqrt(abs(np.linalg.det(matrix)))) * 3600


def mask_release(hdul: fits.HDUList) -> str:
    """Return the release whose bit numbers hold for the mask of a cutout."""
    release = str(hdul[0].header.get("RELEASE", ""))
    # The viewer sends masks for layers of no release too; numbers were added, never changed.
    has_bits = release in RELEASES and "maskbits" in RELEASES[release].products
    return release if has_bits else "dr10"


def add_derived(hdul: fits.HDUList, products: tuple[str, ...]) -> fits.HDUList:
    """Return the planes of a cutout, derived ones made, without what was read only for those."""
    of_product: dict[str, list[fits.ImageHDU]] = {}
    for hdu in hdul[1:]:
        of_product.setdefault(hdu.header["PRODUCT"], []).append(hdu)
    result = [hdul[0]]
    for name in products:
        if name not in DERIVED:
            result += of_product.get(name, [])
            continue
        unit, text = _DERIVED_CARDS[name]
        for hdu in of_product.get(DERIVED[name][0], []):
            band = hdu.header["BAND"]
            header = hdu.header.copy()
            header["PRODUCT"] = (name, text)
            header["BUNIT"] = (unit, "unit of the pixels")
            data = _derived(name, hdul, band).astype(np.float32)
            result.append(fits.ImageHDU(data, header, name=plane_name(name, band)))
    result[0].header["PRODUCTS"] = ",".join(name for name in products if name != "psf")
    return fits.HDUList(result)


def _derived(name: str, hdul: fits.HDUList, band: str) -> np.ndarray:
    if name == "resid":
        return hdul[plane_name("image", band)].data - hdul[plane_name("model", band)].data
    invvar = hdul[plane_name("invvar", band)].data
    if name == "snr":
        return hdul[plane_name("image", band)].data * np.sqrt(invvar)
    with np.errstate(divide="ignore"):
        # Infinite where there is no weight: no flux is significant there.
        return 1 / np.sqrt(invvar)


def shared_out(invvar: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Divide the viewer's inverse variance by the number of bricks that it was added up from."""
    # Interpolation makes it ring below zero beside pixels without weight.
    return np.clip(invvar, 0, None) / np.maximum(count, 1).astype(np.float32)


def bricks_under(
    ra_deg: float, dec_deg: float, scale_deg: float, shape: tuple[int, ...]
) -> tuple[np.ndarray, float]:
    """Return the bricks whose images may hold pixels of a box round a place, and its radius."""
    radius_deg = scale_deg * max(shape) * CORNER_SHARE
    return bricks_in_circle(ra_deg, dec_deg, radius_deg + BRICK_REACH_DEG), radius_deg
