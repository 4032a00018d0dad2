"""Cutouts rendered by the viewer: any layer, any pixel scale, every trap of the service checked.

The grid is the viewer's own: TAN, north up, tangent at the target.  What the answer holds is
compared with what was asked; what the viewer is known to do to pixels is undone or said in the
header.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from json import dumps

import numpy as np
from astropy.io import fits

from .._packages import package_version
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
from ..survey.bricks import IMAGE_SIZE_PIX, brick_grid, is_north, name_of
from ..survey.layers import INVVAR_LIMIT_ARCSEC, get_layer, layer_of
from ..survey.pixel_grids import Box, TangentGrid
from ..survey.releases import RELEASES
from ..survey.sphere import bricks_in_circle
from .resample import lanczos3, nearest
from .viewer_service import MAX_CONNECTIONS, MAX_REQUEST_PIX

__all__ = ["VIEWER_PRODUCTS", "ViewerRequest", "viewer_cutout"]

VIEWER_PRODUCTS = ("image", "invvar", "maskbits")
"""What a layer can be asked for; ``image`` is whatever the layer shows."""

JOIN_MARGIN_PIX = 8
NPRIMARY = 1
EDGE_PIX = 2


@dataclass(frozen=True)
class ViewerRequest:
    """One cutout as the viewer renders it."""

    ra_deg: float
    dec_deg: float
    ny: int
    nx: int
    layer: str
    products: tuple
    bands: tuple | None
    pixel_scale_arcsec: float
    convert_flux: bool = False

    @property
    def key(self):
        """Sha256 of the request in canonical form, hexadecimal."""
        text = dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return sha256(text.encode()).hexdigest()

    @property
    def grid(self):
        """The pixel grid of the result."""
        scale_deg = self.pixel_scale_arcsec / 3600
        middle = (self.nx - 1) / 2, (self.ny - 1) / 2
        return TangentGrid(self.ra_deg, self.dec_deg, *middle, scale_deg)

    def parts(self):
        """Yield the boxes of the result that one rendering each can bring."""
        whole = Box(0, self.ny, 0, self.nx)
        if max(self.ny, self.nx) <= MAX_REQUEST_PIX:
            yield whole
            return
        step = MAX_REQUEST_PIX - 2 * JOIN_MARGIN_PIX
        for y0 in range(0, self.ny, step):
            for x0 in range(0, self.nx, step):
                yield Box(y0, min(y0 + step, self.ny), x0, min(x0 + step, self.nx))

    def parameters(self, part, bands):
        """Return the viewer's parameters for a part."""
        whole = part.shape == (self.ny, self.nx)
        margin = 0 if whole else JOIN_MARGIN_PIX
        middle = (part.x0 + part.x1 - 1) / 2, (part.y0 + part.y1 - 1) / 2
        ra, dec = (self.ra_deg, self.dec_deg) if whole else self.grid.to_sky(*middle)
        return {
            "ra": repr(float(ra)),
            "dec": repr(float(dec)),
            "layer": self.layer,
            "width": part.shape[1] + 2 * margin,
            "height": part.shape[0] + 2 * margin,
            "pixscale": repr(self.pixel_scale_arcsec),
            "bands": ("," if any(len(band) > 1 for band in bands) else "").join(bands) or None,
            "invvar": True if "invvar" in self.products else None,
            "maskbits": True if "maskbits" in self.products else None,
        }


def check_viewer_request(request, *, allow_unknown_layer=False):
    """Refuse what the viewer would answer with something else."""
    layer = get_layer(request.layer, allow_unknown=allow_unknown_layer)
    if not layer.fits:
        msg = f"layer={layer.name!r} has pictures only: see LegacySurvey.get_picture."
        raise InvalidRequestError(msg, parameter="layer", value=layer.name)
    unknown = [band for band in request.bands or () if layer.bands and band not in layer.bands]
    if unknown:
        msg = f"bands={request.bands!r}: layer {layer.name} has {', '.join(layer.bands)}."
        raise InvalidRequestError(msg, parameter="bands", value=request.bands)
    for product in request.products:
        reason = ""
        if product not in VIEWER_PRODUCTS:
            reason = f"the viewer's layers have {', '.join(VIEWER_PRODUCTS)}"
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


def viewer_cutout(request, service, *, on_missing="raise", allow_unknown_layer=False):
    """Ask the viewer for a cutout and check the answer."""
    check_viewer_request(request, allow_unknown_layer=allow_unknown_layer)
    layer = get_layer(request.layer, allow_unknown=allow_unknown_layer)
    bands = request.bands or layer.default_bands
    parts = list(request.parts())
    with ThreadPoolExecutor(MAX_CONNECTIONS, "astroquery_lis-viewer") as pool:
        answers = list(pool.map(lambda part: _render(request, service, part, bands), parts))
    bands = bands or answers[0]["bands"]
    planes = _join(request, parts, answers)
    if "invvar" in planes:
        planes["invvar"] = _without_doubling(request, service, layer, planes["invvar"])
    lacking = _lacking(request, layer, bands, planes)
    bands = _settle(request, layer, bands, planes, lacking, on_missing)
    if service.cache_error is not None:
        msg = f"The result is not cached: {service.cache_error}"
        warn(msg, CacheWarning)
    return _hdulist(request, service, layer, bands, planes)


def _render(request, service, part, bands):
    """Return the checked planes of one rendering: ``{'image': (n, ny, nx), ...}``."""
    parameters = request.parameters(part, bands)
    ra, dec = float(parameters["ra"]), float(parameters["dec"])
    radius_deg = request.grid.scale_deg * max(part.shape)
    hdul = service.fits("cutout.fits", box=(ra, dec, radius_deg), **parameters)
    url = service.address("cutout.fits", **parameters)
    found = {str(hdu.header.get("IMAGETYP", "IMAGE")).strip().lower(): hdu for hdu in hdul}
    if found.get("image") is None or found["image"].data is None:
        msg = f"{url} sent no image."
        raise UnexpectedContentError(msg, url=url)
    header = found["image"].header
    sent = tuple(str(card.value).strip() for card in header["BAND[0-9]*"].cards)
    if bands and sent and sent != tuple(bands):
        msg = f"{url} sent bands {''.join(sent)} when {''.join(bands)} were asked."
        raise UnexpectedContentError(msg, url=url)
    planes = {"bands": sent}
    shape = parameters["height"], parameters["width"]
    for product in request.products:
        if product not in found:
            msg = f"{url} sent no {product}."
            raise UnexpectedContentError(msg, url=url)
        data = found[product].data
        data = data.reshape(-1, *data.shape[-2:])
        expected = 1 if product == "maskbits" else len(bands) or len(data)
        if data.shape != (expected, *shape):
            msg = f"{url} sent {product} of shape {data.shape}; {(expected, *shape)} was asked."
            raise UnexpectedContentError(msg, url=url)
        planes[product] = data.astype(data.dtype.newbyteorder("="))
    if "maskbits" in planes:
        planes["maskbits"] = _whole_numbers(planes["maskbits"], url)
    return planes


def _whole_numbers(mask, url):
    """Return a mask as integers; across the split the viewer sends it as floats."""
    if mask.dtype.kind in "iu":
        return mask.astype(np.int32)
    if not np.array_equal(mask, np.rint(mask)) or mask.min() < 0:
        msg = f"{url} sent a mask that is no set of bits."
        raise UnexpectedContentError(msg, url=url)
    return mask.astype(np.int32)


def _join(request, parts, answers):
    """Put the parts of a large cutout on one grid."""
    if len(parts) == 1:
        return {name: answers[0][name] for name in request.products}
    joined = {}
    for name in request.products:
        first = answers[0][name]
        joined[name] = np.empty((len(first), request.ny, request.nx), first.dtype)
    for part, answer in zip(parts, answers, strict=True):
        ra, dec = request.grid.to_sky(*reversed(np.mgrid[part.slices]))
        parameters = request.parameters(part, ())
        middle = (parameters["width"] - 1) / 2, (parameters["height"] - 1) / 2
        own = TangentGrid(
            float(parameters["ra"]), float(parameters["dec"]), *middle, request.grid.scale_deg
        )
        x, y = (value.ravel() for value in own.to_pixel(ra, dec))
        for name, planes in joined.items():
            take = lanczos3 if name == "image" else nearest
            for plane, source in zip(planes, answer[name], strict=True):
                plane[part.slices] = take(source, y, x).reshape(part.shape)
    return joined


def _sky(request):
    y, x = np.mgrid[: request.ny, : request.nx]
    return request.grid.to_sky(x, y)


def _trees(layer):
    """Return the regions that a layer of the Legacy Surveys is put together from."""
    if layer.release is None or layer.region is None:
        return []
    trees = RELEASES[layer.release].trees
    return [trees[r] for r in trees if layer.region in (r, "auto")]


def _without_doubling(request, service, layer, invvar):
    """Divide the inverse variance by the number of bricks that the viewer added up."""
    count = np.zeros(invvar.shape[1:])
    ra, dec = _sky(request)
    radius_deg = request.grid.scale_deg * max(invvar.shape[1:]) * 0.75
    near = bricks_in_circle(request.ra_deg, request.dec_deg, radius_deg + 0.02)
    north = is_north(ra, dec)
    for tree in _trees(layer):
        own = north == (tree.region == "north") if len(_trees(layer)) == 2 else np.True_
        part = layer_of(tree.release, tree.region)
        for brick in _existing(service, part, near, request, radius_deg):
            x, y = brick_grid(brick).to_pixel(ra, dec)
            low, high = -0.5 - EDGE_PIX, IMAGE_SIZE_PIX - 0.5 + EDGE_PIX
            count += own & (x > low) & (x < high) & (y > low) & (y < high)
    # Interpolation makes it ring below zero beside pixels without weight.
    return np.clip(invvar, 0, None) / np.maximum(count, 1).astype(np.float32)


def _existing(service, layer, near, request, radius_deg):
    """Return those of the bricks ``near`` that a layer has; all of them if it does not say."""
    try:
        names = service.bricks(layer.name, request.ra_deg, request.dec_deg, radius_deg)
    except TransferError:
        return near.tolist()
    return [int(brick) for brick in near if name_of(int(brick)) in names]


def _lacking(request, layer, bands, planes):
    """Return, for each band, where the layer has no such data: an array of bool, or all or none."""
    nowhere, everywhere = np.False_, np.True_
    lacking = dict.fromkeys(bands, nowhere)
    trees = _trees(layer)
    if len(trees) == 2:
        north = is_north(*_sky(request))
        for tree in trees:
            side = north == (tree.region == "north")
            for band in bands:
                if band not in tree.bands and side.any():
                    lacking[band] = everywhere if side.all() else side
    if layer.product != "model" and "image" in planes:
        for number, band in enumerate(bands):
            if not planes["image"][number].any():
                lacking[band] = everywhere
    return lacking


def _settle(request, layer, bands, planes, lacking, on_missing):
    """Blank what the layer does not have; raise or warn; return the bands of the result."""
    gone = [band for band in bands if lacking[band] is np.True_]
    at = f"RA {request.ra_deg:.6f}, Dec {request.dec_deg:+.6f}"
    if gone and len(gone) == len(bands):
        msg = f"Layer {layer.name} has no data at {at}: the viewer sent zeros."
        raise NoCoverageError(msg)
    if gone:
        have = [band for band in bands if band not in gone]
        msg = f"No {', '.join(gone)} in layer {layer.name} at {at}; it has {', '.join(have)}."
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
    return bands if request.bands is not None else tuple(b for b in bands if b not in gone)


def _hdulist(request, service, layer, bands, planes):
    all_bands = request.bands or layer.default_bands or bands
    factor = (request.pixel_scale_arcsec / layer.pixel_scale_arcsec) ** 2
    factor = factor if request.convert_flux else 1.0
    per_arcsec = request.pixel_scale_arcsec if request.convert_flux else layer.pixel_scale_arcsec
    url = service.address("cutout.fits", **request.parameters(next(request.parts()), all_bands))
    cards = request.grid.cards()
    hdus = [_primary(request, service, layer, bands)]
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
                name = f"{name}_{band}"
            header["PRODUCT"] = product if product != "image" else layer.product
            header["URL1"] = url
            hdus.append(fits.ImageHDU(data, header, name=name.upper()))
    return fits.HDUList(hdus)


def _primary(request, service, layer, bands):
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
