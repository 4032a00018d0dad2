"""The cache of CRDS: where it is, which rules a context needs, what CRDS answers from them.

A context (``.pmap``) names a mapping per instrument (``.imap``), which names one per type of
reference (``.rmap``).  CRDS reads all those of an instrument whatever type is asked for.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..._conf import setting
from ..._typing import FilePath
from ...exceptions import CrdsUnavailable, TruncatedError, UnexpectedContentError
from ...io.whole_files import check_structure, write_bytes
from ..pipelines import pipeline_classes, plain_parameters, step_sections
from ..tasks import cache_folder

CONTEXT_NAME = re.compile(r"jwst_\w+\.pmap")
_NOT_A_FILE = ("N/A", "TEXT", "OMIT")
_KEPT = 32
_PACKAGES = ("jwst", "stpipe", "stcal", "stdatamodels", "crds")


@dataclass(frozen=True, slots=True)
class CrdsEnvironment:
    """The place and the state of the reference files of a run.

    Attributes
    ----------
    path : str
        Directory of the CRDS cache.
    context : str
        Name of the context (``jwst_1322.pmap``); empty for the server's newest, or the cache's.
    server_url : str
        Address of the CRDS server; empty for none: only the cache is used.
    """

    path: str
    context: str = ""
    server_url: str = ""

    def variables(self, *, readonly: bool = False) -> dict[str, str | None]:
        """Return the environment variables for a process that uses CRDS."""
        return {
            "CRDS_PATH": self.path,
            "CRDS_CONTEXT": self.context or None,
            "CRDS_SERVER_URL": self.server_url or None,
            "CRDS_READONLY_CACHE": "1" if readonly else None,
        }


def crds_environment(
    *,
    path: FilePath | None = None,
    context: str | None = None,
    server_url: str | None = None,
    offline: bool = False,
) -> CrdsEnvironment:
    """Return the CRDS environment in force: arguments, then ``conf``, then CRDS's own variables."""

    def value(argument: object, item: str, variable: str, default: str = "") -> str:
        return str(argument or setting(item) or os.environ.get(variable) or default)

    folder = value(path, "crds_path", "CRDS_PATH", "~/crds_cache")
    server = value(server_url, "crds_server_url", "CRDS_SERVER_URL")
    return CrdsEnvironment(
        path=str(Path(folder).expanduser().absolute()),
        context=value(context, "crds_context", "CRDS_CONTEXT"),
        server_url="" if offline else server,
    )


def server_config_path(cache: FilePath) -> Path:
    """Return where CRDS keeps what its server last said of itself."""
    return Path(cache) / "config" / "jwst" / "server_config"


def read_server_config(cache: FilePath) -> dict | None:
    """Return what the CRDS server last said of itself; `None` if it cannot be read."""
    try:
        values = ast.literal_eval(server_config_path(cache).read_text())
    except (OSError, ValueError, SyntaxError):
        return None
    return values if isinstance(values, dict) else None


def write_server_config(cache: FilePath, info: Mapping) -> None:
    """Write down what a server says of itself, where CRDS looks for it without a network."""
    try:
        values = {**info, "status": "server", "connected": True}
        write_bytes(server_config_path(cache), repr(values).encode())
    except OSError as error:
        msg = (
            f"The CRDS cache {os.fspath(cache)} cannot be written ({error}); set "
            "crds_path to a directory that can."
        )
        raise CrdsUnavailable(msg, cause=error) from error


def mapping_path(cache: FilePath, name: str) -> Path:
    """Return where a mapping is kept."""
    return Path(cache) / "mappings" / "jwst" / name


def closure(
    cache: FilePath, context: str, instruments: Collection[str]
) -> tuple[list[str], dict[str, str]]:
    """Find the mappings that decide for some instruments: those needed, and missing or damaged."""
    needed: list[str] = []
    missing: dict[str, str] = {}
    selector = _selector(cache, context, needed, missing)
    if selector is None:
        return needed, missing
    for instrument in sorted(instruments):
        name = selector.get(instrument)
        if name is None or name in _NOT_A_FILE:
            msg = (
                f"The CRDS context {context} has no rules for the instrument {instrument!r}; it "
                f"has them for {', '.join(sorted(selector))}."
            )
            raise CrdsUnavailable(msg)
        rules = _selector(cache, name, needed, missing)
        for rule in (rules or {}).values():
            if rule not in _NOT_A_FILE:
                _selector(cache, rule, needed, missing)
    return needed, missing


def _selector(
    cache: FilePath, name: str, needed: list[str], missing: dict[str, str]
) -> dict | None:
    """Return a mapping's selector, `None` if it cannot be had; note the mapping down."""
    needed.append(name)
    path = mapping_path(cache, name)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        missing[name] = "missing" if isinstance(error, FileNotFoundError) else "damaged"
        return None
    try:
        values = _assigned(text, whole=not name.endswith(".rmap"))
    except (ValueError, SyntaxError):
        missing[name] = "damaged"
        return None
    if not _ignores_checksums() and values["header"].get("sha1sum") not in (None, _sha1(text)):
        missing[name] = "damaged"
        return None
    return values.get("selector", {})


def _assigned(text: str, *, whole: bool) -> dict[str, dict]:
    """Return the dictionaries that a mapping consists of."""
    values = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            # The selector of an rmap is made of calls, which only CRDS reads.
            if name == "header" or (whole and name == "selector"):
                values[name] = ast.literal_eval(node.value)
    if "header" not in values:
        msg = "A mapping has a header."
        raise ValueError(msg)
    return values


def _sha1(text: str) -> str:
    lines = (line for line in text.splitlines(keepends=True) if "sha1sum" not in line)
    return hashlib.sha1("".join(lines).encode(), usedforsecurity=False).hexdigest()


def _ignores_checksums() -> bool:
    value = os.environ.get("CRDS_IGNORE_MAPPING_CHECKSUM", "")
    return value.lower() in ("1", "true", "t", "yes", "y")


def _context_file(path: str) -> Path:
    return Path(server_config_path(path)).with_name("astroquery_lis_context")


def remember_context(path: str, context: str) -> None:
    """Note the context that the cache has everything of, for a later run without the server.

    The server's newest and the cache's ``latest_context`` may be two, and only one of them is here.
    """
    # A cache that cannot be written to is used all the same.
    with suppress(OSError):
        write_bytes(_context_file(path), f"{context}\n".encode())


def remembered_context(path: str) -> str:
    """Return the context that `remember_context` noted; empty if there is none, or it is gone."""
    try:
        context = _context_file(path).read_text().strip()
    except OSError:
        return ""
    is_here = CONTEXT_NAME.fullmatch(context) and mapping_path(path, context).is_file()
    return context if is_here else ""


def inspect_file(path: Path) -> dict:
    """Return digest and length of a reference file, and what is wrong with it."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.sha1(usedforsecurity=False))
        damaged = ""
        try:
            check_structure(path, stream, str(path))
        except (TruncatedError, UnexpectedContentError) as error:
            damaged = "truncated" if isinstance(error, TruncatedError) else "damaged"
    size = path.stat().st_size
    return {"sha1": digest.hexdigest(), "bytes": size, "damaged": damaged}


class Recall:
    """The answers to one set of questions."""

    def __init__(
        self, environment: CrdsEnvironment, mappings: Sequence[str], groups: Collection[str]
    ) -> None:
        question = {
            "cache": environment.path,
            "context": environment.context,
            "groups": sorted(groups),
            "mappings": [_stamp(mapping_path(environment.path, name)) for name in mappings],
            "packages": [version(package) for package in _PACKAGES],
            "variables": sorted(
                item for item in os.environ.items() if item[0].startswith(("CRDS_", "STPIPE_"))
            ),
        }
        digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
        self._folder = cache_folder() / "answers"
        self._path = self._folder / f"{digest}.json"

    def get(self) -> dict | None:
        """Return the answers of an earlier time."""
        try:
            note = json.loads(self._path.read_text())
            answers = dict(note["answers"])
            is_valid = all(_stamp(path) == stamp for path, stamp in note["files"].items())
        except (OSError, ValueError, KeyError):
            return None
        if not is_valid:
            return None
        with suppress(OSError):
            os.utime(self._path)
        return answers

    def put(self, answers: Mapping[str, Mapping]) -> None:
        """Keep answers, if they are complete."""
        if any(answer["missing"] or answer["errors"] for answer in answers.values()):
            return
        paths = {
            entry["path"]
            for answer in answers.values()
            for entry in answer["pars"].values()
            if entry["path"]
        }
        note = {"answers": answers, "files": {path: _stamp(path) for path in sorted(paths)}}
        try:
            write_bytes(self._path, json.dumps(note).encode())
            newest = sorted(self._folder.glob("*.json"), key=os.path.getmtime, reverse=True)
            for path in newest[_KEPT:]:
                path.unlink(missing_ok=True)
        except OSError:
            # They can be asked for again.
            return


def _stamp(path: FilePath) -> list:
    status = os.stat(path)
    return [os.fspath(path), status.st_size, status.st_mtime_ns]


# ---- in the process of the pipeline -------------------------------------------------------------


def resolve_in_process(job: Mapping[str, Any]) -> dict:
    """Return the answer to each of ``job['groups']``, see `_resolved`."""
    return {key: _resolved(**group) for key, group in job["groups"].items()}


def _resolved(parameters: Mapping[str, Any], pipeline: str, steps: Mapping[str, Any]) -> dict:
    """Find parameters and references of one pipeline for one set-up of an instrument.

    The answer has ``pars`` and ``references`` (by type: ``name``, ``path``), ``missing`` (parameter
    files that are not there, as if they said nothing), ``errors`` (``[type, message]``), ``crds``,
    ``effective`` and ``base`` (parameters that CRDS gives, that hold, and that would hold if
    nothing had been asked).
    """
    from stpipe import config_parser

    cls = pipeline_classes()[pipeline]
    classes = [*_steps(cls).values(), cls]
    types = dict.fromkeys(step.get_config_reftype() for step in classes)
    pars, errors = _look_up(parameters, list(types), required=False)
    missing = [entry["name"] for entry in pars.values() if _is_absent(entry)]
    config: Any
    if missing:
        config = _present_config(config_parser, cls, pars)
    else:
        config = cls.get_config_from_reference(dict(parameters), crds_observatory="jwst")
    # The instance below changes the configuration that it is made of.
    crds = plain_parameters(config.dict())
    base = cls.from_config_section(_config(config_parser, crds))
    own = {"steps": steps} if hasattr(cls, "step_defs") else steps.get(cls.class_alias, {})
    instance = cls.from_config_section(_config(config_parser, crds, own))
    overrides, needed = _reference_types(instance, _steps(cls))
    references, unknown = _look_up(parameters, sorted(needed - set(overrides)), required=True)
    answer = {"pars": pars, "missing": missing, "errors": errors + unknown}
    answer["references"] = {**references, **overrides}
    answer["crds"] = {
        name: {par: value for par, value in section.items() if par not in ("class", "name")}
        for name, section in step_sections(crds, cls).items()
        if section
    }
    answer["effective"] = plain_parameters(step_sections(instance.get_pars(), cls))
    answer["base"] = plain_parameters(step_sections(base.get_pars(), cls))
    return answer


def _reference_types(instance: Any, names: Iterable[str]) -> tuple[dict[str, dict], set[str]]:
    """Return the references that the parameters name, and the types to ask CRDS for."""
    overrides: dict[str, dict] = {}
    needed: set[str] = set()
    for name in names:
        step = getattr(instance, name, instance)
        for reftype in () if step.skip else step.reference_file_types:
            path = instance.get_ref_override(reftype)
            if path is not None and path.strip() in ("", "N/A"):
                overrides[reftype] = {"name": "N/A", "path": ""}
            elif path is not None:
                overrides[reftype] = {"name": os.path.basename(path), "path": path}
            elif step.prefetch_references:
                needed.add(reftype)
    return overrides, needed


def _present_config(config_parser: Any, cls: Any, pars: Mapping[str, dict]) -> dict:
    """Return the parameters in those files that are there, put together as stpipe does."""

    def load(step: Any) -> dict:
        entry = pars[step.get_config_reftype()]
        there = entry["name"] != "N/A" and not _is_absent(entry)
        return config_parser.load_config_file(entry["path"]) if there else {}

    steps = {name: load(step) for name, step in getattr(cls, "step_defs", {}).items()}
    return _config(config_parser, {"steps": steps} if steps else {}, load(cls))


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
        if name.lower().startswith("not found n/a") or name.upper() == "N/A":
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
