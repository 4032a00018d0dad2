"""From what was asked for, and the files that a user named, to a plan; nothing of it is done."""

from __future__ import annotations

import glob
import importlib.metadata
import json
import os
import re
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astropy.table import Table

from ...exceptions import (
    InvalidExposureError,
    InvalidRequestError,
    LegacySurveyWarning,
    meant,
    refuse,
    warn,
)
from ..corrections import normalise, switches
from ..parameters import PRESETS, check, read_recipe
from ..pipelines import read_table
from ..tasks import REFCATS, absolute
from . import Plan
from .exposures import (
    ENDINGS,
    SHUTTERS,
    Exposure,
    configuration_key,
    configurations_of,
    grouped,
    read_exposure,
)
from .footprints import mosaic_grid
from .groups import Request, listed, put_together
from .task_builder import TaskBuilder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from astropy.table import Row

    from ..._typing import FilePath
    from ..corrections import Correction
    from ..references import Resolution
    from ..tasks import Task
    from .groups import GroupBy


def make_plan(
    files: FilePath | Sequence[FilePath] | Table,
    *,
    output_dir: FilePath | None = None,
    stages: int | Sequence[int] = (1, 2, 3),
    steps: Any = None,
    preset: str = "default",
    recipe: FilePath | None = None,
    corrections: Any = (),
    group_by: GroupBy | None = None,
    product_name: str | None = None,
    start: str = "uncal",
    abs_refcat: FilePath | None = None,
    wcs: Any = None,
    common_grid: bool | dict[str, float] = False,
    resolution: Resolution | None = None,
    check_associations: bool = True,
) -> Plan:
    """Return what there is to do, without doing it, without a network, and without `jwst`."""
    place = None if output_dir is None else absolute(output_dir)
    request = Request(
        stages=_checked_stages(stages),
        output_dir=place,
        corrections=normalise(corrections),
        group_by=group_by,
        product_name=product_name,
        abs_refcat=_checked_refcat(abs_refcat),
        check_associations=check_associations,
    )
    inputs, associations, left_out = read_files(files, output_dir=place)
    for note in left_out:
        warn(note, LegacySurveyWarning)
    exposures, notes = choose(inputs, start, resolution=resolution)
    pipelines = sorted({name for e in exposures for name in e.classes if name})
    checked_steps = check(steps, pipelines)
    layers = _layers(preset, recipe, request.corrections, checked_steps)
    request = replace(request, layers=layers)
    request = replace(request, grid=_grid(exposures, request, wcs, common_grid))
    builder = TaskBuilder(exposures, put_together(exposures, request, associations), request)
    tasks = builder.build()
    exposures = _used(exposures, tasks)
    options = {
        "stages": list(request.stages),
        "start": start,
        "preset": preset,
        "recipe": None if recipe is None else absolute(recipe),
        "steps": checked_steps,
        "corrections": [correction.to_dict() for correction in request.corrections],
        "group_by": _plain(group_by),
        "product_name": product_name,
        "abs_refcat": request.abs_refcat,
        "grid": request.grid,
    }
    return Plan(
        exposures=tuple(exposures),
        tasks=tasks,
        configurations=configurations_of(exposures),
        options={k: v for k, v in options.items() if v not in (None, {}, [])},
        output_dir=place,
        notes=(*left_out, *notes, *builder.notes),
    )


def _used(exposures: Sequence[Exposure], tasks: Sequence[Task]) -> list[Exposure]:
    names = {name for task in tasks for name in (*task.exposures, *task.inputs)}
    return [e for e in exposures if not names.isdisjoint((e.root, e.path))]


def _plain(group_by: GroupBy | None) -> str | list[str] | None:
    if group_by is None or isinstance(group_by, str):
        return group_by
    if callable(group_by):
        return f"function {getattr(group_by, '__qualname__', repr(group_by))}"
    return list(group_by)


def _checked_stages(stages: int | Sequence[int]) -> tuple[int, ...]:
    numbers = (stages,) if isinstance(stages, int) else tuple(stages)
    if not numbers or not set(numbers) <= {1, 2, 3}:
        refuse("stages", stages, "must be some of 1, 2 and 3.")
    numbers = tuple(sorted(set(numbers)))
    if numbers == (1, 3):
        refuse("stages", stages, ": stage 3 begins from products of stage 2; add it.")
    return numbers


def _checked_refcat(abs_refcat: FilePath | None) -> str | None:
    if abs_refcat is None or abs_refcat in REFCATS:
        return abs_refcat
    path = absolute(abs_refcat)
    if not os.path.isfile(path):
        msg = (
            f"abs_refcat={os.fspath(abs_refcat)!r} is none of {', '.join(map(repr, REFCATS))}, and "
            "not a file that is there."
        )
        raise InvalidRequestError(msg, parameter="abs_refcat", value=abs_refcat)
    return path


def _layers(
    preset: str,
    recipe: FilePath | None,
    corrections: tuple[Correction, ...],
    steps: dict[str, dict],
) -> tuple[dict[str, object], ...]:
    """Return sets of parameters, of which a later one has its way."""
    if preset not in PRESETS:
        hint = meant(preset, PRESETS)
        refuse("preset", preset, f"is none of {', '.join(map(repr, PRESETS))}.{hint}")
    layers = [
        check(PRESETS[preset]["steps"], parameter="preset"),
        {} if recipe is None else read_recipe(recipe),
        check(switches(corrections), parameter="corrections"),
        steps,
    ]
    return tuple(filter(None, layers))


def _grid(
    exposures: Sequence[Exposure], request: Request, wcs: Any, common: bool | dict[str, float]
) -> dict[str, object]:
    """Return the grid of all mosaics, empty if each has its own."""
    if wcs is None and not common:
        return {}
    images = [e for e in exposures if e.classes[2] == "Image3Pipeline"]
    resample: dict[str, Any] = {}
    for image in images:
        options = request.steps_for("Image3Pipeline", [image]).get("resample", {})
        resample |= {name: value for name, value in options.items() if value not in (None, "")}
    return mosaic_grid(images, resample, wcs=wcs, common=common)


# ---- the files that a plan begins from -----------------------------------------------------------

STARTS = ("uncal", "rate", "cal", "auto")
"""Levels that a plan may begin from, where files of several levels are given."""

_REFUSED = ("ERROR", "NODATA")


def read_files(
    files: FilePath | Sequence[FilePath] | Table, *, output_dir: str | None = None
) -> tuple[list[Exposure], list[dict[str, object]], list[str]]:
    """Return the exposures and the associations among the files, and notes on what is left out."""
    exposures: list[Exposure] = []
    associations: list[dict[str, object]] = []
    problems: list[str] = []
    notes: list[str] = []
    for path in _paths(files, output_dir, problems, notes):
        try:
            if path.endswith(".json"):
                associations.append(_read_association(path))
            else:
                exposures.append(read_exposure(path))
        except InvalidExposureError as error:
            problems.append(str(error))
    problems += _duplicates(exposures)
    _raise_all(problems, "files")
    if not exposures:
        why = " ".join(notes)
        what = "the table" if isinstance(files, Table) else f"files={files!r}"
        msg = f"{what} holds no exposure; a name ends in one of {', '.join(ENDINGS)}. {why}"
        raise InvalidExposureError(msg.strip(), parameter="files", value=files)
    return exposures, associations, notes


_MOST_LISTED = 5
_MOST_REASONS = 10
_STAGE1_KEYWORDS: dict[str, str] = read_table("keywords")["stage1"]


def by_reason(problems: Iterable[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Return names and what is wrong with each, those with one reason together, most first."""
    return sorted(grouped(problems, _without_numbers).values(), key=len, reverse=True)


def _without_numbers(problem: tuple[str, str]) -> str:
    """Return a reason that is the same with other numbers, and of another file."""
    name, reason = problem
    file = re.escape(name.rpartition("/")[2])
    return re.sub(r"\d+", "0", re.sub(rf"\S*{file}\S*", "", reason) if file else reason)


def told_of(alike: list[tuple[str, str]]) -> str:
    """Return the first of reasons that are alike, and of whom it is unless it is that of all."""
    name, reason = alike[0]
    is_of_all = all(other == reason for _, other in alike)
    return reason if is_of_all or name.rpartition("/")[2] in reason else f"of {name}: {reason}"


def _raise_all(problems: list[str], parameter: str) -> None:
    """Raise one error for all files that cannot be used, those with one reason together."""
    if not problems:
        return
    if len(problems) == 1:
        raise InvalidExposureError(problems[0], parameter=parameter)
    parts = (problem.partition(": ") for problem in problems)
    reasons = by_reason((path, reason) for path, _, reason in parts)
    lines = [line for alike in reasons[:_MOST_REASONS] for line in _first_of(alike)]
    if n_more := sum(map(len, reasons[_MOST_REASONS:])):
        lines.append(f"  and {n_more} more files for other reasons")
    msg = f"{len(problems)} files cannot be used:\n" + "\n".join(lines)
    raise InvalidExposureError(msg, parameter=parameter)


def _first_of(alike: list[tuple[str, str]]) -> list[str]:
    """Return a line for each of the first files with one reason, and how many more there are."""
    lines = [f"  {path}: {reason}" for path, reason in alike[:_MOST_LISTED]]
    if len(alike) > _MOST_LISTED:
        lines.append(f"  and {len(alike) - _MOST_LISTED} more files for the same reason")
    return lines


def _paths(
    files: FilePath | Sequence[FilePath] | Table,
    output_dir: str | None,
    problems: list[str],
    notes: list[str],
) -> list[str]:
    if isinstance(files, Table):
        files = _column(files, notes)
    elif isinstance(files, (str, os.PathLike)):
        files = [files]
    paths: dict[str, None] = {}
    for entry in files:
        try:
            inside = _files_of(os.path.expanduser(os.fspath(entry)), output_dir)
        except InvalidExposureError as error:
            problems.append(str(error))
        else:
            paths |= dict.fromkeys(map(os.path.abspath, inside))
    return list(paths)


def _files_of(path: str, output_dir: str | None) -> list[str]:
    """Return the files of a path, a directory or a pattern, without those of shutters."""
    paths, why = _matching(path, output_dir)
    if not paths:
        msg = f"{path}: {why}"
        raise InvalidExposureError(msg, parameter="files", value=path)
    return [p for p in paths if not p.endswith(SHUTTERS)]


def _matching(path: str, output_dir: str | None) -> tuple[list[str], str]:
    """Return what a path names, and why it may be nothing."""
    if os.path.isdir(path):
        return _inside(path, output_dir), "the directory holds no exposure."
    if glob.has_magic(path) and not os.path.exists(path):
        return sorted(glob.glob(path, recursive=True)), "no file matches the pattern."
    paths = [path] if os.path.exists(path) or path.endswith(SHUTTERS) else []
    return paths, "there is no such file or directory."


def _inside(directory: str, output_dir: str | None) -> list[str]:
    """Return the files below a directory, but for those that a run has made."""
    hidden = "" if output_dir is None else os.path.join(output_dir, "")
    paths = []
    for folder, folders, names in os.walk(os.path.abspath(directory)):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        if not (hidden and os.path.join(folder, "").startswith(hidden)):
            inputs = (name for name in sorted(names) if name.endswith(("_asn.json", *ENDINGS)))
            paths += [os.path.join(folder, name) for name in inputs]
    return paths


def _column(table: Table, notes: list[str]) -> list[str]:
    if "Local Path" not in table.colnames:
        msg = (
            f"files: the table has no column 'Local Path', but {', '.join(table.colnames)}; "
            "give the manifest of a download."
        )
        raise InvalidRequestError(msg, parameter="files")
    paths = []
    left_out: list[tuple[str, str]] = []
    for row in table:
        path, reason = str(row["Local Path"]), _why_left_out(row)
        if reason:
            left_out.append((path or _cell(row, "id", "URL") or "?", reason))
        else:
            paths.append(path)
    if left_out:
        reasons = listed(map(_of_whom, by_reason(left_out)), _MOST_REASONS)
        notes.append(f"Left out, since the table has no file: {reasons}.")
    return paths


def _why_left_out(row: Row) -> str:
    """Return why a row of a manifest has no file, empty if it has one."""
    status = _cell(row, "Status")
    if str(row["Local Path"]) and status not in _REFUSED:
        return ""
    return ": ".join(filter(None, (status or "no file", _cell(row, "Message"))))


def _of_whom(alike: list[tuple[str, str]]) -> str:
    return f"{listed(name for name, _ in alike)} ({told_of(alike)})"


def _cell(row: Row, *names: str) -> str:
    """Return what the first of some columns has that is there."""
    return next((str(row[name]) for name in names if name in row.colnames), "")


def _read_association(path: str) -> dict[str, object]:
    try:
        content = json.loads(Path(path).read_text())
        products = content["products"]
        for product in products:
            for member in product["members"]:
                member["expname"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path}: is not an association: {type(error).__name__}: {error}."
        raise InvalidExposureError(msg, parameter="files", value=path) from None
    return {**content, "path": path}


def _duplicates(exposures: Sequence[Exposure]) -> list[str]:
    by_name = grouped(exposures, attrgetter("root", "suffix"))
    return [
        f"{root}_{suffix}.fits: is given {len(files)} times: {listed(e.path for e in files)}."
        for (root, suffix), files in by_name.items()
        if len(files) > 1
    ]


def choose(
    exposures: Sequence[Exposure], start: str, *, resolution: Resolution | None = None
) -> tuple[list[Exposure], list[str]]:
    """Return the file that each exposure begins from."""
    if start not in STARTS:
        refuse("start", start, f"is none of {', '.join(map(repr, STARTS))}.")
    inputs: list[Exposure] = []
    notes: list[str] = []
    problems: list[str] = []
    for root, files in grouped(exposures, attrgetter("root")).items():
        usable = _usable({e.suffix: e for e in files}, problems)
        if not usable:
            continue
        if start == "auto":
            level, why = _automatic(usable, resolution)
            notes.append(f"{root}: begins from {level}: {why}.")
        else:
            level = _nearest(usable, start)
        inputs.append(usable[level])
    _raise_all(problems, "files")
    return sorted(inputs, key=lambda e: (e.date, e.time, e.root)), notes


def _nearest(usable: Iterable[str], start: str) -> str:
    """Return the last of some levels, in their order, up to a start; the first if all are above."""
    levels = list(usable)
    n_below = sum(STARTS.index(level) <= STARTS.index(start) for level in levels)
    return levels[max(n_below - 1, 0)]


def _usable(files: dict[str, Exposure], problems: list[str]) -> dict[str, Exposure]:
    """Return ``{level: file}`` with the either of rate and rateints that the chain goes on from."""
    usable: dict[str, Exposure] = {}
    for level in ("uncal", "rate", "cal"):
        either = files.get(level) or files.get(f"{level}ints")
        if either is None:
            continue
        needed = f"{level}ints" if level != "uncal" and either.is_integrations else level
        if needed in files:
            usable[level] = files[needed]
        elif not either.classes[1]:
            usable[level] = either
        else:
            problems.append(
                f"{either.path}: {either.exp_type} goes on from the {needed} file, which is not "
                "given."
            )
    return usable


def _automatic(files: dict[str, Exposure], resolution: Resolution | None) -> tuple[str, str]:
    rate = files.get("rate")
    if rate is None:
        return next(iter(files)), "there is no rate file"
    if "uncal" not in files:
        return "rate", "there is no uncal file"
    try:
        installed = importlib.metadata.version("jwst")
    except importlib.metadata.PackageNotFoundError:
        return "uncal", "jwst is not installed, and its version cannot be compared"
    if rate.cal_ver != installed:
        return "uncal", f"the rate file was made by jwst {rate.cal_ver or '?'}, not {installed}"
    if resolution is None:
        return "rate", f"made by jwst {installed}; its reference files were not compared"
    if changed := _changed_reference(rate, resolution):
        return "uncal", changed
    return "rate", f"made by jwst {installed} with the reference files of now"


def _changed_reference(rate: Exposure, resolution: Resolution) -> str:
    """Return what reference of stage 1 is another one now, empty if none is."""
    references = resolution.references.get(configuration_key(rate), {})
    for keyword, reftype in _STAGE1_KEYWORDS.items():
        before, now = rate.references.get(keyword), references.get(reftype)
        if before is not None and now is not None:
            name = str(now.get("name", "N/A"))
            if before.upper() != name.upper():
                return f"reference {reftype} {before} -> {name}"
    return ""
