"""Processes that are forked while threads of their parent are at work: they live."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")

BEGIN = """
import fcntl, os, select, sys, threading, time
from astroquery_lis import LegacySurveyClass, _locks, conf
url, root, conf.cache_dir = sys.argv[1:]
survey = LegacySurveyClass()

def call(mirror, **options):
    products = ("image", "maskbits")
    options |= {"bands": "g", "products": products, "source": "bricks", "mirror": mirror}
    survey.get_cutout("45.1312 0.0047", 24, **options)
    survey.query_tractor("45.1312 0.0047", radius="3 arcsec", source="files", mirror=mirror)

def ending(work):
    "Return what a forked process says of its work."
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            os.write(write, b"well")
        except BaseException as error:
            os.write(write, repr(error).encode())
        os._exit(0)
    os.close(write)
    said = os.read(read, 500).decode() if select.select([read], [], [], 60)[0] else "nothing"
    os.kill(child, 9)
    os.waitpid(child, 0)
    os.close(read)
    return said
"""

STORM = """
over = threading.Event()

def spin(mirror, options):
    while not over.is_set():
        call(mirror, **options)

for number in range(4):
    mirror, options = [(root, {}), (url, {"cache": False})][number % 2]
    call(mirror, **options)
    threading.Thread(target=spin, args=(mirror, options), daemon=True).start()
print(*{ending(lambda: call([root, url][number % 2])) for number in range(16)})
over.set()
"""

HELD = """
import functools
from astropy.utils.decorators import classproperty, lazyproperty
from astropy.io import fits
from astroquery_lis.io import http
from astroquery_lis.io.mirrors import HEALTH
from astroquery_lis.survey.placement import Placement
call(url)
call(root)
locks = [_locks.decoding(type("", (), {"compression_type": "HCOMPRESS_1"})), HEALTH._lock]
locks += [http._clients_lock, http.shared_client(survey._client_options())._lock]
for cls in (*fits.CompImageHDU.__mro__, *fits.BinTableHDU.__mro__, Placement):
    for value in vars(cls).values():
        if isinstance(value, lazyproperty):
            locks.append(value._lock)
        elif isinstance(value, functools.cached_property) and hasattr(value, "lock"):
            locks.append(value.lock)
assert len(locks) > 3, locks
# A module that may not be imported, and one that has a class with an attribute of its own.
sys.modules["astropy_absent"] = None
sys.modules["astropy_other"] = type(sys)("astropy_other")
sys.modules["astropy_other"].Lazy = Lazy = type(
    "Lazy", (), {"number": classproperty(lambda cls: 7, lazy=True)}
)
locks.append(vars(Lazy)["number"]._lock)
held, over = threading.Event(), threading.Event()

def hold():
    for lock in locks:
        lock.__enter__()
    held.set()
    over.wait()
    for lock in locks:
        lock.__exit__(None, None, None)

threading.Thread(target=hold).start()
held.wait()
print(ending(lambda: (call(root), call(url), Lazy.number)))
over.set()
"""

FILES = """
from pathlib import Path
from astroquery_lis.io.download import download
from astroquery_lis.io.http import HttpClient
from astroquery_lis.io.whole_files import write_whole
from astroquery_lis.sandbox import tree
children = []

def fork(*_):
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    children.append(child)

def is_free(path):
    with open(path, "rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True

fetched = download(HttpClient(), f"{url}/dr10/survey-bricks.fits.gz", "bricks.fits.gz", check=fork)
with write_whole("written") as path:
    fork()
with tree.lock(Path("made")):
    fork()
print(is_free(fetched.path), is_free("written"), is_free(".made.lock"), len(children))
for child in children:
    os.kill(child, 9)
"""


def said(sky, folder, script):
    arguments = [sky.mirror_url, str(sky.root), str(folder / "cache")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BEGIN + script, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=folder,
    )
    assert not done.returncode, done.stderr
    return done.stdout.split()


def test_children_live_that_are_forked_while_threads_read_and_decode(sky, tmp_path):
    assert said(sky, tmp_path, STORM) == ["well"]


def test_children_live_whatever_lock_a_thread_holds(sky, tmp_path):
    assert said(sky, tmp_path, HELD) == ["well"]


def test_a_child_does_not_keep_the_files_of_its_parent_locked(sky, tmp_path):
    assert said(sky, tmp_path, FILES) == ["True", "True", "True", "3"]
