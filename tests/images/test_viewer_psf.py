"""PSFs through the client, against the truth of the sandbox."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from astroquery_lis.exceptions import (
    CoverageWarning,
    FailoverWarning,
    InvalidRequestError,
    MissingDataError,
    NoCoverageError,
    ServiceDownError,
    UnexpectedContentError,
)
from astroquery_lis.images.psf import centroid

NORTH = SkyCoord(180.15, 32.5, unit="deg")


pytestmark = pytest.mark.usefixtures("viewer")


def _half_widths(image):
    """Return widths, pixels, and position angle, degrees east of north, of the core."""
    y0, x0 = centroid(image)
    y, x = np.indices(image.shape)
    above = np.clip(image - 0.3 * image.max(), 0, None)
    above /= above.sum()
    xx = (above * (x - x0) ** 2).sum()
    yy = (above * (y - y0) ** 2).sum()
    xy = (above * (x - x0) * (y - y0)).sum()
    long, short = np.linalg.eigvalsh([[xx, xy], [xy, yy]])[::-1] ** 0.5
    # East is towards smaller x.
    angle = np.degrees(0.5 * np.arctan2(-2 * xy, yy - xx)) % 180
    return long, short, angle


def _fwhm_arcsec(image):
    """Return the width of a round PSF at half its maximum, by its radial profile."""
    y0, x0 = centroid(image)
    y, x = np.indices(image.shape)
    radius = np.hypot(y - y0, x - x0).ravel()
    order = np.argsort(radius)
    value = image.ravel()[order] / image.max()
    first = np.argmax(value < 0.5)
    near = slice(max(first - 8, 0), first + 8)
    slope, offset = np.polyfit(value[near], radius[order][near], 1)
    return 2 * (slope * 0.5 + offset) * 0.262


def test_psfs_of_the_south(sky, survey):
    hdul = survey.get_psf(sky.positions["star"])
    assert [hdu.name for hdu in hdul[1:]] == ["PSF_G", "PSF_R", "PSF_I", "PSF_Z"]
    for hdu in hdul[1:]:
        assert hdu.data.sum() == pytest.approx(1, abs=1e-5)
        assert hdu.shape == (63, 63)
        assert hdu.header["PIXSCALE"] == 0.262
        assert hdu.header["CAMERA"] == "DECam"
        assert hdu.header["ORIENT"] == "CCD"


def test_psfs_of_the_north_come_from_two_cameras(survey):
    hdul = survey.get_psf(NORTH)
    shapes = {hdu.name: (hdu.shape[0], hdu.header["PIXSCALE"]) for hdu in hdul[1:]}
    assert shapes == {"PSF_G": (31, 0.454), "PSF_R": (31, 0.454), "PSF_Z": (63, 0.26)}


@pytest.mark.parametrize("name", ["star", "north"])
def test_turned_to_the_sky(sky, survey, name):
    position = NORTH if name == "north" else sky.positions[name]
    hdul = survey.get_psf(position, to_sky=True, bands="grz")
    for hdu in hdul[1:]:
        assert hdu.data.sum() == pytest.approx(1, abs=1e-5)
        assert centroid(hdu.data) == pytest.approx((31, 31), abs=0.05)
        assert hdu.header["PIXSCALE"] == 0.262
        assert hdu.header["ROTFROM"] == "exposures"
        truth = sky.psf_truth(position, hdu.header["BAND"])
        assert _fwhm_arcsec(hdu.data) == pytest.approx(truth.fwhm_arcsec, rel=0.03)


@pytest.mark.parametrize("origin", ["exposures", "nominal"])
def test_an_elongated_psf_comes_out_turned(sky, survey, origin):
    position = sky.positions["elongated"]
    if origin == "nominal":
        sky.faults.add("status", match="/viewer/ccds/*", times=None, code=500)
    hdul = survey.get_psf(position, to_sky=True, bands="r")
    assert hdul["PSF_R"].header["ROTFROM"] == origin
    truth = sky.psf_truth(position, "r")
    assert truth.axis_ratio < 0.9
    long, short, angle = _half_widths(hdul["PSF_R"].data)
    assert short / long == pytest.approx(truth.axis_ratio, abs=0.04)
    assert (angle - truth.position_angle_deg + 90) % 180 - 90 == pytest.approx(0, abs=3)


def test_beside_ra_0_the_viewer_is_asked_for_ccds_on_both_sides(sky, survey):
    psf = survey.get_psf(SkyCoord(0.0005, 0.0, unit="deg"), bands="r", to_sky=True)["PSF_R"]
    assert psf.header["ROTFROM"] == "exposures"
    (asked,) = [record.path for record in sky.requests if "/ccds/" in record.path]
    # Of a negative RA the viewer leaves out what is east of 0.
    assert "ralo=359.998000&rahi=0.003000" in asked


def test_the_model_of_the_bricks_says_that_it_is_one(sky, survey):
    hdul = survey.get_psf(sky.positions["star"], bands="gr", source="bricks")
    for hdu in hdul[1:]:
        assert hdu.header["PSFMODEL"] == "MOFFAT"
        assert hdu.header["ORIENT"] == "SKY"
        assert hdu.data.sum() == pytest.approx(1, abs=1e-5)
        truth = sky.psf_truth(sky.positions["star"], hdu.header["BAND"])
        assert hdu.header["FWHM"] == pytest.approx(truth.fwhm_arcsec, rel=0.05)
        assert _fwhm_arcsec(hdu.data) == pytest.approx(hdu.header["FWHM"], rel=0.03)
    with pytest.raises(InvalidRequestError, match="'psfsize' is not in dr7"):
        survey.get_psf(sky.positions["star"], release="dr7", source="bricks")


def test_viewer_down_the_model_answers(sky, survey):
    sky.faults.add("status", match="/viewer/*", times=None, code=503)
    with pytest.warns(FailoverWarning, match="Source viewer failed"):
        hdul = survey.get_psf(sky.positions["star"], bands="r")
    assert hdul[0].header["FAILED1"] == "viewer"
    assert hdul["PSF_R"].header["PSFMODEL"] == "MOFFAT"
    with pytest.raises(ServiceDownError):
        survey.get_psf(sky.positions["star"], bands="r", source="viewer")


def test_missing_bands_and_places(sky, survey):
    with pytest.raises(NoCoverageError):
        survey.get_psf(sky.positions["off"], bands="r", source="viewer")
    with pytest.raises((MissingDataError, UnexpectedContentError)):
        survey.get_psf(NORTH, bands="gi", source="viewer")
    with pytest.raises(InvalidRequestError, match="bands="):
        survey.get_psf(NORTH, bands="x")


def test_a_cutout_with_its_psf(sky, survey):
    hdul = survey.get_cutout(sky.positions["star"], 32, bands="gr", products=("image", "psf"))
    assert [hdu.name for hdu in hdul[1:]] == ["IMAGE_G", "IMAGE_R", "PSF_G", "PSF_R"]
    assert hdul["PSF_G"].header["ORIENT"] == "SKY"
    alone = survey.get_cutout(sky.positions["star"], 32, bands="g", products="psf")
    assert "PSF_G" in alone


def test_payload(sky, survey):
    payload = survey.get_psf(NORTH, bands="gz", get_query_payload=True)
    assert payload == {
        "service": f"{sky.viewer_url}/coadd-psf/",
        "params": {"ra": "180.15", "dec": "32.5", "layer": "ls-dr9-north", "bands": "gz"},
    }
    assert len(sky.requests) == 0


def test_no_exposure_is_no_coverage_and_one_band_that_fails_leaves_the_others(sky, survey):
    star = sky.positions["star"]
    # The viewer answers 500 as soon as one band fails, and to that band alone.
    for match in ("*coadd-psf*bands=griz*", "*coadd-psf*bands=i*"):
        sky.faults.add("status", match=match, code=500, times=None)
    with pytest.warns(CoverageWarning, match="No PSF in i"):
        hdul = survey.get_psf(star, source="viewer")
    assert [hdu.name for hdu in hdul[1:]] == ["PSF_G", "PSF_R", "PSF_Z"]
    with pytest.raises(ServiceDownError):
        survey.get_psf(star, source="viewer", bands="i")
    sky.faults.add("status", match="*coadd-psf*", code=500, times=None)
    with pytest.raises(NoCoverageError):
        survey.get_psf(SkyCoord(45.5, 0.5, unit="deg"), source="viewer", bands="r")
