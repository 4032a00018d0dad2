"""What the user asked of the catalogue, checked and brought to one form."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from numbers import Integral

import numpy as np
from astropy import units as u

from ..exceptions import InvalidRequestError
from .bitmasks import maskbits_value
from .conditions import as_conditions
from .region import Box, Circle, Polygon
from .releases import get_release
from .request import angle_of_text, as_region
from .tractor import any_column, has_column, resolve_columns
from .tractor_columns import tractor_columns

__all__ = [
    "CatalogRequest",
    "as_angle_deg",
    "as_sky_region",
    "catalog_request",
    "lacking_columns",
]

MAX_BOX_DEG = 60.0


@dataclass(frozen=True)
class CatalogRequest:
    """Rows and columns of the catalogue."""

    sky: object
    columns: tuple | None  # names in the order wanted; `None` for all that the answering source has
    conditions: tuple  # all have to be met
    primary: bool  # only rows of the brick that owns the position
    drop_duplicates: bool  # no rows of type DUP
    maskbits: int  # rows with any of these bits are left out
    maxrec: int | None  # at most so many rows
    release: str  # ``region`` may be ``'auto'``
    region: str  # ``region`` may be ``'auto'``

    @property
    def key(self):
        """Sha256 of the request in canonical form, hexadecimal."""
        content = {**asdict(self), "shape": type(self.sky).__name__}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def needed(self):
        """Columns to read: those wanted, and those that the selection and the order stand on."""
        helpers = ["ra", "dec", "release", "brickid", "objid"]
        helpers += [condition.name for condition in self.conditions]
        if self.primary:
            helpers.append("brick_primary")
        if self.drop_duplicates:
            helpers.append("type")
        if self.maskbits:
            helpers.append("maskbits")
        return tuple(dict.fromkeys([*(self.columns or ()), *helpers]))

    @property
    def only_in_files(self):
        """What of the request no TAP table can answer, as texts."""
        schema = tractor_columns(self.release)
        names = [name for name in self.needed if name in schema and not schema[name].in_tap]
        return names if self.primary else [*names, "primary=False"]


def _refuse(parameter, value, must):
    msg = f"{parameter}={value!r} {must}"
    raise InvalidRequestError(msg, parameter=parameter, value=value)


def as_angle_deg(parameter, value, maximum_deg, *, zero=False):
    """Return an angle as degrees."""
    must = "must be an angle with a unit, for example 10 * u.arcsec; a bare number is not one."
    value = angle_of_text(value)
    if not isinstance(value, u.Quantity) or not value.isscalar:
        _refuse(parameter, value, must)
    if not value.unit.is_equivalent(u.deg):
        _refuse(parameter, value, must)
    angle = float(value.to_value(u.deg))
    if zero and not 0 <= angle <= maximum_deg:
        _refuse(parameter, value, f"must be from 0 to {maximum_deg:g} degrees.")
    if not (zero or 0 < angle <= maximum_deg):
        _refuse(parameter, value, f"must be above 0 and at most {maximum_deg:g} deg.")
    return angle


def as_sky_region(position, *, radius=None, width=None, height=None, polygon=None):
    """Return the part of the sky that the arguments mean."""
    kinds = [radius is not None, width is not None or height is not None, polygon is not None]
    if sum(kinds) != 1:
        msg = "Give one of radius=, width= (and height=) or polygon= to say how much of the sky."
        raise InvalidRequestError(msg, parameter="radius", value=radius)
    if polygon is not None:
        ra, dec = (np.asarray(values, dtype=float) for values in polygon)
        if ra.ndim != 1 or len(ra) < 3 or not np.isfinite([ra, dec]).all():
            _refuse("polygon", polygon, "needs three corners or more, all of them finite.")
        shape = Polygon(tuple(ra.tolist()), tuple(dec.tolist()))
        shape.bricks()
        return shape
    if position is None:
        _refuse("coordinates", None, "is needed with radius= or width=.")
    if radius is not None:
        return Circle(*position, as_angle_deg("radius", radius, 180.0))
    if width is None:
        _refuse("width", width, "is needed with height=.")
    return Box(
        *position,
        as_angle_deg("width", width, MAX_BOX_DEG),
        as_angle_deg("height", width if height is None else height, MAX_BOX_DEG),
    )


def catalog_request(
    sky,
    *,
    columns=None,
    column_filters=None,
    primary=True,
    drop_duplicates=True,
    maskbits=None,
    maxrec=None,
    release="dr10",
    region="auto",
):
    """Return the `CatalogRequest` that the arguments mean."""
    release = get_release(release).name
    region = as_region(region, release)
    everything = isinstance(columns, str) and columns.strip().lower() == "all"
    for name, value in (("primary", primary), ("drop_duplicates", drop_duplicates)):
        if not isinstance(value, (bool, np.bool_)):
            _refuse(name, value, "must be True or False.")
    if maxrec is not None and (
        not isinstance(maxrec, Integral) or isinstance(maxrec, bool) or maxrec < 1
    ):
        _refuse("maxrec", maxrec, "must be a whole number of rows, 1 or more.")
    conditions = as_conditions(column_filters, release)
    for column in _lacking(tuple(c.name for c in conditions), release, region):
        must = f"has {column.name}, which {release}, region {region}, lacks: no row could meet it."
        _refuse("column_filters", column_filters, must)
    return CatalogRequest(
        sky=sky,
        columns=None if everything else resolve_columns(columns, release, region),
        conditions=conditions,
        primary=bool(primary),
        drop_duplicates=bool(drop_duplicates),
        maskbits=0 if maskbits is None else maskbits_value(maskbits, release),
        maxrec=None if maxrec is None else int(maxrec),
        release=release,
        region=region,
    )


def lacking_columns(request):
    """Return the columns of a request that its release or region has not at all."""
    return list(_lacking(request.columns or (), request.release, request.region))


@cache
def _lacking(names, release, region):
    schema = tractor_columns(release)
    regions = get_release(release).regions if region == "auto" else (region,)
    return tuple(
        any_column(name, release)
        for name in names
        if name != "ls_id"
        and not (name in schema and any(has_column(schema[name], release, r) for r in regions))
    )
