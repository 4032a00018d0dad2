"""Files of the JWST archive on their way to disk, and what became of each.

Everything here is importable and takes small, picklable arguments, so that it runs in threads,
processes and on clusters alike.
"""

import glob
import hashlib
import json
import os
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from urllib.parse import quote

from ...exceptions import (
    CacheError,
    ContentChangedError,
    LegacySurveyError,
    NotFoundError,
    RateLimitedError,
    ServiceDownError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
)
from ...io import Result, failure
from ...io.content import check_structure
from ...io.download import download
from ...io.http import HttpClient
from ...io.ranges import Version
from ...io.store import remove_leftovers
from .token import refusal

__all__ = ["ArchiveClient", "ArchiveJob", "failed_job", "fetch_job", "part_bytes", "url_of"]

OUTAGES = 8
"""After so many files in a row without an answer, the rest of a call is not asked for."""


class ArchiveClient(HttpClient):
    """An HTTP client that shows a token, and takes no web page for a file.

    urllib3 takes the token away when an answer leads to another host.

    Parameters
    ----------
    token : `~.archive_token.Token`, optional
        The token.
    **kwargs
        As for `~astroquery_lis.io.http.HttpClient`.
    """

    def __init__(self, *, token=None, **kwargs):
        super().__init__(**kwargs)
        if token is not None:
            self._headers["Authorization"] = f"token {token.text}"

    def fetch(self, url, consume, *, headers=None):
        """GET ``url``, as `~astroquery_lis.io.http.HttpClient.fetch` does.

        Parameters
        ----------
        url, consume, headers
            As there.

        Returns
        -------
        object
            What ``consume`` returned.
        """

        def checked(response):
            if response.headers.get("Content-Type", "").startswith("text/html"):
                msg = f"{url} brought a web page in place of a file."
                raise UnexpectedContentError(msg, url=url, status=response.status)
            return consume(response)

        return super().fetch(url, checked, headers=headers)


@dataclass(frozen=True)
class ArchiveJob:
    """One file to fetch; picklable.

    Attributes
    ----------
    row : int
        Its number in the table.
    file : str
        Its name.
    url : str
        Where it is.
    path : str
        Where it goes.
    size : int
        Its length, -1 if that is not known.
    sha256 : str
        Its digest, empty if that is not known.
    bands : str
        Its filter, for the manifest.
    server : str
        Address of MAST.
    token : Token or None
        Shown for this file.
    overwrite : bool
        Whether a good file that is there is fetched again.
    client_options : tuple of tuple
        Arguments of `ArchiveClient`, as pairs.
    call : str
        Tells the files of one call from those of another.
    """

    row: int
    file: str
    url: str
    path: str
    size: int = -1
    sha256: str = ""
    bands: str = ""
    server: str = ""
    token: object = None
    overwrite: bool = False
    client_options: tuple = ()
    call: str = ""


def url_of(server, uri):
    """Return the address of a product.

    Parameters
    ----------
    server : str
        Address of MAST.
    uri : str
        Such as ``mast:JWST/product/jw02736001001_02101_00001_nrca1_uncal.fits``.

    Returns
    -------
    str
    """
    return f"{server}/api/v0.1/Download/file?uri={quote(uri, safe=':/')}"


def part_bytes(path):
    """Return how much of a file is here in parts.

    Parameters
    ----------
    path : path-like
        Where the whole file goes.

    Returns
    -------
    int
    """
    path = Path(path)
    sizes = [0]
    for part in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        with suppress(OSError):
            sizes.append(part.stat().st_size)
    return max(sizes)


def flaw_of(path, size, sha256=""):
    """Return what is wrong with a file that is here, empty if nothing is.

    Parameters
    ----------
    path : path-like
        The file.
    size : int
        Its due length, -1 if that is not known.
    sha256 : str, optional
        Its due digest.

    Returns
    -------
    str or None
        `None` if there is no file.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            _check_whole(path, size, path, stream)
            check_structure(path, stream, path)
            stream.seek(0)
            if sha256 and hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
                return f"{path} has another sha256."
    except FileNotFoundError:
        return None
    except (TruncatedError, UnexpectedContentError) as error:
        return str(error)
    return ""


def _check_whole(path, size, url, stream):
    """Refuse a file that has another length than it should, or is no JSON if it should be."""
    found = stream.seek(0, os.SEEK_END)
    if 0 <= size != found:
        msg = f"{url} has {found} bytes; {size} are due."
        raise TruncatedError(msg, url=str(url))
    if Path(path).suffix == ".json":
        stream.seek(0)
        try:
            json.load(stream)
        except ValueError as error:
            msg = f"{url} is not whole JSON: {error}."
            raise UnexpectedContentError(msg, url=str(url), cause=error) from error


_outages: dict = Counter()
_outages_lock = threading.Lock()


def _is_given_up(call):
    with _outages_lock:
        return _outages[call] >= OUTAGES


def _note_answer(call, *, is_down):
    with _outages_lock:
        _outages[call] = _outages[call] + 1 if is_down else 0


@lru_cache(maxsize=4)
def _shared_client(options, token):
    """Return this process's client: its connections serve every job."""
    return ArchiveClient(token=token, **dict(options))


def _known_of(job):
    return {"id": job.file, "bands": job.bands, "url": job.url}


def failed_job(job, error):
    """Return the results of a job that ended with an error.

    Parameters
    ----------
    job : ArchiveJob
        The job.
    error : Exception
        Why.

    Returns
    -------
    list of `~astroquery_lis.io.Result`
    """
    return [failure(job.row, error, **_known_of(job))]


def fetch_job(job):
    """Fetch one file, or find it, and tell what became of it.

    Parameters
    ----------
    job : ArchiveJob
        The file.

    Returns
    -------
    list of `~astroquery_lis.io.Result`
        One.
    """
    begun = time.perf_counter()
    try:
        found = _fetched(job)
    except NotFoundError as error:
        _note_answer(job.call, is_down=False)
        found = {"status": "NODATA", "message": f"MAST does not have it: {error}"}
    except (TransferError, CacheError, OSError) as error:
        _note_answer(job.call, is_down=isinstance(error, ServiceDownError))
        return failed_job(job, _explained(job, error))
    seconds = round(time.perf_counter() - begun, 4)
    return [Result(job.row, seconds=seconds, **found, **_known_of(job))]


def _fetched(job):
    """Return the attributes of the `~astroquery_lis.io.Result` of a file."""
    path = Path(job.path)
    flaw = flaw_of(path, job.size, job.sha256)
    if flaw == "" and not job.overwrite:
        return _found("CACHED", path)
    if _is_given_up(job.call):
        message = f"Not asked for, since MAST did not answer for {OUTAGES} files before."
        return {"status": "SKIPPED", "message": message}
    done = _downloaded(job, path, replace=flaw is not None)
    _note_answer(job.call, is_down=False)
    if done.sha256 is None:
        return _found("CACHED", path)
    remove_leftovers(path)
    message = f"A file was there and was replaced: {flaw}" if flaw else ""
    return _found("COMPLETE", path, message=message, sha256=done.sha256)


def _downloaded(job, path, *, replace):
    """Fetch a file, as long as every attempt brings it forward."""
    client = _shared_client(job.client_options, job.token)
    expected = Version(job.size) if job.size >= 0 else None
    while True:
        had = part_bytes(path)
        try:
            return download(
                client,
                job.url,
                path,
                expected=expected,
                sha256=job.sha256 or None,
                replace=replace,
                check=partial(_check_whole, path, job.size, job.url),
            )
        except RateLimitedError:
            raise
        except (TruncatedError, ServiceDownError):
            if part_bytes(path) <= had:
                raise


def _found(status, path, **more):
    return {"status": status, "local_path": str(path), "bytes": path.stat().st_size, **more}


def _explained(job, error):
    """Return the error with words that tell the user what to do, where there are better ones."""
    status = getattr(error, "status", None)
    if status in (401, 403):
        client = _shared_client(job.client_options, job.token)
        told = refusal(client, job.server, job.token, job.file)
        return TransferError(f"{told} (HTTP {status})", url=job.url, status=status)
    if isinstance(error, ContentChangedError) and job.size >= 0:
        msg = (
            f"{job.url} is not of the {job.size} bytes that the table gives {job.file}: it was "
            "replaced since the query. Query again, or set its size to -1 to take it as it is."
        )
        return ContentChangedError(msg, url=job.url, status=status)
    if not isinstance(error, LegacySurveyError):
        return CacheError(f"Cannot write {job.path}: {error}.", cause=error)
    return error
