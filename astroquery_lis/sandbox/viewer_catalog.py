"""The simulated viewer's ``<layer>/cat.fits``: the Tractor rows in a box."""

import io
import re

import numpy as np
from astropy.io import fits

from ..survey import bricks
from ..survey.pixel_grids import TangentGrid
from . import catalog
from .files import Response
from .tractor_columns import tractor_dtype
from .viewer_layers import ViewerLayer, find_layer

__all__ = ["catalog_box"]

_LAYER = re.compile(r"ls-dr(8|9|10|11)(-north|-south)?(-.*)?")
_CORNERS = ("ralo", "rahi", "declo", "dechi")


def _page(text, status=200):
    return Response(status, {"Content-Type": "text/html; charset=utf-8"}, text.encode())


def catalog_box(name, query, broken):
    """Return the `~.files.Response` to a request for the rows in a box.

    Parameters
    ----------
    name : str
        Name of the layer.
    query : dict of str to str
        ``ralo``, ``rahi``, ``declo`` and ``dechi``, degrees.
    broken : str
        The page that stands for what the viewer does not catch.

    Returns
    -------
    Response
    """
    layer = find_layer(name)
    if layer is None:
        return _page("no such layer")
    if not all(key in query for key in _CORNERS):
        return _page("no ra,dec bbox")
    try:
        limits = [float(query[key]) for key in _CORNERS]
    except ValueError:
        return _page(broken, 500)
    if not isinstance(layer, ViewerLayer) or layer.lost or not np.isfinite(limits).all():
        return _page(broken, 500)
    rows = _rows(name, layer.is_split, limits)
    if len(rows) == 0:
        if layer.is_split:
            return _page("No catalog sources in layer and RA,Dec box")
        return _page(broken, 500)
    # Through the viewer's own tables the units get lost.
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(rows)]).writeto(file)
    headers = {
        "Content-Type": "image/fits",
        "Content-Disposition": f'attachment; filename="cat-{name}.fits"',
    }
    return Response(200, headers, file.getvalue())


def _rows(name, is_split, limits):
    """Return the primary rows in a box that are in a layer, in the columns of its south."""
    match = _LAYER.fullmatch(name)
    if match is None:
        # Of the other releases only images are simulated.
        return np.zeros(0, tractor_dtype("dr10", "south"))
    release, part = f"dr{match[1]}", (match[2] or "")[1:]
    regions = ("south", "north") if is_split else (part or "south",)
    kind = tractor_dtype(release, regions[0])
    found = []
    for region in regions:
        rows = catalog.region_rows(release, region)
        rows = rows[_is_inside(rows["ra"], rows["dec"], *limits)]
        if is_split:
            rows = rows[bricks.is_north(rows["ra"], rows["dec"]) == (region == "north")]
        found.append(_in_columns(rows, kind))
    return np.concatenate(found)


def _is_inside(ra_deg, dec_deg, west, east, south, north):
    """Tell which places are in the rectangle of the tangent plane that has the box's size."""
    if east < west:
        west -= 360.0
    middle = (south + north) / 2
    grid = TangentGrid(((west + east) / 2) % 360.0, middle, 0.0, 0.0, 1.0)
    # Off the plane there are no coordinates; comparisons with NaN are false.
    x, y = grid.to_pixel(ra_deg, dec_deg)
    half_width = (east - west) / 2 * np.cos(np.radians(middle))
    return (np.abs(x) <= half_width) & (np.abs(y) <= (north - south) / 2)


def _in_columns(rows, kind):
    """Return rows with other columns: 0 for what they lack, in light curves too."""
    made = np.zeros(len(rows), kind)
    for name in set(kind.names) & set(rows.dtype.names):
        if rows.dtype[name].shape == kind[name].shape:
            made[name] = rows[name]
        else:
            made[name][:, : rows.dtype[name].shape[0]] = rows[name]
    return made
