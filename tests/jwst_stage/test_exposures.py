"""What headers say of a file, and which files are refused before anything runs."""

import builtins
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits

from astroquery_lis.exceptions import InvalidExposureError, StageError
from astroquery_lis.jwst_stage.planning.exposures import (
    CRDS_KEYWORDS,
    Exposure,
    read_exposure,
    split_name,
)

from .headers import write_exposure


def test_reads_what_the_headers_say(tmp_path):
    path = write_exposure(tmp_path, 2, ints=2, groups=5, shape=(12, 8), BKGDTARG=True)
    found = read_exposure(path)
    assert found.path == str(path)
    assert found.root == "jw01234001001_02101_00002_nrcalong"
    assert (found.suffix, found.level, found.size_bytes) == ("uncal", "uncal", path.stat().st_size)
    assert (found.n_ints, found.n_groups, found.shape) == (2, 5, (12, 8))
    assert (found.instrument, found.detector, found.filter) == ("NIRCAM", "NRCALONG", "F356W")
    assert (found.program, found.observation, found.target) == ("01234", "001", "FIELD-1")
    assert found.is_background
    assert not found.is_tso
    assert found.exposure_id == "jw01234001001_02101_00002"
    assert found.pointing["RA_REF"] == 190.0
    assert found.parameters["META.VISIT.TSOVISIT"] == "F"
    assert found.parameters["META.INSTRUMENT.PUPIL"] == "CLEAR"
    assert Exposure.from_dict(found.to_dict()) == found


@pytest.mark.parametrize("suffix", ["uncal", "rate", "rateints", "cal", "calints"])
def test_every_level(tmp_path, suffix):
    found = read_exposure(write_exposure(tmp_path, suffix=suffix, ints=3))
    assert found.suffix == suffix
    assert found.level == suffix.removesuffix("ints")
    assert found.n_ints == 3


def test_reference_files_of_a_rate(tmp_path):
    cards = {"R_DARK": "crds://jwst_nircam_dark_0001.fits", "R_IPC": "N/A", "CAL_VER": "2.0.0"}
    found = read_exposure(write_exposure(tmp_path, suffix="rate", **cards))
    assert found.references == {"R_DARK": "jwst_nircam_dark_0001.fits", "R_IPC": "N/A"}
    assert found.cal_ver == "2.0.0"
    assert found.steps_done["S_RAMP"] == "COMPLETE"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/a/jw1_2_nrca1_uncal.fits", ("jw1_2_nrca1", "uncal")),
        ("jw1-seg001_nis_rateints.fits", ("jw1-seg001_nis", "rateints")),
        ("plain.fits", ("plain", "")),
    ],
)
def test_split_name(name, expected):
    assert split_name(name) == expected


@pytest.mark.parametrize("lost", [1, 100, 2880, 5760])
def test_a_file_that_was_cut_off(tmp_path, lost):
    path = write_exposure(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    with pytest.raises(InvalidExposureError, match="cut off|has no extension"):
        read_exposure(path)


def test_cut_off_between_extensions_as_a_killed_save_leaves_it(tmp_path):
    path = write_exposure(tmp_path, suffix="rate")
    with fits.open(path) as hdul:
        end = hdul["ASDF"].fileinfo()["hdrLoc"]
    path.write_bytes(path.read_bytes()[:end])
    with fits.open(path) as hdul:
        assert [hdu.name for hdu in hdul] == ["PRIMARY", "SCI"]
    with pytest.raises(InvalidExposureError, match="has no extension ASDF: the file was cut off"):
        read_exposure(path)


def test_every_cut_is_seen(tmp_path):
    path = write_exposure(tmp_path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 960):
        path.write_bytes(whole[:size])
        with pytest.raises(InvalidExposureError):
            read_exposure(path)
    path.write_bytes(whole)
    assert read_exposure(path).suffix == "uncal"


def test_the_size_of_every_kind_of_extension(tmp_path):
    path = write_exposure(tmp_path)
    table = fits.BinTableHDU.from_columns(
        [fits.Column("a", "PE()", array=np.array([[1.0], [1.0, 2.0]], object))], name="GROUP"
    )
    with fits.open(path) as hdul:
        new = fits.HDUList([*hdul, table, fits.CompImageHDU(np.zeros((9, 9)), name="X")])
        other = tmp_path / "jw1_nrcalong_uncal.fits"
        new.writeto(other)
    assert read_exposure(other).n_groups == 3
    other.write_bytes(other.read_bytes()[:-1])
    with pytest.raises(InvalidExposureError, match="cut off"):
        read_exposure(other)


def test_the_first_of_several_sci_tells_and_only_cards_name_an_extension(tmp_path):
    path = write_exposure(tmp_path, suffix="cal", exp_type="MIR_LRS-FIXEDSLIT")
    with fits.open(path) as hdul:
        second = fits.ImageHDU(np.zeros((3, 5), np.float32), name="SCI", ver=2)
        aside = fits.ImageHDU(np.zeros((2, 2), np.float32))
        aside.header["COMMENT"] = "EXTNAME = 'SCI     '"
        aside.header["NOTE"] = "EXTNAME = 'SCI     '"
        (tmp_path / "more").mkdir()
        other = tmp_path / "more" / path.name
        fits.HDUList([hdul[0], aside, *hdul[1:], second]).writeto(other)
    assert read_exposure(other).shape == read_exposure(path).shape == (8, 8)


@pytest.mark.parametrize(
    ("content", "match"),
    [(b"<html>not here</html>", "is not a FITS file"), (b"", "is not a FITS file")],
)
def test_not_fits(tmp_path, content, match):
    path = tmp_path / "jw1_nrcalong_uncal.fits"
    path.write_bytes(content)
    with pytest.raises(InvalidExposureError, match=match):
        read_exposure(path)


def test_not_there(tmp_path):
    with pytest.raises(InvalidExposureError, match="cannot be read: No such file"):
        read_exposure(tmp_path / "jw1_nrcalong_uncal.fits")


@pytest.mark.parametrize(
    ("is_in_fact", "named", "match"),
    [
        ("cal", "rate", r"name says 'rate', but its header says 'cal' \(S_PHOTOM=COMPLETE\)"),
        ("cal", "uncal", "header says 'cal'"),
        ("rate", "uncal", r"header says 'rate' \(S_RAMP=COMPLETE\)"),
        ("uncal", "rate", r"header says 'uncal' \(no step was done\)"),
        ("rate", "cal", "header says 'rate'"),
    ],
)
def test_a_name_that_disagrees_with_the_header(tmp_path, is_in_fact, named, match):
    path = write_exposure(tmp_path, suffix=is_in_fact, named=named)
    with pytest.raises(InvalidExposureError, match=match):
        read_exposure(path)


@pytest.mark.parametrize(
    ("card", "level"), [("S_OUTLIR", "crf"), ("S_RESAMP", "i2d"), ("S_FLAT", "cal")]
)
def test_later_levels_are_not_taken_for_a_rate(tmp_path, card, level):
    path = write_exposure(tmp_path, suffix="rate", **{card: "COMPLETE"})
    with pytest.raises(InvalidExposureError, match=f"header says {level!r}"):
        read_exposure(path)


def test_calibrated_by_its_unit_alone(tmp_path):
    path = write_exposure(tmp_path, suffix="rate", S_RAMP=None, S_JUMP=None)
    with fits.open(path, mode="update") as hdul:
        hdul["SCI"].header["BUNIT"] = "MJy/sr"
    with pytest.raises(InvalidExposureError, match="BUNIT=MJy/sr"):
        read_exposure(path)


def test_a_suffix_that_no_plan_begins_from(tmp_path):
    path = write_exposure(tmp_path, suffix="cal", named="i2d")
    with pytest.raises(InvalidExposureError, match=r"must end in one of _uncal.fits, _rate.fits"):
        read_exposure(path)


def test_all_lacking_keywords_are_told_at_once(tmp_path):
    path = write_exposure(tmp_path, drop=("FILTER", "NGROUPS", "ROLL_REF", "DATE-OBS"))
    with pytest.raises(InvalidExposureError, match="lacks DATE-OBS, NGROUPS, FILTER, ROLL_REF"):
        read_exposure(path)


@pytest.mark.parametrize(
    "keyword",
    ["INSTRUME", "DETECTOR", "EXP_TYPE", "FILTER", "PUPIL", "NGROUPS", "NFRAMES", "GROUPGAP",
     "TFRAME", "TGROUP", "SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2", "FASTAXIS", "SLOWAXIS",
     "DATE-OBS", "TIME-OBS", "RA_REF", "DEC_REF", "ROLL_REF", "V2_REF", "V3_REF"],
)  # fmt: skip
def test_each_keyword_that_the_pipeline_needs(tmp_path, keyword):
    path = write_exposure(tmp_path, root="jw1_x", drop=(keyword,))
    with pytest.raises(InvalidExposureError, match=rf"lacks {keyword}\b"):
        read_exposure(path)


@pytest.mark.parametrize(
    ("exp_type", "keyword"),
    [("MIR_MRS", "BAND"), ("MIR_IMAGE", "FILTER"), ("NRS_IFU", "GRATING"), ("NIS_AMI", "PUPIL")],
)
def test_keywords_of_other_instruments(tmp_path, exp_type, keyword):
    path = write_exposure(tmp_path, exp_type=exp_type, drop=(keyword,))
    with pytest.raises(InvalidExposureError, match=f"lacks {keyword},"):
        read_exposure(path)


def test_what_stops_at_stage_1_needs_no_pointing(tmp_path):
    path = write_exposure(tmp_path, exp_type="NRC_DARK", drop=("RA_REF", "FILTER"))
    assert read_exposure(path).exp_type == "NRC_DARK"


def test_an_error_is_typed_and_names_the_parameter(tmp_path):
    with pytest.raises(StageError) as caught:
        read_exposure(tmp_path / "x.fits")
    assert isinstance(caught.value, ValueError)
    assert caught.value.parameter == "files"


def test_no_pixels_are_read(tmp_path, monkeypatch):
    path = write_exposure(tmp_path, shape=(512, 512), groups=10)
    n_read = []
    real = builtins.open

    def counting(*args, **kwargs):
        file = real(*args, **kwargs)
        if str(args[0]) == str(path):
            read = file.read
            # The file object itself cannot be patched.
            return _Counting(file, read, n_read)
        return file

    monkeypatch.setattr(builtins, "open", counting)
    read_exposure(path)
    assert n_read
    assert sum(n_read) < 20_000 < path.stat().st_size


class _Counting:
    def __init__(self, file, read, sizes):
        self._file, self._read, self._sizes = file, read, sizes

    def read(self, n):
        self._sizes.append(n)
        return self._read(n)

    def seek(self, *place):
        return self._file.seek(*place)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()


SCHEMA = """
import json, sys
from stdatamodels.jwst.datamodels import JwstDataModel
from stdatamodels import schema
with JwstDataModel() as model:
    found = {}
    def visit(part, path, combiner, context, recurse):
        if isinstance(part, dict) and "fits_keyword" in part:
            found.setdefault(".".join(str(p) for p in path).upper(), part["fits_keyword"])
    schema.walk_schema(model.schema, visit)
json.dump(found, sys.stdout)
"""


def test_crds_parameters_are_those_of_the_schema():
    pytest.importorskip("stdatamodels")
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCHEMA],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    import json

    schema = json.loads(child.stdout)
    for parameter, keyword in CRDS_KEYWORDS.items():
        assert schema[parameter] == keyword
