"""From exposures to tasks: one per product and correction, in an order that can be kept."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...exceptions import InvalidRequestError
from ..tasks import Member, Task
from .associations import complete, level2_members, level3_groups, unique_ids
from .estimates import stage1_estimate, stage2_estimate, stage3_estimate
from .pipelines import (
    ASN_TYPES,
    EXP_TYPES,
    STAGE3_SUFFIX,
    is_guider,
    is_integrations,
    stage_classes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..corrections import Correction
    from .associations import Group, GroupBy
    from .exposures import Exposure

    StepsFor = Callable[[str, Sequence[Exposure]], dict[str, dict]]
    Stage3Steps = Callable[[Group], tuple[dict[str, dict], int | None]]

__all__ = ["build", "configuration_key", "configurations_of"]

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


class _Builder:
    """The tasks so far, and the product that each exposure has come to."""

    def __init__(
        self,
        exposures: Sequence[Exposure],
        *,
        stages: Sequence[int],
        steps_for: StepsFor,
        corrections: Sequence[Correction],
        output_dir: str | None,
    ) -> None:
        self.exposures = exposures
        self.by_root = {e.root: e for e in exposures}
        # What can be a background or an imprint; of a thousand dithers that is none.
        self.aside = [
            e for e in exposures if e.is_background or e.is_imprint or "NOD" in e.patttype.upper()
        ]
        self.stages = stages
        self.steps_for = steps_for
        self.corrections = corrections
        self.output_dir = output_dir
        self.tasks: list[Task] = []
        self.names: set[str] = set()
        self.current = {e.root: e.path for e in exposures}
        self.level = {e.root: e.level for e in exposures}
        self.notes: list[str] = []
        self.problems: list[str] = []

    def add(self, task: Task, roots: Iterable[str]) -> None:
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
        self,
        exposure: Exposure,
        members: list[tuple[Exposure, str]],
        association: dict[str, Any],
        direct: Sequence[Task],
    ) -> None:
        pipeline = stage_classes(exposure)[1]
        root = exposure.root
        ints = is_integrations(exposure)
        name = f"stage2/{root}_{'calints' if ints else 'cal'}.fits"
        steps = self.steps_for(pipeline, [exposure])
        resample = not steps.get("resample", {}).get("skip", False)
        inputs = [self.current[root]]
        listed: tuple[Member, ...] = ()
        if members or direct:
            listed = (
                Member(self.current[root], "science"),
                *(Member(self.current[e.root], role) for e, role in members),
                *(Member(image.name, "direct_image") for image in direct),
            )
            inputs = list(dict.fromkeys(m.input for m in listed))
        task = Task(
            name=name,
            stage=2,
            pipeline=pipeline,
            inputs=tuple(inputs),
            outputs=(name,),
            steps=steps,
            association=association if listed else {},
            members=listed,
            exposures=(root,),
            configuration=configuration_key(exposure),
            estimate=stage2_estimate(exposure, resample=resample, integrations=ints),
        )
        self.add(task, [root])
        self.level[root] = "cal"

    def stage3(
        self,
        group: Group,
        association: dict[str, Any],
        extra_steps: dict[str, dict],
        output_pixels: int | None,
    ) -> Task:
        ids = unique_ids(group.exposures) if group.pipeline == "Image3Pipeline" else {}
        if ids:
            self.notes.append(
                f"{group.file_stem}: exposures share the exposure id of the header; they are told "
                f"apart as {', '.join(sorted(set(ids.values())))} in the association."
            )
        members = tuple(
            Member(self.current[e.root], role, ids.get(e.root, "")) for e, role in group.members
        )
        steps = self.steps_for(group.pipeline, group.exposures)
        for step, values in extra_steps.items():
            steps[step] = {**values, **steps.get(step, {})}
        outputs = _stage3_outputs(group)
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


_RATES = ("background", "imprint")


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


def _stage3_outputs(group: Group) -> tuple[str, ...]:
    stem = f"stage3/{group.file_stem}"
    suffix = STAGE3_SUFFIX.get(group.pipeline)
    if group.pipeline == "WfsCombineStep":
        return (f"{stem}.fits",)
    if group.pipeline == "Ami3Pipeline" and not any(role == "psf" for _, role in group.members):
        suffix = None
    # How many files, and under which names, is known only when the sources are.
    return (f"{stem}_{suffix}",) if suffix else (f"{stem}_asn.json",)


def build(
    exposures: Sequence[Exposure],
    *,
    stages: Sequence[int],
    steps_for: StepsFor,
    corrections: Sequence[Correction] = (),
    group_by: GroupBy | None = None,
    product_name: str | None = None,
    associations: Sequence[dict] = (),
    output_dir: str | None = None,
    stage3_steps: Stage3Steps | None = None,
    check_associations: bool = True,
) -> tuple[tuple[Task, ...], list[str]]:
    """Return the tasks."""
    builder = _Builder(
        exposures,
        stages=stages,
        steps_for=steps_for,
        corrections=corrections,
        output_dir=output_dir,
    )
    level2 = [a for a in associations if not str(a.get("asn_type", "")).endswith("3")]
    level3 = [a for a in associations if str(a.get("asn_type", "")).endswith("3")]
    groups: list[Group] = []
    if 3 in stages:
        groups, notes = level3_groups(
            exposures, group_by=group_by, product_name=product_name, associations=level3
        )
        builder.notes += notes
    filled = _filled(groups, check_associations)
    for exposure in exposures:
        builder.stage1(exposure)
    slitless = [e for e in exposures if _is_slitless(e)]
    for exposure in exposures:
        if not _is_slitless(exposure):
            _second(builder, exposure, level2)
    mosaics = []
    for group, association in zip(groups, filled, strict=True):
        if not any(_is_slitless(e) for e in group.exposures):
            mosaics.append((group, _third(builder, group, association, stage3_steps)))
    for exposure in slitless:
        _second(builder, exposure, level2, _direct(exposure, mosaics, builder.notes))
    for group, association in zip(groups, filled, strict=True):
        if any(_is_slitless(e) for e in group.exposures):
            _third(builder, group, association, stage3_steps)
    if builder.problems:
        parameter = "stages" if any("stage" in p for p in builder.problems) else "corrections"
        msg = f"stages={tuple(stages)!r}: {'; '.join(builder.problems)}."
        raise InvalidRequestError(msg, parameter=parameter, value=stages)
    return tuple(builder.tasks), builder.notes


def _is_slitless(exposure: Exposure) -> bool:
    return EXP_TYPES[exposure.exp_type].direct is not None


def _second(
    builder: _Builder, exposure: Exposure, level2: list[dict], direct: Sequence[Task] = ()
) -> None:
    pipeline = stage_classes(exposure)[1]
    if builder.level[exposure.root] == "cal":
        builder.correct(exposure, 2, "after_cal", "before_stage3")
        return
    if not pipeline or exposure.is_imprint or builder.level[exposure.root] != "rate":
        return
    if 2 not in builder.stages:
        if 3 in builder.stages and stage_classes(exposure)[2]:
            suffix = "calints" if is_integrations(exposure) else "cal"
            if builder.reach(exposure, "cal", f"stage2/{exposure.root}_{suffix}.fits"):
                builder.correct(exposure, 2, "after_cal", "before_stage3")
        return
    members, document = _given_members(exposure, level2, builder)
    if document is None:
        members = level2_members(exposure, builder.aside)
    members = _count_rates(builder, exposure, members)
    association = _level2_association(exposure, pipeline)
    association |= {k: v for k, v in (document or {}).items() if k in association}
    builder.stage2(exposure, members, association, direct)
    builder.correct(exposure, 2, "after_cal", "before_stage3")


def _count_rates(
    builder: _Builder, exposure: Exposure, members: list[tuple[Exposure, str]]
) -> list[tuple[Exposure, str]]:
    """Return the members that stage 2 can subtract, and note those that were calibrated before."""
    late = [e.root for e, _ in members if builder.by_root[e.root].level == "cal"]
    if late:
        builder.notes.append(
            f"{exposure.root}: the backgrounds {', '.join(late)} are given as cal files and are "
            "left out; stage 2 subtracts count rates."
        )
    return [(e, role) for e, role in members if e.root not in late]


def _level2_association(exposure: Exposure, pipeline: str) -> dict[str, str]:
    return {
        "asn_type": "spec2" if pipeline == "Spec2Pipeline" else "image2",
        "asn_rule": "DMSLevel2bBase",
        "asn_id": f"o{exposure.observation}" if exposure.observation else "a3001",
        "program": exposure.program or "00000",
        "target": exposure.target or "unknown",
        "asn_pool": "none",
        "product": exposure.root,
    }


def _given_members(
    exposure: Exposure, level2: list[dict], builder: _Builder
) -> tuple[list[tuple[Exposure, str]], dict | None]:
    """Return what an association file of level 2 gives the exposure, and the file's content."""
    for association in level2:
        for product in association["products"]:
            roles = {_root(m["expname"]): str(m.get("exptype", "science")).lower()
                     for m in product["members"]}  # fmt: skip
            if roles.get(exposure.root) != "science":
                continue
            others = {r: role for r, role in roles.items() if role in _RATES}
            missing = sorted(set(others) - set(builder.by_root))
            if missing:
                builder.problems.append(
                    f"{association['path']}: its members {', '.join(missing)} are not among the "
                    "files of any stage"
                )
            return [
                (builder.by_root[r], role) for r, role in others.items() if r in builder.by_root
            ], association
    return [], None


def _root(expname: str) -> str:
    return Path(expname).name.removesuffix(".fits").rpartition("_")[0]


def _direct(
    exposure: Exposure, mosaics: list[tuple[Group, Task | None]], notes: list[str]
) -> list[Task]:
    """Return the mosaic that shows the sources of a slitless exposure."""
    for group, task in mosaics:
        first = group.exposures[0]
        same = (first.program, first.target, first.instrument) == (
            exposure.program,
            exposure.target,
            exposure.instrument,
        )
        element = EXP_TYPES[exposure.exp_type].direct
        if element and getattr(first, element) != getattr(exposure, element):
            continue
        if task is not None and group.pipeline == "Image3Pipeline" and same:
            return [task]
    notes.append(
        f"{exposure.root}: no mosaic of direct images with its filter is in the plan; slitless "
        "spectra need one for the positions of the sources."
    )
    return []


def _third(
    builder: _Builder, group: Group, association: dict[str, Any], stage3_steps: Stage3Steps | None
) -> Task | None:
    lacking = [e.root for e in group.exposures if builder.level[e.root] != "cal"]
    if lacking:
        # The reason is among the problems already.
        return None
    extra, pixels = stage3_steps(group) if stage3_steps else ({}, None)
    return builder.stage3(group, association, extra, pixels)


def _filled(groups: list[Group], check: bool) -> list[dict]:
    documents = []
    for group in groups:
        document = {
            "asn_type": ASN_TYPES[group.pipeline],
            "asn_rule": "DMS_Level3_Base",
            "asn_id": group.asn_id,
            "program": group.program,
            "target": group.target,
            "asn_pool": "none",
            **{k: v for k, v in group.source.items() if v is not None},
        }
        members = [{"expname": f"{e.root}_cal.fits", "exptype": role} for e, role in group.members]
        documents.append({**document, "products": [{"name": group.product, "members": members}]})
    if check:
        headers = complete(documents)
    else:
        headers = [{k: v for k, v in d.items() if k != "products"} for d in documents]
    pairs = zip(headers, groups, strict=True)
    return [{**header, "product": group.product} for header, group in pairs]
