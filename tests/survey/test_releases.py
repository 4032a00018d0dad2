"""Releases, file names and masks, against names that the survey really used."""

import numpy as np
import pytest

from astroquery_lis.exceptions import InvalidRequestError
from astroquery_lis.survey import bitmasks, paths, releases
from astroquery_lis.survey.releases import RELEASES, get_release


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            paths.file_path("image", "dr10", "south", brick="0014m852", band="g"),
            "dr10/south/coadd/001/0014m852/legacysurvey-0014m852-image-g.fits.fz",
        ),
        (
            paths.file_path("maskbits", "dr10", "south", brick="0014m852"),
            "dr10/south/coadd/001/0014m852/legacysurvey-0014m852-maskbits.fits.fz",
        ),
        (
            paths.file_path("image", "dr10", "north", brick="1801p325", band="r"),
            "dr9/north/coadd/180/1801p325/legacysurvey-1801p325-image-r.fits.fz",
        ),
        (
            paths.file_path("nexp", "dr6", "north", brick="0959p805", band="z"),
            "dr6/coadd/095/0959p805/legacysurvey-0959p805-nexp-z.fits.fz",
        ),
        (
            paths.file_path("coadd-checksums", "dr10", "south", brick="0014m852"),
            "dr10/south/coadd/001/0014m852/legacysurvey_dr10_south_coadd_001_0014m852.sha256sum",
        ),
        (
            paths.file_path("tractor-checksums", "dr10", "south", brick="0014m852"),
            "dr10/south/tractor/001/legacysurvey_dr10_south_tractor_001.sha256sum",
        ),
        (
            paths.file_path("tractor", "dr9", "north", brick="1801p325"),
            "dr9/north/tractor/180/tractor-1801p325.fits",
        ),
        (paths.file_path("survey-bricks", "dr11"), "dr11/survey-bricks.fits.gz"),
        (
            paths.file_path("region-bricks", "dr10", "south"),
            "dr10/south/survey-bricks-dr10-south.fits.gz",
        ),
        (paths.file_path("region-bricks", "dr6", "north"), "dr6/survey-bricks-dr6.fits.gz"),
    ],
)
def test_paths_are_those_of_the_tree(path, expected):
    assert path == expected


def test_early_releases_try_other_endings():
    names = paths.file_paths("depth", "dr5", "south", brick="0014m852", band="g")
    assert [name.partition("-depth-g")[2] for name in names] == [".fits.fz", ".fits", ".fits.gz"]


def test_releases():
    assert list(RELEASES) == [f"dr{n}" for n in range(5, 12)]
    assert get_release("dr10").bands == ("g", "r", "i", "z")
    assert get_release("dr10").trees["north"].bands == ("g", "r", "z")
    assert get_release("dr10").trees["north"].release == "dr9"
    assert get_release("dr7").regions == ("south",)
    assert not get_release("dr7").is_split
    assert get_release("dr8").is_split
    assert "maskbits" not in get_release("dr6").products
    assert "blobmodel" not in get_release("dr8").products


@pytest.mark.parametrize("name", ["dr4", "dr12", "", None, 10.0, True, "ten", b"dr10"])
def test_unknown_release_is_refused_with_the_list(name):
    with pytest.raises(InvalidRequestError, match=r"release=.*dr5, .*dr11"):
        get_release(name)


@pytest.mark.parametrize("name", ["dr10", "DR10", " dr10 ", "10", 10])
def test_spellings_of_a_release(name):
    assert get_release(name).name == "dr10"


def test_a_region_that_a_release_lacks_is_refused():
    with pytest.raises(InvalidRequestError, match="region='north' is not in dr7; allowed: auto, s"):
        releases.get_tree("dr7", "north")


def test_maskbits_by_release():
    assert len(bitmasks.maskbits("dr7")) == 11
    assert "MEDIUM" not in bitmasks.maskbits("dr7")
    assert bitmasks.maskbits("dr9")["CLUSTER"] == 13
    assert "SATUR_I" not in bitmasks.maskbits("dr9")
    assert bitmasks.maskbits("dr10")["SUB_BLOB"] == 16
    assert bitmasks.maskbits("dr11")["WISE_GAIA"] == 19
    with pytest.raises(InvalidRequestError, match="dr7"):
        bitmasks.maskbits("dr6")


def test_mask_values_and_decoding():
    value = bitmasks.maskbits_value(["bright", "SATUR_I"], "dr10")
    assert value == 2 + 2**14
    with pytest.raises(InvalidRequestError, match="maskbits='SATUR_I' is not a bit of dr9"):
        bitmasks.maskbits_value("SATUR_I", "dr9")
    decoded = bitmasks.decode_mask(np.array([[0, 2], [2**14, 3]]), bitmasks.maskbits("dr10"))
    assert decoded["BRIGHT"].tolist() == [[False, True], [False, True]]
    assert decoded["SATUR_I"].tolist() == [[False, False], [True, False]]
