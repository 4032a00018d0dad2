"""Bounds of what is asked of servers: how long it may take in all, how large an answer may be.

The time between two bytes is bounded by ``conf.timeout``; a server that sends a byte a second would
keep a call for ever.  So the end of the call is looked at whenever bytes come, headers included.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

import certifi
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from .._conf import conf
from ..exceptions import ServiceTimeoutError, UnexpectedContentError

if TYPE_CHECKING:
    import socket

    from typing_extensions import Buffer

MB = 1_000_000
INFINITY = float("inf")


@dataclass
class Bound:
    """What holds for a call, or for a part of it."""

    end_s: float
    limit_bytes: float = INFINITY
    grows: bool = False


BOUNDS: ContextVar[tuple[Bound, ...]] = ContextVar("bounds", default=())


@contextmanager
def within(
    deadline_s: float | None = None, *, limit_bytes: float | None = None, grows: bool = False
) -> Iterator[None]:
    """Bound what is asked meanwhile by ``conf.deadline``, and what any bound round it allows.

    Each answer may have so many bytes.  The time of one that ``grows`` begins anew with each
    megabyte that came of a whole file.
    """
    limit = INFINITY if limit_bytes is None else limit_bytes
    end_s = time.monotonic() + (conf.deadline if deadline_s is None else deadline_s)
    bound = Bound(end_s, limit, grows)
    token = BOUNDS.set((*BOUNDS.get(), bound))
    try:
        yield
    finally:
        BOUNDS.reset(token)


def allow_more_time() -> None:
    """Say that a part of a whole file came; nobody gets more time within a bound that is fixed."""
    bounds = BOUNDS.get()
    if all(bound.grows for bound in bounds):
        for bound in bounds:
            bound.end_s = time.monotonic() + conf.deadline


def seconds_left() -> float:
    """Return how much time is left; raise `ServiceTimeoutError` if none is."""
    left_s = min((bound.end_s for bound in BOUNDS.get()), default=INFINITY) - time.monotonic()
    if left_s <= 0:
        msg = f"There was no whole answer within conf.deadline={conf.deadline:g} s."
        raise ServiceTimeoutError(msg)
    return left_s


class Threads(ThreadPoolExecutor):
    """Threads that keep the bounds of whoever gives them work."""

    def submit(self, function: Callable, /, *args: Any, **options: Any) -> Future:
        """Have a function called."""
        return super().submit(copy_context().run, function, *args, **options)


class _Bounded(io.RawIOBase):
    """What comes over a socket as one answer."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket) -> None:
        super().__init__()
        self._raw, self._socket = raw, connection
        self._n_bytes = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the number of the socket."""
        return self._raw.fileno()

    def readinto(self, buffer: Buffer) -> int | None:
        """Read what comes next, in time."""
        n_bytes = self._read_in_time(buffer)
        self._n_bytes += n_bytes or 0
        limit = min((bound.limit_bytes for bound in BOUNDS.get()), default=INFINITY)
        if self._n_bytes > limit:
            msg = f"The answer is larger than the {limit / MB:.1f} MB that are due."
            raise UnexpectedContentError(msg)
        return n_bytes

    def _read_in_time(self, buffer: Buffer) -> int | None:
        left_s, usual_s = seconds_left(), self._socket.gettimeout()
        if usual_s is not None and usual_s <= left_s:
            return self._raw.readinto(buffer)
        self._socket.settimeout(None if left_s == INFINITY else left_s)
        try:
            return self._raw.readinto(buffer)
        except TimeoutError:
            seconds_left()
            raise
        finally:
            self._socket.settimeout(usual_s)

    def close(self) -> None:
        """Let the socket go."""
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_Bounded(self.fp.detach(), sock))


class _Connection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}


class BoundedAdapter(HTTPAdapter):
    """Connections of requests, direct and through proxies, whose answers are bounded."""

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **options: Any
    ) -> None:
        """Make the manager of direct connections."""
        super().init_poolmanager(connections, maxsize, block, **_certificates(), **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> urllib3.PoolManager:
        """Return the manager of connections through a proxy."""
        manager = super().proxy_manager_for(proxy, **_certificates(), **options)
        if proxy.startswith("http"):  # those of SOCKS connect in a way of their own
            manager.pool_classes_by_scheme = _POOLS
        return manager


def _certificates() -> dict[str, str]:
    """Return whose certificates are trusted, as urllib3 is told it."""
    place = os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where()
    return {"ca_cert_dir" if os.path.isdir(place) else "ca_certs": place}
