"""WISE bands: on their own pixels, on the optical ones, beside the others."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS

from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.survey.paths import file_path

DM = {"W1": 2.699, "W2": 3.339}


def _truth(sky, name, band):
    position = sky.positions[name]
    apart = np.hypot(
        (sky.truth["ra"] - position.ra.deg + 180) % 360 - 180, sky.truth["dec"] - position.dec.deg
    )
    row = sky.truth[np.argmin(apart)]
    return row[f"flux_{band.lower()}"] * 10 ** (0.4 * DM[band])


def test_native_pixels_are_those_of_the_file(sky, survey):
    position = sky.positions["star"]
    hdul = survey.get_cutout(
        position, 60 * u.arcsec, bands="W1W2", products=("image", "invvar", "model")
    )
    assert [hdu.name for hdu in hdul[1:]] == [
        f"{p}_{b}" for p in ("IMAGE", "INVVAR", "MODEL") for b in ("W1", "W2")
    ]
    for hdu in hdul[1:]:
        path = sky.root / file_path(
            hdu.header["PRODUCT"], "dr10", "south", brick="0451p000", band=hdu.header["BAND"]
        )
        with fits.open(path) as file:
            file[1].header["RADESYS"] = "ICRS"
            expected = Cutout2D(file[1].data, position, (22, 22), wcs=WCS(file[1].header))
        assert np.array_equal(hdu.data, expected.data)
        assert hdu.header["MAGSYS"] == "Vega"
        assert WCS(hdu.header).proj_plane_pixel_scales()[0].to_value("arcsec") == pytest.approx(
            2.75
        )
        assert WCS(hdu.header).wcs.crpix == pytest.approx(expected.wcs.wcs.crpix)


@pytest.mark.parametrize("name", ["star", "corner", "ra0", "split"])
@pytest.mark.parametrize("grid", ["native", "optical"])
def test_flux_and_place(sky, survey, name, grid):
    position = sky.positions[name]
    hdul = survey.get_cutout(position, 90 * u.arcsec, bands="rW1", products="model", wise_grid=grid)
    assert [hdu.name for hdu in hdul[1:]] == ["MODEL_R", "MODEL_W1"]
    image = hdul["MODEL_W1"]
    if grid == "optical":
        assert image.shape == hdul["MODEL_R"].shape
        for key in ("CRPIX1", "CRPIX2", "CRVAL1"):
            assert image.header[key] == pytest.approx(hdul["MODEL_R"].header[key])
    scale = WCS(image.header).proj_plane_pixel_scales()[0].to_value("arcsec")
    x0, y0 = WCS(image.header).world_to_pixel(position)
    y, x = np.indices(image.shape)
    distance = np.hypot(y - y0, x - x0) * scale
    alone = distance < 13
    core = np.where(distance < 8, image.data, 0)
    flux = image.data[alone].sum()
    dx, dy = ((core * (v - v0)).sum() / core.sum() for v, v0 in ((x, x0), (y, y0)))
    assert flux == pytest.approx(_truth(sky, name, "W1"), rel=0.08)
    assert np.hypot(dx, dy) * scale < 0.15 * 2.75


def test_products_that_wise_lacks(sky, survey):
    position = sky.positions["star"]
    both = survey.get_cutout(position, 64, bands=["r", "W1"], products=("image", "nexp", "resid"))
    names = [hdu.name for hdu in both[1:]]
    assert names == ["IMAGE_R", "NEXP_R", "RESID_R", "IMAGE_W1", "RESID_W1"]
    sky.requests.clear()
    with pytest.raises(InvalidRequestError, match="the WISE bands have image, invvar, model"):
        survey.get_cutout(position, 64, bands="W1", products="nexp")
    with pytest.raises(InvalidRequestError, match="bands of dr7 are: g, r, z"):
        survey.get_cutout(position, 64, bands=["W1"], release="dr7")
    with pytest.raises(InvalidRequestError, match="wise_grid"):
        survey.get_cutout(position, 64, bands="W1", wise_grid="2.75")
    assert len(sky.requests) == 0


def test_all_means_everything_optical_and_wise_beside_it(sky, survey):
    hdul = survey.get_cutout(sky.positions["star"], 40, bands="gW2", products="all")
    optical = {hdu.shape for hdu in hdul[1:] if not hdu.name.endswith("W2")}
    assert optical == {(40, 40)}
    wise = [hdu.name for hdu in hdul[1:] if hdu.name.endswith("W2")]
    assert wise == ["IMAGE_W2", "INVVAR_W2", "MODEL_W2", "RESID_W2"]


def test_payload_has_the_wise_files(sky, survey):
    urls = survey.get_cutout(sky.positions["star"], 40, bands="gW1", get_query_payload=True)["urls"]
    assert [url.rpartition("-image-")[2] for url in urls] == ["g.fits.fz", "W1.fits.fz"]
    assert len(sky.requests) == 0
