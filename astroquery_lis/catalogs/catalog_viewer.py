"""Catalogue rows from the viewer's ``cat.fits``, which serves the Tractor rows of a box."""

import numpy as np

from ..exceptions import InvalidRequestError, NoCoverageError, UnexpectedContentError
from ..survey.layers import layer_of
from ..survey.tractor import region_of_rows
from ..survey.tractor_columns import tractor_columns
from .catalog_files import Chunk

__all__ = ["MAX_VIEWER_RADIUS_DEG", "read_viewer", "viewer_payload"]

MAX_VIEWER_RADIUS_DEG = 1.0
"""The viewer reads whole brick files while it is waited for: larger regions would time out."""

MARGIN_DEG = 0.005
NOTHING = "No catalog sources"


def viewer_payload(request):
    """Return what the viewer is asked: the layer and the box."""
    if not request.primary:
        msg = "source='viewer' lacks primary=False: take source='files'."
        raise InvalidRequestError(msg, parameter="source", value="viewer")
    circle = request.sky.enclosing
    # The box is laid out on the sky at its centre: a margin, and the exact cut is made here.
    margin = MARGIN_DEG + 0.02 * circle.radius_deg
    boxes = circle.boxes(margin)
    if circle.radius_deg > MAX_VIEWER_RADIUS_DEG or boxes[0][:2] == (0.0, 360.0):
        msg = (
            f"source='viewer' is for regions of up to {MAX_VIEWER_RADIUS_DEG:g} deg that hold no "
            "pole; take source='tap' or source='files'."
        )
        raise InvalidRequestError(msg, parameter="source", value="viewer")
    parameters = {
        "ralo": f"{boxes[0][0]:.7f}",
        "rahi": f"{boxes[-1][1]:.7f}",
        "declo": f"{boxes[0][2]:.7f}",
        "dechi": f"{boxes[0][3]:.7f}",
    }
    return layer_of(request.release, request.region).name, parameters


def read_viewer(request, service):
    """Return the rows of a request from the viewer, with some more round them."""
    layer, parameters = viewer_payload(request)
    path = f"{layer}/cat.fits"
    url = service.address(path, **parameters)
    circle = request.sky.enclosing
    box = (circle.ra_deg, circle.dec_deg, circle.radius_deg)
    try:
        hdus = service.fits(path, box=box, **parameters)
    except NoCoverageError:
        return Chunk(0, {}, False), url
    except UnexpectedContentError as error:
        if NOTHING in str(error):
            return Chunk(0, {}, False), url
        raise
    rows = hdus[1].data
    columns, units = {}, {}
    for column in hdus[1].columns:
        name = column.name.lower()
        values = np.asarray(rows.field(column.name))
        if values.dtype.kind in "SU":
            values = np.char.rstrip(values.astype(str))
        elif values.dtype.byteorder == ">":
            values = values.astype(values.dtype.newbyteorder("="))
        columns[name], units[name] = values, column.unit or ""
    if not all(name in columns for name in ("ra", "dec", "release", "brickid", "objid")):
        msg = f"{url} sent a table that is not a Tractor catalogue."
        raise UnexpectedContentError(msg, url=url)
    north = region_of_rows(
        columns["release"], columns["ra"], columns["dec"], request.release, request.region
    )
    schema = tractor_columns(request.release)
    masks = {}
    for name, values in columns.items():
        # Light curves of the north are shorter in DR9 and come padded.
        if name.startswith("lc_") and name in schema and values.ndim == 2 and north.any():
            masks[name] = np.zeros(values.shape, bool)
            masks[name][north, _northern_length(name, request.release) :] = True
    return Chunk(len(rows), columns, north, masks, units), url


def _northern_length(name, release):
    northern = {"dr10": "dr9"}.get(release, release)
    return tractor_columns(northern)[name].length
