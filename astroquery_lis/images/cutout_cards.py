"""The cards of a cutout, in blocks that many cutouts share and that are formatted once."""

from __future__ import annotations

from functools import lru_cache

from .._packages import package_version
from ..survey.paths import IMAGE_PRODUCTS
from ..survey.placement import WISE, Frame
from .headers import Cards
from .plain import Block, Card
from .reader import Section

CREATOR = f"astroquery_lis {package_version()}"
CARD_TEXT = 64
"""Characters of value and comment that one card can have."""


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
