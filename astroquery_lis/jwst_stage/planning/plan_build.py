"""From exposures to tasks: one per product and correction, in an order that can be kept."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...exceptions import InvalidExposureError, InvalidRequestError
from ..tasks import Member
from .association_files import complete
from .associations import Together, is_stage3_file, listed, members_of, put_together
from .exposures import split_name
from .pipelines import EXP_TYPES, is_integrations, stage_classes
from .rules import is_acquisition
from .task_builder import TaskBuilder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..corrections import Correction
    from ..tasks import Task
    from .associations import GroupBy
    from .exposures import Exposure
    from .rules import Association
    from .task_builder import StepsFor


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
    grid: dict[str, Any] | None = None,
    abs_refcat: str | None = None,
    check_associations: bool = True,
) -> tuple[tuple[Task, ...], list[str]]:
    """Return the tasks."""
    together = Together({}, [], frozenset(), [])
    if {2, 3} & set(stages):
        together = put_together(
            exposures,
            group_by=group_by,
            product_name=product_name,
            files=associations,
            stage3=3 in stages,
        )
    kept = [e for e in exposures if e.root not in together.unwanted]
    groups = together.groups if 3 in stages else []
    builder = TaskBuilder(
        kept,
        stages=stages,
        steps_for=steps_for,
        corrections=corrections,
        output_dir=output_dir,
        grid=grid or {},
        abs_refcat=abs_refcat,
        spectra=[e.root for g in groups for e, role in g.members if role == "background"],
    )
    builder.notes += together.notes
    if 2 in stages:
        _check_shutters(kept)
    for exposure in kept:
        builder.stage1(exposure)
    # What stage 2 subtracts are count rates: those of before any exposure had its stage 2.
    files = [file for file in associations if not is_stage3_file(file)]
    calibration = _Calibration(builder, together, files, dict(builder.current))
    second = [e for e in kept if not (is_acquisition(e) or e.is_imprint)]
    if all(map(is_acquisition, kept)):
        second = kept
    filled = list(zip(groups, _headers(groups, check_associations), strict=True))
    # Slitless spectra wait for the mosaics that tell where the sources are.
    for slitless in (False, True):
        for exposure in second:
            if _is_slitless(exposure) == slitless:
                calibration.add(exposure)
        for group, header in filled:
            if any(map(_is_slitless, group.exposures)) == slitless:
                _third(builder, group, header)
    if builder.problems:
        parameter = "stages" if any("stage" in p for p in builder.problems) else "corrections"
        msg = f"stages={tuple(stages)!r}: {'; '.join(builder.problems)}."
        raise InvalidRequestError(msg, parameter=parameter, value=stages)
    return tuple(builder.tasks), builder.notes


def _is_slitless(exposure: Exposure) -> bool:
    return EXP_TYPES[exposure.exp_type].is_slitless


def _check_shutters(exposures: Sequence[Exposure]) -> None:
    lacking = sorted({e.msa_file for e in exposures if e.msa_file and e.level != "cal"})
    lacking = [path for path in lacking if not os.path.exists(path)]
    if lacking:
        msg = (
            f"{listed(lacking)}: not there. MSAMETFL names them: they tell which shutters were "
            "open. Download them (download_uncal does), or put them beside the exposures."
        )
        raise InvalidExposureError(msg, parameter="files", value=lacking[0])


@dataclass(frozen=True)
class _Calibration:
    """What stage 2 of an exposure is given: by MAST's files, by the rules, or nothing."""

    builder: TaskBuilder
    together: Together
    files: list[dict]
    rates: dict[str, str]

    def add(self, exposure: Exposure) -> None:
        """Add stage 2 of an exposure, and the corrections after it."""
        builder = self.builder
        if builder.level[exposure.root] == "cal":
            builder.correct(exposure, 2, "after_cal", "before_stage3")
            return
        pipeline = stage_classes(exposure)[1]
        if not pipeline or builder.level[exposure.root] != "rate":
            return
        if 2 not in builder.stages:
            if 3 in builder.stages and stage_classes(exposure)[2]:
                suffix = "calints" if is_integrations(exposure) else "cal"
                if builder.reach(exposure, "cal", f"stage2/{exposure.root}_{suffix}.fits"):
                    builder.correct(exposure, 2, "after_cal", "before_stage3")
            return
        header = _level2_header(exposure, pipeline)
        members = self._of_file(exposure, header)
        if members is None:
            members = self._of_rules(exposure, header)
        if members is None:
            return
        builder.stage2(exposure, members, header)
        builder.correct(exposure, 2, "after_cal", "before_stage3")

    def _of_file(self, exposure: Exposure, header: dict[str, Any]) -> list[Member] | None:
        """Return the members that an association file of MAST gives, and take its header."""
        for association in self.files:
            for product in association["products"]:
                roles = members_of(product)
                roots = [split_name(name)[0] for name, role in roles if role == "science"]
                if exposure.root not in roots:
                    continue
                header |= {k: v for k, v in association.items() if k in header}
                found = {n: self._named(n, role, association["path"]) for n, role in roles
                         if role != "science"}  # fmt: skip
                missing = sorted(Path(name).name for name, member in found.items() if not member)
                if missing:
                    self.builder.problems.append(
                        f"{association['path']}: its members {', '.join(missing)} are not among "
                        "the files of any stage"
                    )
                return self._uncalibrated(exposure, [m for m in found.values() if m])
        return None

    def _named(self, expname: str, role: str, association_path: str) -> Member | None:
        """Return the member of a name: an exposure, a product of the plan, or a file beside."""
        root = split_name(expname)[0]
        if root in self.builder.by_root:
            return Member(self.rates[root], role)
        name = Path(expname).name
        mosaic = f"stage3/{root}_i2d.fits"
        beside = os.path.join(os.path.dirname(association_path), name)
        if os.path.exists(beside):
            return Member(os.path.abspath(beside), role)
        if any(group.file_stem == root for group in self.together.groups):
            return self._of_mosaic(mosaic, role, name)
        return None

    def _of_rules(self, exposure: Exposure, header: dict[str, Any]) -> list[Member] | None:
        """Return the members by the rules, nothing if they want none, `None` if one is missing."""
        association = self.together.calibrations.get(exposure.root)
        if association is None:
            return []
        header |= {k: v for k, v in association.header.items() if k in header}
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
        return self._uncalibrated(exposure, members)

    def _uncalibrated(self, exposure: Exposure, members: list[Member]) -> list[Member]:
        """Return the members that stage 2 can use, and note those that were calibrated before."""
        by_path = {e.path: e for e in self.builder.by_root.values() if e.level == "cal"}
        late = [m for m in members if m.input in by_path]
        if late:
            names = listed(by_path[m.input].root for m in late)
            self.builder.notes.append(
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
            self.builder.notes.append(
                f"{exposure.root}: no stage 2, since slitless spectra need the mosaic of "
                f"{direct.root} and its catalogue; add stage 3 to stages=."
            )
            return None
        return [member for member in members if member is not None]

    def _of_mosaic(self, mosaic: str, role: str, name: str) -> Member | None:
        file = f"stage3/{name}"
        if mosaic in self.builder.names:
            return Member(mosaic, role, file="" if file == mosaic else file)
        path = os.path.join(self.builder.output_dir or "", file)
        if self.builder.output_dir is not None and os.path.exists(path):
            return Member(os.path.abspath(path), role)
        return None


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


def _third(builder: TaskBuilder, group: Association, header: dict[str, Any]) -> None:
    members = tuple((e, role) for e, role in group.members if builder.level.get(e.root) == "cal")
    if not any(role == "science" for _, role in members):
        # The reason is among the problems or the notes already.
        return
    builder.stage3(replace(group, members=members), header)


def _headers(groups: list[Association], check: bool) -> list[dict]:
    """Return the header of each association of stage 3, completed where no rule made it."""
    bare = [i for i, group in enumerate(groups) if check and group.origin != "rules"]
    completed = dict(zip(bare, complete([_document(groups[i]) for i in bare]), strict=True))
    return [
        {**completed.get(i, group.header), "product": _product(group)}
        for i, group in enumerate(groups)
    ]


def _document(group: Association) -> dict[str, Any]:
    members = [{"expname": f"{e.root}_cal.fits", "exptype": role} for e, role in group.members]
    return {**group.header, "products": [{"name": group.product, "members": members}]}


def _product(group: Association) -> str:
    # The spectra of slitless exposures are saved together, under the name as it stands.
    return group.file_stem if any(map(_is_slitless, group.exposures)) else group.product
