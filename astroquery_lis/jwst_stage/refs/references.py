"""Reference files: which ones a plan would use now, and getting them before any work begins.

The context is pinned by name once per run.  What CRDS recommends is asked once per distinct
set-up of an instrument and set of parameters, in another process; what is missing is fetched once,
in parallel, and checked before it gets its name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.metadata import version

from astropy.table import Table

from ...exceptions import CrdsUnavailable, TransferError
from ...io.http import reason_of
from ...survey.request import as_count
from .. import pipelines
from ..planning.plan import Plan
from ..tasks import FileMemo, cache_folder
from . import crds_cache
from .crds_cache import CrdsEnvironment, mapping_path
from .crds_server import CrdsServer, Fetched, fetch_files, symbolic_context

SERVER = "https://jwst-crds.stsci.edu"
_RESOLVE = "refs.crds_cache:resolve_in_process"
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
        for source in (self.references, self.parameter_references):
            for task, by_type in source.items():
                if task not in self.parameters:
                    continue
                for reftype, entry in by_type.items():
                    if entry["name"] == "N/A":
                        continue
                    file = files.setdefault(entry["name"], {**entry, "types": set(), "tasks": []})
                    file["types"].add(reftype)
                    if task not in file["tasks"]:
                        file["tasks"].append(task)
        return files


def resolve(plan: Plan, environment: CrdsEnvironment, *, offline: bool = False) -> Resolution:
    """Find out which references and parameters the tasks of a plan would use now.

    Mappings and parameter files, which are small, are fetched if they are missing and there is a
    server; references are only named.
    """
    return _Resolver(plan, environment, offline=offline).run()


def prefetch(
    plan: Plan,
    environment: CrdsEnvironment,
    offline: bool = False,
    max_workers: int = 4,
) -> Table:
    """Get the reference files of a plan into the cache, each once, checked."""
    as_count("max_workers", max_workers, 1, "files")
    resolver = _Resolver(plan, environment, offline=offline, max_workers=max_workers)
    resolution = resolver.run()
    if resolution.missing:
        files = resolution.files()
        if resolver.server is None:
            raise _missing(resolution.missing, environment, files)
        damaged = {name for name in resolution.missing if files[name].get("damaged")}
        paths = {name: files[name]["path"] for name in resolution.missing}
        resolver.fetch(paths, replace=damaged)
        resolution = resolver.inspect(resolution)
        if resolution.missing:
            raise _missing(resolution.missing, environment, resolution.files())
    if resolver.server is not None:
        crds_cache.remember_context(environment.path, resolution.context)
    return _table(resolution, resolver.fetched)


def _missing(
    names: Collection[str],
    environment: CrdsEnvironment,
    files: Mapping[str, dict] | None = None,
) -> CrdsUnavailable:
    described = []
    for name in names:
        types = "/".join(sorted(files[name]["types"])) if files else ""
        damaged = (files or {}).get(name, {}).get("damaged", "")
        note = ", ".join(part for part in (types, damaged) if part)
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
        self,
        plan: Plan,
        environment: CrdsEnvironment,
        *,
        offline: bool,
        max_workers: int = 4,
    ) -> None:
        pipelines.require_jwst()
        self.plan, self.environment = plan, environment
        self.max_workers = max_workers
        url = "" if offline or "serverless" in environment.server_url else environment.server_url
        self.server = CrdsServer(url) if url else None
        self.fetched: dict[str, Fetched] = {}
        self.memo = FileMemo(cache_folder() / "references.json", crds_cache.inspect_file)

    def run(self) -> Resolution:
        """Find out everything."""
        context = self._context()
        environment = replace(self.environment, context=context, server_url="")
        groups, members = self._groups()
        mappings = self._mappings(context, groups)
        self._config()
        answers = self._answers(environment, mappings, groups)
        self._refuse_errors(groups, members, answers, context)
        by_task = {
            part: {task: answers[key][part] for key, tasks in members.items() for task in tasks}
            for part in ("references", "pars", "effective", "base", "crds")
        }
        references = by_task["references"]
        for task in self.plan.tasks:
            if task.name in by_task["pars"]:
                references.setdefault(task.configuration, {}).update(references[task.name])
        resolution = Resolution(
            context,
            environment,
            references=references,
            parameter_references=by_task["pars"],
            parameters=by_task["effective"],
            base=by_task["base"],
            crds=by_task["crds"],
            mappings=tuple(mappings),
        )
        return self.inspect(resolution)

    def _context(self) -> str:
        """Return the name of the context that is in force now."""
        name, server = self.environment.context, self.server
        if crds_cache.CONTEXT_NAME.fullmatch(name):
            return name
        if server is None:
            return self._context_of_cache(name)
        try:
            return server.context(name, version("jwst"))
        except TransferError as error:
            latest = (crds_cache.read_server_config(self.environment.path) or {}).get(
                "latest_context"
            )
            hint = f" (the cache has {latest})" if latest else ""
            msg = (
                f"The CRDS server cannot be asked which context {name or 'the newest'!r} is: "
                f"{reason_of(error)} Name one with crds_context{hint}."
            )
            raise CrdsUnavailable(msg, url=server.url, cause=error) from error

    def _context_of_cache(self, name: str) -> str:
        config = self._config()
        if not name and (remembered := crds_cache.remembered_context(self.environment.path)):
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
        config = crds_cache.read_server_config(cache)
        if config is not None:
            return config
        path = crds_cache.server_config_path(cache)
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
            crds_cache.write_server_config(cache, server.info)
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
        parameters = (group["parameters"] for group in groups.values())
        instruments = {values.get("META.INSTRUMENT.NAME", "").upper() for values in parameters}
        cache = self.environment.path
        tried: set[str] = set()
        while True:
            needed, missing = crds_cache.closure(cache, context, instruments)
            if not missing:
                return needed
            names = sorted(missing)
            if self.server is None or tried.issuperset(names):
                raise _missing(names, self.environment)
            tried.update(names)
            damaged = {name for name, what in missing.items() if what == "damaged"}
            self.fetch({name: mapping_path(cache, name) for name in names}, replace=damaged)

    def _answers(
        self, environment: CrdsEnvironment, mappings: list[str], groups: Mapping[str, dict]
    ) -> dict[str, dict]:
        """Return what CRDS recommends for each group, after parameter files were fetched."""
        recall = crds_cache.Recall(environment, mappings, groups)
        answers = recall.get()
        if answers is not None:
            return answers
        variables = environment.variables(readonly=True)
        answers = pipelines.ask(_RESOLVE, {"groups": groups}, variables)
        absent = {
            entry["name"]: entry["path"]
            for answer in answers.values()
            for entry in answer["pars"].values()
            if entry["name"] in answer["missing"]
        }
        if absent and self.server is not None:
            self.fetch(absent)
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
        lines = []
        for key, answer in answers.items():
            for reftype, reason in answer["errors"]:
                values = groups[key]["parameters"]
                shown = ", ".join(f"{name}={values[name]}" for name in sorted(values))
                tasks = members[key]
                more = f" and {len(tasks) - 1} more" if len(tasks) > 1 else ""
                lines.append(
                    f"\n- {reftype} for {tasks[0]}{more}: {reason}; the exposure has {shown}."
                )
        if lines:
            msg = (
                f"The CRDS context {context} has no reference for what the plan needs:"
                f"{''.join(lines)}\nCorrect the headers, choose another crds_context, or give a "
                "file with steps={step: {'override_<type>': path}}."
            )
            raise CrdsUnavailable(msg)

    def fetch(self, paths: Mapping, replace: Collection[str] = ()) -> None:
        """Fetch files, all of them, or say which ones could not be had and why."""
        server = self.server
        if server is None:
            raise _missing(paths, self.environment)
        results = fetch_files(server, paths, replace=replace, max_workers=self.max_workers)
        self.fetched.update({result.name: result for result in results})
        failed = [result for result in results if result.error is not None]
        if failed:
            lines = "".join(f"\n- {result.name}: {result.error}" for result in failed)
            msg = (
                f"{len(failed)} of {len(paths)} files could not be fetched from the CRDS server "
                f"{server.url} into {self.environment.path}:{lines}\nWhat came is kept; call "
                "prefetch_references again, or set crds_path or crds_server_url to others."
            )
            names = [result.name for result in failed]
            raise CrdsUnavailable(msg, missing=names, url=server.url, cause=failed[0].error)

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


_NO_FILE = {"sha1": "", "bytes": 0, "present": True, "damaged": ""}
"""State of a reference that CRDS says there is none of to be."""


_COLUMNS = {
    **dict.fromkeys(("Local Path", "Status", "Message", "URL", "name", "kind", "types"), str),
    "bytes": int,
    "sha1": str,
    "tasks": int,
}


def _table(resolution: Resolution, fetched: Mapping[str, Fetched]) -> Table:
    cache, n_tasks = resolution.environment.path, len(resolution.parameters)
    rows: list[tuple] = []
    for name in resolution.mappings:
        path = mapping_path(cache, name)
        rows.append((str(path), name, "mapping", "", path.stat().st_size, "", n_tasks))
    for name, file in sorted(resolution.files().items()):
        kind = "parameters" if all(t.startswith("pars-") for t in file["types"]) else "reference"
        types, size = ",".join(sorted(file["types"])), file["bytes"]
        rows.append((file["path"], name, kind, types, size, file["sha1"], len(file["tasks"])))
    rows = [(path, *_origin(fetched.get(name)), name, *more) for path, name, *more in rows]
    table = Table(rows=rows or None, names=list(_COLUMNS), dtype=list(_COLUMNS.values()))
    table.meta["context"] = resolution.context
    return table


def _origin(file: Fetched | None) -> tuple[str, str, str]:
    """Return status, message and address of a file that was there, or came."""
    return ("CACHED", "", "") if file is None else ("COMPLETE", "", file.url)
