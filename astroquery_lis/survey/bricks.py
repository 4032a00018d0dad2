"""The brick grid: 662,174 boxes of about a quarter of a degree that tile the sky.

Geometry and names follow ``desiutil.brick`` (bricks of 0.25 deg), the survey's own definition: rows
of 0.25 deg in declination centred on -90, -89.75, ... +90, each cut into an even number of equal
columns from RA 0, so that no brick is wider than 0.25 deg.  A brick owns the half-open box [ra1,
ra2) x [dec1, dec2).

Functions take and return arrays of any shape, plain degrees, ICRS.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike

from ..exceptions import InvalidRequestError, refuse
from .pixel_grids import TangentGrid
from .releases import PIXEL_SCALE_ARCSEC, get_release

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = [
    "N_BRICKS",
    "SPLIT_DEC_DEG",
    "Brick",
    "brick_center",
    "brick_edges",
    "brick_grid",
    "brick_id",
    "brick_name",
    "brick_quadrant",
    "brick_row_column",
    "brick_wcs",
    "get_brick",
    "is_north",
    "name_of",
    "parse_brick_name",
    "region_of_brick",
]

Ids: TypeAlias = int | np.integer | Sequence[int] | np.ndarray

_NAME = re.compile(r"(?P<ra>\d{4})(?P<sign>[pm])(?P<dec>\d{3})", re.ASCII)

BRICK_SIZE_DEG = 0.25
N_BRICKS = 662_174
IMAGE_SIZE_PIX = 3600
"""Width and height of a brick's coadd, pixels."""

SPLIT_DEC_DEG = 32.375
"""Declination above which, north of the galactic plane, the north (BASS, MzLS) is official."""

# ICRS to galactic latitude: unit vector of the north galactic pole, RA 192.85948, Dec +27.12825
# (Hipparcos, ESA SP-1200, vol. 1, section 1.5.3), the definition that astropy uses.
_GALACTIC_POLE = (192.85948, 27.12825)


@cache
def _rows() -> tuple[np.ndarray, np.ndarray]:
    """Return (columns per row, id before the first column of each row), arrays of 721."""
    dec = np.linspace(-90.0, 90.0, 721)
    nearest = np.clip(np.abs(dec) - BRICK_SIZE_DEG / 2, 0.0, None)
    columns = 2 * np.ceil(360.0 / BRICK_SIZE_DEG * np.cos(np.radians(nearest)) / 2).astype(int)
    columns[[0, -1]] = 1
    before = np.concatenate([[0], np.cumsum(columns)[:-1]])
    columns.flags.writeable = before.flags.writeable = False
    return columns, before


def _checked_position(ra_deg: ArrayLike, dec_deg: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return positions as float arrays, RA in [0, 360); refuse what is not on the sky."""
    ra, dec = np.asarray(ra_deg), np.asarray(dec_deg)
    for name, value in (("ra_deg", ra), ("dec_deg", dec)):
        if value.dtype.kind not in "fiu":
            msg = f"{name} must be numbers in degrees, not {value.dtype}."
            raise InvalidRequestError(msg, parameter=name, value=value)
        bad = ~np.isfinite(value)
        if bad.any():
            msg = f"{name} has {bad.sum()} value(s) that are not finite; remove or mask them first."
            raise InvalidRequestError(msg, parameter=name, value=value[bad].flat[0])
    bad = np.abs(dec) > 90
    if bad.any():
        refuse("dec_deg", dec[bad].flat[0], f"is outside -90 to +90 ({bad.sum()} such value(s)).")
    # A tiny negative angle wraps to 360.0 exactly; a second pass brings it to 0.
    return (ra.astype(float) % 360.0) % 360.0, dec.astype(float)


def _checked_id(brick: Ids) -> np.ndarray:
    """Return brick ids as an integer array; refuse numbers that no brick has."""
    ids = np.asarray(brick)
    if ids.dtype.kind not in "iu" or (ids < 1).any() or (ids > N_BRICKS).any():
        msg = f"brick id {brick!r} must be an integer from 1 to {N_BRICKS}."
        raise InvalidRequestError(msg, parameter="brick_id", value=brick)
    return ids


def brick_id(ra_deg: ArrayLike, dec_deg: ArrayLike) -> np.ndarray:
    """Return the BRICKID that owns each position.

    Parameters
    ----------
    ra_deg, dec_deg : array_like of float
        ICRS degrees, shapes that broadcast; any RA is wrapped.

    Returns
    -------
    int or `~numpy.ndarray` of int
        1 to 662,174.

    Raises
    ------
    InvalidRequestError
        If a value is not finite or ``|dec_deg| > 90``.

    Examples
    --------
    >>> from astroquery_lis.survey.bricks import brick_id
    >>> int(brick_id(190.1086, 1.2005))
    338328
    """
    ra, dec = _checked_position(ra_deg, dec_deg)
    columns, before = _rows()
    # The order of these operations decides the owner of a position on an edge; it is desiutil's.
    row = ((dec + 90.0 + BRICK_SIZE_DEG / 2) / BRICK_SIZE_DEG).astype(np.int64)
    row = np.minimum(row, len(columns) - 1)
    return before[row] + (ra / 360.0 * columns[row]).astype(np.int64) + 1


def brick_row_column(brick: Ids) -> tuple[np.ndarray, np.ndarray]:
    """Return row (0 at the south pole) and column (0 at RA 0) of brick ids.

    Parameters
    ----------
    brick : array_like of int
        Brick ids.

    Returns
    -------
    row, column : `~numpy.ndarray` of int

    Examples
    --------
    >>> from astroquery_lis.survey.bricks import brick_row_column
    >>> [int(value) for value in brick_row_column(338328)]
    [365, 760]
    """
    ids = _checked_id(brick)
    _, before = _rows()
    row = np.searchsorted(before, ids - 1, side="right") - 1
    return row, ids - 1 - before[row]


def brick_edges(brick: Ids) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the box that each brick owns.

    Parameters
    ----------
    brick : array_like of int
        Brick ids.

    Returns
    -------
    ra1, ra2, dec1, dec2 : `~numpy.ndarray` of float
        Degrees; ``ra1 <= ra < ra2`` and ``dec1 <= dec < dec2`` inside (``dec2`` included at the
        pole).

    Examples
    --------
    >>> from astroquery_lis.survey.bricks import brick_edges
    >>> [float(value) for value in brick_edges(338328)]
    [190.0, 190.25, 1.125, 1.375]
    """
    row, column = brick_row_column(brick)
    columns, _ = _rows()
    width = 360.0 / columns[row]
    dec = -90.0 + BRICK_SIZE_DEG * row
    half = BRICK_SIZE_DEG / 2
    return (
        column * width,
        np.where(column + 1 == columns[row], 360.0, (column + 1) * width),
        np.maximum(dec - half, -90.0),
        np.minimum(dec + half, 90.0),
    )


def brick_center(brick: Ids) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre of each brick, which is the tangent point of its coadds.

    Parameters
    ----------
    brick : array_like of int
        Brick ids.

    Returns
    -------
    ra_deg, dec_deg : `~numpy.ndarray` of float

    Examples
    --------
    >>> from astroquery_lis.survey.bricks import brick_center
    >>> [float(value) for value in brick_center(338328)]
    [190.125, 1.25]
    """
    row, _ = brick_row_column(brick)
    ra1, ra2, _, _ = brick_edges(brick)
    return 0.5 * (ra1 + ra2), -90.0 + BRICK_SIZE_DEG * row


def brick_quadrant(brick: Ids) -> np.ndarray:
    """Return BRICKQ, 0 to 3, such that no two neighbours share one.

    Parameters
    ----------
    brick : array_like of int
        Brick ids.

    Returns
    -------
    `~numpy.ndarray` of int

    Examples
    --------
    >>> from astroquery_lis.survey.bricks import brick_quadrant
    >>> print(brick_quadrant(338328))
    2
    """
    row, column = brick_row_column(brick)
    return np.where(row == 0, 1, column % 2 + 2 * (row % 2))


@overload
def name_of(brick: int | np.integer) -> str: ...
@overload
def name_of(brick: Sequence[int] | np.ndarray) -> np.ndarray: ...
def name_of(brick: Ids) -> str | np.ndarray:
    """Return the names of brick ids.

    Parameters
    ----------
    brick : array_like of int
        Brick ids.

    Returns
    -------
    str or `~numpy.ndarray` of str
        For example ``'1126p220'``.

    Examples
    --------
    >>> from astroquery_lis.survey.bricks import name_of
    >>> print(name_of(338328))
    1901p012
    """
    ra, dec = brick_center(brick)
    # Rounded to 1e-4 deg first and truncated after, or 470 names come out wrong.
    ra4 = np.rint(ra * 1e4).astype(np.int64) // 1000
    dec3 = np.rint(np.abs(dec) * 1e4).astype(np.int64) // 1000
    letters = np.empty((*ra4.shape, 8), dtype=np.uint32)
    for place, digit in enumerate((1000, 100, 10, 1)):
        letters[..., place] = ra4 // digit % 10 + ord("0")
    letters[..., 4] = np.where(dec >= 0, ord("p"), ord("m"))
    for place, digit in enumerate((100, 10, 1), start=5):
        letters[..., place] = dec3 // digit % 10 + ord("0")
    names = letters.view("U8")[..., 0]
    return str(names) if names.ndim == 0 else names


@overload
def brick_name(ra_deg: float, dec_deg: float) -> str: ...
@overload
def brick_name(ra_deg: ArrayLike, dec_deg: ArrayLike) -> str | np.ndarray: ...
def brick_name(ra_deg: ArrayLike, dec_deg: ArrayLike) -> str | np.ndarray:
    """Return the name of the brick that owns each position.

    Parameters
    ----------
    ra_deg, dec_deg : array_like of float
        ICRS degrees, shapes that broadcast; any RA is wrapped.

    Returns
    -------
    str or `~numpy.ndarray` of str

    Raises
    ------
    InvalidRequestError
        If a value is not finite or ``|dec_deg| > 90``.

    Examples
    --------
    >>> from astroquery_lis.survey.bricks import brick_name
    >>> brick_name(190.1086, 1.2005)
    '1901p012'
    """
    return name_of(brick_id(ra_deg, dec_deg))


def parse_brick_name(name: str) -> int:
    """Return the id of the brick called ``name``.

    Parameters
    ----------
    name : str
        Eight characters, as `brick_name` gives them.

    Returns
    -------
    int

    Raises
    ------
    InvalidRequestError
        If no brick has that name.

    Examples
    --------
    >>> from astroquery_lis.survey.bricks import parse_brick_name
    >>> print(parse_brick_name('1901p012'))
    338328
    """
    text = str(name).strip()
    match = _NAME.fullmatch(text)
    if match:
        columns, before = _rows()
        dec = int(match["dec"]) / 10.0 * (1 if match["sign"] == "p" else -1)
        # Names cut declinations to a tenth: the row is one of two, the column one of a few.
        rows = np.floor((dec + 90.0) / BRICK_SIZE_DEG).astype(int) + np.arange(-1, 2)
        rows = rows.clip(0, len(columns) - 1)[:, None]
        near = (int(match["ra"]) / 3600.0 * columns[rows]).astype(int) + np.arange(-2, 3)
        ids = (before[rows] + near.clip(0, columns[rows] - 1) + 1).ravel()
        same = ids[name_of(ids) == text]
        if same.size:
            return int(same[0])
    refuse("brick", name, "is not the name of a brick; names look like '1126p220'.")


def brick_grid(brick: int) -> TangentGrid:
    """Return the pixel grid of the coadds of one brick.

    Parameters
    ----------
    brick : int
        Brick id.

    Returns
    -------
    TangentGrid
        3600 x 3600 pixels of 0.262", tangent at the brick's centre.

    Examples
    --------
    >>> from astroquery_lis.survey.bricks import brick_grid
    >>> type(brick_grid(338328)).__name__
    'TangentGrid'
    """
    ra, dec = brick_center(brick)
    middle = (IMAGE_SIZE_PIX - 1) / 2
    return TangentGrid(float(ra), float(dec), middle, middle, PIXEL_SCALE_ARCSEC / 3600)


def brick_wcs(brick: int | str) -> WCS:
    """Return the WCS of the coadds of one brick.

    Parameters
    ----------
    brick : int or str
        Brick id or name.

    Returns
    -------
    `~astropy.wcs.WCS`
        With ``array_shape`` (3600, 3600).

    Examples
    --------
    >>> from astroquery_lis.survey.bricks import brick_wcs
    >>> brick_wcs('1901p012').array_shape
    (3600, 3600)
    """
    number = parse_brick_name(brick) if isinstance(brick, str) else brick
    return brick_grid(number).wcs(shape=(IMAGE_SIZE_PIX, IMAGE_SIZE_PIX))


def is_north(ra_deg: ArrayLike, dec_deg: ArrayLike) -> np.ndarray:
    """Tell where the north (BASS, MzLS) is the official source of a split release.

    North is ``dec >= 32.375`` on the northern side of the galactic plane (DR9 and DR10
    description pages; ``desitarget`` uses the same edge).

    Parameters
    ----------
    ra_deg, dec_deg : array_like of float
        ICRS degrees.

    Returns
    -------
    `~numpy.ndarray` of bool

    Examples
    --------
    >>> from astroquery_lis.survey.bricks import is_north
    >>> print(is_north(180.0, 40.0))
    True
    """
    ra, dec = _checked_position(ra_deg, dec_deg)
    pole_ra, pole_dec = np.radians(_GALACTIC_POLE)
    sin_b = np.sin(np.radians(dec)) * np.sin(pole_dec) + np.cos(np.radians(dec)) * np.cos(
        pole_dec
    ) * np.cos(np.radians(ra) - pole_ra)
    return (dec >= SPLIT_DEC_DEG) & (sin_b > 0)


def region_of_brick(brick: Ids, release: str) -> np.ndarray:
    """Return the region whose files are official for each brick.

    Parameters
    ----------
    brick : array_like of int
        Brick ids.
    release : str
        Name of the release.

    Returns
    -------
    `~numpy.ndarray` of str
        ``'north'`` or ``'south'``; the only region there is for releases with one.

    Examples
    --------
    >>> from astroquery_lis.survey.bricks import region_of_brick
    >>> print(region_of_brick(338328, 'dr10'))
    south
    """
    regions = get_release(release).regions
    if len(regions) == 1:
        return np.full(np.shape(brick), regions[0])
    return np.where(is_north(*brick_center(brick)), "north", "south")


@dataclass(frozen=True)
class Brick:
    """One brick, as plain numbers.

    Attributes
    ----------
    id : int
        BRICKID.
    name : str
        BRICKNAME.
    ra_deg, dec_deg : float
        Centre.
    ra1_deg, ra2_deg, dec1_deg, dec2_deg : float
        Edges of what it owns.

    Examples
    --------
    >>> from astroquery_lis.survey.bricks import get_brick
    >>> get_brick('1901p012').dec_deg
    1.25
    """

    id: int
    name: str
    ra_deg: float
    dec_deg: float
    ra1_deg: float
    ra2_deg: float
    dec1_deg: float
    dec2_deg: float


def get_brick(brick: int | str) -> Brick:
    """Return a `Brick` by id or name.

    Parameters
    ----------
    brick : int or str
        Brick id or name.

    Returns
    -------
    Brick

    Examples
    --------
    >>> from astroquery_lis.survey.bricks import get_brick
    >>> get_brick('1901p012').id
    338328
    """
    number = parse_brick_name(brick) if isinstance(brick, str) else int(_checked_id(brick))
    center = (float(value) for value in brick_center(number))
    edges = (float(value) for value in brick_edges(number))
    return Brick(number, name_of(number), *center, *edges)
