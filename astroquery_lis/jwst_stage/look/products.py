"""Images, flags and ramps of the chain's products as arrays, with numpy and astropy only."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits
from astropy.table import Table

from ...exceptions import InvalidRequestError, refuse
from ...pictures.rgb import grey_levels

if TYPE_CHECKING:
    from ..._typing import FilePath

__all__ = ["FLAGS", "Plane", "Ramp", "dq_counts", "grey", "read_flagged", "read_plane", "read_ramp"]

_FLAG_NAMES = (
    *("DO_NOT_USE", "SATURATED", "JUMP_DET", "DROPOUT", "OUTLIER", "PERSISTENCE", "AD_FLOOR"),
    *("CHARGELOSS", "RESERVED", "NON_SCIENCE", "DEAD", "HOT", "WARM", "LOW_QE", "RC"),
    *("TELEGRAPH", "NONLINEAR", "BAD_REF_PIXEL", "NO_FLAT_FIELD", "NO_GAIN_VALUE", "NO_LIN_CORR"),
    *("NO_SAT_CHECK", "UNRELIABLE_BIAS", "UNRELIABLE_DARK", "UNRELIABLE_SLOPE"),
    *("UNRELIABLE_FLAT", "OPEN", "ADJ_OPEN", "FLUX_ESTIMATED", "MSA_FAILED_OPEN"),
    *("OTHER_BAD_PIXEL", "REFERENCE_PIXEL"),
)
FLAGS = {name: bit for bit, name in enumerate(_FLAG_NAMES)}
"""Bits of the DQ planes of JWST."""


@dataclass(frozen=True, slots=True)
class Plane:
    """One image of a product, with its flags where it has them, and the headers in one."""

    name: str
    suffix: str  # 'uncal', 'rate', 'cal', 'i2d', ..., or that of a correction
    data: np.ndarray
    dq: np.ndarray | None
    unit: str
    header: fits.Header


def read_plane(path: FilePath, *, integration: int = 0) -> Plane:
    """Return the image of a product.

    Parameters
    ----------
    path : path-like
        A product of any stage.  Of groups the last less the first is taken, of a cube one image.
    integration : int, optional
        Which one, from 0, where there are several.

    Returns
    -------
    Plane

    Raises
    ------
    InvalidRequestError
        If it has no image.
    """
    try:
        with fits.open(path) as hdul:
            header = hdul["SCI"].header.copy()
            header.extend(hdul[0].header, unique=True)
            image = _read_image(path, hdul["SCI"], integration)
            unit = str(header.get("BUNIT", "")).strip()
            if len(hdul["SCI"].shape) == 4:
                unit = unit or "DN"
            dq = next(
                (np.array(hdul[name].data) for name in ("DQ", "PIXELDQ") if name in hdul), None
            )
    except (OSError, KeyError) as error:
        msg = f"path={str(path)!r} has no image to show: {error}."
        raise InvalidRequestError(msg, parameter="path", value=path) from None
    if dq is not None:
        dq = (dq[integration] if dq.ndim == 3 else dq).astype(np.uint32)
        dq = dq if dq.shape == image.shape else None
    return Plane(Path(path).name, Path(path).stem.rpartition("_")[2], image, dq, unit, header)


def _read_image(path: FilePath, hdu: fits.ImageHDU, integration: int) -> np.ndarray:
    shape = hdu.shape
    if len(shape) not in (2, 3, 4):
        msg = f"path={str(path)!r} has SCI of shape {shape}; 2 to 4 dimensions are shown."
        raise InvalidRequestError(msg, parameter="path", value=path)
    if len(shape) > 2 and not 0 <= integration < shape[0]:
        refuse("integration", integration, f": {Path(path).name} has {shape[0]}.")
    # A section, since a file may have many groups of a whole detector.
    data = hdu.section
    if len(shape) < 4:
        return np.array(data[integration] if len(shape) == 3 else data[:, :], float)
    image = np.array(data[integration, shape[1] - 1], float)
    return image - (data[integration, 0] if shape[1] > 1 else 0)


def grey(data: np.ndarray, *, dq: np.ndarray | None = None) -> np.ndarray:
    """Return an image as levels from 0 to 1, by arcsinh of the noise.

    Parameters
    ----------
    data : `~numpy.ndarray`
        Shape (ny, nx).
    dq : `~numpy.ndarray` of uint32, optional
        Flags; pixels that may not be used do not decide on the levels.

    Returns
    -------
    `~numpy.ndarray`
        Shape (ny, nx); 0.5 where there is no value.
    """
    return grey_levels(data, None if dq is None else (dq & 1) == 0)


def read_flagged(path: FilePath, integration: int) -> tuple[Plane, np.ndarray]:
    """Return the image of a product and its flags."""
    plane = read_plane(path, integration=integration)
    if plane.dq is None:
        msg = f"path={str(path)!r} has no DQ plane; rate, cal and crf products have one."
        raise InvalidRequestError(msg, parameter="path", value=path)
    return plane, plane.dq


def dq_counts(path: FilePath, *, integration: int = 0) -> Table:
    """Return how many pixels have each flag.

    Parameters
    ----------
    path : path-like
        A product with a DQ plane: of stage 1 or 2, or crf.
    integration : int, optional
        Which one, from 0, where there are several.

    Returns
    -------
    `~astropy.table.Table`
        ``flag``, ``bit``, ``pixels`` and ``share``, of those that occur; the most frequent first.

    Raises
    ------
    InvalidRequestError
        If the product has no flags.
    """
    _, dq = read_flagged(path, integration)
    rows = []
    for name, bit in FLAGS.items():
        pixels = int(np.count_nonzero(dq & np.uint32(1 << bit)))
        if pixels:
            rows.append((name, bit, pixels, pixels / dq.size))
    rows.sort(key=lambda row: -row[2])
    names, types = ("flag", "bit", "pixels", "share"), (str, int, int, float)
    table = Table(rows=rows or None, names=names, dtype=types)
    table["share"].info.format = ".4f"
    return table


@dataclass(frozen=True, slots=True)
class Ramp:
    """The groups of one pixel: time since the reset, DN, and flags where the product has them."""

    seconds: np.ndarray
    counts: np.ndarray
    flags: np.ndarray | None


def read_ramp(path: FilePath, x: int, y: int, *, integration: int = 0) -> Ramp:
    """Return the groups of a pixel.

    Parameters
    ----------
    path : path-like
        A product with groups: uncal, without flags, or with them a ramp or jump product, which
        ``steps={"jump": {"save_results": True}}`` keeps.
    x, y : int
        Pixel, from 0.
    integration : int, optional
        Which one, from 0.

    Returns
    -------
    Ramp

    Raises
    ------
    InvalidRequestError
        If the file has no groups, or the pixel is not in it.
    """
    try:
        with fits.open(path) as hdul:
            shape = hdul["SCI"].shape
            if len(shape) != 4:
                msg = f"path={str(path)!r} has no groups; uncal, ramp and jump products have."
                raise InvalidRequestError(msg, parameter="path", value=path)
            for name, value, size in (
                ("x", x, shape[3]),
                ("y", y, shape[2]),
                ("integration", integration, shape[0]),
            ):
                if not isinstance(value, Integral) or not 0 <= value < size:
                    refuse(name, value, f"must be a whole number from 0 to {size - 1}.")
            counts = np.array(hdul["SCI"].section[integration, :, y, x], float)
            flags = None
            if "GROUPDQ" in hdul:
                flags = np.array(hdul["GROUPDQ"].section[integration, :, y, x], int)
            time = hdul[0].header.get("TGROUP") or 1.0
            first = hdul[0].header.get("TFRAME") or time
    except (OSError, KeyError) as error:
        msg = f"path={str(path)!r} cannot be read: {error}."
        raise InvalidRequestError(msg, parameter="path", value=path) from None
    return Ramp(first + time * np.arange(len(counts)), counts, flags)
