"""Locks in a forked process: the threads that held them are not there to let them go."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from types import ModuleType
from weakref import WeakSet

from astropy.utils.decorators import classproperty, lazyproperty

_locks: WeakSet[threading.Lock] = WeakSet()


def new_lock() -> threading.Lock:
    """Return a lock that a forked process finds open."""
    lock = threading.Lock()
    _locks.add(lock)
    return lock


def _property_locks() -> Iterator[object]:
    """Yield the locks of attributes that are computed once, ours and astropy's."""
    named = [m for name, m in sys.modules.items() if name.startswith("astro")]
    # What is None there may not be imported, and some put other objects there.
    modules = [module for module in named if isinstance(module, ModuleType)]
    classes = {c for module in modules for c in vars(module).values() if isinstance(c, type)}
    for attribute in (value for cls in classes for value in vars(cls).values()):
        if isinstance(attribute, (lazyproperty, classproperty)):
            # A class's has one only if it is lazy.
            yield getattr(attribute, "_lock", None)
        elif isinstance(attribute, cached_property):
            # From Python 3.12 on it has none.
            yield getattr(attribute, "lock", None)


def _open_all() -> None:
    for lock in chain(_locks, _property_locks()):
        reset = getattr(lock, "_at_fork_reinit", None)  # as threading itself does with its own
        if reset is not None:
            reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_all)
