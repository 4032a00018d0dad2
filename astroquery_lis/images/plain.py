"""A cutout as cards and arrays, made into HDUs for users and into bytes for files.

The bytes are those that astropy writes of the HDUs.  Cards are formatted by astropy too, but each
distinct one once: in a job of many cutouts only a few differ from one to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from astropy.io import fits

__all__ = ["Card", "PlainCutout", "PlainImage"]

Card = tuple[str, str | float, str]
"""Keyword, value and comment."""

BLOCK_BYTES = 2880
_END = b"END" + b" " * 77


@dataclass(frozen=True, eq=False)
class PlainImage:
    """One image of a cutout."""

    name: str
    cards: list[Card]
    pixels: np.ndarray

    @property
    def header(self) -> dict[str, str | float]:
        """Its keywords and values."""
        return {keyword: value for keyword, value, _ in self.cards}


@dataclass(frozen=True, eq=False)
class PlainCutout:
    """The cards of a cutout's primary HDU, and its images."""

    cards: list[Card]
    images: list[PlainImage]

    @classmethod
    def of(cls, hdul: fits.HDUList) -> PlainCutout:
        """Return what HDUs hold, for what reads both alike; their own bytes stay with astropy."""
        images = [PlainImage(hdu.name, _cards_of(hdu.header), hdu.data) for hdu in hdul[1:]]
        return cls(_cards_of(hdul[0].header), images)

    @property
    def header(self) -> dict[str, str | float]:
        """Keywords and values of the primary HDU."""
        return {keyword: value for keyword, value, _ in self.cards}

    def to_bytes(self) -> bytes:
        """Return the FITS file."""
        parts = [_header(_structure(None, ()), self.cards)]
        for image in self.images:
            pixels = image.pixels
            cards = [*image.cards, ("EXTNAME", image.name, "extension name")]
            parts.append(_header(_structure(pixels.dtype.str, pixels.shape), cards))
            # To be said of the array itself: a concatenation of such arrays is native again.
            parts.append(pixels.astype(pixels.dtype.newbyteorder(">"), copy=False).tobytes())
            parts.append(bytes(-len(parts[-1]) % BLOCK_BYTES))
        return b"".join(parts)


def _cards_of(header: fits.Header) -> list[Card]:
    return [(card.keyword, card.value, card.comment) for card in header.cards]


def _header(structure: bytes, cards: list[Card]) -> bytes:
    """Return the blocks of a header."""
    lines = [structure, *(_card_bytes(card) for card in cards), _END]
    text = b"".join(lines)
    return text + b" " * (-len(text) % BLOCK_BYTES)


@lru_cache(maxsize=256)
def _structure(dtype: str | None, shape: tuple[int, ...]) -> bytes:
    """Return the cards that tell what follows: of an image, or of the primary HDU."""
    if dtype is None:
        header = fits.PrimaryHDU().header
    else:
        header = fits.ImageHDU(np.broadcast_to(np.zeros((), dtype), shape)).header
    return header.tostring(sep="", endcard=False, padding=False).encode("ascii")


def _card_bytes(card: Card) -> bytes:
    value = card[1]
    # 0 and -0 are one key; they are not one card.
    return _formatted.__wrapped__(*card) if value == 0 and value is not False else _formatted(*card)


@lru_cache(maxsize=8192, typed=True)
def _formatted(keyword: str, value: str | float, comment: str) -> bytes:
    """Return a card, or the several that a long text takes, as astropy writes it."""
    header = fits.Header([(keyword, value, comment)])
    return header.tostring(sep="", endcard=False, padding=False).encode("ascii")
