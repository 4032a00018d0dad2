"""Catalogue rows from a TAP service with the tables of Astro Data Lab."""

import time
import warnings
from contextlib import suppress

import numpy as np
import requests
from astropy.io.votable.exceptions import VOWarning
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.exceptions import TimeoutError as Urllib3TimeoutError

from ..exceptions import (
    InvalidRequestError,
    LegacySurveyError,
    NotFoundError,
    RateLimitedError,
    RefusedQueryError,
    ServiceDownError,
    ServiceTimeoutError,
    TransferError,
    TruncatedError,
    UnexpectedContentError,
)
from ..survey import adql
from ..survey.conditions import Condition
from ..survey.tractor import TYPES, any_column, region_of_rows, tap_table
from ..survey.tractor_columns import tractor_columns
from .catalog_files import Chunk

__all__ = ["TapAnswer", "TapClient", "catalog_query", "chunk_of", "read_tap"]

DEFAULT_MAXREC = 2_000_000
"""Rows asked for where the user names no number: a service's own default can be a few thousand."""

NO_VALUE = -9999
"""What Astro Data Lab's tables hold where a region lacks a column."""

FIRST_POLL_S = 0.1
LAST_POLL_S = 10.0


class TapAnswer:
    """What a TAP service answered."""

    def __init__(self, table, is_cut):
        self.table = table
        self.is_cut = is_cut


class TapClient:
    """A TAP service, through pyvo, with errors of this package."""

    def __init__(self, url, make_session):
        self.url = url.rstrip("/")
        self._make_session = make_session
        self.cone_refused = False

    def run(self, query, *, maxrec=None, async_job=False):
        """Run a query."""
        import pyvo

        with (
            _mapped_errors(self.url),
            self._make_session() as session,
            warnings.catch_warnings(),
        ):
            # Overflow is told by the caller; services' VOTables are seldom strictly valid.
            warnings.simplefilter("ignore", pyvo.dal.exceptions.DALOverflowWarning)
            warnings.simplefilter("ignore", VOWarning)
            service = pyvo.dal.TAPService(self.url, session=session)
            if async_job:
                result = self._run_job(service, query, maxrec)
            else:
                result = service.run_sync(query, maxrec=maxrec)
            return TapAnswer(result.to_table(), result.query_status.upper() == "OVERFLOW")

    def _run_job(self, service, query, maxrec):
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
            _delete(job)


def _delete(job):
    """Remove a job from the service; it goes by itself some day if that fails."""
    import pyvo

    with suppress(pyvo.dal.DALServiceError, requests.RequestException, LegacySurveyError):
        job.delete()


class _mapped_errors:
    """Turn the errors of pyvo and what is below it into the package's own."""

    def __init__(self, url):
        self.url = url

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if error is None or isinstance(error, LegacySurveyError):
            return
        import pyvo

        known = (pyvo.dal.DALAccessError, requests.RequestException, HTTPError, OSError)
        if isinstance(error, known):
            raise self._mapped(error) from error

    def _mapped(self, error):
        import pyvo

        chain = list(_chain(error))
        for lower in chain:
            if isinstance(lower, LegacySurveyError):
                return lower
        kwargs = {"url": self.url, "cause": error}
        if any(isinstance(e, (requests.Timeout, Urllib3TimeoutError)) for e in chain):
            msg = f"No answer from {self.url} in time."
            return ServiceTimeoutError(msg, **kwargs)
        if isinstance(error, pyvo.dal.DALQueryError):
            msg = f"{self.url} refused the query: {error.reason}"
            return RefusedQueryError(msg, **kwargs)
        status = next((_status(lower) for lower in chain if _status(lower)), None)
        if status is not None:
            return _of_status(status, **kwargs)
        unreachable = any(isinstance(e, requests.ConnectionError) for e in chain)
        if not unreachable and any(isinstance(e, ProtocolError) for e in chain):
            msg = f"{self.url} was cut off in the middle of its answer."
            return TruncatedError(msg, **kwargs)
        if unreachable or any(isinstance(e, HTTPError) for e in chain):
            msg = f"Could not read {self.url}: {error}."
            return ServiceDownError(msg, **kwargs)
        if isinstance(error, pyvo.dal.DALFormatError):
            msg = f"{self.url} did not answer with a VOTable: {error}."
            return UnexpectedContentError(msg, **kwargs)
        msg = f"Could not read {self.url}: {error}."
        return ServiceDownError(msg, **kwargs)


def _chain(error):
    """Yield an error and those that it came from."""
    seen = set()
    waiting = [error]
    while waiting:
        error = waiting.pop(0)
        if not isinstance(error, BaseException) or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        reason = getattr(error, "reason", None)
        waiting += [getattr(error, "cause", None), error.__cause__, error.__context__, reason]
        waiting += [item for item in error.args if isinstance(item, BaseException)]


def _status(error):
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)


def _of_status(status, **kwargs):
    url = kwargs["url"]
    kwargs["status"] = status
    if status in (404, 410):
        return NotFoundError(f"{url} does not exist (HTTP {status}).", **kwargs)
    if status == 429:
        msg = f"{url} kept answering that too many requests were made (HTTP 429). Try again later."
        return RateLimitedError(msg, **kwargs)
    if status >= 500:
        return ServiceDownError(f"{url} failed on the server's side (HTTP {status}).", **kwargs)
    return TransferError(f"{url} was refused (HTTP {status}).", **kwargs)


def catalog_query(request, form="circle"):
    """Return the ADQL of a catalogue request."""
    table = tap_table(request.release, request.region)
    if table is None:
        msg = (
            f"source='tap' has no table of release {request.release!r}; "
            "take source='files', or dr8 to dr11."
        )
        raise InvalidRequestError(msg, parameter="source", value="tap")
    if request.only_in_files:
        msg = (
            f"source='tap' lacks {', '.join(request.only_in_files)}: "
            "only the Tractor files have that; take source='files'."
        )
        raise InvalidRequestError(msg, parameter="source", value="tap")
    circle = request.sky.enclosing
    where = adql.circle_where(circle) if form == "circle" else adql.box_where(circle)
    return adql.select(table, _names(request), where, _pushed(request), request.release)


def _names(request):
    if request.columns is None:
        return None
    schema = tractor_columns(request.release)
    names = [name for name in request.needed if name in schema and name != "ls_id"]
    if request.release == "dr11":
        # To see whether the two are swapped.
        names = list(dict.fromkeys([*names, "type", "ref_cat"]))
    return names


def _pushed(request):
    """Return the conditions that the service can test."""
    schema = tractor_columns(request.release)
    chosen = [c for c in request.conditions if c.name in schema]
    if request.drop_duplicates:
        chosen.append(Condition("type", "!=", ("DUP",)))
    if request.release == "dr11":
        # Its `type` and `ref_cat` were swapped for a while (2026): these are tested here.
        chosen = [c for c in chosen if c.name not in ("type", "ref_cat")]
    return chosen


def read_tap(request, client, *, async_job=False):
    """Return the rows of a request from a TAP service, perhaps with some more."""
    form = "box" if client.cone_refused else "circle"
    while True:
        query = catalog_query(request, form)
        maxrec = request.maxrec if _is_exact(request, form) else None
        try:
            answer = client.run(query, maxrec=maxrec or DEFAULT_MAXREC, async_job=async_job)
        except RefusedQueryError:
            if form == "box":
                raise
            form = "box"
            continue
        client.cone_refused = form == "box"
        return chunk_of(answer.table, request), query, answer.is_cut


def _is_exact(request, form):
    """Tell whether the service can count: whether it selects just what is selected here."""
    exact_sky = request.sky.enclosing is request.sky and form == "circle"
    due = len(request.conditions) + request.drop_duplicates
    return exact_sky and not request.maskbits and len(_pushed(request)) == due


def chunk_of(table, request):
    """Return the rows of a service as the package has them."""
    columns, masks, units = {}, {}, {}
    for given in table.colnames:
        name = given.lower()
        values, mask = _values(table[given], any_column(name, request.release))
        columns[name] = values
        units[name] = str(table[given].unit or "")
        if mask is not None and mask.any():
            masks[name] = mask
    if all(name in columns for name in adql.DCHISQ):
        parts = [columns.pop(name) for name in adql.DCHISQ]
        columns["dchisq"] = np.stack(parts, axis=1) if len(table) else np.empty((0, 5), "f4")
    _unswap(columns)
    north = np.zeros(len(table), bool)
    if len(table):
        north = region_of_rows(
            columns["release"], columns["ra"], columns["dec"], request.release, request.region
        )
    return Chunk(len(table), columns, north, masks, units)


def _values(column, known):
    """Return values and mask of a column; missing texts are empty and missing floats NaN."""
    data, mask = np.ma.getdata(column), np.ma.getmaskarray(column)
    kind = known.dtype[0] if known is not None else data.dtype.kind
    if kind == "U" or data.dtype.kind in "OSU":
        pairs = zip(data.tolist(), mask.tolist(), strict=True)
        return np.array([_text(value, missing) for value, missing in pairs], dtype=str), None
    data = np.array(data)
    lacking = mask | (data == NO_VALUE)
    if data.dtype.kind == "f":
        data[lacking] = np.nan
        lacking &= ~mask
    else:
        data[lacking] = 0
    if kind == "?":
        data = data.astype(bool)
    return data, lacking


def _text(value, missing):
    if missing or value is None:
        return ""
    return (value.decode() if isinstance(value, bytes) else str(value)).rstrip()


def _unswap(columns):
    """Put ``type`` and ``ref_cat`` right if the service has them the wrong way round."""
    if "type" not in columns or "ref_cat" not in columns:
        return
    kinds, references = (set(np.unique(columns[n])) - {""} for n in ("type", "ref_cat"))
    if references and references <= set(TYPES) and not kinds & set(TYPES):
        columns["type"], columns["ref_cat"] = columns["ref_cat"], columns["type"]
