"""A cutout as cards and arrays: the bytes are those that astropy writes."""

import io
import warnings

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from astroquery_lis.images.plain import PlainCutout, PlainImage, file_cards

TEXT = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=150)
VALUES = st.one_of(
    TEXT,
    st.booleans(),
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
    st.sampled_from([0, 0.0, -0.0, 1, 1.0, True, False]),
)
COMMENTS = st.sampled_from(["", "a comment", "[pix] a/b / c", "with: 3", "c" * 40])
CARDS = st.lists(
    st.tuples(st.sampled_from(["RA", "BAND", "X1", "LONGNAME"]), VALUES, COMMENTS), max_size=8
)


def _hdus(cutout):
    """Return the HDUs that astropy makes of the cards."""
    primary = fits.PrimaryHDU(header=fits.Header(cutout.cards))
    images = (fits.ImageHDU(i.pixels, fits.Header(i.cards), name=i.name) for i in cutout.images)
    return fits.HDUList([primary, *images])


def _written(cutout):
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Card is too long, comment will be truncated")
        _hdus(cutout).writeto(stream)
    return stream.getvalue()


def _assert_same(found, expected):
    assert fits.FITSDiff(found, expected).identical
    found.verify("exception")
    streams = io.BytesIO(), io.BytesIO()
    for hdul, stream in zip((found, expected), streams, strict=True):
        hdul.writeto(stream)
    assert streams[0].getvalue() == streams[1].getvalue()
    for one, other in zip(found, expected, strict=True):
        assert one.name == other.name
        assert type(one) is type(other)
        assert [tuple(c) for c in one.header.cards] == [tuple(c) for c in other.header.cards]


def _image(name, cards, pixels):
    return PlainImage(name, [*cards, ("EXTNAME", name, "extension name")], pixels)


def _cutout(cards=(), dtype=np.float32, shape=(7, 5)):
    pixels = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    image = _image("IMAGE_R", [("BAND", "r", "filter band"), *cards], pixels)
    comment = "A long comment that does not fit on a single card, since it has many words in it."
    return PlainCutout([("RA", 1.5, "[deg] target"), *cards, ("COMMENT", comment, "")], [image])


@given(CARDS)
@settings(deadline=None, max_examples=200)
def test_cards_of_any_value_are_those_of_astropy(cards):
    cards = list({card[0]: card for card in cards}.values())
    cutout = _cutout([card for card in cards if card[0] not in ("RA", "BAND")])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Card is too long, comment will be truncated")
        data = cutout.to_bytes()
        _assert_same(cutout.to_hdus(), _hdus(cutout))
    assert data == _written(cutout)


NUMBERS = (
    1e22,
    1e16,
    123456789.123456789,
    1 / 3,
    -1 / 3e-7,
    1e-5,
    -1.2345678901234567e-300,
    5e-324,
)
TEXTS = ("it's", "a ", " a", "x: 1.5", "a:1", "&", "T", "'" * 40, "x" * 67, "x" * 68, "x" * 69)


@pytest.mark.parametrize("value", [*NUMBERS, *TEXTS])
@pytest.mark.parametrize("keyword", ["X1", "LONGNAME", "COMMENTS"])
def test_values_that_are_written_by_a_rule_of_their_own(keyword, value):
    cutout = _cutout([(keyword, value, "")])
    assert cutout.to_bytes() == _written(cutout)
    _assert_same(cutout.to_hdus(), _hdus(cutout))


@pytest.mark.parametrize(
    "dtype", ["f4", ">f4", "f8", "i2", "i4", ">i4", "u1", "u2", ">u2", "u4", "u8"]
)
@pytest.mark.parametrize("shape", [(1, 1), (24, 30), (7, 5)])
def test_pixels_of_any_type_are_those_of_astropy(dtype, shape):
    cutout = _cutout(dtype=dtype, shape=shape)
    data = cutout.to_bytes()
    assert data == _written(cutout)
    _assert_same(cutout.to_hdus(), _hdus(cutout))
    assert len(data) % 2880 == 0
    with fits.open(io.BytesIO(data)) as hdul:
        hdul.verify("exception")
        assert np.array_equal(hdul["IMAGE_R"].data, cutout.images[0].pixels)


@pytest.mark.parametrize("dtype", ["i1", "u2", ">u4", "u8"])
def test_the_ends_of_what_integers_hold(dtype):
    kind = np.iinfo(dtype)
    pixels = np.array([[kind.min, kind.min + 1, kind.max // 2, kind.max - 1, kind.max]], dtype)
    cutout = PlainCutout([], [_image("MASK", [], pixels)])
    data, stream = cutout.to_bytes(), io.BytesIO()
    cutout.to_hdus().writeto(stream)
    assert data == stream.getvalue()
    expected = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(pixels, name="MASK")])
    with fits.open(io.BytesIO(data)) as hdul:
        assert fits.FITSDiff(hdul, expected).identical
        assert hdul["MASK"].data.dtype.newbyteorder("=") == np.dtype(dtype).newbyteorder("=")
        assert np.array_equal(hdul["MASK"].data, pixels)


@pytest.mark.parametrize("values", [(1, 1.0, True), (0.0, -0.0, 0, False), (True, 1, 1.0)])
def test_values_of_files_that_are_equal_but_not_the_same(values):
    for value in values:
        block = file_cards((("SURVEYID", value, "a comment"),), repr(value), (), 0, ())
        expected = fits.Header([("SURVEYID", value, "a comment")]).tostring(endcard=False)
        assert expected.strip().encode() in block.data


def test_zero_and_minus_zero_in_turn():
    for value in (0.0, -0.0, 0, False, -0.0, 0.0):
        cutout = _cutout([("X1", value, "")])
        assert cutout.to_bytes() == _written(cutout)


def test_pixels_that_were_put_together_are_not_swapped():
    # np.concatenate of arrays of >f4 is native, which their type alone tells.
    half = np.arange(12, dtype=">f4").reshape(3, 4)
    whole = np.concatenate([half, half])
    cutout = PlainCutout([], [_image("IMAGE_G", [], whole)])
    with fits.open(io.BytesIO(cutout.to_bytes())) as hdul:
        assert np.array_equal(hdul[1].data, np.vstack([half, half]))


def test_hdus_are_read_as_well():
    cutout = _cutout()
    again = PlainCutout.of(cutout.to_hdus())
    assert again.header["RA"] == 1.5
    assert again.images[0].header["BAND"] == "r"
    assert again.images[0].name == "IMAGE_R"


def test_the_hdus_of_two_cutouts_share_nothing_that_a_user_changes():
    cutout = _cutout([("X1", 1.5, "a number")])
    first, second = cutout.to_hdus(), _cutout([("X1", 1.5, "a number")]).to_hdus()
    first["IMAGE_R"].header["X1"] = 2.5
    first["IMAGE_R"].header["NEW"] = "new"
    first["IMAGE_R"].data = np.zeros((3, 4, 2), "f8")
    first["IMAGE_R"].name = "OTHER"
    first[0].header["RA"] = 3.0
    del first[0].header["COMMENT"]
    _assert_same(second, _hdus(cutout))
    _assert_same(cutout.to_hdus(), _hdus(cutout))
    stream = io.BytesIO()
    first.writeto(stream)
    stream.seek(0)
    with fits.open(stream) as hdul:
        assert hdul["OTHER"].header["X1"] == 2.5
        assert hdul["OTHER"].data.shape == (3, 4, 2)
