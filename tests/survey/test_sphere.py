"""Bricks that a shape touches, against dense sampling of the shape."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from astroquery_lis import bricks
from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.survey.sphere import bricks_in_box, bricks_in_circle, bricks_in_polygon

RA = st.one_of(st.sampled_from([0.0, 359.95, 45.25]), st.floats(0, 359.999))
DEC = st.one_of(st.sampled_from([0.0, 0.125, 89.9, -89.95, 90.0]), st.floats(-90, 90))


def _points_in_circle(center, radius_deg, n, seed=0):
    rng = np.random.default_rng(seed)
    distance = radius_deg * np.sqrt(rng.uniform(0, 1, n))
    distance[: n // 4] = radius_deg
    angle = rng.uniform(0, 2 * np.pi, n)
    return center.directional_offset_by(angle * u.rad, distance * (1 - 1e-9) * u.deg)


def _owners(position):
    return set(np.unique(bricks.brick_id(position.ra.deg, position.dec.deg)).tolist())


@settings(max_examples=60, deadline=None)
@given(RA, DEC, st.floats(-3, 0.2))
def test_a_circle_misses_no_brick_and_adds_none(ra, dec, log_radius):
    center, radius = SkyCoord(ra, dec, unit="deg"), 10**log_radius
    found = set(bricks_in_circle(ra, dec, radius).tolist())
    assert _owners(_points_in_circle(center, radius, 6000)) <= found
    for brick in found:
        ra1, ra2, dec1, dec2 = (float(v) for v in bricks.brick_edges(brick))
        edge = np.linspace(0, 1, 400)
        border = SkyCoord(
            np.concatenate([ra1 + (ra2 - ra1) * edge] * 2 + [np.full(400, ra1), np.full(400, ra2)]),
            np.concatenate(
                [np.full(400, dec1), np.full(400, dec2)] + [dec1 + (dec2 - dec1) * edge] * 2
            ),
            unit="deg",
        )
        touches = border.separation(center).deg.min() <= radius + 1e-3
        assert touches or brick == bricks.brick_id(ra, dec)


def test_radius_zero_is_the_owner_alone():
    assert bricks_in_circle(45.25, 0.125, 0).tolist() == [bricks.brick_id(45.25, 0.125)]


def test_small_circle_on_a_corner_touches_four():
    names = set(bricks.name_of(bricks_in_circle(45.25, 0.125, 1e-4)))
    assert names == {"0451p000", "0453p000", "0451p002", "0453p002"}


def test_circle_over_a_pole_takes_its_whole_rows():
    found = bricks_in_circle(77.0, 90.0, 0.5)
    assert bricks.N_BRICKS in found
    assert len(found) == 1 + 10 + 16


def test_the_whole_sky():
    assert len(bricks_in_circle(0, 0, 180)) == bricks.N_BRICKS
    assert len(bricks_in_box(0, 360, -90, 90)) == bricks.N_BRICKS


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 359.99), st.floats(0, 5), st.floats(-89, 88), st.floats(0, 2))
def test_a_box_is_what_its_points_own(ra, width, dec, height):
    dec2 = min(dec + height, 90.0)
    found = set(bricks_in_box(ra, (ra + width) % 360, dec, dec2).tolist())
    grid = np.meshgrid(ra + width * np.linspace(0, 1, 200), np.linspace(dec, dec2, 60))
    sampled = set(np.unique(bricks.brick_id(*grid)).tolist())
    assert sampled <= found
    # Sampling may miss a brick that the box only grazes: such a one lies at its border.
    for brick in found - sampled:
        ra1, ra2, _, _ = bricks.brick_edges(brick)
        start = (ra1 - ra) % 360
        assert start <= width + 1e-9 or (ra2 - ra) % 360 <= 1e-9 + (ra2 - ra1)


@settings(max_examples=40, deadline=None)
@given(RA, st.floats(-89.5, 89.5), st.integers(3, 6), st.floats(-2, 0), st.integers(0, 10**6))
def test_a_polygon_is_what_its_points_own(ra, dec, n, log_size, seed):
    rng = np.random.default_rng(seed)
    center = SkyCoord(ra, dec, unit="deg")
    # Equally spaced bearings make the polygon convex: its points are positive sums of its corners.
    angle = 2 * np.pi * (np.arange(n) + rng.uniform(0, 1)) / n
    corners = center.directional_offset_by(angle * u.rad, 10**log_size * u.deg)
    found = set(bricks_in_polygon(corners.ra.deg, corners.dec.deg).tolist())
    weights = rng.dirichlet(np.full(n, 0.7), 8000)
    points = weights @ corners.cartesian.xyz.value.T
    inside = SkyCoord(*points.T, representation_type="cartesian")
    inside = SkyCoord(inside.spherical.lon, inside.spherical.lat)
    assert _owners(inside) <= found
    middle = bricks_in_circle(ra, dec, 10**log_size)
    assert found <= set(middle.tolist())


def test_a_polygon_round_a_brick_and_one_inside_it():
    around = bricks_in_polygon([44.9, 45.4, 45.4, 44.9], [-0.2, -0.2, 0.2, 0.2])
    assert bricks.parse_brick_name("0451p000") in around
    assert len(around) == 9
    inside = bricks_in_polygon([45.1, 45.2, 45.15], [0.0, 0.0, 0.1])
    assert bricks.name_of(inside).tolist() == ["0451p000"]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: bricks_in_circle(0, 0, -1), "radius_deg"),
        (lambda: bricks_in_circle(0, 0, np.nan), "radius_deg"),
        (lambda: bricks_in_circle(np.nan, 0, 1), "ra_deg"),
        (lambda: bricks_in_box(0, 1, 5, 4), "dec_min_deg"),
        (lambda: bricks_in_polygon([0, 1], [0, 1]), "three corners"),
        (lambda: bricks_in_polygon([0, 120, 240], [0, 0, 0]), "hemisphere"),
    ],
)
def test_bad_shapes_are_refused(call, match):
    with pytest.raises(InvalidRequestError, match=match):
        call()
