"""Which pixels of which bricks make up a cutout.

A cutout lies on the TAN grid of the brick that owns its target.  Every pixel comes from the brick
that owns its position, whatever the size of the box, so that overlaps are never counted twice.
Where the owner has no file, a brick whose image reaches there stands in: `without`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .bricks import IMAGE_SIZE_PIX, brick_center, brick_id, name_of
from .pixel_grids import Box, Grid, SkyGrid, TangentGrid
from .releases import PIXEL_SCALE_ARCSEC, WISE_BANDS
from .sphere import bricks_in_circle, separation_deg

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
    "without",
]

KERNEL_MARGIN_PIX = 4
"""Pixels read round what a neighbour contributes: the reach of the kernel, and one for rounding."""

BLOCK_PIX = 1 << 20
SQUARE_PIX = 256
STRAIGHT_DEC_DEG = 89.0
"""Beyond it a box may hold the pole, and what it touches does not show at its border."""


class Frame(NamedTuple):
    """Size and scale of a kind of brick image."""

    name: str
    size_pix: int
    scale_arcsec: float


OPTICAL = Frame("optical", IMAGE_SIZE_PIX, PIXEL_SCALE_ARCSEC)
BRICK_DEG = 0.25
WISE = Frame("wise", 342, 2.75)
"""What legacypipe makes of 3600 pixels of 0.262 arcsec at 2.75: ``int(342.98)``."""


def frame_of_bands(bands: tuple[str, ...] | None) -> Frame:
    """Return the frame that bands are in; all of them must be in one."""
    return WISE if bands and bands[0] in WISE_BANDS else OPTICAL


@lru_cache(maxsize=4096)
def image_grid(brick: int, frame: Frame) -> TangentGrid:
    """Return the pixel grid of a brick's images of one frame."""
    ra, dec = brick_center(brick)
    middle = (frame.size_pix - 1) / 2
    return TangentGrid(float(ra), float(dec), middle, middle, frame.scale_arcsec / 3600)


_name = lru_cache(maxsize=4096)(name_of)


@dataclass(frozen=True)
class Piece:
    """What one brick contributes to a cutout."""

    brick: str
    brick_id: int
    is_owner: bool  # the cutout lies on this brick's grid, so that its pixels are copied
    read: Box  # the pixels of the brick's image that are needed
    area: Box  # the smallest box of the cutout that holds all that the brick contributes
    n_pixels: int
    is_spare: bool = False  # it gives pixels that it does not own


@dataclass(frozen=True, eq=False)
class Placement:
    """A cutout laid over the bricks."""

    grid: Grid
    box: Box  # in that grid; may reach beyond the brick's image
    pieces: tuple[Piece, ...]  # the owner of the target first
    labels: np.ndarray | None  # piece of each pixel, -1 for none; None if all are of the first
    frame: Frame = OPTICAL
    copies: bool = True  # whether the grid is that of the first piece's brick

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
    if box.is_within(frame.size_pix, frame.size_pix) and _owns(owner, own_grid, box):
        piece = Piece(_name(owner), owner, True, box, Box(0, ny, 0, nx), ny * nx)
        return Placement(own_grid, box, (piece,), None, frame)
    return _place_over_several(own_grid, box, owner, frame)


def _owns(brick: int, grid: TangentGrid, box: Box) -> bool:
    """Return True if the brick surely owns every pixel of a box of its grid.

    Meridians are straight lines of the projection, and along a row Dec is extreme at the ends or
    where the row comes nearest to the tangent point.
    """
    if abs(grid.dec_deg) > STRAIGHT_DEC_DEG:
        return False
    x = np.array([box.x0, min(max(grid.x_ref, box.x0), box.x1 - 1), box.x1 - 1])
    return bool((brick_id(*grid.to_sky(x, np.array([[box.y0], [box.y1 - 1]]))) == brick).all())


def _place_over_several(
    grid: Grid, box: Box, owner: int, frame: Frame, *, copies: bool = True
) -> Placement:
    owners, present = _owners(grid, box)
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
    return Placement(grid, box, tuple(pieces), labels, frame, copies)


def _owners(grid: Grid, box: Box) -> tuple[np.ndarray, list[int]]:
    """Return the brick that owns each pixel of a box, and those bricks.

    Few squares of a large box are crossed by a border: only in those is every pixel looked up.
    """
    owners = np.empty(box.shape, np.int32)
    present: set[int] = set()
    is_large = max(box.shape) > SQUARE_PIX
    for y0 in range(0, box.shape[0], SQUARE_PIX):
        for x0 in range(0, box.shape[1], SQUARE_PIX):
            square = Box(y0, y0 + SQUARE_PIX, x0, x0 + SQUARE_PIX).clipped(*box.shape)
            if is_large and isinstance(grid, TangentGrid):
                in_grid = square.moved(box.y0, box.x0)
                first = int(brick_id(*grid.to_sky(in_grid.x0, in_grid.y0)))
                if _owns(first, grid, in_grid):
                    owners[square.slices] = first
                    present.add(first)
                    continue
            owners[square.slices] = brick_id(*pixel_sky(grid, box, square))
            present.update(np.unique(owners[square.slices]).tolist())
    return owners, sorted(present)


def without(
    placement: Placement, lost: Collection[int], may_stand_in: Callable[[int, int], bool]
) -> Placement:
    """Return the placement with other bricks' images in place of the pieces ``lost``.

    ``may_stand_in(lost brick, other brick)`` tells which may.  What stands in is appended to the
    pieces; pixels that no other image holds get the label -1.
    """
    labels = placement.labels
    labels = np.zeros(placement.shape, np.int16) if labels is None else labels.copy()
    pieces = list(placement.pieces)
    for i in lost:
        wanting = labels == i
        labels[wanting] = -1
        for brick in _near(placement, pieces[i]):
            if not wanting.any():
                break
            if may_stand_in(pieces[i].brick_id, brick):
                reached = _reached(placement, brick, wanting)
                piece = _spare(placement, brick, reached)
                if piece is not None:
                    labels[reached] = len(pieces)
                    pieces.append(piece)
                    wanting &= ~reached
    return replace(placement, pieces=tuple(pieces), labels=labels)


def _spare(placement: Placement, brick: int, reached: np.ndarray) -> Piece | None:
    """Build the piece of what a brick's image has of others' pixels; `None` if nothing."""
    if not reached.any():
        return None
    is_owner = placement.copies and brick == placement.pieces[0].brick_id
    parts = placement.grid, placement.box, brick, reached, placement.frame
    piece = _piece(*parts, is_owner=is_owner)
    return piece and replace(piece, is_spare=True)


def _near(placement: Placement, piece: Piece) -> list[int]:
    """Return the bricks whose images may reach a piece's area, that of the grid first."""
    area, grid = piece.area, placement.grid
    y, x = np.array([area.y0, area.y0, area.y1, area.y1]), np.array([area.x0, area.x1] * 2)
    ra, dec = grid.to_sky(x + placement.box.x0, y + placement.box.y0)
    middle = (area.x0 + area.x1) / 2, (area.y0 + area.y1) / 2
    ra0, dec0 = grid.to_sky(middle[0] + placement.box.x0, middle[1] + placement.box.y0)
    reach_deg = float(separation_deg(ra0, dec0, ra, dec).max())
    margin_deg = placement.frame.size_pix * placement.frame.scale_arcsec / 3600 - BRICK_DEG
    near = bricks_in_circle(float(ra0), float(dec0), reach_deg + margin_deg).tolist()
    first = placement.pieces[0].brick_id
    return sorted((int(brick) for brick in near), key=lambda brick: (brick != first, brick))


def _reached(placement: Placement, brick: int, among: np.ndarray) -> np.ndarray:
    """Return which of some pixels of a cutout the image of a brick holds."""
    reached = np.zeros(placement.shape, bool)
    grid, size_pix = image_grid(brick, placement.frame), placement.frame.size_pix
    for block in row_blocks(Box(0, placement.shape[0], 0, placement.shape[1])):
        x, y = grid.to_pixel(*pixel_sky(placement.grid, placement.box, block))
        reached[block.slices] = (
            (x > -0.5) & (x < size_pix - 0.5) & (y > -0.5) & (y < size_pix - 0.5)
        )
    return reached & among


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
        other = image_grid(brick, frame)
        # A projection has its extremes at the rim of what it maps.
        part = owned[area.slices]
        rim = part.copy()
        is_inner = part[:-2, 1:-1] & part[2:, 1:-1] & part[1:-1, :-2] & part[1:-1, 2:]
        rim[1:-1, 1:-1] &= ~is_inner
        y, x = np.nonzero(rim)
        x, y = other.to_pixel(*grid.to_sky(x + area.x0 + box.x0, y + area.y0 + box.y0))
        low, high = np.array([y.min(), x.min()]), np.array([y.max(), x.max()])
        margin = int(np.ceil(KERNEL_MARGIN_PIX * max(grid.scale_deg / other.scale_deg, 1)))
        y0, x0 = np.floor(low).astype(int) - margin
        y1, x1 = np.ceil(high).astype(int) + margin + 1
        read = Box(int(y0), int(y1), int(x0), int(x1)).clipped(*size)
    if 0 in read.shape:
        return None
    return Piece(_name(brick), brick, is_owner, read, area, int(owned.sum()))
