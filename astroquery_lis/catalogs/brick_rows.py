"""The survey's table of the bricks of a region: its rows, and what follows from a brick's absence.

Only this table tells that the survey has nothing somewhere.  A folder that lacks a file may be a
copy of a part of the survey, where a server of the survey's own tree that answers 404 is not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from astropy.io import fits

from ..exceptions import IncompleteMirrorError
from ..io.checks import reading
from ..survey.bricks import N_BRICKS, name_of, parse_brick_name
from ..survey.paths import file_path

BANDS = ("g", "r", "i", "z")
QUANTITIES = (("nexp", "<i2"), ("psfsize", "<f4"), ("psfdepth", "<f4"), ("galdepth", "<f4"))
_FIELDS = [
    ("ebv", "<f4"),
    *((f"{name}_{band}", kind) for name, kind in QUANTITIES for band in BANDS),
]
ROW = np.dtype([("brickid", "<i4"), *_FIELDS])
"""What is kept of a brick."""


def read_brick_rows(path: str | Path, url: str = "") -> np.ndarray:
    """Return the rows of a table of bricks (`ROW`), each brick once, by id."""
    with (
        reading(url or path, "read as a table of bricks"),
        fits.open(path, memmap=False) as hdus,
    ):
        table = hdus[1].data
        columns = {name.lower(): name for name in table.names}
        if not any(name.startswith("nexp_") for name in columns):
            msg = "its columns do not tell where a release has exposures (nexp_g, nexp_r...)"
            raise ValueError(msg)
        rows = np.zeros(len(table), ROW)
        rows["brickid"] = _ids(table, columns)
        for name, kind in _FIELDS:
            if name in columns:
                rows[name] = table[columns[name]]
            elif kind == "<f4":
                rows[name] = np.nan
    _, first = np.unique(rows["brickid"], return_index=True)
    return rows[first]


def _ids(table: fits.FITS_rec, columns: dict[str, str]) -> np.ndarray:
    """Return the ids of a table that has them, or the bricks' names."""
    if "brickid" in columns:
        ids = np.asarray(table[columns["brickid"]], np.int64)
    else:
        names = table[columns["brickname"]]
        ids = np.array([parse_brick_name(name) for name in names], np.int64)
    if len(ids) and not (ids.min() >= 1 and ids.max() <= N_BRICKS):
        msg = f"brick ids go from {ids.min()} to {ids.max()}"
        raise ValueError(msg)
    return ids


def places_of(ids: np.ndarray, bricks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where bricks are in sorted ids, and which are there at all."""
    bricks = np.asarray(bricks)
    if not len(ids):
        return np.zeros(bricks.shape, int), np.zeros(bricks.shape, bool)
    places = np.minimum(np.searchsorted(ids, bricks), len(ids) - 1)
    return places, ids[places] == bricks


def holds(ids: np.ndarray, bricks: np.ndarray) -> np.ndarray:
    """Return which bricks are in sorted ids."""
    return places_of(ids, bricks)[1]


def has_exposures(rows: np.ndarray, band: str) -> np.ndarray:
    """Return which bricks have exposures in a band.

    Their number is a median, 0 where less than half of the brick was observed: there is a seeing
    and a depth there all the same.
    """
    return np.any([rows[f"{quantity}_{band}"] > 0 for quantity, _ in QUANTITIES], axis=0)


# ---- folders that hold a part of the survey ------------------------------------------------------


def require_table(folders: Sequence[Path], release: str, region: str) -> list[np.ndarray]:
    """Return the rows of the tables of bricks that folders have; refuse if none has one."""
    path = file_path("region-bricks", release, region)
    tables = [table for table in (_rows_in(folder / path) for folder in folders) if len(table)]
    if not tables:
        where = ", ".join(map(str, folders))
        msg = (
            f"{where} lacks {path}, the table of the bricks of {release} {region}; without it "
            "nothing tells which bricks the survey has. Copy it there, or name a mirror of the "
            "survey after the folder."
        )
        raise IncompleteMirrorError(msg, url=where)
    return tables


def require_unlisted(
    folders: Sequence[Path],
    release: str,
    region: str,
    bricks: Sequence[int],
    lacks: str,
    *,
    band: str | None = None,
) -> None:
    """Refuse to take what no file was found of for something that the survey does not have.

    ``folders`` are all the places that were asked, none if one of them was a server; ``lacks`` says
    what they lack: something of the bricks, perhaps of one band.
    """
    if not folders:
        return
    ids = np.asarray(bricks)
    tables = require_table(folders, release, region)
    listed = np.any([_is_listed(rows, ids, band) for rows in tables], axis=0)
    if listed.any():
        where = ", ".join(map(str, folders))
        of_band = f" with exposures in {band}" if band else ""
        msg = (
            f"{where} lacks {lacks}, and {release} {region} has {', '.join(name_of(ids[listed]))}"
            f"{of_band}: the folder holds a part of the survey. Copy the files there "
            "(get_brick_files), or name a mirror of the survey after the folder."
        )
        raise IncompleteMirrorError(msg, url=where)


def _is_listed(rows: np.ndarray, ids: np.ndarray, band: str | None) -> np.ndarray:
    """Return which bricks are in a table, and have exposures in a band that it counts."""
    places, is_there = places_of(rows["brickid"], ids)
    if band in BANDS:
        is_there &= has_exposures(rows[places], band)
    return is_there


def _rows_in(path: Path) -> np.ndarray:
    try:
        status = os.stat(path)
    except OSError:
        return np.zeros(0, ROW)
    return _read_once(path, (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=4)
def _read_once(path: Path, state: tuple[int, int]) -> np.ndarray:
    """Return the rows of one state of a table on disk."""
    return read_brick_rows(path)
