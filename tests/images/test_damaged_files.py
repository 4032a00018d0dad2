"""Damaged headers, tables and tiles end right or typed, and never with the process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from astroquery_lis import LegacySurveyClass
from astroquery_lis.exceptions import FailoverWarning, UnexpectedContentError
from astroquery_lis.survey.paths import file_path

from . import damaged_files


@pytest.mark.parametrize("count", [100, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["headers", "data"])
def test_damaged_files_end_right_or_typed(sky, kind, count):
    for path in damaged_files.FILES.values():
        assert (sky.root / path).exists()
    script = Path(damaged_files.__file__)
    command = [sys.executable, str(script), str(sky.root), kind, str(count), "test"]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stdout[-3000:] + child.stderr[-3000:]
    assert "UnexpectedContentError" in child.stdout
    assert "answered" in child.stdout


# In a process of its own, which wrong decoding would end.
READ_EACH = """
import sys
from astroquery_lis import LegacySurveyClass
from astroquery_lis.exceptions import UnexpectedContentError

survey = LegacySurveyClass()
options = {"release": "dr10", "region": "south", "bands": "r", "source": "bricks"}
for mirror in sys.argv[1:]:
    try:
        survey.get_cutout("45.1312 0.0047", 64, mirror=mirror, **options)
    except UnexpectedContentError as error:
        print(error)
"""


def test_a_place_outside_the_table_of_random_numbers_is_refused(sky, tmp_path):
    path = file_path("image", "dr10", "south", brick="0451p000", band="r")
    raw = sky.file(path).read_bytes()
    at = raw.index(b"ZDITHER0=")
    seeds = ["-1099511627776", "0", "10001", "1.5", "T"]
    for seed in seeds:
        (tmp_path / seed / path).parent.mkdir(parents=True)
        (tmp_path / seed / path).write_bytes(
            raw[:at] + f"ZDITHER0= {seed:>20}".encode().ljust(80) + raw[at + 80 :]
        )
    command = [sys.executable, "-c", READ_EACH, *(str(tmp_path / seed) for seed in seeds)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr[-2000:]
    assert [line.count("ZDITHER0") > 0 for line in child.stdout.splitlines()] == [True] * 5


def test_a_damaged_file_of_the_cache_leads_on_and_is_dropped(sky, other, survey):
    relative = file_path("image", "dr10", "south", brick="0451p000", band="r")
    star = sky.positions["star"]
    right = survey.get_cutout(star, 64, bands="r", source="bricks", cache=False)
    path = Path(survey.get_brick_files("0451p000", products="image", bands="r")["Local Path"][0])
    raw = bytearray(path.read_bytes())
    state = path.stat()
    raw[100_000::97] = bytes(255 ^ byte for byte in raw[100_000::97])
    path.write_bytes(raw)
    # A disk that rots leaves the date as it is.
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    survey.mirror = [sky.mirror_url, other.mirror_url]
    cutout = survey.get_cutout(star, 64, bands="r", source="bricks")
    np.testing.assert_array_equal(cutout[1].data, right[1].data)
    assert not path.exists()
    assert relative in str(path)


def test_tiles_that_cannot_be_decoded_lead_to_the_next_mirror(sky, copied_tree, survey):
    source = next(copied_tree.rglob("*nexp-r*"))
    raw = bytearray(source.read_bytes())
    at = raw.index(b"\xdd\x99", 5760)
    while at > 0:
        raw[at + 2 : at + 10] = (3000).to_bytes(4, "big") * 2
        at = raw.find(b"\xdd\x99", at + 2)
    source.write_bytes(raw)
    star, options = sky.positions["star"], {"products": "nexp", "bands": "r", "source": "bricks"}
    right = survey.get_cutout(star, 64, **options)
    other = LegacySurveyClass()
    other.mirror = copied_tree
    with pytest.raises(UnexpectedContentError, match="says .3000, 3000."):
        other.get_cutout(star, 64, **options)
    other.mirror = [copied_tree, sky.mirror_url]
    with pytest.warns(FailoverWarning):
        cutout = other.get_cutout(star, 64, **options)
    np.testing.assert_array_equal(cutout[1].data, right[1].data)
