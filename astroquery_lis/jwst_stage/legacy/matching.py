"""A JWST mosaic's catalogue against Tractor: common offset, pairs, colours, and who is alone.

The common offset is found first, as the place where the differences of position of all pairs
within reach pile up; a radius smaller than the offset then still finds the right partners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Column, Table, hstack
from astropy.time import Time
from scipy.spatial import cKDTree

from ...survey.photometry import add_magnitudes, plain_numbers
from ...survey.sphere import shift_positions, tangent_axes, unit_vectors
from .field_sources import MAS_PER_DEG, MAS_PER_RADIAN, JwstCatalog, positions_at, texts

__all__ = [
    "CatalogMatch",
    "Offset",
    "common_offset",
    "differences_mas",
    "match_tables",
    "measure_offset",
    "mutual_pairs",
]

_MIN_PILE = 3
_REFINEMENTS = 10


@dataclass(frozen=True)
class Offset:
    """How far a catalogue is off another one: JWST minus Legacy.

    Attributes
    ----------
    d_ra, d_dec : `~astropy.units.Quantity` ['angle']
        Medians of the differences, mas; that of RA is times cos(Dec).
    scatter_ra, scatter_dec : `~astropy.units.Quantity` ['angle']
        1.4826 times the median absolute deviation, mas.
    number : int
        Pairs that it was measured on.
    """

    d_ra: u.Quantity
    d_dec: u.Quantity
    scatter_ra: u.Quantity
    scatter_dec: u.Quantity
    number: int

    @property
    def size(self) -> u.Quantity:
        """Length of the offset, mas."""
        return np.hypot(self.d_ra, self.d_dec)

    @property
    def error(self) -> u.Quantity:
        """Error of the longer component's median, mas, if the scatter is that of a Gaussian."""
        scatter = max(self.scatter_ra, self.scatter_dec)
        return scatter * np.sqrt(np.pi / 2 / self.number) if self.number else np.nan * u.mas

    def __str__(self) -> str:
        return (
            f"dRA cos(Dec) {self.d_ra.value:+.1f} mas, dDec {self.d_dec.value:+.1f} mas, scatter "
            f"{self.scatter_ra.value:.1f} and {self.scatter_dec.value:.1f} mas, "
            f"{self.number} sources"
        )


@dataclass(frozen=True, eq=False)
class CatalogMatch:
    """What became of the sources of two catalogues.

    Attributes
    ----------
    matches : `~astropy.table.Table`
        A row per pair: the JWST source (``label``, ``jwst_ra``, ``jwst_dec``, ``jwst_mag``,
        ``jwst_mag_err``, ``jwst_extended``, ``jwst_near``), ``d_ra`` and ``d_dec`` (mas, JWST minus
        Legacy, that of RA times cos(Dec)), ``separation`` (mas, once the common offset is taken
        off), ``carried`` (whether the star was carried to the epoch), the magnitudes ``mag_g`` and
        so on with errors ``mag_err_g``, and Tractor's own columns.
    jwst_only : `~astropy.table.Table`
        JWST sources without a partner; the first columns of ``matches``.
    legacy_only : `~astropy.table.Table`
        Tractor sources within the mosaic without a partner.
    offset : Offset
        Of all pairs.
    star_offset : Offset
        Of those whose Tractor source is a star with a proper motion.
    meta : dict
        Radius, filter, epoch, release, and so on.
    """

    matches: Table
    jwst_only: Table
    legacy_only: Table
    offset: Offset
    star_offset: Offset
    meta: dict[str, Any]

    def __repr__(self) -> str:
        return (
            f"<CatalogMatch: {len(self.matches)} pairs, {len(self.jwst_only)} of JWST alone, "
            f"{len(self.legacy_only)} of Tractor alone; {self.offset}>"
        )


def differences_mas(
    ra1: np.ndarray, dec1: np.ndarray, ra2: np.ndarray, dec2: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first positions minus the second, to the east and north at the second ones."""
    step = (unit_vectors(ra1, dec1) - unit_vectors(ra2, dec2)) * MAS_PER_RADIAN
    east, north = tangent_axes(ra2, dec2)
    return (step * east).sum(axis=-1), (step * north).sum(axis=-1)


def measure_offset(d_ra_mas: np.ndarray, d_dec_mas: np.ndarray) -> Offset:
    """Return the offset of pairs; NaN if there are none."""
    values = []
    for differences in (d_ra_mas, d_dec_mas):
        middle = np.median(differences) if len(differences) else np.nan
        spread = 1.4826 * np.median(np.abs(differences - middle)) if len(differences) else np.nan
        values.append((middle * u.mas, spread * u.mas))
    return Offset(values[0][0], values[1][0], values[0][1], values[1][1], len(d_ra_mas))


def common_offset(
    ra1: np.ndarray,
    dec1: np.ndarray,
    ra2: np.ndarray,
    dec2: np.ndarray,
    *,
    reach_mas: float,
    radius_mas: float,
) -> tuple[float, float]:
    """Return the offset at which the differences of positions, first minus second, pile up, mas.

    It is 0 where no pile is higher than the one about 0, or has three pairs.  ``reach_mas`` is the
    longest offset looked for, ``radius_mas`` the largest difference once it is taken off.
    """
    if not len(ra1) or not len(ra2):
        return 0.0, 0.0
    tree1, tree2 = cKDTree(unit_vectors(ra1, dec1)), cKDTree(unit_vectors(ra2, dec2))
    near = tree1.sparse_distance_matrix(
        tree2, (reach_mas + radius_mas) / MAS_PER_RADIAN, output_type="ndarray"
    )
    first, second = near["i"], near["j"]
    if not len(first):
        return 0.0, 0.0
    steps = np.stack(differences_mas(ra1[first], dec1[first], ra2[second], dec2[second]), axis=1)
    pairs = cKDTree(steps)
    # Half of the radius: the pile is to be narrow, and its flanks are found below.
    counts = pairs.query_ball_point(steps, radius_mas / 2, return_length=True)
    counts = np.where(np.hypot(*steps.T) <= reach_mas, counts, 0)
    at_zero = len(pairs.query_ball_point([0.0, 0.0], radius_mas / 2))
    if counts.max() < _MIN_PILE or counts.max() <= at_zero:
        return 0.0, 0.0
    best = steps[counts == counts.max()]
    middle = best.mean(axis=0)
    if np.hypot(*(best - middle).T).max() > radius_mas:
        # Several piles of one height; the one nearest to no offset is as good as any.
        middle = best[np.argmin(np.hypot(*best.T))]
    return _pile_center(steps, pairs, middle, radius_mas / 2)


def _pile_center(
    steps: np.ndarray, pairs: cKDTree, middle: np.ndarray, radius_mas: float
) -> tuple[float, float]:
    """Return the median of what is near a place, once the place is the median."""
    for _ in range(_REFINEMENTS):
        median = np.median(steps[pairs.query_ball_point(middle, radius_mas)], axis=0)
        if np.hypot(*(median - middle)) < 0.01:
            break
        middle = median
    return float(middle[0]), float(middle[1])


def mutual_pairs(
    ra1: np.ndarray, dec1: np.ndarray, ra2: np.ndarray, dec2: np.ndarray, radius_mas: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs of which each is the other's nearest: two indices, and separations (mas)."""
    if not len(ra1) or not len(ra2):
        return np.zeros(0, int), np.zeros(0, int), np.zeros(0)
    one, two = SkyCoord(ra1, dec1, unit="deg"), SkyCoord(ra2, dec2, unit="deg")
    partner, separation, _ = one.match_to_catalog_sky(two)
    back, _, _ = two.match_to_catalog_sky(one)
    separation_mas = separation.to_value(u.mas)
    is_pair = (back[partner] == np.arange(len(ra1))) & (separation_mas <= radius_mas)
    return np.flatnonzero(is_pair), partner[is_pair], separation_mas[is_pair]


def match_tables(
    catalog: JwstCatalog,
    tractor: Table,
    *,
    epoch: Time | None,
    radius_mas: float,
    reach_mas: float,
    dereddened: bool = True,
) -> CatalogMatch:
    """Match a mosaic's catalogue to Tractor, whose stars are carried to the epoch.

    With ``reach_mas`` 0 the positions are taken as they are.
    """
    sources = catalog.table
    ra1, dec1 = plain_numbers(sources["jwst_ra"]), plain_numbers(sources["jwst_dec"])
    ra2, dec2, moves = positions_at(tractor, epoch)
    pairs = _pairs(ra1, dec1, ra2, dec2, radius_mas=radius_mas, reach_mas=reach_mas)
    first, second, star = pairs.first, pairs.second, moves[pairs.second]
    matches = sources[first]
    if catalog.by_shape:
        # What Tractor fitted with a galaxy is compared as one, whatever JWST's thresholds say.
        is_galaxy = texts(tractor["type"])[second] != "PSF"
        point, whole = catalog.by_shape[False][:, first], catalog.by_shape[True][:, first]
        matches["jwst_mag"], matches["jwst_mag_err"] = np.where(is_galaxy, whole, point)
    for name, values, text in (
        ("d_ra", pairs.d_ra, "JWST minus Legacy, times cos(Dec)"),
        ("d_dec", pairs.d_dec, "JWST minus Legacy"),
        ("separation", pairs.separation, "Once the common offset is taken off"),
    ):
        matches[name] = Column(values, unit=u.mas, description=text)
    matches["carried"] = star
    magnitudes = _with_magnitudes(tractor, dereddened, matches.colnames)
    alone1 = np.setdiff1d(np.arange(len(ra1)), first)
    alone2 = np.ones(len(ra2), bool)
    alone2[second] = False
    # The mosaic's pixels are where its WCS says, and that is off by the offset.
    steps = (step / MAS_PER_DEG for step in pairs.offset)
    alone2 &= catalog.covers(*shift_positions(ra2, dec2, *steps))
    matches = hstack([matches, magnitudes[second]], metadata_conflicts="silent")
    return CatalogMatch(
        matches,
        sources[alone1],
        magnitudes[alone2],
        measure_offset(pairs.d_ra, pairs.d_dec),
        measure_offset(pairs.d_ra[star], pairs.d_dec[star]),
        {},
    )


class _Pairs(NamedTuple):
    """Indices of the pairs, the common offset, and the differences with and without it, in mas."""

    first: np.ndarray
    second: np.ndarray
    separation: np.ndarray
    d_ra: np.ndarray
    d_dec: np.ndarray
    offset: tuple[float, float]


def _pairs(
    ra1: np.ndarray,
    dec1: np.ndarray,
    ra2: np.ndarray,
    dec2: np.ndarray,
    *,
    radius_mas: float,
    reach_mas: float,
) -> _Pairs:
    """Return the pairs once their median difference is taken off."""
    offset, n_rounds = (0.0, 0.0), 1
    if reach_mas:
        n_rounds = _REFINEMENTS
        offset = common_offset(ra1, dec1, ra2, dec2, reach_mas=reach_mas, radius_mas=radius_mas)
    for _ in range(n_rounds):
        shifted = shift_positions(ra1, dec1, -offset[0] / MAS_PER_DEG, -offset[1] / MAS_PER_DEG)
        first, second, separation = mutual_pairs(*shifted, ra2, dec2, radius_mas)
        d_ra, d_dec = differences_mas(ra1[first], dec1[first], ra2[second], dec2[second])
        pairs = _Pairs(first, second, separation, d_ra, d_dec, offset)
        if not reach_mas or not len(first):
            break
        offset = float(np.median(d_ra)), float(np.median(d_dec))
        if np.hypot(offset[0] - pairs.offset[0], offset[1] - pairs.offset[1]) < 0.01:
            break
    return pairs


def _with_magnitudes(tractor: Table, dereddened: bool, names: Sequence[str]) -> Table:
    """Return Tractor's rows with AB magnitudes of every band in front; ``names`` are taken."""
    result = _magnitudes(tractor, dereddened)
    for name in tractor.colnames:
        is_double = name in result.colnames or name in names
        result[f"{name}_tractor" if is_double else name] = tractor[name]
    return result


def _magnitudes(tractor: Table, dereddened: bool) -> Table:
    fluxes = (name for name in tractor.colnames if name.startswith("flux_"))
    bands = [name.removeprefix("flux_") for name in fluxes if not name.startswith("flux_ivar_")]
    with_mags = add_magnitudes(tractor, bands, dereddened=dereddened)
    prefix, note = ("dered_mag", "dereddened") if dereddened else ("mag", "as observed")
    result = Table()
    for band in bands:
        values = plain_numbers(with_mags[f"{prefix}_{band}"])
        result[f"mag_{band}"] = Column(values, unit=u.mag, description=f"AB, {note}")
        error = f"mag_err_{band}"
        if error in with_mags.colnames:
            result[error] = Column(plain_numbers(with_mags[error]), unit=u.mag)
    return result
