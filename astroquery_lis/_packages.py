"""Packages: the version and the rooms of this one, whose modules come late; optional ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distributions, version
from sys import modules
from types import ModuleType
from urllib.parse import unquote, urlsplit

from .exceptions import OptionalDependencyError


@cache
def package_version() -> str:
    """Return the version of this package, ``'unknown'`` where it is not installed."""
    try:
        return version("astroquery_lis")
    except PackageNotFoundError:
        return "unknown"


def how_to_install(extra: str) -> str:
    """Return the command that installs an extra, from where the package itself came from."""
    # In a clone an egg-info that a build left comes before what is installed, and tells no origin.
    packages = distributions(name="astroquery_lis")
    installed = (package for package in packages if package.read_text("METADATA"))
    origins = (package.read_text("direct_url.json") for package in installed)
    origin = json.loads(next(origins, None) or "{}")
    url = urlsplit(origin.get("url", ""))
    source = unquote(url.path) if url.scheme == "file" else "astroquery_lis"
    option = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return f"python -m pip install {option}'{source}[{extra}]'"


def import_optional(name: str, extra: str, purpose: str) -> ModuleType:
    """Return a module of an extra; the error says what needs it and how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        msg = f"{purpose} needs {package}: {how_to_install(extra)}."
        raise OptionalDependencyError(msg, cause=error) from error


def modules_of(room: str) -> Callable[[str], ModuleType]:
    """Return the ``__getattr__`` of a room."""

    def module(name: str) -> ModuleType:
        full_name = f"{room}.{name}"
        msg = f"module {room!r} has no attribute {name!r}"
        # Python and its tools ask for many of these, and a search of the disk takes its time.
        if name.startswith("__"):
            raise AttributeError(msg, name=name, obj=modules[room])
        try:
            return import_module(full_name)
        except ModuleNotFoundError as error:
            if error.name != full_name:
                raise
            raise AttributeError(msg, name=name, obj=modules[room]) from None

    return module
