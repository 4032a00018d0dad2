"""The scene: which sources there are, how deep each place was observed, and what is masked.

Everything is a function of sky position and a fixed seed, so that neighbouring bricks agree where
they overlap and every build is the same.  A new `SCENE_VERSION` tells a changed scene.
"""

from __future__ import annotations

from functools import cache
from types import MappingProxyType

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table

from ..survey.releases import PIXEL_SCALE_ARCSEC

SCENE_VERSION = "2"
_SEED = 20450125

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

_HOLE_HALF_ARCSEC = (30.0, 20.0)
_GAP_BAND = "z"
_GAP_HALF_ARCSEC = (12.0, 12.0)
_GALAXY_DEG = (45.154897, -0.004743)
_STAR_DEG = (45.112743, -0.063151)
_EMPTY_DEG = (45.2, 0.1)
_MEDIUM_DEG = (45.075, -0.040)
_LARGE_DEG = (45.216, 0.045)

# RA, Dec, radius in arcsec within which no source is scattered.
_KEEP_CLEAR = (
    *((*POSITIONS_DEG[name], 22) for name in ("star", "corner", "ra0", "split")),
    (*POSITIONS_DEG["field"], 24),
    (*POSITIONS_DEG["hole"], 60),
    (*POSITIONS_DEG["blank"], 30),
    (*POSITIONS_DEG["clump"], 30),
    (*POSITIONS_DEG["bright"], 30),
    (*_GALAXY_DEG, 10),
    (*_STAR_DEG, 10),
    (*_EMPTY_DEG, 15),
    (*_MEDIUM_DEG, 15),
    (*_LARGE_DEG, 30),
)

# RA, Dec, half width in arcsec, stars, galaxies of each area with scattered sources.
_SCATTERED = (
    (45.125, 0.0, 448, 130, 210),
    (*POSITIONS_DEG["corner"], 78, 8, 14),
    (*POSITIONS_DEG["ra0"], 78, 9, 16),
    (*POSITIONS_DEG["split"], 78, 9, 16),
    (45.25, 0.0, 52, 5, 8),
    (180.15, 32.5, 52, 6, 12),
)


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


def _offset_arcsec(
    ra_deg: float | np.ndarray, dec_deg: float | np.ndarray, ra0_deg: float, dec0_deg: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return small offsets (east, north) from a place, arcsec."""
    east = (np.asarray(ra_deg) - ra0_deg + 180.0) % 360.0 - 180.0
    return east * np.cos(np.radians(dec0_deg)) * 3600, (np.asarray(dec_deg) - dec0_deg) * 3600


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
    east, _ = _offset_arcsec(ra_deg[inside], dec0, ra0, dec0)
    inside[inside] = np.abs(east) < half_arcsec[0]
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


# Type, Sersic index, radius in arcsec, and two numbers of the ellipse.
Shape = tuple[str, float, float, float, float]


class _Sources:
    """Collects rows of the truth table."""

    columns = (
        "ra",
        "dec",
        "type",
        "sersic",
        "shape_r",
        "shape_e1",
        "shape_e2",
        *(f"flux_{band}" for band in ("g", "r", "i", "z", "w1", "w2", "w3", "w4")),
        "name",
    )

    def __init__(self) -> None:
        self.rows: list[tuple] = []

    def star(
        self, ra_deg: float, dec_deg: float, r_mag: float, redness: float, name: str = ""
    ) -> None:
        """Add a star; ``redness`` runs from 0 (hot) to 1 (cool)."""
        colours = (0.3 + 1.1 * redness, 0.08 + 0.9 * redness**2, 0.04 + 0.45 * redness**2)
        self._add(ra_deg, dec_deg, ("PSF", 0.0, 0.0, 0.0, 0.0), r_mag, colours, -0.7, name)

    def galaxy(
        self,
        ra_deg: float,
        dec_deg: float,
        r_mag: float,
        redness: float,
        shape: Shape,
        name: str = "",
    ) -> None:
        """Add a galaxy; ``shape`` is type, sersic, radius in arcsec, axis ratio, angle in deg."""
        kind, sersic, radius, ratio, angle = shape
        size = (1 - ratio) / (1 + ratio)
        e1, e2 = size * np.cos(2 * np.radians(angle)), size * np.sin(2 * np.radians(angle))
        colours = (0.35 + 0.85 * redness, 0.15 + 0.33 * redness, 0.08 + 0.25 * redness)
        self._add(ra_deg, dec_deg, (kind, sersic, radius, e1, e2), r_mag, colours, 0.3, name)

    def _add(
        self,
        ra_deg: float,
        dec_deg: float,
        shape: Shape,
        r_mag: float,
        colours: tuple[float, float, float],
        infrared: float,
        name: str,
    ) -> None:
        g_r, r_i, i_z = colours
        z_mag = r_mag - r_i - i_z
        mags = [r_mag + g_r, r_mag, r_mag - r_i, z_mag, z_mag - infrared]
        mags += [mags[-1] + step for step in (0.6, 1.4, 2.0)]
        self.rows.append((ra_deg % 360.0, dec_deg, *shape, *map(flux, mags), name))

    def separation_arcsec(self, ra_deg: float, dec_deg: float) -> float:
        """Return the distance to the nearest source so far."""
        places = np.array([row[:2] for row in self.rows])
        return np.hypot(*_offset_arcsec(places[:, 0], places[:, 1], ra_deg, dec_deg)).min()


def _named_sources(sources: _Sources) -> None:
    """Add the sources that have a role."""
    # Bright enough in every band that noise is less than 0.3 % in a 3.5 arcsec aperture.
    for name in ("star", "corner", "ra0", "split"):
        sources.star(*POSITIONS_DEG[name], 17.65, 0.28, name)
    sources.star(*_STAR_DEG, 18.8, 0.5, "point")
    sources.galaxy(*_GALAXY_DEG, 18.3, 0.6, ("EXP", 1.0, 1.4, 0.6, 35.0), "galaxy")
    sources.star(*POSITIONS_DEG["bright"], 10.3, 0.2, "bright")
    sources.star(*_MEDIUM_DEG, 14.6, 0.4, "medium")
    sources.galaxy(*_LARGE_DEG, 15.2, 0.7, ("SER", 2.5, 8.0, 0.55, 120.0), "large")


def _clump(sources: _Sources, rng: np.random.Generator) -> None:
    """Add a dozen stars within 6 arcsec, six of them within 1.6."""
    ra0, dec0 = POSITIONS_DEG["clump"]
    placed: list[np.ndarray] = []
    for number in range(12):
        inner, outer = (0.0, 1.6) if number < 6 else (2.0, 5.8)
        for _ in range(10000):
            radius = np.sqrt(rng.uniform(inner**2, outer**2))
            angle = rng.uniform(0, 2 * np.pi)
            place = radius * np.array([np.sin(angle), np.cos(angle)])
            if all(np.hypot(*(place - other)) > 0.7 for other in placed):
                break
        placed.append(place)
        east, north = place / 3600
        magnitude = 19.0 + 3.0 * (number * 5 % 12) / 11
        ra = ra0 + east / np.cos(np.radians(dec0))
        sources.star(ra, dec0 + north, magnitude, rng.uniform(0.1, 0.9), "clump")


def _group(sources: _Sources, rng: np.random.Generator) -> None:
    """Add the group of galaxies of the 'field': a giant, its red companions, blue ones around."""
    ra0, dec0 = POSITIONS_DEG["field"]
    cos_dec = np.cos(np.radians(dec0))
    sources.galaxy(ra0, dec0, 16.2, 1.0, ("DEV", 4.0, 3.6, 0.75, 20.0), "field")

    def place(inner: float, outer: float, apart: float) -> tuple[float, float]:
        for _ in range(10000):
            radius, angle = rng.uniform(inner, outer), rng.uniform(0, 2 * np.pi)
            ra = ra0 + radius * np.sin(angle) / 3600 / cos_dec
            dec = dec0 + radius * np.cos(angle) / 3600
            if sources.separation_arcsec(ra, dec) > apart:
                return ra, dec
        msg = "no room left in the field"
        raise RuntimeError(msg)

    for number in range(16):
        magnitude = 17.8 + 2.6 * number / 15 + rng.uniform(-0.15, 0.15)
        radius = 1.7 * 10 ** (-0.16 * (magnitude - 17.8))
        kind = ("DEV", 4.0) if number % 2 else ("SER", 2.5)
        shape = (*kind, radius, rng.uniform(0.5, 0.95), rng.uniform(0, 180))
        sources.galaxy(*place(6, 30, 4), magnitude, rng.uniform(0.85, 1.05), shape, "field")
    for number in range(11):
        magnitude = 17.3 + 2.7 * number / 10 + rng.uniform(-0.2, 0.2)
        radius = rng.uniform(1.0, 1.5) * 2.4 * 10 ** (-0.14 * (magnitude - 17.3))
        shape = ("EXP", 1.0, radius, rng.uniform(0.25, 0.85), rng.uniform(0, 180))
        sources.galaxy(*place(10, 44, 6), magnitude, rng.uniform(-0.1, 0.5), shape, "field")
    for number in range(24):
        radius, ratio = rng.uniform(0.3, 0.7), rng.uniform(0.4, 1.0)
        shape = ("EXP", 1.0, radius, ratio, rng.uniform(0, 180))
        redness = rng.uniform(-0.1, 1.1)
        sources.galaxy(*place(8, 46, 3.2), 20.4 + 0.1 * number, redness, shape, "field")
    for number in range(7):
        sources.star(*place(9, 44, 4.5), 16.6 + 0.6 * number, (number * 3 % 7) / 6, "field")


def _scatter(sources: _Sources, rng: np.random.Generator) -> None:
    """Add stars and galaxies at random, away from the places that are to stay clear."""
    for ra0, dec0, half, n_stars, n_galaxies in _SCATTERED:
        for number in range(n_stars + n_galaxies):
            for _ in range(1000):
                east, north = rng.uniform(-half, half, size=2) / 3600
                ra, dec = ra0 + east / np.cos(np.radians(dec0)), dec0 + north
                clear = all(
                    np.hypot(*_offset_arcsec(ra, dec, *place)) > radius
                    for *place, radius in _KEEP_CLEAR
                )
                if clear and sources.separation_arcsec(ra, dec) > 3.5:
                    break
            else:
                continue
            if number < n_stars:
                magnitude = 16.5 + 6.0 * rng.uniform() ** 0.6
                sources.star(ra, dec, magnitude, rng.uniform())
                continue
            magnitude = 18.4 + 4.8 * rng.uniform() ** 0.5
            radius = 1.3 * 10 ** (-0.11 * (magnitude - 19.0)) * 10 ** rng.normal(0, 0.12)
            ratio, angle = rng.uniform(0.3, 0.95), rng.uniform(0, 180)
            kind, redness = _KINDS[number % len(_KINDS)]
            if kind[0] == "REX":
                radius, ratio = 0.5 * radius, 1.0
            shape = (*kind, radius, ratio, angle)
            sources.galaxy(ra, dec, magnitude, redness + rng.normal(0, 0.15), shape)


# Only a few Sersic indices: each is fitted once.
_KINDS = (
    (("EXP", 1.0), 0.15),
    (("REX", 1.0), 0.3),
    (("DEV", 4.0), 0.95),
    (("EXP", 1.0), 0.4),
    (("SER", 2.5), 0.7),
    (("SER", 1.5), 0.3),
)


@cache
def _truth() -> Table:
    sources, rng = _Sources(), np.random.default_rng(_SEED)
    _named_sources(sources)
    _clump(sources, rng)
    _group(sources, rng)
    _scatter(sources, rng)
    table = Table(rows=sources.rows, names=sources.columns)
    table.add_column(np.arange(len(table)), name="id", index=0)
    table["redshift"] = _redshifts(table)
    table["ra"].unit = table["dec"].unit = u.deg
    table["shape_r"].unit = u.arcsec
    for name in table.colnames:
        if name.startswith("flux_"):
            table[name].unit = u.nmgy
    table.meta["COMMENT"] = "Simulated sources; none of them is in the sky."
    return table


def _redshifts(sources: Table) -> np.ndarray:
    """Return true redshifts, 0 for stars; galaxies are the farther the fainter they are."""
    magnitude = magnitudes(np.asarray(sources["flux_r"]))
    scatter = np.random.default_rng(_SEED + 1).normal(0, 0.2, len(sources))
    redshift = np.clip(0.05 * 10 ** (0.14 * (magnitude - 16) + scatter), 0.01, 1.6)
    return np.where(sources["type"] == "PSF", 0.0, redshift)


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
