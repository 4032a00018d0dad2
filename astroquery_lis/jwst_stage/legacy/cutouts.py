"""Legacy Survey cutouts of JWST fields: round the footprint, or on the mosaic's own grid."""

import os
import warnings
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from ...exceptions import (
    CoverageWarning,
    InvalidExposureError,
    InvalidRequestError,
    NoCoverageError,
    warn,
)
from ...survey.bricks import brick_grid, brick_id
from ...survey.catalog_request import as_angle_deg
from ...survey.releases import PIXEL_SCALE_ARCSEC
from ...survey.request import MAX_SIZE_PIX, as_choice
from .footprint import Field, Footprint, fields_of
from .where import footprints_of

__all__ = ["OWN_GRID", "as_grid", "as_margin_deg", "field_box", "field_cutouts", "fields_from"]

OWN_GRID = "own"
"""Value of ``like`` for the grid of each file itself."""

MAX_MARGIN_DEG = 0.25
_CHANGES_OF_OWNER = 4


def as_margin_deg(margin):
    """Return a margin as degrees.

    Parameters
    ----------
    margin : `~astropy.units.Quantity` ['angle'] or str
        0 is allowed, also as a plain number.

    Returns
    -------
    float

    Raises
    ------
    InvalidRequestError
    """
    if isinstance(margin, (int, float)) and not isinstance(margin, bool) and margin == 0:
        return 0.0
    if isinstance(margin, u.Quantity) and margin.isscalar and margin.value == 0:
        return 0.0
    return as_angle_deg("margin", margin, MAX_MARGIN_DEG)


def fields_from(given, *, union=None):
    """Return the fields of what a user gave.

    Parameters
    ----------
    given : object
        As for `~.legacy_where.footprints_of`.
    union : bool, optional
        Whether footprints that overlap make one field.  By default those of a plan or a table do,
        and files that are named one by one do not.

    Returns
    -------
    list of `~.legacy_footprint.Field`
    """
    if union is None:
        items = given if isinstance(given, (list, tuple)) else [given]
        union = not all(isinstance(item, (str, os.PathLike, Footprint)) for item in items)
    elif not isinstance(union, (bool, np.bool_)):
        msg = f"union={union!r} must be True, False, or None for what suits."
        raise InvalidRequestError(msg, parameter="union", value=union)
    return fields_of(footprints_of(given), union=bool(union))


def field_box(field, margin_deg=0.0):
    """Return the smallest cutout, on the pixels of the survey, that holds a field.

    Parameters
    ----------
    field : `~.legacy_footprint.Field`
        The field.
    margin_deg : float, optional
        Added on every side.

    Returns
    -------
    position : `~astropy.coordinates.SkyCoord`
        Middle of the box.
    shape : tuple of int
        Its size (ny, nx), pixels of 0.262 arcsec.
    """
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


def as_grid(like):
    """Return the grid that a user points to.

    Parameters
    ----------
    like : path-like, `~astropy.wcs.WCS`, `~astropy.io.fits.Header` or `~astropy.io.fits.HDUList`
        A mosaic (``_i2d.fits``, of which the SCI extension is taken), or a grid with its size.

    Returns
    -------
    `~astropy.wcs.WCS`
        Two celestial axes, with ``array_shape``.

    Raises
    ------
    InvalidRequestError
        If it has no celestial grid.
    InvalidExposureError
        If it is a file without one.
    """
    if isinstance(like, (WCS, fits.Header)):
        header, where = like, "like"
    elif isinstance(like, fits.HDUList):
        header, where = _image_header(like, "like"), "like"
    elif isinstance(like, (str, os.PathLike)):
        header, where = _header_of_file(Path(like)), str(like)
    else:
        msg = (
            f"like={like!r} must be an i2d file, a WCS with its size, a FITS header, an HDUList, "
            f"or {OWN_GRID!r} for the grid of each file."
        )
        raise InvalidRequestError(msg, parameter="like", value=like)
    shape = None
    if isinstance(header, fits.Header):
        shape = header.get("NAXIS2"), header.get("NAXIS1")
        with warnings.catch_warnings():
            # The time cards of JWST files are put right with a warning each.
            warnings.simplefilter("ignore")
            header = WCS(header, naxis=2)
    wcs = header.celestial if header.naxis > 2 and header.has_celestial else header
    if not wcs.has_celestial:
        msg = (
            f"{where} has no celestial WCS in FITS cards; cal files have theirs in the ASDF "
            "extension only in part: take an i2d file."
        )
        kind = InvalidExposureError if where != "like" else InvalidRequestError
        raise kind(msg, parameter="like", value=where)
    if wcs.array_shape is None and shape is not None:
        wcs.array_shape = shape
    return wcs


def _image_header(hdul, where):
    if "SCI" in hdul:
        return hdul["SCI"].header
    for hdu in hdul:
        if hdu.is_image and len(hdu.shape) >= 2:
            return hdu.header
    msg = f"{where} has no image in it."
    raise InvalidRequestError(msg, parameter="like", value=where)


def _header_of_file(path):
    try:
        with fits.open(path, memmap=True) as hdul:
            return _image_header(hdul, path).copy()
    except FileNotFoundError as error:
        msg = f"like={str(path)!r}: there is no such file."
        raise InvalidRequestError(msg, parameter="like", value=str(path)) from error
    except OSError as error:
        msg = f"like={str(path)!r} is not a FITS file: {error}"
        raise InvalidExposureError(msg, parameter="like", value=str(path)) from error


def field_cutouts(
    given,
    *,
    survey,
    bands=None,
    products=("image",),
    like=None,
    margin="2 arcsec",
    union=None,
    release=None,
    on_missing="raise",
    **options,
):
    """Cut JWST fields out of the Legacy Surveys.

    Parameters
    ----------
    given : object
        As for `~.legacy_where.footprints_of`.
    survey : `~astroquery_lis.LegacySurveyClass`
        Where from.
    bands, products, release, **options
        As for ``get_cutout``.
    like : object, optional
        As for `as_grid`, or `OWN_GRID`.
    margin : `~astropy.units.Quantity` ['angle'] or str, optional
        Added to the footprint on every side, unless there is ``like``.
    union : bool, optional
        As for `fields_from`; with a grid there is one cutout per grid.
    on_missing : {'raise', 'warn'}, optional
        As for ``get_cutout``, and whether a field without any data is an error or `None`.

    Returns
    -------
    list of `~astropy.io.fits.HDUList`
        One per field.
    """
    as_choice("on_missing", on_missing, ("raise", "warn"))
    margin_deg = as_margin_deg(margin)
    options |= {"bands": bands, "products": products, "release": release, "on_missing": on_missing}
    if like is None:
        if "wcs" in options:
            msg = "wcs is not an argument here; give the grid as like."
            raise InvalidRequestError(msg, parameter="wcs", value=options["wcs"])
        fields = fields_from(given, union=union)
        jobs = [(field, *_boxed(field, margin_deg, options)) for field in fields]
    else:
        jobs = _on_grids(given, like, options)
    found = []
    for field, place, size in jobs:
        try:
            cutout = survey.get_cutout(place, **size, **options)
        except NoCoverageError as error:
            if on_missing == "raise":
                raise
            msg = f"The survey has nothing of {field.name}: {error}"
            warn(msg, CoverageWarning)
            cutout = None
        if isinstance(cutout, fits.HDUList):
            _sign(cutout, field)
        found.append(cutout)
    return found


def _boxed(field, margin_deg, options):
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


def _on_grids(given, like, options):
    """Return the jobs on given grids: one, or one per file with its own grid."""
    for name in ("pixel_scale", "rotation", "wcs"):
        if options.get(name) is not None:
            msg = f"{name}={options[name]!r} cannot be given beside like, which has its own."
            raise InvalidRequestError(msg, parameter=name, value=options[name])
    if isinstance(like, str) and like == OWN_GRID:
        fields = fields_from(given, union=False)
        lacking = [field.name for field in fields if not field.footprints[0].path]
        if lacking:
            msg = f"like={OWN_GRID!r} needs files; {', '.join(lacking[:3])} have none."
            raise InvalidRequestError(msg, parameter="like", value=like)
        grids = [as_grid(field.footprints[0].path) for field in fields]
    else:
        # One grid has one cutout, of all that the user named.
        fields = [Field(tuple(footprints_of(given)))]
        grids = [as_grid(like)]
    return [(field, None, {"wcs": grid}) for field, grid in zip(fields, grids, strict=True)]


def _sign(cutout, field):
    """Say in the primary header which footprints the cutout is of."""
    header = cutout[0].header
    header["NFOOT"] = (len(field.footprints), "JWST footprints in the field")
    for number, one in enumerate(field.footprints[:99], start=1):
        header[f"FOOT{number}"] = (one.name, "JWST exposure or mosaic")
