"""What one exposure of the embedded sky sees, and what hits the detector meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from .detector import BORDER_PIX, DETECTOR_PIX, Event, Maps, make_ramp, one_over_f, saturates
from .headers import Shot
from .scene import FILTERS, render_rate
from .setups import FRAME_TIME_S, ROLL_DEG, Setup, sky_setup

# x, y and DN/s of pixels that are hot and in no mask.
HotPixels = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True)
class Exposure:
    """One exposure: what was commanded and where the telescope really pointed."""

    filter_name: str
    size: int
    groups: int
    integrations: int
    program: int
    sequence: int
    number: int
    total: int
    start_s: float
    target: tuple[float, float]
    dither: tuple[float, float]
    commanded: tuple[float, float]
    true: tuple[float, float]

    @property
    def setup(self) -> Setup:
        """What all exposures in the filter share."""
        return sky_setup(self.filter_name, self.size, self.groups, self.integrations)

    @property
    def shot(self) -> Shot:
        """What its header says."""
        keywords = {
            "visit.total_exposures": self.total,
            **dict.fromkeys(("dither.primary_points", "dither.total_points"), self.total),
            "dither.dither_points": self.total,
            "dither.x_offset": self.dither[0],
            "dither.y_offset": self.dither[1],
            **dict.fromkeys(("target.ra", "target.proposer_ra"), self.target[0]),
            **dict.fromkeys(("target.dec", "target.proposer_dec"), self.target[1]),
        }
        return Shot(
            self.number,
            self.setup.pointing(self.commanded, ROLL_DEG),
            start_s=self.start_s,
            program=self.program,
            group=f"{2 * self.sequence:02d}",
            target="SANDBOX-CLUMP",
            keywords=keywords,
        )

    @property
    def detector(self) -> str:
        """Name of the detector."""
        return FILTERS[self.filter_name].detector

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"{self.shot.root(self.setup)}_uncal.fits"

    def to_pixel(
        self, ra_deg: np.ndarray, dec_deg: np.ndarray, *, commanded: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y in pixels of the frame, from 0."""
        place = self.commanded if commanded else self.true
        return self.setup.to_pixel(self.setup.pointing(place, ROLL_DEG), ra_deg, dec_deg)


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
    setup = exposure.setup
    maps, parts = setup.maps(), setup.electronics
    arguments = (exposure.filter_name, exposure.to_pixel, setup.detector.scale_arcsec)
    light = render_rate(sources, *arguments, exposure.size, setup.dn_per_jansky)
    light += sky_mjysr / setup.photmjsr
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
