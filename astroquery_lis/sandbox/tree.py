"""The simulated survey on disk: the survey's folders, names, codecs and headers.

Codecs and quantisation are those of legacypipe (``survey.get_compression_kwargs``).  astropy
writes the files, so that the columns of their tables come in another order than the survey's.
"""

import hashlib
import os
import shutil
import tempfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from astropy.config import get_cache_dir
from astropy.io import fits

from ..survey import bricks, paths, releases
from . import helper, render, sky, tables
from .planes import BrickScene

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["build", "default_root"]

_RICE = {"compression_type": "RICE_1"}
_IMAGE = {**_RICE, "quantize_method": 2, "quantize_level": -1e-4}
_LOSSLESS = {"compression_type": "GZIP_1", "quantize_level": 0}
_INTEGER = {"compression_type": "HCOMPRESS_1", "hcomp_scale": 0}
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
"""How each product is compressed; tiles are 100 by 100 pixels."""

_PRODTYPE = {"invvar": "wtmap", "nexp": "expmap", "depth": "psfdepth"}
_FILTER = {
    "g": "g DECam SDSS c0001 4720.0 1520.0",
    "r": "r DECam SDSS c0002 6415.0 1480.0",
    "i": "i DECam SDSS c0003 7835.0 1470.0",
    "z": "z DECam SDSS c0004 9260.0 1520.0",
}
_HEADER_CARDS = 142
_SOURCES = ("sky.py", "render.py", "planes.py", "tables.py", "tree.py")
_OVERLAP_PRODUCTS = ("image", "invvar", "nexp")
_README = """These files are simulated: the sources in them are not in the sky.
They imitate the files of the DESI Legacy Imaging Surveys, for tests and examples.
"""


def default_root():
    """Return where the tree of this version of the scene is kept.

    Returns
    -------
    `~pathlib.Path`
        In astropy's cache directory, under a name that changes with the code that makes the files.
    """
    digest = hashlib.sha256(sky.SCENE_VERSION.encode())
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    key = digest.hexdigest()[:12]
    return Path(get_cache_dir()) / "astroquery_lis" / "sandbox" / key


def build(root=None, *, progress=None):
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
    if root.is_dir():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with _lock(root) as alone:
        if root.is_dir():
            return root
        if alone:
            # Nobody else is building, so what lies there was left by a process that was killed.
            for left in root.parent.glob(f".{root.name}.*.partial"):
                shutil.rmtree(left, ignore_errors=True)
        partial = tempfile.mkdtemp(prefix=f".{root.name}.", suffix=".partial", dir=root.parent)
        try:
            _write_tree(Path(partial), progress)
            # mkdtemp makes folders that only their owner can read.
            os.chmod(partial, 0o755)
            _move(partial, root)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return root


def _move(partial, root):
    try:
        os.replace(partial, root)
    except OSError:
        # Another process, with no lock between us, may have been first: its tree is the same.
        if not root.is_dir():
            raise


@contextmanager
def _lock(root):
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


def _write_tree(root, progress):
    (root / "README.txt").write_text(_README)
    jobs = [(*tree, name) for tree, names in sky.BRICKS.items() for name in names]
    done = None if progress is None else lambda number: progress(number, len(jobs))
    summaries = helper.run_jobs(jobs, root, write_brick, done=done)
    tables.write_brick_tables(root, summaries)


def write_brick(root, release, region, brick):
    """Write the coadds of one brick and their checksums.

    Parameters
    ----------
    root : `~pathlib.Path`
        Folder of the tree.
    release, region, brick : str
        For example ``'dr10'``, ``'south'``, ``'0451p000'``.

    Returns
    -------
    dict
        What the table of bricks says about it.
    """
    scene = BrickScene(release, region, brick)
    tree = releases.get_tree(release, region)
    products = [name for name, kind in paths.COADD_PRODUCTS.items() if kind.per_band]
    if not np.all(bricks.region_of_brick(scene.brick.id, release) == region):
        products = _OVERLAP_PRODUCTS
    folder = (root / paths.file_path("maskbits", release, region, brick=brick)).parent
    folder.mkdir(parents=True, exist_ok=True)
    primary = scene.primary()
    summary = {}
    for band in tree.bands:
        summary |= _write_band(root, scene, band, products, primary)
    masks = scene.masks(tree.bands)
    path = root / paths.file_path("maskbits", release, region, brick=brick)
    header = _header(scene, "maskbits", None)
    hdus = []
    for name, plane in masks.items():
        hdu = _image_hdu(plane, header, "maskbits", path.name)
        hdu.name = name
        hdus.append(hdu)
    _write(path, hdus)
    _write_checksums(root / paths.file_path("coadd-checksums", release, region, brick=brick))
    return summary


def _write_band(root, scene, band, products, primary):
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
            _write(path, [_image_hdu(planes[product], header, product, path.name)])
    return tables.summarise_band(planes, primary, band)


def _image_hdu(data, header, product, filename):
    # Any seed from 1 to 10000 that a file keeps from build to build and does not share.
    seed = zlib.crc32(filename.encode()) % 10000 + 1
    return fits.CompImageHDU(
        data, header, tile_shape=(100, 100), dither_seed=seed, **CODECS[product]
    )


def _write(path, hdus):
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)


def _write_plain(path, hdu, windows):
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


def _header(scene, product, band):
    """Return the header of a coadd, as long as the survey's."""
    brick = scene.brick
    header = fits.Header()
    header["OBJECT"] = ("SIMULATED", "these pixels are not data")
    header["IMTYPE"] = (product, "legacypipe image type")
    header["PRODTYPE"] = (_PRODTYPE.get(product, product), "NOAO image type")
    unit = paths.COADD_PRODUCTS[product].unit
    if unit:
        header["BUNIT"] = unit
    if band:
        header["FILTER"] = (_FILTER[band], "filter in the camera")
        header["MAGZERO"] = (22.5, "magnitude zero point")
    header["SURVEY"] = "DECaLS" if scene.region == "south" else "BASS MzLS"
    header["DRVERSIO"] = (int(scene.release[2:]) * 1000, "survey data release number")
    header["BRICKNAM"] = (brick.name, "brick name RRRr[pm]DDd")
    header["BRICKID"] = (brick.id, "brick id")
    header["RAMIN"] = (brick.ra1_deg, "brick RA min (deg)")
    header["RAMAX"] = (brick.ra2_deg, "brick RA max (deg)")
    header["DECMIN"] = (brick.dec1_deg, "brick Dec min (deg)")
    header["DECMAX"] = (brick.dec2_deg, "brick Dec max (deg)")
    header["CENTRA"] = (brick.ra_deg, "image centre RA (deg)")
    header["CENTDEC"] = (brick.dec_deg, "image centre Dec (deg)")
    size = bricks.IMAGE_SIZE_PIX
    corners = ((0, 0), (size - 1, 0), (size - 1, size - 1), (0, size - 1))
    for number, corner in enumerate(corners, start=1):
        ra, dec = scene.grid.to_sky(*corner)
        header[f"CORN{number}RA"] = (float(ra), "RA of a corner pixel (deg)")
        header[f"CORN{number}DEC"] = (float(dec), "Dec of a corner pixel (deg)")
    _add_wcs(header, scene.grid)
    _add_scene(header, scene)
    while len(header.cards) < _HEADER_CARDS:
        header.add_comment(f"SIMULATED, scene {sky.SCENE_VERSION}")
    return header


def _add_wcs(header, grid):
    """Add the WCS as legacypipe writes it: no RADESYS, no CUNIT."""
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = grid.ra_deg, grid.dec_deg
    header["CRPIX1"], header["CRPIX2"] = grid.x_ref + 1, grid.y_ref + 1
    header["CD1_1"], header["CD1_2"] = -grid.scale_deg, 0.0
    header["CD2_1"], header["CD2_2"] = 0.0, grid.scale_deg
    header["IMAGEW"], header["IMAGEH"] = (float(bricks.IMAGE_SIZE_PIX),) * 2
    header["EQUINOX"] = 2000.0


def _add_scene(header, scene):
    """Say how the pixels were made, in place of the survey's list of software."""
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


def _write_checksums(path):
    lines = []
    for file in sorted(path.parent.glob("*.f*")):
        with open(file, "rb") as stream:
            lines.append(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {file.name}\n")
    path.write_text("".join(lines))
