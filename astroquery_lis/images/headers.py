"""What a brick's file says of itself: whether it is what was asked, and where its pixels lie.

A file is believed by its header, not by its name.  Own reductions, whose images are larger, smaller
or shifted (legacypipe's ``--zoom``, ``--width``), are placed by their WCS.  What lies on other
pixels is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from astropy.io import fits

from ..exceptions import UnexpectedContentError
from ..survey.bricks import parse_brick_name
from ..survey.paths import COADD_PRODUCTS, IMAGE_PRODUCTS, MASK_PLANES
from ..survey.pixel_grids import Box
from ..survey.placement import OPTICAL, WISE, Frame, image_grid
from ..survey.releases import RELEASES, WISE_BANDS, Tree

Cards = tuple[tuple[str, str | float, str], ...]
"""Keyword, value and comment of cards."""

FileSource = tuple[Tree, str, str, str | None]
"""Tree, brick, product and band of a file."""

KEPT_CARDS = (
    "MAGZERO",
    "MAGSYS",
    "FILTER",
    "FILTERX",
    "IMTYPE",
    "PRODTYPE",
    "SURVEY",
    "SURVEYID",
    "DRVERSIO",
    "LEGPIPEV",
    "TELESCOP",
    "INSTRUME",
    "DATEOBS1",
    "DATEOBS2",
)
"""Cards that other programs look for, which go on into the cutout."""

PLACE_TOLERANCE_PIX = 0.01
"""How far a file's pixels may lie from those of its brick; the survey's headers agree to 1e-6."""

_REGIONS = {8000: "south", 8001: "north", 9010: "south", 9011: "north", 9012: "south"}
_FILTERS = {"zd": "z", "bokr": "r", "bokg": "g"}


@dataclass(frozen=True)
class Layout:
    """How the pixels of a file lie in its brick's image."""

    shape: tuple[int, int]
    y0: int  # of its first pixel, in the brick's image
    x0: int
    is_whole: bool  # the file has the brick's image, no more and no less
    no_value: float
    cards: Cards

    def in_file(self, box: Box) -> Box:
        """Return what of a box of the brick's image the file has, in pixels of the file."""
        return box if self.is_whole else box.moved(-self.y0, -self.x0).clipped(*self.shape)

    def framed(self, pixels: np.ndarray, box: Box) -> np.ndarray:
        """Return the pixels of `in_file` with blanks round them, in the shape of the box."""
        if pixels.shape == box.shape:
            return pixels
        dtype = pixels.dtype if self.no_value == self.no_value else np.result_type(pixels, "f4")
        framed = np.full(box.shape, self.no_value, dtype)
        part = self.in_file(box)
        if 0 not in part.shape:
            framed[part.moved(self.y0 - box.y0, self.x0 - box.x0).slices] = pixels
        return framed


def check_header(
    header: fits.Header, shape: tuple[int, ...], source: FileSource, url: str
) -> Layout:
    """Return how a file's pixels lie in its brick; refuse a file that is not what its name says."""
    try:
        return _checked(header, shape, source)
    except Exception as error:  # Cards that cannot be read raise errors of astropy's own.
        msg = f"{url} is not what was asked for: {error}."
        raise UnexpectedContentError(msg, url=url, cause=error) from error


def frame_of(band: str | None) -> Frame:
    """Return size and scale of the whole image of a brick in a band."""
    return WISE if band in WISE_BANDS else OPTICAL


def _checked(header: fits.Header, shape: tuple[int, ...], source: FileSource) -> Layout:
    tree, brick, product, band = source
    for differs in (
        _other_brick(header, brick),
        _other_product(header, product),
        _other_band(header, band),
        _other_release(header, tree),
    ):
        if differs:
            _refuse(f"it is of {differs}; {product} {band or ''} of brick {brick} was asked")
    if len(shape) != 2:
        _refuse(f"its image has {len(shape)} axes")
    frame = frame_of(band)
    x0, y0 = _corner(header, brick, frame)
    ny, nx = shape
    is_whole = (ny, nx, y0, x0) == (frame.size_pix, frame.size_pix, 0, 0)
    cards = tuple(
        (name, header[name], header.comments[name]) for name in KEPT_CARDS if name in header
    )
    if not all(_is_writable(part) for card in cards for part in card):
        _refuse("its header has text that is none, or numbers that are not finite")
    return Layout((ny, nx), y0, x0, is_whole, IMAGE_PRODUCTS[product].no_value, cards)


def _is_writable(part: object) -> bool:
    """Return True if a header may hold a value or a comment."""
    if isinstance(part, str):
        return part.isprintable() and part.isascii()
    return not isinstance(part, float) or math.isfinite(part)


def _corner(header: fits.Header, brick: str, frame: Frame) -> tuple[int, int]:
    """Return where an image begins on the pixels of its brick, x and y; refuse other pixels."""
    grid = image_grid(parse_brick_name(brick), frame)
    matrix = [header.get(f"CD{i}_{j}", 0.0) for i in (1, 2) for j in (1, 2)]
    expected = [-grid.scale_deg, 0.0, 0.0, grid.scale_deg]
    if not np.allclose(matrix, expected, rtol=0, atol=grid.scale_deg * 1e-5):
        scale = 3600 * np.sqrt(abs(matrix[0] * matrix[3] - matrix[1] * matrix[2]))
        _refuse(
            f"its pixels of {scale:.4g} arcsec are not the {frame.scale_arcsec} arcsec, north up, "
            "of the survey's"
        )
    ra, dec = header.get("CRVAL1", np.nan), header.get("CRVAL2", np.nan)
    apart = np.hypot((ra - grid.ra_deg) * np.cos(np.radians(grid.dec_deg)), dec - grid.dec_deg)
    is_tangent = str(header.get("CTYPE1", "")).startswith("RA---TAN")
    if not is_tangent or not apart < PLACE_TOLERANCE_PIX * grid.scale_deg:
        _refuse(f"its projection is not that of brick {brick}, about the brick's centre")
    shift = [
        grid.x_ref + 1 - header.get("CRPIX1", np.nan),
        grid.y_ref + 1 - header.get("CRPIX2", np.nan),
    ]
    if not np.allclose(shift, np.rint(shift), rtol=0, atol=PLACE_TOLERANCE_PIX):
        _refuse(f"its pixels lie between those of brick {brick}, by {shift} pixels")
    x0, y0 = (round(value) for value in shift)
    return x0, y0


def _refuse(reason: str) -> NoReturn:
    raise ValueError(reason)


def _other_brick(header: fits.Header, brick: str) -> str:
    name = str(header.get("BRICKNAM", "")).strip() or brick
    return "" if name == brick else f"brick {name}"


def _other_product(header: fits.Header, product: str) -> str:
    name = str(header.get("IMTYPE", "")).strip().lower()
    expected = "maskbits" if product in MASK_PLANES else product
    return name if name in COADD_PRODUCTS and name != expected else ""


def _other_band(header: fits.Header, band: str | None) -> str:
    text = str(header.get("FILTERX", "")).strip() or str(header.get("FILTER", ""))
    name = text.split()[0] if text.split() else ""
    name = _FILTERS.get(name, name)
    is_known = len(name) == 1 or name in WISE_BANDS
    return f"band {name}" if band is not None and is_known and name != band else ""


def _other_release(header: fits.Header, tree: Tree) -> str:
    """Return the release and region that a file is of, if they are others.

    Own reductions have numbers that no release has, such as 8888.
    """
    version = header.get("DRVERSIO")
    if not isinstance(version, int) or version % 1000 >= 100:
        return ""
    name, region = f"dr{version // 1000}", _REGIONS.get(version, tree.region)
    if name in RELEASES and name != tree.release:
        return name
    return "" if region == tree.region else f"the {region} of {name}"
