"""The files of the tree hold what the scene says."""

import hashlib

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from astroquery_lis.sandbox import sky
from astroquery_lis.survey import bitmasks, bricks, paths, releases

SOUTH = ("dr10", "south")
NORTH = ("dr9", "north")
APERTURE_PIX = 3.5 / 0.262
STARS = [
    ("star", SOUTH, "0451p000"),
    *(("corner", SOUTH, brick) for brick in ("0451p000", "0453p000", "0451p002", "0453p002")),
    *(("ra0", SOUTH, brick) for brick in ("0001p000", "3598p000")),
    ("split", SOUTH, "1801p322"),
    ("split", SOUTH, "1801p325"),
    ("split", NORTH, "1801p325"),
]


def cutout(root, tree, product, brick, band, position, half=40):
    """Return a box of a file around a position and the position's pixel in it."""
    path = root / paths.file_path(product, *tree, brick=brick, band=band)
    with fits.open(path) as hdul:
        hdu = next(hdu for hdu in hdul if hdu.is_image and hdu.header["NAXIS"] == 2)
        x, y = (float(v) for v in WCS(hdu.header).all_world2pix(*position, 0))
        x0, y0 = round(x) - half, round(y) - half
        data = hdu.section[y0 : y0 + 2 * half + 1, x0 : x0 + 2 * half + 1].astype(float)
    return data, x - x0, y - y0


def bands_of(tree):
    return releases.get_tree(*tree).bands


@pytest.mark.parametrize(("name", "tree", "brick"), STARS)
def test_stars_have_their_flux_and_place_on_every_brick(sky_tree, name, tree, brick):
    truth = sky.truth()
    row = truth[truth["name"] == name][0]
    for band in bands_of(tree):
        position = sky.POSITIONS_DEG[name]
        image, x, y = cutout(sky_tree, tree, "image", brick, band, position)
        invvar, _, _ = cutout(sky_tree, tree, "invvar", brick, band, position)
        yy, xx = np.indices(image.shape)
        inside = np.hypot(xx - x, yy - y) < APERTURE_PIX
        enclosed = sum(w * (1 - np.exp(-0.5 * (3.5 / s) ** 2)) for w, s in sky.psf_components(band))
        flux = image[inside].sum()
        noise = np.sqrt((1 / invvar[inside]).sum()) / row[f"flux_{band}"]
        assert noise < 0.003
        tolerance = max(0.005, 3.5 * noise)
        assert flux / enclosed == pytest.approx(row[f"flux_{band}"], rel=tolerance)
        assert (image * xx)[inside].sum() / flux == pytest.approx(x, abs=0.1)
        assert (image * yy)[inside].sum() / flux == pytest.approx(y, abs=0.1)


def test_noise_is_what_invvar_says(sky_tree):
    for band in "griz":
        pull = []
        for position in (sky.POSITIONS_DEG["blank"], sky.POSITIONS_DEG["field"], (45.2, 0.1)):
            args = (sky_tree, SOUTH)
            image, model, invvar = (
                cutout(*args, product, "0451p000", band, position, half=100)[0]
                for product in ("image", "model", "invvar")
            )
            assert (invvar > 0).all()
            pull.append((image - model) * np.sqrt(invvar))
        assert np.std(pull) == pytest.approx(1, abs=0.01)
        assert np.mean(pull) == pytest.approx(0, abs=0.02)


def test_chi2_and_depths_follow_from_the_other_products(sky_tree):
    position = sky.POSITIONS_DEG["star"]
    get = {
        product: cutout(sky_tree, SOUTH, product, "0451p000", "r", position)[0]
        for product in ("image", "model", "invvar", "chi2", "depth", "galdepth", "nexp", "psfsize")
    }
    expected = (get["image"] - get["model"]) ** 2 * get["invvar"]
    assert np.abs(get["chi2"] - expected).max() < 0.06 + 0.1 * expected.max()
    assert (get["depth"] > get["galdepth"]).all()
    sigma = 1 / np.sqrt(get["depth"])
    expected = sky.NOISE_SIGMA["r"] / np.sqrt(get["nexp"] * sky.psf_norm("r", 0.262))
    assert np.allclose(sigma, expected, rtol=1e-5)
    assert np.allclose(get["psfsize"], sky.psf_fwhm_arcsec("r"), rtol=1e-6)


@pytest.mark.parametrize("other", ["0453p000", "0451p002", "0453p002"])
def test_neighbours_agree_where_they_overlap(sky_tree, other):
    first = bricks.brick_grid(bricks.parse_brick_name("0451p000"))
    second = bricks.brick_grid(bricks.parse_brick_name(other))
    x, y = first.to_pixel(*sky.POSITIONS_DEG["corner"])
    yy, xx = np.mgrid[-60:61, -60:61]
    xx, yy = np.rint(x).astype(int) + xx, np.rint(y).astype(int) + yy
    x2, y2 = (np.rint(v).astype(int) for v in second.to_pixel(*first.to_sky(xx, yy)))
    values = {}
    for product in ("nexp", "model"):
        for brick, index in (("0451p000", (yy, xx)), (other, (y2, x2))):
            path = sky_tree / paths.file_path(product, *SOUTH, brick=brick, band="r")
            values[product, brick] = fits.getdata(path, 1)[index]
    # Only pixels that straddle an edge of the pattern may differ.
    same = values["nexp", "0451p000"] == values["nexp", other]
    assert same.mean() > 0.98
    assert values["model", "0451p000"].sum() == pytest.approx(
        values["model", other].sum(), rel=0.02
    )


def test_hole_was_not_observed(sky_tree):
    position = sky.POSITIONS_DEG["hole"]
    for product in ("image", "invvar", "nexp", "depth", "psfsize", "chi2"):
        data, _, _ = cutout(sky_tree, SOUTH, product, "0451p000", "g", position, half=70)
        assert not data.any()
        data, _, _ = cutout(sky_tree, SOUTH, product, "0451p000", "g", position, half=140)
        assert data.any()


def test_gap_has_no_exposure_in_one_band(sky_tree):
    position = sky.POSITIONS_DEG["gap"]
    for product in ("image", "invvar", "nexp"):
        for band in "griz":
            args = (sky_tree, SOUTH, product, "0451p000", band, position)
            pixels = cutout(*args, half=40)[0]
            assert not pixels.any() if band == "z" else pixels.all()
    assert (cutout(*args, half=60)[0] > 0).any()


def test_half_of_a_place_was_observed_and_no_brick_is_beyond_the_edge(sky_tree):
    position = sky.POSITIONS_DEG["half"]
    for brick in ("0453p000", "0453p002"):
        nexp, x, _ = cutout(sky_tree, SOUTH, "nexp", brick, "r", position, half=50)
        assert (nexp > 0).mean() == pytest.approx(0.5, abs=0.02)
        # East, where it was not observed, is left.
        assert not nexp[:, : int(x) - 1].any()
    ra, dec = sky.POSITIONS_DEG["edge"]
    assert bricks.brick_name(ra, dec) == "0451p000"
    listed = {name for names in sky.BRICKS.values() for name in names}
    assert str(bricks.brick_name(ra - 0.002, dec)) not in listed


def test_outside_the_windows_everything_is_zero(sky_tree):
    for product in ("image", "invvar", "model", "nexp", "psfsize"):
        path = sky_tree / paths.file_path(product, *SOUTH, brick="0453p000", band="r")
        assert not fits.getdata(path, 1)[:1000, :2500].any()


def test_masks(sky_tree):
    path = sky_tree / paths.file_path("maskbits", *SOUTH, brick="0451p000")
    with fits.open(path) as hdul:
        assert [hdu.name for hdu in hdul[1:]] == ["MASKBITS", "WISEM1", "WISEM2"]
        mask, wise = hdul["MASKBITS"].data, hdul["WISEM1"].data
        wcs = WCS(hdul["MASKBITS"].header)
    assert (mask.dtype.kind, mask.dtype.itemsize, mask.shape) == ("i", 4, (3600, 3600))
    assert wise.dtype == np.uint8
    is_set = bitmasks.decode_mask(mask, bitmasks.maskbits("dr10"))

    def at(name):
        place = wcs.all_world2pix(*sky.POSITIONS_DEG[name], 0)
        return tuple(int(np.rint(value)) for value in place[::-1])

    # The hole, like every pixel without a good exposure.
    for bit in ("BRIGHT", "MEDIUM", "SATUR_G", "SATUR_I", "ALLMASK_G", "ALLMASK_I"):
        assert is_set[bit][at("bright")], bit
        assert not is_set[bit][at("blank")], bit
    assert wise[at("bright")]
    assert is_set["ALLMASK_Z"][at("hole")]
    assert 100 < is_set["SATUR_R"].sum() < 10000
    assert is_set["GALAXY"].any()
    assert not (is_set["GALAXY"] & is_set["BRIGHT"]).any()
    y, x = np.mgrid[0:3600:37, 0:3600:37]
    owner = bricks.brick_name(*wcs.all_pix2world(x, y, 0))
    assert ((owner == "0451p000") == ~is_set["NPRIMARY"][y, x]).all()


def test_north_is_as_dr9_wrote_it(sky_tree):
    path = sky_tree / paths.file_path("maskbits", *NORTH, brick="1801p325")
    assert fits.getdata(path, 1).dtype.itemsize == 2
    with fits.open(
        sky_tree / paths.file_path("blobmodel", *NORTH, brick="1801p325", band="r")
    ) as hdul:
        hdul.verify("exception")
        assert len(hdul) == 1
        blob = hdul[0].data
    model = fits.getdata(sky_tree / paths.file_path("model", *NORTH, brick="1801p325", band="r"), 1)
    assert blob.shape == (3600, 3600)
    assert blob.any()
    assert np.abs(np.where(blob > 0, blob - model, 0)).max() < 1e-4
    assert not list(path.parent.glob("*-i.fits.fz"))


def test_north_and_south_differ_in_noise(sky_tree):
    position = sky.POSITIONS_DEG["split"]
    north, south = (
        cutout(sky_tree, tree, "image", "1801p325", "r", position)[0] for tree in (NORTH, SOUTH)
    )
    assert 0 < np.abs(north - south).max() < 0.1


@pytest.mark.parametrize(
    ("tree", "brick"), [(t, b) for t, names in sky.BRICKS.items() for b in names]
)
def test_folders_are_complete_and_checksums_agree(sky_tree, tree, brick):
    path = sky_tree / paths.file_path("coadd-checksums", *tree, brick=brick)
    lines = dict(reversed(line.split("  ")) for line in path.read_text().splitlines())
    assert sorted(lines) == sorted(p.name for p in path.parent.iterdir() if p != path)
    products = [name for name, kind in paths.COADD_PRODUCTS.items() if kind.per_band]
    if (tree, brick) == (SOUTH, "1801p325"):
        products = ["image", "invvar", "nexp"]
    expected = {
        paths.file_path(p, *tree, brick=brick, band=b) for p in products for b in bands_of(tree)
    }
    wise = ("image", "invvar", "model")
    expected |= {
        paths.file_path(p, *tree, brick=brick, band=f"W{n}") for p in wise for n in (1, 2, 3, 4)
    }
    expected.add(paths.file_path("maskbits", *tree, brick=brick))
    expected.add(paths.file_path("ccds-table", *tree, brick=brick))
    assert {str((path.parent / name).relative_to(sky_tree)) for name in lines} == expected
    for name, digest in lines.items():
        if "-image-" in name or "-maskbits" in name or "-ccds" in name:
            with open(path.parent / name, "rb") as file:
                assert hashlib.file_digest(file, "sha256").hexdigest() == digest


def test_brick_tables(sky_tree):
    everything = Table.read(sky_tree / paths.file_path("survey-bricks", "dr10"))
    assert set(everything["BRICKNAME"]) == {b for names in sky.BRICKS.values() for b in names}
    assert (bricks.brick_id(everything["RA"], everything["DEC"]) == everything["BRICKID"]).all()
    south = Table.read(sky_tree / paths.file_path("region-bricks", *SOUTH))
    north = Table.read(sky_tree / paths.file_path("region-bricks", "dr10", "north"))
    assert set(south["brickname"]) == set(sky.BRICKS[SOUTH])
    assert list(north["brickname"]) == ["1801p325"]
    assert "nexp_i" not in north.colnames
    assert (south["survey_primary"] == (south["brickname"] != "1801p325")).all()
    assert north["survey_primary"].all()
    assert (south["nexp_r"] > 0).all()
    assert ((south["psfdepth_r"] > 23) & (south["psfdepth_r"] < 26)).all()
    assert (south["psfdepth_r"] > south["galdepth_r"]).all()
    assert south["nobjs"].sum() + north["nobjs"].sum() - south["nobjs"][-1] == len(sky.truth())
