"""How the slices of MIRI's integral field unit lie on the detector and in the sky."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .exposures import Setup
from .miri_imaging import IMAGER

ROWS, COLUMNS = 60, 1032
PIXEL_ARCSEC = 0.196
# MJy/sr of 1 DN/s.
SENSITIVITY = 20.0
_ANGLE_DEG = 8.0


@dataclass(frozen=True, slots=True)
class Channel:
    """One of the two channels: its slices on the detector and in the sky, and its wavelengths."""

    number: int
    n_slices: int
    first_column: int
    width_pix: int
    pitch_pix: int
    slice_arcsec: float
    v2_arcsec: float
    v3_arcsec: float
    first_um: float
    step_um: float
    line_um: float

    @property
    def band(self) -> str:
        """Name of channel and band."""
        return f"{self.number}SHORT"

    @property
    def first_beta_arcsec(self) -> float:
        """Place of the first slice across."""
        return -self.slice_arcsec * (self.n_slices - 1) / 2

    def beta_arcsec(self, index: int) -> float:
        """Return the place of a slice across."""
        return self.first_beta_arcsec + self.slice_arcsec * index

    def columns(self, index: int) -> np.ndarray:
        """Return the columns of a slice."""
        return self.first_column + self.pitch_pix * index + np.arange(self.width_pix)

    def alpha_arcsec(self, index: int) -> np.ndarray:
        """Return the places of the columns of a slice along it."""
        columns = self.columns(index)
        return (columns - columns.mean()) * PIXEL_ARCSEC

    def wavelength_um(self) -> np.ndarray:
        """Return the wavelengths of the rows."""
        return self.first_um + self.step_um * np.arange(ROWS)

    def matrix(self) -> np.ndarray:
        """Return the matrix from places in the slices to arcsec of (V2, V3), shape (2, 2)."""
        cos, sin = np.cos(np.radians(_ANGLE_DEG)), np.sin(np.radians(_ANGLE_DEG))
        return np.array([[-cos, sin], [sin, cos]])


CHANNELS = (
    Channel(1, 21, 4, 22, 24, 0.177, -503.65, -318.74, 4.90, 0.0140, 5.3),
    Channel(2, 17, 516, 28, 30, 0.280, -503.60, -318.70, 7.50, 0.0210, 8.1),
)
SETUP = Setup(
    "MIR_MRS",
    {"name": "MIRI", "detector": "MIRIFUSHORT", "channel": "12", "band": "SHORT"},
    IMAGER,
    (ROWS, COLUMNS),
    (0, 0),
    "FULL",
    keywords={
        "observation.template": "MIRI Medium Resolution Spectroscopy",
        "exposure.readpatt": "FASTR1",
        "dither.primary_type": "2-POINT",
        "target.source_type_apt": "POINT",
    },
)
