"""Files from wherever they are: mirrors asked in turn; on disk, in the cache, fetched, in parts."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from .._locks import new_lock
from ..exceptions import (
    CacheError,
    CacheWarning,
    ChecksumError,
    ContentChangedError,
    FailoverWarning,
    NotFoundError,
    ServiceDownError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
    warn,
)
from .bounds import Threads
from .download import download
from .http import HttpClient, all_failed, reason_of
from .mirrors import HEALTH, Mirror, local_folders
from .ranges import RemoteParts, WholeFileAnswer
from .store import Store

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse


T = TypeVar("T")


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


def _holds_nothing(_: Mirror) -> bool:
    return False


def ask_in_turn(
    mirrors: Sequence[Mirror],
    ask: Callable[[Mirror], T],
    path: str,
    *,
    client: HttpClient | None = None,
    holds: Callable[[Mirror], bool] = _holds_nothing,
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
    holders = [mirror for mirror in mirrors if holds(mirror)]
    first = next((mirror for mirror in mirrors if not mirror.is_local), None)
    order, passed_over = list(mirrors), tuple[Mirror, ...]()
    if first is not None and first not in holders:
        order, resting = HEALTH.split(mirrors, client=client, path=path)
        passed_over = _in_vain(resting, holders, begun_s)
        order += [mirror for mirror in resting if mirror not in passed_over]
    answer = _first_answer(order, ask, holders)
    if answer.mirror is not None or first in answer.missing:
        return answer
    if answer.failures:
        raise _all_failed(path, answer.failures)
    return replace(answer, passed_over=passed_over)


def _first_answer(
    order: Sequence[Mirror], ask: Callable[[Mirror], T], holders: Sequence[Mirror]
) -> Answer[T]:
    """Ask mirrors until one gives what it is asked for; note how those did that had to be asked."""
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
    return Answer(None, None, tuple(failures), tuple(missing))


def _in_vain(
    resting: Sequence[Mirror], holders: Sequence[Mirror], begun_s: float | None
) -> tuple[Mirror, ...]:
    """Return those that rest and have failed since a call began, so that nothing is to be had."""
    failed = (mirror for mirror in resting if HEALTH.has_failed(mirror, begun_s))
    return tuple(mirror for mirror in failed if mirror not in holders)


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


SIDECARS = ".tables"

CHANGED_TRIES = 3
"""How often a file that changes under the reader is begun again."""


@dataclass(frozen=True)
class LocatedFile:
    """A file that is on disk."""

    path: Path
    url: str  # where it came from
    mirror: Mirror
    sidecars: Path | None  # folder for what is known of it


def _as_it_is(file: LocatedFile) -> LocatedFile:
    return file


@dataclass(eq=False)
class FileFinder(AbstractContextManager["FileFinder"]):
    """Finds whole files. A context manager, which tells of failures in the end."""

    make_client: Callable[[], HttpClient]
    mirrors: Sequence[Mirror]
    location: Path | None  # of the cache
    cache_error: CacheError | None = field(default=None, init=False)
    """Why what is fetched is not kept."""
    _temporary: Path | None = field(default=None, init=False)
    _failovers: Failovers | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
        if kind is None and self._failovers is not None:
            self._failovers.warn()
        if kind is None and self.cache_error is not None:
            warn(f"What was fetched is not cached: {self.cache_error}", CacheWarning)

    @property
    def only_local(self) -> bool:
        """Whether every mirror is a directory."""
        return all(mirror.is_local for mirror in self.mirrors)

    @property
    def keeps(self) -> bool:
        """Whether what is fetched is kept."""
        return self.location is not None

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders to look in if every mirror is one, else none."""
        return local_folders(self.mirrors)

    @property
    def service(self) -> str:
        """Name of the first mirror."""
        return self.mirrors[0].name

    def address(self, path: str) -> str:
        """Return where the first mirror has a file: a URL or a local path, as text."""
        return str(self.mirrors[0].locate(path))

    def local(self, path: str) -> LocatedFile | None:
        """Return a file if it is on disk."""
        for mirror in self.mirrors:
            file: Path | None = None
            if mirror.is_local:
                file = Path(mirror.locate(path))
            elif self.location is not None:
                file = Store(self.location / mirror.root_name).whole(path)
            if file is not None and file.is_file():
                return self._located(mirror, path, file)
        return None

    def find(self, path: str) -> LocatedFile | None:
        """Return a file, fetched if need be; `None` if there is none."""
        return self.local(path) or self._fetched(path, _as_it_is)

    def find_all(self, paths: Sequence[str]) -> list[LocatedFile | None]:
        """Return many files, several fetched at once."""
        files = {path: self.local(path) for path in paths}
        lacking = [path for path, file in files.items() if file is None]
        fetch = partial(self._fetched, read=_as_it_is)
        if len(lacking) < 2 or self.only_local:
            files.update((path, fetch(path)) for path in lacking)
        else:
            workers = min(self.make_client().max_connections, len(lacking))
            with Threads(workers, "astroquery_lis-table") as pool:
                files.update(zip(lacking, pool.map(fetch, lacking), strict=True))
        return [files[path] for path in paths]

    def read(self, file: LocatedFile, read: Callable[[LocatedFile], T]) -> T:
        """Read a file; one in the cache that is not what it should be is fetched anew."""
        try:
            return read(file)
        except (UnexpectedContentError, TruncatedError) as error:
            if file.mirror.is_local:
                raise
            flaw = error
        store = self._store(file.mirror)
        path = file.path.relative_to(store.root).as_posix()
        store.forget_whole(path)
        answer = self._fetched(path, read)
        if answer is None:
            raise flaw
        return answer

    def _fetched(self, path: str, read: Callable[[LocatedFile], T]) -> T | None:
        """Read a file that is fetched first, from the mirrors in turn; `None` if none has it."""

        def ask(mirror: Mirror) -> T:
            file = self._located(mirror, path, self._fetch(mirror, path))
            try:
                return read(file)
            except (UnexpectedContentError, TruncatedError):
                self._store(mirror).forget_whole(path)
                raise

        return self._ask(path, ask)

    def read_parts(self, path: str, read: Callable[[RemoteParts], T]) -> T | LocatedFile | None:
        """Read parts of a remote file; `None` if there is none.

        A server that sends it whole makes it a file that is here.
        """

        def ask(mirror: Mirror) -> T | LocatedFile:
            client, store = self.make_client(), self._store(mirror)
            url, file = str(mirror.locate(path)), store.root / path

            def receive(response: BaseHTTPResponse) -> object:
                margin_bytes = store.margin_bytes
                return download(client, url, file, answer=response, margin_bytes=margin_bytes)

            for number in range(CHANGED_TRIES):
                try:
                    return read(RemoteParts(client, url, receive))
                except WholeFileAnswer:
                    return self._located(mirror, path, file)
                except CacheError as error:
                    self._leave_cache(store, error)
                    return ask(mirror)
                except ContentChangedError:
                    if number + 1 == CHANGED_TRIES:
                        raise
            raise AssertionError

        return self._ask(path, ask)

    def _ask(self, path: str, ask: Callable[[Mirror], T]) -> T | None:
        """Ask the remote mirrors in turn, and note which of them failed; `None` if none has it."""
        remote = [mirror for mirror in self.mirrors if not mirror.is_local]
        answer = ask_in_turn(remote, ask, path)
        with self._lock:
            self._failovers = self._failovers or Failovers()
        self._failovers.add(answer)
        return answer.value

    def _fetch(self, mirror: Mirror, path: str) -> Path:
        store = self._store(mirror)
        file, url = store.root / path, str(mirror.locate(path))
        try:
            download(self.make_client(), url, file, margin_bytes=store.margin_bytes)
        except CacheError as error:
            self._leave_cache(store, error)
            return self._fetch(mirror, path)
        return file

    def _leave_cache(self, store: Store, error: CacheError) -> None:
        """Go on without the cache, on which no content depends, and note why."""
        # Another thread may have done so meanwhile: what counts is where this file went to.
        if store.margin_bytes == 0:
            raise error
        self.cache_error, self.location = error, None

    def _store(self, mirror: Mirror) -> Store:
        """Return where what is fetched goes: into the cache, or a folder of this call alone."""
        with self._lock:
            if self.location is not None:
                return Store(self.location / mirror.root_name)
            self._temporary = self._temporary or Path(tempfile.mkdtemp(prefix="astroquery_lis-"))
            # What goes away again may use the room that is kept free.
            return Store(self._temporary / mirror.root_name, margin_bytes=0)

    def _located(self, mirror: Mirror, path: str, file: Path) -> LocatedFile:
        sidecars = None
        if self.location is not None:
            sidecars = self.location / mirror.root_name / SIDECARS / path
        return LocatedFile(file, str(mirror.locate(path)), mirror, sidecars)
