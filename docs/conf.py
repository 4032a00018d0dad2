"""Sphinx configuration."""

import importlib.metadata
import os
import sys
from pathlib import Path

# The checkout itself is documented, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent / "_ext"))

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
    "sphinx_copybutton",
    "sphinxcontrib.towncrier.ext",
    "pytest_doctestplus.sphinx.doctestplus",
    "benchmark_tables",
    "import_layers",
    "notebooks",
    "page_pictures",
    "survey_tables",
]

# What the next release brings is read from the fragments when the page is built.
towncrier_draft_autoversion_mode = "draft"
towncrier_draft_include_empty = False
towncrier_draft_working_directory = Path(__file__).parents[1]

# Links into other projects' documentation need their inventories from the network; a build without
# it has to be free of warnings too, so they are asked for only where they can be had.
if os.environ.get("DOCS_INTERSPHINX") == "1" or os.environ.get("READTHEDOCS") == "True":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "astropy": ("https://docs.astropy.org/en/stable", None),
        "astroquery": ("https://astroquery.readthedocs.io/en/stable", None),
        "matplotlib": ("https://matplotlib.org/stable", None),
        "photutils": ("https://photutils.readthedocs.io/en/stable", None),
    }

# A link of our own that leads nowhere is an error. Not ours are other projects' names, which
# resolve where there are inventories, and the classes that a public one is put together from.
nitpicky = True
elsewhere = (
    "astropy|astroquery|collections|concurrent|datetime|jwst|matplotlib|mocpy|numpy|pathlib|photutils"
    "|pyvo|reproject|stdatamodels|stpipe"
)
nitpick_ignore_regex = [
    ("py:.*", rf"({elsewhere})\..*"),
    ("py:.*", "True|False|None|fnmatch|bool|dict|float|int|list|str|tuple|type|jwst"),
    # Arguments and attributes that a docstring names as such.
    ("py:obj", "members|name|output_dir"),
    ("py:class", r"astroquery_lis\.(client|jwst_stage)\.\w+\.\w+(Methods|Base)"),
]

default_role = "obj"
exclude_patterns = ["_build", "_ext", "_templates"]
numpydoc_show_class_members = False
autodoc_typehints = "none"
automodapi_toctreedirnm = "api"

html_theme = "pydata_sphinx_theme"
html_title = "astroquery_lis"
html_static_path = ["_static"]
templates_path = ["_templates"]
html_css_files = ["pages.css"]
html_show_sourcelink = False
html_sidebars = {"gallery": []}
# The prompts of examples are not copied, nor is what they print.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme_options = {
    "header_links_before_dropdown": 6,
    "navbar_end": ["package-version", "theme-switcher"],
    "navigation_with_keys": False,
    "show_toc_level": 2,
}
