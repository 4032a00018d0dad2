"""Whole files: by their own bytes (FITS against astropy, gzip and JPEG by their ends); locks."""

import gzip
import io

import numpy as np
import pytest
from astropy.io import fits

from astroquery_lis.exceptions import TruncatedError, UnexpectedContentError
from astroquery_lis.io.whole_files import check_structure, close_unlocked, lock


def _fits(*hdus):
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(stream)
    return stream.getvalue()


PIXELS = np.arange(5000, dtype=np.float32).reshape(50, 100)
COLUMNS = [
    fits.Column("a", "J", array=np.arange(7)),
    fits.Column("v", "PJ()", array=np.array([np.arange(n) for n in range(7)], dtype=object)),
]
FILES = {
    "plain.fits": _fits(fits.ImageHDU(PIXELS)),
    "empty.fits": _fits(),
    "table.fits": _fits(fits.BinTableHDU.from_columns(COLUMNS), fits.ImageHDU(PIXELS)),
    "packed.fits.fz": _fits(fits.CompImageHDU(PIXELS, tile_shape=(10, 10))),
    "table.fits.gz": gzip.compress(_fits(fits.ImageHDU(PIXELS))),
    "picture.jpg": b"\xff\xd8 pixels \xff\xd9",
    "notes.txt": b"anything",
    "list.sha256sum": b"0" * 64 + b"  x.fits\n",
}


def _check(name, raw):
    check_structure(name, io.BytesIO(raw), "http://x/" + name)


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file_passes(name):
    _check(name, FILES[name])


@pytest.mark.parametrize("name", [n for n in FILES if n not in ("notes.txt", "list.sha256sum")])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_file_without_its_end_does_not(name, share):
    raw = FILES[name]
    with pytest.raises((TruncatedError, UnexpectedContentError), match=f"http://x/{name}"):
        _check(name, raw[: min(int(len(raw) * share), len(raw) - 1)])


@pytest.mark.parametrize("name", ["plain.fits", "packed.fits.fz"])
def test_a_file_that_lacks_a_last_block_does_not(name):
    with pytest.raises(TruncatedError, match="its HDUs need"):
        _check(name, FILES[name][:-2880])


@pytest.mark.parametrize("name", [n for n in FILES if n != "notes.txt"])
def test_a_web_page_is_none_of_them(name):
    with pytest.raises(UnexpectedContentError, match="begins with b'<html>"):
        _check(name, b"<html><body>Log in first.</body></html>")


def test_what_follows_the_last_hdu_is_told():
    with pytest.raises(UnexpectedContentError, match="other than a FITS header at byte"):
        _check("plain.fits", FILES["plain.fits"] + b"\0" * 2880)


def test_a_damaged_gzip_file_is_told():
    raw = bytearray(FILES["table.fits.gz"])
    raw[-6] ^= 0xFF
    with pytest.raises(UnexpectedContentError, match="cannot be unpacked"):
        _check("table.fits.gz", bytes(raw))


def test_a_header_that_does_not_tell_its_length_is_told():
    raw = FILES["plain.fits"].replace(b"-32 / array data type", b"  x / array data type")
    assert raw != FILES["plain.fits"]
    with pytest.raises(UnexpectedContentError, match="does not tell its length"):
        _check("plain.fits", raw)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", ["2147483648", "1000", "-1"])
def test_a_table_of_impossibly_many_columns_is_told(tmp_path, number):
    name = "table.fits"
    raw = FILES[name]
    at = raw.index(b"TFIELDS =")
    raw = raw[:at] + f"TFIELDS = {number:>20}".encode().ljust(80) + raw[at + 80 :]
    with pytest.raises(UnexpectedContentError, match="columns|negative size"):
        _check(name, raw)


def test_every_file_of_the_simulated_survey_passes(served_sky):
    paths = [p for p in served_sky.root.rglob("*") if p.name.endswith((".fz", ".fits", ".gz"))]
    assert len(paths) > 200
    for path in paths:
        with path.open("rb") as stream:
            check_structure(path, stream, path)


fcntl = pytest.importorskip("fcntl")


class _Watched(io.FileIO):
    """A file that notes of each write whether another could have locked it."""

    def __init__(self, path):
        super().__init__(path, "w")
        self.was_locked = []

    def write(self, data):
        with open(self.name, "rb") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.was_locked.append(False)
            except BlockingIOError:
                self.was_locked.append(True)
        return super().write(data)


def test_all_is_written_before_another_may_lock_the_file(tmp_path):
    raw = _Watched(tmp_path / "file")
    stream = io.BufferedWriter(raw)
    lock(stream)
    stream.write(b"the end")
    close_unlocked(stream)
    assert raw.was_locked == [True]
    assert stream.closed
    with (tmp_path / "file").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert other.read() == b"the end"
