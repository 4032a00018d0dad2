"""Files of a tree that has mirrors, each from the first that has it right; the lists of digests."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._conf import conf
from .._locks import new_lock
from ..exceptions import (
    CacheError,
    ChecksumError,
    LegacySurveyWarning,
    NotFoundError,
    TransferError,
    UnexpectedContentError,
    warn,
)
from .download import Downloaded, download, revalidate
from .http import HttpClient, shared_client
from .jobs import Result, failed_delivery
from .journal import manifest
from .mirrors import HEALTH, Mirror
from .places import Answer, ask_in_turn
from .ranges import UNKNOWN, Version
from .store import Origin, Store, keep_within, mark_used
from .whole_files import GB, copy_whole, flaw_of, keep_bytes, remove_leftovers, sha256_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from astropy.table import Table


STALE_LIST = "its sha256 is not that of the survey's list, twice the same: the list may be stale"
OTHERS_FAILED = "other mirrors failed"
UNLISTED = "not compared: no list of the survey has its sha256"
LARGER_THAN_LIMIT = "the cache is larger than conf.cache_size: the files of this call are kept"


def table_of_files(results: Sequence[Result], products: Sequence[str]) -> Table:
    """Return the manifest with the kind of each file."""
    table = manifest(results)
    table.add_column(np.array(products, str), table.colnames.index("id") + 1, name="product")
    return table


def warn_of_failures(failures: Sequence[Result], total: int) -> None:
    """Warn of files that could not be had, if there are any."""
    if failures:
        msg = (
            f"{len(failures)} of {total} file(s) could not be had; the same call again "
            f"tries those. {failures[0].message}"
        )
        warn(msg, LegacySurveyWarning)


# ---- the files of a tree that has mirrors -------------------------------------------------------


@dataclass(frozen=True)
class FileSettings:
    """How the files of one call are fetched; picklable."""

    mirrors: tuple[Mirror, ...]
    location: str
    """Cache location."""
    folder: str | None
    """Where the files go, in folders like the survey's; `None` for the cache."""
    verify: str | bool
    """What a wrong sha256 means: ``'warn'``, ``'strict'`` or `False`."""
    refresh: bool
    """Whether files that are here are compared with their server's."""
    client_options: tuple
    begun_s: float
    """When the call began, seconds since 1970; also tells one call from another."""


@dataclass(frozen=True)
class FileJob:
    """One file of the mirrors' tree to fetch; picklable."""

    row: int
    paths: tuple[str, ...]
    """The names that it may have, relative to the tree's root."""
    checksum_path: str | None
    """The list that has its digest."""
    facts: tuple[tuple[str, str], ...]
    settings: FileSettings

    @property
    def about(self) -> dict[str, str]:
        """What the manifest says of it, whatever became of it."""
        return dict(self.facts)

    def fetch(self) -> Result:
        """Have the file, and say what became of it."""
        return _Delivery(self).run()


def _file_client(**options: Any) -> HttpClient:
    """Make a client of whole files, for which cutouts would wait if they shared connections."""
    return HttpClient(**options)


_lists: OrderedDict[FileSettings, ChecksumLists] = OrderedDict()
_lists_lock = new_lock()


def _shared_lists(settings: FileSettings) -> ChecksumLists:
    """Return the checksum lists of a call: in each process, each is fetched once."""
    with _lists_lock:
        if settings not in _lists:
            client = shared_client(settings.client_options, _file_client)
            _lists[settings] = ChecksumLists(client, settings.mirrors)
            while len(_lists) > 4:
                _lists.popitem(last=False)
        return _lists[settings]


@dataclass(frozen=True)
class _Folder:
    """A folder of the user, in which nothing tells where its files came from."""

    root: Path

    def flaw(self, relative: str) -> str | None:
        """Return what is wrong with a file, as `Store.flaw` does."""
        return flaw_of(self.root / relative)

    def origin(self, _: str) -> None:
        """Return nothing, as `Store.origin` does where nothing is known."""


@dataclass(frozen=True)
class _Source:
    """A file as one mirror has it, and where it goes."""

    path: str
    url: str
    store: Store
    """The cache of what comes from the mirror."""
    shelf: Store | _Folder
    """Where it goes: into the cache, or elsewhere."""
    list_copy: Path | None
    """Where the list of its digest is kept: beside the file."""

    @property
    def target(self) -> Path:
        """The file that it becomes."""
        return self.shelf.root / self.path

    @property
    def in_cache(self) -> bool:
        """Whether it goes into the cache."""
        return self.shelf is self.store


class _Delivery:
    """The attempts to have one file."""

    def __init__(self, job: FileJob) -> None:
        self.job, self.settings = job, job.settings
        self.client = shared_client(self.settings.client_options, _file_client)
        self.is_strict = self.settings.verify == "strict"
        self.notes: list[str] = []
        self.wrong_digests: set[str] = set()

    def run(self) -> Result:
        """Return what became of the file."""
        path = self.job.paths[0]
        answer = ask_in_turn(
            self.settings.mirrors,
            self._take,
            path,
            client=self.client,
            holds=self._is_held,
            begun_s=self.settings.begun_s,
        )
        if answer.value is not None:
            return replace(answer.value, message=self._message(answer))
        if answer.passed_over:
            reasons = "; ".join(f"{m.name}: {HEALTH.of(m).error}" for m in answer.passed_over)
            message = f"Not asked for, since this mirror failed for the files before: {reasons}"
            return self._result("SKIPPED", message=message)
        names = ", ".join(mirror.name for mirror in answer.missing)
        return self._result("NODATA", message=f"{path} does not exist at {names}.")

    def _message(self, answer: Answer) -> str:
        """Return what the user should know of a file that is here."""
        others = [f"{m.name}: {error}" for m, error in answer.failures if m != answer.mirror]
        before = [str(error) for m, error in answer.failures if m == answer.mirror]
        if others:
            self.notes.append(f"{OTHERS_FAILED}: {' '.join(others)}")
        if before:
            self.notes.append(f"before: {' '.join(before)}")
        return "; ".join(self.notes)

    # ---- one mirror -----------------------------------------------------------------------------

    def _store(self, mirror: Mirror) -> Store:
        return Store(Path(self.settings.location) / mirror.root_name)

    def _is_held(self, mirror: Mirror) -> bool:
        """Return True if the file is here whole already."""
        folder = Path(self.settings.folder or self._store(mirror).root)
        return any((folder / path).is_file() for path in self.job.paths)

    def _source(self, mirror: Mirror, path: str) -> _Source:
        store = self._store(mirror)
        shelf: Store | _Folder = store
        checksums = self.job.checksum_path
        if self.settings.folder is not None:
            shelf = _Folder(Path(self.settings.folder))
        elif mirror.is_local:
            # It has its own list, which nothing replaces.
            shelf, checksums = _Folder(Path(mirror.template)), None
        list_copy = shelf.root / checksums if checksums else None
        return _Source(path, str(mirror.locate(path)), store, shelf, list_copy)

    def _take(self, mirror: Mirror) -> Result:
        """Return the attributes of a result, under whichever of its names the file is there."""
        take = self._from_disk if mirror.is_local else partial(self._from_network, mirror)
        *names, last = (self._source(mirror, path) for path in self.job.paths)
        for source in names:
            with suppress(NotFoundError):
                return take(source)
        return take(last)

    def _from_disk(self, source: _Source) -> Result:
        """Take a file of a local mirror: where it is, or as a copy in the user's folder."""
        place = Path(source.url)
        flaw = flaw_of(place)
        if flaw is None:
            msg = f"{place} does not exist."
            raise NotFoundError(msg, url=source.url)
        if flaw:
            raise UnexpectedContentError(flaw, url=source.url)
        # Nothing replaces or removes a file of the mirror itself.
        is_copy = os.path.realpath(source.target) != os.path.realpath(place)
        if is_copy and not self._is_sound(flaw_of(source.target)):
            return self._copied(source, place)
        digest = ""
        if self.is_strict:
            digest = sha256_of(source.target)
            self._settle(source, digest)
        return self._found("CACHED", source.target, source.url, digest)

    def _is_sound(self, flaw: str | None) -> bool:
        """Return True if what is here can be trusted; note why if it has to be replaced."""
        if flaw:
            self.notes.append(f"what was here was replaced: {flaw}")
        return flaw == ""

    def _copied(self, source: _Source, place: Path) -> Result:
        """Copy a file to the user's folder."""
        digest = copy_whole(place, source.target)
        try:
            self._settle(source, digest)
        except ChecksumError:
            source.target.unlink(missing_ok=True)
            raise
        return self._found("COMPLETE", source.target, source.url, digest)

    def _settle(self, source: _Source, digest: str) -> None:
        """Refuse or note a file that is here and has a wrong digest."""
        if self._is_right(source, digest):
            return
        if self.is_strict:
            if self._expected(source) is None:
                raise self._unlisted(source.url)
            msg = f"{source.target} has sha256 {digest}; the survey's list says otherwise."
            raise ChecksumError(msg, url=source.url, found=digest)
        self.notes.append(STALE_LIST)

    def _is_right(self, source: _Source, digest: str) -> bool:
        """Return True if a digest is that of the list, which may have been replaced meanwhile."""
        right = (digest,) if self.is_strict else (None, digest)
        return any(self._expected(source, again=again) in right for again in (False, True))

    def _from_network(self, mirror: Mirror, source: _Source) -> Result:
        """Take a file from the cache or from its server."""
        store, refresh = source.store, self.settings.refresh
        if not (source.in_cache or refresh or source.target.exists()) and store.whole(source.path):
            return self._copied(source, store.root / source.path)
        outcome = None
        if self._is_sound(source.shelf.flaw(source.path)):
            origin = source.shelf.origin(source.path)
            outcome = self._renewed(mirror, source, origin) if refresh else None
            outcome = outcome or self._trusted(source, origin)
        return outcome or self._downloaded(source)

    def _renewed(self, mirror: Mirror, source: _Source, origin: Origin | None) -> Result | None:
        """Return the result for a file that its server has replaced, `None` if it has not."""
        known = origin or Origin("", UNKNOWN, "")
        version = known.version if known.url == source.url else UNKNOWN
        done = revalidate(self.client, source.url, source.target, version)
        HEALTH.answered(mirror)
        if done.sha256 is None:
            return None
        self._settle(source, done.sha256)
        return self._kept(source, done)

    def _trusted(self, source: _Source, origin: Origin | None) -> Result | None:
        """Return the result for a file that is here and good, `None` if it has to be fetched."""
        if source.in_cache:
            mark_used(source.target)
        # Nobody may have looked at a file of which nothing is known: its process was killed, or
        # it came as part of something else.
        is_unknown = source.in_cache and origin is None
        known = origin or Origin(source.url, UNKNOWN, "")
        if not self.is_strict and not (is_unknown and self.settings.verify):
            return self._found("CACHED", source.target, known.url, known.sha256)
        digest = sha256_of(source.target)
        if not self._is_right(source, digest):
            self.wrong_digests.add(digest)
            return None
        if is_unknown:
            size = source.target.stat().st_size
            self._remember(source, Origin(known.url, Version(size), digest))
        return self._found("CACHED", source.target, known.url, digest)

    def _downloaded(self, source: _Source) -> Result:
        expected = self._expected(source)
        if expected is None and self.is_strict:
            # Asked for, though not read: what does not exist needs no digest.
            self.client.fetch(source.url, lambda response: None)
            (failed,) = failed_delivery(self.job, self._unlisted(source.url))
            return failed
        try:
            done = download(
                self.client,
                source.url,
                source.target,
                sha256=self._allowed(expected),
                replace=source.target.exists(),
            )
        except ChecksumError as error:
            self.wrong_digests.add(str(error.found))
            # The list may have been replaced together with the file.
            self._expected(source, again=True)
            raise
        if expected is not None and done.sha256 not in (None, expected):
            self.notes.append(STALE_LIST)
        return self._kept(source, done)

    def _allowed(self, expected: str | None) -> set[str] | None:
        """Return the digests that a file may have: also a wrong one that it had everywhere."""
        if expected is None:
            return None
        is_doubtful = len(self.wrong_digests) == 1 and not self.is_strict
        return {expected, *self.wrong_digests} if is_doubtful else {expected}

    def _kept(self, source: _Source, done: Downloaded) -> Result:
        """Return the result of a file that was fetched, or that somebody else just fetched."""
        if done.sha256 is None:
            origin = source.shelf.origin(source.path) or Origin(source.url, UNKNOWN, "")
            return self._found("CACHED", done.path, origin.url, origin.sha256)
        remove_leftovers(done.path)
        if source.in_cache:
            self._remember(source, Origin(source.url, done.version, done.sha256))
            source.store.forget_runs(source.path)
            self._keep_within()
        return self._found("COMPLETE", done.path, source.url, done.sha256)

    def _remember(self, source: _Source, origin: Origin) -> None:
        # A cache that cannot be written gives what it has all the same.
        with suppress(CacheError):
            source.store.remember(source.path, origin)

    def _found(self, status: str, target: Path, url: str, digest: str) -> Result:
        try:
            size = target.stat().st_size
        except OSError as error:
            msg = f"{target} was removed while it was used: {error}."
            raise UnexpectedContentError(msg, url=url, cause=error) from error
        return self._result(status, local_path=str(target), url=url, bytes=size, sha256=digest)

    def _result(self, status: str, **facts: Any) -> Result:
        return Result(self.job.row, status, **{**self.job.about, **facts})

    # ---- checksums and room ---------------------------------------------------------------------

    def _expected(self, source: _Source, *, again: bool = False) -> str | None:
        """Return the digest that the survey's list gives a file, `None` if it gives none."""
        if self.job.checksum_path is None or not self.settings.verify:
            return None
        lists = _shared_lists(self.settings)
        try:
            digests = lists.get(self.job.checksum_path, source.list_copy, again=again)
        except TransferError as error:
            if self.is_strict:
                raise
            self.notes.append(f"not compared with the survey's list: {error}")
            return None
        digest = (digests or {}).get(source.path.rpartition("/")[2])
        if digest is None and UNLISTED not in self.notes:
            self.notes.append(UNLISTED)
        return digest

    def _unlisted(self, url: str) -> ChecksumError:
        name = self.job.checksum_path or "the survey, which has no list of its kind,"
        msg = f"{url} cannot be verified: {name} has no sha256 of it. Take verify='warn'."
        return ChecksumError(msg, url=url)

    def _keep_within(self) -> None:
        limit = conf.cache_size * GB
        if not keep_within(self.settings.location, limit, keep_since_s=self.settings.begun_s):
            self.notes.append(LARGER_THAN_LIMIT)


HEX_DIGITS = 64
LIST_LIMIT_BYTES = 16e6
"""Largest list that is read; the sweeps' have 200 kB."""


def parse_checksums(text: str, where: str | Path) -> dict[str, str]:
    """Return the digests of a ``.sha256sum`` file."""
    digests = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        digest, _, name = line.strip().partition(" ")
        name = name.strip().removeprefix("*").rpartition("/")[2]
        if len(digest) != HEX_DIGITS or not name or set(digest.lower()) - set("0123456789abcdef"):
            msg = f"{where} is not a list of sha256 digests; it has the line {line[:80]!r}."
            raise UnexpectedContentError(msg, url=str(where))
        digests[name] = digest.lower()
    return digests


class ChecksumLists:
    """The lists that one job needs, each fetched at most once. Safe to share among threads."""

    def __init__(self, client: HttpClient, mirrors: Sequence[Mirror]) -> None:
        self._client, self._mirrors = client, mirrors
        self._lock = new_lock()
        self._locks: dict[str, threading.Lock] = {}
        self._lists: dict[str, tuple[dict[str, str] | None, bool]] = {}

    def get(
        self, path: str, copy: Path | None = None, *, again: bool = False
    ) -> dict[str, str] | None:
        """Return the digests of one list."""
        with self._lock:
            lock = self._locks.setdefault(path, new_lock())
        with lock:
            if copy is not None and path not in self._lists:
                self._lists[path] = _read(copy), False
            digests, is_fresh = self._lists.get(path, (None, False))
            if not is_fresh and (again or digests is None):
                digests = self._fetch(path, copy)
                self._lists[path] = digests, True
            return digests

    def _fetch(self, path: str, copy: Path | None) -> dict[str, str] | None:
        def ask(mirror: Mirror) -> tuple[dict[str, str], str]:
            place = mirror.locate(path)
            if isinstance(place, Path):
                text = _read_text(place)
            else:
                text = self._client.read(place, LIST_LIMIT_BYTES).decode("utf-8", "replace")
            return parse_checksums(text, place), text

        answer = ask_in_turn(self._mirrors, ask, path)
        if answer.value is None:
            return None
        digests, text = answer.value
        if copy is not None:
            with suppress(OSError):  # The digests are known all the same.
                keep_bytes(copy, text.encode())
        return digests


def _read_text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        msg = f"{path} cannot be read: {error}."
        raise NotFoundError(msg, url=str(path), cause=error) from error


def _read(path: Path) -> dict[str, str] | None:
    try:
        return parse_checksums(path.read_text(errors="replace"), path)
    except (OSError, UnexpectedContentError):
        return None
