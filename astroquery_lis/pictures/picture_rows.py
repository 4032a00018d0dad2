"""The rows of a manifest, or cutouts in memory, with a picture of each."""

import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning

from .._packages import import_optional
from ..exceptions import InvalidRequestError, LegacySurveyError, NoCoverageError
from .encode import thumbnail
from .rgb import rgb

__all__ = ["PictureRow", "picture_rows"]

HDF5_SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True)
class PictureRow:
    """One target.

    Attributes
    ----------
    name : str
        What the user calls it, or its number.
    status, message : str
        As in the manifest.
    picture : `~numpy.ndarray` of uint8, shape (ny, nx, 3), or None
        North up; `None` if there is none.
    ra_deg, dec_deg : float
        ICRS; NaN if not known.
    release, layer, bands : str
        What is shown; empty if not known.
    values : tuple
        Of further columns.
    """

    name: str
    status: str
    message: str = ""
    picture: np.ndarray | None = None
    ra_deg: float = np.nan
    dec_deg: float = np.nan
    release: str = ""
    layer: str = ""
    bands: str = ""
    values: tuple = ()


def picture_rows(given, size, *, coordinates=None, columns=(), **how):
    """Yield a `PictureRow` for each target; one that cannot be read says why.

    Parameters
    ----------
    given : `~astropy.table.Table` or iterable
        A manifest, or cutouts: HDULists, errors in place of them, or pairs of a row's number and
        either, as ``iter_cutouts`` yields them.
    size : int
        Pixels that pictures are made to fit into.
    coordinates : `~astropy.coordinates.SkyCoord`, optional
        Position of every row; by default columns ``ra`` and ``dec``, then the files' headers.
    columns : sequence of str, optional
        Further columns of the manifest.
    **how
        As for `~.rgb.rgb`.

    Yields
    ------
    PictureRow
    """
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 8:
        msg = f"size={size!r} must be a number of pixels, 8 at least."
        raise InvalidRequestError(msg, parameter="size", value=size)
    if isinstance(given, fits.HDUList):
        given = [given]
    if isinstance(given, Table):
        rows = _of_manifest(given, columns)
    elif columns:
        msg = f"columns={columns!r}: cutouts in memory have no columns."
        raise InvalidRequestError(msg, parameter="columns", value=columns)
    else:
        rows = _of_cutouts(given)
    if coordinates is not None:
        coordinates = coordinates.icrs
        if isinstance(given, Table) and coordinates.shape != (len(given),):
            msg = f"coordinates: {coordinates.size} positions for {len(given)} rows."
            raise InvalidRequestError(msg, parameter="coordinates", value=coordinates)
    for index, (known, opened) in enumerate(rows):
        if coordinates is not None:
            known |= {
                "ra_deg": float(coordinates.ra.deg[index]),
                "dec_deg": float(coordinates.dec.deg[index]),
            }
        yield _row(known, opened, size, how)


def _row(known, opened, size, how):
    """Return the row of what is known and a function that gives the cutout."""
    messages = [known.pop("message", "")]
    if opened is not None:
        try:
            with opened() as (hdul, found):
                known = {**_of_header(hdul[0].header), **found, **_given(known)}
                known["picture"] = thumbnail(rgb(hdul, **how), size)
        except InvalidRequestError as error:
            if error.parameter in ("stretch", "brightness"):
                raise
            messages.append(f"No picture: {error}")
        except (OSError, KeyError, IndexError, ValueError, TypeError, LegacySurveyError) as error:
            messages.append(f"No picture: {type(error).__name__}: {error}")
    return PictureRow(message=" ".join(filter(None, messages)), **known)


def _given(known):
    """Leave out what is not known, so that a file's header can tell."""
    return {
        name: value
        for name, value in known.items()
        if value != "" and not (isinstance(value, float) and np.isnan(value))
    }


def _of_header(header):
    found = {"release": header.get("RELEASE", ""), "layer": header.get("LAYER", "")}
    found["bands"] = str(header.get("BANDS", "")).replace(",", "")
    for name, card in (("ra_deg", "RA"), ("dec_deg", "DEC")):
        found[name] = float(header.get(card, np.nan))
    return found


def _of_cutouts(cutouts):
    for index, item in enumerate(cutouts):
        row, hdul = item if isinstance(item, tuple) and len(item) == 2 else (index, item)
        if isinstance(hdul, fits.HDUList):
            opened = nullcontext((hdul, {}))
            yield {"name": str(row), "status": "COMPLETE"}, lambda opened=opened: opened
        elif isinstance(hdul, Exception):
            status = "NODATA" if isinstance(hdul, NoCoverageError) else "ERROR"
            yield {"name": str(row), "status": status, "message": str(hdul)}, None
        else:
            msg = f"Cutouts must be HDULists; number {index} is of type {type(hdul).__name__}."
            raise InvalidRequestError(msg, parameter="manifest", value=hdul)


def _of_manifest(table, columns):
    by_name = {name.lower(): name for name in table.colnames}
    wanted = {"local path": "Local Path", "status": "Status"}
    lacking = [shown for name, shown in wanted.items() if name not in by_name]
    lacking += [name for name in columns if name not in table.colnames]
    if lacking:
        msg = f"The manifest has no column {', '.join(lacking)}; it has {table.colnames}."
        raise InvalidRequestError(msg, parameter="manifest", value=table.colnames)
    ra, dec = (_degrees(table, by_name.get(name)) for name in ("ra", "dec"))
    for index in range(len(table)):

        def text(name, index=index):
            column = by_name.get(name)
            value = "" if column is None else table[column][index]
            return "" if value is np.ma.masked else str(value).strip()

        path = text("local path")
        known = {
            "name": text("id") or str(index),
            "status": text("status"),
            "message": text("message"),
            "ra_deg": ra[index],
            "dec_deg": dec[index],
            "release": text("release"),
            "bands": text("bands").replace(",", ""),
            "values": tuple(table[name][index] for name in columns),
        }
        yield known, (lambda path=path, index=index: _read(path, index)) if path else None


def _degrees(table, name):
    if name is None:
        return np.full(len(table), np.nan).tolist()
    column = table[name]
    values = np.ma.filled(np.ma.asarray(getattr(column, "value", column), float), np.nan)
    unit = getattr(column, "unit", None)
    return (np.asarray(values) * (u.deg if unit is None else unit)).to_value(u.deg).tolist()


@contextmanager
def _read(path, row):
    """Yield a cutout from its file, and what the file knows of it besides its header."""
    if Path(path).suffix in HDF5_SUFFIXES:
        yield _read_hdf5(path, row)
        return
    with warnings.catch_warnings():
        # Of a file that is cut short astropy warns as well as raising.
        warnings.simplefilter("ignore", AstropyWarning)
        with fits.open(path, memmap=False) as hdul:
            yield hdul, {}


def _read_hdf5(path, row):
    with import_optional("h5py", "batch", "output='hdf5'").File(path) as file:
        index = file["index"][:]
        (place,) = np.flatnonzero(index["row"] == row)
        bands = [str(band) for band in file.attrs["bands"]]
        hdus = [fits.PrimaryHDU()]
        planes = [str(name) for name in file.attrs["planes"]]
        has = dict(zip(planes, file["has"][place], strict=True))
        for number, band in enumerate(bands if "image" in file else ()):
            name = f"IMAGE_{band}".upper()
            if has[name]:
                hdus.append(fits.ImageHDU(file["image"][place, number], name=name))
                hdus[-1].header["BAND"] = band
        ra, dec = (float(index[name][place]) for name in ("ra", "dec"))
    return fits.HDUList(hdus), {"ra_deg": ra, "dec_deg": dec}
