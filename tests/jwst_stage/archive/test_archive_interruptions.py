"""Downloads that are cut, killed or answered wrongly: each byte once, and no other file stopped."""

import hashlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from astropy.table import Table

from astroquery_lis import conf
from astroquery_lis.exceptions import (
    ContentChangedError,
    LegacySurveyWarning,
    TruncatedError,
    UnexpectedContentError,
)
from astroquery_lis.jwst_stage import archive_jobs
from astroquery_lis.jwst_stage.archive_jobs import folder_of
from astroquery_lis.sandbox.web import Response

from .archive_files import fetched_bytes, is_right, write_uncal

DOWNLOAD = "*Download/file*"
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*file\\(s\\) could not be had:astroquery_lis.exceptions.LegacySurveyWarning"
)


def test_a_cut_download_goes_on_where_it_was_cut(stage, sky, public, held, tmp_path):
    random.seed(8)
    for _ in range(10):
        sky.faults.add("cut", match=DOWNLOAD, times=1, fraction=random.uniform(0.02, 0.98))
    manifest = stage.download_uncal(public, download_dir=tmp_path)
    assert list(manifest["Status"]) == ["COMPLETE"] * 4
    is_right(tmp_path, held[1:])
    assert fetched_bytes(sky) == {path.name: path.stat().st_size for path in held[1:]}


@pytest.mark.slow
def test_thirty_cuts_cost_no_byte_twice(stage, sky, public, held, tmp_path):
    random.seed(30)
    for number in range(30):
        folder = tmp_path / str(number)
        sky.requests.clear()
        sky.faults.add("cut", match=f"*{held[3].name}", fraction=random.uniform(0, 1))
        manifest = stage.download_uncal(public, download_dir=folder)
        assert list(manifest["Status"]) == ["COMPLETE"] * 4
        is_right(folder, held[1:])
        assert fetched_bytes(sky) == {path.name: path.stat().st_size for path in held[1:]}
        shutil.rmtree(folder)


def test_what_a_failed_call_began_the_next_one_continues(stage, sky, public, held, tmp_path):
    # Everything after the first piece is refused, so that the call gives up.
    sky.faults.add("cut", match=f"*{held[3].name}", times=1, fraction=0.6)
    refuse = sky.faults.add("refuse", match=f"*{held[3].name}", times=None)
    first = stage.download_uncal(public, download_dir=tmp_path)
    failed = first[first["id"] == held[3].name][0]
    assert failed["Status"] == "ERROR"
    assert not (tmp_path / "01234" / "001" / held[3].name).exists()
    refuse.remove()
    sky.requests.clear()
    again = stage.download_uncal(public, download_dir=tmp_path)
    assert sorted(again["Status"]) == ["CACHED", "CACHED", "CACHED", "COMPLETE"]
    is_right(tmp_path, held[1:])
    size = held[3].stat().st_size
    assert fetched_bytes(sky) == {held[3].name: size - int(0.6 * size)}


_KILLED = """
import sys
from astroquery import mast
from astropy.table import Table
from astroquery_lis import conf
from astroquery_lis.jwst_stage.archive_methods import ArchiveMethods
mast.conf.server = sys.argv[1]
table = Table.read(sys.argv[2])
ArchiveMethods().download_uncal(table, download_dir=sys.argv[3], show_progress=False, max_workers=2)
"""


class _Slowly:
    """Serves files a piece at a time, and says when so many pieces were sent."""

    def __init__(self, service):
        self.service = service
        self.reached = threading.Event()
        self._lock, self._left = threading.Lock(), 0

    def expect(self, pieces):
        """Forget what was sent and wait for so many pieces."""
        with self._lock:
            self._left = pieces
            self.reached.clear()

    def note(self):
        """Count a piece."""
        with self._lock:
            self._left -= 1
            if self._left <= 0:
                self.reached.set()

    def __call__(self, request):
        response = self.service(request)
        if isinstance(response.body, bytes):
            return response
        return Response(response.status, response.headers, _SlowBody(response.body, self))


class _SlowBody:
    def __init__(self, body, owner):
        self.body, self.owner = body, owner

    def __len__(self):
        return len(self.body)

    def chunks(self):
        for chunk in self.body.chunks():
            for start in range(0, len(chunk), 65_536):
                yield chunk[start : start + 65_536]
                # The kernel would take all of it at once.
                time.sleep(0.01)
                self.owner.note()


def _killed_downloads(sky, service, table, held, tmp_path, kills):
    """Kill a download so many times at random; return its folder and how many had parts."""
    slowly = _Slowly(service)
    listed = tmp_path / "list.ecsv"
    table.write(listed)
    folder = tmp_path / "data"
    command = [sys.executable, "-c", _KILLED, service.url, str(listed), str(folder)]
    generator = random.Random(kills)
    with_parts = 0
    sky.routes.insert(0, ("/mast/api/v0.1/Download", slowly))
    try:
        for _ in range(kills):
            slowly.expect(generator.randint(36, 90))
            process = subprocess.Popen(command)
            while process.poll() is None and not slowly.reached.wait(0.05):
                pass
            process.send_signal(signal.SIGKILL)
            process.wait()
            with_parts += any(p.stat().st_size for p in folder.rglob("*.part"))
            for path in held:
                there = folder / folder_of(path.name) / path.name
                assert not there.exists() or there.read_bytes() == path.read_bytes()
    finally:
        sky.routes.pop(0)
    return folder, with_parts


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Four files of some 6 MB: many blocks each."""
    folder = tmp_path_factory.mktemp("large")
    names = (f"jw05555001001_02101_00001_nrcb{number}_uncal.fits" for number in (1, 2, 3, 4))
    return [write_uncal(folder, name, groups=770, seed=9) for name in names]


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_kill_9_at_any_time_loses_no_more_than_a_block(stage, sky, service, large, tmp_path, kills):
    for path in large:
        service.archive.add(path)
    table = stage.query_uncal(program=5555)
    folder, with_parts = _killed_downloads(sky, service, table, large, tmp_path, kills)
    # Whatever was cut off within its first block left nothing.
    assert with_parts >= kills // 2
    place = folder / "05555" / "001"
    due = {
        path.name: path.stat().st_size - archive_jobs.part_bytes(place / path.name)
        for path in large
        if not (place / path.name).exists()
    }
    sky.requests.clear()
    manifest = stage.download_uncal(table, download_dir=folder)
    is_right(folder, large)
    status = dict(zip(manifest["id"], manifest["Status"], strict=True))
    assert status == {p.name: "COMPLETE" if p.name in due else "CACHED" for p in large}
    assert fetched_bytes(sky) == due
    assert sum(due.values()) < sum(path.stat().st_size for path in large)


def test_parts_of_another_version_are_not_continued(stage, sky, public, held, tmp_path):
    sky.faults.add("cut", match=f"*{held[3].name}", times=1, fraction=0.6)
    refuse = sky.faults.add("refuse", match=f"*{held[3].name}", times=None)
    stage.download_uncal(public, download_dir=tmp_path)
    refuse.remove()
    part = next(tmp_path.rglob("*.part"))
    part.write_bytes(b"\0" * part.stat().st_size)
    sky.faults.add("etag", match=DOWNLOAD)
    stage.download_uncal(public, download_dir=tmp_path)
    is_right(tmp_path, held[1:])


# ---- what services do wrong ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "error", "words"),
    [
        ("status", {"code": 429, "retry_after": 100_000}, "RateLimitedError", "asks to wait"),
        ("status", {"code": 429, "retry_after": 0}, "RateLimitedError", "too many requests"),
        ("status", {"code": 503}, "ServiceDownError", "HTTP 503"),
        ("status", {"code": 500}, "ServiceDownError", "HTTP 500"),
        ("status", {"code": 401}, "TransferError", "no MAST token was sent"),
        ("status", {"code": 403}, "TransferError", "no MAST token was sent"),
        ("html", {}, "UnexpectedContentError", "a web page instead of a file"),
        ("refuse", {}, "ServiceDownError", "Could not read"),
        ("slow", {"seconds": 30}, "ServiceTimeoutError", "in time"),
    ],
)
def test_one_bad_file_stops_no_other_and_is_typed(
    stage, sky, public, held, tmp_path, kind, options, error, words
):
    if kind == "slow":
        stage.timeout = 2.0
    sky.faults.add(kind, match=f"*{held[2].name}", times=None, **options)
    once = conf.set_temp("retries", 0 if kind == "slow" else 1)
    with once, pytest.warns(LegacySurveyWarning, match="1 of 4 file"):
        manifest = stage.download_uncal(public, download_dir=tmp_path)
    status = dict(zip(manifest["id"], manifest["Status"], strict=True))
    assert status.pop(held[2].name) == "ERROR"
    assert set(status.values()) == {"COMPLETE"}
    message = str(manifest["Message"][manifest["id"] == held[2].name][0])
    assert message.startswith(f"{error}: ")
    assert words in message
    is_right(tmp_path, [held[1], held[3], held[4]])
    sky.faults.clear()
    stage.timeout = None
    stage.download_uncal(public, download_dir=tmp_path)
    is_right(tmp_path, held[1:])


def test_html_for_fits_is_refused_when_the_size_is_not_known(stage, sky, held, tmp_path):
    sky.faults.add("html", match=DOWNLOAD, times=None)
    for path in (held[1], held[4]):
        manifest = stage.download_uncal(path.name, download_dir=tmp_path)
        assert manifest["Status"][0] == "ERROR"
        assert manifest["Message"][0].startswith(f"{UnexpectedContentError.__name__}: ")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_file_that_ends_early_is_refused_though_its_length_agrees(stage, service, held, tmp_path):
    short = tmp_path / "short"
    short.mkdir()
    cut = short / held[2].name
    cut.write_bytes(held[2].read_bytes()[: held[2].stat().st_size // 2 // 2880 * 2880])
    holding = service.archive.holdings[held[2].name]
    holding.path, holding.size = cut, cut.stat().st_size
    table = stage.query_uncal(program=1234, detector="NRCA3")
    assert table["size"][0] == cut.stat().st_size
    manifest = stage.download_uncal(table, download_dir=tmp_path / "to")
    assert manifest["Status"][0] == "ERROR"
    assert manifest["Message"][0].startswith(f"{TruncatedError.__name__}: ")
    assert not [p for p in (tmp_path / "to").rglob("*") if p.is_file()]


@pytest.mark.parametrize("change", [-1, 1, 2880])
def test_another_length_than_that_of_the_table_is_refused(stage, public, held, tmp_path, change):
    public["size"][public["file"] == held[2].name] += change
    manifest = stage.download_uncal(public, download_dir=tmp_path)
    row = manifest[manifest["id"] == held[2].name][0]
    assert row["Status"] == "ERROR"
    assert row["Message"].startswith(f"{ContentChangedError.__name__}: ")
    assert "Query again" in row["Message"]
    public["size"][public["file"] == held[2].name] = -1
    assert set(stage.download_uncal(public, download_dir=tmp_path)["Status"]) == {
        "CACHED",
        "COMPLETE",
    }


def test_a_digest_is_compared_where_the_table_has_one(stage, public, held, tmp_path):
    public = public[:2]
    public["sha256"] = [hashlib.sha256(held[4].read_bytes()).hexdigest(), "00" * 32]
    manifest = stage.download_uncal(public, download_dir=tmp_path)
    assert list(manifest["Status"]) == ["COMPLETE", "ERROR"]
    assert manifest["Message"][1].startswith("ChecksumError: ")


def test_what_mast_does_not_have_is_no_error(stage, tmp_path):
    name = "jw09999001001_02101_00001_nis_uncal.fits"
    manifest = stage.download_uncal(name, download_dir=tmp_path)
    assert manifest["Status"][0] == "NODATA"
    assert name in manifest["Message"][0]


def test_when_mast_is_down_the_rest_is_not_asked_for(stage, sky, public, tmp_path):
    sky.faults.add("status", match=DOWNLOAD, times=None, code=503, retry_after=0)
    many = Table({"file": [f"jw00001001001_02101_{n:05d}_nis_uncal.fits" for n in range(30)]})
    with conf.set_temp("retries", 0):
        manifest = stage.download_uncal(many, download_dir=tmp_path, max_workers=1)
    assert list(manifest["Status"][:8]) == ["ERROR"] * 8
    assert list(manifest["Status"][9:]) == ["SKIPPED"] * 21
    assert len(manifest) == 30
    assert len(sky.requests) < 10
    sky.faults.clear()
    manifest = stage.download_uncal(public, download_dir=tmp_path)
    assert set(manifest["Status"]) == {"COMPLETE"}


@pytest.mark.parametrize("fault", ["drip", "endless"])
def test_a_call_that_brings_nothing_ends_with_the_deadline(stage, sky, public, tmp_path, fault):
    sky.faults.add(fault, match=DOWNLOAD, times=None)
    with conf.set_temp("deadline", 2.0):
        manifest = stage.download_uncal(public, download_dir=tmp_path, max_workers=1)
    assert set(manifest["Status"]) == {"ERROR"}
    assert all("conf.deadline=2 s" in message for message in manifest["Message"])
    assert len(sky.requests) == 1
