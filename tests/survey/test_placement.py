"""Cutouts laid over bricks: sizes, targets, ownership."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.nddata import Cutout2D
from astropy.wcs import WCS
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from astroquery_lis import bricks
from astroquery_lis.survey.bricks import name_of
from astroquery_lis.survey.pixel_grids import Box, SkyGrid, rotated_wcs_text
from astroquery_lis.survey.placement import OPTICAL, WISE, place, without


def pixel_sky(grid, box, part):
    """Return RA and Dec, degrees, of the pixels of a part of a cutout."""
    y, x = np.mgrid[part.slices]
    return grid.to_sky(x + box.x0, y + box.y0)


def _labels(placement):
    """Return the number of the piece of every pixel."""
    ny, nx = placement.shape
    if placement.labels is None:
        return np.zeros((ny, nx), int)
    return placement.labels.of(Box(0, ny, 0, nx))


@settings(max_examples=50, deadline=None)
@given(st.floats(45.01, 45.24), st.floats(-0.12, 0.12), st.integers(1, 60), st.integers(1, 60))
def test_the_first_pixel_is_that_of_cutout2d(ra, dec, ny, nx):
    wcs = bricks.brick_wcs("0451p000")
    doubled = 2 * np.array(wcs.world_to_pixel_values(ra, dec))
    assume(np.abs(doubled - np.rint(doubled)).min() > 1e-4)
    placement = place(ra, dec, ny, nx)
    blank = np.broadcast_to(np.float32(0), (3600, 3600))
    cutout = Cutout2D(blank, SkyCoord(ra, dec, unit="deg"), (ny, nx), wcs=wcs, mode="partial")
    x0, y0 = cutout.origin_original
    assert (placement.box.y0, placement.box.x0) == (y0, x0)
    assert placement.shape == (ny, nx)


def test_inside_one_image_everything_is_native():
    placement = place(45.24, 0.0, 256, 256)
    assert [piece.brick for piece in placement.pieces] == ["0451p000"]
    assert placement.labels is None


@pytest.mark.parametrize(
    ("ra", "dec", "shape", "names"),
    [
        (45.25, 0.125, (256, 256), {"0451p000", "0453p000", "0451p002", "0453p002"}),
        (0.0, 0.02, (100, 300), {"0001p000", "3598p000"}),
        (180.15, 32.375, (300, 100), {"1801p325", "1801p322"}),
        (45.125, 0.0, (4000, 10), {"0451p000", "0451p002", "0451m002"}),
        # Larger than the squares that are looked up at once, on a curved border.
        (150.45, 79.99, (700, 1300), {"1495p800", "1509p800"}),
    ],
)
def test_pixels_come_from_their_owners(ra, dec, shape, names):
    placement = place(ra, dec, *shape)
    assert {piece.brick for piece in placement.pieces} == names
    assert placement.pieces[0].brick == bricks.brick_name(ra, dec)
    position = pixel_sky(placement.grid, placement.box, Box(0, shape[0], 0, shape[1]))
    owner = bricks.brick_name(*position)
    labels = _labels(placement)
    labelled = np.array([piece.brick for piece in placement.pieces])[labels]
    assert np.array_equal(owner, labelled)
    for i, piece in enumerate(placement.pieces):
        assert piece.n_pixels == np.count_nonzero(labels == i)
        assert piece.read.is_within(3600, 3600)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 360), st.floats(-90, 90), st.integers(1, 400))
def test_anywhere_on_the_sky_every_pixel_has_one_source(ra, dec, size):
    placement = place(ra, dec, size, size)
    if placement.labels is None:
        assert placement.pieces[0].read == placement.box
        return
    labels = _labels(placement)
    assert labels.max() < len(placement.pieces)
    unlabelled = np.count_nonzero(labels < 0)
    near_pole = abs(dec) > 89
    assert unlabelled == 0 or near_pole


def test_another_image_stands_in_for_a_piece_that_is_lost():
    placement = place(45.249, 0.124, 100, 100)
    lost = {i for i, piece in enumerate(placement.pieces) if piece.brick != "0453p000"}
    found = without(placement, lost, lambda brick, other: name_of(other) == "0453p000")
    spare = [piece for piece in found.pieces if piece.is_spare]
    assert {piece.brick for piece in spare} == {"0453p000"}
    ra, dec = pixel_sky(placement.grid, placement.box, Box(0, 100, 0, 100))
    x, y = bricks.brick_wcs("0453p000").world_to_pixel_values(ra, dec)
    held = (x > -0.5) & (x < 3599.5) & (y > -0.5) & (y < 3599.5)
    assert np.array_equal(_labels(found) >= 0, held)


@pytest.mark.parametrize(
    ("width", "height"), [(0.05, 2.0), (2.0, 0.05), (0.05, 20.0), (40.0, 40.0)]
)
@pytest.mark.parametrize("offset", range(0, 32, 6))
def test_what_stands_in_fits_pixels_of_any_shape(width, height, offset):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.cdelt = (45.375, 0.0), (-width / 3600, height / 3600)
    # Over the border that is a half of a brick away along the longer side.
    steps = 450 / width * (width > height), 450 / height * (height >= width)
    wcs.wcs.crpix = [100.5 + offset - step for step in steps]
    ny, nx = 230, 210
    placement = place(45.375, 0.0, ny, nx, SkyGrid(wcs.to_header().tostring(sep="\n")))
    lost = {i for i, piece in enumerate(placement.pieces) if piece.brick != "0453p000"}
    stood_in = without(placement, lost, lambda brick, other: name_of(other) == "0453p000")
    ra, dec = wcs.pixel_to_world_values(*np.meshgrid(np.arange(nx), np.arange(ny)))
    x, y = bricks.brick_wcs("0453p000").world_to_pixel_values(ra, dec)
    held = (x > -0.5) & (x < 3599.5) & (y > -0.5) & (y < 3599.5)
    assert held.any()
    assert not held.all()
    assert np.array_equal(_labels(stood_in) >= 0, held)


def test_a_brick_whose_image_holds_none_of_its_pixels_is_left_out():
    # A degree from the pole an image is a few pixels short of what its brick owns.
    placement = place(0.9858600612533142, 89.63763414216486, 300, 300)
    position = pixel_sky(placement.grid, placement.box, Box(0, 300, 0, 300))
    owned = bricks.brick_id(*position) == 662148
    assert owned.any()
    x, y = bricks.brick_wcs(662148).world_to_pixel_values(*(v[owned] for v in position))
    assert not ((x > -0.5) & (x < 3599.5) & (y > -0.5) & (y < 3599.5)).any()
    assert 662148 not in {piece.brick_id for piece in placement.pieces}
    assert (_labels(placement)[owned] == -1).all()


_near_an_edge = st.sampled_from([0.0, 0.125, 45.25, 60.375]).flatmap(
    lambda edge: st.floats(edge - 1e-3, edge + 1e-3)
)
_scales = st.sampled_from([None, (0.1, 33.0), (0.262, 0.0), (3.0, 200.0), (40.0, 45.0)])


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(st.floats(0, 359.99), _near_an_edge),
    st.one_of(st.floats(-90, 90), _near_an_edge),
    st.integers(1, 600),
    st.integers(1, 600),
    _scales,
    st.sampled_from([OPTICAL, WISE]),
)
@example(49.956025891387654, 19.375010209568703, 1, 43, None, OPTICAL)  # all of other bricks
def test_owners_are_those_of_every_pixel_looked_up(ra, dec, ny, nx, turned, frame):
    grid = SkyGrid(rotated_wcs_text(ra, dec, ny, nx, *turned)) if turned else None
    placement = place(ra % 360, dec, ny, nx, grid, frame)
    owners = bricks.brick_id(*pixel_sky(placement.grid, placement.box, Box(0, ny, 0, nx)))
    ids = [piece.brick_id for piece in placement.pieces]
    assert placement.bricks == ids
    # Whatever owns the pixels, the grid and the names of files are of the target's brick.
    assert placement.owner == bricks.brick_id(ra % 360, dec)
    found = np.array([*ids, -1])[_labels(placement)]
    # Within a degree of the poles no image holds some pixels.
    is_polar = np.isin(owners, ids, invert=True) | (found == -1)
    assert np.array_equal(found[~is_polar], owners[~is_polar])
    assert abs(dec) > 80 or not is_polar.any()
    for piece in placement.pieces:
        rows, columns = np.nonzero(owners == piece.brick_id)
        assert piece.area == (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)


def test_the_bricks_of_the_largest_box_are_found_without_looking_at_its_pixels():
    placement = place(150.1, 12.2, 10_000, 10_000)
    corners = np.array([(y, x) for y in (0, 5000, 9999) for x in (0, 5000, 9999)])
    y, x = corners.T + np.array([[placement.box.y0], [placement.box.x0]])
    assert set(bricks.brick_id(*placement.grid.to_sky(x, y)).tolist()) <= set(placement.bricks)
    assert len(placement.bricks) == 16
    assert sum(piece.n_pixels for piece in placement.pieces) == 10_000**2
