"""What the cutouts of a job share: every tile of a file fetched once and decoded once.

A job says beforehand which boxes it will read.  So all missing tiles of a file are asked for at
once, or the file whole when most of them are needed; rows of tiles are decoded as the cutouts come
to them, and a row is let go after its last use: the memory it takes does not grow with the number
of cutouts, if they come in order of declination.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..survey.bricks import IMAGE_SIZE_PIX
from ..survey.pixel_grids import Box
from .file_layout import ImageMap

if TYPE_CHECKING:
    from ..io.mirrors import Mirror
    from .reader import Section, SectionRequest

WHOLE_FILE_SHARE = 0.6
"""A file is fetched whole when more than this share of its tiles is needed."""

USUAL_TILE = (100, 100)
"""What is assumed of a file that is not open yet: the tiles of every coadd of DR8 to DR11."""


class LayoutChanged(Exception):  # noqa: N818 - it reports no error
    """The tiles of the image are not those that were assumed; begin again with the right ones."""


class StripCache:
    """The tiles of one image that a known set of boxes needs."""

    def __init__(self) -> None:
        self.is_tiled = True
        self._boxes: Counter[object] = Counter()
        self._shape, self._tile = (IMAGE_SIZE_PIX, IMAGE_SIZE_PIX), USUAL_TILE
        self._is_laid_out = False
        self._strips: dict[int, np.ndarray] = {}

    def __contains__(self, box: object) -> bool:
        return box in self._boxes

    def expect(self, box: Box) -> None:
        """Announce a use of a box."""
        self._boxes[box] += 1

    def learn(self, image_map: ImageMap | None) -> None:
        """Take note of the true tiles."""
        is_tiled = False
        if image_map is not None and not image_map.pixel_bytes:
            is_tiled = True
            if (image_map.shape, image_map.tile_shape) != (self._shape, self._tile):
                self._lay_out(image_map.shape, image_map.tile_shape)
                raise LayoutChanged
        if is_tiled != self.is_tiled:
            self.is_tiled = is_tiled
            raise LayoutChanged

    def forget(self) -> None:
        """Drop what is decoded, because the file changed."""
        self._strips = {}

    def _lay_out(self, shape: tuple[int, int], tile: tuple[int, int]) -> None:
        self._shape, self._tile, self._strips, self._is_laid_out = shape, tile, {}, True
        grid = tuple(-(-size // step) for size, step in zip(shape, tile, strict=True))
        self._needed = np.zeros(grid, bool)
        self._uses = [0] * grid[0]
        for box, times in self._boxes.items():
            assert isinstance(box, Box)
            rows, columns = self._tiles(box)
            self._needed[rows, columns] = True
            for row in range(rows.start, rows.stop):
                self._uses[row] += times

    def _tiles(self, box: Box) -> tuple[slice, slice]:
        (tile_ny, tile_nx) = self._tile
        rows = slice(box.y0 // tile_ny, -(-box.y1 // tile_ny))
        return rows, slice(box.x0 // tile_nx, -(-box.x1 // tile_nx))

    @property
    def needed(self) -> np.ndarray:
        """Which tiles some box needs, a bool array of (tile rows, tile columns)."""
        if not self._is_laid_out:
            self._lay_out(self._shape, self._tile)
        return self._needed

    def missing(self, box: Box) -> list[Box]:
        """Return boxes of whole tiles that have to be decoded before ``box`` can be cut."""
        rows = self._tiles(box)[0]
        lacking = [row for row in range(rows.start, rows.stop) if row not in self._strips]
        # A run of tiles that goes on in the next row is decoded with it: each call costs.
        begun: dict[tuple[int, int], tuple[int, int]] = {}
        boxes: list[Box] = []
        for row in lacking:
            edges = np.flatnonzero(np.diff(self.needed[row], prepend=False, append=False))
            for first, stop in edges.reshape(-1, 2).tolist():
                start, end = begun.pop((first, stop), (row, row))
                if end != row:
                    boxes.append(self._pixels(start, end, first, stop))
                    start = row
                begun[first, stop] = start, row + 1
        boxes += [self._pixels(*extent, *columns) for columns, extent in begun.items()]
        return boxes

    def _pixels(self, row: int, row_stop: int, column: int, column_stop: int) -> Box:
        (tile_ny, tile_nx), (ny, nx) = self._tile, self._shape
        y1, x1 = min(row_stop * tile_ny, ny), min(column_stop * tile_nx, nx)
        return Box(int(row) * tile_ny, int(y1), int(column) * tile_nx, int(x1))

    def put(self, boxes: Sequence[Box], pixels: Sequence[np.ndarray]) -> None:
        """Keep decoded tiles."""
        tile_ny = self._tile[0]
        new: dict[int, np.ndarray] = {}
        for box, values in zip(boxes, pixels, strict=True):
            for y0 in range(box.y0, box.y1, tile_ny):
                y1 = min(y0 + tile_ny, box.y1)
                if y0 // tile_ny not in new:
                    new[y0 // tile_ny] = np.empty((y1 - y0, self._shape[1]), values.dtype)
                new[y0 // tile_ny][:, box.x0 : box.x1] = values[y0 - box.y0 : y1 - box.y0]
        self._strips.update(new)

    def cut(self, box: Box) -> np.ndarray:
        """Return the pixels of a box, all tiles of which are decoded."""
        rows, tile_ny = self._tiles(box)[0], self._tile[0]
        parts = [
            self._strips[row][
                max(box.y0 - row * tile_ny, 0) : box.y1 - row * tile_ny, box.x0 : box.x1
            ]
            for row in range(rows.start, rows.stop)
        ]
        return np.concatenate(parts)

    def release(self, box: Box) -> None:
        """Count one use of a box as done and let go what no other needs."""
        self._boxes[box] -= 1
        if not self._boxes[box]:
            del self._boxes[box]
        if not self._is_laid_out:
            return
        rows = self._tiles(box)[0]
        for row in range(rows.start, rows.stop):
            self._uses[row] -= 1
            if not self._uses[row]:
                self._strips.pop(row, None)


@dataclass(eq=False)
class SharedFile:
    """What a job knows of one file; whoever uses it holds its lock."""

    strips: StripCache = field(default_factory=StripCache)
    section: Any = None  # the answer without pixels, once there is one
    mirror: Mirror | None = None  # the one that gave the first tiles
    is_brought: bool = False  # all tiles that the job needs are in the cache
    changes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def is_most(self, n_tiles: int) -> bool:
        """Return True if so many tiles are reason to fetch the file whole."""
        return n_tiles / self.strips.needed.size > WHOLE_FILE_SHARE

    @property
    def wants_whole(self) -> bool:
        """Whether the job needs most of the file."""
        return not self.is_brought and self.is_most(int(self.strips.needed.sum()))

    def forget(self) -> None:
        """Drop what came of a state of the file that is no more."""
        self.is_brought = False
        self.changes += 1
        self.strips.forget()


ReadBox: TypeAlias = Callable[["SectionRequest", "SharedFile | None"], "Section"]
"""Reads a box of a file, of which a job may know something."""


def read_shared(request: SectionRequest, shared: SharedFile, read_box: ReadBox) -> Section:
    """Return the section of a box, cut from strips that are decoded when first needed."""
    while shared.strips.is_tiled:
        changes = shared.changes
        try:
            boxes = shared.strips.missing(request.box)
            tiles = [_read_tiles(request, box, shared, read_box) for box in boxes]
            section: Section = shared.section
            if section.pixels is None:
                return section
            if shared.changes != changes:
                continue  # Some of the tiles are of another state of the file.
            shared.strips.put(boxes, [pixels for pixels in tiles if pixels is not None])
            return section._replace(pixels=shared.strips.cut(request.box))
        except LayoutChanged:
            continue
    return read_box(request, None)


def _read_tiles(
    request: SectionRequest, box: Box, shared: SharedFile, read_box: ReadBox
) -> np.ndarray | None:
    if shared.section is not None and shared.section.pixels is None:
        return None
    section = read_box(replace(request, box=box), shared)
    if shared.section is None:
        # Without its pixels, which would stay in memory as long as the job.
        empty = None if section.pixels is None else section.pixels[:0]
        shared.section = section._replace(pixels=empty)
        shared.mirror = section.answer.mirror
    return section.pixels


class SharedFiles:
    """The files of a job, and which boxes of them its cutouts will read."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, ...], SharedFile] = {}

    def file(self, paths: tuple[str, ...], box: Box) -> SharedFile | None:
        """Return the file if the box was announced."""
        file = self._files.get(paths)
        return file if file is not None and box in file.strips else None

    def expect(self, requests: Iterable[SectionRequest]) -> None:
        """Announce the boxes of one cutout; to be called for all before the first is read."""
        for request in requests:
            # Later HDUs are read from the whole file.
            if request.hdu is None:
                self._files.setdefault(request.paths, SharedFile()).strips.expect(request.box)

    def release(self, requests: Iterable[SectionRequest]) -> None:
        """Let go what only the boxes of this cutout needed, whether they were read or not."""
        for request in requests:
            if request.hdu is None:
                file = self._files[request.paths]
                with file.lock:
                    file.strips.release(request.box)
