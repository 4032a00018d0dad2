"""What exposures cover, and the grids of mosaics that hold them.

A footprint is an S_REGION, as a header or the archive says it, or the detector where it was
pointed.  Grids are in the words of resample.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame

from ...client.inputs import existing_file, image_wcs
from ...exceptions import InvalidExposureError, InvalidRequestError, refuse
from ...survey.pixel_grids import refuse_grid, rotated_wcs_text
from ...survey.sphere import Circle, Polygon, middle_of, separation_deg, shift_positions
from ..pipelines import EXP_TYPES
from .exposures import Exposure

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
    >>> from astroquery_lis.jwst_stage.planning.footprints import parse_s_region
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
    count = next((i for i, word in enumerate(words) if not _is_of_frame(word)), len(words))
    frame = next((word for word in reversed(words[:count]) if word in _FRAMES), frame)
    numbers = list(map(_number, words[count:]))
    if not np.isfinite(numbers).all():
        msg = "has numbers that are not finite."
        raise ValueError(msg)
    return frame, numbers


def _is_of_frame(word: str) -> bool:
    return word in _FRAMES or word in _REFERENCES


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        msg = f"has {word!r} instead of a number."
        raise ValueError(msg) from None


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


# ---- the footprint of an exposure ----------------------------------------------------------------

_SCALES = {"SHORT": 0.0307, "LONG": 0.0629, "MIRI": 0.1109, "NIRISS": 0.0656, "FGS": 0.0691}
_MARGIN_PX = 4


class ResampleGrid(TypedDict, total=False):
    """Parameters of resample that set a grid: numbers (degrees, pixels, arcsec), or a file."""

    crval: list[float]
    crpix: list[float]
    pixel_scale: float
    rotation: float
    output_shape: list[int]
    output_wcs: str


def native_scale(exposure: Exposure) -> float | None:
    """Return the size of a pixel in arcsec."""
    if exposure.instrument == "NIRCAM":
        long = exposure.channel == "LONG" or exposure.detector.endswith("LONG")
        return _SCALES["LONG" if long else "SHORT"]
    return _SCALES.get(exposure.instrument)


def exposure_shapes(exposure: Exposure) -> tuple[Shape, ...]:
    """Return what an exposure covers: its S_REGION, else its detector where it was pointed."""
    # One that cannot be read is as good as none: the pointing tells nearly the same.
    with suppress(InvalidRequestError):
        return parse_s_region(exposure.s_region)
    pointing, scale = exposure.pointing, native_scale(exposure)
    lacking = [name for name in ("RA_REF", "DEC_REF", "ROLL_REF") if name not in pointing]
    if lacking or scale is None or not _is_field(exposure):
        no_field = (
            f"{exposure.instrument} {exposure.exp_type} has no field as large as its detector"
        )
        why = f"lacks {', '.join(lacking)}" if lacking else no_field
        msg = f"{exposure.path}: its header has no S_REGION that can be read, and {why}."
        raise InvalidExposureError(msg, parameter="S_REGION", value=exposure.path)
    ny, nx = exposure.shape
    x0, y0 = pointing.get("CRPIX1", (nx + 1) / 2), pointing.get("CRPIX2", (ny + 1) / 2)
    x = (np.array([0.5, nx + 0.5, nx + 0.5, 0.5]) - x0) * scale * pointing.get("VPARITY", -1.0)
    y = (np.array([0.5, 0.5, ny + 0.5, ny + 0.5]) - y0) * scale
    angle = math.radians(_roll_deg(exposure))
    east = x * math.cos(angle) + y * math.sin(angle)
    north = -x * math.sin(angle) + y * math.cos(angle)
    place = pointing["RA_REF"], pointing["DEC_REF"]
    ra, dec = shift_positions(*place, east / 3600, north / 3600)
    return (Polygon(tuple(ra.tolist()), tuple(dec.tolist())),)


def _is_field(exposure: Exposure) -> bool:
    """Return True if the detector is a field of the sky: no slit, no slicer, no shutter."""
    kind = EXP_TYPES.get(exposure.exp_type)
    return kind is not None and (kind.stages[1] == "Image2Pipeline" or kind.is_slitless)


def _roll_deg(exposure: Exposure) -> float:
    """Return the position angle of the detector's y axis."""
    return exposure.pointing.get("ROLL_REF", 0.0) + exposure.pointing.get("V3I_YANG", 0.0)


def _corners(exposures: Sequence[Exposure]) -> np.ndarray:
    """Return RA and Dec of all corners of some exposures, shape (n, 2)."""
    shapes = [shape for exposure in exposures for shape in exposure_shapes(exposure)]
    return np.concatenate([np.transpose(corners_of(shape)) for shape in shapes])


def grid_of_exposures(
    exposures: Sequence[Exposure], *, pixel_scale: float | None = None, rotation: float = 0.0
) -> ResampleGrid:
    """Return the grid that holds all exposures."""
    if not exposures:
        msg = "common_grid: there are no images, for which it would be."
        raise InvalidExposureError(msg, parameter="common_grid", value=[])
    corners = _corners(exposures)
    scale = pixel_scale or min(native_scale(e) or math.inf for e in exposures)
    ra, dec = middle_of(*corners.T)
    text = rotated_wcs_text(ra, dec, 1, 1, scale, rotation)
    x, y = WCS(fits.Header.fromstring(text, sep="\n")).wcs_world2pix(corners, 0).T
    x0, y0 = math.floor(x.min()) - _MARGIN_PX, math.floor(y.min()) - _MARGIN_PX
    return {
        "crval": [round(ra, 9), round(dec, 9)],
        "crpix": [float(-x0), float(-y0)],
        "pixel_scale": float(scale),
        "rotation": float(rotation),
        "output_shape": [
            math.ceil(x.max()) + _MARGIN_PX - x0 + 1,
            math.ceil(y.max()) + _MARGIN_PX - y0 + 1,
        ],
    }


_TURNED = frozenset({"pixel_scale", "rotation"})
_GRID = _TURNED | {"crval", "crpix", "output_shape", "output_wcs"}
"""Parameters of resample that decide on a grid, and those that a common one leaves free."""


def mosaic_grid(
    images: Sequence[Exposure],
    resample: dict[str, Any],
    *,
    wcs: Any,
    common: bool | dict[str, float],
) -> dict[str, object]:
    """Return one grid for all mosaics, in the words of resample, some of which steps may set."""
    if wcs is not None and common:
        msg = "wcs and common_grid both set the grid of the mosaics; give one of them."
        raise InvalidRequestError(msg, parameter="common_grid", value=common)
    if not common:
        _refuse_conflict("wcs", _GRID.intersection(resample))
        return dict(grid_of_wcs(wcs))
    _refuse_conflict("common_grid", _GRID.intersection(resample) - _TURNED)
    values = {name: resample[name] for name in _TURNED.intersection(resample)}
    values |= common if isinstance(common, dict) else {}
    if not _TURNED.issuperset(values):
        refuse("common_grid", common, "may have 'pixel_scale' and 'rotation'.")
    return dict(grid_of_exposures(images, **values))


def _refuse_conflict(name: str, parameters: Iterable[str]) -> None:
    """Refuse parameters of resample that an option sets too."""
    conflict = sorted(parameters)
    if conflict:
        msg = f"{name} sets the grid, and steps too: resample.{', resample.'.join(conflict)}."
        raise InvalidRequestError(msg, parameter=name, value=conflict)


def n_pixels(exposures: Sequence[Exposure], grid: dict[str, Any] | None = None) -> int | None:
    """Return how many pixels the mosaic of some exposures has."""
    if grid and "output_shape" in grid:
        return math.prod(grid["output_shape"])
    if grid:
        return None
    # The pipeline turns the grid to fit the exposures; north up would need more.
    try:
        own = grid_of_exposures(exposures, rotation=_roll_deg(exposures[0]))
    except InvalidExposureError:
        return None
    return math.prod(own["output_shape"])


def grid_of_wcs(wcs: Any) -> ResampleGrid:
    """Return the grid of an image."""
    if isinstance(wcs, (str, os.PathLike)) and Path(wcs).suffix == ".asdf":
        return {"output_wcs": existing_file("wcs", wcs)}
    plane = image_wcs(wcs, "wcs")
    if plane.array_shape is None:
        refuse_grid("wcs", wcs, "has no shape; set its array_shape")
    _check_tangential(plane)
    matrix = plane.pixel_scale_matrix
    scale = math.sqrt(abs(np.linalg.det(matrix)))
    rotation = math.atan2(matrix[0, 1], matrix[1, 1])
    expected = scale * np.array(
        [[-math.cos(rotation), math.sin(rotation)], [math.sin(rotation), math.cos(rotation)]]
    )
    if not np.allclose(matrix, expected, rtol=0, atol=1e-5 * scale):
        refuse_grid("wcs", wcs, "has pixels that are not square, or east to the right of north")
    center = SkyCoord(*plane.wcs.crval, unit="deg", frame=wcs_to_celestial_frame(plane)).icrs
    return {
        "crval": [float(center.ra.deg), float(center.dec.deg)],
        "crpix": [float(value) - 1 for value in plane.wcs.crpix],
        "pixel_scale": scale * 3600,
        "rotation": math.degrees(rotation),
        "output_shape": [int(size) for size in plane.array_shape[::-1]],
    }


def _check_tangential(wcs: WCS) -> None:
    types = list(map(str, wcs.wcs.ctype))
    if types != ["RA---TAN", "DEC--TAN"]:
        why = f"has CTYPE {types}; resample makes RA---TAN, DEC--TAN. Give a gwcs as .asdf"
        refuse_grid("wcs", wcs, why)
    if any(part is not None for part in (wcs.sip, wcs.cpdis1, wcs.det2im1)):
        refuse_grid("wcs", wcs, "has distortions; give a gwcs as .asdf")
    if not math.isnan(wcs.wcs.lonpole) and wcs.wcs.lonpole not in (180.0, 999.0):
        refuse_grid("wcs", wcs, f"has LONPOLE={wcs.wcs.lonpole}; resample makes 180")
