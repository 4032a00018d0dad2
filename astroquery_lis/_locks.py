"""Locks: those that a forked process finds open, and those that decoders need.

In a forked process the threads that held a lock are not there to let it go.

The C code behind astropy's tile-compressed images keeps state of its own in two places and releases
the interpreter's lock meanwhile, so that threads get wrong pixels without an error (seen with
astropy 8.0):

- HCOMPRESS (nexp and the masks) codes and decodes through static variables: one at a time;
- the table of random numbers for dithered floats is made when it is first needed, without a lock:
  it is made beforehand here.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from itertools import chain
from types import ModuleType
from weakref import WeakSet

import numpy as np
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


_hcompress = new_lock()
_dithers = new_lock()
_has_dithers = False


def decoding(hdu: object) -> AbstractContextManager[object]:
    """Return what to code or decode the pixels of an HDU in, so that other threads may too."""
    codec = getattr(hdu, "compression_type", "")
    if codec.startswith("HCOMPRESS"):
        return _hcompress
    if codec and not _has_dithers:
        make_dithers()
    return nullcontext()


def make_dithers() -> None:
    """Have the decoder make its table of random numbers, in one thread."""
    global _has_dithers
    from astropy.io import fits  # most processes that lock something decode nothing

    with _dithers:
        if not _has_dithers:
            # Too few pixels, or too little noise, would be kept without quantisation.
            noise = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
            stream = io.BytesIO()
            image = fits.CompImageHDU(
                noise,
                compression_type="RICE_1",
                tile_shape=(32, 32),
                quantize_method=2,
                quantize_level=-0.01,
                dither_seed=1,
            )
            fits.HDUList([fits.PrimaryHDU(), image]).writeto(stream)
            stream.seek(0)
            with fits.open(stream) as hdul:
                hdul[1].section[:, :]
            _has_dithers = True
