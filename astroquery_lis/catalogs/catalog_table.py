"""One schema out of the rows of any source: same columns, types, units, masks and order."""

from functools import cache, lru_cache

import numpy as np
from astropy import units as u
from astropy.table import Column, MaskedColumn, Table

from ..survey.releases import get_release
from ..survey.sphere import separation_deg
from ..survey.tractor import any_column, has_column, parse_unit, row_ids
from ..survey.tractor_columns import tractor_columns

__all__ = ["Assembled", "assemble", "merge_columns"]

_EXTRA_UNITS = {
    "mag": u.mag,
    "dered_mag": u.mag,
    "dered_flux": u.nmgy,
    "elat": u.deg,
    "elon": u.deg,
    "glat": u.deg,
    "glon": u.deg,
}


class Assembled:
    """A table and what is to be said about it."""

    def __init__(self, table, lacking, is_cut):
        self.table = table
        self.lacking = lacking
        self.is_cut = is_cut


def assemble(request, chunks):
    """Return the rows of a request as a table."""
    names = request.columns if request.columns is not None else _all_names(request, chunks)
    merged = merge_columns(request, chunks, names)
    data = {name: pair[0] for name, pair in merged.items()}
    ids = data["ls_id"]
    chosen = np.flatnonzero(_keep(request, merged))
    if request.sky.center is not None:
        distance = separation_deg(*request.sky.center, data["ra"][chosen], data["dec"][chosen])
        order = np.lexsort((ids[chosen], distance))
    else:
        order = np.argsort(ids[chosen], kind="stable")
    chosen = chosen[order]
    is_cut = request.maxrec is not None and len(chosen) > request.maxrec
    chosen = chosen[: request.maxrec]
    columns, units, lacking = [], [], []
    for name in names:
        values, mask = merged[name]
        known = any_column(name, request.release)
        units.append(known.unit if known is not None else _unit_of(name, chunks))
        values = values[chosen]
        if mask is not None:
            mask = mask[chosen]
            if mask.any() or not len(chosen):
                lacking.append(name)
            if mask.any():
                values = np.ma.MaskedArray(values, mask)
        columns.append(values)
    table = _as_table(names, columns, units, len(chosen))
    return Assembled(table, lacking, is_cut)


def _as_table(names, columns, units, n_rows):
    """Return a table of arrays, masked ones among them."""
    layout = tuple(
        (name, values.dtype, values.shape[1:], unit, isinstance(values, np.ma.MaskedArray))
        for name, values, unit in zip(names, columns, units, strict=True)
    )
    rows = np.zeros(n_rows, int)
    made = [pattern[rows] for pattern in _patterns(layout)]
    for column, values in zip(made, columns, strict=True):
        if isinstance(column, MaskedColumn):
            column[...] = values
        else:
            column.data[...] = values
    # As Table.__getitem__ does: Table(made) would copy every column, which takes twice as long.
    table = Table()
    table.columns = table.TableColumns(zip(names, made, strict=True))
    for column in made:
        column.parent_table = table
    return table


@lru_cache(maxsize=32)
def _patterns(layout):
    """Return columns of one row, from which astropy makes others faster than from arrays."""
    return [
        (MaskedColumn if masked else Column)(np.zeros((1, *shape), dtype), name, unit=unit)
        for name, dtype, shape, unit, masked in layout
    ]


def merge_columns(request, chunks, names):
    """Return columns over all chunks, with what the selection needs."""
    gone = [_absent(request.release, region) for region in ("north", "south")]
    merged = {
        name: _merge(name, chunks, request, [name in absent for absent in gone])
        for name in dict.fromkeys([*request.needed, *names])
        if name != "ls_id"
    }
    parts = (merged[name][0] for name in ("release", "brickid", "objid"))
    merged["ls_id"] = (row_ids(*parts, request.release), None)
    return merged


def _all_names(request, chunks):
    """Return every column that came: known ones in the survey's order, then the others."""
    present = dict.fromkeys(name for chunk in chunks for name in chunk.columns)
    schema = tractor_columns(request.release)
    known = [name for name in schema if name in present or name == "ls_id"]
    return (*known, *(name for name in present if name not in schema))


@cache
def _absent(release, region):
    """Return the columns of a release that the files of a region lack."""
    if region not in get_release(release).trees:
        return frozenset()
    schema = tractor_columns(release)
    return frozenset(n for n, c in schema.items() if not has_column(c, release, region))


def _merge(name, chunks, request, absent):
    """Return values and mask (or `None`) of a column over all chunks."""
    known = any_column(name, request.release)
    parts = [_part(name, chunk, known, absent) for chunk in chunks if chunk.n_rows]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        shape = (0,) if known is None or known.length == 1 else (0, known.length)
        unknown = known is None or not _is_anywhere(name, request)
        return np.empty(shape, known.dtype if known else float), np.zeros(shape, bool) if (
            unknown
        ) else None
    values = [part[0] for part in parts]
    if len({value.shape[1:] for value in values}) > 1:
        return _padded(parts)
    masked = any(part[1] is not None for part in parts)
    mask = None
    if masked:
        mask = np.concatenate(
            [np.zeros(v.shape, bool) if m is None else m for v, m in parts]
        )
    return np.concatenate(values), mask


def _is_anywhere(name, request):
    """Tell whether the release has a column in the region that was asked for."""
    regions = get_release(request.release).regions
    regions = regions if request.region == "auto" else (request.region,)
    schema = tractor_columns(request.release)
    return name in schema and any(name not in _absent(request.release, r) for r in regions)


def _part(name, chunk, known, absent):
    values, mask = chunk.columns.get(name), chunk.masks.get(name)
    if values is None:
        length = known.length if known is not None else 1
        shape = (chunk.n_rows,) if length == 1 else (chunk.n_rows, length)
        fill = known.missing if known is not None else np.nan
        return np.full(shape, fill, known.dtype if known else float), np.ones(shape, bool)
    if known is not None and known.dtype[0] != "U":
        values = values.astype(known.dtype, copy=False)
    elif known is not None and known.dtype[0] == "U":
        size = max(int(known.dtype[1:]), values.dtype.itemsize // 4)
        values = values.astype(f"U{size}", copy=False)
    if any(absent):
        north = np.broadcast_to(chunk.north, chunk.n_rows)
        gone = np.where(north, absent[0], absent[1])
        if gone.any():
            mask = np.zeros(values.shape, bool) if mask is None else mask.copy()
            mask[gone] = True
    if mask is not None:
        values = values.copy()
        values[mask] = known.missing if known is not None else values.dtype.type(0)
    return values, mask


def _padded(parts):
    """Join arrays of different lengths per row; what the shorter ones lack is masked."""
    length = max(values.shape[1] for values, _ in parts)
    joined, masks = [], []
    for values, mask in parts:
        room = ((0, 0), (0, length - values.shape[1]))
        mask = np.zeros(values.shape, bool) if mask is None else mask
        joined.append(np.pad(values, room))
        masks.append(np.pad(mask, room, constant_values=True))
    return np.concatenate(joined), np.concatenate(masks)


def _unit_of(name, chunks):
    """Return the unit of a column that the package does not know."""
    for chunk in chunks:
        if chunk.units.get(name):
            return parse_unit(chunk.units[name])
    for prefix, unit in _EXTRA_UNITS.items():
        if name == prefix or name.startswith(f"{prefix}_"):
            return unit
    return None


def _keep(request, merged):
    """Tell which rows meet everything that was asked."""
    ra, dec = merged["ra"][0], merged["dec"][0]
    keep = request.sky.contains(ra, dec)
    for condition in request.conditions:
        keep &= condition.test(*merged[condition.name])
    if request.primary:
        keep &= merged["brick_primary"][0] | (
            False if merged["brick_primary"][1] is None else merged["brick_primary"][1]
        )
    if request.drop_duplicates:
        keep &= merged["type"][0] != "DUP"
    if request.maskbits:
        keep &= (merged["maskbits"][0] & request.maskbits) == 0
    return keep
