"""The simulated survey on a port of this computer."""

import atexit
import re
import shutil
import socket
import socketserver
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from astropy.coordinates import SkyCoord, name_resolve

from .. import _conf
from . import catalog, sky
from .faults import Faults
from .files import FileTree, Request, error_page
from .sesame import NameResolver
from .tap import TapService
from .tractor_files import add_catalogs
from .tree import build
from .viewer import Viewer
from .viewer_psf import ELONGATED_DEG, psf_shape
from .votable import error_document
from .wise import add_wise

__all__ = ["RequestLog", "RequestRecord", "Sandbox", "serve"]

MIRROR_PREFIX = "/legacysurvey/"
VIEWER_PREFIX = "/viewer/"
SESAME_PREFIX = "/sesame/"
TAP_PREFIX = "/tap"


@dataclass
class RequestRecord:
    """One request that the server got.

    Attributes
    ----------
    method : str
        ``'GET'``, ``'HEAD'``, ``'POST'`` or ``'DELETE'``.
    path : str
        Path and query, decoded.
    range : str or None
        The ``Range`` field.
    status : int or None
        Status of the answer; `None` where there was none.
    bytes_sent : int
        Bytes of the body that were sent.
    """

    method: str
    path: str
    range: str | None
    status: int | None
    bytes_sent: int


class RequestLog(Sequence):
    """The requests so far, oldest first."""

    def __init__(self):
        self._lock = threading.Lock()
        self._records = []

    def __len__(self):
        with self._lock:
            return len(self._records)

    def __getitem__(self, index):
        with self._lock:
            return self._records[index]

    def __repr__(self):
        return f"<RequestLog of {len(self)} requests>"

    def append(self, record):
        """Add a record; for the server."""
        with self._lock:
            self._records.append(record)

    def clear(self):
        """Forget the requests so far."""
        with self._lock:
            self._records.clear()

    def __iter__(self):
        with self._lock:
            return iter(list(self._records))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, routes, faults, log):
        self.routes, self.faults, self.log = routes, faults, log
        self.closing = threading.Event()
        self._open = set()
        self._changed = threading.Condition()
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self):
        # HTTPServer asks the name service for this host's name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request, client_address):
        """Say nothing: a client that went away is no news."""

    def process_request(self, request, client_address):
        """Serve a connection in a thread of its own."""
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        """Close a connection that has ended."""
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def end(self):
        """Stop serving, close every connection and wait for their threads to see it."""
        self.closing.set()
        self.shutdown()
        self.server_close()
        with self._changed:
            for connection in self._open:
                # The other side may have closed it.
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, timeout=5)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "sandbox"
    disable_nagle_algorithm = True
    # One packet for the header and a small body.
    wbufsize = 1 << 16

    def log_message(self, *args):
        """Say nothing."""

    def do_GET(self):
        """Answer a request."""
        path, _, query = self.path.partition("?")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        request = Request(self.command, unquote(path), query, self.headers, body)
        target = request.path + (f"?{unquote(query)}" if query else "")
        asked = self.headers.get("Range")
        fault = self.server.faults.pick(target, request.path, asked is not None)
        kind = fault.kind if fault else None
        if kind == "refuse":
            self.server.log.append(RequestRecord(self.command, target, asked, None, 0))
            self.close_connection = True
            return
        if kind == "slow" and self.server.closing.wait(fault.options["seconds"]):
            self.close_connection = True
            return
        response = self._respond(request, kind, fault)
        announced = sent = response.length
        if kind == "short" and response.status == 206:
            announced = sent = int(response.length * fault.options["fraction"])
        if kind == "cut":
            sent = int(response.length * fault.options["fraction"])
            self.close_connection = True
        record = RequestRecord(self.command, target, asked, response.status, 0)
        # Written down before the client can see the end of the answer, corrected if it goes away.
        if self.command != "HEAD":
            record.bytes_sent = sent
        self.server.log.append(record)
        self._send(response, announced, record)

    do_HEAD = do_POST = do_DELETE = do_GET

    def _respond(self, request, kind, fault):
        if kind == "status":
            after = fault.options["retry_after"]
            extra = {} if after is None else {"Retry_After": after}
            return error_page(fault.options["code"], "A fault on demand.", **extra)
        if kind == "html":
            page = error_page(200, "This is not the file that was asked for.")
            page.headers["Cache-Control"] = "no-store"
            return page
        if kind == "votable":
            return error_document(fault.options["message"])
        if kind == "ignore_range":
            del request.headers["Range"]
        if kind == "wrong_range":
            request.headers.replace_header(
                "Range", _shifted(request.headers["Range"], fault.options["shift"])
            )
        for prefix, answer in self.server.routes:
            if request.path.startswith(prefix):
                return answer(request)
        return error_page(404, "Nothing is served here.")

    def _send(self, response, announced, record):
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        if response.status != 304:
            self.send_header("Content-Length", str(announced))
        if self.close_connection and record.bytes_sent == announced:
            self.send_header("Connection", "close")
        self.end_headers()
        done, total = 0, record.bytes_sent
        try:
            if isinstance(response.body, bytes):
                self.wfile.write(response.body[:total])
                done = total
            elif total:
                for chunk in response.body.chunks(total):
                    self.wfile.write(chunk)
                    done += len(chunk)
            self.wfile.flush()
        except OSError:
            self.close_connection = True
            record.bytes_sent = done


def _shifted(text, shift):
    """Return a range of the same length somewhere else."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", text)
    if not match:
        return "bytes=0-9"
    start, last = int(match[1]), match[2]
    # Towards the beginning where there is room, so that the shifted range is in the file too.
    step = -shift if start >= shift else shift
    return f"bytes={start + step}-{int(last) + step if last else ''}"


class Sandbox:
    """A running simulated survey; a context manager that stops it at the end.

    Made by `serve`.

    Attributes
    ----------
    root : `~pathlib.Path`
        Folder of the files: a local mirror.
    mirror_url : str
        Address of the same files.
    viewer_url : str
        Address of the simulated viewer.
    sesame_url : str
        Address of a name resolver that knows some names (see ``sesame.NAMES``).
    truth : `~astropy.table.Table`
        The sources (see ``sky.truth``).
    positions : dict of str to `~astropy.coordinates.SkyCoord`
        Named places: ``field``, ``star``, ``corner``, ``ra0``, ``split``, ``hole``, ``blank``,
        ``clump``, ``bright``, ``elongated`` (where the PSF is) and ``off`` (where nothing is).
    catalog : `~astropy.table.Table`
        Every row of the Tractor files of DR10 (see ``catalog.catalog``).
    tap_url : str
        Address of the TAP service.
    tap : ``tap.TapService``
        The service itself; ``tap.default_rows`` is its limit where a query names none.
    requests : RequestLog
        What was asked so far; ``requests.clear()``.
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

    def __init__(self, root, *, configure):
        self.root = Path(root)
        self.truth = sky.truth()
        self.positions = sky.positions()
        self.positions["elongated"] = SkyCoord(*ELONGATED_DEG, unit="deg", frame="icrs")
        self.faults = Faults()
        self.requests = RequestLog()
        self.cache_dir = None
        self._closed = threading.Lock()
        files = FileTree(self.root, MIRROR_PREFIX, self.faults)
        self.tap = TapService(TAP_PREFIX)
        self.routes = [
            (MIRROR_PREFIX, files),
            (TAP_PREFIX, self.tap),
            (VIEWER_PREFIX, Viewer(self.root, VIEWER_PREFIX)),
            (SESAME_PREFIX, NameResolver()),
        ]
        self._server = _Server(self.routes, self.faults, self.requests)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.mirror_url = self.url + MIRROR_PREFIX.rstrip("/")
        self.viewer_url = self.url + VIEWER_PREFIX.rstrip("/")
        self.sesame_url = self.url + SESAME_PREFIX
        self.tap.url = self.tap_url = self.url + TAP_PREFIX
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._stack = ExitStack()
        self._stack.callback(self.tap.close)
        self._thread.start()
        # Not a finalizer of the folder: a forked worker would run it too.
        atexit.register(self.close)
        if configure:
            self._configure()

    def _configure(self):
        self.cache_dir = Path(tempfile.mkdtemp(prefix="astroquery_lis-"))
        self._stack.callback(shutil.rmtree, self.cache_dir, ignore_errors=True)
        settings = {"mirror": self.mirror_url, "cache_dir": str(self.cache_dir)}
        settings["viewer_url"] = self.viewer_url
        settings["tap_url"] = self.tap_url
        self._stack.enter_context(_conf.override(**settings))
        self._stack.enter_context(name_resolve.sesame_url.set([self.sesame_url]))

    @property
    def catalog(self):
        """Every row of the Tractor files of DR10, a new table each time."""
        return catalog.catalog()

    def psf_truth(self, coordinates, band):
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

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def __repr__(self):
        return f"<Sandbox at {self.mirror_url}>"

    def close(self):
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


def serve(*, root=None, configure=True, show_progress=False):
    """Serve the simulated survey on this computer, and let the package use it.

    The files are made the first time, in about half a minute, and kept in astropy's cache (about
    240 MB).

    Parameters
    ----------
    root : str or path-like, optional
        Where the files are or shall be; by default in astropy's cache.
    configure : bool, default: True
        Whether `astroquery_lis` uses the sandbox until it is closed, with a cache of its own, in
        this process and in those that it starts.  `False` only serves, e.g. a second mirror.
    show_progress : bool, default: False
        Whether to show a progress bar while the files are made.

    Returns
    -------
    Sandbox
        To be used in ``with``, or closed with ``close()``.

    Examples
    --------
    >>> from astroquery_lis import sandbox
    >>> with sandbox.serve() as sky:  # doctest: +SKIP
    ...     print(len(sky.truth), sky.positions['field'])
    """
    built = _build(root, show_progress)
    add_catalogs(built)
    add_wise(built)
    return Sandbox(built, configure=configure)


def _build(root, show_progress):
    if not show_progress:
        return build(root)
    from astropy.utils.console import ProgressBar

    bars = []

    def progress(done, total):
        if not bars:
            bars.append(ProgressBar(total))
        bars[0].update(done)

    return build(root, progress=progress)
