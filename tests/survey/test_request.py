"""Arguments: what is taken, and what is refused by name before anything is sent."""

import pickle

import numpy as np
import pytest
from astropy import units as u
from hypothesis import given
from hypothesis import strategies as st

from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.survey.releases import as_bands, as_products, get_release
from astroquery_lis.survey.request import MAX_SIZE_PIX, CutoutRequest, as_size


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (256, (256, 256)),
        (np.int32(7), (7, 7)),
        ((10, 20), (10, 20)),
        ([10, 20], (10, 20)),
        (np.array([10, 20]), (10, 20)),
        (1 * u.arcmin, (229, 229)),
        ((1 * u.arcmin, 30 * u.arcsec), (229, 115)),
        ([2, 1] * u.arcmin, (458, 229)),
        (50 * u.pix, (50, 50)),
        (0.1 * u.arcsec, (1, 1)),
        (MAX_SIZE_PIX, (MAX_SIZE_PIX, MAX_SIZE_PIX)),
    ],
)
def test_sizes(size, expected):
    assert as_size(size) == expected


@pytest.mark.parametrize(
    "size",
    [
        0,
        -5,
        10**9,
        0.02,
        256.0,
        np.nan,
        "256.5",
        None,
        True,
        (1, 2, 3),
        (10, 0),
        (),
        np.nan * u.arcmin,
        -1 * u.arcmin,
        0 * u.arcmin,
        5 * u.deg,
        1 * u.s,
        2.5 * u.pix,
        [1, 2, 3] * u.arcmin,
        {"ny": 3},
    ],
)
def test_bad_sizes_are_refused_by_name(size):
    with pytest.raises(InvalidRequestError, match="size=") as caught:
        as_size(size)
    assert caught.value.parameter == "size"


@given(st.integers(1, MAX_SIZE_PIX))
def test_an_angle_of_whole_pixels_is_those_pixels(n):
    assert as_size(n * 0.262 * u.arcsec) == (n, n)


@pytest.mark.parametrize("bands", ["grz", "g,r,z", "g r z", ["g", "r", "z"], ("g", "r", "g", "z")])
def test_spellings_of_bands(bands):
    assert as_bands(bands, "dr10") == ("g", "r", "z")


def test_order_of_bands_is_kept_and_none_stays():
    assert as_bands("zg", "dr10") == ("z", "g")
    assert as_bands(None, "dr10") is None


@pytest.mark.parametrize(
    ("bands", "release", "region"),
    [
        ("grx", "dr10", "auto"),
        ("Q", "dr10", "auto"),
        ("i", "dr9", "auto"),
        ("i", "dr10", "north"),
        ("", "dr10", "auto"),
        ([], "dr10", "auto"),
        (5, "dr10", "auto"),
        ([1], "dr10", "auto"),
        ("W1", "dr10", "auto"),
    ],
)
def test_bad_bands_are_refused_with_the_list(bands, release, region):
    with pytest.raises(InvalidRequestError, match=f"bands=.*bands of {release}.* are: g, r"):
        as_bands(bands, release, region)


@pytest.mark.parametrize("products", ["images", ["image", "psf"], [], None, 3, [None]])
def test_bad_products_are_refused_with_the_list(products):
    with pytest.raises(InvalidRequestError, match="products=.*allowed: image, invvar"):
        as_products(products, "dr10")


def test_a_product_of_a_later_release_is_refused():
    with pytest.raises(InvalidRequestError, match="'blobmodel' is not in dr8"):
        as_products(["image", "blobmodel"], "dr8")


def test_equal_requests_have_equal_keys():
    values = (1.0, 2.0, 3, 4, ("image",), ("g",), get_release("dr10"), "auto")
    one, same = CutoutRequest(*values), CutoutRequest(*values)
    assert one == same
    assert one.key == same.key
    assert hash(one) == hash(same)
    assert pickle.loads(pickle.dumps(one)) == one
    other = CutoutRequest(*values[:-1], "south")
    assert other.key != one.key
