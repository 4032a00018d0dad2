"""Reference catalogues for tweakreg, from Tractor or from Gaia, at the epoch of the exposures.

The file is what ``tweakreg.abs_refcat`` reads: columns ``RA`` and ``DEC`` in degrees, and
``weight``.  No other column is called so in any case, since the pipeline takes them in any case.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.table import Table, vstack
from astropy.time import Time

from ..._packages import package_version
from ..._typing import Angle, FilePath, Quantity
from ...client import LegacySurvey, LegacySurveyClass
from ...client.inputs import as_path
from ...exceptions import (
    CrdsUnavailable,
    InvalidRequestError,
    NoCoverageError,
    ServiceDownError,
    StageWarning,
    refuse,
    warn,
)
from ...io.whole_files import write_whole
from ...survey.bitmasks import maskbits as release_bits
from ...survey.bitmasks import maskbits_value
from ...survey.photometry import plain_numbers
from ...survey.releases import get_release
from ...survey.request import as_choice
from ...survey.sphere import as_angle_deg
from ..planning import Plan
from ..tasks import REFCATS, Task
from .field_sources import (
    as_epoch,
    field_sources,
    has_motion,
    positions_at,
    texts,
    with_lower_names,
)
from .fields import Field, as_width_deg, fields_of, footprints_of

GAIA_TABLE = "gaiadr3.gaia_source"

PIPELINE_MINIMUM = 15
"""``tweakreg.abs_minobj``: with fewer sources the pipeline does not align."""

STAR_FLOOR_MAS = 5.0
GALAXY_FLOOR_MAS = 20.0
"""What a JWST centroid adds to the error of a reference: a galaxy's differs from that of its image
from the ground."""

GAIA_MAX_RUWE = 1.4

_GALAXY_BITS = ("BRIGHT", "GALAXY", "CLUSTER", "BAILOUT", "SUB_BLOB")
_STAR_BITS = ("GALAXY",)

_GAIA_COLUMNS = (
    "source_id, ra, dec, ra_error, dec_error, pmra, pmdec, pmra_error, pmdec_error, parallax, "
    "parallax_error, ref_epoch, ruwe, phot_g_mean_mag, duplicated_source"
)


@dataclass(frozen=True)
class Cuts:
    """What a source must fulfil to be a reference."""

    max_error_mas: float = 30.0
    galaxies: bool = True
    min_snr: float = 10.0
    max_radius_arcsec: float = 0.6
    max_fracflux: float = 0.2
    maskbits: Sequence[str] | None = None

    def limits(self) -> dict[str, object]:
        """Return what was set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def mask(self, names: Sequence[str], release: str) -> int:
        """Return the mask of the bits named by the user, by default of those names."""
        if self.maskbits is not None:
            return maskbits_value(self.maskbits, release)
        known_bits = release_bits(release)
        return maskbits_value([name for name in names if name in known_bits], release)


DEFAULT_CUTS = Cuts()


def as_cuts(
    *,
    max_error: Quantity,
    galaxies: bool,
    min_snr: float,
    max_radius: Quantity,
    max_fracflux: float,
    maskbits: str | Sequence[str] | None,
) -> Cuts:
    """Return the cuts that a user asks for."""
    return Cuts(
        max_error_mas=as_angle_deg("max_error", max_error, 1 / 3600) * 3.6e6,
        galaxies=bool(galaxies),
        min_snr=_as_number("min_snr", min_snr),
        max_radius_arcsec=as_angle_deg("max_radius", max_radius, 60 / 3600) * 3600,
        max_fracflux=_as_number("max_fracflux", max_fracflux),
        maskbits=[maskbits] if isinstance(maskbits, str) else maskbits,
    )


def make_reference(
    footprints: Any,
    *,
    catalog: str = "legacy",
    survey: LegacySurveyClass = LegacySurvey,
    epoch: Time | None = None,
    path: FilePath | None = None,
    margin: Angle = "10 arcsec",
    cuts: Cuts = DEFAULT_CUTS,
    release: str | None = None,
    gaia: Any = None,
    **options: Any,
) -> Table:
    """Make an astrometric reference catalogue for JWST exposures: see `astrometric_reference`."""
    as_choice("catalog", catalog, REFCATS)
    margin_deg = as_width_deg("margin", margin)
    path = _as_ecsv(path)
    as_epoch(epoch)
    release = get_release(survey.release if release is None else release).name
    fields = fields_of(footprints_of(footprints))
    epochs = [_epoch_of(field, epoch) for field in fields]
    moments = zip(fields, epochs, strict=True)
    if catalog == "gaia":
        parts = [
            gaia_reference(_gaia_rows(field, margin_deg, gaia), moment, cuts)
            for field, moment in moments
        ]
    else:
        options |= {"margin_deg": margin_deg, "release": release}
        parts = [
            tractor_reference(field_sources(field, survey, **options), moment, release, cuts)
            for field, moment in moments
        ]
    table = _one_table(parts)
    _check_number(len(table), catalog)
    table.meta = _meta(table, catalog, fields, epochs, margin_deg)
    if catalog == "legacy":
        table.meta |= {**cuts.limits(), "release": release}
    if path is not None:
        with write_whole(path) as temporary:
            table.write(temporary, format="ascii.ecsv", overwrite=True)
    return table


def _meta(
    table: Table, catalog: str, fields: Sequence[Field], epochs: Sequence[Time], margin_deg: float
) -> dict[str, object]:
    """Return what a reference catalogue says of itself."""
    return {
        "description": "Astrometric reference for tweakreg.abs_refcat",
        "catalog": GAIA_TABLE if catalog == "gaia" else "DESI Legacy Imaging Surveys, Tractor",
        "frame": "ICRS",
        "epoch": [moment.utc.isot for moment in epochs],
        "fields": [field.name for field in fields],
        "margin_arcsec": round(margin_deg * 3600, 6),
        "creator": f"astroquery_lis {package_version()}",
        "n_stars": int((table["kind"] == "star").sum()),
        "n_galaxies": int((table["kind"] == "galaxy").sum()),
    }


def _as_number(parameter: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < np.inf:
        refuse(parameter, value, "must be a number, 0 or more.")
    return float(value)


def _as_ecsv(path: FilePath | None) -> Path | None:
    file = as_path("path", path)
    if file is not None and file.suffix != ".ecsv":
        refuse("path", str(path), "must end in .ecsv, by which the pipeline knows the format.")
    return file


def _epoch_of(field: Field, epoch: Time | None) -> Time:
    """Return the time of a reference: what was given, or that of the exposures."""
    if epoch is not None:
        return epoch
    if field.epoch is None:
        msg = f"epoch: {field.name} does not tell when it was observed; give epoch=Time(...)."
        raise InvalidRequestError(msg, parameter="epoch", value=None)
    if field.span_yr > 1:
        msg = (
            f"The exposures of {field.name} are {field.span_yr:.1f} years apart; the reference "
            "has their mean epoch. Align them visit by visit if stars move too far."
        )
        warn(msg, StageWarning)
    return field.epoch


def _check_number(count: int, catalog: str) -> None:
    """Refuse a reference without sources, and warn of one that the pipeline has no use for."""
    if not count:
        msg = (
            f"No source of {'Gaia' if catalog == 'gaia' else 'Tractor'} in the field is fit for a "
            "reference; loosen max_error, min_snr, max_radius, max_fracflux or maskbits."
        )
        raise NoCoverageError(msg)
    if count < PIPELINE_MINIMUM:
        msg = (
            f"The reference has {count} sources, and tweakreg does not align with fewer than "
            f"abs_minobj, {PIPELINE_MINIMUM} by default: set steps={{'tweakreg': {{'abs_minobj': "
            f"{max(count // 2, 3)}}}}}."
        )
        warn(msg, StageWarning)


def tractor_reference(rows: Table, epoch: Time, release: str, cuts: Cuts) -> Table:
    """Return the reference sources among Tractor's: stars with a motion, then galaxies."""
    ra, dec, _ = positions_at(rows, epoch)
    is_star, kind = has_motion(rows), texts(rows["type"])
    is_galaxy = (kind != "PSF") & (kind != "DUP") & (kind != "")
    error = np.where(is_star, _star_error_mas(rows, epoch), _galaxy_error_mas(rows))
    snr, fracflux = _best_band(rows)
    bits = np.nan_to_num(plain_numbers(rows["maskbits"])).astype(np.int64)
    is_good = error <= cuts.max_error_mas
    star = is_good & is_star & ((bits & cuts.mask(_STAR_BITS, release)) == 0)
    galaxy = is_good & is_galaxy & (snr >= cuts.min_snr) & (fracflux <= cuts.max_fracflux)
    galaxy &= _radius_arcsec(rows) <= cuts.max_radius_arcsec
    allmask = [name for name in release_bits(release) if name.startswith("ALLMASK_")]
    galaxy &= (bits & cuts.mask((*_GALAXY_BITS, *allmask), release)) == 0
    galaxy &= cuts.galaxies
    parts = []
    for name, is_fit, floor in (
        ("star", star, STAR_FLOOR_MAS),
        ("galaxy", galaxy, GALAXY_FLOOR_MAS),
    ):
        part = _base(ra[is_fit], dec[is_fit], error[is_fit], floor, name)
        part["type"] = kind[is_fit]
        for column in ("release", "brickid", "objid", "ref_id"):
            part[column] = np.ma.getdata(rows[column])[is_fit]
        # ECSV reads an empty text as a missing one.
        catalog = texts(rows["ref_cat"])[is_fit]
        part["ref_cat"] = np.where(catalog == "", "-", catalog)
        for column in ("ref_epoch", "pmra", "pmdec", "parallax"):
            part[column] = np.where(is_star, plain_numbers(rows[column]), 0.0)[is_fit]
        parts.append(part)
    return vstack(parts, metadata_conflicts="silent")


def _base(ra: np.ndarray, dec: np.ndarray, error: np.ndarray, floor: float, kind: str) -> Table:
    table = Table()
    table["RA"], table["DEC"] = ra * u.deg, dec * u.deg
    table["weight"] = 1 / (error**2 + floor**2)
    table["error_mas"] = error
    table["kind"] = np.full(len(ra), kind, dtype="U6")
    return table


def _star_error_mas(rows: Table, epoch: Time) -> np.ndarray:
    """Return the error of a star's position at a time, in its worse coordinate."""
    years = epoch.tdb.jyear - plain_numbers(rows["ref_epoch"])
    with np.errstate(divide="ignore", invalid="ignore"):
        motion = np.maximum(
            *(1 / np.sqrt(plain_numbers(rows[f"pm{axis}_ivar"])) for axis in ("ra", "dec"))
        )
    own = np.nan_to_num(plain_numbers(rows["gaia_astrometric_sigma5d_max"]))
    noise = np.nan_to_num(plain_numbers(rows["gaia_astrometric_excess_noise"]))
    return np.sqrt(own**2 + noise**2 + (motion * years) ** 2)


def _galaxy_error_mas(rows: Table) -> np.ndarray:
    """Return the error of a galaxy's position in its worse coordinate; infinite where unknown."""
    with np.errstate(divide="ignore", invalid="ignore"):
        # The error in RA is that of the number, not of the angle on the sky.
        east = np.cos(np.radians(plain_numbers(rows["dec"]))) / np.sqrt(
            plain_numbers(rows["ra_ivar"])
        )
        north = 1 / np.sqrt(plain_numbers(rows["dec_ivar"]))
    error = np.maximum(east, north) * 3.6e6
    return np.where(np.isfinite(error), error, np.inf)


def _best_band(rows: Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the S/N in the band where it is highest, and what neighbours add in that band."""
    bands = [name.removeprefix("fracflux_") for name in rows.colnames if "fracflux_" in name]
    snr, fraction = [], []
    for band in bands:
        if band.startswith("w"):
            continue
        ivar = np.clip(np.nan_to_num(plain_numbers(rows[f"flux_ivar_{band}"])), 0, None)
        snr.append(np.nan_to_num(plain_numbers(rows[f"flux_{band}"])) * np.sqrt(ivar))
        fraction.append(np.nan_to_num(plain_numbers(rows[f"fracflux_{band}"])))
    best = np.argmax(snr, axis=0), np.arange(len(rows))
    return np.array(snr)[best], np.array(fraction)[best]


def _radius_arcsec(rows: Table) -> np.ndarray:
    """Return half-light radii; to DR8 that of the profile that was fitted."""
    if "shape_r" in rows.colnames:
        return plain_numbers(rows["shape_r"])
    kind = texts(rows["type"])
    exp, dev = plain_numbers(rows["shapeexp_r"]), plain_numbers(rows["shapedev_r"])
    return np.where(kind == "DEV", dev, np.where(kind == "COMP", np.fmax(exp, dev), exp))


def _gaia_rows(field: Field, margin_deg: float, gaia: Any) -> Table:
    """Ask Gaia for the sources of a field."""
    circle = field.enclosing(margin_deg)
    query = (
        f"SELECT {_GAIA_COLUMNS} FROM {GAIA_TABLE} WHERE 1 = CONTAINS(POINT('ICRS', ra, dec), "
        f"CIRCLE('ICRS', {circle.ra_deg:.9f}, {circle.dec_deg:.9f}, {circle.radius_deg:.9f})) "
        "AND pmra IS NOT NULL"
    )
    # The import asks the archive for its messages, and prints them.
    with contextlib.redirect_stdout(io.StringIO()):
        if gaia is None:
            from astroquery.gaia import Gaia

            gaia = Gaia
        try:
            rows = gaia.launch_job_async(query).get_results()
        except OSError as error:
            msg = f"Gaia's archive did not answer: {error}"
            raise ServiceDownError(msg, cause=error) from error
    rows = with_lower_names(rows)
    inside = field.contains(plain_numbers(rows["ra"]), plain_numbers(rows["dec"]), margin_deg)
    return rows[inside]


def gaia_reference(rows: Table, epoch: Time, cuts: Cuts) -> Table:
    """Return the reference stars among Gaia's: with a motion, a good fit and a small error."""
    stars = Table(
        {name: plain_numbers(rows[name]) for name in ("ra", "dec", "pmra", "pmdec", "parallax")}
    )
    stars["ref_epoch"] = plain_numbers(rows["ref_epoch"])
    stars["type"], stars["ref_cat"] = "PSF", "G3"
    for name in ("pmra", "pmdec", "parallax"):
        stars[f"{name}_ivar"] = plain_numbers(rows[f"{name}_error"]) ** -2.0
    ra, dec, moves = positions_at(stars, epoch)
    years = epoch.tdb.jyear - stars["ref_epoch"].data
    errors = [
        np.hypot(
            plain_numbers(rows[f"{axis}_error"]), plain_numbers(rows[f"pm{axis}_error"]) * years
        )
        for axis in ("ra", "dec")
    ]
    error = np.maximum(*errors)
    is_fit = moves & (error <= cuts.max_error_mas) & (plain_numbers(rows["ruwe"]) <= GAIA_MAX_RUWE)
    is_fit &= ~np.ma.filled(np.ma.asarray(rows["duplicated_source"]).astype(bool), True)
    part = _base(ra[is_fit], dec[is_fit], error[is_fit], STAR_FLOOR_MAS, "star")
    part["source_id"] = np.ma.getdata(rows["source_id"])[is_fit]
    part["phot_g_mean_mag"] = plain_numbers(rows["phot_g_mean_mag"])[is_fit]
    for name in ("ref_epoch", "pmra", "pmdec", "parallax"):
        part[name] = stars[name][is_fit]
    return part


def _one_table(parts: list[Table]) -> Table:
    """Return the sources of all fields, each once, the weights relative to the best."""
    table = vstack(parts, metadata_conflicts="silent")
    key = [name for name in ("release", "brickid", "objid", "source_id") if name in table.colnames]
    _, first = np.unique(np.array(table[key].as_array()), return_index=True)
    table = table[np.sort(first)]
    if len(table):
        table["weight"] /= table["weight"].max()
    for name, text in (
        ("RA", "ICRS, at the epoch"),
        ("DEC", "ICRS, at the epoch"),
        ("weight", "1 for the best"),
        ("error_mas", "Of a coordinate at the epoch, mas"),
    ):
        table[name].info.description = text
    return table


# ---- the catalogues of a plan -------------------------------------------------------------------


def make_catalogs(
    plan: Plan, *, survey: LegacySurveyClass, offline: bool = False
) -> list[tuple[Path, bool]]:
    """Make the catalogues that a plan names and that are not there; tell which were made now."""
    if plan.options.get("abs_refcat") not in REFCATS:
        return []
    tasks = _tasks_by_catalog(plan)
    missing = [path for path in tasks if not path.exists()]
    if missing and offline:
        msg = (
            f"abs_refcat={plan.options['abs_refcat']!r}: the catalogue {missing[0]} is missing; "
            "call prefetch_references where there is a network."
        )
        raise CrdsUnavailable(msg, missing=list(map(str, missing)))
    for path in missing:
        _make_catalog(plan, tasks[path], path, survey)
    return [(path, path in missing) for path in tasks]


def _tasks_by_catalog(plan: Plan) -> dict[Path, Task]:
    """Return the catalogues of a plan, each with the task that takes it."""
    # A catalogue that a step names itself lies elsewhere.
    folder = Path(str(plan.output_dir), "refcat")
    stage3 = (task for task in plan.tasks if task.stage == 3)
    tasks = {Path(str(t.steps.get("tweakreg", {}).get("abs_refcat", ""))): t for t in stage3}
    return {path: task for path, task in tasks.items() if path.parent == folder}


def _make_catalog(plan: Plan, task: Task, path: Path, survey: LegacySurveyClass) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exposures = {exposure.root: exposure for exposure in plan.exposures}
    part = replace(plan, exposures=tuple(exposures[root] for root in task.exposures))
    with warnings.catch_warnings():
        # Whoever set it knows how few there are.
        if "abs_minobj" in task.steps["tweakreg"]:
            warnings.filterwarnings("ignore", ".*abs_minobj", StageWarning)
        make_reference(part, catalog=plan.options["abs_refcat"], survey=survey, path=path)
