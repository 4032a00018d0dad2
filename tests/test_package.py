"""The package from outside: its surface, what importing it costs, its configuration."""

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from astroquery.query import BaseQuery

import astroquery_lis
from astroquery_lis import exceptions

OPTIONAL = (
    "jwst",
    "stdatamodels",
    "fsspec",
    "aiohttp",
    "reproject",
    "matplotlib",
    "PIL",
    "dask",
    "distributed",
    "pandas",
    "h5py",
    "mocpy",
    "pyarrow",
    "tqdm",
)

IMPORT = f"""
import socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("the network was used")

socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
import astroquery_lis
astroquery_lis.LegacySurvey
import astroquery_lis.jwst_stage
print(*[name for name in {OPTIONAL!r} if name in sys.modules])
"""


def test_importing_loads_no_optional_package_and_uses_no_network():
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == ""


DEFERRED = (
    "catalogs.catalog_table",
    "client.bulk",
    "client.user_tables",
    "images.reader",
    "io.delivery",
    "io.http",
    "io.places",
    "io.jobs",
    "io.mirrors",
    "pictures",
    "sandbox",
    "survey.catalog_request",
    "survey.layers",
    "survey.paths",
    "survey.placement",
    "survey.request",
    "survey.tractor_columns",
)


def test_the_class_brings_little_along_until_it_is_used():
    line = (
        "import sys, astroquery_lis; astroquery_lis.LegacySurvey;"
        f"print([name for name in {DEFERRED} if f'astroquery_lis.{{name}}' in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    assert all(find_spec(f"astroquery_lis.{name}") for name in DEFERRED)


def test_the_public_surface_is_what_it_says():
    assert astroquery_lis.__all__ == [
        "Conf",
        "LegacySurvey",
        "LegacySurveyClass",
        "__version__",
        "analysis",
        "bitmasks",
        "bricks",
        "conf",
        "exceptions",
        "jwst_stage",
        "photometry",
        "pictures",
        "sandbox",
        "tractor",
    ]
    for name in astroquery_lis.__all__:
        assert getattr(astroquery_lis, name) is not None
    public = {name for name in dir(astroquery_lis.LegacySurveyClass) if not name.startswith("_")}
    assert public == {
        "cache_info",
        "cache_location",
        "cite",
        "clear_cache",
        "covers",
        "crossmatch",
        "download_cutouts",
        "download_psfs",
        "get_brick_files",
        "get_cutout",
        "get_cutouts",
        "get_exposure_files",
        "get_image_list",
        "get_images",
        "get_moc",
        "get_psf",
        "get_picture",
        "iter_cutouts",
        "list_bands",
        "list_columns",
        "list_file_products",
        "list_layers",
        "list_mirrors",
        "list_products",
        "list_releases",
        "mirror",
        "query_bricks",
        "query_maps",
        "query_exposures",
        "query_object",
        "query_region",
        "query_tap",
        "query_tractor",
        "read_catalogue",
        "release",
        "reset_cache_location",
        "timeout",
        "verify",
        "verify_cache",
        "viewer_url",
    } | {name for name in dir(BaseQuery) if name[0] != "_"}


def _modules():
    for info in pkgutil.walk_packages(astroquery_lis.__path__, "astroquery_lis."):
        yield info.name


@pytest.mark.parametrize("name", list(_modules()))
def test_every_module_imports(name):
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public), public


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        ('{"dir_info": {}, "url": "file:///home/a%20user/clone"}', "'/home/a user/clone[plot]'"),
        ('{"dir_info": {"editable": true}, "url": "file:///clone"}', "-e '/clone[plot]'"),
        ('{"url": "https://example.org/package.whl"}', "'astroquery_lis[plot]'"),
        ("", "'astroquery_lis[plot]'"),
    ],
)
def test_an_extra_is_installed_from_where_the_package_came(tmp_path, origin, source):
    folder = tmp_path / "astroquery_lis-0.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: astroquery_lis\nVersion: 0.1\n")
    if origin:
        (folder / "direct_url.json").write_text(origin)
    # Left by a build in the clone where Python starts.
    stray = tmp_path / "clone" / "astroquery_lis.egg-info"
    stray.mkdir(parents=True)
    (stray / "PKG-INFO").write_text("Name: astroquery_lis\nVersion: 0.1\n")
    code = f"""
import sys
sys.path[:0] = {[str(stray.parent), str(tmp_path)]!r}
from astroquery_lis._packages import import_optional
try:
    import_optional("no_such_package.part", "plot", "A plot")
except ImportError as error:
    print(error)
"""
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    command = f"python -m pip install {source}"
    assert done.stdout == f"A plot needs no_such_package: {command}.\n"


def test_every_error_is_in_the_tree_and_documented():
    for name in exceptions.__all__:
        kind = getattr(exceptions, name)
        base = Warning if name.endswith("Warning") else exceptions.LegacySurveyError
        assert issubclass(kind, base)
        assert name in exceptions.__doc__
        assert kind.__doc__


def test_environment_sets_the_configuration_of_a_new_process():
    code = (
        "from astroquery_lis import LegacySurvey as survey;"
        "print(survey.mirror, survey.cache_location, survey.release)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "ASTROQUERY_LIS_MIRROR": "nadc",
            "ASTROQUERY_LIS_CACHE_DIR": "/tmp/somewhere",
            "ASTROQUERY_LIS_RELEASE": "dr9",
        },
    )
    assert run.stdout.split() == ["nadc", "/tmp/somewhere", "dr9"]


def test_no_function_of_planning_returns_any():
    folder = Path(astroquery_lis.__file__).parent / "jwst_stage" / "planning"
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                names = {n.id for n in ast.walk(node.returns) if isinstance(n, ast.Name)}
                assert "Any" not in names, f"{path.name}: {node.name}"
