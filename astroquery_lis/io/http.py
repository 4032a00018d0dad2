"""One pooled HTTP client for everything that is fetched by file.

urllib3 rather than requests: a 45 kB range costs it a third of the CPU, and a cutout is some
twenty of them.  Every lower error leaves here as one of `astroquery_lis.exceptions`.
"""

from __future__ import annotations

import http.client
import logging
import os
import socket
import ssl
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.exceptions import InvalidJSONError
from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy
from urllib3.exceptions import (
    HTTPError,
    IncompleteRead,
    LocationValueError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util import Retry, Timeout, make_headers, parse_url

from .._locks import new_lock
from ..exceptions import (
    LegacySurveyError,
    NotFoundError,
    RateLimitedError,
    ServiceDownError,
    ServiceTimeoutError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
    UnreachableError,
)
from .bounds import BoundedAdapter, seconds_left, within

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

T = TypeVar("T")
Options: TypeAlias = tuple[tuple[str, Any], ...]
"""Of a client: names and values, which tell it from others."""

RETRY_STATUS = frozenset({429, 500, 502, 503, 504})
REFUSED_STATUS = frozenset({429, 503})
"""The service said that it did nothing, so that a POST may be repeated too."""

CONNECT_TIMEOUT_S = 15.0
WITHOUT_NETWORK = (
    "Check the network. A local copy of the survey (mirror=) and the simulated sky "
    "(astroquery_lis.sandbox.serve()) need none."
)
_RETRY = {
    "backoff_factor": 0.25,
    "backoff_max": 20.0,
    "backoff_jitter": 0.25,
    "respect_retry_after_header": True,
    "raise_on_status": False,
}


class _PoliteRetry(Retry):
    """urllib3's retry, with an end to how long a Retry-After is waited for."""

    def __init__(self, *args: Any, max_wait_s: float = 60.0, url: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **{**_RETRY, **kwargs})
        self.max_wait_s = max_wait_s
        self.url = url

    def new(self, **kwargs: Any) -> _PoliteRetry:
        kwargs.setdefault("max_wait_s", self.max_wait_s)
        kwargs.setdefault("url", self.url)
        return super().new(**kwargs)

    def get_backoff_time(self) -> float:
        return min(super().get_backoff_time(), seconds_left())

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        wait_s = super().get_retry_after(response)
        if wait_s is not None and wait_s > self.max_wait_s:
            msg = (
                f"{self.url or 'The server'} asks to wait {wait_s:.0f} s before the next request, "
                f"more than conf.max_retry_after={self.max_wait_s:.0f} s. Try again later."
            )
            status = response.status
            raise RateLimitedError(msg, url=self.url, status=status, retry_after_s=wait_s)
        return wait_s and min(wait_s, seconds_left())


@contextmanager
def map_errors(url: str, *others: type[Exception]) -> Iterator[None]:
    """Turn the errors of urllib3, of requests, and others into the package's own."""
    kinds: tuple[type[Exception], ...] = (HTTPError, OSError, *others)
    # What is being handled already did not come from what happens here.
    before = sys.exc_info()[1]
    try:
        yield
    except LegacySurveyError as error:
        if isinstance(error, TransferError) and not error.url:
            # Neither the bounds nor the retries of a session know what is asked.
            error.url = url
            error.args = (f"{url}: {error}",)
        raise
    except kinds as error:
        raise _mapped(url, error, before) from error


_TIMEOUTS = (TimeoutError, urllib3.exceptions.TimeoutError, requests.Timeout)
_MEANINGS: tuple[tuple[tuple[type[Exception], ...], type[TransferError], str], ...] = (
    ((InvalidJSONError,), UnexpectedContentError, "{url} did not answer in JSON: {cause}."),
    (_TIMEOUTS, ServiceTimeoutError, "No answer from {url} in time."),
)
"""Lower errors that mean the same wherever they come from, and what is said of them."""


def _mapped(url: str, error: BaseException, before: BaseException | None) -> LegacySurveyError:
    """Return the error of ours that a lower one means, by the first that says what it is."""
    if isinstance(error, MaxRetryError):
        error = error.reason or error
    lower = list(causes(error, before))
    for cause in lower:
        if isinstance(cause, LegacySurveyError):
            return cause
    meanings = (_meaning(url, cause, error) for cause in lower)
    meaning = unreached(url, *lower) or next(filter(None, meanings), None)
    msg = f"Could not read {url}: {error}."
    return meaning or ServiceDownError(msg, url=url, cause=error)


def _meaning(url: str, cause: BaseException, error: BaseException) -> TransferError | None:
    """Return the error that one cause of an error means by itself, or `None`."""
    for kinds, meaning, text in _MEANINGS:
        if isinstance(cause, kinds):
            return meaning(text.format(url=url, cause=cause), url=url, cause=error)
    cut = _cut_off(cause)
    if cut:
        return TruncatedError(f"{url} was cut off: {cut}.", url=url, cause=error)
    status = getattr(getattr(cause, "response", None), "status_code", 0)
    return status_error(status, url, cause=error)


def _cut_off(cause: BaseException) -> str:
    """Return how an answer that had begun ended, empty if the error says nothing of that."""
    if isinstance(cause, http.client.IncompleteRead):
        # urllib3 counts the bytes that came, the standard library has them.
        came = cause.partial if isinstance(cause.partial, int) else len(cause.partial)
        due = "more" if cause.expected is None else cause.expected
        return f"{came} bytes came, {due} were still due"
    # Of a connection that ends before an answer begins, urllib3 says that it was aborted.
    if isinstance(cause, ProtocolError) and str(cause.args[0]).startswith("Connection broken"):
        return _cut_off(cause.args[-1]) or f"{cause.args[-1]}"
    return ""


def unreached(url: str, *errors: BaseException) -> UnreachableError | None:
    """Return the error that tells why no connection came about, or `None` if one did.

    The first of the errors that says why counts.
    """
    for error in errors:
        reason = why_unreached(error)
        if reason is not None:
            return unreachable({urlsplit(url).netloc: reason}, url=url, cause=error)
    return None


def why_unreached(error: BaseException) -> str | None:
    """Return why an error means that no connection came about, or `None` if it does not."""
    if isinstance(error, ProxyError):
        inner = why_unreached(error.original_error) or f"{error.original_error}"
        return f"the proxy that http_proxy or https_proxy names does not let through: {inner}"
    if isinstance(error, (NameResolutionError, socket.gaierror)):
        return "the name is not known to the DNS, or there is no network"
    if isinstance(error, (NewConnectionError, ConnectionRefusedError)):
        text = str(error)
        if "refused" in text:
            return "nothing listens there (connection refused)"
        return text.rpartition("] ")[2]
    if isinstance(error, (SSLError, ssl.SSLError)):
        return f"the TLS certificate or connection is not valid ({error})"
    return None


def unreachable(reasons: Mapping[str, str], **about: Any) -> UnreachableError:
    """Return one error for hosts that could not be reached, by why."""
    hosts: dict[str, list[str]] = {}
    for host, reason in reasons.items():
        hosts.setdefault(reason, []).append(host)
    texts = [f"{', '.join(hosts[why])} could not be reached: {why}." for why in hosts]
    return UnreachableError(" ".join([*texts, WITHOUT_NETWORK]), reasons=reasons, **about)


def causes(error: object, before: BaseException | None = None) -> Iterator[BaseException]:
    """Yield an error and those that it came from, without those of one that was there before."""
    visited = set() if before is None else {id(earlier) for earlier in causes(before)}
    waiting = [error]
    while waiting:
        error = waiting.pop(0)
        if not isinstance(error, BaseException) or id(error) in visited:
            continue
        visited.add(id(error))
        yield error
        reason = getattr(error, "reason", None)
        waiting += [getattr(error, "cause", None), error.__cause__, error.__context__, reason]
        waiting += error.args


def reason_of(error: Exception) -> str:
    """Return what an error says, without what to do where there is no network."""
    return str(error).removesuffix(WITHOUT_NETWORK).rstrip()


def all_failed(
    summary: str,
    failures: Sequence[tuple[str, TransferError]],
    kind: type[TransferError] = ServiceDownError,
) -> TransferError:
    """Return the error for all who were asked, each with its name: that of the only one, if so."""
    last = failures[-1][1]
    if len(failures) == 1:
        return last
    unreached = [error for _, error in failures if isinstance(error, UnreachableError)]
    if len(unreached) == len(failures):
        reasons = {host: why for error in unreached for host, why in error.reasons.items()}
        return unreachable(reasons, url=last.url, cause=last.cause)
    texts = [summary, *(f"{name}: {reason_of(error)}" for name, error in failures)]
    texts += [WITHOUT_NETWORK] * bool(unreached)
    return kind(" ".join(texts), url=last.url, status=last.status, cause=last)


def status_error(status: int, url: str, **about: Any) -> TransferError | None:
    """Return the error that belongs to an HTTP status of 400 or more."""
    if status < 400:
        return None
    kind, what, hint = TransferError, "was refused", ""
    if status in (404, 410):
        kind, what = NotFoundError, "does not exist"
    elif status == 429:
        kind, what = RateLimitedError, "kept answering that too many requests were made"
        hint = " Try again later."
    elif status >= 500:
        kind, what = ServiceDownError, "failed on the server's side"
    return kind(f"{url} {what} (HTTP {status}).{hint}", url=url, status=status, **about)


# ---- what is sent and never shown ----------------------------------------------------------------

_secrets: dict[str, tuple[dict[str, str], str]] = {}
"""Headers and query that go with addresses, by what these begin with."""


def send_with(prefix: str, *, user: str = "", query: str = "") -> None:
    """Send ``user:password`` and a query with all requests to addresses that begin so.

    They stand in no address that the package handles, and so in no error, file or table.
    """
    _secrets[prefix] = make_headers(basic_auth=user), query
    for name in ("urllib3.connectionpool", "urllib3.util.retry"):
        # A filter that is there already is not added again.
        logging.getLogger(name).addFilter(_hide_queries)


def _hide_queries(record: logging.LogRecord) -> bool:
    """Take the queries that are secret out of what urllib3 logs."""
    text = record.getMessage()
    for _, query in _secrets.values():
        if query and query in text:
            text = text.replace(query, "***")
            record.msg, record.args = text, ()
    return True


def _with_secrets(url: str) -> tuple[str, dict[str, str]]:
    """Return the address and the headers that are sent for ``url``."""
    prefix = max((text for text in _secrets if url.startswith(text)), key=len, default=None)
    if prefix is None:
        return url, {}
    headers, query = _secrets[prefix]
    if query:
        url += ("&" if "?" in url else "?") + query
    return url, headers


# ---- clients -------------------------------------------------------------------------------------

_PROXY_VARIABLES = tuple(
    case(f"{name}_proxy") for name in ("http", "https", "all", "no") for case in (str, str.upper)
)


@lru_cache(maxsize=64)
def _proxy_for(host_url: str, *_: str | None) -> str | None:
    """Return the proxy for a host, or `None`; the variables that tell it are part of the question.

    To look at them costs as much as a request.
    """
    proxy = select_proxy(host_url, get_environ_proxies(host_url))
    return prepend_scheme_if_needed(proxy, "http") if proxy else None


class HttpClient:
    """A pool of kept-alive connections with bounded, polite retries."""

    def __init__(
        self,
        *,
        timeout_s: float = 60.0,
        retries: int = 3,
        max_connections: int = 12,
        max_retry_after_s: float = 60.0,
        user_agent: str = "astroquery_lis",
        retry_status: Collection[int] = RETRY_STATUS,
    ) -> None:
        self.timeout_s = timeout_s
        self.max_connections = max_connections
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        self._retry = _PoliteRetry(
            total=retries,
            redirect=5,
            status_forcelist=retry_status,
            max_wait_s=max_retry_after_s,
        )
        connect_s = min(CONNECT_TIMEOUT_S, timeout_s)
        self._timeout = Timeout(connect=connect_s, read=timeout_s)
        self._lock = new_lock()
        self._adapter: BoundedAdapter | None = None
        self._pid = 0

    @property
    def user_agent(self) -> str:
        """Who the client says it is."""
        return self._headers["User-Agent"]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_lock": None, "_adapter": None, "_pid": 0}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._lock = new_lock()

    def _pool(self, url: str) -> urllib3.PoolManager:
        """Return the pool manager for ``url``: direct, or through the environment's proxy."""
        host_url = parse_url(url)._replace(auth=None, path=None, query=None, fragment=None).url
        proxy = _proxy_for(host_url, *map(os.environ.get, _PROXY_VARIABLES))
        with self._lock:
            # The connections of the process that this one was forked from are not ours.
            if self._adapter is None or self._pid != os.getpid():
                self._adapter = BoundedAdapter(pool_maxsize=self.max_connections, pool_block=True)
                self._pid = os.getpid()
            return self._adapter.proxy_manager_for(proxy) if proxy else self._adapter.poolmanager

    def fetch(
        self,
        url: str,
        consume: Callable[[BaseHTTPResponse], T],
        *,
        headers: Callable[[], dict] = dict,
        limit_bytes: float | None = None,
    ) -> T:
        """GET ``url`` and return ``consume(response)``, repeated while failures are transient."""
        retry: Retry = self._retry.new(url=url)
        with map_errors(url), within(limit_bytes=limit_bytes, grows=True):
            while True:
                seconds_left()
                response = self._urlopen(url, {**self._headers, **headers()}, retry)
                try:
                    refusal = status_error(response.status, url)
                    if refusal is not None and response.status != 416:
                        raise refusal
                    return consume(response)
                except (ProtocolError, IncompleteRead, ReadTimeoutError) as error:
                    # The answer carries what the status and connection retries have used up.
                    retry = (response.retries or retry).increment("GET", url, error=error)
                    retry.sleep()
                finally:
                    _give_back(response)

    def read(self, url: str, limit_bytes: float, *, needs_length: bool = False) -> bytes:
        """Return a whole answer of some bytes at most.

        One whose end could not be told from a cut is refused if it needs a length.
        """

        def consume(response: BaseHTTPResponse) -> bytes:
            if (response.length_remaining or 0) > limit_bytes:
                size = response.length_remaining
                msg = f"{url} announces {size} bytes; {limit_bytes:.0f} are due at most."
                raise UnexpectedContentError(msg, url=url, status=response.status)
            is_announced = {"Content-Length", "Transfer-Encoding"} & set(response.headers)
            if needs_length and not is_announced:
                msg = f"{url} does not say how long its answer is: it may have been cut off."
                raise TruncatedError(msg, url=url, status=response.status)
            return response.read()

        return self.fetch(url, consume, limit_bytes=limit_bytes)

    def _urlopen(self, url: str, headers: dict, retry: Retry) -> BaseHTTPResponse:
        address, secret_headers = _with_secrets(url)
        try:
            return self._pool(url).request(
                "GET",
                address,
                headers={**headers, **secret_headers},
                retries=retry,
                timeout=self._timeout,
                preload_content=False,
                decode_content=False,
            )
        except LocationValueError as error:
            msg = f"{url!r} is not an address that can be asked: {error}."
            raise UnexpectedContentError(msg, url=url, cause=error) from error


_clients_lock = new_lock()


def shared_client(options: Options, make: Callable[..., HttpClient] = HttpClient) -> HttpClient:
    """Return this process's client for some settings: its connections serve every job."""
    # Threads that begin together would make one each, with connections of its own.
    with _clients_lock:
        return _made_client(options, make)


@lru_cache(maxsize=8)
def _made_client(options: Options, make: Callable[..., HttpClient]) -> HttpClient:
    return make(**dict(options))


def _give_back(response: BaseHTTPResponse) -> None:
    """Return the connection to the pool, closed first if its answer was not read to the end."""
    if response.length_remaining != 0:
        response.close()
    # Closing alone would keep the connection's place in the pool taken.
    response.release_conn()


class PoliteSession(requests.Session):
    """A session in which no request can hang, and refused ones are repeated politely."""

    def __init__(
        self,
        *,
        timeout_s: float = 60.0,
        retries: int = 3,
        max_connections: int = 12,
        max_retry_after_s: float = 60.0,
        user_agent: str = "astroquery_lis",
    ) -> None:
        super().__init__()
        self._answers: list[requests.Response] = []
        self.timeout_s = timeout_s
        self.headers["User-Agent"] = user_agent
        retry = _PoliteRetry(
            total=retries,
            read=0,
            redirect=5,
            status_forcelist=REFUSED_STATUS,
            allowed_methods=None,
            max_wait_s=max_retry_after_s,
        )
        adapter = BoundedAdapter(pool_maxsize=max_connections, max_retries=retry)
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def request(  # type: ignore[override]
        self, method: str, url: str, **kwargs: Any
    ) -> requests.Response:
        """Make a request, as `requests.Session.request` does, but never without a time-out."""
        timeout = kwargs.get("timeout")
        limit = self.timeout_s
        if isinstance(timeout, (int, float)):
            limit = min(timeout, limit)
        kwargs["timeout"] = (min(CONNECT_TIMEOUT_S, limit), limit)
        with within():
            answer = super().request(method, url, **kwargs)
        self._answers.append(answer)
        return answer

    def close(self) -> None:
        """Close every connection, also those of answers that nobody read to the end."""
        while self._answers:
            self._answers.pop().close()
        super().close()
