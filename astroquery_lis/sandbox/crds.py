"""A CRDS server on a running sandbox: what a CRDS cache holds, by the wire protocol of CRDS.

Remote procedures are JSON-RPC 1.0, one POST to ``<server>/json/<method>/<id>/`` each, with long
results as base64 of gzipped JSON; mappings and references are plain files with ranges.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import threading
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from .web import Request, Response, error_page, file_answer, json_answer

if TYPE_CHECKING:
    from .server import Sandbox

Names = Iterable[str] | None

_OBSERVATORY = "jwst"
_PREFIX = "/crds/"


def serve_crds(sky: Sandbox, root: str | PathLike[str]) -> CrdsService:
    """Let a running sandbox serve a CRDS cache as a CRDS server does.

    Parameters
    ----------
    sky : `~.server.Sandbox`
        The sandbox.
    root : path-like
        The cache whose mappings and references are served, such as that of a simulated observation.

    Returns
    -------
    CrdsService
        A context manager that takes the server away at the end.
    """
    service = CrdsService(sky, Path(root))
    sky.routes.append((_PREFIX, service))
    return service


class CrdsService:
    """A CRDS server; made by `serve_crds`.

    What goes wrong on the wire is for the sandbox's ``faults``; what a server gets wrong in what it
    says can be set here.

    Attributes
    ----------
    url : str
        Its address, for ``CRDS_SERVER_URL``.
    context : str
        The latest context.
    builds : dict of str to str
        Contexts by release of the pipeline; another release is refused.
    dates : dict of str to str
        Contexts by symbolic name.
    hidden : set of str
        Names of files that the server does not know, though it has them.
    sha1 : dict of str to str
        Digests that it gives in place of the right ones; empty for none.
    calls : list of str
        Names of the procedures that were called.
    """

    def __init__(self, sky: Sandbox, root: Path) -> None:
        self.url = sky.url + _PREFIX.rstrip("/")
        self.context = "jwst_0001.pmap"
        self.builds: dict[str, str] = {}
        self.dates: dict[str, str] = {}
        self.hidden: set[str] = set()
        self.sha1: dict[str, str] = {}
        self.calls: list[str] = []
        self._sky = sky
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, str]] = {}
        self._root = root

    def __enter__(self) -> CrdsService:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving."""
        route = (_PREFIX, self)
        if route in self._sky.routes:
            self._sky.routes.remove(route)

    def __call__(self, request: Request) -> Response:
        """Return the `Response` to a `Request`."""
        tail = request.path.removeprefix(_PREFIX)
        if tail.startswith("json/") and request.method == "POST":
            return self._procedure(request)
        if tail.startswith("files/"):
            return self._file(request, tail.rpartition("/")[2])
        return error_page(404, "A CRDS server has procedures and files.")

    @property
    def _paths(self) -> dict[str, Path]:
        """The files that there are now: contexts may be added to a cache."""
        return {
            path.name: path
            for folder in ("mappings", "references")
            for path in sorted((self._root / folder / _OBSERVATORY).rglob("[!.]*.*"))
        }

    def _file(self, request: Request, name: str) -> Response:
        path = self._paths.get(name)
        if path is None or name in self.hidden:
            return error_page(404, "There is no such file.")
        return file_answer(path, request)

    def _procedure(self, request: Request) -> Response:
        try:
            call = json.loads(request.body)
            method, parameters = call["method"], call["params"]
        except (ValueError, KeyError, TypeError):
            return error_page(400, "This is no remote procedure call.")
        with self._lock:
            self.calls.append(method)
        answer: dict = {"id": call.get("id"), "jsonrpc": "1.0", "error": None, "result": None}
        procedure = _PROCEDURES.get(method)
        try:
            if procedure is None:
                msg = f"method not found: {method}"
                raise LookupError(msg)
            answer["result"] = procedure(self, *parameters)
        except (LookupError, TypeError) as error:
            message = str(error.args[0])
            answer["error"] = {"name": "OtherError", "message": message, "code": 500}
        return json_answer(answer)

    def _info(self) -> dict:
        files = self.url + "/files/"
        return {
            "observatory": _OBSERVATORY,
            "operational_context": self.context,
            "latest_context": self.context,
            "edit_context": self.context,
            "build_context": self.context,
            "versions_context": self.context,
            "bad_files": "",
            "bad_files_list": [],
            "crds_version": {"str": "14.0.3"},
            "force_remote_mode": False,
            "last_synced": "2024-01-01 00:00:00.0",
            "max_headers_per_rpc": 5000,
            "mappings": self._mapping_names(self.context),
            "mapping_url": {"unchecked": {_OBSERVATORY: files + "mappings"}},
            "reference_url": {"unchecked": {_OBSERVATORY: files + "references"}},
            "download_metadata": _encoded(self._file_infos(_OBSERVATORY)),
        }

    def _default_context(self, observatory: str = _OBSERVATORY, state: object | None = None) -> str:
        return self.context

    def _build_context(self, observatory: str, release: str) -> str:
        if release not in self.builds:
            msg = f"No context is known for the release {release}."
            raise LookupError(msg)
        return self.builds[release]

    def _context_by_date(self, date: str, observatory: str = _OBSERVATORY) -> str:
        if date not in self.dates:
            msg = f"No context is known for {date}."
            raise LookupError(msg)
        return self.dates[date]

    def _file_infos(self, observatory: str, files: Names = None, fields: Names = None) -> dict:
        infos: dict = {}
        paths = self._paths
        for name in paths if files is None else files:
            if name not in paths or name in self.hidden:
                infos[name] = "NOT FOUND unknown to server"
                continue
            entry = self._describe(name, paths[name])
            infos[name] = {k: v for k, v in entry.items() if fields is None or k in fields}
        return infos

    def _encoded_infos(
        self, observatory: str, files: Names = None, fields: Names = None
    ) -> dict[str, str]:
        return _encoded(self._file_infos(observatory, files, fields))

    def _describe(self, name: str, path: Path) -> dict[str, str]:
        with self._lock:
            if name not in self._known:
                data = path.read_bytes()
                digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()
                self._known[name] = {"name": name, "size": str(len(data)), "sha1sum": digest}
            entry = dict(self._known[name])
        if name in self.sha1:
            entry["sha1sum"] = self.sha1[name] or "none"
        return entry

    def _mapping_names(self, context: str) -> list[str]:
        return sorted(name for name in self._paths if name.endswith("map"))


def _encoded(value: object) -> dict[str, str]:
    payload = base64.b64encode(gzip.compress(json.dumps(value).encode()))
    return {"crds_encoded": "1.0", "crds_payload": payload.decode()}


_PROCEDURES: dict[str, Callable[..., object]] = {
    "get_server_info": CrdsService._info,
    "get_default_context": CrdsService._default_context,
    "get_build_context": CrdsService._build_context,
    "get_context_by_date": CrdsService._context_by_date,
    "get_file_info_map": CrdsService._encoded_infos,
    "get_mapping_names": CrdsService._mapping_names,
}
