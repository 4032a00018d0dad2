"""Installed packages: the version of this one, and those that are optional."""

from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from .exceptions import OptionalDependencyError


@cache
def package_version() -> str:
    """Return the version of this package, ``'unknown'`` where it is not installed."""
    try:
        return version("astroquery_lis")
    except PackageNotFoundError:
        return "unknown"


def import_optional(name: str, extra: str, purpose: str) -> ModuleType:
    """Return a module of an extra; the error says what needs it and how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        msg = f"{purpose} needs {package}: pip install 'astroquery_lis[{extra}]'."
        raise OptionalDependencyError(msg, cause=error) from error
