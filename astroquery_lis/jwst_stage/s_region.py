"""S_REGION: what an exposure or a mosaic covers, as its header or the archive says it."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord

from ..exceptions import refuse
from ..survey.sphere import Circle, Polygon, separation_deg

if TYPE_CHECKING:
    from collections.abc import Iterator

Shape: TypeAlias = Polygon | Circle

_KINDS = ("POLYGON", "CIRCLE", "UNION")
_FRAMES = {
    "": "icrs",
    "ICRS": "icrs",
    "J2000": "fk5",
    "FK5": "fk5",
    "FK4": "fk4",
    "B1950": "fk4",
    "GALACTIC": "galactic",
    "ECLIPTIC": "barycentricmeanecliptic",
}
# What some archives put between the frame and the numbers.
_REFERENCES = {"UNKNOWNREFPOS", "BARYCENTER", "GEOCENTER", "TOPOCENTER", "SPHERICAL2"}


_RIM_POINTS = 64


def corners_of(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of a polygon; of a circle, those of one round it."""
    if isinstance(shape, Polygon):
        return np.array(shape.ra_deg), np.array(shape.dec_deg)
    radius = np.arctan(np.tan(np.radians(shape.radius_deg)) / np.cos(np.pi / _RIM_POINTS))
    turn = 2 * np.pi * np.arange(_RIM_POINTS) / _RIM_POINTS
    rim = SkyCoord(shape.ra_deg, shape.dec_deg, unit="deg").directional_offset_by(
        turn * u.rad, radius * u.rad
    )
    return rim.ra.deg, rim.dec.deg


def parse_s_region(text: str) -> tuple[Shape, ...]:
    """Return the shapes (ICRS) of an S_REGION; several, or a ``UNION``, are one footprint.

    Examples
    --------
    >>> from astroquery_lis.jwst_stage.s_region import parse_s_region
    >>> parse_s_region("CIRCLE ICRS 53.1 -27.8 0.01")
    (Circle(ra_deg=53.1, dec_deg=-27.8, radius_deg=0.01),)
    """
    if not isinstance(text, str) or not text.strip():
        must = "must be a text such as 'POLYGON ICRS 53.1 -27.8 53.2 -27.8 53.2 -27.7'."
        refuse("s_region", text, must)
    try:
        shapes = tuple(_shapes(re.sub(r"[(),]", " ", text).upper().split()))
    except ValueError as error:
        refuse("s_region", text, str(error))
    if not shapes:
        refuse("s_region", text, "has no shape in it.")
    return shapes


def _shapes(words: list[str]) -> Iterator[Shape]:
    """Yield the shapes that words describe; a `ValueError` says what is wrong with them."""
    starts = [index for index, word in enumerate(words) if word in _KINDS]
    if not starts or starts[0] > 0:
        msg = f"has {words[0]!r} instead of POLYGON, CIRCLE or UNION."
        raise ValueError(msg)
    outer_frame = ""
    for start, stop in pairwise([*starts, len(words)]):
        frame, numbers = _frame_and_numbers(words[start + 1 : stop], outer_frame)
        if words[start] != "UNION":
            yield _shape(words[start], _FRAMES[frame], numbers)
        elif numbers:
            msg = f"has {numbers[0]:g} instead of POLYGON or CIRCLE."
            raise ValueError(msg)
        else:
            outer_frame = frame


def _frame_and_numbers(words: list[str], frame: str) -> tuple[str, list[float]]:
    numbers: list[float] = []
    for word in words:
        if not numbers and word in _FRAMES:
            frame = word
        elif numbers or word not in _REFERENCES:
            try:
                numbers.append(float(word))
            except ValueError:
                msg = f"has {word!r} instead of a number."
                raise ValueError(msg) from None
    if not np.isfinite(numbers).all():
        msg = "has numbers that are not finite."
        raise ValueError(msg)
    return frame, numbers


def _shape(kind: str, frame: str, numbers: list[float]) -> Shape:
    if kind == "CIRCLE":
        if len(numbers) != 3 or not 0 < numbers[2] < 90:
            msg = "has a CIRCLE without three numbers: RA, Dec, and a radius above 0."
            raise ValueError(msg)
        ra, dec = _icrs(numbers[:1], numbers[1:2], frame)
        return Circle(float(ra[0]), float(dec[0]), numbers[2])
    if len(numbers) < 6 or len(numbers) % 2:
        msg = "has a POLYGON without three corners or more, two numbers each."
        raise ValueError(msg)
    ra, dec = _icrs(numbers[::2], numbers[1::2], frame)
    # Corners that come twice, as the last one often does, are no sides.
    is_corner = separation_deg(ra, dec, np.roll(ra, -1), np.roll(dec, -1)) > 1e-9
    if is_corner.sum() < 3:
        msg = "has a POLYGON with fewer than three different corners."
        raise ValueError(msg)
    return Polygon(tuple(ra[is_corner].tolist()), tuple(dec[is_corner].tolist()))


def _icrs(
    longitudes: list[float], latitudes: list[float], frame: str
) -> tuple[np.ndarray, np.ndarray]:
    if max(map(abs, latitudes)) > 90:
        msg = "has a latitude beyond 90 degrees."
        raise ValueError(msg)
    if frame == "icrs":
        return np.array(longitudes) % 360.0, np.array(latitudes)
    position = SkyCoord(longitudes, latitudes, unit="deg", frame=frame).icrs
    return position.ra.deg, position.dec.deg
