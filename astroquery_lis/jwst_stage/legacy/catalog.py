"""The catalogue that source_catalog writes of a mosaic, whatever version wrote it."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from scipy.spatial import ConvexHull, QhullError, cKDTree

from ...exceptions import InvalidExposureError, InvalidRequestError
from ...survey.overlap import _unit_vectors
from ...survey.sky_region import Circle, Polygon
from .cutouts import as_grid
from .footprint import Field, Footprint
from .sources import MAS_PER_RADIAN, plain
from .where import footprints_of, read_headers

__all__ = ["BLEND_ARCSEC", "JwstCatalog", "read_jwst_catalog"]

BLEND_ARCSEC = 1.0
"""Other JWST sources within this share the light that the ground measured."""

_EDGE_DEG = 1 / 3600
_MAGNITUDES = ("aper_total_abmag", "isophotal_abmag")


@dataclass(frozen=True, eq=False)
class JwstCatalog:
    """The catalogue of a mosaic.

    Attributes
    ----------
    table : `~astropy.table.Table`
        ``label``, ``jwst_ra``, ``jwst_dec`` (deg), ``jwst_mag``, ``jwst_mag_err`` (AB),
        ``jwst_extended``, ``jwst_near``: how many other sources are within `BLEND_ARCSEC`.
    field : `~.legacy_footprint.Field`
        What the mosaic covers.
    epoch : `~astropy.time.Time` or None
        When it was observed.
    filter : str
        Empty if it is not known.
    image : `~pathlib.Path` or None
        The mosaic.
    by_shape : dict of bool to tuple of `~numpy.ndarray`
        Magnitudes and errors as of point sources (`False`) and as of extended ones (`True`); empty
        where the catalogue has not both, or a column was named.
    """

    table: Table
    field: Field
    epoch: Time | None
    filter: str
    image: Path | None
    by_shape: dict

    def covers(self, ra_deg, dec_deg):
        """Tell which positions the mosaic has pixels of, in its own coordinates.

        Parameters
        ----------
        ra_deg, dec_deg : `~numpy.ndarray` of float, shape (n,)
            Positions.

        Returns
        -------
        `~numpy.ndarray` of bool
            Without the mosaic, those among its sources.
        """
        inside = self.field.contains(ra_deg, dec_deg)
        if self.image is None or not inside.any():
            return inside
        wcs = as_grid(self.image)
        x, y = wcs.world_to_pixel_values(ra_deg, dec_deg)
        ny, nx = wcs.array_shape
        inside &= (x >= -0.5) & (x < nx - 0.5) & (y >= -0.5) & (y < ny - 0.5)
        pixel = np.rint(y[inside]).astype(int), np.rint(x[inside]).astype(int)
        with fits.open(self.image, memmap=True) as hdul:
            seen = np.isfinite(hdul["SCI"].data[pixel])
            if "WHT" in hdul:
                seen &= hdul["WHT"].data[pixel] > 0
        inside[inside] = seen
        return inside


def read_jwst_catalog(given, *, magnitude="auto"):
    """Read the catalogue of a mosaic, and what the mosaic beside it tells.

    Parameters
    ----------
    given : path-like or `~astropy.table.Table`
        ``*_cat.ecsv``; or ``*_i2d.fits``, whose catalogue lies beside it; or a table with a column
        ``sky_centroid`` of `~astropy.coordinates.SkyCoord`, or ``ra`` and ``dec``.
    magnitude : str, optional
        Column of AB magnitudes; its error is the one with ``_err`` appended, if there is one.
        ``'auto'`` takes ``aper_total_abmag``, and ``isophotal_abmag`` of the sources that
        ``is_extended`` marks.

    Returns
    -------
    JwstCatalog

    Raises
    ------
    InvalidRequestError
        If it is no catalogue.
    InvalidExposureError
        If a file cannot be read.
    """
    image = None
    if isinstance(given, (str, os.PathLike)):
        path, image = _files(Path(given))
        try:
            table = Table.read(path, format="ascii.ecsv")
        except (OSError, ValueError) as error:
            msg = f"{path} is not an ECSV catalogue: {error}"
            raise InvalidExposureError(msg, parameter="i2d_catalog", value=str(path)) from error
    elif isinstance(given, Table):
        table = given
    else:
        msg = (
            f"i2d_catalog={given!r} must be a *_cat.ecsv or *_i2d.fits file, or a Table with the "
            "column sky_centroid."
        )
        raise InvalidRequestError(msg, parameter="i2d_catalog", value=given)
    ra, dec = _positions(table)
    kept = np.isfinite(ra) & np.isfinite(dec)
    table, ra, dec = table[kept], ra[kept] % 360.0, dec[kept]
    sources = Table()
    labels = table["label"] if "label" in table.colnames else np.arange(1, len(ra) + 1)
    sources["label"] = np.asarray(labels)
    sources["jwst_ra"], sources["jwst_dec"] = ra * u.deg, dec * u.deg
    extended = table["is_extended"] if "is_extended" in table.colnames else np.zeros(len(ra), bool)
    extended = np.asarray(extended, bool)
    mags, by_shape = _magnitudes(table, magnitude, extended)
    sources["jwst_mag"], sources["jwst_mag_err"] = mags
    sources["jwst_extended"] = extended
    sources["jwst_near"] = _neighbours(ra, dec)
    field, epoch, name = _field(image, ra, dec)
    return JwstCatalog(sources, field, epoch, name, image, by_shape)


def _files(path):
    """Return the catalogue and the mosaic, `None` if it is not there."""
    if path.name.endswith("_i2d.fits"):
        image = path
        path = path.with_name(path.name.removesuffix("_i2d.fits") + "_cat.ecsv")
    else:
        image = path.with_name(path.name.removesuffix(".ecsv").removesuffix("_cat") + "_i2d.fits")
    if not path.is_file():
        msg = f"There is no catalogue {path}; source_catalog writes none where it finds nothing."
        raise InvalidRequestError(msg, parameter="i2d_catalog", value=str(path))
    return path, image if image.is_file() else None


def _positions(table):
    names = {name.lower(): name for name in table.colnames}
    if "sky_centroid" in names and isinstance(table[names["sky_centroid"]], SkyCoord):
        icrs = table[names["sky_centroid"]].icrs
        return plain(icrs.ra.deg), plain(icrs.dec.deg)
    for pair in (("ra", "dec"), ("sky_centroid.ra", "sky_centroid.dec"), ("ra_icrs", "dec_icrs")):
        if set(pair) <= set(names):
            columns = [table[names[name]] for name in pair]
            scale = [float((getattr(c, "unit", None) or u.deg).to(u.deg)) for c in columns]
            return tuple(plain(c) * s for c, s in zip(columns, scale, strict=True))
    msg = f"i2d_catalog has no sky_centroid, or ra and dec; it has {', '.join(table.colnames)}."
    raise InvalidRequestError(msg, parameter="i2d_catalog", value=table.colnames)


def _magnitudes(table, magnitude, extended):
    """Return AB magnitudes with errors; and those by shape, where there are two kinds."""

    def pair(name):
        error = f"{name}_err"
        has = error in table.colnames
        return plain(table[name]), plain(table[error]) if has else np.full(len(table), np.nan)

    if magnitude != "auto":
        if magnitude not in table.colnames:
            shown = [name for name in table.colnames if "mag" in name and "err" not in name]
            msg = f"magnitude={magnitude!r} is not a column; there are: {', '.join(shown)}."
            raise InvalidRequestError(msg, parameter="magnitude", value=magnitude)
        return pair(magnitude), {}
    present = [name for name in _MAGNITUDES if name in table.colnames]
    if not present:
        return (np.full(len(table), np.nan), np.full(len(table), np.nan)), {}
    if len(present) == 1:
        return pair(present[0]), {}
    # The total is that of a point source; an extended one reaches beyond the aperture.
    by_shape = {False: pair(_MAGNITUDES[0]), True: pair(_MAGNITUDES[1])}
    chosen = tuple(
        np.where(extended, *two) for two in zip(by_shape[True], by_shape[False], strict=True)
    )
    return chosen, by_shape


def _neighbours(ra, dec):
    if not len(ra):
        return np.zeros(0, int)
    tree = cKDTree(_unit_vectors(ra, dec))
    counts = tree.query_ball_point(
        tree.data, BLEND_ARCSEC * 1000 / MAS_PER_RADIAN, return_length=True
    )
    return np.asarray(counts) - 1


def _field(image, ra, dec):
    """Return what the catalogue covers, when it was observed, and in which filter."""
    if image is not None:
        field = Field(tuple(footprints_of(image)))
        header = read_headers(image)
        name = str(header.get("FILTER", ""))
        pupil = str(header.get("PUPIL", ""))
        # The narrower of the two is what counts; the other one lets everything pass.
        name = pupil if pupil[:1] == "F" and pupil[1:2].isdigit() else name
        return field, field.epoch, name
    if not len(ra):
        msg = "i2d_catalog has no sources with a position."
        raise InvalidRequestError(msg, parameter="i2d_catalog", value=None)
    return Field((Footprint("catalogue", (_hull(ra, dec),)),)), None, ""


def _hull(ra, dec):
    """Return the smallest convex shape round positions; a circle if they are on one line."""
    x, y, middle = _tangent(ra, dec)
    try:
        corners = ConvexHull(np.stack([x, y], axis=1)).vertices
    except (QhullError, ValueError):
        radius = float(np.hypot(x, y).max()) / 3.6e6
        return Circle(*middle, max(radius, _EDGE_DEG))
    return Polygon(tuple(ra[corners].tolist()), tuple(dec[corners].tolist()))


def _tangent(ra, dec, middle=None):
    """Return offsets from a middle on its tangent plane, mas, east and north."""
    points = _unit_vectors(ra, dec)
    if middle is None:
        vector = points.mean(axis=0)
        vector = vector / np.linalg.norm(vector)
        middle = (
            float(np.degrees(np.arctan2(vector[1], vector[0])) % 360.0),
            float(np.degrees(np.arcsin(np.clip(vector[2], -1, 1)))),
        )
    ra0, dec0 = np.radians(middle)
    east = np.array([-np.sin(ra0), np.cos(ra0), 0.0])
    north = np.array([-np.sin(dec0) * np.cos(ra0), -np.sin(dec0) * np.sin(ra0), np.cos(dec0)])
    along = points @ _unit_vectors(*middle)
    return points @ east / along * MAS_PER_RADIAN, points @ north / along * MAS_PER_RADIAN, middle
