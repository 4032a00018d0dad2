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

import numpy as np
from astropy import log
from astropy.table import Row, Table

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
from ..io.whole_files import check_space, flaw_of, remove_leftovers
from .pipelines import read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
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


# ---- names of files ------------------------------------------------------------------------------

DETECTORS: list[str] = read_table("keywords")["words"]["detectors"]

_UNCAL = re.compile(
    r"jw(?P<program>\d{5})(?P<observation>\d{3})(?P<visit>\d{3})"
    r"_(?P<activity>\d{2}[0-9a-z]{3})_(?P<exposure>\d{5})(?:-seg(?P<segment>\d{3}))?"
    r"_(?P<detector>[a-z][a-z0-9]+)_uncal\.fits"
)
EXPOSURE = re.compile(r"jw(\d{5})(\d{3})\d{3}_")
_CANDIDATE = re.compile(r"jw(\d{5})-(?:o(\d{3})|([a-z]\d{3,4}))[-_]")


def parse_uncal_name(name: str) -> dict[str, object] | None:
    """Return what the name of an uncal file tells: columns of the table."""
    match = _UNCAL.fullmatch(name)
    if match is None or match["detector"].upper() not in DETECTORS:
        return None
    numbers = ("program", "observation", "visit", "exposure", "segment")
    return {
        **{key: int(match[key] or 0) for key in numbers},
        "activity": match["activity"],
        "detector": match["detector"].upper(),
    }


def dataset_facts(row: Mapping[str, Any]) -> dict[str, object]:
    """Return what a row of the search tells of a file whose name is not known yet."""
    match = EXPOSURE.match(str(row["dataset"]))
    program, observation = map(int, match.groups()) if match else (0, 0)
    return {**row, "program": program, "observation": observation}


def folder_of(name: str) -> str:
    """Return the folder of a file of the archive: its program and its observation."""
    match = EXPOSURE.match(name)
    if match:
        return f"{match[1]}/{match[2]}"
    match = _CANDIDATE.match(name)
    return f"{match[1]}/{match[2] or match[3]}" if match else "other"


# ---- the token of a user -------------------------------------------------------------------------


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
    value, source = _token_of(token)
    if not source:
        return None
    text = value.strip() if isinstance(value, str) else ""
    if not _TOKEN.fullmatch(text):
        msg = f"{source} cannot be a MAST token; make one at {NEW_TOKEN}."
        raise InvalidRequestError(msg, parameter="token")
    parts = urlsplit(server)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        msg = f"The MAST token is not sent to {server}, which is not an https address."
        raise InvalidRequestError(msg, parameter="token")
    return Token(text, source)


def _token_of(token: object) -> tuple[object, str]:
    """Return what should be the user's token, and where it is from, empty for nowhere."""
    if token is not None:
        return token, "the argument token"
    if text := os.environ.get(VARIABLE):
        return text, f"${VARIABLE}"
    # A computer without a keyring has errors of its own for that.
    with suppress(Exception):
        import keyring

        if text := keyring.get_password(*KEYRING):
            return text, "the keyring"
    return None, ""


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
        headers: Callable[[], dict] = dict,
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
        """Return the file of a row of a table, by the columns that have a value there."""
        uri = str(row.get("uri", row.get("file", "")))
        name = str(row.get("file", uri)).rpartition("/")[2]
        if name in ("", ".", "..") or re.search(r"[\\\0]", name):
            msg = f"table has {uri!r}, which is no file of MAST."
            raise InvalidRequestError(msg, parameter="table", value=uri)
        return cls(
            name,
            uri if ":" in uri else URI_PREFIX + name,
            int(row.get("size", -1)),
            str(row.get("sha256", "")).lower(),
            str(row.get("filter", "")),
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
            is_cut = isinstance(error, TruncatedError) and error.cause is not None
            _note_answer(self.settings.call, is_down=isinstance(error, ServiceDownError) or is_cut)
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


# ---- the files of a call -------------------------------------------------------------------------

_COLUMNS = ("file", "uri", "size", "sha256", "filter", "public")


def files_of(table: Any) -> list[ArchiveFile]:
    """Return the files that are to be fetched."""
    table = _as_table(table)
    names = [name for name in _COLUMNS if name in table.colnames]
    if not {"file", "uri"} & set(names):
        msg = f"table has no column 'file' or 'uri'; it has: {', '.join(table.colnames)}."
        raise InvalidRequestError(msg, parameter="table")
    return [ArchiveFile.of(_values(row, names)) for row in table]


def _as_table(files: Any) -> Table:
    """Return a table, a row of one, a name or several names as a table."""
    if isinstance(files, Row):
        return files.table[[files.index]]
    if isinstance(files, Table):
        return files
    names = [files] if isinstance(files, str) else list(map(str, files))
    return Table({"uri": np.array(names, str)})


def _values(row: Row, names: list[str]) -> dict[str, object]:
    """Return what a row has in some columns, without what is masked, empty or `None`."""
    values = {name: getattr(row[name], "value", row[name]) for name in names}
    return {n: v for n, v in values.items() if not np.ma.is_masked(v) and v not in (None, "")}


def announce(jobs: list[ArchiveJob], folder: Path) -> int | None:
    """Say what is to come; refuse what the disk has no room for; return all bytes, if known."""
    due = [job for job in jobs if job.settings.overwrite or job.flaw() != ""]
    known = sum(max(job.what.size - part_bytes(job.path), 0) for job in due)
    words = len(due), len(jobs), size_text(known), folder
    log.info("%d of %d file(s) to fetch, %s, into %s.", *words)
    if due:
        check_space(folder, known)
    return sum(max(job.what.size, 0) for job in jobs) or None


def size_text(n_bytes: int) -> str:
    """Return a number of bytes in words."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
