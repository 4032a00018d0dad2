"""How the mirrors are doing: who answers, how fast, and who is left alone for a while.

Kept per host and per process, in memory.  A host that failed several times in a row rests: other
mirrors are asked first, until after a pause one request is let through to see whether it is back.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..exceptions import ContentChangedError, NotFoundError, TransferError
from .http import HttpClient
from .mirrors import AutoOrder

__all__ = ["HEALTH", "Health", "HostHealth"]

FAILURES_TO_REST = 3
"""Failures in a row after which a host rests."""

REST_S = 60.0
MAX_REST_S = 900.0
TRIAL_S = 30.0
"""How long nobody else asks a resting host after one was let through to try it."""

PROBE_BYTES = 1024
PROBE_TIMEOUT_S = 5.0


@dataclass
class HostHealth:
    """What is known of one host.

    Attributes
    ----------
    failures : int
        How often in a row it failed.
    rests_until : float
        On the clock of `Health`.
    failed_s : float
        When it last failed, seconds since 1970; 0 if it answered since.
    answers : int
        How often it did what it should.
    latency_s : float or None
        Seconds from a small request to its answer.
    ranges : bool or None
        Whether it serves ranges of bytes.
    error : str
        The last failure.
    """

    failures: int = 0
    rests_until: float = 0.0
    failed_s: float = 0.0
    answers: int = 0
    latency_s: float | None = None
    ranges: bool | None = None
    error: str = ""


class Health:
    """The health of every host that was asked.  Safe to share among threads.

    Parameters
    ----------
    clock : callable, optional
        Returns seconds that never run backwards.
    """

    def __init__(self, clock=time.monotonic):
        self.clock = clock
        self._lock = threading.Lock()
        self._probing = threading.Lock()
        self._hosts = {}

    def reset(self):
        """Forget everything."""
        with self._lock:
            self._hosts.clear()

    def of(self, mirror):
        """Return the `HostHealth` of a mirror, empty if it was never asked."""
        with self._lock:
            return self._hosts.get(_host(mirror), HostHealth())

    def answered(self, mirror):
        """Note that a mirror did what it should."""
        if mirror.is_local:
            return
        with self._lock:
            host = self._hosts.setdefault(_host(mirror), HostHealth())
            host.failures, host.rests_until, host.failed_s = 0, 0.0, 0.0
            host.answers += 1

    def failed(self, mirror, error):
        """Note that a mirror failed; a missing file or one that was replaced is no failure."""
        if mirror.is_local or isinstance(error, (NotFoundError, ContentChangedError)):
            return
        with self._lock:
            host = self._hosts.setdefault(_host(mirror), HostHealth())
            host.failures += 1
            host.failed_s, host.error = time.time(), str(error)
            if host.failures >= FAILURES_TO_REST:
                rest_s = min(REST_S * 2 ** (host.failures - FAILURES_TO_REST), MAX_REST_S)
                rest_s = max(rest_s, getattr(error, "retry_after_s", None) or 0.0)
                host.rests_until = self.clock() + rest_s

    def is_resting(self, mirror):
        """Tell whether a mirror is left alone at present."""
        return not mirror.is_local and self.of(mirror).rests_until > self.clock()

    def ordered(self, mirrors, *, client=None, path=None):
        """Return the mirrors in the order to ask: those that rest come last.

        Parameters
        ----------
        mirrors : sequence of Mirror
            In the user's order; that of an `~.mirrors.AutoOrder` is free, and the one that serves
            ranges and answers fastest comes first.
        client : HttpClient, optional
            If given, free mirrors of which nothing is known are asked for the first bytes of a
            file, once per process.
        path : str, optional
            That file.

        Returns
        -------
        list of Mirror
        """
        good, resting = self.split(mirrors, client=client, path=path)
        return good + resting

    def split(self, mirrors, *, client=None, path=None):
        """Return the mirrors to ask in their order, and those that rest.

        Parameters
        ----------
        mirrors, client, path
            As for `ordered`.

        Returns
        -------
        good, resting : list of Mirror
        """
        if isinstance(mirrors, AutoOrder):
            mirrors = self._free(mirrors, client, path)
        now = self.clock()
        awake, resting = [], []
        with self._lock:
            for mirror in mirrors:
                host = None if mirror.is_local else self._hosts.get(_host(mirror))
                if host is None or not host.rests_until:
                    awake.append(mirror)
                elif host.rests_until > now:
                    resting.append(mirror)
                else:
                    # This caller finds out whether it is back; the others wait for the answer.
                    host.rests_until = now + TRIAL_S
                    awake.append(mirror)
        return awake, resting

    def _free(self, mirrors, client, path):
        local = [mirror for mirror in mirrors if mirror.is_local]
        remote = [mirror for mirror in mirrors if not mirror.is_local]
        if client is not None and len(remote) > 1:
            with self._probing:
                self.probe([m for m in remote if self.of(m) == HostHealth()], client, path)

        def rank(mirror):
            host = self.of(mirror)
            latency_s = host.latency_s if host.latency_s is not None else float("inf")
            return host.failures > 0, host.ranges is False, latency_s

        return local + sorted(remote, key=rank)

    def probe(self, mirrors, client, path):
        """Ask mirrors for the first bytes of a file, all at once, and note how it went.

        Parameters
        ----------
        mirrors : sequence of Mirror
            Local ones are passed over.
        client : HttpClient
            Makes the requests.
        path : str
            A file that every mirror should have.
        """
        remote = [mirror for mirror in mirrors if not mirror.is_local]
        if not remote:
            return
        with ThreadPoolExecutor(len(remote), "astroquery_lis-probe") as pool:
            list(pool.map(lambda mirror: self._probe_one(mirror, client, path), remote))

    def _probe_one(self, mirror, client, path):
        headers = {"Range": f"bytes=0-{PROBE_BYTES - 1}"}
        begin = time.perf_counter()
        # A mirror that is slow to say hello need not be waited for as long as for a file.
        quick = HttpClient(
            timeout_s=min(PROBE_TIMEOUT_S, client.timeout_s),
            retries=1,
            max_retry_after_s=0,
            user_agent=client.user_agent,
        )

        def consume(response):
            seconds = time.perf_counter() - begin
            # A whole file in answer to a range is not read.
            return seconds, response.status == 206

        try:
            latency_s, ranges = quick.fetch(mirror.locate(path), consume, headers=lambda: headers)
        except NotFoundError:
            latency_s, ranges = time.perf_counter() - begin, None
        except TransferError as error:
            self.failed(mirror, error)
            return
        self.answered(mirror)
        with self._lock:
            host = self._hosts[_host(mirror)]
            host.latency_s, host.ranges = latency_s, ranges


def _host(mirror):
    return urlsplit(mirror.template).netloc


HEALTH = Health()
"""The one that this process uses."""
