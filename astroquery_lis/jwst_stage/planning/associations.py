"""Associations: what the rules of the `jwst` package put together, and the files it reads.

The rules read a pool, a table of the archive's.  Here it is made of headers: what the archive knows
and headers do not are the candidates, sets of observations that the proposer wanted together.  Each
observation is one, and another with the backgrounds and imprints of its program; all observations
of a program are a group, which brings reference stars and rolls of a target together.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

from ..._typing import FilePath
from ...exceptions import StageError
from ..pipelines import IMAGING, STAGE3_PIPELINES, ask, require_jwst
from ..tasks import Task, member_path
from .exposures import FLAGS, KEYWORDS, Exposure, grouped


class FileMember(TypedDict):
    """A member of a product in an association file."""

    expname: str
    exptype: NotRequired[str]


class FileProduct(TypedDict):
    """A product in an association file."""

    name: str
    members: list[FileMember]


_WHOLE_PROGRAM = "c1001"
_FIRST_WITH_BACKGROUND = 1002
_WITHIN_AN_OBSERVATION = ("Tso3Pipeline", "WfsCombineStep")

_WORDS = (
    "program", "visit", "visit_type", "visit_group", "sequence_id", "activity_id",
    "exposure_number", "exp_type", "instrument", "detector", "channel", "module", "filter", "pupil",
    "grating", "band", "slit", "lamp", "subarray", "patttype",
)  # fmt: skip
_COLUMNS = {keyword.lower(): name for name, keyword in FLAGS.items()} | {
    **{KEYWORDS[name].lower(): name for name in _WORDS},
    "nints": "n_ints",
    "patt_num": "position_number",
}
"""Columns of a pool, and the attributes of an exposure that hold them."""


@dataclass(frozen=True, slots=True)
class Association:
    """What belongs together in one product of stage 2 or 3.

    ``header`` is the association without its product, whose name may hold ``{source_id}`` and
    ``{slit_name}`` for the pipeline.  ``members`` are the exposures with their roles, ``suffix`` is
    that of the science members, ``direct`` a direct image whose mosaic gives slitless spectra their
    sources, and ``key`` what the exposures have in common.
    """

    origin: Literal["rules", "images", "file"]
    header: Mapping[str, object]
    product: str
    members: tuple[tuple[Exposure, str], ...]
    suffix: str = ""
    direct: Exposure | None = None
    key: tuple[str, ...] = ()

    @property
    def exposures(self) -> list[Exposure]:
        """All members, without their roles."""
        return [exposure for exposure, _ in self.members]

    @property
    def science(self) -> list[Exposure]:
        """Members whose product it is."""
        return [exposure for exposure, role in self.members if role == "science"]

    @property
    def is_slitless(self) -> bool:
        """Whether spectra of a field are among the members."""
        return any(exposure.is_slitless for exposure in self.exposures)

    @property
    def pipeline(self) -> str:
        """Class that stage 3 runs on it."""
        return STAGE3_PIPELINES[str(self.header["asn_type"]).lower()]

    @property
    def file_stem(self) -> str:
        """Name of the product without what the pipeline fills in."""
        stem = re.sub(r"\{source_id\}|\{slit_name\}", "", self.product)
        stem = stem.replace("{suffix}", "wfscmb")
        return re.sub(r"-*_[-_]*", "_", stem).rstrip("-")


def header_of(exposure: Exposure, asn_type: str, asn_rule: str) -> dict[str, str]:
    """Return the header of an association that no rule of the package makes."""
    return {
        "asn_type": asn_type,
        "asn_rule": asn_rule,
        "asn_id": f"o{exposure.observation}" if exposure.observation else "a3001",
        "program": exposure.program or "00000",
        "target": exposure.target or "unknown",
        "asn_pool": "none",
    }


def is_stage3(header: Mapping[str, Any]) -> bool:
    """Return True for the association of a product of calibrated exposures."""
    return str(header.get("asn_type", "")).endswith("3")


def is_plain(exposures: Sequence[Exposure]) -> bool:
    """Return True if all are images that stage 2 takes one by one and stage 3 as mosaics."""
    return all(
        e.exp_type in IMAGING
        and e.classes[2] == "Image3Pipeline"
        and not (e.is_for_others or e.is_tso)
        for e in exposures
    )


def associate(
    exposures: Iterable[Exposure], targets: Sequence[str]
) -> tuple[list[Association], list[Association]]:
    """Return the associations of stage 2 and of stage 3; ``targets`` gives each its number."""
    programs = grouped(exposures, attrgetter("program"))
    if not programs:
        return [], []
    require_jwst()
    text = json.dumps([_rows(pool, targets) for pool in programs.values()])
    level2: list[Association] = []
    level3: list[Association] = []
    for pool, answers in zip(programs.values(), _asked("rules_in_process", text), strict=True):
        associations = [_association(values, pool) for values in answers]
        level2 += _fullest(a for a in associations if not is_stage3(a.header))
        level3 += _widest(a for a in associations if is_stage3(a.header))
    return level2, level3


def _rows(exposures: Sequence[Exposure], targets: Sequence[str]) -> list[dict[str, str]]:
    candidates = _Candidates(exposures)
    return [
        _row(exposure, index, targets) | {"asn_candidate": str(candidates.of(exposure))}
        for index, exposure in enumerate(exposures)
    ]


class _Candidates:
    """The sets of observations of a program that belong together, as the archive knows them."""

    def __init__(self, exposures: Sequence[Exposure]) -> None:
        self._places = {_place(e) for e in exposures}
        self._serving = {_place(e) for e in exposures if e.is_background}
        self._serving |= self._places - {_place(e) for e in exposures if not e.is_imprint}
        self._served = sorted(
            {_place(e) for e in exposures if not (e.is_background or e.is_imprint)}
        )

    def of(self, exposure: Exposure) -> list[tuple[str, str]]:
        """Return the candidates that the observation of an exposure is part of."""
        own = _place(exposure)
        candidates = [(f"o{own[1]}", "observation")]
        if len(self._places) > 1 and exposure.classes[2] not in _WITHIN_AN_OBSERVATION:
            candidates.append((_WHOLE_PROGRAM, "group"))
        if self._serving:
            candidates += self._with_backgrounds(own)
        return candidates

    def _with_backgrounds(self, own: tuple[str, str]) -> list[tuple[str, str]]:
        """Return those of an observation, or of one that serves any of its instrument."""
        numbered = enumerate(self._served, _FIRST_WITH_BACKGROUND)
        n_shared = 1 if own in self._serving else 2
        return [
            (f"c{n}", "background") for n, place in numbered if place[:n_shared] == own[:n_shared]
        ]


def _place(exposure: Exposure) -> tuple[str, str]:
    return exposure.instrument, exposure.observation or "001"


def _row(exposure: Exposure, index: int, targets: Sequence[str]) -> dict[str, str]:
    # A number stands for the name, which the rules would have to be able to read.
    row = {name: _word(getattr(exposure, attribute)) for name, attribute in _COLUMNS.items()}
    row |= {name.lower(): _word(value) for name, value in exposure.pool.items()}
    defaults = {
        "subpxpns": row.get("subpxpts", "null"),
        "dithptin": row["patt_num"],
        "mostilno": "1",
        "dms_note": "null",
        "obs_id": f"v{exposure.program}{exposure.observation}{exposure.visit}p0",
    }
    return {
        **defaults,
        **row,
        "obs_num": _place(exposure)[1],
        "filename": f"{index:06d}_uncal.fits",
        "targetid": str(targets.index(exposure.target) + 1),
        "pntgtype": "target_acquisition" if exposure.is_acquisition else "science",
    }


def _word(value: str | bool | int) -> str:
    if isinstance(value, bool):
        return "t" if value else "f"
    word = str(value).strip().lower()
    return "null" if word in ("", "n/a", "none") else word


def _association(values: Mapping[str, Any], pool: Sequence[Exposure]) -> Association:
    return Association(
        "rules",
        header=values["header"],
        product=values["product"],
        members=tuple((pool[index], role) for index, role in values["members"]),
        suffix=values["suffix"],
        direct=None if values["direct"] is None else pool[values["direct"]],
    )


def _fullest(associations: Iterable[Association]) -> list[Association]:
    """Return one association for each exposure: that with most members of the right kind."""
    best: dict[str, Association] = {}
    for association in associations:
        exposure = association.science[0]
        if association.suffix != ("rateints" if exposure.is_integrations else "rate"):
            continue
        other = best.get(exposure.root)
        if other is None or len(other.members) < len(association.members):
            best[exposure.root] = association
    return list(best.values())


class _Extent(NamedTuple):
    """What an association covers."""

    kind: tuple[object, str]
    science: frozenset[str]
    members: frozenset[tuple[str, str]]

    def is_part_of(self, other: _Extent) -> bool:
        if self.kind != other.kind or not self.science <= other.science:
            return False
        return self.science < other.science or self.members <= other.members


def _extent(association: Association) -> _Extent:
    return _Extent(
        (association.header["asn_rule"], association.suffix),
        frozenset(e.root for e in association.science),
        frozenset((e.root, role) for e, role in association.members),
    )


def _widest(associations: Iterable[Association]) -> list[Association]:
    """Return the associations that are no part of another one."""
    associations = list(associations)
    extents = dict(enumerate(map(_extent, associations)))
    widest: dict[int, _Extent] = {}
    sizes = {i: (-len(e.science), -len(e.members)) for i, e in extents.items()}
    for i in sorted(sizes, key=sizes.__getitem__):
        if not any(map(extents[i].is_part_of, widest.values())):
            widest[i] = extents[i]
    return [associations[i] for i in sorted(widest)]


@functools.lru_cache(maxsize=32)
def _asked(function: str, text: str) -> list:
    """Return what a function of this module gives for each of some things, in the pipeline."""
    return ask(f"planning.associations:{function}", {"asked": json.loads(text)})["answers"]


# ---- in the process of the pipeline -------------------------------------------------------------

_HEADER = ("asn_type", "asn_rule", "asn_id", "program", "target", "degraded_status", "code_version")


def rules_in_process(job: Mapping[str, Any]) -> dict[str, list[list[dict[str, object]]]]:
    """Return the associations of each of ``job['asked']``, lists of rows."""
    from jwst.associations import AssociationPool
    from jwst.associations.generator.generate_per_candidate import generate_per_candidate

    pools = []
    for rows in job["asked"]:
        names = sorted({name for row in rows for name in row})
        table = [[row.get(name, "null") for row in rows] for name in names]
        pool = AssociationPool(table, names=names)
        pools.append([_values(asn) for asn in generate_per_candidate(pool, None)])
    return {"answers": pools}


def _values(association: Any) -> dict[str, object]:
    product, direct = association["products"][0], getattr(association, "direct_image", None)
    members = [
        (int(index), role, suffix)
        for index, role, suffix in map(_member, product["members"])
        # The mosaic of direct images has no number; `direct` stands for it.
        if index.isdigit()
    ]
    return {
        "header": {name: association.data[name] for name in _HEADER if name in association.data},
        "product": product["name"],
        "members": [(index, role) for index, role, _ in members],
        "suffix": {role: suffix for _, role, suffix in members}.get("science", ""),
        "direct": None if direct is None else int(direct["expname"].partition("_")[0]),
    }


def _member(member: Mapping[str, str]) -> tuple[str, str, str]:
    """Return the number of an exposure of the pool, its role, and the suffix of its file."""
    index, _, suffix = member["expname"].removesuffix(".fits").rpartition("_")
    return index, member["exptype"].lower(), suffix


# ---- the files that the pipeline is run with -----------------------------------------------------


def unique_ids(exposures: Sequence[Exposure]) -> dict[str, str]:
    """Return ids that keep exposures apart where those in the headers do not."""
    shared = grouped(exposures, attrgetter("exposure_id"))
    shared.pop("", None)
    return {
        root: own
        for exposure_id, files in shared.items()
        for root, own in _own_ids(exposure_id, files).items()
    }


def _own_ids(exposure_id: str, files: Sequence[Exposure]) -> dict[str, str]:
    """Return an id for each file of a detector that has several with one id; else none."""
    if not _has_twice(e.detector for e in files):
        return {}
    if _has_twice((e.detector, e.date, e.time) for e in files):
        return {e.root: e.root for e in files}
    starts = sorted({(e.date, e.time) for e in files})
    return {e.root: f"{exposure_id}.{starts.index((e.date, e.time)) + 1}" for e in files}


def _has_twice(values: Iterable[object]) -> bool:
    return max(Counter(values).values()) > 1


def headers_of(groups: Sequence[Association], *, check: bool) -> list[dict[str, object]]:
    """Return the header of each association of stage 3, completed where no rule made it."""
    bare = [i for i, group in enumerate(groups) if check and group.origin != "rules"]
    completed = dict(zip(bare, complete([_document(groups[i]) for i in bare]), strict=True))
    return [
        {**completed.get(i, group.header), "product": _product(group)}
        for i, group in enumerate(groups)
    ]


def _document(group: Association) -> dict[str, object]:
    members = [{"expname": f"{e.root}_cal.fits", "exptype": role} for e, role in group.members]
    return {**group.header, "products": [{"name": group.product, "members": members}]}


def _product(group: Association) -> str:
    # The spectra of slitless exposures are saved together, under the name as it stands.
    return group.file_stem if group.is_slitless else group.product


def complete(associations: Iterable[dict]) -> list[dict[str, object]]:
    """Return associations as the `jwst` package makes and reads them."""
    associations = list(associations)
    bare = [{k: v for k, v in a.items() if k != "products"} for a in associations]
    if not associations or importlib.util.find_spec("jwst") is None:
        return bare
    answers = _asked("complete_in_process", json.dumps(associations))
    refusals = [
        f"{association['products'][0]['name']}: {answer['error']}"
        for association, answer in zip(associations, answers, strict=True)
        if "error" in answer
    ]
    if refusals:
        msg = f"jwst.associations refuses {'; '.join(refusals)}."
        raise StageError(msg)
    return answers


def complete_in_process(job: dict[str, Any]) -> dict[str, list[dict[str, object]]]:
    """Do the work of `complete`, in a process of the pipeline."""
    return {"answers": [_complete(association) for association in job["asked"]]}


def _complete(association: dict[str, Any]) -> dict[str, object]:
    from jwst.associations import load_asn
    from jwst.associations.asn_from_list import asn_from_list
    from jwst.associations.lib.rules_level3_base import DMS_Level3_Base

    try:
        product = association["products"][0]
        complete = dict(association)
        if association["asn_rule"] == "DMS_Level3_Base":
            members = [(m["expname"], m["exptype"]) for m in product["members"]]
            built = asn_from_list(
                members, rule=DMS_Level3_Base, product_name=product["name"], with_exptype=True
            )
            complete = {**json.loads(built.dump(format="json")[1]), **association}
        loaded = load_asn(json.dumps(complete))
        names = [m["expname"] for m in loaded["products"][0]["members"]]
        if names != [m["expname"] for m in product["members"]]:
            return {"error": f"read back with members {names}"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    del complete["products"]
    return {name: value for name, value in complete.items() if value is not None}


def association_document(
    task: Task, output_dir: FilePath, directory: FilePath | None
) -> dict[str, object]:
    """Return the association of a task, with paths from a directory, or with bare names."""
    members = []
    for member in task.members:
        path = os.path.abspath(member_path(member, output_dir))
        name = os.path.basename(path) if directory is None else os.path.relpath(path, directory)
        entry = {"expname": name, "exptype": member.exptype}
        if member.group_id:
            entry["group_id"] = member.group_id
        members.append(entry)
    header = {k: v for k, v in task.association.items() if k != "product"}
    return {**header, "products": [{"name": task.association["product"], "members": members}]}


def association_path(task: Task, directory: FilePath) -> Path:
    """Return where the association of a task is written."""
    stem = Path(task.name).stem
    # The product of a pair has no ending of its kind.
    stem = stem if task.pipeline == "WfsCombineStep" else stem.rpartition("_")[0]
    return Path(directory) / f"{stem}_asn.json"


def write_association(task: Task, output_dir: FilePath, directory: FilePath) -> Path:
    """Write the association of a task for a pipeline that finds the members beside it."""
    path = association_path(task, directory)
    document = association_document(task, output_dir, None)
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path
