"""Cutouts and pictures rendered by the viewer: any layer, any pixel scale, every trap checked.

The grid is the viewer's own: TAN, north up, tangent at the target.  What the answer holds is
compared with what was asked; what the viewer is known to do to pixels is undone or said in the
header.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from astropy.io import fits

from .._packages import import_optional, package_version
from ..exceptions import (
    CacheWarning,
    CoverageWarning,
    InvalidRequestError,
    MissingDataError,
    NoCoverageError,
    TransferError,
    UnexpectedContentError,
    warn,
)
from ..io.bounds import Threads
from ..io.checks import reading
from ..survey.bricks import IMAGE_SIZE_PIX, brick_grid, is_north, name_of
from ..survey.layers import INVVAR_LIMIT_ARCSEC, Layer, layer_of
from ..survey.pixel_grids import Box, TangentGrid
from ..survey.releases import RELEASES, Tree
from ..survey.request import LAYER_PRODUCTS, CutoutRequest, plane_name
from ..survey.sphere import bricks_in_circle
from .assemble import lanczos3, nearest
from .viewer_service import MAX_CONNECTIONS, MAX_REQUEST_PIX, ViewerService

__all__ = ["Rendering", "check_layer_request", "viewer_cutout", "viewer_picture"]

BLANK = 32
"""Level of the uniform grey that the viewer paints where a layer has nothing."""

JOIN_MARGIN_PIX = 8
NPRIMARY = 1
EDGE_PIX = 2


class Rendering:
    """A request for a layer, as the viewer renders it: north up, tangent at the target."""

    def __init__(self, request: CutoutRequest) -> None:
        assert request.layer is not None
        self.request = request
        self.layer: Layer = request.layer
        scale_deg = request.pixel_scale_arcsec / 3600
        middle = (request.nx - 1) / 2, (request.ny - 1) / 2
        self.grid = TangentGrid(request.ra_deg, request.dec_deg, *middle, scale_deg)

    def parts(self) -> Iterator[Box]:
        """Yield the boxes of the result that one rendering each can bring."""
        ny, nx = self.request.ny, self.request.nx
        if max(ny, nx) <= MAX_REQUEST_PIX:
            yield Box(0, ny, 0, nx)
            return
        step = MAX_REQUEST_PIX - 2 * JOIN_MARGIN_PIX
        for y0 in range(0, ny, step):
            for x0 in range(0, nx, step):
                yield Box(y0, min(y0 + step, ny), x0, min(x0 + step, nx))

    def parameters(self, part: Box, bands: tuple[str, ...]) -> dict[str, str | int | bool]:
        """Return the viewer's parameters for a part."""
        request = self.request
        whole = part.shape == (request.ny, request.nx)
        margin = 0 if whole else JOIN_MARGIN_PIX
        ra, dec = request.ra_deg, request.dec_deg
        if not whole:
            middle = (part.x0 + part.x1 - 1) / 2, (part.y0 + part.y1 - 1) / 2
            ra, dec = (float(value) for value in self.grid.to_sky(*middle))
        parameters: dict[str, str | int | bool] = {
            "ra": repr(ra),
            "dec": repr(dec),
            "layer": self.layer.name,
            "width": part.shape[1] + 2 * margin,
            "height": part.shape[0] + 2 * margin,
            "pixscale": repr(request.pixel_scale_arcsec),
        }
        if bands:
            mark = "," if any(len(band) > 1 for band in bands) else ""
            parameters["bands"] = mark.join(bands)
        for product in ("invvar", "maskbits"):
            if product in request.products:
                parameters[product] = True
        return parameters

    def all_parameters(self) -> list[dict[str, str | int | bool]]:
        """Return the viewer's parameters for each part, with the bands that were named."""
        return [self.parameters(part, self.request.bands or ()) for part in self.parts()]


def check_layer_request(request: CutoutRequest) -> None:
    """Refuse what the viewer would answer with something else."""
    layer = Rendering(request).layer
    if not layer.fits:
        msg = f"layer={layer.name!r} has pictures only: see LegacySurvey.get_picture."
        raise InvalidRequestError(msg, parameter="layer", value=layer.name)
    unknown = [band for band in request.bands or () if layer.bands and band not in layer.bands]
    if unknown:
        msg = f"bands={request.bands!r}: layer {layer.name} has {', '.join(layer.bands)}."
        raise InvalidRequestError(msg, parameter="bands", value=request.bands)
    for product in request.products:
        reason = ""
        if product not in LAYER_PRODUCTS:
            reason = f"the viewer's layers have {', '.join(LAYER_PRODUCTS)}"
        elif product != "image" and not getattr(layer, product):
            reason = layer.note if layer.product == "resid" else f"layer {layer.name} has none"
        elif product != "image" and request.pixel_scale_arcsec > INVVAR_LIMIT_ARCSEC:
            reason = (
                f"the viewer drops it beyond {INVVAR_LIMIT_ARCSEC:.3f} arcsec per pixel; "
                f"{request.pixel_scale_arcsec:g} were asked"
            )
        if reason:
            msg = f"products={product!r} cannot be had: {reason}."
            raise InvalidRequestError(msg, parameter="products", value=product)
    if request.convert_flux and layer.unit != "nanomaggy":
        msg = f"convert_flux=True: the unit of layer {layer.name} is not known well enough."
        raise InvalidRequestError(msg, parameter="convert_flux", value=True)


def viewer_cutout(
    request: CutoutRequest, service: ViewerService, *, on_missing: str = "raise"
) -> fits.HDUList:
    """Ask the viewer for a cutout and check the answer."""
    check_layer_request(request)
    rendering = Rendering(request)
    bands = request.bands or rendering.layer.default_bands
    parts = list(rendering.parts())
    with Threads(MAX_CONNECTIONS, "astroquery_lis-viewer") as pool:
        answers = list(pool.map(lambda part: _render(rendering, service, part, bands), parts))
    bands = bands or answers[0][0]
    planes = _join(rendering, parts, [planes for _, planes in answers])
    if "invvar" in planes:
        planes["invvar"] = _without_doubling(rendering, service, planes["invvar"])
    bands = _settle(rendering, bands, planes, on_missing)
    if service.cache_error is not None:
        msg = f"The result is not cached: {service.cache_error}"
        warn(msg, CacheWarning)
    return _hdulist(rendering, service, bands, planes)


def _render(
    rendering: Rendering, service: ViewerService, part: Box, bands: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Return the bands and the checked planes of one rendering: ``{'image': (n, ny, nx), ...}``."""
    parameters = rendering.parameters(part, bands)
    ra, dec = float(parameters["ra"]), float(parameters["dec"])
    radius_deg = rendering.grid.scale_deg * max(part.shape)
    hdul = service.fits("cutout.fits", box=(ra, dec, radius_deg), **parameters)
    url = service.address("cutout.fits", **parameters)
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
    shape = parameters["height"], parameters["width"]
    for product in rendering.request.products:
        if product not in hdus:
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
        planes["maskbits"] = _whole_numbers(planes["maskbits"], url)
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


def _sky(rendering: Rendering) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[: rendering.request.ny, : rendering.request.nx]
    return rendering.grid.to_sky(x, y)


def _trees(layer: Layer) -> list[Tree]:
    """Return the regions that a layer of the Legacy Surveys is put together from."""
    if layer.release is None or layer.region is None:
        return []
    trees = RELEASES[layer.release].trees
    return [trees[r] for r in trees if layer.region in (r, "auto")]


def _without_doubling(
    rendering: Rendering, service: ViewerService, invvar: np.ndarray
) -> np.ndarray:
    """Divide the inverse variance by the number of bricks that the viewer added up."""
    count = np.zeros(invvar.shape[1:])
    request, trees = rendering.request, _trees(rendering.layer)
    ra, dec = _sky(rendering)
    radius_deg = rendering.grid.scale_deg * max(invvar.shape[1:]) * 0.75
    near = bricks_in_circle(request.ra_deg, request.dec_deg, radius_deg + 0.02)
    north = is_north(ra, dec)
    for tree in trees:
        own = north == (tree.region == "north") if len(trees) == 2 else np.True_
        part = layer_of(tree.release, tree.region)
        for brick in _existing(service, part, near, request, radius_deg):
            x, y = brick_grid(brick).to_pixel(ra, dec)
            low, high = -0.5 - EDGE_PIX, IMAGE_SIZE_PIX - 0.5 + EDGE_PIX
            count += own & (x > low) & (x < high) & (y > low) & (y < high)
    # Interpolation makes it ring below zero beside pixels without weight.
    return np.clip(invvar, 0, None) / np.maximum(count, 1).astype(np.float32)


def _existing(
    service: ViewerService,
    layer: Layer,
    near: np.ndarray,
    request: CutoutRequest,
    radius_deg: float,
) -> list[int]:
    """Return those of the bricks ``near`` that a layer has; all of them if it does not say."""
    try:
        names = service.bricks(layer.name, request.ra_deg, request.dec_deg, radius_deg)
    except TransferError:
        return near.tolist()
    return [int(brick) for brick in near if name_of(int(brick)) in names]


def _lacking(
    rendering: Rendering, bands: tuple[str, ...], planes: dict[str, np.ndarray]
) -> dict[str, np.ndarray | np.bool_]:
    """Return, for each band, where the layer has no such data: an array of bool, or all or none."""
    nowhere, everywhere = np.False_, np.True_
    lacking: dict[str, np.ndarray | np.bool_] = dict.fromkeys(bands, nowhere)
    trees = _trees(rendering.layer)
    if len(trees) == 2:
        north = is_north(*_sky(rendering))
        for tree in trees:
            side = north == (tree.region == "north")
            for band in bands:
                if band not in tree.bands and side.any():
                    lacking[band] = everywhere if side.all() else side
    if rendering.layer.product != "model" and "image" in planes:
        for number, band in enumerate(bands):
            if not planes["image"][number].any():
                lacking[band] = everywhere
    return lacking


def _settle(
    rendering: Rendering, bands: tuple[str, ...], planes: dict[str, np.ndarray], on_missing: str
) -> tuple[str, ...]:
    """Blank what the layer does not have; raise or warn; return the bands of the result."""
    request, layer = rendering.request, rendering.layer
    lacking = _lacking(rendering, bands, planes)
    absent = [band for band in bands if lacking[band] is np.True_]
    at = f"RA {request.ra_deg:.6f}, Dec {request.dec_deg:+.6f}"
    if absent and len(absent) == len(bands):
        msg = f"Layer {layer.name} has no data at {at}: the viewer sent zeros."
        raise NoCoverageError(msg)
    if absent:
        present = [band for band in bands if band not in absent]
        msg = f"No {', '.join(absent)} in layer {layer.name} at {at}; it has {', '.join(present)}."
        if request.bands is not None and on_missing == "raise":
            msg += " Leave that out, or take on_missing='warn' for planes without values."
            raise MissingDataError(msg)
        warn(msg, CoverageWarning)
    for number, band in enumerate(bands):
        where = lacking[band]
        if where is np.False_:
            continue
        if where is not np.True_:
            msg = f"{band} without values in {100 * where.mean():.1f} % of the cutout."
            warn(msg, CoverageWarning)
        for name, empty in (("image", np.nan), ("invvar", 0)):
            if name in planes:
                planes[name][number][where if where is not np.True_ else ...] = empty
    return bands if request.bands is not None else tuple(b for b in bands if b not in absent)


def _hdulist(
    rendering: Rendering,
    service: ViewerService,
    bands: tuple[str, ...],
    planes: dict[str, np.ndarray],
) -> fits.HDUList:
    request, layer = rendering.request, rendering.layer
    all_bands = request.bands or layer.default_bands or bands
    factor = (request.pixel_scale_arcsec / layer.pixel_scale_arcsec) ** 2
    factor = factor if request.convert_flux else 1.0
    per_arcsec = request.pixel_scale_arcsec if request.convert_flux else layer.pixel_scale_arcsec
    parts = list(rendering.parts())
    url = service.address("cutout.fits", **rendering.parameters(parts[0], all_bands))
    cards = rendering.grid.cards()
    hdus = [_primary(rendering, service, bands)]
    for product in request.products:
        for number, band in enumerate(all_bands):
            if band not in bands or (product == "maskbits" and number > 0):
                continue
            header = fits.Header(cards)
            data = planes[product][0 if product == "maskbits" else number]
            name = layer.product if product == "image" else product
            if product == "maskbits":
                # The viewer takes the last brick's mask, so the bit flips at random at borders.
                data = data & ~np.int32(NPRIMARY)
                header["BUNIT"] = ""
            elif product == "invvar":
                data = data / np.float32(factor**2)
                header["BUNIT"] = f"1/{layer.unit}^2" if layer.unit else ""
            else:
                data = data * np.float32(factor)
                header["BUNIT"] = (layer.unit, "unit of the pixels")
            if product != "maskbits":
                header["BAND"] = (band, "filter band")
                header["FLUXPIX"] = (per_arcsec, "[arcsec] side of the pixel that flux is per")
            header["PRODUCT"] = product if product != "image" else layer.product
            header["URL1"] = url
            extname = plane_name(name, None if product == "maskbits" else band)
            hdus.append(fits.ImageHDU(data, header, name=extname))
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
    module = import_optional("PIL.Image", "plot", "get_picture")
    rendering = Rendering(request)
    parameters = rendering.all_parameters()[0]
    radius_deg = rendering.grid.scale_deg * max(request.ny, request.nx)
    box = request.ra_deg, request.dec_deg, radius_deg
    data = service.jpeg("cutout.jpg", box=box, **parameters)
    url = service.address("cutout.jpg", **parameters)
    with reading(url, "read as JPEG"), module.open(io.BytesIO(data)) as image:
        if image.size != (request.nx, request.ny):
            msg = f"{url} sent {image.size[::-1]} pixels; {(request.ny, request.nx)} were asked."
            raise UnexpectedContentError(msg, url=url)
        picture = np.asarray(image.convert("RGB"))
    if (picture == BLANK).all():
        at = f"RA {request.ra_deg:.6f}, Dec {request.dec_deg:+.6f}"
        msg = f"Layer {rendering.layer.name} has no data at {at}: the picture is blank."
        raise NoCoverageError(msg, url=url)
    return picture
