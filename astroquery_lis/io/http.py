"""One pooled HTTP client for everything that is fetched by file.

urllib3 rather than requests: a 45 kB range costs it a third of the CPU, and a cutout is some
twenty of them.  Every lower error leaves here as one of `astroquery_lis.exceptions`.
"""

import http.client
import os
import threading
from contextlib import contextmanager
from urllib.request import getproxies, proxy_bypass

import certifi
import urllib3
from urllib3.exceptions import (
    HTTPError,
    IncompleteRead,
    LocationValueError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    TimeoutError,
)
from urllib3.util import Retry, Timeout, parse_url

from ..exceptions import (
    LegacySurveyError,
    NotFoundError,
    RateLimitedError,
    ServiceDownError,
    ServiceTimeoutError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
)

__all__ = ["HttpClient", "map_errors", "raise_for_status"]

RETRY_STATUS = frozenset({429, 500, 502, 503, 504})
CONNECT_TIMEOUT_S = 15.0
BACKOFF_S = 0.25
BACKOFF_MAX_S = 20.0


class _PoliteRetry(Retry):
    """urllib3's retry, with an end to how long a Retry-After is waited for."""

    def __init__(self, *args, max_wait_s=60.0, url="", **kwargs):
        super().__init__(*args, **kwargs)
        self.max_wait_s = max_wait_s
        self.url = url

    def new(self, **kwargs):
        kwargs.setdefault("max_wait_s", self.max_wait_s)
        kwargs.setdefault("url", self.url)
        return super().new(**kwargs)

    def get_retry_after(self, response):
        wait_s = super().get_retry_after(response)
        if wait_s is not None and wait_s > self.max_wait_s:
            msg = (
                f"{self.url} asks to wait {wait_s:.0f} s before the next request, more than "
                f"conf.max_retry_after={self.max_wait_s:.0f} s. Try again later."
            )
            status = response.status
            raise RateLimitedError(msg, url=self.url, status=status, retry_after_s=wait_s)
        return wait_s


@contextmanager
def map_errors(url):
    """Turn urllib3's errors into the package's own.

    Parameters
    ----------
    url : str
        The address to name in the message.
    """
    try:
        yield
    except LegacySurveyError:
        raise
    except (HTTPError, OSError) as error:
        raise _mapped(url, error) from error


def _mapped(url, error):
    """Return the error of ours that a lower one means."""
    if isinstance(error, MaxRetryError) and error.reason is not None:
        error = error.reason
    if isinstance(error, TimeoutError) and not isinstance(error, NewConnectionError):
        msg = f"No answer from {url} in time."
        return ServiceTimeoutError(msg, url=url, cause=error)
    for cut in (error, *error.args):
        if isinstance(cut, http.client.IncompleteRead):
            # urllib3 counts the bytes that came, the standard library has them.
            came = cut.partial if isinstance(cut.partial, int) else len(cut.partial)
            msg = f"{url} was cut off: {came} bytes came, {cut.expected} were still due."
            return TruncatedError(msg, url=url, cause=error)
    msg = f"Could not read {url}: {error}."
    return ServiceDownError(msg, url=url, cause=error)


def raise_for_status(response, url):
    """Raise the error that belongs to an HTTP status of 400 or more.

    Parameters
    ----------
    response : `urllib3.response.BaseHTTPResponse`
        The answer.
    url : str
        What was asked.
    """
    status = response.status
    if status < 400:
        return
    kwargs = {"url": url, "status": status}
    if status in (404, 410):
        msg = f"{url} does not exist (HTTP {status})."
        raise NotFoundError(msg, **kwargs)
    if status == 429:
        msg = f"{url} kept answering that too many requests were made (HTTP 429). Try again later."
        raise RateLimitedError(msg, **kwargs)
    if status >= 500:
        msg = f"{url} failed on the server's side (HTTP {status})."
        raise ServiceDownError(msg, **kwargs)
    msg = f"{url} was refused (HTTP {status})."
    raise TransferError(msg, **kwargs)


class HttpClient:
    """A pool of kept-alive connections with bounded, polite retries.

    Safe to share among threads.  A process that was forked from one that used it makes its own
    connections; a copy that was pickled does too.

    Parameters
    ----------
    timeout_s : float, optional
        Seconds without a byte before a request is given up.
    retries : int, optional
        How often a request is repeated after a transient failure.
    max_connections : int, optional
        Connections to one host.
    max_retry_after_s : float, optional
        Longest Retry-After that is waited for, seconds.
    user_agent : str, optional
        Sent with every request.
    retry_status : collection of int, optional
        Statuses that may pass: the request is repeated.
    """

    def __init__(
        self,
        *,
        timeout_s=60.0,
        retries=3,
        max_connections=12,
        max_retry_after_s=60.0,
        user_agent="astroquery_lis",
        retry_status=RETRY_STATUS,
    ):
        self.timeout_s = timeout_s
        self.max_connections = max_connections
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        self._retry = _PoliteRetry(
            total=retries,
            redirect=5,
            backoff_factor=BACKOFF_S,
            backoff_max=BACKOFF_MAX_S,
            backoff_jitter=BACKOFF_S,
            status_forcelist=retry_status,
            respect_retry_after_header=True,
            raise_on_status=False,
            max_wait_s=max_retry_after_s,
        )
        self._lock = threading.Lock()
        self._pools = {}
        self._pid = os.getpid()

    @property
    def user_agent(self):
        """Who the client says it is."""
        return self._headers["User-Agent"]

    def __getstate__(self):
        return {**self.__dict__, "_lock": None, "_pools": {}}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _pool(self, url):
        """Return the pool manager for ``url``: direct, or through the environment's proxy."""
        parts = parse_url(url)
        proxy = getproxies().get(parts.scheme)
        if proxy and proxy_bypass(parts.host):
            proxy = None
        with self._lock:
            if self._pid != os.getpid():
                self._pools, self._pid = {}, os.getpid()
            if proxy not in self._pools:
                options = {
                    "num_pools": 16,
                    "maxsize": self.max_connections,
                    "block": True,
                    "ca_certs": os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where(),
                    "timeout": Timeout(
                        connect=min(CONNECT_TIMEOUT_S, self.timeout_s), read=self.timeout_s
                    ),
                }
                self._pools[proxy] = (
                    urllib3.ProxyManager(proxy, **options)
                    if proxy
                    else urllib3.PoolManager(**options)
                )
            return self._pools[proxy]

    def fetch(self, url, consume, *, headers=None):
        """GET ``url`` and return ``consume(response)``, repeated while failures are transient.

        Parameters
        ----------
        url : str
            What to get.
        consume : callable
            Reads the body of an answer below 400 (or 416).  It is called again with a new answer
            when the connection breaks while it reads.
        headers : callable, optional
            Returns the extra headers of each attempt, so that a resumed one can ask for the rest.

        Returns
        -------
        object
            What ``consume`` returned.

        Raises
        ------
        TransferError
            One of its subclasses, when the retries are used up.
        """
        retry = self._retry.new(url=url)
        with map_errors(url):
            while True:
                extra = headers() if headers else {}
                response = self._urlopen(url, {**self._headers, **extra}, retry)
                try:
                    if response.status != 416:
                        raise_for_status(response, url)
                    return consume(response)
                except (ProtocolError, IncompleteRead, ReadTimeoutError) as error:
                    # The answer carries what the status and connection retries have used up.
                    retry = (response.retries or retry).increment("GET", url, error=error)
                    retry.sleep()
                finally:
                    _give_back(response)

    def _urlopen(self, url, headers, retry):
        try:
            return self._pool(url).request(
                "GET",
                url,
                headers=headers,
                retries=retry,
                preload_content=False,
                decode_content=False,
            )
        except LocationValueError as error:
            msg = f"{url!r} is not an address that can be asked: {error}."
            raise UnexpectedContentError(msg, url=url, cause=error) from error


def _give_back(response):
    """Return the connection to the pool, closed first if its answer was not read to the end."""
    if response.length_remaining != 0:
        response.close()
    # Closing alone would keep the connection's place in the pool taken.
    response.release_conn()
