"""What JWST sees: the stars and galaxies of the embedded sky, and some that only JWST sees.

The AB magnitude of a source in a JWST filter is interpolated, linearly in the logarithm of the
wavelength, between its magnitudes in z, W1 and W2.  Stars that Gaia sees have moved since its
epoch.  The sources that are not in the Legacy Survey are stars of the same AB magnitude in every
JWST filter; they are there so that small frames have enough to align and to measure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import astropy.units as u
import numpy as np
from astropy.table import Table
from astropy.time import Time
from scipy.special import erf

from .. import sky
from ..measurements import measurements
from ..measurements import sources as legacy_sources
from ..sky import ellipse_matrix, sersic_components

# From RA and Dec (deg) to x and y in pixels of a frame.
ToPixel = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

_SEED = 20220712
_BANDS = {"z": 0.926, "w1": 3.353, "w2": 4.603}
_RING_ARCSEC = ((0.0, 1.9, 5), (1.9, 4.0, 7), (4.0, 16.0, 36), (16.0, 90.0, 260))
_APART_ARCSEC = 0.62


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


def _box(centre: float, half: float, size: int) -> tuple[int, int]:
    """Return the range of pixels within `half` of `centre` that are inside the image."""
    first = max(int(np.ceil(centre - half)), 0)
    return first, max(min(int(np.floor(centre + half)) + 1, size), first)


def add_star(image: np.ndarray, x: float, y: float, rate: float, sigma: float) -> None:
    """Add a round Gaussian, integrated over each pixel."""
    half = 7 * sigma + 1
    x0, x1 = _box(x, half, image.shape[1])
    y0, y1 = _box(y, half, image.shape[0])
    parts = []
    for centre, first, last in ((x, x0, x1), (y, y0, y1)):
        edges = (np.arange(first, last + 1) - 0.5 - centre) / (np.sqrt(2) * sigma)
        parts.append(np.diff(erf(edges)) / 2)
    image[y0:y1, x0:x1] += rate * np.outer(parts[1], parts[0])


def _add_galaxy(image: np.ndarray, x: float, y: float, rate: float, covariance: np.ndarray) -> None:
    """Add an elliptical Gaussian; a pixel's own width is added to its covariance."""
    covariance = covariance + np.eye(2) / 12
    half_x, half_y = 6 * np.sqrt(np.diag(covariance))
    x0, x1 = _box(x, half_x, image.shape[1])
    y0, y1 = _box(y, half_y, image.shape[0])
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
