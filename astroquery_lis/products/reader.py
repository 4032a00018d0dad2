"""Boxes of pixels out of many files at once, wherever each file is.

For each file: the whole file if it is on disk, else the parts of it that are known, else byte
ranges from the mirrors in turn.  All files of a request share one pool of connections; a cold file
costs two dependent round trips (header and tile table, tiles), a known one a single round trip, and
one whose tiles are cached none.
"""

import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..exceptions import (
    CacheError,
    ContentChangedError,
    NotFoundError,
    ServiceDownError,
    TransferError,
    UnexpectedContentError,
)
from ..survey.tangent import Box
from ..transfer.download import check_fits_head, download
from ..transfer.ranges import FIRST_RANGE_BYTES, WholeFileAnswer, fetch_range, merge_ranges
from ..transfer.store import Store
from .tiles import ImageMap, MoreNeeded, OpenImage, open_sparse

__all__ = ["OpenImages", "Section", "SectionReader", "SectionRequest"]

CHANGED_TRIES = 3
"""How often a file that changes under the reader is begun again."""

# What astropy raises for bytes that are not what the header promises.
_DECODE_ERRORS = (OSError, EOFError, ValueError, TypeError, IndexError, KeyError)


@dataclass(frozen=True)
class SectionRequest:
    """A box of one image file.

    Attributes
    ----------
    paths : tuple of str
        Names that the file may have, relative to the survey's root, the likeliest first.
    box : `~astroquery_lis.survey.tangent.Box`
        Pixels.
    """

    paths: tuple
    box: tuple


@dataclass(frozen=True)
class Section:
    """The answer to a `SectionRequest`.

    Attributes
    ----------
    pixels : `~numpy.ndarray` or None
        `None` if no mirror has the file.
    url : str
        Where it came from: a URL or a local path.
    mirror : str
        Name of the mirror.
    failures : tuple of tuple
        ``(mirror, error)`` of the mirrors that failed before.
    cache_error : CacheError or None
        Why nothing could be kept.
    """

    pixels: np.ndarray | None
    url: str = ""
    mirror: str = ""
    failures: tuple = ()
    cache_error: CacheError | None = None


@dataclass(eq=False)
class _Known:
    """An image that is held open, and what is known of its file."""

    image: OpenImage
    stamp: object
    map: ImageMap | None = None
    file: object = None
    prefix: bytes = b""
    runs: object = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class OpenImages:
    """The images used last, held open so that headers and tile tables are parsed once.

    Safe to share among threads.  A forked process begins with none, since it shares file offsets
    with its parent.

    Parameters
    ----------
    limit : int, optional
        How many are held.
    """

    def __init__(self, limit=64):
        self._limit = limit
        self._begin()

    def _begin(self):
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._images = OrderedDict()

    def __getstate__(self):
        return {"_limit": self._limit}

    def __setstate__(self, state):
        self.__init__(state["_limit"])

    def get(self, key, stamp=None):
        """Return the image held under ``key``, if it is of the state ``stamp``."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            known = self._images.get(key)
            if known is None or (stamp is not None and known.stamp != stamp):
                return None
            self._images.move_to_end(key)
            return known

    def put(self, key, known):
        """Hold an image; the one used longest ago is let go."""
        with self._lock:
            self._images[key] = known
            self._images.move_to_end(key)
            while len(self._images) > self._limit:
                self._images.popitem(last=False)

    def drop(self, key):
        """Let an image go."""
        with self._lock:
            self._images.pop(key, None)

    def clear(self):
        """Let every image go."""
        with self._lock:
            self._images.clear()


class SectionReader:
    """Reads boxes of files through mirrors and cache.  A context manager, for one request.

    Parameters
    ----------
    client : `~astroquery_lis.transfer.session.HttpClient`
        Makes the requests.
    mirrors : sequence of `~astroquery_lis.transfer.mirrors.Mirror`
        In the order to try.
    location : path-like or None
        Cache location; `None` to keep nothing.
    images : OpenImages
        Images held open between requests.
    """

    def __init__(self, client, mirrors, location, images):
        self._client = client
        self._mirrors = tuple(mirrors)
        self._temporary = None
        self._location = Path(location) if location is not None else self._private_location()
        self._images = images if location is not None else OpenImages()
        self._cache_error = None
        self._files = ThreadPoolExecutor(client.max_connections, "astroquery_lis-file")
        # A file's thread waits for its ranges, so these need threads of their own.
        self._ranges = ThreadPoolExecutor(client.max_connections, "astroquery_lis-range")

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._files.shutdown(cancel_futures=True)
        self._ranges.shutdown(cancel_futures=True)
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _private_location(self):
        if self._temporary is None:
            self._temporary = tempfile.mkdtemp(prefix="astroquery_lis-")
        return Path(self._temporary)

    def read(self, requests):
        """Read many boxes at once.

        Parameters
        ----------
        requests : sequence of SectionRequest
            What to read.

        Returns
        -------
        list of Section
            In the order of ``requests``.

        Raises
        ------
        TransferError
            The first failure that no mirror could mend.
        """
        futures = [self._files.submit(self._read_one, request) for request in requests]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def has(self, paths):
        """Tell which files some mirror has.

        Parameters
        ----------
        paths : sequence of tuple of str
            For each file, the names that it may have.

        Returns
        -------
        list of bool

        Raises
        ------
        TransferError
            If no mirror could say.
        """
        one_pixel = Box(0, 1, 0, 1)
        sections = self.read([SectionRequest(names, one_pixel) for names in paths])
        return [section.pixels is not None for section in sections]

    def _read_one(self, request):
        failures = []
        first_says_missing = False
        for mirror in self._mirrors:
            try:
                pixels, url = self._read_from(mirror, request)
            except NotFoundError:
                first_says_missing |= mirror is self._mirrors[0]
            except TransferError as error:
                failures.append((mirror.name, error))
            else:
                return Section(pixels, url, mirror.name, tuple(failures), self._cache_error)
        if not failures or first_says_missing:
            return Section(None, failures=tuple(failures), cache_error=self._cache_error)
        raise _all_failed(request.paths[0], failures)

    def _read_from(self, mirror, request):
        """Return (pixels, url) from one mirror, under whichever of its names the file is there."""
        missing = None
        for path in request.paths:
            try:
                if mirror.is_local:
                    return self._read_local(mirror.locate(path), request.box)
                return self._read_remote(mirror, path, request.box)
            except NotFoundError as error:
                missing = error
            except CacheError as error:
                if self._location == self._temporary:
                    raise
                # The answer does not depend on the cache: go on without it and say so.
                self._cache_error = error
                self._location = self._private_location()
                return self._read_remote(mirror, path, request.box)
        raise missing

    def _read_local(self, path, box):
        """Read a file that is on disk whole."""
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            msg = f"{path} does not exist."
            raise NotFoundError(msg, url=str(path), cause=error) from error
        stamp = (status.st_mtime_ns, status.st_size)
        known = self._images.get(str(path), stamp)
        try:
            if known is None:
                _check_whole(path, status.st_size)
                known = _Known(OpenImage(path), stamp)
                self._images.put(str(path), known)
            with known.lock:
                return known.image.read(box), str(path)
        except _DECODE_ERRORS as error:
            self._images.drop(str(path))
            msg = f"{path} cannot be read as a FITS image: {error}."
            raise UnexpectedContentError(msg, url=str(path), cause=error) from error

    def _read_remote(self, mirror, path, box):
        store = Store(self._location / mirror.root_name)
        url = mirror.locate(path)
        whole = store.path(path)
        if whole.exists():
            try:
                return self._read_local(whole, box)[0], url
            except UnexpectedContentError:
                store.forget(path)
        for attempt in range(CHANGED_TRIES):
            try:
                return self._read_parts(store, path, url, box), url
            except WholeFileAnswer:
                store.forget_runs(path)
                self._images.drop((str(store.root), path))
                return self._read_local(whole, box)[0], url
            except ContentChangedError:
                store.forget(path)
                self._images.drop((str(store.root), path))
                if attempt + 1 == CHANGED_TRIES:
                    raise
        raise AssertionError

    def _read_parts(self, store, path, url, box):
        key = (str(store.root), path)
        known = self._images.get(key)
        if known is None:
            known = self._from_store(store, path) or self._begin(store, path, url)
            self._images.put(key, known)
        known_runs, wanted = {}, []
        for start, stop in known.map.ranges(box):
            if stop <= len(known.prefix):
                continue
            held = known.runs.holding(start, stop)
            if held is None:
                wanted.append((start, stop))
            else:
                known_runs[held[0]] = held[1]
        fetched = self._fetch(store, path, url, merge_ranges(wanted), known.runs.version)
        try:
            with known.lock:
                known.file.set_runs({0: known.prefix, **known_runs, **fetched})
                try:
                    pixels = known.image.read(box)
                finally:
                    known.file.set_runs({0: known.prefix})
        except _DECODE_ERRORS as error:
            store.forget_runs(path)
            self._images.drop(key)
            msg = f"The tiles of {url} cannot be decoded: {error}."
            raise UnexpectedContentError(msg, url=url, cause=error) from error
        try:
            for start, data in fetched.items():
                known.runs.add(start, data)
        except CacheError as error:
            # The pixels are good all the same.  Another process may have cleared the folder.
            self._images.drop(key)
            if not isinstance(error.cause, FileNotFoundError):
                self._cache_error = error
        return pixels

    def _fetch(self, store, path, url, ranges, version):
        """Return the bytes of ranges of one state of a file, by their offset."""
        receive = self._receiver(store, path, url, version)
        futures = {
            start: self._ranges.submit(
                fetch_range, self._client, url, start, stop, receive=receive, expected=version
            )
            for start, stop in ranges
        }
        try:
            return {start: future.result()[0] for start, future in futures.items()}
        finally:
            for future in futures.values():
                future.cancel()

    def _receiver(self, store, path, url, version=None):
        def receive(response):
            whole = store.path(path)
            return download(self._client, url, whole, expected=version, answer=response)

        return receive

    def _from_store(self, store, path):
        """Open an image from the parts of it that are kept, or return `None`."""
        runs = store.runs(path)
        held = runs.holding(0, 1) if runs is not None else None
        if held is None:
            return None
        try:
            return self._open(runs, held[1], ImageMap.parse(held[1]))
        except (MoreNeeded, UnexpectedContentError):
            store.forget_runs(path)
            return None

    def _begin(self, store, path, url):
        """Fetch header and tile table of a file of which nothing is known."""
        receive = self._receiver(store, path, url)
        head, version = fetch_range(self._client, url, 0, FIRST_RANGE_BYTES, receive=receive)
        while True:
            try:
                image_map = ImageMap.parse(head, url=url)
                break
            except MoreNeeded as more:
                stop = max(more.stop, min(len(head) * 2, more.stop + FIRST_RANGE_BYTES))
                if len(head) >= version.size:
                    msg = f"{url} ends before its header or its tile table does."
                    raise UnexpectedContentError(msg, url=url) from None
                rest, _ = fetch_range(
                    self._client, url, len(head), stop, receive=receive, expected=version
                )
                head += rest
        runs = store.begin_runs(path, version)
        runs.add(0, head)
        return self._open(runs, head, image_map)

    def _open(self, runs, head, image_map):
        image, file = open_sparse(runs.version.size, image_map, head)
        return _Known(image, runs.version, image_map, file, head, runs)


def _check_whole(path, size):
    """Refuse a local file that ends before its pixels do; astropy would only warn."""
    with open(path, "rb") as stream:
        head = stream.read(FIRST_RANGE_BYTES)
        check_fits_head(path, head, path)
        if str(path).endswith(".gz"):
            return
        while True:
            try:
                image_map = ImageMap.parse(head, url=path)
                break
            except MoreNeeded as more:
                rest = stream.read(more.stop - len(head))
                if not rest:
                    msg = f"{path} ends before its header or its tile table does."
                    raise UnexpectedContentError(msg, url=str(path)) from None
                head += rest
    if image_map.stops.max() > size:
        msg = f"{path} has {size} bytes; its image needs {image_map.stops.max()}."
        raise UnexpectedContentError(msg, url=str(path))


def _all_failed(path, failures):
    """Return the error for a file that no mirror could give."""
    if len(failures) == 1:
        return failures[0][1]
    told = " ".join(f"{name}: {error}" for name, error in failures)
    msg = f"No mirror could give {path}. {told}"
    last = failures[-1][1]
    return ServiceDownError(msg, url=last.url, status=last.status, cause=last)
