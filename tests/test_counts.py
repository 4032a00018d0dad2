"""A guard on counts that no machine changes: bytes, requests, tiles decoded, dependent round trips.

Times belong in benchmarks/; these numbers may only become smaller.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

import astroquery_lis
from astroquery_lis import conf
from astroquery_lis.images.open_images import OpenImage
from astroquery_lis.survey.bricks import brick_name
from astroquery_lis.survey.paths import file_path
from astroquery_lis.survey.pixel_grids import Box

SIZE = 256
ASKED = {"size": SIZE, "bands": "grz", "products": ("image", "invvar")}
N_FILES = 6
PATIENCE_S = 30
MOST_FUNCTIONS_OF_CONE, MOST_FILES_OF_CONE = 50, 12
MOST_FUNCTIONS, MOST_FILES, MOST_CHANGES_OF_FILE = 77, 14, 46


@pytest.fixture(autouse=True)
def _connections_enough():
    """Let nothing wait for a connection: what is counted is what waits for an answer."""
    with conf.set_temp("max_workers", 4 * N_FILES):
        yield


class Gate:
    """Holds what the mirror is asked until all that can be asked at once has come."""

    def __init__(self, answer):
        self._answer = answer
        self._changed = threading.Condition()
        self._arrived = self._admitted = 0

    def __call__(self, request):
        with self._changed:
            self._arrived += 1
            mine = self._arrived
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: mine <= self._admitted, PATIENCE_S)
        return self._answer(request)

    def admit(self, count):
        """Wait until ``count`` more requests stand at the gate, and let them in together."""
        with self._changed:
            wanted = self._admitted + count
            came = self._changed.wait_for(lambda: self._arrived >= wanted, PATIENCE_S)
            assert came, f"{self._arrived} requests came where {wanted} can come at once"
            assert self._arrived == wanted
            self._admitted = wanted
            self._changed.notify_all()

    def open(self):
        """Let everything in from now on, so that nobody is left waiting."""
        with self._changed:
            self._admitted = np.inf
            self._changed.notify_all()


@contextmanager
def gate(sky):
    prefix, answer = sky.routes[0]
    held = Gate(answer)
    sky.routes[0] = (prefix, held)
    try:
        yield held
    finally:
        sky.routes[0] = (prefix, answer)
        held.open()


def _files(sky, position):
    brick = str(brick_name(position.ra.deg, position.dec.deg))
    return [
        sky.root / file_path(product, "dr10", "south", brick=brick, band=band)
        for product in ASKED["products"]
        for band in ASKED["bands"]
    ]


def _needed(path, position):
    """Return the bytes before the tiles, and the bytes and number of those under the box."""
    with fits.open(path) as hdul:
        shape = hdul[1].data.shape
        center = np.round(WCS(hdul[1].header).world_to_pixel(position)).astype(int)
    with fits.open(path, disable_image_compression=True) as hdul:
        header, start = hdul[1].header, hdul[1].fileinfo()["datLoc"]
        tile = header["ZTILE1"]
        columns = list(hdul[1].columns)
    offset, lengths = 0, 0
    raw = np.fromfile(path, "u1", header["NAXIS1"] * header["NAXIS2"], offset=start)
    table = raw.reshape(header["NAXIS2"], header["NAXIS1"])
    for column in columns:
        if column.format.startswith(("1P", "P")):
            part = np.ascontiguousarray(table[:, offset : offset + 4])
            lengths = lengths + part.view(">i4")[:, 0]
        # Descriptors take two 32-bit words, ZSCALE and ZZERO one double each.
        offset += 8
    assert offset == header["NAXIS1"]
    across = -(-shape[1] // tile)
    first, last = (center - SIZE // 2) // tile, (center + SIZE // 2 - 1) // tile
    wanted = [
        row * across + column
        for row in range(first[1], last[1] + 1)
        for column in range(first[0], last[0] + 1)
    ]
    return start + raw.size, int(lengths[wanted].sum()), len(wanted)


N_FIRST_PIECES = 4
"""In which the first bytes of each file are asked for, where there are so many connections."""


def test_a_cold_cutout_takes_two_round_trips_and_hardly_more_bytes_than_it_needs(sky, survey):
    position = SkyCoord(sky.positions["field"])
    needed = [_needed(path, position) for path in _files(sky, position)]
    with gate(sky) as held, ThreadPoolExecutor(1) as pool:
        future = pool.submit(survey.get_cutout, position, **ASKED)
        held.admit(N_FIRST_PIECES * N_FILES)
        # The end of each table of tiles comes with the tiles.
        held.admit((1 + 3) * N_FILES)
        hdul = future.result(PATIENCE_S)
    assert len(hdul) == 1 + N_FILES
    assert len(sky.requests) == (N_FIRST_PIECES + 1 + 3) * N_FILES
    pieces = [r for r in sky.requests if r.range.startswith(("bytes=0-", "bytes=42600-"))]
    assert {r.bytes_sent for r in pieces} == {14_200}  # as much as the first window carries
    sent = sum(record.bytes_sent for record in sky.requests)
    assert sent == sum(before + under for before, under, _ in needed)


def test_a_second_cutout_of_the_same_files_takes_one_round_trip_and_only_its_tiles(sky, survey):
    survey.get_cutout(sky.positions["field"], **ASKED)
    sky.requests.clear()
    position = SkyCoord(sky.positions["star"])
    needed = [_needed(path, position) for path in _files(sky, position)]
    with gate(sky) as held, ThreadPoolExecutor(1) as pool:
        future = pool.submit(survey.get_cutout, position, **ASKED)
        held.admit(3 * N_FILES)
        future.result(PATIENCE_S)
    sent = sum(record.bytes_sent for record in sky.requests)
    assert sent <= 1.05 * sum(under for _, under, _ in needed)
    sky.requests.clear()
    survey.get_cutout(position, **ASKED)
    assert len(sky.requests) == 0


@pytest.mark.parametrize("product", ["image", "maskbits"])
def test_only_the_tiles_under_the_box_are_decoded(sky, product, monkeypatch):
    from astropy.io.fits.hdu.compressed import _tiled_compression

    position = SkyCoord(sky.positions["field"])
    band = None if product == "maskbits" else "r"
    path = sky.root / file_path(product, "dr10", "south", brick=_brick(position), band=band)
    _, _, n_tiles = _needed(path, position)
    with fits.open(path) as hdul:
        column, row = np.round(WCS(hdul[1].header).world_to_pixel(position)).astype(int)
        expected = hdul[1].data[row - 128 : row + 128, column - 128 : column + 128]
    calls = []
    if not hasattr(_tiled_compression, "_decompress_tile"):
        pytest.skip("this astropy decodes tiles in another way")
    plain = _tiled_compression._decompress_tile

    def counted(*args, **kwargs):
        calls.append(1)
        return plain(*args, **kwargs)

    monkeypatch.setattr(_tiled_compression, "_decompress_tile", counted)
    with open(path, "rb") as file:
        found = OpenImage(file).read(Box(row - 128, row + 128, column - 128, column + 128))
    assert np.array_equal(found, expected)
    assert len(calls) == n_tiles


def _brick(position):
    return str(brick_name(position.ra.deg, position.dec.deg))


@contextmanager
def _passed_functions():
    """Collect (file, function) of every call of this package's functions, in every thread."""
    calls = []
    root = str(Path(astroquery_lis.__file__).parent)

    def note(frame, event, arg):
        code = frame.f_code
        # Comprehensions and generator expressions are no functions of their own to a reader.
        if event == "call" and code.co_filename.startswith(root) and code.co_name[0] != "<":
            calls.append((code.co_filename, code.co_qualname))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def test_a_cutout_with_nothing_to_fetch_takes_a_short_way_through_the_code(sky, survey):
    position = SkyCoord(sky.positions["star"])
    survey.get_cutout(position, 64, bands="r")
    sky.requests.clear()
    with _passed_functions() as calls:
        survey.get_cutout(position, 64, bands="r")
    assert len(sky.requests) == 0
    files = [file for file, _ in calls]
    assert len(set(calls)) <= MOST_FUNCTIONS
    assert len(set(files)) <= MOST_FILES
    assert sum(a != b for a, b in pairwise(files)) <= MOST_CHANGES_OF_FILE


def test_a_cone_of_files_that_are_here_takes_a_short_way_through_the_code(sky, survey):
    position = SkyCoord(sky.positions["field"])
    ask = {"radius": "10 arcsec", "columns": ["type", "flux_r"], "source": "files"}
    # The second call looks whether the file that the first one fetched can be trusted.
    for _ in range(2):
        survey.query_tractor(position, **ask)
    sky.requests.clear()
    with _passed_functions() as calls:
        survey.query_tractor(position, **ask)
    assert len(sky.requests) == 0
    assert len(set(calls)) <= MOST_FUNCTIONS_OF_CONE
    assert len({file for file, _ in calls}) <= MOST_FILES_OF_CONE
