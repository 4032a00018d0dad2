"""Brick pixels on grids of another scale or orientation."""

import numpy as np

from ..exceptions import OptionalDependencyError
from ..survey.placement import image_grid, row_blocks

__all__ = ["COARSE_RATIO", "coarse_image", "scaled"]

COARSE_RATIO = 1.2
"""Pixel area, relative to the native one, above which a kernel between pixels would alias."""


def scaled(product, values, area_ratio):
    """Bring values to the pixel of the result."""
    if area_ratio == 1:
        return values
    if product.interpolated:
        return values * np.float32(area_ratio)
    if product.name == "invvar":
        return values / np.float32(area_ratio if area_ratio > 1 else area_ratio**2)
    return values


def coarse_image(pixels, piece, placement):
    """Resample an image onto a coarser grid, with flux conserved."""
    try:
        from reproject import reproject_adaptive
    except ImportError as error:
        msg = "Coarser pixels need reproject: install astroquery_lis[mosaic]."
        raise OptionalDependencyError(msg, cause=error) from error
    read = piece.read
    grid = image_grid(piece.brick_id, placement.frame)
    source = grid.wcs(x0=read.x0, y0=read.y0, shape=read.shape)
    for block in row_blocks(piece.area):
        values = reproject_adaptive(
            (pixels, source),
            placement.grid.wcs(block),
            shape_out=block.shape,
            conserve_flux=True,
            kernel="gaussian",
            boundary_mode="ignore_threshold",
            return_footprint=False,
        )
        yield block, values.astype(np.float32)
