"""Answers of the viewer that a user saved are read as the cutouts that they are."""

from urllib.request import urlretrieve

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from astroquery_lis import analysis, conf, pictures
from astroquery_lis.exceptions import InvalidRequestError


@pytest.fixture
def saved(sky, tmp_path):
    """Save an answer of the viewer and return its path."""

    def save(position, **parameters):
        place = sky.positions[position]
        query = {"ra": place.ra.deg, "dec": place.dec.deg, "layer": "ls-dr10", "size": 40}
        text = "&".join(f"{name}={value}" for name, value in {**query, **parameters}.items())
        path = tmp_path / f"{position}.fits"
        urlretrieve(f"{sky.viewer_url}/cutout.fits?{text}", path)
        return path

    with conf.set_temp("viewer_url", sky.viewer_url):
        yield save


@pytest.mark.parametrize("position", ["star", "corner", "ra0"])
@pytest.mark.parametrize("bands", ["grz", "r"])
def test_a_cube_has_the_planes_of_the_layer(saved, survey, sky, position, bands):
    path = saved(position, bands=bands, invvar=1, maskbits=1, pixscale=0.3)
    asked = survey.get_cutout(
        sky.positions[position],
        40,
        bands=bands,
        layer="ls-dr10",
        pixel_scale="0.3 arcsec",
        convert_flux=False,
        products=("image", "invvar", "maskbits"),
    )
    assert np.array_equal(pictures.rgb(path), pictures.rgb(asked))
    for band in bands:
        ours, theirs = (analysis.to_ccddata(hdul, band) for hdul in (asked, path))
        assert np.array_equal(ours.data, theirs.data)
        assert np.allclose(ours.uncertainty.array, theirs.uncertainty.array, rtol=1e-6)
        assert np.array_equal(ours.mask, theirs.mask)
        assert np.array_equal(ours.flags, theirs.flags)
        assert theirs.unit == "nmgy"
        assert np.allclose(ours.wcs.pixel_to_world_values(3, 5), theirs.wcs.wcs_pix2world(3, 5, 0))


def test_layers_of_no_known_bricks_are_divided_by_none(saved):
    # At a corner of bricks, where a layer of theirs holds the inverse variance of several.
    path = saved("corner", bands="r", invvar=1, pixscale=0.3)
    weights = {}
    for name in ("ls-dr10", "ls-dr67"):
        with fits.open(path, mode="update") as hdul:
            for hdu in hdul:
                hdu.header["VERSION"] = name
            sent = next(h.data for h in hdul if h.header.get("IMAGETYP") == "INVVAR").copy()
        weights[name] = analysis.to_ccddata(path, "r").uncertainty.array
    assert np.allclose(weights["ls-dr67"], sent.reshape(40, 40), rtol=1e-6)
    assert (weights["ls-dr10"] < weights["ls-dr67"]).any()


def test_flux_stays_per_native_pixel(saved, survey, sky):
    path = saved("star", bands="grz", pixscale=0.5)
    asked = survey.get_cutout(
        sky.positions["star"], 40, bands="grz", source="viewer", pixel_scale="0.5 arcsec"
    )
    difference = pictures.rgb(path).astype(int) - pictures.rgb(asked)
    assert np.abs(difference).max() <= 1
    ccd = analysis.to_ccddata(path, "r")
    assert ccd.meta["FLUXPIX"] == 0.262
    assert np.isclose(ccd.wcs.pixel_scale_matrix[1, 1] * 3600, 0.5)


def test_other_surveys_keep_their_units(sky):
    place = sky.positions["star"]
    cards = {"SURVEY": "unWISE", "VERSION": "unwise-neo7", "IMAGETYP": "IMAGE", "BANDS": "12"}
    cards |= {"BAND0": "1", "BAND1": "2", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}
    cards |= {"CRVAL1": place.ra.deg, "CRVAL2": place.dec.deg, "CRPIX1": 4.5, "CRPIX2": 4.5}
    cards |= {"CD1_1": -2.75 / 3600, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 2.75 / 3600}
    cube = fits.PrimaryHDU(np.ones((2, 8, 8), np.float32), fits.Header(cards))
    summary = pictures.summary(fits.HDUList([cube]))
    assert [(name, band, unit) for name, band, _, _, unit, _ in summary.planes] == [
        ("IMAGE_1", "1", "Vega nanomaggy"),
        ("IMAGE_2", "2", "Vega nanomaggy"),
    ]
    assert summary.cards["LAYER"] == "unwise-neo7"
    assert summary.cards["RA"] == place.ra.deg


def test_pixels_of_a_brick_are_taken_as_they_are(saved, survey, sky):
    path = saved("star", bands="gr", subimage=1)
    cutout = survey.get_cutout(sky.positions["star"], 40, bands="gr", products=("image", "invvar"))
    for band in "gr":
        ours, theirs = (analysis.to_ccddata(hdul, band) for hdul in (cutout, path))
        assert np.array_equal(ours.data, theirs.data)
        assert np.array_equal(ours.uncertainty.array, theirs.uncertainty.array)


def test_what_cannot_be_told_apart_is_refused(saved, tmp_path):
    path = saved("corner", bands="r", subimage=1)
    with pytest.raises(InvalidRequestError, match="several bricks of one place"):
        pictures.rgb(path)
    empty = fits.HDUList(fits.PrimaryHDU(header=fits.Header([("IMAGETYP", "image")])))
    with pytest.raises(InvalidRequestError, match="has no image"):
        pictures.rgb(empty)
    text = tmp_path / "page.fits"
    text.write_text("no such layer")
    with pytest.raises(InvalidRequestError, match=r"page.fits.*cannot be read as FITS: OSError"):
        analysis.to_ccddata(text, "r")
    with pytest.raises(InvalidRequestError, match="must be an HDUList or the name of a FITS file"):
        pictures.rgb(np.zeros((3, 3)))


def test_files_of_cutouts_are_read_too(survey, sky, tmp_path):
    hdul = survey.get_cutout(sky.positions["field"], 32, bands="grz")
    hdul.writeto(tmp_path / "cutout.fits.gz")
    assert np.array_equal(pictures.rgb(tmp_path / "cutout.fits.gz"), pictures.rgb(hdul))
    assert WCS(hdul[1].header).has_celestial
