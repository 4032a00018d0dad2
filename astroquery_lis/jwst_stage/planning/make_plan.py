"""From what was asked for to a plan and the grid of its mosaics, without doing anything of it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame

from ...exceptions import (
    InvalidExposureError,
    InvalidRequestError,
    LegacySurveyWarning,
    meant,
    refuse,
    warn,
)
from ...survey.sphere import middle_of, shift_positions, tangent_axes, unit_vectors
from ..corrections import normalise, switches
from ..steps.parameters import check, for_task
from ..steps.recipes import PRESETS, read_recipe
from ..tasks import REFCATS
from .exposures import Exposure
from .pipelines import stage_classes
from .plan import Plan
from .plan_build import build
from .plan_inputs import choose, read_files
from .task_builder import configurations_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..._typing import FilePath
    from ..corrections import Correction
    from ..refs.references import Resolution
    from .associations import GroupBy
    from .rules import Association
    from .task_builder import StepsFor


def make_plan(
    files: FilePath | Sequence[FilePath] | Table,
    *,
    output_dir: FilePath | None = None,
    stages: int | Sequence[int] = (1, 2, 3),
    steps: Any = None,
    preset: str = "default",
    recipe: FilePath | None = None,
    corrections: Any = (),
    group_by: GroupBy | None = None,
    product_name: str | None = None,
    start: str = "uncal",
    abs_refcat: FilePath | None = None,
    wcs: Any = None,
    common_grid: bool | dict[str, float] = False,
    resolution: Resolution | None = None,
    check_associations: bool = True,
) -> Plan:
    """Return what there is to do, without doing it, without a network, and without `jwst`."""
    numbers = _checked_stages(stages)
    place = None if output_dir is None else os.path.abspath(os.path.expanduser(output_dir))
    inputs, associations, left_out = read_files(files, output_dir=place)
    for note in left_out:
        warn(note, LegacySurveyWarning)
    exposures, notes = choose(inputs, start, resolution=resolution)
    changes = normalise(corrections)
    steps_for, checked_steps = _step_layers(preset, recipe, steps, changes, exposures)
    refcat = _checked_refcat(abs_refcat)
    stage3_steps = _Stage3Steps(exposures, steps_for, wcs, common_grid, refcat)
    tasks, more = build(
        exposures,
        stages=numbers,
        steps_for=steps_for,
        corrections=changes,
        group_by=group_by,
        product_name=product_name,
        associations=associations,
        output_dir=place,
        stage3_steps=stage3_steps,
        check_associations=check_associations,
    )
    used = {root for task in tasks for root in task.exposures}
    used |= {path for task in tasks for path in task.inputs}
    exposures = [e for e in exposures if e.root in used or e.path in used]
    options = {
        "stages": list(numbers),
        "start": start,
        "preset": preset,
        "recipe": None if recipe is None else os.path.abspath(recipe),
        "steps": checked_steps,
        "corrections": [c.to_dict() for c in changes],
        "group_by": _plain(group_by),
        "product_name": product_name,
        "abs_refcat": refcat,
        "grid": stage3_steps.grid,
    }
    return Plan(
        exposures=tuple(exposures),
        tasks=tasks,
        configurations=configurations_of(exposures),
        options={k: v for k, v in options.items() if v not in (None, {}, [])},
        output_dir=place,
        notes=tuple(left_out + notes + more),
    )


def _plain(group_by: GroupBy | None) -> str | list[str] | None:
    if group_by is None or isinstance(group_by, str):
        return group_by
    if callable(group_by):
        return f"function {getattr(group_by, '__qualname__', repr(group_by))}"
    return list(group_by)


def _checked_stages(stages: int | Sequence[int]) -> tuple[int, ...]:
    numbers = (stages,) if isinstance(stages, int) else tuple(stages)
    if not numbers or not set(numbers) <= {1, 2, 3}:
        refuse("stages", stages, "must be some of 1, 2 and 3.")
    numbers = tuple(sorted(set(numbers)))
    if numbers == (1, 3):
        refuse("stages", stages, ": stage 3 begins from products of stage 2; add it.")
    return numbers


def _checked_refcat(abs_refcat: FilePath | None) -> str | None:
    if abs_refcat is None or abs_refcat in REFCATS:
        return abs_refcat
    path = os.path.abspath(os.path.expanduser(abs_refcat))
    if not os.path.isfile(path):
        msg = (
            f"abs_refcat={os.fspath(abs_refcat)!r} is none of {', '.join(map(repr, REFCATS))}, and "
            "not a file that is there."
        )
        raise InvalidRequestError(msg, parameter="abs_refcat", value=abs_refcat)
    return path


def _step_layers(
    preset: str,
    recipe: FilePath | None,
    steps: Any,
    corrections: tuple[Correction, ...],
    exposures: Sequence[Exposure],
) -> tuple[StepsFor, dict]:
    """Return a function that gives a pipeline's parameters, and the steps as they were checked."""
    if preset not in PRESETS:
        hint = meant(preset, PRESETS)
        refuse("preset", preset, f"is none of {', '.join(map(repr, PRESETS))}.{hint}")
    pipelines = sorted({name for e in exposures for name in stage_classes(e) if name})
    layers = [check(PRESETS[preset]["steps"], parameter="preset")]
    if recipe is not None:
        layers.append(read_recipe(recipe))
    if corrections:
        layers.append(check(switches(corrections), parameter="corrections"))
    checked = check(steps, pipelines) if steps else {}
    layers = [layer for layer in (*layers, checked) if layer]

    def steps_for(pipeline: str, members: Sequence[Exposure]) -> dict[str, dict]:
        return for_task(layers, pipeline, members) if layers else {}

    return steps_for, checked


_GRID = {"crval", "crpix", "output_shape", "output_wcs", "pixel_scale", "rotation"}


class _Stage3Steps:
    """The parameters that a plan itself adds to a mosaic: its grid and its reference catalogue."""

    def __init__(
        self,
        exposures: Sequence[Exposure],
        steps_for: StepsFor,
        wcs: Any,
        common: bool | dict[str, float],
        abs_refcat: str | None,
    ) -> None:
        self.abs_refcat = abs_refcat
        self.grid: dict[str, Any] = {}
        if wcs is None and not common:
            return
        if wcs is not None and common:
            msg = "wcs and common_grid both set the grid of the mosaics; give one of them."
            raise InvalidRequestError(msg, parameter="common_grid", value=common)
        images = [e for e in exposures if stage_classes(e)[2] == "Image3Pipeline"]
        asked: dict[str, Any] = {}
        for image in images:
            options = steps_for("Image3Pipeline", [image]).get("resample", {})
            asked |= {name: value for name, value in options.items() if value not in (None, "")}
        free = {"pixel_scale", "rotation"} if common else set()
        conflict = sorted(set(asked) & (_GRID - free))
        if conflict:
            name = "common_grid" if common else "wcs"
            msg = f"{name} sets the grid, and steps too: resample.{', resample.'.join(conflict)}."
            raise InvalidRequestError(msg, parameter=name, value=conflict)
        if wcs is not None:
            self.grid = grid_of_wcs(wcs)
            return
        values = {name: asked[name] for name in free if name in asked}
        values |= dict(common) if isinstance(common, dict) else {}
        if not set(values) <= free:
            refuse("common_grid", common, "may have 'pixel_scale' and 'rotation'.")
        self.grid = grid_of_exposures(images, **values)

    def __call__(self, group: Association) -> tuple[dict[str, dict], int | None]:
        if group.pipeline != "Image3Pipeline":
            return {}, None
        steps: dict[str, dict] = {}
        if self.grid:
            steps["resample"] = dict(self.grid)
        if self.abs_refcat in REFCATS:
            # Made by prefetch_references, below the output directory.
            name = f"refcat/{group.file_stem}_{self.abs_refcat}.ecsv"
            steps["tweakreg"] = {"abs_refcat": name}
        elif self.abs_refcat is not None:
            steps["tweakreg"] = {"abs_refcat": self.abs_refcat}
        return steps, n_pixels(group.exposures, self.grid)


_SCALES = {"SHORT": 0.0307, "LONG": 0.0629, "MIRI": 0.1109, "NIRISS": 0.0656, "FGS": 0.0691}
_MARGIN_PX = 4


def native_scale(exposure: Exposure) -> float | None:
    """Return the size of a pixel in arcsec."""
    if exposure.instrument == "NIRCAM":
        long = exposure.channel == "LONG" or exposure.detector.endswith("LONG")
        return _SCALES["LONG" if long else "SHORT"]
    return _SCALES.get(exposure.instrument)


def footprint(exposure: Exposure) -> np.ndarray | None:
    """Return the corners of an exposure on the sky."""
    words = exposure.s_region.upper().replace("ICRS", "").split()
    if words[:1] == ["POLYGON"] and len(words) >= 7:
        return np.array(words[1:], float).reshape(-1, 2)
    pointing, scale = exposure.pointing, native_scale(exposure)
    if scale is None or not {"RA_REF", "DEC_REF", "ROLL_REF"} <= set(pointing):
        return None
    ny, nx = exposure.shape
    x0, y0 = pointing.get("CRPIX1", (nx + 1) / 2), pointing.get("CRPIX2", (ny + 1) / 2)
    x = (np.array([0.5, nx + 0.5, nx + 0.5, 0.5]) - x0) * scale
    y = (np.array([0.5, 0.5, ny + 0.5, ny + 0.5]) - y0) * scale
    parity, angle = pointing.get("VPARITY", -1.0), math.radians(pointing.get("V3I_YANG", 0.0))
    v2 = parity * x * math.cos(angle) + y * math.sin(angle)
    v3 = -parity * x * math.sin(angle) + y * math.cos(angle)
    roll = math.radians(pointing["ROLL_REF"])
    east = v2 * math.cos(roll) + v3 * math.sin(roll)
    north = -v2 * math.sin(roll) + v3 * math.cos(roll)
    place = pointing["RA_REF"], pointing["DEC_REF"]
    return np.stack(shift_positions(*place, east / 3600, north / 3600), axis=-1)


def grid_of_exposures(
    exposures: Sequence[Exposure], *, pixel_scale: float | None = None, rotation: float = 0.0
) -> dict:
    """Return the grid that holds all exposures."""
    without = [e.path for e in exposures if footprint(e) is None]
    if without or not exposures:
        msg = f"common_grid: no footprint and no pointing in {', '.join(without) or 'no files'}."
        raise InvalidExposureError(msg, parameter="common_grid", value=without)
    scale = pixel_scale or min(native_scale(e) or math.inf for e in exposures)
    corners = np.concatenate([footprint(e) for e in exposures])
    ra, dec = middle_of(*corners.T)
    east, north = _tangent(ra, dec, corners)
    angle = math.radians(rotation)
    x = (-east * math.cos(angle) + north * math.sin(angle)) / scale
    y = (east * math.sin(angle) + north * math.cos(angle)) / scale
    x0, y0 = math.floor(x.min()) - _MARGIN_PX, math.floor(y.min()) - _MARGIN_PX
    return {
        "crval": [round(ra, 9), round(dec, 9)],
        "crpix": [float(-x0), float(-y0)],
        "pixel_scale": float(scale),
        "rotation": float(rotation),
        "output_shape": [
            math.ceil(x.max()) + _MARGIN_PX - x0 + 1,
            math.ceil(y.max()) + _MARGIN_PX - y0 + 1,
        ],
    }


def grid_of_wcs(wcs: Any) -> dict:
    """Return the grid of an image."""
    if isinstance(wcs, (str, os.PathLike)):
        path = os.path.abspath(os.path.expanduser(wcs))
        if not os.path.isfile(path):
            _refuse(wcs, "is not a file that is there")
        if Path(path).suffix == ".asdf":
            return {"output_wcs": path}
        wcs = _header_of(path)
    shape = None
    if isinstance(wcs, fits.Header):
        axes = [wcs.get(f"ZNAXIS{i}", wcs.get(f"NAXIS{i}")) for i in (2, 1)]
        shape = tuple(axes) if all(axes) else None
        wcs = WCS(wcs)
    if not isinstance(wcs, WCS):
        _refuse(wcs, "must be a WCS, a header, or the path of a FITS or .asdf file")
    shape = shape or wcs.array_shape
    wcs = wcs.celestial if wcs.naxis > 2 else wcs
    if shape is None:
        _refuse(wcs, "has no shape; set its array_shape")
    _check_tangential(wcs)
    matrix = wcs.pixel_scale_matrix
    scale = math.sqrt(abs(np.linalg.det(matrix)))
    rotation = math.atan2(matrix[0, 1], matrix[1, 1])
    expected = scale * np.array(
        [[-math.cos(rotation), math.sin(rotation)], [math.sin(rotation), math.cos(rotation)]]
    )
    if not np.allclose(matrix, expected, rtol=0, atol=1e-5 * scale):
        _refuse(wcs, "has pixels that are not square, or east to the right of north")
    center = SkyCoord(*wcs.wcs.crval, unit="deg", frame=wcs_to_celestial_frame(wcs)).icrs
    return {
        "crval": [float(center.ra.deg), float(center.dec.deg)],
        "crpix": [float(value) - 1 for value in wcs.wcs.crpix],
        "pixel_scale": scale * 3600,
        "rotation": math.degrees(rotation),
        "output_shape": [int(shape[-1]), int(shape[-2])],
    }


def n_pixels(exposures: Sequence[Exposure], grid: dict[str, Any] | None = None) -> int | None:
    """Return how many pixels the mosaic of some exposures has."""
    if grid and "output_shape" in grid:
        return math.prod(grid["output_shape"])
    if grid or any(footprint(e) is None for e in exposures):
        return None
    # The pipeline turns the grid to fit the exposures; north up would need more.
    roll = exposures[0].pointing.get("ROLL_REF", 0.0) + exposures[0].pointing.get("V3I_YANG", 0.0)
    return math.prod(grid_of_exposures(exposures, rotation=roll)["output_shape"])


def _refuse(wcs: Any, why: str) -> NoReturn:
    msg = f"wcs={type(wcs).__name__ if not isinstance(wcs, (str, os.PathLike)) else wcs!r} {why}."
    raise InvalidRequestError(msg, parameter="wcs", value=wcs)


def _check_tangential(wcs: WCS) -> None:
    types = [str(t) for t in wcs.wcs.ctype]
    if types != ["RA---TAN", "DEC--TAN"]:
        _refuse(wcs, f"has CTYPE {types}; resample makes RA---TAN, DEC--TAN. Give a gwcs as .asdf")
    distorted = wcs.sip is not None or wcs.cpdis1 is not None or wcs.det2im1 is not None
    if distorted:
        _refuse(wcs, "has distortions; give a gwcs as .asdf")
    if not math.isnan(wcs.wcs.lonpole) and wcs.wcs.lonpole not in (180.0, 999.0):
        _refuse(wcs, f"has LONPOLE={wcs.wcs.lonpole}; resample makes 180")


def _header_of(path: str) -> fits.Header:
    try:
        with fits.open(path) as hdul:
            for hdu in hdul:
                if hdu.header.get("NAXIS", 0) >= 2 and WCS(hdu.header, naxis=2).has_celestial:
                    return hdu.header
    except OSError as error:
        _refuse(path, f"cannot be read: {error}")
    return _refuse(path, "has no image with a celestial WCS")


_ARCSEC_PER_RADIAN = 180 / math.pi * 3600


def _tangent(ra_deg: float, dec_deg: float, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the tangential coordinates of positions, arcsec."""
    vectors = unit_vectors(*positions.T)
    east, north = tangent_axes(ra_deg, dec_deg)
    depth = vectors @ unit_vectors(ra_deg, dec_deg)
    return (
        vectors @ east / depth * _ARCSEC_PER_RADIAN,
        vectors @ north / depth * _ARCSEC_PER_RADIAN,
    )
