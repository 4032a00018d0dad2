"""Legacy Survey cutouts of JWST fields: round the footprint, or on the mosaic's own grid."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits

from ...exceptions import (
    CoverageWarning,
    InvalidRequestError,
    NoCoverageError,
    refuse,
    warn,
)
from ...survey.bricks import brick_grid, brick_id
from ...survey.catalog_request import as_angle_deg
from ...survey.releases import PIXEL_SCALE_ARCSEC
from ...survey.request import MAX_SIZE_PIX, as_choice
from ..planning.grids import image_wcs
from .footprints import Field, Footprint, fields_of, footprints_of

if TYPE_CHECKING:
    from ..._typing import Angle, Keywords, OnMissing
    from ...client import LegacySurveyClass

    # A field, and where its cutout is: position and size, or a grid.
    Job = tuple[Field, SkyCoord | None, dict[str, Any]]

OWN_GRID = "own"
"""Value of ``like`` for the grid of each file itself."""

MAX_MARGIN_DEG = 0.25
_CHANGES_OF_OWNER = 4


def as_width_deg(
    parameter: str, value: Angle | float, maximum_deg: float = MAX_MARGIN_DEG
) -> float:
    """Return an angle as degrees; 0 needs no unit."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == 0:
        return 0.0
    return as_angle_deg(parameter, value, maximum_deg, zero=True)


def fields_from(footprints: Any, *, union: bool | None = None) -> list[Field]:
    """Return the fields of what `footprints_of` reads.

    By default footprints of a plan or a table that overlap make one field, and files that are named
    one by one do not.
    """
    if union is None:
        items = footprints if isinstance(footprints, (list, tuple)) else [footprints]
        union = not all(isinstance(item, (str, os.PathLike, Footprint)) for item in items)
    elif not isinstance(union, (bool, np.bool_)):
        refuse("union", union, "must be True, False, or None for what suits.")
    return fields_of(footprints_of(footprints), union=bool(union))


def field_box(field: Field, margin_deg: float = 0.0) -> tuple[SkyCoord, tuple[int, int]]:
    """Return middle and size (ny, nx) of the smallest native cutout that holds a field."""
    ra, dec = field.corners()
    circle = field.enclosing()
    ra0, dec0 = circle.ra_deg, circle.dec_deg
    margin_pix = margin_deg * 3600 / PIXEL_SCALE_ARCSEC
    # The axes are those of the brick that owns the middle, which the size of the box depends on.
    for _ in range(_CHANGES_OF_OWNER):
        owner = int(brick_id(ra0, dec0))
        grid = brick_grid(owner)
        x, y = (np.asarray(axis) for axis in grid.to_pixel(ra, dec))
        x0, x1 = np.floor(x.min() - margin_pix), np.ceil(x.max() + margin_pix)
        y0, y1 = np.floor(y.min() - margin_pix), np.ceil(y.max() + margin_pix)
        ra0, dec0 = (float(value) for value in grid.to_sky((x0 + x1) / 2, (y0 + y1) / 2))
        if int(brick_id(ra0, dec0)) == owner:
            break
    # One more pixel for a middle that falls between two.
    return SkyCoord(ra0, dec0, unit="deg"), (int(y1 - y0) + 2, int(x1 - x0) + 2)


def field_cutouts(
    footprints: Any,
    *,
    survey: LegacySurveyClass,
    like: Any = None,
    margin: Angle = "2 arcsec",
    union: bool | None = None,
    on_missing: OnMissing = "raise",
    **options: Any,
) -> list[fits.HDUList | None]:
    """Cut JWST fields out of the Legacy Surveys; `options` are those of ``get_cutout``."""
    as_choice("on_missing", on_missing, ("raise", "warn"))
    margin_deg = as_width_deg("margin", margin)
    options["on_missing"] = on_missing
    jobs: list[Job]
    if like is not None:
        jobs = _on_grids(footprints, like, options)
    elif "wcs" in options:
        msg = "wcs is not an argument here; give the grid as like."
        raise InvalidRequestError(msg, parameter="wcs", value=options["wcs"])
    else:
        fields = fields_from(footprints, union=union)
        jobs = [(field, *_box(field, margin_deg, options)) for field in fields]
    cutouts = []
    for field, position, size in jobs:
        try:
            cutout = survey.get_cutout(position, **size, **options)
        except NoCoverageError as error:
            if on_missing == "raise":
                raise
            msg = f"The survey has nothing of {field.name}: {error}"
            warn(msg, CoverageWarning)
            cutout = None
        if isinstance(cutout, fits.HDUList):
            _sign(cutout, field)
        cutouts.append(cutout)
    return cutouts


def _box(field: Field, margin_deg: float, options: Keywords) -> tuple[SkyCoord, Keywords]:
    """Return where a field's cutout is, and its size as an argument of ``get_cutout``."""
    position, (ny, nx) = field_box(field, margin_deg)
    if max(ny, nx) > MAX_SIZE_PIX and options.get("pixel_scale") is None:
        msg = (
            f"The field {field.name} is {ny} by {nx} pixels of {PIXEL_SCALE_ARCSEC} arcsec, and a "
            f"cutout has {MAX_SIZE_PIX} at most: give coarser pixels as pixel_scale, or "
            "union=False for a cutout of each footprint."
        )
        raise InvalidRequestError(msg, parameter="footprints", value=field.name)
    if options.get("pixel_scale") is None and options.get("rotation") is None:
        return position, {"size": (ny, nx)}
    if options.get("rotation") is not None:
        # Turned by any angle, a square over the diagonal holds the field.
        ny = nx = int(np.ceil(np.hypot(ny, nx)))
    return position, {"size": (ny, nx) * u.pix * PIXEL_SCALE_ARCSEC * u.arcsec / u.pix}


def _on_grids(footprints: Any, like: Any, options: dict[str, Any]) -> list[Job]:
    """Return the jobs on given grids: one, or one per file with its own grid."""
    for name in ("pixel_scale", "rotation", "wcs"):
        if options.get(name) is not None:
            refuse(name, options[name], "cannot be given beside like, which has its own.")
    if isinstance(like, str) and like == OWN_GRID:
        fields = fields_from(footprints, union=False)
        pathless = [field.name for field in fields if not field.footprints[0].path]
        if pathless:
            msg = f"like={OWN_GRID!r} needs files; {', '.join(pathless[:3])} have none."
            raise InvalidRequestError(msg, parameter="like", value=like)
        grids = [image_wcs(field.footprints[0].path) for field in fields]
    else:
        # One grid has one cutout, of all that the user named.
        fields = [Field(tuple(footprints_of(footprints)))]
        grids = [image_wcs(like)]
    return [(field, None, {"wcs": grid}) for field, grid in zip(fields, grids, strict=True)]


def _sign(cutout: fits.HDUList, field: Field) -> None:
    """Say in the primary header which footprints the cutout is of."""
    header = cutout[0].header
    header["NFOOT"] = (len(field.footprints), "JWST footprints in the field")
    for number, footprint in enumerate(field.footprints[:99], start=1):
        header[f"FOOT{number}"] = (footprint.name, "JWST exposure or mosaic")
