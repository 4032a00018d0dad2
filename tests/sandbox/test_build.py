"""A tree appears whole or not at all."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from astroquery_lis.sandbox import tree
from astroquery_lis.survey import paths

# Stands in for half a minute of writing; what is tested is when the folder appears.
SLOW_BUILD = """
import sys, time
from pathlib import Path
from astroquery_lis.sandbox import tree

def write(root, progress):
    for number in range(40):
        (root / f"{number}.txt").write_text(str(number))
        time.sleep(0.02)

tree._write_tree = write
if sys.argv[2] == "unlocked":
    tree.fcntl = None
print("go", flush=True)
print(tree.build(sys.argv[1]))
"""


def start(root, mode="locked"):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SLOW_BUILD, str(root), mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
    )


def files_in(root):
    return sorted(int(path.stem) for path in root.glob("*.txt"))


@pytest.mark.parametrize("mode", ["locked", "unlocked"])
def test_two_builders_at_once_both_end_well(tmp_path, mode):
    root = tmp_path / "deep" / "tree"
    builders = [start(root, mode) for _ in range(2)]
    for builder in builders:
        out, err = builder.communicate(timeout=60)
        assert builder.returncode == 0, err
        assert out.split()[-1] == str(root)
    assert files_in(root) == list(range(40))
    assert [path.name for path in root.parent.iterdir() if path.suffix == ".partial"] == []


def test_a_killed_builder_leaves_nothing_that_counts(tmp_path):
    root = tmp_path / "tree"
    with start(root) as builder:
        while not list(tmp_path.glob(".tree.*.partial/3.txt")):
            assert builder.poll() is None
            time.sleep(0.01)
        builder.send_signal(signal.SIGKILL)
    assert not root.exists()
    assert list(tmp_path.glob("*.partial"))
    with start(root) as builder:
        _, err = builder.communicate(timeout=60)
    assert builder.returncode == 0, err
    assert files_in(root) == list(range(40))
    assert not list(tmp_path.glob("*.partial"))


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def fail(root, progress):
        (root / "half.txt").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tree, "_write_tree", fail)
    with pytest.raises(OSError, match="No space left"):
        tree.build(tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir()] == [".tree.lock"]


def test_an_existing_tree_is_used_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(tree, "_write_tree", None)
    assert tree.build(str(tmp_path)) == tmp_path


def test_default_root_is_in_the_cache_and_has_the_version(monkeypatch):
    before = tree.default_root()
    assert before.parent.parts[-2:] == ("astroquery_lis", "sandbox")
    monkeypatch.setattr(tree.sky, "SCENE_VERSION", "another")
    assert tree.default_root() != before
    assert tree.default_root().parent == before.parent


def test_two_processes_make_the_same_files_as_ever(sky_tree, tmp_path):
    jobs = [("dr10", "south", "1801p325"), ("dr10", "south", "3598p000")]
    counts = []
    results = tree.write_bricks(tmp_path, jobs, lambda *done: counts.append(done))
    assert set(results) == set(jobs)
    assert counts == [(1, 2), (2, 2)]
    for _, _, brick in jobs:
        path = paths.file_path("coadd-checksums", "dr10", "south", brick=brick)
        made, kept = (
            # Tiles in gzip carry the time when they were made; these products have none.
            [
                line
                for line in (root / path).read_text().splitlines()
                # Those of WISE are not made here.
                if "-image-" in line and "-image-W" not in line
            ]
            for root in (tmp_path, sky_tree)
        )
        assert len(made) == 4
        assert made == kept


def work(root, *job):
    return {"job": job, "root": root}


def test_without_a_second_process_the_work_is_still_done(tmp_path, monkeypatch):
    monkeypatch.setattr(tree, "_end_with_parent", partial(os._exit, 1))
    monkeypatch.setattr(tree, "write_brick", work)
    jobs = [(str(number),) for number in range(6)]
    results = tree.write_bricks(tmp_path, jobs)
    assert set(results) == set(jobs)
    assert all(result["root"] == Path(tmp_path) for result in results.values())
