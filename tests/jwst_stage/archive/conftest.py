"""An archive of a few files, served, and the class that asks it."""

import pytest
from astroquery import mast

from astroquery_lis.jwst_stage.archive_methods import ArchiveMethods
from astroquery_lis.sandbox.mast import serve_mast

from .archive_files import write_association, write_uncal

DETECTORS = ("nrca1", "nrca2", "nrca3", "nrcalong")
# From some 60 kB to some 2.6 MB: less than a block, and several of them.
GROUPS = (2, 40, 150, 300)


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
    return ArchiveMethods()


@pytest.fixture
def table(stage, sky):
    table = stage.query_uncal(program=1234, associations=True)
    sky.requests.clear()
    return table


@pytest.fixture
def public(table):
    return table[table["public"]]
