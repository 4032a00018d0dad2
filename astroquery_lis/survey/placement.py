"""Which pixels of which bricks make up a cutout.

A cutout lies on the TAN grid of the brick that owns its target.  Every pixel comes from the brick
that owns its position, whatever the size of the box, so that overlaps are never counted twice.
Where the owner has no file, a brick whose image reaches there stands in: `without`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..exceptions import refuse
from .bricks import BRICK_SIZE_DEG, IMAGE_SIZE_PIX, brick_center, brick_id, name_of
from .owners import NO_LABEL, Labels, Owners
from .pixel_grids import Box, TangentGrid
from .releases import PIXEL_SCALE_ARCSEC, WISE_BANDS
from .sphere import bricks_in_circle, separation_deg

if TYPE_CHECKING:
    from .pixel_grids import Grid, SkyGrid

KERNEL_MARGIN_PIX = 4
"""Pixels read round what a neighbour contributes: the reach of the kernel, and one for rounding."""

BLOCK_PIX = 1 << 20
MAX_BRICKS = 1000
STRAIGHT_DEC_DEG = 89.0
"""Beyond it a box may hold the pole, and what it touches does not show at its border."""


class Frame(NamedTuple):
    """Size and scale of a kind of brick image."""

    name: str
    size_pix: int
    scale_arcsec: float


OPTICAL = Frame("optical", IMAGE_SIZE_PIX, PIXEL_SCALE_ARCSEC)
WISE = Frame("wise", 342, 2.75)
"""What legacypipe makes of 3600 pixels of 0.262 arcsec at 2.75: ``int(342.98)``."""


def frame_of(bands: Collection[str | None] | None) -> Frame:
    """Return the frame of the images of a band, or of several of one kind."""
    return WISE if bands and frozenset(WISE_BANDS).issuperset(bands) else OPTICAL


@lru_cache(maxsize=4096)
def image_grid(brick: int, frame: Frame) -> TangentGrid:
    """Return the pixel grid of a brick's images of one frame."""
    ra, dec = brick_center(brick)
    middle = (frame.size_pix - 1) / 2
    return TangentGrid(float(ra), float(dec), middle, middle, frame.scale_arcsec / 3600)


cached_name = lru_cache(maxsize=4096)(name_of)


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
    frame: Frame
    copies: bool  # whether the grid is that of the target's brick
    owner: int  # the brick of the target, which may own none of the pixels
    bricks: list[int]  # those of the pieces, in their order
    pieces: tuple[Piece, ...]  # the owner of the target first
    labels: Labels | None  # number of each pixel's piece, or none; None if all are of the first

    @property
    def shape(self) -> tuple[int, int]:
        """``(ny, nx)`` of the cutout."""
        return self.box.shape

    def number_at(self, pixel: Box) -> int:
        """Return the number of the piece of a pixel."""
        return 0 if self.labels is None else int(self.labels.of(pixel)[0, 0])

    def piece(self, labels: Labels, label: int, brick: int, *, is_owner: bool) -> Piece | None:
        """Build the piece of the pixels of a label; `None` if the image holds none of them."""
        y, x = labels.rim(label)
        area = Box(int(y.min()), int(y.max()) + 1, int(x.min()), int(x.max()) + 1)
        size = self.frame.size_pix, self.frame.size_pix
        if is_owner:
            read = area.moved(self.box.y0, self.box.x0).clipped(*size)
        else:
            # A projection has its extremes at the rim of what it maps.
            other = image_grid(brick, self.frame)
            x, y = other.to_pixel(*self.grid.to_sky(x + self.box.x0, y + self.box.y0))
            margin = int(np.ceil(KERNEL_MARGIN_PIX * max(self.grid.side_deg / other.scale_deg, 1)))
            y0, x0 = (int(np.floor(v.min())) - margin for v in (y, x))
            y1, x1 = (int(np.ceil(v.max())) + margin + 1 for v in (y, x))
            read = Box(y0, y1, x0, x1).clipped(*size)
        if 0 in read.shape:
            return None
        return Piece(cached_name(brick), brick, is_owner, read, area, labels.count(label))


class _OverSeveral(Placement):
    """A placement over several bricks, found out as far as it is asked for."""

    def __init__(self, grid: Grid, box: Box, frame: Frame, owner: int, *, copies: bool) -> None:
        self.__dict__.update(grid=grid, box=box, frame=frame, copies=copies, owner=owner)

    @cached_property
    def _owners(self) -> Owners:
        return Owners(self.grid, self.box)

    @cached_property
    def bricks(self) -> list[int]:
        """The bricks of the pieces, in their order."""
        if self._owners.is_plain:
            return self._in_order(self._owners.bricks)
        return [piece.brick_id for piece in self.pieces]

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """What each brick contributes."""
        return self._laid[0]

    @cached_property
    def labels(self) -> Labels:
        """The number of the piece of each pixel, or none."""
        return self._laid[1]

    def _in_order(self, bricks: list[int]) -> list[int]:
        """Return bricks with the owner of the target first; refuse a box over too many."""
        if len(bricks) > MAX_BRICKS:
            must = (
                f"pixels lie over {len(bricks)} bricks, more than {MAX_BRICKS}. Take a finer "
                "pixel scale, several cutouts, or source='viewer'."
            )
            refuse("size", self.shape, must)
        return sorted(bricks, key=lambda brick: (brick != self.owner, brick))

    @cached_property
    def _laid(self) -> tuple[tuple[Piece, ...], Labels]:
        owners = self._owners.labels()
        pieces: list[Piece] = []
        for brick in self._in_order(owners.present()):
            is_owner = self.copies and brick == self.owner
            piece = self.piece(owners, brick, brick, is_owner=is_owner)
            if piece is not None:
                pieces.append(piece)
        labels = owners.renamed([piece.brick_id for piece in pieces])
        first = pieces[0]
        if first.is_owner and first.read.shape != first.area.shape:
            # Within a degree of the poles an image is a few pixels short of what its brick owns.
            image = first.read.moved(-self.box.y0, -self.box.x0)
            labels.relabel(0, NO_LABEL, image, lambda y, x: (y, x), is_outside=True)
        return tuple(pieces), labels


def row_blocks(area: Box, n_rows: int = 0) -> Iterator[Box]:
    """Yield boxes of whole rows of ``area``: so many each, or with about a million pixels."""
    step = n_rows or max(BLOCK_PIX // max(area.shape[1], 1), 1)
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
    owner = _owner(ra_deg, dec_deg)
    if grid is not None:
        return _OverSeveral(grid, Box(0, ny, 0, nx), frame, owner, copies=False)
    own_grid = image_grid(owner, frame)
    x, y = own_grid.to_pixel(ra_deg, dec_deg)
    # A target meant to lie on a pixel's centre must not jump by a pixel for a rounding of 1e-9.
    x0, y0 = (math.ceil(round(float(v), 6) - n / 2) for v, n in ((x, nx), (y, ny)))
    box = Box(y0, y0 + ny, x0, x0 + nx)
    margin = _owned_margin(owner, frame)
    is_inner = margin <= min(y0, x0) and max(box.y1, box.x1) <= frame.size_pix - margin
    size = frame.size_pix, frame.size_pix
    if is_inner or (box.is_within(*size) and _owns(owner, own_grid, box)):
        piece = Piece(cached_name(owner), owner, True, box, Box(0, ny, 0, nx), ny * nx)
        return Placement(own_grid, box, frame, True, owner, [owner], (piece,), None)
    return _OverSeveral(own_grid, box, frame, owner, copies=True)


@lru_cache(maxsize=4096)
def _owner(ra_deg: float, dec_deg: float) -> int:
    """Return the brick that owns a position, of which several cutouts may be asked."""
    return int(brick_id(ra_deg, dec_deg))


@lru_cache(maxsize=4096)
def _owned_margin(brick: int, frame: Frame) -> int:
    """Return a width of border within which a brick owns every pixel of its image."""
    size, grid = frame.size_pix, image_grid(brick, frame)
    for margin in range(size // 40, size // 8, size // 40):
        if _owns(brick, grid, Box(margin, size - margin, margin, size - margin)):
            return margin
    return size


def _owns(brick: int, grid: TangentGrid, box: Box) -> bool:
    """Return True if the brick surely owns every pixel of a box of its grid.

    Meridians are straight lines of the projection, and along a row Dec is extreme at the ends or
    where the row comes nearest to the tangent point.
    """
    if abs(grid.dec_deg) > STRAIGHT_DEC_DEG:
        return False
    x = np.array([box.x0, min(max(grid.x_ref, box.x0), box.x1 - 1), box.x1 - 1])
    return bool((brick_id(*grid.to_sky(x, np.array([[box.y0], [box.y1 - 1]]))) == brick).all())


def without(
    placement: Placement, lost: Collection[int], may_stand_in: Callable[[int, int], bool]
) -> Placement:
    """Return the placement with other bricks' images in place of the pieces ``lost``.

    ``may_stand_in(lost brick, other brick)`` tells which may.  What stands in is appended to the
    pieces; pixels that no other image holds have no label.
    """
    labels = placement.labels
    labels = Labels.uniform(placement.shape, 0) if labels is None else labels.copy()
    pieces = list(placement.pieces)
    for i in lost:
        for brick in _near(placement, pieces[i]):
            if not labels.count(i):
                break
            if may_stand_in(pieces[i].brick_id, brick):
                _relabel_held(placement, brick, labels, i, len(pieces))
                pieces += _spare(placement, labels, len(pieces), brick)
        labels.drop(i)
    about = placement.grid, placement.box, placement.frame, placement.copies, placement.owner
    bricks = [piece.brick_id for piece in pieces]
    return Placement(*about, bricks, tuple(pieces), labels)


def _spare(placement: Placement, labels: Labels, label: int, brick: int) -> list[Piece]:
    """Return the piece with which a brick stands in, or nothing if it holds none of the pixels."""
    if not labels.count(label):
        return []
    is_owner = placement.copies and brick == placement.owner
    piece = placement.piece(labels, label, brick, is_owner=is_owner)
    return [] if piece is None else [replace(piece, is_spare=True)]


def _near(placement: Placement, piece: Piece) -> list[int]:
    """Return the bricks whose images may reach a piece's area, that of the grid first."""
    area, grid = piece.area, placement.grid
    y, x = np.array([area.y0, area.y0, area.y1, area.y1]), np.array([area.x0, area.x1] * 2)
    ra, dec = grid.to_sky(x + placement.box.x0, y + placement.box.y0)
    middle = (area.x0 + area.x1) / 2, (area.y0 + area.y1) / 2
    ra0, dec0 = grid.to_sky(middle[0] + placement.box.x0, middle[1] + placement.box.y0)
    reach_deg = float(separation_deg(ra0, dec0, ra, dec).max())
    margin_deg = placement.frame.size_pix * placement.frame.scale_arcsec / 3600 - BRICK_SIZE_DEG
    near = bricks_in_circle(float(ra0), float(dec0), reach_deg + margin_deg).tolist()
    first = placement.owner
    return sorted((int(brick) for brick in near), key=lambda brick: (brick != first, brick))


def _relabel_held(placement: Placement, brick: int, labels: Labels, old: int, new: int) -> None:
    """Change the label of those pixels that the image of a brick holds."""
    grid, size_pix = image_grid(brick, placement.frame), placement.frame.size_pix

    def to_image(y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sky = placement.grid.to_sky(x + placement.box.x0, y + placement.box.y0)
        x, y = grid.to_pixel(*sky)
        return y, x

    labels.relabel(old, new, Box(0, size_pix, 0, size_pix), to_image)
