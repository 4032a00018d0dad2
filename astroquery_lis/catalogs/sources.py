"""The catalogue from whichever source can answer, as one honest table."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from astroquery.exceptions import LargeQueryWarning, MaxResultsWarning, NoResultsWarning

from ..exceptions import (
    CacheWarning,
    CoverageWarning,
    FailoverWarning,
    InvalidRequestError,
    MissingDataError,
    NoCoverageError,
    TransferError,
    warn,
)
from ..survey.catalog_request import lacking_columns
from ..survey.tractor import tap_table
from . import catalog_files, catalog_tap, catalog_viewer
from .catalog_table import assemble

__all__ = ["SOURCES", "CatalogQuery", "Limits", "fetch_files"]

SOURCES = ("auto", "tap", "files", "viewer")
FEW_BRICKS = 4
"""So many brick files are fetched without a word."""


@dataclass(frozen=True)
class Limits:
    """How much may be fetched."""

    max_query_bricks: int  # most brick files that a query fetches


def fetch_files(bricks, finder, limits, what):
    """Return the Tractor files of bricks, fetched if need be."""
    if finder.only_local:
        return [finder.local(brick.path) for brick in bricks]
    n_fetched = sum(finder.local(brick.path) is None for brick in bricks)
    size = f"about {n_fetched * catalog_files.TYPICAL_FILE_BYTES / 1e9:.1f} GB"
    if n_fetched > limits.max_query_bricks:
        msg = (
            f"{what} touches {n_fetched} brick files that are not on this computer ({size}), more "
            f"than conf.max_query_bricks={limits.max_query_bricks}. Ask for a smaller region, take "
            "source='tap', or raise astroquery_lis.conf.max_query_bricks."
        )
        raise InvalidRequestError(msg, parameter="max_query_bricks", value=n_fetched)
    if n_fetched > FEW_BRICKS:
        msg = f"{what} fetches up to {n_fetched} brick files, {size}, and keeps them."
        warn(msg, LargeQueryWarning)
    return finder.find_all([brick.path for brick in bricks])


@lru_cache(maxsize=16)
def _bricks_of(sky, margin_deg, release, region):
    """Return the files whose rows can be in a region, remembered for when it is asked again."""
    return tuple(catalog_files.brick_files(sky.bricks(margin_deg), release, region))


class CatalogQuery:
    """One catalogue request and what can answer it."""

    def __init__(
        self,
        request,
        *,
        finder,
        tap,
        tap_matches,
        viewer,
        held,
        limits,
        on_missing,
        async_job,
    ):
        self.request = request
        self._finder, self._viewer = finder, viewer
        self._tap, self._tap_matches = tap, tap_matches
        self._held, self._limits = held, limits
        self._on_missing, self._async_job = on_missing, async_job
        self._margin_deg = 0.0 if request.primary else catalog_files.PRIMARY_MARGIN_DEG
        self._is_covered = True

    def _bricks(self):
        """Return the files whose rows can be in the region."""
        request = self.request
        return _bricks_of(request.sky, self._margin_deg, request.release, request.region)

    def choose(self):
        """Return the source that ``'auto'`` takes, and why."""
        request, finder = self.request, self._finder
        if finder.only_local:
            return "files", "every mirror is a directory"
        if request.sky.enclosing.radius_deg < 10:
            bricks = self._bricks()
            few = len(bricks) <= self._limits.max_query_bricks
            if few and all(finder.local(brick.path) for brick in bricks):
                return "files", "its Tractor files are on this computer"
        if not self._tap_matches():
            return "files", "the mirror is not one of the survey's"
        if tap_table(request.release, request.region) is None:
            return "files", f"TAP has no table of {request.release}"
        if request.only_in_files:
            return "files", f"TAP lacks {', '.join(request.only_in_files)}"
        return "tap", "not all of its Tractor files are on this computer"

    def payload(self, source):
        """Return what would be asked: ADQL, or addresses."""
        source = self.choose()[0] if source == "auto" else source
        if source == "tap":
            return {"service": self._tap.url, "query": catalog_tap.catalog_query(self.request)}
        if source == "viewer":
            layer, parameters = catalog_viewer.viewer_payload(self.request)
            service = self._viewer()
            url = service.address(f"{layer}/cat.fits", **parameters)
            return {"service": service.url, "urls": [url]}
        urls = [self._finder.address(brick.path) for brick in self._bricks()]
        return {"service": self._finder.service, "urls": urls}

    def run(self, source):
        """Return the rows."""
        self._check_columns()
        if source != "auto":
            return self._answer(source, "it was asked for")
        source, reason = self.choose()
        if source == "files":
            return self._answer("files", reason)
        try:
            return self._answer("tap", reason)
        except TransferError as error:
            msg = f"{self._tap.url} failed ({error}); the Tractor files answer instead."
            warn(msg, FailoverWarning)
            try:
                return self._answer("files", f"TAP failed: {type(error).__name__}")
            except InvalidRequestError as refusal:
                # Too many files: that TAP failed is what the user has to know.
                raise error from refusal

    def _check_columns(self):
        """Refuse columns that the release lacks altogether, if asked to."""
        lacking = lacking_columns(self.request)
        if lacking and self._on_missing == "raise":
            names = ", ".join(column.name for column in lacking)
            msg = (
                f"No {names} in {self.request.release}, region {self.request.region}. "
                "Leave that out, or take on_missing='warn' for columns without values."
            )
            raise MissingDataError(msg)

    def _answer(self, source, reason):
        chunks, meta, is_cut = getattr(self, f"_from_{source}")()
        answer = assemble(self.request, chunks)
        table = answer.table
        table.meta.update(
            {
                "survey": "DESI Legacy Imaging Surveys",
                "release": self.request.release,
                "region": self.request.region,
                "source": source,
                "reason": reason,
                **meta,
            }
        )
        self._tell(answer, is_cut or answer.is_cut, source)
        return table

    def _from_tap(self):
        chunk, query, is_cut = catalog_tap.read_tap(
            self.request, self._tap, async_job=self._async_job
        )
        return [chunk], {"adql": query, "url": self._tap.url}, is_cut

    def _from_viewer(self):
        chunk, url = catalog_viewer.read_viewer(self.request, self._viewer())
        return [chunk], {"url": url}, False

    def _from_files(self):
        request, finder = self.request, self._finder
        bricks = self._bricks()
        found = fetch_files(bricks, finder, self._limits, "The region")
        self._tell_gaps(bricks, found)
        names = None if request.columns is None else request.needed
        chunks, used = [], []
        for brick, located in zip(bricks, found, strict=True):
            if located is None:
                continue
            table = finder.open(located, self._held)
            rows = catalog_files.rows_in_region(table, brick, request)
            used.append(located.url)
            chunks.append(catalog_files.read_rows(table, brick, rows, names))
        return chunks, {"files": used}, False

    def _tell_gaps(self, bricks, found):
        request = self.request
        if self._finder.cache_error is not None:
            msg = f"The Tractor files are not cached: {self._finder.cache_error}"
            warn(msg, CacheWarning)
        gone = [brick for brick, file in zip(bricks, found, strict=True) if file is None]
        if not gone:
            return
        names = ", ".join(Path(brick.path).stem.removeprefix("tractor-") for brick in gone[:5])
        names += f" and {len(gone) - 5} more" if len(gone) > 5 else ""
        if len(gone) == len(bricks):
            self._is_covered = False
            msg = f"{request.release} has no catalogue there: no brick {names}."
            if self._on_missing == "raise":
                raise NoCoverageError(msg)
        else:
            msg = f"{request.release} has no catalogue of part of the region: no brick {names}."
        warn(msg, CoverageWarning)

    def _tell(self, answer, is_cut, source):
        request, table = self.request, answer.table
        if answer.lacking:
            few = ", ".join(answer.lacking[:6])
            few += f" and {len(answer.lacking) - 6} more" if len(answer.lacking) > 6 else ""
            rows = "some rows" if len(table) else "this region"
            msg = f"{few} without values in {rows}: the release or region lacks them."
            if self._on_missing == "raise":
                msg += " Leave them out, or take on_missing='warn' for columns without values."
                raise MissingDataError(msg)
            warn(msg, CoverageWarning)
        if is_cut:
            which = "the nearest" if source != "tap" and request.sky.center else "not all"
            msg = f"There are more rows than came: {len(table)} of them, {which}, are here."
            warn(msg, MaxResultsWarning)
        if not len(table) and self._is_covered:
            msg = "No row of the catalogue is there and meets the conditions."
            warn(msg, NoResultsWarning)
