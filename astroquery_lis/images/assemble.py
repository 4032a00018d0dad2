"""The pieces of several bricks put together on one grid."""

import numpy as np

from ..survey.placement import image_grid, pixel_sky, row_blocks
from .regrid import COARSE_RATIO, coarse_image, scaled
from .resample import lanczos3, nearest

__all__ = ["Assembler"]

NPRIMARY = 1


class Assembler:
    """Puts planes of one cutout together."""

    def __init__(self, placement, area_ratio=1.0, *, keep=True):
        self._placement = placement
        self._area_ratio = area_ratio
        self._kept = {} if keep else None

    def plane(self, product, sections, dtype):
        """Put one plane together."""
        placement = self._placement
        if placement.labels is None and 0 in sections:
            return sections[0].pixels
        result = np.full(placement.shape, product.no_value, dtype)
        for i, section in sections.items():
            piece = placement.pieces[i]
            if piece.is_owner:
                where = piece.read.moved(-placement.box.y0, -placement.box.x0).slices
                inside = placement.labels[where] == i
                result[where][inside] = section.pixels[inside]
            elif product.interpolated and self._area_ratio > COARSE_RATIO:
                for block, values in coarse_image(section.pixels, piece, placement):
                    inside = placement.labels[block.slices] == i
                    result[block.slices][inside] = values[inside]
            else:
                self._interpolate(product, section.pixels, i, result)
        return result

    def _interpolate(self, product, pixels, i, result):
        for where, y, x in self._coordinates(i):
            if product.interpolated:
                values = lanczos3(pixels, y, x)
            else:
                values = nearest(pixels, y, x)
            if product.name == "maskbits":
                # The nearest pixel may lie across the border; the position does not.
                values = values & ~values.dtype.type(NPRIMARY)
            result[where] = scaled(product, values, self._area_ratio)

    def _coordinates(self, i):
        """Return blocks of (rows and columns, y, x): where the pixels of a piece are read."""
        if self._kept is None:
            return self._compute(i)
        if i not in self._kept:
            self._kept[i] = list(self._compute(i))
        return self._kept[i]

    def _compute(self, i):
        placement = self._placement
        piece = placement.pieces[i]
        grid = image_grid(piece.brick_id, placement.frame)
        size_pix = placement.frame.size_pix
        for block in row_blocks(piece.area):
            inside = placement.labels[block.slices] == i
            if not inside.any():
                continue
            ra, dec = (v[inside] for v in pixel_sky(placement.grid, placement.box, block))
            x, y = grid.to_pixel(ra, dec)
            on_image = _within(y, size_pix) & _within(x, size_pix)
            rows, columns = np.nonzero(inside)
            where = rows[on_image] + block.y0, columns[on_image] + block.x0
            yield where, y[on_image] - piece.read.y0, x[on_image] - piece.read.x0


def _within(pixel, size_pix):
    return (pixel > -0.5) & (pixel < size_pix - 0.5)
