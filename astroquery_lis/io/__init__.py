"""How bytes move and long jobs run: HTTP, ranges, cache, mirrors, journal.  Knows no astronomy.

The client imports most modules of this room when it first needs them.
"""

from typing import TYPE_CHECKING

from .._packages import modules_of

if TYPE_CHECKING:
    from . import delivery, download, http, jobs, mirrors, places, store, whole_files

__all__ = ["delivery", "download", "http", "jobs", "mirrors", "places", "store", "whole_files"]

__getattr__ = modules_of(__name__)
