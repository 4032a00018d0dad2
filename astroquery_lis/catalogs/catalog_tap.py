"""Catalogue rows from a TAP service with the tables of Astro Data Lab.

Column names come from the catalogue's own list and values are written as literals, so that what a
user passes cannot change the query.  Columns are quoted: ``by`` is a reserved word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._typing import Payload
from ..exceptions import InvalidRequestError, RefusedQueryError
from ..survey.catalog_request import CatalogRequest
from ..survey.conditions import Comparison, Condition, literal
from ..survey.releases import get_release, get_tree
from ..survey.row_ids import RowIds, northern_rows
from ..survey.sphere import Circle
from ..survey.tractor import TYPES, row_ids
from ..survey.tractor_columns import (
    NO_REDSHIFT,
    REDSHIFTS,
    TractorColumn,
    any_column,
    redshift_columns,
    tractor_columns,
)
from .catalog_table import Chunk, Rows
from .tap_client import TapClient

if TYPE_CHECKING:
    from astropy.table import Column, Table

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
        is_exact = (
            request.sky.enclosing is request.sky
            and self._client.url not in self._cone_refused
            and not request.maskbits
            and all(condition.is_exact for condition in request.conditions)
            and len(_pushed(request)) == len(request.conditions) + request.drop_duplicates
        )
        maxrec = request.maxrec if request.maxrec and is_exact and use_maxrec else DEFAULT_MAXREC
        answer = self._client.run(query, maxrec=maxrec, async_job=self._async_job)
        meta = {"adql": query, "url": self._client.url}
        return Rows([chunk_of(answer.table, request)], meta, answer.is_cut)


def _may_be_the_cone(message: str) -> bool:
    """Tell whether a service may have refused a query because it has no Q3C."""
    reason = message.partition("refused the query:")[2]
    if re.search("q3c|radial", reason, re.I):
        return True
    return bool(_OF_THE_CONE.search(reason)) and not _OF_NAMES.search(reason)


def catalog_query(request: CatalogRequest, *, by_box: bool = False) -> str:
    """Return the ADQL of a catalogue request."""
    if request.tap_table is None:
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
    if release == "dr11":
        msg = "source='tap' does not take ids of dr11; take source='files'."
        raise InvalidRequestError(msg, parameter="source", value="tap")
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
    conditions = [c for c in request.conditions if c.column.in_tap]
    kinds = any_column("type", request.release)
    if request.drop_duplicates and kinds is not None:
        conditions.append(Condition(kinds, Comparison("!=", ("DUP",))))
    if request.release == "dr11":
        # Its `type` and `ref_cat` were swapped for a while (2026): these are tested here.
        conditions = [c for c in conditions if c.column.name not in ("type", "ref_cat")]
    texts = []
    for condition in conditions:
        name = condition.column.name
        if name not in REDSHIFTS:
            texts.append(condition.adql(f't."{name}"'))
        elif len(_redshift_releases(request)) == 1:
            texts.append(condition.adql(f'p0."{name}"'))
    return [text for text in texts if text is not None]


def chunk_of(table: Table, request: CatalogRequest) -> Chunk:
    """Return the rows of a service as the package has them."""
    columns: dict[str, np.ndarray] = {}
    masks, units = {}, {}
    for label in table.colnames:
        name = label.lower()
        values, mask = _values(table[label], any_column(name, request.release))
        columns[name] = values
        units[name] = str(table[label].unit or "")
        if mask is not None and mask.any():
            masks[name] = mask
    if all(name in columns for name in DCHISQ):
        parts = [columns.pop(name) for name in DCHISQ]
        columns["dchisq"] = np.stack(parts, axis=1) if len(table) else np.empty((0, 5), "f4")
    _unswap(columns)
    _merge_redshifts(columns, masks)
    north = np.zeros(len(table), bool)
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
    for name in REDSHIFTS & columns.keys():
        values = columns[name]
        if values.dtype.kind == "f":
            masks[name] = np.isnan(values) | (values == NO_REDSHIFT)


def _values(column: Column, schema: TractorColumn | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Return values and mask of a column; missing texts are empty and missing floats NaN."""
    data, mask = np.ma.getdata(column), np.ma.getmaskarray(column)
    if data.dtype.kind in "OSU" or (schema is not None and schema.is_text):
        pairs = zip(data.tolist(), mask.tolist(), strict=True)
        texts: Sequence[str] = [_text(value, missing) for value, missing in pairs]
        return np.array(texts, dtype=str), None
    data = np.array(data)
    lacking = mask | (data == NO_VALUE)
    if data.dtype.kind == "f":
        data[lacking] = np.nan
        lacking &= ~mask
    else:
        data[lacking] = 0
    if schema is not None and schema.dtype == "?":
        data = data.astype(bool)
    return data, lacking


def _text(value: object, missing: bool) -> str:
    if missing or value is None:
        return ""
    return (value.decode() if isinstance(value, bytes) else str(value)).rstrip()


def _unswap(columns: dict[str, np.ndarray]) -> None:
    """Put ``type`` and ``ref_cat`` right if the service has them the wrong way round."""
    if "type" not in columns or "ref_cat" not in columns:
        return
    kinds, references = (set(np.unique(columns[n])) - {""} for n in ("type", "ref_cat"))
    if references and references <= set(TYPES) and not kinds & set(TYPES):
        columns["type"], columns["ref_cat"] = columns["ref_cat"], columns["type"]
