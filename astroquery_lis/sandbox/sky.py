"""The scene: which sources there are, how deep each place was observed, and what is masked.

The sources are a table; everything else is a function of sky position, so that neighbouring bricks
agree where they overlap and every build is the same.  A new `SCENE_VERSION` tells a changed scene.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table

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
