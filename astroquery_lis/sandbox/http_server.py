"""The HTTP server of the sandbox: its connections, the log of what was asked, and the faults."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import unquote
from xml.sax.saxutils import escape

from .fault_answers import SENDERS, answer_instead, change_request, change_response, send
from .faults import Faults
from .web import Request, Response, error_page


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
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        request = Request(self.command, unquote(path), query, self.headers, body)
        target = request.path + (f"?{unquote(query)}" if query else "")
        stretch = self.headers.get("Range")
        fault = self.server.faults.pick(target, request.path, stretch is not None)
        kind, options = (fault.kind, fault.options) if fault else ("", {})
        if kind == "refuse":
            self.server.log.append(RequestRecord(self.command, target, stretch, None, 0))
            self.close_connection = True
            return
        if kind == "slow" and self.server.closing.wait(options["seconds"]):
            self.close_connection = True
            return
        response = self._respond(request, kind, options)
        record = RequestRecord(self.command, target, stretch, response.status, 0)
        if kind in SENDERS and self.command != "HEAD":
            share = options.get("fraction", 1.0)
            record.bytes_sent = int(response.length * (share or 0.0))
            self.server.log.append(record)
            # The other side may go away.
            with suppress(OSError, ValueError):
                send(self, kind, options, response)
                self.wfile.flush()
            return
        # Written down before the client can see the end of the answer, corrected if it goes away.
        if self.command != "HEAD":
            record.bytes_sent = response.length
        self.server.log.append(record)
        self._send(response, record)

    do_HEAD = do_POST = do_DELETE = do_GET

    def _respond(self, request: Request, kind: str, options: dict) -> Response:
        response = answer_instead(kind, options, request.path)
        if response is not None:
            return response
        request = change_request(kind, options, request)
        for prefix, answer in self.server.routes:
            if request.path.startswith(prefix):
                try:
                    response = answer(request)
                except OSError as error:  # as of a full disk, while a file is made
                    return error_page(500, escape(f"The file cannot be made: {error}"))
                return change_response(kind, options, response)
        return error_page(404, "Nothing is served here.")

    def send_head(self, response: Response, headers: dict[str, str]) -> None:
        """Send the status and the headers of an answer, and some in place of its length."""
        self.send_response(response.status)
        for name, value in (response.headers | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, response: Response, record: RequestRecord) -> None:
        headers = {}
        if response.status != 304:
            headers["Content-Length"] = str(response.length)
        if self.close_connection:
            headers["Connection"] = "close"
        self.send_head(response, headers)
        sent, total = 0, record.bytes_sent
        try:
            if isinstance(response.body, bytes):
                self.wfile.write(response.body[:total])
                sent = total
            elif total:
                for chunk in response.body.chunks():
                    self.wfile.write(chunk)
                    sent += len(chunk)
            self.wfile.flush()
        except OSError:
            self.close_connection = True
            record.bytes_sent = sent
