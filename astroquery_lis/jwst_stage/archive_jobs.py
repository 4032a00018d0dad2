"""Files of the JWST archive on their way to disk, and what became of each.

Everything here is importable and takes small, picklable arguments, so that it runs in threads,
processes and on clusters alike.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from .._locks import new_lock
from ..exceptions import (
    CacheError,
    ContentChangedError,
    InvalidRequestError,
    LegacySurveyError,
    NotFoundError,
    RateLimitedError,
    ServiceDownError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
)
from ..io.download import Downloaded, download
from ..io.http import HttpClient, shared_client
from ..io.jobs import Result
from ..io.ranges import Version
from ..io.whole_files import flaw_of, remove_leftovers
from .uncal_request import folder_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import IO, Self

T = TypeVar("T")

OUTAGES = 8
"""After so many files in a row without an answer, the rest of a call is not asked for."""

VARIABLE = "MAST_API_TOKEN"
KEYRING = ("astroquery:mast.stsci.edu.token", "masttoken")
"""Service and user under which astroquery keeps the token."""

NEW_TOKEN = "https://auth.mast.stsci.edu/token"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
# What a header may hold, without spaces and semicolons.
_TOKEN = re.compile(r"[!-:<-~]+")

URI_PREFIX = "mast:JWST/product/"


@dataclass(frozen=True, repr=False)
class Token:
    """A token; its text appears in no message, log or representation."""

    text: str
    source: str

    def __repr__(self) -> str:
        return f"<MAST token from {self.source}>"

    __str__ = __repr__


def find_token(token: str | None, server: str) -> Token | None:
    """Return the user's token: the argument, the environment's, or that of the keyring."""
    tokens = (pair for pair in _tokens(token) if pair[0] or token is not None)
    text, source = next(tokens, (None, ""))
    if not source:
        return None
    text = text.strip() if isinstance(text, str) else ""
    if not _TOKEN.fullmatch(text):
        msg = f"{source} cannot be a MAST token; make one at {NEW_TOKEN}."
        raise InvalidRequestError(msg, parameter="token")
    parts = urlsplit(server)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        msg = f"The MAST token is not sent to {server}, which is not an https address."
        raise InvalidRequestError(msg, parameter="token")
    return Token(text, source)


def _tokens(token: str | None) -> Iterator[tuple[str | None, str]]:
    """Yield what may be the user's token, and where it is from."""
    if token is not None:
        yield token, "the argument token"
        return
    yield os.environ.get(VARIABLE), f"${VARIABLE}"
    # A computer without a keyring has errors of its own for that.
    with suppress(Exception):
        import keyring

        yield keyring.get_password(*KEYRING), "the keyring"


class ArchiveClient(HttpClient):
    """An HTTP client that shows a token, and takes no web page for a file."""

    def __init__(self, *, token: Token | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if token is not None:
            self._headers["Authorization"] = f"token {token.text}"

    def fetch(
        self,
        url: str,
        consume: Callable[[Any], T],
        *,
        headers: Callable[[], dict[str, str]] | None = None,
        limit_bytes: float | None = None,
    ) -> T:
        """GET ``url``, as `~astroquery_lis.io.http.HttpClient.fetch` does."""

        def checked(response: Any) -> T:
            if response.headers.get("Content-Type", "").startswith("text/html"):
                msg = f"{url} brought a web page instead of a file."
                raise UnexpectedContentError(msg, url=url, status=response.status)
            return consume(response)

        return super().fetch(url, checked, headers=headers, limit_bytes=limit_bytes)


@dataclass(frozen=True)
class ArchiveSettings:
    """How the files of one call are fetched; picklable."""

    server: str
    folder: str
    """Where the files go, in folders ``program/observation``."""
    token: Token | None
    """Shown for files that are not public."""
    overwrite: bool
    client_options: tuple
    call: str
    """Tells one call from another."""


@dataclass(frozen=True)
class ArchiveFile:
    """A file of the archive, and what is known of it."""

    file: str
    uri: str
    size: int = -1
    sha256: str = ""
    bands: str = ""
    public: bool = False

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Return the file of a row of a table, in which masked values are `None`."""
        uri = str(row.get("uri") or row.get("file"))
        name = str(row.get("file") or uri).rpartition("/")[2]
        if name in ("", ".", "..") or re.search(r"[\\\0]", name):
            msg = f"table has {uri!r}, which is no file of MAST."
            raise InvalidRequestError(msg, parameter="table", value=uri)
        size = row.get("size")
        return cls(
            name,
            uri if ":" in uri else URI_PREFIX + name,
            -1 if size is None else int(size),
            str(row.get("sha256") or "").lower(),
            str(row.get("filter") or ""),
            bool(row.get("public")),
        )


@dataclass(frozen=True)
class ArchiveJob:
    """One file to fetch; picklable."""

    row: int
    what: ArchiveFile
    settings: ArchiveSettings

    @property
    def url(self) -> str:
        """Its address."""
        return url_of(self.settings.server, self.what.uri)

    @property
    def path(self) -> Path:
        """Where it goes."""
        return Path(self.settings.folder, folder_of(self.what.file), self.what.file)

    @property
    def token(self) -> Token | None:
        """What is shown for it."""
        return None if self.what.public else self.settings.token

    @property
    def client(self) -> HttpClient:
        """The client of this process: its connections serve every job."""
        return shared_client((*self.settings.client_options, ("token", self.token)), ArchiveClient)

    @property
    def about(self) -> dict[str, str]:
        """What the manifest says of it, whatever became of it."""
        return {"id": self.what.file, "bands": self.what.bands, "url": self.url}

    def flaw(self) -> str | None:
        """Return what is wrong with the file that is here, empty for nothing, `None` if none is."""
        return flaw_of(self.path, size=self.what.size, sha256=self.what.sha256)

    def fetch(self) -> Result:
        """Have the file, and say what became of it."""
        try:
            outcome: dict[str, Any] = _fetched(self)
        except NotFoundError as error:
            _note_answer(self.settings.call, is_down=False)
            outcome = {"status": "NODATA", "message": f"MAST does not have it: {error}"}
        except (TransferError, CacheError, OSError) as error:
            _note_answer(self.settings.call, is_down=isinstance(error, ServiceDownError))
            raise _explained(self, error) from error
        return Result(self.row, **{**self.about, **outcome})


def url_of(server: str, uri: str) -> str:
    """Return the address of a product."""
    return f"{server}/api/v0.1/Download/file?uri={quote(uri, safe=':/')}"


def part_bytes(path: Path) -> int:
    """Return how much of a file is here in parts."""
    sizes = [0]
    for part in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        with suppress(OSError):
            sizes.append(part.stat().st_size)
    return max(sizes)


def _check_size(job: ArchiveJob, stream: IO[bytes]) -> None:
    """Refuse a file of another length than it should have, which its server need not tell."""
    length = stream.seek(0, os.SEEK_END)
    if 0 <= job.what.size != length:
        msg = f"{job.url} has {length} bytes; {job.what.size} are due."
        raise TruncatedError(msg, url=job.url)


_outages: dict = Counter()
_outages_lock = new_lock()


def _is_given_up(call: str) -> bool:
    with _outages_lock:
        return _outages[call] >= OUTAGES


def _note_answer(call: str, *, is_down: bool) -> None:
    with _outages_lock:
        _outages[call] = _outages[call] + 1 if is_down else 0


def _fetched(job: ArchiveJob) -> dict:
    """Return the attributes of the result of a file."""
    path, flaw = job.path, job.flaw()
    if flaw == "" and not job.settings.overwrite:
        return _found("CACHED", path)
    if _is_given_up(job.settings.call):
        message = f"Not asked for, since MAST did not answer for {OUTAGES} files before."
        return {"status": "SKIPPED", "message": message}
    result = _downloaded(job, replace=flaw is not None)
    _note_answer(job.settings.call, is_down=False)
    if result.sha256 is None:
        return _found("CACHED", path)
    remove_leftovers(path)
    message = f"A file was there and was replaced: {flaw}" if flaw else ""
    return _found("COMPLETE", path, message=message, sha256=result.sha256)


def _downloaded(job: ArchiveJob, *, replace: bool) -> Downloaded:
    """Fetch a file, as long as every attempt brings it forward."""
    path = job.path
    while True:
        before = part_bytes(path)
        try:
            return download(
                job.client,
                job.url,
                path,
                expected=Version(job.what.size) if job.what.size >= 0 else None,
                sha256=job.what.sha256 or None,
                replace=replace,
                check=partial(_check_size, job),
            )
        except RateLimitedError:
            raise
        except (TruncatedError, ServiceDownError):
            if part_bytes(path) <= before:
                raise


def _found(status: str, path: Path, **more: Any) -> dict:
    return {"status": status, "local_path": str(path), "bytes": path.stat().st_size, **more}


def _explained(job: ArchiveJob, error: Exception) -> LegacySurveyError:
    """Return the error with words that tell the user what to do, where there are better ones."""
    status = getattr(error, "status", None)
    if status in (401, 403):
        return TransferError(f"{_refusal(job)} (HTTP {status})", url=job.url, status=status)
    if isinstance(error, ContentChangedError) and job.what.size >= 0:
        msg = (
            f"{job.url} is not of the {job.what.size} bytes that the table gives {job.what.file}: "
            "it was replaced since the query. Query again, or set its size to -1 to take it as it "
            "is."
        )
        return ContentChangedError(msg, url=job.url, status=status)
    if not isinstance(error, LegacySurveyError):
        return CacheError(f"Cannot write {job.path}: {error}.", cause=error)
    return error


def _refusal(job: ArchiveJob) -> str:
    """Return why a file was refused, in words."""
    file, token = job.what.file, job.token
    if token is None:
        return (
            f"MAST gives {file} only to those who may see it, and no MAST token was sent. Give "
            f"token=..., set ${VARIABLE}, or store one with astroquery.mast's login; make one at "
            f"{NEW_TOKEN}."
        )
    name = _whose(job.client, job.settings.server, token)
    if name is None:
        return f"MAST refused {file}, although the MAST token from {token.source} was sent."
    if name == "":
        return (
            f"MAST does not accept the MAST token from {token.source} (any more): it has expired "
            f"or is not whole. Make a new one at {NEW_TOKEN}."
        )
    return (
        f"MAST refused {file}: the MAST token from {token.source} is valid, and its owner "
        f"({name}) has no access to this program."
    )


@lru_cache(maxsize=16)
def _whose(client: HttpClient, server: str, token: Token) -> str | None:
    """Return whose token it is, empty for nobody's, `None` if MAST does not tell."""

    def consume(response: Any) -> object:
        return json.loads(response.read(1 << 20))

    # The cookie is what astroquery's client sends to this address.
    headers = {"Accept": "application/json", "Cookie": f"mast_token={token.text}"}
    try:
        info: Any = client.fetch(f"{server}/whoami", consume, headers=lambda: headers)
        if info["anon"]:
            return ""
        return str(info.get("attrib", {}).get("display_name") or "unnamed")
    except (LegacySurveyError, ValueError, KeyError, TypeError, AttributeError):
        return None
