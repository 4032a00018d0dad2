"""Images of the chain as grey pictures, and the names of their flags: numpy and astropy only."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from ...exceptions import InvalidRequestError

__all__ = ["FLAGS", "Plane", "grey", "read_plane", "suffix_of"]

FLAGS = {
    "DO_NOT_USE": 0,
    "SATURATED": 1,
    "JUMP_DET": 2,
    "DROPOUT": 3,
    "OUTLIER": 4,
    "PERSISTENCE": 5,
    "AD_FLOOR": 6,
    "CHARGELOSS": 7,
    "RESERVED": 8,
    "NON_SCIENCE": 9,
    "DEAD": 10,
    "HOT": 11,
    "WARM": 12,
    "LOW_QE": 13,
    "RC": 14,
    "TELEGRAPH": 15,
    "NONLINEAR": 16,
    "BAD_REF_PIXEL": 17,
    "NO_FLAT_FIELD": 18,
    "NO_GAIN_VALUE": 19,
    "NO_LIN_CORR": 20,
    "NO_SAT_CHECK": 21,
    "UNRELIABLE_BIAS": 22,
    "UNRELIABLE_DARK": 23,
    "UNRELIABLE_SLOPE": 24,
    "UNRELIABLE_FLAT": 25,
    "OPEN": 26,
    "ADJ_OPEN": 27,
    "FLUX_ESTIMATED": 28,
    "MSA_FAILED_OPEN": 29,
    "OTHER_BAD_PIXEL": 30,
    "REFERENCE_PIXEL": 31,
}
"""Bits of the DQ planes of JWST."""

_LOW, _HIGH = -2.0, 80.0
_SOFTENING = 3.0
_NO_VALUE = 0.5


@dataclass(frozen=True, slots=True)
class Plane:
    """One image of a product.

    Attributes
    ----------
    name : str
        Of the file.
    suffix : str
        'uncal', 'rate', 'cal', 'i2d', ..., or that of a correction.
    data : `~numpy.ndarray`
        Shape (ny, nx).
    dq : `~numpy.ndarray` of uint32 or None
        Flags, shape (ny, nx), where the product has them.
    unit : str
        Of `data`.
    header : `~astropy.io.fits.Header`
        Of the image, and below it of the file.
    """

    name: str
    suffix: str
    data: np.ndarray
    dq: np.ndarray | None
    unit: str
    header: fits.Header


def suffix_of(path):
    """Return what the name of a product ends in.

    Parameters
    ----------
    path : path-like
        Such as ``jw..._nrca1_rate.fits``.

    Returns
    -------
    str
        'rate'.
    """
    return Path(path).stem.rpartition("_")[2]


def read_plane(path, *, integration=0):
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
            shape = hdul["SCI"].shape
            if len(shape) not in (2, 3, 4):
                msg = f"path={str(path)!r} has SCI of shape {shape}; 2 to 4 dimensions are shown."
                raise InvalidRequestError(msg, parameter="path", value=path)
            if len(shape) > 2 and not 0 <= integration < shape[0]:
                msg = f"integration={integration!r}: {Path(path).name} has {shape[0]}."
                raise InvalidRequestError(msg, parameter="integration", value=integration)
            unit = str(header.get("BUNIT", "")).strip()
            # A section, since a file may have many groups of a whole detector.
            data = hdul["SCI"].section
            if len(shape) == 4:
                image = np.array(data[integration, shape[1] - 1], float)
                image -= data[integration, 0] if shape[1] > 1 else 0
                unit = unit or "DN"
            else:
                image = np.array(data[integration] if len(shape) == 3 else data[:, :], float)
            names = [name for name in ("DQ", "PIXELDQ") if name in hdul]
            dq = np.array(hdul[names[0]].data) if names else None
    except (OSError, KeyError) as error:
        msg = f"path={str(path)!r} has no image to show: {error}."
        raise InvalidRequestError(msg, parameter="path", value=path) from None
    if dq is not None and dq.ndim == 3:
        dq = dq[integration]
    if dq is not None and dq.shape != image.shape:
        dq = None
    dq = None if dq is None else dq.astype(np.uint32)
    return Plane(Path(path).name, suffix_of(path), image, dq, unit, header)


def grey(data, *, dq=None):
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
    has = np.isfinite(data)
    good = has if dq is None else has & ((dq & 1) == 0)
    values = data[good] if good.any() else data[has]
    if not values.size:
        return np.full(data.shape, _NO_VALUE)
    middle = np.median(values)
    noise = 1.4826 * np.median(np.abs(values - middle))
    noise = noise or np.ptp(values) / 1000 or 1.0
    low, high = (np.arcsinh(level / _SOFTENING) for level in (_LOW, _HIGH))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        scaled = (np.arcsinh((data - middle) / noise / _SOFTENING) - low) / (high - low)
    return np.where(has, np.clip(scaled, 0, 1), _NO_VALUE)
