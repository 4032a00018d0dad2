"""What was observed: one judgement, whichever source answers, against the files themselves."""

import os
import shutil
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from astroquery_lis import bricks
from astroquery_lis.exceptions import (
    CoverageWarning,
    InvalidRequestError,
    MissingDataError,
    NoCoverageError,
)
from astroquery_lis.survey.paths import file_path

EDGE = SkyCoord(45.0, 0.0625, unit="deg")
NORTH = SkyCoord(180.15, 32.379, unit="deg")


pytestmark = pytest.mark.usefixtures("viewer")


WAYS = {
    "bricks": {"source": "bricks"},
    "native": {"source": "viewer"},
    "rendered": {"source": "viewer", "pixel_scale": 0.3 * u.arcsec},
    "coarse": {"source": "viewer", "pixel_scale": 0.5 * u.arcsec},
    "resampled": {"source": "bricks", "pixel_scale": 0.3 * u.arcsec},
}


@pytest.fixture(params=WAYS)
def way(request):
    if request.param == "resampled":
        pytest.importorskip("reproject")
    return WAYS[request.param]


@pytest.mark.parametrize("on_missing", ["raise", "warn"])
@pytest.mark.parametrize("bands", ["r", "grz", None])
def test_where_nothing_was_observed_there_is_no_coverage(sky, survey, way, bands, on_missing):
    with pytest.raises(NoCoverageError, match="dr10.* has no data at RA 45.2050"):
        survey.get_cutout(sky.positions["hole"], 60, bands=bands, on_missing=on_missing, **way)


def test_a_small_box_beside_the_last_image_has_no_coverage(survey, way):
    with pytest.raises(NoCoverageError):
        survey.get_cutout(SkyCoord(44.9902, 0.0546, unit="deg"), 7, bands="r", **way)


def test_no_psf_and_no_picture_either(sky, survey):
    pytest.importorskip("PIL")
    with pytest.raises(NoCoverageError):
        survey.get_psf(sky.positions["hole"])
    with pytest.raises(NoCoverageError):
        survey.get_picture(sky.positions["hole"], 40)


def test_what_the_north_lacks_is_the_same_error_everywhere(survey, way):
    with pytest.raises(MissingDataError, match="No image i in"):
        survey.get_cutout(NORTH, 12, bands="i", **way)
    with pytest.warns(CoverageWarning, match="No image i in"):
        hdul = survey.get_cutout(NORTH, 12, bands="i", on_missing="warn", **way)
    assert np.isnan(hdul["IMAGE_I"].data).all()
    assert hdul["IMAGE_I"].header["OBSFRAC"] == 0


def test_a_brick_that_exists_is_not_denied_for_a_band_that_its_region_lacks(sky, survey):
    blank = SkyCoord(180.15, 32.4, unit="deg")
    assert len(survey.query_bricks(blank, radius=1 * u.arcsec)) == 1
    with pytest.raises(
        NoCoverageError, match="dr9/north has no i; its bands are g, r, z"
    ) as caught:
        survey.get_cutout(blank, 40, bands="i")
    assert "does not exist" not in str(caught.value)


def test_beyond_the_bricks_there_is_nan_and_one_warning(survey, way):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hdul = survey.get_cutout(EDGE, 150 * u.arcsec, bands="r", **way)
    assert len(caught) == 1
    assert "of the cutout is without values" in str(caught[0].message)
    assert "0448p000" in str(caught[0].message)
    image = hdul["IMAGE_R"]
    y, x = np.indices(image.shape)
    ra, dec = WCS(image.header).pixel_to_world_values(x, y)
    column = bricks.brick_wcs("0451p000").world_to_pixel_values(ra, dec)[0]
    assert np.isnan(image.data[column > 3604]).all()
    assert np.isfinite(image.data[column < 3596]).all()
    observed = np.isfinite(image.data) & (image.data != 0)
    assert image.header["OBSFRAC"] == pytest.approx(observed.mean(), abs=0.02)


def test_a_product_more_does_not_change_the_viewers_image(sky, survey):
    position = sky.positions["star"]
    for products in (("image", "maskbits"), ("invvar", "nexp")):
        with pytest.raises(InvalidRequestError, match=products[1]):
            survey.get_cutout(position, 40, bands="r", source="viewer", products=products)
    one = survey.get_cutout(position, 40, bands="r", source="viewer")
    two = survey.get_cutout(position, 40, bands="r", source="viewer", products=("image", "invvar"))
    assert np.array_equal(one["IMAGE_R"].data, two["IMAGE_R"].data)


def test_pixels_of_another_size_come_from_the_bricks_where_they_serve_better(sky, survey):
    pytest.importorskip("reproject")
    ask = dict(bands="r", get_query_payload=True)
    for size, scale, is_bricks in ((100, 0.3, 1), (3000, 0.45, 1), (300, 2, 1), (3000, 1, 0)):
        payload = survey.get_cutout(
            sky.positions["star"], size, pixel_scale=scale * u.arcsec, **ask
        )
        assert ("urls" in payload) == bool(is_bricks)


# ---- against the files -------------------------------------------------------------------------


def _files_at(root, ra, dec, product):
    """Return, by brute force, pixels of the owner's file, and of any file that holds them."""
    owner = bricks.brick_name(ra, dec)
    own, other = np.full(ra.shape, np.nan), np.full(ra.shape, np.nan)
    folders = sorted((root / "dr10/south/coadd").glob("04*/04*"))
    for folder in folders:
        path = root / file_path(product, "dr10", "south", brick=folder.name, band="r")
        if not path.exists():
            continue
        with fits.open(path) as hdul:
            data, wcs = hdul[1].data, bricks.brick_wcs(folder.name)
        x, y = (np.rint(v).astype(int) for v in wcs.world_to_pixel_values(ra, dec))
        held = (x >= 0) & (x < 3600) & (y >= 0) & (y < 3600)
        values = np.where(held, data[np.clip(y, 0, 3599), np.clip(x, 0, 3599)], np.nan)
        other = np.where(np.isnan(other), values, other)
        own = np.where(held & (owner == folder.name), values, own)
    return own, other


@pytest.mark.parametrize("lost", ["", "0451p000", "0453p002", "0451p002", "0453p000"])
@pytest.mark.parametrize("size", [60, 150, 400])
def test_pixels_are_the_owners_or_of_any_brick_that_holds_them(sky, survey, tmp_path, size, lost):
    root = tmp_path / "tree"
    coadds = "dr10/south/coadd/045"
    shutil.copytree(sky.root / coadds, root / coadds, copy_function=os.symlink)
    for name in ("survey-bricks.fits.gz", "south/survey-bricks-dr10-south.fits.gz"):
        shutil.copy2(sky.root / "dr10" / name, root / "dr10" / name)
    for path in (root / "dr10/south/coadd/045").glob(f"{lost}/*" if lost else "none"):
        path.unlink()
    # As where the survey ends: what the table lists and the folder lacks would be refused.
    table = Table.read(root / "dr10/south/survey-bricks-dr10-south.fits.gz")
    names = np.char.strip(np.asarray(table["brickname"]).astype(str))
    assert not lost or lost in names
    table[names != lost].write(root / "dr10/south/survey-bricks-dr10-south.fits.gz", overwrite=True)
    # South-west of the corner where four bricks meet, within their overlap.
    position = SkyCoord(45.249, 0.124, unit="deg")
    products = ("image", "nexp", "maskbits")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoverageWarning)
        hdul = survey.get_cutout(
            position, size, bands="r", products=products, source="bricks", mirror=root
        )
    y, x = np.indices((size, size))
    ra, dec = WCS(hdul["NEXP_R"].header).pixel_to_world_values(x, y)
    own, other = _files_at(root, ra, dec, "nexp")
    expected = np.where(np.isnan(own), other, own)
    # Which of the pixels at a border is the nearest may differ by rounding.
    nexp = hdul["NEXP_R"].data
    assert (np.nan_to_num(expected) == nexp).mean() > 0.995
    assert np.array_equal(np.isnan(hdul["IMAGE_R"].data), np.isnan(expected))
    foreign = np.isnan(own) & ~np.isnan(other)
    assert hdul["NEXP_R"].header["NOTOWNED"] == foreign.sum()
    assert np.array_equal(hdul["MASKBITS"].data & 1, np.isnan(own))
    assert hdul["NEXP_R"].header["OBSFRAC"] == pytest.approx((nexp > 0).mean(), abs=1e-6)


def test_a_larger_box_never_has_fewer_pixels(sky, survey):
    position = SkyCoord(45.004, 0.0, unit="deg")
    last = -1
    for size in range(60, 400, 40):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CoverageWarning)
            hdul = survey.get_cutout(position, size, bands="r", source="bricks")
        n_finite = np.isfinite(hdul["IMAGE_R"].data).sum()
        assert n_finite > last
        last = n_finite


# ---- many --------------------------------------------------------------------------------------


def test_the_manifest_and_the_arrays_tell_what_was_observed(sky, survey, tmp_path):
    h5py = pytest.importorskip("h5py")
    places = [sky.positions[name] for name in ("star", "hole")]
    places.append(sky.positions["hole"].directional_offset_by(0 * u.deg, 24 * u.arcsec))
    columns = {"ra": [p.ra.deg for p in places], "dec": [p.dec.deg for p in places]}
    table = Table({"id": [1, 2, 3], **columns})
    manifest = survey.download_cutouts(
        table, 64, bands="gr", download_dir=tmp_path, output="hdf5", show_progress=False
    )
    assert list(manifest["Status"]) == ["COMPLETE", "NODATA", "COMPLETE"]
    assert manifest["observed"][0] == "1,1"
    share = float(manifest["observed"][2].split(",")[0])
    assert 0.5 < share < 1
    with h5py.File(manifest["Local Path"][0]) as file:
        assert file["has"][:].all()
        place = list(file["index"]["row"]).index(2)
        assert file["observed"][place, 0] == pytest.approx(share, abs=1e-3)


def test_where_optical_images_have_nothing_those_of_wise_stay(sky, survey):
    hole = sky.positions["hole"]
    asked = {"bands": "r,W1", "source": "bricks"}
    alone = survey.get_cutout(hole, 20, bands="W1")["IMAGE_W1"]
    with pytest.raises(NoCoverageError, match="nothing was observed in the box"):
        survey.get_cutout(hole, 20, **asked)
    with pytest.warns(CoverageWarning, match="nothing was observed in the box"):
        hdul = survey.get_cutout(hole, 20, on_missing="warn", **asked)
    assert [hdu.name for hdu in hdul] == ["PRIMARY", "IMAGE_W1"]
    assert np.array_equal(hdul["IMAGE_W1"].data, alone.data)


# ---- the three sources agree -------------------------------------------------------------------


def _outcome(survey, position, size, scale, source, **options):
    """Return share, NaN and kind of error or warning of a cutout."""
    if scale:
        options["pixel_scale"] = scale * u.arcsec
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            hdul = survey.get_cutout(position, size, source=source, **options)
        except NoCoverageError as error:
            return type(error).__name__, [], []
    hdus = [hdu for hdu in hdul[1:] if hdu.name.startswith(("IMAGE", "INVVAR"))]
    shares = [hdu.header["OBSFRAC"] for hdu in hdus]
    blanks = [np.isnan(hdu.data).mean() for hdu in hdus]
    has_warned = any(issubclass(w.category, CoverageWarning) for w in caught)
    return ("warned" if has_warned else "", [hdu.name for hdu in hdus]), shares, blanks


def compare_sources(survey, n, seed):
    """Return descriptions of what differs, at ``n`` random places, between the three sources."""
    rng = np.random.default_rng(seed)
    centers = ((45.125, 0.0), (45.0, 0.06), (45.205, -0.058), (45.25, 0.125), (180.15, 32.375))
    centers += ((0.0, 0.02), (45.125, 0.125))
    differences = []
    for number in range(n):
        ra, dec = centers[rng.integers(len(centers))]
        reach = rng.choice([0.002, 0.01, 0.05])
        ra, dec = ra + rng.uniform(-reach, reach), dec + rng.uniform(-reach, reach)
        position = SkyCoord(ra % 360, dec, unit="deg")
        size = int(rng.integers(4, 160))
        options = {
            "bands": [None, "r", "gr", "gi", "griz"][rng.integers(5)],
            "products": [("image",), ("image", "invvar")][rng.integers(2)],
            "on_missing": ["raise", "warn"][rng.integers(2)],
        }
        scale = float(rng.choice([0.26201, 0.28, 0.2]))
        found = {
            "bricks": _outcome(survey, position, size, None, "bricks", **options),
            "native": _outcome(survey, position, size, None, "viewer", **options),
        }
        rendered = {
            "resampled": _outcome(survey, position, size, scale, "bricks", **options),
            "rendered": _outcome(survey, position, size, scale, "viewer", **options),
        }
        for (one, a), (other, b) in (tuple(found.items()), tuple(rendered.items())):
            # The viewer interpolates: pixels at the border of what was observed may differ.
            near = 1e-9 if one == "bricks" else 8 / size
            apart = [abs(v - w) for i in (1, 2) for v, w in zip(a[i], b[i], strict=a[0] == b[0])]
            # So does a warning of no more than those, if the same planes came.
            is_same = a[0] == b[0] or (a[0][1:] == b[0][1:] and max(a[2] + b[2] + [0]) < near)
            if not is_same or max(apart, default=0) > near:
                where = f"{number}: {ra:.5f} {dec:.5f} {size} {scale} {options}"
                differences.append(f"{where}\n  {one}: {a}\n  {other}: {b}")
    return differences


@pytest.mark.parametrize("n", [12, pytest.param(60, marks=pytest.mark.slow)])
def test_the_sources_agree_at_random_places(survey, n):
    assert compare_sources(survey, n, seed=1) == []


@pytest.mark.parametrize("products", [("image",), ("image", "invvar")])
@pytest.mark.parametrize("inward_pix", [0.6, 1.5, 2.4])
def test_what_is_interpolated_beside_a_hole_is_not_observed(sky, survey, products, inward_pix):
    # Within the reach of the kernel every pixel of a rendering is different from zero.
    pytest.importorskip("reproject")
    hole, size = sky.positions["hole"], 12
    for scale in (0.2, 0.26201, 0.28):
        half = size / 2 * scale / 3600 + inward_pix * 0.262 / 3600
        position = SkyCoord(hole.ra.deg, hole.dec.deg + 20 / 3600 - half, unit="deg")
        for source in ("bricks", "viewer"):
            with pytest.raises(NoCoverageError):
                survey.get_cutout(
                    position, size, products=products, source=source, pixel_scale=scale * u.arcsec
                )
