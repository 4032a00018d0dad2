"""Rooms whose modules are imported when they are first used."""

from collections.abc import Callable
from importlib import import_module
from sys import modules
from types import ModuleType


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
