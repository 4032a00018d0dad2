"""Catalogue rows out of the Tractor files of the bricks that a region touches."""

import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..exceptions import (
    CacheError,
    TruncatedError,
    UnexpectedContentError,
)
from ..io.download import download
from ..io.mirrors import local_folders
from ..io.places import Failovers, ask_in_turn
from ..io.store import Store
from ..survey.bricks import brick_center, brick_edges, is_north, name_of
from ..survey.paths import file_path
from ..survey.releases import get_release
from .tractor_file import open_table

__all__ = [
    "TYPICAL_FILE_BYTES",
    "BrickFile",
    "Chunk",
    "FileFinder",
    "LocatedFile",
    "brick_files",
    "eligible",
    "read_rows",
    "rows_in_region",
]

T = TypeVar("T")

TYPICAL_FILE_BYTES = 18e6
"""Size of a Tractor file of DR10, on average."""

SIDECARS = ".tables"

PRIMARY_MARGIN_DEG = 0.015
"""How far rows that a brick does not own can lie outside of what it owns."""


@dataclass(frozen=True)
class BrickFile:
    """The Tractor file of one brick in one region."""

    brick_id: int
    region: str  # ``'north'`` or ``'south'``
    path: str  # relative to the survey's root


@dataclass(frozen=True)
class LocatedFile:
    """A file that is on disk."""

    path: Path
    url: str  # where it came from
    mirror: str  # name of the mirror
    sidecars: Path | None  # folder for its sidecar


@dataclass
class Chunk:
    """Rows that one file or one answer brought."""

    n_rows: int
    columns: dict
    north: object  # whether they are of the north
    masks: dict = field(default_factory=dict)
    units: dict = field(default_factory=dict)


def brick_files(bricks, release, region="auto"):
    """Return the Tractor files that hold the rows of bricks."""
    if not len(bricks):
        return []
    regions = get_release(release).regions
    if region != "auto" or len(regions) == 1:
        chosen = [(region,) if region != "auto" else regions] * len(bricks)
    else:
        ra1, ra2, dec1, dec2 = brick_edges(bricks)
        top = np.nextafter(dec2, -90)
        places = [brick_center(bricks), (ra1, dec1), (ra2, dec1), (ra1, top), (ra2, top)]
        north = np.array([is_north(ra, dec) for ra, dec in places])
        both = north.any(axis=0) & ~north.all(axis=0)
        chosen = [
            ("north", "south") if mixed else (("north",) if first else ("south",))
            for mixed, first in zip(both, north[0], strict=True)
        ]
    return [
        BrickFile(int(brick), one, file_path("tractor", release, one, brick=name_of(brick)))
        for brick, some in zip(bricks, chosen, strict=True)
        for one in some
    ]


class FileFinder:
    """Finds whole files: on a mirror here, in the cache, or by fetching them. A context manager."""

    def __init__(self, client, mirrors, location):
        self._client = client
        self._mirrors = tuple(mirrors)
        self._location = None if location is None else Path(location)
        self._keeps = location is not None
        self._temporary = None
        self._lock = threading.Lock()
        self._failovers = Failovers()
        self.cache_error = None

    def __enter__(self):
        if self._location is None:
            self._use_temporary()
        return self

    def __exit__(self, *exc_info):
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
        if exc_info[0] is None:
            self._failovers.warn()

    def _use_temporary(self):
        with self._lock:
            if self._temporary is None:
                self._temporary = Path(tempfile.mkdtemp(prefix="astroquery_lis-"))
            self._location = self._temporary
            self._keeps = False

    @property
    def only_local(self):
        """Whether every mirror is a directory."""
        return bool(self.folders)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders to look in if every mirror is one, else none."""
        return local_folders(self._mirrors)

    @property
    def service(self):
        """Name of the first mirror."""
        return self._mirrors[0].name

    def address(self, path):
        """Return where the first mirror has a file: a URL or a local path, as text."""
        return str(self._mirrors[0].locate(path))

    def local(self, path):
        """Return a file if it is on disk."""
        for mirror in self._mirrors:
            place = mirror.locate(path)
            file = Path(place) if mirror.is_local else self._store(mirror).whole(path)
            if file is not None and file.is_file():
                return self._located(mirror, path, file)
        return None

    def find(self, path):
        """Return a file, fetched if need be."""
        found = self.local(path)
        if found is not None:
            return found
        remote = [mirror for mirror in self._mirrors if not mirror.is_local]
        answer = ask_in_turn(remote, lambda mirror: self._fetch(mirror, path), path)
        self._failovers.add(answer)
        if answer.mirror is None:
            return None
        return self._located(answer.mirror, path, answer.value)

    def find_all(self, paths):
        """Return many files, several fetched at once."""
        found = [self.local(path) for path in paths]
        if all(file is not None for file in found) or len(paths) < 2:
            return [file or self.find(path) for file, path in zip(found, paths, strict=True)]
        workers = min(self._client.max_connections, len(paths))
        with ThreadPoolExecutor(workers, "astroquery_lis-table") as pool:
            return list(pool.map(self.find, paths))

    def open(self, located, held=None):
        """Open a Tractor file."""
        return self.read(located, lambda file: open_table(file.path, file.sidecars, held))

    def read(self, located: LocatedFile, parse: Callable[[LocatedFile], T]) -> T:
        """Return what a file holds; one in the cache that is not whole is fetched anew, once."""
        try:
            return parse(located)
        except (UnexpectedContentError, TruncatedError):
            mirror = next(m for m in self._mirrors if m.name == located.mirror)
            if mirror.is_local:
                raise
            located.path.unlink(missing_ok=True)
            path = located.path.relative_to(self._location / mirror.root_name).as_posix()
            return parse(self._located(mirror, path, self._fetch(mirror, path)))

    def _store(self, mirror):
        return Store(self._location / mirror.root_name)

    def _fetch(self, mirror, path):
        file = self._store(mirror).path(path)
        try:
            download(self._client, mirror.locate(path), file)
        except CacheError as error:
            if file.is_relative_to(self._temporary or "/-"):
                raise
            # The rows do not depend on the cache: go on without it and say so.
            self.cache_error = error
            self._use_temporary()
            return self._fetch(mirror, path)
        return file

    def _located(self, mirror, path, file):
        sidecars = self._location / mirror.root_name / SIDECARS / path if self._keeps else None
        return LocatedFile(Path(file), str(mirror.locate(path)), mirror.name, sidecars)


def rows_in_region(table, brick, request):
    """Return which rows of a file are asked for, by position and kind."""
    positions = table.positions
    rows = np.flatnonzero(request.sky.contains(positions["ra"], positions["dec"]))
    return rows[eligible(table, brick, request, rows)]


def eligible(table, brick, request, rows=slice(None)):
    """Return which rows may be asked for wherever they are."""
    positions = table.positions[rows]
    chosen = np.ones(len(positions), bool)
    if request.primary:
        chosen &= positions["primary"]
    if request.drop_duplicates:
        chosen &= ~positions["duplicate"]
    if request.region == "auto" and get_release(request.release).is_split:
        north = is_north(positions["ra"], positions["dec"])
        chosen &= north == (brick.region == "north")
    return chosen


def read_rows(table, brick, rows, names):
    """Read rows of one file."""
    columns = table.read(rows, table.fields if names is None else names)
    units = {name: table.fields[name][3] for name in columns}
    return Chunk(len(rows), columns, brick.region == "north", units=units)
