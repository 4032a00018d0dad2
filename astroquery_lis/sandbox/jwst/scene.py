"""What JWST sees of the embedded sky and of stars that only it sees, and what hits the detector.

The AB magnitude of a source in a JWST filter is interpolated, linearly in the logarithm of the
wavelength, between its magnitudes in z, W1 and W2.  Stars that Gaia sees have moved since its
epoch.  The sources that are not in the Legacy Survey are stars of the same AB magnitude in every
JWST filter; they are there so that small frames have enough to align and to measure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import Table
from astropy.time import Time

from ..._typing import Keywords
from .. import sky
from ..measurements import measurements
from ..measurements import sources as legacy_sources
from ..sky import ellipse_matrix, sersic_components
from .modes import Shot
from .setups import (
    BORDER_PIX,
    DETECTOR_PIX,
    FILTERS,
    FRAME_TIME_S,
    ROLL_DEG,
    Event,
    Maps,
    Setup,
    add_star,
    box,
    make_ramp,
    offset_position,
    saturates,
    sky_setup,
)

# From RA and Dec (deg) to x and y in pixels of a frame.
ToPixel = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

_SEED = 20220712
_BANDS = {"z": 0.926, "w1": 3.353, "w2": 4.603}
_RING_ARCSEC = ((0.0, 1.9, 5), (1.9, 4.0, 7), (4.0, 16.0, 36), (16.0, 90.0, 260))
_APART_ARCSEC = 0.62


def _legacy_magnitude(values: dict[str, np.ndarray], wavelength_um: float) -> np.ndarray:
    """Return AB magnitudes at a wavelength between those of z, W1 and W2."""
    magnitudes = [sky.ZERO_POINT - 2.5 * np.log10(values[f"flux_{band}"]) for band in _BANDS]
    logs, place = np.log(list(_BANDS.values())), np.log(wavelength_um)
    segment = 0 if place < logs[1] else 1
    share = (place - logs[segment]) / (logs[segment + 1] - logs[segment])
    return magnitudes[segment] * (1 - share) + magnitudes[segment + 1] * share


def _moved(values: dict[str, np.ndarray], date: str) -> tuple[np.ndarray, np.ndarray]:
    """Return RA and Dec of the Legacy sources at a date, after their proper motion."""
    rows = measurements("dr10", "south")
    years = Time(date).jyear - np.where(rows["ref_epoch"] > 0, rows["ref_epoch"], 2016.0)
    ra, dec = values["ra"].astype(float), values["dec"].astype(float)
    # The rows are those of all sources, in their order.
    moved = ra + years * rows["pmra"] / 3.6e6 / np.cos(np.radians(dec))
    return moved % 360.0, dec + years * rows["pmdec"] / 3.6e6


def _only_jwst(
    ra_deg: float, dec_deg: float, legacy_ra: np.ndarray, legacy_dec: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return places (deg) and magnitudes of stars that only JWST sees, the inner ones first."""
    rng = np.random.default_rng(_SEED)
    cos = np.cos(np.radians(dec_deg))
    east = ((legacy_ra - ra_deg + 180) % 360 - 180) * cos * 3600
    north = (legacy_dec - dec_deg) * 3600
    near = np.hypot(east, north) < 100
    occupied = [np.array(place) for place in zip(east[near], north[near], strict=True)]
    places, magnitudes = [], []
    for inner, outer, number in _RING_ARCSEC:
        apart = _APART_ARCSEC if outer < 5 else 1.2
        for index in range(number):
            for _ in range(2000):
                radius, angle = np.sqrt(rng.uniform(inner**2, outer**2)), rng.uniform(0, 2 * np.pi)
                place = radius * np.array([np.sin(angle), np.cos(angle)])
                if all(np.hypot(*(place - other)) > apart for other in occupied):
                    break
            else:
                continue
            occupied.append(place)
            places.append(place)
            magnitudes.append(20.2 + 1.6 * (index * 3 % number) / number)
    offsets = np.array(places)
    ra = (ra_deg + offsets[:, 0] / 3600 / cos) % 360.0
    return ra, dec_deg + offsets[:, 1] / 3600, np.array(magnitudes)


def scene(ra_deg: float, dec_deg: float, date: str, filters: Sequence[str]) -> Table:
    """Return every source, at its place at a date, with its fluxes in JWST filters."""
    values = legacy_sources()
    real = values["type"] != "DUP"
    ra, dec = (place[real] for place in _moved(values, date))
    values = {name: column[real] for name, column in values.items()}
    extra_ra, extra_dec, extra_mag = _only_jwst(ra_deg, dec_deg, ra, dec)
    number, total = len(ra), len(ra) + len(extra_ra)
    table = Table()
    table["id"] = np.arange(total)
    table["legacy_id"] = np.full(total, -1)
    table["legacy_id"][:number] = values["id"]
    table["ra"] = np.concatenate([ra, extra_ra]) * u.deg
    table["dec"] = np.concatenate([dec, extra_dec]) * u.deg
    table["kind"] = np.full(total, "star", dtype="U6")
    table["kind"][:number] = np.where(values["type"] == "PSF", "star", "galaxy")
    for name in ("sersic", "shape_r", "shape_e1", "shape_e2"):
        table[name] = np.concatenate([values[name], np.zeros(len(extra_ra))])
    table["shape_r"].unit = u.arcsec
    for name in filters:
        own = _legacy_magnitude(values, FILTERS[name].wavelength_um)
        table[f"mag_{name}"] = np.concatenate([own, extra_mag])
        table[f"flux_{name}"] = 3631.0 * 10 ** (-0.4 * table[f"mag_{name}"]) * u.Jy
    table.meta["COMMENT"] = "Simulated sources; none of them is in the sky."
    return table


def _add_galaxy(image: np.ndarray, x: float, y: float, rate: float, covariance: np.ndarray) -> None:
    """Add an elliptical Gaussian; a pixel's own width is added to its covariance."""
    covariance = covariance + np.eye(2) / 12
    half_x, half_y = 6 * np.sqrt(np.diag(covariance))
    x0, x1 = box(x, half_x, image.shape[1])
    y0, y1 = box(y, half_y, image.shape[0])
    if x0 == x1 or y0 == y1:
        return
    (a, b), (_, c) = np.linalg.inv(covariance)
    dx, dy = np.arange(x0, x1)[None, :] - x, np.arange(y0, y1)[:, None] - y
    shape = np.exp(-0.5 * (a * dx**2 + 2 * b * dx * dy + c * dy**2))
    image[y0:y1, x0:x1] += rate * shape / (2 * np.pi * np.sqrt(np.linalg.det(covariance)))


def render_rate(
    sources: Table,
    filter_name: str,
    to_pixel: ToPixel,
    scale_arcsec: float,
    size: int,
    dn_per_jansky: float,
) -> np.ndarray:
    """Return the light of the sources, DN/s per pixel."""
    image = np.zeros((size, size))
    ra, dec = np.asarray(sources["ra"]), np.asarray(sources["dec"])
    x, y = to_pixel(ra, dec)
    rates = np.asarray(sources[f"flux_{filter_name}"]) * dn_per_jansky
    sigma = FILTERS[filter_name].sigma_arcsec / scale_arcsec
    widest = 60 * np.asarray(sources["shape_r"]) / scale_arcsec + 10 * sigma
    near = (x > -widest) & (x < size + widest) & (y > -widest) & (y < size + widest)
    for row in np.flatnonzero(near):
        if sources["kind"][row] == "star":
            add_star(image, x[row], y[row], rates[row], sigma)
            continue
        jacobian = _jacobian(to_pixel, ra[row], dec[row])
        spread = ellipse_matrix(sources["shape_e1"][row], sources["shape_e2"][row])
        spread = jacobian @ spread * float(sources["shape_r"][row])
        spread = spread @ spread.T
        for weight, width in sersic_components(float(sources["sersic"][row])):
            covariance = width**2 * spread + sigma**2 * np.eye(2)
            _add_galaxy(image, x[row], y[row], rates[row] * weight, covariance)
    return image


def _jacobian(to_pixel: ToPixel, ra_deg: float, dec_deg: float) -> np.ndarray:
    """Return the matrix from (east, north) in arcsec to (x, y) in pixels at a place."""
    step = 0.5 / 3600
    east = step / np.cos(np.radians(dec_deg))
    x, y = to_pixel(ra_deg + np.array([east, -east, 0, 0]), dec_deg + np.array([0, 0, step, -step]))
    return np.array([[x[0] - x[1], x[2] - x[3]], [y[0] - y[1], y[2] - y[3]]])


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

    def to_pixel(self, ra_deg: np.ndarray, dec_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where places truly are: x and y in pixels of the frame, from 0."""
        return self.setup.to_pixel(self.setup.pointing(self.true, ROLL_DEG), ra_deg, dec_deg)


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


def one_over_f(rng: np.random.Generator, n_rows: int) -> np.ndarray:
    """Return an offset for each row of one read: noise of power 1/f, rms 1."""
    frequency = np.fft.rfftfreq(2 * n_rows)
    frequency[0] = frequency[1]
    amplitude = rng.normal(size=(2, len(frequency)))
    signal = np.fft.irfft((amplitude[0] + 1j * amplitude[1]) / np.sqrt(frequency), 2 * n_rows)
    signal = signal[:n_rows] - signal[:n_rows].mean()
    return signal / signal.std()


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
