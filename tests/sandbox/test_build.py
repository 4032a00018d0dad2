"""Files of the tree appear whole or not at all, the same whoever makes them, and when."""

import http.client
import os
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from astropy import log

from astroquery_lis import sandbox
from astroquery_lis.sandbox import tree
from astroquery_lis.survey import paths

# A scene of two bricks, without rows for the catalogue of the others.
SMALL_BUILD = """
import sys
from types import MappingProxyType
from astroquery_lis.sandbox import sky, tree

sky.BRICKS = MappingProxyType({
    ("dr10", "south"): ("3598p000",),
    ("dr9", "north"): ("1801p325",),
})
tree.CATALOG_TREES = {("dr10", "south"): ("3598p000",)}
if sys.argv[2] == "unlocked":
    tree.fcntl = None
print("go", flush=True)
print(tree.build(sys.argv[1]))
"""


def start(root, mode="locked"):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SMALL_BUILD, str(root), mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
    )


def files_in(root):
    """Return the survey's files in a tree."""
    return sorted(
        path.relative_to(root).as_posix() for path in root.glob("dr*/**/*") if path.is_file()
    )


def check_same(root, sky_tree):
    """Check that a tree of the small scene is what the whole one has, but for tables of bricks."""
    names = files_in(root)
    assert len(names) > 70
    for name in names:
        if "survey-bricks" not in name and "tractor_" not in name:
            assert (root / name).read_bytes() == (sky_tree / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["locked", "unlocked"])
def test_two_builders_at_once_both_end_well(tmp_path, sky_tree, mode):
    root = tmp_path / "deep" / "tree"
    builders = [start(root, mode) for _ in range(2)]
    for builder in builders:
        out, err = builder.communicate(timeout=120)
        assert builder.returncode == 0, err
        assert out.split()[-1] == str(root)
    check_same(root, sky_tree)
    assert not list(root.rglob("*.partial"))


@pytest.mark.slow
def test_a_killed_builder_leaves_nothing_that_counts(tmp_path, sky_tree):
    root = tmp_path / "tree"
    with start(root) as builder:
        while not list(root.glob("dr10/south/coadd/359/3598p000/*-image-r.fits.fz")):
            assert builder.poll() is None
            time.sleep(0.01)
        builder.send_signal(signal.SIGKILL)
    folder = root / "dr10/south/coadd/359/3598p000"
    (folder / ".legacysurvey-3598p000-image-z.fits.fz.abc.partial").write_bytes(b"half")
    (folder / "legacysurvey-3598p000-image-z.fits.fz").unlink(missing_ok=True)
    with start(root) as builder:
        _, err = builder.communicate(timeout=120)
    assert builder.returncode == 0, err
    check_same(root, sky_tree)
    assert not list(root.rglob("*.partial"))


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    files = tree.SurveyTree(tmp_path / "tree")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        files.file(paths.file_path("nexp", "dr10", "south", brick="3598p000", band="r"))
    assert files_in(files.root) == []
    assert not list(files.root.rglob("*.partial"))


def test_a_folder_of_another_version_is_refused(tmp_path):
    tree.SurveyTree(tmp_path)
    (tmp_path / ".scene").write_text("another")
    with pytest.raises(ValueError, match=r"another version of the simulated survey; use an empty"):
        sandbox.serve(root=tmp_path)


def test_default_root_is_in_the_cache_and_has_the_version(monkeypatch):
    before = tree.SurveyTree().root
    assert before.parent.parts[-2:] == ("astroquery_lis", "sandbox")
    assert (before / ".scene").read_text() == before.name == tree.digest_of(tree._SOURCES)
    monkeypatch.setattr(tree.sky, "SCENE_VERSION", "another")
    assert tree.digest_of(tree._SOURCES) != before.name


KINDS = [
    paths.file_path("chi2", "dr10", "south", brick="1801p322", band="r"),
    paths.file_path("invvar", "dr10", "south", brick="0451p000", band="r"),
    paths.file_path("nexp", "dr10", "south", brick="0451p000", band="g"),
    paths.file_path("maskbits", "dr9", "north", brick="1801p325"),
    paths.file_path("blobmodel", "dr9", "north", brick="1801p325", band="z"),
    paths.file_path("image", "dr10", "south", brick="0001p000", band="W2"),
    paths.file_path("tractor", "dr9", "south", brick="0453p002"),
    paths.file_path("ccds-table", "dr10", "south", brick="0453p002"),
    paths.file_path("region-bricks", "dr10", "south"),
    paths.file_path("survey-bricks", "dr9"),
    paths.file_path("coadd-checksums", "dr9", "north", brick="1801p325"),
]


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    """A sandbox of which no file has been made; what a test asks for stays."""
    with sandbox.serve(root=tmp_path_factory.mktemp("new"), configure=False) as sky:
        yield sky


@pytest.mark.parametrize("path", KINDS)
def test_a_file_that_is_asked_for_is_what_a_build_makes(new, sky_tree, path):
    with urllib.request.urlopen(f"{new.mirror_url}/{path}", timeout=60) as answer:
        assert answer.read() == (sky_tree / path).read_bytes()


def test_nothing_is_made_before_it_is_asked_for(tmp_path):
    with sandbox.serve(root=tmp_path / "tree", configure=False) as sky:
        assert files_in(tmp_path / "tree") == []
        connection = http.client.HTTPConnection(sky.mirror_url.split("/")[2], timeout=60)
        path = KINDS[6]
        connection.request("HEAD", f"/legacysurvey/{path}")
        answer = connection.getresponse()
        assert answer.read() == b""
        assert files_in(tmp_path / "tree") == [path]
        assert int(answer.headers["Content-Length"]) == sky.file(path).stat().st_size
        for wrong in ("dr10/south/coadd/045/0451p000", "dr10/no.fits", f"../tree/{path}"):
            connection.request("GET", f"/legacysurvey/{wrong}")
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (404, True)
        with sky.faults.add("status", code=503):
            connection.request("GET", f"/legacysurvey/{KINDS[0]}")
            assert connection.getresponse().status == 503
        connection.close()
        assert files_in(tmp_path / "tree") == [path]


def test_a_file_that_cannot_be_made_is_a_server_error(tmp_path):
    path = KINDS[6]
    with sandbox.serve(root=tmp_path, configure=False) as sky:
        (tmp_path / path.split("/")[0]).write_text("in the way of a folder")
        with pytest.raises(urllib.error.HTTPError, match="500"):
            urllib.request.urlopen(f"{sky.mirror_url}/{path}", timeout=60)


def test_two_servers_share_a_tree(tmp_path, sky_tree):
    path = KINDS[0]
    with (
        sandbox.serve(root=tmp_path, configure=False) as one,
        sandbox.serve(root=tmp_path, configure=False) as two,
        ThreadPoolExecutor(8) as pool,
    ):
        urls = [f"{sky.mirror_url}/{path}" for sky in (one, two)] * 4
        answers = list(pool.map(lambda url: urllib.request.urlopen(url, timeout=60), urls))
        assert len({answer.headers["ETag"] for answer in answers}) == 1
        assert {answer.read() for answer in answers} == {(sky_tree / path).read_bytes()}


@pytest.mark.slow
def test_masks_that_are_made_at_once_are_those_of_a_build(tmp_path, sky_tree):
    bricks = ("0453p000", "0451p002", "0453p002", "0001p000", "3598p000", "1801p322", "1801p325")
    names = [paths.file_path("maskbits", "dr10", "south", brick=brick) for brick in bricks]
    files = tree.SurveyTree(tmp_path)
    with ThreadPoolExecutor(len(names)) as pool:
        for name, path in zip(names, pool.map(files.file, names), strict=True):
            assert path.read_bytes() == (sky_tree / name).read_bytes(), name


def test_a_build_counts_what_is_made_and_says_that_it_takes_long(tmp_path, monkeypatch):
    files = tree.SurveyTree(tmp_path)
    monkeypatch.setattr(files, "_lists", {})

    def touch(piece):
        for path in piece.paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()

    monkeypatch.setattr(files, "_make", touch)
    counts = []
    with log.log_to_list() as told:
        files.fill(lambda *done: counts.append(done))
        files.fill()
    assert counts == [(number, len(files.pieces)) for number in range(1, len(files.pieces) + 1)]
    paths_made = [tmp_path / path for piece in files.pieces for path in piece.paths]
    assert all(path.is_file() for path in paths_made)
    assert [record.levelname for record in told] == ["INFO", "INFO"]
    assert str(tmp_path) in told[0].getMessage()
    paths_made[-1].unlink()
    counts.clear()
    files.fill(lambda *done: counts.append(done))
    assert counts == [(1, 1)]
    assert paths_made[-1].is_file()


def test_a_build_ends_with_the_first_failure(tmp_path, monkeypatch):
    files = tree.SurveyTree(tmp_path)

    def fail(piece):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_make", fail)
    with pytest.raises(OSError, match="No space left"):
        files.fill()
