"""Image files held open, and boxes of their pixels.

Decoding is astropy's own, over a file of which only the bytes at hand exist, so every codec that
astropy knows works.  Some of its decoders believe the sizes that a tile tells, and write beyond the
end of the array: those are compared with the header first.
"""

from __future__ import annotations

import gzip
import io
import os
import tempfile
import threading
import weakref
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from astropy.io import fits

from .._locks import decoding, new_lock
from ..exceptions import LegacySurveyError, NotFoundError, UnexpectedContentError
from ..io.ranges import FIRST_RANGE_BYTES
from ..io.whole_files import check_head, check_structure, flaw_of
from ..survey.pixel_grids import Box
from .file_layout import (
    Cards,
    FileSource,
    ImageMap,
    Layout,
    MoreNeeded,
    check_header,
    map_of,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .reader import SectionRequest
    from .strips import SharedFile

MAX_PLAIN_BYTES = 1 << 30

# What astropy raises for bytes that are not what the header promises.
DECODE_ERRORS = (OSError, EOFError, ValueError, TypeError, IndexError, KeyError, zlib.error)

ROWS_AT_ONCE = 1024

_FRAGILE = ("HCOMPRESS_1", "PLIO_1")
"""Codecs that believe the sizes in their tiles."""


TILE_HEAD_BYTES = 25
HCOMPRESS_MAGIC = b"\xdd\x99"
MAX_BIT_PLANES = 64


def tiles_under(image_map: ImageMap, box: Box) -> tuple[slice, slice]:
    """Return the slices of tile rows and tile columns that a box touches."""
    tile_ny, tile_nx = image_map.tile_shape
    box = box.clipped(*image_map.shape)
    if 0 in box.shape:
        return slice(0, 0), slice(0, 0)
    return (
        slice(box.y0 // tile_ny, -(-box.y1 // tile_ny)),
        slice(box.x0 // tile_nx, -(-box.x1 // tile_nx)),
    )


def ranges_under(image_map: ImageMap, box: Box) -> list[tuple[int, int]]:
    """Return the byte ranges of the tiles that a box touches."""
    tiles = tiles_under(image_map, box)
    starts, stops = image_map.starts[tiles].ravel(), image_map.stops[tiles].ravel()
    if image_map.pixel_bytes:
        box = box.clipped(*image_map.shape)
        stops = starts + image_map.pixel_bytes * box.x1
        starts = starts + image_map.pixel_bytes * box.x0
    return [(int(a), int(b)) for a, b in zip(starts, stops, strict=True) if b > a]


def _coded_under(image_map: ImageMap, box: Box) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """Yield offset, length and shape of the tiles that a box touches and that the codec made."""
    tiles = np.zeros(image_map.starts.shape, bool)
    tiles[tiles_under(image_map, box)] = True
    (ny, nx), (height, width) = image_map.shape, image_map.tile_shape
    for row, column in np.argwhere(tiles & image_map.is_coded).tolist():
        start, stop = int(image_map.starts[row, column]), int(image_map.stops[row, column])
        shape = min(height, ny - row * height), min(width, nx - column * width)
        yield start, stop - start, shape


class OpenImage:
    """The image of a FITS file, held open, of which boxes can be decoded."""

    def __init__(
        self,
        file: str | Path | BinaryIO | io.RawIOBase,
        *,
        hdu: int | None = None,
        image_map: ImageMap | None = None,
    ) -> None:
        stream = open(file, "rb") if isinstance(file, (str, Path)) else file  # noqa: SIM115
        self._stream = stream
        # Closed when the last user lets go: an image may be dropped while a thread still reads it.
        weakref.finalize(self, stream.close)
        try:
            self._hdul = fits.open(stream, memmap=False, lazy_load_hdus=True)
            if hdu is None:
                hdu = 0 if self._hdul[0].header.get("NAXIS", 0) == 2 else 1
            self._hdu = self._hdul[hdu]
            self.shape = tuple(self._hdu.shape)
            self.header: fits.Header = self._hdu.header
            if image_map is None and isinstance(self._hdu, fits.CompImageHDU):
                image_map = map_of(stream, hdu, self._hdu.fileinfo())
            self._map = image_map
            self._guard = decoding(self._hdu)
        except Exception as error:
            raise _as_os_error(error) from error

    def read(self, box: Box) -> np.ndarray:
        """Return the pixels of a box that lies in the image."""
        try:
            with self._guard:
                if self._map is not None and self._map.codec in _FRAGILE:
                    check_tiles(self._map.codec, _coded_under(self._map, box), self._stream)
                return self._decoded(box)
        except Exception as error:
            raise _as_os_error(error) from error

    def _decoded(self, box: Box) -> np.ndarray:
        """Decode a box, a large one by rows of tiles: what is decoded at once is copied once."""
        height = self._map.tile_shape[0] if self._map is not None else 1
        step = max(ROWS_AT_ONCE // height, 1) * height
        edges = [box.y0, *range(box.y0 // height * height + step, box.y1, step), box.y1]
        parts = (self._hdu.section[y0:y1, box.x0 : box.x1] for y0, y1 in pairwise(edges))
        first = next(parts)
        native = first.dtype.newbyteorder("=")
        if len(edges) == 2:
            return np.ascontiguousarray(first, dtype=native)
        pixels, y = np.empty(box.shape, native), 0
        for part in chain([first], parts):
            pixels[y : y + len(part)] = part
            y += len(part)
        return pixels


def check_tiles(
    codec: str, tiles: Iterable[tuple[int, int, tuple[int, int]]], stream: BinaryIO | io.RawIOBase
) -> None:
    """Refuse tiles (offset, length, shape) that say other sizes than their header, `ValueError`."""
    for start, n_bytes, shape in tiles:
        stream.seek(start)
        head = stream.read(min(TILE_HEAD_BYTES, n_bytes)) or b""
        if codec == "PLIO_1":
            _check_list(head, n_bytes)
            continue
        sides = tuple(int.from_bytes(head[at : at + 4], "big") for at in (2, 6))
        planes = max(head[22:25], default=MAX_BIT_PLANES + 1)
        if not head.startswith(HCOMPRESS_MAGIC) or sides != shape or planes > MAX_BIT_PLANES:
            msg = f"a tile of {shape} pixels says {sides} and up to {planes} bit planes"
            raise ValueError(msg)


def _check_list(head: bytes, n_bytes: int) -> None:
    """Refuse a line list of PLIO that says to be longer than it is."""
    words = [int.from_bytes(head[at : at + 2], "big", signed=True) for at in range(0, 14, 2)]
    if len(head) < 14 or words[2] > 0:
        length, first = words[2], 3
    else:
        length, first = (words[4] << 15) + words[3], words[1]
    if not 0 <= first <= length <= n_bytes // 2:
        msg = f"a tile of {n_bytes} bytes says that it has {2 * length}"
        raise ValueError(msg)


def _as_os_error(error: Exception) -> OSError | LegacySurveyError:
    """Return what damaged bytes raise (zlib.error, CfitsioException) as astropy's own error."""
    if isinstance(error, (OSError, LegacySurveyError)):
        return error
    msg = f"{type(error).__name__}: {error}"
    return OSError(msg)


def open_sparse(size: int, image_map: ImageMap, prefix: bytes) -> tuple[OpenImage, SparseFile]:
    """Open an image of which the first bytes are known."""
    file = SparseFile(size, {0: prefix})
    return OpenImage(file, hdu=image_map.hdu, image_map=image_map), file


class SparseFile(io.RawIOBase):
    """A read-only file of which only some byte runs are known, by the offset of their first.

    Reading a byte that is not known raises: a decoder must never see invented zeros.
    """

    def __init__(self, size: int, runs: Mapping[int, bytes]) -> None:
        super().__init__()
        self._size = size
        self._position = 0
        self.set_runs(runs)

    def set_runs(self, runs: Mapping[int, bytes]) -> None:
        """Replace the known bytes."""
        self._runs, reach = {}, 0
        for start in sorted(runs):
            # A run inside another would hide what the other has beyond it.
            if start + len(runs[start]) > reach:
                self._runs[start] = runs[start]
                reach = start + len(runs[start])
        self._starts = list(self._runs)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to another offset and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        """Read known bytes; a byte that is not known raises `OSError`."""
        view = memoryview(buffer).cast("B")
        stop = min(self._position + len(view), self._size)
        n_read = 0
        while self._position < stop:
            place = bisect_right(self._starts, self._position) - 1
            start = self._starts[place] if place >= 0 else 0
            run = self._runs[start] if place >= 0 else b""
            offset = self._position - start
            part = run[offset : offset + stop - self._position]
            if not part:
                msg = f"byte {self._position} of the file was not fetched"
                raise OSError(msg)
            view[n_read : n_read + len(part)] = part
            n_read += len(part)
            self._position += len(part)
        return n_read


@dataclass(eq=False)
class KnownImage:
    """An image that is held open, and what is known of its file."""

    image: OpenImage
    stamp: object
    map: ImageMap | None
    url: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    _source: FileSource | None = None
    _layout: Layout | None = None

    def layout(self, source: FileSource) -> Layout:
        """Return where the pixels lie in the brick; refuse a file that is of another one."""
        if self._layout is None or self._source != source:
            self._layout = check_header(self.image.header, self.image.shape, source, self.url)
            self._source = source
        return self._layout

    def tell(self, layout: Layout, shared: SharedFile) -> None:
        """Tell a job how the file is tiled; of one that is no whole image it shares nothing."""
        shared.strips.learn(self.map if layout.is_whole else None)

    def read(self, box: Box, source: FileSource, shared: SharedFile | None) -> np.ndarray:
        """Decode a box of the brick's image, the bytes of which are at hand."""
        layout = self.layout(source)
        if shared is not None:
            self.tell(layout, shared)
        if layout.is_whole:
            return self.image.read(box)
        part = layout.in_file(box)
        if 0 not in part.shape:
            return layout.framed(self.image.read(part), box)
        # One pixel tells the type of those that are not there.
        return layout.framed(self.image.read(Box(0, 1, 0, 1))[:0, :0], box)


class OpenImages:
    """The images used last, held open so that headers and tile tables are parsed once.

    Safe to share among threads.  A forked process begins with none, since it shares file offsets
    with its parent.
    """

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = new_lock()
        self._images: OrderedDict[Hashable, Any] = OrderedDict()

    def __getstate__(self) -> dict[str, int]:
        return {"_limit": self._limit}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(state["_limit"])  # type: ignore[misc]

    def get(self, key: Hashable, stamp: object = None) -> KnownImage | None:
        """Return the image held under ``key``, if it is of the state ``stamp``."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            known = self._images.get(key)
            if known is None or (stamp is not None and known.stamp != stamp):
                return None
            self._images.move_to_end(key)
            return known

    def put(self, key: Hashable, known: KnownImage) -> None:
        """Hold an image; the one used longest ago is let go."""
        with self._lock:
            self._images[key] = known
            self._images.move_to_end(key)
            while len(self._images) > self._limit:
                self._images.popitem(last=False)

    def drop(self, key: Hashable) -> None:
        """Let an image go."""
        with self._lock:
            self._images.pop(key, None)

    def clear(self) -> None:
        """Let every image go."""
        with self._lock:
            self._images.clear()


def open_whole(path: str | Path, stamp: object, size: int) -> KnownImage:
    """Open a file that is on disk whole; refuse one that ends before its pixels do."""
    if not str(path).endswith(".gz"):
        image_map = _check_whole(path, size)
        return KnownImage(OpenImage(path, image_map=image_map), stamp, image_map, str(path))
    # Decoded once, to where it takes no memory and goes away by itself.
    with tempfile.TemporaryFile() as written, gzip.open(path) as packed:
        _copy(packed, written)
        written.flush()
        check_structure(".fits", written, path)
        written.seek(0)
        plain = os.fdopen(os.dup(written.fileno()), "rb")
    return KnownImage(OpenImage(plain), stamp, None, str(path))


def _copy(packed: gzip.GzipFile, plain: IO[bytes]) -> None:
    """Unpack an image; refuse what is far larger than one."""
    while block := packed.read(1 << 20):
        plain.write(block)
        if plain.tell() > MAX_PLAIN_BYTES:
            msg = f"it holds more than the {MAX_PLAIN_BYTES} bytes of any coadd"
            raise UnexpectedContentError(msg)


def _check_whole(path: str | Path, size: int) -> ImageMap:
    """Return where the pixels of a local file are; refuse one that ends before they do.

    Astropy would only warn.
    """
    with open(path, "rb") as stream:
        head = stream.read(FIRST_RANGE_BYTES)
        check_head(path, head, path)
        while True:
            try:
                image_map = ImageMap.parse(head, url=str(path))
                break
            except MoreNeeded as more:
                tail = stream.read(more.stop - len(head))
                if not tail:
                    msg = f"{path} ends before its header or its tile table does."
                    raise UnexpectedContentError(msg, url=str(path)) from None
                head += tail
    if image_map.stops.max() > size:
        msg = f"{path} has {size} bytes; its image needs {image_map.stops.max()}."
        raise UnexpectedContentError(msg, url=str(path))
    return image_map


BoxRead: TypeAlias = tuple[np.ndarray, str, Cards]
"""Pixels, where they are from, and cards."""


def read_on_disk(
    images: OpenImages,
    path: str | Path,
    url: str,
    request: SectionRequest,
    shared: SharedFile | None = None,
) -> BoxRead:
    """Read a box of a file that is here; images are held open."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"{path} does not exist."
        raise NotFoundError(msg, url=str(path), cause=error) from error
    stamp = (status.st_mtime_ns, status.st_size)
    key = str(path), request.hdu
    known = images.get(key, stamp)
    try:
        if known is None:
            known = _opened(path, url, request.hdu, stamp)
            images.put(key, known)
        with known.lock:
            pixels = known.read(request.box, request.source, shared)
            return pixels, url, known.layout(request.source).cards
    except DECODE_ERRORS as error:
        images.drop(key)
        msg = f"{path} cannot be read as a FITS image: {error}."
        raise UnexpectedContentError(msg, url=str(path), cause=error) from error


def _opened(path: str | Path, url: str, hdu: int | None, stamp: tuple[int, int]) -> KnownImage:
    """Open the first image of a file, or that of a later HDU, of which all has to be sound."""
    if hdu is None:
        return open_whole(path, stamp, stamp[1])
    flaw = flaw_of(path)
    if flaw:
        raise UnexpectedContentError(flaw, url=str(path))
    return KnownImage(OpenImage(path, hdu=hdu), stamp, None, url)
