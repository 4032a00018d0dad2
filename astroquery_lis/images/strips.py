"""Rows of decoded tiles that several cutouts share, each kept from its first use to its last."""

from collections import Counter

import numpy as np

from ..survey.bricks import IMAGE_SIZE_PIX
from ..survey.pixel_grids import Box

__all__ = ["LayoutChanged", "StripCache"]

USUAL_TILE = (100, 100)
"""What is assumed of a file that is not open yet: the tiles of every coadd of DR8 to DR11."""


class LayoutChanged(Exception):  # noqa: N818 - it reports no error
    """The tiles of the image are not those that were assumed; begin again with the right ones."""


class StripCache:
    """The tiles of one image that a known set of boxes needs."""

    def __init__(self):
        self.is_tiled = True
        self._boxes = Counter()
        self._shape = self._tile = None
        self._strips = {}

    def __contains__(self, box):
        return box in self._boxes

    def expect(self, box):
        """Announce a use of a box."""
        self._boxes[box] += 1

    def learn(self, image_map):
        """Take note of the true tiles."""
        is_tiled = image_map is not None and not image_map.pixel_bytes
        if is_tiled and (image_map.shape, image_map.tile_shape) != (self._shape, self._tile):
            self._lay_out(image_map.shape, image_map.tile_shape)
            raise LayoutChanged
        if is_tiled != self.is_tiled:
            self.is_tiled = is_tiled
            raise LayoutChanged

    def forget(self):
        """Drop what is decoded, because the file changed."""
        self._strips = {}

    def _lay_out(self, shape, tile):
        self._shape, self._tile, self._strips = shape, tile, {}
        grid = tuple(-(-size // step) for size, step in zip(shape, tile, strict=True))
        self._needed = np.zeros(grid, bool)
        self._uses = np.zeros(grid[0], int)
        for box, times in self._boxes.items():
            rows, columns = self._tiles(box)
            self._needed[rows, columns] = True
            self._uses[rows] += times

    def _known(self):
        if self._tile is None:
            self._lay_out((IMAGE_SIZE_PIX, IMAGE_SIZE_PIX), USUAL_TILE)

    def _tiles(self, box):
        (tile_ny, tile_nx) = self._tile
        rows = slice(box.y0 // tile_ny, -(-box.y1 // tile_ny))
        return rows, slice(box.x0 // tile_nx, -(-box.x1 // tile_nx))

    @property
    def needed(self):
        """Which tiles some box needs, a bool array of (tile rows, tile columns)."""
        self._known()
        return self._needed

    def missing(self, box):
        """Return boxes of whole tiles that have to be decoded before ``box`` can be cut."""
        self._known()
        rows = self._tiles(box)[0]
        boxes, row = [], rows.start
        while row < rows.stop:
            stop = row + 1
            if row not in self._strips:
                while stop < rows.stop and self._alike(row, stop):
                    stop += 1
                edges = np.flatnonzero(np.diff(self._needed[row], prepend=False, append=False))
                boxes += [self._pixels(row, stop, *run) for run in edges.reshape(-1, 2)]
            row = stop
        return boxes

    def _alike(self, row, other):
        return other not in self._strips and (self._needed[other] == self._needed[row]).all()

    def _pixels(self, row, row_stop, column, column_stop):
        (tile_ny, tile_nx), (ny, nx) = self._tile, self._shape
        y1, x1 = min(row_stop * tile_ny, ny), min(column_stop * tile_nx, nx)
        return Box(int(row) * tile_ny, int(y1), int(column) * tile_nx, int(x1))

    def put(self, boxes, pixels):
        """Keep decoded tiles."""
        tile_ny = self._tile[0]
        new = {}
        for box, values in zip(boxes, pixels, strict=True):
            for y0 in range(box.y0, box.y1, tile_ny):
                y1 = min(y0 + tile_ny, box.y1)
                if y0 // tile_ny not in new:
                    new[y0 // tile_ny] = np.empty((y1 - y0, self._shape[1]), values.dtype)
                new[y0 // tile_ny][:, box.x0 : box.x1] = values[y0 - box.y0 : y1 - box.y0]
        self._strips.update(new)

    def cut(self, box):
        """Return the pixels of a box, all tiles of which are decoded."""
        rows, tile_ny = self._tiles(box)[0], self._tile[0]
        parts = [
            self._strips[row][
                max(box.y0 - row * tile_ny, 0) : box.y1 - row * tile_ny, box.x0 : box.x1
            ]
            for row in range(rows.start, rows.stop)
        ]
        return np.concatenate(parts)

    def release(self, box):
        """Count one use of a box as done and let go what no other needs."""
        self._boxes[box] -= 1
        if not self._boxes[box]:
            del self._boxes[box]
        if self._tile is None:
            return
        rows = self._tiles(box)[0]
        self._uses[rows] -= 1
        for row in range(rows.start, rows.stop):
            if not self._uses[row]:
                self._strips.pop(row, None)
