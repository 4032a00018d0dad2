"""The plain-number TAN grid against astropy's WCS."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from astroquery_lis.survey.pixel_grids import Box, TangentGrid
from astroquery_lis.survey.sky_grids import SkyGrid, as_wcs_text


@pytest.mark.parametrize("dec", [0.0, 32.25, -68.3, 80.5, 90.0])
def test_sky_and_pixel_agree_with_astropy(dec):
    grid = TangentGrid(359.9, dec, 1799.5, 1799.5, 0.262 / 3600)
    x, y = np.random.default_rng(1).uniform(-500, 4000, (2, 2000))
    ra, dec_found = grid.to_sky(x, y)
    expected = grid.wcs().pixel_to_world_values(x, y)
    offset = (ra - expected[0] + 180) % 360 - 180
    assert np.abs(offset * np.cos(np.radians(dec_found))).max() < 1e-11
    assert np.abs(dec_found - expected[1]).max() < 1e-11
    back = grid.to_pixel(ra, dec_found)
    assert np.abs(back[0] - x).max() < 1e-6
    assert np.abs(back[1] - y).max() < 1e-6


def test_the_far_hemisphere_is_nowhere():
    grid = TangentGrid(10.0, 0.0, 0.0, 0.0, 1e-4)
    assert np.isnan(grid.to_pixel(190.0, 0.0)).all()


def test_a_box_has_the_wcs_of_its_pixels():
    grid = TangentGrid(10.0, 20.0, 1799.5, 1799.5, 0.262 / 3600)
    whole, part = grid.wcs(), grid.wcs(x0=100, y0=-40, shape=(5, 7))
    assert part.array_shape == (5, 7)
    expected = np.array(whole.pixel_to_world_values(103, -36))
    assert np.array(part.pixel_to_world_values(3, 4)) == pytest.approx(expected, abs=1e-12)


@given(*[st.integers(-50, 150)] * 4)
def test_clipping_keeps_exactly_what_is_inside(y0, y1, x0, x1):
    box = Box(y0, max(y0, y1), x0, max(x0, x1)).clipped(100, 80)
    marked = np.zeros((100, 80), int)
    marked[box.slices] = 1
    rows, columns = np.mgrid[:100, :80]
    inside = (rows >= y0) & (rows < y1) & (columns >= x0) & (columns < x1)
    assert np.array_equal(marked == 1, inside)
    assert box.is_within(100, 80)


def test_a_header_of_the_survey_is_in_icrs_and_another_means_what_it_says():
    # As legacypipe writes it: an equinox, no frame.
    header = fits.Header(TangentGrid(10.0, 20.0, 49.5, 49.5, 0.262 / 3600).cards())
    header["NAXIS"], header["NAXIS1"], header["NAXIS2"] = 2, 100, 100
    header["EQUINOX"] = 2000.0
    del header["RADESYS"]
    fk5 = SkyCoord(10.0, 20.0, unit="deg", frame="fk5").icrs
    for card, expected in (("LEGPIPEV", SkyCoord(10.0, 20.0, unit="deg")), ("OBJECT", fk5)):
        text, ny, nx = as_wcs_text(fits.Header([*header.cards, (card, "x")]))
        ra, dec = SkyGrid(text).to_sky(49.5, 49.5)
        assert SkyCoord(ra, dec, unit="deg").separation(expected).arcsec < 1e-6
        assert (ny, nx) == (100, 100)
    assert fk5.separation(SkyCoord(10.0, 20.0, unit="deg")).arcsec > 0.01
