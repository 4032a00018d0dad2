"""Static files over HTTP as a careful web server gives them: ranges, validators, conditions."""

import mimetypes
import re
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path, PurePosixPath

__all__ = ["FileBody", "FileTree", "Request", "Response", "error_page"]

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_MASK = bytes(byte ^ 0x5A for byte in range(256))
_CHUNK = 1 << 18


@dataclass
class Request:
    """What a client asked for.

    Attributes
    ----------
    method : str
        ``'GET'``, ``'HEAD'``, ``'POST'`` or ``'DELETE'``.
    path : str
        Decoded path.
    query : str
        The part after the question mark, as it came.
    headers : mapping
        The header fields, names in any case.
    body : bytes
        What came with it.
    """

    method: str
    path: str
    query: str
    headers: object
    body: bytes = b""


@dataclass
class Response:
    """What the server answers.

    Attributes
    ----------
    status : int
        HTTP status.
    headers : dict of str to str
        Header fields but for ``Content-Length``.
    body : bytes or FileBody
        What is sent.
    """

    status: int = 200
    headers: dict = field(default_factory=dict)
    body: object = b""

    @property
    def length(self):
        """Bytes of the body."""
        return len(self.body)


@dataclass
class FileBody:
    """A stretch of a file.

    Attributes
    ----------
    path : `~pathlib.Path`
        The file.
    start, stop : int
        First byte and the one after the last.
    changed : bool
        Whether other bytes than those of the file are given.
    """

    path: Path
    start: int
    stop: int
    changed: bool = False

    def __len__(self):
        return self.stop - self.start

    def chunks(self, length):
        """Yield the first ``length`` bytes, piece by piece."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            left = min(length, len(self))
            while left > 0:
                chunk = file.read(min(_CHUNK, left))
                if not chunk:
                    return
                left -= len(chunk)
                yield chunk.translate(_MASK) if self.changed else chunk


def error_page(status, text="", **headers):
    """Return an HTML page that says what is wrong.

    Parameters
    ----------
    status : int
        HTTP status.
    text : str
        More than the name of the status.
    **headers : str
        Header fields, with underscores for dashes.

    Returns
    -------
    Response
    """
    phrase = HTTPStatus(status).phrase
    head = f"<head><title>{status} {phrase}</title></head>"
    body = f"<html>{head}<body><h1>{phrase}</h1><p>{text}</p></body></html>\n"
    fields = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return Response(status, {"Content-Type": "text/html; charset=utf-8", **fields}, body.encode())


class FileTree:
    """Answers requests for the files below a folder.

    Parameters
    ----------
    root : `~pathlib.Path`
        The folder.
    prefix : str
        What is before the files' own paths, e.g. ``'/legacysurvey/'``.
    faults : `~.faults.Faults`
        Knows which files were replaced.
    """

    def __init__(self, root, prefix, faults):
        self._root = Path(root).resolve()
        self._prefix = prefix
        self._faults = faults

    def __call__(self, request):
        """Return the `Response` to a `Request`."""
        path = self._local(request.path)
        if path is None:
            return error_page(404, "There is no such file.")
        if request.method not in ("GET", "HEAD"):
            return error_page(405, "Files can only be read.", Allow="GET, HEAD")
        state = path.stat()
        size, (revision, changed) = state.st_size, self._faults.revision(request.path)
        suffix = f"-{revision}" if revision else ""
        etag = f'"{size:x}-{state.st_mtime_ns:x}{suffix}"'
        modified = formatdate(int(state.st_mtime) + revision, usegmt=True)
        headers = {
            "Content-Type": _content_type(path),
            "Accept-Ranges": "bytes",
            "ETag": etag,
            "Last-Modified": modified,
        }
        if _is_known(request.headers, etag, modified):
            return Response(304, headers)
        if request.headers.get("If-Range") in (None, etag, modified):
            found = _parse_range(request.headers.get("Range"), size)
        else:
            found = None
        if found is None:
            return Response(200, headers, FileBody(path, 0, size, changed))
        start, stop = found
        if start >= stop:
            return error_page(416, **{"Content-Range": f"bytes */{size}", **headers})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        return Response(206, headers, FileBody(path, start, stop, changed))

    def _local(self, path):
        """Return the file that a decoded path names, `None` unless it is one below the root."""
        relative = path[len(self._prefix) :]
        parts = PurePosixPath(relative).parts
        if not parts or "\0" in relative or "\\" in relative or ".." in parts or parts[0] == "/":
            return None
        local = (self._root / relative).resolve()
        return local if local.is_relative_to(self._root) and local.is_file() else None


def _content_type(path):
    if ".fits" in path.suffixes:
        return "application/fits" if path.suffix != ".gz" else "application/gzip"
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _is_known(headers, etag, modified):
    """Tell whether the client has the file already."""
    known = headers.get("If-None-Match")
    if known is not None:
        tags = [tag.strip().removeprefix("W/") for tag in known.split(",")]
        return etag in tags or "*" in tags
    return headers.get("If-Modified-Since") == modified


def _parse_range(text, size):
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
