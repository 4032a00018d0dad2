"""What the exposures of a mode share, where places of the sky fall, and what headers say of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import Table
from astropy.time import Time, TimeDelta
from scipy.special import erf

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

if TYPE_CHECKING:
    from stdatamodels.jwst.datamodels import JwstDataModel
    from stdatamodels.properties import ObjectNode


TARGET_DEG = (190.0, 1.2)
ROLL_DEG = 24.0
FRAME_TIME_S = 10.73677
READPATT = "RAPID"


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter and the detector behind it."""

    detector: str
    wavelength_um: float
    fwhm_arcsec: float
    photmjsr: float
    abvega: float

    @property
    def sigma_arcsec(self) -> float:
        """Sigma of the PSF, which is a Gaussian."""
        return self.fwhm_arcsec / np.sqrt(8 * np.log(2))


# The filters that are simulated; each belongs to one detector.
FILTERS = MappingProxyType(
    {
        "F115W": Filter("NRCA1", 1.154, 0.067, 3.40, -0.76),
        "F150W": Filter("NRCA1", 1.501, 0.068, 2.30, -1.20),
        "F200W": Filter("NRCA1", 1.990, 0.070, 1.90, -1.68),
        "F277W": Filter("NRCALONG", 2.786, 0.134, 0.42, -2.32),
        "F356W": Filter("NRCALONG", 3.563, 0.137, 0.40, -2.77),
        "F444W": Filter("NRCALONG", 4.421, 0.148, 0.43, -3.21),
    }
)


def box(centre: float, half: float, size: int) -> tuple[int, int]:
    """Return the range of pixels within `half` of `centre` that are inside the image."""
    first = max(int(np.ceil(centre - half)), 0)
    return first, max(min(int(np.floor(centre + half)) + 1, size), first)


def add_star(image: np.ndarray, x: float, y: float, rate: float, sigma: float) -> None:
    """Add a round Gaussian, integrated over each pixel."""
    half = 7 * sigma + 1
    x0, x1 = box(x, half, image.shape[1])
    y0, y1 = box(y, half, image.shape[0])
    parts = []
    for centre, first, last in ((x, x0, x1), (y, y0, y1)):
        edges = (np.arange(first, last + 1) - 0.5 - centre) / (np.sqrt(2) * sigma)
        parts.append(np.diff(erf(edges)) / 2)
    image[y0:y1, x0:x1] += rate * np.outer(parts[1], parts[0])


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


START = "2023-08-20T04:00:00.000"
_APART_S = 200.0
# What is the same in every exposure.
_KEYWORDS = Path(__file__).parents[1] / "data" / "jwst_keywords.json"


@dataclass(frozen=True, slots=True)
class Shot:
    """One exposure: its number in its pattern, and where its keywords say that it points.

    It begins ``start_s`` after all began, by default some time after the number before.  A long one
    has several ``segment`` files (0: it has not), of which each has some integrations from
    ``first_integration`` on.
    """

    number: int
    pointing: Pointing
    start_s: float | None = None
    program: int = 1234
    observation: str = "001"
    group: str = "02"
    target: str = "FIELD"
    is_background: bool = False
    segment: int = 0
    first_integration: int = 1
    keywords: Mapping[str, object] = field(default_factory=dict)

    @property
    def start(self) -> Time:
        """When it begins."""
        start_s = (self.number - 1) * _APART_S if self.start_s is None else self.start_s
        return Time(START, scale="utc") + TimeDelta(start_s, format="sec")

    def root(self, setup: Setup) -> str:
        """Return the name of the exposure."""
        visit = f"jw{self.program:05d}{self.observation}001_{self.group}101_{self.number:05d}"
        part = f"-seg{self.segment:03d}" if self.segment else ""
        return f"{visit}{part}_{setup.instrument['detector'].lower()}"


def write_uncal(folder: Path, setup: Setup, shot: Shot, counts: np.ndarray) -> Path:
    """Write the ramps of an exposure."""
    from stdatamodels.jwst import datamodels

    model = datamodels.Level1bModel(counts)
    fill_header(model, setup, shot, len(counts))
    return save(folder, model, f"{shot.root(setup)}_uncal.fits")


def save(folder: Path, model: JwstDataModel, name: str) -> Path:
    """Write a model under a name that it knows."""
    model.meta.filename = name
    model.save(str(folder / name))
    model.close()
    return folder / name


def fill_header(model: JwstDataModel, setup: Setup, shot: Shot, n_ints: int) -> None:
    """Fill the keywords that the pipeline and its rules read."""
    visit = f"{shot.program:05d}{shot.observation}001"
    keywords = {
        **json.loads(_KEYWORDS.read_text(encoding="utf-8")),
        "observation.program_number": f"{shot.program:05d}",
        "observation.observation_number": shot.observation,
        "observation.visit_id": visit,
        "observation.obs_id": f"V{visit}P0000000{shot.group}101",
        "observation.visit_group": shot.group,
        "observation.exposure_number": str(shot.number),
        "observation.bkgdtarg": shot.is_background,
        "visit.start_time": shot.start.isot.replace("T", " "),
        "target.proposer_name": shot.target,
        "target.catalog_name": shot.target,
        "dither.position_number": shot.number,
        "exposure.type": setup.exp_type,
        **{f"instrument.{keyword}": value for keyword, value in setup.instrument.items()},
        **{f"subarray.{keyword}": value for keyword, value in frame_keywords(setup).items()},
        **{f"exposure.{keyword}": value for keyword, value in _times(setup, shot, n_ints).items()},
        **setup.keywords,
        **shot.keywords,
    }
    _fill_pointing(model.meta, setup, shot.pointing)
    end = shot.start + TimeDelta(setup.exposure_s, format="sec")
    observation = model.meta.observation
    observation.date, observation.time = shot.start.isot.split("T")
    observation.date_beg, observation.date_end = shot.start.isot, end.isot
    for keyword, value in keywords.items():
        model[f"meta.{keyword}"] = value


def frame_keywords(setup: Setup) -> dict[str, object]:
    """Return the keywords that say which part of the detector is read."""
    (x, y), (ny, nx) = setup.first_pix, setup.shape
    return {
        "name": setup.subarray, "xstart": x + 1, "ystart": y + 1, "xsize": nx, "ysize": ny,
        "fastaxis": setup.fastaxis, "slowaxis": 2,
    }  # fmt: skip


def _times(setup: Setup, shot: Shot, n_ints: int) -> dict[str, object]:
    """Return the keywords that say when and how long light was taken."""
    begin, duration = shot.start.mjd, setup.exposure_s
    integration, middle = duration / n_ints, begin + duration / 172800
    group = integration / setup.n_groups
    times = {
        "start_time": begin, "mid_time": middle, "end_time": begin + duration / 86400,
        "start_time_mjd": begin, "mid_time_mjd": middle, "end_time_mjd": begin + duration / 86400,
        "nints": n_ints, "ngroups": setup.n_groups, "frame_time": group, "group_time": group,
        "integration_start": shot.first_integration,
        "integration_end": shot.first_integration + n_ints - 1,
        "integration_time": integration,
    }  # fmt: skip
    names = ("exposure_time", "effective_exposure_time", "measurement_time", "duration")
    segment = {"segment_number": shot.segment} if shot.segment else {}
    return {**times, **dict.fromkeys((*names, "elapsed_exposure_time"), duration), **segment}


def _fill_pointing(meta: ObjectNode, setup: Setup, pointing: Pointing) -> None:
    wcs = meta.wcsinfo
    wcs.ra_ref, wcs.dec_ref = wcs.crval1, wcs.crval2 = pointing.ra_deg, pointing.dec_deg
    wcs.v2_ref, wcs.v3_ref = pointing.v2_arcsec, pointing.v3_arcsec
    wcs.roll_ref, wcs.v3yangle = pointing.roll_deg, setup.detector.angle_deg
    wcs.crpix2, wcs.crpix1 = ((size + 1) / 2 for size in setup.shape)
    wcs.siaf_xref_sci, wcs.siaf_yref_sci = wcs.crpix1, wcs.crpix2
    wcs.cdelt1 = wcs.cdelt2 = setup.detector.scale_arcsec / 3600
    angle = np.radians(pointing.roll_deg + setup.detector.angle_deg)
    wcs.pc1_1, wcs.pc1_2 = -np.cos(angle), np.sin(angle)
    wcs.pc2_1, wcs.pc2_2 = np.sin(angle), np.cos(angle)
    corners = " ".join(f"{ra:.9f} {dec:.9f}" for ra, dec in setup.corners_deg(pointing))
    wcs.s_region = f"POLYGON ICRS  {corners}"
    meta.pointing.ra_v1, meta.pointing.dec_v1 = map(float, pointing.to_sky(0.0, 0.0))
    meta.pointing.pa_v3 = pointing.roll_deg
