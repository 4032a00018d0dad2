"""The pieces of several bricks put together on one grid: native, interpolated, or made coarser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from .._packages import import_optional
from ..survey.paths import CoaddProduct
from ..survey.pixel_grids import Box, SkyGrid
from ..survey.placement import Piece, Placement, image_grid, pixel_sky, row_blocks

__all__ = ["Assembler", "lanczos3", "nearest"]

NPRIMARY = 1
COARSE_RATIO = 1.2
"""Pixel area, relative to the native one, above which a kernel between pixels would alias."""

_TAPS = np.arange(-2, 4)

_Coordinates = tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]


class Assembler:
    """Puts planes of one cutout together."""

    def __init__(self, placement: Placement, area_ratio: float = 1.0, *, keep: bool = True) -> None:
        assert placement.labels is not None
        self._placement = placement
        self._labels = placement.labels
        self._area_ratio = area_ratio
        # Kept for all planes unless memory is short: it takes ten times the memory of a plane.
        self._known_coordinates: dict[int, list[_Coordinates]] | None = {} if keep else None

    def plane(
        self, product: CoaddProduct, pieces: dict[int, np.ndarray], dtype: np.dtype
    ) -> np.ndarray:
        """Put one plane together from the pixels of its pieces."""
        placement, labels = self._placement, self._labels
        result = np.full(placement.shape, product.no_value, dtype)
        for i, pixels in pieces.items():
            piece = placement.pieces[i]
            if piece.is_owner:
                where = piece.read.moved(-placement.box.y0, -placement.box.x0).slices
                inside = labels[where] == i
                result[where][inside] = pixels[inside]
            elif product.interpolated and self._area_ratio > COARSE_RATIO:
                for block, values in _coarse_image(pixels, piece, placement):
                    inside = labels[block.slices] == i
                    result[block.slices][inside] = values[inside]
            else:
                self._interpolate(product, pixels, i, result)
        return result

    def _interpolate(
        self, product: CoaddProduct, pixels: np.ndarray, i: int, result: np.ndarray
    ) -> None:
        for where, y, x in self._coordinates(i):
            if product.interpolated:
                values = lanczos3(pixels, y, x)
            else:
                values = nearest(pixels, y, x)
            if product.name == "maskbits":
                # The nearest pixel may lie across the border; the position does not.
                bit = values.dtype.type(NPRIMARY)
                values = values | bit if self._placement.pieces[i].is_spare else values & ~bit
            result[where] = _scaled(product, values, self._area_ratio)

    def _coordinates(self, i: int) -> Iterable[_Coordinates]:
        """Return blocks of (rows and columns, y, x): where the pixels of a piece are read."""
        if self._known_coordinates is None:
            return self._compute(i)
        if i not in self._known_coordinates:
            self._known_coordinates[i] = list(self._compute(i))
        return self._known_coordinates[i]

    def _compute(self, i: int) -> Iterator[_Coordinates]:
        placement = self._placement
        piece = placement.pieces[i]
        grid = image_grid(piece.brick_id, placement.frame)
        size_pix = placement.frame.size_pix
        for block in row_blocks(piece.area):
            inside = self._labels[block.slices] == i
            if not inside.any():
                continue
            ra, dec = (v[inside] for v in pixel_sky(placement.grid, placement.box, block))
            x, y = grid.to_pixel(ra, dec)
            on_image = _within(y, size_pix) & _within(x, size_pix)
            rows, columns = np.nonzero(inside)
            where = rows[on_image] + block.y0, columns[on_image] + block.x0
            yield where, y[on_image] - piece.read.y0, x[on_image] - piece.read.x0


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


def lanczos3(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Interpolate an image with the Lanczos-3 kernel, that of the survey's own coadds.

    ``sinc(t) sinc(t / 3)`` for ``|t| < 3``, the product in both directions, normalised so that a
    constant stays itself (Duchon 1979, J. Appl. Meteor. 18, 1016).  A star of 1.2 arcsec FWHM keeps
    its flux to 0.1 % and every pixel to 0.6 % of the peak.  Beyond the edge its value goes on.
    """
    ny, nx = image.shape
    first_y, first_x = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    weight_y, weight_x = _weights(y - first_y), _weights(x - first_x)
    columns = [np.clip(first_x + tap, 0, nx - 1) for tap in _TAPS]
    total = np.zeros(len(y))
    for tap, weight in zip(_TAPS, weight_y, strict=True):
        row = np.clip(first_y + tap, 0, ny - 1)
        along = sum(w * image[row, column] for w, column in zip(weight_x, columns, strict=True))
        total += weight * along
    return total.astype(np.float32)


def nearest(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the pixel nearest to each point."""
    ny, nx = image.shape
    row = np.clip(np.rint(y).astype(np.intp), 0, ny - 1)
    column = np.clip(np.rint(x).astype(np.intp), 0, nx - 1)
    return image[row, column]
