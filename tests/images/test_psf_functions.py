"""PSFs as arrays: turned, centred, modelled."""

import numpy as np
import pytest

from astroquery_lis.images.psf import _axes_of, centroid, moffat_psf, to_photutils, to_sky


def _gauss(size, sigma_x, sigma_y, angle_deg, dy=0.0, dx=0.0):
    y, x = np.indices((size, size)) - size // 2
    y, x = y - dy, x - dx
    angle = np.radians(angle_deg)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = -x * np.sin(angle) + y * np.cos(angle)
    image = np.exp(-0.5 * ((along / sigma_x) ** 2 + (across / sigma_y) ** 2))
    return image / image.sum()


def _moments(image):
    y0, x0 = centroid(image)
    y, x = np.indices(image.shape)
    weight = np.clip(image, 0, None) / np.clip(image, 0, None).sum()
    xx = (weight * (x - x0) ** 2).sum()
    yy = (weight * (y - y0) ** 2).sum()
    xy = (weight * (x - x0) * (y - y0)).sum()
    return xx, yy, xy


NORTH_UP = ((-1, 0), (0, 1))
QUARTER = ((0, 1), (-1, 0))


def test_axes_of_the_sky_leave_a_psf_as_it_is():
    psf = _gauss(63, 3.0, 2.0, 30)
    assert np.abs(to_sky(psf, 0.262, NORTH_UP) - psf).max() < 1e-6


@pytest.mark.parametrize("axes", [NORTH_UP, QUARTER, ((0, -1), (1, 0)), ((1, 0), (0, 1))])
@pytest.mark.parametrize("scale", [0.262, 0.26, 0.454])
def test_elongation_follows_the_ccd(axes, scale):
    sigma_long, sigma_short = 0.9 / scale, 0.55 / scale
    # Long along CCD x.
    psf = _gauss(63, sigma_long, sigma_short, 0, dy=0.3, dx=-0.2)
    turned = to_sky(psf, scale, axes)
    assert turned.sum() == pytest.approx(1, abs=1e-5)
    assert centroid(turned) == pytest.approx((31, 31), abs=0.02)
    east, north = np.asarray(axes)[:, 0]
    xx, yy, _ = _moments(turned)
    long, short = (xx, yy) if abs(east) > abs(north) else (yy, xx)
    assert long == pytest.approx((0.9 / 0.262) ** 2, rel=0.03)
    assert short == pytest.approx((0.55 / 0.262) ** 2, rel=0.03)


def test_a_turn_by_an_angle_has_the_right_sense():
    # CCD x points 30 degrees from east towards north.
    angle = np.radians(30)
    axes = ((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle)))
    turned = to_sky(_gauss(63, 4.0, 2.0, 0), 0.262, axes)
    xx, yy, xy = _moments(turned)
    # East is to the left, so a line from west-south to east-north falls from upper left.
    assert np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)) == pytest.approx(-30, abs=1)


@pytest.mark.parametrize("ra", [45.2, 0.001, 359.999])
def test_axes_from_corners(ra):
    # x to the north, y to the east, 4094 x 2046 pixels of 0.262 arcsec.
    width, height = 2046 * 0.262 / 3600, 4094 * 0.262 / 3600
    dec = 30.0
    stretch = 1 / np.cos(np.radians(dec))
    corners = [
        ((ra + e * stretch) % 360, dec + n)
        for e, n in ((0, 0), (height, 0), (height, width), (0, width))
    ]
    found = _axes_of(np.array(corners))
    assert found == pytest.approx(np.array([[0, 1], [1, 0]]), abs=1e-4)


@pytest.mark.parametrize("fwhm", [0.8, 1.3, 2.0])
def test_moffat_has_its_width(fwhm):
    psf = moffat_psf(fwhm, size=101)
    assert psf.sum() == pytest.approx(1, abs=1e-5)
    line = psf[50, 50:] / psf[50, 50]
    half = np.interp(-0.5, -line, np.arange(51))
    assert 2 * half * 0.262 == pytest.approx(fwhm, rel=0.03)


def test_photutils_gets_a_model_of_flux_one():
    pytest.importorskip("photutils", minversion="2.0")
    from astropy.io import fits

    model = to_photutils(fits.ImageHDU(moffat_psf(1.3)))
    y, x = np.indices((63, 63))
    model.x_0 = model.y_0 = 31
    assert model(x, y).sum() == pytest.approx(1, rel=1e-3)
