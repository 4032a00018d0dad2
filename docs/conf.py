"""Sphinx configuration."""

import importlib.metadata
import os
import sys
from pathlib import Path

# The checkout itself is documented, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

project = "astroquery_lis"
author = "The astroquery_lis developers"
project_copyright = f"2026, {author}"
try:
    release = importlib.metadata.version("astroquery_lis")
except importlib.metadata.PackageNotFoundError:
    release = "unknown"
version = release.split("+")[0]

extensions = [
    "numpydoc",
    "sphinx_automodapi.automodapi",
    "pytest_doctestplus.sphinx.doctestplus",
]

# Links into other projects' documentation need their inventories from the network; a build without
# it has to be free of warnings too, so they are asked for only where they can be had.
if os.environ.get("DOCS_INTERSPHINX") == "1" or os.environ.get("READTHEDOCS") == "True":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "astropy": ("https://docs.astropy.org/en/stable", None),
        "astroquery": ("https://astroquery.readthedocs.io/en/stable", None),
    }

default_role = "obj"
exclude_patterns = ["_build"]
numpydoc_show_class_members = False
automodapi_toctreedirnm = "api"

html_theme = "pydata_sphinx_theme"
html_title = f"astroquery_lis {version}"
html_static_path = ["_static"]
html_show_sourcelink = False
html_theme_options = {
    "github_url": "https://github.com/astroquery-lis/astroquery_lis",
    "navigation_with_keys": False,
    "show_toc_level": 2,
}
