"""A TAP service, asked through pyvo, with the errors of this package."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import requests
from astropy.io.votable.exceptions import VOWarning
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError

from ..exceptions import (
    LegacySurveyError,
    RefusedQueryError,
    ServiceDownError,
    ServiceTimeoutError,
    TruncatedError,
    UnexpectedContentError,
)
from ..io.bounds import within
from ..io.http import causes, status_error, unreached

if TYPE_CHECKING:
    import pyvo
    from astropy.table import Table

ANSWER_BYTES, ROW_BYTES, USUAL_ROWS = 16e6, 16e3, 2_000_000
"""Largest answer beside its rows, largest row (200 columns as text have 5 kB), and most rows."""

FIRST_POLL_S = 0.1
LAST_POLL_S = 10.0


@dataclass(frozen=True)
class TapAnswer:
    """What a TAP service answered."""

    table: Table
    is_cut: bool


class TapClient:
    """A TAP service."""

    def __init__(self, url: str, make_session: Callable[[], requests.Session]) -> None:
        self.url = url.rstrip("/")
        self._make_session = make_session

    def run(self, query: str, *, maxrec: int | None = None, async_job: bool = False) -> TapAnswer:
        """Run a query."""
        import pyvo

        with (
            _mapped_errors(self.url),
            within(limit_bytes=ANSWER_BYTES + ROW_BYTES * (maxrec or USUAL_ROWS)),
            self._make_session() as session,
            warnings.catch_warnings(),
        ):
            # Overflow is told by the caller; services' VOTables are seldom strictly valid.
            warnings.simplefilter("ignore", pyvo.dal.exceptions.DALOverflowWarning)
            warnings.simplefilter("ignore", VOWarning)
            service = pyvo.dal.TAPService(self.url, session=session)
            run = _run_job if async_job else pyvo.dal.TAPService.run_sync
            result = run(service, query, maxrec=maxrec)
            return TapAnswer(result.to_table(), result.query_status.upper() == "OVERFLOW")


def _run_job(service: pyvo.dal.TAPService, query: str, maxrec: int | None) -> pyvo.dal.TAPResults:
    import pyvo

    job = service.submit_job(query, maxrec=maxrec)
    try:
        job.run()
        wait_s = FIRST_POLL_S
        while job.phase in ("PENDING", "QUEUED", "EXECUTING", "HELD", "SUSPENDED", "UNKNOWN"):
            time.sleep(wait_s)
            wait_s = min(1.5 * wait_s, LAST_POLL_S)
        job.raise_if_error()
        return job.fetch_result()
    finally:
        # It goes by itself some day if that fails.
        with suppress(pyvo.dal.DALServiceError, requests.RequestException, LegacySurveyError):
            job.delete()


@contextmanager
def _mapped_errors(url: str) -> Iterator[None]:
    """Turn the errors of pyvo and what is below it into the package's own."""
    import pyvo

    try:
        yield
    except LegacySurveyError:
        raise
    except (pyvo.dal.DALAccessError, requests.RequestException, HTTPError, OSError) as error:
        raise _mapped(error, url) from error


def _mapped(error: Exception, url: str) -> LegacySurveyError:
    """Return the package's own error for one of pyvo, by the deepest that says what it is."""
    import pyvo

    chain = list(causes(error))
    for lower in chain:
        if isinstance(lower, LegacySurveyError):
            return lower
    down = unreached(url, *chain)
    if down is not None:
        return down
    timeouts = (requests.Timeout, Urllib3TimeoutError, TimeoutError)
    if any(isinstance(lower, timeouts) for lower in chain):
        return ServiceTimeoutError(f"No answer from {url} in time.", url=url, cause=error)
    if isinstance(error, pyvo.dal.DALQueryError):
        msg = f"{url} refused the query: {error.reason}"
        return RefusedQueryError(msg, url=url, cause=error)
    for lower in chain:
        status = getattr(getattr(lower, "response", None), "status_code", None)
        refusal = None if status is None else status_error(status, url, cause=error)
        if refusal is not None:
            return refusal
    is_unreachable = any(isinstance(e, requests.ConnectionError) for e in chain)
    if not is_unreachable and any(isinstance(e, ProtocolError) for e in chain):
        msg = f"{url} was cut off in the middle of its answer."
        return TruncatedError(msg, url=url, cause=error)
    is_http = any(isinstance(lower, HTTPError) for lower in chain)
    if isinstance(error, pyvo.dal.DALFormatError) and not (is_unreachable or is_http):
        msg = f"{url} did not answer with a VOTable: {error}."
        return UnexpectedContentError(msg, url=url, cause=error)
    return ServiceDownError(f"Could not read {url}: {error}.", url=url, cause=error)
