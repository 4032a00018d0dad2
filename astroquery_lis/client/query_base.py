"""What may be set on an instance of any of the query classes."""

from pathlib import Path

import numpy as np
from astroquery.query import BaseQuery

from .._conf import setting
from ..exceptions import InvalidRequestError

__all__ = ["QueryBase"]


class QueryBase(BaseQuery):
    """How long to wait for a service, and where the cache is."""

    def __init__(self):
        super().__init__()
        self._timeout = None

    @property
    def timeout(self):
        """Seconds without an answer before a request is given up; ``conf.timeout`` unless set."""
        return setting("timeout", self._timeout)

    @timeout.setter
    def timeout(self, value):
        if value is not None and not (isinstance(value, (int, float)) and 0 < value < np.inf):
            msg = f"timeout={value!r} must be a positive number of seconds."
            raise InvalidRequestError(msg, parameter="timeout", value=value)
        self._timeout = None if value is None else float(value)

    @property
    def cache_location(self):
        """Folder of the cache: the one that was set, else ``conf.cache_dir``, else astroquery's."""
        chosen = setting("cache_dir", self._cache_location) or None
        if chosen is None:
            return super().cache_location
        return Path(chosen).expanduser()

    @cache_location.setter
    def cache_location(self, location):
        self._cache_location = Path(location)
