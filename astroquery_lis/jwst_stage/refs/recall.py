"""What CRDS and stpipe answered, kept until something that they read changes.

Starting the pipeline takes seconds; the same plan with the same mappings and the same parameter
files has the same answers.
"""

import hashlib
import json
import os
from contextlib import suppress
from importlib.metadata import version

from ...io.store import write_bytes
from ..resume.records import cache_folder
from .mappings import mapping_path

__all__ = ["Recall"]

_KEPT = 32
_PACKAGES = ("jwst", "stpipe", "stcal", "stdatamodels", "crds")


class Recall:
    """The answers to one set of questions.

    Parameters
    ----------
    environment : CrdsEnvironment
        Cache and context.
    mappings : sequence of str
        Names of the mappings that decide.
    groups : dict of str to dict
        The questions.
    """

    def __init__(self, environment, mappings, groups):
        said = {
            "cache": environment.path,
            "context": environment.context,
            "groups": sorted(groups),
            "mappings": [_stamp(mapping_path(environment.path, name)) for name in mappings],
            "packages": [version(package) for package in _PACKAGES],
            "variables": sorted(
                item for item in os.environ.items() if item[0].startswith(("CRDS_", "STPIPE_"))
            ),
        }
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        self._folder = cache_folder() / "answers"
        self._path = self._folder / f"{digest}.json"

    def get(self):
        """Return the answers of an earlier time.

        Returns
        -------
        dict or None
            `None` if there are none, or a file that they depend on has changed.
        """
        try:
            kept = json.loads(self._path.read_text())
            holds = all(_stamp(path) == stamp for path, stamp in kept["files"].items())
        except (OSError, ValueError, KeyError):
            return None
        if not holds:
            return None
        with suppress(OSError):
            os.utime(self._path)
        return kept["answers"]

    def put(self, answers):
        """Keep answers, if they are complete.

        Parameters
        ----------
        answers : dict
            By group, as `~.answers.resolve` returns them.
        """
        if any(answer["missing"] or answer["errors"] for answer in answers.values()):
            return
        read = {
            entry["path"]
            for answer in answers.values()
            for entry in answer["pars"].values()
            if entry["path"]
        }
        kept = {"answers": answers, "files": {path: _stamp(path) for path in sorted(read)}}
        try:
            write_bytes(self._path, json.dumps(kept).encode())
            newest = sorted(self._folder.glob("*.json"), key=os.path.getmtime, reverse=True)
            for path in newest[_KEPT:]:
                path.unlink(missing_ok=True)
        except OSError:
            # They can be asked for again.
            return


def _stamp(path):
    status = os.stat(path)
    return [os.fspath(path), status.st_size, status.st_mtime_ns]
