"""Which bytes of a FITS image a box needs, and the pixels once they are there.

A coadd is a tile-compressed image (FITS 4.0, section 10): a table with a row per tile whose
descriptors say where the tile's bytes lie.  Header and table are read once; after that a box costs
only its tiles.  Decoding is astropy's own, over a file of which only those bytes exist, so every
codec that astropy knows works.
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
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import numpy as np
from astropy.io import fits

from .._codecs import (
    BITPIX,
    MAX_SIDE_PIX,
    check_parameters,
    check_tiles,
    decoding,
)
from .._forks import new_lock
from ..exceptions import LegacySurveyError, UnexpectedContentError
from ..io.ranges import FIRST_RANGE_BYTES
from ..io.whole_files import check_head, check_structure
from ..survey.pixel_grids import Box
from .headers import FileSource, Layout, check_header
from .strips import SharedFile

if TYPE_CHECKING:
    from typing_extensions import Buffer

BLOCK_BYTES = 2880
CARD_BYTES = 80
HEADER_LIMIT_BYTES = 4 << 20
MAX_PLAIN_BYTES = 1 << 30

# What astropy raises for bytes that are not what the header promises.
DECODE_ERRORS = (OSError, EOFError, ValueError, TypeError, IndexError, KeyError, zlib.error)

MAX_AXES = 999
MAX_ROW_BYTES = 4096
MAX_HEAP_BYTES = 1 << 36
_FRAGILE = ("HCOMPRESS_1", "PLIO_1")
"""Codecs that believe the sizes in their tiles."""

_END = b"END" + b" " * 77
_TILE_COLUMNS = ("COMPRESSED_DATA", "GZIP_COMPRESSED_DATA", "UNCOMPRESSED_DATA")
_WIDTH_BYTES = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "A": 1, "P": 8, "Q": 16}


class MoreNeeded(Exception):  # noqa: N818 - it reports no error
    """The bytes at hand end before the header or the table does."""

    def __init__(self, stop: int, image_map: ImageMap | None = None) -> None:
        super().__init__(f"the first {stop} bytes are needed")
        self.stop = stop
        self.image_map = image_map  # with the tiles of the rows at hand, where the header is


@dataclass(frozen=True)
class ImageMap:
    """Where the pixels of the first image of a FITS file lie."""

    hdu: int
    shape: tuple[int, int]
    tile_shape: tuple[int, int]
    starts: np.ndarray
    stops: np.ndarray
    pixel_bytes: int
    prefix_bytes: int
    codec: str = ""
    is_coded: Any = None
    """Which tiles the codec made; the others could not be quantised, and are gzipped."""

    @classmethod
    def parse(cls, head: bytes, *, url: str = "the file") -> ImageMap:
        """Read the map from the first bytes of a file."""
        try:
            return cls._parsed(head, url)
        except (MoreNeeded, LegacySurveyError):
            raise
        except Exception as error:  # Damaged headers raise nearly everything.
            msg = f"{url} cannot be read as a FITS image: {error or type(error).__name__}."
            raise UnexpectedContentError(msg, url=url, cause=error) from error

    @classmethod
    def _parsed(cls, head: bytes, url: str) -> ImageMap:
        if not head.startswith(b"SIMPLE  ="):
            msg = f"{url} is not a FITS file; it begins with {bytes(head[:9])!r}."
            raise UnexpectedContentError(msg, url=url)
        start = 0
        for hdu in range(2):
            header, data_start = _read_header(head, start, url)
            if not 0 <= header.get("NAXIS", 0) <= MAX_AXES:
                msg = f"its NAXIS is {header['NAXIS']}"
                raise ValueError(msg)
            if header.get("ZIMAGE"):
                return _compressed(head, header, hdu, data_start, url)
            if header.get("NAXIS", 0) == 2 and "TFIELDS" not in header:
                return _plain(header, hdu, data_start)
            if header.get("NAXIS", 0) != 0:
                break
            start = data_start
        msg = f"{url} has no two-dimensional image in its first two HDUs."
        raise UnexpectedContentError(msg, url=url)

    def tiles(self, box: Box) -> tuple[slice, slice]:
        """Return the slices of tile rows and tile columns that a box touches."""
        (ny, nx), (tile_ny, tile_nx) = self.shape, self.tile_shape
        box = box.clipped(ny, nx)
        if 0 in box.shape:
            return slice(0, 0), slice(0, 0)
        return (
            slice(box.y0 // tile_ny, -(-box.y1 // tile_ny)),
            slice(box.x0 // tile_nx, -(-box.x1 // tile_nx)),
        )

    def ranges(self, box: Box) -> list[tuple[int, int]]:
        """Return the byte ranges of the tiles that a box touches."""
        tiles = self.tiles(box)
        starts, stops = self.starts[tiles].ravel(), self.stops[tiles].ravel()
        if self.pixel_bytes:
            box = box.clipped(*self.shape)
            stops = starts + self.pixel_bytes * box.x1
            starts = starts + self.pixel_bytes * box.x0
        return [(int(a), int(b)) for a, b in zip(starts, stops, strict=True) if b > a]


def _read_header(head: bytes, start: int, url: str) -> tuple[fits.Header, int]:
    """Return the header that begins at byte ``start`` and the offset of what follows it."""
    position = start
    while True:
        if position - start > HEADER_LIMIT_BYTES:
            msg = f"{url} has a header without an end."
            raise UnexpectedContentError(msg, url=url)
        block = head[position : position + BLOCK_BYTES]
        if len(block) < BLOCK_BYTES:
            raise MoreNeeded(position + BLOCK_BYTES)
        position += BLOCK_BYTES
        if any(block[i : i + CARD_BYTES] == _END for i in range(0, BLOCK_BYTES, CARD_BYTES)):
            return fits.Header.fromstring(head[start:position]), position


def _plain(header: fits.Header, hdu: int, data_start: int) -> ImageMap:
    ny, nx = header["NAXIS2"], header["NAXIS1"]
    if not 0 < min(ny, nx) <= max(ny, nx) <= MAX_SIDE_PIX or header["BITPIX"] not in BITPIX:
        msg = f"its image is {ny} by {nx} with BITPIX={header['BITPIX']}"
        raise ValueError(msg)
    pixel_bytes = abs(header["BITPIX"]) // 8
    starts = data_start + pixel_bytes * nx * np.arange(ny, dtype=np.int64)[:, None]
    return ImageMap(
        hdu, (ny, nx), (1, nx), starts, starts + pixel_bytes * nx, pixel_bytes, data_start
    )


def _compressed(head: bytes, header: fits.Header, hdu: int, data_start: int, url: str) -> ImageMap:
    check_parameters(header)
    shape = header["ZNAXIS2"], header["ZNAXIS1"]
    tile_shape = header.get("ZTILE2", 1), header.get("ZTILE1", shape[1])
    grid = tuple(-(-size // tile) for size, tile in zip(shape, tile_shape, strict=True))
    row_bytes, rows = header["NAXIS1"], header["NAXIS2"]
    if header.get("ZNAXIS") != 2 or rows != grid[0] * grid[1]:
        msg = f"{url} has {rows} rows in its tile table where {grid[0]} x {grid[1]} are due."
        raise UnexpectedContentError(msg, url=url)
    if not 0 < row_bytes <= MAX_ROW_BYTES or not 0 <= header.get("PCOUNT", 0) < MAX_HEAP_BYTES:
        msg = f"its table of tiles has rows of {row_bytes} bytes and PCOUNT={header['PCOUNT']}"
        raise ValueError(msg)
    gap = header.get("THEAP", row_bytes * rows)
    if not row_bytes * rows <= gap < MAX_HEAP_BYTES:
        msg = f"its table of tiles has THEAP={gap}"
        raise ValueError(msg)
    heap = data_start + gap
    n_rows = min(max(len(head) - data_start, 0) // row_bytes, rows)
    table = np.zeros((rows, row_bytes), np.uint8)
    table[:n_rows] = np.frombuffer(head, np.uint8, row_bytes * n_rows, data_start).reshape(
        n_rows, row_bytes
    )
    lengths = np.zeros(rows, np.int64)
    offsets = np.zeros(rows, np.int64)
    # A tile that could not be quantised has an empty first descriptor and its bytes in a later
    # column.
    is_coded = None
    for length, offset in _descriptors(table, header):
        if is_coded is None:
            is_coded = length > 0
        use = (lengths == 0) & (length > 0)
        lengths[use], offsets[use] = length[use], offset[use]
    if lengths.min() < 0 or offsets.min() < 0 or (offsets + lengths).max() > MAX_HEAP_BYTES:
        msg = "its table of tiles points out of the file"
        raise ValueError(msg)
    starts = (heap + offsets).reshape(grid)
    stops = starts + lengths.reshape(grid)
    coded = None if is_coded is None else is_coded.reshape(grid)
    codec = str(header["ZCMPTYPE"]).strip()
    image_map = ImageMap(hdu, shape, tile_shape, starts, stops, 0, heap, codec, coded)
    if n_rows < rows:
        raise MoreNeeded(heap, image_map)
    return image_map


def _descriptors(table: np.ndarray, header: fits.Header) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (lengths in bytes, offsets) of the columns that hold tiles, in order of preference."""
    columns, first = {}, 0
    for number in range(1, min(header["TFIELDS"], 999) + 1):
        form = header[f"TFORM{number}"].strip().partition("(")[0]
        columns[header.get(f"TTYPE{number}", "").strip().upper()] = (first, form)
        first += _form_bytes(form)
    for name in _TILE_COLUMNS:
        if name in columns:
            at, form = columns[name]
            kind = ">i4" if "P" in form else ">i8"
            width = np.dtype(kind).itemsize
            pair = np.ascontiguousarray(table[:, at : at + 2 * width]).view(kind).astype(np.int64)
            yield pair[:, 0] * _WIDTH_BYTES[form[-1]], pair[:, 1]


def _form_bytes(form: str) -> int:
    """Return the width in a row of a column of format ``form``, such as ``1PB`` or ``1D``."""
    repeat = form.rstrip("LXBIJKAEDCMPQ")
    kind = form[len(repeat) :][0]
    return (int(repeat) if repeat else 1) * _WIDTH_BYTES[kind]


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
                image_map = _map_of(stream, hdu, self._hdu.fileinfo())
            self._map = image_map
            self._guard = decoding(self._hdu)
        except Exception as error:
            raise _as_os_error(error) from error

    def read(self, box: Box) -> np.ndarray:
        """Return the pixels of a box that lies in the image."""
        try:
            with self._guard:
                if self._map is not None and self._map.codec in _FRAGILE:
                    rows, columns = self._map.tiles(box)
                    (ny, nx), (height, width) = self._map.shape, self._map.tile_shape
                    tiles = (
                        (
                            int(self._map.starts[row, column]),
                            int(self._map.stops[row, column] - self._map.starts[row, column]),
                            (min(height, ny - row * height), min(width, nx - column * width)),
                        )
                        for row in range(rows.start, rows.stop)
                        for column in range(columns.start, columns.stop)
                        if self._map.is_coded[row, column]
                    )
                    check_tiles(self._map.codec, tiles, self._stream)
                pixels = self._hdu.section[box.slices]
            return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
        except Exception as error:
            raise _as_os_error(error) from error


def _as_os_error(error: Exception) -> OSError | LegacySurveyError:
    """Return what damaged bytes raise (zlib.error, CfitsioException) as astropy's own error."""
    if isinstance(error, (OSError, LegacySurveyError)):
        return error
    msg = f"{type(error).__name__}: {error}"
    return OSError(msg)


def _map_of(stream: BinaryIO | io.RawIOBase, hdu: int, places: Mapping[str, int]) -> ImageMap:
    """Return the map of an image whose header begins and whose table of tiles lies somewhere."""
    stream.seek(places["hdrLoc"])
    text = stream.read(places["datLoc"] - places["hdrLoc"]) or b""
    header = fits.Header.fromstring(text)
    check_parameters(header)
    table = stream.read(header["NAXIS1"] * header["NAXIS2"]) or b""
    # As if the file began here, but for the offsets.
    own = _compressed(text + table, header, hdu, len(text), "the file")
    start = places["hdrLoc"]
    return replace(own, starts=own.starts + start, stops=own.stops + start)


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
