"""Exposures of any mode: what they share, their light, noise and headers; programs of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import Table
from astropy.time import Time, TimeDelta

from ..crds_files import CONTEXT, References, write_cache
from ..detector import (
    DETECTORS,
    Detector,
    Electronics,
    Maps,
    Pointing,
    first_pixel,
    make_ramp,
    offset_position,
)
from ..observation import need_stdatamodels
from ..scene import add_star

if TYPE_CHECKING:
    from stdatamodels.jwst.datamodels import JwstDataModel

TARGET_DEG = (190.0, 1.2)
EMPTY_DEG = (190.1, 1.25)
ROLL_DEG = 24.0
ELECTRONICS = Electronics(gain=5.5, read_noise_e=14.0, dark_e_s=0.0, linearity=4e-7)

_DATA = Path(__file__).parents[2] / "data"
_KEYWORDS, _MODES = _DATA / "nircam_keywords.json", _DATA / "jwst_modes.json"
_DETECTORS = {
    **DETECTORS,
    "MIRIMAGE": Detector("MIRIMAGE", "", "", 0.1108, -453.56, -373.81, 4.84, 493),
    "NIS": Detector("NIS", "", "", 0.0656, -289.97, -697.72, 0.57, 496),
}
_START = "2023-08-20T04:00:00.000"
_APART_S = 200.0
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


@dataclass(frozen=True, slots=True)
class Setup:
    """What the exposures of a mode share.

    ``instrument`` are the keywords of ``meta.instrument``; ``keywords`` are others, by their place
    below ``meta``.  The frame has ``shape`` and begins at ``first_pix`` (x, y, from 0) of the
    detector.  Stars are ``sigma_pix`` wide, and ``photmjsr`` is the MJy/sr of a DN/s.
    """

    exp_type: str
    instrument: Mapping[str, str]
    detector: Detector
    shape: tuple[int, int]
    first_pix: tuple[int, int]
    subarray: str
    photmjsr: float
    sigma_pix: float = 1.0
    exposure_s: float = 111.0
    read_noise_dn_s: float = 0.02
    keywords: Mapping[str, object] = field(default_factory=dict)

    @property
    def pixel_sr(self) -> float:
        """Solid angle of a pixel."""
        return float(np.radians(self.detector.scale_arcsec / 3600) ** 2)

    def pointing(self, place_deg: Sequence[float | np.ndarray], roll_deg: float) -> Pointing:
        """Return the pointing that brings a place of the sky to the middle of the frame."""
        x, y = (
            first + (size - 1) / 2
            for first, size in zip(self.first_pix, self.shape[::-1], strict=True)
        )
        v2, v3 = self.detector.to_v2v3(x, y)
        ra, dec = map(float, place_deg)
        return Pointing(float(v2), float(v3), ra, dec, roll_deg)

    def dithered(
        self, dither: tuple[float, float], target_deg: tuple[float, float] = TARGET_DEG
    ) -> Pointing:
        """Return the pointing some arcsec (east, north) from a target."""
        return self.pointing(offset_position(*target_deg, *dither), ROLL_DEG)

    def to_sky(self, pointing: Pointing, x_pix: float, y_pix: float) -> tuple[float, float]:
        """Return RA and Dec (deg) of a pixel of the frame, from 0."""
        v2v3 = self.detector.to_v2v3(x_pix + self.first_pix[0], y_pix + self.first_pix[1])
        ra, dec = pointing.to_sky(*v2v3)
        return float(ra), float(dec)

    def to_pixel(
        self, pointing: Pointing, ra_deg: float | np.ndarray, dec_deg: float | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y in pixels of the frame, from 0."""
        x, y = self.detector.from_v2v3(*pointing.from_sky(np.asarray(ra_deg), np.asarray(dec_deg)))
        return x - self.first_pix[0], y - self.first_pix[1]

    def flat(self) -> np.ndarray:
        """Return the response of the pixels."""
        ny, nx = self.shape
        y, x = np.mgrid[:ny, :nx]
        return 1 + 0.05 * (x / nx - 0.5) + 0.04 * (y / ny - 0.5) ** 2

    def image(self, pointing: Pointing, stars: Table, sky_mjysr: float | np.ndarray) -> np.ndarray:
        """Return the DN/s that the pixels see of stars and sky."""
        light = np.full(self.shape, sky_mjysr / self.photmjsr)
        self.add_stars(light, pointing, stars)
        return light * self.flat()

    def add_stars(self, light: np.ndarray, pointing: Pointing, stars: Table) -> None:
        """Add the DN/s of stars, ``ra`` and ``dec`` (deg) and ``flux`` (Jy), to a frame."""
        x, y = self.to_pixel(pointing, stars["ra"], stars["dec"])
        rates = np.array(stars["flux"]) * 1e-6 / (self.pixel_sr * self.photmjsr)
        for column, row, rate in zip(x, y, rates, strict=True):
            add_star(light, column, row, rate, self.sigma_pix)


def setup_of(mode: str) -> Setup:
    """Return the set-up of a mode; by default its frame is in the middle of the detector."""
    entry = json.loads(_MODES.read_text(encoding="utf-8"))[mode]
    shape = tuple(entry.pop("shape"))
    first = entry.pop("first_pix", [first_pixel(size) for size in reversed(shape)])
    detector = _DETECTORS[entry.pop("geometry")]
    return Setup(**entry, detector=detector, shape=shape, first_pix=tuple(first))


@dataclass(frozen=True, slots=True)
class Shot:
    """One exposure: its number in the program and in its pattern, and where it points.

    A long one has several ``segment`` files (0: it has not), of which each has some integrations
    from ``first_integration`` on.  ``days_later`` is when the exposure was taken.
    """

    number: int
    pointing: Pointing
    observation: str = "001"
    group: str = "02"
    target: str = "FIELD"
    is_background: bool = False
    segment: int = 0
    first_integration: int = 1
    days_later: float = 0.0
    keywords: Mapping[str, object] = field(default_factory=dict)

    def root(self, setup: Setup) -> str:
        """Return the name of the exposure."""
        visit = f"jw01234{self.observation}001_{self.group}101_{self.number:05d}"
        part = f"-seg{self.segment:03d}" if self.segment else ""
        return f"{visit}{part}_{setup.instrument['detector'].lower()}"


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


def write_exposure(
    folder: Path,
    setup: Setup,
    shot: Shot,
    light_dn_s: np.ndarray,
    rng: np.random.Generator,
    *,
    bad: np.ndarray | None = None,
) -> Path:
    """Write light, of one frame or of several integrations, with its noise.

    Pixels that are ``bad`` hold nonsense, and are marked.
    """
    from stdatamodels.jwst import datamodels
    from stdatamodels.jwst.datamodels import dqflags

    is_cube = light_dn_s.ndim == 3
    n_ints = len(light_dn_s) if is_cube else 1
    frame = "IFUImageModel" if setup.exp_type.endswith("_MRS") else "ImageModel"
    variance = np.maximum(light_dn_s, 0) * n_ints / setup.exposure_s / ELECTRONICS.gain
    noise = np.sqrt(variance + setup.read_noise_dn_s**2)
    exposure = getattr(datamodels, "CubeModel" if is_cube else frame)(
        data=(light_dn_s + rng.normal(0, noise)).astype(np.float32)
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
    exposure.meta.filename = f"{shot.root(setup)}_{'rateints' if is_cube else 'rate'}.fits"
    path = folder / exposure.meta.filename
    exposure.save(str(path))
    exposure.close()
    return path


def write_ramp(
    folder: Path, setup: Setup, shot: Shot, light_dn_s: np.ndarray, rng: np.random.Generator
) -> Path:
    """Write the ramp that light makes in one integration, with its noise."""
    from stdatamodels.jwst import datamodels

    shape = setup.shape
    nothing, nowhere = np.zeros(shape), np.zeros(shape, bool)
    linearity = np.full(shape, ELECTRONICS.linearity)
    maps = Maps(nothing, nothing, np.ones(shape), linearity, bad=nowhere, reference=nowhere)
    model = datamodels.Level1bModel()
    fill_header(model, setup, shot)
    exposure = model.meta.exposure
    times = exposure.group_time * np.arange(1, exposure.ngroups + 1)
    model.data = make_ramp(light_dn_s, maps, ELECTRONICS, times, rng)[None]
    model.meta.filename = f"{shot.root(setup)}_uncal.fits"
    path = folder / model.meta.filename
    model.save(str(path))
    model.close()
    return path


def fill_header(model: JwstDataModel, setup: Setup, shot: Shot, n_ints: int = 1) -> None:
    """Fill the keywords that the pipeline and its rules read."""
    for keyword, value in json.loads(_KEYWORDS.read_text(encoding="utf-8")).items():
        if keyword not in ("instrument.pupil", "instrument.pupil_imaging_lens"):
            model[f"meta.{keyword}"] = value
    meta = model.meta
    meta.observation.program_number = "01234"
    meta.observation.observation_number = shot.observation
    meta.observation.visit_group, meta.observation.exposure_number = shot.group, str(shot.number)
    meta.observation.bkgdtarg = shot.is_background
    meta.target.proposer_name = meta.target.catalog_name = shot.target
    meta.dither.position_number = shot.number
    _fill_times(model, setup, shot, n_ints)
    for keyword, value in setup.instrument.items():
        model[f"meta.instrument.{keyword}"] = value
    meta.exposure.type = setup.exp_type
    sub = meta.subarray
    sub.name, sub.fastaxis, sub.slowaxis = setup.subarray, 1, 2
    sub.xstart, sub.ystart = (first + 1 for first in setup.first_pix)
    sub.ysize, sub.xsize = setup.shape
    wcs, pointing = meta.wcsinfo, shot.pointing
    wcs.ra_ref, wcs.dec_ref = wcs.crval1, wcs.crval2 = pointing.ra_deg, pointing.dec_deg
    wcs.v2_ref, wcs.v3_ref = pointing.v2_arcsec, pointing.v3_arcsec
    wcs.roll_ref, wcs.v3yangle = pointing.roll_deg, setup.detector.angle_deg
    wcs.crpix2, wcs.crpix1 = ((size + 1) / 2 for size in setup.shape)
    for keyword, value in {**setup.keywords, **shot.keywords}.items():
        model[f"meta.{keyword}"] = value


def _start(setup: Setup, shot: Shot) -> Time:
    begun = (shot.number - 1) * _APART_S
    if shot.segment:
        begun += (shot.segment - 1) * setup.exposure_s
    return Time(_START) + TimeDelta(begun + 86400 * shot.days_later, format="sec")


def _integration_times(setup: Setup, shot: Shot, n_ints: int) -> np.ndarray:
    """Return the table of begin, middle and end of each integration, days."""
    numbers = np.arange(n_ints)
    edges = _start(setup, shot).mjd + np.arange(2 * n_ints + 1) * setup.exposure_s / 172800 / n_ints
    times = [edges[2 * numbers + part] for part in range(3)]
    # Light reaches the middle of the solar system later or sooner; here at the same time.
    columns = {"integration_number": shot.first_integration + numbers}
    for frame in ("MJD_UTC", "BJD_TDB"):
        columns |= {
            f"int_{k}_{frame}": t for k, t in zip(("start", "mid", "end"), times, strict=True)
        }
    kinds = [(name, "<i4" if name == "integration_number" else "<f8") for name in columns]
    return np.array(list(zip(*columns.values(), strict=True)), dtype=kinds)


def _fill_times(model: JwstDataModel, setup: Setup, shot: Shot, n_ints: int) -> None:
    meta, timing = model.meta, model.meta.exposure
    start = _start(setup, shot)
    end = start + TimeDelta(setup.exposure_s, format="sec")
    meta.observation.date, meta.observation.time = start.isot.split("T")
    meta.observation.date_beg, meta.observation.date_end = start.isot, end.isot
    timing.start_time, timing.end_time = start.mjd, end.mjd
    timing.mid_time = (start.mjd + end.mjd) / 2
    timing.nints, timing.integration_start = n_ints, shot.first_integration
    timing.integration_end = shot.first_integration + n_ints - 1
    if shot.segment:
        timing.segment_number = shot.segment
    timing.ngroups = 40
    timing.integration_time = setup.exposure_s / n_ints
    timing.frame_time = timing.group_time = timing.integration_time / 40
    timing.exposure_time = timing.effective_exposure_time = setup.exposure_s
    timing.measurement_time = setup.exposure_s


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
        """Take one exposure of light, of one frame or of several integrations."""
        where = self._folder, setup, shot, light_dn_s, self.rng
        self._files.append(
            write_ramp(*where) if self._is_uncal else write_exposure(*where, bad=bad)
        )

    def observation(
        self, instrument: Mapping[str, str], references: References, truth: Table
    ) -> ModeObservation:
        """Write the references, and return what was taken."""
        crds = self._folder / "crds"
        write_cache(crds, dict(instrument), references)
        return ModeObservation(self._files, crds, CONTEXT, truth)
