"""Legacy cutouts of JWST fields."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from astroquery_lis.client.inputs import image_wcs
from astroquery_lis.exceptions import (
    CoverageWarning,
    InvalidExposureError,
    InvalidRequestError,
    NoCoverageError,
)
from astroquery_lis.jwst_stage.legacy.fields import field_box, fields_from
from astroquery_lis.jwst_stage.legacy_methods import LegacyMethods
from astroquery_lis.sandbox.sky import positions as sky_positions
from astroquery_lis.survey.bricks import brick_edges, brick_grid, brick_id

from .legacy_mosaic import grid, s_region, sources, write_mosaic
from .test_legacy_footprints import ring

STAGE = LegacyMethods()
FIELD = 45.09, 0.062


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
    return write_mosaic(tmp_path_factory.mktemp("i2d"), "field", grid(*FIELD), sources())[0]


@pytest.mark.parametrize(
    ("place", "radius"), [(FIELD, 0.004), ((0.0, 0.02), 0.005), ((45.25, 0.125), 0.004)]
)
def test_the_cutout_holds_the_footprint_and_little_more(survey, place, radius):
    region = ring(*place, radius, turn=20)
    (hdul,) = STAGE.cutouts_for(region, survey=survey, bands="r", margin=2 * u.arcsec)
    (field,) = fields_from(region)
    ny, nx = hdul["IMAGE_R"].shape
    x, y = WCS(hdul["IMAGE_R"].header).world_to_pixel_values(*field.corners())
    edges = np.array([x.min(), nx - 1 - x.max(), y.min(), ny - 1 - y.max()]) * 0.262
    assert edges.min() >= 2 - 0.14
    assert edges.max() < 2 + 2 * 0.262 + 0.14
    assert np.isfinite(hdul["IMAGE_R"].data).all()
    assert (hdul[0].header["NFOOT"], hdul[0].header["FOOT1"]) == (1, "s_region")


def test_dithers_of_a_table_make_one_cutout_and_named_files_one_each(survey, mosaic):
    table = Table({"s_region": [ring(*FIELD, 0.003), ring(FIELD[0] + 0.002, FIELD[1], 0.003)]})
    (hdul,) = STAGE.cutouts_for(table, survey=survey, bands="r")
    assert hdul[0].header["NFOOT"] == 2
    assert len(STAGE.cutouts_for(table, survey=survey, bands="r", union=False)) == 2
    assert len(STAGE.cutouts_for([mosaic, mosaic], survey=survey, bands="r")) == 2
    assert len(STAGE.cutouts_for([mosaic, mosaic], survey=survey, bands="r", union=True)) == 1


def test_on_the_mosaics_grid_a_star_is_on_the_same_pixel_in_both(survey, tmp_path):
    star = sky_positions()["star"]
    wcs = grid(star.ra.deg + 0.001, star.dec.deg - 0.0007, (400, 300))
    path, _ = write_mosaic(tmp_path, "star", wcs, sources())
    (hdul,) = STAGE.cutouts_for(path, survey=survey, bands="rz", like=path)
    with fits.open(path) as jwst:
        assert hdul["IMAGE_R"].shape == jwst["SCI"].shape == (400, 300)
        found, own = WCS(hdul["IMAGE_R"].header), WCS(jwst["SCI"].header)
        x, y = np.array([0.0, 299.0, 250.0]), np.array([0.0, 399.0, 77.0])
        assert np.allclose(found.pixel_to_world_values(x, y), own.pixel_to_world_values(x, y))
        place = own.world_to_pixel(star)
        assert np.allclose(_centroid(jwst["SCI"].data, *place), place, atol=0.1)
        assert np.allclose(_centroid(hdul["IMAGE_R"].data, *place), place, atol=0.2)


def _centroid(image, x, y):
    cut = image[int(y) - 12 : int(y) + 13, int(x) - 12 : int(x) + 13].astype(float)
    cut = np.where(cut > cut.max() / 3, cut, 0)
    rows, columns = np.mgrid[: cut.shape[0], : cut.shape[1]]
    return (
        (cut * columns).sum() / cut.sum() + int(x) - 12,
        (cut * rows).sum() / cut.sum() + int(y) - 12,
    )


def test_each_file_has_its_own_grid_and_one_grid_one_cutout(survey, mosaic, tmp_path):
    other, _ = write_mosaic(tmp_path, "other", grid(*FIELD, (90, 130), 0.1), sources())
    found = STAGE.cutouts_for([mosaic, other], survey=survey, bands="r", like="own")
    assert [hdul["IMAGE_R"].shape for hdul in found] == [(500, 500), (90, 130)]
    (hdul,) = STAGE.cutouts_for([mosaic, other], survey=survey, bands="r", like=other)
    assert hdul["IMAGE_R"].shape == (90, 130)
    assert [hdul[0].header[f"FOOT{n}"] for n in (1, 2)] == ["field_i2d", "other_i2d"]


def test_a_grid_may_be_a_wcs_a_header_or_an_hdulist(mosaic):
    with fits.open(mosaic) as hdul:
        given = [hdul, hdul["SCI"].header, WCS(hdul["SCI"].header), mosaic, str(mosaic)]
        assert {image_wcs(one).array_shape for one in given} == {(500, 500)}


def test_bricks_are_asked_for_as_the_field_needs(survey):
    (answer,) = STAGE.cutouts_for(
        ring(45.25, 0.125, 0.012), survey=survey, bands="r", get_query_payload=True
    )
    assert sorted({url.split("/")[-2] for url in answer["urls"]}) == [
        "0451p000",
        "0451p002",
        "0453p000",
        "0453p002",
    ]


def test_coarser_pixels_and_turned_boxes_still_hold_the_field(survey):
    pytest.importorskip("reproject")
    region = ring(*FIELD, 0.004)
    (field,) = fields_from(region)
    for more in ({"pixel_scale": 0.5 * u.arcsec}, {"rotation": 30 * u.deg}):
        (hdul,) = STAGE.cutouts_for(region, survey=survey, bands="r", source="bricks", **more)
        ny, nx = hdul["IMAGE_R"].shape
        x, y = WCS(hdul["IMAGE_R"].header).world_to_pixel_values(*field.corners())
        assert min(x.min(), nx - 1 - x.max(), y.min(), ny - 1 - y.max()) > 0


def test_a_field_off_the_survey(survey):
    regions = [ring(*FIELD, 0.002), ring(95.0, -30.0, 0.002)]
    with pytest.raises(NoCoverageError):
        STAGE.cutouts_for(regions, survey=survey, bands="r")
    with pytest.warns(CoverageWarning, match="nothing of s_region"):
        found = STAGE.cutouts_for(regions, survey=survey, bands="r", on_missing="warn")
    assert found[1] is None
    assert found[0]["IMAGE_R"].data.any()


def test_a_field_near_the_pole_is_boxed_without_asking_anybody(survey):
    (answer,) = STAGE.cutouts_for(
        ring(200.0, 84.0, 0.01), survey=survey, bands="r", get_query_payload=True
    )
    assert answer["urls"]


def test_the_box_is_on_the_grid_of_the_brick_that_owns_its_middle():
    """Near a pole the grids of neighbours are turned: a box of another one would not hold it."""
    rng = np.random.default_rng(5)
    _, (ra2,), (dec1,), (dec2,) = brick_edges([brick_id(200.0, 86.0)])
    for _ in range(40):
        # A thin wedge over the edge: the middle of its circle and of its box are apart.
        ra = ra2 + rng.uniform(-0.7, -0.3) + np.array([0.0, 1.2, 0.02])
        dec = rng.uniform(dec1 + 0.05, dec2 - 0.05) + np.array([0.0, 0.004, 0.03])
        (field,) = fields_from(SkyCoord(ra, dec, unit="deg"))
        position, (ny, nx) = field_box(field, 0.0)
        owner = brick_grid(int(brick_id(position.ra.deg, position.dec.deg)))
        x0, y0 = owner.to_pixel(position.ra.deg, position.dec.deg)
        x, y = owner.to_pixel(ra, dec)
        assert np.abs(x - x0).max() <= nx / 2
        assert np.abs(y - y0).max() <= ny / 2
        assert np.ptp(x) > nx - 5
        assert np.ptp(y) > ny - 5


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"margin": 3}, "margin"),
        ({"margin": 1 * u.s}, "margin"),
        ({"union": "yes"}, "union"),
        ({"like": 7}, "like=7"),
        ({"like": "own"}, "needs files"),
        ({"like": "absent_i2d.fits"}, "is not a file that is there"),
        ({"wcs": grid(*FIELD)}, "like"),
        ({"like": grid(*FIELD), "pixel_scale": 1 * u.arcsec}, "pixel_scale"),
        ({"on_missing": "ignore"}, "on_missing"),
    ],
)
def test_wrong_arguments(survey, sky, more, match):
    with pytest.raises(InvalidRequestError, match=match):
        STAGE.cutouts_for(ring(*FIELD, 0.004), survey=survey, **more)
    assert not sky.requests


def test_a_field_larger_than_a_cutout_says_what_to_do(survey, sky):
    with pytest.raises(InvalidRequestError, match=r"pixel_scale, or union=False"):
        STAGE.cutouts_for("CIRCLE ICRS 45 0 0.5", survey=survey)
    assert not sky.requests


def test_a_file_without_a_grid(survey, tmp_path):
    path = tmp_path / "a_cal.fits"
    sci = fits.ImageHDU(np.zeros((4, 4)), name="SCI")
    sci.header["S_REGION"] = s_region(grid(*FIELD))
    fits.HDUList([fits.PrimaryHDU(), sci]).writeto(path)
    with pytest.raises(InvalidExposureError, match="take an i2d"):
        STAGE.cutouts_for(path, survey=survey, like=path)
    with pytest.raises(InvalidRequestError, match="no image"):
        image_wcs(fits.HDUList([fits.PrimaryHDU()]))
    for bare in (sci.header, WCS(naxis=2)):
        with pytest.raises(InvalidRequestError, match="no celestial axes.*take an i2d"):
            image_wcs(bare)
    with pytest.raises(InvalidRequestError, match="like=7 must be a WCS.*'own' for the grid"):
        STAGE.cutouts_for(path, survey=survey, like=7)


def test_zero_margin_and_corners_as_a_skycoord(survey):
    corners = SkyCoord([45.092, 45.088, 45.088], [0.060, 0.060, 0.064], unit="deg")
    (hdul,) = STAGE.cutouts_for(corners, survey=survey, bands="r", margin=0 * u.arcsec)
    assert hdul["IMAGE_R"].shape == pytest.approx((55, 55), abs=3)
