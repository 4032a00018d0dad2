"""How the mirrors are doing, and who is asked next.

That is kept per host and per process, in memory: a host that failed several times in a row rests,
and others are asked first, until after a pause one request is let through to see whether it is
back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import urlsplit

from .._forks import new_lock
from ..exceptions import (
    ChecksumError,
    ContentChangedError,
    FailoverWarning,
    NotFoundError,
    ServiceDownError,
    TransferError,
    warn,
)
from .bounds import Threads
from .http import HttpClient, all_failed, reason_of
from .mirrors import AutoOrder, Mirror

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

T = TypeVar("T")

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
    """What is known of one host."""

    failures: int = 0
    """How often in a row it failed."""
    rests_until: float = 0.0
    """On the clock of `Health`."""
    failed_s: float = 0.0
    """When it last failed, seconds since 1970; 0 if it answered since."""
    answers: int = 0
    """How often it did what it should."""
    latency_s: float | None = None
    """Seconds from a small request to its answer."""
    ranges: bool | None = None
    """Whether it serves ranges of bytes."""
    error: str = ""
    """The last failure."""


class Health:
    """The health of every host that was asked.  Safe to share among threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._lock = new_lock()
        self._probing = new_lock()
        self._hosts: dict[str, HostHealth] = {}

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._hosts.clear()

    def of(self, mirror: Mirror) -> HostHealth:
        """Return the `HostHealth` of a mirror, empty if it was never asked."""
        with self._lock:
            return self._hosts.get(_host(mirror), HostHealth())

    def answered(self, mirror: Mirror) -> None:
        """Note that a mirror did what it should."""
        if mirror.is_local:
            return
        with self._lock:
            host = self._hosts.setdefault(_host(mirror), HostHealth())
            host.failures, host.rests_until, host.failed_s = 0, 0.0, 0.0
            host.answers += 1

    def failed(self, mirror: Mirror, error: Exception) -> None:
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

    def is_resting(self, mirror: Mirror) -> bool:
        """Return True if a mirror is left alone at present."""
        return not mirror.is_local and self.of(mirror).rests_until > self.clock()

    def split(
        self, mirrors: Sequence[Mirror], *, client: HttpClient | None = None, path: str = ""
    ) -> tuple[list[Mirror], list[Mirror]]:
        """Return the mirrors to ask in the user's order, and those that rest.

        The order of an `AutoOrder` is free: the one that serves ranges and answers fastest comes
        first.  With a client, those of which nothing is known are asked for the first bytes of a
        file, once per process.
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

    def _free(
        self, mirrors: Sequence[Mirror], client: HttpClient | None, path: str
    ) -> list[Mirror]:
        local = [mirror for mirror in mirrors if mirror.is_local]
        remote = [mirror for mirror in mirrors if not mirror.is_local]
        if client is not None and len(remote) > 1:
            with self._probing:
                self.probe([m for m in remote if self.of(m) == HostHealth()], client, path)

        def rank(mirror: Mirror) -> tuple[bool, bool, float]:
            host = self.of(mirror)
            latency_s = host.latency_s if host.latency_s is not None else float("inf")
            return host.failures > 0, host.ranges is False, latency_s

        return local + sorted(remote, key=rank)

    def probe(self, mirrors: Sequence[Mirror], client: HttpClient, path: str) -> None:
        """Ask remote mirrors for the first bytes of a file, all at once; note how it went."""
        remote = [mirror for mirror in mirrors if not mirror.is_local]
        if not remote:
            return
        with Threads(len(remote), "astroquery_lis-probe") as pool:
            list(pool.map(lambda mirror: self._probe_one(mirror, client, path), remote))

    def _probe_one(self, mirror: Mirror, client: HttpClient, path: str) -> None:
        headers = {"Range": f"bytes=0-{PROBE_BYTES - 1}"}
        begin = time.perf_counter()
        # A mirror that is slow to say hello need not be waited for as long as for a file.
        quick = HttpClient(
            timeout_s=min(PROBE_TIMEOUT_S, client.timeout_s),
            retries=1,
            max_retry_after_s=0,
            user_agent=client.user_agent,
        )

        def consume(response: BaseHTTPResponse) -> tuple[float, bool]:
            seconds = time.perf_counter() - begin
            # A whole file in answer to a range is not read.
            return seconds, response.status == 206

        ranges: bool | None
        try:
            url = str(mirror.locate(path))
            latency_s, ranges = quick.fetch(url, consume, headers=lambda: headers)
        except NotFoundError:
            latency_s, ranges = time.perf_counter() - begin, None
        except TransferError as error:
            self.failed(mirror, error)
            return
        self.answered(mirror)
        with self._lock:
            host = self._hosts[_host(mirror)]
            host.latency_s, host.ranges = latency_s, ranges


def _host(mirror: Mirror) -> str:
    return urlsplit(mirror.template).netloc


HEALTH = Health()
"""The one that this process uses."""


# ---- who is asked next ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What one of several mirrors gave."""

    value: T | None = None
    mirror: Mirror | None = None
    """Who gave it; `None` if nobody did."""
    failures: tuple[tuple[Mirror, TransferError], ...] = ()
    """Who failed before, and how."""
    missing: tuple[Mirror, ...] = ()
    """Who said that there is no such file."""
    passed_over: tuple[Mirror, ...] = ()
    """Who was not asked, after failures for the files before."""


def ask_in_turn(
    mirrors: Sequence[Mirror],
    ask: Callable[[Mirror], T],
    path: str,
    *,
    client: HttpClient | None = None,
    holds: Callable[[Mirror], bool] | None = None,
    begun_s: float | None = None,
) -> Answer[T]:
    """Ask one mirror after the other for a file, until one gives it.

    A `TransferError` of ``ask`` passes the question on.  The answer is without a mirror if the
    first remote mirror, or every one, says that there is no such file (`NotFoundError`); where none
    could say, the error of the only one is raised, or one for all.  With a ``client``, free mirrors
    are compared first (`Health.split`), unless ``holds`` says that what the first one gave is here.
    A mirror that failed since ``begun_s`` and rests is passed over.  One whose file had a wrong
    digest is asked once more in the end: its list may have been replaced.
    """
    first = next((mirror for mirror in mirrors if not mirror.is_local), None)
    holders = [mirror for mirror in mirrors if holds is not None and holds(mirror)]
    order = list(mirrors)
    passed_over: list[Mirror] = []
    if first is not None and first not in holders:
        order, resting = HEALTH.split(mirrors, client=client, path=path)
        for mirror in resting:
            in_vain = begun_s is not None and HEALTH.of(mirror).failed_s >= begun_s
            (passed_over if in_vain and mirror not in holders else order).append(mirror)
    failures: list[tuple[Mirror, TransferError]] = []
    missing = []
    for mirror in _with_second_look(order, failures):
        try:
            value = ask(mirror)
        except NotFoundError:
            missing.append(mirror)
        except TransferError as error:
            HEALTH.failed(mirror, error)
            failures.append((mirror, error))
        else:
            if mirror not in holders:
                HEALTH.answered(mirror)
            return Answer(value, mirror, tuple(failures), tuple(missing))
    if first in missing:
        passed_over = []
    elif failures:
        raise _all_failed(path, failures)
    return Answer(None, None, tuple(failures), tuple(missing), tuple(passed_over))


def _with_second_look(
    order: Sequence[Mirror], failures: Sequence[tuple[Mirror, TransferError]]
) -> Iterator[Mirror]:
    """Yield the mirrors, and again the first whose file had a wrong digest."""
    yield from order
    for mirror, error in list(failures):
        if isinstance(error, ChecksumError):
            yield mirror
            return


def _all_failed(path: str, failures: Sequence[tuple[Mirror, TransferError]]) -> TransferError:
    """Return the error for a file that no mirror could give."""
    wrong = any(isinstance(error, ChecksumError) for _, error in failures)
    by_name = [(mirror.name, error) for mirror, error in failures]
    kind = ChecksumError if wrong else ServiceDownError
    return all_failed(f"No mirror could give {path}.", by_name, kind)


class Failovers:
    """What a call has to say of mirrors that failed while others answered: each once."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._messages: dict[str, str] = {}

    def add(self, answer: Answer) -> None:
        """Note the failures before an answer."""
        other = answer.mirror.name if answer.mirror is not None else "no other"
        with self._lock:
            for mirror, error in answer.failures:
                reason = reason_of(error)
                message = f"Mirror {mirror.name} failed ({reason}); {other} answered instead."
                self._messages.setdefault(mirror.name, message)

    def update(self, messages: dict[str, str]) -> None:
        """Note what others noted."""
        with self._lock:
            self._messages = messages | self._messages

    @property
    def messages(self) -> dict[str, str]:
        """One sentence for each mirror that failed, by its name."""
        return dict(self._messages)

    def warn(self) -> None:
        """Warn of every mirror that failed, and forget it."""
        with self._lock:
            messages, self._messages = self._messages, {}
        for message in messages.values():
            warn(message, FailoverWarning)
