"""Footprints out of whatever a user has: a plan, a table, files, an S_REGION, corners."""

import os
import re
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time

from ...exceptions import CoverageWarning, InvalidExposureError, InvalidRequestError, warn
from .footprint import Field, Footprint, parse_s_region

__all__ = ["footprints_of", "header_mjd", "read_headers"]

_TIME_COLUMNS = ("t_mid", "expmid", "mjd", "mjd_avg")
_NAME_COLUMNS = ("root", "obs_id", "filename", "file", "dataset", "name", "productfilename")


def footprints_of(given):
    """Return the footprints of whatever tells them.

    Parameters
    ----------
    given : Plan, `~astropy.table.Table`, path-like, str, `~astropy.coordinates.SkyCoord`, \
Footprint, or sequence of those
        A plan has ``exposures``; a table has a column ``s_region``; a path is that of a FITS file
        with S_REGION in its header (uncal, rate, cal, crf, i2d) or of a directory of them
        files; a text is an S_REGION itself; a SkyCoord has the corners of a polygon.

    Returns
    -------
    list of Footprint
        In the order given.

    Raises
    ------
    InvalidRequestError
        If it tells no footprint.
    InvalidExposureError
        If a file has none, or is no FITS file.

    Warns
    -----
    CoverageWarning
        If rows of a table have none, while others have.
    """
    if isinstance(given, Footprint):
        return [given]
    if isinstance(given, Field):
        return list(given.footprints)
    if isinstance(given, Table):
        return _of_table(given)
    if hasattr(given, "exposures"):
        return _of_plan(given)
    if isinstance(given, SkyCoord):
        icrs = given.icrs
        corners = np.stack([np.atleast_1d(icrs.ra.deg), np.atleast_1d(icrs.dec.deg)], axis=1)
        text = "POLYGON ICRS " + " ".join(map(repr, corners.ravel().tolist()))
        return [Footprint("polygon", parse_s_region(text))]
    if isinstance(given, str) and re.match(r"\s*(POLYGON|CIRCLE|UNION)\b", given, re.IGNORECASE):
        return [Footprint("s_region", parse_s_region(given))]
    if isinstance(given, (str, os.PathLike)):
        return _of_path(Path(given))
    try:
        items = list(given)
    except TypeError:
        items = []
    if not items:
        msg = (
            f"footprints={given!r} must be a plan, a table with a column s_region, FITS files, an "
            "S_REGION, a SkyCoord of corners, or a sequence of those."
        )
        raise InvalidRequestError(msg, parameter="footprints", value=given)
    return [one for item in items for one in footprints_of(item)]


def _of_plan(plan):
    found = []
    for one in plan.exposures:
        try:
            shapes = parse_s_region(getattr(one, "s_region", ""))
        except InvalidRequestError as error:
            msg = f"{one.path}: {error}"
            raise InvalidExposureError(msg, parameter="plan", value=str(one.path)) from error
        mjd = _mjd(getattr(one, "date", ""), getattr(one, "time", ""))
        name = getattr(one, "filter", "")
        found.append(Footprint(str(one.root), shapes, mjd, str(name or ""), str(one.path)))
    if not found:
        msg = "The plan has no exposures."
        raise InvalidRequestError(msg, parameter="plan", value=plan)
    return found


def _of_table(table):
    names = {name.lower(): name for name in table.colnames}
    if "s_region" not in names:
        msg = f"The table has no column s_region; it has {', '.join(table.colnames)}."
        raise InvalidRequestError(msg, parameter="table", value=table.colnames)
    label = next((names[name] for name in _NAME_COLUMNS if name in names), None)
    band = next((names[name] for name in ("filter", "filters") if name in names), None)
    found, bare = [], []
    for number, row in enumerate(table):
        text = row[names["s_region"]]
        if text is np.ma.masked or not str(text).strip():
            bare.append(number)
            continue
        name = str(row[label]) if label else f"row {number}"
        filter_name = str(row[band]) if band and row[band] is not np.ma.masked else ""
        found.append(Footprint(name, parse_s_region(str(text)), _row_mjd(row, names), filter_name))
    if not found:
        msg = f"None of the {len(table)} rows of the table has an s_region."
        raise InvalidRequestError(msg, parameter="table", value=table)
    if bare:
        # Association files, and exposures of nothing, such as darks.
        msg = f"{len(bare)} of the {len(table)} rows have no s_region; they are left out."
        warn(msg, CoverageWarning)
    return found


def _row_mjd(row, names):
    """Return the middle of an exposure that a row tells, as MJD."""

    def number(name):
        value = row[names[name]]
        return float(value) if value is not np.ma.masked else np.nan

    if "t_min" in names and "t_max" in names:
        return (number("t_min") + number("t_max")) / 2
    for name in _TIME_COLUMNS:
        if name in names:
            return number(name)
    date = row[names["date_obs"]] if "date_obs" in names else ""
    return np.nan if date is np.ma.masked else _mjd(date, "")


_PATTERNS = ("*_i2d.fits", "*_cal.fits", "*_rate.fits", "*_uncal.fits")
"""What a directory is searched for, the first that it has."""


def _of_path(path):
    if path.is_dir():
        found = next(filter(None, (sorted(path.rglob(p)) for p in _PATTERNS)), [])
        if not found:
            msg = f"There is no file {', '.join(_PATTERNS)} in {path}, at any depth."
            raise InvalidRequestError(msg, parameter="footprints", value=str(path))
        return [one for file in found for one in _of_path(file)]
    header = read_headers(path)
    text = str(header.get("S_REGION", ""))
    if not text.strip():
        msg = f"{path} has no S_REGION; it is written by assign_wcs, or by the ground system."
        raise InvalidExposureError(msg, parameter="footprints", value=str(path))
    return [
        Footprint(
            path.name.removesuffix(".fits"),
            parse_s_region(text),
            header_mjd(header),
            str(header.get("FILTER", "")),
            str(path),
        )
    ]


def read_headers(path):
    """Return the primary header of a JWST file, with the cards of its SCI extension added.

    Parameters
    ----------
    path : path-like
        A FITS file.

    Returns
    -------
    `~astropy.io.fits.Header`

    Raises
    ------
    InvalidRequestError
        If there is no such file.
    InvalidExposureError
        If it is not FITS.
    """
    try:
        with fits.open(path, memmap=True) as hdul:
            header = hdul[0].header.copy()
            if "SCI" in hdul:
                header.update(hdul["SCI"].header)
    except FileNotFoundError as error:
        msg = f"There is no file {path}."
        raise InvalidRequestError(msg, parameter="path", value=str(path)) from error
    except OSError as error:
        msg = f"{path} is not a FITS file: {error}"
        raise InvalidExposureError(msg, parameter="path", value=str(path)) from error
    return header


def header_mjd(header):
    """Return the middle of an exposure, or of those of a mosaic, as MJD (UTC).

    Parameters
    ----------
    header : `~astropy.io.fits.Header`
        As from `read_headers`.

    Returns
    -------
    float
        NaN if the header does not tell it.
    """
    for name in ("EXPMID", "MJD-AVG"):
        if isinstance(header.get(name), (int, float)) and header[name] > 0:
            return float(header[name])
    limits = [header.get(name) for name in ("MJD-BEG", "MJD-END")]
    if all(isinstance(value, (int, float)) and value > 0 for value in limits):
        return float(np.mean(limits))
    return _mjd(header.get("DATE-OBS", ""), header.get("TIME-OBS", ""))


def _mjd(date, time):
    date, time = str(date or "").strip(), str(time or "").strip() or "00:00:00"
    if not date:
        return np.nan
    try:
        return float(Time(date if "T" in date else f"{date}T{time}", scale="utc").mjd)
    except ValueError:
        return np.nan
