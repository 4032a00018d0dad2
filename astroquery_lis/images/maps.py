"""Values of the survey's maps at many positions: one brick at a time, each tile decoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..io.store import write_whole
from ..survey.bricks import brick_id, name_of, region_of_brick
from ..survey.paths import IMAGE_PRODUCTS, MASK_PLANES, file_paths
from ..survey.pixel_grids import Box
from ..survey.placement import OPTICAL, image_grid
from ..survey.releases import RELEASES, get_release
from .access import Access
from .reader import SectionReader, SectionRequest

__all__ = ["MapJob", "MapSpec", "kept_name", "map_jobs_of", "values_of_job"]

CELL_PIX = 300
"""Positions within squares of so many pixels are read together, if they are few."""

MOST_CELLS = 16


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

    def dtype(self, product: str) -> np.dtype:
        """Return the type of a map's values."""
        if product == "maskbits":
            return np.dtype(np.int32)
        return np.dtype(np.int16 if product in ("nexp", *MASK_PLANES) else np.float32)


@dataclass(frozen=True, eq=False)
class MapJob:
    """Positions that one brick owns."""

    brick: int
    rows: np.ndarray
    ra_deg: np.ndarray
    dec_deg: np.ndarray


def map_jobs_of(rows: np.ndarray, ra_deg: np.ndarray, dec_deg: np.ndarray) -> Iterator[MapJob]:
    """Yield the jobs of the rows that have a position, by brick."""
    bricks = brick_id(ra_deg[rows], dec_deg[rows])
    order = np.argsort(bricks, kind="stable")
    ids, starts = np.unique(bricks[order], return_index=True)
    for brick, part in zip(ids.tolist(), np.split(rows[order], starts[1:]), strict=True):
        yield MapJob(brick, part, ra_deg[part], dec_deg[part])


def kept_name(spec: MapSpec, job: MapJob) -> str:
    """Return the name of the file that keeps the values of a job, which tells what they are."""
    digest = hashlib.sha256(repr((spec.products, spec.bands, spec.release, spec.region)).encode())
    for values in (job.ra_deg, job.dec_deg):
        digest.update(np.asarray(values, "<f8").tobytes())
    return f"{name_of(job.brick)}-{digest.hexdigest()[:16]}.npz"


def values_of_job(spec: MapSpec, access: Access, job: MapJob) -> dict[str, np.ndarray]:
    """Return the values of each map, by column; without those that the brick does not have."""
    place = Path(spec.folder, kept_name(spec, job)) if spec.folder else None
    if place is not None and place.exists():
        with np.load(place, allow_pickle=False) as columns:
            return dict(columns)
    columns = _read(spec, access, job)
    if place is not None:
        with write_whole(place) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **columns)  # type: ignore[arg-type]
    return columns


def _read(spec: MapSpec, access: Access, job: MapJob) -> dict[str, np.ndarray]:
    x, y = image_grid(job.brick, OPTICAL).to_pixel(job.ra_deg, job.dec_deg)
    # Near a pole a brick owns a few positions that its image does not hold.
    last = OPTICAL.size_pix - 1
    column = np.clip(np.rint(x), 0, last).astype(int)
    row = np.clip(np.rint(y), 0, last).astype(int)
    groups = _groups(row, column)
    columns = {}
    with access.reader() as reader:
        for name, product, band in spec.planes():
            values = np.empty(len(job.rows), spec.dtype(product))
            if _fill(values, spec, job, (product, band), reader, (row, column, groups)):
                columns[name] = values
    return columns


def _groups(row: np.ndarray, column: np.ndarray) -> list[tuple[Box, np.ndarray]]:
    """Return boxes that hold all pixels, and which pixels are in each: small ones if few do."""
    cell = row // CELL_PIX * OPTICAL.size_pix + column // CELL_PIX
    cells, inverse = np.unique(cell, return_inverse=True)
    if len(cells) > MOST_CELLS:
        inverse = np.zeros(len(row), int)
    members = (np.flatnonzero(inverse == number) for number in range(inverse.max() + 1))
    return [
        (Box(row[m].min(), row[m].max() + 1, column[m].min(), column[m].max() + 1), m)
        for m in members
    ]


def _fill(
    values: np.ndarray,
    spec: MapSpec,
    job: MapJob,
    plane: tuple[str, str | None],
    reader: SectionReader,
    pixels: tuple[np.ndarray, np.ndarray, list[tuple[Box, np.ndarray]]],
) -> bool:
    """Fill in the values of one map; return False if the survey does not have it there."""
    product, band = plane
    region = spec.region
    if region == "auto":
        region = str(region_of_brick(job.brick, spec.release))
    tree = get_release(spec.release).trees[region]
    of_tree = RELEASES[tree.release]
    if band not in (None, *tree.bands) or product not in (*of_tree.products, *of_tree.mask_planes):
        return False
    row, column, groups = pixels
    brick = name_of(job.brick)
    hdu = MASK_PLANES[product][0] if product in MASK_PLANES else None
    file = "maskbits" if hdu else product
    paths = file_paths(file, tree.release, tree.region, brick=brick, band=band)
    source = tree, brick, product, band
    sections = reader.read([SectionRequest(paths, box, source, hdu) for box, _ in groups])
    for (box, members), section in zip(groups, sections, strict=True):
        if section.pixels is None:
            lacks = f"{product} {band or ''}".strip() + f" of brick {brick}"
            reader.prove_absent(tree, job.brick, lacks, band)
            return False
        values[members] = section.pixels[row[members] - box.y0, column[members] - box.x0]
    return True
