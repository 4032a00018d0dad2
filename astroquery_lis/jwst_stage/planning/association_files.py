"""Associations as files: completed by the `jwst` package, and written for the pipeline to read."""

import functools
import importlib.util
import json
import os
from pathlib import Path

from ...exceptions import StageError
from ..pipeline import ask
from ..tasks import input_path

__all__ = ["association_document", "association_path", "complete", "write_association"]


def complete(associations):
    """Return associations as the `jwst` package makes and reads them.

    Runs in a process of its own, and only where the package is installed; otherwise the
    associations come back as they are.

    Parameters
    ----------
    associations : sequence of dict
        With ``asn_rule``, ``asn_type``, ``asn_id``, ``program``, ``target``, ``products``.

    Returns
    -------
    list of dict
        The same, with what the package adds, and without ``products``.

    Raises
    ------
    StageError
        If the package refuses one.
    """
    associations = list(associations)
    bare = [{k: v for k, v in a.items() if k != "products"} for a in associations]
    if not associations or importlib.util.find_spec("jwst") is None:
        return bare
    answers = _completed(json.dumps(associations))
    refused = [
        f"{given['products'][0]['name']}: {answer['error']}"
        for given, answer in zip(associations, answers, strict=True)
        if "error" in answer
    ]
    if refused:
        msg = f"jwst.associations refuses {'; '.join(refused)}."
        raise StageError(msg)
    return answers


@functools.lru_cache(maxsize=16)
def _completed(text):
    job = {"associations": json.loads(text)}
    return ask("planning.association_files:complete_in_process", job)["associations"]


def complete_in_process(job):
    """Do the work of `complete`, in a process of the pipeline."""
    return {"associations": [_complete(association) for association in job["associations"]]}


def _complete(given):
    from jwst.associations import load_asn
    from jwst.associations.asn_from_list import asn_from_list
    from jwst.associations.lib.rules_level3_base import DMS_Level3_Base

    try:
        product = given["products"][0]
        complete = dict(given)
        if given["asn_rule"] == "DMS_Level3_Base":
            members = [(m["expname"], m["exptype"]) for m in product["members"]]
            made = asn_from_list(
                members, rule=DMS_Level3_Base, product_name=product["name"], with_exptype=True
            )
            complete = {**json.loads(made.dump(format="json")[1]), **given}
        read = load_asn(json.dumps(complete))
        names = [m["expname"] for m in read["products"][0]["members"]]
        if names != [m["expname"] for m in product["members"]]:
            return {"error": f"read back with members {names}"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    del complete["products"]
    return {name: value for name, value in complete.items() if value is not None}


def association_document(task, output_dir, directory):
    """Return the association of a task as the pipeline reads it.

    Parameters
    ----------
    task : `~.tasks.Task`
        A task with members.
    output_dir : path-like
        Where the products are.
    directory : path-like
        Where the file is to be; members are named relative to it.

    Returns
    -------
    dict
    """
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
    rest = {k: v for k, v in task.association.items() if k != "product"}
    return {**rest, "products": [{"name": task.association["product"], "members": members}]}


def association_path(task, directory):
    """Return where the association of a task is written.

    Parameters
    ----------
    task : `~.tasks.Task`
        A task with members.
    directory : path-like
        The directory.

    Returns
    -------
    `~pathlib.Path`
    """
    name = Path(task.name).name
    stem = name.removesuffix("_asn.json")
    if stem == name:
        stem = name.rpartition("_")[0]
    return Path(directory) / f"{stem}_asn.json"


def write_association(task, output_dir, directory):
    """Write the association of a task for the pipeline, and return its path.

    Parameters
    ----------
    task : `~.tasks.Task`
        A task with members.
    output_dir : path-like
        Where the products are.
    directory : path-like
        Where to write; members are named relative to it.

    Returns
    -------
    `~pathlib.Path`
    """
    path = association_path(task, directory)
    document = association_document(task, output_dir, directory)
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path
