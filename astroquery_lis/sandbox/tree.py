"""The simulated survey on disk, made as it is asked for: the survey's folders, names and contents.

Every file appears whole or not at all, and is the same whoever makes it, and when.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from os import PathLike
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import IO, Any, BinaryIO, NamedTuple

from astropy import log
from astropy.config import get_cache_dir

from ..survey import bricks, paths, releases
from ..survey import tractor_columns as survey_columns
from ..survey.pixel_grids import TangentGrid
from . import sky
from .catalog import (
    CATALOG_TREES,
    bricks_file,
    ccds_file,
    region_file,
    sweep_files,
    sweep_names,
    tractor_file,
)
from .coadd_files import (
    OVERLAP_PRODUCTS,
    BrickScene,
    Content,
    band_files,
    mask_file,
    wise_files,
)

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_SOURCES = (
    "sky.py",
    "data/scene.ecsv",
    "coadd_files.py",
    "measurements.py",
    "cameras.py",
    "catalog.py",
    "tree.py",
    survey_columns.__file__,
)
# What each function makes of a place, a region or a release.
_TABLES: dict[Callable[..., Iterator[Content]], tuple[str, ...]] = {
    tractor_file: ("tractor",),
    sweep_files: ("sweep", "sweep-photo-z"),
    ccds_file: ("ccds-table",),
    bricks_file: ("survey-bricks",),
    region_file: ("region-bricks",),
}
_README = """These files are simulated: the sources in them are not in the sky.
They imitate the files of the DESI Legacy Imaging Surveys, for tests and examples.
"""
_VERSION = ".scene"
_LOCKS = ".locks"
_PARTIAL = ".partial"
# Of pixels in a reduction; larger ones would not sample the simulated light.
_COARSEST_ARCSEC = 0.45
_PRODUCTS = tuple(name for name, product in paths.COADD_PRODUCTS.items() if product.per_band)
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
        Called with (pieces done, pieces in all) after each piece of the work.

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


class SurveyTree:
    """The files of the simulated survey in a folder, each made when it is first asked for.

    Attributes
    ----------
    root : `~pathlib.Path`
        The folder.
    pieces : tuple of Piece
        All files, by what is made at one go.
    """

    def __init__(self, root: str | PathLike[str] | None = None) -> None:
        version = digest_of(_SOURCES)
        self.root = cache_folder() / version if root is None else Path(root).absolute()
        (self.root / _LOCKS).mkdir(parents=True, exist_ok=True)
        self._claim(version)
        self.pieces = tuple(_pieces())
        self._pieces: dict[str, Piece] = {}
        self._lists: dict[str, list[str]] = {}
        for whole in self.pieces:
            for piece in _split(whole):
                self._pieces |= dict.fromkeys(piece.paths, piece)
        for path in self._pieces:
            folder = path.rpartition("/")[0]
            if folder.count("/") > 1:  # the tables of bricks, further up, are in no list
                self._lists.setdefault(paths.checksum_path(folder), []).append(path)

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
        """Make every file that is not there yet."""
        missing = [piece for piece in self.pieces if not self._has(piece)]
        begun = time.monotonic()
        if missing:
            log.info("Making the simulated sky, once, in %s; up to a minute.", self.root)
        with ThreadPoolExecutor(2) as pool:
            for number, _ in enumerate(pool.map(self._make, missing), start=1):
                if progress is not None:
                    progress(number, len(missing))
        for listed in self._lists:
            self.file(listed)
        if missing:
            log.info("Made the simulated sky in %.0f s.", time.monotonic() - begun)
        return self.root


def _checksum_line(path: Path) -> str:
    with open(path, "rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n"


def _pieces() -> Iterator[Piece]:
    """Yield all that there is to make."""
    for tree, brick in _bricks_of(sky.BRICKS):
        yield from _coadd_pieces(*tree, brick)
    for tree, brick in _bricks_of(CATALOG_TREES):
        yield _tables(tractor_file, *tree, brick)
    for tree in CATALOG_TREES:
        yield from (_tables(sweep_files, *tree, sweep) for sweep in sweep_names(*tree))
    for tree, brick in _bricks_of(sky.BRICKS):
        yield _tables(ccds_file, *tree, brick)
    yield from (_tables(bricks_file, release) for release in ("dr9", "dr10"))
    yield from (_tables(region_file, *tree) for tree in sky.BRICKS)


def _bricks_of(
    trees: Mapping[tuple[str, str], Iterable[str]],
) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield the bricks of trees, each with its (release, region)."""
    yield from ((tree, brick) for tree, names in trees.items() for brick in names)


def _tables(make: Callable[..., Iterator[Content]], *where: str) -> Piece:
    """Return the tables that a function makes of a release, of a region or of a place in it."""
    release, region, brick = (*where, "", "")[:3]
    names = tuple(paths.file_path(k, release, region, brick=brick) for k in _TABLES[make])
    return Piece(names, partial(make, *where))


def _band_products(scene: BrickScene) -> tuple[str, ...]:
    """Return which products of each band a brick has: few where its region is not the official."""
    official = bricks.region_of_brick(scene.brick.id, scene.release)
    return _PRODUCTS if official == scene.region else OVERLAP_PRODUCTS


def _coadd_pieces(release: str, region: str, brick: str) -> Iterator[Piece]:
    scene, bands = BrickScene(release, region, brick), releases.get_tree(release, region).bands
    products = _band_products(scene)
    for band in bands:
        names = tuple(scene.path(product, band) for product in products)
        yield Piece(names, partial(band_files, scene, band, products))
    yield Piece((scene.path("maskbits"),), partial(mask_file, scene, bands))
    for band in sky.VEGA_TO_AB:
        names = tuple(scene.path(product, band) for product in releases.WISE_PRODUCTS)
        yield Piece(names, partial(wise_files, scene, band))


def _split(piece: Piece) -> Iterator[Piece]:
    """Yield what is made at one go when a file of a piece is asked for."""
    if piece.make.func is not band_files or sky.WHOLE_BRICK not in piece.paths[0]:
        yield piece
        return
    scene, band, products = piece.make.args
    for is_first in (True, False):
        few = tuple(name for name in products if (name in _FIRST_PRODUCTS) == is_first)
        names = tuple(path for path, name in zip(piece.paths, products, strict=True) if name in few)
        yield Piece(names, partial(band_files, scene, band, few))


def write_reduction(
    folder: str | PathLike[str],
    *,
    pixel_scale_arcsec: float = 0.262,
    width: int = 3600,
    height: int | None = None,
    zoom: tuple[int, int, int, int] | None = None,
    bands: str = "grz",
) -> Path:
    """Write a local mirror in which brick 0451p000 of DR10 was reduced otherwise than the survey's.

    The names are the survey's, the pixels are not: what legacypipe's options ``--pixscale``,
    ``--width``, ``--height`` and ``--zoom`` make of a brick.  The sky is the same.

    Parameters
    ----------
    folder : str or path-like
        The mirror's folder.
    pixel_scale_arcsec : float, default: 0.262
        Side of a pixel; at most 0.45, or the simulated light would not be sampled.
    width, height : int, optional
        Size of the image about the brick's centre, in pixels; 3600, and as high as wide.
    zoom : (int, int, int, int), optional
        The part of that image that is kept: x0, x1, y0, y1, counted from 0, the ends not included.
    bands : str, default: 'grz'
        Bands; ``image``, ``invvar``, ``nexp`` and ``maskbits`` are written.

    Returns
    -------
    `~pathlib.Path`
        The folder, for ``mirror=``.

    Raises
    ------
    ValueError
        If the pixels are too large, or the part is not inside of the image.

    Examples
    --------
    >>> import tempfile
    >>> from astroquery_lis import sandbox
    >>> folder = sandbox.write_reduction(tempfile.mkdtemp(), zoom=(100, 400, 0, 200), bands='r')
    >>> sorted(path.name for path in folder.rglob('*-image-r*'))
    ['legacysurvey-0451p000-image-r.fits.fz']
    """
    height = width if height is None else height
    x0, x1, y0, y1 = (0, width, 0, height) if zoom is None else zoom
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        msg = f"zoom={zoom!r} must be inside of the image of {width} by {height} pixels."
        raise ValueError(msg)
    if not 0 < pixel_scale_arcsec <= _COARSEST_ARCSEC:
        msg = f"pixel_scale_arcsec={pixel_scale_arcsec!r} must be at most {_COARSEST_ARCSEC}."
        raise ValueError(msg)
    place = bricks.get_brick(sky.WHOLE_BRICK)
    centre = (width - 1) / 2 - x0, (height - 1) / 2 - y0
    grid = TangentGrid(place.ra_deg, place.dec_deg, *centre, pixel_scale_arcsec / 3600)
    scene = BrickScene("dr10", "south", sky.WHOLE_BRICK)
    scene.grid, scene.shape = grid, (y1 - y0, x1 - x0)
    scene.windows = sky.strips(scene.shape)
    root = Path(folder).absolute()
    coadds = [band_files(scene, band, OVERLAP_PRODUCTS) for band in bands]
    tables = mask_file(scene, tuple(bands)), bricks_file("dr10"), region_file("dr10", "south")
    for path, write in chain(*coadds, *tables):
        write_whole(root / path, write)
    return root


def cache_folder() -> Path:
    """Return where everything is kept that is made once: in astropy's cache."""
    return Path(get_cache_dir()) / "astroquery_lis" / "sandbox"


def digest_of(sources: Iterable[str]) -> str:
    """Return a key that changes with the scene and with modules that make files of it."""
    digest = hashlib.sha256(sky.SCENE_VERSION.encode())
    for name in sources:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:12]


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Hold a lock that dies with the process, threads apart; yield whether it could be had."""
    with open(path.parent / f".{path.name}.lock", "w") as file, _locked(file) as alone:
        yield alone


@contextmanager
def _locked(file: IO[Any]) -> Iterator[bool]:
    """Lock an open file, and unlock it: a process that was forked meanwhile has it open too."""
    alone = False
    with suppress(OSError):  # a system of files or a computer without locks
        _flock(file, "LOCK_EX")
        alone = True
    try:
        yield alone
    finally:
        if alone:
            _flock(file, "LOCK_UN")


def _flock(file: IO[Any], *names: str) -> None:
    """Lock or unlock an open file, as what the names of `fcntl` mean together says."""
    if fcntl is None:
        msg = "This computer has no locks of files."
        raise OSError(msg)
    fcntl.flock(file, sum(getattr(fcntl, name) for name in names))


def make_once(root: Path, make: Callable[[Path], None]) -> None:
    """Make a folder with ``make(folder)`` unless it is there; it appears whole or not at all."""
    if root.is_dir():
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with lock(root) as alone:
        if root.is_dir():
            return
        if alone:
            # Nobody else is making it, so what lies there was left by a process that was killed.
            for leftover in root.parent.glob(f".{root.name}.*{_PARTIAL}"):
                shutil.rmtree(leftover, ignore_errors=True)
        partial = tempfile.mkdtemp(prefix=f".{root.name}.", suffix=_PARTIAL, dir=root.parent)
        try:
            make(Path(partial))
            # mkdtemp makes folders that only their owner can read.
            os.chmod(partial, 0o755)
            _move(partial, root)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _move(partial: str, root: Path) -> None:
    try:
        os.replace(partial, root)
    except OSError:
        # Another process, with no lock between us, may have been first: its folder is the same.
        if not root.is_dir():
            raise


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a file that takes its place when it is whole, with what leads there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_PARTIAL, dir=path.parent)
    partial = Path(name)
    try:
        # `remove_leftovers` leaves alone what somebody writes.
        with os.fdopen(handle, "wb") as file, _locked(file):
            write(file)
            file.flush()
        # mkstemp makes files that only their owner can read.
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed left of a file, and nothing that is being written."""
    for leftover in path.parent.glob(f".{path.name}.*{_PARTIAL}"):
        with suppress(OSError), open(leftover, "rb") as stream:
            _flock(stream, "LOCK_EX", "LOCK_NB")
            leftover.unlink(missing_ok=True)
