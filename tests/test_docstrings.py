"""Every public name says what it takes, what it returns, what it raises, and shows it."""

import importlib
import inspect
import re

import pytest

PUBLIC = (
    "astroquery_lis",
    "astroquery_lis.exceptions",
    "astroquery_lis.images.analysis",
    "astroquery_lis.pictures",
    "astroquery_lis.images.psf",
    "astroquery_lis.sandbox",
    "astroquery_lis.sandbox.faults",
    "astroquery_lis.survey.bitmasks",
    "astroquery_lis.survey.bricks",
    "astroquery_lis.client.about",
    "astroquery_lis.survey.layers",
    "astroquery_lis.survey.photometry",
    "astroquery_lis.survey.releases",
    "astroquery_lis.survey.tractor",
)
"""The modules of docs/reference.rst, docs/photometry.rst and docs/citing.rst."""

INNER = {"astroquery_lis.sandbox.build"}
"""In ``__all__`` for other rooms; `serve` is what makes the sky for everybody else."""

NETWORK = {
    "covers",
    "crossmatch",
    "download_cutouts",
    "download_psfs",
    "get_brick_files",
    "get_cutout",
    "get_cutouts",
    "get_exposure_files",
    "get_moc",
    "get_picture",
    "get_psf",
    "iter_cutouts",
    "query_bricks",
    "query_maps",
    "query_exposures",
    "query_tap",
    "query_tractor",
    "verify",
}
"""Methods that ask a service: what can go wrong has to be said."""


def _objects():
    """Yield the dotted name and the object of everything public, methods included."""
    for module in PUBLIC:
        for name in importlib.import_module(module).__all__:
            found = getattr(importlib.import_module(module), name)
            full = f"{module}.{name}"
            # An instance is documented by its class; numbers and tables have no docstring.
            if full in INNER or not (inspect.isclass(found) or inspect.isfunction(found)):
                continue
            yield full, found
            if inspect.isclass(found):
                yield from _members(full, found)


def _members(full, kind):
    for name in dir(kind):
        owner = next(base for base in kind.__mro__ if name in vars(base))
        member = inspect.getattr_static(kind, name)
        ours = owner.__module__.startswith("astroquery_lis")
        if ours and name[0] != "_" and (inspect.isfunction(member) or type(member) is property):
            yield f"{full}.{name}", member


OBJECTS = dict(_objects())
CALLABLES = {name: found for name, found in OBJECTS.items() if inspect.isfunction(found)}
CLASSES = {name: found for name, found in OBJECTS.items() if inspect.isclass(found)}


def _sections(found):
    """Return the text of every section of a docstring, the first of all under ''."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.getdoc(found) or "", flags=re.M)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def _described(section):
    """Return the names that a section of parameters or attributes describes."""
    heads = re.findall(r"^(\S[^:\n]*?)(?: : .*)?$", section, flags=re.M)
    return {name.strip(" *\\") for head in heads for name in head.split(",")}


def _is_record(kind):
    return hasattr(kind, "__dataclass_fields__") or hasattr(kind, "_fields")


def test_there_is_something_to_check():
    assert len(CALLABLES) > 80
    assert "astroquery_lis.LegacySurveyClass.get_cutout" in CALLABLES
    assert "astroquery_lis.LegacySurveyClass.cite" in CALLABLES


@pytest.mark.parametrize("name", OBJECTS)
def test_it_begins_with_one_sentence(name):
    found = OBJECTS[name]
    summary = _sections(found)[""].split("\n\n")[0].strip()
    assert summary, "no docstring"
    assert summary.endswith((".", ":"))
    assert "----" not in summary


@pytest.mark.parametrize("name", CALLABLES)
def test_every_argument_is_described_and_no_other(name):
    section = _sections(CALLABLES[name]).get("Parameters", "")
    arguments = set(inspect.signature(CALLABLES[name]).parameters) - {"self", "cls"}
    assert _described(section) == arguments
    # A type, or a pointer to where the same arguments are described.
    for line, below in re.findall(r"^(\S.*)\n +(.*)$", section, flags=re.M):
        assert " : " in line or below.startswith("As for")


@pytest.mark.parametrize("name", CALLABLES)
def test_what_it_returns_is_described(name):
    source = inspect.getsource(CALLABLES[name])
    gives = re.search(r"^ +(return [^\n]|yield)", source, flags=re.M)
    sections = _sections(CALLABLES[name])
    if gives:
        assert {"Returns", "Yields"} & set(sections)


@pytest.mark.parametrize("name", CALLABLES)
def test_it_is_shown(name):
    assert ">>> " in _sections(CALLABLES[name]).get("Examples", "")


@pytest.mark.parametrize("name", CALLABLES)
def test_what_it_raises_is_described(name):
    if name.rpartition(".")[2] in NETWORK or re.search(
        r"^ +raise \w*Error\(", inspect.getsource(CALLABLES[name]), flags=re.M
    ):
        assert "Raises" in _sections(CALLABLES[name])


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_describes_what_it_holds_and_is_shown(name):
    kind, sections = CLASSES[name], _sections(CLASSES[name])
    if issubclass(kind, BaseException):
        # The base has the arguments and an example; a kind that takes more says so.
        if "__init__" in vars(kind):
            taken = set(inspect.signature(kind.__init__).parameters) - {"self"}
            assert _described(sections["Parameters"]) == taken
        return
    if _is_record(kind):
        fields = getattr(kind, "__dataclass_fields__", None) or kind._fields
        assert set(fields) <= _described(sections["Attributes"])
    assert ">>> " in sections.get("Examples", "")
