"""From exposures to tasks: one per product and correction, in an order that can be kept."""

import os
import re
from dataclasses import replace
from pathlib import Path

from ...exceptions import InvalidRequestError
from ..tasks import Member, Task
from . import estimates
from .association_files import complete
from .associations import level2_members, level3_groups, unique_ids
from .pipelines import STAGE3_SUFFIX, is_guider, is_integrations, stage_classes

__all__ = ["build", "configuration_key", "configurations_of"]

_WFSS = ("NIS_WFSS", "NRC_WFSS", "MIR_WFSS")
_TIME = "META.OBSERVATION.TIME"


def configuration_key(exposure):
    """Return the name of the set-up that decides on reference files, without the time of day.

    Parameters
    ----------
    exposure : `~.exposures.Exposure`
        What its headers say.

    Returns
    -------
    str
        Such as ``nircam.nrcalong.f356w.clear.nrc_image.rapid.sub160.2026-03-01``.
    """
    values = [v for k, v in exposure.parameters.items() if k not in _SEPARATE]
    values.append(exposure.parameters.get("META.OBSERVATION.DATE", ""))
    words = (re.sub(r"[^a-z0-9-]+", "_", str(v).lower()) for v in values)
    return ".".join(word for word in words if word)


_SEPARATE = ("META.OBSERVATION.DATE", _TIME)


def configurations_of(exposures):
    """Return the distinct set-ups: CRDS parameters, with the earliest time of the day.

    Parameters
    ----------
    exposures : sequence of `~.exposures.Exposure`
        All exposures of the plan.

    Returns
    -------
    dict of str to dict
        By `configuration_key`.
    """
    found = {}
    for exposure in exposures:
        key = configuration_key(exposure)
        known = found.get(key)
        if known is None or exposure.parameters.get(_TIME, "") < known.get(_TIME, ""):
            found[key] = dict(exposure.parameters)
    return found


class _Builder:
    """The tasks so far, and the product that each exposure has come to."""

    def __init__(self, exposures, *, stages, steps_for, corrections, output_dir):
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
        self.tasks, self.names = [], set()
        self.current = {e.root: e.path for e in exposures}
        self.level = {e.root: e.level for e in exposures}
        self.notes = []
        self.problems = []

    def add(self, task, roots):
        if task.name in self.names:
            self.problems.append(f"two tasks would make {task.name}")
            return
        self.names.add(task.name)
        self.tasks.append(task)
        for root in roots:
            self.current[root] = task.name

    def reach(self, exposure, level, product):
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

    def correct(self, exposure, points, stage):
        for correction in self.corrections:
            if correction.point in points and correction.applies(exposure):
                name = f"stage{stage}/{exposure.root}_{correction.suffix}.fits"
                estimate = estimates.stage2(exposure, resample=False)
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

    def stage1(self, exposure):
        pipeline = stage_classes(exposure)[0]
        root = exposure.root
        if self.level[root] != "uncal":
            if self.level[root] == "rate":
                self.correct(exposure, ("after_rate",), 1)
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
            estimate=estimates.stage1(exposure),
        )
        self.add(task, [root])
        self.level[root] = "rate" if pipeline == "Detector1Pipeline" else "end"
        if self.level[root] == "rate":
            self.correct(exposure, ("after_rate",), 1)

    def stage2(self, exposure, members, given, association):
        pipeline = stage_classes(exposure)[1]
        root = exposure.root
        ints = is_integrations(exposure)
        name = f"stage2/{root}_{'calints' if ints else 'cal'}.fits"
        steps = self.steps_for(pipeline, [exposure])
        resample = not steps.get("resample", {}).get("skip", False)
        inputs = [self.current[root]]
        listed = ()
        if members:
            listed = (
                Member(self.current[root], "science"),
                *(Member(self.current[e.root], role) for e, role in members if role in _RATES),
                *(Member(e, role) for e, role in members if role == "direct_image"),
            )
            inputs = list(dict.fromkeys(m.input for m in listed))
        task = Task(
            name=name,
            stage=2,
            pipeline=pipeline,
            inputs=tuple(inputs),
            outputs=(name,),
            steps=steps,
            association=association if members else {},
            members=listed,
            exposures=(root,),
            configuration=configuration_key(exposure),
            estimate=estimates.stage2(exposure, resample=resample, integrations=ints),
        )
        self.add(task, [root])
        self.level[root] = "cal"

    def stage3(self, group, association, extra_steps, output_pixels):
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
            estimate=estimates.stage3(group.exposures, output_pixels=output_pixels),
        )
        self.add(task, [])
        return task


_RATES = ("background", "imprint")


def _stage1_outputs(exposure, pipeline):
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


def _stage3_outputs(group):
    stem = f"stage3/{group.file_stem}"
    suffix = STAGE3_SUFFIX.get(group.pipeline)
    if group.pipeline == "WfsCombineStep":
        return (f"{stem}.fits",)
    if group.pipeline == "Ami3Pipeline" and not any(role == "psf" for _, role in group.members):
        suffix = None
    # How many files, and under which names, is known only when the sources are.
    return (f"{stem}_{suffix}",) if suffix else (f"{stem}_asn.json",)


def build(
    exposures,
    *,
    stages,
    steps_for,
    corrections=(),
    group_by=None,
    product_name=None,
    associations=(),
    output_dir=None,
    stage3_steps=None,
    check_associations=True,
):
    """Return the tasks.

    Parameters
    ----------
    exposures : sequence of `~.exposures.Exposure`
        One per root.
    stages : sequence of int
        Which of 1, 2 and 3.
    steps_for : callable
        ``steps_for(pipeline, exposures)`` gives the parameters that were asked for.
    corrections : sequence of `~.corrections.Correction`
        In the order in which they are applied.
    group_by, product_name
        See `~.associations.level3_groups`.
    associations : sequence of dict
        Association files that were given.
    output_dir : str, optional
        Where products of earlier stages are sought.
    stage3_steps : callable, optional
        ``stage3_steps(group)`` gives steps that the plan adds, and the pixels of the mosaic.
    check_associations : bool, optional
        Whether `jwst.associations` completes the associations; `True` by default.

    Returns
    -------
    tasks : tuple of Task
        An input that is a task stands before the task that needs it.
    notes : list of str
        What was left out, mended or assumed.

    Raises
    ------
    InvalidRequestError
        If a stage lacks what it starts from, or two tasks would make one file.
    """
    builder = _Builder(
        exposures,
        stages=stages,
        steps_for=steps_for,
        corrections=corrections,
        output_dir=output_dir,
    )
    level2 = [a for a in associations if not str(a.get("asn_type", "")).endswith("3")]
    level3 = [a for a in associations if str(a.get("asn_type", "")).endswith("3")]
    groups = []
    if 3 in stages:
        groups, notes = level3_groups(
            exposures, group_by=group_by, product_name=product_name, given=level3
        )
        builder.notes += notes
    filled = _filled(groups, check_associations)
    for exposure in exposures:
        builder.stage1(exposure)
    slitless = [e for e in exposures if e.exp_type in _WFSS]
    for exposure in exposures:
        if exposure.exp_type not in _WFSS:
            _second(builder, exposure, level2)
    made = []
    for group, association in zip(groups, filled, strict=True):
        if not any(e.exp_type in _WFSS for e in group.exposures):
            made.append((group, _third(builder, group, association, stage3_steps)))
    for exposure in slitless:
        _second(builder, exposure, level2, _direct(exposure, made, builder.notes))
    for group, association in zip(groups, filled, strict=True):
        if any(e.exp_type in _WFSS for e in group.exposures):
            _third(builder, group, association, stage3_steps)
    if builder.problems:
        parameter = "stages" if any("stage" in p for p in builder.problems) else "corrections"
        msg = f"stages={tuple(stages)!r}: {'; '.join(builder.problems)}."
        raise InvalidRequestError(msg, parameter=parameter, value=stages)
    return tuple(builder.tasks), builder.notes


def _second(builder, exposure, level2, direct=()):
    pipeline = stage_classes(exposure)[1]
    if builder.level[exposure.root] == "cal":
        builder.correct(exposure, ("after_cal",), 2)
        builder.correct(exposure, ("before_stage3",), 2)
        return
    if not pipeline or exposure.is_imprint or builder.level[exposure.root] != "rate":
        return
    if 2 not in builder.stages:
        if 3 in builder.stages and stage_classes(exposure)[2]:
            suffix = "calints" if is_integrations(exposure) else "cal"
            if builder.reach(exposure, "cal", f"stage2/{exposure.root}_{suffix}.fits"):
                builder.correct(exposure, ("after_cal",), 2)
                builder.correct(exposure, ("before_stage3",), 2)
        return
    members, given = _given_members(exposure, level2, builder)
    if given is None:
        members = level2_members(exposure, builder.aside)
    # A background that was calibrated before is no count rate any more.
    late = [e.root for e, _ in members if builder.by_root[e.root].level == "cal"]
    if late:
        builder.notes.append(
            f"{exposure.root}: the backgrounds {', '.join(late)} are given as cal files and are "
            "left out; stage 2 subtracts count rates."
        )
        members = [m for m in members if m[0].root not in late]
    members += [(task.name, "direct_image") for task in direct]
    association = {
        "asn_type": "spec2" if pipeline == "Spec2Pipeline" else "image2",
        "asn_rule": "DMSLevel2bBase",
        "asn_id": f"o{exposure.observation}" if exposure.observation else "a3001",
        "program": exposure.program or "00000",
        "target": exposure.target or "unknown",
        "asn_pool": "none",
        "product": exposure.root,
    }
    if given is not None:
        association |= {k: v for k, v in given.items() if k in association}
    builder.stage2(exposure, members, given, association)
    builder.correct(exposure, ("after_cal",), 2)
    builder.correct(exposure, ("before_stage3",), 2)


def _given_members(exposure, level2, builder):
    """Return what an association file of level 2 gives the exposure, and the file's content."""
    for association in level2:
        for product in association["products"]:
            roles = {_root(m["expname"]): str(m.get("exptype", "science")).lower()
                     for m in product["members"]}  # fmt: skip
            if roles.get(exposure.root) != "science":
                continue
            wanted = {r: role for r, role in roles.items() if role in _RATES}
            missing = sorted(set(wanted) - set(builder.by_root))
            if missing:
                builder.problems.append(
                    f"{association['path']}: its members {', '.join(missing)} are not among the "
                    "files of any stage"
                )
            return [
                (builder.by_root[r], role) for r, role in wanted.items() if r in builder.by_root
            ], association
    return [], None


def _root(expname):
    return Path(expname).name.removesuffix(".fits").rpartition("_")[0]


def _direct(exposure, made, notes):
    """Return the mosaic that shows the sources of a slitless exposure."""
    for group, task in made:
        first = group.exposures[0]
        same = (first.program, first.target, first.instrument) == (
            exposure.program,
            exposure.target,
            exposure.instrument,
        )
        element = "pupil" if exposure.exp_type == "NIS_WFSS" else "filter"
        if exposure.exp_type == "MIR_WFSS":
            matches = True
        else:
            matches = getattr(first, element) == getattr(exposure, element)
        if task is not None and group.pipeline == "Image3Pipeline" and same and matches:
            return [task]
    notes.append(
        f"{exposure.root}: no mosaic of direct images with its filter is in the plan; slitless "
        "spectra need one for the positions of the sources."
    )
    return []


def _third(builder, group, association, stage3_steps):
    lacking = [e.root for e in group.exposures if builder.level[e.root] != "cal"]
    if lacking:
        # The reason is among the problems already.
        return None
    extra, pixels = stage3_steps(group) if stage3_steps else ({}, None)
    return builder.stage3(group, association, extra, pixels)


def _filled(groups, check):
    documents = []
    for group in groups:
        document = {
            "asn_type": _ASN_TYPES[group.pipeline],
            "asn_rule": "DMS_Level3_Base",
            "asn_id": group.asn_id,
            "program": group.program,
            "target": group.target,
            "asn_pool": "none",
            **{k: v for k, v in group.given.items() if v is not None},
        }
        members = [{"expname": f"{e.root}_cal.fits", "exptype": role} for e, role in group.members]
        documents.append({**document, "products": [{"name": group.product, "members": members}]})
    if check:
        made = complete(documents)
    else:
        made = [{k: v for k, v in d.items() if k != "products"} for d in documents]
    return [{**m, "product": g.product} for m, g in zip(made, groups, strict=True)]


_ASN_TYPES = {
    "Image3Pipeline": "image3",
    "Spec3Pipeline": "spec3",
    "Coron3Pipeline": "coron3",
    "Ami3Pipeline": "ami3",
    "Tso3Pipeline": "tso3",
    "WfsCombineStep": "wfs-image3",
}


def with_references(task, plan, resolution):
    """Return the task with the memory that it needs with the dark that it will use.

    Parameters
    ----------
    task : Task
        A task of the plan.
    plan : `~.plan.Plan`
        The plan.
    resolution : `~.references.Resolution`
        The reference files that it will use.

    Returns
    -------
    Task
    """
    dark = resolution.references.get(task.name, {}).get("dark", {})
    size = int(dark.get("bytes") or 0)
    if task.stage != 1 or task.kind != "pipeline" or not size:
        return task
    exposure = next(e for e in plan.exposures if e.root == task.exposures[0])
    return replace(task, estimate=estimates.stage1(exposure, dark_bytes=size))
