"""One simulated observation, and one run of the real chain over it, for all tests that look on."""

import hashlib
import select
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from astroquery_lis import conf
from astroquery_lis.jwst_stage import JwstStageClass
from astroquery_lis.jwst_stage.crds_cache import CrdsEnvironment
from astroquery_lis.jwst_stage.tasks import Reduction

from .headers import write_exposure


@dataclass(frozen=True)
class Chain:
    """A finished run: what it began from, what it was told, and what it left."""

    observation: object
    plan: object
    resolution: object
    output_dir: Path
    manifest: object
    inputs_before: dict

    def product(self, ending):
        """Return the products of the run whose names end so, sorted."""
        found = sorted(self.output_dir.glob(f"stage?/*{ending}"))
        assert found, ending
        return found


def digests(paths):
    return {Path(path).name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths}


def await_(condition):
    """Wait for what will come, and return it; the test's time-out ends it otherwise."""
    while not (found := condition()):
        select.select([], [], [], 0.01)
    return found


@pytest.fixture(scope="session")
def stage_cache(tmp_path_factory):
    """A cache for what is asked of the installed pipeline, which takes seconds each time."""
    return str(tmp_path_factory.mktemp("stage-cache"))


@pytest.fixture(scope="session")
def observation():
    """Four dithers of 128 pixels in F356W, with pointing errors, cosmic rays and hot pixels."""
    pytest.importorskip("jwst")
    from astroquery_lis.sandbox.jwst import simulate

    return simulate()


@pytest.fixture(scope="session")
def crds(observation):
    """Where the reference files of the observation are."""
    return CrdsEnvironment(str(observation.crds_path), observation.crds_context)


@pytest.fixture(scope="session")
def planned(crds, stage_cache):
    """A function that makes a plan, finds its references, and returns both."""
    from astroquery_lis.jwst_stage.planning.make_plan import make_plan
    from astroquery_lis.jwst_stage.references import resolve

    def make(files, environment=crds, **options):
        with conf.set_temp("cache_dir", stage_cache):
            plan = make_plan(files, **options)
            return plan, resolve(plan, environment, offline=True)

    return make


@pytest.fixture(scope="session")
def chain(observation, planned, tmp_path_factory):
    """The real chain, run once; a test that changes its files takes `chain_copy`."""
    from astroquery_lis.jwst_stage.running.run import run

    output_dir = tmp_path_factory.mktemp("chain") / "reduced"
    before = digests(observation.uncals)
    plan, resolution = planned(observation.uncals, output_dir=output_dir)
    manifest = run(Reduction(plan, output_dir, resolution), show_progress=False)
    return Chain(observation, plan, resolution, output_dir, manifest, before)


@pytest.fixture
def chain_copy(chain, tmp_path):
    """A copy of the finished run's output directory."""
    return shutil.copytree(chain.output_dir, tmp_path / "reduced")


@pytest.fixture
def stage(chain, stage_cache):
    """A stage with the references of the finished run."""
    with conf.set_temp("cache_dir", stage_cache):
        stage = JwstStageClass()
        stage.crds_path = chain.observation.crds_path
        stage.crds_context = chain.observation.crds_context
        yield stage


@pytest.fixture
def plan_of(tmp_path):
    """A function that plans the files of the folder ``in``."""

    from astroquery_lis.jwst_stage.planning.make_plan import make_plan

    def make(files=tmp_path / "in", **options):
        options.setdefault("output_dir", tmp_path / "out")
        options.setdefault("check_associations", False)
        return make_plan(files, **options)

    return make


@pytest.fixture
def dithers(tmp_path):
    for number in (1, 2, 3, 4):
        write_exposure(tmp_path / "in", number)
    return tmp_path / "in"
