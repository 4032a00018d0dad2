"""The compass and the scale bar over a picture, against the WCS that the picture was made with."""

import re

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

from astroquery_lis.images.cutout_hdus import sky_matrix
from astroquery_lis.pictures.page import figure
from astroquery_lis.pictures.plot import sky_marks
from astroquery_lis.pictures.rgb import north_up

SIDE_ARCSEC = 0.5
SIZE_PIX = 101


def _grid(angle_deg, handedness):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = 150.0, 60.0
    wcs.wcs.crpix = 51, 51
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    wcs.wcs.cd = np.array([[c, -s], [s, c]]) @ np.diag(handedness) * SIDE_ARCSEC / 3600
    return wcs


def _seen_at(wcs, place):
    """Return where a star is in the picture, from its centre, right and down."""
    x, y = (int(np.rint(value)) for value in wcs.world_to_pixel(place))
    picture = np.zeros((SIZE_PIX, SIZE_PIX))
    picture[y, x] = 1
    row, column = np.argwhere(north_up(picture, sky_matrix(wcs.to_header())))[0]
    return np.array([column - 50, row - 50])


@pytest.mark.parametrize("handedness", [(-1, 1), (1, 1), (-1, -1), (1, -1)])
@pytest.mark.parametrize("angle_deg", [0, 30, 100, 200, 315])
def test_arrows_point_to_where_a_star_moves(angle_deg, handedness):
    wcs = _grid(angle_deg, handedness)
    marks = sky_marks((SIZE_PIX, SIZE_PIX), sky_matrix(wcs.to_header()))
    ways = re.findall(r'<path d="M[-\d. ]+l([-\d.]+) ([-\d.]+)"/><text.*?>([EN])</text>', marks)
    assert [name for *_, name in ways] == ["E", "N"]
    centre = SkyCoord(150, 60, unit="deg")
    for right, down, name in ways:
        moved = centre.directional_offset_by({"E": 90, "N": 0}[name] * u.deg, 20 * u.arcsec)
        expected = _seen_at(wcs, moved)
        arrow = np.array([float(right), float(down)])
        cosine = arrow @ expected / np.hypot(*arrow) / np.hypot(*expected)
        assert cosine > 0.999


def test_the_bar_is_as_long_as_it_says():
    marks = sky_marks((SIZE_PIX, SIZE_PIX), sky_matrix(_grid(30, (-1, 1)).to_header()))
    length = float(re.search(r"h([\d.]+)", marks)[1])
    assert "10″" in marks
    assert length * SIDE_ARCSEC == pytest.approx(10)


def test_marks_are_in_the_pixels_of_the_picture():
    matrix = np.diag([-1, 1]) / 3600
    shown = figure(np.zeros((40, 60), np.uint8), "sky", marks=sky_marks((40, 60), matrix))
    assert '<div class="view"><img' in shown
    assert 'viewBox="0 0 60 40"' in shown


@pytest.mark.parametrize(("side", "is_enlarged"), [(64, True), (500, False)])
def test_only_what_is_enlarged_shows_its_pixels(side, is_enlarged):
    shown = figure(np.zeros((side, side), np.uint8), "sky")
    assert ('class="pixels"' in shown) == is_enlarged
