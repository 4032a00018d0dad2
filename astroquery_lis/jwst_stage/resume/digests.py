"""Digests of exposures that a new time stamp alone does not change.

Every file that the pipeline writes holds the time at which it was written: in the card ``DATE`` of
its headers and in the tree that its ASDF extension keeps.  Both are passed over, as are the
checksums of headers, which cover it, and the history of the tree: the software that wrote it.
"""

import hashlib
import re
from pathlib import Path

__all__ = ["content_digest"]

_BLOCK_BYTES = 2880
_CARD_BYTES = 80
_CHUNK_BYTES = 1 << 20
_PASSED_OVER = (b"DATE    ", b"CHECKSUM", b"DATASUM ")
_TREE_PASSED_OVER = (b"history", b"asdf_library", b"_fits_hash")
_NEW_KEY = re.compile(rb"[^\s#]")
_META_DATE = re.compile(rb"  date:")


def content_digest(path):
    """Return the sha256 of what a file says, whenever it was written.

    Parameters
    ----------
    path : path-like
        A FITS file; of any other the digest is that of its bytes.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    path = Path(path)
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        first = stream.read(_CARD_BYTES)
        stream.seek(0)
        if not first.startswith(b"SIMPLE  ="):
            return hashlib.file_digest(stream, "sha256").hexdigest()
        while _add_hdu(stream, digest):
            pass
    return digest.hexdigest()


def _add_hdu(stream, digest):
    """Add one HDU to the digest; `False` at the end of the file."""
    cards = []
    while True:
        block = stream.read(_BLOCK_BYTES)
        if len(block) < _BLOCK_BYTES:
            # The end, or what a truncated file ends with.
            digest.update(block)
            return False
        found = [block[at : at + _CARD_BYTES] for at in range(0, _BLOCK_BYTES, _CARD_BYTES)]
        cards += found
        if any(card.rstrip() == b"END" for card in found):
            break
        if not cards[0].startswith((b"SIMPLE", b"XTENSION")):
            # Something else follows the last HDU.
            digest.update(block)
            return True
    values = {card[:8]: card[10:].partition(b"/")[0].strip() for card in cards}
    length = _data_bytes(values)
    is_tree = values.get(b"EXTNAME ", b"").strip(b"' ") == b"ASDF"
    if is_tree:
        digest.update(b"ASDF")
        _add_tree(stream.read(length), digest)
    else:
        for card in cards:
            if card.strip() and not card.startswith(_PASSED_OVER):
                digest.update(card)
        left = length
        while left > 0:
            chunk = stream.read(min(_CHUNK_BYTES, left))
            if not chunk:
                return False
            digest.update(chunk)
            left -= len(chunk)
    fill = -length % _BLOCK_BYTES
    if len(stream.read(fill)) < fill:
        digest.update(b"cut off")
    return True


def _data_bytes(values):
    axes = [int(values[b"NAXIS%-3d" % i]) for i in range(1, int(values[b"NAXIS   "]) + 1)]
    if not axes:
        return 0
    pixels = 1
    for axis in axes:
        pixels *= axis
    parameters = int(values.get(b"PCOUNT  ", b"0"))
    groups = int(values.get(b"GCOUNT  ", b"1"))
    return abs(int(values[b"BITPIX  "])) // 8 * groups * (parameters + pixels)


def _add_tree(data, digest):
    """Add an ASDF file: its tree without history and date of writing, its blocks as they are."""
    text, marker, blocks = data.partition(b"\n...\n")
    section = b""
    for line in text.split(b"\n"):
        if line.startswith(b"#"):
            continue
        if _NEW_KEY.match(line):
            section = line.partition(b":")[0]
        if section in _TREE_PASSED_OVER:
            continue
        if section == b"meta" and _META_DATE.match(line):
            continue
        digest.update(line.rstrip() + b"\n")
    digest.update(marker)
    digest.update(blocks)
