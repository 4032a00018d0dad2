"""Files that are not what their names say, or lie on other pixels: placed, or refused."""

import gzip
import shutil

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from astroquery_lis import bricks
from astroquery_lis.exceptions import UnexpectedContentError
from astroquery_lis.survey.paths import file_path

BRICK = "1501p020"
NUMBER = bricks.parse_brick_name(BRICK)
CENTER = tuple(float(value) for value in bricks.brick_center(NUMBER))
TARGET = SkyCoord(CENTER[0] + 0.01, CENTER[1] + 0.01, unit="deg")


def _own_reduction(root, n=3600, *, scale=0.262, shift=(0.0, 0.0), center=CENTER, **cards):
    """Write an image whose only source is at the target, and the table of bricks."""
    middle = n / 2 + 0.5
    header = fits.Header(
        {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CRVAL1": center[0],
            "CRVAL2": center[1],
            "CRPIX1": middle + shift[0],
            "CRPIX2": middle + shift[1],
            "CD1_1": -scale / 3600,
            "CD1_2": 0.0,
            "CD2_1": 0.0,
            "CD2_2": scale / 3600,
            **cards,
        }
    )
    pixels = np.ones((n, n), np.float32)
    x, y = np.rint(WCS(header).world_to_pixel_values(TARGET.ra.deg, TARGET.dec.deg)).astype(int)
    pixels[y, x] = 1000
    path = root / file_path("image", "dr10", "south", brick=BRICK, band="r")
    path.parent.mkdir(parents=True)
    image = fits.CompImageHDU(
        pixels, header, compression_type="GZIP_1", quantize_level=0, tile_shape=(100, 100)
    )
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)
    return path


def _cut(survey, root, size=101):
    return survey.get_cutout(
        TARGET, size, bands="r", source="bricks", mirror=root, region="south", release="dr10"
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n": 600, "shift": (-137.0, -137.0)},
        {"n": 3600, "shift": (10.0, 10.0)},
        {"n": 4200},
        {"DRVERSIO": 8888, "BRICKNAM": BRICK, "FILTER": "r DECam SDSS c0002", "IMTYPE": "image"},
    ],
)
def test_own_reductions_are_placed_by_their_wcs(survey, tmp_path, options):
    _own_reduction(tmp_path, **options)
    image = _cut(survey, tmp_path)["IMAGE_R"]
    assert image.shape == (101, 101)
    (y,), (x,) = np.nonzero(image.data == 1000)
    found = SkyCoord(*WCS(image.header).pixel_to_world_values(x, y), unit="deg")
    assert found.separation(TARGET).arcsec < 0.2


@pytest.mark.filterwarnings("ignore:.*header keyword is invalid")
@pytest.mark.parametrize("value", [b"\x1d  22.5", b"= 1E999", b"= '\xe9      '"])
def test_values_that_no_header_may_hold_are_told(survey, tmp_path, value):
    path = _own_reduction(tmp_path, FILTER="r DECam SDSS c0002", MAGZERO=22.5)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"MAGZERO =")
    raw[at + 8 : at + 80] = value.ljust(72)
    path.write_bytes(raw)
    with pytest.raises(UnexpectedContentError, match="text that is none|ASCII"):
        _cut(survey, tmp_path)


def test_a_small_reduction_is_blank_beyond_its_edge(survey, tmp_path):
    _own_reduction(tmp_path, 600, shift=(137.0, -137.0))
    image = _cut(survey, tmp_path, 900)["IMAGE_R"]
    assert image.shape == (900, 900)
    assert np.isfinite(image.data).sum() == 600 * 600
    assert (image.data == 1000).sum() == 1
    assert image.header["OBSFRAC"] == pytest.approx(600**2 / 900**2, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"scale": 0.5}, "0.5 arcsec"),
        ({"shift": (0.4, 0.0)}, "between those of brick"),
        ({"center": (CENTER[0] + 0.003, CENTER[1])}, "projection"),
        ({"CTYPE1": "RA---SIN", "CTYPE2": "DEC--SIN"}, "projection"),
        ({"CD1_2": 1e-5, "CD2_1": 1e-5}, "arcsec"),
        ({"BRICKNAM": "1501p022"}, "brick 1501p022"),
        ({"IMTYPE": "invvar"}, "invvar"),
        ({"FILTER": "g DECam SDSS c0001 4720.0 1520.0"}, "band g"),
        ({"FILTER": "zd DECam k1038"}, "band z"),
        ({"FILTERX": "z", "FILTER": "r"}, "band z"),
        ({"DRVERSIO": 9010}, "dr9"),
        ({"DRVERSIO": 9011}, "dr9"),
    ],
)
def test_what_is_something_else_is_refused_with_the_reason(survey, tmp_path, options, reason):
    _own_reduction(tmp_path, **options)
    with pytest.raises(UnexpectedContentError, match=reason):
        _cut(survey, tmp_path)


@pytest.mark.parametrize("swap", [("0451p000", "0453p000"), ("image-r", "image-g")])
def test_a_file_under_anothers_name_is_not_served_and_not_kept(sky, survey, tmp_path, swap):
    right = file_path("image", "dr10", "south", brick="0451p000", band="r")
    path = tmp_path / right
    path.parent.mkdir(parents=True)
    wrong = right.replace(*swap)
    shutil.copy2(sky.root / wrong, path)
    options = {"bands": "r", "source": "bricks"}
    with pytest.raises(UnexpectedContentError, match=r"is of (brick 0453p000|band g)"):
        survey.get_cutout(sky.positions["star"], 16, mirror=tmp_path, **options)
    both = [str(tmp_path), sky.mirror_url]
    with pytest.warns(match="answered instead"):
        hdul = survey.get_cutout(sky.positions["star"], 16, mirror=both, **options)
    expected = survey.get_cutout(sky.positions["star"], 16, **options)
    assert np.array_equal(hdul["IMAGE_R"].data, expected["IMAGE_R"].data)


def test_files_that_are_packed_as_a_whole_are_read(survey, tmp_path):
    path = _own_reduction(tmp_path)
    expected = _cut(survey, tmp_path)["IMAGE_R"].data
    with fits.open(path) as hdul:
        plain = fits.HDUList([fits.PrimaryHDU(hdul[1].data, hdul[1].header)])
        target = tmp_path / file_path("image", "dr5", "south", brick=BRICK, band="r")
        target = target.with_name(target.name.replace(".fits.fz", ".fits"))
        target.parent.mkdir(parents=True)
        plain.writeto(target)
    packed = target.with_name(target.name + ".gz")
    packed.write_bytes(gzip.compress(target.read_bytes(), 1))
    target.unlink()
    options = {"bands": "r", "source": "bricks", "release": "dr5"}
    hdul = survey.get_cutout(TARGET, 101, mirror=tmp_path, **options)
    assert np.array_equal(hdul["IMAGE_R"].data, expected)
    packed.write_bytes(packed.read_bytes()[:-50_000])
    with pytest.raises(UnexpectedContentError):
        survey.get_cutout(TARGET, 101, mirror=tmp_path, **options)
