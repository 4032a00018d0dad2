"""Values of the survey's maps at many positions: one brick at a time, each tile decoded once.

Of a brick no more than some rows of tiles are in memory, whatever the number of its positions.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeAlias
from zipfile import BadZipFile

import numpy as np
from astropy.table import MaskedColumn

from ..exceptions import CacheWarning, warn
from ..io.bounds import within
from ..io.jobs import Progress
from ..io.places import Failovers
from ..io.whole_files import write_whole
from ..io.workers import map_jobs
from ..survey.bricks import BRICK_SIZE_DEG, brick_id, name_of
from ..survey.owners import POLAR_DEC_DEG
from ..survey.paths import IMAGE_PRODUCTS, CoaddProduct, plane_file, tree_of_brick
from ..survey.pixel_grids import Box, depth_in
from ..survey.placement import OPTICAL, image_grid
from ..survey.releases import get_release
from .reader import SectionReader, SectionRequest
from .sources import Access
from .strips import USUAL_TILE, SharedFiles

MOST_CELLS = 8
"""So many tiles of a row that hold positions are read one by one, more of them as one box."""

BLOCK_ROWS = 1 << 16
"""Positions are made pixels so many at a time: the sums take ten times their memory."""

PLANES_AT_ONCE = 4


@dataclass(frozen=True)
class MapSpec:
    """Which maps are read."""

    products: tuple[str, ...]
    bands: tuple[str, ...]
    release: str
    region: str
    folder: str = ""  # where the values of each job are kept; empty if they are not

    def planes(self) -> Iterator[tuple[str, str, str | None]]:
        """Yield column, product and band of every map."""
        for product in self.products:
            if IMAGE_PRODUCTS[product].per_band:
                yield from ((f"{product}_{band}", product, band) for band in self.bands)
            else:
                yield product, product, None


@dataclass(frozen=True, eq=False)
class MapJob:
    """Positions that one brick owns."""

    brick: int
    rows: np.ndarray
    ra_deg: np.ndarray
    dec_deg: np.ndarray


@dataclass(frozen=True)
class MapValues:
    """What a brick's maps have at the positions of a job."""

    columns: dict[str, np.ndarray]  # without those that the brick does not have
    failovers: dict[str, str] = field(default_factory=dict)  # what to say of each mirror
    cache_error: str = ""


def values_at(
    spec: MapSpec,
    access: Access,
    positions: tuple[np.ndarray, np.ndarray],
    *,
    executor: Executor | str | None = None,
    show_progress: bool = False,
) -> tuple[dict[str, MaskedColumn], int]:
    """Return a column for each map, masked where nothing is, and how many places are in no brick.

    RA and Dec are NaN where there is no position.  Failovers are warned of.  The first failure is
    raised: where values are kept, after all that can be read is.
    """
    total = int(np.count_nonzero(np.isfinite(positions[0])))
    maps = _Maps(spec, len(positions[0]), total)
    failure: Exception | None = None
    progress = Progress(total, show=show_progress, label="positions")
    work = partial(_values_of_job, spec, access)
    mapped = map_jobs(work, jobs_of(*positions), executor=executor)
    with closing(progress), closing(mapped):
        for job, values, error in mapped:
            progress.update(len(job.rows))
            failure = failure or error
            if error is None:
                maps.put(job, values)
            elif not spec.folder:
                break
    maps.warn()
    if failure is not None:
        raise failure
    return maps.columns, maps.n_lacking


class _Maps:
    """What the jobs have brought."""

    def __init__(self, spec: MapSpec, n_rows: int, n_lacking: int) -> None:
        self.columns = {
            name: _empty(name, IMAGE_PRODUCTS[product], n_rows)
            for name, product, _ in spec.planes()
        }
        self.n_lacking = n_lacking
        self._failovers, self._cache_error = Failovers(), ""

    def put(self, job: MapJob, values: MapValues) -> None:
        """Put the values of a job into their rows."""
        self._failovers.update(values.failovers)
        self._cache_error = self._cache_error or values.cache_error
        if values.columns:
            self.n_lacking -= len(job.rows)
        for name, column in values.columns.items():
            self.columns[name][job.rows] = column

    def warn(self) -> None:
        """Say which mirrors failed, and what could not be kept."""
        self._failovers.warn()
        if self._cache_error:
            warn(f"What was fetched is not cached: {self._cache_error}", CacheWarning)


def _empty(name: str, product: CoaddProduct, n_rows: int) -> MaskedColumn:
    """Return a column of a map, all of it masked."""
    values, mask = np.zeros(n_rows, product.dtype), np.ones(n_rows, bool)
    unit = product.unit.replace("nanomaggy", "nmgy") or None
    return MaskedColumn(values, name, mask=mask, unit=unit, copy=False)


def jobs_of(ra_deg: np.ndarray, dec_deg: np.ndarray) -> Iterator[MapJob]:
    """Yield the jobs of the rows that have a position which its brick's image holds, by brick."""
    rows = np.flatnonzero(np.isfinite(ra_deg))
    bricks = np.empty(len(rows), np.int32)
    for block in _blocks(len(rows)):
        bricks[block] = brick_id(ra_deg[rows[block]], dec_deg[rows[block]])
    order = np.argsort(bricks, kind="stable")
    ids, starts = np.unique(bricks[order], return_index=True)
    # Of no rows `split` makes one part.
    parts = np.split(rows[order], starts[1:]) if len(ids) else []
    del bricks, order
    for brick, part in zip(ids.tolist(), parts, strict=True):
        if abs(dec_deg[part[0]]) > POLAR_DEC_DEG - BRICK_SIZE_DEG:
            # There a brick owns a few positions that its image does not hold.
            part = part[_is_held(brick, ra_deg[part], dec_deg[part])]
        if len(part):
            yield MapJob(brick, part, ra_deg[part], dec_deg[part])


def _is_held(brick: int, ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    x, y = image_grid(brick, OPTICAL).to_pixel(ra_deg, dec_deg)
    return depth_in(Box(0, OPTICAL.size_pix, 0, OPTICAL.size_pix), y, x) > 0


def _blocks(n_rows: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK_ROWS) for start in range(0, n_rows, BLOCK_ROWS))


NOT_WHOLE = (OSError, ValueError, EOFError, KeyError, BadZipFile, zlib.error)
"""What numpy raises where a kept file is damaged."""


def _kept_name(spec: MapSpec, access: Access, job: MapJob) -> str:
    """Return the name of the file that keeps the values of a job: what they are, and of where."""
    roots = sorted({mirror.root_name for mirror in access.mirrors})
    maps = (spec.products, spec.bands, spec.release, spec.region, roots)
    digest = hashlib.sha256(repr(maps).encode())
    for values in (job.ra_deg, job.dec_deg):
        digest.update(np.asarray(values, "<f8").tobytes())
    return f"{name_of(job.brick)}-{digest.hexdigest()[:16]}.npz"


def _values_of_job(spec: MapSpec, access: Access, job: MapJob) -> MapValues:
    """Return the values of each map, and keep them; those that are kept are read from there."""
    if not spec.folder:
        return _read(spec, access, job)
    place = Path(spec.folder, _kept_name(spec, access, job))
    # What is not there, damaged, or of other positions, is read from the files.
    with suppress(*NOT_WHOLE):
        return _kept(place, len(job.rows))
    values = _read(spec, access, job)
    with write_whole(place) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **values.columns)  # type: ignore[arg-type]
    return values


def _kept(place: Path, n_rows: int) -> MapValues:
    with place.open("rb") as stream:
        columns = dict(np.load(stream, allow_pickle=False))
    if any(len(column) != n_rows for column in columns.values()):
        msg = f"{place} is of other positions"
        raise ValueError(msg)
    return MapValues(columns)


_Cells: TypeAlias = list[tuple[Box, np.ndarray]]
"""Boxes of pixels, and which positions are in each."""


def _read(spec: MapSpec, access: Access, job: MapJob) -> MapValues:
    """Read the maps of a brick; its files have ``conf.deadline`` to come."""
    row, column = _pixels(job)
    cells = _cells(row, column)
    requests = {
        name: of_plane
        for name, product, band in spec.planes()
        if (of_plane := _requests(spec, job.brick, (product, band), cells))
    }
    shared, failovers = SharedFiles(), Failovers()
    for of_plane in requests.values():
        shared.expect(of_plane)
    columns: dict[str, np.ndarray] = {}
    with within(), access.reader(shared) as reader:
        for start in range(0, len(requests), PLANES_AT_ONCE):
            # Several files at once, so that none waits for what another has to fetch.
            some = dict(islice(requests.items(), start, start + PLANES_AT_ONCE))
            columns |= {
                name: np.empty(len(row), IMAGE_PRODUCTS[of_plane[0].source[2]].dtype)
                for name, of_plane in some.items()
            }
            for number, (box, members) in enumerate(cells):
                asked = {name: some[name][number] for name in some if name in columns}
                sections = reader.read(list(asked.values()))
                shared.release(asked.values())
                where = row[members] - box.y0, column[members] - box.x0
                for name, section in zip(asked, sections, strict=True):
                    failovers.add(section.answer)
                    if section.pixels is None:
                        _prove_absent(reader, job.brick, asked[name])
                        del columns[name]
                    else:
                        columns[name][members] = section.pixels[where]
        return MapValues(columns, failovers.messages, str(reader.cache_error or ""))


def _pixels(job: MapJob) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of the nearest pixel of every position."""
    grid, last = image_grid(job.brick, OPTICAL), OPTICAL.size_pix - 1
    row, column = np.empty((2, len(job.rows)), np.int16)
    for block in _blocks(len(row)):
        x, y = grid.to_pixel(job.ra_deg[block], job.dec_deg[block])
        column[block] = np.clip(np.rint(x), 0, last)
        row[block] = np.clip(np.rint(y), 0, last)
    return row, column


def _cells(row: np.ndarray, column: np.ndarray) -> _Cells:
    """Return boxes that hold all pixels, from the south, and which positions are in each."""
    tile_ny, tile_nx = USUAL_TILE
    order = np.argsort(row // tile_ny * np.int16(256) + column // tile_nx, kind="stable")
    strip, tile = row[order] // tile_ny, column[order] // tile_nx
    cells = []
    for members, tiles in _runs(order, strip, tile):
        parts = [part for part, _ in _runs(members, tiles, tiles)]
        for part in parts if len(parts) <= MOST_CELLS else [members]:
            y, x = row[part], column[part]
            box = Box(int(y.min()), int(y.max()) + 1, int(x.min()), int(x.max()) + 1)
            cells.append((box, part))
    return cells


def _runs(
    values: np.ndarray, keys: np.ndarray, others: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the parts of two arrays in which a key stays the same."""
    edges = np.flatnonzero(np.diff(keys)) + 1
    return zip(np.split(values, edges), np.split(others, edges), strict=True)


def _requests(
    spec: MapSpec, brick: int, plane: tuple[str, str | None], cells: _Cells
) -> list[SectionRequest]:
    """Return what is read of a map; nothing if the survey does not have it there."""
    tree, name = tree_of_brick(get_release(spec.release), spec.region, brick), name_of(brick)
    file = plane_file(tree, name, *plane)
    if file is None:
        return []
    paths, hdu = file
    return [SectionRequest(paths, box, (tree, name, *plane), hdu) for box, _ in cells]


def _prove_absent(reader: SectionReader, brick: int, request: SectionRequest) -> None:
    tree, name, product, band = request.source
    reader.prove_absent(tree, brick, f"{product} {band or ''}".strip() + f" of brick {name}", band)
