"""The pixels of a mosaic: one grid for several filters, or the one of a given image.

A grid is what the step resample takes: ``crval`` in degrees, ``crpix`` from 0, ``pixel_scale`` in
arcsec, ``rotation``, the position angle of the y axis in degrees, and ``output_shape`` in (nx, ny);
or ``output_wcs``, the path of a gwcs in an ``.asdf`` file.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame

from ...exceptions import InvalidExposureError, InvalidRequestError
from ...survey.sphere import middle_of, shift_positions, tangent_axes, unit_vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .exposures import Exposure

_SCALES = {"SHORT": 0.0307, "LONG": 0.0629, "MIRI": 0.1109, "NIRISS": 0.0656, "FGS": 0.0691}
_MARGIN_PX = 4


def native_scale(exposure: Exposure) -> float | None:
    """Return the size of a pixel in arcsec."""
    if exposure.instrument == "NIRCAM":
        long = exposure.channel == "LONG" or exposure.detector.endswith("LONG")
        return _SCALES["LONG" if long else "SHORT"]
    return _SCALES.get(exposure.instrument)


def footprint(exposure: Exposure) -> np.ndarray | None:
    """Return the corners of an exposure on the sky."""
    words = exposure.s_region.upper().replace("ICRS", "").split()
    if words[:1] == ["POLYGON"] and len(words) >= 7:
        return np.array(words[1:], float).reshape(-1, 2)
    pointing, scale = exposure.pointing, native_scale(exposure)
    if scale is None or not {"RA_REF", "DEC_REF", "ROLL_REF"} <= set(pointing):
        return None
    ny, nx = exposure.shape
    x0, y0 = pointing.get("CRPIX1", (nx + 1) / 2), pointing.get("CRPIX2", (ny + 1) / 2)
    x = (np.array([0.5, nx + 0.5, nx + 0.5, 0.5]) - x0) * scale
    y = (np.array([0.5, 0.5, ny + 0.5, ny + 0.5]) - y0) * scale
    parity, angle = pointing.get("VPARITY", -1.0), math.radians(pointing.get("V3I_YANG", 0.0))
    v2 = parity * x * math.cos(angle) + y * math.sin(angle)
    v3 = -parity * x * math.sin(angle) + y * math.cos(angle)
    roll = math.radians(pointing["ROLL_REF"])
    east = v2 * math.cos(roll) + v3 * math.sin(roll)
    north = -v2 * math.sin(roll) + v3 * math.cos(roll)
    place = pointing["RA_REF"], pointing["DEC_REF"]
    return np.stack(shift_positions(*place, east / 3600, north / 3600), axis=-1)


def common_grid(
    exposures: Sequence[Exposure], *, pixel_scale: float | None = None, rotation: float = 0.0
) -> dict:
    """Return the grid that holds all exposures."""
    without = [e.path for e in exposures if footprint(e) is None]
    if without or not exposures:
        msg = f"common_grid: no footprint and no pointing in {', '.join(without) or 'no files'}."
        raise InvalidExposureError(msg, parameter="common_grid", value=without)
    scale = pixel_scale or min(native_scale(e) or math.inf for e in exposures)
    corners = np.concatenate([footprint(e) for e in exposures])
    ra, dec = middle_of(*corners.T)
    east, north = _tangent(ra, dec, corners)
    angle = math.radians(rotation)
    x = (-east * math.cos(angle) + north * math.sin(angle)) / scale
    y = (east * math.sin(angle) + north * math.cos(angle)) / scale
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


def grid_of_wcs(wcs: Any) -> dict:
    """Return the grid of an image."""
    if isinstance(wcs, (str, os.PathLike)):
        path = os.path.abspath(os.path.expanduser(wcs))
        if not os.path.isfile(path):
            _refuse(wcs, "is not a file that is there")
        if Path(path).suffix == ".asdf":
            return {"output_wcs": path}
        wcs = _header_of(path)
    shape = None
    if isinstance(wcs, fits.Header):
        axes = [wcs.get(f"ZNAXIS{i}", wcs.get(f"NAXIS{i}")) for i in (2, 1)]
        shape = tuple(axes) if all(axes) else None
        wcs = WCS(wcs)
    if not isinstance(wcs, WCS):
        _refuse(wcs, "must be a WCS, a header, or the path of a FITS or .asdf file")
    shape = shape or wcs.array_shape
    wcs = wcs.celestial if wcs.naxis > 2 else wcs
    if shape is None:
        _refuse(wcs, "has no shape; set its array_shape")
    _check_tangential(wcs)
    matrix = wcs.pixel_scale_matrix
    scale = math.sqrt(abs(np.linalg.det(matrix)))
    rotation = math.atan2(matrix[0, 1], matrix[1, 1])
    expected = scale * np.array(
        [[-math.cos(rotation), math.sin(rotation)], [math.sin(rotation), math.cos(rotation)]]
    )
    if not np.allclose(matrix, expected, rtol=0, atol=1e-5 * scale):
        _refuse(wcs, "has pixels that are not square, or east to the right of north")
    center = SkyCoord(*wcs.wcs.crval, unit="deg", frame=wcs_to_celestial_frame(wcs)).icrs
    return {
        "crval": [float(center.ra.deg), float(center.dec.deg)],
        "crpix": [float(value) - 1 for value in wcs.wcs.crpix],
        "pixel_scale": scale * 3600,
        "rotation": math.degrees(rotation),
        "output_shape": [int(shape[-1]), int(shape[-2])],
    }


def n_pixels(exposures: Sequence[Exposure], grid: dict[str, Any] | None = None) -> int | None:
    """Return how many pixels the mosaic of some exposures has."""
    if grid and "output_shape" in grid:
        return math.prod(grid["output_shape"])
    if grid or any(footprint(e) is None for e in exposures):
        return None
    # The pipeline turns the grid to fit the exposures; north up would need more.
    roll = exposures[0].pointing.get("ROLL_REF", 0.0) + exposures[0].pointing.get("V3I_YANG", 0.0)
    return math.prod(common_grid(exposures, rotation=roll)["output_shape"])


def _refuse(wcs: Any, why: str) -> NoReturn:
    msg = f"wcs={type(wcs).__name__ if not isinstance(wcs, (str, os.PathLike)) else wcs!r} {why}."
    raise InvalidRequestError(msg, parameter="wcs", value=wcs)


def _check_tangential(wcs: WCS) -> None:
    types = [str(t) for t in wcs.wcs.ctype]
    if types != ["RA---TAN", "DEC--TAN"]:
        _refuse(wcs, f"has CTYPE {types}; resample makes RA---TAN, DEC--TAN. Give a gwcs as .asdf")
    distorted = wcs.sip is not None or wcs.cpdis1 is not None or wcs.det2im1 is not None
    if distorted:
        _refuse(wcs, "has distortions; give a gwcs as .asdf")
    if not math.isnan(wcs.wcs.lonpole) and wcs.wcs.lonpole not in (180.0, 999.0):
        _refuse(wcs, f"has LONPOLE={wcs.wcs.lonpole}; resample makes 180")


def _header_of(path: str) -> fits.Header:
    try:
        with fits.open(path) as hdul:
            for hdu in hdul:
                if hdu.header.get("NAXIS", 0) >= 2 and WCS(hdu.header, naxis=2).has_celestial:
                    return hdu.header
    except OSError as error:
        _refuse(path, f"cannot be read: {error}")
    return _refuse(path, "has no image with a celestial WCS")


_ARCSEC_PER_RADIAN = 180 / math.pi * 3600


def _tangent(ra_deg: float, dec_deg: float, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the tangential coordinates of positions, arcsec."""
    vectors = unit_vectors(*positions.T)
    east, north = tangent_axes(ra_deg, dec_deg)
    depth = vectors @ unit_vectors(ra_deg, dec_deg)
    return (
        vectors @ east / depth * _ARCSEC_PER_RADIAN,
        vectors @ north / depth * _ARCSEC_PER_RADIAN,
    )
