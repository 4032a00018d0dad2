"""Indices of pixels of the whole sky, against astropy_healpix and a walk back down the mesh."""

import astropy.units as u
import numpy as np
import pytest

from astroquery_lis.sandbox import tap_schema


@pytest.fixture
def places():
    rng = np.random.default_rng(5)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, 4000)))
    return rng.uniform(0, 360, 4000), dec


@pytest.mark.parametrize("nside", [1, 2, 256, 4096])
@pytest.mark.parametrize(
    ("order", "index"), [("nested", tap_schema.healpix_nested), ("ring", tap_schema.healpix_ring)]
)
def test_healpix_is_that_of_astropy_healpix(places, nside, order, index):
    healpix = pytest.importorskip("astropy_healpix")
    ra, dec = places
    expected = healpix.lonlat_to_healpix(ra * u.deg, dec * u.deg, nside, order=order)
    np.testing.assert_array_equal(index(nside, ra, dec), expected)


def test_a_place_is_in_the_triangle_of_its_index(places):
    level = 9
    ra, dec = (values[:300] for values in places)
    found = tap_schema.htm(level, ra, dec)
    assert (found >> (2 * level) >= 8).all()
    assert (found >> (2 * level) < 16).all()
    np.testing.assert_array_equal(found >> (2 * level) >= 12, dec >= 0)
    # The longest side of a triangle of this level; the first vertex of S0 is at RA 0, Dec 0.
    side_deg = 90 / 2**level * 1.6
    for number, a, d in zip(found, ra, dec, strict=True):
        corners = triangle(number, level)
        place = vector(a, d)
        apart = np.degrees(np.arccos(np.clip(corners @ place, -1, 1)))
        assert apart.max() < side_deg
        # The same way round every edge: inside.
        turns = [np.linalg.det([corners[i], corners[(i + 1) % 3], place]) for i in range(3)]
        assert min(turns) >= -1e-15


def vector(ra_deg, dec_deg):
    ra, dec = np.radians([ra_deg, dec_deg])
    return np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


def triangle(number, level):
    """Return the corners of a triangle, from the digits of its index."""
    pole, ring = {"N": vector(0, 90), "S": vector(0, -90)}, [vector(90 * i, 0) for i in range(4)]
    root = number >> 2 * level
    if root < 12:
        corners = [ring[root - 8], pole["S"], ring[(root - 7) % 4]]
    else:
        corners = [ring[(12 - root) % 4], pole["N"], ring[(11 - root) % 4]]
    for step in reversed(range(level)):
        a, b, c = corners
        ab, bc, ca = ((p + q) / np.linalg.norm(p + q) for p, q in ((a, b), (b, c), (c, a)))
        digit = number >> 2 * step & 3
        corners = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (bc, ca, ab)][digit]
    return np.array(corners)
