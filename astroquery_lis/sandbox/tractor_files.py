"""The Tractor files of the simulated survey and its tables of CCDs, with their checksums.

They are a step of their own after `.tree.build`, under a key of their own, so that a change of the
catalogue does not make the images anew.
"""

import hashlib
import os
import tempfile
from pathlib import Path

from astropy.io import fits

from ..survey import paths, releases
from . import catalog, sky
from .ccds import ccd_rows
from .light import APERTURES_ARCSEC, WISE_APERTURES_ARCSEC
from .measurements import release_number
from .tractor_columns import tractor_columns
from .tree import _lock

__all__ = ["add_catalogs", "table_hdu", "tractor_hdus"]

_SOURCES = (
    "sky.py",
    "render.py",
    "planes.py",
    "tractor_columns.py",
    "light.py",
    "measurements.py",
    "catalog.py",
    "viewer_psf.py",
    "ccds.py",
    "tractor_files.py",
)
_MARKER = ".catalogs-{}"
_PARTIAL = ".partial"
_WISE_AB = (2.699, 3.339, 5.174, 6.620)


def add_once(root, marker, sources, write):
    """Add files to a tree, unless those that this code makes are there.

    Parameters
    ----------
    root : `~pathlib.Path`
        Folder of the tree.
    marker : str
        Name of the file that tells so, with a place for the digest of the code.
    sources : iterable of str
        Modules of this folder that make the files.
    write : callable
        Takes ``root`` and writes them, each whole or not at all.
    """
    digest = hashlib.sha256()
    for name in sources:
        digest.update(Path(__file__).with_name(name).read_bytes())
    done = root / marker.format(digest.hexdigest()[:12])
    if done.exists():
        return
    with _lock(root) as alone:
        if done.exists():
            return
        if alone:
            # Nobody else is writing, so what lies there was left by a process that was killed.
            for left in root.glob(f"**/.*{_PARTIAL}"):
                left.unlink(missing_ok=True)
        for left in root.glob(marker.format("*")):
            left.unlink(missing_ok=True)
        write(root)
        done.touch()


def add_catalogs(root):
    """Write the Tractor files and the tables of CCDs into a tree, unless they are there.

    Every file appears whole or not at all; several processes may do it at once.

    Parameters
    ----------
    root : `~pathlib.Path`
        Folder of the tree.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    add_once(root, _MARKER, _SOURCES, _write_all)


def _write_all(root):
    for (release, region), names in catalog.CATALOG_TREES.items():
        _write_tree(root, release, region, names)
    for (release, region), names in sky.BRICKS.items():
        for name in names:
            _add_ccds(root, release, region, name)


def _write_tree(root, release, region, names):
    checksums = {}
    for name in names:
        path = root / paths.file_path("tractor", release, region, brick=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, tractor_hdus(release, region, name).writeto)
        listed = root / paths.file_path("tractor-checksums", release, region, brick=name)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        checksums.setdefault(listed, []).append(f"{digest}  {path.name}\n")
    for path, lines in checksums.items():
        text = "".join(sorted(lines, key=lambda line: line.split()[1]))
        _write_whole(path, lambda file, text=text: file.write(text.encode()))


def _add_ccds(root, release, region, brick):
    """Write a brick's table of CCDs beside its coadds, and its line into their checksums."""
    listed = root / paths.file_path("coadd-checksums", release, region, brick=brick)
    if not listed.exists():
        return
    path = root / paths.file_path("ccds-table", release, region, brick=brick)
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(ccd_rows(release, region, brick))])
    _write_whole(path, hdus.writeto)
    lines = [line for line in listed.read_text().splitlines() if not line.endswith(path.name)]
    lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")
    text = "".join(f"{line}\n" for line in sorted(lines, key=lambda line: line.split()[1]))
    _write_whole(listed, lambda file: file.write(text.encode()))


def _write_whole(path, write):
    """Let ``write`` fill a file that takes its place when it is whole."""
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_PARTIAL, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        if path.is_file() and path.read_bytes() == Path(partial).read_bytes():
            # Kept, with its date: somebody may be reading it.
            return
        # mkstemp makes files that only their owner can read.
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)


def table_hdu(rows, units):
    """Return rows as a table of a FITS file.

    Parameters
    ----------
    rows : `~numpy.ndarray`
        Structured.
    units : mapping of str to str
        TUNIT by column; a column without one gets none.

    Returns
    -------
    `~astropy.io.fits.BinTableHDU`
    """
    hdu = fits.BinTableHDU(rows)
    for number, name in enumerate(rows.dtype.names, start=1):
        # Into the header, where it stays as it is spelt: some are no unit to anybody.
        if units.get(name):
            hdu.header.set(f"TUNIT{number}", units[name], after=f"TFORM{number}")
    return hdu


def tractor_hdus(release, region, brick):
    """Return one Tractor file.

    Parameters
    ----------
    release, region, brick : str
        As for `~.catalog.brick_rows`.

    Returns
    -------
    `~astropy.io.fits.HDUList`
    """
    primary = fits.PrimaryHDU()
    header = primary.header
    header["OBJECT"] = ("SIMULATED", "these rows are not data")
    header["BRICKNAM"] = (brick, "brick name RRRr[pm]DDd")
    header["DRVERSIO"] = (release_number(release, region), "data release number")
    header["BANDS"] = ",".join(releases.get_tree(release, region).bands)
    for number, radius in enumerate(APERTURES_ARCSEC):
        header[f"APRAD{number}"] = (radius, "radius of an optical aperture (arcsec)")
    for number, radius in enumerate(WISE_APERTURES_ARCSEC):
        header[f"WAPRAD{number}"] = (radius, "radius of a WISE aperture (arcsec)")
    for number, shift in enumerate(_WISE_AB, start=1):
        header[f"WISEAB{number}"] = (shift, "Vega to AB (mag)")
    units = {column.name: column.unit for column in tractor_columns(release, region)}
    rows = catalog.brick_rows(release, region, brick)
    return fits.HDUList([primary, table_hdu(rows, units)])
