"""The simulated survey on disk: the survey's folders, names, codecs and headers.

Codecs and quantisation are those of legacypipe (``survey.get_compression_kwargs``).  astropy
writes the files, so that the columns of their tables come in another order than the survey's.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from astropy.config import get_cache_dir
from astropy.io import fits

from ..survey import bricks, paths, releases
from ..survey.bricks import Brick
from ..survey.pixel_grids import Box, TangentGrid
from . import render, sky
from .planes import BrickScene, Summaries, summarise_band, write_brick_tables

if TYPE_CHECKING:
    from multiprocessing.popen_spawn_posix import Popen

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


_RICE = {"compression_type": "RICE_1"}
_IMAGE = {**_RICE, "quantize_method": 2, "quantize_level": -1e-4}
_LOSSLESS = {"compression_type": "GZIP_1", "quantize_level": 0}
_INTEGER = {"compression_type": "HCOMPRESS_1", "hcomp_scale": 0}
# How each product is compressed; tiles are 100 by 100 pixels.
CODECS = {
    "image": _IMAGE,
    "model": _IMAGE,
    "blobmodel": _IMAGE,
    "invvar": {**_RICE, "quantize_method": -1, "quantize_level": 16},
    "chi2": {**_RICE, "quantize_method": -1, "quantize_level": -0.1},
    "depth": _LOSSLESS,
    "galdepth": _LOSSLESS,
    "psfsize": _LOSSLESS,
    "nexp": _INTEGER,
    "maskbits": _INTEGER,
}

PRODTYPE = {"invvar": "wtmap", "nexp": "expmap", "depth": "psfdepth"}
_FILTER = {
    "g": "g DECam SDSS c0001 4720.0 1520.0",
    "r": "r DECam SDSS c0002 6415.0 1480.0",
    "i": "i DECam SDSS c0003 7835.0 1470.0",
    "z": "z DECam SDSS c0004 9260.0 1520.0",
}
_HEADER_CARDS = 142
_SOURCES = ("sky.py", "render.py", "planes.py", "tree.py")
_OVERLAP_PRODUCTS = ("image", "invvar", "nexp")
_PARTIAL = ".partial"
_README = """These files are simulated: the sources in them are not in the sky.
They imitate the files of the DESI Legacy Imaging Surveys, for tests and examples.
"""


def default_root() -> Path:
    """Return where the tree of this version of the scene is kept."""
    return cache_folder() / digest_of(_SOURCES)


def cache_folder() -> Path:
    """Return where everything is kept that is made once: in astropy's cache."""
    return Path(get_cache_dir()) / "astroquery_lis" / "sandbox"


def digest_of(sources: Iterable[str]) -> str:
    """Return a key that changes with the scene and with modules that make files of it."""
    digest = hashlib.sha256(sky.SCENE_VERSION.encode())
    for name in sources:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:12]


def build(
    root: str | PathLike[str] | None = None, *, progress: Callable[[int, int], object] | None = None
) -> Path:
    """Write the simulated survey, unless it is there already.

    The tree appears whole or not at all, however often and wherever this is interrupted; two
    processes may build the same tree at once.

    Parameters
    ----------
    root : str or path-like, optional
        Folder of the tree; by default one per version of the scene in astropy's cache.
    progress : callable, optional
        Called with (bricks done, bricks in all) after each brick.

    Returns
    -------
    `~pathlib.Path`
        The folder, about 200 MB.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    root = default_root() if root is None else Path(root).absolute()
    make_once(root, lambda partial: _write_tree(partial, progress))
    return root


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
            for leftover in root.parent.glob(f".{root.name}.*.partial"):
                shutil.rmtree(leftover, ignore_errors=True)
        partial = tempfile.mkdtemp(prefix=f".{root.name}.", suffix=".partial", dir=root.parent)
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
        # Another process, with no lock between us, may have been first: its tree is the same.
        if not root.is_dir():
            raise


@contextmanager
def lock(root: Path) -> Iterator[bool]:
    """Hold a lock that dies with the process; yield whether it could be had."""
    if fcntl is None:
        yield False
        return
    with open(root.parent / f".{root.name}.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
        except OSError:  # a file system without locks
            alone = False
        yield alone


def add_once(root: Path, name: str, sources: Iterable[str], write: Callable[[Path], None]) -> None:
    """Add files to a tree, unless those are there that the modules in ``sources`` make now."""
    marker = root / f".{name}-{digest_of(sources)}"
    if marker.exists():
        return
    with lock(root) as alone:
        if marker.exists():
            return
        if alone:
            # Nobody else is writing, so what lies there was left by a process that was killed.
            for leftover in root.glob(f"**/.*{_PARTIAL}"):
                leftover.unlink(missing_ok=True)
        for older in root.glob(f".{name}-*"):
            older.unlink(missing_ok=True)
        write(root)
        marker.touch()


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a file that takes its place when it is whole."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_PARTIAL, dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        if path.is_file() and path.read_bytes() == partial.read_bytes():
            # Kept, with its date: somebody may be reading it.
            return
        # mkstemp makes files that only their owner can read.
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def checksum_line(path: Path) -> str:
    """Return the line of a file in the checksums beside it."""
    with open(path, "rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n"


def add_checksums(listed: Path, paths: Iterable[Path]) -> None:
    """Write the lines of some files into a list of checksums, among those that are there."""
    lines = {}
    if listed.exists():
        lines = {line.split()[1]: line for line in listed.read_text().splitlines(keepends=True)}
    lines |= {path.name: checksum_line(path) for path in paths}
    text = "".join(lines[name] for name in sorted(lines))
    write_whole(listed, lambda file: file.write(text.encode()))


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


def _write_tree(root: Path, progress: Callable[[int, int], object] | None) -> None:
    (root / "README.txt").write_text(_README)
    # The brick that was observed as a whole takes longest and is the first.
    jobs = [(*tree, name) for tree, names in sky.BRICKS.items() for name in names]
    write_brick_tables(root, write_bricks(root, jobs, progress))


def write_bricks(
    root: Path,
    jobs: list[tuple[str, str, str]],
    progress: Callable[[int, int], object] | None = None,
) -> Summaries:
    """Return what `write_brick` gave for each job, all made by two processes where that works."""
    summaries: Summaries = {}

    def finish(job: tuple[str, str, str], summary: dict[str, float]) -> None:
        summaries[job] = summary
        if progress is not None:
            progress(len(summaries), len(jobs))

    if len(jobs) > 1 and (os.cpu_count() or 1) > 1:
        context = _ContextWithoutMain()
        # What is not made then is made here, where an error that comes again is raised.
        failures = (OSError, NotImplementedError, BrokenProcessPool)
        with suppress(*failures), ProcessPoolExecutor(2, context, _end_with_parent) as pool:
            try:
                futures = {pool.submit(write_brick, root, *job): job for job in jobs}
                for future in as_completed(futures):
                    finish(futures[future], future.result())
            finally:
                pool.shutdown(cancel_futures=True)
    for job in jobs:
        if job not in summaries:
            finish(job, write_brick(root, *job))
    return summaries


def write_brick(root: Path, release: str, region: str, brick: str) -> dict[str, float]:
    """Write the coadds of one brick and their checksums."""
    scene = BrickScene(release, region, brick)
    tree = releases.get_tree(release, region)
    products = [name for name, kind in paths.COADD_PRODUCTS.items() if kind.per_band]
    if not np.all(bricks.region_of_brick(scene.brick.id, release) == region):
        products = _OVERLAP_PRODUCTS
    folder = (root / paths.file_path("maskbits", release, region, brick=brick)).parent
    folder.mkdir(parents=True, exist_ok=True)
    primary = scene.primary()
    summary: dict[str, float] = {}
    for band in tree.bands:
        summary |= _write_band(root, scene, band, products, primary)
    masks = scene.masks(tree.bands)
    path = root / paths.file_path("maskbits", release, region, brick=brick)
    header = _header(scene, "maskbits", None)
    hdus = []
    for name, plane in masks.items():
        hdu = image_hdu(plane, header, "maskbits", path.name)
        hdu.name = name
        hdus.append(hdu)
    _write(path, hdus)
    listed = root / paths.file_path("coadd-checksums", release, region, brick=brick)
    add_checksums(listed, listed.parent.glob("*.f*"))
    return summary


def _write_band(
    root: Path, scene: BrickScene, band: str, products: Iterable[str], primary: np.ndarray
) -> dict[str, float]:
    planes = scene.band(band)
    for product in products:
        path = root / paths.file_path(
            product, scene.release, scene.region, brick=scene.brick.name, band=band
        )
        header = _header(scene, product, band)
        if product == "blobmodel" and scene.release == "dr9":
            # Not compressed for all its name, as in the survey (DR9 known issues).
            _write_plain(path, fits.PrimaryHDU(planes[product], header), scene.windows)
        else:
            _write(path, [image_hdu(planes[product], header, product, path.name)])
    return summarise_band(planes, primary, band)


def image_hdu(
    data: np.ndarray, header: fits.Header, product: str, filename: str
) -> fits.CompImageHDU:
    """Return an image, compressed as the survey compresses this product."""
    # Any seed from 1 to 10000 that a file keeps from build to build and does not share.
    seed = zlib.crc32(filename.encode()) % 10000 + 1
    return fits.CompImageHDU(
        data, header, tile_shape=(100, 100), dither_seed=seed, **CODECS[product]
    )


def _write(path: Path, hdus: list) -> None:
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path, overwrite=True)


def _write_plain(path: Path, hdu: fits.PrimaryHDU, windows: list[Box]) -> None:
    """Write an uncompressed image of which only the windows take room on the disk."""
    header = hdu.header.tostring().encode("ascii")
    pixels = hdu.data.astype(">f4")
    padding = -pixels.nbytes % 2880
    with open(path, "wb") as file:
        file.write(header)
        file.truncate(len(header) + pixels.nbytes + padding)
        row_bytes = pixels.shape[1] * pixels.itemsize
        for window in windows:
            for y in range(window.y0, window.y1):
                file.seek(len(header) + y * row_bytes + window.x0 * pixels.itemsize)
                file.write(pixels[y, window.x0 : window.x1].tobytes())


def _header(scene: BrickScene, product: str, band: str | None) -> fits.Header:
    """Return the header of a coadd, as long as the survey's."""
    brick = scene.brick
    header = fits.Header()
    header["OBJECT"] = ("SIMULATED", "these pixels are not data")
    header["IMTYPE"] = (product, "legacypipe image type")
    header["PRODTYPE"] = (PRODTYPE.get(product, product), "NOAO image type")
    unit = paths.COADD_PRODUCTS[product].unit
    if unit:
        header["BUNIT"] = unit
    if band:
        header["FILTER"] = (_FILTER[band], "filter in the camera")
        header["MAGZERO"] = (22.5, "magnitude zero point")
    add_brick_cards(header, scene.release, scene.region, brick)
    header["CENTRA"] = (brick.ra_deg, "image centre RA (deg)")
    header["CENTDEC"] = (brick.dec_deg, "image centre Dec (deg)")
    size = bricks.IMAGE_SIZE_PIX
    corners = ((0, 0), (size - 1, 0), (size - 1, size - 1), (0, size - 1))
    for number, corner in enumerate(corners, start=1):
        ra, dec = scene.grid.to_sky(*corner)
        header[f"CORN{number}RA"] = (float(ra), "RA of a corner pixel (deg)")
        header[f"CORN{number}DEC"] = (float(dec), "Dec of a corner pixel (deg)")
    add_wcs_cards(header, scene.grid, size)
    _add_scene(header, scene)
    while len(header.cards) < _HEADER_CARDS:
        header.add_comment(f"SIMULATED, scene {sky.SCENE_VERSION}")
    return header


def add_brick_cards(header: fits.Header, release: str, region: str, brick: Brick) -> None:
    """Add the cards that say which brick of which release it is."""
    header["SURVEY"] = "DECaLS" if region == "south" else "BASS MzLS"
    header["DRVERSIO"] = (int(release[2:]) * 1000, "survey data release number")
    header["BRICKNAM"] = (brick.name, "brick name RRRr[pm]DDd")
    header["BRICKID"] = (brick.id, "brick id")
    header["RAMIN"] = (brick.ra1_deg, "brick RA min (deg)")
    header["RAMAX"] = (brick.ra2_deg, "brick RA max (deg)")
    header["DECMIN"] = (brick.dec1_deg, "brick Dec min (deg)")
    header["DECMAX"] = (brick.dec2_deg, "brick Dec max (deg)")


def add_wcs_cards(header: fits.Header, grid: TangentGrid, size: int) -> None:
    """Add the WCS as legacypipe writes it: no RADESYS, no CUNIT."""
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = grid.ra_deg, grid.dec_deg
    header["CRPIX1"], header["CRPIX2"] = grid.x_ref + 1, grid.y_ref + 1
    header["CD1_1"], header["CD1_2"] = -grid.scale_deg, 0.0
    header["CD2_1"], header["CD2_2"] = 0.0, grid.scale_deg
    header["IMAGEW"], header["IMAGEH"] = float(size), float(size)
    header["EQUINOX"] = 2000.0


def _add_scene(header: fits.Header, scene: BrickScene) -> None:
    """Say how the pixels were made, instead of the survey's list of software."""
    header["SCENE"] = (sky.SCENE_VERSION, "version of the simulated scene")
    header["NSOURCE"] = (len(scene.sources), "sources in the whole scene")
    header["SATLEVEL"] = (sky.SATURATION, "saturation (nanomaggy/pixel)")
    header["POISSON"] = (sky.POISSON_NMGY, "variance per source flux (nanomaggy)")
    for letter, sigma in sky.NOISE_SIGMA.items():
        name = letter.upper()
        header[f"NOISE_{name}"] = (sigma, "noise of one exposure (nanomaggy/pixel)")
        header[f"FWHM_{name}"] = (render.psf_fwhm_arcsec(letter), "PSF FWHM (arcsec)")
        for number, (weight, width) in enumerate(render.psf_components(letter), start=1):
            header[f"PSFW{number}_{name}"] = (weight, "weight of a PSF Gaussian")
            header[f"PSFS{number}_{name}"] = (width, "sigma of a PSF Gaussian (arcsec)")
    for number, (place, (ra, dec)) in enumerate(sky.POSITIONS_DEG.items(), start=1):
        header[f"PLACE{number:02d}"] = (place, "a named place of the scene")
        header[f"PLRA{number:02d}"] = (ra, "its RA (deg)")
        header[f"PLDEC{number:02d}"] = (dec, "its Dec (deg)")
