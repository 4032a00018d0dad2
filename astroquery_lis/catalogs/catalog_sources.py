"""The catalogue from the first source that can answer, as one honest table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from astropy.table import Table
from astroquery.exceptions import MaxResultsWarning, NoResultsWarning

from .._typing import Payload
from ..exceptions import (
    CoverageWarning,
    FailoverWarning,
    InvalidRequestError,
    MissingDataError,
    TransferError,
    warn,
)
from ..io.http import reason_of
from ..survey.catalog_request import CatalogRequest
from ..survey.row_ids import RowIds
from .catalog_table import Assembled, Chunk, assemble

SOURCES = ("auto", "tap", "files", "sweeps", "viewer")

_WORDS = {
    "tap": "TAP",
    "files": "the Tractor files",
    "sweeps": "the sweeps",
    "viewer": "the viewer",
}


@dataclass(frozen=True)
class Rows:
    """What a source answered, perhaps with some rows more than were asked for."""

    chunks: Sequence[Chunk]
    meta: Mapping[str, object] = field(default_factory=dict)  # where they come from
    is_cut: bool = False  # whether there are more
    is_covered: bool = True  # whether the survey has a catalogue there
    lacking: frozenset[str] = frozenset()  # of the default columns, those that the source has not


class CatalogSource(Protocol):
    """What can answer a request."""

    @property
    def name(self) -> str:
        """What users call it."""

    def payload(self, request: CatalogRequest) -> Payload:
        """Return what would be asked: the service and its query or addresses."""

    def rows(self, request: CatalogRequest, *, use_maxrec: bool = True) -> Rows:
        """Return the rows of a request; without maxrec, as many as there are."""


class LocalFiles(Protocol):
    """What the order of sources depends on: which files are on this computer."""

    max_bricks: int

    @property
    def only_local(self) -> bool:
        """Whether every mirror is a directory."""

    def are_here(self, request: CatalogRequest) -> bool:
        """Tell whether all files of a request, not too many, are on disk."""


def order_of_sources(
    request: CatalogRequest, files: LocalFiles, *, tap_is_same_sky: bool
) -> tuple[tuple[str, ...], str]:
    """Return the sources that ``'auto'`` asks in turn, and why the first one comes first."""
    if request.redshifts:
        is_first = tap_is_same_sky and request.tap_table is not None
        names = ("tap", "sweeps") if is_first else ("sweeps",)
        return names, "redshifts lie beside TAP's tables and the sweeps only"
    if files.only_local:
        return ("files",), "every mirror is a directory"
    if files.are_here(request):
        return ("files",), "its Tractor files are on this computer"
    if not tap_is_same_sky:
        return ("files",), "the mirror is not one of the survey's"
    if request.tap_table is None:
        return ("files",), f"TAP has no table of {request.release}"
    if isinstance(request.sky, RowIds) and request.release == "dr11":
        return ("files",), "TAP has other ids of dr11"
    if request.only_in_files:
        return ("files",), f"TAP lacks {', '.join(request.only_in_files)}"
    return ("tap", "files"), "not all of its Tractor files are on this computer"


def query_catalog(
    request: CatalogRequest, sources: Sequence[tuple[CatalogSource, str]], on_missing: str
) -> Table:
    """Return the rows of a request from the first source that answers; each comes with a reason."""
    if on_missing == "raise" and request.lacking:
        names = ", ".join(request.lacking)
        msg = (
            f"No {names} in {request.release}, region {request.region}. "
            "Leave that out, or take on_missing='warn' for columns without values."
        )
        raise MissingDataError(msg)
    failure: TransferError | None = None
    failovers = []
    for number, (source, why) in enumerate(sources):
        first = _WORDS[sources[0][0].name]
        reason = why if failure is None else f"{first} failed: {type(failure).__name__}"
        try:
            answer, rows = _answer(request, source)
            break
        except TransferError as error:
            failure = failure or error
            if number + 1 == len(sources):
                raise
            following = _WORDS[sources[number + 1][0].name]
            verb = "answer" if following.endswith("s") else "answers"
            name, text = _WORDS[source.name], reason_of(error)
            failovers.append(f"{name} failed ({text}); {following} {verb} instead.")
        except InvalidRequestError as refusal:
            if failure is None:
                raise
            # Too many files: that the first one failed is what the user has to know.
            raise failure from refusal
    for message in failovers:
        warn(message, FailoverWarning)
    answer.table.meta.update(
        {
            "survey": "DESI Legacy Imaging Surveys",
            "release": request.release,
            "region": request.region,
            "source": source.name,
            "reason": reason,
            **rows.meta,
        }
    )
    _tell(request, answer, rows, source.name, on_missing)
    return answer.table


def _answer(request: CatalogRequest, source: CatalogSource) -> tuple[Assembled, Rows]:
    rows = source.rows(request)
    if rows.lacking:
        request = request.without(rows.lacking)
    answer = assemble(request, rows.chunks)
    if rows.is_cut and request.maxrec is not None and len(answer.table) < request.maxrec:
        # Some of what the service counted does not meet what was asked.
        rows = source.rows(request, use_maxrec=False)
        answer = assemble(request, rows.chunks)
    return answer, rows


def _tell(
    request: CatalogRequest, answer: Assembled, rows: Rows, source: str, on_missing: str
) -> None:
    """Warn of columns without values, of rows that did not come, and of none at all."""
    n_rows, lacking = len(answer.table), answer.lacking
    if lacking:
        few = ", ".join(lacking[:6])
        few += f" and {len(lacking) - 6} more" if len(lacking) > 6 else ""
        where = "some rows" if n_rows else "this region"
        msg = f"{few} without values in {where}: the release or region lacks them."
        if on_missing == "raise":
            msg += " Leave them out, or take on_missing='warn' for columns without values."
            raise MissingDataError(msg)
        warn(msg, CoverageWarning)
    if answer.is_cut or rows.is_cut:
        is_nearest = source != "tap" and request.sky.center is not None
        which = "the nearest" if is_nearest else "not all"
        warn(
            f"There are more rows than came: {n_rows} of them, {which}, are here.",
            MaxResultsWarning,
        )
    if isinstance(request.sky, RowIds) and n_rows and not request.conditions:
        n_lost = len(request.sky.keys) - n_rows
        if n_lost and request.maxrec is None:
            warn(f"{n_lost} of {len(request.sky.keys)} ids have no row there.", NoResultsWarning)
    if not n_rows and rows.is_covered:
        msg = "No row of the catalogue is there and meets the conditions."
        warn(msg, NoResultsWarning)
