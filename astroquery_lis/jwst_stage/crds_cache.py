"""CRDS: its cache, the rules that a context needs, answers that were had, and its server.

A context (``.pmap``) names a mapping per instrument (``.imap``), which names one per type of
reference (``.rmap``).  CRDS reads all those of an instrument whatever type is asked for.  CRDS's
own client asks the server, in a process of the pipeline; mappings and references are plain files,
which come resumed, checked and whole.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from .._conf import conf, setting
from .._typing import FilePath
from ..exceptions import (
    CacheError,
    ChecksumError,
    CrdsUnavailable,
    ServiceDownError,
    ServiceTimeoutError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
)
from ..io.bounds import seconds_left, within
from ..io.download import download
from ..io.http import HttpClient, causes, reason_of, unreachable, why_unreached
from ..io.whole_files import check_structure, write_bytes
from . import pipelines
from .tasks import cache_folder

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
    if missing:
        return needed, missing
    for instrument in sorted(instruments):
        name = selector.get(instrument) or "N/A"
        if name in _NOT_A_FILE:
            msg = (
                f"The CRDS context {context} has no rules for the instrument {instrument!r}; it "
                f"has them for {', '.join(sorted(selector))}."
            )
            raise CrdsUnavailable(msg)
        for rule in _selector(cache, name, needed, missing).values():
            if rule not in _NOT_A_FILE:
                _selector(cache, rule, needed, missing)
    return needed, missing


def _selector(cache: FilePath, name: str, needed: list[str], missing: dict[str, str]) -> dict:
    """Return a mapping's selector, empty if it cannot be had; note the mapping down."""
    needed.append(name)
    try:
        values = _assigned(mapping_path(cache, name).read_text(), whole=not name.endswith(".rmap"))
    except FileNotFoundError:
        missing[name] = "missing"
    except (OSError, ValueError, SyntaxError):
        missing[name] = "damaged"
    else:
        return values.get("selector", {})
    return {}


def _assigned(text: str, *, whole: bool) -> dict[str, dict]:
    """Return the dictionaries that a mapping consists of; `ValueError` if it is damaged."""
    # The selector of an rmap is made of calls, which only CRDS reads.
    names = ("header", "selector") if whole else ("header",)
    assigned = (node for node in ast.parse(text).body if isinstance(node, ast.Assign))
    nodes = {getattr(node.targets[0], "id", ""): node.value for node in assigned}
    values = {name: ast.literal_eval(nodes[name]) for name in names if name in nodes}
    if "header" not in values:
        msg = "A mapping has a header."
        raise ValueError(msg)
    if not _ignores_checksums() and values["header"].get("sha1sum") not in (None, _sha1(text)):
        msg = "It is not what its header says."
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
        self._folder = cache_folder() / "recommendations"
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
        note = {"answers": answers, "files": _stamps_of(answers)}
        # They can be asked for again.
        with suppress(OSError):
            write_bytes(self._path, json.dumps(note).encode())
            self._forget_old()

    def _forget_old(self) -> None:
        newest = sorted(self._folder.glob("*.json"), key=os.path.getmtime, reverse=True)
        for path in newest[_KEPT:]:
            path.unlink(missing_ok=True)


def _stamps_of(answers: Mapping[str, Mapping]) -> dict[str, list]:
    """Return the stamps of the parameter files that answers were had from."""
    parts = (answer["parameter_references"].values() for answer in answers.values())
    paths = sorted({entry["path"] for part in parts for entry in part} - {""})
    return {path: _stamp(path) for path in paths}


def _stamp(path: FilePath) -> list:
    status = os.stat(path)
    return [os.fspath(path), status.st_size, status.st_mtime_ns]


OBSERVATORY = "jwst"
_CALL = "crds_cache:call_in_process"
_CHUNK_BYTES = 1 << 20
_LATEST = ("latest", "jwst-latest", "jwst-operational")
_BUILD = ("", "build", "jwst-build")
_EDIT = ("edit", "jwst-edit")


def symbolic_context(info: Mapping[str, Any], name: str) -> str:
    """Return the context of a symbolic name by what a server says of itself, empty for others."""
    key = "edit_context" if name in _EDIT else "latest_context"
    if name not in (*_BUILD, *_EDIT, *_LATEST):
        return ""
    return str(info.get(key) or info.get("operational_context") or "")


@dataclass(frozen=True, slots=True)
class Fetched:
    """How it went with a file that was to be fetched; its ``url`` is empty if there is none."""

    name: str
    path: Path
    url: str
    fetched_bytes: int = 0
    error: Exception | None = None


class CrdsServer:
    """A CRDS server, asked with time-outs and repeated requests."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.client = HttpClient(
            timeout_s=setting("timeout"),
            retries=setting("retries"),
            max_retry_after_s=setting("max_retry_after"),
        )

    def call(self, method: str, *parameters: object) -> object:
        """Return the result of a remote procedure."""
        variables = {
            "CRDS_CLIENT_TIMEOUT_SECONDS": str(max(int(setting("timeout")), 1)),
            "CRDS_CLIENT_RETRY_COUNT": str(setting("retries") + 1),
            "CRDS_CLIENT_RETRY_DELAY_SECONDS": "1",
        }
        job = {"url": self.url, "method": method, "parameters": parameters}
        try:
            with within():
                # CRDS's own time-out is that of each byte.
                limit_s = seconds_left()
                answer = pipelines.ask(_CALL, job, variables, limit_s=limit_s)
        except TimeoutError as error:
            msg = f"{self.url} did not answer {method} within conf.deadline={conf.deadline:g} s."
            raise ServiceTimeoutError(msg, url=self.url, cause=error) from error
        if "result" in answer:
            return answer["result"]
        reason = answer["message"].removeprefix(f"CRDS jsonrpc failure {method!r} ")
        if answer["problem"] == "refused":
            msg = f"The CRDS server {self.url} refused {method}: {reason}"
            raise TransferError(msg, url=self.url)
        if answer["problem"] == "unreached":
            raise unreachable({urlsplit(self.url).netloc: reason}, url=self.url)
        if answer["problem"] == "silent":
            msg = f"The CRDS server {self.url} does not answer {method}: {reason}."
            raise ServiceDownError(msg, url=self.url)
        msg = f"{self.url} is no CRDS server: its answer to {method} is not one: {reason}."
        raise UnexpectedContentError(msg, url=self.url)

    @cached_property
    def info(self) -> dict:
        """What the server says of itself, without the long list of its files."""
        info = self.call("get_server_info")
        if not isinstance(info, dict):
            msg = f"{self.url} is no CRDS server: it says nothing of itself."
            raise UnexpectedContentError(msg, url=self.url)
        info.pop("download_metadata", None)
        return info

    def context(self, name: str, jwst_version: str) -> str:
        """Return the context that a symbolic name stands for now.

        No name stands for the context of the release of the installed pipeline.
        """
        if name in _BUILD:
            name = "edit" if "dev" in jwst_version else "latest"
            if name == "latest" and (context := self._context_of_release(jwst_version)):
                return context
        named = symbolic_context(self.info, name)
        return named or str(self.call("get_context_by_date", name, OBSERVATORY))

    def _context_of_release(self, jwst_version: str) -> str:
        """Return the context of a release of the pipeline; empty if the server knows of none."""
        release = ".".join(jwst_version.split(".")[:3])
        try:
            return str(self.call("get_build_context", OBSERVATORY, release))
        except (ServiceDownError, UnexpectedContentError):
            raise
        except TransferError:
            # As CRDS does: the release is unknown to this server.
            return ""

    def file_info(self, names: Collection[str]) -> dict[str, tuple[int, str]]:
        """Return size and sha1 of files that the server knows; the sha1 empty where it has none."""
        answer = self.call("get_file_info_map", OBSERVATORY, sorted(names), ["sha1sum", "size"])
        entries = answer if isinstance(answer, dict) else {}
        infos = {}
        for name in sorted(names):
            entry = entries.get(name)
            if isinstance(entry, dict):
                sha1 = str(entry.get("sha1sum", "")).lower()
                infos[name] = int(entry["size"]), "" if sha1 == "none" else sha1
        return infos

    def file_url(self, name: str) -> str:
        """Return the address of a mapping or reference."""
        section = self.info["mapping_url" if name.endswith("map") else "reference_url"]
        section = section.get("unchecked", section)
        return f"{str(section[OBSERVATORY]).rstrip('/')}/{name}"


def call_in_process(job: Mapping[str, Any]) -> dict:
    """Return the ``result`` of a remote procedure of a CRDS server, or the ``problem`` with it."""
    from crds.client.proxy import CheckingProxy
    from crds.core.exceptions import ServiceError

    procedure = getattr(CheckingProxy(f"{job['url']}/json/"), job["method"])
    try:
        return {"result": procedure(*job["parameters"])}
    except ServiceError as error:
        # What the server itself refused has no cause.
        reasons = [reason for lower in causes(error) if (reason := why_unreached(lower))]
        if reasons:
            return {"problem": "unreached", "message": reasons[0]}
        problem = "refused" if error.__cause__ is None else "silent"
        return {"problem": problem, "message": str(error)}
    except (ValueError, KeyError, TypeError) as error:
        return {"problem": "foreign", "message": str(error)}


def fetch_files(
    server: CrdsServer,
    paths: Mapping[str, FilePath],
    *,
    replace: Collection[str] = (),
    max_workers: int = 4,
) -> list[Fetched]:
    """Fetch files in parallel, each once, checked, and moved to its place when whole.

    Those named in ``replace`` are fetched although they are there.
    """
    if not paths:
        return []
    try:
        infos = server.file_info(paths.keys())
        urls = {name: server.file_url(name) for name in infos}
    except TransferError as error:
        msg = (
            f"{len(paths)} reference files or mappings are missing, and the CRDS server cannot be "
            f"asked for them: {reason_of(error)} Set crds_server_url to one that can be reached, "
            f"or fill the cache elsewhere. Missing: {', '.join(sorted(paths))}."
        )
        raise CrdsUnavailable(msg, missing=sorted(paths), url=server.url, cause=error) from error

    def fetch(name: str) -> Fetched:
        path = Path(paths[name])
        if name in infos:
            return _fetch(server, name, path, urls[name], infos[name], name in replace)
        msg = f"The CRDS server {server.url} does not know {name}."
        return Fetched(name, path, "", error=TransferError(msg, url=server.url))

    with ThreadPoolExecutor(max_workers=max(1, min(max_workers, len(paths)))) as pool:
        return list(pool.map(fetch, paths))


def _fetch(
    server: CrdsServer, name: str, path: Path, url: str, info: tuple[int, str], replace: bool
) -> Fetched:
    def check(stream: BinaryIO) -> None:
        _check(stream, url, *info)

    error: Exception | None = None
    # A proxy between may have spoilt a file; a second failure is the server's.
    for _ in range(2):
        try:
            result = download(server.client, url, path, replace=replace, check=check)
            return Fetched(name, path, url, result.fetched_bytes)
        except (ChecksumError, TruncatedError) as failure:
            error = failure
        except (TransferError, CacheError) as failure:
            return Fetched(name, path, url, error=failure)
    return Fetched(name, path, url, error=error)


def _check(stream: BinaryIO, url: str, size: int, sha1: str) -> None:
    digest, length = hashlib.sha1(usedforsecurity=False), 0
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
        length += len(chunk)
    if length != size:
        msg = f"{url} brought {length} bytes; the CRDS server announces {size}."
        raise TruncatedError(msg, url=url)
    actual = digest.hexdigest()
    if sha1 and actual != sha1:
        msg = f"{url} has sha1 {actual}; the CRDS server says {sha1}."
        raise ChecksumError(msg, url=url, found=actual)
