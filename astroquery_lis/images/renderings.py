"""Cutouts and pictures rendered by the viewer: any layer, any pixel scale, every trap checked.

The grid is the viewer's own: TAN, north up, tangent at the target.  What the answer holds is
compared with what was asked; what the viewer is known to do to pixels is undone or said in the
header.  It sends zeros where no brick is, as it does where nothing was observed, and where a region
has no such band.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from astropy.io import fits

from .._packages import package_version
from ..exceptions import (
    CoverageWarning,
    NoCoverageError,
    UnexpectedContentError,
    refuse,
    warn,
)
from ..io.bounds import Threads
from ..survey.bitmasks import NPRIMARY
from ..survey.bricks import is_north
from ..survey.layers import INVVAR_LIMIT_ARCSEC, LAYER_PRODUCTS, Layer
from ..survey.pixel_grids import Box, TangentGrid
from ..survey.releases import PIXEL_SCALE_ARCSEC, Tree
from ..survey.request import CutoutRequest
from .assemble import lanczos3, nearest
from .coadds import Plane, observed
from .coverage import (
    LayerBricks,
    bands_with_data,
    no_data_at,
    settle,
    warn_of_absent_bands,
    warn_of_cache,
)
from .cutout_hdus import shared_out
from .plain import plane_name
from .viewer_service import BLANK, MAX_CONNECTIONS, MAX_REQUEST_PIX, ViewerService, parts_of

JOIN_MARGIN_PIX = 8

COARSE_ARCSEC = 2 * PIXEL_SCALE_ARCSEC
"""From here on it is made of images that were binned first."""


class Rendering:
    """A request for a layer, as the viewer renders it: north up, tangent at the target."""

    def __init__(self, request: CutoutRequest) -> None:
        assert request.layer is not None
        self.request = request
        self.layer: Layer = request.layer
        scale_deg = request.pixel_scale_arcsec / 3600
        middle = (request.nx - 1) / 2, (request.ny - 1) / 2
        self.grid = TangentGrid(request.ra_deg, request.dec_deg, *middle, scale_deg)

    @property
    def default_bands(self) -> tuple[str, ...]:
        """The bands that are meant where none is named: those of the layer that the target has."""
        tree = self.owner_tree
        bands = self.layer.default_bands
        return bands if tree is None else tuple(band for band in bands if band in tree.bands)

    @property
    def owner_tree(self) -> Tree | None:
        """The region of the target, if the layer is put together from regions."""
        is_of_north = is_north(self.request.ra_deg, self.request.dec_deg)
        trees = self.layer.trees
        trees.sort(key=lambda tree: (tree.region == "north") != is_of_north)
        return next(iter(trees), None)

    def asked_bands(self) -> tuple[str, ...]:
        """Return the bands that are asked for; warn of those that the target does not have."""
        layer, tree = self.layer, self.owner_tree
        if self.request.bands is None and tree is not None:
            warn_of_absent_bands(layer.default_bands, str(layer.release), tree)
        return self.request.bands or self.default_bands

    def planes(self, bands: tuple[str, ...]) -> Iterator[tuple[Plane, str, int]]:
        """Yield the planes of the result, each with the product that it is sent as, and where."""
        for product in self.request.products:
            name = self.layer.product if product == "image" else product
            of_bands = (None,) if product == "maskbits" else bands
            yield from ((Plane(name, band), product, i) for i, band in enumerate(of_bands))

    def parts(self) -> Iterator[Box]:
        """Return the boxes of the result that one rendering each can bring."""
        whole = Box(0, self.request.ny, 0, self.request.nx)
        is_small = max(whole.shape) <= MAX_REQUEST_PIX
        return iter([whole]) if is_small else parts_of(whole, JOIN_MARGIN_PIX)

    def grid_of(self, part: Box) -> tuple[TangentGrid, tuple[int, int]]:
        """Return the pixels that the viewer renders for a part, and their shape."""
        if part.shape == (self.request.ny, self.request.nx):
            return self.grid, part.shape
        ny, nx = (n + 2 * JOIN_MARGIN_PIX for n in part.shape)
        middle = (part.x0 + part.x1 - 1) / 2, (part.y0 + part.y1 - 1) / 2
        ra, dec = (float(value) for value in self.grid.to_sky(*middle))
        return TangentGrid(ra, dec, (nx - 1) / 2, (ny - 1) / 2, self.grid.scale_deg), (ny, nx)

    def parameters(self, part: Box, bands: tuple[str, ...]) -> dict[str, str | int | bool]:
        """Return the viewer's parameters for a part."""
        grid, (height, width) = self.grid_of(part)
        parameters: dict[str, str | int | bool] = {
            "ra": repr(grid.ra_deg),
            "dec": repr(grid.dec_deg),
            "layer": self.layer.name,
            "width": width,
            "height": height,
            "pixscale": repr(self.request.pixel_scale_arcsec),
        }
        if bands:
            joined = "".join(bands)
            parameters["bands"] = joined if len(joined) == len(bands) else ",".join(bands)
        flags = (name for name in ("invvar", "maskbits") if name in self.request.products)
        return parameters | dict.fromkeys(flags, True)

    def all_parameters(self) -> list[dict[str, str | int | bool]]:
        """Return the viewer's parameters for each part, with the bands that were named."""
        return [self.parameters(part, self.request.bands or ()) for part in self.parts()]


def settle_rendering(
    existing: LayerBricks,
    bands: tuple[str, ...],
    planes: dict[str, np.ndarray],
    on_missing: str,
    other_bands: Callable[[], list[str]],
) -> dict[Plane, float]:
    """Blank what the layer does not have; raise or warn; return the planes that stay, with shares.

    Where no brick is the viewer sends zeros, as it does where nothing was observed.
    """
    rendering = existing.rendering
    request, layer = rendering.request, rendering.layer
    masks, lacking = _masks(rendering, bands, planes), existing.lacking(bands)
    masks, nowhere = _explained(existing, masks, planes, lacking)
    where = no_data_at(f"Layer {layer.name}", request.ra_deg, request.dec_deg)
    existing.warn_of_nowhere(nowhere, where, on_missing)
    for band, side in lacking.items():
        _blank(planes, bands.index(band), side)
    # Where nothing tells, there is data where there is a brick.
    masks = {band: masks.get(band, ~nowhere) & ~lacking.get(band, np.False_) for band in bands}
    of_band: dict[str | None, float] = {band: float(mask.mean()) for band, mask in masks.items()}
    of_band[None] = max(of_band.values(), default=1 - float(nowhere.mean()))
    shares = {plane: of_band[plane.band] for plane, _, _ in rendering.planes(bands)}
    place = f"layer {layer.name} at RA {request.ra_deg:.6f}, Dec {request.dec_deg:+.6f}"
    message, is_named = f"{where}: the viewer sent zeros.", request.bands is not None
    shares = settle(shares, on_missing, place, message, other_bands, are_bands_named=is_named)
    for band, side in lacking.items():
        if of_band[band]:
            warn(f"{band} without values in {side.mean():.1%} of the cutout.", CoverageWarning)
    return shares


def _explained(
    existing: LayerBricks,
    masks: dict[str, np.ndarray],
    planes: dict[str, np.ndarray],
    lacking: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return masks without what interpolation made, and where no brick is, which is blanked."""
    request = existing.rendering.request
    is_full = bool(masks) and all(mask.all() for mask in masks.values())
    if is_full or not existing.rendering.layer.trees:
        return masks, np.zeros((request.ny, request.nx), bool)
    nowhere = existing.count == 0
    _blank(planes, slice(None), nowhere)
    if request.pixel_scale_arcsec < COARSE_ARCSEC:
        masks = _without_ringing(existing, masks, planes, nowhere, lacking)
    return masks, nowhere


def _evidence(rendering: Rendering, planes: dict[str, np.ndarray]) -> list[str]:
    """Return which planes tell what was observed, the surest first; a model does not."""
    names = ("invvar",) if rendering.layer.product == "model" else ("invvar", "image")
    return [name for name in names if name in planes]


def _masks(
    rendering: Rendering, bands: tuple[str, ...], planes: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return which pixels of each band were observed, as far as the planes tell it."""
    masks: dict[str, np.ndarray] = {}
    for name in _evidence(rendering, planes)[:1]:
        masks = {band: observed(name, planes[name][i]) for i, band in enumerate(bands)}
    return masks


def _without_ringing(
    existing: LayerBricks,
    masks: dict[str, np.ndarray],
    planes: dict[str, np.ndarray],
    nowhere: np.ndarray,
    lacking: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return masks without the pixels that interpolation alone made other than zero."""
    # An inverse variance rings below zero, where it was made zero.
    has_image = "image" in _evidence(existing.rendering, planes)
    result = {}
    for i, (band, mask) in enumerate(masks.items()):
        border = nowhere | lacking.get(band, np.False_)
        is_zero = planes["image"][i] == 0 if has_image else ~mask
        result[band] = mask & ~existing.unobserved(is_zero, border)
    return result


def _blank(planes: dict[str, np.ndarray], bands: int | slice, where: np.ndarray) -> None:
    """Set pixels, which no file has, of planes of bands to what stands for that."""
    for name, empty in (("image", np.nan), ("invvar", 0)):
        if name in planes:
            planes[name][bands][..., where] = empty
    if "maskbits" in planes and isinstance(bands, slice):
        planes["maskbits"][..., where] = NPRIMARY


def check_layer_request(request: CutoutRequest) -> None:
    """Refuse what the viewer would answer with something else."""
    layer = Rendering(request).layer
    if not layer.fits:
        refuse("layer", layer.name, "has pictures only: see LegacySurvey.get_picture.")
    if layer.bands and not set(request.bands or ()) <= set(layer.bands):
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
    bands = rendering.asked_bands()
    parts = list(rendering.parts())
    with Threads(MAX_CONNECTIONS, "astroquery_lis-viewer") as pool:
        answers = list(pool.map(lambda part: _render(rendering, service, part, bands), parts))
    bands = bands or answers[0][0]
    planes = _join(rendering, parts, [planes for _, planes in answers])
    existing = LayerBricks(rendering, service)
    if "invvar" in planes:
        planes["invvar"] = shared_out(planes["invvar"], existing.count)
    others = partial(_other_bands, rendering, service)
    shares = settle_rendering(existing, bands, planes, on_missing, others)
    warn_of_cache(service.cache_error)
    return _hdulist(rendering, service, bands, planes, shares)


def _other_bands(rendering: Rendering, service: ViewerService) -> list[str]:
    """Return the bands of the layer, beside those that were asked for, that have data."""
    request, default = rendering.request, rendering.default_bands
    if request.bands is None or set(default) <= set(request.bands):
        return []
    others = replace(request, products=("image",), bands=None)
    return bands_with_data(lambda: viewer_cutout(others, service, on_missing="warn"))


def _render(
    rendering: Rendering, service: ViewerService, part: Box, bands: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Return the bands and the checked planes of one rendering: ``{'image': (n, ny, nx), ...}``."""
    parameters, (grid, shape) = rendering.parameters(part, bands), rendering.grid_of(part)
    box = grid.ra_deg, grid.dec_deg, grid.scale_deg * max(part.shape) / 2
    url = service.address("cutout.fits", **parameters)
    with service.fits("cutout.fits", box=box, **parameters) as hdul:
        return _planes_of(hdul, rendering.request.products, bands, shape, url)


def _hdus_of(hdul: fits.HDUList, products: tuple[str, ...], url: str) -> dict[str, fits.ImageHDU]:
    """Return the images of an answer by kind; refuse one that lacks what was asked."""
    hdus = {
        str(hdu.header.get("IMAGETYP", "IMAGE")).strip().lower(): hdu
        for hdu in hdul
        if hdu.data is not None
    }
    absent = [product for product in products if product not in hdus]
    if absent:
        msg = f"{url} sent no {absent[0]}."
        raise UnexpectedContentError(msg, url=url)
    return hdus


def _planes_of(
    hdul: fits.HDUList,
    products: tuple[str, ...],
    bands: tuple[str, ...],
    shape: tuple[int, int],
    url: str,
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Return the bands and the planes of an answer, which is compared with what was asked."""
    hdus = _hdus_of(hdul, ("image", *products), url)
    header = hdus["image"].header
    sent = tuple(str(card.value).strip() for card in header["BAND[0-9]*"].cards)
    if sent not in ((), bands or sent):
        msg = f"{url} sent bands {''.join(sent)} when {''.join(bands)} were asked."
        raise UnexpectedContentError(msg, url=url)
    if not bands + sent:
        msg = f"{url} does not tell its bands; name them with bands=."
        raise UnexpectedContentError(msg, url=url)
    numbers = dict.fromkeys(products, len(bands)) | {"maskbits": 1}
    planes = {name: _cube(hdus[name], name, (numbers[name], *shape), url) for name in products}
    if "maskbits" in planes:
        # The viewer takes the last brick's mask, so the bit flips at random at borders.
        planes["maskbits"] = _whole_numbers(planes["maskbits"], url) & ~np.int32(NPRIMARY)
    return sent, planes


def _cube(hdu: fits.ImageHDU, product: str, shape: tuple[int, int, int], url: str) -> np.ndarray:
    """Return the pixels of an image, (n, ny, nx), which is refused if it has another shape.

    Of a layer of unknown bands, none, any number is taken.
    """
    data = hdu.data.reshape(-1, *hdu.data.shape[-2:])
    expected = (shape[0] or len(data), *shape[1:])
    if data.shape != expected:
        msg = f"{url} sent {product} of shape {data.shape}; {expected} was asked."
        raise UnexpectedContentError(msg, url=url)
    return data.astype(data.dtype.newbyteorder("="))


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
    if len(parts) == 1:
        return answers[0]
    shape = rendering.request.ny, rendering.request.nx
    joined = {
        name: np.empty((len(first), *shape), first.dtype) for name, first in answers[0].items()
    }
    for part, answer in zip(parts, answers, strict=True):
        grid, _ = rendering.grid_of(part)
        sky = rendering.grid.to_sky(*reversed(np.mgrid[part.slices]))
        x, y = (value.ravel() for value in grid.to_pixel(*sky))
        for name, planes in answer.items():
            take = lanczos3 if name == "image" else nearest
            for plane, source in zip(joined[name], planes, strict=True):
                plane[part.slices] = take(source, y, x).reshape(part.shape)
    return joined


def _hdulist(
    rendering: Rendering,
    service: ViewerService,
    all_bands: tuple[str, ...],
    planes: dict[str, np.ndarray],
    shares: dict[Plane, float],
) -> fits.HDUList:
    bands = tuple(dict.fromkeys(plane.band for plane in shares if plane.band))
    first = next(rendering.parts())
    url = service.address("cutout.fits", **rendering.parameters(first, all_bands))
    hdus = [_primary(rendering, service, bands)]
    for plane, product, number in rendering.planes(all_bands):
        if plane in shares:
            hdu = _plane_hdu(rendering, plane, planes[product][number])
            share = round(shares[plane], 6)
            hdu.header["OBSFRAC"] = (share, "share of the pixels that were observed")
            hdu.header["URL1"] = url
            hdus.append(hdu)
    return fits.HDUList(hdus)


def _plane_hdu(rendering: Rendering, plane: Plane, pixels: np.ndarray) -> fits.ImageHDU:
    """Return an image of a rendering, with flux per pixel of it if that was asked."""
    request, layer, unit = rendering.request, rendering.layer, ""
    per_arcsec = request.pixel_scale_arcsec if request.convert_flux else layer.pixel_scale_arcsec
    factor = (per_arcsec / layer.pixel_scale_arcsec) ** 2
    if plane.product == "invvar":
        pixels, unit = pixels / np.float32(factor**2), layer.unit and f"1/{layer.unit}^2"
    elif plane.band is not None:
        pixels, unit = pixels * np.float32(factor), layer.unit
    header = fits.Header(rendering.grid.cards())
    header["BUNIT"] = (unit, "unit of the pixels")
    if plane.band is not None:
        header["BAND"] = (plane.band, "filter band")
        header["FLUXPIX"] = (per_arcsec, "[arcsec] side of the pixel that flux is per")
    header["PRODUCT"] = plane.product
    return fits.ImageHDU(pixels, header, name=plane_name(plane.product, plane.band))


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
