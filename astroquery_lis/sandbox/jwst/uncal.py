"""Uncalibrated exposures, with the names and keywords that MAST's have."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import Table
from astropy.time import Time, TimeDelta

from .detector import (
    BORDER_PIX,
    DETECTOR_PIX,
    DETECTORS,
    ELECTRONICS,
    Event,
    Maps,
    Pointing,
    detector_maps,
    first_pixel,
    make_ramp,
    one_over_f,
    saturates,
)
from .references import pixel_sr
from .scene import FILTERS, render_rate

if TYPE_CHECKING:
    from stdatamodels.properties import ObjectNode

# x, y and DN/s of pixels that are hot and in no mask.
HotPixels = tuple[np.ndarray, np.ndarray, np.ndarray]

FRAME_TIME_S = 10.73677
READPATT = "RAPID"
# What is the same in every exposure.
_KEYWORDS = Path(__file__).parents[1] / "data" / "nircam_keywords.json"


@dataclass(frozen=True, slots=True)
class Exposure:
    """One exposure: what was commanded and where the telescope really pointed."""

    detector: str
    filter_name: str
    size: int
    groups: int
    integrations: int
    program: int
    sequence: int
    number: int
    total: int
    start: str
    target: tuple[float, float]
    dither: tuple[float, float]
    commanded: tuple[float, float]
    true: tuple[float, float]
    roll_deg: float
    subarray: str

    @property
    def name(self) -> str:
        """Name of the file."""
        visit = f"jw{self.program:05d}001001_{2 * self.sequence:02d}101_{self.number:05d}"
        return f"{visit}_{self.detector.lower()}_uncal.fits"

    @property
    def reference_v2v3(self) -> tuple[float, float]:
        """V2 and V3 (arcsec) of the middle of the frame."""
        # The reference pixel is the one that XREF_SCI names: size / 2 + 0.5, from 1.
        centre = first_pixel(self.size) + (self.size - 1) / 2
        v2, v3 = DETECTORS[self.detector].to_v2v3(centre, centre)
        return float(v2), float(v3)

    def pointing(self, *, commanded: bool = False) -> Pointing:
        """Return the true pointing, or the one in the keywords."""
        place = self.commanded if commanded else self.true
        return Pointing(*self.reference_v2v3, *place, self.roll_deg)

    def to_pixel(
        self, ra_deg: np.ndarray, dec_deg: np.ndarray, *, commanded: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y in pixels of the frame, from 0."""
        v2v3 = self.pointing(commanded=commanded).from_sky(ra_deg, dec_deg)
        x, y = DETECTORS[self.detector].from_v2v3(*v2v3)
        return x - first_pixel(self.size), y - first_pixel(self.size)

    def dn_per_jansky(self) -> float:
        """Return the DN/s of a source of 1 Jy."""
        return 1e-6 / (pixel_sr(self.detector) * FILTERS[self.filter_name].photmjsr)


def expose(
    exposure: Exposure,
    sources: Table,
    rng: np.random.Generator,
    *,
    sky_mjysr: float,
    cosmic_rays: int,
    hot_pixels: HotPixels,
    stripes_e: float,
    wisp: np.ndarray | None,
    snowballs: int,
) -> tuple[np.ndarray, list[tuple], list[tuple], np.ndarray]:
    """Return the counts of an exposure and what hit the detector."""
    maps = detector_maps(exposure.detector, exposure.size)
    parts = ELECTRONICS[exposure.detector]
    scale = DETECTORS[exposure.detector].scale_arcsec
    arguments = (exposure.filter_name, exposure.to_pixel, scale, exposure.size)
    light = render_rate(sources, *arguments, exposure.dn_per_jansky())
    light += sky_mjysr / FILTERS[exposure.filter_name].photmjsr
    light *= maps.flat
    if wisp is not None:
        light += wisp
    x, y, rate = hot_pixels
    light[y, x] += rate
    times = FRAME_TIME_S * np.arange(1, exposure.groups + 1)
    ramps, rays, balls = [], list[tuple](), list[tuple]()
    for integration in range(exposure.integrations):
        events: list[Event] = []
        for ray in _cosmic_rays(rng, cosmic_rays, exposure, light * parts.gain, hot_pixels, maps):
            rays.append((integration, *ray))
            group, *charge = ray
            x, y, electrons = np.array(charge)[:, None]
            events.append((group, x, y, electrons))
        for group, place_x, place_y, radius in _snowballs(rng, snowballs, exposure):
            balls.append((integration, group, place_x, place_y, radius))
            events.append((group, *_snowball_charge(place_x, place_y, radius, exposure.size)))
        rows = None
        if stripes_e:
            reads = [one_over_f(rng, exposure.size) for _ in times]
            rows = stripes_e * np.array(reads)
        ramps.append(make_ramp(light, maps, parts, times, rng, events=events, rows_e=rows))
    return np.stack(ramps), rays, balls, saturates(light, maps, times[-1])


def _cosmic_rays(
    rng: np.random.Generator,
    number: int,
    exposure: Exposure,
    rate_e: np.ndarray,
    hot_pixels: HotPixels,
    maps: Maps,
) -> list[tuple[int, int, int, int]]:
    """Return (group, x, y, electrons), each well above the noise of its pixel."""
    size, occupied = exposure.size, set(zip(*hot_pixels[:2], strict=True))
    rays: list[tuple[int, int, int, int]] = []
    edge = BORDER_PIX if size == DETECTOR_PIX else 2
    bright = np.quantile(rate_e, 0.97) if size > 32 else np.inf
    while len(rays) < number:
        x, y = map(int, rng.integers(edge, size - edge, 2))
        group = int(rng.integers(1, exposure.groups))
        electrons = round(float(1500 * 10 ** rng.uniform(0, 1)))
        if (x, y) in occupied or maps.bad[y, x] or rate_e[y, x] > bright:
            continue
        occupied.update((x + dx, y + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1))
        rays.append((group, x, y, electrons))
    return rays


def _snowballs(
    rng: np.random.Generator, number: int, exposure: Exposure
) -> list[tuple[int, int, int, float]]:
    edge = min(16, exposure.size // 4)
    balls = []
    for _ in range(number):
        group = int(rng.integers(1, exposure.groups))
        x, y = map(int, rng.integers(edge, exposure.size - edge, 2))
        balls.append((group, x, y, float(rng.uniform(4, 6))))
    return balls


def _snowball_charge(
    x: int, y: int, radius: float, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y and electrons of a disc that saturates and of the halo around it."""
    rows, columns = np.mgrid[:size, :size]
    apart = np.hypot(columns - x, rows - y)
    charge = np.where(apart <= radius, 2.0e5, 3000 * np.exp(-(apart - radius) / 2.5))
    charge[apart > 4 * radius] = 0
    rows, columns = np.nonzero(charge)
    return columns, rows, charge[rows, columns]


def write_uncal(path: Path, exposure: Exposure, counts: np.ndarray) -> None:
    """Write an exposure."""
    from stdatamodels.jwst import datamodels

    model = datamodels.Level1bModel(counts)
    for keyword, value in json.loads(_KEYWORDS.read_text(encoding="utf-8")).items():
        model[f"meta.{keyword}"] = value
    _fill_program(model.meta, exposure)
    _fill_instrument(model.meta, exposure)
    _fill_times(model.meta, exposure)
    _fill_pointing(model.meta, exposure)
    model.save(str(path))
    model.close()


def _fill_program(meta: ObjectNode, exposure: Exposure) -> None:
    program, group = f"{exposure.program:05d}", f"{2 * exposure.sequence:02d}"
    meta.filename = exposure.name
    observation = meta.observation
    observation.program_number, observation.visit_group = program, group
    observation.exposure_number = str(exposure.number)
    observation.visit_id = f"{program}001001"
    observation.obs_id = f"V{program}001001P0000000{group}101"
    meta.visit.total_exposures = exposure.total
    meta.visit.start_time = exposure.start.replace("T", " ")
    meta.target.ra, meta.target.dec = exposure.target
    meta.target.proposer_ra, meta.target.proposer_dec = exposure.target


def _fill_instrument(meta: ObjectNode, exposure: Exposure) -> None:
    row, first = DETECTORS[exposure.detector], first_pixel(exposure.size) + 1
    instrument, sub, dither = meta.instrument, meta.subarray, meta.dither
    instrument.detector, instrument.channel, instrument.module = row.name, row.channel, row.module
    instrument.filter = exposure.filter_name
    sub.name = exposure.subarray
    sub.xstart = sub.ystart = sub.detxcor = sub.detycor = first
    sub.xsize = sub.ysize = sub.detxsiz = sub.detysiz = exposure.size
    dither.primary_points = dither.total_points = dither.dither_points = exposure.total
    dither.position_number = exposure.number
    dither.x_offset, dither.y_offset = exposure.dither
    suffix = "A5" if row.name == "NRCALONG" else row.name.removeprefix("NRC")
    meta.aperture.name = meta.aperture.pps_name = f"NRC{suffix}_{exposure.subarray}"


def _fill_times(meta: ObjectNode, exposure: Exposure) -> None:
    start = Time(exposure.start, scale="utc")
    integration = exposure.groups * FRAME_TIME_S
    duration = exposure.integrations * integration
    middle, end = (start + TimeDelta(part * duration, format="sec") for part in (0.5, 1.0))
    observation, timing = meta.observation, meta.exposure
    observation.date, observation.time = start.isot.split("T")
    observation.date_beg, observation.date_end = start.isot, end.isot
    timing.start_time = timing.start_time_mjd = start.mjd
    timing.mid_time = timing.mid_time_mjd = middle.mjd
    timing.end_time = timing.end_time_mjd = end.mjd
    timing.readpatt, timing.noutputs = READPATT, noutputs(exposure.size)
    timing.nints = timing.integration_end = exposure.integrations
    timing.ngroups = exposure.groups
    timing.frame_time = timing.group_time = FRAME_TIME_S
    timing.integration_time, timing.exposure_time = integration, duration
    timing.effective_exposure_time = timing.measurement_time = duration
    timing.duration = timing.elapsed_exposure_time = duration
    timing.sca_num = DETECTORS[exposure.detector].sca_number


def noutputs(size: int) -> int:
    """Return how many amplifiers read a frame."""
    return 4 if size == DETECTOR_PIX else 1


def _fill_pointing(meta: ObjectNode, exposure: Exposure) -> None:
    wcs, centre = meta.wcsinfo, (exposure.size + 1) / 2
    wcs.ra_ref, wcs.dec_ref = exposure.commanded
    wcs.v2_ref, wcs.v3_ref = exposure.reference_v2v3
    wcs.roll_ref, wcs.v3yangle = exposure.roll_deg, DETECTORS[exposure.detector].angle_deg
    wcs.crpix1 = wcs.crpix2 = wcs.siaf_xref_sci = wcs.siaf_yref_sci = centre
    wcs.crval1, wcs.crval2 = exposure.commanded
    scale = DETECTORS[exposure.detector].scale_arcsec / 3600
    wcs.cdelt1 = wcs.cdelt2 = scale
    angle = np.radians(exposure.roll_deg + DETECTORS[exposure.detector].angle_deg)
    wcs.pc1_1, wcs.pc1_2 = -np.cos(angle), np.sin(angle)
    wcs.pc2_1, wcs.pc2_2 = np.sin(angle), np.cos(angle)
    pointing = exposure.pointing(commanded=True)
    corners = np.array([[1, 1], [exposure.size, 1], [exposure.size] * 2, [1, exposure.size]]) - 1.0
    first = first_pixel(exposure.size)
    v2v3 = DETECTORS[exposure.detector].to_v2v3(*(corners.T + first))
    text = " ".join(f"{ra:.9f} {dec:.9f}" for ra, dec in zip(*pointing.to_sky(*v2v3), strict=True))
    wcs.s_region = f"POLYGON ICRS  {text}"
    v1_ra, v1_dec = (float(angle) for angle in pointing.to_sky(0.0, 0.0))
    meta.pointing.ra_v1, meta.pointing.dec_v1 = v1_ra, v1_dec
    meta.pointing.pa_v3 = exposure.roll_deg
