"""Catalogue rows out of the Tractor files of the bricks that a region touches.

Where the columns of a file lie in a row, and a digest of every row's position, are kept in a
sidecar in the cache; with it a repeated query reads neither the FITS header nor a single row that
it does not return.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from astroquery.exceptions import LargeQueryWarning

from .._typing import Payload
from ..exceptions import (
    CoverageWarning,
    InvalidRequestError,
    NoCoverageError,
    UnexpectedContentError,
    warn,
)
from ..io.places import FileFinder, LocatedFile
from ..survey.bricks import brick_center, brick_edges, is_north, name_of
from ..survey.catalog_request import CatalogRequest, Sky
from ..survey.paths import file_path
from ..survey.releases import get_release
from ..survey.tractor import RowIds, parse_unit
from ..survey.tractor_columns import (
    MEASURED_REDSHIFTS,
    NO_REDSHIFT,
    REDSHIFTS,
    TractorColumn,
    any_column,
)
from .brick_tables import require_unlisted
from .catalog_table import Chunk, Rows, few
from .table_file import (
    FileColumn,
    TableFile,
    TableLayout,
    decoded,
    open_rows,
    remembered,
    remote_layout,
)

if TYPE_CHECKING:
    from .._typing import FilePath

POSITIONS = np.dtype(
    [("ra", "<f8"), ("dec", "<f8"), ("primary", "?"), ("duplicate", "?"), ("north", "?")]
)
"""Fields of the sidecar: position, BRICK_PRIMARY, whether the type is DUP, and whether the north
is official there."""


@dataclass
class TractorFile(TableFile):
    """The rows of one catalogue, and their positions."""

    positions: np.ndarray = field(kw_only=True, repr=False)  # of type `POSITIONS`


OpenTables: TypeAlias = "OrderedDict[tuple[str, str], TableFile]"
"""The tables used last, so that a repeated query does not read even the sidecar."""

MAX_TABLES = 64


def hold(tables: OpenTables, key: tuple[str, str], table: TableFile) -> None:
    """Put a table last; the one used longest ago is let go."""
    # Never out of it for a moment: another thread may look for it.
    tables[key] = table
    with suppress(KeyError):  # another thread let it go meanwhile
        tables.move_to_end(key)
        while len(tables) > MAX_TABLES:
            tables.popitem(last=False)


def open_table(
    path: FilePath, sidecars: Path | None = None, tables: OpenTables | None = None
) -> TractorFile:
    """Open a Tractor file."""
    path = Path(path)
    status = os.stat(path)
    key = (str(path), f"{status.st_mtime_ns}-{status.st_size}")
    tables = OrderedDict() if tables is None else tables
    table = tables.get(key)
    if isinstance(table, TractorFile):
        with suppress(KeyError):  # another thread let it go meanwhile
            tables.move_to_end(key)
        return table
    table = remembered(
        path,
        sidecars,
        load=partial(_of_note, path),
        read=lambda: with_positions(open_rows(path, what="a Tractor catalogue")),
        note=_note_of,
    )
    hold(tables, key, table)
    return table


def _note_of(table: TractorFile) -> tuple[np.ndarray, str] | None:
    """Return what is kept of a table; nothing if its file is packed, which has to be read anew."""
    return (table.positions, table.layout.to_text()) if table.data is None else None


def _of_note(path: Path, positions: np.ndarray, text: str) -> TractorFile:
    """Return the table as an earlier call described it."""
    layout = TableLayout.of_text(text)
    if positions.dtype != POSITIONS or len(positions) != layout.n_rows:
        raise ValueError
    return TractorFile(path, layout, positions=positions)


def with_positions(table: TableFile) -> TractorFile:
    """Return a table with the positions of its rows, if it is a catalogue."""
    lacking = [n for n in ("ra", "dec", "brickid", "objid") if n not in table.fields]
    if lacking:
        msg = f"{table.path} is not a Tractor catalogue: it has no {', '.join(lacking)}."
        raise UnexpectedContentError(msg, url=str(table.path))
    n_rows = table.layout.n_rows
    columns = table.read(np.arange(n_rows), ("ra", "dec", "brick_primary", "type"))
    positions = np.zeros(n_rows, POSITIONS)
    positions["ra"], positions["dec"] = columns["ra"], columns["dec"]
    positions["primary"] = columns.get("brick_primary", True)
    if "type" in columns:
        positions["duplicate"] = columns["type"] == "DUP"
    placed = np.isfinite(columns["ra"]) & (np.abs(columns["dec"]) <= 90)
    positions["north"][placed] = is_north(columns["ra"][placed], columns["dec"][placed])
    return TractorFile(table.path, table.layout, table.data, positions=positions)


def own_columns(fields: Mapping[str, FileColumn], release: str) -> dict[str, TractorColumn]:
    """Return the columns of a file that no release of the survey has."""
    columns = {}
    for name, column in fields.items():
        if any_column(name, release) is None:
            values = decoded(column, np.empty((0, *column.shape), column.kind))
            kind = values.dtype.str.lstrip("<>|=")
            dtype = "?" if kind == "b1" else kind
            length = int(np.prod(column.shape, dtype=int))
            unit = parse_unit(column.unit)
            columns[name] = TractorColumn(name, dtype, length, unit, name, None, False)
    return columns


# ---- files of bricks as a source ----------------------------------------------------------------

FEW_BRICKS = 4
"""So many brick files are fetched without a word."""

SMALL_DEG = 10.0
"""Larger regions are not looked up brick by brick."""

PRIMARY_MARGIN_DEG = 0.015
"""How far rows that a brick does not own can lie outside of what it owns."""


@dataclass(frozen=True)
class RowFile:
    """A file with the rows of one brick, or of some, in one region."""

    bricks: tuple[int, ...]
    region: str  # ``'north'`` or ``'south'``
    path: str  # relative to the survey's root
    by_position: bool  # whether rows count only where their region is the official one
    beside: str = ""  # path of the redshifts of the same rows


class Opened(NamedTuple):
    """A file whose table is open."""

    file: RowFile
    table: TractorFile
    url: str  # where it came from


def brick_files(bricks: np.ndarray, release: str, region: str = "auto") -> list[RowFile]:
    """Return the Tractor files that hold the rows of bricks."""
    regions = get_release(release).regions_of(region)
    is_free = len(regions) > 1
    touched = _touched(bricks) if is_free else {regions[0]: np.ones(len(bricks), bool)}
    path = partial(file_path, "tractor", release)
    return [
        RowFile((int(brick),), name, path(name, brick=name_of(brick)), is_free)
        for number, brick in enumerate(bricks)
        for name, is_touched in touched.items()
        if is_touched[number]
    ]


def _touched(bricks: np.ndarray) -> dict[str, np.ndarray]:
    """Return in which bricks there are positions whose official region each is."""
    ra1, ra2, dec1, dec2 = brick_edges(bricks)
    top = np.nextafter(dec2, -90)
    places = [brick_center(bricks), (ra1, dec1), (ra2, dec1), (ra1, top), (ra2, top)]
    north = np.array([np.asarray(is_north(ra, dec)) for ra, dec in places])
    return {"north": np.any(north, axis=0), "south": np.any(~north, axis=0)}


@lru_cache(maxsize=16)
def _bricks_of(sky: Sky, margin_deg: float, release: str, region: str) -> tuple[RowFile, ...]:
    """Return the files whose rows can be in a region, remembered for when it is asked again."""
    if isinstance(sky, RowIds):
        regions = get_release(release).regions_of(region)
        return tuple(
            replace(brick, by_position=False)
            for name in regions
            for brick in brick_files(sky.bricks_of(name), release, name)
        )
    return tuple(brick_files(sky.bricks(margin_deg), release, region))


@dataclass(frozen=True, eq=False)
class TractorFiles:
    """The bricks' Tractor files as a source of the catalogue."""

    finder: FileFinder
    open_tables: OpenTables
    max_bricks: int
    on_missing: str

    name = "files"
    has_redshifts = False
    unit = "brick files"
    typical_bytes = 18e6
    """Size of a Tractor file of DR10, on average."""

    @property
    def only_local(self) -> bool:
        """Whether every mirror is a directory."""
        return self.finder.only_local

    def are_here(self, request: CatalogRequest) -> bool:
        """Tell whether all files of a request, not too many, are on disk."""
        is_by_id = isinstance(request.sky, RowIds)
        if not is_by_id and request.sky.enclosing.radius_deg >= SMALL_DEG:
            return False
        bricks = self.bricks(request)
        is_small = len(bricks) <= self.max_bricks
        return is_small and all(self.finder.local(brick.path) for brick in bricks)

    def bricks(self, request: CatalogRequest) -> tuple[RowFile, ...]:
        """Return the files whose rows can be in the region; refuse what none has."""
        if not self.has_redshifts and not REDSHIFTS.isdisjoint(request.needed):
            request.refuse_redshifts(f"source={self.name!r}")
        margin_deg = 0.0 if request.primary else PRIMARY_MARGIN_DEG
        return _bricks_of(request.sky, margin_deg, request.release, request.region)

    def grouped(self, bricks: tuple[RowFile, ...], release: str) -> tuple[RowFile, ...]:
        """Return the files that have the rows of the bricks of Tractor files."""
        return bricks

    def own_columns(
        self, sky: Sky, release: str, region: str, *, may_ask: bool
    ) -> Mapping[str, TractorColumn]:
        """Return the columns beyond the survey's, as the first file that there is has them.

        A file of the survey's own mirrors has none; of another server a header may be asked for.
        """
        bricks = self.grouped(_bricks_of(sky, 0.0, release, region), release)
        return own_columns(next(self._fields(bricks, may_ask=may_ask), {}), release)

    def _fields(
        self, bricks: Sequence[RowFile], *, may_ask: bool
    ) -> Iterator[Mapping[str, FileColumn]]:
        """Yield the columns of files that are here, then perhaps of some that are not."""
        for file in filter(None, (self.finder.local(brick.path) for brick in bricks)):
            yield self.open(file).fields
        if not may_ask or all(mirror.official for mirror in self.finder.mirrors):
            return
        for brick in bricks[:FEW_BRICKS]:
            answer = self.finder.read_parts(brick.path, remote_layout)
            if isinstance(answer, LocatedFile):
                yield self.open(answer).fields
            elif answer is not None:
                yield answer.fields

    def payload(self, request: CatalogRequest) -> Payload:
        """Return what would be fetched."""
        urls = [self.finder.address(brick.path) for brick in self.bricks(request)]
        return {"service": self.finder.service, "urls": urls}

    def lacking(self, request: CatalogRequest, chunks: Sequence[Chunk]) -> frozenset[str]:
        """Return columns of the default ones that the source has not; refuse others by name."""
        return frozenset()

    def rows(self, request: CatalogRequest, *, use_maxrec: bool = True) -> Rows:
        """Return the rows of a request."""
        bricks = self.bricks(request)
        tables = self.tables(bricks, "The region")
        if len(tables) < len(bricks):
            self._tell_gaps(_gaps(bricks, tables), len(bricks), request.release)
        chunks, needs = [], request.sky.needs
        for file, table, _ in tables:
            keys = table.positions if "ra" in needs else table.read(slice(None), needs)
            rows = np.flatnonzero(request.sky.contains(*(keys[name] for name in needs)))
            rows = rows[eligible(table.positions[rows], file, request)]
            names = request.needed
            if request.columns is None:
                names = (*table.fields, *request.redshifts)
            chunks.append(read_rows(table, file, rows, names))
        return Rows(chunks, {"files": [url for *_, url in tables]}, is_covered=bool(tables))

    def opened(self, bricks: Sequence[RowFile]) -> Sequence[Opened]:
        """Return the tables of bricks for a match, fetched if need be."""
        tables = self.tables(bricks, "The table")
        gaps = [brick.path for brick in _gaps(bricks, tables)]
        if gaps:
            self._miss(f"{len(gaps)} brick(s) near your positions have no catalogue: {few(gaps)}.")
        return tables

    def tables(self, bricks: Sequence[RowFile], what: str) -> list[Opened]:
        """Return the tables of bricks, as far as there are any, fetched if need be."""
        paths = [brick.path for brick in bricks]
        files = list(map(self.finder.local, paths))
        if None in files:
            self.announce(bricks, files, what)
            files = self.finder.find_all(paths)
        pairs = zip(bricks, files, strict=True)
        return [Opened(brick, self.open(file), file.url) for brick, file in pairs if file]

    def announce(
        self, bricks: Sequence[RowFile], files: Sequence[LocatedFile | None], what: str
    ) -> None:
        """Refuse what cannot be fetched or is too much, and tell of what is much."""
        absent = [brick for brick, file in zip(bricks, files, strict=True) if file is None]
        if self.finder.only_local:
            self._refuse_unproven(absent)
            return
        n_fetched = len({(b, brick.region) for brick in absent for b in brick.bricks})
        n_bytes = n_fetched * self.typical_bytes
        size = f"about {n_bytes / 1e9:.1f} GB" if n_bytes > 1e9 else f"about {n_bytes / 1e6:.0f} MB"
        if n_fetched > self.max_bricks:
            msg = (
                f"{what} touches {n_fetched} {self.unit} that are not on this computer ({size}), "
                f"more than conf.max_query_bricks={self.max_bricks}. Ask for a smaller region, "
                "take source='tap', or raise astroquery_lis.conf.max_query_bricks."
            )
            raise InvalidRequestError(msg, parameter="max_query_bricks", value=n_fetched)
        if n_fetched > FEW_BRICKS:
            msg = f"{what} fetches up to {n_fetched} {self.unit}, {size}."
            warn(msg, LargeQueryWarning)

    def _refuse_unproven(self, absent: Sequence[RowFile]) -> None:
        """Refuse to take what folders lack for what the survey does not have."""
        for brick in absent:
            release = brick.path.partition("/")[0]
            folders = self.finder.folders
            require_unlisted(folders, release, brick.region, brick.bricks, brick.path)

    def open(self, file: LocatedFile) -> TractorFile:
        """Open a file that is here."""
        return self.finder.read(file, lambda f: open_table(f.path, f.sidecars, self.open_tables))

    def _tell_gaps(self, gaps: Sequence[RowFile], n_bricks: int, release: str) -> None:
        names = few([Path(brick.path).stem.replace("tractor-", "brick ") for brick in gaps])
        if len(gaps) == n_bricks:
            self._miss(f"{release} has no catalogue there: no {names}.")
        else:
            msg = f"{release} has no catalogue of part of the region: no {names}."
            warn(msg, CoverageWarning)

    def _miss(self, msg: str) -> None:
        """Tell that there is no catalogue, as the user wants it."""
        if self.on_missing == "raise":
            raise NoCoverageError(msg)
        warn(msg, CoverageWarning)


def _gaps(bricks: Sequence[RowFile], tables: Sequence[Opened]) -> list[RowFile]:
    """Return the bricks for which there is no table."""
    files = {opened.file for opened in tables}
    return [brick for brick in bricks if brick not in files]


def eligible(positions: np.ndarray, brick: RowFile, request: CatalogRequest) -> np.ndarray:
    """Return which rows of a file may be asked for wherever they are."""
    rows = np.ones(len(positions), bool)
    if request.primary:
        rows &= positions["primary"]
    if request.drop_duplicates:
        rows &= ~positions["duplicate"]
    if brick.by_position:
        rows &= positions["north"] == (brick.region == "north")
    return rows


def read_rows(
    table: TractorFile, brick: RowFile, rows: np.ndarray, names: Sequence[str] | Mapping
) -> Chunk:
    """Read rows of one file."""
    columns = table.read(rows, names)
    masks = table.masks(rows, names) if table.layout.nullable else {}
    for name in MEASURED_REDSHIFTS & columns.keys():
        if columns[name].dtype.kind == "f":
            masks[name] = columns[name] == NO_REDSHIFT
    fields = table.layout.fields
    units = {name: fields[name].unit for name in columns if name in fields}
    return Chunk(len(rows), columns, brick.region == "north", masks, units, str(table.path))


def order_of_sources(
    request: CatalogRequest, files: TractorFiles, *, tap_is_same_sky: bool
) -> tuple[tuple[str, ...], str]:
    """Return the sources that ``'auto'`` asks in turn, and why the first one comes first."""
    if request.redshifts:
        is_first = tap_is_same_sky and request.tap_table is not None
        names = ("tap", "sweeps") if is_first else ("sweeps",)
        return names, "redshifts lie beside TAP's tables and the sweeps only"
    if files.only_local:
        return ("files",), "every mirror is a directory"
    if files.are_here(request):
        return ("files",), "its Tractor files are on this computer"
    if not tap_is_same_sky:
        return ("files",), "the mirror is not one of the survey's"
    if request.tap_lack:
        return ("files",), f"TAP {request.tap_lack}"
    return ("tap", "files"), "not all of its Tractor files are on this computer"
