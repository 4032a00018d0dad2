"""What the faults do to a request, to its answer, and to how this goes over the wire."""

from __future__ import annotations

import gzip
import os
import random
import re
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from .web import FileBody, Request, Response, error_document, error_page

if TYPE_CHECKING:
    from .http_server import Handler

_CHUNK_BYTES = 5000
# What follows the last whole chunk.
_ENDINGS = {
    "good": b"0\r\n\r\n",
    "size": b"zz\r\n",
    "cut": b"%x\r\nhalf" % _CHUNK_BYTES,
    "none": b"",
}


def change_request(kind: str, options: dict, request: Request) -> Request:
    """Return the request that is answered in place of the one that came."""
    if kind == "ignore_range":
        del request.headers["Range"]
    if kind == "wrong_range":
        text = _shifted(request.headers["Range"], options["shift"])
        request.headers.replace_header("Range", text)
    return replace(request, path=options["path"]) if kind == "swap" else request


def _shifted(text: str, shift: int) -> str:
    """Return a range of the same length somewhere else."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", text)
    if not match:
        return "bytes=0-9"
    start, last = int(match[1]), match[2]
    # Towards the beginning where there is room, so that the shifted range is in the file too.
    step = -shift if start >= shift else shift
    return f"bytes={start + step}-{int(last) + step if last else ''}"


def answer_instead(kind: str, options: dict, path: str) -> Response | None:
    """Return the answer that a fault gives in place of the right one."""
    if kind == "status":
        after = options["retry_after"]
        extra = {} if after is None else {"Retry_After": after}
        return error_page(options["code"], "A fault on demand.", **extra)
    if kind == "html":
        page = error_page(200, "This is not the file that was asked for.")
        page.headers["Cache-Control"] = "no-store"
        return page
    if kind == "votable":
        return error_document(options["message"])
    if kind == "body":
        headers = {"Content-Type": options["content_type"]}
        return Response(options["code"], headers, bytes(options["content"]))
    if kind == "redirect":
        return Response(options["code"], {"Location": options["to"].replace("{path}", path)})
    return None


def change_response(kind: str, options: dict, response: Response) -> Response:
    """Return the answer that is sent in place of the right one."""
    headers, body = dict(response.headers), response.body
    if kind == "empty":
        body = b""
    if kind == "short" and response.status == 206:
        body = _bytes_of(body)
        body = body[: int(len(body) * options["fraction"])]
    if kind == "content_range":
        headers["Content-Range"] = options["value"]
    if kind == "flip":
        body = _flipped(_bytes_of(body), **options)
    if kind == "twice":
        body = _bytes_of(body) * 2
    if kind == "gzip":
        body = gzip.compress(_bytes_of(body), mtime=0)
        if options["announced"]:
            headers["Content-Encoding"] = "gzip"
    return Response(response.status, headers, body)


def _bytes_of(body: bytes | FileBody) -> bytes:
    return body if isinstance(body, bytes) else b"".join(body.chunks())


def _flipped(content: bytes, bits: int, start: int, stop: int | None, seed: int) -> bytes:
    """Return bytes of which some bits, in places drawn from a stretch, are the other way."""
    changed, places = bytearray(content), random.Random(seed)
    span = range(len(changed))[start:stop]
    for _ in range(bits if span else 0):
        changed[places.choice(span)] ^= 1 << places.randrange(8)
    return bytes(changed)


def _part(wire: Handler, response: Response, body: bytes, fraction: float, **headers: str) -> None:
    """Send the head of an answer and a part of its body; the whole length if no header is named."""
    wire.send_head(response, headers or {"Content-Length": str(len(body))})
    wire.wfile.write(body[: int(len(body) * fraction)])
    wire.wfile.flush()


def _cut(wire: Handler, response: Response, body: bytes, options: dict) -> None:
    _part(wire, response, body, options["fraction"])


def _reset(wire: Handler, response: Response, body: bytes, options: dict) -> None:
    if options["fraction"] > 0:
        _part(wire, response, body, options["fraction"])
    # No time for what is under way: the other side gets a reset instead of an end.
    wire.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(wire.connection.detach())


def _hang(wire: Handler, response: Response, body: bytes, options: dict) -> None:
    if options["fraction"] is not None:
        _part(wire, response, body, options["fraction"])
    wire.server.closing.wait(options["seconds"])


def _drip(wire: Handler, response: Response, body: bytes, options: dict) -> None:
    wire.send_head(response, {"Content-Length": str(len(body))})
    wire.wfile.flush()
    for byte in body:
        wire.wfile.write(bytes([byte]))
        wire.wfile.flush()
        if wire.server.closing.wait(options["seconds"]):
            return


def _garbage(wire: Handler, response: Response, body: bytes, options: dict) -> None:
    wire.wfile.write(b"\x00\x01\x02 this is not HTTP\r\n\r\n" * 10)


def _long_header(wire: Handler, response: Response, body: bytes, options: dict) -> None:
    wire.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(options["lines"]):
        wire.wfile.write(b"X-%d: %s\r\n" % (number, b"a" * 1000))


def _endless(wire: Handler, response: Response, body: bytes, options: dict) -> None:
    headers = {"Content-Type": options["content_type"], "Connection": "close"}
    wire.send_head(Response(200, headers), {})
    wire.wfile.write(options["start"])
    for _ in range(0, options["most"], len(options["chunk"])):
        wire.wfile.write(options["chunk"])
        if wire.server.closing.is_set():
            return


def _no_length(wire: Handler, response: Response, body: bytes, options: dict) -> None:
    _part(wire, response, body, options["fraction"], Connection="close")


def _wrong_length(wire: Handler, response: Response, body: bytes, options: dict) -> None:
    value = options["value"]
    wire.send_head(response, {"Content-Length": value or str(max(len(body) + options["by"], 0))})
    wire.wfile.write(body)


def _chunked(wire: Handler, response: Response, body: bytes, options: dict) -> None:
    ending = options["ending"]
    wire.send_head(response, {"Transfer-Encoding": "chunked"})
    # Of the broken ones half of the body is sent.
    stop = len(body) if ending == "good" else len(body) // 2
    for start in range(0, stop, _CHUNK_BYTES):
        chunk = body[start : min(start + _CHUNK_BYTES, stop)]
        wire.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    wire.wfile.write(_ENDINGS[ending])


# How the answers of some faults go over the wire; after each the connection is closed.
SENDERS: dict[str, Callable[[Handler, Response, bytes, dict], None]] = {
    "cut": _cut,
    "reset": _reset,
    "hang": _hang,
    "drip": _drip,
    "garbage": _garbage,
    "long_header": _long_header,
    "endless": _endless,
    "no_length": _no_length,
    "wrong_length": _wrong_length,
    "chunked": _chunked,
}


def send(wire: Handler, kind: str, options: dict, response: Response) -> None:
    """Send an answer as a fault has it."""
    wire.close_connection = True
    SENDERS[kind](wire, response, _bytes_of(response.body), options)
