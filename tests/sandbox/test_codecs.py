"""The files are compressed the way the survey compresses them."""

import numpy as np
import pytest
from astropy.io import fits

from astroquery_lis.survey import bricks, paths

CODECS = {
    "image": ("RICE_1", "SUBTRACTIVE_DITHER_2"),
    "model": ("RICE_1", "SUBTRACTIVE_DITHER_2"),
    "blobmodel": ("RICE_1", "SUBTRACTIVE_DITHER_2"),
    "invvar": ("RICE_1", "NO_DITHER"),
    "chi2": ("RICE_1", "NO_DITHER"),
    "depth": ("GZIP_1", "NO_DITHER"),
    "galdepth": ("GZIP_1", "NO_DITHER"),
    "psfsize": ("GZIP_1", "NO_DITHER"),
    "nexp": ("HCOMPRESS_1", "NO_DITHER"),
    "maskbits": ("HCOMPRESS_1", "NO_DITHER"),
}


def raw(root, product, brick="0451p000"):
    band = None if product == "maskbits" else "r"
    path = root / paths.file_path(product, "dr10", "south", brick=brick, band=band)
    return fits.open(path, disable_image_compression=True)


@pytest.mark.parametrize("product", CODECS)
def test_codec_tiles_and_header(sky_tree, product):
    with raw(sky_tree, product) as hdul:
        assert len(hdul[0].header) < 36
        header = hdul[1].header
        # Not dithered is the default: old versions of astropy write it, new ones do not.
        assert (header["ZCMPTYPE"], header.get("ZQUANTIZ", "NO_DITHER")) == CODECS[product]
        assert (header["ZTILE1"], header["ZTILE2"], header["NAXIS2"]) == (100, 100, 1296)
        assert (header["ZNAXIS1"], header["ZNAXIS2"]) == (3600, 3600)
        assert header["OBJECT"] == "SIMULATED"
        assert header["IMTYPE"] == product
        assert header["BRICKNAM"] == "0451p000"
        assert header.get("BUNIT", "") == paths.COADD_PRODUCTS[product].unit
        # One read of the survey's header is about 17 kB.
        assert hdul[1].fileinfo()["datLoc"] == 17280
        assert ("ZSCALE" in hdul[1].columns.names) == (header["ZCMPTYPE"] == "RICE_1")


def test_wcs_is_that_of_the_brick(sky_tree):
    with raw(sky_tree, "image") as hdul:
        header = hdul[1].header
    grid = bricks.brick_grid(header["BRICKID"])
    assert (header["CRPIX1"], header["CRPIX2"], header["EQUINOX"]) == (1800.5, 1800.5, 2000.0)
    assert (header["CRVAL1"], header["CRVAL2"]) == (grid.ra_deg, grid.dec_deg)
    assert header["CD1_1"] == pytest.approx(-grid.scale_deg, rel=1e-12)
    assert header["CD2_2"] == pytest.approx(grid.scale_deg, rel=1e-12)
    assert "RADESYS" not in header


def test_image_step_is_a_ten_thousandth(sky_tree):
    with raw(sky_tree, "image") as hdul:
        scale = hdul[1].data["ZSCALE"]
    assert np.unique(scale[scale > 0]) == pytest.approx(1e-4)


def test_every_file_has_its_own_dither(sky_tree):
    seeds = []
    for product in ("image", "model"):
        for brick in ("0451p000", "0453p000"):
            with raw(sky_tree, product, brick) as hdul:
                seeds.append(hdul[1].header["ZDITHER0"])
    assert len(set(seeds)) == 4
    assert all(1 <= seed <= 10000 for seed in seeds)


def test_constant_tiles_of_invvar_fall_back_to_gzip(sky_tree):
    with raw(sky_tree, "invvar") as hdul:
        table = hdul[1].data
        rice = np.array([len(tile) for tile in table["COMPRESSED_DATA"]]) > 0
        gzip = np.array([len(tile) for tile in table["GZIP_COMPRESSED_DATA"]]) > 0
    assert (rice ^ gzip).all()
    assert rice.sum() > 200
    assert gzip.sum() > 200


def test_lossless_planes_are_lossless(sky_tree):
    with fits.open(
        sky_tree / paths.file_path("depth", "dr10", "south", brick="0451p000", band="r")
    ) as hdul:
        values = np.unique(hdul[1].section[:500, :500])
    assert values[1] == np.float32(2) * values[0]


def test_zeros_stay_zero(sky_tree):
    path = sky_tree / paths.file_path("image", "dr10", "south", brick="0453p000", band="z")
    nexp = sky_tree / paths.file_path("nexp", "dr10", "south", brick="0453p000", band="z")
    image, observed = fits.getdata(path, 1), fits.getdata(nexp, 1) > 0
    assert not image[~observed].any()
    assert (image[observed] != 0).mean() > 0.99
