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
from urllib3.exceptions import HTTPError

from ..exceptions import LegacySurveyError, RefusedQueryError, UnexpectedContentError
from ..io.bounds import within
from ..io.http import causes, map_errors

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

    with map_errors(url, pyvo.dal.DALAccessError):
        try:
            yield
        except pyvo.dal.DALQueryError as error:
            msg = f"{url} refused the query: {error.reason}"
            raise RefusedQueryError(msg, url=url, cause=error) from error
        except pyvo.dal.DALFormatError as error:
            # So it calls whatever happens while it reads an answer.
            lower = (HTTPError, requests.RequestException, LegacySurveyError)
            if any(isinstance(cause, lower) for cause in causes(error)):
                raise
            msg = f"{url} did not answer with a VOTable: {error}."
            raise UnexpectedContentError(msg, url=url, cause=error) from error
