"""From exposures to tasks: one per product and correction, and what each exposure has come to."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...exceptions import InvalidExposureError, InvalidRequestError
from ..tasks import REFCATS, Member, Task
from .associations import headers_of, unique_ids
from .exposures import configuration_key, split_name
from .grids import n_pixels
from .groups import listed, members_of
from .pipelines import (
    EXP_TYPES,
    STAGE3_SUFFIXES,
    is_acquisition,
    is_guider,
    is_integrations,
    is_slitless,
    stage_classes,
)
from .plan import stage1_estimate, stage2_estimate, stage3_estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..corrections import Correction
    from .associations import Association
    from .exposures import Exposure
    from .groups import Together

    StepsFor = Callable[[str, Sequence[Exposure]], dict[str, dict]]


class TaskBuilder:
    """The tasks so far, and the product that each exposure has come to."""

    def __init__(
        self,
        exposures: Sequence[Exposure],
        together: Together,
        *,
        stages: Sequence[int],
        steps_for: StepsFor,
        corrections: Sequence[Correction],
        output_dir: str | None,
        grid: dict[str, Any],
        abs_refcat: str | None,
    ) -> None:
        exposures = [e for e in exposures if e.root not in together.unwanted]
        self.by_root = {e.root: e for e in exposures}
        self.together = together
        self.groups = together.groups if 3 in stages else []
        members = (member for group in self.groups for member in group.members)
        self.spectra = {e.root for e, role in members if role == "background"}
        self.stages = stages
        self.steps_for = steps_for
        self.corrections = corrections
        self.output_dir = output_dir
        self.grid = grid
        self.abs_refcat = abs_refcat
        self.tasks: dict[str, Task] = {}
        self.current = {e.root: e.path for e in exposures}
        self.rates: dict[str, str] = {}
        self.calibrated: dict[str, str] = {}
        self.level = {e.root: e.level for e in exposures}
        self.notes = list(together.notes)
        self.problems: list[str] = []

    def build(self, *, check_associations: bool) -> tuple[Task, ...]:
        """Return all tasks, in an order that can be kept."""
        exposures = list(self.by_root.values())
        if 2 in self.stages:
            _check_shutters(exposures)
        for exposure in exposures:
            self._stage1(exposure)
        # What stage 2 subtracts are count rates: those of before any exposure had its stage 2.
        self.rates = dict(self.current)
        second = [e for e in exposures if not (is_acquisition(e) or e.is_imprint)]
        if all(map(is_acquisition, exposures)):
            second = exposures
        headers = headers_of(self.groups, check=check_associations)
        # Slitless spectra wait for the mosaics that tell where the sources are.
        for slitless in (False, True):
            for exposure in second:
                if is_slitless(exposure) == slitless and self._calibrate(exposure):
                    self._correct(exposure, 2, "after_cal", "before_stage3")
            for group, header in zip(self.groups, headers, strict=True):
                if any(map(is_slitless, group.exposures)) == slitless:
                    self._stage3(group, header)
        if self.problems:
            parameter = "stages" if any("stage" in p for p in self.problems) else "corrections"
            msg = f"stages={tuple(self.stages)!r}: {'; '.join(self.problems)}."
            raise InvalidRequestError(msg, parameter=parameter, value=self.stages)
        return tuple(self.tasks.values())

    def _add(
        self, exposures: Sequence[Exposure], outputs: tuple[str, ...], *, stage: int, **values: Any
    ) -> None:
        """Add a task; of stage 1 and 2, its product is what its exposure has come to."""
        name = outputs[0]
        if name in self.tasks:
            self.problems.append(f"two tasks would make {name}")
            return
        self.tasks[name] = Task(
            name=name,
            stage=stage,
            outputs=outputs,
            exposures=tuple(dict.fromkeys(e.root for e in exposures)),
            configuration=configuration_key(exposures[0]),
            **values,
        )
        if stage < 3:
            self.current[exposures[0].root] = name

    def _reach(self, exposure: Exposure, level: str, product: str) -> bool:
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

    def _correct(self, exposure: Exposure, stage: int, *points: str) -> None:
        """Add the corrections at some points of the chain, those of the first point first."""
        for correction in [c for point in points for c in self.corrections if c.point == point]:
            if correction.applies(exposure):
                self._add(
                    [exposure],
                    (f"stage{stage}/{exposure.root}_{correction.suffix}.fits",),
                    stage=stage,
                    kind="correction",
                    inputs=(self.current[exposure.root],),
                    corrections=(correction.to_dict(),),
                    estimate=stage2_estimate(exposure, resample=False),
                )

    def _stage1(self, exposure: Exposure) -> None:
        """Add the count rates of an exposure, and the corrections after them."""
        root, pipeline = exposure.root, stage_classes(exposure)[0]
        if self.level[root] == "uncal":
            outputs = _stage1_outputs(exposure, pipeline)
            if 1 not in self.stages:
                self._reach(exposure, "cal" if is_guider(exposure.exp_type) else "rate", outputs[0])
                return
            makes_rates = pipeline == "Detector1Pipeline"
            within = [
                correction.to_dict()
                for correction in self.corrections
                if makes_rates and correction.point == "after_jump" and correction.applies(exposure)
            ]
            self._add(
                [exposure],
                outputs,
                stage=1,
                pipeline=pipeline,
                inputs=(exposure.path,),
                steps=self.steps_for(pipeline, [exposure]),
                corrections=tuple(within),
                estimate=stage1_estimate(exposure),
            )
            self.level[root] = "rate" if makes_rates else "end"
        if self.level[root] == "rate":
            self._correct(exposure, 1, "after_rate")

    # ---- stage 2 --------------------------------------------------------------------------------

    def _calibrate(self, exposure: Exposure) -> bool:
        """Add the calibration of an exposure; return False if nothing calibrates it."""
        root = exposure.root
        pipeline, then = stage_classes(exposure)[1:]
        if self.level[root] != "rate" or not pipeline:
            return self.level[root] == "cal"
        ints = is_integrations(exposure)
        name = f"stage2/{root}_{'calints' if ints else 'cal'}.fits"
        if 2 not in self.stages:
            return 3 in self.stages and bool(then) and self._reach(exposure, "cal", name)
        association = self._of_file(exposure) or self._of_rules(exposure)
        if association is None:
            return False
        header = _level2_header(exposure, pipeline)
        header |= {
            name: str(value)
            for name, value in association[0].items()
            if name in header and value is not None
        }
        pipeline = "Spec2Pipeline" if "spec2" in header["asn_type"] else "Image2Pipeline"
        steps = self.steps_for(pipeline, [exposure])
        resample = not steps.get("resample", {}).get("skip", False)
        members = tuple(association[1])
        if members:
            members = (Member(self.current[root]), *members)
        inputs = [self.current[root], *(m.input for m in members), exposure.msa_file]
        self.calibrated[root] = name
        self._add(
            [exposure],
            (name, self._spectrum(exposure)) if root in self.spectra else (name,),
            stage=2,
            pipeline=pipeline,
            inputs=tuple(dict.fromkeys(filter(None, inputs))),
            steps=steps,
            association=header if members else {},
            members=members,
            estimate=stage2_estimate(exposure, resample=resample, integrations=ints),
        )
        self.level[root] = "cal"
        return True

    def _of_file(self, exposure: Exposure) -> tuple[dict[str, object], list[Member]] | None:
        """Return header and members that an association file of MAST gives."""
        for association in self.together.files:
            for product in association["products"]:
                roles = members_of(product)
                roots = [split_name(name)[0] for name, role in roles if role == "science"]
                if exposure.root not in roots:
                    continue
                found = {n: self._named(n, role, association["path"]) for n, role in roles
                         if role != "science"}  # fmt: skip
                missing = sorted(Path(name).name for name, member in found.items() if not member)
                if missing:
                    self.problems.append(
                        f"{association['path']}: its members {', '.join(missing)} are not among "
                        "the files of any stage"
                    )
                members = [member for member in found.values() if member]
                return association, self._uncalibrated(exposure, members)
        return None

    def _named(self, expname: str, role: str, association_path: str) -> Member | None:
        """Return the member of a name: an exposure, a product of the plan, or a file beside."""
        root = split_name(expname)[0]
        if root in self.by_root:
            return Member(self.rates[root], role)
        name = Path(expname).name
        mosaic = f"stage3/{root}_i2d.fits"
        beside = os.path.join(os.path.dirname(association_path), name)
        if os.path.exists(beside):
            return Member(os.path.abspath(beside), role)
        if any(group.file_stem == root for group in self.together.groups):
            return self._of_mosaic(mosaic, role, name)
        return None

    def _of_rules(self, exposure: Exposure) -> tuple[dict[str, object], list[Member]] | None:
        """Return header and members by the rules, if they want any; `None` if one is missing."""
        association = self.together.calibrations.get(exposure.root)
        if association is None:
            return {}, []
        members = [
            Member(self.rates[e.root], role)
            for e, role in association.members
            if e.root != exposure.root
        ]
        if association.direct is not None:
            mosaic = self._direct_members(exposure, association.direct)
            if mosaic is None:
                return None
            members += mosaic
        return association.header, self._uncalibrated(exposure, members)

    def _uncalibrated(self, exposure: Exposure, members: list[Member]) -> list[Member]:
        """Return the members that stage 2 can use, and note those that were calibrated before."""
        by_path = {e.path: e for e in self.by_root.values() if e.level == "cal"}
        late = [m for m in members if m.input in by_path]
        if late:
            names = listed(by_path[m.input].root for m in late)
            self.notes.append(
                f"{exposure.root}: {names} ({late[0].exptype}) are given as cal files and are left "
                "out; stage 2 subtracts count rates."
            )
        return [m for m in members if m not in late]

    def _direct_members(self, exposure: Exposure, direct: Exposure) -> list[Member] | None:
        """Return the mosaic that shows the sources of slitless spectra, and its two catalogues."""
        group = next(
            (g for g in self.together.groups
             if g.pipeline == "Image3Pipeline" and (direct, "science") in g.members),
            None,
        )  # fmt: skip
        members: list[Member | None] = []
        if group is not None:
            stem = f"stage3/{group.file_stem}"
            for role, ending in _OF_MOSAIC.items():
                members.append(
                    self._of_mosaic(f"{stem}_i2d.fits", role, f"{group.file_stem}_{ending}")
                )
        if not members or None in members:
            self.notes.append(
                f"{exposure.root}: no stage 2, since slitless spectra need the mosaic of "
                f"{direct.root} and its catalogue; add stage 3 to stages=."
            )
            return None
        return [member for member in members if member is not None]

    def _of_mosaic(self, mosaic: str, role: str, name: str) -> Member | None:
        file = f"stage3/{name}"
        if mosaic in self.tasks:
            return Member(mosaic, role, file="" if file == mosaic else file)
        path = os.path.join(self.output_dir or "", file)
        if self.output_dir is not None and os.path.exists(path):
            return Member(os.path.abspath(path), role)
        return None

    # ---- stage 3 --------------------------------------------------------------------------------

    def _spectrum(self, exposure: Exposure) -> str:
        suffix = "x1dints" if is_integrations(exposure) else "x1d"
        return f"stage2/{exposure.root}_{suffix}.fits"

    def _stage3_member(self, exposure: Exposure, role: str, group_id: str = "") -> Member:
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

    def _stage3(self, group: Association, header: dict[str, Any]) -> None:
        """Add a product of several exposures, of those that were calibrated."""
        calibrated = tuple((e, r) for e, r in group.members if self.level.get(e.root) == "cal")
        group = replace(group, members=calibrated)
        if not group.science:
            # The reason is among the problems or the notes already.
            return
        is_mosaic = group.pipeline == "Image3Pipeline"
        ids = unique_ids(group.exposures) if is_mosaic else {}
        if ids:
            self.notes.append(
                f"{group.file_stem}: exposures share the exposure id of the header; they are told "
                f"apart as {', '.join(sorted(set(ids.values())))} in the association."
            )
        self.notes += [f"{group.file_stem}: {why}." for why in _shortcomings(group)]
        members = tuple(
            self._stage3_member(e, role, ids.get(e.root, "")) for e, role in group.members
        )
        steps = self.steps_for(group.pipeline, group.exposures)
        output_pixels = None
        if is_mosaic:
            output_pixels = n_pixels(group.exposures, self.grid)
            for step, values in self._mosaic_steps(group).items():
                steps[step] = {**values, **steps.get(step, {})}
        self._add(
            group.exposures,
            _stage3_outputs(group, steps),
            stage=3,
            pipeline=group.pipeline,
            inputs=tuple(dict.fromkeys(m.input for m in members)),
            steps=steps,
            association=header,
            members=members,
            estimate=stage3_estimate(group.exposures, output_pixels=output_pixels),
        )

    def _mosaic_steps(self, group: Association) -> dict[str, dict]:
        """Return the parameters that a plan itself adds: the grid and the reference catalogue."""
        steps = {"resample": self.grid} if self.grid else {}
        if self.abs_refcat is not None:
            # That of a kind is made by prefetch_references, below the output directory.
            is_kind = self.abs_refcat in REFCATS
            made = f"refcat/{group.file_stem}_{self.abs_refcat}.ecsv"
            steps["tweakreg"] = {"abs_refcat": made if is_kind else self.abs_refcat}
        return steps


_OF_MOSAIC = {"direct_image": "i2d.fits", "sourcecat": "cat.ecsv", "segmap": "segm.fits"}


def _level2_header(exposure: Exposure, pipeline: str) -> dict[str, str]:
    return {
        "asn_type": "spec2" if pipeline == "Spec2Pipeline" else "image2",
        "asn_rule": "DMSLevel2bBase",
        "asn_id": f"o{exposure.observation}" if exposure.observation else "a3001",
        "program": exposure.program or "00000",
        "target": exposure.target or "unknown",
        "asn_pool": "none",
        "product": exposure.root,
    }


def _check_shutters(exposures: Sequence[Exposure]) -> None:
    lacking = sorted({e.msa_file for e in exposures if e.msa_file and e.level != "cal"})
    lacking = [path for path in lacking if not os.path.exists(path)]
    if lacking:
        msg = (
            f"{listed(lacking)}: not there. MSAMETFL names them: they tell which shutters were "
            "open. Download them (download_uncal does), or put them beside the exposures."
        )
        raise InvalidExposureError(msg, parameter="files", value=lacking[0])


def _shortcomings(group: Association) -> list[str]:
    """Return what the pipeline will not do with a group, and does not say before."""
    notes = []
    slitless = [e for e in group.exposures if is_slitless(e)]
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
