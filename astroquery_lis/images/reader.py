"""Boxes of pixels out of many files at once, wherever each file is.

For each file: the whole file if it is on disk, else the parts of it that are known, else byte
ranges from the mirrors in turn.  All files of a request share one pool of connections; a cold file
costs two dependent round trips (header and tile table, tiles), a known one a single round trip, and
one whose tiles are cached none.
"""

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from .._conf import conf
from ..exceptions import (
    CacheError,
    ContentChangedError,
    NotFoundError,
    UnexpectedContentError,
)
from ..io.download import download
from ..io.places import ask_in_turn
from ..io.ranges import FIRST_RANGE_BYTES, WholeFileAnswer, fetch_range, merge_ranges
from ..io.store import GB, Store, mark_used
from ..io.upkeep import keep_within
from ..survey.pixel_grids import Box
from .open_images import KnownImage, OpenImages, check_whole
from .sections import Section
from .tiles import ImageMap, MoreNeeded, OpenImage, open_sparse

__all__ = ["SectionReader"]

CHANGED_TRIES = 3
"""How often a file that changes under the reader is begun again."""

# What astropy raises for bytes that are not what the header promises.
_DECODE_ERRORS = (OSError, EOFError, ValueError, TypeError, IndexError, KeyError)


class SectionReader:
    """Reads boxes of files through mirrors and cache. A context manager, for one request."""

    source_name = "bricks"

    def __init__(self, client, mirrors, location, images):
        self._client = client
        # The order of an AutoOrder is free, which a plain tuple would not tell.
        self._mirrors = mirrors if isinstance(mirrors, tuple) else tuple(mirrors)
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
        else:
            keep_within(self._location, conf.cache_size * GB)

    @property
    def _is_private(self):
        """Whether what is written is removed at the end."""
        return self._temporary is not None

    def _store(self, mirror):
        """Return the store for what comes from a mirror."""
        # What goes away again may use the room that is kept free.
        margin_bytes = 0 if self._is_private else None
        return Store(self._location / mirror.root_name, margin_bytes=margin_bytes)

    def _private_location(self):
        if self._temporary is None:
            self._temporary = tempfile.mkdtemp(prefix="astroquery_lis-")
        return Path(self._temporary)

    def read(self, requests):
        """Read many boxes at once."""
        futures = [self._files.submit(self._read_one, request) for request in requests]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def has(self, requests):
        """Tell which files some mirror has."""
        one_pixel = Box(0, 1, 0, 1)
        sections = self.read([replace(request, box=one_pixel) for request in requests])
        return [section.pixels is not None for section in sections]

    def _read_one(self, request):
        # Mirrors are not compared for what is here.
        client = None if self._is_held(request) else self._client
        answer = ask_in_turn(
            self._mirrors,
            lambda mirror: self._read_from(mirror, request),
            request.paths[0],
            client=client,
        )
        pixels, url = answer.value or (None, "")
        name = answer.mirror.name if answer.mirror is not None else ""
        return Section(pixels, url, name, answer, self._cache_error)

    def _is_held(self, request):
        """Return True if something of the file is here."""
        first = next((mirror for mirror in self._mirrors if not mirror.is_local), None)
        store = self._store(first) if first is not None else None
        return store is not None and any(store.holds(path) for path in request.paths)

    def _pixels(self, known, box):
        """Decode a box of an image whose bytes are at hand."""
        return known.image.read(box)

    def _read_from(self, mirror, request):
        """Return (pixels, url) from one mirror, under whichever of its names the file is there."""
        missing = None
        for path in request.paths:
            try:
                if request.hdu is not None:
                    return self._read_other_hdu(mirror, path, request)
                if mirror.is_local:
                    return self._read_local(mirror.locate(path), request.box)
                return self._read_remote(mirror, path, request.box)
            except NotFoundError as error:
                missing = error
            except CacheError as error:
                if self._is_private:
                    raise
                # The answer does not depend on the cache: go on without it and say so.
                self._cache_error = error
                self._location = self._private_location()
                return self._read_from(mirror, request)
        raise missing

    def _read_other_hdu(self, mirror, path, request):
        """Read from a later HDU: of small files, whose parts would save little."""
        place = mirror.locate(path)
        if mirror.is_local:
            file = place
            if not file.exists():
                msg = f"{file} does not exist."
                raise NotFoundError(msg, url=str(file))
        else:
            file = self._store(mirror).path(path)
            download(self._client, place, file)
        try:
            return OpenImage(file, hdu=request.hdu).read(request.box), str(place)
        except _DECODE_ERRORS as error:
            msg = f"{place} cannot be read as FITS images: {error}."
            raise UnexpectedContentError(msg, url=str(place), cause=error) from error

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
                image_map = check_whole(path, status.st_size)
                known = KnownImage(OpenImage(path), stamp, image_map)
                self._images.put(str(path), known)
            with known.lock:
                return self._pixels(known, box), str(path)
        except _DECODE_ERRORS as error:
            self._images.drop(str(path))
            msg = f"{path} cannot be read as a FITS image: {error}."
            raise UnexpectedContentError(msg, url=str(path), cause=error) from error

    def _read_remote(self, mirror, path, box):
        store = self._store(mirror)
        url = mirror.locate(path)
        whole = store.path(path)
        if whole.exists():
            try:
                mark_used(whole)
                return self._read_local(whole, box)[0], url
            except UnexpectedContentError:
                store.forget(path)
            except NotFoundError:
                # Another process removed it just now.
                pass
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

    def _known_parts(self, store, path, url):
        """Return an image of which header and tile table are known; they are fetched if need be."""
        key = (str(store.root), path)
        known = self._images.get(key)
        if known is None:
            known = self._from_store(store, path) or self._begin(store, path, url)
            self._images.put(key, known)
        return known

    def _read_parts(self, store, path, url, box):
        key = (str(store.root), path)
        known = self._known_parts(store, path, url)
        known_runs, wanted, held_from, held_to = {}, [], 0, 0
        for start, stop in known.map.ranges(box):
            if stop <= len(known.prefix) or held_from <= start < stop <= held_to:
                continue
            held = known.runs.holding(start, stop)
            if held is None:
                wanted.append((start, stop))
            else:
                held_from, held_to = held[0], held[0] + len(held[1])
                known_runs[held_from] = max(known_runs.get(held_from, b""), held[1], key=len)
        known.runs.mark_used()
        fetched = self._fetch(store, path, url, merge_ranges(wanted), known.runs.version)
        try:
            with known.lock:
                known.file.set_runs({0: known.prefix, **known_runs, **fetched})
                try:
                    pixels = self._pixels(known, box)
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
            return download(
                self._client,
                url,
                whole,
                expected=version,
                answer=response,
                margin_bytes=store.margin_bytes,
            )

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
        return KnownImage(image, runs.version, image_map, file, head, runs)
