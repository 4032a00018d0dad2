"""The simulated viewer answers as the viewer's own code did, run on other bricks.

The rows are requests that were made of that code, and what came: status, type and structure, not
pixels, since the bricks were others.
"""

import io
import re
from urllib.parse import quote

import numpy as np
import pytest
import urllib3
from astropy.io import fits

HTML = "text/html; charset=utf-8"
PLACES = {
    "@empty": "ra=45.2&dec=0.1",
    "@galaxy": "ra=45.154897&dec=-0.004743",
    "@star": "ra=45.112743&dec=-0.063151",
    "@edge": "ra=45.25&dec=0.0",
    "@north": "ra=180.15&dec=32.5",
    "@split": "ra=180.15&dec=32.375",
    "@off": "ra=100&dec=50",
}

# Request, BANDS, and for each HDU its IMAGETYP, its shape, "int" unless it is float32, and "zero"
# where all of it is.
CUTOUTS = [
    ("@empty&layer=ls-dr10&pixscale=0.262&size=128&bands=grz", "grz", "IMAGE 3x128x128"),
    ("@empty", "grz", "IMAGE 3x256x256"),
    ("@empty&layer=ls-dr10&size=64&bands=zrg", "zrg", "IMAGE 3x64x64"),
    ("@empty&layer=ls-dr10&size=64&bands=g,r,z", "griz", "IMAGE 4x64x64"),
    ("@empty&layer=ls-dr10&size=64&bands=GRZ", "griz", "IMAGE 4x64x64"),
    ("@empty&layer=ls-dr9&size=64&bands=i", "grz", "IMAGE 3x64x64"),
    ("@empty&layer=ls-dr10&size=64&bands=g&invvar", "g", "IMAGE 64x64, INVVAR 64x64"),
    (
        "@empty&layer=ls-dr10&size=64&bands=grz&maskbits",
        "grz",
        "IMAGE 3x64x64, MASKBITS 64x64 int zero",
    ),
    ("@empty&layer=ls-dr10-model&size=64&bands=grz", "grz", "IMAGE 3x64x64 zero"),
    (
        "@empty&layer=ls-dr10-resid&size=64&bands=grz&invvar&maskbits",
        "grz",
        "IMAGE 3x64x64, INVVAR 3x64x64, MASKBITS 64x64 int zero",
    ),
    ("@empty&layer=ls-dr10-grz&size=64", "grz", "IMAGE 3x64x64"),
    ("@empty&layer=ls-dr10-model-grz&size=64", "grz", "IMAGE 3x64x64 zero"),
    ("@empty&layer=ls-dr10-south&size=64", "griz", "IMAGE 4x64x64"),
    ("@empty&layer=ls-dr10&size=65&bands=g", "g", "IMAGE 65x65"),
    ("@empty&layer=ls-dr10&size=1&bands=g", "g", "IMAGE 1x1"),
    ("@empty&layer=ls-dr10&size=64&bands=g&zoom=15", "g", "IMAGE 64x64"),
    (
        "@empty&layer=ls-dr10&size=64&bands=g&pixscale=0.5&invvar",
        "g",
        "IMAGE 64x64, INVVAR 64x64",
    ),
    ("ra=-314.8&dec=0.1&layer=ls-dr10&size=64&bands=g", "g", "IMAGE 64x64"),
    (
        "ra=44.992&dec=0.1&layer=ls-dr10&size=256&bands=g&invvar",
        "g",
        "IMAGE 256x256, INVVAR 256x256",
    ),
    ("@empty&layer=ls-dr10&size=64&bands=g&rotate=0", "g", "IMAGE 64x64"),
    (
        "@edge&layer=ls-dr10&size=64&bands=g&invvar&maskbits",
        "g",
        "IMAGE 64x64, INVVAR 64x64, MASKBITS 64x64 int",
    ),
    (
        "@north&layer=ls-dr10&size=64&bands=i&invvar",
        "i",
        "IMAGE 64x64 zero, INVVAR 64x64 zero",
    ),
    ("@split&layer=ls-dr10&size=128&bands=griz", "griz", "IMAGE 4x128x128"),
    ("@empty&layer=ls-dr11&size=64", "grz", "IMAGE 3x64x64"),
    ("@empty&layer=ls-dr11-south-griz&size=64", "griz", "IMAGE 4x64x64"),
    ("@north&layer=mzls+bass-dr6&size=64", "grz", "IMAGE 3x64x64"),
    ("@empty&layer=decals-dr5&size=64&bands=g", "g", "IMAGE 64x64"),
    ("@galaxy&layer=ls-dr10-model&size=64&bands=grz", "grz", "IMAGE 3x64x64"),
    (
        "@galaxy&layer=ls-dr10-model&size=64&bands=grz&invvar&maskbits",
        "grz",
        "IMAGE 3x64x64, INVVAR 3x64x64, MASKBITS 64x64 int zero",
    ),
    (
        "@star&layer=ls-dr10&size=200&bands=r&pixscale=0.131&invvar",
        "r",
        "IMAGE 200x200, INVVAR 200x200",
    ),
    ("@star&layer=ls-dr10&size=44&bands=r&pixscale=0.6&invvar&maskbits", "r", "IMAGE 44x44"),
    ("@star&layer=ls-dr10&size=24&bands=r&pixscale=3", "r", "IMAGE 24x24 zero"),
    ("@star&layer=ls-dr10&size=100&bands=gr&subimage", "", "empty" + 2 * ", image, invvar"),
    ("@edge&layer=ls-dr10&size=100&bands=g&subimage", "", "empty" + 2 * ", image, invvar"),
    ("@north&layer=ls-dr10&size=100&bands=grz&subimage", "", "empty" + 3 * ", image, invvar"),
    ("@galaxy&layer=ls-dr10-resid&size=100&bands=r&subimage", "", "empty, image, invvar"),
    ("@galaxy&layer=ls-dr10-south-resid&size=100&bands=r&subimage", "", "empty, image, invvar"),
    ("ra=45.125&dec=0.0&layer=ls-dr10-south&size=64&bands=r", "r", "IMAGE 64x64"),
    (
        "ra=45.12501&dec=0.00001&layer=ls-dr10&size=64&bands=g&invvar",
        "g",
        "IMAGE 64x64, INVVAR 64x64",
    ),
    ("@empty&layer=ls-dr8&size=32&bands=r", "r", "IMAGE 32x32"),
    ("@empty&layer=ls-dr9-grz&size=32", "grz", "IMAGE 3x32x32 zero"),
    ("@empty&layer=ls-dr9-south-grz&size=32", "grz", "IMAGE 3x32x32"),
    ("@empty&layer=ls-dr10-mid&size=32", "griz", "IMAGE 4x32x32"),
    ("@empty&layer=&size=32", "grz", "IMAGE 3x32x32 zero"),
    ("@empty&layer=ls-dr10&size=64&bands=g&pixscale=0.5241&invvar", "g", "IMAGE 64x64"),
]
OTHER_PATHS = ["fits-cutout", "cutout.fitsxyz"]

PSFS = [
    ("@empty&layer=ls-dr10", "griz", "g 63x63, r 63x63, i 63x63, z 63x63"),
    ("@empty", "grz", "g 63x63, r 63x63, z 63x63"),
    ("@empty&layer=ls-dr10&bands=zg", "zg", "z 63x63, g 63x63"),
    ("@empty&layer=ls-dr10&bands=g,z", "gz", "g 63x63, z 63x63"),
    ("@empty&layer=ls-dr10-model", "griz", "g 63x63, r 63x63, i 63x63, z 63x63"),
    ("@north&layer=ls-dr10", "grz", "g 31x31, r 31x31, z 63x63"),
    ("@empty&layer=ls-dr11", "grz", "g 63x63, r 63x63, z 63x63"),
]

# Request, size, and the mean of red, green and blue where no source matters to it.
PICTURES = [
    ("@galaxy&layer=ls-dr10-grz&size=200", 200, None),
    ("@galaxy&layer=ls-dr10&size=200&bands=g", 200, (0.6, 0.7, 25.0)),
    ("@galaxy&layer=ls-dr9&size=200&bands=g", 200, (0.6, 0.8, 32.4)),
    ("@galaxy&layer=ls-dr10-resid&size=200", 200, None),
    pytest.param("@galaxy&layer=ls-dr9&size=5000", 3000, None, marks=pytest.mark.slow),
    ("@off&layer=ls-dr9&size=64", 64, (32.0, 32.0, 32.0)),
    ("@galaxy&layer=ls-dr10-south&size=200&rotate=45", 200, None),
    ("@split&layer=ls-dr10&size=64", 64, None),
    ("ra=45.1140&dec=-0.0660&layer=ls-dr10-grz&size=128", 128, None),
]

# Request, status, type, bytes, what the text begins with.
BROKEN = (500, HTML, 145, '\n<!doctype html>\n<html lang="en">\n<head>\n  <title>Server Error')
NO_SUCH_LAYER = (200, HTML, 13, "no such layer")
TEXTS = [
    ("cutout.fits?@empty&layer=ls-dr10&size=0&bands=g", *BROKEN),
    ("cutout.fits?@empty&layer=ls-dr10&size=64&bands=g&pixscale=0", *BROKEN),
    ("cutout.fits?@empty&layer=ls-dr10&size=64&bands=g&pixscale=abc", *BROKEN),
    ("cutout.fits?ra=03:00:48&dec=0.1&layer=ls-dr10", 400, HTML, 20, "Need ra,dec keywords"),
    ("cutout.fits?ra=45.2&dec=95&layer=ls-dr10&size=64&bands=g", *BROKEN),
    ("cutout.fits?@empty&layer=a/b", *NO_SUCH_LAYER),
    ("cutout.fits?@off&layer=ls-dr10&size=64", *BROKEN),
    ("cutout.fits?@empty&layer=ls-dr10&size=64&bands=g&rotate=30", *BROKEN),
    ("cutout.fits?@off&layer=ls-dr10&size=100&bands=g&subimage", *BROKEN),
    ("cutout.jpg?@galaxy&layer=ls-dr10&size=64&bands=", *BROKEN),
    ("coadd-psf/?@off&layer=ls-dr10", *BROKEN),
    ("coadd-psf/?@empty&layer=nosuch", *BROKEN),
    ("checkflavour/viewer", 200, HTML, 18, "yes flavour viewer"),
    (
        "bricks/?ralo=45.0&rahi=45.3&declo=-0.05&dechi=0.2&layer=ls-dr10",
        *(200, "application/json", 399),
        '{"polys": [{"name": "0451p000", "radecs": [[45.0, -0.125], [45.0, 0.125], [45.25, 0.125]',
    ),
    (
        "bricks/?ralo=45.0&rahi=45.3&declo=-0.05&dechi=0.2",
        *(200, "application/json", 593),
        '{"polys": [{"name": "0448p000", "radecs": [[44.75, -0.125], [44.75, 0.125], [45.0, 0.125]',
    ),
    (
        "bricks/?ralo=100.0&rahi=100.3&declo=50&dechi=50.2&layer=ls-dr10",
        *(200, "application/json", 13),
        '{"polys": []}',
    ),
    (
        "bricks/?ralo=-0.2&rahi=0.2&declo=-0.05&dechi=0.05&layer=ls-dr10",
        *(200, "application/json", 113),
        '{"polys": [{"name": "3598p000", "radecs": [[359.75, -0.125], [359.75, 0.125], [360.0, ',
    ),
    ("cutout.jpg?@empty&layer=unwise-neo7&size=64", *BROKEN),
    ("cutout.fits?@empty&layer=galex&size=64", *BROKEN),
    ("cutout.fits?@empty&layer=des-dr1&size=64", *BROKEN),
    ("cutout.fits?@empty&layer=ps1&size=64", *BROKEN),
    ("cutout.fits?@empty&layer=ls-dr10%20&size=32", *NO_SUCH_LAYER),
    ("cutout.fits?@empty&layer=ls-dr10&size=", *BROKEN),
    ("cutout.fits?ra=45.2&dec=33&layer=ls-dr10&size=32", *BROKEN),
    ("coadd-psf/?@empty&layer=unwise-neo7", *BROKEN),
    ("cutout.fits?ra=45.125&dec=-0.25&layer=ls-dr10-south&size=100&bands=g&subimage", *BROKEN),
]

# Recorded on a hole of 12 % of the box; the scene's is wider than the whole of it.
EXCEPTIONS = ["cutout.fits?ra=45.20505&dec=-0.05789&layer=ls-dr10&size=40&bands=g&invvar&maskbits"]


@pytest.fixture
def get(sky):
    with urllib3.PoolManager(retries=False, timeout=60) as pool:

        def request(text):
            for place, position in PLACES.items():
                text = re.sub(rf"{place}\b", position, text)
            address = f"{sky.viewer_url}/{quote(text, safe='/?&=.,+%:-')}"
            return pool.request("GET", address, redirect=False)

        yield request


def structure(data):
    """Describe the HDUs of a FITS file as the rows of the tables do."""
    with fits.open(io.BytesIO(data)) as hdul:
        hdul.verify("exception")
        described = []
        for hdu in hdul:
            name = hdu.header.get("IMAGETYP", hdu.header.get("BAND"))
            if hdu.data is None:
                described.append("empty")
                continue
            words = [name, "x".join(map(str, hdu.data.shape))]
            assert hdu.data.dtype in (np.dtype(">f4"), np.dtype(">i4"))
            words += ["int"] if hdu.data.dtype.kind == "i" else []
            words += ["zero"] if not hdu.data.any() else []
            described.append(" ".join(words))
        return hdul[0].header.get("BANDS", ""), ", ".join(described)


def fits_bytes(described):
    """Return the bytes of a file whose headers all fit one block."""
    total = 0
    for hdu in described.split(", "):
        size = 4 * np.prod([int(n) for n in hdu.split()[1].split("x")]) if " " in hdu else 0
        total += 2880 + 2880 * int(np.ceil(size / 2880))
    return total


def spelt_out(described):
    return re.sub(r"(image|invvar)(?=,|$)", r"\1 100x100", described)


def filename(answer):
    return re.fullmatch(
        r'attachment; filename="(\w+)_(-?\d+\.\d{4})_(-?\d+\.\d{4})\.fits"',
        answer.headers["Content-Disposition"],
    )


@pytest.mark.parametrize(("request_", "bands", "described"), CUTOUTS)
def test_cutouts(get, request_, bands, described):
    answer = get(f"cutout.fits?{request_}")
    described = spelt_out(described)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/fits")
    assert structure(answer.data) == (bands, described)
    assert int(answer.headers["Content-Length"]) == fits_bytes(described)
    assert filename(answer)[1] == "cutout"


@pytest.mark.parametrize("path", OTHER_PATHS)
def test_other_paths_lead_to_the_same(get, path):
    query = "@empty&layer=ls-dr10&size=64&bands=g"
    answer = get(f"{path}?{query}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/fits")
    assert answer.data == get(f"cutout.fits?{query}").data


@pytest.mark.parametrize(("request_", "bands", "described"), PSFS)
def test_psfs(get, request_, bands, described):
    answer = get(f"coadd-psf/?{request_}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/fits")
    assert structure(answer.data) == (bands, described)
    assert int(answer.headers["Content-Length"]) == fits_bytes(described)
    assert filename(answer)[1] == "copsf"


@pytest.mark.parametrize(("request_", "size", "mean"), PICTURES)
def test_pictures(get, request_, size, mean):
    images = pytest.importorskip("PIL.Image")
    answer = get(f"cutout.jpg?{request_}")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/jpeg")
    assert "Content-Disposition" not in answer.headers
    with images.open(io.BytesIO(answer.data)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (size, size))
        pixels = np.asarray(picture)
    assert pixels.max() > pixels.min() or mean == (32.0, 32.0, 32.0)
    if mean is not None:
        # The level of the sky; the colours of a single band are far from each other.
        assert np.median(pixels, axis=(0, 1)) == pytest.approx(mean, abs=2)


def test_picture_of_native_pixels_is_a_fits_file(get):
    answer = get("cutout.jpg?@galaxy&layer=ls-dr10&size=64&subimage")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/jpeg")
    described = "empty" + 4 * ", image 64x64, invvar 64x64"
    assert structure(answer.data) == ("", described)
    assert len(answer.data) == 164160
    assert "Content-Disposition" not in answer.headers


@pytest.mark.parametrize(("request_", "status", "kind", "length", "text"), TEXTS)
def test_texts(get, request_, status, kind, length, text):
    answer = get(request_)
    assert (answer.status, answer.headers["Content-Type"]) == (status, kind)
    assert len(answer.data) == length
    assert answer.data.decode().startswith(text)


@pytest.mark.parametrize("request_", ["", "cutout.png?@empty&layer=ls-dr10", "coadd-psf?@empty"])
def test_what_is_not_known_is_the_page_of_the_map(get, request_):
    answer = get(request_)
    assert (answer.status, answer.headers["Content-Type"]) == (200, HTML)
    assert answer.data.startswith(b'\n\n<html xmlns="https://www.w3.org/1999/xhtml"')
    assert len(answer.data) == pytest.approx(265_300, abs=500)


@pytest.mark.parametrize("request_", EXCEPTIONS)
def test_exceptions_have_the_same_shapes(get, request_):
    answer = get(request_)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/fits")
    bands, described = structure(answer.data)
    shapes = described.replace(" zero", "")
    assert (bands, shapes) == ("g", "IMAGE 40x40, INVVAR 40x40, MASKBITS 40x40 int")
    at_the_rim = get(request_.replace("-0.05789", "-0.05244")).data
    assert structure(at_the_rim) == (bands, shapes)
    # The kernel rings at the edge of the hole, as recorded.
    with fits.open(io.BytesIO(at_the_rim)) as hdul:
        assert 0.1 < (hdul[0].data == 0).mean() < 0.9
        assert hdul[1].data.min() < -1000
