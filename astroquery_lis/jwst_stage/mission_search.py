"""MAST's mission search, asked through astroquery's own client, and the table of uncal files.

Three ways lead to lists of JWST files at MAST.  The keyword search of the portal shows only the
highest level of calibration and so no uncal files.  The observation search (CAOM) finds planned and
combined observations, whose lists of products repeat each file many times, hold ten times as many
of guide stars, and take minutes.  The mission search has a row per file with the keywords of its
header: a program takes one search, and one list of files for every hundred exposures.

The client (`astroquery.mast.MastMissions`) knows how to ask; what it lacks is added here: a
time-out for every request, polite repetition, pages beyond the limit of one answer, lists of files
in batches, a second look where an answer is incomplete, and errors that say what happened.
"""

from __future__ import annotations

import re
from collections import defaultdict
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import log
from astropy import units as u
from astropy.table import Table
from astropy.time import Time
from astroquery.exceptions import InvalidQueryError, NoResultsWarning
from astroquery.exceptions import TimeoutError as AstroqueryTimeoutError

from ..exceptions import (
    LegacySurveyError,
    LegacySurveyWarning,
    RefusedQueryError,
    ServiceTimeoutError,
    UnexpectedContentError,
    UnreachableError,
    warn,
)
from ..io.http import map_errors, reason_of, status_error
from .archive_jobs import DETECTORS, dataset_facts, parse_uncal_name, size_text
from .pipelines import read_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import requests
    from astropy.coordinates import SkyCoord
    from astropy.units import Quantity

    from ..io.http import PoliteSession
    from .archive_methods import UncalRequest


PAGE_ROWS = 5000
"""Rows asked for at once: what the service gives where no number is named."""

BATCH_DATASETS = 100
"""Datasets whose files are listed in one request; each has some tens to hundreds of files."""

LIST_TRIES = 3
"""How often the files of a dataset are asked for of which none, or not all due, were listed."""

_TABLE = read_table("keywords")
COLUMNS: dict[str, list[str]] = _TABLE["archive"]
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
        first = {key: names[0] for key, names in self.columns.items() if names}
        # Without an order, pages of one query need not belong together.
        order = [first[key] for key in ("dataset", "archive_id") if key in first]
        return {
            "select_cols": list(dict.fromkeys(selected)),
            "sort_by": order,
            "sort_desc": [False] * len(order),
            **{first[key]: value for key, value in criteria.items() if key in first},
        }

    def _row(self, row: dict[str, Any]) -> dict:
        """Return a row of the service by the keys of `COLUMNS`."""
        renamed = {}
        for key, names in self.columns.items():
            values = (row.get(name) for name in names)
            renamed[key] = next((v for v in values if v not in (None, "")), None)
        return renamed

    def products(
        self, datasets: Iterable[str], detectors: Mapping[str, set[str]] | None = None
    ) -> dict[str, dict[str, dict]]:
        """Return the files of datasets: what the service says of each, by dataset and name.

        ``detectors`` are those of a dataset whose uncal files have to be among them.
        """
        detectors = detectors or {}
        listed: dict[str, dict[str, dict]] = defaultdict(dict)
        due = list(dict.fromkeys(datasets))
        for _ in range(LIST_TRIES):
            for start in range(0, len(due), BATCH_DATASETS):
                for product in self._list(due[start : start + BATCH_DATASETS]):
                    listed[str(product.get("dataset"))][str(product.get("filename"))] = product
            due = [name for name in due if not _has_all(listed[name], detectors.get(name, set()))]
            if not due:
                return listed
        msg = f"MAST lists not all files of {len(due)} dataset(s), {due[0]} among them."
        warn(msg, LegacySurveyWarning)
        return listed

    def _list(self, batch: list[str]) -> list[dict]:
        with _mapped_errors(f"{self.server}/search/jwst/api/v0.1/post_list_products"):
            table = self._client.get_product_list(batch)
            names = table.colnames
            return [dict(zip(names, row, strict=True)) for row in table.iterrows()] if names else []


def _has_all(files: Mapping[str, dict], detectors: set[str]) -> bool:
    """Return True if there are files, the uncal files of some detectors among them."""
    names = filter(None, map(parse_uncal_name, files))
    return bool(files) and detectors <= {name["detector"] for name in names}


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


_SHUTTERS = re.compile(r"jw(\d{5})(\d{3})(\d{3})_\w+_msa\.fits")


UNKNOWN_SIZE = -1

GUIDE_STAR = "_gs-"
"""Is in the name of every file and dataset of a guide star."""

_DEFAULTS: dict[str, str | int | bool] = _TABLE["table"]
_TYPES = {str: str, int: np.int64, bool: bool}
_OF_A_DETECTOR = (
    "detector", "exp_type", "filter", "pupil", "grating", "band", "elements", "s_region", "access",
)  # fmt: skip
_OF_THE_ROW = {
    "date_obs": "begun",
    **{name: name for name in ("instrument", "filter", "pupil", "grating", "exp_type", "target")},
    "s_region": "s_region",
}
"""Columns, and the key of the search that has them."""
# Names of spectra of single sources: thousands share one association.
_SOURCE = re.compile(r"_[bsv]\d{5,}_|-s\d{5,}_")
_ASN = re.compile(r"jw(\d{5})(?:-o(\d{3})_)?.*_asn\.json")


def find_uncal(search: MissionSearch, request: UncalRequest) -> Table:
    """Return the table of the files that a request asks for."""
    rows, detectors = _datasets(search, request)
    entries: dict[str, dict] = {}
    listed = search.products(detectors, detectors)
    for dataset, files in listed.items():
        exposures = _exposures(files, rows.get(dataset, []), request)
        entries |= exposures
        if {"", "NIRSPEC"} & {entry["instrument"] for entry in exposures.values()}:
            entries |= _shutters(files, rows.get(dataset, []))
    _warn_of_odd(listed)
    if request.associations and entries:
        entries |= _associations(search, request, entries.values(), set(detectors))
    return _tidy(entries, request, search.server)


def _datasets(
    search: MissionSearch, request: UncalRequest
) -> tuple[dict[str, list[dict]], dict[str, set[str]]]:
    """Return the rows of every dataset, and the detectors that files are due of, by dataset."""
    rows: dict[str, list[dict]] = defaultdict(list)
    detectors: dict[str, set[str]] = defaultdict(set)
    for row in search.search(request.criteria(), *request.cone):
        dataset = str(row["dataset"])
        rows[dataset].append(row)
        if GUIDE_STAR not in dataset and request.wants(dataset_facts(row)):
            detectors[dataset] |= {_detector(row)} & set(DETECTORS)
    return rows, detectors


def _detector(row: Mapping[str, Any]) -> str:
    return str(row.get("detector") or "").upper()


def _warn_of_odd(listed: Mapping[str, Mapping[str, dict]]) -> None:
    names = (name for name in chain.from_iterable(listed.values()) if GUIDE_STAR not in name)
    n_odd = sum(n.endswith("_uncal.fits") and parse_uncal_name(n) is None for n in names)
    if n_odd:
        msg = f"{n_odd} uncal file(s) have names that are not those of exposures, and are left out."
        warn(msg, LegacySurveyWarning)


def _exposures(
    files: Mapping[str, dict], rows: list[dict], request: UncalRequest
) -> dict[str, dict]:
    """Return the entries of a dataset's uncal files that are asked for."""
    entries = {}
    for filename, file in files.items():
        name = parse_uncal_name(filename)
        if name is None:
            continue
        row = _row_of(str(name["detector"]), rows)
        if request.exp_type and rows and "exp_type" not in row:
            continue  # The search was for types, and found other detectors only.
        if request.wants({**row, **name}):
            texts = {column: str(row.get(key) or "") for column, key in _OF_THE_ROW.items()}
            entries[filename] = {"product": "uncal", **name, **texts, **_file(file, row)}
    return entries


def _shutters(files: Mapping[str, dict], rows: list[dict]) -> dict[str, dict]:
    """Return the entries of the files that tell which shutters of NIRSpec's MSA were open."""
    entries = {}
    for filename, file in files.items():
        if match := _SHUTTERS.fullmatch(filename):
            numbers = zip(("program", "observation", "visit"), match.groups(), strict=True)
            entries[filename] = {
                "product": "msa",
                **{key: int(value) for key, value in numbers},
                "instrument": "NIRSPEC",
                **_file(file, rows[0] if rows else {}),
            }
    return entries


def _row_of(detector: str, rows: list[dict]) -> dict:
    """Return the row of the search that a file belongs to.

    Detectors of one exposure may differ in all that a row tells of optics, type and place: of the
    row of another detector only the rest is taken.
    """
    rows = rows or [{}]
    detectors = list(map(_detector, rows))
    if detector in detectors:
        return rows[detectors.index(detector)]
    if not all(detectors):
        return rows[0]
    return {key: value for key, value in rows[0].items() if key not in _OF_A_DETECTOR}


def _file(file: dict[str, Any], row: dict[str, Any]) -> dict:
    filename = str(file["filename"])
    released = str(row.get("released") or "")
    access = str(file.get("access") or row.get("access") or "").upper()
    return {
        "file": filename,
        "size": _size_of(file),
        "uri": f"mast:JWST/product/{filename}",
        "release_date": released,
        "public": access == "PUBLIC" or (not access and _is_past(released)),
    }


def _size_of(file: Mapping[str, Any]) -> int:
    size = file.get("size")
    return int(size) if size and not np.ma.is_masked(size) else UNKNOWN_SIZE


def _is_past(text: str) -> bool:
    try:
        return bool(text) and Time(text, scale="utc") <= Time.now()
    except ValueError:
        return False


def _associations(
    search: MissionSearch, request: UncalRequest, entries: Iterable[dict], asked: set[str]
) -> dict[str, dict]:
    """Return the association files of the observations whose uncal files were found."""
    observations = {(entry["program"], entry["observation"]) for entry in entries}
    # Those of a whole program have no number of an observation.
    places = observations | {(program, 0) for program, _ in observations}
    rows = _association_rows(search, request, {program for program, _ in observations})
    by_association = {_SOURCE.sub("_", name): name for name in sorted(rows, reverse=True)}
    due = asked.union(by_association.values())
    associations: dict[str, dict] = {}
    for dataset, files in search.products(sorted(due)).items():
        row = rows.get(dataset, {})
        for filename, file in files.items():
            program, observation = place = _place_of(filename)
            if place in places:
                associations[filename] = {
                    "product": "asn",
                    "program": program,
                    "observation": observation,
                    "instrument": str(row.get("instrument") or ""),
                    **_file(file, row),
                }
    return associations


def _association_rows(
    search: MissionSearch, request: UncalRequest, programs: set[int]
) -> dict[str, dict]:
    """Return the rows of what was made of the exposures of some programs, by dataset."""
    criteria = {"level": "2a,2b,2c,3", "program": ",".join(map(str, sorted(programs)))}
    if request.instrument:
        criteria["instrument"] = ",".join(request.instrument)
    return {str(row["dataset"]): row for row in search.search(criteria)}


def _place_of(association: str) -> tuple[int, int]:
    """Return program and observation of an association file; 0 where there is none."""
    match = _ASN.fullmatch(association)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)


def _tidy(entries: dict[str, dict], request: UncalRequest, server: str) -> Table:
    """Return the table, and say what is in it."""
    every = [entries[name] for name in sorted(entries)]
    listed = [entry for entry in every if entry["public"] or not request.public_only]
    table = Table(
        {
            name: np.array([entry.get(name, default) for entry in listed], _TYPES[type(default)])
            for name, default in _DEFAULTS.items()
        }
    )
    table["size"].unit = u.byte
    sizes = np.array(table["size"])
    kinds = np.array(table["product"])
    table.meta.update(
        server=server,
        queried=Time.now().utc.iso[:19],
        n_uncal=int((kinds == "uncal").sum()),
        n_associations=int((kinds == "asn").sum()),
        n_shutters=int((kinds == "msa").sum()),
        n_not_public=int((~np.array(table["public"])).sum()),
        n_left_out=len(every) - len(listed),
        bytes=int(sizes[sizes > 0].sum()),
        n_unknown_size=int((sizes < 0).sum()),
    )
    log.info(_summary(table.meta))
    if not len(table):
        warn("Query returned no results.", NoResultsWarning)
    return table


_COUNTS = {
    "n_associations": " and {} association(s)",
    "n_shutters": " and {} file(s) of NIRSpec's shutters",
}
_REMARKS = {
    "n_unknown_size": " and {} of unknown size",
    "n_not_public": "; {} not public yet",
    "n_left_out": "; {} not public yet and left out",
}


def _summary(meta: Mapping[str, Any]) -> str:
    """Return the line that tells how much there is before anything is fetched."""
    counts, remarks = _named(meta, _COUNTS), _named(meta, _REMARKS)
    return f"{meta['n_uncal']} uncal file(s){counts}, {size_text(meta['bytes'])}{remarks}."


def _named(meta: Mapping[str, Any], forms: Mapping[str, str]) -> str:
    return "".join(form.format(meta[name]) for name, form in forms.items() if meta[name])
