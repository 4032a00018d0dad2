"""Rooms whose modules are imported when they are first used."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType


def modules_of(room: str) -> Callable[[str], ModuleType]:
    """Return the ``__getattr__`` of a room."""

    def module(name: str) -> ModuleType:
        full_name = f"{room}.{name}"
        try:
            return import_module(full_name)
        except ModuleNotFoundError as error:
            if error.name != full_name:
                raise
            msg = f"module {room!r} has no attribute {name!r}"
            raise AttributeError(msg) from None

    return module
