"""Cutouts handed on to CCDData and to GALFIT: pixel for pixel, and nothing bad unmasked."""

import re

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, Cutout2D
from astropy.table import Table
from astropy.wcs import WCS

from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.images.analysis import galfit_inputs, to_ccddata

PRODUCTS = ("image", "invvar", "maskbits")


pytestmark = pytest.mark.usefixtures("viewer")


@pytest.fixture
def bright(sky, survey):
    """The saturated star, with everything that GALFIT needs."""
    return survey.get_cutout(sky.positions["bright"], 120, bands="gr", products=(*PRODUCTS, "psf"))


def test_ccddata_has_pixels_noise_mask_and_place(sky, bright):
    ccd = to_ccddata(bright, "r")
    assert isinstance(ccd, CCDData)
    assert np.array_equal(ccd.data, bright["IMAGE_R"].data)
    assert ccd.unit == u.Unit("nmgy")
    assert (1 * ccd.unit).to(u.uJy, u.zero_point_flux(3631 * u.Jy)).value == pytest.approx(3.631)
    assert np.array_equal(ccd.uncertainty.array, bright["INVVAR_R"].data)
    assert ccd.uncertainty.unit == ccd.unit**-2
    bits = bright["MASKBITS"].data
    assert np.array_equal(ccd.flags, bits)
    saturated = (bits >> 3 & 1) == 1
    assert saturated.any()
    assert ccd.mask[saturated].all()
    expected = saturated | (bits >> 6 & 1 == 1) | (bright["INVVAR_R"].data <= 0)
    assert np.array_equal(ccd.mask, expected)
    assert ccd.wcs.world_to_pixel(sky.positions["bright"]) == pytest.approx((59.5, 59.5), abs=0.6)
    assert np.array_equal(ccd.psf, bright["PSF_R"].data)
    assert ccd.meta["BAND"] == "r"


def test_ccddata_survives_a_file_and_a_cutout(bright, tmp_path):
    ccd = to_ccddata(bright, "g")
    ccd.psf = None
    ccd.flags = None
    ccd.write(tmp_path / "ccd.fits")
    back = CCDData.read(tmp_path / "ccd.fits")
    assert np.array_equal(back.data, ccd.data)
    assert np.array_equal(back.mask, ccd.mask)
    assert back.unit == ccd.unit
    part = Cutout2D(ccd.data, (60, 60), 20, wcs=ccd.wcs)
    assert part.data.shape == (20, 20)


def test_the_bits_may_be_chosen(bright):
    bits = bright["MASKBITS"].data
    invalid = bright["INVVAR_R"].data <= 0
    assert np.array_equal(to_ccddata(bright, "r", mask_bits=[]).mask, invalid)
    medium = to_ccddata(bright, "r", mask_bits="MEDIUM").mask
    assert np.array_equal(medium, invalid | (bits >> 11 & 1 == 1))
    with pytest.raises(InvalidRequestError, match="'NOBIT' is not a bit of dr10"):
        to_ccddata(bright, "r", mask_bits=["NOBIT"])


def test_what_the_cutout_lacks_is_none_and_not_invented(sky, survey):
    hdul = survey.get_cutout(sky.positions["star"], 32, bands="r")
    hdul["IMAGE_R"].data[3, 4] = np.nan
    ccd = to_ccddata(hdul, "r")
    assert ccd.uncertainty is None
    assert ccd.flags is None
    assert ccd.psf is None
    assert np.argwhere(ccd.mask).tolist() == [[3, 4]]
    ccd.data[:] = 0
    assert hdul["IMAGE_R"].data.any()
    with pytest.raises(InvalidRequestError, match="the cutout has no MASKBITS"):
        to_ccddata(hdul, "r", mask_bits=["BRIGHT"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"band": "z"}, "bands='z': the cutout has image in g, r"),
        ({"band": "gr"}, "band='gr' must be one band"),
        ({"band": None}, "band=None must be one band"),
        ({"band": "r", "product": "invvar"}, "product='invvar' must be one of"),
        ({"band": "r", "product": "model"}, "product='model': the cutout has"),
    ],
)
def test_wrong_arguments_are_refused(bright, words, message):
    with pytest.raises(InvalidRequestError, match=message):
        to_ccddata(bright, **words)


def test_galfit_files_hold_what_the_cutout_holds(bright, tmp_path):
    table = galfit_inputs(bright, tmp_path / "fit")
    assert list(table["band"]) == ["g", "r"]
    for row in table:
        band = row["band"]
        data = {name: fits.getdata(row[name]) for name in ("image", "sigma", "mask", "psf")}
        ccd = to_ccddata(bright, band)
        assert np.array_equal(data["mask"] == 1, ccd.mask)
        good = data["mask"] == 0
        assert np.array_equal(data["image"], bright[f"IMAGE_{band}"].data)
        invvar = bright[f"INVVAR_{band}"].data
        assert np.allclose(1 / data["sigma"][good] ** 2, invvar[good], rtol=1e-5)
        assert (data["sigma"][~good] > 1e9).all()
        assert data["psf"].sum() == pytest.approx(1, abs=1e-5)
        assert data["psf"].shape == (63, 63)
        header = fits.getheader(row["image"])
        assert header["EXPTIME"] == 1
        assert np.allclose(
            WCS(header).all_pix2world(10, 20, 0), ccd.wcs.all_pix2world(10, 20, 0), atol=1e-9
        )


def _feedme(path):
    """Return the numbers of a feedme by its marks, as GALFIT would take them."""
    found = {}
    with open(path, encoding="ascii") as stream:
        for line in stream:
            match = re.match(r"\s*(\w+)\)\s+([^#\n]*)", line)
            if match:
                found.setdefault(match[1], []).append(match[2].split())
    return found


def test_the_feedme_names_the_files_and_the_numbers(sky, bright, tmp_path):
    (row,) = galfit_inputs(bright, tmp_path, bands="r")
    found = _feedme(row["feedme"])
    for mark in "ACDF":
        assert (tmp_path / found[mark][0][0]).is_file()
    assert found["H"] == [["1", "120", "1", "120"]]
    assert found["I"] == [["63", "63"]]
    assert float(found["J"][0][0]) == 22.5
    assert [float(value) for value in found["K"][0]] == [0.262, 0.262]
    assert found["0"] == [["sersic"], ["sky"]]
    x, y = WCS(bright["IMAGE_R"].header).world_to_pixel(sky.positions["bright"])
    assert [float(value) for value in found["1"][0][:2]] == pytest.approx([x + 1, y + 1], abs=1e-3)
    assert (row["x"], row["y"]) == pytest.approx((float(x) + 1, float(y) + 1))


def test_the_first_guess_of_the_magnitude_is_the_flux_there(sky, survey, tmp_path):
    position = sky.positions["star"]
    hdul = survey.get_cutout(position, 48, bands="r", products=(*PRODUCTS, "psf"))
    table = galfit_inputs(hdul, tmp_path)
    catalog = survey.query_tractor(position, radius=2 * u.arcsec, source="files")
    truth = 22.5 - 2.5 * np.log10(catalog["flux_r"].max())
    assert table["mag"][0] == pytest.approx(truth, abs=0.2)
    assert 1 <= table["radius"][0] < 6
    table.write(tmp_path / "table.ecsv")
    assert Table.read(tmp_path / "table.ecsv")["zero_point"][0] == 22.5


def test_values_that_are_not_there_are_masked_zeros(bright, tmp_path):
    bright["IMAGE_R"].data[5, 6] = np.nan
    (row,) = galfit_inputs(bright, tmp_path, bands="r")
    assert fits.getdata(row["image"])[5, 6] == 0
    assert fits.getdata(row["mask"])[5, 6] == 1
    assert np.isfinite(fits.getdata(row["sigma"])).all()


def test_what_galfit_could_not_use_is_refused_before_a_file_is_written(sky, survey, tmp_path):
    position, path = sky.positions["star"], tmp_path / "fit"
    bare = survey.get_cutout(position, 32, bands="r")
    with pytest.raises(InvalidRequestError, match=r"no invvar and no psf in r: ask for products="):
        galfit_inputs(bare, path)
    hdul = survey.get_cutout(position, 32, bands="r", products=("image", "invvar", "psf"))
    hdul["IMAGE_R"].header["FLUXPIX"] = 0.4
    with pytest.raises(InvalidRequestError, match="not in nanomaggies per pixel; leave"):
        galfit_inputs(hdul, path)
    del hdul["IMAGE_R"].header["FLUXPIX"]
    hdul["PSF_R"].header["PIXSCALE"] = 0.454
    with pytest.raises(InvalidRequestError, match=r"PSF_R has pixels of 0\.454 arcsec"):
        galfit_inputs(hdul, path)
    hdul["PSF_R"].header.update(PIXSCALE=0.262, ORIENT="CCD")
    with pytest.raises(InvalidRequestError, match="ask for to_sky=True"):
        galfit_inputs(hdul, path)
    hdul["PSF_R"].header["ORIENT"] = "SKY"
    side = 0.262 / 3600 * np.sqrt(0.5)
    hdul["IMAGE_R"].header.update(CD1_1=-side, CD1_2=side, CD2_1=side, CD2_2=side)
    with pytest.raises(InvalidRequestError, match=r"the image turned by 45\.0 degrees"):
        galfit_inputs(hdul, path)
    assert not path.exists()
