"""The calls of `jwst` behind a run, as a script that needs nothing of this package."""

from __future__ import annotations

import pprint
from typing import TYPE_CHECKING

from ..planning.association_files import association_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from ..tasks import Task

__all__ = ["plain_script"]

_HEAD = '''\
"""The calls of jwst behind the products in {made}.

Run in an empty directory, it makes them again without astroquery_lis.  What a correction of
astroquery_lis made is taken from where it is.
"""

import json
import os
from pathlib import Path

os.environ.update({variables})
os.environ.pop("CRDS_SERVER_URL", None)

import jwst.pipeline
import jwst.step

HERE, MADE = Path.cwd(), Path({made!r})


def place(name):
    """Return where an input is: made by a call before, or elsewhere."""
    path = Path(name)
    return path if path.is_absolute() else next(p for p in (HERE / path, MADE / path) if p.exists())


def call(pipeline, product, inputs, steps, association=None):
    """Call a pipeline in a directory that has all its inputs."""
    folder, work = (HERE / product).parent, HERE / "work" / Path(product).stem
    folder.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True)
    for name in inputs:
        (work / Path(name).name).symlink_to(place(name))
    source = work / Path(inputs[0]).name
    if association is not None:
        source = work / association["name"]
        source.write_text(json.dumps(association["content"]))
    os.chdir(work)
    kind = getattr(jwst.pipeline, pipeline, None) or getattr(jwst.step, pipeline)
    kind.call(str(source), save_results=True, output_dir=str(folder), steps=steps)
    for path in [path for path in work.glob("*.fits") if not path.is_symlink()]:
        path.replace(folder / path.name)  # some products are saved here whatever output_dir is
    os.chdir(HERE)


'''


def plain_script(
    tasks: Iterable[Task], output_dir: Path, environment: Mapping[str, str], context: str
) -> str:
    """Return the script of the tasks of a run."""
    variables = {k: v for k, v in environment.items() if k in ("CRDS_PATH", "CRDS_CONTEXT")}
    variables |= {"CRDS_CONTEXT": context} if context else {}
    head = _HEAD.format(made=str(output_dir.absolute()), variables=variables)
    return head + "\n".join(_lines(task, output_dir) for task in tasks)


def _lines(task: Task, output_dir: Path) -> str:
    if task.kind != "pipeline":
        names = ", ".join(str(c.get("name", "")) for c in task.corrections)
        return f"# {task.name} is what the correction {names} made of {task.inputs[0]}.\n"
    inputs = dict.fromkeys([*task.inputs, *(m.file or m.input for m in task.members)])
    arguments = [repr(task.pipeline), repr(task.name), _text(list(inputs)), _text(task.steps)]
    if task.members:
        document = {
            "name": f"{task.association['product'].replace('{', '').replace('}', '')}_asn.json",
            "content": association_document(task, output_dir, None),
        }
        arguments.append(_text(document))
    note = ""
    if task.corrections:
        names = ", ".join(str(c.get("name", "")) for c in task.corrections)
        note = f"# Without the correction {names}, which works within the pipeline:\n"
    body = ",\n".join(f"    {argument}" for argument in arguments)
    return f"{note}call(\n{body},\n)\n"


def _text(value: object) -> str:
    return pprint.pformat(value, width=90, sort_dicts=False).replace("\n", "\n    ")
