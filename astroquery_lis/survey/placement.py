"""Which pixels of which bricks make up a cutout.

A cutout lies on the TAN grid of the brick that owns its target.  Where that brick's image holds the
whole box, all of it is that brick's.  Otherwise every pixel comes from the brick that owns its
position, so that overlaps are never counted twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .bricks import IMAGE_SIZE_PIX, brick_center, brick_id, name_of
from .pixel_grids import Box, Grid, SkyGrid, TangentGrid
from .releases import PIXEL_SCALE_ARCSEC, WISE_BANDS

__all__ = [
    "KERNEL_MARGIN_PIX",
    "OPTICAL",
    "WISE",
    "Frame",
    "Piece",
    "Placement",
    "frame_of_bands",
    "image_grid",
    "pixel_sky",
    "place",
    "row_blocks",
]

KERNEL_MARGIN_PIX = 4
"""Pixels read round what a neighbour contributes: the reach of the kernel, and one for rounding."""

BLOCK_PIX = 1 << 20


class Frame(NamedTuple):
    """Size and scale of a kind of brick image."""

    name: str
    size_pix: int
    scale_arcsec: float


OPTICAL = Frame("optical", IMAGE_SIZE_PIX, PIXEL_SCALE_ARCSEC)
WISE = Frame("wise", 342, 2.75)
"""What legacypipe makes of 3600 pixels of 0.262 arcsec at 2.75: ``int(342.98)``."""


def frame_of_bands(bands: tuple[str, ...] | None) -> Frame:
    """Return the frame that bands are in; all of them must be in one."""
    return WISE if bands and bands[0] in WISE_BANDS else OPTICAL


@lru_cache(maxsize=256)
def image_grid(brick: int, frame: Frame) -> TangentGrid:
    """Return the pixel grid of a brick's images of one frame."""
    ra, dec = brick_center(brick)
    middle = (frame.size_pix - 1) / 2
    return TangentGrid(float(ra), float(dec), middle, middle, frame.scale_arcsec / 3600)


@dataclass(frozen=True)
class Piece:
    """What one brick contributes to a cutout."""

    brick: str
    brick_id: int
    is_owner: bool  # the cutout lies on this brick's grid, so that its pixels are copied
    read: Box  # the pixels of the brick's image that are needed
    area: Box  # the smallest box of the cutout that holds all that the brick contributes
    n_pixels: int


@dataclass(frozen=True, eq=False)
class Placement:
    """A cutout laid over the bricks."""

    grid: Grid
    box: Box  # in that grid; may reach beyond the brick's image
    pieces: tuple[Piece, ...]  # the owner of the target first
    labels: np.ndarray | None  # piece of each pixel, -1 for none; None if all are of the first
    frame: Frame = OPTICAL

    @property
    def shape(self) -> tuple[int, int]:
        """``(ny, nx)`` of the cutout."""
        return self.box.shape


def row_blocks(area: Box) -> Iterator[Box]:
    """Yield boxes of whole rows of ``area`` with about a million pixels each."""
    step = max(BLOCK_PIX // max(area.shape[1], 1), 1)
    for y0 in range(area.y0, area.y1, step):
        yield area._replace(y0=y0, y1=min(y0 + step, area.y1))


def place(
    ra_deg: float,
    dec_deg: float,
    ny: int,
    nx: int,
    grid: SkyGrid | None = None,
    frame: Frame = OPTICAL,
) -> Placement:
    """Lay a box of pixels round a position over the bricks; without a grid, on the owner's own."""
    owner = int(brick_id(ra_deg, dec_deg))
    if grid is not None:
        return _place_over_several(grid, Box(0, ny, 0, nx), owner, frame, copies=False)
    own_grid = image_grid(owner, frame)
    x, y = own_grid.to_pixel(ra_deg, dec_deg)
    # A target meant to lie on a pixel's centre must not jump by a pixel for a rounding of 1e-9.
    x0, y0 = (int(np.ceil(np.round(v, 6) - n / 2)) for v, n in ((x, nx), (y, ny)))
    box = Box(y0, y0 + ny, x0, x0 + nx)
    if box.is_within(frame.size_pix, frame.size_pix):
        piece = Piece(name_of(owner), owner, True, box, Box(0, ny, 0, nx), ny * nx)
        return Placement(own_grid, box, (piece,), None, frame)
    return _place_over_several(own_grid, box, owner, frame)


def _place_over_several(
    grid: Grid, box: Box, owner: int, frame: Frame, *, copies: bool = True
) -> Placement:
    owners = np.empty(box.shape, np.int32)
    for block in row_blocks(Box(0, box.shape[0], 0, box.shape[1])):
        owners[block.slices] = brick_id(*pixel_sky(grid, box, block))
    present = np.unique(owners).tolist()
    if owner not in present:
        # A given grid need not hold its target: then its first brick stands for it.
        owner = present[0]
    bricks = [owner, *(k for k in present if k != owner)]
    labels = np.full(box.shape, -1, np.int16)
    pieces: list[Piece] = []
    for brick in bricks:
        owned = owners == brick
        piece = _piece(grid, box, brick, owned, frame, is_owner=copies and brick == owner)
        if piece is not None:
            labels[owned] = len(pieces)
            pieces.append(piece)
    first = pieces[0]
    if copies and first.read.shape != first.area.shape:
        # Within a degree of the poles an image is a few pixels short of what its brick owns.
        keep = first.read.moved(-box.y0, -box.x0)
        outside = labels == 0
        outside[keep.slices] = False
        labels[outside] = -1
    return Placement(grid, box, tuple(pieces), labels, frame)


def pixel_sky(grid: Grid, box: Box, part: Box) -> tuple[np.ndarray, np.ndarray]:
    """Return RA and Dec, degrees, of the pixels of a part of a cutout."""
    y, x = np.mgrid[part.slices]
    return grid.to_sky(x + box.x0, y + box.y0)


def _piece(
    grid: Grid, box: Box, brick: int, owned: np.ndarray, frame: Frame, *, is_owner: bool
) -> Piece | None:
    """Build the piece of the pixels ``owned``; `None` if the brick's image holds none of them."""
    rows, columns = np.flatnonzero(owned.any(axis=1)), np.flatnonzero(owned.any(axis=0))
    area = Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    size = frame.size_pix, frame.size_pix
    if is_owner:
        read = area.moved(box.y0, box.x0).clipped(*size)
    else:
        low, high = np.full(2, np.inf), np.full(2, -np.inf)
        other = image_grid(brick, frame)
        for block in row_blocks(area):
            inside = owned[block.slices]
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
    return Piece(name_of(brick), brick, is_owner, read, area, int(owned.sum()))
