"""The simulated survey on a port of this computer: its HTTP server, and what runs it."""

from __future__ import annotations

import atexit
import shutil
import socket
import socketserver
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote
from xml.sax.saxutils import escape

from astropy.coordinates import SkyCoord, name_resolve
from astropy.table import Table

from .. import _conf
from . import catalog, sky
from .cameras import ELONGATED_DEG, PsfShape, psf_shape
from .faults import SENDERS, Fault, Faults, answer_instead, change_request, change_response, send
from .tap import TapService
from .tree import SurveyTree, cache_folder
from .viewer_requests import Viewer
from .web import FileTree, Request, Response, error_page

if TYPE_CHECKING:
    from .mast import MastService

MIRROR_PREFIX = "/legacysurvey/"
VIEWER_PREFIX = "/viewer/"
SESAME_PREFIX = "/sesame/"
TAP_PREFIX = "/tap"


class Sandbox:
    """A running simulated survey; a context manager that stops it at the end.

    Made by `serve`.

    Attributes
    ----------
    root : `~pathlib.Path`
        Folder of the files, a local mirror; when it is first asked for, all files are made.
    mirror_url : str
        Address of the files, each of which is made when it is first asked for.
    viewer_url : str
        Address of the simulated viewer.
    sesame_url : str
        Address of a name resolver that knows some names (see ``NAMES``).
    truth : `~astropy.table.Table`
        The sources (see ``sky.truth``).
    positions : dict of str to `~astropy.coordinates.SkyCoord`
        Named places: ``field``, ``star``, ``corner``, ``ra0``, ``split``, ``hole``, ``blank``,
        ``clump``, ``bright``, ``half`` (one half was not observed), ``edge`` (of the survey),
        ``gap`` (not observed in z), ``elongated`` (where the PSF is), ``off`` (where nothing is).
    catalog : `~astropy.table.Table`
        Every row of the Tractor files of DR10 (see ``catalog.catalog``).
    tap_url : str
        Address of the TAP service.
    tap : ``tap.TapService``
        The service itself; ``tap.default_rows`` is its limit where a query names none.
    requests : list of RequestRecord
        What was asked so far, oldest first: ``method``, ``path``, ``range``, ``status`` and
        ``bytes_sent`` of each; ``requests.clear()``.
    faults : `~astroquery_lis.sandbox.faults.Faults`
        ``faults.add(...)`` lets something go wrong.
    cache_dir : `~pathlib.Path` or None
        The cache that the package uses meanwhile; `None` with ``configure=False``.

    Examples
    --------
    >>> from astroquery_lis import sandbox
    >>> with sandbox.serve() as sky:
    ...     print(sorted(sky.positions)[:3], len(sky.requests))
    ['blank', 'bright', 'clump'] 0
    """

    mast: MastService  # set by `~.mast.serve_mast`
    mast_url: str

    def __init__(self, tree: SurveyTree | Path, *, configure: bool) -> None:
        self._tree = tree
        root = tree if isinstance(tree, Path) else tree.root
        self.truth = sky.truth()
        self.positions = dict(_positions())
        self.faults = Faults()
        self.requests: list[RequestRecord] = []
        self.cache_dir: Path | None = None
        self._closed = threading.Lock()
        self.tap = TapService(TAP_PREFIX)
        self.routes: list[Route] = [
            (MIRROR_PREFIX, FileTree(root, MIRROR_PREFIX, self.file)),
            (TAP_PREFIX, self.tap),
            (VIEWER_PREFIX, Viewer(self.file, VIEWER_PREFIX)),
            (SESAME_PREFIX, resolve_name),
        ]
        self._server = Server(self.routes, self.faults, self.requests)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.mirror_url = self.url + MIRROR_PREFIX.rstrip("/")
        self.viewer_url = self.url + VIEWER_PREFIX.rstrip("/")
        self.sesame_url = self.url + SESAME_PREFIX
        self.tap.url = self.tap_url = self.url + TAP_PREFIX
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True
        )
        self._stack = ExitStack()
        self._stack.callback(self.tap.close)
        self._thread.start()
        # Not a finalizer of the folder: a forked worker would run it too.
        atexit.register(self.close)
        if configure:
            self._configure()

    def _configure(self) -> None:
        folder = tempfile.mkdtemp(prefix="astroquery_lis-")
        self.cache_dir = Path(folder)
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        settings = {"mirror": self.mirror_url, "cache_dir": folder}
        settings |= {"viewer_url": self.viewer_url, "tap_url": self.tap_url}
        settings |= {"sesame_url": self.sesame_url}
        self._stack.enter_context(_conf.override(**settings))
        self._stack.enter_context(name_resolve.sesame_url.set([self.sesame_url]))

    @property
    def root(self) -> Path:
        """Folder of the files, a local mirror; every file that is not there yet is made now."""
        return self._tree if isinstance(self._tree, Path) else self._tree.fill()

    def file(self, path: str) -> Path:
        """Return one file of the survey, which is made if it is not there yet.

        Parameters
        ----------
        path : str
            Path below the root of a mirror.

        Returns
        -------
        `~pathlib.Path`
            Where it is; there is nothing if the simulated survey has no such file.

        Examples
        --------
        >>> from astroquery_lis import sandbox
        >>> with sandbox.serve() as sky:
        ...     print(sky.file('dr10/survey-bricks.fits.gz').name)
        survey-bricks.fits.gz
        """
        if isinstance(self._tree, Path):
            return self._tree / path
        return self._tree.file(path)

    @property
    def catalog(self) -> Table:
        """Every row of the Tractor files of DR10, a new table each time."""
        return catalog.catalog()

    def psf_truth(self, coordinates: SkyCoord, band: str) -> PsfShape:
        """Return the shape of the PSF that the viewer gives at a place.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord`
            The place.
        band : str
            ``'g'``, ``'r'``, ``'i'`` or ``'z'``.

        Returns
        -------
        PsfShape
            Width, axis ratio and position angle on the sky.

        Examples
        --------
        >>> from astroquery_lis import sandbox
        >>> with sandbox.serve() as sky:
        ...     print(sky.psf_truth(sky.positions['elongated'], 'r').axis_ratio)
        0.7
        """
        return psf_shape(coordinates.icrs.ra.deg, coordinates.icrs.dec.deg, band)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Sandbox at {self.mirror_url}>"

    def close(self) -> None:
        """Stop serving, put the configuration back and remove the cache; at most once.

        Examples
        --------
        >>> from astroquery_lis import sandbox
        >>> sky = sandbox.serve()
        >>> sky.close()
        """
        if not self._closed.acquire(blocking=False):
            return
        atexit.unregister(self.close)
        try:
            self._server.end()
            self._thread.join()
        finally:
            self._stack.close()


def serve(*, root: str | PathLike[str] | None = None, configure: bool = True) -> Sandbox:
    """Serve the simulated survey on this computer, and let the package use it.

    Each file is made when it is first asked for, in seconds at most, and kept in astropy's cache
    (about 240 MB if all are).

    Parameters
    ----------
    root : str or path-like, optional
        Where the files are or shall be; by default in astropy's cache.
    configure : bool, default: True
        Whether `astroquery_lis` uses the sandbox until it is closed, with a cache of its own, in
        this process and in those that it starts.  `False` only serves, e.g. a second mirror.

    Returns
    -------
    Sandbox
        To be used in ``with``, or closed with ``close()``.

    Raises
    ------
    OSError
        If the folder cannot be written.
    ValueError
        If the folder holds another version of the simulated survey.

    Examples
    --------
    >>> from astroquery_lis import sandbox
    >>> with sandbox.serve() as sky:  # doctest: +SKIP
    ...     print(len(sky.truth), sky.positions['field'])
    """
    return Sandbox(_default_tree() if root is None else SurveyTree(root), configure=configure)


_TREES: dict[Path, SurveyTree] = {}


def _default_tree() -> SurveyTree:
    """Return the tree in the cache, the same for all servers of a process while it is there."""
    folder = cache_folder()
    if folder not in _TREES or not _TREES[folder].root.is_dir():
        _TREES[folder] = SurveyTree()
    return _TREES[folder]


@cache
def _positions() -> dict[str, SkyCoord]:
    """Return the named places of the scene, and the one of the PSF."""
    elongated = SkyCoord(*ELONGATED_DEG, unit="deg", frame="icrs")
    return {**sky.positions(), "elongated": elongated}


# Invented names, and the named places of the scene that they stand for.
NAMES = {"NGC 1": "field", "NGC 2": "split", "HD 1": "star", "HD 2": "bright", "Abell 1": "clump"}


def resolve_name(request: Request) -> Response:
    """Return the answer to a request like ``/sesame/SNV?NGC%201``, in the plain format of Sesame.

    It knows the `NAMES` and the scene's own names of places, in upper or lower case, with or
    without spaces.
    """
    query = unquote(request.query.replace("+", " "))
    lines = [f"# {query}\t#Q1"]
    places = {_compact(name): name for name in (*sky.POSITIONS_DEG, *NAMES)}
    name = places.get(_compact(query))
    if name is None:
        lines += ["#!SNV=Simulated: Nothing found", "#!  *** Nothing found ***"]
    else:
        ra, dec = sky.POSITIONS_DEG[NAMES.get(name, name)]
        lines += ["#=S=Simulated: 1", f"%J {ra:.8f} {dec:+.8f} = ", f"%I.0 {name}"]
    body = "\n".join([*lines, "#====Done===="]) + "\n\n"
    return Response(200, {"Content-Type": "text/plain; charset=utf-8"}, body.encode())


def _compact(name: str) -> str:
    return "".join(name.lower().split())


@dataclass
class RequestRecord:
    """One request that the server got."""

    method: str
    path: str
    range: str | None
    status: int | None
    bytes_sent: int


Connection = socket.socket | tuple[bytes, socket.socket]
# What a path begins with, and what answers.
Route = tuple[str, Callable[[Request], Response]]


class Server(ThreadingHTTPServer):
    """Serves on a free port, a thread for each connection."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, routes: list[Route], faults: Faults, log: list[RequestRecord]) -> None:
        self.routes, self.faults, self.log = routes, faults, log
        self.closing = threading.Event()
        self._open: set[Connection] = set()
        self._changed = threading.Condition()
        super().__init__(("127.0.0.1", 0), Handler)

    def server_bind(self) -> None:
        """Take a port."""
        # HTTPServer asks the name service for this host's name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)

    def handle_error(self, request: Connection, client_address: object) -> None:
        """Say nothing: a client that went away is no news."""

    def process_request(self, request: Connection, client_address: object) -> None:
        """Serve a connection in a thread of its own."""
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Connection) -> None:
        """Close a connection that has ended."""
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def end(self) -> None:
        """Stop serving, close every connection and wait for their threads to see it."""
        self.closing.set()
        self.shutdown()
        self.server_close()
        with self._changed:
            for connection in self._open:
                # The other side may have closed it.
                with suppress(OSError):
                    cast(socket.socket, connection).shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, timeout=5)


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "sandbox"
    disable_nagle_algorithm = True
    # One packet for the header and a small body.
    wbufsize = 1 << 16

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer a request."""
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, unquote(path), query, self.headers, body)
        stretch, log = self.headers.get("Range"), self.server.log
        record = RequestRecord(self.command, request.target, stretch, None, 0)
        fault = self.server.faults.pick(request.target, request.path, stretch is not None)
        is_over = fault.kind == "slow" and self.server.closing.wait(fault.options["seconds"])
        if fault.kind == "refuse" or is_over:
            log.append(record)
            self.close_connection = True
            return
        response = self._respond(request, fault)
        record.status = response.status
        if fault.kind in SENDERS and self.command != "HEAD":
            record.bytes_sent = int(response.length * (fault.options.get("fraction", 1.0) or 0.0))
            log.append(record)
            # The other side may go away.
            with suppress(OSError, ValueError):
                send(self, fault, response)
            return
        # Written down before the client can see the end of the answer, corrected if it goes away.
        record.bytes_sent = response.length if self.command != "HEAD" else 0
        log.append(record)
        self._send(response, record)

    do_HEAD = do_POST = do_DELETE = do_GET

    def _respond(self, request: Request, fault: Fault) -> Response:
        response = answer_instead(fault, request.path)
        if response is not None:
            return response
        request = change_request(fault, request)
        request.revision = self.server.faults.revision(request.path)
        for prefix, answer in self.server.routes:
            if request.path.startswith(prefix):
                try:
                    response = answer(request)
                except OSError as error:  # as of a full disk, while a file is made
                    return error_page(500, escape(f"The file cannot be made: {error}"))
                return change_response(fault, response)
        return error_page(404, "Nothing is served here.")

    def send_head(self, response: Response, headers: dict[str, str]) -> None:
        """Send the status and the headers of an answer, and some in place of its length."""
        self.send_response(response.status)
        for name, value in (response.headers | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, response: Response, record: RequestRecord) -> None:
        headers = {"Content-Length": str(response.length)} if response.status != 304 else {}
        if self.close_connection:
            headers["Connection"] = "close"
        self.send_head(response, headers)
        sent = 0
        try:
            for chunk in response.chunks() if record.bytes_sent else ():
                self.wfile.write(chunk)
                sent += len(chunk)
            self.wfile.flush()
        except OSError:
            self.close_connection = True
            record.bytes_sent = sent
