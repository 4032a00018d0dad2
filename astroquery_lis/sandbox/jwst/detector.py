"""What a detector does to light: the calibration that is true, and the ramps that come of it."""

from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from .geometry import DETECTOR_PIX, DETECTORS

__all__ = [
    "ELECTRONICS",
    "SATURATION_DN",
    "SUBARRAYS",
    "Maps",
    "detector_maps",
    "first_pixel",
    "make_ramp",
    "one_over_f",
    "saturates",
    "wisp_template",
]

_SEED = 19900424
BORDER_PIX = 4
"""Width of the frame of reference pixels of a full frame."""

SATURATION_DN = 56000.0
"""Counts, with the bias, from which a pixel is called saturated."""

_FULL_WELL_DN = 60000.0
_BIAS_DN = 12000.0
_AMPLIFIERS = 4


@dataclass(frozen=True, slots=True)
class Electronics:
    """Numbers of one detector: electrons per DN, read noise (electrons), dark (electrons/s)."""

    gain: float
    read_noise_e: float
    dark_e_s: float
    linearity: float


ELECTRONICS = MappingProxyType(
    {
        "NRCALONG": Electronics(1.82, 9.0, 0.034, 9e-7),
        "NRCA1": Electronics(2.05, 10.5, 0.004, 7e-7),
    }
)

SUBARRAYS = MappingProxyType({64: "SUB64P", 160: "SUB160", 320: "SUB320", 640: "SUB640"})
"""Names of square frames up to each size in pixels; the real ones have just these sizes."""


def first_pixel(size):
    """Return the first row and column, from 0, of a frame in the middle of the detector."""
    return (DETECTOR_PIX - size) // 2


@dataclass(frozen=True, slots=True)
class Maps:
    """The true calibration of a frame; every image has shape (size, size).

    Attributes
    ----------
    bias_dn, dark_dn_s, flat, linearity : `~numpy.ndarray`
        Superbias, dark current, flat field, and the coefficient of the square of the counts.
    bad : `~numpy.ndarray` of bool
        Dead pixels.
    reference : `~numpy.ndarray` of bool
        Reference pixels: the border of a full frame.
    """

    bias_dn: np.ndarray
    dark_dn_s: np.ndarray
    flat: np.ndarray
    linearity: np.ndarray
    bad: np.ndarray
    reference: np.ndarray


@lru_cache(maxsize=2)
def detector_maps(detector, size):
    """Return the true calibration of a frame in the middle of a detector.

    Parameters
    ----------
    detector : str
        Key of `~.geometry.DETECTORS`.
    size : int
        Side of the frame, pixels.

    Returns
    -------
    Maps
    """
    parts = ELECTRONICS[detector]
    rng = np.random.default_rng([_SEED, DETECTORS[detector].sca_number, size])
    shape = (size, size)
    y, x = np.mgrid[:size, :size] / size - 0.5
    bias = _BIAS_DN + rng.normal(0, 120, shape) + 60 * np.sin(9 * x)
    bias += rng.normal(0, 20, size)[None, :]
    dark = parts.dark_e_s / parts.gain * rng.gamma(4, 0.25, shape)
    flat = 1 + 0.03 * x - 0.04 * y**2 + rng.normal(0, 0.008, shape)
    linearity = parts.linearity * (1 + rng.normal(0, 0.02, shape))
    bad = rng.uniform(size=shape) < 4e-4
    reference = np.zeros(shape, bool)
    if size == DETECTOR_PIX:
        reference[:] = True
        reference[BORDER_PIX:-BORDER_PIX, BORDER_PIX:-BORDER_PIX] = False
    bad &= ~reference
    # They see nothing, and so no dark current either.
    dark[reference] = 0
    flat /= np.median(flat)
    images = (bias, dark, flat, linearity)
    return Maps(*(image.astype(np.float32) for image in images), bad, reference)


def one_over_f(rng, n_rows):
    """Return an offset for each row of one read: noise of power 1/f, rms 1."""
    frequency = np.fft.rfftfreq(2 * n_rows)
    frequency[0] = frequency[1]
    amplitude = rng.normal(size=(2, len(frequency)))
    signal = np.fft.irfft((amplitude[0] + 1j * amplitude[1]) / np.sqrt(frequency), 2 * n_rows)
    signal = signal[:n_rows] - signal[:n_rows].mean()
    return signal / signal.std()


def wisp_template(detector, size):
    """Return the shape of the stray light of a detector: a band with streaks, 1 at its brightest.

    Parameters
    ----------
    detector : str
        Key of `~.geometry.DETECTORS`.
    size : int
        Side of the frame, pixels.

    Returns
    -------
    `~numpy.ndarray` of float32
        Shape (size, size).
    """
    y, x = np.mgrid[:size, :size] / size - 0.5
    number = DETECTORS[detector].sca_number % 7
    along = 0.8 * x + 0.6 * y + 0.12 * np.sin(5 * (x - 0.3 * y) + number)
    across = 0.6 * x - 0.8 * y
    streaks = 1 + 0.35 * np.sin(40 * along + 3 * across)
    image = np.exp(-0.5 * (along / 0.12) ** 2 - 0.5 * ((across - 0.05) / 0.3) ** 2) * streaks
    return (image / image.max()).astype(np.float32)


def _counted(linear_dn, maps):
    """Return the counts, with the bias, of a charge; the linearity reference turns it back."""
    square = maps.linearity
    return (np.sqrt(1 + 4 * square * linear_dn) - 1) / (2 * square) + maps.bias_dn


def saturates(rate_dn_s, maps, time_s):
    """Tell which pixels the light alone saturates.

    Parameters
    ----------
    rate_dn_s : `~numpy.ndarray`
        Light that is counted, DN/s, shape (ny, nx).
    maps : Maps
        The true calibration.
    time_s : float
        When the last group is read.

    Returns
    -------
    `~numpy.ndarray` of bool
        Shape (ny, nx).
    """
    charge_dn = np.maximum(rate_dn_s, 0) * time_s
    return (_counted(charge_dn, maps) >= SATURATION_DN) & ~maps.reference & ~maps.bad


def make_ramp(rate_dn_s, maps, electronics, group_times_s, rng, *, events=(), rows_e=None):
    """Return the counts of one integration, as the detector would send them.

    Parameters
    ----------
    rate_dn_s : `~numpy.ndarray`
        Light that is counted, after the flat, DN/s, shape (ny, nx).
    maps : Maps
        The true calibration.
    electronics : Electronics
        Gain and noise.
    group_times_s : sequence of float
        When each group is read.
    rng : `~numpy.random.Generator`
        The noise.
    events : sequence of (int, `~numpy.ndarray`, `~numpy.ndarray`, `~numpy.ndarray`), optional
        Charge that comes at once: the group it is first seen in, x, y and electrons.
    rows_e : `~numpy.ndarray`, optional
        Offsets of each row at each read, electrons, shape (ngroups, ny).

    Returns
    -------
    `~numpy.ndarray` of uint16
        Shape (ngroups, ny, nx).
    """
    gain, n_groups = electronics.gain, len(group_times_s)
    lit = ~maps.reference
    rate_e = np.where(lit & ~maps.bad, np.maximum(rate_dn_s, 0) * gain, 0.0)
    dark_e = maps.dark_dn_s * gain
    charge = np.zeros(rate_dn_s.shape)
    counts = np.empty((n_groups, *rate_dn_s.shape), np.uint16)
    steps = np.diff(group_times_s, prepend=0.0)
    quarter = rate_dn_s.shape[1] // _AMPLIFIERS
    for group in range(n_groups):
        charge += rng.poisson((rate_e + dark_e) * steps[group])
        for first, x, y, electrons in events:
            if first == group:
                np.add.at(charge, (y, x), electrons)
        measured = np.minimum(_counted(charge / gain, maps), _FULL_WELL_DN)
        measured += rng.normal(0, electronics.read_noise_e / gain, measured.shape)
        if rows_e is not None:
            measured += rows_e[group][:, None] / gain
        if maps.reference.any():
            drifts = rng.normal(0, 15, _AMPLIFIERS)
            measured += np.repeat(drifts, quarter)[None, :]
        counts[group] = np.clip(np.rint(measured), 0, 65535)
    return counts
