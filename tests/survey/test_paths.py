"""Which files are meant, against names that the survey really used (the list of DR10.1)."""

import numpy as np
import pytest

from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.survey import paths, releases
from astroquery_lis.survey.bricks import (
    N_BRICKS,
    brick_edges,
    brick_id,
    name_of,
    parse_brick_name,
)
from astroquery_lis.survey.paths import (
    FILE_PRODUCTS,
    as_file_bands,
    as_file_products,
    has_product,
    is_sweep_name,
    plan_files,
    sweep_at,
    sweep_box,
    sweep_names,
)
from astroquery_lis.survey.releases import get_release

BRICK = "0014m852"
FOLDER = f"dr10/south/coadd/001/{BRICK}"


def _plan(products, bands=None, release="dr10", region="auto", bricks=(BRICK,), **kwargs):
    ids = np.array([parse_brick_name(name) for name in bricks], np.int64)
    products = as_file_products(products, release)
    bands = as_file_bands(bands, products, release, region)
    return plan_files(ids, products=products, bands=bands, release=release, region=region, **kwargs)


@pytest.mark.parametrize(
    ("product", "bands", "expected", "checksums"),
    [
        ("image", "g", f"{FOLDER}/legacysurvey-{BRICK}-image-g.fits.fz", "coadd_001_0014m852"),
        ("invvar", "W3", f"{FOLDER}/legacysurvey-{BRICK}-invvar-W3.fits.fz", "coadd_001_0014m852"),
        ("ccds-table", None, f"{FOLDER}/legacysurvey-{BRICK}-ccds.fits", "coadd_001_0014m852"),
        ("depth-table", None, f"{FOLDER}/legacysurvey-{BRICK}-depth.fits", "coadd_001_0014m852"),
        ("image-jpg", None, f"{FOLDER}/legacysurvey-{BRICK}-image.jpg", "coadd_001_0014m852"),
        (
            "wiseresid-jpg",
            None,
            f"{FOLDER}/legacysurvey-{BRICK}-wiseresid.jpg",
            "coadd_001_0014m852",
        ),
        ("tractor", None, f"dr10/south/tractor/001/tractor-{BRICK}.fits", "tractor_001"),
        ("tractor-i", None, f"dr10/south/tractor-i/001/tractor-i-{BRICK}.fits", "tractor-i_001"),
        ("blobs", None, f"dr10/south/metrics/001/blobs-{BRICK}.fits.gz", "metrics_001"),
        (
            "outliers-masked-pos",
            None,
            f"dr10/south/metrics/001/outliers-masked-pos-{BRICK}.jpg",
            "metrics_001",
        ),
        ("sweep", None, "dr10/south/sweep/10.1/sweep-000m090-005m085.fits", "sweep_10.1"),
        (
            "sweep-lightcurves",
            None,
            "dr10/south/sweep/10.1-lightcurves/sweep-000m090-005m085-lc.fits",
            "sweep_10.1-lightcurves",
        ),
    ],
)
def test_files_of_a_brick_and_their_lists(product, bands, expected, checksums):
    (file,) = _plan(product, bands)
    assert file.paths == (expected,)
    folder, _, name = file.checksum_path.rpartition("/")
    assert expected.startswith(folder + "/")
    assert name == f"legacysurvey_dr10_south_{checksums}.sha256sum"
    assert paths.checksum_path(folder) == file.checksum_path


def test_files_of_the_whole_release():
    products = ("survey-bricks", "survey-ccds-decam", "ccds-annotated-mosaic", "randoms-1-19")
    files = _plan(products, bricks=())
    assert [file.paths[0] for file in files] == [
        "dr10/survey-bricks.fits.gz",
        "dr10/survey-ccds-decam-dr10.fits.gz",
        "dr10/ccds-annotated-mosaic-dr10.fits.gz",
        "dr10/randoms/randoms-1-19.fits",
    ]
    assert files[3].checksum_path == "dr10/randoms/legacysurvey_dr10_randoms.sha256sum"
    assert files[0].checksum_path is None


def test_a_brick_has_one_file_per_band_and_none_twice():
    files = _plan(("image", "maskbits", "image"), bricks=(BRICK, BRICK))
    assert [(file.product, file.band) for file in files] == [
        ("image", "g"),
        ("image", "r"),
        ("image", "i"),
        ("image", "z"),
        ("maskbits", ""),
    ]


def test_the_north_of_dr10_is_that_of_dr9_and_has_no_i():
    files = _plan("image", "iz", bricks=("1801p325",))
    assert [(file.release, file.region, bool(file.paths)) for file in files] == [
        ("dr9", "north", False),
        ("dr9", "north", True),
    ]


def test_wise_bands_are_only_for_what_has_them():
    files = _plan(("image", "nexp"), "r,W1")
    assert [(file.product, file.band) for file in files] == [
        ("image", "r"),
        ("image", "W1"),
        ("nexp", "r"),
    ]


def test_early_releases_have_several_names_for_a_file():
    (file,) = _plan("depth", "g", "dr5")
    assert [path.partition("-depth-g")[2] for path in file.paths] == [
        ".fits.fz",
        ".fits",
        ".fits.gz",
    ]


def test_a_sweep_by_its_name():
    (file,) = _plan("sweep", bricks=(), region="south", sweeps=("sweep-355p030-360p035",))
    assert file.paths == ("dr10/south/sweep/10.1/sweep-355p030-360p035.fits",)
    assert file.brick == "sweep-355p030-360p035"


@pytest.mark.parametrize(("release", "width"), [("dr9", 10), ("dr10", 5)])
def test_every_brick_lies_in_its_sweeps(release, width):
    rng = np.random.default_rng(1)
    for name in name_of(rng.integers(1, N_BRICKS + 1, 300)):
        number = parse_brick_name(str(name))
        edges = np.array(brick_edges(number)).astype(float)
        area = 0.0
        for sweep in sweep_names(release, "south", str(name)):
            assert is_sweep_name(sweep)
            _, low, high = sweep.split("-")
            (ra1, dec1), (ra2, dec2) = (
                (int(corner[:3]), int(corner[4:]) * (-1 if corner[3] == "m" else 1))
                for corner in (low, high)
            )
            assert (ra2 - ra1, dec2 - dec1) == (width, 5)
            assert ra1 % width == dec1 % 5 == 0
            across = min(edges[1], ra2) - max(edges[0], ra1)
            up = min(edges[3], dec2) - max(edges[2], dec1)
            assert across > 0
            assert up > 0
            area += across * up
        assert area == pytest.approx((edges[1] - edges[0]) * (edges[3] - edges[2]))


@pytest.mark.parametrize(
    "text", ["sweep-190p000", "sweep-190p000-195x005", "1901p012", "", "sweep-190p00-195p005", "x"]
)
def test_what_is_no_name_of_a_sweep(text):
    assert not is_sweep_name(text)


@pytest.mark.parametrize("release", [f"dr{n}" for n in range(5, 12)])
def test_every_product_of_a_release_has_files(release):
    names = [name for name in FILE_PRODUCTS if has_product(get_release(release), name)]
    for name in set(FILE_PRODUCTS) - set(names):
        with pytest.raises(InvalidRequestError, match=f"is not in {release}"):
            as_file_products(name, release)
    region = get_release(release).regions[-1]
    files = _plan(names, release=release, region=region)
    assert {file.product for file in files} == set(names)
    paths = [path for file in files for path in file.paths]
    assert len(paths) == len(set(paths))
    folder = releases.get_tree(release, region).release
    assert all(path.startswith((folder, release)) for path in paths)


def test_products_that_need_bricks_say_so():
    with pytest.raises(InvalidRequestError, match="products='image' needs bricks"):
        _plan("image", bricks=())


@pytest.mark.parametrize(
    ("release", "product", "expected"),
    [
        # As the releases' file pages have them.
        ("dr5", "survey-ccds-nocuts", ["dr5/survey-ccds-nocuts.fits.gz"]),
        ("dr6", "survey-ccds-kd", ["dr6/survey-ccds-dr6plus.kd.fits"]),
        ("dr7", "ccds-annotated", ["dr7/ccds-annotated-dr7.fits.gz"]),
        ("dr7", "region-depth-summary", ["dr7/dr7-depth-summary.fits.gz"]),
        ("dr9", "survey-ccds-mosaic-kd", ["dr9/survey-ccds-mosaic-dr9.kd.fits"]),
        ("dr9", "randoms-allsky-1-19", ["dr9/randoms/randoms-allsky-1-19.fits"]),
        ("dr9", "randoms-bricks", ["dr9/randoms/survey-bricks-dr9-randoms-0.48.0.fits"]),
        ("dr9", "gaia-mask", ["dr9/masking/gaia-mask-dr9.fits.gz"]),
        (
            "dr9",
            "region-depth",
            ["dr9/north/dr9-north-depth.fits.gz", "dr9/south/dr9-south-depth.fits.gz"],
        ),
        ("dr10", "randoms-bricks", ["dr10/randoms/survey-bricks-dr10.1-randoms-2.6.0.fits"]),
    ],
)
def test_tables_of_a_release_are_called_as_its_pages_say(release, product, expected):
    files = _plan(product, bricks=(), release=release)
    assert [file.paths[0] for file in files] == expected


def test_tables_of_the_south_of_dr10():
    for product, path in (
        ("match-dr16Q-v4", "dr10/south/external/survey-dr10.1-south-dr16Q-v4.fits"),
        ("randoms-region-1-3", "dr10/south/randoms/randoms-south-1-3.fits"),
        ("region-depth", "dr10/south/dr10-south-depth.fits.gz"),
    ):
        (file,) = _plan(product, bricks=(), region="south")
        assert file.paths == (path,)
        assert file.checksum_path.startswith(path.rpartition("/")[0] + "/legacysurvey_dr10_south")
    for product, release in (("survey-ccds-nocuts", "dr6"), ("gaia-mask", "dr8")):
        with pytest.raises(InvalidRequestError, match=f"is not in {release}"):
            as_file_products(product, release)


@pytest.mark.parametrize("release", ["dr9", "dr10"])
def test_the_sweep_of_a_position_is_the_one_that_holds_it(release):
    rng = np.random.default_rng(3)
    places = [(0.0, -90.0), (359.999, 90.0), (360.0, 0.0), (45.1, 0.0), (44.999, -0.001)]
    places += list(zip(rng.uniform(0, 360, 200), rng.uniform(-90, 90, 200), strict=True))
    for ra, dec in places:
        name = sweep_at(release, "south", ra, dec)
        ra1, ra2, dec1, dec2 = sweep_box(name)
        assert ra1 <= ra % 360 < ra2
        assert dec1 <= dec < dec2 or dec == dec2 == 90
        brick = str(name_of(brick_id(ra, dec)))
        assert name in sweep_names(release, "south", brick)
