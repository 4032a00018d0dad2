"""A JWST mosaic's catalogue against Tractor: common offset, pairs, colours, and who is alone.

The common offset is found first, as the place where the differences of position of all pairs
within reach pile up; a radius smaller than the offset then still finds the right partners.
"""

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.table import Column, Table, hstack
from scipy.spatial import cKDTree

from ...survey.overlap import _unit_vectors
from ...survey.photometry import add_magnitudes
from .sources import MAS_PER_RADIAN, carried, plain, positions_at, texts

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
    def size(self):
        """Length of the offset, mas."""
        return np.hypot(self.d_ra, self.d_dec)

    @property
    def error(self):
        """Error of the longer component's median, mas, if the scatter is that of a Gaussian."""
        scatter = max(self.scatter_ra, self.scatter_dec)
        return scatter * np.sqrt(np.pi / 2 / self.number) if self.number else np.nan * u.mas

    def __str__(self):
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
    meta: dict

    def __repr__(self):
        return (
            f"<CatalogMatch: {len(self.matches)} pairs, {len(self.jwst_only)} of JWST alone, "
            f"{len(self.legacy_only)} of Tractor alone; {self.offset}>"
        )


def differences_mas(ra1, dec1, ra2, dec2):
    """Return the first positions minus the second, on the sky at the second ones.

    Parameters
    ----------
    ra1, dec1, ra2, dec2 : `~numpy.ndarray` of float, shape (n,)
        Degrees.

    Returns
    -------
    d_ra, d_dec : `~numpy.ndarray` of float
        mas; that of RA is times cos(Dec).
    """
    step = _unit_vectors(ra1, dec1) - _unit_vectors(ra2, dec2)
    ra, dec = np.radians(ra2), np.radians(dec2)
    east = -np.sin(ra) * step[:, 0] + np.cos(ra) * step[:, 1]
    north = -np.sin(dec) * (np.cos(ra) * step[:, 0] + np.sin(ra) * step[:, 1])
    north += np.cos(dec) * step[:, 2]
    return east * MAS_PER_RADIAN, north * MAS_PER_RADIAN


def measure_offset(d_ra_mas, d_dec_mas):
    """Return the `Offset` of pairs.

    Parameters
    ----------
    d_ra_mas, d_dec_mas : `~numpy.ndarray` of float
        Differences.

    Returns
    -------
    Offset
        NaN if there are none.
    """
    values = []
    for differences in (d_ra_mas, d_dec_mas):
        middle = np.median(differences) if len(differences) else np.nan
        spread = 1.4826 * np.median(np.abs(differences - middle)) if len(differences) else np.nan
        values.append((middle * u.mas, spread * u.mas))
    return Offset(values[0][0], values[1][0], values[0][1], values[1][1], len(d_ra_mas))


def common_offset(ra1, dec1, ra2, dec2, *, reach_mas, radius_mas):
    """Return the offset at which the differences of positions pile up.

    Parameters
    ----------
    ra1, dec1, ra2, dec2 : `~numpy.ndarray` of float
        Two catalogues, degrees.
    reach_mas : float
        Longest offset that is looked for.
    radius_mas : float
        Largest difference of partners, once the offset is taken off.

    Returns
    -------
    d_ra, d_dec : float
        First minus second, mas; 0 where no pile is higher than the one about 0, or has fewer than
        three pairs.
    """
    if not len(ra1) or not len(ra2):
        return 0.0, 0.0
    tree = cKDTree(_unit_vectors(ra2, dec2))
    lists = tree.query_ball_point(
        _unit_vectors(ra1, dec1), (reach_mas + radius_mas) / MAS_PER_RADIAN
    )
    first = np.repeat(np.arange(len(ra1)), [len(found) for found in lists])
    second = np.array([place for found in lists for place in found], int)
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
    middle = steps[counts == counts.max()].mean(axis=0)
    if np.hypot(*(steps[counts == counts.max()] - middle).T).max() > radius_mas:
        # Several piles of one height; the one nearest to no offset is as good as any.
        best = steps[counts == counts.max()]
        middle = best[np.argmin(np.hypot(*best.T))]
    for _ in range(_REFINEMENTS):
        pile = steps[pairs.query_ball_point(middle, radius_mas / 2)]
        moved = np.median(pile, axis=0)
        if np.hypot(*(moved - middle)) < 0.01:
            break
        middle = moved
    return float(middle[0]), float(middle[1])


def mutual_pairs(ra1, dec1, ra2, dec2, radius_mas):
    """Return the pairs of which each is the other's nearest.

    Parameters
    ----------
    ra1, dec1, ra2, dec2 : `~numpy.ndarray` of float
        Two catalogues, degrees.
    radius_mas : float
        Largest separation.

    Returns
    -------
    first, second : `~numpy.ndarray` of int
        By the first catalogue.
    separation_mas : `~numpy.ndarray` of float
    """
    if not len(ra1) or not len(ra2):
        return np.zeros(0, int), np.zeros(0, int), np.zeros(0)
    one, two = _unit_vectors(ra1, dec1), _unit_vectors(ra2, dec2)
    _, partner = cKDTree(two).query(one)
    _, back = cKDTree(one).query(two)
    first = np.flatnonzero(back[partner] == np.arange(len(one)))
    second = partner[first]
    chord = np.linalg.norm(one[first] - two[second], axis=1)
    separation = 2 * np.arcsin(np.clip(chord / 2, 0, 1)) * MAS_PER_RADIAN
    near = separation <= radius_mas
    return first[near], second[near], separation[near]


def match_tables(catalog, tractor, *, epoch, radius_mas, reach_mas, dereddened=True):
    """Match a mosaic's catalogue to Tractor.

    Parameters
    ----------
    catalog : `~.legacy_catalog.JwstCatalog`
        Of the mosaic.
    tractor : `~astropy.table.Table`
        As from `~.legacy_sources.as_tractor`.
    epoch : `~astropy.time.Time` or None
        To which stars are carried.
    radius_mas : float
        Largest separation, once the common offset is taken off.
    reach_mas : float
        Longest common offset; 0 to leave it where it is.
    dereddened : bool, optional
        Whether Tractor's magnitudes are.

    Returns
    -------
    CatalogMatch
    """
    sources = catalog.table
    ra1, dec1 = plain(sources["jwst_ra"]), plain(sources["jwst_dec"])
    ra2, dec2, moved = positions_at(tractor, epoch)
    off = np.zeros(2)
    if reach_mas:
        off[:] = common_offset(ra1, dec1, ra2, dec2, reach_mas=reach_mas, radius_mas=radius_mas)
    for _ in range(_REFINEMENTS if reach_mas else 1):
        at = carried(ra1, dec1, *(np.full(len(ra1), -value) for value in off))
        first, second, separation = mutual_pairs(*at, ra2, dec2, radius_mas)
        d_ra, d_dec = differences_mas(ra1[first], dec1[first], ra2[second], dec2[second])
        if not reach_mas or not len(first):
            break
        middle = np.median(d_ra), np.median(d_dec)
        if np.hypot(*(middle - off)) < 0.01:
            break
        off[:] = middle
    matches = sources[first]
    if catalog.by_shape:
        # What Tractor fitted with a galaxy is compared as one, whatever JWST's thresholds say.
        is_galaxy = texts(tractor["type"])[second] != "PSF"
        point, extended = (catalog.by_shape[kind] for kind in (False, True))
        for name, one, other in zip(("jwst_mag", "jwst_mag_err"), extended, point, strict=True):
            matches[name] = np.where(is_galaxy, one[first], other[first])
    for name, values, text in (
        ("d_ra", d_ra, "JWST minus Legacy, times cos(Dec)"),
        ("d_dec", d_dec, "JWST minus Legacy"),
        ("separation", separation, "Once the common offset is taken off"),
    ):
        matches[name] = Column(values, unit=u.mas, description=text)
    matches["carried"] = moved[second]
    magnitudes = _with_magnitudes(tractor, dereddened, matches.colnames)
    alone1 = np.setdiff1d(np.arange(len(ra1)), first)
    rest = np.ones(len(ra2), bool)
    rest[second] = False
    # The mosaic's pixels are where its WCS says, and that is off by the offset.
    rest &= catalog.covers(*carried(ra2, dec2, *(np.full(len(ra2), value) for value in off)))
    matches = hstack([matches, magnitudes[second]], metadata_conflicts="silent")
    star = moved[second]
    return CatalogMatch(
        matches,
        sources[alone1],
        magnitudes[rest],
        measure_offset(d_ra, d_dec),
        measure_offset(d_ra[star], d_dec[star]),
        {},
    )


def _with_magnitudes(tractor, dereddened, names):
    """Return Tractor's rows with AB magnitudes of every band in front; ``names`` are taken."""
    bands = [name.removeprefix("flux_") for name in tractor.colnames if name.startswith("flux_")]
    bands = [band for band in bands if not band.startswith("ivar_")]
    made = add_magnitudes(tractor, bands, dereddened=dereddened)
    result = Table()
    told = "dereddened" if dereddened else "as observed"
    for band in bands:
        name = f"dered_mag_{band}" if dereddened else f"mag_{band}"
        result[f"mag_{band}"] = Column(plain(made[name]), unit=u.mag, description=f"AB, {told}")
        if f"mag_err_{band}" in made.colnames:
            result[f"mag_err_{band}"] = Column(plain(made[f"mag_err_{band}"]), unit=u.mag)
    for name in tractor.colnames:
        taken = name in result.colnames or name in names
        result[f"{name}_tractor" if taken else name] = tractor[name]
    return result
