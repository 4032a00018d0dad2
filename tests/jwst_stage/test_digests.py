"""A new time stamp alone changes nothing; anything else does."""

import hashlib
import shutil
from pathlib import Path

import pytest
from astropy.io import fits

from astroquery_lis.jwst_stage.tasks import content_digest


@pytest.fixture
def uncal(observation, tmp_path):
    return Path(shutil.copy(observation.uncals[0], tmp_path))


def test_a_time_stamp_changes_nothing(uncal):
    before = content_digest(uncal)
    fits.setval(uncal, "DATE", value="2031-02-03T04:05:06.789")
    assert content_digest(uncal) == before


def test_the_same_exposure_saved_again_has_the_same_digest(uncal, tmp_path):
    datamodels = pytest.importorskip("stdatamodels.jwst.datamodels")
    (tmp_path / "again").mkdir()
    again = tmp_path / "again" / fits.getval(uncal, "FILENAME")
    with datamodels.open(uncal) as model:
        model.save(str(again))
    assert again.read_bytes() != (tmp_path / again.name).read_bytes()
    assert content_digest(again) == content_digest(uncal)


def test_checksums_change_nothing(uncal):
    before = content_digest(uncal)
    with fits.open(uncal, mode="update") as hdul:
        hdul["SCI"].add_checksum()
    assert fits.getval(uncal, "CHECKSUM", "SCI")
    assert content_digest(uncal) == before


@pytest.mark.parametrize("place", ["pixel", "header", "keyword of an extension", "tree", "end"])
def test_everything_else_changes_it(uncal, place):
    before = content_digest(uncal)
    if place == "tree":
        data = uncal.read_bytes()
        line = data.index(b"telescope: JWST", data.rindex(b"#ASDF"))
        uncal.write_bytes(data[:line] + b"telescope: XWST" + data[line + 15 :])
    elif place == "end":
        uncal.write_bytes(uncal.read_bytes() + b"more")
    else:
        with fits.open(uncal, mode="update") as hdul:
            if place == "pixel":
                hdul["SCI"].data[0, 0, 5, 5] += 1
            elif place == "header":
                hdul[0].header["FILTER"] = "F444W"
            else:
                hdul["SCI"].header["RA_REF"] += 1e-6
    assert content_digest(uncal) != before


def test_a_shorter_file_has_another_digest(uncal):
    whole = uncal.read_bytes()
    seen = {content_digest(uncal)}
    for length in (len(whole) - 1, len(whole) // 2, 5000, 100, 0):
        uncal.write_bytes(whole[:length])
        seen.add(content_digest(uncal))
    assert len(seen) == 6


def test_other_files_are_taken_by_their_bytes(tmp_path):
    path = tmp_path / "catalogue.ecsv"
    path.write_text("# DATE\n")
    assert content_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
