"""Whether a file can be what its name says, by its own bytes and without decoding pixels."""

import gzip
import zlib

from ..exceptions import TruncatedError, UnexpectedContentError

__all__ = ["check_head", "check_structure"]

HEAD_BYTES = 9
BLOCK_BYTES = 2880
CARD_BYTES = 80
HEADER_LIMIT_BLOCKS = 1500
CHUNK_BYTES = 1 << 20
_END = b"END" + b" " * 77
_JPEG_END = b"\xff\xd9"
_HEXADECIMAL = frozenset(b"0123456789abcdefABCDEF")


def check_head(path, head, url):
    """Refuse content that cannot be the FITS, gzip, JPEG or checksum file that it should be.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        Name of the file; other kinds are not checked.
    head : bytes
        Its first bytes.
    url : str
        Where it comes from.

    Raises
    ------
    UnexpectedContentError
    """
    name, kind, good = str(path), "FITS", True
    if name.endswith((".fits", ".fz")):
        good = head.startswith(b"SIMPLE  =")
    elif name.endswith(".gz"):
        good = head.startswith(b"\x1f\x8b")
    elif name.endswith(".jpg"):
        kind, good = "JPEG", head.startswith(b"\xff\xd8")
    elif name.endswith(".sha256sum"):
        kind, good = "checksum", _HEXADECIMAL.issuperset(head[:HEAD_BYTES])
    if not good:
        msg = f"{url} is not a {kind} file; it begins with {bytes(head[:HEAD_BYTES])!r}."
        raise UnexpectedContentError(msg, url=url)


def check_structure(path, stream, url):
    """Refuse a whole file that ends too early, or goes on after its end.

    FITS files are followed from header to header; gzip files are unpacked, which checks their own
    checksum, and those of FITS files have to begin with a header; JPEG files have an end mark.

    Parameters
    ----------
    path : str or `~pathlib.Path`
        Name of the file; other kinds are not checked.
    stream : file-like
        Its bytes, seekable.
    url : str
        Where it comes from.

    Raises
    ------
    TruncatedError, UnexpectedContentError
    """
    name = str(path)
    stream.seek(0)
    check_head(name, stream.read(HEAD_BYTES), url)
    if name.endswith((".fits", ".fz")):
        _check_fits(stream, url)
    elif name.endswith(".gz"):
        _check_gzip(stream, url, is_fits=name.endswith(".fits.gz"))
    elif name.endswith(".jpg"):
        stream.seek(-len(_JPEG_END), 2)
        if stream.read() != _JPEG_END:
            msg = f"{url} ends before its picture does."
            raise TruncatedError(msg, url=url)


def _check_fits(stream, url):
    size = stream.seek(0, 2)
    position = 0
    while position < size:
        stop = _end_of_hdu(stream, position, url)
        if stop > size:
            msg = f"{url} has {size} bytes; its HDUs need {stop}."
            raise TruncatedError(msg, url=url)
        position = stop


def _end_of_hdu(stream, start, url):
    """Return the offset of what follows the HDU that begins at ``start``."""
    stream.seek(start)
    values = {}
    for number in range(HEADER_LIMIT_BLOCKS):
        block = stream.read(BLOCK_BYTES)
        if number == 0 and not block.startswith((b"SIMPLE  =", b"XTENSION=")):
            msg = f"{url} has something other than a FITS header at byte {start}."
            raise UnexpectedContentError(msg, url=url)
        if len(block) < BLOCK_BYTES:
            break
        for at in range(0, BLOCK_BYTES, CARD_BYTES):
            card = block[at : at + CARD_BYTES]
            if card == _END:
                return start + (number + 1) * BLOCK_BYTES + _data_bytes(values, url)
            keyword = card[:8].rstrip()
            if keyword.startswith(b"NAXIS") or keyword in (b"BITPIX", b"PCOUNT", b"GCOUNT"):
                values[keyword.decode("ascii", "replace")] = card[10:].partition(b"/")[0]
    msg = f"{url} ends within a header, or has one without an end."
    raise TruncatedError(msg, url=url)


def _data_bytes(values, url):
    """Return the length of the data that a header announces, in whole blocks."""
    try:
        number = {keyword: int(value) for keyword, value in values.items()}
        axes = [number[f"NAXIS{i}"] for i in range(1, number["NAXIS"] + 1)]
        bits = abs(number["BITPIX"])
    except (KeyError, ValueError) as error:
        msg = f"{url} has a header that does not tell its length."
        raise UnexpectedContentError(msg, url=url, cause=error) from error
    if not axes:
        return 0
    pixels = 1
    for axis in axes:
        pixels *= axis
    length = bits // 8 * number.get("GCOUNT", 1) * (number.get("PCOUNT", 0) + pixels)
    return -(-length // BLOCK_BYTES) * BLOCK_BYTES


def _check_gzip(stream, url, *, is_fits):
    stream.seek(0)
    try:
        with gzip.GzipFile(fileobj=stream, mode="rb") as unpacked:
            if is_fits:
                check_head(".fits", unpacked.read(HEAD_BYTES), url)
            while unpacked.read(CHUNK_BYTES):
                pass
    except EOFError as error:
        msg = f"{url} ends before its compressed data do."
        raise TruncatedError(msg, url=url, cause=error) from error
    except (OSError, zlib.error) as error:
        msg = f"{url} cannot be unpacked: {error}."
        raise UnexpectedContentError(msg, url=url, cause=error) from error
