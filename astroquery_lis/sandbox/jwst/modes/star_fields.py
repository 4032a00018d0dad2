"""Stars on a grid, and exposures of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from ..detector import Pointing, offset_position
from .cache import Reference
from .exposures import Setup, add_stars
from .imaging_references import flat, imaging_references

TARGET_DEG = (190.0, 1.2)
ROLL_DEG = 24.0

_PREFIXES = {"MIRI": "Mir", "NIRCAM": "Nrc", "NIRISS": "Nis"}


@dataclass(frozen=True)
class Camera:
    """A set-up that makes images, how wide stars are on it, and how many MJy/sr a DN/s is."""

    setup: Setup
    sigma_pix: float
    photmjsr: float

    def pointing(
        self,
        dither: tuple[float, float],
        *,
        target_deg: tuple[float, float] = TARGET_DEG,
        roll_deg: float = ROLL_DEG,
    ) -> Pointing:
        """Return the pointing some arcsec (east, north) from a target."""
        return self.setup.pointing(offset_position(*target_deg, *dither), roll_deg)

    def flat(self) -> np.ndarray:
        """Return the response of the pixels."""
        ny, nx = self.setup.shape
        y, x = np.mgrid[:ny, :nx]
        return 1 + 0.05 * (x / nx - 0.5) + 0.04 * (y / ny - 0.5) ** 2

    def image(self, pointing: Pointing, stars: Table, sky_mjysr: float | np.ndarray) -> np.ndarray:
        """Return the DN/s that the pixels see of stars and sky."""
        light = np.full(self.setup.shape, sky_mjysr / self.photmjsr)
        width = {"sigma_pix": self.sigma_pix, "photmjsr": self.photmjsr}
        add_stars(light, self.setup, pointing, stars, **width)
        return light * self.flat()

    def references(self) -> dict[str, Reference]:
        """Return what calibrates the images, and makes a mosaic of them."""
        instrument = self.setup.instrument
        optics = {k: v for k, v in instrument.items() if k in ("filter", "pupil")}
        rows = [optics]
        if instrument["name"] == "MIRI":
            # A mosaic has no subarray.
            rows = [{**optics, "subarray": name} for name in (self.setup.subarray, "GENERIC")]
        files = imaging_references(
            self.setup,
            _PREFIXES[instrument["name"]],
            rows,
            photmjsr=self.photmjsr,
            sigma_pix=self.sigma_pix,
        )
        return files | {"flat": flat(self.setup, self.flat())}


def star_grid(
    rng: np.random.Generator, steps_arcsec: np.ndarray, flux_jy: tuple[float, float]
) -> Table:
    """Return stars far enough from one another to be measured: ``ra``, ``dec``, ``flux`` (Jy)."""
    east, north = (axis.ravel() for axis in np.meshgrid(steps_arcsec, steps_arcsec))
    spread = 0.12 * (steps_arcsec[1] - steps_arcsec[0])
    east, north = (axis + rng.uniform(-spread, spread, axis.size) for axis in (east, north))
    places = [offset_position(*TARGET_DEG, e, n) for e, n in zip(east, north, strict=True)]
    ra, dec = np.array(places, float).T
    faintest, brightest = map(math.log10, flux_jy)
    flux = 10 ** rng.uniform(faintest, brightest, len(ra))
    return Table({"ra": ra, "dec": dec, "flux": flux})
