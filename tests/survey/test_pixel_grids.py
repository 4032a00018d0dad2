"""The plain-number TAN grid against astropy's WCS."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from astroquery_lis.cli.calls import grid_of_file
from astroquery_lis.client.inputs import image_wcs
from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.survey.pixel_grids import (
    Box,
    SkyGrid,
    TangentGrid,
    as_wcs_text,
    cards_text,
)


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


@pytest.mark.parametrize("axes", ["GLON GLAT", "RA DEC"])
def test_a_grid_of_any_frame_finds_its_pixels_again(axes):
    header = fits.Header(TangentGrid(10.0, 20.0, 49.5, 49.5, 0.262 / 3600).cards())
    for number, axis in enumerate(axes.split(), 1):
        header[f"CTYPE{number}"] = f"{axis:-<4}-TAN" if axis != "RA" else "RA---TAN"
    header["RADESYS"] = "FK5"
    grid = SkyGrid(cards_text(header))
    y, x = np.mgrid[:3, :5]
    sky = grid.to_sky(x, y)
    expected = WCS(header).pixel_to_world(x, y).icrs
    assert SkyCoord(*sky, unit="deg").separation(expected).arcsec.max() < 1e-6
    assert np.allclose(grid.to_pixel(*sky), (x, y), rtol=0, atol=1e-4)


def test_pixels_of_a_distorted_grid_keep_the_shape_of_what_was_asked():
    header = fits.Header(TangentGrid(10.0, 20.0, 49.5, 49.5, 0.262 / 3600).cards())
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    header["A_ORDER"] = header["B_ORDER"] = 2
    header["A_2_0"] = header["B_0_2"] = 1e-2
    # Where the distortion folds the plane there is no solution.
    ra, dec = np.meshgrid([10.0, 10.2], [20.0, 20.1, 20.3])
    x, y = SkyGrid(cards_text(header)).to_pixel(ra, dec)
    assert x.shape == y.shape == ra.shape
    assert (x[0, 0], y[0, 0]) == pytest.approx((49.5, 49.5), abs=1e-6)


@pytest.fixture
def survey_file(tmp_path):
    """A file as legacypipe writes it, compressed, behind an empty image and a table."""
    header = fits.Header(TangentGrid(10.0, 20.0, 59.5, 49.5, 0.262 / 3600).cards())
    header["EQUINOX"], header["BRICKNAM"] = 2000.0, "0100p200"
    del header["RADESYS"]
    flat = fits.ImageHDU(np.zeros((4, 4), np.float32))
    rows = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])])
    image = fits.CompImageHDU(np.zeros((100, 120), np.float32), header)
    path = tmp_path / "coadd.fits.fz"
    fits.HDUList([fits.PrimaryHDU(), flat, rows, image]).writeto(path)
    return path


def test_a_grid_is_the_same_as_a_file_a_header_and_a_wcs(survey_file):
    with fits.open(survey_file) as hdul:
        sources = [hdul, hdul[3].header, image_wcs(survey_file)]
        texts = {as_wcs_text(source) for source in sources}
        given = [image_wcs(source) for source in (survey_file, str(survey_file), *sources)]
        given.append(grid_of_file(str(survey_file)))
    ((text, ny, nx),) = texts
    assert (ny, nx) == (100, 120)
    place = SkyCoord(10.0, 20.0, unit="deg")
    ra, dec = SkyGrid(text).to_sky(59.5, 49.5)
    assert SkyCoord(ra, dec, unit="deg").separation(place).arcsec < 1e-6
    for wcs in given:
        assert wcs.array_shape == (100, 120)
        assert wcs.pixel_to_world(59.5, 49.5).icrs.separation(place).arcsec < 1e-6


@pytest.mark.parametrize(
    "order", [("RA---TAN", "DEC--TAN", "FREQ"), ("FREQ", "RA---TAN", "DEC--TAN")]
)
def test_the_plane_of_a_cube_is_that_of_its_sky(order):
    header = fits.Header()
    header["NAXIS"] = 3
    sizes = {"RA---TAN": 120, "DEC--TAN": 100, "FREQ": 7}
    values = {"RA---TAN": 10.0, "DEC--TAN": 20.0, "FREQ": 1.4e9}
    for axis, kind in enumerate(order, 1):
        header[f"NAXIS{axis}"], header[f"CTYPE{axis}"] = sizes[kind], kind
        header[f"CRVAL{axis}"], header[f"CRPIX{axis}"] = values[kind], 1.0
        header[f"CDELT{axis}"] = 1e6 if kind == "FREQ" else 1e-4
    text, ny, nx = as_wcs_text(header)
    assert (ny, nx) == (100, 120)
    assert np.allclose(SkyGrid(text).to_sky(0, 0), (10.0, 20.0), rtol=0, atol=1e-9)


def test_what_is_no_grid_is_refused(tmp_path):
    page = tmp_path / "page.fits"
    page.write_text("<html>" * 1000)
    flat = tmp_path / "flat.fits"
    fits.PrimaryHDU(np.zeros((4, 4), np.float32)).writeto(flat)
    lacking = fits.Header(TangentGrid(10.0, 20.0, 59.5, 49.5, 0.262 / 3600).cards())
    for source, match in (
        (page, "cannot be read as FITS"),
        (flat, "no image with a celestial WCS"),
        (tmp_path / "none.fits", "not a file that is there"),
        (lacking, "does not tell the size"),
        (7, "wcs=7 must be a WCS"),
    ):
        with pytest.raises(InvalidRequestError, match=match) as caught:
            as_wcs_text(image_wcs(source, "wcs"))
        assert caught.value.parameter == "wcs"
