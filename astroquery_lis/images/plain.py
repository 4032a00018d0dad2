"""A cutout as cards and arrays, made into HDUs for users and into bytes for files.

The bytes are those that astropy writes of the HDUs.  Cards that fit on a line are formatted here,
others by astropy; each distinct one once: only a few differ from one plane, or one cutout, to the
next.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from astropy.io import fits

Card = tuple[str, str | float, str]
"""Keyword, value and comment."""

BLOCK_BYTES = 2880
CARD_BYTES = 80
OFFSET_TYPES = ("|i1", ">u2", ">u4", ">u8")
"""What FITS has no integers for, and holds less half of their range: with the first bit turned."""

_END = b"END" + b" " * 77
_KEYWORD = re.compile(r"(?!COMMENT$|HISTORY$|CONTINUE$|HIERARCH$|END$)[A-Z0-9_-]{1,8}")
_TEXT = re.compile(r"(?:(?!: )[ -~])*")
"""What astropy may take for a value with a name of its own has a colon and a space."""


@dataclass(frozen=True, eq=False)
class Block:
    """Cards that go into many headers, and are formatted once."""

    cards: tuple[Card, ...]

    @cached_property
    def values(self) -> dict[str, str | float]:
        """Their keywords and values."""
        return {keyword: value for keyword, value, _ in self.cards}

    @cached_property
    def data(self) -> bytes:
        """Their bytes."""
        return b"".join(_card_bytes(card) for card in self.cards)

    @cached_property
    def lines(self) -> list[fits.Card]:
        """The cards as astropy makes them; whoever may change one takes a copy."""
        return [line for card in self.cards for line in _made(*card, str(card[1]))]


def plane_name(product: str, band: str | None = None) -> str:
    """Return the name of the HDU of a plane."""
    return f"{product}_{band}".upper() if band else product.upper()


def _values(cards: Iterable[Card | Block]) -> dict[str, str | float]:
    values: dict[str, str | float] = {}
    for card in cards:
        values.update(card.values if isinstance(card, Block) else ((card[0], card[1]),))
    return values


@dataclass(frozen=True, eq=False)
class PlainImage:
    """One image of a cutout."""

    name: str
    cards: Sequence[Card | Block]
    pixels: np.ndarray

    @property
    def all_cards(self) -> list[Card | Block]:
        """Its cards with its name."""
        return [*self.cards, ("EXTNAME", self.name, "extension name")]

    @cached_property
    def header(self) -> dict[str, str | float]:
        """Its keywords and values."""
        return _values(self.cards)


@dataclass(frozen=True, eq=False)
class PlainCutout:
    """The cards of a cutout's primary HDU, and its images."""

    cards: Sequence[Card | Block]
    images: list[PlainImage]

    @classmethod
    def of(cls, hdul: fits.HDUList) -> PlainCutout:
        """Return what HDUs hold, for what reads both alike; their own bytes stay with astropy."""
        images = [PlainImage(hdu.name, _cards_of(hdu.header), hdu.data) for hdu in hdul[1:]]
        return cls(_cards_of(hdul[0].header), images)

    @cached_property
    def header(self) -> dict[str, str | float]:
        """Keywords and values of the primary HDU."""
        return _values(self.cards)

    def to_bytes(self) -> bytearray:
        """Return the FITS file."""
        headers, sizes = [_header(_blank(None, ())[1], self.cards)], []
        for image in self.images:
            structure = _blank(image.pixels.dtype.str, image.pixels.shape)[1]
            headers.append(_header(structure, image.all_cards))
            sizes.append(-(-image.pixels.nbytes // BLOCK_BYTES) * BLOCK_BYTES)
        data = bytearray(sum(map(len, headers)) + sum(sizes))
        stop = len(headers[0])
        data[:stop] = headers[0]
        for image, header, size in zip(self.images, headers[1:], sizes, strict=True):
            start, stop = stop, stop + len(header)
            data[start:stop] = header
            pixels = image.pixels
            # To be said of the array itself: a concatenation of such arrays is native again.
            dtype = pixels.dtype.newbyteorder(">")
            np.ndarray(pixels.shape, dtype, data, stop)[...] = pixels
            if dtype.str in OFFSET_TYPES:
                np.ndarray((pixels.size, dtype.itemsize), np.uint8, data, stop)[:, 0] ^= 0x80
            stop += size
        return data

    def to_hdus(self) -> fits.HDUList:
        """Return the HDUs."""
        hdus = [_hdu(_blank(None, ())[0], self.cards)]
        for image in self.images:
            blank, _ = _blank(image.pixels.dtype.str, image.pixels.shape)
            hdus.append(_hdu(blank, image.all_cards))
            # The blank one has their type and shape: the header says so already.
            vars(hdus[-1])["data"] = image.pixels
        return fits.HDUList(hdus)


def _cards_of(header: fits.Header) -> list[Card]:
    return [(card.keyword, card.value, card.comment) for card in header.cards]


def _header(structure: bytes, cards: Iterable[Card | Block]) -> bytes:
    """Return a header, filled up to whole blocks."""
    lines = [card.data if isinstance(card, Block) else _card_bytes(card) for card in cards]
    text = b"".join((structure, *lines, _END))
    return text + b" " * (-len(text) % BLOCK_BYTES)


def _hdu(blank: fits.ImageHDU, cards: Iterable[Card | Block]) -> fits.ImageHDU:
    """Return an HDU of its own with cards after those that a blank one has."""
    hdu, lines = copy(blank), list(blank.header.cards)
    for card in cards:
        lines += card.lines if isinstance(card, Block) else _made(*card, str(card[1]))
    # Of itself the HDU would look whether all of it agrees with the pixels.
    vars(hdu)["_header"] = fits.Header(_copied(lines))
    return hdu


def _copied(lines: Iterable[fits.Card]) -> list[fits.Card]:
    """Return cards of their own: ten times faster than by `copy.copy`."""
    copies = []
    for line in lines:
        copies.append(object.__new__(fits.Card))
        vars(copies[-1]).update(vars(line))
    return copies


@lru_cache(maxsize=256)
def _blank(dtype: str | None, shape: tuple[int, ...]) -> tuple[fits.ImageHDU, bytes]:
    """Return an HDU, of an image or the primary one, with the cards that tell what follows."""
    hdu = fits.PrimaryHDU()
    if dtype is not None:
        hdu = fits.ImageHDU(np.broadcast_to(np.zeros((), dtype), shape))
    return hdu, _bytes_of(hdu.header)


def _bytes_of(header: fits.Header) -> bytes:
    return header.tostring(sep="", endcard=False, padding=False).encode("ascii")


@lru_cache(maxsize=8192, typed=True)
def _made(keyword: str, value: str | float, comment: str, _: str) -> tuple[fits.Card, ...]:
    """Return a card, or the several that a long text takes, as astropy makes it.

    The value's text tells 0 and -0, which are equal, apart.
    """
    return tuple(fits.Header([(keyword, value, comment)]).cards)


def _card_bytes(card: Card) -> bytes:
    return _formatted(*card, str(card[1]))


@lru_cache(maxsize=8192, typed=True)
def _formatted(keyword: str, value: str | float, comment: str, _: str) -> bytes:
    """Return a card, or the several that a long text takes, as astropy writes it."""
    line = f"{keyword:8}= {_value_text(value)}{' / ' if comment else ''}{comment}"
    if len(line) <= CARD_BYTES and _is_simple(keyword, value, comment):
        return line.ljust(CARD_BYTES).encode("ascii")
    return _bytes_of(fits.Header([(keyword, value, comment)]))


def _value_text(value: str | float) -> str:
    """Return how a value stands in a card."""
    if isinstance(value, str):
        quoted = value.replace("'", "''")
        return f"'{quoted:8}'".ljust(20) if value else "''"
    if isinstance(value, bool):
        return "T".rjust(20) if value else "F".rjust(20)
    text = str(value).replace("e", "E")
    if len(text) > 20:
        digits, exponent, power = text.partition("E")
        text = digits[: 20 - len(exponent + power)] + exponent + power
    return text.rjust(20)


def _is_simple(keyword: str, value: str | float, comment: str) -> bool:
    """Return True if a card is written as it is, without a rule for special ones."""
    if isinstance(value, str):
        is_plain = _TEXT.fullmatch(value) is not None
    else:
        is_plain = type(value) in (int, float, bool) and math.isfinite(value)
    is_stripped = comment == comment.strip() and _TEXT.fullmatch(comment) is not None
    return is_plain and is_stripped and _KEYWORD.fullmatch(keyword) is not None
