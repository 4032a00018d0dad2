"""Parts of remote files: one range, checked; many ranges, at once; and which ranges to ask for."""

import hashlib
import re
from dataclasses import dataclass

from urllib3.exceptions import IncompleteRead

from ..exceptions import ContentChangedError, TruncatedError, UnexpectedContentError

__all__ = [
    "FIRST_RANGE_BYTES",
    "MERGE_GAP_BYTES",
    "Version",
    "WholeFileAnswer",
    "content_range",
    "fetch_range",
    "merge_ranges",
]

FIRST_RANGE_BYTES = 65_536
"""First bytes asked of a file: enough for header and tile table of every coadd of DR8 to DR11."""

MERGE_GAP_BYTES = 16_384
"""Ranges closer than this are asked as one: about round trip x bandwidth / connections."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True)
class Version:
    """What tells one state of a remote file from another.

    Attributes
    ----------
    size : int
        Length of the whole file, bytes.
    etag, last_modified : str or None
        The headers of that name.
    """

    size: int
    etag: str | None = None
    last_modified: str | None = None

    @property
    def validator(self):
        """What may stand in an If-Range header: a strong ETag, else the date, else `None`."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified

    @property
    def key(self):
        """A name for this state that can be part of a file name."""
        text = f"{self.size}|{self.etag or self.last_modified}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def same_as(self, other):
        """Tell whether ``other`` can be the same state; a header that one lacks says nothing."""
        pairs = ((self.etag, other.etag), (self.last_modified, other.last_modified))
        return self.size == other.size and all(a == b for a, b in pairs if a and b)

    @classmethod
    def of(cls, response, size):
        """Build the version that the headers of an answer tell."""
        return cls(size, response.headers.get("ETag"), response.headers.get("Last-Modified"))


class WholeFileAnswer(Exception):  # noqa: N818 - it reports no error
    """A server that was asked for a range sent the whole file, and ``receive`` took it."""

    def __init__(self, result):
        super().__init__("the server ignored the range")
        self.result = result


def fetch_range(client, url, start, stop, *, receive, expected=None):
    """Fetch bytes ``start`` to ``stop`` of a file, checked against what was asked.

    Parameters
    ----------
    client : HttpClient
        Makes the request.
    url : str
        The file.
    start, stop : int
        First byte and one past the last; the end of the file may come earlier.
    receive : callable
        Takes the answer of a server that ignores ranges and sends the file whole.
    expected : Version, optional
        The state of the file that the bytes must come from.

    Returns
    -------
    data : bytes
    version : Version

    Raises
    ------
    WholeFileAnswer
        If the whole file came; ``.result`` is what ``receive`` returned.
    ContentChangedError
        If the file is no longer the expected one.
    UnexpectedContentError, TruncatedError, TransferError
        If the answer is not the range, shorter than it says, or there is none.
    """
    headers = {"Range": f"bytes={start}-{stop - 1}"}
    if expected is not None and expected.validator:
        headers["If-Range"] = expected.validator

    def consume(response):
        if response.status == 416:
            if expected is not None:
                raise _changed(url)
            msg = f"{url} is empty, or shorter than byte {start}."
            raise UnexpectedContentError(msg, url=url, status=416)
        if response.status != 206:
            _check_not_changed(url, response, expected)
            raise WholeFileAnswer(receive(response))
        first, last, size = content_range(url, response)
        version = Version.of(response, size)
        if expected is not None and not expected.same_as(version):
            raise _changed(url)
        if first != start or last != min(stop, size) - 1:
            msg = f"{url} sent bytes {first}-{last} when {start}-{stop - 1} were asked."
            raise UnexpectedContentError(msg, url=url, status=206)
        # One byte more than is due shows an answer that is longer than it says.
        data = response.read(last - first + 2)
        if response.length_remaining:
            raise IncompleteRead(len(data), response.length_remaining)
        if len(data) != last - first + 1:
            msg = f"{url} sent {len(data)} bytes for the range {first}-{last}."
            raise TruncatedError(msg, url=url, status=206)
        return data, version

    return client.fetch(url, consume, headers=lambda: headers)


def content_range(url, response):
    """Return (first, last, size) of a Content-Range header.

    Parameters
    ----------
    url : str
        What was asked.
    response : `urllib3.response.BaseHTTPResponse`
        An answer of status 206.

    Returns
    -------
    first, last, size : int

    Raises
    ------
    UnexpectedContentError
        If the header is missing or cannot be read.
    """
    text = response.headers.get("Content-Range", "")
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None:
        msg = f"{url} sent a part without saying which (Content-Range: {text!r})."
        raise UnexpectedContentError(msg, url=url, status=response.status)
    return tuple(int(group) for group in match.groups())


def _check_not_changed(url, response, expected):
    """Refuse a whole answer that is of another state of the file than expected."""
    length = response.headers.get("Content-Length", "")
    known = expected is not None and length.isdigit()
    if known and not expected.same_as(Version.of(response, int(length))):
        raise _changed(url)


def _changed(url):
    msg = f"{url} changed while it was being read."
    return ContentChangedError(msg, url=url)


def merge_ranges(ranges, *, gap_bytes=MERGE_GAP_BYTES):
    """Join ranges that touch or nearly do.

    Parameters
    ----------
    ranges : iterable of tuple of int
        ``(start, stop)``, any order; empty ones are left out.
    gap_bytes : int, optional
        Largest gap that is read rather than asked round.

    Returns
    -------
    list of tuple of int
        Sorted, disjoint.

    Examples
    --------
    >>> from astroquery_lis.io.ranges import merge_ranges
    >>> merge_ranges([(100, 200), (0, 50), (205, 300)], gap_bytes=10)
    [(0, 50), (100, 300)]
    """
    merged = []
    for start, stop in sorted(r for r in ranges if r[1] > r[0]):
        if merged and start - merged[-1][1] <= gap_bytes:
            merged[-1][1] = max(merged[-1][1], stop)
        else:
            merged.append([start, stop])
    return [tuple(r) for r in merged]
