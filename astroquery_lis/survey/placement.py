"""Which pixels of which bricks make up a cutout.

A cutout lies on the TAN grid of the brick that owns its target.  Where that brick's image holds the
whole box, all of it is that brick's.  Otherwise every pixel comes from the brick that owns its
position, so that overlaps are never counted twice.
"""

from dataclasses import dataclass

import numpy as np

from .bricks import brick_id, name_of
from .frames import OPTICAL, Frame, image_grid
from .tangent import Box, TangentGrid

__all__ = ["KERNEL_MARGIN_PIX", "Piece", "Placement", "place", "row_blocks"]

KERNEL_MARGIN_PIX = 4
"""Pixels read round what a neighbour contributes: the reach of the kernel, and one for rounding."""

BLOCK_PIX = 1 << 20


@dataclass(frozen=True)
class Piece:
    """What one brick contributes to a cutout.

    Attributes
    ----------
    brick : str
        Name.
    brick_id : int
        Its id.
    is_owner : bool
        Whether the cutout lies on this brick's grid, so that its pixels are copied.
    read : Box
        The pixels of the brick's image that are needed.
    area : Box
        The smallest box of the cutout that holds all that the brick contributes.
    n_pixels : int
        How many pixels it contributes.
    """

    brick: str
    brick_id: int
    is_owner: bool
    read: Box
    area: Box
    n_pixels: int


@dataclass(frozen=True, eq=False)
class Placement:
    """A cutout laid over the bricks.

    Attributes
    ----------
    grid : TangentGrid
        Grid of the brick that owns the target.
    box : Box
        The cutout in that grid; may reach beyond the brick's image.
    pieces : tuple of Piece
        The owner of the target first.
    labels : `~numpy.ndarray` of int, shape ``box.shape``, or None
        Index of the piece that each pixel comes from, -1 for none; `None` if all come from the
        first.
    """

    grid: TangentGrid
    box: Box
    pieces: tuple
    labels: np.ndarray | None
    frame: Frame = OPTICAL

    @property
    def shape(self):
        """``(ny, nx)`` of the cutout."""
        return self.box.shape


def row_blocks(area):
    """Yield boxes of whole rows of ``area`` with about a million pixels each."""
    step = max(BLOCK_PIX // max(area.shape[1], 1), 1)
    for y0 in range(area.y0, area.y1, step):
        yield area._replace(y0=y0, y1=min(y0 + step, area.y1))


def place(ra_deg, dec_deg, ny, nx, grid=None, frame=OPTICAL):
    """Lay a box of pixels round a position over the bricks.

    On the grid of the bricks the first pixel is where `astropy.nddata.Cutout2D` puts it,
    ``ceil(x - nx / 2)``.

    Parameters
    ----------
    ra_deg, dec_deg : float
        Target, ICRS degrees.
    ny, nx : int
        Size in pixels.
    grid : `~.sky_grid.SkyGrid`, optional
        A grid of its own, whose first pixel is that of the cutout; none of its pixels are copied.
    frame : Frame, optional
        What the bricks' images are like.

    Returns
    -------
    Placement
    """
    owner = int(brick_id(ra_deg, dec_deg))
    if grid is not None:
        return _place_over_several(grid, Box(0, ny, 0, nx), owner, frame, copies=False)
    grid = image_grid(owner, frame)
    x, y = grid.to_pixel(ra_deg, dec_deg)
    # A target meant to lie on a pixel's centre must not jump by a pixel for a rounding of 1e-9.
    x0, y0 = (int(np.ceil(np.round(v, 6) - n / 2)) for v, n in ((x, nx), (y, ny)))
    box = Box(y0, y0 + ny, x0, x0 + nx)
    if box.is_within(frame.size_pix, frame.size_pix):
        piece = Piece(name_of(owner), owner, True, box, Box(0, ny, 0, nx), ny * nx)
        return Placement(grid, box, (piece,), None, frame)
    return _place_over_several(grid, box, owner, frame)


def _place_over_several(grid, box, owner, frame, *, copies=True):
    owners = np.empty(box.shape, np.int32)
    for block in row_blocks(Box(0, box.shape[0], 0, box.shape[1])):
        owners[block.slices] = brick_id(*pixel_sky(grid, box, block))
    present = np.unique(owners).tolist()
    if owner not in present:
        # A given grid need not hold its target: then its first brick stands for it.
        owner = present[0]
    found = [owner, *(k for k in present if k != owner)]
    labels = np.full(box.shape, -1, np.int16)
    pieces = []
    for brick in found:
        mine = owners == brick
        piece = _piece(grid, box, brick, mine, frame, is_owner=copies and brick == owner)
        if piece is not None or brick == owner:
            labels[mine] = len(pieces)
            pieces.append(piece)
    first = pieces[0]
    if copies and first.read.shape != first.area.shape:
        # Within a degree of the poles an image is a few pixels short of what its brick owns.
        keep = first.read.moved(-box.y0, -box.x0)
        outside = labels == 0
        outside[keep.slices] = False
        labels[outside] = -1
    return Placement(grid, box, tuple(pieces), labels, frame)


def pixel_sky(grid, box, part):
    """Return RA and Dec, degrees, of the pixels of a part of a cutout."""
    y, x = np.mgrid[part.slices]
    return grid.to_sky(x + box.x0, y + box.y0)


def _piece(grid, box, brick, mine, frame, *, is_owner):
    """Build the piece of the pixels ``mine``; `None` if the brick's image holds none of them."""
    rows, columns = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
    area = Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    size = frame.size_pix, frame.size_pix
    if is_owner:
        read = area.moved(box.y0, box.x0).clipped(*size)
    else:
        low, high = np.full(2, np.inf), np.full(2, -np.inf)
        other = image_grid(brick, frame)
        for block in row_blocks(area):
            inside = mine[block.slices]
            if not inside.any():
                continue
            x, y = other.to_pixel(*pixel_sky(grid, box, block))
            x, y = x[inside], y[inside]
            low = np.minimum(low, [y.min(), x.min()])
            high = np.maximum(high, [y.max(), x.max()])
        margin = int(np.ceil(KERNEL_MARGIN_PIX * max(grid.scale_deg / other.scale_deg, 1)))
        y0, x0 = np.floor(low).astype(int) - margin
        y1, x1 = np.ceil(high).astype(int) + margin + 1
        read = Box(int(y0), int(y1), int(x0), int(x1)).clipped(*size)
    if 0 in read.shape:
        return None
    return Piece(name_of(brick), brick, is_owner, read, area, int(mine.sum()))
