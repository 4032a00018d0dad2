"""Files of the archive on their way to disk: whole or not there, each byte once, a row each."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astroquery import mast

from astroquery_lis import conf
from astroquery_lis.exceptions import (
    CacheError,
    ContentChangedError,
    InvalidRequestError,
    LegacySurveyWarning,
    TruncatedError,
    UnexpectedContentError,
)
from astroquery_lis.jwst_stage.archive import download as archive_download
from astroquery_lis.jwst_stage.archive.names import folder_of
from astroquery_lis.jwst_stage.archive_methods import ArchiveMethods
from astroquery_lis.jwst_stage.base import StageBase
from astroquery_lis.sandbox.files import Response
from astroquery_lis.sandbox.mast import TOKEN, serve_mast

from .archive_files import write_association, write_uncal

DOWNLOAD = "*Download/file*"
DETECTORS = ("nrca1", "nrca2", "nrca3", "nrcalong")
# From some 60 kB to some 2.6 MB: less than a block, and several of them.
GROUPS = (2, 40, 150, 300)
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*file\\(s\\) could not be had:astroquery_lis.exceptions.LegacySurveyWarning"
)


class _Stage(ArchiveMethods, StageBase):
    """The methods on the base that they need, and no more."""


@pytest.fixture(autouse=True)
def _no_token(monkeypatch):
    """Keep the tests away from the user's own token."""
    monkeypatch.delenv("MAST_API_TOKEN", raising=False)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
    keyring = pytest.importorskip("keyring")
    from keyring.backends import null

    before = keyring.get_keyring()
    keyring.set_keyring(null.Keyring())
    yield
    keyring.set_keyring(before)


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held")
    paths = []
    for number, (detector, groups) in enumerate(zip(DETECTORS, GROUPS, strict=True)):
        name = f"jw01234001001_02101_00001_{detector}_uncal.fits"
        paths.append(write_uncal(folder, name, groups=groups, seed=number))
    name = "jw01234-o001_20220901t000000_image3_00001_asn.json"
    members = [path.name.replace("_uncal", "_cal") for path in paths]
    paths.append(write_association(folder, name, "jw01234-o001_t001_nircam_clear-f200w", members))
    return paths


@pytest.fixture
def service(sky, held):
    service = serve_mast(sky, held, exclusive=[held[0].name])
    with mast.conf.set_temp("server", service.url):
        yield service


@pytest.fixture
def stage(service):
    return _Stage()


@pytest.fixture
def table(stage, sky):
    table = stage.query_uncal(program=1234, associations=True)
    sky.requests.clear()
    return table


@pytest.fixture
def public(table):
    return table[table["public"]]


def _fetched(sky):
    """Return how many bytes of each file were sent."""
    sent = defaultdict(int)
    for record in sky.requests:
        if "Download" in record.path:
            sent[record.path.rpartition("/")[2]] += record.bytes_sent
    return sent


def _is_right(folder, held):
    for path in held:
        copy = folder / folder_of(path.name) / path.name
        assert copy.read_bytes() == path.read_bytes(), path.name
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == sorted(p.name for p in held)


def test_files_arrive_whole_in_folders_of_program_and_observation(
    stage, sky, public, held, tmp_path
):
    manifest = stage.download_uncal(public, download_dir=tmp_path, show_progress=False)
    _is_right(tmp_path, held[1:])
    assert list(manifest["Status"]) == ["COMPLETE"] * 4
    assert list(manifest["id"]) == list(public["file"])
    assert list(manifest["bytes"]) == list(public["size"])
    for row in manifest:
        with open(row["Local Path"], "rb") as stream:
            assert hashlib.file_digest(stream, "sha256").hexdigest() == row["sha256"]
    assert _fetched(sky) == {path.name: path.stat().st_size for path in held[1:]}
    assert manifest["bands"][-1] == "F200W"


def test_what_is_there_is_not_fetched_again(stage, sky, public, held, tmp_path):
    stage.download_uncal(public, download_dir=tmp_path)
    sky.requests.clear()
    manifest = stage.download_uncal(public, download_dir=tmp_path)
    assert list(manifest["Status"]) == ["CACHED"] * 4
    assert len(sky.requests) == 0
    manifest = stage.download_uncal(public, download_dir=tmp_path, overwrite=True)
    assert list(manifest["Status"]) == ["COMPLETE"] * 4
    _is_right(tmp_path, held[1:])


def test_a_file_that_is_not_whole_is_never_taken_for_one(stage, public, held, tmp_path):
    folder = tmp_path / "01234" / "001"
    folder.mkdir(parents=True)
    (folder / held[1].name).write_bytes(held[1].read_bytes()[:-2880])
    # As long as it should be, and not what it should be.
    (folder / held[2].name).write_bytes(held[3].read_bytes()[: held[2].stat().st_size])
    # Whole, but another one.
    (folder / held[3].name).write_bytes(held[1].read_bytes())
    (folder / held[4].name).write_text("<html>" + " " * (held[4].stat().st_size - 6))
    manifest = stage.download_uncal(public, download_dir=tmp_path)
    assert set(manifest["Status"]) == {"COMPLETE"}
    _is_right(tmp_path, held[1:])
    told = dict(zip(manifest["id"], manifest["Message"], strict=True))
    for path in held[1:]:
        assert "was there and was replaced" in told[path.name]


def test_names_and_uris_are_enough(stage, held, tmp_path):
    names = [held[1].name, f"mast:JWST/product/{held[2].name}"]
    manifest = stage.download_uncal(names, download_dir=tmp_path)
    assert list(manifest["Status"]) == ["COMPLETE"] * 2
    assert stage.download_uncal(names[0], download_dir=tmp_path)["Status"][0] == "CACHED"


def test_a_row_and_a_table_that_was_written_will_do(stage, public, held, tmp_path):
    public.write(tmp_path / "list.ecsv")
    again = Table.read(tmp_path / "list.ecsv")
    manifest = stage.download_uncal(again, download_dir=tmp_path / "all")
    assert set(manifest["Status"]) == {"COMPLETE"}
    _is_right(tmp_path / "all", held[1:])
    manifest = stage.download_uncal(again[1], download_dir=tmp_path / "all")
    assert list(manifest["Status"]) == ["CACHED"]


def test_a_file_that_is_named_twice_is_fetched_once(stage, sky, public, tmp_path):
    twice = public[[1, 1, 1]]
    manifest = stage.download_uncal(twice, download_dir=tmp_path)
    assert sorted(manifest["Status"]) == ["CACHED", "CACHED", "COMPLETE"]
    assert _fetched(sky) == {public["file"][1]: public["size"][1]}


def test_the_payload_is_the_list_of_addresses(stage, sky, table, service):
    urls = stage.download_uncal(table[:1], download_dir="unused", get_query_payload=True)
    name = table["file"][0]
    assert urls == [f"{service.url}/api/v0.1/Download/file?uri=mast:JWST/product/{name}"]
    assert len(sky.requests) == 0


def test_any_executor_does_the_work(stage, public, held, tmp_path):
    with ThreadPoolExecutor(2) as executor:
        stage.download_uncal(public, download_dir=tmp_path / "own", executor=executor)
    _is_right(tmp_path / "own", held[1:])


@pytest.mark.parametrize("own", [True, False])
def test_no_more_files_come_at_once_than_asked_for(stage, sky, service, held, tmp_path, own):
    together, lock, active = threading.Barrier(2), threading.Lock(), []
    peaks = []

    def counted(request):
        with lock:
            active.append(request)
            peaks.append(len(active))
        # Only where two come at once does the first one go on.
        together.wait(20)
        with lock:
            active.remove(request)
        return service(request)

    sky.routes.insert(0, ("/mast/api/v0.1/Download", counted))
    names = [path.name for path in held[1:]]
    try:
        with ThreadPoolExecutor(4) as executor:
            manifest = stage.download_uncal(
                names,
                download_dir=tmp_path,
                max_workers=2,
                executor=None if own else executor,
            )
    finally:
        sky.routes.pop(0)
    assert set(manifest["Status"]) == {"COMPLETE"}
    assert max(peaks) == 2


@pytest.mark.slow
def test_processes_do_the_work(stage, table, held, tmp_path):
    manifest = stage.download_uncal(table, download_dir=tmp_path, executor="processes", token=TOKEN)
    assert set(manifest["Status"]) == {"COMPLETE"}
    _is_right(tmp_path, held)


def test_what_is_to_come_is_told(stage, public, tmp_path, caplog):
    with caplog.at_level("INFO"):
        stage.download_uncal(public, download_dir=tmp_path)
    total = sum(public["size"]) / 1e6
    assert f"4 of 4 file(s) to fetch, {total:.1f} MB" in caplog.text
    assert "4 files: 4 complete" in caplog.text


# ---- interruptions ------------------------------------------------------------------------------


def test_a_cut_download_goes_on_where_it_was_cut(stage, sky, public, held, tmp_path):
    random.seed(8)
    for _ in range(10):
        sky.faults.add("cut", match=DOWNLOAD, times=1, fraction=random.uniform(0.02, 0.98))
    manifest = stage.download_uncal(public, download_dir=tmp_path)
    assert list(manifest["Status"]) == ["COMPLETE"] * 4
    _is_right(tmp_path, held[1:])
    assert _fetched(sky) == {path.name: path.stat().st_size for path in held[1:]}


@pytest.mark.slow
def test_thirty_cuts_cost_no_byte_twice(stage, sky, public, held, tmp_path):
    random.seed(30)
    for number in range(30):
        folder = tmp_path / str(number)
        sky.requests.clear()
        sky.faults.add("cut", match=f"*{held[3].name}", fraction=random.uniform(0, 1))
        manifest = stage.download_uncal(public, download_dir=folder)
        assert list(manifest["Status"]) == ["COMPLETE"] * 4
        _is_right(folder, held[1:])
        assert _fetched(sky) == {path.name: path.stat().st_size for path in held[1:]}
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
    _is_right(tmp_path, held[1:])
    size = held[3].stat().st_size
    assert _fetched(sky) == {held[3].name: size - int(0.6 * size)}


_KILLED = """
import sys
from astroquery import mast
from astropy.table import Table
from astroquery_lis import conf
from astroquery_lis.jwst_stage.archive_methods import ArchiveMethods
from astroquery_lis.jwst_stage.base import StageBase
class Stage(ArchiveMethods, StageBase): pass
mast.conf.server = sys.argv[1]
table = Table.read(sys.argv[2])
Stage().download_uncal(table, download_dir=sys.argv[3], show_progress=False, max_workers=2)
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

    def chunks(self, length):
        for chunk in self.body.chunks(length):
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
        path.name: path.stat().st_size - archive_download.part_bytes(place / path.name)
        for path in large
        if not (place / path.name).exists()
    }
    sky.requests.clear()
    manifest = stage.download_uncal(table, download_dir=folder)
    _is_right(folder, large)
    status = dict(zip(manifest["id"], manifest["Status"], strict=True))
    assert status == {p.name: "COMPLETE" if p.name in due else "CACHED" for p in large}
    assert _fetched(sky) == due
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
    _is_right(tmp_path, held[1:])


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
        ("html", {}, "UnexpectedContentError", "a web page in place of a file"),
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
    _is_right(tmp_path, [held[1], held[3], held[4]])
    sky.faults.clear()
    stage.timeout = None
    stage.download_uncal(public, download_dir=tmp_path)
    _is_right(tmp_path, held[1:])


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


# ---- tokens -------------------------------------------------------------------------------------


def _message(stage, table, folder, **kwargs):
    manifest = stage.download_uncal(table[~table["public"]], download_dir=folder, **kwargs)
    return manifest["Status"][0], str(manifest["Message"][0])


def test_without_a_token_the_message_says_how_to_give_one(stage, table, tmp_path):
    status, message = _message(stage, table, tmp_path)
    assert status == "ERROR"
    for word in ("token=", "MAST_API_TOKEN", "login", "auth.mast.stsci.edu", "HTTP 401"):
        assert word in message


def test_an_expired_token_is_said_to_be_one(stage, table, tmp_path):
    status, message = _message(stage, table, tmp_path, token="a-token-of-old")
    assert status == "ERROR"
    assert "the argument token" in message
    assert "has expired" in message
    assert "a-token-of-old" not in message


def test_a_token_of_somebody_without_access_is_said_to_be_one(stage, table, tmp_path, monkeypatch):
    monkeypatch.setenv("MAST_API_TOKEN", "a-token-of-a-stranger")
    status, message = _message(stage, table, tmp_path)
    assert status == "ERROR"
    assert "$MAST_API_TOKEN is valid, and its owner (A Stranger) has no access" in message
    assert "HTTP 403" in message


def test_the_argument_comes_before_the_environment_and_that_before_the_keyring(
    stage, table, held, tmp_path, monkeypatch
):
    import keyring
    from keyring.backend import KeyringBackend

    class Ring(KeyringBackend):
        priority = 1

        def get_password(self, service, username):
            return TOKEN if service.startswith("astroquery:mast") else None

        def set_password(self, service, username, password):
            raise NotImplementedError

    keyring.set_keyring(Ring())
    assert _message(stage, table, tmp_path / "keyring")[0] == "COMPLETE"
    monkeypatch.setenv("MAST_API_TOKEN", "wrong")
    assert _message(stage, table, tmp_path / "variable")[0] == "ERROR"
    assert _message(stage, table, tmp_path / "argument", token=TOKEN)[0] == "COMPLETE"


def test_the_token_is_shown_for_what_is_not_public_only(stage, service, table, held, tmp_path):
    manifest = stage.download_uncal(table, download_dir=tmp_path, token=TOKEN)
    assert set(manifest["Status"]) == {"COMPLETE"}
    _is_right(tmp_path, held)
    shown = [authorization for _, authorization in service.asked]
    assert sorted(shown, key=str) == [None] * 4 + [f"token {TOKEN}"]


def test_the_token_follows_no_redirect_to_another_host(stage, sky, service, table, held, tmp_path):
    seen = []

    def elsewhere(request):
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return service(request)

    def redirect(request):
        target = sky.url.replace("127.0.0.1", "localhost") + "/elsewhere" + request.path
        return Response(302, {"Location": f"{target}?{request.query}"})

    def stripped(request):
        request.path = request.path.removeprefix("/elsewhere")
        return elsewhere(request)

    sky.routes[:0] = [("/mast/api/v0.1/Download", redirect), ("/elsewhere", stripped)]
    service.archive.holdings[held[0].name].exclusive = False
    try:
        assert _message(stage, table, tmp_path, token=TOKEN)[0] == "COMPLETE"
    finally:
        del sky.routes[:2]
        service.archive.holdings[held[0].name].exclusive = True
    assert seen
    assert not any("authorization" in headers or "cookie" in headers for headers in seen)


def test_the_token_is_nowhere_to_be_read(stage, table, tmp_path, caplog):
    with caplog.at_level("DEBUG"):
        manifest = stage.download_uncal(table, download_dir=tmp_path, token=TOKEN)
    assert TOKEN not in caplog.text
    assert TOKEN not in "".join(map(str, manifest.pformat(max_width=-1, max_lines=-1)))
    assert TOKEN not in "".join(str(p) for p in tmp_path.rglob("*"))
    job = archive_download.ArchiveJob(0, "f", "u", "p", token=archive_token(TOKEN))
    assert TOKEN not in repr(job)


def archive_token(text):
    from astroquery_lis.jwst_stage.archive.token import Token

    return Token(text, "a test")


@pytest.mark.parametrize("token", ["", "two words", "a\nb", "ключ", 5])
def test_what_cannot_be_a_token_is_refused(stage, sky, table, tmp_path, token):
    with pytest.raises(InvalidRequestError, match="cannot be a MAST token"):
        stage.download_uncal(table, download_dir=tmp_path, token=token)
    assert len(sky.requests) == 0


def test_the_token_does_not_travel_in_the_clear(stage, table, tmp_path):
    words = "is not sent to http://mast.example.org"
    in_the_clear = mast.conf.set_temp("server", "http://mast.example.org")
    with in_the_clear, pytest.raises(InvalidRequestError, match=words):
        stage.download_uncal(table, download_dir=tmp_path, token=TOKEN)


# ---- refusals -----------------------------------------------------------------------------------


def test_the_disk_is_not_filled(stage, sky, public, tmp_path):
    words = r"GB are free on its disk, and 0\.00 GB are due"
    with conf.set_temp("disk_margin", 1e6), pytest.raises(CacheError, match=words):
        stage.download_uncal(public, download_dir=tmp_path)
    assert len(sky.requests) == 0
    public["size"] = np.full(len(public), 10**18)
    with pytest.raises(CacheError, match="4000000000.00 GB are due"):
        stage.download_uncal(public, download_dir=tmp_path)


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        (Table({"name": ["x"]}), {}, "no column 'file' or 'uri'; it has: name"),
        (["mast:JWST/product/.."], {}, "is no file of MAST"),
        (["mast:JWST/product/"], {}, "is no file of MAST"),
        (["x.fits"], {"max_workers": 0}, "max_workers=0 must be a number from 1 to 16"),
        (["x.fits"], {"max_workers": 64}, "max_workers=64"),
        (["x.fits"], {"executor": "clouds"}, "executor='clouds' must be"),
    ],
)
def test_bad_arguments_are_refused(stage, sky, tmp_path, given, options, words):
    with pytest.raises(InvalidRequestError, match=words):
        stage.download_uncal(given, download_dir=tmp_path, **options)
    assert len(sky.requests) == 0


def test_a_folder_that_cannot_be_made_is_told(stage, public, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="Cannot write"):
        stage.download_uncal(public, download_dir=tmp_path / "file")


def test_no_files_are_an_empty_manifest(stage, public, tmp_path):
    manifest = stage.download_uncal(public[:0], download_dir=tmp_path)
    assert len(manifest) == 0
    assert "Status" in manifest.colnames


def test_what_arrived_opens(stage, public, tmp_path):
    manifest = stage.download_uncal(public[public["product"] == "uncal"], download_dir=tmp_path)
    for path in manifest["Local Path"]:
        with fits.open(path) as hdul:
            assert hdul["SCI"].data.ndim == 3
        assert os.stat(path).st_size % 2880 == 0
