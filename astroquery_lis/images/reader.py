"""Boxes of pixels out of many files at once, wherever each file is.

For each file: the whole file if it is on disk, else the parts of it that are known, else byte
ranges from the mirrors in turn.  All files of a request share one pool of connections; a cold file
costs two dependent round trips (header and tile table, tiles), a known one a single round trip, and
one whose tiles are cached none.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from .._conf import conf
from ..exceptions import (
    CacheError,
    ContentChangedError,
    NotFoundError,
    TransferError,
    UnexpectedContentError,
)
from ..io.bounds import Threads
from ..io.download import Downloaded, download
from ..io.http import HttpClient, Options, shared_client
from ..io.mirrors import Mirror, local_folders
from ..io.places import Answer, ask_in_turn
from ..io.ranges import (
    FIRST_RANGE_BYTES,
    FIRST_WINDOW_BYTES,
    RemoteParts,
    Version,
    WholeFileAnswer,
    merge_ranges,
)
from ..io.store import VERSION_FILE, Runs, Store, keep_within, mark_used
from ..io.whole_files import GB
from ..survey.pixel_grids import Box
from ..survey.placement import frame_of
from ..survey.releases import Tree
from .file_layout import Cards, FileSource, ImageMap, MoreNeeded
from .open_images import (
    DECODE_ERRORS,
    BoxRead,
    KnownImage,
    OpenImages,
    SparseFile,
    open_sparse,
    ranges_under,
    read_on_disk,
)
from .strips import SharedFile, SharedFiles, read_shared

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse


CHANGED_TRIES = 3
"""How often a file that changes under the reader is begun again."""

SMALL_PIX = 2_000_000
"""Pixels of all boxes of a request up to which threads cost more than they bring."""


Proof: TypeAlias = Callable[..., None]
"""Is given folders, release, region, bricks, what is lacking, and ``band=``."""


@dataclass(frozen=True)
class SectionRequest:
    """A box of one image file."""

    paths: tuple[str, ...]  # names that the file may have, the likeliest first
    box: Box
    source: FileSource  # its tree, brick, product and band
    hdu: int | None = None  # None for the first image; others are read from the whole file


class Section(NamedTuple):
    """The answer to a `SectionRequest`."""

    pixels: np.ndarray | None  # None if no mirror has the file
    url: str = ""
    mirror: str = ""
    answer: Answer = Answer()  # of the mirrors; empty from the viewer
    cache_error: CacheError | None = None
    cards: Cards = ()  # of the file's header, for the cutout's


_fetches_nothing: ContextVar[bool] = ContextVar("fetches_nothing", default=False)


class _NotAtHand(Exception):  # noqa: N818 - it reports no error
    """Something would have to be fetched."""


class SectionReader(AbstractContextManager):
    """Reads boxes of files through mirrors and cache.  A context manager, for one request or job.

    Without a location nothing is kept.  ``shared`` says what a job will read, so that cutouts share
    what is fetched and decoded.  ``proof`` refuses where a file that the mirrors lack may be of the
    survey all the same.
    """

    source_name = "bricks"
    evidence = "nexp"  # what tells where a plane was observed that does not tell it itself

    def __init__(
        self,
        client_options: Options,
        mirrors: Sequence[Mirror],
        location: str | Path | None,
        images: OpenImages,
        shared: SharedFiles | None = None,
        proof: Proof | None = None,
    ) -> None:
        self._client_options = client_options
        self._proof = proof
        # The order of an AutoOrder is free, which a plain tuple would not tell.
        self._mirrors = mirrors if isinstance(mirrors, tuple) else tuple(mirrors)
        self._temporary: str | None = None
        self._location = Path(location) if location is not None else self._private_location()
        self.images = images if location is not None else OpenImages()
        self._shared = shared
        self._stores: dict[str, Store] = {}
        self.cache_error: CacheError | None = None
        self.has_fetched = False
        self.n_pieces = 1  # in which the first bytes of a file are asked for
        max_connections = dict(client_options)["max_connections"]
        self._files = Threads(max_connections, "astroquery_lis-file")
        # A file's thread waits for its ranges, so these need threads of their own.
        self.ranges = Threads(max_connections, "astroquery_lis-range")

    @property
    def client(self) -> HttpClient:
        """What fetches: the client that jobs of this process share."""
        return shared_client(self._client_options)

    def __exit__(self, *exc_info: object) -> None:
        self._files.shutdown(cancel_futures=True)
        self.ranges.shutdown(cancel_futures=True)
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
        elif self.has_fetched:
            keep_within(self._location, conf.cache_size * GB)

    def _store(self, mirror: Mirror) -> Store:
        """Return the store for what comes from a mirror."""
        if mirror.name not in self._stores:
            # What goes away again may use the room that is kept free.
            margin_bytes = 0 if self._temporary is not None else None
            root = self._location / mirror.root_name
            self._stores[mirror.name] = Store(root, margin_bytes=margin_bytes)
        return self._stores[mirror.name]

    def _private_location(self) -> Path:
        if self._temporary is None:
            self._temporary = tempfile.mkdtemp(prefix="astroquery_lis-")
        return Path(self._temporary)

    def read(self, requests: Sequence[SectionRequest]) -> list[Section]:
        """Read many boxes at once; raises the first failure that no mirror could mend."""
        read = self._read_box if self._shared is None else self._read_one
        sections: dict[int, Section] = {}
        if sum(r.box.shape[0] * r.box.shape[1] for r in requests) <= SMALL_PIX:
            # What is at hand is decoded one after the other: threads would fight for the lock.
            token = _fetches_nothing.set(True)
            try:
                for number, request in enumerate(requests):
                    # What fails here is asked of the mirrors below.
                    with suppress(_NotAtHand, TransferError):
                        sections[number] = read(request)
            finally:
                _fetches_nothing.reset(token)
        pending = [number for number in range(len(requests)) if number not in sections]
        if pending:
            read_now = self._read_at_once([requests[number] for number in pending], read)
            sections |= zip(pending, read_now, strict=True)
        return [sections[number] for number in range(len(requests))]

    def _read_at_once(
        self, requests: list[SectionRequest], read: Callable[[SectionRequest], Section]
    ) -> list[Section]:
        if self._shared is None:
            # Connections that would wait for the second round trip share the first.
            self.n_pieces = max(self.client.max_connections // len(requests), 1)
        futures = [self._files.submit(read, request) for request in requests]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def begin_fetch(self) -> None:
        """Note that something has to be fetched; refuse it where only what is at hand is read."""
        if _fetches_nothing.get():
            raise _NotAtHand
        self.has_fetched = True

    def prove_absent(self, tree: Tree, brick: int, lacks: str, band: str | None) -> None:
        """Refuse to take what folders lack for what the survey does not have."""
        folders = local_folders(self._mirrors)
        if folders and self._proof is not None:
            self._proof(folders, tree.release, tree.region, [brick], lacks, band=band)

    def _read_one(self, request: SectionRequest) -> Section:
        shared = None
        if request.hdu is None and self._shared is not None:
            shared = self._shared.file(request.paths, request.box)
        if shared is None:
            return self._read_box(request)
        with shared.lock:
            return read_shared(request, shared, self._read_box)

    def _read_box(self, request: SectionRequest, shared: SharedFile | None = None) -> Section:
        mirrors = self._mirrors
        if shared is not None and shared.mirror is not None:
            # First the one that gave other tiles of the file.
            mirrors = (shared.mirror, *(m for m in mirrors if m is not shared.mirror))
        if _fetches_nothing.get():
            # Nobody is asked for what is here, so nobody's health is told by it.
            answer = Answer(self._read_from(mirrors[0], request, shared), mirrors[0])
        else:
            # Mirrors are not compared for what is here in part.
            compares = len(mirrors) > 1 and not self._is_held(request)
            answer = ask_in_turn(
                mirrors,
                lambda mirror: self._read_from(mirror, request, shared),
                request.paths[0],
                client=self.client if compares else None,
            )
        pixels, url, cards = answer.value or (None, "", ())
        name = answer.mirror.label if answer.mirror is not None else ""
        return Section(pixels, url, name, answer, self.cache_error, cards)

    def _is_held(self, request: SectionRequest) -> bool:
        """Return True if something of the file is here."""
        first = next((mirror for mirror in self._mirrors if not mirror.is_local), None)
        store = self._store(first) if first is not None else None
        return store is not None and any(store.holds(path) for path in request.paths)

    def _read_from(
        self, mirror: Mirror, request: SectionRequest, shared: SharedFile | None
    ) -> BoxRead:
        """Read from one mirror, under whichever of its names the file is there."""
        missing = None
        for path in request.paths:
            try:
                if request.hdu is not None:
                    return self._read_other_hdu(mirror, path, request)
                if mirror.is_local:
                    place, origin = mirror.locate(path), mirror.origin(path)
                    return read_on_disk(self.images, place, origin, request, shared)
                return self._read_remote(mirror, path, request, shared)
            except NotFoundError as error:
                missing = error
            except CacheError as error:
                if self._temporary is not None:
                    raise
                # The answer does not depend on the cache: go on without it and say so.
                self.cache_error = error
                self._location = self._private_location()
                self._stores = {}
                return self._read_from(mirror, request, shared)
        assert missing is not None
        raise missing

    def _read_other_hdu(self, mirror: Mirror, path: str, request: SectionRequest) -> BoxRead:
        """Read from a later HDU: of small files, whose parts would save little."""
        file = Path(mirror.locate(path)) if mirror.is_local else self._whole_file(mirror, path)
        try:
            return read_on_disk(self.images, file, mirror.origin(path), request)
        except UnexpectedContentError:
            if not mirror.is_local:
                self._store(mirror).forget_whole(path)
            raise

    def _whole_file(self, mirror: Mirror, path: str) -> Path:
        """Return a file of a mirror that is kept whole, fetched if it is not here."""
        store = self._store(mirror)
        file = store.whole(path)
        if file is None:
            file = self.fetch_whole(store, path, str(mirror.locate(path))).path
        return file

    def fetch_whole(
        self,
        store: Store,
        path: str,
        url: str,
        *,
        expected: Version | None = None,
        answer: BaseHTTPResponse | None = None,
    ) -> Downloaded:
        """Fetch a file whole into a store; an answer is that of a request for a part."""
        self.begin_fetch()
        return download(
            self.client,
            url,
            store.root / path,
            expected=expected,
            answer=answer,
            margin_bytes=store.margin_bytes,
        )

    def _read_remote(
        self, mirror: Mirror, path: str, request: SectionRequest, shared: SharedFile | None
    ) -> BoxRead:
        """Read from the whole file if it is kept, else from its parts."""
        store, url = self._store(mirror), str(mirror.locate(path))
        # A packed file is of use only whole, of another parts that are here will do.
        has_enough = store.whole if path.endswith(".gz") else store.holds
        wants_whole = path.endswith(".gz") or (shared is not None and shared.wants_whole)
        if wants_whole and not has_enough(path):
            self.fetch_whole(store, path, url)
        whole = store.whole(path)
        if whole is not None:
            try:
                return read_on_disk(self.images, whole, url, request, shared)
            except UnexpectedContentError:
                store.forget(path)
            except NotFoundError:
                # Another process removed it just now.
                pass
        return PartedImage(self, store, path, url, request.source).read(request, shared)


GAP_BYTES = 512
"""Tiles of a job that lie closer are asked for as one."""


@dataclass(eq=False, kw_only=True)
class _KnownParts(KnownImage):
    """An image of a remote file, of which some parts are known."""

    map: ImageMap
    file: SparseFile
    prefix: bytes
    runs: Runs


class PartedImage:
    """A file of a mirror that is read in parts: what is needed is fetched, and kept."""

    def __init__(
        self, reader: SectionReader, store: Store, path: str, url: str, source: FileSource
    ) -> None:
        self._reader = reader
        self._store = store
        self._path = path
        self._url = url
        self._source = source
        self.key = str(store.root), path

    def read(self, request: SectionRequest, shared: SharedFile | None) -> BoxRead:
        """Read a box; tiles that are not kept are fetched, or the whole file if that comes."""
        for attempt in range(1, CHANGED_TRIES + 1):
            try:
                if shared is not None and not shared.is_brought:
                    self._bring(shared)
                return self._read(request.box, shared)
            except WholeFileAnswer:
                self._store.forget_runs(self._path)
                self._reader.images.drop(self.key)
                file = self._store.root / self._path
                return read_on_disk(self._reader.images, file, self._url, request, shared)
            except ContentChangedError:
                self._forget(shared)
                if attempt == CHANGED_TRIES:
                    raise
        raise AssertionError

    def _forget(self, shared: SharedFile | None) -> None:
        """Drop all that is kept of a file that has changed."""
        self._store.forget(self._path)
        self._reader.images.drop(self.key)
        if shared is not None:
            shared.forget()

    def _read(self, box: Box, shared: SharedFile | None) -> BoxRead:
        known = self._known(box)
        layout = known.layout(self._source)
        part = box if layout.is_whole else layout.in_file(box)
        held_runs: dict[int, bytes] = {}
        missing, held_from, held_to = [], 0, 0
        for start, stop in ranges_under(known.map, part):
            if stop <= len(known.prefix) or held_from <= start < stop <= held_to:
                continue
            held = known.runs.holding(start, stop)
            if held is None:
                missing.append((start, stop))
            else:
                held_from, held_to = held[0], held[0] + len(held[1])
                held_runs[held_from] = max(held_runs.get(held_from, b""), held[1], key=len)
        mark_used(known.runs.folder / VERSION_FILE)
        fetched = self._fetch(merge_ranges(missing), known.runs.version) if missing else {}
        try:
            with known.lock:
                known.file.set_runs({0: known.prefix, **held_runs, **fetched})
                try:
                    pixels = known.read(box, self._source, shared)
                finally:
                    known.file.set_runs({0: known.prefix})
        except DECODE_ERRORS as error:
            self._store.forget_runs(self._path)
            self._reader.images.drop(self.key)
            msg = f"The tiles of {self._url} cannot be decoded: {error}."
            raise UnexpectedContentError(msg, url=self._url, cause=error) from error
        if fetched:
            self._keep(known, fetched)
        return pixels, self._url, layout.cards

    def _keep(self, known: _KnownParts, fetched: dict[int, bytes]) -> None:
        """Keep what was fetched, once it could be decoded."""
        try:
            for start, data in fetched.items():
                known.runs.add(start, data)
        except CacheError as error:
            # The pixels are good all the same.  Another process may have cleared the folder.
            self._reader.images.drop(self.key)
            if not isinstance(error.cause, FileNotFoundError):
                self._reader.cache_error = error

    def _bring(self, shared: SharedFile) -> None:
        """Fetch all tiles that a job needs and the cache lacks."""
        known = self._known()
        known.tell(known.layout(self._source), shared)
        needed = shared.strips.needed
        starts, stops = known.map.starts[needed], known.map.stops[needed]
        rows = needed.nonzero()[0]
        lacking: dict[int, list[tuple[int, int]]] = {}
        for row, start, stop in zip(rows, starts.tolist(), stops.tolist(), strict=True):
            if stop > max(start, len(known.prefix)) and known.runs.holding(start, stop) is None:
                lacking.setdefault(int(row), []).append((start, stop))
        self._parts.version = known.runs.version
        if shared.is_most(sum(len(ranges) for ranges in lacking.values())):
            raise WholeFileAnswer(self._receive())
        # One run for each row of tiles at most, since strips are decoded one by one.
        runs = (
            run for ranges in lacking.values() for run in merge_ranges(ranges, gap_bytes=GAP_BYTES)
        )
        self._fetch(runs, known.runs.version, keep=known.runs.add)
        shared.is_brought = True

    @cached_property
    def _parts(self) -> RemoteParts:
        reader = self._reader
        return RemoteParts(reader.client, self._url, self._receive, threads=reader.ranges)

    def _receive(self, answer: BaseHTTPResponse | None = None) -> Downloaded:
        """Take the whole file, which may be the answer to a request for a part."""
        parts, version = (self._store, self._path, self._url), self._parts.version
        return self._reader.fetch_whole(*parts, expected=version, answer=answer)

    def _fetch(
        self,
        ranges: Iterable[tuple[int, int]],
        version: Version,
        keep: Callable[[int, bytes], object] | None = None,
    ) -> dict[int, bytes]:
        """Return the bytes of ranges of one state of a file by offset, unless each is kept."""
        self._reader.begin_fetch()
        self._parts.version = version
        return self._parts.fetch(ranges, keep)

    def _known(self, box: Box | None = None) -> _KnownParts:
        """Return an image of which header and tile table are known; fetch them if need be.

        Tiles of the box come along where that takes no longer.
        """
        known = self._reader.images.get(self.key)
        if known is None:
            known = self._from_store() or self._begin(box)
            try:
                known.layout(self._source)
            except UnexpectedContentError:
                self._store.forget_runs(self._path)
                raise
            self._reader.images.put(self.key, known)
        assert isinstance(known, _KnownParts)
        return known

    def _from_store(self) -> _KnownParts | None:
        """Open an image from the parts of it that are kept, or return `None`."""
        runs = self._store.runs(self._path)
        if runs is None:
            return None
        held = runs.holding(0, 1)
        if held is None:
            return None
        try:
            return _open_parts(runs, held[1], ImageMap.parse(held[1]), self._url)
        except (MoreNeeded, UnexpectedContentError):
            self._store.forget_runs(self._path)
            return None

    def _begin(self, box: Box | None) -> _KnownParts:
        """Fetch header and tile table of a file of which nothing is known."""
        self._reader.begin_fetch()
        parts, url = self._parts, self._url
        parts.version = None
        n_bytes, n_pieces = FIRST_RANGE_BYTES, self._reader.n_pieces
        if n_pieces >= n_bytes // FIRST_WINDOW_BYTES:
            # What the connections can bring at once; longer pieces would take twice as long.
            n_bytes = min(n_bytes, n_pieces * FIRST_WINDOW_BYTES)
        head = parts.head(n_bytes, n_pieces=n_pieces)
        assert parts.version is not None
        tiles: dict[int, bytes] = {}
        n_whole = frame_of((self._source[-1],)).size_pix
        while True:
            try:
                image_map = ImageMap.parse(head, url=url)
                break
            except MoreNeeded as more:
                stop, ranges = more.stop, []
                if more.image_map is None:
                    # Where the header ends is not known.
                    stop = max(stop, min(len(head) * 2, stop + FIRST_RANGE_BYTES))
                elif box is not None and more.image_map.shape == (n_whole, n_whole):
                    # Where a file with more or less of the brick begins, its layout tells.
                    ranges = merge_ranges(ranges_under(more.image_map, box))
                if len(head) >= parts.version.size:
                    msg = f"{url} ends before its header or its tile table does."
                    raise UnexpectedContentError(msg, url=url) from None
                tiles = parts.fetch([(len(head), stop), *ranges])
                head += tiles.pop(len(head))
        runs = self._store.begin_runs(self._path, parts.version)
        for start, data in {0: head, **tiles}.items():
            runs.add(start, data)
        return _open_parts(runs, head, image_map, url)


def _open_parts(runs: Runs, head: bytes, image_map: ImageMap, url: str) -> _KnownParts:
    image, file = open_sparse(runs.version.size, image_map, head)
    return _KnownParts(
        image=image, stamp=runs.version, map=image_map, url=url, file=file, prefix=head, runs=runs
    )
