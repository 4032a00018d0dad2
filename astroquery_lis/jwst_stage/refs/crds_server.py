"""A CRDS server: which context it names, what it says of files, and the files themselves.

CRDS's own client asks the server, in a process of the pipeline; mappings and references are plain
files, which come resumed, checked and whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from ..._conf import conf, setting
from ..._typing import FilePath
from ...exceptions import (
    CacheError,
    ChecksumError,
    CrdsUnavailable,
    ServiceDownError,
    ServiceTimeoutError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
)
from ...io.bounds import seconds_left, within
from ...io.download import download
from ...io.http import HttpClient, causes, reason_of, unreachable, why_unreached
from .. import pipelines

OBSERVATORY = "jwst"
_CALL = "refs.crds_server:call_in_process"
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
            release = ".".join(jwst_version.split(".")[:3])
            try:
                if name == "latest":
                    return str(self.call("get_build_context", OBSERVATORY, release))
            except (ServiceDownError, UnexpectedContentError):
                raise
            except TransferError:
                # As CRDS does: the release is unknown to this server.
                pass
        named = symbolic_context(self.info, name)
        return named or str(self.call("get_context_by_date", name, OBSERVATORY))

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
