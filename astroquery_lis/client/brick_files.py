"""Whole files of the survey: each from the first place that has it right, and what became of it."""

import hashlib
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .._conf import conf
from ..exceptions import (
    CacheError,
    ChecksumError,
    NotFoundError,
    ServiceDownError,
    TransferError,
    UnexpectedContentError,
)
from ..io import Result, failure
from ..io.checksums import ChecksumLists
from ..io.download import download, revalidate
from ..io.http import HttpClient
from ..io.places import HEALTH
from ..io.ranges import Version
from ..io.store import GB, Origin, Store, copy_whole, mark_used, remove_leftovers
from ..io.upkeep import keep_within
from ..survey.paths import SurveyFile

__all__ = ["FileJob", "FileSettings", "failed_file", "fetch_file", "sha256_of"]

STALE_LIST = "its sha256 is not that of the survey's list, twice the same: the list may be stale"
OTHERS_FAILED = "other mirrors failed"
LARGER_THAN_LIMIT = "the cache is larger than conf.cache_size: the files of this call are kept"


@dataclass(frozen=True)
class FileSettings:
    """How the files of one call are fetched; picklable.

    Attributes
    ----------
    mirrors : tuple of Mirror
        In the order to try.
    location : str
        Cache location.
    folder : str or None
        Where the files shall go, in folders like the survey's; `None` for the cache.
    verify : {'warn', 'strict', False}
        What a wrong sha256 means.
    refresh : bool
        Whether files that are here are compared with their server's.
    client_options : tuple of tuple
        Arguments of `~astroquery_lis.io.http.HttpClient`, as pairs.
    begun_s : float
        When the call began, seconds since 1970; also tells one call from another.
    """

    mirrors: tuple
    location: str
    folder: str | None
    verify: object
    refresh: bool
    client_options: tuple
    begun_s: float


@dataclass(frozen=True)
class FileJob:
    """One file to fetch; picklable.

    Attributes
    ----------
    row : int
        Its number in the manifest.
    file : SurveyFile
        Which.
    settings : FileSettings
        How.
    """

    row: int
    file: SurveyFile
    settings: FileSettings


def _known_of(job):
    """Return what a result says of every file, whatever became of it."""
    file = job.file
    names = {"id": file.brick, "release": file.release, "region": file.region, "bands": file.band}
    return {name: str(value) for name, value in names.items()}


def failed_file(job, error):
    """Return the results of a job that ended with an error.

    Parameters
    ----------
    job : FileJob
        The job.
    error : Exception
        Why.

    Returns
    -------
    list of `~astroquery_lis.io.Result`
    """
    url = getattr(error, "url", None) or ""
    return [failure(job.row, error, url=str(url), **_known_of(job))]


def fetch_file(job):
    """Fetch one file, or find it, and tell what became of it.

    Parameters
    ----------
    job : FileJob
        The file.

    Returns
    -------
    list of `~astroquery_lis.io.Result`
        One.
    """
    begun = time.perf_counter()
    known = _known_of(job)
    if not job.file.paths:
        where = "/".join(name for name in (job.file.release, job.file.region) if name)
        message = f"{where} has no {job.file.band} band."
        return [Result(job.row, "NODATA", message=message, **known)]
    try:
        found = _Fetch(job).run()
    except (TransferError, CacheError) as error:
        return failed_file(job, error)
    return [Result(job.row, seconds=time.perf_counter() - begun, **found, **known)]


@lru_cache(maxsize=4)
def _shared_client(options):
    """Return this process's client: its connections serve every job."""
    return HttpClient(**dict(options))


_lists: OrderedDict = OrderedDict()
_lists_lock = threading.Lock()


def _shared_lists(settings):
    """Return the checksum lists of a call: in each process, each is fetched once."""
    with _lists_lock:
        if settings not in _lists:
            client = _shared_client(settings.client_options)
            _lists[settings] = ChecksumLists(client, settings.mirrors)
            while len(_lists) > 4:
                _lists.popitem(last=False)
        return _lists[settings]


def sha256_of(path):
    """Return the sha256 of a file.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    str
    """
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _Fetch:
    """The attempts to have one file."""

    def __init__(self, job):
        self.file, self.settings = job.file, job.settings
        self.client = _shared_client(self.settings.client_options)
        self.failures = []
        self.notes = []
        self.missing = set()
        self.seen = set()

    def run(self):
        """Return the attributes of the `Result`."""
        mirrors, given_up = self._mirrors()
        for mirror in mirrors:
            found = self._try(mirror)
            if found is not None:
                return self._told(found, mirror)
        # A wrong digest deserves a second look; it may be the list that is wrong.
        for mirror, error in list(self.failures):
            if isinstance(error, ChecksumError):
                found = self._try(mirror)
                if found is not None:
                    return self._told(found, mirror)
                break
        if self._is_missing([*mirrors, *given_up]):
            names = ", ".join(mirror.name for mirror in mirrors if mirror.name in self.missing)
            message = f"{self.file.paths[0]} does not exist at {names}."
            return {"status": "NODATA", "message": message}
        if not self.failures:
            told = "; ".join(f"{m.name}: {HEALTH.of(m).error}" for m in given_up)
            message = f"Not asked for, since this mirror failed for the files before: {told}"
            return {"status": "SKIPPED", "message": message}
        raise self._all_failed()

    def _mirrors(self):
        """Return the mirrors in the order to try, and those that failed too often in this call."""
        mirrors = self.settings.mirrors
        first = next((m for m in mirrors if not m.is_local), None)
        if first is None or self._is_held(first):
            return list(mirrors), []
        path = self.file.paths[0]
        good, resting = HEALTH.split(mirrors, client=self.client, path=path)
        given_up = []
        for mirror in resting:
            since_s = HEALTH.of(mirror).failed_s
            hopeless = since_s >= self.settings.begun_s and not self._is_held(mirror)
            (given_up if hopeless else good).append(mirror)
        return good, given_up

    def _is_missing(self, mirrors):
        """Tell whether the file does not exist, from those that say so."""
        first = next((m for m in self.settings.mirrors if not m.is_local), None)
        if first is not None and first.name in self.missing:
            return True
        return all(mirror.name in self.missing for mirror in mirrors)

    def _told(self, found, giver):
        """Add to the attributes of a result what the user should know."""
        others = [f"{m.name}: {error}" for m, error in self.failures if m is not giver]
        before = [str(error) for m, error in self.failures if m is giver]
        if others:
            self.notes.append(f"{OTHERS_FAILED}: {' '.join(others)}")
        if before:
            self.notes.append(f"before: {' '.join(before)}")
        found["message"] = "; ".join(self.notes)
        return found

    def _all_failed(self):
        error = self.failures[-1][1]
        if len(self.failures) == 1:
            return error
        wrong_digests = [e for _, e in self.failures if isinstance(e, ChecksumError)]
        kind = type(wrong_digests[-1]) if wrong_digests else ServiceDownError
        told = " ".join(f"{mirror.name}: {error}" for mirror, error in self.failures)
        msg = f"No mirror could give {self.file.paths[0]}. {told}"
        return kind(msg, url=error.url, status=error.status, cause=error)

    # ---- one mirror -----------------------------------------------------------------------------

    def _store(self, mirror):
        return Store(Path(self.settings.location) / mirror.root_name)

    def _is_held(self, mirror):
        """Tell whether the file is here whole already."""
        folder = Path(self.settings.folder or self._store(mirror).root)
        return any((folder / path).is_file() for path in self.file.paths)

    def _try(self, mirror):
        """Return the attributes of a result, or `None`."""
        try:
            for path in self.file.paths:
                try:
                    if mirror.is_local:
                        return self._from_disk(mirror, path)
                    return self._from_network(mirror, path)
                except NotFoundError:
                    continue
        except TransferError as error:
            HEALTH.failed(mirror, error)
            self.failures.append((mirror, error))
            return None
        self.missing.add(mirror.name)
        return None

    def _from_disk(self, mirror, path):
        """Take a file of a local mirror: where it is, or as a copy in the user's folder."""
        place = mirror.locate(path)
        if not place.is_file():
            msg = f"{place} does not exist."
            raise NotFoundError(msg, url=str(place))
        if self.settings.folder is None:
            status, target = "CACHED", place
        else:
            target = Path(self.settings.folder, path)
            status = "CACHED" if target.exists() else "COMPLETE"
            if status == "COMPLETE":
                copy_whole(place, target)
        digest = ""
        if self._must_hash(status):
            digest = self._settle(path, target, str(place), self._list_copy())
        return self._found(status, target, str(place), digest)

    def _must_hash(self, status):
        return self.settings.verify == "strict" or (self.settings.verify and status == "COMPLETE")

    def _settle(self, path, place, url, copy):
        """Return the digest of a file that is here; refuse or note a wrong one."""
        digest = sha256_of(place)
        if self._is_right(path, digest, copy):
            return digest
        if self.settings.verify == "strict":
            msg = f"{place} has sha256 {digest}; the survey's list says otherwise."
            raise ChecksumError(msg, url=url, found=digest)
        self.notes.append(STALE_LIST)
        return digest

    def _is_right(self, path, digest, copy):
        """Tell whether a digest is that of the list, which may have been replaced meanwhile."""
        return any(
            self._expected(path, copy, again=again) in (None, digest) for again in (False, True)
        )

    def _from_network(self, mirror, path):
        """Take a file from the cache or from its server."""
        url, store = mirror.locate(path), self._store(mirror)
        kept = store.path(path)
        if self.settings.folder is None:
            target = kept
        else:
            target = Path(self.settings.folder, path)
            if not target.exists() and kept.is_file() and not self.settings.refresh:
                copy_whole(kept, target)
                mark_used(kept)
                digest = ""
                if self._must_hash("COMPLETE"):
                    digest = self._settle(path, target, url, self._list_copy())
                return self._found("COMPLETE", target, url, digest)
        if target.is_file():
            found = self._refreshed(mirror, path, target, url, store)
            if found is not None:
                return found
        return self._downloaded(mirror, path, target, url, store)

    def _refreshed(self, mirror, path, target, url, store):
        """Return the result for a file that is here and good, `None` if it has to be fetched."""
        origin = store.origin(path) if self.settings.folder is None else None
        if self.settings.refresh:
            same = origin is not None and origin.url == url
            done = revalidate(self.client, url, target, origin.version if same else None)
            HEALTH.answered(mirror)
            if done.sha256 is not None:
                if self.settings.verify:
                    self._settle(path, target, url, self._list_copy(store))
                return self._kept(path, done, url, store)
        in_cache = self.settings.folder is None
        if in_cache:
            mark_used(target)
        # Nobody may have looked at a file of which nothing is known: its process was killed, or
        # it came as part of something else.
        unknown = in_cache and origin is None and self.settings.verify
        digest = origin.sha256 if origin is not None else ""
        if self.settings.verify == "strict" or unknown:
            digest = sha256_of(target)
            if not self._is_right(path, digest, self._list_copy(store)):
                self.seen.add(digest)
                return None
        if unknown:
            origin = Origin(url, Version(target.stat().st_size), digest)
            # A cache that cannot be written gives what it has all the same.
            with suppress(CacheError):
                store.remember(path, origin)
        return self._found("CACHED", target, url if origin is None else origin.url, digest)

    def _downloaded(self, mirror, path, target, url, store):
        copy = self._list_copy(store)
        expected = self._expected(path, copy) if self.settings.verify else None
        good = None if expected is None else {expected}
        if good and self.settings.verify == "warn" and len(self.seen) == 1:
            good |= self.seen
        try:
            done = download(self.client, url, target, sha256=good, replace=target.exists())
        except ChecksumError as error:
            self.seen.add(error.found)
            # The list may have been replaced together with the file.
            self._expected(path, copy, again=True)
            raise
        HEALTH.answered(mirror)
        if expected is not None and done.sha256 is not None and done.sha256 != expected:
            self.notes.append(STALE_LIST)
        return self._kept(path, done, url, store)

    def _kept(self, path, done, url, store):
        """Return the result of a file that was fetched, or that somebody else just fetched."""
        status = "CACHED" if done.sha256 is None else "COMPLETE"
        if status == "COMPLETE":
            remove_leftovers(done.path)
            if self.settings.folder is None:
                with suppress(CacheError):
                    store.remember(path, Origin(url, done.version, done.sha256))
                store.forget_runs(path)
                self._keep_within()
        origin = store.origin(path)
        if status == "CACHED" and origin is not None and self.settings.folder is None:
            return self._found(status, done.path, origin.url, origin.sha256)
        return self._found(status, done.path, url, done.sha256 or "")

    def _found(self, status, target, url, digest):
        try:
            size = target.stat().st_size
        except OSError as error:
            msg = f"{target} was removed while it was used: {error}."
            raise UnexpectedContentError(msg, url=url, cause=error) from error
        return {
            "status": status,
            "local_path": str(target),
            "url": url,
            "bytes": size,
            "sha256": digest,
        }

    # ---- checksums and room ---------------------------------------------------------------------

    def _list_copy(self, store=None):
        """Return where the list of a file is kept: beside the file."""
        if self.file.checksum_path is None:
            return None
        if self.settings.folder is not None:
            return Path(self.settings.folder, self.file.checksum_path)
        return None if store is None else store.path(self.file.checksum_path)

    def _expected(self, path, copy, *, again=False):
        """Return the digest that the survey's list gives a file, `None` if it gives none."""
        if self.file.checksum_path is None:
            return None
        lists = _shared_lists(self.settings)
        try:
            digests = lists.get(self.file.checksum_path, copy, again=again)
        except TransferError as error:
            if self.settings.verify == "strict":
                raise
            self.notes.append(f"not compared with the survey's list: {error}")
            return None
        return (digests or {}).get(path.rpartition("/")[2])

    def _keep_within(self):
        limit = conf.cache_size * GB
        if not keep_within(self.settings.location, limit, keep_since_s=self.settings.begun_s):
            self.notes.append(LARGER_THAN_LIMIT)
