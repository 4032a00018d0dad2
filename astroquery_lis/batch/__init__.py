"""Long jobs: work spread over any executor, a journal that survives a kill, a manifest.

A job does some rows and returns a `Result` for each.  `run` hands jobs to an executor, a bounded
number at a time, writes every result to a `Journal` and yields it; `manifest` makes the table.
The same call on the same journal does what is left.  Nothing here knows astronomy.
"""

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
