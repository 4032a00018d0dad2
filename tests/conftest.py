"""What the tests share: nobody's own configuration, and the embedded sky."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from astropy.coordinates import name_resolve
from hypothesis import settings

from astroquery_lis import LegacySurvey, LegacySurveyClass, conf, sandbox
from astroquery_lis.io.mirrors import HEALTH
from astroquery_lis.survey.paths import file_path

# The same examples every time, however busy the machine; `--hypothesis-profile=default` looks for
# new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")

# Started by nohup or in the background, this process ignores Ctrl-C, and so would every process
# that a test begins and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give the quick tests of the reduction to one worker: what they look at is made once."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "reduction" if file.startswith("tests/jwst_stage/test_") else file

    is_quick = "not slow" in config.option.markexpr and config.option.dist == "loadfile"
    return Scheduling(config, log) if is_quick else None


def pytest_collection_finish(session):
    """Make the whole sky before a long run: whichever test needs all of it first waits for it."""
    if len(session.items) > 1000 and not session.config.option.collectonly:
        sandbox.build()


@pytest.fixture(scope="session")
def _caches(tmp_path_factory):
    """A folder of their own for caches: pytest looks through all folders to number the next."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def _pristine(_caches):
    """Keep every test away from the user's cache and from another test's settings."""
    cache = tempfile.mkdtemp(dir=_caches)
    HEALTH.reset()
    with conf.set_temp("cache_dir", cache), conf.set_temp("retries", 1):
        yield
    LegacySurvey.release = LegacySurvey.mirror = LegacySurvey.timeout = None


@pytest.fixture(scope="session")
def served_sky():
    """One server for the whole run, for its files and its truth; never for counting requests."""
    with sandbox.serve(configure=False) as sky:
        yield sky


@pytest.fixture
def sky():
    """The embedded sky on a port of its own, which no thread of an earlier test can ask."""
    with sandbox.serve(configure=False) as sky:
        yield sky


@pytest.fixture
def survey(sky):
    """A `LegacySurveyClass` that reads the embedded sky."""
    survey = LegacySurveyClass()
    survey.mirror = sky.mirror_url
    return survey


@pytest.fixture
def no_retries():
    """Ask once: what does not answer is not waited for again."""
    with conf.set_temp("retries", 0):
        yield


@pytest.fixture
def local(sky, survey):
    """The same, which reads the files without a server."""
    survey.mirror = sky.root
    return survey


@pytest.fixture
def viewer(sky):
    """The viewer of the embedded sky, configured."""
    with conf.set_temp("viewer_url", sky.viewer_url):
        yield


@pytest.fixture
def names_of_the_sky(sky):
    """Nothing but the places of the simulated sky has a name here."""
    with name_resolve.sesame_url.set([sky.sesame_url]):
        yield


@pytest.fixture
def other():
    """Another server of the same sky."""
    with sandbox.serve(configure=False) as sky:
        yield sky


@pytest.fixture
def copied_tree(sky, tmp_path):
    """A small tree of our own, which a test may change: one brick's folder."""
    folder = (sky.root / file_path("nexp", "dr10", "south", brick="0451p000", band="g")).parent
    target = tmp_path / "tree" / folder.relative_to(sky.root)
    target.mkdir(parents=True)
    for path in folder.iterdir():
        if "nexp" in path.name or "maskbits" in path.name or path.suffix == ".sha256sum":
            shutil.copy2(path, target)
    return tmp_path / "tree"


@pytest.fixture(scope="session")
def real_data():
    """The root of the released brick, where the machine has it."""
    root = os.environ.get("ASTROQUERY_LIS_REAL_DATA")
    if not root or not (Path(root) / "dr6").is_dir():
        pytest.skip("ASTROQUERY_LIS_REAL_DATA is not set")
    return Path(root).resolve()
