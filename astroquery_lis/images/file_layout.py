"""What the header of an image file tells: where its bytes are, and where its pixels lie.

A coadd is a tile-compressed image (FITS 4.0, section 10): a table with a row per tile whose
descriptors say where the tile's bytes lie.  Header and table are read once; after that a box costs
only its tiles.

The decoder believes what it reads: a tile that says to be larger than its header does is written
beyond the end of the array.  So the parameters of a header are looked at first.

A file is believed by its header, not by its name.  Own reductions, whose images are larger, smaller
or shifted (legacypipe's ``--zoom``, ``--width``), are placed by their WCS.  What lies on other
pixels is refused.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, BinaryIO, NoReturn

import numpy as np
from astropy.io import fits

from ..exceptions import LegacySurveyError, UnexpectedContentError
from ..survey.bricks import parse_brick_name
from ..survey.paths import COADD_PRODUCTS, IMAGE_PRODUCTS, MASK_PLANES
from ..survey.pixel_grids import Box
from ..survey.placement import Frame, frame_of, image_grid
from ..survey.releases import RELEASES, WISE_BANDS, Tree

BLOCK_BYTES = 2880
CARD_BYTES = 80
HEADER_LIMIT_BYTES = 4 << 20
MAX_AXES = 999
MAX_ROW_BYTES = 4096
MAX_HEAP_BYTES = 1 << 36

END_CARD = b"END" + b" " * 77
_TILE_COLUMNS = ("COMPRESSED_DATA", "GZIP_COMPRESSED_DATA", "UNCOMPRESSED_DATA")
_WIDTH_BYTES = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "A": 1, "P": 8, "Q": 16}


PARAMETERS: dict[str, dict[str, tuple[int, int]]] = {
    "RICE_1": {"BLOCKSIZE": (16, 32), "BYTEPIX": (1, 8)},
    "RICE_ONE": {"BLOCKSIZE": (16, 32), "BYTEPIX": (1, 8)},
    "HCOMPRESS_1": {"SCALE": (0, 1 << 24), "SMOOTH": (0, 1)},
    "GZIP_1": {},
    "GZIP_2": {},
    "PLIO_1": {},
    "NOCOMPRESS": {},
}
"""Least and largest value of each parameter of each codec."""

BITPIX = (8, 16, 32, 64, -32, -64)
MAX_SIDE_PIX = 1 << 20
MAX_TILE_PIX = 1 << 24
MAX_TILES = 1 << 20
"""Far beyond what any survey has: a brick has 3600 x 3600 pixels in 1296 tiles."""

MAX_DITHER = 10_000
"""Largest ZDITHER0 of the FITS standard (4.0, section 10.2): the decoder takes it for a place in
its table of random numbers."""


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
            n_axes = header.get("NAXIS", 0)
            if not 0 <= n_axes <= MAX_AXES:
                msg = f"its NAXIS is {n_axes}"
                raise ValueError(msg)
            if header.get("ZIMAGE"):
                return _compressed(head, header, hdu, data_start, url)
            if n_axes == 2 and "TFIELDS" not in header:
                return _plain(header, hdu, data_start)
            if n_axes != 0:
                break
            start = data_start
        msg = f"{url} has no two-dimensional image in its first two HDUs."
        raise UnexpectedContentError(msg, url=url)


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
        if any(block[i : i + CARD_BYTES] == END_CARD for i in range(0, BLOCK_BYTES, CARD_BYTES)):
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
    heap = data_start + _checked_gap(header, grid, url)
    n_rows = min(max(len(head) - data_start, 0) // row_bytes, rows)
    table = np.zeros((rows, row_bytes), np.uint8)
    table[:n_rows] = np.frombuffer(head, np.uint8, row_bytes * n_rows, data_start).reshape(
        n_rows, row_bytes
    )
    offsets, lengths, is_coded = (of_tiles.reshape(grid) for of_tiles in _extents(table, header))
    starts, codec = heap + offsets, str(header["ZCMPTYPE"]).strip()
    image_map = ImageMap(hdu, shape, tile_shape, starts, starts + lengths, 0, heap, codec, is_coded)
    if n_rows < rows:
        raise MoreNeeded(heap, image_map)
    return image_map


def _checked_gap(header: fits.Header, grid: tuple[int, ...], url: str) -> int:
    """Return how far behind its beginning a table of tiles has its heap; refuse other tables."""
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
    return gap


def _extents(table: np.ndarray, header: fits.Header) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return offset and length of each tile in the heap, and which tiles the codec made."""
    # A tile that could not be quantised has an empty first descriptor and its bytes in a later
    # column.
    descriptors = list(_descriptors(table, header))
    lengths, offsets = np.zeros((2, len(table)), np.int64)
    for length, offset in descriptors:
        use = (lengths == 0) & (length > 0)
        lengths[use], offsets[use] = length[use], offset[use]
    if lengths.min() < 0 or offsets.min() < 0 or (offsets + lengths).max() > MAX_HEAP_BYTES:
        msg = "its table of tiles points out of the file"
        raise ValueError(msg)
    is_coded = descriptors[0][0] > 0 if descriptors else np.zeros(len(table), bool)
    return offsets, lengths, is_coded


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


def map_of(stream: BinaryIO | io.RawIOBase, hdu: int, places: Mapping[str, int]) -> ImageMap:
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


def check_parameters(header: Mapping[str, object]) -> None:
    """Refuse a header of a compressed image that the decoder should not see, by `ValueError`."""
    codec = str(header.get("ZCMPTYPE", "")).strip()
    if codec not in PARAMETERS:
        msg = f"its compression ZCMPTYPE={codec!r} is not one of {', '.join(PARAMETERS)}"
        raise ValueError(msg)
    _check("ZBITPIX", header.get("ZBITPIX"), *BITPIX)
    _check("ZNAXIS", header.get("ZNAXIS"), 2)
    tiles, pixels = 1, 1
    for axis in (1, 2):
        side = _within(f"ZNAXIS{axis}", header.get(f"ZNAXIS{axis}"), 1, MAX_SIDE_PIX)
        default = side if axis == 1 else 1
        tile = _within(f"ZTILE{axis}", header.get(f"ZTILE{axis}", default), 1, MAX_SIDE_PIX)
        tiles, pixels = tiles * math.ceil(side / tile), pixels * min(side, tile)
    _within("the number of tiles", tiles, 1, MAX_TILES)
    _within("the number of pixels of a tile", pixels, 1, MAX_TILE_PIX)
    _within("ZDITHER0", header.get("ZDITHER0", 1), 1, MAX_DITHER)
    for number in range(1, 10):
        name = str(header.get(f"ZNAME{number}", "")).strip()
        if name in PARAMETERS[codec]:
            value = header.get(f"ZVAL{number}")
            if name == "SCALE" and isinstance(value, float) and math.isfinite(value):
                value = int(value)
            _within(name, value, *PARAMETERS[codec][name])


def _check(name: str, value: object, *allowed: int) -> None:
    if value not in allowed:
        msg = f"{name} is {value!r}, not {' or '.join(map(str, allowed))}"
        raise ValueError(msg)


def _within(name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        msg = f"{name} is {value!r}, not a whole number from {least} to {most}"
        raise ValueError(msg)
    return value


# ---- where its pixels lie, and whether it is what was asked -------------------------------------

Cards = tuple[tuple[str, str | float, str], ...]
"""Keyword, value and comment of cards."""

FileSource = tuple[Tree, str, str, str | None]
"""Tree, brick, product and band of a file."""

KEPT_CARDS = (
    "MAGZERO",
    "MAGSYS",
    "FILTER",
    "FILTERX",
    "IMTYPE",
    "PRODTYPE",
    "SURVEY",
    "SURVEYID",
    "DRVERSIO",
    "LEGPIPEV",
    "TELESCOP",
    "INSTRUME",
    "DATEOBS1",
    "DATEOBS2",
)
"""Cards that other programs look for, which go on into the cutout."""

PLACE_TOLERANCE_PIX = 0.01
"""How far a file's pixels may lie from those of its brick; the survey's headers agree to 1e-6."""

_REGIONS = {8000: "south", 8001: "north", 9010: "south", 9011: "north", 9012: "south"}
_FILTERS = {"zd": "z", "bokr": "r", "bokg": "g"}


@dataclass(frozen=True)
class Layout:
    """How the pixels of a file lie in its brick's image."""

    shape: tuple[int, int]
    y0: int  # of its first pixel, in the brick's image
    x0: int
    is_whole: bool  # the file has the brick's image, no more and no less
    no_value: float
    cards: Cards

    def in_file(self, box: Box) -> Box:
        """Return what of a box of the brick's image the file has, in pixels of the file."""
        return box if self.is_whole else box.moved(-self.y0, -self.x0).clipped(*self.shape)

    def framed(self, pixels: np.ndarray, box: Box) -> np.ndarray:
        """Return the pixels of `in_file` with blanks round them, in the shape of the box."""
        if pixels.shape == box.shape:
            return pixels
        dtype = pixels.dtype if self.no_value == self.no_value else np.result_type(pixels, "f4")
        framed = np.full(box.shape, self.no_value, dtype)
        part = self.in_file(box)
        if 0 not in part.shape:
            framed[part.moved(self.y0 - box.y0, self.x0 - box.x0).slices] = pixels
        return framed


def check_header(
    header: fits.Header, shape: tuple[int, ...], source: FileSource, url: str
) -> Layout:
    """Return how a file's pixels lie in its brick; refuse a file that is not what its name says."""
    try:
        return _checked(header, shape, source)
    except Exception as error:  # Cards that cannot be read raise errors of astropy's own.
        msg = f"{url} is not what was asked for: {error}."
        raise UnexpectedContentError(msg, url=url, cause=error) from error


def _checked(header: fits.Header, shape: tuple[int, ...], source: FileSource) -> Layout:
    tree, brick, product, band = source
    differences = (
        _other_brick(header, brick),
        _other_product(header, product),
        _other_band(header, band),
        _other_release(header, tree),
    )
    differs = next(filter(None, differences), "")
    if differs:
        _refuse(f"it is of {differs}; {product} {band or ''} of brick {brick} was asked")
    if len(shape) != 2:
        _refuse(f"its image has {len(shape)} axes")
    frame = frame_of((band,))
    x0, y0 = _corner(header, brick, frame)
    ny, nx = shape
    is_whole = (ny, nx, y0, x0) == (frame.size_pix, frame.size_pix, 0, 0)
    cards = tuple(
        (name, header[name], header.comments[name]) for name in KEPT_CARDS if name in header
    )
    if not all(map(_is_writable, chain.from_iterable(cards))):
        _refuse("its header has text that is none, or numbers that are not finite")
    return Layout((ny, nx), y0, x0, is_whole, IMAGE_PRODUCTS[product].no_value, cards)


def _is_writable(part: object) -> bool:
    """Return True if a header may hold a value or a comment."""
    if isinstance(part, str):
        return part.isprintable() and part.isascii()
    return not isinstance(part, float) or math.isfinite(part)


def _corner(header: fits.Header, brick: str, frame: Frame) -> tuple[int, int]:
    """Return where an image begins on the pixels of its brick, x and y; refuse other pixels."""
    grid = image_grid(parse_brick_name(brick), frame)
    matrix = [header.get(name, 0.0) for name in ("CD1_1", "CD1_2", "CD2_1", "CD2_2")]
    expected = [-grid.scale_deg, 0.0, 0.0, grid.scale_deg]
    if not np.allclose(matrix, expected, rtol=0, atol=grid.scale_deg * 1e-5):
        scale = 3600 * np.sqrt(abs(matrix[0] * matrix[3] - matrix[1] * matrix[2]))
        _refuse(
            f"its pixels of {scale:.4g} arcsec are not the {frame.scale_arcsec} arcsec, north up, "
            "of the survey's"
        )
    ra, dec = header.get("CRVAL1", np.nan), header.get("CRVAL2", np.nan)
    apart = np.hypot((ra - grid.ra_deg) * np.cos(np.radians(grid.dec_deg)), dec - grid.dec_deg)
    is_tangent = str(header.get("CTYPE1", "")).startswith("RA---TAN")
    if not is_tangent or not apart < PLACE_TOLERANCE_PIX * grid.scale_deg:
        _refuse(f"its projection is not that of brick {brick}, about the brick's centre")
    shift = [
        grid.x_ref + 1 - header.get("CRPIX1", np.nan),
        grid.y_ref + 1 - header.get("CRPIX2", np.nan),
    ]
    if not np.allclose(shift, np.rint(shift), rtol=0, atol=PLACE_TOLERANCE_PIX):
        _refuse(f"its pixels lie between those of brick {brick}, by {shift} pixels")
    x0, y0 = (round(value) for value in shift)
    return x0, y0


def _refuse(reason: str) -> NoReturn:
    raise ValueError(reason)


def _other_brick(header: fits.Header, brick: str) -> str:
    name = str(header.get("BRICKNAM", "")).strip() or brick
    return "" if name == brick else f"brick {name}"


def _other_product(header: fits.Header, product: str) -> str:
    name = str(header.get("IMTYPE", "")).strip().lower()
    expected = "maskbits" if product in MASK_PLANES else product
    return name if name in COADD_PRODUCTS and name != expected else ""


def _other_band(header: fits.Header, band: str | None) -> str:
    text = str(header.get("FILTERX", "")).strip() or str(header.get("FILTER", ""))
    name = next(iter(text.split()), "")
    name = _FILTERS.get(name, name)
    is_known = len(name) == 1 or name in WISE_BANDS
    return f"band {name}" if is_known and band not in (None, name) else ""


def _other_release(header: fits.Header, tree: Tree) -> str:
    """Return the release and region that a file is of, if they are others.

    Own reductions have numbers that no release has, such as 8888.
    """
    version = header.get("DRVERSIO")
    if not isinstance(version, int) or version % 1000 >= 100:
        return ""
    name, region = f"dr{version // 1000}", _REGIONS.get(version, tree.region)
    if name in RELEASES and name != tree.release:
        return name
    return "" if region == tree.region else f"the {region} of {name}"
