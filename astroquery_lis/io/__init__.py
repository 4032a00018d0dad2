"""How bytes move and long jobs run: HTTP, ranges, cache, journal.  Knows no astronomy."""

from .executors import map_jobs, settings_in_force
from .journal import Journal
from .results import STATUSES, Result, failure, manifest, portable
from .runs import run

__all__ = [
    "STATUSES",
    "Journal",
    "Result",
    "failure",
    "manifest",
    "map_jobs",
    "portable",
    "run",
    "settings_in_force",
]
