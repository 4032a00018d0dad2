"""The WISE files of the tree hold what the scene says, in Vega nanomaggies."""

import hashlib
import urllib.request

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from astroquery_lis.sandbox import coadd_files
from astroquery_lis.sandbox import sky as scene
from astroquery_lis.survey import bricks, paths

BANDS = ("W1", "W2", "W3", "W4")
PRODUCTS = ("image", "invvar", "model")
SOUTH, NORTH = ("dr10", "south"), ("dr9", "north")
FILES = [(tree, brick) for tree, names in scene.BRICKS.items() for brick in names]
# AB minus Vega, from the survey's description of its data.
AB_OF_VEGA = {"W1": 2.699, "W2": 3.339, "W3": 5.174, "W4": 6.620}
FWHM_ARCSEC = {"W1": 6.1, "W2": 6.4, "W3": 6.5, "W4": 12.0}
STARS = [
    ("star", SOUTH, "0451p000"),
    *(("corner", SOUTH, brick) for brick in ("0451p000", "0453p000", "0451p002", "0453p002")),
    *(("ra0", SOUTH, brick) for brick in ("0001p000", "3598p000")),
    ("split", SOUTH, "1801p322"),
    ("split", NORTH, "1801p325"),
]


def file_of(root, tree, product, brick, band):
    folder = f"{'/'.join(tree)}/coadd/{brick[:3]}/{brick}"
    return root / folder / f"legacysurvey-{brick}-{product}-{band}.fits.fz"


def read(root, tree, product, brick, band):
    """Return pixels and header of a file."""
    with fits.open(file_of(root, tree, product, brick, band)) as hdul:
        return hdul[1].data.astype(float), hdul[1].header.copy()


def around(image, header, position, radius_pix):
    """Return the pixels around a position: their values, and their x and y from it."""
    x, y = (float(value) for value in WCS(header).all_world2pix(*position, 0))
    yy, xx = np.indices(image.shape)
    near = np.hypot(xx - x, yy - y) < radius_pix
    return image[near], xx[near] - x, yy[near] - y


def truth_of(name, band):
    """Return the AB flux of a named star."""
    truth = scene.truth()
    return float(truth[truth["name"] == name][f"flux_{band.lower()}"][0])


@pytest.mark.parametrize(("tree", "brick"), FILES)
def test_every_brick_has_its_files(sky_tree, tree, brick):
    for band in BANDS:
        for product in PRODUCTS:
            path = file_of(sky_tree, tree, product, brick, band)
            with fits.open(path) as hdul:
                assert len(hdul) == 2
                assert hdul[0].data is None
                assert hdul[1].data.shape == (342, 342)
                assert hdul[1].data.dtype.kind == "f"
                assert hdul[1].data.dtype.itemsize == 4
                assert np.isfinite(hdul[1].data).all()


@pytest.mark.parametrize(("tree", "brick"), [(SOUTH, "0451p002"), (NORTH, "1801p325")])
@pytest.mark.parametrize("band", BANDS)
def test_headers(sky_tree, tree, brick, band):
    center = bricks.get_brick(brick)
    kinds = {"image": "image", "invvar": "wtmap", "model": "model"}
    for product, kind in kinds.items():
        _, header = read(sky_tree, tree, product, brick, band)
        assert (header["IMTYPE"], header["PRODTYPE"]) == (product, kind)
        assert (header["MAGZERO"], header["MAGSYS"], header["FILTER"]) == (22.5, "Vega", band)
        assert "BUNIT" not in header
        assert (header["BRICKNAM"], header["BRICKID"]) == (brick, center.id)
        assert (header["CTYPE1"], header["CTYPE2"]) == ("RA---TAN", "DEC--TAN")
        assert (header["CRVAL1"], header["CRVAL2"]) == (center.ra_deg, center.dec_deg)
        assert (header["CRPIX1"], header["CRPIX2"]) == (171.5, 171.5)
        scales = WCS(header).proj_plane_pixel_scales()
        assert [scale.to_value("arcsec") for scale in scales] == pytest.approx([2.75, 2.75])


def test_the_grid_is_that_of_the_files(sky_tree):
    for tree, brick in ((SOUTH, "3598p000"), (NORTH, "1801p325")):
        _, header = read(sky_tree, tree, "image", brick, "W1")
        x, y = np.array([0, 341, 100.3]), np.array([0, 20.7, 341])
        wanted = WCS(header).all_pix2world(x, y, 0)
        np.testing.assert_allclose(
            coadd_files.wise_grid(brick).to_sky(x, y), wanted, rtol=0, atol=1e-10
        )


@pytest.mark.parametrize("product", PRODUCTS)
def test_codecs_are_those_of_the_optical_files(sky_tree, product):
    path = file_of(sky_tree, SOUTH, product, "0453p000", "W2")
    optical = file_of(sky_tree, SOUTH, product, "0453p000", "g")
    with fits.open(optical, disable_image_compression=True) as hdul:
        wanted = hdul[1].header.copy()
    with fits.open(path, disable_image_compression=True) as hdul:
        header, rows = hdul[1].header, hdul[1].data
        for key in ("ZCMPTYPE", "ZTILE1", "ZTILE2", "ZQUANTIZ"):
            assert header.get(key) == wanted.get(key)
        assert (header["ZCMPTYPE"], header["ZTILE1"], header["ZTILE2"]) == ("RICE_1", 100, 100)
        # A file without the card is not dithered.
        dither = "NO_DITHER" if product == "invvar" else "SUBTRACTIVE_DITHER_2"
        assert header.get("ZQUANTIZ", "NO_DITHER") == dither
        # The last tile of a row is 42 pixels wide.
        assert len(rows) == 16
        if product != "invvar":
            np.testing.assert_allclose(rows["ZSCALE"], 1e-4, rtol=1e-6)


@pytest.mark.parametrize(("name", "tree", "brick"), STARS)
@pytest.mark.parametrize("band", ["W1", "W2"])
def test_models_have_the_flux_and_place_of_stars(sky_tree, name, tree, brick, band):
    model, header = read(sky_tree, tree, "model", brick, band)
    # Eight pixels hold all of the PSF.  The next sources are 26 arcsec away.
    light, dx, dy = around(model, header, scene.POSITIONS_DEG[name], 8)
    core = np.hypot(dx, dy) < 3
    vega = truth_of(name, band) * 10 ** (AB_OF_VEGA[band] / 2.5)
    tolerance = 5e-4 if name == "star" else 0.06
    assert light.sum() == pytest.approx(vega, rel=tolerance)
    assert (light * dx)[core].sum() / light[core].sum() == pytest.approx(0, abs=0.05)
    assert (light * dy)[core].sum() / light[core].sum() == pytest.approx(0, abs=0.05)


@pytest.fixture(scope="module")
def first_row(served_sky):
    """A row of the catalogue."""
    return served_sky.catalog[0]


@pytest.mark.parametrize(("name", "tree", "brick"), STARS)
@pytest.mark.parametrize("band", ["W1", "W2"])
def test_images_have_the_flux_and_place_of_stars(sky_tree, first_row, name, tree, brick, band):
    image, header = read(sky_tree, tree, "image", brick, band)
    invvar, _ = read(sky_tree, tree, "invvar", brick, band)
    position = scene.POSITIONS_DEG[name]
    light, dx, dy = around(image, header, position, 4)
    weight, _, _ = around(invvar, header, position, 4)
    sigmas = [(share, sigma / 2.75) for share, sigma in scene.wise_psf_components(band)]
    radius2 = dx**2 + dy**2
    psf = sum(w * np.exp(-0.5 * radius2 / s**2) / (2 * np.pi * s**2) for w, s in sigmas)
    slope = sum(w * np.exp(-0.5 * radius2 / s**2) / (2 * np.pi * s**4) for w, s in sigmas)
    vega = truth_of(name, band) * 10 ** (AB_OF_VEGA[band] / 2.5)
    # Least squares of the flux, and of a shift of the star.
    design = np.stack([psf, vega * slope * dx, vega * slope * dy])
    covariance = np.linalg.inv((design * weight) @ design.T)
    flux, shift_x, shift_y = covariance @ (design * weight) @ light
    errors = np.sqrt(np.diag(covariance))
    assert errors[0] / vega < {"W1": 0.03, "W2": 0.07}[band]
    assert flux == pytest.approx(vega, abs=4 * errors[0])
    assert shift_x == pytest.approx(0, abs=4 * errors[1])
    assert shift_y == pytest.approx(0, abs=4 * errors[2])
    # The catalogue says how deep the image is, as AB.
    depth = first_row[f"psfdepth_{band.lower()}"]
    error_ab = errors[0] * 10 ** (-AB_OF_VEGA[band] / 2.5)
    assert error_ab == pytest.approx(1 / np.sqrt(depth), rel=0.06)


@pytest.mark.parametrize("band", BANDS)
def test_psf_is_as_wide_as_it_says(sky_tree, band):
    model, header = read(sky_tree, SOUTH, "model", "0451p000", band)
    # So bright that its neighbours do not count.
    position = scene.POSITIONS_DEG["bright"]
    light, dx, dy = around(model, header, position, FWHM_ARCSEC[band] / 2.75)
    radius = np.hypot(dx, dy) * 2.75
    profile = np.polynomial.Polynomial.fit(radius**2, np.log(light), 4)
    fine = np.linspace(0, radius.max(), 10001)
    half = fine[np.argmax(profile(fine**2) < profile(0) - np.log(2))]
    assert 2 * half == pytest.approx(FWHM_ARCSEC[band], rel=0.01)
    assert scene.WISE_FWHM_ARCSEC[band] == FWHM_ARCSEC[band]


@pytest.mark.parametrize("band", BANDS)
def test_noise_is_what_the_inverse_variance_says(sky_tree, band):
    for tree, brick in ((SOUTH, "0453p002"), (SOUTH, "1801p325"), (NORTH, "1801p325")):
        planes = [read(sky_tree, tree, product, brick, band)[0] for product in PRODUCTS]
        image, invvar, model = planes
        pull = (image - model) * np.sqrt(invvar)
        assert pull.std() == pytest.approx(1, abs=0.01)
        assert pull.mean() == pytest.approx(0, abs=0.015)
        assert invvar.min() > 0
        assert 1.02 < invvar.max() / invvar.min() < 1.2


def test_two_regions_have_one_sky_and_two_noises(sky_tree):
    for product, same in (("model", True), ("image", False)):
        south, _ = read(sky_tree, SOUTH, product, "1801p325", "W1")
        north, _ = read(sky_tree, NORTH, product, "1801p325", "W1")
        assert np.allclose(south, north, rtol=0, atol=2e-4) == same


def test_a_20_mag_source_stands_out_in_w1(sky_tree):
    invvar, _ = read(sky_tree, SOUTH, "invvar", "0451p000", "W1")
    vega = 10 ** ((22.5 - 20.0 + AB_OF_VEGA["W1"]) / 2.5)
    norm = sum(
        w1 * w2 / (2 * np.pi * (s1**2 + s2**2)) * 2.75**2
        for w1, s1 in scene.wise_psf_components("W1")
        for w2, s2 in scene.wise_psf_components("W1")
    )
    assert vega * np.sqrt(invvar.min() * norm) > 8


@pytest.mark.parametrize(("tree", "brick"), [(SOUTH, "0451p000"), (NORTH, "1801p325")])
def test_checksums_list_the_files_with_the_others(sky_tree, tree, brick):
    path = sky_tree / paths.file_path("coadd-checksums", *tree, brick=brick)
    listed = dict(reversed(line.split()) for line in path.read_text().splitlines())
    files = sorted(file.name for file in path.parent.glob("*.fits*"))
    assert list(listed) == files
    for product in PRODUCTS:
        for band in BANDS:
            file = file_of(sky_tree, tree, product, brick, band)
            assert listed[file.name] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_files_are_served(sky):
    path = file_of(sky.root, SOUTH, "image", "0001p000", "W3")
    url = f"{sky.mirror_url.rstrip('/')}/{path.relative_to(sky.root).as_posix()}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert answer.read() == path.read_bytes()
