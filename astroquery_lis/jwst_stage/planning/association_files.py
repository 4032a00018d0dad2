"""Association files that the pipeline is run with, as the `jwst` package makes and reads them."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...exceptions import StageError
from ..pipeline import ask
from ..tasks import member_path
from .pipelines import is_slitless

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..._typing import FilePath
    from ..tasks import Task
    from .exposures import Exposure
    from .rules import Association


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


def headers_of(groups: Sequence[Association], *, check: bool) -> list[dict]:
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
    return group.file_stem if any(map(is_slitless, group.exposures)) else group.product


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
    return ask("planning.association_files:complete_in_process", job)["associations"]


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


def association_document(task: Task, output_dir: FilePath, directory: FilePath | None) -> dict:
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
