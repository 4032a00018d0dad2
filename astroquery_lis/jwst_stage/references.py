"""Reference files: which ones a plan would use now, and getting them before any work begins.

The context is pinned by name once per run.  What CRDS recommends is asked once per distinct
set-up of an instrument and set of parameters, in another process; what is missing is fetched once,
in parallel, and checked before it gets its name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

from astropy.table import Table

from ..exceptions import CrdsUnavailable, TransferError
from ..io.http import reason_of
from ..survey.request import as_count
from . import pipelines
from .crds_cache import (
    CONTEXT_NAME,
    CrdsEnvironment,
    CrdsServer,
    Fetched,
    Recall,
    closure,
    fetch_files,
    inspect_file,
    mapping_path,
    read_server_config,
    remember_context,
    remembered_context,
    server_config_path,
    symbolic_context,
    write_server_config,
)
from .pipelines import pipeline_classes, plain_parameters, step_sections
from .planning import Plan
from .tasks import FileMemo, cache_folder, table_of

SERVER = "https://jwst-crds.stsci.edu"
_RESOLVE = "references:resolve_in_process"
_WAY_OUT = (
    f"set crds_server_url (JWST's is {SERVER}) and call prefetch_references where there is a "
    "network, or set crds_path to a cache that has them"
)


@dataclass(frozen=True)
class Resolution:
    """Which references and parameters the tasks of a plan would use now.

    Attributes
    ----------
    context : str
        Name of the CRDS context.
    environment : CrdsEnvironment
        For the processes that do the work: the context by name, and no server.
    references : dict
        By task: ``{type: {"name", "path", "sha1", "bytes", "present", "damaged"}}``; the name is
        ``'N/A'`` where CRDS says that there is none to be.  Also by configuration: what all its
        tasks use.
    parameter_references : dict
        The same for the files that parameters come from (``pars-...``).
    parameters : dict
        By task: the effective parameters ``{step: {parameter: value}}``.
    base : dict
        By task: the parameters that would hold if nothing had been asked.
    crds : dict
        By task: the parameters that CRDS gives.
    mappings : tuple of str
        The mappings that decided.
    missing : tuple of str
        Names of references that are not in the cache, or damaged there.
    """

    context: str
    environment: CrdsEnvironment
    references: dict = field(default_factory=dict)
    parameter_references: dict = field(default_factory=dict)
    parameters: dict = field(default_factory=dict)
    base: dict = field(default_factory=dict)
    crds: dict = field(default_factory=dict)
    mappings: tuple = ()
    missing: tuple = ()

    def files(self) -> dict[str, dict]:
        """Return every reference file once."""
        files: dict[str, dict] = {}
        for task in self.parameters:
            for source in (self.references, self.parameter_references):
                for reftype, entry in source.get(task, {}).items():
                    if entry["name"] != "N/A":
                        new = {**entry, "types": set(), "tasks": []}
                        file = files.setdefault(entry["name"], new)
                        file["types"].add(reftype)
                        file["tasks"] += [task] if task not in file["tasks"] else []
        return files


def resolve(plan: Plan, environment: CrdsEnvironment, *, offline: bool = False) -> Resolution:
    """Find out which references and parameters the tasks of a plan would use now.

    Mappings and parameter files, which are small, are fetched if they are missing and there is a
    server; references are only named.
    """
    return _Resolver(plan, environment, offline=offline).run()


def prefetch(
    plan: Plan, environment: CrdsEnvironment, offline: bool = False, max_workers: int = 4
) -> Table:
    """Get the reference files of a plan into the cache, each once, checked."""
    as_count("max_workers", max_workers, 1, "files")
    resolver = _Resolver(plan, environment, offline=offline, max_workers=max_workers)
    resolution = resolver.complete(resolver.run())
    if resolver.server is not None:
        remember_context(environment.path, resolution.context)
    return _table(resolution, resolver.fetched)


_NO_NOTE: dict = {"types": (), "damaged": ""}


def _missing(
    names: Collection[str], environment: CrdsEnvironment, files: Mapping[str, dict]
) -> CrdsUnavailable:
    """Return the error of mappings, or of reference files of a resolution, that are not there."""
    described = []
    for name in names:
        file = files.get(name, _NO_NOTE)
        note = ", ".join(filter(None, ("/".join(sorted(file["types"])), file["damaged"])))
        described.append(f"{name} ({note})" if note else name)
    kind = "reference files" if files else "mappings (rules of CRDS)"
    msg = (
        f"{len(names)} {kind} are not in the CRDS cache {environment.path}: "
        f"{', '.join(described)}. To mend it, {_WAY_OUT}."
    )
    return CrdsUnavailable(msg, missing=names)


class _Resolver:
    """One resolution: the server, if any, and what was fetched."""

    def __init__(
        self, plan: Plan, environment: CrdsEnvironment, *, offline: bool, max_workers: int = 4
    ) -> None:
        pipelines.require_jwst()
        self.plan, self.environment = plan, environment
        self.max_workers = max_workers
        url = "" if offline or "serverless" in environment.server_url else environment.server_url
        self.server = CrdsServer(url) if url else None
        self.fetched: dict[str, Fetched] = {}
        self.memo = FileMemo(cache_folder() / "references.json", inspect_file)

    def run(self) -> Resolution:
        """Find out everything."""
        context = self._context()
        environment = replace(self.environment, context=context, server_url="")
        groups, members = self._groups()
        mappings = self._mappings(context, groups)
        self._config()
        answers = self._answers(environment, mappings, groups)
        self._refuse_errors(groups, members, answers, context)
        by_task: dict[str, Any] = {
            part: {task: answers[key][part] for key, tasks in members.items() for task in tasks}
            for part in ("references", "parameter_references", "parameters", "base", "crds")
        }
        references = by_task["references"]
        for task in self.plan.tasks:
            if task.kind == "pipeline":
                references.setdefault(task.configuration, {}).update(references[task.name])
        resolution = Resolution(context, environment, **by_task)
        return self.inspect(replace(resolution, mappings=tuple(mappings)))

    def _context(self) -> str:
        """Return the name of the context that is in force now."""
        name, server = self.environment.context, self.server
        if CONTEXT_NAME.fullmatch(name):
            return name
        if server is None:
            return self._context_of_cache(name)
        try:
            return server.context(name, version("jwst"))
        except TransferError as error:
            latest = (read_server_config(self.environment.path) or {}).get("latest_context")
            hint = f" (the cache has {latest})" if latest else ""
            msg = (
                f"The CRDS server cannot be asked which context {name or 'the newest'!r} is: "
                f"{reason_of(error)} Name one with crds_context{hint}."
            )
            raise CrdsUnavailable(msg, url=server.url, cause=error) from error

    def _context_of_cache(self, name: str) -> str:
        config = self._config()
        if not name and (remembered := remembered_context(self.environment.path)):
            return remembered
        context = symbolic_context(config, name)
        if not context:
            msg = (
                f"crds_context={name!r} cannot be told without a CRDS server; name a context "
                "such as 'jwst_1322.pmap', or set crds_server_url."
            )
            raise CrdsUnavailable(msg)
        return context

    def _config(self) -> dict:
        """Return what CRDS has noted of its server, without which it ends the process."""
        cache, server = self.environment.path, self.server
        config = read_server_config(cache)
        if config is not None:
            return config
        path = server_config_path(cache)
        if server is None:
            what = f"There is no CRDS cache {cache}"
            if os.path.isdir(cache):
                what = (
                    f"{cache} is not a CRDS cache that can be used: {path} is missing or cannot be "
                    "read"
                )
            msg = f"{what}. To mend it, {_WAY_OUT}."
            raise CrdsUnavailable(msg, missing=[path.name])
        try:
            write_server_config(cache, server.info)
        except TransferError as error:
            msg = (
                f"The CRDS cache {cache} is empty, and its server does not answer: "
                f"{reason_of(error)} Set crds_server_url to one that can be reached."
            )
            raise CrdsUnavailable(msg, url=server.url, cause=error) from error
        return server.info

    def _groups(self) -> tuple[dict[str, dict], dict[str, list[str]]]:
        """Return what has to be asked, and the tasks that each answer is for."""
        groups: dict[str, dict] = {}
        members: dict[str, list[str]] = {}
        for task in self.plan.tasks:
            if task.kind != "pipeline":
                continue
            group = {
                "pipeline": task.pipeline,
                "parameters": self.plan.configurations[task.configuration],
                "steps": task.steps,
            }
            key = json.dumps(group, sort_keys=True)
            groups[key] = group
            members.setdefault(key, []).append(task.name)
        return groups, members

    def _mappings(self, context: str, groups: Mapping[str, dict]) -> list[str]:
        """Return the mappings that decide, after those that were missing were fetched."""
        instruments = _instruments(groups)
        cache = self.environment.path
        tried: set[str] = set()
        while True:
            needed, missing = closure(cache, context, instruments)
            if not missing:
                return needed
            names = sorted(missing)
            if tried.issuperset(names):
                raise _missing(names, self.environment, {})
            tried.update(names)
            damaged = {name for name, what in missing.items() if what == "damaged"}
            self.fetch({name: mapping_path(cache, name) for name in names}, {}, replace=damaged)

    def _answers(
        self, environment: CrdsEnvironment, mappings: list[str], groups: Mapping[str, dict]
    ) -> dict[str, dict]:
        """Return what CRDS recommends for each group, after parameter files were fetched."""
        recall = Recall(environment, mappings, groups)
        answers = recall.get()
        if answers is not None:
            return answers
        variables = environment.variables(readonly=True)
        answers = pipelines.ask(_RESOLVE, {"groups": groups}, variables)
        absent = _absent_parameters(answers)
        if absent and self.server is not None:
            self.fetch(absent, {})
            again = {key: group for key, group in groups.items() if answers[key]["missing"]}
            answers |= pipelines.ask(_RESOLVE, {"groups": again}, variables)
        recall.put(answers)
        return answers

    def _refuse_errors(
        self,
        groups: Mapping[str, dict],
        members: Mapping[str, list[str]],
        answers: Mapping[str, dict],
        context: str,
    ) -> None:
        lines = [
            f"\n- {reftype} for {_some_of(members[key])}: {reason}; the exposure has "
            f"{_shown(groups[key]['parameters'])}."
            for key, answer in answers.items()
            for reftype, reason in answer["errors"]
        ]
        if lines:
            msg = (
                f"The CRDS context {context} has no reference for what the plan needs:"
                f"{''.join(lines)}\nCorrect the headers, choose another crds_context, or give a "
                "file with steps={step: {'override_<type>': path}}."
            )
            raise CrdsUnavailable(msg)

    def complete(self, resolution: Resolution) -> Resolution:
        """Fetch the references that are missing; return the resolution with all of them."""
        if not resolution.missing:
            return resolution
        files = resolution.files()
        damaged = {name for name in resolution.missing if files[name]["damaged"]}
        paths = {name: files[name]["path"] for name in resolution.missing}
        self.fetch(paths, files, replace=damaged)
        resolution = self.inspect(resolution)
        if resolution.missing:
            raise _missing(resolution.missing, self.environment, resolution.files())
        return resolution

    def fetch(
        self, paths: Mapping, files: Mapping[str, dict], *, replace: Collection[str] = ()
    ) -> None:
        """Fetch mappings, or files of a resolution, all of them, or say which and why not."""
        server = self.server
        if server is None:
            raise _missing(paths, self.environment, files)
        results = fetch_files(server, paths, replace=replace, max_workers=self.max_workers)
        self.fetched.update({result.name: result for result in results})
        failed = [result for result in results if result.error is not None]
        if failed:
            raise self._not_fetched(failed, len(results), server.url)

    def _not_fetched(self, failed: list[Fetched], n_files: int, url: str) -> CrdsUnavailable:
        lines = "".join(f"\n- {result.name}: {result.error}" for result in failed)
        msg = (
            f"{len(failed)} of {n_files} files could not be fetched from the CRDS server "
            f"{url} into {self.environment.path}:{lines}\nWhat came is kept; call "
            "prefetch_references again, or set crds_path or crds_server_url to others."
        )
        names = [result.name for result in failed]
        return CrdsUnavailable(msg, missing=names, url=url, cause=failed[0].error)

    def inspect(self, resolution: Resolution) -> Resolution:
        """Note size, sha1 and presence of every file, and return the resolution with the rest."""
        sources = (*resolution.references.values(), *resolution.parameter_references.values())
        entries = [entry for by_type in sources for entry in by_type.values()]
        paths = {entry["path"] for entry in entries} - {""}
        with ThreadPoolExecutor(max_workers=4) as pool:
            states = dict(zip(paths, pool.map(self._state, paths), strict=True))
        self.memo.save()
        for entry in entries:
            entry.update(states.get(entry["path"], _NO_FILE))
        files = resolution.files()
        missing = sorted(name for name, file in files.items() if not file["present"])
        return replace(resolution, missing=tuple(missing))

    def _state(self, path: str) -> dict:
        try:
            note = self.memo.get(path)
        except OSError:
            return {**_NO_FILE, "present": False}
        return {**note, "present": not note["damaged"]}


def _instruments(groups: Mapping[str, dict]) -> set[str]:
    parameters = (group["parameters"] for group in groups.values())
    return {values.get("META.INSTRUMENT.NAME", "").upper() for values in parameters}


def _absent_parameters(answers: Mapping[str, dict]) -> dict[str, str]:
    """Return the paths of the parameter files that are not there, by name."""
    return {
        entry["name"]: entry["path"]
        for answer in answers.values()
        for entry in answer["parameter_references"].values()
        if entry["name"] in answer["missing"]
    }


def _some_of(tasks: Sequence[str]) -> str:
    return f"{tasks[0]} and {len(tasks) - 1} more" if len(tasks) > 1 else tasks[0]


def _shown(parameters: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(parameters.items()))


_NO_FILE = {"sha1": "", "bytes": 0, "present": True, "damaged": ""}
"""State of a reference that CRDS says there is none of to be."""


_COLUMNS = (
    *("Local Path", "Status", "Message", "URL", "name", "kind", "types", "bytes", "sha1", "tasks"),
)


def _table(resolution: Resolution, fetched: Mapping[str, Fetched]) -> Table:
    rows = [_row_of_mapping(name, resolution) for name in resolution.mappings]
    rows += [_row_of_file(name, file) for name, file in sorted(resolution.files().items())]
    rows = [(path, *_origin(fetched.get(name)), name, *more) for path, name, *more in rows]
    types = {name: int if name in ("bytes", "tasks") else str for name in _COLUMNS}
    table = table_of(rows, types)
    table.meta["context"] = resolution.context
    return table


def _row_of_mapping(name: str, resolution: Resolution) -> tuple:
    path = mapping_path(resolution.environment.path, name)
    return str(path), name, "mapping", "", path.stat().st_size, "", len(resolution.parameters)


def _row_of_file(name: str, file: Mapping[str, Any]) -> tuple:
    types = sorted(file["types"])
    kind = "parameters" if all(t.startswith("pars-") for t in types) else "reference"
    facts = file["bytes"], file["sha1"], len(file["tasks"])
    return file["path"], name, kind, ",".join(types), *facts


def _origin(file: Fetched | None) -> tuple[str, str, str]:
    """Return status, message and address of a file that was there, or came."""
    return ("CACHED", "", "") if file is None else ("COMPLETE", "", file.url)


# ---- in the process of the pipeline -------------------------------------------------------------


def resolve_in_process(job: Mapping[str, Any]) -> dict:
    """Return the answer to each of ``job['groups']``, see `_resolved`."""
    return {key: _resolved(**group) for key, group in job["groups"].items()}


def _resolved(parameters: Mapping[str, Any], pipeline: str, steps: Mapping[str, Any]) -> dict:
    """Find parameters and references of one pipeline for one set-up of an instrument.

    The answer has those attributes of a `Resolution` that are by task, ``missing`` (parameter
    files that are not there, as if they said nothing), and ``errors`` (``[type, message]``).
    """
    from stpipe import config_parser

    cls = pipeline_classes()[pipeline]
    classes = [*_steps(cls).values(), cls]
    types = dict.fromkeys(step.get_config_reftype() for step in classes)
    pars, errors = _look_up(parameters, list(types), required=False)
    missing = [entry["name"] for entry in pars.values() if _is_absent(entry)]
    # The instance below changes the configuration that it is made of.
    crds = plain_parameters(_crds_config(config_parser, cls, pars))
    base = cls.from_config_section(_config(config_parser, crds))
    own = {"steps": steps} if hasattr(cls, "step_defs") else steps.get(cls.class_alias, {})
    instance = cls.from_config_section(_config(config_parser, crds, own))
    overrides, needed = _reference_types(instance, _steps(cls))
    references, unknown = _look_up(parameters, sorted(needed - set(overrides)), required=True)
    return {
        "references": {**references, **overrides},
        "parameter_references": pars,
        "parameters": plain_parameters(step_sections(instance.get_pars(), cls)),
        "base": plain_parameters(step_sections(base.get_pars(), cls)),
        "crds": _step_parameters(crds, cls),
        "missing": missing,
        "errors": errors + unknown,
    }


def _step_parameters(config: Mapping, cls: Any) -> dict[str, dict]:
    """Return the parameters of steps in a configuration, without those that name the steps."""
    return {
        name: {par: value for par, value in section.items() if par not in ("class", "name")}
        for name, section in step_sections(config, cls).items()
        if section
    }


def _reference_types(instance: Any, names: Iterable[str]) -> tuple[dict[str, dict], set[str]]:
    """Return the references that the parameters name, and the types to ask CRDS for."""
    overrides: dict[str, dict] = {}
    needed: set[str] = set()
    steps = (getattr(instance, name, instance) for name in names)
    for step in (step for step in steps if not step.skip):
        for reftype in step.reference_file_types:
            path = instance.get_ref_override(reftype)
            if path is not None:
                overrides[reftype] = _named(path)
            elif step.prefetch_references:
                needed.add(reftype)
    return overrides, needed


def _named(path: str) -> dict[str, str]:
    """Return the reference that a parameter names, which may be none."""
    if path.strip() in ("", "N/A"):
        return {"name": "N/A", "path": ""}
    return {"name": os.path.basename(path), "path": path}


def _crds_config(config_parser: Any, cls: Any, pars: Mapping[str, dict]) -> dict:
    """Return the parameters in those files that are there, put together as stpipe does."""

    def load(step: Any) -> dict:
        path = pars.get(step.get_config_reftype(), {}).get("path", "")
        return config_parser.load_config_file(path) if os.path.exists(path) else {}

    steps = {name: load(step) for name, step in getattr(cls, "step_defs", {}).items()}
    config: Any = _config(config_parser, {"steps": steps} if steps else {}, load(cls))
    return config.dict()


def _config(config_parser: Any, *parts: Mapping) -> dict:
    config = config_parser.ConfigObj()
    for part in parts:
        # Only sections are merged key by key; a plain dictionary would replace another.
        sections = config_parser.ConfigObj()
        config_parser.merge_config(sections, part)
        config_parser.merge_config(config, sections)
    return config


def _is_absent(entry: Mapping[str, str]) -> bool:
    return entry["name"] != "N/A" and not os.path.exists(entry["path"])


_NONE = re.compile(r"not found n/a|n/a$", re.IGNORECASE)
"""What CRDS says where there is no reference to be."""


def _look_up(
    parameters: Mapping[str, Any], types: Sequence[str], *, required: bool
) -> tuple[dict, list]:
    """Return the best references by type, and what could not be decided on."""
    import crds

    if not types:
        return {}, []
    names = crds.getrecommendations(
        dict(parameters), reftypes=list(types), observatory="jwst", context=None
    )
    found, errors = {}, []
    for reftype in types:
        name = names.get(reftype, "NOT FOUND n/a")
        if _NONE.match(name):
            found[reftype] = {"name": "N/A", "path": ""}
        elif name.startswith("NOT FOUND"):
            # As the pipeline: a step without parameters of its own in CRDS has its defaults.
            if required:
                errors.append([reftype, name.removeprefix("NOT FOUND").strip(" :")])
        else:
            path = crds.locate_file(name, "jwst", parameters=dict(parameters))
            found[reftype] = {"name": name, "path": os.path.abspath(path)}
    return found, errors


def _steps(cls: Any) -> dict:
    """Return the classes of the steps of a pipeline, or the step itself, by name."""
    return getattr(cls, "step_defs", None) or {cls.class_alias: cls}
