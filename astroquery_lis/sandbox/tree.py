"""The simulated survey on disk, made as it is asked for: the survey's folders, names and contents.

Every file appears whole or not at all, and is the same whoever makes it, and when.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing import parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from os import PathLike
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from ..survey import paths, releases
from ..survey import tractor_columns as survey_columns
from . import sky
from .brick_table_files import bricks_file, region_file
from .catalog import CATALOG_TREES, ccds_file, tractor_file
from .coadds import Content, band_files, band_products, mask_file
from .made_once import cache_folder, digest_of, lock, remove_leftovers, write_whole
from .sweeps import sweep_files, sweep_names
from .wise import wise_files

if TYPE_CHECKING:
    from multiprocessing.popen_spawn_posix import Popen

_SOURCES = (
    "sky.py",
    "render.py",
    "planes.py",
    "compression.py",
    "coadds.py",
    "brick_table_files.py",
    "light.py",
    "measurements.py",
    "cameras.py",
    "catalog.py",
    "redshifts.py",
    "sweeps.py",
    "wise.py",
    "tree.py",
    survey_columns.__file__,
)
_README = """These files are simulated: the sources in them are not in the sky.
They imitate the files of the DESI Legacy Imaging Surveys, for tests and examples.
"""
_VERSION = ".scene"
_LOCKS = ".locks"
# What a first cutout needs of the brick that was observed as a whole, where a band takes seconds.
_FIRST_PRODUCTS = ("image", "invvar")


def build(
    root: str | PathLike[str] | None = None, *, progress: Callable[[int, int], object] | None = None
) -> Path:
    """Write every file of the simulated survey that is not there yet.

    It may be interrupted and taken up again, and two processes may build the same tree at once.
    Nobody has to call it: `serve` makes each file when it is first asked for.

    Parameters
    ----------
    root : str or path-like, optional
        Folder of the tree; by default one per version of the scene in astropy's cache.
    progress : callable, optional
        Called with (parts done, parts in all) after each part of the work.

    Returns
    -------
    `~pathlib.Path`
        The folder, about 240 MB.

    Raises
    ------
    OSError
        If the folder cannot be written.
    ValueError
        If the folder holds another version of the simulated survey.
    """
    return SurveyTree(root).fill(progress)


class Piece(NamedTuple):
    """Files that are made at one go."""

    paths: tuple[str, ...]
    make: partial[Iterator[Content]]

    @property
    def name(self) -> str:
        """Name of its lock."""
        return self.paths[0].replace("/", "-")


class Folder:
    """Files of anybody's making, served as they are."""

    def __init__(self, root: str | PathLike[str]) -> None:
        self.root = Path(root)

    def file(self, path: str) -> Path:
        """Return where a file is or would be."""
        return self.root / path

    def fill(self) -> Path:
        """Return the folder."""
        return self.root


class SurveyTree:
    """The files of the simulated survey in a folder, each made when it is first asked for.

    Attributes
    ----------
    root : `~pathlib.Path`
        The folder.
    parts : dict of str to tuple of Piece
        All files, by parts of the work.
    """

    def __init__(self, root: str | PathLike[str] | None = None) -> None:
        version = digest_of(_SOURCES)
        self.root = cache_folder() / version if root is None else Path(root).absolute()
        (self.root / _LOCKS).mkdir(parents=True, exist_ok=True)
        self._claim(version)
        self.parts = dict(_parts())
        self._pieces: dict[str, Piece] = {}
        self._lists: dict[str, list[str]] = {}
        for whole in (piece for part in self.parts.values() for piece in part):
            for piece in _split(whole):
                self._pieces |= dict.fromkeys(piece.paths, piece)
        for path in self._pieces:
            folder = path.rpartition("/")[0]
            if folder.count("/") > 1:  # the tables of bricks, further up, are in no list
                self._lists.setdefault(paths.checksum_path(folder), []).append(path)
        self._is_full = False

    def _claim(self, version: str) -> None:
        """Write down which version of the scene the folder holds, or see that it is this one."""
        marker = self.root / _VERSION
        if not marker.exists():
            write_whole(self.root / "README.txt", lambda file: file.write(_README.encode()))
            write_whole(marker, lambda file: file.write(version.encode()))
        elif marker.read_text() != version:
            msg = f"root={str(self.root)!r} holds another version of the simulated survey; "
            msg += "use an empty folder."
            raise ValueError(msg)

    def file(self, path: str) -> Path:
        """Return a file of the survey by its path below the root, made if need be."""
        path = PurePosixPath(path).as_posix()
        target = self.root / path
        if target.is_file():
            return target
        if path in self._lists:
            self._list(path)
        elif path in self._pieces:
            self._make(self._pieces[path])
        return target

    def _make(self, piece: Piece) -> None:
        with lock(self.root / _LOCKS / piece.name) as alone:
            if self._has(piece):
                return
            for path, write in piece.make():
                target = self.root / path
                if alone:
                    remove_leftovers(target)
                if not target.is_file():
                    write_whole(target, write)

    def _list(self, listed: str) -> None:
        """Write a list of checksums, and before it the files that it lists."""
        lines = [_checksum_line(self.file(path)) for path in sorted(self._lists[listed])]
        write_whole(self.root / listed, lambda file: file.write("".join(lines).encode()))

    def _has(self, piece: Piece) -> bool:
        return all((self.root / path).is_file() for path in piece.paths)

    def fill(self, progress: Callable[[int, int], object] | None = None) -> Path:
        """Make every file that is not there yet, in two processes where that works."""
        if self._is_full:
            return self.root
        missing = [name for name, part in self.parts.items() if not all(map(self._has, part))]
        done = 0

        def finish(name: str) -> None:
            nonlocal done
            done += 1
            missing.remove(name)
            if progress is not None:
                progress(done, total)

        total = len(missing)
        if total > 1 and (os.cpu_count() or 1) > 1:
            # What is not made then is made here, where an error that comes again is raised.
            failures = (OSError, NotImplementedError, BrokenProcessPool)
            with suppress(*failures), _two_processes() as pool:
                try:
                    futures = {pool.submit(_make_part, self.root, name): name for name in missing}
                    for future in as_completed(futures):
                        future.result()
                        finish(futures[future])
                finally:
                    pool.shutdown(cancel_futures=True)
        for name in tuple(missing):
            self.make_part(name)
            finish(name)
        for listed in self._lists:
            self.file(listed)
        self._is_full = True
        return self.root

    def make_part(self, name: str) -> None:
        """Make the files of a part of the work."""
        for piece in self.parts[name]:
            self._make(piece)


def _checksum_line(path: Path) -> str:
    with open(path, "rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n"


def _make_part(root: Path, name: str) -> None:
    SurveyTree(root).make_part(name)


def _two_processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, _ContextWithoutMain(), _end_with_parent)


def _parts() -> Iterator[tuple[str, tuple[Piece, ...]]]:
    """Yield every part of the work; the brick that was observed as a whole takes longest."""
    for (release, region), names in sky.BRICKS.items():
        for brick in names:
            yield f"{release}/{region}/{brick}", tuple(_coadd_pieces(release, region, brick))
    yield "catalogues", tuple(_catalogue_pieces())


def _coadd_pieces(release: str, region: str, brick: str) -> Iterator[Piece]:
    where = {"brick": brick}
    products = band_products(release, region, brick)
    for band in releases.get_tree(release, region).bands:
        names = tuple(paths.file_path(p, release, region, band=band, **where) for p in products)
        yield Piece(names, partial(band_files, release, region, brick, band, products))
    path = paths.file_path("maskbits", release, region, **where)
    yield Piece((path,), partial(mask_file, release, region, brick))
    for band in sky.VEGA_TO_AB:
        names = tuple(
            paths.file_path(product, release, region, band=band, **where)
            for product in releases.WISE_PRODUCTS
        )
        yield Piece(names, partial(wise_files, release, region, brick, band))


def _split(piece: Piece) -> Iterator[Piece]:
    """Yield what is made at one go when a file of a piece is asked for."""
    if piece.make.func is not band_files or sky.WHOLE_BRICK not in piece.paths[0]:
        yield piece
        return
    release, region, brick, band, products = piece.make.args
    for is_first in (True, False):
        few = tuple(name for name in products if (name in _FIRST_PRODUCTS) == is_first)
        names = tuple(path for path, name in zip(piece.paths, products, strict=True) if name in few)
        yield Piece(names, partial(band_files, release, region, brick, band, few))


def _catalogue_pieces() -> Iterator[Piece]:
    for (release, region), names in CATALOG_TREES.items():
        for brick in names:
            path = paths.file_path("tractor", release, region, brick=brick)
            yield Piece((path,), partial(tractor_file, release, region, brick))
        for sweep in sweep_names(release, region):
            kinds = ("sweep", "sweep-photo-z")
            files = tuple(paths.file_path(k, release, region, brick=sweep) for k in kinds)
            yield Piece(files, partial(sweep_files, release, region, sweep))
    for (release, region), names in sky.BRICKS.items():
        for brick in names:
            path = paths.file_path("ccds-table", release, region, brick=brick)
            yield Piece((path,), partial(ccds_file, release, region, brick))
    for release in ("dr9", "dr10"):
        path = paths.file_path("survey-bricks", release)
        yield Piece((path,), partial(bricks_file, release))
    for release, region in sky.BRICKS:
        path = paths.file_path("region-bricks", release, region)
        yield Piece((path,), partial(region_file, release, region))


class _ProcessWithoutMain(SpawnProcess):
    """A process that does not run the caller's script again: a short example has no guard."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Popen:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return SpawnProcess._Popen(process_obj)
        finally:
            sys.modules["__main__"] = main


class _ContextWithoutMain(SpawnContext):
    Process = _ProcessWithoutMain


def _end_with_parent() -> None:
    """Let a process end when the one that started it is killed."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
