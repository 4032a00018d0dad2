"""A reader for many cutouts of the same bricks: every tile fetched once and decoded once.

It is told beforehand which boxes will be read.  So it asks for all missing tiles of a file at once,
or for the file whole when most of them are needed, decodes whole rows of tiles as the cutouts come
to them, and lets a row go after its last use: the memory it takes does not grow with the number of
cutouts, if they come in order of declination.
"""

import threading
from dataclasses import dataclass, field, replace

from ..exceptions import ContentChangedError
from ..io.download import download
from ..io.ranges import WholeFileAnswer, fetch_range, merge_ranges
from .reader import SectionReader
from .sections import Section
from .strips import LayoutChanged, StripCache

__all__ = ["WHOLE_FILE_SHARE", "GroupReader"]

WHOLE_FILE_SHARE = 0.6
"""A file is fetched whole when more than this share of its tiles is wanted."""

GAP_BYTES = 512
"""Tiles that lie closer are asked for as one."""


@dataclass(eq=False)
class _File:
    """What is known in a job of one file."""

    strips: StripCache = field(default_factory=StripCache)
    section: Section | None = None
    mirror: object = None
    is_brought: bool = False
    changes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class GroupReader(SectionReader):
    """A `~.reader.SectionReader` that knows what will be read."""

    def __init__(self, *args):
        super().__init__(*args)
        self._expected = {}
        self._exists = {}
        self._current = threading.local()

    def expect(self, requests):
        """Announce boxes that will be read; call it for all cutouts before the first is read."""
        for request in requests:
            if request.hdu is None:
                self._expected.setdefault(request.paths, _File()).strips.expect(request.box)

    def release(self, requests):
        """Let go what only these boxes needed, whether they were read or not."""
        for request in requests:
            if request.hdu is not None:
                continue
            file = self._expected[request.paths]
            with file.lock:
                file.strips.release(request.box)

    def has(self, requests):
        """Tell which files some mirror has; each is asked for once."""
        unknown = {r.paths: r for r in requests if r.paths not in self._exists}
        found = super().has(list(unknown.values()))
        self._exists.update(zip(unknown, found, strict=True))
        return [self._exists[request.paths] for request in requests]

    def _read_one(self, request):
        file = self._expected.get(request.paths)
        if file is None or request.hdu is not None or request.box not in file.strips:
            return super()._read_one(request)
        with file.lock:
            self._current.file = file
            try:
                return self._read_shared(file, request)
            finally:
                self._current.file = None

    def _read_shared(self, file, request):
        """Return the section of a box, cut from strips that are decoded when first needed."""
        while file.strips.is_tiled:
            before = file.changes
            try:
                missing = file.strips.missing(request.box)
                sections = [self._read_tiles(file, request, box) for box in missing]
                if file.section.pixels is None:
                    return file.section
                if file.changes != before:
                    continue  # Some of the tiles are of another state of the file.
                file.strips.put(missing, [section.pixels for section in sections])
                return replace(file.section, pixels=file.strips.cut(request.box))
            except LayoutChanged:
                continue
        self._current.file = None
        return super()._read_one(request)

    def _read_tiles(self, file, request, box):
        if file.section is not None and file.section.pixels is None:
            return file.section
        section = super()._read_one(replace(request, box=box))
        if file.section is None:
            few = None if section.pixels is None else section.pixels[:0]
            file.section = replace(section, pixels=few)
            file.mirror = next((m for m in self._mirrors if m.name == section.mirror), None)
        return section

    def _mirrors_for(self, request):
        """Return the mirrors, first the one that gave other tiles of the file."""
        file = getattr(self._current, "file", None)
        if file is None or file.mirror is None:
            return super()._mirrors_for(request)
        return (file.mirror, *(m for m in self._mirrors if m is not file.mirror))

    def _pixels(self, known, box):
        file = getattr(self._current, "file", None)
        if file is not None:
            file.strips.learn(known.map)
        return super()._pixels(known, box)

    def _read_remote(self, mirror, path, box):
        file = getattr(self._current, "file", None)
        if file is not None and not file.is_brought and _is_most(file.strips.needed.mean()):
            store = self._store(mirror)
            if not store.path(path).exists() and store.runs(path) is None:
                download(self._client, mirror.locate(path), store.path(path))
        return super()._read_remote(mirror, path, box)

    def _read_parts(self, store, path, url, box):
        file = getattr(self._current, "file", None)
        try:
            if file is not None and not file.is_brought:
                self._bring(file, store, path, url)
            return super()._read_parts(store, path, url, box)
        except ContentChangedError:
            if file is not None:
                file.is_brought = False
                file.changes += 1
                file.strips.forget()
            raise

    def _bring(self, file, store, path, url):
        """Bring all tiles that the job needs and the cache lacks."""
        known = self._known_parts(store, path, url)
        file.strips.learn(known.map)
        needed = file.strips.needed
        starts, stops = known.map.starts[needed], known.map.stops[needed]
        rows = needed.nonzero()[0]
        lacking = {}
        for row, start, stop in zip(rows, starts.tolist(), stops.tolist(), strict=True):
            if stop > max(start, len(known.prefix)) and known.runs.holding(start, stop) is None:
                lacking.setdefault(row, []).append((start, stop))
        if _is_most(sum(len(ranges) for ranges in lacking.values()) / needed.size):
            version = known.runs.version
            result = download(self._client, url, store.path(path), expected=version)
            raise WholeFileAnswer(result)
        # One run for each row of tiles at most, since strips are decoded one by one.
        futures = [
            self._ranges.submit(self._bring_range, known, store, path, url, start, stop)
            for ranges in lacking.values()
            for start, stop in merge_ranges(ranges, gap_bytes=GAP_BYTES)
        ]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()
        file.is_brought = True

    def _bring_range(self, known, store, path, url, start, stop):
        version = known.runs.version
        receive = self._receiver(store, path, url, version)
        data, _ = fetch_range(self._client, url, start, stop, receive=receive, expected=version)
        known.runs.add(start, data)


def _shared(requests):
    """Return those for the first image of a file; later ones are read from the whole file."""
    return [request for request in requests if request.hdu is None]


def _is_most(share):
    return share > WHOLE_FILE_SHARE
