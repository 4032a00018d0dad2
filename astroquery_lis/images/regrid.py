"""Brick pixels on grids of another scale or orientation."""

import numpy as np

from ..exceptions import OptionalDependencyError
from ..survey.frames import image_grid
from ..survey.placement import row_blocks

__all__ = ["COARSE_RATIO", "coarse_image", "scaled"]

COARSE_RATIO = 1.2
"""Pixel area, relative to the native one, above which a kernel between pixels would alias."""


def scaled(product, values, area_ratio):
    """Bring values to the pixel of the result.

    Parameters
    ----------
    product : `~astroquery_lis.survey.layout.CoaddProduct`
        What they are.
    values : `~numpy.ndarray`
        Per native pixel.
    area_ratio : float
        Area of the result's pixel over that of the native one.

    Returns
    -------
    `~numpy.ndarray`
        Flux times the ratio.  Inverse variance: of the sum over the pixels that a coarser one
        holds; of a share of the pixel that holds a finer one.  All else is not per pixel.
    """
    if area_ratio == 1:
        return values
    if product.interpolated:
        return values * np.float32(area_ratio)
    if product.name == "invvar":
        return values / np.float32(area_ratio if area_ratio > 1 else area_ratio**2)
    return values


def coarse_image(pixels, piece, placement):
    """Resample an image onto a coarser grid, with flux conserved.

    By ``reproject.reproject_adaptive`` with a Gaussian kernel as wide as the result's pixel
    (DeForest 2004, Solar Physics 219, 3).

    Parameters
    ----------
    pixels : `~numpy.ndarray` of float32
        What ``piece.read`` says of the brick's image.
    piece : `~astroquery_lis.survey.placement.Piece`
        What the brick contributes.
    placement : `~astroquery_lis.survey.placement.Placement`
        On a `~astroquery_lis.survey.sky_grid.SkyGrid`.

    Yields
    ------
    block : `~astroquery_lis.survey.tangent.Box`
        A part of the result.
    values : `~numpy.ndarray` of float32, shape ``block.shape``
        Flux per pixel of the result; NaN where the brick's image ends.

    Raises
    ------
    OptionalDependencyError
        If reproject is not installed.
    """
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
