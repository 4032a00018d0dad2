"""Where JWST looked: footprints, the fields that they make, and cutouts of those.

A footprint is that of one exposure or mosaic; a field is what overlapping footprints cover
together.  Everything is done with great circles, so that RA 0 and the poles are places like any
other.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time

from ...client.inputs import image_wcs
from ...exceptions import (
    CoverageWarning,
    InvalidExposureError,
    InvalidRequestError,
    NoCoverageError,
    refuse,
    warn,
)
from ...survey.bricks import brick_grid, brick_id
from ...survey.releases import PIXEL_SCALE_ARCSEC
from ...survey.request import MAX_SIZE_PIX, as_choice
from ...survey.sphere import (
    Circle,
    as_angle_deg,
    distance_to_sides_deg,
    middle_of,
    separation_deg,
    sides_cross,
    unit_vectors,
)
from ..planning.exposures import ENDINGS, read_exposure
from ..planning.footprints import corners_of, exposure_shapes, parse_s_region
from ..tasks import absolute

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from astropy.table import Row

    from ..._typing import Angle, Keywords, OnMissing
    from ...client import LegacySurveyClass
    from ..planning import Plan
    from ..planning.footprints import Shape

    # A field, and where its cutout is: position and size, or a grid.
    Job = tuple["Field", SkyCoord | None, dict[str, Any]]


_TIME_COLUMNS = ("t_mid", "expmid", "mjd", "mjd_avg")
_NAME_COLUMNS = ("root", "obs_id", "filename", "file", "dataset", "name", "productfilename")
_PATTERNS = ("*_i2d.fits", "*_cal.fits", "*_rate.fits", "*_uncal.fits")
"""What a directory is searched for, the first that it has."""


@dataclass(frozen=True)
class Footprint:
    """What one exposure or mosaic covers, together in all its shapes.

    The MJD (UTC) is that of the middle of the exposure, NaN if it is not known.
    """

    name: str
    shapes: tuple[Shape, ...]
    mjd: float = np.nan
    filter: str = ""
    path: str = ""


@dataclass(frozen=True)
class Field:
    """What one or more footprints cover together."""

    footprints: tuple[Footprint, ...]

    @property
    def name(self) -> str:
        """Name of the first footprint, and how many more there are."""
        more = len(self.footprints) - 1
        return self.footprints[0].name + (f" and {more} more" if more else "")

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes of all footprints, each once."""
        return tuple(dict.fromkeys(shape for one in self.footprints for shape in one.shapes))

    @property
    def mjds(self) -> list[float]:
        """The times that are known."""
        return [one.mjd for one in self.footprints if np.isfinite(one.mjd)]

    @property
    def epoch(self) -> Time | None:
        """Mean time of the footprints, or `None` if none is known."""
        return Time(np.mean(self.mjds), format="mjd", scale="utc") if self.mjds else None

    @property
    def span_yr(self) -> float:
        """Time between the first and the last of the footprints, Julian years."""
        return float(np.ptp(self.mjds)) / 365.25 if self.mjds else 0.0

    def corners(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the corners of all shapes, between which every point of the field lies."""
        ra, dec = zip(*map(corners_of, self.shapes), strict=True)
        return np.concatenate(ra), np.concatenate(dec)

    def enclosing(self, margin_deg: float = 0.0) -> Circle:
        """Return a circle round the field."""
        ra, dec = self.corners()
        ra0, dec0 = middle_of(ra, dec)
        return Circle(ra0, dec0, float(separation_deg(ra0, dec0, ra, dec).max()) + margin_deg)

    def contains(
        self, ra_deg: np.ndarray, dec_deg: np.ndarray, margin_deg: float = 0.0
    ) -> np.ndarray:
        """Return which positions (ICRS) are in the field, or within a margin of it."""
        ra_deg, dec_deg = np.asarray(ra_deg, float), np.asarray(dec_deg, float)
        inside = np.zeros(len(ra_deg), bool)
        for shape in self.shapes:
            inside |= shape.contains(ra_deg, dec_deg)
            if margin_deg:
                inside |= _rim_distance_deg(shape, ra_deg, dec_deg) <= margin_deg
        return inside


def _rim_distance_deg(shape: Shape, ra_deg: np.ndarray, dec_deg: np.ndarray) -> np.ndarray:
    """Return the distance of positions outside a shape to its rim."""
    if isinstance(shape, Circle):
        return separation_deg(shape.ra_deg, shape.dec_deg, ra_deg, dec_deg) - shape.radius_deg
    return distance_to_sides_deg(unit_vectors(ra_deg, dec_deg), unit_vectors(*corners_of(shape)))


# ---- what users have ----------------------------------------------------------------------------


def footprints_of(source: Any) -> list[Footprint]:
    """Return the footprints of a plan, a table with ``s_region``, files, a text, or corners.

    Files are FITS with S_REGION in their headers, or a directory of them; a text is an S_REGION
    itself; a SkyCoord has the corners of a polygon.  A sequence may have any of these.
    """
    for kind, read in _READERS.items():
        if isinstance(source, kind):
            return read(source)
    if hasattr(source, "exposures"):
        return _of_plan(source)
    items = list(source) if hasattr(source, "__iter__") else []
    if not items:
        must = (
            "must be a plan, a table with a column s_region, FITS files, an "
            "S_REGION, a SkyCoord of corners, or a sequence of those."
        )
        refuse("footprints", source, must)
    return [footprint for item in items for footprint in footprints_of(item)]


def _of_plan(plan: Plan) -> list[Footprint]:
    if not plan.exposures:
        msg = "The plan has no exposures."
        raise InvalidRequestError(msg, parameter="plan", value=plan)
    return [
        Footprint(e.root, exposure_shapes(e), _mjd(e.date, e.time), e.filter, e.path)
        for e in plan.exposures
    ]


def _of_table(table: Table) -> list[Footprint]:
    names = {name.lower(): name for name in table.colnames}
    if "s_region" not in names:
        msg = f"The table has no column s_region; it has {', '.join(table.colnames)}."
        raise InvalidRequestError(msg, parameter="table", value=table.colnames)
    footprints = []
    for number, row in enumerate(table):
        if text := _text(row, names, "s_region"):
            name = _text(row, names, *_NAME_COLUMNS) or f"row {number}"
            filter_name = _text(row, names, "filter", "filters")
            mjd = _row_mjd(row, names)
            footprints.append(Footprint(name, parse_s_region(text), mjd, filter_name))
    n_bare = len(table) - len(footprints)
    if not footprints:
        msg = f"None of the {len(table)} rows of the table has an s_region."
        raise InvalidRequestError(msg, parameter="table", value=table)
    if n_bare:
        # Association files, and exposures of nothing, such as darks.
        msg = f"{n_bare} of the {len(table)} rows have no s_region; they are left out."
        warn(msg, CoverageWarning)
    return footprints


def _text(row: Row, names: Mapping[str, str], *columns: str) -> str:
    """Return what stands in the first of some columns that there is."""
    value = next((row[names[name]] for name in columns if name in names), np.ma.masked)
    return "" if value is np.ma.masked else str(value).strip()


def _row_mjd(row: Row, names: Mapping[str, str]) -> float:
    """Return the middle of the exposure of a row."""
    limits = [_text(row, names, name) for name in ("t_min", "t_max") if name in names]
    if len(limits) == 2:
        return sum(float(limit or "nan") for limit in limits) / 2
    if set(_TIME_COLUMNS) & set(names):
        return float(_text(row, names, *_TIME_COLUMNS) or "nan")
    return _mjd(_text(row, names, "date_obs"), "")


def _of_path(path: Path) -> list[Footprint]:
    if path.is_dir():
        files = next(filter(None, (sorted(path.rglob(pattern)) for pattern in _PATTERNS)), None)
        if files is None:
            msg = f"There is no file {', '.join(_PATTERNS)} in {path}, at any depth."
            raise InvalidRequestError(msg, parameter="footprints", value=str(path))
        return [footprint for file in files for footprint in _of_path(file)]
    header = read_headers(path)
    name, filter_name = path.name.removesuffix(".fits"), str(header.get("FILTER", ""))
    return [Footprint(name, _shapes(path, header), header_mjd(header), filter_name, str(path))]


def _shapes(path: Path, header: fits.Header) -> tuple[Shape, ...]:
    try:
        return parse_s_region(str(header.get("S_REGION", "")))
    except InvalidRequestError as error:
        if path.name.endswith(ENDINGS):
            return exposure_shapes(read_exposure(path))
        msg = (
            f"{path} has no S_REGION that can be read; it is written by assign_wcs, or by the "
            f"ground system: {error}"
        )
        raise InvalidExposureError(msg, parameter="footprints", value=str(path)) from error


def read_headers(path: Path) -> fits.Header:
    """Return the primary header of a JWST file, with the cards of its SCI extension added."""
    try:
        with fits.open(path, memmap=True) as hdul:
            header = hdul[0].header.copy()
            if "SCI" in hdul:
                header.update(hdul["SCI"].header)
    except FileNotFoundError as error:
        msg = f"There is no file {path}."
        raise InvalidRequestError(msg, parameter="path", value=str(path)) from error
    except OSError as error:
        msg = f"{path} is not a FITS file: {error}"
        raise InvalidExposureError(msg, parameter="path", value=str(path)) from error
    return header


def header_mjd(header: fits.Header) -> float:
    """Return the middle of an exposure, or of those of a mosaic, as MJD (UTC); NaN if unknown."""
    begin, end = _positive(header, "MJD-BEG"), _positive(header, "MJD-END")
    middles = (_positive(header, "EXPMID"), _positive(header, "MJD-AVG"), (begin + end) / 2)
    for middle in middles:
        if np.isfinite(middle):
            return middle
    return _mjd(header.get("DATE-OBS", ""), header.get("TIME-OBS", ""))


def _positive(header: fits.Header, name: str) -> float:
    """Return a card as a number, NaN unless it is one above 0."""
    value = header.get(name)
    return float(value) if isinstance(value, (int, float)) and value > 0 else np.nan


def _mjd(date: str, time: str) -> float:
    date, time = str(date or "").strip(), str(time or "").strip() or "00:00:00"
    if not date:
        return np.nan
    try:
        return float(Time(date if "T" in date else f"{date}T{time}", scale="utc").mjd)
    except ValueError:
        return np.nan


def _of_corners(corners: SkyCoord) -> list[Footprint]:
    icrs = corners.icrs.reshape(-1)
    numbers = np.stack([icrs.ra.deg, icrs.dec.deg], axis=1).ravel().tolist()
    text = "POLYGON ICRS " + " ".join(map(repr, numbers))
    return [Footprint("polygon", parse_s_region(text))]


def _of_text(text: str) -> list[Footprint]:
    if re.match(r"\s*(POLYGON|CIRCLE|UNION)\b", text, re.IGNORECASE):
        return [Footprint("s_region", parse_s_region(text))]
    return _of_path(Path(absolute(text)))


_READERS: dict[type, Callable[[Any], list[Footprint]]] = {
    Footprint: lambda footprint: [footprint],
    Field: lambda field: list(field.footprints),
    Table: _of_table,
    SkyCoord: _of_corners,
    str: _of_text,
    os.PathLike: lambda path: _of_path(Path(absolute(path))),
}


# ---- fields -------------------------------------------------------------------------------------


def fields_of(footprints: Sequence[Footprint], *, union: bool = True) -> list[Field]:
    """Return the fields that footprints make, in the order of their first ones.

    With `union`, footprints that overlap make one field, as do those that are linked by others.
    """
    groups = _linked(footprints) if union else [[footprint] for footprint in footprints]
    return [Field(tuple(group)) for group in groups]


def _linked(footprints: Sequence[Footprint]) -> list[list[Footprint]]:
    """Return the footprints that overlap, or are linked by others, together."""
    ra, dec, radius = np.transpose([_disc(footprint) for footprint in footprints])
    groups: list[list[int]] = []
    for i, footprint in enumerate(footprints):
        near = separation_deg(ra[i], dec[i], ra, dec) <= radius[i] + radius
        linked = [
            group
            for group in groups
            if _touch_any(footprint, [footprints[j] for j in group if near[j]])
        ]
        groups = [group for group in groups if group not in linked]
        groups.append(sorted(sum(linked, [i])))
    return [[footprints[i] for i in group] for group in sorted(groups)]


def _disc(footprint: Footprint) -> tuple[float, float, float]:
    circle = Field((footprint,)).enclosing()
    return circle.ra_deg, circle.dec_deg, circle.radius_deg


def _touch_any(footprint: Footprint, others: Sequence[Footprint]) -> bool:
    """Return True if a footprint has a point in common with one of the others."""
    shapes = (shape for other in others for shape in other.shapes)
    return any(_shapes_touch(a, b) for b in shapes for a in footprint.shapes)


def _shapes_touch(a: Shape, b: Shape) -> bool:
    if a == b:
        return True
    circle, other = (a, b) if isinstance(a, Circle) else (b, a)
    if isinstance(circle, Circle):
        center = np.array([circle.ra_deg]), np.array([circle.dec_deg])
        near = _rim_distance_deg(other, *center) <= circle.radius_deg
        return bool(near.any() or other.contains(*center).any())
    if a.contains(*corners_of(b)).any() or b.contains(*corners_of(a)).any():
        return True
    return sides_cross(unit_vectors(*corners_of(a)), unit_vectors(*corners_of(b)))


# ---- cutouts of the Legacy Surveys ---------------------------------------------------------------

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
    if like is not None:
        jobs = _on_grids(footprints, like, options)
    elif "wcs" in options:
        msg = "wcs is not an argument here; give the grid as like."
        raise InvalidRequestError(msg, parameter="wcs", value=options["wcs"])
    else:
        fields = fields_from(footprints, union=union)
        jobs = [(field, *_box(field, margin_deg, options)) for field in fields]
    return [_cutout(survey, job, options) for job in jobs]


def _cutout(survey: LegacySurveyClass, job: Job, options: dict[str, Any]) -> fits.HDUList | None:
    """Return the cutout of a field, `None` with a warning where that is allowed."""
    field, position, size = job
    try:
        cutout = survey.get_cutout(position, **size, **options)
    except NoCoverageError as error:
        if options["on_missing"] == "raise":
            raise
        msg = f"The survey has nothing of {field.name}: {error}"
        warn(msg, CoverageWarning)
        return None
    if isinstance(cutout, fits.HDUList):
        _sign(cutout, field)
    return cutout


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
        return _on_own_grids(fields_from(footprints, union=False))
    # One grid has one cutout, of all that the user named.
    field = Field(tuple(footprints_of(footprints)))
    return [(field, None, {"wcs": image_wcs(like)})]


def _on_own_grids(fields: list[Field]) -> list[Job]:
    pathless = [field.name for field in fields if not field.footprints[0].path]
    if pathless:
        msg = f"like={OWN_GRID!r} needs files; {', '.join(pathless[:3])} have none."
        raise InvalidRequestError(msg, parameter="like", value=OWN_GRID)
    return [(field, None, {"wcs": image_wcs(field.footprints[0].path)}) for field in fields]


def _sign(cutout: fits.HDUList, field: Field) -> None:
    """Say in the primary header which footprints the cutout is of."""
    header = cutout[0].header
    header["NFOOT"] = (len(field.footprints), "JWST footprints in the field")
    for number, footprint in enumerate(field.footprints[:99], start=1):
        header[f"FOOT{number}"] = (footprint.name, "JWST exposure or mosaic")
