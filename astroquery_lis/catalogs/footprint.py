"""Which bricks a release has, from its tables of bricks: fetched once, kept as an array of ids."""

import gzip
import io
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from astropy.io import fits

from ..exceptions import CacheError, NotFoundError, UnexpectedContentError
from ..io.download import download
from ..io.places import Failovers, ask_in_turn
from ..io.store import Store, write_bytes
from ..survey.bricks import N_BRICKS, parse_brick_name
from ..survey.paths import file_path

__all__ = ["bricks_of_region", "holds"]

FOLDER = ".footprint"


def bricks_of_region(release, region, *, client, mirrors, location):
    """Return the bricks that a region of a release has."""
    path = file_path("region-bricks", release, region)

    def ask(mirror):
        if mirror.is_local:
            return _from_local(mirror, path, location)
        return _from_remote(mirror, path, client, location)

    answer = ask_in_turn(mirrors, ask, path)
    failovers = Failovers()
    failovers.add(answer)
    failovers.warn()
    if answer.mirror is None:
        msg = f"No mirror has {path}."
        raise NotFoundError(msg)
    return answer.value


def holds(ids, brick):
    """Tell which bricks are in a sorted array of ids."""
    place = np.searchsorted(ids, brick)
    return (place < len(ids)) & (np.take(ids, place, mode="clip") == brick if len(ids) else False)


def _from_local(mirror, path, location):
    table = Path(mirror.locate(path))
    try:
        status = os.stat(table)
    except OSError as error:
        msg = f"{table} does not exist."
        raise NotFoundError(msg, url=str(table), cause=error) from error
    state = f"-{status.st_size}-{status.st_mtime_ns}"
    note = _note(location, mirror, path, state)
    return _kept(note) if note is not None and note.exists() else _read(table, note, table)


def _from_remote(mirror, path, client, location):
    note = _note(location, mirror, path)
    if note is not None and note.exists():
        return _kept(note)
    url = mirror.locate(path)
    if location is not None:
        try:
            table = Store(Path(location) / mirror.root_name).path(path)
            download(client, url, table)
            return _read(table, note, url)
        except CacheError:
            pass  # The table is small enough to be read without a place on disk.
    return _read(io.BytesIO(client.fetch(url, _unpacked)), None, url)


def _unpacked(response):
    return gzip.decompress(response.read())


def _note(location, mirror, path, state=""):
    """Return the place of the kept array."""
    if location is None:
        return None
    name = Path(path).name.partition(".")[0]
    return Path(location) / mirror.root_name / FOLDER / f"{name}{state}.npy"


def _kept(note):
    ids = np.load(note, allow_pickle=False)
    ids.flags.writeable = False
    return ids


def _read(table, note, url):
    try:
        with fits.open(table, memmap=False) as hdul:
            ids = _ids(hdul[1])
    except (OSError, EOFError, ValueError, TypeError, IndexError, KeyError) as error:
        msg = f"{url} cannot be read as a table of bricks: {error}."
        raise UnexpectedContentError(msg, url=str(url), cause=error) from error
    if note is not None:
        stream = io.BytesIO()
        np.save(stream, ids, allow_pickle=False)
        with suppress(CacheError):  # It is read again the next time.
            write_bytes(note, stream.getvalue())
    ids.flags.writeable = False
    return ids


def _ids(table):
    """Return the sorted ids of a table that has them, or the bricks' names."""
    if not isinstance(table, fits.BinTableHDU):
        msg = "its first extension is no table"
        raise TypeError(msg)
    names = {name.lower(): name for name in table.columns.names}
    if "brickid" in names:
        ids = np.asarray(table.data[names["brickid"]])
    else:
        bricks = table.data[names["brickname"]]
        ids = np.array([parse_brick_name(name) for name in bricks], np.int32)
    if len(ids) and not (ids.min() >= 1 and ids.max() <= N_BRICKS):
        msg = f"brick ids go from {ids.min()} to {ids.max()}"
        raise ValueError(msg)
    return np.unique(ids).astype(np.int32)
