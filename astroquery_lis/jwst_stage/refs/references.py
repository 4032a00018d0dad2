"""Reference files: which ones a plan would use now, and getting them before any work begins.

The context is pinned by name once per run.  What CRDS recommends is asked once per distinct
set-up of an instrument and set of parameters, in another process; what is missing is fetched once,
in parallel, and checked before it gets its name.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from astropy.table import Table

from ...exceptions import (
    CrdsUnavailable,
    InvalidRequestError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
)
from ...io.content import check_structure
from ...io.store import write_bytes
from .. import pipeline
from ..resume.records import FileMemo, cache_folder
from .crds_fetch import CrdsServer, fetch_files, write_server_config
from .mappings import CONTEXT_NAME, closure, mapping_path, read_server_config, server_config_path
from .recall import Recall
from .resolution import Resolution

__all__ = ["Resolution", "prefetch", "resolve"]

_CHUNK_BYTES = 1 << 20
_SERVER = "https://jwst-crds.stsci.edu"
_WAY_OUT = (
    f"set crds_server_url (JWST's is {_SERVER}) and call prefetch_references where there is a "
    "network, or set crds_path to a cache that has them"
)


def resolve(plan, environment, *, offline=False):
    """Find out which references and parameters the tasks of a plan would use now.

    Mappings and parameter files, which are small, are fetched if they are missing and there is a
    server; references are only named.

    Parameters
    ----------
    plan : Plan
        Its ``tasks`` and ``configurations``.
    environment : CrdsEnvironment
        Cache, context and server.
    offline : bool, optional
        Whether no server may be asked; `False` by default.

    Returns
    -------
    Resolution

    Raises
    ------
    CrdsUnavailable
        If mappings are missing and cannot be had, or CRDS has no reference for an exposure.
    OptionalDependencyError
        If `jwst` is not installed.
    """
    return _Resolver(plan, environment, offline=offline).run()


def prefetch(plan, environment, offline=False, max_workers=4, *, done=None):
    """Get the reference files of a plan into the cache, each once, checked.

    Parameters
    ----------
    plan : Plan
        Its ``tasks`` and ``configurations``.
    environment : CrdsEnvironment
        Cache, context and server.
    offline : bool, optional
        Whether no server may be asked; then only tells what is missing.
    max_workers : int, optional
        Files fetched at once.
    done : callable, optional
        Called with each file that has come, for a progress bar.

    Returns
    -------
    `~astropy.table.Table`
        One row per file: ``Local Path``, ``Status`` (``COMPLETE`` or ``CACHED``), ``Message``,
        ``URL``, ``name``, ``kind``, ``types``, ``bytes``, ``sha1``, ``tasks``; the context in
        ``meta['context']``.

    Raises
    ------
    CrdsUnavailable
        If files are missing and cannot be had: its ``missing`` has their names.
    """
    if isinstance(max_workers, bool) or not isinstance(max_workers, int) or max_workers < 1:
        msg = f"max_workers={max_workers!r} must be a positive number of files."
        raise InvalidRequestError(msg, parameter="max_workers", value=max_workers)
    resolver = _Resolver(plan, environment, offline=offline, max_workers=max_workers, done=done)
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
        _remember(environment.path, resolution.context)
    return _table(resolution, resolver.fetched)


def _context_file(path):
    return Path(server_config_path(path)).with_name("astroquery_lis_context")


def _remember(path, context):
    """Note the context that the cache has everything of, for a later run without the server.

    The server's newest and the cache's ``latest_context`` may be two, and only one of them is here.
    """
    # A cache that cannot be written to is used all the same.
    with suppress(OSError):
        write_bytes(_context_file(path), f"{context}\n".encode())


def _remembered(path):
    try:
        context = _context_file(path).read_text().strip()
    except OSError:
        return ""
    known = CONTEXT_NAME.fullmatch(context) and Path(mapping_path(path, context)).is_file()
    return context if known else ""


def _missing(names, environment, files=None):
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
    """One resolution: the server, if any, the child process, and what was fetched."""

    def __init__(self, plan, environment, *, offline, max_workers=4, done=None):
        pipeline.require_jwst()
        self.plan, self.environment = plan, environment
        self.max_workers, self.done = max_workers, done
        url = "" if offline or "serverless" in environment.server_url else environment.server_url
        self.server = CrdsServer(url) if url else None
        self.fetched = {}
        self.memo = FileMemo(cache_folder() / "references.json", _inspect)

    def run(self):
        context = self._context()
        environment = replace(self.environment, context=context, server_url="")
        groups, members = self._groups()
        mappings = self._mappings(context, groups)
        self._server_config()
        answers = self._answers(environment, mappings, groups)
        self._refuse_errors(groups, members, answers, context)
        by_task = {
            part: {task: answers[key][part] for key, tasks in members.items() for task in tasks}
            for part in ("references", "pars", "effective", "base", "crds")
        }
        resolution = Resolution(
            context,
            environment,
            references=by_task["references"],
            parameter_references=by_task["pars"],
            parameters=by_task["effective"],
            base=by_task["base"],
            crds=by_task["crds"],
            mappings=tuple(mappings),
        )
        return self.inspect(resolution)

    def _context(self):
        """Return the name of the context that is in force now."""
        asked = self.environment.context
        if CONTEXT_NAME.fullmatch(asked):
            return asked
        if self.server is not None:
            try:
                return self.server.context(asked, version("jwst"))
            except TransferError as error:
                known = (read_server_config(self.environment.path) or {}).get("latest_context")
                there = f" (the cache has {known})" if known else ""
                msg = (
                    f"The CRDS server cannot be asked which context {asked or 'the newest'!r} is: "
                    f"{error} Name one with crds_context{there}."
                )
                raise CrdsUnavailable(msg, url=self.server.url, cause=error) from error
        config = self._config()
        if not asked and (remembered := _remembered(self.environment.path)):
            return remembered
        key = {"edit": "edit_context", "jwst-edit": "edit_context"}.get(asked, "latest_context")
        named = asked in ("", "latest", "build", "jwst-latest", "jwst-build", "jwst-operational")
        found = config.get(key) or config.get("operational_context")
        if not found or not (named or key == "edit_context"):
            msg = (
                f"crds_context={asked!r} cannot be told without a CRDS server; name a context "
                "such as 'jwst_1322.pmap', or set crds_server_url."
            )
            raise CrdsUnavailable(msg)
        return str(found)

    def _config(self):
        config = read_server_config(self.environment.path)
        if config is None:
            path = server_config_path(self.environment.path)
            msg = (
                f"{self.environment.path} is not a CRDS cache that can be used: {path} is missing "
                f"or cannot be read. To mend it, {_WAY_OUT}."
            )
            raise CrdsUnavailable(msg, missing=[path.name])
        return config

    def _server_config(self):
        """Make sure that CRDS finds its own configuration, without which it ends the process."""
        if read_server_config(self.environment.path) is not None:
            return
        if self.server is None:
            self._config()
        try:
            info = self.server.info
        except TransferError as error:
            msg = (
                f"The CRDS cache {self.environment.path} is empty, and its server does not "
                f"answer: {error} Set crds_server_url to one that can be reached."
            )
            raise CrdsUnavailable(msg, url=self.server.url, cause=error) from error
        write_server_config(server_config_path(self.environment.path), info)

    def _groups(self):
        """Return what has to be asked, and the tasks that each answer is for."""
        groups, members = {}, {}
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

    def _mappings(self, context, groups):
        """Return the mappings that decide, after those that were missing were fetched."""
        instruments = {_instrument(group["parameters"]) for group in groups.values()}
        cache = self.environment.path
        tried = set()
        while True:
            needed, missing = closure(cache, context, instruments)
            if not missing:
                return needed
            names = sorted(missing)
            if self.server is None or tried.issuperset(names):
                raise _missing(names, self.environment)
            tried.update(names)
            damaged = {name for name, what in missing.items() if what == "damaged"}
            self.fetch({name: mapping_path(cache, name) for name in names}, replace=damaged)

    def _answers(self, environment, mappings, groups):
        recall = Recall(environment, mappings, groups)
        answers = recall.get()
        if answers is None:
            answers = self._ask(groups, environment.variables(readonly=True))
            recall.put(answers)
        return answers

    def _ask(self, groups, variables):
        """Return what CRDS recommends for each group, after parameter files were fetched."""
        answers = pipeline.ask("refs.answers:resolve", {"groups": groups}, variables)
        absent = {
            entry["name"]: entry["path"]
            for answer in answers.values()
            for entry in answer["pars"].values()
            if entry["name"] in answer["missing"]
        }
        if absent and self.server is not None:
            self.fetch(absent)
            again = {key: group for key, group in groups.items() if answers[key]["missing"]}
            answers |= pipeline.ask("refs.answers:resolve", {"groups": again}, variables)
        return answers

    def _refuse_errors(self, groups, members, answers, context):
        lines = []
        for key, answer in answers.items():
            for reftype, said in answer["errors"]:
                values = groups[key]["parameters"]
                shown = ", ".join(f"{name}={values[name]}" for name in sorted(values))
                tasks = members[key]
                more = f" and {len(tasks) - 1} more" if len(tasks) > 1 else ""
                lines.append(
                    f"\n- {reftype} for {tasks[0]}{more}: {said}; the exposure has {shown}."
                )
        if lines:
            msg = (
                f"The CRDS context {context} has no reference for what the plan needs:"
                f"{''.join(lines)}\nCorrect the headers, choose another crds_context, or give a "
                "file with steps={step: {'override_<type>': path}}."
            )
            raise CrdsUnavailable(msg)

    def fetch(self, paths, replace=()):
        """Fetch files, all of them, or say which ones could not be had and why."""
        results = fetch_files(
            self.server,
            paths,
            replace=replace,
            max_workers=self.max_workers,
            done=self.done,
        )
        self.fetched.update({result.name: result for result in results})
        failed = [result for result in results if result.error is not None]
        if failed:
            lines = "".join(f"\n- {result.name}: {result.error}" for result in failed)
            msg = (
                f"{len(failed)} of {len(paths)} files could not be fetched from the CRDS server "
                f"{self.server.url} into {self.environment.path}:{lines}\nWhat came is kept; call "
                "prefetch_references again, or set crds_path or crds_server_url to others."
            )
            names = [result.name for result in failed]
            raise CrdsUnavailable(msg, missing=names, url=self.server.url, cause=failed[0].error)

    def inspect(self, resolution):
        """Return the resolution with size, sha1 and presence of every file."""
        paths = {file["path"] for file in resolution.files().values()}
        with ThreadPoolExecutor(max_workers=4) as pool:
            states = dict(zip(paths, pool.map(self._state, paths), strict=True))
        self.memo.save()
        nothing = {"sha1": "", "bytes": 0, "present": True}
        # Tasks of one group share the dictionaries, and go on doing so.
        done = {}

        def filled(by_type):
            if id(by_type) not in done:
                done[id(by_type)] = {
                    reftype: {**entry, **(states[entry["path"]] if entry["path"] else nothing)}
                    for reftype, entry in by_type.items()
                }
            return done[id(by_type)]

        references = {
            task: filled(found)
            for task, found in resolution.references.items()
            if task in resolution.parameters
        }
        pars = {task: filled(found) for task, found in resolution.parameter_references.items()}
        for task in self.plan.tasks:
            if task.name in pars:
                references.setdefault(task.configuration, {}).update(references[task.name])
        resolution = replace(resolution, references=references, parameter_references=pars)
        files = resolution.files()
        missing = sorted(name for name, file in files.items() if not file["present"])
        return replace(resolution, missing=tuple(missing))

    def _state(self, path):
        try:
            found = self.memo.get(path)
        except OSError:
            return {"sha1": "", "bytes": 0, "present": False}
        state = {"sha1": found["sha1"], "bytes": found["bytes"], "present": not found["damaged"]}
        return {**state, "damaged": found["damaged"]} if found["damaged"] else state


def _instrument(parameters):
    values = {name.upper(): value for name, value in parameters.items()}
    return str(values.get("META.INSTRUMENT.NAME", "")).upper()


def _inspect(path):
    """Return digest and length of a reference file, and what is wrong with it."""
    path = Path(path)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.sha1(usedforsecurity=False))
        damaged = ""
        try:
            check_structure(path, stream, str(path))
        except (TruncatedError, UnexpectedContentError) as error:
            damaged = "truncated" if isinstance(error, TruncatedError) else "damaged"
    size = path.stat().st_size
    return {"sha1": digest.hexdigest(), "bytes": size, "damaged": damaged}


def _table(resolution, fetched):
    rows = []
    cache = resolution.environment.path
    for name in resolution.mappings:
        path = mapping_path(cache, name)
        size, tasks = path.stat().st_size, len(resolution.parameters)
        rows.append((path, name, "mapping", "", size, "", tasks))
    for name, file in sorted(resolution.files().items()):
        kind = "parameters" if all(t.startswith("pars-") for t in file["types"]) else "reference"
        types = ",".join(sorted(file["types"]))
        tasks = len(file["tasks"])
        rows.append((file["path"], name, kind, types, file["bytes"], file["sha1"], tasks))
    table = Table(
        names=(
            "Local Path",
            "Status",
            "Message",
            "URL",
            "name",
            "kind",
            "types",
            "bytes",
            "sha1",
            "tasks",
        ),
        dtype=(object, object, object, object, object, object, object, "i8", object, "i8"),
    )
    for path, name, kind, types, size, sha1, tasks in rows:
        got = fetched.get(name)
        status = "COMPLETE" if got is not None else "CACHED"
        url = got.url if got is not None else ""
        table.add_row((str(path), status, "", url, name, kind, types, size, sha1, tasks))
    for column in table.colnames:
        if table[column].dtype == object:
            table[column] = [str(value) for value in table[column]]
    table.meta["context"] = resolution.context
    return table
