"""What one exposure of the embedded sky sees, and what hits the detector meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from ..._typing import Keywords
from .detector import (
    BORDER_PIX,
    DETECTOR_PIX,
    Event,
    Maps,
    make_ramp,
    offset_position,
    one_over_f,
    saturates,
)
from .headers import Shot
from .scene import render_rate
from .setups import FRAME_TIME_S, ROLL_DEG, Setup, sky_setup

# x, y and DN/s of pixels that are hot and in no mask.
HotPixels = tuple[np.ndarray, np.ndarray, np.ndarray]

_SKY_MJYSR = 0.12
_OVERHEAD_S = 60.0


@dataclass(frozen=True, slots=True)
class Exposure:
    """One exposure: ``shot`` is what was commanded, ``true`` where the telescope really pointed.

    ``error`` (east, north) is by how much they differ, in arcsec.
    """

    setup: Setup
    shot: Shot
    true: tuple[float, float]
    error: tuple[float, float]

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"{self.shot.root(self.setup)}_uncal.fits"

    @property
    def detector(self) -> str:
        """Name of the detector."""
        return self.setup.detector.name

    @property
    def filter_name(self) -> str:
        """Name of the filter."""
        return self.setup.instrument["filter"]

    @property
    def size(self) -> int:
        """Side of the frame in pixels."""
        return self.setup.shape[0]

    def to_pixel(
        self, ra_deg: np.ndarray, dec_deg: np.ndarray, *, commanded: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y in pixels of the frame, from 0."""
        pointing = self.shot.pointing if commanded else self.setup.pointing(self.true, ROLL_DEG)
        return self.setup.to_pixel(pointing, ra_deg, dec_deg)


def _dithers(number: int, size: int) -> list[tuple[float, float]]:
    """Return offsets (east, north) in arcsec: the middle, and a ring of unequal steps around it."""
    radius = 0.38 * np.sqrt(size / 128)
    angles = np.radians(17 + 360 * np.arange(number - 1) / max(number - 1, 1))
    radii = radius * (1 + 0.11 * np.arange(number - 1) / max(number - 1, 1))
    ring = zip(radii * np.sin(angles), radii * np.cos(angles), strict=True)
    return [(0.0, 0.0), *((float(east), float(north)) for east, north in ring)]


def planned_exposures(options: Keywords) -> list[Exposure]:
    """Return the exposures that options of `simulate` mean, in the order of their times."""
    rng = np.random.default_rng([options["seed"], 1])
    size, (ra, dec), total = options["size"], options["target"], options["dithers"]
    exposures: list[Exposure] = []
    for sequence, name in enumerate(options["filters"], start=1):
        setup = sky_setup(name, size, options["groups"], options["integrations"])
        for number, dither in enumerate(_dithers(total, size), start=1):
            angle, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0.25, 1))
            radius *= options["pointing_errors_arcsec"] * (number > 1)
            east, north = options["offset_arcsec"]
            east, north = east + radius * np.sin(angle), north + radius * np.cos(angle)
            # A reference point only arcsec away: the offsets add.
            true = offset_position(ra, dec, dither[0] - east, dither[1] - north)
            shot = Shot(
                number,
                setup.pointing(offset_position(ra, dec, *dither), ROLL_DEG),
                start_s=len(exposures) * (setup.exposure_s + _OVERHEAD_S),
                program=options["program"],
                group=f"{2 * sequence:02d}",
                target="SANDBOX-CLUMP",
                keywords={
                    "visit.total_exposures": total,
                    "dither.primary_points": total,
                    "dither.total_points": total,
                    "dither.dither_points": total,
                    "dither.x_offset": dither[0],
                    "dither.y_offset": dither[1],
                    "target.ra": ra,
                    "target.dec": dec,
                    "target.proposer_ra": ra,
                    "target.proposer_dec": dec,
                },
            )
            place, error = (float(true[0]), float(true[1])), (float(east), float(north))
            exposures.append(Exposure(setup, shot, place, error))
    return exposures


def expose(
    exposure: Exposure,
    sources: Table,
    rng: np.random.Generator,
    *,
    options: Keywords,
    hot_pixels: HotPixels,
    wisp: np.ndarray | None,
) -> tuple[np.ndarray, list[tuple], list[tuple], np.ndarray]:
    """Return the counts of an exposure and what hit the detector."""
    setup = exposure.setup
    maps, parts = setup.maps(), setup.electronics
    arguments = (exposure.filter_name, exposure.to_pixel, setup.detector.scale_arcsec)
    light = render_rate(sources, *arguments, exposure.size, setup.dn_per_jansky)
    light += _SKY_MJYSR / setup.photmjsr
    light *= maps.flat
    if wisp is not None:
        light += wisp
    x, y, rate = hot_pixels
    light[y, x] += rate
    times = FRAME_TIME_S * np.arange(1, setup.n_groups + 1)
    ramps, rays, balls = [], list[tuple](), list[tuple]()
    for integration in range(options["integrations"]):
        events: list[Event] = []
        n_rays, rate_e = options["cosmic_rays"], light * parts.gain
        for ray in _cosmic_rays(rng, n_rays, exposure, rate_e, hot_pixels, maps):
            rays.append((integration, *ray))
            group, *charge = ray
            x, y, electrons = np.array(charge)[:, None]
            events.append((group, x, y, electrons))
        for group, place_x, place_y, radius in _snowballs(rng, options["snowballs"], exposure):
            balls.append((integration, group, place_x, place_y, radius))
            events.append((group, *_snowball_charge(place_x, place_y, radius, exposure.size)))
        rows = None
        if options["stripes_e"]:
            reads = [one_over_f(rng, exposure.size) for _ in times]
            rows = options["stripes_e"] * np.array(reads)
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
        group = int(rng.integers(1, exposure.setup.n_groups))
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
        group = int(rng.integers(1, exposure.setup.n_groups))
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
