"""Things that go wrong on demand: what real servers, proxies and networks have been seen to do."""

from __future__ import annotations

import gzip
import math
import os
import random
import re
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from .web import Request, Response, error_document, error_page

if TYPE_CHECKING:
    from .server import Handler

__all__ = ["KINDS", "Fault", "Faults"]

KINDS: dict[str, dict] = {
    "status": {"code": 503, "retry_after": None},
    "html": {},
    "votable": {"message": "A fault on demand."},
    "cut": {"fraction": 0.5},
    "wrong_range": {"shift": 100},
    "ignore_range": {},
    "short": {"fraction": 0.5},
    "slow": {"seconds": 1.0},
    "etag": {"content": False},
    "refuse": {},
    "body": {"content": b"", "code": 200, "content_type": "application/octet-stream"},
    "empty": {},
    "redirect": {"code": 302, "to": "{path}"},
    "swap": {"path": ""},
    "flip": {"bits": 1, "start": 0, "stop": None, "seed": 0},
    "twice": {},
    "gzip": {"announced": True},
    "content_range": {"value": "bytes 0-9/10"},
    "wrong_length": {"by": 100, "value": None},
    "no_length": {"fraction": 0.5},
    "chunked": {"ending": "good"},
    "reset": {"fraction": 0.0},
    "hang": {"seconds": 600.0, "fraction": None},
    "drip": {"seconds": 1.0},
    "endless": {
        "content_type": "application/octet-stream",
        "start": b"",
        "chunk": bytes(1 << 20),
        "most": 8 << 30,
    },
    "long_header": {"lines": 100_000},
    "garbage": {},
}
"""Every kind of fault, with its options and their defaults."""

_RANGE_ONLY = {"wrong_range", "ignore_range", "short"}
# Those that need the bytes of the right answer and send others.
_CHANGED = {"empty", "short", "content_range", "flip", "twice", "gzip"}


class Fault:
    """One thing that goes wrong; also a context manager that takes it away at the end.

    Attributes
    ----------
    kind, match : str
        As given to `Faults.add`.
    options : dict
        As given to `Faults.add`, with the defaults.
    hits : int
        How many requests it has hit.

    Examples
    --------
    >>> from astroquery_lis.sandbox.faults import Faults
    >>> fault = Faults().add('refuse', times=3)
    >>> fault.hits
    0
    """

    def __init__(
        self, owner: list[Fault], kind: str, match: str, times: float, after: int, options: dict
    ) -> None:
        self.kind, self.match, self.options = kind, match, options
        self.hits = 0
        self._owner, self._times, self._after = owner, times, after

    def __enter__(self) -> Fault:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<Fault {self.kind} on {self.match!r}, {self.hits} hits>"

    def remove(self) -> None:
        """Take the fault away; nothing happens if it is gone already.

        Examples
        --------
        >>> from astroquery_lis.sandbox.faults import Faults
        >>> faults = Faults()
        >>> faults.add('refuse').remove()
        >>> len(faults)
        0
        """
        with suppress(ValueError):
            self._owner.remove(self)

    def _wants(self, path: str, has_range: bool) -> bool:
        """Count a request in; the owner holds the lock."""
        if self.hits >= self._times or not fnmatchcase(path, self.match):
            return False
        if self.kind in _RANGE_ONLY and not has_range:
            return False
        if self._after > 0:
            self._after -= 1
            return False
        self.hits += 1
        return True


class Faults:
    """The faults of one server.

    Examples
    --------
    >>> from astroquery_lis.sandbox.faults import Faults
    >>> faults = Faults()
    >>> with faults.add('status', '*image-r*', code=500):
    ...     print(len(faults))
    1
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._revisions: dict[str, tuple[int, bool]] = {}

    def add(
        self,
        kind: str,
        match: str = "*",
        *,
        times: int | None = 1,
        after: int = 0,
        **options: object,
    ) -> Fault:
        """Let something go wrong from now on.

        Parameters
        ----------
        kind : str
            - ``'status'``: an error page with status ``code`` (503) and the header
              ``Retry-After: retry_after`` where that is not `None`;
            - ``'html'``: an HTML page with status 200;
            - ``'votable'``: a VOTable with status 200 that says ``ERROR`` and ``message``, as TAP
              services report what went wrong;
            - ``'cut'``: the whole length is announced, ``fraction`` (0.5) of it is sent, and the
              connection is closed;
            - ``'wrong_range'``: 206 with another range, ``shift`` (100) bytes away, and its bytes;
            - ``'ignore_range'``: 200 and the whole file where a range was asked for;
            - ``'short'``: 206 with ``fraction`` (0.5) of the bytes that ``Content-Range`` promises;
            - ``'slow'``: ``seconds`` (1.0) pass before the first byte;
            - ``'etag'``: the file has been replaced: from then on it has another ``ETag`` and date
              and, with ``content=True``, other bytes (each XORed with 0x5A); `clear` brings the
              old ones back;
            - ``'refuse'``: the connection is closed without an answer;
            - ``'body'``: ``content`` (empty) of type ``content_type``, with status ``code`` (200);
            - ``'empty'``: the right header, also of a range, and not a byte;
            - ``'redirect'``: status ``code`` (302) to the address ``to``, in which ``{path}``
              stands for the path that was asked for;
            - ``'swap'``: the file of another ``path`` of the server under the name that was asked
              for;
            - ``'flip'``: ``bits`` (1) of the bytes from ``start`` (0) to ``stop`` (the end) are the
              other way, in places drawn with ``seed`` (0);
            - ``'twice'``: the bytes come twice, and twice the length is announced;
            - ``'gzip'``: the bytes are compressed, with the header that says so unless
              ``announced=False``;
            - ``'content_range'``: the header ``Content-Range`` is ``value``;
            - ``'wrong_length'``: the length that is announced is ``by`` (100) bytes too large, or
              too small if that is negative, or is the text ``value``;
            - ``'no_length'``: no length is announced, and ``fraction`` (0.5) is sent;
            - ``'chunked'``: no length but chunks, which end as they should (``ending='good'``),
              half way with a length that is none (``'size'``), in a chunk (``'cut'``) or between
              two (``'none'``);
            - ``'reset'``: the connection is reset after ``fraction`` (0: before anything) was sent;
            - ``'hang'``: for ``seconds`` (600) nothing comes, or nothing after ``fraction`` was
              sent, and the connection is closed;
            - ``'drip'``: a byte each ``seconds`` (1.0);
            - ``'endless'``: ``start`` (nothing) and then ``chunk`` (a million zeros) again and
              again, ``most`` (8 GB) in all, of type ``content_type``;
            - ``'long_header'``: a header of ``lines`` (100,000) lines of a thousand characters;
            - ``'garbage'``: what is not HTTP.

            ``'wrong_range'``, ``'ignore_range'`` and ``'short'`` hit only requests with a range.
        match : str, default: '*'
            Pattern (`fnmatch`) for the decoded path with its query, e.g. ``'*image-g*'``.
        times : int or None, default: 1
            How many requests it hits; `None` for all.
        after : int, default: 0
            How many matching requests go well before.
        **options : object
            Of the kind, as above.

        Returns
        -------
        Fault

        Raises
        ------
        ValueError
            If there is no such kind or it has no such option.

        Examples
        --------
        >>> from astroquery_lis.sandbox.faults import Faults
        >>> Faults().add('cut', '*image-g*', fraction=0.25)
        <Fault cut on '*image-g*', 0 hits>
        """
        if kind not in KINDS:
            msg = f"kind={kind!r} is not a fault; allowed: {', '.join(KINDS)}."
            raise ValueError(msg)
        unknown = sorted(set(options) - set(KINDS[kind]))
        if unknown:
            allowed = ", ".join(KINDS[kind]) or "none"
            msg = f"options {unknown} are not of the fault {kind!r}; allowed: {allowed}."
            raise ValueError(msg)
        most = math.inf if times is None else times
        fault = Fault(self._faults, kind, match, most, after, {**KINDS[kind], **options})
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Take every fault away, and the changes that ``'etag'`` made.

        Examples
        --------
        >>> from astroquery_lis.sandbox.faults import Faults
        >>> faults = Faults()
        >>> fault = faults.add('slow', seconds=2.0)
        >>> faults.clear()
        >>> len(faults)
        0
        """
        with self._lock:
            self._faults.clear()
            self._revisions.clear()

    def __len__(self) -> int:
        return len(self._faults)

    def pick(self, target: str, path: str, has_range: bool) -> Fault:
        """Return the fault that hits a request, or one without a kind; used by the server.

        Parameters
        ----------
        target : str
            Decoded path and query, which the pattern is compared with.
        path : str
            Decoded path.
        has_range : bool
            Whether a range is asked for.

        Returns
        -------
        Fault

        Examples
        --------
        >>> from astroquery_lis.sandbox.faults import Faults
        >>> Faults().pick('/dr10/x.fits', '/dr10/x.fits', False).kind
        ''
        """
        with self._lock:
            hits = (fault for fault in list(self._faults) if fault._wants(target, has_range))
            fault = next(hits, _NO_FAULT)
            if fault.kind == "etag":
                number, content = self._revisions.get(path, (0, False))
                self._revisions[path] = (number + 1, content or fault.options["content"])
        return fault

    def revision(self, path: str) -> tuple[int, bool]:
        """Return how often a file was replaced and whether its bytes changed.

        Parameters
        ----------
        path : str
            Decoded path.

        Returns
        -------
        (int, bool)

        Examples
        --------
        >>> from astroquery_lis.sandbox.faults import Faults
        >>> Faults().revision('/dr10/x.fits')
        (0, False)
        """
        with self._lock:
            return self._revisions.get(path, (0, False))


_NO_FAULT = Fault([], "", "", 0, 0, {})
_CHUNK_BYTES = 5000
# What follows the last whole chunk.
_ENDINGS = {
    "good": b"0\r\n\r\n",
    "size": b"zz\r\n",
    "cut": b"%x\r\nhalf" % _CHUNK_BYTES,
    "none": b"",
}


def change_request(fault: Fault, request: Request) -> Request:
    """Return the request that is answered in place of the one that came."""
    if fault.kind == "ignore_range":
        del request.headers["Range"]
    if fault.kind == "wrong_range":
        text = _shifted(request.headers["Range"], fault.options["shift"])
        request.headers.replace_header("Range", text)
    return replace(request, path=fault.options.get("path", request.path))


def _shifted(text: str, shift: int) -> str:
    """Return a range of the same length somewhere else."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", text)
    if not match:
        return "bytes=0-9"
    start, last = int(match[1]), match[2]
    # Towards the beginning where there is room, so that the shifted range is in the file too.
    step = -shift if start >= shift else shift
    return f"bytes={start + step}-{int(last) + step if last else ''}"


def answer_instead(fault: Fault, path: str) -> Response | None:
    """Return the answer that a fault gives in place of the right one."""
    options = fault.options
    match fault.kind:
        case "status":
            after = options["retry_after"]
            extra = {} if after is None else {"Retry_After": after}
            return error_page(options["code"], "A fault on demand.", **extra)
        case "html":
            text = "This is not the file that was asked for."
            return error_page(200, text, Cache_Control="no-store")
        case "votable":
            return error_document(options["message"])
        case "body":
            headers = {"Content-Type": options["content_type"]}
            return Response(options["code"], headers, bytes(options["content"]))
        case "redirect":
            return Response(options["code"], {"Location": options["to"].replace("{path}", path)})
    return None


def change_response(fault: Fault, response: Response) -> Response:
    """Return the answer that is sent in place of the right one."""
    options, headers = fault.options, dict(response.headers)
    if fault.kind not in _CHANGED:
        return response
    body = b"".join(response.chunks())
    match fault.kind:
        case "empty":
            body = b""
        case "short" if response.status == 206:
            body = body[: int(len(body) * options["fraction"])]
        case "content_range":
            headers["Content-Range"] = options["value"]
        case "flip":
            body = _flipped(body, **options)
        case "twice":
            body *= 2
        case "gzip":
            body = gzip.compress(body, mtime=0)
            headers |= {"Content-Encoding": "gzip"} if options["announced"] else {}
    return Response(response.status, headers, body)


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


def send(wire: Handler, fault: Fault, response: Response) -> None:
    """Send an answer as a fault has it."""
    wire.close_connection = True
    SENDERS[fault.kind](wire, response, b"".join(response.chunks()), fault.options)
    wire.wfile.flush()
