"""Names and angles as users write them."""

import astropy.units as u
import pytest

from astroquery_lis import LegacySurvey
from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.survey.bitmasks import maskbits_value
from astroquery_lis.survey.catalog_request import catalog_request
from astroquery_lis.survey.layers import get_layer
from astroquery_lis.survey.paths import as_file_bands, as_file_products
from astroquery_lis.survey.releases import as_bands, as_products, as_region
from astroquery_lis.survey.request import as_size
from astroquery_lis.survey.sphere import angle_of_text
from astroquery_lis.survey.tractor import WHOLE_SKY


@pytest.mark.parametrize(
    "text",
    [
        "30 arcsec",
        "30arcsec",
        '30"',
        "30''",
        "30″",
        "0.5'",
        "0.5 arcmin",
        "0d0m30s",
        "0m30s",
        "0'30\"",
        "30 arcseconds",
        "30 arc sec",
        "30 ARCSEC",
        "0.008333333333333333 degrees",
        "0.5 arcminutes",
        "30.0asec",
        "3e1 arcsec",
    ],
)
def test_an_angle_has_many_spellings(text):
    assert angle_of_text(text).to_value(u.arcsec) == pytest.approx(30)
    assert as_size(text) == (115, 115)


@pytest.mark.parametrize("text", ["30", "x", "", "0:0:30", "30 furlongs", "nan", "arcsec", "1 2 3"])
def test_what_is_no_angle_is_left_to_be_refused(text):
    assert angle_of_text(text) == text
    with pytest.raises(InvalidRequestError, match="radius="):
        LegacySurvey.query_tractor("150 2", radius=text)


@pytest.mark.parametrize("text", ["64 pix", "64 pixels", "64px", "64"])
def test_pixels_are_for_sizes_only(text):
    assert as_size(text) == (64, 64)
    with pytest.raises(InvalidRequestError, match="radius="):
        LegacySurvey.query_tractor("150 2", radius=text)


@pytest.mark.parametrize("bands", ["grz", "GRZ", "g,r,z", "g r z", ["g", "R", "z"], "g, r, z"])
def test_bands_in_any_case(bands):
    assert as_bands(bands, "dr9") == ("g", "r", "z")
    assert as_file_bands(bands, ("image",), "dr9") == ("g", "r", "z")


def test_names_in_any_case():
    assert as_file_bands("r,w1", ("image",), "dr10") == ("r", "W1")
    for products in ("image,invvar", "IMAGE, Invvar", ("image", "INVVAR"), "image invvar"):
        assert as_products(products, "dr10") == ("image", "invvar")
        assert as_file_products(products, "dr10") == ("image", "invvar")
    assert as_region("South", "dr10") == "south"
    assert as_region(" AUTO", "dr10") == "auto"
    assert get_layer("LS-DR10").name == "ls-dr10"
    assert maskbits_value("bright, SATUR_R", "dr10") == 10
    target = dict(bands="R", release="DR10", region="South", get_query_payload=True)
    payload = LegacySurvey.get_cutout("150.1 2.1", 8, products="Image,invvar", **target)
    assert len(payload["urls"]) == 2


def test_sets_have_the_order_of_the_survey():
    assert as_bands({"z", "i", "G", "r"}, "dr10") == ("g", "r", "i", "z")
    assert as_products({"nexp", "image", "depth"}, "dr10") == ("image", "depth", "nexp")


@pytest.mark.parametrize("columns", ["*", ["*"], "ALL", ["all"]])
def test_all_columns(columns):
    assert catalog_request(WHOLE_SKY, columns=columns).columns is None
