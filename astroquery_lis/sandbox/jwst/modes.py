"""Exposures of any mode and what their headers say, and observations with MIRI and NIRISS."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import Table
from astropy.time import Time, TimeDelta

from .crds import CONTEXT, References, need_stdatamodels, write_cache
from .reference_files import imaging_references, ramp_references
from .setups import (
    DETECTORS,
    TARGET_DEG,
    Pointing,
    Setup,
    frame_keywords,
    make_ramp,
    offset_position,
)

if TYPE_CHECKING:
    from stdatamodels.jwst.datamodels import JwstDataModel
    from stdatamodels.properties import ObjectNode

START = "2023-08-20T04:00:00.000"
_APART_S = 200.0
# What is the same in every exposure.
_KEYWORDS = Path(__file__).parents[1] / "data" / "jwst_keywords.json"


@dataclass(frozen=True, slots=True)
class Shot:
    """One exposure: its number in its pattern, and where its keywords say that it points.

    It begins ``start_s`` after all began, by default some time after the number before.
    """

    number: int
    pointing: Pointing
    start_s: float | None = None
    program: int = 1234
    observation: str = "001"
    group: str = "02"
    target: str = "FIELD"
    is_background: bool = False
    keywords: Mapping[str, object] = field(default_factory=dict)

    @property
    def start(self) -> Time:
        """When it begins."""
        start_s = (self.number - 1) * _APART_S if self.start_s is None else self.start_s
        return Time(START, scale="utc") + TimeDelta(start_s, format="sec")

    def root(self, setup: Setup) -> str:
        """Return the name of the exposure."""
        visit = f"jw{self.program:05d}{self.observation}001_{self.group}101_{self.number:05d}"
        return f"{visit}_{setup.instrument['detector'].lower()}"


def write_uncal(folder: Path, setup: Setup, shot: Shot, counts: np.ndarray) -> Path:
    """Write the ramps of an exposure."""
    from stdatamodels.jwst import datamodels

    model = datamodels.Level1bModel(counts)
    fill_header(model, setup, shot, len(counts))
    return save(folder, model, f"{shot.root(setup)}_uncal.fits")


def save(folder: Path, model: JwstDataModel, name: str) -> Path:
    """Write a model under a name that it knows."""
    model.meta.filename = name
    model.save(str(folder / name))
    model.close()
    return folder / name


def fill_header(model: JwstDataModel, setup: Setup, shot: Shot, n_ints: int) -> None:
    """Fill the keywords that the pipeline and its rules read."""
    visit = f"{shot.program:05d}{shot.observation}001"
    keywords = {
        **json.loads(_KEYWORDS.read_text(encoding="utf-8")),
        "observation.program_number": f"{shot.program:05d}",
        "observation.observation_number": shot.observation,
        "observation.visit_id": visit,
        "observation.obs_id": f"V{visit}P0000000{shot.group}101",
        "observation.visit_group": shot.group,
        "observation.exposure_number": str(shot.number),
        "observation.bkgdtarg": shot.is_background,
        "visit.start_time": shot.start.isot.replace("T", " "),
        "target.proposer_name": shot.target,
        "target.catalog_name": shot.target,
        "dither.position_number": shot.number,
        "exposure.type": setup.exp_type,
        **{f"instrument.{keyword}": value for keyword, value in setup.instrument.items()},
        **{f"subarray.{keyword}": value for keyword, value in frame_keywords(setup).items()},
        **{f"exposure.{keyword}": value for keyword, value in _times(setup, shot, n_ints).items()},
        **setup.keywords,
        **shot.keywords,
    }
    _fill_pointing(model.meta, setup, shot.pointing)
    end = shot.start + TimeDelta(setup.exposure_s, format="sec")
    observation = model.meta.observation
    observation.date, observation.time = shot.start.isot.split("T")
    observation.date_beg, observation.date_end = shot.start.isot, end.isot
    for keyword, value in keywords.items():
        model[f"meta.{keyword}"] = value


def _times(setup: Setup, shot: Shot, n_ints: int) -> dict[str, object]:
    """Return the keywords that say when and how long light was taken."""
    begin, duration = shot.start.mjd, setup.exposure_s
    integration, middle = duration / n_ints, begin + duration / 172800
    group = integration / setup.n_groups
    times = {
        "start_time": begin, "mid_time": middle, "end_time": begin + duration / 86400,
        "start_time_mjd": begin, "mid_time_mjd": middle, "end_time_mjd": begin + duration / 86400,
        "nints": n_ints, "ngroups": setup.n_groups, "frame_time": group, "group_time": group,
        "integration_start": 1, "integration_end": n_ints, "integration_time": integration,
    }  # fmt: skip
    names = ("exposure_time", "effective_exposure_time", "measurement_time", "duration")
    return {**times, **dict.fromkeys((*names, "elapsed_exposure_time"), duration)}


def _fill_pointing(meta: ObjectNode, setup: Setup, pointing: Pointing) -> None:
    wcs = meta.wcsinfo
    wcs.ra_ref, wcs.dec_ref = wcs.crval1, wcs.crval2 = pointing.ra_deg, pointing.dec_deg
    wcs.v2_ref, wcs.v3_ref = pointing.v2_arcsec, pointing.v3_arcsec
    wcs.roll_ref, wcs.v3yangle = pointing.roll_deg, setup.detector.angle_deg
    wcs.crpix2, wcs.crpix1 = ((size + 1) / 2 for size in setup.shape)
    wcs.siaf_xref_sci, wcs.siaf_yref_sci = wcs.crpix1, wcs.crpix2
    wcs.cdelt1 = wcs.cdelt2 = setup.detector.scale_arcsec / 3600
    angle = np.radians(pointing.roll_deg + setup.detector.angle_deg)
    wcs.pc1_1, wcs.pc1_2 = -np.cos(angle), np.sin(angle)
    wcs.pc2_1, wcs.pc2_2 = np.sin(angle), np.cos(angle)
    corners = " ".join(f"{ra:.9f} {dec:.9f}" for ra, dec in setup.corners_deg(pointing))
    wcs.s_region = f"POLYGON ICRS  {corners}"
    meta.pointing.ra_v1, meta.pointing.dec_v1 = map(float, pointing.to_sky(0.0, 0.0))
    meta.pointing.pa_v3 = pointing.roll_deg


EMPTY_DEG = (190.1, 1.25)


@dataclass(frozen=True, eq=False)
class ModeObservation:
    """Files of a simulated mode and what is true of them.

    Attributes
    ----------
    rates : list of `~pathlib.Path`
        The count rates, or the uncalibrated exposures, in the order in which they were taken.
    crds_path : `~pathlib.Path`
        The CRDS cache that serves them.
    crds_context : str
        Its context.
    truth : `~astropy.table.Table`
        The sources: ``ra``, ``dec`` (degrees) and ``flux`` (Jy); ``meta`` has what belongs to no
        source.
    """

    rates: list
    crds_path: Path
    crds_context: str
    truth: Table


def star_grid(
    rng: np.random.Generator, steps_arcsec: np.ndarray, flux_jy: tuple[float, float]
) -> Table:
    """Return stars far enough from one another to be measured: ``ra``, ``dec``, ``flux`` (Jy)."""
    east, north = (axis.ravel() for axis in np.meshgrid(steps_arcsec, steps_arcsec))
    spread = 0.12 * (steps_arcsec[1] - steps_arcsec[0])
    east, north = (axis + rng.uniform(-spread, spread, axis.size) for axis in (east, north))
    places = [offset_position(*TARGET_DEG, e, n) for e, n in zip(east, north, strict=True)]
    ra, dec = np.array(places, float).T
    faintest, brightest = map(math.log10, flux_jy)
    flux = 10 ** rng.uniform(faintest, brightest, len(ra))
    return Table({"ra": ra, "dec": dec, "flux": flux})


class Program:
    """Takes exposures into a folder, as count rates or as ramps, with noise of its own."""

    def __init__(self, directory: str | PathLike[str], seed: int, *, uncal: bool = False) -> None:
        need_stdatamodels()
        self.folder = Path(directory).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.files: list[Path] = []
        self.is_uncal = uncal
        self.rng = np.random.default_rng(seed)

    def expose(self, setup: Setup, shot: Shot, light_dn_s: np.ndarray) -> None:
        """Take one exposure of light."""
        take = self._ramp if self.is_uncal else self._rate
        self.files.append(take(setup, shot, light_dn_s))

    def _ramp(self, setup: Setup, shot: Shot, light_dn_s: np.ndarray) -> Path:
        times = setup.exposure_s / setup.n_groups * np.arange(1, setup.n_groups + 1)
        counts = make_ramp(light_dn_s, setup.maps(), setup.electronics, times, self.rng)
        return write_uncal(self.folder, setup, shot, counts[None])

    def _rate(self, setup: Setup, shot: Shot, light_dn_s: np.ndarray) -> Path:
        rate = self.rate(setup, shot, light_dn_s)
        return save(self.folder, rate, f"{shot.root(setup)}_rate.fits")

    def rate(
        self, setup: Setup, shot: Shot, light_dn_s: np.ndarray, kind: str = "ImageModel"
    ) -> JwstDataModel:
        """Return the count rates of one exposure, or of its integrations, as a kind of model."""
        from stdatamodels.jwst import datamodels

        n_ints = light_dn_s.size // math.prod(setup.shape)
        variance = np.maximum(light_dn_s, 0) * n_ints / setup.exposure_s / setup.electronics.gain
        noise = np.sqrt(variance + setup.read_noise_dn_s**2)
        model = getattr(datamodels, kind)(
            data=(light_dn_s + self.rng.normal(0, noise)).astype(np.float32)
        )
        model.err = noise.astype(np.float32)
        model.var_poisson = variance.astype(np.float32)
        model.var_rnoise = np.full(light_dn_s.shape, setup.read_noise_dn_s**2, np.float32)
        model.dq = np.zeros(light_dn_s.shape, np.uint32)
        fill_header(model, setup, shot, n_ints)
        model.meta.cal_step.ramp_fit = model.meta.cal_step.jump = "COMPLETE"
        model.meta.bunit_data = model.meta.bunit_err = "DN/s"
        return model

    def observation(self, setup: Setup, references: References, truth: Table) -> ModeObservation:
        """Write the references, and return what was taken."""
        crds = self.folder / "crds"
        write_cache(crds, setup.of_detector, references)
        return ModeObservation(self.files, crds, CONTEXT, truth)


# ---- MIRI -------------------------------------------------------------------------------------

_MIRI = Setup(
    exp_type="MIR_IMAGE",
    instrument={"name": "MIRI", "detector": "MIRIMAGE", "filter": "F770W"},
    detector=DETECTORS["MIRIMAGE"],
    shape=(96, 96),
    subarray="SUB128",
    photmjsr=0.5,
    sigma_pix=1.1,
    keywords={
        "observation.template": "MIRI Imaging",
        "exposure.readpatt": "FASTR1",
        "dither.primary_type": "4-POINT-SETS",
    },
)
_SKY_MJYSR = 24.0
_MIRI_DITHERS = ((0.0, 0.0), (0.9, 0.4), (-0.5, 0.8), (0.3, -0.9))


def simulate_miri(
    directory: str | PathLike[str], *, uncal: bool = False, seed: int = 7
) -> ModeObservation:
    """Simulate MIRI: four dithers of a field of stars, and two exposures of a background target.

    Parameters
    ----------
    directory : path-like
        Where files are written.
    uncal : bool, optional
        Whether to write uncalibrated exposures instead of count rates.
    seed : int, optional
        Of the noise.

    Returns
    -------
    ModeObservation
        ``truth.meta`` has ``sky_mjysr``, which varies by 40 per cent across the detector: what
        cannot be taken for a level, and goes only with the background.

    Raises
    ------
    OptionalDependencyError
        If stdatamodels or crds is not installed.
    """
    program = Program(directory, seed, uncal=uncal)
    # The sky under a star of a beam is some tens of per cent of its light.
    stars = star_grid(program.rng, np.arange(-2.4, 2.5, 1.6), (3e-5, 1e-4))
    for number in range(1, 7):
        is_background = number > len(_MIRI_DITHERS)
        step = _MIRI_DITHERS[(number - 1) % len(_MIRI_DITHERS)]
        pointing = _MIRI.dithered(step, EMPTY_DEG if is_background else TARGET_DEG)
        shot = Shot(
            number,
            pointing,
            observation="002" if is_background else "001",
            target="EMPTY" if is_background else "FIELD",
            is_background=is_background,
        )
        light = _MIRI.image(pointing, stars[:0] if is_background else stars, _sky())
        program.expose(_MIRI, shot, light)
    stars.meta["sky_mjysr"] = _sky()
    references = imaging_references(_MIRI) | ramp_references(_MIRI)
    return program.observation(_MIRI, references, stars)


def _sky() -> np.ndarray:
    """Return the light of telescope and zodiac, MJy/sr."""
    size = _MIRI.shape[0]
    y, x = np.mgrid[:size, :size] / size - 0.5
    return _SKY_MJYSR * (1 + 0.3 * x - 0.2 * y + 0.1 * np.sin(9 * x) * np.cos(7 * y))


# ---- NIRISS -----------------------------------------------------------------------------------

_NIRISS = Setup(
    exp_type="NIS_IMAGE",
    instrument={"name": "NIRISS", "detector": "NIS", "filter": "CLEAR", "pupil": "F115W"},
    detector=DETECTORS["NIS"],
    shape=(128, 128),
    subarray="SUB128",
    photmjsr=0.6,
    keywords={"observation.template": "NIRISS Imaging", "exposure.readpatt": "NISRAPID"},
)
_NIRISS_DITHERS = ((0.0, 0.0), (0.42, 0.23), (-0.31, 0.37), (0.17, -0.45))
# By how much the keywords of each dither are wrong, arcsec (east, north).
_NIRISS_ERRORS = ((0.0, 0.0), (0.11, -0.06), (-0.08, -0.1), (0.03, 0.13))
_NIRISS_SKY_MJYSR = 0.4


def simulate_niriss(
    directory: str | PathLike[str], *, uncal: bool = False, seed: int = 11
) -> ModeObservation:
    """Simulate NIRISS: four dithers of 16 stars in F115W, which is in the pupil wheel.

    All but the first point up to 0.14 arcsec from where their keywords say.

    Parameters
    ----------
    directory : path-like
        Where files are written.
    uncal : bool, optional
        Whether to write uncalibrated exposures instead of count rates.
    seed : int, optional
        Of the noise.

    Returns
    -------
    ModeObservation

    Raises
    ------
    OptionalDependencyError
        If stdatamodels or crds is not installed.
    """
    program = Program(directory, seed, uncal=uncal)
    stars = star_grid(program.rng, np.arange(-2.4, 2.5, 1.6), (2e-6, 1e-5))
    for number, (dither, error) in enumerate(
        zip(_NIRISS_DITHERS, _NIRISS_ERRORS, strict=True), start=1
    ):
        light = _NIRISS.image(_NIRISS.dithered(dither), stars, _NIRISS_SKY_MJYSR)
        announced = (dither[0] + error[0], dither[1] + error[1])
        shot = Shot(number, _NIRISS.dithered(announced))
        program.expose(_NIRISS, shot, light)
    references = imaging_references(_NIRISS) | ramp_references(_NIRISS)
    return program.observation(_NIRISS, references, stars)
