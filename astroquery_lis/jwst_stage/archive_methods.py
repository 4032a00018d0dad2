"""The methods that find uncal files at MAST and fetch them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time

from .._conf import conf
from .._packages import package_version
from .._typing import answering
from ..client.base import QueryBase, in_time
from ..client.inputs import as_path
from ..exceptions import InvalidRequestError, meant, refuse
from ..io.delivery import warn_of_failures
from ..io.http import PoliteSession
from ..io.jobs import deliver_all
from ..io.journal import manifest
from ..io.whole_files import writing
from ..survey.sphere import Polygon, as_angle_deg, separation_deg
from .archive_jobs import ArchiveJob, ArchiveSettings, announce, files_of, find_token, url_of
from .mission_search import PAGE_ROWS, MissionSearch, find_uncal
from .pipelines import EXP_TYPES, is_guider, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._typing import Angle as AnyAngle
    from .._typing import Coordinates, Executor, FilePath, Payload

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
            instrument=as_choices("instrument", instrument, WORDS["instruments"]),
            filters=as_choices("filters", filters, WORDS["elements"]),
            detector=as_choices("detector", detector, WORDS["detectors"]),
            exp_type=as_choices("exp_type", exp_type, UNCAL_TYPES),
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
        files, server = files_of(table), _server()
        if get_query_payload:
            return {"service": server, "urls": [url_of(server, file.uri) for file in files]}
        if not isinstance(max_workers, int) or not 1 <= max_workers <= MOST_WORKERS:
            refuse("max_workers", max_workers, f"must be a number from 1 to {MOST_WORKERS}.")
        folder = as_path("download_dir", download_dir)
        if folder is None:
            refuse("download_dir", None, "must be the path of a folder.")
        are_public = all(file.public for file in files)
        settings = ArchiveSettings(
            server=server,
            folder=str(folder),
            token=None if are_public and token is None else find_token(token, server),
            overwrite=bool(overwrite),
            client_options=(*self._archive_options().items(), ("timeout_s", float(self.timeout))),
            call=uuid.uuid4().hex,
        )
        jobs = [ArchiveJob(number, file, settings) for number, file in enumerate(files)]
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        results = deliver_all(
            jobs,
            max_threads=max_workers,
            executor=executor,
            total_bytes=announce(jobs, folder),
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
    # It brings all of the survey's modules along.
    from ..client.inputs import as_position

    radius_deg = DEFAULT_RADIUS_DEG if radius is None else as_angle_deg("radius", radius, 1.0)
    return (*as_position(coordinates), radius_deg)


def _refuse_too_wide(request: UncalRequest) -> None:
    if request.observation and not request.program:
        msg = "observation says nothing without program: name the program too."
        raise InvalidRequestError(msg, parameter="observation", value=request.observation)
    _refuse_backwards(request.start, request.end)
    if not request.program and request.circle is None and request.start is None:
        msg = "That is most of the archive: give a program, coordinates, or a start_date."
        raise InvalidRequestError(msg, parameter="program")


def _refuse_backwards(start: Time | None, end: Time | None) -> None:
    if start is not None and end is not None and end < start:
        msg = f"end_date ({end.iso}) is before start_date ({start.iso})."
        raise InvalidRequestError(msg, parameter="end_date", value=end.iso)


# ---- what is asked for ---------------------------------------------------------------------------

# Instruments, detectors, optical elements and kinds of exposure are those that were launched: what
# is not in the lists is a slip of the pen.
WORDS: dict[str, list[str]] = read_table("keywords")["words"]

UNCAL_TYPES = [name for name, kind in EXP_TYPES.items() if not (kind.is_retired or is_guider(name))]
"""Kinds of exposure, without those of guide stars."""

SEARCH_MARGIN_DEG = 0.25
"""How far from its target a detector may look: other modules, parallel instruments."""


def as_choices(parameter: str, value: Any, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return names out of a list, in upper case; none for `None`."""
    names = []
    for entry in _entries(parameter, value):
        name = str(entry).strip().upper()
        if name not in allowed:
            # A hundred names would hide the one that was meant.
            hint = meant(name, allowed)
            must = "is not known." if hint else f"is none of {', '.join(allowed)}."
            refuse(parameter, entry, must + hint)
        names.append(name)
    return tuple(dict.fromkeys(names))


def as_numbers(parameter: str, value: Any, largest: int) -> tuple[int, ...]:
    """Return numbers of programs or observations; none for `None`."""
    numbers = []
    for entry in _entries(parameter, value):
        text = str(entry).strip()
        if isinstance(entry, bool) or not text.isdecimal() or not 0 < int(text) <= largest:
            refuse(parameter, entry, f"must be a number from 1 to {largest}, or several.")
        numbers.append(int(text))
    return tuple(dict.fromkeys(numbers))


def _entries(parameter: str, value: Any) -> list:
    """Return the entries of one value, of text with commas, or of several values."""
    if value is None:
        return []
    if isinstance(value, str):
        return value.split(",")
    entries = list(value) if isinstance(value, Iterable) else [value]
    if not entries:
        refuse(parameter, value, "is empty; leave it out to take all.")
    return entries


_RANGES = {
    (False, False): "",
    (True, False): ">={0}",
    (False, True): "<={1}",
    (True, True): "{0}..{1}",
}
"""How the service reads a range of days of which a begin, an end or both are set."""


@dataclass(frozen=True)
class UncalRequest:
    """What is asked for; every tuple is empty for no condition."""

    program: tuple = ()
    observation: tuple = ()
    instrument: tuple = ()
    filters: tuple = ()
    detector: tuple = ()
    exp_type: tuple = ()
    start: Time | None = None
    end: Time | None = None
    circle: tuple[float, float, float] | None = None
    """RA, Dec and radius, degrees."""
    public_only: bool = False
    associations: bool = False

    def criteria(self) -> dict[str, str]:
        """Return what the service can test, by key of `~.mission_search.COLUMNS`."""
        tested = ("program", "observation", "instrument", "exp_type")
        texts = {key: ",".join(map(str, getattr(self, key))) for key in tested}
        # The service may know the day only; the moment is compared here.
        first, last = _day(self.start, -1), _day(self.end, 1)
        day = _RANGES[bool(first), bool(last)].format(first, last)
        texts = {"level": "1b", **texts, "day": day}
        return {key: text for key, text in texts.items() if text}

    @property
    def cone(self) -> tuple[SkyCoord | None, u.Quantity | None]:
        """Centre and radius of the circle in which the service searches, `None` for none."""
        if self.circle is None:
            return None, None
        ra_deg, dec_deg, radius_deg = self.circle
        return SkyCoord(ra_deg, dec_deg, unit="deg"), (radius_deg + SEARCH_MARGIN_DEG) * u.deg

    def wants(self, facts: Mapping[str, Any]) -> bool:
        """Return True if a file is asked for: by its row of the search, and its name."""
        return self._is_named(facts) and self._in_time(facts) and self._on_sky(facts)

    def _is_named(self, facts: Mapping[str, Any]) -> bool:
        for key in ("program", "observation", "instrument", "detector", "exp_type"):
            value, allowed = facts.get(key), getattr(self, key)
            value = value.upper() if isinstance(value, str) else value
            # What is not known may be what is asked for.
            if value and allowed and value not in allowed:
                return False
        return not self.filters or not _elements(facts).isdisjoint(self.filters)

    def _in_time(self, row: Mapping[str, Any]) -> bool:
        text = str(row.get("begun") or "")
        if not text or (self.start is None and self.end is None):
            return True
        begun = Time(text.replace("Z", ""), scale="utc")
        # Where only the day is known, the whole of it counts.
        day = int(_is_day(text)) * u.day
        early = self.start is not None and begun + day <= self.start - 0.001 * u.s
        late = self.end is not None and begun > self.end
        return not (early or late)

    def _on_sky(self, row: Mapping[str, Any]) -> bool:
        if self.circle is None:
            return True
        touches = _touches(str(row.get("s_region") or ""), *self.circle)
        if touches is not None:
            return touches
        place: tuple[Any, ...] = row.get("ra_deg"), row.get("dec_deg")
        if None in place:
            return True
        ra_deg, dec_deg, radius_deg = self.circle
        return bool(separation_deg(ra_deg, dec_deg, *map(float, place)) <= radius_deg)


@lru_cache(maxsize=65_536)
def _touches(text: str, ra_deg: float, dec_deg: float, radius_deg: float) -> bool | None:
    """Return True if a footprint touches a circle; `None` if the text is none."""
    # They bring the code for mosaics along.
    from .legacy.fields import Field, Footprint
    from .planning.footprints import parse_s_region

    try:
        shapes = parse_s_region(text)
    except InvalidRequestError:
        return None
    field = Field((Footprint("", shapes),))
    corners = separation_deg(ra_deg, dec_deg, *field.corners())
    if len(shapes) == 1 and isinstance(shapes[0], Polygon) and corners.min() <= radius_deg:
        return True
    # The whole test takes a hundred times as long.
    if corners.min() > radius_deg + 2 * field.enclosing().radius_deg:
        return False
    return bool(field.contains(np.array([ra_deg]), np.array([dec_deg]), margin_deg=radius_deg)[0])


def _day(moment: Time | None, days: int) -> str:
    """Return the day that is some days after a moment; empty for `None`."""
    return "" if moment is None else (moment + days * u.day).strftime("%Y-%m-%d")


def as_moment(parameter: str, value: Any, *, is_end: bool = False) -> Time | None:
    """Return a date as a time."""
    if value is None:
        return None
    try:
        moment = Time(value, scale="utc") if isinstance(value, str) else Time(value).utc
    except (ValueError, TypeError) as error:
        msg = f"{parameter}={value!r} must be a Time or a date such as '2022-07-01'."
        raise InvalidRequestError(msg, parameter=parameter, value=value) from error
    if not moment.isscalar:
        msg = f"{parameter} has shape {moment.shape}; one date is due."
        raise InvalidRequestError(msg, parameter=parameter, value=value)
    if is_end and _is_day(value):
        moment += 1 * u.day - 1 * u.ms
    return moment


def _is_day(value: object) -> bool:
    """Return True for a date without a time."""
    return isinstance(value, str) and len(value.strip()) <= 10


def _elements(row: Mapping[str, Any]) -> set[str]:
    """Return every optical element that a row names."""
    values = (row.get(key) for key in ("filter", "pupil", "grating", "band", "elements"))
    return {word for value in values if value for word in re.findall(r"\w+", str(value).upper())}
