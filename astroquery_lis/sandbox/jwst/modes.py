"""Programs of exposures of any mode, and those of MIRI and NIRISS, as count rates or as ramps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from astropy.table import Table

from .crds import CONTEXT, References, write_cache
from .detector import DETECTORS, make_ramp, offset_position
from .observation import need_stdatamodels
from .reference_files import imaging_references, ramp_references
from .setups import TARGET_DEG, Setup, Shot, fill_header, save, write_uncal

EMPTY_DEG = (190.1, 1.25)

_NONSENSE_DN_S = 1e4


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


def one_star(flux_jy: float, place_deg: Sequence[float | np.ndarray] = TARGET_DEG) -> Table:
    """Return a table of one source: ``ra``, ``dec`` (deg), ``flux`` (Jy)."""
    ra, dec = map(float, place_deg)
    return Table({"ra": [ra], "dec": [dec], "flux": [flux_jy]})


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
        self._folder = Path(directory).absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._files: list[Path] = []
        self._is_uncal = uncal
        self.rng = np.random.default_rng(seed)

    def expose(
        self, setup: Setup, shot: Shot, light_dn_s: np.ndarray, *, bad: np.ndarray | None = None
    ) -> None:
        """Take one exposure of light, of one frame or of several integrations.

        Pixels that are ``bad`` hold nonsense, and are marked.
        """
        take = self._ramp if self._is_uncal else self._rate
        self._files.append(take(setup, shot, light_dn_s, bad))

    def _ramp(
        self, setup: Setup, shot: Shot, light_dn_s: np.ndarray, bad: np.ndarray | None
    ) -> Path:
        times = setup.exposure_s / setup.n_groups * np.arange(1, setup.n_groups + 1)
        counts = make_ramp(light_dn_s, setup.maps(), setup.electronics, times, self.rng)
        return write_uncal(self._folder, setup, shot, counts[None])

    def _rate(
        self, setup: Setup, shot: Shot, light_dn_s: np.ndarray, bad: np.ndarray | None
    ) -> Path:
        from stdatamodels.jwst import datamodels
        from stdatamodels.jwst.datamodels import dqflags

        is_cube = light_dn_s.ndim == 3
        n_ints = len(light_dn_s) if is_cube else 1
        frame = "IFUImageModel" if setup.exp_type.endswith("_MRS") else "ImageModel"
        variance = np.maximum(light_dn_s, 0) * n_ints / setup.exposure_s / setup.electronics.gain
        noise = np.sqrt(variance + setup.read_noise_dn_s**2)
        exposure = getattr(datamodels, "CubeModel" if is_cube else frame)(
            data=(light_dn_s + self.rng.normal(0, noise)).astype(np.float32)
        )
        exposure.err = noise.astype(np.float32)
        exposure.var_poisson = variance.astype(np.float32)
        exposure.var_rnoise = np.full(light_dn_s.shape, setup.read_noise_dn_s**2, np.float32)
        exposure.dq = np.zeros(light_dn_s.shape, np.uint32)
        if bad is not None:
            exposure.data[bad], exposure.dq[bad] = _NONSENSE_DN_S, dqflags.pixel["DO_NOT_USE"]
        fill_header(exposure, setup, shot, n_ints)
        if is_cube:
            exposure.int_times = _integration_times(setup, shot, n_ints)
        exposure.meta.cal_step.ramp_fit = exposure.meta.cal_step.jump = "COMPLETE"
        exposure.meta.bunit_data = exposure.meta.bunit_err = "DN/s"
        suffix = "rateints" if is_cube else "rate"
        return save(self._folder, exposure, f"{shot.root(setup)}_{suffix}.fits")

    def observation(self, setup: Setup, references: References, truth: Table) -> ModeObservation:
        """Write the references, and return what was taken."""
        crds = self._folder / "crds"
        write_cache(crds, setup.of_detector, references)
        return ModeObservation(self._files, crds, CONTEXT, truth)


def _integration_times(setup: Setup, shot: Shot, n_ints: int) -> np.ndarray:
    """Return the table of begin, middle and end of each integration, days."""
    numbers = np.arange(n_ints)
    edges = shot.start.mjd + np.arange(2 * n_ints + 1) * setup.exposure_s / 172800 / n_ints
    times = [edges[2 * numbers + part] for part in range(3)]
    # Light reaches the middle of the solar system later or sooner; here at the same time.
    names = [
        f"int_{k}_{frame}" for frame in ("MJD_UTC", "BJD_TDB") for k in ("start", "mid", "end")
    ]
    kinds = [("integration_number", "<i4"), *((name, "<f8") for name in names)]
    columns = (shot.first_integration + numbers, *times, *times)
    return np.array(list(zip(*columns, strict=True)), dtype=kinds)


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
