"""A simulated observation: its files, the references that serve them, and what is true of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from scipy.special import erf

from ..._typing import Keywords
from ...exceptions import refuse
from .. import sky
from ..tree import cache_folder, digest_of, lock, make_once
from .crds import CONTEXT, need_stdatamodels
from .modes import START, write_uncal
from .reference_files import DARK_GROUPS, add_context, check_cache, write_cache
from .scene import Exposure, expose, planned_exposures, scene
from .setups import (
    DETECTOR_PIX,
    DETECTORS,
    FILTERS,
    FRAME_TIME_S,
    SATURATION_DN,
    SUBARRAYS,
    detector_maps,
)

# Environment variables that must not be there when the simulated references are used.
UNSET_VARIABLES = ("CRDS_SERVER_URL", "CRDS_OBSERVATORY", "CRDS_OVERRIDES", "CRDS_MODE")

_TRUTH = "truth"
_HIT = {"file": "U64", "integration": "i8", "group": "i8", "x": "i8", "y": "i8"}
_TABLES = {
    "cosmic_rays": {**_HIT, "electrons": "f8"},
    "snowballs": {**_HIT, "radius": "f8"},
    "hot_pixels": {"detector": "U64", "x": "i8", "y": "i8", "dn_s": "f8"},
    "pointing_errors": {"file": "U64", "east": "f8", "north": "f8"},
}


@dataclass(frozen=True, eq=False)
class Observation:
    """Files of one simulated observation and everything that is true of them.

    Attributes
    ----------
    uncals : list of `~pathlib.Path`
        The uncalibrated exposures of all filters.
    crds_path : `~pathlib.Path`
        The CRDS cache that serves them.
    crds_context : str
        Its context.
    date : str
        ISO date and time of the first exposure.
    truth : `~astropy.table.Table`
        The sources: ``id``, ``legacy_id`` (``id`` in the truth table of the sky, -1 where the
        Legacy Survey has none), ``ra`` and ``dec`` at the date, ``kind``,
        ``saturated``, and ``mag_<filter>`` (AB) and ``flux_<filter>`` (Jy).
    cosmic_rays : `~astropy.table.Table`
        ``file``, ``integration``, ``group`` (from 0: the first that has the charge), ``x``, ``y``
        (pixels of the frame, from 0), ``electrons``.
    snowballs : `~astropy.table.Table`
        ``file``, ``integration``, ``group``, ``x``, ``y``, ``radius`` (pixels).
    hot_pixels : `~astropy.table.Table`
        ``detector``, ``x``, ``y``, ``dn_s``: pixels that no reference file knows.
    pointing_errors : `~astropy.table.Table`
        ``file``, ``east``, ``north`` (arcsec): the keywords less the true pointing.
    wisp_templates : dict of (str, str) to `~pathlib.Path`
        By detector and filter, FITS files with the stray light in the extension ``SCI``.
    exposures : dict of str to ``Exposure``
        By file name: what was commanded, and where the telescope truly pointed.
    """

    uncals: list
    crds_path: Path
    crds_context: str
    date: str
    truth: Table
    cosmic_rays: Table
    snowballs: Table
    hot_pixels: Table
    pointing_errors: Table
    wisp_templates: dict
    exposures: dict

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables to set, as a dict; ``CRDS_SERVER_URL`` has to go."""
        return {"CRDS_PATH": str(self.crds_path), "CRDS_CONTEXT": self.crds_context}

    @contextmanager
    def crds_environment(self) -> Iterator[dict[str, str]]:
        """Set the environment in a ``with`` block, before CRDS is imported."""
        names = (*self.environment, *UNSET_VARIABLES)
        before = {name: os.environ.get(name) for name in names}
        for name in UNSET_VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(self.environment)
        try:
            yield self.environment
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

    def pixel_positions(
        self, file: str | PathLike[str], ra: float | np.ndarray, dec: float | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return where places of the sky truly fall in an exposure.

        Parameters
        ----------
        file : path-like
            An exposure, or a product of it: the name as far as the detector counts.
        ra, dec : float or `~numpy.ndarray`
            Degrees.

        Returns
        -------
        x, y : `~numpy.ndarray`
            Pixels of the frame, from 0.
        """
        stem = "_".join(Path(file).name.split("_")[:4])
        return self.exposures[f"{stem}_uncal.fits"].to_pixel(np.asarray(ra), np.asarray(dec))

    def new_context(self, changed: Sequence[str] = ("flat",)) -> str:
        """Add a context to the cache in which some reference types have other files.

        Parameters
        ----------
        changed : sequence of str, optional
            Reference types; the flat by default.

        Returns
        -------
        str
            Name of the context.  Asked again for the same changes, the same name.
        """
        need_stdatamodels()
        with lock(self.crds_path):
            return add_context(self.crds_path, tuple(changed))


def wisp_path(folder: Path, exposure: Exposure) -> Path:
    """Return where the stray light of an exposure's detector and filter is written."""
    return folder / f"WISP_{exposure.detector}_{exposure.filter_name}_CLEAR.fits"


def write_truth(
    folder: Path, sources: Table, rows: dict[str, list[tuple]], options: Keywords
) -> None:
    """Write what is true of an observation, and the options that it was made with."""
    truth = folder / _TRUTH
    truth.mkdir(exist_ok=True)
    sources.write(truth / "sources.ecsv", overwrite=True)
    for name, kinds in _TABLES.items():
        entries = np.array(rows[name], dtype=list(kinds.items()))
        Table(entries).write(truth / f"{name}.ecsv", overwrite=True)
    (truth / "options.json").write_text(json.dumps(options, indent=1))


def read_observation(folder: Path, cache: Path) -> Observation:
    """Return the observation in a folder."""
    truth = folder / _TRUTH
    tables = {name: Table.read(truth / f"{name}.ecsv") for name in _TABLES}
    options = json.loads((truth / "options.json").read_text())
    exposures = {exposure.name: exposure for exposure in planned_exposures(options)}
    templates = {}
    for exposure in exposures.values():
        if (path := wisp_path(folder, exposure)).exists():
            templates[exposure.detector, exposure.filter_name] = path
    first = next(iter(exposures.values()))
    return Observation(
        uncals=[folder / name for name in sorted(exposures)],
        crds_path=cache,
        crds_context=CONTEXT,
        date=first.shot.start.isot,
        truth=Table.read(truth / "sources.ecsv"),
        wisp_templates=templates,
        exposures=exposures,
        **tables,
    )


_SEED = 5
_SATURATED_AT = 0.5


def cache_root() -> Path:
    """Return where what this version of the code makes is kept, in astropy's cache."""
    names = sorted(f"jwst/{path.name}" for path in Path(__file__).parent.glob("*.py"))
    tables = [
        f"data/{name}"
        for name in (
            "crds_server_config.txt",
            "jwst_parameters.json",
            "jwst_keywords.json",
            "scene.ecsv",
        )
    ]
    sources = [*names, *tables, "sky.py", "measurements.py"]
    return cache_folder() / f"jwst-{digest_of(sources)}"


def simulate(
    directory: str | PathLike[str] | None = None,
    *,
    size: int = 128,
    filters: str | Sequence[str] = ("F356W",),
    dithers: int = 4,
    groups: int = 10,
    integrations: int = 1,
    seed: int = _SEED,
    coordinates: SkyCoord | None = None,
    pointing_errors_arcsec: float = 0.17,
    offset_arcsec: tuple[float, float] = (0.0, 0.0),
    cosmic_rays: int | None = None,
    hot_pixels: int = 3,
    stripes_e: float = 0.0,
    wisp: float = 0.0,
    snowballs: int = 0,
    saturated: bool = True,
    program: int = 1234,
    crds_path: str | PathLike[str] | None = None,
) -> Observation:
    """Simulate NIRCam exposures of the embedded sky, and reference files that serve them.

    Parameters
    ----------
    directory : path-like, optional
        Where the exposures are written; by default the cache, where they are made once.
    size : int, optional
        Side of the frames in pixels: 32 to 640, or 2048 for the full detector.
    filters : sequence of str, optional
        Some of F115W, F150W and F200W (NRCA1), F277W, F356W and F444W (NRCALONG); each is a
        sequence of dithered exposures.
    dithers : int, optional
        Exposures of each filter.
    groups, integrations : int, optional
        Groups of each ramp, and ramps of each exposure.
    seed : int, optional
        Of the noise and of everything that is placed at random.
    coordinates : `~astropy.coordinates.SkyCoord`, optional
        Middle of the field; by default the place ``clump`` of the embedded sky.
    pointing_errors_arcsec : float, optional
        Largest error of the keywords that say where an exposure points.  The first exposure of
        each filter has none.
    offset_arcsec : tuple of float, optional
        An error (east, north) that all exposures have beside.
    cosmic_rays : int, optional
        How many hit each integration; by default 25, and as many per area in larger frames.
    hot_pixels : int, optional
        Hot pixels of each detector that no reference file knows.
    stripes_e : float, optional
        Rms of the offsets of the rows at each read, electrons: 1/f noise.
    wisp : float, optional
        Brightest stray light on short-wave detectors, DN/s per pixel.
    snowballs : int, optional
        How many hit each integration.
    saturated : bool, optional
        Whether the brightest star in the field is made bright enough to saturate half way up the
        ramp.
    program : int, optional
        Number of the programme.
    crds_path : path-like, optional
        Where the reference files are made, if they are not there; by default in the cache.

    Returns
    -------
    Observation

    Raises
    ------
    InvalidRequestError
        If an argument is wrong.
    OptionalDependencyError
        If stdatamodels or crds is not installed.
    """
    need_stdatamodels()
    filters = (filters,) if isinstance(filters, str) else tuple(filters)
    _check(size, filters, dithers, groups, integrations)
    if cosmic_rays is None:
        cosmic_rays = round(25 * (size / 128) ** 2)
    _check_effects(size, filters, cosmic_rays, wisp)
    place = sky.positions()["clump"] if coordinates is None else SkyCoord(coordinates).icrs
    options = {
        "size": size,
        "filters": filters,
        "dithers": dithers,
        "groups": groups,
        "integrations": integrations,
        "seed": seed,
        "target": (float(place.ra.deg), float(place.dec.deg)),
        "pointing_errors_arcsec": float(pointing_errors_arcsec),
        "offset_arcsec": tuple(map(float, offset_arcsec)),
        "cosmic_rays": cosmic_rays,
        "hot_pixels": hot_pixels,
        "stripes_e": float(stripes_e),
        "wisp": float(wisp),
        "snowballs": snowballs,
        "saturated": bool(saturated),
        "program": program,
    }
    cache = _make_cache(crds_path, size, groups)
    if directory is None:
        key = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]
        directory = cache_root() / f"observation-{key}"
        make_once(directory, lambda folder: _write_observation(folder, options))
    else:
        directory = Path(directory).absolute()
        directory.mkdir(parents=True, exist_ok=True)
        _write_observation(directory, options)
    return read_observation(directory, cache)


def _check(
    size: int, filters: tuple[str, ...], dithers: int, groups: int, integrations: int
) -> None:
    """Refuse what cannot be simulated."""
    if not (isinstance(size, int) and (32 <= size <= max(SUBARRAYS) or size == DETECTOR_PIX)):
        refuse("size", size, f": give 32 to {max(SUBARRAYS)} pixels, or {DETECTOR_PIX}.")
    if set(filters) - set(FILTERS) or not filters or len(set(filters)) < len(filters):
        refuse("filters", filters, f": give different ones of {', '.join(FILTERS)}.")
    for name, value, least in (
        ("dithers", dithers, 1),
        ("groups", groups, 3),
        ("integrations", integrations, 1),
    ):
        if not isinstance(value, int) or value < least:
            refuse(name, value, f": give a whole number, at least {least}.")


def _check_effects(size: int, filters: tuple[str, ...], cosmic_rays: int, wisp: float) -> None:
    """Refuse effects that cannot be had."""
    # Two may not touch.
    most = size**2 // 60
    if not 0 <= cosmic_rays <= most:
        refuse("cosmic_rays", cosmic_rays, f": give 0 to {most} for {size} pixels.")
    short = [name for name in FILTERS if _is_short(FILTERS[name].detector)]
    if wisp and not set(short) & set(filters):
        refuse("wisp", wisp, f"with filters={filters!r}: only {', '.join(short)} have stray light.")


def _is_short(detector: str) -> bool:
    return DETECTORS[detector].channel == "SHORT"


def _make_cache(crds_path: str | PathLike[str] | None, size: int, groups: int) -> Path:
    dark_groups = groups if size == DETECTOR_PIX else max(groups, DARK_GROUPS)
    path = cache_root() / f"crds-{size}-{dark_groups}" if crds_path is None else Path(crds_path)
    path = path.absolute()
    if path.is_dir():
        check_cache(path, size, groups)
    make_once(path, lambda folder: write_cache(folder, size, dark_groups))
    return path


def _saturate(sources: Table, exposures: list[Exposure]) -> None:
    """Make the brightest star that is in every exposure of a filter saturate half way up."""
    margin = 4
    inside = np.asarray(sources["kind"] == "star")
    for exposure in exposures:
        x, y = exposure.to_pixel(np.asarray(sources["ra"]), np.asarray(sources["dec"]))
        for place in (x, y):
            inside &= (place > margin) & (place < exposure.size - 1 - margin)
    if not inside.any():
        return
    for exposure in exposures:
        flux = sources[f"flux_{exposure.filter_name}"]
        brightest = np.argmax(np.where(inside, sources[f"flux_{exposures[0].filter_name}"], 0))
        peak = erf(0.5 / np.sqrt(2) / exposure.setup.sigma_pix) ** 2
        bias = np.median(exposure.setup.maps().bias_dn)
        time = _SATURATED_AT * exposure.setup.n_groups * FRAME_TIME_S
        flux_jy = (SATURATION_DN - bias) / (peak * time * exposure.setup.dn_per_jansky)
        flux[brightest] = max(flux[brightest], flux_jy)
        magnitude = -2.5 * np.log10(flux[brightest] / 3631.0)
        sources[f"mag_{exposure.filter_name}"][brightest] = magnitude


def _hot_pixels(options: dict, detector: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y and DN/s of the hot pixels that are in no mask."""
    size, number = options["size"], options["hot_pixels"]
    rng = np.random.default_rng([options["seed"], 2, DETECTORS[detector].sca_number])
    maps = detector_maps(detector, size)
    good = np.argwhere(~maps.bad & ~maps.reference)
    good = good[((good > size // 8) & (good < size - size // 8)).all(axis=1)]
    y, x = good[rng.choice(len(good), number, replace=False)].T
    return x, y, rng.uniform(60, 150, number)


def _write_observation(folder: Path, options: dict) -> None:
    """Write the exposures, the stray light and the truth into a folder."""
    exposures = planned_exposures(options)
    ra, dec = options["target"]
    sources = scene(ra, dec, START, options["filters"])
    if options["saturated"]:
        _saturate(sources, exposures)
    hot = {name: _hot_pixels(options, name) for name in {row.detector for row in exposures}}
    sources["saturated"] = np.zeros(len(sources), bool)
    rows: dict[str, list[tuple]] = {name: [] for name in _TABLES}
    for index, exposure in enumerate(exposures):
        counts, rays, balls, full = expose(
            exposure,
            sources,
            np.random.default_rng([options["seed"], 3, index]),
            options=options,
            hot_pixels=hot[exposure.detector],
            wisp=_wisp(folder, exposure, options["wisp"]),
        )
        write_uncal(folder, exposure.setup, exposure.shot, counts)
        rows["cosmic_rays"] += [(exposure.name, *ray) for ray in rays]
        rows["snowballs"] += [(exposure.name, *ball) for ball in balls]
        rows["pointing_errors"].append((exposure.name, *exposure.error))
        sources["saturated"] |= _is_full(sources, exposure, full)
    for name, pixels in sorted(hot.items()):
        rows["hot_pixels"] += [(name, *pixel) for pixel in zip(*pixels, strict=True)]
    write_truth(folder, sources, rows, options)


def _wisp(folder: Path, exposure: Exposure, brightest_dn_s: float) -> np.ndarray | None:
    """Write the shape of the stray light of an exposure, if it has any, and return its light."""
    if not (brightest_dn_s and _is_short(exposure.detector)):
        return None
    template = _wisp_template(exposure.detector, exposure.size)
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(template, name="SCI")])
    hdus[1].header["BUNIT"] = "DN/s"
    hdus.writeto(wisp_path(folder, exposure), overwrite=True)
    return brightest_dn_s * template


def _wisp_template(detector: str, size: int) -> np.ndarray:
    """Return the shape of the stray light of a detector."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    number = DETECTORS[detector].sca_number % 7
    along = 0.8 * x + 0.6 * y + 0.12 * np.sin(5 * (x - 0.3 * y) + number)
    across = 0.6 * x - 0.8 * y
    streaks = 1 + 0.35 * np.sin(40 * along + 3 * across)
    image = np.exp(-0.5 * (along / 0.12) ** 2 - 0.5 * ((across - 0.05) / 0.3) ** 2) * streaks
    return (image / image.max()).astype(np.float32)


def _is_full(sources: Table, exposure: Exposure, full: np.ndarray) -> np.ndarray:
    """Return which sources lie on a saturated pixel, or beside one."""
    x, y = exposure.to_pixel(np.asarray(sources["ra"]), np.asarray(sources["dec"]))
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    inside = (column >= 0) & (column < exposure.size) & (row >= 0) & (row < exposure.size)
    inside &= np.asarray(sources["kind"] == "star")
    is_full = np.zeros(len(sources), bool)
    is_full[inside] = full[row[inside], column[inside]]
    return is_full
