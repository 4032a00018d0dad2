"""What the documentation names is there, and what is there is named in the documentation."""

import ast
import inspect
import re
import textwrap
from pathlib import Path

import pytest
from astroquery.query import BaseQuery

from astroquery_lis import LegacySurvey, LegacySurveyClass, conf

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.rst") if not {"api", "_build"} & {*path.parts})
PLACE = 'SkyCoord(190.1086, 1.2005, unit="deg")'
"""Where the examples of the first pages look; the simulated sky is somewhere else."""

OTHERS = {"get_cutouts": "get_cutout", "get_images": "get_cutout", "get_image_list": "get_cutout"}
OTHERS |= {"query_region": "query_tractor", "query_object": "query_tractor"}
"""Methods that hand their keywords on, and to which."""


def _blocks(path, language):
    """Return the text of the code blocks of a page of reStructuredText or Markdown."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.M | re.S)
    found = re.findall(rf"^\.\. code-block:: {language}\n\n((?:   .*\n|\n)+)", text, flags=re.M)
    return [textwrap.dedent(block) for block in found]


PYTHON = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}-{number}")
    for path in [ROOT / "README.md", *PAGES]
    for number, block in enumerate(_blocks(path, "python"))
    # A signature, whose star no call has.
    if not re.search(r"\*,|\.\.\.", block)
]


@pytest.mark.parametrize("block", PYTHON)
def test_a_block_of_python_uses_what_is_there(block):
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("astroquery_lis"):
            names = [alias.name for alias in node.names]
            module = __import__(node.module, fromlist=names)
            assert all(hasattr(module, name) for name in names)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "LegacySurvey":
            assert hasattr(LegacySurvey, node.attr)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "conf":
            assert hasattr(conf, node.attr)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("LegacySurvey."):
            name = OTHERS.get(node.func.attr, node.func.attr)
            known = inspect.signature(getattr(LegacySurvey, name)).parameters
            assert {keyword.arg for keyword in node.keywords} <= {*known}


def test_there_are_blocks_to_check():
    assert len(PYTHON) > 25


@pytest.mark.parametrize("page", ["README.md", "docs/index.rst"])
def test_the_first_lines_that_a_user_sees_run(page, served_sky, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    from astroquery_lis import sandbox

    monkeypatch.chdir(tmp_path)
    code = _blocks(ROOT / page, "python")[0]
    assert PLACE in code
    with sandbox.serve() as sky:
        names = {"here": sky.positions["field"]}
        exec(code.replace(PLACE, "here"), names)
    assert (tmp_path / "target.png").stat().st_size > 10_000
    assert len(names["sources"]) > 1
    printed = capsys.readouterr().out.split()
    if page == "README.md":
        assert printed == _blocks(ROOT / page, "text")[0].split()


SETTINGS = {"mirror", "release", "timeout"}
METHODS = [
    name for name in dir(LegacySurveyClass) if name[0] != "_" and not hasattr(BaseQuery, name)
]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_on_a_page(name):
    used = rf"\b{name}\b"
    assert any(re.search(used, page.read_text(encoding="utf-8")) for page in PAGES)
    reference = (ROOT / "docs" / "reference.rst").read_text(encoding="utf-8")
    assert f"`~LegacySurveyClass.{name}`" in reference or name in SETTINGS


def test_the_map_of_the_rooms_has_every_room():
    text = (ROOT / "docs" / "contributing.rst").read_text(encoding="utf-8")
    package = ROOT / "astroquery_lis"
    rooms = [path.parent.name for path in package.glob("*/__init__.py")]
    assert len(rooms) > 6
    for room in rooms:
        assert f"``{room}/``" in text


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(DOCS)) for page in PAGES])
def test_lines_of_python_fit_a_laptop(page):
    statements = re.findall(r"^ *>>> .*(?:\n *\.\.\. .*)*", page.read_text(), re.M)
    lines = [line.partition("  # doctest:")[0] for text in statements for line in text.split("\n")]
    assert [line for line in lines if len(line.strip()) > 88] == []
