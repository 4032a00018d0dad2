"""Reductions of one's own: other sizes, scales and centres, with the same sky."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from astroquery_lis import sandbox
from astroquery_lis.sandbox import sky
from astroquery_lis.survey import paths

GIVEN = {
    "zoom": ({"zoom": (1500, 1900, 1700, 2000)}, (300, 400)),
    "size": ({"width": 410, "height": 333}, (333, 410)),
    "scale": ({"pixel_scale_arcsec": 0.4, "width": 300}, (300, 300)),
}


def read(root, product):
    path = root / paths.file_path(product, "dr10", "south", brick="0451p000", band="r")
    with fits.open(path) as hdul:
        return hdul[1].data.astype(float), hdul[1].header


@pytest.mark.parametrize("name", GIVEN)
def test_stars_are_where_the_header_says_with_their_flux(tmp_path, name):
    options, shape = GIVEN[name]
    root = sandbox.write_reduction(tmp_path, bands="r", **options)
    image, header = read(root, "image")
    assert image.shape == shape == (header["IMAGEH"], header["IMAGEW"])
    wcs = WCS(header)
    scale = abs(header["CD1_1"]) * 3600
    truth = sky.truth()
    place = sky.POSITIONS_DEG["star"]
    x, y = wcs.all_world2pix(*place, 0)
    y_all, x_all = np.indices(shape)
    inside = np.hypot(x_all - x, y_all - y) < 3.5 / scale
    enclosed = sum(w * (1 - np.exp(-0.5 * (3.5 / s) ** 2)) for w, s in sky.psf_components("r"))
    row = truth[truth["name"] == "star"][0]
    assert image[inside].sum() / enclosed == pytest.approx(row["flux_r"], rel=0.015)
    invvar, _ = read(root, "invvar")
    nexp, _ = read(root, "nexp")
    one = invvar[(nexp == 1) & (image < 0.05)]
    assert np.median(one) ** -0.5 == pytest.approx(sky.NOISE_SIGMA["r"] * scale / 0.262, rel=0.01)


def test_a_part_that_is_not_in_the_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"zoom=\(0, 500, 0, 10\) must be inside"):
        sandbox.write_reduction(tmp_path, width=400, zoom=(0, 500, 0, 10))
    with pytest.raises(ValueError, match=r"pixel_scale_arcsec=1\.0 must be at most 0\.45"):
        sandbox.write_reduction(tmp_path, pixel_scale_arcsec=1.0)
    assert not list(tmp_path.iterdir())
