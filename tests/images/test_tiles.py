"""The tile map, on every layout that a FITS writer may choose, against astropy's full decode."""

import gzip
import io

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from astroquery_lis.exceptions import UnexpectedContentError
from astroquery_lis.images import open_images
from astroquery_lis.images.file_layout import ImageMap, MoreNeeded
from astroquery_lis.images.open_images import OpenImage, open_sparse, ranges_under
from astroquery_lis.survey.pixel_grids import Box

SHAPE = (330, 270)
FLOATS = np.random.default_rng(5).normal(0, 0.01, SHAPE).astype("f4")
FLOATS[100:200, :150] = 0
INTEGERS = (np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) // 977 % 7).astype("i2")

LAYOUTS = {
    "rice dithered": (
        FLOATS,
        {"compression_type": "RICE_1", "quantize_method": 2, "quantize_level": -1e-4},
    ),
    "rice with gzip fallback": (
        np.where(FLOATS == 0, 0, 1 / (FLOATS**2 + 1e-4)).astype("f4"),
        {"compression_type": "RICE_1", "quantize_method": -1, "quantize_level": 16},
    ),
    "gzip lossless": (FLOATS, {"compression_type": "GZIP_1", "quantize_level": 0}),
    "gzip shuffled": (FLOATS, {"compression_type": "GZIP_2", "quantize_level": 0}),
    "hcompress": (INTEGERS, {"compression_type": "HCOMPRESS_1", "hcomp_scale": 0}),
    "plio": (INTEGERS, {"compression_type": "PLIO_1"}),
    "rows": (
        FLOATS,
        {"compression_type": "RICE_1", "tile_shape": (1, SHAPE[1]), "quantize_level": 16},
    ),
}


def _write(data, **options):
    options.setdefault("tile_shape", (100, 100))
    stream = io.BytesIO()
    hdu = fits.CompImageHDU(data, dither_seed=77, **options)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(stream)
    return stream.getvalue()


FILES = {name: _write(data, **options) for name, (data, options) in LAYOUTS.items()}
FILES["primary"] = (lambda s: (fits.PrimaryHDU(FLOATS).writeto(s), s.getvalue())[1])(io.BytesIO())
FILES["extension"] = (
    lambda s: (
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(INTEGERS)]).writeto(s),
        s.getvalue(),
    )[1]
)(io.BytesIO())
DECODED = {
    name: fits.getdata(io.BytesIO(raw), 0 if name == "primary" else 1)
    for name, raw in FILES.items()
}


def _parse(raw, first=5000):
    """Parse as a reader does that gets the file by pieces."""
    while True:
        try:
            return ImageMap.parse(raw[:first])
        except MoreNeeded as more:
            if more.stop <= first:
                raise
            first = more.stop


@pytest.mark.parametrize("name", FILES)
def test_the_rows_of_a_table_that_are_there_tell_where_their_tiles_are(name):
    raw = FILES[name]
    whole = _parse(raw)
    for n_bytes in range(40, whole.prefix_bytes, 40):
        with pytest.raises(MoreNeeded) as needed:
            ImageMap.parse(raw[:n_bytes])
        part = needed.value.image_map
        if part is not None:
            is_there = part.stops > part.starts
            assert np.array_equal(part.starts[is_there], whole.starts[is_there])
            assert np.array_equal(part.stops[is_there], whole.stops[is_there])
    assert whole.pixel_bytes or is_there.sum() >= is_there.size - 2


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_box_decodes_from_only_its_bytes(name, data):
    raw = FILES[name]
    image_map = _parse(raw)
    y0, x0 = data.draw(st.integers(0, SHAPE[0] - 1)), data.draw(st.integers(0, SHAPE[1] - 1))
    y1, x1 = (
        data.draw(st.integers(y0 + 1, SHAPE[0])),
        data.draw(st.integers(x0 + 1, SHAPE[1])),
    )
    box = Box(y0, y1, x0, x1)
    ranges = ranges_under(image_map, box)
    prefix = raw[: image_map.prefix_bytes]
    image, sparse = open_sparse(len(raw), image_map, prefix)
    runs = {start: raw[start:stop] for start, stop in ranges}
    if image_map.pixel_bytes:
        # astropy reads an uncompressed section by whole rows.
        first, last = image_map.starts[y0, 0], image_map.stops[y1 - 1, 0]
        runs = {int(first): raw[first:last]}
    sparse.set_runs({0: prefix, **runs})
    assert np.array_equal(image.read(box), DECODED[name][box.slices], equal_nan=True)
    # And not one byte less would have done.
    if ranges:
        runs.pop(next(iter(runs)))
        sparse.set_runs({0: prefix, **runs})
        with pytest.raises(OSError, match="was not fetched"):
            image.read(box)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("n_rows", [1, 70, 120, 250])
def test_a_large_box_decoded_by_rows_is_that_decoded_at_once(name, n_rows, monkeypatch):
    monkeypatch.setattr(open_images, "ROWS_AT_ONCE", n_rows)
    image = OpenImage(io.BytesIO(FILES[name]))
    for box in (Box(0, SHAPE[0], 0, SHAPE[1]), Box(99, 301, 5, 250), Box(200, 201, 7, 8)):
        pixels, expected = image.read(box), DECODED[name][box.slices]
        assert np.array_equal(pixels, expected)
        assert pixels.dtype == expected.dtype.newbyteorder("=")
        assert pixels.flags.c_contiguous


def test_boxes_outside_need_nothing():
    image_map = _parse(FILES["rice dithered"])
    assert ranges_under(image_map, Box(400, 500, 0, 10)) == []
    assert ranges_under(image_map, Box(-20, 0, 0, 10)) == []
    assert len(ranges_under(image_map, Box(-20, 101, -5, 100))) == 2


def test_local_files_of_every_ending(tmp_path):
    box = Box(90, 120, 80, 130)
    for name, raw in FILES.items():
        path = tmp_path / "x.fits.fz"
        path.write_bytes(raw)
        assert np.array_equal(OpenImage(path).read(box), DECODED[name][box.slices])
    path = tmp_path / "x.fits.gz"
    path.write_bytes(gzip.compress(FILES["primary"]))
    assert np.array_equal(OpenImage(path).read(box), FLOATS[box.slices])


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"<html>not here</html>" * 200, "not a FITS file; it begins with b'<html>not'"),
        (FILES["gzip lossless"][:2880] + b" " * (5 << 20), "header without an end"),
        (
            (lambda s: (fits.PrimaryHDU(np.zeros((2, 3, 4))).writeto(s), s.getvalue())[1])(
                io.BytesIO()
            ),
            "no two-dimensional image",
        ),
        (
            FILES["gzip lossless"].replace(
                b"NAXIS2  =" + b"12".rjust(21), b"NAXIS2  =" + b"9".rjust(21)
            ),
            "rows in its tile table",
        ),
    ],
)
def test_what_is_no_image_is_refused(raw, match):
    with pytest.raises(UnexpectedContentError, match=match):
        ImageMap.parse(raw)
