"""The methods that find uncal files at MAST and fetch them."""

from __future__ import annotations

import uuid
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy import log
from astropy import units as u
from astropy.table import Row, Table

from .._conf import conf
from .._packages import package_version
from .._typing import answering
from ..client.base import QueryBase, in_time
from ..exceptions import InvalidRequestError, refuse
from ..io.delivery import warn_of_failures
from ..io.http import PoliteSession
from ..io.jobs import deliver_all
from ..io.journal import manifest
from ..io.whole_files import check_space, writing
from .archive_jobs import (
    ArchiveFile,
    ArchiveJob,
    ArchiveSettings,
    find_token,
    part_bytes,
    url_of,
)
from .mission_search import PAGE_ROWS, MissionSearch, find_uncal, size_text
from .uncal_request import (
    DETECTORS,
    EXP_TYPES,
    INSTRUMENTS,
    OPTICAL_ELEMENTS,
    UncalRequest,
    as_choices,
    as_moment,
    as_numbers,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from astropy.coordinates import SkyCoord

    from .._typing import Angle as AnyAngle
    from .._typing import Coordinates, Executor, FilePath, Payload, Time

DEFAULT_RADIUS_DEG = 3 / 60
QUERY_TIMEOUT_S = 300.0
"""The search is known to take more than a minute for large answers."""

MOST_WORKERS = 16
_DELIVERED = ("COMPLETE", "CACHED")


class ArchiveMethods(QueryBase):
    """Queries and downloads of the JWST archive, to be mixed into the class of the room."""

    @answering
    @in_time
    def query_uncal(
        self,
        coordinates: Coordinates | None = None,
        *,
        radius: AnyAngle | None = None,
        program: int | str | Sequence[int] | None = None,
        observation: int | str | Sequence[int] | None = None,
        instrument: str | Sequence[str] | None = None,
        filters: str | Sequence[str] | None = None,
        detector: str | Sequence[str] | None = None,
        exp_type: str | Sequence[str] | None = None,
        start_date: Time | str | None = None,
        end_date: Time | str | None = None,
        public_only: bool = False,
        associations: bool = False,
        get_query_payload: bool = False,
    ) -> Table | Payload:
        """Find the uncal files of JWST at MAST.

        Parameters
        ----------
        coordinates : `~astropy.coordinates.SkyCoord` or str, optional
            A position, in any frame, or a name.  Meant are the exposures whose footprint touches
            the circle round it; those of which MAST knows no footprint count by their target.
        radius : `~astropy.units.Quantity` ['angle'] or str, optional
            Of that circle, at most 1 degree; by default 3 arcmin.
        program, observation : int or str, or sequence of them, optional
            Numbers of programs, and of observations in them.
        instrument : str or sequence of str, optional
            ``'NIRCAM'``, ``'NIRSPEC'``, ``'NIRISS'``, ``'MIRI'`` or ``'FGS'``.
        filters : str or sequence of str, optional
            Names of optical elements in any wheel, such as ``'F200W'`` or ``'F162M'``.
        detector : str or sequence of str, optional
            Such as ``'NRCA1'`` or ``'MIRIMAGE'``.
        exp_type : str or sequence of str, optional
            Such as ``'NRC_IMAGE'``.
        start_date, end_date : `~astropy.time.Time` or str, optional
            First and last moment at which the exposure may begin, UTC.  A date without a time is
            the whole day.
        public_only : bool, optional
            Whether to leave out what is in its exclusive access period.
        associations : bool, optional
            Whether to list the level 2 and 3 association files of the observations too.
        get_query_payload : bool, optional
            Return a dictionary with the ``service`` and the ``params`` that it would get; nothing
            is sent but a request for its columns.

        Returns
        -------
        `~astropy.table.Table`
            One row per file, sorted by name, guide stars left out: ``file``, ``product``
            (``'uncal'``, ``'asn'``, or ``'msa'`` for the shutters of NIRSpec's MSA), ``size``
            (bytes, -1 if MAST does not tell), ``uri``,
            ``program``, ``observation``, ``visit``, ``activity``, ``exposure``, ``segment``,
            ``instrument``, ``detector``, ``filter``, ``pupil``, ``grating``, ``exp_type``,
            ``target``, ``date_obs``, ``s_region``, ``release_date`` and ``public`` (whether it is
            now).  ``meta`` has the numbers of files and their bytes in all.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong, or all of the archive would be listed; nothing was sent.
        TransferError
            One of its subclasses, if MAST does not answer or answers something else.

        Warns
        -----
        NoResultsWarning
            If there are none; the table has its columns and no rows.
        LegacySurveyWarning
            If MAST does not list all files that it should have.

        Notes
        -----
        ``astroquery.mast.MastMissions`` asks, at the server that ``astroquery.mast.conf`` names.
        Pages and lists of files are asked for until they are complete.  Each request is given up
        after ``timeout`` seconds without an answer if that was set, else after five minutes.
        """
        request = UncalRequest(
            program=as_numbers("program", program, 99999),
            observation=as_numbers("observation", observation, 999),
            instrument=as_choices("instrument", instrument, INSTRUMENTS),
            filters=as_choices("filters", filters, OPTICAL_ELEMENTS),
            detector=as_choices("detector", detector, DETECTORS),
            exp_type=as_choices("exp_type", exp_type, EXP_TYPES),
            start=as_moment("start_date", start_date),
            end=as_moment("end_date", end_date, is_end=True),
            public_only=bool(public_only),
            associations=bool(associations),
            circle=_circle(coordinates, radius),
        )
        _refuse_too_wide(request)
        with self._archive_session() as session:
            search = MissionSearch(_server(), session)
            if get_query_payload:
                center, within = request.cone
                params = {**search.payload(request.criteria()), "limit": PAGE_ROWS, "offset": 0}
                params |= {} if center is None else _cone(center, within)
                return {"service": search.url, "params": params}
            return find_uncal(search, request)

    @answering
    def download_uncal(
        self,
        table: Table,
        *,
        download_dir: FilePath,
        executor: Executor | None = None,
        max_workers: int = 4,
        overwrite: bool = False,
        token: str | None = None,
        show_progress: bool = True,
        get_query_payload: bool = False,
    ) -> Table | Payload:
        """Fetch files that `query_uncal` found; what is there whole is left alone.

        Parameters
        ----------
        table : `~astropy.table.Table` or str or sequence of str
            A table with a column ``file`` or ``uri``, and ``size`` (bytes), ``sha256`` and
            ``public`` where they are known; or names or URIs of files.
        download_dir : path-like
            Where they go, in folders ``program/observation``.
        executor : `~concurrent.futures.Executor` or {'threads', 'processes'}, optional
            Does the work; by default ``max_workers`` threads.
        max_workers : int, optional
            Files at once, at most 16, whatever does the work.  MAST is a shared service: a few are
            polite, and enough.
        overwrite : bool, optional
            Whether to fetch again what is there.
        token : str, optional
            The user's MAST token, for files in their exclusive access period.  By default that of
            ``$MAST_API_TOKEN``, then the one that astroquery keeps in the keyring.  It is shown to
            MAST for files that are not public, to nobody else, and never stored or logged.
        show_progress : bool, optional
            Whether to show a bar, where tqdm is installed, in terminals and notebooks.
        get_query_payload : bool, optional
            Return a dictionary with the ``service`` and the ``urls``; nothing is fetched.

        Returns
        -------
        `~astropy.table.Table`
            One row per row of ``table``: ``Local Path``, ``Status``, ``Message``, ``URL``, ``id``
            (the file), ``release``, ``region`` (both empty), ``bands`` (the filter), ``seconds``,
            ``bytes`` and ``sha256``.  The status is COMPLETE (fetched), CACHED (was here), NODATA
            (MAST does not have it), SKIPPED (not asked for, since MAST did not answer before) or
            ERROR.

        Raises
        ------
        InvalidRequestError
            If an argument is wrong; nothing was sent.
        CacheError
            If the disk has no room for the files; nothing was sent.

        Warns
        -----
        LegacySurveyWarning
            If files could not be had.

        Notes
        -----
        A file appears in its place when it is whole: its length is that of the table, and every HDU
        of a FITS file spans it.  What was begun lies beside it under a name that ends in ``.part``;
        the same call goes on there, after an interruption of any kind.
        """
        files, server = _files_of(table), _server()
        if get_query_payload:
            return {"service": server, "urls": [url_of(server, file.uri) for file in files]}
        if not isinstance(max_workers, int) or not 1 <= max_workers <= MOST_WORKERS:
            refuse("max_workers", max_workers, f"must be a number from 1 to {MOST_WORKERS}.")
        is_secret = not all(file.public for file in files) or token is not None
        folder = Path(download_dir).expanduser().absolute()
        options = self._archive_options() | {"timeout_s": float(self.timeout)}
        settings = ArchiveSettings(
            server=server,
            folder=str(folder),
            token=find_token(token, server) if is_secret else None,
            overwrite=bool(overwrite),
            client_options=tuple(options.items()),
            call=uuid.uuid4().hex,
        )
        jobs = [ArchiveJob(number, file, settings) for number, file in enumerate(files)]
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        total_bytes = _announce(jobs, folder)
        results = deliver_all(
            jobs,
            max_threads=max_workers,
            executor=executor,
            total_bytes=total_bytes or None,
            show_progress=show_progress,
            in_flight=max_workers,
        )
        warn_of_failures([r for r in results if r.status not in _DELIVERED], len(results))
        return manifest(results)

    # ---- inner ----------------------------------------------------------------------------------

    def _archive_options(self) -> dict:
        """Return the arguments of a client or session but the time-out."""
        agent = self._session.headers["User-Agent"]
        return {
            "retries": conf.retries,
            "max_retry_after_s": conf.max_retry_after,
            "user_agent": f"{agent} astroquery_lis/{package_version()}",
        }

    def _archive_session(self) -> PoliteSession:
        own = getattr(self, "_timeout", None)
        timeout_s = max(float(self.timeout), QUERY_TIMEOUT_S) if own is None else own
        return PoliteSession(timeout_s=timeout_s, **self._archive_options())


def _server() -> str:
    """Return the address of MAST that astroquery is configured for."""
    from astroquery.mast import conf as mast_conf

    return mast_conf.server.rstrip("/")


def _cone(center: SkyCoord, within: u.Quantity) -> dict[str, str]:
    return {"coordinates": center.to_string("decimal"), "radius": within.to_string(unit="deg")}


def _circle(
    coordinates: Coordinates | None, radius: AnyAngle | None
) -> tuple[float, float, float] | None:
    """Return the circle that is asked for, degrees: RA, Dec, radius."""
    if coordinates is None:
        if radius is not None:
            refuse("radius", radius, "says nothing without coordinates.")
        return None
    if isinstance(coordinates, Integral):
        refuse("coordinates", coordinates, f"is no position; a program is program={coordinates}.")
    # They bring all of the survey's modules along.
    from ..client.inputs import as_position
    from ..survey.sphere import as_angle_deg

    radius_deg = DEFAULT_RADIUS_DEG if radius is None else as_angle_deg("radius", radius, 1.0)
    return (*as_position(coordinates), radius_deg)


def _refuse_too_wide(request: UncalRequest) -> None:
    if request.observation and not request.program:
        msg = "observation says nothing without program: name the program too."
        raise InvalidRequestError(msg, parameter="observation", value=request.observation)
    if request.start is not None and request.end is not None and request.end < request.start:
        msg = f"end_date ({request.end.iso}) is before start_date ({request.start.iso})."
        raise InvalidRequestError(msg, parameter="end_date", value=request.end.iso)
    if not request.program and request.circle is None and request.start is None:
        msg = "That is most of the archive: give a program, coordinates, or a start_date."
        raise InvalidRequestError(msg, parameter="program")


def _files_of(table: Any) -> list[ArchiveFile]:
    """Return the files that are to be fetched."""
    if isinstance(table, str):
        table = [table]
    if isinstance(table, Row):
        table = table.table[[table.index]]
    if not isinstance(table, Table):
        table = Table({"uri": np.array([str(name) for name in table], str)})
    if not {"file", "uri"} & set(table.colnames):
        msg = f"table has no column 'file' or 'uri'; it has: {', '.join(table.colnames)}."
        raise InvalidRequestError(msg, parameter="table")
    names = table.colnames
    return [ArchiveFile.of({name: _plain(row[name]) for name in names}) for row in table]


def _plain(value: Any) -> object:
    """Return a value of a table as Python's own, `None` where it is masked."""
    if np.ma.is_masked(value):
        return None
    value = getattr(value, "value", value)
    return value.item() if hasattr(value, "item") else value


def _announce(jobs: list[ArchiveJob], folder: Path) -> int:
    """Say what is to come, and refuse what the disk has no room for; return the bytes of all."""
    due = [job for job in jobs if job.settings.overwrite or job.flaw() != ""]
    known = sum(max(job.what.size - part_bytes(job.path), 0) for job in due)
    words = len(due), len(jobs), size_text(known), folder
    log.info("%d of %d file(s) to fetch, %s, into %s.", *words)
    if due:
        check_space(folder, known)
    return sum(max(job.what.size, 0) for job in jobs)
