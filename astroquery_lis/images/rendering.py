"""A rendering of the viewer laid over the bricks: what it asks for, and where there was nothing.

The viewer sends zeros where no brick is, as it does where nothing was observed, and where a region
has no such band.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property

import numpy as np

from ..exceptions import CoverageWarning, NoCoverageError, TransferError, warn
from ..survey.bitmasks import NPRIMARY
from ..survey.bricks import brick_grid, brick_id, is_north, name_of
from ..survey.layers import Layer, layer_of
from ..survey.owners import EDGE_PIX, images_over
from ..survey.pixel_grids import Box, TangentGrid
from ..survey.releases import PIXEL_SCALE_ARCSEC, Tree
from ..survey.request import CutoutRequest
from .coadds import Plane, observed
from .coverage import no_data_at, settle
from .planes import bricks_under, shared_out
from .viewer_service import MAX_REQUEST_PIX, ViewerService, parts_of

JOIN_MARGIN_PIX = 8

KERNEL_PIX = 3
"""Pixels of a brick on either side that a rendered one is interpolated from, up to a scale."""

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
        same = [tree for tree in trees if (tree.region == "north") == is_of_north]
        return next(iter(same or trees), None)

    def parts(self) -> Iterator[Box]:
        """Return the boxes of the result that one rendering each can bring."""
        whole = Box(0, self.request.ny, 0, self.request.nx)
        is_small = max(whole.shape) <= MAX_REQUEST_PIX
        return iter([whole]) if is_small else parts_of(whole, JOIN_MARGIN_PIX)

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


class LayerBricks:
    """The bricks that a rendering is made of, asked for when they matter."""

    def __init__(self, rendering: Rendering, service: ViewerService) -> None:
        self.rendering, self._service = rendering, service

    @cached_property
    def count(self) -> np.ndarray | None:
        """How many bricks' images hold each pixel; `None` if the layer is not made of bricks."""
        request, trees = self.rendering.request, self.rendering.layer.trees
        if not trees:
            return None
        shape, (ra, dec) = (request.ny, request.nx), self.sky
        count, north = np.zeros(shape), is_north(ra, dec)
        place, scale_deg = (request.ra_deg, request.dec_deg), self.rendering.grid.scale_deg
        near, radius_deg = bricks_under(*place, scale_deg, shape)
        for tree in trees:
            own = north == (tree.region == "north") if len(trees) == 2 else np.True_
            part = layer_of(tree.release, tree.region)
            bricks = near.tolist()
            with suppress(TransferError):
                # Where the viewer does not say which it has, all are counted.
                names = self._service.bricks(part.name, *place, radius_deg)
                bricks = [brick for brick in bricks if name_of(brick) in names]
            count += np.where(own, images_over(bricks, ra, dec), 0)
        return count

    def without_doubling(self, invvar: np.ndarray) -> np.ndarray:
        """Divide the inverse variance by the number of bricks that the viewer added up."""
        count = self.count if self.count is not None else np.ones(invvar.shape[1:])
        return shared_out(invvar, count)

    @cached_property
    def sky(self) -> tuple[np.ndarray, np.ndarray]:
        """RA and Dec of each pixel."""
        y, x = np.mgrid[: self.rendering.request.ny, : self.rendering.request.nx]
        return self.rendering.grid.to_sky(x, y)

    @cached_property
    def brick_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Place of each pixel on the grid of the target's brick, x and y."""
        request = self.rendering.request
        return brick_grid(int(brick_id(request.ra_deg, request.dec_deg))).to_pixel(*self.sky)


def _lacking(existing: LayerBricks, bands: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return where a layer of two regions has no such band, of the bands that one of them lacks."""
    trees = existing.rendering.layer.trees
    regions = {b: t.region for t in trees for b in bands if b not in t.bands and len(trees) == 2}
    if not regions:
        return {}
    north = is_north(*existing.sky)
    sides = {band: north == (region == "north") for band, region in regions.items()}
    return {band: side for band, side in sides.items() if side.any()}


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
    masks, lacking = _masks(rendering, bands, planes), _lacking(existing, bands)
    nowhere = np.zeros((request.ny, request.nx), bool)
    is_full = bool(masks) and all(mask.all() for mask in masks.values())
    if not is_full and existing.count is not None:
        nowhere = existing.count == 0
        _blank(planes, slice(None), nowhere)
        if request.pixel_scale_arcsec < COARSE_ARCSEC:
            masks = _without_ringing(existing, masks, planes, nowhere, lacking)
    where = no_data_at(f"Layer {layer.name}", request.ra_deg, request.dec_deg)
    if nowhere.any() and not nowhere.all():
        _check_target(rendering, nowhere, where, on_missing)
        lost = dict.fromkeys(name_of(brick_id(*(v[nowhere] for v in existing.sky))).tolist())
        what = f"{layer.name} lacks {', '.join(lost)}"
        warn(f"{nowhere.mean():.1%} of the cutout is without values: {what}.", CoverageWarning)
    covered = 1 - float(nowhere.mean())
    of_band = {band: float(mask.mean()) for band, mask in masks.items()}
    for band, side in lacking.items():
        _blank(planes, bands.index(band), side)
        share = (masks[band] & ~side).mean() if masks else covered - side.mean()
        of_band[band] = float(share)
    shares = _shares(rendering, bands, of_band, covered)
    place = f"layer {layer.name} at RA {request.ra_deg:.6f}, Dec {request.dec_deg:+.6f}"
    message, is_named = f"{where}: the viewer sent zeros.", request.bands is not None
    kept = settle(shares, on_missing, place, message, other_bands, are_bands_named=is_named)
    for band, side in lacking.items():
        if of_band[band]:
            warn(f"{band} without values in {side.mean():.1%} of the cutout.", CoverageWarning)
    return {plane: shares[plane] for plane in kept}


def _masks(
    rendering: Rendering, bands: tuple[str, ...], planes: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return which pixels of each band were observed, as far as the planes tell it."""
    evidence = "invvar" if "invvar" in planes else "image"
    tells = evidence in planes and (evidence == "invvar" or rendering.layer.product != "model")
    return {band: observed(evidence, planes[evidence][i]) for i, band in enumerate(bands) if tells}


def _without_ringing(
    existing: LayerBricks,
    masks: dict[str, np.ndarray],
    planes: dict[str, np.ndarray],
    nowhere: np.ndarray,
    lacking: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return masks without the pixels that interpolation alone made other than zero."""
    # An inverse variance rings below zero, where it was made zero.
    has_image = "image" in planes and existing.rendering.layer.product != "model"
    result = {}
    for i, (band, mask) in enumerate(masks.items()):
        border = nowhere | lacking.get(band, np.False_)
        is_zero = planes["image"][i] == 0 if has_image else ~mask
        result[band] = mask & ~_unobserved(is_zero, border, existing)
    return result


def _unobserved(is_zero: np.ndarray, border: np.ndarray, existing: LayerBricks) -> np.ndarray:
    """Return where the nearest pixel of the brick was not observed, as zeros about it tell.

    Interpolation smears what was observed into what was not: no pixel of the brick within the reach
    of the kernel about a zero was observed, unless the images end there.
    """
    if not is_zero.any():
        return is_zero
    from scipy.ndimage import maximum_filter

    x, y = existing.brick_pixels
    x0, y0 = (int(np.floor(values.min())) - KERNEL_PIX for values in (x, y))
    shape = [int(v.max()) - start + 2 * KERNEL_PIX for v, start in ((y, y0), (x, x0))]
    blank = np.zeros(shape, bool)
    is_zero = is_zero & ~maximum_filter(border, 2 * EDGE_PIX + 3)
    rows, columns = (np.floor(v[is_zero]).astype(int) - start for v, start in ((y, y0), (x, x0)))
    # The kernel's even number of pixels: an odd number about both that a zero is between.
    for step in (0, 1):
        blank[rows, columns + step] = blank[rows + 1, columns + step] = True
    blank = maximum_filter(blank, 2 * KERNEL_PIX - 1)
    return blank[np.rint(y).astype(int) - y0, np.rint(x).astype(int) - x0]


def _shares(
    rendering: Rendering, bands: tuple[str, ...], of_band: dict[str, float], covered: float
) -> dict[Plane, float]:
    """Return the share of each plane that was observed, by default ``covered``."""
    shares: dict[Plane, float] = {}
    for product in rendering.request.products:
        if product == "maskbits":
            shares[Plane(product, None)] = max(of_band.values(), default=covered)
            continue
        name = rendering.layer.product if product == "image" else product
        shares |= {Plane(name, band): of_band.get(band, covered) for band in bands}
    return shares


def _blank(planes: dict[str, np.ndarray], bands: int | slice, where: np.ndarray) -> None:
    """Set pixels, which no file has, of planes of bands to what stands for that."""
    for name, empty in (("image", np.nan), ("invvar", 0)):
        if name in planes:
            planes[name][bands][..., where] = empty
    if "maskbits" in planes and isinstance(bands, slice):
        planes["maskbits"][..., where] = NPRIMARY


def _check_target(rendering: Rendering, nowhere: np.ndarray, msg: str, on_missing: str) -> None:
    request = rendering.request
    if on_missing == "raise" and nowhere[(request.ny - 1) // 2, (request.nx - 1) // 2]:
        msg += ": no brick is there. Take on_missing='warn' for the part of the box that has some."
        raise NoCoverageError(msg)
