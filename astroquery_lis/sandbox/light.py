"""How much light of each simulated source is where: what its catalogue entries are made from.

Every galaxy is taken for round.  Nothing here depends on the release, the region or the brick.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ..survey import sphere
from ..survey.releases import PIXEL_SCALE_ARCSEC
from . import render, sky
from .render import Components

_SEED = 27182
APERTURES_ARCSEC = (0.5, 0.75, 1.0, 1.5, 2.0, 3.5, 5.0, 7.0)
WISE_APERTURES_ARCSEC = (3.0, 5.0, 7.0, 9.0, 11.0)
_FIBER_RADIUS_ARCSEC = 0.75
_FIBER_SIGMA_ARCSEC = 1.0 / 2.3548
_WISE_SIGMA_ARCSEC = {"w1": 2.59, "w2": 2.72, "w3": 2.76, "w4": 5.10}
_WISE_DEPTH_MAG = {"w1": 20.7, "w2": 20.0, "w3": 16.7, "w4": 14.5}
_NEIGHBOUR_ARCSEC = 12.0
# Galaxies in whose cores Gaia has a source: kept in the catalogue without optical flux.
_DUPLICATED = ("field", "large")


@cache
def sources() -> dict[str, np.ndarray]:
    """Return the true sources as a dict of arrays; at the end those that are only in Gaia."""
    truth = sky.truth()
    values = {name: np.asarray(truth[name]) for name in truth.colnames}
    copies = []
    for name in _DUPLICATED:
        mask = (values["name"] == name) & (values["type"] != "PSF")
        brightest = np.flatnonzero(mask)[np.argmax(values["flux_r"][mask])]
        copies.append(brightest)
    extra = {name: column[copies].copy() for name, column in values.items()}
    extra["dec"] += 0.4 / 3600
    extra["id"][:] = -1
    extra["type"][:] = "DUP"
    for name in extra:
        if name.startswith(("flux_", "shape_", "sersic")):
            extra[name][:] = 0
    return {name: np.concatenate([values[name], extra[name]]) for name in values}


def noise_of(*key: int) -> np.ndarray:
    """Return standard normal numbers that each source keeps, shape (N, 64)."""
    rng = np.random.default_rng([_SEED, *key])
    return rng.standard_normal((len(sources()["ra"]), 64))


@cache
def neighbours() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pairs of different sources close together: first, second, arcsec apart."""
    ra, dec = sources()["ra"], sources()["dec"]
    apart = sphere.separation_deg(ra[:, None], dec[:, None], ra, dec) * 3600
    first, second = np.nonzero((apart < _NEIGHBOUR_ARCSEC) & ~np.eye(len(ra), dtype=bool))
    return first, second, apart[first, second]


def _profiles(psf: Components) -> tuple[np.ndarray, np.ndarray]:
    """Return weights and sigmas (arcsec) of every source behind a PSF, shapes (N, K)."""
    true = sources()
    profiles = []
    for row in range(len(true["ra"])):
        profile = [(1.0, 0.0)]
        if true["sersic"][row] > 0:
            size = np.hypot(true["shape_e1"][row], true["shape_e2"][row])
            round_arcsec = true["shape_r"][row] * np.sqrt((1 - size) / (1 + size))
            profile = [
                (weight, sigma * round_arcsec)
                for weight, sigma in render.sersic_components(float(true["sersic"][row]))
            ]
        profiles.append([(w * pw, np.hypot(s, ps)) for w, s in profile for pw, ps in psf])
    longest = max(map(len, profiles))
    padded = np.array([parts + [(0.0, 1.0)] * (longest - len(parts)) for parts in profiles])
    return padded[..., 0], padded[..., 1]


def _inside(weights: np.ndarray, sigmas: np.ndarray, radius_arcsec: float) -> np.ndarray:
    """Return which part of each profile's light is inside a radius."""
    return (weights * (1 - np.exp(-0.5 * (radius_arcsec / sigmas) ** 2))).sum(axis=1)


def _overlap(
    weights: np.ndarray,
    sigmas: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    apart_arcsec: np.ndarray,
) -> np.ndarray:
    """Return the integral of the product of pairs of profiles, per arcsec^2."""
    total = np.zeros(len(first))
    for left in range(weights.shape[1]):
        square = sigmas[first, left, None] ** 2 + sigmas[second] ** 2
        gauss = np.exp(-0.5 * apart_arcsec[:, None] ** 2 / square) / (2 * np.pi * square)
        total += weights[first, left] * (weights[second] * gauss).sum(axis=1)
    return total


def _blending(
    weights: np.ndarray, sigmas: np.ndarray, flux: np.ndarray, own: np.ndarray
) -> np.ndarray:
    """Return the neighbours' flux under each profile over the source's own."""
    first, second, apart = neighbours()
    share = _overlap(weights, sigmas, first, second, apart) / own[first] * flux[second]
    total = np.bincount(first, share, minlength=len(flux))
    return np.divide(total, flux, out=np.zeros(len(flux)), where=flux > 0)


@cache
def optical(band: str) -> dict[str, np.ndarray]:
    """Return what does not depend on the region, for one optical band: a dict of arrays."""
    true = sources()
    flux = true[f"flux_{band}"].astype(float)
    everyone = np.arange(len(flux))
    weights, sigmas = _profiles(render.psf_components(band))
    own = _overlap(weights, sigmas, everyone, everyone, np.zeros(len(flux)))
    nexp = sky.exposures(true["ra"], true["dec"], band).astype(float)
    pixel_ivar = nexp / sky.NOISE_SIGMA[band] ** 2
    area = PIXEL_SCALE_ARCSEC**2
    depth = pixel_ivar * render.psf_norm(band, PIXEL_SCALE_ARCSEC)
    variance = 1 / (pixel_ivar * own * area) + sky.POISSON_NMGY * flux
    fiber_weights, fiber_sigmas = _profiles(((1.0, _FIBER_SIGMA_ARCSEC),))
    fiber = flux * _inside(fiber_weights, fiber_sigmas, _FIBER_RADIUS_ARCSEC)
    first, second, apart = neighbours()
    there = (
        fiber_weights[second]
        * np.exp(-0.5 * (apart[:, None] / fiber_sigmas[second]) ** 2)
        / (2 * np.pi * fiber_sigmas[second] ** 2)
    ).sum(axis=1)
    light = there * flux[second] * np.pi * _FIBER_RADIUS_ARCSEC**2
    total = fiber + np.bincount(first, light, minlength=len(flux))
    apertures = [_inside(weights, sigmas, radius) for radius in APERTURES_ARCSEC]
    pixels = np.pi * np.square(APERTURES_ARCSEC) / area
    peak = flux * (weights / (2 * np.pi * sigmas**2)).sum(axis=1) * area
    return {
        "flux": flux,
        "ivar": np.where(true["type"] == "DUP", 0.0, 1 / variance),
        "fiberflux": fiber,
        "fibertotflux": total,
        "apflux": flux[:, None] * np.stack(apertures, axis=1),
        "apflux_ivar": pixel_ivar[:, None] / pixels,
        "nobs": nexp.astype(np.int16),
        "psfdepth": depth,
        "galdepth": pixel_ivar * render.galaxy_norm(band, PIXEL_SCALE_ARCSEC),
        "nea": 1 / own,
        "fracflux": _blending(weights, sigmas, flux, own),
        "saturated": peak > sky.SATURATION,
    }


@cache
def infrared(band: str) -> dict[str, np.ndarray]:
    """Return the same for one WISE band."""
    flux = sources()[f"flux_{band}"].astype(float)
    everyone = np.arange(len(flux))
    weights, sigmas = _profiles(((1.0, _WISE_SIGMA_ARCSEC[band]),))
    own = _overlap(weights, sigmas, everyone, everyone, np.zeros(len(flux)))
    point = 1 / (4 * np.pi * _WISE_SIGMA_ARCSEC[band] ** 2)
    depth = (5 / sky.flux(_WISE_DEPTH_MAG[band])) ** 2
    apertures = [_inside(weights, sigmas, radius) for radius in WISE_APERTURES_ARCSEC]
    square = np.pi * np.square(WISE_APERTURES_ARCSEC) * point
    return {
        "flux": flux,
        "ivar": 1 / (1 / (depth * own / point) + 1e-4 * flux),
        "apflux": flux[:, None] * np.stack(apertures, axis=1),
        "apflux_ivar": np.tile(depth / square, (len(flux), 1)),
        "psfdepth": np.full(len(flux), depth),
        "fracflux": _blending(weights, sigmas, flux, own),
    }
