"""MAST's mission search, asked through astroquery's own client, to the last row.

The client (`astroquery.mast.MastMissions`) knows how to ask; what it lacks is added here: a
time-out for every request, polite repetition, pages beyond the limit of one answer, lists of files
in batches, a second look where an answer is incomplete, and errors that say what happened.
"""

from __future__ import annotations

import tomllib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from astropy.table import Table
from astroquery.exceptions import InvalidQueryError
from astroquery.exceptions import TimeoutError as AstroqueryTimeoutError

from ...exceptions import (
    LegacySurveyError,
    LegacySurveyWarning,
    RefusedQueryError,
    ServiceTimeoutError,
    UnexpectedContentError,
    UnreachableError,
    warn,
)
from ...io.http import map_errors, reason_of, status_error
from ..planning.pipelines import table_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import requests
    from astropy.coordinates import SkyCoord
    from astropy.units import Quantity

    from ...io.http import PoliteSession

PAGE_ROWS = 5000
"""Rows asked for at once: what the service gives where no number is named."""

BATCH_DATASETS = 100
"""Datasets whose files are listed in one request; each has some tens to hundreds of files."""

LIST_TRIES = 3
"""How often the files of a dataset are asked for of which none, or not all due, were listed."""

COLUMNS: dict[str, list[str]] = tomllib.loads(table_text("keywords"))["archive"]
"""What is wanted of a row, and the columns of the service that may hold it."""

NEEDED = ("dataset", "level", "program")


class MissionSearch:
    """The search for JWST files at one MAST server."""

    def __init__(self, server: str, session: PoliteSession) -> None:
        # It takes a second to import, and keyrings with it.
        from astroquery.mast import MastMissionsClass

        self.server = server
        self.url = f"{server}/search/jwst/api/v0.1/search"
        session.hooks["response"].append(_refuse_failure)
        self._session = session
        self._client = MastMissionsClass(mission="jwst")
        # The client's addresses were fixed when it was imported, and its session has no time-out.
        api = self._client._service_api_connection
        api._session = self._client._session = session
        api.SERVICE_URL = server
        self._client.mission = "jwst"
        names = self._column_names()
        self.columns = {
            key: tuple(name for name in candidates if name in names)
            for key, candidates in COLUMNS.items()
        }
        lacking = [COLUMNS[key][0] for key in NEEDED if not self.columns[key]]
        if lacking:
            msg = f"{server} has no column {', '.join(lacking)} for JWST; its search has changed."
            raise UnexpectedContentError(msg, url=self.url)

    def _column_names(self) -> set[str]:
        """Ask for the columns, as the client does, but with a time-out."""
        url = f"{self.server}/search/util/api/v0.1/column_list"
        with _mapped_errors(url):
            answer = self._session.get(url, params={"mission": "jwst"}).json()
            rows = [(row["column_name"], row["qual_type"], row["description"]) for row in answer]
        self._client.columns["jwst"] = Table(
            rows=rows or None, names=("name", "data_type", "description"), dtype=(str, str, str)
        )
        return {row[0] for row in rows}

    def search(
        self,
        criteria: dict[str, str],
        coordinates: SkyCoord | None = None,
        radius: Quantity | None = None,
    ) -> list[dict]:
        """Return every row that meets the criteria."""
        payload = self.payload(criteria)
        if coordinates is not None:
            payload |= {"coordinates": coordinates, "radius": radius}
        rows: list[dict[str, Any]] = []
        total = None
        while total is None or len(rows) < total:
            with _mapped_errors(self.url):
                answer = self._client.query_criteria_async(
                    limit=PAGE_ROWS, offset=len(rows), **payload
                ).json()
                page = [self._row(row) for row in answer["results"]]
                total = answer.get("totalResults")
            if not page:
                break
            rows += page
        if total is not None and len(rows) < total:
            msg = f"MAST found {total} rows and gave {len(rows)} of them; the list is incomplete."
            warn(msg, LegacySurveyWarning)
        return rows

    def payload(self, criteria: dict[str, str]) -> dict:
        """Return what the client is called with for the first page."""
        selected = [name for names in self.columns.values() for name in names]
        # Without an order, pages of one query need not belong together.
        order = [self.columns[key][0] for key in ("dataset", "archive_id") if self.columns[key]]
        named = {
            self.columns[key][0]: value for key, value in criteria.items() if self.columns[key]
        }
        return {
            "select_cols": list(dict.fromkeys(selected)),
            "sort_by": order,
            "sort_desc": [False] * len(order),
            **named,
        }

    def _row(self, row: dict[str, Any]) -> dict:
        """Return a row of the service by the keys of `COLUMNS`."""
        renamed = {}
        for key, names in self.columns.items():
            values = (row.get(name) for name in names)
            renamed[key] = next((v for v in values if v not in (None, "")), None)
        return renamed

    def products(
        self,
        datasets: Iterable[str],
        is_complete: Callable[[str, list[dict]], bool] = lambda dataset, files: bool(files),
    ) -> dict[str, list[dict]]:
        """Return the files of datasets."""
        listed: dict[str, dict[str, dict]] = {}
        due = list(dict.fromkeys(datasets))
        for _ in range(LIST_TRIES):
            for start in range(0, len(due), BATCH_DATASETS):
                batch = due[start : start + BATCH_DATASETS]
                for product in self._list(batch):
                    files = listed.setdefault(str(product.get("dataset")), {})
                    files[str(product.get("filename"))] = product
            due = [
                name for name in due if not is_complete(name, list(listed.get(name, {}).values()))
            ]
            if not due:
                break
        if due:
            msg = f"MAST lists not all files of {len(due)} dataset(s), {due[0]} among them."
            warn(msg, LegacySurveyWarning)
        return {dataset: list(files.values()) for dataset, files in listed.items()}

    def _list(self, batch: list[str]) -> list[dict]:
        with _mapped_errors(f"{self.server}/search/jwst/api/v0.1/post_list_products"):
            table = self._client.get_product_list(batch)
            names = table.colnames
            return [dict(zip(names, row, strict=True)) for row in table.iterrows()] if names else []


def _refuse_failure(response: requests.Response, **kwargs: Any) -> None:
    """Raise for a status of 400 and more, before the client calls it something else."""
    status, url = response.status_code, response.url.partition("?")[0]
    if status < 400:
        return
    text = response.text[:300].strip()
    response.close()
    if status in (400, 422):
        msg = f"{url} refused the query (HTTP {status}): {text}"
        raise RefusedQueryError(msg, url=url, status=status)
    error = status_error(status, url)
    if error is not None:
        raise error


@contextmanager
def _mapped_errors(url: str) -> Iterator[None]:
    """Turn the errors of the client and of what is below it into the package's own."""
    try:
        with map_errors(url):
            yield
    except UnreachableError as error:
        # What the error says of copies of the survey is of no use here.
        msg = f"{reason_of(error)} Check the network, and the proxy where there is one."
        raise UnreachableError(msg, reasons=error.reasons, url=url, cause=error.cause) from error
    except LegacySurveyError:
        raise
    except AstroqueryTimeoutError as error:
        msg = f"No answer from {url} in time."
        raise ServiceTimeoutError(msg, url=url, cause=error) from error
    except InvalidQueryError as error:
        msg = f"The query was refused: {error}"
        raise RefusedQueryError(msg, url=url, cause=error) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{url} did not answer as MAST's search does: {type(error).__name__}: {error}."
        raise UnexpectedContentError(msg, url=url, cause=error) from error
