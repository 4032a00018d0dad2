"""How bytes move and long jobs run: HTTP, ranges, cache, mirrors, journal.  Knows no astronomy.

The client imports most modules of this room when it first needs them.
"""

from typing import TYPE_CHECKING

from .._rooms import modules_of

if TYPE_CHECKING:
    from . import checks, checksums, delivery, download, finder, jobs, places, store, upkeep

__all__ = [
    "checks",
    "checksums",
    "delivery",
    "download",
    "finder",
    "jobs",
    "places",
    "store",
    "upkeep",
]

__getattr__ = modules_of(__name__)
