"""One exposure: when it was taken, where it points, and the header that says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.time import Time, TimeDelta

from .detector import Pointing
from .setups import Setup

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

    It begins ``start_s`` after all began, by default some time after the number before.  A long one
    has several ``segment`` files (0: it has not), of which each has some integrations from
    ``first_integration`` on.
    """

    number: int
    pointing: Pointing
    start_s: float | None = None
    program: int = 1234
    observation: str = "001"
    group: str = "02"
    target: str = "FIELD"
    is_background: bool = False
    segment: int = 0
    first_integration: int = 1
    keywords: Mapping[str, object] = field(default_factory=dict)

    @property
    def start(self) -> Time:
        """When it begins."""
        start_s = (self.number - 1) * _APART_S if self.start_s is None else self.start_s
        return Time(START, scale="utc") + TimeDelta(start_s, format="sec")

    def root(self, setup: Setup) -> str:
        """Return the name of the exposure."""
        visit = f"jw{self.program:05d}{self.observation}001_{self.group}101_{self.number:05d}"
        part = f"-seg{self.segment:03d}" if self.segment else ""
        return f"{visit}{part}_{setup.instrument['detector'].lower()}"


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


def frame_keywords(setup: Setup) -> dict[str, object]:
    """Return the keywords that say which part of the detector is read."""
    (x, y), (ny, nx) = setup.first_pix, setup.shape
    return {
        "name": setup.subarray, "xstart": x + 1, "ystart": y + 1, "xsize": nx, "ysize": ny,
        "fastaxis": setup.fastaxis, "slowaxis": 2,
    }  # fmt: skip


def _times(setup: Setup, shot: Shot, n_ints: int) -> dict[str, object]:
    """Return the keywords that say when and how long light was taken."""
    begin, duration = shot.start.mjd, setup.exposure_s
    integration, middle = duration / n_ints, begin + duration / 172800
    group = integration / setup.n_groups
    times = {
        "start_time": begin, "mid_time": middle, "end_time": begin + duration / 86400,
        "start_time_mjd": begin, "mid_time_mjd": middle, "end_time_mjd": begin + duration / 86400,
        "nints": n_ints, "ngroups": setup.n_groups, "frame_time": group, "group_time": group,
        "integration_start": shot.first_integration,
        "integration_end": shot.first_integration + n_ints - 1,
        "integration_time": integration,
    }  # fmt: skip
    names = ("exposure_time", "effective_exposure_time", "measurement_time", "duration")
    segment = {"segment_number": shot.segment} if shot.segment else {}
    return {**times, **dict.fromkeys((*names, "elapsed_exposure_time"), duration), **segment}


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
