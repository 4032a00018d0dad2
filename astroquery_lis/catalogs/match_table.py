"""The table that a cross-match returns."""

import numpy as np
from astropy import units as u
from astropy.table import Column, MaskedColumn

from ..exceptions import (
    CacheWarning,
    CoverageWarning,
    NoCoverageError,
    warn,
)
from ..survey.tractor import any_column
from .catalog_table import merge_columns
from .crossmatch import match_positions
from .sources import fetch_files

__all__ = ["match_table"]


def match_table(
    request,
    table,
    ra_deg,
    dec_deg,
    radius_deg,
    *,
    find,
    epoch_yr,
    finder,
    held,
    limits,
    on_missing,
):
    """Match a table to the catalogue."""

    def open_files(files):
        found = fetch_files(files, finder, limits, "The table")
        _tell(finder, [f for f, one in zip(files, found, strict=True) if one is None], on_missing)
        for file, located in zip(files, found, strict=True):
            if located is not None:
                yield file, finder.open(located, held)

    matches = match_positions(
        request,
        ra_deg,
        dec_deg,
        radius_deg,
        find=find,
        epoch_yr=epoch_yr,
        open_files=open_files,
    )
    merged = merge_columns(request, matches.chunks, request.columns)
    if find == "all":
        result, place, n_rows = table[matches.index], slice(None), len(matches.index)
    else:
        result, place, n_rows = table.copy(), matches.index, len(table)
    missing = np.ones(n_rows, bool)
    missing[place] = False
    apart = np.zeros(n_rows)
    apart[place] = matches.separation_deg * 3600
    columns = [_column("separation", apart, missing, None, u.arcsec)]
    for name in request.columns:
        values, mask = merged[name]
        known = any_column(name, request.release)
        full = np.full((n_rows, *values.shape[1:]), known.missing, values.dtype)
        full[place] = values[matches.row]
        gone = None
        if mask is not None:
            gone = np.zeros(full.shape, bool)
            gone[place] = mask[matches.row]
        columns.append(_column(name, full, missing, gone, known.unit))
    for column in columns:
        if column.name in table.colnames:
            column.name = f"{column.name}_tractor"
    result.add_columns(columns)
    result.meta["crossmatch"] = {
        "survey": "DESI Legacy Imaging Surveys",
        "release": request.release,
        "region": request.region,
        "radius_arcsec": radius_deg * 3600,
        "find": find,
    }
    return result


def _column(name, values, missing, mask, unit):
    """Return a column, masked where there is no match or no value."""
    if missing.any() or (mask is not None and mask.any()):
        shaped = missing.reshape(-1, *[1] * (values.ndim - 1))
        gone = np.broadcast_to(shaped, values.shape).copy()
        if mask is not None:
            gone |= mask
        return MaskedColumn(values, name=name, mask=gone, unit=unit)
    return Column(values, name=name, unit=unit)


def _tell(finder, gone, on_missing):
    if finder.cache_error is not None:
        msg = f"The Tractor files are not cached: {finder.cache_error}"
        warn(msg, CacheWarning)
    if gone:
        few = ", ".join(file.path for file in gone[:3])
        msg = f"{len(gone)} brick(s) near your positions have no catalogue: {few}"
        msg += ", and so on." if len(gone) > 3 else "."
        if on_missing == "raise":
            raise NoCoverageError(msg)
        warn(msg, CoverageWarning)
