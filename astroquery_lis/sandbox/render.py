"""Pictures of the simulated sources on any tangent grid: sums of elliptical Gaussians.

A point source is the PSF of its band; a galaxy is a Sersic profile, written as Gaussians and
convolved with the PSF by adding covariances.  Pixels are sampled at their centres: every Gaussian
is wider than a pixel, so the sum over pixels is the flux to 1e-6.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Protocol

import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike
from scipy.optimize import brentq, nnls
from scipy.special import gammaincinv

from ..survey.pixel_grids import Box

PSF_CORE_SIGMA_ARCSEC = {"g": 0.618, "r": 0.536, "i": 0.495, "z": 0.495}
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
