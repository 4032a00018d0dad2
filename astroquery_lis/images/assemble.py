"""The pieces of several bricks put together on one grid: native, interpolated, or made coarser."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from .._packages import import_optional
from ..survey.bitmasks import NPRIMARY
from ..survey.paths import CoaddProduct
from ..survey.pixel_grids import Box, SkyGrid
from ..survey.placement import Piece, Placement, image_grid, row_blocks

COARSE_RATIO = 1.2
"""Pixel area, relative to the native one, above which a kernel between pixels would alias."""

_TAPS = np.arange(-2, 4)

FRACTIONS = 1 << 14
"""Fractions of a pixel that the kernel is tabulated for: half a step is 3e-5 of a pixel."""

KNOT_PIX = 32
"""Between pixels so far apart places are interpolated with cubics."""

EXACT_PIX = 1e-4
"""Where cubics miss places by more than this, every pixel is computed."""

_Coordinates = tuple[Box, np.ndarray, np.ndarray, np.ndarray]


class Assembler:
    """Puts planes of one cutout together."""

    def __init__(self, placement: Placement, area_ratio: float = 1.0) -> None:
        assert placement.labels is not None
        self._placement = placement
        self._labels = placement.labels
        self._area_ratio = area_ratio

    def put(self, result: np.ndarray, product: CoaddProduct, i: int, pixels: np.ndarray) -> None:
        """Put what a piece contributes into a plane."""
        placement, piece = self._placement, self._placement.pieces[i]
        if piece.is_owner:
            first = piece.read
            for block in row_blocks(first, KNOT_PIX):
                where = block.moved(-placement.box.y0, -placement.box.x0)
                inside = self._labels.of(where) == i
                part = pixels[block.moved(-first.y0, -first.x0).slices]
                result[where.slices][inside] = part[inside]
        elif product.interpolated and self._area_ratio > COARSE_RATIO:
            for block, values in _coarse_image(pixels, piece, placement):
                inside = self._labels.of(block) == i
                result[block.slices][inside] = values[inside]
        else:
            native = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))
            self._interpolate(product, native, i, result)

    def _interpolate(
        self, product: CoaddProduct, pixels: np.ndarray, i: int, result: np.ndarray
    ) -> None:
        has_blanks = product.name == "image" and not pixels.all()
        for block, inside, y, x in self._coordinates(i):
            if product.interpolated:
                values = lanczos3(pixels, y, x)
                if has_blanks:
                    # What was observed is not smeared into what was not.
                    values[nearest(pixels, y, x) == 0] = 0
            else:
                values = nearest(pixels, y, x)
            if product.name == "maskbits":
                # The nearest pixel may lie across the border; the position does not.
                bit = values.dtype.type(NPRIMARY)
                values = values | bit if self._placement.pieces[i].is_spare else values & ~bit
            result[block.slices][inside] = _scaled(product, values, self._area_ratio)

    def _coordinates(self, i: int) -> Iterator[_Coordinates]:
        """Yield blocks, which of their pixels are of a piece, and y and x where those are read."""
        piece, size_pix = self._placement.pieces[i], self._placement.frame.size_pix
        for block in row_blocks(piece.area, KNOT_PIX):
            inside = self._labels.of(block) == i
            if not inside.any():
                continue
            y, x = _places(self._placement, piece, block)
            inside &= _within(y, size_pix) & _within(x, size_pix)
            yield block, inside, y[inside] - piece.read.y0, x[inside] - piece.read.x0


def _places(placement: Placement, piece: Piece, block: Box) -> tuple[np.ndarray, np.ndarray]:
    """Return where the pixels of a block lie in the image of a piece's brick."""
    grid, box = image_grid(piece.brick_id, placement.frame), placement.box

    def exact(y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, x = np.broadcast_arrays(y[:, None], x)
        found = grid.to_pixel(*placement.grid.to_sky(x + box.x0, y + box.y0))
        return found[1], found[0]

    ny, nx = block.shape
    knots_y, knots_x = (np.arange(-1, -(-n // KNOT_PIX) + 2) * KNOT_PIX for n in (ny, nx))
    middles = tuple(slice(min(KNOT_PIX, n) // 2, None, KNOT_PIX) for n in (ny, nx))
    rows, columns = np.arange(block.y0, block.y1), np.arange(block.x0, block.x1)
    places = [_cubic(v)[:ny, :nx] for v in exact(knots_y + block.y0, knots_x + block.x0)]
    checks = exact(rows[middles[0]], columns[middles[1]])
    errors = [np.abs(v[middles] - true) for v, true in zip(places, checks, strict=True)]
    if not all((error < EXACT_PIX).all() for error in errors):
        return exact(rows, columns)
    return places[0], places[1]


def _cubic(knots: np.ndarray) -> np.ndarray:
    """Interpolate by cubics through the four nearest knots, from the second knot on."""
    t = np.arange(KNOT_PIX)[:, None] / KNOT_PIX
    weights = np.hstack(
        [
            -t * (t - 1) * (t - 2) / 6,
            (t + 1) * (t - 1) * (t - 2) / 2,
            -(t + 1) * t * (t - 2) / 2,
            (t + 1) * t * (t - 1) / 6,
        ]
    )
    for _ in range(2):
        # Along the last axis, which then comes first.
        windows = np.lib.stride_tricks.sliding_window_view(knots, 4, axis=-1)
        knots = (windows @ weights.T).reshape(len(knots), -1).T
    return knots


def _within(pixel: np.ndarray, size_pix: int) -> np.ndarray:
    return (pixel > -0.5) & (pixel < size_pix - 0.5)


def _scaled(product: CoaddProduct, values: np.ndarray, area_ratio: float) -> np.ndarray:
    """Bring values per native pixel to the pixel of the result.

    Flux times the ratio.  Inverse variance: of the sum over the pixels that a coarser one holds; of
    a share of the pixel that holds a finer one.  All else is not per pixel.
    """
    if area_ratio == 1:
        return values
    if product.interpolated:
        return values * np.float32(area_ratio)
    if product.name == "invvar":
        return values / np.float32(area_ratio if area_ratio > 1 else area_ratio**2)
    return values


def _coarse_image(
    pixels: np.ndarray, piece: Piece, placement: Placement
) -> Iterator[tuple[Box, np.ndarray]]:
    """Resample an image onto a coarser grid, with flux conserved.

    With a Gaussian kernel as wide as the result's pixel (DeForest 2004, Solar Physics 219, 3).
    """
    reproject = import_optional("reproject", "mosaic", "A grid of coarser pixels")
    assert isinstance(placement.grid, SkyGrid)
    read = piece.read
    grid = image_grid(piece.brick_id, placement.frame)
    source = grid.wcs(x0=read.x0, y0=read.y0, shape=read.shape)
    for block in row_blocks(piece.area):
        values = reproject.reproject_adaptive(
            (pixels, source),
            placement.grid.wcs(block),
            shape_out=block.shape,
            conserve_flux=True,
            kernel="gaussian",
            boundary_mode="ignore_threshold",
            return_footprint=False,
        )
        yield block, values.astype(np.float32)


def _weights(fraction: np.ndarray) -> np.ndarray:
    """Return Lanczos-3 weights of the six pixels round a point, shape (6, n), normalised to 1."""
    distance = _TAPS[:, None] - fraction
    weights = np.sinc(distance) * np.sinc(distance / 3)
    return weights / weights.sum(axis=0)


@cache
def _table() -> np.ndarray:
    """Return the weights of all tabulated fractions, shape (6, n)."""
    return _weights(np.arange(FRACTIONS + 1) / FRACTIONS).astype(np.float32)


def _taps(place: np.ndarray, n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the six pixels of an axis round each place, and their weights."""
    first = np.floor(place)
    index = np.rint((place - first) * FRACTIONS).astype(np.intp)
    first = first.astype(np.intp)
    pixels = [np.clip(first + tap, 0, n - 1) for tap in _TAPS]
    return pixels, [weights.take(index) for weights in _table()]


def lanczos3(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Interpolate an image with the Lanczos-3 kernel, that of the survey's own coadds.

    ``sinc(t) sinc(t / 3)`` for ``|t| < 3``, the product in both directions, normalised so that a
    constant stays itself (Duchon 1979, J. Appl. Meteor. 18, 1016).  A star of 1.2 arcsec FWHM keeps
    its flux to 0.1 % and every pixel to 0.6 % of the peak.  Beyond the edge its value goes on.
    """
    ny, nx = image.shape
    flat = image.ravel()
    rows, weights_y = _taps(y, ny)
    columns, weights_x = _taps(x, nx)
    total = np.zeros(len(y), np.float32)
    for row, weight_y in zip(rows, weights_y, strict=True):
        start = row * nx
        along = np.zeros(len(y), np.float32)
        for column, weight_x in zip(columns, weights_x, strict=True):
            along += weight_x * flat.take(start + column)
        total += weight_y * along
    return total


def nearest(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the pixel nearest to each point."""
    ny, nx = image.shape
    row = np.clip(np.rint(y).astype(np.intp), 0, ny - 1)
    column = np.clip(np.rint(x).astype(np.intp), 0, nx - 1)
    return image[row, column]
