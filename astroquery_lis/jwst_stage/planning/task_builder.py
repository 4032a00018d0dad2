"""The tasks of a plan, one after another, what they take, and what each exposure has come to."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..tasks import REFCATS, Estimate, Member, Task
from .association_files import unique_ids
from .grids import n_pixels
from .pipelines import EXP_TYPES, STAGE3_SUFFIXES, is_guider, is_integrations, stage_classes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ..corrections import Correction
    from ..refs.references import Resolution
    from .exposures import Exposure
    from .plan import Plan
    from .rules import Association

    StepsFor = Callable[[str, Sequence[Exposure]], dict[str, dict]]


_TIME = "META.OBSERVATION.TIME"


def configuration_key(exposure: Exposure) -> str:
    """Return the name of the set-up that decides on reference files, without the time of day."""
    values = [v for k, v in exposure.parameters.items() if k not in _SEPARATE]
    values.append(exposure.parameters.get("META.OBSERVATION.DATE", ""))
    words = (re.sub(r"[^a-z0-9-]+", "_", str(v).lower()) for v in values)
    return ".".join(word for word in words if word)


_SEPARATE = ("META.OBSERVATION.DATE", _TIME)


def configurations_of(exposures: Sequence[Exposure]) -> dict[str, dict]:
    """Return the distinct set-ups: CRDS parameters, with the earliest time of the day."""
    configurations: dict[str, dict] = {}
    for exposure in exposures:
        key = configuration_key(exposure)
        earliest = configurations.get(key)
        if earliest is None or exposure.parameters.get(_TIME, "") < earliest.get(_TIME, ""):
            configurations[key] = dict(exposure.parameters)
    return configurations


class TaskBuilder:
    """The tasks so far, and the product that each exposure has come to."""

    def __init__(
        self,
        exposures: Sequence[Exposure],
        *,
        stages: Sequence[int],
        steps_for: StepsFor,
        corrections: Sequence[Correction],
        output_dir: str | None,
        grid: dict[str, Any],
        abs_refcat: str | None,
        spectra: Iterable[str] = (),
    ) -> None:
        self.by_root = {e.root: e for e in exposures}
        self.spectra = frozenset(spectra)
        self.stages = stages
        self.steps_for = steps_for
        self.corrections = corrections
        self.output_dir = output_dir
        self.grid = grid
        self.abs_refcat = abs_refcat
        self.tasks: list[Task] = []
        self.names: set[str] = set()
        self.current = {e.root: e.path for e in exposures}
        self.calibrated: dict[str, str] = {}
        self.level = {e.root: e.level for e in exposures}
        self.notes: list[str] = []
        self.problems: list[str] = []

    def add(self, task: Task, roots: Iterable[str]) -> None:
        """Add a task, whose product is what some exposures have come to."""
        if task.name in self.names:
            self.problems.append(f"two tasks would make {task.name}")
            return
        self.names.add(task.name)
        self.tasks.append(task)
        for root in roots:
            self.current[root] = task.name

    def reach(self, exposure: Exposure, level: str, product: str) -> bool:
        """Go on from a product that is not planned: an earlier run has to have left it."""
        root = exposure.root
        if self.output_dir is not None:
            path = os.path.join(self.output_dir, product)
            if os.path.exists(path):
                self.current[root] = os.path.abspath(path)
                self.level[root] = level
                return True
        stage = 1 if level == "rate" else 2
        self.problems.append(
            f"{Path(exposure.path).name} has to go through stage {stage} first, and {product} is "
            "not in the output directory"
        )
        return False

    def correct(self, exposure: Exposure, stage: int, *points: str) -> None:
        """Add the corrections at some points of the chain, those of the first point first."""
        for correction in [c for point in points for c in self.corrections if c.point == point]:
            if correction.applies(exposure):
                name = f"stage{stage}/{exposure.root}_{correction.suffix}.fits"
                estimate = stage2_estimate(exposure, resample=False)
                task = Task(
                    name=name,
                    stage=stage,
                    kind="correction",
                    inputs=(self.current[exposure.root],),
                    outputs=(name,),
                    corrections=(correction.to_dict(),),
                    exposures=(exposure.root,),
                    configuration=configuration_key(exposure),
                    estimate=estimate,
                )
                self.add(task, [exposure.root])

    def stage1(self, exposure: Exposure) -> None:
        """Add the count rates of an exposure, and the corrections after them."""
        pipeline = stage_classes(exposure)[0]
        root = exposure.root
        if self.level[root] != "uncal":
            if self.level[root] == "rate":
                self.correct(exposure, 1, "after_rate")
            return
        outputs = _stage1_outputs(exposure, pipeline)
        if 1 not in self.stages:
            self.reach(exposure, "cal" if is_guider(exposure.exp_type) else "rate", outputs[0])
            return
        within = [
            c.to_dict() for c in self.corrections if c.point == "after_jump" and c.applies(exposure)
        ]
        task = Task(
            name=outputs[0],
            stage=1,
            pipeline=pipeline,
            inputs=(exposure.path,),
            outputs=outputs,
            steps=self.steps_for(pipeline, [exposure]),
            corrections=tuple(within) if pipeline == "Detector1Pipeline" else (),
            exposures=(root,),
            configuration=configuration_key(exposure),
            estimate=stage1_estimate(exposure),
        )
        self.add(task, [root])
        self.level[root] = "rate" if pipeline == "Detector1Pipeline" else "end"
        if self.level[root] == "rate":
            self.correct(exposure, 1, "after_rate")

    def stage2(
        self, exposure: Exposure, members: Sequence[Member], association: dict[str, Any]
    ) -> None:
        """Add the calibration of an exposure, with members beside it or without."""
        root = exposure.root
        pipeline = "Spec2Pipeline" if "spec2" in association["asn_type"] else "Image2Pipeline"
        ints = is_integrations(exposure)
        name = f"stage2/{root}_{'calints' if ints else 'cal'}.fits"
        steps = self.steps_for(pipeline, [exposure])
        resample = not steps.get("resample", {}).get("skip", False)
        listed = (Member(self.current[root]), *members) if members else ()
        inputs = dict.fromkeys([self.current[root], *(m.input for m in listed)])
        if exposure.msa_file:
            inputs[exposure.msa_file] = None
        self.calibrated[root] = name
        task = Task(
            name=name,
            stage=2,
            pipeline=pipeline,
            inputs=tuple(inputs),
            outputs=(name, self._spectrum(exposure)) if root in self.spectra else (name,),
            steps=steps,
            association=association if listed else {},
            members=listed,
            exposures=(root,),
            configuration=configuration_key(exposure),
            estimate=stage2_estimate(exposure, resample=resample, integrations=ints),
        )
        self.add(task, [root])
        self.level[root] = "cal"

    def _spectrum(self, exposure: Exposure) -> str:
        suffix = "x1dints" if is_integrations(exposure) else "x1d"
        return f"stage2/{exposure.root}_{suffix}.fits"

    def stage3_member(self, exposure: Exposure, role: str, group_id: str = "") -> Member:
        """Return a member of a product; a background of stage 3 is a spectrum."""
        current = self.current[exposure.root]
        if role != "background":
            return Member(current, role, group_id)
        spectrum = self._spectrum(exposure)
        if exposure.root in self.calibrated:
            return Member(self.calibrated[exposure.root], role, file=spectrum)
        path = os.path.join(os.path.dirname(current), os.path.basename(spectrum))
        if not os.path.exists(path):
            self.problems.append(f"{path}, the spectrum of a background, is not there")
        return Member(path, role)

    def stage3(self, group: Association, association: dict[str, Any]) -> Task:
        """Add a product of several exposures."""
        is_mosaic = group.pipeline == "Image3Pipeline"
        ids = unique_ids(group.exposures) if is_mosaic else {}
        if ids:
            self.notes.append(
                f"{group.file_stem}: exposures share the exposure id of the header; they are told "
                f"apart as {', '.join(sorted(set(ids.values())))} in the association."
            )
        self.notes += [f"{group.file_stem}: {why}." for why in _shortcomings(group)]
        members = tuple(
            self.stage3_member(e, role, ids.get(e.root, "")) for e, role in group.members
        )
        steps = self.steps_for(group.pipeline, group.exposures)
        output_pixels = None
        if is_mosaic:
            output_pixels = n_pixels(group.exposures, self.grid)
            for step, values in self._mosaic_steps(group).items():
                steps[step] = {**values, **steps.get(step, {})}
        outputs = _stage3_outputs(group, steps)
        task = Task(
            name=outputs[0],
            stage=3,
            pipeline=group.pipeline,
            inputs=tuple(dict.fromkeys(m.input for m in members)),
            outputs=outputs,
            steps=steps,
            association=association,
            members=members,
            exposures=tuple(dict.fromkeys(e.root for e in group.exposures)),
            configuration=configuration_key(group.exposures[0]),
            estimate=stage3_estimate(group.exposures, output_pixels=output_pixels),
        )
        self.add(task, [])
        return task

    def _mosaic_steps(self, group: Association) -> dict[str, dict]:
        """Return the parameters that a plan itself adds: the grid and the reference catalogue."""
        steps = {"resample": self.grid} if self.grid else {}
        if self.abs_refcat is not None:
            # That of a kind is made by prefetch_references, below the output directory.
            is_kind = self.abs_refcat in REFCATS
            made = f"refcat/{group.file_stem}_{self.abs_refcat}.ecsv"
            steps["tweakreg"] = {"abs_refcat": made if is_kind else self.abs_refcat}
        return steps


def _shortcomings(group: Association) -> list[str]:
    """Return what the pipeline will not do with a group, and does not say before."""
    notes = []
    slitless = [e for e in group.exposures if EXP_TYPES[e.exp_type].is_slitless]
    if lacking := [e.root for e in slitless if not e.s_region]:
        notes.append(
            f"{', '.join(lacking)} have no S_REGION in their headers; Spec3Pipeline fails at its "
            "end without"
        )
    roles = Counter(role for _, role in group.members)
    if group.pipeline == "Ami3Pipeline" and roles["psf"] and max(roles.values()) > 1:
        notes.append(
            f"Ami3Pipeline compares {roles['science']} exposures of the target and {roles['psf']} "
            "of the star in pairs, as far as they go, under one name: only the last pair stays; "
            "the fringes of each exposure are in its own file"
        )
    return notes


def _stage1_outputs(exposure: Exposure, pipeline: str) -> tuple[str, ...]:
    root = f"stage1/{exposure.root}"
    if pipeline == "DarkPipeline":
        return (f"{root}_dark.fits",)
    if pipeline == "GuiderPipeline":
        return (f"{root}_cal.fits",)
    if is_integrations(exposure):
        return (f"{root}_rateints.fits", f"{root}_rate.fits")
    if exposure.n_ints > 1:
        return (f"{root}_rate.fits", f"{root}_rateints.fits")
    return (f"{root}_rate.fits",)


def _stage3_outputs(group: Association, steps: Mapping[str, Mapping]) -> tuple[str, ...]:
    stem = f"stage3/{group.file_stem}"
    skipped = {name for name, values in steps.items() if values.get("skip")}
    if group.pipeline == "WfsCombineStep":
        return (f"{stem}.fits",)
    if group.pipeline == "Tso3Pipeline":
        is_image = stage_classes(group.exposures[0])[1] == "Image2Pipeline"
        step, suffix = _MAKING_SERIES["image" if is_image else "spectra"]
        return (f"{stem}_asn.json", *(() if step in skipped else (f"{stem}_{suffix}",)))
    suffixes: tuple[str, ...] = STAGE3_SUFFIXES.get(group.pipeline, ())
    if group.pipeline == "Ami3Pipeline" and not any(role == "psf" for _, role in group.members):
        suffixes = ()
    if group.pipeline == "Spec3Pipeline":
        kinds = {EXP_TYPES[e.exp_type] for e, role in group.members if role == "science"}
        suffixes = next(iter(kinds)).spectra if len(kinds) == 1 else ()
        suffixes = () if skipped & _MAKING_SPECTRA else suffixes
    # How many files, and under which names, is known only when the sources are.
    return tuple(f"{stem}_{suffix}" for suffix in suffixes) or (f"{stem}_asn.json",)


_MAKING_SERIES = {
    "image": ("tso_photometry", "phot.ecsv"),
    "spectra": ("extract_1d", "x1dints.fits"),
}
_MAKING_SPECTRA = {"extract_1d", "resample_spec", "combine_1d"}


_FULL = 2048 * 2048
_RATE_BYTES = 20
"""Per pixel of a rate file: SCI, ERR, DQ and two variances."""
_CAL_BYTES = 28
"""Per pixel of a cal, crf or i2d file."""
_SEGMENT_BYTES = 4
_INTERPRETER_GB = 0.4
_IFU = ("MIR_MRS", "NRS_IFU")
_CUBE_BYTES = 75
"""Per pixel of the detector of the cubes that are made of it."""


def _stage1_memory_gb(uncal_bytes: int, dark_bytes: int = 0) -> float:
    """Return the highest memory of stage 1: the jump step's, or that of a long dark."""
    return _INTERPRETER_GB + max(30 * uncal_bytes, dark_bytes + 10 * uncal_bytes) / 1e9


def stage1_estimate(exposure: Exposure, *, dark_bytes: int = 0) -> Estimate:
    """Return what stage 1 of an exposure needs."""
    frames = math.prod(exposure.shape) / _FULL
    images = 1 + (exposure.n_ints if exposure.n_ints > 1 else 0)
    return Estimate(
        seconds=round(5 + (15 + 3.3 * exposure.n_groups * exposure.n_ints) * frames, 1),
        memory_gb=round(_stage1_memory_gb(exposure.size_bytes, dark_bytes), 3),
        disk_gb=round(images * _RATE_BYTES * math.prod(exposure.shape) / 1e9, 4),
    )


def stage2_estimate(
    exposure: Exposure, *, resample: bool = True, integrations: bool = False
) -> Estimate:
    """Return what stage 2 of an exposure needs."""
    images = exposure.n_ints if integrations else 1
    pixels = math.prod(exposure.shape)
    cal_gb = images * _CAL_BYTES * pixels / 1e9
    if exposure.exp_type in _IFU:
        return Estimate(
            seconds=round(5 + 70 * pixels / _FULL, 1),
            memory_gb=round(_INTERPRETER_GB + 460 * pixels / 1e9, 3),
            disk_gb=round(cal_gb + _CUBE_BYTES * pixels / 1e9, 4),
        )
    resample = resample and not integrations
    return Estimate(
        seconds=round(2 + (3 + 12 * resample) * images * pixels / _FULL, 1),
        memory_gb=round(_INTERPRETER_GB + (5 if resample else 1.5) * cal_gb, 3),
        disk_gb=round((1 + resample) * cal_gb, 4),
    )


def image3_memory_gb(n_exposures: int, pixels: int, output_pixels: int) -> float:
    """Return the highest memory of a mosaic of exposures that are held in memory."""
    return 0.5 + (1.3 * n_exposures * _CAL_BYTES * pixels + 75 * output_pixels) / 1e9


def stage3_estimate(exposures: Sequence[Exposure], *, output_pixels: int | None = None) -> Estimate:
    """Return what stage 3 of a group of exposures needs, held in memory."""
    pixels = max(math.prod(e.shape) for e in exposures)
    n = sum(e.n_ints if e.is_tso else 1 for e in exposures)
    frames = pixels / _FULL
    if exposures[0].exp_type in _IFU:
        # The medians of outlier_detection, which needs two exposures, hold a window of each pixel.
        per_pixel = 200 * n + (1300 if n > 1 else 0)
        return Estimate(
            seconds=round(5 + 70 * n * frames, 1),
            memory_gb=round(0.5 + per_pixel * pixels / 1e9, 3),
            disk_gb=round((n * _CAL_BYTES + _CUBE_BYTES) * pixels / 1e9, 4),
        )
    if exposures[0].is_tso:
        # No grid, but the medians of outlier_detection beside all integrations.
        return Estimate(
            seconds=round(5 + 2 * n * frames, 1),
            memory_gb=round(0.5 + 75 * n * pixels / 1e9, 3),
            disk_gb=round(n * _CAL_BYTES * pixels / 1e9, 4),
        )
    output_pixels = output_pixels or round(1.3 * pixels)
    return Estimate(
        seconds=round(5 + (30 * n + 0.3 * n**2) * frames, 1),
        memory_gb=round(image3_memory_gb(n, pixels, output_pixels), 3),
        disk_gb=round(
            (n * _CAL_BYTES * pixels + (_CAL_BYTES + _SEGMENT_BYTES) * output_pixels) / 1e9, 4
        ),
    )


def with_references(task: Task, plan: Plan, resolution: Resolution) -> Task:
    """Return the task with the memory that it needs with the dark that it will use."""
    dark = resolution.references.get(task.name, {}).get("dark", {})
    size = int(dark.get("bytes") or 0)
    if task.stage != 1 or task.kind != "pipeline" or not size:
        return task
    exposure = next(e for e in plan.exposures if e.root == task.exposures[0])
    return replace(task, estimate=stage1_estimate(exposure, dark_bytes=size))
