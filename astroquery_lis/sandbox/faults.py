"""Things that go wrong on demand: what real servers, proxies and networks have been seen to do."""

from __future__ import annotations

import threading
from fnmatch import fnmatchcase

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
        self, owner: Faults, kind: str, match: str, times: int | None, after: int, options: dict
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
        self._owner._remove(self)

    def _wants(self, path: str, has_range: bool) -> bool:
        """Count a request in; the owner holds the lock."""
        if self._times is not None and self.hits >= self._times:
            return False
        if (self.kind in _RANGE_ONLY and not has_range) or not fnmatchcase(path, self.match):
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
        fault = Fault(self, kind, match, times, after, {**KINDS[kind], **options})
        with self._lock:
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
        with self._lock:
            return len(self._faults)

    def _remove(self, fault: Fault) -> None:
        with self._lock:
            if fault in self._faults:
                self._faults.remove(fault)

    def pick(self, target: str, path: str, has_range: bool) -> Fault | None:
        """Return the fault that hits a request, or `None`; used by the server.

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
        Fault or None

        Examples
        --------
        >>> from astroquery_lis.sandbox.faults import Faults
        >>> Faults().pick('/dr10/x.fits', '/dr10/x.fits', False) is None
        True
        """
        with self._lock:
            for fault in self._faults:
                if fault._wants(target, has_range):
                    if fault.kind == "etag":
                        number, content = self._revisions.get(path, (0, False))
                        self._revisions[path] = (number + 1, content or fault.options["content"])
                    return fault
        return None

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
