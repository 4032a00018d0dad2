"""Catalogue rows from services: Astro Data Lab's tables by TAP, and the viewer's ``cat.fits``.

TAP is asked through pyvo.  Column names come from the catalogue's own list and values are written
as literals, so that what a user passes cannot change the query.  Columns are quoted: ``by`` is a
reserved word.
"""

from __future__ import annotations

import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Protocol

import numpy as np
import requests
from astropy.io.fits import BinTableHDU
from astropy.io.votable.exceptions import VOWarning
from urllib3.exceptions import HTTPError

from .._typing import Payload
from ..exceptions import (
    InvalidRequestError,
    LegacySurveyError,
    NoCoverageError,
    RefusedQueryError,
    UnexpectedContentError,
)
from ..io.bounds import within
from ..io.http import causes, map_errors
from ..survey.catalog_request import CatalogRequest
from ..survey.layers import layer_of
from ..survey.releases import get_release, get_tree
from ..survey.sphere import Circle
from ..survey.tractor import TYPES, RowIds, northern_rows, row_ids
from ..survey.tractor_columns import (
    MEASURED_REDSHIFTS,
    NO_REDSHIFT,
    REDSHIFTS,
    Comparison,
    Condition,
    TractorColumn,
    any_column,
    literal,
    redshift_columns,
    tractor_columns,
)
from .catalog_table import Chunk, Rows

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import pyvo
    from astropy.io.fits import HDUList
    from astropy.table import Column, Table


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

    before = sys.exc_info()[1]
    with map_errors(url, pyvo.dal.DALAccessError):
        try:
            yield
        except pyvo.dal.DALQueryError as error:
            msg = f"{url} refused the query: {error.reason}"
            raise RefusedQueryError(msg, url=url, cause=error) from error
        except pyvo.dal.DALFormatError as error:
            # So it calls whatever happens while it reads an answer.
            lower = (HTTPError, requests.RequestException, LegacySurveyError)
            if any(isinstance(cause, lower) for cause in causes(error, before)):
                raise
            msg = f"{url} did not answer with a VOTable: {error}."
            raise UnexpectedContentError(msg, url=url, cause=error) from error


DEFAULT_MAXREC = 2_000_000
"""Rows asked for where the user names no number: a service's own default can be a few thousand."""

MAX_IDS = 5000
"""A longer list would make a query longer than services take."""

NO_VALUE = -9999
"""What Astro Data Lab's tables hold where a region lacks a column."""

SECOND = "second_"
"""What stands before the names of columns of the second table of redshifts."""

DCHISQ = tuple(f"dchisq_{number}" for number in range(1, 6))
"""What Astro Data Lab calls the elements of ``dchisq``."""

MARGIN_DEG = 1e-6
"""Added to the radius, so that rounding on the server loses no row on the rim; cut again here."""

_OF_THE_CONE = re.compile(r"q3c|radial|function|geometr|translat|expected|syntax|pars", re.I)
_OF_NAMES = re.compile(r"(column|table|relation|field)\b.*\b(not|no|unknown)\b|no such", re.I)


class TapSource:
    """A TAP service as a source of the catalogue."""

    name = "tap"

    def __init__(self, client: TapClient, cone_refused: set[str], *, async_job: bool) -> None:
        self._client = client
        self._cone_refused = cone_refused  # services without Q3C, as far as they are known
        self._async_job = async_job

    def payload(self, request: CatalogRequest) -> Payload:
        """Return what the service would be asked."""
        return {"service": self._client.url, "query": catalog_query(request)}

    def rows(self, request: CatalogRequest, *, use_maxrec: bool = True) -> Rows:
        """Return the rows of a request."""
        url = self._client.url
        query = catalog_query(request, by_box=url in self._cone_refused)
        try:
            return self._ask(query, request, use_maxrec)
        except RefusedQueryError as error:
            if url in self._cone_refused or not _may_be_the_cone(str(error)):
                raise
        rows = self._ask(catalog_query(request, by_box=True), request, use_maxrec)
        self._cone_refused.add(url)
        return rows

    def _ask(self, query: str, request: CatalogRequest, use_maxrec: bool) -> Rows:
        is_exact = use_maxrec and self._is_exact(request)
        maxrec = (request.maxrec if is_exact else None) or DEFAULT_MAXREC
        answer = self._client.run(query, maxrec=maxrec, async_job=self._async_job)
        meta = {"adql": query, "url": self._client.url}
        return Rows([chunk_of(answer.table, request)], meta, answer.is_cut)

    def _is_exact(self, request: CatalogRequest) -> bool:
        """Tell whether the service selects just the rows of a request."""
        n_tests = len(request.conditions) + request.drop_duplicates
        return (
            request.sky.enclosing is request.sky
            and self._client.url not in self._cone_refused
            and not request.maskbits
            and all(condition.is_exact for condition in request.conditions)
            and len(_pushed(request)) == n_tests
        )


def _may_be_the_cone(message: str) -> bool:
    """Tell whether a service may have refused a query because it has no Q3C."""
    reason = message.partition("refused the query:")[2]
    if re.search("q3c|radial", reason, re.I):
        return True
    return bool(_OF_THE_CONE.search(reason)) and not _OF_NAMES.search(reason)


def catalog_query(request: CatalogRequest, *, by_box: bool = False) -> str:
    """Return the ADQL of a catalogue request."""
    if request.tap_lack:
        msg = f"source='tap' {request.tap_lack}; take source='files'."
        raise InvalidRequestError(msg, parameter="source", value="tap")
    if isinstance(request.sky, RowIds):
        where = _ids_where(request.sky, request.release)
    else:
        circle = request.sky.enclosing
        where = box_where(circle) if by_box else circle_where(circle)
    tables, redshifts = _redshift_tables(request)
    columns = ["t.*"]
    if request.columns is not None:
        columns = [f't."{name}"' for name in _asked(request)]
    wheres = [where, *_pushed(request)]
    return f"SELECT {', '.join([*columns, *redshifts])} FROM {tables} WHERE {' AND '.join(wheres)}"


def _redshift_tables(request: CatalogRequest) -> tuple[str, list[str]]:
    """Return the tables to ask, and the redshifts of those beside the first.

    Rows of DR10's north are those of DR9, and so are their redshifts.
    """
    tables, columns = f"{request.tap_table} AS t", list[str]()
    if not request.redshifts:
        return tables, columns
    for number, release in enumerate(_redshift_releases(request)):
        there = redshift_columns(release)
        if there:
            tables += (
                f" LEFT OUTER JOIN ls_{release}.photo_z AS p{number} ON t.ls_id = p{number}.ls_id"
            )
        columns += [
            f'p{number}."{name}"' + (f" AS {SECOND}{name}" if number else "")
            for name in request.redshifts
            if name in there
        ]
    return tables, columns


def _redshift_releases(request: CatalogRequest) -> list[str]:
    """Return the releases whose redshifts the rows of a request have: its own, and the north's."""
    # That of the release itself comes first, which is the south's.
    regions = reversed(get_release(request.release).regions_of(request.region))
    return list(dict.fromkeys(get_tree(request.release, region).release for region in regions))


def circle_where(circle: Circle) -> str:
    """Return the condition for a circle in the form of Q3C that Astro Data Lab accepts."""
    numbers = (circle.ra_deg, circle.dec_deg, circle.radius_deg + MARGIN_DEG)
    return f"'t' = Q3C_RADIAL_QUERY(t.ra, t.dec, {', '.join(map(literal, numbers))})"


def _ids_where(ids: RowIds, release: str) -> str:
    """Return the condition for rows by their ids."""
    if len(ids.keys) > MAX_IDS:
        msg = f"source='tap' takes at most {MAX_IDS} ids in a query; take source='files'."
        raise InvalidRequestError(msg, parameter="ids", value=len(ids.keys))
    number, brickid, objid = np.transpose(ids.keys)
    packed = row_ids(number, brickid, objid, release)
    return f"t.ls_id IN ({', '.join(map(literal, packed.tolist()))})"


def box_where(circle: Circle) -> str:
    """Return the condition for the box, or the two, in RA and Dec that hold a circle."""
    boxes = circle.boxes(MARGIN_DEG)
    dec = f"t.dec BETWEEN {literal(boxes[0][2])} AND {literal(boxes[0][3])}"
    ra = [f"t.ra BETWEEN {literal(low)} AND {literal(high)}" for low, high, _, _ in boxes]
    return f"{dec} AND {ra[0]}" if len(ra) == 1 else f"{dec} AND ({' OR '.join(ra)})"


def _asked(request: CatalogRequest) -> list[str]:
    """Return the columns of the table to ask for."""
    schema = tractor_columns(request.release)
    names = [name for name in request.needed if name in schema]
    if request.release == "dr11":
        # To see whether the two are swapped.
        names = list(dict.fromkeys([*names, "type", "ref_cat"]))
    return [part for name in names for part in (DCHISQ if name == "dchisq" else (name,))]


def _pushed(request: CatalogRequest) -> list[str]:
    """Return the conditions that the service can test, as ADQL."""
    conditions = list(request.conditions)
    if request.drop_duplicates:
        kinds = tractor_columns(request.release)["type"]
        conditions.append(Condition(kinds, Comparison("!=", ("DUP",))))
    # Its `type` and `ref_cat` were swapped for a while (2026): these are tested here.
    swapped = ("type", "ref_cat") if request.release == "dr11" else ()
    columns = (condition.column for condition in conditions)
    there = [column.in_tap and column.name not in swapped for column in columns]
    return list(filter(None, (_pushed_text(c, request) for c in compress(conditions, there))))


def _pushed_text(condition: Condition, request: CatalogRequest) -> str | None:
    name = condition.column.name
    if name not in REDSHIFTS:
        return condition.adql(f't."{name}"')
    is_single = len(_redshift_releases(request)) == 1
    return condition.adql(f'p0."{name}"') if is_single else None


def chunk_of(table: Table, request: CatalogRequest) -> Chunk:
    """Return the rows of a service as the package has them."""
    columns: dict[str, np.ndarray] = {}
    masks, units = {}, {}
    for label in table.colnames:
        name = label.lower()
        values, mask = _values(table[label], any_column(name, request.release))
        columns[name] = values
        units[name] = str(table[label].unit or "")
        if mask.any():
            masks[name] = mask
    if columns.keys() >= set(DCHISQ):
        columns["dchisq"] = np.stack([columns.pop(name) for name in DCHISQ], axis=1)
    _unswap(columns)
    _merge_redshifts(columns, masks)
    north = np.zeros(0, bool)
    if len(table):
        north = northern_rows(columns, request.release, request.region)
    return Chunk(len(table), columns, north, masks, units, "The service's table")


def _merge_redshifts(columns: dict[str, np.ndarray], masks: dict[str, np.ndarray]) -> None:
    """Take from the second table what the first has not, and mask what neither has."""
    for label in [name for name in columns if name.startswith(SECOND)]:
        name, second = label.removeprefix(SECOND), columns.pop(label)
        masks.pop(label, None)
        first = columns[name]
        is_gap = first == "" if first.dtype.kind == "U" else np.isnan(first)
        columns[name] = np.where(is_gap, second, first)
    for name in MEASURED_REDSHIFTS & columns.keys():
        if columns[name].dtype.kind == "f":
            masks[name] = np.isnan(columns[name]) | (columns[name] == NO_REDSHIFT)


def _values(column: Column, schema: TractorColumn | None) -> tuple[np.ndarray, np.ndarray]:
    """Return values and mask of a column; missing texts are empty and missing floats NaN."""
    data, mask = np.ma.getdata(column), np.ma.getmaskarray(column)
    kind = data.dtype.kind if schema is None else schema.dtype[0]
    if kind == "U" or data.dtype.kind in "OSU":
        texts = map(_text, data.tolist(), mask.tolist())
        return np.array([*texts], dtype=str), np.zeros(len(data), bool)
    data = np.array(data)
    lacking = mask | (data == NO_VALUE)
    if data.dtype.kind == "f":
        data[lacking] = np.nan
        return data, lacking & ~mask
    data[lacking] = 0
    return data.astype(bool) if kind == "?" else data, lacking


def _text(value: object, missing: bool) -> str:
    if missing or value is None:
        return ""
    return (value.decode() if isinstance(value, bytes) else str(value)).rstrip()


def _unswap(columns: dict[str, np.ndarray]) -> None:
    """Put ``type`` and ``ref_cat`` right if the service has them the wrong way round."""
    kinds, references = (set(np.unique(columns.get(n, ()))) - {""} for n in ("type", "ref_cat"))
    is_swapped = references and references <= TYPES.keys() and kinds.isdisjoint(TYPES)
    if is_swapped and "type" in columns:
        columns["type"], columns["ref_cat"] = columns["ref_cat"], columns["type"]


MAX_VIEWER_RADIUS_DEG = 1.0
"""The viewer reads whole brick files while it is waited for: larger regions would time out."""

VIEWER_MARGIN_DEG = 0.005
NOTHING = "No catalog sources"


class Viewer(Protocol):
    """The viewer's service, as far as the catalogue asks it."""

    url: str

    def address(self, path: str, **parameters: str) -> str:
        """Return the URL of a question."""

    def fits(
        self, path: str, *, box: tuple[float, float, float], **parameters: str
    ) -> AbstractContextManager[HDUList]:
        """Give the answer, which is kept unless it is found wrong meanwhile."""


class ViewerSource:
    """The viewer as a source of the catalogue."""

    name = "viewer"

    def __init__(self, service: Viewer) -> None:
        self._service = service

    def payload(self, request: CatalogRequest) -> Payload:
        """Return what the viewer would be asked."""
        path, parameters = _question(request)
        urls = [self._service.address(path, **parameters)]
        return {"service": self._service.url, "urls": urls}

    def rows(self, request: CatalogRequest, *, use_maxrec: bool = True) -> Rows:
        """Return the rows of a request, with some more round them."""
        path, parameters = _question(request)
        meta = {"url": self._service.address(path, **parameters)}
        circle = request.sky.enclosing
        box = (circle.ra_deg, circle.dec_deg, circle.radius_deg)
        try:
            with self._service.fits(path, box=box, **parameters) as hdus:
                return Rows([_chunk_of(hdus, request, meta["url"])], meta)
        except NoCoverageError:
            return Rows([], meta)
        except UnexpectedContentError as error:
            if NOTHING in str(error):
                return Rows([], meta)
            raise


def _question(request: CatalogRequest) -> tuple[str, dict[str, str]]:
    """Return what the viewer is asked: the layer's catalogue, and the box."""
    if request.redshifts:
        request.refuse_redshifts("source='viewer'")
    if not request.primary:
        lack = "ids=" if isinstance(request.sky, RowIds) else "primary=False"
        msg = f"source='viewer' lacks {lack}: take source='files'."
        raise InvalidRequestError(msg, parameter="source", value="viewer")
    circle = request.sky.enclosing
    # The box is laid out on the sky at its centre: a margin, and the exact cut is made here.
    boxes = circle.boxes(VIEWER_MARGIN_DEG + 0.02 * circle.radius_deg)
    if circle.radius_deg > MAX_VIEWER_RADIUS_DEG or boxes[0][:2] == (0.0, 360.0):
        msg = (
            f"source='viewer' is for regions of up to {MAX_VIEWER_RADIUS_DEG:g} deg that hold no "
            "pole; take source='tap' or source='files'."
        )
        raise InvalidRequestError(msg, parameter="source", value="viewer")
    parameters = {
        "ralo": f"{boxes[0][0]:.7f}",
        "rahi": f"{boxes[-1][1]:.7f}",
        "declo": f"{boxes[0][2]:.7f}",
        "dechi": f"{boxes[0][3]:.7f}",
    }
    return f"{layer_of(request.release, request.region).name}/cat.fits", parameters


def _chunk_of(hdus: HDUList, request: CatalogRequest, url: str) -> Chunk:
    table = hdus[-1]
    fields = table.columns if isinstance(table, BinTableHDU) else ()
    units = {column.name.lower(): column.unit or "" for column in fields}
    columns = {c.name.lower(): _native(np.asarray(table.data.field(c.name))) for c in fields}
    if not {"ra", "dec", "release", "brickid", "objid"} <= columns.keys():
        msg = f"{url} sent a table that is not a Tractor catalogue."
        raise UnexpectedContentError(msg, url=url)
    north = northern_rows(columns, request.release, request.region)
    masks = _padding(columns, north, request.release) if north.any() else {}
    return Chunk(len(north), columns, north, masks, units, url)


def _padding(
    columns: Mapping[str, np.ndarray], north: np.ndarray, release: str
) -> dict[str, np.ndarray]:
    """Return which values pad light curves: those of the north are shorter in DR9."""
    masks = {}
    for name, values in columns.items():
        if name.startswith("lc_") and values.ndim == 2:
            masks[name] = np.zeros(values.shape, bool)
            masks[name][north, _northern_length(name, release) :] = True
    return masks


def _native(values: np.ndarray) -> np.ndarray:
    """Return values of the machine's own kind, texts without blanks at their ends."""
    if values.dtype.kind in "SU":
        return np.char.rstrip(values.astype(str))
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _northern_length(name: str, release: str) -> int | None:
    column = tractor_columns({"dr10": "dr9"}.get(release, release)).get(name)
    return None if column is None else column.length
