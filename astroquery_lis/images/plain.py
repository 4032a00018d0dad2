"""A cutout as cards and arrays, made into HDUs for users and into bytes for files.

The bytes are those that astropy writes of the HDUs.  Cards are made by astropy too, but each
distinct one once: only a few differ from one plane, or one cutout, to the next.
"""

from __future__ import annotations

from copy import copy
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
    def all_cards(self) -> list[Card]:
        """Its cards with its name."""
        return [*self.cards, ("EXTNAME", self.name, "extension name")]

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
        parts = [_header(_blank(None, ())[1], self.cards)]
        for image in self.images:
            pixels = image.pixels
            structure = _blank(pixels.dtype.str, pixels.shape)[1]
            parts.append(_header(structure, image.all_cards))
            # To be said of the array itself: a concatenation of such arrays is native again.
            parts.append(pixels.astype(pixels.dtype.newbyteorder(">"), copy=False).tobytes())
            parts.append(bytes(-len(parts[-1]) % BLOCK_BYTES))
        return b"".join(parts)

    def to_hdus(self) -> fits.HDUList:
        """Return the HDUs."""
        hdus = [_hdu(_blank(None, ())[0], self.cards)]
        for image in self.images:
            blank, _ = _blank(image.pixels.dtype.str, image.pixels.shape)
            hdus.append(_hdu(blank, image.all_cards))
            hdus[-1].data = image.pixels
        return fits.HDUList(hdus)


def _cards_of(header: fits.Header) -> list[Card]:
    return [(card.keyword, card.value, card.comment) for card in header.cards]


_Made = tuple[tuple[fits.Card, ...], bytes]
"""Cards, and what a file has of them."""


def _header(structure: bytes, cards: list[Card]) -> bytes:
    """Return the blocks of a header."""
    text = b"".join([structure, *(_made(card)[1] for card in cards), _END])
    return text + b" " * (-len(text) % BLOCK_BYTES)


def _hdu(blank: fits.ImageHDU, cards: list[Card]) -> fits.ImageHDU:
    """Return an HDU of its own with cards after those that a blank one has."""
    hdu = copy(blank)
    lines = [line for card in cards for line in _made(card)[0]]
    hdu.header = fits.Header([copy(line) for line in (*blank.header.cards, *lines)])
    return hdu


@lru_cache(maxsize=256)
def _blank(dtype: str | None, shape: tuple[int, ...]) -> tuple[fits.ImageHDU, bytes]:
    """Return an HDU, of an image or the primary one, with the cards that tell what follows."""
    hdu = fits.PrimaryHDU()
    if dtype is not None:
        hdu = fits.ImageHDU(np.broadcast_to(np.zeros((), dtype), shape))
    return hdu, _bytes_of(hdu.header)


def _bytes_of(header: fits.Header) -> bytes:
    return header.tostring(sep="", endcard=False, padding=False).encode("ascii")


def _made(card: Card) -> _Made:
    # 0 and -0 are equal; they are not one card.
    return _kept(*card, card[1] == 0 and str(card[1]))


@lru_cache(maxsize=8192, typed=True)
def _kept(keyword: str, value: str | float, comment: str, _: str | bool) -> _Made:
    """Return a card, or the several that a long text takes, as astropy makes it."""
    header = fits.Header([(keyword, value, comment)])
    return tuple(header.cards), _bytes_of(header)
