"""A label for each pixel of a box, such as the brick that owns it, without an array of pixels.

The borders of bricks cross few of the squares of a box: a square that none crosses has one label,
and pixels are looked up in the others alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from .bricks import IMAGE_SIZE_PIX, brick_grid, brick_id
from .pixel_grids import Box, depth_in

if TYPE_CHECKING:
    from .pixel_grids import Grid

SQUARE_PIX = 32
COARSE_SQUARES = 8
"""Width of the larger squares, in squares, that are judged first."""

POLAR_DEC_DEG = 88.0
"""Beyond it borders bend within a square, and images are short of what their bricks own."""

FEW_DEG = 0.2
"""What is narrower than this touches two rows and two columns of bricks at most."""

NO_LABEL = -1
MIXED = -2

EDGE_PIX = 2
"""So far beyond an image a rendering of it reaches."""

_MIDDLE_AND_CORNERS = (SQUARE_PIX - 1) * np.array([[0.5, 0, 0, 1, 1], [0.5, 0, 1, 0, 1]])

AT_ONCE = 512
"""Squares whose pixels are looked up together, so that the arrays stay in the processor's cache."""

ToImage: TypeAlias = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Where rows and columns of a box are in another image: rows and columns, NaN where nowhere."""

BEND = 1.1
"""How much farther from the middle of a square a pixel may be, in an image, than its corners."""


class Labels:
    """Labels of the pixels of a box."""

    def __init__(self, shape: tuple[int, int], squares: np.ndarray, strips: np.ndarray) -> None:
        self.shape = shape
        self._squares = squares  # label of each square, or MIXED
        self._strips = strips  # the pixels of the mixed squares, in their order
        self._numbers = _numbers(squares)

    @classmethod
    def uniform(cls, shape: tuple[int, int], label: int) -> Labels:
        """Return the same label for every pixel."""
        n_rows, n_columns = (-(-n // SQUARE_PIX) for n in shape)
        strips = np.empty((0, SQUARE_PIX, SQUARE_PIX), np.int32)
        return cls(shape, np.full((n_rows, n_columns), label, np.int32), strips)

    def copy(self) -> Labels:
        """Return labels that can be changed apart."""
        return Labels(self.shape, self._squares.copy(), self._strips.copy())

    def of(self, part: Box) -> np.ndarray:
        """Return the labels of the pixels of a part of the box."""
        rows = slice(part.y0 // SQUARE_PIX, -(-part.y1 // SQUARE_PIX))
        columns = slice(part.x0 // SQUARE_PIX, -(-part.x1 // SQUARE_PIX))
        squares = self._squares[rows, columns]
        pixels = np.empty((squares.shape[0], SQUARE_PIX, squares.shape[1], SQUARE_PIX), np.int32)
        pixels[:] = squares[:, None, :, None]
        is_mixed = squares == MIXED
        row, column = np.nonzero(is_mixed)
        pixels[row, :, column, :] = self._strips[self._numbers[rows, columns][is_mixed]]
        whole = pixels.reshape([n * SQUARE_PIX for n in squares.shape])
        y0, x0 = rows.start * SQUARE_PIX, columns.start * SQUARE_PIX
        return whole[part.moved(-y0, -x0).slices]

    def renamed(self, names: list[int]) -> Labels:
        """Return the labels as their numbers in a list, those that it lacks as no label."""
        order = np.argsort(names)
        ascending = np.array(names)[order]

        def number(labels: np.ndarray) -> np.ndarray:
            place = np.searchsorted(ascending, labels).clip(max=len(names) - 1)
            return np.where(ascending[place] == labels, order[place], NO_LABEL).astype(np.int32)

        squares = np.where(self._squares == MIXED, MIXED, number(self._squares))
        return Labels(self.shape, squares.astype(np.int32), number(self._strips))

    def present(self) -> list[int]:
        """Return the labels that some pixel has."""
        return sorted(_distinct(self._squares) | _distinct(self._strips))

    def count(self, label: int) -> int:
        """Return how many pixels have a label."""
        ny, nx = (np.minimum(SQUARE_PIX, n - np.arange(0, n, SQUARE_PIX)) for n in self.shape)
        n_mixed = int(np.count_nonzero(self._strips == label))
        return int(ny @ (self._squares == label) @ nx) + n_mixed

    def rim(self, label: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and columns of pixels of a label that hold all others between them."""
        y, x = _corners_of(np.argwhere(self._squares == label), self.shape)
        part = self._strips == label
        has = part.any(axis=(1, 2))
        rim = part[has]
        inner = rim[:, :-2, 1:-1] & rim[:, 2:, 1:-1] & rim[:, 1:-1, :-2] & rim[:, 1:-1, 2:]
        rim[:, 1:-1, 1:-1] &= ~inner
        number, row, column = np.nonzero(rim)
        first = np.argwhere(self._squares == MIXED)[has] * SQUARE_PIX
        return (
            np.concatenate([y, first[number, 0] + row]),
            np.concatenate([x, first[number, 1] + column]),
        )

    def relabel(
        self, old: int, new: int, image: Box, to_image: ToImage, *, is_outside: bool = False
    ) -> None:
        """Change a label to another where an image is, or where it is not."""
        sign = -1 if is_outside else 1
        squares = np.argwhere(self._squares == old)
        y, x = to_image(*(squares[:, :, None] * SQUARE_PIX + _MIDDLE_AND_CORNERS).swapaxes(0, 1))
        depths = sign * depth_in(image, y[:, 0], x[:, 0])
        apart = np.maximum(np.abs(y[:, 1:] - y[:, :1]), np.abs(x[:, 1:] - x[:, :1]))
        reach = BEND * apart.max(axis=1)
        self._squares[tuple(squares[depths > reach].T)] = new
        # What is nowhere is not known to be outside: comparisons with NaN are false.
        self._split(squares[~(np.abs(depths) > reach)])
        first = np.argwhere(self._squares == MIXED) * SQUARE_PIX
        number, row, column = np.nonzero(self._strips == old)
        y, x = to_image(first[number, 0] + row, first[number, 1] + column)
        is_there = sign * depth_in(image, y, x) > 0
        self._strips[number[is_there], row[is_there], column[is_there]] = new

    def drop(self, label: int) -> None:
        """Take a label from its pixels."""
        for labels in (self._squares, self._strips):
            labels[labels == label] = NO_LABEL

    def _split(self, squares: np.ndarray) -> None:
        """Keep the pixels of squares that had one label."""
        was_mixed, known = self._squares == MIXED, self._strips
        row, column = squares.T
        y, x = _pixels_of(squares)
        is_pixel = (y < self.shape[0]) & (x < self.shape[1])
        pixels = np.where(is_pixel, self._squares[row, column][:, None, None], NO_LABEL)
        self._squares[row, column] = MIXED
        self._numbers = _numbers(self._squares)
        self._strips = np.empty((len(known) + len(squares), SQUARE_PIX, SQUARE_PIX), np.int32)
        self._strips[self._numbers[was_mixed]] = known
        self._strips[self._numbers[row, column]] = pixels


def _numbers(squares: np.ndarray) -> np.ndarray:
    """Return which of the strips a mixed square has."""
    return (np.cumsum(squares == MIXED) - 1).reshape(squares.shape)


def _pixels_of(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns, (n, 32, 1) and (n, 1, 32), of the pixels of squares."""
    side = np.arange(SQUARE_PIX)
    first = squares[:, :, None] * SQUARE_PIX + side
    return first[:, 0, :, None], first[:, 1, None, :]


def _corners_of(squares: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the four outermost pixels of squares."""
    low = squares * SQUARE_PIX
    high = np.minimum(low + SQUARE_PIX, shape) - 1
    y = np.concatenate([low[:, 0], low[:, 0], high[:, 0], high[:, 0]])
    return y, np.concatenate([low[:, 1], high[:, 1], low[:, 1], high[:, 1]])


class Owners:
    """The bricks that own the pixels of a box of a grid."""

    def __init__(self, grid: Grid, box: Box) -> None:
        self._grid, self._box = grid, box
        shape = box.shape
        n_rows, n_columns = (-(-n // SQUARE_PIX) for n in shape)
        squares = np.full((n_rows, n_columns), MIXED, np.int32)
        step = COARSE_SQUARES * SQUARE_PIX
        y, x = (np.minimum(np.arange(0, n + step, step), n - 1)[None] for n in shape)
        coarse, _, _ = self._judged(y, x)
        coarse = coarse[0]
        for axis in (0, 1):
            coarse = coarse.repeat(COARSE_SQUARES, axis)
        squares[:] = coarse[:n_rows, :n_columns]
        # The larger squares that a border crosses, each with its small ones.
        tiles = np.argwhere(squares[::COARSE_SQUARES, ::COARSE_SQUARES] == MIXED)
        corners = np.arange(COARSE_SQUARES + 1) * SQUARE_PIX
        y, x = (np.minimum(tiles[:, i, None] * step + corners, n - 1) for i, n in enumerate(shape))
        fine, bricks, is_plain = self._judged(y, x)
        side = np.arange(COARSE_SQUARES)
        row = np.broadcast_to((tiles[:, 0, None] * COARSE_SQUARES + side)[:, :, None], fine.shape)
        column = np.broadcast_to(
            (tiles[:, 1, None] * COARSE_SQUARES + side)[:, None, :], fine.shape
        )
        is_in = (row < n_rows) & (column < n_columns)
        squares[row[is_in], column[is_in]] = fine[is_in]
        self._squares = squares
        is_open = is_in & (fine == MIXED)
        self._mixed = np.column_stack([row[is_open], column[is_open]])
        # What may own a pixel of each mixed square, unless its squares hold too many bricks.
        self._bricks, self._is_plain = bricks[is_open], is_plain[is_open]

    def _judged(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the brick of each cell between rows and columns, or MIXED; those it may have.

        Of a smooth function the values in a cell are between those of its corners, but for its
        bend: what the middles of the sides differ from the mean of their ends.  The last array
        tells where the bricks are all that there can be.
        """
        y, x = _with_middles(y) + self._box.y0, _with_middles(x) + self._box.x0
        ra, dec = self._grid.to_sky(*np.broadcast_arrays(x[:, None, :], y[:, :, None]))
        origin = ra[:, :1, :1]
        ra_low, ra_high = _range_in_cells((ra - origin + 180.0) % 360.0 - 180.0)
        dec_low, dec_high = _range_in_cells(dec)
        highest = np.maximum(np.abs(dec_low), np.abs(dec_high))
        width = (ra_high - ra_low) * np.cos(np.radians(np.minimum(highest, 90.0)))
        is_plain = (highest < POLAR_DEC_DEG) & (np.maximum(width, dec_high - dec_low) < FEW_DEG)
        bricks = brick_id(
            np.stack([ra_low, ra_high, ra_low, ra_high], -1) + origin[..., None],
            np.clip(np.stack([dec_low, dec_low, dec_high, dec_high], -1), -90.0, 90.0),
        )
        is_one = is_plain & (bricks == bricks[..., :1]).all(axis=-1)
        return np.where(is_one, bricks[..., 0], MIXED), bricks, is_plain

    @property
    def is_plain(self) -> bool:
        """Whether every brick surely has an image of all that it owns."""
        return bool(self._is_plain.all())

    @cached_property
    def bricks(self) -> list[int]:
        """The bricks that own some pixel, ascending."""
        y, x = _corners_of(self._mixed, self._box.shape)
        present = _distinct(self._squares) | _distinct(self._owner(y, x))
        is_open = ~(self._is_plain & np.isin(self._bricks, list(present)).all(axis=-1))
        for strips in self._strips(self._mixed[is_open]):
            present |= _distinct(strips)
        return sorted(present)

    def labels(self) -> Labels:
        """Return the owner of every pixel."""
        blank = np.empty((0, SQUARE_PIX, SQUARE_PIX), np.int32)
        order = np.lexsort(self._mixed.T[::-1])
        strips = np.concatenate([blank, *self._strips(self._mixed[order])])
        return Labels(self._box.shape, self._squares, strips)

    def _owner(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return brick_id(*self._grid.to_sky(x + self._box.x0, y + self._box.y0))

    def _strips(self, squares: np.ndarray) -> list[np.ndarray]:
        """Return the owners of the pixels of squares, some squares at once."""
        strips = []
        ny, nx = self._box.shape
        for i in range(0, len(squares), AT_ONCE):
            y, x = np.broadcast_arrays(*_pixels_of(squares[i : i + AT_ONCE]))
            owners = self._owner(np.minimum(y, ny - 1), np.minimum(x, nx - 1))
            strips.append(np.where((y < ny) & (x < nx), owners, NO_LABEL).astype(np.int32))
        return strips


def _distinct(labels: np.ndarray) -> set[int]:
    """Return the labels that there are."""
    # Neighbours are mostly alike, and sorting or hashing all of them takes longer than the rest.
    flat = labels.ravel()
    found = {int(flat[0])} if flat.size else set()
    found.update(flat[1:][flat[1:] != flat[:-1]].tolist())
    return found - {NO_LABEL, MIXED}


def _with_middles(corners: np.ndarray) -> np.ndarray:
    """Return coordinates along the last axis with the middles between them."""
    result = np.empty((len(corners), 2 * corners.shape[1] - 1))
    result[:, ::2] = corners
    result[:, 1::2] = (corners[:, 1:] + corners[:, :-1]) / 2
    return result


def _range_in_cells(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds in each cell of values at corners, middles of sides, and middles of cells."""
    bend = 1e-9
    for part in (values, values.swapaxes(1, 2)):
        of_rows = np.abs(part[:, :, 1::2] - (part[:, :, :-1:2] + part[:, :, 2::2]) / 2)
        of_cells = np.maximum(np.maximum(of_rows[:, :-1:2], of_rows[:, 1::2]), of_rows[:, 2::2])
        bend = bend + 2 * (of_cells if part is values else of_cells.swapaxes(1, 2))
    corners = values[:, ::2, ::2]
    sides = np.minimum(corners[:, 1:], corners[:, :-1]), np.maximum(corners[:, 1:], corners[:, :-1])
    low = np.minimum(sides[0][:, :, 1:], sides[0][:, :, :-1])
    high = np.maximum(sides[1][:, :, 1:], sides[1][:, :, :-1])
    return low - bend, high + bend


def images_over(
    bricks: Iterable[int], ra: ArrayLike, dec: ArrayLike, *, margin_pix: float = EDGE_PIX
) -> np.ndarray:
    """Return how many bricks' images hold each of some points, or lie within a margin of them."""
    count = np.zeros(np.shape(ra))
    low, high = -0.5 - margin_pix, IMAGE_SIZE_PIX - 0.5 + margin_pix
    for brick in bricks:
        x, y = brick_grid(int(brick)).to_pixel(np.asarray(ra), np.asarray(dec))
        count += (x > low) & (x < high) & (y > low) & (y < high)
    return count
