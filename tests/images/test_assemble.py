"""The interpolation kernel on what it must keep."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from astroquery_lis import bricks
from astroquery_lis.images.assemble import Assembler, lanczos3, nearest
from astroquery_lis.survey.paths import IMAGE_PRODUCTS
from astroquery_lis.survey.pixel_grids import SkyGrid, rotated_wcs_text
from astroquery_lis.survey.placement import place


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


def _exact(image, y, x):
    """Return the sum over all pixels within three of each place, in double precision."""
    ny, nx = image.shape
    values = []
    for y0, x0 in zip(y, x, strict=True):
        rows, columns = (int(np.floor(v)) + np.arange(-2, 4) for v in (y0, x0))
        weights = [np.sinc(n - v) * np.sinc((n - v) / 3) for n, v in ((rows, y0), (columns, x0))]
        near = image[rows.clip(0, ny - 1)][:, columns.clip(0, nx - 1)].astype(float)
        values.append(weights[0] @ near @ weights[1] / np.prod([w.sum() for w in weights]))
    return np.array(values)


def test_the_tabulated_kernel_is_the_kernel():
    random = np.random.default_rng(2)
    image = random.normal(size=(40, 30)).astype("f4")
    y, x = random.uniform(-0.5, 39.5, 3000), random.uniform(-0.5, 29.5, 3000)
    assert np.abs(lanczos3(image, y, x) - _exact(image, y, x)).max() < 1e-4 * image.max()


DISTORTED = """CTYPE1  = 'RA---TAN-SIP'
CTYPE2  = 'DEC--TAN-SIP'
CRVAL1  = 45.25
CRVAL2  = 0.125
CRPIX1  = 200.0
CRPIX2  = 150.0
CD1_1   = -6.0E-05
CD1_2   = 2.0E-05
CD2_1   = 2.0E-05
CD2_2   = 6.0E-05
A_ORDER = 2
B_ORDER = 2
A_2_0   = 3.0E-05
B_0_2   = -4.0E-05"""


@pytest.mark.parametrize(
    ("target", "shape", "grid"),
    [
        ((45.249, 0.124), (300, 400), None),
        ((150.45, 79.88), (500, 300), None),
        ((45.25, 0.125), (300, 400), rotated_wcs_text(45.25, 0.125, 300, 400, 0.25, 33.0)),
        ((45.25, 0.125), (300, 400), DISTORTED),
    ],
)
def test_what_is_put_together_is_the_kernel_at_the_place_of_each_pixel(target, shape, grid):
    placement = place(*target, *shape, SkyGrid(grid) if grid else None)
    random = np.random.default_rng(3)
    result = np.zeros(shape, "f4")
    images = [random.normal(size=piece.read.shape).astype("f4") for piece in placement.pieces]
    for i, image in enumerate(images):
        Assembler(placement).put(result, IMAGE_PRODUCTS["image"], i, image)
    box = placement.box
    header = fits.Header(placement.grid.cards(x0=box.x0, y0=box.y0))
    row, column = (random.integers(0, n, 2000) for n in shape)
    sky = WCS(header).all_pix2world(column, row, 0)
    owner = bricks.brick_name(*sky)
    assert len(set(owner)) > 1
    for piece, image in zip(placement.pieces, images, strict=True):
        mine = owner == piece.brick
        x, y = bricks.brick_wcs(piece.brick).all_world2pix(*(v[mine] for v in sky), 0)
        y, x = y - piece.read.y0, x - piece.read.x0
        if piece.is_owner:
            expected = image[np.rint(y).astype(int), np.rint(x).astype(int)]
            assert np.array_equal(result[row[mine], column[mine]], expected)
        else:
            found = result[row[mine], column[mine]]
            assert np.abs(found - _exact(image, y, x)).max() < 1e-4 * image.max()


def test_where_places_are_not_smooth_every_pixel_is_computed():
    # Much of the sky, whose pixels are far apart beside what places are interpolated between.
    cards = [("CTYPE1", "RA---CAR"), ("CTYPE2", "DEC--CAR"), ("CRVAL1", 45.0), ("CRVAL2", 0.0)]
    cards += [("CRPIX1", 20.5), ("CRPIX2", 12.5), ("CDELT1", -4.2), ("CDELT2", 4.2)]
    text = "\n".join(str(card).rstrip() for card in fits.Header(cards).cards)
    placement = place(45.0, 0.0, 24, 40, SkyGrid(text))
    assert len(placement.bricks) > 900
    random = np.random.default_rng(4)
    result = np.zeros((24, 40), "i2")
    for i in range(0, len(placement.pieces), 39):
        piece = placement.pieces[i]
        image = random.integers(1, 9000, piece.read.shape).astype("i2")
        Assembler(placement).put(result, IMAGE_PRODUCTS["nexp"], i, image)
        row, column = np.argwhere(placement.labels.of(piece.area) == i)[0]
        row, column = row + piece.area.y0, column + piece.area.x0
        sky = WCS(fits.Header.fromstring(text, sep="\n")).all_pix2world(column, row, 0)
        assert bricks.brick_name(*sky) == piece.brick
        x, y = bricks.brick_wcs(piece.brick).all_world2pix(*sky, 0)
        expected = image[round(float(y)) - piece.read.y0, round(float(x)) - piece.read.x0]
        assert result[row, column] == expected
