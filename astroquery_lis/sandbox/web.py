"""Static files over HTTP as a careful web server gives them: ranges, validators, conditions."""

import json
import mimetypes
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from urllib.parse import unquote
from xml.sax.saxutils import escape

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_MASK = bytes(byte ^ 0x5A for byte in range(256))
_CHUNK = 1 << 18
VOTABLE = "application/x-votable+xml"


@dataclass
class Request:
    """What a client asked for."""

    method: str
    path: str  # decoded
    query: str  # as it came
    headers: Message
    body: bytes = b""
    # How often the file was replaced, and whether its bytes are others now.
    revision: tuple[int, bool] = (0, False)

    @property
    def target(self) -> str:
        """The path and the query, decoded."""
        return self.path + (f"?{unquote(self.query)}" if self.query else "")


@dataclass
class Response:
    """What the server answers."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)  # without Content-Length
    body: "bytes | FileBody" = b""

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return len(self.body)

    def chunks(self) -> Iterator[bytes]:
        """Yield the body, piece by piece."""
        yield from (self.body,) if isinstance(self.body, bytes) else self.body.chunks()


@dataclass
class FileBody:
    """A stretch of a file."""

    path: Path
    start: int
    stop: int
    changed: bool = False  # whether other bytes than those of the file are given

    def __len__(self) -> int:
        return self.stop - self.start

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes, piece by piece."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            for start in range(self.start, self.stop, _CHUNK):
                chunk = file.read(min(_CHUNK, self.stop - start))
                yield chunk.translate(_MASK) if self.changed else chunk


def error_page(status: int, text: str = "", **headers: str) -> Response:
    """Return an HTML page that says what is wrong."""
    phrase = HTTPStatus(status).phrase
    head = f"<head><title>{status} {phrase}</title></head>"
    body = f"<html>{head}<body><h1>{phrase}</h1><p>{text}</p></body></html>\n"
    fields = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return Response(status, {"Content-Type": "text/html; charset=utf-8", **fields}, body.encode())


def page(text: str, status: int = 200) -> Response:
    """Return an HTML page."""
    return Response(status, {"Content-Type": "text/html; charset=utf-8"}, text.encode())


def json_answer(value: object, status: int = 200) -> Response:
    """Return a value as JSON."""
    return Response(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


def document(name: str, status: int = 200, **values: object) -> Response:
    """Return a file of ``data/`` with its places filled."""
    text = (Path(__file__).parent / "data" / name).read_text(encoding="utf-8").format(**values)
    kind = VOTABLE if name.endswith(".vot") else "text/xml; charset=utf-8"
    return Response(status, {"Content-Type": kind}, text.encode())


def error_document(message: str, status: int = 200) -> Response:
    """Return an error as TAP services report it: a VOTable with ``QUERY_STATUS`` ``ERROR``."""
    return document("error.vot", status, message=escape(message))


def file_answer(path: Path, request: Request) -> Response:
    """Return a file, or what a request wants of it."""
    if request.method not in ("GET", "HEAD"):
        return error_page(405, "Files can only be read.", Allow="GET, HEAD")
    state = path.stat()
    size, (number, changed) = state.st_size, request.revision
    suffix = f"-{number}" if number else ""
    etag = f'"{size:x}-{state.st_mtime_ns:x}{suffix}"'
    modified = formatdate(int(state.st_mtime) + number, usegmt=True)
    headers = {
        "Content-Type": _content_type(path),
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Last-Modified": modified,
    }
    if _is_known(request.headers, etag, modified):
        return Response(304, headers)
    is_same = request.headers.get("If-Range") in (None, etag, modified)
    stretch = _parse_range(request.headers.get("Range"), size) if is_same else None
    if stretch is None:
        return Response(200, headers, FileBody(path, 0, size, changed))
    start, stop = stretch
    if start >= stop:
        return error_page(416, **{"Content-Range": f"bytes */{size}", **headers})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Response(206, headers, FileBody(path, start, stop, changed))


class FileTree:
    """Answers requests for the files below a folder; ``make`` makes one that is not there yet."""

    def __init__(self, root: Path, prefix: str, make: Callable[[str], object]) -> None:
        self._root, self._prefix, self._make = root.resolve(), prefix, make

    def __call__(self, request: Request) -> Response:
        """Return the `Response` to a `Request`."""
        path = self._local(request.path)
        return file_answer(path, request) if path else error_page(404, "There is no such file.")

    def _local(self, path: str) -> Path | None:
        """Return the file that a decoded path names, `None` unless it is one below the root."""
        relative = path[len(self._prefix) :]
        parts = PurePosixPath(relative).parts
        if not parts or {"..", "/"} & set(parts) or set("\0\\") & set(relative):
            return None
        self._make(relative)
        local = (self._root / relative).resolve()
        return local if local.is_relative_to(self._root) and local.is_file() else None


def _content_type(path: Path) -> str:
    if ".fits" in path.suffixes:
        return "application/fits" if path.suffix != ".gz" else "application/gzip"
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _is_known(headers: Message, etag: str, modified: str) -> bool:
    """Return True if the client has the file already."""
    text = headers.get("If-None-Match")
    if text is not None:
        tags = [tag.strip().removeprefix("W/") for tag in text.split(",")]
        return etag in tags or "*" in tags
    return headers.get("If-Modified-Since") == modified


def _parse_range(text: str | None, size: int) -> tuple[int, int] | None:
    """Return (start, stop); an empty stretch if it cannot be had; `None` for the whole file."""
    # Several ranges at once are answered with the whole file, as many servers do.
    match = _RANGE.fullmatch((text or "").replace(" ", ""))
    if not match or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        length = min(int(last), size)
        return size - length, size
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size
