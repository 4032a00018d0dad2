"""MIRI imaging of a bright sky, with exposures of an empty field to subtract."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table
from astropy.time import Time, TimeDelta

from ..detector import Detector, Pointing, first_pixel, offset_position
from ..observation import need_stdatamodels
from ..references import CONTEXT, PARAMETERS
from ..scene import add_star
from .cache import ModeObservation, Reference, write_cache

if TYPE_CHECKING:
    from stdatamodels.jwst.datamodels import ImageModel

__all__ = ["simulate_background"]

_IMAGER = Detector("MIRIMAGE", "", "", 0.1108, -453.56, -373.81, 4.84, 493)
_INSTRUMENT = {"name": "MIRI", "detector": "MIRIMAGE"}
_FILTER, _SUBARRAY = "F770W", "SUB128"
_SIZE = 96
_SIGMA_PIX = 1.1
_PHOTMJSR = 0.5
_SKY_MJYSR = 24.0
_READ_DN_S = 0.02
_TARGET, _EMPTY = (190.0, 1.2), (190.1, 1.25)
_ROLL_DEG = 24.0
_START = "2023-08-20T04:00:00.000"
_EXPOSURE_S = 111.0
_DITHERS = ((0.0, 0.0), (0.9, 0.4), (-0.5, 0.8), (0.3, -0.9))
_KEYWORDS = Path(__file__).parents[2] / "data" / "nircam_keywords.json"
_PIXEL_SR = float(np.radians(_IMAGER.scale_arcsec / 3600) ** 2)


def simulate_background(directory: str | PathLike[str], *, seed: int = 7) -> ModeObservation:
    """Simulate four dithers of a field of stars, and two exposures of a background target.

    Parameters
    ----------
    directory : path-like
        Where files are written.
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
    need_stdatamodels()
    folder = Path(directory).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    stars = _stars(rng)
    rates = []
    for number in range(6):
        is_background = number >= len(_DITHERS)
        step = _DITHERS[number % len(_DITHERS)]
        place = offset_position(*(_EMPTY if is_background else _TARGET), *step)
        pointing = Pointing(*_reference_v2v3(), float(place[0]), float(place[1]), _ROLL_DEG)
        light = _sky() / _PHOTMJSR
        if not is_background:
            _add_stars(light, stars, pointing)
        rates.append(_write_rate(folder, number, light * _flat(), pointing, is_background, rng))
    crds = folder / "crds"
    write_cache(crds, _INSTRUMENT, _references())
    stars.meta["sky_mjysr"] = _sky()
    return ModeObservation(rates, crds, CONTEXT, stars)


def _stars(rng: np.random.Generator) -> Table:
    """Return bright stars on a grid, far enough from one another to be measured."""
    steps = np.arange(-2.4, 2.5, 1.6)
    east, north = (axis.ravel() for axis in np.meshgrid(steps, steps))
    east, north = east + rng.uniform(-0.2, 0.2, 16), north + rng.uniform(-0.2, 0.2, 16)
    places = [offset_position(*_TARGET, e, n) for e, n in zip(east, north, strict=True)]
    ra, dec = np.array(places, float).T
    # The sky under a star of a beam is some tens of per cent of its light.
    flux = 10 ** rng.uniform(-4.5, -4.0, 16)
    return Table({"ra": ra, "dec": dec, "flux": flux})


def _sky() -> np.ndarray:
    """Return the light of telescope and zodiac, MJy/sr."""
    y, x = np.mgrid[:_SIZE, :_SIZE] / _SIZE - 0.5
    return _SKY_MJYSR * (1 + 0.3 * x - 0.2 * y + 0.1 * np.sin(9 * x) * np.cos(7 * y))


def _flat() -> np.ndarray:
    y, x = np.mgrid[:_SIZE, :_SIZE] / _SIZE - 0.5
    return 1 + 0.05 * x + 0.04 * y**2


def _reference_v2v3() -> tuple[float, float]:
    centre = first_pixel(_SIZE) + (_SIZE - 1) / 2
    v2, v3 = _IMAGER.to_v2v3(centre, centre)
    return float(v2), float(v3)


def _add_stars(light: np.ndarray, stars: Table, pointing: Pointing) -> None:
    x, y = _IMAGER.from_v2v3(*pointing.from_sky(np.array(stars["ra"]), np.array(stars["dec"])))
    rates = np.array(stars["flux"]) * 1e-6 / (_PIXEL_SR * _PHOTMJSR)
    for column, row, rate in zip(
        x - first_pixel(_SIZE), y - first_pixel(_SIZE), rates, strict=True
    ):
        add_star(light, column, row, rate, _SIGMA_PIX)


def _write_rate(
    folder: Path,
    number: int,
    light: np.ndarray,
    pointing: Pointing,
    is_background: bool,
    rng: np.random.Generator,
) -> Path:
    from stdatamodels.jwst import datamodels

    variance = light / _EXPOSURE_S / 5.5
    data = light + rng.normal(0, np.sqrt(variance + _READ_DN_S**2))
    model = datamodels.ImageModel(data=data.astype(np.float32))
    model.err = np.sqrt(variance + _READ_DN_S**2).astype(np.float32)
    model.var_poisson = variance.astype(np.float32)
    model.var_rnoise = np.full(light.shape, _READ_DN_S**2, np.float32)
    model.dq = np.zeros(light.shape, np.uint32)
    _fill_header(model, number, pointing, is_background)
    path = folder / str(model.meta.filename)
    model.save(str(path))
    model.close()
    return path


def _fill_header(model: ImageModel, number: int, pointing: Pointing, is_background: bool) -> None:
    for keyword, value in json.loads(_KEYWORDS.read_text(encoding="utf-8")).items():
        if keyword not in ("instrument.pupil", "instrument.pupil_imaging_lens"):
            model[f"meta.{keyword}"] = value
    meta = model.meta
    observation = "002" if is_background else "001"
    root = f"jw01234{observation}001_02101_{number + 1:05d}_mirimage"
    meta.filename = f"{root}_rate.fits"
    meta.observation.program_number, meta.observation.observation_number = "01234", observation
    meta.observation.visit_group, meta.observation.exposure_number = "02", str(number + 1)
    meta.observation.template = "MIRI Imaging"
    meta.observation.bkgdtarg = is_background
    meta.target.proposer_name = "EMPTY" if is_background else "FIELD"
    meta.target.catalog_name = meta.target.proposer_name
    start = Time(_START) + TimeDelta(number * 200.0, format="sec")
    meta.observation.date, meta.observation.time = start.isot.split("T")
    meta.observation.date_beg = start.isot
    end = start + TimeDelta(_EXPOSURE_S, format="sec")
    meta.observation.date_end = end.isot
    meta.exposure.start_time, meta.exposure.end_time = start.mjd, end.mjd
    meta.exposure.mid_time = (start.mjd + end.mjd) / 2
    meta.instrument.name, meta.instrument.detector = "MIRI", "MIRIMAGE"
    meta.instrument.filter = _FILTER
    meta.exposure.type, meta.exposure.readpatt = "MIR_IMAGE", "FASTR1"
    meta.exposure.nints, meta.exposure.ngroups = 1, 40
    meta.exposure.frame_time = meta.exposure.group_time = 2.775
    meta.exposure.exposure_time = meta.exposure.effective_exposure_time = _EXPOSURE_S
    meta.exposure.measurement_time = meta.exposure.integration_time = _EXPOSURE_S
    meta.subarray.name, meta.subarray.fastaxis, meta.subarray.slowaxis = _SUBARRAY, 1, 2
    meta.subarray.xstart = meta.subarray.ystart = first_pixel(_SIZE) + 1
    meta.subarray.xsize = meta.subarray.ysize = _SIZE
    meta.dither.primary_type = "4-POINT-SETS"
    meta.dither.position_number = number + 1
    meta.cal_step.ramp_fit = meta.cal_step.jump = "COMPLETE"
    model.meta.bunit_data = model.meta.bunit_err = "DN/s"
    wcs = meta.wcsinfo
    wcs.ra_ref, wcs.dec_ref = pointing.ra_deg, pointing.dec_deg
    wcs.v2_ref, wcs.v3_ref = pointing.v2_arcsec, pointing.v3_arcsec
    wcs.roll_ref, wcs.v3yangle = pointing.roll_deg, _IMAGER.angle_deg
    wcs.crpix1 = wcs.crpix2 = (_SIZE + 1) / 2
    wcs.crval1, wcs.crval2 = pointing.ra_deg, pointing.dec_deg


def _references() -> dict[str, Reference]:
    references = {
        "flat": Reference("FlatModel", _fill_flat),
        "photom": Reference("MirImgPhotomModel", _fill_photom),
        "distortion": Reference("DistortionModel", _fill_distortion),
        "filteroffset": Reference("FilteroffsetModel", _fill_filteroffset),
        "apcorr": Reference("MirImgApcorrModel", _fill_apcorr),
        "abvegaoffset": Reference("ABVegaOffsetModel", _fill_abvegaoffset),
    }
    for kind, (step, values) in PARAMETERS.items():
        if kind != "pars-jumpstep":
            references[kind] = Reference(step=step, parameters=values)
    return references


def _fill_flat(model: Any) -> None:
    model.data = _flat().astype(np.float32)
    model.err = np.full(model.data.shape, 1e-3, np.float32)
    model.dq = np.zeros(model.data.shape, np.uint32)
    first = first_pixel(_SIZE) + 1
    model.meta.subarray = {
        "name": _SUBARRAY, "xstart": first, "ystart": first, "xsize": _SIZE, "ysize": _SIZE,
        "fastaxis": 1, "slowaxis": 2,
    }  # fmt: skip


def _fill_photom(model: Any) -> None:
    kinds = [("filter", "S12"), ("subarray", "S15"), ("photmjsr", "<f4"), ("uncertainty", "<f4")]
    rows = [(_FILTER, name, _PHOTMJSR, 0.01 * _PHOTMJSR) for name in (_SUBARRAY, "GENERIC")]
    model.phot_table = np.array(rows, dtype=kinds)
    model.meta.photometry.pixelarea_steradians = _PIXEL_SR
    model.meta.photometry.pixelarea_arcsecsq = _IMAGER.scale_arcsec**2
    model.meta.exposure.type = "MIR_IMAGE"


def _fill_distortion(model: Any) -> None:
    import astropy.units as u

    model.model = _IMAGER.transform()
    model.meta.input_units, model.meta.output_units = u.pix, u.arcsec
    model.meta.exposure.type, model.meta.exposure.p_exptype = "MIR_IMAGE", "MIR_IMAGE|"
    model.meta.title = "Simulated distortion"


def _fill_filteroffset(model: Any) -> None:
    model.filters = [{"filter": _FILTER, "column_offset": 0.0, "row_offset": 0.0}]
    model.meta.exposure.type = "MIR_IMAGE"


def _fill_apcorr(model: Any) -> None:
    sigma = np.sqrt(_SIGMA_PIX**2 + 4 / 12)
    fractions = np.arange(1, 10) / 10
    radii = sigma * np.sqrt(-2 * np.log(1 - fractions))
    rows = [
        (_FILTER, name, fraction, radius, 1 / fraction, 5.0, 7.0)
        for name in (_SUBARRAY, "GENERIC")
        for fraction, radius in zip(fractions, radii, strict=True)
    ]
    numbers = ("eefraction", "radius", "apcorr", "skyin", "skyout")
    kinds = [("filter", "S12"), ("subarray", "S15"), *((column, "<f4") for column in numbers)]
    model.apcorr_table = np.array(rows, dtype=kinds)
    model.meta.exposure.type = "MIR_IMAGE"


def _fill_abvegaoffset(model: Any) -> None:
    model.abvega_offset = Table({"filter": [_FILTER], "abvega_offset": [-4.4]})
