"""Cutouts and pictures rendered by the viewer: any layer, any pixel scale, every trap checked.

The grid is the viewer's own: TAN, north up, tangent at the target.  What the answer holds is
compared with what was asked; what the viewer is known to do to pixels is undone or said in the
header.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from astropy.io import fits

from .._packages import package_version
from ..exceptions import (
    CacheWarning,
    NoCoverageError,
    UnexpectedContentError,
    collected_notes,
    refuse,
    warn,
)
from ..io.bounds import Threads
from ..survey.bitmasks import NPRIMARY
from ..survey.layers import INVVAR_LIMIT_ARCSEC, Layer
from ..survey.named_planes import LAYER_PRODUCTS
from ..survey.pixel_grids import Box, TangentGrid
from ..survey.request import CutoutRequest
from .assemble import lanczos3, nearest
from .coadds import Plane
from .coverage import warn_of_absent_bands
from .plain import plane_name
from .rendering import LayerBricks, Rendering, settle_rendering
from .viewer_service import BLANK, MAX_CONNECTIONS, ViewerService


def check_layer_request(request: CutoutRequest) -> None:
    """Refuse what the viewer would answer with something else."""
    layer = Rendering(request).layer
    if not layer.fits:
        refuse("layer", layer.name, "has pictures only: see LegacySurvey.get_picture.")
    unknown = [band for band in request.bands or () if layer.bands and band not in layer.bands]
    if unknown:
        refuse("bands", request.bands, f": layer {layer.name} has {', '.join(layer.bands)}.")
    for product in request.products:
        reason = _why_not(product, layer, request.pixel_scale_arcsec)
        if reason:
            refuse("products", product, f"cannot be had: {reason}.")
    if request.convert_flux and layer.unit != "nanomaggy":
        must = f": the unit of layer {layer.name} is not known well enough."
        refuse("convert_flux", True, must)


def _why_not(product: str, layer: Layer, pixel_scale_arcsec: float) -> str:
    """Return why the viewer does not send a product of a layer, empty if it does."""
    if product == "image":
        return ""
    if product not in LAYER_PRODUCTS:
        return f"the viewer's layers have {', '.join(LAYER_PRODUCTS)}"
    if not getattr(layer, product):
        return layer.note if layer.product == "resid" else f"layer {layer.name} has none"
    if pixel_scale_arcsec > INVVAR_LIMIT_ARCSEC:
        return (
            f"the viewer drops it beyond {INVVAR_LIMIT_ARCSEC:.3f} arcsec per pixel; "
            f"{pixel_scale_arcsec:g} were asked"
        )
    return ""


def viewer_cutout(
    request: CutoutRequest, service: ViewerService, *, on_missing: str = "raise"
) -> fits.HDUList:
    """Ask the viewer for a cutout and check the answer."""
    check_layer_request(request)
    rendering = Rendering(request)
    bands = request.bands or rendering.default_bands
    tree, layer = rendering.owner_tree, rendering.layer
    if request.bands is None and tree is not None and layer.release is not None:
        warn_of_absent_bands(layer.default_bands, layer.release, tree)
    parts = list(rendering.parts())
    with Threads(MAX_CONNECTIONS, "astroquery_lis-viewer") as pool:
        answers = list(pool.map(lambda part: _render(rendering, service, part, bands), parts))
    bands = bands or answers[0][0]
    planes = _join(rendering, parts, [planes for _, planes in answers])
    existing = LayerBricks(rendering, service)
    if "invvar" in planes:
        planes["invvar"] = existing.without_doubling(planes["invvar"])
    others = partial(_other_bands, rendering, service)
    shares = settle_rendering(existing, bands, planes, on_missing, others)
    if service.cache_error is not None:
        msg = f"The result is not cached: {service.cache_error}"
        warn(msg, CacheWarning)
    return _hdulist(rendering, service, bands, planes, shares)


def _other_bands(rendering: Rendering, service: ViewerService) -> list[str]:
    """Return the bands of the layer, beside those that were asked for, that have data."""
    request, default = rendering.request, rendering.default_bands
    if request.bands is None or set(default) <= set(request.bands):
        return []
    others = replace(request, products=("image",), bands=None)
    try:
        with collected_notes():
            hdul = viewer_cutout(others, service, on_missing="warn")
    except NoCoverageError:
        return []
    return [hdu.header["BAND"] for hdu in hdul[1:]]


def _render(
    rendering: Rendering, service: ViewerService, part: Box, bands: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Return the bands and the checked planes of one rendering: ``{'image': (n, ny, nx), ...}``."""
    parameters = rendering.parameters(part, bands)
    ra, dec = float(parameters["ra"]), float(parameters["dec"])
    radius_deg = rendering.grid.scale_deg * max(part.shape) / 2
    url = service.address("cutout.fits", **parameters)
    with service.fits("cutout.fits", box=(ra, dec, radius_deg), **parameters) as hdul:
        shape = int(parameters["height"]), int(parameters["width"])
        return _planes_of(hdul, rendering.request.products, bands, shape, url)


def _planes_of(
    hdul: fits.HDUList,
    products: tuple[str, ...],
    bands: tuple[str, ...],
    shape: tuple[int, int],
    url: str,
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Return the bands and the planes of an answer, which is compared with what was asked."""
    hdus = {str(hdu.header.get("IMAGETYP", "IMAGE")).strip().lower(): hdu for hdu in hdul}
    if hdus.get("image") is None or hdus["image"].data is None:
        msg = f"{url} sent no image."
        raise UnexpectedContentError(msg, url=url)
    header = hdus["image"].header
    sent = tuple(str(card.value).strip() for card in header["BAND[0-9]*"].cards)
    if bands and sent and sent != tuple(bands):
        msg = f"{url} sent bands {''.join(sent)} when {''.join(bands)} were asked."
        raise UnexpectedContentError(msg, url=url)
    planes = {}
    for product in products:
        if product not in hdus or hdus[product].data is None:
            msg = f"{url} sent no {product}."
            raise UnexpectedContentError(msg, url=url)
        data = hdus[product].data
        data = data.reshape(-1, *data.shape[-2:])
        expected = 1 if product == "maskbits" else len(bands) or len(data)
        if data.shape != (expected, *shape):
            msg = f"{url} sent {product} of shape {data.shape}; {(expected, *shape)} was asked."
            raise UnexpectedContentError(msg, url=url)
        planes[product] = data.astype(data.dtype.newbyteorder("="))
    if "maskbits" in planes:
        # The viewer takes the last brick's mask, so the bit flips at random at borders.
        planes["maskbits"] = _whole_numbers(planes["maskbits"], url) & ~np.int32(NPRIMARY)
    return sent, planes


def _whole_numbers(mask: np.ndarray, url: str) -> np.ndarray:
    """Return a mask as integers; across the split the viewer sends it as floats."""
    if mask.dtype.kind in "iu":
        return mask.astype(np.int32)
    if not np.array_equal(mask, np.rint(mask)) or mask.min() < 0:
        msg = f"{url} sent a mask that is no set of bits."
        raise UnexpectedContentError(msg, url=url)
    return mask.astype(np.int32)


def _join(
    rendering: Rendering, parts: list[Box], answers: list[dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Put the parts of a large cutout on one grid."""
    request = rendering.request
    if len(parts) == 1:
        return answers[0]
    joined = {}
    for name in request.products:
        first = answers[0][name]
        joined[name] = np.empty((len(first), request.ny, request.nx), first.dtype)
    for part, answer in zip(parts, answers, strict=True):
        ra, dec = rendering.grid.to_sky(*reversed(np.mgrid[part.slices]))
        parameters = rendering.parameters(part, ())
        middle = (int(parameters["width"]) - 1) / 2, (int(parameters["height"]) - 1) / 2
        own = TangentGrid(
            float(parameters["ra"]), float(parameters["dec"]), *middle, rendering.grid.scale_deg
        )
        x, y = (value.ravel() for value in own.to_pixel(ra, dec))
        for name, planes in joined.items():
            take = lanczos3 if name == "image" else nearest
            for plane, source in zip(planes, answer[name], strict=True):
                plane[part.slices] = take(source, y, x).reshape(part.shape)
    return joined


def _hdulist(
    rendering: Rendering,
    service: ViewerService,
    all_bands: tuple[str, ...],
    planes: dict[str, np.ndarray],
    shares: dict[Plane, float],
) -> fits.HDUList:
    request, layer = rendering.request, rendering.layer
    bands = tuple(dict.fromkeys(plane.band for plane in shares if plane.band))
    factor = (request.pixel_scale_arcsec / layer.pixel_scale_arcsec) ** 2
    factor = factor if request.convert_flux else 1.0
    per_arcsec = request.pixel_scale_arcsec if request.convert_flux else layer.pixel_scale_arcsec
    parts = list(rendering.parts())
    url = service.address("cutout.fits", **rendering.parameters(parts[0], all_bands))
    cards = rendering.grid.cards()
    hdus = [_primary(rendering, service, bands)]
    for product in request.products:
        name = layer.product if product == "image" else product
        for number, band in enumerate((None,) if product == "maskbits" else all_bands):
            plane = Plane(name, band)
            if plane not in shares:
                continue
            header, data, unit = fits.Header(cards), planes[product][number], layer.unit
            if product == "invvar":
                data = data / np.float32(factor**2)
                unit = f"1/{layer.unit}^2" if layer.unit else ""
            elif band is not None:
                data = data * np.float32(factor)
            header["BUNIT"] = (unit if band is not None else "", "unit of the pixels")
            if band is not None:
                header["BAND"] = (band, "filter band")
                header["FLUXPIX"] = (per_arcsec, "[arcsec] side of the pixel that flux is per")
            header["PRODUCT"] = name
            header["OBSFRAC"] = (round(shares[plane], 6), "share of the pixels that were observed")
            header["URL1"] = url
            hdus.append(fits.ImageHDU(data, header, name=plane_name(name, band)))
    return fits.HDUList(hdus)


def _primary(
    rendering: Rendering, service: ViewerService, bands: tuple[str, ...]
) -> fits.PrimaryHDU:
    request, layer = rendering.request, rendering.layer
    cards = [
        ("SURVEY", layer.survey, ""),
        ("LAYER", layer.name, "layer of the viewer"),
        ("RELEASE", layer.release or "", "data release"),
        ("SOURCE", "viewer", "what the pixels were cut from"),
        ("MIRROR", service.url, "where they came from"),
        ("RA", request.ra_deg, "[deg] target, ICRS"),
        ("DEC", request.dec_deg, "[deg] target, ICRS"),
        ("SIZEX", request.nx, "[pix] width"),
        ("SIZEY", request.ny, "[pix] height"),
        ("PIXSCALE", request.pixel_scale_arcsec, "[arcsec] pixel scale"),
        ("PRODUCTS", ",".join(request.products), "products asked for"),
        ("BANDS", ",".join(bands), "bands, as in the extensions"),
        ("REQKEY", request.key[:32], "identifies the request"),
        ("CREATOR", f"astroquery_lis {package_version()}", "software"),
    ]
    header = fits.Header(cards)
    if request.pixel_scale_arcsec != layer.pixel_scale_arcsec and not request.convert_flux:
        header["COMMENT"] = (
            "Flux is per native pixel of the layer (FLUXPIX), not per pixel of this image: sum "
            "over pixels times (PIXSCALE/FLUXPIX)^2 is the flux."
        )
    if "invvar" in request.products:
        header["COMMENT"] = (
            "The viewer interpolates invvar and adds it up where bricks overlap; it was divided "
            "by their number, and negative values were set to 0."
        )
    return fits.PrimaryHDU(header=header)


def viewer_picture(request: CutoutRequest, service: ViewerService) -> np.ndarray:
    """Return the viewer's picture of a place."""
    rendering = Rendering(request)
    parameters = rendering.all_parameters()[0]
    radius_deg = rendering.grid.scale_deg * max(request.ny, request.nx)
    box = request.ra_deg, request.dec_deg, radius_deg
    url = service.address("cutout.jpg", **parameters)
    with service.picture(box=box, **parameters) as picture:
        if picture.shape[:2] != (request.ny, request.nx):
            msg = f"{url} sent {picture.shape[:2]} pixels; {(request.ny, request.nx)} were asked."
            raise UnexpectedContentError(msg, url=url)
    if (picture == BLANK).all():
        at = f"RA {request.ra_deg:.6f}, Dec {request.dec_deg:+.6f}"
        msg = f"Layer {rendering.layer.name} has no data at {at}: the picture is blank."
        raise NoCoverageError(msg, url=url)
    return picture
