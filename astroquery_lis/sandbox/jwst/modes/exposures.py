"""Programs of exposures of any mode, as count rates or as ramps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from astropy.table import Table

from ..crds_files import CONTEXT, References, write_cache
from ..detector import make_ramp, offset_position
from ..headers import Shot, fill_header, save, write_uncal
from ..observation import need_stdatamodels
from ..setups import TARGET_DEG, Setup

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
