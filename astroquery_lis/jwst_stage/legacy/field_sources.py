"""The sources of a JWST field: those of Tractor, at any time, and the catalogue of a mosaic."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord, get_body_barycentric
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from scipy.spatial import ConvexHull, QhullError, cKDTree

from ..._typing import FilePath
from ...client import LegacySurveyClass
from ...client.inputs import as_targets, image_wcs
from ...exceptions import InvalidExposureError, InvalidRequestError, refuse
from ...survey.photometry import plain_numbers
from ...survey.releases import get_release
from ...survey.sphere import Circle, Polygon, middle_of, shift_positions, tangent_axes, unit_vectors
from ...survey.tractor_columns import tractor_columns
from ..tasks import absolute
from .fields import Field, Footprint, footprints_of, read_headers

MAS_PER_DEG = 3.6e6
MAS_PER_RADIAN = np.degrees(MAS_PER_DEG)

_COLUMNS = frozenset(
    (
        *("ls_id", "release", "brickid", "brickname", "objid", "type", "ra", "dec", "ra_ivar"),
        *("dec_ivar", "ebv", "maskbits", "fitbits", "ref_cat", "ref_id", "ref_epoch", "pmra"),
        *("pmdec", "parallax", "pmra_ivar", "pmdec_ivar", "parallax_ivar"),
        *("gaia_phot_g_mean_mag", "gaia_astrometric_excess_noise"),
        *("gaia_astrometric_sigma5d_max", "flux", "flux_ivar", "mw_transmission", "fracflux"),
        *("fracmasked", "fracin", "nobs", "psfsize", "shape_r", "shape_r_ivar", "shapeexp_r"),
        *("shapedev_r", "fracdev", "sersic"),
    )
)
"""Columns, or families of columns, that there is a use for."""

BLEND_ARCSEC = 1.0
"""Other JWST sources within this share the light that the ground measured."""

_EDGE_DEG = 1 / 3600
_MAGNITUDES = ("aper_total_abmag", "isophotal_abmag")

_LONGEST_PARALLAX_ERROR = 0.2
"""Relative error up to which a parallax is believed."""


def source_columns(release: str) -> list[str]:
    """Return the columns of a release that matching and reference catalogues stand on."""
    return [
        name
        for name, column in tractor_columns(get_release(release).name).items()
        if column.in_tap and (name in _COLUMNS or column.family in _COLUMNS)
    ]


def field_sources(
    field: Field,
    survey: LegacySurveyClass,
    *,
    margin_deg: float = 0.0,
    release: str | None = None,
    **options: Any,
) -> Table:
    """Return the Tractor sources of a field; `options` are those of ``query_tractor``."""
    release = get_release(survey.release if release is None else release).name
    circle = field.enclosing(margin_deg)
    options = {"columns": source_columns(release), **options}
    rows = survey.query_tractor(
        SkyCoord(circle.ra_deg, circle.dec_deg, unit="deg"),
        radius=circle.radius_deg * u.deg,
        release=release,
        **options,
    )
    return rows[field.contains(plain_numbers(rows["ra"]), plain_numbers(rows["dec"]), margin_deg)]


def as_tractor(table: Table) -> Table:
    """Return a table of Tractor with names in lower case, without copies of a source and DUP."""
    if not isinstance(table, Table):
        msg = f"tractor must be a Table, not {type(table).__name__}."
        raise InvalidRequestError(msg, parameter="tractor", value=table)
    table = with_lower_names(table)
    missing = [name for name in ("ra", "dec", "type") if name not in table.colnames]
    if missing:
        msg = f"tractor has no column {', '.join(missing)}; it has {', '.join(table.colnames)}."
        raise InvalidRequestError(msg, parameter="tractor", value=table.colnames)
    is_own = texts(table["type"]) != "DUP"
    if "brick_primary" in table.colnames:
        is_own &= np.ma.filled(np.ma.asarray(table["brick_primary"]).astype(bool), True)
    return table if is_own.all() else table[is_own]


def with_lower_names(table: Table) -> Table:
    """Return a table with the names of its columns in lower case; it shares its data."""
    table = table.copy(copy_data=False)
    for name in table.colnames:
        table.rename_column(name, name.lower())
    return table


def as_epoch(epoch: Time | None) -> Time | None:
    """Return one `~astropy.time.Time`, or `None`; anything else is refused."""
    if epoch is not None and not (isinstance(epoch, Time) and epoch.isscalar):
        refuse("epoch", epoch, "must be one astropy Time, for example Time('2023-03-01').")
    return epoch


def texts(column: Any) -> np.ndarray:
    """Return a column of texts without mask or padding; what is masked is empty."""
    values = np.ma.filled(np.ma.asarray(column).astype(str), "")
    return np.char.strip(values)


def _column(table: Table, name: str) -> np.ndarray:
    return plain_numbers(table[name]) if name in table.colnames else np.full(len(table), np.nan)


def has_motion(table: Table) -> np.ndarray:
    """Return which sources are stars with a proper motion from Gaia, and its epoch."""
    if "ref_cat" not in table.colnames:
        return np.zeros(len(table), bool)
    gaia = np.char.startswith(texts(table["ref_cat"]), "G") & (texts(table["type"]) == "PSF")
    motion = np.isfinite(_column(table, "pmra")) & np.isfinite(_column(table, "pmdec"))
    motion &= _column(table, "ref_epoch") > 0
    # A solution of position only has no inverse variance of the motion.
    if {"pmra_ivar", "pmdec_ivar"} <= set(table.colnames):
        motion &= (_column(table, "pmra_ivar") > 0) & (_column(table, "pmdec_ivar") > 0)
    else:
        motion &= np.hypot(_column(table, "pmra"), _column(table, "pmdec")) > 0
    return gaia & motion


def positions_at(table: Table, epoch: Time | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return RA and Dec (deg) with the stars that move carried to a time, and which those are.

    They are as seen from the Earth's orbit, where the parallax is known to a fifth of itself.
    """
    ra, dec = _column(table, "ra"), _column(table, "dec")
    moves = has_motion(table) if epoch is not None else np.zeros(len(table), bool)
    if epoch is None or not moves.any():
        return ra % 360.0, dec, moves
    years = epoch.tdb.jyear - _column(table, "ref_epoch")[moves]
    east_mas = _column(table, "pmra")[moves] * years
    north_mas = _column(table, "pmdec")[moves] * years
    parallax = _believed_parallax(table)[moves]
    if parallax.any():
        # Barycentric; that a star is seen in the direction of its distance less this vector.
        earth = get_body_barycentric("earth", epoch, ephemeris="builtin").xyz.to_value(u.au)
        east, north = tangent_axes(ra[moves], dec[moves])
        east_mas -= parallax * (east @ earth)
        north_mas -= parallax * (north @ earth)
    steps = east_mas / MAS_PER_DEG, north_mas / MAS_PER_DEG
    ra[moves], dec[moves] = shift_positions(ra[moves], dec[moves], *steps)
    return ra % 360.0, dec, moves


def _believed_parallax(table: Table) -> np.ndarray:
    parallax = np.nan_to_num(_column(table, "parallax"))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = 1 / np.sqrt(_column(table, "parallax_ivar"))
    return np.where(parallax * _LONGEST_PARALLAX_ERROR > error, parallax, 0.0)


# ---- the catalogue of a mosaic ------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class JwstCatalog:
    """The catalogue of a mosaic.

    The table has ``label``, ``jwst_ra``, ``jwst_dec`` (deg), ``jwst_mag``, ``jwst_mag_err`` (AB),
    ``jwst_extended``, and ``jwst_near``: how many other sources are within `BLEND_ARCSEC`.
    Magnitudes over errors `by_shape` are as of point sources (`False`) and of extended ones; there
    are none where the catalogue has not both, or a column was named.
    """

    table: Table
    field: Field
    epoch: Time | None
    filter: str
    image: Path | None
    by_shape: dict[bool, np.ndarray]

    def covers(self, ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
        """Return which positions the mosaic has pixels of; without it, those among its sources."""
        inside = self.field.contains(ra_deg, dec_deg)
        if self.image is None or not inside.any():
            return inside
        wcs = image_wcs(self.image)
        x, y = wcs.world_to_pixel_values(ra_deg, dec_deg)
        ny, nx = wcs.array_shape
        inside &= (x >= -0.5) & (x < nx - 0.5) & (y >= -0.5) & (y < ny - 0.5)
        pixel = np.rint(y[inside]).astype(int), np.rint(x[inside]).astype(int)
        with fits.open(self.image, memmap=True) as hdul:
            observed = np.isfinite(hdul["SCI"].data[pixel])
            if "WHT" in hdul:
                observed &= hdul["WHT"].data[pixel] > 0
        inside[inside] = observed
        return inside


def read_jwst_catalog(catalog: FilePath | Table, *, magnitude: str = "auto") -> JwstCatalog:
    """Read the catalogue of a mosaic, and what the mosaic beside it knows."""
    table, image = _table_and_image(catalog)
    ra, dec = _positions(table)
    is_placed = np.isfinite(ra) & np.isfinite(dec)
    table, ra, dec = table[is_placed], ra[is_placed] % 360.0, dec[is_placed]
    sources = Table()
    sources["label"] = _present(table, "label", np.arange(1, len(ra) + 1))
    sources["jwst_ra"], sources["jwst_dec"] = ra * u.deg, dec * u.deg
    extended = _present(table, "is_extended", np.zeros(len(ra), bool)).astype(bool)
    mags, by_shape = _magnitudes(table, magnitude, extended)
    sources["jwst_mag"], sources["jwst_mag_err"] = mags
    sources["jwst_extended"] = extended
    sources["jwst_near"] = _neighbours(ra, dec)
    field, epoch, name = _field(image, ra, dec)
    return JwstCatalog(sources, field, epoch, name, image, by_shape)


def _table_and_image(catalog: FilePath | Table) -> tuple[Table, Path | None]:
    """Return a catalogue as it is, and the mosaic beside it."""
    if isinstance(catalog, Table):
        return catalog, None
    if not isinstance(catalog, (str, os.PathLike)):
        must = "must be a *_cat.ecsv or *_i2d.fits file, or a Table with the column sky_centroid."
        refuse("i2d_catalog", catalog, must)
    path, image = _files(Path(absolute(catalog)))
    try:
        return Table.read(path, format="ascii.ecsv"), image
    except (OSError, ValueError) as error:
        msg = f"{path} is not an ECSV catalogue: {error}"
        raise InvalidExposureError(msg, parameter="i2d_catalog", value=str(path)) from error


def _present(table: Table, name: str, default: np.ndarray) -> np.ndarray:
    return np.asarray(table[name]) if name in table.colnames else default


def _files(path: Path) -> tuple[Path, Path | None]:
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


def _positions(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions called sky_centroid, or those that any table may have."""
    centroid = ("sky_centroid.ra", "sky_centroid.dec")
    if "sky_centroid" in table.colnames:
        targets = as_targets(table["sky_centroid"])
    elif set(centroid) <= set(table.colnames):
        targets = as_targets(Table([table[name] for name in centroid], names=("ra", "dec")))
    else:
        targets = as_targets(table[[name for name in table.colnames if name.lower() != "id"]])
    return targets.ra_deg, targets.dec_deg


def _magnitudes(
    table: Table, magnitude: str, extended: np.ndarray
) -> tuple[np.ndarray, dict[bool, np.ndarray]]:
    """Return AB magnitudes over their errors; and those by shape, where there are two kinds."""
    names = _magnitude_columns(table, magnitude)
    pairs = [np.stack([_column(table, name), _column(table, f"{name}_err")]) for name in names]
    if len(pairs) < 2:
        return next(iter(pairs), np.full((2, len(table)), np.nan)), {}
    # The total is that of a point source; an extended one reaches beyond the aperture.
    point, whole = pairs
    return np.where(extended, whole, point), {False: point, True: whole}


def _magnitude_columns(table: Table, magnitude: str) -> list[str]:
    if magnitude == "auto":
        return [name for name in _MAGNITUDES if name in table.colnames]
    if magnitude not in table.colnames:
        shown = [name for name in table.colnames if "mag" in name and "err" not in name]
        refuse("magnitude", magnitude, f"is not a column; there are: {', '.join(shown)}.")
    return [magnitude]


def _neighbours(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    if not len(ra):
        return np.zeros(0, int)
    tree = cKDTree(unit_vectors(ra, dec))
    counts = tree.query_ball_point(
        tree.data, BLEND_ARCSEC * 1000 / MAS_PER_RADIAN, return_length=True
    )
    return np.asarray(counts) - 1


def _field(image: Path | None, ra: np.ndarray, dec: np.ndarray) -> tuple[Field, Time | None, str]:
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


def _hull(ra: np.ndarray, dec: np.ndarray) -> Polygon | Circle:
    """Return the smallest convex shape round positions; a circle if they are on one line."""
    points = unit_vectors(ra, dec)
    middle = points.mean(axis=0)
    middle /= np.linalg.norm(middle)
    ra0, dec0 = middle_of(ra, dec)
    # On the tangent plane, great circles are straight lines.
    plane = points @ np.stack(tangent_axes(ra0, dec0), axis=1) / (points @ middle)[:, None]
    try:
        corners = ConvexHull(plane * MAS_PER_RADIAN).vertices
    except (QhullError, ValueError):
        radius_deg = np.degrees(np.hypot(*plane.T).max())
        return Circle(ra0, dec0, max(float(radius_deg), _EDGE_DEG))
    return Polygon(tuple(ra[corners].tolist()), tuple(dec[corners].tolist()))
