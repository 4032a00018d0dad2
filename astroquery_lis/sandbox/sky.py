"""The scene: which sources there are, how deep each place was observed, and how sources look.

The sources are a table; everything else is a function of sky position, so that neighbouring bricks
agree where they overlap and every build is the same.  A new `SCENE_VERSION` tells a changed scene.

A point source is the PSF of its band; a galaxy is a Sersic profile, written as Gaussians and
convolved with the PSF by adding covariances.  Pixels are sampled at their centres: every Gaussian
is wider than a pixel, so the sum over pixels is the flux to 1e-6.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table
from numpy.typing import ArrayLike
from scipy.optimize import brentq, nnls
from scipy.special import gammaincinv

from ..survey import bricks
from ..survey.pixel_grids import Box, TangentGrid
from ..survey.releases import PIXEL_SCALE_ARCSEC

SCENE_VERSION = "2"

# A group of galaxies at "field", a dozen stars within 6 arcsec at "clump", the stars that are named
# like their places, and many at random; the fainter a galaxy, the farther it is.
_SOURCES = Path(__file__).parent / "data" / "scene.ecsv"

# Named places: RA, Dec in degrees.
POSITIONS_DEG = MappingProxyType(
    {
        "field": (45.090, 0.062),
        "star": (45.1312, 0.0047),
        "corner": (45.25, 0.125),
        "ra0": (0.0, 0.02),
        "split": (180.15, 32.375),
        "hole": (45.205, -0.058),
        "blank": (45.055, -0.085),
        "clump": (45.160, -0.068),
        "bright": (45.035, 0.015),
        "off": (95.0, -30.0),
        # Half of a box about it was never observed; no brick is beyond the survey's edge; and no
        # exposure in z is in the gap.
        "half": (45.25 + 320 * PIXEL_SCALE_ARCSEC / 3600, 0.125),
        "edge": (45.0005, 0.03),
        "gap": (45.198, -0.045),
    }
)

# The bricks of each (release, region); 1801p325 is in both, as bricks of the overlap strip are.
BRICKS = MappingProxyType(
    {
        ("dr10", "south"): (
            "0451p000",
            "0453p000",
            "0451p002",
            "0453p002",
            "0001p000",
            "3598p000",
            "1801p322",
            "1801p325",
        ),
        ("dr9", "north"): ("1801p325",),
    }
)

# The brick that was observed as a whole, as far as its images reach.
WHOLE_BRICK = "0451p000"

# Where else there are observations: RA and Dec (deg), half width (pixels).
WINDOWS = (
    (*POSITIONS_DEG["corner"], 320),
    (*POSITIONS_DEG["ra0"], 320),
    (*POSITIONS_DEG["split"], 320),
    (45.25, 0.0, 220),
    (180.15, 32.5, 220),
)

# AB magnitude of a nanomaggy.
ZERO_POINT = 22.5

# Noise of one exposure, nanomaggies per coadd pixel.
NOISE_SIGMA = MappingProxyType({"g": 0.004, "r": 0.006, "i": 0.010, "z": 0.013})

# Variance that a source adds per nanomaggy in a pixel, nanomaggies.
POISSON_NMGY = 1e-5

# Nanomaggies per pixel beyond which no exposure is good.
SATURATION = 60.0

# What is added to a Vega magnitude of WISE to make it AB, and the extinction per E(B-V), mag: not
# those of the client, which is tested against them.
VEGA_TO_AB = MappingProxyType({"W1": 2.699, "W2": 3.339, "W3": 5.174, "W4": 6.620})
EXTINCTION = MappingProxyType(
    {
        "g": 3.214,
        "r": 2.165,
        "i": 1.592,
        "z": 1.211,
        "w1": 0.184,
        "w2": 0.113,
        "w3": 0.0241,
        "w4": 0.00910,
    }
)

SIZE_PIX = bricks.IMAGE_SIZE_PIX
# Height of the strips in which a whole brick is made, which bounds the memory.
_STRIP_PIX = 150

_HOLE_HALF_ARCSEC = (30.0, 20.0)
_GAP_BAND = "z"
_GAP_HALF_ARCSEC = (12.0, 12.0)


def magnitudes(flux_nmgy: np.ndarray) -> np.ndarray:
    """Return AB magnitudes."""
    return ZERO_POINT - 2.5 * np.log10(flux_nmgy)


def flux(magnitude: float) -> float:
    """Return nanomaggies."""
    return 10 ** ((ZERO_POINT - magnitude) / 2.5)


def positions() -> dict[str, SkyCoord]:
    """Return the named places of the scene."""
    return {
        name: SkyCoord(ra, dec, unit="deg", frame="icrs")
        for name, (ra, dec) in POSITIONS_DEG.items()
    }


def exposures(ra_deg: np.ndarray, dec_deg: np.ndarray, band: str) -> np.ndarray:
    """Return how many exposures each place has: 1 or 2, in a chequered pattern; 0 in the hole."""
    shift = 0.013 * "griz".index(band)
    odd = np.floor((ra_deg + shift) / 0.053).astype(np.int16)
    odd += np.floor((dec_deg + 90.0 + shift) / 0.071).astype(np.int16)
    unexposed = in_hole(ra_deg, dec_deg)
    if band == _GAP_BAND:
        unexposed |= _in_rectangle(ra_deg, dec_deg, "gap", _GAP_HALF_ARCSEC)
    return np.where(unexposed, 0, 1 + odd % 2).astype(np.int16)


def in_hole(ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    """Return which places are in the 60 by 40 arcsec rectangle that was never observed."""
    return _in_rectangle(ra_deg, dec_deg, "hole", _HOLE_HALF_ARCSEC)


def _in_rectangle(
    ra_deg: np.ndarray, dec_deg: np.ndarray, place: str, half_arcsec: tuple[float, float]
) -> np.ndarray:
    ra0, dec0 = POSITIONS_DEG[place]
    ra_deg, dec_deg = np.asarray(ra_deg), np.asarray(dec_deg)
    inside = np.abs(dec_deg - dec0) * 3600 < half_arcsec[1]
    # Right ascensions only where they decide: this is asked for millions of pixels.
    east_deg = (ra_deg[inside] - ra0 + 180.0) % 360.0 - 180.0
    east_arcsec = east_deg * np.cos(np.radians(dec0)) * 3600
    inside[inside] = np.abs(east_arcsec) < half_arcsec[0]
    return inside


def inverse_variance_texture(ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    """Return a factor, 0.98 to 1.02, that varies from pixel to pixel; 1 west of RA 45.125."""
    varied = ((ra_deg >= 45.125) & (ra_deg < 46)) | ((ra_deg >= 180) & (ra_deg < 181))
    ra, dec = ra_deg[varied], dec_deg[varied]
    factor = np.ones(varied.shape)
    waves = np.sin(ra * (2 * np.pi * 3600 / 1.9)) * np.sin(dec * (2 * np.pi * 3600 / 1.3))
    factor[varied] = 1 + 0.02 * waves
    return factor


def mask_circles(sources: Table) -> list[tuple[str, float, float, float]]:
    """Return the circles that bright stars and the largest galaxy mask."""
    circles = []
    for row in sources:
        if row["type"] == "PSF" and row["flux_g"] > flux(16.0):
            magnitude = float(magnitudes(row["flux_g"]))
            # legacypipe's radius for a star of this magnitude, in its pixels.
            radius = PIXEL_SCALE_ARCSEC * min(1800.0, 150.0 * 2.5 ** ((11.0 - magnitude) / 3.0))
            circles.append(("MEDIUM", row["ra"], row["dec"], radius))
            if magnitude < 13.0:
                circles.append(("BRIGHT", row["ra"], row["dec"], radius / 2))
    large = sources[np.argmax(sources["shape_r"])]
    circles.append(("GALAXY", large["ra"], large["dec"], 2.5 * float(large["shape_r"])))
    return circles


@cache
def _truth() -> Table:
    table = Table.read(_SOURCES, format="ascii.ecsv", fill_values=[])
    table.add_column(np.arange(len(table)), name="id", index=0)
    table.meta["COMMENT"] = "Simulated sources; none of them is in the sky."
    return table


def truth() -> Table:
    """Return every source of the scene.

    Returns
    -------
    `~astropy.table.Table`
        Columns ``id``, ``ra`` and ``dec`` (deg), ``type`` (PSF, REX, EXP, DEV or SER),
        ``sersic``, ``shape_r`` (half-light radius, arcsec), ``shape_e1``, ``shape_e2``,
        ``flux_g`` to ``flux_z`` and ``flux_w1`` to ``flux_w4`` (nanomaggies, AB), ``name`` (its
        role, where it has one), ``redshift`` (0 for stars).
    """
    return _truth().copy()


def windows_of(brick: str) -> list[Box]:
    """Return the boxes of a brick that were observed; they do not overlap."""
    if brick == WHOLE_BRICK:
        return strips((SIZE_PIX, SIZE_PIX))
    grid = bricks.brick_grid(bricks.parse_brick_name(brick))
    windows = []
    for ra, dec, half in WINDOWS:
        x, y = grid.to_pixel(ra, dec)
        if np.isfinite(x):
            windows.append(box_about(float(x), float(y), half))
    windows = [window for window in windows if 0 not in window.shape]
    # What the whole brick shows, its neighbours show too: bricks share their exposures.
    shared = _reach_of_whole_brick(grid)
    for window in windows:
        shared = [part for box in shared for part in beside(box, window)]
    return windows + shared


def box_about(x: float, y: float, half: int) -> Box:
    """Return the pixels of a brick's image that are so near a place; they may be none."""
    x, y = round(x), round(y)
    return Box(y - half, y + half, x - half, x + half).clipped(SIZE_PIX, SIZE_PIX)


def _reach_of_whole_brick(grid: TangentGrid) -> list[Box]:
    """Return the pixels of another brick's image that the image of the whole brick reaches."""
    sides = np.array([-0.5, SIZE_PIX - 0.5])
    whole = bricks.brick_grid(bricks.parse_brick_name(WHOLE_BRICK))
    x, y = grid.to_pixel(*whole.to_sky(sides, sides[:, None]))
    if not np.isfinite(x).all():
        return []
    y0, x0 = (int(np.floor(values.min() + 0.5)) for values in (y, x))
    y1, x1 = (int(np.ceil(values.max() + 0.5)) for values in (y, x))
    box = Box(y0, y1, x0, x1).clipped(SIZE_PIX, SIZE_PIX)
    return [] if 0 in box.shape else [box]


def beside(box: Box, window: Box) -> Iterator[Box]:
    """Yield the parts of a box that are not in a window."""
    y0, y1 = (min(max(y, box.y0), box.y1) for y in (window.y0, window.y1))
    x0, x1 = (min(max(x, box.x0), box.x1) for x in (window.x0, window.x1))
    parts = (
        box._replace(y1=y0),
        box._replace(y0=y1),
        Box(y0, y1, box.x0, x0),
        Box(y0, y1, x1, box.x1),
    )
    yield from (part for part in parts if 0 not in part.shape)


def strips(shape: tuple[int, int]) -> list[Box]:
    """Return the boxes of an image that was observed as a whole."""
    height, width = shape
    edges = range(0, height, _STRIP_PIX)
    return [Box(y0, min(y0 + _STRIP_PIX, height), 0, width) for y0 in edges]


PSF_CORE_SIGMA_ARCSEC = {"g": 0.618, "r": 0.536, "i": 0.495, "z": 0.495}
WISE_FWHM_ARCSEC = {"W1": 6.1, "W2": 6.4, "W3": 6.5, "W4": 12.0}
_WISE_PSF_WEIGHTS = (0.9, 0.1)
_WISE_WING_RATIO = 1.8
_PSF_WING_RATIO = 2.2
_PSF_WEIGHTS = (0.85, 0.15)
_CUT_SIGMA = 5.5
_TRUNCATION = 8.0

# Gaussians, as weights (they add up to 1) and sigmas.
Components = tuple[tuple[float, float], ...]


class Grid(Protocol):
    """A pixel grid, with pixels not larger than the PSF's sigma, or flux is lost."""

    @property
    def scale_deg(self) -> float:
        """Side of a pixel."""

    def to_pixel(self, ra_deg: np.ndarray, dec_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of places of the sky, counted from 0."""


def psf_components(band: str) -> Components:
    """Return the Gaussians of the PSF of a band."""
    core = PSF_CORE_SIGMA_ARCSEC[band]
    return tuple(zip(_PSF_WEIGHTS, (core, core * _PSF_WING_RATIO), strict=True))


@cache
def psf_fwhm_arcsec(band: str) -> float:
    """Return the full width at half maximum of the PSF of a band, arcsec."""
    return 2 * brentq(lambda radius: _psf_value(band, radius) - _psf_value(band, 0) / 2, 0, 5)


def _psf_value(band: str, radius_arcsec: float) -> float:
    return sum(
        weight / (2 * np.pi * sigma**2) * np.exp(-0.5 * (radius_arcsec / sigma) ** 2)
        for weight, sigma in psf_components(band)
    )


@cache
def wise_psf_components(band: str) -> Components:
    """Return the Gaussians of the PSF of a WISE band, which includes the pixel."""
    widths = (1.0, _WISE_WING_RATIO)

    def above_half(radius: float) -> float:
        return sum(
            weight / width**2 * (np.exp(-0.5 * (radius / width) ** 2) - 0.5)
            for weight, width in zip(_WISE_PSF_WEIGHTS, widths, strict=True)
        )

    core = WISE_FWHM_ARCSEC[band] / (2 * brentq(above_half, 0.5, 3))
    return tuple((weight, core * w) for weight, w in zip(_WISE_PSF_WEIGHTS, widths, strict=True))


def sum_of_squares(components: Iterable[tuple[float, float]]) -> float:
    """Return the integral of the square of a round mixture, per arcsec^2."""
    pairs = tuple(components)
    return sum(w1 * w2 / (2 * np.pi * (s1**2 + s2**2)) for w1, s1 in pairs for w2, s2 in pairs)


def psf_norm(band: str, pixel_scale_arcsec: float) -> float:
    """Return the sum over pixels of the squared PSF: point-source over pixel inverse variance."""
    return sum_of_squares(psf_components(band)) * pixel_scale_arcsec**2


def galaxy_norm(band: str, pixel_scale_arcsec: float) -> float:
    """Return what `psf_norm` is for the survey's 0.45 arcsec round exponential galaxy."""
    profile = [
        (weight * psf_weight, np.hypot(0.45 * sigma, psf_sigma))
        for weight, sigma in sersic_components(1.0)
        for psf_weight, psf_sigma in psf_components(band)
    ]
    return sum_of_squares(profile) * pixel_scale_arcsec**2


@cache
def sersic_components(index: float) -> Components:
    """Return a Sersic profile as round Gaussians, in units of its half-light radius."""
    radius = np.geomspace(0.01, 1.5 * _TRUNCATION, 300)
    b = gammaincinv(2 * index, 0.5)
    profile = np.where(radius < _TRUNCATION, np.exp(-b * (radius ** (1 / index) - 1)), 0)
    sigma = np.geomspace(0.015, 3.5, 18)
    basis = np.exp(-0.5 * (radius[:, None] / sigma) ** 2) / (2 * np.pi * sigma**2)
    # Equal steps of log radius, weighted by radius squared: the residual is then one of flux.
    weights, _ = nnls(basis * radius[:, None] ** 2, profile * radius**2)
    keep = weights > 1e-4 * weights.sum()
    weights, sigma = weights[keep] / weights[keep].sum(), sigma[keep]

    def inside(half_radius: float) -> float:
        return weights @ (1 - np.exp(-0.5 * (half_radius / sigma) ** 2)) - 0.5

    sigma = sigma / brentq(inside, 0.1, 5)
    return tuple(zip(weights.tolist(), sigma.tolist(), strict=True))


def ellipse_matrix(shape_e1: float, shape_e2: float) -> np.ndarray:
    """Return the matrix that makes the survey's ellipse from the unit circle, (east, north)."""
    size = np.hypot(shape_e1, shape_e2)
    angle = 0.5 * np.arctan2(shape_e2, shape_e1)
    major = np.array([np.sin(angle), np.cos(angle)])
    minor = np.array([np.cos(angle), -np.sin(angle)])
    return np.column_stack([major, minor * (1 - size) / (1 + size)])


def _pixels_per_arcsec(grid: Grid, ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    """Return the matrices from (east, north) in arcsec to (x, y) in pixels, shape (N, 2, 2)."""
    step = 1.0 / 3600
    # Differences over 2 arcsec of sky keep the rotation and scale of the projection there.
    east = step / np.cos(np.radians(dec_deg))
    ends = [
        np.array(grid.to_pixel(ra_deg + sign_ra * east, dec_deg + sign_dec * step))
        for sign_ra, sign_dec in ((1, 0), (-1, 0), (0, 1), (0, -1))
    ]
    return np.stack([(ends[0] - ends[1]) / 2, (ends[2] - ends[3]) / 2], axis=-1).transpose(1, 0, 2)


def _add_gaussian(
    image: np.ndarray, x: float, y: float, flux: float, covariance: np.ndarray
) -> None:
    """Add one Gaussian, as far as it is inside the image."""
    xx, xy, yy = covariance[0, 0], covariance[0, 1], covariance[1, 1]
    half_x, half_y = _CUT_SIGMA * np.sqrt(xx), _CUT_SIGMA * np.sqrt(yy)
    first_x = max(int(np.ceil(x - half_x)), 0)
    last_x = min(int(np.floor(x + half_x)) + 1, image.shape[1])
    first_y = max(int(np.ceil(y - half_y)), 0)
    last_y = min(int(np.floor(y + half_y)) + 1, image.shape[0])
    if first_x >= last_x or first_y >= last_y:
        return
    dx = np.arange(first_x, last_x) - x
    dy = np.arange(first_y, last_y) - y
    determinant = xx * yy - xy**2
    # exp of a sum is a product: two short vectors, and the cross term only where it is tilted.
    across = np.exp(-0.5 * yy / determinant * dx**2)
    along = np.exp(-0.5 * xx / determinant * dy**2) * (flux / (2 * np.pi * np.sqrt(determinant)))
    stamp = along[:, None] * across
    if abs(xy) > 1e-9 * xx:
        stamp *= np.exp(xy / determinant * dy[:, None] * dx)
    image[first_y:last_y, first_x:last_x] += stamp


def render(
    sources: Table, band: str, grid: Grid, *, x0: int = 0, y0: int = 0, shape: tuple[int, int]
) -> np.ndarray:
    """Return the noise-free picture of sources in a box of a pixel grid."""
    box = Box(y0, y0 + shape[0], x0, x0 + shape[1])
    return draw(sources, sources[f"flux_{band}"], psf_components(band), grid, box)


def draw(sources: Table, fluxes: ArrayLike, psf: Components, grid: Grid, box: Box) -> np.ndarray:
    """Return the same for fluxes and a PSF of one's own."""
    image = np.zeros(box.shape)
    if len(sources) == 0:
        return image
    ra, dec = (np.asarray(sources[name], dtype=float) for name in ("ra", "dec"))
    x, y = grid.to_pixel(ra, dec)
    fluxes = np.asarray(fluxes, dtype=float)
    scale_arcsec = grid.scale_deg * 3600
    blur = [(w, (s / scale_arcsec) ** 2 * np.eye(2)) for w, s in psf]
    margin = _reach_pix(sources, psf, scale_arcsec)
    near = (x > box.x0 - margin) & (x < box.x1 + margin)
    near &= (y > box.y0 - margin) & (y < box.y1 + margin)
    jacobians = _pixels_per_arcsec(grid, ra, dec)
    for row in np.flatnonzero(near):
        profile = [(1.0, np.zeros((2, 2)))]
        if sources["type"][row] != "PSF":
            spread = ellipse_matrix(sources["shape_e1"][row], sources["shape_e2"][row])
            spread = jacobians[row] @ spread * float(sources["shape_r"][row])
            spread = spread @ spread.T
            index = float(sources["sersic"][row])
            profile = [(w, s**2 * spread) for w, s in sersic_components(index)]
        for weight, covariance in profile:
            for psf_weight, psf_covariance in blur:
                flux = fluxes[row] * weight * psf_weight
                total = covariance + psf_covariance
                _add_gaussian(image, x[row] - box.x0, y[row] - box.y0, flux, total)
    return image


def _reach_pix(sources: Table, psf: Components, scale_arcsec: float) -> np.ndarray:
    """Return how far from its centre each source can reach, pixels."""
    indices = [float(index) for index in sources["sersic"]]
    widest = {index: sersic_components(index)[-1][1] for index in set(indices) if index}
    sigma = [
        widest[index] * radius if index else 0.0
        for index, radius in zip(indices, np.asarray(sources["shape_r"]), strict=True)
    ]
    return _CUT_SIGMA * np.hypot(sigma, psf[-1][1]) / scale_arcsec + 1
