"""Pictures as bytes that a page can hold, and small."""

import base64
import io
import struct
import zlib

import numpy as np

from ..exceptions import OptionalDependencyError

__all__ = ["data_uri", "pillow", "png_bytes", "thumbnail"]

_JPEG = {"quality": 90, "subsampling": 0, "optimize": True}


def pillow(what):
    """Return pillow.

    Parameters
    ----------
    what : str
        What needs it, with its verb, for the message.

    Returns
    -------
    module

    Raises
    ------
    OptionalDependencyError
        If it is not installed.
    """
    try:
        import PIL.Image
        import PIL.ImageDraw
        import PIL.ImageFont
    except ImportError as error:
        msg = f"{what} pillow: install astroquery_lis[plot]."
        raise OptionalDependencyError(msg, cause=error) from error
    return PIL


def png_bytes(picture):
    """Return a picture as a PNG file.

    Parameters
    ----------
    picture : `~numpy.ndarray` of uint8, shape (ny, nx, 3) or (ny, nx)
        Red, green, blue, or grey; first row on top.

    Returns
    -------
    bytes
    """
    picture = np.ascontiguousarray(picture, np.uint8)
    ny, nx = picture.shape[:2]
    rows = picture.reshape(ny, -1)
    # Filter 2 of PNG: each row as its difference from the one above.
    lines = np.empty((ny, rows.shape[1] + 1), np.uint8)
    lines[:, 0] = 2
    lines[:, 1:] = rows
    lines[1:, 1:] -= rows[:-1]
    kind = 2 if picture.ndim == 3 else 0
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", nx, ny, 8, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines.tobytes(), 6)),
        (b"IEND", b""),
    )
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def data_uri(picture, *, lossless=False):
    """Return a picture as an address that holds it.

    Parameters
    ----------
    picture : `~numpy.ndarray` of uint8, shape (ny, nx, 3) or (ny, nx)
        First row on top.
    lossless : bool, optional
        Whether it has to be a PNG.  Otherwise it is a JPEG, of a quarter of the size, if pillow is
        installed.

    Returns
    -------
    str
    """
    kind, data = "png", None
    if not lossless:
        try:
            image = pillow("A JPEG needs").Image.fromarray(np.ascontiguousarray(picture))
        except OptionalDependencyError:
            pass
        else:
            stream = io.BytesIO()
            image.save(stream, "JPEG", **_JPEG)
            kind, data = "jpeg", stream.getvalue()
    if data is None:
        data = png_bytes(picture)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def thumbnail(picture, size, *, enlarge=False):
    """Return a picture that fits into a square, by averaging or repeating whole pixels.

    Parameters
    ----------
    picture : `~numpy.ndarray` of uint8, shape (ny, nx) or (ny, nx, 3)
        Any picture.
    size : int
        Side of the square.
    enlarge : bool, optional
        Whether to make small pictures larger.

    Returns
    -------
    `~numpy.ndarray` of uint8
    """
    ny, nx = picture.shape[:2]
    factor = -(-max(ny, nx) // size)
    if factor == 1:
        times = size // max(ny, nx) if enlarge else 1
        return picture.repeat(times, axis=0).repeat(times, axis=1)
    # The last block is filled up by repeating the edge, so that no pixel is lost.
    pad = [(0, -ny % factor), (0, -nx % factor)] + [(0, 0)] * (picture.ndim - 2)
    blocks = np.pad(picture, pad, mode="edge")
    shape = (blocks.shape[0] // factor, factor, blocks.shape[1] // factor, factor)
    return blocks.reshape(*shape, *picture.shape[2:]).mean(axis=(1, 3)).astype(np.uint8)
