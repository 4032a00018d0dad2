"""A `requests.Session` with the manners of `~.session.HttpClient`, for libraries that want one."""

import requests
from requests.adapters import HTTPAdapter

from .http import BACKOFF_MAX_S, BACKOFF_S, CONNECT_TIMEOUT_S, _PoliteRetry

__all__ = ["PoliteSession"]

# The service said that it did nothing, so that a POST may be repeated too.
RETRY_STATUS = frozenset({429, 503})


class PoliteSession(requests.Session):
    """A session in which no request can hang, and refused ones are repeated politely.

    For the few requests of one task; close it afterwards.

    Parameters
    ----------
    timeout_s : float, optional
        Seconds without a byte before a request is given up; the longest that any caller gets.
    retries : int, optional
        How often a request is repeated after a 429, a 503 or a refused connection.
    max_connections : int, optional
        Connections to one host.
    max_retry_after_s : float, optional
        Longest Retry-After that is waited for, seconds.
    user_agent : str, optional
        Sent with every request.
    """

    def __init__(
        self,
        *,
        timeout_s=60.0,
        retries=3,
        max_connections=12,
        max_retry_after_s=60.0,
        user_agent="astroquery_lis",
    ):
        super().__init__()
        self._answers = []
        self.timeout_s = timeout_s
        self.headers["User-Agent"] = user_agent
        retry = _PoliteRetry(
            total=retries,
            read=0,
            redirect=5,
            backoff_factor=BACKOFF_S,
            backoff_max=BACKOFF_MAX_S,
            backoff_jitter=BACKOFF_S,
            status_forcelist=RETRY_STATUS,
            allowed_methods=None,
            respect_retry_after_header=True,
            raise_on_status=False,
            max_wait_s=max_retry_after_s,
        )
        adapter = HTTPAdapter(pool_maxsize=max_connections, max_retries=retry)
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def request(self, method, url, **kwargs):
        """Make a request, as `requests.Session.request` does, but never without a time-out."""
        given = kwargs.get("timeout")
        limit = self.timeout_s
        if isinstance(given, (int, float)):
            limit = min(given, limit)
        kwargs["timeout"] = (min(CONNECT_TIMEOUT_S, limit), limit)
        answer = super().request(method, url, **kwargs)
        self._answers.append(answer)
        return answer

    def close(self):
        """Close every connection, also those of answers that nobody read to the end."""
        while self._answers:
            self._answers.pop().close()
        super().close()
