"""A CRDS server: which context it names, what it says of files, and the files themselves.

Requests are JSON-RPC 1.0, one POST to ``<server>/json/<method>/<id>/`` each; results that are long
come as base64 of gzipped JSON.  Mappings and references are plain files.
"""

import base64
import gzip
import hashlib
import html
import json
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import requests

from ..._conf import setting
from ...exceptions import (
    CacheError,
    ChecksumError,
    CrdsUnavailable,
    ServiceDownError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
)
from ...io.download import download
from ...io.http import HttpClient
from ...io.requests_session import PoliteSession
from ...io.store import write_bytes

__all__ = ["CrdsServer", "Fetched", "fetch_files", "write_server_config"]

OBSERVATORY = "jwst"
_CHUNK_BYTES = 1 << 20
_LATEST = ("latest", "jwst-latest", "jwst-operational")
_BUILD = ("", "build", "jwst-build")


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of a file that was to be fetched.

    Attributes
    ----------
    name : str
        Of the mapping or reference.
    path : `~pathlib.Path`
        Where it is, or should be.
    url : str
        Where it comes from; empty if the server does not know it.
    fetched_bytes : int
        How many bytes came over the network.
    error : Exception or None
        Why it could not be had.
    """

    name: str
    path: Path
    url: str
    fetched_bytes: int = 0
    error: Exception | None = None


class CrdsServer:
    """A CRDS server, asked with time-outs and polite retries.

    Parameters
    ----------
    url : str
        Its address.
    timeout_s : float, optional
        Seconds without an answer before a request is given up; by default ``conf.timeout``.
    """

    def __init__(self, url, *, timeout_s=None):
        self.url = url.rstrip("/")
        options = {
            "timeout_s": timeout_s or setting("timeout"),
            "retries": setting("retries"),
            "max_retry_after_s": setting("max_retry_after"),
        }
        self._options = options
        self.client = HttpClient(**options)

    def call(self, method, *parameters):
        """Return the result of a remote procedure.

        Parameters
        ----------
        method : str
            Its name.
        *parameters
            JSON types.

        Raises
        ------
        TransferError
            If there is no answer, or one that says what went wrong.
        """
        call_id = f"astroquery_lis-{uuid.uuid4()}"
        address = f"{self.url}/json/{method}/{call_id}/"
        body = {"jsonrpc": "1.0", "method": method, "params": parameters, "id": call_id}
        try:
            with PoliteSession(**self._options) as session:
                response = session.post(address, data=json.dumps(body))
                response.raise_for_status()
                answer = response.json()
        except requests.exceptions.JSONDecodeError as error:
            msg = f"{self.url} is no CRDS server: its answer to {method} is not JSON."
            raise UnexpectedContentError(msg, url=address, cause=error) from error
        except requests.RequestException as error:
            msg = f"The CRDS server {self.url} does not answer {method}: {error}."
            raise ServiceDownError(msg, url=address, cause=error) from error
        if not isinstance(answer, dict) or "result" not in answer:
            msg = f"{self.url} is no CRDS server: its answer to {method} has no result."
            raise UnexpectedContentError(msg, url=address)
        if answer.get("error"):
            said = html.unescape(str(answer["error"].get("message", answer["error"])))
            msg = f"The CRDS server {self.url} refused {method}: {said}"
            raise TransferError(msg, url=address)
        return _decoded(answer["result"])

    @cached_property
    def info(self):
        """What the server says of itself, without the long list of its files."""
        info = self.call("get_server_info")
        info.pop("download_metadata", None)
        return info

    def context(self, name, jwst_version):
        """Return the context that a symbolic name stands for now.

        Parameters
        ----------
        name : str
            ``''``, ``'latest'``, ``'edit'``, ``'jwst-operational'`` or ``'jwst-2024-05-01'``.
        jwst_version : str
            Of the installed pipeline: CRDS has a context for each release, which is what no name
            stands for.

        Returns
        -------
        str
            Name of a ``.pmap`` file.
        """
        if name in _BUILD:
            if "dev" in jwst_version:
                name = "edit"
            else:
                try:
                    release = ".".join(jwst_version.split(".")[:3])
                    return str(self.call("get_build_context", OBSERVATORY, release))
                except (ServiceDownError, UnexpectedContentError):
                    raise
                except TransferError:
                    # As CRDS does: the release is unknown to this server.
                    name = "latest"
        if name in _LATEST:
            return str(self.info.get("latest_context") or self.info["operational_context"])
        if name in ("edit", "jwst-edit"):
            return str(self.info["edit_context"])
        return str(self.call("get_context_by_date", name, OBSERVATORY))

    def file_info(self, names):
        """Return size and sha1 of files.

        Parameters
        ----------
        names : collection of str
            Names of mappings and references.

        Returns
        -------
        dict of str to (int, str)
            Without those that the server does not know; the sha1 empty where it knows none.
        """
        asked = sorted(names)
        if not asked:
            return {}
        found = self.call("get_file_info_map", OBSERVATORY, asked, ["sha1sum", "size"])
        known = {}
        for name in asked:
            entry = found.get(name)
            if isinstance(entry, dict):
                sha1 = str(entry.get("sha1sum", "")).lower()
                known[name] = int(entry["size"]), "" if sha1 == "none" else sha1
        return known

    def file_url(self, name):
        """Return the address of a file.

        Parameters
        ----------
        name : str
            Of a mapping or reference.

        Returns
        -------
        str
        """
        mapping = name.endswith(("map",))
        section = self.info["mapping_url" if mapping else "reference_url"]
        section = section.get("unchecked", section)
        return f"{str(section[OBSERVATORY]).rstrip('/')}/{name}"


def _decoded(result):
    if isinstance(result, dict) and "crds_encoded" in result:
        return json.loads(gzip.decompress(base64.b64decode(result["crds_payload"])))
    return result


def fetch_files(server, paths, *, replace=(), max_workers=4, done=None):
    """Fetch files in parallel, each once, checked, and moved to its place when whole.

    Parameters
    ----------
    server : CrdsServer
        Where from.
    paths : dict of str to path-like
        Name and place of each file.
    replace : collection of str, optional
        Names of files that are there and are to be fetched all the same.
    max_workers : int, optional
        Connections at once.
    done : callable, optional
        Called with each `Fetched`.

    Returns
    -------
    list of Fetched
        In the order of ``paths``.

    Raises
    ------
    CrdsUnavailable
        If the server does not answer.
    """
    if not paths:
        return []
    try:
        known = server.file_info(paths)
        urls = {name: server.file_url(name) for name in known}
    except TransferError as error:
        msg = (
            f"{len(paths)} reference files or mappings are missing, and the CRDS server cannot be "
            f"asked for them: {error} Set crds_server_url to one that can be reached, or fill the "
            f"cache elsewhere. Missing: {', '.join(sorted(paths))}."
        )
        raise CrdsUnavailable(msg, missing=sorted(paths), url=server.url, cause=error) from error

    def fetch(name):
        fetched = _fetch(server, name, Path(paths[name]), known, urls, name in replace)
        if done is not None:
            done(fetched)
        return fetched

    with ThreadPoolExecutor(max_workers=max(1, min(max_workers, len(paths)))) as pool:
        return list(pool.map(fetch, paths))


def _fetch(server, name, path, known, urls, replace):
    if name not in known:
        msg = f"The CRDS server {server.url} does not know {name}."
        return Fetched(name, path, "", error=TransferError(msg, url=server.url))
    size, sha1 = known[name]

    def check(stream):
        _check(stream, urls[name], size, sha1)

    error = None
    # A proxy between may have spoilt a file; a second failure is the server's.
    for _ in range(2):
        try:
            got = download(server.client, urls[name], path, replace=replace, check=check)
            return Fetched(name, path, urls[name], got.fetched_bytes)
        except (ChecksumError, TruncatedError) as failure:
            error = failure
        except (TransferError, CacheError) as failure:
            return Fetched(name, path, urls[name], error=failure)
    return Fetched(name, path, urls[name], error=error)


def _check(stream, url, size, sha1):
    digest, length = hashlib.sha1(usedforsecurity=False), 0
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
        length += len(chunk)
    if length != size:
        msg = f"{url} brought {length} bytes; the CRDS server announces {size}."
        raise TruncatedError(msg, url=url)
    found = digest.hexdigest()
    if sha1 and found != sha1:
        msg = f"{url} has sha1 {found}; the CRDS server says {sha1}."
        raise ChecksumError(msg, url=url, found=found)


def write_server_config(path, info):
    """Write down what a server says of itself, where CRDS looks for it without a network.

    Parameters
    ----------
    path : path-like
        Of ``config/jwst/server_config`` in the cache.
    info : dict
        What the server said.
    """
    path = Path(path)
    try:
        values = {**info, "status": "server", "connected": True}
        write_bytes(path, repr(values).encode())
    except OSError as error:
        msg = (
            f"The CRDS cache {os.fspath(path.parents[2])} cannot be written ({error}); set "
            "crds_path to a directory that can."
        )
        raise CrdsUnavailable(msg, cause=error) from error
