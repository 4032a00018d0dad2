"""Guards round the coding and decoding of tile-compressed images.

The C code behind astropy keeps state of its own in two places and releases the interpreter's lock
meanwhile, so that threads get wrong pixels without an error (seen with astropy 8.0):

- HCOMPRESS (nexp and the masks) codes and decodes through static variables: one at a time;
- the table of random numbers for dithered floats is made when it is first needed, without a lock:
  it is made beforehand here.

It also believes what it reads: a tile that says to be larger than its header does is written
beyond the end of the array.  So the parameters of a header, and the sizes in the tiles, are looked
at first.
"""

import io
import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import BinaryIO

import numpy as np
from astropy.io import fits

from ._forks import new_lock

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

TILE_HEAD_BYTES = 25
HCOMPRESS_MAGIC = b"\xdd\x99"
MAX_BIT_PLANES = 64

_hcompress = new_lock()
_dithers = new_lock()
_has_dithers = False


def decoding(hdu: object) -> AbstractContextManager[object]:
    """Return what to code or decode the pixels of an HDU in, so that other threads may too."""
    codec = getattr(hdu, "compression_type", "")
    if codec.startswith("HCOMPRESS"):
        return _hcompress
    if codec and not _has_dithers:
        _make_dithers()
    return nullcontext()


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


def _make_dithers() -> None:
    """Have the decoder make its table of random numbers, in one thread."""
    global _has_dithers
    if _has_dithers:
        return
    with _dithers:
        if not _has_dithers:
            # Too few pixels, or too little noise, would be kept without quantisation.
            noise = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
            stream = io.BytesIO()
            image = fits.CompImageHDU(
                noise,
                compression_type="RICE_1",
                tile_shape=(32, 32),
                quantize_method=2,
                quantize_level=-0.01,
                dither_seed=1,
            )
            fits.HDUList([fits.PrimaryHDU(), image]).writeto(stream)
            stream.seek(0)
            with fits.open(stream) as hdul:
                hdul[1].section[:, :]
            _has_dithers = True
