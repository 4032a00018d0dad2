"""The interpolation kernel on what it must keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from astroquery_lis.images.assemble import lanczos3, nearest


def _star(y0, x0, sigma=1.9, shape=(60, 60)):
    y, x = np.indices(shape)
    value = np.exp(-((y - y0) ** 2 + (x - x0) ** 2) / (2 * sigma**2))
    return (value / (2 * np.pi * sigma**2)).astype("f4")


def test_whole_pixels_are_copied():
    image = np.random.default_rng(1).normal(size=(20, 30)).astype("f4")
    y, x = np.indices(image.shape)
    assert np.allclose(lanczos3(image, y.ravel(), x.ravel()), image.ravel(), atol=1e-6)
    assert np.array_equal(nearest(image, y.ravel() + 0.4, x.ravel() - 0.4), image.ravel())


@given(st.floats(5, 14), st.floats(5, 14))
def test_a_constant_stays_itself(y, x):
    image = np.full((20, 20), 3.25, "f4")
    assert lanczos3(image, np.array([y]), np.array([x]))[0] == pytest.approx(3.25, rel=1e-6)


@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
def test_a_star_keeps_flux_and_place(dy, dx):
    y, x = (v.ravel().astype(float) for v in np.indices((60, 60)))
    moved = lanczos3(_star(30.0, 30.0), y + dy, x + dx).reshape(60, 60)
    assert moved.sum() == pytest.approx(1, abs=1e-3)
    assert np.abs(moved - _star(30.0 - dy, 30.0 - dx)).max() < 6e-3 * moved.max()
