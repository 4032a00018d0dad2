"""What belongs together in stages 2 and 3, and the association files that say so.

Level 2 follows the rules of the `jwst` package as far as headers tell what they need: exposures of
a background target, and the other nods of a pattern, are backgrounds; imprints go with the
exposures of their observation.  Level 3 puts together what has one target, instrument, filter,
pupil and mode.  A product is named as MAST does.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import json
import os
import string
from collections import Counter, defaultdict
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...exceptions import InvalidRequestError, StageError
from ..pipeline import ask
from ..tasks import input_path
from .exposures import Exposure
from .pipelines import ASN_TYPES, EXP_TYPES, stage_classes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..._typing import FilePath
    from ..tasks import Task

    GroupBy = str | Sequence[str] | Callable[[Exposure], str]

__all__ = [
    "Group",
    "association_document",
    "association_path",
    "complete",
    "complete_in_process",
    "level2_members",
    "level3_groups",
    "unique_ids",
    "write_association",
]

_KEYS = {
    "Image3Pipeline": ("program", "target", "instrument", "filter", "pupil", "exp_type"),
    "Coron3Pipeline": (
        "program", "target", "instrument", "filter", "pupil", "exp_type", "mask", "subarray",
    ),
    "Ami3Pipeline": ("program", "target", "instrument", "filter", "pupil", "exp_type", "subarray"),
    "Tso3Pipeline": (
        "program", "target", "instrument", "filter", "pupil", "grating", "exp_type", "detector",
        "subarray",
    ),
    "Spec3Pipeline": (
        "program", "target", "instrument", "filter", "pupil", "grating", "exp_type", "slit",
    ),
    "WfsCombineStep": (
        "program", "target", "instrument", "filter", "pupil", "exp_type", "observation", "visit",
        "activity_id", "detector",
    ),
}  # fmt: skip

_TEMPLATE_FIELDS = (
    "program", "asn_id", "target_id", "target", "instrument", "optelem", "filter", "pupil",
    "grating", "detector", "channel", "module", "exp_type", "subarray", "observation", "visit",
)  # fmt: skip
_PLAIN_SUBARRAYS = ("", "FULL", "GENERIC", "N/A", "NONE")
_OPTICAL = ("instrument", "detector", "filter", "pupil", "grating", "band", "slit", "subarray")


@dataclass(frozen=True, slots=True)
class Group:
    """The exposures of one product of stage 3, with their roles, 'science' first.

    ``product`` may hold ``{source_id}`` and ``{slit_name}`` for the pipeline, ``asn_id`` is such as
    'o001' for an observation and 'c1001' for several, ``source`` the association file that the
    group comes from, if any, and ``key`` what the exposures have in common.
    """

    pipeline: str
    product: str
    asn_id: str
    program: str
    target: str
    members: tuple[tuple[Exposure, str], ...]
    source: dict[str, Any] = field(default_factory=dict)
    key: tuple[str, ...] = ()

    @property
    def exposures(self) -> list[Exposure]:
        """All members, without their roles."""
        return [exposure for exposure, _ in self.members]

    @property
    def file_stem(self) -> str:
        """Name of the product without what the pipeline fills in."""
        stem = self.product.replace("{source_id}", "").replace("{slit_name}", "")
        while "__" in stem or "-_" in stem or "_-" in stem or stem.endswith("-"):
            stem = stem.replace("__", "_").replace("-_", "_").replace("_-", "_").rstrip("-")
        return stem


def level2_members(exposure: Exposure, exposures: Sequence[Exposure]) -> list[tuple[Exposure, str]]:
    """Return what an exposure is calibrated with in stage 2."""
    alike = [
        other
        for other in exposures
        if other.root != exposure.root
        and other.program == exposure.program
        and all(getattr(other, name) == getattr(exposure, name) for name in _OPTICAL)
    ]
    imprints = [
        (other, "imprint")
        for other in alike
        if other.is_imprint and other.observation == exposure.observation
    ]
    same = [e for e in alike if not e.is_imprint and e.exp_type == exposure.exp_type]
    if exposure.is_background:
        return imprints
    backgrounds = [(other, "background") for other in same if other.is_background]
    if not backgrounds and "NOD" in exposure.patttype.upper():
        backgrounds = [
            (other, "background")
            for other in same
            if (other.target, other.observation) == (exposure.target, exposure.observation)
            and other.position_number != exposure.position_number
        ]
    return backgrounds + imprints


def level3_groups(
    exposures: Sequence[Exposure],
    *,
    group_by: GroupBy | None = None,
    product_name: str | None = None,
    associations: Sequence[dict] = (),
) -> tuple[list[Group], list[str]]:
    """Return the products of stage 3."""
    notes = []
    groups = [_from_file(association, exposures) for association in associations]
    named = {e.root for group in groups for e, role in group.members if role == "science"}
    sets = defaultdict(list)
    for exposure in sorted(exposures, key=_when):
        pipeline = stage_classes(exposure)[2]
        if pipeline and exposure.root not in named and not exposure.is_imprint:
            if exposure.is_psf and pipeline in ("Coron3Pipeline", "Ami3Pipeline"):
                continue
            sets[(pipeline, *_key(exposure, pipeline, group_by))].append(exposure)
    targets = list(dict.fromkeys(e.target for e in sorted(exposures, key=_when)))
    n_mixed = 0
    for key, science in sets.items():
        members = [(e, "science") for e in science]
        members += [(e, "psf") for e in _references(science[0], exposures, key[0])]
        if why := _impossible(key[0], science, members):
            notes.append(why)
            continue
        observations = {e.observation for e in science}
        if len(observations) > 1:
            n_mixed += 1
            asn_id = f"c{1000 + n_mixed}"
        else:
            asn_id = f"o{science[0].observation}" if science[0].observation else "a3001"
        group = Group(
            pipeline=key[0],
            product="",
            asn_id=asn_id,
            program=science[0].program or "00000",
            target=science[0].target or "unknown",
            members=tuple(members),
            key=key[1:],
        )
        groups.append(replace(group, product=_product_name(group, targets, product_name)))
    return _distinct(groups, product_name), notes


def _when(exposure: Exposure) -> tuple[str, str, str]:
    return (exposure.date, exposure.time, exposure.root)


def _key(exposure: Exposure, pipeline: str, group_by: GroupBy | None) -> tuple[str, ...]:
    if callable(group_by):
        return (str(group_by(exposure)),)
    if group_by is None:
        mixed = EXP_TYPES[exposure.exp_type].mixed
        key = [getattr(exposure, n) for n in _KEYS[pipeline] if n not in mixed]
        return (*key, "background" if exposure.is_background else "")
    names = (group_by,) if isinstance(group_by, str) else tuple(group_by)
    allowed = [f.name for f in fields(Exposure) if f.type in ("str", "bool", str, bool)]
    for name in names:
        if name not in allowed:
            close = difflib.get_close_matches(str(name), allowed, 1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            msg = f"group_by={name!r} is none of {', '.join(allowed)}.{meant}"
            raise InvalidRequestError(msg, parameter="group_by", value=group_by)
    return tuple(str(getattr(exposure, name)) for name in names)


def _references(first: Exposure, exposures: Sequence[Exposure], pipeline: str) -> list[Exposure]:
    if pipeline not in ("Coron3Pipeline", "Ami3Pipeline"):
        return []
    names = ("program", "instrument", "filter", "pupil", "exp_type", "mask", "subarray")
    return [
        e
        for e in sorted(exposures, key=_when)
        if e.is_psf
        and stage_classes(e)[2] == pipeline
        and all(getattr(e, name) == getattr(first, name) for name in names)
    ]


def _impossible(
    pipeline: str, science: list[Exposure], members: list[tuple[Exposure, str]]
) -> str | None:
    what = f"{science[0].target or 'unknown target'} {science[0].filter}".strip()
    if pipeline == "Coron3Pipeline" and not any(role == "psf" for _, role in members):
        return (
            f"{what}: no stage 3, since coronagraphy needs exposures of a reference star "
            "(IS_PSF), and there are none with this set-up."
        )
    if pipeline == "WfsCombineStep" and len(science) != 2:
        return f"{what}: no stage 3, since wavefront sensing takes 2 exposures, not {len(science)}."
    return None


def _optelem(exposures: Sequence[Exposure]) -> str:
    if "{optelem}" not in EXP_TYPES[exposures[0].exp_type].product:
        return ""
    elements = {
        value.lower()
        for e in exposures
        for value in (e.filter, e.pupil, e.grating)
        if value and value not in ("N/A", "NONE", "MIRROR")
    }
    return "-".join(sorted(elements)) or "clear"


def _product_name(group: Group, targets: list[str], template: str | None) -> str:
    science = [e for e, role in group.members if role == "science"]

    def common(name: str) -> str:
        return "-".join(sorted({str(getattr(e, name)).lower() for e in science} - {""}))

    values = {name: common(name) for name in _TEMPLATE_FIELDS if hasattr(science[0], name)}
    values |= {
        "program": group.program,
        "asn_id": group.asn_id,
        "target_id": f"t{targets.index(science[0].target) + 1:03d}",
        "optelem": _optelem(science),
    }
    if template is None:
        name = EXP_TYPES[science[0].exp_type].product.format(**values)
        small = sorted({e.subarray.lower() for e in science if _small(e)})
        name = "-".join([name, *small])
        return f"{name}_wfscmb" if group.pipeline == "WfsCombineStep" else name
    try:
        name = template.format(**values)
    except (KeyError, IndexError, ValueError, AttributeError):
        msg = f"product_name={template!r} may hold the fields {', '.join(_TEMPLATE_FIELDS)}."
        raise InvalidRequestError(msg, parameter="product_name", value=template) from None
    return _slug(name)


def _small(exposure: Exposure) -> bool:
    return exposure.subarray.upper() not in _PLAIN_SUBARRAYS


_ALLOWED = set(string.ascii_letters + string.digits + "-_.+")


def _slug(name: str) -> str:
    return "".join(c if c in _ALLOWED else "-" for c in name).strip("-_.") or "product"


def _distinct(groups: list[Group], template: str | None) -> list[Group]:
    """Return the groups with names of their own; what tells them apart goes into the name."""
    twice = _shared_names(groups)
    renamed = groups
    if twice and template is None:
        renamed = [
            replace(group, product="-".join([group.product, *_apart(group, groups)]))
            if group.product in twice and not group.source
            else group
            for group in groups
        ]
        twice = _shared_names(renamed)
    if twice:
        msg = (
            f"product_name={template!r} and group_by give several products the name "
            f"{twice[0]!r}; use more of the fields {', '.join(_TEMPLATE_FIELDS)}."
        )
        raise InvalidRequestError(msg, parameter="product_name", value=template)
    return renamed


def _shared_names(groups: list[Group]) -> list[str]:
    counts = Counter(group.product for group in groups)
    return [name for name, count in counts.items() if count > 1]


def _apart(group: Group, groups: list[Group]) -> list[str]:
    """Return the words of a group's key that namesakes of its name do not have."""
    namesakes = [g for g in groups if g.product == group.product and g is not group]
    words = [
        _slug(value).lower()
        for i, value in enumerate(group.key)
        if value and any(len(o.key) <= i or o.key[i] != value for o in namesakes)
    ]
    if any(o.pipeline != group.pipeline for o in namesakes):
        words.append(group.pipeline.removesuffix("Pipeline").lower())
    return words


_PIPELINES = {asn_type: pipeline for pipeline, asn_type in ASN_TYPES.items()}


def _from_file(association: dict[str, Any], exposures: Sequence[Exposure]) -> Group:
    by_root = {e.root: e for e in exposures}
    path = association["path"]
    kind = str(association.get("asn_type", "")).lower()
    products = association["products"]
    if kind not in _PIPELINES or len(products) != 1 or not products[0].get("name"):
        msg = (
            f"{path}: asn_type={kind!r} with {len(products)} products; a plan takes level 3 "
            f"associations ({', '.join(_PIPELINES)}) of one named product."
        )
        raise InvalidRequestError(msg, parameter="files", value=path)
    members, missing = [], []
    for member in products[0]["members"]:
        root = Path(member["expname"]).name.removesuffix(".fits").rpartition("_")[0]
        role = str(member.get("exptype", "science")).lower()
        if root in by_root:
            members.append((by_root[root], role))
        elif role not in ("target_acquisition",):
            missing.append(Path(member["expname"]).name)
    if missing:
        msg = f"{path}: its members {', '.join(missing)} are not among the files."
        raise InvalidRequestError(msg, parameter="files", value=path)
    return Group(
        pipeline=_PIPELINES[kind],
        product=products[0]["name"],
        asn_id=str(association.get("asn_id") or "a3001"),
        program=str(association.get("program") or "00000"),
        target=str(association.get("target") or "unknown"),
        members=tuple(members),
        source={k: v for k, v in association.items() if k not in ("products", "path")},
    )


def unique_ids(exposures: Sequence[Exposure]) -> dict[str, str]:
    """Return ids that keep exposures apart where those in the headers do not."""
    shared = defaultdict(list)
    for exposure in exposures:
        if exposure.exposure_id:
            shared[exposure.exposure_id].append(exposure)
    ids: dict[str, str] = {}
    for exposure_id, files in shared.items():
        if max(Counter(e.detector for e in files).values()) == 1:
            continue
        starts = sorted({(e.date, e.time) for e in files})
        per_start = Counter((e.detector, e.date, e.time) for e in files)
        if max(per_start.values()) == 1:
            ids |= {e.root: f"{exposure_id}.{starts.index((e.date, e.time)) + 1}" for e in files}
        else:
            ids |= {e.root: e.root for e in files}
    return ids


# ---- association files --------------------------------------------------------------------------


def complete(associations: Iterable[dict]) -> list[dict]:
    """Return associations as the `jwst` package makes and reads them."""
    associations = list(associations)
    bare = [{k: v for k, v in a.items() if k != "products"} for a in associations]
    if not associations or importlib.util.find_spec("jwst") is None:
        return bare
    answers = _completed(json.dumps(associations))
    refusals = [
        f"{association['products'][0]['name']}: {answer['error']}"
        for association, answer in zip(associations, answers, strict=True)
        if "error" in answer
    ]
    if refusals:
        msg = f"jwst.associations refuses {'; '.join(refusals)}."
        raise StageError(msg)
    return answers


@functools.lru_cache(maxsize=16)
def _completed(text: str) -> list[dict]:
    job = {"associations": json.loads(text)}
    return ask("planning.associations:complete_in_process", job)["associations"]


def complete_in_process(job: dict[str, Any]) -> dict[str, list]:
    """Do the work of `complete`, in a process of the pipeline."""
    return {"associations": [_complete(association) for association in job["associations"]]}


def _complete(association: dict[str, Any]) -> dict:
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


def association_document(task: Task, output_dir: FilePath, directory: FilePath) -> dict:
    """Return the association of a task as the pipeline reads it."""
    members = []
    for member in task.members:
        path = os.path.abspath(input_path(member.input, output_dir))
        files = {member.exptype: path}
        if member.exptype == "direct_image":
            stem = path.removesuffix("i2d.fits")
            files |= {"sourcecat": f"{stem}cat.ecsv", "segmap": f"{stem}segm.fits"}
        for exptype, name in files.items():
            entry = {"expname": os.path.relpath(name, directory), "exptype": exptype}
            if member.group_id:
                entry["group_id"] = member.group_id
            members.append(entry)
    header = {k: v for k, v in task.association.items() if k != "product"}
    return {**header, "products": [{"name": task.association["product"], "members": members}]}


def association_path(task: Task, directory: FilePath) -> Path:
    """Return where the association of a task is written."""
    name = Path(task.name).name
    stem = name.removesuffix("_asn.json")
    if stem == name:
        stem = name.rpartition("_")[0]
    return Path(directory) / f"{stem}_asn.json"


def write_association(task: Task, output_dir: FilePath, directory: FilePath) -> Path:
    """Write the association of a task for the pipeline, and return its path."""
    path = association_path(task, directory)
    document = association_document(task, output_dir, directory)
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path
