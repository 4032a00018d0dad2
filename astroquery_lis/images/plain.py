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
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from .._packages import package_version
from ..survey.paths import IMAGE_PRODUCTS
from ..survey.pixel_grids import Box, TangentGrid
from ..survey.placement import WISE, Frame
from .file_layout import BLOCK_BYTES, CARD_BYTES, END_CARD

if TYPE_CHECKING:
    from ..survey.pixel_grids import Grid
    from .file_layout import Cards
    from .reader import Section

Card = tuple[str, str | float, str]
"""Keyword, value and comment."""

CREATOR = f"astroquery_lis {package_version()}"
CARD_TEXT = 64
"""Characters of value and comment that one card can have."""

OFFSET_TYPES = ("|i1", ">u2", ">u4", ">u8")
"""What FITS has no integers for, and holds less half of their range: with the first bit turned."""

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


@lru_cache(maxsize=1024)
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

    def to_bytes(self) -> memoryview:
        """Return the FITS file."""
        headers = [_header(_blank(None, ())[1], self.cards)]
        for image in self.images:
            structure = _blank(image.pixels.dtype.str, image.pixels.shape)[1]
            headers.append(_header(structure, image.cards))
        sizes = [0, *(-(-i.pixels.nbytes // BLOCK_BYTES) * BLOCK_BYTES for i in self.images)]
        # All of it is written below: to clear it first would take longer than to swap the bytes.
        data = np.empty(sum(map(len, headers)) + sum(sizes), np.uint8)
        stop = 0
        for number, (header, size) in enumerate(zip(headers, sizes, strict=True)):
            start, middle, stop = stop, stop + len(header), stop + len(header) + size
            data[start:middle] = np.frombuffer(header, np.uint8)
            if size:
                _put_pixels(data[middle:stop], self.images[number - 1].pixels)
        return data.data

    def to_hdus(self) -> fits.HDUList:
        """Return the HDUs."""
        hdus = [_hdu(_blank(None, ())[0], self.cards)]
        for image in self.images:
            blank, _ = _blank(image.pixels.dtype.str, image.pixels.shape)
            hdus.append(_hdu(blank, image.cards))
            # The blank one has their type and shape: the header says so already.
            vars(hdus[-1])["data"] = image.pixels
        return fits.HDUList(hdus)


def _cards_of(header: fits.Header) -> list[Card]:
    return [(card.keyword, card.value, card.comment) for card in header.cards]


def _put_pixels(data: np.ndarray, pixels: np.ndarray) -> None:
    """Write pixels as FITS has them, and zeros up to the end of the block."""
    # To be said of the array itself: a concatenation of such arrays is native again.
    dtype, end = pixels.dtype.newbyteorder(">"), pixels.nbytes
    data[:end].view(dtype).reshape(pixels.shape)[...] = pixels
    if dtype.str in OFFSET_TYPES:
        data[: end : dtype.itemsize] ^= 0x80
    data[end:] = 0


def _header(structure: bytes, cards: Iterable[Card | Block]) -> bytes:
    """Return a header, filled up to whole blocks."""
    lines = [card.data if isinstance(card, Block) else _card_bytes(card) for card in cards]
    text = b"".join((structure, *lines, END_CARD))
    return text + b" " * (-len(text) % BLOCK_BYTES)


def _hdu(blank: fits.ImageHDU, cards: Iterable[Card | Block]) -> fits.ImageHDU:
    """Return an HDU of its own with cards after those that a blank one has."""
    hdu, lines = copy(blank), list(blank.header.cards)
    for card in cards:
        lines += card.lines if isinstance(card, Block) else _made(*card, str(card[1]))
    # Cards of its own: ten times faster than by `copy.copy`.
    copies = [object.__new__(fits.Card) for _ in lines]
    for own, line in zip(copies, lines, strict=True):
        vars(own).update(vars(line))
    # Of itself the HDU would look whether all of it agrees with the pixels.
    vars(hdu)["_header"] = fits.Header(copies)
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


# ---- the cards of cutouts, in blocks that many share ---------------------------------------------


@lru_cache(maxsize=256)
def served_cards(release: str, region: str, source: str, mirrors: str) -> Block:
    """Return the cards of what was asked, and of who served it."""
    return _block(
        ("SURVEY", "LegacySurvey", "DESI Legacy Imaging Surveys"),
        ("RELEASE", release, "data release asked for"),
        ("REGION", region, "region asked for"),
        ("SOURCE", source, "what the pixels were cut from"),
        ("MIRROR", mirrors, "where the files came from"),
    )


@lru_cache(maxsize=1024)
def asked_cards(
    shape: tuple[int, int],
    products: tuple[str, ...],
    bands: tuple[str, ...],
    grid: str,
    n_bricks: int,
) -> Block:
    """Return the cards of the planes that were asked for, and of the grid."""
    return _block(
        ("SIZEX", shape[1], "[pix] width"),
        ("SIZEY", shape[0], "[pix] height"),
        ("PRODUCTS", ",".join(products), "products asked for"),
        ("BANDS", ",".join(bands), "bands, as in the extensions"),
        ("GRID", grid, "grid: a brick's own, or a WCS"),
        ("NBRICKS", n_bricks, "bricks that contributed"),
    )


def grid_cards(grid: Grid, box: Box) -> list[Block]:
    """Return the cards of a box of a grid."""
    cards = grid.cards(x0=box.x0, y0=box.y0)
    if not isinstance(grid, TangentGrid):
        return [Block(tuple(cards))]
    before, after = _cards_of_grid(grid)
    start = len(before.cards)
    return [before, Block(tuple(cards[start : start + 2])), after]


@lru_cache(maxsize=256)
def _cards_of_grid(grid: TangentGrid) -> tuple[Block, Block]:
    """Return the cards before and after the two that differ from one box to the next."""
    cards = grid.cards()
    start = [keyword for keyword, _, _ in cards].index("CRPIX1")
    return Block(tuple(cards[:start])), Block(tuple(cards[start + 2 :]))


@lru_cache(maxsize=1024)
def brick_cards(names: tuple[tuple[str, str], ...]) -> Block:
    """Return the cards of bricks and the folders that their files are in."""
    cards: list[Card] = []
    for number, (brick, folder) in enumerate(names, start=1):
        cards.append((f"BRICK{number}", brick, f"of {folder}"))
        cards.append((f"TREE{number}", folder, "release and region of its files"))
    return _block(*cards)


@lru_cache
def software_cards(has_wcs: bool, has_several: bool) -> Block:
    """Return the cards of the software and of how pixels were made."""
    creator: Card = ("CREATOR", CREATOR, "software")
    if has_wcs:
        text = (
            "Pixels are interpolated onto the WCS: image, model, blobmodel with flux conserved "
            "(Lanczos-3, or an adaptive kernel on coarser pixels), the rest nearest."
        )
    elif has_several:
        text = (
            "Pixels of brick GRID are native. Those of other bricks are interpolated: image, "
            "model, blobmodel by Lanczos-3, the rest nearest; each pixel from the brick that "
            "owns it."
        )
    else:
        return Block((creator,))
    return Block((creator, ("COMMENT", text, "")))


def _block(*cards: Card) -> Block:
    """Return cards of which a long text leaves no room for the comment beside it."""
    return Block(
        tuple(
            (name, value, comment if len(str(value)) + len(comment) <= CARD_TEXT else "")
            for name, value, comment in cards
        )
    )


@lru_cache(maxsize=1024)
def file_cards(
    kept: Cards,
    values: str,
    known: tuple[str, ...],
    n_foreign: int,
    origins: tuple[tuple[str, str], ...],
) -> Block:
    """Return the cards of the files of a plane, but those that are known, and where they are.

    ``values`` is the `repr` of those of the cards: 1, 1.0 and True are equal, but not as written.
    """
    cards: list[Card] = [("NOTOWNED", n_foreign, "[pix] of bricks that do not own them")]
    cards += [card for card in kept if card[0] not in known]
    for number, (brick, url) in enumerate(origins, start=1):
        cards.append((f"BRICK{number}", brick, ""))
        cards.append((f"URL{number}", url, ""))
    return Block(tuple(cards))


@lru_cache(maxsize=1024)
def plane_cards(product_name: str, band: str | None, frame: Frame, scale_deg: float) -> Block:
    """Return the cards that tell what the pixels of a plane are."""
    product = IMAGE_PRODUCTS[product_name]
    cards: list[Card] = [
        ("BUNIT", product.unit, "unit of the pixels"),
        ("PRODUCT", product_name, product.description),
    ]
    if frame is WISE:
        cards.append(("MAGSYS", "Vega", "magnitudes of WISE images; zero point 22.5"))
    if product.interpolated:
        scale_arcsec = round(scale_deg * 3600, 9)
        cards.append(("FLUXPIX", scale_arcsec, "[arcsec] side of the pixel that flux is per"))
    if band is not None:
        cards.append(("BAND", band, "filter band"))
    return Block(tuple(cards))


def cards_of_all(sections: list[Section]) -> Cards:
    """Return the cards of the first of several files, with the dates of all."""
    cards = {card[0]: card for card in sections[0].cards}
    for section in sections[1:]:
        for name, value, comment in section.cards:
            if name in cards and name in ("DATEOBS1", "DATEOBS2"):
                both = str(cards[name][1]), str(value)
                cards[name] = (name, min(both) if name == "DATEOBS1" else max(both), comment)
    return tuple(cards.values())
