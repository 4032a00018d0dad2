"""The places that files come from, registered names, URLs and folders, and how they are doing.

What a URL says to be let in, a user with a password or the parameters of its query, is sent with
the requests and stands nowhere else: neither in a mirror's name nor in its addresses.
The health is kept per host and per process, in memory: a host that failed several times in a row
rests, and others are asked first, until after a pause one request is let through to see whether it
is back.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from .._locks import new_lock
from ..exceptions import (
    ContentChangedError,
    NotFoundError,
    TransferError,
    refuse,
)
from .bounds import Threads
from .http import HttpClient, send_with

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

    from .._typing import Mirror as MirrorNames

PLACEHOLDERS = "{path}, {release}, {RELEASE}, {rest}"

_USER = re.compile(r"://[^/@]*@")
_RELEASE_FOLDER = re.compile(r"dr\d+")


class AutoOrder(tuple):
    """Mirrors of which the one that answers best may come first."""

    __slots__ = ()


@dataclass(frozen=True)
class Mirror:
    """One place that holds the survey's tree, or a part of it."""

    name: str
    """Registered name, or what the user gave, without what is secret."""
    template: str
    """URL with ``{path}`` (``dr10/south/...``), or with ``{release}``, ``{RELEASE}`` and ``{rest}``
    (the path without its release); or a local directory."""
    official: bool = False
    """Whether it mirrors the released files, so that all such share one cache."""
    description: str = ""
    user: str = field(default="", repr=False)
    """``user:password`` to log in with."""
    query: str = field(default="", repr=False)
    """Parameters that go with every address."""

    def __post_init__(self) -> None:
        if self.user or self.query:
            send_with(self.template.partition("{")[0], user=self.user, query=self.query)

    def __reduce__(self) -> tuple[type[Mirror], tuple]:
        # A worker that is sent a mirror has to learn of its secrets too.
        values = self.name, self.template, self.official, self.description, self.user, self.query
        return Mirror, values

    @cached_property
    def is_local(self) -> bool:
        """Whether files are read in place."""
        return "://" not in self.template

    @cached_property
    def label(self) -> str:
        """Its name in files that are written: of a folder no more than the last part."""
        folder = Path(self.template).name if self.is_local and not self.official else ""
        return folder or self.name

    def locate(self, path: str) -> str | Path:
        """Return the URL, or the local path, of a file relative to the survey's root."""
        if self.is_local:
            return Path(self.template, path)
        release, _, rest = path.partition("/")
        return self.template.format(path=path, release=release, RELEASE=release.upper(), rest=rest)

    def origin(self, path: str) -> str:
        """Return what files that are written say of where a file of this mirror was."""
        return f"{self.label}/{path}" if self.is_local else str(self.locate(path))

    @cached_property
    def root_name(self) -> str:
        """Folder of the cache for what comes from here."""
        if self.official:
            return "official"
        text = self.template + (f"?{self.query}" if self.query else "")
        return f"custom-{_digest(text)}"

    @cached_property
    def place(self) -> str:
        """What the journal of a job calls it: one place, whatever password its URLs end in now."""
        return "official" if self.official else f"{self.label} ({_digest(self.template)})"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


REGISTERED = {
    mirror.name: mirror
    for mirror in (
        Mirror(
            "nersc",
            "https://portal.nersc.gov/cfs/cosmo/data/legacysurvey/{path}",
            official=True,
            description="NERSC, Berkeley: the primary copy",
        ),
        Mirror(
            "nadc",
            "https://casdc.china-vo.org/mirror/DESI/cosmo/data/legacysurvey/{path}",
            official=True,
            description="China-VO NADC, Beijing: same tree",
        ),
        Mirror(
            "nadc-flat",
            "https://casdc.china-vo.org/mirror/DESI-{RELEASE}/{rest}",
            official=True,
            description="China-VO NADC, Beijing: one tree per release",
        ),
        Mirror(
            "nersc-disk",
            "/global/cfs/cdirs/cosmo/data/legacysurvey",
            official=True,
            description="the files themselves, for jobs that run at NERSC",
        ),
    )
}
"""Mirrors known by name.  Their addresses come from the survey's pages and the mirrors' users."""

AUTO_ORDER = ("nersc-disk", "nersc", "nadc")
"""What ``'auto'`` tries, in order; a local tree only where it exists."""


def _parse(value: object) -> Mirror:
    """Return the `Mirror` that one string means."""
    text = os.fspath(value).strip() if isinstance(value, (str, os.PathLike)) else ""
    if text in REGISTERED:
        return REGISTERED[text]
    scheme = text[: max(text.find("://"), 0)].lower()
    if scheme in ("http", "https"):
        return _of_url(text)
    folder = Path(unquote(urlsplit(text).path) if scheme == "file" else text).expanduser()
    if text and scheme in ("", "file") and folder.is_dir():
        return _of_folder(text, folder.resolve())
    refuse(
        "mirror",
        _USER.sub("://***@", text) if text else value,
        "is neither a registered mirror, a URL, nor a directory that exists; registered: auto, "
        f"{', '.join(REGISTERED)}.",
    )


def _has_host(text: str) -> bool:
    try:
        parts = urlsplit(text)
        # A placeholder there would send what is secret to hosts that nobody named.
        return bool(parts.hostname) and parts.port != 0 and "{" not in parts.netloc
    except ValueError:
        return False


@lru_cache(maxsize=32)
def _of_url(text: str) -> Mirror:
    if not _has_host(text):
        plain = _USER.sub("://***@", text).partition("?")[0]
        refuse("mirror", plain, "is a URL whose host or port is none.")
    parts = urlsplit(text)
    user, _, host = parts.netloc.rpartition("@")
    plain = urlunsplit((parts.scheme, host, parts.path, "", ""))
    if "{" in parts.path + parts.query:
        # The parameters that say nothing of the file may be a key, and go with the requests.
        parameters = parts.query.split("&")
        about_file = "&".join(item for item in parameters if "{" in item)
        query = "&".join(item for item in parameters if "{" not in item)
        template = urlunsplit((parts.scheme, host, parts.path, about_file, ""))
        _check_template(template)
        return Mirror(template, template, user=unquote(user), query=query)
    template = plain.rstrip("/") + "/{path}"
    if parts.query:
        must = f"has a query: say with {{path}} where the path of a file goes: {template}?..."
        refuse("mirror", plain, must)
    return Mirror(plain, template, user=unquote(user))


def _check_template(template: str) -> None:
    """Refuse a template that is not of one address per file."""
    try:
        addresses = {template.format(path=p, release="", RELEASE="", rest=p) for p in ("a", "b")}
    except (LookupError, ValueError, AttributeError):
        refuse("mirror", template, f"has a placeholder that is not known; allowed: {PLACEHOLDERS}.")
    if len(addresses) < 2:
        must = "has neither {path} nor {rest}: every file would have one address."
        refuse("mirror", template, must)


def _of_folder(name: str, folder: Path) -> Mirror:
    """Return the mirror in a folder; refuse one that holds no release."""
    if not _has_release(folder):
        must = "is a folder without a release: a mirror holds dr10/, dr9/ and so on, as the survey."
        parent = next((place for place in folder.parents if _has_release(place)), None)
        if parent is not None:
            must += f" Its parent {str(parent)!r} does; did you mean that?"
        refuse("mirror", name, must)
    return Mirror(name, str(folder))


def _has_release(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(_RELEASE_FOLDER.fullmatch(e.name) and e.is_dir() for e in entries)
    except OSError:
        return False


def _auto_order() -> AutoOrder:
    ordered = (REGISTERED[name] for name in AUTO_ORDER)
    return AutoOrder(m for m in ordered if not m.is_local or Path(m.template).is_dir())


def resolve_mirrors(value: MirrorNames) -> tuple[Mirror, ...]:
    """Return the mirrors to try, in order; an `AutoOrder` for ``'auto'``."""
    if isinstance(value, str) and value == "auto":
        return _auto_order()
    if isinstance(value, (str, os.PathLike)):
        value = [value]
    try:
        mirrors = tuple(map(_parse, value))
    except TypeError:
        mirrors = (_parse(value),)
    if not mirrors:
        refuse("mirror", value, f"names no mirror; registered: auto, {', '.join(REGISTERED)}.")
    return mirrors


def local_folders(mirrors: Sequence[Mirror]) -> tuple[Path, ...]:
    """Return the folders that mirrors are, if every one is a folder, else none."""
    if not all(mirror.is_local for mirror in mirrors):
        return ()
    return tuple(Path(mirror.template) for mirror in mirrors)


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

    def has_failed(self, mirror: Mirror, since_s: float | None) -> bool:
        """Return True if the last that a mirror did was to fail, since a time if there is one."""
        return since_s is not None and self.of(mirror).failed_s >= since_s

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
