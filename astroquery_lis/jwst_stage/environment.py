"""Where the reference files are, and which set of them: the variables that CRDS reads."""

import os
from dataclasses import dataclass
from pathlib import Path

from .._conf import setting

__all__ = ["CrdsEnvironment", "crds_environment"]


@dataclass(frozen=True, slots=True)
class CrdsEnvironment:
    """The place and the state of the reference files of a run.

    Attributes
    ----------
    path : str
        Directory of the CRDS cache.
    context : str
        Name of the context (``jwst_1322.pmap``); empty for the server's newest, or the cache's.
    server_url : str
        Address of the CRDS server; empty for none: only the cache is used.
    """

    path: str
    context: str = ""
    server_url: str = ""

    def variables(self, *, readonly=False):
        """Return the environment variables for a process that uses CRDS.

        Parameters
        ----------
        readonly : bool, optional
            Whether the process may not write to the cache; `False` by default.

        Returns
        -------
        dict of str to (str or None)
            `None` means that the variable has to be removed.
        """
        return {
            "CRDS_PATH": self.path,
            "CRDS_CONTEXT": self.context or None,
            "CRDS_SERVER_URL": self.server_url or None,
            "CRDS_READONLY_CACHE": "1" if readonly else None,
        }


def crds_environment(*, path=None, context=None, server_url=None, offline=False):
    """Return the CRDS environment in force: arguments, then ``conf``, then CRDS's own variables.

    Parameters
    ----------
    path : path-like, optional
        Directory of the cache.  By default ``conf.crds_path``, ``$CRDS_PATH``, ``~/crds_cache``.
    context : str, optional
        Name of the context.  By default ``conf.crds_context``, ``$CRDS_CONTEXT``; empty: newest.
    server_url : str, optional
        Address of the server.  By default ``conf.crds_server_url``, ``$CRDS_SERVER_URL``.
    offline : bool, optional
        Whether no server may be asked; `False` by default.

    Returns
    -------
    CrdsEnvironment
    """

    def value(given, item, variable, default=""):
        return str(given or setting(item) or os.environ.get(variable) or default)

    path = value(path, "crds_path", "CRDS_PATH", "~/crds_cache")
    server = value(server_url, "crds_server_url", "CRDS_SERVER_URL")
    return CrdsEnvironment(
        path=str(Path(path).expanduser().absolute()),
        context=value(context, "crds_context", "CRDS_CONTEXT"),
        server_url="" if offline else server,
    )
