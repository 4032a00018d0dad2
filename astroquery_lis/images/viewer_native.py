"""Native brick pixels out of the viewer: the route ``cutout.fits?...&subimage``.

It is the only one that passes brick pixels on as they are, brick by brick, with an invvar that is
not summed over overlapping bricks.  `ViewerSections` answers the same questions as the reader of
brick files, so that a cutout made of it is put together by the same code.
"""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..exceptions import InvalidRequestError, NoCoverageError, UnexpectedContentError
from ..survey.bricks import IMAGE_SIZE_PIX, brick_grid, parse_brick_name
from ..survey.layers import layer_of
from ..survey.pixel_grids import Box
from .sections import Section
from .viewer_service import MAX_CONNECTIONS, MAX_REQUEST_PIX

__all__ = ["NATIVE_PRODUCTS", "ViewerSections"]

NATIVE_PRODUCTS = ("image", "invvar", "model")
"""What the viewer gives as native pixels; the rest it resamples, or does not have."""

SLACK_PIX = 2
"""Asked for beyond the box on each side: the viewer rounds the middle to a pixel in its own way."""


class ViewerSections:
    """Reads boxes of brick images through the viewer. A context manager, for one request."""

    source_name = "viewer"

    def __init__(self, service):
        self._service = service

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass

    def read(self, requests):
        """Read many boxes; as `~.reader.SectionReader.read`."""
        groups = defaultdict(list)
        for request in requests:
            tree, brick, product, _ = request.source
            if product not in NATIVE_PRODUCTS:
                msg = (
                    f"products={product!r} cannot be had from the viewer as native pixels; it has "
                    f"{', '.join(NATIVE_PRODUCTS)}. Take source='bricks'."
                )
                raise InvalidRequestError(msg, parameter="products", value=product)
            shown = "model" if product == "model" else "image"
            layer = layer_of(tree.release, tree.region, shown).name
            groups[layer, brick, request.box].append(request)
        with ThreadPoolExecutor(MAX_CONNECTIONS, "astroquery_lis-viewer") as pool:
            answers = dict(zip(groups, pool.map(self._read_brick, groups.items()), strict=True))
        found = {request: s for group in answers.values() for request, s in group.items()}
        return [found[request] for request in requests]

    def has(self, requests):
        """Tell which files there are; as `~.reader.SectionReader.has`."""
        middle = IMAGE_SIZE_PIX // 2
        one_pixel = Box(middle, middle + 1, middle, middle + 1)
        moved = [type(r)(r.paths, one_pixel, r.source) for r in requests]
        return [section.pixels is not None for section in self.read(moved)]

    def _read_brick(self, group):
        """Return ``{request: section}`` of the requests for one box of one brick."""
        (layer, brick, box), requests = group
        bands = "".join(dict.fromkeys(request.source[3] for request in requests))
        pixels, address = {}, ""
        for part in _parts(box):
            images, address = self._read_part(layer, brick, part, bands)
            where = part.moved(-box.y0, -box.x0).slices
            for key, image in images.items():
                whole = pixels.setdefault(key, np.full(box.shape, np.nan, image.dtype))
                whole[where] = image
        sections = {}
        for request in requests:
            _, _, product, band = request.source
            image = pixels.get(("invvar" if product == "invvar" else "image", band))
            error = self._service.cache_error
            sections[request] = Section(image, address, self._service.url, None, error)
        return sections

    def _read_part(self, layer, brick, part, bands):
        """Return ``{(kind, band): pixels}`` of a part that one request can bring, and its URL."""
        grid = brick_grid(parse_brick_name(brick))
        ny, nx = part.shape
        ra, dec = grid.to_sky((part.x0 + part.x1 - 1) / 2, (part.y0 + part.y1 - 1) / 2)
        parameters = {
            "ra": f"{float(ra):.8f}",
            "dec": f"{float(dec):.8f}",
            "layer": layer,
            "width": nx + 2 * SLACK_PIX,
            "height": ny + 2 * SLACK_PIX,
            "bands": bands,
            "subimage": True,
        }
        address = self._service.address("cutout.fits", **parameters)
        radius_deg = grid.scale_deg * max(ny, nx) / 2
        try:
            box = (float(ra), float(dec), radius_deg)
            hdul = self._service.fits("cutout.fits", box=box, **parameters)
        except NoCoverageError:
            return {}, address
        images = {}
        for hdu in hdul[1:]:
            header = hdu.header
            if str(header.get("BRICK", "")).strip() != brick:
                continue
            kind, band = str(header.get("IMAGETYP")).strip(), str(header.get("BAND")).strip()
            images[kind, band] = _cut(hdu, part, address)
        return images, address


def _parts(box):
    """Yield the parts of a box that are small enough for a request."""
    step = MAX_REQUEST_PIX - 2 * SLACK_PIX
    for y0 in range(box.y0, box.y1, step):
        for x0 in range(box.x0, box.x1, step):
            yield Box(y0, min(y0 + step, box.y1), x0, min(x0 + step, box.x1))


def _cut(hdu, part, address):
    """Return the pixels of a part out of what the viewer sent of the brick."""
    try:
        y0, x0 = int(hdu.header["BRICK_Y0"]), int(hdu.header["BRICK_X0"])
    except (KeyError, ValueError) as error:
        msg = f"{address} sent brick pixels without their place in the brick."
        raise UnexpectedContentError(msg, url=address, cause=error) from error
    inner = part.moved(-y0, -x0)
    if not inner.is_within(*hdu.shape):
        msg = (
            f"{address} sent rows {y0}-{y0 + hdu.shape[0]} and columns {x0}-{x0 + hdu.shape[1]} "
            f"of the brick; {part} was asked."
        )
        raise UnexpectedContentError(msg, url=address)
    pixels = hdu.data[inner.slices]
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
