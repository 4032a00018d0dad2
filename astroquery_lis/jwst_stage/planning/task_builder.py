"""From exposures to tasks: one per product and correction, and what each exposure has come to."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...exceptions import InvalidExposureError, InvalidRequestError
from ..pipelines import (
    EXP_TYPES,
    is_guider,
    stage1_estimate,
    stage2_estimate,
    stage3_estimate,
)
from ..tasks import REFCATS, Member, Task
from .associations import Association, header_of, headers_of, unique_ids
from .exposures import Exposure, configuration_key, split_name
from .footprints import n_pixels
from .groups import Request, Together, listed


class TaskBuilder:
    """The tasks so far, and the product that each exposure has come to."""

    def __init__(self, exposures: Sequence[Exposure], together: Together, request: Request) -> None:
        self.by_root = {e.root: e for e in exposures if e.root not in together.unwanted}
        self.together = together
        self.request = request
        self.groups = together.groups if 3 in request.stages else []
        members = (member for group in self.groups for member in group.members)
        self.spectra = {e.root for e, role in members if role == "background"}
        self.tasks: dict[str, Task] = {}
        self.current = {root: e.path for root, e in self.by_root.items()}
        self.level = {root: e.level for root, e in self.by_root.items()}
        self.rates: dict[str, str] = {}
        self.calibrated: dict[str, str] = {}
        self.notes = list(together.notes)
        self.problems: list[str] = []

    def build(self) -> tuple[Task, ...]:
        """Return all tasks, in an order that can be kept."""
        exposures = list(self.by_root.values())
        if 2 in self.request.stages:
            _check_shutters(exposures)
        for exposure in exposures:
            self._stage1(exposure)
        # What stage 2 subtracts are count rates: those of before any exposure had its stage 2.
        self.rates = dict(self.current)
        headers = headers_of(self.groups, check=self.request.check_associations)
        groups = list(zip(self.groups, headers, strict=True))
        # Slitless spectra wait for the mosaics that tell where the sources are.
        for slitless in (False, True):
            self._stages2_and_3(
                [e for e in _for_stage2(exposures) if e.is_slitless == slitless],
                [(group, header) for group, header in groups if group.is_slitless == slitless],
            )
        self._refuse_problems()
        return tuple(self.tasks.values())

    def _stages2_and_3(
        self,
        exposures: Iterable[Exposure],
        groups: Iterable[tuple[Association, dict[str, object]]],
    ) -> None:
        for exposure in exposures:
            self._stage2(exposure)
        for group, header in groups:
            self._stage3(group, header)

    def _refuse_problems(self) -> None:
        if self.problems:
            stages = self.request.stages
            parameter = "stages" if any("stage" in p for p in self.problems) else "corrections"
            msg = f"stages={stages!r}: {'; '.join(self.problems)}."
            raise InvalidRequestError(msg, parameter=parameter, value=stages)

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

    def _reach(self, exposure: Exposure, level: str, product: str) -> None:
        """Go on from a product that is not planned: an earlier run has to have left it."""
        path = self._earlier(product)
        if path:
            self.current[exposure.root], self.level[exposure.root] = path, level
            return
        stage = 1 if level == "rate" else 2
        self.problems.append(
            f"{Path(exposure.path).name} has to go through stage {stage} first, and {product} is "
            "not in the output directory"
        )

    def _earlier(self, product: str) -> str:
        """Return the path of a product of an earlier run, empty if there is none."""
        folder = self.request.output_dir
        path = "" if folder is None else os.path.abspath(os.path.join(folder, product))
        return path if os.path.exists(path) else ""

    def _correct(self, exposure: Exposure, stage: int, point: str) -> None:
        """Add the corrections at a point of the chain."""
        for correction in self.request.corrections_at(point, exposure):
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
        if self.level[exposure.root] == "uncal":
            outputs = _stage1_outputs(exposure, exposure.classes[0])
            if 1 not in self.request.stages:
                self._reach(exposure, "cal" if is_guider(exposure.exp_type) else "rate", outputs[0])
                return
            self._detect(exposure, outputs)
        if self.level[exposure.root] == "rate":
            self._correct(exposure, 1, "after_rate")

    def _detect(self, exposure: Exposure, outputs: tuple[str, ...]) -> None:
        """Add the pipeline that takes the ramps of an exposure."""
        pipeline = exposure.classes[0]
        makes_rates = pipeline == "Detector1Pipeline"
        within = self.request.corrections_at("after_jump", exposure) if makes_rates else []
        self._add(
            [exposure],
            outputs,
            stage=1,
            pipeline=pipeline,
            inputs=(exposure.path,),
            steps=self.request.steps_for(pipeline, [exposure]),
            corrections=tuple(correction.to_dict() for correction in within),
            estimate=stage1_estimate(exposure),
        )
        self.level[exposure.root] = "rate" if makes_rates else "end"

    # ---- stage 2 --------------------------------------------------------------------------------

    def _stage2(self, exposure: Exposure) -> None:
        """Add the calibration of an exposure, and the corrections after it."""
        _, pipeline, third = exposure.classes
        name = f"stage2/{exposure.root}_{'calints' if exposure.is_integrations else 'cal'}.fits"
        if self.level[exposure.root] == "rate" and pipeline:
            if 2 in self.request.stages:
                self._calibrate(exposure, name)
            elif third and 3 in self.request.stages:
                self._reach(exposure, "cal", name)
        if self.level[exposure.root] == "cal":
            self._correct(exposure, 2, "after_cal")
            self._correct(exposure, 2, "before_stage3")

    def _calibrate(self, exposure: Exposure, name: str) -> None:
        """Add the calibration of an exposure, unless what it needs is not there."""
        association = self._of_file(exposure) or self._of_rules(exposure)
        if association is None:
            return
        root = exposure.root
        header, members = _level2_header(exposure, association[0]), tuple(association[1])
        pipeline = "Spec2Pipeline" if "spec2" in header["asn_type"] else "Image2Pipeline"
        steps = self.request.steps_for(pipeline, [exposure])
        if members:
            members = (Member(self.current[root]), *members)
        inputs = [self.current[root], *(m.input for m in members), exposure.msa_file]
        self.calibrated[root] = name
        self._add(
            [exposure],
            (name, _spectrum(exposure)) if root in self.spectra else (name,),
            stage=2,
            pipeline=pipeline,
            inputs=tuple(dict.fromkeys(filter(None, inputs))),
            steps=steps,
            association=header if members else {},
            members=members,
            estimate=stage2_estimate(
                exposure,
                resample=not steps.get("resample", {}).get("skip", False),
                integrations=exposure.is_integrations,
            ),
        )
        self.level[root] = "cal"

    def _of_file(self, exposure: Exposure) -> tuple[Mapping[str, object], list[Member]] | None:
        """Return header and members that an association file of MAST gives."""
        if exposure.root not in self.together.files:
            return None
        header, roles = self.together.files[exposure.root]
        path = str(header["path"])
        members = {name: self._named(name, role, path) for name, role in roles}
        present = {name: member for name, member in members.items() if member is not None}
        if missing := sorted(Path(name).name for name in members.keys() - present):
            self.problems.append(
                f"{path}: its members {', '.join(missing)} are not among the files of any stage"
            )
        return header, self._uncalibrated(exposure, list(present.values()))

    def _named(self, expname: str, role: str, association_path: str) -> Member | None:
        """Return the member of a name: an exposure, a file beside, or a product of the plan."""
        root, name = split_name(expname)[0], Path(expname).name
        if root in self.by_root:
            return Member(self.rates[root], role)
        beside = os.path.join(os.path.dirname(association_path), name)
        if os.path.exists(beside):
            return Member(os.path.abspath(beside), role)
        if any(group.file_stem == root for group in self.together.groups):
            return self._of_mosaic(root, role, name)
        return None

    def _of_rules(self, exposure: Exposure) -> tuple[Mapping[str, object], list[Member]] | None:
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
            if not mosaic:
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

    def _direct_members(self, exposure: Exposure, direct: Exposure) -> list[Member]:
        """Return the mosaic that shows the sources of slitless spectra, and its two catalogues."""
        stems = (
            group.file_stem
            for group in self.together.groups
            if group.pipeline == "Image3Pipeline" and (direct, "science") in group.members
        )
        stem = next(stems, "")
        files = [self._of_mosaic(stem, role, f"{stem}_{end}") for role, end in _OF_MOSAIC.items()]
        members = [member for member in files if member is not None]
        if len(members) < len(_OF_MOSAIC):
            self.notes.append(
                f"{exposure.root}: no stage 2, since slitless spectra need the mosaic of "
                f"{direct.root} and its catalogue; add stage 3 to stages=."
            )
            return []
        return members

    def _of_mosaic(self, stem: str, role: str, name: str) -> Member | None:
        mosaic, file = f"stage3/{stem}_i2d.fits", f"stage3/{name}"
        if mosaic in self.tasks:
            return Member(mosaic, role, file="" if file == mosaic else file)
        path = self._earlier(file)
        return Member(path, role) if path else None

    # ---- stage 3 --------------------------------------------------------------------------------

    def _stage3_member(self, exposure: Exposure, role: str, group_id: str = "") -> Member:
        """Return a member of a product; a background of stage 3 is a spectrum."""
        current = self.current[exposure.root]
        if role != "background":
            return Member(current, role, group_id)
        spectrum = _spectrum(exposure)
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
        members = self._stage3_members(group, unique_ids(group.exposures) if is_mosaic else {})
        self.notes += [f"{group.file_stem}: {why}." for why in _shortcomings(group)]
        steps = self.request.steps_for(group.pipeline, group.exposures)
        output_pixels = None
        if is_mosaic:
            output_pixels = n_pixels(group.exposures, self.request.grid)
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

    def _stage3_members(self, group: Association, ids: Mapping[str, str]) -> tuple[Member, ...]:
        """Return the members of a product, with ids of their own where they need them."""
        if ids:
            self.notes.append(
                f"{group.file_stem}: exposures share the exposure id of the header; they are told "
                f"apart as {', '.join(sorted(set(ids.values())))} in the association."
            )
        return tuple(self._stage3_member(e, role, ids.get(e.root, "")) for e, role in group.members)

    def _mosaic_steps(self, group: Association) -> dict[str, dict[str, object]]:
        """Return the parameters that a plan itself adds: the grid and the reference catalogue."""
        grid, catalog = self.request.grid, self.request.abs_refcat
        steps = {"resample": grid} if grid else {}
        if catalog in REFCATS:
            # It is made by prefetch_references, below the output directory.
            catalog = f"refcat/{group.file_stem}_{catalog}.ecsv"
        if catalog is not None:
            steps["tweakreg"] = {"abs_refcat": catalog}
        return steps


_OF_MOSAIC = {"direct_image": "i2d.fits", "sourcecat": "cat.ecsv", "segmap": "segm.fits"}


def _for_stage2(exposures: Sequence[Exposure]) -> Sequence[Exposure]:
    """Return the exposures that have a product of their own in stage 2."""
    if all(e.is_acquisition for e in exposures):
        return exposures
    return [e for e in exposures if not (e.is_acquisition or e.is_imprint)]


def _spectrum(exposure: Exposure) -> str:
    suffix = "x1dints" if exposure.is_integrations else "x1d"
    return f"stage2/{exposure.root}_{suffix}.fits"


def _level2_header(exposure: Exposure, association: Mapping[str, Any]) -> dict[str, str]:
    """Return the header of an association of stage 2: what is known of it, and defaults."""
    asn_type = "spec2" if exposure.classes[1] == "Spec2Pipeline" else "image2"
    header = header_of(exposure, asn_type, "DMSLevel2bBase") | {"product": exposure.root}
    values = ((name, association.get(name)) for name in header)
    return header | {name: str(value) for name, value in values if value is not None}


def _check_shutters(exposures: Sequence[Exposure]) -> None:
    needed = {e.msa_file for e in exposures if e.msa_file and e.level != "cal"}
    lacking = sorted(path for path in needed if not os.path.exists(path))
    if lacking:
        msg = (
            f"{listed(lacking)}: not there. MSAMETFL names them: they tell which shutters were "
            "open. Download them (download_uncal does), or put them beside the exposures."
        )
        raise InvalidExposureError(msg, parameter="files", value=lacking[0])


def _shortcomings(group: Association) -> list[str]:
    """Return what the pipeline will not do with a group, and does not say before."""
    lacking = [e.root for e in group.exposures if e.is_slitless and not e.s_region]
    notes = []
    if lacking:
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
    if exposure.is_integrations:
        return (f"{root}_rateints.fits", f"{root}_rate.fits")
    if exposure.n_ints > 1:
        return (f"{root}_rate.fits", f"{root}_rateints.fits")
    return (f"{root}_rate.fits",)


def _stage3_outputs(group: Association, steps: Mapping[str, Mapping]) -> tuple[str, ...]:
    stem = f"stage3/{group.file_stem}"
    if group.pipeline == "WfsCombineStep":
        return (f"{stem}.fits",)
    skipped = {name for name, values in steps.items() if values.get("skip")}
    suffixes = _SUFFIXES_OF[group.pipeline](group, skipped)
    # How many files, and under which names, is known only when the sources are.
    first = () if suffixes and group.pipeline != "Tso3Pipeline" else ("asn.json",)
    return tuple(f"{stem}_{suffix}" for suffix in (*first, *suffixes))


def _of_images(group: Association, skipped: AbstractSet[str]) -> tuple[str, ...]:
    return ("i2d.fits",)


def _of_series(group: Association, skipped: AbstractSet[str]) -> tuple[str, ...]:
    step, suffix = _MAKING_SERIES[group.exposures[0].classes[1]]
    return () if step in skipped else (suffix,)


def _of_spectra(group: Association, skipped: AbstractSet[str]) -> tuple[str, ...]:
    kinds = {EXP_TYPES[e.exp_type] for e in group.science}
    return () if skipped & _MAKING_SPECTRA or len(kinds) > 1 else kinds.pop().spectra


def _of_fringes(group: Association, skipped: AbstractSet[str]) -> tuple[str, ...]:
    # Without a star there is nothing to compare the fringes with.
    has_star = any(role == "psf" for _, role in group.members)
    return ("aminorm-oi.fits",) if has_star else ()


_SUFFIXES_OF = {
    "Image3Pipeline": _of_images,
    "Coron3Pipeline": _of_images,
    "Tso3Pipeline": _of_series,
    "Spec3Pipeline": _of_spectra,
    "Ami3Pipeline": _of_fringes,
}
"""What gives the endings of products whose names are known before, the main first."""

_MAKING_SERIES = {
    "Image2Pipeline": ("tso_photometry", "phot.ecsv"),
    "Spec2Pipeline": ("extract_1d", "x1dints.fits"),
}
_MAKING_SPECTRA = {"extract_1d", "resample_spec", "combine_1d"}
