"""Images compressed in tiles as the survey compresses them: `write_images`.

astropy compresses, and so the columns of the tables come in another order than the survey's.  A
tile that comes again is compressed once, and none carries the time at which it was made: the same
pixels are the same bytes.
"""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

import numpy as np
from astropy.io import fits

from .._codecs import decoding

_RICE = {"compression_type": "RICE_1"}
_IMAGE = {**_RICE, "quantize_method": 2, "quantize_level": -1e-4}
_LOSSLESS = {"compression_type": "GZIP_1", "quantize_level": 0}
_INTEGER = {"compression_type": "HCOMPRESS_1", "hcomp_scale": 0}
# How each product is compressed: legacypipe's ``survey.get_compression_kwargs``.
CODECS = {
    "image": _IMAGE,
    "model": _IMAGE,
    "blobmodel": _IMAGE,
    "invvar": {**_RICE, "quantize_method": -1, "quantize_level": 16},
    "chi2": {**_RICE, "quantize_method": -1, "quantize_level": -0.1},
    "depth": _LOSSLESS,
    "galdepth": _LOSSLESS,
    "psfsize": _LOSSLESS,
    "nexp": _INTEGER,
    "maskbits": _INTEGER,
}

TILE_PIX = 100
_SEEDS = 10000
_GZIP_MAGIC = b"\x1f\x8b\x08"
_BLOCK_BYTES = 2880


def write_images(
    file: BinaryIO, planes: dict[str, np.ndarray], header: fits.Header, product: str, name: str
) -> None:
    """Write images, by the names of their extensions, into the file called ``name``."""
    fits.HDUList([fits.PrimaryHDU()]).writeto(file)
    for extension, plane in planes.items():
        file.write(_extension(plane, header, product, name, extension))


def _extension(
    data: np.ndarray, header: fits.Header, product: str, name: str, extension: str
) -> bytes:
    # Any seed from 1 to 10000 that a file keeps from build to build and does not share.
    seed = zlib.crc32(name.encode()) % _SEEDS + 1
    if any(size % TILE_PIX for size in data.shape):
        stack, index, shift = data, np.arange(np.prod(-(-np.array(data.shape) // TILE_PIX))), 0
    else:
        stack, index, shift = _different_tiles(data, product)
    hdu = fits.CompImageHDU(
        stack,
        header,
        name=extension or None,
        tile_shape=(TILE_PIX, TILE_PIX),
        dither_seed=(seed - 1 + shift) % _SEEDS + 1,
        **CODECS[product],
    )
    stream = io.BytesIO()
    with decoding(hdu):
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(stream)
    return _with_all_tiles(stream, index, data.shape, seed)


def _different_tiles(data: np.ndarray, product: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the tiles to compress, which of them each tile is, and the number of the first."""
    rows, columns = (size // TILE_PIX for size in data.shape)
    parts = data.reshape(rows, TILE_PIX, columns, TILE_PIX).swapaxes(1, 2)
    tiles = parts.reshape(rows * columns, TILE_PIX, TILE_PIX)
    if CODECS[product] is _IMAGE:
        # What is added before rounding depends on a tile's number, but in blank tiles.
        filled = np.flatnonzero(tiles.any(axis=(1, 2)))
        first, last = (filled[0], filled[-1] + 1) if len(filled) else (0, 1)
        blank = int(first > 0 or last < len(tiles))
        stack = np.concatenate([tiles[first:last], np.zeros_like(tiles[:blank])])
        numbers = np.arange(len(tiles))
        index = np.where((numbers < first) | (numbers >= last), last - first, numbers - first)
        return stack.reshape(-1, TILE_PIX), index, int(first)
    places: dict[bytes, int] = {}
    index = np.array([places.setdefault(tile.tobytes(), len(places)) for tile in tiles])
    _, first_of = np.unique(index, return_index=True)
    return tiles[first_of].reshape(-1, TILE_PIX), index, 0


def _with_all_tiles(
    stream: io.BytesIO, index: np.ndarray, shape: tuple[int, ...], seed: int
) -> bytes:
    """Return a compressed image with tiles of the one in a stream: those that ``index`` counts."""
    content = stream.getvalue()
    with fits.open(io.BytesIO(content), disable_image_compression=True) as hdul:
        header, kind = hdul[1].header, hdul[1].columns.dtype.newbyteorder(">")
        start = hdul[1].fileinfo()["datLoc"]
    table = np.frombuffer(content, kind, header["NAXIS2"], start)
    heap = content[start + table.nbytes :]
    columns = [name for name in kind.names if name.endswith("COMPRESSED_DATA")]
    # A tile is in one of the columns; in the others its length is 0.
    places = np.sum([table[name] for name in columns], axis=0)
    tiles = [_without_clock(heap[place : place + length]) for length, place in places]
    rows = table[index]
    lengths = places[index, 0]
    for name in columns:
        rows[name][:, 1] = np.where(rows[name][:, 0] > 0, np.cumsum(lengths) - lengths, 0)
    header["ZNAXIS2"], header["ZNAXIS1"] = shape
    header["NAXIS2"], header["PCOUNT"] = len(rows), int(lengths.sum())
    if "ZDITHER0" in header:
        header["ZDITHER0"] = seed
    body = rows.tobytes() + b"".join(tiles[number] for number in index)
    return header.tostring().encode("ascii") + body + bytes(-len(body) % _BLOCK_BYTES)


def _without_clock(tile: bytes) -> bytes:
    return tile[:4] + bytes(4) + tile[8:] if tile.startswith(_GZIP_MAGIC) else tile
