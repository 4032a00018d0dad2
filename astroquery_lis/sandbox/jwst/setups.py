"""What the exposures of a mode share: detector, frame, optics; where places of the sky fall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from astropy.table import Table

from .detector import (
    DETECTOR_PIX,
    DETECTORS,
    ELECTRONICS,
    SUBARRAYS,
    Detector,
    Electronics,
    Maps,
    Pointing,
    detector_maps,
    offset_position,
)
from .scene import FILTERS, add_star

TARGET_DEG = (190.0, 1.2)
ROLL_DEG = 24.0
FRAME_TIME_S = 10.73677
READPATT = "RAPID"


@dataclass(frozen=True, slots=True)
class Setup:
    """What the exposures of a mode share.

    ``instrument`` are the keywords of ``meta.instrument``; ``keywords`` are others, by their place
    below ``meta``.  The frame has ``shape`` and begins at ``corner_pix`` (x, y, from 0) of the
    detector, by default where it is in the middle.  Stars are ``sigma_pix`` wide, and ``photmjsr``
    is the MJy/sr of a DN/s.  Where it ``is_uneven`` pixels have a dark current, a bias and a
    linearity of their own.
    """

    exp_type: str
    instrument: Mapping[str, str]
    detector: Detector
    shape: tuple[int, int]
    subarray: str
    photmjsr: float
    sigma_pix: float = 1.0
    exposure_s: float = 111.0
    n_groups: int = 40
    read_noise_dn_s: float = 0.02
    electronics: Electronics = ELECTRONICS["modes"]
    abvega: float = -4.4
    sky_ring_pix: tuple[float, float] = (5.0, 7.0)
    fastaxis: int = 1
    is_uneven: bool = False
    corner_pix: tuple[int, int] | None = None
    keywords: Mapping[str, object] = field(default_factory=dict)

    @property
    def of_detector(self) -> dict[str, str]:
        """Those keywords of the instrument that are the same in all filters."""
        names = ("name", "detector", "channel", "module")
        return {name: self.instrument[name] for name in names if name in self.instrument}

    @property
    def first_pix(self) -> tuple[int, int]:
        """Column and row of the detector, from 0, where the frame begins."""
        ny, nx = self.shape
        return self.corner_pix or ((DETECTOR_PIX - nx) // 2, (DETECTOR_PIX - ny) // 2)

    @property
    def pixel_sr(self) -> float:
        """Solid angle of a pixel."""
        return float(np.radians(self.detector.scale_arcsec / 3600) ** 2)

    @property
    def dn_per_jansky(self) -> float:
        """DN/s of a source of 1 Jy."""
        return 1e-6 / (self.pixel_sr * self.photmjsr)

    def pointing(self, place_deg: Sequence[float | np.ndarray], roll_deg: float) -> Pointing:
        """Return the pointing that brings a place of the sky to the middle of the frame."""
        x, y = (
            first + (size - 1) / 2
            for first, size in zip(self.first_pix, self.shape[::-1], strict=True)
        )
        v2, v3 = self.detector.to_v2v3(x, y)
        ra, dec = map(float, place_deg)
        return Pointing(float(v2), float(v3), ra, dec, roll_deg)

    def dithered(
        self, dither: tuple[float, float], target_deg: tuple[float, float] = TARGET_DEG
    ) -> Pointing:
        """Return the pointing some arcsec (east, north) from a target."""
        return self.pointing(offset_position(*target_deg, *dither), ROLL_DEG)

    def to_sky(self, pointing: Pointing, x_pix: float, y_pix: float) -> tuple[float, float]:
        """Return RA and Dec (deg) of a pixel of the frame, from 0."""
        v2v3 = self.detector.to_v2v3(x_pix + self.first_pix[0], y_pix + self.first_pix[1])
        ra, dec = pointing.to_sky(*v2v3)
        return float(ra), float(dec)

    def to_pixel(
        self, pointing: Pointing, ra_deg: float | np.ndarray, dec_deg: float | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y in pixels of the frame, from 0."""
        x, y = self.detector.from_v2v3(*pointing.from_sky(np.asarray(ra_deg), np.asarray(dec_deg)))
        return x - self.first_pix[0], y - self.first_pix[1]

    def corners_deg(self, pointing: Pointing) -> list[tuple[float, float]]:
        """Return RA and Dec of the corners of the frame."""
        x, y = self.shape[1] - 1, self.shape[0] - 1
        return [self.to_sky(pointing, *corner) for corner in ((0, 0), (x, 0), (x, y), (0, y))]

    def flat(self) -> np.ndarray:
        """Return the response of the pixels."""
        ny, nx = self.shape
        y, x = np.mgrid[:ny, :nx]
        return 1 + 0.05 * (x / nx - 0.5) + 0.04 * (y / ny - 0.5) ** 2

    def maps(self) -> Maps:
        """Return the calibration of the frame."""
        if self.is_uneven:
            return detector_maps(self.detector.name, self.shape[0])
        nothing, nowhere = np.zeros(self.shape), np.zeros(self.shape, bool)
        linearity = np.full(self.shape, self.electronics.linearity)
        return Maps(nothing, nothing, self.flat(), linearity, bad=nowhere, reference=nowhere)

    def image(self, pointing: Pointing, stars: Table, sky_mjysr: float | np.ndarray) -> np.ndarray:
        """Return the DN/s that the pixels see of stars and sky."""
        light = np.full(self.shape, sky_mjysr / self.photmjsr)
        self.add_stars(light, pointing, stars)
        return light * self.flat()

    def add_stars(self, light: np.ndarray, pointing: Pointing, stars: Table) -> None:
        """Add the DN/s of stars, ``ra`` and ``dec`` (deg) and ``flux`` (Jy), to a frame."""
        x, y = self.to_pixel(pointing, stars["ra"], stars["dec"])
        rates = np.array(stars["flux"]) * self.dn_per_jansky
        for column, row, rate in zip(x, y, rates, strict=True):
            add_star(light, column, row, rate, self.sigma_pix)


def sky_setup(filter_name: str, size: int, groups: int, integrations: int = 1) -> Setup:
    """Return the set-up of images of the embedded sky, in the middle of NIRCam's detector."""
    row = FILTERS[filter_name]
    detector = DETECTORS[row.detector]
    is_full = size == DETECTOR_PIX
    subarray = "FULL" if is_full else SUBARRAYS[min(side for side in SUBARRAYS if side >= size)]
    aperture = "A5" if detector.name == "NRCALONG" else detector.name.removeprefix("NRC")
    return Setup(
        exp_type="NRC_IMAGE",
        instrument={
            "name": "NIRCAM", "detector": detector.name, "channel": detector.channel,
            "module": detector.module, "filter": filter_name, "pupil": "CLEAR",
        },
        detector=detector,
        shape=(size, size),
        subarray=subarray,
        photmjsr=row.photmjsr,
        sigma_pix=row.sigma_arcsec / detector.scale_arcsec,
        exposure_s=integrations * groups * FRAME_TIME_S,
        n_groups=groups,
        electronics=ELECTRONICS[detector.name],
        abvega=row.abvega,
        sky_ring_pix=(12.0, 16.0),
        fastaxis=-1,
        is_uneven=True,
        keywords={
            "exposure.readpatt": READPATT,
            "exposure.noutputs": 4 if is_full else 1,
            "exposure.sca_num": detector.sca_number,
            "instrument.pupil_imaging_lens": False,
            "aperture.name": f"NRC{aperture}_{subarray}",
            "aperture.pps_name": f"NRC{aperture}_{subarray}",
        },
    )  # fmt: skip
