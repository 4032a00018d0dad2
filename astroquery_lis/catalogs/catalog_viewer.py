"""Catalogue rows from the viewer's ``cat.fits``, which serves the Tractor rows of a box."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from astropy.io.fits import BinTableHDU

from .._typing import Payload
from ..exceptions import InvalidRequestError, NoCoverageError, UnexpectedContentError
from ..survey.catalog_request import CatalogRequest
from ..survey.layers import layer_of
from ..survey.row_ids import RowIds, northern_rows
from ..survey.tractor_columns import tractor_columns
from .catalog_table import Chunk, Rows

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from astropy.io.fits import HDUList

MAX_VIEWER_RADIUS_DEG = 1.0
"""The viewer reads whole brick files while it is waited for: larger regions would time out."""

MARGIN_DEG = 0.005
NOTHING = "No catalog sources"


class Viewer(Protocol):
    """The viewer's service, as far as the catalogue asks it."""

    url: str

    def address(self, path: str, **parameters: str) -> str:
        """Return the URL of a question."""

    def fits(
        self, path: str, *, box: tuple[float, float, float], **parameters: str
    ) -> AbstractContextManager[HDUList]:
        """Give the answer, which is kept unless it is found wrong meanwhile."""


class ViewerSource:
    """The viewer as a source of the catalogue."""

    name = "viewer"

    def __init__(self, service: Viewer) -> None:
        self._service = service

    def payload(self, request: CatalogRequest) -> Payload:
        """Return what the viewer would be asked."""
        path, parameters = _question(request)
        urls = [self._service.address(path, **parameters)]
        return {"service": self._service.url, "urls": urls}

    def rows(self, request: CatalogRequest, *, use_maxrec: bool = True) -> Rows:
        """Return the rows of a request, with some more round them."""
        path, parameters = _question(request)
        meta = {"url": self._service.address(path, **parameters)}
        circle = request.sky.enclosing
        box = (circle.ra_deg, circle.dec_deg, circle.radius_deg)
        try:
            with self._service.fits(path, box=box, **parameters) as hdus:
                return Rows([_chunk_of(hdus, request, meta["url"])], meta)
        except NoCoverageError:
            return Rows([], meta)
        except UnexpectedContentError as error:
            if NOTHING in str(error):
                return Rows([], meta)
            raise


def _question(request: CatalogRequest) -> tuple[str, dict[str, str]]:
    """Return what the viewer is asked: the layer's catalogue, and the box."""
    if request.redshifts:
        request.refuse_redshifts("source='viewer'")
    if not request.primary:
        lack = "ids=" if isinstance(request.sky, RowIds) else "primary=False"
        msg = f"source='viewer' lacks {lack}: take source='files'."
        raise InvalidRequestError(msg, parameter="source", value="viewer")
    circle = request.sky.enclosing
    # The box is laid out on the sky at its centre: a margin, and the exact cut is made here.
    boxes = circle.boxes(MARGIN_DEG + 0.02 * circle.radius_deg)
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
    return f"{layer_of(request.release, request.region).name}/cat.fits", parameters


def _chunk_of(hdus: HDUList, request: CatalogRequest, url: str) -> Chunk:
    columns, units = {}, {}
    table = hdus[-1]
    for column in table.columns if isinstance(table, BinTableHDU) else ():
        name = column.name.lower()
        values = np.asarray(table.data.field(column.name))
        if values.dtype.kind in "SU":
            values = np.char.rstrip(values.astype(str))
        elif values.dtype.byteorder == ">":
            values = values.astype(values.dtype.newbyteorder("="))
        columns[name], units[name] = values, column.unit or ""
    if not all(name in columns for name in ("ra", "dec", "release", "brickid", "objid")):
        msg = f"{url} sent a table that is not a Tractor catalogue."
        raise UnexpectedContentError(msg, url=url)
    north = northern_rows(columns, request.release, request.region)
    masks = {}
    for name, values in columns.items():
        # Light curves of the north are shorter in DR9 and come padded.
        if name.startswith("lc_") and values.ndim == 2 and north.any():
            masks[name] = np.zeros(values.shape, bool)
            masks[name][north, _northern_length(name, request.release) :] = True
    return Chunk(len(north), columns, north, masks, units, url)


def _northern_length(name: str, release: str) -> int | None:
    column = tractor_columns({"dr10": "dr9"}.get(release, release)).get(name)
    return None if column is None else column.length
